"""The training loop: it learns, it resumes as if there had been no interruption, and its errors say what went wrong."""

from __future__ import annotations

import errno
import itertools
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from training_runs import small_config, small_data, small_face, small_run, small_train

from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.networks import load_regressor
from twodasl_lite.training import checkpoint as checkpoints
from twodasl_lite.training import loop, schedule
from twodasl_lite.training.checkpoint import latest_checkpoint, load_checkpoint
from twodasl_lite.training.log import read_log
from twodasl_lite.training.loop import BEST_FILE, LAST_FILE, Run, TrainingDiverged

SCRIPT = Path(__file__).with_name("training_runs.py")
TIMES = ("pictures_per_second", "seconds", "prepared_seconds")


def rows(folder: Path, *kinds: str) -> list[dict]:
    """Rows of a log, without what a clock measured."""
    return [
        {key: value for key, value in row.items() if key not in TIMES}
        for row in read_log(folder)
        if row["kind"] in kinds
    ]


def same(a, b) -> bool:
    """Whether two nested structures hold the same bits."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def state_of(folder: Path) -> tuple:
    found = load_checkpoint(latest_checkpoint(folder))
    return found.step, found.networks, found.state


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run without interruption."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    result = small_train(folder)
    assert result.finished
    assert result.step == 10
    return folder


def test_run_leaves_everything_behind(whole):
    assert json.loads((whole / "config.json").read_text())["name"] == "small"
    train_rows = rows(whole, "train")
    assert [row["step"] for row in train_rows] == list(range(1, 11))
    assert {"wpdc", "landmarks_2d", "landmarks_3d", "cycle", "critic", "critic_own", "gradient"} <= train_rows[0].keys()
    assert "vdc" in train_rows[-1]
    assert "wpdc" not in train_rows[-1]
    assert [row["step"] for row in rows(whole, "validation")] == [5, 10]
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == ["step-00000009", "step-00000010"]
    trained = load_regressor(whole / LAST_FILE)
    assert trained.metadata["config"]["name"] == "small"
    assert trained.metadata["step"] == 10
    assert load_regressor(whole / BEST_FILE).metadata["map_kind"] == "binary"


def test_killed_run_goes_on_bit_for_bit(whole, tmp_path):
    folder, step = tmp_path / "run", random.SystemRandom().randint(1, 9)
    command = [sys.executable, str(SCRIPT), "kill", str(folder), str(step)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / ".step-00000009.part").mkdir()  # as if it had died while writing
    last = latest_checkpoint(folder)
    assert (last.name if last else None) == {0: None, 1: "step-00000003", 2: "step-00000006"}[(step - 1) // 3]

    assert small_train(folder, resume=True).finished
    assert same(state_of(folder), state_of(whole)), f"killed in step {step}"
    files = [latest_checkpoint(run) / "networks.safetensors" for run in (folder, whole)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert rows(folder, "train", "validation") == rows(whole, "train", "validation"), f"killed in step {step}"
    assert (folder / LAST_FILE).is_file()


def test_run_stops_in_time_and_goes_on(whole, tmp_path):
    result = small_train(tmp_path / "run", minutes=0)
    assert (result.finished, result.step) == (False, 1)
    assert small_train(tmp_path / "run", resume=True).finished
    assert same(state_of(tmp_path / "run"), state_of(whole))
    assert small_train(tmp_path / "run", resume=True).finished  # nothing left to do
    assert same(state_of(tmp_path / "run"), state_of(whole))


@pytest.mark.parametrize("minutes", [-1.0, float("nan")])
def test_wrong_minutes(tmp_path, minutes):
    with pytest.raises(ValueRangeError, match=f"minutes: found {minutes}; expected 0 or more"):
        small_train(tmp_path / "run", minutes=minutes)
    assert not (tmp_path / "run").exists()


def test_minutes_count_from_the_start_of_the_command(tmp_path):
    before = time.perf_counter() - 60
    assert small_train(tmp_path / "run", minutes=0.99, started=before).step == 1
    (first, *_) = read_log(tmp_path / "run")
    assert 60 <= first["prepared_seconds"] < 120


@pytest.fixture
def seconds(monkeypatch):
    """A clock that moves by 10 ms whenever someone looks at it."""
    looks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: next(looks) / 100)
    for module in (loop, schedule):
        monkeypatch.setattr(module, "time", clock)
    return looks


BY_TIME = {
    "stages": [
        {"name": "WPDC", "steps": 600, "learning_rate": 1e-3, "warmup": 20, "final": 0.02, "wpdc": 1.0},
        {"name": "VDC", "steps": 300, "learning_rate": 3e-4, "warmup": 1, "final": 0.02, "vdc": 1.0},
    ],
    "run": {"log_every": 1, "validate_every": 100, "checkpoint_every": 10, "minutes": 0.02},
}


def test_a_run_by_the_clock_ends_with_its_rate_lowered(tmp_path, seconds):
    result = small_train(tmp_path / "run", BY_TIME)
    assert result.finished
    train_rows = rows(tmp_path / "run", "train")
    assert 10 < len(train_rows) < 100  # 1.2 s, and a few looks at the clock in a step
    assert result.step == len(train_rows)
    places = [row["place"] for row in train_rows]
    assert places == sorted(places)
    assert places[-1] == 900
    wpdc = sum("wpdc" in row for row in train_rows)
    assert wpdc / len(train_rows) == pytest.approx(2 / 3, abs=0.1)  # stages share the time as they share the steps
    assert train_rows[-1]["rate"] < 0.1 * 3e-4
    assert train_rows[wpdc - 1]["rate"] < 0.1 * 1e-3
    assert [row["step"] for row in rows(tmp_path / "run", "validation")] == [result.step]
    assert load_regressor(tmp_path / "run" / LAST_FILE).metadata["step"] == result.step


def test_a_run_by_the_clock_goes_on_where_it_was(tmp_path, seconds, monkeypatch):
    plain = Run.train_step

    def train_step(self, *batches):
        if self.step == 12:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *batches)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", train_step)
        assert small_train(tmp_path / "run", BY_TIME).step == 13
    before = rows(tmp_path / "run", "train")[-1]["place"]
    next(seconds), [next(seconds) for _ in range(1000)]  # the time between the pieces does not count
    result = small_train(tmp_path / "run", BY_TIME, resume=True)
    train_rows = rows(tmp_path / "run", "train")
    assert result.finished
    assert result.step > 20
    assert 0 <= train_rows[13]["place"] - before < 60
    assert small_train(tmp_path / "run", BY_TIME, resume=True).step == result.step  # nothing left to do
    with pytest.raises(TwodaslError, match=r"other values of run\.minutes"):
        small_train(tmp_path / "run", {**BY_TIME, "run": BY_TIME["run"] | {"minutes": 2.0}}, resume=True)


def test_a_run_whose_time_is_over_before_it_begins(tmp_path, seconds):
    with pytest.raises(ValueRangeError, match=r"run\.minutes: found 0\.0001, but the first step was done after 0\.00 "):
        small_train(tmp_path / "run", {"run": {"minutes": 0.0001}})


def test_steps_and_places_are_one_without_minutes():
    clock = schedule.Clock(10)
    clock.tick(5.0)
    assert [clock.place(step) for step in (0, 3, 10)] == [0, 3, 10]
    clock = schedule.Clock(1000, minutes=1.0)
    assert clock.place(3) == 3
    clock.planned, clock.elapsed = 50.0, 25.0
    assert [clock.place(step) for step in (3, 499, 700)] == [500, 500, 700]
    clock.elapsed = 51.0
    assert clock.place(3) == 1000


def test_a_gpu_that_is_too_small(tmp_path, monkeypatch):
    def train_step(self, *_):
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 7.79 GiB of which ..."
        )

    monkeypatch.setattr(Run, "train_step", train_step)
    words = (
        r"small: found a GPU of 7\.79 GiB; expected 2\.25 GiB more\. Lower data\.labelled\.batch_size = 4, "
        r'data\.unlabelled\.batch_size = 4, data\.hold = "device" \(to "host"\), optimiser\.precision = "float32"'
    )
    with pytest.raises(TwodaslError, match=words):
        small_train(tmp_path / "run", {"data": {"hold": "device"}})


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without CUDA")
def test_a_run_that_wants_a_gpu(tmp_path):
    config = small_config({"run": {"device": "cuda"}})
    with pytest.raises(ValueRangeError, match=r"found no CUDA device; expected one for small.*--device cpu"):
        loop.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert small_train(tmp_path / "run", {"run": {"device": "cuda"}}, minutes=0).step == 1  # on the CPU, as it says


def test_terminated_run_saves_first(tmp_path, monkeypatch):
    plain = Run.train_step

    def train_step(self, *batches):
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *batches)

    monkeypatch.setattr(Run, "train_step", train_step)
    result = small_train(tmp_path / "run")
    assert (result.finished, result.step) == (False, 4)
    assert latest_checkpoint(tmp_path / "run").name == "step-00000004"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_folder_of_another_run_is_refused(whole):
    with pytest.raises(TwodaslError, match="--resume"):
        small_train(whole)
    with pytest.raises(TwodaslError, match=r"self_supervision\.cycle"):
        small_train(whole, {"self_supervision": {"cycle": 2.0}}, resume=True)
    with pytest.raises(TwodaslError, match="seed"):
        small_train(whole, {"seed": 1}, resume=True)


def test_early_stop(tmp_path, monkeypatch):
    monkeypatch.setattr("twodasl_lite.training.loop.ramp", lambda *_: 0.0)
    monkeypatch.setattr("twodasl_lite.training.loop.learning_rate", lambda *_: 0.0)
    # With a rate of zero the network never changes: the first validation is the best, the third is one too many.
    changes = {"run": {"validate_every": 1, "patience": 2}, "optimiser": {"ema": 0.0, "weight_decay": 0.0}}
    result = small_train(tmp_path / "run", changes)
    assert (result.finished, result.step) == (True, 3)


def test_not_a_number_stops_and_keeps_the_checkpoint(tmp_path, monkeypatch):
    plain = Run.train_step

    def poison(self, labelled, unlabelled):
        if self.step == 4:
            broken = labelled.coefficients.clone()
            broken[0, 3] = torch.nan
            labelled = labelled._replace(coefficients=broken)
        return plain(self, labelled, unlabelled)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "train_step", poison)
        with pytest.raises(TrainingDiverged, match=r"step 4: found wpdc = nan.*step-00000003"):
            small_train(tmp_path / "run")
    assert latest_checkpoint(tmp_path / "run").name == "step-00000003"
    assert small_train(tmp_path / "run", resume=True).finished


def test_not_a_number_is_found_before_anything_is_kept(tmp_path, monkeypatch):
    """As on a GPU, where a step's numbers are looked at while the next one is under way."""
    plain, seen = Run.train_step, []

    def poison(self, labelled, unlabelled):
        self.watch.later = True
        seen.append(self.step)
        if self.step == 4:
            broken = labelled.coefficients.clone()
            broken[0, 3] = torch.nan
            labelled = labelled._replace(coefficients=broken)
        return plain(self, labelled, unlabelled)

    monkeypatch.setattr(Run, "train_step", poison)
    with pytest.raises(TrainingDiverged, match=r"step 4: found wpdc = nan.*step-00000003"):
        small_train(tmp_path / "run", {"run": {"validate_every": 10}})
    assert seen == [0, 1, 2, 3, 4, 5]
    assert latest_checkpoint(tmp_path / "run").name == "step-00000003"
    with pytest.raises(TrainingDiverged, match=r"step 4: "):  # the last step before a checkpoint: not late at all
        small_train(tmp_path / "other", {"run": {"checkpoint_every": 5, "validate_every": 10}})
    assert latest_checkpoint(tmp_path / "other") is None


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")])
def test_full_disk_stops_and_keeps_the_checkpoint(tmp_path, monkeypatch, error):
    whole_save, calls = torch.save, []

    def save(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return whole_save(*arguments, **options)

    monkeypatch.setattr(checkpoints.torch, "save", save)
    with pytest.raises(TwodaslError, match=r"step-00000006: the checkpoint could not be written.*step-00000003"):
        small_train(tmp_path / "run")
    left = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert left == ["step-00000003"]


def test_full_disk_while_logging(tmp_path, monkeypatch):
    from twodasl_lite.training.log import RunLog

    plain = RunLog.write

    def write(self, kind, step, **values):
        if step == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, kind, step, **values)

    monkeypatch.setattr(RunLog, "write", write)
    with pytest.raises(TwodaslError, match=r"step 5: .*No space left.*step-00000003"):
        small_train(tmp_path / "run")


@pytest.mark.parametrize("name", ["networks.safetensors", "state.pt"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_checkpoint(tmp_path, name, damage):
    small_train(tmp_path / "run", minutes=0)
    path = latest_checkpoint(tmp_path / "run") / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FileFormatError, match=name.replace(".", r"\.")):
        small_train(tmp_path / "run", resume=True)


def test_checkpoint_that_would_run_code_is_refused(tmp_path):
    small_train(tmp_path / "run", minutes=0)
    path = latest_checkpoint(tmp_path / "run") / "state.pt"
    torch.save({"optimiser": Path}, path)
    with pytest.raises(FileFormatError, match="damaged"):
        load_checkpoint(path.parent)


def test_labelled_alone_never_touches_the_others(tmp_path):
    off = {"self_supervision": {"landmarks_2d": 0, "landmarks_3d": 0, "cycle": 0, "critic": 0, "prior": 0}}
    run = small_run(tmp_path, off)
    model = small_face()
    run.data = small_data(model)._replace(unlabelled=None)
    report = run.train_step(*next(iter(run._batches())))
    assert {name for name in report if name in ("wpdc", "landmarks_2d", "cycle", "critic")} == {"wpdc"}
    assert run.critic is None


def test_loss_falls(tmp_path):
    steady = {"stages": [{"steps": 40, "learning_rate": 2e-3, "warmup": 2, "final": 1.0, "pdc": 1.0}]}
    run = small_run(tmp_path, {**steady, "network": {"map_dropout": 0.0}})
    labelled, unlabelled = next(iter(run._batches()))
    losses = []
    for _ in range(30):
        losses.append({name: float(value) for name, value in run.train_step(labelled, unlabelled).items()})
        run.step += 1
    assert losses[-1]["pdc"] < 0.5 * losses[0]["pdc"]
    assert losses[-1]["landmarks_2d"] < 0.8 * losses[0]["landmarks_2d"]


def test_half_precision_and_compile_options_are_used(tmp_path):
    run = small_run(tmp_path, {"optimiser": {"precision": "bfloat16"}})
    seen = []
    run.network.fc.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    report = run.train_step(*next(iter(run._batches())))
    assert set(seen) == {torch.bfloat16}
    assert report["total"].dtype == torch.float32


def test_compiled_once_for_each_of_two_sizes(tmp_path, monkeypatch):
    plain, compiled = torch.compile, []

    def count(graph, inputs):
        compiled.append(tuple(inputs[-1].shape) if isinstance(inputs[-1], torch.Tensor) else None)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda module, **options: plain(module, backend=count, **options))
    torch.compiler.reset()
    changes = {"optimiser": {"compile": True}, "run": {"validate_every": 2}, "data": {"unlabelled": {"batch_size": 6}}}
    try:
        folder = tmp_path / "run"
        assert small_train(folder, changes, minutes=math.inf).finished  # validations and both stages included
    finally:
        torch.compiler.reset()
    assert len(compiled) == 2
    assert load_regressor(tmp_path / "run" / LAST_FILE).metadata["step"] == 10
