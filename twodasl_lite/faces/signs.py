"""A reproducible sign for each component: the negative of an eigenvector is an eigenvector, too.

The usual rule, that the largest entry is positive, is a coin toss on a symmetric face: the largest entry has a mirror
twin, equal up to rounding and often of the opposite sign, so that two machines would build two models.
"""

from __future__ import annotations

import torch

NEARLY_LARGEST = 0.99
"""Entries of at least this share of the largest count as large; their order, not their rounding, decides."""


def stable_signs(directions: torch.Tensor) -> torch.Tensor:
    """Signs ``(K,)`` that make the first large entry of each column of ``(N, K)`` positive."""
    size = directions.abs()
    first = (size >= NEARLY_LARGEST * size.amax(dim=0)).int().argmax(dim=0, keepdim=True)  # (1, K)
    signs = torch.sign(directions.gather(0, first))[0]
    return torch.where(signs == 0, torch.ones_like(signs), signs)
