"""A linear model of skin, lip, hair and iris colour on the vertices (sRGB in [0, 1]).

The first component runs through the range of human skin, from very light to very dark (the scale that
Chardon et al. 1991 describe by the individual typology angle); the colours are chosen by eye. Everything
else is painted where anatomy puts it.
"""

from __future__ import annotations

import numpy as np

from twodasl_lite.faces.embedded import cage_face
from twodasl_lite.faces.embedded.fields import Canvas, smoothstep
from twodasl_lite.faces.embedded.organs import brow_density
from twodasl_lite.faces.embedded.sculpt import distance_to_polyline
from twodasl_lite.faces.embedded.template import Template

SKIN_MEAN = np.array([0.690, 0.525, 0.435])
SKIN_TONE = np.array([0.135, 0.142, 0.138])  # one standard deviation towards light
SKIN_RED = np.array([0.0066, -0.0033, -0.0028])
SKIN_YELLOW = np.array([0.005, 0.004, -0.016])
LIP_TINT = np.array([-0.035, -0.135, -0.095])
HAIR = np.array([0.150, 0.105, 0.080])
SCLERA = np.array([0.860, 0.840, 0.815])
IRIS = np.array([0.300, 0.235, 0.165])
PUPIL = np.array([0.025, 0.022, 0.022])
MOUTH = np.array([0.260, 0.085, 0.080])
TEETH = np.array([0.860, 0.830, 0.760])
NOSTRIL = np.array([0.190, 0.090, 0.075])


def _noise(c: Canvas, rng: np.random.Generator, wavelength: float, octaves: int = 3) -> np.ndarray:
    """Smooth random field of zero mean and about unit spread, not mirrored, (V,)."""
    total = np.zeros(len(c.p))
    for octave in range(octaves):
        scale = 2 * np.pi / wavelength * 1.9**octave
        waves = rng.standard_normal((24, 3)) * scale
        phase = rng.uniform(0, 2 * np.pi, 24)
        total += np.sin(c.p @ waves.T + phase).sum(axis=1) / np.sqrt(12.0) * 0.6**octave
    return total / 1.3


def _masks(c: Canvas) -> dict[str, np.ndarray]:
    """Soft masks (V,) of all painted parts."""
    t = c.template
    count = len(c.p)

    def region(*names: str) -> np.ndarray:
        mask = np.zeros(count)
        for name in names:
            mask[t.regions[name]] = 1.0
        return mask

    skin = 1.0 - np.clip(
        region("eyeball_left", "eyeball_right", "teeth_upper", "teeth_lower", "mouth_interior"), 0.0, 1.0
    )
    lips = region("lips")
    # scalp: above a hairline that is high on the forehead, falls before the ear and runs down to the nape
    front_line = 66.0 - 0.010 * np.clip(c.x, 0.0, 60.0) ** 2
    around_ear = np.interp(
        c.z,
        [-60.0, -30.0, -18.0, 2.0, 12.0, 26.0, 40.0, 54.0, 70.0],
        [-42.0, -30.0, 16.0, 15.0, 4.0, 2.0, 13.0, 29.0, 48.0],
    )
    blend = smoothstep(52.0, 70.0, c.z)
    line = blend * front_line + (1.0 - blend) * np.minimum(around_ear, front_line + 8.0)
    ears = region("ears")
    return {
        "skin": skin,
        "lips": lips,
        "brow": c.blur(brow_density(c.p) * region("face"), 1),
        "scalp": c.blur(smoothstep(-9.0, 13.0, c.y - line), 2) * skin * (1.0 - ears) * smoothstep(-60.0, -45.0, c.y),
        "beard": skin
        * np.clip(smoothstep(42.0, 58.0, -c.y) * (1.0 - smoothstep(112.0, 135.0, -c.y)), 0, 1)
        * smoothstep(18.0, 34.0, c.z)
        * (1.0 - lips)
        * (1.0 - np.exp(-(((c.p - np.array([0.0, -40.0, 108.0])) / np.array([19.0, 11.0, 18.0])) ** 2).sum(axis=1)))
        * (1.0 - c.blob((47.0, -47.0, 78.0), (19.0, 17.0, 30.0))),
        "margin": region("lid_margins"),
        "eyelid": region("eyelids"),
        "ears": ears,
    }


def _eye_colours(c: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean colour on the globes, iris mask (V,) and sclera mask (V,)."""
    t = c.template
    colour = np.zeros((len(c.p), 3))
    iris, sclera = np.zeros(len(c.p)), np.zeros(len(c.p))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        centre = cage_face.EYE_CENTRE * [sign, 1.0, 1.0]
        globe = t.regions[f"eyeball_{side}"]
        relative = c.p[globe] - centre
        angle = np.degrees(np.arctan2(np.hypot(relative[:, 0], relative[:, 1]), relative[:, 2]))
        turn = np.arctan2(relative[:, 1], relative[:, 0])
        redness = smoothstep(35.0, 75.0, angle)[:, None]
        colour[globe] = SCLERA - redness * [0.06, 0.18, 0.18]
        sclera[globe] = 1.0
        inside = angle < 29.5
        fibre = 1.0 + 0.12 * np.sin(turn * 9.0 + 1.0) * np.sin(turn * 5.0)
        shade = fibre * np.interp(angle, [9.0, 13.0, 20.0, 26.0, 29.0], [0.75, 1.15, 1.05, 0.8, 0.42])
        shade[relative[:, 1] > 2.5] *= 0.8  # shadow of the upper lid
        colour[globe[inside]] = (IRIS * shade[:, None])[inside]
        iris[globe[inside]] = np.clip(shade[inside], 0.3, 1.2)
        sclera[globe[inside]] = 0.0
        black = angle < 9.2
        colour[globe[black]] = PUPIL
        iris[globe[black]] = 0.0
        sclera[globe] *= 1.0 - 0.25 * smoothstep(1.0, 6.0, relative[:, 1])
        colour[globe] *= (1.0 - 0.22 * smoothstep(1.5, 6.0, relative[:, 1]) * (angle > 29.5))[:, None]
    return colour, iris, sclera


def albedo_model(template: Template, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Build the albedo model.

    Args:
        template: the head.
        rng: source of the fine mottling and of where the freckles sit.

    Returns:
        Mean (V, 3); basis (V, 3, Ka), each component scaled to a root-mean-square of one over the vertices
        it touches; standard deviations (Ka,). Colours are sRGB in [0, 1]; a drawn colour may leave the
        range a little and is to be clipped.
    """
    c = Canvas(template)
    m = _masks(c)
    skin, lips, brow, scalp, beard = m["skin"], m["lips"], m["brow"], m["scalp"], m["beard"]
    bare = skin * (1.0 - 0.86 * brow) * (1.0 - 0.84 * scalp)

    flush = (
        c.blob((42.0, -36.0, 80.0), (20.0, 17.0, 30.0))
        + 0.9 * c.blob((0.0, -35.0, 116.0), (14.0, 13.0, 18.0))
        + 0.5 * c.blob((0.0, -103.0, 94.0), (18.0, 13.0, 20.0))
        + 0.5 * m["ears"]
    )
    sallow = c.blob((20.0, 40.0, 95.0), (40.0, 24.0, 50.0))
    under_eye = c.blob((28.0, -11.0, 81.0), (14.0, 5.5, 10.0)) + 0.7 * c.blob((17.0, 2.0, 82.0), (6.0, 9.0, 8.0))
    mottle = _noise(c, rng, 9.0)
    mottle_red = _noise(c, rng, 16.0)
    spots = np.clip(_noise(c, rng, 6.5, octaves=2) - 0.9, 0.0, 1.0)
    spots = (
        spots
        * skin
        * (c.blob((30.0, -22.0, 85.0), (28.0, 20.0, 40.0)) + 0.5 * c.blob((0.0, -10.0, 105.0), (14.0, 25.0, 20.0)))
    )

    mean = np.repeat(SKIN_MEAN[None], len(c.p), axis=0)
    mean = mean + flush[:, None] * [0.030, -0.022, -0.022] + sallow[:, None] * [0.006, 0.008, 0.000]
    mean = mean + under_eye[:, None] * [-0.045, -0.050, -0.030]
    mean = mean + (mottle * 0.004)[:, None] + mottle_red[:, None] * [0.004, -0.004, -0.004]
    mean = mean + (m["eyelid"] * 1.0)[:, None] * [0.002, -0.018, -0.014]
    centre_lip = np.abs(c.above_parting)
    mean = mean + (lips * (0.8 + 0.35 * np.exp(-((centre_lip / 2.2) ** 2))))[:, None] * LIP_TINT
    mean = mean + m["margin"][:, None] * [0.00, -0.075, -0.06]
    mean = mean - (beard * 0.028)[:, None] * [1.25, 1.0, 0.8]
    mean = mean - (spots * 0.018)[:, None] * [0.8, 1.1, 1.2]
    canthus = c.blob((18.6, -1.6, 77.6), (3.4, 2.6, 3.0))
    mean = mean + canthus[:, None] * [0.03, -0.03, -0.02]
    hair_noise = 1.0 + 0.05 * _noise(c, rng, 40.0, octaves=2)
    mean = mean * (1.0 - 0.88 * brow[:, None]) + 0.88 * brow[:, None] * HAIR * 1.05
    mean = mean * (1.0 - 0.86 * scalp[:, None]) + 0.86 * scalp[:, None] * HAIR * hair_noise[:, None]
    lash = _lash_line(c)
    mean = mean * (1.0 - lash[:, None]) + lash[:, None] * HAIR * 0.7

    nostril = np.zeros(len(c.p))
    nostril[template.regions["nostrils"]] = 1.0
    deep = nostril
    mean = mean * (1.0 - 0.9 * deep[:, None]) + 0.9 * deep[:, None] * NOSTRIL
    interior = np.zeros(len(c.p))
    interior[template.regions["mouth_interior"]] = 1.0
    depth = smoothstep(60.0, 100.0, c.z)[:, None]
    mean = np.where(interior[:, None] > 0, MOUTH * (0.40 + 0.75 * depth), mean)
    for name in ("teeth_upper", "teeth_lower"):
        index = template.regions[name]
        back = smoothstep(70.0, 92.0, c.z[index])[:, None]
        mean[index] = TEETH * (0.55 + 0.45 * back)
    globes, iris, sclera = _eye_colours(c)
    for side in ("left", "right"):
        index = template.regions[f"eyeball_{side}"]
        mean[index] = globes[index]

    hair = np.clip(0.88 * brow + 0.86 * scalp, 0.0, 0.9)
    wet = 1.0 - 0.75 * deep
    tone = bare * wet * (1.0 - lash)
    components = [
        (tone, SKIN_RED),
        (tone, SKIN_YELLOW),
        (hair, np.array([0.085, 0.062, 0.045])),  # hair from black to blond
        (hair, np.array([0.040, 0.006, -0.010])),  # red hair
        (hair, np.array([0.030, 0.040, 0.045])),  # greying
        (iris, np.array([0.010, 0.060, 0.100])),  # brown to blue
        (iris, np.array([0.050, 0.055, 0.030])),  # dark to light
        (lips, np.array([0.012, -0.022, -0.014])),  # colour of the lips
        (lips, np.array([-0.030, -0.022, -0.014])),  # darkness of the lips
        (beard, -0.020 * np.array([1.3, 1.0, 0.75])),  # stubble
        (flush * skin, np.array([0.016, -0.011, -0.011])),
        (spots, -0.022 * np.array([0.8, 1.1, 1.2])),  # freckles
        (under_eye * skin, np.array([-0.028, -0.030, -0.018])),
        (brow * skin, -0.06 * np.array([1.0, 1.0, 1.0])),  # strength of the brows
        (mottle * bare, np.array([0.003, 0.003, 0.0027])),
        (mottle_red * bare, np.array([0.006, -0.004, -0.004])),
        (sclera, np.array([0.030, 0.032, 0.042])),
        (scalp, np.array([0.10, 0.085, 0.075])),  # from thick hair to a shaven head
    ]
    basis, std = [], []
    # fair skin goes with lighter eyes and hair
    tone_field = (tone * (1.0 - 0.25 * lips))[:, None] * SKIN_TONE + iris[:, None] * [0.03, 0.05, 0.07]
    tone_field = tone_field + hair[:, None] * [0.035, 0.024, 0.016] + (lips * tone)[:, None] * [0.02, -0.01, 0.0]
    fields = [tone_field, *(weight[:, None] * colour for weight, colour in components)]
    for field in fields:
        touched = np.abs(field).max(axis=1) > 1e-4
        scale = float(np.sqrt((field[touched] ** 2).mean()))
        basis.append(field / scale)
        std.append(scale)
    return np.clip(mean, 0.02, 0.98), np.stack(basis, axis=2), np.array(std)


def _lash_line(c: Canvas) -> np.ndarray:
    """Strength of the lashes' dark line along the upper lid margin (a little along the lower one), (V,)."""
    upper = distance_to_polyline(c.folded, np.array(cage_face.LID_OUTER[1:9]))
    lower = distance_to_polyline(c.folded, np.array(cage_face.LID_OUTER[8:15]))
    line = 0.80 * np.exp(-((upper / 0.9) ** 2)) + 0.22 * np.exp(-((lower / 0.8) ** 2))
    for side in ("left", "right"):
        line[c.template.regions[f"eyeball_{side}"]] = 0.0
    return np.clip(line, 0.0, 0.85)
