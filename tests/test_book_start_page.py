"""The start page: its head, its strip, its road map."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import nbformat
import numpy as np
import pytest
from bookkit import config, start_page
from bookkit.config import Chapter, road_map, written_chapters
from bookkit.road_map import direct_needs, road_map_svg

# --- prerequisites --------------------------------------------------------------------------------


def chapters_named(text):
    """Numbers of the chapters that a text links to; "[10](…) to [13](…)" means four."""
    numbers = [int(n) for n in re.findall(r"\]\((\d\d)_\w+\.ipynb\)", text)]
    ranges = re.findall(r"\]\((\d\d)_\w+\.ipynb\)\s+to\s+\[\d+\]\((\d\d)_\w+\.ipynb\)", text)
    return set(numbers).union(*(range(int(a), int(b) + 1) for a, b in ranges))


@pytest.mark.parametrize("chapter", written_chapters(), ids=lambda chapter: chapter.file)
def test_needs_are_those_of_the_front_cell(chapter):
    front = nbformat.read(chapter.path, as_version=4).cells[0].source
    paragraph = front.partition("**You need**")[2].partition("\n\n")[0]
    assert set(chapter.needs) == chapters_named(paragraph)


def made(*needs):
    return [Chapter(i, f"{i:02d}", f"T{i}", "", "P", 20, tuple(n)) for i, n in enumerate(needs, start=1)]


def test_arrows_that_others_imply_are_left_out():
    assert direct_needs(made([], [1], [1, 2], [1, 2, 3], [2, 1])) == {1: [], 2: [1], 3: [2], 4: [3], 5: [2]}


def test_a_need_that_comes_later_is_refused(tmp_path, monkeypatch):
    (tmp_path / "chapters.toml").write_text(
        '[[parts]]\ntitle = "P"\n[[parts.chapters]]\nfile = "01_a"\ntitle = "A"\nsummary = ""\nneeds = [1]\n'
    )
    monkeypatch.setattr(config, "BOOK", tmp_path)
    with pytest.raises(ValueError, match=r"01_a: found needs = \[1\]"):
        config.road_map.__wrapped__()


# --- the road map ---------------------------------------------------------------------------------


def test_both_pictures_show_every_chapter_and_link_those_that_are_written():
    chapters = list(road_map())
    chapters[0] = dataclasses.replace(chapters[0], title="A <face> & more")
    links = {chapter.number: f"notebooks/{chapter.file}.html" for chapter in chapters[:-1]}
    root = ElementTree.fromstring(road_map_svg(chapters, links))
    arrows = sum(len(given) for given in direct_needs(chapters).values())
    assert [svg.get("class") for svg in root] == ["road-wide", "road-tall"]
    for svg in root:
        _, _, width, height = map(float, svg.get("viewBox").split())
        assert [a.get("href") for a in svg.iter("a")] == list(links.values())
        assert len([path for path in svg.iter("path") if "road-edge" in path.get("class")]) == arrows
        boxes = [[float(r.get(k)) for k in ("x", "y", "width", "height")] for r in svg.iter("rect")]
        assert len(boxes) == len(chapters)
        for x, y, w, h in boxes:
            assert 0 <= x <= width - w + 0.01
            assert 0 <= y <= height - h
        for i, (x, y, w, h) in enumerate(boxes):
            for x2, y2, _, _ in boxes[:i]:
                assert abs(x - x2) >= w or abs(y - y2) >= h, "two boxes overlap"


# --- head and strip -------------------------------------------------------------------------------


def test_the_head_moves_by_its_three_sliders_and_is_light():
    packed, still = start_page.make_head()
    assert packed.base64_size < 400_000
    assert (packed.header["numShape"], packed.header["numExpression"], packed.header["numAlbedo"]) == (1, 1, 0)
    mean, smiling = packed.decode([0.0], [0.0]), packed.decode([0.0], [1.0])
    corner = packed.header["landmarks"][48]
    assert 2 < np.linalg.norm(smiling - mean, axis=1)[corner] < 25, (
        "a smile moves the corner of the mouth by millimetres"
    )
    assert np.linalg.norm(packed.decode([2.0], [0.0]) - mean, axis=1).max() > 3
    assert still.shape == (start_page.STILL_PIXELS, start_page.STILL_PIXELS, 4)
    assert 0.3 < (still[..., 3] > 128).mean() < 0.8
    assert (still[-1, :, 3] > 128).any(), "the lower edge hides the end of the neck"


def test_the_strip_goes_from_photograph_to_turned_mesh():
    pytest.importorskip("skimage")
    strip = start_page.make_strip()
    assert list(strip) == [name for name, _, _ in start_page.STEPS]
    side = start_page.STRIP_PIXELS
    assert [picture.shape for picture in strip.values()] == [(side, side, 3)] * 3 + [(side, side, 4)]
    changed = {name: (strip[name] != strip["photo"]).any(axis=-1).mean() for name in ("landmarks", "mesh")}
    assert 0.005 < changed["landmarks"] < 0.1 < changed["mesh"] < 0.6
    assert 0.2 < (strip["turned"][..., 3] > 128).mean() < 0.8
    assert (strip["turned"][0, :, 3] == 0).all(), "the turned face stands free"


def test_the_first_screen_is_made_once_and_names_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(start_page, "STATIC", tmp_path)
    head = type("Packed", (), {"header": {"name": "</script>"}, "to_base64": lambda self: "AAAA"})()
    picture = np.zeros((8, 8, 4), np.uint8)
    calls = []
    monkeypatch.setattr(start_page, "make_head", lambda: calls.append(1) or (head, picture))
    monkeypatch.setattr(start_page, "make_strip", lambda: dict.fromkeys([n for n, _, _ in start_page.STEPS], picture))
    text = start_page.start_html(road_map()[0])
    assert text == start_page.start_html(road_map()[0])
    assert calls == [1]
    for name in re.findall(r'src="_static/start/([\w.]+)\?', text):
        assert (tmp_path / name).exists()
    assert 'href="notebooks/01_a_face_is_a_vector.html">Start<' in text
    assert text.count('type="range"') == 3
    assert "</script>" not in text.partition('class="start-header">')[2].partition("</script>")[0]
    assert "start-button" not in start_page.start_html(None)
