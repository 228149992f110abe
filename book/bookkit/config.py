"""Locations of all files, the book's settings, and the road map of chapters."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
NOTEBOOKS = ROOT / "notebooks"
SCRIPTS = NOTEBOOKS / "scripts"
PACKAGE = ROOT / "twodasl_lite"
CONSTRAINTS = ROOT / "constraints.txt"

BUILD = BOOK / "_build"
EXECUTED = BUILD / "executed"  # notebooks with outputs, each with a record of its run
SOURCE = BUILD / "source"  # what Sphinx reads
HTML = BUILD / "html"
PDF = BUILD / "pdf"  # the PDF edition and the hand-outs
SLIDES = BUILD / "slides"
SHEETS = BUILD / "sheets"  # pictures of all figures
STUDENT = ROOT / "student"
# Downloaded scripts survive `make clean`: they change only with their pins.
ASSETS = ROOT / ".cache" / "book-assets"

DOWNLOADS = "downloads"  # the folder into which a chapter writes files for the reader

# A chapter that takes this many times its budget is stopped: slow machines pass, endless loops do not.
TIMEOUT_FACTOR = 5
DEFAULT_BUDGET = 20


@dataclass(frozen=True)
class Chapter:
    """One line of the road map.

    Attributes:
        number: Position in the book, from 1.
        file: Name of the notebook without its suffix.
        title: The chapter's title, equal to the notebook's first heading.
        summary: One sentence for the road map.
        part: Title of the part it belongs to.
        budget: Seconds in which the notebook should run on 2 CPU cores.
        needs: Numbers of the chapters to read first.
    """

    number: int
    file: str
    title: str
    summary: str
    part: str
    budget: float
    needs: tuple[int, ...] = ()

    @property
    def path(self) -> Path:
        """The notebook in the repository."""
        return NOTEBOOKS / f"{self.file}.ipynb"

    @property
    def script(self) -> Path:
        """The paired py:percent script."""
        return SCRIPTS / f"{self.file}.py"

    @property
    def written(self) -> bool:
        """Whether the notebook exists; if not, the chapter is planned."""
        return self.path.exists()


@cache
def settings() -> dict:
    """The parsed ``pyproject.toml``."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def repository() -> tuple[str, str]:
    """Address and branch for launch buttons and source links; an empty address means no links."""
    configured = settings()["tool"]["twodasl"]
    url = os.environ.get("TWODASL_REPOSITORY", configured["repository"])
    branch = os.environ.get("TWODASL_BRANCH", configured["branch"])
    return url.removesuffix(".git").rstrip("/"), branch


@cache
def road_map() -> tuple[Chapter, ...]:
    """All chapters in order, including planned ones.

    Raises:
        ValueError: If a notebook in ``notebooks/`` is missing from ``book/chapters.toml``.
    """
    plan = tomllib.loads((BOOK / "chapters.toml").read_text(encoding="utf-8"))
    chapters = []
    for part in plan["parts"]:
        for entry in part["chapters"]:
            entry = {"budget": DEFAULT_BUDGET, **entry, "needs": tuple(entry.get("needs", ()))}
            chapters.append(Chapter(number=len(chapters) + 1, part=part["title"], **entry))
    unknown = {path.stem for path in NOTEBOOKS.glob("*.ipynb")} - {chapter.file for chapter in chapters}
    for chapter in chapters:
        if any(not 0 < number < chapter.number for number in chapter.needs):
            raise ValueError(
                f"book/chapters.toml, {chapter.file}: found needs = {list(chapter.needs)}; "
                f"expected numbers of earlier chapters, 1 to {chapter.number - 1}"
            )
    if unknown:
        raise ValueError(f"book/chapters.toml has no entry for notebooks/{', '.join(sorted(unknown))}.ipynb")
    return tuple(chapters)


def written_chapters(only: list[str] | None = None) -> list[Chapter]:
    """The chapters whose notebooks exist.

    Args:
        only: Prefixes of the file names to keep (such as ``01``); all when empty.

    Raises:
        ValueError: If one of ``only`` matches no notebook.
    """
    chapters = [chapter for chapter in road_map() if chapter.written]
    if not only:
        return chapters
    for prefix in only:
        if not any(chapter.file.startswith(prefix) for chapter in chapters):
            found = ", ".join(chapter.file for chapter in chapters) or "none"
            raise ValueError(f"no notebook starts with {prefix!r}; there are: {found}")
    return [chapter for chapter in chapters if chapter.file.startswith(tuple(only))]
