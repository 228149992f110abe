"""Measure the errors of a real landmark detector, and write the results of chapter 7 to ``twodasl_lite/assets``.

Needs a clone of ``XgTu/2DASL``, for the landmarks of AFLW2000-3D and a detector's points on its crops. Only errors and
yaws are stored, no pictures and no landmarks.

    python benchmarks/detector_errors.py CLONE
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path

import torch

import twodasl_lite
from twodasl_lite.base.archive import whole_file
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000
from twodasl_lite.geometry.camera import image_to_crop
from twodasl_lite.geometry.landmarks import subset_18

UNIT = 1e-5
GROSS = 0.1
EDGES = (30.0, 60.0)
OUT = Path(twodasl_lite.__file__).parent / "assets" / "detector_errors.json"


def measure(faces: AFLW2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Errors ``(N, 18, 2)`` in crop pixels, and their mean ``(N,)`` in face sizes; NaN where the detector failed."""
    truth = image_to_crop(faces.landmarks, faces.boxes)[..., :2]  # (N, 68, 2)
    size = (truth.amax(dim=1) - truth.amin(dim=1)).prod(dim=-1).sqrt()  # (N,)
    error = subset_18(faces.detected) - subset_18(truth)
    return error, error.norm(dim=-1).mean(dim=1) / size


def spread(error: torch.Tensor) -> dict[str, list[float]]:
    """Standard deviations in x and y of the faces' shifts and of points about them, and the mean, in pixels."""
    shift = error.mean(dim=1)  # (N, 2)
    own = (error - shift[:, None]).flatten(0, 1)
    numbers = {"bias": shift.mean(dim=0), "shift": shift.std(dim=0), "point": own.std(dim=0)}
    return {name: [round(value, 3) for value in pair.tolist()] for name, pair in numbers.items()}


def main(clone: str) -> None:
    """Measure and write."""
    faces = read_aflw2000(clone)
    error, nme = measure(faces)
    yaw = faces.yaw.abs()
    kind = torch.bucketize(yaw, torch.tensor(EDGES, dtype=yaw.dtype))
    known = torch.isfinite(nme)
    commit = subprocess.run(["git", "-C", clone, "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True)
    result = {
        "file": f"XgTu/2DASL, commit {commit.stdout.strip() or '95052f20'}: detect_testData.txt",
        "how": "python benchmarks/detector_errors.py CLONE",
        "date": datetime.date.today().isoformat(),
        "unit": UNIT,
        "gross": f"faces off by more than {GROSS:.0%} are left out of the deviations",
        "deviations": [spread(error[known & (kind == k) & (nme <= GROSS)]) for k in range(len(EDGES) + 1)],
        "names": [int(name.removeprefix("image")) for name, keep in zip(faces.names, known, strict=True) if keep],
        "yaw": [round(value, 1) for value in faces.yaw[known].tolist()],
        "nme": torch.round(nme[known] / UNIT).long().tolist(),
    }
    with whole_file(OUT) as file:
        file.write(json.dumps(result, separators=(",", ":")).encode() + b"\n")
    print(f"{OUT}: {len(result['nme'])} faces, {OUT.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])
