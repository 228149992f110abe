"""The critic (ours): do these coefficients and these landmarks belong together?

The paper's self-critic (Tu et al. 2021, section III) scores pairs of 3D coefficients and 2D landmarks; the paper gives
the idea, not a network. This one is a small multilayer perceptron over both. Its loss is in
:mod:`twodasl_lite.losses`. See chapter 13.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import parametrizations

from twodasl_lite.base.checks import check_shape
from twodasl_lite.geometry.coefficients import POSE_SIZE
from twodasl_lite.geometry.landmarks import NUM_SUBSET
from twodasl_lite.networks.resnet import NUM_OUTPUTS

HIDDEN = 256
NUM_HIDDEN_LAYERS = 3
SLOPE = 0.2
"""Negative slope of the leaky ReLU; a critic without dead units has a gradient everywhere."""
DEPTH_INDEX = POSE_SIZE - 1
"""Index of the translation in depth, ``pose[2,3]``: no picture determines it, so the critic must not use it."""


class Critic(nn.Module):
    """Scores pairs of whitened coefficients and landmarks; a high score means that they resemble a labelled pair.

    Every sample is scored independently (no batch normalisation). Landmarks that are not visible are replaced by zero,
    so their coordinates may be NaN; the visibility itself is an input. The translation in depth is left out.

    Args:
        num_coefficients: Length of the coefficient vector.
        num_landmarks: Number of landmarks per face.
        hidden: Units per hidden layer.
        spectral: Whether each layer is divided by its largest singular value (Miyato et al. 2018), so that the score
            never changes faster than its inputs, which stabilises training.
    """

    judged: torch.Tensor

    def __init__(
        self,
        num_coefficients: int = NUM_OUTPUTS,
        num_landmarks: int = NUM_SUBSET,
        *,
        hidden: int = HIDDEN,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        self.num_coefficients, self.num_landmarks, self.spectral = num_coefficients, num_landmarks, spectral
        judged = torch.ones(num_coefficients)
        judged[DEPTH_INDEX] = 0
        self.register_buffer("judged", judged, persistent=False)
        sizes = [num_coefficients + 3 * num_landmarks, *[hidden] * NUM_HIDDEN_LAYERS]
        layers: list[nn.Module] = []
        for size, next_size in pairwise(sizes):
            layers += [self._linear(size, next_size), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, self._linear(hidden, 1))

    def _linear(self, inputs: int, outputs: int) -> nn.Module:
        layer = nn.Linear(inputs, outputs)
        return parametrizations.spectral_norm(layer) if self.spectral else layer

    def forward(self, whitened: torch.Tensor, landmarks: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Score a batch of pairs.

        Args:
            whitened: Whitened coefficients, ``(B, num_coefficients)``.
            landmarks: Landmarks, centred and in units of the face's size, ``(B, num_landmarks, 2)``; any value where
                not visible.
            visible: Visibility of the landmarks, ``(B, num_landmarks)`` boolean.

        Returns:
            Scores ``(B,)``, unbounded.

        Raises:
            ShapeError: If the shapes do not match.
        """
        check_shape("whitened", whitened, ("B", self.num_coefficients))
        check_shape("landmarks", landmarks, (whitened.shape[0], self.num_landmarks, 2))
        check_shape("visible", visible, (whitened.shape[0], self.num_landmarks))
        mask = visible.to(torch.bool)
        places = torch.where(mask[..., None], landmarks, torch.zeros_like(landmarks))
        inputs = torch.cat([whitened * self.judged, places.flatten(1), mask.to(whitened.dtype)], dim=1)
        return self.layers(inputs).squeeze(1)
