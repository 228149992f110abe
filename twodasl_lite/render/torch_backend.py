"""The z-buffer in torch operations: no loop over triangles, pixels or images, on the CPU and on the GPU.

Two expansions turn a list of triangles into a list of pixels: each triangle is repeated once for every row of its
bounding box, then each row once for every pixel between the edges. Depth and index of each are packed into one integer,
and a single scatter-maximum picks the winner at every pixel. The work is cut into pieces of bounded memory, however
large a triangle is. The rules are those of :mod:`twodasl_lite.render.rasterizer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch

from twodasl_lite.render.screen import SUBPIXEL_BITS, ScreenMesh
from twodasl_lite.render.threads import side_by_side

_PIECE = {"cpu": 2**16, "cuda": 2**23}
"""Number of triangles, rows or pixels that are processed at a time; on a CPU, as many as stay in its caches."""

_STEP = 1 << SUBPIXEL_BITS
_EMPTY = torch.iinfo(torch.int64).min
_LAST_INDEX = 2**32 - 1
_TINY, _HUGE = 2.0**-20, 2.0**80  # no column lies beyond 1 / _TINY, no quotient by _TINY beyond _HUGE


class _Corners(NamedTuple):
    """Corners in fixed point, coordinate by coordinate."""

    x: torch.Tensor  # (B, V) int32 in 1/256 pixels
    y: torch.Tensor  # (B, V) int32 in 1/256 pixels
    z: torch.Tensor  # (B, V) float32

    @classmethod
    def of(cls, vertices: torch.Tensor) -> _Corners:
        x, y, z = vertices.permute(2, 0, 1).contiguous()
        x, y = ((part * _STEP).round_().int() for part in (x, y))
        return cls(x, y, z.float())


class _Edges(NamedTuple):
    """The three edge functions of N triangles: ``E(column, row) = right * column + down * row + start``.

    Each is an integer, held in double precision: positive inside, zero on the edge opposite its corner. The three add
    up to twice the area.
    """

    right: torch.Tensor  # (3, N)
    down: torch.Tensor  # (3, N)
    start: torch.Tensor  # (3, N)
    area: torch.Tensor  # (N,)

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor) -> _Edges:
        """From corners ``(3, N)`` in 1/256 pixels."""
        x, y = (torch.cat([part, part[:2]]).double() for part in (x, y))  # (5, N), the first two corners repeated
        x1, x2, y1, y2 = (
            x[1:4],
            x[2:5],
            y[1:4],
            y[2:5],
        )  # corners k + 1 and k + 2: the ends of the edge opposite k
        right, down, start = y1 - y2, x2 - x1, x1 * y2 - x2 * y1
        area = start.sum(dim=0)
        turn = area.sign()  # positive inside, whatever the orientation of the corners
        return cls(right * (turn * _STEP), down * (turn * _STEP), start * turn, area * turn)

    def exclusive(self) -> torch.Tensor:
        """``(3, N)``: 0 for left edges and horizontal top edges, which belong to the triangle; 1 for others."""
        return 1.0 - ((self.right > 0) | ((self.right == 0) & (self.down > 0))).double()


class _Triangles(NamedTuple):
    """N triangles that may be visible."""

    image: torch.Tensor  # (N,)
    number: torch.Tensor  # (N,)
    left: torch.Tensor  # (N,) first column of the bounding box
    right: torch.Tensor  # (N,) its last
    top: torch.Tensor  # (N,)
    rows: torch.Tensor  # (N,) height of the box in pixels
    edges: _Edges
    slope: torch.Tensor  # (3, N) depth per unit of each edge function


class _Spans(NamedTuple):
    """M rows of pixels, each within one triangle."""

    pixels: torch.Tensor  # (M,) number of pixels
    first: torch.Tensor  # (M,) position of the first pixel in the whole batch
    depth: torch.Tensor  # (M,) depth of the first pixel
    slope: torch.Tensor  # (M,) depth gained per pixel
    number: torch.Tensor  # (M,) index of the triangle


def _pieces(mesh: ScreenMesh, piece: int) -> Iterator[tuple[slice, slice]]:
    """Blocks (images, triangles) of at most ``piece`` pairs that cover the batch."""
    batch, total = mesh.vertices.shape[0], mesh.triangles.shape[0]
    images = max(1, piece // max(total, 1))
    for image in range(0, batch, images):
        for triangle in range(0, total, piece):
            yield slice(image, min(image + images, batch)), slice(triangle, triangle + piece)


def _select(mesh: ScreenMesh, corners: _Corners, images: slice, triangles: slice) -> _Triangles:
    """Triangles that face the right way and whose bounding box holds a pixel centre."""
    vertex = mesh.triangles[triangles].T.reshape(-1)  # (3 T')
    count = len(vertex) // 3
    x, y = (part[images].index_select(1, vertex).reshape(-1, 3, count) for part in (corners.x, corners.y))
    left, right = (
        ((x.amin(1) + (_STEP - 1)) >> SUBPIXEL_BITS).clamp_(min=0),
        x.amax(1) >> SUBPIXEL_BITS,
    )  # (B', T')
    top, bottom = ((y.amin(1) + (_STEP - 1)) >> SUBPIXEL_BITS).clamp_(min=0), y.amax(1) >> SUBPIXEL_BITS
    right.clamp_(max=mesh.width - 1)
    rows = bottom.clamp_(max=mesh.height - 1).sub_(top).add_(1)
    u, v = ((part[:, 1:] - part[:, :1]).double() for part in (x, y))  # (B', 2, T') the edges at corner 0
    area = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]  # negative: counter-clockwise, as y points down
    facing = {"back": area < 0, "front": area > 0, "none": area != 0}[mesh.cull]
    kept = (facing & (right >= left) & (rows > 0)).reshape(-1).nonzero()[:, 0]  # (N,)

    image = torch.div(kept, count, rounding_mode="floor")
    index = kept - image * count
    image, index = image + images.start, index + triangles.start
    edges, z = _edges_of(mesh, corners, image, index)
    slope = z.double() * (1 / edges.area)
    left, right, top, rows = (part.reshape(-1).index_select(0, kept) for part in (left, right, top, rows))
    return _Triangles(image, index, left, right, top, rows, edges, slope)


def _edges_of(
    mesh: ScreenMesh, corners: _Corners, image: torch.Tensor, index: torch.Tensor
) -> tuple[_Edges, torch.Tensor]:
    """Edge functions and depths ``(3, N)`` of the corners of given triangles."""
    vertex = mesh.triangles.index_select(0, index).T + image * mesh.vertices.shape[1]  # (3, N)
    flat = vertex.reshape(-1)
    x, y, z = (part.reshape(-1).index_select(0, flat).reshape(3, -1) for part in corners)
    return _Edges.of(x, y), z


def _expand(counts: torch.Tensor, piece: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Repeat entry n ``counts[n]`` times, in lists of at most ``piece``.

    Yields:
        ``(M,)`` index of the entry, and ``(M,)`` number of the repetition. An entry may continue in the next list.
    """
    ends = counts.cumsum(0)
    starts = ends - counts
    total = int(ends[-1]) if len(ends) else 0
    for low in range(0, total, piece):
        high = min(low + piece, total)
        part = counts if total <= piece else ends.clamp(low, high) - starts.clamp(low, high)
        which = torch.repeat_interleave(part, output_size=high - low)
        yield which, torch.arange(low, high, device=ends.device) - starts.index_select(0, which)


def _spans(mesh: ScreenMesh, seen: _Triangles, which: torch.Tensor, number: torch.Tensor) -> _Spans:
    """Cut rows of bounding boxes down to what lies between the edges.

    Args:
        mesh: The mesh to draw.
        seen: The triangles.
        which: ``(M,)`` triangle that each row belongs to.
        number: ``(M,)`` number of the row, from the top of its box.
    """
    right, down, start, slope, exclusive = (
        part.gather(1, which.expand(3, -1))
        for part in (seen.edges.right, seen.edges.down, seen.edges.start, seen.slope, seen.edges.exclusive())
    )  # (3, M)
    row = number + seen.top.index_select(0, which)
    value = down.mul_(row).add_(start)  # edge functions at column 0
    # A pixel is inside if E > exclusive - 1/2, half way between integers; this many columns from the left it becomes so
    # (or ceases to: the sign of `right` tells which). The quotient of two integers below 2 ** 53 is rounded to the
    # right side of every integer. Along horizontal edges, where E never changes, the change is far away.
    crossing = (exclusive - 0.5 - value) / (right + (right == 0) * _TINY)
    side = torch.full_like(right, _HUGE).copysign_(right + 0.0)  # adding zero turns -0 into 0
    first = (crossing.ceil() + side.clamp(max=0)).amax(0).maximum(seen.left.index_select(0, which))
    last = (crossing.floor_() + side.clamp_(min=0)).amin(0).minimum(seen.right.index_select(0, which))
    value = right.mul(first).add_(value)  # edge functions at the first pixel
    image = seen.image.index_select(0, which)
    return _Spans(
        (last - first + 1).clamp_(min=0).long(),
        (image * mesh.height + row) * mesh.width + first.clamp_(max=mesh.width).long(),
        _dot(value, slope),
        _dot(right, slope),
        seen.number.index_select(0, which),
    )


def _dot(values: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Depth from edge functions; the order of operations is part of what the backends agree on."""
    return values[0] * slope[0] + values[1] * slope[1] + values[2] * slope[2]


def _compete(spans: _Spans, which: torch.Tensor, number: torch.Tensor, nearest: torch.Tensor) -> None:
    """Let pixels ``number`` of the spans ``which``, both ``(P,)``, compete with what was drawn before."""
    first, depth, slope, index = (part.index_select(0, which) for part in spans[1:])
    depth = (depth + slope.mul_(number)).float()
    # Among equal depths the lowest index must win, so indices are stored counting down.
    nearest.scatter_reduce_(0, first.add_(number), (_sortable(depth) << 32).add_(_LAST_INDEX).sub_(index), "amax")


def _sortable(depth: torch.Tensor) -> torch.Tensor:
    """Single-precision numbers as int64 from -2^31 to 2^31 in the same order."""
    bits = (depth + 0.0).view(torch.int32)  # adding zero turns -0 into 0
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


def _resolve(
    mesh: ScreenMesh, corners: _Corners, pixels: torch.Tensor, key: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Triangle ``(P,)``, weights ``(P, 3)`` and depth ``(P,)`` of the winners ``key`` of the given pixels."""
    index = _LAST_INDEX - (key & _LAST_INDEX)
    line = torch.div(pixels, mesh.width, rounding_mode="floor")
    image = torch.div(line, mesh.height, rounding_mode="floor")
    column, row = pixels - line * mesh.width, line - image * mesh.height
    edges, _ = _edges_of(mesh, corners, image, index)
    weights = (edges.right * column + edges.down * row + edges.start) * (1 / edges.area)  # (3, P)
    bits = (key >> 32).int()
    depth = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)  # _sortable, undone
    return index, weights.T.to(mesh.vertices.dtype), depth.to(mesh.vertices.dtype)


def _draw_images(mesh: ScreenMesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Triangle ``(B H W,)``, weights ``(B H W, 3)`` and depth ``(B H W,)``."""
    device, corners = mesh.vertices.device, _Corners.of(mesh.vertices)
    piece = _PIECE.get(device.type, _PIECE["cuda"])
    nearest = torch.full((mesh.vertices.shape[0] * mesh.height * mesh.width,), _EMPTY, device=device)
    for images, triangles in _pieces(mesh, piece):
        seen = _select(mesh, corners, images, triangles)
        for which, number in _expand(seen.rows.long(), piece):
            spans = _spans(mesh, seen, which, number)
            for span, offset in _expand(spans.pixels, piece):
                _compete(spans, span, offset, nearest)

    triangle = torch.full_like(nearest, -1)
    barycentric = mesh.vertices.new_zeros(len(nearest), 3)
    depth = mesh.vertices.new_full((len(nearest),), -torch.inf)
    for pixels in (nearest != _EMPTY).nonzero()[:, 0].split(piece):
        winners = _resolve(mesh, corners, pixels, nearest.index_select(0, pixels))
        for out, values in zip((triangle, barycentric, depth), winners, strict=True):
            out.index_copy_(0, pixels, values)
    return triangle, barycentric, depth


def draw(mesh: ScreenMesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a batch on the device of its vertices; on a CPU, a share of the images in each thread.

    Args:
        mesh: Mesh checked by :func:`twodasl_lite.render.rasterize`.

    Returns:
        Triangle ``(B, H, W)``, weights ``(B, H, W, 3)`` and depth ``(B, H, W)``.
    """
    shape = (mesh.vertices.shape[0], mesh.height, mesh.width)
    if mesh.vertices.device.type != "cpu" or not shape[0]:
        triangle, barycentric, depth = _draw_images(mesh)
        return triangle.reshape(shape), barycentric.reshape(*shape, 3), depth.reshape(shape)
    shares = mesh.vertices.tensor_split(min(torch.get_num_threads(), shape[0]))
    drawn: list[tuple[torch.Tensor, ...]] = [()] * len(shares)

    def work(share: int) -> None:
        drawn[share] = _draw_images(mesh._replace(vertices=shares[share]))

    side_by_side(work, len(shares))
    triangle, barycentric, depth = (torch.cat(parts) for parts in zip(*drawn, strict=True))
    return triangle.reshape(shape), barycentric.reshape(*shape, 3), depth.reshape(shape)
