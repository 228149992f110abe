"""Where another model's landmarks lie on a face, found by registering the two average faces.

The 68 landmarks are one list with several meanings. Eyes, nose and mouth have corners; the jaw has none, and every
model places its 17 points by its own convention: the ICT model's lie 9 to 23 mm from the Basel Face Model's. Errors
against annotations made with one model then measure the other model's convention. Here the average face of one model is
fitted to the landmarks of the other, and each landmark gets the vertex that ends up nearest to it.
See chapter 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twodasl_lite.base.checks import check_number, check_tensor
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces.build import align
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.landmarks import GROUPS, MIRROR, NUM_LANDMARKS

PRECISION = 5.0
"""Error of a landmark, in millimetres, that costs as much as one standard deviation of a shape component."""
_ROUNDS = 30  # rounds of nearest vertices and fits; a handful is enough


def matching_landmarks(
    model: MorphableModel,
    points: torch.Tensor,
    moved: Sequence[int] = tuple(GROUPS["jaw"]),
    *,
    among: torch.Tensor | None = None,
    precision: float = PRECISION,
) -> torch.Tensor:
    """The model's landmarks, some of them moved to where another model has them.

    ::

        minimise over shape a and similarity T    sum_i |V_k(i)(a) - T(p_i)|^2 / precision^2 + |a / std|^2

    in alternation with the vertices k(i): the model's own landmarks, and for the moved ones those nearest to T(p_i).
    The points are made symmetric first.

    Args:
        model: The face, in millimetres, with its 68 landmarks.
        points: ``(68, 3)`` the landmarks of the other model's average face, in any unit and pose.
        moved: Which landmarks to move.
        among: ``(N,)`` vertices to choose from, for instance those of the skin; all by default.
        precision: ``precision`` in the formula, in millimetres.

    Returns:
        ``(68,)`` vertices of the landmarks.

    Raises:
        ShapeError: If the points have another shape.
        ValueRangeError: If fewer than four landmarks stay where they are, or the precision is not above zero.
    """
    points = check_tensor("points", points, (NUM_LANDMARKS, 3)).double().cpu()
    kept = [k for k in range(NUM_LANDMARKS) if k not in set(moved)]
    if len(kept) < 4:
        raise ValueRangeError(f"moved: found {len(set(moved))} landmarks; expected at least four that stay")
    check_number("precision", precision, above=0)
    points = _symmetric(points)
    mean = model.mean.double().cpu()  # (V, 3)
    basis = (model.shape_basis * model.shape_std).double().cpu()  # (V, 3, K)
    own = model.landmarks.cpu()
    among = torch.arange(len(mean)) if among is None else among.cpu()
    order = [*kept, *moved]
    shape = torch.zeros(basis.shape[-1], dtype=mean.dtype)
    found: torch.Tensor | None = None  # vertices of the moved landmarks
    for _ in range(_ROUNDS):
        face = mean + basis @ shape
        vertices = own[kept] if found is None else torch.cat([own[kept], found])
        placed = align(points[order[: len(vertices)]], face[vertices], with_scale=True).apply(points[order])  # (68, 3)
        before, found = found, among[torch.cdist(placed[len(kept) :], face[among]).argmin(dim=1)]
        if before is not None and torch.equal(before, found):
            break
        vertices = torch.cat([own[kept], found])
        matrix = basis[vertices].flatten(0, 1)  # (3 * 68, K)
        rest = (placed - mean[vertices]).flatten()
        penalty = precision**2 * torch.eye(matrix.shape[1], dtype=matrix.dtype)
        shape = torch.linalg.solve(matrix.T @ matrix + penalty, matrix.T @ rest)
    result = own.clone()
    result[list(moved)] = found
    return result


def _symmetric(points: torch.Tensor) -> torch.Tensor:
    """The mean of the points and of their mirror image, which is first aligned with them."""
    mirrored = points[MIRROR] * points.new_tensor([-1.0, 1.0, 1.0])
    return (points + align(mirrored, points).apply(mirrored)) / 2
