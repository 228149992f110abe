"""Training on every device: in half precision, compiled, with pictures held or drawn there, and resumed exactly."""

from __future__ import annotations

import itertools
import math
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import random_coefficients, small_config, small_data, small_face

from twodasl_lite.base.errors import TwodaslError
from twodasl_lite.datasets.stream import MemoryStream
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.networks import TrainedRegressor, load_regressor, make_regressor
from twodasl_lite.training.checkpoint import latest_checkpoint, load_checkpoint
from twodasl_lite.training.config import DataConfig, load_config
from twodasl_lite.training.distributed import Processes
from twodasl_lite.training.log import read_log
from twodasl_lite.training.loop import LAST_FILE, Run, train
from twodasl_lite.training.pictures import prepare

HOLDS = typing.get_args(typing.get_type_hints(DataConfig)["hold"])
LOSSES = ("wpdc", "vdc", "landmarks_2d", "landmarks_3d", "cycle", "critic")


def train_small(folder: Path, device: torch.device, changes: dict | None = None, data=None, **options):
    """The ten steps of ``training_runs`` on a device."""
    model = small_face()
    options |= {"device": device, "progress": False, "model": model, "data": data or small_data(model)}
    return train(small_config(changes), folder, **options)


def small_on(device: torch.device, folder: Path, changes: dict | None = None) -> Run:
    """A run on a device that has not begun."""
    model = small_face().to(device)
    data = small_data(model.cpu())
    return Run(small_config(changes), folder, model.to(device), data, Processes(device=device))


def first_batches(run: Run) -> tuple[FaceBatch, FaceBatch]:
    labelled, unlabelled = next(iter(run._batches()))
    return labelled.to(run.team.device), unlabelled.to(run.team.device)


def train_rows(folder: Path) -> list[dict]:
    return [row for row in read_log(folder) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory) -> Path:
    """The small run on the CPU."""
    folder = tmp_path_factory.mktemp("cpu") / "run"
    assert train_small(folder, torch.device("cpu")).finished
    return folder


@pytest.fixture
def deterministic():
    """Sums in the same order each time, where PyTorch can."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]


@pytest.mark.filterwarnings("ignore:.*deterministic.*")
def test_the_loop_begins_alike_everywhere(on_cpu, tmp_path, device):
    result = train_small(tmp_path / "run", device)
    assert (result.finished, result.step) == (True, 10)
    expected, found = train_rows(on_cpu), train_rows(tmp_path / "run")
    for name in (*LOSSES, "gradient"):
        if name in expected[0]:
            assert found[0][name] == pytest.approx(expected[0][name], rel=0.05), name
    assert all(math.isfinite(row["total"]) for row in found)
    assert next(row for row in read_log(tmp_path / "run") if row["kind"] == "start").get("cuda") == (
        torch.version.cuda if device.type == "cuda" else None
    )
    assert load_regressor(tmp_path / "run" / LAST_FILE).metadata["step"] == 10


@pytest.mark.filterwarnings("ignore:.*deterministic.*")
def test_a_run_that_stopped_goes_on_to_the_same_bits(tmp_path, device, deterministic):
    changes = {"optimiser": {"precision": "bfloat16"}} if device.type == "cuda" else {}
    for name in ("whole", "stopped"):
        stop = {"minutes": 0} if name == "stopped" else {}
        train_small(tmp_path / name, device, changes, **stop)
    assert latest_checkpoint(tmp_path / "stopped").name == "step-00000001"
    assert train_small(tmp_path / "stopped", device, changes, resume=True).finished
    whole, resumed = (load_checkpoint(latest_checkpoint(tmp_path / name)) for name in ("whole", "stopped"))
    assert whole.networks.keys() == resumed.networks.keys() == {"regressor", "average", "critic"}
    for network, weights in whole.networks.items():
        for name, value in weights.items():
            assert torch.equal(value, resumed.networks[network][name]), (network, name)
    losses = [
        [{n: v for n, v in row.items() if "second" not in n} for row in train_rows(tmp_path / folder)]
        for folder in ("whole", "stopped")
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_computes_nearly_the_same(tmp_path, device, precision):
    whole, half = (
        small_on(device, tmp_path / name, {"optimiser": {"precision": name}}) for name in ("float32", precision)
    )
    seen = []
    half.network.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    expected = whole.train_step(*first_batches(whole))
    found = half.train_step(*first_batches(half))
    assert set(seen) == {getattr(torch, precision)}
    assert found["total"].dtype == torch.float32
    assert float(found["total"]) == pytest.approx(float(expected["total"]), rel=0.05)
    assert half.scaler.is_enabled() == (precision == "float16")


def test_the_scaler_skips_a_step_whose_gradient_overflows(tmp_path, device):
    run = small_on(device, tmp_path / "run", {"optimiser": {"precision": "float16"}})
    batches = first_batches(run)
    run.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**100)
    before = [value.detach().clone() for value in run.network.parameters()]
    report = run.train_step(*batches)
    assert math.isfinite(float(report["total"]))
    assert not math.isfinite(float(report["gradient"]))
    assert run.scaler.get_scale() == 2.0**99
    assert all(torch.equal(old, new) for old, new in zip(before, run.network.parameters(), strict=True))

    run.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**4)
    report = run.train_step(*batches)
    assert math.isfinite(float(report["gradient"]))
    assert any(not torch.equal(old, new) for old, new in zip(before, run.network.parameters(), strict=True))


def test_the_scalers_state_is_kept(tmp_path, device):
    changes = {"optimiser": {"precision": "float16"}}
    train_small(tmp_path / "run", device, changes, minutes=0)
    kept = load_checkpoint(latest_checkpoint(tmp_path / "run")).state["scaler"]
    assert kept["scale"] > 0
    result = train_small(tmp_path / "run", device, changes, resume=True)
    assert result.finished
    assert all(math.isfinite(row["total"]) for row in train_rows(tmp_path / "run"))


@pytest.mark.gpu
def test_a_compiled_network_computes_the_same(tmp_path):
    device = torch.device("cuda")
    plain = small_on(device, tmp_path / "plain")
    compiled = small_on(device, tmp_path / "compiled", {"optimiser": {"compile": True}})
    batches = first_batches(plain)
    for _ in range(3):
        expected, found = (run.train_step(*batches) for run in (plain, compiled))
        for name in LOSSES:
            if name in expected:
                assert float(found[name]) == pytest.approx(float(expected[name]), rel=0.02), name


def test_pictures_held_on_the_device_are_the_same_pictures(tmp_path, device):
    model = small_face()
    host = small_data(model)
    there = host._replace(labelled=MemoryStream(host.labelled.faces.faces.to(device), seed=5))
    for mine, other in itertools.islice(zip(host.labelled.batches(4), there.labelled.batches(4), strict=False), 4):
        assert other.images.device.type == device.type
        assert torch.equal(mine.images, other.images.cpu())
        assert torch.equal(mine.coefficients, other.coefficients.cpu())
    assert train_small(tmp_path / "run", device, data=there).finished


@pytest.mark.skipif("stream" not in HOLDS, reason="this version draws no pictures beside the training step")
def test_pictures_drawn_beside_the_step(tmp_path, device):
    words = ["data.hold=stream", "data.labelled.world=labelled", "data.validation.count=4", "data.processes=1"]
    words += ["data.labelled.batch_size=2", "data.unlabelled.batch_size=2"]
    words += ["stages.0.steps=2", "stages.1.steps=1", "run.log_every=1", "run.validate_every=3", "critic.updates=1"]
    config = load_config("lite-cpu", words)
    model = load_face_model(CoefficientLayout())
    data = prepare(config, model.cpu(), Processes(device=device))
    through = list(itertools.islice(data.labelled.batches(2), 3))
    later = next(iter(data.labelled.batches(2, 2)))
    assert later.images.device.type == device.type
    assert torch.equal(later.images, through[2].images)
    assert not torch.equal(through[1].images, through[2].images)

    options = {"device": device, "progress": False, "model": model}
    assert train(config, tmp_path / "whole", **options).finished
    assert not train(config, tmp_path / "stopped", minutes=0, **options).finished
    assert train(config, tmp_path / "stopped", resume=True, **options).finished
    whole, stopped = (train_rows(tmp_path / name) for name in ("whole", "stopped"))
    for mine, other in zip(whole, stopped, strict=True):
        for name in LOSSES:
            if name in mine:
                assert other[name] == pytest.approx(mine[name], rel=0.05), (mine["step"], name)


def test_a_device_that_is_not_there_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA")
    with pytest.raises(TwodaslError, match="no CUDA"):
        train_small(tmp_path / "run", torch.device("cuda"))


def test_faces_of_a_photo_on_every_device(device):
    """The network on the device, the face model where it was: as on the CPU."""
    try:
        from twodasl_lite.apps.reconstruction import reconstruct
    except ImportError:
        from twodasl_lite.apps.reconstruction import reconstruct

    model = small_face()
    torch.manual_seed(0)
    network = make_regressor("lite").eval()
    with torch.no_grad():
        network.fc.weight.mul_(0.05)
    samples = random_coefficients(model, 200, 1)
    whitening = Whitening(samples.mean(dim=0), samples.std(dim=0))
    photo = np.random.default_rng(0).integers(0, 256, (300, 320, 3), dtype=np.uint8)
    boxes = torch.tensor([[40.0, 50, 200, 210], [90.0, 60, 280, 250]])

    def found_on(place: torch.device):
        there = Whitening(whitening.mean.to(place), whitening.std.to(place))
        trained = TrainedRegressor(network.to(place), there, {"map_kind": "binary", "layout": [40, 10], "pose": "free"})
        return reconstruct(photo, trained, model, crop_boxes=boxes)

    expected = found_on(torch.device("cpu"))
    for mine, other in zip(expected, found_on(device), strict=True):
        torch.testing.assert_close(other.landmarks.cpu(), mine.landmarks, rtol=1e-2, atol=0.5)
        assert model.mean.device.type == "cpu"
