"""Provenance of the numbers that a chapter does not compute: results stored with the package.

A stored result is a file of ``twodasl_lite/assets``: the table of an ablation, the log of a run, a trained network, or
the errors of methods on photographs that may not be passed on. Each file records how it was made; this module reads the
record (device, machine, commit, seconds, date) and makes from it

* a badge above the cell of a chapter that opens the file, found from the cell's code, and
* the table on the page *Stored results*.

Facts that a file does not record are left out, never guessed; the commit that brought the file into the repository is
added if git is available.
"""

from __future__ import annotations

import ast
import html
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bookkit.config import PACKAGE, ROOT

ASSETS = PACKAGE / "assets"
# Calls that open a file of the assets: their argument, or its default, replaces the braces.
OPENERS = {
    "trained_regressor": ("networks/lite-{}.safetensors", "own-photos"),
    "model_card": ("networks/lite-{}.safetensors", "own-photos"),
    "trained_log": ("results/lite-{}.log.jsonl", "own-photos"),
    "ablation_table": ("results/ablation_{}.json", "cpu"),
}
INPUTS = {"astronaut_landmarks.csv"}  # recorded clicks are not a result
COMMIT_LETTERS = 8
DEEPEST = 4  # levels of a JSON file to read: its head, not its tables


@dataclass
class Stored:
    """The provenance that one stored file records.

    Attributes:
        path: Path of the file.
        devices: Devices that computed it, in the file's words.
        commits: Commits of this repository that computed it.
        seconds: Time of all runs together; ``None`` if the file does not record it.
        dates: Days on which it was measured.
        how: Command or method.
        data: Third-party files on which it was measured.
    """

    path: Path
    devices: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    seconds: float | None = None
    dates: list[str] = field(default_factory=list)
    how: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The file, relative to the assets."""
        return self.path.relative_to(ASSETS).as_posix()

    def facts(self) -> list[str]:
        """The known facts, in a few words each."""
        found = [" and ".join(self.devices) if self.devices else "device not recorded"]
        found.append(f"commit {', '.join(self.commits)}" if self.commits else f"commit {_brought_by(self.path)}")
        found.append(duration(self.seconds) if self.seconds is not None else "time not recorded")
        return [*found, *self.dates]


def duration(seconds: float) -> str:
    """Seconds in a readable unit: ``41 s``, ``5 min``, ``1.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@cache
def _brought_by(path: Path) -> str:
    """The commit that last changed a file."""
    command = ["git", "log", "-1", f"--abbrev={COMMIT_LETTERS}", "--format=%h", "--", str(path)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "not recorded"
    return f"{done.stdout.strip()} (brought the file)" if done.stdout.strip() else "not recorded"


# --- reading --------------------------------------------------------------------------------------


def stored_results() -> list[Stored]:
    """All stored results of the package."""
    paths = sorted(path for path in ASSETS.rglob("*") if path.suffix in {".json", ".jsonl", ".safetensors"})
    return [read_stored(path) for path in paths if path.name not in INPUTS]


@cache
def read_stored(path: Path) -> Stored:
    """Read the provenance that a file records.

    Raises:
        ValueError: If the file is damaged.
    """
    found = Stored(path)
    if path.suffix == ".safetensors":
        card = path.with_suffix(".md")
        _read_card(found, card.read_text(encoding="utf-8") if card.exists() else "")
    else:
        text = path.read_text(encoding="utf-8")
        try:
            parts = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else [json.loads(text)]
        except ValueError as error:
            raise ValueError(f"{path}: found a damaged file ({error}); expected JSON") from error
        if path.suffix == ".jsonl":
            parts = [row for row in parts if row.get("kind") in {"start", "end"}]
        seconds = [value for part in parts for value in _collect(found, part, 0)]
        found.seconds = sum(seconds) if seconds else None
    return found


def _collect(found: Stored, value: object, depth: int) -> Iterator[float]:
    """Collect the provenance in a part of a JSON file, and yield the seconds of its runs."""
    if depth > DEEPEST:
        return
    if isinstance(value, list) and value and isinstance(value[0], dict):
        for entry in value:
            yield from _collect(found, entry, depth + 1)
    if not isinstance(value, dict):
        return
    device = value.get("device")
    if isinstance(device, str):
        threads = value.get("threads")
        words = [
            device,
            str(value.get("machine", "")),
            f"{threads} thread{'s' if threads != 1 else ''}" if threads else "",
        ]
        _note(found.devices, ", ".join(word for word in words if word))
    for key, into in (
        ("commit", found.commits),
        ("date", found.dates),
        ("how", found.how),
        ("command", found.how),
        ("file", found.data),
    ):
        if isinstance(value.get(key), str) and value[key]:
            _note(into, value[key][:COMMIT_LETTERS] if key == "commit" else value[key])
    if isinstance(value.get("seconds"), int | float):
        yield float(value["seconds"])
    for key, inner in value.items():
        if key not in {"config", "tables", "errors"}:
            yield from _collect(found, inner, depth + 1)


def _read_card(found: Stored, card: str) -> None:
    """Read a network's model card, a table whose rows ``run`` and ``made on`` give the provenance in words."""
    rows = dict(re.findall(r"^\| ([\w ]+?) \| (.+?) \|$", card, re.MULTILINE))
    made = rows.get("made on", "")
    words = [found_word for name in ("device", "machine", "threads") if (found_word := _after(name, made))]
    if words:
        threads = f"{words[2]} thread{'s' if words[2] != '1' else ''}" if len(words) > 2 else ""
        _note(found.devices, ", ".join([*words[:2], *([threads] if threads else [])]))
    if time := re.search(r"([\d.,]+) s\b", made):
        found.seconds = float(time[1].replace(",", ""))
    if commit := re.search(r"commit ([0-9a-f]+)", rows.get("run", "")):
        _note(found.commits, commit[1][:COMMIT_LETTERS])
    if how := rows.get("run", "").partition(";")[0].replace("`", ""):
        _note(found.how, how)


def _after(name: str, text: str) -> str:
    match = re.search(rf"\b{name} ([\w.-]+)", text)
    return match[1] if match else ""


def _note(into: list[str], value: str) -> None:
    if value not in into:
        into.append(value)


# --- chapters -------------------------------------------------------------------------------------


def opened_by(source: str) -> list[Path]:
    """The stored results that a cell's code opens.

    Args:
        source: Code of a cell. A file name in a variable stands for all files that it may mean.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return []
    found: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith((".json", ".jsonl")):
            found += [path for path in ASSETS.rglob("*") if path.name == Path(node.value).name]
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in OPENERS:
                pattern, default = OPENERS[name]
                given = [*node.args[:1], *(word.value for word in node.keywords if word.arg in {"name", "size"})]
                constant = given[0].value if given and isinstance(given[0], ast.Constant) else default
                named = given and not isinstance(given[0], ast.Constant)
                pattern = pattern.format("*" if named else constant)
                found += sorted(ASSETS.glob(pattern))
    return list(dict.fromkeys(path for path in found if path.name not in INPUTS))


def badge(paths: Iterable[Path], root: str) -> str:
    """The badge of a cell that opens stored results, as Markdown.

    Args:
        paths: Paths of the files.
        root: Relative path from the page to the site's root, such as ``"../"``.
    """
    entries = []
    for path in paths:
        stored = read_stored(path)
        facts = "".join(f"<span>{html.escape(fact)}</span>" for fact in stored.facts())
        link = f"{root}book/stored_results.html#{anchor(path)}"
        entries.append(f'<a href="{link}">Stored result <code>{html.escape(stored.name)}</code></a>{facts}')
    return "\n".join(f'<p class="stored-badge">{entry}</p>' for entry in entries)


def anchor(path: Path) -> str:
    """The anchor of a file on the page of stored results."""
    return "stored-" + re.sub(r"[^a-z0-9]+", "-", path.relative_to(ASSETS).as_posix().lower()).strip("-")


def stored_table(users: dict[Path, list[str]]) -> str:
    """All stored results as Markdown.

    Args:
        users: Links to the chapters that open each file.
    """
    lines = []
    for stored in stored_results():
        how = "; ".join(stored.how)
        lines += [f'<h2 id="{anchor(stored.path)}"><code>{html.escape(stored.name)}</code></h2>', ""]
        lines.append(f"- **Made:** {', '.join(html.escape(fact) for fact in stored.facts())}")
        if how:
            lines.append(f"- **How:** {html.escape(how)}")
        if stored.data:
            lines.append(f"- **On:** {html.escape('; '.join(stored.data))}")
        lines += [f"- **Shown in:** {', '.join(users.get(stored.path, [])) or 'no chapter'}", ""]
    return "\n".join(lines)
