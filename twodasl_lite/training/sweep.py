"""Sweeps: the same ablation under several settings, to see whether its result depends on the data.

A sweep is a small file next to this module (``sweeps/*.toml``): rows of the ablation, the first of which is the
baseline, and axes with named settings: overrides ``key=value``, or a factor on the weights of the losses that a row
adds to the baseline. Every combination of settings is a separate ablation, in a folder such as ``error-4_labels-500``.
See chapter 14.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_number
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.base.settings import SettingsError, from_table, read_toml
from twodasl_lite.training.ablation import ROWS, RUN_RESULTS, Size, ablate, make_table, row_config

_TABLE_FILE = "sweep.json"


@dataclass(frozen=True)
class Setting:
    """One setting on an axis."""

    name: str
    set: tuple[str, ...] = ()  # "key=value" overrides, as for twodasl train
    scale: float = 1.0  # factor on the weights of the losses that a row adds to the baseline

    def __post_init__(self) -> None:
        check_number("scale", self.scale, above=0)


@dataclass(frozen=True)
class Axis:
    """A property that is varied."""

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
    rows: tuple[str, ...]  # the first is the baseline
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if len(self.rows) < 2 or not set(self.rows) <= set(ROWS):
            raise ValueRangeError(f"rows: found {list(self.rows)}; expected two or more of {', '.join(ROWS)}")
        if not self.axes:
            raise ValueRangeError("axes: found none; expected at least one")


class Cell(NamedTuple):
    """One combination of settings.

    Attributes:
        place: Name of each axis to name of its setting.
        folder: Name of the cell's folder.
        overrides: ``"key=value"`` overrides.
        scale: Factor on the weights of the losses that a row adds to the baseline.
    """

    place: dict[str, str]
    folder: str
    overrides: tuple[str, ...]
    scale: float


def sweep_names() -> tuple[str, ...]:
    """Names of the packaged sweeps."""
    files = (resources.files(__package__) / "sweeps").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_sweep(name: str | Path) -> Sweep:
    """Load a sweep by its name, or from a file.

    Args:
        name: One of :func:`sweep_names`, or the path of a ``.toml`` file.

    Raises:
        FileFormatError: If the file is missing, not TOML, or has an unknown key or an invalid value.
        ValueRangeError: If the name is unknown.
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
    """All combinations of settings; the last axis varies fastest."""
    found = []
    for chosen in itertools.product(*(axis.settings for axis in sweep.axes)):
        place = {axis.name: setting.name for axis, setting in zip(sweep.axes, chosen, strict=True)}
        words = tuple(word for setting in chosen for word in setting.set)
        scale = math.prod(setting.scale for setting in chosen)
        found.append(Cell(place, "_".join(f"{axis}-{setting}" for axis, setting in place.items()), words, scale))
    return found


def scaled_weights(row: str, baseline: str, scale: float, size: Size = "cpu") -> list[str]:
    """Overrides that scale the weights of the losses that a row adds to the baseline; none for the baseline itself."""
    weights, before = (row_config(name, size=size).self_supervision.weights for name in (row, baseline))
    added = {name: weight for name, weight in weights.items() if name not in before}
    return [] if scale == 1 else [f"self_supervision.{name}={scale * weight:g}" for name, weight in added.items()]


def run_sweep(
    folder: str | Path, sweep: Sweep, *, overrides: Sequence[str] = (), train_missing: bool = True, **how: Any
) -> dict[str, Any]:
    """Train the missing runs, and compare all runs in a table.

    Args:
        folder: Folder of the ablations and the table.
        sweep: The sweep to run.
        overrides: ``"key=value"`` overrides for every run; those of a setting are applied after them.
        train_missing: Whether to train missing runs; otherwise the table compares only existing ones.
        how: ``size``, ``seeds``, ``device``, ``threads`` and ``jobs``, as in :func:`~.ablation.ablate`.

    Returns:
        The table, as written to ``sweep.json``; see :func:`make_sweep_table`.

    Raises:
        TwodaslError: If a run fails, or no cell has runs to compare.
    """
    folder = Path(folder)
    if train_missing:
        baseline, baselines = sweep.rows[0], {}
        for cell in cells(sweep):
            print(f"{cell.folder}", flush=True)
            if cell.overrides in baselines:
                _copy_runs(folder / baselines[cell.overrides] / baseline, folder / cell.folder / baseline)
            baselines.setdefault(cell.overrides, cell.folder)
            for row in sweep.rows:
                weights = scaled_weights(row, baseline, cell.scale, how.get("size", "cpu"))
                ablate(folder / cell.folder, rows=[row], overrides=[*overrides, *cell.overrides, *weights], **how)
            ablate(folder / cell.folder, rows=sweep.rows, train_missing=False, **how)
    table = make_sweep_table(folder, sweep, how.get("seeds", (0, 1, 2)))
    with whole_file(folder / _TABLE_FILE) as file:
        file.write((json.dumps(table, indent=1) + "\n").encode())
    return table


def _copy_runs(source: Path, target: Path) -> None:
    """Results of the baseline from another cell, in which the same runs would be trained again."""
    for run in source.iterdir():
        (target / run.name).mkdir(parents=True, exist_ok=True)
        for name in RUN_RESULTS:
            shutil.copy2(run / name, target / run.name / name)


def make_sweep_table(folder: str | Path, sweep: Sweep, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Compare the rows in every cell that has finished runs.

    Args:
        folder: Folder of the sweep.
        sweep: The sweep that was run.
        seeds: Seeds to compare.

    Returns:
        ``axes``; ``cells``, each with its ``place`` and, by measure, the balanced error of every row and the paired
        differences to the first row, with confidence intervals over seeds and pictures; ``provenance``.

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
    """Print the differences for every cell and measure, in percentage points with confidence intervals."""
    for cell in table["cells"]:
        print("\n" + ", ".join(f"{axis} {setting}" for axis, setting in cell["place"].items()))
        for row, measures in cell["against"].items():
            for name, found in measures.items():
                base = cell["errors"][table["baseline"]][name]
                value, low, high = (100 * found[key] for key in ("value", "low", "high"))
                clear = "" if low <= 0 <= high else "  *"
                print(f"  {row:28} {name:32} {100 * base:6.2f}  {value:+.2f} [{low:+.2f}, {high:+.2f}]{clear}")
