"""An nbgrader course made from the solved sources in ``assignments/``.

Each assignment is one py:percent script with its solutions. This module makes the instructor's notebook from it, and
nbgrader makes the students' notebook from that by removing solutions and hidden tests; neither is stored in the
repository. The first line of a cell says what the cell is::

    # %% answer="rotation"                       an answer that tests grade
    # %% test="rotation-visible" points=2        a test; the part marked as hidden is not released
    # %% [markdown] answer="depth" points=4      an answer that a person grades
    # %% locked="setup"                          restored before grading, should a student have changed it

Solutions stand between ``### BEGIN SOLUTION`` and ``### END SOLUTION``, hidden tests between ``### BEGIN HIDDEN TESTS``
and ``### END HIDDEN TESTS``. Inside hidden tests the word ``SECRET_SEED`` is replaced by a number that depends on the
course's secret: anyone who reads these sources knows how answers are tested, but not on which numbers. The model answer
to a question that a person grades ends in a paragraph ``**Rubric.**``; both go to the graders.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import string
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError, require

SEED_WORD = "SECRET_SEED"
BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
POINTS_MARK = "{points}"
SECONDS_PER_CELL = 120
"""Time limit of a cell during grading; the slowest solved cell takes a tenth of it."""

COURSE_FILE = "course.json"
SETUP_NOTEBOOK = "check_my_setup.ipynb"
INSTALL = "twodasl_lite @ git+https://github.com/twodasl-lite/twodasl_lite@main"
"""Requirement that students install if the package is missing; ``twodasl course new --install`` changes it."""

_KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
_KINDS = ("answer", "test", "locked")
_SETUP = """\
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    packages = [{install!r}, "matplotlib", "tomli; python_version < '3.11'"]
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *packages], check=True)

import warnings

warnings.simplefilter("ignore")  # whatever a test writes to the error channel counts as a failure in grading"""


@dataclass(frozen=True)
class Assignment:
    """A solved source.

    Attributes:
        name: Name of the assignment in nbgrader and of its notebook: the file name without its suffix.
        title: First heading.
        text: Text of the script.
    """

    name: str
    title: str
    text: str


def assignments() -> tuple[Assignment, ...]:
    """The assignments that come with the package, in order."""
    folder = resources.files("twodasl_lite.course") / "assignments"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".py")), key=lambda entry: entry.name)
    return tuple(read_assignment(entry.name, entry.read_text(encoding="utf-8")) for entry in files)


def read_assignment(file_name: str, text: str) -> Assignment:
    """Read a script as an assignment.

    Args:
        file_name: Name of the script, ending in ``.py``.
        text: Text of the script.

    Raises:
        FileFormatError: If the script has no title.
        ValueRangeError: If the name contains characters that nbgrader refuses.
    """
    name = Path(file_name).stem
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise ValueRangeError(f"{file_name}: found the name {name!r}; expected letters, digits, - and _")
    title = re.search(r"^# # (.+)$", text, flags=re.MULTILINE)
    if title is None:
        raise FileFormatError(file_name, "no title", 'a first text cell that begins "# # Title"')
    return Assignment(name, title.group(1), text)


# -------------------------------------------------------------------------------------------------- one notebook
def secret_number(seed: str, *names: str) -> int:
    """A 31-bit number for one hidden test, derived from the course's secret."""
    text = "\0".join([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def source_notebook(assignment: Assignment, seed: str, install: str = INSTALL) -> Any:
    """The instructor's notebook of an assignment, with solutions and all tests.

    Args:
        assignment: Solved source.
        seed: Secret of the course.
        install: Requirement that pip installs if the package is missing.

    Returns:
        A notebook (``nbformat.NotebookNode``) with nbgrader's metadata.

    Raises:
        FileFormatError: If a cell is not marked as this module's docstring says.
        MissingDependencyError: If jupytext or nbformat is missing.
    """
    jupytext = require("jupytext", "course", "making a course")
    nbformat = require("nbformat", "course", "making a course")
    script = jupytext.reads(assignment.text, fmt="py:percent")
    cells = []
    for index, cell in enumerate(script.cells):
        kind = next((kind for kind in _KINDS if kind in cell.metadata), None)
        source, metadata = cell.source, {}
        if kind is not None:
            name = f"{kind}-{cell.metadata[kind]}"
            metadata = {"nbgrader": _marks(assignment, cell, kind, name)}
            source = _fill_seed(assignment, source, seed, name)
        elif any(mark in source for mark in (BEGIN_SOLUTION, BEGIN_HIDDEN, SEED_WORD)):
            raise _wrong(assignment, source, "a solution or a hidden test in a cell without a mark")
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        cells.append(make(source, id=f"cell-{index:03d}", metadata=metadata))
    ids = [cell.metadata.nbgrader.grade_id for cell in cells if "nbgrader" in cell.metadata]
    if len(ids) != len(set(ids)):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise FileFormatError(f"{assignment.name}.py", f"the name {twice[0]} twice", "a name of its own for each cell")
    _write_points(cells)
    return _notebook(cells, install)


def handout(name: str, install: str = INSTALL) -> Any:
    """An ungraded notebook from ``handouts/``.

    Args:
        name: Name of the script without its suffix.
        install: Requirement that pip installs if the package is missing.

    Returns:
        A notebook (``nbformat.NotebookNode``).
    """
    jupytext = require("jupytext", "course", "making a course")
    nbformat = require("nbformat", "course", "making a course")
    path = resources.files("twodasl_lite.course") / "handouts" / f"{name}.py"
    cells = []
    for index, cell in enumerate(jupytext.reads(path.read_text(encoding="utf-8"), fmt="py:percent").cells):
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        cells.append(make(cell.source, id=f"cell-{index:03d}"))
    return _notebook(cells, install)


def _notebook(cells: list[Any], install: str) -> Any:
    """Cells as a notebook, with the cell that installs the package in second place."""
    nbformat = require("nbformat", "course", "making a course")
    setup = nbformat.v4.new_code_cell(_SETUP.format(install=install), id="cell-install")
    setup.metadata["jupyter"] = {"source_hidden": True}
    setup.metadata["nbgrader"] = _nbgrader("locked-install", "code", locked=True)
    metadata = {"kernelspec": dict(_KERNEL), "language_info": {"name": "python"}}
    cells = [cells[0], setup, *cells[1:]]
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def notebook_text(notebook: Any) -> str:
    """The text of a notebook's file."""
    nbformat = require("nbformat", "course", "making a course")
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def _wrong(assignment: Assignment, source: str, found: str) -> FileFormatError:
    first = source.strip().partition("\n")[0][:60]
    return FileFormatError(
        f"{assignment.name}.py", f"{found} ({first!r})", "cells marked as twodasl_lite.course.build says"
    )


def _marks(assignment: Assignment, cell: Any, kind: str, name: str) -> dict[str, object]:
    """The facts about a cell that nbgrader needs."""
    points, code = cell.metadata.get("points"), cell.cell_type == "code"
    source = cell.source
    if kind == "answer" and not (BEGIN_SOLUTION in source and END_SOLUTION in source):
        raise _wrong(assignment, source, "an answer without its solution")
    if kind != "answer" and BEGIN_SOLUTION in source:
        raise _wrong(assignment, source, "a solution outside an answer")
    if kind != "test" and (BEGIN_HIDDEN in source or SEED_WORD in source):
        raise _wrong(assignment, source, "a hidden test outside a test")
    if kind == "test" and (not code or points is None):
        raise _wrong(assignment, source, "a test without points, or one that is not code")
    if kind == "answer" and not code and points is None:
        raise _wrong(assignment, source, "a written answer without points")
    return _nbgrader(name, cell.cell_type, locked=kind != "answer", points=points)


def _nbgrader(name: str, cell_type: str, *, locked: bool, points: float | None = None) -> dict[str, object]:
    """The nbgrader metadata of a cell; a cell that is not locked is an answer."""
    marks: dict[str, object] = {
        "grade": points is not None,
        "grade_id": name,
        "locked": locked,
        "schema_version": 3,
        "solution": not locked,
        "task": False,
        "cell_type": cell_type,
    }
    return marks if points is None else {**marks, "points": points}


def _fill_seed(assignment: Assignment, source: str, seed: str, name: str) -> str:
    """Replace the seed word by the secret number; it may occur only inside hidden tests."""
    released = re.sub(f"{BEGIN_HIDDEN}.*?{END_HIDDEN}", "", source, flags=re.DOTALL)
    if SEED_WORD in released:
        raise _wrong(assignment, source, f"{SEED_WORD} outside hidden tests")
    return source.replace(SEED_WORD, str(secret_number(seed, assignment.name, name)))


def _number(value: float) -> str:
    return f"{value:g} {'point' if value == 1 else 'points'}"


def _write_points(cells: Sequence[Any]) -> None:
    """Write the number of points into each task's heading and into the front cell."""
    marks = [cell.metadata.get("nbgrader", {}) for cell in cells]
    points = [mark.get("points", 0) if mark.get("grade") else 0 for mark in marks]
    heads = [i for i, cell in enumerate(cells) if cell.cell_type == "markdown" and cell.source.startswith("### Task")]
    for start, end in zip(heads, [*heads[1:], len(cells)], strict=True):
        first, line, rest = cells[start].source.partition("\n")
        cells[start].source = f"{first} ({_number(sum(points[start:end]))}){line}{rest}"
    by_hand = sum(p for p, mark in zip(points, marks, strict=True) if mark.get("solution"))
    parts = f"{_number(sum(points))}: {sum(points) - by_hand:g} graded by tests, {by_hand:g} by a person"
    cells[0].source = cells[0].source.replace(POINTS_MARK, parts)


def rubrics(assignment: Assignment) -> str:
    """Model answers and rubrics of the answers that a person grades, as Markdown; empty if there are none."""
    parts = []
    for header, body in re.findall(r"^# %% \[markdown\] (.*answer=.*)\n((?:#.*\n?)*)", assignment.text, re.MULTILINE):
        name, points = re.search(r'answer="([^"]+)"', header), re.search(r"points=(\d+)", header)
        text = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        text = text.partition(BEGIN_SOLUTION)[2].partition(END_SOLUTION)[0].strip()
        if name is None or points is None:
            raise ValueRangeError(f'{assignment.title}: found the cell {header!r}; expected answer="..." points=N')
        parts.append(f"## {name.group(1)} ({_number(int(points.group(1)))})\n\n{text}\n")
    return f"# {assignment.title}: for graders\n\n" + "\n".join(parts) if parts else ""


# ---------------------------------------------------------------------------------------------------- the course
def new_course(
    folder: str | os.PathLike[str],
    *,
    seed: str | None = None,
    names: Iterable[str] = (),
    install: str = INSTALL,
    release: bool = True,
) -> Path:
    """Make a course: instructor's notebooks, settings, rubrics, and the students' notebooks.

    Args:
        folder: Folder of the course, new or empty.
        seed: Secret from which the numbers of the hidden tests are derived; a random one by default.
        names: Prefixes of the names of the assignments to include (such as ``"02"``); all by default.
        install: Requirement for pip that students install if the package is missing.
        release: Whether to make the students' notebooks too.

    Returns:
        The folder.

    Raises:
        MissingDependencyError: If nbgrader or jupytext is missing.
        TwodaslError: If the folder is not empty.
        ValueRangeError: If the seed is empty, or no assignment begins with one of the names.
    """
    require("nbgrader", "course", "making a course")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise TwodaslError(f"{folder}: found a folder that is not empty; expected a new or an empty folder")
    if seed is None:
        seed = secrets.token_urlsafe(24)
    if not seed.strip():
        raise ValueRangeError("seed: found an empty one; expected a secret word or number")
    chosen = _choose(names)
    _write(folder / COURSE_FILE, json.dumps({"seed": seed, "install": install}, indent=2) + "\n", secret=True)
    template = resources.files("twodasl_lite.course")
    config = (template / "nbgrader_config.txt").read_text(encoding="utf-8")
    _write(folder / "nbgrader_config.py", string.Template(config).substitute(seconds=SECONDS_PER_CELL))
    readme = (template / "course_readme.md").read_text(encoding="utf-8")
    rows = "\n".join(f"| `{assignment.name}` | {assignment.title} |" for assignment in chosen)
    _write(folder / "README.md", readme.replace("<!-- assignments -->", rows))
    _write(folder / SETUP_NOTEBOOK, notebook_text(handout("check_my_setup", install)))
    for assignment in chosen:
        _add(folder, assignment, seed, install)
    if release:
        for assignment in chosen:
            release_assignment(folder, assignment.name)
    return folder


def _choose(names: Iterable[str]) -> list[Assignment]:
    names, known = tuple(names), assignments()
    for name in names:
        if not any(assignment.name.startswith(name) for assignment in known):
            listed = ", ".join(assignment.name for assignment in known)
            raise ValueRangeError(f"assignments: found {name!r}; expected the beginning of one of {listed}")
    return [assignment for assignment in known if not names or assignment.name.startswith(names)]


def add_assignment(folder: str | os.PathLike[str], script: str | os.PathLike[str]) -> Assignment:
    """Add a new assignment to a course, or replace one by a changed version.

    Args:
        folder: Folder of the course.
        script: Solved source, written as this module's docstring says.

    Returns:
        The assignment.

    Raises:
        FileFormatError: If the folder is not a course or the script is not an assignment.
    """
    folder, script = Path(folder), Path(script)
    settings = read_settings(folder)
    if not script.is_file():
        raise FileFormatError(script, "no such file", "a solved source")
    assignment = read_assignment(script.name, script.read_text(encoding="utf-8"))
    _add(folder, assignment, settings["seed"], settings["install"])
    return assignment


def _add(folder: Path, assignment: Assignment, seed: str, install: str) -> None:
    text = notebook_text(source_notebook(assignment, seed, install))
    _write(folder / "source" / assignment.name / f"{assignment.name}.ipynb", text)
    if rubrics(assignment):
        _write(folder / "rubrics" / f"{assignment.name}.md", rubrics(assignment))


def _write(path: Path, text: str, *, secret: bool = False) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
    if secret and os.name == "posix":
        path.chmod(0o600)


def read_settings(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The secret and the other settings of a course.

    Raises:
        FileFormatError: If the folder is not a course made by this module.
    """
    path, expected = Path(folder) / COURSE_FILE, "a folder made by `twodasl course new`"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise FileFormatError(folder, f"no {COURSE_FILE}", expected) from None
    except ValueError as error:
        raise FileFormatError(path, "a damaged file", expected) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("seed", "install")):
        raise FileFormatError(path, "no seed or no install entry", expected)
    return content


# ------------------------------------------------------------------------------------------------------ nbgrader
def course_api(folder: str | os.PathLike[str]) -> Any:
    """The API of nbgrader for a course, with the settings of its ``nbgrader_config.py``.

    Raises:
        FileFormatError: If the folder is not a course.
    """
    require("nbgrader", "course", "working with a course")
    # nbgrader runs `alembic` by name, which fails unless the environment is active.
    scripts = str(Path(sys.executable).parent)
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    from nbgrader.apps import NbGraderAPI
    from traitlets.config.loader import Config, PyFileConfigLoader

    folder = Path(folder).resolve()
    read_settings(folder)
    config = Config(PyFileConfigLoader("nbgrader_config.py", path=str(folder)).load_config())
    config.CourseDirectory.root = str(folder)
    return NbGraderAPI(config=config)


def release_assignment(folder: str | os.PathLike[str], name: str) -> Path:
    """Make the students' version of an assignment.

    Args:
        folder: Folder of the course.
        name: Name of the assignment.

    Returns:
        The folder to hand out.

    Raises:
        TwodaslError: If nbgrader fails; the message holds its reasons.
    """
    result = course_api(folder).generate_assignment(name, force=True)
    if not result["success"]:
        raise TwodaslError(
            f"{name}: nbgrader could not make the students' version:\n{result['log'] or result['error']}"
        )
    return Path(folder) / "release" / name


def grade(folder: str | os.PathLike[str], name: str, student: str) -> bool:
    """Run the tests of an assignment on one submission. This executes the student's code.

    Args:
        folder: Folder of the course.
        name: Name of the assignment.
        student: Name of the student, a folder in ``submitted/``.

    Returns:
        Whether nbgrader completed; :func:`twodasl_lite.course.report.report` gives the results.
    """
    return bool(course_api(folder).autograde(name, student, force=True)["success"])


def main() -> None:
    """Rewrite the repository's notebook ``check_my_setup`` from its script."""
    path = Path(__file__).resolve().parents[2] / "notebooks" / "setup" / SETUP_NOTEBOOK
    _write(path, notebook_text(handout("check_my_setup")))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
