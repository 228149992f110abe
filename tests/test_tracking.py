"""Faces tracked through videos, with a detector and by optical flow."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from test_reconstruction import BOX, knows, sees
from training_runs import random_coefficients, small_face

from twodasl_lite.apps.reconstruction import Reconstruction, reconstruct
from twodasl_lite.apps.tracking import OneEuro, Tracker
from twodasl_lite.base.errors import InputTypeError, ValueRangeError
from twodasl_lite.geometry.photos import landmarks_box


@pytest.fixture(scope="module")
def model():
    return small_face()


@pytest.fixture(scope="module")
def truth(model):
    return random_coefficients(model, 1, 3)[0]


@pytest.fixture(scope="module")
def photo():
    """Something to follow: soft spots of all sizes."""
    noise = np.random.default_rng(0).normal(size=(400, 500, 3))
    spots = sum(cv2.GaussianBlur(noise, (0, 0), sigma) * sigma for sigma in (2, 5, 12))
    return np.clip(128 + 90 * spots, 0, 255).astype(np.uint8)


def moved(photo: np.ndarray, x: float, y: float, scale: float = 1.0) -> np.ndarray:
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    return cv2.warpAffine(photo, matrix, photo.shape[1::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_a_face_that_moves_is_followed_by_the_picture(model, truth, photo, smoothing):
    """3 pixels a frame for 40 frames, with a network that would never notice."""
    tracker = Tracker(knows(truth), model, smoothing=smoothing, start={"crop_boxes": BOX})
    (first,) = tracker.step(photo)
    for k in range(1, 40):
        (track,) = tracker.step(moved(photo, 3 * k, -k))
        assert track.number == 1
    shift = track.face.crop_box - first.face.crop_box
    torch.testing.assert_close(shift, torch.tensor([117.0, -39, 117, -39]), rtol=0, atol=2.5)
    assert track.face.confidence > 0.8
    lag = (track.face.landmarks - first.face.landmarks)[:, :2].mean(dim=0) - torch.tensor([117.0, -39])
    size = float(BOX[2] - BOX[0]) / 2**0.5
    assert float(lag.norm()) < (0.02 if smoothing < 0.9 else 0.05) * size


def test_a_face_that_grows(model, truth, photo):
    tracker = Tracker(knows(truth), model, smoothing=0, start={"crop_boxes": BOX})
    (first,) = tracker.step(photo)
    for k in range(1, 16):
        s = 1.015**k
        (track,) = tracker.step(moved(photo, 156 * (1 - s), 171 * (1 - s), s))  # about the middle of the box
    sides = [float(t.face.crop_box[2] - t.face.crop_box[0]) for t in (track, first)]
    assert sides[0] / sides[1] == pytest.approx(1.015**15, rel=0.02)


@pytest.mark.parametrize("after", ["grey", "another scene", "noise"])
def test_a_track_ends_at_a_cut(model, truth, photo, after):
    tracker = Tracker(knows(truth), model, start={"crop_boxes": BOX})
    tracker.step(photo)
    assert len(tracker.step(moved(photo, 2, 0))) == 1
    frame = {
        "grey": np.full_like(photo, 128),
        "another scene": photo[::-1, ::-1].copy(),
        "noise": np.random.default_rng(1).integers(0, 256, photo.shape, dtype=np.uint8),
    }[after]
    assert tracker.step(frame) == []
    assert "points were found again" in tracker.ended[1]
    assert tracker.step(photo) == []


def test_a_track_ends_where_the_face_leaves(model, truth, photo):
    gone = truth.clone()
    gone[3] += 5000
    tracker = Tracker(knows(gone), model, start={"crop_boxes": BOX})
    assert len(tracker.step(photo)) == 1
    assert tracker.step(photo) == []
    assert tracker.ended[1] == "it has left the frame"
    tracker = Tracker(knows(truth), model, start={"crop_boxes": BOX})
    tracker.step(photo)
    for k in range(1, 40):
        if not tracker.step(moved(photo, -8 * k, 0)):
            break
    assert 10 < k < 35
    assert "beyond the border" in tracker.ended[1] or "left the frame" in tracker.ended[1]


def test_nothing_moves_the_crop_of_a_network_that_is_not_sure(model, truth, photo):
    tracker = Tracker(knows(truth), model, start={"crop_boxes": BOX})
    for _ in range(25):
        (track,) = tracker.step(photo)
    torch.testing.assert_close(track.face.crop_box, BOX, rtol=0, atol=1)


def test_faces_come_and_go(model, truth, photo):
    near, far = [60.0, 60, 160, 170, 0.9], [300.0, 200, 400, 310, 0.9]
    moved_box = [306.0, 203, 406, 313, 0.9]
    frames = iter([[near, far], [moved_box], [near, moved_box]])
    tracker = Tracker(knows(truth), model, detector=lambda _: torch.tensor(next(frames)))
    numbers = [[track.number for track in tracker.step(photo)] for _ in range(3)]
    assert numbers == [[1, 2], [2], [3, 2]]


# -------------------------------------------------------------------------------------------------- the one-euro filter
def face_at(truth: torch.Tensor, model, x: float) -> Reconstruction:
    coefficients = truth.clone()
    coefficients[3] += x
    return Reconstruction.of(coefficients, BOX, 400, 500, model)


def test_at_rest_the_filter_is_exponential_smoothing(model, truth):
    filtered = OneEuro(face_at(truth, model, 0), model, 0.75, 25.0)
    other = face_at(truth, model, 0)
    other.coefficients[12:52] += 1  # another person, suddenly: the shape does not hurry
    for k in range(1, 5):
        face = filtered(Reconstruction.of(other.coefficients, BOX, 400, 500, model))
        torch.testing.assert_close(face.coefficients[12:52] - truth[12:52], torch.full((40,), 1 - 0.75**k))


def test_the_filter_is_calm_at_rest_and_quick_in_motion(model, truth):
    rng = np.random.default_rng(0)
    jitter = rng.normal(0, 1, 200)
    filtered = OneEuro(face_at(truth, model, 0), model, 0.75, 25.0)
    out = [float(filtered(face_at(truth, model, j)).coefficients[3] - truth[3]) for j in jitter]
    assert np.std(out[20:]) < 0.65 * np.std(jitter)
    filtered = OneEuro(face_at(truth, model, 0), model, 0.75, 25.0)
    for k in range(1, 50):
        face = filtered(face_at(truth, model, 4.0 * k))  # 100 pixels a second
    lag = 4.0 * 49 - float(face.coefficients[3] - truth[3])
    assert 0 < lag < 4  # exponential smoothing with the same s lags 12 pixels behind
    assert float(face.angles[0]) == pytest.approx(float(face_at(truth, model, 0).angles[0]), abs=0.01)


def test_a_jump_is_not_smoothed(model, truth, photo):
    trained = knows(truth)
    boxes = iter([[60.0, 60, 160, 170, 0.9], [120.0, 110, 220, 220, 0.9]])
    tracker = Tracker(trained, model, detector=lambda _: torch.tensor([next(boxes)]))
    tracker.step(photo)
    tracker._seen = {1: tracker._seen[1]}
    (alone,) = reconstruct(photo, trained, model, boxes=torch.tensor([120.0, 110, 220, 220]), recrops=1)
    (track,) = tracker.step(photo)
    if track.number == 2:  # hardly any overlap: another face
        torch.testing.assert_close(track.face.vertices, alone.vertices)


def test_a_network_that_is_sure_centres_the_crop(model, truth):
    from test_reconstruction import ramp

    (exact,) = reconstruct(ramp(), knows(truth), model, crop_boxes=torch.tensor([60.0, 70, 179, 189]))
    tracker = Tracker(sees(exact.coefficients), model, start={"crop_boxes": exact.crop_box + 6})
    tracker.step(ramp())
    (centred,) = tracker._centred(ramp(), list(tracker._seen.values()))
    wanted = landmarks_box(exact.landmarks)
    assert float((centred.crop_box - wanted).abs().max()) <= 2
    blind = Tracker(knows(truth), model, start={"crop_boxes": BOX})
    blind.step(ramp())
    (same,) = blind._centred(ramp(), list(blind._seen.values()))
    assert same.crop_box.tolist() == BOX.tolist()


def test_tracker_arguments(model, truth):
    with pytest.raises(ValueRangeError, match="smoothing"):
        Tracker(knows(truth), model, smoothing=1.0, start={"crop_boxes": BOX})
    with pytest.raises(ValueRangeError, match="fps"):
        Tracker(knows(truth), model, fps=0, start={"crop_boxes": BOX})
    with pytest.raises(InputTypeError, match="both or neither"):
        Tracker(knows(truth), model)
