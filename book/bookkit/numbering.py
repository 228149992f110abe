r"""Numbers of figures, exercises and equations: checked, turned into link targets, and linked.

A chapter is read in two forms. JupyterLab does not number anything, so captions (``**Figure 4.2.** …``) and exercises
(``### Exercise 4.1 · …``) have their numbers in the source; `problems` lists gaps in the numbering and mentions of
numbers that do not exist. On the page

* captions, exercises and displayed formulas become targets (``figure-4-2``, ``exercise-4-1``, ``equation-4-3``);
* each mention ("figure 4.2", "Exercises 4.1") becomes a link, across chapters too;
* displayed formulas get their numbers here, through ``\tag``: nobody types one. A formula that the text refers to
  contains ``\label{name}``, and the text refers to it with ``{eq}`name```.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import nbformat
from nbformat import NotebookNode

from bookkit.config import Chapter

CAPTION = re.compile(r"^\*\*Figure (\d+)\.(\d+)\.?\*\*", re.MULTILINE)
EXERCISE = re.compile(r"^### Exercise (\d+)\.(\d+)(?: · (.+))?$", re.MULTILINE)
FORMULA = re.compile(r"^\$\$(.+?)\$\$[ \t]*$", re.MULTILINE | re.DOTALL)
LABEL = re.compile(r"\\label\{([\w-]+)\}")
EQUATION_ROLE = re.compile(r"\{eq\}`([\w-]+)`")
MENTION = re.compile(r"\b(figure|exercise|equation)(s?) (\d+\.\d+)(?:( and | to |, )(\d+\.\d+))?", re.IGNORECASE)
# Places where a number is not a mention: code, links, formulas, roles, headings, the captions themselves.
KEPT = re.compile(
    r"(^```.*?^```|^:::+.*?$|`[^`]*`|\[[^\]]*\]\([^)]*\)|\$\$.*?\$\$|\$[^$\n]*\$|^#.*?$|^\*\*Figure \d+\.\d+\.?\*\*)",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Numbered:
    """Everything that can be referred to in a set of chapters.

    Attributes:
        places: Kind and number of each target: ``("figure", "4.2")``.
        labels: Number of each labelled formula.
        exercises: Number and title of each chapter's exercises.
    """

    places: set[tuple[str, str]] = field(default_factory=set)
    labels: dict[str, str] = field(default_factory=dict)
    exercises: dict[int, list[tuple[str, str]]] = field(default_factory=dict)


def anchor(kind: str, number: str) -> str:
    """The name of a place, such as ``figure-4-2``."""
    return f"{kind}-{number.replace('.', '-')}"


def _texts(notebook: NotebookNode) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def number(chapters: Iterable[tuple[Chapter, NotebookNode]]) -> Numbered:
    """Collect everything in these chapters that can be referred to.

    Raises:
        ValueError: If two formulas have the same label.
    """
    found = Numbered()
    for chapter, notebook in chapters:
        formulas = 0
        for text in _texts(notebook):
            found.places |= {("figure", f"{a}.{b}") for a, b in CAPTION.findall(text)}
            for a, b, title in EXERCISE.findall(text):
                found.places.add(("exercise", f"{a}.{b}"))
                found.exercises.setdefault(chapter.number, []).append((f"{a}.{b}", title))
            for formula in FORMULA.findall(text):
                formulas += 1
                given = f"{chapter.number}.{formulas}"
                found.places.add(("equation", given))
                for label in LABEL.findall(formula):
                    if label in found.labels:
                        raise ValueError(f"{chapter.file}: found the label {label!r} twice; expected one formula of it")
                    found.labels[label] = given
    return found


def problems(chapters: Iterable[tuple[Chapter, NotebookNode]]) -> list[str]:
    """Captions and exercises that are not numbered 1, 2, 3, …, and mentions of numbers that do not exist."""
    chapters = list(chapters)
    known = number(chapters)
    found = []
    for chapter, notebook in chapters:
        for kind, pattern in (("Figure", CAPTION), ("Exercise", EXERCISE)):
            numbers = [match.group(1, 2) for text in _texts(notebook) for match in pattern.finditer(text)]
            for position, (first, second) in enumerate(numbers, start=1):
                if (int(first), int(second)) != (chapter.number, position):
                    found.append(
                        f"{chapter.file}: found {kind} {first}.{second}; expected {kind} {chapter.number}.{position}"
                    )
        for text in _texts(notebook):
            for kind, mentioned in mentions(text):
                if (kind, mentioned) not in known.places:
                    found.append(f"{chapter.file}: mentions {kind} {mentioned}, which there is not")
            for label in EQUATION_ROLE.findall(text):
                if label not in known.labels:
                    found.append(f"{chapter.file}: refers to the formula {label!r}, which no \\label names")
    return found


def mentions(text: str) -> list[tuple[str, str]]:
    """Kind and number of everything that a text refers to."""
    found = []
    for piece in KEPT.split(text)[::2]:
        for kind, _, first, _, second in MENTION.findall(piece):
            found += [(kind.lower(), given) for given in (first, second) if given]
    return found


def link_mentions(text: str, known: Numbered) -> str:
    """A text in which references to known targets are links."""

    def link(match: re.Match) -> str:
        kind, plural, first, between, second = match.groups()
        name = kind.lower()
        words = f"{kind}{plural} {first}"
        if (name, first) in known.places:
            words = f"[{words}](#{anchor(name, first)})"
        if second:
            words += between
            words += f"[{second}](#{anchor(name, second)})" if (name, second) in known.places else second
        return words

    pieces = KEPT.split(text)
    pieces[::2] = [MENTION.sub(link, piece) for piece in pieces[::2]]
    return EQUATION_ROLE.sub(
        lambda match: (
            f"[({known.labels[match[1]]})](#{anchor('equation', known.labels[match[1]])})"
            if match[1] in known.labels
            else match[0]
        ),
        "".join(pieces),
    )


def add_targets(text: str, chapter: Chapter, formulas: int) -> tuple[str, int]:
    """A text with link targets for exercises and formulas, and with numbered formulas.

    Args:
        text: Text in Markdown.
        chapter: Chapter that contains the text.
        formulas: Number of displayed formulas before it in the chapter.

    Returns:
        The text, and the number of formulas up to its end.
    """
    text = EXERCISE.sub(lambda match: f"({anchor('exercise', f'{match[1]}.{match[2]}')})=\n\n{match[0]}", text)

    def tag(match: re.Match) -> str:
        nonlocal formulas
        formulas += 1
        given = f"{chapter.number}.{formulas}"
        inside = LABEL.sub("", match[1]).rstrip()
        # Environments that number their own lines cannot take a second tag.
        mark = "" if re.search(r"\\tag|\\begin\{(?:align|gather|multline)\*?\}", inside) else f" \\tag{{{given}}}"
        if mark:
            # Sphinx puts a formula with row breaks into a split environment, where a tag is an error; it does not look
            # for the other spelling of a row break.
            inside = re.sub(r"\\\\(?!\[)", r"\\cr ", inside)
        return f"\n({anchor('equation', given)})=\n\n$$\n{inside.strip()}{mark}\n$$\n"

    return FORMULA.sub(tag, text), formulas


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
