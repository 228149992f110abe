"""The one call for everything that needs a GPU: it ends in time, and no part of it brings down another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")
pytest.importorskip("tqdm")

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "gpu_run.py"
sys.path.insert(0, str(SCRIPT.parent))

import gpu_parts  # noqa: E402
import gpu_run  # noqa: E402

from twodasl_lite.camera import crop_to_image, image_to_crop  # noqa: E402
from twodasl_lite.networks import load_regressor  # noqa: E402
from twodasl_lite.training.config import load_config  # noqa: E402
from twodasl_lite.training.gpu_results import join_weights, read_gpu_run  # noqa: E402

TOY = [
    *("data.labelled.count=16", "data.unlabelled.count=16", "data.validation.count=40"),
    *("data.labelled.batch_size=4", "data.unlabelled.batch_size=4", "data.processes=1"),
    *("stages.0.steps=3", "stages.1.steps=2", "run.log_every=1", "critic.updates=1"),
]


def test_a_toy_leaves_all_its_files_in_time(tmp_path):
    """A whole call on the CPU: drawing, decoding, the profile, five steps, their evaluation, faces (20 s)."""
    words = [word for change in TOY for word in ("--set", change)]
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--minutes", "2", "--out", str(tmp_path / "out"), *words]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"gpu_run.json", "gpu_run.log.jsonl", "gpu_run.weights.1of1", "gpu_run.faces.png"}
    assert names == expected, run.stdout + run.stderr

    found = read_gpu_run(tmp_path / "out" / "gpu_run.json")
    states = {name: part["state"] for name, part in found.facts["parts"].items()}
    assert list(states) == list(gpu_parts.PARTS)
    # Where other programs keep the machine busy a measurement may not end in its time; the rest has to.
    measured = {name: states.pop(name) for name in ("drawing", "kernels", "profile")}
    assert set(measured.values()) <= {"done", "cut off"}
    assert states == {"tests": "left out", **dict.fromkeys(("ready", "training", "evaluation", "faces"), "done")}
    assert run.returncode == (0 if set(measured.values()) == {"done"} else 1)
    assert found.finished
    assert found.training["step"] == 5
    assert found.training["network_step"] == 5
    assert [row["step"] for row in found.rows if row["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert found.provenance["seconds"] < 120
    if measured["drawing"] == "done":
        assert found.result("drawing")["wild"]["pictures_per_second"] > 0
    if measured["profile"] == "done":
        times = found.result("profile")["ms"]
        names = {"network, forward", "loss wpdc, WPDC", "loss vdc, VDC", "loss landmarks_2d", "loss critic"}
        assert names <= times.keys()
        assert all(value > 0 for value in times.values())

    errors = found.errors()
    assert list(errors) == ["a detector's points", *(n for n in errors if n != "a detector's points")]
    assert len(errors) == 4
    for table in errors.values():
        assert sum(table["counts"].values()) == 40
        assert 0 < table["mean"] < 1

    trained = load_regressor(join_weights(tmp_path / "out" / "gpu_run.weights.1of1", tmp_path / "joined.safetensors"))
    assert trained.metadata["step"] == 5
    assert (tmp_path / "out" / "gpu_run.faces.png").read_bytes().startswith(b"\x89PNG")
    assert not list(Path(tmp_path / "out").glob("*.part"))


# ----------------------------------------------------------------------------------------------- parts that go wrong
def settings(tmp_path, seconds=30.0):
    return gpu_run.Settings("cpu", seconds, tmp_path, "lite-cpu")


def part(monkeypatch, function):
    monkeypatch.setitem(gpu_parts.PARTS, "toy", (0.1, function))


def test_what_fails_is_written_down_with_its_last_line(tmp_path, monkeypatch):
    def work(settings, report):
        report(so_far=3)
        raise ValueError("no such thing")

    part(monkeypatch, work)
    found = gpu_run.run_part("toy", settings(tmp_path))
    assert (found["state"], found["why"], found["result"]) == ("failed", "ValueError: no such thing", {"so_far": 3})


def test_what_takes_too_long_is_ended_with_its_helpers(tmp_path, monkeypatch):
    def work(settings, report):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
        report(helper=helper.pid)
        time.sleep(100)

    part(monkeypatch, work)
    monkeypatch.setattr(gpu_run, "GRACE", 0.3)
    start = time.perf_counter()
    found = gpu_run.run_part("toy", settings(tmp_path, seconds=1.0))
    assert time.perf_counter() - start < 10
    assert found["state"] == "cut off"
    assert "1 s" in found["why"]
    deadline = time.perf_counter() + 5
    status = Path(f"/proc/{found['result']['helper']}/stat")
    while status.exists() and status.read_text().split(") ")[1][0] != "Z" and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not status.exists() or status.read_text().split(") ")[1][0] == "Z"


def test_what_dies_is_noticed(tmp_path, monkeypatch):
    part(monkeypatch, lambda settings, report: os.kill(os.getpid(), signal.SIGKILL))
    found = gpu_run.run_part("toy", settings(tmp_path))
    assert (found["state"], found["why"]) == ("failed", "the process ended with status -9")


def test_a_failed_part_stops_no_other(tmp_path, monkeypatch):
    def broken(settings, report):
        raise RuntimeError("CUDA error: an illegal memory access")

    parts = {"drawing": (0.1, broken), "kernels": (0.1, lambda settings, report: report(fine=True))}
    monkeypatch.setattr(gpu_run, "PARTS", gpu_parts.PARTS)
    for name, entry in parts.items():
        monkeypatch.setitem(gpu_parts.PARTS, name, entry)
    words = ["--device", "cpu", "--minutes", "1", "--out", str(tmp_path), "--only", "drawing", "kernels"]
    assert gpu_run.main(words) == 1
    facts = json.loads((tmp_path / "gpu_run.json").read_text())
    assert facts["parts"]["drawing"]["why"] == "RuntimeError: CUDA error: an illegal memory access"
    assert facts["parts"]["kernels"]["result"] == {"fine": True}
    assert not facts["finished"]


# --------------------------------------------------------------------------------------------------------- its pieces
def test_the_shares_leave_room_for_starting_and_writing():
    assert 0.9 < sum(share for share, _ in gpu_parts.PARTS.values()) < 1
    seconds, elapsed = 540.0, 0.0
    for name in gpu_parts.PARTS:
        elapsed += gpu_run.shares(seconds, elapsed, name)  # each takes all that it may
    assert elapsed <= seconds
    # Early parts that are quick leave their time to the training, and the evaluation keeps its own.
    assert gpu_run.shares(540, 60, "training") == pytest.approx(540 - 60 - 6 - 0.15 * 540 - gpu_run.GRACE)
    assert gpu_run.shares(540, 530, "evaluation") == 4
    assert gpu_run.shares(540, 600, "faces") == 1


def test_a_run_is_made_to_fit_its_time():
    config = load_config("lite-cpu")
    words = gpu_parts.fitted(config, 100, {"labelled": 50.0, "wild": 40.0})
    changed = load_config("lite-cpu", words).data
    needed = changed.labelled.count / 50 + (changed.unlabelled.count + changed.validation.count) / 40
    assert needed <= 0.16 * 100 + 100 / 40
    assert changed.labelled.count < config.data.labelled.count
    plenty = [word for word in gpu_parts.fitted(config, 1e6, {}) if word.startswith("data.")]
    assert plenty == []
    photographs = load_config("photos/+landmarks_2d")
    assert not any("unlabelled" in word for word in gpu_parts.fitted(photographs, 10, {}))


def test_comparisons_without_pytest():
    found = gpu_parts.checks("cpu")
    assert (found["passed"], found["failed"]) == (3, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_comparisons_with_cuda():
    found = gpu_parts.checks("cuda")
    assert found["failed"] == 0, found


def test_other_boxes_are_cut_from_the_crop_where_there_is_no_photo():
    """A picture whose colours are its coordinates: each pixel says where it was taken."""
    place = np.arange(120, dtype=np.float64)
    ramp = np.stack([np.broadcast_to(2 * place, (120, 120)), np.broadcast_to(2 * place[:, None], (120, 120))], axis=-1)
    picture = np.dstack([ramp, np.zeros((120, 120))]).astype(np.uint8)

    class Crops:
        names, crops = ("one",), {"one": picture}
        boxes = torch.tensor([[100.0, 100.0, 339.0, 339.0]])

        def crop(self, name, box=None):
            assert box is None
            return self.crops[name]

    same = gpu_parts._crop(Crops(), 0, Crops.boxes[0])
    assert np.abs(same.astype(int) - picture).max() <= 1
    smaller = torch.tensor([130.0, 150.0, 269.0, 289.0])
    cut = gpu_parts._crop(Crops(), 0, smaller)
    inside = torch.tensor([[[30.0, 70.0], [100.0, 20.0]]], dtype=torch.float64)
    expected = image_to_crop(crop_to_image(inside, smaller[None].double()), Crops.boxes.double())[0]
    for (x, y), where in zip(inside[0].int().tolist(), expected, strict=True):
        assert np.abs(cut[y, x, :2] / 2.0 - where.numpy()).max() < 0.6


def test_landmarks_of_a_mirrored_face_keep_their_depth():
    order = gpu_parts._mirrored_order()
    assert order[0] == 16  # the ends of the jaw
    assert order[36] == 45  # the eyes' outer corners
    assert order[8] == 8
    assert torch.equal(order[order], torch.arange(68))


def test_wrong_words_are_refused_before_any_time_is_spent(tmp_path, capsys):
    for words in (
        ["--minutes", "0"],
        ["--minutes", "nan"],
        ["--photos", str(tmp_path / "gone")],
        ["--only", "nothing"],
    ):
        with pytest.raises(SystemExit):
            gpu_run.main(["--out", str(tmp_path / "out"), *words])
    with pytest.raises(gpu_run.TwodaslError, match="no such file"):
        gpu_run.main(["--device", "cpu", "--config", "unknown", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_run_that_stopped_leaves_its_average(tmp_path):
    from training_runs import small_train

    result = small_train(tmp_path / "run", minutes=0)
    assert not result.finished
    what, step = gpu_parts.keep_network(tmp_path / "run", tmp_path / "network.safetensors", False)
    assert (what, step) == ("the average in step-00000001", 1)
    assert load_regressor(tmp_path / "network.safetensors").metadata["map_kind"] == "binary"
    with pytest.raises(RuntimeError, match="neither"):
        gpu_parts.keep_network(tmp_path / "nothing", tmp_path / "other", False)
