"""Which triangle does each pixel show? One interface, and three backends that agree to the pixel.

Frame: pixels as everywhere in this package: 0-based, pixel centres at integers, x right, y down, z towards the viewer,
so that the larger depth is nearer. A triangle whose corners run counter-clockwise seen from outside (model frame, y up)
faces the viewer if they also run counter-clockwise on the screen.

The rules that make pictures repeatable, whichever backend draws them:

* Corners are rounded to 1/256 of a pixel. Edge functions are then integers, computed without rounding, and triangles
  that share an edge leave neither gaps nor pixels drawn twice.
* A pixel whose centre lies exactly on an edge belongs to the triangle for which this is a top or a left edge. A
  triangle without area covers nothing.
* The largest depth wins; depths are compared in single precision. Among equal depths, the lowest triangle index wins.

The method is the z-buffer (Catmull 1974) with edge functions (Pineda 1988). See chapter 6.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import NamedTuple, cast, get_args

import torch

from twodasl_lite.base.checks import check_choice, check_count, check_finite, check_indices, check_shape, check_tensor
from twodasl_lite.base.errors import InputTypeError, MissingDependencyError, ShapeError, ValueRangeError
from twodasl_lite.render.screen import Backend, Cull, ScreenMesh

MAX_COORDINATE = 2**15
"""Largest magnitude of x and y of a vertex, and largest side of a picture, in pixels. Edge functions then stay below
2 ** 49 and are exact integers in double precision too."""

_TORCH_SECONDS = 4e-7, 4e-8  # that torch takes on a CPU, for each triangle and for each pixel
_NUMBA_SECONDS = 0.7  # that loading numba and the compiled function takes
_drawn_by_torch = 0.0  # seconds so far, roughly, in this process, while there was a choice


class Fragments(NamedTuple):
    """What each pixel of a batch of pictures shows.

    Attributes:
        triangle: ``(B, H, W)`` int64 index of the visible triangle, -1 where there is none.
        barycentric: ``(B, H, W, 3)`` weights of its three corners, non-negative, adding up to 1; 0 where there is none.
        depth: ``(B, H, W)`` z of the surface, rounded to single precision; minus infinity where there is none.
    """

    triangle: torch.Tensor
    barycentric: torch.Tensor
    depth: torch.Tensor

    @property
    def covered(self) -> torch.Tensor:
        """``(B, H, W)`` booleans: where there is a triangle."""
        return self.triangle >= 0


def check_triangles(triangles: object, num_vertices: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Indices of corners ``(T, 3)``, see :func:`check_indices`."""
    return check_indices("triangles", triangles, num_vertices, ("T", 3), device)


def _checked(vertices: object, triangles: object, height: int, width: int, cull: Cull, values: bool) -> ScreenMesh:
    """Check everything, or everything but the values of the coordinates and indices."""
    height, width = (
        check_count(name, side, 1, MAX_COORDINATE) for name, side in (("height", height), ("width", width))
    )
    check_choice("cull", cull, get_args(Cull))
    vertices = check_tensor("vertices", vertices, ("B", "V", 3), finite=False).detach()
    if vertices.dtype not in (torch.float32, torch.float64):
        vertices = vertices.float()
    if not values:
        triangles = check_tensor("triangles", triangles, ("T", 3), finite=False, dtype=torch.int64)
        vertices = vertices.clamp(-MAX_COORDINATE, MAX_COORDINATE)
        return ScreenMesh(vertices.contiguous(), triangles.contiguous(), height, width, cull)
    triangles = check_triangles(triangles, vertices.shape[1], vertices.device)
    if vertices.numel():
        low, high = (float(bound) for bound in vertices.aminmax())
        if not (low >= -MAX_COORDINATE and high <= MAX_COORDINATE):  # one pass settles the usual case; now look closer
            _check_bounds(vertices)
    return ScreenMesh(vertices.contiguous(), triangles.contiguous(), height, width, cull)


def _check_bounds(vertices: torch.Tensor) -> None:
    """Raise an error if coordinates are out of bounds; large depths are allowed."""
    check_finite("vertices", vertices)
    reach = float(vertices[..., :2].abs().amax())
    if reach > MAX_COORDINATE:
        raise ValueRangeError(
            f"vertices: found x or y up to {reach:.6g} pixels from the origin; expected at most {MAX_COORDINATE}"
        )
    depth, limit = float(vertices[..., 2].abs().amax()), torch.finfo(torch.float32).max
    if depth > limit:
        raise ValueRangeError(f"vertices: found depths up to {depth:.6g}; expected at most {limit:.6g}")


def numba_available() -> bool:
    """Whether the compiled backend can be used here."""
    return importlib.util.find_spec("numba") is not None


def _numba_pays(mesh: ScreenMesh) -> bool:
    """Whether numba has been loaded, or is worth it now: once torch would have taken as long as loading numba takes.

    Both draw the same, bit for bit. So a short run never waits for numba, and a long one loses less than a second.
    """
    global _drawn_by_torch
    from twodasl_lite.render import numba_backend

    if numba_backend.loaded():
        return True
    per_triangle, per_pixel = _TORCH_SECONDS
    images = mesh.vertices.shape[0]
    _drawn_by_torch += images * (per_triangle * len(mesh.triangles) + per_pixel * mesh.height * mesh.width)
    return _drawn_by_torch > _NUMBA_SECONDS


def _backend(backend: Backend, device: torch.device) -> ModuleType:
    """The module of a backend."""
    on_cpu = device.type == "cpu"
    if backend == "numba" and not on_cpu:
        raise InputTypeError(f'vertices: found them on {device}; expected the CPU for backend "numba"')
    if backend == "numba" or (backend == "auto" and on_cpu and numba_available()):
        from twodasl_lite.render import numba_backend

        return numba_backend
    if backend == "triton" or (backend == "auto" and device.type == "cuda"):
        from twodasl_lite.render import triton_backend

        if backend == "auto":
            if triton_backend.usable(device):
                return triton_backend
        elif not triton_backend.available():
            raise MissingDependencyError(
                'drawing with backend "triton" needs the package "triton", which comes with torch\'s builds for CUDA'
            )
        elif device.type != "cuda" and not triton_backend.interpreted():
            raise InputTypeError(f'vertices: found them on {device}; expected a GPU for backend "triton"')
        else:
            return triton_backend
    from twodasl_lite.render import torch_backend

    return torch_backend


def rasterize(
    vertices: torch.Tensor,
    triangles: torch.Tensor,
    height: int,
    width: int,
    *,
    backend: Backend = "auto",
    cull: Cull = "none",
    check: bool = True,
) -> Fragments:
    """Find the nearest triangle at every pixel of a batch of pictures.

    No gradient passes through it, because the triangle that a pixel shows is not a smooth function of the vertices.
    Gradients within the visible triangles are those of :func:`interpolate` and :func:`barycentric_of`.

    Args:
        vertices: ``(B, V, 3)`` in pixels, z towards the viewer; may lie outside the picture.
        triangles: ``(T, 3)`` vertex indices, the same for the whole batch.
        height: Rows of the pictures.
        width: Their columns.
        backend: ``"torch"`` draws on the device of the vertices (CPU or CUDA); ``"numba"`` is compiled, several times
            as fast on a CPU, and needs ``pip install "twodasl_lite[render]"``; ``"triton"`` is compiled for CUDA, and
            the only one that never waits for the GPU; ``"auto"`` takes numba for vertices on the CPU where it is
            installed and loading it pays (torch draws the first few pictures of a process, to the same bits), and
            triton for those on a GPU where it works, with a warning where it does not. On a CPU
            ``torch.get_num_threads()`` threads are used.
        cull: Triangles to leave out: those that turn their ``"back"`` to the viewer (a fifth faster, and the same
            picture if the surface is closed and consistently oriented), those that turn their ``"front"``, or
            ``"none"``. Most faces have gaps, for instance between lid and eyeball; with ``"back"`` the background shows
            through them.
        check: Whether to check coordinates and indices; on a GPU this waits for the device. Without the check,
            coordinates beyond the limit are clamped to it, non-finite ones give an arbitrary picture, and indices must
            be valid.

    Returns:
        The visible triangles; weights and depths have the vertices' type.

    Raises:
        InputTypeError: If an argument is of the wrong type, numba is asked to draw on a GPU, or triton elsewhere.
        MissingDependencyError: If numba or triton is asked for and not installed.
        ShapeError: If a shape differs from the above.
        ValueRangeError: If a coordinate is not finite or too far away, an index points to no vertex, a side is below 1
            or too long, or ``backend`` or ``cull`` is not one of the words above.
    """
    check_choice("backend", backend, get_args(Backend))
    mesh = _checked(vertices, triangles, height, width, cull, check)
    device = mesh.vertices.device
    if backend == "auto" and device.type == "cpu" and numba_available() and not _numba_pays(mesh):
        backend = "torch"
    chosen = _backend(backend, device)
    return Fragments(*chosen.draw(mesh))


def _flat_corners(triangles: torch.Tensor, triangle: torch.Tensor, pixels: torch.Tensor, num_vertices: int):
    """Rows ``(P, 3)`` into ``(B * V, ...)`` of the corners that the given flat pixels show."""
    image = pixels // (triangle.shape[1] * triangle.shape[2])  # (P,)
    corners = triangles.index_select(0, triangle.reshape(-1).index_select(0, pixels))  # (P, 3)
    return corners + (image * num_vertices)[:, None]


def interpolate(attributes: torch.Tensor, triangles: torch.Tensor, fragments: Fragments) -> torch.Tensor:
    """Values at the vertices to values at the pixels, linear within each triangle.

    Differentiable with respect to the attributes and to ``fragments.barycentric``.

    Args:
        attributes: ``(B, V, C)``, or ``(V, C)`` for the whole batch: colours, normals, coordinates, ...
        triangles: ``(T, 3)``, those that were drawn.
        fragments: Result of :func:`rasterize`.

    Returns:
        ``(B, H, W, C)``; zero where there is no triangle.

    Raises:
        ShapeError: If there are too few vertices or the batches differ.
    """
    if attributes.ndim == 2:
        attributes = attributes[None].expand(fragments.triangle.shape[0], -1, -1)
    check_shape("attributes", attributes, (fragments.triangle.shape[0], "V", "C"))
    triangles = check_triangles(triangles, attributes.shape[1], attributes.device)
    batch, height, width = fragments.triangle.shape
    channels = attributes.shape[2]
    pixels = fragments.covered.reshape(-1).nonzero()[:, 0]  # (P,)
    if pixels.numel() and int(fragments.triangle.max()) >= len(triangles):
        raise ShapeError(f"triangles: found {len(triangles)}; expected those that the fragments show, which are more")
    corners = _flat_corners(triangles, fragments.triangle, pixels, attributes.shape[1])
    weights = fragments.barycentric.reshape(-1, 3).index_select(0, pixels).to(attributes.dtype)  # (P, 3)
    flat = attributes.reshape(-1, channels)  # (B V, C)
    parts = (flat.index_select(0, corners[:, k]) * weights[:, k, None] for k in range(3))
    values = cast(torch.Tensor, sum(parts))  # (P, C)
    picture = attributes.new_zeros(batch * height * width, channels)
    return picture.index_copy(0, pixels, values).reshape(batch, height, width, channels)


def barycentric_of(fragments: Fragments, vertices: torch.Tensor, triangles: torch.Tensor) -> Fragments:
    """The same fragments with weights and depths that are differentiable functions of the vertices.

    The visible triangles are taken as they are; the weights of the pixel centres in them follow the vertices. They
    refer to the exact corners, not the rounded ones, so they may be slightly negative at the rim of a triangle.

    Args:
        fragments: Result of :func:`rasterize`.
        vertices: ``(B, V, 3)``, those that were drawn.
        triangles: ``(T, 3)``, those that were drawn.

    Returns:
        New fragments.

    Raises:
        ShapeError: If the batches differ.
    """
    batch, height, width = fragments.triangle.shape
    vertices = check_tensor("vertices", vertices, (batch, "V", 3))
    triangles = check_triangles(triangles, vertices.shape[1], vertices.device)
    pixels = fragments.covered.reshape(-1).nonzero()[:, 0]  # (P,)
    corners = _flat_corners(triangles, fragments.triangle, pixels, vertices.shape[1])
    a, b, c = (vertices.reshape(-1, 3).index_select(0, corners[:, k]) for k in range(3))  # (P, 3)
    column, row = pixels % width, pixels // width % height
    point = torch.stack([column, row], dim=1).to(vertices.dtype)  # (P, 2)

    def area(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> torch.Tensor:
        u, v = second[:, :2] - first[:, :2], third[:, :2] - first[:, :2]
        return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]

    weights = torch.stack([area(point, b, c), area(point, c, a), area(point, a, b)], dim=1)  # (P, 3)
    weights = weights / weights.sum(dim=1, keepdim=True)  # their sum is the triangle's area, wherever the point lies
    depth = (weights * torch.stack([a[:, 2], b[:, 2], c[:, 2]], dim=1)).sum(dim=1)
    size = batch * height * width
    barycentric = vertices.new_zeros(size, 3).index_copy(0, pixels, weights)
    depths = vertices.new_full((size,), -torch.inf).index_copy(0, pixels, depth)
    return Fragments(
        fragments.triangle, barycentric.reshape(batch, height, width, 3), depths.reshape(batch, height, width)
    )
