"""Which vertices, and so which landmarks, the viewer sees, and which the face itself hides.

A vertex is hidden if the surface that was drawn around it is clearly nearer. "Around it" means at the four nearest
pixel centres: on a slope, the farthest of them lies behind the vertex, so that no surface hides itself.
"""

from __future__ import annotations

import torch

from twodasl_lite.base.checks import check_indices, check_tensor
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.render.rasterizer import Fragments, rasterize
from twodasl_lite.render.screen import Backend

TOLERANCE = 0.01
"""How far behind the drawn surface a vertex still counts as visible, as a share of the larger side of the mesh's box:
the width of an eyelid."""


def visible_in(fragments: Fragments, points: torch.Tensor, tolerance: float, *, check: bool = True) -> torch.Tensor:
    """Which points are visible in drawn pictures.

    Args:
        fragments: Fragments of B pictures.
        points: ``(B, N, 3)`` in their pixels, with depth.
        tolerance: Depth in pixels by which points may lie behind the surface.
        check: Whether to check for NaN and infinity; on a GPU this waits for the device.

    Returns:
        ``(B, N)`` booleans; a point outside the picture is not visible.

    Raises:
        ShapeError: If the batches differ.
        ValueRangeError: If the tolerance is negative.
    """
    batch, height, width = fragments.depth.shape
    points = check_tensor("points", points, (batch, "N", 3), finite=check)
    if not tolerance >= 0:
        raise ValueRangeError(f"tolerance: found {tolerance}; expected 0 or more pixels")
    x, y, z = points.unbind(-1)  # (B, N)
    inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    left, right = (side.clamp(0, width - 1).long() for side in (x.floor(), x.ceil()))
    top, bottom = (side.clamp(0, height - 1).long() for side in (y.floor(), y.ceil()))
    depth = fragments.depth.flatten(1)  # (B, H W)
    around = [depth.gather(1, row * width + column) for row in (top, bottom) for column in (left, right)]
    return inside & (z >= torch.stack(around).amin(dim=0) - tolerance)


def visible_vertices(
    vertices: torch.Tensor,
    triangles: torch.Tensor,
    indices: torch.Tensor | None = None,
    *,
    tolerance: float = TOLERANCE,
    resolution: int = 256,
    backend: Backend = "auto",
) -> torch.Tensor:
    """Which vertices are not hidden, wherever they lie: the whole mesh is drawn, including what a crop leaves out.

    Args:
        vertices: ``(B, V, 3)`` in pixels.
        triangles: ``(T, 3)`` vertex indices.
        indices: ``(N,)`` the vertices in question, for instance ``model.landmarks``; all by default.
        tolerance: Largest depth behind the surface, see :data:`TOLERANCE`.
        resolution: Side in pixels of the picture that is drawn for the test.
        backend: Rendering backend, see :func:`twodasl_lite.render.rasterize`.

    Returns:
        ``(B, N)`` booleans.

    Raises:
        ShapeError: If a shape differs.
        ValueRangeError: If a coordinate is not finite, an index points to no vertex, the resolution is below 2 or the
            tolerance negative.
    """
    vertices = check_tensor("vertices", vertices, ("B", "V", 3)).detach()
    count = vertices.shape[1]
    if indices is None:
        indices = torch.arange(count, device=vertices.device)
    indices = check_indices("indices", indices, count, ("N",), vertices.device)
    if resolution < 2:
        raise ValueRangeError(f"resolution: found {resolution}; expected 2 or more pixels")
    if not count:
        return torch.zeros(vertices.shape[0], 0, dtype=torch.bool, device=vertices.device)
    low, high = vertices.amin(dim=1, keepdim=True), vertices.amax(dim=1, keepdim=True)  # (B, 1, 3)
    side = (high - low)[..., :2].amax(dim=-1, keepdim=True)
    placed = (vertices - low) * ((resolution - 1) / torch.where(side > 0, side, 1.0))
    fragments = rasterize(placed, triangles, resolution, resolution, backend=backend, cull="none")
    return visible_in(fragments, placed[:, indices], tolerance * (resolution - 1))
