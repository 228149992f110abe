"""The cumulative error distribution (CED), the area under it, and the failure rate. See chapter 15.

A face without a prediction (NaN) counts as a failure at any limit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ValueRangeError

LIMIT = 0.10
"""Error at which the curve ends and above which a face is a failure; a tenth of the face size."""


class Curve(NamedTuple):
    """A cumulative error distribution.

    Attributes:
        errors: Errors as fractions of the face size, ``(K,)``.
        fractions: Fraction of the faces with at most that error, 0 to 1, ``(K,)``.
    """

    errors: torch.Tensor
    fractions: torch.Tensor


def ced(errors: torch.Tensor, limit: float = LIMIT, num: int = 201) -> Curve:
    """Fraction of the faces whose error is at most e, for e from 0 to ``limit``.

    Args:
        errors: Errors ``(N,)``; NaN for a face without a prediction.
        limit: Error at which the curve ends.
        num: Number of evenly spaced points of the curve.

    Returns:
        The curve.

    Raises:
        ValueRangeError: If there is no face or the limit is not positive.

    Example:
        >>> ced(torch.tensor([0.01, 0.04, 0.2]), limit=0.1, num=3).fractions
        tensor([0.0000, 0.6667, 0.6667], dtype=torch.float64)
    """
    errors = _checked(errors, limit)
    steps = torch.linspace(0, limit, num, dtype=errors.dtype, device=errors.device)
    return Curve(steps, (errors[None, :] <= steps[:, None]).to(errors.dtype).mean(dim=1))


def auc(errors: torch.Tensor, limit: float = LIMIT) -> float:
    """Area under the curve from 0 to ``limit``, over ``limit``: 1 if every error is zero, 0 if all exceed the limit.

    It is the exact integral of the step curve, ``mean(max(0, 1 - e / limit))``, not of samples of it.

    Args:
        errors: Errors ``(N,)``; NaN for a face without a prediction.
        limit: Error at which the curve ends.
    """
    errors = _checked(errors, limit)
    return float((1 - errors / limit).clamp(min=0).nan_to_num(nan=0.0).mean())


def failure_rate(errors: torch.Tensor, limit: float = LIMIT) -> float:
    """Fraction of the faces with an error above ``limit`` or without a prediction.

    Args:
        errors: Errors ``(N,)``; NaN for a face without a prediction.
        limit: Largest error that is not a failure.
    """
    errors = _checked(errors, limit)
    return float((~(errors <= limit)).to(errors.dtype).mean())


def _checked(errors: torch.Tensor, limit: float) -> torch.Tensor:
    errors = check_tensor("errors", errors, ("N",), finite=False).double()
    if errors.numel() == 0:
        raise ValueRangeError("errors: found none; expected at least one face")
    if not limit > 0:
        raise ValueRangeError(f"limit: found {limit}; expected above 0")
    return errors
