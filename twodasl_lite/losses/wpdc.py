"""Weighted parameter distance cost: the weight of a coefficient is the displacement that its error causes.

Zhu et al. 2016, section 3.4 and Zhu et al. 2019, section 4.3; Tu et al. 2019, eq. 4. See chapter 9.
"""

from __future__ import annotations

import torch

from twodasl_lite.base.checks import check_shape
from twodasl_lite.losses.labelled import LabelledLoss, check_vectors, component_weights, linear_part, without_depth


class WPDC(LabelledLoss):
    """Weighted parameter distance cost on labelled pictures.

    ::

        loss = (c^ - c)^T diag(w) (c^ - c)                    on whitened coefficients
        w_i  = |V(c with entry i taken from c^) - V(c)| / max over entries

    The weights measure vertex displacements of the *raw* coefficients and get no gradient. In closed form, with d the
    raw difference, M the linear part of the true pose and S the true face,

    ::

        shape, expression k   |d| ||A_k M^T||_F
        pose (r, j < 3)       |d| ||S_j||_2      the j-th coordinate over all vertices
        pose (r, 3)           |d| sqrt(N)        but zero for the translation's depth

    Where prediction and truth agree, loss, weights and gradient are zero.

    Args:
        model: The face model.
        whitening: Mean and standard deviation of each coefficient.
        vertices: Vertices to use: indices ``(N,)``, the name of one of the model's regions, or by default all.

    Raises:
        ShapeError: If whitening and model differ in the number of coefficients.
    """

    @torch.no_grad()
    def weights(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Weight of each coefficient.

        Args:
            predicted: Predicted whitened coefficients, ``(B, D)``.
            target: True whitened coefficients, ``(B, D)``.

        Returns:
            Weights ``(B, D)`` from 0 to 1, the largest of each sample 1 (all zero where both agree); without gradient.

        Raises:
            ShapeError: If the shapes do not match.
        """
        with torch.autocast(predicted.device.type, enabled=False):
            truth, change = self.step(predicted, target)
            coordinates = self.moments.coordinate_norms(component_weights(truth, 1.0))  # (B, 3)
            shift = torch.full_like(coordinates[:, :1], self.moments.count**0.5)
            row = torch.cat([coordinates, shift], dim=-1)  # (B, 4): the same for each row of the pose
            components = self.moments.component_norms(linear_part(truth.pose))  # (B, K)
            reach = torch.cat([row, row, row, components], dim=-1)  # (B, D): movement per unit of each coefficient
            moved = without_depth(reach * change.pack().abs())
            largest = moved.amax(dim=-1, keepdim=True)
            return moved / largest.clamp(min=torch.finfo(moved.dtype).tiny)

    def forward(
        self, predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weighted squared distance of the coefficients.

        Args:
            predicted: Predicted whitened coefficients, ``(B, D)``.
            target: True whitened coefficients, ``(B, D)``.
            weights: Weights to use instead of :meth:`weights`, ``(B, D)``, for instance to keep them constant while
                ``predicted`` changes.

        Returns:
            Loss ``(B,)``, dimensionless.

        Raises:
            ShapeError: If the shapes do not match.
        """
        predicted, target = check_vectors(predicted, target, self.layout.size)
        if weights is None:
            weights = self.weights(predicted, target)
        check_shape("weights", weights, tuple(predicted.shape))
        return (weights * (predicted - target).square()).sum(dim=-1)
