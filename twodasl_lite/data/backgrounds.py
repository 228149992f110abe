"""What is behind a face: plain walls, and clutter that is drawn by rules instead of photographed.

Clutter comes from a bank of textures that is drawn once: walls of boxes and discs, stripes, tiles, leaves, lights out
of focus, writing. A picture takes a turned, stretched, recoloured piece of one, so no two are alike.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch.nn import functional

from twodasl_lite.data.random import Draws

BANK_SIZE = 40
"""Textures in the bank."""
TEXTURE_SIDE = 144
"""Side of a texture in pixels; at its border it is mirrored."""
_SHAPES = 14
_TEXTURES_AT_ONCE = 8


def smooth_noise(draws: Draws, purpose: str, side: int, cells: int, channels: int = 1) -> torch.Tensor:
    """Soft random clouds ``(B, channels, side, side)`` in [0, 1] with about ``cells`` of them across."""
    grid = draws.uniform(purpose, channels, cells + 1, cells + 1)
    return functional.interpolate(grid, (side, side), mode="bicubic", align_corners=True).clamp_(0, 1)


def _clouds(draws: Draws, purpose: str, side: int, channels: int) -> torch.Tensor:
    """Noise with detail at every scale."""
    total = 0
    for level, cells in enumerate((3, 7, 15, 31, 63)):
        total = total + 0.62**level * (smooth_noise(draws, f"{purpose} {cells}", side, cells, channels) - 0.5)
    return (0.5 + 0.62 * total).clamp_(0, 1)


def _palette(draws: Draws, purpose: str, colours: int) -> torch.Tensor:
    """``(B, colours, 3)`` sRGB: mostly dull colours of a family, from dark to light, and a few strong ones."""
    base = draws.between(f"{purpose} base", (0.55, 1.0), 1, 3)
    value = draws.between(f"{purpose} value", (0.05, 1.0), colours, 1)
    own = draws.uniform(f"{purpose} own", colours, 3)
    strength = draws.uniform(f"{purpose} strength", colours, 1) ** 4
    return torch.lerp(base * value, own, strength)


def _paint(canvas: torch.Tensor, alpha: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Lay a shape of coverage ``(B, H, W)`` and colour ``(B, 3)`` or ``(B, 3, H, W)`` on a canvas ``(B, 3, H, W)``."""
    if colour.ndim == 2:
        colour = colour[..., None, None]
    return torch.lerp(canvas, colour.expand_as(canvas), alpha[:, None])


@lru_cache(maxsize=4)
def texture_bank(seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """``(BANK_SIZE, 3, TEXTURE_SIDE, TEXTURE_SIDE)`` uint8: textures, the same for the same seed; to be read only."""
    pictures = torch.arange(BANK_SIZE, device=device)
    # A few at a time: what they need then stays in a processor's cache.
    return torch.cat([_textures(Draws(seed, few)) for few in pictures.split(_TEXTURES_AT_ONCE)])


def _textures(draws: Draws) -> torch.Tensor:
    """Some of the bank."""
    device, side = draws.pictures.device, TEXTURE_SIDE
    axis = torch.linspace(-1, 1, side, device=device)
    y, x = axis[None, :, None], axis[None, None, :]  # (1, H, 1), (1, 1, W)
    palette = _palette(draws, "palette", _SHAPES + 6)  # (B, colours, 3)
    fine = _clouds(draws, "fine", side, 1)  # (B, 1, H, W)
    ground = _clouds(draws, "ground", side, 1)
    canvas = torch.lerp(palette[:, -1, :, None, None], palette[:, -2, :, None, None], (2 * ground - 0.5).clamp(0, 1))

    def of_kind(*kinds: int) -> torch.Tensor:
        """``(B, 1, 1)``: 1 for the textures that one of these patterns rules."""
        return sum((kind == one).float() for one in kinds)[:, None, None]

    def turned(purpose: str, straight: float) -> tuple[torch.Tensor, torch.Tensor]:
        angle = draws.between(purpose, (-math.pi, math.pi))
        angle = torch.where(draws.chance(f"{purpose} straight", straight), 0.03 * angle, angle)[:, None, None]
        return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()

    def shape(number: int, largest: float, smallest: float, discs: float) -> None:
        nonlocal canvas
        name = f"shape {number}"
        u, v = turned(name, 0.75)
        centre = draws.between(f"{name} centre", (-1.1, 1.1), 2)[..., None, None]
        size = draws.between(f"{name} size", (math.log(smallest), math.log(largest)), 2).exp_()[..., None, None]
        u, v = (u - centre[:, 0]) / size[:, 0], (v - centre[:, 1]) / size[:, 1]
        disc = draws.chance(f"{name} disc", discs)[:, None, None]
        distance = torch.where(disc, torch.hypot(u, v), torch.maximum(u.abs(), v.abs()))
        edge = draws.between(f"{name} edge", (math.log(4.0), math.log(80.0))).exp_()[:, None, None]
        alpha = (edge * (1 - distance)).clamp(0, 1) * draws.chance(f"{name} there", 0.75)[:, None, None]
        shade = 1 - 0.35 * v.clamp(-1, 1) * draws.uniform(f"{name} shade")[:, None, None]  # lit from above
        colour = palette[:, number, :, None, None] * (shade[:, None] * (0.7 + 0.6 * fine))
        canvas = _paint(canvas, alpha, colour.clamp(0, 1))

    # Large shapes first: walls, windows, other people's shoulders. Then the pattern that rules the texture, if any.
    kind = draws.choice("kind", 8)
    for number in range(4):
        shape(number, 1.6, 0.3, 0.25)
    leaves = smooth_noise(draws, "leaves", side, 26)[:, 0] + 0.6 * fine[:, 0]
    for level, colour in ((0.75, -3), (0.95, -4)):
        canvas = _paint(canvas, ((leaves - level) * 9).clamp(0, 1) * of_kind(1), palette[:, colour])
    u, v = turned("stripes", 0.6)
    frequency = draws.between("stripes frequency", (math.log(7.0), math.log(45.0)), 2).exp_()[..., None, None]
    phase = draws.between("stripes phase", (0, 2 * math.pi), 2)[..., None, None]
    wave = (4 * torch.sin(frequency[:, 0] * u + phase[:, 0])).clamp(-1, 1)
    other = (4 * torch.sin(frequency[:, 1] * v + phase[:, 1])).clamp(-1, 1)
    stripes = (0.5 + 0.5 * torch.lerp(wave, wave * other, of_kind(3))) * of_kind(2, 3)
    joints = ((wave.abs() < 0.7) | (other.abs() < 0.7)).float() * of_kind(6)  # between tiles, books, windows
    canvas = _paint(canvas, 0.8 * stripes, palette[:, -3])
    canvas = _paint(canvas, joints, palette[:, -4])
    for number in range(4, _SHAPES):
        shape(number, 0.45, 0.03, 0.45)

    # Writing: short strokes in lines, in some places. Lights out of focus.
    ink = functional.interpolate((draws.uniform("ink", 1, 24, 40) > 0.45).float(), (side, side), mode="nearest")
    place = functional.interpolate((draws.uniform("paper", 1, 3, 3) > 0.6).float(), (side, side), mode="nearest")
    lines = (torch.sin(75.0 * y) > 0).float()
    canvas = _paint(canvas, (ink * place)[:, 0] * lines * of_kind(4), palette[:, -5])
    for number in range(6):
        name = f"light {number}"
        centre = draws.between(f"{name} centre", (-1, 1), 2)[..., None, None]
        radius = draws.between(f"{name} radius", (0.05, 0.25))[:, None, None]
        alpha = (12 * (1 - torch.hypot(x - centre[:, 0], y - centre[:, 1]) / radius)).clamp(0, 0.7)
        canvas = _paint(canvas, alpha * of_kind(5), 0.6 + 0.4 * draws.uniform(f"{name} colour", 3))
    return ((canvas * (0.85 + 0.3 * fine)).clamp(0, 1) * 255).round().to(torch.uint8)


def plain(draws: Draws, side: int) -> torch.Tensor:
    """Walls of one colour, softly lit: ``(B, 3, side, side)`` sRGB."""
    grey = draws.between("wall value", (0.15, 0.95), 1)
    tint = draws.between("wall tint", (-0.12, 0.12), 3)
    ramp = smooth_noise(draws, "wall light", side, 1) - 0.5
    return ((grey + tint)[..., None, None] + 0.3 * ramp).clamp(0, 1)


def cluttered(draws: Draws, bank: torch.Tensor, side: int, contrast: torch.Tensor) -> torch.Tensor:
    """Pieces of textures: ``(B, 3, side, side)`` sRGB.

    Args:
        draws: Random numbers of B pictures.
        bank: See :func:`texture_bank`.
        side: Side of the pictures in pixels.
        contrast: ``(B,)`` about the mean colour.
    """
    texture = bank[draws.choice("texture", len(bank))].float().div_(255)  # (B, 3, S, S)
    angle = draws.normal("texture angle") * 0.15
    zoom = torch.exp(draws.between("texture zoom", (math.log(0.3), math.log(0.95)), 2))
    zoom = zoom * torch.where(draws.uniform("texture flip", 2) < 0.5, -1.0, 1.0)
    shift = draws.between("texture shift", (-0.8, 0.8), 2, 1)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=-1).reshape(-1, 2, 2)
    affine = torch.cat([turn * zoom[:, None, :], shift], dim=-1)  # (B, 2, 3)
    grid = functional.affine_grid(affine, (len(affine), 3, side, side), align_corners=False)
    piece = functional.grid_sample(texture, grid, padding_mode="reflection", align_corners=False)
    # Recoloured: channels leak into each other, and the whole gets lighter or darker.
    mix = torch.eye(3, device=bank.device) * 0.8 + 0.25 * (draws.uniform("texture mix", 3, 3) - 0.5)
    light = draws.between("texture light", (0.55, 1.15), 1, 1)
    piece = (mix @ piece.flatten(2)) * light
    mean = piece.mean(dim=-1, keepdim=True)
    return (mean + contrast[:, None, None] * (piece - mean)).clamp_(0, 1).reshape(-1, 3, side, side)
