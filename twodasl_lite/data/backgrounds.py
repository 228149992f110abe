"""What is behind a face: plain walls, and clutter that is drawn by rules instead of photographed.

Clutter comes from a bank of textures that is drawn once: walls of boxes and discs, stripes, tiles, leaves, lights out
of focus, writing. A picture takes a turned, stretched, recoloured piece of one, so no two are alike.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from twodasl_lite.data.random import Draws

BANK_SIZE = 96
"""Textures in the bank."""
TEXTURE_SIDE = 192
"""Side of a texture in pixels; at its border it is mirrored."""
_SHAPES = 14


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
    """``(B, colours, 3)`` sRGB: colours of a family, some of them saturated, from dark to light."""
    base = draws.uniform(f"{purpose} hue", 1, 3)
    value = draws.uniform(f"{purpose} value", colours, 1)
    own = draws.uniform(f"{purpose} own", colours, 3)
    tint = draws.uniform(f"{purpose} tint", colours, 1) ** 2
    return ((1 - tint) * (0.35 * base + 0.65) * value + tint * own).clamp(0, 1)


def _paint(canvas: torch.Tensor, alpha: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Lay a shape of coverage ``(B, H, W)`` and colour ``(B, 3)`` or ``(B, 3, H, W)`` on a canvas ``(B, 3, H, W)``."""
    if colour.ndim == 2:
        colour = colour[..., None, None]
    return torch.lerp(canvas, colour.expand_as(canvas), alpha[:, None])


def texture_bank(seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """``(BANK_SIZE, 3, TEXTURE_SIDE, TEXTURE_SIDE)`` uint8: textures, the same for the same seed."""
    device = torch.device(device)
    draws = Draws(seed, torch.arange(BANK_SIZE, device=device))
    side = TEXTURE_SIDE
    axis = torch.linspace(-1, 1, side, device=device)
    y, x = axis[None, :, None], axis[None, None, :]  # (1, H, 1), (1, 1, W)
    palette = _palette(draws, "palette", _SHAPES + 4)  # (B, colours, 3)
    fine = _clouds(draws, "fine", side, 1)
    canvas = _clouds(draws, "ground", side, 3)
    canvas = (palette[:, -1, :, None, None] + 0.7 * (canvas - 0.5)).clamp(0, 1)

    def turned(purpose: str) -> tuple[torch.Tensor, torch.Tensor]:
        angle = draws.between(purpose, (-math.pi, math.pi))[:, None, None]
        angle = torch.where(draws.chance(f"{purpose} straight", 0.6)[:, None, None], 0.08 * angle, angle)
        return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()

    # Leaves: ridges of noise. Stripes and tiles: waves with sharp edges. Lights: soft discs. One kind rules a texture.
    kind = draws.choice("kind", 6)
    ridges = 1 - (2 * smooth_noise(draws, "ridges", side, 22) - 1).abs()[:, 0]
    leaves = ((ridges - 0.72) * 8).clamp(0, 1) * (kind == 1)[:, None, None]
    canvas = _paint(canvas, leaves, (palette[:, -2, :, None, None] * (0.4 + 0.9 * fine)).clamp(0, 1))
    u, v = turned("stripes")
    frequency = torch.exp(draws.between("stripes frequency", (math.log(6.0), math.log(40.0)), 2))[..., None, None]
    phase = draws.between("stripes phase", (0, 6.28), 2)[..., None, None]
    wave = (3 * torch.sin(frequency[:, 0] * u + phase[:, 0])).clamp(-1, 1)
    other = (3 * torch.sin(frequency[:, 1] * v + phase[:, 1])).clamp(-1, 1)
    pattern = torch.where((kind == 2)[:, None, None], wave, wave * other)
    share = 0.8 * ((kind == 2) | (kind == 3))[:, None, None]
    canvas = _paint(canvas, (0.5 + 0.5 * pattern) * share, palette[:, -3])

    for number in range(_SHAPES):
        name = f"shape {number}"
        u, v = turned(name)
        centre = draws.between(f"{name} centre", (-1.1, 1.1), 2)[..., None, None]
        size = torch.exp(draws.between(f"{name} size", (math.log(0.04), math.log(0.7)), 2))[..., None, None]
        u, v = (u - centre[:, 0]) / size[:, 0], (v - centre[:, 1]) / size[:, 1]
        disc = draws.chance(f"{name} disc", 0.4)[:, None, None]
        distance = torch.where(disc, torch.hypot(u, v), torch.maximum(u.abs(), v.abs()))
        edge = torch.exp(draws.between(f"{name} edge", (math.log(2.0), math.log(60.0))))[:, None, None]
        alpha = (edge * (1 - distance)).clamp(0, 1) * (draws.chance(f"{name} there", 0.75))[:, None, None]
        shadow = (1 - 0.35 * v.clamp(-1, 1) * draws.uniform(f"{name} shade")[:, None, None])[:, None]  # lit from above
        colour = palette[:, number, :, None, None] * shadow * (0.75 + 0.5 * fine)
        canvas = _paint(canvas, alpha, colour.clamp(0, 1))

    # Writing: short strokes in lines.
    ink = draws.uniform("ink", 24, 40)[:, None]
    ink = functional.interpolate((ink > 0.45).float(), (side, side), mode="nearest")[:, 0]
    lines = (torch.sin(75.0 * y) > 0).float() * (draws.uniform("writing place", 3, 3)[:, None] > 0.7).float().repeat(
        1, 1, 1, 1
    ).repeat_interleave(side // 3, 2).repeat_interleave(side // 3, 3)[:, 0]
    canvas = _paint(canvas, ink * lines * (kind == 4)[:, None, None], palette[:, -4])
    for number in range(6):
        name = f"light {number}"
        centre = draws.between(f"{name} centre", (-1, 1), 2)[..., None, None]
        radius = draws.between(f"{name} radius", (0.05, 0.25))[:, None, None]
        alpha = (12 * (1 - torch.hypot(x - centre[:, 0], y - centre[:, 1]) / radius)).clamp(0, 0.7)
        glow = 0.6 + 0.4 * draws.uniform(f"{name} colour", 3)
        canvas = _paint(canvas, alpha * (kind == 5)[:, None, None], glow)
    canvas = canvas * (0.9 + 0.2 * fine)
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8)


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
