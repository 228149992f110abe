"""Small files of third-party face models, byte for byte in the published layouts, for the readers' tests."""

from __future__ import annotations

import json
import pickle
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")

SIDE = 10
COUNT = SIDE * SIDE


class SmallFace:
    """A curved mask of 100 vertices in millimetres, with random modes; nothing about it is a face."""

    def __init__(self, num_shape: int = 5, num_expression: int = 3, seed: int = 0, count: int = COUNT) -> None:
        rng = np.random.default_rng(seed)
        rows, columns = np.divmod(np.arange(count), SIDE)
        x, y = 16.0 * columns - 72, 16.0 * rows - 72
        self.mean = np.stack([x, y, 90 - (x**2 + y**2) / 160], axis=1)
        self.shape = rng.normal(size=(count, 3, num_shape))
        self.expression = rng.normal(size=(count, 3, num_expression))
        self.shape_std = np.linspace(4, 1, num_shape)
        self.expression_std = np.linspace(2, 1, num_expression)
        self.colour = rng.uniform(0.2, 0.8, (count, 3))
        self.colour_basis = rng.normal(size=(count, 3, 2))
        self.colour_std = np.array([0.1, 0.05])
        corner = np.array([k for k in range(count - SIDE) if k % SIDE < SIDE - 1])
        lower = np.stack([corner, corner + 1, corner + SIDE], axis=1)
        upper = np.stack([corner + 1, corner + SIDE + 1, corner + SIDE], axis=1)
        self.triangles = np.concatenate([lower, upper])  # counter-clockwise seen from +z
        self.landmarks = rng.permutation(count)[:68]

    @staticmethod
    def unit(basis: np.ndarray) -> np.ndarray:
        """The basis with columns of unit length, flattened as the files have it, ``(3V, K)``."""
        flat = basis.reshape(-1, basis.shape[-1])
        return (flat / np.linalg.norm(flat, axis=0)).astype(np.float32)

    @property
    def clockwise(self) -> np.ndarray:
        """The triangles, wrong way round."""
        return self.triangles[:, [0, 2, 1]]


def column(array: np.ndarray, factor: float = 1.0) -> np.ndarray:
    """A flattened column of float32."""
    return (np.asarray(array) * factor).astype(np.float32).reshape(-1, 1)


# ------------------------------------------------------------------------------------------------------- Basel 2009
def write_basel_2009(folder: Path, face: SmallFace, trim: np.ndarray, front: np.ndarray | None = None) -> Path:
    """``01_MorphableModel.mat`` with its index lists; in micrometres, clockwise, counting from 1."""
    scipy.io.savemat(
        folder / "01_MorphableModel.mat",
        {
            "shapeMU": column(face.mean, 1000),
            "shapePC": face.unit(face.shape),
            "shapeEV": column(face.shape_std, 1000),
            "texMU": column(face.colour, 255),
            "texPC": face.unit(face.colour_basis),
            "texEV": column(face.colour_std, 255),
            "tl": (face.clockwise + 1).astype(np.float64),
            "segbin": np.zeros((len(face.mean), 4), np.uint8),
        },
    )
    scipy.io.savemat(folder / "BFM_exp_idx.mat", {"trimIndex": (trim + 1).astype(np.uint16).reshape(-1, 1)})
    if front is not None:
        scipy.io.savemat(folder / "BFM_front_idx.mat", {"idx": (front + 1).astype(np.int32).reshape(-1, 1)})
    return folder / "01_MorphableModel.mat"


def write_binary_expressions(folder: Path, components: np.ndarray, std: np.ndarray) -> Path:
    """``Exp_Pca.bin`` and ``std_exp.txt``; components ``(3V, K)``."""
    path = folder / "Exp_Pca.bin"
    mean = np.full(components.shape[0], 7.0, np.float32)
    body = components.T.astype("<f4").tobytes()
    path.write_bytes(struct.pack("<i", components.shape[1]) + mean.astype("<f4").tobytes() + body)
    (folder / "std_exp.txt").write_text(" ".join(f"{value:.9g}" for value in std) + "\n")
    return path


def write_model_exp(path: Path, mean: np.ndarray, components: np.ndarray, std: np.ndarray) -> Path:
    """``Model_Exp.mat``."""
    scipy.io.savemat(path, {"mu_exp": column(mean), "w_exp": components.astype(np.float32), "sigma_exp": column(std)})
    return path


def write_model_shape(folder: Path, face: SmallFace) -> Path:
    """``Model_Shape.mat``; in micrometres."""
    path = folder / "Model_Shape.mat"
    scipy.io.savemat(
        path,
        {
            "mu_shape": column(face.mean, 1000),
            "w": face.unit(face.shape),
            "sigma": column(face.shape_std, 1000),
            "mu_tex": column(face.colour, 255),
            "w_tex": face.unit(face.colour_basis),
            "tri": (face.clockwise.T + 1).astype(np.uint16),
            "keypoints": (face.landmarks + 1).astype(np.uint16).reshape(1, -1),
            "segbin": np.zeros((len(face.mean), 4), np.uint8),
        },
    )
    return path


# --------------------------------------------------------------------------------------------------- Basel 2017, 2019
def write_basel_h5(path: Path, face: SmallFace, *, scaled: bool = False, landmarks: object = None) -> Path:
    """A model in Basel's HDF5 layout; columns of unit length, or already multiplied by the deviations."""
    h5py = pytest.importorskip("h5py", reason="h5py comes with the extra models")
    with h5py.File(path, "w") as file:
        for name, mean, basis, std in (
            ("shape", face.mean, face.shape, face.shape_std),
            ("expression", np.full_like(face.mean, 0.25), face.expression, face.expression_std),
            ("color", face.colour, face.colour_basis, face.colour_std),
        ):
            components = face.unit(basis) * (std if scaled else 1)
            file[f"{name}/model/mean"] = column(mean).reshape(-1)
            file[f"{name}/model/pcaBasis"] = components.astype(np.float32)
            file[f"{name}/model/pcaVariance"] = (std**2).astype(np.float32)
            file[f"{name}/model/noiseVariance"] = np.float32(0)
            file[f"{name}/representer/cells"] = face.triangles.T.astype(np.int32)
            file[f"{name}/representer/points"] = face.mean.T.astype(np.float32)
            file[f"{name}/version/majorVersion"] = np.int32(0)
            file[f"{name}/version/minorVersion"] = np.int32(9)
        if landmarks is not None:
            file["metadata/landmarks/json"] = landmarks
    return path


def landmark_json(points: dict[str, np.ndarray]) -> str:
    """Named points as Basel writes them."""
    return json.dumps([{"id": name, "coordinates": np.asarray(p).tolist()} for name, p in points.items()])


# ------------------------------------------------------------------------------------------------------------- 3DDFA
def whitening_arrays(num_shape: int = 40, num_expression: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the coefficients; always 62 long."""
    rng = np.random.default_rng(5)
    return rng.normal(size=62).astype(np.float32), rng.uniform(0.5, 2, 62).astype(np.float32)


def keypoint_indices(landmarks: np.ndarray) -> np.ndarray:
    """Indices into the flattened array, three per landmark, as ``keypoints_sim.npy`` has them."""
    return (3 * landmarks[:, None] + np.arange(3)).reshape(-1).astype(np.int64)


def write_tddfa_folder(folder: Path, face: SmallFace) -> Path:
    """``train.configs`` and ``tri.mat``; in micrometres."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "u_shp.npy", column(face.mean - 0.5, 1000))
    np.save(folder / "u_exp.npy", column(np.full_like(face.mean, 0.5), 1000))
    np.save(folder / "w_shp_sim.npy", face.unit(face.shape))
    np.save(folder / "w_exp_sim.npy", face.unit(face.expression) * np.float32(2e5))
    np.save(folder / "keypoints_sim.npy", keypoint_indices(face.landmarks))
    mean, std = whitening_arrays()
    (folder / "param_whitening.pkl").write_bytes(pickle.dumps({"param_mean": mean, "param_std": std}, 3))
    scipy.io.savemat(folder / "tri.mat", {"tri": (face.clockwise.T + 1).astype(np.uint16)})
    return folder


def write_tddfa_v2(folder: Path, face: SmallFace) -> Path:
    """``bfm_noneck_v3.pkl``, ``tri.pkl`` and ``param_mean_std_62d_120x120.pkl``."""
    content = {
        "u": column(face.mean, 1000),
        "w_shp": face.unit(face.shape),
        "w_exp": face.unit(face.expression),
        "keypoints": keypoint_indices(face.landmarks),
    }
    (folder / "bfm_noneck_v3.pkl").write_bytes(pickle.dumps(content, 4))
    (folder / "tri.pkl").write_bytes(pickle.dumps(face.clockwise.T.astype(np.int32), 4))
    mean, std = whitening_arrays()
    (folder / "param_mean_std_62d_120x120.pkl").write_bytes(pickle.dumps({"mean": mean, "std": std}, 3))
    return folder / "bfm_noneck_v3.pkl"


# ------------------------------------------------------------------------------------------------------------- FLAME
@contextmanager
def fake_chumpy() -> Iterator[type]:
    """A class that pickles under the name of chumpy's arrays, gone again afterwards."""
    module = types.ModuleType("chumpy.ch")
    package = types.ModuleType("chumpy")
    package.ch = module

    class Ch:
        def __init__(self, x: np.ndarray) -> None:
            self.x, self._dirty_vars, self._itr = x, {"x"}, None

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    module.Ch = Ch
    sys.modules.update({"chumpy": package, "chumpy.ch": module})
    try:
        yield Ch
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]


def write_flame(path: Path, face: SmallFace, *, protocol: int = 2) -> np.ndarray:
    """A FLAME model in metres: 300 identity and 100 expression modes; returns ``shapedirs``."""
    directions = np.random.default_rng(9).normal(size=(len(face.mean), 3, 400)) / 1000
    with fake_chumpy() as ch:
        content = {
            "v_template": face.mean / 1000,
            "shapedirs": ch(directions),
            "posedirs": np.zeros((len(face.mean), 3, 4)),
            "f": face.triangles.astype(np.uint32),
            "J_regressor": scipy.sparse.csc_matrix(np.eye(5, len(face.mean))),
            "kintree_table": np.zeros((2, 5), np.uint32),
            "weights": np.zeros((len(face.mean), 5)),
            "bs_style": "lbs",
        }
        path.write_bytes(pickle.dumps(content, protocol))
    return directions


# --------------------------------------------------------------------------------------------------------------- eos
def _matrix(array: np.ndarray) -> bytes:
    array = np.atleast_2d(np.asarray(array, np.float32).T).T
    return struct.pack("<ii", *array.shape) + array.astype("<f4").tobytes(order="F")


def _linear(mean: np.ndarray, basis: np.ndarray, variance: np.ndarray, triangles: np.ndarray) -> bytes:
    cells = struct.pack("<Q", len(triangles)) + np.asarray(triangles).astype("<i4").tobytes()
    return _matrix(mean) + _matrix(basis) + _matrix(variance) + cells


def _blendshapes(moves: dict[str, np.ndarray]) -> bytes:
    result = struct.pack("<Q", len(moves))
    for name, move in moves.items():
        result += struct.pack("<Q", len(name)) + name.encode() + _matrix(column(move))
    return result


def write_eos(path: Path, face: SmallFace, *, version: int = 1, expressions: str = "none") -> Path:
    """A model as cereal writes it; expressions inside the file from version 2 on: none, components or blendshapes."""
    empty = np.zeros((0, 1))
    data = struct.pack("<I", version)
    data += _linear(column(face.mean), face.unit(face.shape), column(face.shape_std**2), face.triangles)
    if version == 1:
        data += _linear(empty, np.zeros((0, 0)), empty, np.zeros((0, 3)))
    else:
        variance = column(face.colour_std**2)
        data += _linear(column(face.colour), face.unit(face.colour_basis), variance, face.triangles)
        data += struct.pack("<?", expressions == "none")
        if expressions == "components":
            variance = column(face.expression_std**2)
            data += struct.pack("<i", 0)
            data += _linear(column(0 * face.mean + 0.5), face.unit(face.expression), variance, face.triangles)
        elif expressions == "blendshapes":
            data += struct.pack("<i", 1) + _blendshapes({"anger": face.expression[..., 0]})
    path.write_bytes(data + struct.pack("<Q", 0))
    return path


def write_blendshapes(path: Path, face: SmallFace) -> Path:
    """``expression_blendshapes_3448.bin``."""
    path.write_bytes(_blendshapes({f"move {k}": face.expression[..., k] for k in range(face.expression.shape[-1])}))
    return path


# --------------------------------------------------------------------------------------------------------------- ICT
def write_ict(
    folder: Path, *, num_identity: int = 2, expressions: tuple[str, ...] = ("jawOpen", "PupilDilate_L")
) -> np.ndarray:
    """``FaceXModel`` with the published number of vertices; returns the neutral ones in cm."""
    from twodasl_lite.faces.readers.ict import KEPT, NUM_VERTICES

    target = folder / "FaceXModel"
    target.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(3)
    neutral = np.round(rng.normal(size=(NUM_VERTICES, 3)) * 5, 4)
    faces = "".join(f"f {k}/1 {k + 1}/2 {k + 2}/3 {k + 3}/4\n" for k in range(1, KEPT + 10, 7))

    def write(name: str, vertices: np.ndarray) -> None:
        lines = "".join(f"v {x:.4f} {y:.4f} {z:.4f}\n" for x, y, z in vertices)
        (target / f"{name}.obj").write_text(f"#\n\nmtllib x.mtl\n{lines}vt 0.5 0.5\nusemtl skin\n{faces}")

    write("generic_neutral_mesh", neutral)
    for k in range(num_identity):
        write(f"identity{k:03}", neutral + 0.1 * (k + 1))
    for k, name in enumerate(expressions):
        moved = neutral.copy()
        start = 22581 if name.startswith("Pupil") else 1000 * k
        moved[start : start + 50] += [0, 0.5, 0]
        write(name, moved)
    listed = [name for name in expressions if not name.startswith(("Pupil", "cheekRaiser"))]
    (target / "vertex_indices.json").write_text(json.dumps({"expressions": listed}))
    (folder / "LICENSE").write_text("MIT License\n\nCopyright (c) 2020 Somebody\n")
    return neutral
