"""Normalisation layers of the regressors, and what each of them depends on.

* ``"batch"``: batch normalisation (Ioffe and Szegedy 2015). Each channel is normalised by its mean and variance over
  the batch, so in training a sample's output depends on the other samples; with several processes, each one only sees
  its own part of the batch.
* ``"group"``: group normalisation (Wu and He 2018). Statistics cover groups of channels of one sample: nothing depends
  on the batch, and training and evaluation compute the same.
* ``"frozen"``: batch normalisation with fixed statistics, either loaded or measured once by
  :func:`measure_statistics`; scale and shift are still learnt.

All three use the parameter names ``weight`` and ``bias``; batch and frozen normalisation have identical state
dictionaries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from twodasl_lite.base.errors import ValueRangeError

NormKind = Literal["batch", "group", "frozen"]
NORM_KINDS: tuple[str, ...] = get_args(NormKind)

MAX_GROUPS = 32
"""Number of groups in group normalisation, as in its paper; fewer where groups would be too small."""
MIN_GROUP = 8
"""Smallest number of channels in a group; normalising over fewer erases their information."""

Norm = Callable[[int], nn.Module]


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses its stored statistics in training, too, and never changes them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``(B, C, H, W)`` by the stored mean and variance, then scale and shift."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, max(1, min(MAX_GROUPS, channels // MIN_GROUP))), channels)


def make_norm(kind: NormKind) -> Norm:
    """Choose the kind of normalisation layer.

    Args:
        kind: ``"batch"``, ``"group"`` or ``"frozen"``.

    Returns:
        A function from a number of channels to a layer.

    Raises:
        ValueRangeError: If the kind is unknown.
    """
    layers: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": _group_norm, "frozen": FrozenBatchNorm2d}
    if kind not in layers:
        raise ValueRangeError(f"norm: found {kind!r}; expected one of {', '.join(NORM_KINDS)}")
    return layers[kind]


@torch.no_grad()
def measure_statistics(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Set the statistics of all batch normalisations, including frozen ones, to those of given inputs.

    Needed before a ``"frozen"`` network is trained from random weights (without statistics it normalises nothing), and
    useful after averaging weights, because averaged statistics match none of the networks. The statistics are plain
    means over the batches; while they are measured, each layer normalises with those of the current batch.

    Args:
        network: The network; changed in place, with its mode restored afterwards.
        batches: Batches of inputs, ``(B, 4, 120, 120)`` each, at least one; B should be a few dozen.

    Raises:
        ValueRangeError: If there is no batch.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    was_training = network.training
    count = 0

    def measure(layer: nn.BatchNorm2d, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        # The hook's result replaces the layer's: normalised by this batch, with statistics averaged over all so far.
        momentum = 1.0 / count
        return functional.batch_norm(
            arguments[0], layer.running_mean, layer.running_var, layer.weight, layer.bias, True, momentum, layer.eps
        )

    hooks = [layer.register_forward_hook(measure) for layer in layers]
    try:
        network.eval()
        for inputs in batches:
            count += 1
            network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)
    if not count:
        raise ValueRangeError("batches: found none; expected at least one batch of inputs")
