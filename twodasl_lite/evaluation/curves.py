"""The cumulative error distribution (CED) and the numbers read off it. Explained in chapter 15.

A face without an answer (NaN) never comes below an error: it counts as a failure.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from twodasl_lite.errors import ValueRangeError, check_tensor

LIMIT = 0.10
"""Error at which the curve ends and beyond which a face has failed: a tenth of the face."""


class Curve(NamedTuple):
    """A cumulative error distribution.

    Attributes:
        errors: ``(K,)`` errors, as fractions.
        fractions: ``(K,)`` part of the faces with at most that error, 0 to 1.
    """

    errors: torch.Tensor
    fractions: torch.Tensor


def ced(errors: torch.Tensor, limit: float = LIMIT, num: int = 201) -> Curve:
    """Fraction of the faces whose error is at most e, for e from 0 to ``limit``.

    Args:
        errors: ``(N,)``; NaN for a face without an answer.
        limit: The last error.
        num: Number of points of the curve, evenly spaced.

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
    """Area under the curve from 0 to ``limit``, over ``limit``: 1 if every error is zero, 0 if all are beyond.

    It is the integral of the step curve itself, ``mean(max(0, 1 - e / limit))``, not of samples of it.

    Args:
        errors: ``(N,)``; NaN for a face without an answer.
        limit: The last error.
    """
    errors = _checked(errors, limit)
    return float((1 - errors / limit).clamp(min=0).nan_to_num(nan=0.0).mean())


def failure_rate(errors: torch.Tensor, limit: float = LIMIT) -> float:
    """Part of the faces with an error above ``limit``, or without an answer.

    Args:
        errors: ``(N,)``; NaN for a face without an answer.
        limit: The largest error that is no failure.
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
