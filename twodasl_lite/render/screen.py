"""What the rasterizer hands to its backends: a checked mesh in pixels, and the words for what can be chosen.

The rasterizer imports the backends and the backends this, so that nobody imports in a circle. See chapter 6.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Backend = Literal["auto", "torch", "numba", "triton"]
Cull = Literal["back", "front", "none"]

SUBPIXEL_BITS = 8
"""Corners are rounded to 1 / 2 ** SUBPIXEL_BITS pixels."""


class ScreenMesh(NamedTuple):
    """A checked mesh: what all backends start from.

    Attributes:
        vertices: ``(B, V, 3)`` contiguous, float32 or float64, within bounds.
        triangles: ``(T, 3)`` contiguous int64, within bounds.
        height: Rows of the picture.
        width: Columns of the picture.
        cull: Which triangles to leave out.
    """

    vertices: torch.Tensor
    triangles: torch.Tensor
    height: int
    width: int
    cull: Cull
