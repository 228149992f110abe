"""Sculpted detail finer than the cage: folds, grooves and ridges pushed along the surface normal.

Every stroke is a polyline on the half with x >= 0; the surface is pushed by ``amount`` (mm, positive
outwards) with a Gaussian fall-off of the given radius (mm) around it, on both halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from twodasl_lite.faces.embedded import cage_face as face
from twodasl_lite.faces.embedded.organs import brow_density

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Stroke:
    """A named push along a polyline: points, radius, amount (mm), and the tags it may touch (None: all)."""

    name: str
    points: list[Point]
    radius: float
    amount: float
    tags: frozenset[str] | None = None


FACE = frozenset(
    {
        "forehead",
        "forehead_high",
        "neck_top",
        "orbit",
        "eyelid",
        "nose",
        "lip_upper",
        "lip_lower",
        "mouth_skin",
        "cheek",
        "cheek_back",
        "neck",
        "cranium",
        "cranium_back",
    }
)
LID = frozenset({"eyelid", "orbit"})

STROKES = [
    Stroke("upper lid crease", face.LID_CREASE[1:8], 1.1, -0.8, LID),
    Stroke("pretarsal lower lid", face.LID_MIDDLE[9:15], 1.4, 0.35, LID),
    Stroke("tear trough", [(13.5, -6.0, 84.5), (20.0, -12.5, 84.0), (28.0, -17.0, 82.5),
    (35.0, -18.0, 80.5)], 2.6, -0.8, FACE),
    Stroke("alar groove", [(13.2, -28.4, 105.4), (15.8, -28.8, 100.2), (20.0, -35.8, 92.6),
    (19.0, -44.0, 92.0)], 1.9, -0.9, FACE),
    Stroke("wing of the nose", [(14.0, -33.5, 107.5), (17.2, -37.5, 100.5),
    (17.0, -42.0, 97.2)], 2.6, 0.6, FACE),
    Stroke("nasolabial fold", [(21.0, -42.0, 91.5), (27.0, -52.0, 90.3), (32.0, -62.0, 86.6),
    (34.5, -70.0, 84.5)], 2.6, -0.7, FACE),
    Stroke("philtrum", [(0.0, -49.5, 103.5), (0.0, -57.5, 104.6)], 2.6, -0.5, FACE),
    Stroke("philtral column", [(4.2, -49.0, 103.6), (5.4, -57.5, 105.2)], 1.9, 0.3, FACE),
    Stroke("vermilion border", [face.LIP_BORDER[k] for k in range(5)], 0.9, 0.35, FACE),
    Stroke("lower vermilion border", [face.LIP_BORDER[k] for k in range(7, 11)], 1.0, 0.25, FACE),
    Stroke("labiomental sulcus", [(0.0, -87.0, 95.6), (9.0, -86.6, 94.2)], 3.6, -0.8, FACE),
    Stroke("corner of the mouth", [(28.5, -68.0, 88.4), (30.0, -70.5, 87.6)], 1.8, -0.3, FACE),
    Stroke("zygomatic arch", [(46.0, -27.0, 77.5), (58.0, -22.0, 63.0), (67.5, -17.0, 38.0),
    (69.5, -14.0, 20.0)], 9.0, 0.7, FACE),
    Stroke("hollow of the cheek", [(56.0, -52.0, 63.0), (60.0, -58.0, 50.0)], 11.0, -1.6, FACE),
    Stroke("temple", [(63.0, 22.0, 53.0), (67.0, 30.0, 38.0)], 13.0, -1.6, FACE),
    Stroke("brow ridge", [(10.0, 16.0, 97.5), (22.0, 19.0, 94.8), (34.0, 21.0, 91.0)], 6.0, 0.6, FACE),
    Stroke("jaw line", [(36.0, -101.0, 66.0), (47.0, -91.5, 48.0), (54.0, -83.0, 24.0),
    (57.0, -77.0, 10.0)], 6.5, 0.8, frozenset({"cheek", "cheek_back"})),
    Stroke("under the jaw", [(34.0, -112.0, 50.0), (47.0, -101.0, 26.0),
    (53.0, -90.0, 4.0)], 11.0, -0.8, FACE),
    Stroke("sternomastoid", [(58.0, -62.0, -15.0), (44.0, -112.0, 8.0), (24.0, -155.0, 24.0),
    (12.0, -184.0, 20.0)], 9.0, 1.8, FACE),
    Stroke("larynx", [(0.0, -136.0, 39.0), (0.0, -150.0, 33.0)], 8.0, 2.6, FACE),
    Stroke("throat hollow", [(22.0, -140.0, 30.0), (15.0, -165.0, 26.0)], 9.0, -1.2, FACE),
]  # fmt: skip

# Places where cage faces of odd shape meet are relaxed first: centre (mm) and radius (mm).
RELAXED: list[tuple[Point, float]] = [
    ((12.6, -26.0, 105.5), 6.0),
    ((50.0, -24.0, 73.0), 9.0),
    ((53.0, -80.0, 52.0), 12.0),
]
RELAX_STEPS = 8

BROW_RELIEF = 0.5  # mm, thickness of the brow hair


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals of the vertices, (V, 3)."""
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    total = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            total[:, axis] += np.bincount(triangles[:, corner], normal[:, axis], minlength=len(vertices))
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def distance_to_polyline(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance of points (V, 3) to a polyline (P, 3), mm, (V,)."""
    best = np.full(len(points), np.inf)
    for start, end in pairwise(line):
        along = end - start
        t = np.clip((points - start) @ along / (along @ along), 0.0, 1.0)
        best = np.minimum(best, np.linalg.norm(points - start - t[:, None] * along, axis=1))
    return best


def _relax(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Average the vertices near the ``RELAXED`` places with their neighbours, (V, 3)."""
    folded = vertices * np.where(vertices[:, :1] < 0, [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    weight = np.zeros(len(vertices))
    for centre, radius in RELAXED:
        weight = np.maximum(weight, np.exp(-((np.linalg.norm(folded - centre, axis=1) / radius) ** 2)))
    a, b = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0).T
    count = np.bincount(np.concatenate([a, b]), minlength=len(vertices))[:, None]
    result = vertices.copy()
    for _ in range(RELAX_STEPS):
        total = np.zeros_like(result)
        np.add.at(total, a, result[b])
        np.add.at(total, b, result[a])
        result += 0.5 * weight[:, None] * (total / np.maximum(count, 1) - result)
    return result


def sculpt(vertices: np.ndarray, triangles: np.ndarray, by_tag: dict[str, np.ndarray]) -> np.ndarray:
    """Add the strokes to the subdivided cage.

    Args:
        vertices: smooth surface, (V, 3), mm.
        triangles: (T, 3).
        by_tag: vertex indices by face tag (``tag:L``, ``tag:R``).

    Returns:
        Sculpted surface, (V, 3), mm.
    """
    vertices = _relax(vertices, triangles)
    normal = vertex_normals(vertices, triangles)
    folded = vertices * np.where(vertices[:, :1] < 0, [-1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    push = np.zeros(len(vertices))
    for stroke in STROKES:
        weight = stroke.amount * np.exp(-((distance_to_polyline(folded, np.array(stroke.points)) / stroke.radius) ** 2))
        if stroke.tags is not None:
            inside = np.zeros(len(vertices), dtype=bool)
            for tag, index in by_tag.items():
                if tag.split(":")[0] in stroke.tags:
                    inside[index] = True
            weight *= inside
        push += weight
    skin = np.zeros(len(vertices), dtype=bool)
    for tag, index in by_tag.items():
        if tag.split(":")[0] in FACE:
            skin[index] = True
    push += BROW_RELIEF * brow_density(vertices) * skin
    return vertices + push[:, None] * normal
