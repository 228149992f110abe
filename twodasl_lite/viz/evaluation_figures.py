"""Figures of errors for print, in matplotlib: error curves, and a sheet of the worst cases.

Errors are passed as fractions and drawn in per cent. Curves and bars differ by dash, hatch and position as well as by
colour. See chapter 14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch

from twodasl_lite.base.errors import ShapeError
from twodasl_lite.evaluation import auc, ced
from twodasl_lite.evaluation.curves import LIMIT
from twodasl_lite.geometry.landmarks import draw_landmarks
from twodasl_lite.geometry.photos import crop_photo, landmarks_box
from twodasl_lite.viz.palette import CATEGORICAL

_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)))
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "++")
_TRUE_COLOUR, _PREDICTED_COLOUR = (240, 228, 66), (0, 160, 255)
_CAPTION_HEIGHT = 22
_WIDEST = 3.0  # largest width of the picture of a worst case, in face widths


def _tidy(ax, axis: str = "both") -> None:
    ax.grid(True, axis=axis, color="0.85", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def draw_ced(ax, errors: Mapping[str, torch.Tensor], limit: float = LIMIT, *, area: bool = True) -> None:
    """Draw cumulative error distributions.

    Args:
        ax: The matplotlib axes.
        errors: Name to errors ``(N,)``; NaN for faces without a prediction, which count as failures.
        limit: Right end of the axis.
        area: Whether the legend gives the area under each curve.
    """
    if not errors:
        raise ShapeError("errors: found no curve; expected at least one")
    for k, (name, values) in enumerate(errors.items()):
        curve = ced(values, limit)
        label = f"{name} (AUC {auc(values, limit):.3f})" if area else name
        style = {"color": CATEGORICAL[k % len(CATEGORICAL)], "linestyle": _DASHES[k % len(_DASHES)], "linewidth": 1.8}
        ax.plot(100 * curve.errors, 100 * curve.fractions, label=label, **style)
    ax.set(xlim=(0, 100 * limit), ylim=(0, 100), xlabel="NME, % of the face", ylabel="faces, %")
    _tidy(ax)
    ax.legend(loc="lower right", frameon=False, fontsize="small")


def worst_cases(
    photos: Sequence[np.ndarray | None],
    predicted: torch.Tensor,
    truth: torch.Tensor,
    captions: Sequence[str],
    *,
    columns: int = 6,
    cell: int = 240,
) -> np.ndarray:
    """Faces with the true landmarks (yellow) and the predicted ones (blue), as one picture.

    Args:
        photos: Photos; ``None`` for a missing one, whose cell is then grey.
        predicted: Predicted landmarks, ``(N, 68, 2 or 3)`` in photo pixels.
        truth: True landmarks, ``(N, 68, 2 or 3)`` in photo pixels.
        captions: One line per face, in ASCII.
        columns: Number of faces per row.
        cell: Side of a face in pixels.

    Returns:
        The sheet, ``(H, W, 3)`` uint8 RGB.

    Raises:
        ShapeError: If the numbers of photos, landmarks and captions differ.
    """
    num = len(photos)
    if not num or not (len(predicted) == len(truth) == len(captions) == num):
        found = f"{num} photos, {len(predicted)} predictions, {len(truth)} truths, {len(captions)} captions"
        raise ShapeError(f"photos: found {found}; expected the same number of each, above zero")
    columns = min(columns, num)
    rows = -(-num // columns)
    sheet = np.full((rows * (cell + _CAPTION_HEIGHT), columns * cell, 3), 255, dtype=np.uint8)
    for k, photo in enumerate(photos):
        top, left = (k // columns) * (cell + _CAPTION_HEIGHT), (k % columns) * cell
        sheet[top : top + cell, left : left + cell] = _worst_case(photo, predicted[k], truth[k], cell)
        place = (left + 4, top + cell + _CAPTION_HEIGHT - 7)
        cv2.putText(sheet, captions[k], place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (20, 20, 20), 1, cv2.LINE_AA)
    return sheet


def _worst_case(photo: np.ndarray | None, predicted: torch.Tensor, truth: torch.Tensor, cell: int) -> np.ndarray:
    box, own = landmarks_box(torch.cat([truth[:, :2], predicted[:, :2]])), landmarks_box(truth[:, :2])
    if float(box[2] - box[0]) > _WIDEST * float(own[2] - own[0]):  # too far off to show both
        box = own
    scale = cell / float(box[2] - box[0] + 1)
    grey = np.full((cell, cell, 3), 200, dtype=np.uint8)
    picture = grey if photo is None else crop_photo(photo, box, cell)
    for points, colour in ((truth, _TRUE_COLOUR), (predicted, _PREDICTED_COLOUR)):
        placed = (points[:, :2] - box[:2] + 0.5) * scale - 0.5
        picture = draw_landmarks(picture, placed, color=colour, line_color=colour, radius=1.6)
    return picture
