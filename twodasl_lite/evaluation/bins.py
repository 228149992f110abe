"""Yaw bins and the balanced mean: a test set is mostly frontal, and a method must not hide behind that.

The bins of the field (Zhu et al. 2016): absolute yaw in [0, 30], (30, 60] and above 60 degrees, the few faces beyond 90
included. The *balanced* error is the mean of the three bins' means; the plain mean weighs each picture the same.
Explained in chapter 15.
"""

from __future__ import annotations

import torch

from twodasl_lite.errors import ShapeError, check_tensor

YAW_EDGES = (30.0, 60.0)
"""Upper ends, inclusive, of all bins but the last, in degrees."""
BIN_NAMES = ("[0, 30]", "(30, 60]", "> 60")
NUM_BINS = len(BIN_NAMES)


def yaw_bins(yaw_degrees: torch.Tensor) -> torch.Tensor:
    """The bin of each face.

    Args:
        yaw_degrees: ``(N,)`` signed yaws in degrees.

    Returns:
        ``(N,)`` int64: 0, 1 or 2.

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
        errors: ``(N,)``, or ``(R, N)`` for R runs at once.
        bins: ``(N,)`` of :func:`yaw_bins`.

    Returns:
        ``(3,)`` or ``(R, 3)``; NaN for a bin without a face.
    """
    errors = check_tensor("errors", errors, ("...", "N"))
    if errors.shape[-1:] != bins.shape:
        raise ShapeError(f"errors: found {errors.shape[-1]} faces; expected {tuple(bins.shape)}, one per yaw")
    member = torch.nn.functional.one_hot(bins.to(errors.device), NUM_BINS).to(errors)  # (N, 3)
    return errors @ member / member.sum(dim=0)


def balanced_mean(errors: torch.Tensor, yaw_degrees: torch.Tensor) -> torch.Tensor:
    """Mean of the bins' means: the number that papers call the mean NME on AFLW2000-3D.

    Args:
        errors: ``(N,)``, or ``(R, N)`` for R runs at once.
        yaw_degrees: ``(N,)``.

    Returns:
        A scalar, or ``(R,)``; NaN if a bin has no face.

    Example:
        >>> balanced_mean(torch.tensor([1.0, 3.0, 4.0, 8.0]), torch.tensor([0.0, 10.0, -45.0, 80.0]))
        tensor(4.6667)
    """
    return bin_means(errors, yaw_bins(yaw_degrees)).mean(dim=-1)
