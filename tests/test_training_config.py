from __future__ import annotations

import itertools

import pytest

from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.training.config import (
    SourceConfig,
    StageConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
    load_config,
    shipped_configs,
)
from twodasl_lite.training.schedule import learning_rate, ramp, stage_rate


def test_every_shipped_configuration_is_valid():
    names = shipped_configs()
    assert {"lite-cpu", "lite-gpu", "full-gpu", "photos/full-gpu", "ablation-gpu", "ablation/all"} <= set(names)
    assert {f"{rows}/+landmarks_2d" for rows in ("ablation", "photos", "photos/gpu")} <= set(names)
    for name in names:
        config = load_config(name)
        assert config.name == name.rpartition("/")[2]
        assert config_from_dict(config_to_dict(config)) == config


def test_a_row_differs_from_its_base_only_in_what_it_says():
    base, row = load_config("lite-cpu"), load_config("ablation/+landmarks_2d+cycle")
    assert row.self_supervision.weights == {
        name: weight for name, weight in base.self_supervision.weights.items() if name in ("landmarks_2d", "cycle")
    }
    assert (row.stages, row.data, row.network, row.optimiser) == (base.stages, base.data, base.network, base.optimiser)
    assert load_config("ablation/all").self_supervision == base.self_supervision
    assert load_config("ablation/all", base="full-gpu").network.name == "resnet50"


def test_rows_on_photographs_are_the_same_on_a_gpu():
    for row in ("synthetic", "+landmarks_2d", "all"):
        small, large = load_config(f"photos/{row}"), load_config(f"photos/gpu/{row}")
        assert large.self_supervision == small.self_supervision
        assert large.network.map == small.network.map
        assert large.data.unlabelled.augment == small.data.unlabelled.augment
        assert (large.network.name, large.data.hold, large.run.minutes) == ("resnet50", "stream", 8.0)


def test_configurations_for_a_gpu_say_so():
    for name in shipped_configs():
        config = load_config(name)
        assert (config.run.device == "cuda") == (config.data.hold == "stream") == ("gpu" in name), name


def test_own_file_on_a_base(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "lite-cpu"\nseed = 4\n[network]\nmap = "gaussian"\n')
    config = load_config(path)
    assert (config.seed, config.network.map, config.network.name) == (4, "gaussian", "lite")
    (tmp_path / "child.toml").write_text('base = "mine"\nname = "child"\n')  # a base beside the file goes first
    assert load_config(tmp_path / "child.toml").seed == 4


def test_overrides():
    words = ["network.name=resnet18", "stages.1.steps=7", "critic.learning_rate=1e-4", "optimiser.compile=true"]
    config = load_config("lite-cpu", words)
    assert config.network.name == "resnet18"
    assert config.stages[1].steps == 7
    assert config.critic.learning_rate == 1e-4
    assert config.optimiser.compile is True


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("network.name", "expected key=value"),
        ("=3", "expected key=value"),
        ("stages.5.steps=3", "found '5'; expected a number from 0 to 1"),
        ("stages.x.steps=3", "found 'x'"),
        ("name.x=3", "no table at 'name'"),
    ],
)
def test_wrong_overrides(word, message):
    with pytest.raises(ValueRangeError, match=message):
        load_config("lite-cpu", [word])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"netwrk": {}}, "the unknown key netwrk, did you mean network?"),
        ({"network": {"nam": "lite"}}, r"unknown key network\.nam, did you mean name\? \(choices: name, norm,"),
        ({"stages": [{"stepz": 3, "pdc": 1}]}, r"unknown key stages\.0\.stepz, did you mean steps"),
        ({"network": {"name": "vgg"}}, r"network\.name: found 'vgg'; expected 'lite', 'resnet18', 'resnet34' or 'res"),
        ({"stages": [{"steps": "x", "pdc": 1}]}, r"stages\.0\.steps: found 'x'; expected a whole number"),
        ({"stages": [{"steps": 0, "pdc": 1}]}, r"stages\.0\.steps: found 0; expected a finite number, 1 or more"),
        ({"network": {"map_dropout": 1.5}}, r"network\.map_dropout: found 1\.5; expected 0 to 1"),
        ({"optimiser": {"clip": 0}}, r"optimiser\.clip: found 0"),
        ({"optimiser": {"ema": float("nan")}}, r"optimiser\.ema: found nan"),
        ({"critic": {"learning_rate": float("inf")}}, "found inf"),
        ({"self_supervision": {"huber_delta": 0}}, "huber_delta: found 0"),
        ({"stages": []}, "stages: found none"),
        ({"stages": [{"name": "empty"}]}, "'empty' without any loss"),
        ({"data": {"labelled": {"kind": "shards"}}}, "path: found nothing"),
        ({"data": {"labelled": {"world": "labelled", "flip": True}}}, "flip: found true"),
    ],
)
def test_wrong_values_are_named_with_the_choices(values, message):
    with pytest.raises(FileFormatError, match=message):
        config_from_dict(values)


def test_wrong_files(tmp_path):
    with pytest.raises(FileFormatError, match="lite-cpu"):  # the choices are listed
        load_config("lite-tpu")
    (tmp_path / "broken.toml").write_text("name = [")
    with pytest.raises(FileFormatError, match="TOML"):
        load_config(tmp_path / "broken.toml")
    (tmp_path / "circle.toml").write_text('base = "circle"')
    with pytest.raises(FileFormatError, match="is its own base"):
        load_config(tmp_path / "circle.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TwodaslError, match="TOML"):
        load_config(tmp_path / "binary.toml")


def test_learning_rate():
    config = TrainConfig(
        stages=(
            StageConfig(steps=10, learning_rate=1.0, warmup=2, final=0.1, pdc=1),
            StageConfig(steps=5, learning_rate=0.5, warmup=0, final=0.0, vdc=1),
        )
    )
    rates = [learning_rate(config, step) for step in range(config.steps)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert all(a > b for a, b in itertools.pairwise(rates[2:10]))
    assert rates[6] == pytest.approx(0.55)  # half way of the cosine, from 1.0 to 0.1
    assert rates[10] == 0.5
    assert stage_rate(config.stages[1], 5) == pytest.approx(0.0)
    assert config.stage_at(9) == (0, 9)
    assert config.stage_at(10) == (1, 0)
    with pytest.raises(ValueRangeError):
        config.stage_at(15)


def test_ramp():
    config = load_config("lite-cpu", ["self_supervision.ramp_steps=4"])
    assert [ramp(config, step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert ramp(load_config("lite-cpu", ["self_supervision.ramp_steps=0"]), 0) == 1.0


def test_source_needs_its_place():
    with pytest.raises(ValueRangeError, match="world: found nothing"):
        SourceConfig()
