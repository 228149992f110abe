"""Shards: the same bytes from any number of workers, written completely or not at all, resumed, checked, read back."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_model
from tests.stream_source import NumberedFaces, assert_same, numbers
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.datasets import shards as shards_module
from twodasl_lite.datasets.pool import run_tasks
from twodasl_lite.datasets.shards import ShardSet, fingerprint, make_shards, read_manifest
from twodasl_lite.datasets.stream import SetStream

ROOT = Path(__file__).parent.parent


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.tar"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """11 pictures in shards of 4, 4 and 3."""
    make_shards(tmp_path / "set", NumberedFaces(), 11, shard_size=4)
    return tmp_path / "set"


def test_what_is_written_is_read_back(folder: Path) -> None:
    faces = ShardSet(folder)
    assert (len(faces), faces.counts) == (11, [4, 4, 3])
    expected = NumberedFaces().batch(0, 11)
    assert_same(faces.take(torch.arange(11)), expected)
    assert_same(faces.take(torch.tensor([10, 3, 4, 3])), expected.take([10, 3, 4, 3]))
    assert_same(faces.batch(2, 7), expected.take(slice(2, 9)))
    assert_same(pickle.loads(pickle.dumps(faces)).batch(2, 7), expected.take(slice(2, 9)))
    assert faces.batch(0, 2, truth=False).landmarks is None
    for index in ([11], [-1]):
        with pytest.raises(ValueRangeError, match="expected 0 to 10"):
            faces.take(torch.tensor(index))


def test_pictures_without_truth(tmp_path: Path) -> None:
    make_shards(tmp_path, NumberedFaces(truth=False), 3, shard_size=2)
    assert_same(ShardSet(tmp_path).batch(0, 3), NumberedFaces(truth=False).batch(0, 3))


def test_the_manifest_says_how_the_set_was_made(folder: Path) -> None:
    recipe, shards = read_manifest(folder)
    assert dict(recipe.source) == {"kind": "numbered", "seed": 0, "truth": True}
    assert [(s.name, s.first, s.count) for s in shards] == [
        ("shard-000000.tar", 0, 4),
        ("shard-000001.tar", 4, 4),
        ("shard-000002.tar", 8, 3),
    ]
    assert [s.bytes for s in shards] == [len(data) for data in contents(folder).values()]
    listed = subprocess.run(["sha256sum", *contents(folder)], cwd=folder, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [s.sha256 for s in shards]


def test_others_read_the_files_too(folder: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    paths = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False).decode())
    assert [sample["__key__"] for sample in samples] == [f"{n:08d}" for n in range(11)]
    expected = NumberedFaces().batch(0, 11)
    for n, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["image.npy"], expected.images[n])
        np.testing.assert_array_equal(sample["labels.npy"]["coefficients"], expected.coefficients[n])
    with tarfile.open(paths[0]) as tar:
        assert {(m.mtime, m.uid, m.uname) for m in tar} == {(0, 0, "")}


def test_any_number_of_workers_and_machines_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    two = tmp_path / "two"
    with pytest.raises(ArithmeticError, match="picture 9"):  # raised in a worker, after the first files
        make_shards(two, NumberedFaces(fail_at=9, pause=0.02), 11, shard_size=4, workers=2)
    assert contents(two)
    assert "shard-000002.tar" not in contents(two)
    make_shards(two, NumberedFaces(), 11, shard_size=4)
    assert contents(two) == contents(folder)
    assert read_manifest(two) == read_manifest(folder)

    parts = tmp_path / "parts"
    make_shards(parts, NumberedFaces(), 11, shard_size=4, part=(2, 2))
    with pytest.raises(FileFormatError, match="found 1 of 3 shards; expected all"):
        ShardSet(parts)
    assert numbers(ShardSet(parts, partial=True).batch(0, 4)) == [4, 5, 6, 7]
    make_shards(parts, NumberedFaces(), 11, shard_size=4, part=(1, 2))
    assert contents(parts) == contents(folder)
    assert read_manifest(parts) == read_manifest(folder)
    with pytest.raises(ValueRangeError, match="part: found 3 of 2"):
        make_shards(parts, NumberedFaces(), 11, part=(3, 2))


def test_a_finished_set_is_not_made_again(folder: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    told = []
    make_shards(folder, NumberedFaces(fail_at=0), 11, shard_size=4, progress=lambda *done: told.append(done))
    assert told == [(11, 11)]
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.tar")} == before


def test_another_set_is_not_mixed_in(folder: Path) -> None:
    for options, message in (
        ({"source": NumberedFaces(seed=1), "count": 11}, "seed: 0, not 1"),
        ({"source": NumberedFaces(), "count": 12}, "count: 11, not 12"),
        ({"source": NumberedFaces(), "count": 11, "shard_size": 5}, "shard_size: 4, not 5"),
    ):
        with pytest.raises(FileFormatError, match=message):
            make_shards(folder, **{"shard_size": 4, **options})


def test_after_a_failure_the_rest_is_made(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "failed"
    with pytest.raises(ArithmeticError, match="picture 9"):
        make_shards(place, NumberedFaces(fail_at=9), 11, shard_size=4)
    assert not list(place.glob(".*"))
    assert list(contents(place)) == ["shard-000000.tar", "shard-000001.tar"]
    assert [shard.name for shard in read_manifest(place).shards] == list(contents(place))
    make_shards(place, NumberedFaces(), 11, shard_size=4)
    assert contents(place) == contents(folder)


@pytest.mark.parametrize(
    ("damage", "needs_check", "found"),
    [
        (lambda path: path.unlink(), False, "no such file"),
        (lambda path: path.write_bytes(path.read_bytes()[:-512]), False, r"\d+ bytes, not \d+"),
        (lambda path: path.write_bytes(b""), False, "0 bytes, not"),
        (lambda path: flip_byte(path), True, "the checksum"),
    ],
)
def test_a_damaged_shard_is_named_and_made_again(folder: Path, damage, needs_check: bool, found: str) -> None:
    whole = contents(folder)
    damage(folder / "shard-000001.tar")
    with pytest.raises(FileFormatError, match=rf"shard-000001.tar: found {found}.*synth --check"):
        ShardSet(folder).take(torch.arange(11))
    assert numbers(ShardSet(folder).batch(0, 4)) == [0, 1, 2, 3]  # the others serve
    told = []
    make_shards(folder, NumberedFaces(), 11, shard_size=4, check=needs_check, report=told.append)
    assert len(told) == 1
    assert "shard-000001.tar" in told[0]
    assert contents(folder) == whole


def flip_byte(path: Path, place: int = 5000) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_without_its_checksum_a_damaged_tar_is_noticed_where_it_can_be(folder: Path) -> None:
    flip_byte(folder / "shard-000001.tar", 257)  # in the first header's magic
    with pytest.raises(FileFormatError, match=r"shard-000001.tar: found no tar header at byte 0"):
        ShardSet(folder, verify=False).take(torch.tensor([4]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: "{", "an unreadable manifest"),
        (lambda content: "[]", "an unreadable manifest"),
        (lambda content: json.dumps(content | {"version": 9}), "twodasl_lite.shards, version 9"),
        (lambda content: json.dumps(content | {"shards": [{"name": "x"}]}), "an unreadable manifest"),
        (
            lambda content: json.dumps(content | {"shards": [content["shards"][0] | {"name": "../escape.tar"}]}),
            "escape.tar, 4 pictures from 0",
        ),
        (
            lambda content: json.dumps(content | {"recipe": content["recipe"] | {"count": 0}}),
            "count: found 0; expected 1",
        ),
    ],
)
def test_damaged_manifests_are_named(folder: Path, change, message: str) -> None:
    path = folder / "manifest.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(FileFormatError, match=message):
        ShardSet(folder)


def test_folders_without_a_set(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"found no manifest.json; expected a folder of shards"):
        ShardSet(tmp_path)
    with pytest.raises(FileFormatError, match="found no such folder"):
        ShardSet(tmp_path / "nowhere")


def test_parts_of_different_sets_do_not_go_together(folder: Path, tmp_path: Path) -> None:
    make_shards(tmp_path / "other", NumberedFaces(seed=7), 11, shard_size=4, part=(1, 2))
    (tmp_path / "other" / "manifest-1-of-2.json").rename(folder / "manifest-1-of-2.json")
    with pytest.raises(FileFormatError, match=r"a part of another set \(seed: 0, not 7\)"):
        ShardSet(folder)


def test_no_room_is_said_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr(shards_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(TwodaslError, match=r"found 1 MB free; expected 46.5 MB for 1000 pictures"):
        make_shards(tmp_path, NumberedFaces(), 1000)
    usage.free = 10
    with pytest.raises(TwodaslError, match=r"found 10 B free; expected 46.5 kB for 1 pictures"):
        make_shards(tmp_path / "one", NumberedFaces(), 1)


def test_a_shard_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # the third picture does not fit
    try:
        with pytest.raises(TwodaslError, match=r"shard-000000.tar: could not be written: File too large. No partial"):
            make_shards(tmp_path, NumberedFaces(), 3, shard_size=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    make_shards(tmp_path, NumberedFaces(), 3, shard_size=3)
    assert len(ShardSet(tmp_path)) == 3


SLOW = """
import sys
from tests.stream_source import NumberedFaces
from twodasl_lite.datasets.shards import make_shards
make_shards(sys.argv[1], NumberedFaces(pause=0.03), 40, shard_size=4, workers=int(sys.argv[2]))
"""


@pytest.mark.parametrize(("workers", "blow"), [(2, signal.SIGKILL), (1, signal.SIGINT)])
def test_killed_in_the_middle_it_goes_on(tmp_path: Path, workers: int, blow: signal.Signals) -> None:
    script = tmp_path / "slow.py"  # a file with a main guard, as spawned workers import it again
    script.write_text(SLOW.replace("\nmake_shards", "\nif __name__ == '__main__': make_shards"))
    place = tmp_path / "set"
    process = subprocess.Popen(
        [sys.executable, str(script), str(place), str(workers)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not contents(place) or not list(place.glob(".shard*.part")):  # one is whole, one is being written
        assert time.monotonic() < deadline, "nothing was written"
        assert process.poll() is None, "the process ended by itself"
        time.sleep(0.005)
    process.send_signal(blow)
    process.wait()
    time.sleep(0.5 if workers > 1 else 0)  # workers finish a file, notice, and end
    assert len(contents(place)) < 10
    if blow == signal.SIGINT:
        assert not list(place.glob(".*"))
        assert [shard.name for shard in read_manifest(place).shards] == list(contents(place))
    with pytest.raises(FileFormatError, match="of 10 shards; expected all"):
        ShardSet(place)
    make_shards(place, NumberedFaces(), 40, shard_size=4)
    assert not list(place.glob(".*"))
    make_shards(tmp_path / "fresh", NumberedFaces(), 40, shard_size=4)
    assert contents(place) == contents(tmp_path / "fresh")


# ------------------------------------------------------------------------------------------------------ as a stream
def test_a_stream_of_shards(folder: Path) -> None:
    stream = SetStream(ShardSet(folder), mix=2, seed=1)
    batches = list(itertools.islice(stream.batches(4), 11))
    seen = [n for batch in batches for n in numbers(batch)]
    for epoch in (seen[:11], seen[11:22], seen[22:33], seen[33:]):
        assert sorted(epoch) == list(range(11))
    assert seen[:11] != seen[11:22]
    again = next(SetStream(ShardSet(folder), mix=2, seed=1).batches(4, start=7))
    assert_same(again, batches[7])


def test_few_files_are_open_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "_OPEN_SHARDS", 2)
    make_shards(tmp_path, NumberedFaces(), 6, shard_size=1)
    faces = ShardSet(tmp_path)
    assert numbers(faces.take(torch.tensor([5, 0, 3, 0]))) == [5, 0, 3, 0]
    assert len(faces._open) == 2


# ------------------------------------------------------------------------------------------------------------- parts
def test_a_fingerprint_tells_models_apart() -> None:
    model = make_model()
    assert fingerprint(model) == fingerprint(make_model())
    assert fingerprint(model) != fingerprint(make_model(seed=1))
    assert fingerprint(model) != fingerprint(make_model(albedo=False))
    changed = make_model()
    changed.mean[3, 1] += 1e-9
    assert fingerprint(model) != fingerprint(changed)


def work(factor: int, task: int) -> int:
    if task == 3:
        os._exit(7)
    return task * factor


def test_a_process_that_dies_is_noticed() -> None:
    assert list(run_tasks(work, 10, [], 2)) == []
    assert list(run_tasks(work, 10, [1, 2], 1)) == [10, 20]
    with pytest.raises(TwodaslError, match="a worker process died"):
        list(run_tasks(work, 10, [1, 3], 2))
