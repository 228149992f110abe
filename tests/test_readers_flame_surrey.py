"""FLAME's pickles and eos' binary files, in the published layouts at small size."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest
import torch

from tests.reader_files import COUNT, SmallFace, column, write_blendshapes, write_eos, write_flame
from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces import read_face_model
from twodasl_lite.faces.readers import recognise, surrey
from twodasl_lite.faces.readers.flame import read_embedding

LANDMARKS = list(range(20, 88))


@pytest.fixture
def face() -> SmallFace:
    return SmallFace()


# -------------------------------------------------------------------------------------------------------------- FLAME
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_flame(tmp_path, face: SmallFace, protocol: int) -> None:
    path = tmp_path / "generic_model.pkl"
    directions = write_flame(path, face, protocol=protocol)
    assert recognise(path).kind == "flame"
    model = read_face_model(path, landmarks=LANDMARKS)
    assert (model.num_shape, model.num_expression) == (300, 100)
    np.testing.assert_allclose(model.mean, face.mean, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(model.shape_basis, 1000 * directions[..., :300], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.expression_basis, 1000 * directions[..., 300:], rtol=1e-5, atol=1e-6)
    assert (model.coefficient_std == 1).all()
    assert model.triangles.tolist() == face.triangles.tolist()
    assert "linear part" in model.source
    assert "Max Planck" in model.license


@pytest.mark.parametrize("count", [68, 51])
@pytest.mark.parametrize("name", ["landmark_embedding.npy", "embedding.pkl", "embedding.npz"])
def test_flame_landmark_embedding(tmp_path, face: SmallFace, count: int, name: str) -> None:
    rng = np.random.default_rng(2)
    faces = rng.integers(0, len(face.triangles), count)
    weights = rng.dirichlet([1, 1, 1], count)
    path = tmp_path / name
    keys = ("full_lmk_faces_idx", "full_lmk_bary_coords") if name.endswith("npy") else ("lmk_face_idx", "lmk_b_coords")
    content = dict(zip(keys, (faces.reshape(1, -1), weights.reshape(1, -1, 3)), strict=True))
    if name.endswith(".npy"):
        tensors = {"dynamic_lmk_faces_idx": torch.zeros(3), "dynamic_lmk_bary_coords": torch.zeros(3)}
        np.save(path, np.array(content | tensors, dtype=object), allow_pickle=True)
    elif name.endswith(".npz"):
        np.savez(path, **content)
    else:
        path.write_bytes(pickle.dumps(content, 2))
    expected = face.triangles[faces, weights.argmax(axis=1)].tolist()
    assert read_embedding(path, face.triangles) == {68 - count + k: vertex for k, vertex in enumerate(expected)}
    if name == "landmark_embedding.npy" and count == 68:  # found beside the model
        write_flame(tmp_path / "generic_model.pkl", face)
        model = read_face_model(tmp_path / "generic_model.pkl")
        assert model.landmarks.tolist() == expected
        assert "nearest corners of landmark_embedding.npy" in model.source
        assert read_face_model(tmp_path / "generic_model.pkl", landmarks=LANDMARKS).landmarks.tolist() == LANDMARKS


class _Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_flame_files_that_are_none(tmp_path, face: SmallFace) -> None:
    path, marker = tmp_path / "generic_model.pkl", tmp_path / "marker"
    write_flame(path, face)
    whole = path.read_bytes()
    good = {"v_template": face.mean, "shapedirs": np.zeros((COUNT, 3, 301)), "f": face.triangles}
    for change, found in (
        ({"extra": _Attack(f"touch {marker}")}, "system, which was not looked up or called"),
        ({"shapedirs": np.zeros((COUNT, 3, 10))}, "10 shape components, as in models of the whole body"),
        ({"shapedirs": np.zeros((COUNT, 301))}, r"shapedirs of shape \(100, 301\)"),
        ({"shapedirs": np.full((COUNT, 3, 301), np.nan)}, "shapedirs with values NaN or infinite"),
        ({"v_template": face.mean[:, :2]}, "v_template with 200 numbers"),
        ({"f": face.triangles + COUNT}, "f from"),
    ):
        path.write_bytes(pickle.dumps(good | change))
        with pytest.raises(FileFormatError, match=found):
            read_face_model(path, kind="flame", landmarks=LANDMARKS)
    assert not marker.exists()
    path.write_bytes(pickle.dumps({"something": 1}))
    with pytest.raises(FileFormatError, match="found a pickle without v_template, shapedirs, f"):
        read_face_model(path, kind="flame")
    with pytest.raises(FileFormatError, match="a file of another kind"):
        read_face_model(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="no readable pickle"):
        read_face_model(path, kind="flame")
    np.savez(tmp_path / "mediapipe.npz", lmk_face_idx=np.zeros(105, int), lmk_b_coords=np.ones((105, 3)))
    with pytest.raises(FileFormatError, match="105 points with 315 weights; expected an embedding of the 68"):
        read_embedding(tmp_path / "mediapipe.npz", face.triangles)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(FileFormatError, match="found x; expected an embedding"):
        read_embedding(tmp_path / "other.npz", face.triangles)


# ---------------------------------------------------------------------------------------------------------------- eos
def test_surrey(tmp_path, face: SmallFace) -> None:
    path = write_eos(tmp_path / surrey.MODEL_FILE, face)
    write_blendshapes(tmp_path / "expression_blendshapes_3448.bin", face)
    assert recognise(path).kind == recognise(tmp_path).kind == "surrey"
    model = read_face_model(tmp_path, landmarks=LANDMARKS)
    assert model.name == "Surrey Face Model"
    np.testing.assert_allclose(model.mean, face.mean, rtol=1e-6)
    expected = face.unit(face.shape).reshape(COUNT, 3, -1) * face.shape_std
    np.testing.assert_allclose(model.shape_basis, expected, rtol=1e-5)
    np.testing.assert_allclose(model.expression_basis, face.expression, rtol=1e-5, atol=1e-6)
    assert model.expression_kind == "blendshapes"
    assert model.expression_names == ["move 0", "move 1", "move 2"]
    assert model.albedo_mean is None


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("expressions", ["none", "components", "blendshapes"])
def test_other_versions_of_eos(tmp_path, face: SmallFace, version: int, expressions: str) -> None:
    model = read_face_model(
        write_eos(tmp_path / "own.bin", face, version=version, expressions=expressions), landmarks=LANDMARKS
    )
    np.testing.assert_allclose(model.albedo_mean, face.colour, rtol=1e-6)
    assert model.num_expression == {"none": 0, "components": 3, "blendshapes": 1}[expressions]
    if expressions == "components":
        np.testing.assert_allclose(model.mean, face.mean + 0.5, rtol=1e-6)
        expected = face.unit(face.expression).reshape(COUNT, 3, -1) * face.expression_std
        np.testing.assert_allclose(model.expression_basis, expected, rtol=1e-5)
    elif expressions == "blendshapes":
        assert model.expression_names == ["anger"]
        np.testing.assert_allclose(model.expression_basis[..., 0], face.expression[..., 0], rtol=1e-5, atol=1e-6)


def test_eos_files_that_are_cut_or_of_another_version(tmp_path, face: SmallFace) -> None:
    path = write_eos(tmp_path / "own.bin", face, version=4, expressions="blendshapes")
    whole = path.read_bytes()
    for cut in (*range(0, 60, 5), 3000, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileFormatError):
            read_face_model(path, kind="surrey", landmarks=LANDMARKS)
    path.write_bytes(struct.pack("<I", 5) + whole[4:])
    with pytest.raises(FileFormatError, match="found version 5; expected a morphable model written by eos"):
        read_face_model(path, kind="surrey")
    path.write_bytes(whole[:4] + struct.pack("<ii", -3, 1) + whole[12:])
    with pytest.raises(FileFormatError, match="a matrix of -3 x 1"):
        read_face_model(path, kind="surrey")
    path.write_bytes(whole[:4] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + whole[12:])
    with pytest.raises(FileFormatError, match="too early"):
        read_face_model(path, kind="surrey")
    path.write_bytes(whole)
    write_blendshapes(tmp_path / "other.bin", SmallFace(count=90))
    with pytest.raises(FileFormatError, match=r"other\.bin: found move 0 with 270 numbers; expected 3 x 100"):
        read_face_model(path, landmarks=LANDMARKS, expressions=tmp_path / "other.bin")
    (tmp_path / "other.bin").write_bytes(struct.pack("<QQ", 1, 2) + b"\xff\xfe" + column(face.mean).tobytes())
    with pytest.raises(FileFormatError, match="whose name is not text"):
        read_face_model(path, landmarks=LANDMARKS, expressions=tmp_path / "other.bin")
