"""The mirror image of a face, vertex by vertex and in coefficients.

The mirror image of a model's face is a face of the model if the model was made of faces and their mirror images, as the
embedded one is: its shape components are then symmetric or antisymmetric, and mirroring changes some signs. For other
bases the nearest linear map is found by least squares, and how much it leaves is said.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.coefficients import Coefficients

LARGEST_RESIDUAL = 0.05
"""Share of the deformations' size; a model that leaves more is not taken for symmetric."""
_HANDFUL, _SLICE = 256, 0.02  # places looked up at a time; margin of their slice, over the height of all points
_FLIP = (-1.0, 1.0, 1.0)


class CoefficientMirror(NamedTuple):
    """What mirroring a face does to its coefficients: ``mirrored = matrix @ coefficients``.

    Attributes:
        shape: ``(Ks, Ks)``.
        expression: ``(Ke, Ke)``.
        residual: What the two leave, 0 to 1: root of the squared error over all components (each of one standard
            deviation) and the mean face, over the root of the squares of all components.
    """

    shape: torch.Tensor
    expression: torch.Tensor
    residual: float


_known: weakref.WeakKeyDictionary[MorphableModel, CoefficientMirror] = weakref.WeakKeyDictionary()


def mirrored_vertices(model: MorphableModel, wanted: torch.Tensor) -> torch.Tensor:
    """The vertex nearest to the mirror image of each of some vertices, on the average face.

    Args:
        model: The face model.
        wanted: ``(N,)`` vertex indices.

    Returns:
        ``(N,)`` vertex indices.
    """
    places = model.mean[wanted] * model.mean.new_tensor(_FLIP)
    return nearest_points(places, model.mean)


def coefficient_mirror(model: MorphableModel) -> CoefficientMirror:
    """The linear maps that come closest to mirroring the model's faces; computed once for each model.

    Args:
        model: The face model.
    """
    found = _known.get(model)
    if found is None or found.shape.device != model.mean.device:
        found = _known[model] = _fit(model)
    return found


def _fit(model: MorphableModel) -> CoefficientMirror:
    every = torch.arange(model.num_vertices, device=model.mean.device)
    partner, flip = mirrored_vertices(model, every), model.mean.new_tensor(_FLIP).double()
    mean = model.mean.double()
    wrong = (mean[partner] * flip - mean).square().sum()
    size, matrices = mean.new_zeros(()), []
    for basis, std in (
        (model.shape_basis, model.shape_std),
        (model.expression_basis, model.expression_std),
    ):
        wanted = (basis.double()[partner] * flip[:, None]).flatten(0, 1)  # (3V, K)
        given = basis.double().flatten(0, 1)
        matrix = torch.linalg.lstsq(given, wanted).solution
        wrong = wrong + ((wanted - given @ matrix) * std).square().sum()
        size = size + (wanted * std).square().sum()
        matrices.append(matrix.to(model.mean))
    return CoefficientMirror(*matrices, float((wrong / size.clamp(min=1e-30)).sqrt()))


def mirror_coefficients(coefficients: torch.Tensor, model: MorphableModel, width: float) -> torch.Tensor:
    """The coefficients of the mirrored picture of a face.

    With ``F = diag(-1, 1, 1)``, a face ``v`` of a mirrored picture is the mirror image ``F v`` of the model's, and its
    x is ``width + 1 - x`` in the 1-based frame of poses. So the first column of the pose changes its sign, then its
    first row, to whose translation ``width + 1`` is added; shape and expression are mapped by
    :func:`coefficient_mirror`.

    Args:
        coefficients: ``(..., D)`` raw.
        model: The face model, in their layout.
        width: Of the picture in pixels.

    Returns:
        ``(..., D)``; mirroring twice gives the coefficients back, up to the model's own residual.

    Raises:
        ValueRangeError: If the model is not symmetric: its maps leave more than :data:`LARGEST_RESIDUAL`.
    """
    maps = coefficient_mirror(model)
    if maps.residual > LARGEST_RESIDUAL:
        raise ValueRangeError(
            f"model: found {model.name!r}, of whose deformations mirroring leaves {maps.residual:.1%}; expected a "
            f"symmetric model, at most {LARGEST_RESIDUAL:.0%}"
        )
    pose, shape, expression = Coefficients.unpack(coefficients, model.layout)
    sign = pose.new_tensor([[1.0, -1, -1, -1], [-1, 1, 1, 1], [-1, 1, 1, 1]])
    shift = pose.new_zeros(3, 4)
    shift[0, 3] = width + 1
    parts = shape @ maps.shape.T.to(shape), expression @ maps.expression.T.to(expression)
    return Coefficients(pose * sign + shift, *parts).pack()


def nearest_points(places: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """For each place ``(N, 3)`` the index ``(N,)`` of the nearest of some points ``(M, 3)``.

    Exact, and quicker than all distances: points in a thin slice around a handful of places of one height are compared,
    and all points only where the nearest in the slice is farther away than its edge.
    """
    order, rising = places[:, 1].argsort(), points[:, 1].argsort()
    heights = points[rising, 1].contiguous()
    margin = float(heights[-1] - heights[0]) * _SLICE if len(heights) else 0.0
    result = order.new_zeros(len(places))
    for part in order.split(_HANDFUL) if len(order) else ():
        low, high = places[part[0], 1] - margin, places[part[-1], 1] + margin
        begin, end = torch.searchsorted(heights, torch.stack([low, high])).tolist()
        near = rising[begin:end].sort().values  # of equal distances the lowest index is meant
        far = part
        if len(near):
            least, index = _distances(places[part], points[near]).min(dim=1)
            result[part] = near[index]
            far = part[least > margin]
        if len(far):
            result[far] = _distances(places[far], points).argmin(dim=1)
    return result


def _distances(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")  # products lose half the digits
