"""Moved and relit pictures: their labels are transformed with them."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.training.augment import augment
from twodasl_lite.training.config import AugmentConfig
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.synthetic import SyntheticFaces

MOVES = [
    AugmentConfig(shift=6.0),
    AugmentConfig(zoom=0.2),
    AugmentConfig(turn=25.0),
    AugmentConfig(shift=4.0, zoom=0.1, turn=15.0),
]


@pytest.fixture(scope="module")
def head() -> MorphableModel:
    return load_face_model(CoefficientLayout())


def draws(count: int, seed: int = 0) -> Draws:
    return Draws(seed, torch.arange(count))


def spots(points: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, S, S) with one soft spot each, at points (B, 2)."""
    grid = torch.arange(CROP_SIZE, dtype=torch.float32)
    distance = (grid[None, None, :] - points[:, 0, None, None]) ** 2 + (
        grid[None, :, None] - points[:, 1, None, None]
    ) ** 2
    return (255 * torch.exp(-distance / 18)).round().to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()


def middle_of(images: torch.Tensor) -> torch.Tensor:
    """Centres of mass (B, 2)."""
    weight = images[:, 0].double()
    grid = torch.arange(CROP_SIZE, dtype=torch.float64)
    total = weight.sum(dim=(1, 2))
    return torch.stack([(weight.sum(1) * grid).sum(1) / total, (weight.sum(2) * grid).sum(1) / total], dim=-1)


@pytest.mark.parametrize("config", MOVES)
def test_pictures_and_points_move_alike(config: AugmentConfig) -> None:
    points = torch.rand(20, 2, generator=torch.Generator().manual_seed(1)) * 40 + 40
    seen = torch.ones(20, 18, dtype=torch.bool)
    marked = points[:, None].expand(-1, 21, -1)
    batch = FaceBatch(spots(points), points[:, None].expand(-1, 18, -1), seen, marked=marked)
    moved = augment(batch, draws(20), config)
    torch.testing.assert_close(moved.marked[:, :18], moved.detected)
    assert moved.images.dtype == torch.uint8
    torch.testing.assert_close(middle_of(moved.images).float(), moved.detected[:, 0], atol=0.05, rtol=0)
    assert float((moved.detected - batch.detected).norm(dim=-1).max()) > 1


@pytest.mark.parametrize("config", MOVES)
def test_coefficients_move_with_their_landmarks(head, config: AugmentConfig) -> None:
    batch = SyntheticFaces(head, "wild").batch(0, 6, truth=True)
    moved = augment(batch, draws(6), config)
    torch.testing.assert_close(decode_landmarks(moved.coefficients, head), moved.landmarks, atol=2e-3, rtol=0)
    assert torch.equal(moved.coefficients[:, 12:], batch.coefficients[:, 12:])


def test_limits_are_kept_and_reached() -> None:
    points = torch.full((500, 18, 2), (CROP_SIZE - 1) / 2)  # the middle is what turning and growing leave in place
    batch = FaceBatch(
        torch.zeros(500, 3, CROP_SIZE, CROP_SIZE, dtype=torch.uint8), points, torch.ones(500, 18, dtype=torch.bool)
    )
    step = augment(batch, draws(500), AugmentConfig(shift=5.0, zoom=0.1, turn=20.0)).detected - points
    assert 4.5 < float(step.abs().max()) <= 5.0
    assert float(step.mean().abs()) < 0.5


def test_light_changes_pictures_alone_and_nothing_changes_nothing() -> None:
    images = torch.randint(60, 190, (30, 3, CROP_SIZE, CROP_SIZE), generator=torch.Generator().manual_seed(0))
    batch = FaceBatch(images.to(torch.uint8), torch.zeros(30, 18, 2), torch.ones(30, 18, dtype=torch.bool))
    lit = augment(batch, draws(30), AugmentConfig(light=0.3))
    change = lit.images.float().mean(dim=(1, 2, 3)) - batch.images.float().mean(dim=(1, 2, 3))
    assert float(change.std()) > 5
    assert float(change.abs().max()) < 255 * 0.15 + 1
    assert torch.equal(lit.detected, batch.detected)
    assert augment(batch, draws(30), AugmentConfig()) is batch


def test_the_same_numbers_give_the_same_pictures_whoever_shares_them(head) -> None:
    batch = SyntheticFaces(head, "labelled").batch(0, 4)
    whole = augment(batch, draws(4), MOVES[-1])
    part = augment(batch.take(slice(2, 4)), Draws(0, torch.arange(2, 4)), MOVES[-1])
    assert torch.equal(whole.images[2:], part.images)
    torch.testing.assert_close(whole.coefficients[2:], part.coefficients)


def test_borders_are_black_at_the_sides_of_some_pictures() -> None:
    count = 400
    images = torch.full((count, 3, CROP_SIZE, CROP_SIZE), 200, dtype=torch.uint8)
    batch = FaceBatch(images, torch.zeros(count, 18, 2), torch.ones(count, 18, dtype=torch.bool))
    changed = augment(batch, draws(count), AugmentConfig(border=0.5))
    black = changed.images == 0
    assert torch.equal(black, (changed.images != 200))  # a pixel is black or as it was
    rows, columns = black.all(dim=1).all(dim=2), black.all(dim=1).all(dim=1)  # (B, S) wholly black lines
    # Two sides of a corner overlap: a picture is exactly its black rows and its black columns.
    assert torch.equal(black[:, 0], rows[:, :, None] | columns[:, None, :])
    for lines in (rows, columns):
        width = lines.sum(dim=1)
        assert int(width.max()) <= 0.3 * CROP_SIZE
        # From one side only, and without a gap.
        jumps = (lines[:, 1:] != lines[:, :-1]).sum(dim=1)
        assert bool((jumps[width > 0] == 1).all())
    # Half of the pictures are chosen; of those, 1 - 0.4^2 get at least one border (some narrower than half a pixel).
    share = float((rows | columns).any(dim=1).float().mean())
    assert 0.3 < share < 0.5
    assert torch.equal(changed.detected, batch.detected)
