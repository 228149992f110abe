"""What a chapter depends on, found in small packages made here and in the real one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from bookkit.config import PACKAGE
from bookkit.dependencies import (
    Package,
    cell_digest,
    module_digest,
    parse_cells,
    shows_source,
    watch_script,
    watched_files,
)


def write(folder, **files):
    """A package ``pack``; ``sub__mod`` is the module sub/mod.py, and every folder gets an ``__init__``."""
    home = folder / "pack"
    for name, text in {"__init__": "", **files}.items():
        path = home / f"{name.replace('__', '/', 1) if not name.startswith('__') else name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for inside in [path for path in home.rglob("*") if path.is_dir()]:
        (inside / "__init__.py").touch()
    return home


def reached(home, *cells):
    package = Package(home)
    return {name.removeprefix("pack.") for name in package.reached(parse_cells(cells))} - {"pack"}


def data(home, *cells):
    package, code = Package(home), parse_cells(cells)
    return {path.name for path in package.data_of(code, package.reached(code))}


# --- modules --------------------------------------------------------------------------------------


def test_only_what_is_imported_counts_with_the_packages_above_it(tmp_path):
    home = write(tmp_path, camera="", render__mesh="from pack import camera", render__other="", losses="import torch")
    assert reached(home, "import pack.render.mesh") == {"render", "render.mesh", "camera"}
    assert reached(home, "import numpy as np\nx = 'camera'") == set()


@pytest.mark.parametrize(
    "text",
    [
        "def f():\n    from pack.camera import turn",
        "from . import camera",
        "from .camera import turn as t",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pack.camera",
        "import importlib\nlens = importlib.import_module('pack.camera')",
        "COMMANDS = [('turn', 'pack.camera')]",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'pack.camera'])",
        "PROGRAM = 'import pack.camera; print(1)'",
    ],
)
def test_imports_are_found_wherever_they_stand(tmp_path, text):
    home = write(tmp_path, camera="", world=text, far="")
    assert reached(home, "from pack import world") == {"world", "camera"}


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\ndef get(n):\n    return importlib.import_module('pack.' + n)",
        "def get(n):\n    return __import__(f'pack.{n}')",
        "import importlib\nx = importlib.import_module('.camera', 'pack')",
    ],
)
def test_an_import_put_together_when_it_runs_brings_all(tmp_path, text):
    home = write(tmp_path, camera="", world=text, far="")
    assert reached(home, "from pack import world") == {"world", "camera", "far"}


LAZY = """
import importlib
_HOMES = {"draw": "figures", "Explorer": "explorer"}
def __getattr__(name):
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
"""


@pytest.mark.parametrize(
    ("cell", "modules"),
    [
        ("from pack.viz import draw", {"viz", "viz.figures"}),
        ("from pack import viz\nviz.draw()", {"viz", "viz.figures"}),
        ("from pack import viz as v\nv.draw(v.Explorer)", {"viz", "viz.figures", "viz.explorer"}),
        ("from pack import viz\nshow(viz)", {"viz", "viz.figures", "viz.explorer"}),
        ("from pack.viz import *", {"viz", "viz.figures", "viz.explorer"}),
        ("from pack.viz import palette", {"viz", "viz.palette"}),
        ("from pack import viz", {"viz"}),
    ],
)
def test_names_loaded_on_first_use_count_when_they_are_used(tmp_path, cell, modules):
    home = write(tmp_path, viz__figures="", viz__explorer="", viz__palette="")
    (home / "viz" / "__init__.py").write_text(LAZY)
    assert reached(home, cell) == modules


def test_a_top_package_that_loads_names_on_first_use(tmp_path):
    home = write(tmp_path, figures="", explorer="import pack.figures")
    (home / "__init__.py").write_text(LAZY)
    assert reached(home, "import pack as p\np.draw()") == {"figures"}
    assert reached(home, "import pack as p\np.Explorer()") == {"figures", "explorer"}


def test_magics_do_not_hide_imports(tmp_path):
    home = write(tmp_path, camera="", world="", far="")
    assert reached(home, "%timeit 1\nimport pack.camera", "%time from pack import world") == {"camera", "world"}
    assert reached(home, "!python -m pack.far") == {"far"}
    assert shows_source(parse_cells(["pack.turn??"]))


# --- data -----------------------------------------------------------------------------------------


def test_data_counts_when_its_package_is_reached_and_it_is_named(tmp_path):
    home = write(tmp_path, a="", viz__draw="S = Path(__file__).parent / 'static'", worlds__read="", far__b="")
    for name in ("assets/noise.json", "assets/faces.json", "viz/static/x.js", "worlds/wild.toml", "far/c.toml"):
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("1")
    assert data(home, "import pack.a") == set()
    assert data(home, "import pack.viz.draw") == {"x.js"}
    assert data(home, "import pack.worlds.read") == {"wild.toml"}
    assert data(home, "import pack.a\np = files('pack') / 'assets' / 'noise.json'") == {"noise.json"}
    assert data(home, "import pack.a\np = files('pack') / 'assets/noise.json'") == {"noise.json"}
    assert data(home, "import pack.a\np = sorted((files('pack') / 'assets').glob('*'))") == {"noise.json", "faces.json"}
    assert data(home, "import pack.a\np = files('pack') / 'assets' / f'{kind}.json'") == {"noise.json", "faces.json"}


# --- digests --------------------------------------------------------------------------------------


def test_docstrings_and_comments_do_not_count():
    old = '"""Old."""\n\nLIMIT = 3\n"""Of what."""\n\ndef f(x):\n    """Doc."""\n    return x + 1  # one\n'
    new = "LIMIT = 3\n\n\n# new\ndef f(x):\n    return x + 1\n"
    assert module_digest(old) == module_digest(new)
    for change in (new.replace("1", "2"), new.replace("f(x)", "g(x)"), new.replace("3", "4")):
        assert module_digest(change) != module_digest(new)
    assert module_digest("def f():\n    '''Only.'''") == module_digest("def f():\n    pass")


def test_a_cell_counts_by_what_it_does_and_shows():
    assert cell_digest("f(a,\n  b)  # why") == cell_digest("f(a, b)")
    assert cell_digest("f(a);") != cell_digest("f(a)"), "a semicolon hides the value"
    assert cell_digest("'face'") != cell_digest("'mesh'"), "a string at the end of a cell is shown"
    assert cell_digest("%time f(a)") != cell_digest("%time f(b)")
    assert cell_digest('def f():\n    """A."""\n    return 1') == cell_digest("def f():\n    return 1")


@pytest.mark.parametrize("cell", ["help(f)", "print(f.__doc__)", "inspect.getsource(f)", "getsource(f)", "f?"])
def test_code_that_shows_source_is_recognised(cell):
    assert shows_source(parse_cells([cell]))
    assert not shows_source(parse_cells(["print(f(helper))"]))


# --- the watch ------------------------------------------------------------------------------------


def test_the_watch_sees_modules_and_data_that_no_code_names(tmp_path):
    home = write(tmp_path, camera="", far="")
    (home / "noise.json").write_text("{}")
    log = tmp_path / "opened"
    program = watch_script(home, log) + "\nimport pack.camera\nopen(pack.__path__[0] + '/noise.json').close()\n"
    for _ in range(2):  # from the source, then from its compiled form
        log.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
        assert watched_files(log, home) == {home / "__init__.py", home / "camera.py", home / "noise.json"}


def test_what_a_lazy_package_shows_to_type_checkers_is_no_import(tmp_path):
    lazy = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from pack.a import f as f
    from pack.b import g as g
_HOMES = {"f": "a", "g": "b"}
def __getattr__(name): ...
"""
    home = write(tmp_path, a="", b="", c="from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from pack import a")
    (home / "__init__.py").write_text(lazy)
    assert reached(home, "import pack as p\np.f()") == {"a"}
    assert reached(home, "from pack import g") == {"b"}
    assert reached(home, "import pack.c") == {"c", "a"}


# --- the real package -----------------------------------------------------------------------------


def test_commands_are_no_part_of_a_chapter_and_a_full_closure_is_smaller_than_the_package():
    package = Package(PACKAGE, ("course",))
    code = parse_cells(["from twodasl_lite.faces import load_face_model\nfrom twodasl_lite.viz import FaceExplorer"])
    modules = package.reached(code)
    assert {"twodasl_lite.faces.embedded.recipe", "twodasl_lite.viz.explorer_page"} <= modules
    assert not any(module.startswith("twodasl_lite.apps.commands") for module in modules)
    assert not {"twodasl_lite.training.loop", "twodasl_lite.training.ablation"} & modules
    short = package.reached(parse_cells(["import twodasl_lite as t\nmodel = t.load_face_model()"]))
    assert "twodasl_lite.faces.load" in short
    assert short < modules
    assert {"explorer.js", "face.js"} <= {path.name for path in package.data_of(code, modules)}


def test_the_closure_holds_every_module_that_an_import_really_loads():
    """Python itself, asked with each module of the package alone, loads nothing that was not foreseen."""
    package = Package(PACKAGE, ("course",))
    for module in ("twodasl_lite.training.loop", "twodasl_lite.apps.reconstruction", "twodasl_lite.datasets.stream"):
        program = f"import sys, {module}; print(*[m for m in sys.modules if m.startswith('twodasl_lite')])"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) <= package.reached(parse_cells([f"import {module}"]))
