"""Assemble the control cage of the head: name the points, join them into faces, mirror the half."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from twodasl_lite.faces.embedded import cage_face as face
from twodasl_lite.faces.embedded import cage_head as head
from twodasl_lite.faces.embedded.half_cage import HalfCage, fair
from twodasl_lite.faces.embedded.subdivision import PolygonMesh, edge_key, orient

# Cage points known only roughly, faired so that the skull and the neck have no ripples.
FAIRED = (
    "forehead1_",
    "forehead2_",
    "arch4_",
    "arch5_",
    "arch6_",
    "arch7_",
    "arch8_",
    "arch9_",
    "neck0_",
    "neck1_",
)

COARSE_TAGS = frozenset(
    {
        "cranium_back",
        "neck",
        "ear",
        "lip_inside_upper",
        "lip_inside_lower",
        "mouth_bag_upper",
        "mouth_bag_lower",
        "mouth_bag_end",
        "nostril_deep",
    }
)


def _lid_inner(outer: np.ndarray) -> np.ndarray:
    """Place the back edge of the lid margin on the globe, with the caruncle in the inner corner, (16, 3)."""
    direction = outer - face.EYE_CENTRE
    direction[:, 1] *= 0.97
    inner = face.EYE_CENTRE + (face.EYE_RADIUS - 0.3) * direction / np.linalg.norm(direction, axis=1, keepdims=True)
    inner[0] = (20.6, -1.5, 77.3)
    inner[1] = (21.2, 0.9, 77.9)
    inner[15] = (21.4, -2.8, 77.8)
    inner[8] = (43.6, 0.1, 73.9)
    return inner


def _build_eye(cage: HalfCage) -> dict[str, list[int]]:
    outer = np.array(face.LID_OUTER)
    loops = {
        "lid_inner": cage.loop("lid_inner", _lid_inner(outer.copy())),
        "lid_outer": cage.loop("lid_outer", face.LID_OUTER),
        "lid_middle": cage.loop("lid_middle", face.LID_MIDDLE),
        "lid_crease": cage.loop("lid_crease", face.LID_CREASE),
        "orbit": cage.loop("orbit", face.ORBIT),
        "orbit_outer": cage.loop("orbit_outer", face.ORBIT_OUTER),
    }
    rings = list(loops.values())
    for tag, first, second in zip(["lid_margin", "eyelid", "eyelid", "orbit", "orbit"], rings, rings[1:], strict=False):
        cage.strip(tag, first, second, closed=True)
    cage.crease(loops["lid_inner"], 2.0, closed=True)
    cage.crease(loops["lid_outer"], 1.2, closed=True)
    return loops


def _both_lips(tag: str) -> list[str]:
    """Tags of the quadrilaterals of a mouth loop: five of the upper lip, five of the lower one."""
    return [f"{tag}_upper"] * face.MOUTH_CORNER + [f"{tag}_lower"] * (face.NUM_MOUTH - 1 - face.MOUTH_CORNER)


def _build_nose_and_mouth(cage: HalfCage, orbit: list[int]) -> dict[str, list[int]]:
    for name, position in face.NOSE.items():
        cage.add(name, position)
    outer = cage.loop("mouth_outer", face.MOUTH_OUTER)
    cage.names |= {"subnasale": outer[0], "sill": outer[1], "ala_base": outer[2], "groove_low": outer[3]}
    cage.names |= {f"o{k}": orbit[k] for k in range(face.NUM_EYE)}

    nose = "nose"
    cage.face(nose, "glabella", "o2", "nasion_side", "nasion")
    cage.face(nose, "o2", "o1", "nasion_side")
    cage.face(nose, "nasion", "nasion_side", "bridge_c_side", "bridge_c")
    cage.face(nose, "nasion_side", "o1", "o0", "bridge_c_side")
    cage.face(nose, "bridge_c", "bridge_c_side", "bridge_d_side", "bridge_d")
    cage.face(nose, "bridge_c_side", "o0", "o15", "bridge_d_side")
    cage.face(nose, "bridge_d", "bridge_d_side", "bridge_e_side", "bridge_e")
    cage.face(nose, "bridge_d_side", "o15", "bridge_e_wall", "bridge_e_side")
    cage.face(nose, "o15", "o14", "groove_middle", "bridge_e_wall")
    cage.face(nose, "bridge_e_wall", "groove_middle", "groove_front")
    cage.face(nose, "bridge_e", "bridge_e_side", "tip_side", "tip")
    cage.face(nose, "bridge_e_side", "bridge_e_wall", "groove_front", "tip_side")
    cage.face(nose, "o14", "o13", "groove_back", "groove_middle")
    cage.face(nose, "tip", "tip_side", "dome_low", "infratip")
    cage.face(nose, "tip_side", "groove_front", "ala_front", "dome_low")
    cage.face(nose, "groove_front", "groove_middle", "ala_middle", "ala_front")
    cage.face(nose, "groove_middle", "groove_back", "ala_outer", "ala_middle")
    cage.face(nose, "groove_back", "groove_low", "ala_base", "ala_outer")
    nostril_outer = [cage.names[name] for name in face.NOSTRIL_OUTER]
    rim = cage.loop("nostril_rim", face.NOSTRIL_RIM)
    cage.strip(nose, nostril_outer, rim, closed=True)
    centre = np.mean(face.NOSTRIL_RIM, axis=0)
    shrunk = [centre + 0.86 * (np.array(p) - centre) + 0.35 * face.NOSTRIL_DEPTH for p in face.NOSTRIL_RIM]
    inside = [centre + 0.55 * (np.array(p) - centre) + face.NOSTRIL_DEPTH for p in face.NOSTRIL_RIM]
    ring1, ring2 = cage.loop("nostril_a", shrunk), cage.loop("nostril_b", inside)
    cage.strip("nostril", rim, ring1, closed=True)
    cage.strip("nostril_deep", ring1, ring2, closed=True)
    cage.face("nostril_deep", *ring2)
    cage.crease(rim, 0.6, closed=True)

    upper = np.array(face.PARTING)
    lower = upper[:-1][::-1].copy()
    upper[:-1, 1] += face.LIP_GAP / 2
    lower[:, 1] -= face.LIP_GAP / 2
    parting_positions = np.concatenate([upper, lower])
    parting = cage.loop("parting", parting_positions)
    vermilion = cage.loop("vermilion", face.VERMILION)
    border = cage.loop("lip_border", face.LIP_BORDER)
    skin = cage.loop("lip_skin", face.LIP_SKIN)
    cage.strip(_both_lips("lip"), parting, vermilion)
    cage.strip(_both_lips("lip"), vermilion, border)
    cage.strip("mouth_skin", border, skin)
    cage.strip("mouth_skin", skin, outer)
    cage.crease(border, 0.8)

    previous = parting
    sign = np.r_[np.ones(5), 0.0, -np.ones(5)]
    for depth, (back, up, down, narrow) in enumerate(head.MOUTH_BAG):
        points = parting_positions.copy()
        points[:, 0] *= narrow
        points[:, 1] += np.where(sign > 0, up, down) * sign * (1 - 0.35 * (points[:, 0] / 25.0) ** 2)
        points[:, 2] = points[:, 2] - back
        ring = cage.loop(f"bag{depth}_", points)
        cage.strip(_both_lips("lip_inside" if depth == 0 else "mouth_bag"), previous, ring)
        previous = ring
    for k in range(5):
        cage.face("mouth_bag_end", previous[k], previous[k + 1], previous[9 - k], previous[10 - k])
    return {"outer": outer, "border": border, "parting": parting, "skin": skin, "vermilion": vermilion}


def _build_cheek(cage: HalfCage, outer: list[int]) -> None:
    for name, position in {**face.CHEEK, **head.EAR_FRONT}.items():
        cage.add(name, position)
    chin = [cage.names["groove_back"], *[cage.add(f"chin{k + 4}", p) for k, p in enumerate(face.CHIN)]]
    cage.strip("mouth_skin", outer[3:], chin)
    c = {k + 3: index for k, index in enumerate(chin)}
    cheek = "cheek"
    cage.face(cheek, c[3], c[4], "o12", "o13")
    cage.face(cheek, c[4], c[5], "malar_low", "o12")
    cage.face(cheek, c[5], c[6], "buccal", "malar_low")
    cage.face(cheek, c[6], c[7], "jowl", "buccal")
    cage.face(cheek, c[7], c[8], "jaw_2", "jowl")
    cage.face(cheek, c[8], c[9], "jaw_1", "jaw_2")
    cage.face(cheek, c[9], c[10], "menton", "jaw_1")
    cage.face(cheek, "o12", "o11", "malar", "malar_low")
    cage.face(cheek, "malar_low", "malar", "buccal_back", "buccal")
    cage.face(cheek, "buccal", "buccal_back", "jowl_back", "jowl")
    cage.face(cheek, "jowl", "jowl_back", "jaw_3", "jaw_2")
    cage.face(cheek, "o11", "o10", "gamma_1", "malar")
    cage.face(cheek, "o10", "o9", "beta_1", "gamma_1")
    cage.face(cheek, "o9", "o8", "alpha_1", "beta_1")
    for row, below in [("alpha", "beta"), ("beta", "gamma")]:
        cage.face(cheek, f"{row}_1", f"{row}_2", f"{below}_2", f"{below}_1")
    cage.face(cheek, "gamma_1", "gamma_2", "delta_2", "malar")
    cage.face(cheek, "malar", "delta_2", "epsilon_2", "buccal_back")
    cage.face(cheek, "buccal_back", "epsilon_2", "phi_2", "jowl_back")
    cage.face(cheek, "jowl_back", "phi_2", "zeta_2", "jaw_3")
    rows = ["alpha", "beta", "gamma", "delta", "epsilon", "phi", "zeta"]
    for row, below in pairwise(rows):
        cage.face("cheek_back", f"{row}_2", f"{row}_3", f"{below}_3", f"{below}_2")
    ear = ["side4", "ear_4", "ear_3", "ear_2", "ear_1", "lobe_front", "lobe_back"]
    cage.names["side4"] = cage.add("side4_", head.SIDE[0])
    for k in range(6):
        cage.face("cheek_back", f"{rows[k]}_3", f"{rows[k + 1]}_3", ear[k + 1], ear[k])


def _arch(row: int) -> list[np.ndarray]:
    """Points of one superelliptic arch over the cranium, from the midline to just before the side."""
    middle, side = np.array(head.MIDLINE[row], dtype=float), np.array(head.SIDE[row], dtype=float)
    centre = np.array([0.0, side[1], side[2]])
    points = []
    for k in range(head.NUM_ARCH - 1):
        theta = 0.5 * np.pi * (k / (head.NUM_ARCH - 1)) ** 1.05
        power = 2.0 / head.ARCH_EXPONENT[row]
        along, across = np.cos(theta) ** power, np.sin(theta) ** power
        width = side[0] + 1.3 * head.ARCH_BULGE[row] * np.sin(2 * theta) * np.sin(theta)
        points.append(centre + (middle - centre) * along + np.array([width * across, 0.0, 0.0]))
    return points


def _build_cranium(cage: HalfCage) -> None:
    brow = [cage.names[name] for name in ("glabella", "o2", "o3", "o4", "o5", "o6", "o7", "o8")]
    rows = [brow]
    for k, points in enumerate(head.FOREHEAD):
        rows.append([*cage.loop(f"forehead{k}_", points), cage.names[f"alpha_{k + 1}"]])
    for k in range(len(head.MIDLINE)):
        side = cage.names["side4"] if k == 0 else cage.add(f"side{k + 4}", head.SIDE[k])
        rows.append([*cage.loop(f"arch{k + 4}_", _arch(k)), side])
    for k, (first, second) in enumerate(pairwise(rows)):
        tag = ("forehead", "forehead_high")[k] if k < 2 else "cranium" if k < 7 else "cranium_back" if k < 9 else "neck"
        cage.strip(tag, first, second)
    jaw = ["menton", "jaw_1", "jaw_2", "jaw_3", "zeta_2", "zeta_3", "lobe_back"]
    previous = [*[cage.names[name] for name in jaw], rows[9][-1]]
    for k, points in enumerate(head.NECK):
        ring = [*cage.loop(f"neck{k}_", points), rows[10 + k][-1]]
        cage.strip("neck_top" if k < 2 else "neck", previous, ring)
        previous = ring


def ear_axes() -> np.ndarray:
    """Return the axes (u backwards, v up, w outwards) of the left ear as rows, (3, 3)."""
    tilt, flare = np.radians(head.EAR_TILT), np.radians(head.EAR_FLARE)
    back = np.array([np.sin(flare), 0.0, -np.cos(flare)])
    up = np.array([0.0, np.cos(tilt), 0.0]) + np.sin(tilt) * back
    back = np.cos(tilt) * back - np.array([0.0, np.sin(tilt), 0.0])
    up = up + np.array([0.06, 0.0, 0.0])  # the top of the ear leans outwards with the widening head
    up /= np.linalg.norm(up)
    back -= up * (back @ up)
    back /= np.linalg.norm(back)
    return np.stack([back, up, np.cross(up, back) * -1.0])


def _build_ear(cage: HalfCage) -> None:
    hole = [f"side{k}" for k in range(4, 10)] + [
        "lobe_back",
        "lobe_front",
        "ear_1",
        "ear_2",
        "ear_3",
        "ear_4",
    ]
    previous = [cage.names[name] for name in hole]
    axes = ear_axes()
    for name, points in head.EAR_LOOPS.items():
        ring = cage.loop(f"ear_{name}", head.EAR_ORIGIN + (np.array(points) * head.EAR_SCALE) @ axes)
        cage.strip("ear" if name in ("back", "helix_back", "canal") else "ear_fold", previous, ring, closed=True)
        previous = ring
    cage.face("ear", *previous)


def build_cage() -> tuple[np.ndarray, PolygonMesh, dict[str, int]]:
    """Build the full mirrored cage.

    Returns:
        Surface positions wanted at the cage vertices (V, 3), mm; the connectivity, whose face tags end in
        ``:L`` or ``:R`` (the subject's side); the indices of the named points of the half with x >= 0.
    """
    cage = HalfCage()
    eye = _build_eye(cage)
    mouth = _build_nose_and_mouth(cage, eye["orbit_outer"])
    _build_cheek(cage, mouth["outer"])
    _build_cranium(cage)
    _build_ear(cage)

    points = np.array(cage.points)
    centre = np.abs(points[:, 0]) < 1e-9
    count = len(points)
    mirror_of = np.where(centre, np.arange(count), 0)
    mirror_of[~centre] = count + np.arange((~centre).sum())
    full = np.concatenate([points, points[~centre] * [-1.0, 1.0, 1.0]])
    mirror = np.concatenate([mirror_of, np.nonzero(~centre)[0]])
    faces = cage.faces + [tuple(mirror_of[list(f)].tolist()) for f in cage.faces]
    tags = [f"{t}:L" for t in cage.tags] + [f"{t}:R" for t in cage.tags]
    creases = dict(cage.creases)
    creases |= {edge_key(int(mirror_of[a]), int(mirror_of[b])): s for (a, b), s in cage.creases.items()}
    faces = orient(faces)
    a, b, c = full[list(faces[0][:3])]
    outward = np.cross(b - a, c - a) @ np.array([0.0, 0.0, 1.0])
    if outward < 0:
        faces = [f[::-1] for f in faces]
    named = [k for name, k in cage.names.items() if name.startswith(FAIRED)]
    full = fair(full, faces, np.unique(np.concatenate([named, mirror_of[named]])))
    return full, PolygonMesh(len(full), faces, creases, mirror, tags), cage.names
