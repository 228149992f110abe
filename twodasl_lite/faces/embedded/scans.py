"""Draw neutral identities ("scans"): published measurements turned into named deformations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces.embedded.anthropometry import MEASURES
from twodasl_lite.faces.embedded.fields import Canvas
from twodasl_lite.faces.embedded.shape_fields import asymmetry_fields, identity_fields, random_fields
from twodasl_lite.faces.embedded.template import Template

# Loading of a length on the common factor "size": two lengths of one sex then correlate by 0.25, a modest
# value in the range of facial surveys.
SIZE_LOADING = 0.5
CLIP = 2.4  # standard deviations beyond which a single measurement is clipped


@dataclass(frozen=True)
class Trait:
    """How much one named field varies.

    Attributes:
        spread: standard deviation within one sex, mm (or the unit of the field).
        sex: half of the difference between men and women, in the unit of the field.
        size: loading (-1..1) on the shared factor of body size.
        fullness: loading (-1..1) on the shared factor of facial fatness.
        profile: loading (-1..1) on the shared factor of forward growth of the mouth with a broad low nose.
    """

    spread: float
    sex: float = 0.0
    size: float = 0.0
    fullness: float = 0.0
    profile: float = 0.0


def _measured(name: str, share: float = 1.0, **loadings: float) -> Trait:
    """Trait of a published measurement; ``share``: mm of the field per mm of the measurement."""
    measure = MEASURES[name]
    return Trait(measure.within_sex * share, measure.half_difference * share, **loadings)


TRAITS: dict[str, Trait] = {
    # widths are given per half
    "head_width": _measured("head_breadth", 0.5, size=SIZE_LOADING),
    "head_depth": _measured("head_length", 0.75, size=SIZE_LOADING),
    "vault_height": _measured("vault_height", 0.8, size=SIZE_LOADING),
    "face_width": _measured("face_width", 0.5, size=SIZE_LOADING, fullness=0.3),
    "jaw_width": _measured("jaw_width", 0.38, size=0.3, fullness=0.5),
    "frontal_width": _measured("frontal_breadth", 0.45, size=0.3),
    "lower_face_length": _measured("lower_face", 0.85, size=SIZE_LOADING),
    "nose_length": _measured("nose_length", 0.85, size=SIZE_LOADING),
    "nose_width": _measured("nose_breadth", 0.5, size=0.2, profile=0.6),
    "nose_protrusion": _measured("nose_protrusion", 0.9, size=0.2, profile=-0.4),
    "bridge_width": _measured("nose_root_breadth", 0.5, profile=0.3),
    "mouth_width": _measured("mouth_width", 0.5, size=0.3, profile=0.3),
    "eye_spacing": _measured("pupil_distance", 0.5, size=0.4),
    "upper_lip_length": _measured("upper_lip", 0.7, size=0.2),
    "upper_vermilion": _measured("upper_vermilion", 1.0, profile=0.6),
    "lower_vermilion": _measured("lower_vermilion", 1.0, profile=0.6),
    "chin_height": _measured("chin_height", 0.7, size=0.3),
    "eye_size": Trait(0.028, -0.004, size=0.2),  # share of globe and lids; fissure length, Farkas 1994
    "eye_opening": Trait(0.9, -0.3),  # mm of fissure height, Farkas 1994
    "forehead_height": _measured("forehead_height", 0.5, size=0.2),
    "ear_size": Trait(0.055, 0.03, size=0.3),  # share; ear length, Farkas 1994
    "face_depth": _measured("middle_depth", 0.6, size=SIZE_LOADING),
    # forms without a tabulated distance: chosen so that the drawn faces keep the variety of the cited surveys
    "size": Trait(0.010, 0.008, size=0.5),
    "brow_ridge": Trait(1.1, 0.8), "glabella": Trait(1.0, 0.6), "brow_height": Trait(1.6, -1.0),
    "brow_tilt": Trait(1.3, -0.4),
    "forehead_slope": Trait(2.4, -1.2), "forehead_bulge": Trait(1.4, -0.6),
    "temple": Trait(1.6, 0.0, fullness=0.3),
    "eye_depth": Trait(1.5, -0.8, profile=0.2), "eye_height": Trait(1.0), "eye_tilt": Trait(2.6, -0.8),
    "lid_fold": Trait(0.65, 0.15, profile=0.2), "lid_crease": Trait(0.35, 0.0),
    "eye_bag": Trait(0.6, 0.1, fullness=0.3),
    "cheekbone": Trait(1.6, -0.1, profile=0.2), "cheekbone_height": Trait(0.9, 0.0),
    "cheek_fullness": Trait(2.2, -0.5, fullness=0.7),
    "midface": Trait(1.3, 0.0), "nasolabial": Trait(0.7, -0.1, fullness=0.3),
    "jowl": Trait(1.6, 0.2, fullness=0.6),
    "nose_tip_height": Trait(1.8, -0.5), "bridge_height": Trait(1.6, 0.6, profile=-0.6),
    "hump": Trait(1.0, 0.4, profile=-0.2),
    "tip_width": Trait(0.8, 0.2, profile=0.5), "columella": Trait(0.6), "ala_height": Trait(0.8),
    "nasion_depth": Trait(1.0, 0.0, profile=-0.2),
    "mouth_protrusion": Trait(1.9, 0.0, profile=0.7), "upper_fullness": Trait(0.7, -0.1, profile=0.5),
    "lower_fullness": Trait(0.8, -0.1, profile=0.5), "mouth_height": Trait(1.0),
    "mouth_corner": Trait(0.9, -0.1), "philtrum": Trait(0.35),
    "chin_protrusion": Trait(2.2, 0.8, profile=-0.2), "chin_width": Trait(1.7, 1.2),
    "labiomental": Trait(0.8, 0.2),
    "jaw_angle": Trait(3.0, -1.4), "jaw_body": Trait(1.8, 0.8, fullness=0.4),
    "submental": Trait(2.6, 0.0, fullness=0.7),
    "ear_flare": Trait(4.0, 1.0), "ear_height": Trait(1.8), "lobe": Trait(1.4, 0.5), "ear_tilt": Trait(3.5),
    "neck_width": Trait(3.0, 4.2, size=0.3, fullness=0.5), "neck_depth": Trait(2.4, 2.2, fullness=0.4),
    "occiput": Trait(2.6), "nape": Trait(2.0, 1.0),
    "vault_shape": Trait(1.8), "lower_jaw": Trait(1.6, 0.3),
}  # fmt: skip

ASYMMETRY_SPREAD = (
    0.55  # mm; bilateral differences of facial landmarks average about 1 mm (3DFN 2016; Ferrario et al. 1994)
)
RANDOM_SPREAD = 0.42  # mm, of the variation that no named trait covers


def draw_scans(template: Template, num_scans: int, rng: np.random.Generator) -> np.ndarray:
    """Draw neutral identities in the frame of the template.

    Half of them are men and half women (in expectation). A trait is the sum of its sex's mean, its share in three
    factors common to many traits, and its own part; the total spread is the published one.

    Args:
        template: the head.
        num_scans: number of identities N, at least 1.
        rng: source of randomness; the same state gives the same scans.

    Returns:
        Vertices, (N, V, 3), mm, in correspondence.

    Raises:
        ValueRangeError: If ``num_scans`` is not positive.
    """
    if num_scans < 1:
        raise ValueRangeError(f"num_scans: found {num_scans}; expected 1 or more")
    canvas = Canvas(template)
    named = identity_fields(canvas)
    skewed = asymmetry_fields(canvas)
    loose = random_fields(canvas)

    sex = rng.choice([-1.0, 1.0], size=num_scans)
    factors = np.clip(rng.standard_normal((num_scans, 3)), -CLIP, CLIP)
    amounts = []
    for name in named:
        trait = TRAITS[name]
        loading = np.array([trait.size, trait.fullness, trait.profile])
        own = np.sqrt(max(0.0, 1.0 - (loading**2).sum()))
        score = factors @ loading + own * np.clip(rng.standard_normal(num_scans), -CLIP, CLIP)
        amounts.append(sex * trait.sex + trait.spread * score)
    amounts += list(ASYMMETRY_SPREAD * np.clip(rng.standard_normal((len(skewed), num_scans)), -CLIP, CLIP))
    amounts += list(RANDOM_SPREAD * np.clip(rng.standard_normal((len(loose), num_scans)), -CLIP, CLIP))
    fields = np.stack([*named.values(), *skewed.values(), *loose])  # (K, V, 3)
    moved = np.array(amounts).T @ fields.reshape(len(fields), -1)
    return template.vertices + moved.reshape(num_scans, -1, 3)
