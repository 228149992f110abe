"""The PDF edition: what is printed, how it is bound, and that nothing empty gets onto paper."""

import io
import re

import pypdf
import pypdf.annotations
import pytest
from bookkit import browser as check
from bookkit import paper
from bookkit.config import HTML, written_chapters


def sheet(page, title, number=None, *, pages=2, first=1, part="", links=()):
    """A printed part of empty pages; ``links`` are addresses on its first page."""
    writer = pypdf.PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(595, 842)
    for address in links:
        writer.add_annotation(0, pypdf.annotations.Link(rect=(0, 0, 9, 9), url=address))
    content = io.BytesIO()
    writer.write(content)
    made = paper.Sheet(page, title, part, number, pdf=content.getvalue(), first=first, length=pages)
    made.headings, made.places = [("Second", "second")], {"second": (pages - 1, 500.0), "figure-1-1": (0, 300.0)}
    return made


def test_sides_of_a_page_follow_its_number():
    """Chromium takes the first page of what it prints for a right-hand one; page 8 is a left-hand one."""
    odd, even = (paper.page_rules(paper.Sheet("x.html", 'A "title"', "Part", 3), first) for first in (7, 8))
    assert "counter-reset: page 6" in odd
    assert re.search(r'@page :right \{ @top-right \{ content: "3  A \\"title\\""', odd)
    assert re.search(r'@page :left \{ @top-right \{ content: "3  A', even)
    assert re.search(r'@page :right \{ @top-left \{ content: "Part"', even)


def test_bound_book_has_outline_labels_and_links_inside(tmp_path):
    base = "http://127.0.0.1:1/"
    one = sheet("notebooks/1.html", "One", 1, part="The face", first=1)
    links = (f"{base}notebooks/1.html#figure-1-1", f"{base}book/style.html", "https://example.org/")
    two = sheet("notebooks/2.html", "Two", 2, part="The face", first=3, links=links)
    end = sheet("book/glossary.html", "Glossary", first=5)
    front = sheet("front.html", "Contents", pages=3, links=[f"{base}notebooks/2.html#second"])
    paper.bind(front, [one, two, end], base, tmp_path / "book.pdf")
    reader = pypdf.PdfReader(tmp_path / "book.pdf")
    assert len(reader.pages) == 9
    assert reader.page_labels == ["i", "ii", "iii", "1", "2", "3", "4", "5", "6"]
    titles = [entry.title if not isinstance(entry, list) else [e.title for e in entry[:1]] for entry in reader.outline]
    assert titles == ["Contents", "The face", ["1 One"], "Glossary", ["Second"]]
    found = [annotation.get_object() for annotation in reader.pages[5]["/Annots"]]
    assert len(found) == 2, "the link to a page that the book lacks is gone"
    assert found[0]["/Dest"][0].get_object() == reader.pages[3].get_object()
    assert found[1]["/A"]["/URI"] == "https://example.org/"
    assert reader.pages[0]["/Annots"][0].get_object()["/Dest"][0].get_object() == reader.pages[6].get_object()
    assert reader.metadata.title == paper.TITLE


def test_index_gives_the_pages_of_a_word():
    base = "http://127.0.0.1:1/"
    chapter = sheet("notebooks/1.html", "One", 1, first=11, links=[f"{base}book/glossary.html#term-scan"])
    glossary = sheet("book/glossary.html", "Glossary", first=20)
    glossary.places = {"term-scan": (1, 700.0), "term-mesh": (0, 100.0)}
    words = {"term-mesh": "mesh", "term-scan": "scan"}
    found = paper.find_terms([chapter, glossary], words, base)
    assert {word: [page for page, _ in pages] for word, pages in found.items()} == {"scan": [11, 21]}


def test_style_sheets_of_formulas_are_joined():
    assert paper.merge_styles(["a {}\nb {}", "b {}\nc {}"]) == "a {}\nb {}\nc {}"


def test_a_picture_of_one_colour_is_empty():
    pictures = [
        {"name": "white", "width": 300, "greys": [255.0] * 64},
        {"name": "face", "width": 300, "greys": [255.0, 0.0] * 32},
    ]
    assert paper._empty_pictures(pictures) == ["a picture is empty: white"]


def test_a_site_without_the_page_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "find_browser", lambda: "/bin/true")
    with pytest.raises(ValueError, match=r"has no page .*expected a built site"):
        paper.make_edition(written_chapters(["01"]), tmp_path, tmp_path / "pdf")


# --- in a browser ---------------------------------------------------------------------------------


FAULTS = {
    "picture": ('<img alt="a white square" src="{white}">', "a picture is empty: a white square"),
    "missing": ('<img src="nowhere.png">', "picture missing"),
    "formula": ('<span class="math">\\(x\\)</span>', "formula not typeset"),
    "figure": ('<div class="book-plotly" id="f"></div>', "is not drawn"),
    "explorer": ('<div class="face-explorer-figure"><canvas></canvas></div>', "has no still picture"),
}
WHITE = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='90' height='90'%3E"
    "%3Crect width='90' height='90' fill='white'/%3E%3C/svg%3E"
)


@pytest.mark.book
def test_what_is_missing_is_not_printed(browser_path, tmp_path, monkeypatch):
    monkeypatch.setattr(check, "DRAW_SECONDS", 0.5)
    start = '<!doctype html><html><body><article class="bd-article"><h1>T</h1>'
    (tmp_path / "good.html").write_text(f"{start}<p>Text</p></article></body></html>")
    for name, (body, _) in FAULTS.items():
        (tmp_path / f"{name}.html").write_text(f"{start}{body.replace('{white}', WHITE)}</article></body></html>")
    with check.open_browser(browser_path) as browser, check.serve(tmp_path) as base:
        press = paper.Press(browser, tmp_path, base, [])
        good = paper.Sheet("good.html", "X")
        press.print_page(good, 1)
        assert good.length == 1
        for name, (_, message) in FAULTS.items():
            with pytest.raises(paper.PaperError, match=message):
                press.print_page(paper.Sheet(f"{name}.html", "X"), 1)


@pytest.fixture(scope="module")
def edition(browser_path, tmp_path_factory):
    """The book with chapter 3 alone, and its hand-out, from the site that `test_book` has built."""
    (chapter,) = written_chapters(["03"])
    if not (HTML / "notebooks" / f"{chapter.file}.html").exists():
        from bookkit.site import build

        build([chapter])
    folder = tmp_path_factory.mktemp("pdf")
    book, handout = paper.make_edition([chapter], HTML, folder)
    assert book.stat().st_size < 12e6
    return pypdf.PdfReader(book), pypdf.PdfReader(handout)


@pytest.fixture(scope="module")
def texts(edition):
    """The words on each page of the book, and on each of the hand-out."""
    return [[" ".join(page.extract_text().split()) for page in reader.pages] for reader in edition]


def titles(outline):
    for entry in outline:
        yield from titles(entry) if isinstance(entry, list) else [entry.title]


@pytest.mark.book
def test_book_has_its_parts(edition, texts):
    book, _ = edition
    text, listed = " ".join(texts[0]), list(titles(book.outline))
    for title in ("Contents", "Notation", "The face", "3 Sixty-two numbers", "Three frames", "Exercises", "Glossary"):
        assert title in listed
    assert 35 <= len(book.pages) <= 80
    assert book.page_labels[0] == "i"
    assert book.page_labels[-1].isdecimal()
    assert paper.TITLE in texts[0][0]
    # A sentence, a caption, a solution's heading, and a formula with its number.
    for words in ("tests, follow", "Figure 3.1.", "Solutions and answers", "(3.2)", "atan2"):
        assert words in text, words
    for wrong in ("MathJax error", "Math input error", "\\mathbf", "\\tag", "Show the solution", "Show code cell"):
        assert wrong not in text, wrong


@pytest.mark.book
def test_contents_give_the_pages_on_which_chapters_begin(edition, texts):
    book, _ = edition
    front = [i for i, label in enumerate(book.page_labels) if not label.isdecimal()]
    contents = " ".join(texts[0][i] for i in front)
    (number,) = re.findall(r"3 ?Sixty-two numbers ?(\d+)", contents)
    opening = texts[0][len(front) + int(number) - 1]
    assert "Sixty-two numbers" in opening
    assert "CHAPTER 3" in opening.upper()
    assert number in opening.split(), "the page carries its number"


@pytest.mark.book
def test_fonts_are_embedded_and_links_lead_inside(edition):
    book, _ = edition
    fonts = {}
    for page in book.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            font = font.get_object()
            fonts[str(font.get("/BaseFont", font["/Subtype"]))] = font
    for name, font in fonts.items():
        if font["/Subtype"] == "/Type0":
            descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"]
            assert any(key in descriptor for key in ("/FontFile", "/FontFile2", "/FontFile3")), name
    inside = 0
    for page in book.pages:
        for annotation in page.get("/Annots", []):
            annotation = annotation.get_object()
            assert "127.0.0.1" not in str(annotation.get("/A", "")), "no link leads to the machine that printed"
            inside += "/Dest" in annotation
    assert inside > 60


@pytest.mark.book
def test_hand_out_is_the_chapter_without_solutions(edition, texts):
    book, handout = edition
    text = " ".join(texts[1])
    assert len(handout.pages) < len(book.pages) / 2
    assert "Exercise 3.1" in text
    assert "Test yourself" in text
    assert "Solutions and answers" not in text
    assert "127.0.0.1" not in "".join(str(a.get_object()) for p in handout.pages for a in p.get("/Annots", []))
