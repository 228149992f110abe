"""Decoding: from 62 coefficients to vertices and landmarks in pixels. All code of the package decodes with it.

::

    S = mean + A shape + E expression          model frame (Tu et al. 2019, eq. 1)
    v = [f R | t] (S, 1)                       crop frame (eq. 2)
    x = v_x - 1, y = height - v_y, z = v_z     pixels

The coefficients are raw, never whitened. See chapter 3.
"""

from __future__ import annotations

import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import InputTypeError
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import CROP_SIZE, PoseForm, constrain_pose, frame_to_pixels, project
from twodasl_lite.geometry.coefficients import POSE_SHAPE, POSE_SIZE, Coefficients


def _unpacked(coefficients: Coefficients | torch.Tensor, model: MorphableModel) -> Coefficients:
    """Unpack packed vectors, or accept :class:`Coefficients`, and check them against the model's sizes."""
    if isinstance(coefficients, Coefficients):
        coefficients = coefficients.pack()
    elif not isinstance(coefficients, torch.Tensor):
        raise InputTypeError(f"coefficients: found {type(coefficients).__name__}; expected Coefficients or a tensor")
    check_tensor("coefficients", coefficients, ("...", model.layout.size), finite=False)
    return Coefficients.unpack(coefficients, model.layout)


def decode(coefficients: Coefficients | torch.Tensor, model: MorphableModel, height: float = CROP_SIZE) -> torch.Tensor:
    """Decode all vertices to pixels.

    Args:
        coefficients: :class:`Coefficients`, or packed raw vectors ``(..., 12 + Ks + Ke)``.
        model: The face model.
        height: Height in pixels of the crop (or image) that the pose refers to.

    Returns:
        Vertices ``(..., V, 3)`` in 0-based pixels: x right, y down, z towards the viewer.

    Raises:
        ShapeError: If the number of coefficients is not the model's.
    """
    pose, shape, expression = _unpacked(coefficients, model)
    return frame_to_pixels(project(model.decode(shape, expression), pose), height)


def decode_landmarks(
    coefficients: Coefficients | torch.Tensor, model: MorphableModel, height: float = CROP_SIZE
) -> torch.Tensor:
    """Decode only the 68 landmarks to pixels, ``(..., 68, 3)``. Arguments as for :func:`decode`."""
    pose, shape, expression = _unpacked(coefficients, model)
    return frame_to_pixels(project(model.decode_landmarks(shape, expression), pose), height)


def constrain(coefficients: torch.Tensor, form: PoseForm = "completed") -> torch.Tensor:
    """Raw coefficients ``(..., D)`` whose pose is constrained to ``form``; applied to predictions before decoding.

    Args:
        coefficients: Predicted coefficients, un-whitened, ``(..., D)``.
        form: Form of the pose, see :func:`~twodasl_lite.geometry.camera.constrain_pose`.
    """
    if form == "free":
        return coefficients
    pose = constrain_pose(coefficients[..., :POSE_SIZE].unflatten(-1, POSE_SHAPE), form)
    return torch.cat([pose.flatten(-2), coefficients[..., POSE_SIZE:]], dim=-1)
