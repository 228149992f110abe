"""The index of code names: what counts as a use, and links that lead to it."""

from __future__ import annotations

import re

import nbformat
import pytest
from bookkit import numbering, pages, symbols
from bookkit.config import PACKAGE, Chapter, written_chapters
from bookkit.dependencies import Package
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ONE, TWO = (Chapter(n, f"0{n}_t", f"T{n}", "", "P", 20) for n in (1, 2))
SOURCES = {
    "__init__.py": "",
    "camera.py": 'SIZE = 3\n_HIDDEN = 4\ndef project(x):\n    """To pixels, see :func:`SIZE`; a | b.\n\n    More."""\n',
    "losses/__init__.py": "from little.losses.vdc import VDC\n",
    "losses/vdc.py": 'class VDC:\n    """A distance."""\n',
    "viz/__init__.py": '_HOMES = {"overlay": "draw"}\ndef __getattr__(name): ...\n',
    "viz/draw.py": "from little.camera import project\ndef overlay(): ...\n",
}


@pytest.fixture
def package(tmp_path):
    for name, text in SOURCES.items():
        path = tmp_path / "little" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Package(tmp_path / "little")


def chapter(*cells):
    return nbformat.from_dict(new_notebook(cells=[new_markdown_cell("# T"), *(new_code_cell(cell) for cell in cells)]))


@pytest.mark.parametrize(
    ("dotted", "symbol"),
    [
        ("little.camera.project", ("little.camera", "project")),
        ("little.losses.VDC", ("little.losses.vdc", "VDC")),
        ("little.losses.vdc.VDC.forward", ("little.losses.vdc", "VDC")),
        ("little.viz.overlay", ("little.viz.draw", "overlay")),
        ("little.viz.draw.project", ("little.camera", "project")),
        ("little.camera", None),
        ("little.camera._HIDDEN", None),
        ("numpy.linalg.norm", None),
    ],
)
def test_a_name_is_what_it_is_where_it_is_defined(package, dotted, symbol):
    assert symbols.define(package, dotted) == symbol


def test_names_that_are_passed_on_in_a_circle_are_refused(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / "round").mkdir(exist_ok=True)
        (tmp_path / "round" / "__init__.py").write_text("")
        (tmp_path / "round" / f"{name}.py").write_text(f"from round.{other} import x\n")
    with pytest.raises(ValueError, match="circle of imports"):
        symbols.define(Package(tmp_path / "round"), "round.a.x")


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["from little.camera import project\nproject(1)"], [["project"]]),
        (["from little.camera import project", "y = project(1)"], [[], ["project"]]),  # an import alone is no use
        (["from little import losses as l, viz", "l.VDC(); viz.overlay"], [[], ["VDC", "overlay"]]),
        (["import little.camera", "little.camera.SIZE"], [[], ["SIZE"]]),
        (["import little.camera as c", "c.project(c.SIZE)"], [[], ["project", "SIZE"]]),
        (["from little.camera import project", "def project(x): ...", "project(1)"], [[], [], []]),
        (["from little.camera import project", "project = project(1)", "project"], [[], [], []]),
        (["from little.camera import project", "%time project(1)"], [[], []]),
        (["from numpy import array", "array(1)"], [[], []]),
    ],
)
def test_uses(package, cells, names):
    found = symbols.used(package, cells)
    assert [sorted(name for _, name in cell) for cell in found] == [sorted(cell) for cell in names]


def test_lists_say_where_else_and_where_first(package):
    first = chapter("from little.camera import project, SIZE", "project(1)")
    second = chapter(
        "from little.camera import project", "1", "project(2)", "from little import losses", "losses.VDC()"
    )
    index = symbols.make_index(package, [(ONE, first), (TWO, second)])
    assert index.users == {
        ("little.camera", "project"): [ONE, TWO],
        ("little.losses.vdc", "VDC"): [TWO],
    }
    text = symbols.chapter_list(index, TWO)
    assert "Code names used here: 2, of which 1 for the first time" in text
    link = '<a href="01_t.html#uses-camera-project" title="1 T1">'
    own = '<a href="02_t.html#uses-camera-project" title="2 T2"><strong>2</strong></a>'
    assert f"| {{py:obj}}`project <little.camera.project>` | {link}1 T1</a> | {link}1</a>, {own} |" in text
    assert "`VDC <little.losses.vdc.VDC>` | here |" in text
    assert symbols.chapter_list(symbols.make_index(package, [(ONE, chapter("1"))]), ONE) == ""
    page = symbols.index_page(index)
    assert "## [`little.camera`](api/little.camera.md)" in page
    assert '| To pixels, see `SIZE`; a \\| b. | <a href="../notebooks/01_t.html#uses-camera-project"' in page
    part = symbols.make_index(package, [(ONE, first), (TWO, second)], shown=["02_t"])
    assert "| 1 T1 | 1, <a" in symbols.chapter_list(part, TWO), "a chapter that is not on the site is not linked"


def test_a_page_has_the_targets_and_ends_with_the_list(package):
    made = chapter("from little.camera import project", "project(1)", "project(2)")
    index = symbols.make_index(package, [(ONE, made)])
    page = pages.chapter_page(made, made, ONE, index=index)
    sources = [cell.source for cell in page.cells]
    at = sources.index('<span id="uses-camera-project"></span>')
    assert sources[at + 1] == "project(1)"
    assert sum("uses-camera-project" in source for source in sources) == 2, "one target, one link"
    assert sources[-1].startswith(":::::{dropdown} Code names used here: 1")


def test_every_link_of_the_book_leads_to_a_target():
    read = numbering.read(written_chapters())
    index = symbols.make_index(Package(PACKAGE), read)
    assert len(index.users) > 100
    targets = {
        one.file: set(re.findall(r'id="([\w-]+)"', "".join(
            symbols.targets_of_cell(index, one, cell) for cell in range(len(index.cells[one.file]))
        )))
        for one in index.chapters
    }  # fmt: skip
    links = re.findall(r'href="(?:\.\./notebooks/)?(\w+)\.html#([\w-]+)"', symbols.index_page(index))
    for one in index.chapters:
        links += re.findall(r'href="(\w+)\.html#([\w-]+)"', symbols.chapter_list(index, one))
    assert len(links) > 500
    assert all(place in targets[file] for file, place in links)
    names = [symbols.target(symbol) for symbol in index.users]
    assert len(names) == len(set(names)), "two names have one target"
    decode = index.users[("twodasl_lite.faces.decode", "decode_landmarks")]
    assert {one.number for one in decode} >= {3, 8}


def test_readers_see_the_book_s_changes_first():
    text = "# Changes\n\nAll.\n\n## Unreleased\n\n**Training**\n\n- a\n  b\n\n**The book**\n\n- c\n\n"
    text += "## 0.1.0\n\nThe first.\n\n- d\n"
    assert pages.changes_for_readers(text) == (
        "## Unreleased\n\n### The book\n\n- c\n\n### Training\n\n- a\n  b\n\n## 0.1.0\n\nThe first.\n\n- d"
    )
