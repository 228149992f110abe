"""The package's trained networks: found by name, complete, and as accurate as their tables say."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.networks import make_regressor, save_regressor, trained
from twodasl_lite.training.ablation import table_of
from twodasl_lite.training.config import config_from_dict
from twodasl_lite.training.validation import evaluate_on
from twodasl_lite.worlds.synthetic import SyntheticFaces

pytest.importorskip("safetensors")


@pytest.fixture
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another folder of files, with one network that has a card and one that has none."""
    monkeypatch.setattr(trained, "ASSETS", tmp_path)
    (tmp_path / "networks").mkdir()
    (tmp_path / "results").mkdir()
    torch.manual_seed(0)
    for name in ("some", "bare"):
        network = make_regressor("lite", norm="group")
        whitening = Whitening(torch.zeros(62), torch.ones(62))
        save_regressor(tmp_path / "networks" / f"lite-{name}.safetensors", network, whitening, {"map_kind": "binary"})
    (tmp_path / "networks" / "lite-some.md").write_text("# Some\n")
    return tmp_path


def test_a_network_is_found_with_its_card(assets: Path) -> None:
    found = trained.trained_regressor("some")
    assert found.metadata["card"] == "# Some\n"
    assert found.metadata["name"] == "lite"
    assert not found.network.training
    assert trained.trained_names() == ["bare", "some"]


@pytest.mark.parametrize(
    ("call", "argument", "choices"),
    [
        (lambda: trained.trained_regressor("other"), "other", "bare, some"),
        (lambda: trained.trained_regressor("bare"), "bare", "some"),  # its card is missing
        (lambda: trained.trained_log("other"), "other", "where there is none"),
        (lambda: trained.ablation_table("gpu"), "gpu", "where there is none"),
        (lambda: trained.trained_regressor("../networks/lite-some"), "lite-some", "bare, some"),
    ],
)
def test_what_is_not_there_is_answered_with_the_choices(assets: Path, call, argument: str, choices: str) -> None:
    with pytest.raises(ValueRangeError, match=r"found .*; expected") as caught:
        call()
    assert argument in str(caught.value)
    assert choices in str(caught.value)


def test_a_log_is_read(assets: Path) -> None:
    (assets / "results" / "lite-some.log.jsonl").write_text('{"kind": "start", "step": 0}\n')
    assert trained.trained_log("some") == [{"kind": "start", "step": 0}]


@pytest.mark.parametrize("content", ["{", "[]", '{"rows": {}}'])
def test_a_damaged_table_is_refused(assets: Path, content: str) -> None:
    (assets / "results" / "ablation_cpu.json").write_text(content)
    with pytest.raises(FileFormatError, match=r"ablation_cpu\.json"):
        trained.ablation_table()


# ------------------------------------------------------------------------------------------------ what comes along
def test_every_network_has_its_row_and_its_card() -> None:
    rows = trained.ablation_table()["rows"]
    names = trained.trained_names()
    assert trained.DEFAULT in names
    assert "all" in names
    assert set(names) - {trained.DEFAULT} <= set(rows)
    for name in names:
        found = trained.trained_regressor(name)
        config = config_from_dict(found.metadata["config"])
        assert config.name in (name, "lite-cpu")
        assert found.metadata["step"] == config.steps
        assert len(found.metadata["card"]) > 300


def test_the_table_is_whole() -> None:
    table = trained.ablation_table()
    assert {"labelled", "+landmarks_2d", "all"} <= table["rows"].keys()
    assert table["rows"].keys() == table["provenance"].keys()
    for name, entry in table["rows"].items():
        errors = table_of(entry["landmarks_2d"])
        assert sum(errors.counts) == table["test_pictures"], name
        assert math.isclose(errors.balanced, sum(errors.bins) / len(errors.bins), rel_tol=1e-6), name
        low, high = errors.balanced_interval
        assert low <= errors.balanced <= high, name


@pytest.mark.parametrize("name", [trained.DEFAULT, "all"])
def test_the_log_is_of_a_whole_run(name: str) -> None:
    rows = trained.trained_log(name)
    assert rows[0]["kind"] == "start"
    assert rows[-1]["kind"] == "end"
    assert rows[-1]["step"] == trained.trained_regressor(name).metadata["step"]
    kinds = {row["kind"] for row in rows}
    assert {"train", "validation"} <= kinds


@pytest.mark.parametrize("name", [trained.DEFAULT, "all"])
def test_the_network_is_as_good_as_its_log_says(name: str) -> None:
    """On 60 newly drawn pictures of its test world: between half and twice the error of its last validation."""
    model = load_face_model(CoefficientLayout())
    found = trained.trained_regressor(name)
    source = config_from_dict(found.metadata["config"]).data.test
    faces = SyntheticFaces(model, source.world, source.seed).batch(source.start, 60, truth=True)
    how = {"kind": found.metadata["map_kind"], "pose": found.pose}
    errors = evaluate_on(found.network, found.whitening, model, faces, dense=False, **how)
    last = [row for row in trained.trained_log(name) if row["kind"] == "validation"][-1]
    expected = last["landmarks_2d"]["mean"]
    assert expected / 2 < float(errors.landmarks_2d.mean()) < 2 * expected
