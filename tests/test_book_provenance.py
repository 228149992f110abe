"""Stored results say how they were made, and chapters say where they use them."""

from __future__ import annotations

import json

import nbformat
import pytest
from bookkit import pages, provenance
from bookkit.config import Chapter, written_chapters
from bookkit.provenance import ASSETS, badge, duration, opened_by, read_stored, stored_results, stored_table
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook


def names(source):
    return [path.relative_to(ASSETS).as_posix() for path in opened_by(source)]


@pytest.fixture
def assets(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ASSETS", tmp_path)
    return tmp_path


def test_facts_of_the_package_are_read_from_its_files():
    network = read_stored(ASSETS / "networks" / "lite-all.safetensors")
    log = read_stored(ASSETS / "results" / "lite-all.log.jsonl")
    start, *_, end = (ASSETS / "results" / "lite-all.log.jsonl").read_text().splitlines()
    assert log.commits == [json.loads(start)["commit"][:8]]
    assert log.seconds == json.loads(end)["seconds"]
    assert log.devices == network.devices == ["cpu, x86_64, 1 thread"]
    assert network.seconds == pytest.approx(log.seconds, abs=0.5)
    photos = read_stored(ASSETS / "results" / "photos_cpu.json")
    content = json.loads((ASSETS / "results" / "photos_cpu.json").read_text())
    assert photos.commits == [content["commit"][:8], content["shipped"]["commit"][:8]]
    assert photos.seconds == sum(run["seconds"] for runs in content["runs"].values() for run in runs)


def test_every_stored_result_is_listed_with_device_commit_and_time():
    listed = {stored.path for stored in stored_results()}
    assert listed == {p for p in ASSETS.rglob("*") if p.suffix in {".json", ".jsonl", ".safetensors"}}
    text = stored_table({})
    for stored in stored_results():
        device, commit, time = stored.facts()[:3]
        assert device
        assert commit.startswith("commit ")
        assert time
        assert f'id="{provenance.anchor(stored.path)}"' in text


def test_what_a_file_does_not_say_is_not_guessed(assets):
    (assets / "x.json").write_text('{"rows": [1, 2], "config": {"device": "cuda"}}')
    stored = read_stored(assets / "x.json")
    assert (stored.devices, stored.commits, stored.seconds) == ([], [], None)
    assert stored.facts() == ["device not recorded", "commit not recorded", "time not recorded"]
    (assets / "bad.json").write_text("{")
    with pytest.raises(ValueError, match=r"bad\.json: found a damaged file"):
        read_stored(assets / "bad.json")


def test_cells_that_open_stored_results_are_found():
    assert names('x = read(files("twodasl_lite") / "assets" / "detector_errors.json")') == ["detector_errors.json"]
    assert names('trained_log("all")') == ["results/lite-all.log.jsonl"]
    assert names("t.trained_regressor()") == ["networks/lite-own-photos.safetensors"]
    assert names('rows = ablation_table(size="cpu")["rows"]') == ["results/ablation_cpu.json"]
    several = names("[trained_regressor(name) for name in rows]")
    assert several == sorted(path.relative_to(ASSETS).as_posix() for path in ASSETS.glob("networks/*.safetensors"))
    assert names("trained_regressor") == names("%magic") == names('open("mine.json")') == []


def test_a_chapter_shows_the_badge_above_its_cell():
    cells = [
        new_markdown_cell("# T\n\n*Q?*\n\n**Time** 20 minutes,\nor so.\n\n## Next"),
        new_code_cell('trained_log("all")'),
    ]
    notebook = nbformat.from_dict(new_notebook(cells=cells))
    page = pages.chapter_page(notebook, notebook, Chapter(3, "03_t", "T", "", "P", 20))
    assert [cell.cell_type for cell in page.cells[:3]] == ["markdown", "markdown", "code"]
    assert "results/lite-all.log.jsonl" in page.cells[1].source
    assert "../book/stored_results.html#stored-results-lite-all-log-jsonl" in page.cells[1].source
    assert "**Time**" not in page.cells[0].source, "the page has one line of times, the measured one"
    assert page.cells[0].source.endswith("*Q?*\n\n## Next")
    assert page.cells[0].source.count("min to read") == 1


def test_chapters_of_the_book_use_stored_results_where_we_know_they_do():
    users = {}
    for chapter in written_chapters():
        cells = nbformat.read(chapter.path, as_version=4).cells
        found = {p.name for cell in cells if cell.cell_type == "code" for p in opened_by(cell.source)}
        users[chapter.number] = found
    assert {number for number, found in users.items() if found} == {5, 7, 8, *range(10, 18)}
    assert {"ablation_cpu.json", "lite-all.log.jsonl", "lite-all.safetensors"} <= users[14]


def test_durations_are_said_as_people_say_them():
    assert [duration(x) for x in (41.4, 292, 5357, 7200)] == ["41 s", "5 min", "89 min", "2.0 h"]


def test_badge_escapes_what_it_shows(assets):
    (assets / "a.json").write_text(json.dumps({"device": "<b>", "commit": "12345678ff", "seconds": 3}))
    text = badge([assets / "a.json"], "../")
    assert "&lt;b&gt;" in text
    assert "12345678<" in text
