"""Weight of the figures of the losses in a page, and the time of their arithmetic in the browser.

Needs a Chromium (``TWODASL_BROWSER`` or one that Playwright finds). Measures, for the face explorer and for the two
figures that decode a whole face: bytes in the page; the fastest of many moves of a slider in milliseconds of JavaScript
(losses and their gradients, decoded faces, vertex normals); frames per second with drawing. Prints a table.

    python benchmarks/figures_weight.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book"))

from bookkit.browser import find_browser, open_browser

from twodasl_lite import viz
from twodasl_lite.coefficients import CoefficientLayout
from twodasl_lite.data.synthetic import SyntheticFaces, whitening_of
from twodasl_lite.morphable import load_face_model

EXPLORER = ".face-explorer-figure[data-mounted=yes]"
FIGURE = ".loss-figure-page[data-mounted=yes]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=40, help="moves of a slider to average over")
    moves = parser.parse_args().moves
    model = load_face_model(CoefficientLayout())
    whitening = whitening_of(model, "labelled")
    batch = SyntheticFaces(model, "labelled").batch(0, 3)
    white = whitening.whiten(batch.coefficients)
    pages = {
        "face explorer": (viz.face_explorer_html(model, num_expression=10), EXPLORER),
        "which coefficient matters": (viz.coefficient_figure(model, whitening, white), FIGURE),
        "2D consistency": (
            viz.landmark_consistency_figure(model, whitening, white[0], image=batch.images[0]),
            FIGURE,
        ),
    }
    executable = find_browser()
    if executable is None:
        sys.exit("no Chromium found; set TWODASL_BROWSER")
    print(f"{model.num_vertices:,} vertices, {model.layout.size} coefficients, {moves} moves, headless Chromium\n")
    print("| figure | page, MB | arithmetic per move, ms | with drawing, frames per second |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, open_browser(executable) as browser:
        for name, (figure, mounted) in pages.items():
            path = Path(folder) / "page.html"
            figure.save(path)
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_selector(mounted, timeout=120_000)
            explorer = mounted == EXPLORER
            target = "face-explorer').explorer" if explorer else "loss-figure').figure"
            target = f"document.querySelector('.{target}"
            arithmetic = page.evaluate((EXPLORER_MOVE if explorer else FIGURE_MOVE).format(target=target, moves=moves))
            if explorer:
                rate = page.evaluate(f"{target}.benchmark({moves})")
            else:
                rate = 1000 / page.evaluate(DRAWING.replace("FIGURE", target).replace("MOVES", str(moves)))
            print(f"| {name} | {len(figure.html) / 1e6:.2f} | {arithmetic:.1f} | {rate:.1f} |", flush=True)
            page.close()


# The fastest move of many: the others share the processor with what else the machine does.
FIGURE_MOVE = "Math.min(...Array.from({{ length: {moves} }}, () => {target}.benchmark(1)))"
EXPLORER_MOVE = """(() => {{
  const explorer = {target};
  const times = Array.from({{ length: {moves} }}, (_, n) => {{
    const began = performance.now();
    explorer.set({{ shape: explorer.faces[0].shape.map((_, k) => Math.sin(n + k)) }});
    explorer.state();
    return performance.now() - began;
  }});
  return Math.min(...times);
}})()"""
DRAWING = """() => {
  const figure = FIGURE;
  const pixel = new Uint8Array(4);
  const gl = (figure.view ?? figure.side).painter.gl;
  const began = performance.now();
  for (let n = 0; n < MOVES; n++) {
    if (figure.state.errors) figure.state.errors[2] = Math.sin(n);
    else figure.state.predicted[2] = Math.sin(n);
    figure.paint();
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
  }
  const time = (performance.now() - began) / MOVES;
  figure.reset();
  return time;
}"""


if __name__ == "__main__":
    main()
