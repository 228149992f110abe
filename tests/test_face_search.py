"""The search without a detector: it accepts a network that sees the face, and rejects one that guesses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_reconstruction import knows, ramp, sees
from training_runs import random_coefficients, small_face

from twodasl_lite.apps.face_search import FACE, _windows, agreement, search_faces
from twodasl_lite.apps.reconstruction import reconstruct
from twodasl_lite.geometry.photos import landmarks_box


@pytest.fixture(scope="module")
def model():
    return small_face()


@pytest.fixture(scope="module")
def truth(model):
    return random_coefficients(model, 1, 3)[0]


@pytest.fixture(scope="module")
def face(model, truth):
    (face,) = reconstruct(ramp(), knows(truth), model, crop_boxes=torch.tensor([95.0, 100, 154, 159]))
    return face


def test_agreement_is_one_for_a_network_that_sees_and_zero_for_one_that_guesses(model, truth, face):
    boxes = torch.tensor([[60.0, 70, 179, 189], [80, 100, 159, 179]])
    assert float(agreement(ramp(), sees(face.coefficients), model, boxes).min()) > 0.8
    assert float(agreement(ramp(), knows(truth), model, boxes).max()) < 0.02
    assert agreement(ramp(), knows(truth), model, boxes[:0]).shape == (0,)


def test_the_search_finds_the_face(model, face):
    faces = search_faces(ramp(), sees(face.coefficients), model)
    assert faces.found_by == "search"
    (found,) = faces
    assert float((found.landmarks[:, :2] - face.landmarks[:, :2]).norm(dim=1).max()) < 3
    assert found.confidence >= FACE
    wanted = landmarks_box(face.landmarks)
    assert float((found.crop_box - wanted).abs().max()) < 0.05 * float(wanted[2] - wanted[0])


def test_no_face_no_mesh(model, truth, monkeypatch):
    photo = np.random.default_rng(0).integers(0, 256, (300, 220, 3), dtype=np.uint8)
    assert search_faces(photo, knows(truth), model) == []
    monkeypatch.setattr("twodasl_lite.apps.reconstruction.cached_detector", lambda: None)
    faces = reconstruct(photo, knows(truth), model)
    assert (faces, faces.found_by) == ([], "search")
    assert search_faces(photo[:1, :1], knows(truth), model) == []


def test_windows_are_near_every_face():
    windows = _windows(300, 450)
    side, middle = windows[:, 2] - windows[:, 0], (windows[:, :2] + windows[:, 2:]) / 2
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        size = 450 * float(torch.empty(1).uniform_(0.16, 1.1, generator=generator).squeeze())
        reach = 0.35 * size  # a face's middle is this far from the border at least, as the rest must be seen
        extent = torch.tensor([450.0, 300]) - 2 * reach
        place = reach + extent.clamp(min=0) * torch.rand(2, generator=generator)
        place = torch.where(extent > 0, place, torch.tensor([225.0, 150]))
        zoom = (side / size).log().abs()
        off = ((middle - place).abs() / side[:, None]).amax(dim=1)
        assert bool(((zoom <= 0.16) & (off <= 0.15)).any()), (size, place)
