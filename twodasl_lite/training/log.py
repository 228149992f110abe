"""The log of a run: one JSON object per line, readable while it grows.

Rows have the ``kind`` ``"start"`` (device and code version), ``"train"`` (losses, learning rate, speed),
``"validation"`` (errors), ``"pause"`` or ``"end"``. A resumed run drops the rows after its checkpoint and writes them
again.
"""

from __future__ import annotations

import json
import math
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from twodasl_lite import __version__
from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import require
from twodasl_lite.base.run_log import LOG_FILE, read_log


class RunLog:
    """Appends rows to a run's log, and optionally to TensorBoard.

    Args:
        folder: The run's folder.
        step: Step of the checkpoint that the run continues from; later rows are dropped.
        tensorboard: Whether to write TensorBoard's event files, too.
        watch: Called with every row; first with the kept rows of an earlier part of the run.
    """

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        *,
        tensorboard: bool = False,
        watch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.path = Path(folder) / LOG_FILE
        self._watch = watch
        kept: list[dict[str, Any]] = []
        if self.path.is_file():
            kept = [row for row in read_log(self.path) if row["step"] <= step and step]
            with whole_file(self.path) as file:
                file.write("".join(json.dumps(row) + "\n" for row in kept).encode())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        for row in kept if watch else ():
            watch(row)
        self._board = None
        if tensorboard:
            board = require("torch.utils.tensorboard", "train", "TensorBoard's log")
            self._board = board.SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append a row, with numbers rounded to six digits."""
        row = {"kind": kind, "step": step, **_rounded(values)}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._watch is not None:
            self._watch(row)
        if self._board is not None:
            for name, value in _flat(row).items():
                if name not in ("kind", "step"):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Numbers of nested tables, with names joined by slashes."""
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            numbers |= _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[prefix + key] = value
    return numbers


def code_version() -> dict[str, Any]:
    """The package's version and, in a clone, the commit and whether files differ from it."""
    version: dict[str, Any] = {"twodasl_lite": __version__, "torch": torch.__version__}
    here = Path(__file__).resolve().parents[2]
    if (here / ".git").exists():
        try:
            commit = _git(here, "rev-parse", "HEAD")
            version["commit"] = commit
            version["changed"] = bool(_git(here, "status", "--porcelain", "--", "twodasl_lite"))
        except (OSError, subprocess.SubprocessError):
            pass  # no git here: report only the version
    return version


def _git(folder: Path, *words: str) -> str:
    run = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return run.stdout.strip()


def describe_device(device: torch.device) -> dict[str, Any]:
    """Description of the device, for the log of a run."""
    if device.type == "cuda":
        return {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return {"device": "cpu", "machine": platform.machine(), "threads": torch.get_num_threads()}


class Speed:
    """Measures pictures per second."""

    def __init__(self) -> None:
        self.since, self.pictures = time.perf_counter(), 0

    def add(self, pictures: int) -> None:
        """Count pictures."""
        self.pictures += pictures

    def look(self) -> float:
        """Pictures per second since the last call."""
        now = time.perf_counter()
        speed = self.pictures / max(now - self.since, 1e-9)
        self.since, self.pictures = now, 0
        return speed
