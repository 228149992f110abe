"""Build the site: scripts, chapters, pages, Sphinx."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable

from bookkit import assets, your_face
from bookkit.config import BOOK, BUILD, HTML, ROOT, SOURCE, Chapter, written_chapters
from bookkit.execute import execute_all, times_table
from bookkit.pages import clean_pages, lay_out, remove_build


class SiteError(Exception):
    """Sphinx failed, or warned in a strict build."""


def build(chapters: Iterable[Chapter], *, strict: bool = False) -> None:
    """Execute what has changed and build the site into ``book/_build/html``.

    Args:
        chapters: Chapters to show.
        strict: Whether to rebuild every page and treat warnings as errors.

    Raises:
        bookkit.execute.ChapterError: If a chapter's cell failed.
        SiteError: If Sphinx found an error or, if strict, printed a warning.
    """
    chapters = list(chapters)
    execute_all(chapters)
    assets.prepare()
    your_face.prepare()
    before = _side_bar()
    lay_out(chapters)
    if strict:
        remove_build(HTML)
    command = [sys.executable, "-m", "sphinx", "--quiet", "-b", "html", "-c", str(BOOK)]
    command += ["-d", str(BUILD / "doctrees"), *(["-E", "-W", "--keep-going"] if strict else [])]
    if _side_bar() != before:
        command.append("-a")  # the side bar is on every page, and Sphinx does not notice when it changes
    command += [str(SOURCE), str(HTML)]
    if not strict and len(chapters) < len(written_chapters()):
        # Links to chapters that are left out are broken, as expected.
        command[-2:-2] = ["-D", "suppress_warnings=myst.xref_missing"]
    print("building the pages …", flush=True)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise SiteError(f"sphinx-build ended with status {done.returncode}:\n{done.stderr}")
    print(done.stderr, end="", file=sys.stderr, flush=True)
    clean_pages(HTML)
    print(f"\n{times_table(chapters)}\n", flush=True)


def _side_bar() -> list[str]:
    """Content of the side bar: the tables of contents of the start page, as laid out for Sphinx."""
    index = SOURCE / "index.md"
    text = index.read_text(encoding="utf-8") if index.exists() else ""
    return re.findall(r"^:::\{toctree\}.*?^:::$", text, re.MULTILINE | re.DOTALL)


def where_to_open() -> str:
    """The message for the reader after a build."""
    index = HTML / "index.html"
    return (
        f"The book is ready. Open\n    {index.as_uri()}\nin a browser; neither a server nor a network is needed. "
        "`make lab` opens the chapters in JupyterLab."
    )
