"""With a network: from pictures to faces, with a detector's landmarks or without.

::

    c1 = G(I, M(x))            where a detector reported landmarks x (Tu et al. 2019, section 3.2)
    c0 = G(I, M()),            where it did not: an empty map first,
    c1 = G(I, M(P(D(c0))))     then the network's own landmarks, drawn for a second look

The second form is this project's; it needs a network that saw empty maps in training (``map_dropout``). Explained in
the chapter "Training 2DASL".
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.camera import CROP_SIZE, PoseForm
from twodasl_lite.coefficients import Whitening
from twodasl_lite.data.faces import FaceBatch
from twodasl_lite.decode import constrain, decode_landmarks
from twodasl_lite.errors import ShapeError, ValueRangeError, check_tensor
from twodasl_lite.images import IMAGE_CENTRE, IMAGE_RANGE
from twodasl_lite.landmarks import NUM_SUBSET, MapKind, flip_landmarks, landmark_map, subset_18
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.morphable.fingerprint import check_fingerprint
from twodasl_lite.morphable.symmetry import mirror_coefficients
from twodasl_lite.networks import TrainedRegressor


class Prediction(NamedTuple):
    """Faces that a network saw.

    Attributes:
        coefficients: ``(B, D)`` raw, the pose as it is read.
        landmarks: ``(B, 68, 3)`` in crop pixels, 0-based; the depth as the coefficients have it.
        whitened: ``(B, D)`` the network's own output.
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
        network: Maps ``(B, 4, 120, 120)`` to ``(B, D)``; evaluated in its evaluation mode, and left in its own.
        whitening: Of its outputs.
        images: ``(B, 3, 120, 120)`` uint8 RGB, or a batch, whose detected points are then used.
        detected: ``(B, 18, 2)`` points of a detector in crop pixels; NaN where it reports none. Without them (and for
            faces of which it reports none) the network draws its own.
        visible: ``(B, 18)`` which of them are reported; all finite ones by default.
        model: The face model that the coefficients are of; copied to the network's device if it is elsewhere.
        kind: Form of the landmark map that the network was trained with.
        pose: How its 12 pose numbers are read, see :func:`~twodasl_lite.camera.constrain_pose`.
        looks: How often a face without detected points is looked at: 1 is the empty map alone.
        batch_size: How many pictures at a time.
        mirror: Whether to look at the mirror images too and take the mean of both answers, as coefficients: twice the
            time, and a few per cent less error. Needs a symmetric face model.

    Returns:
        The faces, on the pictures' device. With ``mirror``, ``whitened`` belongs to the mean.

    Raises:
        ShapeError: If shapes do not fit together.
        ValueRangeError: If ``looks`` is below 1, or ``mirror`` is asked for and the face model is not symmetric.
    """
    if isinstance(images, FaceBatch):
        images, detected, visible = images.images, images.detected, images.detected_visible
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
        model = copy.deepcopy(model).to(parameter.device)  # `to` alone would move the caller's
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
        options = {"model": model, "kind": kind, "pose": pose, "looks": looks, "batch_size": batch_size}
        other = predict(network, whitening, images.flip(-1), flip_landmarks(shown, CROP_SIZE), **options)
        back = mirror_coefficients(other.coefficients, model, CROP_SIZE)
        # The mean of two poses of a form is completed again; that of two nearby rotations is nearly one.
        coefficients = constrain((coefficients + back) / 2, pose)
        whitened = whitening.whiten(coefficients)
    return Prediction(coefficients, decode_landmarks(coefficients, model), whitened)


def _look(network, whitening, images, points, seen, model, kind, pose, looks) -> torch.Tensor:
    """Whitened coefficients of one batch."""
    pixels = (images.to(points) - IMAGE_CENTRE) / IMAGE_RANGE  # (B, 3, H, W)
    whitened = network(torch.cat([pixels, landmark_map(points, seen, CROP_SIZE, kind)], dim=1)).float()
    alone = ~seen.any(dim=1)  # faces without a single reported point
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
    """:func:`predict` with a network from a file, which knows its map and its face model.

    Args:
        trained: What :func:`~twodasl_lite.networks.load_regressor` returned.
        images: As for :func:`predict`.
        detected: As for :func:`predict`.
        visible: As for :func:`predict`.
        model: The face model; must be the one of the network's training, if the file says which.
        looks: As for :func:`predict`.
        batch_size: As for :func:`predict`.
        mirror: As for :func:`predict`.

    Raises:
        ValueRangeError: If the face model is another one: its coefficients mean other faces.
    """
    if "face_model" in trained.metadata:
        check_fingerprint(trained.metadata["face_model"], model)
    kind = trained.metadata["map_kind"]
    options = {"model": model, "kind": kind, "pose": trained.pose, "looks": looks, "batch_size": batch_size}
    options["mirror"] = mirror
    return predict(trained.network, trained.whitening, images, detected, visible, **options)
