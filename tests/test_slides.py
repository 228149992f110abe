"""Slides: what of a chapter is on them, and that a deck works from a disk and fits its slides."""

import shutil

import nbformat
import pytest
from bookkit import assets, execute, slides
from bookkit.config import Chapter, written_chapters

CHAPTER = Chapter(3, "03_a_chapter", "A chapter", "About it.", "The face", 20.0)
CODE = "import torch\n\nplt.rcParams.update(STYLE)\n\nx = torch.ones(3)\nprint(x)"


def cell(source, *tags, outputs=()):
    made = nbformat.v4.new_code_cell(source, outputs=list(outputs))
    made.metadata["tags"] = list(tags)
    return made


def text(source, *tags):
    made = nbformat.v4.new_markdown_cell(source)
    made.metadata["tags"] = list(tags)
    return made


def printed(words):
    return nbformat.v4.new_output("stream", name="stdout", text=words)


@pytest.mark.parametrize(
    ("paragraph", "kept"),
    [
        ("One. Two.", "One. Two."),
        ("The point is at 1.5 mm, e.g. here. " + "And so on. " * 40, "The point is at 1.5 mm, e.g. here."),
        ("We set $x = 1. Y$ to `a. B` first. " + "More words follow. " * 20, "We set $x = 1. Y$ to `a. B` first."),
        ("**The first one. And then the second of many.** " + "More words follow. " * 20, "**The first one.**"),
    ],
)
def test_paragraphs_keep_whole_sentences(paragraph, kept):
    assert slides.shorten(paragraph, 40) == kept


def test_lists_keep_each_item():
    short, height = slides.trim_list("- one;\n- two, which\n  goes on\n- three")
    assert short == "- one\n- two, which goes on\n- three"
    assert height > 3


def test_roles_and_links_become_words():
    words = slides.plain_roles(
        "{term}`scans <scan>`, {eq}`camera`, {py:func}`~pack.camera.project`, {cite:t}`tu2021assisted` and"
        " [chapter 3](03_x.ipynb), [a site](https://example.org) {cite:p}`blanz1999morphable`",
        {"camera": "3.2"},
    )
    assert words == (
        "scans, (3.2), `project`, Tu et al. (2021) and chapter 3, [a site](https://example.org) "
        "(Blanz and Vetter, 1999)"
    )


def test_imports_and_settings_are_left_out():
    assert slides.without_set_up(CODE) == "x = torch.ones(3)\nprint(x)"
    assert slides.without_set_up("import torch\nfrom a import (\n    b,\n)") == ""


@pytest.mark.parametrize("lines", [5, 20, 21, 47])
def test_code_is_split_and_nothing_is_lost(lines):
    source = "\n".join(["def f():", *["    x = 1", ""] * lines][:lines]).rstrip()
    pieces = slides.split_code(source)
    assert all(len(piece.splitlines()) <= slides.CODE_LINES for piece in pieces)
    assert [line for piece in pieces for line in piece.splitlines() if line] == [x for x in source.splitlines() if x]


def test_a_chapter_becomes_slides():
    source = nbformat.v4.new_notebook(
        cells=[
            text("# A chapter\n\n*Why is that?*\n\n**You need** nothing.\n\n**Time** long."),
            cell("pip install", "install"),
            text("## First\n\nOne sentence. " + "Another sentence follows. " * 20 + "\n\n$$\nx = 1\n$$"),
            cell(CODE),
            cell("draw()", "hide-input"),
            text("**Figure 3.1.** A line. *Try* it."),
            text("### Exercise 3.1 · Do it\n\nFirst do this. " + "Then do that. " * 20),
            cell("answer = None", "exercise"),
            text("The answer is 7.", "solution"),
            cell("answer = 7", "solution"),
        ]
    )
    executed = nbformat.from_dict(source)
    codes = [c for c in executed.cells if c.cell_type == "code"]
    codes[1].outputs = [printed("tensor\n" * 30)]
    codes[2].outputs = [nbformat.v4.new_output("display_data", {"application/vnd.plotly.v1+json": {"data": []}})]
    made = slides.chapter_slides(source, executed, CHAPTER)
    page = slides.deck_html(slides.deck_notebook(made, "3 A chapter"))
    assert made[0].level == 1
    assert [slide.title for slide in made if slide.level == 2] == ["First", "Check yourself: question 1"]
    assert "Why is that?" in page
    assert "\\tag{3.1}" in page
    assert page.count('class="book-plotly"') == 1
    assert "<strong>Figure 3.1.</strong> A line." in page
    assert "more lines" in page
    (exercise,) = [slide for slide in made if slide.title.startswith("Exercise")]
    assert exercise.cells[0].source.count("Then do that.") == 20, "an exercise is there as a whole"
    for gone in ("pip install", "import torch", "draw()", "The answer is 7", "answer = 7", "Time"):
        assert gone not in page.partition("<aside")[0] + page.rpartition("</aside>")[2]
    for slide in made:
        assert slide.height <= slides.SQUEEZED


def test_small_slides_join_their_neighbours():
    def slide(title, level, height):
        return slides.Slide(title, level, [text(f"{title} {height}")], [], height)

    given = [slide("A", 2, 14.0), slide("A", 3, 2.0), slide("A", 3, 9.0), slide("B", 2, 2.0), slide("B", 3, 17.0)]
    assert [entry.height for entry in slides.join_small(given)] == [16.0, 9.0, 2.0, 17.0]


def test_a_chapter_that_was_not_executed_is_named(tmp_path):
    with pytest.raises(slides.SlidesError, match=r"no 03_a_chapter\.ipynb"):
        slides.make_decks([CHAPTER], tmp_path, tmp_path / "decks")


# --- in a browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deck(tmp_path_factory):
    """The deck of chapter 3."""
    try:
        assets.edition_folder("reveal.js")
    except OSError as error:
        pytest.skip(f"REVEAL.JS COULD NOT BE FETCHED, NO DECK WAS MADE: {error}")
    (chapter,) = written_chapters(["03"])
    execute.execute(chapter)
    made = slides.make_decks([chapter], execute.EXECUTED, tmp_path_factory.mktemp("slides"))
    assert [path.name for path in made] == [f"{chapter.file}.html", "index.html"]
    assert f'href="{chapter.file}.html"' in made[1].read_text(encoding="utf-8")
    return made[0]


@pytest.mark.book
def test_deck_works_from_a_disk_and_no_slide_overflows(chromium, deck):
    done = slides.check_deck(chromium, deck)
    print(f"{done.slides} slides, {len(done.smaller)} of them set smaller")
    assert done.problems == []
    assert done.overflowing == []
    assert done.slides > 20
    assert min(done.smaller.values(), default=100) >= 70, done.smaller


@pytest.mark.book
def test_what_is_wrong_with_a_deck_is_found(chromium, deck, tmp_path):
    folder = tmp_path / "decks"
    shutil.copytree(deck.parent, folder)
    wrong = (
        '<section><h2>Too much</h2><div style="height:2000px">x</div></section>'
        '<section><h2>Elsewhere</h2><img src="https://example.org/x.png"></section>'
        "<section><h2>Formula</h2><p>$$\\frac{1}$$ and $\\undefined{x}$ and {term}`x`</p></section>"
    )
    page = deck.read_text(encoding="utf-8")
    body, _, end = page.partition('<div class="slides">')
    rest = end[end.rindex("</section>") + len("</section>") :]
    (folder / deck.name).write_text(f'{body}<div class="slides">{wrong}{rest}', encoding="utf-8")
    done = slides.check_deck(chromium, folder / deck.name)
    assert done.slides == 3
    assert len(done.overflowing) == 1
    assert "Too much" in done.overflowing[0]
    for message in (
        "asks for https://example.org/x.png",
        "picture missing",
        "formula with an error",
        "markup is shown",
    ):
        assert any(message in problem for problem in done.problems), (message, done.problems)
