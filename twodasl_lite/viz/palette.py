"""Colours of all figures, all of them safe for colour-blind readers.

The categorical colours are those of Okabe and Ito (2008), *Color Universal Design*; the sequential ones are nine
stops of viridis, whose lightness increases evenly, so that it survives black-and-white print too.
"""

from __future__ import annotations

from twodasl_lite.base.errors import ValueRangeError

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

INK, MUTED = "#1D2126", "#5B636C"
"""Colours of text in figures and of muted text; both have a contrast of at least 4.5 on white."""

HOUSE_STYLE: dict[str, object] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.titlesize": 11,
    "figure.facecolor": "white",
    "font.size": 10,
    "legend.fontsize": 9,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 9,
    "ytick.color": INK,
    "ytick.labelsize": 9,
}
"""Sizes and colours of every matplotlib figure of the book, for ``plt.rcParams.update(HOUSE_STYLE)``."""

CLAY = (0.80, 0.77, 0.73)
"""sRGB colour of an unpainted face."""

_LANDMARK_COLOURS = {
    "jaw": OKABE_ITO["sky"],
    "brow": OKABE_ITO["orange"],
    "nose": OKABE_ITO["green"],
    "eye": OKABE_ITO["blue"],
    "mouth": OKABE_ITO["vermilion"],
    "lip": OKABE_ITO["vermilion"],
}


def landmark_colour(group: str) -> str:
    """Colour of a landmark group, chosen by the part of the face in its name.

    Args:
        group: Name of the group, for instance ``"left_eye"`` or ``"jaw"``.

    Returns:
        ``"#RRGGBB"``; purple for an unknown part.
    """
    lowered = group.lower()
    for part in ("brow", "eye", "nose", "mouth", "lip", "jaw"):  # "eyebrow" contains both "eye" and "brow": brow wins
        if part in lowered:
            return _LANDMARK_COLOURS[part]
    return OKABE_ITO["purple"]


def hex_to_rgb(colour: str) -> tuple[float, float, float]:
    """``"#RRGGBB"`` as three floats in [0, 1].

    Raises:
        ValueRangeError: If the colour does not have this form.
    """
    digits = colour.removeprefix("#")
    try:
        if len(digits) != 6:
            raise ValueError
        return tuple(int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    except ValueError:
        raise ValueRangeError(f'colour: found {colour!r}; expected "#RRGGBB"') from None


def contrast(first: str, second: str) -> float:
    """Contrast of two colours as the Web Content Accessibility Guidelines 2.2 define it.

    Args:
        first: One colour, ``"#RRGGBB"``.
        second: The other colour, ``"#RRGGBB"``.

    Returns:
        The contrast, from 1 (equal) to 21 (black on white). Text needs 4.5.

    Raises:
        ValueRangeError: If a colour does not have this form.
    """

    def luminance(colour: str) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in hex_to_rgb(colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
