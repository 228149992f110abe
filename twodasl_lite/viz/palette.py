"""Colours of every figure in one place, all of them safe for colour-blind readers.

The categorical colours are those of Okabe and Ito (2008), *Color Universal Design*; the sequential ones are nine
stops of viridis, whose lightness grows evenly, so that it also survives a black-and-white print.
"""

from __future__ import annotations

from twodasl_lite.errors import ValueRangeError

OKABE_ITO: dict[str, str] = {
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "grey": "#7F7F7F",
}

CATEGORICAL: tuple[str, ...] = tuple(
    OKABE_ITO[name] for name in ("blue", "vermilion", "green", "purple", "orange", "sky", "grey")
)
"""The order in which curves and point sets take their colours."""

VIRIDIS: tuple[str, ...] = (
    "#440154",
    "#472D7B",
    "#3B528B",
    "#2C728E",
    "#21918C",
    "#28AE80",
    "#5EC962",
    "#ADDC30",
    "#FDE725",
)

CLAY = (0.80, 0.77, 0.73)
"""sRGB of an unpainted face."""

_LANDMARK_COLOURS = {
    "jaw": OKABE_ITO["sky"],
    "brow": OKABE_ITO["orange"],
    "nose": OKABE_ITO["green"],
    "eye": OKABE_ITO["blue"],
    "mouth": OKABE_ITO["vermilion"],
    "lip": OKABE_ITO["vermilion"],
}


def landmark_colour(group: str) -> str:
    """Colour of a landmark group, chosen by the part of the face that its name mentions.

    Args:
        group: Name of the group, for instance ``"left_eye"`` or ``"jaw"``.

    Returns:
        ``"#RRGGBB"``; purple for a part it does not know.
    """
    lowered = group.lower()
    for part in ("brow", "eye", "nose", "mouth", "lip", "jaw"):  # "eyebrow" is a brow before it is an eye
        if part in lowered:
            return _LANDMARK_COLOURS[part]
    return OKABE_ITO["purple"]


def hex_to_rgb(colour: str) -> tuple[float, float, float]:
    """``"#RRGGBB"`` as three floats in [0, 1].

    Raises:
        ValueRangeError: If it is not written so.
    """
    digits = colour.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    except ValueError:
        raise ValueRangeError(f'colour: found {colour!r}; expected "#RRGGBB"') from None
