"""The PDF edition: pages of the built site, printed by Chromium and bound into one book, and a hand-out per chapter.

Each page is opened as a reader would see it. When its figures are drawn and its formulas set, ``paper.js`` puts still
pictures in the place of what moves, takes the navigation off, and moves solutions and the answers of the quiz to an
appendix; ``paper.css`` is the look. Chromium prints each part with heads, feet and page numbers in margin boxes; pypdf
binds the parts, makes the outline, and turns links between pages of the site into links inside the book. Contents and
index are printed last, when all page numbers are known.

Page numbers follow a printed book's: roman before the text, arabic from the preface on.
"""

from __future__ import annotations

import html
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bookkit import browser as check
from bookkit.assets import edition_folder
from bookkit.config import HTML, PDF, Chapter, repository, settings
from bookkit.quiz import TITLE as QUIZ_TITLE

HERE = Path(__file__).parent
TITLE = "Faces from Photographs"
SUBTITLE = "3D faces from single pictures, learnt with the help of 2D landmarks: a book you can run"
FILE = "faces-from-photographs.pdf"
HANDOUTS = "handouts"
BACK_MATTER = (
    ("book/neighbours.html", "2DASL and its neighbours"),
    ("book/stored_results.html", "Stored results"),
    ("book/glossary.html", "Glossary"),
    ("book/bibliography.html", "Bibliography"),
)
IN_EVERY_CHAPTER = ("Summary", "Exercises", "Further reading", QUIZ_TITLE)  # in the outline, but not in the contents
MEASURE = 582  # px: the width of the text, 154 mm of A4's 210
MARGINS = "27mm 28mm 26mm"
FONTS = {
    # package of book/assets.json: family, and for each file its weight and style
    "computer-modern": (
        "Paper Serif",
        {
            "cmu-serif-500-roman.woff2": (400, "normal", ""),
            "cmu-serif-500-italic.woff2": (400, "italic", ""),
            "cmu-serif-700-roman.woff2": (700, "normal", ""),
            "cmu-serif-700-italic.woff2": (700, "italic", ""),
        },
    ),
    "@fontsource/source-code-pro": (
        "Paper Mono",
        {
            "source-code-pro-latin-400-normal.woff2": (400, "normal", ""),
            "source-code-pro-latin-400-italic.woff2": (400, "italic", ""),
            "source-code-pro-latin-600-normal.woff2": (600, "normal", ""),
            "source-code-pro-greek-400-normal.woff2": (400, "normal", "U+0370-03FF"),
        },
    ),
}
PRINT_SECONDS = 300  # for one step of one page, on a busy machine
OWN = "__paper__/"  # below the site's address: fonts, and documents that are no page of the site
LEAST_CONTRAST = 4.0  # standard deviation of a picture's grey values, of 255: below it there is nothing on it


class PaperError(Exception):
    """A page cannot be printed as it is: a figure, a formula or a picture is missing."""


@dataclass
class Sheet:
    """One part of the edition: a chapter, or a page before or after the chapters.

    Attributes:
        page: The page of the site, such as ``notebooks/01_a_face.html``; a name of its own for what is not one.
        title: Title as in contents and outline.
        part: Title of the part of the book that it belongs to; empty before and after the parts.
        number: Number of the chapter, if it is one.
        without: Selector of what is left out.
        pdf: What Chromium printed.
        first: Number of its first page.
        length: How many pages it has.
        headings: Title and anchor of each second-level heading.
        places: Page (from 0) and height from the bottom, in points, of each anchor.
    """

    page: str
    title: str
    part: str = ""
    number: int | None = None
    without: str = ""
    pdf: bytes = b""
    first: int = 1
    length: int = 0
    headings: list[tuple[str, str]] = field(default_factory=list)
    places: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Number and title."""
        return f"{self.number} {self.title}" if self.number else self.title

    def page_of(self, anchor: str) -> int:
        """The number of the page on which an anchor stands; the first one if there is no such anchor."""
        return self.first + self.places.get(anchor, (0, 0.0))[0]


# --- printing -------------------------------------------------------------------------------------


class Press:
    """Prints pages of one site in one browser.

    Attributes:
        base: Address of the site, with a slash at the end.
        known: The pages that the edition holds; links to others are printed as text.
    """

    def __init__(self, browser, folder: Path, base: str, known: Iterable[str]) -> None:
        self.folder = folder
        self.base = base
        self.known = list(known)
        self._documents: dict[str, str] = {}
        self._fonts = _fonts()
        self._context = browser.new_context(
            viewport={"width": 900, "height": 1000}, device_scale_factor=2, color_scheme="light"
        )
        self._context.set_default_timeout(1000 * PRINT_SECONDS)
        self._context.add_init_script("localStorage.setItem('mode', 'light'); localStorage.setItem('theme', 'light');")
        self._context.route("**/*", self._serve)

    def _serve(self, route) -> None:
        """Give documents and fonts of the press, let the site through, and nothing else."""
        url = route.request.url
        inside = url.removeprefix(self.base + OWN)
        if inside in self._documents:
            route.fulfill(body=self._documents[inside], content_type="text/html; charset=utf-8")
        elif inside in self._fonts:
            route.fulfill(path=self._fonts[inside], headers={"Access-Control-Allow-Origin": "*"})
        elif url.startswith((self.base, "data:", "blob:")):
            route.continue_()
        else:
            route.abort()

    def _stylesheet(self) -> str:
        """The look, with the fonts that could be fetched."""
        faces = []
        for family, files in FONTS.values():
            for name, (weight, style, letters) in files.items():
                if name in self._fonts:
                    only = f"unicode-range: {letters};" if letters else ""
                    faces.append(
                        f'@font-face {{ font-family: "{family}"; font-weight: {weight}; font-style: {style}; {only} '
                        f'src: url("{self.base}{OWN}{name}") format("woff2"); }}'
                    )
        return "\n".join([*faces, (HERE / "paper.css").read_text(encoding="utf-8")])

    def print_page(self, sheet: Sheet, first: int) -> dict:
        """Print a page of the site.

        Args:
            sheet: What to print; gets its pages, headings and places.
            first: Number of its first page.

        Returns:
            What ``paper.js`` found: solutions and the style of their formulas, terms, titles.

        Raises:
            PaperError: A figure, a formula or a picture of the page is missing.
        """
        page = self._context.new_page()
        try:
            page.goto(self.base + sheet.page, wait_until="load", timeout=1000 * PRINT_SECONDS)
            page.evaluate(check.UNFOLD)
            for figure in page.locator(check.INTERACTIVE).all():
                figure.evaluate("(e) => e.scrollIntoView({ block: 'center', behavior: 'instant' })")
                self._wait(page, lambda figure=figure: [] if figure.evaluate(check.STARTED) else ["a figure waits"])
            # Light studio, face explorer and start head may lack what a GPU has: their still pictures are printed.
            self._refuse(sheet, self._wait(page, lambda: page.evaluate(check.UNDRAWN)))
            options = {"pages": self.known, "stylesheet": self._stylesheet(), "base": self.base, "measure": MEASURE}
            options |= {"title": "" if sheet.number else sheet.title, "without": sheet.without}
            script = (HERE / "paper.js").read_text(encoding="utf-8")
            page.emulate_media(media="print")
            found = page.evaluate(script, options)
            pictures = page.evaluate(PICTURES)
            problems = [*found["problems"], *_empty_pictures(pictures), *page.evaluate(check.UNDRAWN)]
            if found["undrawn"]:
                problems.append(f"{found['undrawn']} moving figures are left")
            self._refuse(sheet, problems)
            sheet.title = sheet.title or found["title"]
            sheet.headings = [(entry["title"], entry["id"]) for entry in found["headings"]]
            self._to_pdf(page, sheet, first)
            return found
        finally:
            page.close()

    def print_document(self, sheet: Sheet, body: str, first: int, *, formulas: str = "", roman: bool = False) -> None:
        """Print what is no page of the site.

        Args:
            sheet: What to print; gets its pages and places.
            body: Its HTML.
            first: Number of its first page.
            formulas: MathJax's style sheets for the formulas in it.
            roman: Number the pages with roman numerals, and leave the first two bare.
        """
        self._documents[sheet.page] = (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(sheet.title)}</title>'
            f"<style>{formulas}</style><style>{self._stylesheet()}</style>"
            f'<style id="paper-page"></style></head><body><main id="paper">{body}</main></body></html>'
        )
        page = self._context.new_page()
        try:
            page.goto(self.base + OWN + sheet.page, wait_until="load", timeout=1000 * PRINT_SECONDS)
            page.emulate_media(media="print")
            page.evaluate(PLACES)
            page.evaluate("document.fonts.ready.then(() => null)")
            self._refuse(sheet, _missing_pictures(page))
            sheet.headings = [tuple(entry) for entry in page.evaluate(HEADINGS)]
            self._to_pdf(page, sheet, first, roman=roman)
        finally:
            page.close()

    def _to_pdf(self, page, sheet: Sheet, first: int, *, roman: bool = False) -> None:
        from pypdf import PdfReader

        page.evaluate(
            "(text) => { document.querySelector('#paper-page').textContent = text; }", page_rules(sheet, first, roman)
        )
        sheet.pdf = page.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
        sheet.first = first
        reader = PdfReader(io.BytesIO(sheet.pdf))
        sheet.length = len(reader.pages)
        numbers = {leaf.indirect_reference.idnum: number for number, leaf in enumerate(reader.pages)}
        sheet.places = {
            name.removeprefix("/"): (numbers[leaf.idnum], float(place["/Top"]))
            for name, place in reader.named_destinations.items()
            if (leaf := place.raw_get("/Page")).idnum in numbers
        }

    def _wait(self, page, problems) -> list[str]:
        """Wait until there are none, as long as a figure may take."""
        found = problems()
        for _ in range(int(check.DRAW_SECONDS * 10)):
            if not found:
                break
            page.wait_for_timeout(100)
            found = problems()
        return found

    @staticmethod
    def _refuse(sheet: Sheet, problems: list[str]) -> None:
        if problems:
            raise PaperError(f"{sheet.page} cannot be printed:\n" + "\n".join(f"  {line}" for line in problems))

    def close(self) -> None:
        """Close the pages; the browser stays."""
        self._context.close()


PLACES = """() => {
  const places = document.createElement("div");
  places.className = "paper-places";
  for (const target of document.querySelectorAll("#paper [id]:not(svg *):not(mjx-container *)")) {
    const link = document.createElement("a");
    link.href = "#" + target.id;
    places.append(link);
  }
  document.querySelector("#paper").prepend(places);
}"""

HEADINGS = """() => [...document.querySelectorAll("#paper h2[id]")].map((h) => [h.textContent.trim(), h.id])"""

# The grey values of each picture, at most 64 x 64 of them, to see whether there is anything on it.
PICTURES = """() => [...document.querySelectorAll("#paper img")].map((image) => {
  const canvas = document.createElement("canvas");
  canvas.width = Math.min(64, image.naturalWidth || 1);
  canvas.height = Math.min(64, image.naturalHeight || 1);
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const greys = [];
  for (let i = 0; i < data.length; i += 4) greys.push((data[i] + data[i + 1] + data[i + 2]) / 3);
  return { name: image.alt || image.src.slice(0, 80), width: image.naturalWidth, greys };
})"""


def _empty_pictures(pictures: list[dict]) -> list[str]:
    """Pictures with nothing on them."""
    import numpy as np

    return [
        f"a picture is empty: {picture['name'][:120]}"
        for picture in pictures
        if picture["width"] > 16 and np.std(picture["greys"]) < LEAST_CONTRAST
    ]


def _missing_pictures(page) -> list[str]:
    missing = page.evaluate(
        "() => [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.src.slice(0, 120))"
    )
    return [f"a picture is missing: {source}" for source in missing]


def _fonts() -> dict[str, Path]:
    """File names and paths of the edition's fonts; those of the machine are used where they cannot be fetched."""
    found: dict[str, Path] = {}
    for package, (_, files) in FONTS.items():
        try:
            folder = edition_folder(package)
        except (OSError, subprocess.SubprocessError, ValueError, tarfile.TarError) as error:
            print(f"WARNING: could not fetch {package}: {error}\nWARNING: the machine's own fonts are used instead.")
            continue
        found |= {name: folder / name for name in files if (folder / name).exists()}
    return found


def page_rules(sheet: Sheet, first: int, roman: bool = False) -> str:
    """Style rules for a part's pages: size, margins, heads, and the number of the first page.

    Args:
        sheet: The part, with its title.
        first: Number of its first page; odd ones are right-hand pages.
        roman: Number the pages with roman numerals, and leave the first two bare.
    """

    def text(words: str) -> str:
        return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'

    # Chromium takes the first page of a document for a right-hand one.
    right, left = (":right", ":left") if first % 2 else (":left", ":right")
    look = 'font: 9pt "Paper Serif", "Latin Modern Roman", "Liberation Serif", serif; color: #555;'
    number = f"content: counter(page{', lower-roman' if roman else ''}); {look}"
    at_left = text(sheet.part or TITLE)
    at_right = text(f"{sheet.number}  {sheet.title}" if sheet.number else sheet.title)
    rules = [
        f"@page {{ size: A4; margin: {MARGINS}; }}",
        f"html {{ counter-reset: page {first - 1}; }}",
        f"@page {left} {{ @top-left {{ content: {at_left}; {look} font-style: italic; }} "
        f"@bottom-left {{ {number} }} }}",
        f"@page {right} {{ @top-right {{ content: {at_right}; {look} font-style: italic; }} "
        f"@bottom-right {{ {number} }} }}",
        # The page that a chapter opens has its title already.
        "@page :first { @top-left { content: none; } @top-right { content: none; } }",
    ]
    if roman:
        rules.append(
            "@page bare { @top-left { content: none; } @top-right { content: none; } "
            "@bottom-left { content: none; } @bottom-right { content: none; } } "
            ".paper-cover, .paper-colophon { page: bare; }"
        )
    return "\n".join(rules)


# --- the edition ----------------------------------------------------------------------------------


def make_edition(
    chapters: Iterable[Chapter], site: Path = HTML, folder: Path = PDF, *, whole: bool = True, handouts: bool = True
) -> list[Path]:
    """Print chapters of a built site.

    Args:
        chapters: The chapters; each must have a page in the site.
        site: The built site.
        folder: Where the PDFs go.
        whole: Bind the book.
        handouts: Write each chapter as a file of its own too, without solutions, in the folder ``handouts``.

    Returns:
        The files written.

    Raises:
        PaperError: A page cannot be printed as it is, or there is no browser.
        ValueError: The site lacks a page.
    """
    executable = check.find_browser() or check.install_browser()
    if executable is None:
        raise PaperError("found no Chromium or Chrome to print with, and none could be installed")
    chapters = list(chapters)
    sheets = [
        Sheet(f"notebooks/{chapter.file}.html", chapter.title, chapter.part, chapter.number) for chapter in chapters
    ]
    before, after = [], []
    if whole:
        # The start page without its first screen, which is the cover, and the lists, which the contents are.
        left_out = ".start, ol.road-map, #road-map h3, #reference"
        before = [Sheet("index.html", "About this book", without=left_out), Sheet("book/notation.html", "Notation")]
        after = [Sheet(page, title) for page, title in BACK_MATTER]
    for sheet in [*before, *sheets, *after]:
        if not (site / sheet.page).exists():
            raise ValueError(f"{site} has no page {sheet.page}; expected a built site (make book)")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with check.open_browser(executable) as browser, check.serve(site) as base:
        press = Press(browser, site, base, [sheet.page for sheet in [*before, *sheets, *after]])
        if whole:
            parts, front = _print_all(press, before, sheets, after)
            target = folder / FILE
            bind(front, parts, base, target)
            written.append(target)
        else:
            for sheet in sheets:
                press.print_page(sheet, 1)
                _say(sheet)
        press.close()
        if handouts:
            for sheet in sheets:
                target = folder / HANDOUTS / f"{Path(sheet.page).stem}.pdf"
                target.parent.mkdir(parents=True, exist_ok=True)
                bind(None, [sheet], base, target)
                written.append(target)
    return written


def _say(sheet: Sheet) -> None:
    print(f"  {sheet.label}: {sheet.length} page{'s' if sheet.length != 1 else ''}", flush=True)


def _print_all(press: Press, before: list[Sheet], sheets: list[Sheet], after: list[Sheet]) -> tuple[list[Sheet], Sheet]:
    """Print the parts in order, then index and front matter; returns the parts, and the front matter."""
    first = 1
    terms: dict[str, str] = {}
    solutions: list[str] = []
    formulas: list[str] = []
    parts: list[Sheet] = []

    def add(sheet: Sheet) -> None:
        nonlocal first
        parts.append(sheet)
        first += sheet.length
        _say(sheet)

    def print_pages(pages: list[Sheet]) -> None:
        for sheet in pages:
            found = press.print_page(sheet, first)
            terms.update(found["terms"])
            if found["solutions"]:
                heading = html.escape(sheet.label)
                solutions.append(f'<h2 id="solutions-{sheet.number}">{heading}</h2>{found["solutions"]}')
                formulas.append(found["formulas"])
            add(sheet)

    print_pages(before)
    print_pages(sheets)
    if solutions:
        sheet = Sheet("solutions.html", "Solutions and answers")
        body = f'<h1 class="paper-plain">{sheet.title}</h1>' + "".join(solutions)
        press.print_document(sheet, body, first, formulas=merge_styles(formulas))
        add(sheet)
    print_pages(after)
    entries = find_terms(parts, terms, press.base)
    if entries:
        sheet = Sheet("terms.html", "Index")
        press.print_document(sheet, _index_page(sheet.title, entries), first)
        add(sheet)
    front = Sheet("front.html", "Contents")
    body = _cover(press) + _colophon() + _contents_page(parts, press.base)
    press.print_document(front, body, 1, roman=True)
    _say(front)
    return parts, front


def merge_styles(sheets: Iterable[str]) -> str:
    """MathJax's style sheets of several pages as one: each rule once, since every page has those of its own letters."""
    rules: dict[str, None] = {}
    for sheet in sheets:
        rules |= dict.fromkeys(sheet.splitlines())
    return "\n".join(rules)


# --- front and back matter ------------------------------------------------------------------------


def _printed_on() -> str:
    """The day, or the one that ``SOURCE_DATE_EPOCH`` names, for builds that can be repeated."""
    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    day = datetime.fromtimestamp(int(stamp), UTC) if stamp else datetime.now()
    return f"{day.day} {day:%B %Y}"


def _authors() -> str:
    return ", ".join(author["name"] for author in settings()["project"]["authors"])


def _cover(press: Press) -> str:
    """The title page, with the four steps of the start page if the site has them."""
    strip = ""
    index = press.folder / "index.html"
    text = index.read_text(encoding="utf-8") if index.exists() else ""
    steps = re.search(r'<ol class="start-strip">(.*?)</ol>', text, re.DOTALL)
    if steps:
        pictures = re.findall(r'<img[^>]*?src="([^"]+)".*?<span>(.*?)</span>', steps[1], re.DOTALL)
        strip = "".join(
            f'<figure><img src="{press.base}{source}" alt="">{words}</figure>' for source, words in pictures
        )
    return (
        f'<div class="paper-cover"><h1>{html.escape(TITLE)}</h1>'
        f'<p class="paper-subtitle">{html.escape(SUBTITLE)}</p><div class="paper-strip">{strip}</div>'
        f'<p class="paper-authors">{html.escape(_authors())}</p></div>'
    )


def _colophon() -> str:
    import twodasl_lite

    url, _ = repository()
    lines = [
        f"{TITLE}, version {twodasl_lite.__version__}, printed on {_printed_on()}.",
        "This is the PDF edition of a book whose chapters are programs. The same cells make the web edition, where "
        "figures turn and sliders slide, and notebooks to change and run. Figures that move there stand here as "
        "pictures; code that only draws them is left out. Solutions and the answers of the quizzes are at the end.",
        f'Chapters, package and tools: <a href="{html.escape(url)}">{html.escape(url)}</a>' if url else "",
        "MIT licence. Face models and photographs of others have licences of their own; the stored results say which.",
        "Set in Computer Modern, New Computer Modern and Source Code Pro.",
    ]
    return '<div class="paper-colophon">' + "".join(f"<p>{line}</p>" for line in lines if line) + "</div>"


def _contents_page(parts: list[Sheet], base: str) -> str:
    lines = ['<div class="paper-contents"><h1>Contents</h1>']
    part = None
    for sheet in parts:
        if sheet.part != part and (sheet.part or part):
            lines.append(f'<p class="paper-part">{html.escape(sheet.part or "Appendix")}</p>')
        part = sheet.part
        number = f"<b>{sheet.number}</b>" if sheet.number else ""
        where = f"{base}{_address(sheet)}"
        title = f'<a href="{where}">{html.escape(sheet.title)}</a>'
        lines.append(f'<p class="paper-chapter">{number}{title}<i></i><span>{sheet.first}</span></p>')
        for heading, anchor in sheet.headings if sheet.number else []:
            if heading in IN_EVERY_CHAPTER:
                continue
            link = f'<a href="{where}#{anchor}">{html.escape(heading)}</a>'
            lines.append(f'<p class="paper-section">{link}<i></i><span>{sheet.page_of(anchor)}</span></p>')
    return "\n".join([*lines, "</div>"])


def _address(sheet: Sheet) -> str:
    """A part's address below the site's."""
    return sheet.page if "/" in sheet.page or sheet.page == "index.html" else OWN + sheet.page


def find_terms(parts: list[Sheet], terms: dict[str, str], base: str) -> dict[str, list[tuple[int, str]]]:
    """The pages on which chapters use the glossary's words, from their links.

    Args:
        parts: The printed parts.
        terms: For each anchor of the glossary its word.
        base: Address of the site.

    Returns:
        For each word that is used: page numbers, each with the address to link to; the glossary's own comes last.
    """
    from pypdf import PdfReader

    glossary = next((sheet for sheet in parts if sheet.page.endswith("glossary.html")), None)
    used: dict[str, list[tuple[int, str]]] = {}
    for sheet in parts:
        if not sheet.number:
            continue
        for number, page in enumerate(PdfReader(io.BytesIO(sheet.pdf)).pages):
            for annotation in page.get("/Annots", []):
                address, _, anchor = str(annotation.get_object().get("/A", {}).get("/URI", "")).partition("#")
                if glossary and address == base + glossary.page and anchor in terms:
                    entry = (sheet.first + number, f"{base}{sheet.page}#page={number}")
                    listed = used.setdefault(terms[anchor], [])
                    if entry not in listed:
                        listed.append(entry)
    for anchor, word in terms.items():
        if word in used:
            used[word].append((glossary.page_of(anchor), f"{base}{glossary.page}#{anchor}"))
    return dict(sorted(used.items(), key=lambda entry: entry[0].lower()))


def _index_page(title: str, entries: dict[str, list[tuple[int, str]]]) -> str:
    lines = [f'<h1 class="paper-plain">{title}</h1><div class="paper-index">']
    for word, pages in entries.items():
        numbers = ", ".join(f'<a href="{html.escape(address)}">{number}</a>' for number, address in pages)
        lines.append(f"<p>{html.escape(word)}, {numbers}</p>")
    return "\n".join([*lines, "</div>"])


# --- binding --------------------------------------------------------------------------------------


def bind(front: Sheet | None, parts: list[Sheet], base: str, target: Path) -> None:
    """Put parts into one file, with outline, page labels, and links that lead inside it.

    Args:
        front: What comes before the text, with roman page numbers; a hand-out has none.
        parts: The parts in order.
        base: Address of the site that they were printed from.
        target: The PDF to write.
    """
    from pypdf import PdfReader, PdfWriter
    from pypdf.constants import PageLabelStyle
    from pypdf.generic import ArrayObject, FloatObject, NameObject, NullObject, TextStringObject

    writer = PdfWriter()
    starts: dict[str, int] = {}
    owners: list[Sheet] = []
    for sheet in [*([front] if front else []), *parts]:
        starts[sheet.page] = len(owners)
        for page in PdfReader(io.BytesIO(sheet.pdf)).pages:
            writer.add_page(page)
            owners.append(sheet)
    by_address = {base + _address(sheet): sheet for sheet in parts}

    def destination(sheet: Sheet, anchor: str) -> ArrayObject:
        number, top = sheet.places.get(anchor, (0, None))
        if match := re.fullmatch(r"page=(\d+)", anchor):
            number = int(match[1])
        leaf = writer.pages[starts[sheet.page] + number]
        height = FloatObject(top) if top is not None else NullObject()
        return ArrayObject([leaf.indirect_reference, NameObject("/XYZ"), NullObject(), height, NullObject()])

    for sheet, page in zip(owners, writer.pages, strict=True):
        kept = ArrayObject()
        for reference in page.get("/Annots", []):
            annotation = reference.get_object()
            named = annotation.get("/Dest")
            address, _, anchor = str(annotation.get("/A", {}).get("/URI", "")).partition("#")
            if isinstance(named, str):
                annotation[NameObject("/Dest")] = destination(sheet, named.removeprefix("/"))
            elif address in by_address:
                del annotation["/A"]
                annotation[NameObject("/Dest")] = destination(by_address[address], anchor)
            elif address.startswith(base):
                continue  # leads to a page that this file does not hold
            kept.append(reference)
        page[NameObject("/Annots")] = kept

    if front:
        writer.set_page_label(0, front.length - 1, style=PageLabelStyle.LOWERCASE_ROMAN)
    offset = front.length if front else 0
    if parts:
        writer.set_page_label(offset, len(owners) - 1, style=PageLabelStyle.DECIMAL, start=parts[0].first)
    if front:
        writer.add_outline_item(title=front.title, page_number=min(2, front.length - 1))
    above, part = None, ""
    for sheet in parts:
        start = starts[sheet.page]
        if front and sheet.part != part:
            above = writer.add_outline_item(title=sheet.part, page_number=start, bold=True) if sheet.part else None
        part = sheet.part
        entry = writer.add_outline_item(
            title=sheet.label, page_number=start, parent=above if front else None, is_open=not front
        )
        for heading, anchor in sheet.headings:
            number = sheet.places.get(anchor, (0, 0.0))[0]
            writer.add_outline_item(title=heading, page_number=start + number, parent=entry)
    title = TITLE if front else f"{parts[0].label} · {TITLE}"
    writer.add_metadata({"/Title": title, "/Author": _authors(), "/Subject": SUBTITLE})
    writer.page_mode = "/UseOutlines"
    writer.root_object[NameObject("/Lang")] = TextStringObject("en")
    writer.compress_identical_objects(remove_duplicates=True, remove_unreferenced=True)
    partial = target.with_suffix(".part")
    writer.write(partial)
    os.replace(partial, target)


def describe(path: Path) -> str:
    """Name, pages and megabytes of a PDF."""
    from pypdf import PdfReader

    return f"{path} ({len(PdfReader(path).pages)} pages, {path.stat().st_size / 1e6:.1f} MB)"
