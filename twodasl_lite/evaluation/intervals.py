"""Confidence intervals for errors and for differences of errors, by resampling. See chapter 15.

Two things vary: the *pictures* in the test set, and the *seed* that a network was trained with.

* Pictures are resampled with replacement (Efron 1979), separately in each yaw bin, so that every resample has the same
  bin sizes.
* Seeds are few (three, five), and resampling three values says little. Instead, each resampled mean gets a random
  offset from Student's t distribution with S - 1 degrees of freedom, scaled by the spread between the runs' means. With
  one run there is no offset, and the interval holds only for that network.

Everything is seeded: the same numbers give the same interval.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch

from twodasl_lite.base.checks import check_choice, check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.evaluation.bins import NUM_BINS, yaw_bins

RESAMPLES = 2000
CONFIDENCE = 0.95
Statistic = Literal["balanced", "mean"]
STATISTICS: tuple[Statistic, ...] = ("balanced", "mean")


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Lower end.
        high: Upper end.
    """

    low: float
    high: float


class Difference(NamedTuple):
    """Errors of one method minus those of another on the same pictures.

    Attributes:
        value: Mean difference; below zero if the first method has the smaller error.
        low: Lower end of its confidence interval.
        high: Upper end of its confidence interval.
        relative: Difference as a fraction of the second method's error.
    """

    value: float
    low: float
    high: float
    relative: float

    @property
    def separate(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def _runs(name: str, errors: torch.Tensor) -> np.ndarray:
    """Errors ``(S, N)`` in float64, one row per seed."""
    errors = check_tensor(name, errors, ("...", "N"))
    if errors.ndim > 2 or errors.numel() == 0:
        raise ShapeError(f"{name}: found shape {tuple(errors.shape)}; expected (N) or (seeds, N), not empty")
    return errors.detach().cpu().double().reshape(-1, errors.shape[-1]).numpy()


def _groups(yaw: torch.Tensor | None, num: int) -> list[np.ndarray]:
    """Indices of the faces in each bin; one bin for all if there are no yaws."""
    if yaw is None:
        return [np.arange(num)]
    bins = yaw_bins(yaw).cpu().numpy()
    if len(bins) != num:
        raise ShapeError(f"yaw: found {len(bins)} faces; expected {num}, one per error")
    return [np.flatnonzero(bins == k) for k in range(NUM_BINS)]


def _resampled_means(runs: np.ndarray, groups: list[np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Mean of each run in each bin for every resample of the pictures, ``(resamples, S, bins)``."""
    generator = np.random.default_rng(seed)
    means = np.full((resamples, len(runs), len(groups)), np.nan)
    for k, group in enumerate(groups):
        if len(group) == 0:
            continue
        values, size = np.ascontiguousarray(runs[:, group].T), len(group)  # (n, S)
        for start in range(0, resamples, 250):  # keeps the gathered values small
            stop = min(start + 250, resamples)
            picks = generator.integers(0, size, (stop - start, size))
            means[start:stop, :, k] = values[picks].mean(axis=1)
    return means


def _weights(groups: list[np.ndarray], statistic: Statistic) -> np.ndarray:
    """Weight of each bin's mean."""
    sizes = np.array([len(group) for group in groups], dtype=np.float64)
    check_choice("statistic", statistic, STATISTICS)
    return np.full(len(groups), 1 / len(groups)) if statistic == "balanced" else sizes / sizes.sum()


def _weighted(means: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted sum over bins, without those of weight zero (an empty bin's mean is NaN)."""
    return means[..., weights > 0] @ weights[weights > 0]


def _check_level(resamples: int, confidence: float) -> None:
    if resamples < 100:
        raise ValueRangeError(f"resamples: found {resamples}; expected 100 or more")
    if not 0 < confidence < 1:
        raise ValueRangeError(f"confidence: found {confidence}; expected between 0 and 1")


def _with_seeds(drawn: np.ndarray, per_run: np.ndarray, seed: int) -> np.ndarray:
    """Add the spread between runs to the draws of the mean over runs.

    Args:
        drawn: Statistic of each run under each resample, ``(R, S)``.
        per_run: Statistic of each run on all pictures, ``(S,)``.
        seed: Random seed.

    Returns:
        Draws of the mean over all possible runs, ``(R,)``.
    """
    total, num = drawn.mean(axis=1), len(per_run)
    if num < 2:
        return total
    generator = np.random.default_rng([seed, 1])
    deviation = per_run.std(ddof=1) / np.sqrt(num)
    return total + deviation * generator.standard_t(num - 1, len(total))


def _ends(draws: np.ndarray, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(low), float(high))


def bootstrap_interval(
    errors: torch.Tensor,
    yaw: torch.Tensor | None = None,
    *,
    statistic: Statistic = "balanced",
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Confidence interval of the mean or balanced error.

    Args:
        errors: Errors ``(N,)``, or ``(S, N)`` for S networks trained with different seeds, on the same pictures.
        yaw: Yaws in degrees, ``(N,)``; without them there is one bin, and both statistics are the plain mean.
        statistic: ``"balanced"`` or ``"mean"``.
        resamples: Number of resamples, at least 100.
        confidence: Confidence level, for instance 0.95.
        seed: Seed of the resampling.

    Returns:
        The interval, in the unit of the errors; NaN if a bin that contributes is empty.

    Raises:
        ShapeError: If the numbers of faces differ.
        ValueRangeError: If an error is not finite or an option out of range.
    """
    _check_level(resamples, confidence)
    runs = _runs("errors", errors)
    groups = _groups(yaw, runs.shape[1])
    weights = _weights(groups, statistic)
    drawn = _weighted(_resampled_means(runs, groups, resamples, seed), weights)  # (R, S)
    return _ends(_with_seeds(drawn, _statistics(runs, groups, weights), seed), confidence)


def _statistics(runs: np.ndarray, groups: list[np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Statistic of each run on all pictures, ``(S,)``."""
    means = [runs[:, group].mean(axis=1) if len(group) else np.full(len(runs), np.nan) for group in groups]
    return _weighted(np.stack(means, axis=-1), weights)


def table_intervals(
    errors: torch.Tensor,
    yaw: torch.Tensor,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval | list[Interval]]:
    """Confidence intervals of all entries of a table, from the same resamples.

    Args:
        errors: Errors ``(N,)`` or ``(S, N)``.
        yaw: Yaws in degrees, ``(N,)``.
        resamples: Number of resamples.
        confidence: Confidence level, for instance 0.95.
        seed: Seed of the resampling.

    Returns:
        ``{"bins": [one per bin], "balanced": ..., "mean": ...}``.
    """
    _check_level(resamples, confidence)
    runs = _runs("errors", errors)
    groups = _groups(yaw, runs.shape[1])
    means = _resampled_means(runs, groups, resamples, seed)

    def interval(weights: np.ndarray) -> Interval:
        per_run = _statistics(runs, groups, weights)
        return _ends(_with_seeds(_weighted(means, weights), per_run, seed), confidence)

    return {
        "bins": [interval(row) for row in np.eye(NUM_BINS)],
        **{name: interval(_weights(groups, name)) for name in STATISTICS},
    }


def paired_difference(
    first: torch.Tensor,
    second: torch.Tensor,
    yaw: torch.Tensor | None = None,
    *,
    statistic: Statistic = "balanced",
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """Difference in error between two methods, measured picture by picture.

    Both are tested on the same pictures, so the difficulty of a picture cancels: the interval of the difference is much
    narrower than two separate intervals suggest. Runs are paired, too: row s of both must have been trained with the
    same seed.

    Args:
        first: Errors ``(N,)`` or ``(S, N)``.
        second: Errors of the same shape, on the same pictures (and seeds).
        yaw: Yaws in degrees, ``(N,)``; without them there is one bin.
        statistic: ``"balanced"`` or ``"mean"``.
        resamples: Number of resamples, at least 100.
        confidence: Confidence level, for instance 0.95.
        seed: Seed of the resampling.

    Returns:
        The difference ``first - second``, with its confidence interval over pictures and seeds.

    Raises:
        ShapeError: If the shapes differ.
        ValueRangeError: If an error is not finite or an option out of range.
    """
    _check_level(resamples, confidence)
    a, b = _runs("first", first), _runs("second", second)
    if a.shape != b.shape:
        raise ShapeError(f"second: found shape {b.shape} (seeds, faces); expected first's {a.shape}")
    groups = _groups(yaw, a.shape[1])
    weights = _weights(groups, statistic)
    difference = a - b
    drawn = _weighted(_resampled_means(difference, groups, resamples, seed), weights)
    per_run = _statistics(difference, groups, weights)
    ends = _ends(_with_seeds(drawn, per_run, seed), confidence)
    value = float(per_run.mean())
    return Difference(value, *ends, value / float(_statistics(b, groups, weights).mean()))
