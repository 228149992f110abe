"""The command ``twodasl``: words from a person become calls.

A table of subcommands and nothing else. Each is a module of :mod:`twodasl_lite.commands` with one function,
``add_arguments(parser)``, that says what the subcommand takes and sets ``run``, a function of the parsed arguments, as
the parser's default; a module is imported when its subcommand is asked for. To add a subcommand, add a module and a
row.

Exit status: 0 done, 1 something is wrong with the input (said in one message, without a traceback), 2 the words could
not be understood, 3 paused and to be gone on with (``train``), 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence

from twodasl_lite import __version__

COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("train", "train a regressor, or go on with a run", "twodasl_lite.commands.train"),
    ("ablate", "train every combination of losses with every seed, and compare", "twodasl_lite.commands.ablate"),
    ("course", "coursework: make a course, report what grading found", "twodasl_lite.commands.course"),
    ("models", "face models: list, look at, convert, fetch", "twodasl_lite.commands.models"),
    ("synth", "synthetic pictures with known answers: write, finish, check", "twodasl_lite.commands.synth"),
    ("pack", "photographs to learn from and to be measured on, in one file", "twodasl_lite.commands.pack"),
    ("evaluate", "measure predictions or a network on real photographs", "twodasl_lite.commands.evaluate"),
    ("reconstruct", "faces from your own photos and videos", "twodasl_lite.commands.reconstruct"),
)
"""Name, one line of help, module."""

FAILED, PAUSED, INTERRUPTED = 1, 3, 130


def make_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """The parser.

    Args:
        wanted: The subcommand whose arguments are needed; the others get their line of help alone.
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
        arguments: The words after ``twodasl``; those of the process by default.

    Returns:
        The exit status.
    """
    started = time.perf_counter()  # before PyTorch is imported, which takes seconds
    from twodasl_lite.errors import TwodaslError

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    options = make_parser(wanted).parse_args(arguments, argparse.Namespace(started=started))
    status = 0
    try:
        status = options.run(options) or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, for instance `head`, has seen enough
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
