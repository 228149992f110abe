"""Where the faces of a photo are: OpenCV's detector YuNet, with a model file that is fetched once and checked.

``twodasl models get yunet`` brings the file to the cache, where ``twodasl reconstruct`` finds it. It is
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

from twodasl_lite.archive import whole_file
from twodasl_lite.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.images import as_photo
from twodasl_lite.morphable.embedded import cache_folder

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_BYTES = 232_589
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
YUNET_ADDRESSES = (
    "https://github.com/opencv/opencv_zoo/raw/966be4cb6eefc2a4f586ed0581bf4bbaa2533070/models/face_detection_yunet/"
    + YUNET_FILE,
    # The same bytes in the repository of YuNet's authors, which keeps them without Git LFS:
    "https://raw.githubusercontent.com/ShiqiYu/libfacedetection.train/0047ac24afb1a50a0c6105001c89d1b5b805dbf1/onnx/"
    "yunet_s_640_640.onnx",
)
"""Where the model file is, pinned to a commit; the next is tried where one does not answer."""

MIN_SCORE = 0.7
"""Least score of a face, 0 to 1."""
_DETECTION_SIDE = 640  # of the photo that a detector sees; it was trained on such
_NMS, _TOP_K = 0.3, 5000  # OpenCV's own values
# YuNet frames the face with its forehead; crops are cut around the box of the 68 landmarks. Medians over 394 of 400
# photos of AFLW2000-3D (the smaller model's agree within 2 %):
_YUNET_SIZE = 1.10  # sqrt(width height) of YuNet's box, over the longer side of the landmarks'
_YUNET_ABOVE = 0.145  # how far its middle is above theirs, in units of that side
_UPRIGHT_BONUS, _SAME_FACE = 0.02, 0.5
_SECONDS = 60  # that a server may keep us waiting


class Detections(NamedTuple):
    """Faces of a photo, the surest first.

    Attributes:
        boxes: ``(N, 5)`` left, top, right, bottom in pixels, and a score.
        turns: ``(N,)`` by how many quarter turns counter-clockwise the photo must be turned for the face to stand
            upright: 0, or 2 for one that is upside down.
    """

    boxes: torch.Tensor
    turns: torch.Tensor


class Detector(Protocol):
    """Something that finds faces. It may also have a method ``find`` that returns :class:`Detections`."""

    def __call__(self, photo: np.ndarray) -> torch.Tensor:
        """Boxes ``(N, 5)`` in a photo ``(H, W, 3)``: left, top, right, bottom in pixels, and a score."""
        ...


def quarter_turns(up: torch.Tensor) -> torch.Tensor:
    """Quarter turns counter-clockwise that bring a direction closest to the top of the photo.

    Args:
        up: ``(..., 2)`` x, y in pixels (y down): from a face's mouth to its eyes.

    Returns:
        ``(...)`` int64, 0 to 3. (``np.rot90(photo, turns)`` turns the photo so.)
    """
    # Angle from straight up, clockwise positive: a face that leans to the right must be turned to the left.
    clockwise = torch.atan2(up[..., 0], -up[..., 1])
    return (torch.round(clockwise / (torch.pi / 2)).long()) % 4


class YuNet:
    """OpenCV's face detector YuNet (Wu et al. 2023), with a model file that you have.

    The file is ``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo (0.2 MB, MIT licence); the other files of
    YuNet's authors work too. Its boxes hold the forehead; they are changed to squares that frame what the 68 landmarks
    do, as crops want it. Its five points are not those of the landmark map: they only say which way up a face is.

    Args:
        path: The model file.
        min_score: Least score of a face, 0 to 1.

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
                self(np.zeros((32, 32, 3), np.uint8))  # other networks load, and fail when they are used
        except cv2.error as error:
            raise FileFormatError(path, f"a file that OpenCV cannot use ({error.err})", expected) from error

    def __call__(self, photo: np.ndarray) -> torch.Tensor:
        """Boxes ``(N, 5)``, the surest first."""
        return self.find(photo).boxes

    def find(self, photo: np.ndarray, upright: bool = False) -> Detections:
        """Faces with their boxes, and which way up they are.

        YuNet also reports faces that lie or stand on their heads, but takes their mouths for eyes; so the photo is
        shown to it in all four positions, and each face is taken from the one in which its score is best.

        Args:
            photo: ``(H, W, 3)`` uint8 RGB.
            upright: Whether the faces are known to stand upright: four times as quick.
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
        # A face that stands upright is not taken for another by a hair's breadth.
        score = every[:, 4] + _UPRIGHT_BONUS * (turns == 0)
        kept: list[int] = []
        for k in score.argsort(descending=True, stable=True).tolist():
            if all(_overlap(every[k], every[other]) < _SAME_FACE for other in kept):
                kept.append(k)
        return Detections(every[kept], turns[kept])

    def _find(self, photo: np.ndarray) -> Detections:
        """The faces of a photo as it is."""
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
        corner, extent = found[:, :2] * stretch - 0.5, found[:, 2:4] * stretch  # edges counted from 0, pixels' middles
        side = extent.prod(dim=1, keepdim=True).sqrt() / _YUNET_SIZE  # (N, 1)
        points = found[:, 4:14].reshape(-1, 5, 2) * stretch  # eye, eye, nose, corner of the mouth, corner
        up = points[:, :2].mean(dim=1) - points[:, 3:].mean(dim=1)  # (N, 2)
        turns = torch.where(up.norm(dim=1) > 0, quarter_turns(up), 0)
        # Down the face, in the photo: for a face that stands on its head, up.
        down = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.0, -1.0], [1.0, 0.0]])[turns]
        middle = corner + extent / 2 + _YUNET_ABOVE * side * down
        boxes = torch.cat([middle - side / 2, middle + side / 2, found[:, 14:]], dim=1)
        order = boxes[:, 4].argsort(descending=True)
        return Detections(boxes[order], turns[order])


def _turned_back(boxes: torch.Tensor, turns: int, height: int, width: int) -> torch.Tensor:
    """Boxes ``(N, 5)`` found in ``np.rot90(photo, turns)`` in the pixels of the photo ``(height, width)``."""
    for k in range(turns, 0, -1):
        across = (width, height)[(k - 1) % 2]  # width of the photo before its k-th quarter turn
        left, top, right, bottom, score = boxes.unbind(dim=1)
        boxes = torch.stack([across - 1 - bottom, left, across - 1 - top, right, score], dim=1)
    return boxes


def _overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Intersection over the smaller of two boxes ``(5,)``: one in the other counts as the same face."""
    extent = (torch.minimum(first[2:4], second[2:4]) - torch.maximum(first[:2], second[:2])).clamp(min=0)
    areas = [(box[2:4] - box[:2]).prod() for box in (first, second)]
    return float(extent.prod() / torch.minimum(*areas).clamp(min=1e-6))


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV's warnings, left out for a while."""
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
    """Where :func:`fetch_yunet` puts the model file: in the cache."""
    return cache_folder() / YUNET_FILE


def cached_detector(min_score: float = MIN_SCORE) -> YuNet | None:
    """The detector whose model file is in the cache, if it is."""
    path = yunet_path()
    return YuNet(path, min_score) if path.is_file() else None


def fetch_yunet(
    source: str | os.PathLike[str] | None = None,
    path: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Fetch YuNet's model file, compare its checksum, and keep it.

    Args:
        source: A file or an address that has it; :data:`YUNET_ADDRESSES` by default.
        path: Where to; :func:`yunet_path` by default.
        progress: Called with how many bytes are there, and how many there will be.

    Returns:
        Where it is.

    Raises:
        FileFormatError: If the source is missing or holds something else.
        TwodaslError: If no address answers.
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
    """The file from the first address that has it."""
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
        "; ".join(reasons) + ". Fetch the file in another way, and give it with --source FILE: " + YUNET_ADDRESSES[0]
    )


def _download(address: str, progress: Callable[[int, int], None] | None) -> bytes:
    parts, size = [], 0
    try:
        with urllib.request.urlopen(address, timeout=_SECONDS) as answer:
            while block := answer.read(1 << 16):
                parts.append(block)
                size += len(block)
                if size > YUNET_BYTES:
                    break  # whatever it is, it is not the file
                if progress is not None:
                    progress(size, YUNET_BYTES)
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors
        reason = getattr(error, "reason", None) or error
        raise TwodaslError(f"{address}: found no answer ({reason}); expected {YUNET_FILE}") from error
    return b"".join(parts)


def _check(place: str | os.PathLike[str], data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if len(data) != YUNET_BYTES:
        pointer = data.startswith(b"version https://git-lfs")
        found = "a Git LFS pointer, which stands for the file" if pointer else "a file of another size"
        raise FileFormatError(place, found, f"{YUNET_FILE}, {YUNET_BYTES} bytes")
    if digest != YUNET_SHA256:
        raise FileFormatError(place, f"a file with the SHA-256 {digest}", f"{YUNET_FILE}, {YUNET_SHA256}")
