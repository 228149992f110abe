"""The weak-perspective camera: from a face in millimetres to a picture in pixels, and back.

The coordinate frames of this package:

* **model frame**: x to the viewer's right, y up, z towards the viewer (right-handed), in the model's unit.
* **crop frame**: what the 3x4 pose maps to, ``v = [f R | t] (S, 1)``: pixels of the crop, x right, **y up**, z towards
  the viewer; *1-based* (the centre of the lower left pixel is (1, 1)). Only the coefficients use it, because the
  published ones do. An *image frame* is the same for a whole image.
* **pixels**: used by everything else in this package: *0-based*, pixel centres at integers, x right, **y down**,
  z towards the viewer: ``x = v_x - 1``, ``y = height - v_y``.

Points are rows, ``(..., N, 3)``. Angles are radians, in the order pitch, yaw, roll. ``R = Rx(pitch) Ry(yaw) Rz(roll)``
with the signs of :func:`euler_to_matrix`; a positive yaw moves the nose to the left of the picture. Boxes are
``(left, top, right, bottom)``, the 0-based first and last pixel *inside* the box; they may reach beyond the image.

The conventions are those of the 300W-LP and AFLW2000-3D annotations (Zhu et al. 2016). See chapter 3.
"""

from __future__ import annotations

from typing import Literal

import torch

from twodasl_lite.base.checks import check_choice, check_tensor, values_are_trusted
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.geometry.coefficients import POSE_SHAPE

CROP_SIZE = 120
"""Width and height of the picture that the network sees, in pixels."""

Mapping = Literal["exact", "bench"]
MAPPINGS: tuple[Mapping, ...] = ("exact", "bench")

PoseForm = Literal["free", "completed", "similarity"]
POSE_FORMS: tuple[PoseForm, ...] = ("free", "completed", "similarity")
"""Interpretations of a network's 12 pose numbers, see :func:`constrain_pose`."""


# ---------------------------------------------------------------------------------------------------- rotations
def euler_to_matrix(angles: torch.Tensor, *, check: bool = True) -> torch.Tensor:
    """Rotation matrix from Euler angles, ``R = Rx(pitch) Ry(yaw) Rz(roll)``.

    With c and s the cosine and sine of each angle,
    ``Rx = [1 0 0; 0 c s; 0 -s c]``, ``Ry = [c 0 -s; 0 1 0; s 0 c]``, ``Rz = [c s 0; -s c 0; 0 0 1]``.

    Args:
        angles: Pitch, yaw, roll in radians, ``(..., 3)``.
        check: Whether to check for NaN and infinity; on a GPU, the check has to synchronise.

    Returns:
        ``(..., 3, 3)`` rotation matrices.

    Example:
        >>> euler_to_matrix(torch.zeros(3))
        tensor([[1., 0., 0.],
                [0., 1., 0.],
                [0., 0., 1.]])
    """
    angles = check_tensor("angles", angles, ("...", 3), finite=check)
    (cp, cy, cr), (sp, sy, sr) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [
        torch.stack([cy * cr, cy * sr, -sy], dim=-1),
        torch.stack([-cp * sr + sp * sy * cr, cp * cr + sp * sy * sr, sp * cy], dim=-1),
        torch.stack([sp * sr + cp * sy * cr, -sp * cr + cp * sy * sr, cp * cy], dim=-1),
    ]
    return torch.stack(rows, dim=-2)  # (..., 3, 3)


def nearest_rotation(matrix: torch.Tensor) -> torch.Tensor:
    """Rotation closest to the direction of a matrix's first two rows.

    The rows are normalised to unit length, rotated symmetrically until they are orthogonal, and completed by their
    cross product; the third row is not used (a weak-perspective picture does not determine its scale).

    Args:
        matrix: Matrix ``(..., 3, 3)`` or ``(..., 2, 3)``, for instance f R with noise.

    Returns:
        ``(..., 3, 3)`` rotations.

    Raises:
        ValueRangeError: If a row is zero or the two rows are parallel.
    """
    matrix = check_tensor("matrix", matrix, ("...", "rows", 3))
    first, second = matrix[..., 0, :], matrix[..., 1, :]
    tiny = torch.finfo(matrix.dtype).tiny
    a = first / first.norm(dim=-1, keepdim=True).clamp(min=tiny)
    b = second / second.norm(dim=-1, keepdim=True).clamp(min=tiny)
    # The sum and the difference of two unit vectors are orthogonal: the bisector frame, turned by 45 degrees.
    along, across = a + b, a - b
    lengths = torch.stack([along.norm(dim=-1), across.norm(dim=-1)])
    if not values_are_trusted() and (
        bool((lengths < 1e-4).any()) or bool((torch.stack([a, b]).norm(dim=-1) < 0.5).any())
    ):
        raise ValueRangeError(
            "matrix: found a first and a second row that are zero or parallel; expected two directions in space"
        )
    along, across = along / lengths[0, ..., None], across / lengths[1, ..., None]
    x_row = (along + across) / 2**0.5
    y_row = (along - across) / 2**0.5
    return torch.stack([x_row, y_row, torch.linalg.cross(x_row, y_row)], dim=-2)  # (..., 3, 3)


def matrix_to_euler(matrix: torch.Tensor) -> torch.Tensor:
    """Euler angles of a rotation, the inverse of :func:`euler_to_matrix`.

    Exact for yaws between -90 and 90 degrees. At the poles, where only pitch - roll (or pitch + roll) is determined,
    the pitch is set to zero; the returned angles still give the same matrix. Rows that are not quite orthonormal are
    orthonormalised first (:func:`nearest_rotation`).

    Args:
        matrix: A rotation or scaled rotation, possibly with noise, ``(..., 3, 3)``.

    Returns:
        ``(..., 3)`` pitch, yaw, roll in radians; yaw within ±pi/2, the others within ±pi.

    Raises:
        ValueRangeError: If the first two rows are zero or parallel.
    """
    matrix = check_tensor("matrix", matrix, ("...", 3, 3))
    rotation = nearest_rotation(matrix)
    cos_yaw = torch.hypot(rotation[..., 0, 0], rotation[..., 0, 1])
    # atan2 keeps full precision near the poles, where asin(-R[0, 2]) loses half the digits.
    yaw = torch.atan2(-rotation[..., 0, 2], cos_yaw)
    pole = cos_yaw < 8 * torch.finfo(matrix.dtype).eps
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    pitch = torch.atan2(torch.where(pole, zero, rotation[..., 1, 2]), torch.where(pole, one, rotation[..., 2, 2]))
    # Undo the pitch and read the roll off the rest: near the poles, where only their difference (or sum) is well
    # determined, the two angles then remain consistent.
    unpitched = pitch.cos()[..., None] * rotation[..., 1, :] - pitch.sin()[..., None] * rotation[..., 2, :]
    roll = torch.atan2(-unpitched[..., 0], unpitched[..., 1])
    return torch.stack([pitch, yaw, roll], dim=-1)


# ---------------------------------------------------------------------------------------------------- the camera
def make_pose(scale: torch.Tensor, rotation: torch.Tensor, translation: torch.Tensor) -> torch.Tensor:
    """Combine scale, rotation and translation into one matrix ``[f R | t]``.

    Args:
        scale: Pixels per model unit, ``(...)``.
        rotation: Rotation matrix, ``(..., 3, 3)``.
        translation: Translation in pixels of the crop frame, ``(..., 3)``.

    Returns:
        Pose matrix, ``(..., 3, 4)``.
    """
    rotation = check_tensor("rotation", rotation, ("...", 3, 3))
    translation = check_tensor("translation", translation, ("...", 3), dtype=rotation.dtype)
    scale = check_tensor("scale", scale, ("...",), dtype=rotation.dtype)
    scaled = scale[..., None, None] * rotation  # (..., 3, 3)
    translation = translation.expand(*scaled.shape[:-2], 3)
    return torch.cat([scaled, translation[..., None]], dim=-1)  # (..., 3, 4)


def split_pose(pose: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Split a pose into its parts, even if a network predicted it and it is not an exact scaled rotation.

    Args:
        pose: Pose matrix ``[f R | t]``, ``(..., 3, 4)``.

    Returns:
        Scale ``(...)`` (the mean length of the first two rows), rotation ``(..., 3, 3)`` and translation ``(..., 3)``.

    Raises:
        ValueRangeError: If the first two rows are zero or parallel.
    """
    pose = check_tensor("pose", pose, ("...", *POSE_SHAPE))
    linear, translation = pose[..., :3], pose[..., 3]
    scale = linear[..., :2, :].norm(dim=-1).mean(dim=-1)
    return scale, nearest_rotation(linear), translation


def constrain_pose(pose: torch.Tensor, form: PoseForm = "completed") -> torch.Tensor:
    """Turn the 12 pose numbers that a network predicted into a pose that a face can have.

    A picture determines the first two rows of f R but not the third, which only moves vertices in depth: losses on 2D
    landmarks give it no gradient, and losses in 3D change it freely. With r1, r2, r3 the rows of f R:

    * ``"free"``: all 12 numbers unchanged, as 3DDFA and the released 2DASL networks use them;
    * ``"completed"``: ``r3 = r1 x r2 / sqrt(|r1| |r2|)``; the projection stays exactly as predicted;
    * ``"similarity"``: r1 and r2 made orthogonal (r1 keeps its direction, Zhou et al. 2019) and scaled to their mean
      length, then completed: an exact scaled rotation.

    All three leave exact scaled rotations unchanged. Differentiable wherever the first two rows are not parallel.

    Args:
        pose: Predicted pose, ``(..., 3, 4)``.
        form: One of the three forms above.

    Returns:
        The pose ``(..., 3, 4)``; the translation is never changed.

    Raises:
        ValueRangeError: If the form is unknown.

    Example:
        >>> pose = torch.tensor([[2.0, 0.0, 0.0, 1.0], [0.0, 2.0, 0.0, 1.0], [9.0, 9.0, 9.0, 1.0]])
        >>> constrain_pose(pose)[2]
        tensor([0., 0., 2., 1.])
    """
    check_choice("form", form, POSE_FORMS)
    pose = check_tensor("pose", pose, ("...", *POSE_SHAPE), finite=False)
    if form == "free":
        return pose
    first, second = pose[..., 0, :3], pose[..., 1, :3]  # (..., 3)
    tiny = torch.finfo(pose.dtype).tiny
    lengths = [row.norm(dim=-1, keepdim=True).clamp(min=tiny) for row in (first, second)]
    if form == "similarity":
        direction = first / lengths[0]
        across = second - (second * direction).sum(dim=-1, keepdim=True) * direction
        across = across / across.norm(dim=-1, keepdim=True).clamp(min=tiny)
        scale = (lengths[0] + lengths[1]) / 2
        first, second = scale * direction, scale * across
        third = scale * torch.linalg.cross(direction, across)
    else:
        third = torch.linalg.cross(first, second) / (lengths[0].sqrt() * lengths[1].sqrt())
    return torch.cat([torch.stack([first, second, third], dim=-2), pose[..., 3:]], dim=-1)


def project(points: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Weak-perspective projection ``v = f R S + t`` (Tu et al. 2019, eq. 2); the depth is kept as third coordinate.

    Args:
        points: Points in the model frame, ``(..., N, 3)``.
        pose: Pose matrix ``[f R | t]``, ``(..., 3, 4)``.

    Returns:
        Points in the crop frame, ``(..., N, 3)``.
    """
    points = check_tensor("points", points, ("...", "N", 3), finite=False)
    pose = check_tensor("pose", pose, ("...", *POSE_SHAPE), finite=False, dtype=points.dtype)
    return points @ pose[..., :3].transpose(-1, -2) + pose[..., None, :, 3]


def frame_to_pixels(points: torch.Tensor, height: float = CROP_SIZE) -> torch.Tensor:
    """Convert the crop frame (1-based, y up) to pixels (0-based, y down).

    Args:
        points: Points ``(..., 2)`` or ``(..., 3)``; the depth is not changed.
        height: Height of the crop (or image) in pixels.

    Returns:
        Points of the same shape.

    Raises:
        ShapeError: If the points have neither two nor three coordinates.
    """
    points = check_tensor("points", points, ("...", (2, 3)), finite=False)
    x, y, *depth = points.unbind(-1)
    return torch.stack([x - 1, height - y, *depth], dim=-1)


def pixels_to_frame(points: torch.Tensor, height: float = CROP_SIZE) -> torch.Tensor:
    """Convert pixels (0-based, y down) to the crop frame (1-based, y up); the inverse of :func:`frame_to_pixels`."""
    points = check_tensor("points", points, ("...", (2, 3)), finite=False)
    x, y, *depth = points.unbind(-1)
    return torch.stack([x + 1, height - y, *depth], dim=-1)


# ------------------------------------------------------------------------------------------------ crops of images
def _box_mapping(
    box: torch.Tensor, mapping: Mapping, size: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale k and offset b, each ``(..., 2)``, of ``crop = k image + b``, both in 0-based pixels."""
    box = check_tensor("box", box, ("...", 4), dtype=dtype)
    check_choice("mapping", mapping, MAPPINGS)
    first, last = box[..., :2], box[..., 2:]
    extent = last - first + (1 if mapping == "exact" else 0)
    if bool((extent <= 0).any()):
        raise ValueRangeError(f"box: found {box.tolist()}; expected left < right and top < bottom")
    k = size / extent
    offset = k * (0.5 - first) - 0.5 if mapping == "exact" else -k * first - 1
    return k, offset


def image_to_crop(
    points: torch.Tensor, box: torch.Tensor, mapping: Mapping = "exact", size: int = CROP_SIZE
) -> torch.Tensor:
    """Convert image pixels to pixels of a crop that was resized to ``size`` x ``size``.

    Args:
        points: Points ``(..., N, 2)`` or ``(..., N, 3)``, 0-based, y down; a depth is scaled by the mean of both axes.
        box: Left, top, right, bottom, ``(..., 4)``, 0-based and inclusive; not clamped to the image.
        mapping: ``"exact"``: where the image content really lands (pixel edges on pixel edges). ``"bench"``: what the
            published benchmark scripts compute, up to half a crop pixel plus half an image pixel away; use it only to
            compare with papers.
        size: Side of the crop in pixels.

    Returns:
        Points of the same shape.
    """
    points = check_tensor("points", points, ("...", "N", (2, 3)), finite=False)
    k, offset = _box_mapping(box, mapping, size, points.dtype)
    plane = points[..., :2] * k[..., None, :] + offset[..., None, :]
    return torch.cat([plane, points[..., 2:] * k.mean(dim=-1)[..., None, None]], dim=-1)


def crop_to_image(
    points: torch.Tensor, box: torch.Tensor, mapping: Mapping = "exact", size: int = CROP_SIZE
) -> torch.Tensor:
    """Convert crop pixels to image pixels; the inverse of :func:`image_to_crop`."""
    points = check_tensor("points", points, ("...", "N", (2, 3)), finite=False)
    k, offset = _box_mapping(box, mapping, size, points.dtype)
    plane = (points[..., :2] - offset[..., None, :]) / k[..., None, :]
    return torch.cat([plane, points[..., 2:] / k.mean(dim=-1)[..., None, None]], dim=-1)


def _frame_transform(
    box: torch.Tensor, image_height: float, mapping: Mapping, size: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Diagonal D and offset a, each ``(..., 3)``, of ``crop frame = D image frame + a`` (both 1-based, y up)."""
    k, offset = _box_mapping(box, mapping, size, dtype)
    diagonal = torch.cat([k, k.mean(dim=-1, keepdim=True)], dim=-1)
    # x: v - 1 = k (P - 1) + b;   y: size - v = k (H - P) + b
    shift_x = 1 - k[..., 0] + offset[..., 0]
    shift_y = size - k[..., 1] * image_height - offset[..., 1]
    return diagonal, torch.stack([shift_x, shift_y, torch.zeros_like(shift_x)], dim=-1)


def image_pose_to_crop(
    pose: torch.Tensor,
    box: torch.Tensor,
    image_height: float,
    mapping: Mapping = "exact",
    size: int = CROP_SIZE,
) -> torch.Tensor:
    """Convert a pose in the image frame to the crop frame: ``[D f R | D t + a]``.

    Args:
        pose: Pose that maps to the image frame (1-based, y up), ``(..., 3, 4)``.
        box: Left, top, right, bottom, ``(..., 4)``, 0-based and inclusive.
        image_height: Height of the image in pixels.
        mapping: ``"exact"`` or ``"bench"``, see :func:`image_to_crop`.
        size: Side of the crop in pixels.

    Returns:
        Pose that maps to the crop frame, ``(..., 3, 4)``. A box that is not square gives rows of different length.
    """
    pose = check_tensor("pose", pose, ("...", *POSE_SHAPE))
    diagonal, shift = _frame_transform(box, image_height, mapping, size, pose.dtype)
    linear = diagonal[..., None] * pose[..., :3]
    translation = diagonal * pose[..., 3] + shift
    return torch.cat([linear, translation[..., None]], dim=-1)


def crop_pose_to_image(
    pose: torch.Tensor,
    box: torch.Tensor,
    image_height: float,
    mapping: Mapping = "exact",
    size: int = CROP_SIZE,
) -> torch.Tensor:
    """Convert a pose in the crop frame to the image frame; the inverse of :func:`image_pose_to_crop`."""
    pose = check_tensor("pose", pose, ("...", *POSE_SHAPE))
    diagonal, shift = _frame_transform(box, image_height, mapping, size, pose.dtype)
    linear = pose[..., :3] / diagonal[..., None]
    translation = (pose[..., 3] - shift) / diagonal
    return torch.cat([linear, translation[..., None]], dim=-1)


def annotation_to_pose(
    pose_parameters: torch.Tensor,
    box: torch.Tensor,
    image_height: float,
    mapping: Mapping = "exact",
    size: int = CROP_SIZE,
) -> torch.Tensor:
    """Convert a ``Pose_Para`` of 300W-LP or AFLW2000-3D to the 3x4 pose that a network learns.

    Args:
        pose_parameters: Pitch, yaw, roll in radians, translation x, y, z, scale f, ``(..., 7)``.
        box: Crop box, ``(..., 4)``, 0-based and inclusive (the annotation files count from 1: subtract 1), *not*
            clamped to the image.
        image_height: Height of the image in pixels (450 for both datasets).
        mapping: ``"exact"`` or ``"bench"``, see :func:`image_to_crop`.
        size: Side of the crop in pixels.

    Returns:
        Pose that maps to the crop frame, ``(..., 3, 4)``.
    """
    pose_parameters = check_tensor("pose_parameters", pose_parameters, ("...", 7))
    rotation = euler_to_matrix(pose_parameters[..., :3])
    image_pose = make_pose(pose_parameters[..., 6], rotation, pose_parameters[..., 3:6])
    return image_pose_to_crop(image_pose, box, image_height, mapping, size)
