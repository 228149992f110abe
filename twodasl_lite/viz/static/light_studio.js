/* The light studio: the z-buffer of chapter 6 in the browser, without a graphics card.
 *
 * Frames are those of twodasl_lite.render: pixels with centres at integers, x right, y down, z towards the viewer;
 * normals and lamps in the upright frame (y up). The rules are those of twodasl_lite.render.rasterizer, and the result
 * is the same, pixel for pixel: corners rounded to 1/256, top-left rule, depths compared in single precision, and the
 * lowest triangle index wins at equal depth.
 */

const DEGREE = Math.PI / 180;
const BITS = 8;
const STEP = 1 << BITS;
const STAGE = 480; // pixels of the canvas
const FILL = 0.92; // largest fraction of the picture that the face fills in any orientation
const VISIBLE = { tolerance: 0.01, resolution: 256 }; // constants of twodasl_lite.render.visibility

const SHOW = [
  ["picture", "Picture"],
  ["light", "Light alone"],
  ["normals", "Normals"],
  ["depth", "Depth"],
  ["pncc", "PNCC"],
  ["triangles", "Triangles"],
];
const SOURCES = [
  ["lamp", "Lamp, exactly"],
  ["harmonics", "Nine harmonics"],
];
const SIZES = [30, 60, 120, 240];
const SLIDERS = [
  { key: "yaw", label: "Yaw", min: -90, max: 90, step: 5, unit: "°" },
  { key: "pitch", label: "Pitch", min: -45, max: 45, step: 5, unit: "°" },
  { key: "azimuth", label: "Lamp, sideways", min: -180, max: 180, step: 5, unit: "°" },
  { key: "elevation", label: "Lamp, height", min: -90, max: 90, step: 5, unit: "°" },
  { key: "ambient", label: "Ambient light", min: 0, max: 1, step: 0.05, unit: "" },
];

/* ------------------------------------------------------------------------------------------------------- the z-buffer */

/** Nearest integer; halves to the even one, as numpy rounds. */
function rint(x) {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

/** What each pixel shows: triangle (-1: none), three weights, depth. */
export function rasterize(vertices, triangles, height, width) {
  const V = vertices.length / 3;
  const corners = new Int32Array(2 * V);
  for (let v = 0; v < V; v++) {
    corners[2 * v] = rint(vertices[3 * v] * STEP);
    corners[2 * v + 1] = rint(vertices[3 * v + 1] * STEP);
  }
  const triangle = new Int32Array(height * width).fill(-1);
  const depth = new Float32Array(height * width).fill(-Infinity);
  for (let t = 0; t < triangles.length / 3; t++) {
    const i = triangles[3 * t];
    const j = triangles[3 * t + 1];
    const k = triangles[3 * t + 2];
    const x0 = corners[2 * i];
    const y0 = corners[2 * i + 1];
    const x1 = corners[2 * j];
    const y1 = corners[2 * j + 1];
    const x2 = corners[2 * k];
    const y2 = corners[2 * k + 1];
    const left = Math.max((Math.min(x0, x1, x2) + STEP - 1) >> BITS, 0);
    const right = Math.min(Math.max(x0, x1, x2) >> BITS, width - 1);
    const top = Math.max((Math.min(y0, y1, y2) + STEP - 1) >> BITS, 0);
    const bottom = Math.min(Math.max(y0, y1, y2) >> BITS, height - 1);
    if (right < left || bottom < top) continue;
    const area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    if (area === 0) continue;
    const turn = area > 0 ? 1 : -1;
    const r0 = turn * (y1 - y2);
    const r1 = turn * (y2 - y0);
    const r2 = turn * (y0 - y1);
    const d0 = turn * (x2 - x1);
    const d1 = turn * (x0 - x2);
    const d2 = turn * (x1 - x0);
    const least0 = r0 > 0 || (r0 === 0 && d0 > 0) ? 0 : 1; // points on top and left edges count as inside
    const least1 = r1 > 0 || (r1 === 0 && d1 > 0) ? 0 : 1;
    const least2 = r2 > 0 || (r2 === 0 && d2 > 0) ? 0 : 1;
    const scale = 1 / (turn * area);
    const s0 = Math.fround(vertices[3 * i + 2]) * scale;
    const s1 = Math.fround(vertices[3 * j + 2]) * scale;
    const s2 = Math.fround(vertices[3 * k + 2]) * scale;
    const slope = r0 * STEP * s0 + r1 * STEP * s1 + r2 * STEP * s2;
    const px = left * STEP;
    for (let row = top; row <= bottom; row++) {
      const py = row * STEP;
      let e0 = r0 * (px - x1) + d0 * (py - y1) - least0;
      let e1 = r1 * (px - x2) + d1 * (py - y2) - least1;
      let e2 = r2 * (px - x0) + d2 * (py - y0) - least2;
      let column = left;
      while (column <= right && (e0 < 0 || e1 < 0 || e2 < 0)) {
        e0 += r0 * STEP;
        e1 += r1 * STEP;
        e2 += r2 * STEP;
        column++;
      }
      const start = (e0 + least0) * s0 + (e1 + least1) * s1 + (e2 + least2) * s2;
      for (let number = 0; column <= right && e0 >= 0 && e1 >= 0 && e2 >= 0; column++, number++) {
        const at = row * width + column;
        const here = Math.fround(start + slope * number);
        if (here > depth[at]) {
          depth[at] = here;
          triangle[at] = t;
        }
        e0 += r0 * STEP;
        e1 += r1 * STEP;
        e2 += r2 * STEP;
      }
    }
  }
  const weights = new Float32Array(3 * height * width);
  for (let at = 0; at < triangle.length; at++) {
    const t = triangle[at];
    if (t < 0) continue;
    const x0 = corners[2 * triangles[3 * t]];
    const y0 = corners[2 * triangles[3 * t] + 1];
    const x1 = corners[2 * triangles[3 * t + 1]];
    const y1 = corners[2 * triangles[3 * t + 1] + 1];
    const x2 = corners[2 * triangles[3 * t + 2]];
    const y2 = corners[2 * triangles[3 * t + 2] + 1];
    const px = (at % width) * STEP;
    const py = Math.floor(at / width) * STEP;
    const area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    weights[3 * at] = ((y1 - y2) * (px - x1) + (x2 - x1) * (py - y1)) / area;
    weights[3 * at + 1] = ((y2 - y0) * (px - x2) + (x0 - x2) * (py - y2)) / area;
    weights[3 * at + 2] = ((y0 - y1) * (px - x0) + (x1 - x0) * (py - y0)) / area;
  }
  return { triangle, weights, depth };
}

/* --------------------------------------------------------------------------------------------------- pose and normals */

/** R = Rx(pitch) Ry(yaw) with the signs of twodasl_lite.geometry.camera.euler_to_matrix, row by row. */
function rotation(pitch, yaw) {
  const [cp, sp, cy, sy] = [Math.cos(pitch), Math.sin(pitch), Math.cos(yaw), Math.sin(yaw)];
  return [cy, 0, -sy, sp * sy, cp, sp * cy, cp * sy, -sp, cp * cy];
}

/** Vertices in pixels of a picture `size` x `size`. */
function place(mesh, state, size) {
  const R = rotation(state.pitch * DEGREE, state.yaw * DEGREE);
  const f = (FILL * size) / (2 * mesh.reach);
  const middle = (size - 1) / 2;
  const out = new Float64Array(mesh.points.length);
  for (let v = 0; v < out.length; v += 3) {
    const x = mesh.points[v];
    const y = mesh.points[v + 1];
    const z = mesh.points[v + 2];
    out[v] = middle + f * (R[0] * x + R[1] * y + R[2] * z);
    out[v + 1] = middle - f * (R[3] * x + R[4] * y + R[5] * z);
    out[v + 2] = f * (R[6] * x + R[7] * y + R[8] * z);
  }
  return out;
}

/** Unit normals at the vertices, upright frame, weighted by the triangles' areas. */
function vertexNormals(vertices, triangles) {
  const sum = new Float64Array(vertices.length);
  for (let t = 0; t < triangles.length; t += 3) {
    const a = 3 * triangles[t];
    const b = 3 * triangles[t + 1];
    const c = 3 * triangles[t + 2];
    const ux = vertices[b] - vertices[a];
    const uy = vertices[b + 1] - vertices[a + 1];
    const uz = vertices[b + 2] - vertices[a + 2];
    const vx = vertices[c] - vertices[a];
    const vy = vertices[c + 1] - vertices[a + 1];
    const vz = vertices[c + 2] - vertices[a + 2];
    const nx = uz * vy - uy * vz; // y down mirrors the mesh: the cross product with two signs flipped
    const ny = uz * vx - ux * vz;
    const nz = uy * vx - ux * vy;
    for (let n = 0; n < 3; n++) {
      const corner = n === 0 ? a : n === 1 ? b : c;
      sum[corner] += nx;
      sum[corner + 1] += ny;
      sum[corner + 2] += nz;
    }
  }
  for (let v = 0; v < sum.length; v += 3) {
    const length = Math.sqrt(sum[v] ** 2 + sum[v + 1] ** 2 + sum[v + 2] ** 2) || 1;
    for (let n = 0; n < 3; n++) sum[v + n] /= length;
  }
  return sum;
}

/* -------------------------------------------------------------------------------------------------------------- light */

const toLinear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const LINEAR = Float64Array.from({ length: 256 }, (_, k) => toLinear(k / 255));
function toSrgb(c) {
  const light = Math.min(Math.max(c, 0), 1);
  return light <= 0.0031308 ? light * 12.92 : 1.055 * light ** (1 / 2.4) - 0.055;
}

function lampDirection(state) {
  const [a, e] = [state.azimuth * DEGREE, state.elevation * DEGREE];
  return [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
}

/** A lamp of strength 1 seen through the clamped cosine, and its approximation by nine spherical harmonics. */
function lightAt(cosine, state) {
  if (state.source === "lamp") return state.ambient + Math.max(cosine, 0);
  return Math.max(state.ambient + 0.25 + cosine / 2 + (5 / 32) * (3 * cosine * cosine - 1), 0);
}

/* ------------------------------------------------------------------------------------------------------------ drawing */

const hash = (t) => (Math.imul(t + 1, 2654435761) >>> 0) / 2 ** 32;

/** The picture of a state: `rgba` in 8 bits, with all intermediate results. */
export function draw(mesh, state) {
  const fine = state.smooth ? 3 : 1;
  const side = state.size * fine;
  const coarse = place(mesh, state, state.size);
  const vertices = coarse.map((x, n) => (n % 3 === 2 ? x * fine : x * fine + (fine - 1) / 2));
  const fragments = rasterize(vertices, mesh.triangles, side, side);
  const normals = vertexNormals(vertices, mesh.triangles);
  const lamp = lampDirection(state);
  const { triangle, weights, depth } = fragments;
  let [near, far] = [-Infinity, Infinity];
  for (const z of depth) {
    if (z > near) near = z;
    if (z > -Infinity && z < far) far = z;
  }
  const linear = new Float64Array(4 * state.size * state.size);
  const share = 1 / (fine * fine);
  const value = [0, 0, 0];
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      const at = row * side + column;
      const t = triangle[at];
      if (t < 0) continue;
      let nx = 0;
      let ny = 0;
      let nz = 0;
      value[0] = value[1] = value[2] = 0;
      for (let n = 0; n < 3; n++) {
        const v = 3 * mesh.triangles[3 * t + n];
        const w = weights[3 * at + n];
        nx += w * normals[v];
        ny += w * normals[v + 1];
        nz += w * normals[v + 2];
        for (let c = 0; c < 3; c++) {
          if (state.show === "picture") value[c] += w * mesh.linear[v + c];
          else if (state.show === "pncc") value[c] += w * mesh.code[v + c];
        }
      }
      const length = Math.sqrt(nx * nx + ny * ny + nz * nz) || 1;
      const light = lightAt((nx * lamp[0] + ny * lamp[1] + nz * lamp[2]) / length, state);
      if (state.show === "picture") for (let c = 0; c < 3; c++) value[c] *= light;
      else if (state.show === "light") value.fill(light);
      else if (state.show === "normals") [nx, ny, nz].forEach((x, c) => (value[c] = toLinear((x / length + 1) / 2)));
      else if (state.show === "depth") value.fill(toLinear((depth[at] - far) / (near - far || 1)));
      else if (state.show === "pncc") value.forEach((x, c) => (value[c] = toLinear(x)));
      else for (let c = 0; c < 3; c++) value[c] = 0.08 + 0.9 * hash(3 * t + c);
      const to = 4 * (Math.floor(row / fine) * state.size + Math.floor(column / fine));
      for (let c = 0; c < 3; c++) linear[to + c] += share * value[c];
      linear[to + 3] += share;
    }
  }
  const rgba = new Uint8ClampedArray(linear.length);
  for (let at = 0; at < linear.length; at += 4) {
    const alpha = linear[at + 3];
    if (!alpha) continue;
    for (let c = 0; c < 3; c++) rgba[at + c] = Math.round(255 * toSrgb(linear[at + c] / alpha));
    rgba[at + 3] = Math.round(255 * alpha);
  }
  return { rgba, vertices, coarse, normals, fine, side, ...fragments };
}

/** Which landmarks are visible: the mesh is drawn once more, and points clearly behind the surface are hidden. */
function visibleLandmarks(mesh, coarse) {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let v = 0; v < coarse.length; v++) {
    low[v % 3] = Math.min(low[v % 3], coarse[v]);
    high[v % 3] = Math.max(high[v % 3], coarse[v]);
  }
  const { tolerance, resolution } = VISIBLE;
  const scale = (resolution - 1) / Math.max(high[0] - low[0], high[1] - low[1]);
  const placed = coarse.map((x, v) => (x - low[v % 3]) * scale);
  const { depth } = rasterize(placed, mesh.triangles, resolution, resolution);
  return Array.from(mesh.landmarks, (landmark) => {
    const [x, y, z] = placed.subarray(3 * landmark, 3 * landmark + 3);
    const around = [Math.floor(y), Math.ceil(y)].flatMap((row) =>
      [Math.floor(x), Math.ceil(x)].map((column) => depth[Math.min(row, resolution - 1) * resolution + Math.min(column, resolution - 1)]),
    );
    return z >= Math.min(...around) - tolerance * (resolution - 1);
  });
}

/* ------------------------------------------------------------------------------------------------------- the mesh sent */

async function unpack(header, text) {
  const binary = atob(text.trim());
  const packed = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  const { V, T } = header;
  const rounded = new Int16Array(buffer, 0, 3 * V);
  const triangles = new Uint16Array(buffer, 6 * V, 3 * T);
  const colours = new Uint8Array(buffer, 6 * V + 6 * T, 3 * V);
  const code = new Uint8Array(buffer, 9 * V + 6 * T, 3 * V);
  const points = Float64Array.from(rounded, (x) => x * header.step);
  let reach = 0;
  for (let v = 0; v < points.length; v += 3) reach = Math.max(reach, Math.hypot(points[v], points[v + 1], points[v + 2]));
  return {
    points,
    reach,
    triangles,
    code: Float64Array.from(code, (c) => c / 255),
    linear: Float64Array.from(colours, (c) => LINEAR[c]),
    landmarks: header.landmarks,
  };
}

/* --------------------------------------------------------------------------------------------------------- the figure */

const STYLE_ID = "light-studio-style";
const DARK = "--ls-ink: #ced6dd; --ls-muted: #9aa4af; --ls-line: #47505a; --ls-surface: #1d2127; --ls-stage: #3a414a; --ls-accent: #56B4E9; color-scheme: dark;";
const STYLE = `
.light-studio { --ls-ink: #1f2328; --ls-muted: #57606a; --ls-line: #c9d0d8; --ls-surface: #ffffff; --ls-stage: #dfe4ea; --ls-accent: #0072B2;
  color-scheme: light; color: var(--ls-ink); font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; margin: 0.4rem 0;
  max-width: 900px; text-align: left; display: flex; flex-wrap: wrap; gap: 10px 18px; align-items: flex-start; }
@media (prefers-color-scheme: dark) { html:not([data-theme]) body:not([data-jp-theme-light]) .light-studio { ${DARK} } }
html[data-theme="dark"] .light-studio, body[data-jp-theme-light="false"] .light-studio { ${DARK} }
.light-studio *, .light-studio *::before { box-sizing: border-box; }
.light-studio .ls-stage { flex: 1 1 300px; max-width: 480px; min-width: 0; }
.light-studio canvas { width: 100%; height: auto; display: block; background: var(--ls-stage); border: 1px solid var(--ls-line); border-radius: 8px; cursor: crosshair; }
.light-studio .ls-readout { display: block; min-height: 4.2em; margin-top: 6px; color: var(--ls-muted); font-variant-numeric: tabular-nums; white-space: pre-line; }
.light-studio .ls-panel { flex: 1 1 260px; min-width: 0; display: grid; gap: 7px; }
.light-studio .ls-row { display: grid; grid-template-columns: 9.5em minmax(60px, 1fr) 3.4em; gap: 8px; align-items: center; }
.light-studio .ls-row.ls-wide { grid-template-columns: 9.5em minmax(60px, 1fr); }
.light-studio label { margin: 0; font-weight: 400; color: var(--ls-ink); }
.light-studio output { text-align: right; font-variant-numeric: tabular-nums; }
.light-studio output.ls-readout { text-align: left; }
.light-studio input { margin: 0; width: 100%; min-width: 0; accent-color: var(--ls-accent); }
.light-studio .ls-check { display: flex; gap: 7px; align-items: center; }
.light-studio .ls-check input { width: auto; }
.light-studio select, .light-studio button { font: inherit; color: var(--ls-ink); background: var(--ls-surface); border: 1px solid var(--ls-line);
  border-radius: 6px; padding: 4px 8px; margin: 0; width: auto; height: auto; }
.light-studio button { cursor: pointer; justify-self: start; }
.light-studio select:hover, .light-studio button:hover { border-color: var(--ls-accent); }
.light-studio :focus-visible { outline: 2px solid var(--ls-accent); outline-offset: 2px; }
.light-studio-figure[data-mounted="yes"] > .ls-fallback { display: none; }
@media print {
  .light-studio-figure > .light-studio { display: none; }
  .light-studio-figure[data-mounted="yes"] > .ls-fallback { display: block; }
}
`;

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

let figures = 0;

class LightStudio {
  constructor(host, mesh, state) {
    Object.assign(this, { mesh, start: { ...state }, state: { ...state }, chosen: null, timer: 0 });
    this.id = `light-studio-${++figures}`;
    while (document.getElementById(this.id)) this.id = `light-studio-${++figures}`;
    this.inputs = {};
    this.canvas = element("canvas", { id: this.id, width: STAGE, height: STAGE, tabindex: 0, role: "application", "aria-roledescription": "picture to point at" });
    this.readout = element("output", { class: "ls-readout", "aria-live": "polite" });
    this.small = document.createElement("canvas");
    const reset = element("button", { type: "button" }, "Reset");
    reset.addEventListener("click", () => this.set({ ...this.start }));
    const panel = element(
      "div",
      { class: "ls-panel" },
      this.makeSelect("show", "Show", SHOW),
      ...SLIDERS.map((slider) => this.makeSlider(slider)),
      this.makeSelect("source", "Computed with", SOURCES),
      this.makeSelect("size", "Pixels", SIZES.map((n) => [n, `${n} × ${n}`])),
      this.makeCheck("smooth", "Nine samples per pixel (anti-aliasing)"),
      this.makeCheck("marks", "Landmarks, hollow where hidden"),
      reset,
    );
    host.replaceChildren(element("div", { class: "ls-stage" }, this.canvas, this.readout), panel);
    this.canvas.addEventListener("pointermove", (event) => this.point(event));
    this.canvas.addEventListener("pointerleave", () => this.choose(null));
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.bookState = () => this.canvas.toDataURL();
    this.redraw();
  }

  makeSlider({ key, label, min, max, step, unit }) {
    const id = `${this.id}-${key}`;
    const input = element("input", { type: "range", id, min, max, step, "data-test-changes": `#${this.id}` });
    const output = element("output", { for: id });
    const show = () => {
      input.value = this.state[key];
      output.textContent = `${this.state[key]}${unit}`.replace("-", "−");
      input.setAttribute("aria-valuetext", output.textContent);
    };
    input.addEventListener("input", () => this.set({ [key]: Number(input.value) }));
    this.inputs[key] = show;
    show();
    return element("div", { class: "ls-row" }, element("label", { for: id }, label), input, output);
  }

  makeSelect(key, label, choices) {
    const id = `${this.id}-${key}`;
    const select = element("select", { id, "data-test-changes": `#${this.id}` });
    for (const [value, text] of choices) select.append(element("option", { value }, text));
    select.addEventListener("change", () => this.set({ [key]: key === "size" ? Number(select.value) : select.value }));
    this.inputs[key] = () => (select.value = this.state[key]);
    this.inputs[key]();
    return element("div", { class: "ls-row ls-wide" }, element("label", { for: id }, label), select);
  }

  makeCheck(key, label) {
    const id = `${this.id}-${key}`;
    const box = element("input", { type: "checkbox", id, "data-test-changes": `#${this.id}` });
    box.addEventListener("change", () => this.set({ [key]: box.checked }));
    this.inputs[key] = () => (box.checked = this.state[key]);
    this.inputs[key]();
    return element("div", { class: "ls-check" }, box, element("label", { for: id }, label));
  }

  set(changes) {
    Object.assign(this.state, changes);
    for (const show of Object.values(this.inputs)) show();
    this.timer ||= requestAnimationFrame(() => {
      this.timer = 0;
      this.redraw();
    });
  }

  redraw() {
    const { state, mesh } = this;
    this.drawn = draw(mesh, state);
    this.visible = visibleLandmarks(mesh, this.drawn.coarse);
    this.small.width = this.small.height = state.size;
    this.small.getContext("2d").putImageData(new ImageData(this.drawn.rgba, state.size, state.size), 0, 0);
    this.paint();
  }

  paint() {
    const { state, mesh, canvas } = this;
    const context = canvas.getContext("2d");
    const scale = STAGE / state.size;
    context.clearRect(0, 0, STAGE, STAGE);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.small, 0, 0, STAGE, STAGE);
    if (state.marks) {
      mesh.landmarks.forEach((v, n) => {
        const [x, y] = [0, 1].map((axis) => (this.drawn.coarse[3 * v + axis] + 0.5) * scale);
        context.beginPath();
        context.arc(x, y, 4, 0, 2 * Math.PI);
        context.lineWidth = 1.5;
        context.fillStyle = "#D55E00";
        context.strokeStyle = this.visible[n] ? "white" : "#D55E00";
        if (this.visible[n]) context.fill();
        context.stroke();
      });
    }
    if (this.chosen) {
      const [column, row] = this.chosen;
      context.lineWidth = 3;
      context.strokeStyle = "white";
      context.strokeRect(column * scale, row * scale, scale, scale);
      context.lineWidth = 1.2;
      context.strokeStyle = "black";
      context.strokeRect(column * scale, row * scale, scale, scale);
    }
    canvas.setAttribute("aria-label", `Face drawn by a z-buffer: ${this.describe()}. Arrow keys choose a pixel, Escape none.`);
    this.readout.textContent = this.tell();
  }

  describe() {
    const { state, visible } = this;
    const what = SHOW.find(([key]) => key === state.show)[1].toLowerCase();
    return `${what}, yaw ${state.yaw}°, pitch ${state.pitch}°, ${visible.filter(Boolean).length} of ${visible.length} landmarks visible`;
  }

  /** The z-buffer's data for the selected pixel. */
  tell() {
    const summary = `${this.visible.filter(Boolean).length} of ${this.visible.length} landmarks visible`;
    if (!this.chosen) return `${summary}. Point at a pixel, or move with the arrow keys.`;
    const [column, row] = this.chosen;
    const { fine, side, triangle, weights, depth } = this.drawn;
    const at = (row * fine + (fine - 1) / 2) * side + column * fine + (fine - 1) / 2; // its middle sample
    const t = triangle[at];
    const place = `Pixel x ${column}, y ${row}`;
    if (t < 0) return `${place}: no triangle\n${summary}`;
    const shares = Array.from(weights.subarray(3 * at, 3 * at + 3), (w) => w.toFixed(2)).join(", ");
    return `${place}: triangle ${t}\nweights ${shares}; depth ${(depth[at] / fine).toFixed(1)} pixels\n${summary}`;
  }

  choose(pixel) {
    this.chosen = pixel;
    this.paint();
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const pixel = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    this.choose(pixel.map((part) => Math.min(Math.max(Math.floor(part * this.state.size), 0), this.state.size - 1)));
  }

  key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.key === "Escape") this.choose(null);
    if (!move) return;
    event.preventDefault();
    const from = this.chosen ?? [this.state.size >> 1, this.state.size >> 1];
    this.choose(from.map((x, n) => Math.min(Math.max(x + (this.chosen ? move[n] : 0), 0), this.state.size - 1)));
  }
}

async function mountFigure(figure) {
  figure.dataset.mounted = "loading";
  if (!document.getElementById(STYLE_ID)) document.head.append(element("style", { id: STYLE_ID }, STYLE));
  const host = element("div", { class: "light-studio", role: "group", "aria-label": "Light studio: a face with sliders for pose and light", "data-lm-suppress-shortcuts": true });
  host.addEventListener("keydown", (event) => {
    const passes = event.ctrlKey || event.metaKey || event.altKey || ["Tab", "Escape"].includes(event.key);
    if (!passes) event.stopPropagation(); // JupyterLab would intercept the sliders' arrow keys
  });
  figure.append(host);
  try {
    const { header, state } = JSON.parse(figure.querySelector(".ls-header").textContent);
    const mesh = await unpack(header, figure.querySelector(".ls-data").textContent);
    figure.studio = new LightStudio(host, mesh, state);
    figure.dataset.mounted = "yes";
  } catch (error) {
    host.replaceChildren(`The interactive figure cannot be shown: ${error.message}.`); // the picture stays above it
    figure.dataset.mounted = "failed";
    console.error(error);
  }
}

export function mountStatic(root = document) {
  for (const figure of root.querySelectorAll(".light-studio-figure:not([data-mounted])")) mountFigure(figure);
}
