"""Augmentation: random shifts, rotations, scales and lighting, so that a network does not memorise a small dataset.

A similarity transform of the picture plane about the centre of the crop applies to landmarks and, exactly, to a
weak-perspective pose: rotation and scale multiply its matrix, the shift adds to its translation. Depth is scaled, too.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.training.config import AugmentConfig
from twodasl_lite.worlds.draws import Draws


def augment(batch: FaceBatch, draws: Draws, config: AugmentConfig) -> FaceBatch:
    """Augment pictures together with their landmarks and coefficients.

    ``visible`` and ``yaw`` stay unchanged: a point outside the picture keeps its coordinates, and a rotation in the
    picture plane hardly changes the yaw of an upright head.

    Args:
        batch: Batch of B pictures.
        draws: Random numbers for the B pictures.
        config: Strength of each change; zero switches it off.

    Returns:
        The augmented batch; the same one if there is nothing to change.
    """
    if config.shift or config.zoom or config.turn:
        batch = _move(batch, draws, config)
    if config.light:
        batch = batch._replace(images=_relight(batch.images, draws, config.light))
    if config.border:
        batch = batch._replace(images=_blacken(batch.images, draws, config.border))
    return batch


_WIDEST_BORDER = 0.3
"""Largest width of a black border, over the picture's side; faces cut off further are rarely detected."""


def _uniform(draws: Draws, purpose: str, limit: float, *shape: int) -> torch.Tensor:
    return draws.between(f"augment {purpose}", (-limit, limit), *shape)


def _move(batch: FaceBatch, draws: Draws, config: AugmentConfig) -> FaceBatch:
    device = batch.images.device
    scale = _uniform(draws, "zoom", config.zoom).exp().to(device)  # (B,)
    angle = _uniform(draws, "turn", math.radians(config.turn)).to(device)
    shift = _uniform(draws, "shift", config.shift, 2).to(device)  # (B, 2) pixels
    cos, sin = scale * angle.cos(), scale * angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], dim=-1), torch.stack([sin, cos], dim=-1)], dim=-2)  # (B, 2, 2)
    middle = (CROP_SIZE - 1) / 2

    def moved(points: torch.Tensor) -> torch.Tensor:
        """Transform points ``(B, P, 2 or 3)`` in pixels."""
        flat = (points[..., :2] - middle) @ turn.mT + middle + shift[:, None]
        return torch.cat([flat, points[..., 2:] * scale[:, None, None]], dim=-1)

    return batch._replace(
        images=_warp(batch.images, turn, shift),
        detected=moved(batch.detected),
        landmarks=None if batch.landmarks is None else moved(batch.landmarks),
        marked=None if batch.marked is None else moved(batch.marked),
        coefficients=None if batch.coefficients is None else _move_pose(batch.coefficients, scale, angle, shift),
    )


def _warp(images: torch.Tensor, turn: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Move pixel p of pictures ``(B, 3, S, S)`` to ``turn (p - middle) + middle + shift``; the rest is black."""
    size = images.shape[-1]
    inverse = torch.linalg.inv(turn)  # (B, 2, 2)
    # In the units of affine_grid, half a picture: from -1 to 1 between the outer edges.
    back = torch.cat([inverse, -inverse @ shift[..., None] * (2 / size)], dim=-1)
    grid = functional.affine_grid(back, list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, align_corners=False).round().to(images.dtype)


def _move_pose(
    coefficients: torch.Tensor, scale: torch.Tensor, angle: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Coefficients ``(B, D)`` of the moved faces. In their frame y is up and the centre of the crop is at 60.5."""
    pose, shape, expression = Coefficients.unpack(coefficients)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = [[cos, sin, zero], [-sin, cos, zero], [zero, zero, one]]
    turn = scale[:, None, None] * torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)  # (B, 3, 3)
    turn = turn.to(pose)
    middle = pose.new_tensor([(CROP_SIZE + 1) / 2, (CROP_SIZE + 1) / 2, 0.0])
    step = torch.cat([shift * shift.new_tensor([1.0, -1.0]), torch.zeros_like(shift[:, :1])], dim=-1).to(pose)
    translation = ((pose[..., 3] - middle)[:, None] @ turn.mT)[:, 0] + middle + step
    return Coefficients(torch.cat([turn @ pose[..., :3], translation[..., None]], dim=-1), shape, expression).pack()


def _relight(images: torch.Tensor, draws: Draws, light: float) -> torch.Tensor:
    """Change contrast, brightness and colour balance."""
    contrast = _uniform(draws, "contrast", light, 1).exp() * _uniform(draws, "colour", light / 2, 3).exp()  # (B, 3)
    brightness = 255 * _uniform(draws, "brightness", light / 2, 1)
    contrast, brightness = (part.to(images.device)[..., None, None] for part in (contrast, brightness))
    pixels = images.float()
    mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
    return ((pixels - mean) * contrast + mean + brightness).clamp(0, 255).round().to(images.dtype)


def _blacken(images: torch.Tensor, draws: Draws, share: float) -> torch.Tensor:
    """Add black borders, as in crops that reach beyond their photo."""
    size = images.shape[-1]
    width = draws.uniform("augment border", 2) * _WIDEST_BORDER * size  # (B, 2) pixels, across and down
    # One direction or both; a corner is rarer than an edge.
    has = draws.chance("augment bordered", share)[:, None] & (draws.uniform("augment sides", 2) < 0.6)
    width = torch.where(has, width, torch.zeros_like(width))
    far = draws.uniform("augment which side", 2) < 0.5
    place = torch.arange(size, device=width.device) + 0.5  # (S,)
    distance = torch.where(far[..., None], size - place, place)  # (B, 2, S) from the black side
    kept = distance >= width[..., None]
    inside = kept[:, 1, :, None] & kept[:, 0, None, :]  # (B, S, S)
    return images * inside[:, None].to(images)
