"""``twodasl pack``: pack training and test photographs into one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from twodasl_lite.apps.commands.progress import ProgressBar
from twodasl_lite.datasets.packed import QUALITY, pack_photos


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    parser.epilog = (
        "Use the file in place of a clone: twodasl train --set data.unlabelled.path=FILE, twodasl evaluate --root "
        "FILE. The photographs are licensed for research only; do not redistribute the file."
    )
    parser.add_argument("clone", type=Path, help="a clone of XgTu/2DASL")
    parser.add_argument("out", type=Path, metavar="FILE", help="the file to write")
    parser.add_argument("--quality", type=int, default=QUALITY, metavar="Q", help=f"WebP quality (default: {QUALITY})")
    parser.add_argument("--original", action="store_true", help="keep the original JPEG files")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    quality = None if options.original else options.quality
    pack = pack_photos(options.clone, options.out, quality=quality, progress=ProgressBar("reading"))
    size = pack.path.stat().st_size / 1e6
    left = f"{len(pack.duplicates)} copies of test pictures were left out"
    print(f"{pack.path}: {size:.1f} MB, {len(pack)} training crops and the test set; {left}")
