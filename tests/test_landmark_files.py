"""Landmark files: recognised formats, and messages about likely mistakes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.io
import torch

from twodasl_lite.apps.landmark_files import WFLW_TO_68, landmark_mistake, read_landmark_file
from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import write_landmarks

POINTS = np.random.default_rng(0).uniform(0, 400, (68, 2)).round(2)
ROWS = [f"{x},{y}" for x, y in POINTS]


def table(*rows: str) -> str:
    return "\n".join(rows) + "\n"


PTS = table("version: 1", "n_points: 68", "{", *(f"{x + 1} {y + 1}" for x, y in POINTS), "}", "", "")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("plain.csv", table(*ROWS), "68 points, a table, pixels counted from 0"),
        ("semicolon.csv", table(*(r.replace(",", ";") for r in ROWS)), "a table"),
        ("comma.csv", table(*(f"{x};{y}".replace(".", ",") for x, y in POINTS)), "a table"),  # as spreadsheets do
        ("blanks.txt", table(*(r.replace(",", "   ") for r in ROWS)), "a table"),
        ("tabs.txt", table(*(r.replace(",", "\t") for r in ROWS)), "a table"),
        ("trailing.csv", table("# a comment", "", *(r + "," for r in ROWS), ",,", "", ""), "a table"),
        ("header.csv", table("x,y", *ROWS), "named columns"),
        ("named.csv", table("name,y,x", *(f"point,{y},{x}" for x, y in POINTS)), "named columns"),
        ("depth.csv", table(*(f"{r},{3.5 + k}" for k, r in enumerate(ROWS))), "third number left out"),
        ("index0.csv", table(*(f"{k},{r}" for k, r in enumerate(ROWS))), "index, x and y"),
        ("index1.csv", table(*(f"{k},{r}" for k, r in enumerate(ROWS, 1))), "index, x and y"),
        ("ibug.pts", PTS, "iBUG .pts file, pixels counted from 1"),
        ("list.json", json.dumps(POINTS.tolist()), "JSON"),
        ("named.json", json.dumps({"image": "me.jpg", "landmarks": POINTS.tolist()}), "JSON"),
        ("xy.json", json.dumps([{"x": x, "y": y} for x, y in POINTS]), "JSON"),
        ("ours.json", json.dumps({"faces": [{"landmarks": [[x, y, 7.0] for x, y in POINTS]}]}), "third number left"),
    ],
)
def test_texts(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    read = read_landmark_file(tmp_path / name)
    np.testing.assert_allclose(read.points.numpy(), POINTS[None], atol=1e-4)
    assert bool(read.visible.all())
    assert said in read.taken_for


def test_visible(tmp_path):
    (tmp_path / "v.csv").write_text(table(*(f"{r},{int(k != 5)}" for k, r in enumerate(ROWS))))
    read = read_landmark_file(tmp_path / "v.csv")
    assert (~read.visible[0]).nonzero().tolist() == [[5]]
    points = torch.from_numpy(POINTS).float()
    points[5] = torch.nan
    write_landmarks(tmp_path / "own.csv", points, torch.isfinite(points).all(dim=1))
    read = read_landmark_file(tmp_path / "own.csv")
    assert (~read.visible[0]).nonzero().tolist() == [[5]]
    assert "twodasl's own" in read.taken_for


def test_arrays(tmp_path):
    flat = np.concatenate([POINTS, np.ones((68, 1))], axis=1)
    for k, array in enumerate([POINTS, POINTS.T, flat, flat.T, POINTS[None], POINTS.ravel(), POINTS.astype("f2")]):
        np.save(tmp_path / f"{k}.npy", array)
        read = read_landmark_file(tmp_path / f"{k}.npy")
        np.testing.assert_allclose(read.points.numpy(), POINTS[None], atol=0.2)
    np.save(tmp_path / "two.npy", np.stack([POINTS, POINTS + 1]))
    read = read_landmark_file(tmp_path / "two.npy")
    assert read.points.shape == (2, 68, 2)
    assert "2 faces" in read.taken_for
    scipy.io.savemat(tmp_path / "a.mat", {"pt3d_68": flat.T + 1, "Pose_Para": np.zeros(7)})
    read = read_landmark_file(tmp_path / "a.mat")
    np.testing.assert_allclose(read.points.numpy(), POINTS[None], atol=1e-4)
    assert "pt3d_68 of a MATLAB file, pixels counted from 1" in read.taken_for


def test_wflw(tmp_path):
    """The published correspondences, at points whose meaning is beyond doubt."""
    assert len(set(WFLW_TO_68)) == 68
    for ours, theirs in {0: 0, 8: 16, 16: 32, 17: 33, 21: 37, 22: 42, 26: 46, 27: 51, 30: 54, 33: 57, 36: 60, 39: 64,
                         42: 68, 45: 72, 48: 76, 54: 82, 57: 85, 60: 88, 62: 90, 64: 92, 66: 94}.items():  # fmt: skip
        assert WFLW_TO_68[ours] == theirs
    points = np.random.default_rng(1).uniform(0, 400, (98, 2))
    np.save(tmp_path / "w.npy", points)
    read = read_landmark_file(tmp_path / "w.npy")
    np.testing.assert_allclose(read.points[0].numpy(), points[list(WFLW_TO_68)], atol=1e-3)
    assert "98 points" in read.taken_for
    assert "WFLW" in read.taken_for


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("short.csv", table(*ROWS[:-1]), "67 points; expected 68 or 98"),
        ("word.csv", table(*ROWS[:-1], "nose,3"), "'nose' in row 68"),
        ("hole.csv", table(*ROWS[:-1], "3,"), "no x and y in row 68"),
        ("wide.csv", table(*(f"{r},1,2" for r in ROWS)), "4 columns without names"),
        ("cols.csv", table("a,b", *ROWS), "columns called x and y"),
        ("empty.csv", "\n", "no rows"),
        ("n.pts", PTS.replace("68", "67"), "67 declared and 68 lines"),
        ("b.pts", "no braces", "no block in braces"),
        ("j.json", "{", "damaged"),
        ("k.json", "{}", "the names none"),
        ("l.json", "[1, 2]", "numbers of shape"),
        ("t.xml", "", 'the suffix ".xml"'),
    ],
)
def test_what_is_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_landmark_file(tmp_path / name)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FileFormatError, match="pickled"):
        read_landmark_file(tmp_path / "p.npy")
    with pytest.raises(FileFormatError, match="no such file"):
        read_landmark_file(tmp_path / "missing.npy")


# ------------------------------------------------------------------------------------------------------------ mistakes
@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


@pytest.fixture(scope="module")
def face(model):
    """Landmarks of a face that is turned a little, in a photo of 640 x 480."""
    generator = torch.Generator().manual_seed(3)
    shape, expression = model.sample(1, generator=generator)
    angle = torch.deg2rad(torch.tensor([[5.0, 15, -6]]))
    from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
    from twodasl_lite.geometry.coefficients import Coefficients

    pose = make_pose(torch.tensor([1.1]), euler_to_matrix(angle), torch.tensor([[250.0, 260, 0]]))
    coefficients = Coefficients(pose, shape, expression).pack()
    return decode_landmarks(coefficients, model, 480)[0, :, :2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: p, None),
        (lambda p: p * 1.3, None),
        (lambda p: torch.stack([639 - p[:, 0], p[:, 1]], dim=1), "mirrored"),
        (lambda p: torch.stack([p[:, 0], 479 - p[:, 1]], dim=1), "y points upwards"),
        (lambda p: p.flip(1), "x and y are exchanged"),
        (lambda p: p / torch.tensor([640.0, 480]), "between 0 and 1"),
        (lambda p: p * 3 + 100, "outside the 640x480 photo, as if marked in a photo"),
        (lambda p: p[torch.randperm(68, generator=torch.Generator().manual_seed(0))], "another order"),
        (lambda p: p * 0 + 50, "in one place"),
    ],
)
def test_mistakes(model, face, change, sentence):
    found = landmark_mistake(change(face), torch.ones(68), 480, 640, model)
    assert found is None if sentence is None else sentence in found, found


def test_mistakes_of_few_points(model, face):
    few = torch.zeros(68)
    few[:4] = 1
    assert landmark_mistake(face / 1000, few, 480, 640, model) is None
    some = torch.rand(68, generator=torch.Generator().manual_seed(0)) > 0.4
    assert landmark_mistake(face, some, 480, 640, model) is None
    assert "upwards" in landmark_mistake(torch.stack([face[:, 0], 479 - face[:, 1]], dim=1), some, 480, 640, model)
