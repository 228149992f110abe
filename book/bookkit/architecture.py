"""A picture of the package's imports: folders and modules are rooms, and arrows lead to the rooms that a room imports.

Everything is generated, so that the page cannot go out of date. Rooms are placed on floors, each above everything that
it imports. Rooms that import each other in a cycle share a floor and are listed. Arrows that other arrows imply are
left out of the picture; the table has them all.

Docstrings say which chapters explain a module ("See chapter 3.", "See chapters 9 to 13."), and the first lines of a
folder's what it may import ("May import ``base`` and ``geometry``."); both are read here, for the page and the tests.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Mapping, Sequence

from bookkit.config import Chapter, road_map
from bookkit.dependencies import Package

WIDTH, HEIGHT, GAP, FLOOR, MARGIN = 132, 40, 14, 92, 10
ROOMS_IN_A_ROW = 7

_NUMBERS = r"\d+(?:(?:,\s+|\s+and\s+|\s+to\s+)\d+)*"
CITATION = re.compile(rf"\bSee\s+chapters?\s+({_NUMBERS})")
_MAY_IMPORT = re.compile(r"^May import ((?:``[\w.]+``|no other room|apps|and|all|that|may|[,:\s])+)\.\s", re.MULTILINE)


def rooms(package: Package) -> dict[str, set[str]]:
    """Each top-level folder or module of the package, with those that it imports."""
    found: dict[str, set[str]] = {}
    for module in package.modules:
        room = _room(module)
        if room is None:
            continue
        reached = {_room(other) for other in package._direct(package.unit(module), module)}
        found.setdefault(room, set()).update(other for other in reached if other not in {None, room})
    return found


def _room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__main__" else None


def module_imports(package: Package) -> dict[str, set[str]]:
    """Each module with those that it imports; a package that it stands in counts if it is asked for a name.

    ``from pack.sub import other`` imports the module ``other``; that ``pack.sub`` comes with it is no circle.
    """
    found = {}
    for module in package.modules:
        unit = package.unit(module)
        asked = {name.rpartition(".")[0] for name in unit.imports if name not in package.modules}
        found[module] = {
            other
            for other in package._direct(unit, module)
            if not module.startswith(f"{other}.") or (other in asked and other != package.name)
        }
    return found


def docstring(package: Package, module: str) -> str:
    """A module's docstring, or nothing."""
    return ast.get_docstring(ast.parse(package.modules[module].read_text(encoding="utf-8"))) or ""


def may_import(text: str) -> set[str] | None:
    """What the opening of a folder's docstring allows; ``None`` if it says nothing of it."""
    match = _MAY_IMPORT.search(text)
    return None if match is None else set(re.findall(r"``([\w.]+)``", match[1]))


def cited_chapters(text: str) -> set[int]:
    """Numbers of the chapters that a docstring refers to."""
    found: set[int] = set()
    for match in CITATION.finditer(text):
        for part in re.split(r",\s+|\s+and\s+", match[1]):
            first, *last = re.split(r"\s+to\s+", part)
            found |= set(range(int(first), int(last[0] if last else first) + 1))
    return found


def chapter_modules(package: Package) -> dict[int, list[str]]:
    """For each chapter the modules whose docstrings refer to it; folders that do not are left to their modules."""
    found: dict[int, list[str]] = {}
    for module in sorted(package.modules):
        for number in cited_chapters(docstring(package, module)):
            found.setdefault(number, []).append(module)
    return found


def circles(imports: Mapping[str, set[str]]) -> list[set[str]]:
    """Sets of rooms that reach each other."""
    reach = {room: _reach(room, imports) for room in imports}
    found: list[set[str]] = []
    for room in imports:
        circle = {other for other in reach[room] if room in reach[other]}
        if circle and circle not in found:
            found.append(circle)
    return found


def _reach(room: str, imports: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = set(imports[room])
    while ahead:
        other = ahead.pop()
        seen.add(other)
        ahead |= imports.get(other, set()) - seen
    return seen


def floors(imports: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room, from 1: one above the highest floor that it imports, cycles aside."""
    same = {room: circle for circle in circles(imports) for room in circle}
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            circle = same.get(room, {room})
            below = set().union(*(imports.get(member, set()) for member in circle)) - circle
            height = 1 + max((floor(other) for other in below), default=0)
            found.update(dict.fromkeys(circle, height))
        return found[room]

    for room in imports:
        floor(room)
    return found


def drawn_arrows(imports: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """The imports that no other import implies."""
    arrows = []
    for room, direct in imports.items():
        behind = {other: _reach(other, imports) for other in direct}
        for other in sorted(direct):
            if not any(other in behind[third] and third not in behind[other] for third in direct - {other}):
                arrows.append((room, other))
    return arrows


def architecture_svg(imports: Mapping[str, set[str]], package: str) -> str:
    """The picture; each room is a link to its page of the API reference."""
    height_of = floors(imports)
    rows: list[list[str]] = []
    for floor in range(max(height_of.values(), default=0), 0, -1):
        inside = sorted(room for room in imports if height_of[room] == floor)
        pieces = -(-len(inside) // ROOMS_IN_A_ROW)
        size = -(-len(inside) // pieces) if pieces else 1
        rows += [inside[start : start + size] for start in range(0, len(inside), size)]
    widest = max((len(row) for row in rows), default=1)
    width = 2 * MARGIN + widest * (WIDTH + GAP) - GAP
    place, boxes = {}, []
    for r, row in enumerate(rows):
        left = (width - len(row) * (WIDTH + GAP) + GAP) / 2
        for i, room in enumerate(row):
            x, y = left + i * (WIDTH + GAP), MARGIN + r * FLOOR
            place[room] = (x, y)
            part = 1 + (height_of[room] - 1) % 5
            boxes.append(
                f'<a class="road-box road-part-{part}" href="api/{package}.{room}.html"><title>{package}.{room}, floor '
                f"{height_of[room]}: imports {html.escape(', '.join(sorted(imports[room])) or 'nothing')}</title>"
                f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
                f'<text class="room-name" x="{x + WIDTH / 2:g}" y="{y + HEIGHT / 2:g}">{html.escape(room)}</text></a>'
            )
    lines = []
    for room, other in drawn_arrows(imports):
        (x1, y1), (x2, y2) = place[room], place[other]
        a, b = x1 + WIDTH / 2, x2 + WIDTH / 2
        start, end = (y1 + HEIGHT, y2 - 3) if y2 > y1 else (y1 + HEIGHT, y2 + HEIGHT + 3)
        bend = max(24, abs(end - start) * 0.45)
        d = f"M{a:g},{start:g} C{a:g},{start + bend:g} {b:g},{end - bend if y2 > y1 else end + bend:g} {b:g},{end:g}"
        lines.append(f'<path class="road-edge" d="{d}" marker-end="url(#room-arrow)"/>')
    height = MARGIN * 2 + (len(rows) - 1) * FLOOR + HEIGHT
    arrow = (
        '<defs><marker id="room-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" '
        'orient="auto"><path d="M0,0.8 L7,4 L0,7.2 Z" class="road-tip"/></marker></defs>'
    )
    return (
        f'<div class="architecture" role="region" tabindex="0" aria-label="Floors of the package">'
        f'<svg viewBox="0 0 {width:g} {height:g}" style="min-width:{0.7 * width:.0f}px;max-width:{1.25 * width:.0f}px;'
        f'display:block;margin:auto" role="group" '
        f'aria-label="Rooms of {package} and what they import">{arrow}{"".join(lines)}{"".join(boxes)}</svg></div>\n'
    )


def architecture_page(package: Package, chapters: Sequence[Chapter] | None = None) -> str:
    """The generated part of the page *Architecture*, as Markdown.

    Args:
        package: The package.
        chapters: Those of the book by default.
    """
    imports = rooms(package)
    height_of = floors(imports)
    lines = [architecture_svg(imports, package.name), ""]
    for circle in circles(imports):
        lines += [f"Rooms that import each other: {', '.join(f'`{room}`' for room in sorted(circle))}.", ""]
    lines += ["| floor | room | contents | imports |", "|---:|---|---|---|"]
    for room in sorted(imports, key=lambda room: (-height_of[room], room)):
        about = docstring(package, f"{package.name}.{room}").partition("\n")[0].replace("|", "\\|")
        needs = ", ".join(f"`{other}`" for other in sorted(imports[room])) or "–"
        lines.append(f"| {height_of[room]} | [`{room}`](api/{package.name}.{room}.md) | {about} | {needs} |")
    lines += ["", "## From a chapter to the code", "", "| | chapter | modules that it explains |", "|---:|---|---|"]
    explained = chapter_modules(package)
    for chapter in road_map() if chapters is None else chapters:
        names = [(module, module.removeprefix(f"{package.name}.")) for module in explained.get(chapter.number, [])]
        listed = ", ".join(f"[`{name}`](api/{module}.md)" for module, name in names) or "–"
        title = f"[{chapter.title}](../notebooks/{chapter.file}.ipynb)" if chapter.written else chapter.title
        lines.append(f"| {chapter.number} | {title} | {listed} |")
    return "\n".join(lines)
