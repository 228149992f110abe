"""Nonlinear least squares for the pose and coefficients of many faces at once.

The cost function::

    cost = sum_i w_i |f R (mean_i + B_i c) + t - x_i|^2  +  prior * |c|^2,     lower <= c <= upper

is minimised over scale f, rotation R, translation t (in the plane) and coefficients c of each face: Gauss-Newton with
the analytic Jacobian, Levenberg-Marquardt damping (Marquardt 1963), and projection onto the bounds (Bertsekas 1982).
All faces of a batch are solved together, without a loop; faces that have converged are left out of further steps.

The frame is y-up; points are columns here, ``(B, 3, N)``, because the sums run over the points. Values of about one are
assumed: :mod:`twodasl_lite.faces.fitting` centres faces at the origin and scales them to unit size. See chapter 4.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

POSE_FREEDOM = 6
"""Degrees of freedom of a pose (scale, three angles, two shifts)."""

_DAMPING_START, _DAMPING_MIN, _DAMPING_MAX = 1e-3, 1e-9, 1e9
_BOUND_ROUNDS = 4  # solves per step while coefficients run into their bounds


class Problem(NamedTuple):
    """A least-squares problem in units in which faces have size one and lie at the origin."""

    mean: torch.Tensor  # (1 or B, 3, N) the average face
    basis: torch.Tensor  # (3, N, K) displacement for one standard deviation of each coefficient
    target: torch.Tensor  # (B, 2, N)
    weights: torch.Tensor  # (B, N)
    prior: torch.Tensor  # (B,) factor of the sum of squared coefficients
    lower: torch.Tensor  # (K,)
    upper: torch.Tensor  # (K,)

    def take(self, faces: torch.Tensor) -> Problem:
        """The same problem for a subset of the faces."""
        return self._replace(
            mean=self.mean if self.mean.shape[0] == 1 else self.mean[faces],
            target=self.target[faces],
            weights=self.weights[faces],
            prior=self.prior[faces],
        )


class State(NamedTuple):
    """The unknowns of each face."""

    log_scale: torch.Tensor  # (B,)
    rotation: torch.Tensor  # (B, 3, 3)
    translation: torch.Tensor  # (B, 2)
    coefficients: torch.Tensor  # (B, K) in standard deviations

    def take(self, faces: torch.Tensor) -> State:
        """The unknowns of a subset of the faces."""
        return State(*(part[faces] for part in self))


def project_residuals(problem: Problem, state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotated and scaled landmarks ``(B, 3, N)`` and the residuals ``(B, 2, N)``."""
    count = problem.target.shape[-1]
    flat = torch.addmm(problem.mean.flatten(1), state.coefficients, problem.basis.flatten(0, 1).T)  # (B, 3N)
    placed = (state.log_scale.exp()[:, None, None] * state.rotation) @ flat.unflatten(-1, (3, count))
    return placed, placed[:, :2] + state.translation[..., None] - problem.target


def cost_of(problem: Problem, state: State) -> torch.Tensor:
    """Cost of each face, ``(B,)``."""
    _, residual = project_residuals(problem, state)
    data = (problem.weights[:, None] * residual.square()).sum(dim=(1, 2))
    return data + problem.prior * state.coefficients.square().sum(dim=-1)


def jacobian_of(problem: Problem, state: State) -> tuple[torch.Tensor, torch.Tensor]:
    """Jacobian of the residuals ``(B, 2N, 6 + K)`` and the residuals ``(B, 2N)``, all x before all y.

    The columns are log scale, rotation about the picture's x, y and z axis, shift in x and y, and coefficients.
    """
    placed, residual = project_residuals(problem, state)
    x, y, z = placed.unbind(1)  # (B, N) each
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    # A small rotation w moves a point P by w x P, a small change d of log scale by d P.
    pose_x = torch.stack([x, zero, z, -y, one, zero], dim=-1)  # (B, N, 6)
    pose_y = torch.stack([y, -z, zero, x, zero, one], dim=-1)
    camera = state.log_scale.exp()[:, None, None] * state.rotation[:, :2]  # (B, 2, 3)
    deform = (camera @ problem.basis.flatten(1)).view(*residual.shape, -1)  # (B, 2, N, K)
    jacobian = torch.cat([torch.stack([pose_x, pose_y], dim=1), deform], dim=-1)
    return jacobian.flatten(1, 2), residual.flatten(1)


def normal_equations(problem: Problem, state: State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half of the Gauss-Newton Hessian ``(B, P, P)`` and of the gradient ``(B, P)``; mask of free unknowns ``(B, P)``.

    A coefficient at a bound is not free if a descent step would push it beyond the bound.
    """
    jacobian, residual = jacobian_of(problem, state)
    root = problem.weights.sqrt().repeat(1, 2)  # (B, 2N)
    jacobian, residual = jacobian * root[..., None], residual * root
    hessian = jacobian.mT @ jacobian
    gradient = (jacobian.mT @ residual[..., None])[..., 0]
    hessian.diagonal(dim1=-2, dim2=-1)[:, POSE_FREEDOM:] += problem.prior[:, None]
    gradient[:, POSE_FREEDOM:] += problem.prior[:, None] * state.coefficients

    free = torch.ones_like(gradient, dtype=torch.bool)
    slope, value = gradient[:, POSE_FREEDOM:], state.coefficients
    stuck = ((value <= problem.lower) & (slope > 0)) | ((value >= problem.upper) & (slope < 0))
    free[:, POSE_FREEDOM:] = ~stuck
    return hessian, gradient * free, free


def factorise(hessian: torch.Tensor, free: torch.Tensor, damping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cholesky factor of the damped Hessian of the free unknowns, and whether it exists, ``(B,)``."""
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    # Relative to each unknown's own diagonal, so that the unknowns' units do not matter (Marquardt 1963).
    least = 8 * torch.finfo(hessian.dtype).eps
    extra = torch.where(free & (diagonal > 0), (damping[:, None] + least) * diagonal, torch.ones_like(diagonal))
    system = hessian * (free[:, :, None] & free[:, None, :]) + torch.diag_embed(extra)
    factor, failed = torch.linalg.cholesky_ex(system)
    return factor, failed == 0


def _step(problem: Problem, state: State, damping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One damped Gauss-Newton step ``(B, P)`` within the bounds, and the predicted decrease of the cost ``(B,)``.

    Coefficients that a step would move beyond a bound are set to the bound, and the others are solved for again. A face
    whose equations cannot be solved gets a zero step and an infinite predicted decrease.
    """
    hessian, gradient, free = normal_equations(problem, state)
    step = torch.zeros_like(gradient)
    usable = torch.ones_like(damping, dtype=torch.bool)
    todo = torch.arange(len(damping), device=damping.device)
    for _ in range(_BOUND_ROUNDS):
        system, held, may_move = hessian[todo], step[todo], free[todo]
        factor, usable[todo] = factorise(system, may_move, damping[todo])
        right = gradient[todo] + (system @ (held * ~may_move)[..., None])[..., 0]
        solution = -torch.cholesky_solve((right * may_move)[..., None], factor)[..., 0]
        proposal = torch.where(may_move, solution, held)
        room_down = problem.lower - state.coefficients[todo]  # (b, K)
        room_up = problem.upper - state.coefficients[todo]
        wanted = proposal[:, POSE_FREEDOM:]
        over = may_move[:, POSE_FREEDOM:] & ((wanted < room_down) | (wanted > room_up))
        proposal[:, POSE_FREEDOM:] = wanted.maximum(room_down).minimum(room_up)
        may_move[:, POSE_FREEDOM:] &= ~over
        step[todo], free[todo] = proposal, may_move
        todo = todo[over.any(dim=-1)]
        if todo.numel() == 0:
            break
    usable &= step.isfinite().all(dim=-1)
    step = torch.where(usable[:, None], step, torch.zeros_like(step))
    # A heavily damped step is short even far from the minimum: correct the predicted decrease for the damping.
    promised = -(gradient * step).sum(dim=-1) * (1 + damping)
    return step, promised.masked_fill(~usable, math.inf)


def _turn(vector: torch.Tensor) -> torch.Tensor:
    """Rotations ``(B, 3, 3)`` about axes ``(B, 3)``, approximately by their lengths in radians (Cayley transform).

    Exactly orthogonal for every length, and equal to the rotation by that angle to first order, which is enough here.
    """
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    factor = 4 / (4 + vector.square().sum(dim=-1))
    return torch.eye(3).to(vector) + factor[:, None, None] * (cross + cross @ cross / 2)


def apply_step(problem: Problem, state: State, step: torch.Tensor) -> State:
    """The state after a step ``(B, 6 + K)``, within the bounds."""
    return State(
        state.log_scale + step[:, 0].clamp(-1, 1),
        _turn(step[:, 1:4]) @ state.rotation,
        state.translation + step[:, 4:POSE_FREEDOM],
        (state.coefficients + step[:, POSE_FREEDOM:]).clamp(problem.lower, problem.upper),
    )


def minimise(
    problem: Problem, state: State, num_iterations: int, tolerance: torch.Tensor
) -> tuple[State, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Levenberg-Marquardt for all faces at once.

    Args:
        problem: Problem to solve.
        state: Initial state.
        num_iterations: Maximum number of steps.
        tolerance: Predicted decrease of the cost below which a face has converged, ``(B,)``.

    Returns:
        The best state, convergence ``(B,)``, iterations ``(B,)`` and costs ``(B, 1 + T)``.
    """
    state = State(*(part.clone() for part in state))  # updated in place below
    cost = cost_of(problem, state)
    history = [cost]
    damping = torch.full_like(cost, _DAMPING_START)
    converged = torch.zeros_like(cost, dtype=torch.bool)
    iterations = torch.zeros_like(cost, dtype=torch.long)
    eps = torch.finfo(cost.dtype).eps
    exact = (64 * eps) ** 2 * problem.weights.sum(dim=-1)  # rounding error for residuals of unit size
    for _ in range(num_iterations):
        faces = (~converged).nonzero()[:, 0]
        if faces.numel() == 0:
            break
        active = problem if faces.numel() == cost.numel() else problem.take(faces)
        here, cost_here, damping_here = state.take(faces), cost[faces], damping[faces]
        step, promised = _step(active, here, damping_here)
        trial = apply_step(active, here, step)
        trial_cost = cost_of(active, trial)
        better = trial_cost < cost_here

        for part, new in zip(state, trial, strict=True):
            part[faces[better]] = new[better]
        cost = cost.index_put((faces[better],), trial_cost[better])
        damping[faces] = torch.where(better, damping_here / 10, damping_here * 10).clamp(_DAMPING_MIN, _DAMPING_MAX)
        converged[faces] = promised <= tolerance[faces] + exact[faces] + 8 * eps * cost_here
        iterations[faces] += 1
        history.append(cost)
    return state, converged, iterations, torch.stack(history, dim=-1)
