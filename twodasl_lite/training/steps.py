"""What one step computes: losses of the regressor on labelled and on 2D-only pictures, and the critic's.

::

    labelled:   c^ = G(I, M(x))                                          PDC, WPDC, VDC  against c
    2D only:    X1 = D(G(I, M(x))),   x1 = P(X1)                         2D landmarks    x1 against x
                                                                         critic          scores (G(I, M(x)), x)
                X2 = D(G(I, M(x1))),  x2 = P(X2)                         3D landmarks    X2 against X1
                                                                         cycle           x2 against x

with G the regressor, M the landmark map, D the decoder and P the 18 points (Tu et al. 2019, section 3.3). The second
pass is made only if a loss wants it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.camera import make_pose, matrix_to_euler, split_pose
from twodasl_lite.coefficients import Coefficients, Whitening
from twodasl_lite.data.detector import REFERENCE_SIZE, detect
from twodasl_lite.data.faces import FaceBatch
from twodasl_lite.data.random import Draws
from twodasl_lite.decode import constrain, decode_landmarks
from twodasl_lite.evaluation import bounding_box, box_size
from twodasl_lite.landmarks import landmark_map, subset_18, subset_21
from twodasl_lite.losses import (
    PDC,
    VDC,
    WPDC,
    CycleConsistency,
    LandmarkConsistency2D,
    LandmarkConsistency3D,
    SelfCritic,
    normalise_landmarks,
)
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.training.config import StageConfig, TrainConfig

_LEAST_ANGLE = 0.2
"""Least sine of the angle between a predicted pose's first two rows for its rotation to be worth taking."""


class Pairs(NamedTuple):
    """Coefficients and landmarks for the critic to judge.

    Attributes:
        whitened: ``(B, D)``.
        landmarks: ``(B, 18, 2)`` as :func:`~twodasl_lite.losses.normalise_landmarks` gives them.
        visible: ``(B, 18)``.
    """

    whitened: torch.Tensor
    landmarks: torch.Tensor
    visible: torch.Tensor

    @classmethod
    def of(cls, whitened: torch.Tensor, points: torch.Tensor, visible: torch.Tensor) -> Pairs:
        """Pairs from points in pixels."""
        return cls(whitened, normalise_landmarks(points, visible), visible)

    def detach(self) -> Pairs:
        """The same numbers without their history."""
        return Pairs(*(part.detach() for part in self))


class Shown(NamedTuple):
    """Pictures as the regressor sees them.

    Attributes:
        batch: The pictures and what is known of them.
        inputs: ``(B, 4, 120, 120)``; some with an empty landmark map.
    """

    batch: FaceBatch
    inputs: torch.Tensor


def show(batch: FaceBatch, dropped: torch.Tensor, config: TrainConfig, noise: Draws | None = None) -> Shown:
    """Inputs of a batch, with an empty landmark map where ``dropped`` ``(B,)`` says so.

    With ``noise`` the maps show the points as the simulated detector finds them; losses take them as they are.
    """
    seen = batch._replace(detected_visible=batch.detected_visible & ~dropped[:, None])
    if noise is not None:
        size = torch.full_like(batch.yaw, REFERENCE_SIZE)
        found, reported = detect(batch.detected.nan_to_num(0.0), batch.yaw, size, noise)
        seen = seen._replace(detected=found, detected_visible=seen.detected_visible & reported)
    inputs = seen.inputs(config.network.map)
    if config.optimiser.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return Shown(batch, inputs)


class RegressorStep(nn.Module):
    """The regressor with its losses: one call is all that a step's gradient needs.

    As one module it can be wrapped for several processes as a whole.

    Args:
        network: The regressor.
        model: The face model.
        whitening: Of the coefficients.
        config: Which losses are on, and their options.
    """

    def __init__(self, network: nn.Module, model: MorphableModel, whitening: Whitening, config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self._device = model.mean.device.type
        self._precision = getattr(torch, config.optimiser.precision)
        supervision = config.self_supervision
        supervised = [
            {name: _supervised(name, stage, model, whitening, config) for name in stage.weights}
            for stage in config.stages
        ]
        distance = (supervision.distance, supervision.huber_delta, supervision.smallest_face)
        # In a tuple, which hides their parts from state_dict and from DistributedDataParallel: nothing in them learns.
        self._fixed = (
            model,
            whitening,
            supervised,
            LandmarkConsistency2D(*distance),
            LandmarkConsistency3D(),
            CycleConsistency(*distance),
            SelfCritic(),
        )

    def _predict(self, inputs: torch.Tensor) -> torch.Tensor:
        """Whitened coefficients, in single precision whatever the network computes in."""
        with torch.autocast(self._device, self._precision, enabled=self._precision != torch.float32):
            return self.network(inputs).float()

    def forward(
        self, labelled: Shown, unlabelled: Shown | None, stage: int, critic: nn.Module | None
    ) -> tuple[dict[str, torch.Tensor], Pairs | None]:
        """Losses of a step.

        Args:
            labelled: Pictures with coefficients.
            unlabelled: Pictures with 2D landmarks alone; ``None`` if no loss wants them.
            stage: Index of the stage: which losses the labelled pictures have.
            critic: Judges the pairs of the 2D-only pictures; ``None`` if it has no say.

        Returns:
            Name to the losses of each picture ``(B,)``, and the pairs that the critic should learn from.
        """
        model, whitening, supervised, landmarks_2d, landmarks_3d, cycle, self_critic = self._fixed
        weights = self.config.self_supervision.weights
        if unlabelled is None:
            predicted = self._predict(labelled.inputs)
            rest = predicted[:0]
        else:
            both = self._predict(torch.cat([labelled.inputs, unlabelled.inputs]))
            predicted, rest = both.split([labelled.batch.size, unlabelled.batch.size])
        target = whitening.whiten(labelled.batch.coefficients)
        losses = {name: loss(predicted, target) for name, loss in supervised[stage].items()}
        if unlabelled is None:
            return losses, None

        x, visible = unlabelled.batch.detected, unlabelled.batch.detected_visible
        marked = unlabelled.batch.marked
        # Photographs are compared at all points that people marked, others at those that a detector found.
        seen, *known = (subset_18, x, visible) if marked is None else (subset_21, marked, None)
        # Losses without 3D labels see the pose that is decoded; only labelled ones see all 12 numbers of it.
        form = self.config.network.pose
        seen_face = constrain(whitening.unwhiten(rest), form)  # (B, D)
        first = decode_landmarks(seen_face, model)  # (B, 68, 3)
        x1 = subset_18(first[..., :2])  # (B, 18, 2)
        if "landmarks_2d" in weights:
            losses["landmarks_2d"] = landmarks_2d(seen(first[..., :2]), *known)
        if "landmarks_3d" in weights or "cycle" in weights:
            drawn = landmark_map(x1, None, unlabelled.inputs.shape[-1], self.config.network.map)
            again = torch.cat([unlabelled.inputs[:, :3], drawn], dim=1)
            if self.config.optimiser.channels_last:
                again = again.contiguous(memory_format=torch.channels_last)
            second = decode_landmarks(constrain(whitening.unwhiten(self._predict(again)), form), model)
            if "landmarks_3d" in weights:
                losses["landmarks_3d"] = landmarks_3d(second, first)
            if "cycle" in weights:
                losses["cycle"] = cycle(seen(second[..., :2]), *known)
        pairs = Pairs.of(whitening.whiten(seen_face), x, visible)
        if critic is not None:
            losses["critic"] = self_critic.for_regressor(critic(*pairs))
        return losses, pairs


def _supervised(
    name: str, stage: StageConfig, model: MorphableModel, whitening: Whitening, config: TrainConfig
) -> PDC | WPDC | VDC:
    """One loss of labelled pictures, as a stage wants it."""
    vertices = model.landmarks if stage.vertices == "landmarks" else None
    makers = {
        "pdc": PDC,
        "wpdc": lambda: WPDC(model, whitening),
        "vdc": lambda: VDC(model, whitening, vertices, root=stage.root, pose=config.network.pose),
    }
    return makers[name]().to(model.mean.device)


class CriticStep(nn.Module):
    """The critic with its loss: one call judges real and predicted pairs.

    Args:
        critic: The critic.
    """

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic
        self._form = SelfCritic()

    def forward(self, real: Pairs, fake: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """The critic's loss ``(B,)``, and the share of pairs ``(B,)`` on whose right side it is."""
        scores = self.critic(*(torch.cat(parts) for parts in zip(real, fake, strict=True)))
        score_real, score_fake = scores.split([len(real.whitened), len(fake.whitened)])
        right = ((score_real > 0.5).float() + (score_fake < 0.5).float()) / 2
        return self._form.for_critic(score_real, score_fake), right.detach()


@torch.no_grad()
def real_pairs(labelled: FaceBatch, fake: Pairs, whitening: Whitening, model: MorphableModel, draws: Draws) -> Pairs:
    """Pairs for the critic to call real, such that neither pose nor landmark noise gives them away (ours).

    Labelled faces are mostly frontal and photographs are not: a critic that saw the labelled pairs as they are would
    learn to tell poses apart and push the regressor towards frontal faces. So each labelled face takes the pose of one
    of the predicted ones, made an exact scaled rotation; its landmarks are projected anew and pass through the same
    simulated detector. No picture is needed for that. What is left to judge: whether shape and expression are those of
    a face, whether the pose is a rotation, and whether coefficients and landmarks belong together.

    Args:
        labelled: Faces with coefficients; used in turn until there are as many as predicted pairs.
        fake: The predicted pairs ``(B, ...)``.
        whitening: Of the coefficients.
        model: The face model.
        draws: Random numbers of B pictures, for the detector.

    Returns:
        ``(B, ...)`` pairs.
    """
    count = len(fake.whitened)
    index = torch.arange(count, device=fake.whitened.device) % labelled.size
    own = Coefficients.unpack(labelled.coefficients[index], model.layout)
    others = Coefficients.unpack(whitening.unwhiten(fake.whitened), model.layout)
    usable = _has_rotation(others.pose)[:, None, None]  # (B, 1, 1)
    pose = torch.where(usable, others.pose, own.pose)
    scale, rotation, translation = split_pose(pose)
    posed = Coefficients(make_pose(scale, rotation, translation), own.shape, own.expression)

    landmarks = decode_landmarks(posed, model)[..., :2]  # (B, 68, 2)
    size = box_size(bounding_box(landmarks))
    points, reported = detect(subset_18(landmarks), torch.rad2deg(matrix_to_euler(rotation)[:, 1]), size, draws)
    return Pairs.of(whitening.whiten(posed.pack()), points, reported)


def _has_rotation(pose: torch.Tensor) -> torch.Tensor:
    """``(B,)``: whether the first two rows point in clearly different directions."""
    rows = pose[:, :2, :3]
    lengths = rows.norm(dim=-1, keepdim=True)
    directions = rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)
    sine = torch.linalg.cross(directions[:, 0], directions[:, 1]).norm(dim=-1)
    return (sine > _LEAST_ANGLE) & (lengths.flatten(1) > 1e-6).all(dim=1) & torch.isfinite(rows).flatten(1).all(dim=1)
