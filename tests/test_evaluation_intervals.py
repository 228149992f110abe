"""Confidence intervals: reproducible, of the right width, and paired where pairs are given."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.evaluation import bootstrap_interval, paired_difference, summarise
from twodasl_lite.evaluation.intervals import table_intervals

YAW = torch.cat([torch.zeros(300), torch.full((80,), 45.0), torch.full((60,), -75.0)])


def errors_of(seed: int, mean: float = 0.04) -> torch.Tensor:
    """Skewed errors, larger to the side, as real ones are."""
    draws = torch.from_numpy(np.random.default_rng(seed).gamma(4.0, mean / 4, len(YAW)))
    return draws * (1 + YAW.abs() / 100)


def test_the_same_seed_gives_the_same_interval() -> None:
    errors = errors_of(0)
    first = bootstrap_interval(errors, YAW)
    assert first == bootstrap_interval(errors, YAW)
    assert first != bootstrap_interval(errors, YAW, seed=1)
    assert first == summarise(errors, YAW).balanced_interval


def test_width_of_the_interval_of_a_mean_is_the_textbook_one() -> None:
    errors = torch.from_numpy(np.random.default_rng(0).normal(5.0, 2.0, 1000))
    low, high = bootstrap_interval(errors, statistic="mean", resamples=4000)
    assert high - low == pytest.approx(2 * 1.96 * float(errors.std()) / math.sqrt(1000), rel=0.05)
    assert (high + low) / 2 == pytest.approx(float(errors.mean()), abs=0.02)
    narrow = bootstrap_interval(errors, statistic="mean", resamples=4000, confidence=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * 0.674 * float(errors.std()) / math.sqrt(1000), rel=0.06)


def test_bins_are_resampled_one_by_one() -> None:
    """With equal errors inside each bin, no resample can change the balanced error or the mean."""
    errors = torch.where(YAW == 0, 0.02, torch.where(YAW > 0, 0.03, 0.07)).double()
    assert bootstrap_interval(errors, YAW) == pytest.approx((0.04, 0.04))
    mean = float(errors.mean())
    assert bootstrap_interval(errors, YAW, statistic="mean") == pytest.approx((mean, mean))


def test_balanced_interval_follows_from_the_bins() -> None:
    errors = errors_of(3)
    variance = sum(float(errors[y == YAW].var(correction=0)) / int((y == YAW).sum()) / 9 for y in (0.0, 45.0, -75.0))
    low, high = bootstrap_interval(errors, YAW, resamples=5000)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(variance), rel=0.05)


def test_intervals_cover_as_often_as_they_say() -> None:
    hits, rounds = 0, 300
    for seed in range(rounds):
        errors = errors_of(1000 + seed)
        truth = 0.04 * (1 + 1.45 + 1.75) / 3
        low, high = bootstrap_interval(errors, YAW, resamples=300, confidence=0.9)
        hits += low <= truth <= high
    assert 0.85 < hits / rounds < 0.95  # 0.90 in the long run; two deviations are 0.035


def test_seeds_add_students_t() -> None:
    """If all pictures are alike, the interval over three runs is the textbook one with two degrees of freedom."""
    runs = torch.tensor([0.03, 0.04, 0.05], dtype=torch.float64)[:, None].expand(3, 50)
    low, high = bootstrap_interval(runs, resamples=200_000)
    half = 4.303 * 0.01 / math.sqrt(3)
    assert (low, high) == pytest.approx((0.04 - half, 0.04 + half), rel=0.03)
    assert bootstrap_interval(runs[1:2], resamples=100) == pytest.approx((0.04, 0.04))


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    hard = errors_of(5)
    noise = torch.from_numpy(np.random.default_rng(6).normal(0, 0.002, len(YAW)))
    better = hard - 0.001 + noise
    difference = paired_difference(better, hard, YAW)
    assert difference.value == pytest.approx(-0.001, abs=5e-4)
    assert difference.low < difference.value < difference.high < 0
    assert difference.separate
    assert difference.relative == pytest.approx(difference.value / float(summarise(hard, YAW).balanced))
    one, other = bootstrap_interval(better, YAW), bootstrap_interval(hard, YAW)
    assert one.high > other.low  # apart they overlap
    swapped = paired_difference(hard, better, YAW)
    assert swapped.value == pytest.approx(-difference.value)
    assert (swapped.low, swapped.high) == pytest.approx((-difference.high, -difference.low), abs=1e-12)


def test_no_difference_is_reported_as_none() -> None:
    a, b = (torch.stack([errors_of(10 * s + k) for s in range(3)]) for k in (1, 2))
    difference = paired_difference(a, b, YAW)
    assert difference.low < 0 < difference.high
    assert not difference.separate
    same = paired_difference(a, a, YAW)
    assert tuple(same) == (0, 0, 0, 0)


def test_difference_over_seeds_is_wider_than_over_pictures_alone() -> None:
    base = torch.stack([errors_of(1)] * 3)
    shifts = torch.tensor([-0.004, -0.001, -0.0025], dtype=torch.float64)[:, None]
    several = paired_difference(base + shifts, base, YAW)
    single = paired_difference((base + shifts)[:1], base[:1], YAW)
    assert several.value == pytest.approx(-0.0025)
    assert several.high - several.low > single.high - single.low
    assert several.high > 0  # two degrees of freedom do not prove much


def test_an_empty_bin_has_no_interval() -> None:
    ends = table_intervals(torch.tensor([0.1, 0.2]), torch.zeros(2), resamples=100)
    assert math.isnan(ends["balanced"].low)
    assert math.isnan(ends["bins"][2].high)
    assert not math.isnan(ends["mean"].low)


def test_bad_input_is_refused() -> None:
    errors = errors_of(0)
    with pytest.raises(ValueRangeError, match="resamples: found 10"):
        bootstrap_interval(errors, YAW, resamples=10)
    with pytest.raises(ValueRangeError, match="confidence: found 95"):
        bootstrap_interval(errors, YAW, confidence=95)
    with pytest.raises(ValueRangeError, match="statistic: found 'median'"):
        bootstrap_interval(errors, YAW, statistic="median")
    with pytest.raises(ShapeError, match="one per error"):
        bootstrap_interval(errors, YAW[:-1])
    with pytest.raises(ShapeError, match="expected first's"):
        paired_difference(errors, errors[:-1])
    with pytest.raises(ValueRangeError, match="NaN"):
        bootstrap_interval(errors * torch.nan, YAW)
