"""Two processes compute what one does with the same global batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.networks import load_regressor
from twodasl_lite.training.distributed import Processes, processes
from twodasl_lite.training.log import read_log
from twodasl_lite.training.loop import LAST_FILE

SCRIPT = Path(__file__).with_name("training_runs.py")


def test_two_processes_are_like_one(tmp_path):
    # Standalone torchrun takes a free port; the processes talk through gloo.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.run(
        [*torchrun, str(SCRIPT), "train", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert two.returncode == 0, two.stderr[-3000:]
    one = subprocess.run(
        [sys.executable, str(SCRIPT), "train", str(tmp_path / "one")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert one.returncode == 0, one.stderr[-3000:]

    gradients = [torch.load(tmp_path / f"{name}.gradients.pt", weights_only=True) for name in ("one", "two")]
    assert gradients[0].keys() == gradients[1].keys()
    for name, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], value, rtol=1e-3, atol=1e-5 * float(value.abs().max()) + 1e-8)

    logs = [[row for row in read_log(tmp_path / name) if row["kind"] == "train"] for name in ("one", "two")]
    assert [row["step"] for row in logs[1]] == list(range(1, 11))
    for mine, other in zip(*logs, strict=True):
        assert mine.keys() == other.keys()
        for name in ("wpdc", "vdc", "landmarks_2d", "landmarks_3d", "cycle", "critic", "critic_own", "gradient"):
            if name in mine:
                assert other[name] == pytest.approx(mine[name], rel=0.01, abs=1e-5), (mine["step"], name)
    start = next(row for row in read_log(tmp_path / "two") if row["kind"] == "start")
    assert start["processes"] == 2

    trained = [load_regressor(tmp_path / name / LAST_FILE).network for name in ("one", "two")]
    inputs = torch.randn(3, 4, 120, 120, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(trained[1](inputs), trained[0](inputs), rtol=0.02, atol=0.02)


def test_a_batch_must_be_shared_out_evenly():
    team = Processes(rank=1, count=3)
    assert team.share(6) == 2
    assert team.part(torch.arange(6)).tolist() == [2, 3]
    with pytest.raises(ValueRangeError, match="found 8 for 3 processes"):
        team.share(8)


def test_one_process_needs_no_start(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes("cpu") as team:
        assert (team.rank, team.count, team.first) == (0, 1, True)
        module = torch.nn.Linear(1, 1)
        assert team.wrap(module) is module
        assert team.mean({"a": 2.0}) == {"a": 2.0}
        assert team.any(True)
        team.wait()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there(tmp_path):
    with pytest.raises(ValueRangeError, match="no CUDA"), processes("cuda"):
        pass


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_gpus_are_like_one(tmp_path):
    """The same over NCCL, each process with a card of its own."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, start in (("two", torchrun), ("one", [sys.executable])):
        run = subprocess.run(
            [*start, str(SCRIPT), "train", str(tmp_path / name)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=os.environ | {"TRAINING_DEVICE": "cuda"},
        )
        assert run.returncode == 0, run.stderr[-3000:]
    gradients = [torch.load(tmp_path / f"{name}.gradients.pt", weights_only=True) for name in ("one", "two")]
    for name, value in gradients[0].items():
        other = gradients[1][name].to(value.device)
        torch.testing.assert_close(other, value, rtol=1e-2, atol=1e-3 * float(value.abs().max()) + 1e-8)
    start = next(row for row in read_log(tmp_path / "two") if row["kind"] == "start")
    assert start["processes"] == 2
    assert "cuda" in start
