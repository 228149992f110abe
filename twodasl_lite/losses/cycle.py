"""Cycle consistency: 2D landmarks to 3D, drawn as a map, to 3D again, should come back to where they started.

Tu et al. 2019, section 3.3; norm, mask and unit are this project's choice. Explained in chapter 12.
"""

from __future__ import annotations

import torch

from twodasl_lite.losses.landmarks_2d import LandmarkConsistency2D


class CycleConsistency(LandmarkConsistency2D):
    """Cycle consistency of pictures without 3D labels: 2D, 3D, 2D.

    ::

        x1 = P(D(G(I, M(x)))),  X2 = D(G(I, M(x1))),  x2 = P(X2)
        loss = sum_i m_i rho(|x2_i - x_i| / s) / sum_i m_i,    s = sqrt(w h) of the box around the visible x

    The same distance as :class:`~twodasl_lite.losses.LandmarkConsistency2D`, of the landmarks of the second pass. A
    binary map lets no gradient through to the first pass; a Gaussian one does.
    """

    def forward(
        self, predicted: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean distance of the landmarks that count.

        Args:
            predicted: ``(B, N, 2)`` landmarks of the second pass, x2, in pixels.
            target: ``(B, N, 2)`` detected landmarks, x, with which the first pass began.
            visible: ``(B, N)``, boolean or 0/1; all by default.

        Returns:
            ``(B,)`` in squared face sizes.
        """
        return super().forward(predicted, target, visible)
