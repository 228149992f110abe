"""Small tables on any device, brought there once.

Bringing a few numbers from Python to a GPU makes the program wait for all that the GPU has still to do. Whoever draws
thousands of pictures a second brings them once.
"""

from __future__ import annotations

from functools import cache

import torch

Numbers = float | int | tuple["Numbers", ...]


def constant(numbers: Numbers, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor of given numbers; the same one for everybody, so to be read only.

    Args:
        numbers: One, or nested tuples of them.
        device: Where.
        dtype: As what.
    """
    return _made(numbers, torch.device(device), dtype)


def constant_like(like: torch.Tensor, *numbers: Numbers) -> torch.Tensor:
    """:func:`constant` on a tensor's device and of its type."""
    return _made(numbers, like.device, like.dtype)


# Without a limit: another stream of a GPU may still be reading what a limit would throw away.
@cache
def _made(numbers: Numbers, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    with torch.inference_mode(False):  # or whoever asks first decides what others may do with it
        return torch.tensor(numbers, dtype=dtype, device=device)
