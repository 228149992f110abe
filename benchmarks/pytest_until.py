"""A plugin for pytest: no test begins after ``TESTS_UNTIL`` (seconds, as ``time.time`` counts them).

What became of each test is written to the file ``TESTS_OUTCOMES`` as soon as it is known, a line of JSON each: name,
outcome (``"passed"``, ``"failed"``, ``"error"``, ``"skipped"``, or ``"late"`` for one that was not begun), seconds and
why. ``gpu_run.py`` runs the tests of CUDA with it.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

_LATE = "the time was over"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what would begin too late."""
    if time.time() > float(os.environ["TESTS_UNTIL"]):
        pytest.skip(_LATE)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write a test down: once if all is well, and once for each of its phases that goes wrong."""
    if report.when != "call" and report.passed:
        return
    outcome, why = report.outcome, ""
    if report.failed:
        outcome = "failed" if report.when == "call" else "error"
        crash = getattr(report.longrepr, "reprcrash", None)
        why = str(crash.message if crash else report.longrepr)[:300]
    elif report.skipped:
        why = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)[:300]
        outcome = "late" if _LATE in why else outcome
    row = {"test": report.nodeid, "outcome": outcome, "seconds": round(report.duration, 2), "why": why}
    with Path(os.environ["TESTS_OUTCOMES"]).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file of tests that cannot be read is an error too."""
    if report.failed:
        row = {"test": report.nodeid, "outcome": "error", "seconds": 0.0, "why": str(report.longrepr)[-300:]}
        with Path(os.environ["TESTS_OUTCOMES"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
