/* A linear morphable model in the browser: unpack, compute, and draw it with WebGL.
 *
 * The face explorer and the figures of the losses begin with this text; the rest of the same module follows it.
 * Frames are those of twodasl_lite.geometry.camera: x right, y up, z towards the viewer.
 */

const DEGREE = Math.PI / 180;
const VIRIDIS = ["440154", "472D7B", "3B528B", "2C728E", "21918C", "28AE80", "5EC962", "ADDC30", "FDE725"].map((hex) =>
  [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)),
);

/* ------------------------------------------------------------------------------------------------- the packed model */

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function fromBase64(text) {
  const binary = atob(text.trim());
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

/** Sums of differences along each row, restored from two byte planes; modulo 2^16. */
function rows16(bytes, rows, columns) {
  const count = rows * columns;
  const out = new Int16Array(count);
  for (let r = 0, i = 0; r < rows; r++) {
    let sum = 0;
    for (let c = 0; c < columns; c++, i++) {
      sum = (sum + bytes[i] + (bytes[count + i] << 8)) & 0xffff;
      out[i] = sum;
    }
  }
  return out;
}

function rows32(bytes, rows, columns) {
  const count = rows * columns;
  const out = new Uint32Array(count);
  for (let r = 0, i = 0; r < rows; r++) {
    let sum = 0;
    for (let c = 0; c < columns; c++, i++) {
      const low = bytes[i] | (bytes[count + i] << 8) | (bytes[2 * count + i] << 16) | (bytes[3 * count + i] << 24);
      sum = (sum + low) | 0;
      out[i] = sum;
    }
  }
  return out;
}

async function unpackModel(header, compressed) {
  const bytes = await inflate(compressed);
  const section = {};
  let at = 0;
  for (const { name, bytes: length } of header.sections) {
    section[name] = bytes.subarray(at, at + length);
    at += length;
  }
  const V = header.numVertices;
  const T = header.numTriangles;
  const K = header.numShape + header.numExpression;

  const meanRows = rows16(section.mean, 3, V);
  const mean = new Float32Array(3 * V); // x0 y0 z0 x1 ...
  for (let axis = 0; axis < 3; axis++) {
    for (let v = 0; v < V; v++) mean[3 * v + axis] = meanRows[axis * V + v] * header.meanStep + header.offset[axis];
  }
  const basisRows = rows16(section.basis, 3 * K, V);
  const basis = [];
  for (let k = 0; k < K; k++) {
    const component = new Int16Array(3 * V);
    for (let axis = 0; axis < 3; axis++) {
      const row = basisRows.subarray((3 * k + axis) * V, (3 * k + axis + 1) * V);
      for (let v = 0; v < V; v++) component[3 * v + axis] = row[v];
    }
    basis.push(component);
  }
  const corners = rows32(section.triangles, 3, T);
  const triangles = new Uint32Array(3 * T);
  for (let corner = 0; corner < 3; corner++) {
    for (let t = 0; t < T; t++) triangles[3 * t + corner] = corners[corner * T + t];
  }
  let colours = null;
  if (section.colours) {
    colours = new Uint8Array(3 * V);
    for (let channel = 0; channel < 3; channel++) {
      let sum = 0;
      for (let v = 0; v < V; v++) {
        sum = (sum + section.colours[channel * V + v]) & 0xff;
        colours[3 * v + channel] = sum;
      }
    }
  }
  const albedo = []; // Int8Array(3V) per colour component
  for (let k = 0; k < header.numAlbedo; k++) {
    const component = new Int8Array(3 * V);
    for (let channel = 0; channel < 3; channel++) {
      const at = (3 * k + channel) * V;
      let sum = 0;
      for (let v = 0; v < V; v++) {
        sum = (sum + section.albedo[at + v]) & 0xff;
        component[3 * v + channel] = sum;
      }
    }
    albedo.push(component);
  }
  return { header, mean, basis, triangles, colours, albedo, V, T };
}

/** S = mean + sum_k coefficient_k component_k, into `out`. */
function decodeFace(model, coefficients, out) {
  out.set(model.mean);
  const length = out.length;
  for (let k = 0; k < coefficients.length; k++) {
    const weight = coefficients[k] * model.header.steps[k];
    if (weight === 0) continue;
    const component = model.basis[k];
    for (let i = 0; i < length; i++) out[i] += weight * component[i];
  }
  return out;
}

/** Average colours plus weighted colour components, clamped to 8 bits. */
function decodeColours(model, coefficients, out) {
  const sum = Float32Array.from(model.colours);
  coefficients.forEach((coefficient, k) => {
    const weight = 255 * model.header.albedoStep * coefficient;
    if (weight !== 0) model.albedo[k].forEach((change, i) => (sum[i] += weight * change));
  });
  new Uint8ClampedArray(out.buffer).set(sum);
}

/** Vertex normals: sum of the adjacent triangles' normals, weighted by area; not normalised (the shader does that). */
function vertexNormals(vertices, triangles, out) {
  out.fill(0);
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
    const nx = uy * vz - uz * vy;
    const ny = uz * vx - ux * vz;
    const nz = ux * vy - uy * vx;
    out[a] += nx;
    out[a + 1] += ny;
    out[a + 2] += nz;
    out[b] += nx;
    out[b + 1] += ny;
    out[b + 2] += nz;
    out[c] += nx;
    out[c + 1] += ny;
    out[c + 2] += nz;
  }
  return out;
}

/** R = Rx(pitch) Ry(yaw) Rz(roll), row-major; the signs of twodasl_lite.geometry.camera.euler_to_matrix. */
function rotationMatrix(angles) {
  const [cp, cy, cr] = angles.map((a) => Math.cos(a * DEGREE));
  const [sp, sy, sr] = angles.map((a) => Math.sin(a * DEGREE));
  return [
    [cy * cr, cy * sr, -sy],
    [-cp * sr + sp * sy * cr, cp * cr + sp * sy * sr, sp * cy],
    [sp * sr + cp * sy * cr, -sp * cr + cp * sy * sr, cp * cy],
  ];
}

function apply(matrix, x, y, z) {
  return matrix.map((row) => row[0] * x + row[1] * y + row[2] * z);
}

/* ------------------------------------------------------------------------------------------------------ the drawing */

const SURFACE_VERTEX = `#version 300 es
in vec3 position; in vec3 normal; in vec3 colour;
uniform mat3 rotation; uniform vec3 centre; uniform vec2 scale; uniform float depth; uniform float bias;
out vec3 vNormal; out vec3 vColour;
void main() {
  vec3 p = rotation * (position - centre);
  vNormal = rotation * normal; vColour = colour;
  gl_Position = vec4(p.xy * scale, -p.z * depth - bias, 1.0);
}`;
const SURFACE_FRAGMENT = `#version 300 es
precision highp float;
in vec3 vNormal; in vec3 vColour;
uniform int mode; uniform float gloss; uniform vec4 ink;
out vec4 result;
void main() {
  if (mode == 3) { result = vec4(ink.rgb * ink.a, ink.a); return; }
  vec3 n = normalize(vNormal) * (gl_FrontFacing ? 1.0 : -1.0);
  float inside = gl_FrontFacing ? 1.0 : 0.45;
  if (mode == 0) { result = vec4(vColour * inside, 1.0); return; }
  if (mode == 4) { result = vec4(vColour * inside * (0.72 + 0.28 * n.z), 1.0); return; } // a little shading, hardly any hue
  if (mode == 2) { result = vec4((n * 0.5 + 0.5) * inside, 1.0); return; }
  vec3 base = pow(vColour, vec3(2.2));
  vec3 key = normalize(vec3(-0.50, 0.62, 0.72)), fill = normalize(vec3(0.85, -0.05, 0.50));
  float k = dot(n, key);
  // As on skin, light that seeps past the terminator is redder than reflected light.
  vec3 wrap = mix(vec3(0.16), vec3(0.30, 0.17, 0.13), gloss);
  vec3 lit = vec3(0.98, 0.95, 0.90) * max((vec3(k) + wrap) / (1.0 + wrap), 0.0)
           + vec3(0.70, 0.82, 1.0) * 0.20 * max(dot(n, fill), 0.0)
           + vec3(0.125, 0.135, 0.155) * (0.70 + 0.30 * n.y);
  float highlight = pow(max(dot(n, normalize(key + vec3(0.0, 0.0, 1.0))), 0.0), 22.0) * mix(0.035, 0.075, gloss);
  highlight *= 0.2 + 0.8 * smoothstep(0.02, 0.25, dot(base, vec3(0.3, 0.5, 0.2))); // hair is matt
  float rim = pow(1.0 - clamp(n.z, 0.0, 1.0), 4.0) * 0.10;
  vec3 linear = (base * lit + highlight + rim * base) * inside;
  result = vec4(pow(clamp(linear, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}`;
const MARK_VERTEX = `#version 300 es
in vec3 clip; in vec3 colour; in vec3 shape;
out vec3 vColour; out vec3 vShape;
void main() { vColour = colour; vShape = shape; gl_Position = vec4(clip, 1.0); }`;
const MARK_FRAGMENT = `#version 300 es
precision highp float;
in vec3 vColour; in vec3 vShape; // shape.xy: position in units of the radius; shape.z: radius in pixels, negative for a line
uniform float opacity;
out vec4 result;
void main() {
  float radius = abs(vShape.z);
  float r = (vShape.z < 0.0 ? abs(vShape.y) : length(vShape.xy)) * radius;
  float alpha = clamp(radius - r, 0.0, 1.0) * opacity;
  if (alpha <= 0.0) discard;
  float rim = vShape.z < 0.0 ? 0.0 : smoothstep(radius - 2.4, radius - 1.4, r);
  result = vec4(mix(vColour, vec3(1.0), rim) * alpha, alpha);
}`;

function compile(gl, vertexSource, fragmentSource) {
  const program = gl.createProgram();
  for (const [type, source] of [
    [gl.VERTEX_SHADER, vertexSource],
    [gl.FRAGMENT_SHADER, fragmentSource],
  ]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) {
      throw new Error(gl.getShaderInfoLog(shader));
    }
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  const uniforms = {};
  const count = gl.getProgramParameter(program, gl.ACTIVE_UNIFORMS) || 0;
  for (let i = 0; i < count; i++) {
    const { name } = gl.getActiveUniform(program, i);
    uniforms[name] = gl.getUniformLocation(program, name);
  }
  return { program, uniforms };
}

function uniqueEdges(triangles, V) {
  const seen = new Set();
  const edges = [];
  for (let t = 0; t < triangles.length; t += 3) {
    for (let e = 0; e < 3; e++) {
      const a = triangles[t + e];
      const b = triangles[t + ((e + 1) % 3)];
      const key = a < b ? a * V + b : b * V + a;
      if (!seen.has(key)) {
        seen.add(key);
        edges.push(a, b);
      }
    }
  }
  return new Uint32Array(edges);
}

/** Everything WebGL: one context, the buffers of up to two faces, the landmarks on top. */
class Painter {
  constructor(canvas, model) {
    this.canvas = canvas;
    this.model = model;
    this.gl = canvas.getContext("webgl2", { alpha: true, antialias: true, premultipliedAlpha: true });
    if (!this.gl) throw new Error("this browser has no WebGL 2");
    this.#prepare();
  }

  #prepare() {
    const { gl, model } = this;
    this.surface = compile(gl, SURFACE_VERTEX, SURFACE_FRAGMENT);
    this.marks = compile(gl, MARK_VERTEX, MARK_FRAGMENT);
    this.triangleBuffer = this.#indices(model.triangles);
    this.edgeBuffer = null; // made when the wireframe is first shown
    this.markBuffer = gl.createBuffer();
    this.markArray = this.#vertexArray(this.marks.program, [
      ["clip", this.markBuffer, 3, gl.FLOAT, 36, 0],
      ["colour", this.markBuffer, 3, gl.FLOAT, 36, 12],
      ["shape", this.markBuffer, 3, gl.FLOAT, 36, 24],
    ]);
    this.faces = [];
  }

  restore() {
    this.#prepare();
  }

  #indices(values) {
    const { gl } = this;
    const buffer = gl.createBuffer();
    gl.bindVertexArray(null);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, values, gl.STATIC_DRAW);
    return buffer;
  }

  #vertexArray(program, attributes) {
    const { gl } = this;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    for (const [name, buffer, size, type, stride, offset] of attributes) {
      const location = gl.getAttribLocation(program, name);
      if (location < 0) continue;
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, size, type, type === gl.UNSIGNED_BYTE, stride, offset);
    }
    gl.bindVertexArray(null);
    return array;
  }

  upload(index, { vertices, normals, colours }) {
    const { gl } = this;
    if (!this.faces[index]) {
      const buffers = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
      const array = this.#vertexArray(this.surface.program, [
        ["position", buffers[0], 3, gl.FLOAT, 0, 0],
        ["normal", buffers[1], 3, gl.FLOAT, 0, 0],
        ["colour", buffers[2], 3, gl.UNSIGNED_BYTE, 0, 0],
      ]);
      this.faces[index] = { buffers, array };
    }
    [vertices, normals, colours].forEach((data, i) => {
      if (!data) return;
      gl.bindBuffer(gl.ARRAY_BUFFER, this.faces[index].buffers[i]);
      gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    });
  }

  clear() {
    const { gl } = this;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  }

  /** Draw face `index` into the part [left, left + width) of the canvas; sizes in device pixels. */
  draw(index, { left, width, height, rotation, centre, pixelsPerMm, radius, mode, gloss, wire, ink, landmarks, ratio }) {
    const { gl } = this;
    const { uniforms } = this.surface;
    gl.viewport(left, 0, width, height);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.disable(gl.BLEND);
    gl.useProgram(this.surface.program);
    gl.uniformMatrix3fv(uniforms.rotation, true, rotation.flat());
    gl.uniform3fv(uniforms.centre, centre);
    const scale = [(2 * pixelsPerMm) / width, (2 * pixelsPerMm) / height];
    const depth = 0.5 / radius;
    gl.uniform2fv(uniforms.scale, scale);
    gl.uniform1f(uniforms.depth, depth);
    gl.uniform1f(uniforms.bias, 0);
    gl.uniform1i(uniforms.mode, mode);
    gl.uniform1f(uniforms.gloss, gloss);
    gl.bindVertexArray(this.faces[index].array);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.triangleBuffer);
    gl.drawElements(gl.TRIANGLES, this.model.triangles.length, gl.UNSIGNED_INT, 0);

    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    if (wire) {
      if (!this.edgeBuffer) {
        this.edges = uniqueEdges(this.model.triangles, this.model.V);
        this.edgeBuffer = this.#indices(this.edges);
      }
      gl.bindVertexArray(this.faces[index].array);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.edgeBuffer);
      gl.uniform1i(uniforms.mode, 3);
      gl.uniform4fv(uniforms.ink, ink);
      gl.uniform1f(uniforms.bias, 0.6 * depth);
      gl.drawElements(gl.LINES, this.edges.length, gl.UNSIGNED_INT, 0);
    }
    if (landmarks) this.#drawMarks(landmarks, { rotation, centre, scale, depth, width, height, ratio });
    gl.bindVertexArray(null);
  }

  #drawMarks({ positions, groups }, { rotation, centre, scale, depth, width, height, ratio }) {
    const { gl } = this;
    const lift = 2.5; // mm towards the viewer, so that the skin does not cut a mark that lies on it
    const projected = [];
    for (let i = 0; i < positions.length; i += 3) {
      const [x, y, z] = apply(rotation, positions[i] - centre[0], positions[i + 1] - centre[1], positions[i + 2] - centre[2]);
      projected.push([x * scale[0], y * scale[1], -(z + lift) * depth]);
    }
    const data = [];
    const quad = (corners, colour) => {
      for (const i of [0, 1, 2, 0, 2, 3]) data.push(...corners[i][0], ...colour, ...corners[i][1]);
    };
    const size = Math.max(0.8, Math.min(1.25, width / ratio / 420)) * ratio;
    for (const { edges, rgb } of groups) {
      for (const [a, b] of edges) {
        const half = 1.5 * size;
        const dx = ((projected[b][0] - projected[a][0]) * width) / 2;
        const dy = ((projected[b][1] - projected[a][1]) * height) / 2;
        const length = Math.hypot(dx, dy) || 1;
        const nx = (((-dy / length) * half) * 2) / width;
        const ny = (((dx / length) * half) * 2) / height;
        const corner = (p, side) => [[p[0] + side * nx, p[1] + side * ny, p[2] + 1e-4], [0, side, -half]];
        quad([corner(projected[a], -1), corner(projected[b], -1), corner(projected[b], 1), corner(projected[a], 1)], rgb);
      }
    }
    for (const { points, rgb } of groups) {
      for (const p of points) {
        const radius = 4.6 * size;
        const corner = (sx, sy) => [
          [projected[p][0] + (sx * radius * 2) / width, projected[p][1] + (sy * radius * 2) / height, projected[p][2]],
          [sx, sy, radius],
        ];
        quad([corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)], rgb);
      }
    }
    gl.useProgram(this.marks.program);
    gl.bindVertexArray(this.markArray);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.markBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(data), gl.DYNAMIC_DRAW);
    gl.depthMask(false);
    gl.disable(gl.DEPTH_TEST); // marks behind the face show through faintly
    gl.uniform1f(this.marks.uniforms.opacity, 0.16);
    gl.drawArrays(gl.TRIANGLES, 0, data.length / 9);
    gl.enable(gl.DEPTH_TEST);
    gl.uniform1f(this.marks.uniforms.opacity, 1);
    gl.drawArrays(gl.TRIANGLES, 0, data.length / 9);
    gl.depthMask(true);
  }
}

function viridis(value, out, at) {
  const x = Math.min(1, Math.max(0, value)) * (VIRIDIS.length - 1);
  const low = Math.min(VIRIDIS.length - 2, Math.floor(x));
  for (let c = 0; c < 3; c++) out[at + c] = VIRIDIS[low][c] + (x - low) * (VIRIDIS[low + 1][c] - VIRIDIS[low][c]);
}

/** The next round number. */
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1e-6)));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((m) => m * power).find((x) => x >= value * 0.9999);
}
