"""Parameter distance cost: every whitened coefficient counts the same.

Zhu et al. 2016, section 3.4. Explained in chapter 9.
"""

from __future__ import annotations

import torch
from torch import nn

from twodasl_lite.losses.labelled import check_vectors, without_depth


class PDC(nn.Module):
    """Parameter distance cost on labelled pictures.

    ::

        loss = |c^ - c|^2    on whitened coefficients, all but the translation's depth

    Example:
        >>> PDC()(torch.ones(1, 62), torch.zeros(1, 62))
        tensor([61.])
    """

    def forward(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared distance of the coefficients.

        Args:
            predicted: ``(B, D)`` whitened coefficients, as a network gives them.
            target: ``(B, D)`` the true ones, whitened.

        Returns:
            ``(B,)`` without unit.

        Raises:
            ShapeError: If the shapes do not fit.
        """
        predicted, target = check_vectors(predicted, target)
        return without_depth(predicted - target).square().sum(dim=-1)
