"""Pickles are read as data: every layout of numpy arrays is accepted, and no other name."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import pickle
import sys
import time

import numpy as np
import pytest

from tests.reader_files import fake_chumpy
from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.readers.safe_pickle import CHUMPY, SPARSE, TORCH, load_pickle

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")


def written(tmp_path, content: object, protocol: int = 4):
    path = tmp_path / "file.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(tmp_path, protocol: int) -> None:
    content = {
        "big": np.arange(6, dtype=">f4").reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float64(3.5),
        "bytes": np.array([1, 2], np.uint8),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "plain": [1, 2.5, "text", None, True, (1, 2)],
        "ordered": collections.OrderedDict(a=1),
    }
    found = load_pickle(written(tmp_path, content, protocol))
    assert list(found) == list(content)
    for name in ("big", "columns", "bytes", "mask", "empty"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype.newbyteorder("=")
    assert found["scalar"] == 3.5
    assert found["plain"] == content["plain"]
    assert found["ordered"] == {"a": 1}


def test_a_pickle_of_python_2(tmp_path) -> None:
    """What cPickle of Python 2 wrote: protocol 2, byte strings, the old names."""
    raw = np.array([1.5, -2.0], "<f4").tobytes()
    data = (
        b"\x80\x02}U\x01ucnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbs."
    )
    np.testing.assert_array_equal(load_pickle(written(tmp_path, data))["u"], [1.5, -2.0])


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_chumpy_and_scipy_are_unwrapped(tmp_path, protocol: int) -> None:
    matrix = scipy.sparse.random(4, 6, 0.5, "csc", rng=np.random.default_rng(0))
    with fake_chumpy() as ch:
        data = pickle.dumps({"x": ch(np.arange(3.0)), "csc": matrix, "csr": matrix.tocsr()}, protocol)
    found = load_pickle(written(tmp_path, data), also=CHUMPY | SPARSE)
    np.testing.assert_array_equal(found["x"], [0, 1, 2])
    np.testing.assert_array_equal(found["csc"], matrix.toarray())
    np.testing.assert_array_equal(found["csr"], matrix.toarray())
    with pytest.raises(FileFormatError, match=r"the name (chumpy\.ch\.Ch|scipy\.sparse)"):
        load_pickle(written(tmp_path, data))


def test_an_npy_of_objects_is_a_list(tmp_path) -> None:
    path = tmp_path / "file.npy"
    np.save(path, np.array({"a": np.arange(2)}, dtype=object), allow_pickle=True)
    (content,) = load_pickle(path)
    np.testing.assert_array_equal(content["a"], [0, 1])


def test_tensors_are_left_out_where_they_are_tolerated(tmp_path) -> None:
    data = b"\x80\x02}(X\x01\x00\x00\x00tctorch._utils\n_rebuild_tensor_v2\nNK\x00\x86RX\x01\x00\x00\x00nK\x07u."
    assert load_pickle(written(tmp_path, data), also=TORCH) == {"t": None, "n": 7}
    with pytest.raises(FileFormatError, match=r"the name torch\._utils\._rebuild_tensor_v2"):
        load_pickle(written(tmp_path, data))


# ------------------------------------------------------------------------------------------------------- ill-meaning
class _Call:
    def __init__(self, function, *arguments) -> None:
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def _attacks(marker: str) -> dict[str, bytes]:
    command = f"touch {marker}"
    call = _Call(os.system, command)
    nested = io.BytesIO()
    np.save(nested, np.array([call], dtype=object), allow_pickle=True)
    return {
        "reduce": pickle.dumps(call, 2),
        "in a dictionary": pickle.dumps({"u": np.zeros(3), "w": call}, 4),
        "in an array of objects": pickle.dumps(np.array([call], dtype=object), 4),
        "in an npy": nested.getvalue(),
        "eval": pickle.dumps(_Call(eval, f"__import__('os').system({command!r})"), 4),
        "exec": pickle.dumps(_Call(exec, f"import os; os.system({command!r})"), 4),
        "getattr": b"cbuiltins\ngetattr\n.",
        "old instance": f"(S'{command}'\nios\nsystem\n.".encode(),
        "old object": b"(cos\nsystem\nS'" + command.encode() + b"'\no.",
        "numpy's own exec": b"cnumpy.testing._private.utils\nrunstring\n(S'import os'\n}tR.",
        "numpy's loader": b"cnumpy\nload\n(S'" + marker.encode() + b"'\ntR.",
        "a nested name": b"\x80\x04\x8c\x05numpy\x8c\x12core.multiarray.sys\x93.",
        "an attribute of a tolerated name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
        "the extension registry": b"\x80\x02\x82\x01.",
        "a persistent reference": b"Pevil\n.",
        "an import alone": b"cantigravity\nx\n.",
    }


def test_nothing_in_a_pickle_runs(tmp_path) -> None:
    marker = tmp_path / "marker"
    for name, data in _attacks(str(marker)).items():
        with pytest.raises(FileFormatError) as caught:
            load_pickle(written(tmp_path, data), also=CHUMPY | SPARSE | TORCH)
        assert not marker.exists(), name
        if name in ("reduce", "in a dictionary", "in an array of objects", "in an npy", "old instance", "old object"):
            assert "system, which was not looked up or called" in str(caught.value), name


def test_tolerated_names_are_not_looked_up_either(tmp_path, monkeypatch) -> None:
    """A module of that name could not be imported any more; nobody tries."""
    with fake_chumpy() as ch:
        data = pickle.dumps(ch(np.ones(2)), 2)
    for name in ("chumpy", "chumpy.ch", "numpy.core.multiarray", "numpy._core.multiarray"):
        monkeypatch.setitem(sys.modules, name, None)
    np.testing.assert_array_equal(load_pickle(written(tmp_path, data), also=CHUMPY), [1, 1])


def test_a_class_cannot_be_changed_by_a_pickle(tmp_path) -> None:
    # BUILD on a class instead of an instance.
    path = written(tmp_path, b"\x80\x02cnumpy\nndarray\n}X\x04\x00\x00\x00argsK\x01sb.")
    with pytest.raises(FileFormatError):
        load_pickle(path)
    np.testing.assert_array_equal(load_pickle(written(tmp_path, np.ones(2))), [1, 1])


# ------------------------------------------------------------------------------------------------------------ damaged
def _array(dtype: str, shape: str, data: bytes) -> bytes:
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n" + shape.encode()
        + b"cnumpy\ndtype\n(S'" + dtype.encode() + b"'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
        + b"I00\nS'" + data + b"'\ntb."
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (_array("f4", "(I3\nt", b"1234"), "4 bytes for an array of float32 with shape"),
        (_array("f4", "(I-1\nt", b"1234"), "an array of shape"),
        (_array("V8", "(I1\nt", b"12345678"), "of type 'V8', not of numbers"),
        (_array("f4", "(L4611686018427387904L\nI16\nt", b""), "0 bytes for an array"),
        (b"cnumpy\nndarray\n(tR.", "a bare numpy.ndarray"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(tR.", "whose parts are not as numpy writes them"),
        (b"(lp0\ng0\na.", "contains itself"),
        (b"not a pickle at all", "no readable pickle"),
        (b"", "no readable pickle"),
    ],
)
def test_damaged_pickles_say_what_is_wrong(tmp_path, data: bytes, found: str) -> None:
    with pytest.raises(FileFormatError, match=found):
        load_pickle(written(tmp_path, data))


def test_shared_structures_do_not_explode(tmp_path) -> None:
    nested: list = [np.zeros(1)]
    for _ in range(60):
        nested = [nested, nested]
    started = time.perf_counter()
    load_pickle(written(tmp_path, nested))
    assert time.perf_counter() - started < 5


def test_files_that_are_not_there_or_too_large(tmp_path, monkeypatch) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        load_pickle(tmp_path / "gone.pkl")
    with pytest.raises(FileFormatError, match="a folder"):
        load_pickle(tmp_path)
    monkeypatch.setattr("twodasl_lite.faces.readers.safe_pickle.MAX_BYTES", 10)
    with pytest.raises(FileFormatError, match="at most 10 bytes"):
        load_pickle(written(tmp_path, np.zeros(9)))


def test_cut_and_garbled_files_raise_nothing_else(tmp_path) -> None:
    rng = np.random.default_rng(0)
    whole = pickle.dumps({"u": np.arange(20.0), "csc": scipy.sparse.csc_matrix(np.eye(3)), "names": ["a", "b"]}, 2)
    for cut in range(0, len(whole) - 1, 7):
        with pytest.raises(FileFormatError):
            load_pickle(written(tmp_path, whole[:cut]), also=SPARSE)
    for _ in range(400):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), 3):
            data[position] = rng.integers(0, 256)
        with contextlib.suppress(FileFormatError):
            load_pickle(written(tmp_path, bytes(data)), also=SPARSE)
