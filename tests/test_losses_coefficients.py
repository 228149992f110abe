"""Losses on labelled pictures: PDC, VDC, WPDC, compared with loops over their definitions."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import constrain, decode, decode_landmarks
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import Coefficients, Whitening
from twodasl_lite.losses import PDC, VDC, WPDC, VertexMoments
from twodasl_lite.losses.labelled import DEPTH_ENTRY

BATCH = 6


def random_faces(model: MorphableModel, num: int, seed: int = 0) -> torch.Tensor:
    """Raw vectors ``(num, D)`` of plausible faces in a crop."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    pose = make_pose(0.5 + 0.1 * random(num), euler_to_matrix(0.5 * random(num, 3)), 60 + 5 * random(num, 3))
    return Coefficients(pose, *model.sample(num, generator=generator)).pack()


@pytest.fixture
def whitening(small_model: MorphableModel) -> Whitening:
    return Whitening.from_samples(random_faces(small_model, 200, seed=7))


@pytest.fixture
def pair(small_model: MorphableModel, whitening: Whitening) -> tuple[torch.Tensor, torch.Tensor]:
    """Whitened predictions and truths, both ``(B, D)``."""
    target = whitening.whiten(random_faces(small_model, BATCH))
    generator = torch.Generator().manual_seed(3)
    return target + 0.3 * torch.randn(target.shape, generator=generator, dtype=torch.float64), target


def make(name: str, model: MorphableModel, whitening: Whitening, vertices=None):
    return PDC() if name == "pdc" else {"vdc": VDC, "wpdc": WPDC}[name](model, whitening, vertices)


ALL = pytest.mark.parametrize("name", ["pdc", "vdc", "wpdc"])


# ------------------------------------------------------------------------------------------------ every one of them
@ALL
def test_zero_at_the_truth_with_a_finite_gradient(name, small_model, whitening, pair, device) -> None:
    loss = make(name, small_model, whitening).to(device)
    target = pair[1].to(device)
    predicted = target.clone().requires_grad_()
    value = loss(predicted, target)
    assert value.shape == (BATCH,)
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(value.sum(), predicted)
    assert torch.isfinite(gradient).all()


@ALL
def test_gradient_is_the_derivative(name, small_model, whitening, pair) -> None:
    loss, (predicted, target) = make(name, small_model, whitening), pair
    if name == "wpdc":
        weights = loss.weights(predicted, target)
        assert torch.autograd.gradcheck(lambda p: loss(p, target, weights), predicted.requires_grad_())
    else:
        assert torch.autograd.gradcheck(lambda p: loss(p, target), predicted.requires_grad_())


@ALL
def test_depth_of_the_translation_does_not_count(name, small_model, whitening, pair) -> None:
    loss, (predicted, target) = make(name, small_model, whitening), pair
    deeper = predicted.clone()
    deeper[:, DEPTH_ENTRY] += 100
    torch.testing.assert_close(loss(deeper, target), loss(predicted, target))
    assert small_model.layout.names.index("pose[2,3]") == DEPTH_ENTRY


@ALL
def test_samples_do_not_depend_on_each_other(name, small_model, whitening, pair) -> None:
    loss, (predicted, target) = make(name, small_model, whitening), pair
    torch.testing.assert_close(loss(predicted[2:3], target[2:3]), loss(predicted, target)[2:3])
    assert loss(predicted[:0], target[:0]).shape == (0,)


@ALL
def test_half_precision_is_widened(name, small_model, whitening, pair) -> None:
    loss = make(name, small_model, whitening).float()
    predicted, target = (each.bfloat16() for each in pair)
    value = loss(predicted, target)
    assert value.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(predicted, target), value)
    torch.testing.assert_close(loss(predicted.float(), target.float()), value)


@ALL
def test_nan_is_not_hidden(name, small_model, whitening, pair) -> None:
    loss, (predicted, target) = make(name, small_model, whitening), pair
    predicted[1, 20 - 1] = float("nan")
    value = loss(predicted, target)
    assert value[1].isnan()
    assert torch.isfinite(value[[0, 2, 3]]).all()


@ALL
def test_wrong_shapes_are_named(name, small_model, whitening, pair) -> None:
    loss, (predicted, target) = make(name, small_model, whitening), pair
    with pytest.raises(ShapeError, match=r"target: found shape \(5, 20\); expected that of predicted, \(6, 20\)"):
        loss(predicted, target[:5])
    with pytest.raises(ShapeError, match="predicted: found"):
        loss(predicted[:, :11], target[:, :11])
    with pytest.raises(ShapeError, match="predicted: found shape"):
        loss(predicted[0], target[0])


@pytest.mark.parametrize("name", ["vdc", "wpdc"])
def test_state_is_not_saved(name, small_model, whitening) -> None:
    assert not make(name, small_model, whitening).state_dict()


@pytest.mark.parametrize("name", ["vdc", "wpdc"])
def test_vertices_are_checked(name, small_model, whitening) -> None:
    with pytest.raises(ValueRangeError, match=r"vertices: found 'cheek'; expected one of face, last"):
        make(name, small_model, whitening, "cheek")
    with pytest.raises(ValueRangeError, match="vertices: found indices from 0 to 90; expected 0 to 89"):
        make(name, small_model, whitening, torch.tensor([0, 90]))
    with pytest.raises(InputTypeError, match=r"vertices: found torch\.bool; expected integers"):
        make(name, small_model, whitening, torch.ones(90, dtype=torch.bool))
    with pytest.raises(ShapeError, match="vertices: found none; expected at least one"):
        make(name, small_model, whitening, torch.zeros(0, dtype=torch.long))
    short = Whitening(whitening.mean[:-1], whitening.std[:-1])
    with pytest.raises(ShapeError, match="whitening: found 19 coefficients; expected the model's 20"):
        make(name, small_model, short)


# ------------------------------------------------------------------------------------------------------------- PDC
def test_pdc_by_hand() -> None:
    predicted = torch.zeros(2, 14)
    predicted[0, 0], predicted[0, 13], predicted[1, DEPTH_ENTRY] = 3.0, -2.0, 5.0
    torch.testing.assert_close(PDC()(predicted, torch.zeros(2, 14)), torch.tensor([13.0, 0.0]))


# ------------------------------------------------------------------------------------------------------------- VDC
@pytest.mark.parametrize("vertices", [None, "face", torch.tensor([3, 17, 17, 60])], ids=["all", "region", "some"])
def test_vdc_is_a_loop_over_vertices(vertices, small_model, whitening, pair) -> None:
    predicted, target = pair
    value = VDC(small_model, whitening, vertices)(predicted, target)
    chosen = small_model.regions["face"] if vertices == "face" else torch.arange(90) if vertices is None else vertices
    for sample in range(BATCH):
        truth = whitening.unwhiten(target[sample])
        left = decode(whitening.unwhiten(predicted[sample]), small_model)[chosen]
        right = decode(truth, small_model)[chosen]
        left[:, 2] -= left[:, 2].mean()
        right[:, 2] -= right[:, 2].mean()
        landmarks = decode_landmarks(truth, small_model)
        width, height = (landmarks[:, axis].max() - landmarks[:, axis].min() for axis in (0, 1))
        expected = (
            sum((a - b).square().sum() for a, b in zip(left, right, strict=True)) / len(chosen) / (width * height)
        )
        torch.testing.assert_close(value[sample], expected)


def test_vdc_of_a_shift_by_hand(small_model, whitening, pair) -> None:
    target = pair[1]
    raw = whitening.unwhiten(target)
    shifted = raw.clone()
    shifted[:, [3, 7, 11]] += torch.tensor([3.0, 4.0, 100.0], dtype=torch.float64)  # a shift by 5 pixels, and in depth
    landmarks = decode_landmarks(raw, small_model)
    extent = (landmarks.amax(dim=1) - landmarks.amin(dim=1))[:, :2]
    value = VDC(small_model, whitening)(whitening.whiten(shifted), target)
    torch.testing.assert_close(value, 25 / extent.prod(dim=1))


def test_vdc_does_not_depend_on_the_resolution(small_model, whitening, pair) -> None:
    """The same two faces in a crop of twice the size: a pose of twice the size."""
    raw = [whitening.unwhiten(each) for each in pair]
    for each in raw:
        each[:, :12] *= 2
    doubled = Whitening.from_samples(torch.cat(raw))
    twice = VDC(small_model, doubled)(*(doubled.whiten(each) for each in raw))
    torch.testing.assert_close(twice, VDC(small_model, whitening)(*pair))


def test_vdc_of_a_tiny_face_is_bounded_by_the_floor(small_model, whitening, pair) -> None:
    raw = whitening.unwhiten(pair[1])
    raw[:, [0, 1, 2, 4, 5, 6, 8, 9, 10]] *= 1e-6
    shifted = raw.clone()
    shifted[:, 3] += 6
    value = VDC(small_model, whitening, floor=12.0)(whitening.whiten(shifted), whitening.whiten(raw))
    torch.testing.assert_close(value, torch.full_like(value, 0.25))
    with pytest.raises(ValueRangeError, match="floor: found 0"):
        VDC(small_model, whitening, floor=0)


def test_vdc_as_a_distance(small_model, whitening, pair) -> None:
    """The root of the square, level at the truth instead of infinitely steep."""
    root, squared = VDC(small_model, whitening, root=True), VDC(small_model, whitening)
    predicted, target = pair
    torch.testing.assert_close(root(predicted, target), squared(predicted, target).sqrt())
    assert torch.autograd.gradcheck(lambda p: root(p, target), predicted.requires_grad_())
    there = target.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(root(there, target).sum(), there)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    # Level within a ten-thousandth of a face, and a distance again at twice that.
    shift = torch.zeros_like(target)
    shift[:, 3] = 1.0  # of the translation, so that the distance is proportional to it
    shift = shift / squared(target + shift, target).sqrt()[:, None]  # by one face
    for moved, expected in ((0.0, 1e-4), (0.5e-4, 1e-4), (2e-4, 2e-4), (1e-3, 1e-3)):
        found = root(target + moved * shift, target)
        torch.testing.assert_close(found, torch.full_like(found, expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("form", ["completed", "similarity"])
@pytest.mark.parametrize("root", [False, True])
def test_vdc_of_a_constrained_pose(form, root, small_model, whitening, pair) -> None:
    """The vertices of the pose as it is read; the predicted third row gets no gradient."""
    predicted, target = (part.double() for part in pair)
    loss = VDC(small_model, whitening, root=root, pose=form)
    read = constrain(whitening.unwhiten(predicted), form)
    expected = VDC(small_model, whitening, root=root)(whitening.whiten(read), target)
    torch.testing.assert_close(loss(predicted, target), expected)
    predicted.requires_grad_()
    loss(predicted, target).sum().backward()
    assert bool((predicted.grad[:, 8:11] == 0).all())  # entries (2, 0) to (2, 2) of the 3x4 pose
    assert bool((predicted.grad[:, :8] != 0).all())


def test_vdc_keeps_its_digits_close_to_the_truth(small_model, whitening, pair) -> None:
    """Single precision against double, a millionth of a standard deviation away."""
    target = pair[1]
    near = target + 1e-6 * torch.randn(target.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = VDC(small_model, whitening)(near, target)
    # The vectors themselves must be representable: move whole steps of single precision.
    target32 = target.float()
    near32 = target32 + (near - target).float()
    exact = VDC(small_model, whitening)(near32.double(), target32.double())
    value = VDC(small_model, whitening).float()(near32, target32)
    torch.testing.assert_close(value.double(), exact, rtol=1e-3, atol=0)


# ------------------------------------------------------------------------------------------------------------ WPDC
def naive_weights(predicted, target, model, whitening, chosen) -> torch.Tensor:
    """Swap one coefficient after the other, decode, measure."""
    rows = []
    for p, t in zip(predicted, target, strict=True):
        p, t = whitening.unwhiten(p), whitening.unwhiten(t)
        truth = decode(t, model)[chosen]
        moved = []
        for entry in range(len(t)):
            swapped = t.clone()
            swapped[entry] = p[entry]
            moved.append((decode(swapped, model)[chosen] - truth).norm())
        moved[DEPTH_ENTRY] = torch.zeros(()).double()
        moved = torch.stack(moved)
        rows.append(moved / moved.max())
    return torch.stack(rows)


@pytest.mark.parametrize("vertices", [None, "face", torch.tensor([3, 17, 60])], ids=["all", "region", "some"])
def test_wpdc_is_the_loop_that_swaps_one_coefficient(vertices, small_model, whitening, pair) -> None:
    predicted, target = pair
    loss = WPDC(small_model, whitening, vertices)
    chosen = small_model.regions["face"] if vertices == "face" else torch.arange(90) if vertices is None else vertices
    expected = naive_weights(predicted, target, small_model, whitening, chosen)
    torch.testing.assert_close(loss.weights(predicted, target), expected)
    torch.testing.assert_close(loss(predicted, target), (expected * (predicted - target) ** 2).sum(dim=1))


def test_wpdc_weights_of_a_pose_that_is_no_rotation(small_model, whitening, pair) -> None:
    """Boxes that are not square stretch the pose: the closed form must not assume a scaled rotation."""
    raw = [whitening.unwhiten(each) for each in pair]
    for each in raw:
        each[:, :4] *= 1.7
        each[:, 5] += 0.2
    predicted, target = (whitening.whiten(each) for each in raw)
    expected = naive_weights(predicted, target, small_model, whitening, torch.arange(90))
    torch.testing.assert_close(WPDC(small_model, whitening).weights(predicted, target), expected)


def test_wpdc_by_hand(small_model, whitening, pair) -> None:
    """One wrong coefficient has weight 1; of two translations, the one that is off further."""
    target = pair[1][:1]
    predicted = target.clone()
    predicted[0, 14] += 0.5
    torch.testing.assert_close(WPDC(small_model, whitening)(predicted, target), torch.tensor([0.25]).double())
    raw = whitening.unwhiten(target)
    raw[0, 3] += 2.0
    raw[0, 7] -= 1.0
    weights = WPDC(small_model, whitening).weights(whitening.whiten(raw), target)[0]
    torch.testing.assert_close(weights[[3, 7]], torch.tensor([1.0, 0.5]).double())
    difference = torch.tensor([2.0, 1.0]).double() / whitening.std[[3, 7]]
    expected = difference[0] ** 2 + 0.5 * difference[1] ** 2
    torch.testing.assert_close(WPDC(small_model, whitening)(whitening.whiten(raw), target)[0], expected)


def test_wpdc_weights_are_constants(small_model, whitening, pair) -> None:
    loss, (predicted, target) = WPDC(small_model, whitening), pair
    predicted.requires_grad_()
    weights = loss.weights(predicted, target)
    assert not weights.requires_grad
    torch.testing.assert_close(weights.amax(dim=1), torch.ones(BATCH).double())
    (gradient,) = torch.autograd.grad(loss(predicted, target).sum(), predicted)
    torch.testing.assert_close(gradient, 2 * weights * (predicted.detach() - target))


def test_wpdc_weights_do_not_depend_on_the_resolution(small_model, whitening, pair) -> None:
    raw = [whitening.unwhiten(each) for each in pair]
    for each in raw:
        each[:, :12] *= 2
    doubled = Whitening(whitening.mean * 1, whitening.std * 1)
    weights = WPDC(small_model, doubled).weights(*(doubled.whiten(each) for each in raw))
    torch.testing.assert_close(weights, WPDC(small_model, whitening).weights(*pair))


def test_wpdc_refuses_weights_of_another_shape(small_model, whitening, pair) -> None:
    with pytest.raises(ShapeError, match=r"weights: found shape \(20,\); expected \(6, 20\)"):
        WPDC(small_model, whitening)(*pair, torch.ones(20))


# --------------------------------------------------------------------------------------------------------- moments
def test_moments_are_sums_over_vertices(small_model, pair, whitening) -> None:
    face = Coefficients.unpack(whitening.unwhiten(pair[1]), small_model.layout)
    moments = VertexMoments(small_model)
    points = small_model.decode(face.shape, face.expression)  # (B, V, 3)
    weights = torch.cat([torch.ones(BATCH, 1).double(), face.shape, face.expression], dim=1)
    torch.testing.assert_close(moments.coordinate_norms(weights), points.norm(dim=1))
    linear = face.pose[..., :3]
    moved = torch.einsum("bij,vjk->bvik", linear, small_model.basis)
    torch.testing.assert_close(moments.component_norms(linear), moved.square().sum(dim=(1, 2)).sqrt())
    tensor = linear[..., None] * weights[:, None, None]
    expected = (points @ linear.mT + face.pose[:, None, :, 3]).square().sum(dim=-1).mean(dim=-1)
    torch.testing.assert_close(moments.mean_square(tensor, face.pose[..., 3], depth=True), expected)
