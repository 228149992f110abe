"""The command ``twodasl synth``: sets of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.stream_source import assert_same
from twodasl_lite.apps import cli
from twodasl_lite.datasets.shards import ShardSet
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.worlds.synthetic import SyntheticFaces


def synth(folder: Path, *words: object) -> int:
    return cli.main(["synth", "--out", str(folder), *map(str, words)])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*.tar"))}


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """5 pictures of the wild world with truth, drawn by two processes."""
    folder = tmp_path_factory.mktemp("synth") / "wild"
    words = ("--world", "wild", "--count", 5, "--shard-size", 3, "--seed", 7, "--truth", "--workers", 2)
    assert synth(folder, *words) == 0
    return folder


def test_pictures_are_the_world_s_whoever_draws_them(wild: Path) -> None:
    world = SyntheticFaces(load_face_model(CoefficientLayout()), "wild", seed=7)
    assert_same(ShardSet(wild).take(torch.arange(5)), world.batch(0, 5, truth=True))


def test_the_manifest_has_everything(wild: Path) -> None:
    source = json.loads((wild / "manifest.json").read_text())["recipe"]["source"]
    assert set(source) == {"world", "seed", "truth", "model", "device", "version"}
    assert source["world"]["pose"]["yaw_limit"] == 90
    assert len(source["model"]["sha256"]) == 64


def test_a_damaged_file_is_named_and_made_again_from_the_manifest_alone(wild: Path, capsys) -> None:
    whole = contents(wild)
    path = wild / "shard-000001.tar"
    data = bytearray(whole[path.name])
    data[700] ^= 255
    path.write_bytes(data)
    assert synth(wild, "--workers", 1) == 0  # sizes alone do not show it
    assert contents(wild) != whole
    capsys.readouterr()
    assert synth(wild, "--check", "--workers", 1) == 0
    shown = capsys.readouterr()
    assert "shard-000001.tar: found the checksum" in shown.err
    assert "shard-000000" not in shown.err
    assert f"{wild}: 5 pictures in 2 files" in shown.out
    assert contents(wild) == whole


def test_parts_make_the_set(wild: Path, tmp_path: Path, capsys) -> None:
    words = ("--world", "wild", "--count", 5, "--shard-size", 3, "--seed", 7, "--truth", "--workers", 1)
    assert synth(tmp_path, *words, "--part", "2/2") == 0
    assert "part 2 of 2: 2 of 5 pictures in 1 file\n" in capsys.readouterr().out
    assert synth(tmp_path, "--part", "1/2", "--workers", 1) == 0
    assert contents(tmp_path) == contents(wild)


def test_a_world_decides_what_is_kept(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    own.write_text('name = "mine"\nlabelled = false\n')
    for world, known in (("labelled", True), (own, False)):
        folder = tmp_path / f"set {known}"
        assert synth(folder, "--world", world, "--count", 1) == 0
        assert (ShardSet(folder).batch(0, 1).coefficients is not None) == known
    assert synth(tmp_path / "none", "--world", "labelled", "--count", 1, "--no-truth") == 0
    assert ShardSet(tmp_path / "none").batch(0, 1).landmarks is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "found no dataset to resume; expected --world and --count"),
        (("--world", "wild"), "expected --count to begin one"),
        (("--world", "wide", "--count", 3), "found 'wide'; expected one of labelled, noisy, snapshots, wild"),
        (("--world", "missing.toml", "--count", 3), "missing.toml: found no such file"),
    ],
)
def test_what_cannot_begin(tmp_path: Path, capsys, words: tuple, message: str) -> None:
    assert synth(tmp_path, *words) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_set_in_the_folder(wild: Path, capsys) -> None:
    before = contents(wild)
    assert synth(wild, "--seed", 8) == 1
    assert "a set with another recipe (seed: 7, not 8)" in capsys.readouterr().err
    assert synth(wild, "--world", "labelled") == 1
    assert "world.name: wild, not labelled" in capsys.readouterr().err
    assert contents(wild) == before


@pytest.mark.parametrize(
    "words", [("--count", 0), ("--count", "many"), ("--part", "3/2"), ("--part", "1"), ("--seed", -1), ("--workers", 0)]
)
def test_words_that_are_not_understood(tmp_path: Path, capsys, words: tuple) -> None:
    with pytest.raises(SystemExit) as caught:
        synth(tmp_path, "--world", "wild", *words)
    assert caught.value.code == 2
    assert f"found '{words[1]}'" in capsys.readouterr().err


def test_interrupted_it_says_so(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def interrupt(self: SyntheticFaces, start: int, count: int, *, truth: bool | None = None):
        drawn.append(start)
        if len(drawn) == 3:  # once for the room on the disk, twice for a file each
            raise KeyboardInterrupt
        return original(self, start, count, truth=truth)

    original = SyntheticFaces.batch
    monkeypatch.setattr(SyntheticFaces, "batch", interrupt)
    words = ("--world", "labelled", "--count", 2, "--shard-size", 1, "--workers", 1)
    assert synth(tmp_path, *words) == cli.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "shard-000000.tar"]
    assert synth(tmp_path, "--workers", 1) == 0
    assert drawn == [0, 0, 1, 0, 1]  # the first file was not drawn again
    assert len(ShardSet(tmp_path)) == 2
