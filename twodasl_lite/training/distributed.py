"""Training with one or several processes: PyTorch's DistributedDataParallel, started by ``torchrun``.

::

    torchrun --nproc-per-node 8 -m twodasl_lite train full-gpu --out runs/full              one machine
    torchrun --nnodes 4 --node-rank K --master-addr HOST --nproc-per-node 8 -m ...              machine K of four

Each process computes the gradients of its share of every batch (``batch_size`` counts the pictures of all processes
together), and the gradients are averaged. With group or frozen normalisation N processes give the same result as one
(up to rounding). Batch normalisation only sees the share of its own process. On GPUs it is therefore replaced by
``SyncBatchNorm``, whose statistics cover all processes; on CPUs, where that is not available, training depends on the
number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import distributed, nn

from twodasl_lite.base.errors import ValueRangeError


@dataclass(frozen=True)
class Processes:
    """The processes of a run, from the point of view of one of them.

    Attributes:
        rank: Number of this process; number 0 writes and reports.
        count: Number of processes.
        device: Device of this process.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """Number of pictures of a batch that this process takes.

        Raises:
            ValueRangeError: If the batch cannot be divided evenly.
        """
        if batch_size % self.count:
            raise ValueRangeError(
                f"batch_size: found {batch_size} for {self.count} processes; expected a multiple of {self.count}"
            )
        return batch_size // self.count

    def part(self, values: torch.Tensor) -> torch.Tensor:
        """This process's rows of random values for the whole batch."""
        size = self.share(len(values))
        return values[self.rank * size : (self.rank + 1) * size]

    def synchronise(self, network: nn.Module) -> nn.Module:
        """The network with batch normalisation over all processes; unchanged for one process or without GPUs."""
        if self.count == 1 or self.device.type != "cuda":
            return network
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with averaged gradients; unchanged for one process."""
        if self.count == 1:
            return module
        on_gpu = self.device.type == "cuda"
        return nn.parallel.DistributedDataParallel(
            module,
            device_ids=[self.device.index] if on_gpu else None,
            broadcast_buffers=False,  # SyncBatchNorm keeps the statistics equal; other buffers never change
            gradient_as_bucket_view=True,
        )

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Mean of each named number over the processes; all must call it, with the same names."""
        if self.count == 1 or not values:
            return values
        names = sorted(values)
        numbers = torch.tensor([values[name] for name in names], dtype=torch.float64)
        numbers = numbers.float().to(self.device) if self.device.type == "mps" else numbers.to(self.device)
        distributed.all_reduce(numbers)
        return dict(zip(names, (numbers / self.count).tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; all must call it."""
        return flag if self.count == 1 else self.mean({"flag": float(flag)})["flag"] > 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            distributed.barrier()


def best_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def processes(device: str | torch.device | None = None) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, or this one alone.

    Args:
        device: Device to compute on; by default a GPU if there is one. With several processes, each takes the GPU of
            its local rank.

    Raises:
        ValueRangeError: If CUDA is requested but not available.
    """
    chosen = best_device() if device is None else torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueRangeError("device: found cuda; expected cpu, as PyTorch finds no CUDA device here")
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    owned = not distributed.is_initialized()
    if owned:
        distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), chosen)
    finally:
        if owned:
            distributed.destroy_process_group()
