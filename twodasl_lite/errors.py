"""What can go wrong with a reader's input, as exceptions that say what was found and what was expected.

Every exception derives from :class:`TwodaslError`, which is a :class:`ValueError`; the checks raise them with the
name of the argument or file first. Explained nowhere in the book: they should read well enough alone.
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
    """Base class of all errors that a wrong input causes."""


class ShapeError(TwodaslError):
    """An array has the wrong shape."""


class ValueRangeError(TwodaslError):
    """A number lies outside its range, or is not a number at all."""


class InputTypeError(TwodaslError, TypeError):
    """An argument is of the wrong type."""


class FileFormatError(TwodaslError):
    """A file is missing, damaged, or not what its reader expects.

    Args:
        path: The file.
        found: What was found there.
        expected: What should have been.
    """

    def __init__(self, path: str | os.PathLike[str], found: str, expected: str) -> None:
        super().__init__(f"{os.fspath(path)}: found {found}; expected {expected}")
        self.path = os.fspath(path)
        self.found = found
        self.expected = expected

    def __reduce__(self):  # the default would re-create it from one message instead of three parts
        return type(self), (self.path, self.found, self.expected)


class MissingDependencyError(TwodaslError, ImportError):
    """An optional package is needed for this call and not installed."""


def require(module: str, extra: str, purpose: str):
    """Import an optional package, or say which extra brings it.

    Args:
        module: Name of the module to import.
        extra: The extra of ``twodasl_lite`` that installs it.
        purpose: What it is needed for, to complete "... needs the package ...".

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
        expected: One entry per dimension: a number must match, of a tuple of numbers one must, a word (or ``None``)
            names a free dimension. A leading ``...`` string admits any number of leading dimensions.

    Raises:
        ShapeError: If the shape does not fit.
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
    """Refuse NaN and infinity.

    Raises:
        ValueRangeError: With the number of bad entries and the position of the first.
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
    """Turn numpy arrays, lists and tensors into a checked floating-point tensor.

    Args:
        name: The argument's name, for messages.
        value: A tensor, array or nested list of numbers.
        expected: Shape pattern, see :func:`check_shape`.
        finite: Whether NaN and infinity are refused.
        dtype: Wanted type; by default floating types are kept and others become ``float32``.
        device: Wanted device; by default the value's own.

    Returns:
        The tensor; shares memory with ``value`` where no conversion is needed.

    Raises:
        InputTypeError: If it is no array of numbers.
        ShapeError: If the shape does not fit.
        ValueRangeError: If ``finite`` and it is not.
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
