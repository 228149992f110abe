"""Batches of pictures: network inputs, mirroring, splitting and joining."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import ShapeError, TwodaslError
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import MIRROR, landmark_map, subset_18, subset_21


def make_batch(count: int = 3, *, truth: bool = True) -> FaceBatch:
    generator = torch.Generator().manual_seed(0)
    landmarks = 120 * torch.rand(count, 68, 3, generator=generator)
    reported = torch.rand(count, 18, generator=generator) < 0.8
    detected = torch.where(reported[..., None], subset_18(landmarks)[..., :2], torch.nan)
    images = torch.randint(256, (count, 3, 120, 120), generator=generator, dtype=torch.uint8)
    if not truth:
        return FaceBatch(images, detected, reported)
    visible = torch.rand(count, 68, generator=generator) < 0.5
    marked = subset_21(landmarks)[..., :2]
    yaw = torch.linspace(-90, 90, count)
    return FaceBatch(images, detected, reported, landmarks, visible, torch.randn(count, 62), yaw, marked)


def test_inputs_are_normalised_pictures_and_the_map(device):
    batch = make_batch().to(device)
    inputs = batch.inputs()
    assert inputs.shape == (3, 4, 120, 120)
    assert inputs.device.type == device.type
    assert torch.equal(inputs[:, :3], (batch.images.float() - 127.5) / 128)
    assert torch.equal(inputs[:, 3:], landmark_map(batch.detected, batch.detected_visible))
    assert torch.isfinite(batch.inputs("gaussian")).all()


def test_a_point_that_is_not_reported_leaves_no_mark():
    batch = make_batch(1)
    silent = batch._replace(detected_visible=torch.zeros(1, 18, dtype=torch.bool))
    assert (silent.inputs()[:, 3] == -1).all()


def test_flip_mirrors_pictures_and_points():
    batch = make_batch()
    flipped = batch.flip()
    assert torch.equal(flipped.images, batch.images.flip(-1))
    assert torch.allclose(flipped.detected[:, 0, 0], 119 - batch.detected[:, 5, 0], equal_nan=True)
    assert torch.equal(flipped.detected[:, 16, 1].nan_to_num(), batch.detected[:, 16, 1].nan_to_num())
    assert torch.equal(flipped.detected_visible, torch.isfinite(flipped.detected).all(dim=-1))
    assert torch.equal(flipped.visible, batch.visible[:, MIRROR])
    assert torch.equal(flipped.landmarks[..., 2], batch.landmarks[:, MIRROR, 2])
    assert torch.equal(flipped.yaw, -batch.yaw)
    assert flipped.coefficients is None
    twice = flipped.flip()
    assert torch.allclose(twice.landmarks, batch.landmarks, atol=1e-5)
    assert torch.allclose(twice.detected, batch.detected, atol=1e-5, equal_nan=True)
    assert torch.allclose(twice.marked, batch.marked, atol=1e-5)


def test_take_and_cat_undo_each_other():
    batch = make_batch(5)
    again = FaceBatch.cat([batch.take([0, 1]), batch.take(slice(2, 5))])
    for one, other in zip(again, batch, strict=True):
        assert torch.equal(torch.nan_to_num(one.float()), torch.nan_to_num(other.float()))
    assert batch.take(torch.tensor([True, False, False, False, True])).size == 2


def test_cat_refuses_to_forget():
    with pytest.raises(TwodaslError, match="landmarks in 1 of 2"):
        FaceBatch.cat([make_batch(), make_batch(truth=False)])
    both = FaceBatch.cat([make_batch().without_truth(), make_batch(truth=False)])
    assert both.landmarks is None
    assert both.size == 6
    with pytest.raises(ShapeError):
        FaceBatch.cat([])
