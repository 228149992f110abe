"""Photographs in one file: the same pictures and numbers as from the clone, and errors for other files."""

from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import torch
from stream_source import assert_same
from training_runs import small_face

from tests import test_data_aflw as crops
from tests.benchmark_files import Benchmark
from twodasl_lite.apps.cli import main
from twodasl_lite.base.archive import read_archive, write_archive
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.datasets import packed
from twodasl_lite.datasets.aflw import read_aflw, training_set
from twodasl_lite.datasets.aflw2000 import read_aflw2000
from twodasl_lite.datasets.packed import cached_pack, is_pack, pack_photos, read_packed, read_test
from twodasl_lite.training.config import SourceConfig
from twodasl_lite.training.pictures import pictures

written = crops.written


@pytest.fixture
def clone(tmp_path, written, monkeypatch):
    """Crops and test set in one folder, as a user has them, and a cache of its own."""
    monkeypatch.setenv("TWODASL_CACHE", str(tmp_path / "cache"))
    Benchmark().write_clone(tmp_path / "benchmark")
    shutil.copytree(tmp_path / "benchmark", written[0], dirs_exist_ok=True)
    return written[0]


def straight(clone):
    """The training set, read file by file."""
    test = read_aflw2000(clone)
    return test, training_set(read_aflw(clone), test.names, test.crop)


def test_a_pack_of_the_files_as_they_are_holds_the_same(clone, tmp_path):
    test, train = straight(clone)
    pack = pack_photos(clone, tmp_path / "photos.pack", quality=None)
    assert pack.names == train.faces.names
    assert pack.quality is None
    assert [pair[:2] for pair in pack.duplicates] == [pair[:2] for pair in train.duplicates]
    assert len(pack.duplicates) > 0
    assert pack.problems == train.problems
    index = torch.arange(len(pack)).flip(0)
    assert_same(pack.take(index), train.faces.take(index)._replace(yaw=train.faces.yaw.float()[index]))

    again = read_aflw2000(tmp_path / "photos.pack")
    assert (again.layout, again.names, len(again)) == ("pack", test.names, len(test))
    for name in ("landmarks", "yaw", "published_boxes", "reannotated"):
        torch.testing.assert_close(getattr(again, name), getattr(test, name), rtol=0, atol=1e-4)
    assert (again.detected is None) == (test.detected is None)
    for name in test.names:
        np.testing.assert_array_equal(again.crop(name), test.crop(name))
    few = again.take([1, 0])
    np.testing.assert_array_equal(few.crop(test.names[1]), test.crop(test.names[1]))
    with pytest.raises(FileFormatError, match="a pack of crops without photos"):
        again.photo(test.names[0])
    with pytest.raises(FileFormatError, match="a pack of crops without photos"):
        again.crop(test.names[0], test.boxes[0])


def test_compressed_pictures_are_nearly_the_same_and_smaller(clone, tmp_path):
    exact = pack_photos(clone, tmp_path / "exact.pack", quality=None)
    pack = pack_photos(clone, tmp_path / "photos.pack", quality=90)
    assert pack.quality == 90
    assert len(pack.pictures.content) < len(exact.pictures.content)
    index = torch.arange(len(pack))
    difference = pack.take(index).images.float() - exact.take(index).images.float()
    assert 0 < difference.abs().mean() < 6
    assert torch.equal(pack.take(index).marked.nan_to_num(), exact.take(index).marked.nan_to_num())


def test_a_run_takes_a_pack_in_place_of_the_clone(clone, tmp_path):
    pack_photos(clone, tmp_path / "photos.pack", quality=None)
    sources = [SourceConfig(kind="aflw", path=str(path), count=100) for path in (clone, tmp_path / "photos.pack")]
    batches = [pictures(source, small_face(), truth=False) for source in sources]
    assert_same(*batches)
    assert batches[0].size == 2


def test_a_clone_is_read_once(clone, monkeypatch):
    first = cached_pack(clone)
    with monkeypatch.context() as patch:
        patch.setattr(packed, "training_set", lambda *_, **__: pytest.fail("read again"))
        assert cached_pack(clone).names == first.names
    name = next(path for path in sorted((clone / "test_codes").rglob("AFLW_GT_crop/*.jpg")))
    os.utime(name, (1, 1))  # as if it had been replaced
    assert cached_pack(clone).path != first.path
    first.path.write_bytes(first.path.read_bytes()[:-100])
    os.utime(name, None)
    assert cached_pack(clone).names == first.names


def test_a_full_disk(clone, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(packed, "write_archive", full)
    with pytest.raises(TwodaslError, match=r"\.pack: the photographs could not be kept \(.*No space.*TWODASL_CACHE"):
        cached_pack(clone)


def test_what_is_no_pack(clone, tmp_path):
    path = tmp_path / "photos.pack"
    with pytest.raises(FileFormatError, match=r"photos\.pack: found no such file"):
        read_packed(path)
    pack_photos(clone, path, quality=None)
    assert is_pack(path)
    arrays, facts = read_archive(path, packed.FORMAT, packed.VERSION)

    write_archive(path, packed.FORMAT, packed.VERSION + 1, arrays, facts)
    for read in (read_packed, read_test, read_aflw2000):
        with pytest.raises(
            FileFormatError, match=r"found a twodasl_lite\.photos file, version 2; expected .* version 1"
        ):
            read(path)
    changed = arrays | {"train_yaw": arrays["train_yaw"] + 1}
    write_archive(path, packed.FORMAT, packed.VERSION, changed, facts)
    with pytest.raises(FileFormatError, match="differs from its checksum"):
        read_packed(path)
    broken = arrays | {"train_pictures": torch.zeros_like(arrays["train_pictures"])}
    facts["sha256"] = packed._checksum(broken)
    write_archive(path, packed.FORMAT, packed.VERSION, broken, facts)
    with pytest.raises(FileFormatError, match=r"photos\.pack: found a damaged picture under "):
        read_packed(path).take([0])
    (tmp_path / "text.pack").write_text("no zip")
    assert not is_pack(tmp_path / "text.pack")
    with pytest.raises(TwodaslError, match="text"):
        read_packed(tmp_path / "text.pack")


def test_command(clone, tmp_path, capsys):
    assert main(["pack", str(clone), str(tmp_path / "a.pack"), "--quality", "101"]) == 1
    assert "quality: found 101; expected a whole number from 0 to 100" in capsys.readouterr().err
    assert main(["pack", str(clone), str(tmp_path / "a.pack")]) == 0
    assert "2 training crops and the test set; 1 copies" in capsys.readouterr().out
    assert read_packed(tmp_path / "a.pack").quality == packed.QUALITY
    with pytest.raises(ValueRangeError):
        pack_photos(clone, tmp_path / "b.pack", quality=True + 0.5)
