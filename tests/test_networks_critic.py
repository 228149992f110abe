"""The critic: it scores each sample independently, ignores missing landmarks, and has a gradient everywhere."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import ShapeError
from twodasl_lite.networks import Critic


def pairs(count: int = 5, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    whitened = torch.randn(count, 62, generator=generator, dtype=dtype)
    landmarks = torch.randn(count, 18, 2, generator=generator, dtype=dtype)
    return whitened, landmarks, torch.rand(count, 18, generator=generator) < 0.7


def make(**options) -> Critic:
    torch.manual_seed(0)
    return Critic(**options)


@pytest.mark.parametrize("spectral", [False, True])
def test_each_pair_is_scored_alone(spectral: bool, device: torch.device) -> None:
    critic = make(spectral=spectral).to(device).eval()
    whitened, landmarks, visible = (part.to(device) for part in pairs())
    scores = critic(whitened, landmarks, visible)
    assert scores.shape == (5,)
    single = torch.cat([critic(whitened[k : k + 1], landmarks[k : k + 1], visible[k : k + 1]) for k in range(5)])
    torch.testing.assert_close(scores, single, rtol=1e-4, atol=1e-6)
    assert float(scores.detach().std()) > 0


def test_hidden_landmarks_do_not_count() -> None:
    critic = make()
    whitened, landmarks, visible = pairs()
    other = torch.where(visible[..., None], landmarks, torch.full_like(landmarks, float("nan")))
    assert torch.equal(critic(whitened, other, visible), critic(whitened, landmarks, visible))
    moved = landmarks + visible[..., None] * 0.1
    assert not torch.equal(critic(whitened, moved, visible), critic(whitened, landmarks, visible))


def test_visibility_itself_counts() -> None:
    whitened, landmarks, visible = pairs()
    landmarks = torch.zeros_like(landmarks)
    critic = make()
    assert not torch.equal(critic(whitened, landmarks, visible), critic(whitened, landmarks, ~visible))


def test_gradients_are_finite_with_missing_landmarks() -> None:
    critic = make()
    whitened, landmarks, visible = pairs()
    landmarks = torch.where(visible[..., None], landmarks, torch.full_like(landmarks, float("nan")))
    whitened.requires_grad_()
    landmarks.requires_grad_()
    critic(whitened, landmarks, visible).sum().backward()
    for gradient in (whitened.grad, landmarks.grad, *(parameter.grad for parameter in critic.parameters())):
        assert bool(torch.isfinite(gradient).all())
    assert float(landmarks.grad[~visible].abs().max()) == 0
    assert float(landmarks.grad[visible].abs().min()) > 0


def test_the_depth_translation_is_not_judged() -> None:
    critic = make()
    whitened, landmarks, visible = pairs()
    whitened.requires_grad_()
    critic(whitened, landmarks, visible).sum().backward()
    unused = (whitened.grad == 0).all(dim=0).nonzero().flatten().tolist()
    assert unused == [11]  # row 2, column 3 of the 3x4 pose


def test_gradients_agree_with_finite_differences() -> None:
    critic = make(hidden=16).double()
    whitened, landmarks, visible = pairs(2, torch.float64)
    inputs = (whitened.requires_grad_(), landmarks.requires_grad_())
    assert torch.autograd.gradcheck(lambda c, x: critic(c, x, visible), inputs)


def test_spectral_normalisation_bounds_the_slope() -> None:
    critic = make(spectral=True)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.mul_(20)  # has no effect: each layer is divided by its largest singular value
    for _ in range(60):
        critic(*pairs())  # a power iteration per call in training mode
    critic.eval()
    whitened, landmarks, visible = pairs(64)
    direction = torch.randn_like(whitened)
    step = 0.1 * direction
    with torch.no_grad():
        change = (critic(whitened + step, landmarks, visible) - critic(whitened, landmarks, visible)).abs()
    assert bool((change <= 1.05 * step.norm(dim=1)).all())
    assert float(change.max()) > 0


def test_it_learns_which_belong_together() -> None:
    """Landmarks that follow from the coefficients, against the same ones of other samples."""
    critic = make(hidden=64)
    generator = torch.Generator().manual_seed(2)
    rule = torch.randn(62, 36, generator=generator) / 4
    optimiser = torch.optim.Adam(critic.parameters(), 2e-3)
    visible = torch.ones(128, 18, dtype=torch.bool)
    for step in range(150):
        whitened = torch.zeros(128, 62)
        whitened[:, :3] = torch.randn(128, 3, generator=generator)
        landmarks = (whitened @ rule).unflatten(1, (18, 2))
        real = critic(whitened, landmarks, visible)
        fake = critic(whitened.roll(1, 0), landmarks, visible)
        if step < 149:
            optimiser.zero_grad()
            ((real - 1).square() + fake.square()).mean().backward()
            optimiser.step()
    assert float((real > 0.5).float().mean()) > 0.8
    assert float((fake < 0.5).float().mean()) > 0.8


def test_wrong_shapes_are_refused() -> None:
    whitened, landmarks, visible = pairs()
    critic = make()
    with pytest.raises(ShapeError, match="whitened"):
        critic(whitened[:, :50], landmarks, visible)
    with pytest.raises(ShapeError, match="landmarks"):
        critic(whitened, landmarks[:3], visible)
    with pytest.raises(ShapeError, match="visible"):
        critic(whitened, landmarks, visible[:, :17])
