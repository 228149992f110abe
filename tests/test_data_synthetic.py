"""Synthetic pictures: the same in any batch, with matching labels, and as varied as their world specifies."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import make_model
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from twodasl_lite.base.errors import InputTypeError, TwodaslError, ValueRangeError
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.camera import matrix_to_euler, split_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import GROUPS, subset_18
from twodasl_lite.render import interpolate, rasterize, visible_vertices
from twodasl_lite.worlds import backgrounds, lighting, synthetic
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.synthetic import TEST_SEED, SyntheticFaces, average_colours, whitening_of
from twodasl_lite.worlds.world import Box, Degradation, Lighting, Occluders, Pose, World, load_world


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return load_face_model(CoefficientLayout())


@pytest.fixture(scope="module", autouse=True)
def _few_textures():
    """Clutter from a smaller bank, which is quicker to make."""
    usual = backgrounds.BANK_SIZE
    backgrounds.BANK_SIZE = 6
    yield
    backgrounds.BANK_SIZE = usual


def same(one: FaceBatch, other: FaceBatch) -> bool:
    def equal(a, b):
        return (a is None and b is None) or torch.equal(torch.nan_to_num(a.float()), torch.nan_to_num(b.float()))

    return all(equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("world", ["labelled", "wild"])
def test_a_picture_is_the_same_in_any_batch_and_worker(model, world):
    faces = SyntheticFaces(model, world, seed=7)
    whole = faces.batch(3, 21, truth=True)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = SyntheticFaces(model, world, seed=7)  # another worker
        parts = [again.batch(23, 1, truth=True), again.batch(3, 2, truth=True), again.batch(5, 18, truth=True)]
    finally:
        torch.set_num_threads(threads)
    assert same(FaceBatch.cat([parts[1], parts[2], parts[0]]), whole)
    assert same(faces.batch(3, 21, truth=True), whole)


def test_seeds_make_other_pictures(model):
    one, other = (SyntheticFaces(model, "labelled", seed=seed).batch(0, 2) for seed in (0, TEST_SEED))
    assert not torch.equal(one.images, other.images)
    assert (one.coefficients - other.coefficients).abs().amax(dim=1).min() > 0.1


def test_labels_fit_each_other(model, device):
    faces = SyntheticFaces(model, "wild", seed=1, device=device)
    batch = faces.batch(0, 24, truth=True)
    assert batch.images.shape == (24, 3, 120, 120)
    assert batch.images.dtype == torch.uint8
    assert batch.images.device.type == device.type
    assert torch.allclose(decode_landmarks(batch.coefficients, faces.model), batch.landmarks, atol=1e-3)
    assert torch.allclose(faces.coefficients(0, 24), batch.coefficients, rtol=1e-4, atol=1e-4)
    assert batch.landmarks[..., 2].mean(dim=1).abs().max() < 1e-3
    scale, rotation, _ = split_pose(Coefficients.unpack(batch.coefficients, model.layout).pose)
    yaw = torch.rad2deg(matrix_to_euler(rotation))[:, 1]
    settled = batch.yaw.abs() < 88  # beyond, noise in the last bits decides
    assert torch.allclose(yaw[settled], batch.yaw[settled], atol=0.1)
    assert bool((scale > 0).all())
    # The detector reports points about the true ones.
    error = (batch.detected - subset_18(batch.landmarks[..., :2])).norm(dim=-1)
    assert error.nanmedian() < 4
    assert torch.equal(batch.detected_visible, torch.isfinite(error))


def test_pictures_are_nearly_the_same_on_other_devices(model, device):
    here = SyntheticFaces(model, "labelled", seed=1).batch(0, 4)
    there = SyntheticFaces(model, "labelled", seed=1, device=device).batch(0, 4).to("cpu")
    assert torch.allclose(here.landmarks, there.landmarks, atol=1e-2)
    assert ((here.images.int() - there.images.int()).abs() > 8).float().mean() < 0.01


@pytest.mark.parametrize("world", ["labelled", "wild"])
def test_both_programs_draw_the_same_pictures(model, device, world):
    """One definition, two devices: numba's pictures on a CPU and those of the program for GPUs, wherever it runs."""
    backend = "torch" if device.type == "cpu" else "auto"
    here = SyntheticFaces(model, world, seed=1, program="cpu")
    there = SyntheticFaces(model, world, seed=1, device=device, program="gpu", backend=backend)
    for start, count in ((0, 20), (40, 4)):  # the first asks for its random numbers one by one, the second at once
        one = here.batch(start, count, truth=True)
        other = there.batch(start, count, truth=True).to("cpu")
        assert torch.allclose(one.coefficients, other.coefficients, rtol=1e-4, atol=1e-3)
        assert torch.allclose(one.landmarks, other.landmarks, atol=1e-2)
        assert (one.visible == other.visible).float().mean() > 0.995
        assert torch.equal(one.detected_visible, other.detected_visible)
        assert torch.allclose(one.detected, other.detected, atol=1e-2, equal_nan=True)
        assert (one.images.float() - other.images.float()).abs().mean() < 2
    vertices = decode(one.coefficients, model) * 2
    mine = rasterize(vertices, model.triangles, 240, 240)
    its = rasterize(vertices.to(device), model.triangles.to(device), 240, 240, backend=backend, check=False)
    assert (mine.covered == its.covered.cpu()).float().mean() >= 0.999
    both = mine.covered & its.covered.cpu()
    assert ((mine.depth - its.depth.cpu()).abs() < 0.01)[both].float().mean() >= 0.999


class _NoWaiting(TorchDispatchMode):
    """Refuses what a GPU would have to be waited for: numbers read back, and numbers brought there."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "repeat_interleave")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.partition(".")[0]
        assert not any(name.strip("_").startswith(wait.strip("_")) for wait in self.waits), name
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "boolean index"
        return func(*args, **kwargs or {})


def test_the_program_for_gpus_never_waits(model, monkeypatch):
    def apart(*arguments, backend, check):
        assert not check
        with _disable_current_modes():  # Triton's rasterizer never waits either, but cannot be watched
            return rasterize(*arguments)

    for module in (synthetic, lighting):
        monkeypatch.setattr(module, "rasterize", apart)
    faces = SyntheticFaces(model, "wild", program="gpu")
    for start in (0, 2):  # the first batches bring to the device what all others need
        faces.batch(start, 2, truth=True)
    with _NoWaiting():
        batch = faces.batch(4, 2, truth=True)
    assert batch.images.float().std() > 10
    with pytest.raises(AssertionError, match="nonzero"), _NoWaiting():
        torch.ones(3).nonzero()


def test_wild_batches_hold_no_truth(model):
    batch = SyntheticFaces(model, "wild").batch(0, 2)
    assert batch.landmarks is batch.visible is batch.coefficients is batch.yaw is None
    told = SyntheticFaces(model, "wild").batch(0, 2, truth=True)
    assert torch.equal(told.images, batch.images)
    assert same(told.without_truth(), batch)
    assert SyntheticFaces(model, "labelled").batch(0, 2).coefficients is not None
    assert SyntheticFaces(model, "labelled").batch(0, 2, truth=False).coefficients is None


def test_crops_are_those_of_the_benchmarks(model):
    """The landmarks' longer side is 1 / sqrt(2) of the crop, and they are in its middle: as on AFLW2000-3D."""
    exact = dataclasses.replace(load_world("wild"), box=Box(size_spread=0.0, shift_spread=0.0))
    for world, tolerance in ((exact, 1e-3), (load_world("wild"), 0.12)):
        landmarks = decode_landmarks(SyntheticFaces(model, world).coefficients(0, 500), model)[..., :2]
        low, high = landmarks.amin(dim=1), landmarks.amax(dim=1)
        assert torch.allclose((high - low).amax(dim=1), torch.tensor(120 / 2**0.5), rtol=tolerance)
        assert torch.allclose((low + high) / 2, torch.tensor(59.5), atol=max(1e-2, 120 * tolerance / 3))


def test_yaws_are_as_the_world_says(model):
    for name, limit in (("labelled", 30), ("wild", 90)):
        pose = Coefficients.unpack(SyntheticFaces(model, name).coefficients(0, 4000), model.layout).pose
        pitch, yaw, roll = torch.rad2deg(matrix_to_euler(split_pose(pose)[1])).unbind(-1)
        turn = load_world(name).pose
        assert yaw.abs().max() <= limit + 0.1
        assert yaw.abs().max() > 0.97 * limit
        assert abs(float(yaw.mean())) < 2
        # A part is uniform, the other normal: shares of the usual three bins.
        near = turn.yaw_uniform * 30 / limit + (1 - turn.yaw_uniform) * torch.erf(
            torch.tensor(30 / turn.yaw_spread / 2**0.5)
        ) / torch.erf(torch.tensor(limit / turn.yaw_spread / 2**0.5))
        assert float((yaw.abs() <= 30).float().mean()) == pytest.approx(float(near), abs=0.03)
        steep = yaw.abs() < 80
        assert pitch[steep].abs().max() <= turn.pitch_limit + 0.1
        assert roll[steep].abs().max() <= turn.roll_limit + 0.1


PLAIN = World(name="bare", lighting=Lighting(ambient=(1.0, 1.0), shine=(0.0, 0.0), colour=0.0), supersample=1)


def test_what_hides_landmarks(model):
    """The face itself, and nothing else in a plain world; more with things before it."""
    turned = Pose(yaw_limit=90.0, yaw_spread=40.0, yaw_uniform=1.0)
    faces = SyntheticFaces(model, dataclasses.replace(PLAIN, pose=turned))
    batch = faces.batch(0, 48)
    alone = visible_vertices(decode(batch.coefficients, model), model.triangles, model.landmarks)
    assert (batch.visible == alone).float().mean() > 0.96
    left, right = (batch.visible[:, GROUPS[eye]].float().mean(dim=1) for eye in ("left_eye", "right_eye"))
    to_the_left, to_the_right = batch.yaw > 60, batch.yaw < -60  # positive: the nose points to the picture's left
    assert right[to_the_left].mean() > left[to_the_left].mean() + 0.5
    assert left[to_the_right].mean() > right[to_the_right].mean() + 0.5
    for name, group in (("mask", "outer_lip"), ("hat", "jaw"), ("bars", "jaw"), ("hand", "jaw"), ("thing", "jaw")):
        occluders = dataclasses.replace(Occluders(), **{name: 1.0})
        hidden = SyntheticFaces(model, dataclasses.replace(faces.world, occluders=occluders)).batch(0, 48)
        assert torch.equal(hidden.landmarks, batch.landmarks)  # the truth does not care
        assert hidden.visible.float().mean() <= batch.visible.float().mean()
        if name == "mask":
            assert hidden.visible[:, GROUPS[group]].float().mean() < 0.1
            assert hidden.visible[:, GROUPS["left_brow"]].float().mean() > 0.5
        elif name != "hat":
            assert hidden.visible.float().mean() < batch.visible.float().mean() - 0.02
        assert (hidden.images != batch.images).any(dim=1).float().flatten(1).mean(dim=1).median() > 0.005


def test_glasses_and_microphones_are_seen(model):
    for name in ("glasses", "microphone"):
        occluders = dataclasses.replace(Occluders(), **{name: 1.0})
        with_it = SyntheticFaces(model, dataclasses.replace(PLAIN, occluders=occluders)).batch(0, 12)
        without = SyntheticFaces(model, PLAIN).batch(0, 12)
        changed = (with_it.images != without.images).any(dim=1).flatten(1).float().mean(dim=1)  # (B,)
        assert changed.min() > 0.002
        assert changed.max() < 0.35


def test_the_face_shows_its_own_colours(model):
    """Under white light from everywhere, with nothing before it, a pixel is the albedo that was drawn there."""
    world = dataclasses.replace(PLAIN, lighting=Lighting((1.0, 1.0), (1.0, 1.0), (0, 0), 0.0, 0.0, (0.0, 0.0), 0.0))
    faces = SyntheticFaces(model, world)
    batch = faces.batch(0, 3)
    vertices = decode(batch.coefficients, model)
    scale = model.albedo_std
    albedo = model.decode_albedo(Draws(0, torch.arange(3)).normal("albedo", len(scale), clip=2.0) * scale)
    fragments = rasterize(vertices, model.triangles, 120, 120)
    expected = interpolate(albedo, model.triangles, fragments).permute(0, 3, 1, 2)
    inside = fragments.covered[:, None].expand_as(expected)
    difference = (batch.images / 255 - expected)[inside].abs()
    assert difference.quantile(0.9) < 0.06  # light from above is 15 % stronger, from below weaker


@pytest.mark.parametrize("whole", [False, True])
def test_average_colours_is_interpolation_and_a_mean(model, device, whole):
    generator = torch.Generator().manual_seed(0)
    vertices = (30 * torch.rand(2, 40, 3, generator=generator)).to(device)
    triangles = torch.randint(40, (60, 3), generator=generator).to(device)
    colours = torch.rand(2, 40, 3, generator=generator).to(device)
    fragments = rasterize(vertices, triangles, 24, 30)
    picture, alpha = average_colours(colours, triangles, fragments, 2, whole=whole)
    fine = interpolate(colours, triangles, fragments)
    wanted = fine.reshape(2, 12, 2, 15, 2, 3).mean(dim=(2, 4)).permute(0, 3, 1, 2)
    assert torch.allclose(picture, wanted, atol=1e-5)
    covered = fragments.covered.float().reshape(2, 12, 2, 15, 2).mean(dim=(2, 4))
    assert torch.equal(alpha[:, 0], covered)


def test_wild_pictures_are_more_varied_than_labelled_ones(model):
    labelled = SyntheticFaces(model, "labelled").batch(0, 48).images.float()
    wild = SyntheticFaces(model, "wild").batch(0, 48).images.float()
    assert 50 < wild.mean() < 160
    assert 80 < labelled.mean() < 190
    assert (wild.std(dim=(1, 2, 3)) > 8).float().mean() > 0.95  # a person can still see something in each

    def colours(images: torch.Tensor) -> torch.Tensor:
        """Spread over pictures of how much redder than blue the middle of the face is."""
        middle = images[..., 40:80, 40:80].mean(dim=(-1, -2))
        return (middle[:, 0] / middle[:, 2].clamp(min=1)).log().std()

    def contrast(images: torch.Tensor) -> torch.Tensor:
        """Spread over pictures of how unlike the two halves of the face are."""
        left, right = (images[..., 30:90, side].mean(dim=(1, 2, 3)) for side in (slice(30, 60), slice(60, 90)))
        return (left / right.clamp(min=1)).log().std()

    assert colours(wild) > colours(labelled)
    assert contrast(wild) > 1.5 * contrast(labelled)


def test_clutter_is_rich():
    draws = Draws(0, torch.arange(32))
    plain = backgrounds.plain(draws, 120)
    clutter = backgrounds.cluttered(draws, backgrounds.texture_bank(0), 120, torch.ones(32))

    def edges(images: torch.Tensor) -> torch.Tensor:
        return ((images[..., 1:] - images[..., :-1]).abs().amax(dim=1) > 0.1).float().mean(dim=(1, 2))

    assert edges(plain).max() == 0
    assert edges(clutter).mean() > 0.01
    for images in (plain, clutter):
        assert images.min() >= 0
        assert images.max() <= 1
        assert images.mean(dim=(2, 3)).std(dim=0).min() > 0.1  # no two alike
    assert torch.equal(
        backgrounds.cluttered(draws.take(torch.tensor([5])), backgrounds.texture_bank(0), 120, torch.ones(1)),
        clutter[5:6],
    )


def test_whitening_is_that_of_the_worlds_coefficients(model):
    whitening = whitening_of(model, "labelled", count=2000)
    white = whitening.whiten(SyntheticFaces(model, "labelled", seed=3).coefficients(0, 2000))
    assert white.mean(dim=0).abs().max() < 0.1
    assert (white.std(dim=0) - 1).abs().max() < 0.1
    assert not torch.allclose(whitening.std, whitening_of(model, "wild", count=2000).std, rtol=0.2)


def test_other_models_work_too():
    """No head, another unit, double precision: nothing about it is taken for granted."""
    small = make_model()
    bare = make_model(albedo=False)
    batch = SyntheticFaces(small.with_layout(small.layout), "labelled").batch(0, 2)
    assert batch.coefficients.shape == (2, small.layout.size)
    assert whitening_of(bare, "wild", count=10).mean.shape == (small.layout.size,)
    with pytest.raises(TwodaslError, match="no colours"):
        SyntheticFaces(bare, "wild")


def test_bad_input(model):
    with pytest.raises(ValueRangeError, match="'wildest'; expected one of labelled, noisy, snapshots, wild"):
        SyntheticFaces(model, "wildest")
    with pytest.raises(InputTypeError, match="model: found str"):
        SyntheticFaces("face", "wild")
    with pytest.raises(InputTypeError, match="seed"):
        SyntheticFaces(model, "wild", seed=0.5)
    with pytest.raises(ValueRangeError, match="program: found 'tpu'"):
        SyntheticFaces(model, "wild", program="tpu")
    with pytest.raises(TwodaslError, match="blendshapes"):
        SyntheticFaces(load_face_model(), "wild")
    faces = SyntheticFaces(model, "labelled")
    for start, count, message in ((-1, 2, "start: found -1"), (0, 0, "count: found 0"), (2**60, 2, "start")):
        with pytest.raises(ValueRangeError, match=message):
            faces.batch(start, count)
    with pytest.raises(InputTypeError, match="count: found float"):
        faces.batch(0, 2.0)
    with pytest.raises(InputTypeError, match="start: found bool"):
        faces.coefficients(True, 2)


def test_degradation_leaves_the_labels_alone(model):
    clean = dataclasses.replace(load_world("wild"), degradation=Degradation())
    one = SyntheticFaces(model, clean).batch(0, 3, truth=True)
    other = SyntheticFaces(model, "wild").batch(0, 3, truth=True)
    assert torch.equal(one.landmarks, other.landmarks)
    assert torch.equal(one.visible, other.visible)
