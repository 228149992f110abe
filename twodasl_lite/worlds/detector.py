"""The simulated noise of a landmark detector.

In-the-wild pictures come with 18 points from a detector, and detectors make errors: all points of a face are shifted
together, each point has an error of its own, hard faces make both worse, single points go astray, and all errors grow
as a face turns away. The parameters are fitted to a real detector's errors on 1,998 images of AFLW2000-3D: mean, median
and 95th percentile of the normalised error in three yaw bins. A normal distribution does not fit: its 95th percentile
beyond 60 degrees is 6.0 %, but the real one is 8.7 %. See chapter 7.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from twodasl_lite.base.checks import check_tensor, values_are_trusted
from twodasl_lite.base.constants import constant_like
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.geometry.landmarks import NUM_SUBSET
from twodasl_lite.worlds.draws import Draws

YAW_EDGES = (30.0, 60.0)
"""Edges of the yaw bins of the fit, in degrees of absolute yaw."""

REFERENCE_SIZE = 81.6
"""Mean of sqrt(width height) of the landmarks' box on the real crops, in pixels; the noise refers to it."""


class Noise(NamedTuple):
    """Errors of a detector within one yaw bin; lengths in pixels for a face of :data:`REFERENCE_SIZE`.

    Attributes:
        bias: Constant error in y.
        shift: Standard deviation of the shift that all points of a face share, in x and y.
        point: Standard deviation of a point's own error on a typical face, in x and y.
        face_spread: Standard deviation of the logarithm of a face's difficulty, which multiplies its points' errors.
        shift_spread: Standard deviation of the logarithm of the factor that multiplies the shift.
        point_spread: Standard deviation of the logarithm of a point's difficulty.
        stray: Share of points that go astray.
        stray_factor: Factor by which their errors are larger.
        missing: Share of points that are not reported. Not measured (the real detector reports every point): a low
            rate, so that networks learn to cope with missing points.
    """

    bias: float
    shift: tuple[float, float]
    point: tuple[float, float]
    face_spread: float
    shift_spread: float
    point_spread: float
    stray: float
    stray_factor: float
    missing: float


# Fitted to the table in the benchmarks' README by random search; the test of this module compares them again.
DETECTOR: tuple[Noise, Noise, Noise] = (
    Noise(
        bias=-0.6,
        shift=(0.66, 0.70),
        point=(1.01, 1.30),
        face_spread=0.35,
        shift_spread=0.23,
        point_spread=0.25,
        stray=0.018,
        stray_factor=2.5,
        missing=0.005,
    ),
    Noise(
        bias=-0.6,
        shift=(1.11, 0.93),
        point=(1.15, 1.33),
        face_spread=0.56,
        shift_spread=0.26,
        point_spread=0.23,
        stray=0.021,
        stray_factor=3.4,
        missing=0.01,
    ),
    Noise(
        bias=0.0,
        shift=(1.22, 1.14),
        point=(1.70, 1.98),
        face_spread=0.52,
        shift_spread=0.54,
        point_spread=0.18,
        stray=0.026,
        stray_factor=2.8,
        missing=0.03,
    ),
)
"""The simulated detector below 30 degrees of yaw, from 30 to 60, and beyond 60."""


def scaled(factor: float, noise: tuple[Noise, Noise, Noise] = DETECTOR) -> tuple[Noise, Noise, Noise]:
    """A detector whose errors in pixels are ``factor`` times as large; it misses the same share of points."""
    return tuple(  # type: ignore[return-value]
        one._replace(
            bias=factor * one.bias,
            shift=(factor * one.shift[0], factor * one.shift[1]),
            point=(factor * one.point[0], factor * one.point[1]),
        )
        for one in noise
    )


def detect(
    points: torch.Tensor,
    yaw: torch.Tensor,
    size: torch.Tensor,
    draws: Draws,
    noise: tuple[Noise, Noise, Noise] = DETECTOR,
    *,
    check: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a detector reports for faces whose landmarks are known.

    Args:
        points: ``(B, 18, 2)`` true points in pixels.
        yaw: ``(B,)`` degrees.
        size: ``(B,)`` sqrt(width height) of the 68 landmarks' box, in pixels: errors grow with the face.
        draws: Random numbers of the B pictures.
        noise: Its errors in each yaw bin.
        check: Whether to check the values; on a GPU this waits for the device.

    Returns:
        ``(B, 18, 2)`` reported points, NaN where missing, and ``(B, 18)`` whether each is reported.

    Raises:
        ShapeError: If a shape differs.
        ValueRangeError: If a point, yaw or size is not finite, or a size is not above zero.
    """
    points = check_tensor("points", points, (draws.size, NUM_SUBSET, 2), finite=check)
    yaw = check_tensor("yaw", yaw, (draws.size,), finite=check, device=points.device)
    size = check_tensor("size", size, (draws.size,), finite=check, dtype=points.dtype, device=points.device)
    if check and not values_are_trusted() and bool((size <= 0).any()):
        raise ValueRangeError(f"size: found {float(size.min())}; expected pixels, above 0")
    kind = torch.bucketize(yaw.abs(), constant_like(yaw, *YAW_EDGES))  # (B,)

    def number(name: str) -> torch.Tensor:
        """``(B,)`` or ``(B, 2)``: one of the settings, for each face's yaw bin."""
        return constant_like(points, *(getattr(one, name) for one in noise))[kind]

    def normal(purpose: str, *shape: int) -> torch.Tensor:
        return draws.normal(f"detector {purpose}", *shape).to(points)

    difficulty = normal("face")  # (B,)
    shift = number("shift") * torch.exp(number("shift_spread") * difficulty)[:, None] * normal("shift", 2)  # (B, 2)
    shift[:, 1] += number("bias")
    spread = torch.exp(number("face_spread") * difficulty)[:, None] * torch.exp(
        number("point_spread")[:, None] * normal("point difficulty", NUM_SUBSET)
    )  # (B, 18)
    stray = draws.uniform("detector stray", NUM_SUBSET).to(points) < number("stray")[:, None]
    spread = torch.where(stray, spread * number("stray_factor")[:, None], spread)
    own = number("point")[:, None] * spread[..., None] * normal("point", NUM_SUBSET, 2)  # (B, 18, 2)
    reported = draws.uniform("detector missing", NUM_SUBSET).to(points) >= number("missing")[:, None]
    found = points + (own + shift[:, None]) * (size / REFERENCE_SIZE)[:, None, None]
    return torch.where(reported[..., None], found, math.nan), reported
