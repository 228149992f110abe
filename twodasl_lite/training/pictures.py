"""The pictures of a run: rendered once, cached on disk and held in memory; or rendered in parallel to training.

Rendering a face takes longer than training on it, and an ablation uses the same pictures in every run. A synthetic
dataset is therefore rendered once, by several processes, and cached in a folder (``TWODASL_CACHE``) whose name encodes
world, seed, face model and the rendering code. Runs hold it in memory, 43 kB per picture.

On a GPU rendering is cheap, and a run need not see a picture twice (``data.hold = "stream"``). Batch n is then rendered
for step n, from only the run's seeds and n, so that such a run resumes from a checkpoint as exactly as any other. Only
the validation pictures are cached.
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

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.cache import CACHE_VARIABLE, cache_folder
from twodasl_lite.base.errors import TwodaslError, require
from twodasl_lite.datasets.packed import cached_pack, read_packed
from twodasl_lite.datasets.pool import run_tasks
from twodasl_lite.datasets.shards import ShardSet
from twodasl_lite.datasets.stream import FaceStream, MemoryStream, SyntheticStream
from twodasl_lite.faces import MorphableModel, load_face_model, read_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.training.config import SourceConfig, TrainConfig
from twodasl_lite.training.distributed import Processes
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.synthetic import SyntheticFaces, whitening_of
from twodasl_lite.worlds.world import load_world

CHUNK = 100
"""Pictures per cache file, and per task of a process."""
_PIECE = 50
"""Pictures rendered at once."""
_PICTURE_BYTES = 44_500
"""Bytes of a picture in the cache."""
_DRAWING = (
    *("geometry/camera.py", "geometry/face_batch.py", "geometry/landmarks.py", "geometry/photos.py"),
    *("faces/decode.py", "render", "worlds"),
)
"""Files and folders of the package that a picture depends on, besides the face model."""

_STREAM_DRAWS = 0x53747265
"""Number combined with a run's seed to choose the streamed pictures that are mirrored."""

Progress = Callable[[int, int], None]
Stop = Callable[[], bool]


class Interrupted(Exception):
    """Preparation stopped at the time limit or on SIGTERM before all pictures were ready. Finished ones are kept."""


class RunData(NamedTuple):
    """Data that a run learns from.

    Attributes:
        labelled: Stream of pictures with coefficients.
        unlabelled: Stream of pictures with only 2D landmarks; ``None`` if no loss needs it.
        validation: Pictures with ground truth.
        whitening: Whitening of the coefficients.
    """

    labelled: FaceStream
    unlabelled: FaceStream | None
    validation: FaceBatch
    whitening: Whitening


def face_model_of(config: TrainConfig) -> MorphableModel:
    """The face model of a run, with 40 + 10 coefficients.

    Raises:
        FileFormatError: If the configured file is missing or not a face model.
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
    """Prepare all data of a run.

    Args:
        config: Configuration of the run.
        model: The face model, with the layout that the network learns.
        processes: The processes of the run: the first one renders, the others wait and read.
        progress: Function from a label to a progress function.
        stop: Called regularly; once it returns true, no more pictures are rendered.

    Raises:
        Interrupted: If preparation was stopped.
        TwodaslError: If a dataset does not fit its purpose.
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
    """A stream of new pictures, half of them mirrored; which ones depends only on the seed and their index.

    Args:
        stream: Stream of batches without coefficients: those of a mirrored face depend on the model.
        seed: Seed of the choice.
        rank: Number of this process.
        world_size: Number of processes.
    """

    def __init__(self, stream: FaceStream, seed: int, *, rank: int = 0, world_size: int = 1) -> None:
        self.stream, self.seed, self.rank, self.world_size = stream, seed, rank, world_size

    def batches(self, batch_size: int, start: int = 0) -> Iterator[FaceBatch]:
        """Yield batches from number ``start`` on."""
        for number, batch in enumerate(self.stream.batches(batch_size, start), start):
            if batch.coefficients is not None:
                raise TwodaslError("flip: found pictures with coefficients; expected a stream without ground truth")
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
    """Load a dataset into memory, from the cache, after rendering what is missing there.

    Args:
        source: Source of the pictures.
        model: The face model; by default the book's with 40 + 10 coefficients.
        truth: Whether to keep the ground truth; otherwise only a detector's landmarks remain.
        processes: Number of processes that render.
        progress: Called with the number of pictures that are ready and their total.
        stop: Called regularly; once it returns true, no more pictures are rendered.

    Raises:
        Interrupted: If it was stopped; finished pictures stay in the cache.
        TwodaslError: If ``truth`` is set and the source has no ground truth.
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
    """AFLW's faces outside the test set, with the annotated points, and their yaw for the simulated detector."""

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
            f"{folder}: the pictures could not be saved ({error}); expected room for {len(chunks) - done} files of "
            f"{CHUNK * _PICTURE_BYTES / 1e6:.1f} MB. Finished files stay; free disk space, or set another folder in "
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
    """Render a chunk, always with its ground truth, which readers drop if they must not use it."""
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
    """A world, kept between chunks together with its textures."""
    return SyntheticFaces(model, world, seed)


def _fingerprint(source: SourceConfig, model: MorphableModel) -> str:
    """A hash of everything that a synthetic picture depends on, besides world name, seed and index."""
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
