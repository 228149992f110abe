"""Cost of the interactive figures: page size, response time, frames per second.

Needs a Chromium (``TWODASL_BROWSER`` or one that Playwright finds). Each figure is opened as a page of its own:

* **page**: size in bytes, including the figure's script.
* **ready**: time from opening the address to a usable figure.
* **first move**: time from the first event of a slider (the explorer's first shape slider) to the frame that shows it.
* **frames per second**: rate while a slider moves, with one event per frame; Chromium's limit is 60. Measured in a
  window of 1000 pixels, and in one of 320 with fewer pixels to fill: without a graphics card the CPU draws WebGL.
* **script**: JavaScript time of a move, from the event until all drawing commands are issued: arithmetic, charts and
  tables with their layout, upload of vertices. It has to fit into a frame's 33 ms.
* **arithmetic**: for figures with a whole face, the part of the script without drawing: decoded vertices, normals,
  losses and their gradients.

Each value is the best of several, because other load on the machine only adds time. Prints a table.

    python benchmarks/figures_weight.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book"))

from bookkit.browser import find_browser, open_browser

from twodasl_lite import viz
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.networks.trained import trained_regressor
from twodasl_lite.training.config import load_config
from twodasl_lite.training.loop import train
from twodasl_lite.viz.light_studio import LightStudio
from twodasl_lite.worlds.synthetic import SyntheticFaces, whitening_of

WIDTHS = (1000, 320)
READY = "[data-mounted=yes]"
SHORT_RUN = [
    *("data.labelled.count=200", "data.unlabelled.count=200", "data.validation.count=100"),
    *("stages.0.steps=6", "stages.1.steps=2", "run.checkpoint_every=1", "run.validate_every=1", "run.keep=8"),
]

MOVE = """async (moves) => {
  const slider = document.querySelector(":is(.loss-figure, .light-studio) input[type=range], [aria-label='Shape 1']");
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  const move = (share) => {
    slider.value = low + (high - low) * share;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    slider.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const began = performance.now();
  move(0.5);
  await frame();
  const first = performance.now() - began;
  const start = performance.now();
  for (let n = 0; n < moves; n++) {
    move(0.5 + 0.45 * Math.sin(n));
    await new Promise((done) => requestAnimationFrame(done));
  }
  return [first, (1000 * moves) / (performance.now() - start)];
}"""
SCRIPT = """(moves) => {
  const slider = document.querySelector(":is(.loss-figure, .light-studio) input[type=range], [aria-label='Shape 1']");
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const canvases = [...document.querySelectorAll("canvas")];
  const drawn = () => canvases.forEach((canvas) => {
    const gl = canvas.getContext("webgl2");
    gl?.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  });
  const later = window.requestAnimationFrame;
  window.requestAnimationFrame = (draw) => { draw(performance.now()); return 0; };
  const times = Array.from({ length: moves }, (_, n) => {
    drawn();
    const began = performance.now();
    slider.value = low + (high - low) * (0.5 + 0.45 * Math.sin(n));
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    document.body.getBoundingClientRect();
    return performance.now() - began;
  });
  window.requestAnimationFrame = later;
  return Math.min(...times);
}"""
FACE_ARITHMETIC = """(moves) => {
  const figure = document.querySelector(".loss-figure").figure;
  return Math.min(...Array.from({ length: moves }, () => figure.benchmark(1)));
}"""
EXPLORER_ARITHMETIC = """(moves) => {
  const { explorer } = document.querySelector(".face-explorer");
  const times = Array.from({ length: moves }, (_, n) => {
    const began = performance.now();
    explorer.set({ shape: explorer.faces[0].shape.map((_, k) => Math.sin(n + k)) });
    explorer.state();
    return performance.now() - began;
  });
  return Math.min(...times);
}"""


def make_figures(model: MorphableModel, folder: Path) -> dict[str, tuple[object, str | None]]:
    """Name to a figure and the script that times its arithmetic."""
    whitening = whitening_of(model, "labelled")
    faces = SyntheticFaces(model, "labelled").batch(0, 40)
    wild = SyntheticFaces(model, "wild", 1).batch(0, 40)
    few, white = faces.take(slice(0, 4)), whitening.whiten(faces.coefficients[:3])
    networks = {name: trained_regressor(name) for name in ("labelled", "all")}
    regressors = {name: trained.network for name, trained in networks.items()}
    run = train(load_config("lite-cpu", SHORT_RUN), folder / "run", device="cpu", progress=False).folder
    return {
        "face explorer": (viz.face_explorer_html(model, num_expression=10), EXPLORER_ARITHMETIC),
        "light studio": (LightStudio(model), None),
        "which coefficient matters": (viz.coefficient_figure(model, whitening, white), FACE_ARITHMETIC),
        "2D consistency": (
            viz.landmark_consistency_figure(model, whitening, white[0], image=faces.images[0]),
            FACE_ARITHMETIC,
        ),
        "the chain of looks": (
            viz.chain_figure(regressors, few, model, networks["all"].whitening, noises=(0, 2, 4)),
            None,
        ),
        "the critic's score": (viz.critic_figure(run, faces, wild, model), None),
        "a training run": (viz.training_figure(run, few, model), None),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=30, help="moves of a slider")
    parser.add_argument("--rounds", type=int, default=3, help="number of times to open each page; the best counts")
    given = parser.parse_args()
    moves, rounds = given.moves, given.rounds
    executable = find_browser()
    if executable is None:
        sys.exit("no Chromium found; set TWODASL_BROWSER")
    torch.manual_seed(0)
    model = load_face_model(CoefficientLayout())
    print(f"{model.num_vertices:,} vertices, {model.layout.size} coefficients, {moves} moves, headless Chromium\n")
    rates = " | ".join(f"frames/s at {width} px" for width in WIDTHS)
    print(f"| figure | page, MB | ready, ms | first move, ms | {rates} | script, ms | arithmetic, ms |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, open_browser(executable) as browser:
        for name, (figure, script) in make_figures(model, Path(folder)).items():
            path = Path(folder) / "page.html"
            path.write_text(f'<!doctype html><html lang="en"><meta charset="utf-8"><body>{figure.html}</body></html>')
            wide, narrow = ([measure(browser, path, width, moves, script) for _ in range(rounds)] for width in WIDTHS)
            ready, first, _, written, arithmetic = (best(column) for column in zip(*wide, strict=True))
            cells = [f"{len(figure.html) / 1e6:.2f}", f"{ready:.0f}", f"{first:.0f}"]
            cells += [f"{max(row[2] for row in rows):.0f}" for rows in (wide, narrow)]
            cells += [f"{written:.1f}", "" if arithmetic is None else f"{arithmetic:.1f}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def best(times: tuple[float | None, ...]) -> float | None:
    """The shortest time; ``None`` if nothing was timed."""
    return None if None in times else min(times)


def measure(browser, path: Path, width: int, moves: int, script: str | None) -> tuple:
    """Milliseconds until ready and of the first move, frames per second, milliseconds of script and of arithmetic."""
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_selector(READY, timeout=120_000)
    ready = page.evaluate("performance.now()")
    first, rate = page.evaluate(MOVE, moves)
    written = page.evaluate(SCRIPT, moves)
    arithmetic = page.evaluate(script, moves) if script else None
    context.close()
    return ready, first, rate, written, arithmetic


if __name__ == "__main__":
    main()
