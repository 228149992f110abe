"""The picture of the package is derived from its imports."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree

import pytest
from bookkit.architecture import (
    CITATION,
    architecture_page,
    architecture_svg,
    chapter_modules,
    circles,
    cited_chapters,
    docstring,
    drawn_arrows,
    floors,
    may_import,
    module_imports,
    rooms,
)
from bookkit.config import PACKAGE, road_map
from bookkit.dependencies import Package

DOORS, FLOORS = 13, 8
# Two modules of one room that import each other, the one above when it is called. No others, and these not for ever.
TOLERATED = [
    {"twodasl_lite.apps.face_search", "twodasl_lite.apps.reconstruction"},
    {"twodasl_lite.datasets.aflw", "twodasl_lite.datasets.aflw2000", "twodasl_lite.datasets.packed"},
]

IMPORTS = {"cli": {"train", "data"}, "train": {"data"}, "data": {"camera"}, "camera": set(), "x": {"y"}, "y": {"x"}}


def test_rooms_are_folders_and_modules_with_what_they_import(tmp_path):
    home = tmp_path / "pack"
    (home / "data").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "camera": "",
        "cli": "def f():\n    from pack.data import read",
        "data/__init__": "",
        "data/read": "from pack import camera\nfrom pack.data import write",
        "data/write": "",
    }.items():
        (home / f"{name}.py").write_text(text)
    assert rooms(Package(home)) == {"camera": set(), "cli": {"data"}, "data": {"camera"}}


def test_floors_circles_and_arrows():
    assert floors(IMPORTS) == {"cli": 4, "train": 3, "data": 2, "camera": 1, "x": 1, "y": 1}
    assert circles(IMPORTS) == [{"x", "y"}]
    assert ("cli", "data") not in drawn_arrows(IMPORTS), "it follows from cli, train, data"
    assert {("cli", "train"), ("train", "data"), ("data", "camera"), ("x", "y"), ("y", "x")} == set(
        drawn_arrows(IMPORTS)
    )


def test_the_picture_of_the_package_has_every_room_and_no_two_in_one_place():
    imports = rooms(Package(PACKAGE))
    assert {"geometry", "losses", "training", "viz"} <= imports.keys()
    text = architecture_svg(imports, "twodasl_lite").strip()
    root = ElementTree.fromstring(text)
    places = [(r.get("x"), r.get("y")) for r in root.iter("rect")]
    assert len(places) == len(set(places)) == len(imports)
    assert {a.get("href") for a in root.iter("a")} == {f"api/twodasl_lite.{room}.html" for room in imports}
    page = architecture_page(Package(PACKAGE))
    table, _, explained = page.partition("## From a chapter to the code")
    assert len(re.findall(r"^\| \d+ \| ", table, re.MULTILINE)) == len(imports)
    assert len(re.findall(r"^\| \d+ \| ", explained, re.MULTILINE)) == len(road_map())
    assert "[`geometry.camera`](api/twodasl_lite.geometry.camera.md)" in explained


# --- what must hold of the package ----------------------------------------------------------------


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(PACKAGE, ("assignments", "handouts"))


def holds_code(package: Package, folder: str) -> bool:
    """Whether there is a module in a folder; some hold settings alone."""
    inside = [path for module, path in package.modules.items() if module.startswith(f"{folder}.")]
    return any(path.name != "__init__.py" for path in inside)


def test_few_doors_few_floors_and_no_circle(package):
    imports = rooms(package)
    beside = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    assert beside <= imports.keys()
    assert len(imports) <= DOORS, sorted(imports)
    assert circles(imports) == []
    height = floors(imports)
    assert max(height.values()) <= FLOORS, height


def test_modules_import_in_no_circle(package):
    assert sorted(map(sorted, circles(module_imports(package)))) == sorted(map(sorted, TOLERATED))


def test_folders_import_what_their_first_lines_allow(package):
    """What is allowed has floors too: a room may import only what stands below it."""
    allowed = {
        module: may_import(docstring(package, module))
        for module, path in package.modules.items()
        if path.name == "__init__.py" and module != package.name and holds_code(package, module)
    }
    assert [module for module, names in allowed.items() if names is None] == []
    found = module_imports(package)
    for folder, names in allowed.items():
        inside = {module for module in found if f"{module}.".startswith(f"{folder}.")}
        for module in inside:
            for other in found[module] - inside - {package.name}:
                name = other.removeprefix(f"{package.name}.")
                fits = any(f"{name}.".startswith(f"{start}.") for start in names) or folder.startswith(f"{other}.")
                assert fits, (
                    f"{module} imports {name}; {folder} may import {', '.join(sorted(names)) or 'no other room'}"
                )
    top = {module.partition(".")[2]: names for module, names in allowed.items() if module.count(".") == 1}
    assert all(names <= top.keys() - {room} for room, names in top.items())
    assert circles(top) == []
    assert max(floors(top).values()) <= FLOORS


def test_a_folder_opens_with_what_it_holds_what_it_may_import_and_which_chapter_explains_it(package):
    for module, path in package.modules.items():
        if path.name != "__init__.py" or module == package.name or not holds_code(package, module):
            continue
        first, blank, rest = (docstring(package, module) + "\n\n").split("\n", 2)
        opening = " ".join(rest.partition("\n\n")[0].split())
        assert first.endswith("."), f"{module}: one line that says what lives here"
        assert blank == ""
        assert re.fullmatch(r"May import .+?\. (See chapters? [\d, andto]+\.|No chapter explains it: .+\.)", opening), (
            f"{module}: found {opening!r}"
        )


def test_docstrings_refer_to_chapters_in_one_form(package):
    numbers = {chapter.number for chapter in road_map()}
    mention = re.compile(
        r"\bchapters?\s+\d|\bthe\s+chapter\s+(\"|on\b)|Explained\s+in|Used\s+from\s+chapter", re.IGNORECASE
    )
    for module, path in package.modules.items():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            says = ast.get_docstring(node) or ""
            assert cited_chapters(says) <= numbers, f"{module}: no such chapter among {cited_chapters(says)}"
            rest = CITATION.sub("", says)
            assert not mention.search(rest), f"{module}: found {rest!r}; expected 'See chapter N.'"
    assert chapter_modules(package).keys() == numbers


def test_citations_and_permissions_are_read():
    assert cited_chapters("See chapter 3. See\nchapters 9 to 11 and 14.") == {3, 9, 10, 11, 14}
    assert cited_chapters("As chapter 3 shows.") == set()
    assert may_import("A room.\n\nMay import ``base`` and\n``geometry``. See chapter 1.") == {"base", "geometry"}
    assert may_import("A room.\n\nMay import no other room. No chapter explains it.") == set()
    assert may_import("A room.") is None


def test_circles_of_modules_are_found_and_packages_above_are_none(tmp_path):
    home = tmp_path / "pack"
    (home / "sub").mkdir(parents=True)
    for name, text in {
        "__init__": "",
        "sub/__init__": "from pack.sub.a import f",
        "sub/a": "from pack.sub import b\ndef f(): ...",
        "sub/b": "def g():\n    from pack.sub import c",
        "sub/c": "from pack.sub.b import g",
        "sub/d": "from pack.sub import f",
    }.items():
        (home / f"{name}.py").write_text(text)
    imports = module_imports(Package(home))
    assert imports["pack.sub.a"] == {"pack.sub.b"}
    assert imports["pack.sub.d"] == {"pack.sub"}
    assert circles(imports) == [{"pack.sub.b", "pack.sub.c"}]
