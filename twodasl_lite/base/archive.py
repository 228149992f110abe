"""One safe file format for everything the package saves: named arrays and some JSON in an ``.npz``.

An ``.npz`` is a zip of plain arrays that any numpy reads. Nothing in it is ever unpickled, so an untrusted file cannot
run code. Files appear whole or not at all: they are written to a temporary file in the same folder and then moved.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError

_HEADER = "__header__"


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears only when all of it has been written; missing folders are created.

    Args:
        path: Path of the file.

    Yields:
        A temporary binary file, moved to ``path`` at the end; if anything fails, an existing file stays as it was.

    Raises:
        OSError: If the disk is full or the path not writable; no partial file is left.

    Example:
        >>> with whole_file("notes.txt") as file:  # doctest: +SKIP
        ...     file.write(b"all or nothing")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp creates files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_archive(
    path: str | os.PathLike[str],
    format_name: str,
    version: int,
    arrays: Mapping[str, torch.Tensor | np.ndarray],
    metadata: Mapping[str, object] | None = None,
    *,
    compress: bool = True,
) -> None:
    """Write arrays and metadata to one ``.npz``.

    Args:
        path: Path of the file; missing folders are created.
        format_name: Name of the content's format; checked on reading.
        version: Version of the format.
        arrays: Name to array.
        metadata: JSON-serialisable metadata.
        compress: Whether to compress the arrays; not worth the time if they hold compressed pictures.

    Raises:
        OSError: If the disk is full or the path not writable; no partial file is left.
    """
    header = json.dumps({"format": format_name, "version": version, "metadata": dict(metadata or {})})
    plain: dict[str, Any] = {
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in arrays.items()
    }
    with whole_file(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **{_HEADER: np.array(header), **plain})


def read_archive(
    path: str | os.PathLike[str], format_name: str, version: int, required: Iterable[str] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read a file written by :func:`write_archive`.

    Args:
        path: The file.
        format_name: Expected format.
        version: Expected version.
        required: Names of arrays that must be present.

    Returns:
        The arrays as tensors and the metadata.

    Raises:
        FileFormatError: If the file is missing, damaged, of another format or version, holds a pickle, or lacks an
            array.
    """
    expected = f"a {format_name} file, version {version}"
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    try:
        # An .npy or a bare pickle is not a zip; refuse it before numpy tries to guess.
        if not zipfile.is_zipfile(path):
            raise FileFormatError(path, "a file that is not a zip archive (damaged or of another kind)", expected)
        with np.load(path, allow_pickle=False) as content:
            names = set(content.files)
            if _HEADER not in names:
                raise FileFormatError(path, f"an archive without a header (arrays: {sorted(names)})", expected)
            arrays = {name: content[name] for name in content.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
        raise FileFormatError(path, f"a damaged archive ({error})", expected) from error
    except ValueError as error:
        if isinstance(error, FileFormatError):
            raise
        reason = "a pickled object" if "pickle" in str(error) else f"an unreadable array ({error})"
        raise FileFormatError(path, reason, f"{expected} of plain arrays") from error
    try:
        header = json.loads(str(arrays.pop(_HEADER)))
        found = (header["format"], header["version"])
        metadata = dict(header["metadata"])
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, "an unreadable header", expected) from error
    if found != (format_name, version):
        raise FileFormatError(path, f"a {found[0]} file, version {found[1]}", expected)
    missing = sorted(set(required) - set(arrays))
    if missing:
        raise FileFormatError(path, f"no array {', '.join(missing)}", f"{expected} with all its arrays")
    try:
        return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata
    except TypeError as error:
        raise FileFormatError(path, f"an array that does not hold numbers ({error})", expected) from error
