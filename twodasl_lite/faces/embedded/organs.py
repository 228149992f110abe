"""Eyeballs, teeth, and where the hair of the brows grows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Ring angles of the globe from the optical axis, degrees. Pupil 4 mm and iris 11.7 mm across on a 12 mm globe
# (Bekerman et al. 2014; Rüfer et al. 2005, horizontal corneal diameter 11.7 mm).
PUPIL_ANGLE = 9.0
IRIS_ANGLE = 29.0
GLOBE_RINGS = np.array([5.0, 8.6, 10.0, 14.0, 19.0, 24.0, 28.0, 30.2, 36.0, 45.0, 54.0, 64.0, 78.0, 100.0])
GLOBE_SEGMENTS = 22
CORNEA_RISE = 0.7  # mm, how far the cornea stands out of the sphere

# Dental arch (mm): half width and depth of the front surface, and heights of the gum line and of the biting
# edge.
TEETH_COLUMNS = 15
ARCH_HALF_WIDTH = 24.0
ARCH_FRONT = 92.5
ARCH_DEPTH = 26.0
UPPER_GUM, UPPER_EDGE = -58.5, -68.8
LOWER_GUM, LOWER_EDGE = -77.5, -68.6


@dataclass(frozen=True)
class Organ:
    """A small separate surface.

    Attributes:
        vertices: (V, 3), mm.
        triangles: (T, 3), counter-clockwise from outside.
        mirror: (V,), index of each vertex's mirror image, counted from this piece's first vertex (so an index of the
            twin piece may be negative or beyond the end).
        regions: vertex indices by region name, counted from this piece's first vertex.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    mirror: np.ndarray
    regions: dict[str, np.ndarray]


def eyeballs(centre: np.ndarray, radius: float) -> tuple[Organ, Organ]:
    """Build the left (x > 0) and the right globe, looking along +z.

    Args:
        centre: centre of the left globe, (3,), mm.
        radius: radius, mm.

    Returns:
        Left and right globe with the regions ``eyeball_*``, ``iris_*`` (with the pupil) and ``pupil_*``.
    """
    angle = np.radians(GLOBE_RINGS)
    turn = 2 * np.pi * np.arange(GLOBE_SEGMENTS) / GLOBE_SEGMENTS
    rise = CORNEA_RISE * np.clip(1.0 - (GLOBE_RINGS / (IRIS_ANGLE + 2.0)) ** 2, 0.0, None)
    ring = np.stack(
        [
            np.outer(np.sin(angle), np.cos(turn)) * (radius + rise)[:, None],
            np.outer(np.sin(angle), np.sin(turn)) * (radius + rise)[:, None],
            np.repeat((np.cos(angle) * (radius + rise))[:, None], GLOBE_SEGMENTS, axis=1),
        ],
        axis=-1,
    ).reshape(-1, 3)
    local = np.concatenate([[[0.0, 0.0, radius + CORNEA_RISE]], ring])
    triangles = [(0, 1 + k, 1 + (k + 1) % GLOBE_SEGMENTS) for k in range(GLOBE_SEGMENTS)]
    for row in range(len(GLOBE_RINGS) - 1):
        for k in range(GLOBE_SEGMENTS):
            a = 1 + row * GLOBE_SEGMENTS + k
            b = 1 + row * GLOBE_SEGMENTS + (k + 1) % GLOBE_SEGMENTS
            triangles += [(a, a + GLOBE_SEGMENTS, b), (b, a + GLOBE_SEGMENTS, b + GLOBE_SEGMENTS)]
    left_triangles = np.array(triangles)
    count = len(local)
    ring_of = np.r_[0.0, np.repeat(GLOBE_RINGS, GLOBE_SEGMENTS)]

    def regions(side: str) -> dict[str, np.ndarray]:
        return {
            f"eyeball_{side}": np.arange(count),
            f"iris_{side}": np.nonzero(ring_of < IRIS_ANGLE)[0],
            f"pupil_{side}": np.nonzero(ring_of < PUPIL_ANGLE)[0],
        }

    twin = np.arange(count) + count
    left = Organ(centre + local, left_triangles, twin, regions("left"))
    right = Organ((centre + local) * [-1.0, 1.0, 1.0], left_triangles[:, ::-1], twin - 2 * count, regions("right"))
    return left, right


def _dental_arch(gum: float, edge: float, front: float, name: str) -> Organ:
    half = np.linspace(0.0, 1.0, (TEETH_COLUMNS + 1) // 2)
    t = np.concatenate([-half[:0:-1], half])
    x = ARCH_HALF_WIDTH * np.sin(0.5 * np.pi * t * 0.96)
    z = front - ARCH_DEPTH * (1.0 - np.cos(0.5 * np.pi * t * 0.96)) * 1.1
    middle = 0.5 * (gum + edge)
    rows = [(gum, -1.2), (middle, 0.3), (edge, -0.4), (edge, -3.0), (gum, -6.0)]
    points = [np.stack([x, np.full_like(x, y), z + back], axis=1) for y, back in rows]
    vertices = np.concatenate(points)
    triangles = []
    for row in range(len(rows) - 1):
        for k in range(TEETH_COLUMNS - 1):
            a, b = row * TEETH_COLUMNS + k, row * TEETH_COLUMNS + k + 1
            c, d = a + TEETH_COLUMNS, b + TEETH_COLUMNS
            # the diagonal is mirrored about the middle column
            quad = [(a, c, b), (b, c, d)] if k < TEETH_COLUMNS // 2 else [(a, c, d), (a, d, b)]
            triangles += [tri[::-1] for tri in quad] if gum < edge else quad
    index = np.arange(len(vertices)).reshape(len(rows), TEETH_COLUMNS)
    return Organ(vertices, np.array(triangles), index[:, ::-1].ravel(), {name: index.ravel()})


def teeth() -> tuple[Organ, Organ]:
    """Build the two rows of teeth as plain arches (regions ``teeth_upper`` and ``teeth_lower``)."""
    return (
        _dental_arch(UPPER_GUM, UPPER_EDGE, ARCH_FRONT, "teeth_upper"),
        _dental_arch(LOWER_GUM, LOWER_EDGE, ARCH_FRONT - 2.5, "teeth_lower"),
    )


# Brow: centre line (x, y) from the head to the tail, half thickness, mm (x >= 0; Farkas 1994: highest at
# the outer third).
BROW_LINE = np.array(
    [
        (11.5, 18.4),
        (16.0, 19.8),
        (23.0, 21.4),
        (31.0, 22.8),
        (39.0, 22.8),
        (46.0, 20.6),
        (51.0, 17.4),
        (54.0, 15.0),
    ]
)
BROW_HALF = np.array([2.6, 3.4, 3.7, 3.5, 3.1, 2.6, 2.2, 1.8])
BROW_STRENGTH = np.array([0.45, 0.85, 1.0, 1.0, 1.0, 0.95, 0.75, 0.4])


def brow_density(vertices: np.ndarray) -> np.ndarray:
    """How dense the hair of the brows is, from 0 to 1.

    Args:
        vertices: points on the face, (V, 3), mm.

    Returns:
        Density, (V,).
    """
    fine = np.linspace(0, len(BROW_LINE) - 1, 60)
    line = np.stack([np.interp(fine, np.arange(len(BROW_LINE)), BROW_LINE[:, c]) for c in range(2)], axis=1)
    half = np.interp(fine, np.arange(len(BROW_LINE)), BROW_HALF)
    point = np.stack([np.abs(vertices[:, 0]), vertices[:, 1]], axis=1)
    distance = np.linalg.norm(point[:, None] - line[None], axis=2) / half  # (V, 60)
    density = np.clip(1.5 - distance.min(axis=1), 0.0, 0.85) / 0.85
    strength = np.interp(fine, np.arange(len(BROW_LINE)), BROW_STRENGTH)
    density = density * strength[distance.argmin(axis=1)]
    return density * (vertices[:, 2] > 50.0)
