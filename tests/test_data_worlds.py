"""Settings of worlds: the included ones, users' own files, and errors in them."""

from __future__ import annotations

import dataclasses

import pytest

from twodasl_lite.base.errors import FileFormatError, InputTypeError, ValueRangeError
from twodasl_lite.worlds.world import Lighting, Pose, World, load_world, world_names


def test_the_worlds_that_come_along():
    assert world_names() == ("labelled", "noisy", "snapshots", "wild")
    snapshots = load_world("snapshots")
    assert snapshots.labelled
    assert snapshots.box.shift_spread > load_world("wild").box.shift_spread
    labelled, wild = load_world("labelled"), load_world("wild")
    assert (labelled.name, wild.name) == ("labelled", "wild")
    assert labelled.labelled
    assert not wild.labelled
    assert labelled.pose.yaw_limit == 30
    assert wild.pose.yaw_limit == 90
    assert not any(dataclasses.astuple(labelled.occluders))
    assert load_world(wild) is wild


def write(tmp_path, text: str):
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_names_what_differs(tmp_path):
    world = load_world(write(tmp_path, 'name = "own"\n[pose]\nyaw_limit = 45\n[lighting]\nexposure = [0.5, 1]\n'))
    assert world == World(name="own", pose=Pose(yaw_limit=45.0), lighting=Lighting(exposure=(0.5, 1.0)))


def test_a_world_may_stand_on_another(tmp_path):
    wild, noisy = load_world("wild"), load_world("noisy")
    assert noisy.detector.error == 4.0 * wild.detector.error
    assert dataclasses.replace(noisy, name=wild.name, description=wild.description, detector=wild.detector) == wild
    own = load_world(write(tmp_path, 'base = "wild"\n[pose]\nyaw_limit = 45\n'))
    assert own == dataclasses.replace(wild, pose=dataclasses.replace(wild.pose, yaw_limit=45.0))
    for text in ('base = "wildd"', "base = 3"):
        with pytest.raises(FileFormatError, match=r"base = .*expected another of labelled, noisy, snapshots, wild"):
            load_world(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[pose]\nyaw_limt = 3\n",
            r"unknown key pose\.yaw_limt, did you mean yaw_limit\? \(choices: yaw_limit, yaw_spread",
        ),
        ("[weather]\nrain = 1\n", r"unknown key weather \(choices: name, description"),
        ("[pose]\nyaw_limit = 95\n", r"pose\.yaw_limit: found 95.*0 to 90"),
        ('[pose]\nyaw_limit = "wide"\n', r"pose\.yaw_limit: found 'wide'; expected a number"),
        ("pose = 3\n", "pose: found 3; expected a table with yaw_limit"),
        ("[lighting]\nexposure = [1.0, 0.5]\n", r"lighting\.exposure.*the smaller first"),
        ("[lighting]\nexposure = [1.0]\n", r"lighting\.exposure: found \[1\.0\], 1 long; expected 2 values"),
        ("[occluders]\nhat = 1.5\n", r"occluders\.hat: found 1.5; expected 0 to 1"),
        ("[degradation]\nquality = [0, 50]\n", r"degradation\.quality.*1 to 100"),
        ("[person]\nclip = nan\n", r"person\.clip"),
        ("supersample = 9\n", "supersample: found 9"),
        ("name = \n", "no TOML"),
    ],
)
def test_files_that_are_wrong(tmp_path, text, message):
    with pytest.raises(FileFormatError, match=message):
        load_world(write(tmp_path, text))


def test_names_that_are_wrong(tmp_path):
    with pytest.raises(ValueRangeError, match="'wilds'; expected one of labelled, noisy, snapshots, wild"):
        load_world("wilds")
    with pytest.raises(FileFormatError, match="no such file"):
        load_world(tmp_path / "missing.toml")
    with pytest.raises(InputTypeError, match="world: found int"):
        load_world(3)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FileFormatError, match="UTF-8"):
        load_world(tmp_path / "bytes.toml")
