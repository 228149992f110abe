"""Faces found by the regressor itself, where there is no detector: slower than one, and it finds less.

A network that was trained with crops cut off-centre answers with the same face of the photo however the crop box is
shifted; where there is no face, or the network does not know, its answer moves along with the box. How little it
moves is its confidence::

    agreement = 1 - (how far the landmarks move in the photo) / (how far they would move along with the box)

The search looks at windows of all sizes all over the photo, follows the answers that most windows lead to, to crops
that stay, and keeps those with an agreement of :data:`FACE` or more. A network that always saw centred faces in
training has hardly any agreement anywhere, and finds nothing: better no mesh than one that hangs in the air.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from twodasl_lite.apps.reconstruction import MIN_FACE, Faces, Reconstruction, _cut_again, _look, _settle, overlap
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.photos import as_photo
from twodasl_lite.networks import TrainedRegressor

FACE = 0.5
"""Least agreement of a face (measured by ``benchmarks/crops_and_search.py``)."""
SHIFTS = torch.tensor([[0.1, 0.0, 1.0], [-0.1, 0, 1], [0, 0.1, 1], [0, -0.1, 1], [0, 0, 1.15], [0, 0, 0.87]])
"""``(6, 3)`` how a crop box is changed to see whether the answer stays: x and y in its sides, and its size."""
_SEARCHED_SIDE = 480  # of the photo in which windows are looked at
_LARGEST, _SMALLEST = 1.15, 0.15  # sides of the windows over the photo's longer side
_STEP, _ZOOM = 0.25, 1.35  # from window to window, in sides; from size to size
_CANDIDATES = 24
_MEET = 0.6  # overlap of crops to which two windows lead, if they lead to the same
_SAME = 0.4  # overlap of two crops that are one face's
_BATCH = 128
_RECROPS = 4


def agreement(
    photo: np.ndarray, trained: TrainedRegressor, model: MorphableModel, crop_boxes: torch.Tensor, looks: int = 2
) -> torch.Tensor:
    """How little the answers move when their crop boxes do.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        trained: The network.
        model: Its face model.
        crop_boxes: ``(N, 4)`` left, top, right, bottom.
        looks: As for :func:`twodasl_lite.networks.prediction.predict`.

    Returns:
        ``(N,)`` 0 to 1: 1 for answers that stay where they are in the photo, 0 for those that move as the box does, or
        more.
    """
    photo = as_photo(photo, "photo")
    if not len(crop_boxes):
        return torch.zeros(0)
    side = crop_boxes[:, 2] - crop_boxes[:, 0]  # (N,)
    middle = (crop_boxes[:, :2] + crop_boxes[:, 2:]) / 2
    middles = middle[:, None] + side[:, None, None] * SHIFTS[:, :2]  # (N, 6, 2)
    halves = (side[:, None] * SHIFTS[:, 2])[..., None] / 2
    shifted = torch.cat([middles - halves, middles + halves], dim=-1)  # (N, 6, 4)
    still = _answers(photo, trained, model, crop_boxes, looks)  # (N, 68, 2)
    moved = _answers(photo, trained, model, shifted.reshape(-1, 4), looks).reshape(len(still), len(SHIFTS), -1, 2)
    distance = (moved - still[:, None]).norm(dim=-1).mean(dim=-1) / side[:, None]  # (N, 6)
    place = (still - middle[:, None]) / side[:, None, None]  # in the crop, from its middle, in sides
    along = (SHIFTS[:, None, :2] + place[:, None] * (SHIFTS[:, None, 2:] - 1)).norm(dim=-1).mean(dim=-1)
    return torch.nan_to_num(1 - (distance / along).mean(dim=1), nan=0.0).clamp(0, 1)


def search_faces(
    photo: np.ndarray,
    trained: TrainedRegressor,
    model: MorphableModel,
    *,
    looks: int = 2,
    min_agreement: float = FACE,
) -> Faces:
    """Look for faces in all of a photo.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        trained: The network.
        model: Its face model.
        looks: As for :func:`twodasl_lite.networks.prediction.predict`.
        min_agreement: Least :func:`agreement` of a face.

    Returns:
        The faces that were found, the surest first; maybe none.
    """
    photo = as_photo(photo, "photo")
    height, width = photo.shape[:2]
    factor = min(1.0, _SEARCHED_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = photo if factor == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    boxes = _promising(small, trained, model)
    boxes = (boxes / factor).round()  # in the pixels of the photo
    boxes = boxes[boxes[:, 2] - boxes[:, 0] >= MIN_FACE]
    if len(boxes):
        sure = agreement(photo, trained, model, boxes, looks=1)
        boxes = boxes[sure >= min_agreement / 2]  # near a face already; exactly there it will be surer
    if not len(boxes):
        return Faces([], photo, model, "search")
    coefficients, boxes = _settle(photo, trained, model, boxes, None, None, looks, _RECROPS)
    sure = agreement(photo, trained, model, boxes, looks)
    found: list[Reconstruction] = []
    for k in sure.argsort(descending=True).tolist():
        if sure[k] < min_agreement or any(overlap(boxes[k], face.crop_box) > _SAME for face in found):
            continue
        face = Reconstruction.of(coefficients[k], boxes[k], height, width, model, float(sure[k]))
        if bool(torch.isfinite(face.landmarks).all()) and face.inside > 0:
            found.append(face)
    return Faces(found, photo, model, "search")


def _promising(photo: np.ndarray, trained: TrainedRegressor, model: MorphableModel) -> torch.Tensor:
    """Crop boxes ``(N, 4)`` to which the answers of most windows lead: those of a face meet, others do not."""
    windows = _windows(*photo.shape[:2])
    if not len(windows):
        return windows
    followed = _cut_again(photo, _answers(photo, trained, model, windows, 1), windows)
    shared = _overlaps(followed)  # (N, N)
    votes = (shared >= _MEET).sum(dim=1)
    chosen: list[int] = []
    for k in votes.argsort(descending=True, stable=True).tolist():
        if not chosen or float(shared[k, chosen].max()) < _MEET:
            chosen.append(k)
        if len(chosen) == _CANDIDATES:
            break
    return followed[chosen]


def _overlaps(boxes: torch.Tensor) -> torch.Tensor:
    """Intersection over union of all pairs of boxes ``(N, 4)``: ``(N, N)``."""
    low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    both = (high - low + 1).clamp(min=0).prod(dim=-1)
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(dim=1)
    return both / (areas[:, None] + areas[None, :] - both)


def _windows(height: int, width: int) -> torch.Tensor:
    """Square boxes of all sizes all over a photo; they may reach beyond it by a part of their side."""
    longest, boxes = max(height, width), []
    side = _LARGEST * longest
    while side >= _SMALLEST * longest and side >= MIN_FACE:
        for top in _places(height, side):
            boxes += [[left, top, left + side, top + side] for left in _places(width, side)]
        side /= _ZOOM
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4).round()


def _places(extent: int, side: float) -> np.ndarray:
    """Where windows begin along one direction."""
    over = 0.15 * side
    if extent + 2 * over <= side:
        return np.array([(extent - side) / 2])
    count = 1 + int(np.ceil((extent + 2 * over - side) / (_STEP * side)))
    return np.linspace(-over, extent + over - side, count)


def _answers(
    photo: np.ndarray, trained: TrainedRegressor, model: MorphableModel, boxes: torch.Tensor, looks: int
) -> torch.Tensor:
    """Landmarks ``(N, 68, 2)`` in the photo's pixels; NaN for boxes off the photo."""
    height, width = photo.shape[:2]
    boxes = boxes.round()
    on = (boxes[:, 2] >= 0) & (boxes[:, 3] >= 0) & (boxes[:, 0] < width) & (boxes[:, 1] < height)
    on &= boxes[:, 2] > boxes[:, 0]
    result = torch.full((len(boxes), 68, 2), float("nan"))
    parts = [_look(photo, trained, model, part, None, None, looks) for part in boxes[on].split(_BATCH)]
    if parts:
        result[on] = decode_landmarks(torch.cat(parts), model, height)[..., :2]
    return result
