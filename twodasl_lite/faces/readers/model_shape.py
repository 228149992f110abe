"""The Basel Face Model of 300W-LP's annotations: ``Model_Shape.mat`` and ``Model_Exp.mat`` (Zhu et al. 2016).

The MATLAB code of 300W-LP makes the first file from Basel's own: 53,215 vertices without the neck, 199 unit-length
components ``w`` with standard deviations ``sigma``, triangles and 68 ``keypoints`` that count from 1; the second adds
29 expressions of FaceWarehouse. Lengths are in micrometres and coefficients are raw, like the annotations'
``Shape_Para`` and ``Exp_Para``.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

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
from twodasl_lite.faces.readers.parts import Parts, assemble
from twodasl_lite.faces.readers.tddfa import LICENSE
from twodasl_lite.faces.readers.whitening import NATIVE_UNIT

PathLike = str | os.PathLike[str]

EXPRESSION_FILES = ("Model_Exp.mat", "Model_Expression.mat")


def read_expressions(path: Path, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ``Model_Exp.mat`` or ``Model_Expression.mat``: FaceWarehouse's expressions on the 53,215 vertices.

    Returns:
        Mean movement ``(V, 3)`` and components ``(V, 3, K)`` in micrometres, and standard deviations ``(K,)``.
    """
    content = read_mat(path, ["mu_exp", "w_exp", "sigma_exp"])
    basis = basis_of(path, "w_exp", content["w_exp"], count)
    return (
        vertices_of(path, "mu_exp", content["mu_exp"], count),
        basis,
        deviations_of(path, "sigma_exp", content["sigma_exp"], basis.shape[-1]),
    )


def read_model_shape(
    path: PathLike,
    *,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    expressions: PathLike | None = None,
) -> MorphableModel:
    """Read ``Model_Shape.mat`` with ``Model_Exp.mat``: all 199 + 29 components of 300W-LP's annotations.

    Args:
        path: ``Model_Shape.mat``.
        landmarks: Landmarks to use instead of the file's own 68.
        units: Unit of length of the result; coefficients stay raw.
        expressions: ``Model_Exp.mat`` or ``Model_Expression.mat``; by default the one beside it. Without it the model
            has no expressions.

    Raises:
        FileFormatError: If a file is missing, damaged, or does not fit the others. ``Model_Shape_Sim.mat`` holds the
            average alone and is refused.
    """
    path = existing(path, "Model_Shape.mat")
    content = read_mat(path, ["mu_shape", "w", "sigma", "tri", "keypoints"], ["mu_tex"])
    mean = vertices_of(path, "mu_shape", content["mu_shape"])
    count = len(mean)
    shape = basis_of(path, "w", content["w"], count)
    source = "300W-LP's Model_Shape.mat; raw coefficients"
    expression = expression_std = None
    expression_path = Path(expressions) if expressions is not None else beside(path.parent, EXPRESSION_FILES)
    if expression_path is not None:
        average, expression, expression_std = read_expressions(expression_path, count)
        mean = mean + average
        source += f" and {expression_path.name}; zero is the mean expression"
    albedo = {}
    if "mu_tex" in content:  # the components come without standard deviations, which leaves the average
        colours = vertices_of(path, "mu_tex", content["mu_tex"], count) / 255
        albedo = {"albedo_mean": colours, "albedo_basis": np.zeros((count, 3, 0), np.float32)}
    parts = Parts(
        mean,
        shape,
        triangles_of(path, "tri", content["tri"], count),
        NATIVE_UNIT,
        expression_basis=expression,
        shape_std=deviations_of(path, "sigma", content["sigma"], shape.shape[-1]),
        expression_std=expression_std,
        published=indices_of(path, "keypoints", content["keypoints"].reshape(-1), count, first=1),
        albedo=albedo,
    )
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name="Basel Face Model 2009, without the neck",
        license=LICENSE,
        source=source,
    )
