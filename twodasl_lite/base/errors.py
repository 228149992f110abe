"""Exceptions for invalid input, which say what was found and what was expected.

Every exception derives from :class:`TwodaslError`, which is a :class:`ValueError`; messages begin with the name of the
argument or file. The book does not explain them: they should be clear on their own.
"""

from __future__ import annotations

import os

__all__ = [
    "FileFormatError",
    "InputTypeError",
    "MissingDependencyError",
    "ShapeError",
    "TwodaslError",
    "ValueRangeError",
    "require",
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
