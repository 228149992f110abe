"""Construction of regressors by name."""

from __future__ import annotations

from torch import nn

from twodasl_lite.base.checks import check_choice, check_count
from twodasl_lite.networks.lite import LiteRegressor
from twodasl_lite.networks.normalisation import NormKind
from twodasl_lite.networks.resnet import NUM_OUTPUTS, RESNETS, ResNet

REGRESSORS: tuple[str, ...] = (*RESNETS, LiteRegressor.name)
"""Names that :func:`make_regressor` accepts."""


def make_regressor(name: str, num_outputs: int = NUM_OUTPUTS, norm: NormKind = "batch") -> nn.Module:
    """Build a regressor with random weights.

    Args:
        name: ``"resnet50"`` (the released layout), ``"resnet34"``, ``"resnet18"`` or ``"lite"``.
        num_outputs: Number of coefficients; the layout's size.
        norm: ``"batch"``, ``"group"`` or ``"frozen"``, see :mod:`twodasl_lite.networks.normalisation`.

    Returns:
        A network from ``(B, 4, 120, 120)`` to whitened ``(B, num_outputs)``, with the arguments as attributes
        ``name``, ``num_outputs`` and ``norm``.

    Raises:
        ValueRangeError: If an argument is unknown or out of range.
    """
    check_choice("name", name, REGRESSORS)
    num_outputs = check_count("num_outputs", num_outputs)
    if name == LiteRegressor.name:
        return LiteRegressor(num_outputs, norm)
    return ResNet(name, num_outputs, norm)


def count_parameters(network: nn.Module) -> int:
    """Number of learnt parameters (without normalisation statistics)."""
    return sum(parameter.numel() for parameter in network.parameters())
