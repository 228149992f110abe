/* Which coefficient matters: PDC, VDC and WPDC of one face with wrong coefficients, from the moments of the model. */

const LOSS_ORDER = ["pdc", "vdc", "wpdc"];
const LOSS_TITLE = { pdc: "PDC", vdc: "VDC", wpdc: "WPDC" };
const DEPTH = 11; // pose[2,3], which no loss looks at

class CoefficientFigure extends LossFigure {
  static kind = "coefficient_figure";

  build() {
    const { header } = this;
    const D = header.names.length;
    this.D = D;
    this.K1 = D - 11; // 1 + shape + expression
    const groups = [["Pose", 0, 12], ["Shape", 12, 12 + header.numShape], ["Expression", 12 + header.numShape, D]];
    this.groupOf = (i) => groups.findIndex(([, , end]) => i < end);
    this.vertices = [0, 1].map(() => new Float32Array(3 * this.model.V));
    this.colours = new Uint8Array(3 * this.model.V);
    this.face = new Float32Array(3 * this.model.V);
    this.stage = make("div", { class: "lf-stage" });
    this.legend = make("div", { class: "lf-legend" });
    this.chart = draw("svg", { class: "lf-chart", role: "img" });
    this.chartTitle = make("p", { class: "lf-title" });
    this.table = make("table", { class: "lf-table" });
    this.say = make("p", { class: "lf-say", role: "status", "aria-live": "polite" });
    const pick = this.select("Coefficient", "coefficient", [], { number: true });
    const list = pick.querySelector("select");
    for (const [name, from, to] of groups) {
      const group = make("optgroup", { label: name });
      for (let i = from; i < to; i++) group.append(make("option", { value: i }, header.names[i]));
      list.append(group);
    }
    const sigma = { unit: " σ", spoken: "standard deviations" };
    const left = make("div", { class: "lf-panel" }, this.stage, this.legend,
      ...(header.faces.length > 1 ? [this.select("Face", "face", header.faces.map((name, i) => [i, name]), { number: true })] : []),
      this.select("Colour shows", "colour", [["one", "what this coefficient moves"], ["all", "what all errors move"]]));
    const right = make("div", { class: "lf-panel" },
      pick,
      this.slider("Its error", { id: "error", min: -header.limit, max: header.limit, step: 0.1, digits: 1, ...sigma,
        read: () => this.state.errors[this.state.coefficient], write: (value) => this.set({ errors: this.state.errors.with(this.state.coefficient, value) }) }),
      this.slider("Error of all others", { id: "others", min: 0, max: 1, step: 0.05, ...sigma, read: () => this.others(),
        write: (value) => this.set({ errors: this.state.errors.map((e, i) => (i === this.state.coefficient ? e : value * header.signs[i])) }) }),
      this.select("Bars show", "show", [["weights", "WPDC's weights"], ["pdc", "gradient of PDC"], ["vdc", "gradient of VDC"], ["wpdc", "gradient of WPDC"], ["errors", "errors left"]]),
      this.table,
      make("div", { class: "lf-buttons" }, this.chooseLoss(), this.button(`Descend ${header.descentSteps} steps`, () => this.descend(), "descend"), this.resetButton()),
      this.say, make("div", {}, this.chartTitle, this.chart));
    this.root.append(make("div", { class: "lf-frame" }, left, right));
    this.view = new FaceView(this, this.stage, this.model, {
      label: "Face, coloured by how far each vertex is off", angles: this.state.angles,
      onTurn: (angles) => { this.state.angles = angles; this.onChange?.(); },
    });
  }

  chooseLoss() {
    const row = this.select("Descend on", "loss", LOSS_ORDER.map((name) => [name, LOSS_TITLE[name]]));
    row.className = "lf-check";
    return row;
  }

  changed(changes) {
    if (changes.angles && this.view) this.view.angles = [...changes.angles];
  }

  /** The size of the other errors if they are as the slider left them, else their root mean square. */
  others() {
    const { coefficient, errors } = this.state;
    const rest = errors.filter((_, i) => i !== coefficient);
    return Math.sqrt(rest.reduce((sum, e) => sum + e * e, 0) / rest.length);
  }

  raw(errors) {
    const { whiteMean, whiteStd } = this.header;
    const truth = this.arrays.truth.subarray(this.state.face * this.D, (this.state.face + 1) * this.D);
    return Float64Array.from(truth, (c, i) => (c + errors[i]) * whiteStd[i] + whiteMean[i]);
  }

  /** Losses and gradients for the errors ĉ - c. */
  losses(errors) {
    const { D, K1 } = this;
    const { whiteStd, count, faceSizes } = this.header;
    const { gram, centroid, reach } = this.arrays;
    const face = this.state.face;
    const truth = this.raw(new Float64Array(D));
    const change = Float64Array.from(errors, (e, i) => e * whiteStd[i]);
    const gradients = { pdc: new Array(D).fill(0), vdc: new Array(D).fill(0), wpdc: new Array(D).fill(0) };
    const moved = Array.from(change, (d, i) => (i === DEPTH ? 0 : Math.abs(d) * reach[face * D + i]));
    const largest = Math.max(...moved, 1e-300);
    const weights = moved.map((m) => m / largest);
    let [pdc, wpdc, vdc] = [0, 0, 0];
    for (let i = 0; i < D; i++) {
      const e = i === DEPTH ? 0 : errors[i];
      pdc += e * e;
      wpdc += weights[i] * e * e;
      gradients.pdc[i] = 2 * e;
      gradients.wpdc[i] = 2 * weights[i] * e;
    }
    // VDC: displacement dM S(a + da) + M S(da), a quadratic form of the moments.
    const a = Float64Array.from({ length: K1 }, (_, k) => (k ? truth[11 + k] : 1));
    const da = Float64Array.from({ length: K1 }, (_, k) => (k ? change[11 + k] : 0));
    const N = 3 * K1;
    const unit = 1 / faceSizes[face] ** 2;
    const gradientA = new Float64Array(K1);
    const raw = new Float64Array(D);
    for (let r = 0; r < 3; r++) {
      const q = new Float64Array(N);
      for (let j = 0; j < 3; j++) for (let k = 0; k < K1; k++) q[j * K1 + k] = change[4 * r + j] * (a[k] + da[k]) + truth[4 * r + j] * da[k];
      let middle = change[4 * r + 3];
      for (let n = 0; n < N; n++) middle += q[n] * centroid[n];
      if (r === 2) middle = 0;
      const g = new Float64Array(N);
      for (let n = 0; n < N; n++) {
        let sum = 0;
        for (let m = 0; m < N; m++) sum += gram[n * N + m] * q[m];
        vdc += (sum * q[n] * unit) / count;
        g[n] = 2 * unit * (sum / count + middle * centroid[n]);
      }
      vdc += middle * middle * unit;
      raw[4 * r + 3] = 2 * middle * unit;
      for (let j = 0; j < 3; j++) {
        for (let k = 0; k < K1; k++) {
          raw[4 * r + j] += g[j * K1 + k] * (a[k] + da[k]);
          gradientA[k] += g[j * K1 + k] * (change[4 * r + j] + truth[4 * r + j]);
        }
      }
    }
    for (let k = 1; k < K1; k++) raw[11 + k] = gradientA[k];
    for (let i = 0; i < D; i++) gradients.vdc[i] = raw[i] * whiteStd[i];
    return { pdc, vdc, wpdc, weights, gradients };
  }

  descend() {
    const { loss, face } = this.state;
    const rate = this.header.steps[face][loss];
    let errors = [...this.state.errors];
    const before = this.losses(errors)[loss];
    for (let n = 0; n < this.header.descentSteps; n++) {
      const gradient = this.losses(errors).gradients[loss];
      errors = errors.map((e, i) => e - rate * gradient[i]);
    }
    this.set({ errors });
    this.say.textContent = `${this.header.descentSteps} steps on ${LOSS_TITLE[loss]}: ${round(before)} → ${round(this.losses(errors)[loss])}.`;
  }

  /** Vertices in pixels, y up, of whitened errors. */
  decode(errors, out) {
    const raw = this.raw(errors);
    const { shapeStd, expressionStd } = this.model.header;
    const std = [...shapeStd, ...expressionStd];
    decodeFace(this.model, Array.from(raw.subarray(12), (x, k) => x / std[k]), this.face);
    return posed(raw, this.face, out);
  }

  displacements() {
    const { errors, coefficient, colour } = this.state;
    const [truth, wrong] = this.vertices;
    const only = new Float64Array(this.D);
    only[coefficient] = errors[coefficient];
    if (this.decodedFace !== this.state.face) this.decode(new Float64Array(this.D), truth);
    this.decodedFace = this.state.face;
    this.decode(colour === "one" ? only : errors, wrong);
    let mean = 0;
    for (let i = 2; i < truth.length; i += 3) mean += (wrong[i] - truth[i]) / this.model.V;
    this.off ??= new Float32Array(this.model.V);
    for (let v = 0, i = 0; v < this.model.V; v++, i += 3) {
      const [x, y, z] = [wrong[i] - truth[i], wrong[i + 1] - truth[i + 1], wrong[i + 2] - truth[i + 2] - mean];
      this.off[v] = Math.sqrt(x * x + y * y + z * z);
    }
    return this.off;
  }

  numbers() {
    const off = this.displacements();
    let [sum, most] = [0, 0];
    for (const d of off) { sum += d; most = Math.max(most, d); }
    return { ...this.losses(this.state.errors), moved: sum / off.length, most };
  }

  /** Milliseconds per move of a slider: losses, gradients and two decoded faces. */
  benchmark(count = 20) {
    const began = performance.now();
    for (let n = 0; n < count; n++) {
      this.state.errors[this.state.coefficient] = Math.sin(n + 1);
      this.numbers();
      vertexNormals(this.vertices[1], this.model.triangles, this.view.normals);
    }
    const time = (performance.now() - began) / count;
    this.reset();
    return time;
  }

  paint() {
    const { state, header } = this;
    const off = this.displacements();
    const result = (this.result = this.losses(state.errors));
    const most = niceAbove(Math.max(off.reduce((m, d) => Math.max(m, d), 0), 0.01));
    off.forEach((d, v) => viridis(d / most, this.colours, 3 * v));
    const shown = this.decode(state.errors, this.vertices[1]);
    let middle = 0;
    for (let i = 2; i < shown.length; i += 3) middle += shown[i] / this.model.V;
    this.view.show(shown, this.colours, { middle });
    const name = header.names[state.coefficient];
    this.legend.replaceChildren(this.ramp("0", `${most} pixels`), `moved by ${state.colour === "one" ? `the error of ${name}` : "all errors"}`);

    const titles = { weights: "WPDC's weight of each coefficient", errors: "Error left in each coefficient, in standard deviations" };
    for (const loss of LOSS_ORDER) titles[loss] = `Gradient of ${LOSS_TITLE[loss]} with respect to each whitened coefficient`;
    const values = state.show === "weights" ? result.weights : state.show === "errors" ? state.errors : result.gradients[state.show];
    const paints = ["var(--lf-accent)", "var(--lf-third)", "var(--lf-strong)"];
    this.chartTitle.textContent = titles[state.show];
    const order = values.map((value, i) => [Math.abs(value), i]).sort((p, q) => q[0] - p[0]).slice(0, 3);
    const told = order.map(([, i]) => `${header.names[i]} ${round(values[i])}`).join(", ");
    this.chart.setAttribute("aria-label", `${titles[state.show]}. Largest: ${told}. Chosen: ${name} ${round(values[state.coefficient])}.`);
    const { left, step, H } = barChart(this.chart, {
      values, chosen: state.coefficient, names: header.names, title: titles[state.show], colours: values.map((_, i) => paints[this.groupOf(i)]),
      reach: state.show === "weights" ? 1 : null, choose: (i) => this.set({ coefficient: i }),
    });
    nameGroups(this.chart, [12, 12 + header.numShape, this.D], paints, { left, step, H });
    this.table.replaceChildren(
      make("caption", { style: "caption-side: bottom; text-align: left; font-size: 12px; color: var(--lf-muted)" }, `WPDC's weight of ${name}: ${round(result.weights[state.coefficient])}`),
      make("tr", {}, make("th", { scope: "col" }, "Loss"), make("th", { scope: "col" }, "Value"), make("th", { scope: "col" }, "Slope along it")),
      ...LOSS_ORDER.map((loss) => make("tr", {}, make("th", { scope: "row" }, LOSS_TITLE[loss]), make("td", {}, round(result[loss])), make("td", {}, round(result.gradients[loss][state.coefficient])))),
    );
  }
}
