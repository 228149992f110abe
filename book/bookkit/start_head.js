/* The head on the start page: three sliders, and a pointer that turns it. The text of the package's face.js comes first.
 *
 * The page holds a header, the packed model and a still picture, which stays where there is no WebGL, and for print.
 */

const START_FILL = 1.14; // the average head's height over the view's: the edge hides the end of the neck
const START_TOP = 0.45; // where the top of the head is, above the middle
const START_PITCH = 4;
const START_DEGREES_PER_PIXEL = 0.5;

async function startHead(figure) {
  const header = JSON.parse(figure.querySelector(".start-header").textContent);
  const model = await unpackModel(header, fromBase64(figure.querySelector(".start-data").textContent));
  const canvas = figure.querySelector("canvas");
  const view = figure.querySelector(".start-view");
  const painter = new Painter(canvas, model);
  const vertices = new Float32Array(3 * model.V);
  const normals = new Float32Array(3 * model.V);
  const range = [0, 1, 2].map((axis) => {
    let [low, high] = [Infinity, -Infinity];
    for (let i = axis; i < model.mean.length; i += 3) {
      low = Math.min(low, model.mean[i]);
      high = Math.max(high, model.mean[i]);
    }
    return [low, high];
  });
  const centre = range.map(([low, high]) => (low + high) / 2);
  const tall = range[1][1] - range[1][0];
  centre[1] = range[1][1] - (START_TOP * tall) / START_FILL;
  const radius = Math.hypot(...range.map(([low, high]) => high - low));
  const inputs = Object.fromEntries(["yaw", "shape", "smile"].map((name) => [name, figure.querySelector(`#start-${name}`)]));
  const value = (name) => Number(inputs[name].value);
  let pitch = START_PITCH;
  let stale = true;
  let waiting = false;

  function recompute() {
    if (!stale) return;
    decodeFace(model, [value("shape"), value("smile")], vertices);
    vertexNormals(vertices, model.triangles, normals);
    painter.upload(0, { vertices, normals, colours: model.colours });
    stale = false;
  }

  function draw() {
    waiting = false;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const size = Math.max(1, Math.round(view.clientWidth * ratio));
    if (canvas.width !== size || canvas.height !== size) canvas.width = canvas.height = size;
    recompute();
    painter.clear();
    painter.draw(0, {
      left: 0,
      width: size,
      height: size,
      rotation: rotationMatrix([pitch, value("yaw"), 0]),
      centre,
      pixelsPerMm: (START_FILL * size) / tall,
      radius,
      mode: 1,
      gloss: 1,
      wire: false,
      ink: [0, 0, 0, 0],
      landmarks: null,
      ratio,
    });
  }

  const redraw = () => {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };

  const say = (input) => {
    const shown = Number(input.value);
    const text = input.dataset.unit === "of a full smile" ? `${Math.round(100 * shown)} percent` : `${shown} ${input.dataset.unit}`;
    input.setAttribute("aria-valuetext", text);
  };
  for (const [name, input] of Object.entries(inputs)) {
    say(input);
    input.addEventListener("input", () => {
      stale ||= name !== "yaw";
      say(input);
      redraw();
    });
  }

  let last = null;
  view.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    last = [event.clientX, event.clientY];
    view.setPointerCapture(event.pointerId);
  });
  view.addEventListener("pointermove", (event) => {
    if (!last) return;
    const [dx, dy] = [event.clientX - last[0], event.clientY - last[1]];
    last = [event.clientX, event.clientY];
    // The nose follows the pointer: a positive yaw moves it to the left.
    inputs.yaw.value = value("yaw") - dx * START_DEGREES_PER_PIXEL;
    pitch = Math.max(-40, Math.min(40, pitch - dy * START_DEGREES_PER_PIXEL));
    say(inputs.yaw);
    redraw();
  });
  for (const name of ["pointerup", "pointercancel"]) view.addEventListener(name, () => (last = null));

  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => {
    painter.restore();
    stale = true;
    redraw();
  });
  new ResizeObserver(redraw).observe(view);
  canvas.bookState = () => {
    recompute();
    let sum = 0;
    for (let i = 0; i < vertices.length; i++) sum += vertices[i] * (1 + (i % 7));
    return { sum: sum.toFixed(3), yaw: value("yaw"), pitch };
  };
  draw();
  figure.dataset.mounted = "yes";
}

for (const figure of document.querySelectorAll('.start-head[data-mounted="no"]')) {
  figure.dataset.mounted = "loading";
  startHead(figure).catch((error) => {
    figure.dataset.mounted = "failed"; // the still picture stays
    console.error(error);
  });
}
