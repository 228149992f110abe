"""The self-critic, the landmarks it reads, and the weighted sum."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.losses import (
    CRITIC_FORMS,
    LOSS_NAMES,
    LOSS_TITLES,
    SELF_SUPERVISED,
    SUPERVISED,
    CoefficientPrior,
    SelfCritic,
    WeightedSum,
    normalise_landmarks,
)
from twodasl_lite.training.config import SelfSupervisionConfig, StageConfig

SCORES = torch.tensor([-2.0, -0.5, 0.0, 0.7, 1.0, 3.0], dtype=torch.float64)

FORMULAS = {
    "least_squares": (lambda s: (s - 1) ** 2 / 2, lambda s: s**2 / 2, lambda s: (s - 1) ** 2 / 2),
    "logistic": (
        lambda s: math.log(1 + math.exp(-s)),
        lambda s: math.log(1 + math.exp(s)),
        lambda s: math.log(1 + math.exp(-s)),
    ),
    "hinge": (lambda s: max(0, 1 - s), lambda s: max(0, 1 + s), lambda s: -s),
    "wasserstein": (lambda s: -s, lambda s: s, lambda s: -s),
}


# -------------------------------------------------------------------------------------------------------- the critic
@pytest.mark.parametrize("form", CRITIC_FORMS)
def test_critic_by_hand(form: str) -> None:
    real, fake, regressor = FORMULAS[form]
    loss = SelfCritic(form)
    others = SCORES.flip(0)
    expected = torch.tensor([real(r) + fake(f) for r, f in zip(SCORES.tolist(), others.tolist(), strict=True)])
    torch.testing.assert_close(loss.for_critic(SCORES, others), expected.double())
    expected = torch.tensor([regressor(s) for s in SCORES.tolist()])
    torch.testing.assert_close(loss.for_regressor(SCORES), expected.double())


@pytest.mark.parametrize("form", CRITIC_FORMS)
def test_critic_gradients(form: str, device: torch.device) -> None:
    loss = SelfCritic(form)
    real, fake = (SCORES[:5].to(device) + 0.01).requires_grad_(), (SCORES[1:].to(device) + 0.02).requires_grad_()
    assert torch.autograd.gradcheck(loss.for_critic, (real, fake))
    assert torch.autograd.gradcheck(loss.for_regressor, fake)
    # The two pull a predicted pair's score in opposite directions, and the critic lifts a real one's.
    pull_real, pull_fake = torch.autograd.grad(loss.for_critic(real, fake).sum(), [real, fake])
    (pull_back,) = torch.autograd.grad(loss.for_regressor(fake).sum(), fake)
    between = (fake > 0.05) & (fake < 0.95)
    assert between.any()
    assert (pull_fake[between] > 0).all()
    assert (pull_back[between] < 0).all()
    assert (pull_real[real < 0.9] < 0).all()


def test_least_squares_is_zero_where_each_side_wants_to_be() -> None:
    loss = SelfCritic()
    real, fake = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    value = loss.for_critic(real, fake)
    torch.testing.assert_close(value, torch.zeros(3), rtol=0, atol=0)
    for gradient in torch.autograd.grad(value.sum(), [real, fake]):
        torch.testing.assert_close(gradient, torch.zeros(3), rtol=0, atol=0)
    assert (loss.for_regressor(torch.ones(3)) == 0).all()


def test_extreme_scores_stay_finite() -> None:
    scores = torch.tensor([-1e4, 1e4], requires_grad=True)
    value = SelfCritic("logistic").for_critic(scores, scores)
    torch.testing.assert_close(value, torch.tensor([1e4, 1e4]))
    assert torch.isfinite(torch.autograd.grad(value.sum(), scores)[0]).all()


def test_critic_errors() -> None:
    with pytest.raises(ValueRangeError, match="form: found 'lsgan'; expected one of least_squares, logistic"):
        SelfCritic("lsgan")
    with pytest.raises(ShapeError, match="score_fake: found 4 scores; expected 3"):
        SelfCritic().for_critic(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ShapeError, match=r"score_fake: found shape \(3, 1\)"):
        SelfCritic().for_regressor(torch.zeros(3, 1))


# ----------------------------------------------------------------------------------------------- what the critic reads
def test_normalised_landmarks_by_hand() -> None:
    points = torch.tensor([[[10.0, 20.0], [100.0, 20.0], [100.0, 60.0], [7.0, 7.0]]])  # sqrt(90 * 40) = 60
    visible = torch.tensor([[True, True, True, False]])
    middle = torch.tensor([210 / 3, 100 / 3])
    expected = (points - middle) / 60
    expected[0, 3] = 0
    torch.testing.assert_close(normalise_landmarks(points, visible), expected)


def test_normalised_landmarks_ignore_place_and_size() -> None:
    points = 60 + 20 * torch.randn(4, 18, 2, generator=torch.Generator().manual_seed(0))
    visible = torch.rand(4, 18, generator=torch.Generator().manual_seed(1)) > 0.3
    torch.testing.assert_close(normalise_landmarks(3 * points - 50, visible), normalise_landmarks(points, visible))
    assert (normalise_landmarks(points, visible)[~visible] == 0).all()


def test_landmarks_in_the_crop_keep_place_and_size() -> None:
    points = torch.tensor([[[-0.5, 59.5], [119.5, 119.5], [float("nan"), 3.0]]])
    expected = torch.tensor([[[-1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(normalise_landmarks(points, frame="crop"), expected)
    with pytest.raises(ValueRangeError, match="frame: found 'image'; expected one of face, crop"):
        normalise_landmarks(points, frame="image")


@pytest.mark.parametrize("frame", ["face", "crop"])
def test_missing_landmarks_do_not_poison(frame: str) -> None:
    points = torch.full((2, 18, 2), float("nan"))
    points[0, :9] = 60 + 20 * torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    points.requires_grad_()
    value = normalise_landmarks(points, torch.ones(2, 18), frame=frame)
    assert torch.isfinite(value).all()
    assert (value[1] == 0).all()
    gradient = torch.autograd.grad(value.square().sum(), points)[0]
    assert torch.isfinite(gradient).all()
    assert (gradient[0, :9] != 0).any()


# ------------------------------------------------------------------------------------------------------------- the sum
def test_sum_by_hand() -> None:
    labelled = torch.tensor([1.0, 3.0], requires_grad=True)
    unlabelled = torch.tensor([0.5, 0.5, 0.2], requires_grad=True)
    total, parts = WeightedSum({"wpdc": 2.0, "cycle": 10.0, "critic": 0.0})(
        {"wpdc": labelled, "cycle": unlabelled, "pdc": torch.tensor([7.0, 9.0])}
    )
    torch.testing.assert_close(total, torch.tensor(2 * 2 + 10 * 0.4))
    assert {name: round(float(part), 6) for name, part in parts.items()} == {"wpdc": 2.0, "cycle": 0.4, "pdc": 8.0}
    assert not any(part.requires_grad for part in parts.values())
    gradients = torch.autograd.grad(total, [labelled, unlabelled])
    torch.testing.assert_close(gradients[0], torch.full((2,), 2 / 2))
    torch.testing.assert_close(gradients[1], torch.full((3,), 10 / 3))


def test_sum_takes_scalars_and_empty_batches() -> None:
    total = WeightedSum({"wpdc": 1.0, "cycle": 1.0})({"wpdc": torch.tensor(3.0), "cycle": torch.zeros(0)}).total
    torch.testing.assert_close(total, torch.tensor(3.0))


def test_names_are_the_ones_needed() -> None:
    loss = WeightedSum({"critic": 0.1, "wpdc": 0, "landmarks_2d": 1})
    assert loss.names == ("critic", "landmarks_2d")
    assert "0.1 critic" in repr(loss)


def test_unknown_names_list_the_choices() -> None:
    choices = ", ".join(LOSS_NAMES)
    with pytest.raises(ValueRangeError, match=f"weights: found 'landmark_2d'; expected one of {choices}"):
        WeightedSum({"landmark_2d": 1.0})
    with pytest.raises(ValueRangeError, match=f"losses: found 'total'; expected one of {choices}"):
        WeightedSum({"pdc": 1.0})({"pdc": torch.ones(1), "total": torch.ones(1)})


def test_missing_parts_are_named() -> None:
    with pytest.raises(ValueRangeError, match="losses: found pdc; expected also cycle, critic"):
        WeightedSum({"pdc": 1.0, "cycle": 1.0, "critic": 2.0, "vdc": 0.0})({"pdc": torch.ones(1)})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_part_that_is_not_finite_is_named(bad: float) -> None:
    losses = {"pdc": torch.ones(2), "cycle": torch.tensor([1.0, bad])}
    with pytest.raises(ValueRangeError, match=f"losses: found cycle = {bad}; expected finite numbers"):
        WeightedSum({"pdc": 1.0, "cycle": 1.0})(losses)
    assert not torch.isfinite(WeightedSum({"pdc": 1.0, "cycle": 1.0}, check=False)(losses).total)
    torch.testing.assert_close(WeightedSum({"pdc": 1.0})(losses).total, torch.tensor(1.0))


def test_weights_are_checked() -> None:
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueRangeError, match=r"weights\['pdc'\]: found"):
            WeightedSum({"pdc": bad})
    with pytest.raises(InputTypeError, match=r"weights\['pdc'\]: found str; expected a number"):
        WeightedSum({"pdc": "1"})
    with pytest.raises(ValueRangeError, match="found none above zero"):
        WeightedSum({"pdc": 0.0})
    with pytest.raises(ShapeError, match=r"losses\['pdc'\]: found \(2, 2\)"):
        WeightedSum({"pdc": 1.0})({"pdc": torch.ones(2, 2)})


# ------------------------------------------------------------------------------------------------ prior and catalogue
def test_prior_by_hand() -> None:
    """Three shape coefficients and one expression; the twelve numbers of the pose do not count."""
    whitened = torch.cat([torch.full((2, 12), 7.0), torch.tensor([[1.0, -2.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0]])], dim=1)
    torch.testing.assert_close(CoefficientPrior()(whitened), torch.tensor([14 / 4, 0.0]))
    torch.testing.assert_close(CoefficientPrior()(torch.ones(2, 12)), torch.zeros(2))
    assert CoefficientPrior()(whitened.half()).dtype == torch.float32
    with pytest.raises(ShapeError, match="whitened: found shape"):
        CoefficientPrior()(torch.ones(62))
    with pytest.raises(ShapeError, match="whitened: found 11 numbers; expected 12 or more"):
        CoefficientPrior()(torch.ones(2, 11))


def test_prior_of_the_faces_that_the_whitening_comes_from_is_one() -> None:
    generator = torch.Generator().manual_seed(0)
    faces = 3 + 5 * torch.randn(4000, 62, generator=generator, dtype=torch.float64)
    whitened = Whitening.from_samples(faces).whiten(faces)
    assert float(CoefficientPrior()(whitened).mean()) == pytest.approx(1, abs=1e-3)


def test_prior_gradient(device: torch.device) -> None:
    """It pulls each coefficient back in proportion, by 2 z / K, and leaves the pose alone."""
    whitened = torch.linspace(-2, 2, 2 * 62, device=device, dtype=torch.float64).reshape(2, 62).requires_grad_()
    assert torch.autograd.gradcheck(CoefficientPrior(), whitened)
    (pull,) = torch.autograd.grad(CoefficientPrior()(whitened).sum(), whitened)
    assert bool((pull[:, :12] == 0).all())
    torch.testing.assert_close(pull[:, 12:], 2 * whitened[:, 12:].detach() / 50)


def test_every_loss_is_in_the_catalogue_once() -> None:
    assert len(set(LOSS_NAMES)) == len(LOSS_NAMES) == len(set(LOSS_TITLES.values()))
    assert sorted(SUPERVISED + SELF_SUPERVISED) == sorted(LOSS_NAMES)
    weights = {field.name for kind in (StageConfig, SelfSupervisionConfig) for field in dataclasses.fields(kind)}
    assert set(LOSS_NAMES) <= weights
