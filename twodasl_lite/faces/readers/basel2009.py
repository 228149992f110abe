"""The Basel Face Model of 2009 (Paysan et al. 2009) with expressions of FaceWarehouse (Cao et al. 2014).

``01_MorphableModel.mat`` holds 53,490 vertices in micrometres: ``shapeMU``, ``shapePC`` with unit-length columns,
``shapeEV`` with *standard deviations* (not eigenvalues, as the name says), the same for colour with values from 0 to
255, and triangles ``tl`` that count from 1 and run clockwise. Basel's own code multiplies coefficients by the standard
deviations. Here the components are multiplied by them, so that coefficients are in standard deviations.

The model has no expressions. Two files add them, for the 53,215 vertices without the neck: ``Exp_Pca.bin`` with
``std_exp.txt`` (Guo et al. 2018, used by Deng et al. 2019), or ``Model_Exp.mat`` (Zhu et al. 2016). Those vertices are
listed as ``trimIndex`` in ``BFM_exp_idx.mat`` or ``model_info.mat``; ``BFM_front_idx.mat`` picks 35,709 of them,
without ears and throat.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import (
    basis_of,
    beside,
    deviations_of,
    existing,
    indices_of,
    read_mat,
    triangles_of,
    vertices_of,
)
from twodasl_lite.faces.readers.markup import LandmarkChoice
from twodasl_lite.faces.readers.model_shape import EXPRESSION_FILES, read_expressions
from twodasl_lite.faces.readers.parts import Parts, assemble

PathLike = str | os.PathLike[str]

MODEL_FILE = "01_MorphableModel.mat"
REQUIRED = ("shapeMU", "shapePC", "shapeEV", "tl")
_COLOURS = ("texMU", "texPC", "texEV")
VERTICES = ("all", "noneck", "front")
"""Choices of 53,490, 53,215 or 35,709 vertices."""

_TRIM_FILES = ("BFM_exp_idx.mat", "model_info.mat")
_FRONT_FILE = "BFM_front_idx.mat"
_FRONT_INFO = "facemodel_info.mat"
_BINARY, _BINARY_STD = "Exp_Pca.bin", "std_exp.txt"
LICENSE = "Basel Face Model: non-commercial research only (University of Basel)"
NO_EXPRESSIONS = "none"


def read_binary_expressions(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Read ``Exp_Pca.bin`` and the ``std_exp.txt`` beside it.

    The file is an ``int32`` number of modes K, 3V ``float32`` mean movements and K times 3V ``float32`` components, all
    little-endian. The mean movement is not part of the published model equation and is left out.

    Args:
        path: ``Exp_Pca.bin``.
        count: Number of vertices V.

    Returns:
        Unit-length components ``(V, 3, K)`` and standard deviations ``(K,)``, in micrometres.

    Raises:
        FileFormatError: If the sizes do not fit, or the standard deviations are missing.
    """
    expected = f"an int32 K, then (K + 1) x 3 x {count} float32"
    data = existing(path, expected).read_bytes()
    modes = int(np.frombuffer(data[:4], "<i4")[0]) if len(data) >= 4 else 0
    if not 0 < modes < 10_000 or len(data) != 4 + 4 * 3 * count * (modes + 1):
        raise FileFormatError(path, f"K = {modes} and {len(data)} bytes", expected)
    values = np.frombuffer(data, "<f4", offset=4).reshape(modes + 1, 3 * count)
    std_path = existing(path.with_name(_BINARY_STD), f"the standard deviations that belong to {_BINARY}")
    try:
        std = np.loadtxt(std_path, dtype=np.float64, ndmin=1).reshape(-1)
    except (ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(std_path, f"not a list of numbers ({error})", f"{modes} standard deviations") from error
    basis = basis_of(path, "the components", values[1:].T, count)
    return basis, deviations_of(std_path, "the standard deviations", std[:modes], modes)


def _expressions(folder: Path, given: PathLike | None) -> Path | None:
    """The file of expressions, or ``None`` for a model without expressions."""
    if given == NO_EXPRESSIONS:
        return None
    return Path(given) if given is not None else beside(folder, (_BINARY, *EXPRESSION_FILES))


def _subset(folder: Path, vertices: str, total: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Vertices without the neck, and which of those to keep (``None``: all of them).

    Raises:
        FileFormatError: If the lists are not in the folder or do not fit.
    """
    trim_path = beside(folder, _TRIM_FILES)
    if trim_path is None:
        raise FileFormatError(
            folder,
            f"neither {' nor '.join(_TRIM_FILES)}",
            "one of them, for the vertices that have expressions (or vertices='all' and expressions='none')",
        )
    trim = read_mat(trim_path, ["trimIndex"])["trimIndex"].reshape(-1)
    trim = indices_of(trim_path, "trimIndex", trim, total, first=1)
    if vertices != "front":
        return trim, None
    front_path = existing(folder / _FRONT_FILE, "the list of the 35,709 vertices of the front")
    front = read_mat(front_path, ["idx"])["idx"].reshape(-1)
    return trim, indices_of(front_path, "idx", front, len(trim), first=1)


def _published(folder: Path, vertices: str, front: np.ndarray | None, trim: np.ndarray) -> np.ndarray | None:
    """The 68 landmarks from the files of indices, if one of them lists them for these vertices."""
    name, count = ("model_info.mat", len(trim)) if front is None else (_FRONT_INFO, len(front))
    if not (folder / name).is_file():
        return None
    found = read_mat(folder / name, [], ["keypoints"]).get("keypoints")
    if found is None:
        return None
    index = indices_of(folder / name, "keypoints", found.reshape(-1), count, first=1)
    return trim[index] if vertices == "all" else index


def read_basel_2009(
    path: PathLike,
    *,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    expressions: PathLike | None = None,
    vertices: str | None = None,
) -> MorphableModel:
    """Read ``01_MorphableModel.mat``.

    Args:
        path: The file, or the folder that holds it.
        landmarks: 68 vertices (of those kept), or a file with them; by default those of ``model_info.mat`` or
            ``facemodel_info.mat`` in the same folder, or else derived by registration.
        units: Unit of length of the result.
        expressions: ``Exp_Pca.bin``, ``Model_Exp.mat`` or ``Model_Expression.mat``; by default the one in the same
            folder; ``"none"`` for a model without expressions.
        vertices: One of :data:`VERTICES`; by default ``"noneck"`` with expressions and ``"all"`` without.

    Returns:
        The model; shape, expression and colour coefficients in standard deviations.

    Raises:
        FileFormatError: If a file is missing, damaged, or does not fit the others.
        ValueRangeError: If the vertices asked for have no expressions.
    """
    path = Path(path)
    path = existing(path / MODEL_FILE if path.is_dir() else path, f"Basel's {MODEL_FILE}")
    folder = path.parent
    movement = _expressions(folder, expressions)
    vertices = vertices or ("all" if movement is None else "noneck")
    check_choice("vertices", vertices, VERTICES)
    if vertices == "all" and movement is not None and expressions is not None:
        raise ValueRangeError(
            "vertices: found 'all' with expressions, which the neck does not have; expected 'noneck' or 'front'"
        )
    movement = None if vertices == "all" else movement

    content = read_mat(path, REQUIRED, _COLOURS)
    mean = vertices_of(path, "shapeMU", content["shapeMU"])
    total = len(mean)
    shape = basis_of(path, "shapePC", content["shapePC"], total)
    shape_std = deviations_of(path, "shapeEV", content["shapeEV"], shape.shape[-1])
    triangles = triangles_of(path, "tl", content["tl"], total)
    albedo = {}
    if all(name in content for name in _COLOURS):
        colour = basis_of(path, "texPC", content["texPC"], total)
        albedo = {
            "albedo_mean": vertices_of(path, "texMU", content["texMU"], total) / 255,
            "albedo_basis": colour * (deviations_of(path, "texEV", content["texEV"], colour.shape[-1]) / 255),
        }

    source = f"{path.name}; coefficients in standard deviations"
    published = expression = None
    if vertices == "all":
        if beside(folder, ("model_info.mat",)):
            trim, _ = _subset(folder, vertices, total)
            published = _published(folder, vertices, None, trim)
    else:
        trim, front = _subset(folder, vertices, total)
        published = _published(folder, vertices, front, trim)
        if movement is not None:
            if movement.suffix == ".mat":
                _, expression, std = read_expressions(movement, len(trim))
            else:
                expression, std = read_binary_expressions(movement, len(trim))
            expression = (expression if front is None else expression[front]) * std
            source += f"; expressions of {movement.name} about Basel's neutral mean"
        keep = trim if front is None else trim[front]
        position = np.full(total, -1, np.int64)
        position[keep] = np.arange(len(keep))
        triangles = position[triangles]
        triangles = triangles[(triangles >= 0).all(axis=1)]
        mean, shape = mean[keep], shape[keep]
        albedo = {name: array[keep] for name, array in albedo.items()}
        source += f"; {len(keep)} of {total} vertices"
    parts = Parts(
        mean,
        shape * shape_std,
        triangles,
        "um",
        expression_basis=expression,
        published=published,
        albedo=albedo,
    )
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name="Basel Face Model 2009",
        license=LICENSE,
        source=source,
    )
