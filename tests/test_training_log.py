from __future__ import annotations

import json

import pytest

from twodasl_lite import __version__
from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.training.log import RunLog, Speed, code_version, read_log


def test_rows(tmp_path):
    seen = []
    log = RunLog(tmp_path, watch=seen.append)
    log.write("train", 1, wpdc=1 / 3, bad=float("nan"), nested={"a": 2 / 3, "n": 3})
    log.write("end", 2)
    log.close()
    assert read_log(tmp_path) == seen
    assert seen[0] == {"kind": "train", "step": 1, "wpdc": 0.333333, "bad": None, "nested": {"a": 0.666667, "n": 3}}
    assert all(json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())


def test_resumed_log_drops_what_came_after_the_checkpoint(tmp_path):
    log = RunLog(tmp_path)
    for step in range(1, 6):
        log.write("train", step)
    log.close()
    again = RunLog(tmp_path, 3)
    again.write("train", 4, again=True)
    again.close()
    assert [(row["step"], row.get("again")) for row in read_log(tmp_path)] == [
        (1, None),
        (2, None),
        (3, None),
        (4, True),
    ]
    RunLog(tmp_path, 0).close()
    assert read_log(tmp_path) == []


def test_a_growing_log_is_readable_and_a_damaged_one_named(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n{"kind": "tr')
    assert len(read_log(path)) == 1
    path.write_text('{"kind": "tr\n{"kind": "train", "step": 1}\n')
    with pytest.raises(FileFormatError, match="line 1"):
        read_log(path)
    with pytest.raises(FileFormatError, match="no such file"):
        read_log(tmp_path / "none.jsonl")


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    log = RunLog(tmp_path, tensorboard=True)
    log.write("validation", 5, landmarks_2d={"balanced": 0.25})
    log.close()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("validation/landmarks_2d/balanced")] == [(5, 0.25)]


def test_code_version():
    version = code_version()
    assert version["twodasl_lite"] == __version__
    assert "torch" in version


def test_speed():
    speed = Speed()
    speed.add(10)
    assert speed.look() > 0
    assert speed.look() == 0
