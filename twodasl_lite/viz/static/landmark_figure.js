/* 2D landmark consistency: 18 detected points against those of the decoded face. Pixels: x right, y down. */

const CROP = 120;

class LandmarkFigure extends LossFigure {
  static kind = "landmark_figure";

  build() {
    const { header } = this;
    this.D = header.names.length;
    this.K1 = this.D - 11;
    this.face = new Float32Array(3 * this.model.V);
    this.vertices = new Float32Array(3 * this.model.V);
    this.clay = Uint8Array.from({ length: 3 * this.model.V }, (_, i) => Math.round(255 * header.model.clay[i % 3]));
    this.left = make("div", { class: "lf-stage", tabindex: "0", role: "application", "aria-roledescription": "landmarks to move", style: "touch-action: none" });
    this.overlay = draw("svg", { viewBox: `-0.5 -0.5 ${CROP} ${CROP}`, "aria-hidden": "true" });
    this.photo = header.image ? make("img", { src: header.image, alt: "", class: "dark-light", style: "position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: auto; margin: 0; max-width: none" }) : null;
    this.left.append(...(this.photo ? [this.photo] : []), this.overlay);
    this.right = make("div", { class: "lf-stage" });
    this.sideLines = draw("svg", { viewBox: `-0.5 -0.5 ${CROP} ${CROP}`, "aria-hidden": "true", style: "pointer-events: none" });
    this.right.append(this.sideLines);
    this.say = make("p", { class: "lf-say", role: "status", "aria-live": "polite" });
    this.chart = draw("svg", { class: "lf-chart", role: "img" });
    this.table = make("table", { class: "lf-table" });
    const keys = make("div", { class: "lf-legend" }, dotted("detected: drag me", OKABE_ITO.vermilion), dotted("decoded", OKABE_ITO.blue), keyed("what is left", OKABE_ITO.purple));
    const sideKeys = make("div", { class: "lf-legend" }, keyed("true landmarks", OKABE_ITO.vermilion), keyed("decoded", OKABE_ITO.blue), "(drag to turn, or arrow keys)");
    const choose = this.select("Landmark", "chosen", header.pointNames.map((name, i) => [i, name]), { number: true });
    const seen = make("input", { type: "checkbox", id: `${this.id}-seen`, "data-test-changes": `#${this.id}` });
    seen.addEventListener("change", () => this.hide(this.state.chosen, !seen.checked));
    this.inputs.push(() => (seen.checked = !this.state.hidden.includes(this.state.chosen)));
    const controls = make("div", { class: "lf-panel" },
      this.slider("Detector's noise", { id: "noise", min: 0, max: header.noiseLimit, step: 0.1, digits: 1, unit: " px", spoken: "pixels", read: () => this.state.noise, write: (noise) => this.set({ noise }) }),
      this.select("Distance", "distance", [["squared", "squared"], ["huber", "Huber"]]),
      this.slider("Huber's δ", { id: "delta", min: header.deltaLimits[0], max: header.deltaLimits[1], step: 0.01, read: () => this.state.delta, write: (delta) => this.set({ delta }), spoken: "face sizes" }),
      choose,
      make("div", { class: "lf-check" }, seen, make("label", { for: seen.id }, "This landmark is visible")),
      this.check("Show the decoded face", "face"),
      ...(this.photo ? [this.check("Show the picture", "picture")] : []),
      make("div", { class: "lf-buttons" }, this.button(`Descend ${header.descentSteps} steps`, () => this.descend(), "descend"), this.resetButton()),
      this.say);
    const results = make("div", { class: "lf-panel" }, this.table, make("p", { class: "lf-title" }, "Where the loss pulls the 62 numbers (minus its gradient, whitened)"), this.chart);
    this.root.append(make("div", { class: "lf-frame" }, make("div", {}, this.left, keys), make("div", {}, this.right, sideKeys), controls, results));
    this.front = new FaceView(this, this.left, this.model, { turn: false });
    this.front.canvas.style.opacity = "0.9";
    this.side = new FaceView(this, this.right, this.model, {
      label: "The decoded face from the side, with the true landmarks", angles: this.state.angles,
      onTurn: (angles) => { this.state.angles = angles; this.onChange?.(); },
    });
    // Above the picture, below the marks.
    if (this.photo) this.left.prepend(this.photo);
    this.listen();
  }

  listen() {
    const place = (event) => {
      const box = this.left.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * CROP - 0.5, ((event.clientY - box.top) / box.height) * CROP - 0.5];
    };
    let held = null;
    this.left.addEventListener("pointerdown", (event) => {
      const [x, y] = place(event);
      const seen = this.observed();
      let best = 7;
      for (let i = 0; i < 18; i++) {
        const d = Math.hypot(seen[2 * i] - x, seen[2 * i + 1] - y);
        if (d < best) [best, held] = [d, i];
      }
      if (held === null) return;
      this.left.setPointerCapture(event.pointerId);
      this.set({ chosen: held });
    });
    this.left.addEventListener("pointermove", (event) => {
      if (held === null) return;
      const [x, y] = place(event);
      const seen = this.observed();
      this.move(held, x - seen[2 * held], y - seen[2 * held + 1]);
    });
    for (const name of ["pointerup", "pointercancel"]) this.left.addEventListener(name, () => (held = null));
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    this.left.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { chosen, hidden } = this.state;
      if (moves[event.key]) this.move(chosen, ...moves[event.key]);
      else if (event.key === "n") this.set({ chosen: (chosen + 1) % 18 });
      else if (event.key === "p") this.set({ chosen: (chosen + 17) % 18 });
      else if (event.key === " ") this.hide(chosen, !hidden.includes(chosen));
      else return;
      event.preventDefault();
    });
  }

  move(i, dx, dy) {
    const drag = [...this.state.drag];
    drag[2 * i] += dx;
    drag[2 * i + 1] += dy;
    this.set({ drag });
  }

  hide(i, hidden) {
    this.set({ hidden: hidden ? [...this.state.hidden, i].sort((a, b) => a - b) : this.state.hidden.filter((j) => j !== i) });
  }

  changed(changes) {
    if (changes.angles && this.side) this.side.angles = [...changes.angles];
  }

  /** Detected points, flat. */
  observed() {
    const { truth, noise } = this.arrays;
    return Float64Array.from({ length: 36 }, (_, n) => {
      const [a, b] = this.header.subset[n >> 1];
      return (truth[3 * a + (n & 1)] + truth[3 * b + (n & 1)]) / 2 + this.state.noise * noise[n] + this.state.drag[n];
    });
  }

  raw(predicted) {
    return Float64Array.from(predicted, (c, i) => c * this.header.whiteStd[i] + this.header.whiteMean[i]);
  }

  /** Model-frame landmarks and those in the frame of the pose (y up). */
  landmarks(raw) {
    const { K1 } = this;
    const { basis } = this.arrays;
    const points = new Float64Array(204);
    for (let n = 0; n < 204; n++) {
      let sum = basis[n * K1];
      for (let k = 1; k < K1; k++) sum += basis[n * K1 + k] * raw[11 + k];
      points[n] = sum;
    }
    return [points, posed(raw, points, new Float64Array(204))];
  }

  loss(predicted) {
    const { header, state, K1, D } = this;
    const { basis } = this.arrays;
    const raw = this.raw(predicted);
    const [face, placed] = this.landmarks(raw);
    const observed = this.observed();
    const visible = header.subset.map((_, i) => !state.hidden.includes(i));
    const count = Math.max(visible.filter(Boolean).length, 1);
    const extent = [0, 1].map((axis) => {
      const values = header.subset.flatMap((_, i) => (visible[i] ? [observed[2 * i + axis]] : []));
      return values.length ? Math.max(...values) - Math.min(...values) : 0;
    });
    const size = Math.max(Math.sqrt(extent[0] * extent[1]), header.floor);
    const points = new Float64Array(36);
    const pull = new Float64Array(204); // gradient of the loss, by landmark and axis, y up
    let [loss, off] = [0, 0];
    header.subset.forEach(([a, b], i) => {
      points[2 * i] = (placed[3 * a] + placed[3 * b]) / 2 - 1;
      points[2 * i + 1] = CROP - (placed[3 * a + 1] + placed[3 * b + 1]) / 2;
      if (!visible[i]) return;
      const [dx, dy] = [points[2 * i] - observed[2 * i], points[2 * i + 1] - observed[2 * i + 1]];
      const squared = (dx * dx + dy * dy) / size ** 2;
      const far = state.distance === "huber" && squared > state.delta ** 2;
      loss += (far ? 2 * state.delta * Math.sqrt(squared) - state.delta ** 2 : squared) / count;
      off += Math.hypot(dx, dy) / count;
      const slope = (far ? state.delta / Math.sqrt(squared) : 1) * (2 / size ** 2 / count);
      for (const p of [a, b]) {
        pull[3 * p] += (slope * dx) / 2;
        pull[3 * p + 1] -= (slope * dy) / 2;
      }
    });
    const gradient = new Float64Array(D);
    for (let p = 0; p < 68; p++) {
      for (let r = 0; r < 2; r++) {
        const g = pull[3 * p + r];
        if (g === 0) continue;
        for (let j = 0; j < 3; j++) {
          gradient[4 * r + j] += g * face[3 * p + j];
          const scale = g * raw[4 * r + j];
          for (let k = 1; k < K1; k++) gradient[11 + k] += scale * basis[(3 * p + j) * K1 + k];
        }
        gradient[4 * r + 3] += g;
      }
    }
    return { loss, gradient: Array.from(gradient, (g, i) => g * header.whiteStd[i]), points: Array.from(points), off_2d: off, placed, observed, visible };
  }

  descend() {
    let predicted = [...this.state.predicted];
    const before = this.loss(predicted).loss;
    for (let n = 0; n < this.header.descentSteps; n++) {
      const { gradient } = this.loss(predicted);
      predicted = predicted.map((c, i) => c - this.header.step * gradient[i]);
    }
    this.set({ predicted });
    this.say.textContent = `${this.header.descentSteps} steps: loss ${round(before)} → ${round(this.loss(predicted).loss)}.`;
  }

  depths(placed) {
    const { truth } = this.arrays;
    let [mine, true_] = [0, 0];
    for (let p = 0; p < 68; p++) {
      mine += placed[3 * p + 2] / 68;
      true_ += truth[3 * p + 2] / 68;
    }
    let sum = 0;
    for (let p = 0; p < 68; p++) sum += (placed[3 * p + 2] - mine - truth[3 * p + 2] + true_) ** 2 / 68;
    return { off_depth: Math.sqrt(sum), mine, true_ };
  }

  numbers() {
    const { loss, gradient, points, off_2d, placed } = this.loss(this.state.predicted);
    return { loss, gradient, points, off_2d, off_depth: this.depths(placed).off_depth };
  }

  benchmark(count = 20) {
    const began = performance.now();
    for (let n = 0; n < count; n++) {
      this.state.predicted = this.state.predicted.map((_, k) => Math.sin(n + k + 1));
      this.numbers();
      this.decodeSurface();
      vertexNormals(this.vertices, this.model.triangles, this.side.normals);
    }
    const time = (performance.now() - began) / count;
    this.reset();
    return time;
  }

  decodeSurface() {
    const raw = this.raw(this.state.predicted);
    const std = [...this.model.header.shapeStd, ...this.model.header.expressionStd];
    decodeFace(this.model, Array.from(raw.subarray(12), (x, k) => x / std[k]), this.face);
    posed(raw, this.face, this.vertices);
  }

  paint() {
    const { state, header } = this;
    const result = this.loss(state.predicted);
    const { points, observed, visible, placed } = result;
    const depth = this.depths(placed);
    this.decodeSurface();
    this.front.canvas.style.visibility = state.face ? "visible" : "hidden";
    if (this.photo) this.photo.style.visibility = state.picture ? "visible" : "hidden";
    if (state.face) this.front.show(this.vertices, this.clay, { mode: 1, middle: depth.mine, zoom: 1 });
    this.side.show(this.vertices, this.clay, { mode: 1, middle: depth.mine, zoom: 0.86 });

    const marks = [];
    for (let i = 0; i < 18; i++) {
      const [x, y, u, v] = [observed[2 * i], observed[2 * i + 1], points[2 * i], points[2 * i + 1]];
      const faint = visible[i] ? 1 : 0.35;
      const length = Math.hypot(x - u, y - v);
      if (visible[i] && length > 0.5) {
        const [cx, cy] = [(x - u) / length, (y - v) / length];
        // The tip of the arrow ends at the rim of the detected point.
        const [tx, ty] = [x - Math.min(1.7, length / 3) * cx, y - Math.min(1.7, length / 3) * cy];
        const head = Math.min(1.7, length / 4);
        const d = `M${u} ${v}L${tx} ${ty}M${tx - head * (cx - 0.6 * cy)} ${ty - head * (cy + 0.6 * cx)}L${tx} ${ty}L${tx - head * (cx + 0.6 * cy)} ${ty - head * (cy - 0.6 * cx)}`;
        for (const [stroke, width] of [["#1f2328", 1.1], [OKABE_ITO.purple, 0.6]]) marks.push(draw("path", { d, stroke, "stroke-width": width, fill: "none", "stroke-linecap": "round", "stroke-linejoin": "round" }));
      }
      marks.push(draw("circle", { cx: u, cy: v, r: 1.2, fill: OKABE_ITO.blue, stroke: "white", "stroke-width": 0.3 }));
      marks.push(draw("circle", { cx: x, cy: y, r: 1.7, fill: visible[i] ? OKABE_ITO.vermilion : "none", stroke: visible[i] ? "white" : OKABE_ITO.vermilion, "stroke-width": 0.5, "stroke-dasharray": visible[i] ? null : "1 0.7", opacity: visible[i] ? 1 : 0.9, style: "cursor: move" }));
      if (i === state.chosen) marks.push(draw("circle", { cx: x, cy: y, r: 3, fill: "none", stroke: "#1f2328", "stroke-width": 0.6, opacity: Math.max(faint, 0.8) }));
    }
    this.overlay.replaceChildren(...marks);
    const i = state.chosen;
    this.left.setAttribute("aria-label", `Detected landmarks on the decoded face. Chosen: ${header.pointNames[i]}, ${visible[i] ? "visible" : "hidden"}, x ${round(observed[2 * i], 1)}, y ${round(observed[2 * i + 1], 1)}, ${round(Math.hypot(observed[2 * i] - points[2 * i], observed[2 * i + 1] - points[2 * i + 1]), 1)} pixels from the decoded one. Arrow keys move it, n and p choose the next and the previous, space hides it.`);

    const rotation = rotationMatrix(this.side.angles);
    const middle = (CROP + 1) / 2;
    const turned = (x, y, z) => {
      const [a, b] = apply(rotation, x - middle, y - middle, z);
      return [0.86 * a + middle - 1, CROP - (0.86 * b + middle)];
    };
    const truth = (p) => turned(this.arrays.truth[3 * p] + 1, CROP - this.arrays.truth[3 * p + 1], this.arrays.truth[3 * p + 2] - depth.true_);
    const mine = (p) => turned(placed[3 * p], placed[3 * p + 1], placed[3 * p + 2] - depth.mine);
    this.sideLines.replaceChildren(
      draw("path", { d: outline(header.edges, mine), stroke: OKABE_ITO.blue, "stroke-width": 0.9, fill: "none" }),
      draw("path", { d: outline(header.edges, truth), stroke: OKABE_ITO.vermilion, "stroke-width": 0.9, fill: "none" }),
    );
    const row = (name, value, unit) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value), make("td", {}, unit));
    this.table.replaceChildren(
      row("2D landmark consistency", round(result.loss), "face sizes²"),
      row("visible points are off by", round(result.off_2d), "pixels"),
      row("depth is off by (not in the loss)", round(depth.off_depth), "pixels"),
    );
    const pulls = result.gradient.map((g) => -g);
    const paints = ["var(--lf-accent)", "var(--lf-third)", "var(--lf-strong)"];
    const ends = [12, 12 + header.numShape, this.D];
    const strongest = pulls.map((value, k) => [Math.abs(value), k]).sort((p, q) => q[0] - p[0]).slice(0, 3).map(([, k]) => `${header.names[k]} ${round(pulls[k])}`);
    this.chart.setAttribute("aria-label", `Minus the gradient of the loss for each coefficient. Strongest: ${strongest.join(", ")}.`);
    const { left, step, H } = barChart(this.chart, { values: pulls, names: header.names, chosen: -1, title: "Minus the gradient", height: 170, colours: pulls.map((_, k) => paints[ends.findIndex((end) => k < end)]) });
    nameGroups(this.chart, ends, paints, { left, step, H });
  }
}
