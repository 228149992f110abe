"""Results of a GPU run are read as they were written, and its weights survive being split into parts."""

from __future__ import annotations

import json
import math

import pytest
import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.training.gpu_results import (
    gpu_run_names,
    join_weights,
    read_gpu_run,
    split_weights,
    steady_rate,
    timeline,
)

HEAD = {"format": "twodasl_lite.gpu_run", "version": 1}


def write(path, **changes):
    facts = HEAD | {"finished": True, "provenance": {}, "parts": {}} | changes
    path.write_text(json.dumps({key: value for key, value in facts.items() if value is not None}))
    return path


def test_the_run_that_comes_along_is_what_its_readme_says():
    run = read_gpu_run("photos_resnet50")
    assert "photos_resnet50" in gpu_run_names()
    assert not run.finished
    assert (run.training["step"], run.training["planned"], run.batch_size) == (1580, 1919, 384)
    assert run.provenance["device"] == "NVIDIA H100 80GB HBM3"
    errors = {name: round(100 * table["balanced"], 2) for name, table in run.errors().items()}
    assert errors == {"a detector's points": 4.41, "no points": 5.67}
    assert round(100 * run.errors("68 points, 3D")["a detector's points"]["balanced"], 2) == 7.07
    assert run.result("tests") == {"passed": 51, "skipped": 1, "failed": 0}
    assert run.result("nothing of the kind") == {}


def test_every_run_that_comes_along_can_be_shown():
    for name in gpu_run_names():
        run = read_gpu_run(name)
        assert run.rows[0]["kind"] == "start"
        assert run.training["planned"] >= run.training["step"] > 0
        assert run.timeline()[-1][1] > 0
        for tables in (run.errors(), run.errors("68 points, 3D")):
            assert all(0 < table["balanced"] < 1 for table in tables.values())


def test_times_come_from_the_rates():
    rows = [
        {"kind": "start", "step": 0},
        {"kind": "train", "step": 10, "pictures_per_second": 50.0},
        {"kind": "validation", "step": 10},
        {"kind": "train", "step": 30, "pictures_per_second": 200.0},
    ]
    line = timeline(rows, pictures=20)
    assert line == [(10, 4.0, 50.0), (30, 6.0, 200.0)]  # 200 pictures at 50 a second, 400 at 200
    assert steady_rate(line) == 200.0
    assert steady_rate([(1, 1.0, 1.0), (2, 2.0, 3.0), (3, 3.0, 5.0)]) == 4.0
    assert math.isnan(steady_rate([]))
    run = read_gpu_run("photos_resnet50")
    half_way = run.seconds_at(1010)
    assert run.seconds_at(1000) < half_way < run.seconds_at(1020)
    assert run.seconds_at(0) == 0
    with pytest.raises(ValueRangeError, match="found 1581; expected 0 to 1580"):
        run.seconds_at(1581)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match=r"gpu_unknown\.json: found no such file"):
        read_gpu_run("unknown")
    (tmp_path / "text.json").write_text("[")
    with pytest.raises(FileFormatError, match="damaged"):
        read_gpu_run(tmp_path / "text.json")
    with pytest.raises(FileFormatError, match=r"found twodasl_lite\.gpu_run, version 2"):
        read_gpu_run(write(tmp_path / "later.json", version=2))
    with pytest.raises(FileFormatError, match="found no provenance"):
        read_gpu_run(write(tmp_path / "less.json", provenance=None))
    result = {"result": {"log": "gone.jsonl"}}
    with pytest.raises(FileFormatError, match=r"gone\.jsonl"):
        read_gpu_run(write(tmp_path / "logless.json", parts={"training": result}))
    run = read_gpu_run(write(tmp_path / "gpu_short.json"))
    assert (run.name, run.rows, run.training) == ("short", [], {})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that comes along, in a file of its own."""
    from twodasl_lite.networks import save_regressor
    from twodasl_lite.networks.trained import trained_regressor

    pytest.importorskip("safetensors")
    found = trained_regressor("all")
    path = tmp_path_factory.mktemp("weights") / "whole.safetensors"
    save_regressor(path, found.network, found.whitening, found.metadata)
    return path


def test_parts_make_the_same_network_in_half_precision(trained, tmp_path):
    from twodasl_lite.networks import load_regressor

    parts = split_weights(trained, tmp_path / "out" / "weights", limit=800_000)
    assert [part.name for part in parts] == ["weights.1of3", "weights.2of3", "weights.3of3"]
    assert all(part.stat().st_size <= 800_000 for part in parts)
    joined = load_regressor(join_weights(parts[1], tmp_path / "joined.safetensors"))
    whole = load_regressor(trained)
    assert joined.metadata == whole.metadata
    assert torch.equal(joined.whitening.std, whole.whitening.std)
    inputs = torch.randn(4, 4, 120, 120, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = whole.network(inputs), joined.network(inputs)
    assert not torch.equal(expected, found)
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.01)


def test_parts_that_do_not_belong_together_are_refused(trained, tmp_path):
    parts = split_weights(trained, tmp_path / "weights", limit=800_000)
    whole = parts[2].read_bytes()
    parts[2].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FileFormatError, match="hash does not match"):
        join_weights(parts[0], tmp_path / "joined")
    parts[2].write_bytes(bytes(32) + whole[32:])
    with pytest.raises(FileFormatError, match=r"weights\.3of3: found a part of another network"):
        join_weights(parts[0], tmp_path / "joined")
    parts[1].unlink()
    with pytest.raises(FileFormatError, match=r"weights\.2of3: found no such file"):
        join_weights(parts[0], tmp_path / "joined")
    with pytest.raises(FileFormatError, match=r"NAME\.1of3"):
        join_weights(trained, tmp_path / "joined")
    with pytest.raises(ValueRangeError, match="expected more than 32"):
        split_weights(trained, tmp_path / "weights", limit=32)
    assert not (tmp_path / "joined").exists()


def test_weights_too_large_for_half_precision_are_refused(tmp_path):
    from twodasl_lite.networks import save_regressor
    from twodasl_lite.networks.trained import trained_regressor

    found = trained_regressor("all")
    with torch.no_grad():
        found.network.fc.weight[0, 0] = 1e5
    save_regressor(tmp_path / "large.safetensors", found.network, found.whitening, found.metadata)
    with pytest.raises(ValueRangeError, match=r"fc\.weight: found up to 1e\+05"):
        split_weights(tmp_path / "large.safetensors", tmp_path / "weights")
    assert list(tmp_path.iterdir()) == [tmp_path / "large.safetensors"]
