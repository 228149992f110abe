"""Arrays from files, with shapes, ranges and indices checked; errors name the file.

Formats flatten points to ``[x0 y0 z0 x1 ...]`` and count indices from 0 or from 1; here points become ``(V, 3)`` and
indices count from 0.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError, require

EXTRA = "models"
"""The extra of the package that installs the requirements of some formats."""

_MAX_COORDINATES = 3 * 2**20  # vertices times three; the largest published model has a sixth of this


# ------------------------------------------------------------------------------------------------ numbers and indices
def vertices_of(path: Path, name: str, array: object, count: int | None = None) -> np.ndarray:
    """A flattened list of points ``[x0 y0 z0 x1 ...]`` as ``(V, 3)``.

    Args:
        path: The file, for messages.
        name: The array's name there.
        array: ``(3V,)``, ``(3V, 1)`` or ``(1, 3V)``.
        count: Number of vertices V, if it is known.

    Raises:
        FileFormatError: If it is anything else, or not finite.
    """
    flat = _numbers(path, name, array).reshape(-1)
    wanted = f"3 x {'the number of vertices' if count is None else count} finite numbers"
    if flat.size % 3 or not 0 < flat.size <= _MAX_COORDINATES or (count is not None and flat.size != 3 * count):
        raise FileFormatError(path, f"{name} with {flat.size} numbers", wanted)
    return flat.reshape(-1, 3)


def basis_of(path: Path, name: str, array: object, count: int) -> np.ndarray:
    """A basis with one flattened mode per column, ``(3V, K)``, as ``(V, 3, K)``.

    Raises:
        FileFormatError: If it is anything else, or not finite.
    """
    matrix = _numbers(path, name, array)
    if matrix.ndim != 2 or matrix.shape[0] != 3 * count:
        raise FileFormatError(path, f"{name} of shape {matrix.shape}", f"({3 * count}, number of modes)")
    return matrix.reshape(count, 3, -1)


def deviations_of(path: Path, name: str, array: object, count: int) -> np.ndarray:
    """Positive standard deviations ``(K,)``.

    Raises:
        FileFormatError: If there are not ``count`` of them, or one is not above zero.
    """
    values = _numbers(path, name, array).reshape(-1)
    if values.size != count or not (values > 0).all():
        found = f"{name} with {values.size} values" + (", not all above zero" if values.size == count else "")
        raise FileFormatError(path, found, f"{count} values above zero")
    return values


def indices_of(path: Path, name: str, array: object, limit: int, *, first: int) -> np.ndarray:
    """Vertex indices that count from ``first``, as indices that count from 0.

    Raises:
        FileFormatError: If one is not a whole number or is out of range.
    """
    values = _numbers(path, name, array)
    if not (values == np.floor(values)).all() or (
        values.size and (values.min() < first or values.max() >= limit + first)
    ):
        found = f"{name} from {values.min():g} to {values.max():g}"
        raise FileFormatError(path, found, f"whole numbers from {first} to {limit + first - 1}")
    return values.astype(np.int64) - first


def triangles_of(path: Path, name: str, array: object, count: int) -> np.ndarray:
    """Triangles as ``(T, 3)``, counting from 0.

    The file's array may be ``(T, 3)`` or ``(3, T)``, and count from 1, which is assumed if index ``count`` occurs.

    Raises:
        FileFormatError: If it is anything else.
    """
    values = _numbers(path, name, array)
    if values.ndim != 2 or 3 not in values.shape or values.size == 0:
        raise FileFormatError(path, f"{name} of shape {values.shape}", "three corners per triangle")
    values = values if values.shape[1] == 3 and values.shape[0] != 3 else values.T
    return indices_of(path, name, values, count, first=1 if values.max() == count else 0)


def _numbers(path: Path, name: str, array: object) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
        found = f"array of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise FileFormatError(path, f"{name}: {found}", "an array of numbers")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise FileFormatError(path, f"{name} with {int((~np.isfinite(array)).sum())} values NaN or infinite", "numbers")
    return array


# ------------------------------------------------------------------------------------------------------------- files
def existing(path: str | os.PathLike[str], expected: str) -> Path:
    """The path of a file that exists.

    Raises:
        FileFormatError: If it does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    return path


def beside(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of these files that exists in a folder; ``None`` if none does."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an ``.npy`` of plain numbers.

    Raises:
        FileFormatError: If it is missing, damaged or holds a pickle.
    """
    path = existing(path, "an .npy file of numbers")
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, TypeError) as error:
        found = "a pickled object" if "pickle" in str(error).lower() else f"a damaged file ({error})"
        raise FileFormatError(path, found, "an .npy file of numbers") from error


def read_mat(path: str | os.PathLike[str], names: Iterable[str], optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Read variables of a MATLAB file.

    Args:
        path: The file, of MATLAB 5 to 7.2.
        names: Required variables.
        optional: Optional variables.

    Raises:
        FileFormatError: If it is missing, damaged, of another version or lacks a variable.
        MissingDependencyError: If scipy is not installed.
    """
    names, optional = list(names), list(optional)
    expected = f"a MATLAB file with {', '.join(names)}" if names else "a MATLAB file"
    path = existing(path, expected)
    io = require("scipy.io", EXTRA, "reading MATLAB files")
    try:
        content = io.loadmat(path, variable_names=[*names, *optional], squeeze_me=False, chars_as_strings=False)
    except NotImplementedError as error:
        raise FileFormatError(path, "a MATLAB 7.3 file", f"{expected}, saved with -v7 or older") from error
    # Damaged files fail anywhere inside scipy.
    except (ValueError, TypeError, KeyError, IndexError, EOFError, OSError, MemoryError, zlib.error, OverflowError,
            io.matlab.MatReadError) as error:  # fmt: skip
        raise FileFormatError(path, f"a file that is not a complete MATLAB file ({error})", expected) from error
    missing = [name for name in names if name not in content]
    if missing:
        there = ", ".join(entry[0] for entry in io.whosmat(path)) or "nothing"
        raise FileFormatError(path, f"{there}, but no {', '.join(missing)}", expected)
    return {name: content[name] for name in [*names, *optional] if name in content}


def mat_variables(path: Path) -> set[str]:
    """Names of the variables of a MATLAB file; empty if it cannot be read."""
    try:
        io = require("scipy.io", EXTRA, "reading MATLAB files")
        return {entry[0] for entry in io.whosmat(path)}
    except Exception:  # whatever is wrong with the file, it holds no variable
        return set()
