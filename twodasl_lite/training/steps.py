"""The losses of one step: the regressor's on labelled and on 2D-only pictures, and the critic's.

::

    labelled:   c^ = G(I, M(x))                                          PDC, WPDC, VDC  against c
    2D only:    X1 = D(G(I, M(x))),   x1 = P(X1)                         2D landmarks    x1 against x
                                                                         critic          scores (G(I, M(x)), x)
                                                         prior           G(I, M(x)) alone
                X2 = D(G(I, M(x1))),  x2 = P(X2)                         3D landmarks    X2 against X1
                                                                         cycle           x2 against x

with G the regressor, M the landmark map, D the decoder and P the 18 points (Tu et al. 2019, section 3.3). The second
pass is computed only if a loss needs it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from twodasl_lite.evaluation import bounding_box, box_size
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import constrain, decode_landmarks
from twodasl_lite.geometry.camera import make_pose, matrix_to_euler, split_pose
from twodasl_lite.geometry.coefficients import Coefficients, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import landmark_map, subset_18, subset_21
from twodasl_lite.losses import (
    PDC,
    VDC,
    WPDC,
    CoefficientPrior,
    CycleConsistency,
    LandmarkConsistency2D,
    LandmarkConsistency3D,
    SelfCritic,
    normalise_landmarks,
)
from twodasl_lite.training.config import StageConfig, TrainConfig
from twodasl_lite.worlds.detector import REFERENCE_SIZE, detect
from twodasl_lite.worlds.draws import Draws

_LEAST_ANGLE = 0.2
"""Smallest sine of the angle between a predicted pose's first two rows at which its rotation is used."""


class Pairs(NamedTuple):
    """Pairs of coefficients and landmarks, the critic's input.

    Attributes:
        whitened: Whitened coefficients, ``(B, D)``.
        landmarks: Landmarks normalised by :func:`~twodasl_lite.losses.normalise_landmarks`, ``(B, 18, 2)``.
        visible: Visibility of the landmarks, ``(B, 18)``.
    """

    whitened: torch.Tensor
    landmarks: torch.Tensor
    visible: torch.Tensor

    @classmethod
    def of(cls, whitened: torch.Tensor, points: torch.Tensor, visible: torch.Tensor) -> Pairs:
        """Build pairs from points in pixels."""
        return cls(whitened, normalise_landmarks(points, visible), visible)

    def detach(self) -> Pairs:
        """The same pairs, detached from the graph."""
        return Pairs(*(part.detach() for part in self))


class RegressorInput(NamedTuple):
    """A batch and the regressor's inputs for it.

    Attributes:
        batch: The pictures with their labels.
        inputs: Inputs of the regressor, ``(B, 4, 120, 120)``; some with an empty landmark map.
    """

    batch: FaceBatch
    inputs: torch.Tensor


def make_inputs(
    batch: FaceBatch, dropped: torch.Tensor, config: TrainConfig, noise: Draws | None = None
) -> RegressorInput:
    """The regressor's inputs for a batch, with an empty landmark map where ``dropped`` ``(B,)`` is true.

    With ``noise`` the maps show the points with the simulated detector's noise; losses use the points without it.
    """
    seen = batch._replace(detected_visible=batch.detected_visible & ~dropped[:, None])
    if noise is not None:
        size = torch.full_like(batch.yaw, REFERENCE_SIZE)
        found, reported = detect(batch.detected.nan_to_num(0.0), batch.yaw, size, noise)
        seen = seen._replace(detected=found, detected_visible=seen.detected_visible & reported)
    inputs = seen.inputs(config.network.map)
    if config.optimiser.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return RegressorInput(batch, inputs)


class RegressorStep(nn.Module):
    """The regressor with its losses: one call computes everything that a step's gradient needs.

    Because it is one module, it can be wrapped as a whole for several processes.

    Args:
        network: The regressor.
        model: The face model.
        whitening: Whitening of the coefficients.
        config: Configuration with the losses and their options.
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
        # In a tuple, which hides them from state_dict and DistributedDataParallel: they have nothing to learn.
        self._fixed = (
            model,
            whitening,
            supervised,
            LandmarkConsistency2D(*distance),
            LandmarkConsistency3D(),
            CycleConsistency(*distance),
            SelfCritic(),
            CoefficientPrior(),
        )

    def _predict(self, inputs: torch.Tensor) -> torch.Tensor:
        """Whitened coefficients, always in single precision, whatever the network's precision."""
        with torch.autocast(self._device, self._precision, enabled=self._precision != torch.float32):
            return self.network(inputs).float()

    def forward(
        self, labelled: RegressorInput, unlabelled: RegressorInput | None, stage: int, critic: nn.Module | None
    ) -> tuple[dict[str, torch.Tensor], Pairs | None]:
        """Compute the losses of a step.

        Args:
            labelled: Pictures with coefficients.
            unlabelled: Pictures with only 2D landmarks; ``None`` if no loss needs them.
            stage: Index of the stage, which determines the losses on labelled pictures.
            critic: Critic of the predicted pairs of the 2D-only pictures; ``None`` if its loss is off.

        Returns:
            Name of each loss to its value for each picture ``(B,)``, and the pairs that the critic learns from.
        """
        model, whitening, supervised, landmarks_2d, landmarks_3d, cycle, self_critic, prior = self._fixed
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
        # Photographs are compared at all annotated points, other pictures at those that a detector found.
        seen, *known = (subset_18, x, visible) if marked is None else (subset_21, marked, None)
        # Losses without 3D labels use the decoded pose; only those on labelled pictures use all 12 of its numbers.
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
        if "prior" in weights:
            losses["prior"] = prior(pairs.whitened)
        return losses, pairs


def _supervised(
    name: str, stage: StageConfig, model: MorphableModel, whitening: Whitening, config: TrainConfig
) -> PDC | WPDC | VDC:
    """One loss on labelled pictures, with the options of a stage."""
    vertices = model.landmarks if stage.vertices == "landmarks" else None
    makers = {
        "pdc": PDC,
        "wpdc": lambda: WPDC(model, whitening),
        "vdc": lambda: VDC(model, whitening, vertices, root=stage.root, pose=config.network.pose),
    }
    return makers[name]().to(model.mean.device)


class CriticStep(nn.Module):
    """The critic with its loss: one call scores real and predicted pairs.

    Args:
        critic: The critic.
    """

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic
        self._form = SelfCritic()

    def forward(self, real: Pairs, fake: Pairs) -> tuple[torch.Tensor, torch.Tensor]:
        """The critic's loss ``(B,)``, and the share of pairs that it classifies correctly ``(B,)``."""
        scores = self.critic(*(torch.cat(parts) for parts in zip(real, fake, strict=True)))
        score_real, score_fake = scores.split([len(real.whitened), len(fake.whitened)])
        right = ((score_real > 0.5).float() + (score_fake < 0.5).float()) / 2
        return self._form.for_critic(score_real, score_fake), right.detach()


@torch.no_grad()
def real_pairs(labelled: FaceBatch, fake: Pairs, whitening: Whitening, model: MorphableModel, draws: Draws) -> Pairs:
    """Real pairs for the critic that neither pose nor landmark noise distinguishes from predicted ones (ours).

    Labelled faces are mostly frontal and photographs are not: a critic trained on the labelled pairs themselves would
    learn to distinguish poses and push the regressor towards frontal faces. So each labelled face takes the pose of a
    predicted one, made an exact scaled rotation; its landmarks are projected again and pass through the same simulated
    detector. This needs no picture. The critic can still judge whether shape and expression are those of a face,
    whether the pose is a rotation, and whether coefficients and landmarks belong together.

    Args:
        labelled: Faces with coefficients; repeated until there are as many as predicted pairs.
        fake: Predicted pairs ``(B, ...)``.
        whitening: Whitening of the coefficients.
        model: The face model.
        draws: Random numbers for B pictures, for the detector.

    Returns:
        Real pairs ``(B, ...)``.
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
    """Whether the first two rows point in clearly different directions, ``(B,)``."""
    rows = pose[:, :2, :3]
    lengths = rows.norm(dim=-1, keepdim=True)
    directions = rows / lengths.clamp(min=torch.finfo(rows.dtype).tiny)
    sine = torch.linalg.cross(directions[:, 0], directions[:, 1]).norm(dim=-1)
    return (sine > _LEAST_ANGLE) & (lengths.flatten(1) > 1e-6).all(dim=1) & torch.isfinite(rows).flatten(1).all(dim=1)
