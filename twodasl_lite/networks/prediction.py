"""Inference: from pictures to faces with a network, with or without a detector's landmarks.

::

    c1 = G(I, M(x))            if a detector found landmarks x (Tu et al. 2019, section 3.2)
    c0 = G(I, M()),            if it did not: first an empty map,
    c1 = G(I, M(P(D(c0))))     then a map of the landmarks predicted in the first pass

The second form is this project's; it needs a network trained with empty maps (``map_dropout``). See chapter 14.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import constrain, decode_landmarks
from twodasl_lite.faces.fingerprint import check_fingerprint
from twodasl_lite.faces.symmetry import mirror_coefficients
from twodasl_lite.geometry.camera import CROP_SIZE, PoseForm
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import NUM_SUBSET, MapKind, flip_landmarks, landmark_map, subset_18
from twodasl_lite.geometry.photos import IMAGE_CENTRE, IMAGE_RANGE
from twodasl_lite.networks import TrainedRegressor


class Prediction(NamedTuple):
    """Predicted faces.

    Attributes:
        coefficients: Raw coefficients, with the pose constrained to its form, ``(B, D)``.
        landmarks: Landmarks in 0-based crop pixels, ``(B, 68, 3)``; the depth follows the coefficients' convention.
        whitened: The network's output, ``(B, D)``.
    """

    coefficients: torch.Tensor
    landmarks: torch.Tensor
    whitened: torch.Tensor


@torch.no_grad()
def predict(
    network: nn.Module,
    whitening: Whitening,
    images: torch.Tensor | FaceBatch,
    detected: torch.Tensor | None = None,
    visible: torch.Tensor | None = None,
    *,
    model: MorphableModel,
    kind: MapKind = "binary",
    pose: PoseForm = "free",
    looks: int = 2,
    batch_size: int = 256,
    mirror: bool = False,
) -> Prediction:
    """Run a regressor on pictures.

    Args:
        network: Network from ``(B, 4, 120, 120)`` to ``(B, D)``; runs in evaluation mode, then its mode is restored.
        whitening: Whitening of the network's outputs.
        images: Crops, ``(B, 3, 120, 120)`` uint8 RGB, or a batch, whose detected points are then used.
        detected: A detector's points in crop pixels, ``(B, 18, 2)``; NaN where a point was not found. For faces without
            any point, the map shows the landmarks predicted in the previous pass.
        visible: Mask of the points to use, ``(B, 18)``; by default all finite ones.
        model: The face model of the coefficients; copied to the network's device if it is elsewhere.
        kind: Kind of landmark map that the network was trained with.
        pose: Interpretation of the 12 pose numbers, see :func:`~twodasl_lite.geometry.camera.constrain_pose`.
        looks: Number of passes for a face without detected points; 1 uses only the empty map.
        batch_size: Pictures per batch.
        mirror: Whether to predict from the mirror images too and average the coefficients: twice the time, and a few
            per cent less error. Needs a symmetric face model.

    Returns:
        The predicted faces, on the pictures' device. With ``mirror``, ``whitened`` is that of the mean.

    Raises:
        ShapeError: If the shapes are inconsistent.
        ValueRangeError: If ``looks`` is below 1, or ``mirror`` is requested for a face model that is not symmetric.
    """
    if isinstance(images, FaceBatch):
        batch = images
        images, detected, visible = batch.images, batch.detected, batch.detected_visible
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, CROP_SIZE, CROP_SIZE):
        raise ShapeError(f"images: found shape {tuple(images.shape)}; expected (B, 3, {CROP_SIZE}, {CROP_SIZE})")
    if looks < 1:
        raise ValueRangeError(f"looks: found {looks}; expected 1 or more")
    count = images.shape[0]
    parameter = next(network.parameters())
    if detected is None:
        detected = parameter.new_full((count, NUM_SUBSET, 2), float("nan"))
    detected = check_tensor("detected", detected, (count, NUM_SUBSET, 2), finite=False).to(parameter)
    known = torch.isfinite(detected).all(dim=-1)  # (B, 18)
    if model.mean.device != parameter.device:
        model = copy.deepcopy(model).to(parameter.device)  # `to` alone would move the caller's model
    if visible is not None:
        known = known & torch.as_tensor(visible).to(known.device, torch.bool)

    was_training = network.training
    network.eval()
    try:
        outputs = [
            _look(network, whitening, images[i : i + batch_size], points, seen, model, kind, pose, looks)
            for i, points, seen in (
                (i, detected[i : i + batch_size], known[i : i + batch_size]) for i in range(0, count, batch_size)
            )
        ]
    finally:
        network.train(was_training)
    whitened = torch.cat(outputs) if outputs else parameter.new_zeros(0, model.layout.size)
    coefficients = constrain(whitening.unwhiten(whitened), pose)
    if mirror and count:
        shown = torch.where(known[..., None], detected, torch.nan)
        options: dict[str, Any] = {"model": model, "kind": kind, "pose": pose, "looks": looks, "batch_size": batch_size}
        other = predict(network, whitening, images.flip(-1), flip_landmarks(shown, CROP_SIZE), **options)
        back = mirror_coefficients(other.coefficients, model, CROP_SIZE)
        # The mean of two poses of a form is completed again; that of two nearby rotations is nearly one.
        coefficients = constrain((coefficients + back) / 2, pose)
        whitened = whitening.whiten(coefficients)
    return Prediction(coefficients, decode_landmarks(coefficients, model), whitened)


def _look(network, whitening, images, points, seen, model, kind, pose, looks) -> torch.Tensor:
    """Predict the whitened coefficients of one batch."""
    pixels = (images.to(points) - IMAGE_CENTRE) / IMAGE_RANGE  # (B, 3, H, W)
    whitened = network(torch.cat([pixels, landmark_map(points, seen, CROP_SIZE, kind)], dim=1)).float()
    alone = ~seen.any(dim=1)  # faces without any detected point
    for _ in range(looks - 1):
        if not bool(alone.any()):
            break
        own = decode_landmarks(constrain(whitening.unwhiten(whitened[alone]), pose), model)
        drawn = landmark_map(subset_18(own[..., :2]), None, CROP_SIZE, kind)
        whitened = whitened.clone()
        whitened[alone] = network(torch.cat([pixels[alone], drawn.to(pixels)], dim=1)).float()
    return whitened


def predict_with(
    trained: TrainedRegressor,
    images: torch.Tensor | FaceBatch,
    detected: torch.Tensor | None = None,
    visible: torch.Tensor | None = None,
    *,
    model: MorphableModel,
    looks: int = 2,
    batch_size: int = 256,
    mirror: bool = False,
) -> Prediction:
    """:func:`predict` with a network from a file, whose metadata give the kind of map and the face model.

    Args:
        trained: Network returned by :func:`~twodasl_lite.networks.load_regressor`.
        images: Crops or a batch, as for :func:`predict`.
        detected: A detector's points, as for :func:`predict`.
        visible: Mask of the points to use, as for :func:`predict`.
        model: The face model; must be the one that the network was trained with, if the file names it.
        looks: Number of passes for a face without detected points.
        batch_size: Pictures per batch.
        mirror: As for :func:`predict`.

    Raises:
        ValueRangeError: If it is another face model, for which the coefficients would mean other faces.
    """
    if "face_model" in trained.metadata:
        check_fingerprint(trained.metadata["face_model"], model)
    kind = trained.metadata["map_kind"]
    options: dict[str, Any] = {
        "model": model,
        "kind": kind,
        "pose": trained.pose,
        "looks": looks,
        "batch_size": batch_size,
    }
    options["mirror"] = mirror
    return predict(trained.network, trained.whitening, images, detected, visible, **options)
