"""Face detection: OpenCV's detector YuNet, with a model file that is downloaded once and verified.

``twodasl models get yunet`` downloads the file to the cache, where ``twodasl reconstruct`` finds it. It is
``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo (Wu et al. 2023; 0.2 MB, MIT licence).
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.cache import cache_folder
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.geometry.photos import as_photo

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_BYTES = 232_589
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
YUNET_ADDRESSES = (
    "https://github.com/opencv/opencv_zoo/raw/966be4cb6eefc2a4f586ed0581bf4bbaa2533070/models/face_detection_yunet/"
    + YUNET_FILE,
    # The same bytes in the repository of YuNet's authors, which does not use Git LFS:
    "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/"
    "yunet_s_640_640.onnx",
)
"""URLs of the model file, pinned to a commit; if one fails, the next is tried."""

MIN_SCORE = 0.7
"""Lowest score of a face, 0 to 1."""
_DETECTION_SIDE = 640  # longer side, in pixels, of the photo given to the detector; it was trained at this size
_NMS, _TOP_K = 0.3, 5000  # OpenCV's own values
# YuNet's boxes include the forehead; crops are cut around the bounding box of the 68 landmarks. Medians over 394 of 400
# photos of AFLW2000-3D (those of the smaller model agree within 2 %):
_YUNET_SIZE = 1.10  # sqrt(width height) of YuNet's box, over the longer side of the landmarks' box
_YUNET_ABOVE = 0.145  # height of its centre above theirs, in units of that side
_UPRIGHT_BONUS, _SAME_FACE = 0.02, 0.5
_SECONDS = 60  # timeout for a server


class Detections(NamedTuple):
    """Faces of a photo, sorted by descending score.

    Attributes:
        boxes: Left, top, right, bottom in pixels, and a score, ``(N, 5)``.
        turns: Number of counter-clockwise quarter turns of the photo that bring the face upright, ``(N,)``: 0 for an
            upright face, 2 for one that is upside down.
    """

    boxes: torch.Tensor
    turns: torch.Tensor


class Detector(Protocol):
    """A face detector. It may also have a method ``find`` that returns :class:`Detections`."""

    def __call__(self, photo: np.ndarray) -> torch.Tensor:
        """Find boxes ``(N, 5)`` in a photo ``(H, W, 3)``: left, top, right, bottom in pixels, and a score."""
        ...


def quarter_turns(up: torch.Tensor) -> torch.Tensor:
    """Number of counter-clockwise quarter turns that bring a direction closest to straight up.

    Args:
        up: Vector from a face's mouth to its eyes, ``(..., 2)``, in pixels (y down).

    Returns:
        ``(...)`` int64, 0 to 3. (``np.rot90(photo, turns)`` turns the photo accordingly.)
    """
    # Angle from straight up, clockwise positive: a face that leans to the right must be turned to the left.
    clockwise = torch.atan2(up[..., 0], -up[..., 1])
    return (torch.round(clockwise / (torch.pi / 2)).long()) % 4


class YuNet:
    """OpenCV's face detector YuNet (Wu et al. 2023), with a model file on disk.

    The file is ``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo (0.2 MB, MIT licence); the other files of
    YuNet's authors work too. Its boxes include the forehead; they are converted to squares around the region of the 68
    landmarks, which is what crops need. Its five points are not those of the landmark map: they are used only to decide
    which way up a face is.

    Args:
        path: The model file.
        min_score: Lowest score of a face, 0 to 1.

    Raises:
        FileFormatError: If the file is missing or OpenCV cannot use it.
        ValueRangeError: If the score is out of range.
    """

    def __init__(self, path: str | os.PathLike[str], min_score: float = MIN_SCORE) -> None:
        expected = "a model file of the face detector YuNet (.onnx)"
        if not 0 <= min_score <= 1:
            raise ValueRangeError(f"min_score: found {min_score}; expected 0 to 1")
        if not Path(path).is_file():
            raise FileFormatError(path, "a folder" if Path(path).is_dir() else "no such file", expected)
        try:
            with _quiet():  # OpenCV 5 warns that its new engine has no targets to choose from
                self._detector = cv2.FaceDetectorYN.create(
                    os.fspath(path), "", (_DETECTION_SIDE, _DETECTION_SIDE), min_score, _NMS, _TOP_K
                )
                self(np.zeros((32, 32, 3), np.uint8))  # other networks load, but fail at inference
        except cv2.error as error:
            raise FileFormatError(path, f"a file that OpenCV cannot use ({error.err})", expected) from error

    def __call__(self, photo: np.ndarray) -> torch.Tensor:
        """Find boxes ``(N, 5)``, sorted by descending score."""
        return self.find(photo).boxes

    def find(self, photo: np.ndarray, upright: bool = False) -> Detections:
        """Find faces and their orientation.

        YuNet also reports faces that lie sideways or are upside down, but confuses their mouths with eyes. Therefore
        the photo is processed in all four orientations, and each face is taken from the one with its highest score.

        Args:
            photo: Photo, ``(H, W, 3)`` uint8 RGB.
            upright: Whether the faces are known to be upright; if so, detection is four times as fast.
        """
        photo = as_photo(photo, "photo")
        if upright:
            return self._find(photo)
        height, width = photo.shape[:2]
        boxes, turns = [], []
        for turn in range(4):
            found = self._find(np.ascontiguousarray(np.rot90(photo, turn)))
            boxes.append(_turned_back(found.boxes, turn, height, width))
            turns.append((turn + found.turns) % 4)
        every, turns = torch.cat(boxes), torch.cat(turns)
        # The bonus keeps an upright face upright if another orientation scores only marginally higher.
        score = every[:, 4] + _UPRIGHT_BONUS * (turns == 0)
        kept: list[int] = []
        for k in score.argsort(descending=True, stable=True).tolist():
            if all(_overlap(every[k], every[other]) < _SAME_FACE for other in kept):
                kept.append(k)
        return Detections(every[kept], turns[kept])

    def _find(self, photo: np.ndarray) -> Detections:
        """The faces of a photo in its given orientation."""
        height, width = photo.shape[:2]
        factor = min(1.0, _DETECTION_SIDE / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        small = photo if factor == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize(size)
        _, faces = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))
        if faces is None:
            return Detections(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
        found = torch.as_tensor(np.asarray(faces)).float().reshape(-1, 15)  # x, y, width, height, 5 points, score
        stretch = torch.tensor([width / size[0], height / size[1]])
        corner, extent = found[:, :2] * stretch - 0.5, found[:, 2:4] * stretch  # pixel edges from 0, to pixel centres
        side = extent.prod(dim=1, keepdim=True).sqrt() / _YUNET_SIZE  # (N, 1)
        points = found[:, 4:14].reshape(-1, 5, 2) * stretch  # eye, eye, nose, corner of the mouth, corner
        up = points[:, :2].mean(dim=1) - points[:, 3:].mean(dim=1)  # (N, 2)
        turns = torch.where(up.norm(dim=1) > 0, quarter_turns(up), 0)
        # From the eyes to the mouth, in the photo: upwards for a face that is upside down.
        down = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])[turns]
        middle = corner + extent / 2 + _YUNET_ABOVE * side * down
        boxes = torch.cat([middle - side / 2, middle + side / 2, found[:, 14:]], dim=1)
        order = boxes[:, 4].argsort(descending=True)
        return Detections(boxes[order], turns[order])


def _turned_back(boxes: torch.Tensor, turns: int, height: int, width: int) -> torch.Tensor:
    """Convert boxes ``(N, 5)`` found in ``np.rot90(photo, turns)`` to pixels of the photo ``(height, width)``."""
    for k in range(turns, 0, -1):
        across = (width, height)[(k - 1) % 2]  # width of the photo before its k-th quarter turn
        left, top, right, bottom, score = boxes.unbind(dim=1)
        boxes = torch.stack([across - 1 - bottom, left, across - 1 - top, right, score], dim=1)
    return boxes


def _overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Intersection over the smaller of two boxes ``(5,)``: a box inside another counts as the same face."""
    extent = (torch.minimum(first[2:4], second[2:4]) - torch.maximum(first[:2], second[:2])).clamp(min=0)
    areas = [(box[2:4] - box[:2]).prod() for box in (first, second)]
    return float(extent.prod() / torch.minimum(*areas).clamp(min=1e-6))


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress OpenCV's warnings."""
    logging = getattr(cv2.utils, "logging", None)
    if logging is None:
        yield
        return
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_ERROR)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def yunet_path() -> Path:
    """Path in the cache where :func:`fetch_yunet` puts the model file."""
    return cache_folder() / YUNET_FILE


def cached_detector(min_score: float = MIN_SCORE) -> YuNet | None:
    """The detector with the model file in the cache; None if there is no such file."""
    path = yunet_path()
    return YuNet(path, min_score) if path.is_file() else None


def fetch_yunet(
    source: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Download YuNet's model file, verify its checksum, and save it.

    Args:
        source: File or URL to get it from; by default :data:`YUNET_ADDRESSES`.
        path: File to write; by default :func:`yunet_path`.
        progress: Called with the number of bytes received and their total.

    Returns:
        Path of the file.

    Raises:
        FileFormatError: If the source is missing or holds something else.
        TwodaslError: If no URL can be read.
    """
    path = yunet_path() if path is None else Path(path)
    if source is None:
        data = _first_answer(progress)
    elif "://" in str(source):
        data = _download(str(source), progress)
        _check(str(source), data)
    else:
        file = Path(source)
        if not file.is_file():
            raise FileFormatError(file, "a folder" if file.is_dir() else "no such file", YUNET_FILE)
        with file.open("rb") as content:
            data = content.read(YUNET_BYTES + 1)
        _check(file, data)
    with whole_file(path) as output:
        output.write(data)
    return path


def _first_answer(progress: Callable[[int, int], None] | None) -> bytes:
    """Content of the file, from the first URL that has it."""
    reasons = []
    for address in YUNET_ADDRESSES:
        try:
            data = _download(address, progress)
            _check(address, data)
        except TwodaslError as error:
            reasons.append(str(error))
        else:
            return data
    raise TwodaslError(
        "; ".join(reasons) + ". Download the file by other means and pass it as --source FILE: " + YUNET_ADDRESSES[0]
    )


def _download(address: str, progress: Callable[[int, int], None] | None) -> bytes:
    parts, size = [], 0
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            while block := answer.read(1 << 16):
                parts.append(block)
                size += len(block)
                if size > YUNET_BYTES:
                    break  # too large to be the file
                if progress is not None:
                    progress(size, YUNET_BYTES)
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        reason = getattr(error, "reason", None) or error
        raise TwodaslError(f"{address}: found no response ({reason}); expected {YUNET_FILE}") from error
    return b"".join(parts)


def _check(place: str | os.PathLike[str], data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != YUNET_BYTES:
        pointer = data.startswith(b"version https://git-lfs")
        found = "a Git LFS pointer instead of the file" if pointer else "a file of another size"
        raise FileFormatError(place, found, f"{YUNET_FILE}, {YUNET_BYTES} bytes")
    if digest != YUNET_SHA256:
        raise FileFormatError(place, f"a file with the SHA-256 {digest}", f"{YUNET_FILE}, {YUNET_SHA256}")
