"""The solver of the landmark fit, against formulas and against scipy's bounded solver."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twodasl_lite.faces.least_squares import Problem, State, apply_step, cost_of, factorise, minimise
from twodasl_lite.geometry.camera import euler_to_matrix

COUNT, SIZE = 30, 4


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_problem(state: State, *, low: float = -math.inf, high: float = math.inf, prior: float = 0.0) -> Problem:
    """A problem that a state solves exactly, if its coefficients are within the bounds and there is no prior."""
    batch = len(state.log_scale)
    mean, basis = 0.5 * random(1, 3, COUNT, seed=1), 0.1 * random(3, COUNT, SIZE, seed=2)
    points = mean + torch.einsum("cnk,bk->bcn", basis, state.coefficients)
    placed = (state.log_scale.exp()[:, None, None] * state.rotation @ points)[:, :2] + state.translation[..., None]
    weights = 0.5 + torch.rand(batch, COUNT, generator=torch.Generator().manual_seed(3)).double()
    return Problem(
        mean, basis, placed, weights, torch.full((batch,), prior).double(),
        torch.full((SIZE,), low).double(), torch.full((SIZE,), high).double(),
    )  # fmt: skip


def make_state(batch: int, spread: float = 0.3) -> State:
    return State(
        spread * random(batch, seed=4), euler_to_matrix(spread * random(batch, 3, seed=5)),
        spread * random(batch, 2, seed=6), random(batch, SIZE, seed=7),
    )  # fmt: skip


def start_of(batch: int) -> State:
    return State(
        torch.zeros(batch).double(), torch.eye(3).double().repeat(batch, 1, 1), torch.zeros(batch, 2).double(),
        torch.zeros(batch, SIZE).double(),
    )  # fmt: skip


def test_bounds_give_the_solution_of_scipy():
    """Half of the true coefficients lie beyond the bounds on either side, so that several end at a bound."""
    optimize = pytest.importorskip("scipy.optimize")
    spatial = pytest.importorskip("scipy.spatial.transform")
    batch = 6
    problem = make_problem(make_state(batch), low=-0.5, high=0.4, prior=0.02)
    state, converged, _, costs = minimise(problem, start_of(batch), 100, torch.full((batch,), 1e-12).double())
    assert bool(converged.all())
    at_low, at_high = state.coefficients < -0.5 + 1e-9, state.coefficients > 0.4 - 1e-9
    assert at_low.any()
    assert at_high.any()
    assert (~(at_low | at_high)).any()
    mean, basis = problem.mean[0].numpy(), problem.basis.numpy()
    for k in range(batch):
        target, root = problem.target[k].numpy(), problem.weights[k].sqrt().numpy()

        def residuals(x, target=target, root=root):
            turned = spatial.Rotation.from_rotvec(x[1:4]).as_matrix() @ (mean + basis @ x[6:])
            off = np.exp(x[0]) * turned[:2] + x[4:6, None] - target
            return np.concatenate([(off * root).ravel(), math.sqrt(0.02) * x[6:]])

        limits = np.array([np.inf] * 6 + [0.4] * SIZE), np.array([-np.inf] * 6 + [-0.5] * SIZE)
        expected = optimize.least_squares(residuals, np.zeros(6 + SIZE), bounds=limits[::-1], xtol=1e-14, ftol=1e-14)
        assert float(costs[k, -1]) == pytest.approx(2 * expected.cost, rel=1e-6)
        np.testing.assert_allclose(state.coefficients[k].numpy(), expected.x[6:], atol=1e-4)


def test_a_far_start_converges_and_the_cost_never_rises():
    """Turned by up to 100 degrees and four times too large, several first steps make it worse and must be damped."""
    truth = make_state(8, spread=1.0)
    problem = make_problem(truth)
    state, converged, iterations, costs = minimise(problem, start_of(8), 200, torch.full((8,), 1e-14).double())
    assert bool((costs.diff(dim=1) <= 0).all())
    assert bool((costs[:, :-1] == costs[:, 1:]).any()), "no step had to be taken back"
    solved = costs[:, -1] < 1e-12
    assert int(solved.sum()) >= 6  # the others end in the mirrored pose
    assert bool((iterations[solved] < 60).all())
    torch.testing.assert_close(state.coefficients[solved], truth.coefficients[solved], atol=1e-6, rtol=0)
    torch.testing.assert_close(state.rotation[solved], truth.rotation[solved], atol=1e-6, rtol=0)
    assert bool(converged[solved].all())


def test_a_solved_problem_stops_at_once():
    truth = make_state(3)
    _, converged, iterations, costs = minimise(make_problem(truth), truth, 50, torch.zeros(3).double())
    assert bool(converged.all())
    assert iterations.tolist() == [1, 1, 1]
    assert iterations.dtype == torch.long
    assert costs.shape == (3, 2)


def test_damping_is_relative_to_each_unknowns_own_diagonal():
    root = random(2, 5, 5, seed=8)
    hessian = root @ root.mT + torch.diag(torch.tensor([1.0, 10.0, 1e2, 1e3, 1e4]).double())
    free = torch.ones(2, 5, dtype=torch.bool)
    free[1, 2] = False
    damping = torch.tensor([0.5, 3.0]).double()
    factor, exists = factorise(hessian, free, damping)
    assert bool(exists.all())
    expected = hessian.clone()
    expected[0].diagonal().mul_(1.5)
    expected[1].diagonal().mul_(4.0)
    expected[1, 2, :] = expected[1, :, 2] = 0.0
    expected[1, 2, 2] = 1.0  # an unknown that may not move gets an equation of its own
    torch.testing.assert_close(factor @ factor.mT, expected, rtol=1e-10, atol=1e-10)
    empty = torch.zeros(1, 5, 5).double()
    assert bool(factorise(empty, free[:1], damping[:1])[1]), "unknowns that nothing depends on stay where they are"


def test_a_step_is_applied_within_the_bounds():
    problem = make_problem(make_state(1), low=-0.5, high=0.4)
    state = start_of(1)
    step = torch.tensor([[3.0, 0.0, 0.0, 0.2, 0.7, -0.6, -2.0, 0.1, 2.0, 0.4]]).double()
    after = apply_step(problem, state, step)
    torch.testing.assert_close(after.log_scale, torch.tensor([1.0]).double())  # at most one: a factor of e
    torch.testing.assert_close(apply_step(problem, state, -step).log_scale, torch.tensor([-1.0]).double())
    torch.testing.assert_close(after.translation, torch.tensor([[0.7, -0.6]]).double())
    torch.testing.assert_close(after.coefficients, torch.tensor([[-0.5, 0.1, 0.4, 0.4]]).double())
    torch.testing.assert_close(after.rotation @ after.rotation.mT, torch.eye(3).double()[None])
    angle = 2 * math.atan(0.1)  # of the Cayley transform, 0.2 to first order
    torch.testing.assert_close(after.rotation[0, 1, 0], torch.tensor(math.sin(angle)).double())


def test_cost_is_the_formulas():
    truth = make_state(2)
    problem = make_problem(truth, prior=0.3)
    moved = truth._replace(translation=truth.translation + torch.tensor([0.1, -0.2]).double())
    expected = problem.weights.sum(dim=1) * (0.01 + 0.04) + 0.3 * truth.coefficients.square().sum(dim=1)
    torch.testing.assert_close(cost_of(problem, moved), expected)
