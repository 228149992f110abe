"""The Surrey Face Model (Huber et al. 2016) in the binary files of eos.

``sfm_shape_3448.bin`` is what the C++ library cereal writes: numbers one after the other, little-endian, without names.
A version, then the shape model: mean (3V), unit-length components (3V, K) by columns, *eigenvalues* (K) and triangles;
then a colour model of the same form, empty in the public file. ``expression_blendshapes_3448.bin`` beside it lists
named movements. Lengths are in millimetres. Here, components are multiplied by the square roots of the eigenvalues, so
coefficients are in standard deviations, as in eos. ``ibug_to_sfm.txt`` names vertices for 50 of the 68 landmarks. Any
other model that eos has converted can be read the same way.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import basis_of, beside, existing, triangles_of, vertices_of
from twodasl_lite.faces.readers.markup import LandmarkChoice, read_landmark_file
from twodasl_lite.faces.readers.parts import Parts, assemble

PathLike = str | os.PathLike[str]

MODEL_FILE = "sfm_shape_3448.bin"
_BLENDSHAPES = "expression_blendshapes_3448.bin"
_MAPPING = "ibug_to_sfm.txt"
_VERSIONS = (1, 2, 3, 4)
_EXPECTED = "a morphable model written by eos, version 1 to 4"
_MAX_MODES = 2000
LICENSE = "Surrey Face Model: free for non-commercial use (University of Surrey); the shape-only model with eos"


class _Reader:
    """Reads numbers from a file's bytes, from front to back.

    Raises:
        FileFormatError: From every method, when the file ends too early or a size makes no sense.
    """

    def __init__(self, path: Path, expected: str) -> None:
        self.path, self.expected = path, expected
        self.data, self.position = existing(path, expected).read_bytes(), 0

    def fail(self, found: str) -> FileFormatError:
        return FileFormatError(self.path, found, self.expected)

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise self.fail(f"a file that ends after {len(self.data)} bytes, {end - len(self.data)} too early")
        self.position, start = end, self.position
        return self.data[start:end]

    def number(self, code: str) -> int:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(code)))[0]

    def matrix(self) -> np.ndarray:
        """An Eigen matrix of floats: rows, columns, numbers column by column."""
        rows, columns = self.number("i"), self.number("i")
        if rows < 0 or columns < 0:
            raise self.fail(f"a matrix of {rows} x {columns}")
        return np.frombuffer(self.take(4 * rows * columns), "<f4").reshape(rows, columns, order="F")

    def triangles(self) -> np.ndarray:
        return np.frombuffer(self.take(12 * self.number("Q")), "<i4").reshape(-1, 3)

    def linear(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A PCA model: mean, components, eigenvalues, triangles."""
        return self.matrix(), self.matrix(), self.matrix(), self.triangles()

    def blendshapes(self) -> dict[str, np.ndarray]:
        count = self.number("Q")
        if count > _MAX_MODES:
            raise self.fail(f"{count} blendshapes")
        result = {}
        for _ in range(count):
            length = self.number("Q")
            try:
                name = self.take(length).decode()
            except UnicodeDecodeError as error:
                raise self.fail("a blendshape whose name is not text") from error
            result[name] = self.matrix()
        return result


def _scaled(path: Path, basis: np.ndarray, variance: np.ndarray, count: int) -> np.ndarray:
    components = basis_of(path, "the components", basis, count)
    variance = variance.reshape(-1)
    if variance.size != components.shape[-1] or not (variance > 0).all():
        raise FileFormatError(path, f"{variance.size} eigenvalues", f"{components.shape[-1]} above zero")
    return components * np.sqrt(variance)


def read_blendshapes(path: PathLike, count: int) -> tuple[list[str], np.ndarray]:
    """Read a file of named movements.

    Args:
        path: The file, for instance ``expression_blendshapes_3448.bin``.
        count: Number of vertices V.

    Returns:
        Names, and movements ``(V, 3, K)``.

    Raises:
        FileFormatError: If it is missing, damaged, or for another mesh.
    """
    reader = _Reader(Path(path), "blendshapes written by eos")
    moves = reader.blendshapes()
    stacked = [vertices_of(reader.path, name, move, count) for name, move in moves.items()]
    return list(moves), np.stack(stacked, axis=-1) if stacked else np.zeros((count, 3, 0), np.float32)


def read_surrey(
    path: PathLike,
    *,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    expressions: PathLike | None = None,
) -> MorphableModel:
    """Read the Surrey Face Model, or another model in eos' format.

    Args:
        path: ``sfm_shape_3448.bin`` or another file of eos, or the folder that holds the first (``share`` of eos).
        landmarks: 68 vertices, a mapping file of eos, or another file; by default ``ibug_to_sfm.txt`` beside the
            model. The landmarks that a mapping does not name are derived by registration.
        units: Unit of length of the result.
        expressions: Blendshapes; by default ``expression_blendshapes_3448.bin`` beside the model, if that has no
            expressions of its own.

    Returns:
        The model; shape coefficients in standard deviations, expressions from 0 to 1.

    Raises:
        FileFormatError: If a file is missing, damaged, of another version, or does not fit the others.
    """
    path = Path(path)
    path = path / MODEL_FILE if path.is_dir() else path
    reader = _Reader(path, _EXPECTED)
    version = reader.number("I")
    if version not in _VERSIONS:
        raise reader.fail(f"version {version}")
    mean, basis, variance, triangles = reader.linear()
    mean = vertices_of(path, "the mean", mean)
    count = len(mean)
    shape = _scaled(path, basis, variance, count)
    colour_mean, colour_basis, colour_variance, _ = reader.linear()
    albedo = {}
    if colour_mean.size:
        albedo = {
            "albedo_mean": vertices_of(path, "the mean colour", colour_mean, count),
            "albedo_basis": _scaled(path, colour_basis, colour_variance, count),
        }

    names, expression, kind, source = (
        None,
        None,
        "blendshapes",
        f"{path.name} of eos; shape in standard deviations",
    )
    if version >= 2 and not reader.number("?"):  # the flag says that there are no expressions
        if reader.number("i") == 0:
            movement, components, spread, _ = reader.linear()
            mean = mean + vertices_of(path, "the mean expression", movement, count)
            expression, kind = _scaled(path, components, spread, count), "components"
        else:
            moves = reader.blendshapes()
            names = list(moves)
            expression = np.stack([vertices_of(path, name, move, count) for name, move in moves.items()], axis=-1)
    if expression is None or expressions is not None:
        chosen = Path(expressions) if expressions is not None else beside(path.parent, [_BLENDSHAPES])
        if chosen is not None:
            (names, expression), kind = read_blendshapes(chosen, count), "blendshapes"
            source += f"; {chosen.name}"

    known: dict[int, int] = {}
    mapping = beside(path.parent, [_MAPPING])
    if landmarks is None and mapping is not None and path.name == MODEL_FILE:
        found = read_landmark_file(mapping)
        known = found if isinstance(found, dict) else {}
        source += f"; {len(known)} landmarks of {_MAPPING}"
    parts = Parts(
        mean,
        shape,
        triangles_of(path, "the triangles", triangles, count),
        "mm",
        expression_basis=expression,
        known=known,
        albedo=albedo,
        expression_names=names,
        expression_kind=kind,
    )
    is_surrey = path.name == MODEL_FILE
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name="Surrey Face Model" if is_surrey else f"eos model {path.stem}",
        license=LICENSE if is_surrey else "that of the model which was converted for eos",
        source=source,
    )
