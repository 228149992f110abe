"""Tables become dataclasses: every kind of value, rejected input, and the error messages."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field
from typing import Literal

import pytest

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.base.settings import SettingsError, from_table, read_toml, to_table


@dataclass(frozen=True)
class Lamp:
    colour: Literal["warm", "cold"] = "warm"
    angle: float = 30.0
    span: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.angle > 180:
            raise ValueRangeError(f"angle: found {self.angle}; expected 180 or less")


@dataclass(frozen=True)
class Room:
    name: str = "room"
    count: int = 1
    lit: bool = False
    limit: float | None = None
    level: Literal[1, 2] = 1
    main: Lamp = Lamp()
    lamps: tuple[Lamp, ...] = field(default_factory=tuple)


def problems(values: dict) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        from_table(Room, values)
    return list(caught.value.problems)


def test_every_kind_of_value_is_read():
    values = {
        "name": "hall",
        "count": 3,
        "lit": True,
        "limit": 2,
        "level": 2,
        "main": {"colour": "cold", "angle": 45, "span": [1, 2.5]},
        "lamps": [{}, {"angle": 1.5}],
    }
    room = from_table(Room, values)
    assert room == Room("hall", 3, True, 2.0, 2, Lamp("cold", 45.0, (1.0, 2.5)), (Lamp(), Lamp(angle=1.5)))
    assert isinstance(room.main.angle, float)
    assert isinstance(room.limit, float)
    assert from_table(Room, to_table(room)) == room
    assert from_table(Room, {}) == Room()
    assert from_table(Room, {"main": Lamp(angle=7.0)}).main.angle == 7.0


def test_whole_numbers_may_be_written_as_powers_of_ten():
    count = from_table(Room, {"count": 1e4}).count
    assert count == 10000
    assert isinstance(count, int)
    assert math.isinf(from_table(Lamp, {"angle": -(10**400)}).angle)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": True}, "count: found True; expected a whole number"),
        ({"count": 1.5}, "count: found 1.5; expected a whole number"),
        ({"count": 1e300}, "count: found 1e+300; expected a whole number"),
        ({"count": "3"}, "count: found '3'; expected a whole number"),
        ({"count": None}, "count: found None; expected a whole number"),
        ({"lit": 1}, "lit: found 1; expected true or false"),
        ({"limit": False}, "limit: found False; expected a number"),
        ({"name": 3}, "name: found 3; expected a text in quotes"),
        ({"level": True}, "level: found True; expected 1 or 2"),
        ({"main": {"colour": "wram"}}, "main.colour: found 'wram', did you mean 'warm'?; expected 'warm' or 'cold'"),
        ({"main": 3}, "main: found 3; expected a table with colour, angle, span"),
        ({"main": {"span": [1]}}, "main.span: found [1], 1 long; expected 2 values"),
        ({"main": {"span": "ab"}}, "main.span: found 'ab'; expected a list"),
        ({"main": {"span": [1, "x"]}}, "main.span.1: found 'x'; expected a number"),
        ({"main": {"angle": 181}}, "main.angle: found 181.0; expected 180 or less"),
        ({"lamps": [{}, {"angel": 3}]}, "the unknown key lamps.1.angel, did you mean angle? (choices: colour, angle, "),
        ({"lamps": {"angle": 3}}, "lamps: found a table; expected a list"),
        ({7: 3}, "the unknown key 7 (choices: name, count, "),
    ],
)
def test_what_is_wrong_is_named(values, message):
    (problem,) = problems(values)
    assert problem.startswith(message)


def test_all_that_is_wrong_is_named_at_once():
    assert len(problems({"count": "x", "main": {"angle": 200, "span": 3}, "nmae": 1})) == 3
    error = pickle.loads(pickle.dumps(SettingsError(["a", "b"])))
    assert (str(error), error.problems) == ("a; b", ("a", "b"))


def test_a_dataclass_of_another_kind_of_value_is_a_mistake_of_ours():
    @dataclass(frozen=True)
    class Wrong:
        values: dict = field(default_factory=dict)

    with pytest.raises(TypeError, match="values: settings cannot be of type <class 'dict'>"):
        from_table(Wrong, {"values": {}})


def test_files(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("x = 1\n[y]\nz = 'ä'\n", encoding="utf-8")
    assert read_toml(path) == {"x": 1, "y": {"z": "ä"}}
    path.write_text("x = \n")
    with pytest.raises(FileFormatError, match=r"a\.toml: found no TOML \(.*expected a world"):
        read_toml(path, "a world")
