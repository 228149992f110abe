r"""Numbers of figures, exercises and formulas, and the references to them: all written by the builder.

A chapter is read in two forms, in JupyterLab and as a page, and its numbers are the same in both. Nobody types one:

* captions begin ``**Figure.**``, exercises ``### Exercise · Title``. `number_text` puts the numbers in, counting from
  one in each chapter; ``make pair`` does this in notebooks and scripts, the build does it again for the page;
* what is referred to has a label, an anchor that JupyterLab understands too: ``**Figure.**<a id="walk"></a> …``,
  ``### Exercise · Half a face <a id="half-a-face"></a>``, in a formula ``\label{energy}``. Each is unique;
* text refers by label: ``[figure](#walk)``, in another chapter ``[Figure](10_landmark_consistency_2d.ipynb#walk)``,
  ``[exercise](#half-a-face)``, ``[equation](#energy)`` or ``{eq}`energy```. The number is put into the brackets.

A reference that leads nowhere, or to another kind of thing than it says, ends the build (`DanglingError`). On the page,
captions, exercises and displayed formulas are targets (``walk``, ``figure-10-5``, ``exercise-10-1``,
``equation-10-3``), and a formula gets its number from ``\tag``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import nbformat
from nbformat import NotebookNode

from bookkit.config import Chapter

ANCHOR = r'<a id="([\w-]+)"></a>'
CAPTION = re.compile(rf"^\*\*Figure(?: (\d+\.\d+))?\.?\*\*(?:{ANCHOR})?", re.MULTILINE)
EXERCISE = re.compile(rf"^### Exercise(?: (\d+\.\d+))?(?: · (.+?))?(?: {ANCHOR})?$", re.MULTILINE)
FORMULA = re.compile(r"^\$\$(.+?)\$\$[ \t]*$", re.MULTILINE | re.DOTALL)
LABEL = re.compile(r"\\label\{([\w-]+)\}")
EQUATION_ROLE = re.compile(r"\{eq\}`([\w-]+)`")
# The word and a number that may stand there already; the notebook of another chapter; the label.
REFERENCE = re.compile(
    r"\[(figure|exercise|equation)(?:\s+\(?\d+\.\d+\)?)?\]\((?:[\w.-]+\.ipynb)?#([\w-]+)\)", re.IGNORECASE
)
TYPED = re.compile(r"\b(figure|exercise|equation)s?\s+\(?\d+\.\d+", re.IGNORECASE)
# Where a number is no reference: code, links, formulas, headings, the captions themselves.
KEPT = re.compile(
    r"(^```.*?^```|^:::+.*?$|`[^`]*`|\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|\$[^$\n]*\$|^#.*?$|^\*\*Figure \d+\.\d+\.?\*\*)",
    re.MULTILINE | re.DOTALL,
)


class DanglingError(ValueError):
    """A reference leads nowhere, or to another kind of thing than it says."""


@dataclass(frozen=True)
class Place:
    """Something with a label.

    Attributes:
        kind: ``figure``, ``exercise`` or ``equation``.
        number: Such as ``10.5``.
        file: Name of its chapter's notebook, without the ending.
    """

    kind: str
    number: str
    file: str


@dataclass
class Numbered:
    """Everything that can be referred to in a set of chapters.

    Attributes:
        labels: What each label stands for.
        exercises: For each chapter its exercises, number and title.
    """

    labels: dict[str, Place] = field(default_factory=dict)
    exercises: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    def find(self, kind: str, label: str, where: str) -> Place:
        """What a reference leads to.

        Args:
            kind: What the text says it is.
            label: The label.
            where: Where the reference stands, for the message.

        Raises:
            DanglingError: There is no such label, or it stands for something else.
        """
        place = self.labels.get(label)
        if place is None:
            listed = ", ".join(sorted(name for name, one in self.labels.items() if one.kind == kind)) or "none"
            raise DanglingError(f"{where}: found a reference to the {kind} {label!r}; there is none. Known: {listed}")
        if place.kind != kind:
            raise DanglingError(f"{where}: found a reference to the {kind} {label!r}; expected {place.kind}")
        return place


@dataclass
class Count:
    """How many of each kind stand before a text in its chapter."""

    figure: int = 0
    exercise: int = 0
    equation: int = 0


def anchor(kind: str, number: str) -> str:
    """The name of a place, such as ``figure-4-2``."""
    return f"{kind}-{number.replace('.', '-')}"


def _texts(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def number(chapters: Iterable[tuple[Chapter, NotebookNode]]) -> Numbered:
    """Everything in these chapters that can be referred to, by position and not by what numbers stand there.

    Raises:
        ValueError: Two places have the same label.
    """
    found = Numbered()

    def add(label: str | None, kind: str, given: str, chapter: Chapter) -> None:
        if label in found.labels:
            raise ValueError(
                f"{chapter.file}: found the label {label!r} twice, also in {found.labels[label].file}; expected one "
                "place of that name"
            )
        if label:
            found.labels[label] = Place(kind, given, chapter.file)

    for chapter, notebook in chapters:
        count = Count()
        for text in _texts(notebook):
            for match in CAPTION.finditer(text):
                count.figure += 1
                add(match[2], "figure", f"{chapter.number}.{count.figure}", chapter)
            for match in EXERCISE.finditer(text):
                count.exercise += 1
                given = f"{chapter.number}.{count.exercise}"
                found.exercises.setdefault(chapter.number, []).append((given, match[2] or ""))
                add(match[3], "exercise", given, chapter)
            for formula in FORMULA.findall(text):
                count.equation += 1
                for label in LABEL.findall(formula):
                    add(label, "equation", f"{chapter.number}.{count.equation}", chapter)
    return found


def number_text(text: str, chapter: Chapter, count: Count, known: Numbered) -> str:
    """A text with its numbers: captions and exercises by position, references by label.

    Args:
        text: Markdown of one cell.
        chapter: Where it stands.
        count: What stands before it in the chapter; it is moved on.
        known: What can be referred to.

    Raises:
        DanglingError: A reference leads nowhere.
    """

    def caption(match: re.Match) -> str:
        count.figure += 1
        return f"**Figure {chapter.number}.{count.figure}.**" + (f'<a id="{match[2]}"></a>' if match[2] else "")

    def exercise(match: re.Match) -> str:
        count.exercise += 1
        words = f"### Exercise {chapter.number}.{count.exercise}"
        words += f" · {match[2]}" if match[2] else ""
        return words + (f' <a id="{match[3]}"></a>' if match[3] else "")

    return refer(EXERCISE.sub(exercise, CAPTION.sub(caption, text)), known, chapter.file)


def refer(text: str, known: Numbered, file: str) -> str:
    """A text whose references hold the numbers of what they lead to.

    Args:
        text: Markdown.
        known: What can be referred to.
        file: The notebook in which it stands, without the ending; other text gives its name, for messages.

    Raises:
        DanglingError: A reference leads nowhere.
    """

    def link(match: re.Match) -> str:
        place = known.find(match[1].lower(), match[2], file)
        given = f"({place.number})" if place.kind == "equation" else place.number
        elsewhere = "" if place.file == file else f"{place.file}.ipynb"
        return f"[{match[1]} {given}]({elsewhere}#{match[2]})"

    return REFERENCE.sub(link, text)


def link_references(text: str, known: Numbered, where: str, shown: Iterable[str] | None = None) -> str:
    """A text of the site, whose references are numbered links to targets.

    Args:
        text: Markdown.
        known: What can be referred to.
        where: Where it stands, for messages.
        shown: Notebooks that are on the site; a reference to another is text without a link. All by default.

    Raises:
        DanglingError: A reference leads nowhere.
    """
    shown = None if shown is None else set(shown)

    def link(kind: str, label: str, words: str) -> str:
        place = known.find(kind, label, where)
        given = f"({place.number})" if kind == "equation" else place.number
        words = f"{words} {given}".strip()
        return words if shown is not None and place.file not in shown else f"[{words}](#{label})"

    text = REFERENCE.sub(lambda match: link(match[1].lower(), match[2], match[1]), text)
    return EQUATION_ROLE.sub(lambda match: link("equation", match[1], ""), text)


def number_notebook(notebook: NotebookNode, chapter: Chapter, known: Numbered) -> NotebookNode:
    """Put the numbers into all texts of a notebook, in place, and return it.

    Raises:
        DanglingError: A reference leads nowhere.
    """
    count = Count()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = number_text(cell.source, chapter, count, known)
    return notebook


def problems(chapters: Iterable[tuple[Chapter, NotebookNode]]) -> list[str]:
    """Numbers that are not those of the builder, numbers typed by hand, references that lead nowhere."""
    chapters = list(chapters)
    known = number(chapters)
    found = []
    for chapter, notebook in chapters:
        count = Count()
        code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
        found += [
            f"{chapter.file}: found {typed[0]!r} in a code cell, where nothing renumbers it; expected words"
            for typed in TYPED.finditer("\n".join(code))
        ]
        for text in _texts(notebook):
            try:
                for label in EQUATION_ROLE.findall(text):
                    known.find("equation", label, chapter.file)
                wanted = number_text(text, chapter, count, known)
            except DanglingError as error:
                found.append(str(error))
                continue
            for line, right in zip(text.splitlines(), wanted.splitlines(), strict=True):
                if line != right:
                    found.append(f"{chapter.file}: found {line[:60]!r}; expected {right[:60]!r}: run `make pair`")
            if any(match.start() for match in CAPTION.finditer(text)):
                found.append(f"{chapter.file}: found a caption inside a cell; expected it at the beginning of one")
            for piece in KEPT.split(text)[::2]:
                for typed in TYPED.finditer(piece):
                    words = " ".join(typed[0].split())
                    found.append(
                        f"{chapter.file}: found {words!r} typed by hand; expected a label: [{typed[1]}](#label)"
                    )
    return found


def add_targets(text: str, chapter: Chapter, count: Count) -> str:
    """A numbered text whose exercises and formulas can be linked to, and whose formulas are numbered.

    Args:
        text: Markdown that `number_text` has been over.
        chapter: Where it stands.
        count: Whose formulas stand before it; their number is moved on.
    """

    def exercise(match: re.Match) -> str:
        targets = [anchor("exercise", match[1]), *([match[3]] if match[3] else [])]
        heading = match[0].replace(f' <a id="{match[3]}"></a>', "")
        return "\n\n".join([*(f"({target})=" for target in targets), heading])

    def tag(match: re.Match) -> str:
        count.equation += 1
        given = f"{chapter.number}.{count.equation}"
        targets = "\n\n".join(f"({target})=" for target in [anchor("equation", given), *LABEL.findall(match[1])])
        inside = LABEL.sub("", match[1]).rstrip()
        # Environments that number their own lines cannot take a second tag.
        mark = "" if re.search(r"\\tag|\\begin\{(?:align|gather|multline)\*?\}", inside) else f" \\tag{{{given}}}"
        if mark:
            # Sphinx puts a formula with row breaks into a split environment, where a tag is an error; it does not look
            # for the other spelling of a row break.
            inside = re.sub(r"\\\\(?!\[)", r"\\cr ", inside)
        return f"\n{targets}\n\n$$\n{inside.strip()}{mark}\n$$\n"

    return FORMULA.sub(tag, EXERCISE.sub(exercise, text))


def frame_caption(text: str) -> str:
    """A cell that begins with a numbered caption: the caption in its block, with targets, and what follows it."""
    match = CAPTION.match(text)
    targets = [anchor("figure", match[1]), *([match[2]] if match[2] else [])]
    caption, rest = split_caption(text.replace(f'<a id="{match[2]}"></a>', "", 1))
    lines = [*(f"({target})=" for target in targets), f"::::{{div}} figure-caption\n{caption}\n::::", rest]
    return "\n\n".join(lines).rstrip()


def split_caption(text: str) -> tuple[str, str]:
    """A caption, which is one paragraph, and what follows it in the same cell."""
    caption, _, rest = text.partition("\n\n")
    return caption, rest


def exercise_list(chapters: Iterable[Chapter], known: Numbered) -> str:
    """All exercises by chapter, as Markdown with links."""
    lines = []
    for chapter in chapters:
        listed = known.exercises.get(chapter.number, [])
        if listed:
            lines += [f"## {chapter.number} {chapter.title}", ""]
            lines += [f"- [Exercise {given}](#{anchor('exercise', given)}): {title}" for given, title in listed]
            lines.append("")
    return "\n".join(lines)


def term_list(chapters: Iterable[tuple[Chapter, NotebookNode]]) -> str:
    """The glossary terms that chapters use, with links to those chapters, as Markdown."""
    users: dict[str, list[Chapter]] = {}
    for chapter, notebook in chapters:
        for text in _texts(notebook):
            for words in re.findall(r"\{term\}`([^`]+)`", text):
                term = (re.search(r"<(.+)>", words) or [None, words])[1].replace("\n", " ").strip()
                listed = users.setdefault(term, [])
                if chapter not in listed:
                    listed.append(chapter)
    lines = []
    for term in sorted(users, key=str.lower):
        links = ", ".join(f"[{c.number} {c.title}](../notebooks/{c.file}.ipynb)" for c in users[term])
        lines.append(f"- {{term}}`{term}`: {links}")
    return "\n".join(lines)


def read(chapters: Iterable[Chapter]) -> list[tuple[Chapter, NotebookNode]]:
    """Chapters together with their notebooks."""
    return [(chapter, nbformat.read(chapter.path, as_version=4)) for chapter in chapters]
