"""The browser check finds the problems of small sites that are broken on purpose."""

import pytest
from bookkit import accessibility, sheets
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


def _picture(colour):
    return f"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='90' height='40' style='{colour}'/>"


def test_sheets_hold_every_figure_at_both_widths_and_in_both_themes(chromium, tmp_path, impatient):
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    style = "@media (prefers-color-scheme: dark) { body { background: #000 } }"
    picture = f'<img src="{_picture("background:teal")}" alt="A face">'
    body = (
        '<div class="bd-article"><h1>T</h1><p>Text</p>'
        f'<div class="cell"><div class="cell_output">{picture}{picture}</div></div>'
        '<div class="figure-caption" id="face"><p><b>Figure 4.1.</b> A face. <i>Try</i> it.</p></div>'
        f'<div class="cell"><div class="cell_output">{picture}</div></div><p>No caption.</p>'
        '<div class="light-studio-figure" style="width:900px;height:20px">never drawn</div></div>'
    )
    site, folder = tmp_path / "site", tmp_path / "sheets"
    site.mkdir()
    head = f'<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width"><style>{style}</style>'
    (site / "a.html").write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
    (site / "empty.html").write_text(f"<!doctype html><html><head>{head}</head><body><p>Text</p></body></html>")

    shots = sheets.make_sheets(chromium, site, folder)

    assert len(shots) == 3 * 4
    assert {(shot.width, shot.theme) for shot in shots} == {(w, t) for w in (1400, 400) for t in ("light", "dark")}
    assert [shot.caption for shot in shots[:3]] == ["Figure 4.1. A face. Try it.", "", ""]
    for shot in shots:
        assert shot.problem == ("not drawn in time" if shot.index == 2 else "")
        assert cv2.imread(str(folder / shot.file)) is not None
    light, dark = (next(s for s in shots if (s.index, s.width, s.theme) == (2, 400, theme)) for theme in sheets.THEMES)
    assert np.mean(cv2.imread(str(folder / light.file))) > 128 > np.mean(cv2.imread(str(folder / dark.file)))
    page = (folder / "a.html").read_text()
    assert "<h2>Figure 4.1. A face</h2>" in page
    assert page.count("<img ") == 12
    assert (folder / "a.png").stat().st_size > 1000
    index = (folder / "index.html").read_text()
    assert "a.html</a>" in index
    assert "3 figures" in index
    assert "empty" not in index


def test_a_figure_wider_than_the_window_is_marked(chromium, tmp_path, impatient):
    head = '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width">'
    picture = f'<img style="width:700px" src="{_picture("background:teal")}" alt="A face">'
    body = f'<div class="bd-article"><div class="cell_output">{picture}</div></div>'
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "a.html").write_text(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>")
    shots = sheets.make_sheets(chromium, tmp_path / "site", tmp_path / "sheets")
    assert {shot.width: shot.problem for shot in shots} == {1400: "", 400: "wider than the window"}


def test_sheets_of_nothing_are_refused(chromium, tmp_path):
    with pytest.raises(ValueError, match="build the book first"):
        sheets.make_sheets(chromium, tmp_path / "nowhere", tmp_path / "sheets")
