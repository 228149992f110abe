"""Averaged weights: the mean of the last steps' networks is better than the last network."""

from __future__ import annotations

import copy

import torch
from torch import nn

_HASTE = 10
"""In step t the decay is at most (1 + t) / (10 + t), so that the average quickly forgets its random initialisation."""


class AveragedNetwork:
    """An exponential moving average of a network's weights and running statistics.

    Args:
        network: The network in training.
        decay: Share of the old average that a step keeps; 0 makes the average a copy.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Update the average with the network after a step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (_HASTE + self.updates)) if self.decay > 0 else 0.0
        mine, others = self.network.state_dict(), network.state_dict()
        averaged = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[n] for n in averaged], [others[n] for n in averaged], 1 - decay)
        for name, value in mine.items():
            if not value.is_floating_point():
                value.copy_(others[name])
