"""Turn runs into the package's assets: networks, model cards, logs, the ablation table.

    twodasl train own-photos --out runs/own-photos
    twodasl ablate --jobs 2 --threads 1 --out runs/ablation-cpu
    python benchmarks/ship_networks.py --own-photos runs/own-photos --clone 2DASL
    python benchmarks/ship_networks.py --ablation runs/ablation-cpu

With ``--clone`` (of ``XgTu/2DASL``) the card of ``own-photos`` also has its errors on the photographs of AFLW2000-3D.
The networks are those of the first seed, not of the best one. A card lists the data, the run, the errors by yaw and by
skin tone on the test pictures, limits and licence. Skin tones are groups of the individual typology angle
``ITA = atan((L* - 50) / b*)`` of the cheeks' unlit colour (Chardon et al. 1991).
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.datasets.aflw2000 import read_aflw2000
from twodasl_lite.evaluation import Table, bootstrap_interval, summarise
from twodasl_lite.evaluation.benchmark import MAIN, evaluate, jittered_boxes, predict_faces
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.networks import TrainedRegressor, count_parameters, load_regressor
from twodasl_lite.networks.trained import ASSETS, DEFAULT
from twodasl_lite.training.ablation import read_errors
from twodasl_lite.training.config import TrainConfig, config_from_dict
from twodasl_lite.training.log import read_log
from twodasl_lite.training.loop import LAST_FILE
from twodasl_lite.training.pictures import pictures
from twodasl_lite.training.validation import MEASURES, evaluate_on
from twodasl_lite.worlds.synthetic import SyntheticFaces

ROWS = ("labelled", "+landmarks_2d", "all")
SEED = 0
ITA_BOUNDS = (55.0, 41.0, 28.0, 10.0, -30.0)  # ITA in degrees, from very light to dark
ITA_NAMES = ("very light", "light", "intermediate", "tan", "brown", "dark")
BOX_ERRORS = (0.0, 0.1, 0.2)
PERCENT = 100.0


def typology_angle(skin: torch.Tensor) -> np.ndarray:
    """Individual typology angles ``(N,)`` in degrees of colours ``(N, 3)``, sRGB in [0, 1]."""
    lab = cv2.cvtColor(skin.numpy().astype(np.float32)[None], cv2.COLOR_RGB2Lab)[0]
    return np.degrees(np.arctan2(lab[:, 0] - 50, lab[:, 2]))


def by_skin(errors: torch.Tensor, skin: torch.Tensor) -> list[str]:
    """Rows of a Markdown table: mean error of each skin tone group, with its interval."""
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


def describe_data(config: TrainConfig) -> str:
    """Description of the pictures that a run was trained on."""
    data = config.data
    text = f"{data.labelled.count:,} pictures of the {data.labelled.world} world with exact coefficients"
    if config.self_supervision.weights:
        unlabelled = data.unlabelled
        text += (
            f", and {unlabelled.count:,} pictures of the {unlabelled.world} world with a simulated detector's 18 points"
        )
    return f"{text}: synthetic pictures of the embedded face alone, no photograph of anybody"


def card(title: str, run: str, config: TrainConfig, facts: dict, sections: list[str]) -> str:
    """A model card, in Markdown."""
    used = ", ".join(f"{name} {weight:g}" for name, weight in config.self_supervision.weights.items()) or "none"
    stages = "; ".join(
        f"{', '.join(f'{name} {weight:g}' for name, weight in stage.weights.items())} for {stage.steps:,} steps"
        for stage in config.stages
    )
    lines = [
        f"# Lite regressor, `{title}`",
        "",
        "One photo crop of 120 x 120 pixels and its landmark map to 62 coefficients;",
        f"{facts['parameters']:,} parameters.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {describe_data(config)} |",
        f"| losses on labelled pictures | {stages} |",
        f"| losses on 2D-only pictures | {used} |",
        f"| input and output | {config.network.map} landmark map, dropped in {config.network.map_dropout:.0%} of the "
        f"pictures; pose {config.network.pose} |",
        f"| run | {run}; commit {facts['commit'][:12]} |",
        f"| made on | {facts['machine']}; torch {facts['torch']}; {facts['seconds']:.0f} s |",
        f"| file | SHA-256 {facts['sha256']} |",
        "| licence | MIT, as the project |",
        "",
        *sections,
        "## Limits",
        "",
        "Made to learn from. It has never seen a photograph in training. Depth is the least certain of its answers.",
        "It must not be used to identify, judge or sort people.",
        "",
    ]
    return "\n".join(lines)


def drawn_section(config: TrainConfig, errors: dict[str, torch.Tensor], model: MorphableModel) -> list[str]:
    """Errors on drawn test pictures, by yaw and by skin tone."""
    test = config.data.test
    tables = {name: summarise(values, errors["yaw"]) for name, values in errors.items() if name != "yaw"}
    skin = SyntheticFaces(model, test.world, test.seed).skin(test.start, test.count)
    return [
        f"## Errors on {test.count:,} test pictures of the {test.world} world (NME, %)",
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
        *by_skin(errors["landmarks_2d"], skin),
        "",
        "The tones are those of the synthetic world; they say nothing about real cameras and people.",
        "",
    ]


def photo_section(trained: TrainedRegressor, model: MorphableModel, clone: Path) -> list[str]:
    """Errors on the photographs of AFLW2000-3D, with exact and with perturbed boxes."""
    dataset = read_aflw2000(clone)
    rows = []
    for share in BOX_ERRORS:
        boxes = jittered_boxes(dataset.boxes, share, 0) if share else None
        for how, detected in (("no detector", False), ("a detector's points", True)):
            predictions, _ = predict_faces(
                trained.network,
                trained.whitening,
                dataset,
                model,
                boxes=boxes,
                detected=detected,
                kind=trained.metadata["map_kind"],
                pose=trained.pose,
            )
            found = evaluate(predictions, dataset, model=model)
            rows.append(f"| {share:.0%} | {how} | {by_yaw(summarise(found.errors[MAIN], dataset.yaw))} |")
    return [
        f"## Errors on the {len(dataset):,} photographs of AFLW2000-3D (NME of 68 landmarks in 2D, %)",
        "",
        "| boxes off by up to | shown | 0-30° | 30-60° | above 60° | balanced, 95 % interval |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        "Boxes are shifted and resized at random by up to that share of their side.",
        "",
    ]


def facts_of(content: bytes, code: dict, machine: dict, seconds: float, trained: TrainedRegressor) -> dict:
    """The facts about file and run for a card."""
    return {
        "parameters": count_parameters(trained.network),
        "sha256": hashlib.sha256(content).hexdigest(),
        "commit": code.get("commit", "unknown"),
        "torch": code["torch"],
        "machine": ", ".join(f"{key} {value}" for key, value in machine.items()),
        "seconds": seconds,
    }


def ship(out: Path, name: str, content: bytes, text: str, log: bytes) -> None:
    """Write a network with its card and the log of its run."""
    for place, written in (
        (f"networks/lite-{name}.safetensors", content),
        (f"networks/lite-{name}.md", text.encode()),
        (f"results/lite-{name}.log.jsonl", log),
    ):
        with whole_file(out / place) as file:
            file.write(written)
        print(f"written: {place}, {len(written):,} bytes")


def ship_own_photos(run: Path, clone: Path | None, out: Path) -> None:
    """Ship the network for readers' own pictures, from its run's folder."""
    model = load_face_model(CoefficientLayout())
    content = (run / LAST_FILE).read_bytes()
    trained = load_regressor(run / LAST_FILE)
    config = config_from_dict(trained.metadata["config"])
    log = read_log(run)
    start = next(row for row in log if row["kind"] == "start")
    seconds = sum(row["seconds"] for row in log if row["kind"] in ("end", "pause"))
    machine = {key: start[key] for key in ("device", "machine", "threads") if key in start}
    faces = pictures(config.data.test, model)
    errors = {"yaw": faces.yaw}
    for detector, ending in ((True, ""), (False, "_without_detector")):
        how = {"kind": config.network.map, "pose": config.network.pose, "detector": detector}
        found = evaluate_on(trained.network, trained.whitening, model, faces, **how)
        errors |= {name + ending: getattr(found, name) for name in MEASURES}
    sections = drawn_section(config, errors, model)
    if clone is not None:
        sections = photo_section(trained, model, clone) + sections
    facts = facts_of(content, start, machine, seconds, trained)
    text = card(DEFAULT, f"`twodasl train {config.name}`, seed {config.seed}", config, facts, sections)
    ship(out, DEFAULT, content, text, (run / "log.jsonl").read_bytes())


def ship_ablation(folder: Path, out: Path, table_too: bool) -> None:
    """Ship the networks of the ablation's first seed, and its table."""
    model = load_face_model(CoefficientLayout())
    for row in ROWS:
        run = folder / row / f"seed-{SEED}"
        result = json.loads((run / "result.json").read_text(encoding="utf-8"))
        config = config_from_dict(result["config"], str(run))
        content = (run / LAST_FILE).read_bytes()
        trained = load_regressor(run / LAST_FILE)
        facts = facts_of(content, result["code"], result["device"], result["training_seconds"], trained)
        sections = drawn_section(config, read_errors(folder, row, SEED), model)
        text = card(row, f"`twodasl ablate`, row `{row}`, seed {SEED}", config, facts, sections)
        ship(out, row, content, text, (run / "log.jsonl").read_bytes())
    if not table_too:
        return
    table = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    with whole_file(out / "results/ablation_cpu.json") as file:
        file.write((json.dumps(table, separators=(",", ":")) + "\n").encode())


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--own-photos", type=Path, metavar="RUN", help="folder of `twodasl train own-photos`")
    parser.add_argument("--clone", type=Path, help="a clone of XgTu/2DASL, to measure on photographs")
    parser.add_argument("--ablation", type=Path, metavar="FOLDER", help="folder of `twodasl ablate`")
    parser.add_argument("--networks-only", action="store_true", help="only the ablation's networks, not its table")
    parser.add_argument("--out", type=Path, default=ASSETS, help="default: the package's assets")
    options = parser.parse_args()
    if options.own_photos:
        ship_own_photos(options.own_photos, options.clone, options.out)
    if options.ablation:
        ship_ablation(options.ablation, options.out, not options.networks_only)


if __name__ == "__main__":
    main()
