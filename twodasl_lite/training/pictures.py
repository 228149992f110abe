"""The pictures of a run: drawn once, kept on disk, held in memory.

Drawing a face takes longer than looking at it, and an ablation looks at the same pictures in every run. A set of
synthetic pictures is therefore drawn once, by several processes, and kept in the cache folder (``TWODASL_CACHE``) under
a name that depends on everything that it is made by: world, seed, face model and the code that draws. Runs hold it in
memory, 43 kB a picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch

from twodasl_lite.archive import whole_file
from twodasl_lite.coefficients import CoefficientLayout, Whitening
from twodasl_lite.data.aflw import read_aflw, training_set
from twodasl_lite.data.aflw2000 import read_aflw2000
from twodasl_lite.data.faces import FaceBatch
from twodasl_lite.data.pool import run_tasks
from twodasl_lite.data.shards import ShardSet
from twodasl_lite.data.stream import FaceStream, MemoryStream
from twodasl_lite.data.synthetic import SyntheticFaces, whitening_of
from twodasl_lite.data.worlds import load_world
from twodasl_lite.errors import TwodaslError, require
from twodasl_lite.morphable import MorphableModel, load_face_model, read_face_model
from twodasl_lite.morphable.embedded import cache_folder
from twodasl_lite.training.config import SourceConfig, TrainConfig
from twodasl_lite.training.distributed import Processes

CHUNK = 100
"""Pictures in a file of the cache, and drawn by one process at a time."""
_PIECE = 50
"""Pictures drawn at once."""
_DRAWING = ("camera.py", "decode.py", "images.py", "landmarks.py", "data", "render")
"""What of the package a picture depends on, beside the face model."""

Progress = Callable[[int, int], None]


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
    config: TrainConfig, model: MorphableModel, processes: Processes, progress: Callable[[str], Progress] | None = None
) -> RunData:
    """Everything that a run learns from.

    Args:
        config: The run.
        model: The face model, of the layout that the network learns.
        processes: The processes of the run: the first one draws, the others wait and read.
        progress: Makes a progress function from a label.

    Raises:
        TwodaslError: If a set is not what it is used for.
    """
    data = config.data
    wanted: dict[str, tuple[SourceConfig, bool]] = {"labelled": (data.labelled, True)}
    if config.self_supervision.weights:
        wanted["unlabelled"] = (data.unlabelled, False)
    wanted["validation"] = (data.validation, True)

    def read(name: str) -> FaceBatch:
        source, truth = wanted[name]
        shown = progress(f"{name} pictures") if progress else None
        return pictures(source, model, truth=truth, processes=data.processes, progress=shown)

    sets = {name: read(name) for name in wanted} if processes.first else {}
    processes.wait()
    sets = sets or {name: read(name) for name in wanted}
    if not data.whitening:
        whitening = Whitening.from_samples(sets["labelled"].coefficients)
    elif data.whitening.endswith(".npz"):
        whitening = Whitening.load(data.whitening)
    else:
        whitening = whitening_of(model, data.whitening)
    hold = processes.device if data.hold == "device" else torch.device("cpu")

    def stream(name: str) -> MemoryStream:
        source, _ = wanted[name]
        return MemoryStream(
            sets[name].to(hold), seed=config.seed, rank=processes.rank, world_size=processes.count, flip=source.flip
        )

    return RunData(
        stream("labelled"),
        stream("unlabelled") if "unlabelled" in wanted else None,
        sets["validation"].to(hold),
        whitening,
    )


def pictures(
    source: SourceConfig,
    model: MorphableModel | None = None,
    *,
    truth: bool = True,
    processes: int = 1,
    progress: Progress | None = None,
) -> FaceBatch:
    """A set of pictures in memory, from the cache or newly drawn into it.

    Args:
        source: Which pictures.
        model: The face model; the book's with 40 + 10 coefficients by default.
        truth: Whether to keep what is known of them; without, the landmarks of a detector remain.
        processes: That draw.
        progress: Called with how many pictures are there and how many there will be.

    Raises:
        TwodaslError: If the truth is asked for and the source does not know it.
    """
    model = load_face_model(CoefficientLayout()) if model is None else model
    if source.kind == "aflw":
        if truth:
            raise TwodaslError(f"{source.path}: found photos without coefficients; expected labelled pictures")
        return _photos(source, progress)
    faces = _synthetic(source, model, processes, progress) if source.kind == "synthetic" else _from_shards(source)
    if not truth:
        return faces.without_truth()
    if faces.coefficients is None:
        raise TwodaslError(f"{source.path}: found pictures without coefficients; expected labelled ones")
    return faces


def _from_shards(source: SourceConfig) -> FaceBatch:
    shards = ShardSet(source.path)
    count = min(source.count, len(shards))
    return FaceBatch.cat([shards.take(torch.arange(i, min(i + CHUNK, count))) for i in range(0, count, CHUNK)])


def _photos(source: SourceConfig, progress: Progress | None) -> FaceBatch:
    """AFLW's faces that are not in the test set, with the points as marked, and their yaw for a detector's noise."""
    test = read_aflw2000(source.path)
    faces = training_set(read_aflw(source.path), test.names, test.crop, progress=progress).faces
    faces = faces.select(range(source.start, min(source.start + source.count, len(faces))))
    index = torch.arange(len(faces))
    batch = FaceBatch.cat([faces.take(part) for part in index.split(CHUNK)])
    return batch._replace(yaw=faces.yaw.float())


def _synthetic(source: SourceConfig, model: MorphableModel, processes: int, progress: Progress | None) -> FaceBatch:
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
    for _ in run_tasks(_draw_chunk, model, tasks, processes):
        done += 1
        report()
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
