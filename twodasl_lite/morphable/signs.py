"""Which of a component's two signs is taken: an eigenvector is as good as its negative.

The usual rule, that the largest entry be positive, is a toss on a symmetric face: the largest entry has a mirror twin,
equal but for rounding and often of the other sign, so that two machines would build two models.
"""

from __future__ import annotations

import torch

NEARLY_LARGEST = 0.99
"""Entries from this share of the largest on count as large; their order, not their rounding, decides."""


def stable_signs(directions: torch.Tensor) -> torch.Tensor:
    """Signs ``(K,)`` that make the first large entry of each column of ``(N, K)`` positive."""
    size = directions.abs()
    first = (size >= NEARLY_LARGEST * size.amax(dim=0)).int().argmax(dim=0, keepdim=True)  # (1, K)
    signs = torch.sign(directions.gather(0, first))[0]
    return torch.where(signs == 0, torch.ones_like(signs), signs)
