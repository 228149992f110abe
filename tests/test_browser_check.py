"""The browser check finds the problems of small sites that are broken on purpose."""

import os

import pytest
from bookkit import accessibility
from bookkit import browser as check

pytestmark = pytest.mark.book

GOOD = """<!doctype html><html><head><link rel="icon" href="data:,"><title>t</title></head><body>
<input type="range" min="0" max="5" value="2" aria-label="size" data-test-changes="#out"><p id="out">2</p>
<div data-face-explorer><input type="range" min="0" max="5" value="5" aria-label="nose"></div>
<script>
const [size, nose] = document.querySelectorAll("input");
size.addEventListener("input", () => { document.querySelector("#out").textContent = size.value; });
const face = document.querySelector("[data-face-explorer]");
face.explorer = { state: () => ({ checksum: Number(nose.value) }) };
</script></body></html>"""

VIEW = '<div><script type="application/vnd.jupyter.widget-view+json">{}</script></div>'
BROKEN = {
    "outside": ('<script src="https://example.org/x.js"></script>', "outside the site"),
    "missing": ('<script src="nowhere.js"></script>', "nowhere.js"),
    "console": ("<script>console.error('bad mood')</script>", "bad mood"),
    "exception": ("<script>undefined.nose</script>", "script error"),
    "picture": ('<img src="data:image/png;base64,aGk=">', "picture missing"),
    "plotly": ('<div class="book-plotly" id="f"></div>', "is not drawn"),
    "math": (r'<span class="math">\(x\)</span>', "formula not typeset"),
    "widget": (VIEW, "widget is not there"),
    "explorer": ('<div data-face-explorer id="e"></div>', "has not started"),
    "dead control": ('<input type="range" data-test-changes="#p"><p id="p">1</p>', "stayed the same"),
    "cut code": (
        '<div class="bd-article"><pre style="width:300px;overflow:auto">' + "x = 1  " * 20 + "</pre></div>",
        "cut at",
    ),
    "cut output": (
        '<div class="bd-article"><div class="cell_output"><pre style="width:300px;overflow:hidden">'
        + "0.123 " * 30
        + "</pre></div></div>",
        "output is cut",
    ),
    "dead head": ('<div class="start-head" id="h" data-mounted="failed"></div>', "is not drawn"),
    "doubled": ('<div class="bd-article"><p id="a">1</p><p id="a">2</p></div>', "several elements have the id a"),
    "wide": ('<div class="bd-article"><div style="width:2000px">w</div></div>', "px wide"),
}


@pytest.fixture(scope="module")
def chromium():
    path = check.find_browser() or check.install_browser()
    if path is None:
        if os.environ.get("TWODASL_REQUIRE_BROWSER") == "1":
            pytest.fail("TWODASL_REQUIRE_BROWSER=1, and there is no Chromium or Chrome to open the pages with")
        pytest.skip("NO BROWSER FOUND AND NONE COULD BE INSTALLED: THE PAGES WERE NOT OPENED")
    with check.open_browser(path) as browser:
        yield browser


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(check, "DRAW_SECONDS", 0.5)
    monkeypatch.setattr(check, "REACT_SECONDS", 0.5)


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_good_page_passes_and_its_controls_are_moved(chromium, tmp_path, scheme):
    (tmp_path / "index.html").write_text(GOOD)
    done = check.check_site(chromium, tmp_path, scheme)
    assert done.problems == []
    assert done.moved.total() == 2
    assert done.interactive["index.html"] == 1


@pytest.mark.parametrize("fault", BROKEN)
def test_fault_is_found(chromium, tmp_path, impatient, fault):
    body, message = BROKEN[fault]
    head = '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    (tmp_path / "index.html").write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
    scheme = "file" if fault == "missing" else "http"
    problems = check.check_site(chromium, tmp_path, scheme).problems
    assert any(message in problem for problem in problems), problems


def test_wide_output_that_shows_its_scroll_bar_passes(chromium, tmp_path):
    head = '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    box = '<pre data-scrolls style="width:300px;overflow-x:auto">' + "0.123 " * 30 + "</pre>"
    body = f'<div class="bd-article"><div class="cell_output">{box}</div></div>'
    (tmp_path / "index.html").write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
    assert check.check_site(chromium, tmp_path, "http").problems == []


@pytest.fixture(scope="module")
def axe():
    path = accessibility.axe_script()
    if path is None:
        pytest.skip("AXE-CORE COULD NOT BE FETCHED: NOTHING LOOKED AT ACCESSIBILITY")
    return path


def test_what_shuts_readers_out_is_found(chromium, tmp_path, axe):
    start = '<!doctype html><html lang="en"><head><link rel="icon" href="data:,"><title>t</title></head>'
    start += "<body><main><h1>T</h1>"
    (tmp_path / "good.html").write_text(start + '<img src="data:," alt="A face"><p>Text</p></main></body></html>')
    (tmp_path / "bad.html").write_text(start + '<img src="data:,"><p style="color:#bbb">Pale</p></main></body></html>')
    found = accessibility.violations(chromium, tmp_path, ["good.html", "bad.html"], axe)
    assert sorted(line.partition(" (")[0] for line in found) == ["bad.html: color-contrast", "bad.html: image-alt"]


def test_empty_site_and_unknown_scheme_are_named(chromium, tmp_path):
    with pytest.raises(ValueError, match="build the book first"):
        check.check_site(chromium, tmp_path, "http")
    (tmp_path / "index.html").write_text(GOOD)
    with pytest.raises(ValueError, match="'gopher'"):
        check.check_site(chromium, tmp_path, "gopher")
