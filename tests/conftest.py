"""Fixtures that the tests share: devices, small faces, and the optional real data."""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from twodasl_lite.faces import MorphableModel

DATA_VARIABLE = "TWODASL_DATA"
# cuBLAS adds up in the same order each time only if this is set before it is used; a test of exact resuming wants it.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

# Beside other processes one thread is faster than two, in this one and in those that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

BOOK_TOOLS = ("jupytext", "nbformat", "playwright", "yaml")


def _missing(names: tuple[str, ...]) -> list[str]:
    """Those of the packages that cannot be imported."""
    found = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            found.append(name)
    return found


_NOT_HERE = _missing(BOOK_TOOLS)
_TESTS = {path.name: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
_TOOL = re.compile(rf"^(?:import|from) (?:bookkit|{'|'.join(BOOK_TOOLS)})\b", re.MULTILINE)
BOOK_TESTS = sorted(name for name, text in _TESTS.items() if _TOOL.search(text))
"""These test the book and what surrounds the package; without the book's tools they cannot even be imported."""
PAGE_TESTS = {f"test_{name}.py" for name in ("book", "bookkit", "browser_check", "paper", "slides", "your_face")}
"""These use the folders in which the book is built."""
collect_ignore = list(BOOK_TESTS) if _NOT_HERE else []
# The book's tools need Python 3.11; the package, and the tests of it, run on 3.10.
if sys.version_info < (3, 11):  # noqa: UP036
    collect_ignore += [name for name, text in _TESTS.items() if {"bookkit", "tomllib"} & set(re.split(r"[\s.]+", text))]


def pytest_report_header() -> list[str]:
    """Say what is left out, so that a machine without the book's tools looks like one."""
    return [f"left out without {', '.join(_NOT_HERE)}: {', '.join(BOOK_TESTS)}"] if _NOT_HERE else []


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each file of tests to one process; files that use the book's built pages go to the same one, in turn."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name = Path(nodeid.split("::", 1)[0]).name
            return "book" if name in PAGE_TESTS else name

    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that a parameter sends to CUDA need it, whoever parametrised them."""
    for item in items:
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if any(isinstance(value, str | torch.device) and str(value).startswith("cuda") for value in given):
            item.add_marker(pytest.mark.gpu)
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device on this machine"))


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that is worth a run; CUDA is skipped where there is none."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data that TWODASL_DATA names; tests that want it skip without."""
    root = os.environ.get(DATA_VARIABLE)
    if not root:
        pytest.skip(f"{DATA_VARIABLE} is not set: point it at the folder of real test data to run this test")
    path = Path(root)
    if not path.is_dir():
        pytest.fail(f"{DATA_VARIABLE}={root} is no folder")
    return path


@pytest.fixture(scope="session")
def annotations(data_root: Path) -> dict[str, np.ndarray]:
    """Annotations of 400 AFLW2000-3D images."""
    with np.load(data_root / "aflw2000-3d" / "aflw2000_every_fifth.npz", allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


@pytest.fixture(scope="session")
def basel_landmarks(data_root: Path) -> dict[str, np.ndarray]:
    """The Basel Face Model at its 68 landmarks, and the published whitening."""
    with np.load(data_root / "aflw2000-3d" / "bfm_68_landmarks.npz", allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def make_model(
    *,
    num_vertices: int = 90,
    num_shape: int = 5,
    num_expression: int = 3,
    dtype: torch.dtype = torch.float64,
    albedo: bool = True,
    seed: int = 0,
) -> MorphableModel:
    """A small random model with every optional part; nothing about it is a face."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    corners = torch.arange(num_vertices)
    triangles = torch.stack([corners, corners.roll(-1), corners.roll(-2)], dim=1)
    colours = {}
    if albedo:
        colours = {
            "albedo_mean": torch.rand(num_vertices, 3, generator=generator, dtype=dtype),
            "albedo_basis": 0.1 * random(num_vertices, 3, 4),
            "albedo_std": torch.tensor([1.0, 0.5, 0.25, 2.0], dtype=dtype),
        }
    return MorphableModel(
        50 * random(num_vertices, 3),
        random(num_vertices, 3, num_shape),
        random(num_vertices, 3, num_expression),
        triangles,
        torch.arange(68) + 10,
        shape_std=torch.linspace(2, 1, num_shape, dtype=dtype),
        expression_std=torch.linspace(1, 0.5, num_expression, dtype=dtype),
        regions={"face": torch.arange(80), "last": torch.tensor([num_vertices - 1])},
        expression_names=[f"move {k}" for k in range(num_expression)],
        name="small",
        license="none",
        source="a test",
        **colours,
    )


@pytest.fixture
def small_model() -> MorphableModel:
    """See :func:`make_model`."""
    return make_model()


# ------------------------------------------------------------------------------------------------- what files share
@pytest.fixture(scope="session")
def browser_path() -> str:
    """The Chromium or Chrome that opens the pages; without one the test is skipped, or fails where one is required."""
    toolkit = pytest.importorskip("bookkit.browser", reason="the book's tools are not here")
    path = toolkit.find_browser() or toolkit.install_browser()
    if path is None:
        if os.environ.get("TWODASL_REQUIRE_BROWSER") == "1":
            pytest.fail("TWODASL_REQUIRE_BROWSER=1, and there is no Chromium or Chrome to open the pages with")
        pytest.skip("NO BROWSER FOUND AND NONE COULD BE INSTALLED: THE PAGES WERE NOT OPENED")
    return path


@pytest.fixture(scope="module")
def chromium(browser_path):
    """A headless browser without the outside world."""
    toolkit = importlib.import_module("bookkit.browser")
    with toolkit.open_browser(browser_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def benchmark_data():
    """AFLW2000-3D in small, made up; written as a clone of 2DASL or as the dataset's own folder."""
    from tests.benchmark_files import Benchmark

    return Benchmark()


@pytest.fixture
def clone(benchmark_data, tmp_path) -> Path:
    """A clone of 2DASL with the small test set."""
    return benchmark_data.write_clone(tmp_path / "2DASL")
