"""Tables of errors by yaw bin, as numbers, JSON and Markdown. See chapter 15."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError
from twodasl_lite.evaluation.bins import BIN_NAMES, NUM_BINS, bin_means, yaw_bins
from twodasl_lite.evaluation.intervals import CONFIDENCE, RESAMPLES, Interval, table_intervals

COLUMNS = (*BIN_NAMES, "balanced", "mean")


@dataclass(frozen=True)
class Table:
    """The errors of one method on one test set, in the unit of the input (fractions).

    Attributes:
        bins: Mean error of each yaw bin; NaN for an empty one.
        balanced: Mean of the bins' means; NaN if one is empty.
        mean: Mean error over all faces.
        counts: Number of faces in each bin.
        runs: Number of averaged networks (seeds).
        bin_intervals: Confidence interval of each bin's mean.
        balanced_interval: Confidence interval of the balanced error.
        mean_interval: Confidence interval of the mean.
        confidence: Confidence level of the intervals.
    """

    bins: tuple[float, ...]
    balanced: float
    mean: float
    counts: tuple[int, ...]
    runs: int = 1
    bin_intervals: tuple[Interval, ...] | None = None
    balanced_interval: Interval | None = None
    mean_interval: Interval | None = None
    confidence: float = CONFIDENCE

    @property
    def count(self) -> int:
        """Number of faces."""
        return sum(self.counts)

    def values(self) -> tuple[float, ...]:
        """The entries in the order of :data:`COLUMNS`."""
        return (*self.bins, self.balanced, self.mean)

    def intervals(self) -> tuple[Interval, ...] | None:
        """Confidence intervals of the entries, in the same order; None if they were not computed."""
        if self.bin_intervals is None or self.balanced_interval is None or self.mean_interval is None:
            return None
        return (*self.bin_intervals, self.balanced_interval, self.mean_interval)

    def to_dict(self) -> dict[str, object]:
        """JSON-serialisable numbers, as fractions; None where a bin is empty."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        content: dict[str, object] = {
            "bins": {name: plain(value) for name, value in zip(BIN_NAMES, self.bins, strict=True)},
            "balanced": plain(self.balanced),
            "mean": plain(self.mean),
            "counts": dict(zip(BIN_NAMES, self.counts, strict=True)),
            "runs": self.runs,
        }
        intervals = self.intervals()
        if intervals is not None:
            ends = [[plain(end) for end in interval] for interval in intervals]
            content["intervals"] = {"confidence": self.confidence, **dict(zip(COLUMNS, ends, strict=True))}
        return content

    def markdown(self, name: str = "", digits: int = 3) -> str:
        """The table with one row, see :func:`markdown`."""
        return markdown({name: self}, digits)


def summarise(
    errors: torch.Tensor,
    yaw: torch.Tensor,
    *,
    intervals: bool = True,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Table:
    """Summarise errors by yaw bin, balanced and mean, with bootstrap intervals.

    Args:
        errors: Errors ``(N,)``, or ``(S, N)`` for S networks trained with different seeds on the same pictures.
        yaw: Yaws in degrees, ``(N,)``.
        intervals: Whether to compute intervals (0.1 s for 2,000 faces).
        resamples: Number of resamples, see :func:`~twodasl_lite.evaluation.intervals.bootstrap_interval`.
        confidence: Confidence level of the intervals.
        seed: Seed of the resampling.

    Returns:
        The table.

    Raises:
        ShapeError: If the numbers of faces differ or there is no face.
        ValueRangeError: If an error or a yaw is not finite; the caller decides how to treat missing predictions.

    Example:
        >>> table = summarise(torch.tensor([0.02, 0.04, 0.04, 0.06]), torch.tensor([0.0, 10.0, -45.0, 80.0]))
        >>> round(table.balanced, 4), round(table.mean, 4), table.counts
        (0.0433, 0.04, (2, 1, 1))
    """
    errors = check_tensor("errors", errors, ("...", "N")).detach().cpu().double()
    if errors.ndim > 2 or errors.numel() == 0:
        raise ShapeError(f"errors: found shape {tuple(errors.shape)}; expected (N) or (seeds, N), not empty")
    bins = yaw_bins(check_tensor("yaw", yaw, ("N",)).detach().cpu())
    runs = errors.reshape(-1, errors.shape[-1])
    means = bin_means(runs, bins).mean(dim=0)  # (3,)
    found: dict[str, Any] = {}
    if intervals:
        ends = table_intervals(runs, yaw, resamples=resamples, confidence=confidence, seed=seed)
        found = {
            "bin_intervals": tuple(ends["bins"]),
            "balanced_interval": ends["balanced"],
            "mean_interval": ends["mean"],
        }
    return Table(
        bins=tuple(means.tolist()),
        balanced=float(means.mean()),
        mean=float(runs.mean()),
        counts=tuple(torch.bincount(bins, minlength=NUM_BINS).tolist()),
        runs=len(runs),
        confidence=confidence,
        **found,
    )


def markdown(tables: Mapping[str, Table], digits: int = 3, *, intervals: bool = True) -> str:
    """Format several tables as one in Markdown, in per cent, with intervals, if any, in brackets.

    Args:
        tables: Name of each row to its table.
        digits: Number of decimal places.
        intervals: Whether to include the intervals of the balanced error.

    Returns:
        The table in Markdown.

    Example:
        >>> print(Table((0.02, 0.03, 0.04), 0.03, 0.025, (10, 5, 2)).markdown("a network", digits=1))
        | NME, % | [0, 30] | (30, 60] | > 60 | balanced | mean |
        |---|---|---|---|---|---|
        | a network | 2.0 | 3.0 | 4.0 | 3.0 | 2.5 |
    """
    lines = [f"| NME, % | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, table in tables.items():
        cells = ["-" if math.isnan(value) else f"{100 * value:.{digits}f}" for value in table.values()]
        if intervals and table.balanced_interval is not None and not math.isnan(table.balanced):
            low, high = table.balanced_interval
            cells[NUM_BINS] += f" [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
