"""The linear part of FLAME 2020 and 2023 (Li et al. 2017).

``generic_model.pkl``, ``female_model.pkl``, ``male_model.pkl`` and ``flame2023*.pkl`` hold ``v_template`` (5023, 3) in
metres, ``shapedirs`` (5023, 3, 400) per standard deviation, of which the first 300 are identity and the other 100
expression, and triangles ``f``. The rest of FLAME is not linear and is left out: the joints of neck, jaw and eyes with
their corrective shapes. Expressions therefore open the mouth only as far as the expression components do.

The files are pickles with arrays wrapped by chumpy and a sparse matrix of scipy; both are read as plain data, without
either package. The 68 landmarks come in a separate file, as points on triangles: ``landmark_embedding.npy`` (all 68) or
``flame_static_embedding.pkl`` (the 51 without the jaw line). Each landmark is moved to the nearest corner of its
triangle.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import beside, existing, indices_of, triangles_of, vertices_of
from twodasl_lite.faces.readers.markup import LandmarkChoice
from twodasl_lite.faces.readers.parts import Parts, assemble
from twodasl_lite.faces.readers.safe_pickle import CHUMPY, SPARSE, TORCH, load_pickle
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

PathLike = str | os.PathLike[str]

NUM_IDENTITY = 300
"""Number of columns of ``shapedirs`` that are identity; the rest are expression."""
LICENSE = "FLAME: Max Planck Society, see flame.is.tue.mpg.de (2020: non-commercial research; 2023: CC-BY-4.0)"

_JAW = 17  # landmarks of the jaw line, the first of the 68
_EMBEDDINGS = (
    "landmark_embedding.npy",
    "landmark_embedding.npz",
    "flame_static_embedding_68_v4.npz",
    "flame_static_embedding_68.pkl",
    "flame_static_embedding.pkl",
)
_EMBEDDING_KEYS = (("full_lmk_faces_idx", "full_lmk_bary_coords"), ("lmk_face_idx", "lmk_b_coords"))


def read_embedding(path: PathLike, triangles: np.ndarray) -> dict[int, int]:
    """Read points on triangles and take the nearest corner of each.

    Args:
        path: ``.npy``, ``.npz`` or ``.pkl`` with triangle indices and barycentric coordinates of 68 or of 51 points.
        triangles: ``(T, 3)`` vertex indices.

    Returns:
        Vertex of each landmark, counting from 0.

    Raises:
        FileFormatError: If it is missing or holds anything else; MediaPipe's embedding has other points.
    """
    expected = f"an embedding of the {NUM_LANDMARKS} landmarks, or of the {NUM_LANDMARKS - _JAW} without the jaw"
    path = existing(path, expected)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                content: object = {name: archive[name] for name in archive.files}
        else:
            content = load_pickle(path, also=TORCH)
    except (ValueError, OSError, EOFError, KeyError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(path, f"an unreadable file ({error})", expected) from error
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    for faces_name, weights_name in _EMBEDDING_KEYS:
        if isinstance(content, Mapping) and faces_name in content and weights_name in content:
            break
    else:
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise FileFormatError(path, found, expected)
    faces = np.asarray(content[faces_name]).reshape(-1)
    weights = np.asarray(content[weights_name]).reshape(-1)
    if faces.size not in (NUM_LANDMARKS, NUM_LANDMARKS - _JAW) or weights.size != 3 * faces.size:
        raise FileFormatError(path, f"{faces.size} points with {weights.size} weights", expected)
    faces = indices_of(path, faces_name, faces, len(triangles), first=0)
    corner = weights.reshape(-1, 3).argmax(axis=1)
    vertices = triangles[faces, corner]
    return {NUM_LANDMARKS - faces.size + k: int(vertex) for k, vertex in enumerate(vertices)}


def read_flame(path: PathLike, *, landmarks: LandmarkChoice = None, units: str = "mm") -> MorphableModel:
    """Read a FLAME model.

    Args:
        path: The pickle; read without executing it.
        landmarks: FLAME's landmark embedding, or 68 vertices, or a file with them. By default an embedding beside the
            model; without one they are derived by registration, which is less accurate.
        units: Unit of length of the result.

    Returns:
        The model; coefficients in standard deviations.

    Raises:
        FileFormatError: If a file is missing, damaged, of another kind, or mentions a function or class.
    """
    path = Path(path)
    expected = "a FLAME model with v_template, shapedirs and f"
    content = load_pickle(path, also=CHUMPY | SPARSE)
    missing = [k for k in ("v_template", "shapedirs", "f") if not isinstance(content, Mapping) or k not in content]
    if missing:
        raise FileFormatError(path, f"a pickle without {', '.join(missing)}", expected)
    mean = vertices_of(path, "v_template", content["v_template"])
    count = len(mean)
    directions = content["shapedirs"]
    if not isinstance(directions, np.ndarray) or directions.ndim != 3 or directions.shape[:2] != (count, 3):
        raise FileFormatError(
            path, f"shapedirs of shape {np.shape(directions)}", f"({count}, 3, identity + expression)"
        )
    if directions.shape[2] <= NUM_IDENTITY:
        found = f"{directions.shape[2]} shape components, as in models of the whole body or of hands"
        raise FileFormatError(path, found, f"{NUM_IDENTITY} identity and further expression components")
    if not np.isfinite(directions).all():
        raise FileFormatError(path, "shapedirs with values NaN or infinite", expected)
    triangles = triangles_of(path, "f", content["f"], count)

    published, known, source = None, {}, f"{path.name}, linear part; coefficients in standard deviations"
    embedding: Path | None = None
    if landmarks is None:
        embedding = beside(path.parent, _EMBEDDINGS)
    elif isinstance(landmarks, (str, os.PathLike)) and Path(landmarks).name in _EMBEDDINGS:
        embedding, landmarks = Path(landmarks), None
    if embedding is not None:
        known = read_embedding(embedding, triangles)
        source += f"; landmarks: nearest corners of {embedding.name}"
        if len(known) == NUM_LANDMARKS:
            published = np.array([known[k] for k in range(NUM_LANDMARKS)])
    parts = Parts(
        mean,
        directions[..., :NUM_IDENTITY],
        triangles,
        "m",
        expression_basis=directions[..., NUM_IDENTITY:],
        published=published,
        known=known,
    )
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name=f"FLAME ({path.stem})",
        license=LICENSE,
        source=source,
    )
