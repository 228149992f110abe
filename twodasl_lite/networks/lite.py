"""A small regressor for CPUs and classrooms (ours; the paper has no such network).

It has few channels, and the first layer reduces the resolution to 30 x 30: on a CPU, time depends on the pixels that
layers read and write as much as on multiplications (two convolutions of stride 2 instead of the first one cost a third
of the speed). The head flattens the last 4 x 4 map instead of averaging it, because the position of a feature says more
about pose and landmarks than its presence. ``benchmarks/README.md`` compares the designs.
"""

from __future__ import annotations

import torch
from torch import nn

from twodasl_lite.base.checks import check_shape
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.networks.normalisation import NormKind, make_norm
from twodasl_lite.networks.resnet import IN_CHANNELS, NUM_OUTPUTS, BasicBlock, initialise

STEM_CHANNELS = 24
STAGE_CHANNELS = (48, 96, 128)
HIDDEN = 256
FINAL_SIZE = 4
"""Side of the last feature map (120 / 4 in the stem, then halved three times, rounding up)."""


class LiteRegressor(nn.Module):
    """The lite regressor: a stem to 30 x 30, three residual stages to 15, 8 and 4, a head that keeps positions.

    Args:
        num_outputs: Number of coefficients.
        norm: Normalisation, see :mod:`twodasl_lite.networks.normalisation`.

    Raises:
        ValueRangeError: If the normalisation is unknown.
    """

    name = "lite"

    def __init__(self, num_outputs: int = NUM_OUTPUTS, norm: NormKind = "batch") -> None:
        super().__init__()
        self.num_outputs, self.norm = num_outputs, norm
        make = make_norm(norm)
        self.stem = nn.Sequential(
            nn.Conv2d(IN_CHANNELS, STEM_CHANNELS, 8, stride=4, padding=2, bias=False),
            make(STEM_CHANNELS),
            nn.ReLU(inplace=True),
        )
        channels, stages = STEM_CHANNELS, []
        for width in STAGE_CHANNELS:
            stages.append(BasicBlock(channels, width, 2, make))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.hidden = nn.Linear(channels * FINAL_SIZE**2, HIDDEN)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(HIDDEN, num_outputs)
        initialise(self, self.fc)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Predict whitened coefficients ``(B, num_outputs)`` from ``(B, 4, 120, 120)``, see the ResNet.

        Raises:
            ShapeError: If the inputs have another shape.
        """
        check_shape("inputs", inputs, ("B", IN_CHANNELS, CROP_SIZE, CROP_SIZE))
        # Channels-last memory format: 1.2 to 1.8 times faster on CPUs; the layers keep the format of their input.
        x = inputs.contiguous(memory_format=torch.channels_last)
        x = self.stages(self.stem(x))  # (B, 128, 4, 4)
        return self.fc(self.relu(self.hidden(x.flatten(1))))
