"""Shared code of the losses on labelled pictures: from whitened vectors to raw differences.

See chapter 9.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.base.errors import ShapeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.coefficients import POSE_SHAPE, POSE_SIZE, CoefficientLayout, Coefficients, Whitening
from twodasl_lite.losses.distances import check_pair
from twodasl_lite.losses.moments import VertexMoments

DEPTH_ENTRY = CoefficientLayout().names.index("pose[2,3]")
"""11, the index of the translation's depth in the vector, which no picture determines."""


def without_depth(values: torch.Tensor) -> torch.Tensor:
    """A copy of ``(..., D)`` with the translation's depth set to zero."""
    keep = torch.ones(values.shape[-1], dtype=torch.bool, device=values.device)
    keep[DEPTH_ENTRY] = False
    return torch.where(keep, values, torch.zeros_like(values))


def check_vectors(
    predicted: torch.Tensor, target: torch.Tensor, size: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Check two batches of whitened vectors ``(B, D)``, and convert them to at least single precision.

    Raises:
        ShapeError: If the shapes differ, or D is not ``size`` (if not given: less than a pose).
    """
    predicted, target = check_pair(("predicted", "target"), predicted, target, ("B", "D" if size is None else size))
    if predicted.shape[-1] < POSE_SIZE:
        raise ShapeError(f"predicted: found {predicted.shape[-1]} coefficients; expected {POSE_SIZE} or more")
    return predicted, target


class Step(NamedTuple):
    """Difference from the true to the predicted coefficients, raw.

    Attributes:
        target: True coefficients.
        change: Predicted minus true coefficients; exact zeros where both agree.
    """

    target: Coefficients
    change: Coefficients


class LabelledLoss(nn.Module):
    """Base class of the losses on vertices: holds the whitening and the moments of the face model.

    Args:
        model: The face model.
        whitening: Mean and standard deviation of each coefficient.
        vertices: Vertices to use: indices ``(N,)``, the name of one of the model's regions, or by default all.

    Raises:
        ShapeError: If whitening and model differ in the number of coefficients.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: MorphableModel, whitening: Whitening, vertices: torch.Tensor | str | None = None) -> None:
        super().__init__()
        self.layout = model.layout
        if whitening.mean.shape[0] != self.layout.size:
            raise ShapeError(
                f"whitening: found {whitening.mean.shape[0]} coefficients; expected the model's {self.layout.size}"
            )
        self.moments = VertexMoments(model, vertices)
        self.register_buffer("mean", whitening.mean.to(model.mean), persistent=False)
        self.register_buffer("std", whitening.std.to(model.mean), persistent=False)

    def extra_repr(self) -> str:
        """Numbers of vertices and coefficients, as text."""
        return f"{self.moments.count:,} vertices, {self.layout.size} coefficients"

    def step(self, predicted: torch.Tensor, target: torch.Tensor) -> Step:
        """Check whitened vectors ``(B, D)``, and convert them to raw coefficients and differences."""
        predicted, target = check_vectors(predicted, target, self.layout.size)
        predicted, target = predicted.to(self.std), target.to(self.std)
        change = (predicted - target) * self.std  # the difference of raw vectors would lose digits
        return Step(
            Coefficients.unpack(target * self.std + self.mean, self.layout), Coefficients.unpack(change, self.layout)
        )


def linear_part(pose: torch.Tensor) -> torch.Tensor:
    """The matrix f R ``(..., 3, 3)`` of a pose ``(..., 3, 4)``."""
    return pose[..., : POSE_SHAPE[1] - 1]


def component_weights(face: Coefficients, first: float) -> torch.Tensor:
    """Vectors ``(B, 1 + K)`` of ``first`` (1 for a face, 0 for a difference), shape and expression coefficients."""
    head = torch.full_like(face.pose[..., 0, :1], first)
    return torch.cat([head, face.shape, face.expression], dim=-1)
