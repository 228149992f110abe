"""Small tables on any device, copied there only once.

Copying a few numbers from Python to a GPU makes the program wait for all the work that the GPU still has to do. Code
that draws thousands of pictures a second must copy them only once.
"""

from __future__ import annotations

from functools import cache

import torch

Numbers = float | int | tuple["Numbers", ...]


def constant(numbers: Numbers, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of given numbers, shared by all callers and therefore read-only.

    Args:
        numbers: A number, or nested tuples of numbers.
        device: Device of the tensor.
        dtype: Type of the tensor.
    """
    make = _make if torch.compiler.is_compiling() else _made  # a traced tensor has no values and must not be kept
    return make(numbers, torch.device(device), dtype)


def constant_like(like: torch.Tensor, *numbers: Numbers) -> torch.Tensor:
    """:func:`constant` on a tensor's device and of its type."""
    return constant(numbers, like.device, like.dtype)


def _make(numbers: Numbers, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode(False):  # otherwise the first caller's mode would limit what others may do with it
        return torch.tensor(numbers, dtype=dtype, device=device)


# Without a limit: another CUDA stream may still be reading what a limit would evict.
_made = cache(_make)
