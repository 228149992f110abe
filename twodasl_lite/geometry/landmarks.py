"""The 68 landmarks: their order and names, the 18 that the network receives, and the landmark map that encodes them.

The markup is iBUG's (300 Faces in the Wild, Sagonas et al. 2016; it extends CMU's Multi-PIE markup). Points
are rows ``(x, y)`` or ``(x, y, z)`` in 0-based pixels: x right, y down, pixel centres at integers. *Left* and
*right* always mean the left and right **of the picture**, not of the person.

The landmark map is the fourth input channel of the regressor (Tu et al. 2019, section 3.2). See chapters 1 and 4.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import (
    check_choice,
    check_count,
    check_number,
    check_shape,
    check_tensor,
    values_are_trusted,
)
from twodasl_lite.base.constants import constant
from twodasl_lite.base.errors import FileFormatError, InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.geometry.camera import CROP_SIZE

# ------------------------------------------------------------------------------------------------- the markup
_BROW = ("outer", "outer_half", "middle", "inner_half", "inner")
_EYE = ("outer_corner", "upper_outer", "upper_inner", "inner_corner", "lower_inner", "lower_outer")

LANDMARK_NAMES: tuple[str, ...] = (
    *(f"jaw_left_{k}" for k in range(8, 0, -1)),  # 0-7, from the ear down
    "chin",
    *(f"jaw_right_{k}" for k in range(1, 9)),  # 9-16, up to the other ear
    *(f"brow_left_{part}" for part in _BROW),
    *(f"brow_right_{part}" for part in reversed(_BROW)),
    *("nose_bridge_top", "nose_bridge_upper", "nose_bridge_lower", "nose_tip"),
    *("nose_wing_left", "nostril_left", "nose_base", "nostril_right", "nose_wing_right"),
    *(f"eye_left_{part}" for part in _EYE),
    *(f"eye_right_{_EYE[k]}" for k in (3, 2, 1, 0, 5, 4)),
    *("mouth_corner_left", "upper_lip_left", "upper_lip_peak_left", "upper_lip_middle"),
    *("upper_lip_peak_right", "upper_lip_right", "mouth_corner_right"),
    *(
        "lower_lip_right",
        "lower_lip_bottom_right",
        "lower_lip_middle",
        "lower_lip_bottom_left",
        "lower_lip_left",
    ),
    *("inner_corner_left", "inner_upper_lip_left", "inner_upper_lip_middle", "inner_upper_lip_right"),
    *("inner_corner_right", "inner_lower_lip_right", "inner_lower_lip_middle", "inner_lower_lip_left"),
)
"""Name of each landmark; "left" is the left of the picture."""

NUM_LANDMARKS = len(LANDMARK_NAMES)
"""68, the number of landmarks."""

GROUPS: dict[str, list[int]] = {
    "jaw": list(range(17)),
    "left_brow": list(range(17, 22)),
    "right_brow": list(range(22, 27)),
    "nose_bridge": list(range(27, 31)),
    "nose_base": list(range(31, 36)),
    "left_eye": list(range(36, 42)),
    "right_eye": list(range(42, 48)),
    "outer_lip": list(range(48, 60)),
    "inner_lip": list(range(60, 68)),
}
"""Part of the face to the indices of its landmarks; every landmark is in exactly one part."""

CLOSED_GROUPS = ("left_eye", "right_eye", "outer_lip", "inner_lip")
"""Groups whose last point is joined to the first."""

EDGES: tuple[tuple[int, int], ...] = tuple(
    edge
    for name, group in GROUPS.items()
    for edge in itertools.pairwise([*group, group[0]] if name in CLOSED_GROUPS else group)
)
"""Pairs of landmarks that are joined by a line in drawings."""


def _mirror_name(name: str) -> str:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")


MIRROR: torch.Tensor = torch.tensor([LANDMARK_NAMES.index(_mirror_name(name)) for name in LANDMARK_NAMES])
"""Index of each landmark's mirror image, ``(68,)`` int64; landmarks on the midline map to themselves."""

SYMMETRIC_PAIRS: tuple[tuple[int, int], ...] = tuple(
    (left, right) for left, right in enumerate(MIRROR.tolist()) if "left" in LANDMARK_NAMES[left]
)
"""Indices (left, right) of the landmarks that come in pairs; the others lie on the midline."""

SUBSET_18: tuple[tuple[int, ...], ...] = (
    *((17,), (19,), (21,), (22,), (24,), (26,)),
    *((36,), (37, 40), (39,), (42,), (43, 46), (45,)),
    *((31,), (30,), (35,), (48,), (62, 66), (54,)),
)
"""The 18 points of the landmark map, in the order of the authors' released code; each is one of the 68, or
the midpoint of two (the middle of each eye and of the mouth)."""

NUM_SUBSET = len(SUBSET_18)
"""18, the number of points in the landmark map."""

_SUBSET_FIRST = tuple(members[0] for members in SUBSET_18)
_SUBSET_LAST = tuple(members[-1] for members in SUBSET_18)
# Written out: the mirror images of (37, 40) are (44, 47), not the (43, 46) of the other eye's midpoint.
_SUBSET_MIRROR = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 14, 13, 12, 17, 16, 15)

SUBSET_21: tuple[tuple[int, ...], ...] = (
    *((17,), (19,), (21,), (22,), (24,), (26,)),
    *((36,), tuple(range(36, 42)), (39,), (42,), tuple(range(42, 48)), (45,)),
    *((2,), (31,), (30,), (35,), (14,), (48,), tuple(range(60, 68)), (54,), (8,)),
)
"""AFLW's 21 points in terms of the 68; each is one of them, or the mean of several. (For the two ear lobes, 12 and 16,
points of the jaw line stand in, as in the published benchmark.)"""

NUM_AFLW = len(SUBSET_21)
"""21, the number of AFLW's points."""

_AFLW_MIRROR = (5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 16, 15, 14, 13, 12, 19, 18, 17, 20)
_MIRRORS = {NUM_LANDMARKS: tuple(MIRROR.tolist()), NUM_SUBSET: _SUBSET_MIRROR, NUM_AFLW: _AFLW_MIRROR}


def _on(device: torch.device, index: tuple[int, ...]) -> torch.Tensor:
    """Indices on a device."""
    return constant(index, device, torch.int64)


def subset_18(points: torch.Tensor) -> torch.Tensor:
    """Select the 18 points of the landmark map from all 68; differentiable.

    Args:
        points: Landmarks, ``(..., 68, D)``; NaN where a landmark is unknown.

    Returns:
        Points in the order of :data:`SUBSET_18`, ``(..., 18, D)``. A midpoint is NaN if either end is.

    Raises:
        ShapeError: If there are not 68 points.
    """
    points = check_tensor("points", points, ("...", NUM_LANDMARKS, "D"), finite=False)
    first, last = (_on(points.device, ends) for ends in (_SUBSET_FIRST, _SUBSET_LAST))
    return (points[..., first, :] + points[..., last, :]) / 2  # (..., 18, D); (p + p) / 2 is p, exactly


def subset_18_visible(visible: torch.Tensor) -> torch.Tensor:
    """Visibility of the 18 points; a midpoint is visible if both its ends are.

    Args:
        visible: Visibility of the 68 landmarks, ``(..., 68)``, boolean or 0/1.

    Returns:
        Visibility of the 18 points, ``(..., 18)`` boolean.
    """
    visible = _check_visible(visible, ("...", NUM_LANDMARKS))
    return visible[..., _on(visible.device, _SUBSET_FIRST)] & visible[..., _on(visible.device, _SUBSET_LAST)]


def subset_21(points: torch.Tensor) -> torch.Tensor:
    """Compute AFLW's 21 points from all 68.

    Args:
        points: Landmarks, ``(..., 68, D)``.

    Returns:
        Points in the order of :data:`SUBSET_21`, ``(..., 21, D)``.
    """
    points = check_tensor("points", points, ("...", NUM_LANDMARKS, "D"), finite=False)
    return torch.stack([points[..., _on(points.device, members), :].mean(dim=-2) for members in SUBSET_21], dim=-2)


def flip_landmarks(points: torch.Tensor, width: float = CROP_SIZE) -> torch.Tensor:
    """Landmarks of the mirrored picture: x becomes ``width - 1 - x``, and left landmarks become right ones.

    A picture flipped with ``image.flip(-1)`` has these landmarks. Flip the visibility of the 68 with
    ``visible[..., MIRROR]``. Flipping the 18 is exact except at the centres of the eyes, which the published
    order defines by landmarks that do not mirror each other: they differ from ``subset_18(flip_landmarks(all_68))``
    by about 0.4 % of the face's size, less than a detector's noise.

    Args:
        points: Landmarks in pixels, ``(..., N, D)``, N = 68, 18 or AFLW's 21, D at least 2; only x changes.
        width: Width of the picture in pixels.

    Returns:
        A new tensor of the same shape.

    Raises:
        ShapeError: If there are neither 68 nor 18 nor 21 points.
    """
    points = check_tensor("points", points, ("...", "68, 18 or 21", "D"), finite=False)
    if points.shape[-2] not in _MIRRORS or points.shape[-1] < 2:
        raise ShapeError(f"points: found shape {tuple(points.shape)}; expected (..., 68, 18 or 21, 2 or more)")
    flipped = points[..., _on(points.device, _MIRRORS[points.shape[-2]]), :]
    return torch.cat([width - 1 - flipped[..., :1], flipped[..., 1:]], dim=-1)


def flip_visible(visible: torch.Tensor) -> torch.Tensor:
    """Which of the 68 are visible ``(..., 68)`` in the mirrored picture."""
    return visible[..., _on(visible.device, _MIRRORS[NUM_LANDMARKS])]


# ------------------------------------------------------------------------------------------- the landmark map
MapKind = Literal["binary", "gaussian"]
MAP_KINDS: tuple[MapKind, ...] = ("binary", "gaussian")

MAP_BACKGROUND, MAP_PEAK = -1.0, 1.0
"""Values of the map away from and at a landmark."""

GAUSSIAN_SIGMA = 1.5
"""Default width of the Gaussian spots in pixels; about the noise of a good detector on a 120-pixel crop."""

# exp(-12^2 / 2) is 5e-32: a point this many sigmas outside the map cannot change it.
_GAUSSIAN_REACH = 12.0


def landmark_map(
    points: torch.Tensor,
    visible: torch.Tensor | None = None,
    size: int = CROP_SIZE,
    kind: MapKind = "binary",
    sigma: float = GAUSSIAN_SIGMA,
) -> torch.Tensor:
    """Draw landmarks into the regressor's fourth input channel (Tu et al. 2019, section 3.2).

    Points that are NaN, infinite or not visible are left out.

    * ``"binary"``, as in the released code: -1 everywhere and +1 at pixel (floor y, floor x). Points outside
      the crop are dropped. Piecewise constant: the points get no gradient.
    * ``"gaussian"`` (not in the released code): each point becomes a spot ``g = exp(-d^2 / 2 sigma^2)``, d the
      distance in pixels; spots combine as ``1 - prod(1 - g)``, scaled to [-1, 1]. Differentiable in the points; the
      spot of a point just outside the crop reaches into the map.

    Args:
        points: x, y in 0-based pixels of the crop, ``(B, N, 2)``; the network expects :func:`subset_18`.
        visible: Visibility, ``(B, N)`` boolean or 0/1; by default all are visible.
        size: Side of the map in pixels.
        kind: ``"binary"`` or ``"gaussian"``.
        sigma: Width of the Gaussian spots in pixels.

    Returns:
        Maps ``(B, 1, size, size)`` in [-1, 1], of the points' type and device.

    Raises:
        ShapeError: If points or visible have the wrong shape.
        ValueRangeError: If ``size``, ``kind`` or ``sigma`` is out of range.

    Example:
        >>> landmark_map(torch.tensor([[[1.9, 0.2], [-0.5, 1.0]]]), size=2)
        tensor([[[[-1.,  1.],
                  [-1., -1.]]]])
    """
    points = check_tensor("points", points, ("B", "N", 2), finite=False)
    size = check_count("size", size)
    check_choice("kind", kind, MAP_KINDS)
    present = torch.isfinite(points).all(dim=-1)  # (B, N)
    if visible is not None:
        present = present & _check_visible(visible, points.shape[:2]).to(points.device)
    if kind == "binary":
        return _binary_map(points.detach(), present, size)
    return _gaussian_map(points, present, size, check_number("sigma", sigma, above=0))


def _binary_map(points: torch.Tensor, present: torch.Tensor, size: int) -> torch.Tensor:
    cells = points.floor()
    # Compared as floats: a huge coordinate must not wrap round on its way to an integer.
    inside = present & ((cells >= 0) & (cells < size)).all(dim=-1)  # (B, N)
    columns, rows = torch.where(inside[..., None], cells, 0).long().unbind(-1)
    # Points that are not inside mark a cell behind the last one: so nobody has to know how many are.
    place = torch.where(inside, rows * size + columns, size * size)
    result = points.new_full((points.shape[0], size * size + 1), MAP_BACKGROUND).scatter_(1, place, MAP_PEAK)
    return result[:, :-1].reshape(points.shape[0], 1, size, size)


def _gaussian_map(points: torch.Tensor, present: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    reach = _GAUSSIAN_REACH * sigma
    present = present & ((points > -reach) & (points < size - 1 + reach)).all(dim=-1)  # (B, N)
    # Replaced before the exponential: even the gradient of an unused NaN is NaN.
    points = torch.where(present[..., None], points, torch.zeros_like(points))
    grid = torch.arange(size, dtype=points.dtype, device=points.device)
    falloff = torch.exp(-((grid - points[..., None]) ** 2) / (2 * sigma**2))  # (B, N, 2, size)
    columns = falloff[..., 0, :] * present[..., None]  # (B, N, W)
    rows = falloff[..., 1, :]  # (B, N, H)
    # One landmark at a time: the backward pass of torch.prod over (B, N, H, W) takes several times longer.
    empty = points.new_ones(points.shape[0], size, size)
    for row, column in zip(rows.unbind(1), columns.unbind(1), strict=True):
        empty = empty * (1 - row[:, :, None] * column[:, None, :])
    union = (1 - empty)[:, None]  # (B, 1, H, W)
    return MAP_BACKGROUND + (MAP_PEAK - MAP_BACKGROUND) * union


def _check_visible(visible: object, expected: Sequence[int | str]) -> torch.Tensor:
    """Convert a visibility mask, boolean or 0/1, to a boolean tensor and check it."""
    try:
        mask = torch.as_tensor(visible)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(f"visible: found {type(visible).__name__}; expected an array of booleans") from error
    if mask.dtype == torch.bool:
        check_shape("visible", mask, expected)
        return mask
    numbers = check_tensor("visible", mask, expected)
    if not values_are_trusted() and bool(((numbers != 0) & (numbers != 1)).any()):
        raise ValueRangeError("visible: found numbers other than 0 and 1; expected booleans, or 0 and 1")
    return numbers != 0


# ---------------------------------------------------------------------------------------------------- drawing
# Number of fractional bits in the coordinates that OpenCV gets, so that it draws at sub-pixel positions.
_SUBPIXEL_BITS = 4
_FARTHEST_DRAWN = 1e6


def draw_landmarks(
    image: np.ndarray,
    points: torch.Tensor | np.ndarray,
    visible: torch.Tensor | np.ndarray | None = None,
    *,
    color: tuple[int, int, int] = (80, 255, 120),
    line_color: tuple[int, int, int] = (255, 255, 255),
    radius: float | None = None,
    lines: bool = True,
    labels: bool = False,
) -> np.ndarray:
    """Draw landmarks over a picture.

    Args:
        image: Picture, ``(H, W, 3)`` RGB or ``(H, W)`` grey, uint8; it is not changed.
        points: Landmarks in 0-based pixels, ``(N, 2)`` or ``(N, 3)``; points that are NaN or infinite are left out.
        visible: Visibility, ``(N,)`` boolean or 0/1; points that are not visible are left out, with their lines.
        color: RGB of the dots.
        line_color: RGB of the lines.
        radius: Radius of the dots in pixels; by default 1/80 of the landmarks' extent, and at least 1.
        lines: Whether to join the points along :data:`EDGES` (only if there are 68).
        labels: Whether to write each point's index beside it.

    Returns:
        A new ``(H, W, 3)`` uint8 RGB picture.

    Raises:
        InputTypeError: If the image is not a uint8 array.
        ShapeError: If image, points or visible have the wrong shape.
        ValueRangeError: If the radius is not above 0.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        found = f"an array of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
        raise InputTypeError(f"image: found {found}; expected a numpy array of uint8")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or image.size == 0:
        raise ShapeError(f"image: found shape {image.shape}; expected (H, W, 3) or (H, W), not empty")
    points = check_tensor("points", points, ("N", (2, 3)), finite=False)
    places = points.detach().cpu().double().numpy()[:, :2]  # (N, 2)
    shown = np.isfinite(places).all(axis=1) & (np.abs(np.nan_to_num(places)) < _FARTHEST_DRAWN).all(axis=1)
    if visible is not None:
        shown &= _check_visible(visible, (len(places),)).cpu().numpy()
    if radius is None:
        radius = max(1.0, float(np.ptp(places[shown], axis=0).max()) / 80) if shown.any() else 1.0
    elif not 0 < radius < _FARTHEST_DRAWN:
        raise ValueRangeError(f"radius: found {radius!r}; expected a number of pixels above 0")

    canvas = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else np.array(image, order="C")
    thickness = max(1, round(radius / 2))
    fixed = np.round(np.where(shown[:, None], places, 0) * 2**_SUBPIXEL_BITS).astype(int).tolist()
    if lines and len(places) == NUM_LANDMARKS:
        for start, end in EDGES:
            if shown[start] and shown[end]:
                cv2.line(canvas, fixed[start], fixed[end], line_color, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)
    for index in np.flatnonzero(shown):
        fixed_radius = round(radius * 2**_SUBPIXEL_BITS)
        cv2.circle(canvas, fixed[index], fixed_radius, color, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
        if labels:
            corner = np.round(places[index] + radius).astype(int).tolist()
            font = cv2.FONT_HERSHEY_SIMPLEX
            cv2.putText(canvas, str(index), corner, font, max(0.3, radius / 10), color, 1, cv2.LINE_AA)
    return canvas


# ------------------------------------------------------------------------------------------------------ files
_COLUMNS = ("index", "name", "x", "y", "visible")
_LARGEST_FILE = 2**20  # bytes; a landmark file has about 3,000
_DECIMALS = 4
# The .pts files of 300-W count pixels from 1, as MATLAB does.
_PTS_ORIGIN = 1.0


class Landmarks(NamedTuple):
    """Landmarks of one picture.

    Attributes:
        points: x, y in 0-based pixels, ``(N, 2)``; NaN where a landmark has no coordinates.
        visible: Visibility of each landmark, ``(N,)`` boolean.
    """

    points: torch.Tensor
    visible: torch.Tensor


def read_landmarks(path: str | os.PathLike[str], count: int = NUM_LANDMARKS) -> Landmarks:
    """Read the landmarks of one picture.

    * ``.csv``: columns ``index,name,x,y,visible`` in 0-based pixels; lines starting with ``#`` are comments.
      A point that is not visible may lack coordinates.
    * ``.pts``: the format of 300-W, whose pixels count from 1; they are converted. All points are visible.

    Args:
        path: The file.
        count: Expected number of landmarks.

    Returns:
        Points and visibility.

    Raises:
        FileFormatError: If the file is missing, of another format, damaged, or has another number of landmarks.
    """
    path = Path(path)
    suffix = _check_suffix(path)
    expected = f"a {suffix} file with {count} landmarks"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    if path.stat().st_size > _LARGEST_FILE:
        raise FileFormatError(path, f"{path.stat().st_size} bytes", f"{expected}, at most {_LARGEST_FILE} bytes")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(path, "bytes that are no UTF-8 text", expected) from error
    rows = _parse_csv(path, text, count) if suffix == ".csv" else _parse_pts(path, text)
    if len(rows) != count:
        raise FileFormatError(path, f"{len(rows)} landmarks", expected)
    values = torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)
    return Landmarks(values[:, :2].to(torch.get_default_dtype()), values[:, 2] != 0)


def write_landmarks(
    path: str | os.PathLike[str],
    points: torch.Tensor,
    visible: torch.Tensor | None = None,
    comments: Iterable[str] = (),
) -> None:
    """Write the landmarks of one picture as ``.csv`` or ``.pts``, see :func:`read_landmarks`.

    Args:
        path: The file; its suffix selects the format. Missing folders are created.
        points: x, y in 0-based pixels, ``(N, 2)``; NaN only where not visible. Rounded to 4 decimals.
        visible: Visibility, ``(N,)`` boolean or 0/1; by default all are visible.
        comments: Comment lines at the top (``.csv`` only), such as origin, licence and annotator.

    Raises:
        FileFormatError: If the suffix is another one.
        ShapeError: If points or visible have the wrong shape.
        ValueRangeError: If a visible point is not finite, or comments or a hidden point are given for a ``.pts``
            file, which cannot hold them.
    """
    path = Path(path)
    suffix = _check_suffix(path)
    points = check_tensor("points", points, ("N", 2), finite=False).detach().cpu().double()
    mask = torch.ones(len(points), dtype=torch.bool)
    if visible is not None:
        mask = _check_visible(visible, (len(points),)).cpu()
    known = torch.isfinite(points).all(dim=1)
    if bool((mask & ~known).any()):
        bad = int((mask & ~known).nonzero()[0])
        raise ValueRangeError(f"points: found {points[bad].tolist()} at index {bad}; expected finite numbers")
    comments = [line for comment in comments for line in comment.splitlines()]
    if suffix == ".pts":
        if comments or not bool(mask.all()):
            found = "comments" if comments else f"{int((~mask).sum())} points that are not visible"
            raise ValueRangeError(f"{path}: found {found}, which .pts cannot hold; expected none, or a .csv file")
        body = [f"{_number(x + _PTS_ORIGIN)} {_number(y + _PTS_ORIGIN)}" for x, y in points.tolist()]
        lines = ["version: 1", f"n_points: {len(points)}", "{", *body, "}"]
    else:
        names = LANDMARK_NAMES if len(points) == NUM_LANDMARKS else [f"point_{k}" for k in range(len(points))]
        lines = [*(f"# {line}" for line in comments), ",".join(_COLUMNS)]
        for index, (x, y) in enumerate(points.tolist()):
            place = [_number(x), _number(y)] if known[index] else ["", ""]
            lines.append(",".join([str(index), names[index], *place, str(int(mask[index]))]))
    with whole_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode())


def _check_suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".pts"):
        raise FileFormatError(path, f'the suffix "{path.suffix}"', "a landmark file, .csv or .pts")
    return suffix


def _number(value: float) -> str:
    text = f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}".rstrip("0")  # + 0.0 turns -0 into 0
    return text + "0" if text.endswith(".") else text


def _coordinate(path: Path, where: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise FileFormatError(path, f"{text.strip()!r} in {where}", "a finite number")
    return value


def _parse_csv(path: Path, text: str, count: int) -> list[tuple[float, float, float]]:
    """Rows (x, y, visible) in the order of their index."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        table = [[cell.strip() for cell in row] for row in csv.reader(lines, strict=True)]
    except csv.Error as error:
        raise FileFormatError(path, f"an unreadable table ({error})", f"columns {','.join(_COLUMNS)}") from error
    if not table or tuple(table[0]) != _COLUMNS:
        found = f"the first row {','.join(table[0])[:80]!r}" if table else "no rows"
        raise FileFormatError(path, found, f"columns {','.join(_COLUMNS)}")
    rows: dict[int, tuple[float, float, float]] = {}
    for row in table[1:]:
        if len(row) != len(_COLUMNS):
            raise FileFormatError(path, f"{len(row)} cells in row {','.join(row)[:80]!r}", f"{len(_COLUMNS)} cells")
        index_text, name, x_text, y_text, visible = row
        where = f"the row of landmark {index_text[:20]!r}"
        if not (index_text.isascii() and index_text.isdigit() and len(index_text) < 10 and int(index_text) < count):
            raise FileFormatError(path, f"the index {index_text[:20]!r}", f"a number from 0 to {count - 1}")
        index = int(index_text)
        if index in rows:
            raise FileFormatError(path, f"landmark {index} twice", f"each from 0 to {count - 1} once")
        if count == NUM_LANDMARKS and name != LANDMARK_NAMES[index]:
            raise FileFormatError(path, f"the name {name[:40]!r} in {where}", f'"{LANDMARK_NAMES[index]}"')
        if visible not in ("0", "1"):
            raise FileFormatError(path, f"visible = {visible[:20]!r} in {where}", "0 or 1")
        if visible == "0" and not x_text and not y_text:
            rows[index] = (float("nan"), float("nan"), 0.0)
        else:
            rows[index] = (_coordinate(path, where, x_text), _coordinate(path, where, y_text), float(visible))
    return [rows[index] for index in sorted(rows)]


def _parse_pts(path: Path, text: str) -> list[tuple[float, float, float]]:
    """Rows (x, y, 1) in the order of the file."""
    expected = 'the lines "version: 1", "n_points: N", "{", N lines of x and y, "}"'
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "{" not in lines or lines[-1] != "}":
        raise FileFormatError(path, "no block in braces", expected)
    start = lines.index("{")
    header = dict(line.replace(" ", "").split(":", 1) for line in lines[:start] if ":" in line)
    body = lines[start + 1 : -1]
    declared = header.get("n_points", "no n_points")
    if declared != str(len(body)):
        raise FileFormatError(path, f"{declared[:20]} declared and {len(body)} lines of points", expected)
    rows = []
    for number, line in enumerate(body):
        cells = line.split()
        if len(cells) != 2:
            raise FileFormatError(path, f"{line[:80]!r} as point {number}", "two numbers, x and y")
        x, y = (_coordinate(path, f"point {number}", cell) - _PTS_ORIGIN for cell in cells)
        rows.append((x, y, 1.0))
    return rows
