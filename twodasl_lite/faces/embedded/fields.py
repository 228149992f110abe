"""Smooth displacement fields on the template: the vocabulary of identities and expressions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twodasl_lite.faces.embedded import cage_face
from twodasl_lite.faces.embedded.template import Template

MIRROR = np.array([-1.0, 1.0, 1.0])

# Zone around the globe that moves with it as one piece: fully inside the first radius, fading to nothing at the second;
# mm from the centre of the globe.
SOCKET_FULL, SOCKET_END = 14.5, 33.0

# Height of the line between the closed lips by distance from the midline, mm.
PARTING = np.array(cage_face.PARTING)
MOUTH_HALF_WIDTH = float(PARTING[-1, 0])


def smoothstep(edge0: float, edge1: float, x: np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 at ``edge0`` to 1 at ``edge1`` (quintic, so that curvature stays continuous)."""
    t = np.clip((x - edge0) / (edge1 - edge0), 0.0, 1.0)
    return t * t * t * (t * (6.0 * t - 15.0) + 10.0)


class Canvas:
    """Positions of a template with the weight functions that fields are made of.

    Attributes:
        p: template vertices, (V, 3), mm.
        x: abs(x) is used by symmetric fields; y, z: the other coordinates.
        sign: +1 on the subject's left half, -1 on the right one, 0 in the middle.
    """

    def __init__(self, template: Template) -> None:
        """Cache coordinates, socket weights and the height above the parting of the lips.

        The side of the lips is taken from the connectivity, since the two touch.
        """
        self.template = template
        self.p = template.vertices
        self.x, self.y, self.z = np.abs(self.p[:, 0]), self.p[:, 1], self.p[:, 2]
        self.sign = np.sign(self.p[:, 0])
        folded = np.stack([self.x, self.y, self.z], axis=1)
        self.folded = folded
        self.eye_distance = np.linalg.norm(folded - cage_face.EYE_CENTRE, axis=1)
        fade = np.clip((self.eye_distance - SOCKET_FULL) / (SOCKET_END - SOCKET_FULL), 0.0, 1.0)
        self.socket = 1.0 - fade * fade * (3.0 - 2.0 * fade)  # the gentlest slope, so nothing folds
        for side in ("left", "right"):
            self.socket[template.regions[f"eyeball_{side}"]] = 1.0
        height = self.y - np.interp(self.x, PARTING[:, 0], PARTING[:, 1])
        upper, lower = template.regions["mouth_upper"], template.regions["mouth_lower"]
        height[upper] = np.maximum(height[upper], 0.0)
        height[lower] = np.minimum(height[lower], 0.0)
        self.above_parting = height
        # -1 on the lower lip and what lies inside of it, +1 on the upper one, 0 where they meet
        self.lip_side = np.sign(height)
        self.lip_side[upper] = 1.0
        self.lip_side[lower] = -1.0
        self.lip_side[np.intersect1d(upper, lower)] = 0.0

    def blob(self, centre: Sequence[float], radius: float | Sequence[float], half: str = "both") -> np.ndarray:
        """Gaussian weight about a point and, unless ``half`` is "one", its mirror image, (V,).

        Args:
            centre: (x, y, z), mm.
            radius: fall-off, mm, one number or one per axis.
            half: "both": the larger of the two mirrored weights (smoothly joined); "one": this side only.
        """
        c, r = np.asarray(centre, dtype=float), np.asarray(radius, dtype=float)
        own = np.exp(-(((self.p - c) / r) ** 2).sum(axis=1))
        if half == "one":
            return own
        other = np.exp(-(((self.p - c * MIRROR) / r) ** 2).sum(axis=1))
        return own + other - own * other if c[0] else own

    def push(
        self, centre: Sequence[float], radius: float | Sequence[float], vector: Sequence[float], side: int = 0
    ) -> np.ndarray:
        """Displacement by ``vector`` around ``centre`` and its mirror image, (V, 3).

        Args:
            centre: (x, y, z) with x >= 0, mm.
            radius: fall-off, mm.
            vector: displacement at the centre, mm, for the half with x >= 0.
            side: 0: both halves; +1: only the subject's left one; -1: only the right one.
        """
        c, v = np.asarray(centre, dtype=float), np.asarray(vector, dtype=float)
        if c[0] == 0.0:
            return self.blob(c, radius)[:, None] * v
        total = np.zeros_like(self.p)
        if side >= 0:
            total += self.blob(c, radius, "one")[:, None] * v
        if side <= 0:
            total += self.blob(c * MIRROR, radius, "one")[:, None] * (v * MIRROR)
        return total

    def along(self, axis: int, weight: np.ndarray) -> np.ndarray:
        """Displacement along an axis by a weight (V,); along x it points away from the midline, (V, 3)."""
        field = np.zeros_like(self.p)
        field[:, axis] = weight * (self.sign if axis == 0 else 1.0)
        return field

    def blur(self, values: np.ndarray, steps: int) -> np.ndarray:
        """Average values with those of the neighbouring vertices, (V,), ``steps`` times."""
        t = self.template.triangles
        a, b = np.concatenate([t[:, [0, 1]], t[:, [1, 2]], t[:, [2, 0]]]).T
        count = np.bincount(a, minlength=len(values)) + np.bincount(b, minlength=len(values))
        for _ in range(steps):
            total = np.bincount(a, values[b], len(values)) + np.bincount(b, values[a], len(values))
            values = 0.5 * values + 0.5 * total / np.maximum(count, 1)
        return values

    def seat_eyes(self, field: np.ndarray) -> np.ndarray:
        """Make the globe and its lids move as one piece with the socket, (V, 3).

        Args:
            field: displacements, (V, 3), mm.

        Returns:
            The field, replaced near each globe by its mean over the globe's front.
        """
        result = field.copy()
        for side, sign in (("left", 1.0), ("right", -1.0)):
            half = self.p[:, 0] * sign > 0
            rigid = field[self.template.regions[f"iris_{side}"]].mean(axis=0)
            weight = (self.socket * half)[:, None]
            result = result * (1.0 - weight) + weight * rigid
        return result
