"""The command line ``twodasl``.

This module is only a table of subcommands. Each is a module of :mod:`twodasl_lite.apps.commands` with one function,
``add_arguments(parser)``, which adds the subcommand's arguments and sets the parser's default ``run``, a function of
the parsed arguments. A module is imported only when its subcommand is called. To add a subcommand, add a module and a
row.

Exit status: 0 done, 1 invalid input (reported in one message, without a traceback), 2 invalid command line, 3 paused,
continue with ``--resume`` (``train``), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence

from twodasl_lite import __version__
from twodasl_lite.apps.commands import FAILED, INTERRUPTED

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("train", "train a regressor, or resume a run", "twodasl_lite.apps.commands.train"),
    ("ablate", "train every combination of losses with every seed, and compare", "twodasl_lite.apps.commands.ablate"),
    ("course", "coursework: make a course, report the results of grading", "twodasl_lite.apps.commands.course"),
    ("models", "face models: list, inspect, convert, download", "twodasl_lite.apps.commands.models"),
    ("synth", "synthetic datasets with ground truth: generate, resume, check", "twodasl_lite.apps.commands.synth"),
    ("pack", "pack training and test photographs into one file", "twodasl_lite.apps.commands.pack"),
    ("evaluate", "evaluate predictions or a network on real photographs", "twodasl_lite.apps.commands.evaluate"),
    ("reconstruct", "reconstruct faces from your own photos and videos", "twodasl_lite.apps.commands.reconstruct"),
)
"""Name, one line of help and module of each subcommand."""


def make_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line.

    Args:
        wanted: The subcommand whose arguments are added; all others get only their line of help.
    """
    parser = argparse.ArgumentParser(
        prog="twodasl", description="2DASL, small and complete: 3D faces from single pictures."
    )
    parser.add_argument("--version", action="version", version=f"twodasl_lite {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, line, module in COMMANDS:
        command = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == wanted:
            importlib.import_module(module).add_arguments(command)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``twodasl``; by default those of the process.

    Returns:
        The exit status.
    """
    started = time.perf_counter()  # before PyTorch is imported, which takes seconds
    from twodasl_lite.base.errors import TwodaslError

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    options = make_parser(wanted).parse_args(arguments, argparse.Namespace(started=started))
    status = 0
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, for instance `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (TwodaslError, OSError) as error:
        print(f"twodasl: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("twodasl: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


if __name__ == "__main__":
    sys.exit(main())
