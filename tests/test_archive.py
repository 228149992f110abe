"""The safe file format: files are written completely or not at all, and never hold a pickle."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from twodasl_lite.base.archive import read_archive, write_archive
from twodasl_lite.base.errors import FileFormatError


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_arrays_and_metadata_come_back(tmp_path) -> None:
    arrays = {"a": torch.randn(3, 2), "b.c": np.arange(4)}
    write_archive(tmp_path / "x.npz", "kind", 2, arrays, {"name": "ä", "list": [1, 2]})
    again, metadata = read_archive(tmp_path / "x.npz", "kind", 2, required=("a",))
    assert torch.equal(again["a"], arrays["a"])
    assert again["b.c"].tolist() == [0, 1, 2, 3]
    assert metadata == {"name": "ä", "list": [1, 2]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.npz"
    write_archive(path, "kind", 1, {"a": torch.ones(1)})

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_archive(path, "kind", 1, {"a": torch.zeros(1)})
    assert os.listdir(tmp_path) == ["x.npz"]
    assert float(read_archive(path, "kind", 1)[0]["a"]) == 1


@pytest.mark.parametrize("kept", [0, 1, 30, 0.3, 0.9, 0.999])
def test_truncated_files_are_named(tmp_path, kept: float) -> None:
    path = tmp_path / "short.npz"
    write_archive(path, "kind", 1, {"a": torch.randn(200, 30)})
    data = path.read_bytes()
    path.write_bytes(data[: int(kept if isinstance(kept, int) else kept * len(data))])
    with pytest.raises(FileFormatError, match=r"short\.npz: found .*; expected a kind file, version 1"):
        read_archive(path, "kind", 1)


def test_a_flipped_byte_is_noticed(tmp_path) -> None:
    path = tmp_path / "flipped.npz"
    write_archive(path, "kind", 1, {"a": torch.randn(200, 30)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="damaged"):
        read_archive(path, "kind", 1)


def test_other_kinds_and_versions_are_named(tmp_path) -> None:
    write_archive(tmp_path / "x.npz", "kind", 1, {"a": torch.ones(1)})
    with pytest.raises(FileFormatError, match="found a kind file, version 1; expected a kind file, version 2"):
        read_archive(tmp_path / "x.npz", "kind", 2)
    with pytest.raises(FileFormatError, match="expected a other file"):
        read_archive(tmp_path / "x.npz", "other", 1)
    with pytest.raises(FileFormatError, match="found no array b"):
        read_archive(tmp_path / "x.npz", "kind", 1, required=("a", "b"))
    with pytest.raises(FileFormatError, match="a folder"):
        read_archive(tmp_path, "kind", 1)
    np.save(tmp_path / "plain.npy", np.ones(3))
    with pytest.raises(FileFormatError, match="not a zip archive"):
        read_archive(tmp_path / "plain.npy", "kind", 1)


def test_pickles_are_refused_unopened(tmp_path) -> None:
    target = tmp_path / "harm"
    with open(tmp_path / "bare.npz", "wb") as file:
        pickle.dump(Bomb(str(target)), file)
    with pytest.raises(FileFormatError, match="not a zip archive"):
        read_archive(tmp_path / "bare.npz", "kind", 1)

    write_archive(tmp_path / "good.npz", "kind", 1, {"a": torch.ones(1)})
    with np.load(tmp_path / "good.npz") as good:
        header = good["__header__"]
    np.savez(tmp_path / "hidden.npz", __header__=header, a=np.array([Bomb(str(target))], dtype=object))
    with pytest.raises(FileFormatError, match="pickled object"):
        read_archive(tmp_path / "hidden.npz", "kind", 1)
    assert not target.exists()
