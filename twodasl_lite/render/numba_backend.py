"""The z-buffer as one short loop, compiled by numba: triangle by triangle, row by row, pixel by pixel.

:func:`draw_band` is plain Python and does the same uncompiled, slowly: read it first. Images are drawn in parallel, and
so are bands of rows when there are fewer images than threads. The rules are those of
:mod:`twodasl_lite.render.rasterizer`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import torch

from twodasl_lite.base.errors import require
from twodasl_lite.render.screen import SUBPIXEL_BITS, Cull, ScreenMesh
from twodasl_lite.render.threads import side_by_side

_STEP = 1 << SUBPIXEL_BITS
_CULLED_SIGN: dict[Cull, int] = {"back": 1, "front": -1, "none": 0}
"""Sign of the area, with y down, of the triangles that are culled."""


def draw_band(vertices, triangles, culled, first, last, triangle, barycentric, depth):
    """Draw the rows ``first`` to ``last`` (exclusive) of one picture.

    Args:
        vertices: ``(V, 3)`` in pixels.
        triangles: ``(T, 3)`` int64.
        culled: Sign of the area of triangles to leave out; 0 for none.
        first: First row.
        last: Row after the last.
        triangle: ``(H, W)`` int64, overwritten.
        barycentric: ``(H, W, 3)`` zeros, written where there is a triangle.
        depth: ``(H, W)``, overwritten.
    """
    width = triangle.shape[1]
    nearest = np.full((last - first, width), -np.inf, np.float32)
    triangle[first:last] = -1
    corners = np.empty((vertices.shape[0], 2), np.int32)  # in 1/256 pixels
    for v in range(vertices.shape[0]):
        corners[v, 0] = np.rint(vertices[v, 0] * _STEP)
        corners[v, 1] = np.rint(vertices[v, 1] * _STEP)

    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        x0, x1, x2 = np.int64(corners[i, 0]), np.int64(corners[j, 0]), np.int64(corners[k, 0])
        y0, y1, y2 = np.int64(corners[i, 1]), np.int64(corners[j, 1]), np.int64(corners[k, 1])
        left = max((min(x0, min(x1, x2)) + _STEP - 1) >> SUBPIXEL_BITS, 0)
        right = min(max(x0, max(x1, x2)) >> SUBPIXEL_BITS, width - 1)
        top = max((min(y0, min(y1, y2)) + _STEP - 1) >> SUBPIXEL_BITS, first)
        bottom = min(max(y0, max(y1, y2)) >> SUBPIXEL_BITS, last - 1)
        if (right - left) | (bottom - top) < 0:  # one test of both signs: no pixel centre in the box
            continue
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area == 0 or area * culled > 0:
            continue

        # Edge functions, positive inside: each is zero on the edge opposite its corner.
        turn = 1 if area > 0 else -1
        right0, right1, right2 = turn * (y1 - y2), turn * (y2 - y0), turn * (y0 - y1)
        down0, down1, down2 = turn * (x2 - x1), turn * (x0 - x2), turn * (x1 - x0)
        # Left edges and horizontal top edges belong to the triangle; for the others it begins one unit further in.
        least0 = 1 - ((right0 > 0) | ((right0 == 0) & (down0 > 0)))
        least1 = 1 - ((right1 > 0) | ((right1 == 0) & (down1 > 0)))
        least2 = 1 - ((right2 > 0) | ((right2 == 0) & (down2 > 0)))
        scale = 1.0 / (turn * area)
        slope0 = np.float32(vertices[i, 2]) * scale
        slope1 = np.float32(vertices[j, 2]) * scale
        slope2 = np.float32(vertices[k, 2]) * scale
        slope = right0 * _STEP * slope0 + right1 * _STEP * slope1 + right2 * _STEP * slope2  # depth gained per pixel

        px = left * _STEP
        for row in range(top, bottom + 1):
            py = row * _STEP
            e0 = right0 * (px - x1) + down0 * (py - y1) - least0
            e1 = right1 * (px - x2) + down1 * (py - y2) - least1
            e2 = right2 * (px - x0) + down2 * (py - y0) - least2
            column = left
            while column <= right and e0 | e1 | e2 < 0:  # one test of three signs: outside
                e0 += right0 * _STEP
                e1 += right1 * _STEP
                e2 += right2 * _STEP
                column += 1
            start, number = (e0 + least0) * slope0 + (e1 + least1) * slope1 + (e2 + least2) * slope2, 0
            while column <= right and e0 | e1 | e2 >= 0:  # inside, until the row leaves the triangle
                here = np.float32(start + slope * number)
                if here > nearest[row - first, column]:
                    nearest[row - first, column] = here
                    triangle[row, column] = t
                e0 += right0 * _STEP
                e1 += right1 * _STEP
                e2 += right2 * _STEP
                column += 1
                number += 1

    for row in range(first, last):
        for column in range(width):
            t = triangle[row, column]
            if t < 0:
                depth[row, column] = -np.inf
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            x0, x1, x2 = np.int64(corners[i, 0]), np.int64(corners[j, 0]), np.int64(corners[k, 0])
            y0, y1, y2 = np.int64(corners[i, 1]), np.int64(corners[j, 1]), np.int64(corners[k, 1])
            px, py = column * _STEP, row * _STEP
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            turn = 1 if area > 0 else -1
            e0 = turn * ((x2 - x1) * (py - y1) - (y2 - y1) * (px - x1))
            e1 = turn * ((x0 - x2) * (py - y2) - (y0 - y2) * (px - x2))
            e2 = turn * ((x1 - x0) * (py - y0) - (y1 - y0) * (px - x0))
            scale = 1.0 / (turn * area)
            barycentric[row, column, 0] = e0 * scale
            barycentric[row, column, 1] = e1 * scale
            barycentric[row, column, 2] = e2 * scale
            depth[row, column] = nearest[row - first, column]


@functools.cache
def _compiled() -> Callable[..., None]:
    """:func:`draw_band` as machine code; compiled at its first call (seconds) and kept on disk for the next process."""
    numba = require("numba", "render", 'drawing with backend "numba"')
    return numba.njit(draw_band, nogil=True, cache=True)


def loaded() -> bool:
    """Whether the compiled function is there already; loading it takes most of a second, compiling it several."""
    return _compiled.cache_info().currsize > 0


def draw(mesh: ScreenMesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a batch on the CPU.

    Args:
        mesh: The checked mesh.

    Returns:
        Triangle ``(B, H, W)``, weights ``(B, H, W, 3)`` and depth ``(B, H, W)``.

    Raises:
        MissingDependencyError: If numba is not installed.
    """
    kernel = _compiled()
    batch, threads = mesh.vertices.shape[0], torch.get_num_threads()
    size = (batch, mesh.height, mesh.width)
    vertices, triangles = mesh.vertices.numpy(), mesh.triangles.numpy()
    # numpy gets zeros from the system without touching them, so they cost nothing where nothing is drawn.
    out = np.empty(size, np.int64), np.zeros((*size, 3), vertices.dtype), np.empty(size, vertices.dtype)
    culled = _CULLED_SIGN[mesh.cull]
    bands = min(-(-threads // max(batch, 1)), mesh.height)

    def work(task: int) -> None:
        image, band = divmod(task, bands)
        first, last = band * mesh.height // bands, (band + 1) * mesh.height // bands
        kernel(vertices[image], triangles, culled, first, last, *(part[image] for part in out))

    side_by_side(work, batch * bands)
    triangle, barycentric, depth = (torch.from_numpy(part) for part in out)
    return triangle, barycentric, depth
