"""Expression blendshapes, named after actions of the Facial Action Coding System (Ekman and Friesen 1978)."""

from __future__ import annotations

import numpy as np

from twodasl_lite.faces.embedded import cage_face
from twodasl_lite.faces.embedded.fields import MIRROR, MOUTH_HALF_WIDTH, Canvas, smoothstep
from twodasl_lite.faces.embedded.template import Template

# The jaw turns about the axis through the two condyles, just in front of the tragus and below it.
JAW_AXIS = np.array([0.0, -14.0, 10.0])
JAW_ANGLE = 17.0  # degrees; lowers the chin by about 30 mm, two thirds of the widest opening
BLINK_OVERLAP = 4.5  # degrees by which the closed upper lid passes the lower margin
LID_SPAN = 0.62  # radians above the margin over which the skin of the lid unfolds
WIDE_ANGLE = 7.0  # degrees the upper lid rises when the eye is wide open


def _side(c: Canvas, side: int) -> np.ndarray:
    """Weight of one half of the face, softly joined at the midline, (V, 1)."""
    return smoothstep(-9.0, 9.0, side * c.p[:, 0])[:, None]


def _lower_lip_share(c: Canvas) -> np.ndarray:
    """How much the mouth area follows the lower jaw: 0 above, 1 below, split at the parting, (V,)."""
    ellipse = np.sqrt(np.clip(1.0 - (c.x / MOUTH_HALF_WIDTH) ** 2, 0.0, 1.0)) * smoothstep(40.0, 80.0, c.z)
    reach = 20.0 + 16.0 * smoothstep(15.0, 60.0, c.x)
    away = smoothstep(0.0, 1.0, np.abs(c.above_parting) / reach)
    half = 0.5 * (ellipse + (1.0 - ellipse) * away)
    return 0.5 - half * c.lip_side


def _jaw_weight(c: Canvas) -> np.ndarray:
    """How much a vertex follows the mandible, (V,)."""
    # towards the ear the border between the moving and the resting skin runs up to the joint
    slope = (c.y - JAW_AXIS[1]) / np.maximum(c.z - JAW_AXIS[2] + 30.0, 1.0)
    back = smoothstep(0.05, 0.95, -slope)
    front = _lower_lip_share(c)
    frontal = smoothstep(30.0, 78.0, c.z)
    weight = frontal * front + (1.0 - frontal) * back * smoothstep(-12.0, 38.0, c.z)
    throat = smoothstep(-172.0, -112.0, c.y)
    weight = weight * throat
    for name, value in (("teeth_lower", 1.0), ("teeth_upper", 0.0)):
        weight[c.template.regions[name]] = value
    for name in ("eyeball_left", "eyeball_right", "ears"):
        weight[c.template.regions[name]] = 0.0
    return weight


def _jaw_open(c: Canvas) -> np.ndarray:
    angle = np.radians(JAW_ANGLE)
    relative = c.p - JAW_AXIS
    cos, sin = np.cos(angle), np.sin(angle)
    turned = relative.copy()
    turned[:, 1] = cos * relative[:, 1] - sin * relative[:, 2]
    turned[:, 2] = sin * relative[:, 1] + cos * relative[:, 2]
    field = (turned - relative) * _jaw_weight(c)[:, None]
    field += c.push((24.5, -68.0, 89.0), (12.0, 16.0, 18.0), (-3.0, 0.0, -1.0))
    field += c.push((48.0, -62.0, 70.0), (20.0, 22.0, 26.0), (-1.5, 0.0, -1.0))
    return field


def _lid_margins(c: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Elevation on the globe of each vertex and of the two lid margins at its x, radians, (V,) each."""
    relative = c.folded - cage_face.EYE_CENTRE
    elevation = np.arctan2(relative[:, 1], np.maximum(relative[:, 2], 1.0))
    outline = np.array(cage_face.LID_OUTER) - cage_face.EYE_CENTRE
    angle = np.arctan2(outline[:, 1], np.maximum(outline[:, 2], 1.0))
    upper = np.interp(relative[:, 0], outline[:9, 0], angle[:9])
    lower_index = [0, *range(15, 7, -1)]
    lower = np.interp(relative[:, 0], outline[lower_index, 0], angle[lower_index])
    return elevation, upper, lower


def _turn_lids(c: Canvas, amount: np.ndarray, lift: float = 0.0) -> np.ndarray:
    """Turn lid skin about the transverse axis of the globe by ``amount`` (V,) radians, upwards, (V, 3)."""
    relative = c.folded - cage_face.EYE_CENTRE
    skin = np.ones(len(c.p))
    for side in ("left", "right"):
        skin[c.template.regions[f"eyeball_{side}"]] = 0.0
    near = skin * (1.0 - smoothstep(15.0, 20.0, c.eye_distance)) * (relative[:, 2] > 0.5)
    angle = amount * near
    cos, sin = np.cos(angle), np.sin(angle)
    field = np.zeros_like(c.p)
    field[:, 1] = cos * relative[:, 1] + sin * relative[:, 2] - relative[:, 1]
    field[:, 2] = cos * relative[:, 2] - sin * relative[:, 1] - relative[:, 2]
    if lift:
        share = np.abs(angle) / max(float(np.abs(angle).max()), 1e-9)
        outward = relative / np.linalg.norm(relative, axis=1, keepdims=True)
        field += lift * share[:, None] * outward * np.where(c.p[:, :1] < 0, MIRROR, 1.0)
    return field


def _blink(c: Canvas) -> np.ndarray:
    elevation, upper, lower = _lid_margins(c)
    gap = np.clip(upper - lower, 0.0, None)
    meet = lower + 0.12 * gap  # the lower lid rises a little
    # a vertex on the margin travels the whole gap, one above it less, one at the crease nothing
    above = np.clip((elevation - upper) / LID_SPAN, -1.0, 1.0)
    share = 1.0 - smoothstep(0.0, 1.0, np.clip(above, 0.0, 1.0))
    is_upper = elevation > 0.5 * (upper + lower)
    down = -(upper - meet + np.radians(BLINK_OVERLAP) * (gap > 0.02)) * share
    below = np.clip((lower - elevation) / LID_SPAN, 0.0, 1.0)
    up = (meet - lower) * (1.0 - smoothstep(0.0, 0.8, below))
    field = _turn_lids(c, np.where(is_upper, down, up), lift=0.6)
    return field + c.push((34.0, 16.0, 87.0), (16.0, 6.0, 12.0), (0.0, -0.6, 0.0)) * (~_globe(c))[:, None] * _off_lid(c)


def _globe(c: Canvas) -> np.ndarray:
    mask = np.zeros(len(c.p), dtype=bool)
    for side in ("left", "right"):
        mask[c.template.regions[f"eyeball_{side}"]] = True
    return mask


def _off_lid(c: Canvas) -> np.ndarray:
    """Weight that keeps the lids in place: 0 on them, 1 from the brow and the cheek outwards, (V, 1)."""
    return (smoothstep(14.0, 22.0, c.eye_distance) * ~_globe(c))[:, None]


def _wide(c: Canvas) -> np.ndarray:
    elevation, upper, lower = _lid_margins(c)
    above = np.clip((elevation - upper) / LID_SPAN, 0.0, 1.0)
    open_share = np.clip((upper - lower) / 0.8, 0.0, 1.0)
    is_upper = elevation > 0.5 * (upper + lower)
    return _turn_lids(c, np.radians(WIDE_ANGLE) * open_share * (1.0 - smoothstep(0.0, 1.0, above)) * is_upper)


def _squint(c: Canvas, degrees: float) -> np.ndarray:
    """Raise the lower lid by an angle on the globe, (V, 3)."""
    elevation, upper, lower = _lid_margins(c)
    below = np.clip((lower - elevation) / LID_SPAN, 0.0, 1.0)
    open_share = np.clip((upper - lower) / 0.8, 0.0, 1.0)
    is_lower = elevation < 0.5 * (upper + lower)
    return _turn_lids(c, np.radians(degrees) * open_share * (1.0 - smoothstep(0.0, 1.0, below)) * is_lower)


def _brow_fields(c: Canvas) -> dict[str, np.ndarray]:
    free = _off_lid(c)
    inner = c.push((12.0, 20.0, 97.0), (15.0, 13.0, 20.0), (-0.6, 7.0, 0.0))
    inner += c.push((12.0, 42.0, 99.0), (24.0, 20.0, 30.0), (0.0, 2.2, 0.0))
    outer = c.push((42.0, 21.0, 86.0), (17.0, 13.0, 22.0), (0.0, 6.5, 0.0))
    outer += c.push((40.0, 42.0, 89.0), (22.0, 18.0, 30.0), (0.0, 2.0, 0.0))
    down = c.push((17.0, 19.0, 95.5), (17.0, 11.0, 18.0), (-2.6, -4.6, 0.9))
    down += c.push((42.0, 21.0, 86.0), (16.0, 11.0, 18.0), (-0.6, -3.0, 0.4))
    return {"browInnerUp": inner * free, "browOuterUp": outer * free, "browDown": down * free}


def _mouth_fields(c: Canvas) -> dict[str, np.ndarray]:
    corner = (25.0, -68.0, 89.0)
    lower = _lower_lip_share(c)
    upper = 1.0 - lower
    front = smoothstep(55.0, 84.0, c.z)
    arch = np.exp(-((c.x / 19.0) ** 2))
    lips = np.exp(-((c.x / 30.0) ** 2) - ((c.y + 68.0) / 17.0) ** 2) * front
    ring = np.exp(-((c.x / 23.0) ** 2) - ((c.y + 68.0) / 14.0) ** 2) * front

    smile = c.push(corner, (14.0, 14.0, 22.0), (5.2, 4.6, -4.2))
    smile += c.push((20.0, -66.0, 93.0), (12.0, 10.0, 18.0), (0.9, 0.9, -2.0))
    smile += c.push((38.0, -42.0, 82.0), (16.0, 15.0, 20.0), (1.6, 3.8, 2.4))
    smile += c.push((29.0, -52.0, 89.0), (6.0, 11.0, 9.0), (0.8, 1.0, -1.4))
    smile += c.along(2, -1.6 * lips)
    smile += c.along(1, 0.8 * np.exp(-(((c.y + 74.0) / 9.0) ** 2)) * lips)
    smile += _squint(c, 4.0)
    frown = c.push(corner, (12.0, 13.0, 20.0), (0.8, -6.0, -1.2))
    frown += c.push((0.0, -98.0, 97.0), (20.0, 14.0, 20.0), (0.0, 2.2, 1.0))
    frown += c.push((33.0, -78.0, 84.0), (12.0, 12.0, 16.0), (0.4, -1.6, 0.6))
    stretch = c.push(corner, (15.0, 13.0, 24.0), (6.5, -2.6, -4.0))
    stretch += c.push((20.0, -75.0, 92.0), (12.0, 10.0, 16.0), (1.6, -1.6, -1.2))

    gather = c.along(0, -0.48 * np.minimum(c.x, 30.0) * lips)
    pucker = gather + c.along(2, 7.5 * ring)
    pucker += c.along(1, 1.4 * ring * (lower - upper) * np.minimum(np.abs(c.above_parting) / 6.0, 1.0))
    opening = arch * front * np.exp(-((c.above_parting / 22.0) ** 2))
    funnel = 0.7 * gather + c.along(2, 5.0 * ring)
    funnel += c.along(1, opening * (3.4 * np.clip(1 - 2 * lower, 0, 1) - 5.2 * np.clip(2 * lower - 1, 0, 1)))
    raise_upper = c.along(
        1,
        5.0
        * np.exp(-((c.x / 24.0) ** 2))
        * front
        * np.clip(1.0 - 2.0 * lower, 0, 1)
        * np.exp(-((np.clip(c.above_parting, 0, None) / 19.0) ** 2)),
    )
    raise_upper += c.push((29.0, -46.0, 90.0), (10.0, 12.0, 12.0), (0.0, 1.8, 1.0))
    lower_down = c.along(
        1,
        -5.4
        * np.exp(-((c.x / 23.0) ** 2))
        * front
        * np.clip(2.0 * lower - 1.0, 0, 1)
        * np.exp(-((np.clip(-c.above_parting, 0, None) / 17.0) ** 2)),
    )
    press = c.along(1, -2.2 * c.lip_side * np.exp(-(((np.abs(c.above_parting) - 7.0) / 5.0) ** 2)) * lips)
    press += c.along(2, -2.4 * lips)
    chin = (
        c.push((0.0, -98.0, 97.0), (19.0, 13.0, 20.0), (0.0, 4.0, 1.2))
        + c.along(1, 1.8 * lips)
        + c.along(2, 1.2 * lips * lower)
    )
    return {
        "mouthSmile": smile,
        "mouthFrown": frown,
        "mouthStretch": stretch,
        "mouthPucker": pucker,
        "mouthFunnel": funnel,
        "mouthUpperUp": raise_upper,
        "mouthLowerDown": lower_down,
        "mouthPress": press,
        "chinRaiser": chin,
    }


def _cheek_fields(c: Canvas) -> dict[str, np.ndarray]:
    free = _off_lid(c)
    puff = c.push((44.0, -64.0, 75.0), (17.0, 18.0, 24.0), (6.5, 0.0, 5.5))
    puff += c.push((0.0, -56.0, 103.0), (22.0, 9.0, 20.0), (0.0, 0.0, 1.4))
    raiser = free * c.push((41.0, -30.0, 79.0), (18.0, 14.0, 20.0), (0.8, 4.6, 2.2)) + _squint(c, 7.0)
    raiser += free * c.push((52.0, -4.0, 70.0), (9.0, 10.0, 12.0), (-0.8, 0.6, 0.4))
    sneer = c.push((17.0, -38.0, 99.0), (9.0, 12.0, 14.0), (0.6, 3.6, 0.2))
    sneer += free * c.push((12.0, -12.0, 94.0), (9.0, 11.0, 12.0), (-0.8, 2.0, 1.0))
    sneer += c.push((15.0, -58.0, 99.0), (11.0, 8.0, 14.0), (0.0, 1.2, 0.3)) * (1.0 - _lower_lip_share(c))[:, None]
    return {"cheekPuff": puff, "cheekRaiser": raiser, "noseSneer": sneer}


# Actions made once per side of the face; the others are made once.
ONE_SIDED = frozenset(
    {
        "mouthSmile",
        "mouthFrown",
        "mouthStretch",
        "browOuterUp",
        "browDown",
        "eyeBlink",
        "eyeWide",
        "eyeSquint",
    }
)


def expression_blendshapes(template: Template) -> tuple[list[str], np.ndarray]:
    """Build the expression blendshapes.

    Args:
        template: the head in its neutral expression.

    Returns:
        Names (``_L`` and ``_R`` are the subject's sides) and displacements at full activation, (E, V, 3), mm.
    """
    c = Canvas(template)
    jaw = _jaw_weight(c)[:, None]
    shapes: dict[str, np.ndarray] = {"jawOpen": _jaw_open(c)}
    shapes["jawForward"] = jaw * np.array([0.0, 0.0, 5.0])
    shapes["jawLeft"] = jaw * np.array([6.0, 0.0, 0.0])
    shapes["jawRight"] = jaw * np.array([-6.0, 0.0, 0.0])
    pairs = {
        **_mouth_fields(c),
        **_brow_fields(c),
        "eyeBlink": _blink(c),
        "eyeWide": _wide(c),
        "eyeSquint": _squint(c, 10.0),
        **_cheek_fields(c),
    }
    for name, field in pairs.items():
        if name in ONE_SIDED:
            shapes[f"{name}_L"] = field * _side(c, 1)
            shapes[f"{name}_R"] = field * _side(c, -1)
        else:
            shapes[name] = field
    for name, field in shapes.items():
        if not name.startswith("jaw"):
            for teeth in ("teeth_upper", "teeth_lower"):
                field[template.regions[teeth]] = 0.0
    return list(shapes), np.stack(list(shapes.values()))
