/* The chain of looks: x, X1, x1, X2, x2, ... computed beforehand, stepped through here. Pixels: x right, y down. */

const SIDE = 120;
const MAP_TITLE = { binary: "binary", gaussian: "Gaussian" };

class ChainFigure extends LossFigure {
  static kind = "chain_figure";

  build() {
    const { header } = this;
    this.steps = 2 * header.looks + 1;
    const stage = (label) => {
      const node = make("div", { class: "lf-stage", role: "img" });
      return { node, title: make("p", { class: "lf-title" }, label) };
    };
    [this.front, this.map, this.side] = [stage(""), stage(""), stage("The face in 3D, turned")];
    this.photo = make("img", { alt: "", class: "dark-light", style: "position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; max-width: none" });
    this.marks = draw("svg", { viewBox: `-0.5 -0.5 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
    this.front.node.append(this.photo, this.marks);
    this.canvas = make("canvas", { width: SIDE, height: SIDE, style: "image-rendering: pixelated" });
    this.slopes = draw("svg", { viewBox: `-0.5 -0.5 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
    this.map.node.append(this.canvas, this.slopes);
    this.turned = draw("svg", { viewBox: `-0.5 -0.5 ${SIDE} ${SIDE}`, "aria-hidden": "true" });
    this.side.node.append(this.turned);
    this.chart = draw("svg", { class: "lf-chart", role: "img" });
    this.keys = make("div", { class: "lf-legend" });
    this.table = make("table", { class: "lf-table" });
    this.say = make("p", { class: "lf-say", role: "status", "aria-live": "polite" });
    this.play = this.button("Play", () => this.toggle());
    const choices = (key, label, list) => (list.length > 1 ? [this.select(label, key, list.map((text, i) => [i, text]), { number: true })] : []);
    const controls = make("div", { class: "lf-panel" },
      this.slider("Step", { id: "step", min: 0, max: this.steps - 1, step: 1, read: () => this.state.step, write: (step) => this.set({ step }), text: (step) => this.name(step) }),
      make("div", { class: "lf-buttons" }, this.button("Previous", () => this.go(-1), "previous"), this.button("Next", () => this.go(1), "next"), this.play, this.resetButton()),
      ...choices("regressor", "Network", header.regressors), ...choices("face", "Face", header.faceNames),
      ...choices("kind", "Landmark map", header.kinds.map((kind) => MAP_TITLE[kind])),
      ...choices("noise", "Noise of x", header.noises.map((noise) => `${noise} pixels`)),
      this.slider("Turn", { id: "turn", min: -90, max: 90, step: 5, digits: 0, unit: "°", spoken: "degrees", read: () => this.state.turn, write: (turn) => this.set({ turn }) }),
      this.check("Gradient at x₁", "slope"), this.say);
    const results = make("div", { class: "lf-panel" }, this.table, make("p", { class: "lf-title" }, "After each look"), this.chart, this.keys);
    this.root.append(
      make("div", { class: "lf-frame lf-three" }, ...[this.front, this.map, this.side].map(({ node, title }) => make("div", {}, title, node))),
      make("div", { class: "lf-frame", style: "margin-top: 10px" }, controls, results));
  }

  name(step) {
    const look = (step + 1) >> 1;
    const digits = String(look).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);
    return step === 0 ? "x" : `${step % 2 ? "X" : "x"}${digits}`;
  }

  go(by) {
    this.set({ step: (this.state.step + by + this.steps) % this.steps });
  }

  toggle() {
    if (this.timer) clearInterval(this.timer);
    this.timer = this.timer ? null : setInterval(() => this.go(1), 1100);
    this.play.textContent = this.timer ? "Stop" : "Play";
    this.play.setAttribute("aria-pressed", Boolean(this.timer));
  }

  reset() {
    if (this.timer) this.toggle();
    super.reset();
  }

  /** Flat 18 points that the chain begins with, and the flat 68 landmarks of each look. */
  chain(regressor = this.state.regressor) {
    const { header, arrays, state } = this;
    const F = header.faceNames.length;
    const L = header.looks;
    const at = state.noise * F + state.face;
    const begin = arrays.begins.subarray(36 * at, 36 * at + 36);
    const which = ((regressor * header.kinds.length + state.kind) * header.noises.length + state.noise) * F + state.face;
    const faces = Array.from({ length: L }, (_, l) => arrays.faces.subarray(204 * (which * L + l), 204 * (which * L + l + 1)));
    return { begin, faces, points: [begin, ...faces.map((face) => this.eighteen(face))], slope: arrays.gradients.subarray(36 * which, 36 * which + 36) };
  }

  eighteen(face) {
    return Float64Array.from({ length: 36 }, (_, n) => {
      const [a, b] = this.header.subset[n >> 1];
      return (face[3 * a + (n & 1)] + face[3 * b + (n & 1)]) / 2;
    });
  }

  size(points, stride, count) {
    const extent = [0, 1].map((axis) => {
      const values = Array.from({ length: count }, (_, i) => points[stride * i + axis]).filter(Number.isFinite);
      return values.length ? Math.max(...values) - Math.min(...values) : 0;
    });
    return Math.max(Math.sqrt(extent[0] * extent[1]), this.header.floor);
  }

  /** Mean and mean square distance of the points that `target` has. */
  distance(points, target, seen = target) {
    let [sum, square, count] = [0, 0, 0];
    for (let i = 0; i < 18; i++) {
      if (!Number.isFinite(seen[2 * i] + seen[2 * i + 1])) continue;
      const d = Math.hypot(points[2 * i] - target[2 * i], points[2 * i + 1] - target[2 * i + 1]);
      [sum, square, count] = [sum + d, square + d * d, count + 1];
    }
    return { mean: sum / Math.max(count, 1), square: square / Math.max(count, 1) };
  }

  measure(regressor = this.state.regressor) {
    const { begin, faces, points, slope } = this.chain(regressor);
    const unit = this.size(begin, 2, 18) ** 2;
    let depth = 0;
    for (let p = 0; p < 68; p++) depth += (faces[1][3 * p + 2] - faces[0][3 * p + 2]) / 68;
    let apart = 0;
    for (let p = 0; p < 68; p++) {
      const [x, y, z] = [0, 1, 2].map((axis) => faces[1][3 * p + axis] - faces[0][3 * p + axis]);
      apart += (x * x + y * y + (z - depth) ** 2) / 68;
    }
    const truth = this.header.truth ? this.eighteen(this.arrays.truth.subarray(204 * this.state.face, 204 * (this.state.face + 1))) : null;
    return {
      landmarks_2d: this.distance(points[1], begin).square / unit,
      landmarks_3d: apart / this.size(faces[0], 3, 68) ** 2,
      cycle: this.distance(points[2], begin).square / unit,
      drift: points.slice(1).map((after, l) => this.distance(after, points[l], begin).mean),
      errors: truth ? points.map((p) => this.distance(p, truth, begin).mean) : [],
      slope: Math.hypot(...slope),
    };
  }

  numbers() {
    return this.measure();
  }

  /** The landmark map of 18 points, values in [0, 1], row by row. */
  landmarkMap(points) {
    const values = new Float64Array(SIDE * SIDE);
    const gaussian = this.header.kinds[this.state.kind] === "gaussian";
    for (let i = 0; i < 18; i++) {
      const [x, y] = [points[2 * i], points[2 * i + 1]];
      if (!Number.isFinite(x + y)) continue;
      if (!gaussian) {
        const [column, row] = [Math.floor(x), Math.floor(y)];
        if (column >= 0 && row >= 0 && column < SIDE && row < SIDE) values[row * SIDE + column] = 1;
        continue;
      }
      for (let row = 0; row < SIDE; row++) {
        for (let column = 0; column < SIDE; column++) {
          const g = Math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * this.header.sigma ** 2));
          values[row * SIDE + column] = 1 - (1 - values[row * SIDE + column]) * (1 - g);
        }
      }
    }
    return values;
  }

  paint() {
    const { state, header } = this;
    const { points, faces, slope } = this.chain();
    const result = this.measure();
    const look = (state.step + 1) >> 1;
    const is3d = state.step % 2 === 1;
    this.photo.src = header.pictures[state.face];
    const marks = [];
    const arrow = (x, y, u, v, colour, width = 0.7) => {
      const length = Math.hypot(u - x, v - y);
      if (!(length > 0.4)) return;
      const [cx, cy] = [(u - x) / length, (v - y) / length];
      const head = Math.min(2, length / 2);
      return draw("path", { d: `M${x} ${y}L${u} ${v}M${u - head * (cx - 0.5 * cy)} ${v - head * (cy + 0.5 * cx)}L${u} ${v}L${u - head * (cx + 0.5 * cy)} ${v - head * (cy - 0.5 * cx)}`, stroke: colour, "stroke-width": width, fill: "none" });
    };
    if (is3d) {
      const face = faces[look - 1];
      const path = outline(header.edges, (p) => [face[3 * p], face[3 * p + 1]]);
      marks.push(draw("path", { d: path, stroke: "#1f2328", "stroke-width": 1.5, fill: "none", opacity: 0.6 }), draw("path", { d: path, stroke: OKABE_ITO.sky, "stroke-width": 0.9, fill: "none" }));
    } else {
      const now = points[look];
      const before = look ? points[look - 1] : now;
      for (let i = 0; i < 18; i++) {
        const [x, y] = [now[2 * i], now[2 * i + 1]];
        if (!Number.isFinite(x + y)) continue;
        const line = look && Number.isFinite(before[2 * i]) ? arrow(before[2 * i], before[2 * i + 1], x, y, "white", 0.9) : null;
        if (line) marks.push(line);
        marks.push(draw("circle", { cx: x, cy: y, r: 1.4, fill: OKABE_ITO.vermilion, stroke: "white", "stroke-width": 0.4 }));
      }
    }
    this.marks.replaceChildren(...marks);
    const what = is3d ? `68 landmarks of the face decoded in look ${look}` : look ? `18 points of look ${look}; arrows from where they were` : "18 detected points, the input";
    this.front.title.textContent = `${this.name(state.step)}: ${is3d ? "decoded face" : look ? "its 18 points" : "detected points"}`;
    this.front.node.setAttribute("aria-label", `Picture with the ${what}`);

    // What the network is shown at this step, or was shown for it.
    const shown = is3d ? look - 1 : Math.min(look, header.looks);
    const values = this.landmarkMap(points[shown]);
    const pixels = new Uint8ClampedArray(4 * SIDE * SIDE);
    values.forEach((v, n) => pixels.set([255 * v, 255 * v, 255 * v, 255], 4 * n));
    this.canvas.getContext("2d").putImageData(new ImageData(pixels, SIDE, SIDE), 0, 0);
    this.map.title.textContent = `Map M(${this.name(2 * shown)}), ${MAP_TITLE[header.kinds[state.kind]]}`;
    const slopes = [];
    if (state.slope && shown === 1) {
      const most = Math.max(...Array.from({ length: 18 }, (_, i) => Math.hypot(slope[2 * i], slope[2 * i + 1])), 1e-12);
      for (let i = 0; i < 18; i++) {
        const [x, y] = [points[1][2 * i], points[1][2 * i + 1]];
        const line = arrow(x, y, x - (14 * slope[2 * i]) / most, y - (14 * slope[2 * i + 1]) / most, OKABE_ITO.orange, 1.1);
        if (line && result.slope > 0) slopes.push(line);
      }
    }
    this.slopes.replaceChildren(...slopes);
    const told = result.slope > 0 ? `Gradient of the cycle loss at x₁: norm ${round(result.slope)} per pixel` : "Gradient of the cycle loss at x₁: none comes back through this map";
    this.map.node.setAttribute("aria-label", `The landmark map of ${this.name(2 * shown)}. ${told}.`);
    this.say.textContent = `${told}${shown === 1 || !(result.slope > 0) ? "" : `; arrows at step ${this.name(2)}`}.`;

    const rotation = rotationMatrix([0, state.turn, 0]);
    const draw3d = (face) => {
      const middle = [0, 1, 2].map((axis) => Array.from({ length: 68 }, (_, p) => face[3 * p + axis]).reduce((a, b) => a + b) / 68);
      return outline(header.edges, (p) => {
        const [x, y] = apply(rotation, face[3 * p] - middle[0], middle[1] - face[3 * p + 1], face[3 * p + 2] - middle[2]);
        return [SIDE / 2 + x, SIDE / 2 - y];
      });
    };
    const current = Math.max(look, 1);
    const lines = [draw("path", { d: draw3d(faces[current - 1]), stroke: "var(--lf-accent)", "stroke-width": 1, fill: "none" })];
    if (current > 1) lines.unshift(draw("path", { d: draw3d(faces[current - 2]), stroke: "var(--lf-strong)", "stroke-width": 0.9, fill: "none" }));
    this.turned.replaceChildren(...lines);
    const pair = current > 1 ? `${this.name(2 * current - 3)} (orange) and ${this.name(2 * current - 1)} (blue)` : `${this.name(1)} (blue)`;
    this.side.title.textContent = `3D, turned: ${pair}`;
    this.side.node.setAttribute("aria-label", `3D landmarks turned by ${state.turn} degrees: ${pair}`);

    const row = (name, value) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, round(value)));
    this.table.replaceChildren(row("2D consistency, x₁ against x", result.landmarks_2d), row("3D consistency, X₂ against X₁", result.landmarks_3d), row("cycle, x₂ against x", result.cycle));
    const paints = ["var(--lf-strong)", "var(--lf-accent)", "var(--lf-third)", "var(--lf-face)"];
    const lookNumbers = Array.from({ length: header.looks + 1 }, (_, l) => l);
    const curves = header.regressors.flatMap((name, r) => {
      const { drift, errors } = this.measure(r);
      const colour = paints[r % paints.length];
      return [
        { name: `${name}: drift`, colour, x: lookNumbers.slice(1), y: drift, dash: "6 4" },
        ...(errors.length ? [{ name: `${name}: distance from the truth`, colour, x: lookNumbers, y: errors }] : []),
      ];
    });
    lineChart(this.chart, { lines: curves, title: "Drift and error after each look", xLabel: "look", yLabel: "pixels", points: true, height: 210, cursor: look });
    this.chart.setAttribute("aria-label", curves.map((c) => `${c.name}: ${Array.from(c.y, (v) => round(v, 1)).join(", ")} pixels`).join("; "));
    this.keys.replaceChildren(...header.regressors.map((name, r) => keyed(name, paints[r % paints.length])), `dashed: drift since the look before${header.truth ? "; solid: distance from the truth" : ""}`);
  }
}
