"""The table of formats: the model, how a file is recognised, and the reader."""

from __future__ import annotations

import inspect
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import basel2009, basel_h5, flame, ict, model_shape, surrey, tddfa
from twodasl_lite.faces.readers.arrays import mat_variables


@dataclass(frozen=True)
class FaceModelFormat:
    """A kind of file that holds a face model.

    Attributes:
        kind: Name of the kind for :func:`read_face_model`.
        title: Name of the model.
        files: File or folder to give as the path.
        license: The usual licence of the data.
        needs: Required packages beyond the basic ones.
        checked: What the reader was checked against.
        recognises: Function that tells by the content whether a path is of this kind; never raises.
        read: The reader; its keyword arguments are the options.
    """

    kind: str
    title: str
    files: str
    license: str
    needs: str
    checked: str
    recognises: Callable[[Path], bool]
    read: Callable[..., MorphableModel]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the keyword arguments that :attr:`read` takes."""
        parameters = inspect.signature(self.read).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


# ------------------------------------------------------------------------------------------------------- recognition
def _begins(path: Path, start: bytes) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(start)) == start
    except OSError:
        return False


def _mentions(path: Path, *words: bytes) -> bool:
    """Whether a pickle names all these keys; it is searched as bytes, not unpickled."""
    if not path.is_file() or path.suffix not in (".pkl", ".pickle"):
        return False
    missing, tail, longest = set(words), b"", max(map(len, words))
    with path.open("rb") as file:
        while missing and (block := file.read(1 << 24)):
            missing -= {word for word in missing if word in tail + block}
            tail = block[-longest:]
    return not missing


def _has_member(path: Path, name: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return f"{name}.npy" in archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False


def _is_mat(path: Path, *names: str) -> bool:
    return path.is_file() and path.suffix == ".mat" and mat_variables(path).issuperset(names)


def _is_eos(path: Path) -> bool:
    if path.is_dir():
        return (path / surrey.MODEL_FILE).is_file()
    return path.suffix == ".bin" and any(_begins(path, v.to_bytes(4, "little")) for v in range(1, 5))


def _is_ict(path: Path) -> bool:
    return any((folder / f"{ict.NEUTRAL}.obj").is_file() for folder in (path, path / ict.FOLDER))


def _is_basel_2009(path: Path) -> bool:
    file = path / basel2009.MODEL_FILE if path.is_dir() else path
    return _is_mat(file, *basel2009.REQUIRED)


def _read_own(path: str | os.PathLike[str]) -> MorphableModel:
    return MorphableModel.load(path)


LAYOUT_ONLY = "layout tested, file not"
"""Marks a reader tested on files that its tests write in the published layout; the real file needs a licence."""
_WRITTEN = LAYOUT_ONLY

FORMATS: tuple[FaceModelFormat, ...] = (
    FaceModelFormat(
        "twodasl", "any, as saved by this package", "an .npz of MorphableModel.save", "as stored in it", "",
        "the real files", lambda path: path.is_file() and _has_member(path, "__header__"), _read_own,
    ),
    FaceModelFormat(
        "ict", "ICT Face Model Light", "ICT-FaceKit, or its folder FaceXModel", "MIT", "", "the real files",
        _is_ict, ict.read_ict_folder,
    ),
    FaceModelFormat(
        "ict-npz", "ICT Face Model Light", "the one-file repack (.npz)", "MIT", "", "the real file",
        lambda path: path.is_file() and ict.is_repack(path), ict.read_ict_npz,
    ),
    FaceModelFormat(
        "bfm2009", "Basel Face Model 2009 + FaceWarehouse", "01_MorphableModel.mat or its folder",
        "non-commercial research", "scipy", _WRITTEN, _is_basel_2009, basel2009.read_basel_2009,
    ),
    FaceModelFormat(
        "bfm-h5", "Basel Face Model 2017, 2019", "model2017-1_*.h5, model2019_*.h5", "non-commercial research",
        "h5py, scipy", _WRITTEN, lambda path: _begins(path, basel_h5.HDF5_SIGNATURE), basel_h5.read_basel_h5,
    ),
    FaceModelFormat(
        "3ddfa", "Basel Face Model 2009, 40 + 10 components", "train.configs of 3DDFA or 2DASL",
        "non-commercial research", "scipy", "the real files but for the two bases",
        lambda path: path.is_dir() and (path / "w_shp_sim.npy").is_file(), tddfa.read_tddfa_folder,
    ),
    FaceModelFormat(
        "3ddfa-v2", "Basel Face Model 2009, 38,365 vertices", "configs/bfm_noneck_v3.pkl of 3DDFA_V2",
        "non-commercial research", "", f"{LAYOUT_ONLY}; its whitening and triangles real",
        lambda path: _mentions(path, b"w_shp", b"w_exp", b"keypoints"), tddfa.read_tddfa_v2,
    ),
    FaceModelFormat(
        "model-shape", "Basel Face Model 2009, 199 + 29 components", "Model_Shape.mat with Model_Exp.mat",
        "non-commercial research", "scipy", _WRITTEN,
        lambda path: _is_mat(path, "mu_shape", "tri"), model_shape.read_model_shape,
    ),
    FaceModelFormat(
        "flame", "FLAME 2020, 2023 (linear part)", "generic_model.pkl, flame2023.pkl",
        "2020: research; 2023: CC BY 4.0", "scipy", _WRITTEN,
        lambda path: _mentions(path, b"v_template", b"shapedirs"), flame.read_flame,
    ),
    FaceModelFormat(
        "surrey", "Surrey Face Model, other models of eos", "sfm_shape_3448.bin, or eos' folder share",
        "non-commercial", "scipy", "the real files", _is_eos, surrey.read_surrey,
    ),
)  # fmt: skip
"""Every format that can be read."""


def recognise(path: str | os.PathLike[str]) -> FaceModelFormat:
    """Tell what kind of face model a file or folder is.

    Raises:
        FileFormatError: If it is missing or of no known kind.
    """
    path = Path(path)
    expected = f"a face model ({', '.join(entry.kind for entry in FORMATS)})"
    if not path.exists():
        raise FileFormatError(path, "no such file", expected)
    for entry in FORMATS:
        if entry.recognises(path):
            return entry
    if path.suffix == ".npz" and path.is_file():
        return FORMATS[0]  # perhaps a damaged one: its reader says what is wrong
    if path.is_dir():
        raise FileFormatError(path, _incomplete(path) or "a folder of another kind", expected)
    raise FileFormatError(path, "a file of another kind", expected)


# Files that identify folders: a folder with some of them, but not all, is incomplete.
_FOLDERS: dict[str, tuple[str, ...]] = {
    "3ddfa": ("u_shp.npy", "u_exp.npy", "w_shp_sim.npy", "w_exp_sim.npy", "keypoints_sim.npy", "param_whitening.pkl"),
    "3ddfa-v2": ("bfm_noneck_v3.pkl", "tri.pkl", "param_mean_std_62d_120x120.pkl"),
    "bfm2009": ("01_MorphableModel.mat", "BFM_exp_idx.mat", "Exp_Pca.bin", "std_exp.txt"),
    "model-shape": ("Model_Shape.mat", "Model_Exp.mat"),
    "ict": ("FaceXModel/generic_neutral_mesh.obj", "FaceXModel/vertex_indices.json"),
}


def _incomplete(folder: Path) -> str | None:
    """What is missing in a folder with some of a kind's files; of several kinds, the most complete one counts."""
    shares = {}
    for kind, names in _FOLDERS.items():
        present = sum((folder / name).exists() for name in names)
        if present:
            shares[kind] = present / len(names)
    if not shares:
        return None
    kind = max(shares, key=shares.__getitem__)
    missing = [name for name in _FOLDERS[kind] if not (folder / name).exists()]
    return f"an incomplete folder of {kind}, without {', '.join(missing)}" if missing else None


def format_of(kind: str) -> FaceModelFormat:
    """The format with this name.

    Raises:
        ValueRangeError: If there is none.
    """
    for entry in FORMATS:
        if entry.kind == kind:
            return entry
    raise ValueRangeError(f"kind: found {kind!r}; expected one of {', '.join(entry.kind for entry in FORMATS)}")
