"""The head template: subdivided cage, sculpted detail, eyeballs and teeth, landmarks and regions.

Frame: x to the viewer's right (the subject's left), y up, z to the viewer, millimetres; the origin lies in
the head, at the height of the pupils and the depth of the tragia. Triangles are counter-clockwise seen from
outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twodasl_lite.faces.embedded import cage_face, organs
from twodasl_lite.faces.embedded.cage import COARSE_TAGS, build_cage
from twodasl_lite.faces.embedded.sculpt import sculpt
from twodasl_lite.faces.embedded.subdivision import Refinement, interpolate, triangulate
from twodasl_lite.geometry.landmarks import MIRROR

# Steps of the interpolating fit: enough to meet the measurements, few enough to keep tight loops soft.
FIT_STEPS = 3

BROW_THRESHOLD = 0.25  # hair density from which a vertex counts as brow
FACE_TAGS = frozenset(
    {
        "forehead",
        "forehead_high",
        "orbit",
        "eyelid",
        "lid_margin",
        "nose",
        "nostril",
        "nostril_deep",
        "lip_upper",
        "lip_lower",
        "mouth_skin",
        "cheek",
    }
)
INTERIOR_TAGS = frozenset(
    {"lip_inside_upper", "lip_inside_lower", "mouth_bag_upper", "mouth_bag_lower", "mouth_bag_end"}
)
HEAD_TAGS = frozenset({"cranium", "cranium_back", "neck", "neck_top", "cheek_back", "ear", "ear_fold"})

# Landmarks of the half with x >= 0, by cage point; a triple is a point, replaced by the nearest vertex of the surface.
# Where the face has no distinct corner, the landmark lies where the Basel Face Model has it, so that errors against
# annotations made with that model are errors and not a difference of convention: jaw, brows, bridge of the nose, wings
# and lower lip are the vertices nearest to Basel's landmarks once the two average faces are registered. That leaves 0.4
# to 4.1 mm, 1.4 in the median; before, the jaw was off by 5 to 20 mm and the other points by 2 to 8.
LANDMARKS: dict[int, str | tuple[float, float, float]] = {
    8: (0.0, -113.4, 83.1), 9: (22.7, -108.6, 78.3), 10: (36.2, -102.2, 60.1), 11: (47.4, -91.9, 39.0),
    12: (57.4, -78.7, 23.5), 13: (63.5, -62.0, 12.3), 14: (67.3, -45.8, 11.5), 15: (69.4, -27.0, 10.5),
    16: (70.1, -5.8, 9.3),
    22: (19.3, 19.1, 95.6), 23: (26.3, 20.6, 94.7), 24: (39.0, 22.0, 89.3), 25: (47.6, 20.5, 82.0),
    26: (56.0, 14.2, 69.7),
    27: (0.0, -2.1, 97.8), 28: (0.0, -14.1, 106.2), 29: (0.0, -26.6, 116.0), 30: "tip", 33: "subnasale",
    34: (7.2, -44.7, 102.3), 35: (13.3, -45.6, 98.3),
    42: "lid_outer0", 43: "lid_outer3", 44: "lid_outer5", 45: "lid_outer8", 46: "lid_outer11",
    47: "lid_outer13",
    51: "lip_border0", 52: "lip_border1", 53: "lip_border3", 54: "lip_border5", 55: (15.9, -71.7, 97.2),
    56: (7.8, -75.3, 101.1), 57: (0.0, -76.2, 102.0), 62: "parting0", 63: "parting2", 64: "parting5",
    65: "parting8", 66: "parting10",
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A head in its neutral expression.

    Attributes:
        vertices: (V, 3), mm.
        triangles: (T, 3), counter-clockwise from outside.
        landmarks: vertex index of each of the 68 landmarks.
        regions: vertex indices by region name; left and right are the subject's.
        mirror: (V,), index of each vertex's mirror image in the plane x = 0.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    landmarks: np.ndarray
    regions: dict[str, np.ndarray]
    mirror: np.ndarray


def _surface() -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray], dict[str, int]]:
    """Subdivide the cage twice; return vertices, triangles, mirror, vertices by tag, and named vertices."""
    targets, mesh, names = build_cage()
    first = Refinement(mesh)
    second = Refinement(first.child)
    cage = interpolate([first, second], targets, FIT_STEPS)
    vertices = second.apply(first.apply(cage))
    is_coarse = [tag.split(":")[0] in COARSE_TAGS for tag in first.child.tags]
    triangles = np.array(triangulate(second.child, second, is_coarse))
    used = np.unique(triangles)
    compact = np.full(len(vertices), -1)
    compact[used] = np.arange(len(used))
    tagged: dict[str, set[int]] = {}
    for face, tag in zip(second.child.faces, second.child.tags, strict=True):
        tagged.setdefault(tag, set()).update(face)
    by_tag = {}
    for tag, members in tagged.items():
        index = compact[sorted(members)]
        by_tag[tag] = index[index >= 0]
    vertices, triangles, mirror = vertices[used], compact[triangles], compact[second.child.mirror[used]]
    return vertices, triangles, mirror, by_tag, {name: int(compact[k]) for name, k in names.items()}


def _union(by_tag: dict[str, np.ndarray], tags: frozenset[str] | set[str]) -> np.ndarray:
    return np.unique(np.concatenate([v for k, v in by_tag.items() if k.split(":")[0] in tags]))


def _landmarks(vertices: np.ndarray, mirror: np.ndarray, names: dict[str, int]) -> np.ndarray:
    landmarks = np.full(68, -1)
    for number, place in LANDMARKS.items():
        if isinstance(place, str):
            landmarks[number] = names[place]
        else:
            landmarks[number] = np.argmin(((vertices - np.array(place)) ** 2).sum(axis=1))
    for number, other in enumerate(MIRROR.tolist()):
        if landmarks[number] < 0:
            landmarks[number] = mirror[landmarks[other]]
    return landmarks


def build_template() -> Template:
    """Build the head template.

    Returns:
        The template: about 9,500 vertices, exactly mirror-symmetric.
    """
    vertices, triangles, mirror, by_tag, names = _surface()
    skin = len(vertices)
    vertices = sculpt(vertices, triangles, by_tag)
    vertices = 0.5 * (vertices + vertices[mirror] * [-1.0, 1.0, 1.0])
    landmarks = _landmarks(vertices, mirror, names)

    regions = {
        "face": _union(by_tag, FACE_TAGS),
        "head": _union(by_tag, HEAD_TAGS),
        "ears": _union(by_tag, {"ear", "ear_fold"}),
        "nose": _union(by_tag, {"nose", "nostril", "nostril_deep"}),
        "nostrils": np.setdiff1d(_union(by_tag, {"nostril", "nostril_deep"}), _union(by_tag, {"nose"})),
        "lips": _union(by_tag, {"lip_upper", "lip_lower"}),
        "mouth_upper": _union(by_tag, {"lip_upper", "lip_inside_upper", "mouth_bag_upper"}),
        "mouth_lower": _union(by_tag, {"lip_lower", "lip_inside_lower", "mouth_bag_lower"}),
        "mouth_interior": _union(by_tag, INTERIOR_TAGS),
        "eyelids": _union(by_tag, {"eyelid", "lid_margin"}),
        "lid_margins": _union(by_tag, {"lid_margin"}),
        "neck": _union(by_tag, {"neck", "neck_top"}),
    }
    hairy = organs.brow_density(vertices[regions["face"]]) > BROW_THRESHOLD
    regions["brows"] = regions["face"][hairy]

    pieces = [vertices]
    mirrors = [mirror]
    faces = [triangles]
    offset = skin
    for piece in (*organs.eyeballs(cage_face.EYE_CENTRE, cage_face.EYE_RADIUS), *organs.teeth()):
        pieces.append(piece.vertices)
        faces.append(piece.triangles + offset)
        mirrors.append(piece.mirror + offset)
        for name, index in piece.regions.items():
            regions[name] = index + offset
        offset += len(piece.vertices)
    return Template(np.concatenate(pieces), np.concatenate(faces), landmarks, regions, np.concatenate(mirrors))
