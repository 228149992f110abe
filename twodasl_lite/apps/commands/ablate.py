"""``twodasl ablate``: train every combination of losses with every seed, and compare them."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    parser.add_argument("--size", choices=["cpu", "gpu"], default="cpu", help="runs of minutes each, on a CPU or a GPU")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="rows to train (default: all)")
    parser.add_argument(
        "--sweep", metavar="NAME", help="train the rows under several settings: a packaged sweep or .toml file"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N", help="random seeds (default: 0 1 2)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the runs (default: runs/ablation-SIZE)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in twodasl train, for all runs"
    )
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of each run")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="number of parallel runs (default: 1)")
    parser.add_argument("--table-only", action="store_true", help="train nothing, only compare the runs in the folder")
    parser.set_defaults(run=_ablate)


def _ablate(options: argparse.Namespace) -> None:
    from twodasl_lite.base.errors import ValueRangeError

    for name in ("jobs", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ValueRangeError(f"--{name}: found {value}; expected 1 or more")

    from twodasl_lite.training.ablation import ablate, print_table
    from twodasl_lite.training.sweep import load_sweep, print_sweep, run_sweep

    how = {
        "size": options.size,
        "seeds": options.seeds,
        "overrides": options.set,
        "device": options.device,
        "threads": options.threads,
        "jobs": options.jobs,
        "train_missing": not options.table_only,
    }
    if options.sweep is None:
        folder = options.out or Path("runs") / f"ablation-{options.size}"
        print_table(ablate(folder, rows=options.rows, **how))
        print(f"\nwritten: {folder / 'table.json'}")
        return
    if options.rows:
        raise ValueRangeError(f"--rows: found {' '.join(options.rows)}; expected none: the sweep lists its rows")
    sweep = load_sweep(options.sweep)
    folder = options.out or Path("runs") / f"sweep-{Path(options.sweep).stem}"
    print_sweep(run_sweep(folder, sweep, **how))
    print(f"\nwritten: {folder / 'sweep.json'}")
