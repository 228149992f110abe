"""From crop to photo: known faces at known positions must be recovered exactly there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from training_runs import random_coefficients, small_face

import twodasl_lite
from twodasl_lite.apps import reconstruction as module
from twodasl_lite.apps.detection import Detections
from twodasl_lite.apps.reconstruction import face_box_to_crop, overlap, reconstruct
from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.faces.fingerprint import face_fingerprint
from twodasl_lite.geometry.camera import image_pose_to_crop, matrix_to_euler, split_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.geometry.photos import landmarks_box, write_photo
from twodasl_lite.networks import TrainedRegressor
from twodasl_lite.worlds.synthetic import SyntheticFaces


class Knows(nn.Module):
    """A network that always gives one answer, and remembers what it was shown."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = nn.Parameter(answer)
        self.shown: list[torch.Tensor] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.shown.append(inputs.clone())
        return self.answer.expand(len(inputs), -1)


def knows(coefficients: torch.Tensor, **metadata) -> TrainedRegressor:
    """A trained network whose answer is these raw coefficients of the crop."""
    size = coefficients.shape[-1]
    whitening = Whitening(torch.zeros(size), torch.ones(size))
    facts = {"map_kind": "binary", "layout": [size - 22, 10], **metadata}
    return TrainedRegressor(Knows(coefficients), whitening, facts)


SIDE = 250


def ramp() -> np.ndarray:
    """A photo whose red is x and whose green is y, so that a crop tells where it was cut."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    return np.stack([x, y, np.zeros_like(x)], axis=2)


class Sees(Knows):
    """Finds one face of the photo :func:`ramp`, wherever the crop is."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        super().forward(inputs)
        rows = []
        for crop in inputs:
            values = (crop[0, 60, [10, 110]] * 128 + 127.5, crop[1, [10, 110], 60] * 128 + 127.5)
            slope = max(0.05, float((values[0][1] - values[0][0]) / 100))  # photo pixels per crop pixel
            left, top = (float(value[0]) - 10.5 * slope + 0.5 for value in values)
            box = torch.tensor([left, top, left + 120 * slope - 1, top + 120 * slope - 1])
            pose = image_pose_to_crop(self.answer[:12].detach().reshape(1, 3, 4), box[None], SIDE)[0]
            rows.append(torch.cat([pose.flatten(), self.answer[12:].detach()]))
        return torch.stack(rows)


def sees(coefficients: torch.Tensor) -> TrainedRegressor:
    """A trained network that finds the face of these coefficients, which refer to the photo."""
    return knows(coefficients)._replace(network=Sees(coefficients))


@pytest.fixture(scope="module")
def model():
    return small_face()


@pytest.fixture(scope="module")
def truth(model):
    return random_coefficients(model, 1, 3)[0]


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8)


BOX = torch.tensor([37.0, 52, 276, 291])  # 240 pixels wide: 2 for each of the crop


def in_photo(points: torch.Tensor) -> torch.Tensor:
    """By hand: pixel edges of the crop on pixel edges of :data:`BOX`."""
    plane = (points[:, :2] + 0.5) * 2 - 0.5 + BOX[:2]
    return torch.cat([plane, 2 * points[:, 2:]], dim=1)


def test_the_answer_is_in_the_photos_pixels(model, truth, photo):
    (face,) = reconstruct(photo, knows(truth), model, crop_boxes=BOX)
    expected = in_photo(decode(truth[None], model)[0])
    torch.testing.assert_close(face.vertices, expected, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(face.landmarks, expected[model.landmarks], rtol=1e-4, atol=1e-2)
    scale, rotation, _ = split_pose(truth[:12].reshape(3, 4))
    assert face.scale == pytest.approx(2 * float(scale), rel=1e-4)
    torch.testing.assert_close(face.angles, torch.rad2deg(matrix_to_euler(rotation)), rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(face.coefficients[12:], truth[12:])
    assert (face.height, face.width) == photo.shape[:2]
    assert face.crop_box.tolist() == BOX.tolist()


def test_the_network_sees_the_crop_and_the_landmarks_in_it(model, truth, photo):
    picture = np.random.default_rng(1).integers(0, 256, (120, 120, 3), dtype=np.uint8)
    photo[52:292, 37:277] = picture.repeat(2, axis=0).repeat(2, axis=1)
    trained = knows(truth)
    reconstruct(photo, trained, model, crop_boxes=BOX, looks=1)
    expected = (torch.from_numpy(picture).permute(2, 0, 1).float() - 127.5) / 128
    torch.testing.assert_close(trained.network.shown[0][0, :3], expected)
    assert bool((trained.network.shown[0][0, 3] == -1).all())  # an empty map

    marked = in_photo(decode(truth[None], model)[0])[model.landmarks, :2]
    marked[48:68, 1] += 300  # the model's points are no face: put the mouth below the eyes
    marked[33] = torch.nan  # not one of the 18, nor of the box
    visible = torch.ones(68, dtype=torch.bool)
    visible[36] = False
    trained = knows(truth)
    (face,) = reconstruct(photo, trained, model, landmarks=marked, visible=visible)
    assert face.crop_box.tolist() == landmarks_box(marked[visible & marked.isfinite().all(dim=1)]).tolist()
    side = float(face.crop_box[2] - face.crop_box[0] + 1)
    crop = (marked + 0.5 - face.crop_box[:2]) * 120 / side - 0.5
    seen = torch.ones(18, dtype=torch.bool)
    seen[6] = False  # landmark 36
    drawn = landmark_map(subset_18(crop[None]), seen[None])
    torch.testing.assert_close(trained.network.shown[0][:, 3:], drawn)


def test_a_box_is_cut_twice(model, truth, photo):
    box = torch.tensor([100.0, 120, 219, 269])  # 149 high between the centres of its pixels
    (once,) = reconstruct(photo, knows(truth), model, boxes=box, recrops=0)
    assert once.crop_box.tolist() == face_box_to_crop(box).tolist()
    assert float(once.crop_box[2] - once.crop_box[0]) == round(149 * 2**0.5)
    trained = knows(truth)
    (twice,) = reconstruct(photo, trained, model, boxes=box, recrops=1)
    assert twice.crop_box.tolist() == landmarks_box(once.landmarks).tolist()
    assert len(trained.network.shown) == 4  # two crops, two looks each
    (exact,) = reconstruct(photo, knows(truth), model, crop_boxes=twice.crop_box)
    torch.testing.assert_close(twice.vertices, exact.vertices)


def test_the_last_crop_is_looked_at_in_the_mirror(photo):
    """The picture is shown turned round once more, and the answers of a network that always gives one are averaged."""
    face = load_face_model(CoefficientLayout())
    pose = torch.tensor([[0.4, 0, 0, 70.0], [0, 0.4, 0, 60.5], [0, 0, 0.4, 0]])
    answer = torch.cat([pose.flatten(), torch.zeros(50)])
    trained = knows(answer)
    box = torch.tensor([50.0, 60, 169, 179])
    (plain,) = reconstruct(photo, trained, face, crop_boxes=box, looks=1)
    before = len(trained.network.shown)
    (found,) = reconstruct(photo, trained, face, crop_boxes=box, looks=1, mirror=True)
    shown = trained.network.shown[before:]
    torch.testing.assert_close(shown[-1][:, :3], shown[0][:, :3].flip(-1))
    moved = found.coefficients - plain.coefficients
    assert float(moved[3]) == pytest.approx((121 - 70 - 70) / 2, abs=1e-3)  # x 70 from either side: in the middle
    assert float(moved[[0, 5, 7]].abs().max()) < 1e-4


def test_a_second_cut_off_the_photo_is_not_taken(model, truth, photo):
    lost = truth.clone()
    lost[3] += 5000  # far to the right
    (face,) = reconstruct(photo, knows(lost), model, boxes=BOX)
    assert face.crop_box.tolist() == face_box_to_crop(BOX).tolist()
    assert face.inside == 0


def test_a_face_cut_by_the_border(model, truth, photo):
    (whole,) = reconstruct(photo, knows(truth), model, crop_boxes=BOX)
    x = whole.landmarks[:, 0]
    assert whole.inside == 1
    shift = torch.tensor([float(x.median()), 0] * 2).round()
    (cut,) = reconstruct(photo, knows(truth), model, crop_boxes=BOX - shift)
    expected = (x - shift[0] > -0.5).float().mean()
    assert cut.inside == pytest.approx(float(expected))
    assert 0.3 < cut.inside < 0.7


def test_a_synthetic_picture_in_a_photo(photo):
    model = load_face_model(CoefficientLayout())
    faces = SyntheticFaces(model, "labelled", seed=4)
    batch = faces.batch(0, 1)
    picture = batch.images[0].permute(1, 2, 0).numpy()
    photo[52:292, 37:277] = picture.repeat(2, axis=0).repeat(2, axis=1)
    trained = knows(batch.coefficients[0], face_model=face_fingerprint(model))
    (face,) = reconstruct(photo, trained, model, crop_boxes=BOX)
    expected = in_photo(batch.landmarks[0])
    torch.testing.assert_close(face.landmarks[:, :2], expected[:, :2], rtol=0, atol=0.02)
    with pytest.raises(ValueRangeError, match="face model"):
        reconstruct(photo, trained, small_face(), crop_boxes=BOX)


def test_detectors_faces(model, truth, photo):
    boxes = torch.tensor([[50.0, 60, 150, 170, 0.9], [250, 200, 330, 290, 0.8]])
    found = reconstruct(photo, knows(truth), model, detector=lambda _: boxes)
    by_box = reconstruct(photo, knows(truth), model, boxes=boxes[:, :4])
    assert len(found) == 2
    for one, other in zip(found, by_box, strict=True):
        torch.testing.assert_close(one.vertices, other.vertices)
    assert reconstruct(photo, knows(truth), model, detector=lambda _: boxes[:0]) == []


def test_faces_that_do_not_stand_upright(model, truth, photo):
    """A photo on its side or on its head gives the same face, in its own pixels."""
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(1)) * 40
    points[36:48, 1] -= 60  # eyes above the mouth
    points = points + torch.tensor([200.0, 200])
    (upright,) = reconstruct(photo, knows(truth), model, landmarks=points)
    for turns in (1, 2, 3):
        turned = np.ascontiguousarray(np.rot90(photo, turns))

        def move(xy, turns=turns):
            for k in range(turns):  # by hand, one quarter turn counter-clockwise after another
                width = (photo.shape[1], photo.shape[0])[k % 2]
                xy = torch.stack([xy[:, 1], width - 1 - xy[:, 0]], dim=1)
            return xy

        (face,) = reconstruct(turned, knows(truth), model, landmarks=move(points))
        torch.testing.assert_close(face.landmarks[:, :2], move(upright.landmarks[:, :2]), rtol=0, atol=0.01)
        torch.testing.assert_close(face.vertices[:, 2], upright.vertices[:, 2], rtol=1e-4, atol=0.01)
        torch.testing.assert_close(face.coefficients[12:], upright.coefficients[12:])
        assert face.scale == pytest.approx(upright.scale, rel=1e-4)
        # The pose is the upright one, turned about the line of sight (counter-clockwise by so many quarter turns).
        linear = [f.coefficients[:12].reshape(3, 4)[:, :3] for f in (face, upright)]
        spin = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]).matrix_power(turns)
        torch.testing.assert_close(linear[0], spin @ linear[1], rtol=1e-4, atol=1e-5)


def test_quarter_turns_are_told_by_the_detector(model, truth, photo):
    box = torch.tensor([[50.0, 60, 150, 170, 0.9]])
    detector = SimpleNamespace(find=lambda *_: Detections(box, torch.tensor([2])))
    (face,) = reconstruct(photo, knows(truth), model, detector=detector)
    turned = torch.tensor([[499.0 - 150, 399 - 170, 499 - 50, 399 - 60]])
    (straight,) = reconstruct(np.ascontiguousarray(photo[::-1, ::-1]), knows(truth), model, boxes=turned)
    expected = torch.tensor([499.0, 399]) - straight.landmarks[:, :2]
    torch.testing.assert_close(face.landmarks[:, :2], expected, rtol=0, atol=0.01)
    assert face.confidence == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([-100000, -100000, 100000, 100000], "200000 pixels a side; expected at most 4 times"),
        ([-9000, -9000, 9000, 9000], "18000 pixels a side"),
        ([0, 0, 1, 1], "parts of the photo's size"),
        ([0.2, 0.1, 0.8, 0.9], "parts of the photo's size"),
        ([600, 20, 700, 90], "overlaps the 500x400 photo"),
        ([50, 50, 20, 90], "left < right"),
        ([float("nan"), 50, 20, 90], "NaN"),
    ],
)
def test_absurd_boxes_are_refused_before_anything_is_cut(model, truth, photo, box, message, monkeypatch):
    monkeypatch.setattr(module, "crop_photo", lambda *_: pytest.fail("cut"))
    for name in ("boxes", "crop_boxes"):
        with pytest.raises(ValueRangeError, match=message):
            reconstruct(photo, knows(truth), model, **{name: torch.tensor([box])})


def test_a_crop_is_cut_again_until_it_stays(model, truth, photo):
    trained = knows(truth)
    reconstruct(photo, trained, model, boxes=BOX, recrops=5)
    assert len(trained.network.shown) == 2 * 6  # a face that is always in the same place of the crop never stays
    (exact,) = reconstruct(ramp(), knows(truth), model, crop_boxes=torch.tensor([60.0, 70, 179, 189]))
    wanted = landmarks_box(exact.landmarks)
    start = wanted + torch.tensor([-20.0, 5, 20, 45])
    trained = sees(exact.coefficients)
    (face,) = reconstruct(ramp(), trained, model, crop_boxes=start)
    torch.testing.assert_close(face.landmarks, exact.landmarks, rtol=0, atol=2)
    trained = sees(exact.coefficients)
    box = torch.cat([exact.landmarks[:, :2].amin(dim=0), exact.landmarks[:, :2].amax(dim=0)])
    (face,) = reconstruct(ramp(), trained, model, boxes=box + torch.tensor([-9.0, 5, 9, 8]), recrops=5)
    assert len(trained.network.shown) <= 2 * 3  # the first box, the answer's own, and perhaps one to see that it stays
    assert float((face.crop_box - wanted).abs().max()) <= 0.02 * float(wanted[2] - wanted[0]) + 1


def test_a_name_and_a_network_that_comes_along(tmp_path, photo, monkeypatch):
    write_photo(tmp_path / "größe.png", photo)
    monkeypatch.setattr(module, "cached_detector", lambda: lambda _: torch.tensor([[100.0, 100, 200, 200, 0.8]]))
    faces = twodasl_lite.reconstruct(tmp_path / "größe.png")
    assert faces.found_by == "detector"
    assert faces[0].confidence == pytest.approx(0.8)
    assert faces[0].vertices.shape == (faces.model.num_vertices, 3)
    np.testing.assert_array_equal(faces.photo, photo)
    with pytest.raises(AttributeError, match="no attribute 'reconstructed'"):
        twodasl_lite.reconstructed  # noqa: B018


def test_wrong_arguments(model, truth, photo):
    trained = knows(truth)
    with pytest.raises(InputTypeError, match="boxes, crop_boxes; expected at most one"):
        reconstruct(photo, trained, model, boxes=BOX, crop_boxes=BOX)
    with pytest.raises(InputTypeError, match="visible: found without"):
        reconstruct(photo, trained, model, boxes=BOX, visible=torch.ones(68))
    with pytest.raises(ValueRangeError, match="overlaps the 500x400 photo"):
        reconstruct(photo, trained, model, boxes=BOX + 1000)
    with pytest.raises(ValueRangeError, match="left < right"):
        reconstruct(photo, trained, model, boxes=torch.tensor([50.0, 50, 20, 90]))
    with pytest.raises(ValueRangeError, match="2 or more"):
        reconstruct(photo, trained, model, landmarks=torch.full((68, 2), torch.nan))
    with pytest.raises(ShapeError, match="visible"):
        reconstruct(photo, trained, model, landmarks=torch.rand(68, 2), visible=torch.ones(18))
    with pytest.raises(ValueRangeError, match="recrops"):
        reconstruct(photo, trained, model, boxes=BOX, recrops=-1)


def test_overlap():
    box = torch.tensor([0.0, 0, 9, 9])
    assert overlap(box, box) == 1
    assert overlap(box, box + torch.tensor([5.0, 0, 5, 0])) == pytest.approx(50 / 150)
    assert overlap(box, box + 10) == 0
