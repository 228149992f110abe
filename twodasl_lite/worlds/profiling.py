"""Face profiling: from a photo with a known face to photos of the same face turned further (Zhu et al. 2016).

Photographs of faces beyond 45 degrees are rare and hard to label. 300W-LP therefore synthesises them: the fitted face
gives each pixel of a photo a depth, the depth is extended to the surroundings, and the whole relief is turned. The
face's new coefficients are known exactly: the same shape and expression under a new pose. What the camera did not see
is filled by stretching what lies next to it, which is why faces are only turned further away.

The relief is one continuous sheet, so no holes can open in it:

1. *Depth*: on the face, the depth of the drawn mesh. Around it, the depth of the nearest edge of the face, smoothed,
   and receding with distance.
2. *Turn* about the yaw axis through the middle of the face. The turn fades away from the face and vanishes at the
   picture's edge (the published method fixes anchor points there).
3. *Draw* the sheet with a z-buffer, each pixel coloured by where in the photo it comes from.

Everything is in pixels of the whole photo. See chapter 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces.decode import decode
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose, matrix_to_euler, pixels_to_frame, split_pose
from twodasl_lite.geometry.coefficients import POSE_SHAPE, Coefficients
from twodasl_lite.geometry.photos import as_photo
from twodasl_lite.render import interpolate, linear_to_srgb, normal_image, rasterize, refine, srgb_to_linear

LARGEST_YAW = 90.0
"""Largest yaw that faces are turned to, in degrees."""
NEARLY_FRONTAL = 15.0
"""Largest yaw at which a face may still be turned to either side, in degrees."""

_MARGIN = 0.04  # how far around the face the full turn reaches, as a share of the face's size
_REACH = 1.5  # distance from there at which the turn has faded, as a share of the face's size
_SLOPE = 1.0  # how steeply the relief recedes around the face: by as much as one moves away
_DEEPEST = 0.8  # how far it recedes at most, as a share of the face's size
_SMOOTHING = 0.04  # width of the smoothing of the depth around the face, as a share of its size
_GRAZING = 0.2  # cosine to the camera below which the depth at the head's outline changes from pixel to pixel
_RIM = 0.03  # how wide that rim is at most, as a share of the face's size
_SOFTENING = 0.015  # width of the smoothing of the depth on both sides of the outline, as a share of the face's size
_PADDING = 0.6  # width by which the photo is extended on each side, as a share of the face's size
_RELIEF_PIXELS = 250_000  # largest number of pixels of the sheet; beyond, it gets coarser


class TurnedPhoto(NamedTuple):
    """A photo of a turned face.

    Attributes:
        photo: ``(H, W, 3)`` uint8 RGB, of the original's size.
        face: Pose ``(3, 4)`` to the frame of the whole photo, shape ``(Ks,)``, expression ``(Ke,)``; exact.
    """

    photo: np.ndarray
    face: Coefficients


def turn_pose(pose: torch.Tensor, yaw: float, centre: torch.Tensor) -> torch.Tensor:
    """The pose with another yaw; pitch, roll, scale and the position of one point stay the same.

    Args:
        pose: ``(3, 4)`` pose matrix.
        yaw: New yaw in degrees.
        centre: ``(3,)`` the point that stays in place, in the frame that the pose maps to.

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
        photo: ``(H, W, 3)`` the photo.
        face: The face in it: pose ``(3, 4)`` or ``(1, 3, 4)`` to the frame of the whole photo, such as
            :func:`~twodasl_lite.faces.fitting.fit_landmarks` finds with ``height`` set to the photo's. The pose is
            treated as a scaled rotation.
        model: The face model.
        yaws: Yaw in degrees of each wanted picture: farther from 0 than the face's own yaw, at most 90, and to the same
            side unless the face is nearly frontal (:data:`NEARLY_FRONTAL`).
        supersample: Subpixels per pixel and direction.

    Returns:
        A photo and its face for each yaw.

    Raises:
        ShapeError: If the face is not one face of the model.
        ValueRangeError: If the face lies outside the photo, or cannot be turned to one of the yaws.
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
        padding: Width P of the padding in pixels.
        places: ``(N, 3)`` vertices of the sheet, in pixels of the photo, with depth.
        weight: ``(N,)`` share of a turn that each vertex follows.
        triangles: ``(T, 3)`` triangles of the sheet.
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
            centre: ``(3,)`` centre of the rotation in pixels.
        """
        turn, centre = turn.to(self.places), centre.to(self.places)
        upright = turn.new_tensor([1.0, -1.0, 1.0])  # pixels have y down, rotations y up
        fully = ((self.places - centre) * upright) @ turn.T * upright + centre
        return torch.lerp(self.places, fully, self.weight[:, None])

    def drawn(self, vertices: torch.Tensor, height: int, width: int, supersample: int) -> np.ndarray:
        """A photo of the sheet, ``(H, W, 3)`` uint8.

        Args:
            vertices: ``(N, 3)`` vertices of the turned sheet.
            height: Height of the photo in pixels.
            width: Width of the photo in pixels.
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
    """Depth everywhere, and the share of a turn that each pixel follows, both ``(H, W)``.

    Args:
        depth: ``(H, W)`` depth of the face.
        covered: ``(H, W)`` whether each pixel shows the face.
        facing: ``(H, W)`` cosine of the angle between its normal and the direction to the camera.
        size: Size of the face in pixels.
    """
    # Without the rim, whose depth would make the turned outline ragged.
    face = covered & ~((facing < _GRAZING) & (_distance(covered) < _RIM * size))
    face = face if face.any() else covered
    distance, nearest = cv2.distanceTransformWithLabels(
        (~face).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(nearest.max() + 1, np.float32)
    of_label[nearest[face]] = depth[face]
    edge = of_label[nearest]  # depth of the face's nearest pixel
    smooth = cv2.GaussianBlur(edge, (0, 0), max(1.0, _SMOOTHING * size))
    # The smoothing sets in with distance, so that the relief is continuous at the face's edge.
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
