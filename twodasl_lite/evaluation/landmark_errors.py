"""The normalised mean error (NME): the mean distance of points from the ground truth, over the face size.

::

    NME = mean_i |x^_i - x_i| / sqrt(w h)

with w and h the width and height of the box around the *true* points (Zhu et al. 2016, section 5.2; Tu et al. 2019,
section 4). Errors are fractions here; multiplied by 100, they are the per cent in papers. See chapter 15.
"""

from __future__ import annotations

from typing import Literal

import torch

from twodasl_lite.base.checks import check_choice, check_shape, check_tensor, values_are_trusted
from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError

Depth = Literal["min", "mean", "as_is"]
DEPTHS: tuple[Depth, ...] = ("min", "mean", "as_is")


def bounding_box(points: torch.Tensor, visible: torch.Tensor | None = None) -> torch.Tensor:
    """The bounding box of points in x and y.

    Args:
        points: Points ``(N, P, 2)`` or ``(N, P, 3)``; the depth is ignored.
        visible: Mask of the points to use, ``(N, P)`` boolean; by default all.

    Returns:
        Left, top, right, bottom, through the outermost points, ``(N, 4)``.

    Raises:
        ValueRangeError: If a face has no visible point, or a visible point is not finite.
    """
    points = check_tensor("points", points, ("N", "P", (2, 3)), finite=visible is None)[..., :2]
    if visible is None:
        return torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=-1)
    visible = _check_visible(visible, points)
    shown = visible[..., None]
    low = points.masked_fill(~shown, torch.inf).amin(dim=1)
    high = points.masked_fill(~shown, -torch.inf).amax(dim=1)
    return torch.cat([low, high], dim=-1)


def box_size(box: torch.Tensor) -> torch.Tensor:
    """The size by which errors are divided, ``sqrt(w h)`` of each box.

    Args:
        box: Left, top, right, bottom, ``(N, 4)``.

    Returns:
        Sizes ``(N,)``, above zero.

    Raises:
        ValueRangeError: If a box has no area.

    Example:
        >>> box_size(torch.tensor([[10.0, 20.0, 14.0, 29.0]]))
        tensor([6.])
    """
    box = check_tensor("box", box, ("N", 4))
    sides = box[:, 2:] - box[:, :2]
    if not values_are_trusted() and bool((sides <= 0).any()):
        worst = int(sides.amin(dim=1).argmin())
        raise ValueRangeError(
            f"box: found {box[worst].tolist()} for face {worst}; expected left < right and top < bottom"
        )
    return sides.prod(dim=1).sqrt()


def point_distances(
    predicted: torch.Tensor, target: torch.Tensor, *, depth: Depth = "min", visible: torch.Tensor | None = None
) -> torch.Tensor:
    """Distance of each predicted point from the true one.

    Args:
        predicted: Predicted points, ``(N, P, 2)`` or ``(N, P, 3)``.
        target: True points of the same shape.
        depth: Alignment of the depths, which no picture determines: from both sets, ``"min"`` subtracts the smallest
            (as the published scripts do), ``"mean"`` the mean, ``"as_is"`` nothing.
        visible: Mask of the points to use, ``(N, P)`` boolean; by default all.

    Returns:
        Distances ``(N, P)`` in the unit of the points; zero where a point is not visible.

    Raises:
        ShapeError: If the two sets differ in shape.
        ValueRangeError: If a visible point is not finite.
    """
    check_choice("depth", depth, DEPTHS)
    predicted = check_tensor("predicted", predicted, ("N", "P", (2, 3)), finite=visible is None)
    target = check_tensor("target", target, ("N", "P", (2, 3)), finite=visible is None)
    if predicted.shape != target.shape:
        raise ShapeError(f"target: found shape {tuple(target.shape)}; expected predicted's {tuple(predicted.shape)}")
    dtype = torch.promote_types(predicted.dtype, target.dtype)
    predicted, target = predicted.to(dtype), target.to(dtype)
    if visible is not None:
        visible = _check_visible(visible, predicted)
        _check_visible(visible, target)
    if predicted.shape[-1] == 3 and depth != "as_is":
        predicted, target = (_shift_depth(points, depth, visible) for points in (predicted, target))
    distances = (predicted - target).norm(dim=-1)  # (N, P)
    return distances if visible is None else distances.masked_fill(~visible, 0)


def nme(
    predicted: torch.Tensor,
    target: torch.Tensor,
    *,
    box: torch.Tensor | None = None,
    depth: Depth = "min",
    visible: torch.Tensor | None = None,
) -> torch.Tensor:
    """Normalised mean error of each face.

    With two coordinates this is the NME of the published tables; with three, the smallest depth is first subtracted
    from both sets (``depth``), and the box is still that of x and y. Dense errors are the same over all vertices; for
    them, the published scripts take ``box`` from the 68 landmarks.

    Args:
        predicted: Predicted points, ``(N, P, 2)`` or ``(N, P, 3)``, in the same pixels as ``target``.
        target: Ground truth of the same shape.
        box: Left, top, right, bottom of the box for the normalisation, ``(N, 4)``; by default that of ``target``.
        depth: Alignment of the depths, see :func:`point_distances`.
        visible: Mask of the points to use, in the mean and in the box, ``(N, P)`` boolean; by default all.

    Returns:
        Errors ``(N,)`` as fractions; multiply by 100 for per cent.

    Raises:
        ShapeError: If the two sets differ in shape.
        ValueRangeError: If a box has no area, a face has no visible point, or a visible point is not finite.

    Example:
        >>> truth = torch.tensor([[[0.0, 0.0], [4.0, 9.0]]])
        >>> nme(truth + torch.tensor([0.0, 3.0]), truth)
        tensor([0.5000])
    """
    distances = point_distances(predicted, target, depth=depth, visible=visible)
    size = box_size(bounding_box(target, visible) if box is None else box).to(distances)
    if size.shape != distances.shape[:1]:
        raise ShapeError(f"box: found {size.shape[0]} boxes; expected {distances.shape[0]}, one per face")
    count = distances.shape[1] if visible is None else visible.to(distances).sum(dim=1)
    return distances.sum(dim=1) / count / size


def _check_visible(visible: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Check that the mask matches the points, has a point in each face, and selects only finite points."""
    visible = torch.as_tensor(visible, device=points.device)
    if visible.dtype != torch.bool:
        raise InputTypeError(f"visible: found {visible.dtype}; expected booleans")
    check_shape("visible", visible, points.shape[:2])
    if bool((~visible.any(dim=1)).any()):
        first = int((~visible.any(dim=1)).nonzero()[0])
        raise ValueRangeError(f"visible: found no visible point in face {first}; expected at least one")
    if bool((visible & ~torch.isfinite(points).all(dim=-1)).any()):
        raise ValueRangeError("visible: found visible points that are NaN or infinite; expected finite numbers")
    return visible


def _shift_depth(points: torch.Tensor, depth: Depth, visible: torch.Tensor | None) -> torch.Tensor:
    """Shift depths so that the smallest, or the mean, of the visible points is zero."""
    z = points[..., 2]
    if depth == "min":
        origin = (z if visible is None else z.masked_fill(~visible, torch.inf)).amin(dim=1)
    else:
        weight = torch.ones_like(z, dtype=torch.bool) if visible is None else visible
        origin = z.masked_fill(~weight, 0).sum(dim=1) / weight.sum(dim=1)
    return torch.cat([points[..., :2], (z - origin[:, None])[..., None]], dim=-1)
