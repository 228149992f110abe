"""The picture of the package is derived from its imports."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

from bookkit.architecture import architecture_page, architecture_svg, circles, drawn_arrows, floors, rooms
from bookkit.config import PACKAGE
from bookkit.dependencies import Package

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
    assert {"camera", "losses", "training", "viz"} <= imports.keys()
    text = architecture_svg(imports, "twodasl_lite").strip()
    root = ElementTree.fromstring(text)
    places = [(r.get("x"), r.get("y")) for r in root.iter("rect")]
    assert len(places) == len(set(places)) == len(imports)
    assert {a.get("href") for a in root.iter("a")} == {f"api/twodasl_lite.{room}.html" for room in imports}
    page = architecture_page(Package(PACKAGE))
    assert len(re.findall(r"^\| \d+ \| ", page, re.MULTILINE)) == len(imports)
