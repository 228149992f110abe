"""Fitting coefficients to 2D landmarks, without a network: pose first, then pose, shape and expression together.

Given landmarks x_i in a picture and a morphable model, find the face whose landmarks project onto them::

    cost = sum_i w_i |f R (mean_i + A_i s + E_i e) + t - x_i|^2  +  regularisation * noise^2 * sum_k (c_k / std_k)^2

with c = (s, e), the first sum over x and y, everything in pixels. This is the maximum a posteriori estimate: landmarks
have Gaussian noise of standard deviation ``noise`` per coordinate, coefficients the model's standard deviations (Blanz
& Vetter 1999, section 4). With ``regularisation=1`` the noise determines the weight of the two terms; larger values
pull towards the average face, infinity fits only its pose. By default the noise is a fraction of the face's size in the
picture, so the result does not depend on the resolution.

1. **Pose**: closed form for the average face (linear least squares for the 2x3 matrix f R, projected to a scaled
   rotation), then refined.
2. **Everything**: pose, shape and expression together (:mod:`twodasl_lite.faces.least_squares`). Blendshape activations
   stay within [0, 1].

Weak perspective does not determine depth, so t_z is a convention: it makes the mean depth of the landmarks zero.
Landmarks near one plane, such as the corners of eyes and mouth, fit two poses, mirrored in depth; with the tip of the
nose they fit only one. On a turned face, detectors trained on 2D annotations put the jaw's landmarks on its outline,
where other points of the model lie: leave out the far half of the jaw then (``ignore_far_jaw``).

Points are 0-based pixels, y down; internally, all computations use the y-up frame of
:mod:`twodasl_lite.geometry.camera`. See chapter 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import NamedTuple

import torch

from twodasl_lite.base.checks import check_count, check_finite, check_indices, check_tensor
from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.faces.least_squares import (
    POSE_FREEDOM,
    Problem,
    State,
    factorise,
    minimise,
    normal_equations,
    project_residuals,
)
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import CROP_SIZE, make_pose, matrix_to_euler, nearest_rotation, pixels_to_frame
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.landmarks import GROUPS, LANDMARK_NAMES, NUM_LANDMARKS

LANDMARK_NOISE = 0.02
"""Assumed standard deviation of a landmark per coordinate, as a fraction of the face's size; about what published
detectors reach (mean distances of 2 to 4 % on AFLW2000-3D, increasing with yaw)."""

MIN_LANDMARKS = 4
"""Smallest number of landmarks that determines a pose; three leave two mirrored solutions."""

_CHUNK = 512  # faces solved at once; bounds the memory of a fit of many thousand faces
_FLAT = 1e-4  # points whose ratio of variances is smaller lie on a line
_SHALLOW = 1e-2  # below this ratio a third axis is too short to measure directions along it
_FAR_JAW_YAW = math.radians(15)  # beyond this yaw, the outline no longer follows the jaw's landmarks
_BEHIND = -0.5  # R[2, 2] of a face turned away by 120 degrees; no detector finds such a face
_POSE_ITERATIONS = 20
_START_ITERATIONS = 4  # for a pose that is refined later, together with the rest
_TOLERANCE = 1e-4


class Uncertainty(NamedTuple):
    """Standard deviations of the fit under landmarks and prior (Laplace approximation).

    Attributes:
        rotation: About the picture's x, y and z axes in radians, ``(B, 3)``.
        shape: In the units of the shape coefficients, ``(B, Ks)``.
        expression: In the units of the expression coefficients, ``(B, Ke)``; zero for activations held at a bound.
    """

    rotation: torch.Tensor
    shape: torch.Tensor
    expression: torch.Tensor


@dataclass(frozen=True)
class FitResult:
    """Fitted coefficients and the quality of the fit.

    Attributes:
        coefficients: Pose ``(B, 3, 4)``, shape ``(B, Ks)``, expression ``(B, Ke)`` of the fitted model.
        residual: Distance of each fitted landmark from the given one in pixels, ``(B, N)``; NaN where the given one is
            not finite.
        rms: Root of the weighted mean of the squared residuals in pixels, ``(B,)``.
        noise: Assumed standard deviation per coordinate in pixels, ``(B,)``.
        converged: Whether a further step would have no effect, ``(B,)``.
        iterations: Number of steps tried for each face, ``(B,)``.
        cost: Cost in squared pixels, at the start and after each step, ``(B, 1 + T)``; never increases.
        uncertainty: Standard deviations of the fit, if requested.
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
        """Summarise the fit in one line.

        Returns:
            For example ``"64 faces: 64 converged in 4 to 6 steps, median error 1.21 px, largest 2.02 px"``.
        """
        count = self.rms.numel()
        if count == 0:
            return "no faces"
        return (
            f"{count} face{'' if count == 1 else 's'}: {int(self.converged.sum())} converged in "
            f"{int(self.iterations.min())} to {int(self.iterations.max())} steps, "
            f"median error {float(self.rms.median()):.2f} px, largest {float(self.rms.max()):.2f} px"
        )


# --------------------------------------------------------------------------------------------------------- the pose
def _weighted_mean(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean over the last dimension: points ``(B or 1, D, N)``, weights ``(B, N)``, result ``(B, D)``."""
    return (points * weights[:, None]).sum(dim=-1) / weights.sum(dim=-1, keepdim=True)


def _variances(points: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal variances, ascending ``(B, D)``, and axes in columns ``(B, D, D)`` of centred points ``(B, D, N)``."""
    spread = (points * weights[:, None]) @ points.mT / weights.sum(dim=-1)[:, None, None]
    return torch.linalg.eigh(spread)


def _check_spread(name: str, variances: torch.Tensor) -> None:
    """Check that the points do not lie on a line or in one place."""
    flat = variances[:, -2] <= _FLAT * variances[:, -1]
    if bool(flat.any()):
        raise ValueRangeError(
            f"{name}: found points that lie on a line, or in one place, for face {int(flat.nonzero()[0])} "
            f"({int(flat.sum())} of {flat.numel()} faces); expected points spread over a plane or more: a line does "
            "not determine a pose"
        )


def _closed_form_pose(problem: Problem) -> State:
    """Pose by linear least squares, projected to a scaled rotation. The points' weighted mean must be zero.

    Along their principal axes the columns of the 2x3 matrix f R are independent least-squares solutions. Points near a
    plane do not determine the column along its normal. Up to its sign, it follows from the two rows of f R being
    orthogonal and of equal length; the sign follows from the remaining depth of the points (Oberkampf et al. 1996).
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
    return State(scale.log(), nearest_rotation(matrix), centre, target.new_zeros(target.shape[0], 0))


class _Frame(NamedTuple):
    """The similarity transform from pixels and model units to the units of a :class:`Problem`."""

    centre: torch.Tensor  # (B, 2) of the landmarks, y up
    size: torch.Tensor  # (B,) of a face in pixels
    model_centre: torch.Tensor  # (B, 3)
    model_size: torch.Tensor  # (1 or B,)

    def scale_and_shift(self, state: State) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels per model unit ``(B,)`` and the translation in x and y ``(B, 2)``."""
        scale = state.log_scale.exp() * self.size / self.model_size
        turned = (state.rotation[:, :2] @ self.model_centre[..., None])[..., 0]
        return scale, self.size[:, None] * state.translation + self.centre - scale[:, None] * turned


def _pose_problem(
    landmarks: torch.Tensor,
    points: torch.Tensor,
    weights: torch.Tensor,
    model_size: torch.Tensor | None = None,
) -> tuple[Problem, _Frame]:
    """Rigid problem from landmarks ``(B, N, 2)``, y up, points ``(1 or B, N, 3)`` and weights ``(B, N)``."""
    target, points = landmarks.mT, points.mT  # (B, 2, N), (B, 3, N)
    centre, model_centre = _weighted_mean(target, weights), _weighted_mean(points, weights)
    target, points = target - centre[..., None], points - model_centre[..., None]
    size = _weighted_mean(target.square(), weights).sum(dim=-1).sqrt()
    if model_size is None:
        model_size = _weighted_mean(points.square(), weights).sum(dim=-1).sqrt()
    for name, value in (("landmarks", size), ("points", model_size)):
        if bool((value <= 0).any()):
            raise ValueRangeError(
                f"{name}: found points that are all in one place; expected points spread over a plane"
            )
    none = points.new_zeros(0)
    problem = Problem(
        points / model_size[:, None, None],
        points.new_zeros(3, points.shape[-1], 0),
        target / size[:, None, None],
        weights,
        torch.zeros_like(size),
        none,
        none,
    )
    return problem, _Frame(centre, size, model_centre, model_size)


def _solve_pose(problem: Problem, num_iterations: int) -> State:
    """Solve for the pose: closed form, then Gauss-Newton."""
    state = _closed_form_pose(problem)
    tolerance = 1e-12 * problem.weights.sum(dim=-1)  # targets have unit size: a millionth of the face
    return minimise(problem, state, num_iterations, tolerance)[0]


def _checked_weights(weights: torch.Tensor | None, landmarks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights ``(B, N)``, and the landmarks, in which those of weight zero are set to zero."""
    batch, count = landmarks.shape[:2]
    if weights is None:
        weights = landmarks.new_ones(batch, count)
    else:
        if isinstance(weights, torch.Tensor) and weights.dtype == torch.bool:
            weights = weights.to(landmarks.dtype)
        weights = check_tensor("weights", weights, ("...", count), dtype=landmarks.dtype, device=landmarks.device)
        if weights.shape not in ((count,), (batch, count)):
            raise ShapeError(f"weights: found shape {tuple(weights.shape)}; expected ({batch}, {count}) or ({count},)")
        if bool((weights < 0).any()):
            raise ValueRangeError(f"weights: found {float(weights.min())}; expected zero or more")
        weights = weights.expand(batch, count)
    _check_enough(weights)
    landmarks = torch.where((weights > 0)[..., None], landmarks, torch.zeros_like(landmarks))
    check_finite("landmarks", landmarks)
    return weights, landmarks


def _check_enough(weights: torch.Tensor) -> None:
    """Check that every face has enough landmarks."""
    used = (weights > 0).sum(dim=-1)
    fewest, face = int(used.min()), int(used.argmin())
    if fewest < MIN_LANDMARKS:
        raise ValueRangeError(
            f"landmarks: found {fewest} of weight above zero for face {face}; expected at least {MIN_LANDMARKS}: a "
            f"pose has {POSE_FREEDOM} unknowns, and three points leave two mirrored solutions"
        )


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

    For the points of a flat object, two poses, mirrored in depth, have equal cost; one of them is returned.

    Args:
        landmarks: Landmarks in 0-based pixels, y down, ``(B, N, 2)``; any value (also NaN) where the weight is zero.
        points: The same points in the model frame, ``(B, N, 3)`` or ``(N, 3)``.
        weights: Weights, zero or more, ``(B, N)`` or ``(N,)``; by default all one.
        height: Height in pixels of the crop (or image) that the pose refers to.
        num_iterations: Maximum number of Gauss-Newton steps after the closed form.

    Returns:
        ``[f R | t]`` to the crop frame, ``(B, 3, 4)``; t_z makes the points' (weighted) mean depth zero.

    Raises:
        ShapeError: If the shapes are inconsistent.
        ValueRangeError: If values are not finite, fewer than 4 points have weight, or they lie on a line.

    Example:
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> picture = torch.tensor([[[9.0, 110], [19, 110], [9, 100], [9, 110]]])
        >>> from twodasl_lite.geometry.camera import split_pose
        >>> scale, rotation, translation = split_pose(fit_pose(picture, corners))
        >>> round(scale.item(), 3)
        10.0
    """
    points = check_tensor("points", points, ("...", "N", 3))
    landmarks = check_tensor(
        "landmarks",
        landmarks,
        ("B", points.shape[-2], 2),
        finite=False,
        dtype=points.dtype,
        device=points.device,
    )
    if points.ndim == 2:
        points = points[None]
    if points.ndim != 3 or points.shape[0] not in (1, landmarks.shape[0]):
        raise ShapeError(
            f"points: found shape {tuple(points.shape)}; expected (N, 3) or (B, N, 3) with B = {landmarks.shape[0]}"
        )
    num_iterations = check_count("num_iterations", num_iterations)
    _check_height(height)
    if landmarks.shape[0] == 0:
        return points.new_zeros(0, 3, 4)
    weights, landmarks = _checked_weights(weights, landmarks)
    problem, frame = _pose_problem(pixels_to_frame(landmarks, height), points, weights)
    state = _solve_pose(problem, num_iterations)
    return _assemble_pose(state, frame, _weighted_mean(points.mT, weights))


def _assemble_pose(state: State, frame: _Frame, middle: torch.Tensor) -> torch.Tensor:
    """``(B, 3, 4)`` with t_z such that the point ``middle`` ``(B, 3)`` has depth zero."""
    rotation = nearest_rotation(state.rotation)
    scale, shift = frame.scale_and_shift(state._replace(rotation=rotation))
    depth = -scale * (rotation[:, 2] * middle).sum(dim=-1)
    return make_pose(scale, rotation, torch.cat([shift, depth[:, None]], dim=-1))


# ---------------------------------------------------------------------------------------------------- everything
def _checked_indices(indices: Sequence[int] | torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Checked indices ``(N,)`` of the given landmarks among the 68."""
    if indices is None:
        return torch.arange(NUM_LANDMARKS, device=device)
    index = check_indices("indices", indices, NUM_LANDMARKS, ("N",), device)
    if index.unique().numel() != index.numel():
        raise ValueRangeError("indices: found a landmark more than once; expected each at most once")
    return index


def _checked_noise(noise: float | torch.Tensor | None, batch: int, like: torch.Tensor) -> torch.Tensor | None:
    if noise is None:
        return None
    noise = check_tensor("noise", noise, ("...",), dtype=like.dtype, device=like.device)
    if noise.shape not in ((), (batch,)):
        raise ShapeError(f"noise: found shape {tuple(noise.shape)}; expected a number or ({batch},)")
    if bool((noise <= 0).any()):
        raise ValueRangeError(f"noise: found {float(noise.min())}; expected pixels above zero")
    return noise.expand(batch)


def _check_not_negative(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"{name}: found {type(value).__name__}; expected a number")
    if not value >= 0:  # also true of NaN
        raise ValueRangeError(f"{name}: found {value}; expected zero or more")


def _check_determined(weights: torch.Tensor, model: MorphableModel) -> None:
    """Check that there are at least as many equations as unknowns, which a fit without a prior needs."""
    equations = 2 * int((weights > 0).sum(dim=-1).min())
    unknowns = POSE_FREEDOM + model.num_shape + model.num_expression
    if equations < unknowns:
        raise ValueRangeError(
            f"regularisation: found 0 with {equations} equations for {unknowns} unknowns; expected a number above "
            "zero, more landmarks or a model with fewer components (model.truncate)"
        )


def _check_height(height: object) -> None:
    _check_not_negative("height", height)
    if height == 0 or math.isinf(height):
        raise ValueRangeError(f"height: found {height}; expected pixels above zero")


def _side(index: torch.Tensor, side: str) -> torch.Tensor:
    """Mask ``(N,)`` of the landmarks on the jaw's left or right half, the chin excluded."""
    return torch.tensor([LANDMARK_NAMES[k].startswith(f"jaw_{side}") for k in index.tolist()], device=index.device)


def _without_far_jaw(
    landmarks: torch.Tensor, weights: torch.Tensor, model: MorphableModel, index: torch.Tensor
) -> torch.Tensor:
    """The weights ``(B, N)``, set to zero on the far half of the jaw of turned faces."""
    jaw = torch.isin(index, index.new_tensor(GROUPS["jaw"]))
    inner = weights * ~jaw
    _check_enough(inner)
    points = model.mean[model.landmarks[index]][None]
    state = _solve_pose(_pose_problem(landmarks, points, inner)[0], _START_ITERATIONS)
    yaw = matrix_to_euler(state.rotation)[:, 1:2]  # (B, 1)
    far = (_side(index, "left") & (yaw > _FAR_JAW_YAW)) | (_side(index, "right") & (yaw < -_FAR_JAW_YAW))
    return weights * ~far


def _check_facing(problem: Problem, rotation: torch.Tensor) -> None:
    """Check that no face is seen from behind, as faces with y-up coordinates or mirrored indices seem to be.

    A few landmarks near one plane do not distinguish front from back; they pass the check.
    """
    variances, _ = _variances(problem.mean, problem.weights)
    away = (rotation[:, 2, 2] < _BEHIND) & (variances[:, 0] > _SHALLOW * variances[:, 2])
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
    ignore_far_jaw: bool = False,
    num_iterations: int = 30,
    tolerance: float = _TOLERANCE,
    uncertainty: bool = False,
) -> FitResult:
    """Fit pose, shape and expression to 2D landmarks.

    Computed in the model's floating-point type and on its device. Not differentiable.

    Args:
        landmarks: Landmarks in 0-based pixels, y down, ``(B, N, 2)``; any value (also NaN) where the weight is zero.
        model: The face model.
        indices: Indices of the given landmarks among the 68, in iBUG order, ``(N,)``; by default all 68.
        weights: Weights, zero or more, ``(B, N)`` or ``(N,)``; by default all one. Weight 4 corresponds to half the
            noise; a landmark of weight 0 is ignored.
        height: Height in pixels of the crop (or image) that the landmarks and the pose refer to.
        regularisation: Weight of the prior, zero or more. 1 gives the most probable face under ``noise``, infinity the
            average face; 0 means no prior (needs 2 N equations for 6 + Ks + Ke unknowns).
        noise: Standard deviation of the landmarks per coordinate in pixels, a number or ``(B,)``; by default
            :data:`LANDMARK_NOISE` times the face's size (the square root of the area of the bounding box of the average
            face's 68 landmarks, seen from the front at the fitted scale).
        ignore_far_jaw: Whether to ignore the far half of the jaw (chin excluded) of faces that are turned by more than
            15 degrees according to the other landmarks. For landmarks that follow the outline in the picture, as
            those of most detectors do; not for projected 3D landmarks.
        num_iterations: Maximum number of Gauss-Newton steps.
        tolerance: Convergence threshold: a face has converged when the predicted decrease of the cost in the next step
            is below this times ``noise**2``, a negligible change of the face's probability.
        uncertainty: Whether to compute the standard deviations of the fit.

    Returns:
        The coefficients and the quality of the fit.

    Raises:
        ShapeError: If the shapes are inconsistent.
        ValueRangeError: If values are not finite or out of range, fewer than 4 landmarks have a positive weight, they
            lie on a line, a face is seen from behind (as with y up), or there are too few landmarks without a prior.

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
    num_iterations = check_count("num_iterations", num_iterations)
    for name, value in (("regularisation", regularisation), ("tolerance", tolerance)):
        _check_not_negative(name, value)
    _check_height(height)
    noise = _checked_noise(noise, batch, like)
    if batch == 0:
        return _empty(model, index.numel())
    filled_weights, filled = _checked_weights(weights, landmarks)
    frame_points = pixels_to_frame(filled, height)
    if ignore_far_jaw:
        filled_weights = _without_far_jaw(frame_points, filled_weights, model, index)
    if regularisation == 0:
        _check_determined(filled_weights, model)

    # 1. Pose of the average face
    average = model.mean[model.landmarks]  # (68, 3)
    box = average[:, :2].amax(dim=0) - average[:, :2].amin(dim=0)
    model_size = box.prod().sqrt()[None]
    rigid, frame = _pose_problem(frame_points, average[index][None], filled_weights, model_size)
    start = _solve_pose(rigid, _START_ITERATIONS)
    _check_facing(rigid, start.rotation)
    sigma = LANDMARK_NOISE * start.log_scale.exp() if noise is None else noise / frame.size  # (B,)

    # 2. Everything
    count = 0 if math.isinf(regularisation) else model.num_shape + model.num_expression
    deviation = model.coefficient_std[:count]
    basis = model.basis[model.landmarks[index]][..., :count] * deviation / model_size  # (N, 3, K)
    lower, upper = torch.full_like(deviation, -math.inf), torch.full_like(deviation, math.inf)
    if model.expression_kind == "blendshapes":
        lower[model.num_shape :], upper[model.num_shape :] = 0, 1 / deviation[model.num_shape :]
    problem = rigid._replace(
        basis=basis.transpose(0, 1).contiguous(),
        prior=torch.zeros_like(sigma) if count == 0 else regularisation * sigma.square(),
        lower=lower,
        upper=upper,
    )
    start = start._replace(coefficients=basis.new_zeros(batch, count))
    state, converged, iterations, cost = _minimise_in_chunks(
        problem, start, num_iterations, float(tolerance) * sigma.square()
    )

    # 3. Back to pixels and model units
    shape, expression = _in_model_units(state.coefficients, model)
    pose = _assemble_pose(state, frame, model.decode_landmarks(shape, expression).mean(dim=1))
    residual = project_residuals(problem, state)[1].norm(dim=1) * frame.size[:, None]  # (B, N)
    known = landmarks.isfinite().all(dim=-1)
    return FitResult(
        coefficients=Coefficients(pose, shape, expression),
        residual=residual.masked_fill(~known, math.nan),
        rms=((filled_weights * residual.square()).sum(dim=-1) / filled_weights.sum(dim=-1)).sqrt(),
        noise=sigma * frame.size,
        converged=converged,
        iterations=iterations,
        cost=cost * frame.size[:, None].square(),
        uncertainty=_uncertainty(problem, state, sigma, model) if uncertainty else None,
    )


def _minimise_in_chunks(
    problem: Problem, start: State, num_iterations: int, tolerance: torch.Tensor
) -> tuple[State, torch.Tensor, torch.Tensor, torch.Tensor]:
    """:func:`minimise` in chunks of bounded memory; shorter cost histories are padded with their last value."""
    solved = [
        minimise(problem.take(faces), start.take(faces), num_iterations, tolerance[faces])
        for faces in torch.arange(len(tolerance), device=tolerance.device).split(_CHUNK)
    ]
    states, converged, iterations, costs = zip(*solved, strict=True)
    steps = max(cost.shape[1] for cost in costs)
    costs = [torch.cat([cost, cost[:, -1:].expand(-1, steps - cost.shape[1])], dim=1) for cost in costs]
    state = State(*(torch.cat(parts) for parts in zip(*states, strict=True)))
    return state, torch.cat(converged), torch.cat(iterations), torch.cat(costs)


def _in_model_units(standard: torch.Tensor, model: MorphableModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Shape ``(B, Ks)`` and expression ``(B, Ke)`` from values in standard deviations; missing ones are zero."""
    values = standard.new_zeros(standard.shape[0], model.num_shape + model.num_expression)
    count = standard.shape[1]
    values[:, :count] = standard * model.coefficient_std[:count]
    return values[:, : model.num_shape], values[:, model.num_shape :]


def _uncertainty(problem: Problem, state: State, sigma: torch.Tensor, model: MorphableModel) -> Uncertainty:
    """Square roots of the diagonal of the inverse Hessian, in units of the noise."""
    parts = []
    for faces in torch.arange(len(sigma), device=sigma.device).split(_CHUNK):
        hessian, _, free = normal_equations(problem.take(faces), state.take(faces))
        factor, solvable = factorise(hessian, free, torch.zeros_like(sigma[faces]))
        variance = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1)
        deviation = (variance.sqrt() * sigma[faces, None]).masked_fill(~free, 0.0)
        parts.append(deviation.masked_fill(~solvable[:, None], math.inf))
    deviation = torch.cat(parts)
    shape, expression = _in_model_units(deviation[:, POSE_FREEDOM:], model)
    return Uncertainty(deviation[:, 1:4], shape, expression)


def _empty(model: MorphableModel, count: int) -> FitResult:
    """The result for an empty batch."""
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
