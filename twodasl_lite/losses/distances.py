"""Distances between points in units of the face's size; hidden points are ignored.

Points are in pixels of any resolution: doubling the resolution doubles both the distances and the face's size. Norms,
masks and units are this project's choice; the paper (Tu et al. 2019, section 3.3) does not specify them. See chapter
10.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from twodasl_lite.base.checks import check_choice, check_number, check_tensor
from twodasl_lite.base.errors import InputTypeError, ShapeError
from twodasl_lite.geometry.camera import CROP_SIZE

Distance = Literal["squared", "huber"]
DISTANCES: tuple[Distance, ...] = ("squared", "huber")

HUBER_DELTA = 0.05
"""Distance at which the Huber distance becomes linear, in face sizes; twice a good detector's mean error."""

FACE_SIZE_FLOOR = 0.1 * CROP_SIZE
"""Smallest face size in pixels; the box around one or two visible landmarks has almost no area."""


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Convert to at least single precision: half precision cannot represent the square of a small distance."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def centre_depth(points: torch.Tensor) -> torch.Tensor:
    """Shift each set of points so that its mean depth is zero, because absolute depth cannot be observed.

    Args:
        points: Points ``(..., N, 3)``.

    Returns:
        Points of the same shape; x and y are unchanged.
    """
    points = check_tensor("points", points, ("...", "N", 3), finite=False)
    depth = points[..., 2:]
    return torch.cat([points[..., :2], depth - depth.mean(dim=-2, keepdim=True)], dim=-1)


def present_points(points: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Mask of the points that are visible and have coordinates.

    Args:
        points: Points ``(B, N, D)``, NaN where unknown.
        visible: Visibility, ``(B, N)``, boolean or 0/1; by default all are visible.

    Returns:
        Mask ``(B, N)``, boolean.

    Raises:
        InputTypeError: If ``visible`` is not a tensor.
        ShapeError: If it has another shape.
    """
    present = torch.isfinite(points).all(dim=-1)  # (B, N)
    if visible is None:
        return present
    if not isinstance(visible, torch.Tensor):
        raise InputTypeError(f"visible: found {type(visible).__name__}; expected a tensor")
    if visible.shape != present.shape:
        raise ShapeError(f"visible: found shape {tuple(visible.shape)}; expected {tuple(present.shape)}")
    return present & (visible.to(present.device) > 0)


def face_size(
    points: torch.Tensor, visible: torch.Tensor | None = None, floor: float = FACE_SIZE_FLOOR
) -> torch.Tensor:
    """Size of a face, ``sqrt(w h)`` of the box around its visible landmarks: the unit of every distance.

    It is detached from the graph: otherwise a network could lower its loss by predicting a larger face.

    Args:
        points: Landmarks in pixels, ``(B, N, 2)`` or ``(B, N, 3)``, NaN where unknown.
        visible: Visibility, ``(B, N)``, boolean or 0/1; by default all are visible.
        floor: Smallest size in pixels; also the size of a face without a visible landmark.

    Returns:
        Face sizes ``(B,)`` in pixels, without gradient.
    """
    points = check_tensor("points", points, ("B", "N", (2, 3)), finite=False).detach()
    present = present_points(points, visible)[..., None]  # (B, N, 1)
    plane = at_least_float32(points[..., :2])
    infinity = torch.full_like(plane, float("inf"))
    extent = torch.where(present, plane, -infinity).amax(dim=1) - torch.where(present, plane, infinity).amin(dim=1)
    area = extent.clamp(min=0).prod(dim=-1)  # (B,); without any point the extent is -infinity
    return area.sqrt().clamp(min=floor)


class PointDistance(nn.Module):
    """Mean distance per sample between two sets of points, over the visible ones.

    ::

        loss = sum_i m_i rho(|p_i - x_i| / s) / sum_i m_i,    s = face size of x
        rho(d) = d^2                            squared
        rho(d) = d^2 up to delta, then the line 2 delta d - delta^2         huber

    The Huber distance equals the square near zero and grows linearly beyond ``delta``, so that the gradient of an
    outlier stays bounded.

    Args:
        distance: ``"squared"`` or ``"huber"``.
        delta: Distance at which the Huber distance becomes linear, in face sizes.
        floor: Smallest face size in pixels; scale it for crops other than 120 x 120 pixels.

    Raises:
        ValueRangeError: If an argument is out of range.
    """

    def __init__(
        self, distance: Distance = "squared", delta: float = HUBER_DELTA, floor: float = FACE_SIZE_FLOOR
    ) -> None:
        super().__init__()
        check_choice("distance", distance, DISTANCES)
        self.distance = distance
        self.delta, self.floor = check_number("delta", delta, above=0), check_number("floor", floor, above=0)

    def extra_repr(self) -> str:
        """The settings as text."""
        return f"distance={self.distance!r}" + (f", delta={self.delta}" if self.distance == "huber" else "")

    def rho(self, squared: torch.Tensor) -> torch.Tensor:
        """Loss of a squared distance, in squared face sizes."""
        if self.distance == "squared":
            return squared
        edge = self.delta**2
        line = 2 * self.delta * squared.clamp(min=edge).sqrt() - edge  # clamped: the root's slope at 0 is infinite
        return torch.where(squared <= edge, squared, line)

    def between(
        self, predicted: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None, size: torch.Tensor
    ) -> torch.Tensor:
        """The loss ``(B,)`` of ``(B, N, D)`` points in units of ``size`` ``(B,)``; zero if no point is visible."""
        present = present_points(target, visible)  # (B, N)
        # Replaced before any arithmetic: even the gradient of an unused NaN is NaN.
        difference = torch.where(present[..., None], predicted - target, torch.zeros_like(predicted))
        squared = (difference / size[:, None, None]).square().sum(dim=-1)  # (B, N)
        return self.rho(squared).sum(dim=-1) / present.sum(dim=-1).clamp(min=1)


def check_pair(
    names: tuple[str, str], predicted: torch.Tensor, target: torch.Tensor, expected: tuple[int | str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check that two tensors have the same shape, and convert them to at least single precision.

    Raises:
        ShapeError: If a shape does not match ``expected`` or the two differ.
    """
    first = at_least_float32(check_tensor(names[0], predicted, expected, finite=False))
    second = at_least_float32(check_tensor(names[1], target, expected, finite=False, dtype=first.dtype))
    if first.shape != second.shape:
        raise ShapeError(
            f"{names[1]}: found shape {tuple(second.shape)}; expected that of {names[0]}, {tuple(first.shape)}"
        )
    return first, second
