"""``twodasl course``: make an nbgrader course, add an assignment to it, report the results of grading."""

from __future__ import annotations

import argparse
from pathlib import Path

from twodasl_lite.course.build import INSTALL, add_assignment, assignments, new_course, release_assignment
from twodasl_lite.course.report import report, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    action = actions.add_parser("list", help="list the assignments that come with the package")
    action.set_defaults(run=_list)

    action = actions.add_parser("new", help="make a course: solved notebooks, settings and the students' notebooks")
    action.add_argument("folder", type=Path, metavar="DIR", help="folder of the course; must be new or empty")
    action.add_argument("--seed", metavar="SECRET", help="secret of the hidden tests (default: a random one)")
    action.add_argument("--assignments", nargs="+", default=[], metavar="NN", help="only these, such as 01 02")
    action.add_argument(
        "--install", default=INSTALL, metavar="SPEC", help="package that the students' notebooks install with pip"
    )
    action.add_argument("--no-release", action="store_true", help="do not make the students' notebooks yet")
    action.set_defaults(run=_new)

    action = actions.add_parser("add", help="add your own assignment, or update a changed one")
    action.add_argument("folder", type=Path, metavar="DIR", help="the course")
    action.add_argument(
        "script", type=Path, metavar="FILE", help="the solved assignment, a script in the py:percent format"
    )
    action.set_defaults(run=_add)

    action = actions.add_parser("report", help="print the points of all submissions and what went wrong")
    action.add_argument("folder", type=Path, metavar="DIR", help="the course")
    action.add_argument("--assignment", metavar="NAME", help="only this one")
    action.set_defaults(run=_report)


def _list(_: argparse.Namespace) -> None:
    width = max(len(assignment.name) for assignment in assignments())
    for assignment in assignments():
        print(f"{assignment.name:<{width}}  {assignment.title}")


def _new(options: argparse.Namespace) -> None:
    folder = new_course(
        options.folder,
        seed=options.seed,
        names=options.assignments,
        install=options.install,
        release=not options.no_release,
    )
    print(f"written: {folder}\nHand out {folder / 'release'} to the students; keep everything else to yourself.")
    print("Autograding runs the students' code: read the section on isolation in the folder's README first.")


def _add(options: argparse.Namespace) -> None:
    assignment = add_assignment(options.folder, options.script)
    print(f"written: {release_assignment(options.folder, assignment.name)}")


def _report(options: argparse.Namespace) -> None:
    results = report(options.folder, options.assignment)
    print(table(results) if results else "no submissions")
