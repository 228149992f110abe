"""``twodasl train``: train a regressor, or go on with a run.

The exit status tells a run that is finished (0) from one that was stopped in time or by SIGTERM (3), so that a shell
can go on with it: ``while twodasl train lite-cpu --resume --minutes 9; [ $? -eq 3 ]; do :; done``.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from twodasl_lite.cli import PAUSED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the subcommand takes."""
    parser.epilog = (
        f"Exit status: 0 the run is finished; {PAUSED} it was stopped, by --minutes or by SIGTERM, also while its "
        "pictures are drawn, and goes on with --resume; 1 something is wrong; 130 interrupted. In pieces of nine "
        f"minutes: while twodasl train CONFIG --resume --minutes 9; [ $? -eq {PAUSED} ]; do :; done"
    )
    parser.add_argument("config", nargs="?", help="a TOML file, or the name of one that comes along (see --list)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a value, for instance stages.0.steps=100 or network.name=resnet18; may be repeated",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint, or begin")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU where there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads on the CPU (default: PyTorch's choice)")
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=math.inf,
        metavar="M",
        help="stop so long after the start of this command, with a checkpoint; go on with --resume",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--list", action="store_true", help="the configurations that come along")
    parser.add_argument("--show", action="store_true", help="print the configuration as it would be, and stop")
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

    from twodasl_lite.errors import ValueRangeError
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
    state = "finished" if result.finished else "paused; --resume goes on"
    if result.preparing:
        state = f"paused before training ({result.preparing}); --resume goes on"
    of = f"step {result.step}" if config.run.minutes else f"step {result.step} of {config.steps}"
    print(f"{result.folder}: {of}, {state}")
    if math.isfinite(result.best):
        print(f"balanced NME on the validation pictures, best: {100 * result.best:.2f} %")
    return 0 if result.finished else PAUSED
