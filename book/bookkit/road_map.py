"""The road map as a picture: chapters are boxes, and arrows lead to a chapter from the chapters that it needs.

Two SVGs are made from ``book/chapters.toml``, and the style sheet shows the one that fits: in a wide window one column
for each part, on a phone a single column of all chapters with arcs beside it. Colours come from the page's theme.
Arrows that others imply are left out: if chapter 7 needs 3 and 6, and 6 needs 3, the arrow from 3 to 7 would add
nothing.
"""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterable, Mapping

from bookkit.config import Chapter

WIDE = 1060  # width of the picture in its own coordinates
GUTTER, BOX_HEIGHT, ROW = 36, 62, 86
TOP = 46  # top of the boxes, below the titles of the parts
TALL, TALL_ROW, TALL_BOX = 380, 56, 44
ARC_ROOM = 76  # space left of the boxes on a phone
LETTERS = 15  # greatest number of letters in a line of a box


def direct_needs(chapters: Iterable[Chapter]) -> dict[int, list[int]]:
    """The needs of each chapter, without those that follow from its other needs."""
    needs = {chapter.number: set(chapter.needs) for chapter in chapters}
    behind: dict[int, set[int]] = {}
    for number in sorted(needs):
        behind[number] = set(needs[number]).union(*(behind[n] for n in needs[number]))
    return {
        number: sorted(n for n in given if not any(n in behind[other] for other in given if other != n))
        for number, given in needs.items()
    }


def road_map_svg(chapters: Iterable[Chapter], links: Mapping[int, str]) -> str:
    """Both pictures as HTML.

    Args:
        chapters: All chapters of the book, in order.
        links: Addresses of the chapters that are written.
    """
    chapters = list(chapters)
    parts = list(dict.fromkeys(chapter.part for chapter in chapters))
    edges = [(n, number) for number, given in direct_needs(chapters).items() for n in given]
    return (
        '<div class="road-map-picture">'
        f"{_wide(chapters, parts, edges, links)}{_tall(chapters, parts, edges, links)}</div>\n"
    )


def _frame(kind: str, width: float, height: float, inside: list[str]) -> str:
    # Each picture has its own marker: identities are unique on a page.
    arrow = (
        f'<defs><marker id="road-arrow-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0,0.8 L7,4 L0,7.2 Z" class="road-tip"/></marker></defs>'
    )
    return (
        f'<svg class="road-{kind}" viewBox="0 0 {width:g} {height:g}" role="group" '
        f'aria-label="Road map: chapters and what they need">{arrow}{"".join(inside)}</svg>'
    )


def _box(chapter: Chapter, part: int, x: float, y: float, width: float, height: float, link: str | None) -> str:
    title = html.escape(chapter.title)
    lines = textwrap.wrap(chapter.title, LETTERS) if height > TALL_BOX else [chapter.title]
    middle = y + height / 2 - (len(lines) - 1) * 8.5
    text = "".join(
        f'<text class="road-title" x="{x + 42:g}" y="{middle + 17 * i:g}">{html.escape(line)}</text>'
        for i, line in enumerate(lines)
    )
    needs = f"; needs {', '.join(map(str, chapter.needs))}" if chapter.needs else ""
    inside = (
        f"<title>Chapter {chapter.number}: {title}{needs}</title>"
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="9"/>'
        f'<text class="road-number" x="{x + 21:g}" y="{y + height / 2:g}">{chapter.number}</text>{text}'
    )
    kind = f"road-box road-part-{part + 1}"
    if link is None:
        return f'<g class="{kind} planned">{inside}</g>'
    return f'<a class="{kind}" href="{html.escape(link, quote=True)}">{inside}</a>'


def _wide(chapters: list[Chapter], parts: list[str], edges: list[tuple[int, int]], links: Mapping[int, str]) -> str:
    column = (WIDE - (len(parts) - 1) * GUTTER) / len(parts)
    rows = max(sum(chapter.part == part for chapter in chapters) for part in parts)
    height = TOP + (rows - 1) * ROW + BOX_HEIGHT + 6
    place: dict[int, tuple[float, float, int, int]] = {}
    boxes = []
    for p, part in enumerate(parts):
        inside = [chapter for chapter in chapters if chapter.part == part]
        x = p * (column + GUTTER)
        boxes.append(f'<text class="road-part" x="{x + column / 2:g}" y="20">{html.escape(part)}</text>')
        for i, chapter in enumerate(inside):
            row = i + (rows - len(inside)) / 2  # short columns are centred
            y = TOP + row * ROW
            place[chapter.number] = (x, y, p, i)
            boxes.append(_box(chapter, p, x, y, column, BOX_HEIGHT, links.get(chapter.number)))
    lines = []
    for start, end in edges:
        (x1, y1, p1, i1), (x2, y2, p2, i2) = place[start], place[end]
        if p1 == p2 and i2 == i1 + 1:
            middle = x1 + column / 2
            d = f"M{middle:g},{y1 + BOX_HEIGHT:g} L{middle:g},{y2 - 2:g}"
        elif p1 == p2:
            out = x1 + column + 10 + 9 * (i2 - i1)
            a, b = y1 + BOX_HEIGHT / 2 + 8, y2 + BOX_HEIGHT / 2 - 8
            d = f"M{x1 + column:g},{a:g} C{out:g},{a:g} {out:g},{b:g} {x2 + column + 2:g},{b:g}"
        else:
            a, b = y1 + BOX_HEIGHT / 2, y2 + BOX_HEIGHT / 2
            right = x1 + column
            bend = max(GUTTER * 0.6, (x2 - right) * 0.5)
            d = f"M{right:g},{a:g} C{right + bend:g},{a:g} {x2 - bend:g},{b:g} {x2 - 2:g},{b:g}"
        far = " road-far" if abs(p2 - p1) > 1 else ""
        lines.append(f'<path class="road-edge{far}" d="{d}" marker-end="url(#road-arrow-wide)"/>')
    return _frame("wide", WIDE, height, [*lines, *boxes])


def _tall(chapters: list[Chapter], parts: list[str], edges: list[tuple[int, int]], links: Mapping[int, str]) -> str:
    y, place, boxes = 0.0, {}, []
    for p, part in enumerate(parts):
        boxes.append(f'<text class="road-part road-left" x="{ARC_ROOM}" y="{y + 22:g}">{html.escape(part)}</text>')
        y += 34
        for chapter in (chapter for chapter in chapters if chapter.part == part):
            place[chapter.number] = y + TALL_BOX / 2
            boxes.append(_box(chapter, p, ARC_ROOM, y, TALL - ARC_ROOM - 2, TALL_BOX, links.get(chapter.number)))
            y += TALL_ROW
        y += 6
    lines = []
    for start, end in edges:
        a, b = place[start] + 7, place[end] - 7
        out = ARC_ROOM - min(ARC_ROOM * 1.3, 14 + 0.17 * (b - a))
        d = f"M{ARC_ROOM},{a:g} C{out:g},{a:g} {out:g},{b:g} {ARC_ROOM - 2},{b:g}"
        lines.append(f'<path class="road-edge" d="{d}" marker-end="url(#road-arrow-tall)"/>')
    return _frame("tall", TALL, y, [*lines, *boxes])
