"""The same comparison in many settings: does what an ablation says depend on the data?

A sweep is a small file beside this module (``sweeps/*.toml``): rows of the ablation, of which the first is the
baseline, and axes, each with named settings of ``key=value`` words. Every combination of settings is an ablation of
its own, in a folder such as ``error-4_labels-500``. Explained in the chapter "Training 2DASL".
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from twodasl_lite.archive import whole_file
from twodasl_lite.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.settings import SettingsError, from_table, read_toml
from twodasl_lite.training.ablation import ROWS, ablate, make_table

_TABLE_FILE = "sweep.json"


@dataclass(frozen=True)
class Setting:
    """One point of an axis."""

    name: str
    set: tuple[str, ...] = ()  # "key=value" words, as for twodasl train


@dataclass(frozen=True)
class Axis:
    """What is varied."""

    name: str
    title: str
    settings: tuple[Setting, ...]

    def __post_init__(self) -> None:
        names = [setting.name for setting in self.settings]
        if not names or len(set(names)) < len(names):
            raise ValueRangeError(f"settings: found {', '.join(names) or 'none'}; expected one or more, no name twice")


@dataclass(frozen=True)
class Sweep:
    """Rows of the ablation to compare, in every combination of settings."""

    about: str
    rows: tuple[str, ...]  # the first is the baseline of the others
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if len(self.rows) < 2 or not set(self.rows) <= set(ROWS):
            raise ValueRangeError(f"rows: found {list(self.rows)}; expected two or more of {', '.join(ROWS)}")
        if not self.axes:
            raise ValueRangeError("axes: found none; expected at least one")


class Cell(NamedTuple):
    """One combination of settings.

    Attributes:
        place: Name of the axis to name of the setting.
        folder: Name of its folder.
        overrides: ``"key=value"`` words.
    """

    place: dict[str, str]
    folder: str
    overrides: tuple[str, ...]


def sweep_names() -> tuple[str, ...]:
    """The sweeps that come with the package."""
    files = (resources.files(__package__) / "sweeps").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_sweep(name: str | Path) -> Sweep:
    """A sweep by its name, or from a file.

    Args:
        name: One of :func:`sweep_names`, or the path of a ``.toml`` file.

    Raises:
        FileFormatError: If the file is missing, no TOML, or says something that a sweep does not know.
        ValueRangeError: If there is no sweep of that name.
    """
    path, expected = Path(name), "a sweep's .toml file"
    if path.suffix != ".toml":
        if str(name) not in sweep_names():
            raise ValueRangeError(f"sweep: found {name!r}; expected one of {', '.join(sweep_names())}, or a .toml file")
        path = Path(str(resources.files(__package__) / "sweeps" / f"{name}.toml"))
    if not path.is_file():
        raise FileFormatError(path, "no such file", expected)
    try:
        return from_table(Sweep, read_toml(path, expected))
    except SettingsError as error:
        raise FileFormatError(path, str(error), expected) from error


def cells(sweep: Sweep) -> list[Cell]:
    """Every combination of settings, the last axis changing first."""
    found = []
    for chosen in itertools.product(*(axis.settings for axis in sweep.axes)):
        place = {axis.name: setting.name for axis, setting in zip(sweep.axes, chosen, strict=True)}
        words = tuple(word for setting in chosen for word in setting.set)
        found.append(Cell(place, "_".join(f"{axis}-{setting}" for axis, setting in place.items()), words))
    return found


def run_sweep(
    folder: str | Path, sweep: Sweep, *, overrides: Sequence[str] = (), train_missing: bool = True, **how: Any
) -> dict[str, Any]:
    """Make the runs that are not there yet, and the table of all.

    Args:
        folder: Where the ablations and the table go.
        sweep: What to run.
        overrides: ``"key=value"`` words for every run; those of a setting come after them.
        train_missing: Whether to train; without, the table is made of the runs that are there.
        how: ``size``, ``seeds``, ``device``, ``threads`` and ``jobs``, as of :func:`~.ablation.ablate`.

    Returns:
        The table, as it is written to ``sweep.json``; see :func:`make_sweep_table`.

    Raises:
        TwodaslError: If a run fails, or no cell has runs to compare.
    """
    folder = Path(folder)
    if train_missing:
        for cell in cells(sweep):
            print(f"{cell.folder}", flush=True)
            ablate(folder / cell.folder, rows=sweep.rows, overrides=[*overrides, *cell.overrides], **how)
    table = make_sweep_table(folder, sweep, how.get("seeds", (0, 1, 2)))
    with whole_file(folder / _TABLE_FILE) as file:
        file.write((json.dumps(table, indent=1) + "\n").encode())
    return table


def make_sweep_table(folder: str | Path, sweep: Sweep, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Compare the rows of every cell whose runs are there.

    Args:
        folder: Of the sweep.
        sweep: What was run.
        seeds: Which seeds.

    Returns:
        ``axes``; ``cells``, each with its ``place``, and by measure the balanced error of every row and the paired
        differences of the others to the first row, with intervals over seeds and pictures; ``provenance``.

    Raises:
        TwodaslError: If no cell has runs of the baseline and another row.
    """
    folder, first = Path(folder), sweep.rows[0]
    found, provenance, seconds = [], None, 0.0
    for cell in cells(sweep):
        try:
            table = make_table(folder / cell.folder, sweep.rows, seeds)
        except TwodaslError:
            continue
        rows = table["rows"]
        if first not in rows or len(rows) < 2:
            continue
        measures = [name for name, value in rows[first].items() if isinstance(value, dict) and "balanced" in value]
        found.append(
            {
                "place": cell.place,
                "seeds": sorted(int(seed) for seed in rows[first]["seeds"]),
                "errors": {row: {name: entry[name]["balanced"] for name in measures} for row, entry in rows.items()},
                "against": {
                    row: {
                        name: {key: entry["against"][first][name][key] for key in ("value", "low", "high")}
                        for name in measures
                    }
                    for row, entry in rows.items()
                    if row != first
                },
            }
        )
        provenance = provenance or table["provenance"][first]
        seconds += sum(sum(entry["training_seconds"].values()) for entry in rows.values())
    if provenance is None:
        raise TwodaslError(f"{folder}: found no cell with runs of {first} and another row; expected at least one")
    return {
        "about": sweep.about,
        "baseline": first,
        "axes": [
            {"name": axis.name, "title": axis.title, "settings": [setting.name for setting in axis.settings]}
            for axis in sweep.axes
        ],
        "cells": found,
        "seconds": round(seconds),
        "provenance": {key: provenance[key] for key in ("code", "device")},
    }


def print_sweep(table: dict[str, Any]) -> None:
    """Print the difference of every cell and measure, in percentage points with its interval."""
    for cell in table["cells"]:
        print("\n" + ", ".join(f"{axis} {setting}" for axis, setting in cell["place"].items()))
        for row, measures in cell["against"].items():
            for name, found in measures.items():
                base = cell["errors"][table["baseline"]][name]
                value, low, high = (100 * found[key] for key in ("value", "low", "high"))
                clear = "" if low <= 0 <= high else "  *"
                print(f"  {row:28} {name:32} {100 * base:6.2f}  {value:+.2f} [{low:+.2f}, {high:+.2f}]{clear}")
