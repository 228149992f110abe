"""A progress bar for a terminal; nothing where the output goes to a file."""

from __future__ import annotations

import sys
from typing import TextIO

_WIDTH = 30


class ProgressBar:
    """A bar; call it with how much is done and how much there is.

    Args:
        label: What is being done.
        stream: Where to draw; the standard error by default. Nothing is drawn unless it is a terminal.
    """

    def __init__(self, label: str, stream: TextIO | None = None) -> None:
        self.label = label
        self.stream = sys.stderr if stream is None else stream
        self.shown = -1

    def __call__(self, done: int, total: int) -> None:
        """Draw the bar, if a percent more is done."""
        percent = 100 * done // max(total, 1)
        if percent == self.shown or not self.stream.isatty():
            return
        self.shown = percent
        bar = "#" * (_WIDTH * percent // 100)
        end = "\n" if done >= total else ""
        self.stream.write(f"\r{self.label} [{bar:<{_WIDTH}}] {percent:3} % ({done}/{total}){end}")
        self.stream.flush()
