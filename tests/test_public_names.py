"""Public names and the names of their parameters, on which courses and other code rely, do not change.

``public_names.json`` lists them. New names may be added; a listed name may neither disappear nor change its parameters,
except for new ones with a default. After a deliberate change, with a line in ``CHANGELOG.md``, run
``python -m tests.test_public_names``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

PACKAGE = "twodasl_lite"
PROMISE = Path(__file__).parent / "public_names.json"
MODULES = (
    "twodasl_lite",
    "base.errors",
    "base.checks",
    "geometry.coefficients",
    "geometry.camera",
    "geometry.landmarks",
    "geometry.photos",
    "faces",
    "faces.build",
    "faces.decode",
    "render",
    "losses",
    "networks",
    "evaluation",
    "faces.fitting",
    "networks.prediction",
    "apps.export",
    "datasets.examples",
    "viz",
    "geometry.face_batch",
    "worlds.synthetic",
    "course.checks",
)


def load(module: str) -> ModuleType:
    return importlib.import_module(module if module == PACKAGE else f"{PACKAGE}.{module}")


def parameters(thing: object) -> list[str] | None:
    """Names of the parameters, those with a default marked by ``=``; ``None`` for what is not called."""
    if not callable(thing) or not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return None
    try:
        given = inspect.signature(thing).parameters.values()
    except ValueError:
        return None
    return [p.name + ("=" if p.default is not p.empty else "") for p in given]


def public_names(module: str) -> dict[str, list[str] | None]:
    """The public names of a module: its ``__all__``, else the functions and classes that it defines."""
    loaded = load(module)
    own = [n for n, value in vars(loaded).items() if getattr(value, "__module__", "") == loaded.__name__]
    names = getattr(loaded, "__all__", own)
    return {name: parameters(getattr(loaded, name)) for name in sorted(names) if not name.startswith("_")}


def promised() -> dict[str, dict[str, list[str] | None]]:
    return json.loads(PROMISE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", MODULES)
def test_promised_names_and_parameters_are_there(module: str) -> None:
    found = public_names(module)
    for name, wanted in promised()[module].items():
        assert name in found, f"twodasl_lite.{module}.{name} has vanished"
        if wanted is None:
            continue
        given = found[name]
        places = [
            min((given.index(p) for p in (old, old.rstrip("=") + "=") if p in given), default=-1) for old in wanted
        ]
        assert -1 not in places, f"{module}.{name}: found {given}; expected {wanted}"
        assert places == sorted(places), f"{module}.{name}: the parameters {wanted} are in another order"
        new = [p for k, p in enumerate(given) if k not in places]
        assert all(p.endswith("=") for p in new), f"{module}.{name}: {new} are new and have no default"


@pytest.mark.parametrize("module", MODULES)
def test_promised_names_are_documented_and_typed(module: str) -> None:
    loaded = load(module)
    for name in promised()[module]:
        thing = getattr(loaded, name)
        if not (inspect.isfunction(thing) or inspect.isclass(thing)):
            continue
        assert inspect.getdoc(thing), f"{module}.{name} has no docstring"
        if inspect.isfunction(thing):
            bare = [p.name for p in inspect.signature(thing).parameters.values() if p.annotation is p.empty]
            # `ax` and `value` of the drawing functions take whatever matplotlib and numpy take.
            assert module == "viz" or not bare, f"{module}.{name}: no types for {bare}"


def test_the_package_offers_what_is_promised_and_no_more() -> None:
    """A student can hold these names in the head: a new one needs a reason, and a line in the promise."""
    names = sorted(promised()[PACKAGE])
    assert dir(load(PACKAGE)) == sorted(load(PACKAGE).__all__) == names
    assert len(names) <= 26


def test_type_checkers_see_the_names_that_are_loaded_on_first_use() -> None:
    """The imports under TYPE_CHECKING and the table of homes say the same."""
    tree = ast.parse(Path(load(PACKAGE).__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    shown = {}
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: without `as` it is no public name for type checkers"
            module = node.module.removeprefix(PACKAGE).lstrip(".")
            shown[alias.name] = module or alias.name
    assert shown == load(PACKAGE)._HOMES


def test_the_examples_of_the_readme_use_public_names() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    used = {name for block in blocks for name in re.findall(r"\bt\.(\w+)", block)}
    assert len(blocks) >= 2
    assert {"load_face_model", "reconstruct"} <= used <= set(promised()[PACKAGE])
    assert not any("from twodasl_lite" in block for block in blocks)


def test_the_promise_names_every_module() -> None:
    assert set(promised()) == set(MODULES)


if __name__ == "__main__":
    content = {module: public_names(module) for module in MODULES}
    rows = []
    for module, names in content.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in names.items())
        rows.append(f"  {json.dumps(module)}: {{\n{lines}\n  }}")
    PROMISE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
