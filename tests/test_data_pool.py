"""Worker processes: they end with their parent or on request, and silently."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twodasl_lite.data.pool import run_tasks

ROOT = Path(__file__).resolve().parents[1]

PARENT = """
import os, signal, sys, time
from twodasl_lite.data.pool import run_tasks

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
