"""Vertex distance cost: the distance between predicted and true vertices.

Zhu et al. 2016, section 3.4; the unit is this project's choice. See chapter 9.
"""

from __future__ import annotations

import torch

from twodasl_lite.base.checks import check_number
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import PoseForm, constrain_pose
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.losses.distances import FACE_SIZE_FLOOR, face_size
from twodasl_lite.losses.labelled import LabelledLoss, component_weights, linear_part

_LEAST = 1e-4  # distance in face sizes below which the root is constant, because its slope at 0 is infinite


class VDC(LabelledLoss):
    """Vertex distance cost on labelled pictures.

    ::

        loss = mean_i |V_i(c^) - V_i(c)|^2 / s^2,    s = sqrt(w h) of the box around the 68 landmarks of V(c)

    or its square root, the distance itself, so that hard faces do not dominate. Depths are centred in both sets. The
    result is exact over all vertices at the cost of a few: the displacement is linear in the basis, so the mean is a
    quadratic form (:class:`~twodasl_lite.losses.VertexMoments`).

    Args:
        model: The face model.
        whitening: Mean and standard deviation of each coefficient.
        vertices: Vertices to use: indices ``(N,)``, the name of one of the model's regions, or by default all.
        floor: Smallest face size in pixels.
        root: Whether to take the square root.
        pose: Interpretation of the predicted pose, see :func:`~twodasl_lite.geometry.camera.constrain_pose`.

    Raises:
        ShapeError: If whitening and model differ in the number of coefficients.
    """

    def __init__(
        self,
        model: MorphableModel,
        whitening: Whitening,
        vertices: torch.Tensor | str | None = None,
        floor: float = FACE_SIZE_FLOOR,
        root: bool = False,
        pose: PoseForm = "free",
    ) -> None:
        super().__init__(model, whitening, vertices)
        self.floor, self.root, self.pose = check_number("floor", floor, above=0), root, pose
        landmarks = torch.cat([model.mean[..., None], model.basis], dim=-1)[model.landmarks]  # (68, 3, 1 + K)
        self.register_buffer("landmark_basis", landmarks.detach().clone(), persistent=False)

    def forward(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared distance of the vertices, or its square root.

        Args:
            predicted: Predicted whitened coefficients, ``(B, D)``.
            target: True whitened coefficients, ``(B, D)``.

        Returns:
            Loss ``(B,)`` in squared face sizes, or in face sizes if the root is taken.

        Raises:
            ShapeError: If the shapes do not match.
        """
        # Autocast ends here: squares of small displacements need single precision.
        with torch.autocast(predicted.device.type, enabled=False):
            truth, change = self.step(predicted, target)
            if self.pose != "free":
                read = constrain_pose(truth.pose + change.pose, self.pose)
                change = change._replace(pose=read - truth.pose)
            linear, turned = linear_part(truth.pose), linear_part(change.pose)  # (B, 3, 3)
            weights, moved = component_weights(truth, 1.0), component_weights(change, 0.0)  # (B, 1 + K)
            # (M + dM) S(a + da) - M S(a) = dM S(a + da) + M S(da)
            tensor = turned[..., None] * (weights + moved)[:, None, None] + linear[..., None] * moved[:, None, None]
            mean_square = self.moments.mean_square(tensor, change.pose[..., 3])
            squared = mean_square / self._size(linear, weights).square()
            return squared.clamp(min=_LEAST**2).sqrt() if self.root else squared

    @torch.no_grad()
    def _size(self, linear: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Face sizes ``(B,)`` of the ground truth; the translation does not affect them and is left out."""
        points = torch.einsum("njk,bk->bnj", self.landmark_basis, weights)  # (B, 68, 3)
        return face_size(points @ linear.transpose(-1, -2), None, self.floor)
