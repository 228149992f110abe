"""Checks of arguments: each says which argument is wrong, what was found and what was expected.

A function that a person calls checks what it is given; functions below it rely on that.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

import torch

from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError


# ------------------------------------------------------------------------------------------------------ single values
def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Check that a value is one of several words.

    Args:
        name: The argument's name, for the message.
        value: The value.
        choices: The words.

    Raises:
        ValueRangeError: If it is none of them.
    """
    if value not in choices:
        raise ValueRangeError(f"{name}: found {value!r}; expected one of {', '.join(map(str, choices)) or 'none'}")


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Check a whole number.

    Args:
        name: The argument's name, for the message.
        value: The number; anything with ``__index__`` that is not a boolean.
        least: Smallest number allowed.
        most: Largest number allowed.

    Returns:
        The number as ``int``.

    Raises:
        InputTypeError: If it is not a whole number.
        ValueRangeError: If it is out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputTypeError(f"{name}: found {value!r}; expected a whole number")
    number = value.__index__()
    if number < least or (most is not None and number > most):
        expected = f"{least} or more" if most is None else f"{least} to {most}"
        raise ValueRangeError(f"{name}: found {number}; expected {expected}")
    return number


def check_number(name: str, value: object, *, above: float | None = None, least: float | None = None) -> float:
    """Check a finite number.

    Args:
        name: The argument's name, for the message.
        value: The number.
        above: Exclusive lower limit.
        least: Inclusive lower limit.

    Returns:
        The number as ``float``.

    Raises:
        InputTypeError: If it is not a number.
        ValueRangeError: If it is NaN, infinite or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"{name}: found {type(value).__name__}; expected a number")
    number = float(value)
    fits = math.isfinite(number) and (above is None or number > above) and (least is None or number >= least)
    if not fits:
        limit = "" if least is None else f", {least:g} or more"
        expected = f"a number above {above:g}" if above is not None else f"a finite number{limit}"
        raise ValueRangeError(f"{name}: found {value}; expected {expected}")
    return number


# ----------------------------------------------------------------------------------------------------------- tensors
def _fits(size: int, wanted: int | tuple[int, ...] | str | None) -> bool:
    if isinstance(wanted, tuple):
        return size in wanted
    return not isinstance(wanted, int) or size == wanted


def check_shape(name: str, value: torch.Tensor, expected: Sequence[int | tuple[int, ...] | str | None]) -> None:
    """Compare a tensor's shape with a pattern.

    Args:
        name: The argument's name, for the message.
        value: The tensor.
        expected: One entry per dimension: a number must match, a tuple lists the allowed numbers, a word (or ``None``)
            names a free dimension. A leading string ``"..."`` allows any number of leading dimensions.

    Raises:
        ShapeError: If the shape does not match.
    """
    pattern, shape = list(expected), tuple(value.shape)
    free_front = bool(pattern) and pattern[0] == "..."
    tail = pattern[1:] if free_front else pattern
    fits = len(shape) >= len(tail) if free_front else len(shape) == len(tail)
    if fits and tail:
        fits = all(_fits(size, wanted) for size, wanted in zip(shape[-len(tail) :], tail, strict=True))
    if not fits:
        words = [" or ".join(map(str, w)) if isinstance(w, tuple) else "any" if w is None else str(w) for w in pattern]
        raise ShapeError(f"{name}: found shape {shape}; expected ({', '.join(words)})")


_TRUST = threading.local()


@contextmanager
def trusted_values(trusted: bool = True) -> Iterator[None]:
    """Let no check look at the values of tensors, in this thread: a GPU has to be waited for until they are there.

    Types and shapes are checked as ever. For who calls the same functions thousands of times with values that come from
    the package itself: a training step on a GPU, which finds NaN in its loss anyway.

    Args:
        trusted: Whether to do so at all.
    """
    before = values_are_trusted()
    _TRUST.on = trusted or before
    try:
        yield
    finally:
        _TRUST.on = before


def values_are_trusted() -> bool:
    """Whether checks are to look at no values, see :func:`trusted_values`."""
    return getattr(_TRUST, "on", False)


def check_finite(name: str, value: torch.Tensor) -> None:
    """Check that all values are finite.

    Raises:
        ValueRangeError: If a value is NaN or infinite; the message has their number and the position of the first.
    """
    if values_are_trusted():
        return
    bad = ~torch.isfinite(value)
    if bool(bad.any()):
        first = tuple(bad.nonzero()[0].tolist())
        raise ValueRangeError(
            f"{name}: found {int(bad.sum())} of {value.numel()} values NaN or infinite (the first at {first}); "
            "expected finite numbers"
        )


def check_tensor(
    name: str,
    value: object,
    expected: Sequence[int | tuple[int, ...] | str | None],
    *,
    finite: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """Convert a numpy array, list or tensor to a floating-point tensor and check it.

    Args:
        name: The argument's name, for messages.
        value: A tensor, array or nested list of numbers.
        expected: Shape pattern, see :func:`check_shape`.
        finite: Whether to raise an error for NaN and infinity.
        dtype: Type of the result; by default floating types are kept and others become ``float32``.
        device: Device of the result; by default the value's own.

    Returns:
        The tensor; shares memory with ``value`` if no conversion is needed.

    Raises:
        InputTypeError: If the value is not an array of numbers.
        ShapeError: If the shape does not match.
        ValueRangeError: If ``finite`` is set and a value is NaN or infinite.
    """
    try:
        tensor = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(f"{name}: found {type(value).__name__}; expected an array of numbers") from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise InputTypeError(f"{name}: found {tensor.dtype}; expected real numbers")
    if dtype is not None:
        tensor = tensor.to(dtype)
    elif not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    check_shape(name, tensor, expected)
    if finite:
        check_finite(name, tensor)
    return tensor


def check_indices(
    name: str, value: object, limit: int, shape: Sequence[int | str], device: torch.device | str | None = None
) -> torch.Tensor:
    """Check indices, for instance of corners.

    Args:
        name: The argument's name, for messages.
        value: Integers; tensor, array or nested list.
        limit: Exclusive upper bound of the indices.
        shape: Shape pattern, see :func:`check_shape`.
        device: Device of the result.

    Returns:
        int64.

    Raises:
        InputTypeError: If they are not integers.
        ShapeError: If the shape differs.
        ValueRangeError: If an index is below 0 or not below the limit.
    """
    try:
        index = torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(f"{name}: found {type(value).__name__}; expected an array of indices") from error
    if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
        raise InputTypeError(f"{name}: found {index.dtype}; expected integers")
    check_shape(name, index, shape)
    if index.numel():
        low, high = (int(bound) for bound in index.aminmax())
        if low < 0 or high >= limit:
            raise ValueRangeError(f"{name}: found indices from {low} to {high}; expected 0 to {limit - 1}")
    return index.long()
