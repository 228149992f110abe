"""3DDFA's, 2DASL's and 3DDFA_V2's files, and decoding real annotations with the Basel Face Model's landmarks."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from tests.reader_files import COUNT, SmallFace, whitening_arrays, write_tddfa_folder, write_tddfa_v2
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces import MorphableModel, read_face_model, read_whitening
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.readers import convert_pose, recognise
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients


@pytest.fixture
def face() -> SmallFace:
    return SmallFace(40, 10)


def test_the_folder(tmp_path, face: SmallFace) -> None:
    folder = write_tddfa_folder(tmp_path / "train.configs", face)
    assert recognise(folder).kind == "3ddfa"
    model = read_face_model(folder)
    assert model.layout == CoefficientLayout()
    np.testing.assert_allclose(model.mean, face.mean, atol=1e-3)  # u_shp + u_exp
    np.testing.assert_allclose(model.shape_basis, face.unit(face.shape).reshape(COUNT, 3, -1) / 1000, rtol=1e-5)
    _, std = whitening_arrays()
    np.testing.assert_array_equal(model.shape_std, std[12:52])
    np.testing.assert_array_equal(model.expression_std, std[52:])
    assert model.landmarks.tolist() == face.landmarks.tolist()
    assert sorted(map(sorted, model.triangles.tolist())) == sorted(map(sorted, face.triangles.tolist()))
    assert "raw coefficients" in model.source


def test_pictures_do_not_depend_on_the_unit(tmp_path, face: SmallFace) -> None:
    folder = write_tddfa_folder(tmp_path, face)
    generator = torch.Generator().manual_seed(0)
    whitened = torch.randn(3, 62, generator=generator)
    pictures = []
    for units in ("um", "mm"):
        vector = read_whitening(folder, units=units).unwhiten(whitened)
        pictures.append(decode(vector, read_face_model(folder, units=units)))
    torch.testing.assert_close(pictures[0], pictures[1], rtol=1e-4, atol=5)
    native = Coefficients.unpack(read_whitening(folder, units="um").unwhiten(whitened))
    converted = decode(convert_pose(native), read_face_model(folder))
    torch.testing.assert_close(converted, pictures[1], rtol=1e-4, atol=5)


def test_whitening(tmp_path, face: SmallFace) -> None:
    folder = write_tddfa_folder(tmp_path / "configs", face)
    (tmp_path / "v2").mkdir()
    path = write_tddfa_v2(tmp_path / "v2", face)
    mean, std = whitening_arrays()
    for place in (folder, folder / "param_whitening.pkl", path.parent):
        whitening = read_whitening(place, units="um")
        np.testing.assert_array_equal(whitening.mean, mean)
        np.testing.assert_array_equal(whitening.std, std)
    whitening = read_whitening(folder)
    factor = np.ones(62)
    factor[[0, 1, 2, 4, 5, 6, 8, 9, 10]] = 1000
    np.testing.assert_allclose(whitening.mean, mean * factor, rtol=1e-6)
    np.testing.assert_allclose(whitening.std, std * factor, rtol=1e-6)
    with pytest.raises(ValueRangeError, match="units: found 'feet'"):
        read_whitening(folder, units="feet")
    for content, found in (
        ({"param_mean": mean}, "a pickle with param_mean"),
        ({"param_mean": mean[:5], "param_std": std[:5]}, "a mean of 5 values"),
        ({"param_mean": mean, "param_std": 0 * std}, "not all above zero"),
        ([1, 2], "a pickle with no names"),
    ):
        (folder / "param_whitening.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(FileFormatError, match=found):
            read_whitening(folder)


def test_version_2(tmp_path, face: SmallFace) -> None:
    path = write_tddfa_v2(tmp_path, face)
    assert recognise(path).kind == "3ddfa-v2"
    model = read_face_model(path)
    np.testing.assert_allclose(model.mean, face.mean, rtol=1e-5, atol=1e-5)
    assert model.layout == CoefficientLayout()
    assert model.landmarks.tolist() == face.landmarks.tolist()
    # The pickle's own triangles serve where tri.pkl is not.
    (tmp_path / "tri.pkl").unlink()
    with pytest.raises(FileFormatError, match=r"no triangles.*expected triangles=FILE"):
        read_face_model(path)
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(content | {"tri": face.triangles.T + 1}))
    assert read_face_model(path).triangles.tolist() == model.triangles.tolist()
    np.save(tmp_path / "own.npy", face.triangles[:9])
    assert read_face_model(path, triangles=tmp_path / "own.npy").triangles.shape[0] == 9
    (tmp_path / "param_mean_std_62d_120x120.pkl").unlink()
    with pytest.raises(FileFormatError, match=r"param_whitening\.pkl: found no such file"):
        read_face_model(path)


class _Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_command_does_not(tmp_path, face: SmallFace) -> None:
    marker = tmp_path / "marker"
    path = write_tddfa_v2(tmp_path, face)
    content = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(content | {"extra": _Attack(f"touch {marker}")}))
    with pytest.raises(FileFormatError, match=r"system, which was not looked up or called"):
        read_face_model(path)
    folder = write_tddfa_folder(tmp_path / "configs", face)
    (folder / "param_whitening.pkl").write_bytes(pickle.dumps(_Attack(f"touch {marker}")))
    with pytest.raises(FileFormatError, match=r"param_whitening\.pkl: found the name"):
        read_face_model(folder)
    np.save(folder / "u_shp.npy", np.array([_Attack(f"touch {marker}")], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match=r"u_shp\.npy: found a pickled object"):
        read_face_model(folder)
    assert not marker.exists()


def test_folders_that_do_not_fit(tmp_path, face: SmallFace) -> None:
    folder = write_tddfa_folder(tmp_path, face)
    for name, array, found in (
        ("keypoints_sim.npy", np.arange(204), "keypoints_sim.npy"),
        ("keypoints_sim.npy", np.arange(204)[::-1].copy(), "keypoints that are not x, y, z"),
        ("keypoints_sim.npy", np.arange(70), "70 keypoints"),
        ("keypoints_sim.npy", np.arange(204) + 300, "keypoints from 300"),
        ("u_exp.npy", np.zeros((9, 1)), "u_exp with 9 numbers; expected 3 x 100"),
        ("w_shp_sim.npy", np.zeros((9, 40)), r"w_shp of shape \(9, 40\)"),
        ("w_shp_sim.npy", np.zeros((300, 41)), "41 . 10 components; expected at most the 40 . 10"),
        ("w_exp_sim.npy", np.full((300, 10), np.inf), "3000 values NaN or infinite"),
    ):
        kept = (folder / name).read_bytes()
        np.save(folder / name, array)
        if found == "keypoints_sim.npy":  # 68 vertices in a row are a valid list
            assert read_face_model(folder).landmarks.tolist() == list(range(68))
        else:
            with pytest.raises(FileFormatError, match=found):
                read_face_model(folder)
        (folder / name).write_bytes(kept[:-5])
        with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
            read_face_model(folder)
        (folder / name).write_bytes(kept)
    (folder / "tri.mat").unlink()
    with pytest.raises(FileFormatError, match="no triangles"):
        read_face_model(folder)
    (folder / "u_exp.npy").unlink()
    with pytest.raises(FileFormatError, match=r"found no u_exp\.npy; expected a folder with u_shp\.npy"):
        read_face_model(folder)


# ------------------------------------------------------------------------------------------------- real annotations
@pytest.mark.parametrize("units", ["um", "mm"])
def test_decoding_the_exact_targets_of_real_images(annotations, basel_landmarks, units: str) -> None:
    factor = {"um": 1.0, "mm": 1e-3}[units]
    mean, shape, expression = (factor * torch.from_numpy(basel_landmarks[k]) for k in ("mean", "shape", "expression"))
    everything = torch.arange(68)
    model = MorphableModel(mean, shape, expression, torch.zeros(0, 3, dtype=torch.long), everything, units=units)
    face = Coefficients.unpack(torch.from_numpy(annotations["coefficients62_exact"]))
    found = decode_landmarks(convert_pose(face, units), model)
    boxes = torch.from_numpy(annotations["roi_box"]) - 1
    found = camera.crop_to_image(found, boxes)[..., :2] + 1
    truth = torch.from_numpy(annotations["landmarks68"]).double().transpose(1, 2)[..., :2]
    size = (truth.amax(dim=1) - truth.amin(dim=1)).prod(dim=-1).sqrt()
    nme = 100 * (found - truth).norm(dim=-1).mean(dim=-1) / size
    yaw = torch.from_numpy(annotations["yaw_deg"]).abs()
    bins = [float(nme[which].mean()) for which in (yaw <= 30, (yaw > 30) & (yaw <= 60), yaw > 60)]
    np.testing.assert_allclose([*bins, sum(bins) / 3], [0.847, 0.922, 0.966, 0.912], atol=6e-4)
