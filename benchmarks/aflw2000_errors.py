"""Measure the results that chapter 15 shows without the data, and write them to ``twodasl_lite/assets``.

Needs a clone of ``XgTu/2DASL`` and the folder that ``TWODASL_DATA`` names (see chapter 15). Only errors and yaws are
stored, no pictures and no landmarks.

    python benchmarks/aflw2000_errors.py CLONE DATA
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import twodasl_lite
from twodasl_lite.base.archive import whole_file
from twodasl_lite.datasets.aflw import near_duplicates, read_aflw, thumbnails
from twodasl_lite.datasets.aflw2000 import read_aflw2000, read_basel_landmarks
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.evaluation.benchmark import (
    DEPTH_MEASURE,
    MAIN,
    REANNOTATED,
    REANNOTATED_SHIFTED,
    evaluate,
    jittered_boxes,
    release_predictions,
)
from twodasl_lite.evaluation.predictions import Predictions
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE, crop_to_image, image_to_crop

UNIT = 1e-5
LONGEST = 84.5  # pixels: the longer side of the landmarks' box in the crops
JITTERS = (0.0, 0.05, 0.1)
OUT = Path(twodasl_lite.__file__).parent / "assets" / "aflw2000_errors.json"


def whole(values: torch.Tensor) -> list[int]:
    """Errors as integer multiples of the unit."""
    return torch.round(values / UNIT).to(torch.int64).tolist()


def table(errors: torch.Tensor, yaw: torch.Tensor) -> list[float]:
    """Errors in per cent: three bins, balanced, mean."""
    return [round(100 * value, 4) for value in summarise(errors, yaw, intervals=False).values()]


def placed(every, boxes: torch.Tensor) -> torch.Tensor:
    """Errors of predictions that know each face except its size and position, and place it as the crops do."""
    points = every.landmarks[..., :2]
    low, high = points.amin(dim=1, keepdim=True), points.amax(dim=1, keepdim=True)
    longest = (high - low).amax(dim=-1, keepdim=True)
    crop = (points - (low + high) / 2) / longest * LONGEST + (CROP_SIZE - 1) / 2
    return nme(crop_to_image(crop, boxes), points)


def main(clone: Path, data: Path) -> None:
    """Measure and write."""
    every = read_aflw2000(clone)
    model, whitening = read_basel_landmarks(data / "aflw2000-3d" / "bfm_68_landmarks.npz")
    release = release_predictions(every)
    exact = evaluate(release, every, "exact", model=model, whitening=whitening)
    bench = evaluate(release, every, "bench", model=model, whitening=whitening)
    known = every.take([every.names.index(name) for name in exact.names])
    crop = decode_landmarks(whitening.unwhiten(release.values), model)
    unclamped = nme(crop_to_image(crop, known.boxes, "bench")[..., :2], known.landmarks[..., :2])

    annotated = every.with_annotations()
    decoded = decode_landmarks(annotated.coefficients("exact", units="um").pack(), model)
    truth = crop_to_image(decoded, annotated.boxes)
    perfect = image_to_crop(every.landmarks, every.boxes)
    through = crop_to_image(perfect, every.published_boxes, "bench")
    extent = (perfect.amax(dim=1) - perfect.amin(dim=1))[:, :2].amax(dim=1)

    with np.load(data / "aflw2000-3d" / "aflw2000_every_fifth.npz") as content:
        names = tuple(str(name) for name in content["names"])
        points = torch.from_numpy(content["landmarks68_3ddfa_v2_bench"]).double().mT - 1
    other = evaluate(Predictions(names, points, "landmarks"), every)

    faces = read_aflw(clone)
    others = faces.without(every.names).thumbnails()
    own = thumbnails([name for name in faces.names if name in set(every.names)], faces.crop)
    cuts = {"test crops": thumbnails(every.names, every.crop), "crops cut alike": own}
    pairs = {name: near_duplicates(test, others) for name, test in cuts.items()}

    commit = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    content = {
        "file": "XgTu/2DASL, commit " + (commit.stdout.strip()[:8] or "unknown"),
        "how": "python benchmarks/aflw2000_errors.py CLONE DATA",
        "date": datetime.date.today().isoformat(),
        "unit": UNIT,
        "names": [int(name.removeprefix("image")) for name in exact.names],
        "yaw": [round(value, 2) for value in exact.yaw.tolist()],
        "2dasl": {
            "bench": whole(bench.errors[MAIN]),
            "exact": whole(exact.errors[MAIN]),
            "3d": whole(exact.errors[DEPTH_MEASURE]),
        },
        "3ddfa_v2": {"names": [int(name.removeprefix("image")) for name in names], "bench": whole(other.errors[MAIN])},
        "tables": {
            "2DASL, bench": table(bench.errors[MAIN], bench.yaw),
            "2DASL, bench with whole boxes": table(unclamped, known.yaw),
            "2DASL, exact": table(exact.errors[MAIN], exact.yaw),
            "2DASL, bench, re-annotated": table(bench.errors[REANNOTATED], bench.yaw),
            "2DASL, bench, re-annotated + 1 px": table(bench.errors[REANNOTATED_SHIFTED], bench.yaw),
            "annotations cut to 40 + 10": table(nme(truth[..., :2], annotated.landmarks[..., :2]), annotated.yaw),
            "true landmarks mapped back by bench": table(nme(through[..., :2], every.landmarks[..., :2]), every.yaw),
        },
        "missing": [int(name.removeprefix("image")) for name in exact.missing],
        "boxes_cut": int((every.boxes != every.published_boxes).any(dim=1).sum()),
        "longest_side": {"mean": round(float(extent.mean()), 3), "std": round(float(extent.std()), 3)},
        "placement": {
            f"{amount:g}": table(placed(every, jittered_boxes(every.boxes, amount)), every.yaw) for amount in JITTERS
        },
        "beyond_90": {
            int(name.removeprefix("image")): round(yaw, 1)
            for name, yaw in zip(every.names, every.yaw.tolist(), strict=True)
            if abs(yaw) > 90
        },
        "duplicates": {name: len({pair.first for pair in found}) for name, found in pairs.items()}
        | {"either": len({pair.first for found in pairs.values() for pair in found})},
    }
    with whole_file(OUT) as file:
        file.write((json.dumps(content, separators=(",", ":")) + "\n").encode())
    print(f"{OUT}: {OUT.stat().st_size} bytes")
    print(json.dumps({key: content[key] for key in ("tables", "boxes_cut", "longest_side", "duplicates")}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
