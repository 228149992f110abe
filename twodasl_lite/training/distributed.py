"""One process or many: PyTorch's DistributedDataParallel, started by ``torchrun``.

::

    torchrun --nproc-per-node 8 -m twodasl_lite.cli train full-gpu --out runs/full              one machine
    torchrun --nnodes 4 --node-rank K --master-addr HOST --nproc-per-node 8 -m ...              machine K of four

Each process takes its share of every batch (``batch_size`` counts the pictures of all processes together), computes
gradients, and they are averaged. With group or frozen normalisation N processes compute what one would (to rounding).
Batch normalisation sees the share of its own process alone; on GPUs it is therefore replaced by ``SyncBatchNorm``,
which computes its statistics over all of them, and on CPUs, where there is none, it stays as it is: training then
depends on the number of processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import distributed, nn

from twodasl_lite.errors import ValueRangeError


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: Which one this is; number 0 writes and reports.
        count: How many there are.
        device: Where this one computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, batch_size: int) -> int:
        """How many pictures of a batch this process takes.

        Raises:
            ValueRangeError: If the batch cannot be shared out evenly.
        """
        if batch_size % self.count:
            raise ValueRangeError(
                f"batch_size: found {batch_size} for {self.count} processes; expected a multiple of {self.count}"
            )
        return batch_size // self.count

    def part(self, values: torch.Tensor) -> torch.Tensor:
        """This process's rows of what was drawn for the whole batch."""
        size = self.share(len(values))
        return values[self.rank * size : (self.rank + 1) * size]

    def synchronise(self, network: nn.Module) -> nn.Module:
        """The network with its batch normalisation over all processes, where there are several, on GPUs."""
        if self.count == 1 or self.device.type != "cuda":
            return network
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with averaged gradients; itself where there is one process."""
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
        """Means over the processes of named numbers; all must call it, with the same names."""
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
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()


def best_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


@contextmanager
def processes(device: str | torch.device | None = None) -> Iterator[Processes]:
    """The processes that ``torchrun`` started, or this one alone.

    Args:
        device: Where to compute; a GPU where there is one by default. With several processes each takes the GPU of
            its number.

    Raises:
        ValueRangeError: If CUDA is asked for where there is none.
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
