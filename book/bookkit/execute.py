"""Run each chapter once, and again only when something it depends on has changed.

nbmake runs a copy of the chapter, so that outputs never touch the sources. A record of the run is stored beside the
executed copy, with a key: a hash over the chapter's code cells, the modules and data files of the package that they
reach (see `bookkit.dependencies`), the pinned environment and the settings that change results. `make book` and `make
test` use the same key and therefore share one execution. Text is not part of the key: editing prose, a comment or a
docstring rebuilds the page without running anything.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path

import nbformat
from filelock import FileLock

from bookkit.config import CONSTRAINTS, DOWNLOADS, EXECUTED, PACKAGE, ROOT, TIMEOUT_FACTOR, Chapter
from bookkit.dependencies import (
    Package,
    Unit,
    cell_digest,
    module_digest,
    parse_cells,
    shows_source,
    text_digest,
    watch_script,
    watched_files,
)
from bookkit.pairing import INSTALL_TAG

RECORD_VERSION = 3
# Settings that change what a chapter computes or shows.
RELEVANT_SETTINGS = ("TWODASL_2DASL", "TWODASL_DATA", "TWODASL_FACE_MODEL")
APART = ("course",)  # the coursework with its solved assignments, on which no chapter's outputs depend
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STARTUP_SECONDS = 60  # time to start pytest and a kernel on a slow disk


class ChapterError(Exception):
    """A chapter's cell failed or ran out of time; the message holds nbmake's report."""


@dataclass(frozen=True)
class Run:
    """The record of one execution.

    Attributes:
        file: Name of the notebook without its suffix.
        key: Hash over everything the result depends on.
        seconds: Time from the start of the first cell to the end of the last.
        cells: Number of code cells.
        finished: Local time at which the run ended, ISO format.
        cached: Whether the run was read from disk instead of executed now.
        machine: Machine of the run: processor and number of cores.
        unforeseen: Files of the package that the run opened although nothing in the code led to them, with digests.
    """

    file: str
    key: str
    seconds: float
    cells: int
    finished: str
    cached: bool = False
    machine: str = ""
    unforeseen: dict[str, str] = field(default_factory=dict)


def executed_path(chapter: Chapter) -> Path:
    """The executed copy of a chapter."""
    return EXECUTED / f"{chapter.file}.ipynb"


def record_path(chapter: Chapter) -> Path:
    """The record beside the executed copy."""
    return EXECUTED / f"{chapter.file}.json"


@cache
def _package() -> Package:
    """The package, read once per process."""
    return Package(PACKAGE, APART)


@cache
def _environment_digest() -> str:
    """Hash over everything that all chapters share: pins, Python, settings."""
    digest = hashlib.sha256()
    if CONSTRAINTS.exists():
        digest.update(CONSTRAINTS.read_bytes())
    digest.update(f"python {sys.version_info[:2]}\0".encode())
    for name in RELEVANT_SETTINGS:
        digest.update(f"{name}={_describe_setting(os.environ.get(name))}\0".encode())
    return digest.hexdigest()


@cache
def _file_digest(path: Path, letter_by_letter: bool = True) -> str:
    """Hash over a file of the package; on request, for code, only over its behaviour."""
    if path.suffix == ".py" and not letter_by_letter:
        return module_digest(path.read_text(encoding="utf-8"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _describe_setting(value: str | None) -> str:
    """The value of a setting, with size and time of the file that it names."""
    if not value:
        return ""
    path = Path(value)
    if path.is_file():
        stat = path.stat()
        return f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return f"{path.resolve()} {path.exists()}"


def execution_key(chapter: Chapter) -> str:
    """Hash over everything the chapter's outputs depend on."""
    notebook = nbformat.read(chapter.path, as_version=4)
    cells = [
        (cell.source, sorted(cell.metadata.get("tags", []))) for cell in notebook.cells if cell.cell_type == "code"
    ]
    # The cell that installs the package does nothing if the package is installed; only its presence counts.
    code = parse_cells(source for source, tags in cells if INSTALL_TAG not in tags)
    traceback = any("raises-exception" in tags for _, tags in cells)
    exact = traceback or shows_source(code)
    digests = [
        [tags if INSTALL_TAG in tags else text_digest(source) if exact else cell_digest(source), tags]
        for source, tags in cells
    ]
    files = {path.relative_to(ROOT).as_posix(): digest for path, digest in _reached_files(code, exact).items()}
    text = json.dumps([RECORD_VERSION, _environment_digest(), digests, sorted(files.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def _code_cells(chapter: Chapter) -> list[tuple[str, list[str]]]:
    """Source and tags of a chapter's code cells."""
    cells = nbformat.read(chapter.path, as_version=4).cells
    return [(cell.source, sorted(cell.metadata.get("tags", []))) for cell in cells if cell.cell_type == "code"]


def _reached_files(code: Unit, exact: bool) -> dict[Path, str]:
    """The files of the package that a chapter's cells reach, with their digests."""
    package = _package()
    modules = package.reached(code)
    found = {path: _file_digest(path) for path in package.data_of(code, modules)}
    for module in modules:
        path = package.modules[module]
        found[path] = _file_digest(path, exact or shows_source(package.unit(module)))
    return found


def _unforeseen(chapter: Chapter, log: Path) -> dict[str, str]:
    """The files of the package that a run opened and that its key does not cover, with their digests."""
    code = parse_cells(source for source, tags in _code_cells(chapter) if INSTALL_TAG not in tags)
    opened = watched_files(log, PACKAGE) - set(_reached_files(code, exact=False))
    return {path.relative_to(ROOT).as_posix(): _file_digest(path, path.suffix != ".py") for path in sorted(opened)}


def _still_so(unforeseen: dict[str, str]) -> bool:
    """Whether the unforeseen files of a run are unchanged."""
    for name, digest in unforeseen.items():
        path = ROOT / name
        if not path.is_file() or _file_digest(path, path.suffix != ".py") != digest:
            return False
    return True


@cache
def describe_machine() -> str:
    """Processor and number of cores, such as ``Intel Xeon, 2 cores``."""
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)[1]
    except (OSError, TypeError):
        pass  # not Linux, or a processor without a name
    name = re.sub(r"\((?:R|TM)\)|\bCPU\b|@.*", "", name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{' '.join(name.split())}, {cores} core{'s' if cores > 1 else ''}"


def read_run(chapter: Chapter) -> Run | None:
    """The record of the last successful run, whether or not it is still current."""
    try:
        return Run(**json.loads(record_path(chapter).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def current_run(chapter: Chapter) -> Run | None:
    """The last successful run if nothing has changed since, otherwise ``None``."""
    run = read_run(chapter)
    if run is None or not executed_path(chapter).exists() or run.key != execution_key(chapter):
        return None
    if not _still_so(run.unforeseen):
        return None
    return Run(**{**asdict(run), "cached": True})


def execute(chapter: Chapter) -> Run:
    """Run a chapter under nbmake unless its last run is still valid.

    Args:
        chapter: The chapter to run.

    Returns:
        The record of the run; its ``cached`` says whether anything was executed.

    Raises:
        ChapterError: If a cell failed or timed out. The message shows the cell and its traceback.
    """
    EXECUTED.mkdir(parents=True, exist_ok=True)
    with FileLock(EXECUTED / ".lock"):
        run = current_run(chapter)
        if run is not None:
            return run
        record_path(chapter).unlink(missing_ok=True)
        executed_path(chapter).unlink(missing_ok=True)
        key = execution_key(chapter)
        # Outside the repository: nbmake skips folders named _build, and a chapter must not depend on its
        # location.
        with tempfile.TemporaryDirectory(prefix="chapter-", ignore_cleanup_errors=True) as folder:
            copy = Path(folder) / f"{chapter.file}.ipynb"
            shutil.copyfile(chapter.path, copy)
            started = time.monotonic()
            _run_nbmake(copy, chapter)
            elapsed = time.monotonic() - started
            notebook = nbformat.read(copy, as_version=4)
            unforeseen = _unforeseen(chapter, _log_of(copy))
            if (copy.parent / DOWNLOADS).is_dir():
                shutil.copytree(copy.parent / DOWNLOADS, EXECUTED / DOWNLOADS, dirs_exist_ok=True)
            shutil.copyfile(copy, executed_path(chapter))
        code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        run = Run(
            file=chapter.file,
            key=key,
            seconds=round(_cell_seconds(code_cells) or elapsed, 2),
            cells=len(code_cells),
            finished=datetime.now().astimezone().isoformat(timespec="seconds"),
            machine=describe_machine(),
            unforeseen=unforeseen,
        )
        # The record is written last: without it the copy does not count.
        partial = record_path(chapter).with_suffix(".json.part")
        partial.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, record_path(chapter))
        return run


def _log_of(copy: Path) -> Path:
    """File in which a chapter's kernel records the files of the package that it opens."""
    return copy.with_suffix(".opened")


def _run_nbmake(copy: Path, chapter: Chapter) -> None:
    """Execute a notebook in place by ``pytest --nbmake --overwrite``."""
    limit = int(chapter.budget * TIMEOUT_FACTOR)
    command = [sys.executable, "-m", "pytest", "--nbmake", "--overwrite", f"--nbmake-timeout={limit}"]
    # The notebook must neither depend on the repository's pytest settings nor leave a cache in the build.
    command += ["-q", "--no-header", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(copy.parent)]
    command.append(str(copy))
    startup = copy.parent / ".ipython" / "profile_default" / "startup" / "00-watch.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(watch_script(PACKAGE, _log_of(copy)), encoding="utf-8")
    environment = {
        **os.environ,
        "PLOTLY_RENDERER": "plotly_mimetype",
        "TWODASL_FIGURES": "static",  # the face explorer as shown in a page without a kernel
        # The package of this checkout, whatever else is installed.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "PYTHONHASHSEED": "0",
        # The reader's own IPython start-up files and Jupyter settings must not change the book.
        "IPYTHONDIR": str(copy.parent / ".ipython"),
        "JUPYTER_CONFIG_DIR": str(copy.parent / ".jupyter"),
    }
    environment.pop("MPLBACKEND", None)
    environment.pop("PYTEST_ADDOPTS", None)
    process = subprocess.Popen(
        command,
        cwd=copy.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=os.name == "posix",  # so that a kernel can be stopped with its parent
    )
    try:
        output, _ = process.communicate(timeout=limit + STARTUP_SECONDS)
    except subprocess.TimeoutExpired:
        _stop(process)
        output, _ = process.communicate()
        raise ChapterError(
            f"{chapter.file}: stopped after {limit + STARTUP_SECONDS} s; its budget is {chapter.budget:g} s "
            f"(book/chapters.toml), and {TIMEOUT_FACTOR} times that is the limit\n{output}"
        ) from None
    except BaseException:
        _stop(process)
        raise
    if process.returncode != 0:
        raise ChapterError(f"{chapter.file}: a cell failed\n{ANSI_COLOUR.sub('', output)}")


def _stop(process: subprocess.Popen) -> None:
    """End a process and the kernels that it started."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    else:
        process.kill()


def _cell_seconds(code_cells: list) -> float | None:
    """Time between the start of the first and the end of the last cell, as the kernel client recorded it."""
    stamps = []
    for cell in code_cells:
        for stamp in cell.metadata.get("execution", {}).values():
            stamps.append(datetime.fromisoformat(str(stamp).replace("Z", "+00:00")))
    return (max(stamps) - min(stamps)).total_seconds() if stamps else None


def execute_all(chapters: Iterable[Chapter]) -> list[Run]:
    """Run several chapters, report each, and print the table of times.

    Raises:
        ChapterError: If at least one chapter failed; the others are run all the same.
    """
    runs, failures = [], []
    for chapter in chapters:
        print(f"chapter {chapter.number:2d}  {chapter.file} … ", end="", flush=True)
        try:
            run = execute(chapter)
        except ChapterError as error:
            print("FAILED", flush=True)
            failures.append(str(error))
            continue
        note = "unchanged, taken from the last run" if run.cached else f"executed in {run.seconds:.1f} s"
        print(note, flush=True)
        runs.append(run)
    if failures:
        raise ChapterError("\n\n".join(failures))
    return runs


def times_table(chapters: Iterable[Chapter]) -> str:
    """The measured seconds of each chapter against its budget, as plain text."""
    lines = [f"{'chapter':<36} {'seconds':>8} {'budget':>7}"]
    total = 0.0
    for chapter in chapters:
        run = read_run(chapter)
        if run is None:
            lines.append(f"{chapter.file:<36} {'not run':>8} {chapter.budget:7.0f}")
            continue
        total += run.seconds
        over = "  over its budget" if run.seconds > chapter.budget else ""
        lines.append(f"{chapter.file:<36} {run.seconds:8.1f} {chapter.budget:7.0f}{over}")
    lines.append(f"{'all':<36} {total:8.1f}")
    return "\n".join(lines)
