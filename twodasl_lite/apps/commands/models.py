"""``twodasl models``: list the readable formats, inspect or convert a file, download the free models."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path

import torch

from twodasl_lite.apps.commands.progress import ProgressBar
from twodasl_lite.base.cache import cache_folder
from twodasl_lite.base.errors import InputTypeError, TwodaslError, ValueRangeError
from twodasl_lite.faces import MorphableModel, read_face_model, read_whitening
from twodasl_lite.faces.borrow import borrow_colours
from twodasl_lite.faces.load import MODEL_VARIABLE
from twodasl_lite.faces.readers import FORMATS, recognise
from twodasl_lite.faces.readers.basel2009 import VERTICES
from twodasl_lite.faces.readers.formats import LAYOUT_ONLY, format_of
from twodasl_lite.faces.readers.ict import JAWS, read_ict_folder
from twodasl_lite.faces.readers.parts import MILLIMETRES
from twodasl_lite.geometry.coefficients import CoefficientLayout

_NAME_WIDTH, _LINE_WIDTH = 11, 110
ICT_FILE = "ict-face-model-light.npz"
_OPTIONS = ("landmarks", "units", "expressions", "vertices", "triangles", "whitening", "jaw")
"""Options of the readers; each format accepts some of them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    action = actions.add_parser("list", help="list the readable formats")
    action.set_defaults(run=_list)

    action = actions.add_parser("info", help="print what a file contains")
    action.add_argument("file", type=Path, help="a face model: file or folder")
    action.add_argument("--license", action="store_true", help="print the whole licence")
    _add_reader_options(action)
    action.set_defaults(run=_info)

    action = actions.add_parser("convert", help="convert a file of any format to the package's own")
    action.add_argument("source", type=Path, help="a face model: file or folder")
    action.add_argument("out", type=Path, help="the .npz to write")
    action.add_argument("--shape", type=int, metavar="N", help="keep N shape components")
    action.add_argument("--expression", type=int, metavar="N", help="keep N expression components")
    action.add_argument(
        "--save-whitening", type=Path, metavar="FILE", help="also write 3DDFA's whitening, in the same unit"
    )
    action.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="WORD",
        help="drop the regions with WORD in their name; repeatable",
    )
    action.add_argument("--colours", action="store_true", help="give a model without colours those of the book's face")
    action.add_argument("--force", action="store_true", help="overwrite existing files")
    _add_reader_options(action)
    action.set_defaults(run=_convert)

    action = actions.add_parser("get", help="download a free model from its public repository")
    action.add_argument(
        "model", choices=["ict", "yunet"],
        help="ict: the face model ICT Face Model Light (MIT); yunet: OpenCV's face detector (MIT, 0.2 MB), which "
        "twodasl reconstruct uses to find faces",
    )  # fmt: skip
    action.add_argument("--out", type=Path, metavar="FILE", help="the file to write (default: one in the cache)")
    action.add_argument(
        "--source", metavar="PLACE",
        help="where to get it instead; ict: a folder or anything git can fetch from; yunet: a file or a URL",
    )  # fmt: skip
    action.add_argument("--jaw", choices=JAWS, default=JAWS[0], help="ict: choice of the published jaw lines")
    action.add_argument("--force", action="store_true", help="download again")
    action.set_defaults(run=_get)


def _add_reader_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("reading")
    group.add_argument(
        "--kind", choices=[entry.kind for entry in FORMATS], help="the format (default: recognised from the file)"
    )
    group.add_argument(
        "--landmarks", metavar="FILE", help="the 68 landmarks: vertex indices, or the file of eos or FLAME"
    )
    group.add_argument("--units", choices=list(MILLIMETRES), help="unit of length of the result (default: mm)")
    group.add_argument(
        "--expressions",
        metavar="FILE",
        help="bfm2009, model-shape, surrey: file of the expressions; bfm2009 also: none",
    )
    group.add_argument("--vertices", choices=VERTICES, help="bfm2009: choice of vertices")
    group.add_argument("--triangles", metavar="FILE", help="3ddfa, 3ddfa-v2: file of the triangles")
    group.add_argument("--whitening", metavar="FILE", help="3ddfa-v2: file of the coefficients' standard deviations")
    group.add_argument("--jaw", choices=JAWS, help="ict, ict-npz: choice of the published jaw lines")


def _read(path: Path, options: argparse.Namespace) -> tuple[str, MorphableModel]:
    """The format of a file, and the model in it."""
    entry = format_of(options.kind) if options.kind else recognise(path)
    given = {name: getattr(options, name) for name in _OPTIONS if getattr(options, name) is not None}
    unused = sorted(set(given) - set(entry.options))
    if unused:
        names = ", ".join(f"--{name}" for name in unused)
        fitting = ", ".join(f"--{name}" for name in _OPTIONS if name in entry.options) or "none"
        raise InputTypeError(f"{names}: not an option for {entry.kind}, which {path} is; options for it: {fitting}")
    if "progress" in entry.options:
        given["progress"] = ProgressBar("reading")
    return entry.kind, read_face_model(path, kind=entry.kind, **given)


def _describe(model: MorphableModel) -> str:
    """A description of the model, one name and value per line."""
    size = (model.mean.amax(dim=0) - model.mean.amin(dim=0)).tolist()
    colours = "none" if model.albedo_mean is None else f"mean and {model.albedo_basis.shape[-1]} components"
    names = ", ".join(model.expression_names)
    rows = {
        "name": model.name,
        "vertices": f"{model.num_vertices:,}, {model.triangles.shape[0]:,} triangles",
        "extent": f"{size[0]:.4g} x {size[1]:.4g} x {size[2]:.4g} {model.units}",
        "shape": f"{model.num_shape} components{_spread(model.shape_std)}",
        "expression": f"{model.num_expression} {model.expression_kind}{_spread(model.expression_std)}",
        "names": names if model.expression_kind == "blendshapes" else "",
        "colours": colours,
        "regions": ", ".join(model.regions),
        "licence": model.license.partition("\n")[0],
        "source": model.source,
    }
    return "\n".join(_row(name, value) for name, value in rows.items() if value)


def _row(name: str, value: str) -> str:
    indent = " " * (_NAME_WIDTH + 1)
    wrapped = textwrap.wrap(value, _LINE_WIDTH, initial_indent=indent, subsequent_indent=indent)
    return f"{name:<{_NAME_WIDTH}} " + "\n".join(wrapped)[len(indent) :]


def _spread(std) -> str:
    if not std.numel():
        return ""
    low, high = float(std.min()), float(std.max())
    return ", std " + (f"{low:g}" if low == high else f"{low:.4g} to {high:.4g}")


def _list(_: argparse.Namespace) -> None:
    rows = [("kind", "model", "files", "licence", "needs")]
    for entry in FORMATS:
        mark = "*" if entry.checked.startswith(LAYOUT_ONLY) else ""
        rows.append((entry.kind + mark, entry.title, entry.files, entry.license, entry.needs))
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(
        f"\n* {LAYOUT_ONLY}: these readers were tested on files in the published layout, but not on the licensed file."
    )
    print('To install what the readers need: pip install "twodasl_lite[models]"')
    print("To download the free model: twodasl models get ict")
    print("To download a face detector: twodasl models get yunet")


def _info(options: argparse.Namespace) -> None:
    kind, model = _read(options.file, options)
    print(f"{_row('kind', kind)}\n{_describe(model)}")
    if options.license:
        print(f"\n{model.license}")


def _convert(options: argparse.Namespace) -> None:
    outputs = [options.out, options.save_whitening] if options.save_whitening else [options.out]
    for path in outputs:
        _check_output(path, options.force)
    kind, model = _read(options.source, options)
    layout = CoefficientLayout(
        model.num_shape if options.shape is None else options.shape,
        model.num_expression if options.expression is None else options.expression,
    )
    model = model.with_layout(layout)
    if options.colours:
        model = borrow_colours(model)
    if options.without:
        model = _without(model, options.without)
    if options.save_whitening:
        if not kind.startswith("3ddfa"):
            raise ValueRangeError(f"--save-whitening: found {kind}, which has none; expected 3ddfa or 3ddfa-v2")
        folder = options.source if options.source.is_dir() else options.source.parent
        read_whitening(options.whitening or folder, units=model.units).save(options.save_whitening)
    model.save(options.out)
    print(_describe(model))
    _say_how_to_use(options.out)


def _without(model: MorphableModel, words: list[str]) -> MorphableModel:
    """The model without those regions whose names contain one of the words."""
    for word in words:
        if not any(word in name for name in model.regions):
            regions = ", ".join(model.regions) or "none"
            raise ValueRangeError(f"--without: found {word!r}; expected a part of a region's name ({regions})")
    keep = torch.ones(model.num_vertices, dtype=torch.bool)
    for name, index in model.regions.items():
        if any(word in name for word in words):
            keep[index] = False
    return model.subset(keep.nonzero()[:, 0])


def _check_output(path: Path, force: bool) -> None:
    if path.suffix != ".npz":
        raise ValueRangeError(f"{path}: found the suffix {path.suffix!r}; expected .npz")
    if path.exists() and not force:
        raise TwodaslError(f"{path} exists already; --force overwrites it")


def _say_how_to_use(path: Path) -> None:
    print(f"\nwritten: {path}")
    print(f"To use it in the whole book, set the environment variable:  {MODEL_VARIABLE}={path.resolve()}")


def _get_yunet(options: argparse.Namespace) -> None:
    from twodasl_lite.apps.detection import fetch_yunet, yunet_path

    out = options.out or yunet_path()
    if out.exists() and not options.force:
        print(f"exists already: {out}")
        return
    fetch_yunet(options.source, out, ProgressBar("downloading"))
    print(f"written: {out}")
    use = "" if out == yunet_path() else f" --detector {out}"
    print(f"To find faces with it:  twodasl reconstruct me.jpg{use}")


def _get(options: argparse.Namespace) -> None:
    if options.model == "yunet":
        _get_yunet(options)
        return
    from twodasl_lite.faces.readers import ict_download

    out = options.out or cache_folder() / ICT_FILE
    if out.is_file() and not options.force:
        print(_describe(MorphableModel.load(out)))
        _say_how_to_use(out)
        return
    _check_output(out, options.force)
    work = cache_folder() / "downloads" / "ict"
    folder = ict_download.fetch(work, options.source, progress=ProgressBar("downloading"))
    print(f"checking {folder}")
    ict_download.verify(folder, ProgressBar("checking"))
    model = read_ict_folder(folder, jaw=options.jaw, progress=ProgressBar("converting"))
    model.source += f"; {ict_download.REPOSITORY}, version {ict_download.COMMIT}"
    licence = (folder.parent / ict_download.LICENSE_FILE).read_text(encoding="utf-8").strip()
    model.license = f"{model.license}\n\n{licence}"
    model.save(out)
    shutil.rmtree(work, ignore_errors=True)  # 400 MB that the converted file replaces
    print(_describe(model))
    _say_how_to_use(out)
