"""Face profiling: from a photo with a known face to photos of the same face turned further (Zhu et al. 2016).

Photographs of faces beyond 45 degrees are rare and hard to label. So 300W-LP makes them: the fitted face gives each
pixel of a photo a depth, what is around the face gets one by extension, and the whole relief is turned. The face's new
coefficients are known exactly: the same shape and expression under a new pose. What the camera did not see cannot be
shown; it is stretched from what is next to it, which is why faces are only turned further away.

The relief is one continuous sheet, so no hole can open in it:

1. *Depth*: on the face, that of the drawn mesh. Around it, that of the nearest edge of the face, smoothed, and falling
   back with the distance.
2. *Turn* about the axis through the face's middle that belongs to the angle yaw. Away from the face the turn fades, to
   nothing at the picture's edge (the published method fixes anchor points there).
3. *Draw* the sheet with a z-buffer, each pixel coloured by where in the photo it comes from.

Everything is in pixels of the whole photo. Explained in the chapter "Two worlds".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.camera import euler_to_matrix, make_pose, matrix_to_euler, pixels_to_frame, split_pose
from twodasl_lite.coefficients import POSE_SHAPE, Coefficients
from twodasl_lite.decode import decode
from twodasl_lite.errors import ShapeError, ValueRangeError, check_tensor
from twodasl_lite.images import as_photo
from twodasl_lite.morphable.model import MorphableModel
from twodasl_lite.render import interpolate, linear_to_srgb, normal_image, rasterize, refine, srgb_to_linear

LARGEST_YAW = 90.0
"""Degrees; as far as faces are turned."""
NEARLY_FRONTAL = 15.0
"""Degrees of yaw up to which a face may be turned to either side."""

_MARGIN = 0.04  # how far around the face the full turn reaches, over the face's size
_REACH = 1.5  # how far from there the turn has faded, likewise
_SLOPE = 1.0  # how steeply the relief falls back around the face: as much as one moves away
_DEEPEST = 0.8  # and how deep at most, over the face's size
_SMOOTHING = 0.04  # width of the smoothing of the depth around the face, over its size
_GRAZING = 0.2  # at the head's outline, what faces the camera less than this has a depth that changes by the pixel
_RIM = 0.03  # how wide that is at most, over the face's size
_SOFTENING = 0.015  # width of the smoothing of the depth on both sides of the outline, over the face's size
_PADDING = 0.6  # the photo is continued by this much at each side, over the face's size
_RELIEF_PIXELS = 250_000  # of the sheet at most; coarser beyond


class TurnedPhoto(NamedTuple):
    """A photo of a turned face.

    Attributes:
        photo: ``(H, W, 3)`` uint8 RGB, of the original's size.
        face: Pose ``(3, 4)`` to the frame of the whole photo, shape ``(Ks,)``, expression ``(Ke,)``; exact.
    """

    photo: np.ndarray
    face: Coefficients


def turn_pose(pose: torch.Tensor, yaw: float, centre: torch.Tensor) -> torch.Tensor:
    """The pose with another yaw; pitch, roll, scale, and the place of one point stay.

    Args:
        pose: ``(3, 4)``.
        yaw: Degrees.
        centre: ``(3,)`` the point that stays, in the frame that the pose maps to.

    Returns:
        ``(3, 4)``.
    """
    pose = check_tensor("pose", pose, POSE_SHAPE)
    centre = check_tensor("centre", centre, (3,), dtype=pose.dtype)
    scale, rotation, translation = split_pose(pose)
    angles = matrix_to_euler(rotation)
    new = euler_to_matrix(torch.stack([angles[0], angles.new_tensor(np.radians(yaw)), angles[2]]))
    turn = new @ rotation.T
    return make_pose(scale, new, turn @ (translation - centre) + centre)


def turn_face(
    photo: np.ndarray,
    face: Coefficients,
    model: MorphableModel,
    yaws: Sequence[float],
    *,
    supersample: int = 2,
) -> list[TurnedPhoto]:
    """Turn the face in a photo further away.

    Args:
        photo: ``(H, W, 3)``.
        face: The face in it: pose ``(3, 4)`` or ``(1, 3, 4)`` to the frame of the whole photo, such as
            :func:`~twodasl_lite.fitting.fit_landmarks` finds with ``height`` the photo's. The pose is taken as a scaled
            rotation.
        model: The face model.
        yaws: Degrees, one for each picture wanted: farther from 0 than the face's own yaw, at most 90, and to the same
            side unless the face is nearly frontal (:data:`NEARLY_FRONTAL`).
        supersample: Subpixels per pixel and direction.

    Returns:
        A photo and its face for each yaw.

    Raises:
        ShapeError: If the face is not one face of the model.
        ValueRangeError: If the face lies outside the photo, or it cannot be turned to one of the yaws.
    """
    photo = as_photo(photo, "photo")
    height, width = photo.shape[:2]
    face = _one_face(face, model)
    own = float(torch.rad2deg(matrix_to_euler(face.pose[:, :3])[1]))
    for yaw in yaws:
        _check_yaw(float(yaw), own)
    scale, rotation, translation = split_pose(face.pose)
    face = face._replace(pose=make_pose(scale, rotation, translation))
    vertices = decode(Coefficients(*(part[None] for part in face)), model, height)[0]  # (V, 3)
    low, high = vertices.amin(dim=0), vertices.amax(dim=0)
    size = float((high - low)[:2].prod().sqrt())
    if not (high[0] > 0 and low[0] < width - 1 and high[1] > 0 and low[1] < height - 1):
        raise ValueRangeError(
            f"face: found it at x {float(low[0]):.0f} to {float(high[0]):.0f}, y {float(low[1]):.0f} to "
            f"{float(high[1]):.0f}; expected a place in the photo of {width}x{height} pixels"
        )
    relief = _Relief.around(photo, vertices, model.triangles, size)
    centre = vertices.mean(dim=0)
    in_frame = pixels_to_frame(centre, height)
    turned = []
    for yaw in yaws:
        pose = turn_pose(face.pose, float(yaw), in_frame)
        turn = split_pose(pose)[1] @ rotation.T
        picture = relief.drawn(relief.moved(turn, centre), height, width, supersample)
        turned.append(TurnedPhoto(picture, face._replace(pose=pose)))
    return turned


def _one_face(face: Coefficients, model: MorphableModel) -> Coefficients:
    parts = []
    for name, part, shape in (
        ("pose", face.pose, POSE_SHAPE),
        ("shape", face.shape, (model.num_shape,)),
        ("expression", face.expression, (model.num_expression,)),
    ):
        part = part[0] if part.ndim == len(shape) + 1 and len(part) == 1 else part
        if tuple(part.shape) != shape:
            raise ShapeError(f"face: found {name} of shape {tuple(part.shape)}; expected one face, {shape}")
        parts.append(check_tensor(name, part, shape).to(model.mean))
    return Coefficients(*parts)


def _check_yaw(yaw: float, own: float) -> None:
    away = yaw * own >= 0 or abs(own) <= NEARLY_FRONTAL
    if not (abs(own) <= abs(yaw) <= LARGEST_YAW and away):
        side = "either side" if abs(own) <= NEARLY_FRONTAL else "the same side"
        raise ValueRangeError(
            f"yaws: found {yaw:g} for a face that is turned by {own:.1f} degrees; "
            f"expected {abs(own):.1f} to {LARGEST_YAW:g} to {side} (what a photo does not show cannot be turned to)"
        )


class _Relief(NamedTuple):
    """A photo as a continuous sheet in space.

    Attributes:
        photo: ``(1, 3, H + 2 P, W + 2 P)`` linear light, continued beyond its edges.
        padding: P.
        places: ``(N, 3)`` vertices of the sheet, in pixels of the photo, with depth.
        weight: ``(N,)`` how much of a turn each takes part in.
        triangles: ``(T, 3)``.
    """

    photo: torch.Tensor
    padding: int
    places: torch.Tensor
    weight: torch.Tensor
    triangles: torch.Tensor

    @classmethod
    def around(cls, photo: np.ndarray, vertices: torch.Tensor, triangles: torch.Tensor, size: float) -> _Relief:
        """The sheet of a photo with a face of the given vertices and size, both in pixels."""
        padding = max(2, round(_PADDING * size))
        padded = cv2.copyMakeBorder(photo, padding, padding, padding, padding, cv2.BORDER_REPLICATE)
        height, width = padded.shape[:2]
        placed = vertices + vertices.new_tensor([padding, padding, 0])
        fragments = rasterize(placed[None].float(), triangles, height, width)
        facing = normal_image(placed[None].float(), triangles, fragments)[0, ..., 2].cpu().numpy()
        depth, weight = _extended(fragments.depth[0].cpu().numpy(), fragments.covered[0].cpu().numpy(), facing, size)

        step = max(1, int(np.ceil((height * width / _RELIEF_PIXELS) ** 0.5)))
        rows, columns = _ticks(height, step), _ticks(width, step)
        y, x = np.meshgrid(rows, columns, indexing="ij")
        places = np.stack([x - padding, y - padding, depth[y, x]], axis=-1).reshape(-1, 3)
        like = vertices.float()
        linear = srgb_to_linear(torch.from_numpy(padded).to(like.device).float() / 255)
        return cls(
            linear.permute(2, 0, 1)[None],
            padding,
            torch.from_numpy(places).to(like),
            torch.from_numpy(weight[y, x].reshape(-1)).to(like),
            _grid_triangles(len(rows), len(columns)).to(like.device),
        )

    def moved(self, turn: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        """The vertices of the turned sheet, ``(N, 3)``.

        Args:
            turn: ``(3, 3)`` rotation in the upright frame.
            centre: ``(3,)`` about which, in pixels.
        """
        turn, centre = turn.to(self.places), centre.to(self.places)
        upright = turn.new_tensor([1.0, -1.0, 1.0])  # pixels have y down, rotations y up
        fully = ((self.places - centre) * upright) @ turn.T * upright + centre
        return torch.lerp(self.places, fully, self.weight[:, None])

    def drawn(self, vertices: torch.Tensor, height: int, width: int, supersample: int) -> np.ndarray:
        """A photo of the sheet, ``(H, W, 3)`` uint8.

        Args:
            vertices: ``(N, 3)`` where it has moved.
            height: Of the photo.
            width: Likewise.
            supersample: Subpixels per pixel and direction.
        """
        fine = refine(vertices[None], supersample)
        fragments = rasterize(fine, self.triangles, height * supersample, width * supersample)
        source = interpolate(self.places[None, :, :2].contiguous(), self.triangles, fragments)[0]  # (fH, fW, 2)
        extent = source.new_tensor([self.photo.shape[3], self.photo.shape[2]])
        grid = (2 * (source + self.padding) + 1) / extent - 1
        colours = torch.nn.functional.grid_sample(
            self.photo, grid[None], mode="bilinear", padding_mode="border", align_corners=False
        )
        colours = torch.nn.functional.avg_pool2d(colours, supersample)[0]
        return (255 * linear_to_srgb(colours).clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()


def _distance(inside: np.ndarray) -> np.ndarray:
    """Distance of each pixel from the nearest one that is not inside, ``(H, W)``."""
    return cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _extended(depth: np.ndarray, covered: np.ndarray, facing: np.ndarray, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth everywhere, and how much of a turn each pixel takes part in, both ``(H, W)``.

    Args:
        depth: ``(H, W)`` of the face.
        covered: ``(H, W)`` where it is.
        facing: ``(H, W)`` cosine of the angle between its normal and the direction to the camera.
        size: Of the face in pixels.
    """
    # Without the rim, whose depth would make the turned outline ragged.
    face = covered & ~((facing < _GRAZING) & (_distance(covered) < _RIM * size))
    face = face if face.any() else covered
    distance, nearest = cv2.distanceTransformWithLabels(
        (~face).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(nearest.max() + 1, np.float32)
    of_label[nearest[face]] = depth[face]
    edge = of_label[nearest]  # depth of the face's pixel that is nearest
    smooth = cv2.GaussianBlur(edge, (0, 0), max(1.0, _SMOOTHING * size))
    # Smooth only with the distance, so that the relief is continuous at the face's edge.
    share = np.clip(distance / (2 * _SMOOTHING * size), 0, 1)
    back = np.minimum(_SLOPE * distance, _DEEPEST * size)
    extended = np.where(face, depth, (1 - share) * edge + share * smooth - back)
    soft = max(1.0, _SOFTENING * size)
    near = np.clip(1 - (distance + _distance(face)) / (3 * soft), 0, 1)  # one of the two is zero
    extended = (1 - near) * extended + near * cv2.GaussianBlur(extended, (0, 0), soft)

    height, width = covered.shape
    y, x = np.mgrid[:height, :width]
    to_edge = np.minimum(np.minimum(x, width - 1 - x), np.minimum(y, height - 1 - y)).astype(np.float32)
    beyond = np.maximum(distance - _MARGIN * size, 0)
    weight = np.where(beyond > 0, to_edge / np.maximum(to_edge + beyond, 1e-6), 1.0)
    weight = np.minimum(weight, np.maximum(1 - beyond / (_REACH * size), 0))
    weight = weight * weight * (3 - 2 * weight)
    return extended.astype(np.float32), weight.astype(np.float32)


def _ticks(length: int, step: int) -> np.ndarray:
    """Every ``step``-th pixel, and the last one."""
    ticks = np.arange(0, length, step)
    return ticks if ticks[-1] == length - 1 else np.append(ticks, length - 1)


def _grid_triangles(rows: int, columns: int) -> torch.Tensor:
    """``(T, 3)`` two triangles for each cell of a grid."""
    index = torch.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    return torch.cat([torch.stack(corners, dim=-1).reshape(-1, 3) for corners in ((a, c, b), (b, c, d))])
