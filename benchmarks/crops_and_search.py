"""How often to cut again, and how sure is sure enough? Two constants of the package, measured on photographs.

    python benchmarks/crops_and_search.py recrops CLONE             RECROPS in reconstruction.py: 3 minutes on one core
    python benchmarks/crops_and_search.py threshold CLONE           FACE in face_search.py: 4 minutes on one core

``CLONE`` is a clone of ``XgTu/2DASL``, which has AFLW2000-3D. Every fourth photograph is for choosing (``--part
tuning``, 500 of them, the default), the others for the report (``--part report``); ``--count`` takes that many of a
part, evenly spread. The network is the package's, or ``--network FILE``.

*recrops*: the error over the 68 landmarks after 0 to 4 crops around the answer, from true boxes and from boxes whose
middle and size are off by up to 10 and 20 %.

*threshold*: the search without a detector in whole photographs, and in pieces of them beside the head. A face is found
if its crop overlaps the true one by half (intersection over union); what else is found in a photograph, or in a piece,
is a false alarm. The pieces may show shoulders, hands and now and then somebody else.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.apps.face_search import FACE, search_faces
from twodasl_lite.apps.reconstruction import RECROPS, overlap, reconstruct
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000
from twodasl_lite.evaluation import nme
from twodasl_lite.evaluation.benchmark import jittered_boxes
from twodasl_lite.faces import load_face_model, read_face_model
from twodasl_lite.networks import load_regressor
from twodasl_lite.networks.trained import trained_regressor

EVERY = 4  # each so-manieth photograph is for choosing
TIMES = range(5)
AMOUNTS = (0.0, 0.1, 0.2)
THRESHOLDS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
LEAST = 0.3  # agreement from which on faces are kept to be counted
SAME = 0.5
BESIDE, SMALLEST = 1.15, 100  # sides of the crop box that count as the head; least side of a piece in pixels


def chosen(dataset: AFLW2000, part: str, count: int) -> list[int]:
    """Indices of photographs of a part of the set."""
    of_part = [k for k in range(len(dataset)) if (k % EVERY == 0) == (part == "tuning")]
    if count >= len(of_part):
        return of_part
    return [of_part[int(k * len(of_part) / count)] for k in range(count)]


def progress(done: int, total: int) -> None:
    """On the terminal, apart from the table."""
    print(f"\r{done} of {total}", end="" if done < total else "\n", file=sys.stderr)


def measure_recrops(dataset: AFLW2000, indices: list[int], trained, model) -> None:
    """Print errors by amount and times."""
    errors = torch.zeros(len(AMOUNTS), len(TIMES), len(indices))
    seconds = torch.zeros(len(TIMES))
    boxes = [jittered_boxes(dataset.boxes, amount, seed=7) for amount in AMOUNTS]
    for column, index in enumerate(indices):
        photo, truth = dataset.photo(dataset.names[index]), dataset.landmarks[index, :, :2].float()
        for row, every in enumerate(boxes):
            crop = every[index].float()
            middle, half = (crop[:2] + crop[2:]) / 2, (crop[2] - crop[0]) / 2 / math.sqrt(2)
            box = torch.cat([middle - half, middle + half])  # of the face: reconstruct makes this very crop of it
            for times in TIMES:
                start = time.process_time()
                (face,) = reconstruct(photo, trained, model, boxes=box, recrops=times)
                seconds[times] += time.process_time() - start
                errors[row, times, column] = float(nme(face.landmarks[None, :, :2], truth[None])[0])
        progress(column + 1, len(indices))
    print(
        f"{len(indices)} photographs; NME in %: mean (share of faces beyond 15 %); the package's RECROPS is {RECROPS}"
    )
    print("| boxes off by | " + " | ".join(f"{times} times" for times in TIMES) + " |")
    print("|---" * (len(TIMES) + 1) + "|")
    for amount, row in zip(AMOUNTS, errors, strict=True):
        cells = [f"{100 * one.mean():.2f} ({100 * (one > 0.15).float().mean():.1f})" for one in row]
        print(f"| {amount:.0%} | " + " | ".join(cells) + " |")
    spent = 1000 * seconds / len(indices) / len(AMOUNTS)
    print("| ms of one core | " + " | ".join(f"{value:.0f}" for value in spent.tolist()) + " |")


def background(photo: np.ndarray, crop: torch.Tensor) -> np.ndarray | None:
    """The largest piece of a photo beside, above or below the head; none if all are small."""
    middle, half = (crop[:2] + crop[2:]) / 2, (crop[2] - crop[0]) / 2 * BESIDE
    left, top = (int(max(0, v)) for v in (middle - half).floor())
    right, bottom = (int(v) for v in (middle + half).ceil())
    pieces = [photo[:, :left], photo[:, right:], photo[:top], photo[bottom:]]
    pieces = [piece for piece in pieces if min(piece.shape[:2]) >= SMALLEST and piece.std() > 5]  # no plain border
    return np.ascontiguousarray(max(pieces, key=lambda piece: piece.shape[0] * piece.shape[1])) if pieces else None


def measure_threshold(dataset: AFLW2000, indices: list[int], trained, model) -> None:
    """Print shares of faces found and of false alarms by threshold."""
    hits, others, alarms = [], [], []
    spent, pixels = 0.0, 0
    for column, index in enumerate(indices):
        photo, crop = dataset.photo(dataset.names[index]), dataset.boxes[index].float()
        start = time.process_time()
        faces = search_faces(photo, trained, model, min_agreement=LEAST)
        spent += time.process_time() - start
        near = [overlap(face.crop_box, crop) >= SAME for face in faces]
        hits.append(max((f.confidence for f, close in zip(faces, near, strict=True) if close), default=0.0))
        others.append(max((f.confidence for f, close in zip(faces, near, strict=True) if not close), default=0.0))
        piece = background(photo, crop)
        if piece is not None:
            found = search_faces(piece, trained, model, min_agreement=LEAST)
            alarms.append(max((face.confidence for face in found), default=0.0))
            pixels += piece.shape[0] * piece.shape[1]
        progress(column + 1, len(indices))
    parts = [torch.tensor(part) for part in (hits, others, alarms)]
    print(
        f"{len(indices)} photographs, {1000 * spent / len(indices):.0f} ms of one core each; {len(alarms)} pieces "
        f"without the face, {pixels / max(len(alarms), 1) / 1000:.0f} thousand pixels each; its FACE is {FACE}"
    )
    print("| least agreement | faces found | photographs with another face | pieces with a face |\n|---|---|---|---|")
    for threshold in THRESHOLDS:
        shares = [f"{100 * (part >= threshold).float().mean():.1f} %" if len(part) else "none" for part in parts]
        print(f"| {threshold:g} | " + " | ".join(shares) + " |")


def main() -> int:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["recrops", "threshold"])
    parser.add_argument("clone", type=Path, help="a clone of XgTu/2DASL")
    parser.add_argument("--part", choices=["tuning", "report"], default="tuning")
    parser.add_argument("--count", type=int, help="photographs (default: 500 for recrops, 100 for threshold)")
    parser.add_argument("--network", type=Path, metavar="FILE", help="a trained network (default: the package's)")
    parser.add_argument("--face-model", type=Path, metavar="FILE", help="that it was trained with")
    options = parser.parse_args()
    count = options.count or {"recrops": 500, "threshold": 100}[options.what]
    trained = load_regressor(options.network) if options.network else trained_regressor()
    model = read_face_model(options.face_model) if options.face_model else load_face_model(trained.layout)
    model = model.with_layout(trained.layout).to(torch.float32)
    dataset = read_aflw2000(options.clone)
    measure = {"recrops": measure_recrops, "threshold": measure_threshold}[options.what]
    measure(dataset, chosen(dataset, options.part, count), trained, model)
    return 0


if __name__ == "__main__":
    sys.exit(main())
