"""Random numbers that depend on which picture they are for, and on nothing else.

An ordinary generator is a queue: what a picture gets depends on what was drawn before it. Here every number is a hash
of (seed, picture, purpose, position), so that a picture is the same in any batch, in any worker and on any machine, and
its light does not change when someone adds a random number to its background. The hash is SplitMix64 (Steele, Lea and
Flood 2014), in integer arithmetic, which is the same on CPUs and GPUs.
"""

from __future__ import annotations

import copy
import threading
import zlib
from collections.abc import Callable
from typing import NamedTuple

import torch

from twodasl_lite.base.errors import InputTypeError, ValueRangeError

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number
_FIRST = -4658895280553007687  # 0xBF58476D1CE4E5B9
_SECOND = -7723592293110705685  # 0x94D049BB133111EB
Pick = Callable[[torch.Tensor], torch.Tensor]
"""Picks the rows of some pictures from a tensor with one row per picture."""
_BITS = 23
"""Bits of a uniform number; with the half that is added they fill a single-precision number exactly."""


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


class _Table(NamedTuple):
    """Columns of each purpose in a row of numbers for many purposes.

    Attributes:
        places: First column and number of columns of each purpose.
        streams: ``(P,)`` hash of each purpose.
        purpose: ``(N,)`` purpose that each column is for.
        position: ``(N,)`` hash of its position within the purpose.
    """

    places: dict[str, tuple[int, int]]
    streams: torch.Tensor
    purpose: torch.Tensor
    position: torch.Tensor


class Recipe:
    """Which random numbers a picture needs, so that those of all purposes can be hashed in one go.

    A picture draws numbers about a hundred times, and each time a dozen small tensor operations hash a few of them: on
    a GPU the launches cost time, not the arithmetic. Code that draws many pictures shares one recipe among them. The
    first pictures record what they draw; later ones compute all of it at once. The numbers are the same either way, and
    drawing one that is not in the recipe is not an error.
    """

    _LARGEST = 256
    """Purposes with more numbers than this, such as a sensor's noise, are hashed separately."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        # Tables are never freed: another CUDA stream may still be reading one that has become too small.
        self._tables: dict[tuple[torch.device, int], _Table] = {}
        self._lock = threading.Lock()

    def note(self, purpose: str, number: int) -> None:
        """Record that ``number`` numbers were drawn."""
        if 0 < number <= self._LARGEST and self._numbers.get(purpose, 0) < number:
            with self._lock:
                self._numbers[purpose] = number

    def table(self, device: torch.device) -> _Table | None:
        """The layout of everything recorded so far; ``None`` if there is nothing yet."""
        table = self._tables.get((device, len(self._numbers)))
        if table is not None:
            return table
        with self._lock:
            numbers = dict(self._numbers)
            if not numbers:
                return None
            ends = torch.tensor(list(numbers.values())).cumsum(0).tolist()
            places = {name: (end - count, count) for (name, count), end in zip(numbers.items(), ends, strict=True)}
            counts = torch.tensor(list(numbers.values()))
            purpose = torch.repeat_interleave(torch.arange(len(counts)), counts)
            first = torch.tensor([place for place, _ in places.values()])
            position = (torch.arange(len(purpose)) - first[purpose] + 1) * _GOLDEN
            streams = torch.tensor([_stream(name) for name in numbers])
            table = _Table(places, *(part.to(device) for part in (streams, purpose, position)))
            self._tables[device, len(numbers)] = table
            return table


def _stream(purpose: str) -> int:
    """Hash of a purpose."""
    return _signed(zlib.crc32(purpose.encode()) * _signed(_GOLDEN))


def _uniform(bits: torch.Tensor) -> torch.Tensor:
    """Hashes to single-precision numbers between 0 and 1, both excluded."""
    return (_shift(bits, 64 - _BITS).float() + 0.5) * 2**-_BITS


class Draws:
    """The random numbers of some pictures.

    Args:
        seed: Seed of the world; any whole number.
        pictures: ``(B,)`` indices of the pictures.
        recipe: Recipe shared by similar pictures, if many are drawn.
        whole: Whether :meth:`change` works on all pictures instead of only the chosen ones; by default on any device
            but a CPU.

    Example:
        >>> few = Draws(0, torch.arange(3)).uniform("light", 2)
        >>> many = Draws(0, torch.arange(100)).uniform("light", 2)
        >>> torch.equal(few, many[:3])
        True
    """

    def __init__(
        self, seed: int, pictures: torch.Tensor, recipe: Recipe | None = None, *, whole: bool | None = None
    ) -> None:
        if isinstance(seed, bool) or not hasattr(seed, "__index__"):
            raise InputTypeError(f"seed: found {type(seed).__name__}; expected a whole number")
        self.seed, self.pictures, self.recipe = seed.__index__(), pictures, recipe
        self.whole = pictures.device.type != "cpu" if whole is None else whole
        start = _mix(torch.full_like(pictures, _signed(self.seed * _signed(_GOLDEN) + 1)))
        self._keys = _mix(start + pictures * _GOLDEN)  # (B,)
        self._places: dict[str, tuple[int, int]] = {}
        table = recipe.table(pictures.device) if recipe is not None else None
        if table is not None:
            streams = _mix(self._keys[:, None] ^ table.streams)  # (B, P)
            self._places = table.places
            self._numbers = _uniform(_mix(streams.index_select(1, table.purpose) + table.position))  # (B, N)

    @property
    def size(self) -> int:
        """Number of pictures B."""
        return len(self.pictures)

    def take(self, index: torch.Tensor | slice) -> Draws:
        """The random numbers of some of the pictures."""
        few = copy.copy(self)
        few.pictures, few._keys = self.pictures[index], self._keys[index]
        if self._places:
            few._numbers = self._numbers[index]
        return few

    def change(
        self,
        chosen: torch.Tensor,
        values: torch.Tensor,
        changed: Callable[[Draws, Pick], torch.Tensor],
    ) -> torch.Tensor:
        """Change something about some of the pictures.

        On a CPU the work is done only for the chosen pictures. On a GPU, finding out how many those are would mean
        waiting for the device, so the work is done for all pictures and the results of the others are dropped.

        Args:
            chosen: ``(B,)`` booleans: which pictures to change.
            values: ``(B, ...)`` old values, not modified.
            changed: Function that makes the new values ``(B', ...)`` from the random numbers of the pictures worked on
                and a function that picks their rows from any ``(B, ...)``.

        Returns:
            ``(B, ...)``.
        """
        if self.whole:
            new = changed(self, lambda part: part)
            return torch.where(chosen.reshape(-1, *[1] * (values.ndim - 1)), new, values)
        index = chosen.nonzero()[:, 0]
        if not len(index):
            return values
        return values.index_copy(0, index, changed(self.take(index), lambda part: part.index_select(0, index)))

    def _bits(self, purpose: str, number: int) -> torch.Tensor:
        """``(B, number)`` hashes."""
        stream = _mix(self._keys ^ _stream(purpose))  # (B,)
        position = torch.arange(1, number + 1, device=stream.device) * _GOLDEN
        return _mix(stream[:, None] + position)

    def uniform(self, purpose: str, *shape: int) -> torch.Tensor:
        """``(B, *shape)`` single-precision numbers between 0 and 1, both excluded; read-only."""
        number = 1
        for side in shape:
            number *= side
        first, count = self._places.get(purpose, (0, 0))
        if number <= count:
            # Contiguous, because products of numbers with other strides are rounded differently.
            numbers = self._numbers[:, first : first + number].reshape(-1, *shape)
            return numbers.clone(memory_format=torch.contiguous_format)
        if self.recipe is not None:
            self.recipe.note(purpose, number)
        return _uniform(self._bits(purpose, number)).reshape(-1, *shape)

    def between(self, purpose: str, bounds: tuple[float, float], *shape: int) -> torch.Tensor:
        """``(B, *shape)`` numbers, uniform between two bounds."""
        low, high = bounds
        return low + (high - low) * self.uniform(purpose, *shape)

    def normal(self, purpose: str, *shape: int, clip: float = float("inf")) -> torch.Tensor:
        """``(B, *shape)`` standard normal numbers, clipped."""
        return torch.erfinv(2 * self.uniform(purpose, *shape) - 1).mul_(2**0.5).clamp_(-clip, clip)

    def chance(self, purpose: str, share: float) -> torch.Tensor:
        """``(B,)`` booleans, true in this share of the pictures."""
        if not 0 <= share <= 1:
            raise ValueRangeError(f"{purpose}: found a share of {share}; expected 0 to 1")
        return self.uniform(purpose) < share

    def choice(self, purpose: str, number: int, *shape: int) -> torch.Tensor:
        """``(B, *shape)`` whole numbers from 0 to ``number - 1``."""
        return (self.uniform(purpose, *shape) * number).long().clamp_(max=number - 1)
