"""Your own picture: from a photo with a face in it to the face, in the pixels of that photo.

::

    where the face is            a box, 68 landmarks, or a detector
    -> crop of 120 x 120         the square of sqrt(2) times the longer side (images.landmarks_box)
    -> a network                 prediction.predict: with the landmarks, or an empty map first
    -> coefficients              the pose now refers to the whole photo: x right, y up from its lower left pixel

A network has seen crops that were cut around 68 landmarks. A box that somebody drew, or that a detector found, shows
more forehead or less chin; so the answer's own landmarks give a second crop, and that one counts (``recrops``).
See chapter 17.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from twodasl_lite.apps.detection import Detections, Detector, cached_detector, quarter_turns
from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.fingerprint import check_fingerprint
from twodasl_lite.geometry.camera import crop_pose_to_image, image_to_crop, matrix_to_euler, split_pose
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS, subset_18, subset_18_visible
from twodasl_lite.geometry.photos import as_photo, crop_photo, landmarks_box, read_photo
from twodasl_lite.networks import TrainedRegressor
from twodasl_lite.networks.prediction import predict

MIN_FACE = 4.0
"""Smallest crop, in pixels of the photo, in which a face is looked for."""
RECROPS = 1
"""How often at most a crop is cut again around its own prediction. Once mends boxes that are off; more brings nothing
(``benchmarks/crops_and_search.py``)."""
STAYS = 0.02
"""A crop stays if none of its sides moves by more than this part of its width."""
LARGEST_CROP = 4.0
"""Longest side of a crop box over the longer side of the photo; more is most likely a mistake, and fills the memory."""


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
        confidence: How sure it is that there is a face, 0 to 1: the detector's score, or :func:`agreement`; NaN where
            nobody asked.
    """

    coefficients: torch.Tensor
    vertices: torch.Tensor
    landmarks: torch.Tensor
    crop_box: torch.Tensor
    height: int
    width: int
    confidence: float = math.nan

    @classmethod
    def of(
        cls,
        coefficients: torch.Tensor,
        crop_box: torch.Tensor,
        height: int,
        width: int,
        model: MorphableModel,
        confidence: float = math.nan,
    ) -> Reconstruction:
        """The face of coefficients ``(D,)`` whose pose refers to a photo of this size."""
        with torch.no_grad():
            vertices = decode(coefficients[None], model, height)[0]
        return cls(coefficients, vertices, vertices[model.landmarks], crop_box, height, width, confidence)

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


class Faces(list[Reconstruction]):
    """The faces of one photo, with what is needed to show them.

    Attributes:
        photo: ``(H, W, 3)`` uint8 RGB, upright.
        model: The face model, in the network's layout.
        found_by: Who said where the faces are: ``"you"``, ``"detector"`` or ``"search"``.
    """

    def __init__(
        self, faces: Iterable[Reconstruction], photo: np.ndarray, model: MorphableModel, found_by: str = "you"
    ) -> None:
        super().__init__(faces)
        self.photo, self.model, self.found_by = photo, model, found_by

    def _repr_html_(self) -> str:
        """The faces to turn, beside the photo, in a notebook."""
        from twodasl_lite.viz.viewer import notebook_html

        return notebook_html(self.photo, [face.coefficients for face in self], self.model)


def face_box_to_crop(boxes: torch.Tensor) -> torch.Tensor:
    """Crop boxes ``(..., 4)`` around faces' boxes ``(..., 4)``: squares of sqrt(2) times the longer side."""
    boxes = check_tensor("boxes", boxes, ("...", 4))
    if bool((boxes[..., 2:] <= boxes[..., :2]).any()):
        raise ValueRangeError(f"boxes: found {boxes.tolist()}; expected left < right and top < bottom")
    return landmarks_box(boxes.unflatten(-1, (2, 2)))


def reconstruct(
    photo: np.ndarray | str | os.PathLike[str],
    trained: TrainedRegressor | None = None,
    model: MorphableModel | None = None,
    *,
    boxes: torch.Tensor | None = None,
    landmarks: torch.Tensor | None = None,
    visible: torch.Tensor | None = None,
    crop_boxes: torch.Tensor | None = None,
    detector: Detector | None = None,
    recrops: int = RECROPS,
    looks: int = 2,
    upright: bool = False,
    mirror: bool = False,
) -> Faces:
    """Faces of a photo, by a network.

    With the photo alone, YuNet finds the faces if its file is in the cache (``twodasl models get yunet``); without it
    the network searches the photo itself (:mod:`twodasl_lite.apps.face_search`), which takes longer and finds less.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB, see :func:`twodasl_lite.geometry.photos.read_photo`; or the name of a file.
        trained: The network; by default the one that comes along.
        model: The face model that it was trained with, in its layout; by default the package's.
        boxes: ``(N, 4)`` or ``(4,)`` around the faces, from the brows to the chin and from ear to ear: left, top,
            right, bottom in pixels. Need not be exact: the crop is cut again around the answer.
        landmarks: ``(N, 68, 2)`` or ``(68, 2)`` that somebody marked or a detector found, NaN where missing: they give
            the crop, and the network sees 18 of them.
        visible: ``(N, 68)`` or ``(68,)`` which of them are to be used; all finite ones by default.
        crop_boxes: ``(N, 4)`` or ``(4,)`` exactly what the network is to see.
        detector: Finds the faces; a :class:`~twodasl_lite.apps.detection.YuNet` for instance.
        recrops: How often at most to cut again around the landmarks of the last answer, until the crop stays; only
            for ``boxes`` and ``detector``.
        looks: How often a crop without landmarks is looked at, see :func:`twodasl_lite.networks.prediction.predict`.
        upright: Whether the faces that a detector finds are known to stand upright, which is quicker.
        mirror: Whether the last crop's mirror image is looked at too, see
          :func:`twodasl_lite.networks.prediction.predict`.

    Returns:
        One face per box, in their order; where they were looked for, those that were found, maybe none.

    Raises:
        InputTypeError: If more than one of boxes, landmarks, crop_boxes and detector is given.
        ShapeError: If a shape differs.
        ValueRangeError: If a box is empty, tiny, huge or outside the photo, fewer than two landmarks are known, or the
            face model is not the network's.
        FileFormatError: If the photo is a name and no picture is there.
    """
    if isinstance(photo, (str, os.PathLike)):
        photo = read_photo(photo)
    photo = as_photo(photo, "photo")
    given = {"boxes": boxes, "landmarks": landmarks, "crop_boxes": crop_boxes, "detector": detector}
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise InputTypeError(f"found {', '.join(names)}; expected at most one of {', '.join(given)}")
    if visible is not None and landmarks is None:
        raise InputTypeError("visible: found without landmarks; expected it with them")
    if recrops < 0:
        raise ValueRangeError(f"recrops: found {recrops}; expected 0 or more")
    trained, model = _network_and_face(trained, model)
    if not names:
        detector = cached_detector()
        if detector is None:
            from twodasl_lite.apps.face_search import search_faces

            found = search_faces(photo, trained, model, looks=looks)
            return look_at_mirror_images(found, trained, looks) if mirror else found

    points = seen = scores = None
    found_by = "you"
    if landmarks is not None:
        points, seen = _checked_landmarks(landmarks, visible)
        crop_boxes = torch.stack([landmarks_box(p[s]) for p, s in zip(points, seen, strict=True)])
        turns = _turns_of_landmarks(points, seen)
    elif detector is not None:
        found_by = "detector"
        detections = _detect(detector, photo, upright)
        boxes, scores, turns = detections.boxes[:, :4], detections.boxes[:, 4], detections.turns
        crop_boxes = face_box_to_crop(boxes)
    else:
        if boxes is not None:
            crop_boxes = face_box_to_crop(_checked_boxes("boxes", boxes, photo))
        crop_boxes = _checked_boxes("crop_boxes", crop_boxes, photo)
        turns = torch.zeros(len(crop_boxes), dtype=torch.int64)
    again = recrops if boxes is not None else 0
    coefficients, crop_boxes = _look_upright(
        photo, trained, model, crop_boxes, turns, points, seen, looks, again, mirror
    )
    height, width = photo.shape[:2]
    confidences = [math.nan] * len(crop_boxes) if scores is None else scores.tolist()
    found = [
        Reconstruction.of(face, box, height, width, model, confidence)
        for face, box, confidence in zip(coefficients, crop_boxes, confidences, strict=True)
    ]
    return Faces(found, photo, model, found_by)


def look_at_mirror_images(faces: Faces, trained: TrainedRegressor, looks: int = 2) -> Faces:
    """Faces that a search found, each the mean of a look at its crop and one at the crop's mirror image."""
    if not faces:
        return faces
    boxes = torch.stack([face.crop_box for face in faces])
    again = _look(faces.photo, trained, faces.model, boxes, None, None, looks, mirror=True)
    height, width = faces.photo.shape[:2]
    seen = [
        Reconstruction.of(coefficients, face.crop_box, height, width, faces.model, face.confidence)
        for coefficients, face in zip(again, faces, strict=True)
    ]
    return Faces(seen, faces.photo, faces.model, faces.found_by)


def _network_and_face(
    trained: TrainedRegressor | None, model: MorphableModel | None
) -> tuple[TrainedRegressor, MorphableModel]:
    """What was given, or what comes along; the two fit together."""
    if trained is None:
        from twodasl_lite.networks.trained import trained_regressor

        trained = trained_regressor()
    if model is None:
        from twodasl_lite.faces import load_face_model

        model = load_face_model(trained.layout).to(torch.float32)
    if "face_model" in trained.metadata:
        check_fingerprint(trained.metadata["face_model"], model)
    return trained, model


def _detect(detector: Detector, photo: np.ndarray, upright: bool) -> Detections:
    find = getattr(detector, "find", None)
    if find is not None:
        return find(photo, upright)
    boxes = check_tensor("the detector's boxes", detector(photo), ("N", 5))
    return Detections(boxes, torch.zeros(len(boxes), dtype=torch.int64))


def _checked_boxes(name: str, boxes: torch.Tensor, photo: np.ndarray) -> torch.Tensor:
    """Boxes ``(N, 4)`` that are of a sensible size: a huge one would fill the memory before it is refused."""
    boxes = check_tensor(name, boxes, ("...", 4), dtype=torch.float32)
    if boxes.ndim > 2:
        raise ShapeError(f"{name}: found shape {tuple(boxes.shape)}; expected (N, 4) or (4,)")
    height, width = photo.shape[:2]
    for box in boxes.reshape(-1, 4).tolist():
        left, top, right, bottom = box
        words = f"({', '.join(f'{value:g}' for value in box)})"
        if right <= left or bottom <= top:
            raise ValueRangeError(f"{name}: found {words}; expected left < right and top < bottom")
        if all(0 <= value <= 1 for value in box) and max(height, width) > 2:
            raise ValueRangeError(
                f"{name}: found {words}, which looks like parts of the photo's size; expected pixels of the "
                f"{width}x{height} photo"
            )
        side = max(right - left, bottom - top)
        if side > LARGEST_CROP * max(height, width):
            raise ValueRangeError(
                f"{name}: found {words}, {side:g} pixels a side; expected at most {LARGEST_CROP:g} times the longer "
                f"side of the {width}x{height} photo"
            )
        if right < 0 or bottom < 0 or left >= width or top >= height:
            raise ValueRangeError(f"{name}: found {words}; expected a box that overlaps the {width}x{height} photo")
    return boxes.reshape(-1, 4).cpu()


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


def _turns_of_landmarks(points: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Quarter turns ``(N,)`` that put faces with known eyes and mouth upright; 0 for others."""
    turns = torch.zeros(len(points), dtype=torch.int64)
    for k, (face, known) in enumerate(zip(points, seen, strict=True)):
        eyes, mouth = face[36:48][known[36:48]], face[48:68][known[48:68]]
        if len(eyes) and len(mouth):
            turns[k] = quarter_turns(eyes.mean(dim=0) - mouth.mean(dim=0))
    return turns


# ----------------------------------------------------------------------------------------------- photos that are turned
def _turned_points(points: torch.Tensor, turns: int, height: int, width: int) -> torch.Tensor:
    """Where points ``(..., 2)`` of a photo lie after ``np.rot90(photo, turns)``."""
    for _ in range(turns % 4):
        points = torch.stack([points[..., 1], width - 1 - points[..., 0]], dim=-1)
        height, width = width, height
    return points


def _turned_boxes(boxes: torch.Tensor, turns: int, height: int, width: int) -> torch.Tensor:
    corners = _turned_points(boxes.unflatten(-1, (2, 2)), turns, height, width)  # (..., 2, 2)
    return torch.cat([corners.amin(dim=-2), corners.amax(dim=-2)], dim=-1)


def _turned_poses(poses: torch.Tensor, turns: int, height: int, width: int) -> torch.Tensor:
    """Poses ``(N, 3, 4)`` in a photo's frame after ``np.rot90(photo, turns)``; exact, as x and y change places."""
    for _ in range(turns % 4):
        x, y, z = poses.unbind(dim=1)  # rows; x right and y up, from (1, 1) at the lower left pixel
        new_y = x
        new_x = -y
        new_x = torch.cat([new_x[..., :3], new_x[..., 3:] + height + 1], dim=-1)
        poses = torch.stack([new_x, new_y, z], dim=1)
        height, width = width, height
    return poses


def _look_upright(
    photo: np.ndarray,
    trained: TrainedRegressor,
    model: MorphableModel,
    crop_boxes: torch.Tensor,
    turns: torch.Tensor,
    points: torch.Tensor | None,
    seen: torch.Tensor | None,
    looks: int,
    recrops: int,
    mirror: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Raw coefficients ``(N, D)`` and the last crop boxes ``(N, 4)``, each face looked at with its chin down."""
    height, width = photo.shape[:2]
    answers = torch.zeros(len(crop_boxes), model.layout.size)
    boxes = crop_boxes.clone()
    for turn in turns.unique().tolist():
        chosen = (turns == turn).nonzero()[:, 0]
        upright = np.ascontiguousarray(np.rot90(photo, turn)) if turn else photo
        placed = _turned_boxes(crop_boxes[chosen], turn, height, width)
        marked = None if points is None else _turned_points(points[chosen], turn, height, width)
        known = None if seen is None else seen[chosen]
        coefficients, settled = _settle(upright, trained, model, placed, marked, known, looks, recrops)
        if mirror:
            coefficients = _look(upright, trained, model, settled, marked, known, looks, mirror=True)
        up_height, up_width = upright.shape[:2]
        face = Coefficients.unpack(coefficients, model.layout)
        answers[chosen] = face._replace(pose=_turned_poses(face.pose, 4 - turn, up_height, up_width)).pack()
        boxes[chosen] = _turned_boxes(settled, 4 - turn, up_height, up_width)
    return answers, boxes


def _settle(
    photo: np.ndarray,
    trained: TrainedRegressor,
    model: MorphableModel,
    crop_boxes: torch.Tensor,
    points: torch.Tensor | None,
    seen: torch.Tensor | None,
    looks: int,
    recrops: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients ``(N, D)`` and crop boxes ``(N, 4)``: cut again around the answer until the crop stays."""
    crop_boxes = crop_boxes.round()
    coefficients = _look(photo, trained, model, crop_boxes, points, seen, looks)
    moving = torch.ones(len(crop_boxes), dtype=torch.bool)
    for _ in range(recrops if points is None else 0):
        index = moving.nonzero()[:, 0]
        if not len(index):
            break
        old = crop_boxes[index]
        new = _cut_again(photo, decode_landmarks(coefficients[index], model, photo.shape[0]), old)
        moved = (new - old).abs().amax(dim=1) > STAYS * (old[:, 2] - old[:, 0])
        moving[index] = moved
        index, new = index[moved], new[moved]
        if len(index):
            crop_boxes[index] = new
            coefficients[index] = _look(photo, trained, model, new, None, None, looks)
    return coefficients, crop_boxes


def _look(
    photo: np.ndarray,
    trained: TrainedRegressor,
    model: MorphableModel,
    crop_boxes: torch.Tensor,
    points: torch.Tensor | None,
    seen: torch.Tensor | None,
    looks: int,
    mirror: bool = False,
) -> torch.Tensor:
    """Raw coefficients ``(N, D)`` in the photo's frame of the faces in crop boxes ``(N, 4)`` of whole pixels."""
    if not len(crop_boxes):
        return torch.zeros(0, model.layout.size)
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
        pose=trained.pose,
        looks=looks,
        mirror=mirror,
    )
    face = Coefficients.unpack(answer.coefficients.cpu(), model.layout)
    return face._replace(pose=crop_pose_to_image(face.pose, crop_boxes, photo.shape[0])).pack()


def _cut_again(photo: np.ndarray, landmarks: torch.Tensor, crop_boxes: torch.Tensor) -> torch.Tensor:
    """Crop boxes around landmarks ``(N, 68, 3)``; the old one where the new is tiny, huge or off the photo."""
    kept = []
    for points, old in zip(landmarks, crop_boxes, strict=True):
        new = landmarks_box(points) if bool(torch.isfinite(points).all()) else old
        off = new[2] < 0 or new[3] < 0 or new[0] >= photo.shape[1] or new[1] >= photo.shape[0]
        side = float(new[2] - new[0])
        kept.append(old if off or not MIN_FACE <= side <= LARGEST_CROP * max(photo.shape) else new)
    return torch.stack(kept)


def refine(
    face: Reconstruction, landmarks: torch.Tensor, visible: torch.Tensor | None, model: MorphableModel
) -> Reconstruction:
    """Fit a face to landmarks, with the network's answer in place of the average face.

    The prior of :func:`~twodasl_lite.faces.fitting.fit_landmarks` then pulls towards the person and the expression that
    the network saw, and the landmarks say what it missed: an open mouth, for instance.

    Args:
        face: The network's answer.
        landmarks: ``(68, 2)`` in pixels of the photo, NaN where missing.
        visible: ``(68,)`` which of them are to be used; all finite ones by default.
        model: The face model.

    Returns:
        The same face, closer to the landmarks.

    Raises:
        ValueRangeError: If fewer than 4 landmarks are known, or they are no face seen from the front.
    """
    from twodasl_lite.faces.fitting import fit_landmarks

    points, known = _checked_landmarks(landmarks, visible)
    _, shape, expression = face.unpack(model)
    with torch.no_grad():
        start = model.replace(mean=model.decode(shape[None], expression[None])[0], expression_kind="components")
    filled = torch.where(known[..., None], points, 0)
    fit = fit_landmarks(filled, start, weights=known.float(), height=face.height)
    pose, more_shape, more_expression = (part[0] for part in fit.coefficients)
    expression = expression + more_expression
    if model.expression_kind == "blendshapes":
        expression = expression.clamp(0, 1)
    packed = Coefficients(pose, shape + more_shape, expression).pack()
    return Reconstruction.of(packed, face.crop_box, face.height, face.width, model, face.confidence)


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    """Intersection over union of two boxes ``(4,)``, left, top, right, bottom inclusive."""
    low, high = torch.maximum(first[:2], second[:2]), torch.minimum(first[2:], second[2:])
    shared = (high - low + 1).clamp(min=0).prod()
    areas = [(box[2:] - box[:2] + 1).prod() for box in (first, second)]
    return float(shared / (areas[0] + areas[1] - shared))
