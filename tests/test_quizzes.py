"""Quizzes: rejected files, their markup on a page, and their use in a browser, with and without scripts."""

import subprocess
import sys

import nbformat
import pytest
from bookkit import pages, quiz
from bookkit.config import BOOK, Chapter, written_chapters

FILES = sorted(quiz.QUIZZES.glob("*.toml"))
GOOD = r"""
[[questions]]
text = 'Which is $\alpha$?'

[[questions.choices]]
text = 'The pose'
why = 'It is $\mathbf R$.'

[[questions.choices]]
text = 'The *shape*, $\alpha$'
why = 'Forty numbers.'
right = true

[[questions.choices]]
text = 'The expression'
why = 'It is $\beta$.'

[[questions]]
text = 'And $1 + 1$?'

[[questions.choices]]
text = '2'
why = 'Count.'
right = true

[[questions.choices]]
text = '3'
why = 'Too many.'

[[questions.choices]]
text = '11'
why = 'Those are two ones.'
"""


@pytest.fixture
def write(tmp_path):
    def make(text):
        path = tmp_path / "03.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_quiz_is_well_formed(path):
    questions = quiz.read_quiz(path)
    assert 4 <= len(questions) <= 5
    places = {[choice.right for choice in question.choices].index(True) for question in questions}
    assert len(places) > 1, "the right answer always stands in the same place"
    for question in questions:
        lengths = sorted((len(choice.text), choice.right) for choice in question.choices)
        assert len({choice.text for choice in question.choices}) == len(question.choices)
        assert lengths[-1][0] < 160, "a choice is one line"


def test_the_longest_answer_is_not_always_the_right_one():
    questions = [question for path in FILES for question in quiz.read_quiz(path)]
    longest = [max(question.choices, key=lambda choice: len(choice.text)).right for question in questions]
    assert sum(longest) < len(longest) / 2


def test_every_written_chapter_has_a_quiz():
    missing = [chapter.file for chapter in written_chapters() if not quiz.quiz_path(chapter).exists()]
    assert missing == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("right = true", "", "0 right choices; expected one"),
        ("why = 'Too many.'", "why = 'Too many.'\nright = true", "2 right choices"),
        ("why = 'Count.'", "", r"question 2: found \['right', 'text'\]"),
        ("why = 'Count.'", "reason = 'Count.'\nwhy = 'x'", "'reason'"),
        ("[[questions.choices]]\ntext = '11'\nwhy = 'Those are two ones.'\n", "", "found 2 choices; expected 3 to 4"),
        ("text = '2'", "text = '''2\n\nand more'''", "several lines"),
        ("text = '2'", "text = 2 1", "03.toml: "),
    ],
)
def test_wrong_quizzes_are_refused(write, old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=message):
        quiz.read_quiz(write(GOOD.replace(old, new)))


def test_an_empty_quiz_is_refused(write):
    with pytest.raises(ValueError, match="found no question"):
        quiz.read_quiz(write("# nothing\n"))


def test_a_chapter_ends_in_its_quiz(write, monkeypatch):
    path = write(GOOD)
    monkeypatch.setattr(quiz, "QUIZZES", path.parent)
    chapter = Chapter(number=3, file="03_test", title="Test", summary="", part="", budget=2)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Test")])
    page = pages.chapter_page(notebook, notebook, chapter)
    assert page.cells[-1].source.startswith(f"## {quiz.TITLE}\n\n2 questions.")
    assert page.cells[-1].source.count("{dropdown}") == 6
    path.unlink()
    assert len(pages.chapter_page(notebook, notebook, chapter).cells) == 1


# --- in a browser ---------------------------------------------------------------------------------

CONF = f"""
extensions = ["myst_parser", "sphinx_design"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
html_theme = "sphinx_book_theme"
html_static_path = [{str(BOOK / "_static")!r}]
html_css_files = ["book.css"]
html_js_files = [("book.js", {{"defer": "defer"}})]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One page with a quiz, in the book's theme."""
    folder = tmp_path_factory.mktemp("quiz")
    (folder / "source").mkdir()
    (folder / "source" / "conf.py").write_text(CONF)
    (folder / "q.toml").write_text(GOOD)
    text = quiz.quiz_markdown(quiz.read_quiz(folder / "q.toml"))
    (folder / "source" / "index.md").write_text(f"# A chapter\n\n{text}\n\n## After it\n", encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", str(folder / "source"), str(folder / "html")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / "html"


def open_page(browser, site, **options):
    context = browser.new_context(**options)
    context.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    return page


@pytest.mark.book
def test_a_quiz_is_answered_with_the_keyboard(site, chromium):
    page = open_page(chromium, site)
    score = page.locator(".quiz-score")
    assert score.get_attribute("role") == "status"
    assert score.text_content() == ""
    assert page.get_by_role("group", name="Question 2 of 2").count() == 1
    first, second = (page.locator(".quiz-question").nth(k) for k in (0, 1))
    wrong = first.locator("details.quiz-wrong").first
    assert not wrong.get_by_text("No.").is_visible()
    wrong.locator("summary").focus()
    page.keyboard.press("Enter")
    assert wrong.get_by_text("No.").is_visible()
    score.get_by_text("1 of 2 answered, 0 right at the first try.").wait_for()
    page.keyboard.press("Tab")  # the next choice, which is the right one
    page.keyboard.press("Space")
    assert first.locator("details.quiz-right").get_by_text("Right.").is_visible()
    second.locator("details.quiz-right summary").click()
    score.get_by_text("2 of 2 answered, 1 right at the first try.").wait_for()
    heading = page.get_by_role("heading", name="After it")
    assert heading.bounding_box()["y"] > second.bounding_box()["y"] + second.bounding_box()["height"]
    page.context.close()


@pytest.mark.book
def test_a_quiz_works_without_scripts_and_in_the_dark(site, chromium):
    page = open_page(
        chromium, site, java_script_enabled=False, color_scheme="dark", viewport={"width": 400, "height": 800}
    )
    choice = page.locator("details.quiz-right").first
    choice.locator("summary").click()
    assert choice.get_by_text("Forty numbers.").is_visible()
    box = page.locator(".quiz").bounding_box()
    assert box["x"] + box["width"] <= 400
    page.context.close()


@pytest.mark.book
def test_on_paper_the_right_answers_are_shown_and_do_not_count(site, chromium):
    page = open_page(chromium, site)
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.quiz-right[open]").count() == 2
    assert page.locator("details.quiz-wrong[open]").count() == 0
    page.evaluate("() => window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.wait_for_timeout(300)
    assert page.locator(".quiz-score").text_content() == ""
    page.context.close()
