"""Pictures written once and read many times: tar files of plain arrays, in the layout of the webdataset library.

A dataset is a folder with ``shard-000000.tar``, ``shard-000001.tar``, ... and a manifest, ``manifest.json``, that says
how the pictures were made and gives, for every file, its number of pictures, its size and its SHA-256. In a shard each
picture is two files: ``00000012.image.npy``, uncompressed ``(3, 120, 120)`` uint8 (PNG would save a third and read five
times slower), and ``00000012.labels.npy``, one numpy record with the other fields of a
:class:`~twodasl_lite.geometry.face_batch.FaceBatch`.

The same recipe gives the same bytes, however many processes or machines of a kind share the work (another kind of
processor may round a few grey values the other way). A shard is written completely or not at all, and counts as made
once the manifest lists it; after any interruption, the next run continues after the last complete shard. Several
machines can each make a part (``part``), with its own manifest; copied into one folder, the parts form the dataset.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import FileFormatError, ShapeError, TwodaslError, ValueRangeError, require
from twodasl_lite.datasets.pool import run_tasks
from twodasl_lite.datasets.stream import check_count
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.face_batch import FaceBatch

FORMAT, VERSION = "twodasl_lite.shards", 1
SHARD_SIZE = 1000
"""Default number of pictures per file (44 MB)."""

MANIFEST = "manifest.json"
_PART_MANIFEST = "manifest-{}-of-{}.json"
_SHARD = "shard-{:06d}.tar"
_IMAGE, _LABELS = "image.npy", "labels.npy"
_MANIFEST_PAUSE = 2.0  # seconds between two updates of the manifest; what a kill loses is made again
_CHUNK = 100  # pictures drawn at once
_OPEN_SHARDS = 16
_BLOCK = 512  # bytes of a tar header, and what contents are padded to

_LABEL_TYPES = {  # types of the stored labels, in the order of the fields of a FaceBatch
    "detected": "<f4",
    "detected_visible": "?",
    "landmarks": "<f4",
    "visible": "?",
    "coefficients": "<f4",
    "yaw": "<f4",
}

Progress = Callable[[int, int], None]
Report = Callable[[str], None]


class ShardSource(Protocol):
    """Something that draws numbered pictures; sent to worker processes, so it must be picklable."""

    def describe(self) -> dict[str, object]:
        """Everything that the pictures depend on, as JSON."""
        ...

    def batch(self, start: int, count: int) -> FaceBatch:
        """Pictures ``start`` to ``start + count - 1``."""
        ...


# ---------------------------------------------------------------------------------------------------- the manifest
@dataclass(frozen=True)
class ShardRecord:
    """One file of a set.

    Attributes:
        name: File name in the folder.
        first: Number of its first picture.
        count: Number of pictures in it.
        bytes: Size in bytes.
        sha256: SHA-256 checksum.
    """

    name: str
    first: int
    count: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Recipe:
    """How a dataset is made; two datasets with the same recipe are identical.

    Attributes:
        source: Description of the source of the pictures.
        count: Pictures in the set.
        shard_size: Pictures per file; the last may have fewer.
    """

    source: Mapping[str, object]
    count: int
    shard_size: int = SHARD_SIZE

    def __post_init__(self) -> None:
        check_count("count", self.count, 1)
        check_count("shard_size", self.shard_size, 1)

    @property
    def num_shards(self) -> int:
        """Number of files in the dataset."""
        return -(-self.count // self.shard_size)

    def plan(self, number: int) -> tuple[str, int, int]:
        """Name, first picture and count of one file."""
        first = number * self.shard_size
        return _SHARD.format(number), first, min(self.shard_size, self.count - first)


class Manifest(NamedTuple):
    """Contents of a folder: the recipe, and the complete shards in order."""

    recipe: Recipe
    shards: list[ShardRecord]


def check_part(part: tuple[int, int]) -> tuple[int, int]:
    """Check that a part is i of n, with i from 1 to n."""
    number, parts = part
    check_count("part", parts, 1)
    if not 1 <= number <= parts:
        raise ValueRangeError(f"part: found {number} of {parts}; expected 1 to {parts}")
    return number, parts


def manifest_path(folder: Path, part: tuple[int, int] = (1, 1)) -> Path:
    """Path of the manifest of a part."""
    return folder / (MANIFEST if part == (1, 1) else _PART_MANIFEST.format(*part))


def _read_one(path: Path) -> Manifest:
    expected = f"a {FORMAT} manifest, version {VERSION}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["version"]) != (FORMAT, VERSION):
            raise FileFormatError(path, f"{content['format']}, version {content['version']}", expected)
        shards = [ShardRecord(**entry) for entry in content["shards"]]
        recipe = Recipe(**content["recipe"])
        by_name = {name: (first, count) for name, first, count in map(recipe.plan, range(recipe.num_shards))}
        for shard in shards:
            if by_name.get(shard.name) != (shard.first, shard.count):
                raise FileFormatError(path, f"{shard.name}, {shard.count} pictures from {shard.first}", expected)
    except FileFormatError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, f"an unreadable manifest ({type(error).__name__}: {error})", expected) from error
    return Manifest(recipe, shards)


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The manifest of a folder of shards, all parts combined.

    Raises:
        FileFormatError: If there is no manifest, or it is damaged, or parts belong to different sets.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("manifest*.json"))
    if not paths:
        found = "no manifest.json" if folder.is_dir() else "no such folder"
        raise FileFormatError(folder, found, "a folder of shards, as twodasl synth writes it")
    parts = [_read_one(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        if part.recipe != parts[0].recipe:
            change = recipe_difference(part.recipe, parts[0].recipe)
            raise FileFormatError(path, f"a part of another set ({change})", f"the recipe of {paths[0].name}")
    shards = {shard.name: shard for part in parts for shard in part.shards}
    return Manifest(parts[0].recipe, [shards[name] for name in sorted(shards)])


def _write_manifest(path: Path, recipe: Recipe, part: tuple[int, int], shards: Mapping[str, ShardRecord]) -> None:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "recipe": asdict(recipe),
        "part": list(part),
        "shards": [asdict(shards[name]) for name in sorted(shards)],
    }
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def recipe_difference(found: Recipe, wanted: Recipe) -> str:
    """How two recipes differ, in words: ``seed: 0, not 1``; empty if they do not."""

    def flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                yield from flat(f"{prefix}.{name}" if prefix else str(name), inner)
        else:
            yield prefix, value

    ours, theirs = (
        dict(flat("", {**recipe.source, "count": recipe.count, "shard_size": recipe.shard_size}))
        for recipe in (found, wanted)
    )
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    return ", ".join(f"{name}: {ours.get(name)}, not {theirs.get(name)}" for name in names)


def fingerprint(model: MorphableModel) -> str:
    """SHA-256 of everything in a face model that pictures depend on."""
    digest = hashlib.sha256()
    for name in sorted(dict(model.named_buffers())):
        array = np.ascontiguousarray(dict(model.named_buffers())[name].detach().cpu().numpy())
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------- writing
class _Hashed:
    """A writable file that keeps track of its size and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        self.size += len(data)
        return self.file.write(data)


def _npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _labels(batch: FaceBatch) -> np.ndarray:
    """All fields but the pictures as ``(B,)`` numpy records."""
    parts = {name: getattr(batch, name) for name in _LABEL_TYPES}
    arrays = {name: part.detach().cpu().numpy() for name, part in parts.items() if part is not None}
    records = np.zeros(batch.size, [(name, _LABEL_TYPES[name], array.shape[1:]) for name, array in arrays.items()])
    for name, array in arrays.items():
        records[name] = array
    return records


def write_shard(path: Path, source: ShardSource, first: int, count: int) -> ShardRecord:
    """Draw pictures and write them to one file, whole or not at all.

    Args:
        path: Path of the file.
        source: Source of the pictures.
        first: Number of the first picture.
        count: Number of pictures.

    Raises:
        TwodaslError: If the file cannot be written, for instance because the disk is full.
        MissingDependencyError: If webdataset is not installed.
    """
    writer = require("webdataset", "train", "writing shards").TarWriter
    try:
        with whole_file(path) as file:
            hashed = _Hashed(file)
            # No times and no user names: the same pictures give the same bytes.
            with writer(hashed, user="", group="", mtime=0, compress=False, encoder=False) as tar:
                for start in range(first, first + count, _CHUNK):
                    batch = source.batch(start, min(_CHUNK, first + count - start))
                    images, records = batch.images.cpu().numpy(), _labels(batch)
                    for k in range(batch.size):
                        tar.write({
                            "__key__": f"{start + k:08d}",
                            _IMAGE: _npy(images[k]),
                            _LABELS: _npy(np.asarray(records[k])),
                        })  # fmt: skip
    except OSError as error:
        reason = error.strerror or str(error)
        raise TwodaslError(
            f"{path}: could not be written: {reason}. No partial file is left; "
            "once there is room, the same command continues after the last complete shard"
        ) from error
    return ShardRecord(path.name, first, count, hashed.size, hashed.digest.hexdigest())


def _bytes(count: float) -> str:
    """A number of bytes to three digits, in a unit in which it is below 1000."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        del units[0]
    return f"{count:.3g} {units[0]}"


def _check_room(folder: Path, source: ShardSource, pictures: int) -> None:
    """Refuse to start if the pictures do not fit on the disk."""
    sample = source.batch(0, 1)
    each = 4 * _BLOCK + sample.images[0].numel() + _labels(sample).nbytes  # headers, padding, contents
    free = shutil.disk_usage(folder).free
    if each * pictures > free:
        raise TwodaslError(
            f"{folder}: found {_bytes(free)} free; expected {_bytes(each * pictures)} for {pictures} pictures"
        )


def make_shards(
    folder: str | os.PathLike[str],
    source: ShardSource,
    count: int,
    *,
    shard_size: int = SHARD_SIZE,
    part: tuple[int, int] = (1, 1),
    workers: int = 1,
    check: bool = False,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Manifest:
    """Write a dataset, or finish one that was started.

    Args:
        folder: Folder to write to; created if missing.
        source: Source of the pictures.
        count: Number of pictures in the whole dataset.
        shard_size: Pictures per file.
        part: ``(i, n)``: make only every n-th file, starting with the i-th, as one of n machines.
        workers: Number of processes; several use one thread each.
        check: Whether to read all existing files and compare their checksums; otherwise only their sizes are compared.
        progress: Called with the number of pictures made and the total.
        report: Called with a line of text for each file that is damaged and made again.

    Returns:
        The manifest of the part that this call had to make.

    Raises:
        TwodaslError: If a file cannot be written, or there is no room for the set.
        FileFormatError: If the folder holds another set.
    """
    folder, part = Path(folder), check_part(part)
    check_count("workers", workers, 1)
    recipe = Recipe(json.loads(json.dumps(source.describe())), count, shard_size)
    folder.mkdir(parents=True, exist_ok=True)
    path = manifest_path(folder, part)
    if any(folder.glob("manifest*.json")):
        present = read_manifest(folder).recipe
        if present != recipe:
            change = recipe_difference(present, recipe)
            raise FileFormatError(folder, f"a set with another recipe ({change})", "the same set, or an empty folder")
    number, parts = part
    plans = [recipe.plan(k) for k in range(number - 1, recipe.num_shards, parts)]
    listed = {shard.name: shard for shard in (_read_one(path).shards if path.is_file() else [])}
    shards = {}
    for name, *_ in plans:
        if name in listed:
            problem = shard_problem(folder, listed[name], check=check)
            if problem is None:
                shards[name] = listed[name]
            elif report is not None:
                report(f"{folder / name}: found {problem}; made again")
    missing = [plan for plan in plans if plan[0] not in shards]
    for name in [path.name, *(name for name, *_ in missing)]:  # what a killed run left
        for left in folder.glob(f".{name}.*.part"):
            left.unlink(missing_ok=True)
    total, done = sum(plan[2] for plan in plans), sum(shard.count for shard in shards.values())
    if progress is not None:
        progress(done, total)
    _write_manifest(path, recipe, part, shards)
    if missing:
        _check_room(folder, source, total - done)
    tasks = [(folder / name, first, many) for name, first, many in missing]
    written = time.monotonic()
    try:
        for record in run_tasks(write_shard_task, source, tasks, workers):
            shards[record.name] = record
            done += record.count
            if progress is not None:
                progress(done, total)
            if time.monotonic() - written > _MANIFEST_PAUSE:
                _write_manifest(path, recipe, part, shards)
                written = time.monotonic()
    except BaseException:
        with contextlib.suppress(OSError):  # a full disk; the first error matters more
            _write_manifest(path, recipe, part, shards)
        raise
    if missing:
        _write_manifest(path, recipe, part, shards)
    return Manifest(recipe, [shards[name] for name in sorted(shards)])


def write_shard_task(source: ShardSource, task: tuple[Path, int, int]) -> ShardRecord:
    """:func:`write_shard`, as worker processes call it."""
    path, first, count = task
    return write_shard(path, source, first, count)


def shard_problem(folder: Path, shard: ShardRecord, *, check: bool = True) -> str | None:
    """What is wrong with a file, or ``None``.

    Args:
        folder: Folder of the file.
        shard: Its entry in the manifest.
        check: Whether to read all of it and compare the checksum; otherwise only its size is compared.
    """
    path = folder / shard.name
    if not path.is_file():
        return "no such file"
    size = path.stat().st_size
    if size != shard.bytes:
        return f"{size} bytes, not {shard.bytes}"
    if check:
        with path.open("rb") as file:
            found = (
                hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)
            )
        if found != shard.sha256:
            return f"the checksum {found[:12]}…, not {shard.sha256[:12]}…"
    return None


def _sha256(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(2**20):
        digest.update(block)
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------- reading
class _Header(NamedTuple):
    """Contents of an .npy file's header, and the offset of its numbers."""

    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int


class _Shard:
    """An open file of a set with the position of each picture; memory-mapped, so untouched parts cost nothing.

    Args:
        path: The file.
        shard: Its entry in the manifest.
        verify: Whether to compare the checksum first.
    """

    def __init__(self, path: Path, shard: ShardRecord, verify: bool) -> None:
        self.path = path
        problem = shard_problem(path.parent, shard, check=verify)
        if problem is not None:
            raise self._damaged(problem)
        with path.open("rb") as file:
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.places: dict[str, list[tuple[int, int]]] = {_IMAGE: [], _LABELS: []}
        self.headers: dict[bytes, _Header] = {}
        self._walk()
        if any(len(places) != shard.count for places in self.places.values()):
            raise self._damaged(f"{len(self.places[_IMAGE])} pictures, not {shard.count}")

    def _damaged(self, found: str) -> FileFormatError:
        return FileFormatError(self.path, found, "a whole shard (twodasl synth --check --out FOLDER makes it again)")

    def _walk(self) -> None:
        """Read the tar's headers: name, size and position of each file in it."""
        position, end = 0, len(self.data)
        while position + _BLOCK <= end:
            header = self.data[position : position + _BLOCK]
            if not header.strip(b"\0"):
                return
            name, _, kind = header[:100].rstrip(b"\0").decode("ascii", "replace").partition(".")
            try:
                size = int(header[124:136].rstrip(b"\0 "), 8)
            except ValueError:
                raise self._damaged(f"no tar header at byte {position}") from None
            start = position + _BLOCK
            if header[257:262] != b"ustar" or start + size > end:
                raise self._damaged(f"no tar header at byte {position}")
            if name and kind in self.places:
                self.places[kind].append((start, size))
            position = start + -(-size // _BLOCK) * _BLOCK

    def read(self, kind: str, number: int) -> np.ndarray:
        """One array, a view of the file."""
        start, size = self.places[kind][number]
        length = int.from_bytes(self.data[start + 8 : start + 10], "little")
        raw = self.data[start : start + 10 + length]
        if raw not in self.headers:  # the same few headers recur
            self.headers[raw] = self._header(raw)
        dtype, shape, offset = self.headers[raw]
        count = int(np.prod(shape))
        if offset + count * dtype.itemsize != size:
            raise self._damaged(f"an array of {size} bytes at byte {start}")
        return np.frombuffer(self.data, dtype, count, start + offset).reshape(shape)

    def _header(self, raw: bytes) -> _Header:
        stream = io.BytesIO(raw)
        try:
            np.lib.format.read_magic(stream)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        except ValueError as error:
            raise self._damaged(f"an unreadable array ({error})") from error
        if fortran or dtype.hasobject:
            raise self._damaged(f"an array of {dtype}")
        return _Header(dtype, shape, stream.tell())


class ShardSet:
    """A set of pictures in a folder of shards, with random access.

    Args:
        folder: Folder of the shards.
        partial: Whether to accept an unfinished set.
        verify: Whether to compare each file's checksum when it is first opened.

    Raises:
        FileFormatError: If the folder is not a set, or the set is incomplete.
    """

    def __init__(self, folder: str | os.PathLike[str], *, partial: bool = False, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.recipe, self.shards = read_manifest(self.folder)
        self.verify = verify
        missing = self.recipe.num_shards - len(self.shards)
        if missing and not (partial and self.shards):
            raise FileFormatError(
                self.folder,
                f"{len(self.shards)} of {self.recipe.num_shards} shards",
                "all (the command that started the set finishes it)",
            )
        self.counts = [shard.count for shard in self.shards]
        """Number of pictures in each file."""
        self._ends = torch.tensor(self.counts).cumsum(0)
        self._open: OrderedDict[int, _Shard] = OrderedDict()
        self._verified: set[int] = set()

    def __len__(self) -> int:
        return sum(self.counts)

    def _shard(self, number: int) -> _Shard:
        if number not in self._open:
            verify = self.verify and number not in self._verified
            record = self.shards[number]
            self._open[number] = _Shard(self.folder / record.name, record, verify)
            self._verified.add(number)
            while len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}  # memory maps cannot be sent to other processes

    def take(self, index: torch.Tensor | Sequence[int]) -> FaceBatch:
        """The pictures at ``(B,)`` indices, in that order.

        Raises:
            FileFormatError: If a file is damaged; the message names it.
            ValueRangeError: If an index is out of range.
        """
        index = torch.as_tensor(index)
        if not index.numel():
            raise ShapeError("index: found no index; expected at least one")
        if not (int(index.min()) >= 0 and int(index.max()) < len(self)):
            raise ValueRangeError(
                f"index: found {int(index.min())} to {int(index.max())}; expected 0 to {len(self) - 1}"
            )
        where = torch.searchsorted(self._ends, index, right=True)
        offset = index - (self._ends[where] - torch.tensor(self.counts)[where])
        images = np.empty((len(index), 3, CROP_SIZE, CROP_SIZE), np.uint8)
        records = None
        for row, (number, place) in enumerate(zip(where.tolist(), offset.tolist(), strict=True)):
            shard = self._shard(number)
            picture, labels = shard.read(_IMAGE, place), shard.read(_LABELS, place)
            if picture.shape != images.shape[1:] or picture.dtype != np.uint8 or labels.dtype.names is None:
                raise FileFormatError(shard.path, f"a picture of shape {picture.shape}", f"{images.shape[1:]} of bytes")
            records = np.empty(len(index), labels.dtype) if records is None else records
            images[row], records[row] = picture, labels
        fields = {name: torch.from_numpy(records[name].copy()) for name in records.dtype.names}
        return FaceBatch(torch.from_numpy(images), **fields)

    def batch(self, start: int, count: int, *, truth: bool | None = None) -> FaceBatch:
        """Pictures ``start`` to ``start + count - 1``, with the interface of a synthetic world.

        Args:
            start: Number of the first picture.
            count: Number of pictures.
            truth: False leaves out the ground truth.
        """
        batch = self.take(torch.arange(start, start + count))
        return batch.without_truth() if truth is False else batch
