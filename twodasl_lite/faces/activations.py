"""Plausible expressions: random activations of named blendshapes.

A face moves few muscles at a time, mostly the same on both sides, and never two that pull in opposite directions. The
names identify them: they are the Facial Action Coding System's units as ARKit spells them, with ``_L`` and ``_R`` for
the person's sides. Blendshapes with other names are treated as independent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

ACTIVE_UNITS = 4.0
"""Average number of units that are active at a time."""
ACTIVE_STRENGTH = 2.0
"""Spread of an active unit's strength, relative to the spread over all expressions, most of which do not use it."""
ONE_SIDED = 0.15
"""Share of two-sided units that move on one side only."""
SIDE_SPREAD = 0.1
"""Relative spread between the sides of a unit that moves on both."""

OPPOSITES = (
    ("jawLeft", "jawRight"), ("mouthLeft", "mouthRight"), ("eyeBlink", "eyeWide"), ("eyeSquint", "eyeWide"),
    ("browDown", "browOuterUp"), ("mouthSmile", "mouthFrown"), ("mouthPucker", "mouthStretch"),
    ("mouthPucker", "mouthSmile"), ("mouthFunnel", "mouthSmile"), ("mouthPress", "jawOpen"), ("cheekPuff", "jawOpen"),
    ("eyeLookUp", "eyeLookDown"), ("mouthRollLower", "jawOpen"),
)  # fmt: skip
"""Units that exclude each other; of two active ones the weaker is switched off."""
NEEDS = {"mouthClose": "jawOpen"}
"""A unit that only undoes another is never stronger than it; closed lips over an open jaw."""
GAZE = ("eyeLookIn", "eyeLookOut")
"""Both eyes look the same way; in on one side goes with out on the other."""


def units_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the blendshapes by unit: the name without its side."""
    units: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        units.setdefault(name.removesuffix("_L").removesuffix("_R"), []).append(index)
    return units


def plausible_activations(
    names: Sequence[str], std: torch.Tensor, num: int, generator: torch.Generator | None = None, clip: float = 2.0
) -> torch.Tensor:
    """Draw activations.

    Args:
        names: K names of blendshapes.
        std: ``(K,)`` spread of each blendshape's strength.
        num: Number of expressions.
        generator: Source of randomness.
        clip: Strengths are clipped to this many standard deviations, and to 1.

    Returns:
        ``(num, K)`` from 0 to 1.
    """
    units = units_of(names)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    on = rand(num, len(units)) < min(1.0, ACTIVE_UNITS / max(len(units), 1))
    strength = ACTIVE_STRENGTH * normal(num, len(units)).abs().clamp(max=clip) * on  # (num, U), in standard deviations
    column = {unit: k for k, unit in enumerate(units)}
    for first, second in OPPOSITES:
        if first in column and second in column:
            a, b = strength[:, column[first]], strength[:, column[second]]
            weaker = a < b
            a[weaker], b[~weaker] = 0, 0  # views: this changes strength
    for unit, other in NEEDS.items():
        if unit in column and other in column:
            strength[:, column[unit]] = torch.minimum(strength[:, column[unit]], strength[:, column[other]])
    result = torch.zeros(num, len(names))
    for unit, members in units.items():
        value = strength[:, column[unit], None] * (1 + SIDE_SPREAD * normal(num, len(members)))
        if len(members) > 1:
            alone = rand(num) < ONE_SIDED
            side = (rand(num) * len(members)).long()
            keep = ~alone[:, None] | (torch.arange(len(members)) == side[:, None])
            value = value * keep
        result[:, members] = value.clamp(min=0)
    places = {name: k for k, name in enumerate(names)}
    if all(f"{unit}_{side}" in places for unit in GAZE for side in "LR"):
        inner, outer = ([places[f"{unit}_{side}"] for side in "LR"] for unit in GAZE)
        amount = result[:, [*inner, *outer]].amax(dim=1)
        left = rand(num) < 0.5
        result[:, [*inner, *outer]] = 0
        result[left, outer[0]] = result[left, inner[1]] = amount[left]
        result[~left, inner[0]] = result[~left, outer[1]] = amount[~left]
    return (result * std).clamp(0, 1)
