/* Which coefficient matters: PDC, VDC and WPDC of one face with wrong coefficients, from the moments of the model. */

const LOSS_ORDER = ["pdc", "vdc", "wpdc"];
const LOSS_TITLE = { pdc: "PDC", vdc: "VDC", wpdc: "WPDC" };
const DEPTH = 11; // pose[2,3], which no loss uses
const CONTOURS = 10;

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
    const choose = (label, key) => {
      const row = this.select(label, key, [], { number: true });
      for (const [name, from, to] of groups) {
        const group = make("optgroup", { label: name });
        for (let i = from; i < to; i++) group.append(make("option", { value: i }, header.names[i]));
        row.querySelector("select").append(group);
      }
      return row;
    };
    const sigma = { unit: " σ", spoken: "standard deviations" };
    const errorOf = (label, id, key) => this.slider(label, { id, min: -header.limit, max: header.limit, step: 0.1, digits: 1, ...sigma,
      read: () => this.state.errors[this.state[key]], write: (value) => this.set({ errors: this.state.errors.with(this.state[key], value) }) });
    const left = make("div", { class: "lf-panel" }, this.stage, this.legend,
      ...(header.faces.length > 1 ? [this.select("Face", "face", header.faces.map((name, i) => [i, name]), { number: true })] : []),
      this.select("Colour shows", "colour", [["one", "what this coefficient moves"], ["all", "what all errors move"]]));
    const right = make("div", { class: "lf-panel" },
      choose("Coefficient", "coefficient"), errorOf("Its error", "error", "coefficient"),
      this.slider("Error of all others", { id: "others", min: 0, max: 1, step: 0.05, ...sigma, read: () => this.others(),
        write: (value) => this.set({ errors: this.state.errors.map((e, i) => (i === this.state.coefficient ? e : value * header.signs[i])) }) }),
      this.select("Bars show", "show", [["weights", "WPDC's weights"], ["pdc", "gradient of PDC"], ["vdc", "gradient of VDC"], ["wpdc", "gradient of WPDC"], ["errors", "errors left"]]),
      this.table,
      make("div", { class: "lf-buttons" }, this.chooseLoss(), this.button(`Descend ${header.descentSteps} steps`, () => this.descend(), "descend"), this.resetButton()),
      this.say, make("div", {}, this.chartTitle, this.chart));
    this.maps = LOSS_ORDER.map((loss) => this.buildMap(loss));
    this.mapsTell = make("p", { class: "lf-say" });
    const maps = make("div", { class: "lf-panel", style: "margin-top: 12px" }, make("p", { class: "lf-title" }, "The three losses over two coefficients"),
      make("div", { class: "lf-frame" }, choose("Second coefficient", "second"), errorOf("Error of the second", "second-error", "second")),
      make("div", { style: "display: grid; gap: 10px 14px; grid-template-columns: repeat(auto-fit, minmax(160px, 1fr))" }, ...this.maps.map(({ title, stage }) => make("div", {}, title, stage))),
      make("div", { class: "lf-legend" }, this.ramp("0", "the most in the picture"), "root of the loss; cross: the truth; dot: here; line: descent from here"), this.mapsTell);
    this.root.append(make("div", { class: "lf-frame" }, left, right), maps);
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

  /** A map of a loss; a click or a drag on it changes both errors. */
  buildMap(loss) {
    const canvas = make("canvas", { "aria-hidden": "true" });
    const stage = make("div", { class: "lf-stage", role: "img", style: "cursor: crosshair; touch-action: pan-y" }, canvas);
    const { limit } = this.header;
    let held = false;
    const at = (event) => {
      const box = stage.getBoundingClientRect();
      const error = (share) => Math.round(10 * limit * within(2 * share - 1, -1, 1)) / 10;
      const { errors, coefficient, second } = this.state;
      this.set({ errors: errors.with(coefficient, error((event.clientX - box.left) / box.width)).with(second, error(1 - (event.clientY - box.top) / box.height)) });
    };
    stage.addEventListener("pointerdown", (event) => { held = true; at(event); });
    stage.addEventListener("pointermove", (event) => held && at(event));
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) stage.addEventListener(name, () => (held = false));
    return { loss, canvas, stage, title: make("p", { class: "lf-title" }, LOSS_TITLE[loss]) };
  }

  /** The two coefficients of the maps stay different: choosing the other one swaps them. */
  set(changes, tell) {
    const { coefficient, second } = this.state;
    const next = { ...changes };
    if (next.coefficient === second && next.second === undefined) next.second = coefficient;
    else if (next.second === coefficient && next.coefficient === undefined) next.coefficient = second;
    super.set(next, tell);
  }

  changed(changes) {
    if (changes.angles && this.view) this.view.angles = [...changes.angles];
  }

  /** The size of the other errors if the slider set them last, otherwise their root mean square. */
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

  /** For VDC: the displacement dM S(a + da) + M S(da) of the basis, row by row, each with that of the centroid. */
  displacement(errors) {
    const { K1 } = this;
    const { centroid } = this.arrays;
    const N = 3 * K1;
    const truth = this.raw(new Float64Array(this.D));
    const change = Float64Array.from(errors, (e, i) => e * this.header.whiteStd[i]);
    const a = Float64Array.from({ length: K1 }, (_, k) => (k ? truth[11 + k] : 1));
    const da = Float64Array.from({ length: K1 }, (_, k) => (k ? change[11 + k] : 0));
    const moves = new Float64Array(3 * (N + 1));
    for (let r = 0; r < 3; r++) {
      const at = r * (N + 1);
      for (let j = 0; j < 3; j++) for (let k = 0; k < K1; k++) moves[at + j * K1 + k] = change[4 * r + j] * (a[k] + da[k]) + truth[4 * r + j] * da[k];
      if (r === 2) continue; // depths are centred
      let middle = change[4 * r + 3];
      for (let n = 0; n < N; n++) middle += moves[at + n] * centroid[n];
      moves[at + N] = middle;
    }
    return { a, da, change, truth, moves };
  }

  /** VDC's inner products of displacements, (n x n). */
  products(list) {
    const N = 3 * this.K1;
    const { gram } = this.arrays;
    const { count, faceSizes } = this.header;
    const unit = 1 / faceSizes[this.state.face] ** 2;
    const result = list.map(() => new Array(list.length).fill(0));
    const image = new Float64Array(N);
    list.forEach((d, i) => {
      for (let r = 0; r < 3; r++) {
        const at = r * (N + 1);
        for (let n = 0; n < N; n++) {
          let sum = 0;
          for (let m = 0; m < N; m++) sum += gram[n * N + m] * d[at + m];
          image[n] = sum / count;
        }
        list.forEach((other, j) => {
          let sum = d[at + N] * other[at + N];
          for (let n = 0; n < N; n++) sum += image[n] * other[at + n];
          result[i][j] += unit * sum;
        });
      }
    });
    return result;
  }

  /** For each loss: value and both slopes at errors (u, v) of the two chosen coefficients, and the step of descent. */
  plane() {
    const { errors, coefficient: i, second: j, face } = this.state;
    const { whiteStd } = this.header;
    const at = (u, v) => errors.with(i, u).with(j, v);
    const rest = at(0, 0);
    // The displacement is bilinear: P0 + u P1 + v P2 + u v P3; VDC is a quadratic form of (1, u, v, u v).
    const [none, one, other, both] = [rest, at(1, 0), at(0, 1), at(1, 1)].map((e) => this.displacement(e).moves);
    const G = this.products([none, one.map((x, n) => x - none[n]), other.map((x, n) => x - none[n]), both.map((x, n) => x - one[n] - other[n] + none[n])]);
    const vdc = (u, v) => {
      const p = [1, u, v, u * v];
      const Gp = G.map((row) => row.reduce((sum, g, k) => sum + g * p[k], 0));
      return [p.reduce((sum, x, k) => sum + x * Gp[k], 0), 2 * (Gp[1] + v * Gp[3]), 2 * (Gp[2] + u * Gp[3])];
    };
    const [uu, vv, uv] = [2 * G[1][1], 2 * G[2][2], 2 * (G[1][2] + G[0][3])];
    const steepest = (uu + vv) / 2 + Math.hypot((uu - vv) / 2, uv);
    const reach = rest.map((_, k) => (k === DEPTH ? 0 : this.arrays.reach[face * this.D + k] * whiteStd[k]));
    let [most, square, weighted] = [0, 0, 0];
    rest.forEach((e, k) => {
      if (k === DEPTH) return;
      most = Math.max(most, Math.abs(e) * reach[k]);
      square += e * e;
      weighted += Math.abs(e) * reach[k] * e * e;
    });
    const seen = (k, e) => (k === DEPTH ? 0 : e);
    const pdc = (u, v) => {
      const [x, y] = [seen(i, u), seen(j, v)];
      return [square + x * x + y * y, 2 * x, 2 * y];
    };
    const wpdc = (u, v) => {
      const [a, b] = [Math.abs(u) * reach[i], Math.abs(v) * reach[j]];
      const largest = Math.max(most, a, b, 1e-300);
      return [(weighted + a * u * u + b * v * v) / largest, (2 * a * u) / largest, (2 * b * v) / largest];
    };
    return { pdc: [pdc, 0.25], vdc: [vdc, steepest > 0 ? 0.5 / steepest : 0], wpdc: [wpdc, 0.25] };
  }

  /** Values over the plane, row by row from the lowest error of the second coefficient, and the path of descent. */
  overTwo() {
    const { limit, mapPoints: n, pathSteps } = this.header;
    const { errors, coefficient, second } = this.state;
    const plane = this.plane();
    const [maps, paths] = [{}, {}];
    for (const loss of LOSS_ORDER) {
      const [value, rate] = plane[loss];
      const axis = Array.from({ length: n }, (_, k) => limit * ((2 * k) / (n - 1) - 1));
      maps[loss] = new Float64Array(n * n);
      axis.forEach((v, row) => axis.forEach((u, column) => (maps[loss][row * n + column] = value(u, v)[0])));
      let [u, v] = [errors[coefficient], errors[second]];
      paths[loss] = [u, v];
      for (let k = 0; k < pathSteps; k++) {
        const [, du, dv] = value(u, v);
        [u, v] = [u - rate * du, v - rate * dv];
        paths[loss].push(u, v);
      }
    }
    return { maps, paths };
  }

  /** Losses and gradients for the errors ĉ - c. */
  losses(errors) {
    const { D, K1 } = this;
    const { whiteStd, count, faceSizes } = this.header;
    const { gram, centroid, reach } = this.arrays;
    const face = this.state.face;
    const { a, da, change, truth, moves } = this.displacement(errors);
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
    const N = 3 * K1;
    const unit = 1 / faceSizes[face] ** 2;
    const gradientA = new Float64Array(K1);
    const raw = new Float64Array(D);
    for (let r = 0; r < 3; r++) {
      const q = moves.subarray(r * (N + 1), r * (N + 1) + N);
      const middle = moves[r * (N + 1) + N];
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
    const { maps, paths } = this.overTwo();
    return { ...this.losses(this.state.errors), moved: sum / off.length, most, maps: Object.fromEntries(LOSS_ORDER.map((loss) => [loss, Array.from(maps[loss])])), paths };
  }

  /** Colours and contours of a map, fixed while its two errors move; on the CPU, as GPUs draw many short lines slowly. */
  paintGround(map, values, side) {
    const n = this.header.mapPoints;
    const roots = values.map(Math.sqrt);
    const most = roots.reduce((m, x) => Math.max(m, x), 1e-300);
    const pixels = new Uint8ClampedArray(4 * n * n).fill(255);
    for (let row = 0; row < n; row++) for (let column = 0; column < n; column++) viridis(roots[(n - 1 - row) * n + column] / most, pixels, 4 * (row * n + column));
    const tile = make("canvas", { width: n, height: n });
    tile.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, n, n), 0, 0);
    map.ground = make("canvas", { width: side, height: side });
    const context = map.ground.getContext("2d", { willReadFrequently: true });
    // Grid points lie on the edge of the picture: half a cell of the tile stays outside.
    context.drawImage(tile, 0.5, 0.5, n - 1, n - 1, 0, 0, side, side);
    context.lineWidth = (0.66 * side) / 200;
    context.strokeStyle = "rgba(255, 255, 255, 0.55)";
    context.stroke(contours(roots, n, Array.from({ length: CONTOURS - 1 }, (_, k) => (most * (k + 1)) / CONTOURS), (x, y) => [(side * x) / (n - 1), side * (1 - y / (n - 1))]));
  }

  paintMaps() {
    const { header, state } = this;
    const { maps, paths } = this.overTwo();
    const [a, b] = [header.names[state.coefficient], header.names[state.second]];
    this.mapsTell.textContent = `Right: more ${a}; up: more ${b}; both from −${header.limit} to ${header.limit} σ off. Press anywhere to go there. Lines: ${header.pathSteps} steps in these two alone; all others stay as wrong as they are.`;
    const rest = state.errors.map((e, k) => (k === state.coefficient || k === state.second ? 0 : e));
    for (const map of this.maps) {
      const { loss, canvas, stage } = map;
      const side = Math.max(1, Math.round(canvas.getBoundingClientRect().width * Math.min(window.devicePixelRatio || 1, 2)));
      if (canvas.width !== side) canvas.width = canvas.height = side;
      const key = JSON.stringify([side, state.face, state.coefficient, state.second, rest]);
      if (map.key !== key) this.paintGround(map, maps[loss], side);
      map.key = key;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      const unit = (side / 200) * 1.1;
      context.drawImage(map.ground, 0, 0);
      const place = (u, v) => [(side * (u / header.limit + 1)) / 2, (side * (1 - v / header.limit)) / 2];
      const path = new Path2D();
      const dots = new Path2D();
      for (let k = 0; k < paths[loss].length; k += 2) {
        const [x, y] = place(paths[loss][k], paths[loss][k + 1]);
        path.lineTo(x, y);
        dots.moveTo(x + 1.7 * unit, y);
        dots.arc(x, y, 1.7 * unit, 0, 7);
      }
      const [cx, cy] = place(0, 0);
      const cross = new Path2D(`M${cx - 5 * unit} ${cy}h${10 * unit}M${cx} ${cy - 5 * unit}v${10 * unit}`);
      const here = new Path2D();
      here.arc(...place(paths[loss][0], paths[loss][1]), 4 * unit, 0, 7);
      for (const [width, colour] of [[3.4, "#1f2328"], [1.6, OKABE_ITO.orange]]) {
        context.lineWidth = width * unit;
        context.strokeStyle = context.fillStyle = colour;
        context.stroke(path);
        context.fill(dots);
      }
      for (const [width, colour] of [[3.2, "#1f2328"], [1.6, "white"]]) {
        context.lineWidth = width * unit;
        context.strokeStyle = colour;
        context.stroke(cross);
      }
      context.fill(here);
      context.lineWidth = 1.2 * unit;
      context.strokeStyle = "#1f2328";
      context.stroke(here);
      const [u, v, endU, endV] = [...paths[loss].slice(0, 2), ...paths[loss].slice(-2)];
      stage.setAttribute("aria-label", `${LOSS_TITLE[loss]} over the errors of ${a} and ${b}. Descent from ${signed(u, 1)} and ${signed(v, 1)} ends at ${signed(endU, 2)} and ${signed(endV, 2)} standard deviations.`);
    }
  }

  /** Milliseconds per move of a slider: losses, gradients, maps with their paths, and two decoded faces. */
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
    this.paintMaps();
    this.table.replaceChildren(
      make("caption", { style: "caption-side: bottom; text-align: left; font-size: 12px; color: var(--lf-muted)" }, `WPDC's weight of ${name}: ${round(result.weights[state.coefficient])}`),
      make("tr", {}, make("th", { scope: "col" }, "Loss"), make("th", { scope: "col" }, "Value"), make("th", { scope: "col" }, "Slope along it")),
      ...LOSS_ORDER.map((loss) => make("tr", {}, make("th", { scope: "row" }, LOSS_TITLE[loss]), make("td", {}, round(result[loss])), make("td", {}, round(result.gradients[loss][state.coefficient])))),
    );
  }
}
