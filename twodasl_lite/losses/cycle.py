"""Cycle consistency: 2D landmarks lifted to 3D, projected, and lifted again should return to where they started.

Tu et al. 2019, section 3.3; norm, mask and unit are this project's choice. See chapter 12.
"""

from __future__ import annotations

import torch

from twodasl_lite.losses.landmarks_2d import LandmarkConsistency2D


class CycleConsistency(LandmarkConsistency2D):
    """Cycle consistency of pictures without 3D labels: 2D, 3D, 2D.

    ::

        x1 = P(D(G(I, M(x)))),  X2 = D(G(I, M(x1))),  x2 = P(X2)
        loss = sum_i m_i rho(|x2_i - x_i| / s) / sum_i m_i,    s = sqrt(w h) of the box around the visible x

    The same distance as in :class:`~twodasl_lite.losses.LandmarkConsistency2D`, for the landmarks of the second pass. A
    binary map passes no gradient to the first pass; a Gaussian one does.
    """

    def forward(
        self, predicted: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean distance of the visible landmarks.

        Args:
            predicted: Landmarks of the second pass, x2, in pixels, ``(B, N, 2)``.
            target: Detected landmarks, x, the input of the first pass, ``(B, N, 2)``.
            visible: Visibility, ``(B, N)``, boolean or 0/1; by default all are visible.

        Returns:
            Loss ``(B,)`` in squared face sizes.
        """
        return super().forward(predicted, target, visible)
