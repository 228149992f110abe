"""Exceptions for invalid input, which say what was found and what was expected.

Every exception derives from :class:`TwodaslError`, which is a :class:`ValueError`; messages begin with the name of the
argument or file. The book does not explain them: they should be clear on their own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

__all__ = [
    "FileFormatError",
    "InputTypeError",
    "MissingDependencyError",
    "ShapeError",
    "TwodaslError",
    "ValueRangeError",
    "check_finite",
    "check_shape",
    "check_tensor",
    "require",
    "trusted_values",
    "values_are_trusted",
]


class TwodaslError(ValueError):
    """Base class of all errors caused by invalid input."""


class ShapeError(TwodaslError):
    """An array has the wrong shape."""


class ValueRangeError(TwodaslError):
    """A value is out of range, or NaN."""


class InputTypeError(TwodaslError, TypeError):
    """An argument has the wrong type."""


class FileFormatError(TwodaslError):
    """A file is missing, damaged, or not what its reader expects.

    Args:
        path: The file.
        found: What was found.
        expected: What was expected.
    """

    def __init__(self, path: str | os.PathLike[str], found: str, expected: str) -> None:
        super().__init__(f"{os.fspath(path)}: found {found}; expected {expected}")
        self.path = os.fspath(path)
        self.found = found
        self.expected = expected

    def __reduce__(self):  # the default would re-create it from one message instead of three parts
        return type(self), (self.path, self.found, self.expected)


class MissingDependencyError(TwodaslError, ImportError):
    """An optional package that this call needs is not installed."""


def require(module: str, extra: str, purpose: str):
    """Import an optional package, or name the extra that installs it.

    Args:
        module: Name of the module to import.
        extra: The extra of ``twodasl_lite`` that installs it.
        purpose: Purpose of the package, the beginning of "... needs the package ...".

    Returns:
        The imported module.

    Raises:
        MissingDependencyError: If the package is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f'{purpose} needs the package "{module}": pip install "twodasl_lite[{extra}]"'
        ) from error


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
