"""Prior: the shape and expression of a predicted face should not be less likely than those of known faces.

Ours, not the paper's: the plain counterpart of the self-critic, without a second network. A morphable model comes with
this prior, a normal distribution of its coefficients (Blanz and Vetter 1999), and every fit to landmarks uses it; a
regressor forgets it unless a loss brings it back. See chapter 13.
"""

from __future__ import annotations

import torch
from torch import nn

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError
from twodasl_lite.geometry.coefficients import POSE_SIZE
from twodasl_lite.losses.distances import at_least_float32


class CoefficientPrior(nn.Module):
    """Mean squared shape and expression coefficient, in standard deviations of known faces.

    ::

        loss = sum_k z_k^2 / K,    z = whitened shape and expression, K numbers

    This is the squared Mahalanobis distance from the mean face, with independent coefficients, divided by their number:
    0 for the mean face, 1 on average for the faces that the whitening comes from. The pose has no prior.

    Example:
        >>> CoefficientPrior()(torch.ones(2, 62))
        tensor([1., 1.])
    """

    def forward(self, whitened: torch.Tensor) -> torch.Tensor:
        """Compute the loss of each face.

        Args:
            whitened: Whitened coefficients, ``(B, D)``: 12 of the pose, then shape and expression.

        Returns:
            Loss ``(B,)`` in variances; zero for a layout without shape and expression.

        Raises:
            ShapeError: If it is not a batch of vectors of at least 12 numbers.
        """
        whitened = at_least_float32(check_tensor("whitened", whitened, ("B", "D"), finite=False))
        if whitened.shape[1] < POSE_SIZE:
            raise ShapeError(f"whitened: found {whitened.shape[1]} numbers; expected {POSE_SIZE} or more")
        rest = whitened[:, POSE_SIZE:]
        return rest.square().sum(dim=1) / max(rest.shape[1], 1)
