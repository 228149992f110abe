"""From an ablation's folder to what comes with the package: networks, model cards, logs, the table.

    twodasl ablate --jobs 2 --threads 1 --out runs/ablation-cpu
    python benchmarks/ship_networks.py runs/ablation-cpu

The networks are those of the first seed, not of the best. A card holds the data, the run, the errors by yaw and by skin
tone on the test pictures, limits and licence. Skin tones are groups of the individual typology angle
``ITA = atan((L* - 50) / b*)`` of the cheeks' colour (Chardon et al. 1991), as no light has changed it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from twodasl_lite.archive import whole_file
from twodasl_lite.coefficients import CoefficientLayout
from twodasl_lite.data.synthetic import SyntheticFaces
from twodasl_lite.evaluation import Table, bootstrap_interval, summarise
from twodasl_lite.morphable import load_face_model
from twodasl_lite.networks import count_parameters, load_regressor
from twodasl_lite.trained import ASSETS
from twodasl_lite.training.ablation import read_errors
from twodasl_lite.training.config import TrainConfig, config_from_dict

ROWS = ("labelled", "+landmarks_2d", "all")
SEED = 0
ITA_BOUNDS = (55.0, 41.0, 28.0, 10.0, -30.0)  # degrees, from very light to dark
ITA_NAMES = ("very light", "light", "intermediate", "tan", "brown", "dark")
PERCENT = 100.0


def typology_angle(skin: torch.Tensor) -> np.ndarray:
    """Individual typology angles ``(N,)`` in degrees of colours ``(N, 3)``, sRGB in [0, 1]."""
    lab = cv2.cvtColor(skin.numpy().astype(np.float32)[None], cv2.COLOR_RGB2Lab)[0]
    return np.degrees(np.arctan2(lab[:, 0] - 50, lab[:, 2]))


def by_skin(errors: torch.Tensor, skin: torch.Tensor) -> list[str]:
    """Rows of a Markdown table: mean error of each group of skin tones, with its interval."""
    group = np.digitize(-typology_angle(skin), [-bound for bound in ITA_BOUNDS])
    rows = []
    for number, name in enumerate(ITA_NAMES):
        chosen = errors[torch.from_numpy(group == number)].double()
        if len(chosen) > 1:
            low, high = bootstrap_interval(chosen)
            mean = PERCENT * float(chosen.mean())
            rows.append(f"| {name} | {len(chosen)} | {mean:.2f} [{PERCENT * low:.2f}, {PERCENT * high:.2f}] |")
    return rows


def by_yaw(table: Table) -> str:
    """One row of numbers: the three bins, balanced with its interval."""
    bins = " | ".join(f"{PERCENT * value:.2f}" for value in table.bins)
    low, high = (PERCENT * float(end) for end in table.balanced_interval)
    return f"{bins} | {PERCENT * table.balanced:.2f} [{low:.2f}, {high:.2f}]"


def card(row: str, config: TrainConfig, result: dict, errors: dict, skin_rows: list[str], facts: dict) -> str:
    """A model card, in Markdown."""
    data, losses = config.data, config.self_supervision.weights
    used = ", ".join(f"{name} {weight:g}" for name, weight in losses.items()) or "none"
    stages = "; ".join(f"{stage.name}, {stage.steps} steps" for stage in config.stages)
    wild = (
        f"{data.unlabelled.count:,} pictures of the wild world with a simulated detector's 18 points" if losses else ""
    )
    pictures = f"{data.labelled.count:,} pictures of the labelled world with exact coefficients" + (
        f", and {wild}" if wild else ""
    )
    tables = {name: summarise(values, errors["yaw"]) for name, values in errors.items() if name != "yaw"}
    machine = result["device"]
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    lines = [
        f"# Lite regressor, `{row}`",
        "",
        "One photo crop of 120 x 120 pixels and its landmark map to 62 coefficients;",
        f"{facts['parameters']:,} parameters.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {pictures}: synthetic pictures of the embedded face alone, no photograph of anybody |",
        f"| losses on labelled pictures | {stages} |",
        f"| losses on 2D-only pictures | {used} |",
        f"| run | `twodasl ablate`, row `{row}`, seed {SEED}; commit {result['code'].get('commit', 'unknown')[:12]} |",
        f"| made on | {where}; torch {result['code']['torch']}; {result['training_seconds']:.0f} s |",
        f"| file | SHA-256 {facts['sha256']} |",
        "| licence | MIT, as the project |",
        "",
        f"## Errors on {facts['pictures']:,} test pictures of the wild world (NME, %)",
        "",
        "| measure | 0-30° | 30-60° | above 60° | balanced, 95 % interval |",
        "|---|---|---|---|---|",
        f"| 68 landmarks, 2D | {by_yaw(tables['landmarks_2d'])} |",
        f"| the same without a detector | {by_yaw(tables['landmarks_2d_without_detector'])} |",
        f"| 68 landmarks, 3D | {by_yaw(tables['landmarks_3d'])} |",
        f"| all vertices, 3D | {by_yaw(tables['vertices_3d'])} |",
        "",
        "By skin tone (individual typology angle of the cheeks), 68 landmarks, 2D:",
        "",
        "| skin | pictures | NME, 95 % interval |",
        "|---|---|---|",
        *skin_rows,
        "",
        "The tones are those of the synthetic world; they say nothing about real cameras and people.",
        "",
        "## Limits",
        "",
        "Made to learn from. It has never seen a photograph: on real ones it is a demonstration, and its errors there",
        "are larger than the above. Depth is the least certain of its answers. It must not be used to identify, judge",
        "or sort people.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of `twodasl ablate`")
    parser.add_argument("--out", type=Path, default=ASSETS, help="default: the package's assets")
    options = parser.parse_args()
    table = json.loads((options.folder / "table.json").read_text(encoding="utf-8"))
    model = load_face_model(CoefficientLayout())
    for row in ROWS:
        run = options.folder / row / f"seed-{SEED}"
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        config = config_from_dict(result["config"], str(run))
        content = (run / "last.safetensors").read_bytes()
        errors = read_errors(options.folder, row, SEED)
        test = config.data.test
        skin = SyntheticFaces(model, test.world, test.seed).skin(test.start, test.count)
        facts = {
            "parameters": count_parameters(load_regressor(run / "last.safetensors").network),
            "sha256": hashlib.sha256(content).hexdigest(),
            "pictures": test.count,
        }
        text = card(row, config, result, errors, by_skin(errors["landmarks_2d"], skin), facts)
        for name, written in (
            (f"networks/lite-{row}.safetensors", content),
            (f"networks/lite-{row}.md", text.encode()),
            (f"results/lite-{row}.log.jsonl", (run / "log.jsonl").read_bytes()),
        ):
            with whole_file(options.out / name) as file:
                file.write(written)
            print(f"written: {name}, {len(written):,} bytes")
    with whole_file(options.out / "results/ablation_cpu.json") as file:
        file.write((json.dumps(table, separators=(",", ":")) + "\n").encode())


if __name__ == "__main__":
    main()
