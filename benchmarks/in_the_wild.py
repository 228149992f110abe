"""Other networks and ours on the 2,000 photographs of AFLW2000-3D; writes the results that chapter 16 shows.

Needs a clone of ``XgTu/2DASL`` (photographs, crops, detected landmarks), the folder that ``TWODASL_DATA`` names (the
Basel Face Model at its 68 landmarks, the ICT-FaceKit Light model), and a clone of ``cleardusk/3DDFA_V2`` (its mb05
network). Only errors and yaws are stored, no pictures and no landmarks.

    python benchmarks/in_the_wild.py CLONE DATA --tddfa 3DDFA_V2 --run synthetic=FOLDER --run all=FOLDER ...
    python benchmarks/in_the_wild.py CLONE DATA --only-shipped

A ``--run`` is a folder of ``twodasl train``: its ``last.safetensors`` and ``config.json`` are read. Several folders may
have the same name if their runs differ only in the seed: their errors are averaged, and their spread enters the
intervals. The network that comes with the package is always measured, as ``shipped``. A ``--choice`` is a short run
that differs from the first one in a single decision. ``--only-shipped`` measures the package's network again, after
it has been replaced, and keeps all other results in the file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from world_realism import Published

import twodasl_lite
from twodasl_lite.base.archive import whole_file
from twodasl_lite.datasets.aflw import read_aflw, training_set
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000, read_basel_landmarks
from twodasl_lite.evaluation import nme, paired_difference, summarise
from twodasl_lite.evaluation.benchmark import MAIN, evaluate, jittered_boxes, release_predictions
from twodasl_lite.faces import MorphableModel, load_face_model, read_face_model
from twodasl_lite.faces.build import align
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.faces.fitting import fit_landmarks
from twodasl_lite.faces.readers.ict import read_ict_npz
from twodasl_lite.geometry.camera import CROP_SIZE, crop_to_image, euler_to_matrix, image_to_crop
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import flip_landmarks, subset_18
from twodasl_lite.geometry.photos import crop_photo, landmarks_box
from twodasl_lite.losses import SELF_SUPERVISED
from twodasl_lite.networks import TrainedRegressor, load_regressor
from twodasl_lite.networks.prediction import predict_with
from twodasl_lite.networks.trained import DEFAULT, trained_regressor
from twodasl_lite.worlds.synthetic import TEST_SEED, SyntheticFaces

UNIT = 1e-5
AMOUNTS = (0.0, 0.025, 0.05, 0.1, 0.15, 0.2)
SEEDS = (0, 1, 2)
JAW = 17
CHUNK = 100  # number of photographs in memory at a time
DRAWN = 2000  # number of drawn test pictures
YAWS = (0, 15, 30, 45, 60, 75, 90)
ICT = Path("ict-facekit", "ict_face_model_light.npz")
OUT = Path(twodasl_lite.__file__).parent / "assets" / "results" / "photos_cpu.json"
AUTHORS, OTHER, SHIPPED = "2DASL", "3DDFA_V2", "shipped"
MAP, MIRROR = ", with a detector", ", mirrored too"

Landmarks = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""Pictures ``(B, 3, 120, 120)`` and detected points ``(B, 68, 2)`` or None to landmarks ``(B, 68, 2)``, crop pixels."""


class Ours(NamedTuple):
    """One of our networks together with its face model."""

    trained: TrainedRegressor
    model: MorphableModel

    def __call__(self, images: torch.Tensor, detected: torch.Tensor | None) -> torch.Tensor:
        """Predict landmarks, with two looks if there are no detected points."""
        points = None if detected is None else subset_18(detected)
        return predict_with(self.trained, images, points, model=self.model).landmarks[..., :2].double()


def read_run(folder: Path) -> Ours:
    """Load a network and the face model that its configuration names."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    path = config.get("data", {}).get("face_model", "")
    model = (read_face_model(path).with_layout if path else load_face_model)(CoefficientLayout())
    return Ours(load_regressor(folder / "last.safetensors"), model.float())


def run_facts(folder: Path) -> dict[str, object]:
    """Facts from a run's own files: size, time, last error on drawn pictures."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    source = config.get("data", {}).get("unlabelled", {}).get("kind", "")
    losses = config.get("self_supervision", {})
    drawn = [row["landmarks_2d"]["balanced"] for row in rows if row.get("kind") == "validation"]
    ends = [row for row in rows if row.get("kind") == "end"]
    return {
        "name": config.get("name", ""),
        "seed": config.get("seed", 0),
        "photographs": source == "aflw" and any(losses.get(name, 0) > 0 for name in SELF_SUPERVISED),
        "steps": ends[-1]["step"] if ends else None,
        "seconds": round(ends[-1]["seconds"]) if ends else None,
        "drawn": round(100 * drawn[-1], 3) if drawn else None,
    }


def whole(values: torch.Tensor) -> list[int]:
    """Errors as integer multiples of the unit."""
    return torch.round(values / UNIT).to(torch.int64).tolist()


def per_cent(value: float) -> float:
    """Convert to tensors for tables."""
    return round(100 * value, 3)


def table(errors: torch.Tensor, yaw: torch.Tensor) -> dict[str, object]:
    """Errors of three bins, balanced and mean, each with its interval, in per cent."""
    found = summarise(errors, yaw)
    return {
        "values": [per_cent(value) for value in found.values()],
        "intervals": [[per_cent(end) for end in interval] for interval in found.intervals()],
    }


def balanced(errors: torch.Tensor, yaw: torch.Tensor) -> float:
    """Errors in per cent."""
    return per_cent(summarise(errors, yaw, intervals=False).balanced)


def mirrored_too(predict: Landmarks, images: torch.Tensor, detected: torch.Tensor | None) -> torch.Tensor:
    """Average a picture's landmarks with those of its mirror image, mirrored back."""
    other = None if detected is None else flip_landmarks(detected, CROP_SIZE)
    back = flip_landmarks(predict(images.flip(-1), other), CROP_SIZE)
    return (predict(images, detected) + back) / 2


def stacked(photos: list[np.ndarray]) -> torch.Tensor:
    """``(B, 3, 120, 120)`` uint8."""
    return torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()


VARIANTS: dict[str, Callable[[Landmarks, torch.Tensor, torch.Tensor | None], torch.Tensor]] = {
    "": lambda predict, images, _: predict(images, None),
    MIRROR: lambda predict, images, _: mirrored_too(predict, images, None),
    MAP: lambda predict, images, detected: predict(images, detected),
    MAP + MIRROR: mirrored_too,
}
"""Variants of a network's input; each is a suffix of its name."""


def on_release_crops(methods: dict[str, Landmarks], dataset: AFLW2000) -> tuple[dict, dict, dict]:
    """Landmarks in the crop by variant, the same with red and blue swapped, and milliseconds per picture."""
    found: dict[str, list[torch.Tensor]] = {}
    swapped: dict[str, list[torch.Tensor]] = {}
    seconds: dict[str, float] = {}
    for first in range(0, len(dataset), CHUNK):
        names = dataset.names[first : first + CHUNK]
        images = stacked([dataset.crop(name) for name in names])
        detected = dataset.detected[first : first + CHUNK]
        for name, predict in methods.items():
            swapped.setdefault(name, []).append(predict(images.flip(1), None))
            for suffix, look in VARIANTS.items():
                if MAP not in suffix or isinstance(predict, Ours):
                    start = time.perf_counter()
                    found.setdefault(name + suffix, []).append(look(predict, images, detected))
                    seconds[name + suffix] = seconds.get(name + suffix, 0.0) + time.perf_counter() - start
        print(f"\r{first + len(names)} crops", end="", file=sys.stderr)
    milliseconds = {name: round(1000 * spent / len(dataset), 2) for name, spent in seconds.items()}
    return *({name: torch.cat(parts) for name, parts in kind.items()} for kind in (found, swapped)), milliseconds


def on_other_boxes(methods: dict[str, Landmarks], dataset: AFLW2000, boxes: dict[str, torch.Tensor]) -> dict:
    """Errors on crops cut again from the photographs: box to method to errors."""
    found: dict[str, dict[str, list[torch.Tensor]]] = {key: {} for key in boxes}
    for first in range(0, len(dataset), CHUNK):
        part = slice(first, first + CHUNK)
        photos = [dataset.photo(name) for name in dataset.names[part]]
        in_photo = crop_to_image(dataset.detected[part], dataset.boxes[part])
        for key, every in boxes.items():
            cut = every[part]
            images = stacked([crop_photo(photo, box) for photo, box in zip(photos, cut, strict=True)])
            detected = image_to_crop(in_photo, cut)
            for name, predict in methods.items():
                variants = {name: None} | ({name + MAP: detected} if isinstance(predict, Ours) else {})
                for variant, points in variants.items():
                    placed = crop_to_image(predict(images, points), cut)
                    error = nme(placed, dataset.landmarks[part, :, :2])
                    found[key].setdefault(variant, []).append(error)
        print(f"\r{first + len(photos)} photographs", end="", file=sys.stderr)
    return {key: {name: torch.cat(parts) for name, parts in kind.items()} for key, kind in found.items()}


def other_boxes(dataset: AFLW2000) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Boxes off by several amounts, and boxes around a detector's landmarks; the latter also separately."""
    boxes = {f"{a:g}/{s}": jittered_boxes(dataset.boxes, a, s) for a in AMOUNTS for s in (SEEDS if a else (0,))}
    seen = torch.isfinite(dataset.detected).flatten(1).all(dim=1)
    in_photo = torch.where(
        seen[:, None, None], crop_to_image(dataset.detected, dataset.boxes), dataset.landmarks[..., :2]
    )
    around = landmarks_box(in_photo)
    boxes["detector"] = around
    return boxes, around


def boxes_compared(boxes: torch.Tensor, detected: torch.Tensor) -> dict[str, float]:
    """How far boxes around a detector's landmarks are from those around the true ones, in sides of the true box."""
    side = boxes[:, 2] - boxes[:, 0]
    shift = ((detected[:, :2] + detected[:, 2:]) - (boxes[:, :2] + boxes[:, 2:])) / 2 / side[:, None]
    size = (detected[:, 2] - detected[:, 0]) / side - 1
    largest = torch.cat([shift.abs(), size.abs()[:, None]], dim=1).amax(dim=1)
    return {
        "shift, median": per_cent(float(shift.abs().amax(dim=1).median())),
        "size, median": per_cent(float(size.median())),
        "within 5 %": per_cent(float((largest <= 0.05).double().mean())),
        "within 10 %": per_cent(float((largest <= 0.1).double().mean())),
    }


def jaw(data: Path, dataset: AFLW2000) -> dict[str, object]:
    """Effect of how the jaw's 17 landmarks are defined: other models' points against Basel's, and on real faces."""
    basel, _ = read_basel_landmarks(data / "aflw2000-3d" / "bfm_68_landmarks.npz")
    goal = basel.mean
    turned = torch.stack([torch.zeros(len(YAWS)), torch.deg2rad(torch.tensor(YAWS)), torch.zeros(len(YAWS))], dim=1)
    R = euler_to_matrix(turned.double())  # (Y, 3, 3)
    models = {
        "ICT, outline": read_ict_npz(data / ICT).with_layout(CoefficientLayout()),
        "ICT, edge": read_ict_npz(data / ICT, jaw="edge").with_layout(CoefficientLayout()),
        "ICT, basel": read_ict_npz(data / ICT, jaw="basel").with_layout(CoefficientLayout()),
        "embedded": load_face_model(CoefficientLayout()),
    }
    result: dict[str, object] = {"yaw": list(YAWS), "means": {}, "fitted": {}}
    for name, model in models.items():
        points = model.mean[model.landmarks].double()
        laid = align(points[JAW:], goal[JAW:], with_scale=True).apply(points)
        distance = [(a - b)[:, :2].norm(dim=1) for a, b in zip(laid @ R.mT, goal @ R.mT, strict=True)]
        size = [(b[:, :2].amax(0) - b[:, :2].amin(0)).prod().sqrt() for b in goal @ R.mT]
        result["means"][name] = {
            part: [per_cent(float(d[which].sum() / len(d) / s)) for d, s in zip(distance, size, strict=True)]
            for part, which in (("jaw", slice(0, JAW)), ("rest", slice(JAW, None)))
        }
        true = dataset.landmarks[..., :2]
        fit = fit_landmarks(image_to_crop(true, dataset.boxes).float(), model).coefficients
        placed = crop_to_image(decode_landmarks(fit, model)[..., :2].double(), dataset.boxes)
        result["fitted"][name] = balanced(nme(placed, true), dataset.yaw)
    return result


def drawn_faces(ours: Ours) -> dict[str, object]:
    """The shipped network on pictures of its training world, with and without a simulated detector."""
    parts, yaws = {"": [], MAP: [], "swapped": []}, []
    faces = SyntheticFaces(ours.model, "wild", seed=TEST_SEED)
    for first in range(0, DRAWN, CHUNK):
        batch = faces.batch(first, CHUNK, truth=True)
        true = batch.landmarks[..., :2].double()
        yaws.append(batch.yaw)
        parts[""].append(nme(ours(batch.images, None), true))
        parts["swapped"].append(nme(ours(batch.images.flip(1), None), true))
        shown = predict_with(ours.trained, batch, model=ours.model).landmarks[..., :2].double()
        parts[MAP].append(nme(shown, true))
    yaw = torch.cat(yaws).double()
    return {key: table(torch.cat(values), yaw) for key, values in parts.items()}


def commit_of(folder: Path | str) -> str:
    """The commit's first eight digits, or ``"unknown"``."""
    done = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:8] or "unknown"


def averaged(errors: dict[str, torch.Tensor], members: dict[str, list[str]]) -> dict[str, torch.Tensor]:
    """Combine the rows of several runs: name and variant of a method to errors ``(S, N)``."""
    grouped = {}
    for name, keys in members.items():
        suffixes = [key.removeprefix(keys[0]) for key in errors if key == keys[0] or key.startswith(f"{keys[0]},")]
        for suffix in suffixes:
            grouped[name + suffix] = torch.stack([errors[key + suffix] for key in keys])
    return grouped


def differences(errors: dict[str, torch.Tensor], yaw: torch.Tensor, rows: list[str]) -> dict[str, list[float]]:
    """Differences of balanced errors between pairs of methods, with paired intervals, in per cent."""
    pairs = []
    for suffix in VARIANTS:
        pairs += [(b + suffix, a + suffix) for i, a in enumerate(rows) for b in rows[i + 1 :]]
        pairs += [(row + suffix, other) for row in (*rows, SHIPPED) for other in (AUTHORS, OTHER)]
    pairs.append((OTHER, AUTHORS))
    found = {}
    for first, second in pairs:
        a, b = torch.broadcast_tensors(errors[first], errors[second])
        difference = paired_difference(a, b, yaw)
        found[f"{first} - {second}"] = [per_cent(value) for value in difference[:3]]
    return found


def choices(runs: list[tuple[str, Path]], dataset: AFLW2000, answered: list[int]) -> dict[str, dict[str, object]]:
    """Balanced errors in per cent of short runs that differ in one decision, without and with a detector."""
    found = {}
    for name, folder in runs:
        points, _, _ = on_release_crops({name: read_run(folder)}, dataset)
        placed = {suffix: crop_to_image(points[name + suffix], dataset.boxes) for suffix in ("", MAP)}
        errors = {suffix: nme(value, dataset.landmarks[..., :2])[answered] for suffix, value in placed.items()}
        found[name] = {
            "steps": run_facts(folder)["steps"],
            "values": [balanced(value, dataset.yaw[answered]) for value in errors.values()],
        }
    return found


def main(options: argparse.Namespace) -> None:
    """Run all measurements and write the results."""
    torch.set_num_threads(1)
    dataset = read_aflw2000(options.clone)
    basel, whitening = read_basel_landmarks(options.data / "aflw2000-3d" / "bfm_68_landmarks.npz")
    release = evaluate(release_predictions(dataset), dataset, model=basel, whitening=whitening, resamples=100)
    published = Published(options.tddfa, options.data / "aflw2000-3d" / "bfm_68_landmarks.npz")
    shipped = Ours(trained_regressor(DEFAULT), load_face_model(CoefficientLayout()))
    methods: dict[str, Landmarks] = {OTHER: lambda images, _: published.landmarks(images)[..., :2].double()}
    methods[SHIPPED] = shipped
    members, facts = {OTHER: [OTHER], SHIPPED: [SHIPPED]}, {}
    for name, folder in options.run:
        key = f"{name}#{len(members.get(name, []))}"
        methods[key] = read_run(folder)
        members.setdefault(name, []).append(key)
        facts.setdefault(name, []).append(run_facts(folder))
    rows = [name for name in members if name not in (OTHER, SHIPPED)]

    points, swapped, times = on_release_crops(methods, dataset)
    true, yaw = dataset.landmarks[..., :2], dataset.yaw

    def measured(found: dict[str, torch.Tensor], mapping: str) -> dict[str, torch.Tensor]:
        boxes = dataset.boxes_for(mapping)
        single = {name: nme(crop_to_image(value, boxes, mapping), true) for name, value in found.items()}
        return averaged(single, members)

    exact, bench, colours = measured(points, "exact"), measured(points, "bench"), measured(swapped, "exact")
    answered = [dataset.names.index(name) for name in release.names]
    common = {name: errors[:, answered] for name, errors in exact.items()} | {AUTHORS: release.errors[MAIN][None]}
    own = yaw[answered]

    boxes, around = other_boxes(dataset)
    moved = {key: averaged(found, members) for key, found in on_other_boxes(methods, dataset, boxes).items()}

    extent = (image_to_crop(true, dataset.boxes).amax(dim=1) - image_to_crop(true, dataset.boxes).amin(dim=1)).amax(
        dim=1
    )
    crops = training_set(read_aflw(options.clone), dataset.names, dataset.crop)
    file = f"XgTu/2DASL, commit {commit_of(options.clone)}"
    content = {
        "file": file
        if "unknown" not in file
        else json.loads((OUT.parents[1] / "aflw2000_errors.json").read_text())["file"],
        "how": "python benchmarks/in_the_wild.py CLONE DATA --tddfa 3DDFA_V2 --run NAME=FOLDER ...",
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(Path(__file__).parent),
        "unit": UNIT,
        "rows": rows,
        "runs": facts,
        "names": [int(name.removeprefix("image")) for name in dataset.names],
        "yaw": [round(value, 2) for value in yaw.tolist()],
        "undetected": [int(name.removeprefix("image")) for name in release.missing],
        "errors": {name: [whole(run) for run in errors] for name, errors in exact.items()},
        "labels": whole(nme(dataset.reannotated + 1, true)),
        "tables": {name: table(errors, own) for name, errors in common.items()},
        "bench": {name: balanced(errors[:, answered], own) for name, errors in bench.items()},
        "all pictures": {name: balanced(errors, yaw) for name, errors in exact.items()},
        "differences": differences(common, own, rows),
        "colours": {name: balanced(errors[:, answered], own) for name, errors in colours.items()},
        "choices": choices(options.choice, dataset, answered),
        "drawn": drawn_faces(shipped),
        "boxes": {
            key: {name: table(errors[:, answered], own) for name, errors in found.items()}
            for key, found in moved.items()
        },
        "detector's boxes": boxes_compared(dataset.boxes[answered], around[answered]),
        "longest side": {
            "mean": round(float(extent.mean()), 2),
            "within half a pixel": per_cent(float(((extent - 84.5).abs() < 0.5).double().mean())),
        },
        "jaw": jaw(options.data, dataset),
        "training crops": {
            "all": len(read_aflw(options.clone)),
            "kept": len(crops.faces),
            "near copies": len({pair.second for pair in crops.duplicates}),
            "of test pictures": len({pair.first for pair in crops.duplicates}),
        },
        "milliseconds": {
            name: times[keys[0] + suffix]
            for name, keys in members.items()
            for suffix in ("", MAP)
            if keys[0] + suffix in times
        },
    }
    with whole_file(options.out) as file:
        file.write((json.dumps(content, separators=(",", ":")) + "\n").encode())
    shown = (
        "tables",
        "bench",
        "all pictures",
        "differences",
        "colours",
        "choices",
        "drawn",
        "detector's boxes",
        "longest side",
        "jaw",
        "training crops",
        "milliseconds",
        "runs",
    )
    print(json.dumps({key: content[key] for key in shown}, indent=1))
    print(f"{options.out}: {options.out.stat().st_size} bytes")


def only_shipped(options: argparse.Namespace) -> None:
    """Measure the package's network again and update its numbers in the file."""
    torch.set_num_threads(1)
    content = json.loads(options.out.read_text("utf-8"))
    dataset = read_aflw2000(options.clone)
    names = [int(name.removeprefix("image")) for name in dataset.names]
    if names != content["names"]:
        raise SystemExit(f"{options.out}: found errors of other pictures than those of {options.clone}")
    basel, whitening = read_basel_landmarks(options.data / "aflw2000-3d" / "bfm_68_landmarks.npz")
    release = evaluate(release_predictions(dataset), dataset, model=basel, whitening=whitening, resamples=100)
    answered = [dataset.names.index(name) for name in release.names]
    shipped = Ours(trained_regressor(DEFAULT), load_face_model(CoefficientLayout()))
    true, yaw, own = dataset.landmarks[..., :2], dataset.yaw, dataset.yaw[answered]

    points, swapped, times = on_release_crops({SHIPPED: shipped}, dataset)

    def measured(found: dict[str, torch.Tensor], mapping: str) -> dict[str, torch.Tensor]:
        boxes = dataset.boxes_for(mapping)
        return {name: nme(crop_to_image(value, boxes, mapping), true) for name, value in found.items()}

    exact, bench, colours = measured(points, "exact"), measured(points, "bench"), measured(swapped, "exact")
    content["errors"] |= {name: [whole(errors)] for name, errors in exact.items()}
    content["tables"] |= {name: table(errors[answered], own) for name, errors in exact.items()}
    content["bench"] |= {name: balanced(errors[answered], own) for name, errors in bench.items()}
    content["all pictures"] |= {name: balanced(errors, yaw) for name, errors in exact.items()}
    content["colours"] |= {name: balanced(errors[answered], own) for name, errors in colours.items()}
    others = {
        AUTHORS: release.errors[MAIN],
        OTHER: UNIT * torch.tensor(content["errors"][OTHER][0], dtype=torch.float64)[answered],
    }
    for name, errors in exact.items():
        for other, theirs in others.items():
            difference = paired_difference(errors[answered], theirs, own)
            content["differences"][f"{name} - {other}"] = [per_cent(value) for value in difference[:3]]
    boxes, _ = other_boxes(dataset)
    for key, found in on_other_boxes({SHIPPED: shipped}, dataset, boxes).items():
        content["boxes"][key] |= {name: table(errors[answered], own) for name, errors in found.items()}
    content["drawn"] = drawn_faces(shipped)
    content["jaw"] = jaw(options.data, dataset)  # sizes of the network's face model, too
    content["milliseconds"] |= {name: value for name, value in times.items() if MIRROR not in name}
    content["shipped"] = {
        "network": DEFAULT,
        "date": datetime.date.today().isoformat(),
        "commit": commit_of(Path(__file__).parent),
        "how": "python benchmarks/in_the_wild.py CLONE DATA --only-shipped",
    }
    with whole_file(options.out) as file:
        file.write((json.dumps(content, separators=(",", ":")) + "\n").encode())
    print(json.dumps({name: content["tables"][name]["values"] for name in exact}, indent=1))
    for key in content["boxes"]:
        print(key, {name: content["boxes"][key][name]["values"][3] for name in (SHIPPED, SHIPPED + MAP)})


def named_folder(text: str) -> tuple[str, Path]:
    """NAME=FOLDER."""
    name, sign, folder = text.partition("=")
    if not sign or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"found {text!r}; expected NAME=FOLDER, the folder of a run")
    return name, Path(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clone", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tddfa", type=Path, help="a clone of 3DDFA_V2; required unless --only-shipped is given")
    parser.add_argument("--run", type=named_folder, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--choice", type=named_folder, action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--only-shipped", action="store_true", help="measure only the package's network again")
    given = parser.parse_args()
    if given.tddfa is None and not given.only_shipped:
        parser.error("--tddfa: found none; expected a clone of 3DDFA_V2, or --only-shipped")
    (only_shipped if given.only_shipped else main)(given)
