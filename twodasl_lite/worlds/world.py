"""Worlds: settings of the picture generator, read from small TOML files.

A :class:`World` says how widely each source of variation is drawn. Four come with the package, beside this file:
``labelled`` is narrow, like datasets with 3D labels; ``wild`` is wide; ``noisy`` is ``wild`` with a worse detector;
``snapshots`` is for pictures of one's own. A file of your own needs to name only what differs from the defaults, which
give plain, clean pictures, or from a packaged world: ``base = "wild"``. See chapter 7.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from twodasl_lite.base.errors import FileFormatError, InputTypeError, ValueRangeError
from twodasl_lite.base.settings import SettingsError, from_table, merge, read_toml

Range = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """Head poses in degrees. Each angle is normally distributed about its mean and truncated at its limit."""

    yaw_limit: float = 30.0  # largest yaw to either side
    yaw_spread: float = 15.0  # standard deviation of the normal part of the yaws
    yaw_uniform: float = (
        0.5  # share of the yaws that are uniform within the limit instead: 1 makes all equally frequent
    )
    pitch_mean: float = 0.0  # positive raises the chin
    pitch_spread: float = 8.0
    pitch_limit: float = 20.0
    roll_spread: float = 8.0
    roll_limit: float = 20.0


@dataclass(frozen=True)
class Box:
    """How boxes deviate from sqrt(2) times the longer side of the landmarks' box, centred on it.

    The boxes of AFLW2000-3D deviate only by rounding (0.1 %); boxes found from a detector's points, as for your own
    photos, deviate by about what is set here.
    """

    size_spread: float = 0.02  # standard deviation of the logarithm of the side
    shift_spread: float = 0.01  # standard deviation of the centre in x and y, as a share of the side


@dataclass(frozen=True)
class Person:
    """How much faces differ, in the face model's own standard deviations."""

    shape_scale: float = 1.0  # multiplies the shape coefficients
    expression_scale: float = 1.0  # multiplies the expression coefficients
    albedo_scale: float = 1.0  # multiplies the colour coefficients
    clip: float = 2.0  # largest distance of a coefficient from the mean, before it is multiplied
    beard: float = 0.0  # share of faces with a beard
    hair: float = 0.0  # share of heads whose hair stands off the skull
    collar: float = 0.0  # share of necks that are covered


@dataclass(frozen=True)
class Lighting:
    """Lighting of a face. A lamp's direction is given by its angle to the viewer's direction, in degrees."""

    exposure: Range = (0.85, 1.05)  # light on a face on average: 1 shows its own colours
    ambient: Range = (0.5, 0.7)  # share of it that comes from all directions
    angle: Range = (0.0, 35.0)  # angle of the main lamp
    colour: float = 0.02  # standard deviation of the logarithm of each colour of a lamp
    second: float = 0.0  # share of pictures with a second lamp, from any side, of a colour of its own
    shine: Range = (0.0, 0.05)  # strength of highlights
    shadows: float = 0.0  # share of pictures in which the main lamp casts shadows


@dataclass(frozen=True)
class Background:
    """Background of a face."""

    clutter: float = 0.0  # share of pictures with a cluttered background; plain otherwise
    contrast: Range = (0.6, 1.0)  # contrast of the clutter


@dataclass(frozen=True)
class Occluders:
    """Shares of pictures in which an object hides a part of the face."""

    glasses: float = 0.0  # half of them dark
    mask: float = 0.0  # over mouth and nose
    hat: float = 0.0
    hand: float = 0.0
    microphone: float = 0.0
    bars: float = 0.0
    thing: float = 0.0  # a cup, a phone, a ball: boxes and balls of any size


@dataclass(frozen=True)
class Degradation:
    """What cameras and the web do to pictures."""

    low_resolution: float = 0.0  # share of pictures that were once smaller
    resolution: Range = (28.0, 110.0)  # side of the smaller pictures, in pixels
    blur: float = 0.0  # share of pictures with defocus or motion blur
    blur_width: Range = (0.4, 2.2)  # standard deviation of the blur in pixels, separate for each direction
    noise: float = 0.0  # share of pictures with visible sensor noise
    noise_level: Range = (2.0, 16.0)  # standard deviation of the noise in grey values
    colour_cast: float = 0.0  # standard deviation of the logarithm of the white balance
    contrast: Range = (1.0, 1.0)  # factor
    brightness: Range = (0.0, 0.0)  # offset in grey values, divided by 255
    saturation: Range = (1.0, 1.0)  # factor; 0 is grey
    grey: float = 0.0  # share of black-and-white pictures
    jpeg: float = 0.0  # share of pictures that were JPEG files
    quality: Range = (18.0, 92.0)  # quality of the JPEG files


@dataclass(frozen=True)
class Detector:
    """Accuracy of the 18 detected points."""

    error: float = 1.0  # multiple of a real detector's measured error; 0 finds every point exactly


@dataclass(frozen=True)
class World:
    """Settings of the picture generator."""

    name: str = "plain"  # name of the world; has no effect on random numbers
    description: str = ""  # one line for people
    labelled: bool = True  # whether 3D ground truth is included by default
    supersample: int = 2  # subpixels per pixel and direction: smooth edges
    pose: Pose = field(default_factory=Pose)  # how heads are turned
    box: Box = field(default_factory=Box)  # how crops sit around them
    person: Person = field(default_factory=Person)  # how faces differ
    lighting: Lighting = field(default_factory=Lighting)  # what lights them
    background: Background = field(default_factory=Background)  # what is behind them
    occluders: Occluders = field(default_factory=Occluders)  # what is in front of them
    degradation: Degradation = field(default_factory=Degradation)  # what happens to the picture
    detector: Detector = field(default_factory=Detector)  # what finds the 18 points

    def __post_init__(self) -> None:
        for where, name, value in _numbers(self):
            _check_number(f"{where}{name}", name, value)
        if not 1 <= self.supersample <= 4:
            raise ValueRangeError(f"supersample: found {self.supersample}; expected 1 to 4")


_SHARES = {
    *(
        "yaw_uniform",
        "beard",
        "hair",
        "collar",
        "second",
        "shadows",
        "clutter",
        "glasses",
        "mask",
        "hat",
        "hand",
        "microphone",
    ),
    *("bars", "thing", "low_resolution", "blur", "noise", "grey", "jpeg", "ambient"),
}
_SIGNED = {"pitch_mean", "brightness"}
_ANGLE_LIMITS = {"yaw_limit": 90.0, "pitch_limit": 90.0, "roll_limit": 180.0, "angle": 180.0, "pitch_mean": 90.0}


def _numbers(world: World) -> typing.Iterator[tuple[str, str, float | Range]]:
    """Prefix, name and value of every number in a world."""
    for entry in dataclasses.fields(world):
        value = getattr(world, entry.name)
        if dataclasses.is_dataclass(value):
            for inner in dataclasses.fields(value):
                yield f"{entry.name}.", inner.name, getattr(value, inner.name)


def _check_number(where: str, name: str, value: float | Range) -> None:
    bounds = value if isinstance(value, tuple) else (value, value)
    high = 1.0 if name in _SHARES else _ANGLE_LIMITS.get(name, float("inf"))
    low = (-_ANGLE_LIMITS.get(name, 1.0)) if name in _SIGNED else 0.0
    if name == "quality":
        low, high = 1.0, 100.0
    elif name == "resolution":
        low = 4.0
    elif name == "clip":
        low = 1e-6
    if not (len(bounds) == 2 and low <= bounds[0] <= bounds[1] <= high):
        wanted = f"{low:g} to {high:g}" if high < float("inf") else f"{low:g} or more"
        order = ", the smaller first" if isinstance(value, tuple) else ""
        raise ValueRangeError(f"{where}: found {value}; expected {wanted}{order}")


def world_names() -> tuple[str, ...]:
    """Names of the worlds that come with the package."""
    files = resources.files("twodasl_lite.worlds").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_world(name: str | os.PathLike[str] | World) -> World:
    """Load a world by name or from a file.

    Args:
        name: One of :func:`world_names`, or the path of a ``.toml`` file; a world is returned as it is.

    Raises:
        FileFormatError: If the file is missing or not TOML, names settings that do not exist, or a value is of the
            wrong type or out of range.
        MissingDependencyError: On Python 3.10 without the package tomli.
        ValueRangeError: If there is no world of that name.
    """
    if isinstance(name, World):
        return name
    if not isinstance(name, (str, os.PathLike)):
        raise InputTypeError(f"world: found {type(name).__name__}; expected a name, a .toml file or a World")
    if os.fspath(name).endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise FileFormatError(path, "no such file", "a world's .toml file")
        return _parse(path)
    packaged = _packaged(os.fspath(name))
    if packaged is None:
        raise ValueRangeError(f"world: found {name!r}; expected one of {', '.join(world_names())}, or a .toml file")
    return _parse(packaged)


def _parse(path: Path) -> World:
    try:
        return from_table(World, _table(path))
    except SettingsError as error:
        raise FileFormatError(path, str(error), "settings of a world") from error


def _table(path: Path) -> dict[str, typing.Any]:
    """Settings of a file, and those of the packaged world that it is based on."""
    table = read_toml(path, "a world's .toml file")
    base = table.pop("base", None)
    if base is None:
        return table
    below = _packaged(base) if isinstance(base, str) else None
    if below is None or below.samefile(path):
        raise FileFormatError(path, f"base = {base!r}", f"another of {', '.join(world_names())}")
    return merge(_table(below), table)


def _packaged(name: str) -> Path | None:
    path = Path(str(resources.files("twodasl_lite.worlds") / f"{name}.toml"))
    return path if name in world_names() else None
