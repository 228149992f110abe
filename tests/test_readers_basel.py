"""Basel Face Models of 2009, 2017 and 2019, in the published layouts at small size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.reader_files import (
    COUNT,
    SIDE,
    SmallFace,
    column,
    landmark_json,
    write_basel_2009,
    write_basel_h5,
    write_binary_expressions,
    write_model_exp,
    write_model_shape,
)
from twodasl_lite.base.errors import FileFormatError, InputTypeError, ValueRangeError
from twodasl_lite.faces import read_face_model
from twodasl_lite.faces.readers import basel_h5, recognise

h5py = pytest.importorskip("h5py", reason="h5py comes with the extra models")
scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")

LANDMARKS = list(range(20, 88))
# Two rows of the mesh play the neck; the front lacks a column too.
TRIM = np.arange(COUNT - 2 * SIDE) + SIDE
FRONT = np.array([k for k, vertex in enumerate(TRIM) if vertex % SIDE])


@pytest.fixture
def face() -> SmallFace:
    return SmallFace()


def close(found: torch.Tensor, expected: np.ndarray, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=1e-4)


def outward(model) -> bool:
    corners = model.mean[model.triangles]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return bool((normal[:, 2] > 0).all())


# --------------------------------------------------------------------------------------------------------------- 2009
def test_2009_without_expressions(tmp_path, face: SmallFace) -> None:
    path = write_basel_2009(tmp_path, face, TRIM)
    assert recognise(path).kind == recognise(tmp_path).kind == "bfm2009"
    model = read_face_model(path, landmarks=LANDMARKS)
    assert (model.num_vertices, model.num_shape, model.num_expression) == (COUNT, 5, 0)
    assert model.units == "mm"
    assert "non-commercial" in model.license
    close(model.mean, face.mean)
    # A coefficient of 1 is one deviation: column of unit length times shapeEV.
    expected = face.unit(face.shape).reshape(COUNT, 3, -1) * face.shape_std
    close(model.shape_basis, expected)
    assert (model.shape_std == 1).all()
    close(model.albedo_mean, face.colour)
    close(model.albedo_basis, face.unit(face.colour_basis).reshape(COUNT, 3, -1) * face.colour_std)
    assert outward(model)
    assert sorted(map(sorted, model.triangles.tolist())) == sorted(map(sorted, face.triangles.tolist()))
    native = read_face_model(path, landmarks=LANDMARKS, units="um")
    close(native.mean, 1000 * face.mean)
    close(native.shape_basis, 1000 * expected)
    close(native.albedo_mean, face.colour)


@pytest.mark.parametrize("variant", ["Exp_Pca.bin", "Model_Exp.mat", "Model_Expression.mat"])
def test_2009_with_expressions(tmp_path, face: SmallFace, variant: str) -> None:
    write_basel_2009(tmp_path, face, TRIM, FRONT)
    cut = face.expression[TRIM]
    std = np.array([3.0, 2.0, 1.0])
    components = face.unit(cut)
    if variant == "Exp_Pca.bin":
        write_binary_expressions(tmp_path, components, 1000 * std)
    else:
        write_model_exp(tmp_path / variant, np.full((len(TRIM), 3), 9.0), components * 1000, std)
    expected = components.reshape(len(TRIM), 3, -1) * std

    model = read_face_model(tmp_path, landmarks=range(68))
    assert model.num_vertices == len(TRIM)
    close(model.mean, face.mean[TRIM])  # Basel's neutral mean, without the mean of the expressions
    close(model.expression_basis, expected)
    assert (model.expression_std == 1).all()
    assert int(model.triangles.max()) < len(TRIM)
    assert outward(model)
    front = read_face_model(tmp_path, landmarks=range(68), vertices="front")
    assert front.num_vertices == len(FRONT)
    close(front.mean, face.mean[TRIM[FRONT]])
    close(front.expression_basis, expected[FRONT])
    whole = read_face_model(tmp_path, landmarks=range(68), vertices="all")
    assert (whole.num_vertices, whole.num_expression) == (COUNT, 0)
    plain = read_face_model(tmp_path, landmarks=range(68), expressions="none", vertices="noneck")
    assert (plain.num_vertices, plain.num_expression) == (len(TRIM), 0)


def test_2009_landmarks_of_the_index_files(tmp_path, face: SmallFace) -> None:
    write_basel_2009(tmp_path, face, TRIM, FRONT)
    write_binary_expressions(tmp_path, face.unit(face.expression[TRIM]), np.ones(3))
    keypoints = np.random.default_rng(1).permutation(len(TRIM))[:68]
    info = {"keypoints": (keypoints + 1).reshape(1, -1), "trimIndex": (TRIM + 1).reshape(-1, 1)}
    scipy.io.savemat(tmp_path / "model_info.mat", info)
    scipy.io.savemat(tmp_path / "facemodel_info.mat", {"keypoints": np.arange(68).reshape(1, -1) + 3})
    assert read_face_model(tmp_path).landmarks.tolist() == keypoints.tolist()
    assert read_face_model(tmp_path, vertices="front").landmarks.tolist() == list(range(2, 70))
    assert read_face_model(tmp_path, vertices="all").landmarks.tolist() == TRIM[keypoints].tolist()
    assert "68 landmarks of the distribution" in read_face_model(tmp_path).source


def test_2009_files_that_do_not_fit(tmp_path, face: SmallFace) -> None:
    path = write_basel_2009(tmp_path, face, TRIM)
    binary = write_binary_expressions(tmp_path, face.unit(face.expression[TRIM]), np.ones(3))
    data = binary.read_bytes()
    for broken, found in (
        (data[:-4], "K = 3 and"),
        (data[:3], "K = 0 and 3 bytes"),
        (b"\xff\xff\xff\xff" + data[4:], "K = -1 and"),
        (data + b"\0\0\0\0", "K = 3 and"),
        (data[:-4] + np.float32(np.nan).tobytes(), "NaN or infinite"),
    ):
        binary.write_bytes(broken)
        with pytest.raises(FileFormatError, match=found):
            read_face_model(path, landmarks=LANDMARKS)
    binary.write_bytes(data)
    (tmp_path / "std_exp.txt").write_text("1 2")
    with pytest.raises(FileFormatError, match=r"std_exp\.txt: found the standard deviations with 2 values; expected 3"):
        read_face_model(path, landmarks=LANDMARKS)
    (tmp_path / "std_exp.txt").write_text("one two three")
    with pytest.raises(FileFormatError, match="not a list of numbers"):
        read_face_model(path, landmarks=LANDMARKS)
    (tmp_path / "std_exp.txt").unlink()
    with pytest.raises(FileFormatError, match=r"std_exp\.txt: found no such file"):
        read_face_model(path, landmarks=LANDMARKS)
    (tmp_path / "BFM_exp_idx.mat").unlink()
    with pytest.raises(FileFormatError, match=r"found neither BFM_exp_idx\.mat nor model_info\.mat"):
        read_face_model(path, landmarks=LANDMARKS)
    assert read_face_model(path, landmarks=LANDMARKS, vertices="all").num_vertices == COUNT
    with pytest.raises(ValueRangeError, match="which the neck does not have"):
        read_face_model(path, landmarks=LANDMARKS, vertices="all", expressions=binary)
    with pytest.raises(ValueRangeError, match="vertices: found 'half'; expected one of all, noneck, front"):
        read_face_model(path, vertices="half")
    scipy.io.savemat(tmp_path / "BFM_exp_idx.mat", {"trimIndex": np.arange(5) + COUNT})
    with pytest.raises(FileFormatError, match="trimIndex from 100 to 104; expected whole numbers from 1 to 100"):
        read_face_model(path, landmarks=LANDMARKS, expressions="none", vertices="noneck")


def test_2009_damaged_and_mislabelled(tmp_path, face: SmallFace) -> None:
    path = write_basel_2009(tmp_path, face, TRIM)
    whole = path.read_bytes()
    content = scipy.io.loadmat(path)
    for change, found in (
        ({"shapeEV": column(np.zeros(5))}, "not all above zero"),
        ({"shapePC": content["shapePC"][:-3]}, r"shapePC of shape \(297, 5\)"),
        ({"shapeMU": content["shapeMU"][:-1]}, "shapeMU with 299 numbers"),
        ({"tl": content["tl"] + 5}, "tl from"),
        ({"tl": content["tl"] + 0.5}, "tl from"),
        ({"shapeMU": content["shapeMU"] * np.nan}, "300 values NaN or infinite"),
        ({"shapeMU": np.array(["text"])}, "array of <U"),
    ):
        scipy.io.savemat(path, {name: v for name, v in content.items() if name[0] != "_"} | change)
        with pytest.raises(FileFormatError, match=found):
            read_face_model(path, landmarks=LANDMARKS)
    for cut in (200, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileFormatError):
            read_face_model(path, kind="bfm2009", landmarks=LANDMARKS)
    path.write_bytes(b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n" + bytes(500))
    with pytest.raises(FileFormatError, match=r"MATLAB 7\.3"):
        read_face_model(path, kind="bfm2009", landmarks=LANDMARKS)
    scipy.io.savemat(path, {"something": np.ones(3)})
    with pytest.raises(FileFormatError, match="found something, but no shapeMU, shapePC, shapeEV, tl"):
        read_face_model(path, kind="bfm2009")
    with pytest.raises(FileFormatError, match="found a file of another kind; expected a face model"):
        read_face_model(path)


# -------------------------------------------------------------------------------------------------------- Model_Shape
def test_model_shape_has_raw_coefficients(tmp_path, face: SmallFace) -> None:
    path = write_model_shape(tmp_path, face)
    components = face.unit(face.expression) * 2e5
    write_model_exp(tmp_path / "Model_Exp.mat", np.full_like(face.mean, 1500.0), components, np.array([1.5, 1.0, 0.5]))
    assert recognise(path).kind == "model-shape"
    model = read_face_model(path)
    close(model.mean, face.mean + 1.5)
    close(model.shape_basis, face.unit(face.shape).reshape(COUNT, 3, -1) / 1000)
    close(model.shape_std, face.shape_std * 1000)
    close(model.expression_basis, components.reshape(COUNT, 3, -1) / 1000, 1e-4)
    assert model.expression_std.tolist() == [1.5, 1.0, 0.5]
    assert model.landmarks.tolist() == face.landmarks.tolist()
    close(model.albedo_mean, face.colour)
    assert outward(model)
    # The same annotation gives the same face in either unit.
    coefficients = torch.randn(2, 5) * 1000
    native = read_face_model(path, units="um").decode(coefficients)
    torch.testing.assert_close(model.decode(coefficients), native / 1000, rtol=1e-4, atol=1e-3)


def test_model_shape_without_its_modes_is_refused(tmp_path, face: SmallFace) -> None:
    content = scipy.io.loadmat(write_model_shape(tmp_path, face))
    path = tmp_path / "Model_Shape_Sim.mat"
    scipy.io.savemat(path, {name: content[name] for name in ("mu_shape", "mu_tex", "tri", "keypoints")})
    with pytest.raises(FileFormatError, match="but no w, sigma"):
        read_face_model(path)
    assert read_face_model(tmp_path / "Model_Shape.mat").num_expression == 0
    write_model_exp(tmp_path / "Model_Exp.mat", np.zeros((7, 3)), np.ones((21, 2)), np.ones(2))
    with pytest.raises(FileFormatError, match=r"Model_Exp\.mat: found w_exp of shape \(21, 2\)"):
        read_face_model(tmp_path / "Model_Shape.mat")


# --------------------------------------------------------------------------------------------------------- 2017, 2019
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("name", ["model2017-1_bfm_nomouth.h5", "model2019_face12.h5"])
def test_h5(tmp_path, face: SmallFace, name: str, scaled: bool) -> None:
    path = write_basel_h5(tmp_path / name, face, scaled=scaled)
    assert recognise(path).kind == "bfm-h5"
    model = read_face_model(path, landmarks=LANDMARKS)
    assert model.name == f"Basel Face Model {name[5:9]}"
    close(model.mean, face.mean + 0.25)
    close(model.shape_basis, face.unit(face.shape).reshape(COUNT, 3, -1) * face.shape_std)
    close(model.expression_basis, face.unit(face.expression).reshape(COUNT, 3, -1) * face.expression_std)
    close(model.albedo_mean, face.colour)
    assert (model.coefficient_std == 1).all()
    assert model.triangles.tolist() == face.triangles.tolist()
    metres = read_face_model(path, landmarks=LANDMARKS, units="m")
    close(metres.mean, (face.mean + 0.25) / 1000)


@pytest.mark.parametrize("store", ["scalar", "array", "bytes"])
def test_h5_named_points_become_vertices(tmp_path, face: SmallFace, store: str) -> None:
    points = {name: face.mean[10 + k] + 0.3 for k, name in enumerate(basel_h5._MARKUP.values())}
    points["center.nose.tip"] = face.mean[3] + [0, 0, 50]  # far off: was cut away
    points["left.ear.lobule.center"] = np.zeros(3)
    text = landmark_json(points)
    stored = {"scalar": text, "array": np.array([text], dtype=h5py.string_dtype()), "bytes": np.bytes_(text.encode())}
    path = write_basel_h5(tmp_path / "model2017-1_bfm_nomouth.h5", face, landmarks=stored[store])
    with h5py.File(path) as file:
        found = basel_h5._known(basel_h5._named_points(path, file), [face.mean])
    expected = {k: 10 + position for position, k in enumerate(basel_h5._MARKUP) if k != 30}
    assert found == expected


def test_h5_that_is_none_of_basels(tmp_path, face: SmallFace) -> None:
    path = write_basel_h5(tmp_path / "model2017-1_bfm_nomouth.h5", face)
    whole = path.read_bytes()
    for cut in (9, 600, len(whole) // 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(FileFormatError):
            read_face_model(path, landmarks=LANDMARKS)
    for change, found in (
        ({"shape/model/pcaBasis": 3 * np.ones((300, 5))}, "columns of length 51.96 to 51.96"),
        ({"shape/model/pcaVariance": -np.ones(5)}, "not all above zero"),
        ({"shape/representer/cells": face.triangles.T + COUNT}, "cells from"),
        ({"expression/model/mean": np.zeros(30)}, "expression/model/mean with 30 numbers"),
        ({"shape/model/mean": None}, "no shape/model/mean"),
        ({"shape/representer/cells": None}, "no shape/representer/cells"),
        ({"metadata/landmarks/json": "not json"}, "unreadable metadata/landmarks/json"),
    ):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            for name, value in change.items():
                if name in file:
                    del file[name]
                if value is not None:
                    file[name] = value
        with pytest.raises(FileFormatError, match=found):
            read_face_model(path, landmarks=LANDMARKS)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(FileFormatError, match="found no shape/model/mean; expected a Basel Face Model of 2017 or 2019"):
        read_face_model(path)


# --------------------------------------------------------------------------------------------------------- the choice
def test_options_and_kinds_are_checked(tmp_path, face: SmallFace) -> None:
    path = write_basel_h5(tmp_path / "model2019_bfm.h5", face)
    with pytest.raises(InputTypeError, match="vertices: found an option that 'bfm-h5' does not have; expected any of"):
        read_face_model(path, vertices="front")
    with pytest.raises(ValueRangeError, match="kind: found 'bfm'; expected one of twodasl, ict"):
        read_face_model(path, kind="bfm")
    with pytest.raises(ValueRangeError, match="units: found 'inch'; expected one of um, mm, cm, m"):
        read_face_model(path, units="inch", landmarks=LANDMARKS)
    with pytest.raises(FileFormatError, match="no such file"):
        read_face_model(tmp_path / "gone.h5")
    with pytest.raises(FileFormatError, match="found a folder of another kind"):
        read_face_model(tmp_path)
    (tmp_path / "train.configs").mkdir()
    for name in ("u_shp.npy", "u_exp.npy", "keypoints_sim.npy"):
        (tmp_path / "train.configs" / name).touch()
    wanted = r"an incomplete folder of 3ddfa, without w_shp_sim.npy, w_exp_sim.npy, param_whitening.pkl"
    with pytest.raises(FileFormatError, match=wanted):
        read_face_model(tmp_path / "train.configs")
    with pytest.raises(ValueRangeError, match="landmarks: found vertices from 32 to 103; expected 0 to 99"):
        read_face_model(path, landmarks=[*range(32, 99), 103])
    with pytest.raises(ValueRangeError, match="landmarks: found 3 of int64"):
        read_face_model(path, landmarks=[1, 2, 3])
