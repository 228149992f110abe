"""Losses on landmarks: 2D and 3D consistency and the cycle."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.losses import (
    FACE_SIZE_FLOOR,
    HUBER_DELTA,
    CycleConsistency,
    LandmarkConsistency2D,
    LandmarkConsistency3D,
    centre_depth,
    face_size,
)

BATCH, POINTS = 5, 18
FLAT = pytest.mark.parametrize("kind", [LandmarkConsistency2D, CycleConsistency])
BOTH = pytest.mark.parametrize("distance", ["squared", "huber"])


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def points(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predicted, target (with NaN at some hidden points) and visible."""
    target = 60 + 20 * torch.randn(BATCH, POINTS, 2, generator=generator, dtype=torch.float64)
    predicted = target + 3 * torch.randn(target.shape, generator=generator, dtype=torch.float64)
    visible = torch.rand(BATCH, POINTS, generator=generator) > 0.3
    hidden = (~visible).nonzero()[::2]
    target[hidden[:, 0], hidden[:, 1]] = float("nan")
    return predicted, target, visible


def rho(d: float, distance: str, delta: float) -> float:
    return d * d if distance == "squared" or d <= delta else 2 * delta * d - delta * delta


# ------------------------------------------------------------------------------------------------- 2D and the cycle
@FLAT
@BOTH
def test_is_a_loop_over_visible_points(kind, distance, points) -> None:
    predicted, target, visible = points
    value = kind(distance=distance)(predicted, target, visible)
    for sample in range(BATCH):
        seen = [k for k in range(POINTS) if visible[sample, k]]
        xs, ys = zip(*(target[sample, k].tolist() for k in seen), strict=True)
        size = ((max(xs) - min(xs)) * (max(ys) - min(ys))) ** 0.5
        costs = [
            rho(float((predicted[sample, k] - target[sample, k]).norm()) / size, distance, HUBER_DELTA) for k in seen
        ]
        assert float(value[sample]) == pytest.approx(sum(costs) / len(seen), rel=1e-9)


@FLAT
@BOTH
def test_zero_at_the_truth_with_a_finite_gradient(kind, distance, points, device) -> None:
    _, target, visible = (each.to(device) for each in points)
    predicted = torch.where(visible[..., None], target, torch.zeros_like(target)).requires_grad_()
    value = kind(distance=distance)(predicted, target, visible)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=0)


@FLAT
@BOTH
def test_gradient_is_the_derivative(kind, distance, points) -> None:
    predicted, target, visible = points
    loss = kind(distance=distance, delta=0.031)
    assert torch.autograd.gradcheck(lambda p: loss(p, target, visible), predicted.requires_grad_())


@FLAT
def test_hidden_points_neither_count_nor_poison(kind, points) -> None:
    predicted, target, visible = points
    moved = torch.where(visible[..., None], predicted, torch.full_like(predicted, 1e6)).requires_grad_()
    value = kind()(moved, target, visible)
    torch.testing.assert_close(value, kind()(predicted, target, visible))
    (gradient,) = torch.autograd.grad(value.sum(), moved)
    assert torch.isfinite(gradient).all()
    assert (gradient[~visible] == 0).all()
    assert (gradient[visible] != 0).any(dim=-1).all()


@FLAT
def test_missing_points_do_not_count_even_if_called_visible(kind, points) -> None:
    predicted, target, visible = points
    known = torch.isfinite(target).all(dim=-1)
    everything = kind()(predicted, target, torch.ones_like(visible))
    torch.testing.assert_close(everything, kind()(predicted, target, known))
    torch.testing.assert_close(everything, kind()(predicted, target))
    assert torch.isfinite(everything).all()


@FLAT
@BOTH
def test_a_face_without_visible_landmarks_contributes_zero(kind, distance, points) -> None:
    predicted, target, visible = points
    visible[2] = False
    target[2] = float("nan")
    predicted.requires_grad_()
    value = kind(distance=distance)(predicted, target, visible)
    assert value[2] == 0
    assert (value[[0, 1, 3, 4]] > 0).all()
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    assert (gradient[2] == 0).all()
    assert torch.isfinite(gradient).all()


def test_a_nan_prediction_is_not_hidden(points) -> None:
    predicted, target, visible = points
    visible[1, 4], target[1, 4] = True, 50.0
    predicted[1, 4] = float("nan")
    assert LandmarkConsistency2D()(predicted, target, visible)[1].isnan()


@BOTH
def test_resolution_does_not_matter(distance, points) -> None:
    predicted, target, visible = points
    loss = LandmarkConsistency2D(distance=distance)
    torch.testing.assert_close(loss(4 * predicted + 7, 4 * target + 7, visible), loss(predicted, target, visible))


def test_by_hand() -> None:
    target = torch.tensor([[[0.0, 0.0], [90.0, 0.0], [90.0, 40.0], [0.0, 40.0]]])  # sqrt(90 * 40) = 60
    predicted = target.clone()
    predicted[0, 0] += torch.tensor([3.0, 0.0])  # 0.05 face sizes
    predicted[0, 2] += torch.tensor([0.0, -12.0])  # 0.2
    visible = torch.tensor([[True, True, True, False]])
    box = 60.0
    flat = LandmarkConsistency2D()(predicted, target, visible)
    torch.testing.assert_close(flat, torch.tensor([(9 + 144) / box**2 / 3]))
    robust = LandmarkConsistency2D(distance="huber", delta=0.1)(predicted, target, visible)
    torch.testing.assert_close(robust, torch.tensor([(0.05**2 + 2 * 0.1 * 0.2 - 0.1**2) / 3]))


def test_huber_bounds_the_pull_of_an_outlier() -> None:
    target = 40 * torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]])
    pulls = []
    for far in (20.0, 2000.0):
        predicted = (target + torch.tensor([far, 0.0])).requires_grad_()
        value = LandmarkConsistency2D(distance="huber")(predicted, target, torch.ones(1, 3))
        pulls.append(torch.autograd.grad(value.sum(), predicted)[0][0, 0, 0])
    torch.testing.assert_close(pulls[0], pulls[1])
    torch.testing.assert_close(pulls[0], torch.tensor(2 * HUBER_DELTA / 40 / 3))


def test_the_unit_is_no_way_to_lower_the_loss(points) -> None:
    """No gradient reaches the target, neither as such nor through the face size."""
    predicted, target, visible = points
    target = torch.nan_to_num(target).requires_grad_()
    value = LandmarkConsistency2D()(predicted.requires_grad_(), target, visible).sum()
    assert torch.autograd.grad(value, [predicted, target], allow_unused=True)[1] is None


def test_half_precision_is_widened(points) -> None:
    predicted, target, visible = points
    value = LandmarkConsistency2D()(predicted.half(), target.half(), visible)
    assert value.dtype == torch.float32


@FLAT
def test_wrong_arguments_are_named(kind, points) -> None:
    predicted, target, visible = points
    with pytest.raises(ShapeError, match=r"target: found shape \(5, 17, 2\); expected that of predicted"):
        kind()(predicted, target[:, 1:], visible)
    with pytest.raises(ShapeError, match=r"visible: found shape \(5, 17\); expected \(5, 18\)"):
        kind()(predicted, target, visible[:, 1:])
    with pytest.raises(InputTypeError, match="visible: found list"):
        kind()(predicted, target, [True])
    with pytest.raises(ShapeError, match="predicted: found shape"):
        kind()(torch.zeros(5, 18, 3), target, visible)
    with pytest.raises(ValueRangeError, match="distance: found 'l1'; expected one of squared, huber"):
        kind(distance="l1")
    for argument in ("delta", "floor"):
        with pytest.raises(ValueRangeError, match=f"{argument}: found 0"):
            kind(**{argument: 0})


# --------------------------------------------------------------------------------------------------------------- 3D
@pytest.fixture
def solids(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    first = 60 + 20 * torch.randn(BATCH, 68, 3, generator=generator, dtype=torch.float64)
    return first + 3 * torch.randn(first.shape, generator=generator, dtype=torch.float64), first


@BOTH
def test_3d_is_a_loop(distance, solids) -> None:
    second, first = solids
    value = LandmarkConsistency3D(distance=distance)(second, first)
    for sample in range(BATCH):
        a, b = second[sample].clone(), first[sample].clone()
        a[:, 2] -= a[:, 2].mean()
        b[:, 2] -= b[:, 2].mean()
        size = float((b[:, 0].max() - b[:, 0].min()) * (b[:, 1].max() - b[:, 1].min())) ** 0.5
        costs = [rho(float((p - q).norm()) / size, distance, HUBER_DELTA) for p, q in zip(a, b, strict=True)]
        assert float(value[sample]) == pytest.approx(sum(costs) / 68, rel=1e-9)


@BOTH
def test_3d_zero_at_the_truth_with_a_finite_gradient(distance, solids, device) -> None:
    first = solids[1].to(device)
    second = first.clone().requires_grad_()
    value = LandmarkConsistency3D(distance=distance)(second, first)
    assert value.shape == (BATCH,)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), second)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=0)


@BOTH
def test_3d_gradient_is_the_derivative(distance, solids) -> None:
    second, first = (each[:2, ::8].clone().requires_grad_() for each in solids)
    loss = LandmarkConsistency3D(distance=distance)
    assert torch.autograd.gradcheck(lambda p: loss(p, first.detach()), second)
    # With respect to both passes together; the unit, a constant, is held still by moving both alike.
    (pull_second, pull_first) = torch.autograd.grad(loss(second, first).sum(), [second, first])
    torch.testing.assert_close(pull_second, -pull_first)


@BOTH
def test_3d_depends_neither_on_resolution_nor_on_depth(distance, solids) -> None:
    second, first = solids
    loss = LandmarkConsistency3D(distance=distance)
    expected = loss(second, first)
    torch.testing.assert_close(loss(3 * second + 1, 3 * first + 1), expected)
    torch.testing.assert_close(loss(second + torch.tensor([0, 0, 50.0]), first), expected)


def test_3d_by_hand() -> None:
    first = torch.tensor([[[0.0, 0.0, 0.0], [40.0, 0.0, 0.0], [40.0, 40.0, 0.0], [0.0, 40.0, 0.0]]])
    second = first.clone()
    second[0, 0] += torch.tensor([0.0, 0.0, 4.0])  # centred: 3 of it remain, and -1 at the three others
    torch.testing.assert_close(LandmarkConsistency3D()(second, first), torch.tensor([(9 + 3) / 1600 / 4]))


def test_3d_nan_is_not_hidden(solids) -> None:
    second, first = solids
    first[0, 3] = float("nan")
    second[1, 4] = float("nan")
    assert LandmarkConsistency3D()(second, first).isnan().tolist() == [True, True, False, False, False]


def test_3d_wrong_shapes_are_named(solids) -> None:
    with pytest.raises(ShapeError, match="first: found shape"):
        LandmarkConsistency3D()(solids[0], solids[1][:, :18])
    with pytest.raises(ShapeError, match="second: found shape"):
        LandmarkConsistency3D()(solids[0][..., :2], solids[1][..., :2])


# ------------------------------------------------------------------------------------------------------------ sizes
def test_face_size_by_hand() -> None:
    points = torch.tensor([[[0.0, 0.0], [90.0, 40.0], [500.0, 10.0]]]).expand(3, 3, 2).clone()
    visible = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    torch.testing.assert_close(face_size(points, visible), torch.tensor([60.0, FACE_SIZE_FLOOR, FACE_SIZE_FLOOR]))
    points[0, 2] = float("nan")
    torch.testing.assert_close(face_size(points)[0], torch.tensor(60.0))
    assert not face_size(points.requires_grad_(), visible).requires_grad
    torch.testing.assert_close(face_size(points, visible, floor=100.0), torch.full((3,), 100.0))


def test_centre_depth_moves_depth_alone(solids) -> None:
    points = centre_depth(solids[0])
    torch.testing.assert_close(points[..., :2], solids[0][..., :2])
    torch.testing.assert_close(points[..., 2].mean(dim=-1), torch.zeros(BATCH).double())


@FLAT
def test_a_single_visible_point_counts_in_full(kind) -> None:
    target = torch.tensor([[[10.0, 10.0], [50.0, 90.0]]])
    visible = torch.tensor([[True, False]])
    predicted = target + torch.tensor([3.0, 4.0])
    torch.testing.assert_close(kind()(predicted, target, visible), torch.tensor([25 / FACE_SIZE_FLOOR**2]))
    assert float(kind()(predicted, target, torch.zeros_like(visible))) == 0
