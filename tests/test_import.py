"""What importing the package costs and needs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import textwrap

import twodasl_lite

# The installed third-party packages that torch, numpy and opencv bring along themselves may be imported; nothing else.
CHECK = """
import importlib, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in {blocked!r}:
            raise ImportError(f"{{name}} is blocked in this test")

sys.meta_path.insert(0, Blocker())
import twodasl_lite
for module in pkgutil.walk_packages(twodasl_lite.__path__, "twodasl_lite."):
    importlib.import_module(module.name)
print(len([m for m in sys.modules if m.startswith("twodasl_lite")]))
"""
EXTRAS = [
    "matplotlib",
    "plotly",
    "ipywidgets",
    "anywidget",
    "IPython",
    "trimesh",
    "skimage",
    "scipy",
    "PIL",
    "tqdm",
]


def test_every_module_imports_without_the_extras() -> None:
    script = textwrap.dedent(CHECK).format(blocked=EXTRAS)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    modules = list(pkgutil.walk_packages(twodasl_lite.__path__, "twodasl_lite."))
    assert int(run.stdout) == len(modules) + 1
