"""3D landmark consistency: a second pass, with the predicted landmarks as input, should give the same 3D face.

Tu et al. 2019, section 3.3; norm and unit are this project's choice. See chapter 11.
"""

from __future__ import annotations

import torch

from twodasl_lite.losses.distances import PointDistance, centre_depth, check_pair, face_size


class LandmarkConsistency3D(PointDistance):
    """3D landmark consistency of pictures without 3D labels.

    ::

        X1 = D(G(I, M(x))),  X2 = D(G(I, M(P(X1))))
        loss = mean_i rho(|X2_i - X1_i| / s),    s = sqrt(w h) of the box around X1

    after both mean depths are set to zero, because the depth of a face cannot be observed. Gradients reach both passes;
    detach X1 to train only the second.

    Args:
        distance: ``"squared"`` or ``"huber"``.
        delta: Distance at which the Huber distance becomes linear, in face sizes.
        floor: Smallest face size in pixels.
    """

    def forward(self, second: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """Mean distance of all landmarks: decoded faces have no hidden ones.

        Args:
            second: Landmarks of the second pass, X2, in pixels, ``(B, 68, 3)``.
            first: Landmarks of the first pass, X1, in pixels, ``(B, 68, 3)``.

        Returns:
            Loss ``(B,)`` in squared face sizes.

        Raises:
            ShapeError: If the shapes do not match.
        """
        second, first = check_pair(("second", "first"), second, first, ("B", "N", 3))
        size = face_size(first, None, self.floor)
        difference = centre_depth(second - first)  # NaN stays NaN: no point may be ignored here
        squared = (difference / size[:, None, None]).square().sum(dim=-1)  # (B, N)
        return self.rho(squared).mean(dim=-1)
