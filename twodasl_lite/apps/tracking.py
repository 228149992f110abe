"""Faces from frame to frame of a video.

With a detector every frame is searched, and faces may come and go. Without one, a face is followed by the picture
itself: points of the face are looked for in the next frame (Lucas & Kanade 1981), there and back again, and the crop
box moves, grows and turns small as most of them do. What the network answers never moves the crop, unless the network
is sure of where the face is (:func:`twodasl_lite.apps.face_search.agreement`); what is smoothed never does. A track
ends where too few points are found again: a cut, a hand, the border of the frame.

What is shown is smoothed by a one-euro filter (Casiez, Roussel & Vogel 2012): calm when the face is, and quick when
it moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.apps.detection import Detector
from twodasl_lite.apps.reconstruction import MIN_FACE, Faces, Reconstruction, overlap, reconstruct
from twodasl_lite.base.checks import check_number
from twodasl_lite.base.errors import InputTypeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import make_pose, split_pose
from twodasl_lite.geometry.photos import as_photo, landmarks_box
from twodasl_lite.networks import TrainedRegressor

SAME_FACE = 0.3
"""Overlap (intersection over union) from which on two boxes of consecutive frames are one face's."""
STILL_THERE = 0.5
"""Part of its landmarks that must be in the frame for a face to be followed without a detector."""
FOUND_AGAIN = 0.5
"""Part of a face's points that must be found in the next frame for the face to be followed."""
SPEED_WEIGHT = 10.0
"""Hz of the one-euro filter's cut-off frequency for a movement of one face a second."""
_SPEED_CUTOFF = 1.0  # Hz; of the speed itself, as in the paper
_POINTS = 9  # a side of the grid of points that are followed
_RETURNED = 0.02  # of the crop's side: how far from its start a point may end that was followed there and back
_FLOW_SIDE = 160.0  # pixels of a crop in which points are followed
_WINDOW = 15  # pixels of the neighbourhood of a point that is compared
_SEARCH_EVERY = 25  # frames between two searches while there is no face
_CHECK_EVERY = 10  # frames between two questions to the network how sure it is
_FLAT = 1e-4  # smaller eigenvalue of the structure tensor below which a point cannot be told from those beside it


class Track(NamedTuple):
    """A face followed through a video.

    Attributes:
        number: Of the face, from 1, the same in every frame.
        face: Its smoothed reconstruction in this frame. Its confidence is the detector's score; without a detector,
            the part of its points that were found again.
    """

    number: int
    face: Reconstruction


class Tracker:
    """Faces from frame to frame, each with a number, their coefficients smoothed.

    Args:
        trained: The network.
        model: Its face model.
        smoothing: s, from 0 (each frame alone) to below 1. A face at rest is smoothed by
            ``c_t = s c_(t-1) + (1 - s) G(frame t)``, one that moves by less.
        detector: Finds the faces in every frame.
        start: Where the faces are in the first frame, as keyword arguments of
            :func:`~twodasl_lite.apps.reconstruction.reconstruct`, if there is no detector. With an empty one the
            network searches, once a second while there is no face.
        fps: Frames a second.

    Attributes:
        ended: Number of each track that ended without a detector, and why.

    Raises:
        InputTypeError: If neither or both of detector and start are given.
        ValueRangeError: If the smoothing or the frame rate is out of range.
    """

    def __init__(
        self,
        trained: TrainedRegressor,
        model: MorphableModel,
        *,
        smoothing: float = 0.5,
        detector: Detector | None = None,
        start: dict[str, torch.Tensor] | None = None,
        fps: float = 25.0,
    ) -> None:
        if not 0 <= smoothing < 1:
            raise ValueRangeError(f"smoothing: found {smoothing}; expected 0 or more and below 1")
        check_number("fps", fps, above=0)
        if (detector is None) == (start is None):
            raise InputTypeError("detector, start: found both or neither; expected one of them")
        self.trained, self.model, self.smoothing, self.detector = trained, model, smoothing, detector
        self.fps, self.ended = fps, {}
        self._start, self._searches = start, start == {}
        self._seen: dict[int, Reconstruction] = {}  # what the network said, not smoothed
        self._filters: dict[int, OneEuro] = {}
        self._before: np.ndarray | None = None  # the last frame
        self._last = self._frames = 0

    def step(self, photo: np.ndarray) -> list[Track]:
        """The faces of the next frame."""
        photo = as_photo(photo, "photo")
        if self.detector is not None:
            self._join(reconstruct(photo, self.trained, self.model, detector=self.detector, recrops=1, upright=True))
        elif self._start:
            self._join(reconstruct(photo, self.trained, self.model, **self._start))
            self._start = None
        else:
            if self._seen:
                self._follow(photo)
            if self._searches and not self._seen and self._frames % _SEARCH_EVERY == 0:
                from twodasl_lite.apps.face_search import search_faces

                self._join(search_faces(photo, self.trained, self.model))
        self._before = photo
        self._frames += 1
        for number in set(self._filters) - set(self._seen):
            del self._filters[number]
        return [Track(number, self._smoothed(number, face)) for number, face in self._seen.items()]

    def _join(self, found: Faces) -> None:
        """Give each face the number of the old one that it overlaps most, or a new one."""
        seen, left = {}, dict(self._seen)
        for face in found:
            overlaps = {number: overlap(face.crop_box, old.crop_box) for number, old in left.items()}
            best = max(overlaps, key=overlaps.__getitem__, default=None)
            if best is not None and overlaps[best] >= SAME_FACE:
                del left[best]
                seen[best] = face
            else:
                self._last += 1
                seen[self._last] = face
        self._seen = seen

    def _follow(self, photo: np.ndarray) -> None:
        numbers, boxes, parts = [], [], []
        for number, face in self._seen.items():
            reason, box, part = _moved(self._before, photo, face)
            if reason:
                self.ended[number] = reason
                continue
            numbers.append(number)
            boxes.append(box)
            parts.append(part)
        found: Sequence[Reconstruction] = []
        if boxes:
            found = reconstruct(photo, self.trained, self.model, crop_boxes=torch.stack(boxes))
            if self._frames % _CHECK_EVERY == 0:
                found = self._centred(photo, found)
        self._seen = {}
        for number, face, part in zip(numbers, found, parts, strict=True):
            if face.inside < STILL_THERE:
                self.ended[number] = f"{1 - face.inside:.0%} of it is beyond the border of the frame"
            else:
                self._seen[number] = _with_confidence(face, part)

    def _centred(self, photo: np.ndarray, faces: Sequence[Reconstruction]) -> list[Reconstruction]:
        """Cut once more around the answers of which the network is sure."""
        from twodasl_lite.apps.face_search import FACE, agreement

        sure = agreement(photo, self.trained, self.model, torch.stack([face.crop_box for face in faces]))
        result = list(faces)
        for k, face in enumerate(faces):
            box = landmarks_box(face.landmarks)
            if sure[k] >= FACE and overlap(box, face.crop_box) > SAME_FACE:
                (result[k],) = reconstruct(photo, self.trained, self.model, crop_boxes=box)
        return result

    def _smoothed(self, number: int, face: Reconstruction) -> Reconstruction:
        if self.smoothing == 0:
            return face
        old = self._filters.get(number)
        jumped = old is not None and (
            old.face.height != face.height
            or overlap(landmarks_box(old.face.landmarks), landmarks_box(face.landmarks)) < SAME_FACE
        )
        if old is None or jumped:
            self._filters[number] = OneEuro(face, self.model, self.smoothing, self.fps)
            return face
        return old(face)


class OneEuro:
    """The one-euro filter, for the coefficients of one face.

    Args:
        face: In the first frame.
        model: Its face model.
        smoothing: As for :class:`Tracker`.
        fps: Frames a second.

    Attributes:
        face: What came out last.
    """

    def __init__(self, face: Reconstruction, model: MorphableModel, smoothing: float, fps: float) -> None:
        self.face, self._model, self._fps = face, model, fps
        # At rest the new frame counts 1 - s; from this follows the cut-off frequency at rest.
        self._cutoff = math.inf if smoothing == 0 else fps * (1 - smoothing) / (2 * math.pi * smoothing)
        self._raw, self._speed = face.landmarks, torch.zeros_like(face.landmarks)

    def _share(self, cutoff: float) -> float:
        """Of the new value."""
        return 1 / (1 + self._fps / (2 * math.pi * cutoff))

    def __call__(self, new: Reconstruction) -> Reconstruction:
        """The smoothed face of the next frame."""
        size = float((new.landmarks[:, :2].amax(dim=0) - new.landmarks[:, :2].amin(dim=0)).max())
        self._speed += self._share(_SPEED_CUTOFF) * ((new.landmarks - self._raw) * self._fps - self._speed)
        self._raw = new.landmarks
        speed = float(self._speed[:, :2].mean(dim=0).norm()) / max(size, 1.0)  # faces a second
        rest, moving = self._share(self._cutoff), self._share(self._cutoff + SPEED_WEIGHT * speed)
        share = torch.full_like(new.coefficients, rest)
        share[:12] = moving  # the pose follows a movement, the person stays the same
        share[12 + self._model.num_shape :] = moving
        mixed = self.face.coefficients + share * (new.coefficients - self.face.coefficients)
        mixed[:12] = make_pose(*split_pose(mixed[:12].reshape(3, 4))).flatten()  # a rotation again
        self.face = Reconstruction.of(mixed, new.crop_box, new.height, new.width, self._model, new.confidence)
        return self.face


def _with_confidence(face: Reconstruction, confidence: float) -> Reconstruction:
    from dataclasses import replace

    return replace(face, confidence=confidence)


def _moved(before: np.ndarray, now: np.ndarray, face: Reconstruction) -> tuple[str, torch.Tensor, float]:
    """Why a face is lost, or where its crop box has moved, and the part of its points that were found again."""
    lost = face.crop_box, 0.0
    if before.shape != now.shape:
        return "the frames change their size", *lost
    side = float(face.crop_box[2] - face.crop_box[0]) + 1
    # Both frames around the face, small: what is followed then costs the same for every size of a face and a frame.
    reach = side / 2
    height, width = now.shape[:2]
    left, top = max(0, int(face.crop_box[0] - reach)), max(0, int(face.crop_box[1] - reach))
    right, bottom = min(width, int(face.crop_box[2] + reach) + 1), min(height, int(face.crop_box[3] + reach) + 1)
    if right - left < MIN_FACE or bottom - top < MIN_FACE:
        return "it has left the frame", *lost
    factor = min(1.0, _FLOW_SIDE / side)
    size = max(8, round((right - left) * factor)), max(8, round((bottom - top) * factor))
    stretch = np.array([size[0] / (right - left), size[1] / (bottom - top)], np.float32)
    views = []
    for frame in (before, now):
        grey = cv2.cvtColor(np.ascontiguousarray(frame[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
        views.append(_even(cv2.resize(grey, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)))
    low, high = face.landmarks[:, :2].amin(dim=0).numpy(), face.landmarks[:, :2].amax(dim=0).numpy()
    x, y = np.meshgrid(*(np.linspace(low[k], high[k], _POINTS) for k in range(2)))
    grid = np.concatenate([np.stack([x.ravel(), y.ravel()], axis=1), face.landmarks[:, :2].numpy()])
    points = ((grid - [left, top] + 0.5) * stretch - 0.5).astype(np.float32)  # (N, 2)
    points = points[((points >= 0) & (points <= np.array(size) - 1)).all(axis=1)]
    if len(points) < 8:
        return "it has left the frame", *lost
    options = {"winSize": (_WINDOW, _WINDOW), "maxLevel": 3, "minEigThreshold": 1e-3}
    there, seen, _ = cv2.calcOpticalFlowPyrLK(views[0], views[1], points[:, None], None, **options)
    back, seen_back, _ = cv2.calcOpticalFlowPyrLK(views[1], views[0], there, None, **options)
    away = np.linalg.norm(back[:, 0] - points, axis=1)
    good = (seen[:, 0] == 1) & (seen_back[:, 0] == 1) & (away < max(0.5, _RETURNED * side * float(stretch.mean())))
    # Flat skin has nothing to follow: of the points, those count that the last frame could have told apart.
    textured = cv2.cornerMinEigenVal(views[0], 5)[tuple(points.round().astype(int).T[::-1])] > _FLAT
    if textured.sum() < 8:
        return "there is nothing to follow, the face is too small or too blurred", *lost
    part = float(good[textured].mean())
    if part < FOUND_AGAIN:
        return f"only {part:.0%} of its points were found again", *lost
    use = good & textured
    matrix = _similarity(points[use], there[use, 0])
    if matrix is None:
        return "its points move apart", *lost
    scale, shift = matrix
    middle = ((face.crop_box[:2] + face.crop_box[2:]) / 2).numpy()
    placed = (middle - [left, top] + 0.5) * stretch - 0.5
    placed = (scale * placed + shift + 0.5) / stretch - 0.5 + [left, top]
    half = scale * (side - 1) / 2
    box = torch.tensor([*(placed - half), *(placed + half)], dtype=torch.float32)
    if box[2] < 0 or box[3] < 0 or box[0] >= width or box[1] >= height or 2 * half < MIN_FACE:
        return "it has left the frame", *lost
    return "", box, part


def _even(grey: np.ndarray) -> np.ndarray:
    """A picture with a mean of 128 and a deviation of 40 grey values: light that changes is no movement."""
    mean, deviation = float(grey.mean()), float(grey.std())
    gain = 40 / max(deviation, 4.0)  # noise on a plain surface is not made into something to follow
    return np.clip((grey.astype(np.float32) - mean) * gain + 128, 0, 255).astype(np.uint8)


def _similarity(first: np.ndarray, second: np.ndarray) -> tuple[float, np.ndarray] | None:
    """Scale and shift that most pairs of points ``(N, 2)`` agree on: medians, which a few bad ones cannot move."""
    if len(first) < 4:
        return None
    spread = [np.linalg.norm(points - np.median(points, axis=0), axis=1) for points in (first, second)]
    far = spread[0] > 0.25 * spread[0].max()
    if not far.any():
        return None
    scale = float(np.clip(np.median(spread[1][far] / spread[0][far]), 0.8, 1.25))
    return scale, np.median(second - scale * first, axis=0)
