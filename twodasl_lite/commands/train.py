"""``twodasl train``: train a regressor, or go on with a run."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the subcommand takes."""
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
    parser.add_argument("--minutes", type=float, default=math.inf, metavar="M", help="stop then; go on with --resume")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--list", action="store_true", help="the configurations that come along")
    parser.add_argument("--show", action="store_true", help="print the configuration as it would be, and stop")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> None:
    import json

    import torch

    from twodasl_lite.errors import ValueRangeError
    from twodasl_lite.training.config import config_to_dict, load_config, shipped_configs

    if options.list or not options.config:
        print("\n".join(shipped_configs()))
        return
    config = load_config(options.config, options.set)
    if options.show:
        print(json.dumps(config_to_dict(config), indent=1))
        return
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
        progress=not options.quiet,
    )
    state = "finished" if result.finished else "stopped; --resume goes on"
    print(f"{result.folder}: step {result.step} of {config.steps}, {state}")
    if math.isfinite(result.best):
        print(f"balanced NME on the validation pictures, best: {100 * result.best:.2f} %")
