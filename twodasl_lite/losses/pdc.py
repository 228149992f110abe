"""Parameter distance cost: every whitened coefficient has the same weight.

Zhu et al. 2016, section 3.4. See chapter 9.
"""

from __future__ import annotations

import torch
from torch import nn

from twodasl_lite.losses.labelled import check_vectors, without_depth


class PDC(nn.Module):
    """Parameter distance cost on labelled pictures.

    ::

        loss = |c^ - c|^2    on whitened coefficients, without the translation's depth

    Example:
        >>> PDC()(torch.ones(1, 62), torch.zeros(1, 62))
        tensor([61.])
    """

    def forward(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared distance of the coefficients.

        Args:
            predicted: Predicted whitened coefficients, ``(B, D)``.
            target: True whitened coefficients, ``(B, D)``.

        Returns:
            Loss ``(B,)``, dimensionless.

        Raises:
            ShapeError: If the shapes do not match.
        """
        predicted, target = check_vectors(predicted, target)
        return without_depth(predicted - target).square().sum(dim=-1)
