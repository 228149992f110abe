"""The command line of the book's tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bookkit.config import STUDENT, written_chapters


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="bookkit", description="Tools that turn the chapters into a book.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "build": "execute what has changed and build the site",
        "execute": "execute what has changed",
        "pair": "synchronise notebooks and scripts, without outputs",
        "student": "write the chapters without solutions to student/",
        "pdf": "print the book, and each chapter as a hand-out, to book/_build/pdf/",
        "slides": "write a deck of slides for each chapter to book/_build/slides/",
        "sheets": "take pictures of all figures of the built book, at two widths and in both themes",
        "browser": "print which browser the tests use, and install one if there is none",
        "lock": "write constraints.txt from the running environment",
    }.items():
        command = commands.add_parser(name, help=text, description=text)
        if name in {"build", "execute", "pair", "student", "pdf", "sheets", "slides"}:
            command.add_argument("--only", nargs="+", metavar="NN", help="only chapters whose names begin with these")
        if name == "build":
            command.add_argument("--strict", action="store_true", help="build all pages and treat warnings as errors")
            command.add_argument("--first", type=int, default=0, metavar="N", help="build N chapters first, then all")
            command.add_argument("--open", action="store_true", help="open the book when its first pages are ready")
        if name == "pdf":
            command.add_argument("--site", type=Path, metavar="DIR", help="print this built site as it is")
            command.add_argument("--handouts", action="store_true", help="only the hand-outs, one PDF per chapter")
        if name == "slides":
            command.add_argument("--executed", type=Path, metavar="DIR", help="take executed chapters from here")
    options = parser.parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if type(error).__name__ not in {
            "ChapterError",
            "DanglingError",
            "PaperError",
            "SiteError",
            "SlidesError",
            "ValueError",
        }:
            raise
        print(f"\nerror: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    """Dispatch the command; heavy imports happen only in the branch that needs them."""
    if options.command == "build":
        from bookkit.site import build

        chapters = written_chapters(options.only)
        if 0 < options.first < len(chapters):
            build(chapters[: options.first])
            _announce(options.open)
            print(f"Chapters {options.first + 1} to {len(chapters)} follow; reload a page to see them.\n", flush=True)
            options.open = False
        build(chapters, strict=options.strict)
        _announce(options.open)
    elif options.command == "execute":
        from bookkit.execute import execute_all, times_table

        chapters = written_chapters(options.only)
        execute_all(chapters)
        print(f"\n{times_table(chapters)}")
    elif options.command == "pair":
        from bookkit.pairing import pair

        changed = pair(options.only)
        print("\n".join(f"wrote {path}" for path in changed) or "notebooks and scripts agree")
    elif options.command == "student":
        from bookkit.student import write_student_notebooks

        for path in write_student_notebooks(written_chapters(options.only), STUDENT):
            print(f"wrote {path}")
    elif options.command == "pdf":
        from bookkit import paper
        from bookkit.config import HTML
        from bookkit.site import build

        chapters = written_chapters(options.only)
        if options.site is None:
            build(chapters)
        print("printing …", flush=True)
        for path in paper.make_edition(chapters, options.site or HTML, whole=not options.handouts):
            print(paper.describe(path))
    elif options.command == "slides":
        from bookkit import slides
        from bookkit.config import EXECUTED
        from bookkit.execute import execute_all

        chapters = written_chapters(options.only)
        if options.executed is None:
            execute_all(chapters)
        for path in slides.make_decks(chapters, options.executed or EXECUTED):
            print(f"wrote {path}")
    elif options.command == "sheets":
        from bookkit.browser import find_browser, install_browser, list_pages, open_browser
        from bookkit.config import HTML, SHEETS
        from bookkit.sheets import make_sheets

        path = find_browser() or install_browser()
        if path is None:
            raise ValueError("found no Chromium or Chrome, and none could be installed; sheets need one")
        pages = [f"notebooks/{chapter.file}.html" for chapter in written_chapters(options.only)]
        missing = [page for page in pages if page not in list_pages(HTML)]
        if missing:
            raise ValueError(f"{HTML} lacks {missing[0]}; build the book first: make book")
        with open_browser(path) as browser:
            shots = make_sheets(browser, HTML, SHEETS, pages if options.only else None)
        marked = sum(bool(shot.problem) for shot in shots)
        print(f"{len(shots)} pictures, {marked} marked: {(SHEETS / 'index.html').as_uri()}")
    elif options.command == "browser":
        from bookkit.browser import find_browser, install_browser

        browser = find_browser() or install_browser()
        if browser is None:
            print("found no Chromium or Chrome, and none could be installed", file=sys.stderr)
            return 1
        print(browser)
    elif options.command == "lock":
        from bookkit.lock import write_constraints

        print(f"wrote {write_constraints()}")
    return 0


def _announce(open_it: bool) -> None:
    """Print where the book is, and open it if requested and possible."""
    import webbrowser

    from bookkit.config import HTML
    from bookkit.site import where_to_open

    print(where_to_open(), flush=True)
    if open_it:
        webbrowser.open((HTML / "index.html").as_uri())


if __name__ == "__main__":
    sys.exit(main())
