"""The simulated detector against the measured one (the table in the chapter "Two worlds")."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import image_to_crop
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.worlds.detector import REFERENCE_SIZE, detect, scaled
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.synthetic import draw_coefficients
from twodasl_lite.worlds.world import load_world

# Lowest and highest |yaw|; NME of the 18 points in %: mean, median, 95th percentile; share above 10 %; deviation of the
# common shift (x, y) and of single points (x, y) in pixels. Measured on 1,998 images of AFLW2000-3D.
MEASURED = (
    (0, 30, 2.43, 2.26, 3.96, 0.0, (0.78, 0.83), (1.23, 1.59)),
    (30, 60, 3.10, 2.73, 5.96, 0.005, (1.28, 1.08), (1.74, 2.01)),
    (60, 90, 4.21, 3.50, 8.68, 0.026, (1.62, 1.51), (2.17, 2.52)),
)


def box_size(landmarks: torch.Tensor) -> torch.Tensor:
    extent = landmarks[..., :2].amax(dim=1) - landmarks[..., :2].amin(dim=1)
    return extent.prod(dim=-1).sqrt()


def compare(landmarks: torch.Tensor, yaw: torch.Tensor, seed: int) -> None:
    """Check the simulated detections of real or synthetic landmarks ``(N, 68, 2 or 3)`` against the table."""
    points, size = subset_18(landmarks)[..., :2], box_size(landmarks)
    detected, reported = detect(points, yaw, size, Draws(seed, torch.arange(len(points))))
    assert torch.equal(reported, torch.isfinite(detected).all(dim=-1))
    difference = detected - points
    error = 100 * difference.norm(dim=-1).nanmean(dim=1) / size
    for low, high, mean, median, late, large, shift, point in MEASURED:
        chosen = (yaw.abs() > low - (low == 0)) & (yaw.abs() <= high)
        assert chosen.sum() > 3000
        found = error[chosen]
        assert float(found.mean()) == pytest.approx(mean, rel=0.1)
        assert float(found.median()) == pytest.approx(median, rel=0.1)
        assert float(found.quantile(0.95)) == pytest.approx(late, rel=0.1)
        assert float((found > 10).float().mean()) == pytest.approx(large, abs=0.01)
        each = difference[chosen] / (size[chosen] / REFERENCE_SIZE)[:, None, None]
        common = each.nanmean(dim=1)  # (M, 2)
        own = (each - common[:, None]).flatten(0, 1)
        own = own[torch.isfinite(own).all(dim=-1)]
        assert common.std(dim=0).numpy() == pytest.approx(np.array(shift), rel=0.25)
        assert own.std(dim=0).numpy() == pytest.approx(np.array(point), rel=0.25)
        bias = -0.6 if high <= 60 else 0.0
        assert float(common[:, 1].mean()) == pytest.approx(bias, abs=0.12)
        assert 0 < (~reported[chosen]).float().mean() < 0.05  # the rates that the module states


def test_noise_on_real_landmarks_is_the_measured_one(annotations):
    image = torch.from_numpy(annotations["landmarks68"]).double().transpose(1, 2) - 1  # 0-based
    crop = image_to_crop(image, torch.from_numpy(annotations["roi_box"]) - 1).float()
    yaw = torch.from_numpy(annotations["yaw_deg"]).float()
    usual = yaw.abs() <= 90
    compare(crop[usual].repeat(80, 1, 1), yaw[usual].repeat(80), seed=1)


def test_noise_on_synthetic_landmarks_is_the_measured_one():
    model = load_face_model(CoefficientLayout())
    coefficients, yaw = draw_coefficients(model, load_world("wild"), Draws(5, torch.arange(24_000)))
    compare(decode_landmarks(coefficients, model), yaw, seed=2)


def test_a_normal_distribution_would_be_too_regular():
    """Of the tails: the worst twentieth beyond 60 degrees is more than twice the median."""
    points, yaw = torch.zeros(20_000, 18, 2), torch.full((20_000,), 75.0)
    detected, _ = detect(points, yaw, torch.full((20_000,), REFERENCE_SIZE), Draws(0, torch.arange(20_000)))
    error = detected.norm(dim=-1).nanmean(dim=1)
    assert error.quantile(0.95) > 2.2 * error.median()


def test_noise_grows_with_the_face_and_ignores_the_side(device):
    points, yaw = torch.rand(50, 18, 2, device=device), torch.linspace(0, 90, 50, device=device)
    draws = Draws(0, torch.arange(50, device=device))
    small, reported = detect(points, yaw, torch.full((50,), 40.0, device=device), draws)
    large, again = detect(points, -yaw, torch.full((50,), 80.0, device=device), draws)
    assert torch.equal(reported, again)
    assert torch.allclose(2 * (small - points), large - points, atol=1e-4, equal_nan=True)
    few, _ = detect(points[7:9], yaw[7:9], torch.full((2,), 40.0, device=device), draws.take(torch.tensor([7, 8])))
    assert torch.equal(few.nan_to_num(), small[7:9].nan_to_num())


def test_a_bad_detector_errs_more_and_misses_no_more():
    points, yaw, size = torch.rand(50, 18, 2), torch.linspace(0, 90, 50), torch.full((50,), 80.0)
    draws = Draws(0, torch.arange(50))
    usual, reported = detect(points, yaw, size, draws)
    bad, again = detect(points, yaw, size, draws, scaled(4.0))
    exact, _ = detect(points, yaw, size, draws, scaled(0.0))
    assert torch.equal(reported, again)
    assert torch.allclose(4 * (usual - points), bad - points, atol=1e-4, equal_nan=True)
    assert torch.equal(exact[reported], points[reported])


def test_bad_input():
    draws = Draws(0, torch.arange(2))
    with pytest.raises(ShapeError, match="points"):
        detect(torch.zeros(2, 68, 2), torch.zeros(2), torch.ones(2), draws)
    with pytest.raises(ShapeError, match="yaw"):
        detect(torch.zeros(2, 18, 2), torch.zeros(3), torch.ones(2), draws)
    with pytest.raises(ValueRangeError, match="size"):
        detect(torch.zeros(2, 18, 2), torch.zeros(2), torch.zeros(2), draws)
    with pytest.raises(ValueRangeError, match="points"):
        detect(torch.full((2, 18, 2), torch.nan), torch.zeros(2), torch.ones(2), draws)
