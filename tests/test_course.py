"""Coursework: checkers, the generated course, and the grades of right, blank, wrong and broken answers."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import torch
from bookkit.config import BOOK, NOTEBOOKS, settings

from twodasl_lite.apps import cli
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.course import build, checks
from twodasl_lite.course.report import NOT_GRADED, STOPPED, report, table
from twodasl_lite.geometry.camera import euler_to_matrix, project

ASSIGNMENTS = build.assignments()
NAMES = [assignment.name for assignment in ASSIGNMENTS]


# ------------------------------------------------------------------------------------------------------- checkers
FACES = torch.randn(4, 68, 2, generator=torch.Generator().manual_seed(0)) * 20 + 60
VALUES = torch.rand(7, generator=torch.Generator().manual_seed(1)) * 5 + 2
TURN = euler_to_matrix(torch.tensor([0.2, 0.5, -0.3]))


@pytest.mark.parametrize(
    ("found", "expected", "message"),
    [
        (VALUES**2, VALUES, "square root missing"),
        (VALUES**0.5, VALUES, "a square root too many"),
        (-VALUES, VALUES, "sign is the opposite"),
        (VALUES * 1000, VALUES, "millimetres and micrometres"),
        (VALUES * math.pi / 180, VALUES, "degrees and radians"),
        (VALUES * 3.7, VALUES, "same factor, 3.7"),
        (VALUES + 1.5, VALUES, "same amount, 1.5"),
        (VALUES * 0, VALUES, "all values are zero"),
        (VALUES + torch.arange(7), VALUES, "off by 6 mm at index 6"),
        (VALUES.mean(), VALUES, "a single number: over which axis"),
        (VALUES[:, None], VALUES, "an axis of length 1 too many"),
        (torch.full((7,), torch.nan), VALUES, "NaN or infinite"),
        (None, VALUES, "Does your function end with `return`"),
        (..., VALUES, "placeholder"),
        ("7", VALUES, "found str"),
        (TURN.T, TURN, "rows and columns are exchanged"),
        (TURN[None], TURN, "expected (3, 3)"),
    ],
)
def test_known_mistakes_are_named(found, expected, message) -> None:
    with pytest.raises(checks.CheckFailed, match=re.escape(message)):
        checks.close("answer", found, expected, unit="mm")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: torch.stack([p[..., 0], 119 - p[..., 1]], -1), "y runs the wrong way"),
        (lambda p: torch.stack([119 - p[..., 0], p[..., 1]], -1), "x runs the wrong way"),
        (lambda p: p.flip(-1), "x and y are exchanged"),
        (lambda p: p + torch.tensor([1.0, 0.0]), "shifted: x by +1"),
    ],
)
def test_mistakes_about_axes_are_named(change, message) -> None:
    with pytest.raises(checks.CheckFailed, match=re.escape(message)):
        checks.close("landmarks", change(FACES), FACES, points=True)


def test_right_answers_pass() -> None:
    checks.close("values", VALUES + 1e-4, VALUES)
    checks.close("values", VALUES.tolist(), VALUES)
    checks.close("values", VALUES.numpy(), VALUES)
    checks.close("nothing", torch.zeros(0, 3), torch.zeros(0, 3))
    assert checks.tensor("x", torch.ones(2, 3), (None, 3)).shape == (2, 3)


def test_messages_do_not_hold_the_answer() -> None:
    expected = torch.tensor([123.456, 789.012, 345.678])
    for found in (expected + torch.tensor([0.0, 5.0, 0.0]), expected * 2, expected**2, torch.zeros(2)):
        with pytest.raises(checks.CheckFailed) as caught:
            checks.close("answer", found, expected)
        assert not re.search(r"123\.4|789|345\.6", str(caught.value))


def a_face() -> torch.Tensor:
    """68 landmarks that look like one, in crop pixels."""
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(2)) * 60 + 30
    points[17:27, 1], points[48:60, 1] = 40, 90
    return points


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p * 450 / 120, "landmarks look like image pixels 1"),
        (lambda p: p / 60 - 1, "normalised coordinates"),
        (lambda p: p - 70, "millimetres of the model"),
        (lambda p: torch.stack([p[:, 0], 119 - p[:, 1]], -1), "upside down"),
        (lambda p: p[:18], "expected (..., 68, 2 or 3)"),
        (lambda p: p * torch.nan, "all are NaN"),
    ],
)
def test_units_of_landmarks_are_named(change, message) -> None:
    with pytest.raises(checks.CheckFailed, match=re.escape(message)) as caught:
        checks.crop_landmarks("landmarks", change(a_face()))
    if "image" in message:
        assert str(caught.value).endswith("expected crop pixels 0-120.")


def test_landmarks_of_a_crop_pass() -> None:
    points = a_face()
    points[3] = torch.nan
    assert checks.crop_landmarks("landmarks", points[None]).shape == (1, 68, 2)
    checks.crop_landmarks("landmarks", points[:18], count=18)


def test_units_of_angles_are_named() -> None:
    checks.angles("yaw", torch.tensor([3.0, -80.0]))
    checks.angles("yaw", torch.tensor([0.3, -1.2]), unit="radians")
    with pytest.raises(checks.CheckFailed, match="look like radians; expected degrees"):
        checks.angles("yaw", torch.tensor([0.3, -1.2]))
    with pytest.raises(checks.CheckFailed, match="look like degrees; expected radians"):
        checks.angles("yaw", torch.tensor([30.0, -80.0]), unit="radians")


def test_gradients_that_do_not_arrive_are_named() -> None:
    point = torch.tensor([0.0, 2.0])
    assert checks.gradient("f", lambda x: x.square(), point).tolist() == [0, 4]
    with pytest.raises(checks.CheckFailed, match="no gradient arrives"):
        checks.gradient("f", lambda x: torch.tensor(x.tolist()), point)
    with pytest.raises(checks.CheckFailed, match="NaN or infinite"):
        checks.gradient("f", lambda x: x.sqrt(), point)
    with pytest.raises(checks.CheckFailed, match="does not depend"):
        checks.gradient("f", lambda x: point.clone().requires_grad_(), point)


def test_calls_of_the_package_are_seen() -> None:
    points, pose = torch.zeros(2, 3), torch.zeros(3, 4)
    before = sys.getprofile()
    with checks.from_scratch():
        torch.linalg.cross(points, points)
        checks.tensor("x", points)
    with (
        pytest.raises(checks.CheckFailed, match=r"twodasl_lite\.geometry\.camera\.project was called"),
        checks.from_scratch(),
    ):
        project(points, pose)
    with checks.from_scratch("losses"):
        project(points, pose)
    with pytest.raises(ValueError, match="shape"), checks.from_scratch():
        project(points, pose[:2])  # what fails inside is what the reader sees
    assert sys.getprofile() is before


# --------------------------------------------------------------------------------------------------- one notebook
def script(body: str, title: str = "# # Assignment: a test") -> str:
    return f"# %% [markdown]\n{title}\n#\n# **Points** {{points}}\n\n" + textwrap.dedent(body)


SMALL = script(
    """
    # %% [markdown]
    # ### Task 1 · Twice

    # %% answer="twice"
    def twice(x):
        ### BEGIN SOLUTION
        return x + x
        ### END SOLUTION


    # %% test="twice" points=1
    assert twice(2) == 4

    # %% test="twice-hidden" points=2
    # Hidden tests: other numbers.
    ### BEGIN HIDDEN TESTS
    number = SECRET_SEED
    assert twice(number) == 2 * number
    ### END HIDDEN TESTS

    # %% [markdown] answer="why" points=3
    # ### BEGIN SOLUTION
    # Because twice is once and once again.
    #
    # **Rubric.** 3 points for any reason.
    # ### END SOLUTION
    """
)


def cells_of(text: str, seed: str = "s") -> dict[str, nbformat.NotebookNode]:
    notebook = build.source_notebook(build.read_assignment("small.py", text), seed)
    return {cell.metadata.get("nbgrader", {}).get("grade_id", cell.id): cell for cell in notebook.cells}


def test_marks_become_nbgrader_metadata() -> None:
    cells = cells_of(SMALL)
    assert {name for name in cells if "-" in name and not name.startswith("cell")} == {
        "locked-install",
        "answer-twice",
        "test-twice",
        "test-twice-hidden",
        "answer-why",
    }
    marks = cells["test-twice-hidden"].metadata.nbgrader
    assert (marks.grade, marks.solution, marks.locked, marks.points) == (True, False, True, 2)
    marks = cells["answer-why"].metadata.nbgrader
    assert (marks.grade, marks.solution, marks.locked, marks.points) == (True, True, False, 3)
    assert not cells["answer-twice"].metadata.nbgrader.grade
    assert "6 points: 3 graded by tests, 3 by a person" in cells["cell-000"].source
    assert cells["cell-001"].source == "### Task 1 · Twice (6 points)"


def test_hidden_tests_depend_on_the_secret() -> None:
    number = build.secret_number("s", "small", "test-twice-hidden")
    assert f"number = {number}" in cells_of(SMALL)["test-twice-hidden"].source
    others = {build.secret_number(seed, "small", "test-twice-hidden") for seed in ("s", "t", "u", "")}
    assert len(others) == 4
    assert build.secret_number("s", "small", "another") != number


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# # Assignment: a test", "# an essay", "no title"),
        ('# %% answer="twice"', "# %%", "without a mark"),
        ('answer="why" points=3', 'answer="why"', "a written answer without points"),
        ("    ### BEGIN SOLUTION\n    return", "    return", "an answer without its solution"),
        ('test="twice" points=1', 'test="twice"', "a test without points"),
        ("assert twice(2) == 4", "assert twice(SECRET_SEED)", "SECRET_SEED outside hidden tests"),
        ('test="twice-hidden"', 'test="twice"', "the name test-twice twice"),
    ],
)
def test_wrong_sources_are_refused(old, new, message) -> None:
    assert old in SMALL
    with pytest.raises(FileFormatError, match=re.escape(message)):
        cells_of(SMALL.replace(old, new))


def test_rubrics_go_to_the_graders() -> None:
    text = build.rubrics(build.read_assignment("small.py", SMALL))
    assert "## why (3 points)" in text
    assert text.rstrip().endswith("**Rubric.** 3 points for any reason.")
    assert (
        build.rubrics(build.read_assignment("small.py", SMALL.replace("[markdown] answer", "[markdown] other"))) == ""
    )


@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_each_assignment_is_well_formed(assignment) -> None:
    notebook = build.source_notebook(assignment, "s")
    marks = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    points = {mark.grade_id: mark.points for mark in marks if mark.grade}
    by_hand = sum(mark.points for mark in marks if mark.grade and mark.solution)
    hidden = [cell for cell in notebook.cells if build.BEGIN_HIDDEN in cell.source]
    assert sum(points.values()) == (30 if assignment.name.startswith("06") else 20)
    assert by_hand >= 3, "something for a person to read"
    assert len(hidden) >= 2
    front = notebook.cells[0].source
    for words in ("**You need**", "**You hand in**", "**Points**", "**Time**"):
        assert words in front
    assert build.rubrics(assignment).count("**Rubric.**") == sum(m.grade and m.solution for m in marks)
    for cell in notebook.cells:
        compile(cell.source, assignment.name, "exec") if cell.cell_type == "code" else None


# ----------------------------------------------------------------------------------------------------- the course
class Mistake(NamedTuple):
    """A wrong solution: what a student writes in place of what is right, and the tests that it fails."""

    name: str
    old: str
    new: str
    lost: tuple[str, ...]


MISTAKES: dict[str, tuple[Mistake, ...]] = {
    "01_a_face_is_a_vector": (
        Mistake(
            "numbers of landmarks taken for numbers of vertices",
            "faces[:, landmarks[[36, 45]]]",
            "faces[:, [36, 45]]",
            ("eye-distance", "eye-distance-hidden"),
        ),
        Mistake(
            "mm² divided by 10 to get cm²", "twice.sum() / 2 / 100", "twice.sum() / 2 / 10", ("area", "area-hidden")
        ),
        Mistake("missing square root", "squared.mean(dim=-1).sqrt()", "squared.mean(dim=-1)", ("rms", "rms-hidden")),
        Mistake(
            "the permutation the wrong way round",
            "torch.argsort(order)[triangles]",
            "order[triangles]",
            ("renumber", "renumber-hidden"),
        ),
    ),
    "02_the_camera_and_62_numbers": (
        Mistake(
            "degrees for radians",
            "(math.cos(math.radians(a)), math.sin(math.radians(a)))",
            "(math.cos(a), math.sin(a))",
            ("rotation", "rotation-hidden"),
        ),
        Mistake(
            "wrong y direction",
            "torch.stack([x - 1, CROP - y, z], dim=-1)",
            "torch.stack([x - 1, y - 1, z], dim=-1)",
            ("pixels", "pixels-hidden"),
        ),
        Mistake(
            "variance for standard deviation: missing square root",
            "vectors.std(dim=0)",
            "vectors.var(dim=0)",
            ("whiten", "whiten-hidden"),
        ),
        Mistake(
            "pixels as points, not squares",
            "CROP / (last - first + 1) * (points - first + 0.5) - 0.5",
            "CROP / (last - first) * (points - first)",
            ("crop", "crop-hidden"),
        ),
    ),
    "03_wpdc_from_scratch": (
        Mistake(
            "the unseen depth counts",
            "(keep * (predicted - target)).square()",
            "(predicted - target).square()",
            ("pdc-hidden",),
        ),
        Mistake(
            "missing square root",
            "difference.square().sum(dim=(1, 2)).sqrt()",
            "difference.square().sum(dim=(1, 2))",
            ("moved", "moved-hidden"),
        ),
        Mistake(
            "a gradient through the weights",
            "weights.detach() * (predicted",
            "weights * (predicted",
            ("wpdc-gradient",),
        ),
        Mistake(
            "every matrix taken for a scaled rotation",
            'turned = torch.einsum("bij,njk->bnik", M, A)',
            "turned = A * M[:, :1, :, None].norm(dim=2, keepdim=True)",
            ("closed-hidden",),
        ),
    ),
    "04_landmark_consistency_2d": (
        Mistake(
            "missing square root",
            ".clamp(min=0).prod(dim=-1).sqrt().clamp(min=SMALLEST)",
            ".clamp(min=0).prod(dim=-1).clamp(min=SMALLEST)",
            ("size", "size-hidden"),
        ),
        Mistake(
            "forgotten visibility mask",
            "difference = torch.where(visible[..., None], x1 - x",
            "difference = torch.where(torch.isfinite(x), x1 - x",
            ("loss-mask",),
        ),
        Mistake("x and y exchanged", "column, row = cell", "row, column = cell", ("map", "map-hidden")),
    ),
    "05_cycle_and_self_critic": (
        Mistake(
            "the second look sees the first map",
            "look(x1, torch.ones_like(visible))",
            "look(x, visible)",
            ("looks", "looks-hidden"),
        ),
        Mistake("depths not centred", "depth - depth.mean(dim=1, keepdim=True)", "depth", ("consistency-hidden",)),
        Mistake(
            "the wrong pair compared",
            "x2 - x, torch.zeros_like(x2)",
            "x1 - x, torch.zeros_like(x2)",
            ("cycle", "cycle-hidden"),
        ),
        Mistake(
            "a gradient into the regressor",
            "critic(coefficients.detach(), landmarks",
            "critic(coefficients, landmarks",
            ("step-hidden",),
        ),
    ),
    "06_mini_project": (
        Mistake(
            "one number for the whole batch",
            "return torch.log1p(50 * squared) + 0.01 * (keep * (predicted - target)).square().sum(dim=-1)",
            "return squared.mean()",
            ("loss", "loss-hidden"),
        ),
        Mistake(
            "a draw without replacement",
            "picks = torch.randint(0, len(errors), (resamples, len(errors)), generator=generator)",
            "picks = torch.stack([torch.randperm(len(errors), generator=generator) for _ in range(resamples)])",
            ("bootstrap", "bootstrap-hidden"),
        ),
        Mistake(
            "the seed is not passed on",
            "train(loss, seed) for seed in seeds",
            "train(loss, 0) for seed in seeds",
            ("ablation",),
        ),
    ),
}
SEED = "a secret of this test"
BROKEN = "broken"


@pytest.fixture(scope="module")
def course(tmp_path_factory) -> Path:
    """A course with all assignments, made as an instructor makes it, from another folder."""
    folder = tmp_path_factory.mktemp("teaching") / "faces"
    assert cli.main(["course", "new", str(folder), "--seed", SEED]) == 0
    return folder


def submit(course: Path, student: str, name: str, notebook: nbformat.NotebookNode | str) -> None:
    target = course / "submitted" / student / name / f"{name}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(notebook if isinstance(notebook, str) else nbformat.writes(notebook), encoding="utf-8")


def read(course: Path, stage: str, name: str) -> nbformat.NotebookNode:
    return nbformat.read(course / stage / name / f"{name}.ipynb", as_version=4)


def maximum(course: Path, name: str) -> dict[str, float]:
    """Points of each test."""
    cells = [cell.metadata.nbgrader for cell in read(course, "source", name).cells if "nbgrader" in cell.metadata]
    return {cell.grade_id: cell.points for cell in cells if cell.grade and not cell.solution}


@pytest.mark.book
def test_the_course_is_complete(course) -> None:
    for name in NAMES:
        assert (course / "release" / name / f"{name}.ipynb").is_file()
        assert (course / "rubrics" / f"{name}.md").is_file()
    assert build.read_settings(course)["seed"] == SEED
    assert (course / "course.json").stat().st_mode & 0o077 == 0 or os.name != "posix"
    assert f"timeout = {build.SECONDS_PER_CELL}" in (course / "nbgrader_config.py").read_text()
    assert all(name in (course / "README.md").read_text(encoding="utf-8") for name in NAMES)


@pytest.mark.book
@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_no_solution_is_released(course, assignment) -> None:
    released = "\n".join(cell.source for cell in read(course, "release", assignment.name).cells)
    files = [path for path in (course / "release" / assignment.name).rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".ipynb"]
    for mark in ("BEGIN", "END", "Rubric", build.SEED_WORD, SEED, "HIDDEN"):
        assert mark not in released
    outside, inside, secret = set(), False, []
    for cell in read(course, "source", assignment.name).cells:
        for line in map(str.strip, cell.source.splitlines()):
            if line.startswith(("### BEGIN", "### END")):
                inside = "BEGIN" in line
            elif inside:
                secret.append(line)
            else:
                outside.add(line)
    assert len(secret) > 40
    stubs = {'raise NotImplementedError("your answer is missing here")', "*Write your answer here.*"}
    strangers = {line.strip() for line in released.splitlines()} - outside - stubs
    assert strangers == set(), "a released line stands outside of solutions and hidden tests in the source"
    assert released.count("your answer is missing here") + released.count("Write your answer here.*") >= 5


@pytest.mark.book
@pytest.mark.parametrize("assignment", ASSIGNMENTS, ids=NAMES)
def test_grading(course, assignment) -> None:
    """Solved: all points. Blank: none. Wrong: exactly the points of the tests that each mistake is meant to fail."""
    name, mistakes = assignment.name, MISTAKES[assignment.name]
    solved = read(course, "source", name)
    submit(course, "solved", name, solved)
    submit(course, "blank", name, read(course, "release", name))
    wrong = read(course, "source", name)
    for mistake in mistakes:
        places = [cell for cell in wrong.cells if mistake.old in " ".join(cell.source.split())]
        places = places or [cell for cell in wrong.cells if mistake.old in cell.source]
        assert len(places) == 1, f"{mistake.name}: {len(places)} cells hold {mistake.old!r}"
        places[0].source = places[0].source.replace(mistake.old, mistake.new)
        assert mistake.new in places[0].source, mistake.name
    submit(course, "wrong", name, wrong)
    for student in ("solved", "blank", "wrong"):
        assert build.grade(course, name, student)
    rows = {row.student: row for row in report(course, name)}
    tests, meant = maximum(course, name), {f"test-{test}" for mistake in mistakes for test in mistake.lost}
    assert rows["solved"].failed == ()
    assert rows["solved"].remarks == ()
    assert rows["solved"].points == sum(tests.values())
    assert rows["solved"].waiting >= 1, "a person grades the rest"
    assert rows["blank"].points == 0
    assert rows["blank"].waiting == 0
    assert set(rows["wrong"].failed) == meant
    assert rows["wrong"].points == sum(points for test, points in tests.items() if test not in meant)


EVERY_SECRET = """
import os, sys
os.environ["MPLBACKEND"] = "agg"
from twodasl_lite.course import build
for assignment in build.assignments():
    names = {"__name__": "__main__"}
    for number in range(6):
        for cell in build.source_notebook(assignment, f"secret {number}").cells:
            if cell.cell_type == "code" and (number == 0 or build.BEGIN_HIDDEN in cell.source):
                where = f"{assignment.name}, {cell.metadata.get('nbgrader', {}).get('grade_id')}, secret {number}"
                try:
                    exec(compile(cell.source, where, "exec"), names)
                except Exception as error:
                    sys.exit(f"{where}: {error!r}")
"""


@pytest.mark.book
def test_right_answers_pass_whatever_the_secret() -> None:
    run = subprocess.run([sys.executable, "-c", EVERY_SECRET], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


LOOPING = "def twice(x):\n    while True:\n        pass\n"
STUBBORN = "while True:\n    try:\n        while True:\n            pass\n    except KeyboardInterrupt:\n        pass\n"


@pytest.mark.book
def test_submissions_that_break_are_stopped_and_reported(course, tmp_path, capsys) -> None:
    """Loops, killed kernels, damaged files, deleted tests: none stops the grading, and each is a row of the report."""
    own = tmp_path / f"{BROKEN}.py"
    own.write_text(SMALL, encoding="utf-8")
    assert cli.main(["course", "add", str(course), str(own)]) == 0
    config = course / "nbgrader_config.py"
    config.write_text(
        config.read_text()
        .replace(f"timeout = {build.SECONDS_PER_CELL}", "timeout = 3")
        .replace("iopub_timeout = 30", "iopub_timeout = 5")
    )

    def answer(text: str) -> nbformat.NotebookNode:
        notebook = read(course, "release", BROKEN)
        next(
            c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "answer-twice"
        ).source = text
        return notebook

    submit(course, "loops", BROKEN, answer(LOOPING))
    submit(course, "stubborn", BROKEN, answer(STUBBORN))
    submit(course, "kills", BROKEN, answer("import os\nos._exit(1)"))
    submit(course, "damaged", BROKEN, "{ this is no notebook")
    submit(course, "forgets", BROKEN, answer("import nothing_that_exists"))
    cheat = answer("def twice(x):\n    return 4")
    for cell in cheat.cells:
        if "test" in cell.metadata.get("nbgrader", {}).get("grade_id", ""):
            cell.source = "pass"
    submit(course, "cheats", BROKEN, cheat)
    short = answer("def twice(x):\n    return 2 * x")
    short.cells = [c for c in short.cells if "test" not in c.metadata.get("nbgrader", {}).get("grade_id", "")]
    submit(course, "deletes", BROKEN, short)

    done = {student: build.grade(course, BROKEN, student) for student in
            ("loops", "stubborn", "kills", "damaged", "forgets", "cheats", "deletes")}  # fmt: skip
    rows = {row.student: row for row in report(course, BROKEN)}
    assert rows["loops"].points == 0
    assert rows["loops"].remarks == (f"test-twice {STOPPED}", f"test-twice-hidden {STOPPED}")
    assert rows["stubborn"].points == 0
    assert any(STOPPED in remark or remark == NOT_GRADED for remark in rows["stubborn"].remarks)
    for student in ("kills", "damaged"):
        assert not done[student]
        assert rows[student].remarks == (NOT_GRADED,)
    assert rows["forgets"].points == 0
    assert rows["forgets"].remarks == ("answer-twice raised ModuleNotFoundError",)
    assert rows["cheats"].points == 1, "tests that were emptied are restored"
    assert rows["deletes"].points == 3, "tests that were deleted come back"
    capsys.readouterr()
    assert cli.main(["course", "report", str(course), "--assignment", BROKEN]) == 0
    shown = capsys.readouterr().out
    assert all(student in shown for student in rows)
    assert STOPPED in shown
    assert table(list(rows.values())) + "\n" == shown or len(shown.splitlines()) == 8


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TwodaslError, match="expected a new or an empty folder"):
        build.new_course(tmp_path)
    assert cli.main(["course", "new", str(tmp_path)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_what_else_goes_wrong_is_said(tmp_path) -> None:
    with pytest.raises(ValueRangeError, match="assignments: found '09'; expected the beginning of one of 01_"):
        build.new_course(tmp_path / "c", names=["09"])
    with pytest.raises(ValueRangeError, match="seed: found an empty one"):
        build.new_course(tmp_path / "c", seed=" ")
    assert not (tmp_path / "c").exists()
    with pytest.raises(FileFormatError, match=r"no course\.json"):
        build.add_assignment(tmp_path, tmp_path / "x.py")
    with pytest.raises(FileFormatError, match=r"no course\.json"):
        report(tmp_path)


def test_some_assignments_and_a_random_secret(tmp_path) -> None:
    secrets = set()
    for k in range(2):
        folder = build.new_course(tmp_path / str(k), names=["02"], release=False, install="here")
        secrets.add(build.read_settings(folder)["seed"])
        assert [path.name for path in (folder / "source").iterdir()] == [NAMES[1]]
        assert "packages = ['here', " in read(folder, "source", NAMES[1]).cells[1].source
    assert len(secrets) == 2


def test_list_names_every_assignment(capsys) -> None:
    assert cli.main(["course", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(assignment.name in shown and assignment.title in shown for assignment in ASSIGNMENTS)
    assert len(ASSIGNMENTS) == 6
    assert set(MISTAKES) == set(NAMES)
    assert all(len(mistakes) >= 3 for mistakes in MISTAKES.values())


def test_nbgrader_is_named_where_it_is_missing(tmp_path) -> None:
    code = (
        "import sys; sys.modules['nbgrader'] = None\n"
        f"from twodasl_lite.apps.cli import main; sys.exit(main(['course', 'new', {str(tmp_path / 'c')!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert 'pip install "twodasl_lite[course]"' in run.stderr
    assert not (tmp_path / "c").exists()


# ------------------------------------------------------------------------------------------------- around the course
def test_the_setup_notebook_is_that_of_the_course() -> None:
    text = build.notebook_text(build.handout("check_my_setup"))
    kept = NOTEBOOKS / "setup" / build.SETUP_NOTEBOOK
    assert kept.read_text(encoding="utf-8") == text, "write it anew: python -m twodasl_lite.course.build"


@pytest.mark.book
def test_the_setup_notebook_ends_in_a_face_and_a_tick(course) -> None:
    from nbclient import NotebookClient

    notebook = nbformat.read(course / build.SETUP_NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[-1].outputs
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("✓ everything works: you can begin" in output.get("text", "") for output in outputs)
    assert "✗" not in "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))


def test_sources_are_installed_with_the_package() -> None:
    patterns = settings()["tool"]["setuptools"]["package-data"].get("twodasl_lite.course", [])
    assert {"assignments/*.py", "handouts/*.py"} <= set(patterns)


def test_the_instructors_page_names_every_assignment_and_the_danger() -> None:
    page = (BOOK / "instructors.md").read_text(encoding="utf-8")
    for assignment in ASSIGNMENTS:
        assert assignment.name in page
    for mistake in (mistake for mistakes in MISTAKES.values() for mistake in mistakes):
        assert mistake.name in page, f"the page's list of misconceptions lacks {mistake.name!r}"
    assert "Autograding runs the students' code" in page
    for way in ("container", "user", "Binder", "Colab", "JupyterHub"):
        assert way in page
