"""``twodasl train``: train a regressor, or resume a run.

The exit status distinguishes a finished run (0) from one stopped by ``--minutes`` or SIGTERM (3), so that a shell can
resume it: ``while twodasl train lite-cpu --resume --minutes 9; [ $? -eq 3 ]; do :; done``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from twodasl_lite.apps.commands import PAUSED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    parser.epilog = (
        f"Exit status: 0 finished; {PAUSED} stopped by --minutes or SIGTERM, in training or while its pictures are "
        "generated: continue with --resume; 1 invalid input; 130 interrupted. To train in pieces of nine "
        f"minutes: while twodasl train CONFIG --resume --minutes 9; [ $? -eq {PAUSED} ]; do :; done"
    )
    parser.add_argument("config", nargs="?", help="a TOML file, or the name of a packaged one (see --list)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a value, for instance stages.0.steps=100 or network.name=resnet18; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint, or start a new run")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: PyTorch's choice)")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=math.inf,
        metavar="M",
        help="write a checkpoint and stop after M minutes; continue with --resume",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--list", action="store_true", help="list the packaged configurations")
    parser.add_argument("--show", action="store_true", help="print the resulting configuration and exit")
    parser.set_defaults(run=_train)


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected minutes, 0 or more")
    return value


def _train(options: argparse.Namespace) -> int:
    import json

    import torch

    from twodasl_lite.base.errors import ValueRangeError
    from twodasl_lite.training.config import config_to_dict, load_config, shipped_configs

    if options.list or not options.config:
        print("\n".join(shipped_configs()))
        return 0
    config = load_config(options.config, options.set)
    if options.show:
        print(json.dumps(config_to_dict(config), indent=1))
        return 0
    if options.threads is not None:
        if options.threads < 1:
            raise ValueRangeError(f"--threads: found {options.threads}; expected 1 or more")
        torch.set_num_threads(options.threads)

    from twodasl_lite.training.loop import train

    result = train(
        config,
        options.out or Path("runs") / config.name,
        resume=options.resume,
        device=options.device,
        minutes=options.minutes,
        started=options.started,
        progress=not options.quiet,
    )
    state = "finished" if result.finished else "paused; --resume continues it"
    if result.preparing:
        state = f"paused before training ({result.preparing}); --resume continues it"
    of = f"step {result.step}" if config.run.minutes else f"step {result.step} of {config.steps}"
    print(f"{result.folder}: {of}, {state}")
    if math.isfinite(result.best):
        print(f"best balanced NME on the validation pictures: {100 * result.best:.2f} %")
    return 0 if result.finished else PAUSED
