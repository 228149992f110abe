"""Ablation of the losses: the same run with different combinations of them, several seeds each.

The rows are the configurations ``ablation/...``: labelled pictures only; with plain 2D landmark supervision, the fair
second baseline; with each further loss added to that, the paper's three and a plain prior; with the paper's four; with
all five. All rows of a seed start from the same weights and see the same labelled pictures in the same order. Each run
stores the errors of all test pictures, so that rows are compared picture by picture and seed by seed.

Runs are folders ``ROW/seed-N``; finished runs are not repeated, and an interrupted one continues from its checkpoint.
See chapter 14.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from twodasl_lite.base.archive import read_archive, whole_file, write_archive
from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import FileFormatError, TwodaslError
from twodasl_lite.datasets.pool import run_tasks
from twodasl_lite.evaluation import Difference, Table, markdown, paired_difference, summarise
from twodasl_lite.evaluation.measures import MEASURE_TITLES
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.networks import load_regressor
from twodasl_lite.training.config import TrainConfig, config_from_dict, config_to_dict, load_config
from twodasl_lite.training.distributed import best_device
from twodasl_lite.training.log import code_version, describe_device, read_log
from twodasl_lite.training.loop import LAST_FILE, train
from twodasl_lite.training.pictures import pictures
from twodasl_lite.training.validation import MEASURES, evaluate_on

Size = Literal["cpu", "gpu"]
BASES: dict[Size, str] = {"cpu": "lite-cpu", "gpu": "ablation-gpu"}
"""Base configuration of the rows, by size."""

LABELLED, LANDMARKS_2D = "labelled", "+landmarks_2d"
ROWS = (
    LABELLED,
    LANDMARKS_2D,
    "+landmarks_2d+landmarks_3d",
    "+landmarks_2d+cycle",
    "+landmarks_2d+critic",
    "+landmarks_2d+prior",
    "all",
    "all+prior",
)
"""Names of the rows, in the order of the table."""

_ALONE = "_without_detector"
_COLUMNS = (*MEASURES, *(name + _ALONE for name in MEASURES))
_ERRORS_FILE, _RESULT_FILE, _TABLE_FILE = "errors.npz", "result.json", "table.json"
RUN_RESULTS = (_ERRORS_FILE, _RESULT_FILE)
"""Files of a finished run that the table is made from; the result is written last."""
_FORMAT, _VERSION = "twodasl_lite.test_errors", 1


class _Settings(NamedTuple):
    """Settings shared by all runs."""

    folder: Path
    device: str | None
    threads: int | None
    alone: bool


def row_config(row: str, seed: int = 0, size: Size = "cpu", overrides: Sequence[str] = ()) -> TrainConfig:
    """The configuration of one run.

    Args:
        row: One of :data:`ROWS`.
        seed: Seed of the run.
        size: Size of the base configuration: minutes on a CPU, or a larger run on a GPU.
        overrides: Overrides, ``"key=value"``.

    Raises:
        ValueRangeError: If the row or size is unknown.
    """
    check_choice("row", row, ROWS)
    check_choice("size", size, BASES)
    return replace(load_config(f"ablation/{row}", overrides, base=BASES[size]), seed=seed)


def ablate(
    folder: str | Path,
    *,
    size: Size = "cpu",
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    overrides: Sequence[str] = (),
    device: str | None = None,
    threads: int | None = None,
    jobs: int = 1,
    train_missing: bool = True,
) -> dict[str, Any]:
    """Train the missing runs, and compare all runs in a table.

    Args:
        folder: Folder of the runs and the table.
        size: Size of the runs, ``"cpu"`` or ``"gpu"``.
        rows: Rows to train; by default all.
        seeds: Seeds to train.
        overrides: Overrides for every run, ``"key=value"``.
        device: Device to compute on; by default a GPU if there is one.
        threads: CPU threads of each run; with several jobs each run has one.
        jobs: Number of parallel runs.
        train_missing: Whether to train missing runs; otherwise the table compares only existing ones.

    Returns:
        The table, as written to ``table.json``: errors as fractions, by yaw bin, with confidence intervals; differences
        to both baselines; provenance.

    Raises:
        TwodaslError: If a run fails, or there is no run to compare.
    """
    folder, rows = Path(folder), list(rows or ROWS)
    configs = {(row, seed): row_config(row, seed, size, overrides) for seed in seeds for row in rows}
    if train_missing:
        if threads is not None:
            torch.set_num_threads(threads)
        missing = [key for key in configs if not (_run_folder(folder, *key) / _RESULT_FILE).is_file()]
        _draw(configs, missing)
        settings = _Settings(folder, device, threads, jobs <= 1)
        for row, seed in run_tasks(_make_run, settings, [(key, configs[key]) for key in missing], jobs):
            print(f"finished: {row}, seed {seed}", flush=True)
    table = make_table(folder, rows, seeds)
    table["size"] = size
    with whole_file(folder / _TABLE_FILE) as file:
        file.write((json.dumps(table, indent=1) + "\n").encode())
    return table


def _run_folder(folder: Path, row: str, seed: int) -> Path:
    return folder / row / f"seed-{seed}"


def _draw(configs: Mapping[tuple[str, int], TrainConfig], wanted: Sequence[tuple[str, int]]) -> None:
    """Render all pictures into the cache before the runs start, because they share them."""
    model, done = load_face_model(CoefficientLayout()), set()
    for key in wanted:
        data = configs[key].data
        sources = [data.validation, data.test]
        if data.hold != "stream":
            sources += [data.labelled] + ([data.unlabelled] if configs[key].self_supervision.weights else [])
        for source in sources:
            if source not in done:
                done.add(source)
                pictures(source, model, truth=False, processes=data.processes)


def _make_run(settings: _Settings, task: tuple[tuple[str, int], TrainConfig]) -> tuple[str, int]:
    """Train and test one run."""
    (row, seed), config = task
    folder = _run_folder(settings.folder, row, seed)
    started = time.perf_counter()
    train(config, folder, resume=True, device=settings.device, progress=settings.alone)
    trained = time.perf_counter() - started

    place = torch.device(settings.device) if settings.device else best_device()
    model = load_face_model(CoefficientLayout(), device=place)
    regressor = load_regressor(folder / LAST_FILE, place)
    faces = pictures(config.data.test, model.cpu(), processes=1)
    model = model.to(place)
    columns = {"yaw": faces.yaw}
    for detector, ending in ((True, ""), (False, _ALONE)):
        found = evaluate_on(
            regressor.network,
            regressor.whitening,
            model,
            faces,
            kind=config.network.map,
            pose=config.network.pose,
            detector=detector,
        )
        columns |= {name + ending: getattr(found, name) for name in MEASURES}
    write_archive(folder / _ERRORS_FILE, _FORMAT, _VERSION, columns)
    result = {
        "config": config_to_dict(config),
        "code": code_version(),
        "device": describe_device(place),
        "seconds": round(trained, 1),
        "training_seconds": _training_seconds(folder),
    }
    with whole_file(folder / _RESULT_FILE) as file:
        file.write(json.dumps(result, indent=1).encode())
    return row, seed


def _training_seconds(folder: Path) -> float:
    """Seconds of training, summed over the pieces of an interrupted run."""
    return round(sum(line["seconds"] for line in read_log(folder) if line["kind"] in ("end", "pause")), 1)


# ------------------------------------------------------------------------------------------------------- the table
def read_errors(folder: str | Path, row: str, seed: int) -> dict[str, torch.Tensor]:
    """Errors of one run on the test pictures, ``(N,)`` each: ``yaw``, ``landmarks_2d``, ...

    Raises:
        FileFormatError: If the run does not exist or its file is damaged.
    """
    path = _run_folder(Path(folder), row, seed) / _ERRORS_FILE
    return read_archive(path, _FORMAT, _VERSION, required=("yaw", *_COLUMNS))[0]


def make_table(folder: str | Path, rows: Sequence[str] = ROWS, seeds: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """Compare the finished runs.

    Args:
        folder: Folder of the ablation.
        rows: Rows to compare; those without a finished run are left out.
        seeds: Seeds to compare; unfinished runs are left out.

    Returns:
        See :func:`ablate`.

    Raises:
        TwodaslError: If no run is finished, or runs were tested on different pictures.
    """
    folder = Path(folder)
    errors: dict[str, dict[int, dict[str, torch.Tensor]]] = {}
    results: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        for seed in seeds:
            path = _run_folder(folder, row, seed) / _RESULT_FILE
            if path.is_file():
                errors.setdefault(row, {})[seed] = read_errors(folder, row, seed)
                results.setdefault(row, {})[seed] = _read_result(path)
    if not errors:
        raise TwodaslError(f"{folder}: found no finished run of {', '.join(rows)}; expected at least one")
    yaw = next(iter(next(iter(errors.values())).values()))["yaw"]
    if any(not torch.equal(run["yaw"], yaw) for runs in errors.values() for run in runs.values()):
        raise TwodaslError(f"{folder}: found runs tested on different pictures; expected the same test set for all")

    table: dict[str, Any] = {"test_pictures": len(yaw), "rows": {}, "provenance": {}}
    for row, runs in errors.items():
        entry: dict[str, Any] = {
            name: summarise(torch.stack([run[name] for run in runs.values()]), yaw).to_dict() for name in _COLUMNS
        }
        entry["seeds"] = {
            str(seed): {name: summarise(run[name], yaw, intervals=False).to_dict() for name in _COLUMNS}
            for seed, run in runs.items()
        }
        entry["against"] = {
            other: _differences(runs, errors[other], yaw)
            for other in (LABELLED, LANDMARKS_2D)
            if other in errors and other != row and set(errors[other]) & set(runs)
        }
        entry["training_seconds"] = {str(seed): results[row][seed]["training_seconds"] for seed in runs}
        table["rows"][row] = entry
        first = next(iter(results[row].values()))
        table["provenance"][row] = {key: first[key] for key in ("config", "code", "device")}
    return table


def _read_result(path: Path) -> dict[str, Any]:
    expected = "the result of a run"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        config_from_dict(result["config"], str(path))
    except (ValueError, KeyError, TypeError) as error:
        raise FileFormatError(path, f"a damaged file ({error})", expected) from error
    return result


def _differences(
    runs: Mapping[int, Mapping[str, torch.Tensor]], others: Mapping[int, Mapping[str, torch.Tensor]], yaw: torch.Tensor
) -> dict[str, Any]:
    """Paired differences of balanced errors over the seeds that both rows have, overall and for each seed."""
    common = [seed for seed in runs if seed in others]

    def one(name: str, seeds: Sequence[int]) -> dict[str, float | bool]:
        pair = [torch.stack([side[seed][name] for seed in seeds]) for side in (runs, others)]
        found: Difference = paired_difference(*pair, yaw)
        return {**found._asdict(), "separate": found.separate}

    return {
        name: {**one(name, common), "seeds": {str(seed): one(name, [seed]) for seed in common}} for name in _COLUMNS
    }


def table_of(entry: Mapping[str, Any]) -> Table:
    """A row's entry for one measure, for instance ``table["rows"]["all"]["landmarks_2d"]``, as a printable table."""
    bins = tuple(entry["bins"].values())
    ends = entry.get("intervals", {})
    return Table(
        bins=bins,
        balanced=entry["balanced"],
        mean=entry["mean"],
        counts=tuple(entry["counts"].values()),
        runs=entry["runs"],
        bin_intervals=tuple(ends[name] for name in entry["bins"]) if ends else None,
        balanced_interval=ends.get("balanced"),
        mean_interval=ends.get("mean"),
    )


def print_table(table: Mapping[str, Any]) -> None:
    """Print the table and the difference of each row to both baselines."""
    for name in (*MEASURES, "landmarks_2d" + _ALONE):
        title = MEASURE_TITLES[name]
        print(f"\n{title}\n")
        print(markdown({row: table_of(entry[name]) for row, entry in table["rows"].items()}, 2))
    print("\nDifference of the balanced error, 68 landmarks, 2D\n")
    for row, entry in table["rows"].items():
        for other, found in entry["against"].items():
            value = found["landmarks_2d"]
            ends = f"[{100 * value['low']:+.2f}, {100 * value['high']:+.2f}]"
            says = "" if value["separate"] else "  (no clear difference)"
            print(
                f"{row} against {other}: {100 * value['value']:+.2f} {ends} %, "
                f"relative {100 * value['relative']:+.1f} %{says}"
            )


def print_gain(table: Mapping[str, Any], row: str, baseline: str = LANDMARKS_2D) -> None:
    """Print the difference of a row to a baseline, one line per measure, in percentage points of balanced NME.

    Args:
        table: The ablation's table.
        row: Name of the row.
        baseline: Name of the row that it is compared with.

    Raises:
        ValueRangeError: If the table has no such row, or no comparison with this baseline.
    """
    compared = {name: entry["against"] for name, entry in table["rows"].items() if baseline in entry["against"]}
    check_choice("row", row, compared)
    for name, found in compared[row][baseline].items():
        value, low, high = (100 * found[key] for key in ("value", "low", "high"))
        verdict = "helps" if high < 0 else "costs" if low > 0 else "no clear difference"
        print(f"{MEASURE_TITLES[name]:<36} {value:+.2f} [{low:+.2f}, {high:+.2f}]  {verdict}")
