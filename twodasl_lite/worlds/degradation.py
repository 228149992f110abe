"""What cameras and the web do to pictures: blur, low resolution, colour shifts, noise, JPEG; batched, on any device.

Pictures are ``(B, 3, S, S)`` sRGB in [0, 1]. Everything here is a few matrix products per picture: blurring and
resizing are linear and separable, so each is one matrix for the rows and one for the columns, as is the cosine
transform of JPEG.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch.nn import functional

from twodasl_lite.base.constants import constant_like
from twodasl_lite.worlds.draws import Draws, Pick
from twodasl_lite.worlds.world import Degradation

_BLOCK = 8
_LUMA = (0.299, 0.587, 0.114)
# The tables of the JPEG standard (ITU-T T.81, annex K) for brightness and colour, at quality 50.
_LUMA_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *(99,) * 32),
)


def blur_matrix(width: torch.Tensor, side: int) -> torch.Tensor:
    """Gaussian blur of a row of pixels, ``(B, side, side)``; weights beyond the border are left out, the rest sum to 1.

    Args:
        width: ``(B,)`` standard deviation in pixels; 0 changes nothing.
        side: Length of the row in pixels.
    """
    axis = torch.arange(side, device=width.device, dtype=width.dtype)
    distance = (axis[:, None] - axis) / width.clamp(min=0.05)[:, None, None]
    weights = torch.exp(-0.5 * distance**2)
    return weights / weights.sum(dim=-1, keepdim=True)


def resize_matrix(resolution: torch.Tensor, side: int) -> torch.Tensor:
    """Shrink a row of ``side`` pixels to ``resolution`` of them and enlarge it again: ``(B, side, side)``.

    Args:
        resolution: ``(B,)`` small sizes in pixels, whole numbers up to ``side``, which changes nothing.
        side: Length of the row in pixels.
    """
    axis = torch.arange(side, device=resolution.device, dtype=resolution.dtype)
    count = resolution[:, None, None]
    ratio = side / count  # original pixels per small one
    small = axis[None, :, None]
    low, high = small * ratio, (small + 1) * ratio
    shrink = (torch.minimum(high, axis + 1) - torch.maximum(low, axis)).clamp(min=0) / ratio  # (B, small, side)
    place = torch.minimum(((axis[:, None] + 0.5) / ratio - 0.5).clamp(min=0), count - 1)  # (B, side, 1)
    enlarge = (1 - (place - axis).abs()).clamp(min=0)  # (B, side, small)
    return enlarge @ shrink


def soften(images: torch.Tensor, draws: Draws, settings: Degradation) -> torch.Tensor:
    """Blur some pictures, and shrink some and enlarge them again."""
    side = images.shape[-1]
    blurred = draws.chance("blurred", settings.blur)
    small = draws.chance("small", settings.low_resolution)

    def changed(draws: Draws, pick: Pick) -> torch.Tensor:
        width = draws.between("blur width", settings.blur_width, 2) * pick(blurred)[:, None]  # (B, 2) rows and columns
        low, high = (math.log(min(bound, side)) for bound in settings.resolution)
        resolution = torch.exp(draws.between("resolution", (low, high))).round()
        resize = resize_matrix(torch.where(pick(small), resolution, float(side)), side)
        rows, columns = (resize @ blur_matrix(width[:, axis], side) for axis in (0, 1))
        return rows[:, None] @ pick(images) @ columns.transpose(1, 2)[:, None]

    return draws.change(blurred | small, images, changed)


def recolour(images: torch.Tensor, draws: Draws, settings: Degradation) -> torch.Tensor:
    """White balance, saturation, contrast and brightness."""
    gain = torch.exp(settings.colour_cast * draws.normal("white balance", 3, clip=2.5))
    luma = constant_like(images, *_LUMA)
    gain = gain / (gain @ luma)[:, None]
    saturation = draws.between("saturation", settings.saturation)
    saturation = torch.where(draws.chance("grey", settings.grey), 0.0, saturation)[:, None, None]
    contrast = draws.between("contrast", settings.contrast)[:, None, None]
    # All of it is one matrix and one offset per picture.
    eye = torch.eye(3, device=images.device)
    mix = contrast * (saturation * eye + (1 - saturation) * luma) @ torch.diag_embed(gain)  # (B, 3, 3)
    offset = 0.5 * (1 - contrast) + draws.between("brightness", settings.brightness)[:, None, None]
    return torch.baddbmm(offset, mix, images.flatten(2)).reshape(images.shape)


def add_noise(images: torch.Tensor, draws: Draws, settings: Degradation) -> torch.Tensor:
    """Sensor noise, stronger where the picture is bright, and partly shared between the channels."""

    def changed(draws: Draws, pick: Pick) -> torch.Tensor:
        level = draws.between("noise level", settings.noise_level)[:, None, None, None] / 255
        chosen = pick(images)
        noise = draws.normal("noise", *images.shape[1:])
        shared = 0.6 * noise.mean(dim=1, keepdim=True) * 3**0.5 + 0.8 * noise
        return chosen + shared * level * (0.45 + 0.75 * chosen.clamp(0, 1).sqrt())

    return draws.change(draws.chance("noisy", settings.noise), images, changed)


@cache
def _blocks_transform() -> tuple[tuple[float, ...], ...]:
    """``(8, 8)`` orthonormal discrete cosine transform."""
    axis = torch.arange(_BLOCK, dtype=torch.float32)
    basis = torch.cos(math.pi * (axis + 0.5) * axis[:, None] / _BLOCK) * (2 / _BLOCK) ** 0.5
    basis[0] *= 0.5**0.5
    return tuple(tuple(row) for row in basis.tolist())


def _quantise(plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """JPEG's loss on planes ``(B, C, S, S)`` in grey values about zero; ``table (B, 8, 8)``."""
    batch, channels, side, _ = plane.shape
    pad = -side % _BLOCK
    if pad:
        plane = functional.pad(plane, (0, pad, 0, pad), mode="replicate")
    count = (side + pad) // _BLOCK
    basis = constant_like(plane, *_blocks_transform())
    # All blocks of a row lie side by side: few products of long matrices instead of many of tiny ones. Each matrix has
    # the same number of rows, however many pictures there are, so that a picture is rounded the same way in any batch.
    rows = (batch * channels * count, _BLOCK, side + pad)
    step = table.repeat(1, 1, count)[:, None, None].expand(-1, channels, count, -1, -1).reshape(rows)  # (B C n, 8, 8 n)

    def across(strips: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Every row of every block, times a matrix."""
        pieces = strips.reshape(batch * channels, -1, _BLOCK)
        return torch.bmm(pieces, matrix.expand(len(pieces), -1, -1)).reshape(rows)

    down = basis.expand(rows[0], -1, -1)
    frequencies = across(torch.bmm(down, plane.reshape(rows)), basis.T)
    frequencies = (frequencies / step).round_() * step
    strips = torch.bmm(down.transpose(1, 2), across(frequencies, basis))
    return strips.reshape(batch, channels, side + pad, side + pad)[..., :side, :side]


def jpeg(images: torch.Tensor, quality: torch.Tensor) -> torch.Tensor:
    """What a JPEG file keeps of pictures, colours at half the resolution (4:2:0).

    Only the loss is simulated (cosine transform, rounding and back); no file is written.

    Args:
        images: ``(B, 3, S, S)`` sRGB in [0, 1], S even.
        quality: ``(B,)`` quality from 1 to 100, on the scale of the usual library (IJG).

    Returns:
        ``(B, 3, S, S)`` sRGB in [0, 1].
    """
    scale = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)[:, None, None]

    def table(values: tuple[int, ...]) -> torch.Tensor:
        return ((constant_like(images, *values).reshape(_BLOCK, _BLOCK) * scale + 50) / 100).floor().clamp(1, 255)

    luma = _LUMA
    red, green, blue = (255 * images.clamp(0, 1)).unbind(1)
    bright = luma[0] * red + luma[1] * green + luma[2] * blue
    colour = torch.stack([(blue - bright) / 1.772, (red - bright) / 1.402], dim=1)  # (B, 2, S, S)
    bright = _quantise(bright[:, None] - 128, table(_LUMA_TABLE))[:, 0] + 128
    colour = _quantise(functional.avg_pool2d(colour, 2), table(_CHROMA_TABLE))
    colour = functional.interpolate(colour, scale_factor=2, mode="bilinear", align_corners=False)
    blue = bright + 1.772 * colour[:, 0]
    red = bright + 1.402 * colour[:, 1]
    green = (bright - luma[0] * red - luma[2] * blue) / luma[1]
    return (torch.stack([red, green, blue], dim=1) / 255).clamp_(0, 1)


def compress(images: torch.Tensor, draws: Draws, settings: Degradation) -> torch.Tensor:
    """Apply JPEG's loss to some pictures."""

    def changed(draws: Draws, pick: Pick) -> torch.Tensor:
        return jpeg(pick(images), draws.between("quality", settings.quality))

    return draws.change(draws.chance("jpeg", settings.jpeg), images, changed)


def degrade(images: torch.Tensor, draws: Draws, settings: Degradation) -> torch.Tensor:
    """Apply all degradations in the order in which they happen: lens, sensor, file.

    Args:
        images: ``(B, 3, S, S)`` sRGB in [0, 1].
        draws: Random numbers of B pictures.
        settings: Frequency and strength of each degradation.

    Returns:
        ``(B, 3, S, S)`` uint8.
    """
    images = soften(images, draws, settings)
    images = recolour(images, draws, settings)
    images = add_noise(images, draws, settings)
    images = compress(images.clamp(0, 1), draws, settings)
    return (images.clamp(0, 1) * 255).round_().to(torch.uint8)
