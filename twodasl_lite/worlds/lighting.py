"""Light on synthetic faces: a sky, one or two lamps, highlights, and shadows that the face casts on itself.

Directions and normals are unit vectors in the renderer's upright frame (x right, y up, z towards the viewer); light is
linear. The lamps are those of :mod:`twodasl_lite.render.shading`, with random parameters; shadows come from a second
z-buffer, seen from the lamp.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.nn import functional

from twodasl_lite.base.constants import constant_like
from twodasl_lite.render import rasterize, visible_in
from twodasl_lite.render.screen import Backend
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.world import Lighting

SHADOW_SIDE = 112
"""Side in pixels of the shadow map, the picture that a lamp sees."""
_SHADOW_TOLERANCE = 0.02  # share of that side by which a vertex may lie behind the lit surface and still be lit
_UPWARD = 70.0  # standard deviation in degrees of a lamp's direction around the viewer, from straight above


class Lights(NamedTuple):
    """The lamps of B pictures.

    Attributes:
        sky: ``(B, 3)`` light from above.
        ground: ``(B, 3)`` light from below; a normal's y blends between the two.
        directions: ``(B, 2, 3)`` directions to the main lamp and the second one.
        colours: ``(B, 2, 3)`` intensities of the two lamps.
        shine: ``(B,)`` strength of highlights.
        sharpness: ``(B,)`` exponent of the highlights.
        shadows: ``(B,)`` booleans: whether the main lamp casts shadows.
    """

    sky: torch.Tensor
    ground: torch.Tensor
    directions: torch.Tensor
    colours: torch.Tensor
    shine: torch.Tensor
    sharpness: torch.Tensor
    shadows: torch.Tensor


def _direction(draws: Draws, purpose: str, bounds: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, 3)`` a lamp's direction and ``(B,)`` the cosine of its angle to the direction to the viewer."""
    # Uniform on the sphere between the two angles.
    low, high = (math.cos(math.radians(bound)) for bound in reversed(bounds))
    z = draws.between(f"{purpose} angle", (low, high))
    around = math.pi / 2 + math.radians(_UPWARD) * draws.normal(f"{purpose} around")
    planar = (1 - z * z).clamp(min=0).sqrt()
    return torch.stack([planar * around.cos(), planar * around.sin(), z], dim=-1), z


def draw_lights(draws: Draws, settings: Lighting) -> Lights:
    """Draw random lamps."""
    main, cosine = _direction(draws, "lamp", settings.angle)
    second, _ = _direction(draws, "second lamp", (20.0, 130.0))
    exposure = draws.between("exposure", settings.exposure, 1)
    ambient = draws.between("ambient", settings.ambient, 1)

    def tint(purpose: str) -> torch.Tensor:
        return torch.exp(settings.colour * draws.normal(purpose, 3, clip=2.5))

    # A lamp from the side lights less of what is seen; brighter lamps partly make up for it.
    main_light = exposure * (1 - ambient) / (0.2 + 0.25 * (1 + cosine[:, None]))
    there = draws.chance("second lamp there", settings.second)[:, None]
    second_light = there * exposure * draws.between("second lamp strength", (0.1, 0.7), 1)
    sky = exposure * ambient
    return Lights(
        1.15 * sky * tint("sky colour"),
        0.85 * sky * tint("ground colour"),
        torch.stack([main, second], dim=1),
        torch.stack([main_light * tint("lamp colour"), second_light * tint("second lamp colour")], dim=1),
        draws.between("shine", settings.shine),
        torch.exp(draws.between("sharpness", (math.log(6.0), math.log(40.0)))),
        draws.chance("shadows", settings.shadows),
    )


def cast_shadows(
    vertices: torch.Tensor,
    triangles: torch.Tensor,
    towards_lamp: torch.Tensor,
    framed: int,
    *,
    backend: Backend = "auto",
    check: bool = True,
) -> torch.Tensor:
    """Which vertices a lamp reaches.

    Args:
        vertices: ``(B, V, 3)`` in pixels.
        triangles: ``(T, 3)`` vertex indices.
        towards_lamp: ``(B, 3)`` unit vectors, upright frame.
        framed: Number of leading vertices, those of the face, that span the shadow map; other vertices are lit if they
            lie outside it.
        backend: Rendering backend, see :func:`~twodasl_lite.render.rasterize`.
        check: Whether to check the values; on a GPU this waits for the device.

    Returns:
        ``(B, V)`` booleans.
    """
    ahead = towards_lamp * constant_like(towards_lamp, 1.0, -1.0, 1.0)  # y down, as the vertices
    # Any axis that is not along the lamp's direction completes a frame.
    axes = torch.eye(3, device=ahead.device)
    helper = torch.where(ahead[:, 1:2].abs() < 0.8, axes[1], axes[0])
    across = functional.normalize(torch.linalg.cross(helper, ahead), dim=-1)
    frame = torch.stack([across, torch.linalg.cross(ahead, across), ahead], dim=-1)  # (B, 3, 3)
    seen = vertices @ frame
    low, high = (bound(seen[:, :framed], dim=1, keepdim=True) for bound in (torch.amin, torch.amax))
    side = (high - low)[..., :2].amax(dim=-1, keepdim=True)
    seen = (seen - low) * ((SHADOW_SIDE - 1) / side)
    fragments = rasterize(seen, triangles, SHADOW_SIDE, SHADOW_SIDE, backend=backend, check=check)
    outside = ((seen[..., :2] < 0) | (seen[..., :2] > SHADOW_SIDE - 1)).any(dim=-1)
    return outside | visible_in(fragments, seen, _SHADOW_TOLERANCE * SHADOW_SIDE, check=check)


def shade_vertices(
    lights: Lights, normals: torch.Tensor, albedo: torch.Tensor, gloss: torch.Tensor | float, lit: torch.Tensor | None
) -> torch.Tensor:
    """Light that the vertices send to the viewer.

    Args:
        lights: The lamps.
        normals: ``(B, V, 3)`` unit normals.
        albedo: ``(B, V, 3)`` linear colours.
        gloss: ``(B, V)`` factor of the highlights.
        lit: ``(B, V)`` share of the main lamp's light that reaches each vertex, 0 to 1; all of it if ``None``.

    Returns:
        ``(B, V, 3)`` linear.
    """
    height = 0.5 + 0.5 * normals[..., 1:2]
    light = torch.lerp(lights.ground[:, None], lights.sky[:, None], height)  # (B, V, 3)
    cosines = (normals @ lights.directions.transpose(1, 2)).clamp_(min=0)  # (B, V, 2)
    halfway = lights.directions[:, 0] + constant_like(lights.directions, 0.0, 0.0, 1.0)
    halfway = functional.normalize(halfway, dim=-1)
    glint = (normals @ halfway[..., None])[..., 0].clamp_(min=1e-6) ** lights.sharpness[:, None]  # (B, V)
    glint = glint * lights.shine[:, None] * gloss
    if lit is not None:
        cosines = cosines * torch.stack([lit, torch.ones_like(lit)], dim=-1)
        glint = glint * lit
    light = torch.baddbmm(light, cosines, lights.colours)
    return torch.addcmul(glint[..., None] * lights.colours[:, None, 0], albedo, light)
