"""Coefficients from landmarks: known faces are recovered, and the result is a minimum of the objective."""

from __future__ import annotations

import math

import pytest
import torch

from tests.conftest import make_model
from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel, fitting, least_squares
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.faces.fitting import LANDMARK_NOISE, FitResult, fit_landmarks, fit_pose
from twodasl_lite.geometry.camera import (
    CROP_SIZE,
    euler_to_matrix,
    frame_to_pixels,
    image_to_crop,
    make_pose,
    matrix_to_euler,
    nearest_rotation,
    pixels_to_frame,
    project,
    split_pose,
)
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.landmarks import GROUPS, NUM_LANDMARKS

NUM_SHAPE, NUM_EXPRESSION = 12, 6
YAWS = torch.deg2rad(torch.linspace(-80, 80, 9, dtype=torch.float64))
INNER = [k for k in range(NUM_LANDMARKS) if k not in GROUPS["jaw"]]


def faceless_model(kind: str = "components", dtype: torch.dtype = torch.float64) -> MorphableModel:
    """A random model without any vertex but the landmarks; twice as large coefficients as the small model's."""
    small = make_model(num_shape=NUM_SHAPE, num_expression=NUM_EXPRESSION, albedo=False, dtype=torch.float64)
    keep = small.landmarks
    return MorphableModel(
        small.mean[keep],
        2 * small.shape_basis[keep],
        4 * small.expression_basis[keep],
        torch.zeros(0, 3, dtype=torch.long),
        torch.arange(NUM_LANDMARKS),
        shape_std=small.shape_std,
        expression_std=small.expression_std,
        expression_kind=kind,
    ).to(dtype)


def true_faces(model: MorphableModel, yaws: torch.Tensor = YAWS, seed: int = 0) -> tuple[Coefficients, torch.Tensor]:
    """Random faces at the given yaws, and their landmarks ``(B, 68, 2)`` in pixels of a crop."""
    generator = torch.Generator().manual_seed(seed)
    count = len(yaws)
    shape, expression = model.sample(count, generator=generator)
    tilt = 0.3 * torch.randn(count, 2, generator=generator)
    angles = torch.stack([tilt[:, 0], yaws, tilt[:, 1]], dim=-1).to(model.mean)
    translation = torch.tensor([62.0, 55.0, -30.0]).to(model.mean)
    scale = torch.linspace(0.4, 0.9, count).to(model.mean)
    truth = Coefficients(make_pose(scale, euler_to_matrix(angles), translation), shape, expression)
    return truth, decode_landmarks(truth, model)[..., :2]


def turned_by(pose: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Angle in degrees between two poses' rotations."""
    first, second = nearest_rotation(pose[..., :3]), nearest_rotation(other[..., :3])
    cosine = ((first * second).sum(dim=(-1, -2)) - 1) / 2
    return cosine.clamp(-1, 1).arccos().rad2deg()


def noisy(landmarks: torch.Tensor, sigma: float, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return landmarks + sigma * torch.randn(landmarks.shape, generator=generator, dtype=landmarks.dtype)


@pytest.fixture(scope="module", params=["components", "blendshapes"])
def model(request: pytest.FixtureRequest) -> MorphableModel:
    return faceless_model(request.param)


# ------------------------------------------------------------------------------------------------------ the pose
@pytest.mark.parametrize("count", [4, 9, NUM_LANDMARKS])
def test_pose_of_rigid_points_is_exact(count: int) -> None:
    model = faceless_model()
    points = model.mean[:count]
    truth, _ = true_faces(model)
    picture = frame_to_pixels(project(points.expand(len(YAWS), -1, -1), truth.pose))[..., :2]
    pose = fit_pose(picture, points)
    torch.testing.assert_close(pose[:, :2], truth.pose[:, :2], atol=1e-8, rtol=0)
    assert turned_by(pose, truth.pose).max() < 1e-4
    depth = project(points.expand(len(YAWS), -1, -1), pose)[..., 2].mean(dim=1)
    torch.testing.assert_close(depth, torch.zeros_like(depth), atol=1e-9, rtol=0)


def test_pose_of_a_flat_object_is_one_of_its_two() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(8, 3, generator=generator, dtype=torch.float64) * torch.tensor([30.0, 40.0, 0.0])
    truth, _ = true_faces(faceless_model())
    picture = frame_to_pixels(project(points.expand(len(YAWS), -1, -1), truth.pose))[..., :2]
    pose = fit_pose(picture, points)
    back = frame_to_pixels(project(points.expand(len(YAWS), -1, -1), pose))[..., :2]
    torch.testing.assert_close(back, picture, atol=1e-5, rtol=0)


def test_pose_takes_points_and_weights_of_each_face() -> None:
    model = faceless_model()
    truth, picture = true_faces(model)
    points = model.decode_landmarks(truth.shape, truth.expression)
    weights = torch.ones(len(YAWS), NUM_LANDMARKS, dtype=torch.float64)
    weights[:, ::3] = 0
    picture[:, ::3] = math.nan
    pose = fit_pose(picture, points, weights, height=CROP_SIZE)
    torch.testing.assert_close(pose[:, :2], truth.pose[:, :2], atol=1e-8, rtol=0)


def test_pose_in_the_frame_of_a_whole_image() -> None:
    model = faceless_model()
    truth, _ = true_faces(model)
    frame = project(model.mean.expand(len(YAWS), -1, -1), truth.pose)
    pose = fit_pose(frame_to_pixels(frame, height=450)[..., :2], model.mean, height=450)
    torch.testing.assert_close(pose[:, :2], truth.pose[:, :2], atol=1e-8, rtol=0)


# -------------------------------------------------------------------------------------------------- what is found
def test_known_faces_are_found_exactly(model: MorphableModel) -> None:
    truth, landmarks = true_faces(model)
    result = fit_landmarks(landmarks, model, regularisation=0, tolerance=0, num_iterations=100)
    assert isinstance(result, FitResult)
    assert bool(result.converged.all())
    assert result.rms.max() < 1e-6
    assert turned_by(result.coefficients.pose, truth.pose).max() < 1e-4
    torch.testing.assert_close(result.coefficients.pose[:, :2], truth.pose[:, :2], atol=1e-5, rtol=0)
    torch.testing.assert_close(result.coefficients.shape, truth.shape, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.coefficients.expression, truth.expression, atol=1e-5, rtol=0)


def test_single_precision_is_enough() -> None:
    model = faceless_model()
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    double = fit_landmarks(landmarks, model)
    single = fit_landmarks(landmarks, faceless_model(dtype=torch.float32))
    assert single.coefficients.pose.dtype == torch.float32
    assert bool(single.converged.all())
    torch.testing.assert_close(single.rms, double.rms.float(), atol=1e-3, rtol=0)
    torch.testing.assert_close(single.coefficients.shape, double.coefficients.shape.float(), atol=1e-2, rtol=0)


def test_reported_residuals_are_those_of_the_decoded_face(model: MorphableModel) -> None:
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.5)
    result = fit_landmarks(landmarks, model, height=300)
    decoded = decode_landmarks(result.coefficients, model, 300)
    distance = (decoded[..., :2] - landmarks).norm(dim=-1)
    torch.testing.assert_close(result.residual, distance, atol=1e-6, rtol=0)
    torch.testing.assert_close(result.rms, distance.square().mean(dim=1).sqrt(), atol=1e-6, rtol=0)
    # Depth is a convention: zero on average
    torch.testing.assert_close(decoded[..., 2].mean(dim=1), torch.zeros(len(YAWS)).double(), atol=1e-6, rtol=0)


def test_the_pose_is_a_scaled_rotation(model: MorphableModel) -> None:
    _, landmarks = true_faces(model)
    pose = fit_landmarks(noisy(landmarks, 2.0), model).coefficients.pose
    scale, rotation, translation = split_pose(pose)
    torch.testing.assert_close(make_pose(scale, rotation, translation), pose)


# ------------------------------------------------------------------------------------- it is the minimum it claims
def naive_cost(
    coefficients: Coefficients, landmarks: torch.Tensor, model: MorphableModel, weights: torch.Tensor, prior: float
) -> float:
    """The cost of one face, term by term."""
    total = 0.0
    scale_rotation, shift = coefficients.pose[:, :3], coefficients.pose[:, 3]
    for i, vertex in enumerate(model.landmarks.tolist()):
        point = model.mean[vertex].clone()
        for k in range(model.num_shape):
            point += coefficients.shape[k] * model.shape_basis[vertex, :, k]
        for k in range(model.num_expression):
            point += coefficients.expression[k] * model.expression_basis[vertex, :, k]
        x, y, _ = scale_rotation @ point + shift
        total += float(weights[i] * ((x - 1 - landmarks[i, 0]) ** 2 + (CROP_SIZE - y - landmarks[i, 1]) ** 2))
    for value, std in zip(coefficients.shape, model.shape_std, strict=True):
        total += prior * float(value / std) ** 2
    for value, std in zip(coefficients.expression, model.expression_std, strict=True):
        total += prior * float(value / std) ** 2
    return total


def test_cost_is_the_documented_one_and_no_small_change_lowers_it(model: MorphableModel) -> None:
    _, landmarks = true_faces(model, YAWS[3:4])
    landmarks = noisy(landmarks, 2.0)
    generator = torch.Generator().manual_seed(5)
    weights = torch.rand(1, NUM_LANDMARKS, generator=generator, dtype=torch.float64) + 0.5
    result = fit_landmarks(landmarks, model, weights=weights, regularisation=3, noise=1.5, tolerance=0)
    prior = 3 * 1.5**2

    def cost(pose: torch.Tensor, shape: torch.Tensor, expression: torch.Tensor) -> float:
        return naive_cost(Coefficients(pose, shape, expression), landmarks[0], model, weights[0], prior)

    pose, shape, expression = (part[0] for part in result.coefficients)
    best = cost(pose, shape, expression)
    assert best == pytest.approx(float(result.cost[0, -1]), rel=1e-9)

    for _ in range(25):
        scale, rotation, translation = split_pose(pose)
        nudge = 10 ** float(torch.empty(1).uniform_(-3, -1, generator=generator))
        step = nudge * torch.randn(6, generator=generator, dtype=torch.float64)
        turn = torch.linalg.matrix_exp(torch.linalg.cross(torch.eye(3).double(), step[:3].expand(3, 3)))
        moved = translation + torch.cat([10 * step[4:], step.new_zeros(1)])
        other = make_pose(scale * step[3].exp(), turn @ rotation, moved)
        other_shape = shape + nudge * torch.randn(model.num_shape, generator=generator, dtype=torch.float64)
        other_expression = expression + nudge * torch.randn(NUM_EXPRESSION, generator=generator, dtype=torch.float64)
        if model.expression_kind == "blendshapes":
            other_expression = other_expression.clamp(0, 1)
        assert cost(other, other_shape, other_expression) >= best


def test_jacobian_agrees_with_differences() -> None:
    generator = torch.Generator().manual_seed(2)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batch, count, size = 3, 7, 4
    problem = least_squares.Problem(
        random(1, 3, count), random(3, count, size), random(batch, 2, count), torch.ones(batch, count).double(),
        torch.zeros(batch).double(), torch.full((size,), -math.inf).double(), torch.full((size,), math.inf).double(),
    )  # fmt: skip
    rotation = euler_to_matrix(random(batch, 3))
    state = least_squares.State(0.3 * random(batch), rotation, random(batch, 2), random(batch, size))
    jacobian, residual = least_squares.jacobian_of(problem, state)
    assert jacobian.shape == (batch, 2 * count, 6 + size)
    torch.testing.assert_close(residual, least_squares.project_residuals(problem, state)[1].flatten(1))
    eps = 1e-6
    for column in range(6 + size):
        step = torch.zeros(batch, 6 + size, dtype=torch.float64)
        step[:, column] = eps
        ahead, behind = (
            least_squares.project_residuals(problem, least_squares.apply_step(problem, state, s))[1].flatten(1)
            for s in (step, -step)
        )
        torch.testing.assert_close(jacobian[..., column], (ahead - behind) / (2 * eps), atol=1e-7, rtol=0)


def test_cost_never_rises_and_convergence_is_said() -> None:
    model = faceless_model("blendshapes")
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 2.0)
    result = fit_landmarks(landmarks, model)
    assert bool((result.cost.diff(dim=1) <= 0).all())
    assert bool(result.converged.all())
    assert result.cost.shape == (len(YAWS), 1 + int(result.iterations.max()))
    hurried = fit_landmarks(landmarks, model, num_iterations=1)
    assert not bool(hurried.converged.any())
    assert hurried.iterations.tolist() == [1] * len(YAWS)
    assert "9 faces: 9 converged" in result.summary()


# --------------------------------------------------------------------------------------------------- invariances
def test_a_batch_gives_what_its_faces_give_alone(model: MorphableModel) -> None:
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    together = fit_landmarks(landmarks, model, uncertainty=True)
    for b in range(len(YAWS)):
        alone = fit_landmarks(landmarks[b : b + 1], model, uncertainty=True)
        assert int(alone.iterations) == int(together.iterations[b])
        for one, many in (
            (alone.coefficients.pack(), together.coefficients.pack()),
            (alone.residual, together.residual),
            (alone.uncertainty.shape, together.uncertainty.shape),
            (alone.uncertainty.expression, together.uncertainty.expression),
        ):
            torch.testing.assert_close(one[0], many[b], atol=1e-6, rtol=0)


def test_many_faces_are_solved_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = faceless_model()
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    landmarks[0] += 10 * torch.randn(NUM_LANDMARKS, 2, generator=torch.Generator().manual_seed(0))  # slower than others
    noise = torch.linspace(1, 2, len(YAWS))
    whole = fit_landmarks(landmarks, model, noise=noise, uncertainty=True)
    monkeypatch.setattr(fitting, "_CHUNK", 2)
    chunked = fit_landmarks(landmarks, model, noise=noise, uncertainty=True)
    torch.testing.assert_close(chunked.coefficients.pack(), whole.coefficients.pack(), atol=1e-6, rtol=0)
    torch.testing.assert_close(chunked.cost, whole.cost)
    torch.testing.assert_close(chunked.uncertainty.rotation, whole.uncertainty.rotation)
    torch.testing.assert_close(chunked.noise, noise.double())


def test_weight_zero_is_as_if_the_landmark_were_not_there(model: MorphableModel) -> None:
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    subset = fit_landmarks(landmarks[:, INNER], model, indices=INNER)
    weights = torch.zeros(NUM_LANDMARKS)
    weights[INNER] = 1
    spoilt = landmarks.clone()
    spoilt[:, GROUPS["jaw"]] = math.nan
    spoilt[0, 0] = 1e6
    weighted = fit_landmarks(spoilt, model, weights=weights)
    torch.testing.assert_close(weighted.coefficients.pack(), subset.coefficients.pack(), atol=1e-6, rtol=0)
    torch.testing.assert_close(weighted.rms, subset.rms)
    assert bool(weighted.residual[:, GROUPS["jaw"][1:]].isnan().all())
    by_flag = fit_landmarks(spoilt, model, weights=weights.bool())
    torch.testing.assert_close(by_flag.coefficients.pack(), weighted.coefficients.pack())


def test_indices_may_come_in_any_order() -> None:
    model = faceless_model()
    truth, landmarks = true_faces(model)
    order = torch.randperm(NUM_LANDMARKS, generator=torch.Generator().manual_seed(4))[:40]
    result = fit_landmarks(landmarks[:, order], model, indices=order, regularisation=0, tolerance=0)
    assert result.residual.shape == (len(YAWS), 40)
    torch.testing.assert_close(result.coefficients.shape, truth.shape, atol=1e-4, rtol=0)


@pytest.mark.parametrize("zoom", [0.25, 7.0])
def test_resolution_and_place_do_not_matter(model: MorphableModel, zoom: float) -> None:
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    shift = torch.tensor([300.0, -80.0])
    small = fit_landmarks(landmarks, model)
    large = fit_landmarks(zoom * landmarks + shift, model, height=500)
    torch.testing.assert_close(large.coefficients.shape, small.coefficients.shape, atol=1e-6, rtol=0)
    torch.testing.assert_close(large.coefficients.expression, small.coefficients.expression, atol=1e-6, rtol=0)
    torch.testing.assert_close(large.coefficients.pose[..., :3], zoom * small.coefficients.pose[..., :3])
    torch.testing.assert_close(large.residual, zoom * small.residual, atol=1e-5, rtol=1e-6)
    torch.testing.assert_close(large.cost[:, -1], zoom**2 * small.cost[:, -1])


def test_the_models_unit_does_not_matter() -> None:
    model = faceless_model()
    metres = MorphableModel(
        model.mean / 1000,
        model.shape_basis / 1000,
        model.expression_basis / 1000,
        model.triangles,
        model.landmarks,
        shape_std=model.shape_std,
        expression_std=model.expression_std,
        units="m",
    )
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    in_mm, in_m = fit_landmarks(landmarks, model), fit_landmarks(landmarks, metres)
    torch.testing.assert_close(in_m.coefficients.shape, in_mm.coefficients.shape, atol=1e-6, rtol=0)
    torch.testing.assert_close(in_m.coefficients.pose[..., :3], 1000 * in_mm.coefficients.pose[..., :3])


# ------------------------------------------------------------------------------------------ the prior and its limits
def test_infinite_regularisation_is_the_average_faces_pose(model: MorphableModel) -> None:
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    result = fit_landmarks(landmarks, model, regularisation=math.inf, uncertainty=True)
    assert not result.coefficients.shape.any()
    assert not result.coefficients.expression.any()
    expected = fit_pose(landmarks, model.mean[model.landmarks])
    torch.testing.assert_close(result.coefficients.pose, expected, atol=1e-3, rtol=0)
    assert not result.uncertainty.shape.any()
    near = fit_landmarks(landmarks, model, regularisation=1e9)
    torch.testing.assert_close(near.coefficients.shape, torch.zeros_like(near.coefficients.shape), atol=1e-4, rtol=0)


def test_more_regularisation_fits_less_and_strays_less(model: MorphableModel) -> None:
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 2.0)
    results = [fit_landmarks(landmarks, model, regularisation=r) for r in (0, 0.1, 1.0, 10.0, math.inf)]
    rms = torch.stack([result.rms.mean() for result in results])
    assert bool((rms.diff() > 0).all())
    size = torch.stack([(result.coefficients.shape / model.shape_std).norm() for result in results])
    assert bool((size.diff() < 0).all())


def test_noise_and_regularisation_weigh_the_prior_together() -> None:
    model = faceless_model()
    _, landmarks = true_faces(model)
    landmarks = noisy(landmarks, 1.0)
    one = fit_landmarks(landmarks, model, noise=2.0, regularisation=1.0)
    other = fit_landmarks(landmarks, model, noise=1.0, regularisation=4.0)
    torch.testing.assert_close(one.coefficients.shape, other.coefficients.shape, atol=1e-4, rtol=0)
    default = fit_landmarks(landmarks, model)
    given = fit_landmarks(landmarks, model, noise=default.noise)
    torch.testing.assert_close(given.coefficients.pack(), default.coefficients.pack())
    average = model.mean[model.landmarks, :2]
    size = (average.amax(dim=0) - average.amin(dim=0)).prod().sqrt()
    scale = split_pose(fit_pose(landmarks, model.mean[model.landmarks]))[0]
    torch.testing.assert_close(default.noise, LANDMARK_NOISE * size * scale, rtol=1e-3, atol=0)


def test_activations_stay_within_their_range() -> None:
    model = faceless_model("blendshapes")
    free = faceless_model("components")
    _, landmarks = true_faces(free, YAWS.repeat(4))
    bounded = fit_landmarks(landmarks, model)
    values = bounded.coefficients.expression
    assert float(values.min()) == 0
    assert float(values.max()) <= 1 + 1e-12
    assert float(fit_landmarks(landmarks, free).coefficients.expression.min()) < -0.5
    assert bool(bounded.converged.all())


def test_uncertainty_is_what_errors_are_like() -> None:
    """Faces drawn from the prior, landmarks with the assumed noise: errors in units of their deviation are N(0, 1)."""
    model = faceless_model()
    generator = torch.Generator().manual_seed(8)
    count = 300
    shape = torch.randn(count, NUM_SHAPE, generator=generator, dtype=torch.float64) * model.shape_std
    expression = torch.randn(count, NUM_EXPRESSION, generator=generator, dtype=torch.float64) * model.expression_std
    angles = 0.3 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    scale = torch.full((count,), 0.5).double()
    truth = Coefficients(
        make_pose(scale, euler_to_matrix(angles), torch.tensor([60.0, 60.0, 0.0]).double()), shape, expression
    )
    landmarks = noisy(decode_landmarks(truth, model)[..., :2], 2.0)
    result = fit_landmarks(landmarks, model, noise=2.0, uncertainty=True)
    for found, true, deviation in (
        (result.coefficients.shape, shape, result.uncertainty.shape),
        (result.coefficients.expression, expression, result.uncertainty.expression),
    ):
        assert 0.9 < float(((found - true) / deviation).square().mean().sqrt()) < 1.1
    turn = nearest_rotation(result.coefficients.pose[..., :3]) @ nearest_rotation(truth.pose[..., :3]).mT
    vector = torch.stack([turn[:, 2, 1], turn[:, 0, 2], turn[:, 1, 0]], dim=-1)  # small angles about x, y, z
    assert 0.9 < float((vector / result.uncertainty.rotation).square().mean().sqrt()) < 1.1


# ----------------------------------------------------------------------------------------------- turned faces' jaws
def test_the_far_jaw_is_left_out_when_asked_for() -> None:
    model = faceless_model()
    yaws = torch.deg2rad(torch.tensor([-60.0, 0.0, 60.0], dtype=torch.float64))
    truth, landmarks = true_faces(model, yaws)
    far = [[*range(9, 17)], [], [*range(8)]]  # a positive yaw turns the face to the left of the picture
    spoilt = landmarks.clone()
    for face, jaw in enumerate(far):
        spoilt[face, jaw] += 25
    result = fit_landmarks(spoilt, model, ignore_far_jaw=True, regularisation=1e-6)
    torch.testing.assert_close(result.coefficients.pose[:, :2], truth.pose[:, :2], atol=1e-2, rtol=0)
    for face, jaw in enumerate(far):
        assert bool((result.residual[face, jaw] > 20).all())
    assert result.rms.max() < 0.1
    kept = fit_landmarks(spoilt, model, regularisation=1e-6)
    assert float(kept.rms[0]) > 1
    with pytest.raises(ValueRangeError, match="found 0 of weight"):
        fit_landmarks(landmarks[:, :17], model, indices=range(17), ignore_far_jaw=True)


# ----------------------------------------------------------------------------------------------------- bad input
@pytest.fixture(scope="module")
def good() -> tuple[torch.Tensor, MorphableModel]:
    model = faceless_model()
    return true_faces(model)[1], model


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda x: x[0], ShapeError, r"landmarks: found shape \(68, 2\); expected \(B, 68, 2\)"),
        (lambda x: x[:, :51], ShapeError, r"landmarks: found shape \(9, 51, 2\)"),
        (lambda x: torch.cat([x, x[..., :1]], dim=-1), ShapeError, r"landmarks: found shape \(9, 68, 3\)"),
        (
            lambda x: x.masked_fill(x == x[2, 5, 1], math.nan),
            ValueRangeError,
            r"landmarks: found 1 of .* NaN .*2, 5, 1",
        ),
        (lambda x: "landmarks.csv", InputTypeError, "landmarks: found str"),
        (lambda x: torch.zeros_like(x), ValueRangeError, "landmarks: found points that are all in one place"),
        (lambda x: x[..., :1].expand(-1, -1, 2), ValueRangeError, "landmarks: found points that lie on a line"),
        (pixels_to_frame, ValueRangeError, "seen from behind for face .*y down"),
    ],
)
def test_bad_landmarks_are_refused(good, change, error, message) -> None:
    landmarks, model = good
    with pytest.raises(error, match=message):
        fit_landmarks(change(landmarks), model)


def test_faces_upside_down_are_no_error(good) -> None:
    landmarks, model = good
    upright, turned = fit_landmarks(landmarks, model), fit_landmarks(CROP_SIZE - landmarks, model)
    torch.testing.assert_close(turned.coefficients.shape, upright.coefficients.shape, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"weights": torch.zeros(68)}, ValueRangeError, "found 0 of weight above zero for face 0; expected at least 4"),
        ({"weights": torch.eye(68)[:3].sum(0)}, ValueRangeError, "found 3 of weight .*mirrored"),
        ({"weights": -torch.ones(68)}, ValueRangeError, "weights: found -1"),
        ({"weights": torch.ones(9, 51)}, ShapeError, r"weights: found shape \(9, 51\)"),
        ({"weights": torch.ones(2, 68)}, ShapeError, r"weights: found shape \(2, 68\); expected \(9, 68\) or \(68,\)"),
        ({"weights": torch.full((68,), math.nan)}, ValueRangeError, "weights: found 68"),
        ({"weights": "all"}, InputTypeError, "weights: found str"),
        ({"indices": range(51)}, ShapeError, r"landmarks: .*expected \(B, 51, 2\)"),
        ({"indices": [*range(67), 68]}, ValueRangeError, "indices: found indices from 0 to 68; expected 0 to 67"),
        ({"indices": [0] * 68}, ValueRangeError, "indices: found a landmark more than once"),
        ({"indices": torch.ones(68)}, InputTypeError, "indices: found torch.float32"),
        ({"indices": [[0, 1], [2, 3]]}, ShapeError, r"indices: found shape \(2, 2\)"),
        ({"indices": "jaw"}, InputTypeError, "indices: found str"),
        ({"regularisation": -1.0}, ValueRangeError, "regularisation: found -1"),
        ({"regularisation": math.nan}, ValueRangeError, "regularisation: found nan"),
        ({"regularisation": "strong"}, InputTypeError, "regularisation: found str"),
        ({"tolerance": -1e-3}, ValueRangeError, "tolerance: found"),
        ({"noise": 0.0}, ValueRangeError, "noise: found 0"),
        ({"noise": torch.ones(2)}, ShapeError, "noise: found shape"),
        ({"num_iterations": 0}, ValueRangeError, "num_iterations: found 0"),
        ({"num_iterations": 2.5}, InputTypeError, "num_iterations: found 2.5"),
        ({"height": math.nan}, ValueRangeError, "height: found nan"),
        ({"height": 0}, ValueRangeError, "height: found 0"),
    ],
)
def test_bad_options_are_refused(good, options, error, message) -> None:
    landmarks, model = good
    with pytest.raises(error, match=message):
        fit_landmarks(landmarks, model, **options)


def test_too_few_landmarks_for_no_prior(good) -> None:
    landmarks, model = good
    with pytest.raises(ValueRangeError, match="found 0 with 20 equations for 24 unknowns"):
        fit_landmarks(landmarks[:, :10], model, indices=range(10), regularisation=0)
    weights = torch.zeros(NUM_LANDMARKS)
    weights[:10] = 1
    with pytest.raises(ValueRangeError, match="found 0 with 20 equations for 24 unknowns"):
        fit_landmarks(landmarks, model, weights=weights, regularisation=0)
    assert bool(fit_landmarks(landmarks[:, :10], model, indices=range(10)).converged.all())
    with pytest.raises(ValueRangeError, match="found 3 of weight"):
        fit_landmarks(landmarks[:, :3], model, indices=range(3))


def test_a_model_is_wanted(good) -> None:
    with pytest.raises(InputTypeError, match="model: found Tensor; expected a MorphableModel"):
        fit_landmarks(good[0], good[1].mean)


def test_points_of_a_pose_are_checked(good) -> None:
    landmarks, model = good
    line = torch.linspace(0, 1, NUM_LANDMARKS)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(ValueRangeError, match="points: found points that lie on a line"):
        fit_pose(landmarks, line)
    with pytest.raises(ShapeError, match=r"points: found shape \(2, 68, 3\)"):
        fit_pose(landmarks, model.mean.expand(2, -1, -1))
    with pytest.raises(ShapeError, match=r"landmarks: found shape"):
        fit_pose(landmarks[:, :5], model.mean)
    with pytest.raises(ValueRangeError, match="points: found"):
        fit_pose(landmarks, model.mean * math.inf)


def test_no_faces_is_no_error(good) -> None:
    landmarks, model = good
    result = fit_landmarks(landmarks[:0], model, uncertainty=True)
    assert result.coefficients.pack().shape == (0, model.layout.size)
    assert result.residual.shape == (0, NUM_LANDMARKS)
    assert result.summary() == "no faces"
    assert fit_pose(landmarks[:0], model.mean).shape == (0, 3, 4)


def test_the_callers_arrays_are_left_alone(good) -> None:
    landmarks, model = good
    before = landmarks.clone()
    weights = torch.ones(len(YAWS), NUM_LANDMARKS)
    fit_landmarks(landmarks, model, weights=weights, ignore_far_jaw=True)
    assert torch.equal(landmarks, before)
    assert bool((weights == 1).all())
    from_numpy = fit_landmarks(landmarks.numpy(), model)
    torch.testing.assert_close(from_numpy.rms, fit_landmarks(landmarks, model).rms)


def test_on_every_device(device: torch.device) -> None:
    model = faceless_model("blendshapes", torch.float32)
    _, landmarks = true_faces(model)
    expected = fit_landmarks(landmarks, model)
    result = fit_landmarks(landmarks, model.to(device), ignore_far_jaw=False, uncertainty=True)
    assert result.rms.device.type == device.type
    torch.testing.assert_close(result.rms.cpu(), expected.rms, atol=1e-3, rtol=0)


# ----------------------------------------------------------------------------------------------------- real numbers
@pytest.fixture(scope="module")
def basel_model(basel_landmarks) -> MorphableModel:
    """The Basel Face Model at its landmarks; deviations of the coefficients are those of the published whitening."""
    arrays = {name: torch.as_tensor(array) for name, array in basel_landmarks.items()}
    deviations = Coefficients.unpack(arrays["coefficient_std"])
    return MorphableModel(
        arrays["mean"],
        arrays["shape"],
        arrays["expression"],
        torch.zeros(0, 3, dtype=torch.long),
        torch.arange(NUM_LANDMARKS),
        shape_std=deviations.shape,
        expression_std=deviations.expression,
        units="um",
    )


def evaluate(result: FitResult, model: MorphableModel, truth: torch.Tensor, rotation: torch.Tensor, height: float):
    """NME in % and rotation error in degrees of each face against the annotation."""
    fitted = decode_landmarks(result.coefficients, model, height)[..., :2]
    size = (truth.amax(dim=1) - truth.amin(dim=1)).prod(dim=-1).sqrt()
    nme = 100 * (fitted - truth).norm(dim=-1).mean(dim=1) / size
    return nme, turned_by(result.coefficients.pose, rotation)


def test_annotated_landmarks_give_annotated_poses(annotations, basel_model) -> None:
    """400 faces of AFLW2000-3D, yaw up to ±90 degrees, from the x and y of their annotated landmarks."""
    truth = torch.as_tensor(annotations["landmarks68"]).double().mT[..., :2] - 1  # the files count pixels from 1
    rotation = euler_to_matrix(torch.as_tensor(annotations["pose7"])[:, :3])
    result = fit_landmarks(truth, basel_model, height=450)
    nme, angle = evaluate(result, basel_model, truth, rotation, 450)
    assert bool(result.converged.all())
    assert float(nme.mean()) < 0.9  # 0.83; the annotation itself, cut to 40 + 10 coefficients, has 0.88
    assert float(angle.median()) < 1.3  # 1.05
    assert float(angle.max()) < 6  # 4.5
    average = fit_landmarks(truth, basel_model, height=450, regularisation=math.inf)
    rigid_nme, rigid_angle = evaluate(average, basel_model, truth, rotation, 450)
    assert 1.8 < float(rigid_nme.mean()) < 2.2  # 2.01
    assert float(rigid_angle.median()) > float(angle.median())


def test_a_real_detectors_landmarks_give_useful_poses(annotations, basel_model) -> None:
    """Its jaw follows the outline, so leaving out the far half is better, and the model corrects the detector."""
    truth = torch.as_tensor(annotations["landmarks68"]).double().mT[..., :2] - 1
    truth = image_to_crop(truth, torch.as_tensor(annotations["roi_box"]).double() - 1)
    rotation = euler_to_matrix(torch.as_tensor(annotations["pose7"])[:, :3])
    detected = torch.as_tensor(annotations["detected68_crop"]).double().mT
    nme, angle = evaluate(fit_landmarks(detected, basel_model), basel_model, truth, rotation, CROP_SIZE)
    result = fit_landmarks(detected, basel_model, ignore_far_jaw=True)
    better_nme, better_angle = evaluate(result, basel_model, truth, rotation, CROP_SIZE)
    size = (truth.amax(dim=1) - truth.amin(dim=1)).prod(dim=-1).sqrt()
    detector_nme = 100 * (detected - truth).norm(dim=-1).mean(dim=1) / size
    assert float(better_nme.mean()) < 3.3 < 4 < float(nme.mean())  # 3.16 and 4.13
    assert float(better_nme.mean()) < 0.8 * float(detector_nme.mean())  # 4.18
    assert float(better_angle.median()) < 5.2  # 4.81
    assert float(better_angle.quantile(0.95)) < 14 < float(angle.quantile(0.95))  # 12.4 and 24.8
    yaw = matrix_to_euler(result.coefficients.pose[..., :3])[:, 1] - matrix_to_euler(rotation)[:, 1]
    assert float(yaw.abs().rad2deg().median()) < 2.2  # 1.84
