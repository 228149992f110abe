"""The total loss: a weighted sum of named losses that reports its parts.

See chapter 14.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.base.checks import check_choice, check_number
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.losses.catalogue import LOSS_NAMES
from twodasl_lite.losses.distances import at_least_float32


class Total(NamedTuple):
    """The total loss and its parts.

    Attributes:
        total: Scalar to minimise.
        parts: Mean of each loss over its batch, unweighted and without gradient; scalars.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


class WeightedSum(nn.Module):
    """Weighted, named sum of losses.

    ::

        total = sum over names of weight * mean of the losses of that name's batch

    Labelled and unlabelled pictures come in batches of different sizes, so each name has its own mean. The mean of an
    empty batch is zero.

    Args:
        weights: Loss name to weight. Losses of weight zero may be omitted later.
        check: Whether to raise an error for NaN and infinity; on a GPU each check waits for the device.

    Raises:
        ValueRangeError: If a name is unknown, a weight negative or not finite, or all are zero.

    Example:
        >>> WeightedSum({"wpdc": 1.0, "cycle": 0.5})({"wpdc": torch.ones(4), "cycle": torch.tensor([2.0])}).total
        tensor(2.)
    """

    def __init__(self, weights: Mapping[str, float], *, check: bool = True) -> None:
        super().__init__()
        for name, weight in weights.items():
            check_choice("weights", name, LOSS_NAMES)
            check_number(f"weights[{name!r}]", weight, least=0)
        if not any(weights.values()):
            raise ValueRangeError(f"weights: found none above zero; expected at least one of {', '.join(LOSS_NAMES)}")
        self.weights = {name: float(weight) for name, weight in weights.items()}
        self.check = check

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the required losses, those with a weight above zero."""
        return tuple(name for name, weight in self.weights.items() if weight > 0)

    def extra_repr(self) -> str:
        """The sum as a formula."""
        return " + ".join(f"{weight:g} {name}" for name, weight in self.weights.items())

    def forward(self, losses: Mapping[str, torch.Tensor]) -> Total:
        """Compute the weighted sum.

        Args:
            losses: Name to losses ``(B,)`` (or a scalar), each with its own B. Losses without a weight are only
                reported.

        Returns:
            The total and its parts.

        Raises:
            ValueRangeError: If a part is missing, of an unknown name, NaN or infinite.
            ShapeError: If a part is neither a vector nor a scalar.
        """
        missing = [name for name in self.names if name not in losses]
        if missing:
            raise ValueRangeError(
                f"losses: found {', '.join(losses) or 'none'}; expected also {', '.join(missing)}, "
                "whose weight is above zero"
            )
        means = {}
        for name, values in losses.items():
            check_choice("losses", name, LOSS_NAMES)
            if not isinstance(values, torch.Tensor) or values.ndim > 1:
                found = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
                raise ShapeError(f"losses[{name!r}]: found {found}; expected a tensor of shape (B,) or a scalar")
            means[name] = at_least_float32(values).sum() / max(values.numel(), 1)
        total = torch.stack([self.weights[name] * means[name] for name in self.names]).sum()
        parts = {name: mean.detach() for name, mean in means.items()}
        if self.check and not bool(torch.isfinite(total)):
            bad = [f"{name} = {float(parts[name])}" for name in self.names if not bool(torch.isfinite(parts[name]))]
            raise ValueRangeError(f"losses: found {', '.join(bad) or 'a sum too large'}; expected finite numbers")
        return Total(total, parts)
