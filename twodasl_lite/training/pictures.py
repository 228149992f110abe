"""The pictures of a run: drawn once, kept on disk, held in memory; or drawn beside the training step.

Drawing a face takes longer than looking at it, and an ablation looks at the same pictures in every run. A set of
synthetic pictures is therefore drawn once, by several processes, and kept in the cache folder (``TWODASL_CACHE``) under
a name that depends on everything that it is made by: world, seed, face model and the code that draws. Runs hold it in
memory, 43 kB a picture.

On a GPU drawing is cheap, and a run need not see a picture twice (``data.hold = "stream"``). Batch n then is drawn when
step n comes, from the run's seeds and n alone, so that such a run goes on from a checkpoint as exactly as any other.
Only the validation pictures are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch

from twodasl_lite.archive import whole_file
from twodasl_lite.coefficients import CoefficientLayout, Whitening
from twodasl_lite.data.faces import FaceBatch
from twodasl_lite.data.packed import cached_pack, read_packed
from twodasl_lite.data.pool import run_tasks
from twodasl_lite.data.random import Draws
from twodasl_lite.data.shards import ShardSet
from twodasl_lite.data.stream import FaceStream, MemoryStream, SyntheticStream
from twodasl_lite.data.synthetic import SyntheticFaces, whitening_of
from twodasl_lite.data.worlds import load_world
from twodasl_lite.errors import TwodaslError, require
from twodasl_lite.morphable import MorphableModel, load_face_model, read_face_model
from twodasl_lite.morphable.embedded import CACHE_VARIABLE, cache_folder
from twodasl_lite.training.config import SourceConfig, TrainConfig
from twodasl_lite.training.distributed import Processes

CHUNK = 100
"""Pictures in a file of the cache, and drawn by one process at a time."""
_PIECE = 50
"""Pictures drawn at once."""
_PICTURE_BYTES = 44_500
"""That a picture takes in the cache."""
_DRAWING = ("camera.py", "decode.py", "images.py", "landmarks.py", "data", "render")
"""What of the package a picture depends on, beside the face model."""

_STREAM_DRAWS = 0x53747265
"""Mixed into a run's seed for the mirroring of streamed pictures."""

Progress = Callable[[int, int], None]
Stop = Callable[[], bool]


class Interrupted(Exception):
    """The time was over, or the process was told to end, before all pictures were ready. What is drawn is kept."""


class RunData(NamedTuple):
    """What a run learns from.

    Attributes:
        labelled: Stream of pictures with coefficients.
        unlabelled: Stream of pictures with 2D landmarks alone; ``None`` if no loss wants it.
        validation: Pictures with truth.
        whitening: Of the coefficients.
    """

    labelled: FaceStream
    unlabelled: FaceStream | None
    validation: FaceBatch
    whitening: Whitening


def face_model_of(config: TrainConfig) -> MorphableModel:
    """The face model that a run learns, with 40 + 10 coefficients.

    Raises:
        FileFormatError: If the file that the configuration names is missing or no model.
    """
    path = config.data.face_model
    return (read_face_model(path).with_layout if path else load_face_model)(CoefficientLayout())


def prepare(
    config: TrainConfig,
    model: MorphableModel,
    processes: Processes,
    progress: Callable[[str], Progress] | None = None,
    stop: Stop | None = None,
) -> RunData:
    """Everything that a run learns from.

    Args:
        config: The run.
        model: The face model, of the layout that the network learns.
        processes: The processes of the run: the first one draws, the others wait and read.
        progress: Makes a progress function from a label.
        stop: Asked now and then; once it says yes, nothing more is drawn.

    Raises:
        Interrupted: If it was stopped.
        TwodaslError: If a set is not what it is used for.
    """
    data = config.data
    wanted: dict[str, tuple[SourceConfig, bool]] = {"labelled": (data.labelled, True)}
    if config.self_supervision.weights:
        wanted["unlabelled"] = (data.unlabelled, False)
    wanted["validation"] = (data.validation, True)
    drawn = {
        name
        for name, (source, _) in wanted.items()
        if data.hold == "stream" and source.kind == "synthetic" and name != "validation"
    }

    def read(name: str) -> FaceBatch:
        source, truth = wanted[name]
        shown = progress(f"{name} pictures") if progress else None
        try:
            return pictures(source, model, truth=truth, processes=data.processes, progress=shown, stop=stop)
        except Interrupted as interruption:
            raise Interrupted(f"{name} pictures: {interruption}") from None

    sets, interruption = {}, None
    if processes.first:
        try:
            sets = {name: read(name) for name in wanted if name not in drawn}
        except Interrupted as caught:
            interruption = caught
    if processes.any(interruption is not None):
        raise interruption or Interrupted("pictures")
    sets = sets or {name: read(name) for name in wanted if name not in drawn}
    if data.whitening.endswith(".npz"):
        whitening = Whitening.load(data.whitening)
    elif data.whitening or "labelled" in drawn:
        whitening = whitening_of(model, data.whitening or data.labelled.world)
    else:
        whitening = Whitening.from_samples(sets["labelled"].coefficients)
    hold = torch.device("cpu") if data.hold == "host" else processes.device
    share = {"rank": processes.rank, "world_size": processes.count}

    def stream(name: str) -> FaceStream:
        source, truth = wanted[name]
        if name not in drawn:
            return MemoryStream(sets[name].to(hold), seed=config.seed, flip=source.flip, **share)
        faces = SyntheticFaces(model, source.world, source.seed, processes.device)
        endless = SyntheticStream(faces, first=source.start, truth=truth, **share)
        return MirroredStream(endless, config.seed, **share) if source.flip else endless

    return RunData(
        stream("labelled"),
        stream("unlabelled") if "unlabelled" in wanted else None,
        sets["validation"].to(hold),
        whitening,
    )


class MirroredStream:
    """A stream of new pictures, half of them mirrored; which ones depends on the seed and their number alone.

    Args:
        stream: Batches without coefficients: those of a mirrored face depend on the model.
        seed: Of the choice.
        rank: Number of this process.
        world_size: How many processes there are.
    """

    def __init__(self, stream: FaceStream, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.stream, self.seed, self.rank, self.world_size = stream, seed, rank, world_size

    def batches(self, batch_size: int, start: int = 0) -> Iterator[FaceBatch]:
        """Batches from number ``start`` on."""
        for number, batch in enumerate(self.stream.batches(batch_size, start), start):
            if batch.coefficients is not None:
                raise TwodaslError("flip: found pictures with coefficients; expected those of a stream without truth")
            first = (number * self.world_size + self.rank) * batch_size
            index = torch.arange(first, first + batch_size, device=batch.images.device)
            chosen = Draws(self.seed << 32 | _STREAM_DRAWS, index).chance("mirrored", 0.5)  # (B,)
            yield FaceBatch(
                *(
                    plain if plain is None else torch.where(chosen.reshape(-1, *[1] * (plain.ndim - 1)), other, plain)
                    for plain, other in zip(batch, batch.flip(), strict=True)
                )
            )


def pictures(
    source: SourceConfig,
    model: MorphableModel | None = None,
    *,
    truth: bool = True,
    processes: int = 1,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> FaceBatch:
    """A set of pictures in memory, from the cache or newly drawn into it.

    Args:
        source: Which pictures.
        model: The face model; the book's with 40 + 10 coefficients by default.
        truth: Whether to keep what is known of them; without, the landmarks of a detector remain.
        processes: That draw.
        progress: Called with how many pictures are there and how many there will be.
        stop: Asked now and then; once it says yes, nothing more is drawn.

    Raises:
        Interrupted: If it was stopped; what is drawn stays in the cache.
        TwodaslError: If the truth is asked for and the source does not know it.
    """
    model = load_face_model(CoefficientLayout()) if model is None else model
    if source.kind == "aflw":
        if truth:
            raise TwodaslError(f"{source.path}: found photos without coefficients; expected labelled pictures")
        return _photos(source, progress, stop)
    drawn = source.kind == "synthetic"
    faces = _synthetic(source, model, processes, progress, stop) if drawn else _from_shards(source)
    if not truth:
        return faces.without_truth()
    if faces.coefficients is None:
        raise TwodaslError(f"{source.path}: found pictures without coefficients; expected labelled ones")
    return faces


def _from_shards(source: SourceConfig) -> FaceBatch:
    shards = ShardSet(source.path)
    count = min(source.count, len(shards))
    return FaceBatch.cat([shards.take(torch.arange(i, min(i + CHUNK, count))) for i in range(0, count, CHUNK)])


def _photos(source: SourceConfig, progress: Progress | None = None, stop: Stop | None = None) -> FaceBatch:
    """AFLW's faces that are not in the test set, with the points as marked, and their yaw for a detector's noise."""

    def shown(done: int, total: int) -> None:
        if stop is not None and stop():
            raise Interrupted(f"{done} of {total} read")
        if progress is not None:
            progress(done, total)

    faces = read_packed(source.path) if Path(source.path).is_file() else cached_pack(source.path, shown)
    return faces.take(torch.arange(source.start, min(source.start + source.count, len(faces))), shown)


def _synthetic(
    source: SourceConfig,
    model: MorphableModel,
    processes: int,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> FaceBatch:
    safetensors = require("safetensors.torch", "train", "keeping pictures")
    folder = (
        cache_folder() / "pictures" / f"{load_world(source.world).name}-{source.seed}-{_fingerprint(source, model)}"
    )
    first, last = source.start // CHUNK, (source.start + source.count - 1) // CHUNK
    chunks = list(range(first, last + 1))
    missing = [chunk for chunk in chunks if not _chunk_file(folder, chunk).is_file()]
    done = len(chunks) - len(missing)

    def report() -> None:
        if progress is not None:
            progress(min(done * CHUNK, source.count), source.count)

    report()
    tasks = [(replace(source, start=chunk * CHUNK, count=CHUNK), _chunk_file(folder, chunk)) for chunk in missing]
    try:
        for _ in run_tasks(_draw_chunk, model, tasks, processes, stop=stop):
            done += 1
            report()
    except OSError as error:
        raise TwodaslError(
            f"{folder}: the pictures could not be kept ({error}); expected room for {len(chunks) - done} files of "
            f"{CHUNK * _PICTURE_BYTES / 1e6:.1f} MB. What is drawn stays; make room, or name another place in "
            f"{CACHE_VARIABLE}"
        ) from error
    if done < len(chunks):
        raise Interrupted(f"{min(done * CHUNK, source.count)} of {source.count}")
    parts = [FaceBatch(**safetensors.load_file(_chunk_file(folder, chunk))) for chunk in chunks]
    offset = source.start - first * CHUNK
    return FaceBatch.cat(parts).take(slice(offset, offset + source.count))


def _chunk_file(folder: Path, chunk: int) -> Path:
    return folder / f"{chunk * CHUNK:07d}.safetensors"


def _draw_chunk(model: MorphableModel, task: tuple[SourceConfig, Path]) -> None:
    """Draw a chunk, always with its truth: who may not know it does not read it."""
    source, path = task
    safetensors = require("safetensors.torch", "train", "keeping pictures")
    faces = _faces(model, source.world, source.seed)
    parts = [
        faces.batch(source.start + done, min(_PIECE, source.count - done), truth=True)
        for done in range(0, source.count, _PIECE)
    ]
    batch = FaceBatch.cat(parts)
    known = {name: part.contiguous() for name, part in batch._asdict().items() if part is not None}
    with whole_file(path) as file:
        file.write(safetensors.save(known))


@lru_cache(maxsize=2)
def _faces(model: MorphableModel, world: str, seed: int) -> SyntheticFaces:
    """A world, kept from chunk to chunk with the textures that it has made."""
    return SyntheticFaces(model, world, seed)


def _fingerprint(source: SourceConfig, model: MorphableModel) -> str:
    """A hash of what a synthetic picture depends on, beside world name, seed and number."""
    digest = hashlib.sha256(repr(load_world(source.world)).encode())
    package = Path(str(resources.files("twodasl_lite")))
    for entry in _DRAWING:
        place = package / entry
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.suffix in (".py", ".toml"):
                digest.update(path.read_bytes())
    for _, buffer in sorted(model.named_buffers()):
        digest.update(buffer.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
