/* A face beside its photo: the mesh over the photo, and the head to turn.
 *
 * The text of face.js comes first in the same script. A face is {points, pose, fill}: vertices in the model frame
 * (x0 y0 z0 x1 ...), the 3x4 pose to the photo's frame (1-based, y up; 12 numbers by rows), and 8-bit colours for what
 * the photo does not show. Elsewhere the photo itself is the texture: each vertex stores its position in it.
 */

const VIEWER_STYLE_ID = "face-viewer-style";
const VIEWER_DARK = `--fv-ink: #e8eaed; --fv-muted: #a9b1ba; --fv-line: #434a53; --fv-accent: #56B4E9; --fv-surface: #1d2126;
  --fv-stage-1: #2b3037; --fv-stage-2: #14171b; color-scheme: dark;`;
const VIEWER_STYLE = `
.face-viewer { --fv-ink: #1f2328; --fv-muted: #57606a; --fv-line: #c9d0d8; --fv-accent: #0072B2; --fv-surface: #ffffff;
  --fv-stage-1: #fafbfc; --fv-stage-2: #e3e7ec; color-scheme: light; container-type: inline-size; color: var(--fv-ink);
  font: 14px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; max-width: 1100px; text-align: left; }
@media (prefers-color-scheme: dark) { html:not([data-theme]) .face-viewer { ${VIEWER_DARK} } }
html[data-theme="dark"] .face-viewer { ${VIEWER_DARK} }
.face-viewer *, .face-viewer *::before { box-sizing: border-box; }
.face-viewer [hidden] { display: none !important; }
.fv-frame { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 10px 14px; }
@container (max-width: 600px) { .fv-frame { grid-template-columns: minmax(0, 1fr); } }
.fv-stage { position: relative; aspect-ratio: 1 / 1; border: 1px solid var(--fv-line); border-radius: 8px; overflow: hidden; user-select: none;
  background: radial-gradient(circle at 45% 38%, var(--fv-stage-1), var(--fv-stage-2)); min-width: 0; }
.face-viewer .fv-stage > :is(canvas, svg) { position: absolute; inset: 0; width: 100%; height: 100%; max-width: none; display: block; }
.fv-head { cursor: grab; touch-action: pan-y; }
.fv-head:active { cursor: grabbing; }
.fv-stage > svg { pointer-events: none; overflow: hidden; }
.fv-bar { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; margin-top: 10px; }
.face-viewer label { display: inline-flex; align-items: center; gap: 6px; margin: 0; font-weight: 400; white-space: nowrap; }
.face-viewer input { margin: 0; accent-color: var(--fv-accent); }
.face-viewer input[type="range"] { width: 110px; }
.face-viewer button, .face-viewer select { font: inherit; color: var(--fv-ink); background: var(--fv-surface); border: 1px solid var(--fv-line);
  border-radius: 6px; padding: 5px 11px; margin: 0; cursor: pointer; width: auto; height: auto; max-width: 100%; }
.face-viewer :is(button, select):hover { border-color: var(--fv-accent); }
.face-viewer :focus-visible { outline: 2px solid var(--fv-accent); outline-offset: 2px; }
.fv-head:focus-visible { outline-offset: -3px; }
.fv-note { color: var(--fv-muted); font-size: 13px; margin: 8px 0 0; min-height: 1.4em; font-variant-numeric: tabular-nums; }
`;
const COLOURINGS = [
  ["photo", "Photo"],
  ["shaded", "Shaded"],
  ["normals", "Normals"],
  ["depth", "Depth"],
];
const CLAY_COLOUR = [0.78, 0.75, 0.71];
const TEXTURE_SIDE = 2048; // longest side of the photo as a texture
const TURN_PER_PIXEL = 0.45; // degrees
const GRAZING = 0.25; // from twodasl_lite.faces.texture: cosine to the line of sight below which a colour is not trusted
const HEAD_FILL = 0.9; // largest fraction of the stage that the face fills in any orientation
const SURFACE_GAP = 0.02; // depth behind the nearest surface that still counts as seen, over the face's size
const FEATHER_ROUNDS = 4; // rounds of smoothing the weights
const BUFFER_SIDE = 192; // side in pixels of the depth buffer that decides visibility

const HEAD_VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec3 colour; in vec4 extra;
uniform mat3 rotation; uniform vec3 centre; uniform vec2 scale; uniform float depth;
out vec3 vNormal; out vec3 vColour; out vec4 vExtra;
void main() {
  vec3 p = rotation * (position - centre);
  vNormal = rotation * normal; vColour = colour; vExtra = extra;
  gl_Position = vec4(p.xy * scale, -p.z * depth, 1.0);
}`;
const HEAD_FRAGMENT = `#version 300 es
precision highp float;
in vec3 vNormal; in vec3 vColour; in vec4 vExtra; // extra: position in the photo, visibility, nearness
uniform int mode; uniform sampler2D photo;
out vec4 result;
void main() {
  vec3 n = normalize(vNormal) * (gl_FrontFacing ? 1.0 : -1.0);
  float inside = gl_FrontFacing ? 1.0 : 0.45;
  vec3 colour;
  if (mode == 0) colour = mix(vColour, texture(photo, vExtra.xy).rgb, smoothstep(0.1, 0.9, vExtra.z));
  else if (mode == 2) colour = n * 0.5 + 0.5;
  else if (mode == 3) colour = vec3(0.08 + 0.92 * vExtra.w);
  else {
    vec3 base = pow(vec3(${CLAY_COLOUR.join(", ")}), vec3(2.2));
    vec3 key = normalize(vec3(-0.50, 0.62, 0.72)), fill = normalize(vec3(0.85, -0.05, 0.50));
    vec3 lit = vec3(0.98, 0.95, 0.90) * max((dot(n, key) + 0.16) / 1.16, 0.0) + vec3(0.70, 0.82, 1.0) * 0.20 * max(dot(n, fill), 0.0)
             + vec3(0.125, 0.135, 0.155) * (0.70 + 0.30 * n.y);
    colour = pow(clamp(base * lit, 0.0, 1.0), vec3(1.0 / 2.2));
  }
  result = vec4(colour * inside, 1.0);
}`;

/** An element with attributes ("on..." listens) and children; SVG where a namespace is given. */
function node(tag, attributes = {}, ...children) {
  const made = attributes.xmlns ? document.createElementNS(attributes.xmlns, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "xmlns" || value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
const SVG = "http://www.w3.org/2000/svg";
const between = (x, low, high) => Math.min(high, Math.max(low, x));

/* ------------------------------------------------------------------------------------------------------- the geometry */

const dot3 = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const cross3 = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit3 = (a) => a.map((x) => x / Math.hypot(...a));

/** The rotation nearest to a pose's first two rows (camera.nearest_rotation), as three rows. */
function nearestRotation(pose) {
  const first = unit3([pose[0], pose[1], pose[2]]);
  const second = unit3([pose[4], pose[5], pose[6]]);
  const sum = unit3(first.map((x, i) => x + second[i]));
  const difference = unit3(first.map((x, i) => x - second[i]));
  const a = sum.map((x, i) => (x + difference[i]) / Math.SQRT2);
  const b = sum.map((x, i) => (x - difference[i]) / Math.SQRT2);
  return [a, b, cross3(a, b)];
}

/** Pitch, yaw, roll in degrees (camera.matrix_to_euler). */
function eulerAngles(rotation) {
  const yaw = Math.asin(between(-rotation[0][2], -1, 1));
  const pitch = Math.atan2(rotation[1][2], rotation[2][2]);
  const roll = Math.atan2(rotation[0][1], rotation[0][0]);
  return [pitch, yaw, roll].map((x) => x / DEGREE);
}

const transposed = (m) => [0, 1, 2].map((c) => m.map((row) => row[c]));
const product = (a, b) => a.map((row) => [0, 1, 2].map((c) => dot3(row, [b[0][c], b[1][c], b[2][c]])));

/** Points of the model frame in pixels of a photo of that height: x right, y down, z towards the viewer. */
function pixelsOf(points, pose, height) {
  const out = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 3) {
    const [x, y, z] = [points[i], points[i + 1], points[i + 2]];
    out[i] = pose[0] * x + pose[1] * y + pose[2] * z + pose[3] - 1;
    out[i + 1] = height - (pose[4] * x + pose[5] * y + pose[6] * z + pose[7]);
    out[i + 2] = pose[8] * x + pose[9] * y + pose[10] * z + pose[11];
  }
  return out;
}

/** How well the photo shows each vertex, 0 to 1: in the photo, not hidden, not at a grazing angle. */
function seenWeights(pixels, triangles, normals, width, height) {
  const V = pixels.length / 3;
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < pixels.length; i++) {
    low[i % 3] = Math.min(low[i % 3], pixels[i]);
    high[i % 3] = Math.max(high[i % 3], pixels[i]);
  }
  const extent = Math.max(high[0] - low[0], high[1] - low[1], 1e-6);
  const scale = (BUFFER_SIDE - 3) / extent;
  const buffer = new Float32Array(BUFFER_SIDE * BUFFER_SIDE).fill(-Infinity);
  const X = (v) => (pixels[3 * v] - low[0]) * scale + 1;
  const Y = (v) => (pixels[3 * v + 1] - low[1]) * scale + 1;
  for (let t = 0; t < triangles.length; t += 3) {
    const [a, b, c] = [triangles[t], triangles[t + 1], triangles[t + 2]];
    const [ax, ay, bx, by, cx, cy] = [X(a), Y(a), X(b), Y(b), X(c), Y(c)];
    const area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay);
    if (area === 0) continue;
    const [az, bz, cz] = [pixels[3 * a + 2], pixels[3 * b + 2], pixels[3 * c + 2]];
    for (let row = Math.max(0, Math.ceil(Math.min(ay, by, cy))); row <= Math.min(BUFFER_SIDE - 1, Math.max(ay, by, cy)); row++) {
      for (let column = Math.max(0, Math.ceil(Math.min(ax, bx, cx))); column <= Math.min(BUFFER_SIDE - 1, Math.max(ax, bx, cx)); column++) {
        const u = ((column - ax) * (cy - ay) - (cx - ax) * (row - ay)) / area;
        const w = ((bx - ax) * (row - ay) - (column - ax) * (by - ay)) / area;
        if (u < 0 || w < 0 || u + w > 1) continue;
        const z = az + u * (bz - az) + w * (cz - az);
        const at = row * BUFFER_SIDE + column;
        if (z > buffer[at]) buffer[at] = z;
      }
    }
  }
  const seen = new Float32Array(V);
  for (let v = 0; v < V; v++) {
    const [x, y, z] = [pixels[3 * v], pixels[3 * v + 1], pixels[3 * v + 2]];
    if (x < 0 || y < 0 || x > width - 1 || y > height - 1) continue;
    const n = [normals[3 * v], normals[3 * v + 1], normals[3 * v + 2]];
    const facing = n[2] / (Math.hypot(...n) || 1);
    if (facing <= GRAZING) continue;
    // Nearest depth of the four cells around, so that a slope is not mistaken for an occluder.
    const [column, row] = [Math.floor(X(v)), Math.floor(Y(v))];
    let front = Infinity;
    for (const [r, c] of [[row, column], [row, column + 1], [row + 1, column], [row + 1, column + 1]]) {
      const depth = buffer[between(r, 0, BUFFER_SIDE - 1) * BUFFER_SIDE + between(c, 0, BUFFER_SIDE - 1)];
      if (depth > -Infinity) front = Math.min(front, depth);
    }
    if (front - z > SURFACE_GAP * extent && front < Infinity) continue;
    seen[v] = between((facing - GRAZING) / 0.35, 0.01, 1);
  }
  return feathered(seen, triangles);
}

/** Weights that fall off towards hidden parts, so that no seam shows: never above those of neighbouring vertices. */
function feathered(seen, triangles) {
  for (let round = 0; round < FEATHER_ROUNDS; round++) {
    const sum = new Float32Array(seen.length);
    const count = new Uint16Array(seen.length);
    for (let t = 0; t < triangles.length; t += 3) {
      const total = seen[triangles[t]] + seen[triangles[t + 1]] + seen[triangles[t + 2]];
      for (let c = 0; c < 3; c++) {
        sum[triangles[t + c]] += total;
        count[triangles[t + c]] += 3;
      }
    }
    seen = seen.map((value, v) => (count[v] ? Math.min(value, sum[v] / count[v]) : value));
  }
  return seen;
}

/** The bare surface of a face in pixels: normals with y up, from pixels with y down. */
function pixelNormals(pixels, triangles) {
  const upright = Float32Array.from(pixels, (x, i) => (i % 3 === 1 ? -x : x));
  return vertexNormals(upright, triangles, new Float32Array(pixels.length));
}

/* -------------------------------------------------------------------------------------------------------- the drawing */

/** One WebGL context that draws one face. */
class HeadPainter {
  constructor(canvas) {
    this.canvas = canvas;
    this.gl = canvas.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true, preserveDrawingBuffer: true });
    if (!this.gl) throw new Error("this browser has no WebGL 2, so faces cannot be drawn");
    this.prepare();
  }

  prepare() {
    const { gl } = this;
    this.surface = compile(gl, HEAD_VERTEX, HEAD_FRAGMENT);
    this.array = gl.createVertexArray();
    this.buffers = [0, 1, 2, 3, 4].map(() => gl.createBuffer());
    this.texture = gl.createTexture();
    gl.bindVertexArray(this.array);
    const attributes = [["position", 3, gl.FLOAT], ["normal", 3, gl.FLOAT], ["colour", 3, gl.UNSIGNED_BYTE], ["extra", 4, gl.FLOAT]];
    attributes.forEach(([name, size, type], i) => {
      const location = gl.getAttribLocation(this.surface.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[i]);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, size, type, type === gl.UNSIGNED_BYTE, 0, 0);
    });
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffers[4]);
    gl.bindVertexArray(null);
  }

  setPhoto(canvas) {
    const { gl } = this;
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, canvas);
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
  }

  setFace({ positions, normals, colours, extra, triangles }) {
    const { gl } = this;
    [positions, normals, colours, extra].forEach((data, i) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[i]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    });
    gl.bindVertexArray(this.array);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.buffers[4]);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, triangles, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
    this.count = triangles.length;
  }

  clear() {
    const { gl } = this;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  }

  draw({ rotation, centre, scale, depth, mode, cull }) {
    const { gl } = this;
    const { program, uniforms } = this.surface;
    this.clear();
    gl.enable(gl.DEPTH_TEST);
    if (cull) gl.enable(gl.CULL_FACE);
    else gl.disable(gl.CULL_FACE);
    gl.useProgram(program);
    gl.uniformMatrix3fv(uniforms.rotation, true, rotation.flat());
    gl.uniform3fv(uniforms.centre, centre);
    gl.uniform2fv(uniforms.scale, scale);
    gl.uniform1f(uniforms.depth, depth);
    gl.uniform1i(uniforms.mode, mode);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.bindVertexArray(this.array);
    gl.drawElements(gl.TRIANGLES, this.count, gl.UNSIGNED_INT, 0);
    gl.bindVertexArray(null);
  }
}

/** Photo with mesh, head to turn, controls. `header` has landmarks and landmarkGroups; other data may come later. */
class FaceViewer {
  constructor(host, header, { wholeHead = false } = {}) {
    this.root = host;
    this.header = header;
    this.face = null;
    this.state = { colouring: "photo", landmarks: false, overlay: 55, head: wholeHead };
    this.hasHead = false;
    this.turned = [0, 0];
    this.frontal = false;
    if (!document.getElementById(VIEWER_STYLE_ID)) document.head.append(node("style", { id: VIEWER_STYLE_ID }, VIEWER_STYLE));
    host.classList.add("face-viewer");
    host.id ||= `fv${Math.random().toString(36).slice(2, 8)}`;
    host.viewer = this;
    host.bookState = () => this.report();
    this.#build();
    this.over = new HeadPainter(this.overCanvas);
    this.turn = new HeadPainter(this.headCanvas);
    for (const painter of [this.over, this.turn]) {
      painter.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
      painter.canvas.addEventListener("webglcontextrestored", () => {
        painter.prepare();
        if (this.photo) painter.setPhoto(this.photo);
        if (this.face) this.show(this.face);
      });
    }
    new ResizeObserver(() => this.redraw()).observe(host);
  }

  #build() {
    const changes = (control) => {
      control.setAttribute("data-test-changes", `#${this.root.id}`);
      return control;
    };
    this.photoCanvas = node("canvas", { role: "img", "aria-label": "The photo" });
    this.overCanvas = node("canvas", { "aria-hidden": "true" });
    this.photoMarks = node("svg", { xmlns: SVG, "aria-hidden": "true" });
    this.photoStage = node("div", { class: "fv-stage fv-photo" }, this.photoCanvas, this.overCanvas, this.photoMarks);
    this.headCanvas = node("canvas", { "aria-hidden": "true" });
    this.headMarks = node("svg", { xmlns: SVG, "aria-hidden": "true" });
    this.headStage = node("div", { class: "fv-stage fv-head", tabindex: "0", role: "application", "aria-roledescription": "3D view", "aria-label": "The face. Arrow keys turn and tilt it, zero turns it back." }, this.headCanvas, this.headMarks);
    this.colouring = changes(node("select", { oninput: (event) => this.set({ colouring: event.target.value }) }, ...COLOURINGS.map(([value, label]) => node("option", { value }, label))));
    this.overlay = changes(node("input", { type: "range", min: 0, max: 100, step: 5, value: this.state.overlay, oninput: (event) => this.set({ overlay: Number(event.target.value) }) }));
    this.marks = changes(node("input", { type: "checkbox", oninput: (event) => this.set({ landmarks: event.target.checked }) }));
    this.headBox = changes(node("input", { type: "checkbox", oninput: (event) => this.set({ head: event.target.checked }) }));
    this.headLabel = node("label", { hidden: true }, this.headBox, "Whole head");
    this.facing = changes(node("button", { type: "button", onclick: () => this.face_(!this.frontal) }, "Face forward"));
    this.bar = node("div", { class: "fv-bar" }, node("label", {}, "Colour", this.colouring), node("label", {}, "Mesh on the photo", this.overlay), node("label", {}, this.marks, "Landmarks"), this.headLabel, this.facing);
    this.note = node("p", { class: "fv-note", role: "status" });
    this.root.replaceChildren(node("div", { class: "fv-frame" }, this.photoStage, this.headStage), this.bar, this.note);
    this.#listen();
  }

  #listen() {
    const stage = this.headStage;
    let last = null;
    stage.addEventListener("pointerdown", (event) => {
      last = [event.clientX, event.clientY];
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", (event) => {
      if (!last) return;
      this.turnBy((event.clientY - last[1]) * TURN_PER_PIXEL, (event.clientX - last[0]) * TURN_PER_PIXEL);
      last = [event.clientX, event.clientY];
    });
    for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => (last = null));
    const keys = { ArrowLeft: [0, -5], ArrowRight: [0, 5], ArrowUp: [-5, 0], ArrowDown: [5, 0] };
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "0") this.turnBy(-this.turned[0], -this.turned[1]);
      else if (keys[event.key]) this.turnBy(...keys[event.key]);
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
  }

  /* ---- for scripts and tests ---- */

  report() {
    return JSON.stringify({ ...this.state, turned: this.turned, frontal: this.frontal, pose: this.face && this.face.pose, sum: this.sum });
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.colouring.value = this.state.colouring;
    this.marks.checked = this.state.landmarks;
    this.overlay.value = this.state.overlay;
    this.headBox.checked = this.state.head;
    if (changes.head !== undefined && this.face) this.show(this.face);
    this.redraw();
  }

  /** Turn by degrees: positive tilts down, and to the right of the screen. */
  turnBy(pitch, yaw) {
    this.turned = [between(this.turned[0] + pitch, -85, 85), between(this.turned[1] + yaw, -180, 180)];
    this.redraw();
  }

  face_(forward) {
    this.frontal = forward;
    this.turned = [0, 0];
    this.facing.textContent = forward ? "As in the photo" : "Face forward";
    this.redraw();
  }

  /** Show a photo: a canvas whose pixels are those that the poses refer to. */
  setPhoto(canvas) {
    const factor = Math.min(1, TEXTURE_SIDE / Math.max(canvas.width, canvas.height));
    this.size = [canvas.width, canvas.height];
    if (factor < 1) {
      const small = node("canvas", { width: Math.round(canvas.width * factor), height: Math.round(canvas.height * factor) });
      small.getContext("2d").drawImage(canvas, 0, 0, small.width, small.height);
      canvas = small;
    }
    this.photo = canvas;
    this.photoCanvas.width = canvas.width;
    this.photoCanvas.height = canvas.height;
    this.photoCanvas.getContext("2d").drawImage(canvas, 0, 0);
    this.photoStage.style.aspectRatio = `${this.size[0]} / ${this.size[1]}`;
    this.turn.setPhoto(canvas);
    this.hide();
  }

  hide() {
    this.face = null;
    this.sum = 0;
    this.redraw();
  }

  /** Show a face {points, pose, fill, triangles, headTriangles?}. */
  show(face) {
    this.face = face;
    this.hasHead = Boolean(face.headTriangles);
    this.headLabel.hidden = !this.hasHead;
    const { points, pose, fill, triangles } = face;
    const drawn = this.state.head && this.hasHead ? face.headTriangles : triangles;
    const [width, height] = this.size;
    this.pixels = pixelsOf(points, pose, height);
    const all = face.headTriangles || triangles;
    const normals = pixelNormals(this.pixels, all);
    const seen = seenWeights(this.pixels, all, normals, width, height);
    const used = new Uint8Array(points.length / 3);
    for (const v of triangles) used[v] = 1;
    let [near, far, reach] = [-Infinity, Infinity, 0];
    const low = [Infinity, Infinity, Infinity];
    const high = [-Infinity, -Infinity, -Infinity];
    for (let v = 0; v < used.length; v++) {
      if (!used[v]) continue;
      near = Math.max(near, this.pixels[3 * v + 2]);
      far = Math.min(far, this.pixels[3 * v + 2]);
      for (let a = 0; a < 3; a++) {
        low[a] = Math.min(low[a], points[3 * v + a]);
        high[a] = Math.max(high[a], points[3 * v + a]);
      }
    }
    this.centre = low.map((x, a) => (x + high[a]) / 2);
    for (let v = 0; v < used.length; v++) {
      if (this.state.head || used[v]) reach = Math.max(reach, Math.hypot(points[3 * v] - this.centre[0], points[3 * v + 1] - this.centre[1], points[3 * v + 2] - this.centre[2]));
    }
    this.reach = reach;
    const extra = new Float32Array((points.length / 3) * 4);
    for (let v = 0; v < points.length / 3; v++) {
      extra[4 * v] = (this.pixels[3 * v] + 0.5) / width;
      extra[4 * v + 1] = (this.pixels[3 * v + 1] + 0.5) / height;
      extra[4 * v + 2] = seen[v];
      extra[4 * v + 3] = between((this.pixels[3 * v + 2] - far) / (near - far || 1), 0, 1);
    }
    this.seen = seen;
    this.modelNormals = vertexNormals(points, all, new Float32Array(points.length));
    this.turn.setFace({ positions: points, normals: this.modelNormals, colours: fill, extra, triangles: drawn });
    const upright = Float32Array.from(this.pixels, (x, i) => (i % 3 === 1 ? height - 1 - x : x));
    this.over.setFace({ positions: upright, normals, colours: fill, extra, triangles });
    this.rotation = nearestRotation(pose);
    this.sum = this.pixels.reduce((total, x, i) => total + x * (1 + (i % 7)), 0);
    this.redraw();
  }

  /* ---- drawing ---- */

  redraw() {
    this.pending ||= requestAnimationFrame(() => {
      this.pending = 0;
      this.paint();
    });
  }

  /** Rotation of the head on the right: as in the photo or upright, then turned by hand. */
  view() {
    const [pitch, yaw] = this.turned.map((a) => a * DEGREE);
    const [cp, sp, cy, sy] = [Math.cos(pitch), Math.sin(pitch), Math.cos(yaw), Math.sin(yaw)];
    const byHand = product([[1, 0, 0], [0, cp, -sp], [0, sp, cp]], [[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]);
    return this.frontal ? byHand : product(byHand, this.rotation);
  }

  paint() {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    for (const canvas of [this.overCanvas, this.headCanvas]) {
      const box = canvas.getBoundingClientRect();
      const [width, height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    }
    this.photoMarks.replaceChildren();
    this.headMarks.replaceChildren();
    if (!this.face) {
      for (const painter of [this.over, this.turn]) painter.clear();
      return;
    }
    const mode = COLOURINGS.findIndex(([name]) => name === this.state.colouring);
    const [width, height] = this.size;
    const depth = 0.45 / Math.max(1e-6, this.reach);
    const pixelReach = this.reach * Math.hypot(this.face.pose[0], this.face.pose[1], this.face.pose[2]);
    this.overCanvas.style.opacity = this.state.overlay / 100;
    // The photo's own colours would be invisible on the photo, so the surface there is shaded.
    this.over.draw({ rotation: [[1, 0, 0], [0, 1, 0], [0, 0, 1]], centre: [(width - 1) / 2, (height - 1) / 2, this.#middleDepth()], scale: [2 / width, 2 / height], depth: 0.45 / pixelReach, mode: mode || 1, cull: true });
    const rotation = this.view();
    const { width: w, height: h } = this.headCanvas;
    const perUnit = (HEAD_FILL * Math.min(w, h)) / 2 / this.reach;
    this.turn.draw({ rotation, centre: this.centre, scale: [(2 * perUnit) / w, (2 * perUnit) / h], depth, mode, cull: false });
    if (this.state.landmarks) this.#drawLandmarks(rotation, perUnit / ratio, w / ratio, h / ratio);
  }

  #middleDepth() {
    const { pose } = this.face;
    return pose[8] * this.centre[0] + pose[9] * this.centre[1] + pose[10] * this.centre[2] + pose[11];
  }

  #drawLandmarks(rotation, perUnit, w, h) {
    const { landmarks, landmarkGroups } = this.header;
    const { points } = this.face;
    const head = landmarks.map((v) => {
      const p = apply(rotation, points[3 * v] - this.centre[0], points[3 * v + 1] - this.centre[1], points[3 * v + 2] - this.centre[2]);
      const facing = dot3(rotation[2], [this.modelNormals[3 * v], this.modelNormals[3 * v + 1], this.modelNormals[3 * v + 2]]) > 0;
      return [w / 2 + p[0] * perUnit, h / 2 - p[1] * perUnit, facing];
    });
    const photo = landmarks.map((v) => [this.pixels[3 * v] + 0.5, this.pixels[3 * v + 1] + 0.5, this.seen[v] > 0]);
    const shown = this.photoStage.getBoundingClientRect().width || 1;
    const layers = [[this.headMarks, head, [w, h], 1], [this.photoMarks, photo, this.size, this.size[0] / shown]];
    for (const [svg, places, size, pixel] of layers) {
      svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
      for (const { edges, points: members, colour } of landmarkGroups) {
        for (const [a, b] of edges) {
          const faint = places[a][2] && places[b][2] ? 1 : 0.25;
          svg.append(node("line", { xmlns: SVG, x1: places[a][0], y1: places[a][1], x2: places[b][0], y2: places[b][1], stroke: colour, "stroke-width": 1.6 * pixel, opacity: faint }));
        }
        for (const p of members) {
          svg.append(node("circle", { xmlns: SVG, cx: places[p][0], cy: places[p][1], r: 2.6 * pixel, fill: colour, stroke: "#fff", "stroke-width": 0.8 * pixel, opacity: places[p][2] ? 1 : 0.25 }));
        }
      }
    }
  }
}
