"""Photographs: reading them safely, cropping faces, and preparing them for a network.

A photo is a numpy array ``(H, W, 3)`` of ``uint8``, RGB, row 0 at the top. Boxes and pixels follow
:mod:`twodasl_lite.geometry.camera`: 0-based, pixel centres at integers; boxes are inclusive and may reach beyond the
image. See chapter 4.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import FileFormatError, InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.geometry.camera import CROP_SIZE

IMAGE_CENTRE = 127.5
"""Grey value that becomes zero in the network's input."""
IMAGE_RANGE = 128.0
"""Grey values per unit of the network's input; the released weights were trained with these two numbers."""
BOX_MARGIN = 2**0.5
"""Side of the crop box over the longer side of the landmarks' bounding box."""
_ORIENTATION = 0x0112  # EXIF tag
MAX_SIDE = 20_000
"""Longest allowed side of a photo in pixels; a larger one is most likely a mistake and would fill the memory."""


def as_photo(image: np.ndarray, name: str = "image") -> np.ndarray:
    """Convert any common array of pixels to ``(H, W, 3)`` RGB ``uint8``.

    Grey pictures get three equal channels; an alpha channel is composited over white; 16-bit values are scaled.

    Args:
        image: Array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` of ``uint8``, ``uint16``, or floats in
            [0, 1].
        name: Name of the argument, for messages.

    Returns:
        A new array, or the same one if it is a photo already.

    Raises:
        InputTypeError: If the image is not an array of numbers.
        ShapeError: If the image is empty or has another number of channels.
        ValueRangeError: If floats lie outside [0, 1] or are NaN, or a side is too long.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind not in "uif":
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise InputTypeError(f"{name}: found {kind}; expected a numpy array of pixels")
    if image.ndim not in (2, 3) or image.size == 0 or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ShapeError(f"{name}: found shape {image.shape}; expected (H, W) or (H, W, 1, 3 or 4), not empty")
    if max(image.shape[:2]) > MAX_SIDE:
        raise ValueRangeError(
            f"{name}: found {image.shape[1]}x{image.shape[0]} pixels; expected at most {MAX_SIDE} per side"
        )
    if image.dtype.kind == "f":
        if not np.isfinite(image).all() or image.min() < 0 or image.max() > 1:
            raise ValueRangeError(f"{name}: found floats outside [0, 1]; expected [0, 1], or integers 0 to 255")
        image = np.round(image * 255).astype(np.uint8)
    elif image.dtype == np.uint16:
        image = np.round(image / 257).astype(np.uint8)
    elif image.dtype != np.uint8:
        if image.min() < 0 or image.max() > 255:
            raise ValueRangeError(f"{name}: found values {image.min()} to {image.max()}; expected 0 to 255")
        image = image.astype(np.uint8)
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        return np.round(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return image


def read_photo(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture file, upright (EXIF rotation applied).

    Only the first frame of an animation is read. Unscaled data of 8, 10 or 12 bits in 16-bit files, as scientific
    cameras write it, is recognised by its largest value, which a scaled photo exceeds.

    Args:
        path: File in JPEG, PNG, WebP, GIF or another format that OpenCV reads; grey, colour, with alpha, 8 or 16 bit.

    Returns:
        ``(H, W, 3)`` RGB ``uint8``.

    Raises:
        FileFormatError: If the file is missing, empty, damaged, not a picture, or of a kind that OpenCV cannot read.
    """
    path, expected = Path(path), "a picture file (JPEG, PNG, ...)"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    data = np.fromfile(path, dtype=np.uint8)  # not cv2.imread, which cannot open every path on Windows
    if data.size == 0:
        raise FileFormatError(path, "an empty file", expected)
    # IMREAD_UNCHANGED keeps alpha but ignores EXIF; pictures without alpha are read again with EXIF applied.
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        if image is not None and image.ndim == 3 and image.shape[2] == 4:
            image = _upright(image, _exif_orientation(data.tobytes()))
        elif image is not None:
            image = cv2.imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    except cv2.error as error:
        raise FileFormatError(path, f"an unreadable picture ({error.err})", expected) from error
    if image is None:
        raise FileFormatError(path, *_unreadable(data[:32].tobytes(), expected))
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    if image.dtype == np.uint16:
        image = _scaled(image)
    return np.ascontiguousarray(as_photo(image, os.fspath(path)))


def _unreadable(start: bytes, expected: str) -> tuple[str, str]:
    """Found and expected, for a file that OpenCV cannot decode."""
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"):
            return (
                "a HEIC picture, which OpenCV cannot read",
                f"{expected}: export it as JPEG (a phone does so under Settings, Camera, Formats, Most Compatible)",
            )
        if brand in (b"avif", b"avis"):
            return "an AVIF picture, which this OpenCV cannot read", f"{expected}: convert it to JPEG or PNG"
        return "a video", expected
    return "a file that is not a picture, or a damaged one", expected


def _scaled(image: np.ndarray) -> np.ndarray:
    """Scale 16-bit data that uses only 8, 10 or 12 bits to the full range."""
    colours = image[..., :3] if image.ndim == 3 else image
    largest = int(colours.max())
    bits = next((bits for bits in (8, 10, 12) if 0 < largest < 2**bits), 16)
    if bits == 16:
        return image
    stretched = np.round(image.astype(np.float32) * (65535 / (2**bits - 1))).clip(0, 65535).astype(np.uint16)
    if image.ndim == 3 and image.shape[2] == 4 and int(image[..., 3].max()) >= 2**bits:
        stretched[..., 3] = image[..., 3]
    return stretched


def _exif_orientation(data: bytes) -> int:
    """EXIF orientation, 1 to 8, of a PNG or WebP; 1 if there is none."""
    block = b""
    if data.startswith(b"\x89PNG"):
        place = 8
        while place + 8 <= len(data):
            length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
            if kind == b"eXIf":
                block = data[place + 8 : place + 8 + length]
                break
            place += 12 + length
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        place = 12
        while place + 8 <= len(data):
            kind, length = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
            if kind == b"EXIF":
                block = data[place + 8 : place + 8 + length]
                break
            place += 8 + length + length % 2
    block = block.removeprefix(b"Exif\0\0")
    orders: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
    order = orders.get(block[:4])
    if order is None:
        return 1

    def number(place: int, size: int) -> int:
        return int.from_bytes(block[place : place + size], order)

    first = number(4, 4)
    for k in range(min(number(first, 2), 500)):
        entry = first + 2 + 12 * k
        if number(entry, 2) == _ORIENTATION:
            value = number(entry + 8, 2)
            return value if 1 <= value <= 8 else 1
    return 1


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The picture with its EXIF orientation applied."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def write_photo(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write a photo as PNG or JPEG (by its suffix), whole or not at all.

    Raises:
        FileFormatError: If the suffix is not that of a known format.
    """
    path = Path(path)
    try:
        done, data = cv2.imencode(path.suffix, np.ascontiguousarray(as_photo(image)[..., ::-1]))
    except cv2.error:
        done = False
    if not done:
        raise FileFormatError(path, f"the suffix {path.suffix!r}", "a picture format such as .png or .jpg")
    with whole_file(path) as file:
        file.write(data.tobytes())


def landmarks_box(points: torch.Tensor) -> torch.Tensor:
    """The square crop box that common benchmarks use for a face with known landmarks.

    Centred on the landmarks' bounding box, with a side of sqrt(2) times its longer side (3DDFA, Zhu et al. 2016): the
    face then spans 70 % of the crop.

    Args:
        points: Landmarks in image pixels, ``(..., N, 2)`` or ``(..., N, 3)``.

    Returns:
        Left, top, right, bottom, rounded to whole pixels, ``(..., 4)``.

    Raises:
        ValueRangeError: If all landmarks are the same point.
    """
    points = check_tensor("points", points, ("...", "N", (2, 3)))[..., :2]
    low, high = points.amin(dim=-2), points.amax(dim=-2)
    side = BOX_MARGIN * (high - low).amax(dim=-1, keepdim=True)
    if bool((side <= 0).any()):
        raise ValueRangeError("points: found landmarks that are all one point; expected a face")
    first = torch.round((low + high - side) / 2)
    return torch.cat([first, first + torch.round(side).clamp(min=1)], dim=-1)


def crop_photo(photo: np.ndarray, box: torch.Tensor, size: int = CROP_SIZE) -> np.ndarray:
    """Crop a box from a photo and resize it; pixels outside the photo are black.

    Pixels are mapped as in :func:`twodasl_lite.geometry.camera.image_to_crop` with its ``"exact"`` mapping.

    Args:
        photo: Photo, ``(H, W, 3)``.
        box: Left, top, right, bottom in whole pixels, inclusive, ``(4,)``.
        size: Side of the crop in pixels.

    Returns:
        The crop, ``(size, size, 3)`` ``uint8``.

    Raises:
        ValueRangeError: If the box is empty or lies entirely outside the photo.
    """
    photo = as_photo(photo, "photo")
    left, top, right, bottom = (int(v) for v in check_tensor("box", box, (4,)).round().tolist())
    height, width = photo.shape[:2]
    if right < left or bottom < top or right < 0 or bottom < 0 or left >= width or top >= height:
        raise ValueRangeError(
            f"box: found ({left}, {top}, {right}, {bottom}); expected one that overlaps the {width}x{height} photo"
        )
    inside = photo[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    padded = cv2.copyMakeBorder(
        inside,
        max(-top, 0),
        max(bottom + 1 - height, 0),
        max(-left, 0),
        max(right + 1 - width, 0),
        cv2.BORDER_CONSTANT,
    )
    shrinks = padded.shape[0] > size or padded.shape[1] > size
    return cv2.resize(padded, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def photo_to_tensor(photo: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Convert a photo to the network's input: ``(3, H, W)`` RGB, ``(value - 127.5) / 128``.

    Args:
        photo: Photo, ``(H, W, 3)``.
        device: Device of the result.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(as_photo(photo, "photo"))).to(device)
    return (pixels.permute(2, 0, 1).float() - IMAGE_CENTRE) / IMAGE_RANGE


def sample_colours(photo: np.ndarray, points: torch.Tensor) -> torch.Tensor:
    """Colours of a photo at sub-pixel positions, bilinearly interpolated.

    Args:
        photo: Photo, ``(H, W, 3)``.
        points: Positions in pixels, ``(N, 2)`` or ``(N, 3)``; those outside take the nearest pixel's colour.

    Returns:
        sRGB colours in [0, 1], ``(N, 3)``.
    """
    points = check_tensor("points", points, ("N", (2, 3)))
    photo = as_photo(photo, "photo")
    pixels = torch.from_numpy(np.require(photo, requirements=["C", "W"])).permute(2, 0, 1)[None].to(points) / 255
    size = points.new_tensor([photo.shape[1], photo.shape[0]])
    grid = (2 * points[:, :2] + 1) / size - 1  # pixel centres at integers -> grid_sample's edges at -1 and 1
    colours = torch.nn.functional.grid_sample(
        pixels, grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return colours[0, :, 0].T  # (N, 3)
