"""Lay out the source that Sphinx reads: book pages, chapters with their outputs, API stubs.

``book/_build/source`` mirrors the repository (``book/…``, ``notebooks/…``), so that a relative link works the
same on a page, in JupyterLab and on the repository's web pages. A file is rewritten only when its content
changes, which keeps Sphinx's incremental builds fast.

A chapter's page takes its text and code from the notebook and its outputs from the executed copy. Then

* Plotly's JSON becomes a ``<div class="book-plotly">`` that ``_static/book.js`` draws without a kernel or a network;
* cells tagged ``solution`` are folded, cells tagged ``live-only`` lose their outputs and say why;
* figures, exercises and displayed formulas are numbered and become targets, references to them links, see
  `bookkit.numbering`;
* pictures get the caption below them (``**Figure 1.2.** …``) as their alternative text;
* a line of measured facts (reading time, run time) goes below the title and replaces a **Time** line of the front cell;
* a badge goes above each cell that opens a stored result, see `bookkit.provenance`;
* the chapter's quiz (``book/quizzes``) goes to the end, and below it the code names that it uses, with where else the
  book does, see `bookkit.symbols`.
"""

from __future__ import annotations

import ast
import copy
import html
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from bookkit import numbering, symbols
from bookkit.architecture import architecture_page
from bookkit.config import BOOK, DOWNLOADS, EXECUTED, PACKAGE, ROOT, SOURCE, Chapter, road_map
from bookkit.dependencies import Package
from bookkit.execute import executed_path, read_run
from bookkit.provenance import badge, opened_by, stored_table
from bookkit.quiz import quiz_markdown, quiz_path, read_quiz
from bookkit.road_map import road_map_svg
from bookkit.start_page import start_html
from bookkit.student import student_notebook

PLOTLY_MIME = "application/vnd.plotly.v1+json"
WORDS_PER_MINUTE = 180  # for a text with formulas
SECONDS_PER_CODE_LINE = 4
TIME_LINE = re.compile(r"^\*\*Time\*\*.*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)
LIVE_NOTE = (
    ":::{admonition} Live in JupyterLab\n:class: note live-only\n"
    "This cell needs a running kernel: open the chapter with `make lab` to try it.\n:::"
)


def lay_out(chapters: Iterable[Chapter]) -> list[Path]:
    """Write everything that Sphinx reads and remove files that no longer belong.

    Args:
        chapters: Chapters to show; each must have been executed.

    Returns:
        The files of the source folder.
    """
    files: dict[str, bytes] = {}
    chapters = list(chapters)
    # Numbers and labels are those of the whole book, also where only a part of it is shown.
    written = [chapter for chapter in road_map() if chapter.written and chapter not in chapters]
    whole_book = numbering.read(sorted([*chapters, *written], key=lambda chapter: chapter.number))
    known = numbering.number(whole_book)
    shown = {chapter.file for chapter in chapters}
    index = symbols.make_index(Package(PACKAGE), whole_book, shown)
    for path in sorted(BOOK.glob("*.md")):
        name = "index.md" if path.name == "index.md" else f"book/{path.name}"
        text = numbering.link_references(path.read_text(encoding="utf-8"), known, path.name, shown)
        files[name] = _fill_markers(text, chapters, index).encode()
    for name, text in api_pages(PACKAGE):
        files[name] = text.encode()
    for chapter in chapters:
        source = nbformat.read(chapter.path, as_version=4)
        page = chapter_page(source, nbformat.read(executed_path(chapter), as_version=4), chapter, known, shown, index)
        files[f"notebooks/{chapter.file}.ipynb"] = _dump(page)
        student = student_notebook(numbering.number_notebook(source, chapter, known))
        files[f"notebooks/student/{chapter.file}.ipynb"] = _dump(student)
    for path in sorted((EXECUTED / DOWNLOADS).rglob("*")) if chapters else []:
        if path.is_file():
            files[f"notebooks/{DOWNLOADS}/{path.relative_to(EXECUTED / DOWNLOADS).as_posix()}"] = path.read_bytes()
    return _synchronise(files, SOURCE)


def _dump(notebook: NotebookNode) -> bytes:
    return (nbformat.writes(notebook, version=4) + "\n").encode()


def _synchronise(files: dict[str, bytes], folder: Path) -> list[Path]:
    """Make ``folder`` contain exactly ``files``, touching only files that differ."""
    for path in sorted(folder.rglob("*"), reverse=True) if folder.exists() else []:
        if path.is_file() and path.relative_to(folder).as_posix() not in files:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    written = []
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != content:
            path.write_bytes(content)
        written.append(path)
    return written


# --- a chapter ------------------------------------------------------------------------------------


def chapter_page(
    source: NotebookNode,
    executed: NotebookNode,
    chapter: Chapter,
    known: numbering.Numbered | None = None,
    shown: Iterable[str] | None = None,
    index: symbols.Index | None = None,
) -> NotebookNode:
    """Join a chapter's text with the outputs of its run and prepare it for a page without a kernel.

    Args:
        source: The notebook as kept in the repository.
        executed: The copy that was run; it has the same code cells.
        chapter: The chapter's entry in the road map.
        known: What can be referred to; by default what the chapter itself holds.
        shown: Notebooks that are on the site, to which references become links; all by default.
        index: Where the book uses the package's names; by default the page does without.

    Returns:
        A new notebook for myst-nb.

    Raises:
        bookkit.numbering.DanglingError: A reference leads nowhere.
    """
    page = copy.deepcopy(source)
    page.metadata = copy.deepcopy(executed.metadata)
    outputs = (cell.outputs for cell in executed.cells if cell.cell_type == "code")
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = copy.deepcopy(next(outputs))
    known = numbering.number([(chapter, source)]) if known is None else known
    shown = None if shown is None else set(shown)
    numbering.number_notebook(page, chapter, known)
    count = numbering.Count()
    cells: list[NotebookNode] = []
    figures = code_cells = 0
    for position, cell in enumerate(page.cells):
        tags = set(cell.metadata.get("tags", []))
        if position == 0:
            cell.source = _insert_facts(cell.source, page, chapter)
        if cell.cell_type == "markdown":
            cell.source = numbering.link_references(cell.source, known, chapter.file, shown)
            cell.source = numbering.add_targets(cell.source, chapter, count)
            if numbering.CAPTION.match(cell.source):
                cell.source = numbering.frame_caption(cell.source)
            if "solution" in tags:
                head = ":::::{admonition} Show the solution\n:class: dropdown solution"
                cell.source = f"{head}\n{cell.source}\n:::::"
        else:
            caption = _caption_after(page.cells, position)
            if index and (targets := symbols.targets_of_cell(index, chapter, code_cells)):
                cells.append(nbformat.v4.new_markdown_cell(targets, id=f"{cell.id}-uses"))
            code_cells += 1
            if "live-only" in tags:
                cell.outputs = []
                cells += [cell, nbformat.v4.new_markdown_cell(LIVE_NOTE, id=f"{cell.id}-live")]
                continue
            if "install" in tags:
                tags.add("remove-cell")
            if "solution" in tags:
                tags.add("hide-cell")
                cell.metadata["mystnb"] = {
                    "code_prompt_show": "Show the solution",
                    "code_prompt_hide": "Hide the solution",
                }
            cell.metadata["tags"] = sorted(tags)
            if caption:
                cell.metadata.setdefault("mystnb", {})["image"] = {"alt": caption}
            if paths := opened_by(cell.source):
                cells.append(nbformat.v4.new_markdown_cell(badge(paths, "../"), id=f"{cell.id}-stored"))
            figures += _plotly_to_html(cell, f"plot-{chapter.number}", figures, caption)
        cells.append(cell)
    if quiz_path(chapter).exists():
        quiz = quiz_markdown(read_quiz(quiz_path(chapter)))
        quiz = numbering.link_references(quiz, known, quiz_path(chapter).name, shown)
        cells.append(nbformat.v4.new_markdown_cell(quiz, id="quiz"))
    if index and (names := symbols.chapter_list(index, chapter)):
        cells.append(nbformat.v4.new_markdown_cell(names, id="code-names"))
    page.cells = cells
    return page


def _insert_facts(front: str, page: NotebookNode, chapter: Chapter) -> str:
    """The front cell with a line of measured facts below its title."""
    title, _, rest = front.partition("\n")
    rest = TIME_LINE.sub("", rest)
    run = read_run(chapter)
    ran = "not run"
    if run:
        ran = f"ran in {run.seconds:.0f} s when this page was built"
        ran += f" ({html.escape(run.machine)})" if run.machine else ""
    facts = (
        f'<p class="chapter-facts"><span>Chapter {chapter.number} · {html.escape(chapter.part)}</span>'
        f"<span>{reading_minutes(page)} min to read</span><span>{ran}</span></p>"
    )
    student = f"{{download}}`Student notebook <student/{chapter.file}.ipynb>`"
    return f"{title}\n\n{facts}\n\n:::{{div}} chapter-downloads\n{student}\n:::\n\n{rest}"


def reading_minutes(notebook: NotebookNode) -> int:
    """Minutes to read a chapter at a learner's pace, from its words of text and lines of code."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    lines = sum(len(cell.source.splitlines()) for cell in notebook.cells if cell.cell_type == "code")
    return max(1, math.ceil(words / WORDS_PER_MINUTE + lines * SECONDS_PER_CODE_LINE / 60))


def _caption_after(cells: list[NotebookNode], index: int) -> str:
    """The caption below a code cell as plain text; empty if there is none."""
    if index + 1 >= len(cells) or cells[index + 1].cell_type != "markdown":
        return ""
    text = cells[index + 1].source
    if not numbering.CAPTION.match(text):
        return ""
    text, _ = numbering.split_caption(re.sub(numbering.ANCHOR, "", text))
    text = re.sub(r"\{[\w:]+\}`([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", text)  # roles
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # links
    return " ".join(re.sub(r"[*`$]", "", text).split())


def _plotly_to_html(cell: NotebookNode, prefix: str, start: int, caption: str) -> int:
    """Replace Plotly outputs by a div and its data, and return their number."""
    found = 0
    for output in cell.outputs:
        data = output.get("data", {})
        if PLOTLY_MIME not in data:
            continue
        found += 1
        figure = data[PLOTLY_MIME]
        identity = f"{prefix}-{start + found}"
        height = figure.get("layout", {}).get("height", 450)
        payload = json.dumps(figure, separators=(",", ":")).replace("</", "<\\/")
        label = html.escape(caption or "Interactive figure", quote=True)
        output["data"] = {
            "text/html": f'<div class="book-plotly" id="{identity}" role="group" aria-label="{label}" '
            f'style="min-height:{height}px"></div>\n'
            f'<script type="application/json" data-plotly-for="{identity}">{payload}</script>'
        }
    return found


# --- generated parts of the book's own pages ------------------------------------------------------


def _fill_markers(text: str, chapters: list[Chapter], index: symbols.Index) -> str:
    """Replace ``<!-- generate: name -->`` lines by what the chapters, the package and the list of changes say."""
    generators: dict[str, Callable[[list[Chapter]], str]] = {
        "architecture": lambda shown: architecture_page(index.package),
        "changes": lambda shown: changes_for_readers((ROOT / "CHANGELOG.md").read_text(encoding="utf-8")),
        "code names": lambda shown: symbols.index_page(index),
        "contents": _contents,
        "start": lambda shown: start_html(shown[0] if shown else None),
        "road map": _road_map,
        "exercises": lambda shown: numbering.exercise_list(shown, numbering.number(numbering.read(shown))),
        "run times": _run_times,
        "stored results": _stored_results,
        "terms": lambda shown: numbering.term_list(numbering.read(shown)),
    }
    return re.sub(
        r"^<!-- generate: ([a-z ]+) -->$",
        lambda match: generators[match.group(1)](chapters),
        text,
        flags=re.MULTILINE,
    )


def _parts() -> Iterator[tuple[str, list[Chapter]]]:
    """Parts with their chapters, in order."""
    chapters = road_map()
    for part in dict.fromkeys(chapter.part for chapter in chapters):
        yield part, [chapter for chapter in chapters if chapter.part == part]


def _contents(shown: list[Chapter]) -> str:
    """The hidden tables of contents that fill the side bar."""
    blocks = []
    for part, chapters in _parts():
        entries = [
            f"{chapter.number} {chapter.title} <notebooks/{chapter.file}>" for chapter in chapters if chapter in shown
        ]
        if entries:
            blocks.append(f":::{{toctree}}\n:hidden:\n:caption: {part}\n\n" + "\n".join(entries) + "\n:::")
    return "\n\n".join(blocks)


def _road_map(shown: list[Chapter]) -> str:
    """All chapters as a picture and listed by part, with links to those that are written."""
    lines = [road_map_svg(road_map(), {chapter.number: f"notebooks/{chapter.file}.html" for chapter in shown})]
    for part, chapters in _parts():
        lines += [f"### {part}", "", '<ol class="road-map">']
        for chapter in chapters:
            title, state, label = html.escape(chapter.title), "planned", '<span class="badge">planned</span>'
            if chapter in shown:
                run = read_run(chapter)
                title = f'<a href="notebooks/{chapter.file}.html">{title}</a>'
                minutes = reading_minutes(nbformat.read(chapter.path, as_version=4))
                state, label = "written", f'<span class="badge">{minutes} min to read</span>'
                label += f' <span class="badge">{run.seconds:.0f} s to run</span>' if run else ""
            lines.append(
                f'<li class="{state}" value="{chapter.number}"><strong>{title}</strong> {label}'
                f"<br>{html.escape(chapter.summary)}</li>"
            )
        lines += ["</ol>", ""]
    return "\n".join(lines)


def _run_times(shown: list[Chapter]) -> str:
    """Table of reading minutes, measured seconds with their budgets, and the machine that measured them."""
    lines = ["| chapter | minutes to read | seconds measured | budget in seconds | where |", "|---|---:|---:|---:|---|"]
    for chapter in shown:
        run, minutes = read_run(chapter), reading_minutes(nbformat.read(chapter.path, as_version=4))
        measured = (
            f"{run.seconds} | {chapter.budget:g} | {run.machine or '–'}" if run else f"– | {chapter.budget:g} | –"
        )
        lines.append(f"| {chapter.number} {chapter.title} | {minutes} | {measured} |")
    return "\n".join(lines)


def _stored_results(shown: list[Chapter]) -> str:
    """Table of stored results and the chapters that show them."""
    users: dict[Path, list[str]] = {}
    for chapter in shown:
        link = f"[chapter {chapter.number}](../notebooks/{chapter.file}.ipynb)"
        cells = nbformat.read(chapter.path, as_version=4).cells
        paths = [path for cell in cells if cell.cell_type == "code" for path in opened_by(cell.source)]
        for path in dict.fromkeys(paths):
            users.setdefault(path, []).append(link)
    return stored_table(users)


def changes_for_readers(text: str) -> str:
    """The list of changes without its title, in each version the book's before those of the package.

    Args:
        text: ``CHANGELOG.md``: a heading for each version, in it groups that begin with a bold line.
    """
    _, *versions = re.split(r"^## ", text, flags=re.MULTILINE)
    parts = []
    for version in versions:
        title, _, rest = version.partition("\n")
        first, *groups = re.split(r"^\*\*(.+)\*\*$", rest, flags=re.MULTILINE)
        named = sorted(zip(groups[::2], groups[1::2], strict=True), key=lambda group: group[0] != "The book")
        parts += [f"## {title}", first.strip(), *(f"### {name}\n\n{body.strip()}" for name, body in named)]
    return "\n\n".join(part for part in parts if part)


# --- API reference --------------------------------------------------------------------------------


def api_pages(package: Path) -> Iterator[tuple[str, str]]:
    """A page for each public module of the package, and a page that lists them.

    Args:
        package: Folder of the package, which is read, not imported.

    Yields:
        Name of each page relative to the source folder, and its text.
    """
    rows = []
    for path in sorted(package.rglob("*.py")):
        if not (path.parent / "__init__.py").exists():
            continue  # scripts that the package includes as data
        parts = path.relative_to(package.parent).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        if any(part.startswith("_") for part in parts):
            continue
        module = ".".join(parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        rows.append((module, (ast.get_docstring(tree) or "").partition("\n")[0]))
        lent = _lent_names(tree)
        directive = f".. automodule:: {module}" + ("" if lent else "\n   :members:\n   :show-inheritance:")
        page = f"# `{module}`\n\n```{{eval-rst}}\n{directive}\n```\n"
        if lent:  # the names are described where they live
            page += "\n| name | lives in |\n|---|---|\n"
            page += "".join(f"| `{name}` | {{py:mod}}`{home}` |\n" for name, home in lent.items())
        yield f"book/api/{module}.md", page
    lines = ["# API reference", "", "The modules of `twodasl_lite`, from the basic vocabulary upwards.", ""]
    lines += ["| module | contents |", "|---|---|"]
    lines += [f"| [`{module}`]({module}.md) | {summary} |" for module, summary in rows]
    lines += ["", ":::{toctree}", ":hidden:", "", *[module for module, _ in rows], ":::", ""]
    yield "book/api/index.md", "\n".join(lines)


def _lent_names(tree: ast.Module) -> dict[str, str]:
    """Names that a package imports for type checkers and lends at run time, with the modules that they come from."""
    found: dict[str, str] = {}
    lends = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    for node in tree.body if lends else ():
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom):
                    for name in line.names:
                        whole = f"{line.module}.{name.name}"
                        found[name.asname or name.name] = whole if line.module == PACKAGE.name else str(line.module)
    return dict(sorted(found.items()))


def clean_pages(html_folder: Path, source_folder: Path = SOURCE) -> None:
    """Remove built pages whose source no longer exists, so that no stale page is read, linked or checked."""
    kept = {"genindex.html", "py-modindex.html", "search.html"}
    for page in html_folder.rglob("*.html"):
        name = page.relative_to(html_folder)
        if name.parts[0] in {"_static", "_modules", "_downloads"} or name.as_posix() in kept:
            continue
        if not any((source_folder / name).with_suffix(suffix).exists() for suffix in (".md", ".ipynb")):
            page.unlink()


def remove_build(*folders: Path) -> None:
    """Delete build folders, never anything outside the repository."""
    for folder in folders:
        if ROOT in folder.parents and folder.exists():
            shutil.rmtree(folder)
