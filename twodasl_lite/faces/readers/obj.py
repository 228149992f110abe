"""Vertices and faces of Wavefront OBJ files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.readers.arrays import existing


def read_obj(path: Path, *, faces: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Vertices (and faces) of a Wavefront OBJ file.

    Args:
        path: The file.
        faces: Whether to read the faces too; polygons are cut into fans of triangles.

    Returns:
        ``(V, 3)`` and ``(T, 3)`` counting from 0, or ``None``.

    Raises:
        FileFormatError: If the file is missing or damaged.
    """
    expected = "a Wavefront OBJ file"
    data = b"\n" + existing(path, expected).read_bytes().replace(b"\r", b"")
    try:
        rows = [line[2:] for line in data.split(b"\n") if line.startswith(b"v ")]
        vertices = np.array(b" ".join(rows).split(), np.float64).reshape(max(len(rows), 1), -1)
        if not rows or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise ValueError(f"{len(rows)} vertices of {vertices.shape[-1]} numbers")
        if not faces:
            return vertices, None
        triangles = []
        for line in data.split(b"\n"):
            if line.startswith(b"f "):
                corners = [int(corner.split(b"/")[0]) for corner in line.split()[1:]]
                triangles += [(corners[0], corners[k], corners[k + 1]) for k in range(1, len(corners) - 1)]
        array = np.array(triangles, np.int64) - 1
        if not len(array) or array.min() < 0 or array.max() >= len(vertices):
            raise ValueError("faces of vertices that are not there")
        return vertices, array
    except ValueError as error:
        raise FileFormatError(path, f"a damaged file ({error})", expected) from error
