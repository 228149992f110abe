"""Still pictures of a mesh for figures: the package's renderer decides what is visible, and lamps light it.

Takes and returns numpy arrays, as figures do. The lighting is that of ``static/face.js``, made to look well from every
side; the light of training pictures is :mod:`twodasl_lite.render.shading`. See chapter 6.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from twodasl_lite import render
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.viz.palette import CLAY

KEY_LIGHT = (-0.50, 0.62, 0.72)
"""Direction to the main lamp in the model frame (upper left, in front)."""

FILL_LIGHT = (0.85, -0.05, 0.50)
"""Direction to the weaker lamp on the other side."""

_GAMMA = 2.2


class Raster(NamedTuple):
    """The triangle that each pixel shows.

    Attributes:
        triangle: Index of the triangle, ``(H, W)``; -1 where there is none.
        weights: Barycentric coordinates within it, ``(H, W, 3)``.
    """

    triangle: np.ndarray
    weights: np.ndarray

    def interpolate(self, triangles: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Interpolate values ``(V, C)`` of the vertices to pixels ``(H, W, C)``; zero where there is no triangle."""
        seen = self.triangle >= 0
        out = np.zeros((*self.triangle.shape, values.shape[1]), dtype=np.float32)
        corners = values.astype(np.float32)[triangles[self.triangle[seen]]]  # (P, 3, C)
        out[seen] = np.einsum("pk,pkc->pc", self.weights[seen], corners)
        return out


def check_mesh(vertices, triangles) -> tuple[np.ndarray, np.ndarray]:
    """Convert arrays or tensors to ``(V, 3)`` float64 and ``(T, 3)`` integer arrays.

    Raises:
        ShapeError: If the shapes do not match.
        ValueRangeError: If a coordinate is not finite or an index is out of range.
    """
    points, faces = (np.asarray(x.detach().cpu() if hasattr(x, "detach") else x) for x in (vertices, triangles))
    if points.ndim != 2 or points.shape[1] != 3:
        raise ShapeError(f"vertices: found shape {points.shape}; expected (V, 3)")
    if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise ShapeError(f"triangles: found shape {faces.shape} of {faces.dtype}; expected (T, 3) integers")
    points = points.astype(np.float64)
    if not np.isfinite(points).all():
        raise ValueRangeError("vertices: found NaN or infinity; expected finite coordinates")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(points):
        raise ValueRangeError(
            f"triangles: found indices from {faces.min()} to {faces.max()}; expected 0 to {len(points) - 1}"
        )
    return points, faces


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Unit vertex normals ``(V, 3)`` in the model frame, by :func:`twodasl_lite.render.vertex_normals`."""
    points = torch.from_numpy(np.ascontiguousarray(vertices, dtype=np.float64))
    return render.vertex_normals(points, torch.from_numpy(np.asarray(triangles, dtype=np.int64)), "model").numpy()


def rasterise(points: np.ndarray, triangles: np.ndarray, width: int, height: int) -> Raster:
    """Find the nearest triangle at every pixel, with :func:`twodasl_lite.render.rasterize`.

    Args:
        points: Vertices, ``(V, 3)``: x right, y down, in pixels (centres at integers); z towards the viewer.
        triangles: Triangles, ``(T, 3)``; only those that the viewer sees as counter-clockwise are drawn.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.

    Returns:
        The visible triangles.
    """
    vertices = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))[None]
    corners = torch.from_numpy(np.asarray(triangles, dtype=np.int64))
    # In torch: a few pictures do not pay for compiling the faster backend.
    fragments = render.rasterize(vertices, corners, height, width, backend="torch", cull="back")
    return Raster(fragments.triangle[0].numpy(), fragments.barycentric[0].numpy())


def visible_vertices(vertices, triangles, indices, *, tolerance: float = 3.0, frame: str = "model", pixels: int = 256):
    """Which vertices a viewer on the z axis sees.

    Args:
        vertices: Vertices, ``(V, 3)``.
        triangles: Triangles, ``(T, 3)``.
        indices: Indices of the vertices in question, ``(N,)``, for instance the landmarks.
        tolerance: Depth below the visible surface at which a vertex still counts as visible, in the vertices' unit.
        frame: ``"model"`` (y up) or ``"pixels"`` (y down).
        pixels: Resolution of the depth picture used for the test.

    Returns:
        Visibility, ``(N,)`` booleans.
    """
    points, faces = check_mesh(vertices, triangles)
    upright = points * [1, 1 if frame == "pixels" else -1, 1]
    low, high = upright[:, :2].min(axis=0), upright[:, :2].max(axis=0)
    scale = (pixels - 1) / float((high - low).max() or 1)
    placed = np.concatenate([(upright[:, :2] - low) * scale, points[:, 2:]], axis=1)
    depth = rasterise(placed, faces, pixels, pixels)
    surface = depth.interpolate(faces, points[:, 2:])[..., 0]
    columns, rows = np.rint(placed[np.asarray(indices), :2]).astype(int).T
    empty = depth.triangle[rows, columns] < 0
    return empty | (points[np.asarray(indices), 2] > surface[rows, columns] - tolerance)


def shade(normals: np.ndarray, colours: np.ndarray, gloss: float = 1.0, light=KEY_LIGHT) -> np.ndarray:
    """Colour of a surface under a key light, a fill light and an ambient term.

    Args:
        normals: Unit normals, ``(..., 3)``, in the viewer's frame (x right, y up, z towards the viewer).
        colours: Surface colours, ``(..., 3)`` sRGB in [0, 1].
        gloss: Strength of the highlights: 1 for skin, 0 for clay.
        light: Direction to the key light.

    Returns:
        Shaded colours, ``(..., 3)`` sRGB in [0, 1].
    """
    unit = lambda vector: np.asarray(vector, dtype=np.float64) / np.linalg.norm(vector)  # noqa: E731
    key, fill = unit(light), unit(FILL_LIGHT)
    halfway = unit(key + np.array([0, 0, 1]))
    # As on skin, light that seeps past the terminator is redder than reflected light.
    wrap = (1 - gloss) * np.array([0.16, 0.16, 0.16]) + gloss * np.array([0.30, 0.17, 0.13])
    direct = np.maximum((normals @ key)[..., None] + wrap, 0) / (1 + wrap)
    lit = (
        np.array([0.98, 0.95, 0.90]) * direct
        + np.array([0.14, 0.164, 0.20]) * np.maximum(normals @ fill, 0)[..., None]
        + np.array([0.125, 0.135, 0.155]) * (0.70 + 0.30 * normals[..., 1:2])
    )
    highlight = np.maximum(normals @ halfway, 0)[..., None] ** 22 * (0.035 + 0.04 * gloss)
    rim = (1 - np.clip(normals[..., 2:3], 0, 1)) ** 4 * 0.10
    base = np.clip(colours, 0, 1) ** _GAMMA
    bright = np.clip((base @ np.array([0.3, 0.5, 0.2]) - 0.02) / 0.23, 0, 1)[..., None]
    highlight = highlight * (0.2 + 0.8 * bright**2 * (3 - 2 * bright))  # hair is matt
    return np.clip(base * (lit + rim) + highlight, 0, 1) ** (1 / _GAMMA)


def render_mesh(
    points: np.ndarray,
    triangles: np.ndarray,
    colours: np.ndarray | None,
    width: int,
    height: int,
    *,
    supersample: int = 2,
    light=KEY_LIGHT,
    lit: bool = True,
) -> np.ndarray:
    """A shaded picture of a mesh.

    Args:
        points: Vertices, ``(V, 3)`` in pixels: x right, y down, z towards the viewer.
        triangles: Triangles, ``(T, 3)``.
        colours: Vertex colours, ``(V, 3)`` sRGB in [0, 1]; clay if ``None``.
        width: Width in pixels.
        height: Height in pixels.
        supersample: Number of samples per pixel along each axis.
        light: Direction to the key light, y up.
        lit: Whether to shade; if not, the colours are shown unchanged.

    Returns:
        The picture, ``(H, W, 4)`` sRGB with alpha in [0, 1], not premultiplied.
    """
    fine = points * [supersample, supersample, supersample] + [
        (supersample - 1) / 2,
        (supersample - 1) / 2,
        0,
    ]
    raster = rasterise(fine, triangles, width * supersample, height * supersample)
    gloss = 0.0 if colours is None else 1.0
    paint = np.broadcast_to(np.asarray(CLAY), points.shape) if colours is None else colours
    surface = raster.interpolate(triangles, paint)
    if lit:
        upright = points * [1, -1, 1]
        normals = raster.interpolate(triangles, vertex_normals(upright, triangles))
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
        surface = shade(normals, surface, gloss, light)
    alpha = (raster.triangle >= 0).astype(np.float32)[..., None]
    both = np.concatenate([surface * alpha, alpha], axis=-1)
    small = both.reshape(height, supersample, width, supersample, 4).mean(axis=(1, 3))
    small[..., :3] /= np.maximum(small[..., 3:], 1e-6)
    return small.clip(0, 1)
