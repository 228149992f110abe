"""Reading numbers from pickles without executing them.

A pickle is a small program: while it is read, it may call any function of any module, so reading a stranger's pickle
means running a stranger's code. Several face models are nevertheless published as pickles. This reader is safe because
it looks nothing up. Every name that a pickle mentions becomes an inert record of what it was called with; afterwards
the few records that describe numpy arrays (and, where a format needs them, arrays wrapped by chumpy or scipy) are
turned into arrays by this module's code. Any other name is refused.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from twodasl_lite.base.errors import FileFormatError

MAX_BYTES = 4 * 2**30
"""Size in bytes of the largest file that is read; the largest published model has a tenth of it."""

# Python 2 and 3, numpy 1 and 2 call the same things by different names.
_RECONSTRUCT = {f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")}
_SCALAR = {f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")}
_FROM_BUFFER = {f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")}
_ENCODE = {"_codecs.encode"}
_NO_BYTES = {"__builtin__.bytes", "builtins.bytes"}
_NEW_OBJECT = {"copy_reg._reconstructor", "copyreg._reconstructor"}
_CONTAINERS = {
    f"{module}.{name}" for module in ("__builtin__", "builtins") for name in ("set", "frozenset", "list", "tuple")
}
_ORDERED = {"collections.OrderedDict"}
_TYPES = {"numpy.ndarray", "numpy.dtype", "__builtin__.object", "builtins.object"}
_ARRAYS = _RECONSTRUCT | _SCALAR | _FROM_BUFFER | _ENCODE | _NO_BYTES | _NEW_OBJECT | _TYPES | _ORDERED | _CONTAINERS

CHUMPY = frozenset({"chumpy.ch.Ch", "chumpy.Ch"})
"""Arrays of the automatic differentiation library that FLAME was made with; the numbers are in ``x``."""
SPARSE = frozenset(f"scipy.sparse.{module}.{name}" for name in ("csc_matrix", "csr_matrix")
                   for module in (name[:3], f"_{name[:3]}"))  # fmt: skip
"""Compressed sparse matrices of scipy; turned into dense arrays."""

TORCH = frozenset({"torch._utils._rebuild_tensor_v2", "torch.storage._load_from_bytes", "torch._utils._rebuild_tensor"})
"""Functions that make tensors; FLAME's landmark file holds some, which are not needed here and become ``None``."""

_NPY_MAGIC = b"\x93NUMPY"  # an .npy of objects is a short header and a pickle
_PLAIN_KINDS = "biufc"  # numbers and booleans; never objects
_MAX_DENSE = 2**28  # largest number of entries of a sparse matrix that is made dense


class _Record:
    """Something that a pickle wanted to call: its name, arguments and state are kept, but nothing runs."""

    __slots__ = ("args", "items", "state")
    qualified = ""

    def __new__(cls, *args: object):
        record = super().__new__(cls)
        record.args, record.state, record.items = args, None, {}
        return record

    def __setitem__(self, key: object, item: object) -> None:
        self.items[key] = item

    def __setstate__(self, state: object) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Builds records; the only code it can reach is :class:`_Record`'s."""

    def __init__(self, data: bytes, allowed: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.allowed = allowed
        self.classes: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> type:
        qualified = f"{module}.{name}"
        if qualified not in self.allowed:
            raise _Refused(qualified)
        # A separate class per file: whatever a pickle might do to it affects no other file.
        if qualified not in self.classes:
            self.classes[qualified] = type("Record", (_Record,), {"__slots__": (), "qualified": qualified})
        return self.classes[qualified]

    def persistent_load(self, pid: object) -> object:
        raise _Refused(f"a persistent reference ({pid!r:.40})")


class _Refused(Exception):
    """A name that is not on the list."""


class _Damaged(Exception):
    """A record that does not describe an array."""


def _dtype(record: object) -> np.dtype:
    """The type of numbers that a record of ``numpy.dtype`` describes: its code, and the byte order of its state."""
    if not isinstance(record, _Record) or record.qualified != "numpy.dtype" or not record.args:
        raise _Damaged("an array without a type")
    code = record.args[0]
    if not isinstance(code, str) or code.lstrip("<>=|")[:1] not in _PLAIN_KINDS or len(code) > 4:
        raise _Damaged(f"an array of type {code!r:.20}, not of numbers")
    dtype = np.dtype(code)
    order = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "="
    return dtype.newbyteorder(order if order in ("<", ">") else "=")


def _array(data: bytes, dtype: np.dtype, shape: object, order: str) -> np.ndarray:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise _Damaged(f"an array of shape {shape!r:.40}")
    if len(data) != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise _Damaged(f"{len(data)} bytes for an array of {dtype} with shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape, order=order).astype(dtype.newbyteorder("="))


def _sparse(kind: str, state: object) -> np.ndarray:
    """A compressed sparse matrix as a dense one."""
    try:
        data, indices, starts = (np.asarray(state[name]) for name in ("data", "indices", "indptr"))
        rows, columns = (int(n) for n in state["_shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise _Damaged("a sparse matrix without data, indices, indptr and shape") from error
    by_column = "csc" in kind
    outer, inner = (columns, rows) if by_column else (rows, columns)
    fits = (
        rows >= 0 and columns >= 0 and rows * columns <= _MAX_DENSE and starts.shape == (outer + 1,)
        and data.ndim == 1 and data.shape == indices.shape and starts[0] == 0 and starts[-1] == len(data)
        and (np.diff(starts) >= 0).all() and (not len(data) or (indices.min() >= 0 and indices.max() < inner))
    )  # fmt: skip
    if not fits:
        raise _Damaged("a sparse matrix whose parts do not fit together")
    dense = np.zeros((outer, inner), data.dtype)
    np.add.at(dense, (np.repeat(np.arange(outer), np.diff(starts)), indices), data)
    return dense.T if by_column else dense


class _Resolver:
    """Turns records into arrays, each once, however often a file mentions it."""

    def __init__(self) -> None:
        self.done: dict[int, tuple[object, object]] = {}  # keeps the record too, so that its id is not reused
        self.open: set[int] = set()

    def __call__(self, value: object) -> object:
        if not isinstance(value, (_Record, dict, list, tuple)):
            return value
        if id(value) in self.open:
            raise _Damaged("a structure that contains itself")
        if id(value) not in self.done:
            self.open.add(id(value))
            self.done[id(value)] = value, self._make(value)
            self.open.discard(id(value))
        return self.done[id(value)][1]

    def _make(self, value: _Record | dict | list | tuple) -> object:
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items() if isinstance(key, (str, int))}
        if isinstance(value, (list, tuple)):
            return type(value)(self(item) for item in value)
        name, args, state = value.qualified, value.args, value.state
        try:
            if name in _RECONSTRUCT:
                _, shape, dtype, fortran, data = state
                if isinstance(data, list):  # an array of objects
                    return [self(item) for item in data]
                return _array(self._bytes(data), _dtype(dtype), shape, "F" if fortran else "C")
            if name in _FROM_BUFFER:
                data, dtype, shape, order = args
                return _array(self._bytes(data), _dtype(dtype), shape, "F" if order == "F" else "C")
            if name in _SCALAR:
                return _array(self._bytes(args[1]), _dtype(args[0]), (), "C")[()]
            if name in _ENCODE:
                return args[0].encode("latin1")
            if name in _NO_BYTES and not args:  # how old protocols write empty ones
                return b""
            if name in _CONTAINERS:
                return [self(item) for item in args[0]] if args else []
            if name in _ORDERED:
                return {key: self(item) for key, item in (args[0] if args else value.items.items())}
            if name in TORCH:
                return None
            # An instance: made by its class (protocol 2 on), or by a helper that names the class.
            kind = args[0].qualified if name in _NEW_OBJECT else name
        except (AttributeError, IndexError, TypeError, UnicodeError) as error:
            raise _Damaged(f"a {name} whose parts are not as numpy writes them") from error
        return _unwrap(kind, self(state))

    def _bytes(self, value: object) -> bytes:
        value = self(value)
        if isinstance(value, str):  # a Python 2 string, read as latin1
            return value.encode("latin1")
        if isinstance(value, (bytes, bytearray)):
            return bytes(value)
        raise _Damaged("an array without bytes")


def _unwrap(kind: str, state: object) -> np.ndarray:
    """The array inside an instance of chumpy's or scipy's classes."""
    if kind in SPARSE:
        return _sparse(kind, state)
    if kind in CHUMPY:
        if not isinstance(state, dict) or not isinstance(state.get("x"), np.ndarray):
            raise _Damaged("a chumpy array without numbers")
        return state["x"]
    raise _Damaged(f"a bare {kind}")


def load_pickle(path: str | os.PathLike[str], also: Iterable[str] = ()) -> object:
    """Read a pickle of plain data and numpy arrays.

    Args:
        path: The file.
        also: Further names that are accepted: from :data:`CHUMPY` and :data:`SPARSE`, whose instances are unwrapped to
            arrays, and from :data:`TORCH`, whose instances become ``None``.

    Returns:
        What the file holds: dictionaries, lists, numbers, strings and arrays. An ``.npy`` of objects is a list.

    Raises:
        FileFormatError: If the file is missing, too large, damaged, or mentions any other function or class; the
            message names it, and it has not been called.
    """
    path = Path(path)
    expected = "a pickle of numpy arrays and nothing else"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    if path.stat().st_size > MAX_BYTES:
        raise FileFormatError(path, f"{path.stat().st_size} bytes", f"{expected}, at most {MAX_BYTES} bytes")
    allowed = frozenset(_ARRAYS) | (frozenset(also) & (CHUMPY | SPARSE | TORCH))
    try:
        data = path.read_bytes()
        if data.startswith(_NPY_MAGIC):
            start = (
                10 + int.from_bytes(data[8:10], "little") if data[6] == 1 else 12 + int.from_bytes(data[8:12], "little")
            )
            data = data[start:]
        return _Resolver()(_Unpickler(data, allowed).load())
    except _Refused as refused:
        raise FileFormatError(path, f"the name {refused}, which was not looked up or called", expected) from None
    except _Damaged as damaged:
        raise FileFormatError(path, f"{damaged}", expected) from damaged
    # Arbitrary bytes make the unpickler fail in many ways; all mean that this is not such a file.
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, MemoryError, OverflowError,
            RecursionError, TypeError, ValueError, ImportError) as error:  # fmt: skip
        raise FileFormatError(path, f"no readable pickle ({type(error).__name__}: {error})", expected) from error
