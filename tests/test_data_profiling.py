"""Faces turned to larger yaws, compared with pictures drawn at the new yaw, and on a photo."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.conftest import make_model
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry.camera import (
    euler_to_matrix,
    frame_to_pixels,
    make_pose,
    matrix_to_euler,
    project,
    split_pose,
)
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.render import coordinate_code, over, rasterize, render, vertex_normals
from twodasl_lite.worlds.profiling import _Relief, turn_face, turn_pose

SIDE = 200


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_face_model(CoefficientLayout())


def make_face(model: MorphableModel, yaw: float, *, pitch: float = 8.0, roll: float = -5.0, x: float = 100.0):
    """A random face with its head in the middle of a 200 x 200 photo."""
    shape, expression = model.sample(1, generator=torch.Generator().manual_seed(4), clip=1.0)
    angles = torch.tensor([pitch, yaw, roll]) * math.pi / 180
    pose = make_pose(torch.tensor(0.5), euler_to_matrix(angles), torch.tensor([x, 100.0, -20.0]))
    return Coefficients(pose, shape[0], expression[0])


def drawn(face: Coefficients, model: MorphableModel) -> np.ndarray:
    """The face in colours that say which point of it each pixel shows, over an even background."""
    vertices = decode(Coefficients(*(part[None] for part in face)), model, SIDE)
    picture = render(vertices, model.triangles, coordinate_code(model.mean), SIDE, SIDE, supersample=2)
    return (255 * over(picture, torch.tensor([0.5, 0.5, 0.5]))[0]).round().byte().numpy()


def well_seen(before: Coefficients, after: Coefficients, model: MorphableModel) -> np.ndarray:
    """Pixels of the turned picture that show what the first showed clearly: not hidden, not at a grazing angle."""
    pictures = [decode(Coefficients(*(part[None] for part in face)), model, SIDE) for face in (before, after)]
    first, second = (rasterize(vertices, model.triangles, SIDE, SIDE) for vertices in pictures)
    facing = vertex_normals(pictures[0], model.triangles)[0, :, 2]
    shown = torch.zeros(len(model.triangles), dtype=torch.bool)
    shown[first.triangle[first.triangle >= 0]] = True
    shown &= facing[model.triangles].amin(dim=1) > 0.5
    return ((second.triangle[0] >= 0) & shown[second.triangle[0].clamp(min=0)]).numpy()


@pytest.mark.parametrize(("own", "wanted"), [(0, 30), (0, -45), (20, 50), (-25, -60), (10, 75)])
def test_a_turned_face_is_the_face_drawn_at_that_yaw(model: MorphableModel, own: float, wanted: float) -> None:
    face = make_face(model, own)
    photo = drawn(face, model)
    (turned,) = turn_face(photo, face, model, [wanted])
    assert turned.photo.shape == photo.shape
    expected = drawn(turned.face, model)
    seen = well_seen(face, turned.face, model)
    assert seen.sum() > 1500
    error = np.abs(turned.photo.astype(int) - expected)[seen].max(axis=1)
    # 255 grey values are the whole head, about 200 mm: 4 are 3 mm, or one and a half pixels.
    assert np.median(error) <= 2
    assert np.quantile(error, 0.9) <= 6
    unturned = np.abs(photo.astype(int) - expected)[seen].max(axis=1)
    assert np.median(unturned) > 15
    # The head's outline lies where it is drawn, but for what the photo did not show.
    there, is_there = ((np.abs(p.astype(int) - 188).max(axis=2) > 12) for p in (expected, turned.photo))
    assert (there & is_there).sum() > 0.85 * there.sum()


def test_the_new_face_is_exact(model: MorphableModel) -> None:
    face = make_face(model, 12)
    for turned, yaw in zip(turn_face(drawn(face, model), face, model, [-40, 60, 90]), (-40, 60, 90), strict=True):
        assert torch.equal(turned.face.shape, face.shape)
        assert torch.equal(turned.face.expression, face.expression)
        scale, rotation, _ = split_pose(turned.face.pose)
        angles = torch.rad2deg(matrix_to_euler(rotation))
        assert float(angles[1]) == pytest.approx(yaw, abs=0.1)
        if abs(yaw) < 90:
            torch.testing.assert_close(angles[[0, 2]], torch.tensor([8.0, -5.0]), atol=1e-3, rtol=0)
        assert float(scale) == pytest.approx(0.5, rel=1e-5)
        middles = [
            decode(Coefficients(*(part[None] for part in one)), model, SIDE)[0].mean(dim=0)
            for one in (face, turned.face)
        ]
        torch.testing.assert_close(middles[0], middles[1], atol=0.02, rtol=0)


def test_turn_pose_keeps_a_point_and_all_but_the_yaw() -> None:
    angles = torch.tensor([0.2, 0.3, -0.4], dtype=torch.float64)
    pose = make_pose(torch.tensor(2.0).double(), euler_to_matrix(angles), torch.tensor([5.0, 6.0, 7.0]).double())
    point = torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)
    centre = project(point, pose)[0]
    turned = turn_pose(pose, 50, centre)
    torch.testing.assert_close(project(point, turned)[0], centre)
    expected = euler_to_matrix(torch.tensor([0.2, math.radians(50), -0.4], dtype=torch.float64))
    torch.testing.assert_close(turned[:, :3], 2 * expected)
    torch.testing.assert_close(turn_pose(pose, math.degrees(0.3), centre), pose)


def test_not_turned_at_all_the_photo_stays(model: MorphableModel) -> None:
    face = make_face(model, 20)
    photo = np.random.default_rng(0).integers(60, 200, (20, 20, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    (turned,) = turn_face(photo, face, model, [20.001], supersample=1)
    assert np.abs(turned.photo.astype(int) - photo).max() <= 2
    (turned,) = turn_face(photo, face, model, [20.001])  # drawn from subpixels, edges of the squares get softer
    within = np.s_[2::10, 2::10], np.s_[5::10, 5::10], np.s_[7::10, 7::10]
    assert max(np.abs(turned.photo.astype(int) - photo)[part].max() for part in within) <= 1


@pytest.mark.parametrize("x", [100, 30, 175])
def test_no_hole_opens(model: MorphableModel, x: float) -> None:
    face = make_face(model, 0, x=x)
    vertices = decode(Coefficients(*(part[None] for part in face)), model, SIDE)[0]
    relief = _Relief.around(np.zeros((SIDE, SIDE, 3), np.uint8), vertices, model.triangles, 100.0)
    for yaw in (90, -90, 45):
        turn = euler_to_matrix(torch.tensor([0.0, math.radians(yaw), 0.0]))
        placed = relief.moved(turn, vertices.mean(dim=0))
        assert rasterize(placed[None], relief.triangles, SIDE, SIDE).covered.all()


def test_the_edges_of_the_photo_stay_where_they_are(model: MorphableModel) -> None:
    face = make_face(model, 0)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    photo = np.stack([columns, rows, 0 * rows], axis=-1).astype(np.uint8)  # each pixel says where it is from
    scale = make_pose(torch.tensor(0.2), torch.eye(3), torch.tensor([100.0, 100.0, 0.0]))
    (turned,) = turn_face(photo, face._replace(pose=scale), model, [60])
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert np.abs(turned.photo[edge].astype(int) - photo[edge]).max() <= 3
    assert np.abs(turned.photo.astype(int) - photo).max() > 15


def test_a_batch_of_one_and_another_device_do(model: MorphableModel, device: torch.device) -> None:
    face = make_face(model, 0)
    photo = drawn(face, model)
    expected = turn_face(photo, face, model, [40])[0]
    batch = Coefficients(*(part[None] for part in face))
    found = turn_face(photo, batch.to(device), load_face_model(CoefficientLayout(), device=device), [40])[0]
    assert np.abs(found.photo.astype(int) - expected.photo).mean() < 0.1
    torch.testing.assert_close(found.face.pose.cpu(), expected.face.pose)


def test_photos_in_double_precision_and_grey(model: MorphableModel) -> None:
    face = make_face(model, 0).to(torch.float64)
    (turned,) = turn_face(np.full((SIDE, SIDE), 80, np.uint8), face, model, [40])
    assert (turned.photo == 80).all()


@pytest.mark.parametrize(
    ("own", "yaw", "message"),
    [
        (30, 20, r"yaws: found 20 for a face that is turned by 30.0 degrees; expected 30.0 to 90 to the same side"),
        (30, -60, "found -60 for a face"),
        (-30, 60, "found 60 for a face"),
        (5, 91, "expected 5.0 to 90 to either side"),
        (5, float("nan"), "found nan"),
    ],
)
def test_what_a_photo_does_not_show_is_refused(model: MorphableModel, own: float, yaw: float, message: str) -> None:
    face = make_face(model, own)
    with pytest.raises(ValueRangeError, match=message):
        turn_face(np.zeros((SIDE, SIDE, 3), np.uint8), face, model, [50 if own >= 0 else -50, yaw])


def test_bad_faces(model: MorphableModel) -> None:
    photo = np.zeros((SIDE, SIDE, 3), np.uint8)
    face = make_face(model, 0)
    with pytest.raises(ShapeError, match=r"face: found shape of shape \(40,\); expected one face, \(5,\)"):
        turn_face(photo, face, make_model(dtype=torch.float32), [40])
    two = Coefficients(*(part.expand(2, *part.shape) for part in face))
    with pytest.raises(ShapeError, match=r"pose of shape \(2, 3, 4\)"):
        turn_face(photo, two, model, [40])
    with pytest.raises(
        ValueRangeError, match=r"face: found it at x .* expected a place in the photo of 200x200 pixels"
    ):
        turn_face(photo, make_face(model, 0, x=-500.0), model, [40])
    with pytest.raises(ValueRangeError, match="pose: found 12 of 12 values NaN"):
        turn_face(photo, face._replace(pose=torch.full((3, 4), torch.nan)), model, [40])
    assert turn_face(photo, face, model, []) == []


def test_a_photograph() -> None:
    """The example portrait keeps its colours where it should, and its landmarks move as the fitted face's do."""
    pytest.importorskip("skimage")
    from twodasl_lite.datasets.examples import astronaut
    from twodasl_lite.faces.fitting import fit_landmarks

    model = load_face_model()
    portrait = astronaut()
    height = portrait.photo.shape[0]
    weights = portrait.visible.float()
    fit = fit_landmarks(portrait.landmarks[None], model, weights=weights, height=height, ignore_far_jaw=True)
    turned = turn_face(portrait.photo, fit.coefficients, model, [45, -45])
    for result in turned:
        face = Coefficients(*(part[None] for part in result.face))
        landmarks = frame_to_pixels(project(model.decode_landmarks(face.shape, face.expression), face.pose), height)[0]
        nose = landmarks[30, :2].round().long().tolist()
        skin = result.photo[nose[1] - 2 : nose[1] + 3, nose[0] - 2 : nose[0] + 3].reshape(-1, 3).mean(axis=0)
        before = portrait.landmarks[30].round().long().tolist()
        there = portrait.photo[before[1] - 2 : before[1] + 3, before[0] - 2 : before[0] + 3].reshape(-1, 3).mean(axis=0)
        assert np.abs(skin - there).max() < 30
        assert abs(nose[0] - before[0]) > 20  # the nose has moved
