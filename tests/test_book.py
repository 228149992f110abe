"""The book itself: each chapter runs, the site builds without a warning, every page works offline.

The chapters run under nbmake; their results are shared with `make book` (see ``bookkit.execute``), so that a
chapter that has not changed since its last successful run is not executed again.
"""

import re

import nbformat
import pytest
from bookkit import accessibility, execute
from bookkit import browser as check
from bookkit.config import HTML, road_map, written_chapters
from bookkit.site import build

pytestmark = pytest.mark.book

CHAPTERS = written_chapters()


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.file)
def test_chapter_runs(chapter):
    run = execute.execute(chapter)
    state = "unchanged since it ran" if run.cached else "executed"
    print(f"{chapter.file}: {state}, {run.seconds:.1f} s of {chapter.budget:g} s")


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.file)
def test_no_cell_prints_what_it_drew_on(chapter):
    """An axes or a legend as the last value of a cell is shown as ``<Axes: >``; a semicolon hides it."""
    execute.execute(chapter)
    for cell in nbformat.read(execute.executed_path(chapter), as_version=4).cells:
        for output in cell.get("outputs", []):
            shown = "".join(output.get("data", {}).get("text/plain", ""))
            drawing = re.match(r"[\[(]?(array\(\[)*<?(Axes|matplotlib\.|Text\()", shown)
            if drawing and "image/png" not in output["data"]:
                pytest.fail(
                    f"found the output {shown[:60]!r}; expected none: end {cell.source[-60:]!r} with a semicolon"
                )


@pytest.fixture(scope="module")
def site():
    """The site, built anew with warnings as errors."""
    build(CHAPTERS, strict=True)
    return HTML


def test_site_builds_without_warnings(site):
    pages = check.list_pages(site)
    for page in (
        "index.html",
        "book/notation.html",
        "book/glossary.html",
        "book/bibliography.html",
        "book/api/index.html",
    ):
        assert page in pages
    for chapter in CHAPTERS:
        assert f"notebooks/{chapter.file}.html" in pages


def test_start_page_shows_the_whole_road_map(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    for chapter in road_map():
        assert chapter.title in text
        assert (f'href="notebooks/{chapter.file}.html"' in text) == chapter.written


@pytest.mark.skipif(not CHAPTERS, reason="no chapter has been written")
def test_launch_buttons_follow_the_repository_address(site):
    from bookkit.config import repository

    url, branch = repository()
    text = (site / "notebooks" / f"{CHAPTERS[0].file}.html").read_text(encoding="utf-8")
    owner_and_name = url.removeprefix("https://github.com/")
    assert f"mybinder.org/v2/gh/{owner_and_name}/{branch}?urlpath=lab/tree/notebooks/{CHAPTERS[0].file}.ipynb" in text
    assert f"colab.research.google.com/github/{owner_and_name}/blob/{branch}/notebooks/{CHAPTERS[0].file}.ipynb" in text


@pytest.mark.skipif(not CHAPTERS, reason="no chapter has been written")
def test_page_weight(site):
    """A page stays below 3 MB beside the scripts that all pages share."""
    for chapter in CHAPTERS:
        size = (site / "notebooks" / f"{chapter.file}.html").stat().st_size
        assert size <= 3_000_000, f"{chapter.file}.html has {size / 1e6:.1f} MB"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("decode_landmarks", {"Sixty-two numbers", "The coefficient regressor"}),
        ("VDC", {"Which coefficient matters", "Glossary"}),
        ("landmarks_2d", {"2D landmark consistency", "Training 2DASL: the full GPU run"}),
        ("load_face_model", {"A face is a vector"}),
    ],
)
def test_search_finds_code_names(site, chromium, words, expected):
    assert expected <= set(check.search(chromium, site, words))


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_every_page_works_offline(site, chromium, scheme):
    done = check.check_site(chromium, site, scheme)
    print(f"{len(check.list_pages(site))} pages over {scheme}, {done.moved.total()} controls moved")
    assert not done.problems, "\n" + "\n".join(done.problems)
    for chapter in CHAPTERS:
        page = f"notebooks/{chapter.file}.html"
        assert done.interactive[page] >= 1, f"{page} has no interactive figure"
        assert done.moved[page] >= 1, f"{page} has no control that was moved"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_page_shuts_readers_out(site, chromium, dark):
    script = accessibility.axe_script()
    if script is None:
        pytest.skip("AXE-CORE COULD NOT BE FETCHED: NOTHING LOOKED AT ACCESSIBILITY")
    pages = [page for page in check.list_pages(site) if not page.startswith("book/api/twodasl_lite.")]
    pages.append("book/api/twodasl_lite.geometry.camera.html")  # one for all: they come from one template
    problems = accessibility.violations(chromium, site, pages, script, dark=dark)
    assert not problems, "\n" + "\n".join(problems)
