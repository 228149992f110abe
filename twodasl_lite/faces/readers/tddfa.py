"""The Basel Face Model as the 3DDFA family publishes it, in raw coefficients.

* 3DDFA's and 2DASL's folder ``train.configs`` (Zhu et al. 2016; Tu et al. 2019): ``u_shp.npy``, ``u_exp.npy``,
  ``w_shp_sim.npy`` (40 components), ``w_exp_sim.npy`` (10), ``keypoints_sim.npy``, ``param_whitening.pkl``.
* 3DDFA_V2's ``bfm_noneck_v3.pkl`` (Guo et al. 2020) with ``param_mean_std_62d_120x120.pkl`` beside it.

In both, lengths are in micrometres, the average face is the average shape plus the average expression, and coefficients
are *raw*: multiples of the published components, not of standard deviations. (The shape components have unit length, so
their coefficients are in micrometres, up to millions; the expression components are about 2e5 long, and their
coefficients about 1.) The standard deviations come from the whitening, over 300W-LP. In millimetres the coefficients
keep their values, but the pose, which maps lengths to pixels, becomes 1000 times as large: :func:`read_whitening`
converts the whitening accordingly.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import (
    basis_of,
    beside,
    indices_of,
    read_mat,
    read_npy,
    triangles_of,
    vertices_of,
)
from twodasl_lite.faces.readers.markup import LandmarkChoice
from twodasl_lite.faces.readers.parts import Parts, assemble
from twodasl_lite.faces.readers.safe_pickle import load_pickle
from twodasl_lite.faces.readers.whitening import NATIVE_UNIT, read_whitening
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients, Whitening
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

PathLike = str | os.PathLike[str]

LICENSE = "Basel Face Model: non-commercial research only (University of Basel); arrays as published with 3DDFA (MIT)"

FOLDER_FILES = (
    "u_shp.npy",
    "u_exp.npy",
    "w_shp_sim.npy",
    "w_exp_sim.npy",
    "keypoints_sim.npy",
    "param_whitening.pkl",
)
# Where the repositories keep the triangles that belong to these vertices.
_TRIANGLE_FILES = (
    "tri.mat",
    "tri.pkl",
    "Model_Shape.mat",
    "Model_Shape_Sim.mat",
    "../visualize/tri.mat",
    "../configs/tri.pkl",
    "../test.data/AFLW-2000-3D/Code/Model_Shape_Sim.mat",
)


# ----------------------------------------------------------------------------------------------------------- parts
def _triangles(path: Path, folder: Path, given: PathLike | None, count: int) -> np.ndarray:
    """The triangles from the given file, or from where the repositories keep them."""
    source = Path(given) if given is not None else beside(folder, _TRIANGLE_FILES)
    if source is None:
        raise FileFormatError(
            path,
            "no triangles: the folder holds none, and neither tri.mat nor tri.pkl lies beside it",
            "triangles=FILE, for instance visualize/tri.mat of 3DDFA",
        )
    if source.suffix == ".mat":
        array = read_mat(source, ["tri"])["tri"]
    elif source.suffix == ".npy":
        array = read_npy(source)
    else:
        array = load_pickle(source)
    return triangles_of(source, "tri", array, count)


def _keypoints(path: Path, array: np.ndarray, count: int) -> np.ndarray:
    """Landmark vertices from 204 indices into the flattened array, three per landmark, or from 68 vertices."""
    array = np.asarray(array).reshape(-1)
    if array.size == 3 * NUM_LANDMARKS:
        flat = indices_of(path, "keypoints", array, 3 * count, first=0).reshape(-1, 3)
        if not (flat == 3 * (flat[:, :1] // 3) + np.arange(3)).all():
            raise FileFormatError(path, "keypoints that are not x, y, z of vertices", "three indices per landmark")
        return flat[:, 0] // 3
    if array.size != NUM_LANDMARKS:
        raise FileFormatError(path, f"{array.size} keypoints", f"{NUM_LANDMARKS}, or three indices for each")
    return indices_of(path, "keypoints", array, count, first=0)


def _deviations(whitening: Whitening, num_shape: int, num_expression: int, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations of shape and expression from a whitening of the paper's 40 + 10."""
    layout = CoefficientLayout()
    if num_shape > layout.num_shape or num_expression > layout.num_expression:
        raise FileFormatError(
            path,
            f"{num_shape} + {num_expression} components",
            f"at most the {layout.num_shape} + {layout.num_expression} that the whitening has standard deviations for",
        )
    _, shape, expression = Coefficients.unpack(whitening.std)
    return shape[:num_shape].numpy(), expression[:num_expression].numpy()


# ---------------------------------------------------------------------------------------------------------- readers
def read_tddfa_folder(
    path: PathLike,
    *,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    triangles: PathLike | None = None,
) -> MorphableModel:
    """Read ``train.configs`` of 3DDFA or 2DASL.

    Args:
        path: The folder.
        landmarks: Landmarks to use instead of the folder's own 68.
        units: Unit of length of the result; coefficients stay raw.
        triangles: File with the triangles (``tri.mat``, ``tri.pkl``, ``.npy``), which the folder lacks; by default
            searched for where the repositories keep it.

    Raises:
        FileFormatError: If a file is missing, damaged, or does not fit the others.
    """
    folder = Path(path)
    missing = [name for name in FOLDER_FILES if not (folder / name).is_file()]
    if missing:
        raise FileFormatError(folder, f"no {', '.join(missing)}", f"a folder with {', '.join(FOLDER_FILES)}")
    mean = vertices_of(folder / "u_shp.npy", "u_shp", read_npy(folder / "u_shp.npy"))
    count = len(mean)
    mean = mean + vertices_of(folder / "u_exp.npy", "u_exp", read_npy(folder / "u_exp.npy"), count)
    shape = basis_of(folder / "w_shp_sim.npy", "w_shp", read_npy(folder / "w_shp_sim.npy"), count)
    expression = basis_of(folder / "w_exp_sim.npy", "w_exp", read_npy(folder / "w_exp_sim.npy"), count)
    whitening = read_whitening(folder, units=NATIVE_UNIT)
    shape_std, expression_std = _deviations(whitening, shape.shape[-1], expression.shape[-1], folder)
    parts = Parts(
        mean,
        shape,
        _triangles(folder, folder, triangles, count),
        NATIVE_UNIT,
        expression_basis=expression,
        shape_std=shape_std,
        expression_std=expression_std,
        published=_keypoints(folder / "keypoints_sim.npy", read_npy(folder / "keypoints_sim.npy"), count),
    )
    return assemble(
        folder,
        parts,
        units=units,
        landmarks=landmarks,
        name="Basel Face Model 2009, 3DDFA's selection",
        license=LICENSE,
        source="3DDFA/2DASL train.configs; raw coefficients, sigmas over 300W-LP; zero is the mean expression",
    )


def read_tddfa_v2(
    path: PathLike,
    *,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    triangles: PathLike | None = None,
    whitening: PathLike | None = None,
) -> MorphableModel:
    """Read ``bfm_noneck_v3.pkl`` of 3DDFA_V2.

    Args:
        path: The pickle; read without executing it.
        landmarks: Landmarks to use instead of the file's own 68.
        units: Unit of length of the result; coefficients stay raw.
        triangles: File with the triangles; by default ``tri.pkl`` beside it, which was rebuilt for these vertices,
            then the pickle's own.
        whitening: File with the coefficients' standard deviations; by default ``param_mean_std_62d_120x120.pkl`` beside
            it.

    Raises:
        FileFormatError: If a file is missing, damaged, or does not fit the others.
    """
    path = Path(path)
    expected = "3DDFA_V2's pickle with u, w_shp, w_exp and keypoints"
    content = load_pickle(path)
    missing = [k for k in ("u", "w_shp", "w_exp", "keypoints") if not isinstance(content, dict) or k not in content]
    if missing:
        raise FileFormatError(path, f"a pickle without {', '.join(missing)}", expected)
    mean = vertices_of(path, "u", content["u"])
    count = len(mean)
    layout = CoefficientLayout()
    shape = basis_of(path, "w_shp", content["w_shp"], count)[..., : layout.num_shape]
    expression = basis_of(path, "w_exp", content["w_exp"], count)[..., : layout.num_expression]
    deviations = _deviations(
        read_whitening(path.parent if whitening is None else whitening, units=NATIVE_UNIT),
        shape.shape[-1],
        expression.shape[-1],
        path,
    )
    if triangles is None and not (path.parent / "tri.pkl").is_file() and content.get("tri") is not None:
        faces = triangles_of(path, "tri", content["tri"], count)
    else:
        faces = _triangles(path, path.parent, triangles, count)
    parts = Parts(
        mean,
        shape,
        faces,
        NATIVE_UNIT,
        expression_basis=expression,
        shape_std=deviations[0],
        expression_std=deviations[1],
        published=_keypoints(path, content["keypoints"], count),
    )
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name="Basel Face Model 2009, 3DDFA_V2's selection",
        license=LICENSE,
        source="3DDFA_V2 configs; raw coefficients, sigmas over 300W-LP; zero is the mean expression",
    )
