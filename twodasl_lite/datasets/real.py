"""Real photographs with known coefficients, with the interface of every other dataset; base of the two published ones.

Pictures stay on disk and are read on demand, by several threads. Such datasets come without detected points, so a
simulated detector (:mod:`~twodasl_lite.worlds.detector`) adds noise to the known landmarks, the same noise whenever a
picture is read. The depth of a face is not observable; as everywhere in this package, the landmarks' mean depth is set
to zero.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.datasets.shards import fingerprint
from twodasl_lite.datasets.stream import seeded
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import CROP_SIZE, matrix_to_euler
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.render import visible_vertices
from twodasl_lite.worlds.detector import detect
from twodasl_lite.worlds.draws import Draws

THREADS = 4
"""Number of pictures that are read at a time."""

_Z_TRANSLATION = 11  # entry of the packed coefficients
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_TAIL = 1024  # last bytes of a file, among which a JPEG's end is searched; some programs write more after it
_MARKERS_WITH_SIZE = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}

Progress = Callable[[int, int], None]
Report = Callable[[str], None]


class LabelledPictures:
    """Pictures with known coefficients.

    Args:
        model: The face model that the coefficients are for.
        coefficients: ``(N, D)`` raw, for the crops.
        names: Unique name of each picture.
        seed: Seed of the simulated detector and of the order in which shards of the set are written.
        visibility: Whether to compute which landmarks the face itself hides, for which every face is drawn once more.
        threads: Number of pictures that are read at a time.
    """

    kind = "labelled pictures"
    """Name of the dataset, for manifests."""

    def __init__(
        self,
        model: MorphableModel,
        coefficients: torch.Tensor,
        names: Sequence[str],
        *,
        seed: int = 0,
        visibility: bool = False,
        threads: int = THREADS,
    ) -> None:
        coefficients = check_tensor("coefficients", coefficients, ("N", model.layout.size)).float()
        if len(names) != len(coefficients):
            raise ShapeError(f"names: found {len(names)}; expected one for each of {len(coefficients)} pictures")
        self.model, self.names, self.seed = model, list(names), seed
        self.visibility, self.threads = visibility, threads
        depth = decode_landmarks(coefficients.to(model.mean), model)[..., 2].mean(dim=1).to(coefficients)  # (N,)
        self.coefficients = coefficients.clone()
        """``(N, D)`` raw; the landmarks' mean depth is zero."""
        self.coefficients[:, _Z_TRANSLATION] -= depth
        pose = Coefficients.unpack(self.coefficients, model.layout).pose
        self.yaw = torch.rad2deg(matrix_to_euler(pose[..., :3].double())[:, 1]).float()
        """``(N,)`` degrees, within ±90."""
        self._order: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, index: int) -> np.ndarray:
        """One crop, ``(120, 120, 3)`` uint8 RGB; read from disk."""
        raise NotImplementedError

    def take(self, index: torch.Tensor | Sequence[int]) -> FaceBatch:
        """The pictures at ``(B,)`` indices, in that order.

        Raises:
            FileFormatError: If a picture is damaged; the message names it.
            ValueRangeError: If an index is out of range.
        """
        index = torch.as_tensor(index)
        if not index.numel():
            raise ShapeError("index: found no index; expected at least one")
        if not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            found = f"{int(index.min())} to {int(index.max())}"
            raise ValueRangeError(f"index: found {found}; expected 0 to {len(self) - 1}")
        with ThreadPoolExecutor(self.threads) as pool:
            pictures = list(pool.map(self.picture, index.tolist()))
        images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
        coefficients, yaw = self.coefficients[index], self.yaw[index]
        exact = coefficients.to(self.model.mean)
        landmarks = decode_landmarks(exact, self.model).float().cpu()  # (B, 68, 3)
        extent = landmarks[..., :2].amax(dim=1) - landmarks[..., :2].amin(dim=1)
        points = subset_18(landmarks[..., :2])
        detected, reported = detect(points, yaw, extent.prod(dim=-1).sqrt(), Draws(self.seed, index))
        visible = None
        if self.visibility:
            vertices = decode(exact, self.model).float()
            inside = ((landmarks[..., :2] > -0.5) & (landmarks[..., :2] < CROP_SIZE - 0.5)).all(dim=-1)
            visible = visible_vertices(vertices, self.model.triangles, self.model.landmarks).cpu() & inside
        return FaceBatch(images, detected, reported, landmarks, visible, coefficients, yaw)

    # ------------------------------------------------------------------------------------- as a source of shards
    def describe(self) -> dict[str, object]:
        """Everything that shards of the set depend on."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        digest.update(self.coefficients.numpy().tobytes())
        return {
            "set": self.kind,
            "pictures": len(self),
            "labels": digest.hexdigest(),
            "seed": self.seed,
            "visibility": self.visibility,
            "model": {"name": self.model.name, "sha256": fingerprint(self.model)},
        }

    def batch(self, start: int, count: int) -> FaceBatch:
        """Pictures in a shuffled order, so that each shard is a mixture of the set."""
        if self._order is None:
            self._order = torch.randperm(len(self), generator=seeded(self.seed))
        return self.take(self._order[start : start + count])


def jpeg_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of a JPEG, without decoding it; detects truncated files.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it is missing, not a JPEG, or truncated.
    """
    path, expected = Path(path), "a whole JPEG"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    data = path.read_bytes()
    if not data.startswith(_JPEG_START):
        raise FileFormatError(path, "a file that is not a JPEG" if data else "an empty file", expected)
    if _JPEG_END not in data[-_TAIL:]:
        raise FileFormatError(path, "a JPEG without an end", expected)
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        if marker in _MARKERS_WITH_SIZE:
            height, width = (int.from_bytes(data[position + k : position + k + 2], "big") for k in (5, 7))
            if width and height:
                return width, height
            break
        position += 2 + length if marker != 0xFF else 1  # 0xFF may be repeated as padding
    raise FileFormatError(path, "a JPEG without a size", expected)
