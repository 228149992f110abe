"""2D landmark consistency: the landmarks of the decoded face should be where the detector found them.

Tu et al. 2019, section 3.3; norm, mask and unit are this project's choice. See chapter 10.
"""

from __future__ import annotations

import torch

from twodasl_lite.losses.distances import PointDistance, check_pair, face_size


class LandmarkConsistency2D(PointDistance):
    """2D landmark consistency of pictures without 3D labels.

    ::

        X1 = D(G(I, M(x))),  x1 = P(X1)
        loss = sum_i m_i rho(|x1_i - x_i| / s) / sum_i m_i,    s = sqrt(w h) of the box around the visible x

    with rho the squared or the Huber distance. A face without a visible landmark contributes zero.

    Args:
        distance: ``"squared"``, or ``"huber"`` for detectors with outliers.
        delta: Distance at which the Huber distance becomes linear, in face sizes.
        floor: Smallest face size in pixels.

    Example:
        >>> x = torch.tensor([[[0.0, 0.0], [40.0, 0.0], [40.0, 40.0]]])  # a box of 40 x 40 pixels
        >>> LandmarkConsistency2D()(x + torch.tensor([4.0, 0.0]), x, torch.ones(1, 3))
        tensor([0.0100])
    """

    def forward(
        self, predicted: torch.Tensor, target: torch.Tensor, visible: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean distance of the visible landmarks.

        Args:
            predicted: Landmarks of the decoded face, x1, in pixels, ``(B, N, 2)``.
            target: Detected landmarks, x, ``(B, N, 2)``; points that are NaN are ignored.
            visible: Visibility, ``(B, N)``, boolean or 0/1; by default all are visible.

        Returns:
            Loss ``(B,)`` in squared face sizes.

        Raises:
            ShapeError: If the shapes do not match.
        """
        predicted, target = check_pair(("predicted", "target"), predicted, target, ("B", "N", 2))
        size = face_size(target, visible, self.floor)
        return self.between(predicted, target.detach(), visible, size)
