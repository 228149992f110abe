"""Pictures of colour, depth, normals and coordinates, without jagged edges, and over a photo.

Pictures are ``(B, H, W, ...)``, row 0 at the top, as everywhere in :mod:`twodasl_lite.render`; colours are sRGB in
[0, 1]. See chapter 6.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from twodasl_lite.base.checks import check_count, check_shape, check_tensor
from twodasl_lite.base.constants import constant_like
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.render.rasterizer import Fragments, interpolate, rasterize
from twodasl_lite.render.screen import Backend, Cull
from twodasl_lite.render.shading import Light, linear_to_srgb, srgb_to_linear, vertex_normals

MAX_SUPERSAMPLE = 16


class Picture(NamedTuple):
    """A drawn surface without a background.

    Attributes:
        colour: ``(B, H, W, 3)`` sRGB in [0, 1], that of the surface alone; 0 where there is none.
        alpha: ``(B, H, W)`` how much of each pixel the surface covers, 0 to 1.
    """

    colour: torch.Tensor
    alpha: torch.Tensor


def render(
    vertices: torch.Tensor,
    triangles: torch.Tensor,
    albedo: torch.Tensor,
    height: int,
    width: int,
    *,
    light: Light | None = None,
    supersample: int = 1,
    backend: Backend = "auto",
    cull: Cull = "none",
) -> Picture:
    """Draw coloured, lit surfaces.

    Differentiable with respect to the albedo, the light, and the vertices as far as the normals depend on them.

    Args:
        vertices: ``(B, V, 3)`` in pixels.
        triangles: ``(T, 3)`` vertex indices.
        albedo: ``(B, V, 3)``, or ``(V, 3)`` for the whole batch: the vertices' own colours, sRGB in [0, 1].
        height: Rows.
        width: Columns.
        light: :class:`~twodasl_lite.render.Lamps`, :class:`~twodasl_lite.render.Harmonics` or anything with their
            method ``at``; without one, the colours are shown as they are.
        supersample: Factor by which the picture is drawn finer and then averaged: smooth edges, but this factor squared
            times the work.
        backend: Rendering backend, see :func:`~twodasl_lite.render.rasterize`.
        cull: Triangles to leave out, see :func:`~twodasl_lite.render.rasterize`.

    Returns:
        Colours and coverage; :func:`over` puts them on a background.

    Raises:
        ShapeError: If a shape differs from the above.
        ValueRangeError: If a number is out of range.
    """
    fine = refine(vertices, supersample)
    fragments = rasterize(fine, triangles, height * supersample, width * supersample, backend=backend, cull=cull)
    linear = interpolate(srgb_to_linear(albedo), triangles, fragments)
    if light is not None:
        linear = linear * light.at(normal_image(fine, triangles, fragments))
    return reduce_picture(linear, fragments.covered, supersample)


def refine(vertices: torch.Tensor, factor: int) -> torch.Tensor:
    """Vertices ``(B, V, 3)`` in the pixels of a picture ``factor`` times as fine, which shows the same."""
    factor = check_count("supersample", factor, 1, MAX_SUPERSAMPLE)
    if factor == 1:
        return vertices
    # Pixel centres are at integers, so the picture's corner is at -1/2 and stays there.
    return vertices * factor + constant_like(vertices, (factor - 1) / 2, (factor - 1) / 2, 0)


def reduce_picture(linear: torch.Tensor, covered: torch.Tensor, factor: int) -> Picture:
    """Average a fine picture over squares of ``factor`` by ``factor`` pixels.

    Light adds up linearly in a camera, so it is averaged before it becomes sRGB, and only over what is covered.

    Args:
        linear: ``(B, factor H, factor W, 3)`` linear light, 0 where not covered.
        covered: ``(B, factor H, factor W)`` booleans: where the surface is.
        factor: Side of the squares in pixels.
    """
    both = torch.cat([linear, covered[..., None].to(linear)], dim=-1)  # (B, f H, f W, 4)
    if factor > 1:
        batch, height, width, _ = both.shape
        both = both.reshape(batch, height // factor, factor, width // factor, factor, 4).mean(dim=(2, 4))
    alpha = both[..., 3]
    if factor > 1:
        both = both / alpha[..., None].clamp(min=1 / factor**2)
    return Picture(linear_to_srgb(both[..., :3]), alpha)


def over(picture: Picture, background: torch.Tensor) -> torch.Tensor:
    """Put a picture over a photo.

    Args:
        picture: Result of :func:`render`.
        background: ``(B, H, W, 3)``, or ``(H, W, 3)`` or ``(3,)`` for all: sRGB in [0, 1].

    Returns:
        ``(B, H, W, 3)`` sRGB in [0, 1]; pixels that are partly covered are mixed in linear light.

    Raises:
        ShapeError: If the background does not fit.
        ValueRangeError: If it lies outside [0, 1].
    """
    colour, alpha = picture
    background = check_tensor("background", background, ("...", 3), dtype=colour.dtype, device=colour.device)
    try:
        background = background.expand(colour.shape)
    except RuntimeError as error:
        raise ShapeError(
            f"background: found shape {tuple(background.shape)}; expected {tuple(colour.shape)} or one for all"
        ) from error
    if background.numel() and (background.amin() < 0 or background.amax() > 1):
        raise ValueRangeError("background: found values outside [0, 1]; expected sRGB in [0, 1]")
    whole = torch.where((alpha >= 1)[..., None], colour, background)
    rim = ((alpha > 0) & (alpha < 1)).nonzero(as_tuple=True)
    share = alpha[rim][:, None]
    mixed = share * srgb_to_linear(colour[rim]) + (1 - share) * srgb_to_linear(background[rim])
    return whole.index_put(rim, linear_to_srgb(mixed))


def depth_image(fragments: Fragments) -> torch.Tensor:
    """Depth as grey: 1 at each picture's nearest point, falling to 0 at its farthest; 0 where there is nothing.

    Returns:
        ``(B, H, W)``.
    """
    depth, covered = fragments.depth, fragments.covered
    near = depth.amax(dim=(1, 2), keepdim=True)
    far = torch.where(covered, depth, torch.inf).amin(dim=(1, 2), keepdim=True)
    grey = (depth - far) / (near - far).clamp(min=torch.finfo(depth.dtype).tiny)
    return torch.where(covered, grey, 0.0)


def normal_image(vertices: torch.Tensor, triangles: torch.Tensor, fragments: Fragments) -> torch.Tensor:
    """Unit normals at the pixels, smooth across triangles; ``(n + 1) / 2`` is the usual colour picture of them.

    Args:
        vertices: ``(B, V, 3)`` in pixels, those that were drawn.
        triangles: ``(T, 3)``, those that were drawn.
        fragments: Result of :func:`~twodasl_lite.render.rasterize`.

    Returns:
        ``(B, H, W, 3)`` in the upright frame: x right, y up, z towards the viewer; 0 where there is nothing.
    """
    normals = interpolate(vertex_normals(vertices, triangles), triangles, fragments)
    return torch.nn.functional.normalize(normals, dim=-1, eps=torch.finfo(normals.dtype).tiny)


def coordinate_code(mean: torch.Tensor) -> torch.Tensor:
    """Normalised coordinate code (NCC): a colour for each vertex that encodes its position on the face.

    The mean face's x, y and z, each scaled to [0, 1], are its red, green and blue (Zhu et al. 2016, section 3.2).

    Args:
        mean: ``(V, 3)`` the mean face, in the model frame.

    Returns:
        ``(V, 3)`` in [0, 1].

    Raises:
        ShapeError: If there is no vertex.
        ValueRangeError: If the face is flat in a direction.
    """
    mean = check_tensor("mean", mean, ("V", 3))
    if not len(mean):
        raise ShapeError("mean: found no vertex; expected some")
    low, high = mean.amin(dim=0), mean.amax(dim=0)
    if bool((high <= low).any()):
        raise ValueRangeError("mean: found a face without extent in x, y or z; expected a solid one")
    return (mean - low) / (high - low)


def coordinate_image(mean: torch.Tensor, triangles: torch.Tensor, fragments: Fragments) -> torch.Tensor:
    """Projected normalised coordinate code (PNCC): :func:`coordinate_code` where each vertex is seen.

    Args:
        mean: ``(V, 3)`` the mean face; what was drawn is a deformed and posed one.
        triangles: ``(T, 3)`` vertex indices.
        fragments: Result of :func:`~twodasl_lite.render.rasterize`.

    Returns:
        ``(B, H, W, 3)`` in [0, 1]; 0 where there is nothing.
    """
    check_shape("mean", mean, ("V", 3))
    return interpolate(coordinate_code(mean), triangles, fragments)
