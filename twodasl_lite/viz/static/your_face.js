/* From a photo to a face in the browser: crop, network (onnxruntime-web), 62 numbers, face model.
 *
 * The texts of face.js and viewer.js come first in the same script. It follows twodasl_lite.reconstruct step by step:
 * box -> crop of 120 x 120 as OpenCV cuts it -> network, first with an empty landmark map, then with its own landmarks
 * drawn -> a new crop around the predicted landmarks -> pose in the photo's frame.
 * The large parts (runtime, network, face model) are scripts that hold their bytes as text, because a page opened from
 * a disk may load scripts and nothing else.
 */

const CROP = 120;
const WORK_SIDE = 2048; // a larger photo is shrunk to this first
const FIRST_BOX = 0.56; // initial side of the box, as a fraction of the photo's shorter side
const SMALLEST_BOX = 12; // pixels of the photo
const PART_NAMES = { model: "the face model (2.4 MB)", network: "the network (5 MB)", runtime: "the program that runs it (5 MB)" };

/** Nearest integer; halves to the even one, as torch and numpy round. */
function rint(x) {
  const r = Math.round(x);
  return r - x === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

function unpackArrays(list, bytes) {
  const kinds = { f4: Float32Array, u4: Uint32Array, u2: Uint16Array, u1: Uint8Array };
  const arrays = {};
  let at = 0;
  for (const { name, kind, length } of list) {
    const Kind = kinds[kind];
    arrays[name] = new Kind(bytes.slice(at, at + length * Kind.BYTES_PER_ELEMENT).buffer);
    at += length * Kind.BYTES_PER_ELEMENT;
  }
  return arrays;
}

/* ----------------------------------------------------------------------------------------------------- boxes and crops */

/** The square to cut out around points or a box's two corners [[x, y], ...]: images.landmarks_box. */
function cropBox(points) {
  const low = [Infinity, Infinity];
  const high = [-Infinity, -Infinity];
  for (const point of points) {
    for (let a = 0; a < 2; a++) {
      low[a] = Math.min(low[a], point[a]);
      high[a] = Math.max(high[a], point[a]);
    }
  }
  const side = Math.fround(Math.SQRT2) * Math.max(high[0] - low[0], high[1] - low[1]);
  const first = low.map((x, a) => rint((x + high[a] - side) / 2));
  const extent = Math.max(1, rint(side));
  return [...first, first[0] + extent, first[1] + extent];
}

/** Cut a box out of RGBA pixels as images.crop_photo does: black outside, OpenCV's area or linear interpolation. */
function cropPhoto({ data, width, height }, box) {
  const [left, top, right, bottom] = box;
  const [w, h] = [right - left + 1, bottom - top + 1];
  if (right < 0 || bottom < 0 || left >= width || top >= height || w < 1 || h < 1) throw new RangeError("the box lies outside the photo");
  const shrinks = w > CROP || h > CROP;
  const columns = (shrinks ? areaTable : linearTable)(w);
  const rows = (shrinks ? areaTable : linearTable)(h);
  const pixel = (x, y, c) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : data[4 * (y * width + x) + c]);
  const out = new Uint8Array(3 * CROP * CROP); // planes: red, green, blue
  // One row of the photo at a time, its columns first.
  const lines = new Map();
  const line = (y) => {
    let found = lines.get(y);
    if (found) return found;
    found = new Float64Array(3 * CROP);
    for (let column = 0; column < CROP; column++) {
      for (const [x, weight] of columns[column]) {
        for (let c = 0; c < 3; c++) found[3 * column + c] += weight * pixel(left + x, top + y, c);
      }
    }
    lines.set(y, found);
    return found;
  };
  const sum = new Float64Array(3 * CROP);
  for (let row = 0; row < CROP; row++) {
    sum.fill(0);
    for (const [y, weight] of rows[row]) {
      if (shrinks) line(y).forEach((value, i) => (sum[i] += weight * value));
      else line(y).forEach((value, i) => (sum[i] += Math.floor((weight * Math.floor(value / 16)) / 65536)));
    }
    const first = rows[row][0][0];
    for (const y of lines.keys()) if (y < first) lines.delete(y);
    for (let i = 0; i < sum.length; i++) out[(i % 3) * CROP * CROP + row * CROP + Math.floor(i / 3)] = between(shrinks ? rint(sum[i]) : Math.floor((sum[i] + 2) / 4), 0, 255);
  }
  return out;
}

/** For each of 120 cells, the pixels that it covers and their weights: [[index, weight], ...]. */
function areaTable(length) {
  const scale = length / CROP;
  return Array.from({ length: CROP }, (_, cell) => {
    const [start, end] = [cell * scale, Math.min((cell + 1) * scale, length)];
    const entries = [];
    for (let i = Math.floor(start + 1e-9); i < end - 1e-9; i++) entries.push([i, (Math.min(end, i + 1) - Math.max(start, i)) / (end - start)]);
    return entries;
  });
}

/** For each of 120 cells, the two pixels around it and their weights, as OpenCV's integer multiples of 1/2048. */
function linearTable(length) {
  const scale = length / CROP;
  return Array.from({ length: CROP }, (_, cell) => {
    const place = (cell + 0.5) * scale - 0.5;
    const below = Math.floor(place);
    const weight = rint((place - below) * 2048);
    return [[between(below, 0, length - 1), 2048 - weight], [between(below + 1, 0, length - 1), weight]];
  });
}

/** A pose of the crop in the photo's frame: camera.crop_pose_to_image. */
function poseToPhoto(pose, box, height) {
  const k = [CROP / (box[2] - box[0] + 1), CROP / (box[3] - box[1] + 1)];
  const offset = [0, 1].map((a) => k[a] * (0.5 - box[a]) - 0.5);
  const diagonal = [k[0], k[1], (k[0] + k[1]) / 2];
  const shift = [1 - k[0] + offset[0], CROP - k[1] * height - offset[1], 0];
  return Array.from({ length: 12 }, (_, i) => {
    const row = Math.floor(i / 4);
    return (pose[i] - (i % 4 === 3 ? shift[row] : 0)) / diagonal[row];
  });
}

/* --------------------------------------------------------------------------------------------------------- the network */

/** Everything between a crop and raw coefficients. */
class FaceNetwork {
  constructor(ort, session, settings, arrays) {
    Object.assign(this, { ort, session, settings, arrays });
  }

  static async start(runtime, network, arrays) {
    const text = new TextDecoder().decode(await inflate(fromBase64(runtime.script)));
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const ort = await import(address);
    URL.revokeObjectURL(address);
    Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, wasmBinary: (await inflate(fromBase64(runtime.wasm))).buffer });
    const session = await ort.InferenceSession.create(await inflate(fromBase64(network.onnx)), { executionProviders: ["wasm"] });
    return new FaceNetwork(ort, session, network.settings, arrays);
  }

  /** The fourth input channel: landmarks.landmark_map of points [[x, y], ...] in crop pixels. */
  map(points, out) {
    const { mapKind, sigma } = this.settings;
    if (mapKind === "binary") {
      out.fill(-1);
      for (const [x, y] of points) {
        const [column, row] = [Math.floor(x), Math.floor(y)];
        if (column >= 0 && row >= 0 && column < CROP && row < CROP) out[row * CROP + column] = 1;
      }
      return;
    }
    const empty = new Float64Array(CROP * CROP).fill(1);
    const reach = this.settings.reach * sigma;
    for (const [x, y] of points) {
      if (!(x > -reach && y > -reach && x < CROP - 1 + reach && y < CROP - 1 + reach)) continue;
      const falloff = (at) => Float64Array.from({ length: CROP }, (_, i) => Math.exp(-((i - at) ** 2) / (2 * sigma * sigma)));
      const [columns, rows] = [falloff(x), falloff(y)];
      for (let r = 0; r < CROP; r++) for (let c = 0; c < CROP; c++) empty[r * CROP + c] *= 1 - rows[r] * columns[c];
    }
    for (let i = 0; i < out.length; i++) out[i] = 2 * (1 - empty[i]) - 1;
  }

  async forward(inputs) {
    const tensor = new this.ort.Tensor("float32", inputs, [1, 4, CROP, CROP]);
    const { coefficients } = await this.session.run({ inputs: tensor });
    const found = Float32Array.from(coefficients.data);
    constrainPose(found, this.settings.pose);
    return found;
  }

  /** Raw coefficients of a crop, three planes of 120 x 120: prediction.predict without a detector's points. */
  async predict(planes, looks = this.settings.looks) {
    const size = CROP * CROP;
    const inputs = new Float32Array(4 * size);
    for (let i = 0; i < 3 * size; i++) inputs[i] = (planes[i] - 127.5) / 128;
    this.map([], inputs.subarray(3 * size));
    let found = await this.forward(inputs);
    for (let look = 1; look < looks; look++) {
      const landmarks = this.landmarks(found, CROP);
      const subset = this.settings.subset.map((members) => [0, 1].map((a) => members.reduce((sum, m) => sum + landmarks[m][a], 0) / members.length));
      this.map(subset, inputs.subarray(3 * size));
      found = await this.forward(inputs);
    }
    return found;
  }

  /** The exact 68 landmarks [[x, y, z], ...] in pixels: their part of the model is not rounded. */
  landmarks(coefficients, height) {
    const { landmarkMean, landmarkBasis } = this.arrays;
    const K = coefficients.length - 12;
    const points = Float32Array.from(landmarkMean, (start, i) => {
      let sum = start;
      for (let k = 0; k < K; k++) sum += landmarkBasis[i * K + k] * coefficients[12 + k];
      return sum;
    });
    const placed = pixelsOf(points, coefficients, height);
    return Array.from({ length: points.length / 3 }, (_, i) => [placed[3 * i], placed[3 * i + 1], placed[3 * i + 2]]);
  }

  /** The face in a photo, from a box around it [left, top, right, bottom]: reconstruct.reconstruct. */
  async reconstruct(photo, box, { recrops = this.settings.recrops, looks } = {}) {
    let crop = cropBox([[box[0], box[1]], [box[2], box[3]]]);
    for (let round = 0; ; round++) {
      const raw = await this.predict(cropPhoto(photo, crop), looks);
      const coefficients = Float32Array.from(raw);
      coefficients.set(poseToPhoto(raw, crop, photo.height));
      const landmarks = this.landmarks(coefficients, photo.height);
      if (round >= recrops) return { coefficients, landmarks, crop };
      const next = cropBox(landmarks);
      const off = !next.every(Number.isFinite) || next[2] < 0 || next[3] < 0 || next[0] >= photo.width || next[1] >= photo.height;
      const stays = next.every((x, i) => Math.abs(x - crop[i]) <= this.settings.stays * (crop[2] - crop[0]));
      if (off || next[2] - next[0] < 4 || stays) return { coefficients, landmarks, crop };
      crop = next;
    }
  }
}

/** The 12 pose numbers as a valid pose: "free", "completed" or "similarity" (camera.constrain_pose). */
function constrainPose(pose, form) {
  if (form === "free") return;
  let [first, second] = [[pose[0], pose[1], pose[2]], [pose[4], pose[5], pose[6]]];
  const [a, b] = [Math.hypot(...first), Math.hypot(...second)];
  let third = cross3(first, second).map((x) => x / Math.sqrt(a * b));
  if (form === "similarity") {
    const along = unit3(first);
    const across = unit3(second.map((x, i) => x - dot3(second, along) * along[i]));
    [first, second, third] = [along, across, cross3(along, across)].map((row) => row.map((x) => ((a + b) / 2) * x));
  }
  [first, second, third].forEach((row, r) => row.forEach((x, i) => (pose[4 * r + i] = x)));
}

/* ---------------------------------------------------------------------------------------------------------- the colours */

/** Colours of the vertices that the photo does not show: texture.photo_colours. */
function fillColours({ data, width, height }, pixels, seen, average, arrays) {
  const V = seen.length;
  const colours = new Float32Array(3 * V);
  for (let v = 0; v < V; v++) {
    const [x, y] = [between(pixels[3 * v], 0, width - 1), between(pixels[3 * v + 1], 0, height - 1)];
    const [c0, r0] = [Math.min(Math.floor(x), width - 2), Math.min(Math.floor(y), height - 2)];
    const [u, w] = [x - c0, y - r0];
    for (let c = 0; c < 3; c++) {
      const at = (r, q) => data[4 * (Math.max(r, 0) * width + Math.max(q, 0)) + c];
      colours[3 * v + c] = (1 - w) * ((1 - u) * at(r0, c0) + u * at(r0, c0 + 1)) + w * ((1 - u) * at(r0 + 1, c0) + u * at(r0 + 1, c0 + 1));
    }
  }
  const median = (values) => values.sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)];
  const shown = [];
  for (let v = 0; v < V; v++) if (arrays.skin[v] && seen[v] > 0.5) shown.push(v);
  const tone = [0, 1, 2].map((c) => (shown.length ? median(shown.map((v) => colours[3 * v + c])) : 128));
  const usual = [0, 1, 2].map((c) => (shown.length && average ? Math.max(1, median(shown.map((v) => average[3 * v + c]))) : 128));
  const out = new Uint8Array(3 * V);
  for (let v = 0; v < V; v++) {
    const other = arrays.mirror[v];
    for (let c = 0; c < 3; c++) {
      const plain = !average || arrays.organ[v] === 2 ? tone[c] : arrays.organ[v] ? average[3 * v + c] : (average[3 * v + c] * tone[c]) / usual[c];
      const trust = between((seen[other] - 0.3) / 0.5, 0, 1);
      out[3 * v + c] = between(rint(trust * colours[3 * other + c] + (1 - trust) * plain), 0, 255);
    }
  }
  return out;
}

/* ------------------------------------------------------------------------------------------------------------- the page */

const OWN_STYLE = `
.yf-pick { display: flex; flex-wrap: wrap; gap: 8px 12px; align-items: center; margin: 0 0 10px; }
.yf-pick input[type="file"] { position: absolute; width: 1px; height: 1px; opacity: 0; }
.face-viewer .yf-demo { padding: 0; width: 58px; height: 58px; overflow: hidden; flex: none; }
.face-viewer .yf-demo img { width: 100%; height: 100%; object-fit: cover; display: block; margin: 0; border-radius: 0; filter: none; }
.yf-demos { display: inline-flex; flex-wrap: wrap; gap: 8px; align-items: center; }
.face-viewer .yf-choose { font-weight: 600; }
.yf-choose:focus-within { outline: 2px solid var(--fv-accent); outline-offset: 2px; }
.face-viewer label.yf-choose { border: 1px solid var(--fv-accent); border-radius: 6px; padding: 6px 12px; cursor: pointer; background: var(--fv-accent); color: var(--fv-surface); position: relative; overflow: hidden; }
.fv-stage.yf-dropping { outline: 3px dashed var(--fv-accent); outline-offset: -6px; }
.yf-invite { position: absolute; inset: 0; display: grid; place-items: center; text-align: center; padding: 1.5rem; color: var(--fv-muted); }
.fv-photo > svg.yf-box { pointer-events: auto; touch-action: none; }
.yf-box rect.yf-area { cursor: move; }
.yf-box circle { cursor: nwse-resize; }
.yf-box circle.yf-other { cursor: nesw-resize; }
.yf-privacy { margin: 8px 0 0; color: var(--fv-muted); font-size: 13px; }
`;

class YourFace {
  constructor(host, base) {
    this.host = host;
    this.base = base;
    this.parts = {};
    this.scripts = {};
    this.busy = false;
    host.yourFace = this;
  }

  /** Load a script that holds bytes as text, once. */
  part(name) {
    this.scripts[name] ??= new Promise((resolve, reject) => {
      const script = node("script", { src: `${this.base}${name}.js` });
      script.onload = () => (window.twodaslFace?.[name] ? resolve(window.twodaslFace[name]) : reject(new Error(`${name}.js is incomplete`)));
      script.onerror = () => reject(new Error(`cannot load ${PART_NAMES[name] || name}`));
      document.head.append(script);
    });
    return this.scripts[name];
  }

  async start() {
    const settings = await this.part("page");
    const viewer = node("div", { id: "your-face-viewer" });
    this.host.replaceChildren(viewer);
    try {
      this.viewer = new FaceViewer(viewer, settings);
    } catch (error) {
      this.host.replaceChildren(node("p", { class: "fv-note" }, `This browser cannot show the page: ${error.message}.`));
      return;
    }
    document.head.append(node("style", {}, OWN_STYLE));
    const file = node("input", { type: "file", accept: "image/*", onchange: () => file.files[0] && this.open(file.files[0]).then(() => (file.value = "")) });
    const demos = settings.demos.map(({ title, source }, i) => node("button", { type: "button", class: "yf-demo", title, "aria-label": title, onclick: () => this.demo(i) }, node("img", { src: source, alt: "" })));
    this.camera = node("button", { type: "button", hidden: !navigator.mediaDevices?.getUserMedia, onclick: () => this.webcam() }, "Webcam");
    const pick = node("div", { class: "yf-pick" }, node("label", { class: "yf-choose" }, file, "Choose a photo"), this.camera, node("span", { class: "yf-demos" }, node("span", {}, "or try"), ...demos));
    viewer.prepend(pick);
    viewer.append(node("p", { class: "yf-privacy" }, "Nothing leaves your machine: the photo is read, and the network runs, in this page. Close it and all is gone."));
    this.invite = node("div", { class: "yf-invite" }, "Drop a photo with a face here");
    this.box = null;
    this.boxLayer = node("svg", { xmlns: SVG, class: "yf-box", hidden: true, tabindex: "0", role: "application", "aria-label": "Box around the face. Arrow keys move it, plus and minus make it larger and smaller." });
    this.viewer.photoStage.append(this.invite, this.boxLayer);
    this.#listenToBox();
    this.#listenToDrops();
    this.say("");
    this.started = true;
  }

  say(text) {
    this.viewer.note.textContent = text;
  }

  demo(index) {
    return this.part("page").then(({ demos }) => {
      const bytes = fromBase64(demos[index].source.split(",")[1]);
      return this.open(new Blob([bytes], { type: demos[index].source.slice(5).split(";")[0] }), demos[index].box);
    });
  }

  /** Show a picture file and look at it. */
  async open(blob, box = null) {
    this.stopWebcam();
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob); // upright: honours EXIF
    } catch {
      this.say(`This browser cannot read ${blob.name || "that file"} as a picture; try a JPEG or PNG.`);
      return;
    }
    const factor = Math.min(1, WORK_SIDE / Math.max(bitmap.width, bitmap.height));
    const canvas = node("canvas", { width: Math.max(1, Math.round(bitmap.width * factor)), height: Math.max(1, Math.round(bitmap.height * factor)) });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // behind transparent parts
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    this.usePhoto(canvas);
    if (box) this.box = box.map((x) => x * factor);
    else {
      const side = FIRST_BOX * Math.min(canvas.width, canvas.height);
      const [x, y] = [canvas.width / 2, canvas.height / 2];
      this.box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
    }
    this.#showBox();
    await this.look();
  }

  usePhoto(canvas) {
    this.canvas = canvas;
    this.pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    this.invite.hidden = true;
    this.viewer.setPhoto(canvas);
  }

  /** Network and face model, loaded when first needed. */
  ready() {
    this.loading ??= (async () => {
      const { missing } = await this.part("page");
      if (missing) throw new Error(missing);
      this.say("Loading the face model, the network and the program that runs it, 12 MB, once …");
      const [model, network, runtime] = await Promise.all(["model", "network", "runtime"].map((name) => this.part(name)));
      this.model = await unpackModel(model.header, fromBase64(model.data));
      this.arrays = unpackArrays(model.list, await inflate(fromBase64(model.arrays)));
      this.network = await FaceNetwork.start(runtime, network, this.arrays);
      for (const name of ["model", "network", "runtime"]) delete window.twodaslFace[name];
    })();
    return this.loading;
  }

  /** The face in the box; while one prediction runs, only the latest request waits. */
  async look() {
    if (this.busy) {
      this.again = true;
      return;
    }
    this.busy = true;
    try {
      await this.ready();
      do {
        this.again = false;
        const before = performance.now();
        this.show(await this.network.reconstruct(this.pixels, this.box), performance.now() - before);
        await new Promise((resolve) => setTimeout(resolve));
      } while (this.again);
    } catch (error) {
      this.viewer.hide();
      this.say(error instanceof RangeError ? "The box lies outside the photo: move it onto the face." : `Something went wrong: ${error.message}.`);
    } finally {
      this.busy = false;
    }
  }

  show(answer, milliseconds) {
    this.answer = answer;
    const { coefficients } = answer;
    const { header } = this.model;
    const std = [...header.shapeStd, ...header.expressionStd];
    const weights = std.map((s, k) => coefficients[12 + k] / s);
    const points = decodeFace(this.model, weights, new Float32Array(3 * this.model.V));
    const pose = Array.from(coefficients.slice(0, 12));
    const pixels = pixelsOf(points, pose, this.pixels.height);
    const normals = pixelNormals(pixels, this.model.triangles);
    const seen = seenWeights(pixels, this.model.triangles, normals, this.pixels.width, this.pixels.height);
    const fill = fillColours(this.pixels, pixels, seen, this.model.colours, this.arrays);
    this.viewer.show({ points, pose, fill, triangles: this.arrays.faceTriangles, headTriangles: this.model.triangles });
    const names = ["pitch", "yaw", "roll"];
    const angles = eulerAngles(nearestRotation(pose)).map((a, i) => `${names[i]} ${Math.round(a)}°`.replace("-", "−"));
    this.say(`${angles.join(", ")} · computed in ${Math.round(milliseconds)} ms. If the mesh does not fit, drag the box round the face, from the brows to the chin.`);
  }

  /* ---- the box ---- */

  #showBox() {
    const layer = this.boxLayer;
    const { width, height } = this.canvas;
    const [left, top, right, bottom] = this.box;
    const unit = width / (this.viewer.photoStage.getBoundingClientRect().width || width);
    layer.removeAttribute("hidden");
    layer.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const line = { xmlns: SVG, x: left, y: top, width: right - left, height: bottom - top, fill: "transparent" };
    const parts = [node("rect", { ...line, stroke: "#000", "stroke-opacity": 0.5, "stroke-width": 3.5 * unit }), node("rect", { ...line, class: "yf-area", stroke: "#fff", "stroke-width": 1.6 * unit })];
    const corners = [[left, top], [right, top], [right, bottom], [left, bottom]];
    corners.forEach(([cx, cy], i) => parts.push(node("circle", { xmlns: SVG, cx, cy, r: 7 * unit, fill: "#fff", stroke: "#000", "stroke-opacity": 0.5, "stroke-width": unit, class: i % 2 ? "yf-other" : null, "data-corner": i })));
    layer.replaceChildren(...parts);
  }

  moveBox(box) {
    const { width, height } = this.canvas;
    const side = between(box[2] - box[0], SMALLEST_BOX, 2 * Math.max(width, height));
    const x = between((box[0] + box[2]) / 2, 0, width);
    const y = between((box[1] + box[3]) / 2, 0, height);
    this.box = [x - side / 2, y - side / 2, x + side / 2, y + side / 2];
    this.#showBox();
    this.look();
  }

  #listenToBox() {
    const layer = this.boxLayer;
    let grip = null;
    const place = (event) => {
      const { left, top, width, height } = layer.getBoundingClientRect();
      return [((event.clientX - left) / width) * this.canvas.width, ((event.clientY - top) / height) * this.canvas.height];
    };
    layer.addEventListener("pointerdown", (event) => {
      const corner = event.target.dataset.corner;
      if (corner === undefined && !event.target.classList.contains("yf-area")) return;
      grip = { corner: corner === undefined ? null : Number(corner), from: place(event), box: [...this.box] };
      layer.setPointerCapture(event.pointerId);
      event.preventDefault();
      layer.focus();
    });
    layer.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const [dx, dy] = place(event).map((x, a) => x - grip.from[a]);
      const [left, top, right, bottom] = grip.box;
      if (grip.corner === null) this.moveBox([left + dx, top + dy, right + dx, bottom + dy]);
      else {
        // The opposite corner stays, and the box stays a square.
        const [sx, sy] = [[-1, -1], [1, -1], [1, 1], [-1, 1]][grip.corner];
        const side = Math.max(SMALLEST_BOX, right - left + (sx * dx + sy * dy) / 2);
        const [fx, fy] = [sx > 0 ? left : right, sy > 0 ? top : bottom];
        this.moveBox([Math.min(fx, fx + sx * side), Math.min(fy, fy + sy * side), Math.max(fx, fx + sx * side), Math.max(fy, fy + sy * side)]);
      }
    });
    for (const name of ["pointerup", "pointercancel"]) layer.addEventListener(name, () => (grip = null));
    layer.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const [left, top, right, bottom] = this.box;
      const step = (right - left) * 0.04;
      const moves = { ArrowLeft: [-1, 0, -1, 0], ArrowRight: [1, 0, 1, 0], ArrowUp: [0, -1, 0, -1], ArrowDown: [0, 1, 0, 1], "+": [-1, -1, 1, 1], "=": [-1, -1, 1, 1], "-": [1, 1, -1, -1] };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      event.stopPropagation();
      this.moveBox([left, top, right, bottom].map((x, i) => x + move[i] * step));
    });
    new ResizeObserver(() => this.box && this.#showBox()).observe(this.viewer.photoStage);
  }

  #listenToDrops() {
    const stage = this.viewer.photoStage;
    const over = (on) => (event) => {
      event.preventDefault();
      stage.classList.toggle("yf-dropping", on);
    };
    stage.addEventListener("dragenter", over(true));
    stage.addEventListener("dragover", over(true));
    stage.addEventListener("dragleave", over(false));
    stage.addEventListener("drop", (event) => {
      over(false)(event);
      const file = [...event.dataTransfer.files].find((each) => !each.type || each.type.startsWith("image/"));
      if (file) this.open(file);
      else this.say("That is not a picture file.");
    });
  }

  /* ---- the webcam ---- */

  async webcam() {
    if (this.stream) {
      this.stopWebcam();
      return;
    }
    try {
      await this.ready();
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "user" } });
    } catch (error) {
      this.say(`The webcam is not available: ${error.message}.`);
      return;
    }
    const video = node("video", { muted: true, playsinline: true });
    video.muted = true;
    video.srcObject = this.stream;
    await video.play();
    this.camera.textContent = "Stop the webcam";
    this.boxLayer.setAttribute("hidden", "");
    const canvas = node("canvas", { width: video.videoWidth, height: video.videoHeight });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const side = FIRST_BOX * canvas.height;
    const start = [(canvas.width - side) / 2, (canvas.height - side) / 2, (canvas.width + side) / 2, (canvas.height + side) / 2];
    this.box = start;
    while (this.stream) {
      context.drawImage(video, 0, 0);
      this.usePhoto(canvas);
      const before = performance.now();
      const answer = await this.network.reconstruct(this.pixels, this.box, { recrops: 0 });
      if (!this.stream) break;
      this.show(answer, performance.now() - before);
      this.say("Hold your face in the middle of the picture. Stopping keeps the last one, with its box.");
      // The next frame is cut around this prediction, as long as it still looks like one face in the picture.
      const [xs, ys] = [0, 1].map((a) => answer.landmarks.map((p) => p[a]));
      const next = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
      const size = (next[2] - next[0]) / side;
      const inside = next[0] > -side / 4 && next[1] > -side / 4 && next[2] < canvas.width + side / 4 && next[3] < canvas.height + side / 4;
      this.box = inside && size > 0.3 && size < 2 ? next : start;
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    this.moveBox(this.box);
  }

  stopWebcam() {
    if (!this.stream) return;
    for (const track of this.stream.getTracks()) track.stop();
    this.stream = null;
    this.camera.textContent = "Webcam";
  }
}
