"""``twodasl synth``: generate a synthetic dataset, resume one, or check one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from twodasl_lite.apps.commands.progress import ProgressBar
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.base.settings import SettingsError, from_table
from twodasl_lite.datasets.shards import MANIFEST, SHARD_SIZE, Recipe, make_shards, read_manifest
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.worlds.world import World, load_world, world_names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    parser.epilog = (
        "Repeat an interrupted command to resume it. If the folder already contains a dataset, --out alone is enough. "
        "On several machines, give each one --part 1/N, 2/N, ... and merge the folders."
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the dataset")
    parser.add_argument("--world", help=f"settings to draw from: {', '.join(world_names())}, or a .toml file")
    parser.add_argument("--count", type=_whole(1), metavar="N", help="number of pictures")
    parser.add_argument("--seed", type=_whole(0), metavar="N", help="random seed (default: 0)")
    parser.add_argument("--shard-size", type=_whole(1), metavar="N", help=f"pictures per file (default: {SHARD_SIZE})")
    parser.add_argument(
        "--truth", action=argparse.BooleanOptionalAction, help="store the ground truth (default: as in the world)"
    )
    parser.add_argument(
        "--workers", type=_whole(1), metavar="N", help="processes (default: one per CPU core; on a GPU, one)"
    )
    parser.add_argument("--device", metavar="NAME", help="device that renders: cpu or cuda (default: cpu)")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="generate only part I of N")
    parser.add_argument("--check", action="store_true", help="verify all checksums and regenerate damaged files")
    parser.set_defaults(run=_run)


def _whole(least: int):
    def parse(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"found {text!r}; expected a whole number of {least} or more")
        return value

    return parse


def _part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"found {text!r}; expected I/N with I from 1 to N, such as 2/4")
    return int(number), int(parts)


def _world_of(folder: Path, settings: Mapping[str, object]) -> World:
    """The world described by the settings in a manifest."""
    try:
        return from_table(World, settings)
    except SettingsError as error:
        raise FileFormatError(folder / MANIFEST, str(error), "settings of a world") from error


def _run(options: argparse.Namespace) -> None:
    from twodasl_lite.datasets.drawn import DrawnFaces
    from twodasl_lite.faces import load_face_model

    folder = options.out
    present = read_manifest(folder).recipe if any(folder.glob("manifest*.json")) else None
    missing = [name for name in ("world", "count") if getattr(options, name) is None]
    if present is None and missing:
        raise ValueRangeError(
            f"{folder}: found no dataset to resume; expected --{' and --'.join(missing)} to begin one"
        )

    def chosen(name: str, kept: object, default: object = None) -> object:
        given = getattr(options, name)
        return given if given is not None else default if present is None else kept

    source = present.source if present is not None else {}
    try:
        world = load_world(options.world) if options.world is not None else _world_of(folder, source["world"])
        faces = DrawnFaces(
            load_face_model(CoefficientLayout()),
            world,
            seed=chosen("seed", source.get("seed"), 0),
            truth=chosen("truth", source.get("truth"), world.labelled),
            device=chosen("device", source.get("device"), "cpu"),
        )
    except KeyError as error:
        raise FileFormatError(folder / MANIFEST, f"no {error} in the recipe", "a dataset of twodasl synth") from error
    count = chosen("count", present.count if present else None)
    shard_size = chosen("shard_size", present.shard_size if present else None, SHARD_SIZE)
    workers = options.workers or ((os.cpu_count() or 1) if faces.device == "cpu" else 1)
    manifest = make_shards(
        folder,
        faces,
        count,
        shard_size=shard_size,
        part=options.part,
        workers=workers,
        check=options.check,
        progress=ProgressBar("drawing"),
        report=lambda line: print(line, file=sys.stderr),
    )
    print(_summary(folder, manifest.recipe, sum(s.count for s in manifest.shards), len(manifest.shards), options.part))


def _summary(folder: Path, recipe: Recipe, pictures: int, shards: int, part: tuple[int, int]) -> str:
    which = f"part {part[0]} of {part[1]}: " if part != (1, 1) else ""
    whole = "" if pictures == recipe.count else f" of {recipe.count}"
    files = f"{shards} file{'' if shards == 1 else 's'}"
    return f"{folder}: {which}{pictures}{whole} pictures in {files}"
