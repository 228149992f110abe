"""Contact sheets: every figure of the built book at two widths and in both themes, for whoever reviews.

``make sheets`` opens each page of ``book/_build/html`` in a headless browser, takes a picture of every figure at 1400
and at 400 pixels, light and dark, and lays them out side by side: one sheet a page (HTML, and the same as a PNG), and
``index.html`` with links to all, in ``book/_build/sheets``. A figure is what a cell shows, pictures and everything that
can be operated; the start page's head and road map count too.

What can be measured is measured: a figure that is wider than the window or was not drawn in time is marked.
"""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from bookkit.browser import INTERACTIVE, UNFOLD, PageCheck, list_pages, serve, wait_started

WIDTHS = (1400, 400)
THEMES = ("light", "dark")
SETTLE_MILLISECONDS = 250  # for fonts, transitions and the second pass of a layout

# Marks the figures of a page in order, and gives for each its caption (empty without one).
FIND = """(interactive) => {
  const PICTURES = ".cell_output img, .start-strip, .road-map-picture, .architecture";
  const article = document.querySelector(".bd-article") || document.body;
  const blocks = [];
  for (const e of article.querySelectorAll(`${interactive}, ${PICTURES}`)) {
    const block = e.closest(".cell_output") || e.closest(".start-head") || e;
    if (!blocks.includes(block) && !blocks.some((other) => other.contains(block))) blocks.push(block);
  }
  return blocks.map((block, i) => {
    block.dataset.sheet = i;
    let next = (block.closest(".cell") || block).nextElementSibling;
    while (next && next.matches("span[id], .target") && !next.textContent.trim()) next = next.nextElementSibling;
    const caption = next && (next.matches(".figure-caption") ? next : next.querySelector(":scope > .figure-caption"));
    return caption ? caption.textContent.trim().replace(/\\s+/g, " ") : "";
  });
}"""

OVERFLOW = """(e) => {
  const limit = document.documentElement.clientWidth;
  const wide = [e, ...e.querySelectorAll("*")].filter((one) => one.getBoundingClientRect().right > limit + 1);
  const scrolls = (one) => one && one !== document.body &&
    (getComputedStyle(one).overflowX !== "visible" || scrolls(one.parentElement));
  return wide.some((one) => !scrolls(one.parentElement));
}"""

# What floats over a page would stand in the middle of a tall figure.
QUIET = """
.bd-header, .bd-header-article { position: static !important; }
.skip-link, #pst-skip-link, #pst-back-to-top { display: none !important; }
"""

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 24px; background: #fff; color: #1c1c1c; width: max-content; }
h1 { font-size: 22px; } h2 { font-size: 16px; margin: 28px 0 4px; max-width: 1800px; }
p { margin: 2px 0 8px; max-width: 1800px; } a { color: #0b57a4; } .bad { color: #a40000; font-weight: 600; }
.row { display: flex; gap: 16px; align-items: flex-start; }
.row figure { margin: 0; } .row img { display: block; border: 1px solid #8885; max-width: 640px; }
figcaption { font-size: 12px; color: #555; }
"""


@dataclass
class Shot:
    """One figure at one width in one theme.

    Attributes:
        page: The page relative to the site's root.
        index: Position on the page, from 0.
        caption: The text below it.
        width: Of the window, in CSS pixels.
        theme: ``light`` or ``dark``.
        file: The picture, relative to the sheets' folder.
        problem: What was measured to be wrong, or nothing.
    """

    page: str
    index: int
    caption: str
    width: int
    theme: str
    file: str
    problem: str = ""


def make_sheets(browser, site: Path, folder: Path, pages: list[str] | None = None) -> list[Shot]:
    """Take pictures of all figures of a built site and lay them out.

    Args:
        browser: Playwright's ``Browser``, from `bookkit.browser.open_browser`.
        site: The built site.
        folder: Where the sheets go; it is emptied first.
        pages: Which pages; all of the site but the API reference by default.

    Returns:
        All pictures, by page, theme and width.

    Raises:
        ValueError: There are no pages, or none of them has a figure.
    """
    if pages is None:
        pages = [page for page in list_pages(site) if not page.startswith("book/api/")]
    if not pages:
        raise ValueError(f"no pages in {site}; build the book first")
    if folder.exists():
        shutil.rmtree(folder)
    (folder / "figures").mkdir(parents=True)
    shots: list[Shot] = []
    with serve(site) as base:
        for width in WIDTHS:
            for theme in THEMES:
                check = PageCheck(browser, base, width, dark=theme == "dark")
                try:
                    for page in pages:
                        shots += _shoot(check, page, folder, width, theme)
                finally:
                    check.close()
    if not shots:
        raise ValueError(f"no figure on {len(pages)} pages of {site}")
    _lay_out(browser, folder, [page for page in pages if any(shot.page == page for shot in shots)], shots)
    return shots


def _shoot(check: PageCheck, page_name: str, folder: Path, width: int, theme: str) -> list[Shot]:
    """Pictures of the figures of one page."""
    from playwright.sync_api import Error

    page = check.open(page_name)
    shots = []
    try:
        page.evaluate(UNFOLD)
        page.add_style_tag(content=QUIET)
        for index, caption in enumerate(page.evaluate(FIND, INTERACTIVE)):
            name = f"figures/{page_name.removesuffix('.html').replace('/', '-')}-{index:02d}-{width}-{theme}.png"
            shot = Shot(page_name, index, caption, width, theme, name)
            block = page.locator(f'[data-sheet="{index}"]')
            block.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
            drawn = [wait_started(page, one) for one in [*block.locator(INTERACTIVE).all(), block]]
            page.wait_for_timeout(SETTLE_MILLISECONDS)
            if not all(drawn):
                shot.problem = "not drawn in time"
            elif block.evaluate(OVERFLOW):
                shot.problem = "wider than the window"
            try:
                block.screenshot(path=str(folder / name), animations="disabled", timeout=30_000)
            except Error as error:
                shot.problem, shot.file = f"no picture: {str(error).splitlines()[0]}", ""
            shots.append(shot)
    finally:
        page.close()
    return shots


def _lay_out(browser, folder: Path, pages: list[str], shots: list[Shot]) -> None:
    """Write one sheet a page, as HTML and PNG, and the list of sheets."""
    lines = []
    for page in pages:
        mine = [shot for shot in shots if shot.page == page]
        name = page.removesuffix(".html").replace("/", "-")
        (folder / f"{name}.html").write_text(_sheet(page, mine), encoding="utf-8")
        count, bad = len({shot.index for shot in mine}), sum(bool(shot.problem) for shot in mine)
        said = f' <span class="bad">{bad} marked</span>' if bad else ""
        lines.append(f'<li><a href="{name}.html">{page}</a> (<a href="{name}.png">PNG</a>): {count} figures{said}</li>')
    (folder / "index.html").write_text(_page("Contact sheets", f"<ul>{''.join(lines)}</ul>"), encoding="utf-8")
    window = browser.new_page(viewport={"width": 2200, "height": 900})
    for page in pages:
        name = page.removesuffix(".html").replace("/", "-")
        window.goto((folder / f"{name}.html").resolve().as_uri(), wait_until="load")
        window.screenshot(path=str(folder / f"{name}.png"), full_page=True)
    window.close()


def _sheet(page: str, shots: list[Shot]) -> str:
    """One page's figures, each with its pictures in a row."""
    parts = []
    for index in sorted({shot.index for shot in shots}):
        row = [shot for shot in shots if shot.index == index]
        caption = next((shot.caption for shot in row if shot.caption), "No caption")
        head, rest = re.match(r"((?:Figure [\d.]+ )?[^.]*\.?)(.*)", caption).groups()
        parts.append(f"<h2>{html.escape(head.removesuffix('.'))}</h2><p>{html.escape(rest)}</p>")
        cells = "".join(
            f'<figure><figcaption>{shot.width} px, {shot.theme} <span class="bad">{html.escape(shot.problem)}</span>'
            + (f'</figcaption><img src="{shot.file}" alt="">' if shot.file else "</figcaption>")
            + "</figure>"
            for shot in row
        )
        parts.append(f'<div class="row">{cells}</div>')
    return _page(page, "".join(parts))


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><h1>{html.escape(title)}</h1>{body}</body></html>\n"
    )
