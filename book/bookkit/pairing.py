"""Keep each chapter's notebook and script the same, numbered, without outputs, byte for byte reproducible.

The notebook is a pure function of the script, and the script of the notebook: cell ids count from the top, and metadata
contains only tags and the kernel's name. Any difference between the two was therefore written by a person.
"""

from __future__ import annotations

from pathlib import Path

import jupytext
import nbformat
from jupytext.config import load_jupytext_configuration_file
from nbformat import NotebookNode

from bookkit import numbering
from bookkit.config import NOTEBOOKS, ROOT, SCRIPTS, repository, written_chapters

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python"}
INSTALL_TAG = "install"
INSTALL_CELL = """\
# On a machine without the package (Google Colab, for example), fetch it first. Elsewhere this does nothing.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("twodasl_lite") is None:
    package = "twodasl_lite[chapters] @ git+{repository}@{branch}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", package], check=True)"""


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Bring a notebook into its canonical form.

    Outputs, counters and foreign metadata are removed; cells are numbered; solutions are folded in JupyterLab; the cell
    that installs the package if it is missing is generated from the repository's address and put after the front cell.
    """
    cells = [cell for cell in notebook.cells if INSTALL_TAG not in cell.metadata.get("tags", [])]
    url, branch = repository()
    if url and cells:
        source = INSTALL_CELL.format(repository=url, branch=branch)
        cells.insert(1, nbformat.v4.new_code_cell(source, metadata={"tags": [INSTALL_TAG]}))
    clean = []
    for index, cell in enumerate(cells):
        metadata = {}
        tags = cell.metadata.get("tags", [])
        if tags:
            metadata["tags"] = list(tags)
        if cell.cell_type == "code" and ({"solution", "hide-input", INSTALL_TAG} & set(tags)):
            metadata["jupyter"] = {"source_hidden": True}
        make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}.get(
            cell.cell_type, nbformat.v4.new_raw_cell
        )
        clean.append(make(cell.source.strip("\n"), id=f"cell-{index:03d}", metadata=metadata))
    return nbformat.v4.new_notebook(
        cells=clean, metadata={"kernelspec": dict(KERNEL), "language_info": dict(LANGUAGE)}, nbformat_minor=5
    )


def to_ipynb(script: str) -> str:
    """The notebook file that belongs to a py:percent script."""
    notebook = normalise(jupytext.reads(script, fmt="py:percent"))
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def to_script(notebook_text: str) -> str:
    """The py:percent script that belongs to a notebook file."""
    notebook = normalise(nbformat.reads(notebook_text, as_version=4))
    config = load_jupytext_configuration_file(str(ROOT / "pyproject.toml"))
    notebook.metadata.pop("language_info")
    return jupytext.writes(notebook, fmt="py:percent", config=config)


def pair(names: list[str] | None = None) -> list[Path]:
    """Write the missing or older side of each pair from the newer one, normalise both, and number all.

    Args:
        names: Prefixes of file names, such as ``01``; all chapters when empty.

    Returns:
        The files whose content changed.

    Raises:
        bookkit.numbering.DanglingError: A reference leads nowhere.
    """
    stems = {path.stem for path in [*NOTEBOOKS.glob("*.ipynb"), *SCRIPTS.glob("*.py")]}
    changed = []
    for stem in sorted(stem for stem in stems if not names or stem.startswith(tuple(names))):
        notebook, script = NOTEBOOKS / f"{stem}.ipynb", SCRIPTS / f"{stem}.py"
        times = {path: path.stat().st_mtime for path in (notebook, script) if path.exists()}
        if max(times, key=times.get) == script:
            ipynb = to_ipynb(script.read_text(encoding="utf-8"))
        else:
            ipynb = to_ipynb(to_script(notebook.read_text(encoding="utf-8")))
        changed += _write(notebook, script, ipynb)
    # A figure that is moved changes references in other chapters, so that all are looked at.
    chapters = numbering.read(written_chapters())
    known = numbering.number(chapters)
    for chapter, read in chapters:
        ipynb = nbformat.writes(numbering.number_notebook(read, chapter, known), version=4).rstrip("\n") + "\n"
        changed += _write(chapter.path, chapter.script, ipynb)
    return list(dict.fromkeys(changed))


def _write(notebook: Path, script: Path, ipynb: str) -> list[Path]:
    """Write both sides of a pair where they differ from a notebook's text; returns those that did."""
    changed = []
    for path, text in ((notebook, ipynb), (script, to_script(ipynb))):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def problems() -> list[str]:
    """Differences between notebooks and scripts, in words; empty when every pair agrees."""
    found = []
    stems = {path.stem for path in [*NOTEBOOKS.glob("*.ipynb"), *SCRIPTS.glob("*.py")]}
    for stem in sorted(stems):
        notebook, script = NOTEBOOKS / f"{stem}.ipynb", SCRIPTS / f"{stem}.py"
        missing = [path for path in (notebook, script) if not path.exists()]
        if missing:
            found.append(f"{missing[0].relative_to(ROOT)} is missing beside its twin; run `make pair`")
            continue
        notebook_text, script_text = notebook.read_text(encoding="utf-8"), script.read_text(encoding="utf-8")
        if to_script(notebook_text) != script_text:
            found.append(f"{script.relative_to(ROOT)} and its notebook differ; run `make pair`")
        elif to_ipynb(script_text) != notebook_text:
            found.append(f"{notebook.relative_to(ROOT)} holds outputs or foreign metadata; run `make pair`")
    return found
