"""Annotations of 300W-LP and AFLW2000-3D: reading a ``.mat`` file and converting it to coefficients.

A file holds ``Pose_Para`` (pitch, yaw, roll in radians, t_x, t_y, t_z, f), ``Shape_Para`` (199) and ``Exp_Para`` (29)
of the Basel Face Model in micrometres, which place the face in the frame of the whole image
(:mod:`twodasl_lite.geometry.camera`: 1-based, y up); AFLW2000-3D adds 68 landmarks, ``pt3d_68``. With all coefficients,
the parameters reproduce these landmarks to 1e-5 %; with 40 + 10 they are 0.9 % off. The raw files hold surprises:
angles of up to ±17 rad, and 34 files whose expressions are stored as ``uint8``. (Their ``roi`` is the position of the
picture in the photo that it was cut from, not a crop box.)
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import convert_pose
from twodasl_lite.faces.readers.arrays import read_mat
from twodasl_lite.geometry.camera import CROP_SIZE, Mapping, annotation_to_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

MAX_BYTES = 2**24
"""Size in bytes of the largest annotation file that is read; real ones have 2 to 8 kB."""

_POSE, _SHAPE, _EXPRESSION, _LANDMARKS = "Pose_Para", "Shape_Para", "Exp_Para", "pt3d_68"
_NUM_POSE = 7
_FIRST_PIXEL = 1.0  # the files count pixels from 1, as MATLAB does
_MIN_RAW_DEVIATION = 10.0  # standard deviations: 1e3 to 1e6 for raw Basel shape coefficients, 1 for standardised ones


class FaceAnnotation(NamedTuple):
    """Contents of one annotation file, in float64.

    Attributes:
        name: The file's name without its suffix; sets are joined by it.
        pose: ``(7,)`` pitch, yaw and roll in radians, each within ±pi; t_x, t_y, t_z and f for a face in micrometres.
        shape: ``(199,)`` raw coefficients.
        expression: ``(29,)`` raw coefficients.
        landmarks: ``(68, 3)`` in 0-based pixels of the image, with depth; ``None`` where the file has none.
        yaw: Yaw in degrees, as written in the file, because benchmarks bin faces by it. It is not wrapped, so it is
            beyond ±90 in 7 of AFLW2000-3D's 2,000 files; one of them is a nearly frontal face.
    """

    name: str
    pose: torch.Tensor
    shape: torch.Tensor
    expression: torch.Tensor
    landmarks: torch.Tensor | None
    yaw: float

    def coefficients(
        self,
        box: torch.Tensor,
        image_height: float,
        *,
        mapping: Mapping = "exact",
        layout: CoefficientLayout | None = None,
        units: str = "mm",
    ) -> Coefficients:
        """The target for a crop, see :func:`annotation_to_coefficients`."""
        return annotation_to_coefficients(
            self.pose, self.shape, self.expression, box, image_height, mapping=mapping, layout=layout, units=units
        )


def wrap_angles(angles: torch.Tensor) -> torch.Tensor:
    """The same angles within ±pi.

    Example:
        >>> wrap_angles(torch.tensor([0.5, 2 * math.pi + 0.5]))
        tensor([0.5000, 0.5000])
    """
    angles = check_tensor("angles", angles, ("...",))
    return torch.where(angles.abs() <= math.pi, angles, torch.atan2(angles.sin(), angles.cos()))


def read_annotation(path: str | os.PathLike[str]) -> FaceAnnotation:
    """Read one ``.mat`` file of 300W-LP or AFLW2000-3D.

    Args:
        path: The file.

    Raises:
        FileFormatError: If it is missing, damaged, lacks a variable, or a variable holds something else.
        MissingDependencyError: If scipy is not installed.
    """
    path = Path(path)
    expected = f"an annotation with {_POSE}, {_SHAPE} and {_EXPRESSION}"
    if path.is_file() and path.stat().st_size > MAX_BYTES:
        raise FileFormatError(path, f"{path.stat().st_size} bytes", f"{expected}, at most {MAX_BYTES} bytes")
    content = read_mat(path, [_POSE, _SHAPE, _EXPRESSION], [_LANDMARKS])
    arrays = {name: _numbers(path, name, value) for name, value in content.items()}
    pose = arrays[_POSE].reshape(-1)
    if pose.size != _NUM_POSE:
        raise FileFormatError(
            path, f"{_POSE} with {pose.size} numbers", f"{_NUM_POSE}: three angles, translation, scale"
        )
    if pose[6] == 0:  # negative in one of the 2,000 files: half a turn, mirrored
        raise FileFormatError(path, f"a scale of {pose[6]:g} in {_POSE}", "a scale other than zero")
    landmarks = None
    if _LANDMARKS in arrays:
        points = arrays[_LANDMARKS]
        if points.shape != (3, NUM_LANDMARKS):
            raise FileFormatError(path, f"{_LANDMARKS} of shape {points.shape}", f"(3, {NUM_LANDMARKS})")
        landmarks = torch.from_numpy(np.ascontiguousarray(points.T) - [_FIRST_PIXEL, _FIRST_PIXEL, 0.0])
    angles = wrap_angles(torch.from_numpy(pose[:3]))
    return FaceAnnotation(
        path.stem,
        torch.cat([angles, torch.from_numpy(pose[3:])]),
        torch.from_numpy(arrays[_SHAPE].reshape(-1)),
        torch.from_numpy(arrays[_EXPRESSION].reshape(-1)),
        landmarks,
        math.degrees(pose[1]),
    )


def _numbers(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    """A variable as finite float64 numbers, whatever type it was saved in."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "uif":
        raise FileFormatError(path, f"{name} of type {getattr(value, 'dtype', type(value).__name__)}", "numbers")
    value = value.astype(np.float64)
    if not np.isfinite(value).all():
        bad = int((~np.isfinite(value)).sum())
        raise FileFormatError(path, f"{bad} of {value.size} values of {name} NaN or infinite", "finite numbers")
    return value


def annotation_to_coefficients(
    pose: torch.Tensor,
    shape: torch.Tensor,
    expression: torch.Tensor,
    box: torch.Tensor,
    image_height: float,
    *,
    mapping: Mapping = "exact",
    layout: CoefficientLayout | None = None,
    units: str = "mm",
    size: int = CROP_SIZE,
) -> Coefficients:
    """The regressor's target for a crop: ``[D f R | D t + a]``, and the first shape and expression coefficients.

    Args:
        pose: ``(..., 7)`` as ``Pose_Para``.
        shape: ``(..., 199)`` as ``Shape_Para``, or any other number that is at least the layout's.
        expression: ``(..., 29)`` as ``Exp_Para``, or any other number that is at least the layout's.
        box: ``(..., 4)`` crop box, 0-based and inclusive, :func:`~twodasl_lite.geometry.photos.landmarks_box` of the
            landmarks; for ``"exact"`` not clamped to the image.
        image_height: Height of the image in pixels; 450 for both sets.
        mapping: ``"exact"`` or ``"bench"``, see :func:`~twodasl_lite.geometry.camera.image_to_crop`.
        layout: Numbers of coefficients; 40 + 10 by default.
        units: Unit of length of the face model that decodes them; ``"um"`` gives 3DDFA's numbers.
        size: Side of the crop in pixels.

    Returns:
        Coefficients, in double precision if the annotation is.

    Raises:
        ShapeError: If there are fewer coefficients than the layout has.
        ValueRangeError: If the box is empty or the mapping unknown.
    """
    layout = layout or CoefficientLayout()
    shape = check_tensor("shape", shape, ("...", "Ks"))
    expression = check_tensor("expression", expression, ("...", "Ke"))
    for name, values, wanted in (
        ("shape", shape, layout.num_shape),
        ("expression", expression, layout.num_expression),
    ):
        if values.shape[-1] < wanted:
            raise ShapeError(f"{name}: found {values.shape[-1]} coefficients; expected {wanted} or more")
    matrix = annotation_to_pose(pose, box, image_height, mapping, size)
    native = Coefficients(matrix, shape[..., : layout.num_shape], expression[..., : layout.num_expression])
    return convert_pose(native, units)


def clamp_box(box: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """A crop box clamped to the image, as in the benchmark's published file of boxes.

    The crops themselves were padded instead, so mapping a point back through such a box is wrong. This is a known
    mistake of the published scripts, needed only with ``mapping="bench"`` to compare with papers.

    Args:
        box: ``(..., 4)`` left, top, right, bottom, 0-based and inclusive.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    box = check_tensor("box", box, ("...", 4))
    last = box.new_tensor([width - 1, height - 1, width - 1, height - 1])
    return torch.minimum(box.clamp(min=0), last)


def check_raw_basel(model: MorphableModel, num_shape: int = 199, num_expression: int = 29) -> None:
    """Refuse a face model that cannot decode annotations.

    Args:
        model: A face model.
        num_shape: Number of shape coefficients in the annotations.
        num_expression: Number of expression coefficients in the annotations.

    Raises:
        ValueRangeError: If the model has more coefficients than that, or its coefficients are not raw.
    """
    expected = "the Basel Face Model with raw coefficients, as read from 3DDFA's files or from Model_Shape.mat"
    if model.num_shape > num_shape or model.num_expression > num_expression:
        found = f"{model.num_shape} shape and {model.num_expression} expression coefficients"
        raise ValueRangeError(f"model: found {model.name!r} with {found}; expected {expected}")
    if model.num_shape and float(model.shape_std.median()) < _MIN_RAW_DEVIATION:
        raise ValueRangeError(
            f"model: found {model.name!r}, whose shape coefficients have a standard deviation of "
            f"{float(model.shape_std.median()):g}; expected {expected}"
        )
