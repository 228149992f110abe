"""``twodasl evaluate``: evaluate predictions, or a trained network, on a test set."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from twodasl_lite.apps.commands.progress import ProgressBar
from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import (
    FileFormatError,
    InputTypeError,
    MissingDependencyError,
    TwodaslError,
    ValueRangeError,
    require,
)
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000, read_basel_landmarks, read_names
from twodasl_lite.evaluation import auc, bootstrap_interval, failure_rate
from twodasl_lite.evaluation.benchmark import (
    MAIN,
    Report,
    evaluate,
    jittered_boxes,
    predict_faces,
    release_predictions,
)
from twodasl_lite.evaluation.curves import LIMIT
from twodasl_lite.evaluation.intervals import RESAMPLES
from twodasl_lite.evaluation.predictions import Predictions, read_predictions, write_predictions
from twodasl_lite.evaluation.release_meshes import read_release_meshes
from twodasl_lite.faces import MorphableModel, load_face_model, read_face_model, read_whitening
from twodasl_lite.faces.fingerprint import check_fingerprint
from twodasl_lite.geometry.camera import MAPPINGS
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.photos import write_photo

DATASETS = ("aflw2000", "release-meshes")
_SHOWN_PROBLEMS = 10
_BASEL_FILE = "bfm_68_landmarks.npz"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    parser.add_argument(
        "--dataset", choices=DATASETS, default=DATASETS[0],
        help="the 2,000 faces of AFLW2000-3D (default: aflw2000), or the 40 whose meshes were released with 2DASL",
    )  # fmt: skip
    parser.add_argument(
        "--root", type=Path, required=True, metavar="PLACE",
        help="a clone of XgTu/2DASL, the folder AFLW2000, or an .npz of annotations",
    )  # fmt: skip
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--predictions", type=Path, metavar="FILE",
        help=".npz with names, or .npy of whitened coefficients (default: the predictions released with 2DASL)",
    )  # fmt: skip
    what.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained network (.safetensors)")
    parser.add_argument(
        "--names", type=Path, metavar="FILE", help="list of the pictures that the rows of an .npy belong to"
    )
    parser.add_argument(
        "--mapping", choices=MAPPINGS, default=MAPPINGS[0],
        help="how crop coordinates are mapped to the photo: exactly, or as in the published scripts (default: exact)",
    )  # fmt: skip
    parser.add_argument(
        "--face-model", type=Path, metavar="FILE",
        help="face model of the coefficients (default: the clone's; for a checkpoint, the package's)",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the report, tables, errors, error curve and worst cases"
    )
    parser.add_argument(
        "--worst", type=int, default=12, metavar="N", help="number of worst cases to draw (default: 12)"
    )
    parser.add_argument("--resamples", type=int, default=RESAMPLES, metavar="N", help="number of bootstrap resamples")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the confidence intervals and the jitter (default: 0)"
    )
    group = parser.add_argument_group("with --checkpoint")
    group.add_argument(
        "--jitter", type=float, default=0.0, metavar="PART",
        help="shift and resize each crop box by up to this fraction of its side, to imitate a face detector",
    )  # fmt: skip
    group.add_argument(
        "--no-detector", action="store_true", help="start with an empty map instead of the detector's landmarks"
    )
    group.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    if options.dataset == "release-meshes":
        _run_meshes(options)
        return
    if options.checkpoint is None:
        given = [f"--{name}" for name in ("jitter", "no_detector") if getattr(options, name)]
        if given:
            raise InputTypeError(f"{', '.join(given).replace('_', '-')}: only with --checkpoint, which cuts the crops")
    if options.worst < 0:
        raise ValueRangeError(f"--worst: found {options.worst}; expected 0 or more")
    dataset = read_aflw2000(options.root)
    problems: list[str] = []
    if options.checkpoint is not None:
        predictions, model, problems = _from_checkpoint(options, dataset)
        whitening = None
        if options.out is not None:
            write_predictions(options.out / "predictions.npz", predictions)
    else:
        predictions = _from_file(options, dataset)
        model, whitening = (None, None) if predictions.kind == "landmarks" else _face_model(options, dataset)
    report = evaluate(
        predictions,
        dataset,
        options.mapping,
        model=model,
        whitening=whitening,
        resamples=options.resamples,
        seed=options.seed,
    )
    _print(report, [*problems, *report.problems])
    if options.out is not None:
        files = report.write(options.out)
        files += _draw(report, dataset, options.out, options.worst)
        print("\nwritten: " + ", ".join(str(file) for file in files))


def _run_meshes(options: argparse.Namespace) -> None:
    """Evaluate the 40 released faces: their landmarks and, with a face model, dense vertices and shape."""
    if options.predictions or options.checkpoint or options.names:
        raise InputTypeError(
            "--predictions, --checkpoint, --names: not for release-meshes, which are predictions themselves"
        )
    faces = read_release_meshes(options.root)
    model = None if options.face_model is None else read_face_model(options.face_model)
    errors = faces.measure(model)
    print(f"{len(faces.names)} faces with the meshes released with 2DASL\n")
    rows, content = ["| NME, % | " + " | ".join([*faces.meshes, *faces.points]) + " |"], {}
    rows.append("|---" * rows[0].count(" | ") + "|---|")
    for measure, methods in errors.items():
        cells, content[measure] = [], {}
        for method in (*faces.meshes, *faces.points):
            if method not in methods:
                cells.append("-")
                continue
            mean = float(methods[method].mean())
            ends = bootstrap_interval(methods[method], resamples=options.resamples, seed=options.seed)
            cells.append(f"{100 * mean:.2f} [{100 * ends.low:.2f}, {100 * ends.high:.2f}]")
            content[measure][method] = {"mean": mean, "interval": list(ends), "errors": methods[method].tolist()}
        rows.append(f"| {measure} | {' | '.join(cells)} |")
    table = "\n".join(rows)
    print(f"{table}\n\nin brackets: 95 % intervals over pictures")
    if model is None:
        print("note: dense and shape errors need --face-model FILE", file=sys.stderr)
    else:
        print(f"dense ground truth: annotations cut to {model.num_shape} + {model.num_expression} coefficients")
    _print_problems(faces.problems)
    if options.out is not None:
        report = {"names": list(faces.names), "problems": list(faces.problems), "results": content}
        for name, text in (("report.json", json.dumps(report, indent=2, allow_nan=False)), ("tables.md", table)):
            with whole_file(options.out / name) as file:
                file.write(f"{text}\n".encode())
        print(f"\nwritten: {options.out / 'report.json'}, {options.out / 'tables.md'}")


# ---------------------------------------------------------------------------------------------------- what is measured
def _from_file(options: argparse.Namespace, dataset: AFLW2000) -> Predictions:
    if options.predictions is None:
        return release_predictions(dataset)
    if options.names is not None:
        return read_predictions(options.predictions, read_names(options.names))
    if options.predictions.suffix == ".npy":
        return read_predictions(options.predictions, dataset.names_of_rows(options.predictions))
    return read_predictions(options.predictions)


def _from_checkpoint(options: argparse.Namespace, dataset: AFLW2000) -> tuple[Predictions, MorphableModel, list[str]]:
    from twodasl_lite.networks.weights import load_regressor

    if options.device != "cpu" and not (options.device.startswith("cuda") and torch.cuda.is_available()):
        raise ValueRangeError(f"--device: found {options.device!r}; expected cpu, or cuda on a machine that has it")
    regressor = load_regressor(options.checkpoint, options.device)
    model = load_face_model() if options.face_model is None else read_face_model(options.face_model)
    model = model.with_layout(regressor.layout).to(torch.float32)
    if "face_model" in regressor.metadata:
        check_fingerprint(regressor.metadata["face_model"], model)
    boxes = jittered_boxes(dataset.boxes, options.jitter, options.seed) if options.jitter else None
    source = str(options.checkpoint)
    if boxes is not None:
        source += f", crop boxes jittered by up to {options.jitter:g} of their side (seed {options.seed})"
    predictions, problems = predict_faces(
        regressor.network,
        regressor.whitening,
        dataset,
        model,
        boxes=boxes,
        detected=not options.no_detector,
        kind=regressor.metadata["map_kind"],
        pose=regressor.pose,
        source=source,
        device=options.device,
        progress=ProgressBar("predicting"),
    )
    return predictions, model.to("cpu"), problems


def _face_model(options: argparse.Namespace, dataset: AFLW2000) -> tuple[MorphableModel, Whitening | None]:
    """The face model of the coefficients, and its whitening if there is one.

    Either a file in the package's own format, as ``twodasl models convert`` writes it, or the Basel Face Model: the
    given file, the clone's, or the one beside an archive of annotations.
    """
    path = options.face_model or dataset.face_model_path()
    if path is None and (dataset.root.parent / _BASEL_FILE).is_file():
        path = dataset.root.parent / _BASEL_FILE
    if path is None:
        raise FileFormatError(
            options.root, "no face model", "--face-model FILE, the Basel Face Model as published with 3DDFA or 2DASL"
        )
    if path.suffix == ".npz":
        if not path.is_file() or _has_array(path, "coefficient_mean"):
            return read_basel_landmarks(path)
        return read_face_model(path).with_layout(CoefficientLayout()).to(torch.float64), None
    try:
        model = read_face_model(path, kind="3ddfa" if options.face_model is None else None)
    except FileFormatError as error:
        if options.face_model is None:
            raise FileFormatError(error.path, error.found, f"{error.expected}; or --face-model FILE") from error
        raise
    return model.to(torch.float64), read_whitening(path, units=model.units)


def _has_array(path: Path, name: str) -> bool:
    """Whether an ``.npz`` contains an array of this name."""
    try:
        with zipfile.ZipFile(path) as content:
            return f"{name}.npy" in content.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


# -------------------------------------------------------------------------------------------------------------- output
def _print(report: Report, problems: Sequence[str]) -> None:
    total = len(report.names) + len(report.missing)
    print(f"AFLW2000-3D, {report.mapping} mapping: {len(report.names)} of {total} faces predicted")
    print(f"predictions: {report.source or 'unnamed'}")
    if report.missing:
        print(f"without a prediction: {_some(report.missing)}")
    counts = ", ".join(map(str, report.tables[MAIN].counts))
    print(f"\n{report.markdown()}\n\nfaces per bin: {counts}; in brackets: 95 % intervals over pictures")
    errors = report.with_failures()
    print(
        f"{MAIN}: area under the error curve to {100 * LIMIT:g} % {auc(errors):.4f}, "
        f"failures (above it, or no prediction) {100 * failure_rate(errors):.2f} %"
    )
    _print_problems(problems)


def _print_problems(problems: Sequence[str]) -> None:
    for problem in problems[:_SHOWN_PROBLEMS]:
        print(f"note: {problem}", file=sys.stderr)
    if len(problems) > _SHOWN_PROBLEMS:
        print(f"note: and {len(problems) - _SHOWN_PROBLEMS} more like these", file=sys.stderr)


def _draw(report: Report, dataset: AFLW2000, folder: Path, worst: int) -> list[Path]:
    """Draw the error curve and, if there are photos, the worst cases; a missing library is reported, not fatal."""
    files = []
    try:
        files.append(_draw_curve(report, folder / "ced.png"))
    except MissingDependencyError as error:
        print(f"note: no error curve: {error}", file=sys.stderr)
    if worst and dataset.layout in ("clone", "folder"):
        files.append(_draw_worst(report, dataset, folder / "worst.png", worst))
    return files


def _draw_curve(report: Report, path: Path) -> Path:
    require("matplotlib", "book", "the error curve")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from twodasl_lite.viz.evaluation_figures import draw_ced

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")  # without pyplot, which takes half a second more
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    draw_ced(axes, {measure: report.with_failures(measure) for measure in report.errors})
    axes.set_title(f"AFLW2000-3D, {len(report.names)} faces, {report.mapping} mapping", fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def _draw_worst(report: Report, dataset: AFLW2000, path: Path, count: int) -> Path:
    from twodasl_lite.viz.evaluation_figures import worst_cases

    index = report.worst(count)
    places = {name: k for k, name in enumerate(dataset.names)}
    truth = dataset.landmarks[[places[report.names[k]] for k in index]]
    captions = [f"{report.names[k]}: {100 * float(report.errors[MAIN][k]):.1f} %" for k in index]
    photos = [_or_none(lambda k=k: dataset.photo(report.names[k])) for k in index]
    write_photo(path, worst_cases(photos, report.landmarks[index], truth, captions))
    return path


def _or_none(read: Callable):
    try:
        return read()
    except TwodaslError as error:
        print(f"note: {error}", file=sys.stderr)
        return None


def _some(names: Sequence[str], shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
