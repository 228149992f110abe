"""Your own picture: from a photo with a face in it to the face, in the pixels of that photo.

::

    where the face is            a box, 68 landmarks, or a detector
    -> crop of 120 x 120         the square of sqrt(2) times the longer side (images.landmarks_box)
    -> a network                 prediction.predict: with the landmarks, or an empty map first
    -> coefficients              the pose now refers to the whole photo: x right, y up from its lower left pixel

A network has seen crops that were cut around 68 landmarks. A box that somebody drew, or that a detector found, shows
more forehead or less chin; so the answer's own landmarks give a second crop, and that one counts (``recrops``).
Explained in the chapter "What it is good for".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch

from twodasl_lite.camera import crop_pose_to_image, image_to_crop, matrix_to_euler, split_pose
from twodasl_lite.coefficients import Coefficients
from twodasl_lite.decode import decode, decode_landmarks
from twodasl_lite.errors import FileFormatError, InputTypeError, ShapeError, ValueRangeError, check_tensor
from twodasl_lite.images import as_photo, crop_photo, landmarks_box
from twodasl_lite.landmarks import NUM_LANDMARKS, subset_18, subset_18_visible
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.morphable.fingerprint import check_fingerprint
from twodasl_lite.networks import TrainedRegressor
from twodasl_lite.prediction import predict

SAME_FACE = 0.3
"""Overlap (intersection over union) from which on two boxes of consecutive frames are one face's."""
STILL_THERE = 0.5
"""Part of its landmarks that must be in the frame for a face to be followed without a detector."""
MIN_FACE = 4.0
"""Smallest crop, in pixels of the photo, in which a face is looked for."""
_DETECTION_SIDE = 640  # of the photo that a detector sees; it was trained on such
_NMS, _TOP_K = 0.3, 5000  # OpenCV's own values
# YuNet frames the face with its forehead; crops are cut around the box of the 68 landmarks. Medians over 394 of 400
# photos of AFLW2000-3D (the smaller model's agree within 2 %):
_YUNET_SIZE = 1.10  # sqrt(width height) of YuNet's box, over the longer side of the landmarks'
_YUNET_ABOVE = 0.145  # how far its middle is above theirs, in units of that side


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One face of a photo.

    Attributes:
        coefficients: ``(D,)`` raw; the pose leads to the frame of the whole photo (1-based, y up), not of the crop.
        vertices: ``(V, 3)`` in pixels of the photo, depth in the same unit.
        landmarks: ``(68, 3)`` likewise.
        crop_box: ``(4,)`` what the network saw: left, top, right, bottom, may reach beyond the photo.
        height: Of the photo in pixels.
        width: Likewise.
    """

    coefficients: torch.Tensor
    vertices: torch.Tensor
    landmarks: torch.Tensor
    crop_box: torch.Tensor
    height: int
    width: int

    @classmethod
    def of(
        cls, coefficients: torch.Tensor, crop_box: torch.Tensor, height: int, width: int, model: MorphableModel
    ) -> Reconstruction:
        """The face of coefficients ``(D,)`` whose pose refers to a photo of this size."""
        with torch.no_grad():
            vertices = decode(coefficients[None], model, height)[0]
            landmarks = decode_landmarks(coefficients[None], model, height)[0]
        return cls(coefficients, vertices, landmarks, crop_box, height, width)

    @property
    def angles(self) -> torch.Tensor:
        """``(3,)`` pitch, yaw, roll in degrees."""
        return torch.rad2deg(matrix_to_euler(split_pose(self._pose)[1]))

    @property
    def scale(self) -> float:
        """Pixels of the photo per model unit."""
        return float(split_pose(self._pose)[0])

    @property
    def inside(self) -> float:
        """Part of the 68 landmarks that lie in the photo; below 1 its border cuts the face."""
        x, y = self.landmarks[:, 0], self.landmarks[:, 1]
        within = (x > -0.5) & (x < self.width - 0.5) & (y > -0.5) & (y < self.height - 0.5)
        return float(within.float().mean())

    @property
    def _pose(self) -> torch.Tensor:
        return self.coefficients[:12].reshape(3, 4)

    def unpack(self, model: MorphableModel) -> Coefficients:
        """The coefficients by name."""
        return Coefficients.unpack(self.coefficients, model.layout)


class Detector(Protocol):
    """Something that finds faces."""

    def __call__(self, photo: np.ndarray) -> torch.Tensor:
        """Boxes ``(N, 5)`` in a photo ``(H, W, 3)``: left, top, right, bottom in pixels, and a score."""
        ...


class YuNet:
    """OpenCV's face detector YuNet (Wu et al. 2023), with a model file that you have.

    The file is ``face_detection_yunet_2023mar.onnx`` of OpenCV's model zoo (0.2 MB, MIT licence); the files of YuNet's
    authors work too. Of what YuNet reports only box and score are used: its five points are not those of the landmark
    map. Its boxes hold the forehead; they are changed to squares that frame what the 68 landmarks do, as crops want it.

    Args:
        path: The model file.
        min_score: Least score of a face, 0 to 1.

    Raises:
        FileFormatError: If the file is missing or OpenCV cannot use it.
        ValueRangeError: If the score is out of range.
    """

    def __init__(self, path: str | os.PathLike[str], min_score: float = 0.7) -> None:
        expected = "a model file of the face detector YuNet (.onnx)"
        if not 0 <= min_score <= 1:
            raise ValueRangeError(f"min_score: found {min_score}; expected 0 to 1")
        if not Path(path).is_file():
            raise FileFormatError(path, "a folder" if Path(path).is_dir() else "no such file", expected)
        try:
            self._detector = cv2.FaceDetectorYN.create(
                os.fspath(path), "", (_DETECTION_SIDE, _DETECTION_SIDE), min_score, _NMS, _TOP_K
            )
            self(np.zeros((32, 32, 3), np.uint8))  # other networks load, and fail when they are used
        except cv2.error as error:
            raise FileFormatError(path, f"a file that OpenCV cannot use ({error.err})", expected) from error

    def __call__(self, photo: np.ndarray) -> torch.Tensor:
        """Boxes ``(N, 5)``, the surest first."""
        photo = as_photo(photo, "photo")
        height, width = photo.shape[:2]
        factor = min(1.0, _DETECTION_SIDE / max(height, width))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        small = photo if factor == 1 else cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
        self._detector.setInputSize(size)
        _, faces = self._detector.detect(np.ascontiguousarray(small[..., ::-1]))
        if faces is None:
            return torch.zeros(0, 5)
        found = torch.as_tensor(np.asarray(faces)).float().reshape(-1, 15)  # x, y, width, height, 5 points, score
        stretch = torch.tensor([width / size[0], height / size[1]])
        corner, extent = found[:, :2] * stretch - 0.5, found[:, 2:4] * stretch  # edges counted from 0, pixels' middles
        side = extent.prod(dim=1, keepdim=True).sqrt() / _YUNET_SIZE  # (N, 1)
        middle = corner + extent / 2 + torch.cat([torch.zeros_like(side), _YUNET_ABOVE * side], dim=1)
        boxes = torch.cat([middle - side / 2, middle + side / 2, found[:, 14:]], dim=1)
        return boxes[boxes[:, 4].argsort(descending=True)]


def face_box_to_crop(boxes: torch.Tensor) -> torch.Tensor:
    """Crop boxes ``(..., 4)`` around faces' boxes ``(..., 4)``: squares of sqrt(2) times the longer side."""
    boxes = check_tensor("boxes", boxes, ("...", 4))
    if bool((boxes[..., 2:] <= boxes[..., :2]).any()):
        raise ValueRangeError(f"boxes: found {boxes.tolist()}; expected left < right and top < bottom")
    return landmarks_box(boxes.unflatten(-1, (2, 2)))


def reconstruct(
    photo: np.ndarray,
    trained: TrainedRegressor,
    model: MorphableModel,
    *,
    boxes: torch.Tensor | None = None,
    landmarks: torch.Tensor | None = None,
    visible: torch.Tensor | None = None,
    crop_boxes: torch.Tensor | None = None,
    detector: Detector | None = None,
    recrops: int = 1,
    looks: int = 2,
) -> list[Reconstruction]:
    """Faces of a photo, by a network.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB, see :func:`twodasl_lite.images.read_photo`.
        trained: The network.
        model: The face model that it was trained with, in its layout.
        boxes: ``(N, 4)`` or ``(4,)`` around the faces: left, top, right, bottom.
        landmarks: ``(N, 68, 2)`` or ``(68, 2)`` that somebody marked or a detector found, NaN where missing: they give
            the crop, and the network sees 18 of them.
        visible: ``(N, 68)`` or ``(68,)`` which of them are to be used; all finite ones by default.
        crop_boxes: ``(N, 4)`` or ``(4,)`` exactly what the network is to see.
        detector: Finds the faces; a :class:`YuNet` for instance.
        recrops: How often to cut again around the landmarks of the last answer; only for ``boxes`` and ``detector``.
        looks: How often a crop without landmarks is looked at, see :func:`twodasl_lite.prediction.predict`.

    Returns:
        One face per box, in their order; with a detector those that it found, maybe none.

    Raises:
        InputTypeError: If not exactly one of boxes, landmarks, crop_boxes and detector is given.
        ShapeError: If a shape differs.
        ValueRangeError: If a box is empty or outside the photo, fewer than two landmarks are known, or the face model
            is not the network's.
    """
    photo = as_photo(photo, "photo")
    given = {"boxes": boxes, "landmarks": landmarks, "crop_boxes": crop_boxes, "detector": detector}
    if sum(value is not None for value in given.values()) != 1:
        found = [name for name, value in given.items() if value is not None]
        raise InputTypeError(f"found {', '.join(found) or 'nothing'}; expected exactly one of {', '.join(given)}")
    if recrops < 0:
        raise ValueRangeError(f"recrops: found {recrops}; expected 0 or more")
    if "face_model" in trained.metadata:
        check_fingerprint(trained.metadata["face_model"], model)
    points = seen = None
    if landmarks is not None:
        points, seen = _checked_landmarks(landmarks, visible)
        crop_boxes = torch.stack([landmarks_box(p[s]) for p, s in zip(points, seen, strict=True)])
    elif visible is not None:
        raise InputTypeError("visible: found without landmarks; expected it with them")
    elif crop_boxes is None:
        if detector is not None:
            boxes = check_tensor("the detector's boxes", detector(photo), ("N", 5))[:, :4]
        crop_boxes = face_box_to_crop(_rows("boxes", boxes))
    crop_boxes = _rows("crop_boxes", crop_boxes).cpu()
    coefficients = _look(photo, trained, model, crop_boxes, points, seen, looks)
    again = recrops if boxes is not None and len(crop_boxes) else 0
    for _ in range(again):
        crop_boxes = _cut_again(photo, decode_landmarks(coefficients, model, photo.shape[0]), crop_boxes)
        coefficients = _look(photo, trained, model, crop_boxes, None, None, looks)
    height, width = photo.shape[:2]
    return [
        Reconstruction.of(face, box, height, width, model) for face, box in zip(coefficients, crop_boxes, strict=True)
    ]


def _rows(name: str, boxes: torch.Tensor) -> torch.Tensor:
    boxes = check_tensor(name, boxes, ("...", 4), dtype=torch.float32)
    if boxes.ndim > 2:
        raise ShapeError(f"{name}: found shape {tuple(boxes.shape)}; expected (N, 4) or (4,)")
    return boxes.reshape(-1, 4)


def _checked_landmarks(landmarks: torch.Tensor, visible: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Points ``(N, 68, 2)`` and which are known ``(N, 68)``."""
    points = check_tensor("landmarks", landmarks, ("...", NUM_LANDMARKS, 2), finite=False, dtype=torch.float32).cpu()
    if points.ndim not in (2, 3):
        raise ShapeError(f"landmarks: found shape {tuple(points.shape)}; expected (N, {NUM_LANDMARKS}, 2)")
    points = points.reshape(-1, NUM_LANDMARKS, 2)
    known = torch.isfinite(points).all(dim=-1)
    if visible is not None:
        mask = torch.as_tensor(visible).cpu().to(torch.bool)
        if mask.numel() != known.numel():
            raise ShapeError(f"visible: found shape {tuple(mask.shape)}; expected {tuple(known.shape)}")
        known = known & mask.reshape(known.shape)
    if len(known) and int(known.sum(dim=1).min()) < 2:
        raise ValueRangeError(f"landmarks: found {int(known.sum(dim=1).min())} known points; expected 2 or more")
    return points, known


def _box_of(points: torch.Tensor) -> torch.Tensor:
    return landmarks_box(points)


def _look(
    photo: np.ndarray,
    trained: TrainedRegressor,
    model: MorphableModel,
    crop_boxes: torch.Tensor,
    points: torch.Tensor | None,
    seen: torch.Tensor | None,
    looks: int,
) -> torch.Tensor:
    """Raw coefficients ``(N, D)`` in the photo's frame of the faces in crop boxes ``(N, 4)``."""
    if not len(crop_boxes):
        return torch.zeros(0, model.layout.size)
    crop_boxes = crop_boxes.round()
    crops = torch.stack([torch.from_numpy(crop_photo(photo, box)) for box in crop_boxes]).permute(0, 3, 1, 2)
    device = next(trained.network.parameters()).device
    detected = reported = None
    if points is not None:
        in_crop = image_to_crop(points, crop_boxes)  # (N, 68, 2)
        detected, reported = subset_18(in_crop).to(device), subset_18_visible(seen).to(device)
    answer = predict(
        trained.network,
        trained.whitening,
        crops.contiguous().to(device),
        detected,
        reported,
        model=model,
        kind=trained.metadata["map_kind"],
        looks=looks,
    )
    face = Coefficients.unpack(answer.coefficients.cpu(), model.layout)
    return face._replace(pose=crop_pose_to_image(face.pose, crop_boxes, photo.shape[0])).pack()


def _cut_again(photo: np.ndarray, landmarks: torch.Tensor, crop_boxes: torch.Tensor) -> torch.Tensor:
    """Crop boxes around landmarks ``(N, 68, 3)``; the old one where the new is tiny or off the photo."""
    kept = []
    for points, old in zip(landmarks, crop_boxes, strict=True):
        new = landmarks_box(points) if bool(torch.isfinite(points).all()) else old
        off = new[2] < 0 or new[3] < 0 or new[0] >= photo.shape[1] or new[1] >= photo.shape[0]
        kept.append(old if off or new[2] - new[0] < MIN_FACE else new)
    return torch.stack(kept)


# ---------------------------------------------------------------------------------------------------------- video
class Track(NamedTuple):
    """A face followed through a video.

    Attributes:
        number: Of the face, from 1, the same in every frame.
        face: Its smoothed reconstruction in this frame.
    """

    number: int
    face: Reconstruction


class Tracker:
    """Faces from frame to frame, each looked for where it was, their coefficients smoothed.

    ``c_t = s c_(t-1) + (1 - s) G(frame t)``: exponential smoothing. A face that jumps (less than :data:`SAME_FACE`
    overlap) starts anew. With a detector every frame is searched, so faces may come and go; without, a face is followed
    until less than half of its landmarks are in the frame.

    Args:
        trained: The network.
        model: Its face model.
        smoothing: s, from 0 (each frame alone) to below 1.
        detector: Finds the faces in every frame.
        start: Where the faces are in the first frame, as keyword arguments of :func:`reconstruct`, if there is no
            detector.

    Raises:
        InputTypeError: If neither or both of detector and start are given.
        ValueRangeError: If the smoothing is out of range.
    """

    def __init__(
        self,
        trained: TrainedRegressor,
        model: MorphableModel,
        *,
        smoothing: float = 0.5,
        detector: Detector | None = None,
        start: dict[str, torch.Tensor] | None = None,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ValueRangeError(f"smoothing: found {smoothing}; expected 0 or more and below 1")
        if (detector is None) == (start is None):
            raise InputTypeError("detector, start: found both or neither; expected one of them")
        self.trained, self.model, self.smoothing, self.detector = trained, model, smoothing, detector
        self._start = start
        self._tracks: list[Track] = []
        self._last = 0

    def step(self, photo: np.ndarray) -> list[Track]:
        """The faces of the next frame."""
        if self.detector is not None:
            found = reconstruct(photo, self.trained, self.model, detector=self.detector)
            self._tracks = self._joined(found)
        elif self._start is not None:
            found = reconstruct(photo, self.trained, self.model, **self._start)
            self._start = None
            self._tracks = self._joined(found)
        else:
            self._tracks = [t for t in self._tracks if t.face.inside >= STILL_THERE]
            crops = [_cut_again(photo, t.face.landmarks[None], t.face.crop_box[None]) for t in self._tracks]
            found = []
            if crops:
                found = reconstruct(photo, self.trained, self.model, crop_boxes=torch.cat(crops))
            self._tracks = [
                Track(old.number, self._smoothed(new, old.face))
                for old, new in zip(self._tracks, found, strict=True)
                if new.inside >= STILL_THERE
            ]
        return list(self._tracks)

    def _joined(self, found: Sequence[Reconstruction]) -> list[Track]:
        """Each face found with the number of the old one that it overlaps most."""
        tracks, left = [], list(self._tracks)
        for face in found:
            overlaps = [overlap(face.crop_box, old.face.crop_box) for old in left]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= SAME_FACE:
                old = left.pop(best)
                tracks.append(Track(old.number, self._smoothed(face, old.face)))
            else:
                self._last += 1
                tracks.append(Track(self._last, face))
        return tracks

    def _smoothed(self, new: Reconstruction, old: Reconstruction) -> Reconstruction:
        boxes = landmarks_box(torch.stack([new.landmarks, old.landmarks]))
        if new.height != old.height or overlap(boxes[0], boxes[1]) < SAME_FACE:
            return new
        mixed = self.smoothing * old.coefficients + (1 - self.smoothing) * new.coefficients
        return Reconstruction.of(mixed, new.crop_box, new.height, new.width, self.model)


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Intersection over union of two boxes ``(4,)``, left, top, right, bottom inclusive."""
    low, high = torch.maximum(first[:2], second[:2]), torch.minimum(first[2:], second[2:])
    shared = (high - low + 1).clamp(min=0).prod()
    areas = [(box[2:] - box[:2] + 1).prod() for box in (first, second)]
    return float(shared / (areas[0] + areas[1] - shared))
