"""Figures, exercises and formulas are numbered without gaps, and mentions of them are links."""

from __future__ import annotations

import nbformat
import pytest
from bookkit import numbering, pages
from bookkit.config import Chapter, written_chapters
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

CHAPTER = Chapter(42, "42_test", "Test", "", "P", 20)


def notebook(*texts):
    return new_notebook(cells=[new_markdown_cell(text) for text in texts])


def known(*texts):
    return numbering.number([(CHAPTER, notebook(*texts))])


SOME = (
    "**Figure 42.1.** A face.",
    "**Figure 42.2.** Another.",
    "### Exercise 42.1 · Turn *it*",
    r"$$E = 1 \label{energy}$$",
    "$$\nE = 2\n$$",
)


def test_the_book_counts_up_and_mentions_only_what_there_is():
    assert numbering.problems(numbering.read(written_chapters())) == []


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (["**Figure 42.2.** A."], "found Figure 42.2; expected Figure 42.1"),
        (["**Figure 41.1.** A."], "found Figure 41.1; expected Figure 42.1"),
        (["### Exercise 42.1 · A", "### Exercise 42.1 · B"], "found Exercise 42.1; expected Exercise 42.2"),
        (["See figure 42.7."], "mentions figure 42.7, which there is not"),
        (["See {eq}`nothing`."], "refers to the formula 'nothing'"),
    ],
)
def test_what_does_not_count_up_is_named(texts, problem):
    (found,) = numbering.problems([(CHAPTER, notebook(*texts))])
    assert problem in found


def test_a_label_given_twice_is_refused():
    with pytest.raises(ValueError, match="'a' twice"):
        known(r"$$x \label{a}$$", r"$$y \label{a}$$")


def test_mentions_become_links():
    places = known(*SOME)
    assert numbering.link_mentions("See Figure 42.1.", places) == "See [Figure 42.1](#figure-42-1)."
    both = numbering.link_mentions("figures 42.1 and 42.2, exercise 42.1", places)
    assert both == "[figures 42.1](#figure-42-1) and [42.2](#figure-42-2), [exercise 42.1](#exercise-42-1)"
    assert numbering.link_mentions("by {eq}`energy`", places) == "by [(42.1)](#equation-42-1)"
    for text in (
        "Figure 42.9",
        "`figure 42.1`",
        "[figure 42.1](x.md)",
        "# Figure 42.1",
        "**Figure 42.1.** A",
        "$a 42.1$",
    ):
        assert numbering.link_mentions(text, places) == text


def test_formulas_get_numbers_and_targets():
    text, count = numbering.add_targets("So\n\n$$E = 1 \\label{a}$$\n\nand\n\n$$\nF\n$$\n", CHAPTER, 3)
    assert count == 5
    assert "(equation-42-4)=\n\n$$\nE = 1 \\tag{42.4}\n$$" in text
    assert "(equation-42-5)=\n\n$$\nF \\tag{42.5}\n$$" in text
    assert "\\label" not in text
    own, _ = numbering.add_targets("$$\\begin{align} a \\\\ b \\end{align}$$", CHAPTER, 0)
    assert "\\tag" not in own
    rows, _ = numbering.add_targets("$$\\begin{pmatrix} a \\\\ b \\end{pmatrix}$$", CHAPTER, 0)
    assert (
        "\\begin{pmatrix} a \\cr  b \\end{pmatrix} \\tag{42.1}" in rows
    )  # Sphinx would put a split around a double backslash
    assert "\\\\" not in rows
    assert numbering.add_targets("price $5 and $6", CHAPTER, 0) == ("price $5 and $6", 0)


def test_a_page_has_the_targets_that_its_links_name():
    cells = [
        new_markdown_cell("# Test\n\nSee figure 42.1, exercise 42.1."),
        new_code_cell("plot()"),
        new_markdown_cell("**Figure 42.1.** A face."),
        new_markdown_cell("### Exercise 42.1 · Turn it"),
    ]
    made = nbformat.from_dict(new_notebook(cells=cells))
    page = pages.chapter_page(made, made, CHAPTER)
    text = "\n\n".join(cell.source for cell in page.cells)
    assert "[figure 42.1](#figure-42-1)" in text
    assert "(figure-42-1)=\n\n::::{div} figure-caption\n**Figure 42.1.** A face." in text
    assert "(exercise-42-1)=\n\n### Exercise 42.1" in text


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
