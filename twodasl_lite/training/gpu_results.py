"""Results of GPU runs: the file that ``benchmarks/gpu_run.py`` writes, its log, and its weights in parts.

A run writes ``NAME.json`` (where and how it ran, how long each part took, what was measured) and ``NAME.log.jsonl``
(its training log). The packaged ones are ``assets/results/gpu_NAME.json``. See chapter 14. The
weights are split into parts, because some machines limit the size of files copied off them; :func:`join_weights` joins
the parts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import FileFormatError, ValueRangeError, require
from twodasl_lite.losses import SELF_SUPERVISED
from twodasl_lite.networks import load_regressor
from twodasl_lite.training.log import read_log

FORMAT, VERSION = "twodasl_lite.gpu_run", 1
PART_BYTES = 16_000_000
"""Largest size of a part of the weights, in bytes."""

_RESULTS = Path(str(resources.files("twodasl_lite"))) / "assets" / "results"
_PREFIX, _SUFFIX = "gpu_", ".json"
_EXPECTED = f"a {FORMAT}, version {VERSION}"
_PART = re.compile(r"(?P<stem>.+)\.(?P<number>\d+)of(?P<count>\d+)$")
_HASH_BYTES = 32


class GpuRun(NamedTuple):
    """A run and its measurements.

    Attributes:
        name: Name of its file, without ``gpu_``.
        facts: Content of the JSON file.
        rows: Rows of its training log; empty if training did not start.
    """

    name: str
    facts: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        """Whether the training reached its last step."""
        return bool(self.facts["finished"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Date, commit, device and versions."""
        return self.facts["provenance"]

    @property
    def training(self) -> dict[str, Any]:
        """Facts of the training: ``"configuration"``, ``"config"``, ``"step"``, ``"planned"``; may be empty."""
        return self.result("training")

    def result(self, part: str) -> dict[str, Any]:
        """Measurements of one part, for instance ``"evaluation"``; empty if it was skipped or failed."""
        return self.facts["parts"].get(part, {}).get("result") or {}

    @property
    def batch_size(self) -> int:
        """Pictures per step."""
        return batch_size(self.training["config"])

    def errors(self, measure: str = "68 points, 2D") -> dict[str, dict[str, Any]]:
        """The evaluation's tables of one measure, by input of the network (fractions, not per cent)."""
        rows = self.result("evaluation").get("rows", {})
        return {name: tables[measure] for name, tables in rows.items() if measure in tables}

    def timeline(self) -> list[tuple[int, float, float]]:
        """Steps, times and rates of the training, see :func:`timeline`."""
        return timeline(self.rows, self.batch_size)

    def seconds_at(self, step: float) -> float:
        """Seconds from the first step to this one, interpolated between the rows of the log.

        Raises:
            ValueRangeError: If the step is beyond the end of the log.
        """
        line = [(0, 0.0), *((at, seconds) for at, seconds, _ in self.timeline())]
        for (before, early), (after, late) in itertools.pairwise(line):
            if before <= step <= after:
                return early + (late - early) * (step - before) / (after - before)
        raise ValueRangeError(f"step: found {step}; expected 0 to {line[-1][0]}, the last in the log")


def batch_size(config: Mapping[str, Any]) -> int:
    """Pictures per step of a configuration in nested tables: labelled and, if a loss needs them, unlabelled ones."""
    unlabelled = any(config["self_supervision"].get(name, 0) > 0 for name in SELF_SUPERVISED)
    data = config["data"]
    return data["labelled"]["batch_size"] + (data["unlabelled"]["batch_size"] if unlabelled else 0)


def timeline(rows: Sequence[Mapping[str, Any]], pictures: int) -> list[tuple[int, float, float]]:
    """Time at each logged step, from the rates in the log.

    A row's rate covers all the time since the previous row, including validations and checkpoints, so that the times
    add up to wall-clock time.

    Args:
        rows: Rows of a log.
        pictures: Pictures per step.

    Returns:
        For each training row the step, the seconds since the start of the loop, and the pictures per second.
    """
    found: list[tuple[int, float, float]] = []
    before, seconds = 0, 0.0
    for row in rows:
        if row["kind"] == "train" and row.get("pictures_per_second"):
            seconds += (row["step"] - before) * pictures / row["pictures_per_second"]
            before = row["step"]
            found.append((before, seconds, row["pictures_per_second"]))
    return found


def steady_rate(line: Sequence[tuple[int, float, float]]) -> float:
    """The median rate of a timeline without its first row, which includes the start-up; NaN without rows."""
    rates = sorted(rate for _, _, rate in line[1:] or line)
    middle = len(rates) // 2
    if not rates:
        return math.nan
    return rates[middle] if len(rates) % 2 else (rates[middle - 1] + rates[middle]) / 2


def gpu_run_names() -> list[str]:
    """Names of the packaged runs: finished ones first, then by date, the latest first."""
    found = [path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX) for path in _RESULTS.glob(f"{_PREFIX}*{_SUFFIX}")]
    runs = [read_gpu_run(name) for name in sorted(found)]
    runs.sort(key=lambda run: run.provenance.get("date", ""), reverse=True)
    return [run.name for run in sorted(runs, key=lambda run: not run.finished)]


def read_gpu_run(name: str | os.PathLike[str]) -> GpuRun:
    """Read the results of a run.

    Args:
        name: Name of a packaged run (:func:`gpu_run_names`), or the JSON file of another run.

    Raises:
        FileFormatError: If the file or its log is missing, damaged, or of another format or version.
    """
    path = Path(name)
    if path.suffix != _SUFFIX:
        path = _RESULTS / f"{_PREFIX}{name}{_SUFFIX}"
    if not path.is_file():
        raise FileFormatError(path, "no such file", _EXPECTED)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        found = facts.get("format"), facts.get("version")
    except (ValueError, AttributeError) as error:
        raise FileFormatError(path, "a damaged file", _EXPECTED) from error
    if found != (FORMAT, VERSION):
        raise FileFormatError(path, f"{found[0] or 'no format'}, version {found[1]}", _EXPECTED)
    missing = {"finished", "provenance", "parts"} - facts.keys()
    if missing:
        raise FileFormatError(path, f"no {', '.join(sorted(missing))}", _EXPECTED)
    run = GpuRun(path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX), facts, [])
    log = run.training.get("log")
    return run._replace(rows=read_log(path.with_name(log))) if log else run


# -------------------------------------------------------------------------------------------------- weights in parts
def split_weights(path: str | os.PathLike[str], stem: str | os.PathLike[str], limit: int = PART_BYTES) -> list[Path]:
    """Write a trained network in half precision, split into parts.

    Matrices become float16; vectors (biases, normalisation, whitening), which may exceed its range, keep their type.

    Args:
        path: File written by :func:`~twodasl_lite.networks.save_regressor`.
        stem: Path of the parts without their suffix: ``STEM.1of3``, ``STEM.2of3``, ``STEM.3of3``.
        limit: Largest size of a part, in bytes.

    Returns:
        Paths of the parts in order. Each begins with the SHA-256 of the whole, so that parts of different runs cannot
        be mixed.

    Raises:
        FileFormatError: If the file is not a network of this package.
        ValueRangeError: If the limit is too small, or a weight exceeds the range of half precision.
    """
    if limit <= _HASH_BYTES:
        raise ValueRangeError(f"limit: found {limit} bytes; expected more than {_HASH_BYTES}")
    safetensors = require("safetensors", "train", "weights in parts")
    from safetensors.torch import save

    load_regressor(path)  # raises an error if it is not a network
    with safetensors.safe_open(path, framework="pt") as file:
        header = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name, value in tensors.items():
        if value.ndim > 1 and value.dtype == torch.float32:
            tensors[name] = value.half()
            if not bool(torch.isfinite(tensors[name]).all()):
                raise ValueRangeError(f"{name}: found up to {float(value.abs().max()):.3g}; expected below 65,504")
    content = save(tensors, metadata=header)
    mark, room = hashlib.sha256(content).digest(), limit - _HASH_BYTES
    count = math.ceil(len(content) / room)
    stem, parts = Path(stem), []
    for number in range(count):
        part = stem.with_name(f"{stem.name}.{number + 1}of{count}")
        with whole_file(part) as file:
            file.write(mark + content[number * room : (number + 1) * room])
        parts.append(part)
    return parts


def join_weights(part: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """Join the parts of a network to one file, which :func:`~twodasl_lite.networks.load_regressor` reads.

    Args:
        part: Any of the parts, for instance ``weights.1of3``; the others are in the same folder.
        path: File to write.

    Returns:
        Path of the file.

    Raises:
        FileFormatError: If a part is missing, damaged, or of another network.

    Example:
        >>> join_weights("out/gpu_run.weights.1of3", "regressor.safetensors")  # doctest: +SKIP
    """
    part = Path(part)
    found = _PART.match(part.name)
    if not found:
        raise FileFormatError(part, f"the name {part.name!r}", "a part of weights, NAME.1of3 for instance")
    count, expected = int(found["count"]), f"one of {found['count']} parts of the same network"
    pieces, marks = [], set()
    for number in range(1, count + 1):
        one = part.with_name(f"{found['stem']}.{number}of{count}")
        if not one.is_file():
            raise FileFormatError(one, "no such file", expected)
        content = one.read_bytes()
        marks.add(content[:_HASH_BYTES])
        if len(marks) > 1:
            raise FileFormatError(one, "a part of another network", expected)
        pieces.append(content[_HASH_BYTES:])
    whole = b"".join(pieces)
    if hashlib.sha256(whole).digest() not in marks:
        raise FileFormatError(part, "damaged parts (the hash does not match)", expected)
    path = Path(path)
    with whole_file(path) as file:
        file.write(whole)
    return path
