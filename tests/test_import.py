"""Cost and requirements of importing the package."""

from __future__ import annotations

import subprocess
import sys
import textwrap

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
from twodasl_lite.base.errors import MissingDependencyError
refused = []
for module in pkgutil.walk_packages(twodasl_lite.__path__, "twodasl_lite."):
    try:
        importlib.import_module(module.name)
    except MissingDependencyError as error:
        refused.append(module.name)
        assert "pip install" in str(error)
print(" ".join(refused))
"""
EXTRAS = ["matplotlib", "plotly", "ipywidgets", "anywidget", "IPython", "trimesh", "skimage", "scipy", "PIL", "tqdm"]
EXTRAS += ["h5py", "numba", "eos", "traitlets", "onnx", "onnxruntime", "onnxscript", "safetensors"]
EXTRAS += ["tensorboard", "webdataset", "nbgrader", "jupytext", "nbformat"]
# A widget is a subclass of its framework's, so this one module cannot be imported without; `viz` itself can.
WIDGETS = ["twodasl_lite.viz.explorer"]


def test_every_module_imports_without_the_extras() -> None:
    script = textwrap.dedent(CHECK).format(blocked=EXTRAS)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == WIDGETS


def test_importing_the_package_is_quick() -> None:
    script = "import sys, torch; before = set(sys.modules); import twodasl_lite; print(len(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(run.stdout) <= 2  # the package and nothing else: modules are imported when they are used


def test_a_name_is_imported_when_it_is_used_and_torch_with_it() -> None:
    script = """
    import sys, twodasl_lite as t
    assert "torch" not in sys.modules and len(dir(t)) > 20
    t.TwodaslError
    assert "twodasl_lite.faces" not in sys.modules
    t.load_face_model
    assert "torch" in sys.modules and not {"twodasl_lite.training", "twodasl_lite.apps"} & set(sys.modules)
    assert t.losses.__name__ == "twodasl_lite.losses"
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
