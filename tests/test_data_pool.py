"""Worker processes: they end with their parent or on request, and silently."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from twodasl_lite.base.errors import TwodaslError
from twodasl_lite.datasets.pool import run_tasks

ROOT = Path(__file__).resolve().parents[1]

PARENT = """
import os, signal, sys, time
from twodasl_lite.datasets.pool import run_tasks

def work(folder, task):
    open(f"{folder}/started-{task}", "w").close()
    time.sleep(task)
    return task

if __name__ == "__main__":
    folder, way = sys.argv[1:]
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))  # as a training run does
    try:
        if way == "all":
            found = sorted(run_tasks(work, folder, [0, 0.01, 0.02, 0.03], 2))
        elif way == "stop":
            found = list(run_tasks(work, folder, [60, 61], 2, stop=lambda: len(os.listdir(folder)) == 2))
        else:
            found = list(run_tasks(work, folder, [60, 61], 2, stop=lambda: bool(asked)))
    except KeyboardInterrupt:
        found = "interrupted"
    print(found)
"""


def start(folder: Path, way: str) -> subprocess.Popen:
    script = folder / "parent.py"
    script.write_text(PARENT)
    (folder / "work").mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(script), str(folder / "work"), way],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.parametrize(("way", "found"), [("all", "[0, 0.01, 0.02, 0.03]"), ("stop", "[]")])
def test_workers_end_in_silence(tmp_path: Path, way: str, found: str) -> None:
    process = start(tmp_path, way)
    out, err = process.communicate(timeout=150)
    assert (out.strip(), err) == (found, "")


@pytest.mark.parametrize(
    ("blow", "early", "found"),
    [(signal.SIGINT, True, "interrupted"), (signal.SIGTERM, False, "[]")],
    ids=["interrupted while they start", "terminated while they work"],
)
def test_a_signal_to_the_whole_group_ends_in_silence(
    tmp_path: Path, blow: signal.Signals, early: bool, found: str
) -> None:
    process = start(tmp_path, "signal")
    deadline = time.monotonic() + 150
    while len(children(process.pid)) < 3 if early else len(list((tmp_path / "work").iterdir())) < 2:
        assert time.monotonic() < deadline, "no worker began"
        assert process.poll() is None, "the parent ended by itself"
        time.sleep(0.02)
    os.killpg(process.pid, blow)  # as a terminal or a batch system does
    out, err = process.communicate(timeout=150)
    assert (out.strip(), err) == (found, "")


def children(parent: int) -> list[str]:
    """Processes that a process has started: two workers, and Python's own helper."""
    path = Path(f"/proc/{parent}/task/{parent}/children")
    if not path.is_file():
        pytest.skip("this system does not tell the children of a process")
    return path.read_text().split()


def identity(context: None, task: int) -> int:
    return task


def test_nothing_is_begun_after_a_stop() -> None:
    done = []
    for task in run_tasks(identity, None, [1, 2, 3], 1, stop=lambda: len(done) == 2):
        done.append(task)
    assert done == [1, 2]


def shared(context: torch.Tensor, task: torch.Tensor) -> tuple[bool, torch.Tensor]:
    return context.is_shared() or task.is_shared(), context + task


def test_tensors_take_no_shared_memory() -> None:
    """Of which containers have 64 MB, and a face model may have more."""
    context, tasks = torch.arange(100_000.0), [torch.full((100_000,), float(k)) for k in range(3)]
    found = sorted(run_tasks(shared, context, tasks, 2), key=lambda answer: float(answer[1][0]))
    assert not context.is_shared()
    assert [one[0] for one in found] == [False] * 3
    for number, (_, value) in enumerate(found):
        assert not value.is_shared()
        assert torch.equal(value, context + number)


def test_a_worker_that_dies_is_noticed() -> None:
    with pytest.raises(TwodaslError, match="a worker process died"):
        list(run_tasks(die, None, [1, 2, 3], 2))


def die(context: None, task: int) -> None:
    os._exit(1)
