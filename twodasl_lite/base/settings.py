"""Settings in files: TOML tables become frozen dataclasses; an invalid entry raises an error that lists the choices.

Both kinds of settings in this package, worlds (:mod:`twodasl_lite.worlds.world`) and training runs
(:mod:`twodasl_lite.training.config`), are dataclasses whose annotations define the valid values. :func:`from_table`
supports exactly the annotations that they use: ``bool``, ``int``, ``float``, ``str``, ``Literal``, tuples, optional
values and nested dataclasses. A validation library such as pydantic does much more, but it is a compiled dependency
that compute servers often lack, and a run must not fail there because its configuration cannot be read.

Reading is strict where a slip would go unnoticed: ``true`` and ``"3"`` are not numbers, and an unknown key is an error.
It is lenient where nothing can go wrong: ``3`` is a valid ``float``, and ``1e4`` a valid ``int``.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError, require

Settings = TypeVar("Settings")

_LARGEST_EXACT = 2.0**53  # beyond it, a float cannot represent every whole number
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes"}


class SettingsError(ValueRangeError):
    """Invalid settings; the message names every invalid entry.

    Args:
        problems: One clause per invalid entry.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)

    def __reduce__(self):  # the default would re-create it from the message
        return type(self), (self.problems,)


def read_toml(path: Path, expected: str = "TOML") -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: The file; must exist.
        expected: Description of the expected file, for messages.

    Raises:
        FileFormatError: If the file is not UTF-8 text or not TOML.
        MissingDependencyError: On Python 3.10 without the package tomli.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        tomllib = require("tomli", "train", "reading settings")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise FileFormatError(path, "bytes that are no UTF-8 text", expected) from error
    except tomllib.TOMLDecodeError as error:
        raise FileFormatError(path, f"no TOML ({error})", expected) from error


def from_table(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build a dataclass from nested tables and check every entry.

    Args:
        kind: The dataclass. Its ``__post_init__`` may raise a :class:`~twodasl_lite.base.errors.TwodaslError` whose
            message begins with the name of the field; the key of the table is put in front of it.
        values: Name to value; fields that are not named keep their default.

    Returns:
        An instance of ``kind``.

    Raises:
        SettingsError: If there are unknown keys, wrong types or values out of range; the message names all of them.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Lamp:
        ...     colour: Literal["warm", "cold"] = "warm"
        ...     angle: float = 30.0
        >>> from_table(Lamp, {"angle": 45})
        Lamp(colour='warm', angle=45.0)
        >>> from_table(Lamp, {"colour": "wram"})
        Traceback (most recent call last):
        ...
        twodasl_lite.base.settings.SettingsError: colour: found 'wram', did you mean 'warm'?; expected 'warm' or 'cold'
    """
    problems: list[str] = []
    result = _table(kind, values, "", problems)
    if problems:
        raise SettingsError(problems)
    return result


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested tables; where both have a value, that of ``above`` is used.

    Example:
        >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
        {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def to_table(settings: Any) -> dict[str, Any]:
    """Convert a dataclass to JSON-serialisable nested tables; the inverse of :func:`from_table`."""
    return json.loads(json.dumps(dataclasses.asdict(settings)))


# ------------------------------------------------------------------------------------------------------- one entry
_WRONG = object()


@lru_cache
def _hints(kind: type) -> dict[str, Any]:
    """Name to annotation, for the fields of a dataclass."""
    known = typing.get_type_hints(kind)
    return {entry.name: known[entry.name] for entry in dataclasses.fields(kind)}


def _table(kind: type, values: Any, place: str, problems: list[str]) -> Any:
    if isinstance(values, kind):
        return values
    if not isinstance(values, Mapping):
        problems.append(_mismatch(place, values, f"a table with {', '.join(_hints(kind))}"))
        return _WRONG
    hints, before = _hints(kind), len(problems)
    known = {}
    for key, value in values.items():
        where = f"{place}.{key}" if place else str(key)
        if key in hints:
            known[key] = _value(hints[key], value, where, problems)
        else:
            problems.append(f"the unknown key {where}{_guess(key, hints)} (choices: {', '.join(hints)})")
    if len(problems) > before:
        return _WRONG
    try:
        return kind(**known)
    except TwodaslError as error:
        problems.append(f"{place}.{error}" if place else str(error))
    except TypeError as error:  # a field without a default is missing
        problems.append(f"{place}: {error}" if place else str(error))
    return _WRONG


def _value(hint: Any, value: Any, place: str, problems: list[str]) -> Any:
    """The value converted to its annotated type, or ``_WRONG``, with the reason added to ``problems``."""
    origin = typing.get_origin(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _table(hint, value, place, problems)
    if origin is tuple:
        return _tuple(typing.get_args(hint), value, place, problems)
    if origin in (typing.Union, types.UnionType):
        return _optional(typing.get_args(hint), value, place, problems)
    if origin is Literal:
        choices = typing.get_args(hint)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            guess = _guess(value, [choice for choice in choices if isinstance(choice, str)], quoted=True)
            problems.append(f"{place}: found {value!r}{guess}; expected {_list([repr(c) for c in choices])}")
            return _WRONG
        return value
    if hint not in _NAMES:
        raise TypeError(f"{place}: settings cannot be of type {hint}")
    plain = _plain(hint, value)
    if plain is _WRONG:
        problems.append(_mismatch(place, value, _NAMES[hint]))
    return plain


def _plain(kind: type, value: Any) -> Any:
    """The value as a bool, int, float or str; ``_WRONG`` if it is none of them."""
    if isinstance(value, bool) or kind is bool:
        return value if isinstance(value, bool) and kind is bool else _WRONG
    if kind is int and isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)
    if kind is float and isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return value if isinstance(value, kind) else _WRONG


def _tuple(kinds: tuple[Any, ...], value: Any, place: str, problems: list[str]) -> Any:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        problems.append(_mismatch(place, value, "a list"))
        return _WRONG
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    elif len(value) != len(kinds):
        problems.append(f"{place}: found {list(value)!r}, {len(value)} long; expected {len(kinds)} values")
        return _WRONG
    parts = [_value(kinds[k], inner, f"{place}.{k}", problems) for k, inner in enumerate(value)]
    return _WRONG if any(part is _WRONG for part in parts) else tuple(parts)


def _optional(kinds: tuple[Any, ...], value: Any, place: str, problems: list[str]) -> Any:
    if value is None and type(None) in kinds:
        return None
    (kind,) = (kind for kind in kinds if kind is not type(None))  # of unions, only optional values are used
    return _value(kind, value, place, problems)


# -------------------------------------------------------------------------------------------------------- messages
def _mismatch(place: str, value: Any, expected: str) -> str:
    found = "a table" if isinstance(value, Mapping) else repr(value)
    return f"{place}: found {found}; expected {expected}" if place else f"found {found}; expected {expected}"


def _guess(word: Any, choices: Sequence[str] | Mapping[str, Any], *, quoted: bool = False) -> str:
    near = difflib.get_close_matches(str(word), list(choices), n=1)
    if not near:
        return ""
    return f", did you mean {near[0]!r}?" if quoted else f", did you mean {near[0]}?"


def _list(words: Sequence[str]) -> str:
    """Join words as in ``"'a', 'b' or 'c'"``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
