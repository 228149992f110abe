/* The critic's score over two coefficients of a real pair, checkpoint by checkpoint, and over three kinds of pairs. */

const DASH = "5 4";
const PAIRS = [["real", "real pairs"], ["fake", "the regressor's own"], ["shuffled", "shuffled pairs"]];

class CriticFigure extends LossFigure {
  static kind = "critic_figure";

  build() {
    const { header } = this;
    this.stage = make("div", { class: "lf-stage", tabindex: "0", role: "application", "aria-roledescription": "map of scores", style: "cursor: crosshair; touch-action: pan-y" });
    this.canvas = make("canvas", { width: header.grid, height: header.grid, "aria-hidden": "true" });
    this.marks = draw("svg", { "aria-hidden": "true" });
    this.stage.append(this.canvas, this.marks);
    this.legend = make("div", { class: "lf-legend" });
    this.title = make("p", { class: "lf-title" });
    this.chart = draw("svg", { class: "lf-chart", role: "img" });
    this.table = make("table", { class: "lf-table" });
    this.say = make("p", { class: "lf-say", role: "status", "aria-live": "polite" });
    this.play = this.button("Play", () => this.toggle());
    const files = make("details", {}, make("summary", {}, "Where the scores come from"),
      ...header.files.map(([name, hash], c) => make("div", {}, `step ${header.steps[c]}: `, make("code", {}, name), ", SHA-256 ", make("code", {}, hash))));
    const paints = this.paints();
    const controls = make("div", { class: "lf-panel" },
      ...(header.steps.length > 1 ? [this.slider("Training time", { id: "checkpoint", min: 0, max: header.steps.length - 1, step: 1, read: () => this.state.checkpoint, write: (checkpoint) => this.set({ checkpoint }), text: (c) => `step ${header.steps[c]}` }),
        make("div", { class: "lf-buttons" }, this.play, this.resetButton())] : [this.resetButton()]),
      ...(header.slices.length > 1 ? [this.select("Coefficients", "slice", header.slices.map(([a, b], i) => [i, `${a} and ${b}`]), { number: true })] : []),
      ...(header.faceNames.length > 1 ? [this.select("Real pair", "face", header.faceNames.map((name, i) => [i, name]), { number: true })] : []),
      this.check("Colours from this picture's own range", "own"),
      this.table, make("p", { class: "lf-title" }, "Scores of pairs"), this.chart,
      make("div", { class: "lf-legend" }, ...PAIRS.map(([key, name]) => keyed(name, paints[key], key === "shuffled" ? DASH : null))));
    this.root.append(make("div", { class: "lf-frame" }, make("div", {}, this.title, this.stage, this.legend, this.say), controls, make("div", { class: "lf-wide" }, files)));
    const at = (event) => {
      const box = this.stage.getBoundingClientRect();
      const n = header.grid;
      const column = within(Math.floor(((event.clientX - box.left) / box.width) * n), 0, n - 1);
      this.set({ at: [column, n - 1 - within(Math.floor(((event.clientY - box.top) / box.height) * n), 0, n - 1)] });
    };
    let held = false;
    this.stage.addEventListener("pointerdown", (event) => { held = true; at(event); });
    this.stage.addEventListener("pointermove", (event) => held && at(event));
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) this.stage.addEventListener(name, () => (held = false));
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    this.stage.addEventListener("keydown", (event) => {
      if (!moves[event.key]) return;
      event.preventDefault();
      this.set({ at: this.state.at.map((x, k) => within(x + moves[event.key][k], 0, header.grid - 1)) });
    });
  }

  paints() {
    return { real: "var(--lf-accent)", fake: "var(--lf-strong)", shuffled: "var(--lf-face)" };
  }

  toggle() {
    if (this.timer) clearInterval(this.timer);
    this.timer = this.timer ? null : setInterval(() => this.set({ checkpoint: (this.state.checkpoint + 1) % this.header.steps.length }), 900);
    this.play.textContent = this.timer ? "Stop" : "Play";
    this.play.setAttribute("aria-pressed", Boolean(this.timer));
  }

  reset() {
    if (this.timer) this.toggle();
    super.reset();
  }

  slice(checkpoint = this.state.checkpoint) {
    const { header, state } = this;
    const cells = header.grid ** 2;
    const at = (checkpoint * header.slices.length + state.slice) * header.faceNames.length + state.face;
    return this.arrays.scores.subarray(cells * at, cells * (at + 1));
  }

  pairScores(name) {
    const count = this.arrays[name].length / this.header.steps.length;
    return this.arrays[name].subarray(count * this.state.checkpoint, count * (this.state.checkpoint + 1));
  }

  numbers() {
    const scores = this.slice();
    const { at } = this.state;
    const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
    const [real, fake] = [this.pairScores("real"), this.pairScores("fake")];
    let higher = 0;
    for (const r of real) for (const f of fake) higher += r > f;
    return {
      scores: Array.from(scores), score: scores[at[1] * this.header.grid + at[0]],
      ...Object.fromEntries(PAIRS.map(([name]) => [name, mean(this.pairScores(name))])), told: higher / (real.length * fake.length),
    };
  }

  paint() {
    const { state, header } = this;
    const n = header.grid;
    const scores = this.slice();
    const all = state.own ? [scores] : header.steps.map((_, c) => this.slice(c));
    let [low, high] = [Infinity, -Infinity];
    for (const part of all) for (const s of part) [low, high] = [Math.min(low, s), Math.max(high, s)];
    const pixels = new Uint8ClampedArray(4 * n * n).fill(255);
    for (let row = 0; row < n; row++) for (let column = 0; column < n; column++) viridis((scores[(n - 1 - row) * n + column] - low) / (high - low || 1), pixels, 4 * (row * n + column));
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, n, n), 0, 0);
    const [a, b] = header.slices[state.slice];
    const offset = (k) => -header.reach + (2 * header.reach * k) / (n - 1);
    const place = (sigma) => ((sigma + header.reach) / (2 * header.reach)) * (n - 1) + 0.5;
    const size = 300;
    const scale = size / n;
    const xy = (u, v) => [scale * place(u), size - scale * place(v)];
    this.marks.setAttribute("viewBox", `0 0 ${size} ${size}`);
    const [tx, ty] = xy(0, 0);
    const [cx, cy] = xy(offset(state.at[0]), offset(state.at[1]));
    const where = 2 * ((state.checkpoint * header.slices.length + state.slice) * header.faceNames.length + state.face);
    const mine = [0, 1].map((k) => within(this.arrays.predicted[where + k], -header.reach, header.reach));
    const [px, py] = xy(...mine);
    const ring = (x, y, r, inner, outer) => [draw("circle", { cx: x, cy: y, r, fill: "none", stroke: outer, "stroke-width": 4 }), draw("circle", { cx: x, cy: y, r, fill: "none", stroke: inner, "stroke-width": 2 })];
    const cross = (width, colour) => draw("path", { d: `M${tx - 8} ${ty}h16M${tx} ${ty - 8}v16`, stroke: colour, "stroke-width": width });
    this.marks.replaceChildren(cross(5, "#1f2328"), cross(2.4, "white"), ...ring(px, py, 6, OKABE_ITO.orange, "#1f2328"),
      draw("rect", { x: cx - scale / 2, y: cy - scale / 2, width: scale, height: scale, fill: "none", stroke: "white", "stroke-width": 3 }),
      draw("rect", { x: cx - scale / 2, y: cy - scale / 2, width: scale, height: scale, fill: "none", stroke: "black", "stroke-width": 1.3 }));
    const result = this.numbers();
    this.title.textContent = `Right: more ${a}; up: more ${b} (±${header.reach} σ)`;
    this.legend.replaceChildren(this.ramp(round(low), round(high)), "score; cross: the truth; orange ring: the regressor's prediction; square: cursor");
    const told = `${a} ${signed(offset(state.at[0]), 2)} σ, ${b} ${signed(offset(state.at[1]), 2)} σ from the truth: score ${round(result.score)}`;
    this.say.textContent = told;
    this.stage.setAttribute("aria-label", `The critic's score at step ${header.steps[state.checkpoint]}. Cursor at ${told}. Arrow keys move the cursor.`);
    const row = (name, value) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value));
    this.table.replaceChildren(...PAIRS.map(([key, name]) => row(`mean score of ${name}`, round(result[key]))), row("real above the regressor's own", `${(100 * result.told).toFixed(1)} %`));
    // Histograms over one range for all of training.
    let [first, last] = [Infinity, -Infinity];
    for (const [name] of PAIRS) for (const s of this.arrays[name]) [first, last] = [Math.min(first, s), Math.max(last, s)];
    const bins = 30;
    const paints = this.paints();
    const lines = PAIRS.map(([name, title]) => {
      const values = this.pairScores(name);
      const share = new Array(bins).fill(0);
      for (const s of values) share[within(Math.floor((bins * (s - first)) / (last - first || 1)), 0, bins - 1)] += 100 / values.length;
      return { name: title, colour: paints[name], x: share.map((_, k) => first + ((k + 0.5) * (last - first)) / bins), y: share, dash: name === "shuffled" ? DASH : null };
    });
    lineChart(this.chart, { lines, title: "How often each score occurs", xLabel: "score", yLabel: "% of pairs", height: 190 });
    this.chart.setAttribute("aria-label", `Histograms of scores. ${PAIRS.map(([key, name]) => `${name}: mean ${round(result[key])}`).join("; ")}.`);
  }
}
