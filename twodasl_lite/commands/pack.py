"""``twodasl pack``: photographs to learn from and to be measured on, in one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from twodasl_lite.commands.progress import ProgressBar
from twodasl_lite.data.packed import QUALITY, pack_photos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the subcommand takes."""
    parser.epilog = (
        "The file goes where a clone does: --set data.unlabelled.path=FILE of twodasl train, --root FILE of twodasl "
        "evaluate. The photographs are for research alone; the file is not to be passed on."
    )
    parser.add_argument("clone", type=Path, help="a clone of XgTu/2DASL")
    parser.add_argument("out", type=Path, metavar="FILE", help="where the pack goes")
    parser.add_argument("--quality", type=int, default=QUALITY, metavar="Q", help=f"of WebP (default: {QUALITY})")
    parser.add_argument("--original", action="store_true", help="keep the pictures' own JPEG files")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    quality = None if options.original else options.quality
    pack = pack_photos(options.clone, options.out, quality=quality, progress=ProgressBar("reading"))
    size = pack.path.stat().st_size / 1e6
    left = f"{len(pack.duplicates)} copies of test pictures were left out"
    print(f"{pack.path}: {size:.1f} MB, {len(pack)} crops to learn from and the test set; {left}")
