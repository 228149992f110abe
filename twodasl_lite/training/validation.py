"""Errors of a network on pictures with ground truth: landmarks in 2D and 3D, and all vertices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.base.errors import TwodaslError
from twodasl_lite.evaluation import Table, bounding_box, nme, summarise
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry.camera import PoseForm
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import MapKind
from twodasl_lite.networks.prediction import predict

MEASURES = ("landmarks_2d", "landmarks_3d", "vertices_3d")


class Evaluation(NamedTuple):
    """Errors of individual faces, as fractions of their size.

    Attributes:
        yaw: Yaw in degrees, ``(N,)``.
        landmarks_2d: NME of the 68 landmarks in the picture plane, ``(N,)``.
        landmarks_3d: NME of the 68 landmarks with depth, ``(N,)``.
        vertices_3d: NME of all vertices with depth, normalised by the landmarks' box, ``(N,)``; ``None`` if not
            computed.
    """

    yaw: torch.Tensor
    landmarks_2d: torch.Tensor
    landmarks_3d: torch.Tensor
    vertices_3d: torch.Tensor | None = None

    def tables(self, *, intervals: bool = False) -> dict[str, Table]:
        """Table by yaw bin, for each measure."""
        return {
            name: summarise(errors, self.yaw, intervals=intervals)
            for name in MEASURES
            if (errors := getattr(self, name)) is not None
        }


def evaluate_on(
    network: nn.Module,
    whitening: Whitening,
    model: MorphableModel,
    faces: FaceBatch,
    *,
    kind: MapKind = "binary",
    pose: PoseForm = "free",
    detector: bool = True,
    dense: bool = True,
    batch_size: int = 250,
) -> Evaluation:
    """Compare a network's predictions with the ground truth.

    Args:
        network: The regressor, on the device of ``model``.
        whitening: Whitening of the network's outputs.
        model: The face model.
        faces: Pictures with landmarks and yaw, and with coefficients if ``dense``.
        kind: Kind of landmark map.
        pose: Interpretation of the network's 12 pose numbers.
        detector: Whether the network gets the detector's points; otherwise it starts with an empty map
            (:func:`~twodasl_lite.networks.prediction.predict`).
        dense: Whether to compare all vertices, too.
        batch_size: Pictures per batch.

    Raises:
        TwodaslError: If the ground truth is missing.
    """
    if faces.landmarks is None or faces.yaw is None or (dense and faces.coefficients is None):
        raise TwodaslError("faces: found pictures without ground truth; expected landmarks, yaw and coefficients")
    device = model.mean.device
    parts = []
    for start in range(0, faces.size, batch_size):
        batch = faces.take(slice(start, start + batch_size)).to(device)
        points = (batch.detected, batch.detected_visible) if detector else (None, None)
        answer = predict(network, whitening, batch.images, *points, model=model, kind=kind, pose=pose)
        truth = batch.landmarks
        row = [
            batch.yaw,
            nme(answer.landmarks[..., :2], truth[..., :2]),
            nme(answer.landmarks, truth),
        ]
        if dense:
            # Depths are compared relative to the smallest one, so the position of their zero does not matter.
            box = bounding_box(truth[..., :2])
            row.append(nme(decode(answer.coefficients, model), decode(batch.coefficients, model), box=box))
        parts.append(torch.stack([column.float() for column in row]).cpu())
    return Evaluation(*torch.cat(parts, dim=1))
