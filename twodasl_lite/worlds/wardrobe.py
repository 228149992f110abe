"""Hair, beards, hats and collars, modelled as changes of the face's own vertices.

A hat is the top of the head, pushed outwards and recoloured. It therefore fits every head, casts shadows, and occludes
by the z-buffer alone. The landmarks stay where the coefficients put them. Which vertices belong to which part follows
from the mean face and its 68 landmarks, so that every face model can be dressed.

Lengths on the head are in units of the distance between the eyes, from the bridge of the nose: x right, y up, z to the
viewer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from twodasl_lite.base.constants import constant_like
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.landmarks import GROUPS
from twodasl_lite.render import srgb_to_linear
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.world import World

_BRIDGE, _CHIN, _NOSE_BASE, _EARS = 27, 8, 33, (0, 16)
_LEFT_EYE, _RIGHT_EYE = (slice(GROUPS[eye][0], GROUPS[eye][-1] + 1) for eye in ("left_eye", "right_eye"))
_SKULL = (0.0, 0.1, -1.5)  # middle of the head; hair and hats stand off in the direction away from it
_EARS_BEGIN = 1.17  # only ears lie farther to the side than this
# Colours of hair, sRGB: black, dark brown, brown, red, blond, grey.
_HAIR_COLOURS = (
    *((0.06, 0.05, 0.05), (0.17, 0.11, 0.08), (0.33, 0.22, 0.14)),
    *((0.5, 0.25, 0.12), (0.72, 0.58, 0.38), (0.6, 0.6, 0.6)),
)
_HAIR_SHARES = (0.34, 0.62, 0.78, 0.83, 0.93)  # cumulative shares of the colours above


class Look(NamedTuple):
    """Faces as they are drawn.

    Attributes:
        vertices: ``(B, V, 3)`` in pixels.
        albedo: ``(B, V, 3)`` linear colours.
        gloss: ``(B, V)`` factor of the highlights.
    """

    vertices: torch.Tensor
    albedo: torch.Tensor
    gloss: torch.Tensor


def eye_distance(landmarks: torch.Tensor) -> torch.Tensor:
    """Distance between the middles of the eyes: ``(..., 68, 3)`` to ``(...)``."""
    left, right = (landmarks[..., eye, :].mean(dim=-2) for eye in (_LEFT_EYE, _RIGHT_EYE))
    return (right - left).norm(dim=-1)


def _step(value: torch.Tensor, width: float) -> torch.Tensor:
    """0 below, 1 above zero, rising over ``width`` around it."""
    return (0.5 + value / width).clamp(0, 1)


class Wardrobe:
    """Dresses the faces of one model.

    Args:
        model: The face model.
    """

    def __init__(self, model: MorphableModel) -> None:
        mean = model.mean.float()
        landmarks = mean[model.landmarks]
        self.unit = eye_distance(landmarks)
        self.place = (mean - landmarks[_BRIDGE]) / self.unit  # (V, 3)
        self.marks = (landmarks - landmarks[_BRIDGE]) / self.unit  # (68, 3)
        centre = self.place.new_tensor(_SKULL)
        away = (self.place - centre) * self.place.new_tensor([1.0, 1.0, 0.9])
        # Below the ears hair hangs down: it stands off only sideways.
        away[:, 1] = away[:, 1].clamp(min=0)
        self.away = torch.nn.functional.normalize(away, dim=-1, eps=1e-6) * self.unit  # (V, 3) model units
        x, y, z = self.place.unbind(-1)
        chin, nose = self.marks[_CHIN], self.marks[_NOSE_BASE]
        self.ear = ear = self.marks[list(_EARS)].mean(dim=0)
        # Beards grow on the front, below the nose, around the mouth, and end under the chin.
        front = _step(z - (ear[2] - 0.1), 0.2)
        under = _step(y - (chin[1] - 0.12), 0.1)
        lips = _step(torch.hypot(x / 0.46, (y + 1.12) / 0.21) - 1.0, 0.2)
        upper = nose[1] - 0.05 - 0.3 * (x.abs() - 0.35).clamp(0, 0.6) + 0.9 * _step(-0.8 - z, 0.6)  # up to the ears
        cheeks = _step(upper - y, 0.2)
        self.beard = front * under * cheeks * lips  # (V,)
        self.neck = chin[1] - y  # how far below the chin

    def dress(self, draws: Draws, world: World, rotation: torch.Tensor, look: Look) -> Look:
        """Dress faces as the world specifies.

        Args:
            draws: Random numbers of B pictures.
            world: World that says how often each item appears.
            rotation: ``(B, 3, 3)`` scaled rotations: model units to pixels, y up.
            look: The bare faces.

        Returns:
            The dressed faces.
        """
        person, occluders = world.person, world.occluders
        vertices, albedo, gloss = look
        offset = torch.zeros_like(gloss)  # (B, V) lengths along `away`
        if person.hair or person.beard or occluders.hat:
            hair_colour, streaks = self._hair_colour(draws)
        if person.beard:
            strength = draws.chance("beard there", person.beard) * draws.between("beard", (0.25, 0.95))
            weight = strength[:, None] * self.beard * (0.75 + 0.5 * streaks).clamp(0, 1)
            albedo = torch.lerp(albedo, (hair_colour * 1.1)[:, None].expand_as(albedo), weight[..., None])
            gloss = gloss * (1 - 0.8 * weight)
        if person.hair:
            weight = self._hair(draws, person.hair)
            colour = hair_colour[:, None] * (0.55 + 0.9 * streaks[..., None])
            albedo = torch.lerp(albedo, colour, weight[..., None])
            thickness = draws.between("hair thickness", (0.06, 0.3), 1)
            offset = offset + weight * thickness * (0.75 + 0.5 * self._waves(draws, "hair lock", (1.0, 4.0)))
            gloss = gloss * (1 - 0.5 * weight)
        if occluders.hat:
            weight = self._hat(draws, occluders.hat)
            cloth = self._cloth(draws, "hat")
            albedo = torch.lerp(albedo, cloth, weight[..., None])
            thickness = draws.between("hat thickness", (0.1, 0.28), 1)
            offset = torch.lerp(offset, thickness.expand_as(offset), weight)
            gloss = gloss * (1 - 0.9 * weight)
        if person.collar:
            there = draws.chance("collar there", person.collar)[:, None]
            weight = there * _step(self.neck - draws.between("collar height", (0.2, 0.9), 1), 0.06)
            albedo = torch.lerp(albedo, self._cloth(draws, "collar"), weight[..., None])
            offset = torch.lerp(offset, draws.between("collar thickness", (0.05, 0.25), 1).expand_as(offset), weight)
            gloss = gloss * (1 - 0.9 * weight)
        shift = (offset[..., None] * self.away) @ rotation.transpose(1, 2)  # (B, V, 3) y up
        vertices = vertices + shift * constant_like(shift, 1.0, -1.0, 1.0)
        return Look(vertices, albedo, gloss)

    def _hair_colour(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, 3)`` linear, and ``(B, V)`` strands, lighter and darker, in [0, 1]."""
        table = constant_like(self.place, *_HAIR_COLOURS)
        colour = table[torch.bucketize(draws.uniform("hair colour"), constant_like(table, *_HAIR_SHARES))]
        colour = colour * torch.exp(0.2 * draws.normal("hair shade", 1, clip=2) + 0.04 * draws.normal("hair tone", 3))
        # Strands run from the crown downwards: noise that changes quickly around the head and slowly along it.
        x, y, z = self.place.unbind(-1)
        around = torch.atan2(x, z - _SKULL[2])  # (V,)
        turns = torch.floor(draws.between("strands", (9.0, 30.0), 2)).unbind(-1)
        phase = draws.between("strand phase", (0.0, 2 * math.pi), 2).unbind(-1)
        first, second = (
            torch.sin(n[:, None] * around + p[:, None] + 2.0 * y) for n, p in zip(turns, phase, strict=True)
        )
        return srgb_to_linear(colour.clamp(0, 1)), 0.5 + 0.25 * (first + second)

    def _waves(self, draws: Draws, purpose: str, frequencies: tuple[float, float]) -> torch.Tensor:
        """Smooth random values ``(B, V)`` in [0, 1] on the head."""
        waves = draws.normal(purpose, 3, 3, clip=2) * draws.between(f"{purpose} frequency", frequencies, 1, 1)
        phase = draws.between(f"{purpose} phase", (0.0, 2 * math.pi), 3, 1)
        x, y, z = self.place.unbind(-1)  # written out: a matrix product would round differently for a single picture
        return 0.5 + torch.sin(waves[..., :1] * x + waves[..., 1:2] * y + waves[..., 2:] * z + phase).mean(dim=1) / 2

    def _hair(self, draws: Draws, share: float) -> torch.Tensor:
        """``(B, V)`` where hair stands off."""
        x, y, z = self.place.unbind(-1)
        ear = self.ear
        there = draws.chance("hair there", share)[:, None]
        forehead = draws.between("hairline", (0.5, 1.15), 1)
        long = draws.chance("long hair", 0.45)[:, None]
        # How far it falls: at the temples to between ear and brow, at the back to the neck, or over the shoulders.
        temples = torch.where(long, draws.between("long hair length", (-2.6, -0.6), 1), 0.2)
        back = torch.where(long, -4.0, draws.between("neckline", (-1.2, -0.3), 1))
        # The parting: the hairline is higher on one side.
        line = forehead + 0.25 * draws.normal("parting", 1, clip=2) * x
        behind = _step(ear[2] + 0.45 - z, 0.5)  # 0 on the face, 1 behind the temples
        edge = torch.lerp(line, torch.lerp(temples, back, _step(ear[2] - 0.5 - z, 0.5)), behind)
        ragged = 0.12 * (self._waves(draws, "hair rim", (3.0, 8.0)) - 0.5)
        ears = _step(x.abs() - _EARS_BEGIN, 0.1) * ~long  # short hair leaves them free
        return there * _step(y - edge + ragged, 0.1) * (1 - ears)

    def _hat(self, draws: Draws, share: float) -> torch.Tensor:
        """``(B, V)`` where a hat or a cap sits: above a plane that may be tilted."""
        x, y, z = self.place.unbind(-1)
        there = draws.chance("hat there", share)[:, None]
        front = draws.between("hat rim", (0.45, 0.95), 1)
        tilt = draws.between("hat tilt", (0.05, 0.35), 1)
        sideways = 0.08 * draws.normal("hat sideways", 1, clip=2)
        return there * _step(y - (front + tilt * z + sideways * x), 0.04)

    def _cloth(self, draws: Draws, purpose: str) -> torch.Tensor:
        """``(B, V, 3)`` linear: one or two colours, in stripes, checks or patches."""
        colours = draws.uniform(f"{purpose} colour", 2, 3) * draws.uniform(f"{purpose} value", 2, 1)
        pattern = 6 * (self._waves(draws, f"{purpose} pattern", (2.0, 14.0)) - 0.5)
        pattern = (0.5 + pattern).clamp(0, 1) * draws.chance(f"{purpose} patterned", 0.5)[:, None]
        colours = srgb_to_linear(colours)[:, :, None]
        return torch.lerp(colours[:, 0], colours[:, 1], pattern[..., None])
