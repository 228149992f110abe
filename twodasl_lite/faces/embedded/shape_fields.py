"""The named deformations by which identities differ; one unit of each is about 1 mm of what it names."""

from __future__ import annotations

import numpy as np

from twodasl_lite.faces.embedded import cage_face, cage_head
from twodasl_lite.faces.embedded.fields import MIRROR, MOUTH_HALF_WIDTH, Canvas, smoothstep

NUM_RANDOM = 40
RANDOM_SEED = 20190815  # fixes where the loose bumps sit; what they do in a scan is drawn by the caller
LIP_REACH = 8.5  # mm from the parting to the vermilion border


def _cranium_fields(c: Canvas) -> dict[str, np.ndarray]:
    behind = 1.0 - smoothstep(10.0, 85.0, c.z)
    upper = smoothstep(-45.0, 25.0, c.y)
    front = smoothstep(30.0, 85.0, c.z)
    vault = smoothstep(15.0, 105.0, c.y)
    forehead = smoothstep(22.0, 70.0, c.y)
    return {
        "size": c.p.copy(),
        "head_width": c.along(0, c.x / 75.0 * upper * (0.35 + 0.65 * behind)),
        "head_depth": c.along(2, -(1.0 - smoothstep(-100.0, 55.0, c.z)) * smoothstep(-150.0, -20.0, c.y)),
        "vault_height": c.along(1, vault),
        "vault_shape": c.along(2, vault * (1.0 - smoothstep(-40.0, 60.0, np.abs(c.z - 20.0)))),
        "occiput": c.push((0.0, 10.0, -95.0), (60.0, 38.0, 45.0), (0.0, 0.0, -1.0)),
        "nape": c.push((0.0, -60.0, -75.0), (50.0, 40.0, 40.0), (0.0, 0.0, -1.0)),
        "frontal_width": c.along(
            0,
            np.minimum(c.x / 52.0, 1.4) * np.exp(-(((c.y - 32.0) / 32.0) ** 2)) * smoothstep(5.0, 60.0, c.z),
        ),
        "forehead_height": c.along(1, smoothstep(24.0, 72.0, c.y) * smoothstep(0.0, 60.0, c.z)),
        "forehead_slope": c.along(2, -forehead * smoothstep(0.0, 80.0, c.z)),
        "forehead_bulge": c.push((20.0, 58.0, 94.0), (24.0, 20.0, 40.0), (0.0, 0.0, 1.0)),
        "temple": c.push((63.0, 22.0, 53.0), (22.0, 22.0, 26.0), (0.85, 0.0, 0.4)),
        "face_depth": c.along(2, front),
        "neck_width": c.along(
            0,
            np.minimum(c.x / 50.0, 1.2) * (1.0 - smoothstep(-112.0, -55.0, c.y)) * (1.0 - smoothstep(30.0, 75.0, c.z)),
        ),
        "neck_depth": c.along(2, (1.0 - smoothstep(-150.0, -105.0, c.y)) * smoothstep(-10.0, 40.0, c.z)),
    }


def _face_fields(c: Canvas) -> dict[str, np.ndarray]:
    cheek_band = np.exp(-(((c.y + 20.0) / 34.0) ** 2)) * smoothstep(-25.0, 25.0, c.z)
    below_nose = smoothstep(46.0, 108.0, -c.y)
    jaw_depth = smoothstep(-45.0, 25.0, c.z)
    nose_down = smoothstep(-2.0, 46.0, -c.y) * smoothstep(-20.0, 55.0, c.z)
    return {
        "face_width": c.along(0, smoothstep(0.0, 68.0, c.x) * cheek_band),
        "jaw_width": c.push((58.0, -76.0, 12.0), (34.0, 30.0, 42.0), (1.0, 0.0, 0.0)),
        "jaw_angle": c.push((57.0, -76.0, 12.0), (26.0, 26.0, 32.0), (0.0, 1.0, 0.0)),
        "jaw_body": c.push((44.0, -92.0, 54.0), (20.0, 22.0, 26.0), (0.9, 0.0, 0.2)),
        "lower_face_length": c.along(1, -below_nose * jaw_depth * smoothstep(-220.0, -120.0, c.y)),
        "lower_jaw": c.along(2, smoothstep(60.0, 100.0, -c.y) * smoothstep(0.0, 70.0, c.z)),
        "chin_height": c.push((0.0, -110.0, 86.0), (32.0, 17.0, 34.0), (0.0, -1.0, 0.0)),
        "chin_protrusion": c.push((0.0, -103.0, 96.0), (24.0, 17.0, 28.0), (0.0, 0.0, 1.0)),
        "chin_width": c.push((19.0, -105.0, 84.0), (15.0, 15.0, 20.0), (1.0, 0.0, 0.1)),
        "labiomental": c.push((0.0, -87.0, 95.0), (15.0, 7.5, 14.0), (0.0, 0.0, -1.0)),
        "submental": c.push((0.0, -121.0, 58.0), (34.0, 22.0, 30.0), (0.0, -1.0, 0.2)),
        "cheekbone": c.push((51.0, -25.0, 73.0), (17.0, 15.0, 20.0), (0.6, 0.0, 0.8)),
        "cheekbone_height": c.push((50.0, -30.0, 73.0), (24.0, 20.0, 26.0), (0.0, 1.0, 0.0)),
        "cheek_fullness": c.push((51.0, -60.0, 68.0), (22.0, 22.0, 28.0), (0.75, 0.0, 0.65)),
        "midface": c.push((26.0, -34.0, 86.0), (20.0, 20.0, 26.0), (0.0, 0.0, 1.0)),
        "nasolabial": c.push((31.0, -58.0, 88.0), (7.0, 14.0, 10.0), (0.3, 0.0, -1.0)),
        "jowl": c.push((43.0, -90.0, 63.0), (17.0, 15.0, 20.0), (0.7, -0.5, 0.4)),
        "nose_length": c.along(1, -nose_down),
        "nose_protrusion": c.push((0.0, -36.0, 119.0), (17.0, 21.0, 22.0), (0.0, 0.0, 1.0)),
        "nose_tip_height": c.push((0.0, -36.0, 118.0), (13.0, 13.0, 13.0), (0.0, 1.0, 0.0)),
        "nose_width": c.push((18.0, -40.0, 98.0), (10.0, 12.0, 15.0), (1.0, 0.0, 0.0)),
        "ala_height": c.push((17.0, -40.0, 98.0), (9.0, 10.0, 12.0), (0.0, 1.0, 0.0)),
        "tip_width": c.push((8.0, -35.0, 117.0), (7.5, 9.0, 9.0), (1.0, 0.0, 0.0)),
        "columella": c.push((0.0, -45.5, 109.0), (6.0, 7.0, 9.0), (0.0, -1.0, 0.0)),
        "bridge_width": c.push((9.5, -7.0, 92.0), (8.0, 15.0, 12.0), (1.0, 0.0, 0.0)),
        "bridge_height": c.push((0.0, -3.0, 98.0), (11.0, 17.0, 16.0), (0.0, 0.0, 1.0)),
        "hump": c.push((0.0, -15.0, 107.0), (9.0, 9.0, 12.0), (0.0, 0.0, 1.0)),
        "nasion_depth": c.push((0.0, 6.0, 96.0), (12.0, 10.0, 14.0), (0.0, 0.0, -1.0)),
        "brow_ridge": c.push((25.0, 20.0, 94.0), (18.0, 11.0, 18.0), (0.1, -0.2, 1.0)),
        "glabella": c.push((0.0, 21.0, 100.0), (13.0, 13.0, 18.0), (0.0, 0.0, 1.0)),
        "brow_height": c.push((32.0, 22.0, 91.0), (26.0, 13.0, 30.0), (0.0, 1.0, 0.0)),
        "brow_tilt": c.push((50.0, 18.0, 79.0), (14.0, 12.0, 18.0), (0.0, 1.0, 0.0)),
    }


def _eye_fields(c: Canvas) -> dict[str, np.ndarray]:
    """Fields of the eye; they keep the lids on the globe and are not seated again."""
    centre = cage_face.EYE_CENTRE
    relative = c.folded - centre
    side = np.where(c.p[:, :1] < 0, MIRROR, 1.0)
    reach = (1.0 - smoothstep(14.0, 27.0, c.eye_distance))[:, None]
    tilt = np.cross(np.array([0.0, 0.0, np.radians(1.0)]), relative)
    globe = np.zeros(len(c.p), dtype=bool)
    for name in ("left", "right"):
        globe[c.template.regions[f"eyeball_{name}"]] = True
    elevation = np.arctan2(relative[:, 1], np.maximum(relative[:, 2], 1e-3))
    width = np.exp(-((relative[:, 0] / 13.0) ** 4)) * reach[:, 0] * (relative[:, 2] > 1.0)
    # 1 mm of fissure height: three quarters by the upper lid; an angle on the globe, so the lid keeps its
    # radius
    upper = smoothstep(-0.05, 0.2, elevation) * (1.0 - smoothstep(0.42, 0.95, elevation)) * 0.75 / 12.5
    lower = -smoothstep(-0.05, 0.2, -elevation) * (1.0 - smoothstep(0.42, 0.95, -elevation)) * 0.25 / 12.5
    angle = (upper + lower) * width * ~globe
    opening = np.zeros_like(c.p)
    opening[:, 1], opening[:, 2] = relative[:, 2] * angle, -relative[:, 1] * angle
    skin = (~globe)[:, None] * smoothstep(13.2, 15.5, c.eye_distance)[:, None]
    return {
        "eye_size": relative * reach * side,
        "eye_tilt": tilt * (reach * ~globe[:, None]) * side,
        "eye_opening": opening,
        "lid_fold": skin * c.push((33.0, 13.0, 86.0), (16.0, 5.5, 9.0), (0.0, -1.0, 0.6)),
        "lid_crease": skin * c.push((31.5, 10.0, 83.0), (14.0, 3.4, 6.0), (0.0, 0.3, -1.0)),
        "eye_bag": skin * c.push((31.0, -12.0, 81.5), (13.0, 4.5, 8.0), (0.0, 0.0, 1.0)),
    }


def _mouth_fields(c: Canvas) -> dict[str, np.ndarray]:
    height = c.above_parting / LIP_REACH
    across = np.clip(1.0 - (c.x / (MOUTH_HALF_WIDTH + 2.0)) ** 2, 0.0, None)
    depth = smoothstep(84.0, 92.0, c.z)
    # zero at the parting, one at the vermilion border, fading beyond: the mouth stays closed
    away = np.abs(height)
    beyond = np.exp(-0.35 * np.clip(away - 1.4, 0.0, None) ** 2)
    bump = away * np.exp(0.5 * (1.0 - away**2)) * beyond * across * depth
    lift = bump * (height > 0)
    drop = bump * (height < 0)
    body = np.exp(-(((away - 0.6) / 0.6) ** 2)) * smoothstep(0.0, 0.7, away) * across * depth
    return {
        "mouth_width": c.push((25.0, -68.0, 89.0), (15.0, 14.0, 20.0), (1.0, 0.0, -0.15)),
        "mouth_protrusion": c.push((0.0, -67.0, 103.0), (27.0, 19.0, 30.0), (0.0, 0.0, 1.0)),
        "mouth_height": c.push((0.0, -67.0, 101.0), (36.0, 15.0, 34.0), (0.0, 1.0, 0.0)),
        "mouth_corner": c.push((25.0, -68.0, 89.0), (9.0, 9.0, 14.0), (0.0, 1.0, 0.0)),
        "upper_lip_length": c.along(
            1,
            -smoothstep(46.0, 66.0, -c.y)
            * (1.0 - smoothstep(74.0, 112.0, -c.y))
            * np.exp(-((c.x / 40.0) ** 2))
            * smoothstep(30.0, 80.0, c.z),
        ),
        "upper_vermilion": c.along(1, lift),
        "lower_vermilion": c.along(1, -drop),
        "upper_fullness": c.along(2, body * (height > 0)),
        "lower_fullness": c.along(2, body * (height < 0)),
        "philtrum": c.push((0.0, -54.0, 104.0), (4.0, 6.0, 8.0), (0.0, 0.0, -1.0)),
    }


def _ear_fields(c: Canvas) -> dict[str, np.ndarray]:
    ear = np.zeros(len(c.p))
    ear[c.template.regions["ears"]] = 1.0
    origin = cage_head.EAR_ORIGIN
    relative = c.folded - origin
    side = np.where(c.p[:, :1] < 0, MIRROR, 1.0)
    # nothing at the cheek, all of it from the concha backwards
    free = (ear * smoothstep(-7.0, 10.0, relative[:, 0] * 0.6 - relative[:, 2]))[:, None]
    degree = np.radians(1.0)
    attached = smoothstep(3.5, 13.0, relative[:, 0])[:, None]
    flare = np.cross(np.array([0.0, degree, 0.0]), relative)
    return {
        "ear_size": relative * free * attached * side,
        "ear_flare": flare * free * attached * side,
        "ear_tilt": np.cross(np.array([-degree, 0.0, 0.0]), relative) * free * attached,
        "ear_height": c.push((72.0, -14.0, -10.0), (22.0, 45.0, 30.0), (0.0, 1.0, 0.0)),
        "lobe": c.push((72.0, -48.0, -8.0), (14.0, 14.0, 14.0), (0.0, -1.0, 0.0)) * ear[:, None],
    }


def identity_fields(canvas: Canvas) -> dict[str, np.ndarray]:
    """Build the symmetric named fields.

    Args:
        canvas: the template's weights.

    Returns:
        Displacements (V, 3), mm, of one unit of each trait.
    """
    moved = {
        **_cranium_fields(canvas),
        **_face_fields(canvas),
        **_mouth_fields(canvas),
        **_ear_fields(canvas),
        "eye_spacing": canvas.push((31.5, 0.0, 72.0), (24.0, 24.0, 40.0), (1.0, 0.0, 0.0)),
        "eye_depth": canvas.push((31.5, 0.0, 72.0), (26.0, 22.0, 45.0), (0.0, 0.0, -1.0)),
        "eye_height": canvas.push((31.5, 0.0, 72.0), (28.0, 24.0, 45.0), (0.0, 1.0, 0.0)),
    }
    return {**{name: canvas.seat_eyes(field) for name, field in moved.items()}, **_eye_fields(canvas)}


def asymmetry_fields(canvas: Canvas) -> dict[str, np.ndarray]:
    """Build the fields by which the two halves of a face differ, (V, 3) each, one unit about 1 mm."""
    c = canvas
    skew = {
        "eye_height": ((31.5, 0.0, 72.0), (26.0, 22.0, 40.0), (0.0, 0.6, 0.0)),
        "eye_spacing": ((31.5, 0.0, 72.0), (26.0, 22.0, 40.0), (0.6, 0.0, 0.0)),
        "brow": ((34.0, 21.0, 90.0), (24.0, 12.0, 25.0), (0.0, 1.0, 0.0)),
        "cheekbone": ((52.0, -26.0, 72.0), (22.0, 20.0, 25.0), (0.6, 0.0, 0.8)),
        "cheek": ((50.0, -60.0, 68.0), (24.0, 24.0, 28.0), (0.8, 0.0, 0.6)),
        "mouth_corner": ((24.0, -68.0, 90.0), (12.0, 11.0, 16.0), (0.0, 0.8, 0.0)),
        "ala": ((17.0, -40.0, 98.0), (9.0, 10.0, 12.0), (0.3, 0.6, 0.0)),
        "gonion": ((57.0, -76.0, 14.0), (30.0, 30.0, 36.0), (1.2, 0.0, 0.0)),
        "jaw": ((40.0, -96.0, 60.0), (24.0, 22.0, 28.0), (0.7, -0.5, 0.0)),
        "forehead": ((30.0, 55.0, 90.0), (28.0, 26.0, 35.0), (0.0, 0.0, 1.0)),
        "ear": ((76.0, -14.0, -14.0), (16.0, 40.0, 22.0), (1.6, 0.8, 0.0)),
    }
    fields = {}
    for name, (centre, radius, vector) in skew.items():
        fields[name] = c.push(centre, radius, vector, side=1) - c.push(centre, radius, vector, side=-1)
    fields["nose_tip"] = c.push((0.0, -36.0, 116.0), (20.0, 20.0, 22.0), (1.2, 0.0, 0.0))
    fields["nose_bridge"] = c.push((0.0, -12.0, 104.0), (15.0, 14.0, 18.0), (0.9, 0.0, 0.0))
    fields["chin"] = c.along(1, np.zeros(len(c.p)))
    fields["chin"][:, 0] = 1.3 * smoothstep(40.0, 110.0, -c.y) * smoothstep(10.0, 80.0, c.z)
    fields["mouth"] = c.push((0.0, -68.0, 101.0), (34.0, 18.0, 30.0), (0.9, 0.0, 0.0))
    fields["cranium"] = c.along(1, np.zeros(len(c.p)))
    fields["cranium"][:, 0] = 1.5 * smoothstep(20.0, 110.0, c.y)
    return {name: canvas.seat_eyes(field) for name, field in fields.items()}


def random_fields(canvas: Canvas) -> list[np.ndarray]:
    """Build smooth bumps at fixed places of the face, for what no named trait covers, (V, 3) each."""
    rng = np.random.default_rng(RANDOM_SEED)
    face = canvas.template.regions["face"]
    places = rng.choice(face[canvas.eye_distance[face] > 24.0], size=NUM_RANDOM, replace=False)
    fields = []
    for place in places:
        centre = canvas.p[place]
        radius = rng.uniform(13.0, 28.0)
        direction = centre - np.array([0.0, -20.0, 10.0])
        direction = direction / np.linalg.norm(direction) + 0.5 * rng.standard_normal(3)
        weight = canvas.blob(centre, radius, "one")
        fields.append(canvas.seat_eyes(weight[:, None] * direction))
    return fields
