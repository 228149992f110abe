"""Where the chapters use the package's names: an index of code names, and a list at the end of each chapter.

A use is found in the syntax trees of the cells: a name that was imported from the package, or an attribute of one of
its modules. A name counts as what it is where it is defined, however it was imported: ``losses.VDC`` and ``from
twodasl_lite.losses.vdc import VDC`` are one. From the cell on in which a chapter defines a name itself, as it does when
it builds a function from scratch, that name is the chapter's own.

The first cell of a chapter that uses a name is a target, so that lists lead to the line and not to the chapter.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from nbformat import NotebookNode

from bookkit.config import Chapter
from bookkit.dependencies import Package

Symbol = tuple[str, str]  # the module that defines it, and its name
LONGEST_SUMMARY = 110


def define(package: Package, dotted: str) -> Symbol | None:
    """What a dotted name of the package is: the module that defines it and its name.

    Args:
        package: The package.
        dotted: Such as ``twodasl_lite.losses.VDC``; what follows the name, an attribute of a class, does not count.

    Returns:
        ``("twodasl_lite.losses.vdc", "VDC")``; ``None`` for modules, private names and other packages.
    """
    for _ in range(8):  # a name may be passed on from module to module
        parts = dotted.split(".")
        depth = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in package.modules), 0)
        if depth in (0, len(parts)) or parts[depth].startswith("_"):
            return None
        module, name = ".".join(parts[:depth]), parts[depth]
        unit = package.unit(module)
        if name in unit.homes:
            home = unit.homes[name]
            dotted = f"{home if home in package.modules else f'{module}.{home}'}.{name}"
        elif unit.aliases.get(name, "").startswith(f"{package.name}."):
            dotted = unit.aliases[name]
        else:
            return module, name
    raise ValueError(f"{dotted}: found a circle of imports; expected a module that defines it")


def used(package: Package, cells: Iterable[str]) -> list[list[Symbol]]:
    """The package's names that each cell of a chapter uses, in order; a cell with IPython's magics uses none."""
    aliases: dict[str, str] = {}
    found = []
    for source in cells:
        mine: dict[Symbol, None] = {}
        try:
            tree = ast.parse(source)
        except SyntaxError:
            tree = ast.Module([], [])
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level:
                aliases |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
            elif isinstance(node, ast.Import):
                for one in node.names:
                    top = one.name.partition(".")[0]
                    aliases[one.asname or top] = one.name if one.asname else top
        own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for node in tree.body:
            for target in getattr(node, "targets", []):
                stored = [one for one in ast.walk(target) if isinstance(one, ast.Name)]
                own |= {one.id for one in stored if isinstance(one.ctx, ast.Store)}
        dotted = [_dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute)]
        for name in filter(None, dotted):
            first, _, rest = name.partition(".")
            if first in own or first not in aliases:
                continue
            symbol = define(package, f"{aliases[first]}.{rest}".rstrip("."))
            if symbol:
                mine[symbol] = None
        for name in own:
            aliases.pop(name, None)
        found.append(list(mine))
    return found


def _dotted(node: ast.AST) -> str:
    """``a.b.c`` of a name or a chain of attributes; empty for anything else, and for what is written to."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else ""


def target(symbol: Symbol) -> str:
    """The name of the place in a chapter where it is first used."""
    return f"uses-{'.'.join(symbol).partition('.')[2].replace('.', '-').replace('_', '-').lower()}"


@dataclass(frozen=True)
class Index:
    """All uses in the book.

    Attributes:
        package: The package.
        chapters: The chapters, in order.
        cells: For each chapter's file the names that each code cell uses.
        shown: Files of the chapters that are on the site; only to these is linked.
    """

    package: Package
    chapters: tuple[Chapter, ...]
    cells: Mapping[str, list[list[Symbol]]]
    shown: frozenset[str]

    @cached_property
    def users(self) -> dict[Symbol, list[Chapter]]:
        """For each name the chapters that use it, in order."""
        found: dict[Symbol, list[Chapter]] = {}
        for chapter in self.chapters:
            for symbol in dict.fromkeys(symbol for cell in self.cells[chapter.file] for symbol in cell):
                found.setdefault(symbol, []).append(chapter)
        return found

    def new_in(self, chapter: Chapter, cell: int) -> list[Symbol]:
        """The names that a chapter's code cell, counted from 0, is the first of the chapter to use."""
        before = {symbol for earlier in self.cells[chapter.file][:cell] for symbol in earlier}
        return [symbol for symbol in self.cells[chapter.file][cell] if symbol not in before]

    def link(self, chapter: Chapter, symbol: Symbol, folder: str, words: str = "") -> str:
        """A link to the first use of a name in a chapter, as HTML.

        Args:
            chapter: The chapter.
            symbol: The name.
            folder: The way from the page to the chapters, such as ``../notebooks/``.
            words: The link's text, by default the chapter's number.
        """
        words = words or str(chapter.number)
        if chapter.file not in self.shown:
            return words
        title = html.escape(f"{chapter.number} {chapter.title}", quote=True)
        return f'<a href="{folder}{chapter.file}.html#{target(symbol)}" title="{title}">{words}</a>'

    def summary(self, symbol: Symbol) -> str:
        """The first line of a name's documentation, as Markdown; empty for a value."""
        tree = ast.parse(self.package.modules[symbol[0]].read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == symbol[1]:
                line = (ast.get_docstring(node) or "").partition("\n")[0]
                line = line if len(line) <= LONGEST_SUMMARY else line[:LONGEST_SUMMARY].rsplit(" ", 1)[0] + " …"
                line = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", line)  # roles of reStructuredText
                line += "`" if line.count("`") % 2 else ""
                return line.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;").replace("$", "\\$")
        return ""


def make_index(
    package: Package, chapters: Iterable[tuple[Chapter, NotebookNode]], shown: Iterable[str] | None = None
) -> Index:
    """Read all uses.

    Args:
        package: The package.
        chapters: All chapters of the book with their notebooks, in order.
        shown: Files of those that are on the site; all by default.
    """
    cells = {}
    read = list(chapters)
    for chapter, notebook in read:
        sources = [
            "" if "install" in cell.metadata.get("tags", []) else cell.source
            for cell in notebook.cells
            if cell.cell_type == "code"
        ]
        cells[chapter.file] = used(package, sources)
    files = frozenset(chapter.file for chapter, _ in read) if shown is None else frozenset(shown)
    return Index(package, tuple(chapter for chapter, _ in read), cells, files)


def targets_of_cell(index: Index, chapter: Chapter, cell: int) -> str:
    """The targets that belong before a code cell, as HTML; empty where the cell uses nothing new."""
    return "".join(f'<span id="{target(symbol)}"></span>' for symbol in index.new_in(chapter, cell))


def chapter_list(index: Index, chapter: Chapter) -> str:
    """What a chapter uses of the package, and where else the book does, as folded Markdown; empty for nothing."""
    mine = [symbol for symbol, chapters in index.users.items() if chapter in chapters]
    if not mine:
        return ""
    new = [symbol for symbol in mine if index.users[symbol][0] == chapter]
    lines = [
        f":::::{{dropdown}} Code names used here: {len(mine)}, of which {len(new)} for the first time",
        ":class-container: code-names",
        "",
        "| name | first seen in chapter | used in chapters |",
        "|---|---|---|",
    ]
    for symbol in sorted(mine, key=lambda symbol: (index.users[symbol][0].number, symbol[1].lower())):
        chapters = index.users[symbol]
        where = ", ".join(
            index.link(one, symbol, "", f"<strong>{one.number}</strong>" if one == chapter else "") for one in chapters
        )
        first = "here"
        if chapters[0] != chapter:
            first = index.link(chapters[0], symbol, "", f"{chapters[0].number} {chapters[0].title}")
        lines.append(f"| {{py:obj}}`{symbol[1]} <{'.'.join(symbol)}>` | {first} | {where} |")
    return "\n".join([*lines, ":::::"])


def index_page(index: Index) -> str:
    """All names that chapters use, by module, with what they are and the chapters, as Markdown."""
    modules: dict[str, list[Symbol]] = {}
    for symbol in index.users:
        modules.setdefault(symbol[0], []).append(symbol)
    lines = []
    for module in sorted(modules):
        lines += [f"## [`{module}`](api/{module}.md)", "", "| name | what it is | chapters |", "|---|---|---|"]
        for symbol in sorted(modules[module], key=lambda symbol: symbol[1].lower()):
            where = ", ".join(index.link(chapter, symbol, "../notebooks/") for chapter in index.users[symbol])
            lines.append(f"| {{py:obj}}`{symbol[1]} <{'.'.join(symbol)}>` | {index.summary(symbol)} | {where} |")
        lines.append("")
    return "\n".join(lines)
