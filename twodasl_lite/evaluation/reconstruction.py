"""Reconstruction error: the error of the shape alone, after a rigid alignment.

Iterative closest points (Besl and McKay 1992): pair each true point with the closest predicted one, move the predicted
shape to bring the pairs together, and repeat. Rotation and translation only: a face of the wrong size stays wrong. The
error is the distance of each vertex to *its own* counterpart (index to index), as in the release of Tu et al. (2019);
the closest pairs are used only for the alignment. See chapter 15.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

from twodasl_lite.base.checks import check_choice, check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.evaluation.landmark_errors import bounding_box, box_size

EVERY = 50
"""Stride of the compared vertices; the release uses every 50th, 1,065 of 53,215."""
Anchor = Literal["centroid", "matched"]
ANCHORS: tuple[Anchor, ...] = ("centroid", "matched")

_FACES_AT_ONCE = 8  # distance matrices of 1,065 x 1,065 take 9 MB per face


class Alignment(NamedTuple):
    """Result of :func:`icp`: ``aligned = predicted @ rotation.T + translation``.

    Attributes:
        points: Aligned shapes, ``(N, P, 3)``.
        rotation: Rotations, ``(N, 3, 3)``.
        translation: Translations, ``(N, 3)``.
        steps: Number of steps, ``(N,)``.
    """

    points: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor
    steps: torch.Tensor


def rigid_rotation(points: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The rotation about the centroids that minimises the squared distances of paired points (Kabsch 1976).

    Args:
        points: Points to rotate, ``(..., P, 3)``.
        target: Their partners, ``(..., P, 3)``.

    Returns:
        R ``(..., 3, 3)``, applied as ``points @ R.T``; always a rotation, never a reflection.
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
    """Align each predicted shape with its target.

    Args:
        predicted: Predicted points, ``(N, P, 3)``.
        target: True points, ``(N, Q, 3)``; their order does not matter here.
        tolerance: Change of the mean squared distance of the pairs below which to stop, in squared units of the points
            (in the release, 0.01 square pixels for faces of about 150).
        max_steps: Maximum number of steps.
        anchor: ``"centroid"`` aligns the two centroids, as in the release; ``"matched"`` aligns the centroids of the
            pairs, which minimises their distance and is better if one shape is cut off.

    Returns:
        The alignment.

    Raises:
        ShapeError: If the numbers of faces differ.
    """
    check_choice("anchor", anchor, ANCHORS)
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
    """Align one batch of faces; converged ones are not moved any further."""
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
        predicted: Predicted vertices, ``(N, V, 3)``.
        target: True vertices in correspondence with them, ``(N, V, 3)``.
        every: Stride of the vertices to use: 0, every, 2 every, ...
        box: Box for the normalisation, ``(N, 4)``; by default that of *all* target vertices.
        tolerance: Convergence threshold, see :func:`icp`.
        anchor: Anchor of the alignment, see :func:`icp`.

    Returns:
        Errors ``(N,)`` as fractions.

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
