/* Shared code of the loss figures: controls with labels, charts, a face to turn, and the static and live modes.
 *
 * The text of face.js comes first in the same module, a figure's own class after it, and a last line that names the
 * class: `mountFigures(TheClass)`. In a static page the figure finds its numbers beside it; in a running notebook
 * anywidget calls `render`, and the trait `state` is synchronised with the controls both ways.
 */

const OKABE_ITO = { orange: "#E69F00", sky: "#56B4E9", green: "#009E73", yellow: "#F0E442", blue: "#0072B2", vermilion: "#D55E00", purple: "#CC79A7", grey: "#7F7F7F" };
const KIT_STYLE_ID = "loss-figure-style";
const KIT_DARK = "--lf-ink: #e1e5ea; --lf-muted: #a3adb8; --lf-line: #47505a; --lf-surface: #1d2127; --lf-stage: #2a3038; --lf-accent: #56B4E9; --lf-strong: #E69F00; --lf-third: #3fc79c; --lf-face: #8d98a5; color-scheme: dark;";
const KIT_STYLE = `
.loss-figure { --lf-ink: #1f2328; --lf-muted: #57606a; --lf-line: #c9d0d8; --lf-surface: #ffffff; --lf-stage: #eef1f5; --lf-accent: #0072B2; --lf-strong: #D55E00;
  --lf-third: #00795a; --lf-face: #6b7682; color-scheme: light; color: var(--lf-ink); font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; margin: 0.4rem 0;
  max-width: 1000px; text-align: left; container-type: inline-size; }
@media (prefers-color-scheme: dark) { html:not([data-theme]) body:not([data-jp-theme-light]) .loss-figure { ${KIT_DARK} } }
html[data-theme="dark"] .loss-figure, body[data-jp-theme-light="false"] .loss-figure { ${KIT_DARK} }
.loss-figure *, .loss-figure *::before { box-sizing: border-box; }
.lf-frame { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 10px 18px; align-items: start; }
.lf-wide { grid-column: 1 / -1; }
.lf-three { grid-template-columns: repeat(3, minmax(0, 1fr)); }
@container (max-width: 640px) { .lf-frame, .lf-three { grid-template-columns: minmax(0, 1fr); } }
.lf-stage { position: relative; aspect-ratio: 1 / 1; background: var(--lf-stage); border: 1px solid var(--lf-line); border-radius: 8px; overflow: hidden; min-width: 0; }
.lf-stage canvas, .lf-stage svg { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.lf-turns { cursor: grab; touch-action: pan-y; user-select: none; }
.lf-legend { display: flex; gap: 4px 10px; align-items: center; flex-wrap: wrap; color: var(--lf-muted); font-size: 12px; margin: 4px 0; min-height: 1.5em; }
.lf-ramp { width: 110px; height: 9px; border-radius: 3px; flex: none; }
.lf-key { display: inline-block; width: 9px; height: 9px; border-radius: 50%; flex: none; margin-left: 6px; }
.lf-panel { display: grid; gap: 7px; min-width: 0; }
.lf-row { display: grid; grid-template-columns: 10.5em minmax(60px, 1fr) 4.4em; gap: 8px; align-items: center; }
.lf-row.lf-two { grid-template-columns: 10.5em minmax(60px, 1fr); }
.loss-figure label { margin: 0; font-weight: 400; color: var(--lf-ink); }
.loss-figure output { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.lf-row.lf-long { grid-template-columns: 10.5em minmax(60px, 1fr) 6.5em; }
.loss-figure input { margin: 0; width: 100%; min-width: 0; accent-color: var(--lf-accent); }
.lf-check { display: flex; gap: 7px; align-items: center; }
.lf-check input { width: auto; flex: none; }
.lf-buttons { display: flex; gap: 8px; flex-wrap: wrap; align-items: center; }
.loss-figure select, .loss-figure button { font: inherit; color: var(--lf-ink); background: var(--lf-surface); border: 1px solid var(--lf-line); border-radius: 6px;
  padding: 4px 8px; margin: 0; width: auto; max-width: 100%; height: auto; min-width: 0; }
.loss-figure button { cursor: pointer; }
.loss-figure button:hover, .loss-figure select:hover { border-color: var(--lf-accent); }
.loss-figure :focus-visible { outline: 2px solid var(--lf-accent); outline-offset: 2px; }
.loss-figure table.lf-table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 0; display: table; background: none; color: inherit; border: 0; }
.loss-figure .lf-table :is(th, td) { padding: 2px 6px; text-align: right; border: 0; border-bottom: 1px solid var(--lf-line); background: none; color: var(--lf-ink); font-size: 13px; }
.loss-figure .lf-table :is(th, td):first-child { text-align: left; }
.loss-figure .lf-table th { font-weight: 600; color: var(--lf-muted); }
.lf-say { color: var(--lf-muted); min-height: 1.4em; margin: 4px 0 0; font-size: 12.5px; font-variant-numeric: tabular-nums; }
.lf-chart { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; }
.lf-chart text { fill: var(--lf-muted); }
.lf-chart .lf-axis { stroke: var(--lf-line); stroke-width: 1; fill: none; }
.lf-title { font-weight: 600; margin: 2px 0 4px; font-size: 13px; }
.lf-error { padding: 10px 12px; border: 1px solid var(--lf-line); border-radius: 8px; }
.loss-figure details { border: 0; margin: 4px 0 0; padding: 0; background: none; box-shadow: none; font-size: 12px; color: var(--lf-muted); }
.loss-figure details code { font-size: 11px; overflow-wrap: anywhere; background: none; color: inherit; border: 0; }
.cell_output .text_html:has(> .loss-figure-page) { background: none !important; padding: 0 !important; overflow: visible; }
.loss-figure-page[data-mounted="yes"] > .lf-fallback { display: none; }
@media print {
  .loss-figure-page > .loss-figure { display: none; }
  .loss-figure-page[data-mounted="yes"] > .lf-fallback { display: block; }
}
`;

function make(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** A name with its colour and dash pattern, without a line break between them. */
function keyed(name, colour, dash = null) {
  const line = draw("svg", { width: 26, height: 6, "aria-hidden": "true", style: "flex: none; margin-left: 6px" }, draw("path", { d: "M0 3H26", stroke: colour, "stroke-width": 2.4, "stroke-dasharray": dash }));
  return make("span", { style: "display: inline-flex; gap: 6px; align-items: center; white-space: nowrap" }, line, name);
}

/** A name with a dot in its colour, without a line break between them. */
function dotted(name, colour) {
  return make("span", { style: "display: inline-flex; gap: 6px; align-items: center; white-space: nowrap" }, make("span", { class: "lf-key", style: `background: ${colour}` }), name);
}

const within = (x, low, high) => Math.min(high, Math.max(low, x));
const signed = (x, digits) => `${x < 0 && Number(x.toFixed(digits)) !== 0 ? "−" : ""}${Math.abs(x).toFixed(digits)}`;
const round = (x, digits = 2) => {
  if (!Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.floor(Math.log10(Math.abs(x)));
  if (size >= -3 && size < 5) return signed(x, within(digits - size, 0, 6));
  const [mantissa, power] = x.toExponential(digits).split("e");
  return `${mantissa}·10${String(Number(power)).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)])}`.replace("-", "−");
};

/** A tick of an axis, with as few digits as it needs. */
const plainNumber = (x) => String(Number(x.toPrecision(3))).replace("-", "−");

/** Named arrays from one stream of bytes. */
function unpackArrays(list, bytes) {
  const kinds = { f8: Float64Array, f4: Float32Array, i4: Int32Array, i2: Int16Array, u1: Uint8Array };
  const arrays = {};
  let at = 0;
  for (const { name, kind, length } of list) {
    const Kind = kinds[kind];
    arrays[name] = new Kind(bytes.slice(at, at + length * Kind.BYTES_PER_ELEMENT).buffer);
    at += length * Kind.BYTES_PER_ELEMENT;
  }
  return arrays;
}

/** Pose times face, y up: out = M S + t, vertices x0 y0 z0 x1 ... */
function posed(pose, points, out) {
  for (let i = 0; i < points.length; i += 3) {
    const x = points[i];
    const y = points[i + 1];
    const z = points[i + 2];
    for (let r = 0; r < 3; r++) out[i + r] = pose[4 * r] * x + pose[4 * r + 1] * y + pose[4 * r + 2] * z + pose[4 * r + 3];
  }
  return out;
}

/** The face's skin as a surface to turn; vertices in pixels of the crop with y up (frame of the pose). */
class FaceView {
  constructor(figure, stage, model, { label, size = 120, turn = true, angles = [0, 0, 0], onTurn = () => {} }) {
    Object.assign(this, { figure, stage, model, size, onTurn });
    this.angles = [...angles];
    this.canvas = make("canvas", { "aria-hidden": "true" });
    stage.prepend(this.canvas);
    this.painter = new Painter(this.canvas, model);
    this.normals = new Float32Array(3 * model.V);
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.painter.restore();
      figure.redraw();
    });
    if (turn) this.#listen(label);
  }

  #listen(label) {
    const { stage } = this;
    stage.classList.add("lf-turns");
    for (const [name, value] of Object.entries({ tabindex: "0", role: "application", "aria-roledescription": "3D view", "aria-label": `${label}. Arrow keys turn and tilt it, zero turns it back.` })) stage.setAttribute(name, value);
    let last = null;
    stage.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!last) return;
      this.turn(-(event.clientY - last[1]) * 0.45, -(event.clientX - last[0]) * 0.45);
      last = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => (last = null));
    const keys = { ArrowLeft: [0, 5], ArrowRight: [0, -5], ArrowUp: [5, 0], ArrowDown: [-5, 0] };
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "0") this.turn(-this.angles[0], -this.angles[1]);
      else if (keys[event.key]) this.turn(...keys[event.key]);
      else return;
      event.preventDefault();
    });
  }

  turn(pitch, yaw) {
    this.angles = [within(this.angles[0] + pitch, -90, 90), within(this.angles[1] + yaw, -110, 110), 0];
    this.onTurn([...this.angles]);
    this.figure.redraw();
  }

  show(vertices, colours, { mode = 4, middle = 0, zoom = 0.86, clear = true } = {}) {
    const { canvas, painter } = this;
    if (painter.gl.isContextLost()) return;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const side = Math.max(1, Math.round(canvas.getBoundingClientRect().width * ratio));
    if (canvas.width !== side) canvas.width = canvas.height = side;
    if (clear) painter.clear();
    vertexNormals(vertices, this.model.triangles, this.normals);
    painter.upload(0, { vertices, normals: this.normals, colours });
    const centre = (this.size + 1) / 2;
    painter.draw(0, {
      left: 0, width: side, height: side, rotation: rotationMatrix(this.angles), centre: [centre, centre, middle],
      pixelsPerMm: (zoom * side) / this.size, radius: 1.6 * this.size, mode, gloss: 0, wire: false, ink: [0, 0, 0, 0.3], landmarks: null, ratio,
    });
  }
}

/** Base of the figures: state, controls, redrawing. */
class LossFigure {
  constructor(host, header, arrays, model, state) {
    Object.assign(this, { root: host, header, arrays, model, start: structuredClone(state), state: structuredClone(state), inputs: [], onChange: null });
    this.id = `lf${Math.random().toString(36).slice(2, 9)}`;
    host.id = this.id;
    host.classList.add("loss-figure");
    host.setAttribute("role", "group");
    host.setAttribute("aria-label", header.title);
    host.setAttribute("data-lm-suppress-shortcuts", "true");
    host.figure = this;
    host.bookState = () => this.report();
    host.addEventListener("keydown", (event) => {
      if (!(event.ctrlKey || event.metaKey || event.altKey || ["Tab", "Escape"].includes(event.key))) event.stopPropagation();
    });
    if (!document.getElementById(KIT_STYLE_ID)) document.head.append(make("style", { id: KIT_STYLE_ID }, KIT_STYLE));
    this.later = () => this.redraw();
    this.theme = new MutationObserver(this.later);
    this.theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.media.addEventListener("change", this.later);
    this.resize = new ResizeObserver(this.later);
    this.resize.observe(host);
    this.build();
    this.refresh();
    this.paint();
  }

  /** The drawing in numbers. */
  report() {
    return { state: this.state, ...this.numbers() };
  }

  set(changes, tell = true) {
    Object.assign(this.state, structuredClone(changes));
    this.changed(changes);
    this.refresh();
    this.redraw();
    if (tell && this.onChange) this.onChange();
  }

  changed() {}

  reset() {
    if (this.say) this.say.textContent = "";
    this.set(this.start);
  }

  refresh() {
    for (const show of this.inputs) show();
  }

  redraw() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  destroy() {
    this.theme.disconnect();
    this.resize.disconnect();
    this.media.removeEventListener("change", this.later);
    clearInterval(this.timer);
    cancelAnimationFrame(this.pending);
    for (const canvas of this.root.querySelectorAll("canvas")) canvas.getContext("webgl2")?.getExtension("WEBGL_lose_context")?.loseContext();
  }

  ink(name) {
    return getComputedStyle(this.root).getPropertyValue(`--lf-${name}`).trim();
  }

  /* ---- controls ---- */

  #wire(node, id) {
    node.id = `${this.id}-${id}`;
    node.setAttribute("data-test-changes", `#${this.id}`);
    return node;
  }

  slider(label, { id, min, max, step, unit = "", digits = 2, spoken = unit, read, write, text = null }) {
    const input = this.#wire(make("input", { type: "range", min, max, step }), id);
    const output = make("output", { for: input.id });
    input.addEventListener("input", () => write(Number(input.value)));
    const row = make("div", { class: text ? "lf-row lf-long" : "lf-row" }, make("label", { for: input.id }, label), input, output);
    this.inputs.push(() => {
      const value = read();
      input.value = value;
      output.textContent = text ? text(value) : `${signed(value, digits)}${unit}`;
      input.setAttribute("aria-valuetext", text ? text(value) : `${Number(value.toFixed(digits))} ${spoken}`.trim());
    });
    return row;
  }

  select(label, key, choices, { number = false } = {}) {
    const select = this.#wire(make("select"), key);
    for (const [value, text] of choices) select.append(make("option", { value }, text));
    select.addEventListener("change", () => this.set({ [key]: number ? Number(select.value) : select.value }));
    this.inputs.push(() => (select.value = this.state[key]));
    return make("div", { class: "lf-row lf-two" }, make("label", { for: select.id }, label), select);
  }

  check(label, key) {
    const box = this.#wire(make("input", { type: "checkbox" }), key);
    box.addEventListener("change", () => this.set({ [key]: box.checked }));
    this.inputs.push(() => (box.checked = this.state[key]));
    return make("div", { class: "lf-check" }, box, make("label", { for: box.id }, label));
  }

  button(label, action, id = null) {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", action);
    return id ? this.#wire(button, id) : button;
  }

  resetButton() {
    return this.button("Reset", () => this.reset());
  }

  /** A colour ramp with its ends. */
  ramp(low, high) {
    const stops = VIRIDIS.map((c) => `rgb(${c})`).join(", ");
    const ends = { style: "display: inline-flex; gap: 6px; align-items: center; white-space: nowrap" };
    return make("span", ends, low, make("span", { class: "lf-ramp", style: `background: linear-gradient(to right, ${stops})` }), high);
  }
}

/* ------------------------------------------------------------------------------------------------------------ charts */

/** The displayed width, so that the chart's text is as large as the text around it. */
function chartWidth(svg) {
  return within(Math.round(svg.getBoundingClientRect().width) || 480, 240, 1000);
}

/** Bars of many numbers around zero, with one of them selected. */
function barChart(svg, { values, colours, chosen, names, title, height = 190, reach = null, choose }) {
  const [W, H, left, bottom] = [chartWidth(svg), height, 52, 18];
  const top = Math.max(...values.map(Math.abs), 1e-300);
  const most = reach ?? top;
  const low = Math.min(...values) < 0 ? -most : 0;
  const y = (v) => 8 + ((H - bottom - 8) * (most - within(v, low, most))) / (most - low);
  const step = (W - left - 4) / values.length;
  const parts = [draw("title", {}, title)];
  for (const tick of low < 0 ? [most, 0, -most] : [most, most / 2, 0]) {
    parts.push(draw("path", { class: "lf-axis", d: `M${left} ${y(tick)}H${W - 4}` }));
    parts.push(draw("text", { x: left - 5, y: y(tick) + 4, "text-anchor": "end" }, Math.abs(tick) < 1e-3 ? round(tick, 1) : plainNumber(Number(tick.toPrecision(2)))));
  }
  values.forEach((value, i) => {
    const x = left + i * step;
    const [a, b] = [y(Math.max(value, 0)), y(Math.min(value, 0))];
    const bar = draw("g", { class: "lf-bar", style: choose ? "cursor: pointer" : null },
      draw("title", {}, `${names[i]}: ${round(value)}`),
      draw("rect", { x, y: 4, width: step, height: H - bottom - 4, fill: "transparent" }),
      draw("rect", { x: x + 0.12 * step, y: a, width: 0.76 * step, height: Math.max(b - a, 0.6), fill: colours[i] }));
    if (i === chosen) bar.append(draw("rect", { x: x - 0.5, y: 3, width: step + 1, height: H - bottom - 2, fill: "none", stroke: "var(--lf-ink)", "stroke-width": 1.4, rx: 2 }));
    if (choose) bar.addEventListener("click", () => choose(i));
    parts.push(bar);
  });
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.replaceChildren(...parts);
  return { left, step, H };
}

/** The labels pose, shape and expression below their bars. */
function nameGroups(svg, ends, paints, { left, step, H }) {
  ["pose", "shape", "expression"].forEach((text, g) => {
    const last = g === ends.length - 1;
    const x = last ? left + step * ends[g] : left + (step * ((ends[g - 1] ?? 0) + ends[g])) / 2;
    svg.append(draw("text", { x, y: H - 4, "text-anchor": last ? "end" : "middle", style: `fill: ${paints[g]}; font-weight: 600` }, text));
  });
}

/** Lines over a common axis. `lines`: {name, x, y, colour, dash}. */
function lineChart(svg, { lines, cursor = null, title, xLabel, yLabel, log = false, height = 230, zero = !log, points = false }) {
  const [W, H, left, right, top, bottom] = [chartWidth(svg), height, 58, 10, 10, 34];
  const good = (v) => v !== null && Number.isFinite(v) && (!log || v > 0);
  const all = lines.flatMap((line) => Array.from(line.y).filter(good));
  const xs = lines.flatMap((line) => Array.from(line.x));
  const parts = [draw("title", {}, title)];
  if (all.length) {
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (zero) low = Math.min(0, low);
    if (log) [low, high] = [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.0001))];
    else high = low + (high - low || 1) * 1.06;
    const [first, last] = [Math.min(...xs), Math.max(...xs)];
    const x = (v) => left + ((W - left - right) * (v - first)) / (last - first || 1);
    const scale = log ? Math.log10 : (v) => v;
    const y = (v) => top + ((H - top - bottom) * (scale(high) - scale(v))) / (scale(high) - scale(low) || 1);
    const ticks = log ? Array.from({ length: Math.round(Math.log10(high / low)) + 1 }, (_, k) => low * 10 ** k) : niceTicks(low, high, 4);
    for (const tick of ticks) {
      parts.push(draw("path", { class: "lf-axis", d: `M${left} ${y(tick)}H${W - right}`, "stroke-opacity": 0.7 }));
      parts.push(draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, log ? round(tick, 0) : plainNumber(tick)));
    }
    for (const tick of niceTicks(first, last, 5)) parts.push(draw("text", { x: Math.min(x(tick), W - 3.6 * plainNumber(tick).length), y: H - bottom + 15, "text-anchor": "middle" }, plainNumber(tick)));
    for (const line of lines) {
      let path = "";
      let pen = false;
      line.y.forEach((v, i) => {
        if (good(v)) path += `${pen ? "L" : "M"}${x(line.x[i]).toFixed(1)} ${y(v).toFixed(1)}`;
        pen = good(v);
      });
      parts.push(draw("path", { d: path, fill: "none", stroke: line.colour, "stroke-width": 2.2, "stroke-dasharray": line.dash ?? null, "stroke-linejoin": "round" }));
      if (points) line.y.forEach((v, i) => good(v) && parts.push(draw("circle", { cx: x(line.x[i]), cy: y(v), r: 3.4, fill: line.colour })));
    }
    if (cursor !== null && cursor >= first && cursor <= last) parts.push(draw("path", { d: `M${x(cursor)} ${top}V${H - bottom}`, stroke: "var(--lf-ink)", "stroke-width": 1.3 }));
  }
  parts.push(draw("text", { x: (left + W - right) / 2, y: H - 4, "text-anchor": "middle" }, xLabel));
  if (yLabel) parts.push(draw("text", { x: 12, y: (H - bottom + top) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(H - bottom + top) / 2})` }, yLabel));
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.replaceChildren(...parts);
}

/** Lines of equal value through a grid (n x n) as one path; `place` takes column and row. */
function contours(values, n, levels, place) {
  const path = new Path2D();
  for (const level of levels) {
    for (let row = 0; row + 1 < n; row++) {
      for (let column = 0; column + 1 < n; column++) {
        const ends = [];
        const edge = (x, y, u, v) => {
          const [p, q] = [values[y * n + x] - level, values[v * n + u] - level];
          if (p < 0 !== q < 0) ends.push(place(x + ((u - x) * p) / (p - q), y + ((v - y) * p) / (p - q)));
        };
        edge(column, row, column + 1, row);
        edge(column + 1, row, column + 1, row + 1);
        edge(column + 1, row + 1, column, row + 1);
        edge(column, row + 1, column, row);
        for (let k = 0; k + 1 < ends.length; k += 2) {
          path.moveTo(...ends[k]);
          path.lineTo(...ends[k + 1]);
        }
      }
    }
  }
  return path;
}

function niceTicks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
}

/** The polylines of 68 points as one path; points given by a function of the index. */
function outline(edges, at) {
  return edges.map(([a, b]) => `M${at(a).map((v) => v.toFixed(2))}L${at(b).map((v) => v.toFixed(2))}`).join("");
}

/* ----------------------------------------------------------------------------------------------- the two ways to live */

async function begin(FigureClass, host, header, data, modelData, state) {
  const arrays = unpackArrays(header.arrays, await inflate(data));
  const model = header.model ? await unpackModel(header.model, modelData) : null;
  return new FigureClass(host, header, arrays, model, state);
}

function complainFigure(host, error) {
  host.classList.add("loss-figure");
  host.replaceChildren(make("p", { class: "lf-error" }, `The interactive figure cannot be shown: ${error.message}.`));
  console.error(error);
}

let theFigure = null;

function mountFigures(FigureClass) {
  theFigure = FigureClass;
  if (typeof document === "undefined") return;
  for (const page of document.querySelectorAll(`.loss-figure-page[data-kind="${FigureClass.kind}"]:not([data-mounted])`)) {
    page.dataset.mounted = "loading";
    const host = make("div");
    const { header, state } = JSON.parse(page.querySelector("script.lf-header").textContent);
    page.append(host);
    begin(FigureClass, host, header, fromBase64(page.querySelector("script.lf-data").textContent), fromBase64(page.querySelector("script.lf-model")?.textContent ?? ""), state)
      .then(() => (page.dataset.mounted = "yes"))
      .catch((error) => {
        complainFigure(host, error);
        page.dataset.mounted = "failed";
      });
  }
}

/** In a notebook, the numbers come by message: a trait would be stored in every saved notebook. */
function request(model) {
  return new Promise((resolve) => {
    const receive = (message, buffers) => {
      if (message?.kind !== "figure") return;
      model.off("msg:custom", receive);
      resolve([message.header, ...buffers.map((b) => (b.buffer ? new Uint8Array(b.buffer, b.byteOffset, b.byteLength) : new Uint8Array(b)))]);
    };
    model.on("msg:custom", receive);
    model.send({ kind: "request-figure" });
  });
}

function render({ model, el }) {
  const host = make("div", {}, "Loading the figure from the kernel …");
  el.append(host);
  let figure = null;
  let over = false;
  let timer = 0;
  const follow = () => {
    const state = model.get("state");
    if (figure && !timer && JSON.stringify(state) !== JSON.stringify(figure.state)) figure.set(state, false);
  };
  (async () => {
    const [header, data, modelData] = await request(model);
    if (over) return;
    host.replaceChildren();
    figure = await begin(theFigure, host, header, data, modelData, model.get("state"));
    figure.onChange = () => {
      timer ||= setTimeout(() => {
        timer = 0;
        model.set("state", structuredClone(figure.state));
        model.save_changes();
      }, 40);
    };
    model.on("change:state", follow);
  })().catch((error) => complainFigure(host, error));
  return () => {
    over = true;
    model.off("change:state", follow);
    figure?.destroy();
  };
}

export default { render };
