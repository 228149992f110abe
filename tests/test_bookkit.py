"""The book's tools, on small notebooks made here."""

import dataclasses
import io
import json
import tarfile

import nbformat
import pytest
from bookkit import assets, execute, pages, pairing, student
from bookkit.config import Chapter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHAPTER = Chapter(number=3, file="03_test", title="Test", summary="…", part="The face", budget=2)


def code(source, *tags, outputs=()):
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {}, outputs=list(outputs))


def display(data):
    return new_output("display_data", data=data)


@pytest.fixture
def workshop(tmp_path, monkeypatch):
    """A place to execute chapters, away from the real book."""
    monkeypatch.setattr(execute, "EXECUTED", tmp_path / "executed")

    class Local(Chapter):
        @property
        def path(self):
            return tmp_path / f"{self.file}.ipynb"

    def make(cells, budget=20.0):
        chapter = Local(**{**dataclasses.asdict(CHAPTER), "budget": budget})
        nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": dict(pairing.KERNEL)}), chapter.path)
        return chapter

    return make


# --- executing ------------------------------------------------------------------------------------


@pytest.mark.book
def test_chapter_runs_once_until_its_code_changes(workshop):
    cells = [new_markdown_cell("# Test"), code("print(6 * 7)")]
    chapter = workshop(cells)
    first = execute.execute(chapter)
    assert not first.cached
    assert first.cells == 1
    assert 0 <= first.seconds < 60
    executed = nbformat.read(execute.executed_path(chapter), as_version=4)
    assert executed.cells[1].outputs[0].text == "42\n"
    assert nbformat.read(chapter.path, as_version=4).cells[1].outputs == [], "the source keeps no outputs"

    again = execute.execute(workshop([new_markdown_cell("# Another text"), *cells[1:]]))
    assert again.cached, "text is not part of the key"
    assert again.key == first.key
    assert not execute.execute(workshop([cells[0], code("print(6 * 8)")])).cached


@pytest.mark.book
def test_failing_cell_is_shown_and_leaves_no_record(workshop):
    chapter = workshop([code("x = 1"), code("raise RuntimeError('the nose is upside down')")])
    with pytest.raises(execute.ChapterError, match="the nose is upside down"):
        execute.execute(chapter)
    assert execute.read_run(chapter) is None
    assert not execute.executed_path(chapter).exists()


@pytest.mark.book
def test_endless_cell_is_stopped(workshop):
    chapter = workshop([code("import time\ntime.sleep(600)")], budget=0.6)
    with pytest.raises(execute.ChapterError, match=r"(?i)timeout|timed out|stopped"):
        execute.execute(chapter)


def test_key_depends_on_code_settings_and_package(workshop, monkeypatch):
    chapter = workshop([code("1")])
    key = execute.execution_key(chapter)
    assert execute.execution_key(chapter) == key
    assert execute.execution_key(workshop([code("2")])) != key
    assert execute.execution_key(workshop([code("1", "raises-exception")])) != key
    assert execute.execution_key(workshop([code("1  # one")])) == key
    chapter = workshop([code("1")])
    monkeypatch.setattr(execute, "_environment_digest", lambda: "another environment")
    assert execute.execution_key(chapter) != key


@pytest.fixture
def small_package(tmp_path, monkeypatch):
    """A package of three modules in place of the real one; returns how to change a file of it."""
    home = tmp_path / "pack"
    home.mkdir()

    def change(name, text):
        (home / name).write_text(text)
        for cached in (execute._package, execute._file_digest):
            cached.cache_clear()

    for name, text in {"__init__": "", "a": '"""A."""\nx = 1', "b": "y = 1", "late": "z = 1"}.items():
        change(f"{name}.py", text)
    monkeypatch.setattr(execute, "PACKAGE", home)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    yield change
    for cached in (execute._package, execute._file_digest):
        cached.cache_clear()


def test_key_depends_on_the_modules_that_the_chapter_reaches(workshop, small_package):
    chapter = workshop([code("from pack import a")])
    key = execute.execution_key(chapter)
    small_package("b.py", "y = 2")
    assert execute.execution_key(chapter) == key, "b is not imported"
    small_package("a.py", '"""Other words."""\nx = 1  # one')
    assert execute.execution_key(chapter) == key, "words do nothing"
    small_package("a.py", "x = 2")
    assert execute.execution_key(chapter) != key


def test_a_chapter_that_shows_documentation_depends_on_it(workshop, small_package):
    for cells in ([code("from pack import a\nhelp(a)")], [code("from pack import a"), code("1/0", "raises-exception")]):
        chapter = workshop(cells)
        small_package("a.py", "x = 1")
        key = execute.execution_key(chapter)
        small_package("a.py", "x = 1  # one")
        assert execute.execution_key(chapter) != key


@pytest.mark.book
def test_a_module_that_no_code_names_is_seen_when_it_is_opened(workshop, small_package):
    chapter = workshop(
        [code("name = 'pa' + 'ck.' + 'late'\nprint(__import__('sys').path and __builtins__.__import__(name))")]
    )
    first = execute.execute(chapter)
    assert list(first.unforeseen) == ["pack/__init__.py", "pack/late.py"]
    assert execute.execute(chapter).cached
    small_package("late.py", "z = 1  # words")
    assert execute.execute(chapter).cached
    small_package("late.py", "z = 2")
    assert execute.current_run(chapter) is None


def test_damaged_record_counts_as_not_run(workshop):
    chapter = workshop([code("1")])
    execute.EXECUTED.mkdir(parents=True)
    for text in ("", "{", '{"file": "03_test"}', "[]"):
        execute.record_path(chapter).write_text(text)
        assert execute.current_run(chapter) is None


# --- pages ----------------------------------------------------------------------------------------


def page_of(cells):
    executed = new_notebook(cells=cells)
    source = new_notebook(cells=[c if c.cell_type != "code" else {**c, "outputs": []} for c in cells])
    return pages.chapter_page(nbformat.from_dict(source), nbformat.from_dict(executed), CHAPTER)


FRONT = new_markdown_cell("# Test\n\nText.")


def test_plotly_becomes_a_div_with_its_data():
    figure = {"data": [{"type": "scatter", "y": [1, 2]}], "layout": {"height": 300, "title": {"text": "</script>"}}}
    page = page_of([FRONT, code("fig", outputs=[display({pages.PLOTLY_MIME: figure, "text/html": "other"})])])
    text = page.cells[1].outputs[0]["data"]["text/html"]
    assert 'class="book-plotly" id="plot-3-1"' in text
    payload = text.split('data-plotly-for="plot-3-1">')[1].removesuffix("</script>")
    assert "</" not in payload, "the data cannot end the script"
    assert json.loads(payload) == figure


def test_caption_becomes_the_alternative_text():
    image = display({"image/png": "aGk="})
    page = page_of(
        [FRONT, code("plot()", outputs=[image]), new_markdown_cell("**Figure 3.1.** A *face*, see [x](y.md).")]
    )
    assert page.cells[1].metadata["mystnb"]["image"]["alt"] == "Figure 3.1. A face, see x."
    assert "figure-caption" in page.cells[2].source


def test_text_below_a_caption_is_no_part_of_it():
    """Headings inside the caption's block would be missing from the page's contents."""
    text = "**Figure 3.1.** A face,\non two lines.\n\nMore.\n\n## Next"
    page = page_of([FRONT, code("plot()", outputs=[display({"image/png": "aGk="})]), new_markdown_cell(text)])
    block, rest = page.cells[2].source.split("\n::::\n\n")
    assert block == "(figure-3-1)=\n\n::::{div} figure-caption\n**Figure 3.1.** A face,\non two lines."
    assert rest == "More.\n\n## Next"
    assert page.cells[1].metadata["mystnb"]["image"]["alt"] == "Figure 3.1. A face, on two lines."


def test_solutions_are_folded():
    page = page_of(
        [FRONT, code("answer = 1", "solution"), new_markdown_cell("Because.", metadata={"tags": ["solution"]})]
    )
    assert "hide-cell" in page.cells[1].metadata["tags"]
    assert ":class: dropdown" in page.cells[2].source


def test_live_cells_show_no_output_and_say_so():
    page = page_of([FRONT, code("widget()", "live-only", outputs=[display({"text/plain": "Widget"})])])
    assert page.cells[1].outputs == []
    assert "make lab" in page.cells[2].source


def test_outputs_follow_their_cells_when_text_was_added():
    executed = new_notebook(cells=[FRONT, code("a", outputs=[display({"text/plain": "A"})])])
    source = new_notebook(cells=[FRONT, new_markdown_cell("new text"), code("a")])
    page = pages.chapter_page(source, executed, CHAPTER)
    assert page.cells[2].outputs[0]["data"]["text/plain"] == "A"


def test_laying_out_touches_only_what_changed(tmp_path):
    pages._synchronise({"a.md": b"1", "b/c.md": b"2"}, tmp_path)
    before = (tmp_path / "a.md").stat().st_mtime_ns
    pages._synchronise({"a.md": b"1"}, tmp_path)
    assert (tmp_path / "a.md").stat().st_mtime_ns == before
    assert not (tmp_path / "b" / "c.md").exists()


def test_api_pages_list_public_modules(tmp_path):
    package = tmp_path / "pack"
    package.mkdir()
    (package / "__init__.py").write_text('"""Top."""\n')
    (package / "camera.py").write_text('"""Lenses.\n\nMore."""\n')
    (package / "_private.py").write_text("")
    made = dict(pages.api_pages(package))
    assert set(made) == {"book/api/pack.md", "book/api/pack.camera.md", "book/api/index.md"}
    assert ":members:" in made["book/api/pack.md"]
    assert ":members:" in made["book/api/pack.camera.md"]
    assert "| [`pack.camera`](pack.camera.md) | Lenses. |" in made["book/api/index.md"]


def test_api_page_of_a_package_that_lends_names_says_where_they_live(tmp_path):
    """Described twice, a name would make every reference to it ambiguous."""
    package = tmp_path / "pack"
    package.mkdir()
    lazy = (
        "if TYPE_CHECKING:\n    from pack.camera import look as look\n    from twodasl_lite import losses as losses\n"
    )
    (package / "__init__.py").write_text(f'"""Top."""\n{lazy}def __getattr__(name): ...\n')
    page = dict(pages.api_pages(package))["book/api/pack.md"]
    assert ":members:" not in page
    assert "| `look` | {py:mod}`pack.camera` |" in page
    assert "| `losses` | {py:mod}`twodasl_lite.losses` |" in page


@pytest.mark.parametrize("again", [False, True])
def test_all_pages_are_written_when_the_side_bar_changes(tmp_path, monkeypatch, again):
    """Sphinx rewrites a page whose text has changed; the side bar is on all of them."""
    from bookkit import site

    commands = []
    done = type("Done", (), {"returncode": 0, "stderr": ""})()
    monkeypatch.setattr(site, "SOURCE", tmp_path)
    monkeypatch.setattr(site.subprocess, "run", lambda command, **_: commands.append(command) or done)
    for name in ("execute_all", "clean_pages", "times_table"):
        monkeypatch.setattr(site, name, lambda *_: "")
    monkeypatch.setattr(site.assets, "prepare", lambda: True)
    texts = iter(["1 One <a>", "1 One <a>" if again else "1 One <a>\n2 Two <b>"])
    contents = ":::{{toctree}}\n:hidden:\n\n{}\n:::\n"
    monkeypatch.setattr(site, "lay_out", lambda _: (tmp_path / "index.md").write_text(contents.format(next(texts))))
    site.build([CHAPTER])
    site.build([CHAPTER])
    assert ["-a" in command for command in commands] == [True, not again]


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "sizes"), [(3, [3, 17]), (0, [17]), (17, [17])])
def test_the_first_chapters_are_built_and_opened_before_the_rest(monkeypatch, capsys, first, sizes):
    from bookkit import __main__ as command
    from bookkit import site

    events = []
    monkeypatch.setattr(site, "build", lambda chapters, strict=False: events.append(len(chapters)))
    monkeypatch.setattr("webbrowser.open", lambda url: events.append(url.rpartition("/")[2]))
    assert command.main(["build", "--first", str(first), "--open"]) == 0
    assert events == [sizes[0], "index.html", *sizes[1:]], "it is opened once, as soon as there is something to read"
    assert "The book is ready" in capsys.readouterr().out


# --- student notebooks ----------------------------------------------------------------------------


def test_student_notebook_has_no_solution():
    solved = new_notebook(
        cells=[
            new_markdown_cell("### Exercise 3.1 · One"),
            code("def f(x):\n    ...", "exercise"),
            code("def f(x):\n    return 'secret'", "solution"),
            code("assert f(1)", "check"),
            new_markdown_cell("### Exercise 3.2 · Two"),
            code("g = 'secret'", "solution", outputs=[display({"text/plain": "secret"})]),
            new_markdown_cell("The secret.", metadata={"tags": ["solution"]}),
        ]
    )
    given = student.student_notebook(solved)
    assert "secret" not in json.dumps(given)
    assert [cell.source for cell in given.cells] == [
        "### Exercise 3.1 · One",
        "def f(x):\n    ...",
        "assert f(1)",
        "### Exercise 3.2 · Two",
        student.EMPTY_CODE,
        student.EMPTY_TEXT,
    ]
    assert "secret" in json.dumps(solved), "the solved notebook stays as it was"


# --- pairing --------------------------------------------------------------------------------------


def test_pairing_is_a_fixed_point():
    script = '# %% [markdown]\n# # Test\n\n# %% tags=["solution"]\nx = 1\n\n# %%\n# %time x\n'
    notebook = pairing.to_ipynb(script)
    assert pairing.to_ipynb(pairing.to_script(notebook)) == notebook
    assert pairing.to_script(pairing.to_ipynb(pairing.to_script(notebook))) == pairing.to_script(notebook)
    parsed = nbformat.reads(notebook, as_version=4)
    assert [cell.id for cell in parsed.cells] == [f"cell-{i:03d}" for i in range(len(parsed.cells))]
    assert parsed.cells[1].metadata["tags"] == ["install"]


def test_pairing_strips_outputs_and_counters():
    dirty = new_notebook(cells=[FRONT, code("1", outputs=[display({"text/plain": "1"})])])
    dirty.cells[1].execution_count = 7
    dirty.cells[1].metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00Z"}
    clean = pairing.normalise(dirty)
    assert clean.cells[-1].outputs == []
    assert clean.cells[-1].execution_count is None
    assert "execution" not in clean.cells[-1].metadata


# --- scripts of the pages -------------------------------------------------------------------------


def test_only_wanted_plain_files_are_unpacked(tmp_path):
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("package/dist/a.js", "package/LICENSE", "package/other.js", "package/../../evil.js"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"ok"))
        link = tarfile.TarInfo("package/dist/link.js")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    asset = assets.Asset("a", "1", "sha512-", "a", keep=("dist/",), strip="dist/")
    assets._unpack(archive, asset, tmp_path / "out")
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*"))
    assert found == ["LICENSE", "a.js"]


def test_wrong_digest_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(assets, "ASSETS", tmp_path)

    def fake_npm(arguments, folder):
        with tarfile.open(folder / "a-1.tgz", "w:gz"):
            pass
        return type("Done", (), {"returncode": 0, "stdout": "", "stderr": ""})()

    monkeypatch.setattr(assets, "_npm", fake_npm)
    with pytest.raises(ValueError, match="expected sha512-pinned"):
        assets._fetch(assets.Asset("a", "1", "sha512-pinned", "a", keep=("dist/",)))
    assert [p for p in tmp_path.iterdir() if p.name.startswith("a-")] == []


def test_without_a_network_the_pages_link_to_a_cdn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(assets, "ASSETS", tmp_path / "assets")
    monkeypatch.setattr(assets, "STATIC", tmp_path / "static")

    def no_npm(arguments, folder):
        raise FileNotFoundError("no npm")

    monkeypatch.setattr(assets, "_npm", no_npm)
    assert assets.prepare() is False
    assert "CDN" in capsys.readouterr().err
    settings = assets.sphinx_settings()
    assert settings["mathjax_path"].startswith("https://")
    assert any(path.startswith("https://") for path in settings["nb_ipywidgets_js"])
    assert (tmp_path / "static" / "vendor" / "plotly" / "plotly.min.js").exists(), "Plotly comes from its wheel"
