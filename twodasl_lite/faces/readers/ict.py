"""ICT Face Model Light (Li et al. 2020): a free model of real faces (MIT licence).

The public repository keeps a folder ``FaceXModel`` of Wavefront OBJ files with one vertex order: the neutral face
``generic_neutral_mesh.obj``, ``identity000.obj`` to ``identity099.obj`` (the neutral face displaced by one standard
deviation of a principal component) and one file per expression, named by Apple's ARKit with ``_L`` and ``_R`` for the
person's own left and right. Lengths are centimetres. The same model repacked in one ``.npz`` is read too.

The first 24,591 of the 26,719 vertices are kept: skin, mouth, teeth and eyeballs. The rest is a game engine's helper
geometry over the eyes, and the eyelashes. Expressions that move nothing of the face (the pupils' size) are left out,
which leaves 55 of the 57.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import existing
from twodasl_lite.faces.readers.markup import LandmarkChoice
from twodasl_lite.faces.readers.obj import read_obj
from twodasl_lite.faces.readers.parts import Parts, assemble

PathLike = str | os.PathLike[str]

FOLDER = "FaceXModel"
NEUTRAL = "generic_neutral_mesh"
LICENSE = "MIT, Copyright (c) 2020 USC Institute for Creative Technologies"
NUM_VERTICES = 26_719

REGIONS = {
    "face": (0, 9409),
    "head_and_neck": (9409, 11248),
    "mouth_socket": (11248, 13294),
    "eye_socket_left": (13294, 13678),
    "eye_socket_right": (13678, 14062),
    "gums_and_tongue": (14062, 17039),
    "teeth": (17039, 21451),
    "sclera_left": (21451, 22221),
    "iris_left": (22221, 23021),
    "sclera_right": (23021, 23791),
    "iris_right": (23791, 24591),
}
"""Vertex ranges of the parts that are kept, first and one past the last; left and right are the person's own."""
KEPT = REGIONS["iris_right"][1]

MULTI_PIE = (
    *(1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443),
    *(268, 493, 1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269),
    *(3360, 1507, 1542, 1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275),
    *(6200, 6213, 6346, 6461, 5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),
)
"""The 68 landmarks that the repository publishes."""
JAW_LINE = (1278, 1272, 12, 1834, 243, 781, 2199, 1447, 966, 3661, 4390, 3022, 2484, 4036, 2253, 3490, 3496)
"""The repository's substitute for the first 17; the edge of the jaw instead of the outline of the frontal face."""
BASEL_JAW = (8130, 7832, 7441, 8841, 823, 1831, 790, 2197, 969, 4388, 3031, 4033, 3064, 9164, 6714, 7105, 7403)
"""Where the Basel Face Model has the first 17 (3DDFA's list, with which AFLW2000-3D and 300W-LP are annotated), as
found by :func:`~twodasl_lite.faces.register.matching_landmarks`."""
JAWS = ("outline", "edge", "basel")

_MOVES = 0.05  # cm: smallest movement on the face that counts as an expression
REPACK_ARRAYS = ("mean", "identity", "expression", "expression_names", "triangles")
"""Arrays of the one-file repack."""

Progress = Callable[[int, int], None]
"""Called with the number of files read and the total."""


def find_folder(path: PathLike) -> Path:
    """The folder of OBJ files: the given one, or ``FaceXModel`` in it.

    Raises:
        FileFormatError: If neither holds the neutral face.
    """
    path = Path(path)
    for folder in (path, path / FOLDER):
        if (folder / f"{NEUTRAL}.obj").is_file():
            return folder
    raise FileFormatError(path, f"no {NEUTRAL}.obj", f"ICT-FaceKit's folder {FOLDER}")


def model_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files of identity modes and of expressions, each in the order of the model.

    Raises:
        FileFormatError: If an identity mode or an expression is missing.
    """
    identity = sorted(folder.glob("identity[0-9][0-9][0-9].obj"))
    expected = "identity000.obj and on, without a gap"
    if not identity or [p.name for p in identity] != [f"identity{k:03}.obj" for k in range(len(identity))]:
        raise FileFormatError(folder, f"{len(identity)} identity files", expected)
    expressions = sorted(p for p in folder.glob("*.obj") if p not in identity and p.stem != NEUTRAL)
    index = folder / "vertex_indices.json"
    if index.is_file():
        try:
            named = json.loads(index.read_text(encoding="utf-8"))["expressions"]
            missing = sorted(set(named) - {p.stem for p in expressions})
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(index, f"unreadable content ({error})", "ICT-FaceKit's list of names") from error
        if missing:
            raise FileFormatError(folder, f"no {', '.join(missing)}", "an OBJ file for each expression of the list")
    return identity, expressions


def _published(jaw: str) -> np.ndarray:
    check_choice("jaw", jaw, JAWS)
    lines = dict(zip(JAWS, (MULTI_PIE[: len(JAW_LINE)], JAW_LINE, BASEL_JAW), strict=True))
    return np.array(lines[jaw] + MULTI_PIE[len(JAW_LINE) :])


def read_ict_folder(
    path: PathLike,
    *,
    landmarks: LandmarkChoice = None,
    units: str = "mm",
    jaw: str = "outline",
    progress: Progress | None = None,
) -> MorphableModel:
    """Read the folder of OBJ files.

    Args:
        path: ``FaceXModel``, or the repository that holds it.
        landmarks: Landmarks to use instead of the published 68.
        units: Unit of length of the result.
        jaw: ``"outline"``: the published 68; ``"edge"``: with the published substitute for the jaw line; ``"basel"``:
            with the jaw line of the Basel Face Model, for comparison with annotations made with that model.
        progress: Called after each file.

    Returns:
        The model; identity in standard deviations, expressions as blendshapes from 0 to 1.

    Raises:
        FileFormatError: If a file is missing, damaged, or has another number of vertices.
    """
    published = _published(jaw)
    folder = find_folder(path)
    identity, expressions = model_files(folder)
    neutral, triangles = read_obj(folder / f"{NEUTRAL}.obj", faces=True)
    if len(neutral) != NUM_VERTICES:
        raise FileFormatError(folder / f"{NEUTRAL}.obj", f"{len(neutral)} vertices", f"{NUM_VERTICES}")
    bases: dict[str, list[np.ndarray]] = {"identity": [], "expression": []}
    names, total = [], len(identity) + len(expressions)
    for position, file in enumerate([*identity, *expressions]):
        moved, _ = read_obj(file)
        if moved.shape != neutral.shape:
            raise FileFormatError(file, f"{len(moved)} vertices", f"{len(neutral)}, as in the neutral face")
        move = (moved - neutral)[:KEPT].astype(np.float32)
        if position < len(identity):
            bases["identity"].append(move)
        elif np.abs(move[slice(*REGIONS["face"])]).max() > _MOVES:
            bases["expression"].append(move)
            names.append(file.stem)
        if progress is not None:
            progress(position + 1, total)
    return _assemble(
        folder,
        neutral[:KEPT],
        np.stack(bases["identity"], axis=-1),
        np.stack(bases["expression"], axis=-1) if names else np.zeros((KEPT, 3, 0), np.float32),
        names,
        triangles[(triangles < KEPT).all(axis=1)],
        published,
        units,
        landmarks,
        f"ICT-FaceKit's OBJ files; {len(names)} of {len(expressions)} expressions move the face",
    )


def is_repack(path: Path) -> bool:
    """Whether a file is the one-file repack."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return False
    return names.issuperset(REPACK_ARRAYS)


def read_ict_npz(
    path: PathLike, *, landmarks: LandmarkChoice = None, units: str = "mm", jaw: str = "outline"
) -> MorphableModel:
    """Read the repack: ``mean`` (V, 3), ``identity`` (K, V, 3), ``expression``, ``expression_names``, ``triangles``.

    Arguments and result are as for :func:`read_ict_folder`.

    Raises:
        FileFormatError: If the file is missing, damaged, or lacks an array.
    """
    published = _published(jaw)
    path = existing(path, "the ICT model in one .npz")
    try:
        with np.load(path, allow_pickle=False) as content:
            mean = content["mean"].astype(np.float32)
            identity, expression = (content[k].astype(np.float32) for k in ("identity", "expression"))
            names = [str(name) for name in content["expression_names"]]
            triangles = content["triangles"]
        if mean.shape != (KEPT, 3) or identity.shape[1:] != mean.shape or expression.shape[1:] != mean.shape:
            raise ValueError(f"arrays of {mean.shape}, {identity.shape} and {expression.shape}")
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise FileFormatError(path, f"a damaged or other archive ({error})", "the ICT model in one .npz") from error
    return _assemble(
        path,
        mean,
        np.moveaxis(identity, 0, -1),
        np.moveaxis(expression, 0, -1),
        names,
        triangles,
        published,
        units,
        landmarks,
        "ICT-FaceKit, repacked",
    )


def _assemble(path, mean, identity, expression, names, triangles, published, units, landmarks, source):
    parts = Parts(
        mean,
        identity,
        triangles,
        "cm",
        expression_basis=expression,
        published=published,
        regions={name: np.arange(first, end) for name, (first, end) in REGIONS.items()},
        expression_names=names,
        expression_kind="blendshapes",
    )
    return assemble(
        path,
        parts,
        units=units,
        landmarks=landmarks,
        name="ICT Face Model Light",
        license=LICENSE,
        source=f"{source}; identity in standard deviations, expressions from 0 to 1",
    )
