"""One safe file format for everything the package saves: named arrays and a little JSON in an ``.npz``.

An ``.npz`` is a zip of plain arrays that any numpy reads. Nothing in it is ever unpickled, so a file from a stranger
cannot run code. Files appear whole or not at all: they are written beside their place and moved there at the end.
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
from typing import BinaryIO

import numpy as np
import torch

from twodasl_lite.errors import FileFormatError

_HEADER = "__header__"


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that appears only when all of it has been written; missing folders are made.

    Args:
        path: Where.

    Yields:
        A binary file beside the place, moved there at the end; whatever stood there before stays if anything fails.

    Raises:
        OSError: If the disk is full or the place not writable; no partial file is left.

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
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
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
        path: Where; missing folders are made.
        format_name: What kind of content it is; checked on reading.
        version: The kind's version.
        arrays: Name to array.
        metadata: JSON-serialisable facts.
        compress: Whether to compress the arrays; not worth its time where they are compressed pictures.

    Raises:
        OSError: If the disk is full or the place not writable; no partial file is left.
    """
    header = json.dumps({"format": format_name, "version": version, "metadata": dict(metadata or {})})
    plain = {
        name: value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        for name, value in arrays.items()
    }
    with whole_file(path) as file:
        (np.savez_compressed if compress else np.savez)(file, **{_HEADER: np.array(header)}, **plain)


def read_archive(
    path: str | os.PathLike[str], format_name: str, version: int, required: Iterable[str] = ()
) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """Read a file of :func:`write_archive`.

    Args:
        path: The file.
        format_name: The kind that is expected.
        version: The version that is expected.
        required: Arrays that must be there.

    Returns:
        The arrays as tensors and the metadata.

    Raises:
        FileFormatError: If the file is missing, damaged, of another kind or version, holds a pickle, or lacks an array.
    """
    expected = f"a {format_name} file, version {version}"
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    try:
        # An .npy or a bare pickle is not a zip; refuse it before numpy tries to guess.
        if not zipfile.is_zipfile(path):
            raise FileFormatError(path, "a file that is no zip archive (damaged or of another kind)", expected)
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
        raise FileFormatError(path, f"an array that holds no numbers ({error})", expected) from error
