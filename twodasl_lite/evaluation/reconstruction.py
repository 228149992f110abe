"""Reconstruction error: the shapes alone, after one has been laid upon the other.

Iterative closest points (Besl and McKay 1992): pair each true point with the closest predicted one, turn the predicted
shape so that the pairs come together, repeat. Rotation and translation only: a face of the wrong size stays wrong.
What is reported is the distance of each vertex to *its own* counterpart (index to index), as the release of Tu et al.
(2019) does; pairs by closeness only steer the alignment. Explained in chapter 15.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from twodasl_lite.errors import ShapeError, ValueRangeError, check_tensor
from twodasl_lite.evaluation.landmark_errors import bounding_box, box_size

EVERY = 50
"""The release compares every 50th vertex, 1,065 of 53,215."""
Anchor = Literal["centroid", "matched"]
ANCHORS: tuple[Anchor, ...] = ("centroid", "matched")

_FACES_AT_ONCE = 8  # pair tables of 1,065 x 1,065 are 9 MB a face


class Alignment(NamedTuple):
    """How :func:`icp` moved the predicted shapes: ``aligned = predicted @ rotation.T + translation``.

    Attributes:
        points: ``(N, P, 3)`` the aligned shapes.
        rotation: ``(N, 3, 3)``.
        translation: ``(N, 3)``.
        steps: ``(N,)`` steps taken.
    """

    points: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    steps: torch.Tensor


def rigid_rotation(points: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The rotation that brings paired points closest in the sum of squares, about the centroids (Kabsch 1976).

    Args:
        points: ``(..., P, 3)``.
        target: ``(..., P, 3)``, their partners.

    Returns:
        ``(..., 3, 3)`` R, to be used as ``points @ R.T``; always a rotation, never a reflection.
    """
    points = check_tensor("points", points, ("...", "P", 3))
    target = check_tensor("target", target, ("...", "P", 3), dtype=points.dtype)
    centred = points - points.mean(dim=-2, keepdim=True)
    covariance = (target - target.mean(dim=-2, keepdim=True)).transpose(-1, -2) @ centred  # (..., 3, 3)
    left, _, right = torch.linalg.svd(covariance)
    sign = torch.linalg.det(left @ right).sign()
    flip = torch.ones_like(left[..., 0])
    flip[..., 2] = torch.where(sign == 0, torch.ones_like(sign), sign)
    return (left * flip[..., None, :]) @ right


def icp(
    predicted: torch.Tensor,
    target: torch.Tensor,
    *,
    tolerance: float = 0.01,
    max_steps: int = 100,
    anchor: Anchor = "centroid",
) -> Alignment:
    """Lay each predicted shape upon its target.

    Args:
        predicted: ``(N, P, 3)``.
        target: ``(N, Q, 3)``; the order of the points does not matter here.
        tolerance: Stop when the mean squared distance of the pairs changes by less, in squared units of the points
            (the release's 0.01 square pixels for faces of about 150).
        max_steps: Most steps.
        anchor: ``"centroid"``: the two centroids stay together, as in the release. ``"matched"``: the centroids of
            the pairs do, which is what minimises their distance; better if one shape is cut off.

    Returns:
        The alignment.

    Raises:
        ShapeError: If the numbers of faces differ.
    """
    if anchor not in ANCHORS:
        raise ValueRangeError(f"anchor: found {anchor!r}; expected one of {', '.join(ANCHORS)}")
    predicted = check_tensor("predicted", predicted, ("N", "P", 3))
    target = check_tensor("target", target, ("N", "Q", 3), dtype=predicted.dtype)
    if predicted.shape[0] != target.shape[0]:
        raise ShapeError(f"target: found {target.shape[0]} faces; expected predicted's {predicted.shape[0]}")
    parts = [
        _icp(*pair, tolerance, max_steps, anchor)
        for pair in zip(predicted.split(_FACES_AT_ONCE), target.split(_FACES_AT_ONCE), strict=True)
    ]
    return Alignment(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _icp(source: torch.Tensor, target: torch.Tensor, tolerance: float, max_steps: int, anchor: Anchor) -> Alignment:
    """One batch of faces that moves together; those that have converged stay where they are."""
    num = source.shape[0]
    rotation = torch.eye(3, dtype=source.dtype, device=source.device).repeat(num, 1, 1)
    translation = target.mean(dim=1) - source.mean(dim=1)
    moved = source + translation[:, None]
    error = torch.full((num,), torch.inf, dtype=source.dtype, device=source.device)
    steps = torch.zeros(num, dtype=torch.int64, device=source.device)
    active = torch.arange(num, device=source.device)
    for _ in range(max_steps):
        if active.numel() == 0:
            break
        distance, nearest = torch.cdist(target[active], moved[active]).min(dim=2)  # (A, Q)
        partners = moved[active].gather(1, nearest[..., None].expand(-1, -1, 3))
        turn = rigid_rotation(partners, target[active])  # (A, 3, 3)
        rotation[active] = turn @ rotation[active]
        if anchor == "centroid":
            shift = target[active].mean(dim=1) - (rotation[active] @ source[active].mean(dim=1)[..., None])[..., 0]
        else:
            turned = (turn @ (partners.mean(dim=1) - translation[active])[..., None])[..., 0]
            shift = target[active].mean(dim=1) - turned
        translation[active] = shift
        moved[active] = source[active] @ rotation[active].transpose(1, 2) + shift[:, None]
        steps[active] += 1
        now = distance.square().mean(dim=1)
        change = (error[active] - now).abs()
        error[active] = now
        active = active[change > tolerance]
    return Alignment(moved, rotation, translation, steps)


def reconstruction_error(
    predicted: torch.Tensor,
    target: torch.Tensor,
    *,
    every: int = EVERY,
    box: torch.Tensor | None = None,
    tolerance: float = 0.01,
    anchor: Anchor = "centroid",
) -> torch.Tensor:
    """Mean distance of the vertices after a rigid alignment, over the size of the face (Tu et al. 2019, section 4.3).

    Args:
        predicted: ``(N, V, 3)`` vertices.
        target: ``(N, V, 3)``, vertex for vertex the same points of the face.
        every: Use vertices 0, every, 2 every, ...
        box: ``(N, 4)`` to normalise with; the one around *all* target vertices by default.
        tolerance: See :func:`icp`.
        anchor: See :func:`icp`.

    Returns:
        ``(N,)`` fractions.

    Raises:
        ShapeError: If the shapes differ.
        ValueRangeError: If ``every`` is not positive.

    Example:
        >>> face = torch.rand(1, 100, 3, generator=torch.Generator().manual_seed(0))
        >>> bool(reconstruction_error(face + 5.0, face, every=1) < 1e-6)
        True
    """
    if every < 1:
        raise ValueRangeError(f"every: found {every}; expected 1 or more")
    predicted = check_tensor("predicted", predicted, ("N", "V", 3))
    target = check_tensor("target", target, ("N", "V", 3), dtype=predicted.dtype)
    if predicted.shape != target.shape:
        raise ShapeError(f"target: found shape {tuple(target.shape)}; expected predicted's {tuple(predicted.shape)}")
    size = box_size(bounding_box(target) if box is None else box).to(predicted)
    some = target[:, ::every]
    aligned = icp(predicted[:, ::every], some, tolerance=tolerance, anchor=anchor).points
    return (aligned - some).norm(dim=-1).mean(dim=1) / size
