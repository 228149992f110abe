/* The face explorer: a linear morphable model, computed and drawn in the browser.
 *
 * One file serves two purposes. In a running notebook, anywidget calls the default export's `render`, and the traits
 * shape, expression and angles are synchronised with the sliders both ways. In a static page, the same text is an
 * inline module script after the packed model, and `mountStatic` finds it there: no kernel, no network.
 *
 * Frames are those of twodasl_lite.geometry.camera: x right, y up, z towards the viewer, mm; angles are pitch, yaw, roll in
 * degrees; shape coefficients are in standard deviations, as are expressions (blendshapes: activations from 0 to 1).
 * The text of face.js comes first in the same module.
 */

const ANGLES = [
  { key: "pitch", index: 0, label: "Pitch" },
  { key: "yaw", index: 1, label: "Yaw" },
  { key: "roll", index: 2, label: "Roll" },
];
const ANGLE_LIMIT = 90;
const DEGREES_PER_PIXEL = 0.45;
const KEY_STEP = 5; // degrees per key press
const ZOOM_RANGE = [0.5, 6];
const FILL = 0.88; // fraction of the view that the mean face fills
const RANDOM_CLIP = 2; // standard deviations, as MorphableModel.sample clips

const COLOURINGS = [
  { key: "skin", label: "Skin colour" },
  { key: "clay", label: "Clay" },
  { key: "normals", label: "Normals" },
  { key: "pncc", label: "PNCC" },
  { key: "distance", label: "Distance from the mean face" },
  { key: "difference", label: "Distance between the two faces" },
];

/* ------------------------------------------------------------------------------------------------------ the controls */

const STYLE_ID = "face-explorer-style";
const STYLE = `
.face-explorer {
  --fx-ink: #1f2328; --fx-muted: #57606a; --fx-line: #c9d0d8; --fx-accent: #0072B2; --fx-surface: #ffffff;
  --fx-stage-1: #fafbfc; --fx-stage-2: #e3e7ec; color-scheme: light;
  container-type: inline-size; color: var(--fx-ink); font: 13px/1.4 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  margin: 0.4rem 0; max-width: 1100px; text-align: left;
}
@media (prefers-color-scheme: dark) {
  html:not([data-theme]) body:not([data-jp-theme-light]) .face-explorer { --fx-dark: 1; DARK }
}
html[data-theme="dark"] .face-explorer, body[data-jp-theme-light="false"] .face-explorer { DARK }
.face-explorer *, .face-explorer *::before { box-sizing: border-box; }
.fx-frame { display: grid; grid-template-columns: minmax(0, 1.25fr) minmax(290px, 1fr); gap: 10px 14px; align-items: start; }
.fx-stage { position: relative; min-width: 0; }
.fx-view { position: relative; aspect-ratio: 1 / 1; border: 1px solid var(--fx-line); border-radius: 8px; overflow: hidden;
  background: radial-gradient(circle at 45% 38%, var(--fx-stage-1), var(--fx-stage-2)); cursor: grab; touch-action: pan-y; user-select: none; }
.fx-view:active { cursor: grabbing; }
.fx-view canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
.fx-two .fx-frame { grid-template-columns: minmax(0, 1fr); }
.fx-two .fx-view { aspect-ratio: 2 / 1; }
.fx-caption { position: absolute; top: 8px; font-size: 12px; color: var(--fx-muted); pointer-events: none; transform: translateX(-50%); }
.fx-caption.fx-chosen { color: var(--fx-accent); font-weight: 600; }
.fx-legend { position: absolute; left: 10px; bottom: 9px; right: 10px; font-size: 11.5px; color: var(--fx-muted); pointer-events: none; display: flex; align-items: center; gap: 6px; text-shadow: 0 0 3px var(--fx-stage-1), 0 0 3px var(--fx-stage-1); }
.fx-ramp { width: 110px; height: 9px; border-radius: 3px; }
.fx-swatch { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin: 0 3px 0 8px; }
.fx-bar { display: flex; flex-wrap: wrap; gap: 7px 12px; align-items: center; margin-top: 8px; }
.fx-bar label { display: inline-flex; align-items: center; gap: 5px; margin: 0; white-space: nowrap; font-weight: 400; }
.fx-choice { display: inline-flex; align-items: center; gap: 5px; }
.fx-bar input { margin: 0; accent-color: var(--fx-accent); }
.face-explorer button, .face-explorer select { font: inherit; color: var(--fx-ink); background: var(--fx-surface);
  border: 1px solid var(--fx-line); border-radius: 6px; padding: 4px 10px; margin: 0; cursor: pointer; max-width: 100%; width: auto; height: auto; }
.face-explorer select { padding: 4px 6px; }
.face-explorer button:hover, .face-explorer select:hover { border-color: var(--fx-accent); }
.face-explorer button[aria-pressed="true"] { background: var(--fx-accent); color: var(--fx-surface); border-color: var(--fx-accent); }
.face-explorer :focus-visible { outline: 2px solid var(--fx-accent); outline-offset: 2px; }
.fx-panel { max-height: var(--fx-panel-height, 560px); overflow-y: auto; overflow-x: hidden; scrollbar-width: thin; padding: 0 6px 4px 2px; min-width: 0; }
.fx-panel details { border: 0; margin: 0 0 6px; padding: 0; background: none; box-shadow: none; }
.fx-panel summary { cursor: pointer; font-weight: 600; padding: 2px 0 3px; color: var(--fx-ink); list-style-position: inside; }
.fx-slider { display: grid; grid-template-columns: 10.3em minmax(60px, 1fr) 4.1em; break-inside: avoid; align-items: center; gap: 8px; min-height: 25px; }
.fx-slider label { margin: 0; font-weight: 400; color: var(--fx-ink); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; cursor: pointer; }
.fx-slider input[type="range"] { appearance: none; -webkit-appearance: none; width: 100%; min-width: 0; margin: 0; height: 20px; background: transparent; cursor: pointer; border: 0; padding: 0;
  --fx-track: linear-gradient(to right, var(--fx-line) var(--fx-from), var(--fx-accent) var(--fx-from) var(--fx-to), var(--fx-line) var(--fx-to)); }
.fx-slider input::-webkit-slider-runnable-track { height: 4px; border-radius: 2px; background: var(--fx-track); }
.fx-slider input::-moz-range-track { height: 4px; border-radius: 2px; background: var(--fx-track); }
.fx-slider input::-webkit-slider-thumb { -webkit-appearance: none; width: 15px; height: 15px; margin-top: -5.5px; border-radius: 50%; border: 2px solid var(--fx-surface); background: var(--fx-accent); box-shadow: 0 0 1px var(--fx-muted); }
.fx-slider input::-moz-range-thumb { width: 11px; height: 11px; border-radius: 50%; border: 2px solid var(--fx-surface); background: var(--fx-accent); box-shadow: 0 0 1px var(--fx-muted); }
.fx-slider output { text-align: right; font-variant-numeric: tabular-nums; color: var(--fx-muted); white-space: nowrap; }
.fx-slider.fx-moved output { color: var(--fx-ink); font-weight: 600; }
.fx-hint, .fx-status { color: var(--fx-muted); font-size: 12px; margin: 6px 0 0; }
.fx-status:empty { display: none; }
.fx-error { padding: 10px 12px; border: 1px solid var(--fx-line); border-radius: 8px; }
@container (max-width: 600px) {
  .fx-frame { grid-template-columns: minmax(0, 1fr); }
  .fx-two .fx-view { aspect-ratio: 3 / 2; }
  .fx-panel { max-height: 340px; border-top: 1px solid var(--fx-line); padding-top: 6px; }
  .fx-slider { min-height: 30px; }
}
@container (min-width: 601px) {
  .fx-two .fx-panel { columns: 270px; column-gap: 26px; max-height: none; overflow: visible; }
}
.cell_output .text_html:has(> .face-explorer-figure) { background: none !important; padding: 0 !important; overflow: visible; }
.face-explorer-figure[data-mounted="yes"] > .fx-fallback { display: none; }
@media print {
  .face-explorer-figure > .face-explorer { display: none; }
  .face-explorer-figure[data-mounted="yes"] > .fx-fallback { display: block; }
}
`.replaceAll(
  "DARK",
  `--fx-ink: #e8eaed; --fx-muted: #a9b1ba; --fx-line: #434a53; --fx-accent: #56B4E9; --fx-surface: #1d2126;
   --fx-stage-1: #2b3037; --fx-stage-2: #14171b; color-scheme: dark;`,
);

function addStyle() {
  if (document.getElementById(STYLE_ID)) return;
  const style = document.createElement("style");
  style.id = STYLE_ID;
  style.textContent = STYLE;
  document.head.appendChild(style);
}

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** "mouthSmile_L" -> "mouth smile left" */
function readable(name) {
  return name
    .replace(/_?L$/, " left")
    .replace(/_?R$/, " right")
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replaceAll("_", " ")
    .toLowerCase()
    .trim();
}

const clamp = (value, [low, high]) => Math.min(high, Math.max(low, value));
const same = (a, b) => a.length === b.length && a.every((x, i) => Math.abs(x - b[i]) < 1e-9);
let serial = 0;

/** A vector of `length` numbers, padded with zeros; anything but finite numbers is rejected. */
function vector(value, length, name) {
  const values = Array.from(value, Number);
  if (values.length > length || !values.every(Number.isFinite)) {
    throw new RangeError(`${name}: found ${values.length} numbers; expected up to ${length}, all finite`);
  }
  return values.concat(new Array(length - values.length).fill(0));
}

class Explorer {
  /** Build the explorer inside `host`, an element of the page, which becomes its root. */
  constructor(host, model, options = {}) {
    this.root = host;
    this.model = model;
    this.header = model.header;
    this.onChange = null; // called with the names of the values that the user changed
    this.id = `fx${++serial}-${Math.random().toString(36).slice(2, 7)}`;
    const { numShape, numExpression, numAlbedo, hasColours } = this.header;
    const blank = () => ({
      shape: new Array(numShape).fill(0),
      expression: new Array(numExpression).fill(0),
      albedo: new Array(numAlbedo).fill(0),
      vertices: new Float32Array(3 * model.V),
      normals: new Float32Array(3 * model.V),
      colours: new Uint8Array(3 * model.V),
      stale: true,
    });
    this.faces = [blank(), blank()];
    this.active = 0;
    this.angles = [0, 0, 0];
    this.zoom = 1;
    this.options = { twoFaces: false, colouring: hasColours ? "skin" : "clay", landmarks: false, wireframe: false };
    this.centre = [0, 1, 2].map((axis) => {
      let low = Infinity;
      let high = -Infinity;
      for (let i = axis; i < model.mean.length; i += 3) {
        low = Math.min(low, model.mean[i]);
        high = Math.max(high, model.mean[i]);
      }
      return [low, high];
    });
    this.extent = Math.max(...this.centre.map(([low, high]) => high - low));
    this.range = this.centre;
    this.centre = this.centre.map(([low, high]) => (low + high) / 2);
    this.landmarkGroups = this.header.landmarkGroups.map((group) => ({
      ...group,
      rgb: [1, 3, 5].map((at) => parseInt(group.colour.slice(at, at + 2), 16) / 255),
    }));

    this.#build();
    this.painter = new Painter(this.canvas, model);
    this.#listen();
    host.explorer = this;
    host.bookState = () => this.state();
    this.initial = {};
    this.set(options);
    this.initial = {
      shape: this.faces.map((face) => [...face.shape]),
      expression: this.faces.map((face) => [...face.expression]),
      albedo: this.faces.map((face) => [...face.albedo]),
      angles: [...this.angles],
    };
    this.#draw();
  }

  /* ---- for scripts and tests ---- */

  /** The display in numbers: coefficients, angles (pitch, yaw, roll in degrees) and the resulting vertices. */
  state() {
    this.#recompute();
    const face = this.faces[this.active];
    const sample = [];
    for (let v = 0; v < Math.min(5, this.model.V); v++) sample.push(Array.from(face.vertices.subarray(3 * v, 3 * v + 3)));
    return {
      shape: [...face.shape],
      expression: [...face.expression],
      albedo: [...face.albedo],
      angles: [...this.angles],
      vertexCount: this.model.V,
      checksum: this.#checksum(face.vertices),
      sample,
      sampleIndices: this.header.sampleIndices,
      ...this.options,
      activeFace: this.active,
      colourChecksum: face.colours.reduce((sum, c, i) => sum + c * (1 + (i % 3)), 0),
      zoom: this.zoom,
    };
  }

  /** Vertices of a face in mm, x0 y0 z0 x1 ... (a copy). */
  vertices(index = this.active) {
    this.#recompute();
    return Float32Array.from(this.faces[index].vertices);
  }

  /** The coefficient vector in raw units: pose (12, row-major), shape, expression. */
  coefficients() {
    const { layout, camera, shapeStd, expressionStd } = this.header;
    const face = this.faces[this.active];
    const rotation = rotationMatrix(this.angles);
    const middle = [(camera.size + 1) / 2, (camera.size + 1) / 2, 0]; // 1-based middle of the crop
    const turned = apply(rotation, ...camera.centre);
    const pose = rotation.flatMap((row, r) => [...row.map((x) => camera.scale * x), middle[r] - camera.scale * turned[r]]);
    const pad = (values, std, length) =>
      Array.from({ length }, (_, k) => (k < values.length ? values[k] * std[k] : 0));
    return [...pose, ...pad(face.shape, shapeStd, layout.shape), ...pad(face.expression, expressionStd, layout.expression)];
  }

  /** Change anything: shape, expression, albedo (also secondShape, ...), angles, zoom, twoFaces, activeFace, colouring, ... */
  set(changes) {
    const { numShape, numExpression, numAlbedo } = this.header;
    const targets = [
      ["shape", 0, "shape", numShape],
      ["expression", 0, "expression", numExpression],
      ["albedo", 0, "albedo", numAlbedo],
      ["secondShape", 1, "shape", numShape],
      ["secondExpression", 1, "expression", numExpression],
      ["secondAlbedo", 1, "albedo", numAlbedo],
    ];
    for (const [key, index, kind, length] of targets) {
      if (changes[key] === undefined || changes[key] === null) continue;
      this.faces[index][kind] = vector(changes[key], length, key);
      this.faces[index].stale = true;
    }
    if (changes.angles) this.angles = vector(changes.angles, 3, "angles");
    if (changes.zoom) this.zoom = clamp(changes.zoom, ZOOM_RANGE);
    for (const key of ["twoFaces", "landmarks", "wireframe"]) {
      if (changes[key] !== undefined) this.options[key] = Boolean(changes[key]);
    }
    if (changes.colouring !== undefined) {
      if (!this.#offered().some(({ key }) => key === changes.colouring)) {
        throw new RangeError(`colouring: found ${changes.colouring}`);
      }
      this.options.colouring = changes.colouring;
    }
    if (changes.activeFace !== undefined) this.active = changes.activeFace ? 1 : 0;
    if (!this.options.twoFaces) {
      this.active = 0;
      if (this.options.colouring === "difference") this.options.colouring = "distance";
    }
    this.recolour = true;
    this.#refresh();
    this.redraw();
  }

  /** Frames per second while a slider moves: decode, normals, upload and draw, waiting for the GPU each time. */
  benchmark(frames = 60) {
    const pixel = new Uint8Array(4);
    const { gl } = this.painter;
    const start = performance.now();
    for (let i = 0; i < frames; i++) {
      const face = this.faces[this.active];
      face.shape = face.shape.map((_, k) => Math.sin(0.3 * i + k + 0.1));
      face.expression = face.expression.map((_, k) => 0.5 + 0.4 * Math.sin(0.2 * i + k));
      face.stale = true;
      this.angles = [0, 30 * Math.sin(0.05 * i), 0];
      this.#draw();
      gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    }
    const seconds = (performance.now() - start) / 1000;
    this.reset();
    return frames / seconds;
  }

  reset() {
    this.faces.forEach((face, i) => {
      face.shape = [...this.initial.shape[i]];
      face.expression = [...this.initial.expression[i]];
      face.albedo = [...this.initial.albedo[i]];
      face.stale = true;
    });
    this.angles = [...this.initial.angles];
    this.zoom = 1;
    this.recolour = true;
    this.#refresh();
    this.redraw();
  }

  /** A random identity: each shape and colour coefficient from N(0, 1), clipped; the expression stays. */
  random() {
    const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
    const face = this.faces[this.active];
    const draw = () => Math.round(100 * clamp(normal(), [-RANDOM_CLIP, RANDOM_CLIP])) / 100;
    face.shape = face.shape.map(draw);
    face.albedo = face.albedo.map(draw);
    face.stale = true;
    this.recolour = true;
    this.#refresh();
    this.redraw();
  }

  destroy() {
    this.resize.disconnect();
    this.theme.disconnect();
    this.media.removeEventListener("change", this.redrawLater);
    cancelAnimationFrame(this.pending);
    this.painter.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.#draw();
    });
  }

  /* ---- numbers ---- */

  /** Mean of (1 + i/V) (x + 2 y + 3 z) over the drawn (rotated) vertices: every slider changes it. */
  #checksum(vertices) {
    const { V } = this.model;
    const sum = [0, 0, 0];
    for (let v = 0, i = 0; v < V; v++) {
      const weight = (1 + v / V) / V;
      for (let axis = 0; axis < 3; axis++) sum[axis] += weight * vertices[i++];
    }
    const [x, y, z] = apply(rotationMatrix(this.angles), ...sum);
    return x + 2 * y + 3 * z;
  }

  #shown() {
    return this.options.twoFaces ? [0, 1] : [0];
  }

  #offered() {
    return COLOURINGS.filter(({ key }) => (key !== "skin" || this.header.hasColours) && (key !== "difference" || this.options.twoFaces));
  }

  #recompute() {
    const shown = this.#shown();
    let moved = false;
    for (const index of shown) {
      const face = this.faces[index];
      if (!face.stale) continue;
      decodeFace(this.model, [...face.shape, ...face.expression], face.vertices);
      vertexNormals(face.vertices, this.model.triangles, face.normals);
      face.stale = false;
      face.upload = true;
      moved = true;
    }
    const relative = ["distance", "difference"].includes(this.options.colouring);
    if (this.recolour || (moved && relative)) this.#colour(shown);
    this.recolour = false;
  }

  #colour(shown) {
    const { colouring } = this.options;
    const { mean, V } = this.model;
    const length = (face, other, i) =>
      Math.hypot(face[i] - other[i], face[i + 1] - other[i + 1], face[i + 2] - other[i + 2]);
    let reach = 0;
    const distances = new Map();
    if (colouring === "distance" || colouring === "difference") {
      for (const index of shown) {
        const values = new Float32Array(V);
        const other = colouring === "distance" ? mean : this.faces[1 - index].vertices;
        for (let v = 0; v < V; v++) {
          values[v] = length(this.faces[index].vertices, other, 3 * v);
          reach = Math.max(reach, values[v]);
        }
        distances.set(index, values);
      }
      this.reach = niceAbove(Math.max(reach, 1));
    }
    for (const index of shown) {
      const face = this.faces[index];
      face.upload = true;
      if (distances.has(index)) {
        const values = distances.get(index);
        for (let v = 0; v < V; v++) viridis(values[v] / this.reach, face.colours, 3 * v);
      } else if (colouring === "skin") {
        decodeColours(this.model, face.albedo, face.colours);
      } else if (colouring === "pncc") {
        // Projected normalised coordinate code: the mean face's own coordinates, scaled to [0, 1] per axis.
        for (let i = 0; i < 3 * V; i++) {
          const [low, high] = this.range[i % 3];
          face.colours[i] = Math.round((255 * (mean[i] - low)) / (high - low));
        }
      } else {
        for (let i = 0; i < 3 * V; i++) face.colours[i] = Math.round(255 * this.header.clay[i % 3]);
      }
    }
  }

  #landmarkPositions(face) {
    const positions = new Float32Array(3 * this.header.landmarks.length);
    this.header.landmarks.forEach((v, i) => positions.set(face.vertices.subarray(3 * v, 3 * v + 3), 3 * i));
    return positions;
  }

  #draw() {
    const { painter, canvas, options } = this;
    if (painter.gl.isContextLost()) return;
    this.#recompute();
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const box = canvas.getBoundingClientRect();
    const [width, height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    painter.clear();
    const shown = this.#shown();
    const each = Math.floor(width / shown.length);
    const mode = { normals: 2, pncc: 0, distance: 4, difference: 4 }[options.colouring] ?? 1;
    const lightText = getComputedStyle(this.root).colorScheme === "dark";
    for (const index of shown) {
      const face = this.faces[index];
      if (face.upload) painter.upload(index, face);
      face.upload = false;
      painter.draw(index, {
        left: index * each,
        width: each,
        height,
        rotation: rotationMatrix(this.angles),
        centre: this.centre,
        pixelsPerMm: (FILL * this.zoom * Math.min(each, height)) / this.extent,
        radius: this.extent,
        mode,
        gloss: options.colouring === "skin" ? 1 : 0,
        wire: options.wireframe,
        ink: lightText && mode !== 1 ? [1, 1, 1, 0.35] : [0.05, 0.07, 0.1, 0.42],
        landmarks: options.landmarks ? { positions: this.#landmarkPositions(face), groups: this.landmarkGroups } : null,
        ratio,
      });
    }
    this.#legend();
  }

  /* ---- the page ---- */

  #build() {
    addStyle();
    const { header, id } = this;
    const size = 12 + header.layout.shape + header.layout.expression;
    this.canvas = element("canvas", { "aria-hidden": "true" });
    this.legend = element("div", { class: "fx-legend", "aria-live": "off" });
    this.captions = ["first face", "second face"].map((text, i) =>
      element("div", { class: "fx-caption", style: `left: ${25 + 50 * i}%` }, text),
    );
    this.view = element(
      "div",
      {
        class: "fx-view",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "3D view",
        "aria-label": "3D face. Arrow keys turn and tilt it, comma and full stop roll it, plus and minus zoom, zero resets the view.",
      },
      this.canvas,
      ...this.captions,
      this.legend,
    );
    this.select = element("select", { "aria-label": "Colouring", "data-test-changes": `#${id}`, onchange: () => this.#pick({ colouring: this.select.value }) });
    const box = (key, text) => {
      const input = element("input", { type: "checkbox", "data-test-changes": `#${id}`, onchange: () => this.#pick({ [key]: input.checked }) });
      return [input, element("label", {}, input, text)];
    };
    const [landmarks, landmarksLabel] = box("landmarks", "Landmarks");
    const [wireframe, wireframeLabel] = box("wireframe", "Wireframe");
    const [twoFaces, twoFacesLabel] = box("twoFaces", "Two faces");
    this.boxes = { landmarks, wireframe, twoFaces };
    this.choices = ["First", "Second"].map((text, i) =>
      element("button", { type: "button", onclick: () => this.#pick({ activeFace: i }) }, text),
    );
    this.choice = element("span", { class: "fx-choice", role: "group", "aria-label": "Face that the sliders move" }, "Sliders move", ...this.choices);
    const button = (text, action, label) => element("button", { type: "button", onclick: action, "aria-label": label }, text);
    this.status = element("p", { class: "fx-status", role: "status", "aria-live": "polite" });
    const bar = element(
      "div",
      { class: "fx-bar" },
      element("label", {}, "Colour", this.select),
      landmarksLabel,
      wireframeLabel,
      twoFacesLabel,
      this.choice,
      button("Random", () => this.#act(() => this.random(), "A random face."), "Random face"),
      button("Reset", () => this.#act(() => this.reset(), "Back to the start."), "Reset"),
      button(`Copy the ${size} numbers`, () => this.copy()),
    );

    this.sliders = [];
    const slider = (label, unit, range, step, read, write) => {
      const name = `${id}-${this.sliders.length}`;
      const input = element("input", { type: "range", id: name, min: range[0], max: range[1], step, "aria-label": label });
      const output = element("output", { for: name });
      const row = element("div", { class: "fx-slider" }, element("label", { for: name, title: `${label} (double-click: zero)` }, label), input, output);
      const spoken = { "°": "degrees", "σ": "standard deviations" }[unit] ?? "";
      const show = () => {
        const value = read();
        if (Math.abs(Number(input.value) - value) > 1e-9) input.value = value;
        const digits = unit === "°" ? 0 : 2;
        const text = `${value < -1e-9 ? "−" : unit === "" ? "" : value > 1e-9 ? "+" : ""}${Math.abs(value).toFixed(digits)}`;
        output.textContent = unit === "°" ? `${text}°` : unit ? `${text} ${unit}` : text;
        input.setAttribute("aria-valuetext", `${Number(value.toFixed(2))} ${spoken}`.trim());
        row.classList.toggle("fx-moved", Math.abs(value) > 1e-9);
        const percent = (x) => `${((100 * (clamp(x, range) - range[0])) / (range[1] - range[0])).toFixed(1)}%`;
        input.style.setProperty("--fx-from", percent(Math.min(0, value)));
        input.style.setProperty("--fx-to", percent(Math.max(0, value)));
      };
      const change = (value) => {
        write(value);
        show();
        this.redraw();
      };
      input.addEventListener("input", () => change(Number(input.value)));
      row.firstChild.addEventListener("dblclick", () => change(0));
      this.sliders.push({ input, show });
      return row;
    };
    const coefficient = (kind) => (k) => [
      () => this.faces[this.active][kind][k],
      (value) => {
        const face = this.faces[this.active];
        face[kind][k] = value;
        face.stale = true;
        this.#tell(kind);
      },
    ];
    const group = (title, rows) => (rows.length ? [element("details", { open: true }, element("summary", {}, title), ...rows)] : []);
    const degrees = (index) => [
      () => this.angles[index],
      (value) => {
        this.angles[index] = value;
        this.#tell("angles");
      },
    ];
    const shape = coefficient("shape");
    const expression = coefficient("expression");
    this.panel = element(
      "div",
      { class: "fx-panel", role: "group", "aria-label": "Pose, shape and expression" },
      ...group(
        "Pose",
        ["yaw", "pitch", "roll"].map((key) => {
          const { index, label } = ANGLES.find((angle) => angle.key === key);
          return slider(label, "°", [-ANGLE_LIMIT, ANGLE_LIMIT], 1, ...degrees(index));
        }),
      ),
      ...group(
        "Shape",
        this.faces[0].shape.map((_, k) => slider(`Shape ${k + 1}`, "σ", header.shapeRange, 0.05, ...shape(k))),
      ),
      ...group(
        "Expression",
        header.expressionNames.map((name, k) =>
          slider(readable(name), header.expressionUnit, header.expressionRange, header.expressionUnit ? 0.05 : 0.01, ...expression(k)),
        ),
      ),
    );
    const frame = element(
      "div",
      { class: "fx-frame" },
      element("div", { class: "fx-stage" }, this.view, bar, this.status),
      this.panel,
    );
    const hint = element("p", { class: "fx-hint" }, "Drag the face to turn it; Shift and drag to roll it; Ctrl and wheel to zoom.");
    this.root.classList.add("face-explorer");
    this.root.id = id;
    this.root.setAttribute("data-face-explorer", "");
    this.root.setAttribute("role", "group");
    this.root.setAttribute("data-lm-suppress-shortcuts", "true"); // no JupyterLab shortcuts inside
    this.root.setAttribute("aria-label", `Face explorer: ${header.name}`);
    this.root.replaceChildren(frame, hint);
  }

  #listen() {
    this.resize = new ResizeObserver(() => {
      this.panel.style.setProperty("--fx-panel-height", `${Math.max(320, this.view.parentElement.offsetHeight)}px`);
      this.redraw();
    });
    this.resize.observe(this.view.parentElement);
    this.redrawLater = () => this.redraw();
    this.theme = new MutationObserver(this.redrawLater);
    this.theme.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    this.theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
    this.media = window.matchMedia("(prefers-color-scheme: dark)");
    this.media.addEventListener("change", this.redrawLater);
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.painter.restore();
      this.faces.forEach((face) => (face.upload = true));
      this.redraw();
    });

    this.root.addEventListener("keydown", (event) => {
      const passes = event.ctrlKey || event.metaKey || event.altKey || ["Tab", "Escape"].includes(event.key);
      if (!passes) event.stopPropagation(); // JupyterLab would intercept the sliders' arrow keys
    });
    let last = null;
    this.view.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      last = [event.clientX, event.clientY];
      this.view.setPointerCapture(event.pointerId);
      if (this.options.twoFaces) {
        const box = this.view.getBoundingClientRect();
        this.#pick({ activeFace: event.clientX > box.left + box.width / 2 ? 1 : 0 });
      }
    });
    this.view.addEventListener("pointermove", (event) => {
      if (!last) return;
      const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
      last = [event.clientX, event.clientY];
      // The nose follows the pointer: a positive yaw moves it to the left, a positive pitch up.
      if (event.shiftKey) this.#turn(0, 0, dx * DEGREES_PER_PIXEL);
      else this.#turn(-dy * DEGREES_PER_PIXEL, -dx * DEGREES_PER_PIXEL, 0);
    });
    const release = () => (last = null);
    this.view.addEventListener("pointerup", release);
    this.view.addEventListener("pointercancel", release);
    this.view.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return; // a plain wheel scrolls the page
        event.preventDefault();
        this.#magnify(Math.exp(-event.deltaY / 300));
      },
      { passive: false },
    );
    const keys = {
      ArrowLeft: () => this.#turn(0, KEY_STEP, 0),
      ArrowRight: () => this.#turn(0, -KEY_STEP, 0),
      ArrowUp: () => this.#turn(KEY_STEP, 0, 0),
      ArrowDown: () => this.#turn(-KEY_STEP, 0, 0),
      ",": () => this.#turn(0, 0, -KEY_STEP),
      ".": () => this.#turn(0, 0, KEY_STEP),
      "+": () => this.#magnify(1.15),
      "=": () => this.#magnify(1.15),
      "-": () => this.#magnify(1 / 1.15),
      0: () => {
        this.zoom = 1;
        this.#turn(...this.initial.angles.map((angle, i) => angle - this.angles[i]));
      },
    };
    this.view.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key]) return;
      event.preventDefault();
      keys[event.key]();
    });
  }

  #turn(pitch, yaw, roll) {
    this.angles = this.angles.map((angle, i) =>
      Math.round(10 * clamp(angle + [pitch, yaw, roll][i], [-ANGLE_LIMIT, ANGLE_LIMIT])) / 10,
    );
    this.#refresh();
    this.#tell("angles");
    this.redraw();
  }

  #magnify(factor) {
    this.zoom = clamp(this.zoom * factor, ZOOM_RANGE);
    this.redraw();
  }

  #pick(changes) {
    this.set(changes);
    this.#tell(...Object.keys(changes));
  }

  #act(action, message) {
    action();
    this.status.textContent = message;
    this.#tell("shape", "expression", "albedo", "angles");
  }

  #tell(...names) {
    if (!this.onChange) return;
    // The sliders move the selected face; the first and the second face have traits of their own.
    const second = { shape: "secondShape", expression: "secondExpression", albedo: "secondAlbedo" };
    this.onChange(names.flatMap((name) => (this.active && second[name] ? [second[name]] : [name])));
  }

  /** A changed value under the name that `set` takes. */
  get(name) {
    if (name === "angles") return [...this.angles];
    if (name === "activeFace") return this.active;
    if (name in this.options) return this.options[name];
    const second = name.startsWith("second");
    return [...this.faces[second ? 1 : 0][second ? name.slice("second".length).toLowerCase() : name]];
  }

  #refresh() {
    for (const { show } of this.sliders) show();
    for (const [key, input] of Object.entries(this.boxes)) input.checked = this.options[key];
    const { twoFaces } = this.options;
    this.select.replaceChildren(...this.#offered().map(({ key, label }) => element("option", { value: key }, label)));
    this.select.value = this.options.colouring;
    this.root.classList.toggle("fx-two", twoFaces);
    this.choice.style.display = twoFaces ? "" : "none";
    this.choices.forEach((button, i) => button.setAttribute("aria-pressed", i === this.active));
    this.captions.forEach((caption, i) => {
      caption.hidden = !twoFaces;
      caption.classList.toggle("fx-chosen", i === this.active);
    });
  }

  #legend() {
    const { colouring, landmarks } = this.options;
    const key = `${colouring} ${landmarks} ${this.reach}`;
    if (this.legendKey === key) return;
    this.legendKey = key;
    const parts = [];
    if (colouring === "distance" || colouring === "difference") {
      const stops = VIRIDIS.map((c) => `rgb(${c})`).join(", ");
      parts.push("0", element("span", { class: "fx-ramp", style: `background: linear-gradient(to right, ${stops})` }), `${this.reach} ${this.header.units}`);
    } else if (colouring === "normals") parts.push("red: right, green: up, blue: towards you");
    else if (colouring === "pncc") parts.push("red: x, green: y, blue: z of the mean face");
    this.legend.replaceChildren(...parts);
  }

  async copy() {
    const numbers = this.coefficients();
    const text = `[${numbers.map((x) => Number(x.toPrecision(7))).join(", ")}]`;
    const { layout } = this.header;
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without permission or a secure context the old way still works.
      const area = element("textarea", { style: "position: fixed; opacity: 0", "aria-hidden": "true" });
      area.value = text;
      this.root.append(area);
      area.select();
      copied = document.execCommand("copy");
      area.remove();
    }
    this.copied = text;
    this.status.textContent = copied
      ? `Copied ${numbers.length} numbers: 12 of the pose, ${layout.shape} of the shape, ${layout.expression} of the expression.`
      : text;
  }
}

/* ----------------------------------------------------------------------------------------------- the two ways to live */

const TRAITS = {
  shape: "shape",
  expression: "expression",
  angles: "angles",
  albedo: "albedo",
  second_shape: "secondShape",
  second_expression: "secondExpression",
  second_albedo: "secondAlbedo",
  two_faces: "twoFaces",
  colouring: "colouring",
  landmarks: "landmarks",
  wireframe: "wireframe",
};

function complain(host, error) {
  addStyle();
  host.classList.add("face-explorer");
  host.replaceChildren(element("p", { class: "fx-error" }, `The interactive face cannot be shown: ${error.message}.`));
}

/** A static page: the figure holds a header, the data and a picture for print. */
async function mountFigure(figure) {
  figure.dataset.mounted = "loading";
  const host = element("div");
  try {
    const { header, options } = JSON.parse(figure.querySelector("script.fx-header").textContent);
    const model = await unpackModel(header, fromBase64(figure.querySelector("script.fx-data").textContent));
    figure.append(host);
    new Explorer(host, model, options);
    figure.dataset.mounted = "yes";
  } catch (error) {
    figure.append(host);
    complain(host, error); // the picture stays visible above it
    figure.dataset.mounted = "failed";
    console.error(error);
  }
}

export function mountStatic(root = document) {
  for (const figure of root.querySelectorAll(".face-explorer-figure:not([data-mounted])")) mountFigure(figure);
}

/** The model comes by message, not as a trait: it would otherwise be stored in every saved notebook. */
function requestModel(model) {
  return new Promise((resolve) => {
    const receive = (message, buffers) => {
      if (message?.kind !== "model") return;
      model.off("msg:custom", receive);
      const { buffer, byteOffset, byteLength } = buffers[0];
      resolve(unpackModel(message.header, buffer ? new Uint8Array(buffer, byteOffset, byteLength) : new Uint8Array(buffers[0])));
    };
    model.on("msg:custom", receive);
    model.send({ kind: "request-model" });
  });
}

function render({ model, el }) {
  const host = element("div", {}, "Loading the face from the kernel …");
  el.append(host);
  let explorer = null;
  let over = false;
  const follow = [];
  const start = async () => {
    const packed = await requestModel(model);
    if (over) return;
    const options = Object.fromEntries(Object.entries(TRAITS).map(([trait, key]) => [key, model.get(trait)]));
    explorer = new Explorer(host, packed, options);
    let changed = new Set();
    let timer = 0;
    const names = Object.fromEntries(Object.entries(TRAITS).map(([trait, key]) => [key, trait]));
    explorer.onChange = (keys) => {
      keys.forEach((key) => names[key] && changed.add(key));
      // Messages are bundled: a slider in motion makes more events than a kernel wants to hear of.
      timer ||= setTimeout(() => {
        for (const key of changed) model.set(names[key], explorer.get(key));
        [timer, changed] = [0, new Set()];
        model.save_changes();
      }, 40);
    };
    for (const [trait, key] of Object.entries(TRAITS)) {
      const listener = () => {
        const value = model.get(trait);
        const mine = explorer.get(key);
        const equal = Array.isArray(value) ? same(value, mine) : value === mine;
        if (!equal && !changed.has(key)) explorer.set({ [key]: value });
      };
      model.on(`change:${trait}`, listener);
      follow.push([`change:${trait}`, listener]);
    }
  };
  start().catch((error) => {
    complain(host, error);
    console.error(error);
  });
  return () => {
    over = true;
    follow.forEach(([event, listener]) => model.off(event, listener));
    explorer?.destroy();
  };
}

export default { render };
