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

from twodasl_lite.geometry.camera import crop_to_image, image_to_crop  # noqa: E402
from twodasl_lite.networks import load_regressor  # noqa: E402
from twodasl_lite.training.config import load_config  # noqa: E402
from twodasl_lite.training.gpu_results import join_weights, read_gpu_run  # noqa: E402

TOY = [
    *("data.labelled.count=16", "data.unlabelled.count=16", "data.validation.count=40"),
    *("data.labelled.batch_size=4", "data.unlabelled.batch_size=4", "data.processes=1"),
    *("stages.0.steps=3", "stages.1.steps=2", "run.log_every=1", "critic.updates=1"),
]


ABSENT = ("pydantic", "trimesh", "nbformat", "plotly", "ipywidgets", "jupytext", "pandas", "nbclient", "IPython")
"""What a bare machine with a GPU may lack."""
BARE = f"""
import importlib.machinery

usual = importlib.machinery.PathFinder.find_spec

def find_spec(cls, name, path=None, target=None):
    return None if name.partition(".")[0] in {ABSENT!r} else usual(name, path, target)

importlib.machinery.PathFinder.find_spec = classmethod(find_spec)
"""


@pytest.fixture
def bare(tmp_path) -> dict[str, str]:
    """The environment of a Python, and of all that it starts, which does not find these packages."""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(BARE)
    places = [str(tmp_path / "bare"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(places)}
    for name in ("pandas", "pydantic"):
        asked = [sys.executable, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({name!r}) is not None)"]
        assert subprocess.run(asked, env=environment, check=False).returncode == 0
    return environment


def test_tests_without_those_packages_skip_and_break_nothing(bare):
    """``pytest -m gpu`` reads every file of tests, and one that cannot be read would end it."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--collect-only", "-q", "-p", "no:cacheprovider", "tests"]
    environment = bare | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # nor are the plugins there that need them
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-1000:]
    assert "error" not in run.stdout.splitlines()[-1]
    assert "test_training_devices.py" in run.stdout


def test_a_toy_leaves_all_its_files_in_time(tmp_path, bare):
    """A whole call on the CPU of a bare machine: speeds, the profile, five steps, faces, their evaluation (25 s)."""
    words = [word for change in TOY for word in ("--set", change)]
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--minutes", "2", "--out", str(tmp_path / "out"), *words]
    start = time.perf_counter()
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=bare)
    if run.returncode == 2 and "as busy" in run.stderr:
        pytest.skip(run.stderr.splitlines()[-1])
    assert time.perf_counter() - start < 125
    names = {path.name for path in (tmp_path / "out").iterdir()}
    expected = {"gpu_run.json", "gpu_run.log.jsonl", "gpu_run.weights.1of1", "gpu_run.faces.png"}
    assert names == expected, run.stdout + run.stderr

    found = read_gpu_run(tmp_path / "out" / "gpu_run.json")
    states = {name: part["state"] for name, part in found.facts["parts"].items()}
    assert list(states) == list(gpu_parts.PARTS)
    # Where other programs keep the machine busy a measurement may do less, or be left out; the rest has to be done.
    measured = {name: states.pop(name) for name in ("drawing", "kernels", "profile")}
    assert set(measured.values()) <= {"done", "left out"}, run.stdout
    assert states == {"tests": "left out", **dict.fromkeys(("ready", "training", "faces", "evaluation"), "done")}
    assert run.returncode == 0, run.stdout
    assert found.finished
    steps = found.training["step"]  # fewer than planned where a step takes long: the schedule follows the clock
    assert 1 <= steps <= 5
    assert found.training["network_step"] == steps
    assert [row["step"] for row in found.rows if row["kind"] == "train"] == list(range(1, steps + 1))
    assert found.provenance["seconds"] < 120
    if measured["drawing"] == "done":
        assert found.result("drawing")["wild"]["pictures_per_second"] > 0
    if measured["profile"] == "done":
        result = found.result("profile")
        times, less = result["ms"], result.get("less", [])
        names = {"network, forward", "loss wpdc, WPDC", "loss vdc, VDC", "loss landmarks_2d", "loss critic"}
        assert names <= {*times, *less}
        assert not {*times} & {*less}
        assert all(value > 0 for value in times.values())

    errors = found.errors()
    assert list(errors) == ["a detector's points", *(n for n in errors if n != "a detector's points")]
    assert len(errors) == 4
    evaluated = found.result("evaluation")["evaluated"]["crops"]
    assert evaluated == 40 or found.result("evaluation")["less"] == [f"{40 - evaluated} of 40 faces"]
    for table in errors.values():
        assert sum(table["counts"].values()) == evaluated
        assert 0 < table["mean"] < 1

    trained = load_regressor(join_weights(tmp_path / "out" / "gpu_run.weights.1of1", tmp_path / "joined.safetensors"))
    assert trained.metadata["step"] == steps
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
    # A busy machine keeps more for the end, and a short run has shorter parts.
    busy = gpu_run.shares(120, 30, "training", start=5)
    assert busy == pytest.approx(gpu_run.shares(120, 30, "training") - 5 - 0.6)
    assert gpu_run.shares(60, 0, "drawing") == 5


@pytest.mark.parametrize("minutes", [1.0, 1.2, 2.0, 9.0])
def test_whatever_the_parts_take_the_whole_ends_in_time(minutes):
    """Each part takes all that it may, and all the patience there is with it."""
    seconds, elapsed, given = 60 * minutes, 0.0, {}
    for name in gpu_parts.PARTS:
        if name != "tests":
            given[name] = gpu_run.shares(seconds, elapsed, name, 1.5)
            elapsed += given[name] * (1.5 if name in ("ready", "faces") else 1)
    assert elapsed <= seconds
    assert given["training"] >= 0.12 * seconds
    assert given["evaluation"] >= 0.05 * seconds


def test_a_part_without_time_does_less_and_says_so(tmp_path, monkeypatch):
    """Not a second for the drawing, the renderers and the profile: what they come to, and what not."""
    few = gpu_run.Settings("cpu", 0.5, tmp_path, "lite-cpu", tuple(TOY))._replace(until=time.perf_counter())
    found: dict[str, dict] = {}
    for name in ("drawing", "kernels", "profile"):
        result = found[name] = {}
        gpu_parts.PARTS[name][1](few, lambda result=result, **facts: result.update(facts))
    assert found["drawing"]["less"] == ["the world 'wild'"]
    assert all(value > 0 for value in found["kernels"]["decode_ms"].values())
    assert "numba at 120 pixels" in found["kernels"]["less"]
    assert found["profile"]["step_ms"] > 0
    assert {"network, forward", "loss vdc, VDC", "loss cycle, without its second look"} <= {*found["profile"]["less"]}


def test_the_drawing_is_measured_however_little_time_there_is():
    from drawing_speed import measure

    found = measure("cpu", 1.0, batch=2, world="labelled", until=time.perf_counter())
    assert found["pictures_per_second"] > 0
    assert {"phases", "rasterizer torch"} <= {*found["left_out"]}


def test_processes_draw_side_by_side(monkeypatch):
    import drawing_speed

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SCRIPT.parent), str(ROOT)]))
    found = drawing_speed.side_by_side(2, 0.5, batch=2, world="labelled")
    assert found["pictures"] >= 4
    assert 0 < found["share_of_the_cores"] < 1.1
    by_clock = found["pictures_per_processor_second"] * 2 * found["share_of_the_cores"]
    assert found["pictures_per_second"] == pytest.approx(by_clock, rel=0.5)


def test_some_of_the_faces_are_a_sample_of_all():
    order = gpu_parts._in_random_order(2000)
    assert order.sort().values.tolist() == list(range(2000))
    assert abs(float(order[:200].double().mean()) - 999.5) < 150


def test_the_share_of_a_core():
    assert 0 < gpu_parts.share_of_a_core(0.05) <= 1


# --------------------------------------------------------------------------------------------------- tests in a time
SUITE = """
import os, time

def test_first(): pass

def test_wrong(): assert 1 == 2, "of course not"

def test_long():
    while time.time() <= float(os.environ["TESTS_UNTIL"]): time.sleep(0.05)

def test_late(): raise AssertionError("was begun")
"""


def test_tests_that_would_begin_too_late_are_counted(tmp_path):
    """The plugin of the part ``tests``: what was begun ends, what was not is named."""
    (tmp_path / "test_some.py").write_text(SUITE)
    outcomes = tmp_path / "outcomes.jsonl"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_until", str(tmp_path)]
    changes = {"PYTHONPATH": str(SCRIPT.parent), "TESTS_OUTCOMES": str(outcomes)}

    def run(seconds: float) -> dict:
        outcomes.unlink(missing_ok=True)
        environment = os.environ | changes | {"TESTS_UNTIL": str(time.time() + seconds)}
        subprocess.run(command, env=environment, cwd=tmp_path, check=False, capture_output=True, timeout=200)
        return gpu_parts.counted(outcomes)

    found = run(15)
    counts = {name: found[name] for name in ("passed", "failed", "error", "skipped", "not reached")}
    assert counts == {"passed": 2, "failed": 1, "error": 0, "skipped": 0, "not reached": 1}
    assert [line.partition(": ")[0] for line in found["bad"]] == ["test_some.py::test_wrong"]
    assert "of course not" in found["bad"][0]
    assert found["slowest"]["test_some.py::test_long"] > 0
    found = run(-1)
    assert (found["not reached"], found["passed"], found["bad"]) == (4, 0, [])
    (tmp_path / "test_some.py").write_text("import a_package_that_is_not_there")
    found = run(60)
    assert found["error"] == 1
    assert "a_package_that_is_not_there" in found["bad"][0]


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
        ["--minutes", "0.5"],
        *([] if torch.cuda.is_available() else [["--device", "cuda"]]),
    ):
        with pytest.raises(SystemExit):
            gpu_run.main(["--out", str(tmp_path / "out"), *words])
    with pytest.raises(gpu_run.TwodaslError, match="no such file"):
        gpu_run.main(["--device", "cpu", "--config", "unknown", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert "--minutes: found 0.5; expected 1 or more for all parts" in said
    assert torch.cuda.is_available() or "--device: found cuda, but torch sees no CUDA device" in said


def test_a_machine_that_is_too_busy_is_told_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_run, "_BEGAN", time.perf_counter() - 50)
    monkeypatch.setattr(
        sys, "argv", ["gpu_run.py", "--minutes", "2", "--device", "cpu", "--out", str(tmp_path / "out")]
    )
    with pytest.raises(SystemExit):
        gpu_run.main()
    assert "--minutes: found 2, of which 50 s went to importing PyTorch; expected 3 or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_seconds_of_the_start_count():
    place = str(SCRIPT.parent)
    code = f"import sys, time; t = time.perf_counter(); sys.path.insert(0, {place!r}); import gpu_run as g; " + (
        "print('torch' in sys.modules, t <= g._BEGAN <= time.perf_counter(), time.perf_counter() - g._BEGAN > 0.1)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"] * 3


def test_a_full_disk_costs_files_and_no_part(tmp_path, monkeypatch, capsys):
    """The sheet of faces does not fit; the file of results does, and says so."""
    resource = pytest.importorskip("resource")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "faces.png").write_bytes(bytes(300_000))
    monkeypatch.setitem(gpu_parts.PARTS, "kernels", (0.1, lambda settings, report: report(fine=True)))
    words = ["--device", "cpu", "--minutes", "1", "--only", "kernels", "--work", str(tmp_path / "work")]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        assert gpu_run.main([*words, "--out", str(tmp_path / "out")]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    facts = json.loads((tmp_path / "out" / "gpu_run.json").read_text())
    assert facts["parts"]["kernels"]["result"] == {"fine": True}
    assert [line.partition(":")[0] for line in facts["not written"]] == ["gpu_run.faces.png"]
    assert "found no room (gpu_run.faces.png: [Errno 27]" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["gpu_run.json"]


def test_a_run_that_stopped_leaves_its_average(tmp_path):
    from training_runs import small_train

    result = small_train(tmp_path / "run", minutes=0)
    assert not result.finished
    what, step = gpu_parts.keep_network(tmp_path / "run", tmp_path / "network.safetensors", False)
    assert (what, step) == ("the average in step-00000001", 1)
    assert load_regressor(tmp_path / "network.safetensors").metadata["map_kind"] == "binary"
    with pytest.raises(RuntimeError, match="neither"):
        gpu_parts.keep_network(tmp_path / "nothing", tmp_path / "other", False)
