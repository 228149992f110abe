"""The ablation's networks on real photographs: the 2,000 faces of AFLW2000-3D, which no run has seen.

Each ``--row`` consists of a title, the folder of an ablation and the name of its row; the first is the baseline:

    python benchmarks/ablation_on_photos.py --root 2DASL \\
        --row "+landmarks_2d" runs/ablation +landmarks_2d --row "all" runs/ablation all

Errors are balanced over the yaw bins. Differences are paired by picture and seed; intervals are over both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000
from twodasl_lite.evaluation import paired_difference, summarise
from twodasl_lite.evaluation.benchmark import DEPTH_MEASURE, MAIN, evaluate, predict_faces
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.networks import load_regressor
from twodasl_lite.networks.trained import ASSETS
from twodasl_lite.training.log import code_version, describe_device

MEASURES = {"landmarks_2d": MAIN, "landmarks_3d": DEPTH_MEASURE}
WAYS = {"": True, "_without_detector": False}


def errors_of(network: Path, dataset: AFLW2000, model: MorphableModel) -> dict[str, torch.Tensor]:
    """Errors ``(N,)`` of one network by measure, with a detector's landmarks and without."""
    regressor = load_regressor(network)
    found = {}
    for way, detected in WAYS.items():
        predictions, _ = predict_faces(
            regressor.network,
            regressor.whitening,
            dataset,
            model,
            detected=detected,
            kind=regressor.metadata["map_kind"],
            pose=regressor.pose,
        )
        report = evaluate(predictions, dataset, model=model, whitening=regressor.whitening, resamples=100)
        found |= {name + way: report.errors[measure] for name, measure in MEASURES.items()}
    return found | {"yaw": report.yaw}


def per_cent(value: float) -> float:
    """Fractions to per cent."""
    return round(100 * float(value), 3)


def main() -> None:
    """Evaluate all runs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True, help="a clone of XgTu/2DASL")
    parser.add_argument("--row", nargs=3, action="append", required=True, metavar=("TITLE", "FOLDER", "ROW"))
    parser.add_argument("--out", type=Path, default=ASSETS / "results" / "ablation_photos.json")
    options = parser.parse_args()
    started = time.perf_counter()
    dataset = read_aflw2000(options.root)
    model = load_face_model(CoefficientLayout())
    errors: dict[str, list[dict[str, torch.Tensor]]] = {}
    commits = {}
    for title, folder, row in options.row:
        files = sorted(Path(folder, row).glob("seed-*/last.safetensors"))
        if not files:
            raise SystemExit(f"{Path(folder, row)}: found no finished run; expected at least one")
        errors[title] = [errors_of(file, dataset, model) for file in files]
        result = json.loads((files[0].parent / "result.json").read_text(encoding="utf-8"))
        commits[title] = result["code"]["commit"][:12]
        print(f"{title}: {len(files)} seeds", flush=True)

    baseline, rows = next(iter(errors)), {}
    for title, runs in errors.items():
        yaw = runs[0]["yaw"]
        entry = rows[title] = {"seeds": len(runs), "commit": commits[title]}
        for name in (measure + way for measure in MEASURES for way in WAYS):
            stacks = [torch.stack([run[name] for run in errors[one][: len(runs)]]) for one in (title, baseline)]
            table, difference = summarise(stacks[0], yaw), paired_difference(*stacks, yaw)
            entry[name] = {
                "balanced": per_cent(table.balanced),
                "interval": [per_cent(end) for end in table.balanced_interval],
                "seeds": [per_cent(summarise(one, yaw, intervals=False).balanced) for one in stacks[0]],
                "difference": [per_cent(value) for value in (difference.value, difference.low, difference.high)],
            }
    content = {
        "faces": len(dataset),
        "baseline": baseline,
        "rows": rows,
        "code": code_version(),
        "device": describe_device(torch.device("cpu")),
        "seconds": round(time.perf_counter() - started),
    }
    with whole_file(options.out) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    for title, entry in rows.items():
        print(title)
        for name in (measure + way for measure in MEASURES for way in WAYS):
            value, low, high = entry[name]["difference"]
            print(f"  {name:32} {entry[name]['balanced']:6.2f}  {value:+.2f} [{low:+.2f}, {high:+.2f}]")


if __name__ == "__main__":
    main()
