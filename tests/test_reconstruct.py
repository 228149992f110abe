"""From crop to photo: known faces in known places must come back exactly there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from training_runs import random_coefficients, small_face

from twodasl_lite import reconstruct as module
from twodasl_lite.camera import matrix_to_euler, split_pose
from twodasl_lite.coefficients import CoefficientLayout, Whitening
from twodasl_lite.data.synthetic import SyntheticFaces
from twodasl_lite.decode import decode
from twodasl_lite.errors import FileFormatError, InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.images import landmarks_box
from twodasl_lite.landmarks import landmark_map, subset_18
from twodasl_lite.morphable import load_face_model
from twodasl_lite.morphable.fingerprint import face_fingerprint
from twodasl_lite.networks import TrainedRegressor
from twodasl_lite.reconstruct import Reconstruction, Tracker, YuNet, face_box_to_crop, overlap, reconstruct


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
    (twice,) = reconstruct(photo, trained, model, boxes=box)
    assert twice.crop_box.tolist() == landmarks_box(once.landmarks).tolist()
    assert len(trained.network.shown) == 4  # two crops, two looks each
    (exact,) = reconstruct(photo, knows(truth), model, crop_boxes=twice.crop_box)
    torch.testing.assert_close(twice.vertices, exact.vertices)


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


def test_wrong_arguments(model, truth, photo):
    trained = knows(truth)
    with pytest.raises(InputTypeError, match="nothing; expected exactly one"):
        reconstruct(photo, trained, model)
    with pytest.raises(InputTypeError, match="boxes, crop_boxes; expected exactly one"):
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


# --------------------------------------------------------------------------------------------------- the detector
class FakeYuNet:
    """In OpenCV's place: reports one face in the small picture."""

    def __init__(self) -> None:
        self.size = self.seen = None

    def setInputSize(self, size) -> None:
        self.size = size

    def detect(self, picture):
        self.seen = picture
        width, height = self.size
        rows = [
            [0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height, *[0.0] * 10, 0.5],
            [1, 1, 2, 2, *[0.0] * 10, 0.9],
        ]
        return 1, np.array(rows, np.float32)


def test_yunet_boxes_are_in_the_photos_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeYuNet()
    monkeypatch.setattr(module.cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *arguments: fake))
    (tmp_path / "model.onnx").write_bytes(b"some")
    detector = YuNet(tmp_path / "model.onnx")
    photo = np.zeros((960, 1280, 3), np.uint8)
    photo[..., 0] = 200
    boxes = detector(photo)
    assert fake.size == (640, 480)
    assert fake.seen.shape == (480, 640, 3)
    assert fake.seen[0, 0].tolist() == [0, 0, 200]  # BGR
    # The surest first; squares, because YuNet's boxes hold the forehead: the middle comes down by 0.145 of the side.
    for row, (left, top, size, score) in enumerate(((1.5, 1.5, 4.0, 0.9), (127.5, 191.5, 384.0, 0.5))):
        side = size / 1.1
        x, y = left + size / 2, top + size / 2 + 0.145 * side
        expected = torch.tensor([x - side / 2, y - side / 2, x + side / 2, y + side / 2, score])
        torch.testing.assert_close(boxes[row], expected)
    monkeypatch.setattr(fake, "detect", lambda picture: (1, None))
    assert detector(photo).shape == (0, 5)


def test_yunet_needs_its_file(tmp_path: Path):
    with pytest.raises(FileFormatError, match="no such file"):
        YuNet(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(FileFormatError, match="OpenCV cannot use"):
        YuNet(tmp_path / "text.onnx")
    with pytest.raises(ValueRangeError, match="min_score"):
        YuNet(tmp_path / "text.onnx", min_score=2)


# ---------------------------------------------------------------------------------------------------------- video
def test_a_track_is_smoothed(model, truth, photo):
    trained = knows(truth)
    tracker = Tracker(trained, model, smoothing=0.75, start={"crop_boxes": BOX})
    (first,) = tracker.step(photo)
    (expected,) = reconstruct(photo, trained, model, crop_boxes=BOX)
    torch.testing.assert_close(first.face.vertices, expected.vertices)
    (second,) = tracker.step(photo)
    box = landmarks_box(expected.landmarks)
    (alone,) = reconstruct(photo, trained, model, crop_boxes=box)
    mixed = 0.75 * expected.coefficients + 0.25 * alone.coefficients
    torch.testing.assert_close(second.face.coefficients, mixed)
    again = Reconstruction.of(mixed, box, *photo.shape[:2], model)
    torch.testing.assert_close(second.face.vertices, again.vertices)
    assert (first.number, second.number) == (1, 1)


def test_a_track_ends_where_the_face_leaves(model, truth, photo):
    gone = truth.clone()
    gone[3] += 5000
    tracker = Tracker(knows(gone), model, start={"crop_boxes": BOX})
    assert len(tracker.step(photo)) == 1
    assert tracker.step(photo) == []
    assert tracker.step(photo) == []


def test_faces_come_and_go(model, truth, photo):
    near, far = [60.0, 60, 160, 170, 0.9], [300.0, 200, 400, 310, 0.9]
    moved = [306.0, 203, 406, 313, 0.9]
    frames = iter([[near, far], [moved], [near, moved]])
    tracker = Tracker(knows(truth), model, detector=lambda _: torch.tensor(next(frames)))
    numbers = [[track.number for track in tracker.step(photo)] for _ in range(3)]
    assert numbers == [[1, 2], [2], [3, 2]]


def test_a_jump_is_not_smoothed(model, truth, photo):
    trained = knows(truth)
    (one,) = reconstruct(photo, trained, model, crop_boxes=BOX)
    (other,) = reconstruct(photo, trained, model, crop_boxes=BOX + torch.tensor([200.0, 0, 200, 0]))
    tracker = Tracker(trained, model, start={"crop_boxes": BOX})
    assert tracker._smoothed(other, one) is other


def test_tracker_arguments(model, truth):
    with pytest.raises(ValueRangeError, match="smoothing"):
        Tracker(knows(truth), model, smoothing=1.0, start={"crop_boxes": BOX})
    with pytest.raises(InputTypeError, match="both or neither"):
        Tracker(knows(truth), model)


def test_overlap():
    box = torch.tensor([0.0, 0, 9, 9])
    assert overlap(box, box) == 1
    assert overlap(box, box + torch.tensor([5.0, 0, 5, 0])) == pytest.approx(50 / 150)
    assert overlap(box, box + 10) == 0


def test_opencv_has_the_detector():
    assert hasattr(cv2, "FaceDetectorYN")
