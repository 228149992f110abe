"""Slides for lecturers: a deck per chapter, made from the chapter's own cells by nbconvert, shown by reveal.js.

A slide is not a page. Each heading begins a slide; of a paragraph the first sentences stay, and so of each item of a
list; formulas, code and figures are kept, imports and code that only draws are left out. The full text is in the
speaker's notes (key S). Exercises come without solutions; a question of the quiz shows its answer at the next key.

Decks work from a disk without a network: reveal.js, MathJax and Plotly lie in the folder beside them.
"""

from __future__ import annotations

import ast
import base64
import copy
import html
import itertools
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from bookkit import assets, numbering
from bookkit.config import BOOK, SLIDES, Chapter, written_chapters
from bookkit.numbering import CAPTION
from bookkit.pages import PLOTLY_MIME, TIME_LINE
from bookkit.quiz import quiz_path, read_quiz

HERE = Path(__file__).parent
BOOK_TITLE = "Faces from Photographs"
MAX_LINES = 15.5  # of text on a slide, as `height` counts them
LINES_ACROSS = 32.5  # a slide's width in lines of text
FIGURE_LINES = 14.4
CODE_LINES = 20
OUTPUT_LINES = 16
TABLE_ROWS = 10
LETTERS = 92  # in a line of text
FIGURE_PIXELS = 430  # height of a Plotly figure
KEPT_LETTERS = 210  # of a paragraph: its first sentences
KEPT_OF_ITEM = 150  # of an item of a list
SMALL = 4.5  # lines: a slide as empty as this joins the one before or after it
SQUEEZED = 18.5  # lines that fit when they are set smaller
ABBREVIATIONS = ("e.g.", "i.e.", "et al.", "cf.", "vs.", "approx.", "Fig.", "Eq.", "Sec.", "No.", "p.", "pp.")


class SlidesError(Exception):
    """A deck cannot be made: a script is missing, or a chapter has not been executed."""


@dataclass
class Slide:
    """One slide, before it becomes cells.

    Attributes:
        title: Its title as Markdown, without the marks of a heading.
        level: 1 opens the chapter, 2 a section; 3 follows below it.
        cells: Markdown cells, and code cells with the outputs to show.
        notes: What the speaker may want to read, as Markdown.
        height: Lines of text that it takes, roughly.
    """

    title: str
    level: int
    cells: list[NotebookNode] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    height: float = 0.0


# --- words ----------------------------------------------------------------------------------------


@cache
def _authors() -> dict[str, str]:
    """For each entry of the bibliography, authors and year as a sentence names them."""
    from pybtex.database import parse_file

    found = {}
    for key, entry in parse_file(str(BOOK / "references.bib")).entries.items():
        people = entry.persons.get("author") or entry.persons.get("editor") or []
        names = [" ".join(name.render_as("text") for name in person.rich_last_names) for person in people]
        named = names[0] if len(names) == 1 else " and ".join(names) if len(names) == 2 else f"{names[0]} et al."
        found[key] = f"{named} ({entry.fields.get('year', 'n.d.')})" if names else key
    return found


def plain_roles(text: str, labels: dict[str, str]) -> str:
    """Markdown of a chapter as any Markdown reader knows it: roles become words, links inside the book text.

    Args:
        text: MyST Markdown.
        labels: The number of each labelled formula.
    """

    def role(match: re.Match) -> str:
        name, inside = match[1], match[2].replace("\n", " ")
        titled = re.fullmatch(r"(.*?)\s*<(.+)>", inside)
        if name == "eq":
            return f"({labels.get(inside, inside)})"
        if name.startswith("cite"):
            works = [_authors().get(key.strip(), key.strip()) for key in inside.split(",")]
            joined = "; ".join(works)
            return re.sub(r" \((\S+?)\)", r", \1", joined).join("()") if name == "cite:p" else joined
        if name.startswith("py:"):
            words = titled[1] if titled else inside.rpartition(".")[2] if inside.startswith("~") else inside
            return f"`{words.lstrip('~')}`"
        return titled[1] if titled else inside

    text = re.sub(r"<!--.*?-->| ?<a id=\"[^\"]*\"></a>", "", text, flags=re.DOTALL)
    text = re.sub(r"^\([\w-]+\)=\n+", "", text, flags=re.MULTILINE)
    text = re.sub(r"\{([\w:]+)\}`([^`]+)`", role, text)
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:)[^)]*\)", r"\1", text)


def shorten(text: str, letters: int = KEPT_LETTERS) -> str:
    """The first sentences of a paragraph, as many as so many letters hold, but at least one."""
    text = " ".join(text.split())
    kept: list[str] = []

    def keep(match: re.Match) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    masked = re.sub(r"`[^`]*`|\$[^$]+\$|\[[^\]]*\]\([^)]*\)", keep, text)
    for word in ABBREVIATIONS:
        masked = masked.replace(word, word.replace(".", "\1"))
    sentences = re.split(r"(?<=[.!?])[*_)”\"]*\s+(?=[*_(“\"]*[A-Z0-9\0])", masked)
    lengths = list(itertools.accumulate(_visible(_unmask(sentence, kept)) + 1 for sentence in sentences))
    count = max(1, sum(length <= letters for length in lengths))
    first = " ".join(sentences[:count])
    if first.count("**") % 2:  # a mark of emphasis that the cut has taken off
        first += "**"
    elif first.replace("**", "").count("*") % 2:
        first += "*"
    return _unmask(first, kept)


def _unmask(text: str, kept: list[str]) -> str:
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text.replace("\1", "."))


def _visible(text: str) -> int:
    """Letters that a reader sees, roughly."""
    return len(re.sub(r"\\[a-zA-Z]+|[${}*`]", "", text))


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The blocks of Markdown in order, each with its kind.

    Yields:
        ``heading``, ``formula``, ``list``, ``table``, ``code``, ``caption`` or ``text``, and the block.
    """
    parts = re.split(r"(^\$\$.*?\$\$[ \t]*$|^```.*?^```[ \t]*$)", text, flags=re.MULTILINE | re.DOTALL)
    for i, part in enumerate(parts):
        if i % 2:
            yield ("formula" if part.startswith("$$") else "code"), part
            continue
        for block in re.split(r"\n\s*\n", part):
            block = block.strip("\n")
            if not block.strip():
                continue
            if block.lstrip().startswith("#"):
                head, _, rest = block.lstrip().partition("\n")
                yield "heading", head
                if rest.strip():
                    yield from blocks(rest)
            elif CAPTION.match(block):
                yield "caption", block
            elif re.match(r"\s*([-*+]|\d+\.) ", block):
                yield "list", block
            elif block.startswith("|"):
                yield "table", block
            else:
                yield "text", block


def trim_list(block: str) -> tuple[str, float]:
    """A list with the first sentence of each item, and its height."""
    items = re.split(r"\n(?=(?:[-*+]|\d+\.) )", block.strip())
    lines, height = [], 0.0
    for item in items:
        mark, words = re.match(r"([-*+]|\d+\.)\s+(.*)", item, re.DOTALL).groups()
        short = shorten(words, KEPT_OF_ITEM).rstrip(";,")
        lines.append(f"{mark} {short}")
        height += _text_height(short) - 0.25
    return "\n".join(lines), height


def _text_height(text: str) -> float:
    return -(-_visible(text) // LETTERS) + 0.55


def _figure_height(output: NotebookNode) -> float:
    """Lines that a figure takes: as wide as the slide, but no taller than ``slides.css`` allows."""
    picture = output.data.get("image/png")
    if picture is None:
        rows = output.data.get("text/html", "").count("<tr")
        return min(1.0 * rows + 1, MAX_LINES) if rows else MAX_LINES
    header = base64.b64decode(picture[:64])
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    return min(FIGURE_LINES, LINES_ACROSS * height / max(width, 1)) + 0.5


def _formula_height(formula: str) -> float:
    rows = formula.count("\\\\") + formula.count("\\cr") + 1
    tall = 1.5 if re.search(r"\\(?:d?frac|sum|int|prod|begin|sqrt)", formula) else 0.8
    return rows * tall + 1.2


# --- cells ----------------------------------------------------------------------------------------


def _markdown(text: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text)


def _code(source: str, outputs: list[NotebookNode] = ()) -> NotebookNode:
    cell = nbformat.v4.new_code_cell(source, outputs=list(outputs))
    if not source:
        cell.metadata["tags"] = ["remove_input"]
    return cell


def without_set_up(source: str) -> str:
    """Code without its imports and the settings of its figures; empty if there is nothing else."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source
    lines = source.splitlines()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) or "rcParams" in (ast.get_source_segment(source, node) or ""):
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = None
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line for line in lines if line is not None)).strip("\n")


def split_code(source: str, most: int = CODE_LINES) -> list[str]:
    """Code in pieces of at most so many lines, cut between statements where that is possible."""
    lines = source.rstrip().splitlines()
    if len(lines) <= most:
        return ["\n".join(lines)]
    count = -(-len(lines) // most)
    goal = -(-len(lines) // count)
    starts = {
        i for i, line in enumerate(lines) if i and line.strip() and not line.startswith((" ", ")", "]", "}", "#"))
    }
    blanks = {i for i in range(1, len(lines)) if not lines[i - 1].strip()}
    pieces, begin = [], 0
    while len(lines) - begin > most:
        window = range(begin + goal // 2, begin + most + 1)
        choices = [i for i in window if i in blanks] or [i for i in window if i in starts] or [begin + most]
        cut = min(choices, key=lambda i: abs(i - begin - goal))
        pieces.append("\n".join(lines[begin:cut]).rstrip())
        begin = cut
    return [*pieces, "\n".join(lines[begin:])]


def _trim_text(text: str) -> str:
    """The beginning of what a cell prints."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).rstrip()
    lines = text.splitlines()
    if len(lines) > OUTPUT_LINES:
        lines = [*lines[: OUTPUT_LINES - 1], f"… {len(lines) - OUTPUT_LINES + 1} more lines"]
    return "\n".join(lines)


def sort_outputs(cell: NotebookNode, prefix: str) -> tuple[list[NotebookNode], list[NotebookNode]]:
    """What a cell prints, and its figures, each ready for a slide."""
    printed, figures = [], []
    text = "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")
    if text.strip():
        printed.append(nbformat.v4.new_output("stream", name="stdout", text=_trim_text(text)))
    for number, output in enumerate(cell.outputs):
        data = output.get("data", {})
        if PLOTLY_MIME in data:
            figures.append(_plotly(data[PLOTLY_MIME], f"{prefix}-{number}"))
        elif "image/png" in data or "image/jpeg" in data or "image/svg+xml" in data:
            # Also of what moves on the page: its still picture.
            kept = {kind: value for kind, value in data.items() if kind.startswith("image/")}
            figures.append(nbformat.v4.new_output("display_data", kept))
        elif "text/html" in data:
            figures.append(nbformat.v4.new_output("display_data", {"text/html": data["text/html"]}))
        elif "application/vnd.jupyter.widget-view+json" in data or re.fullmatch(r"<.*>", data.get("text/plain", "")):
            continue  # a control without a kernel, or the name of an object that was drawn
        elif "text/plain" in data:
            printed.append(nbformat.v4.new_output("display_data", {"text/plain": _trim_text(data["text/plain"])}))
    return printed, figures


def _plotly(figure: dict, identity: str) -> NotebookNode:
    """A live figure that ``book.js`` draws, as tall as a slide allows."""
    figure = copy.deepcopy(figure)
    layout = figure.setdefault("layout", {})
    controls = len(layout.get("sliders", [])) + len(layout.get("updatemenus", []))
    layout["height"] = min(layout.get("height", FIGURE_PIXELS), FIGURE_PIXELS - 32 * controls)
    payload = json.dumps(figure, separators=(",", ":")).replace("</", "<\\/")
    markup = (
        f'<div class="book-plotly" id="{identity}" style="min-height:{layout["height"]}px"></div>'
        f'<script type="application/json" data-plotly-for="{identity}">{payload}</script>'
    )
    return nbformat.v4.new_output("display_data", {"text/html": markup})


# --- a chapter ------------------------------------------------------------------------------------


class _Deck:
    """Slides in the making."""

    def __init__(self) -> None:
        self.slides: list[Slide] = []

    def open(self, title: str, level: int) -> Slide:
        self.slides.append(Slide(title, level))
        return self.slides[-1]

    @property
    def last(self) -> Slide:
        return self.slides[-1]

    def put(self, cell: NotebookNode, height: float) -> None:
        """A block on the slide, or on another of the same title where it is full."""
        if self.last.height and self.last.height + height > MAX_LINES + 0.5:
            self.open(self.last.title, 3)
        last = self.last.cells[-1] if self.last.cells else None
        if cell.cell_type == "markdown" and last is not None and last.cell_type == "markdown":
            last.source += "\n\n" + cell.source
        else:
            self.last.cells.append(cell)
        self.last.height += height


def chapter_slides(
    source: NotebookNode, executed: NotebookNode, chapter: Chapter, labels: dict[str, str] | None = None
) -> list[Slide]:
    """The slides of a chapter.

    Args:
        source: The notebook as kept in the repository.
        executed: The copy that was run; it has the same code cells.
        chapter: The chapter's entry in the road map.
        labels: The number of each labelled formula, of all chapters.
    """
    labels = labels or {}
    deck = _Deck()
    outputs = [cell for cell in executed.cells if cell.cell_type == "code"]
    ran = iter(outputs)
    count = numbering.Count()
    waiting: list[NotebookNode] = []  # figures whose caption comes next

    def place_figures(caption: str = "") -> None:
        for number, figure in enumerate(waiting):
            captioned = caption and number == len(waiting) - 1
            deck.put(_code("", [figure]), _figure_height(figure) + (1.6 if captioned else 0))
            if captioned:
                deck.last.cells.append(_markdown(f'<p class="slide-caption">{_inline(caption)}</p>'))
        waiting.clear()

    for index, cell in enumerate(source.cells):
        tags = set(cell.metadata.get("tags", []))
        if cell.cell_type == "code":
            result = next(ran)
            if tags & {"install", "solution", "exercise", "check"}:
                continue
            place_figures()
            printed, figures = (
                ([], []) if "live-only" in tags else sort_outputs(result, f"plot-{chapter.number}-{index}")
            )
            code = "" if "hide-input" in tags else without_set_up(cell.source)
            _put_code(deck, code, printed)
            waiting += figures
            continue
        if "solution" in tags:
            continue
        text = numbering.add_targets(cell.source, chapter, count)
        text = plain_roles(text, labels)
        if index == 0:
            _put_front(deck, text, chapter)
            continue
        for kind, block in blocks(text):
            if kind == "caption":
                caption = CAPTION.match(block)
                words = block[caption.end() :].strip().split("\n\n")[0]
                place_figures(f"**Figure {caption[1]}.** {shorten(words, 1)}")
                deck.last.notes.append(block)
                continue
            place_figures()
            _put_text(deck, kind, block)
    place_figures()
    _put_quiz(deck, chapter, labels)
    return join_small([slide for slide in deck.slides if slide.cells or slide.level == 1])


def join_small(slides: list[Slide]) -> list[Slide]:
    """Slides without those that hold a line or two: they join the one after or before, if it has the same title."""
    joined: list[Slide] = []
    for slide in slides:
        before = joined[-1] if joined else None
        if (
            before is not None
            and slide.level == 3
            and slide.title == before.title
            and min(before.height, slide.height) <= SMALL
            and before.height + slide.height <= SQUEEZED
        ):
            before.cells += slide.cells
            before.notes += slide.notes
            before.height += slide.height
        else:
            joined.append(slide)
    return joined


def _put_front(deck: _Deck, text: str, chapter: Chapter) -> None:
    """The opening slide, and one with what is needed and what will be learnt."""
    text = TIME_LINE.sub("", text)
    found = list(blocks(text))
    question = next((block.strip("*\n ") for kind, block in found if kind == "text" and block.startswith("*")), "")
    opening = deck.open("", 1)
    kicker = f"Chapter {chapter.number} · {chapter.part}"
    opening.cells.append(
        _markdown(
            f'<p class="slide-kicker">{html.escape(kicker)}</p>\n<h1>{html.escape(chapter.title)}</h1>\n'
            f'<p class="slide-question">{_inline(" ".join(question.split()))}</p>'
        )
    )
    opening.notes.append(text)
    goals = [(kind, block) for kind, block in found if kind in {"text", "list"} and question not in block]
    if goals:
        deck.open("What this chapter is for", 3)
        for kind, block in goals:
            _put_text(deck, kind, block)


def _put_text(deck: _Deck, kind: str, block: str) -> None:
    """A block of Markdown, trimmed."""
    if kind == "heading":
        level = len(block) - len(block.lstrip("#"))
        deck.open(block.lstrip("# ").strip(), 2 if level <= 2 else 3)
        return
    notes = deck.last.notes
    if block.startswith("Download"):
        return
    if kind == "formula":
        deck.put(_markdown(block), _formula_height(block))
    elif kind == "list":
        short, height = trim_list(block)
        items = short.split("\n")
        while height > MAX_LINES and len(items) > 1:  # a list that is longer than a slide
            half = len(items) // 2
            deck.put(_markdown("\n".join(items[:half])), height * half / len(items))
            items, height = items[half:], height * (1 - half / len(items))
        deck.put(_markdown("\n".join(items)), height)
    elif kind == "table":
        rows = block.splitlines()
        more = len(rows) - 2 - TABLE_ROWS
        kept = rows[: TABLE_ROWS + 2] if more > 0 else rows
        deck.put(_markdown("\n".join(kept)), 1.1 * len(kept))
        if more > 0:
            deck.last.cells.append(_markdown(f'<p class="slide-more">… {more} more rows in the book</p>'))
    elif kind == "code":
        deck.put(_markdown(block), 0.8 * len(block.splitlines()))
    else:
        whole = deck.last.title.startswith("Exercise")
        short = " ".join(block.split()) if whole else shorten(block)
        deck.put(_markdown(short), _text_height(short))
    notes.append(block)


def _put_code(deck: _Deck, code: str, printed: list[NotebookNode]) -> None:
    """Code, on as many slides as it takes, with what it prints."""
    lines = sum(len(str(output.get("text") or output.data["text/plain"]).splitlines()) for output in printed)
    if not code:
        if printed:
            deck.put(_code("", printed), 0.75 * lines + 1)
        return
    pieces = split_code(code)
    for number, piece in enumerate(pieces):
        tall = 0.75 * len(piece.splitlines()) + 1
        last = number == len(pieces) - 1
        together = last and tall + 0.75 * lines + 1 <= MAX_LINES + 1.5
        deck.put(_code(piece, printed if together else []), tall + (0.75 * lines + 1 if together and printed else 0))
        if last and printed and not together:
            deck.put(_code("", printed), 0.75 * lines + 1)


def _put_quiz(deck: _Deck, chapter: Chapter, labels: dict[str, str]) -> None:
    """A slide for each question of the chapter's quiz, with the answer as a fragment."""
    if not quiz_path(chapter).exists():
        return
    for number, question in enumerate(read_quiz(quiz_path(chapter)), start=1):
        slide = deck.open(f"Check yourself: question {number}", 2 if number == 1 else 3)
        choices = "".join(f"<li>{_inline(plain_roles(choice.text, labels))}</li>" for choice in question.choices)
        answer = ""
        for letter, choice in zip("ABCD", question.choices, strict=False):
            if choice.right:
                answer = f"**{letter}.** {plain_roles(choice.why, labels)}"
        slide.cells.append(
            _markdown(
                f"{plain_roles(question.text, labels)}\n\n"
                f'<ol class="slide-choices">{choices}</ol>\n<div class="slide-answer fragment">{_inline(answer)}</div>'
            )
        )
        slide.height = MAX_LINES


def _inline(text: str) -> str:
    """A line of Markdown as HTML; formulas stay as they are."""
    from nbconvert.filters.markdown_mistune import markdown2html_mistune

    return re.sub(r"^<p>|</p>$", "", markdown2html_mistune(text).strip())


def deck_notebook(slides: list[Slide], title: str) -> NotebookNode:
    """Slides as a notebook with nbconvert's marks."""
    cells: list[NotebookNode] = []
    totals: dict[str, int] = {}
    for slide in slides:
        totals[slide.title] = totals.get(slide.title, 0) + 1
    seen: dict[str, int] = {}
    for number, slide in enumerate(slides):
        seen[slide.title] = seen.get(slide.title, 0) + 1
        kind = "slide" if slide.level <= 2 or number == 0 else "subslide"
        if slide.title:
            count = f" <small>{seen[slide.title]}/{totals[slide.title]}</small>" if totals[slide.title] > 1 else ""
            first = _markdown(f"<h2>{_inline(slide.title)}{count}</h2>")
        else:
            first = slide.cells[0]
        first.metadata["slideshow"] = {"slide_type": kind}
        cells.append(first)
        cells += slide.cells if slide.title else slide.cells[1:]
        if slide.notes:
            note = _markdown("\n\n".join(slide.notes))
            note.metadata["slideshow"] = {"slide_type": "notes"}
            cells.append(note)
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"title": title})
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"c{number}"
    return notebook


def deck_html(notebook: NotebookNode) -> str:
    """A deck as HTML, by nbconvert's exporter for reveal.js with the book's template."""
    from nbconvert.exporters import SlidesExporter
    from traitlets.config import Config

    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_input_tags = {"remove_input"}
    exporter = SlidesExporter(
        config=config,
        template_name="slides_template",
        extra_template_basedirs=[str(HERE)],
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    body, _ = exporter.from_notebook_node(notebook)
    # The opening slide has a look of its own.
    return re.sub(r"<section\s*>(\s*<section\s*>)", r"<section>\1", body).replace("<section >", "<section>")


# --- the folder of decks --------------------------------------------------------------------------


def make_decks(chapters: Iterable[Chapter], executed: Path, folder: Path = SLIDES) -> list[Path]:
    """Write a deck for each chapter, and the list of them.

    Args:
        chapters: The chapters.
        executed: Folder of their executed notebooks.
        folder: Where the decks go.

    Returns:
        The decks, and the list.

    Raises:
        SlidesError: A chapter has not been executed, or a script of the decks cannot be fetched.
    """
    chapters = list(chapters)
    for chapter in chapters:
        if not (executed / f"{chapter.file}.ipynb").exists():
            raise SlidesError(f"{executed} has no {chapter.file}.ipynb; expected executed chapters (make book)")
    _lay_out_scripts(folder)
    places = numbering.number(numbering.read(written_chapters())).labels
    labels = {label: place.number for label, place in places.items()}
    written, counts = [], {}
    for chapter in chapters:
        source = nbformat.read(chapter.path, as_version=4)
        slides = chapter_slides(
            source, nbformat.read(executed / f"{chapter.file}.ipynb", as_version=4), chapter, labels
        )
        title = f"{chapter.number} {chapter.title} · {BOOK_TITLE}"
        path = folder / f"{chapter.file}.html"
        path.write_text(deck_html(deck_notebook(slides, title)), encoding="utf-8")
        counts[chapter.file] = len(slides)
        written.append(path)
    index = folder / "index.html"
    index.write_text(_list_of_decks(chapters, counts), encoding="utf-8")
    return [*written, index]


def _lay_out_scripts(folder: Path) -> None:
    """Put the decks' scripts and styles beside them."""
    try:
        reveal = assets.edition_folder("reveal.js")
    except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
        raise SlidesError(f"could not fetch reveal.js, which shows the slides: {error}") from error
    if not assets.prepare():
        raise SlidesError("could not fetch MathJax, which sets the formulas of the slides; try again with a network")
    vendor = folder / "vendor"
    sources = {"reveal": reveal}
    sources |= {name: assets.vendor_folder() / name for name in ("mathjax", "mathjax-newcm-font", "plotly")}
    for name, source in sources.items():
        shutil.copytree(source, vendor / name, dirs_exist_ok=True)
    for name in ("slides.css", "slides.js"):
        shutil.copyfile(HERE / name, folder / name)
    shutil.copyfile(BOOK / "_static" / "book.js", folder / "book.js")
    settings = {
        "loader": {"paths": {"fonts": "[mathjax]/.."}},
        "tex": {"inlineMath": [["$", "$"], ["\\(", "\\)"]], "displayMath": [["$$", "$$"], ["\\[", "\\]"]]},
        "options": {
            "enableMenu": False,
            "menuOptions": {"settings": {"assistiveMml": False, "braille": False, "enrich": False, "speech": False}},
        },
        # Slides that are not shown have no size to match.
        "output": {"displayOverflow": "overflow"},
        "chtml": {"matchFontHeight": False},
    }
    (folder / "mathjax-settings.js").write_text(f"window.MathJax = {json.dumps(settings)};\n", encoding="utf-8")


def _list_of_decks(chapters: list[Chapter], counts: dict[str, int]) -> str:
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">',
        f'<title>Slides · {BOOK_TITLE}</title><link rel="stylesheet" href="slides.css"></head>',
        f'<body class="deck-list"><h1>{BOOK_TITLE}: slides</h1>',
        "<p>A deck per chapter, by part. Right and left lead through the sections, down and up through a section, "
        "the space bar "
        "through all; S opens the speaker's notes with the chapter's text, Esc the overview.</p>",
    ]
    for part in dict.fromkeys(chapter.part for chapter in chapters):
        lines.append(f"<h2>{html.escape(part)}</h2><ul>")
        lines += [
            f'<li><a href="{chapter.file}.html">{chapter.number} {html.escape(chapter.title)}</a> '
            f"<small>{counts[chapter.file]} slides</small></li>"
            for chapter in chapters
            if chapter.part == part
        ]
        lines.append("</ul>")
    return "\n".join([*lines, "</body></html>"])


# --- the check ------------------------------------------------------------------------------------


@dataclass
class DeckCheck:
    """What a walk through a deck found.

    Attributes:
        slides: How many slides there are.
        smaller: Those that were set smaller to fit, with the size in per cent.
        overflowing: Those that scroll all the same.
        problems: Errors of scripts and formulas, missing pictures, requests to the outside.
    """

    slides: int = 0
    smaller: dict[str, int] = field(default_factory=dict)
    overflowing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


LOOK = """async () => {
  const { reveal, settled } = window.deck;
  const section = reveal.getCurrentSlide();
  await settled(section);
  const problems = [];
  for (const image of section.querySelectorAll("img"))
    if (!image.complete || !image.naturalWidth) problems.push("picture missing: " + image.src.slice(0, 80));
  for (const error of section.querySelectorAll("mjx-merror, [data-mjx-error]"))
    problems.push("formula with an error: " + (error.dataset.mjxError || error.textContent).slice(0, 120));
  for (const figure of section.querySelectorAll(".book-plotly"))
    if (figure.dataset.state !== "drawn" || !figure.querySelector(".main-svg"))
      problems.push(`figure ${figure.id} is not drawn (${figure.dataset.state || "not started"})`);
  const text = section.cloneNode(true);
  for (const e of text.querySelectorAll("mjx-container, pre, code, script, aside")) e.remove();
  if (/\\$[^$]+\\$|\\{[\\w:]+\\}`|\\*\\*/.test(text.textContent))
    problems.push("markup is shown: " + text.textContent.match(/.{0,30}(\\$[^$]+\\$|\\{[\\w:]+\\}`|\\*\\*).{0,40}/)[0]);
  for (const box of section.querySelectorAll("pre, mjx-container, table, img"))
    if (box.getBoundingClientRect().right > section.getBoundingClientRect().right + 1)
      problems.push("cut at the right edge: " + box.textContent.trim().slice(0, 60));
  const title = (section.querySelector("h1, h2") || section).textContent.trim();
  const base = parseFloat(getComputedStyle(section.parentElement).fontSize);
  return {
    title,
    problems,
    size: Math.round((100 * parseFloat(getComputedStyle(section).fontSize)) / base),
    over: section.scrollHeight - section.clientHeight,
    height: section.clientHeight,
  };
}"""


def check_deck(browser, path: Path, pictures: Path | None = None) -> DeckCheck:
    """Open a deck from the disk with the network cut off, and walk through it.

    Args:
        browser: Playwright's ``Browser``, from `bookkit.browser.open_browser`.
        path: The deck.
        pictures: Folder for a picture of each slide, if wanted.
    """
    done = DeckCheck()
    context = browser.new_context(viewport={"width": 1280, "height": 720})
    base = path.parent.resolve().as_uri()

    def guard(route) -> None:
        if route.request.url.startswith((base, "data:", "blob:")):
            route.continue_()
        else:
            done.problems.append(f"asks for {route.request.url}")
            route.abort()

    context.route("**/*", guard)
    page = context.new_page()
    page.on("pageerror", lambda error: done.problems.append(f"script error: {str(error)[:200]}"))
    page.on("console", lambda m: m.type == "error" and done.problems.append(f"console error: {m.text[:200]}"))
    try:
        page.goto(path.resolve().as_uri(), wait_until="load", timeout=60_000)
        page.wait_for_function("window.deck && window.deck.reveal.isReady()", timeout=60_000)
        places = page.evaluate(
            "() => deck.reveal.getSlides().map((s) => deck.reveal.getIndices(s)).map((i) => [i.h, i.v ?? 0])"
        )
        done.slides = len(places)
        for number, (h, v) in enumerate(places, start=1):
            page.evaluate("([h, v]) => window.deck.reveal.slide(h, v, 99)", [h, v])
            seen = page.evaluate(LOOK)
            name = f"{path.stem} {number}: {seen['title'][:60]}"
            done.problems += [f"{name}: {problem}" for problem in seen["problems"]]
            if seen["size"] < 100:
                done.smaller[name] = seen["size"]
            if seen["over"] > 1 or seen["height"] != 720:
                done.overflowing.append(f"{name} (by {seen['over']} px)")
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                page.screenshot(path=str(pictures / f"{path.stem}-{number:03d}.png"))
    finally:
        context.close()
    return done
