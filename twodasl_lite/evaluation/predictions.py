"""Predictions of any network in one file, with the names of the pictures that they are for.

A file is an ``.npz`` with ``names`` (text) and one of these arrays, a row per name:

* ``whitened`` (N, 62): a network's own output, for the published whitening or the checkpoint's;
* ``coefficients`` (N, 62): raw, in the unit of the face model that decodes them;
* ``landmarks`` (N, 68, 2) or (N, 68, 3): in 0-based pixels of the photo.

An ``.npy`` of (N, 62) whitened coefficients, as written by 3DDFA's scripts, has no names; the list of names must then
be given. Results are joined by name: lists of different lengths are the classic mistake of this benchmark. See chapter
15.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.faces.readers.arrays import read_npy
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

Kind = Literal["whitened", "coefficients", "landmarks"]
KINDS: tuple[Kind, ...] = ("whitened", "coefficients", "landmarks")

_BOXES = "boxes"


class Predictions(NamedTuple):
    """A method's predictions for some pictures.

    Attributes:
        names: M names without suffix.
        values: ``(M, ...)`` float64, see ``kind``; NaN for a picture without a prediction.
        kind: ``"whitened"``, ``"coefficients"`` or ``"landmarks"``.
        boxes: ``(M, 4)`` the crop boxes that coefficients refer to, if they are not the test set's.
        source: Origin of the predictions, in words.
    """

    names: tuple[str, ...]
    values: torch.Tensor
    kind: Kind
    boxes: torch.Tensor | None = None
    source: str = ""

    def check(self) -> Predictions:
        """Check that names, values and kind fit together, and return these predictions.

        Raises:
            ShapeError: If rows and names differ in number, or a row has the wrong shape.
            ValueRangeError: If a name appears twice or the kind is unknown.
        """
        check_choice("kind", self.kind, KINDS)
        size = CoefficientLayout().size
        fits = self.values.shape[1:] in (
            ((NUM_LANDMARKS, 2), (NUM_LANDMARKS, 3)) if self.kind == "landmarks" else ((size,),)
        )
        if not fits or self.values.shape[0] != len(self.names):
            row = f"{NUM_LANDMARKS}, 2 or 3" if self.kind == "landmarks" else str(size)
            raise ShapeError(
                f"{self.kind}: found shape {tuple(self.values.shape)}; expected ({len(self.names)}, {row}), "
                "a row per name"
            )
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueRangeError(f"names: found {twice!r} more than once; expected each picture once")
        return self


def read_predictions(path: str | os.PathLike[str], names: Sequence[str] | None = None) -> Predictions:
    """Read a file of predictions.

    Args:
        path: ``.npz`` with names, or ``.npy`` without.
        names: The names of the rows of an ``.npy``.

    Raises:
        FileFormatError: If the file is missing, damaged, or holds a pickle or anything else.
        ShapeError: If rows and names differ in number.
    """
    path = Path(path)
    expected = f"an .npz with names and one of {', '.join(KINDS)}, or an .npy of whitened coefficients"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    if path.suffix == ".npy":
        values = read_npy(path)
        if names is None:
            raise FileFormatError(path, "numbers without names", "the list of names that belongs to them, or an .npz")
        numbers = _numbers(path, "the array", values)
        return _checked(path, Predictions(tuple(names), numbers, "whitened", None, str(path)))
    try:
        with np.load(path, allow_pickle=False) as content:
            kinds = [kind for kind in KINDS if kind in content.files]
            if "names" not in content.files or len(kinds) != 1:
                raise FileFormatError(path, f"the arrays {', '.join(content.files) or 'none'}", expected)
            rows = tuple(Path(str(name)).stem for name in content["names"].reshape(-1))
            numbers = _numbers(path, kinds[0], content[kinds[0]])
            boxes = _numbers(path, _BOXES, content[_BOXES]) if _BOXES in content.files else None
    except FileFormatError:
        raise
    except Exception as error:  # damaged archives fail anywhere inside numpy and zipfile
        raise FileFormatError(path, f"a file that is not such an archive ({error})", expected) from error
    if boxes is not None and tuple(boxes.shape) != (len(rows), 4):
        raise FileFormatError(path, f"boxes of shape {tuple(boxes.shape)}", f"({len(rows)}, 4)")
    return _checked(path, Predictions(rows, numbers, kinds[0], boxes, str(path)))


def write_predictions(path: str | os.PathLike[str], predictions: Predictions) -> None:
    """Write predictions to an ``.npz``, whole or not at all.

    Raises:
        OSError: If the disk is full or the folder is not writable; no partial file is left.
    """
    predictions.check()
    arrays: dict[str, Any] = {
        "names": np.array(predictions.names, dtype=str),
        predictions.kind: predictions.values.numpy(),
    }
    if predictions.boxes is not None:
        arrays[_BOXES] = predictions.boxes.numpy()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with whole_file(path) as file:
        file.write(buffer.getvalue())


def _numbers(path: Path, name: str, values: np.ndarray) -> torch.Tensor:
    if values.dtype.kind not in "uif":
        raise FileFormatError(path, f"{name} of type {values.dtype}", "numbers")
    return torch.from_numpy(values.astype(np.float64))


def _checked(path: Path, predictions: Predictions) -> Predictions:
    try:
        return predictions.check()
    except (ShapeError, ValueRangeError) as error:
        raise type(error)(f"{path}: {error}") from error
