"""Reading the log of a training run: one JSON object a line, as :mod:`twodasl_lite.training.log` writes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twodasl_lite.base.errors import FileFormatError

LOG_FILE = "log.jsonl"
"""Its name in a run's folder."""


def read_log(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read the rows of a log, even while it is being written: an unfinished last line is left out.

    Args:
        path: The file, or the run's folder.

    Raises:
        FileFormatError: If the file is missing, or another line is not a JSON object.
    """
    path = Path(path)
    path = path / LOG_FILE if path.is_dir() else path
    expected = "a training log, one JSON object per line"
    if not path.is_file():
        raise FileFormatError(path, "no such file", expected)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or not {"kind", "step"} <= row.keys():
                raise ValueError("no kind or step")
        except ValueError as error:
            if number == len(lines) - 1:
                break
            raise FileFormatError(path, f"an unreadable line {number + 1}", expected) from error
        rows.append(row)
    return rows
