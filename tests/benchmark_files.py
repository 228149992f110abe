"""Small folders in the layouts of the published benchmark: a clone of the release, and the set's own folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from twodasl_lite.datasets.annotations import annotation_to_coefficients
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import euler_to_matrix
from twodasl_lite.geometry.photos import crop_photo, landmarks_box

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")

SIZE = 450
COUNT = 10
FAILED = (3, 7)
"""Faces on which the detector failed."""
YAWS = (0.0, 20.0, -29.0, 33.0, -45.0, 58.0, 62.0, -75.0, 350.0, -100.0)
"""Degrees, as written: a turn too many in one."""


def names(count: int = COUNT) -> list[str]:
    return [f"image{10 * k + 2:05d}" for k in range(count)]


class Benchmark:
    """Annotations of COUNT faces of a small Basel-like model in micrometres."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        spread = np.array([70e3, 80e3, 50e3])
        mean = rng.uniform(-1, 1, (68, 3)) * spread
        self.shape_basis = rng.normal(size=(68, 3, 199)) * 1e-3
        self.expression_basis = rng.normal(size=(68, 3, 29)) * 1e3
        self.model = MorphableModel(
            torch.from_numpy(mean),
            torch.from_numpy(self.shape_basis[..., :40]),
            torch.from_numpy(self.expression_basis[..., :10]),
            torch.zeros(0, 3, dtype=torch.int64),
            torch.arange(68),
            shape_std=torch.full((40,), 1e5, dtype=torch.float64),
            expression_std=torch.ones(10, dtype=torch.float64),
            units="um",
        )
        self.names = names()
        self.shapes = np.zeros((COUNT, 199))
        self.shapes[:, :40] = rng.normal(size=(COUNT, 40)) * 1e5
        self.expressions = np.zeros((COUNT, 29))
        self.expressions[:, :10] = np.round(rng.uniform(0, 3, (COUNT, 10)))  # whole numbers: some files hold bytes
        self.poses = np.zeros((COUNT, 7))
        self.poses[:, 0], self.poses[:, 2] = rng.uniform(-0.3, 0.3, (2, COUNT))
        self.poses[:, 1] = np.radians(YAWS)
        self.poses[:, 3:5] = 225.0 + rng.uniform(-20, 20, (COUNT, 2))
        self.poses[4, 3] = 40.0  # half out of the picture: its box is cut off
        self.poses[:, 5], self.poses[:, 6] = -40.0, 1.2e-3
        faces = mean + np.einsum("vck,bk->bvc", self.shape_basis, self.shapes)
        faces = faces + np.einsum("vck,bk->bvc", self.expression_basis, self.expressions)
        rotation = euler_to_matrix(torch.from_numpy(self.poses[:, :3])).numpy()
        frame = self.poses[:, 6, None, None] * faces @ rotation.transpose(0, 2, 1) + self.poses[:, None, 3:6]
        self.pt3d = np.stack([frame[..., 0], SIZE + 1 - frame[..., 1], frame[..., 2]], axis=1)  # (B, 3, 68), from 1
        self.landmarks = torch.from_numpy(self.pt3d).mT - torch.tensor([1.0, 1.0, 0.0])
        self.boxes = landmarks_box(self.landmarks)

    def photo(self, k: int) -> np.ndarray:
        """A smooth picture of its own."""
        rng = np.random.default_rng(1000 + k)
        return cv2.resize(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)

    def write_mat(self, path: Path, k: int) -> None:
        expression = self.expressions[k][:, None]
        scipy.io.savemat(
            path,
            {
                "pt2d": np.zeros((2, 21), np.float32),
                "Pose_Para": self.poses[k][None],
                "Shape_Para": self.shapes[k][:, None],
                "Exp_Para": expression.astype(np.uint8) if k % 2 else expression,
                "roi": np.array([[1, 1, SIZE, SIZE]], np.int16),
                "pt3d_68": self.pt3d[k],
            },
        )

    def write_folder(self, folder: Path) -> Path:
        """``AFLW2000`` as its zip file unpacks."""
        folder.mkdir(parents=True, exist_ok=True)
        for k, name in enumerate(self.names):
            self.write_mat(folder / f"{name}.mat", k)
            cv2.imwrite(str(folder / f"{name}.jpg"), self.photo(k)[..., ::-1])
        return folder

    def clamped(self) -> np.ndarray:
        return np.clip(self.boxes.numpy(), 0, SIZE - 1)

    def raw(self) -> np.ndarray:
        """The truth as raw coefficients ``(B, 62)`` of the exact mapping: perfect predictions."""
        parts = (torch.from_numpy(part) for part in (self.poses, self.shapes, self.expressions))
        return annotation_to_coefficients(*parts, self.boxes, SIZE, units="um").pack().numpy()

    def write_clone(self, root: Path) -> Path:
        """The benchmark's part of a clone of ``XgTu/2DASL``."""
        base = root / "test_codes"
        configs, data = base / "test.configs", base / "test.data"
        for folder in (configs, data / "AFLW2000-3D_crop", base / "results"):
            folder.mkdir(parents=True)
        self.write_folder(data / "AFLW-2000-3D")
        np.save(configs / "AFLW2000-3D.pts68.npy", self.pt3d.astype(np.float32))
        np.save(configs / "AFLW2000-3D-Reannotated.pts68.npy", np.round(self.pt3d[:, :2]).astype(np.float32) - 1)
        np.save(configs / "AFLW2000-3D.pose.npy", np.degrees(self.poses[:, 1]).astype(np.float32))
        np.save(configs / "AFLW2000-3D_crop.roi_box.npy", (self.clamped() + 1).astype(np.float32))
        (data / "AFLW2000-3D_crop.list").write_text("".join(f"{name}.jpg\n" for name in self.names))
        shown = [name for k, name in enumerate(self.names) if k not in FAILED]
        (data / "AFLW1998-3D_crop.list").write_text("".join(f"{name}.jpg\n" for name in shown))
        crops = (self.landmarks.numpy()[..., :2] - self.boxes.numpy()[:, None, :2]) * (
            120 / (self.boxes.numpy()[:, None, 2:] - self.boxes.numpy()[:, None, :2] + 1)
        )
        lines = []
        for k, name in enumerate(self.names):
            cells = np.round(crops[k]).reshape(-1)
            lines.append(f"{k}\n" if k in FAILED else f"{name}.jpg,{','.join(map(str, cells))}\n")
            photo = crop_photo(self.photo(k), self.boxes[k])
            cv2.imwrite(str(data / "AFLW2000-3D_crop" / f"{name}.jpg"), photo[..., ::-1])
        (data / "detect_testData.txt").write_text("".join(lines))
        rows = [k for k in range(COUNT) if k not in FAILED]
        np.save(base / "results" / "params_aflw2000_xgtu.npy", self.raw()[rows])
        return root

    def write_basel(self, path: Path) -> Path:
        """The model's file, with a whitening that does nothing (so that whitened is raw)."""
        np.savez(
            path,
            mean=self.model.mean.numpy(),
            shape=self.model.shape_basis.numpy(),
            expression=self.model.expression_basis.numpy(),
            coefficient_mean=np.zeros(62),
            coefficient_std=np.ones(62),
        )
        return path
