"""The residual networks of 2DASL: ResNet-50 as released, and its smaller siblings.

The regressor of the paper (Tu et al. 2021, section III; the layout is that of the public test code) is the ResNet of He
et al. 2016 with three changes: four input channels (photo and landmark map), a last stage that keeps its resolution
(strides 1, 2, 2, **1**), and a linear layer to 62 whitened coefficients. Parameter names are torchvision's, so that
released checkpoints and ImageNet weights load by name. See chapter 8.

Sizes for a 120 x 120 input::

    stem 7x7/2  60 x 60     max pool 3x3/2  30 x 30
    layer1      30 x 30     layer2          15 x 15     layer3  8 x 8     layer4  8 x 8
    average pool 7x7/2  1 x 1 (ignores the last row and column of the 8 x 8)      linear to 62
"""

from __future__ import annotations

import torch
from torch import nn

from twodasl_lite.base.checks import check_choice, check_shape
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.networks.normalisation import Norm, NormKind, make_norm

IN_CHANNELS = 4
"""Number of input channels (red, green, blue, landmark map)."""
NUM_OUTPUTS = CoefficientLayout().size
"""62, the number of coefficients in the paper."""
STAGE_CHANNELS = (64, 128, 256, 512)
STAGE_STRIDES = (1, 2, 2, 1)
HEAD_STD = 0.01
"""Standard deviation of the head's initial weights (ours); a new regressor starts close to the mean face."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, the block of ResNet-18 and ResNet-34.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the convolutions; the output has ``channels * expansion``.
        stride: Stride of the first convolution.
        norm: Function from a number of channels to a normalisation layer.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels * self.expansion, stride, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, Cin, H, W)`` to ``(B, C, H / stride, W / stride)``."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 with a shortcut, the block of ResNet-50; arguments as for :class:`BasicBlock`."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = norm(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = norm(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, out_channels, stride, norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(B, Cin, H, W)`` to ``(B, 4 C, H / stride, W / stride)``."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm) -> nn.Sequential | None:
    """The shortcut's projection, if the block changes the size."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), norm(out_channels))


RESNETS: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, ...]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
}
"""Name to type of block and number of blocks in each stage."""


class ResNet(nn.Module):
    """A 4-channel ResNet that regresses whitened coefficients.

    Args:
        name: ``"resnet18"``, ``"resnet34"`` or ``"resnet50"``; the last is the released network.
        num_outputs: Number of coefficients.
        norm: Normalisation, see :mod:`twodasl_lite.networks.normalisation`.

    Raises:
        ValueRangeError: If the network or normalisation is unknown.

    Example:
        >>> sum(p.numel() for p in ResNet("resnet50").parameters())
        23638206
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, name: str = "resnet50", num_outputs: int = NUM_OUTPUTS, norm: NormKind = "batch") -> None:
        super().__init__()
        check_choice("name", name, RESNETS)
        self.name, self.num_outputs, self.norm = name, num_outputs, norm
        block, depths = RESNETS[name]
        make = make_norm(norm)
        self.conv1 = nn.Conv2d(IN_CHANNELS, STAGE_CHANNELS[0], 7, stride=2, padding=3, bias=False)
        self.bn1 = make(STAGE_CHANNELS[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = STAGE_CHANNELS[0]
        for number, (width, depth, stride) in enumerate(zip(STAGE_CHANNELS, depths, STAGE_STRIDES, strict=True), 1):
            blocks = []
            for index in range(depth):
                blocks.append(block(channels, width, stride if index == 0 else 1, make))
                channels = width * block.expansion
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.avgpool = nn.AvgPool2d(7, stride=2)
        self.fc = nn.Linear(channels, num_outputs)
        initialise(self, self.fc)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Predict coefficients.

        Args:
            inputs: RGB from :func:`twodasl_lite.geometry.photos.photo_to_tensor` and the map from
                :func:`twodasl_lite.geometry.landmarks.landmark_map`, ``(B, 4, 120, 120)``.

        Returns:
            Whitened coefficients ``(B, num_outputs)``.

        Raises:
            ShapeError: If the inputs have another shape.
        """
        check_shape("inputs", inputs, ("B", IN_CHANNELS, CROP_SIZE, CROP_SIZE))
        x = self.maxpool(self.relu(self.bn1(self.conv1(inputs))))  # (B, 64, 30, 30)
        x = self.layer2(self.layer1(x))  # (B, 512, 15, 15)
        x = self.layer4(self.layer3(x))  # (B, 2048, 8, 8)
        return self.fc(self.avgpool(x).flatten(1))


def initialise(network: nn.Module, head: nn.Linear) -> None:
    """Set random weights: He et al. 2015 by fan-out for convolutions, as in the released code; a small head (ours)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(head.weight, std=HEAD_STD)
    nn.init.zeros_(head.bias)
