"""Occluders in front of a face: glasses, masks, hands, microphones, bars, and whatever else people hold up.

They are meshes added to the face's, drawn by the same z-buffer under the same lamps, so occlusion, shadows and
highlights need no special treatment. The mesh is the same in every picture; an occluder that a picture lacks is shrunk
to a point, which covers nothing.

Lengths are in units of the distance between the eyes. Positions are in pixels, **y up** (the pixels' y, negated), until
the very end.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch.nn import functional

from twodasl_lite.base.constants import constant, constant_like
from twodasl_lite.render import srgb_to_linear
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.wardrobe import Look, eye_distance
from twodasl_lite.worlds.world import Occluders

_BRIDGE = 27
_RINGS, _SIDES = 10, 10  # of a capsule
_RIM, _TUBE = 20, 4  # corners around a lens, and around its frame
_PALM, _FINGERS, _BALL, _STICK, _THING, _BARS = 0, (1, 2, 3, 4, 5), 6, 7, 8, (9, 10, 11)
_HAND, _MICROPHONE, _FENCE = slice(0, 6), slice(6, 8), slice(9, 12)  # those with several capsules
_CAPSULES = 12
_MASK_ROWS, _MASK_COLUMNS = 9, 13


class _Frame(NamedTuple):
    """Positions and orientations of B heads.

    Attributes:
        origin: ``(B, 3)`` bridge of the nose, pixels, y up.
        axes: ``(B, 3, 3)`` columns: the head's right, up and front.
        unit: ``(B,)`` pixels between the eyes.
        marks: ``(B, 68, 3)`` landmarks, pixels, y up.
    """

    origin: torch.Tensor
    axes: torch.Tensor
    unit: torch.Tensor
    marks: torch.Tensor

    def place(self, points: torch.Tensor) -> torch.Tensor:
        """From the head's own units ``(B, N, 3)`` or ``(N, 3)`` to pixels ``(B, N, 3)``."""
        return self.origin[:, None] + self.unit[:, None, None] * (points @ self.axes.transpose(1, 2))


def _paints(draws: Draws, purpose: str) -> torch.Tensor:
    """``(B, 2, 3)`` two linear colours of an object: mostly dull, dark more often than light."""
    grey = draws.uniform(f"{purpose} grey", 2, 1) ** 1.5
    strong = draws.uniform(f"{purpose} strong", 2, 1) ** 3
    return srgb_to_linear(torch.lerp(grey.expand(-1, -1, 3), draws.uniform(f"{purpose} colour", 2, 3), strong))


def _grid_triangles(rows: int, columns: int, closed: bool) -> torch.Tensor:
    """``(T, 3)`` triangles of a grid of vertices; ``closed`` joins its last column to the first."""
    row, column = torch.meshgrid(
        torch.arange(rows - 1), torch.arange(columns if closed else columns - 1), indexing="ij"
    )
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    return torch.cat([torch.stack([a, b, d], dim=-1).reshape(-1, 3), torch.stack([a, d, c], dim=-1).reshape(-1, 3)])


def _capsule() -> tuple[torch.Tensor, torch.Tensor]:
    """A capsule's vertices as (share of the way from end to end, and a unit vector: along, across, up): ``(N, 4)``."""
    latitude = torch.linspace(-math.pi / 2, math.pi / 2, _RINGS)[:, None]
    longitude = torch.arange(_SIDES)[None] * (2 * math.pi / _SIDES)
    along = latitude.sin().expand(-1, _SIDES)
    far = (latitude > 0).float().expand(-1, _SIDES)
    vertices = torch.stack([far, along, latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin()], dim=-1)
    return vertices.reshape(-1, 4), _grid_triangles(_RINGS, _SIDES, closed=True)


class Props:
    """All occluders that may be held in front of a face or worn on it.

    Attributes:
        triangles: ``(T, 3)`` triangles of all of them.
        size: Number of vertices of all of them.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._capsule, capsule = _capsule()
        self._capsule = self._capsule.to(device)
        tube = _grid_triangles(_RIM + 1, _TUBE, closed=True)
        lens = torch.tensor([[0, k + 1, (k + 1) % _RIM + 1] for k in range(_RIM)])
        arm = _grid_triangles(2, _TUBE, closed=True)
        mask = _grid_triangles(_MASK_ROWS, _MASK_COLUMNS, closed=False)
        parts = [capsule] * _CAPSULES + [tube, tube, arm, arm, arm, lens, lens, mask]
        sizes = [len(self._capsule)] * _CAPSULES
        sizes += [(_RIM + 1) * _TUBE] * 2 + [2 * _TUBE] * 3 + [_RIM + 1] * 2 + [_MASK_ROWS * _MASK_COLUMNS]
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        self.triangles = torch.cat([part + start for part, start in zip(parts, starts, strict=True)]).to(device)
        self.size = sum(sizes)

    def place(
        self, draws: Draws, settings: Occluders, landmarks: torch.Tensor, axes: torch.Tensor, skin: torch.Tensor
    ) -> Look:
        """Place occluders on faces.

        Args:
            draws: Random numbers of B pictures.
            settings: Frequency of each occluder.
            landmarks: ``(B, 68, 3)`` landmarks in pixels.
            axes: ``(B, 3, 3)`` rotations from the model's frame to the upright one.
            skin: ``(B, 3)`` linear colour of the face, for hands.

        Returns:
            ``size`` vertices with their colours.
        """
        marks = landmarks * constant_like(landmarks, 1.0, -1.0, 1.0)
        frame = _Frame(marks[:, _BRIDGE], axes, eye_distance(marks), marks)
        looks = [
            *self._capsules(draws, settings, frame, skin),
            *_glasses(draws, settings, frame),
            _mask(draws, settings, frame),
        ]
        vertices, albedo, gloss = (torch.cat(parts, dim=1) for parts in zip(*looks, strict=True))
        return Look(vertices * constant_like(vertices, 1.0, -1.0, 1.0), albedo, gloss)

    # --------------------------------------------------------------------------------------------- made of capsules
    def _capsules(self, draws: Draws, settings: Occluders, frame: _Frame, skin: torch.Tensor) -> list[Look]:
        """Twelve capsules; those of absent occluders have no extent."""
        batch, device = draws.size, skin.device
        first = frame.origin[:, None].repeat(1, _CAPSULES, 1)  # ends (B, C, 3)
        second = first.clone()
        radius = torch.zeros(batch, _CAPSULES, device=device)
        flat = torch.ones(batch, _CAPSULES, device=device)
        colours = torch.zeros(batch, _CAPSULES, 2, 3, device=device)
        stripes = torch.zeros(batch, _CAPSULES, device=device)
        gloss = torch.full((batch, _CAPSULES), 0.6, device=device)
        unit, viewer = frame.unit[:, None], constant((0.0, 0.0, 1.0), device)

        def towards(angle: torch.Tensor) -> torch.Tensor:
            """``(B, 3)`` directions in the picture's plane."""
            return torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)

        def near(purpose: str, number: torch.Tensor, spread: float, ahead: tuple[float, float]) -> torch.Tensor:
            """``(B, 3)`` random points near a landmark, in front of it."""
            base = frame.marks[torch.arange(batch, device=device), number]
            shift = spread * draws.normal(f"{purpose} shift", 2, clip=2)
            depth = draws.between(f"{purpose} depth", ahead, 1)
            return base + unit * torch.cat([shift, depth], dim=-1)

        # A hand: a flat palm and five fingers that are spread like a fan, coming from somewhere below or beside.
        there = draws.chance("hand", settings.hand)
        jaw = draws.choice("hand place", 17)
        palm = near("hand", jaw, 0.2, (0.5, 0.7))
        outward = functional.normalize((palm - frame.marks.mean(dim=1))[:, :2], dim=-1, eps=1e-3)
        inward = torch.atan2(-outward[:, 1], -outward[:, 0]) + 0.5 * draws.normal("hand turn", clip=2)
        size = draws.between("hand size", (0.75, 1.05))
        side = torch.where(draws.uniform("hand side") < 0.5, -1.0, 1.0)
        length = unit * size[:, None]
        first[:, _PALM] = palm - 0.45 * length * towards(inward)
        second[:, _PALM] = palm
        radius[:, _PALM] = 0.42 * length[:, 0]
        flat[:, _PALM].fill_(0.4)
        spread = draws.between("fingers spread", (0.08, 0.24))
        for place, finger in enumerate(_FINGERS):
            thumb = finger == _FINGERS[-1]
            turn = side * (spread * (place - 1.5) if not thumb else 0.9 + spread)
            across = side * (0.26 * (place - 1.5) if not thumb else 0.38)
            root = palm + length * (
                across[:, None] * towards(inward + math.pi / 2) + (0.2 if not thumb else -0.3) * towards(inward)
            )
            reach = (0.85, 1.0, 0.95, 0.75, 0.7)[place] * draws.between(f"finger {place}", (0.75, 1.05), 1)
            bend = draws.between(f"finger {place} bend", (-0.25, 0.05), 1)
            first[:, finger] = root
            second[:, finger] = root + length * (reach * towards(inward + turn) + bend * viewer)
            radius[:, finger] = 0.115 * length[:, 0]
        shade = torch.exp(0.1 * draws.normal("hand colour", 1, 1, 3, clip=2))
        colours[:, _HAND] = (skin[:, None, None] * shade).clamp(0, 1)
        radius[:, _HAND] *= there[:, None]

        # A microphone: a ball in front of or below the mouth, on a stick.
        there = draws.chance("microphone", settings.microphone)
        ball = near("microphone", torch.where(draws.uniform("microphone low") < 0.6, 8, 57), 0.25, (0.35, 0.6))
        direction = towards(draws.between("microphone turn", (-2.6, -0.5)))
        first[:, _BALL] = second[:, _BALL] = ball
        first[:, _STICK], second[:, _STICK] = ball, ball + 4 * unit * direction
        radius[:, _BALL] = unit[:, 0] * there * draws.between("microphone size", (0.2, 0.36))
        radius[:, _STICK] = 0.5 * radius[:, _BALL]
        dark = draws.uniform("microphone colour", 2, 3) * draws.between("microphone value", (0.05, 0.4), 2, 1)
        colours[:, _MICROPHONE] = dark[:, :, None] ** 2
        gloss[:, _MICROPHONE].fill_(1.5)

        # Bars: of a fence, a lamp post, a glass, a stick; parallel, across the picture.
        there = draws.chance("bars", settings.bars)
        angle = draws.between("bars turn", (-0.4, 0.4)) + torch.where(draws.chance("bars upright", 0.6), math.pi / 2, 0)
        along, across = towards(angle), towards(angle + math.pi / 2)
        number = draws.choice("bars number", len(_BARS))
        gap = draws.between("bars gap", (0.7, 1.4), 1)
        centre = near("bars", draws.choice("bars place", 68), 0.3, (1.0, 1.6))
        for place, bar in enumerate(_BARS):
            middle = centre + unit * gap * (place - 1) * across
            first[:, bar], second[:, bar] = middle - 6 * unit * along, middle + 6 * unit * along
            radius[:, bar] = unit[:, 0] * draws.between("bars size", (0.05, 0.16)) * (there & (place <= number))
        colours[:, _FENCE] = _paints(draws, "bars")[:, None]
        stripes[:, _FENCE] = draws.between("bars stripes", (0.0, 60.0), 1)

        # A thing: anything from a ball to a bottle or a phone, at the rim of the face more often than in its middle.
        there = draws.chance("thing", settings.thing)
        number = draws.choice("thing place", 27)  # the jaw, the brows
        thing = near("thing", number, 0.35, (0.7, 1.2))
        direction = towards(draws.between("thing turn", (-math.pi, math.pi)))
        half = unit * draws.between("thing length", (0.0, 0.9), 1)
        first[:, _THING], second[:, _THING] = thing - half * direction, thing + half * direction
        radius[:, _THING] = unit[:, 0] * there * draws.between("thing size", (0.15, 0.5))
        flat[:, _THING] = draws.between("thing flat", (0.2, 1.0))
        colours[:, _THING] = _paints(draws, "thing")
        stripes[:, _THING] = draws.between("thing stripes", (0.0, 14.0))
        gloss[:, _THING] = draws.between("thing gloss", (0.0, 2.0))

        first, second = (torch.where(radius[..., None] > 0, end, frame.origin[:, None]) for end in (first, second))
        axis = functional.normalize(second - first, dim=-1, eps=1e-6)
        axis = torch.where((second - first).norm(dim=-1, keepdim=True) > 1e-3, axis, constant_like(axis, 1.0, 0.0, 0.0))
        across = functional.normalize(torch.linalg.cross(viewer.expand_as(axis), axis), dim=-1, eps=1e-6)
        up = torch.linalg.cross(axis, across) * flat[..., None]
        share, *unit_vector = self._capsule.unbind(-1)  # each (N,)
        vertices = torch.lerp(first[:, :, None], second[:, :, None], share[:, None])  # (B, C, N, 3)
        for direction, component in zip((axis, across, up), unit_vector, strict=True):
            vertices = vertices + (radius[..., None] * component)[..., None] * direction[:, :, None]
        wave = torch.sin(stripes[..., None] * (share + 0.3 * unit_vector[1] + 0.5 * unit_vector[0]))[..., None]
        albedo = torch.lerp(colours[:, :, None, 0], colours[:, :, None, 1], (0.5 + 2 * wave).clamp(0, 1))
        flat_shape = (batch, -1, 3)
        return [
            Look(
                vertices.reshape(flat_shape),
                albedo.reshape(flat_shape),
                gloss[..., None].expand(vertices.shape[:3]).reshape(batch, -1),
            )
        ]


def _glasses(draws: Draws, settings: Occluders, frame: _Frame) -> list[Look]:
    """Two rims, a bridge and two arms, and two lenses if they are dark."""
    there, dark = draws.chance("glasses", settings.glasses), draws.chance("dark glasses", 0.5)
    batch, device = draws.size, there.device
    scale = there[:, None, None].float()
    width = draws.between("glasses width", (0.3, 0.42), 1)
    height = draws.between("glasses height", (0.2, 0.36), 1)
    low = draws.between("glasses low", (-0.12, 0.02), 1)
    square = draws.between("glasses square", (2.0, 5.0), 1)
    thick = draws.between("glasses thick", (0.012, 0.05), 1, 1)
    ahead = 0.16
    turn = torch.arange(_RIM, device=device) * (2 * math.pi / _RIM)
    cosine, sine = turn.cos(), turn.sin()
    # A superellipse: from a circle to almost a rectangle.
    reach = (cosine.abs() ** square + sine.abs() ** square) ** (-1 / square)  # (B, R)
    colour = (draws.uniform("glasses colour", 1, 3) * draws.uniform("glasses value", 1, 1) ** 2) ** 2
    tint = (draws.uniform("lens colour", 1, 3) * 0.12) ** 2 + 0.002

    def tube(line: torch.Tensor, outward: torch.Tensor) -> torch.Tensor:
        """Vertices ``(B, L * 4, 3)`` around a line ``(B, L, 3)`` on the head; ``outward`` is across it, to the side."""
        front = constant_like(line, 0.0, 0.0, 1.0)
        around = torch.stack([outward, front.expand_as(outward), -outward, -front.expand_as(outward)], dim=2)
        return (line[:, :, None] + thick[..., None] * around).flatten(1, 2)

    def placed(points: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        points = frame.place(points)
        return torch.lerp(frame.origin[:, None].expand_as(points), points, shown)

    rims, lenses, corners = [], [], []
    for side in (-1.0, 1.0):
        x = side * 0.5 + width * cosine * reach
        y = low + height * sine * reach
        z = ahead - 0.1 * (x.abs() - 0.2).clamp(min=0) ** 2 - 0.12 * (x.abs() - 0.1).clamp(min=0)
        rim = torch.stack([x, y, z], dim=-1)  # (B, R, 3)
        outward = torch.stack([cosine, sine, torch.zeros_like(sine)], dim=-1).expand_as(rim)
        closed = tube(torch.cat([rim, rim[:, :1]], dim=1), torch.cat([outward, outward[:, :1]], dim=1))
        rims.append(placed(closed, scale))
        middle = rim.mean(dim=1, keepdim=True)
        lens = torch.cat([middle, rim], dim=1)
        lenses.append(placed(lens, scale * dark[:, None, None]))
        corners.append(rim[:, :: _RIM // 2])  # its right and left ends
    up = constant((0.0, 1.0, 0.0), device).expand(batch, 2, 3)
    (outer_left, inner_left), (inner_right, outer_right) = (
        (corners[0][:, 1], corners[0][:, 0]),
        (corners[1][:, 1], corners[1][:, 0]),
    )
    lines = [torch.stack([inner_left, inner_right], dim=1)]
    for outer, ear in ((outer_left, 0), (outer_right, 16)):
        end = (frame.marks[:, ear] - frame.origin)[:, None] @ frame.axes / frame.unit[:, None, None]  # (B, 1, 3)
        end = end[:, 0] + constant_like(end, 0.05 if ear else -0.05, 0.1, -0.5)
        lines.append(torch.stack([outer, end], dim=1))
    arms = [placed(tube(line, up), scale) for line in lines]

    def painted(vertices: torch.Tensor, paint: torch.Tensor, gloss: float) -> Look:
        return Look(vertices, paint.expand_as(vertices), torch.full_like(vertices[..., 0], gloss))

    return [
        *(painted(part, colour, 1.5) for part in (*rims, *arms)),
        *(painted(part, tint, 1.5) for part in lenses),
    ]


# A mask is spanned between landmarks, from its upper rim to the chin and from left to right. Each knot names the
# landmarks (the mean of two) and how far the mask stands off there: to the side, upwards and to the front.
_MASK_KNOTS = (
    (
        ((2, 2), (-0.06, 0.0, 0.0)),
        ((2, 28), (-0.1, 0.0, 0.3)),
        ((28, 28), (0.0, 0.0, 0.1)),
        ((14, 28), (0.1, 0.0, 0.3)),
        ((14, 14), (0.06, 0.0, 0.0)),
    ),
    (
        ((4, 4), (-0.08, 0.0, 0.02)),
        ((4, 33), (-0.15, 0.0, 0.5)),
        ((33, 33), (0.0, 0.0, 0.5)),
        ((12, 33), (0.15, 0.0, 0.5)),
        ((12, 12), (0.08, 0.0, 0.02)),
    ),
    (
        ((6, 6), (-0.08, 0.0, 0.05)),
        ((7, 8), (-0.05, 0.0, 0.12)),
        ((8, 8), (0.0, 0.0, 0.14)),
        ((9, 8), (0.05, 0.0, 0.12)),
        ((10, 10), (0.08, 0.0, 0.05)),
    ),
)


@cache
def _through(steps: int, number: int) -> tuple[tuple[float, ...], ...]:
    """Weights ``(steps, number)`` of the polynomial through equally spaced knots, at equally spaced places."""
    knots, share = torch.linspace(0, 1, number), torch.linspace(0, 1, steps)
    others = [[k for k in range(number) if k != j] for j in range(number)]
    weights = [((share[:, None] - knots[rest]) / (knots[j] - knots[rest])).prod(dim=1) for j, rest in enumerate(others)]
    return tuple(tuple(row) for row in torch.stack(weights, dim=1).tolist())


def _mask(draws: Draws, settings: Occluders, frame: _Frame) -> Look:
    """A cloth over nose and mouth, spanned between landmarks."""
    there = draws.chance("mask", settings.mask)
    rows = torch.linspace(0, 1, _MASK_ROWS, device=there.device)
    pairs, offsets = zip(*(knot for row in _MASK_KNOTS for knot in row), strict=True)
    ends = constant(pairs, there.device, torch.long)  # (K, 2)
    along_axes = constant_like(frame.axes, *offsets)  # (K, 3)
    middles = (frame.marks[:, ends[:, 0]] + frame.marks[:, ends[:, 1]]) / 2
    # Written out, because a matrix product rounds differently for a single picture.
    stand_off = sum(along_axes[:, k, None] * frame.axes[:, None, :, k] for k in range(3))  # (B, K, 3)
    knots = middles + frame.unit[:, None, None] * stand_off
    knots = knots.unflatten(1, (len(_MASK_KNOTS), -1))  # (B, 3, 5, 3)
    along = constant_like(knots, *_through(_MASK_ROWS, knots.shape[1]))
    across = constant_like(knots, *_through(_MASK_COLUMNS, knots.shape[2]))
    surface = torch.einsum("rk,cl,bkld->brcd", along, across, knots).flatten(1, 2)
    vertices = torch.where(there[:, None, None], surface, frame.origin[:, None])
    colour = draws.between("mask colour", (0.3, 1.0), 1, 3) * draws.between("mask value", (0.15, 1.0), 1, 1)
    folds = 1 - 0.18 * (torch.sin(rows * draws.between("mask folds", (8.0, 26.0), 1)) > 0.3)  # (B, rows)
    folds = folds[:, :, None].expand(-1, -1, _MASK_COLUMNS).flatten(1)[..., None]
    albedo = srgb_to_linear(colour * folds)
    return Look(vertices, albedo, torch.full_like(vertices[..., 0], 0.1))
