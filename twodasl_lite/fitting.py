"""Coefficients from 2D landmarks, without a network: pose first, then pose, shape and expression together.

Given landmarks x_i in a picture and a morphable model, find the face whose landmarks project onto them:

    cost = sum_i w_i |f R (mean_i + A_i s + E_i e) + t - x_i|^2  +  regularisation * noise^2 * sum_k (c_k / std_k)^2

with c = (s, e), the first sum over x and y, everything in pixels. This is the maximum a posteriori estimate: landmarks
with Gaussian noise of deviation ``noise`` per coordinate, coefficients with the model's own deviations (Blanz & Vetter
1999, section 4). With ``regularisation=1`` the two terms are weighed as the noise says; larger values pull towards the
average face, infinity gives its pose alone. The noise is by default a fraction of the face's size in the picture, so
the answer does not depend on the resolution.

1. **Pose**: closed form for the average face (linear least squares for the 2x3 matrix f R, made a scaled rotation),
   then refined by Gauss-Newton.
2. **Everything**: Gauss-Newton with Levenberg's damping on scale, rotation (in its tangent space), translation and all
   coefficients, with the analytic Jacobian. Blendshape activations stay within [0, 1] (projected Newton steps,
   Bertsekas 1982).

The whole batch moves at once; faces that have converged stand still. Weak perspective sees no depth, so t_z is a
convention: it makes the mean depth of the landmarks zero. Landmarks of the jaw that slide along the outline of a turned
face are not matched anew: give them small weights if your detector marks the outline. Points are 0-based pixels, y
down; internally everything happens in the y-up frame of :mod:`twodasl_lite.camera`. Explained in chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from twodasl_lite.camera import CROP_SIZE, make_pose, nearest_rotation, pixels_to_frame
from twodasl_lite.coefficients import Coefficients
from twodasl_lite.errors import InputTypeError, ShapeError, ValueRangeError, check_finite, check_tensor
from twodasl_lite.landmarks import NUM_LANDMARKS
from twodasl_lite.morphable.model import MorphableModel

LANDMARK_NOISE = 0.02
"""Deviation per coordinate that is assumed of a landmark, as a fraction of the face's size. Detectors have a mean error
of 2 to 4 % (Tu et al. 2019, section 4), a distance in two coordinates."""

MIN_LANDMARKS = 4
"""Fewest landmarks that determine a pose: three leave two mirrored answers."""

POSE_FREEDOM = 6
"""Scale, three angles, two shifts."""

_CHUNK = 512  # faces solved at once; bounds the memory of a fit of many thousand faces
_FLAT = 1e-4  # points whose variances have a smaller ratio than this lie on a line
_SHALLOW = 1e-2  # below this ratio a third axis is too short to measure directions along it
_BEHIND = -0.5  # R[2, 2] of a face turned 120 degrees away; no detector marks such a face
_DAMPING_START, _DAMPING_MIN, _DAMPING_MAX = 1e-3, 1e-9, 1e9
_BOUND_ROUNDS = 4  # solves per step while coefficients run into their bounds
_POSE_ITERATIONS = 20
_TOLERANCE = 1e-4


class Uncertainty(NamedTuple):
    """How well the landmarks and the prior determine the answer: one standard deviation (Laplace's approximation).

    Attributes:
        rotation: ``(B, 3)`` radians, about the picture's x, y and z axes.
        shape: ``(B, Ks)`` in the units of the shape coefficients.
        expression: ``(B, Ke)`` in those of the expression coefficients; zero for activations held at a bound.
    """

    rotation: torch.Tensor
    shape: torch.Tensor
    expression: torch.Tensor


@dataclass(frozen=True)
class FitResult:
    """The faces found, and how well they fit.

    Attributes:
        coefficients: Pose ``(B, 3, 4)``, shape ``(B, Ks)``, expression ``(B, Ke)``; decodes with the model fitted.
        residual: ``(B, N)`` distance of each fitted landmark from the given one, in pixels (NaN where the given one is).
        rms: ``(B,)`` root of the weighted mean of the squared residuals, in pixels.
        noise: ``(B,)`` deviation per coordinate that was assumed, in pixels.
        converged: ``(B,)`` whether a further step would have been without effect.
        iterations: ``(B,)`` steps that were tried for each face.
        cost: ``(B, 1 + T)`` the cost in squared pixels, at the start and after each step; never increases.
        uncertainty: The answer's deviations, if asked for.
    """

    coefficients: Coefficients
    residual: torch.Tensor
    rms: torch.Tensor
    noise: torch.Tensor
    converged: torch.Tensor
    iterations: torch.Tensor
    cost: torch.Tensor
    uncertainty: Uncertainty | None = None

    def summary(self) -> str:
        """One line for a person.

        Returns:
            Such as ``"64 faces: 64 converged in 4 to 6 steps, median error 1.21 px, largest 2.02 px"``.
        """
        count = self.rms.numel()
        return (
            f"{count} face{'' if count == 1 else 's'}: {int(self.converged.sum())} converged in "
            f"{int(self.iterations.min())} to {int(self.iterations.max())} steps, "
            f"median error {float(self.rms.median()):.2f} px, largest {float(self.rms.max()):.2f} px"
        )


# ------------------------------------------------------------------------------------------------- the least squares
class _Problem(NamedTuple):
    """What is minimised, in units in which faces have size one and lie at the origin."""

    mean: torch.Tensor  # (1 or B, 3, N) the average face
    basis: torch.Tensor  # (3, N, K) what one standard deviation of each coefficient moves
    target: torch.Tensor  # (B, 2, N)
    weights: torch.Tensor  # (B, N)
    prior: torch.Tensor  # (B,) factor of the sum of squared coefficients
    lower: torch.Tensor  # (K,)
    upper: torch.Tensor  # (K,)


class _State(NamedTuple):
    """The unknowns of each face."""

    log_scale: torch.Tensor  # (B,)
    rotation: torch.Tensor  # (B, 3, 3)
    translation: torch.Tensor  # (B, 2)
    coefficients: torch.Tensor  # (B, K) in standard deviations


def _select(mask: torch.Tensor, new: _State, old: _State) -> _State:
    """Per face the new state where the mask is set, else the old one."""
    return _State(
        *(torch.where(mask.view(-1, *[1] * (b.ndim - 1)), a, b) for a, b in zip(new, old, strict=True)),
    )


def _placed(problem: _Problem, state: _State) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotated and scaled landmarks ``(B, 3, N)`` and the residuals ``(B, 2, N)``."""
    count = problem.target.shape[-1]
    flat = torch.addmm(problem.mean.flatten(1), state.coefficients, problem.basis.flatten(0, 1).T)  # (B, 3N)
    placed = (state.log_scale.exp()[:, None, None] * state.rotation) @ flat.unflatten(-1, (3, count))
    return placed, placed[:, :2] + state.translation[..., None] - problem.target


def _cost(problem: _Problem, state: _State) -> torch.Tensor:
    """``(B,)``."""
    _, residual = _placed(problem, state)
    data = (problem.weights[:, None] * residual.square()).sum(dim=(1, 2))
    return data + problem.prior * state.coefficients.square().sum(dim=-1)


def _jacobian(problem: _Problem, state: _State) -> tuple[torch.Tensor, torch.Tensor]:
    """Derivative of the residuals ``(B, 2N, 6 + K)`` and the residuals ``(B, 2N)``, all x before all y.

    The columns: log scale, rotation about the picture's x, y and z axis, shift in x and y, coefficients.
    """
    placed, residual = _placed(problem, state)
    x, y, z = placed.unbind(1)  # (B, N) each
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    # A small rotation w moves a point P by w x P, a small change d of log scale by d P.
    pose_x = torch.stack([x, zero, z, -y, one, zero], dim=-1)  # (B, N, 6)
    pose_y = torch.stack([y, -z, zero, x, zero, one], dim=-1)
    camera = state.log_scale.exp()[:, None, None] * state.rotation[:, :2]  # (B, 2, 3)
    deform = (camera @ problem.basis.flatten(1)).view(*residual.shape, -1)  # (B, 2, N, K)
    jacobian = torch.cat([torch.stack([pose_x, pose_y], dim=1), deform], dim=-1)
    return jacobian.flatten(1, 2), residual.flatten(1)


def _normal_equations(problem: _Problem, state: _State) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Half of the Hessian (Gauss-Newton) ``(B, P, P)``, half of the gradient ``(B, P)``, and which may move ``(B, P)``.

    A coefficient at a bound that the gradient would push out stays where it is.
    """
    jacobian, residual = _jacobian(problem, state)
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


def _factor(hessian: torch.Tensor, free: torch.Tensor, damping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Cholesky factor of the damped Hessian of the free unknowns, and ``(B,)`` whether there is one."""
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    floor = torch.finfo(hessian.dtype).eps * diagonal.amax(dim=-1, keepdim=True)
    extra = torch.where(free, damping[:, None] * diagonal + floor, torch.ones_like(diagonal))
    system = hessian * (free[:, :, None] & free[:, None, :]) + torch.diag_embed(extra)
    factor, failed = torch.linalg.cholesky_ex(system)
    return factor, failed == 0


def _step(problem: _Problem, state: _State, damping: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One damped Gauss-Newton step ``(B, P)`` within the bounds, and the decrease of the cost it promises ``(B,)``.

    Coefficients that a step would carry over a bound are set down on it and the others solved for again. A face whose
    equations cannot be solved gets no step and an infinite promise.
    """
    hessian, gradient, free = _normal_equations(problem, state)
    step = torch.zeros_like(gradient)
    for _ in range(_BOUND_ROUNDS):
        factor, solvable = _factor(hessian, free, damping)
        right = gradient + (hessian @ (step * ~free)[..., None])[..., 0]
        solution = -torch.cholesky_solve((right * free)[..., None], factor)[..., 0]
        step = torch.where(free, solution, step)
        room_down = problem.lower - state.coefficients  # (B, K)
        room_up = problem.upper - state.coefficients
        wanted = step[:, POSE_FREEDOM:]
        over = free[:, POSE_FREEDOM:] & ((wanted < room_down) | (wanted > room_up))
        if not bool(over.any()):
            break
        step[:, POSE_FREEDOM:] = wanted.maximum(room_down).minimum(room_up)
        free[:, POSE_FREEDOM:] &= ~over
    usable = solvable & step.isfinite().all(dim=-1)
    step = torch.where(usable[:, None], step, torch.zeros_like(step))
    # A heavily damped step is short although much may be left to gain: undo that in what it promises.
    promised = -(gradient * step).sum(dim=-1) * (1 + damping)
    return step, promised.masked_fill(~usable, math.inf)


def _moved(problem: _Problem, state: _State, step: torch.Tensor) -> _State:
    """The state after a step ``(B, 6 + K)``, within the bounds."""
    turn = torch.linalg.matrix_exp(_cross_matrix(step[:, 1:4]))
    return _State(
        state.log_scale + step[:, 0].clamp(-1, 1),
        turn @ state.rotation,
        state.translation + step[:, 4:POSE_FREEDOM],
        (state.coefficients + step[:, POSE_FREEDOM:]).clamp(problem.lower, problem.upper),
    )


def _cross_matrix(vector: torch.Tensor) -> torch.Tensor:
    """``(B, 3)`` to the matrix ``(B, 3, 3)`` of its cross product."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def _minimise(
    problem: _Problem, state: _State, num_iterations: int, tolerance: torch.Tensor
) -> tuple[_State, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Levenberg-Marquardt for all faces at once.

    Args:
        problem: What to minimise.
        state: Where to start.
        num_iterations: Most steps.
        tolerance: ``(B,)``; a face is done when a step promises a smaller decrease of the cost.

    Returns:
        The best state, converged ``(B,)``, iterations ``(B,)``, costs ``(B, 1 + T)``.
    """
    cost = _cost(problem, state)
    history = [cost]
    damping = torch.full_like(cost, _DAMPING_START)
    converged = torch.zeros_like(cost, dtype=torch.bool)
    iterations = torch.zeros_like(cost, dtype=torch.long)
    rounding = 8 * torch.finfo(cost.dtype).eps
    for _ in range(num_iterations):
        step, promised = _step(problem, state, damping)
        trial = _moved(problem, state, step)
        trial_cost = _cost(problem, trial)
        accepted = (trial_cost < cost) & ~converged
        iterations += ~converged

        converged = converged | (promised <= tolerance + rounding * cost)
        damping = torch.where(accepted, damping / 10, damping * 10).clamp(_DAMPING_MIN, _DAMPING_MAX)
        state = _select(accepted, trial, state)
        cost = torch.where(accepted, trial_cost, cost)
        history.append(cost)
        if bool(converged.all()):
            break
    return state, converged, iterations, torch.stack(history, dim=-1)


# --------------------------------------------------------------------------------------------------------- the pose
def _weighted_mean(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over the last dimension: points ``(B or 1, D, N)``, weights ``(B, N)``, result ``(B, D)``."""
    return (points * weights[:, None]).sum(dim=-1) / weights.sum(dim=-1, keepdim=True)


def _variances(points: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal variances, ascending ``(B, D)``, and axes in columns ``(B, D, D)`` of centred points ``(B, D, N)``."""
    spread = (points * weights[:, None]) @ points.mT / weights.sum(dim=-1)[:, None, None]
    return torch.linalg.eigh(spread)


def _check_spread(name: str, variances: torch.Tensor) -> None:
    """Refuse points on a line (or all in one place)."""
    flat = variances[:, -2] <= _FLAT * variances[:, -1]
    if bool(flat.any()):
        raise ValueRangeError(
            f"{name}: found points that lie on a line, or in one place, for face {int(flat.nonzero()[0])} "
            f"({int(flat.sum())} of {flat.numel()} faces); expected points spread over a plane or more: a line does "
            "not determine a pose"
        )


def _closed_form_pose(problem: _Problem) -> _State:
    """Pose by linear least squares, made a scaled rotation. Points must be centred under the weights.

    Along their principal axes the columns of the 2x3 matrix f R are independent least-squares solutions. Points near a
    plane do not determine the column along its normal: it follows, but for its sign, from the two rows of f R being
    orthogonal and of one length, and its sign from whatever depth the points have (Oberkampf et al. 1996).
    """
    points, target, weights = problem.mean, problem.target, problem.weights
    variances, axes = _variances(points, weights)
    _check_spread("points", variances)
    _check_spread("landmarks", _variances(target, weights)[0])

    along = axes.mT @ points  # (B, 3, N) ascending: normal, second, first axis
    weighted = along * weights[:, None]
    products = target @ weighted.mT  # (B, 2, 3)
    floor = torch.finfo(points.dtype).tiny
    columns = products / weighted.mul(along).sum(dim=-1).clamp(min=floor)[:, None]
    plane = columns[..., 1:]  # (B, 2, 2)
    lengths, directions = torch.linalg.eigh(plane @ plane.mT)  # squared, ascending
    normal = directions[..., 0] * (lengths[:, 1:] - lengths[:, :1]).sqrt()  # (B, 2)
    sign = torch.where((normal * products[..., 0]).sum(dim=-1, keepdim=True) < 0, -1.0, 1.0)
    deep = variances[:, :1] > _SHALLOW * variances[:, 2:]
    matrix = torch.cat([torch.where(deep, columns[..., 0], sign * normal)[..., None], plane], dim=-1) @ axes.mT
    scale = matrix.norm(dim=-1).mean(dim=-1)
    centre = torch.zeros_like(target[..., 0])
    return _State(scale.log(), nearest_rotation(matrix), centre, target.new_zeros(target.shape[0], 0))


class _Frame(NamedTuple):
    """The similarity that takes pixels and model units to those of a :class:`_Problem`."""

    centre: torch.Tensor  # (B, 2) of the landmarks, y up
    size: torch.Tensor  # (B,) of a face in pixels
    model_centre: torch.Tensor  # (B, 3)
    model_size: torch.Tensor  # (1 or B,)

    def scale_and_shift(self, state: _State) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels per model unit ``(B,)`` and the translation in x and y ``(B, 2)``."""
        scale = state.log_scale.exp() * self.size / self.model_size
        turned = (state.rotation[:, :2] @ self.model_centre[..., None])[..., 0]
        return scale, self.size[:, None] * state.translation + self.centre - scale[:, None] * turned


def _pose_problem(
    landmarks: torch.Tensor, points: torch.Tensor, weights: torch.Tensor, model_size: torch.Tensor | None = None
) -> tuple[_Problem, _Frame]:
    """Rigid problem from landmarks ``(B, N, 2)``, y up, points ``(1 or B, N, 3)`` and weights ``(B, N)``."""
    target, points = landmarks.mT, points.mT  # (B, 2, N), (B, 3, N)
    centre, model_centre = _weighted_mean(target, weights), _weighted_mean(points, weights)
    target, points = target - centre[..., None], points - model_centre[..., None]
    size = _weighted_mean(target.square(), weights).sum(dim=-1).sqrt()
    if model_size is None:
        model_size = _weighted_mean(points.square(), weights).sum(dim=-1).sqrt()
    for name, value in (("landmarks", size), ("points", model_size)):
        if bool((value <= 0).any()):
            raise ValueRangeError(f"{name}: found points that are all in one place; expected points spread over a plane")
    none = points.new_zeros(0)
    problem = _Problem(
        points / model_size[:, None, None],
        points.new_zeros(3, points.shape[-1], 0),
        target / size[:, None, None],
        weights,
        torch.zeros_like(size),
        none,
        none,
    )
    return problem, _Frame(centre, size, model_centre, model_size)


def _solve_pose(problem: _Problem, num_iterations: int) -> _State:
    """Closed form, then Gauss-Newton."""
    state = _closed_form_pose(problem)
    tolerance = 1e-8 * problem.weights.sum(dim=-1)  # targets have unit size: a ten-thousandth of the face
    return _minimise(problem, state, num_iterations, tolerance)[0]


def _checked_weights(
    weights: torch.Tensor | None, landmarks: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(B, N)``, and the landmarks with those of no weight set to zero."""
    batch, count = landmarks.shape[:2]
    if weights is None:
        weights = landmarks.new_ones(batch, count)
    else:
        weights = torch.as_tensor(weights)
        pattern = (count,) if weights.ndim == 1 else (batch, count)
        if weights.dtype == torch.bool:
            weights = weights.to(landmarks.dtype)
        weights = check_tensor("weights", weights, pattern, dtype=landmarks.dtype, device=landmarks.device)
        if bool((weights < 0).any()):
            raise ValueRangeError(f"weights: found {float(weights.min())}; expected zero or more")
        weights = weights.expand(batch, count)
    used = weights > 0
    fewest = int(used.sum(dim=-1).min())
    if fewest < MIN_LANDMARKS:
        face = int(used.sum(dim=-1).argmin())
        raise ValueRangeError(
            f"landmarks: found {fewest} of weight above zero for face {face}; expected at least {MIN_LANDMARKS}: a pose "
            f"has {POSE_FREEDOM} unknowns, and three points leave two mirrored answers"
        )
    landmarks = torch.where(used[..., None], landmarks, torch.zeros_like(landmarks))
    check_finite("landmarks", landmarks)
    return weights, landmarks


def _checked_count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputTypeError(f"{name}: found {value!r}; expected a whole number")
    if value < 1:
        raise ValueRangeError(f"{name}: found {value}; expected 1 or more")
    return value


@torch.no_grad()
def fit_pose(
    landmarks: torch.Tensor,
    points: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    height: float = CROP_SIZE,
    num_iterations: int = _POSE_ITERATIONS,
) -> torch.Tensor:
    """The weak-perspective pose of known 3D points, by least squares in the picture.

    Points of a flat object leave two poses, mirrored in depth, of equal cost; one of them is returned.

    Args:
        landmarks: ``(B, N, 2)`` in 0-based pixels, y down; any value (also NaN) where the weight is zero.
        points: ``(B, N, 3)`` or ``(N, 3)``, the same points in the model frame.
        weights: ``(B, N)`` or ``(N,)``, zero or more; all one by default.
        height: Height in pixels of the crop (or image), which the frame of the pose is counted from.
        num_iterations: Most Gauss-Newton steps after the closed form.

    Returns:
        ``(B, 3, 4)`` ``[f R | t]`` to the crop frame; t_z makes the points' (weighted) mean depth zero.

    Raises:
        ShapeError: If the shapes do not fit together.
        ValueRangeError: If values are not finite, fewer than 4 points have weight, or they lie on a line.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> picture = torch.tensor([[[9.0, 110], [19, 110], [9, 100], [9, 110]]])
        >>> fit_pose(picture, corners)[0, :2, :3].round()
        tensor([[10.,  0.,  0.],
                [ 0., 10.,  0.]])
    """
    points = check_tensor("points", points, ("...", "N", 3))
    landmarks = check_tensor(
        "landmarks", landmarks, ("B", points.shape[-2], 2), finite=False, dtype=points.dtype, device=points.device
    )
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[0] not in (1, landmarks.shape[0]):
        raise ShapeError(
            f"points: found shape {tuple(points.shape)}; expected (N, 3) or (B, N, 3) with B = {landmarks.shape[0]}"
        )
    num_iterations = _checked_count("num_iterations", num_iterations)
    if landmarks.shape[0] == 0:
        return points.new_zeros(0, 3, 4)
    weights, landmarks = _checked_weights(weights, landmarks)
    problem, frame = _pose_problem(pixels_to_frame(landmarks, height), points, weights)
    state = _solve_pose(problem, num_iterations)
    return _assemble_pose(state, frame, _weighted_mean(points.mT, weights))


def _assemble_pose(state: _State, frame: _Frame, middle: torch.Tensor) -> torch.Tensor:
    """``(B, 3, 4)`` with t_z such that the point ``middle`` ``(B, 3)`` has depth zero."""
    rotation = nearest_rotation(state.rotation)
    scale, shift = frame.scale_and_shift(state._replace(rotation=rotation))
    depth = -scale * (rotation[:, 2] * middle).sum(dim=-1)
    return make_pose(scale, rotation, torch.cat([shift, depth[:, None]], dim=-1))


# ---------------------------------------------------------------------------------------------------- everything
def _checked_indices(indices: Sequence[int] | torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Which of the 68 are given, ``(N,)``."""
    if indices is None:
        return torch.arange(NUM_LANDMARKS, device=device)
    index = torch.as_tensor(indices, device=device)
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise InputTypeError(f"indices: found {index.dtype}; expected whole numbers")
    if index.ndim != 1:
        raise ShapeError(f"indices: found shape {tuple(index.shape)}; expected (N,)")
    if index.numel() and (int(index.min()) < 0 or int(index.max()) >= NUM_LANDMARKS):
        raise ValueRangeError(
            f"indices: found {int(index.min())} to {int(index.max())}; expected 0 to {NUM_LANDMARKS - 1}"
        )
    if index.unique().numel() != index.numel():
        raise ValueRangeError("indices: found a landmark more than once; expected each at most once")
    return index.long()


def _checked_noise(noise: float | torch.Tensor | None, batch: int, like: torch.Tensor) -> torch.Tensor | None:
    if noise is None:
        return None
    noise = torch.as_tensor(noise, dtype=like.dtype, device=like.device)
    if noise.ndim == 0:
        noise = noise.expand(batch)
    noise = check_tensor("noise", noise, (batch,))
    if bool((noise <= 0).any()):
        raise ValueRangeError(f"noise: found {float(noise.min())}; expected pixels above zero")
    return noise


def _check_facing(rotation: torch.Tensor) -> None:
    """Refuse faces seen from behind: what y-up coordinates or mirrored indices look like."""
    away = rotation[:, 2, 2] < _BEHIND
    if bool(away.any()):
        raise ValueRangeError(
            f"landmarks: found the face seen from behind for face {int(away.nonzero()[0])} ({int(away.sum())} of "
            f"{away.numel()} faces); expected pixels with y down and landmarks in iBUG order (upside-down or mirrored "
            "coordinates look like this)"
        )


@torch.no_grad()
def fit_landmarks(
    landmarks: torch.Tensor,
    model: MorphableModel,
    *,
    indices: Sequence[int] | torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
    height: float = CROP_SIZE,
    regularisation: float = 1.0,
    noise: float | torch.Tensor | None = None,
    num_iterations: int = 30,
    tolerance: float = _TOLERANCE,
    uncertainty: bool = False,
) -> FitResult:
    """Pose, shape and expression of faces from their 2D landmarks.

    Computed in the model's floating-point type and on its device. Not differentiable.

    Args:
        landmarks: ``(B, N, 2)`` in 0-based pixels, y down; any value (also NaN) where the weight is zero.
        model: The face model.
        indices: ``(N,)`` which of the 68 landmarks are given, in iBUG order; all 68 by default.
        weights: ``(B, N)`` or ``(N,)``, zero or more; all one by default. A landmark of weight 4 counts as if its
            noise were half; one of weight 0 as if it were not there.
        height: Height in pixels of the crop (or image) that the landmarks were marked in; the pose refers to it.
        regularisation: Weight of the prior, zero or more. 1 is the most probable face under ``noise``; infinity gives
            the average face, 0 no prior (needs 2 N equations for 6 + Ks + Ke unknowns).
        noise: Standard deviation of the landmarks per coordinate, in pixels, a number or ``(B,)``; by default
            :data:`LANDMARK_NOISE` times the face's size (the root of the area of the box round the average face's 68
            landmarks, seen from the front at the scale found).
        num_iterations: Most Gauss-Newton steps.
        tolerance: A face has converged when the next step promises to lower the cost by less than this times
            ``noise**2``, that is, hardly changes how probable the face is.
        uncertainty: Whether to compute standard deviations of the answer, too.

    Returns:
        The coefficients and how well they fit.

    Raises:
        ShapeError: If the shapes do not fit together.
        ValueRangeError: If values are not finite or out of range, fewer than 4 landmarks have weight, they lie on a
            line, a face is seen from behind (as with y up), or there is neither a prior nor enough landmarks.

    Example:
        >>> result = fit_landmarks(points, load_face_model(), height=image.height)  # doctest: +SKIP
        >>> result.summary()  # doctest: +SKIP
        '1 face: 1 converged in 5 to 5 steps, median error 1.21 px, largest 1.21 px'
    """
    if not isinstance(model, MorphableModel):
        raise InputTypeError(f"model: found {type(model).__name__}; expected a MorphableModel")
    like = model.mean
    index = _checked_indices(indices, like.device)
    landmarks = check_tensor(
        "landmarks", landmarks, ("B", index.numel(), 2), finite=False, dtype=like.dtype, device=like.device
    )
    batch = landmarks.shape[0]
    num_iterations = _checked_count("num_iterations", num_iterations)
    for name, value in (("regularisation", regularisation), ("tolerance", tolerance)):
        if not value >= 0:  # also true of NaN
            raise ValueRangeError(f"{name}: found {value}; expected zero or more")
    noise = _checked_noise(noise, batch, like)
    unknowns = POSE_FREEDOM + model.num_shape + model.num_expression
    if regularisation == 0 and 2 * index.numel() < unknowns:
        raise ValueRangeError(
            f"regularisation: found 0 with {2 * index.numel()} equations for {unknowns} unknowns; expected a number "
            "above zero, more landmarks or a model with fewer components (model.truncate)"
        )
    if batch == 0:
        return _empty(model, index.numel())
    filled_weights, filled = _checked_weights(weights, landmarks)
    frame_points = pixels_to_frame(filled, height)

    parts = [
        _fit_chunk(
            frame_points[first : first + _CHUNK],
            filled_weights[first : first + _CHUNK],
            model,
            index,
            float(regularisation),
            None if noise is None else noise[first : first + _CHUNK],
            num_iterations,
            float(tolerance),
            uncertainty,
        )
        for first in range(0, batch, _CHUNK)
    ]
    result = parts[0] if len(parts) == 1 else _joined(parts)
    missing = landmarks.isnan().any(dim=-1)
    if not bool(missing.any()):
        return result
    return FitResult(**{**vars(result), "residual": result.residual.masked_fill(missing, math.nan)})


def _fit_chunk(
    landmarks: torch.Tensor,
    weights: torch.Tensor,
    model: MorphableModel,
    index: torch.Tensor,
    regularisation: float,
    noise: torch.Tensor | None,
    num_iterations: int,
    tolerance: float,
    uncertainty: bool,
) -> FitResult:
    """:func:`fit_landmarks` for checked landmarks in the y-up frame."""
    vertices = model.landmarks[index]
    average = model.mean[model.landmarks]  # (68, 3)
    box = average[:, :2].amax(dim=0) - average[:, :2].amin(dim=0)
    model_size = box.prod().sqrt()[None]

    # 1. The average face's pose
    rigid, frame = _pose_problem(landmarks, model.mean[vertices][None], weights, model_size)
    state = _solve_pose(rigid, _POSE_ITERATIONS)
    _check_facing(state.rotation)
    sigma = LANDMARK_NOISE * state.log_scale.exp() if noise is None else noise / frame.size  # (B,)

    # 2. Everything
    count = 0 if math.isinf(regularisation) else model.num_shape + model.num_expression
    deviation = model.coefficient_std[:count]
    basis = (model.basis[vertices][..., :count] * deviation / model_size).permute(1, 0, 2).contiguous()  # (3, N, K)
    lower, upper = torch.full_like(deviation, -math.inf), torch.full_like(deviation, math.inf)
    if model.expression_kind == "blendshapes":
        lower[model.num_shape :], upper[model.num_shape :] = 0, 1 / deviation[model.num_shape :]
    prior = torch.zeros_like(sigma) if count == 0 else regularisation * sigma.square()
    problem = rigid._replace(basis=basis, prior=prior, lower=lower, upper=upper)
    state = state._replace(coefficients=basis.new_zeros(landmarks.shape[0], count))
    limit = tolerance * sigma.square()
    state, converged, iterations, cost = _minimise(problem, state, num_iterations, limit)

    # Back to pixels and the model's units
    values = torch.zeros(landmarks.shape[0], model.num_shape + model.num_expression).to(basis)
    values[:, :count] = state.coefficients * deviation
    shape, expression = values[:, : model.num_shape], values[:, model.num_shape :]
    middle = model.decode_landmarks(shape, expression).mean(dim=1)  # (B, 3)
    pose = _assemble_pose(state, frame, middle)
    residual = _placed(problem, state)[1].norm(dim=1) * frame.size[:, None]  # (B, N)
    return FitResult(
        coefficients=Coefficients(pose, shape, expression),
        residual=residual,
        rms=((weights * residual.square()).sum(dim=-1) / weights.sum(dim=-1)).sqrt(),
        noise=sigma * frame.size,
        converged=converged,
        iterations=iterations,
        cost=cost * frame.size[:, None].square(),
        uncertainty=_uncertainty(problem, state, sigma, model, count) if uncertainty else None,
    )


def _uncertainty(
    problem: _Problem, state: _State, sigma: torch.Tensor, model: MorphableModel, count: int
) -> Uncertainty:
    """Square roots of the diagonal of the inverse Hessian, in units of the noise."""
    hessian, _, free = _normal_equations(problem, state)
    factor, solvable = _factor(hessian, free, torch.zeros_like(sigma))
    variance = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)
    variance = torch.where(solvable[:, None], variance, torch.full_like(variance, math.inf))
    deviation = torch.where(free, variance.sqrt() * sigma[:, None], torch.zeros_like(variance))
    values = deviation.new_zeros(deviation.shape[0], model.num_shape + model.num_expression)
    values[:, :count] = deviation[:, POSE_FREEDOM:] * model.coefficient_std[:count]
    return Uncertainty(deviation[:, 1:4], values[:, : model.num_shape], values[:, model.num_shape :])


def _joined(parts: list[FitResult]) -> FitResult:
    """One result from several; shorter cost histories go on at their last value."""
    steps = max(part.cost.shape[1] for part in parts)
    cost = [torch.cat([p.cost, p.cost[:, -1:].expand(-1, steps - p.cost.shape[1])], dim=1) for p in parts]
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("residual", "rms", "noise", "converged", "iterations")
    }
    deviations = None
    if parts[0].uncertainty is not None:
        deviations = Uncertainty(*(torch.cat(p) for p in zip(*(part.uncertainty for part in parts), strict=True)))
    coefficients = Coefficients(*(torch.cat(p) for p in zip(*(part.coefficients for part in parts), strict=True)))
    return FitResult(coefficients=coefficients, cost=torch.cat(cost), uncertainty=deviations, **joined)


def _empty(model: MorphableModel, count: int) -> FitResult:
    """The answer for no faces at all."""
    new = model.mean.new_zeros
    return FitResult(
        coefficients=Coefficients(new(0, 3, 4), new(0, model.num_shape), new(0, model.num_expression)),
        residual=new(0, count),
        rms=new(0),
        noise=new(0),
        converged=new(0, dtype=torch.bool),
        iterations=new(0, dtype=torch.long),
        cost=new(0, 1),
    )
