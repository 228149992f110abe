"""Results of autograding: the points of each submission, and the problems it ran into.

nbgrader keeps points in a database and errors in the graded notebooks; this module brings the two together. A
submission that could not be graded at all (the kernel died, the file is not a notebook) is listed too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.course.build import course_api

STOPPED = "stopped by the time limit"
NOT_GRADED = "could not be graded: damaged file, or its kernel died or could not be stopped"


@dataclass(frozen=True)
class Result:
    """Result of one submission.

    Attributes:
        assignment: Name of the assignment.
        student: Name of the student.
        points: Points so far, from tests and from graders.
        maximum: Highest possible number of points.
        waiting: Number of answers that a person still has to grade.
        failed: Names of the tests without full points.
        remarks: Problems during the run, in words.
    """

    assignment: str
    student: str
    points: float
    maximum: float
    waiting: int
    failed: tuple[str, ...]
    remarks: tuple[str, ...]


def report(folder: str | os.PathLike[str], assignment: str | None = None) -> list[Result]:
    """Results of all submissions of a course.

    Args:
        folder: Folder of the course.
        assignment: Name of the only assignment to report; all by default.

    Returns:
        One row per submission, sorted.

    Raises:
        FileFormatError: If the folder is not a course.
        ValueRangeError: If there is no such assignment.
    """
    folder = Path(folder)
    api = course_api(folder)
    known = sorted(path.name for path in (folder / "source").glob("*") if path.is_dir())
    if assignment is not None and assignment not in known:
        raise ValueRangeError(f"assignment: found {assignment!r}; expected one of {', '.join(known)}")
    rows = []
    for path in sorted((folder / "submitted").glob("*/*")):
        if path.is_dir() and path.name in known and assignment in (None, path.name):
            rows.append(_result(api, folder, path.name, path.parent.name))
    return sorted(rows, key=lambda row: (row.assignment, row.student))


def _result(api: Any, folder: Path, assignment: str, student: str) -> Result:
    from nbgrader.api import MissingEntry

    graded = folder / "autograded" / student / assignment / f"{assignment}.ipynb"
    with api.gradebook as gradebook:
        maximum = gradebook.find_assignment(assignment).max_score
        try:
            notebook = gradebook.find_submission_notebook(assignment, assignment, student)
        except MissingEntry:
            notebook = None
        if notebook is None or not graded.exists():
            return Result(assignment, student, 0.0, maximum, 0, (), (NOT_GRADED,))
        grades = list(notebook.grades)
        return Result(
            assignment,
            student,
            sum(grade.score for grade in grades),
            maximum,
            sum(bool(grade.needs_manual_grade) for grade in grades),
            tuple(g.name for g in grades if g.auto_score is not None and g.auto_score < g.max_score),
            tuple(_remarks(graded)),
        )


def _remarks(graded: Path) -> list[str]:
    """Cells that were stopped, and answers that raised an error themselves."""
    remarks = []
    cells = json.loads(graded.read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        errors = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
        name = cell["metadata"].get("nbgrader", {}).get("grade_id", f"cell {number}")
        if any(error["ename"] == "CellTimeoutError" for error in errors):
            remarks.append(f"{name} {STOPPED}")
        elif errors and not name.startswith("test-"):
            remarks.append(f"{name} raised {errors[0]['ename']}")
    return remarks


def table(results: list[Result]) -> str:
    """The results as lines of text for a terminal."""
    rows = [("assignment", "student", "points", "of", "to grade", "remarks")]
    for row in results:
        failed = f"lost: {', '.join(name.removeprefix('test-') for name in row.failed)}" if row.failed else ""
        remarks = "; ".join([*row.remarks, failed] if failed else row.remarks)
        rows.append((row.assignment, row.student, f"{row.points:g}", f"{row.maximum:g}", str(row.waiting), remarks))
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[5]]).rstrip() for row in rows
    ]
    return "\n".join(lines)
