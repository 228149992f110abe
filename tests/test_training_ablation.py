"""Sets of pictures, the ablation and its table, and the commands, on as few synthetic pictures as possible."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch

from twodasl_lite.apps.cli import main
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.networks import load_regressor
from twodasl_lite.networks.prediction import predict_with
from twodasl_lite.training import ablation, pictures
from twodasl_lite.training.ablation import (
    ROWS,
    ablate,
    make_table,
    print_gain,
    print_table,
    read_errors,
    row_config,
    table_of,
)
from twodasl_lite.training.config import SourceConfig
from twodasl_lite.training.log import read_log
from twodasl_lite.training.sweep import cells, load_sweep, run_sweep, scaled_weights, sweep_names
from twodasl_lite.worlds.synthetic import SyntheticFaces

FEW = [
    "data.labelled.count=8",
    "data.unlabelled.count=8",
    "data.validation.count=4",
    "data.test.count=12",
    "data.labelled.batch_size=4",
    "data.unlabelled.batch_size=4",
    "data.processes=1",
    'data.whitening="wild"',
    "stages.0.steps=3",
    "stages.1.steps=1",
    "run.checkpoint_every=2",
]


# All poses, but without the textures behind faces, which take seconds to make.
PLAIN = """
name = "plain"
description = "plain pictures of faces from all sides"
[pose]
yaw_limit = 90.0
yaw_uniform = 1.0
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Overrides that make a run small, on a world of its own."""
    path = tmp_path_factory.mktemp("world") / "plain.toml"
    path.write_text(PLAIN)
    sets = ("labelled", "unlabelled", "validation", "test")
    return [*FEW, *(f"data.{name}.world={path}" for name in sets)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder with the face model but without pictures."""
    folder = tmp_path_factory.mktemp("cache")
    model = load_face_model()  # from the usual cache, or made
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWODASL_CACHE", str(folder))
        patch.setattr(pictures, "CHUNK", 4)
        from twodasl_lite.faces.embedded import recipe as embedded

        model.save(folder / f"embedded-face-{embedded._recipe_digest()}.npz")
        yield folder


@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


def test_pictures_are_those_of_the_world_and_drawn_once(cache, few, model, monkeypatch):
    world = few[-1].partition("=")[2]
    source = SourceConfig(world=world, seed=3, start=3, count=7)
    faces = pictures.pictures(source, model)
    straight = SyntheticFaces(model, world, 3).batch(3, 7, truth=True)
    assert torch.equal(faces.images, straight.images)
    assert torch.equal(faces.detected.nan_to_num(-1), straight.detected.nan_to_num(-1))
    torch.testing.assert_close(faces.coefficients, straight.coefficients)
    assert pictures.pictures(source, model, truth=False).coefficients is None

    def never(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(pictures, "_draw_chunk", never)
    done = []
    again = pictures.pictures(source, model, progress=lambda *counts: done.append(counts))
    assert torch.equal(again.images, faces.images)
    assert done == [(7, 7)]


def test_pictures_depend_on_the_model(cache, model):
    source = SourceConfig(world="wild", seed=3, count=1)
    other = load_face_model(CoefficientLayout())
    other.mean += 1
    assert pictures._fingerprint(source, model) != pictures._fingerprint(source, other)


def test_rows():
    assert [sorted(row_config(row).self_supervision.weights) for row in ROWS[:2]] == [[], ["landmarks_2d"]]
    assert set(row_config("all", 2).self_supervision.weights) == {"landmarks_2d", "landmarks_3d", "cycle", "critic"}
    assert row_config("all", 2).seed == 2
    assert row_config("labelled", size="gpu").network.name == "resnet18"
    stages = {row: row_config(row).stages for row in ROWS}
    assert len(set(stages.values())) == 1  # all rows have the same steps and rates
    with pytest.raises(ValueRangeError, match="labelled"):
        row_config("everything")
    with pytest.raises(ValueRangeError, match="cpu, gpu"):
        row_config("all", size="tpu")


@pytest.fixture(scope="module")
def runs(cache, few, tmp_path_factory):
    """Two rows and two seeds, by the command."""
    folder = tmp_path_factory.mktemp("ablation")
    words = ["ablate", "--rows", "labelled", "+landmarks_2d", "--seeds", "0", "1", "--out", str(folder)]
    settings = [word for setting in few for word in ("--set", setting)]
    assert main([*words, *settings, "--device", "cpu", "--threads", "1"]) == 0
    return folder


def test_table_is_what_the_runs_say(runs, few, model):
    table = json.loads((runs / "table.json").read_text())
    assert list(table["rows"]) == ["labelled", "+landmarks_2d"]
    assert table["test_pictures"] == 12
    errors = [read_errors(runs, "+landmarks_2d", seed) for seed in (0, 1)]
    for name in ("landmarks_2d", "vertices_3d", "landmarks_2d_without_detector"):
        expected = summarise(torch.stack([run[name] for run in errors]), errors[0]["yaw"]).to_dict()
        assert table["rows"]["+landmarks_2d"][name] == json.loads(json.dumps(expected))
    difference = table["rows"]["+landmarks_2d"]["against"]["labelled"]["landmarks_2d"]
    assert set(difference) == {"value", "low", "high", "relative", "separate", "seeds"}
    assert set(difference["seeds"]) == {"0", "1"}
    assert "against" in table["rows"]["labelled"]
    provenance = table["provenance"]["labelled"]
    assert provenance["config"]["name"] == "labelled"
    assert provenance["device"]["device"] == "cpu"
    assert "twodasl_lite" in provenance["code"]
    assert all(seconds > 0 for seconds in table["rows"]["labelled"]["training_seconds"].values())

    # And the errors are those of the trained network that is left behind.
    trained = load_regressor(runs / "labelled" / "seed-1" / "last.safetensors")
    faces = pictures.pictures(row_config("labelled", 1, overrides=few).data.test, model)
    answer = predict_with(trained, faces, model=model)
    found = read_errors(runs, "labelled", 1)
    torch.testing.assert_close(found["landmarks_2d"], nme(answer.landmarks[..., :2], faces.landmarks[..., :2]))
    torch.testing.assert_close(found["yaw"], faces.yaw)


def test_rows_begin_with_the_same_weights_and_see_the_same_pictures(runs):
    first = [
        next(row for row in read_log(runs / row / "seed-0") if row["kind"] == "validation")
        for row in ("labelled", "+landmarks_2d")
    ]
    assert first[0]["step"] == first[1]["step"]
    configs = [row_config(row, 0) for row in ("labelled", "+landmarks_2d")]
    assert configs[0].data == configs[1].data


def test_finished_runs_are_not_made_again(runs, few, monkeypatch):
    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "train", never)
    options = {"rows": ["labelled", "+landmarks_2d"], "overrides": few, "device": "cpu"}
    before = (runs / "table.json").read_text()
    ablate(runs, seeds=(0, 1), **options)
    assert (runs / "table.json").read_text() == before
    with pytest.raises(AssertionError, match="trained again"):
        ablate(runs, seeds=(0, 1, 2), **options)


def test_table_prints_itself(runs, capsys):
    table = make_table(runs, ["labelled", "+landmarks_2d"], [0, 1])
    entry = table["rows"]["labelled"]["landmarks_2d"]
    assert table_of(entry).balanced == pytest.approx(entry["balanced"], nan_ok=True)
    print_table(table)
    text = capsys.readouterr().out
    assert "| labelled |" in text
    assert "+landmarks_2d against labelled:" in text


def test_gain_of_a_row_in_words(runs, capsys):
    table = json.loads((runs / "table.json").read_text())
    for measure, ends in (
        ("landmarks_2d", (-0.02, -0.01)),
        ("landmarks_3d", (-0.01, 0.01)),
        ("vertices_3d", (0.01, 0.02)),
    ):
        found = table["rows"]["+landmarks_2d"]["against"]["labelled"][measure]
        found["value"], (found["low"], found["high"]) = sum(ends) / 2, ends
    print_gain(table, "+landmarks_2d", "labelled")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0].split() == ["68", "landmarks,", "2D", "-1.50", "[-2.00,", "-1.00]", "helps"]
    assert lines[1].endswith("+0.00 [-1.00, +1.00]  no clear difference")
    assert lines[2].endswith("+1.50 [+1.00, +2.00]  costs")
    with pytest.raises(ValueRangeError, match="'all'; expected one of \\+landmarks_2d"):
        print_gain(table, "all", "labelled")


def test_nothing_to_compare(tmp_path):
    with pytest.raises(TwodaslError, match="no finished run"):
        make_table(tmp_path)


def test_train_command(cache, few, tmp_path, capsys):
    settings = [word for setting in few for word in ("--set", setting)]
    run = ["train", "lite-cpu", *settings, "--out", str(tmp_path / "run"), "--device", "cpu", "--quiet"]
    assert main([*run, "--minutes", "0"]) == 3
    assert "step 1 of 4, paused; --resume continues it" in capsys.readouterr().out
    assert main(run) == 1
    assert "--resume continues it" in capsys.readouterr().err
    assert main([*run, "--resume"]) == 0
    assert "step 4 of 4, finished" in capsys.readouterr().out
    rows = [row for row in read_log(tmp_path / "run") if row["kind"] == "train"]
    assert {"landmarks_2d", "landmarks_3d", "cycle", "critic", "critic_right"} <= rows[-1].keys()


def test_train_command_says_what_is_wrong(capsys):
    assert main(["train", "--list"]) == 0
    assert "ablation/all" in capsys.readouterr().out
    assert main(["train", "lite-cpu", "--set", "network.nmae=lite"]) == 1
    assert "did you mean name?" in capsys.readouterr().err
    assert main(["train", "lite-cpu", "--set", "seed=3", "--show"]) == 0
    assert json.loads(capsys.readouterr().out)["seed"] == 3
    assert main(["train", "lite-cpu", "--threads", "0"]) == 1
    assert "--threads: found 0" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ sweeps
SWEEP = """
about = "short runs against shorter ones"
rows = ["labelled", "+landmarks_2d"]
[[axes]]
name = "steps"
title = "steps of the first stage"
settings = [{ name = "3" }, { name = "2", set = ["stages.0.steps=2"] }]
[[axes]]
name = "pose"
title = "form of the pose"
settings = [{ name = "completed" }]
"""


def test_packaged_sweeps_name_settings_that_exist():
    assert "detector_labels" in sweep_names()
    for name in sweep_names():
        sweep = load_sweep(name)
        places = [tuple(cell.place.values()) for cell in cells(sweep)]
        assert len(set(places)) == len(places) == math.prod(len(axis.settings) for axis in sweep.axes)
        for cell in cells(sweep):
            for row in sweep.rows:
                row_config(row, 0, "cpu", cell.overrides)


def test_sweep_makes_missing_runs_and_compares_each_cell(runs, few, tmp_path, capsys):
    file, out = tmp_path / "steps.toml", tmp_path / "out"
    file.write_text(SWEEP)
    shutil.copytree(runs, out / "steps-3_pose-completed")
    settings = [word for setting in few for word in ("--set", setting)]
    words = ["ablate", "--sweep", str(file), "--seeds", "0", "1", "--out", str(out)]
    assert main([*words, *settings, "--device", "cpu", "--threads", "1"]) == 0
    printed = capsys.readouterr().out
    table = json.loads((out / "sweep.json").read_text())
    assert [cell["place"] for cell in table["cells"]] == [
        {"steps": "3", "pose": "completed"},
        {"steps": "2", "pose": "completed"},
    ]
    for cell in table["cells"]:
        alone = make_table(out / "_".join(f"{axis}-{name}" for axis, name in cell["place"].items()), seeds=(0, 1))
        expected = alone["rows"]["+landmarks_2d"]["against"]["labelled"]["vertices_3d"]
        found = cell["against"]["+landmarks_2d"]["vertices_3d"]
        assert found == {key: expected[key] for key in ("value", "low", "high")}
        assert cell["errors"]["labelled"]["landmarks_2d"] == alone["rows"]["labelled"]["landmarks_2d"]["balanced"]
        assert f"{100 * found['value']:+.2f}" in printed
        assert cell["seeds"] == [0, 1]
    first, second = (cell["errors"]["labelled"]["landmarks_2d"] for cell in table["cells"])
    assert first != second, "the setting changes the runs"
    assert main([*words, *settings, "--table-only"]) == 0
    assert json.loads((out / "sweep.json").read_text()) == table


def test_sweep_over_weights_scales_what_a_row_adds_and_trains_the_baseline_once(runs, few, tmp_path):
    file, out = tmp_path / "weights.toml", tmp_path / "out"
    file.write_text("""
about = "2D landmarks at two weights"
rows = ["labelled", "+landmarks_2d"]
[[axes]]
name = "weight"
title = "factor on the weight"
settings = [{ name = "1" }, { name = "0.5", scale = 0.5 }]
""")
    shutil.copytree(runs, out / "weight-1")
    table = run_sweep(out, load_sweep(file), overrides=few, device="cpu", threads=1, seeds=(0, 1))
    one, half = table["cells"]
    assert one["errors"]["labelled"] == half["errors"]["labelled"]
    assert one["errors"]["+landmarks_2d"] != half["errors"]["+landmarks_2d"]
    assert sorted(path.name for path in (out / "weight-0.5" / "labelled" / "seed-0").iterdir()) == [
        "errors.npz",
        "result.json",
    ]
    weights = [
        json.loads((out / cell / "+landmarks_2d" / "seed-1" / "result.json").read_text())["config"]["self_supervision"]
        for cell in ("weight-1", "weight-0.5")
    ]
    assert weights[1] == weights[0] | {"landmarks_2d": weights[0]["landmarks_2d"] / 2}
    assert scaled_weights("all", "+landmarks_2d", 10) == [
        "self_supervision.landmarks_3d=300",
        "self_supervision.cycle=300",
        "self_supervision.critic=1",
    ]


def test_sweeps_that_are_wrong(tmp_path, capsys):
    with pytest.raises(ValueRangeError, match="'labels'; expected one of detector_labels, weights"):
        load_sweep("labels")
    with pytest.raises(FileFormatError, match="no such file"):
        load_sweep(tmp_path / "none.toml")
    for old, new, message in (
        ('"labelled", ', '"none", ', "rows: found"),
        ('["labelled", "+landmarks_2d"]', '["labelled"]', "expected two or more"),
        ('{ name = "2",', '{ name = "3",', "no name twice"),
        ("title", "tilte", "did you mean title"),
        ('name = "2", ', 'name = "2", scale = 0.0, ', "scale: found 0.0; expected a number above 0"),
    ):
        path = tmp_path / "wrong.toml"
        path.write_text(SWEEP.replace(old, new))
        with pytest.raises(FileFormatError, match=message):
            load_sweep(path)
    path.write_text(SWEEP)
    with pytest.raises(TwodaslError, match="no cell with runs"):
        run_sweep(tmp_path / "empty", load_sweep(path), train_missing=False)
    assert main(["ablate", "--sweep", str(path), "--rows", "all"]) == 1
    assert "the sweep lists its rows" in capsys.readouterr().err
