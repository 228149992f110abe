"""How good a network is, on pictures whose answer is known: landmarks in 2D and 3D, and all vertices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.camera import PoseForm
from twodasl_lite.coefficients import Whitening
from twodasl_lite.data.faces import FaceBatch
from twodasl_lite.decode import decode
from twodasl_lite.errors import TwodaslError
from twodasl_lite.evaluation import Table, bounding_box, nme, summarise
from twodasl_lite.landmarks import MapKind
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.prediction import predict

MEASURES = ("landmarks_2d", "landmarks_3d", "vertices_3d")


class Evaluation(NamedTuple):
    """Errors of single faces, as fractions of their size.

    Attributes:
        yaw: ``(N,)`` degrees.
        landmarks_2d: ``(N,)`` NME of the 68 landmarks in the picture plane.
        landmarks_3d: ``(N,)`` the same with depth.
        vertices_3d: ``(N,)`` the same over all vertices, normalised by the landmarks' box; ``None`` if not asked for.
    """

    yaw: torch.Tensor
    landmarks_2d: torch.Tensor
    landmarks_3d: torch.Tensor
    vertices_3d: torch.Tensor | None = None

    def tables(self, *, intervals: bool = False) -> dict[str, Table]:
        """A table by yaw bin for each measure."""
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
    """Compare a network's answers with the truth.

    Args:
        network: The regressor; on the device of ``model``.
        whitening: Of its outputs.
        model: The face model.
        faces: Pictures with landmarks and yaw, and with coefficients if ``dense``.
        kind: Form of the landmark map.
        pose: How the network's 12 pose numbers are read.
        detector: Whether the network is given the detector's points; without, it draws its own
            (:func:`~twodasl_lite.prediction.predict`).
        dense: Whether to compare all vertices too.
        batch_size: How many pictures at a time.

    Raises:
        TwodaslError: If the truth is not known.
    """
    if faces.landmarks is None or faces.yaw is None or (dense and faces.coefficients is None):
        raise TwodaslError("faces: found pictures without their truth; expected landmarks, yaw and coefficients")
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
            # Depths are compared from the smallest on, so it does not matter where each puts its zero.
            box = bounding_box(truth[..., :2])
            row.append(nme(decode(answer.coefficients, model), decode(batch.coefficients, model), box=box))
        parts.append(torch.stack([column.float() for column in row]).cpu())
    return Evaluation(*torch.cat(parts, dim=1))
