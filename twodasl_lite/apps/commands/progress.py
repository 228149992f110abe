"""A progress bar on a terminal; nothing is drawn when the output goes to a file."""

from __future__ import annotations

import sys
from typing import TextIO

_WIDTH = 30


class ProgressBar:
    """A progress bar; call it with the amount done and the total.

    Args:
        label: Name of the task.
        stream: Stream to draw on; standard error by default. Nothing is drawn unless it is a terminal.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label = label
        self.stream = sys.stderr if stream is None else stream
        self.shown = -1

    def __call__(self, done: int, total: int) -> None:
        """Redraw the bar when the percentage has changed."""
        percent = 100 * done // max(total, 1)
        if percent == self.shown or not self.stream.isatty():
            return
        self.shown = percent
        bar = "#" * (_WIDTH * percent // 100)
        end = "\n" if done >= total else ""
        self.stream.write(f"\r{self.label} [{bar:<{_WIDTH}}] {percent:3} % ({done}/{total}){end}")
        self.stream.flush()
