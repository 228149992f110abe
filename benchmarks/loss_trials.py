"""Trials to make the losses pay off: paired differences between runs of `twodasl ablate`.

Each ``--difference`` consists of a title, folder and row of the runs in question, and folder and row of the runs for
comparison; it is taken over the seeds that both have:

    python benchmarks/loss_trials.py \\
        --difference "Gaussian map: all - landmarks" runs/gaussian all runs/gaussian +landmarks_2d \\
        --difference "only the second look pulled - both" runs/second +landmarks_2d+landmarks_3d \\
            runs/base +landmarks_2d+landmarks_3d

A trial that changes the code is a run of a modified clone, whose commit is recorded but whose code is not stored.
Errors are those of the wild world's test pictures, balanced over the yaw bins; intervals are over pictures and seeds.
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

SEEDS = range(100)
MEASURES = ("landmarks_2d", "landmarks_3d", "vertices_3d")
WAYS = ("", "_without_detector")


def read_runs(folder: Path, row: str) -> dict[int, dict[str, torch.Tensor]]:
    """Errors of the finished runs by seed."""
    found = {
        seed: read_errors(folder, row, seed)
        for seed in SEEDS
        if (folder / row / f"seed-{seed}" / "result.json").is_file()
    }
    if not found:
        raise SystemExit(f"{folder / row}: found no finished run; expected at least one")
    return found


def run_facts(folder: Path, row: str) -> dict[str, object]:
    """Commit, device and seconds of the runs of a row."""
    results = [json.loads(path.read_text("utf-8")) for path in sorted((folder / row).glob("seed-*/result.json"))]
    return {
        "commit": results[0]["code"]["commit"][:12],
        "device": results[0]["device"],
        "seconds": round(sum(result["training_seconds"] for result in results)),
    }


def per_cent(value: float) -> float:
    """Convert to tensors for tables."""
    return round(100 * float(value), 3)


def compare(title: str, folder: str, row: str, other_folder: str, other_row: str) -> dict[str, object]:
    """One difference, by measure: value and interval in percentage points, and the errors of each seed in per cent."""
    runs, others = read_runs(Path(folder), row), read_runs(Path(other_folder), other_row)
    seeds = sorted(runs.keys() & others.keys())
    yaw = runs[seeds[0]]["yaw"]
    entry: dict[str, object] = {
        "title": title,
        "row": row,
        "against": other_row,
        "seeds": seeds,
        "runs": [run_facts(Path(folder), row), run_facts(Path(other_folder), other_row)],
    }
    for name in (measure + way for measure in MEASURES for way in WAYS):
        pair = [torch.stack([side[seed][name] for seed in seeds]) for side in (runs, others)]
        found = paired_difference(*pair, yaw)
        entry[name] = {
            "value": per_cent(found.value),
            "low": per_cent(found.low),
            "high": per_cent(found.high),
            "errors": [[per_cent(summarise(one, yaw, intervals=False).balanced) for one in errors] for errors in pair],
        }
    return entry


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    names = ("TITLE", "FOLDER", "ROW", "FOLDER", "ROW")
    parser.add_argument("--difference", nargs=5, action="append", required=True, metavar=names)
    parser.add_argument("--out", type=Path, default=ASSETS / "results" / "loss_trials.json")
    options = parser.parse_args()
    trials = [compare(*words) for words in options.difference]
    content = {
        "how": "python benchmarks/loss_trials.py --difference ...",
        **trials[0]["runs"][0]["device"],
        "trials": trials,
    }
    with whole_file(options.out) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())
    for trial in content["trials"]:
        print(f"\n{trial['title']} (seeds {trial['seeds']})")
        for name in (measure + way for measure in MEASURES for way in WAYS):
            found = trial[name]
            print(f"  {name:32} {found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]")


if __name__ == "__main__":
    main()
