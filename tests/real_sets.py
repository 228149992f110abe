"""Small folders of labelled photographs in the published layouts, for the tests of their readers."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.reader_files import SmallFace, whitening_arrays, write_tddfa_folder
from twodasl_lite.faces import MorphableModel, read_face_model
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import Coefficients

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")

SIDE = 450
NOSE = 30


def raw_model(folder: Path) -> MorphableModel:
    """A small model in 3DDFA's files, 40 + 10, with deviations of the size of Basel's."""
    write_tddfa_folder(folder, SmallFace(40, 10))
    write_whitening(folder / "param_whitening.pkl")
    return read_face_model(folder)


def write_whitening(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Whitening of crops that the small model's faces fill."""
    mean, std = whitening_arrays()
    scale = 4.5e-4  # pixels of the crop per micrometre
    mean[:12] = [scale, 0, 0, 60, 0, scale, 0, 60, 0, 0, scale, -70]
    std[:12] = [scale / 10, scale / 3, scale / 3, 3] * 3
    mean[12:], std[12:52], std[52:] = 0, 2e4, 0.02
    path.write_bytes(pickle.dumps({"param_mean": mean, "param_std": std}, 3))
    return mean, std


def random_annotation(seed: int) -> dict[str, np.ndarray]:
    """The variables of a 300W-LP file for a face in the middle of the picture."""
    rng = np.random.default_rng(seed)
    pitch, yaw, roll = rng.uniform(-0.6, 0.6, 3)
    pose = [pitch, yaw, roll, *rng.uniform(200, 250, 2), -30, rng.uniform(1e-3, 1.6e-3)]
    shape, expression = np.zeros((199, 1)), np.zeros((29, 1))
    shape[:40, 0], expression[:10, 0] = rng.normal(0, 2e4, 40), rng.normal(0, 0.02, 10)
    return {
        "Pose_Para": np.array([pose], np.float32),
        "Shape_Para": shape,
        "Exp_Para": expression,
        "pt2d": rng.uniform(0, SIDE, (2, 68)),
        "roi": np.array([[0, 0, 449, 449]], np.int16),
        "Color_Para": np.ones((1, 7), np.float32),
    }


def image_landmarks(content: dict[str, np.ndarray], model: MorphableModel, height: int = SIDE) -> torch.Tensor:
    """``(68, 3)`` the annotated face's landmarks, 0-based pixels of the picture; written out by hand."""
    pose = torch.from_numpy(content["Pose_Para"][0].astype(np.float64))
    scale = {"um": 1.0, "mm": 1000.0}[model.units] * pose[6]
    points = model.decode_landmarks(
        torch.from_numpy(content["Shape_Para"][:40, 0]), torch.from_numpy(content["Exp_Para"][:10, 0])
    ).double()
    x, y, z = (scale * points @ camera.euler_to_matrix(pose[:3]).T + pose[3:6]).T
    return torch.stack([x - 1, height - y, z], dim=1)


def dotted(points: torch.Tensor, side: int = SIDE) -> np.ndarray:
    """A dark picture with one soft bright dot at the tip of the nose."""
    rows, columns = np.mgrid[:side, :side]
    x, y = (float(v) for v in points[NOSE, :2])
    dot = 200 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4.0**2)) + 20
    return np.repeat(dot[:, :, None], 3, axis=2).round().astype(np.uint8)


def write_jpeg(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])


def write_pair(folder: Path, name: str, seed: int, model: MorphableModel) -> dict[str, np.ndarray]:
    """One picture with its annotation."""
    folder.mkdir(parents=True, exist_ok=True)
    content = random_annotation(seed)
    scipy.io.savemat(folder / f"{name}.mat", content)
    write_jpeg(folder / f"{name}.jpg", dotted(image_landmarks(content, model)))
    return content


def bright_spot(image: torch.Tensor) -> tuple[float, float]:
    """Centre of the dot in a ``(3, 120, 120)`` picture."""
    weight = (image.float().mean(dim=0) - 60).clamp(min=0)
    rows, columns = torch.meshgrid(torch.arange(120.0), torch.arange(120.0), indexing="ij")
    return float((weight * columns).sum() / weight.sum()), float((weight * rows).sum() / weight.sum())


def crop_of(coefficients: torch.Tensor, model: MorphableModel) -> torch.Tensor:
    """Landmarks of packed coefficients in pixels of the crop, by hand."""
    face = Coefficients.unpack(coefficients.to(model.mean), model.layout)
    x, y, z = (model.decode_landmarks(face.shape, face.expression) @ face.pose[:, :3].T + face.pose[:, 3]).T
    return torch.stack([x - 1, 120 - y, z], dim=1)
