"""Effect of completing the pose on the losses: two ablations that differ in nothing else, in one table.

    twodasl ablate --rows +landmarks_2d all --out runs/completed
    twodasl ablate --rows +landmarks_2d all --out runs/free --set network.pose=free
    python benchmarks/pose_forms.py runs/completed runs/free

Errors are those of the wild world's test pictures, balanced over the yaw bins. Differences are paired by picture and
seed, with intervals over both; those between the two folders are over the seeds that both have.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.evaluation import paired_difference, summarise
from twodasl_lite.networks.trained import ASSETS
from twodasl_lite.training.ablation import read_errors

ROWS = ("+landmarks_2d", "all")
FORMS = ("completed", "free")
MEASURES = ("landmarks_2d", "landmarks_3d", "vertices_3d")
WAYS = ("", "_without_detector")
SEEDS = range(100)


def read_runs(folder: Path) -> dict[str, dict[int, dict[str, torch.Tensor]]]:
    """Errors of the finished runs by row and seed."""
    return {
        row: {
            seed: read_errors(folder, row, seed)
            for seed in SEEDS
            if (folder / row / f"seed-{seed}/result.json").is_file()
        }
        for row in ROWS
    }


def per_cent(value: float) -> float:
    """Convert to tensors for tables."""
    return round(100 * float(value), 3)


def difference(first: dict, second: dict, name: str) -> dict[str, object]:
    """First minus second over their common seeds, in percentage points, with the ends of its interval."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return {"seeds": []}
    pair = [torch.stack([runs[seed][name] for seed in seeds]) for runs in (first, second)]
    found = paired_difference(*pair, next(iter(first.values()))["yaw"])
    return {"seeds": seeds, "value": per_cent(found.value), "low": per_cent(found.low), "high": per_cent(found.high)}


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("completed", type=Path, help="folder of `twodasl ablate`")
    parser.add_argument("free", type=Path, help="the same with network.pose=free")
    parser.add_argument("--out", type=Path, default=ASSETS / "results" / "pose_forms.json")
    options = parser.parse_args()
    runs = {form: read_runs(getattr(options, form)) for form in FORMS}
    names = [measure + way for measure in MEASURES for way in WAYS]
    results = [
        json.loads(path.read_text(encoding="utf-8"))
        for form in FORMS
        for row in ROWS
        for path in sorted((getattr(options, form) / row).glob("seed-*/result.json"))
    ]
    content = {
        "how": "python benchmarks/pose_forms.py COMPLETED FREE",
        "commit": results[0]["code"]["commit"][:12],
        "device": results[0]["device"],
        "seconds": round(sum(result["training_seconds"] for result in results)),
        "errors": {
            form: {
                row: {
                    name: {
                        str(seed): per_cent(summarise(run[name], run["yaw"], intervals=False).balanced)
                        for seed, run in kept.items()
                    }
                    for name in names
                }
                for row, kept in rows.items()
            }
            for form, rows in runs.items()
        },
        "all - +landmarks_2d": {
            form: {name: difference(rows["all"], rows["+landmarks_2d"], name) for name in names}
            for form, rows in runs.items()
        },
        "completed - free": {
            row: {name: difference(runs["completed"][row], runs["free"][row], name) for name in names} for row in ROWS
        },
    }
    with whole_file(options.out) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
