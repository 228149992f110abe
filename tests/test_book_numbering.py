"""Figures, exercises and formulas get their numbers from the builder, and references find them by label."""

from __future__ import annotations

import nbformat
import pytest
from bookkit import numbering, pages, pairing
from bookkit.config import Chapter, written_chapters
from bookkit.quiz import quiz_markdown, quiz_path, read_quiz
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CHAPTER = Chapter(42, "42_test", "Test", "", "P", 20)
OTHER = Chapter(43, "43_other", "Other", "", "P", 20)


def notebook(*texts):
    return new_notebook(cells=[new_markdown_cell(text) for text in texts])


def known(*texts):
    return numbering.number([(CHAPTER, notebook(*texts))])


def numbered(text, places, chapter=CHAPTER):
    return numbering.number_text(text, chapter, numbering.Count(), places)


SOME = (
    '**Figure.**<a id="face"></a> A face.',
    "**Figure 42.9.** Another.",
    '### Exercise · Turn *it* <a id="turn"></a>',
    r"$$E = 1 \label{energy}$$",
    "$$\nE = 2\n$$",
)


def test_the_book_is_numbered_and_refers_by_label_to_what_there_is():
    chapters = numbering.read(written_chapters())
    assert numbering.problems(chapters) == []
    places = numbering.number(chapters)
    assert len(places.labels) >= 10, "the book has labels"
    for chapter in written_chapters():
        text = quiz_markdown(read_quiz(quiz_path(chapter)))
        assert not numbering.TYPED.search(text), f"{quiz_path(chapter).name} names something by its number"
        numbering.link_references(text, places, quiz_path(chapter).name)


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["**Figure.** A."], "found '**Figure.** A.'; expected '**Figure 42.1.** A.': run `make pair`"),
        (["**Figure 42.2.** A."], "expected '**Figure 42.1.** A.'"),
        (["**Figure 41.1.** A."], "expected '**Figure 42.1.** A.'"),
        (["### Exercise 42.1 · A", "### Exercise 42.1 · B"], "expected '### Exercise 42.2 · B'"),
        (["See figure 42.7."], "found 'figure 42.7' typed by hand; expected a label: [figure](#label)"),
        (["Exercises 42.1 and so on"], "found 'Exercises 42.1' typed by hand; expected a label: [Exercise](#label)"),
        (["by equation (42.1)"], "typed by hand"),
        (["A.\n\n**Figure 42.1.** B."], "found a caption inside a cell"),
        (["See {eq}`nothing`."], "42_test: found a reference to the equation 'nothing'; there is none. Known: none"),
        (["See [figure](#nothing)."], "42_test: found a reference to the figure 'nothing'; there is none. Known: none"),
    ],
)
def test_what_is_out_of_step_is_named(texts, problem):
    (found,) = numbering.problems([(CHAPTER, notebook(*texts))])
    assert problem in found


def test_a_number_in_a_comment_of_the_code_is_named():
    made = new_notebook(cells=[new_code_cell("x = 1  # as in figure 42.1")])
    (found,) = numbering.problems([(CHAPTER, made)])
    assert "found 'figure 42.1' in a code cell" in found


def test_a_label_given_twice_is_refused():
    with pytest.raises(ValueError, match="'a' twice"):
        known(r"$$x \label{a}$$", r"$$y \label{a}$$")
    pair = [(one, notebook('**Figure.**<a id="a"></a> B.')) for one in (CHAPTER, OTHER)]
    with pytest.raises(ValueError, match="43_other: found the label 'a' twice, also in 42_test"):
        numbering.number(pair)


def test_captions_and_exercises_count_up_whatever_stands_there():
    count = numbering.Count()
    texts = [numbering.number_text(text, CHAPTER, count, known(*SOME)) for text in SOME]
    assert texts[0] == '**Figure 42.1.**<a id="face"></a> A face.'
    assert texts[1] == "**Figure 42.2.** Another."
    assert texts[2] == '### Exercise 42.1 · Turn *it* <a id="turn"></a>'
    assert texts[3:] == list(SOME[3:])


def test_references_get_their_numbers():
    places = known(*SOME)
    assert numbered("See [Figure](#face).", places) == "See [Figure 42.1](#face)."
    assert numbered("[figure 7.3](#face), [exercise](#turn)", places) == "[figure 42.1](#face), [exercise 42.1](#turn)"
    assert numbered("[equation\n(1.1)](#energy)", places) == "[equation (42.1)](#energy)"
    assert numbered("[a word](#face)", places) == "[a word](#face)"
    assert numbered("[figure](#face)", places, OTHER) == "[figure 42.1](42_test.ipynb#face)"
    assert numbered("[figure 1.1](42_test.ipynb#face)", places, OTHER) == "[figure 42.1](42_test.ipynb#face)"


def test_a_dangling_reference_says_where_and_what_there_is():
    places = known(*SOME)
    with pytest.raises(numbering.DanglingError, match=r"43_other.*figure 'nose'; there is none\. Known: face"):
        numbered("See [figure](#nose).", places, OTHER)
    with pytest.raises(numbering.DanglingError, match="figure 'turn'; expected exercise"):
        numbered("See [figure](#turn).", places)
    with pytest.raises(numbering.DanglingError, match=r"08\.toml: found a reference to the equation 'mass'.*energy"):
        numbering.link_references("by {eq}`mass`", places, "08.toml")


def test_a_dangling_reference_ends_the_build():
    made = nbformat.from_dict(new_notebook(cells=[new_markdown_cell("# Test\n\nSee [figure](#nose).")]))
    with pytest.raises(ValueError, match="42_test: found a reference to the figure 'nose'"):
        pages.chapter_page(made, made, CHAPTER)


def test_links_of_the_site():
    places = known(*SOME)
    assert numbering.link_references("by {eq}`energy`", places, "x") == "by [(42.1)](#energy)"
    text = "see [Figure 1.1](42_test.ipynb#face)"
    assert numbering.link_references(text, places, "x") == "see [Figure 42.1](#face)"
    assert numbering.link_references(text, places, "x", shown=["43_other"]) == "see Figure 42.1"


def test_formulas_get_numbers_and_targets():
    count = numbering.Count(equation=3)
    text = numbering.add_targets("So\n\n$$E = 1 \\label{a}$$\n\nand\n\n$$\nF\n$$\n", CHAPTER, count)
    assert count.equation == 5
    assert "(equation-42-4)=\n\n(a)=\n\n$$\nE = 1 \\tag{42.4}\n$$" in text
    assert "(equation-42-5)=\n\n$$\nF \\tag{42.5}\n$$" in text
    assert "\\label" not in text
    own = numbering.add_targets("$$\\begin{align} a \\\\ b \\end{align}$$", CHAPTER, numbering.Count())
    assert "\\tag" not in own
    rows = numbering.add_targets("$$\\begin{pmatrix} a \\\\ b \\end{pmatrix}$$", CHAPTER, numbering.Count())
    assert (
        "\\begin{pmatrix} a \\cr  b \\end{pmatrix} \\tag{42.1}" in rows
    )  # Sphinx would put a split around a double backslash
    assert "\\\\" not in rows
    assert numbering.add_targets("price $5 and $6", CHAPTER, numbering.Count()) == "price $5 and $6"


def test_a_page_has_the_targets_that_its_links_name():
    cells = [
        new_markdown_cell("# Test\n\nSee [figure](#face), [exercise](#turn)."),
        new_code_cell("plot()"),
        new_markdown_cell('**Figure.**<a id="face"></a> A face.'),
        new_markdown_cell('### Exercise · Turn it <a id="turn"></a>'),
        new_markdown_cell("**Figure.** The answer.", metadata={"tags": ["solution"]}),
    ]
    made = nbformat.from_dict(new_notebook(cells=cells))
    page = pages.chapter_page(made, made, CHAPTER)
    text = "\n\n".join(cell.source for cell in page.cells)
    assert "See [figure 42.1](#face), [exercise 42.1](#turn)" in text
    assert "(figure-42-1)=\n\n(face)=\n\n::::{div} figure-caption\n**Figure 42.1.** A face." in text
    assert "(exercise-42-1)=\n\n(turn)=\n\n### Exercise 42.1 · Turn it" in text
    assert ":class: dropdown solution\n(figure-42-2)=\n\n::::{div} figure-caption\n**Figure 42.2.** The answer." in text
    assert "<a id" not in text


def test_pairing_numbers_all_chapters(tmp_path, monkeypatch):
    chapters = [Chapter(n, f"0{n}_test", "Test", "", "P", 20) for n in (1, 2)]
    (tmp_path / "scripts").mkdir()
    for name in ("NOTEBOOKS", "SCRIPTS"):
        folder = tmp_path if name == "NOTEBOOKS" else tmp_path / "scripts"
        monkeypatch.setattr(f"bookkit.config.{name}", folder)
        monkeypatch.setattr(pairing, name, folder)
    monkeypatch.setattr(pairing, "written_chapters", lambda: chapters)
    chapters[0].script.write_text("# %% [markdown]\n# # Test\n#\n# See [figure](#late).\n")
    chapters[1].script.write_text(
        '# %% [markdown]\n# **Figure.** A.\n\n# %% [markdown]\n# **Figure.**<a id="late"></a> B.\n'
    )
    pairing.pair()
    assert "[figure 2.2](02_test.ipynb#late)" in chapters[0].script.read_text()
    assert "[figure 2.2](02_test.ipynb#late)" in chapters[0].path.read_text()
    assert '**Figure 2.2.**<a id="late"></a> B.' in chapters[1].script.read_text()
    assert pairing.pair() == []


def test_side_bar_has_numbers():
    assert "1 A face is a vector <notebooks/01_a_face_is_a_vector>" in pages._contents(written_chapters())


def test_lists_of_exercises_and_terms():
    text = numbering.exercise_list([CHAPTER], known(*SOME))
    assert "- [Exercise 42.1](#exercise-42-1): Turn *it*" in text
    used = numbering.term_list([(CHAPTER, notebook("{term}`prior` and {term}`the pose\n<pose>`", "{term}`prior`"))])
    assert used.splitlines() == [
        "- {term}`pose`: [42 Test](../notebooks/42_test.ipynb)",
        "- {term}`prior`: [42 Test](../notebooks/42_test.ipynb)",
    ]
