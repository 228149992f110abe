"""The z-buffer in torch operations: no loop over triangles, pixels or images, on the CPU and on the GPU.

Each triangle's bounding box is expanded into a flat list of (triangle, pixel) candidates; edge functions sort out those
inside; the survivors' depth and index, packed into one integer, race for their pixel in a single scatter-maximum. Work
is cut into pieces of bounded memory. The rules are those of :mod:`twodasl_lite.render.rasterizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from twodasl_lite.render.rasterizer import SUBPIXEL_BITS, ScreenMesh

_PIECE = {"cpu": 2**17, "cuda": 2**23}
"""Triangles, or candidates, that are worked on at a time: on a CPU what stays in its caches."""

_EMPTY = torch.iinfo(torch.int64).min
_LAST_INDEX = 2**32 - 1


class _Screen(NamedTuple):
    """Corners in fixed point, coordinate by coordinate."""

    x: torch.Tensor  # (B, V) int32 in 1/256 pixels
    y: torch.Tensor  # (B, V) likewise
    z: torch.Tensor  # (B, V) float32

    @classmethod
    def of(cls, vertices: torch.Tensor) -> _Screen:
        x, y, z = vertices.permute(2, 0, 1).contiguous()
        x, y = ((part * 2**SUBPIXEL_BITS).round_().int() for part in (x, y))
        return cls(x, y, z.float())


class _Edges(NamedTuple):
    """The three edge functions of N triangles: ``E(column, row) = right * column + down * row + start``.

    Each is an integer held in double precision, positive inside, zero on the edge opposite its corner; the three add up
    to twice the area.
    """

    right: torch.Tensor  # (3, N)
    down: torch.Tensor  # (3, N)
    start: torch.Tensor  # (3, N)
    excluded: torch.Tensor  # (3, N) 1 where the edge itself is outside, 0 where it is inside
    area: torch.Tensor  # (N,)

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor) -> _Edges:
        """From corners ``(3, N)`` in 1/256 pixels."""
        x, y = x.double(), y.double()
        next_x, last_x = x.roll(-1, 0), x.roll(-2, 0)  # corners k + 1 and k + 2: the ends of the edge opposite corner k
        next_y, last_y = y.roll(-1, 0), y.roll(-2, 0)
        down, right, start = last_x - next_x, next_y - last_y, next_x * last_y - last_x * next_y
        area = start.sum(dim=0)
        turn = torch.where(area < 0, -1.0, 1.0).to(x)  # positive inside, whichever way the corners run
        down, right, start = down * turn, right * turn, start * turn
        inclusive = (right > 0) | ((right == 0) & (down > 0))  # left edges, and horizontal ones at the top
        step = 2**SUBPIXEL_BITS
        return cls(right * step, down * step, start, 1.0 - inclusive.to(x), area * turn)

    def at(self, column: torch.Tensor, row: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
        """Edge functions ``(3, M)`` of the triangles ``which (M,)`` at pixels ``(M,)``."""
        right, down, start = (part.index_select(1, which) for part in (self.right, self.down, self.start))
        return right.mul_(column).add_(down.mul_(row)).add_(start)


class _Batch(NamedTuple):
    """Triangles of one piece that may be seen."""

    image: torch.Tensor  # (N,)
    triangle: torch.Tensor  # (N,)
    x: torch.Tensor  # (3, N) corners in 1/256 pixels
    y: torch.Tensor  # (3, N)
    z: torch.Tensor  # (3, N)
    left: torch.Tensor  # (N,) first column of the box
    top: torch.Tensor  # (N,)
    columns: torch.Tensor  # (N,) width of the box in pixels
    rows: torch.Tensor  # (N,)


def _pieces(mesh: ScreenMesh, piece: int) -> Iterator[tuple[slice, slice]]:
    """Blocks (images, triangles) of at most ``piece`` pairs that cover the batch."""
    batch, total = mesh.vertices.shape[0], mesh.triangles.shape[0]
    images = max(1, piece // max(total, 1))
    for image in range(0, batch, images):
        for triangle in range(0, total, piece):
            yield slice(image, min(image + images, batch)), slice(triangle, triangle + piece)


def _candidates(mesh: ScreenMesh, screen: _Screen, images: slice, triangles: slice) -> _Batch:
    """Triangles that face the right way and whose bounding box holds a pixel centre."""
    corners = mesh.triangles[triangles]  # (T', 3)
    x, y = (
        torch.stack([part[images].index_select(1, corners[:, k]) for k in range(3)]) for part in (screen.x, screen.y)
    )  # (3, B', T')
    up = (1 << SUBPIXEL_BITS) - 1
    left, right = ((x.amin(0) + up) >> SUBPIXEL_BITS).clamp_(min=0), (x.amax(0) >> SUBPIXEL_BITS)
    top, bottom = ((y.amin(0) + up) >> SUBPIXEL_BITS).clamp_(min=0), (y.amax(0) >> SUBPIXEL_BITS)
    columns = right.clamp_(max=mesh.width - 1).sub_(left).add_(1)
    rows = bottom.clamp_(max=mesh.height - 1).sub_(top).add_(1)
    u, v = ((part[1:] - part[0]).double() for part in (x, y))  # (2, B', T')
    area = u[0] * v[1] - u[1] * v[0]  # negative: counter-clockwise, as y points down
    facing = {"back": area < 0, "front": area > 0, "none": area != 0}[mesh.cull]
    kept = (facing & (columns > 0) & (rows > 0)).reshape(-1).nonzero()[:, 0]  # (N,)

    image = torch.div(kept, corners.shape[0], rounding_mode="floor")
    triangle = kept - image * corners.shape[0]
    image = image + images.start
    vertex = corners.index_select(0, triangle).T + image * mesh.vertices.shape[1]  # (3, N)
    z = screen.z.reshape(-1).index_select(0, vertex.reshape(-1)).reshape(3, -1)
    x, y = (part.reshape(3, -1).index_select(1, kept) for part in (x, y))
    box = [part.reshape(-1).index_select(0, kept) for part in (left, top, columns, rows)]
    return _Batch(image, triangle + triangles.start, x, y, z, *box)


def _windows(batch: _Batch, piece: int) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Lists of at most ``piece`` candidates: which triangle ``(M,)``, column ``(M,)`` and row ``(M,)``.

    A triangle whose box is larger than a piece is continued in the next.
    """
    counts = batch.columns.long() * batch.rows  # (N,)
    ends = counts.cumsum(0)
    starts = ends - counts
    total = int(ends[-1]) if len(ends) else 0
    for low in range(0, total, piece):
        high = min(low + piece, total)
        inside = ends.clamp(low, high) - starts.clamp(low, high)  # (N,) how many of the window belong to each
        which = torch.repeat_interleave(inside, output_size=high - low)  # (M,)
        number = torch.arange(low, high, device=ends.device) - starts.index_select(0, which)
        columns = batch.columns.index_select(0, which)
        row = torch.div(number.int(), columns, rounding_mode="trunc")
        column = number.int() - row * columns
        yield which, column + batch.left.index_select(0, which), row + batch.top.index_select(0, which)


def _sortable(depth: torch.Tensor) -> torch.Tensor:
    """Single-precision numbers as int64 between -2^31 and 2^31 in the same order."""
    bits = (depth + 0.0).view(torch.int32)  # adding zero turns -0 into 0
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()


def _draw_window(
    mesh: ScreenMesh,
    batch: _Batch,
    edges: _Edges,
    slope: torch.Tensor,
    window: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    nearest: torch.Tensor,
) -> None:
    """Let the candidates of a window compete for their pixels."""
    which, column, row = window
    values = edges.at(column, row, which)  # (3, M)
    inside = (values >= edges.excluded.index_select(1, which)).all(dim=0).nonzero()[:, 0]
    which, column, row = (part.index_select(0, inside) for part in (which, column, row))
    depth = _depth(values.index_select(1, inside), slope.index_select(1, which))
    index = _LAST_INDEX - batch.triangle.index_select(0, which)  # of equal depths, the lowest index shall win
    image = batch.image.index_select(0, which)
    pixel = (image * mesh.height + row) * mesh.width + column
    nearest.scatter_reduce_(0, pixel, (_sortable(depth.float()) << 32) + index, "amax")


def _depth(values: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Depth from edge functions; the order of operations is part of what the backends agree on."""
    return values[0] * slope[0] + values[1] * slope[1] + values[2] * slope[2]


def _resolve(mesh: ScreenMesh, screen: _Screen, nearest: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights and depths of the winners."""
    batch, dtype = mesh.vertices.shape[0], mesh.vertices.dtype
    pixels = (nearest != _EMPTY).nonzero()[:, 0]  # (P,)
    winner = _LAST_INDEX - (nearest.index_select(0, pixels) & _LAST_INDEX)
    image, column = pixels // (mesh.height * mesh.width), pixels % mesh.width
    row = pixels // mesh.width % mesh.height
    vertex = mesh.triangles.index_select(0, winner).T + image * mesh.vertices.shape[1]  # (3, P)
    x, y, z = (part.reshape(-1).index_select(0, vertex.reshape(-1)).reshape(3, -1) for part in screen)
    edges = _Edges.of(x, y)
    values = edges.right * column + edges.down * row + edges.start  # (3, P)
    scale = 1 / edges.area

    triangle = torch.full_like(nearest, -1)
    triangle[pixels] = winner
    barycentric = torch.zeros(len(nearest), 3, dtype=dtype, device=nearest.device)
    barycentric[pixels] = (values * scale).T.to(dtype)
    depth = torch.full((len(nearest),), -torch.inf, dtype=dtype, device=nearest.device)
    depth[pixels] = _depth(values, z.double() * scale).to(dtype)
    size = (batch, mesh.height, mesh.width)
    return triangle.reshape(size), barycentric.reshape(*size, 3), depth.reshape(size)


def draw(mesh: ScreenMesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a batch.

    Args:
        mesh: Checked and rounded.

    Returns:
        Triangle ``(B, H, W)``, weights ``(B, H, W, 3)`` and depth ``(B, H, W)``.
    """
    device, screen = mesh.vertices.device, _Screen.of(mesh.vertices)
    piece = _PIECE.get(device.type, _PIECE["cuda"])
    nearest = torch.full((mesh.vertices.shape[0] * mesh.height * mesh.width,), _EMPTY, device=device)
    for images, triangles in _pieces(mesh, piece):
        batch = _candidates(mesh, screen, images, triangles)
        edges = _Edges.of(batch.x, batch.y)
        slope = batch.z.double() * (1 / edges.area)  # (3, N) depth per unit of each edge function
        for window in _windows(batch, piece):
            _draw_window(mesh, batch, edges, slope, window, nearest)
    return _resolve(mesh, screen, nearest)
