"""Yaw bins and the balanced mean, which prevents the many frontal faces of a test set from dominating the error.

The usual bins (Zhu et al. 2016) are absolute yaw in [0, 30], (30, 60] and above 60 degrees, including the few faces
beyond 90. The *balanced* error is the mean of the three bins' means; the plain mean weights every picture equally.
See chapter 15.
"""

from __future__ import annotations

import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError

YAW_EDGES = (30.0, 60.0)
"""Inclusive upper ends of all bins except the last, in degrees."""
BIN_NAMES = ("[0, 30]", "(30, 60]", "> 60")
NUM_BINS = len(BIN_NAMES)


def yaw_bins(yaw_degrees: torch.Tensor) -> torch.Tensor:
    """Index of each face's bin.

    Args:
        yaw_degrees: Signed yaws in degrees, ``(N,)``.

    Returns:
        Indices 0, 1 or 2, ``(N,)`` int64.

    Example:
        >>> yaw_bins(torch.tensor([0.0, -30.0, 30.1, -60.0, 61.0, -95.0]))
        tensor([0, 0, 1, 1, 2, 2])
    """
    yaw = check_tensor("yaw_degrees", yaw_degrees, ("N",))
    edges = torch.tensor(YAW_EDGES, dtype=yaw.dtype, device=yaw.device)
    return (yaw.abs()[:, None] > edges).sum(dim=1)


def bin_means(errors: torch.Tensor, bins: torch.Tensor) -> torch.Tensor:
    """Mean of the errors in each bin.

    Args:
        errors: Errors ``(N,)``, or ``(R, N)`` for R runs at once.
        bins: Bins from :func:`yaw_bins`, ``(N,)``.

    Returns:
        Means ``(3,)`` or ``(R, 3)``; NaN for a bin without a face.
    """
    errors = check_tensor("errors", errors, ("...", "N"))
    if errors.shape[-1:] != bins.shape:
        raise ShapeError(f"errors: found {errors.shape[-1]} faces; expected {tuple(bins.shape)}, one per yaw")
    member = torch.nn.functional.one_hot(bins.to(errors.device), NUM_BINS).to(errors)  # (N, 3)
    return errors @ member / member.sum(dim=0)


def balanced_mean(errors: torch.Tensor, yaw_degrees: torch.Tensor) -> torch.Tensor:
    """Mean of the bins' means, which papers report as the mean NME on AFLW2000-3D.

    Args:
        errors: Errors ``(N,)``, or ``(R, N)`` for R runs at once.
        yaw_degrees: Signed yaws in degrees, ``(N,)``.

    Returns:
        Balanced mean, a scalar or ``(R,)``; NaN if a bin has no face.

    Example:
        >>> balanced_mean(torch.tensor([1.0, 3.0, 4.0, 8.0]), torch.tensor([0.0, 10.0, -45.0, 80.0]))
        tensor(4.6667)
    """
    return bin_means(errors, yaw_bins(yaw_degrees)).mean(dim=-1)
