"""Landmark files of other programs: tables, ``.pts``, ``.npy``, ``.mat`` and JSON, with 68 or 98 points.

The reader reports how it interpreted each file, because the same numbers can mean different things: pixels may count
from 0 or from 1, y may point up or down, and the number of points varies. :func:`landmark_mistake` compares points with
the photo and names the common mistake that would explain them.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError, require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.fitting import fit_pose
from twodasl_lite.geometry.camera import frame_to_pixels, project, split_pose
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS, read_landmarks

SUFFIXES = (".csv", ".txt", ".pts", ".npy", ".mat", ".json")
NUM_WFLW = 98
WFLW_TO_68: tuple[int, ...] = (
    *range(0, 33, 2),  # every other point of the jaw
    *(33, 34, 35, 36, 37),  # the upper edges of the brows
    *(42, 43, 44, 45, 46),
    *range(51, 60),  # nose
    *(60, 61, 63, 64, 65, 67),  # eyes, without the middles of the lids
    *(68, 69, 71, 72, 73, 75),
    *range(76, 96),  # lips
)
"""For each of the 68 landmarks, the index of the matching WFLW point (98 points, Wu et al. 2018). WFLW's points 96 and
97 are the pupils."""

_LARGEST_FILE = 2**22  # bytes
_NAMES = ("landmarks", "pt3d_68", "pts_2d", "pt2d", "pts", "points", "lmk", "lm68")
_COUNTS = (NUM_LANDMARKS, NUM_WFLW)


class LandmarkFile(NamedTuple):
    """Content of a landmark file.

    Attributes:
        points: x, y of F faces in 0-based pixels, ``(F, 68, 2)``; NaN where a landmark has no coordinates.
        visible: Visibility of each landmark, ``(F, 68)`` boolean.
        taken_for: How the file was interpreted, in words.
    """

    points: torch.Tensor
    visible: torch.Tensor
    taken_for: str


def read_landmark_file(path: str | os.PathLike[str]) -> LandmarkFile:
    """Read the landmarks of one picture from a file in any of these formats.

    * a table, ``.csv`` or ``.txt``: cells separated by commas, semicolons, tabs or spaces; 68 or 98 rows ``x,y``;
      ``index,x,y``; ``x,y,visible``; ``x,y,z`` (z is ignored); or with a header row. Empty lines and lines that begin
      with ``#`` are ignored. Pixels count from 0.
    * ``.pts``: the format of iBUG, as in 300-W; pixels count from 1.
    * ``.npy``: ``(68, 2)``, ``(68, 3)``, ``(2, 68)``, ``(3, 68)``, ``(136,)`` or several faces ``(F, 68, 2)``, and the
      same with 98. Pixels count from 0.
    * ``.mat``: the same arrays, named like ``pt3d_68`` or the only one of such a shape. Pixels count from 1.
    * ``.json``: lists of such numbers, ``{"landmarks": ...}``, points ``{"x": ..., "y": ...}``, or the
      ``coefficients.json`` that ``twodasl reconstruct`` writes. Pixels count from 0.

    Args:
        path: The file.

    Raises:
        FileFormatError: If the file is missing, damaged, holds a pickle, or does not hold 68 or 98 points.
        MissingDependencyError: If a ``.mat`` file is given and scipy is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FileFormatError(path, f'the suffix "{path.suffix}"', f"landmarks as {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", f"landmarks as {suffix}")
    size = path.stat().st_size
    if size > _LARGEST_FILE:
        raise FileFormatError(path, f"{size} bytes", f"landmarks as {suffix}, at most {_LARGEST_FILE} bytes")
    if suffix in (".csv", ".txt"):
        return _read_table(path, _text(path))
    if suffix == ".pts":
        return _faces(path, _read_pts(path, _text(path)), "an iBUG .pts file, pixels counted from 1")
    if suffix == ".npy":
        return _faces(path, _load_npy(path), "a numpy array, pixels counted from 0")
    if suffix == ".mat":
        name, values = _load_mat(path)
        return _faces(path, values - 1, f"{name} of a MATLAB file, pixels counted from 1")
    try:
        content = json.loads(_text(path))
    except ValueError as error:
        raise FileFormatError(path, f"a damaged file ({error})", "landmarks as JSON") from error
    return _faces(path, _from_json(path, content), "JSON, pixels counted from 0")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileFormatError(path, "bytes that are no UTF-8 text", f"landmarks as {path.suffix}") from error


def _faces(path: Path, values: np.ndarray, what: str, visible: np.ndarray | None = None) -> LandmarkFile:
    """Arrange the numbers as ``(F, 68, 2)``."""
    shape = values.shape
    expected = "68 or 98 points of x and y"
    if values.dtype.kind not in "uif" or values.ndim not in (1, 2, 3):
        raise FileFormatError(path, f"an array of {values.dtype}, shape {shape}", expected)
    values = values.astype(np.float64)
    if values.ndim == 1 and values.size in [2 * count for count in _COUNTS]:
        values = values.reshape(-1, 2)
    if values.ndim == 2:
        values = values[None]
    if values.ndim == 3 and values.shape[1] in (2, 3) and values.shape[2] in _COUNTS:
        values = values.transpose(0, 2, 1)
    if values.ndim != 3 or values.shape[1] not in _COUNTS or values.shape[2] not in (2, 3) or not len(values):
        found = f"{shape[0]} points" if len(shape) == 2 and shape[1] in (2, 3) else f"numbers of shape {shape}"
        raise FileFormatError(path, found, expected)
    parts = [f"{values.shape[1]} points, {what}"]
    if values.shape[2] == 3:
        parts.append("the third number left out")
        values = values[..., :2]
    shown = np.isfinite(values).all(axis=2)
    if visible is not None:
        shown &= visible[None]
    if values.shape[1] == NUM_WFLW:
        parts.append("WFLW's, of which 68 are used")
        values, shown = values[:, list(WFLW_TO_68)], shown[:, list(WFLW_TO_68)]
    if len(values) > 1:
        parts.append(f"{len(values)} faces")
    return LandmarkFile(torch.from_numpy(values).float(), torch.from_numpy(shown), "; ".join(parts))


# --------------------------------------------------------------------------------------------------------- the kinds
def _read_table(path: Path, text: str) -> LandmarkFile:
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line.strip(" ,;\t") and not line.startswith("#")]
    if not lines:
        raise FileFormatError(path, "no rows", "68 or 98 rows of x and y")
    if lines[0].replace(" ", "").lower() == "index,name,x,y,visible":
        read = read_landmarks(path) if path.suffix.lower() == ".csv" else None
        if read is not None:
            what = "68 points, twodasl's own table, pixels counted from 0"
            return LandmarkFile(read.points[None], read.visible[None], what)
    separator = next((mark for mark in (";", "\t", ",") if mark in lines[0]), None)
    rows = []
    for line in lines:
        cells = [cell.strip() for cell in (line.split(separator) if separator else line.split())]
        while cells and not cells[-1]:
            cells.pop()  # a separator at the end of the line
        rows.append(cells)
    names = None
    if not all(_is_number(cell, separator) for cell in rows[0]):
        names, rows = [cell.lower() for cell in rows[0]], rows[1:]
    width = max((len(row) for row in rows), default=0)
    table = np.full((len(rows), width), np.nan)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if _is_number(cell, separator):
                table[number, column] = float(cell.replace(",", "."))
            elif cell and (names is None or (column < len(names) and names[column] in ("x", "y"))):
                raise FileFormatError(path, f"{cell[:40]!r} in row {number + 1}", "numbers")
    return _columns(path, table, names)


def _is_number(cell: str, separator: str | None) -> bool:
    decimal = r"[.,]" if separator == ";" else r"\."
    return re.fullmatch(rf"[+-]?(\d+({decimal}\d*)?|{decimal}\d+)([eE][+-]?\d+)?", cell) is not None


def _columns(path: Path, table: np.ndarray, names: list[str] | None) -> LandmarkFile:
    """Find the columns of x, y and visibility."""
    count, width = table.shape
    kind = "a table, pixels counted from 0"
    visible = None
    if names is not None:
        if "x" not in names or "y" not in names:
            raise FileFormatError(path, f"the columns {', '.join(names)[:80]}", "columns called x and y")
        if "visible" in names:
            visible = table[:, names.index("visible")] != 0
        table = table[:, [names.index("x"), names.index("y")]]
        kind = "a table with named columns, pixels counted from 0"
    elif width == 3:
        first, last = table[:, 0], table[:, 2]
        if np.array_equal(first, np.arange(count)) or np.array_equal(first, np.arange(1, count + 1)):
            table, kind = table[:, 1:], "a table of index, x and y, pixels counted from 0"
        elif np.isin(last, (0, 1)).all():
            visible, table = last != 0, table[:, :2]
            kind = "a table of x, y and visible, pixels counted from 0"
    elif width != 2:
        raise FileFormatError(path, f"{width} columns without names", "x,y; index,x,y; x,y,visible; or a row of names")
    if count not in _COUNTS:
        raise FileFormatError(path, f"{count} points", "68 or 98 points of x and y")
    bad = np.isnan(table[:, :2]).any(axis=1) & (True if visible is None else visible)
    if bad.any():
        raise FileFormatError(path, f"no x and y in row {int(bad.argmax()) + 1}", "numbers")
    return _faces(path, table, kind, visible)


def _read_pts(path: Path, text: str) -> np.ndarray:
    expected = 'the lines "version: 1", "n_points: N", "{", N lines of x and y, "}"'
    match = re.search(r"\{([^{}]*)\}", text)
    if match is None:
        raise FileFormatError(path, "no block in braces", expected)
    rows = [line.split() for line in match[1].splitlines() if line.strip()]
    declared = re.search(r"n_points\s*:\s*(\d+)", text[: match.start()])
    if declared is None or int(declared[1]) != len(rows):
        found = declared[1] if declared else "no n_points"
        raise FileFormatError(path, f"{found[:20]} declared and {len(rows)} lines of points", expected)
    try:
        values = np.array([[float(cell) for cell in row[:3]] for row in rows])
    except ValueError as error:
        raise FileFormatError(path, f"a line that is not a point ({error})", expected) from error
    if not np.isfinite(values).all():
        raise FileFormatError(path, "NaN or infinity", "finite numbers")
    return values - 1


def _load_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as error:
        found = "a pickled object" if "pickle" in str(error).lower() else f"a damaged file ({error})"
        raise FileFormatError(path, found, "a plain array of 68 or 98 points") from error


def _load_mat(path: Path) -> tuple[str, np.ndarray]:
    io = require("scipy.io", "models", "reading MATLAB files")
    try:
        content = io.loadmat(path)
    except Exception as error:  # damaged files fail anywhere inside scipy
        raise FileFormatError(path, f"a file that scipy cannot read ({error})", "a MATLAB file (.mat)") from error
    arrays = {name: np.asarray(value) for name, value in content.items() if not name.startswith("__")}
    fitting = [
        name for name, value in arrays.items() if value.dtype.kind in "uif" and any(n in value.shape for n in _COUNTS)
    ]
    chosen = [name for name in _NAMES if name in fitting] or fitting
    if not chosen or (len(chosen) > 1 and chosen[0] not in _NAMES):
        raise FileFormatError(
            path, f"the arrays {', '.join(arrays)[:80]}", "an array of 68 or 98 points, such as pt3d_68"
        )
    return chosen[0], arrays[chosen[0]].astype(np.float64)


def _from_json(path: Path, content: Any) -> np.ndarray:
    expected = '68 or 98 points as [[x, y], ...], or {"landmarks": ...}'
    if isinstance(content, dict):
        if isinstance(content.get("faces"), list) and content["faces"]:
            content = [face.get("landmarks") if isinstance(face, dict) else face for face in content["faces"]]
        else:
            name = next((name for name in _NAMES if name in content), None)
            if name is None:
                raise FileFormatError(path, f"the names {', '.join(map(str, content))[:80] or 'none'}", expected)
            content = content[name]
    if isinstance(content, list) and content and isinstance(content[0], dict):
        try:
            content = [[point["x"], point["y"]] for point in content]
        except (KeyError, TypeError) as error:
            raise FileFormatError(path, f"a point without {error}", expected) from error
    try:
        return np.array(content, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise FileFormatError(path, "lists that are not a table of numbers", expected) from error


# ---------------------------------------------------------------------------------------------------------- mistakes
_ODD = 0.1
"""Threshold for the mean distance of a face's landmarks from the average face in its best pose, over the face's size.
The largest of 250 faces of AFLW2000-3D is 0.068; landmarks in a random order have 0.3."""


def landmark_mistake(
    points: torch.Tensor, visible: torch.Tensor, height: int, width: int, model: MorphableModel
) -> str | None:
    """Name the likely mistake in landmarks that cannot belong to a photo.

    Args:
        points: x, y in 0-based pixels, ``(68, 2)``.
        visible: Mask of the landmarks to use, ``(68,)``.
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.
        model: Face model whose average face is compared with the landmarks.

    Returns:
        A sentence, or None if the landmarks can be a face in this photo.
    """
    known = torch.as_tensor(visible).bool() & torch.isfinite(points).all(dim=1)
    if int(known.sum()) < 8:
        return None
    size = torch.tensor([width, height], dtype=torch.float32)
    used = points[known]
    if bool((used.abs() <= 1.5).all()) and max(width, height) > 16:
        return "they lie between 0 and 1, like fractions of the photo; multiply x by its width and y by its height"
    inside = ((used > -0.5) & (used < size - 0.5)).all(dim=1).float().mean()
    if inside < 0.5:
        high = used.amax(dim=0)
        factor = float((high / size).max())
        hint = f", as if marked in a photo {factor:.1f} times as large or more" if 1 < factor < 50 else ""
        return f"{1 - float(inside):.0%} of them lie outside the {width}x{height} photo{hint}"
    if bool((used.amax(dim=0) - used.amin(dim=0) < 2).any()):
        return "they are all in one place or on one line"
    usual = _oddness(points, known, model)
    if usual < _ODD:
        return None
    flip_x, flip_y = points * torch.tensor([-1.0, 1]) + torch.tensor([width - 1.0, 0]), points.clone()
    flip_y[:, 1] = height - 1 - flip_y[:, 1]
    tries = {
        "y points upwards in them; take the photo's height - 1 - y": (flip_y, known),
        "they are mirrored: left and right are exchanged, in the picture or in their order": (flip_x, known),
        "x and y are exchanged": (points.flip(1), known),
    }
    # Of the mistakes that explain the points, choose the one with the most upright face.
    fitting = {}
    for sentence, (changed, mask) in tries.items():
        if _oddness(changed, mask, model) < _ODD:
            fitting[sentence] = _lean(changed, mask)
    if fitting:
        return min(fitting, key=fitting.__getitem__)
    return "they match a face in no pose: they may be in another order, or of something else"


def _oddness(points: torch.Tensor, known: torch.Tensor, model: MorphableModel) -> float:
    """Mean distance from the average face in its best pose, over the face's size; infinite if seen from behind."""
    average = model.mean.detach().cpu().float()[model.landmarks.cpu()]  # (68, 3)
    filled = torch.where(known[:, None], points, 0).float()
    try:
        pose = fit_pose(filled[None], average, known.float()[None], height=1)  # (1, 3, 4)
    except TwodaslError:
        return math.inf
    _, rotation, _ = split_pose(pose)
    if float(rotation[0, 2, 2]) < -0.5:
        return math.inf
    placed = frame_to_pixels(project(average[None], pose), 1)[0, :, :2]
    used = points[known]
    extent = (used.amax(dim=0) - used.amin(dim=0)).prod().sqrt()
    return float((placed[known] - used).norm(dim=1).mean() / extent)


def _lean(points: torch.Tensor, known: torch.Tensor) -> float:
    """Angle between a face and the upright direction, 0 to pi."""
    eyes, mouth = points[36:48][known[36:48]], points[48:68][known[48:68]]
    if not len(eyes) or not len(mouth):
        return 0.0
    down = mouth.mean(dim=0) - eyes.mean(dim=0)
    return abs(math.atan2(float(down[0]), float(down[1])))


def check_landmarks(
    path: str | os.PathLike[str],
    landmarks: LandmarkFile,
    height: int,
    width: int,
    model: MorphableModel,
    faces: Sequence[int] | None = None,
) -> None:
    """Check that landmarks can belong to a photo.

    Raises:
        ValueRangeError: If they cannot; the message names the likely mistake.
    """
    for k in range(len(landmarks.points)) if faces is None else faces:
        mistake = landmark_mistake(landmarks.points[k], landmarks.visible[k], height, width, model)
        if mistake is not None:
            raise ValueRangeError(
                f"{os.fspath(path)}: found landmarks that cannot belong to this photo: {mistake} "
                f"(taken for {landmarks.taken_for})"
            )
