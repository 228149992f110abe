"""The Basel Face Models of 2017 and 2019 (Gerig et al. 2018), in Basel's HDF5 layout.

Three linear models of one mesh, ``shape``, ``expression`` and ``color``, each with ``model/mean`` (3V),
``model/pcaBasis`` (3V, K) and ``model/pcaVariance`` (K); the mesh as ``shape/representer/points`` (3, V) and ``cells``
(3, T), counting from 0; lengths in millimetres, colours from 0 to 1. Columns of the basis have unit length and
coefficients are in standard deviations (older writers stored the columns already multiplied by the standard deviations:
their lengths tell which it is). ``metadata/landmarks/json`` names about thirty points, none of them on the jaw line;
"left" and "right" there are the person's own. Models with and without the mouth's inside, cut to the mask of 2009
(``bfm``) or to the face (``face12``), differ only in V.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError, require
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import EXTRA, basis_of, deviations_of, existing, triangles_of, vertices_of
from twodasl_lite.faces.readers.markup import LandmarkChoice
from twodasl_lite.faces.readers.parts import Parts, assemble

PathLike = str | os.PathLike[str]

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
LICENSE = "Basel Face Model: non-commercial research only (University of Basel)"

_NEAR = 5.0  # mm from a named point to a vertex; points farther off belong to parts of the head that were cut off
_MARKUP = {
    8: "center.chin.tip",
    30: "center.nose.tip",
    33: "center.nose.attachement_to_philtrum",
    36: "right.eye.corner_outer",
    39: "right.eye.corner_inner",
    42: "left.eye.corner_inner",
    45: "left.eye.corner_outer",
    48: "right.lips.corner",
    51: "center.lips.upper.outer",
    54: "left.lips.corner",
    57: "center.lips.lower.outer",
    62: "center.lips.upper.inner",
    66: "center.lips.lower.inner",
}
"""Those of the 68 landmarks that Basel names a point for, with Basel's name."""


def _linear(path: Path, file, group: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean ``(V, 3)`` and components ``(V, 3, K)`` per standard deviation of one of the models.

    Raises:
        FileFormatError: If a part is missing or of the wrong size, or the columns' lengths fit neither layout.
    """
    arrays = {}
    for name in ("mean", "pcaBasis", "pcaVariance"):
        item = file.get(f"{group}/model/{name}")
        if item is None or not hasattr(item, "shape"):
            raise FileFormatError(path, f"no {group}/model/{name}", "a Basel Face Model of 2017 or 2019")
        arrays[name] = np.asarray(item)
    mean = vertices_of(path, f"{group}/model/mean", arrays["mean"], count)
    basis = basis_of(path, f"{group}/model/pcaBasis", arrays["pcaBasis"], len(mean))
    modes = basis.shape[-1]
    variance = np.asarray(arrays["pcaVariance"]).reshape(-1)
    std = np.sqrt(deviations_of(path, f"{group}/model/pcaVariance", variance, modes))
    length = np.sqrt(np.einsum("vck,vck->k", basis, basis, dtype=np.float64))
    if np.allclose(length, 1, rtol=0.02):
        basis = basis * std.astype(basis.dtype)
    elif not np.allclose(length, std, rtol=0.02):
        found = f"columns of length {length.min():.4g} to {length.max():.4g} in {group}/model/pcaBasis"
        raise FileFormatError(path, found, "length 1, or the square root of pcaVariance")
    return mean, basis


def _named_points(path: Path, file) -> dict[str, np.ndarray]:
    """Positions of Basel's landmarks by name."""
    item = file.get("metadata/landmarks/json")
    if item is None:
        return {}
    try:
        raw = item[()]
        raw = raw.reshape(-1)[0] if isinstance(raw, np.ndarray) and raw.dtype.kind in "OS" else raw
        text = raw if isinstance(raw, str) else raw.tobytes().decode() if hasattr(raw, "tobytes") else raw.decode()
        return {str(point["id"]): np.asarray(point["coordinates"], np.float64) for point in json.loads(text)}
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise FileFormatError(
            path, f"unreadable metadata/landmarks/json ({error})", "a list of id and coordinates"
        ) from error


def _known(points: dict[str, np.ndarray], surfaces: list[np.ndarray]) -> dict[int, int]:
    """Vertices of the named points, on the surface (reference or mean) that they lie closest to."""
    names = {k: name for k, name in _MARKUP.items() if points.get(name, np.zeros(0)).shape == (3,)}
    best: dict[int, int] = {}
    smallest = np.inf
    for surface in surfaces:
        distance = {k: np.linalg.norm(surface - points[name], axis=1) for k, name in names.items()}
        total = sum(float(d.min()) for d in distance.values())
        if total < smallest:
            smallest = total
            best = {k: int(d.argmin()) for k, d in distance.items() if d.min() < _NEAR}
    return best


def read_basel_h5(path: PathLike, *, landmarks: LandmarkChoice = None, units: str = "mm") -> MorphableModel:
    """Read ``model2017-1_*.h5`` or ``model2019_*.h5``.

    Args:
        path: The file.
        landmarks: 68 vertices, or a file with them; by default the points that the file names, with the others derived
            by registration.
        units: Unit of length of the result.

    Returns:
        The model; shape, expression and colour coefficients in standard deviations. Its mean is the average shape with
        the average expression.

    Raises:
        FileFormatError: If the file is missing, damaged, of another layout, or its parts do not fit together.
        MissingDependencyError: If h5py is not installed.
    """
    expected = "a Basel Face Model of 2017 or 2019 (.h5)"
    path = existing(path, expected)
    h5py = require("h5py", EXTRA, "reading Basel Face Models of 2017 and 2019")
    try:
        with h5py.File(path, "r") as file:
            mean, shape = _linear(path, file, "shape")
            count = len(mean)
            expression, source = None, f"{path.name}; coefficients in standard deviations"
            if "expression/model" in file:
                movement, expression = _linear(path, file, "expression", count)
                mean = mean + movement
                source += "; zero is the mean expression"
            albedo = {}
            if "color/model" in file:
                colour_mean, colour = _linear(path, file, "color", count)
                top = 255 if colour_mean.max() > 2 else 1  # colours of the 2009 model in this layout go up to 255
                albedo = {"albedo_mean": colour_mean / top, "albedo_basis": colour / top}
            cells = file.get("shape/representer/cells")
            if cells is None:
                raise FileFormatError(path, "no shape/representer/cells", expected)
            triangles = triangles_of(path, "shape/representer/cells", np.asarray(cells), count)
            surfaces = [mean]
            reference = file.get("shape/representer/points")
            if reference is not None and reference.shape == (3, count):
                surfaces.append(np.asarray(reference, np.float64).T)
            known = _known(_named_points(path, file), surfaces)
    except (OSError, RuntimeError, KeyError, TypeError) as error:  # whatever h5py raises on a damaged file
        raise FileFormatError(path, f"a file that is not a complete HDF5 file ({error})", expected) from error
    year = "2019" if "2019" in path.name else "2017" if "2017" in path.name else "2017/2019"
    parts = Parts(mean, shape, triangles, "mm", expression_basis=expression, known=known, albedo=albedo)
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name=f"Basel Face Model {year}",
        license=LICENSE,
        source=source,
    )
