"""AFLW's faces as released by Tu et al. (2019): 21,080 crops with up to 21 landmarks.

These are the 2D-only training photos. In AFLW (Koestinger et al. 2011), 21 points are marked by hand where they are
visible. AFLW2000-3D's 2,000 faces are the first of AFLW's, so all of them are among these crops, under their own names,
and must not be trained on. Filtering by name is not enough, because AFLW contains some photos twice. Compared by
pixels, 160 test crops have a near copy among the other 19,080 pictures; 293 have one if the test faces' crops *of this
set*, which are cut in the same way as the copies, are compared too. :func:`training_set` leaves out all of these. It
misses copies that resemble neither crop.

Points here are 0-based pixels of the 120x120 crop; the files count pixels of the photo from 1 and mark a hidden point
by x = -1, y = 452. See chapters 15 and 16.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import FileFormatError, ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.datasets.aflw2000 import IMAGE_SIZE, read_names, read_rows
from twodasl_lite.geometry.camera import CROP_SIZE, image_to_crop
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import NUM_AFLW
from twodasl_lite.geometry.photos import read_photo
from twodasl_lite.worlds.detector import REFERENCE_SIZE, detect
from twodasl_lite.worlds.draws import Draws

AFLW_TO_18 = (*range(12), 13, 14, 15, 17, 18, 19)
"""Indices of the landmark map's points among AFLW's 21, in the map's order; all but the ears and the chin."""
_FIRST = 1.0  # the files count pixels from 1
_HIDDEN_X = -1.0  # as stored in the files

THUMBNAIL = 24
DUPLICATE = 0.95
"""Correlation of two grey thumbnails above which two pictures count as the same."""


class Unclamped(NamedTuple):
    """Crop boxes as they were before they were clamped to the photo.

    Attributes:
        boxes: ``(N, 4)`` left, top, right, bottom.
        certain: ``(N,)`` whether the box is known: it touched no edge, or its other side tells how much was cut off.
    """

    boxes: torch.Tensor
    certain: torch.Tensor


def unclamp_boxes(boxes: torch.Tensor, size: int = IMAGE_SIZE) -> Unclamped:
    """Undo a mistake of the release: its boxes are clamped to the photo, although its crops are padded.

    Crop boxes are squares. A box that is narrower than it is high has lost the part beyond the edge that it touches,
    and gets it back. A box that touches edges in both x and y, or two opposite edges, may have lost more than its other
    side shows.

    Args:
        boxes: ``(N, 4)`` left, top, right, bottom, 0-based and inclusive.
        size: Side of the photo in pixels.

    Returns:
        The boxes, and which of them are certain.
    """
    boxes = check_tensor("boxes", boxes, ("N", 4)).clone()
    side = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)  # (N,)
    low, high = boxes[:, :2] <= 0, boxes[:, 2:] >= size - 1  # (N, 2) touches in x, in y
    short = side[:, None] - (boxes[:, 2:] - boxes[:, :2])  # (N, 2)
    lost = short > 0
    boxes[:, :2] -= torch.where(lost & low & ~high, short, 0)
    boxes[:, 2:] += torch.where(lost & high & ~low, short, 0)
    touching = low | high
    certain = ~touching.all(dim=1) & ~(low & high).any(dim=1) & ~(lost & ~touching).any(dim=1)
    return Unclamped(boxes, certain)


@dataclass(frozen=True)
class AFLW:
    """The crops with their visible landmarks: a :class:`~twodasl_lite.datasets.stream.FaceSet` of 2D-only pictures.

    Attributes:
        folder: Folder of the crops.
        names: N names without suffix.
        landmarks: ``(N, 21, 2)`` float64 in crop pixels, NaN where hidden.
        yaw: ``(N,)`` in degrees, from a model fitted by others; good enough to show how poses are distributed.
        noise_seed: Seed of a simulated detector's noise on the landmarks, or None for the points as marked.
        problems: One sentence for each thing that could not be used.
    """

    folder: Path
    names: tuple[str, ...]
    landmarks: torch.Tensor
    yaw: torch.Tensor
    noise_seed: int | None = None
    problems: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def select(self, index: Sequence[int] | torch.Tensor) -> AFLW:
        """The faces at some indices, in that order."""
        index = torch.as_tensor(index, dtype=torch.int64)
        names = tuple(self.names[k] for k in index.tolist())
        return replace(self, names=names, landmarks=self.landmarks[index], yaw=self.yaw[index])

    def without(self, names: Iterable[str]) -> AFLW:
        """The faces that are not among ``names``."""
        out = set(names)
        return self.select([k for k, name in enumerate(self.names) if name not in out])

    def with_noise(self, seed: int = 0) -> AFLW:
        """The same faces with landmarks as a detector would find them (:mod:`twodasl_lite.worlds.detector`)."""
        return replace(self, noise_seed=seed)

    def crop(self, name: str) -> np.ndarray:
        """One crop, ``(120, 120, 3)`` RGB.

        Raises:
            FileFormatError: If the file is missing, damaged or of another size.
        """
        path = self.folder / f"{name}.jpg"
        photo = read_photo(path)
        if photo.shape[:2] != (CROP_SIZE, CROP_SIZE):
            raise FileFormatError(
                path, f"{photo.shape[1]}x{photo.shape[0]} pixels", f"a crop of {CROP_SIZE}x{CROP_SIZE}"
            )
        return photo

    def take(self, index: torch.Tensor) -> FaceBatch:
        """Pictures at ``(B,)`` indices with their visible points: those of the landmark map, and all 21 as marked.

        Raises:
            FileFormatError: If a picture cannot be read; :func:`training_set` leaves such pictures out.
        """
        index = torch.as_tensor(index, dtype=torch.int64)
        crops = [self.crop(self.names[k]) for k in index.tolist()]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous()  # (B, 3, 120, 120)
        marked = self.landmarks[index].float()  # (B, 21, 2)
        points = marked[:, AFLW_TO_18]  # (B, 18, 2)
        visible = torch.isfinite(points).all(dim=-1)
        if self.noise_seed is not None:
            draws = Draws(self.noise_seed, index)
            size = torch.full((len(index),), REFERENCE_SIZE)
            found, reported = detect(points.nan_to_num(0.0), self.yaw[index].float(), size, draws)
            visible = visible & reported
            points = torch.where(visible[..., None], found, torch.nan)
        return FaceBatch(images, points, visible, marked=marked)

    def thumbnails(self, progress: Callable[[int, int], None] | None = None) -> Thumbnails:
        """Small grey versions of all crops, see :func:`thumbnails`."""
        return thumbnails(self.names, self.crop, progress)


def read_aflw(root: str | os.PathLike[str]) -> AFLW:
    """Read the crops' names, landmarks and yaws from a clone of ``XgTu/2DASL``.

    Faces whose crop box cannot be known (it was cut off in two directions) are left out and counted in ``problems``.

    Args:
        root: The clone, or its folder ``test_codes``.

    Raises:
        FileFormatError: If something is missing, or lists and arrays disagree.
    """
    root = Path(root)
    base = root / "test_codes" if (root / "test_codes").is_dir() else root
    configs, folder = base / "test.configs", base / "test.data" / "AFLW_GT_crop"
    names = read_names(base / "test.data" / "AFLW_GT_crop.list")
    written = read_rows(configs / "AFLW_GT_pts21.npy", names, (2, NUM_AFLW)).mT  # (N, 21, 2)
    boxes = read_rows(configs / "AFLW_GT_crop_roi_box.npy", names, (4,)) - _FIRST
    yaw = read_rows(configs / "AFLW_GT_crop_yaws.npy", names, ())
    if not folder.is_dir():
        raise FileFormatError(folder, "no such folder", f"the crops of {len(names)} pictures")
    full = unclamp_boxes(boxes)
    hidden = (written[..., 0] == _HIDDEN_X)[..., None]
    points = image_to_crop(written - _FIRST, full.boxes).masked_fill(hidden, torch.nan)
    found = AFLW(folder, names, points, yaw)
    uncertain = int((~full.certain).sum())
    if uncertain:
        found = found.select(full.certain.nonzero()[:, 0])
        sentence = f"{uncertain} of {len(names)} faces left out: their crop boxes were cut off in two directions"
        found = replace(found, problems=(sentence,))
    return found


# ---------------------------------------------------------------------------------------------- the same picture twice
class Thumbnails(NamedTuple):
    """Small grey pictures for comparison.

    Attributes:
        names: Names of the pictures that could be read.
        pixels: ``(N, 576)`` single precision; each row has zero mean and unit length, so that dot products are
            correlations.
        problems: A sentence for each picture that could not be read.
    """

    names: tuple[str, ...]
    pixels: torch.Tensor
    problems: tuple[str, ...] = ()


class Duplicate(NamedTuple):
    """Two pictures that are nearly the same.

    Attributes:
        first: Name in the first set.
        second: Name in the second.
        correlation: Correlation of their thumbnails.
    """

    first: str
    second: str
    correlation: float


def thumbnails(
    names: Sequence[str],
    read: Callable[[str], np.ndarray],
    progress: Callable[[int, int], None] | None = None,
) -> Thumbnails:
    """Make thumbnails for comparison (0.2 ms per crop).

    Args:
        names: Names of the pictures.
        read: Function that returns the photo of a name; a picture that cannot be read is named in ``problems``.
        progress: Called with the number of pictures done and the total.
    """
    kept, rows, problems = [], [], []
    for k, name in enumerate(names):
        try:
            grey = cv2.cvtColor(read(name), cv2.COLOR_RGB2GRAY)
        except TwodaslError as error:
            problems.append(str(error))
        else:
            rows.append(cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).reshape(-1))
            kept.append(name)
        if progress is not None:
            progress(k + 1, len(names))
    pixels = torch.from_numpy(np.array(rows, dtype=np.float32).reshape(len(rows), THUMBNAIL**2))
    pixels = pixels - pixels.mean(dim=1, keepdim=True)
    pixels = pixels / pixels.norm(dim=1, keepdim=True).clamp(min=1e-6)  # a picture of one colour resembles no other
    return Thumbnails(tuple(kept), pixels, tuple(problems))


def near_duplicates(first: Thumbnails, second: Thumbnails, threshold: float = DUPLICATE) -> list[Duplicate]:
    """Pairs of pictures from two sets that are nearly the same, whatever their names.

    Args:
        first: Thumbnails of one set, for instance the test set.
        second: Thumbnails of the other set, for instance the training candidates.
        threshold: Correlation above which two pictures count as the same.

    Returns:
        All pairs above the threshold, the most similar first.

    Raises:
        ValueRangeError: If the threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise ValueRangeError(f"threshold: found {threshold}; expected between 0 and 1")
    if not first.names or not second.names:
        raise ShapeError("thumbnails: found a set without pictures; expected at least one in each")
    pairs = []
    for start in range(0, len(second.names), 4096):
        correlation = first.pixels @ second.pixels[start : start + 4096].T  # (N, up to 4096)
        for i, j in (correlation > threshold).nonzero().tolist():
            pairs.append(Duplicate(first.names[i], second.names[start + j], float(correlation[i, j])))
    return sorted(pairs, key=lambda pair: -pair.correlation)


class TrainingSet(NamedTuple):
    """The pictures that may be trained on, and those that were left out.

    Attributes:
        faces: The pictures.
        duplicates: Pairs (test picture, its copy among the others) that were found by pixels.
        problems: One sentence for each thing that could not be read.
    """

    faces: AFLW
    duplicates: list[Duplicate]
    problems: tuple[str, ...]


def training_set(
    faces: AFLW,
    test_names: Sequence[str],
    test_crop: Callable[[str], np.ndarray],
    *,
    threshold: float = DUPLICATE,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """The readable crops that are not in the test set, neither by name nor by pixels.

    Args:
        faces: All crops.
        test_names: Names of the test set, :attr:`AFLW2000.names <twodasl_lite.datasets.aflw2000.AFLW2000.names>`.
        test_crop: Function that returns the crop of a test name, ``AFLW2000.crop``. The test set may cut the same photo
            differently, so the crops of the test faces among ``faces`` are compared too.
        threshold: Threshold of the correlation, see :func:`near_duplicates`.
        progress: Called with the number of pictures read and the total.
    """
    names = set(test_names)
    others = faces.without(names)
    small = others.thumbnails(progress)
    problems = list(faces.problems) + list(small.problems)
    found: dict[tuple[str, str], Duplicate] = {}
    for read, known in ((test_crop, test_names), (faces.crop, [name for name in faces.names if name in names])):
        test = thumbnails(list(known), read)
        if test.names:
            for pair in near_duplicates(test, small, threshold):
                found.setdefault((pair.first, pair.second), pair)
    duplicates = sorted(found.values(), key=lambda pair: -pair.correlation)
    unreadable = set(others.names) - set(small.names)
    kept = others.without(unreadable | {pair.second for pair in duplicates})
    return TrainingSet(kept, duplicates, tuple(problems))
