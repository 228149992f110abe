"""Scripts for the page "Your own face": network, face model, runtime and sample pictures.

A page opened from disk may load scripts, and nothing else. So the network (ONNX), the face model and onnxruntime-web's
WebAssembly are compressed, written as text inside scripts, and loaded when the reader has chosen a picture. The network
is the one that :func:`twodasl_lite.networks.trained.trained_regressor` returns, and the face model is the package's.
Explained in the chapter "What it is good for".
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch

from bookkit import assets
from bookkit.config import PACKAGE
from twodasl_lite.base.errors import MissingDependencyError
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.texture import mirrored_vertices
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import GAUSSIAN_SIGMA, SUBSET_18
from twodasl_lite.networks import TrainedRegressor, export_onnx
from twodasl_lite.networks.trained import trained_regressor
from twodasl_lite.render import linear_to_srgb, rasterize, srgb_to_linear, vertex_normals
from twodasl_lite.viz.packing import pack_model
from twodasl_lite.viz.viewer import drawn_triangles
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.lighting import draw_lights, shade_vertices
from twodasl_lite.worlds.synthetic import average_colours, draw_coefficients
from twodasl_lite.worlds.wardrobe import Look, Wardrobe
from twodasl_lite.worlds.world import load_world

FOLDER = "your_face"
RUNTIME = "onnxruntime-web"
SCRIPTS = tuple(PACKAGE / "viz" / "static" / name for name in ("face.js", "viewer.js", "your_face.js"))
MAX_ERROR = 0.1
"""Precision of the face model in mm; the landmarks, which are fed back to the network, are not rounded."""
LOOKS, RECROPS, STAYS = 2, 3, 0.02
"""As in the package: looks at a crop, largest number of new crops, and smallest move that counts, in crop widths."""
DEMOS = ((2, "A drawn face, from the front"), (3, "A drawn face, from below"), (12, "A drawn face, from the side"))
"""Numbers of pictures in the world below, chosen because they look different."""
_DEMO_SEED = 20
_DEMO_SIDE, _DEMO_FACE, _FINE = 360, 2, 2  # pixels; pixels per pixel of the crop; subpixels
_GAUSSIAN_REACH = 12.0  # reach of landmarks.landmark_map, in sigmas
_LEVEL = 9
_ORGANS = ("eyeball", "iris", "pupil", "teeth")


def prepare() -> bool:
    """Write the scripts into the static folder of the site, except those that are there and up to date.

    Returns:
        Whether the page can run the network; if not, the page says why, and a warning has been printed.
    """
    folder = assets.STATIC / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    trained = trained_regressor()
    model = load_face_model(CoefficientLayout(*trained.metadata["layout"]))
    runtime = assets.cached_folder(RUNTIME)
    missing = "" if runtime else "this copy of the book was built without onnxruntime-web, which runs the network"
    key = _key(trained, runtime)
    wanted = ["app.js", "page.js", "model.js", *([] if missing else ["network.js", "runtime.js"])]
    stamp = folder / "made_from.txt"
    if stamp.exists() and stamp.read_text() == key and all((folder / name).exists() for name in wanted):
        return not missing
    stamp.unlink(missing_ok=True)
    parts: dict[str, dict] = {"model": model_part(model)}
    if runtime:
        try:
            parts["network"] = network_part(trained)
        except MissingDependencyError as error:
            missing = "this copy of the book was built without the package onnx, which writes the network"
            print(f"WARNING: the page {FOLDER} cannot run the network: {error}", file=sys.stderr, flush=True)
        else:
            parts["runtime"] = runtime_part(runtime)
    header = json.loads(json.dumps(parts["model"]["header"]))
    parts["page"] = {
        "landmarks": header["landmarks"],
        "landmarkGroups": header["landmarkGroups"],
        "demos": demo_pictures(model),
        "missing": missing,
    }
    for path in folder.glob("*.js"):
        path.unlink()
    for name, part in parts.items():
        text = json.dumps(part, separators=(",", ":"))
        script = f'(window.twodaslFace ||= {{}})["{name}"] = {text};\n'
        (folder / f"{name}.js").write_text(script, encoding="utf-8")
    (folder / "app.js").write_text(app_script(), encoding="utf-8")
    stamp.write_text(key)
    return not missing


def _key(trained: TrainedRegressor, runtime: Path | None) -> str:
    """A digest that changes with every input of the scripts."""
    digest = hashlib.sha256(repr(runtime).encode())
    for tensor in trained.network.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    for path in sorted([*PACKAGE.rglob("*.py"), *SCRIPTS, Path(__file__)]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def app_script() -> str:
    """The page's own program as one classic script: a module cannot be loaded from disk."""
    body = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    start = (
        'const host = document.getElementById("your-face");\n'
        'if (host) new YourFace(host, new URL(".", document.currentScript.src).href).start();\n'
    )
    return f'(() => {{\n"use strict";\n{body}\n{start}}})();\n'


def _packed(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, _LEVEL)).decode("ascii")


def model_part(model: MorphableModel) -> dict:
    """The face model for the browser: packed, with the landmarks in full precision.

    Args:
        model: Face model in the network's layout.
    """
    packed = pack_model(model, None, None, max_error=MAX_ERROR)
    at = model.landmarks
    basis = torch.cat([model.shape_basis[at], model.expression_basis[at]], dim=-1)  # (68, 3, K)
    organ = torch.zeros(model.num_vertices, dtype=torch.uint8)
    for name, index in model.regions.items():
        if name.startswith(_ORGANS):
            organ[index] = 1
        elif name.startswith("nostril"):
            organ[index] = 2
    skin = torch.ones_like(organ) if "face" not in model.regions else torch.zeros_like(organ)
    skin[model.regions.get("face", torch.zeros(0, dtype=torch.long))] = 1
    arrays = [
        ("landmarkMean", "f4", model.mean[at]),
        ("landmarkBasis", "f4", basis),
        ("faceTriangles", "u4", drawn_triangles(model)),
        ("mirror", "u4", mirrored_vertices(model, torch.arange(model.num_vertices))),
        ("organ", "u1", organ),
        ("skin", "u1", skin),
    ]
    content = b"".join(
        np.ascontiguousarray(values.detach().cpu().numpy()).astype(f"<{kind}").tobytes() for _, kind, values in arrays
    )
    entries = [{"name": name, "kind": kind, "length": values.numel()} for name, kind, values in arrays]
    return {"header": packed.header, "data": packed.to_base64(), "list": entries, "arrays": _packed(content)}


def network_part(trained: TrainedRegressor) -> dict:
    """The network as ONNX, from pictures to raw coefficients, and the settings for its use.

    Raises:
        MissingDependencyError: If the package onnx is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        export_onnx(trained.network, path, whitening=trained.whitening)
        content = path.read_bytes()
    settings = {
        "mapKind": trained.metadata["map_kind"],
        "sigma": GAUSSIAN_SIGMA,
        "reach": _GAUSSIAN_REACH,
        "subset": [list(members) for members in SUBSET_18],
        "looks": LOOKS,
        "recrops": RECROPS,
        "stays": STAYS,
        "pose": trained.metadata.get("pose", "free"),
    }
    return {"onnx": _packed(content), "settings": settings}


def runtime_part(folder: Path) -> dict:
    """The script and the single-threaded WebAssembly of onnxruntime-web."""
    script = (folder / "ort.wasm.bundle.min.mjs").read_bytes()
    binary = (folder / "ort-wasm-simd-threaded.wasm").read_bytes()
    return {"licence": f"{RUNTIME}: MIT, Microsoft Corporation", "script": _packed(script), "wasm": _packed(binary)}


@torch.no_grad()
def demo_pictures(model: MorphableModel, numbers=DEMOS) -> list[dict]:
    """Sample pictures, drawn like those of the world "labelled", but larger and with some room around the face.

    Returns:
        Title, WebP as a data URL, and box around the face, for each picture.
    """
    from PIL import Image

    world = load_world("labelled")
    draws = Draws(_DEMO_SEED, torch.tensor([number for number, _ in numbers]))
    coefficients, _ = draw_coefficients(model, world, draws)
    room = (_DEMO_SIDE - _DEMO_FACE * CROP_SIZE) / 2
    shift = torch.tensor([room, room, 0.0])
    vertices = _larger(decode(coefficients.pack(), model).float()) + shift
    landmarks = _larger(decode_landmarks(coefficients.pack(), model).float()) + shift
    scale = model.albedo_std * world.person.albedo_scale
    albedo = model.decode_albedo(draws.normal("albedo", len(scale), clip=world.person.clip).to(model.mean) * scale)
    look = Look(vertices, srgb_to_linear(albedo.float().clamp(0, 1)), torch.ones_like(vertices[..., 0]))
    look = Wardrobe(model).dress(draws, world, coefficients.pose[..., :3].float(), look)
    lights = draw_lights(draws, world.lighting)
    normals = vertex_normals(look.vertices, model.triangles)
    colour = shade_vertices(lights, normals, look.albedo, look.gloss, None)
    size = _DEMO_SIDE * _FINE
    fragments = rasterize((look.vertices + 0.5) * _FINE - 0.5, model.triangles, size, size)
    face, alpha = average_colours(colour, model.triangles, fragments, _FINE)
    tint = torch.tensor([0.46, 0.52, 0.58])[:, None, None] + torch.linspace(0.12, -0.12, _DEMO_SIDE)[:, None]
    pictures = linear_to_srgb(face + (1 - alpha) * srgb_to_linear(tint.expand(3, -1, _DEMO_SIDE)))
    found = []
    for (_, title), picture, points in zip(numbers, pictures, landmarks, strict=True):
        buffer = io.BytesIO()
        pixels = (picture.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=90, method=6)
        source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        box = [*points[:, :2].amin(dim=0).tolist(), *points[:, :2].amax(dim=0).tolist()]
        found.append({"title": title, "source": source, "box": [round(x, 1) for x in box]})
    return found


def _larger(points: torch.Tensor) -> torch.Tensor:
    """Convert points from pixels of the crop to pixels of a larger picture."""
    return torch.cat([(points[..., :2] + 0.5) * _DEMO_FACE - 0.5, points[..., 2:] * _DEMO_FACE], dim=-1)
