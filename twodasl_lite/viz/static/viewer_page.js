/* The page of reconstructed faces: unpacks its data and shows the first face.
 *
 * The texts of face.js and viewer.js come first in the same script.
 */

async function startViewer() {
  const host = document.getElementById("face-viewer");
  const header = JSON.parse(document.getElementById("viewer-header").textContent);
  const bytes = await inflate(fromBase64(document.getElementById("viewer-data").textContent));
  const kinds = { u4: Uint32Array, i2: Int16Array, u1: Uint8Array };
  const arrays = {};
  let at = 0;
  for (const { name, kind, length } of header.list) {
    const size = length * kinds[kind].BYTES_PER_ELEMENT;
    arrays[name] = new kinds[kind](bytes.slice(at, at + size).buffer);
    at += size;
  }
  const viewer = new FaceViewer(host, header);
  const image = new Image();
  image.src = header.photo;
  await image.decode();
  const canvas = node("canvas", { width: image.naturalWidth, height: image.naturalHeight });
  canvas.getContext("2d").drawImage(image, 0, 0);
  viewer.setPhoto(canvas);
  const show = (number) => {
    const { pose, middle, step, angles } = header.faces[number];
    const points = Float32Array.from(arrays[`surface${number}`], (x, i) => middle[i % 3] + x * step);
    viewer.show({ points, pose, fill: arrays[`fill${number}`], triangles: arrays.triangles });
    const names = ["pitch", "yaw", "roll"];
    const text = angles.map((a, i) => `${names[i]} ${Math.round(a)}°`.replace("-", "−")).join(", ");
    viewer.note.textContent = `${text}. Drag the face to turn it.`;
  };
  if (header.faces.length > 1) {
    const choice = node("select", { "data-test-changes": `#${host.id}`, oninput: (event) => show(Number(event.target.value)) }, ...header.faces.map((_, i) => node("option", { value: i }, String(i + 1))));
    viewer.bar.prepend(node("label", {}, "Face", choice));
  }
  show(0);
  viewer.started = true;
}

startViewer().catch((error) => {
  document.getElementById("face-viewer").textContent = `This browser cannot show the page: ${error.message}.`;
});
