"""The reader's version of a chapter: exercises without their solutions.

It is generated from the solved chapter and never stored in the repository. Cells tagged ``solution`` are replaced by an
empty cell; cells tagged ``exercise`` (code to start from) and ``check`` (a test of the answer) stay.
"""

from __future__ import annotations

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from bookkit.config import Chapter

EMPTY_CODE = "# Your solution\n"
EMPTY_TEXT = "*Your answer*"


def student_notebook(solved: NotebookNode) -> NotebookNode:
    """A copy of a notebook without solutions and outputs.

    Args:
        solved: Notebook of the chapter as stored in the repository.

    Returns:
        A new notebook. If an ``exercise`` cell comes right before a code solution, students write there; elsewhere an
        empty cell replaces the solution.
    """
    student = copy.deepcopy(solved)
    cells: list[NotebookNode] = []
    for cell in student.cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "solution" not in tags:
            cells.append(cell)
            continue
        starter = bool(cells) and bool({"exercise", "answer"} & set(cells[-1].metadata.get("tags", [])))
        if starter and cells[-1].cell_type == cell.cell_type:
            continue
        make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
        text = EMPTY_CODE if cell.cell_type == "code" else EMPTY_TEXT
        cells.append(make(text, id=cell.id, metadata={"tags": ["answer"]}))
    student.cells = cells
    return student


def write_student_notebooks(chapters: list[Chapter], folder: Path) -> list[Path]:
    """Write the reader's version of each chapter into a folder.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for chapter in chapters:
        path = folder / f"{chapter.file}.ipynb"
        nbformat.write(student_notebook(nbformat.read(chapter.path, as_version=4)), path)
        written.append(path)
    return written
