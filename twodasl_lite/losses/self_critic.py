"""The self-critic: a second network learns to distinguish real pairs of coefficients and landmarks from predicted ones.

Real pairs ``(c, x)`` come from labelled pictures, predicted ones ``(G(I, M(x)), x)`` from pictures without labels (Tu
et al. 2019, section 3.3). The paper gives the idea; the form of the loss is this project's choice. See chapter 13.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional as F

from twodasl_lite.base.checks import check_choice, check_tensor
from twodasl_lite.base.errors import ShapeError
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.losses.distances import FACE_SIZE_FLOOR, at_least_float32, face_size, present_points

CriticForm = Literal["least_squares", "logistic", "hinge", "wasserstein"]
CRITIC_FORMS: tuple[CriticForm, ...] = ("least_squares", "logistic", "hinge", "wasserstein")

LandmarkFrame = Literal["face", "crop"]
LANDMARK_FRAMES: tuple[LandmarkFrame, ...] = ("face", "crop")


def normalise_landmarks(
    points: torch.Tensor,
    visible: torch.Tensor | None = None,
    frame: LandmarkFrame = "face",
    floor: float = FACE_SIZE_FLOOR,
) -> torch.Tensor:
    """Normalise landmarks for the critic to values of about 1; hidden ones become zero.

    Args:
        points: Landmarks in pixels of the crop, ``(B, N, 2)``, NaN where unknown.
        visible: Visibility, ``(B, N)``, boolean or 0/1; by default all are visible.
        frame: ``"face"``: the origin is the mean of the visible landmarks, the unit the face size. ``"crop"``: the
            origin is the centre of the crop, the unit half its side; this keeps the face's position and size.
        floor: Smallest face size in pixels.

    Returns:
        Normalised landmarks ``(B, N, 2)``.

    Raises:
        ShapeError: If the shapes do not match.
        ValueRangeError: If ``frame`` is unknown.
    """
    check_choice("frame", frame, LANDMARK_FRAMES)
    points = at_least_float32(check_tensor("points", points, ("B", "N", 2), finite=False))
    present = present_points(points, visible)[..., None]  # (B, N, 1)
    zeros = torch.zeros_like(points)
    if frame == "crop":
        half = CROP_SIZE / 2
        return torch.where(present, (points - (half - 0.5)) / half, zeros)
    known = torch.where(present, points, zeros)
    centre = known.sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1, 2)
    size = face_size(points, visible, floor)[:, None, None]
    return torch.where(present, (known - centre) / size, zeros)


class SelfCritic:
    """The losses of critic and regressor; s is the critic's score.

    ::

                         critic, real pair     critic, predicted pair     regressor
        least_squares    (s - 1)^2 / 2         s^2 / 2                    (s - 1)^2 / 2
        logistic         log(1 + e^-s)         log(1 + e^s)               log(1 + e^-s)
        hinge            max(0, 1 - s)         max(0, 1 + s)              -s
        wasserstein      -s                    s                          -s

    Least squares (Mao et al. 2017) is the default: its gradient for the regressor vanishes as the score of a predicted
    pair approaches that of a real one. The Wasserstein form is a distance only for critics with a bounded slope.

    Args:
        form: One of :data:`CRITIC_FORMS`.

    Raises:
        ValueRangeError: If the form is unknown.

    Example:
        >>> SelfCritic().for_regressor(torch.tensor([1.0, 0.0]))
        tensor([0.0000, 0.5000])
    """

    def __init__(self, form: CriticForm = "least_squares") -> None:
        check_choice("form", form, CRITIC_FORMS)
        self.form = form

    def __repr__(self) -> str:
        return f"SelfCritic({self.form!r})"

    def on_real(self, score: torch.Tensor) -> torch.Tensor:
        """The critic's loss on scores ``(B,)`` of real pairs: ``(B,)``."""
        score = _checked("score_real", score)
        return F.relu(1 - score) if self.form == "hinge" else self._pulled_up(score)

    def on_fake(self, score: torch.Tensor) -> torch.Tensor:
        """The critic's loss on scores ``(B,)`` of predicted pairs: ``(B,)``."""
        score = _checked("score_fake", score)
        match self.form:
            case "least_squares":
                return score.square() / 2
            case "logistic":
                return F.softplus(score)
            case "hinge":
                return F.relu(1 + score)
        return score

    def for_critic(self, score_real: torch.Tensor, score_fake: torch.Tensor) -> torch.Tensor:
        """The loss that the critic minimises.

        Args:
            score_real: Scores of real pairs, ``(B,)``.
            score_fake: Scores of predicted pairs, ``(B,)``, without gradient to the regressor.

        Returns:
            The sum of :meth:`on_real` and :meth:`on_fake`, ``(B,)``.

        Raises:
            ShapeError: If the numbers of scores differ; in that case, take the mean of each side.
        """
        real, fake = self.on_real(score_real), self.on_fake(score_fake)
        if real.shape != fake.shape:
            raise ShapeError(
                f"score_fake: found {fake.shape[0]} scores; expected {real.shape[0]}, as many as score_real "
                "(for batches of different sizes, add on_real(...).mean() and on_fake(...).mean())"
            )
        return real + fake

    def for_regressor(self, score_fake: torch.Tensor) -> torch.Tensor:
        """The loss ``(B,)`` that the regressor minimises, from the scores ``(B,)`` of its predicted pairs."""
        return self._pulled_up(_checked("score_fake", score_fake))

    def _pulled_up(self, score: torch.Tensor) -> torch.Tensor:
        match self.form:
            case "least_squares":
                return (score - 1).square() / 2
            case "logistic":
                return F.softplus(-score)
        return -score


def _checked(name: str, score: torch.Tensor) -> torch.Tensor:
    return at_least_float32(check_tensor(name, score, ("B",), finite=False))
