"""Random numbers that depend on which picture they are for, and on nothing else.

An ordinary generator is a queue: what a picture gets depends on who asked before it. Here every number is a hash of
(seed, picture, purpose, position), so that a picture is the same in any batch, in any worker and on any machine, and a
picture's light does not change because someone added a random number to its background. The hash is SplitMix64 (Steele,
Lea and Flood 2014), in integer arithmetic that CPUs and GPUs do alike.
"""

from __future__ import annotations

import zlib

import torch

from twodasl_lite.errors import InputTypeError, ValueRangeError

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB
_BITS = 23
"""Bits of a uniform number: with the half that is added they fill a single-precision number exactly."""


def _signed(value: int) -> int:
    """The low 64 bits as a signed number."""
    value &= 2**64 - 1
    return value - 2**64 if value >= 2**63 else value


def _shift(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift to the right; that of int64 tensors copies the sign."""
    return (value >> bits) & (2 ** (64 - bits) - 1)


def _mix(value: torch.Tensor) -> torch.Tensor:
    """SplitMix64's finaliser: every bit of the input changes half of the output's bits."""
    value = (value ^ _shift(value, 30)) * _FIRST
    value = (value ^ _shift(value, 27)) * _SECOND
    return value ^ _shift(value, 31)


class Draws:
    """The random numbers of some pictures.

    Args:
        seed: Of the world; any whole number.
        pictures: ``(B,)`` their indices.

    Example:
        >>> few = Draws(0, torch.arange(3)).uniform("light", 2)
        >>> many = Draws(0, torch.arange(100)).uniform("light", 2)
        >>> torch.equal(few, many[:3])
        True
    """

    def __init__(self, seed: int, pictures: torch.Tensor) -> None:
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise InputTypeError(f"seed: found {type(seed).__name__}; expected a whole number")
        self.seed, self.pictures = seed.__index__(), pictures
        start = _mix(torch.full_like(pictures, _signed(self.seed * _signed(_GOLDEN) + 1)))
        self._keys = _mix(start + pictures * _GOLDEN)  # (B,)

    @property
    def size(self) -> int:
        """B."""
        return len(self.pictures)

    def take(self, index: torch.Tensor) -> Draws:
        """The random numbers of some of the pictures."""
        return Draws(self.seed, self.pictures[index])

    def _bits(self, purpose: str, shape: tuple[int, ...]) -> torch.Tensor:
        """``(B, ...)`` hashes."""
        number = 1
        for side in shape:
            number *= side
        stream = _mix(self._keys ^ _signed(zlib.crc32(purpose.encode()) * _signed(_GOLDEN)))  # (B,)
        position = torch.arange(1, number + 1, device=stream.device) * _GOLDEN
        return _mix(stream[:, None] + position).reshape(-1, *shape)

    def uniform(self, purpose: str, *shape: int) -> torch.Tensor:
        """``(B, *shape)`` single-precision numbers between 0 and 1, both excluded."""
        number = _shift(self._bits(purpose, shape), 64 - _BITS).float()
        return (number + 0.5) * 2**-_BITS

    def between(self, purpose: str, bounds: tuple[float, float], *shape: int) -> torch.Tensor:
        """``(B, *shape)`` numbers, uniform between two bounds."""
        low, high = bounds
        return low + (high - low) * self.uniform(purpose, *shape)

    def normal(self, purpose: str, *shape: int, clip: float = float("inf")) -> torch.Tensor:
        """``(B, *shape)`` normal numbers of deviation 1, clipped."""
        return torch.erfinv(2 * self.uniform(purpose, *shape) - 1).mul_(2**0.5).clamp_(-clip, clip)

    def chance(self, purpose: str, share: float) -> torch.Tensor:
        """``(B,)`` booleans, true in this share of the pictures."""
        if not 0 <= share <= 1:
            raise ValueRangeError(f"{purpose}: found a share of {share}; expected 0 to 1")
        return self.uniform(purpose) < share

    def choice(self, purpose: str, number: int, *shape: int) -> torch.Tensor:
        """``(B, *shape)`` whole numbers from 0 to ``number - 1``."""
        return (self.uniform(purpose, *shape) * number).long().clamp_(max=number - 1)
