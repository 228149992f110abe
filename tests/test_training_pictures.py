"""Pictures drawn in advance, drawing stopped halfway, and pictures streamed during training."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from killed_runs import SETTINGS, few_pictures
from stream_source import NumberedFaces, assert_same, numbers

from twodasl_lite.apps.cli import main
from twodasl_lite.base.errors import FileFormatError, TwodaslError
from twodasl_lite.datasets.stream import SyntheticStream
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.training import pictures
from twodasl_lite.training.checkpoint import latest_checkpoint, load_checkpoint
from twodasl_lite.training.config import SourceConfig, load_config
from twodasl_lite.training.distributed import Processes
from twodasl_lite.training.log import read_log
from twodasl_lite.training.loop import BEST_FILE, LAST_FILE, train
from twodasl_lite.training.pictures import Interrupted, MirroredStream, prepare
from twodasl_lite.worlds.synthetic import SyntheticFaces

SCRIPT = Path(__file__).with_name("killed_runs.py")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A cache with the face alone, and the file of a plain world."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "CHUNK", 2)
        yield few_pictures(folder, patch.setenv)


@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


def settings(world: Path, *more: str) -> list[str]:
    return [*SETTINGS, *(f"data.{name}.world={world}" for name in ("labelled", "unlabelled", "validation")), *more]


# ------------------------------------------------------------------------------------------------ stopped in drawing
def test_what_is_drawn_stays(world, model):
    source, calls = SourceConfig(world=str(world), seed=7, count=6), []

    def late() -> bool:
        calls.append(1)
        return len(calls) > 2

    with pytest.raises(Interrupted, match="4 of 6"):
        pictures.pictures(source, model, stop=late)
    seen = []
    pictures.pictures(source, model, progress=lambda *counts: seen.append(counts))
    assert seen == [(4, 6), (6, 6)]


def test_a_full_disk_while_drawing(world, model, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    monkeypatch.setattr(pictures, "run_tasks", full)
    words = r"plain-8-\w+: the pictures could not be saved \(.*No space left.*room for 3 files.*TWODASL_CACHE"
    with pytest.raises(TwodaslError, match=words):
        pictures.pictures(SourceConfig(world=str(world), seed=8, count=6), model)


def test_a_command_that_is_late_while_drawing(world, tmp_path, capsys):
    words = [word for value in settings(world, "data.labelled.seed=11") for word in ("--set", value)]
    command = ["train", "lite-cpu", *words, "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    assert main([*command, "--minutes", "0"]) == 3
    assert "step 0 of 4, paused before training (labelled pictures: 0 of 4); --resume" in capsys.readouterr().out
    (row,) = read_log(tmp_path / "run")
    assert (row["kind"], row["step"], row["preparing"]) == ("pause", 0, "labelled pictures: 0 of 4")
    assert main([*command, "--resume"]) == 0
    assert "step 4 of 4, finished" in capsys.readouterr().out


@pytest.mark.parametrize("minutes", ["-1", "nan", "soon"])
def test_minutes_that_are_none(minutes, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["train", "lite-cpu", "--minutes", minutes])
    assert caught.value.code == 2
    assert f"--minutes: found '{minutes}'; expected minutes, 0 or more" in capsys.readouterr().err


def test_a_command_that_is_ended_while_drawing(world, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "slowly", str(tmp_path / "run"), str(world)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    before = set(pictures.cache_folder().rglob("*.safetensors"))
    deadline = time.monotonic() + 100
    while set(pictures.cache_folder().rglob("*.safetensors")) == before:
        assert time.monotonic() < deadline, "nothing was drawn"
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (3, "")
    assert "paused before training (labelled pictures: " in out
    assert not list(pictures.cache_folder().rglob("*.part"))


# ---------------------------------------------------------------------------------------------------------- streams
class NumberedPhotos(NumberedFaces):
    """Numbered pictures whose coefficients nobody knows."""

    def batch(self, start: int, count: int, *, truth: bool | None = None) -> FaceBatch:
        return super().batch(start, count, truth=True)._replace(coefficients=None)


def test_half_of_the_pictures_are_mirrored_whoever_takes_them():
    faces = NumberedPhotos()

    def stream(rank: int = 0, count: int = 1):
        share = {"rank": rank, "world_size": count}
        return MirroredStream(SyntheticStream(faces, truth=None, **share), 5, **share)

    batches = list(itertools.islice(stream().batches(8), 25))
    plain = list(itertools.islice(SyntheticStream(faces).batches(8), 25))
    turned = torch.cat([batch.yaw != other.yaw for batch, other in zip(batches, plain, strict=True)])
    assert 0.4 < turned.float().mean() < 0.6
    for batch, other in zip(batches, plain, strict=True):
        for k in range(8):
            wanted = other.flip() if batch.yaw[k] != other.yaw[k] else other
            assert torch.equal(batch.images[k], wanted.images[k])
            assert torch.equal(batch.detected[k].nan_to_num(-1), wanted.detected[k].nan_to_num(-1))
    assert_same(next(stream().batches(8, 7)), batches[7])
    halves = [next(stream(rank, 2).batches(4, 3)) for rank in (0, 1)]
    assert numbers(halves[0]) + numbers(halves[1]) == numbers(batches[3])
    with pytest.raises(TwodaslError, match="flip: found pictures with coefficients"):
        next(MirroredStream(SyntheticStream(NumberedFaces()), 5).batches(2))


def test_streams_of_a_run(world, model):
    config = load_config("lite-cpu", settings(world, "data.hold=stream", "data.labelled.start=10"))
    before = set(pictures.cache_folder().rglob("*.safetensors"))
    data = prepare(config, model, Processes())
    new = {path.parent.name.split("-")[1] for path in set(pictures.cache_folder().rglob("*.safetensors")) - before}
    assert new <= {str(config.data.validation.seed)}  # of the others none is drawn ahead
    labelled, unlabelled = (next(stream.batches(4, 2)) for stream in (data.labelled, data.unlabelled))
    straight = SyntheticFaces(model, str(world), config.data.labelled.seed).batch(18, 4, truth=True)
    assert_same(labelled, straight)
    assert unlabelled.coefficients is None
    assert unlabelled.landmarks is None


def test_only_what_can_be_drawn_is_streamed(world):
    with pytest.raises(FileFormatError, match=r'data\.hold: found "stream" for labelled pictures of kind = "shards"'):
        load_config(
            "lite-cpu", settings(world, "data.hold=stream", "data.labelled.kind=shards", "data.labelled.path=x")
        )


def test_a_streamed_run_goes_on_exactly(world, tmp_path):
    config = load_config("lite-cpu", settings(world, "data.hold=stream"))
    whole = train(config, tmp_path / "whole", device="cpu", progress=False)
    assert whole.finished
    pieces = [train(config, tmp_path / "pieces", device="cpu", progress=False, minutes=0, resume=True).step]
    while pieces[-1] < 4:
        pieces.append(train(config, tmp_path / "pieces", device="cpu", progress=False, minutes=0, resume=True).step)
    assert pieces == [1, 2, 3, 4]
    assert_equal_runs(tmp_path / "whole", tmp_path / "pieces")


def assert_equal_runs(one: Path, other: Path) -> None:
    """The last checkpoints hold the same bits, their files the same bytes, and the logs the same numbers."""
    files = [latest_checkpoint(folder) / "networks.safetensors" for folder in (one, other)]
    assert files[0].read_bytes() == files[1].read_bytes()
    a, b = (load_checkpoint(latest_checkpoint(folder)) for folder in (one, other))
    assert a.step == b.step
    for name, weights in a.networks.items():
        for key, value in weights.items():
            assert torch.equal(value, b.networks[name][key]), f"{name}.{key}"
    assert a.state["best"] == b.state["best"]
    logs = [
        [
            {key: value for key, value in row.items() if not key.endswith(("seconds", "per_second"))}
            for row in read_log(folder)
            if row["kind"] in ("train", "validation")
        ]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1]


# ------------------------------------------------------------------------------------------------------- killed runs
@pytest.fixture(scope="module")
def whole(world, tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert train(load_config("lite-cpu", settings(world)), folder, device="cpu", progress=False).finished
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["drawing", "first step", "validation", "checkpoint"])
def test_killed_in_any_phase_it_goes_on_to_the_same_numbers(phase, world, whole, tmp_path, monkeypatch):
    if phase == "drawing":  # into a cache without pictures
        world = few_pictures(tmp_path / "cache", monkeypatch.setenv)
    command = [sys.executable, str(SCRIPT), phase, str(tmp_path / "run"), str(world)]
    killed = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = latest_checkpoint(tmp_path / "run")
    wanted = {"drawing": None, "first step": None, "validation": "step-00000001", "checkpoint": "step-00000001"}
    assert (last.name if last else None) == wanted[phase]
    drawn = {path: path.stat().st_mtime_ns for path in Path(os.environ["TWODASL_CACHE"]).rglob("*.safetensors")}
    assert drawn
    config = load_config("lite-cpu", settings(world))
    assert train(config, tmp_path / "run", device="cpu", progress=False, resume=True).finished
    assert {path: path.stat().st_mtime_ns for path in drawn} == drawn  # what was drawn is not drawn again
    assert_equal_runs(whole, tmp_path / "run")
    if phase != "drawing":  # there the file of the world, which the network's metadata name, is another
        for name in (LAST_FILE, BEST_FILE):
            assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
