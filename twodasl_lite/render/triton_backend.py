"""The z-buffer on a GPU: a thread for each small triangle, a block of threads for each large one, compiled by Triton.

Depth and index of a triangle, packed into one integer, race for a pixel in one atomic maximum, as in
:mod:`~twodasl_lite.render.torch_backend`, whose integers these are: nothing is sorted and no list of pixels is made.
Nothing here waits for the GPU: large triangles are put on a list there, and a fixed number of blocks work it off. The
rules are those of :mod:`twodasl_lite.render.rasterizer`.

Triton comes with torch's builds for CUDA. Where it is missing, cannot compile, or does not draw a test scene as the
torch backend does, that one is used instead, with a warning (:func:`usable`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import warnings
from functools import cache

import torch

from twodasl_lite.render.screen import SUBPIXEL_BITS, Cull, ScreenMesh

try:
    import triton
    import triton.language as tl
except ImportError:  # only torch's builds for CUDA bring it
    triton = None

_CULLED_SIGN: dict[Cull, int] = {"back": 1, "front": -1, "none": 0}
"""Sign of the area, with y down, of the triangles that are left out."""
_EMPTY = torch.iinfo(torch.int64).min
_BLOCK = 128
"""Triangles, or pixels of a large one, that a block of threads works on at a time."""
_LARGE = 64
"""Triangles whose bounding box has more pixels than this are drawn by a block of threads together."""
_BLOCKS_FOR_LARGE = 1024

if triton is not None:

    @triton.jit
    def _corners(x, y, z, triangles, base, t, there):
        """Corners of triangles ``t``: in 1/256 pixels as int64, depths in double precision."""
        i = tl.load(triangles + 3 * t, mask=there, other=0) + base
        j = tl.load(triangles + 3 * t + 1, mask=there, other=0) + base
        k = tl.load(triangles + 3 * t + 2, mask=there, other=0) + base
        return (
            tl.load(x + i, mask=there, other=0).to(tl.int64),
            tl.load(x + j, mask=there, other=0).to(tl.int64),
            tl.load(x + k, mask=there, other=0).to(tl.int64),
            tl.load(y + i, mask=there, other=0).to(tl.int64),
            tl.load(y + j, mask=there, other=0).to(tl.int64),
            tl.load(y + k, mask=there, other=0).to(tl.int64),
            tl.load(z + i, mask=there, other=0).to(tl.float64),
            tl.load(z + j, mask=there, other=0).to(tl.float64),
            tl.load(z + k, mask=there, other=0).to(tl.float64),
        )

    @triton.jit
    def _box(x0, x1, x2, y0, y1, y2, height, width, BITS: tl.constexpr):
        """First and last column and row whose pixel centres a triangle's bounding box holds, within the picture."""
        up: tl.constexpr = (1 << BITS) - 1
        left = tl.maximum((tl.minimum(x0, tl.minimum(x1, x2)) + up) >> BITS, 0)
        right = tl.minimum(tl.maximum(x0, tl.maximum(x1, x2)) >> BITS, width - 1)
        top = tl.maximum((tl.minimum(y0, tl.minimum(y1, y2)) + up) >> BITS, 0)
        bottom = tl.minimum(tl.maximum(y0, tl.maximum(y1, y2)) >> BITS, height - 1)
        return left, right, top, bottom

    @triton.jit
    def _exclusive(right, down):
        """1 for edges that are not inside themselves: all but left ones and horizontal ones at the top."""
        return tl.where((right > 0) | ((right == 0) & (down > 0)), 0, 1).to(tl.int64)

    @triton.jit
    def _key(depth, t):
        """Depth and index in one integer: the nearest is largest, of equals the one with the lowest index."""
        depth = tl.where(depth == 0.0, 0.0, depth)  # -0 is 0
        bits = depth.to(tl.int32, bitcast=True)
        ordered = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)
        return (ordered << 32) + (4294967295 - t)

    @triton.jit
    def draw_small(
        x,
        y,
        z,
        triangles,
        nearest,
        large,
        num_large,
        num_vertices,
        num_triangles,
        height,
        width,
        CULLED: tl.constexpr,
        LARGE: tl.constexpr,
        BITS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Draw the small triangles of a block, each in a thread; put the others on the list."""
        step: tl.constexpr = 1 << BITS
        image = tl.program_id(1).to(tl.int64)
        t = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        there = t < num_triangles
        x0, x1, x2, y0, y1, y2, z0, z1, z2 = _corners(x, y, z, triangles, image * num_vertices, t, there)
        left, right, top, bottom = _box(x0, x1, x2, y0, y1, y2, height, width, BITS)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        drawn = there & (left <= right) & (top <= bottom) & (area * CULLED <= 0) & (area != 0)
        size = tl.where(drawn, (right - left + 1) * (bottom - top + 1), 0)
        is_large = size > LARGE
        slot = tl.atomic_add(num_large + tl.zeros_like(t), 1, mask=is_large, sem="relaxed")
        tl.store(large + slot, image * num_triangles + t, mask=is_large)
        size = tl.where(is_large, 0, size)

        turn = tl.where(area > 0, 1, -1).to(tl.int64)
        right0, right1, right2 = turn * (y1 - y2), turn * (y2 - y0), turn * (y0 - y1)
        down0, down1, down2 = turn * (x2 - x1), turn * (x0 - x2), turn * (x1 - x0)
        scale = 1.0 / tl.where(drawn, turn * area, 1).to(tl.float64)
        slope0, slope1, slope2 = z0 * scale, z1 * scale, z2 * scale
        least0, least1, least2 = _exclusive(right0, down0), _exclusive(right1, down1), _exclusive(right2, down2)
        column, row = left, top
        first = image * height * width
        for n in range(tl.max(size, axis=0)):
            px, py = column * step, row * step
            e0 = right0 * (px - x1) + down0 * (py - y1)
            e1 = right1 * (px - x2) + down1 * (py - y2)
            e2 = right2 * (px - x0) + down2 * (py - y0)
            inside = (n < size) & (e0 >= least0) & (e1 >= least1) & (e2 >= least2)
            depth = (e0.to(tl.float64) * slope0 + e1.to(tl.float64) * slope1 + e2.to(tl.float64) * slope2).to(
                tl.float32
            )
            tl.atomic_max(nearest + (first + row * width + column), _key(depth, t), mask=inside, sem="relaxed")
            end = column == right
            column = tl.where(end, left, column + 1)
            row = tl.where(end, row + 1, row)

    @triton.jit
    def draw_large(
        x,
        y,
        z,
        triangles,
        nearest,
        large,
        num_large,
        num_vertices,
        num_triangles,
        height,
        width,
        BITS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Draw the triangles on the list, each by a block of threads, one after the other."""
        step: tl.constexpr = 1 << BITS
        lanes = tl.arange(0, BLOCK).to(tl.int64)
        for n in range(tl.program_id(0), tl.load(num_large), tl.num_programs(0)):
            pair = tl.load(large + n)
            image = pair // num_triangles
            t = pair - image * num_triangles
            x0, x1, x2, y0, y1, y2, z0, z1, z2 = _corners(x, y, z, triangles, image * num_vertices, t, t >= 0)
            left, right, top, bottom = _box(x0, x1, x2, y0, y1, y2, height, width, BITS)
            area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
            turn = tl.where(area > 0, 1, -1).to(tl.int64)
            right0, right1, right2 = turn * (y1 - y2), turn * (y2 - y0), turn * (y0 - y1)
            down0, down1, down2 = turn * (x2 - x1), turn * (x0 - x2), turn * (x1 - x0)
            scale = 1.0 / (turn * area).to(tl.float64)
            slope0, slope1, slope2 = z0 * scale, z1 * scale, z2 * scale
            least0, least1, least2 = _exclusive(right0, down0), _exclusive(right1, down1), _exclusive(right2, down2)
            first = image * height * width
            columns = right - left + 1
            size = columns * (bottom - top + 1)
            for start in range(0, size, BLOCK):
                place = start + lanes
                down = place // columns
                row, column = top + down, left + place - down * columns
                px, py = column * step, row * step
                e0 = right0 * (px - x1) + down0 * (py - y1)
                e1 = right1 * (px - x2) + down1 * (py - y2)
                e2 = right2 * (px - x0) + down2 * (py - y0)
                inside = (place < size) & (e0 >= least0) & (e1 >= least1) & (e2 >= least2)
                depth = (e0.to(tl.float64) * slope0 + e1.to(tl.float64) * slope1 + e2.to(tl.float64) * slope2).to(
                    tl.float32
                )
                tl.atomic_max(nearest + (first + row * width + column), _key(depth, t), mask=inside, sem="relaxed")

    @triton.jit
    def read_off(
        x,
        y,
        z,
        triangles,
        nearest,
        triangle,
        barycentric,
        depth,
        num_vertices,
        num_pixels,
        height,
        width,
        BITS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """Triangle, weights and depth of what has won each pixel."""
        step: tl.constexpr = 1 << BITS
        pixel = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        there = pixel < num_pixels
        key = tl.load(nearest + pixel, mask=there, other=0)
        seen = there & (key != -9223372036854775808)
        t = tl.where(seen, 4294967295 - (key & 4294967295), 0)
        line = pixel // width
        image = line // height
        px, py = (pixel - line * width) * step, (line - image * height) * step
        x0, x1, x2, y0, y1, y2, _z0, _z1, _z2 = _corners(x, y, z, triangles, image * num_vertices, t, seen)
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        turn = tl.where(area > 0, 1, -1).to(tl.int64)
        scale = 1.0 / tl.where(seen, turn * area, 1).to(tl.float64)
        e0 = turn * ((x2 - x1) * (py - y1) - (y2 - y1) * (px - x1))
        e1 = turn * ((x0 - x2) * (py - y2) - (y0 - y2) * (px - x2))
        e2 = turn * ((x1 - x0) * (py - y0) - (y1 - y0) * (px - x0))
        tl.store(triangle + pixel, tl.where(seen, t, -1), mask=there)
        tl.store(barycentric + 3 * pixel, tl.where(seen, e0.to(tl.float64) * scale, 0.0), mask=there)
        tl.store(barycentric + 3 * pixel + 1, tl.where(seen, e1.to(tl.float64) * scale, 0.0), mask=there)
        tl.store(barycentric + 3 * pixel + 2, tl.where(seen, e2.to(tl.float64) * scale, 0.0), mask=there)
        bits = (key >> 32).to(tl.int32)
        value = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
        tl.store(depth + pixel, tl.where(seen, value, float("-inf")), mask=there)


def available() -> bool:
    """Whether Triton is installed; whether it works on a device is another question (:func:`usable`)."""
    return importlib.util.find_spec("triton") is not None and triton is not None


def interpreted() -> bool:
    """Whether Triton only imitates a GPU on the CPU, slowly (``TRITON_INTERPRET=1``), as a test may want it."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


@cache
def usable(device: torch.device) -> bool:
    """Whether this backend draws on a device; tried once, on a test scene that the torch backend draws too.

    Warns:
        RuntimeWarning: If Triton cannot compile the kernels or they draw something else; drawing then takes the torch
            backend, which is several times slower.
    """
    if device.type != "cuda":
        return False
    if not available():
        _warn("Triton is not installed")
        return False
    try:
        wrong = _disagreement(device)
    except Exception as error:  # whatever a compiler may raise
        _warn(f"{type(error).__name__}: {error}")
        return False
    if wrong:
        _warn(f"it drew a test scene wrongly: {wrong}")
    return not wrong


def _warn(reason: str) -> None:
    warnings.warn(
        f"the rasterizer for GPUs cannot be used here ({reason}); drawing with the torch backend, several times slower",
        RuntimeWarning,
        stacklevel=4,
    )


def _disagreement(device: torch.device) -> str:
    """What differs from the torch backend on a scene of small and large triangles; nothing if all is well."""
    from twodasl_lite.render import torch_backend

    generator = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(3, 400, 1, 3, generator=generator) - 5 + torch.randn(3, 400, 3, 3, generator=generator)
    corners[:, ::20] = 90 * torch.rand(3, 20, 3, 3, generator=generator) - 20
    corners[:, 1::3] = (corners[:, 1::3] * 2).round() / 2  # edges through pixel centres
    vertices = corners.reshape(3, -1, 3).to(device)
    triangles = torch.arange(1200, device=device).reshape(-1, 3)
    mesh = ScreenMesh(vertices, triangles, 41, 50, "none")
    mine, its = draw(mesh), torch_backend.draw(mesh)
    same = (mine[0] == its[0]).float().mean().item()
    if same < 0.999:
        return f"{100 * same:.2f} % of the pixels show the same triangle"
    off = (mine[0] == its[0])[..., None] & ~torch.isclose(mine[1], its[1], atol=1e-4)
    depth = (mine[0] == its[0]) & ~torch.isclose(mine[2], its[2], rtol=1e-4, atol=1e-4)
    return "weights or depths differ" if bool(off.any() | depth.any()) else ""


def draw(mesh: ScreenMesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a batch on the GPU of its vertices, without waiting for it.

    Args:
        mesh: What :func:`twodasl_lite.render.rasterize` checked. Whatever the coordinates, nothing outside the picture
            is written.

    Returns:
        Triangle ``(B, H, W)``, weights ``(B, H, W, 3)`` and depth ``(B, H, W)``.
    """
    vertices, triangles, height, width, cull = mesh
    batch, num_vertices = vertices.shape[:2]
    device, shape, total = vertices.device, (batch, height, width), len(triangles)
    nearest = torch.full(shape, _EMPTY, dtype=torch.int64, device=device)
    triangle = torch.empty(shape, dtype=torch.int64, device=device)
    barycentric = torch.empty((*shape, 3), dtype=vertices.dtype, device=device)
    depth = torch.empty(shape, dtype=vertices.dtype, device=device)
    if not nearest.numel():
        return triangle, barycentric, depth
    x, y, z = vertices.permute(2, 0, 1).contiguous()
    x, y = ((part * 2**SUBPIXEL_BITS).round_().int() for part in (x, y))
    z = z.float()
    if total and num_vertices:
        large = torch.empty(batch * total, dtype=torch.int64, device=device)
        num_large = torch.zeros(1, dtype=torch.int32, device=device)
        scene = (x, y, z, triangles, nearest, large, num_large, num_vertices, total, height, width)
        # A grid's second side ends at 65,535; longer batches are nobody's, but cost nothing to allow.
        if batch > 65_535:
            halves = (draw(mesh._replace(vertices=half)) for half in vertices.tensor_split(2))
            first, second, third = (torch.cat(parts) for parts in zip(*halves, strict=True))
            return first, second, third
        with _on(device):
            draw_small[(-(-total // _BLOCK), batch)](
                *scene, CULLED=_CULLED_SIGN[cull], LARGE=_LARGE, BITS=SUBPIXEL_BITS, BLOCK=_BLOCK
            )
            draw_large[(_BLOCKS_FOR_LARGE if device.type == "cuda" else 2,)](*scene, BITS=SUBPIXEL_BITS, BLOCK=_BLOCK)
    pixels = nearest.numel()
    with _on(device):
        read_off[(-(-pixels // _BLOCK),)](
            *(x, y, z, triangles, nearest, triangle, barycentric, depth, num_vertices, pixels, height, width),
            BITS=SUBPIXEL_BITS,
            BLOCK=_BLOCK,
        )
    return triangle, barycentric, depth


def _on(device: torch.device):
    """Triton launches on torch's current device; make it the tensors' own."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
