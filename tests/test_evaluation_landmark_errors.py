"""Normalised mean errors, yaw bins, curves and tables: hand values, rejected input, known results on real data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.evaluation import (
    Table,
    auc,
    balanced_mean,
    bin_means,
    bounding_box,
    box_size,
    ced,
    failure_rate,
    markdown,
    nme,
    point_distances,
    summarise,
    yaw_bins,
)
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import crop_to_image
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS


# ------------------------------------------------------------------------------------------------------------- the NME
def test_nme_by_hand() -> None:
    truth = torch.tensor([[[0.0, 0.0], [16.0, 9.0]], [[1.0, 1.0], [5.0, 5.0]]])
    moved = truth + torch.tensor([[[3.0, 4.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, -3.0]]])
    expected = [(5 + 0) / 2 / 12, (1 + 3) / 2 / 4]  # sqrt(16 * 9) = 12, sqrt(4 * 4) = 4
    torch.testing.assert_close(nme(moved, truth), torch.tensor(expected))
    torch.testing.assert_close(point_distances(moved, truth), torch.tensor([[5.0, 0.0], [1.0, 3.0]]))


def test_the_box_is_that_of_the_truth_and_can_be_given(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(5, 20, 2, generator=generator).to(device) * 100
    predicted = truth + torch.randn(5, 20, 2, generator=generator).to(device) * 30  # its own box is larger
    own = nme(predicted, truth)
    assert own.device.type == device.type
    torch.testing.assert_close(own, nme(predicted, truth, box=bounding_box(truth)))
    doubled = torch.cat([torch.zeros(5, 2), torch.full((5, 2), 200.0)], dim=1).to(device)
    expected = (predicted - truth).norm(dim=-1).mean(dim=1) / 200
    torch.testing.assert_close(nme(predicted, truth, box=doubled), expected)


def test_nme_does_not_depend_on_place_or_resolution() -> None:
    generator = torch.Generator().manual_seed(1)
    truth, noise = torch.rand(2, 4, 68, 3, generator=generator, dtype=torch.float64).unbind(0)
    reference = nme(truth + noise, truth)
    torch.testing.assert_close(nme(7 * (truth + noise) + 5, 7 * truth + 5), reference)


def test_depths_are_compared_after_the_smallest_is_subtracted() -> None:
    truth = torch.tensor([[[0.0, 0.0, 10.0], [4.0, 4.0, 13.0]]])
    shifted = truth + torch.tensor([0.0, 0.0, -200.0])
    assert float(nme(shifted, truth)) == 0
    assert float(nme(shifted, truth, depth="as_is")) == 200 / 4
    truth = torch.cat([truth, torch.tensor([[[2.0, 2.0, 20.0]]])], dim=1)
    deeper = truth + torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 3.0], [0.0, 0.0, 0.0]]])
    torch.testing.assert_close(nme(deeper, truth), torch.tensor([(0 + 3 + 0) / 3 / 4]))
    torch.testing.assert_close(nme(deeper, truth, depth="mean"), torch.tensor([(1 + 2 + 1) / 3 / 4]))
    torch.testing.assert_close(nme(deeper, truth, depth="mean"), nme(deeper + 3e3, truth + 3e3, depth="mean"))


def test_depth_does_not_enter_the_box() -> None:
    truth = torch.tensor([[[0.0, 0.0, 0.0], [4.0, 9.0, 1000.0]]])
    torch.testing.assert_close(box_size(bounding_box(truth)), torch.tensor([6.0]))


def test_points_that_are_not_visible_count_for_nothing() -> None:
    nan = float("nan")
    truth = torch.tensor([[[0.0, 0.0], [4.0, 9.0], [nan, nan]]])
    predicted = torch.tensor([[[0.0, 1.0], [4.0, 8.0], [50.0, 50.0]]])
    visible = torch.tensor([[True, True, False]])
    torch.testing.assert_close(nme(predicted, truth, visible=visible), torch.tensor([1 / 6]))
    assert point_distances(predicted, truth, visible=visible)[0, 2] == 0
    with_depth = torch.cat([truth, torch.tensor([[[1.0], [2.0], [-50.0]]])], dim=-1)
    shifted = with_depth + torch.tensor([0.0, 0.0, 9.0])
    shifted[0, 2] = torch.tensor([0.0, 0.0, -900.0])
    for depth in ("min", "mean"):
        assert float(nme(shifted, with_depth, visible=visible, depth=depth)) == pytest.approx(0, abs=1e-7)
    shifted[0, 1, 2] += 4
    assert float(nme(shifted, with_depth, visible=visible, depth="mean")) == pytest.approx((2 + 2) / 2 / 6)


def test_single_and_double_precision_mix() -> None:
    truth = torch.rand(2, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert nme(truth.float(), truth).dtype == torch.float64


def test_bad_points_are_refused() -> None:
    truth = torch.rand(2, 5, 2)
    with pytest.raises(ShapeError, match=r"target: found shape \(2, 4, 2\); expected predicted's \(2, 5, 2\)"):
        nme(truth, truth[:, :4])
    with pytest.raises(ShapeError, match="expected predicted's"):
        nme(torch.rand(2, 5, 3), truth)
    with pytest.raises(ValueRangeError, match="predicted: found 10 of 20 values NaN"):
        nme(torch.full_like(truth, torch.nan).where(torch.tensor([[[True]], [[False]]]), truth), truth)
    with pytest.raises(ValueRangeError, match="for face 1; expected left < right"):
        nme(truth, torch.stack([truth[0], torch.ones(5, 2)]))
    with pytest.raises(ValueRangeError, match="depth: found 'max'"):
        nme(truth, truth, depth="max")
    with pytest.raises(ShapeError, match="found 3 boxes; expected 2"):
        nme(truth, truth, box=torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3))
    with pytest.raises(ValueRangeError, match="no visible point in face 1"):
        nme(truth, truth, visible=torch.tensor([[True] * 5, [False] * 5]))
    with pytest.raises(InputTypeError, match="expected booleans"):
        nme(truth, truth, visible=torch.ones(2, 5))


# ---------------------------------------------------------------------------------------------------------------- bins
def test_ends_of_the_bins() -> None:
    yaw = torch.tensor([0.0, 30.0, -30.0, 30.001, 60.0, -60.0, 60.001, -90.0, 97.0, -101.0])
    assert yaw_bins(yaw).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_balanced_is_the_mean_of_the_bins() -> None:
    errors = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 60.0])
    yaw = torch.tensor([0.0, 10.0, -20.0, 40.0, -50.0, 80.0])
    assert bin_means(errors, yaw_bins(yaw)).tolist() == [2.0, 15.0, 60.0]
    assert float(balanced_mean(errors, yaw)) == pytest.approx(77 / 3)
    runs = torch.stack([errors, 2 * errors])
    torch.testing.assert_close(balanced_mean(runs, yaw), torch.tensor([77 / 3, 154 / 3]))
    assert math.isnan(float(balanced_mean(errors[:5], yaw[:5])))
    with pytest.raises(ShapeError, match="one per yaw"):
        balanced_mean(errors[:5], yaw)


# -------------------------------------------------------------------------------------------------------------- curves
def test_curve_area_and_failures_by_hand() -> None:
    errors = torch.tensor([0.0, 0.02, 0.06, 0.3], dtype=torch.float64)
    curve = ced(errors, limit=0.1, num=6)
    torch.testing.assert_close(curve.errors, torch.tensor([0, 0.02, 0.04, 0.06, 0.08, 0.1], dtype=torch.float64))
    assert curve.fractions.tolist() == [0.25, 0.5, 0.5, 0.75, 0.75, 0.75]
    assert auc(errors, 0.1) == pytest.approx((1 + 0.8 + 0.4 + 0) / 4)
    assert failure_rate(errors, 0.1) == 0.25
    assert failure_rate(errors, 0.06) == 0.25
    assert failure_rate(errors, 0.059) == 0.5


def test_area_is_the_integral_of_the_curve() -> None:
    errors = torch.rand(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.15
    curve = ced(errors, num=20_001)
    assert auc(errors) == pytest.approx(float(curve.fractions.mean()), abs=1e-4)


def test_a_face_without_an_answer_is_a_failure() -> None:
    errors = torch.tensor([0.0, torch.nan])
    assert ced(errors, num=3).fractions.tolist() == [0.5, 0.5, 0.5]
    assert auc(errors) == 0.5
    assert failure_rate(errors) == 0.5
    with pytest.raises(ValueRangeError, match="at least one face"):
        auc(torch.zeros(0))
    with pytest.raises(ValueRangeError, match="limit: found 0"):
        failure_rate(errors, 0)


# -------------------------------------------------------------------------------------------------------------- tables
def test_table_by_hand_and_its_forms() -> None:
    errors = torch.tensor([0.01, 0.03, 0.04, 0.08, 0.05])
    yaw = torch.tensor([0.0, -10.0, 45.0, 70.0, -95.0])
    table = summarise(errors, yaw)
    assert table.counts == (2, 1, 2)
    assert table.count == 5
    np.testing.assert_allclose(table.values(), [0.02, 0.04, 0.065, 0.125 / 3, 0.042], rtol=1e-6)
    low, high = table.bin_intervals[0]
    assert 0.01 - 1e-7 <= low < 0.02 < high <= 0.03 + 1e-7
    assert table.bin_intervals[1] == pytest.approx((0.04, 0.04))  # one face says nothing about others
    content = json.loads(json.dumps(table.to_dict()))
    assert content["bins"]["(30, 60]"] == pytest.approx(0.04)
    assert content["counts"]["> 60"] == 2
    assert content["intervals"]["confidence"] == 0.95
    assert "| method | 2.00 | 4.00 | 6.50 | 4.17 [" in table.markdown("method", 2)


def test_several_rows_in_one_table() -> None:
    plain = Table((0.02, 0.03, 0.04), 0.03, 0.025, (10, 5, 2))
    empty = summarise(torch.tensor([0.02]), torch.tensor([0.0]))
    assert markdown({"a": plain, "b": empty}, 1).splitlines() == [
        "| NME, % | [0, 30] | (30, 60] | > 60 | balanced | mean |",
        "|---|---|---|---|---|---|",
        "| a | 2.0 | 3.0 | 4.0 | 3.0 | 2.5 |",
        "| b | 2.0 | - | - | - | 2.0 |",
    ]
    assert empty.to_dict()["balanced"] is None
    assert json.loads(json.dumps(empty.to_dict(), allow_nan=False))["intervals"]["balanced"] == [None, None]
    assert plain.intervals() is None


def test_runs_are_averaged() -> None:
    errors = torch.tensor([[0.01, 0.02, 0.03], [0.03, 0.04, 0.05]])
    table = summarise(errors, torch.tensor([0.0, 45.0, 70.0]))
    np.testing.assert_allclose(table.values(), [0.02, 0.03, 0.04, 0.03, 0.03], rtol=1e-6)
    assert table.runs == 2


def test_a_table_needs_finite_errors_of_matching_length() -> None:
    with pytest.raises(ValueRangeError, match="errors: found 1 of 2 values NaN"):
        summarise(torch.tensor([0.1, torch.nan]), torch.zeros(2))
    with pytest.raises(ShapeError):
        summarise(torch.tensor([0.1, 0.2]), torch.zeros(3))
    with pytest.raises(ShapeError, match="not empty"):
        summarise(torch.zeros(0), torch.zeros(0))


# -------------------------------------------------------------------------------------------------------- real numbers
@pytest.fixture(scope="module")
def basel(basel_landmarks) -> MorphableModel:
    """The Basel Face Model at its 68 landmarks, in the annotations' unit."""
    mean, shape, expression = (torch.from_numpy(basel_landmarks[k]).double() for k in ("mean", "shape", "expression"))
    points = torch.arange(NUM_LANDMARKS)
    return MorphableModel(mean, shape, expression, torch.zeros(0, 3, dtype=torch.long), points, units="um")


def on_images(annotations, points: torch.Tensor, mapping: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Crop points and the truth in image pixels, and the yaws."""
    boxes = torch.from_numpy(annotations["roi_box" if mapping == "exact" else "roi_box_clamped"]) - 1
    truth = torch.from_numpy(annotations["landmarks68"]).double().mT - torch.tensor([1.0, 1.0, 0.0])
    return crop_to_image(points, boxes, mapping), truth, torch.from_numpy(annotations["yaw_deg"])


@pytest.mark.parametrize(
    ("what", "mapping", "expected"),
    [
        ("targets", "exact", [0.847, 0.922, 0.966, 0.912, 0.877]),
        ("2dasl", "bench", [2.660, 3.622, 4.911, 3.731, 3.136]),
        ("3ddfa_v2", "bench", [2.864, 3.791, 5.090, 3.915, 3.329]),
    ],
)
def test_known_answers_on_real_images(annotations, basel_landmarks, basel, what, mapping, expected) -> None:
    if what == "targets":
        points = decode_landmarks(torch.from_numpy(annotations["coefficients62_exact"]), basel)
    elif what == "2dasl":
        whitening = Whitening(
            *(torch.from_numpy(basel_landmarks[f"coefficient_{k}"]).double() for k in ("mean", "std"))
        )
        whitened = torch.from_numpy(annotations["predicted62_whitened_2dasl"]).double()
        points = decode_landmarks(whitening.unwhiten(whitened), basel)
    else:  # these lie in the image already, counted from 1
        points = torch.from_numpy(annotations["landmarks68_3ddfa_v2_bench"]).double().mT - 1
    found, truth, yaw = on_images(annotations, points, mapping)
    if what == "3ddfa_v2":
        found = points
    table = summarise(nme(found[..., :2], truth[..., :2]), yaw, resamples=200)
    np.testing.assert_allclose(100 * np.array(table.values()), expected, atol=6e-4)
    assert table.counts == (272, 76, 52)
