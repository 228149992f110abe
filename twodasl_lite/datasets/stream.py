"""Endless mini-batches of pictures, the same on every run: the data source of a trainer.

A stream is one endless sequence of pictures, fixed by a seed. Batch number n of process ``rank`` of ``world_size`` is
piece ``n * world_size + rank`` of that sequence, so processes never share a picture within an epoch, their union does
not depend on their number, and training resumes exactly where it was interrupted: only ``start`` has to be stored.

* :class:`SyntheticStream`: pictures drawn on the fly, none of them twice.
* :class:`SetStream`: a finite set (:class:`FaceSet`: shards, 300W-LP, ...), in a new order each epoch.
* :class:`MemoryStream`: a finite set that is held in memory.

:func:`prefetch` prepares batches in the background, :func:`drawn_beside` draws them in the background, also on a GPU.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from twodasl_lite.base.checks import check_count
from twodasl_lite.base.errors import ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.geometry.face_batch import FaceBatch

_ORDER, _FLIP = 0, 1  # purposes of random numbers: each has its own sequence
_CHUNK = 256  # pictures drawn at once when a set is loaded into memory


class FaceStream(Protocol):
    """Anything that yields batches without end."""

    def batches(self, batch_size: int, start: int = 0) -> Iterator[FaceBatch]:
        """Batches from number ``start`` on, the number of batches that this process has already taken."""
        ...


class FaceSet(Protocol):
    """A finite set of pictures with random access."""

    def __len__(self) -> int: ...

    def take(self, index: torch.Tensor) -> FaceBatch:
        """The pictures at ``(B,)`` indices, in that order."""
        ...


class FaceSource(Protocol):
    """An endless supply of numbered pictures, such as :class:`~twodasl_lite.worlds.synthetic.SyntheticFaces`."""

    def batch(self, start: int, count: int, *, truth: bool | None = None) -> FaceBatch:
        """Pictures ``start`` to ``start + count - 1``."""
        ...


# ------------------------------------------------------------------------------------------------------ the sequence
@dataclass(frozen=True)
class Share:
    """Which part of a sequence one process takes.

    Attributes:
        rank: Number of the process, from 0.
        world_size: Number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        check_count("world_size", self.world_size, 1)
        check_count("rank", self.rank, 0)
        if self.rank >= self.world_size:
            raise ValueRangeError(f"rank: found {self.rank}; expected 0 to {self.world_size - 1}, below world_size")

    def pieces(self, batch_size: int, start: int) -> Iterator[int]:
        """Numbers of the first picture of each batch, without end."""
        check_count("batch_size", batch_size, 1)
        check_count("start", start, 0)
        number = start
        while True:
            yield (number * self.world_size + self.rank) * batch_size
            number += 1


def seeded(*numbers: int) -> torch.Generator:
    """A random number generator seeded by several whole numbers, each 0 or more."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) % 2**63)


class Order:
    """The endless sequence over a finite set: one shuffled epoch after another.

    Args:
        counts: ``[N]``, or the sizes of the blocks that the set is stored in. Blocks are shuffled, then every ``mix``
            blocks are shuffled together, so that few files are open at a time.
        seed: Seed of the shuffling, 0 or more.
        mix: Number of blocks that are shuffled together.
        shuffle: Whether to shuffle at all.
    """

    def __init__(self, counts: Sequence[int], seed: int = 0, *, mix: int = 4, shuffle: bool = True) -> None:
        self.counts = [check_count("counts", count, 0) for count in counts]
        self.num = sum(self.counts)
        if self.num == 0:
            raise ShapeError("counts: found no picture; expected a set of at least one")
        self.seed = check_count("seed", seed, 0)
        self.mix = check_count("mix", mix, 1)
        self.shuffle = shuffle
        self._epochs: dict[int, torch.Tensor] = {}

    def epoch(self, number: int) -> torch.Tensor:
        """The set's indices in the order of one epoch, ``(N,)``."""
        if number not in self._epochs:
            self._epochs = {k: order for k, order in self._epochs.items() if k == number - 1}
            self._epochs[number] = self._drawn(number)
        return self._epochs[number]

    def _drawn(self, number: int) -> torch.Tensor:
        if not self.shuffle:
            return torch.arange(self.num)
        generator = seeded(self.seed, _ORDER, number)
        if len(self.counts) == 1:
            return torch.randperm(self.num, generator=generator)
        blocks = torch.arange(self.num).split(self.counts)
        order = torch.randperm(len(blocks), generator=generator).tolist()
        groups = [torch.cat([blocks[k] for k in order[i : i + self.mix]]) for i in range(0, len(order), self.mix)]
        return torch.cat([group[torch.randperm(len(group), generator=generator)] for group in groups])

    def at(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A piece of the sequence.

        Args:
            first: Position of its first picture in the sequence.
            count: Number of pictures.

        Returns:
            Epoch and index of each, both ``(count,)``.
        """
        epochs, indices = [], []
        while count > 0:
            number, offset = divmod(first, self.num)
            part = self.epoch(number)[offset : offset + count]
            epochs.append(torch.full_like(part, number))
            indices.append(part)
            first, count = first + len(part), count - len(part)
        return torch.cat(epochs), torch.cat(indices)


# ----------------------------------------------------------------------------------------------------------- streams
class SyntheticStream:
    """Pictures drawn on demand, on the source's device; no picture comes twice.

    Args:
        faces: A synthetic world.
        first: Number of the first picture.
        rank: Number of this process.
        world_size: Number of processes.
        truth: Whether to include the ground truth; by default as the world says.
    """

    def __init__(
        self, faces: FaceSource, *, first: int = 0, rank: int = 0, world_size: int = 1, truth: bool | None = None
    ) -> None:
        self.faces = faces
        self.first = check_count("first", first, 0)
        self.share = Share(rank, world_size)
        self.truth = truth

    def batches(self, batch_size: int, start: int = 0) -> Iterator[FaceBatch]:
        """Batches from number ``start`` on.

        Args:
            batch_size: Pictures per batch.
            start: Number of batches that this process has already taken.
        """
        for piece in self.share.pieces(batch_size, start):
            yield self.faces.batch(self.first + piece, batch_size, truth=self.truth)


class SetStream:
    """A finite set, reshuffled each epoch. A batch may hold the end of one epoch and the start of the next.

    Args:
        faces: The set.
        seed: Seed of the order and of the mirroring.
        rank: Number of this process.
        world_size: Number of processes.
        shuffle: Whether to shuffle.
        flip: Whether half of the pictures are mirrored, a different half in each epoch. Only for sets without
            coefficients, because the coefficients of the mirrored face depend on the model.
        mix: Number of the set's files that are shuffled together, see :class:`Order`.
    """

    def __init__(
        self,
        faces: FaceSet,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle: bool = True,
        flip: bool = False,
        mix: int = 4,
    ) -> None:
        self.faces = faces
        self.order = Order(getattr(faces, "counts", [len(faces)]), seed, mix=mix, shuffle=shuffle)
        self.share = Share(rank, world_size)
        self.flip = flip

    def batches(self, batch_size: int, start: int = 0) -> Iterator[FaceBatch]:
        """Batches from number ``start`` on.

        Args:
            batch_size: Pictures per batch.
            start: Number of batches that this process has already taken.

        Raises:
            TwodaslError: If ``flip`` is set for pictures with coefficients.
        """
        for piece in self.share.pieces(batch_size, start):
            epoch, index = self.order.at(piece, batch_size)
            batch = self.faces.take(index)
            yield self._mirrored(batch, epoch, index) if self.flip else batch

    def _mirrored(self, batch: FaceBatch, epoch: torch.Tensor, index: torch.Tensor) -> FaceBatch:
        if batch.coefficients is not None:
            raise TwodaslError(
                "flip: found pictures with coefficients, which a mirrored face does not share; "
                "expected flip=False, or pictures without_truth()"
            )
        chosen = torch.zeros(len(index), dtype=torch.bool)
        for number in epoch.unique().tolist():
            coin = torch.rand(self.order.num, generator=seeded(self.order.seed, _FLIP, number)) < 0.5
            chosen = torch.where(epoch == number, coin[index], chosen)
        chosen = chosen.to(batch.images.device)
        parts = []
        for plain, mirrored in zip(batch, batch.flip(), strict=True):
            if plain is None:
                parts.append(None)
            else:
                parts.append(torch.where(chosen.reshape(-1, *[1] * (plain.ndim - 1)), mirrored, plain))
        return FaceBatch(*parts)


class MemorySet:
    """A set in memory, pictures as ``uint8``: 43 kB each.

    Args:
        faces: The whole set.
    """

    def __init__(self, faces: FaceBatch) -> None:
        self.faces = faces

    def __len__(self) -> int:
        return self.faces.size

    def take(self, index: torch.Tensor) -> FaceBatch:
        """The pictures at ``(B,)`` indices."""
        return self.faces.take(index.to(self.faces.images.device))


class MemoryStream(SetStream):
    """A finite set in memory: the fastest stream. Arguments as for :class:`SetStream`.

    Example:
        >>> stream = MemoryStream.draw(world, count=4000)  # doctest: +SKIP
        >>> for batch in stream.batches(64):  # doctest: +SKIP
        ...     train_on(batch)
    """

    def __init__(self, faces: FaceBatch, **options) -> None:
        super().__init__(MemorySet(faces), **options)

    @classmethod
    def draw(
        cls,
        source: FaceSource,
        count: int,
        *,
        first: int = 0,
        truth: bool | None = None,
        device: torch.device | str | None = None,
        progress: Callable[[int, int], None] | None = None,
        **options,
    ) -> MemoryStream:
        """Draw a set once and keep it in memory.

        Args:
            source: A synthetic world.
            count: Number of pictures.
            first: Number of the first picture.
            truth: Whether to include the ground truth; by default as the world says.
            device: Device that keeps the set; by default the one that drew it.
            progress: Called with the number of pictures drawn and the total.
            options: Further arguments of :class:`SetStream`.
        """
        count = check_count("count", count, 1)
        parts = []
        for done in range(0, count, _CHUNK):
            part = source.batch(first + done, min(_CHUNK, count - done), truth=truth)
            parts.append(part if device is None else part.to(device))
            if progress is not None:
                progress(min(done + _CHUNK, count), count)
        return cls(FaceBatch.cat(parts), **options)


# ------------------------------------------------------------------------------------------------- in the background
def prefetch(
    batches: Iterator[FaceBatch], depth: int = 2, device: torch.device | str | None = None
) -> Iterator[FaceBatch]:
    """Prepare batches in a thread while earlier ones are used.

    The order is unchanged, so a stream is resumed as before: count the batches taken *from this iterator*.

    Args:
        batches: Any iterator, such as ``stream.batches(64)``.
        depth: Number of batches to keep ready.
        device: Device to move them to, for a GPU through page-locked memory; by default they stay where they are.

    Yields:
        The same batches. An exception in the thread is raised here; closing the iterator ends the thread.
    """
    check_count("depth", depth, 1)
    target = None if device is None else torch.device(device)
    ready: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: object) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            if target is not None and target.type == "cuda":
                torch.cuda.set_device(target)  # a new thread's is the first one, where page-locking would take memory
            for batch in batches:
                if target is not None and target.type == "cuda" and batch.images.device.type == "cpu":
                    batch = batch.pin_memory()
                put((batch, None))
                if stopped.is_set():
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, None))

    thread = threading.Thread(target=work, daemon=True, name="prefetch")
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch if target is None else batch.to(target, non_blocking=True)
    finally:
        stopped.set()
        thread.join()


def drawn_beside(batches: Iterator[FaceBatch], device: torch.device | str, depth: int = 2) -> Iterator[FaceBatch]:
    """Draw each batch while the previous one is used.

    On a GPU, pictures are drawn in a separate CUDA stream. No thread is needed, because drawing never waits for the
    device: the next batch is enqueued before this one is returned. It starts when the last step but one has ended, so
    that running ahead costs the memory of two batches and no more. On a CPU, a thread draws (:func:`prefetch`).

    The batches and their order are unchanged, so a stream is resumed as before: count the batches taken *from this
    iterator*.

    Args:
        batches: Iterator such as ``SyntheticStream(faces).batches(64, start)``; it runs one batch ahead of this one, on
            a CPU up to ``depth + 1`` batches.
        device: Device on which they are drawn.
        depth: Number of batches that a CPU keeps ready.

    Yields:
        The same batches, for use in the CUDA stream that is current when they are requested.

    Example:
        >>> for batch in drawn_beside(SyntheticStream(faces).batches(256), faces.device):  # doctest: +SKIP
        ...     train_on(batch)
    """
    device = torch.device(device)
    if device.type != "cuda":
        yield from prefetch(batches, depth)
        return
    beside = torch.cuda.Stream(device)

    def drawn() -> tuple[FaceBatch, torch.cuda.Event] | None:
        # Waiting for the work enqueued so far bounds how far drawing runs ahead of training.
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):
            batch = next(batches, None)
            return None if batch is None else (batch, beside.record_event())

    following = drawn()
    while following is not None:
        batch, done = following
        following = drawn()
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        for part in batch:
            if part is not None:
                part.record_stream(current)  # its memory is free once `current` has used it, not before
        yield batch
