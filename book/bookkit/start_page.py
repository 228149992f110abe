"""The top of the start page: a head to change with three sliders, and a photograph that becomes a mesh.

Both are made by the package when the book is built: `make_head` packs three directions of the embedded face
model for the browser, which computes and draws them with the face explorer's own script (``viz/static/face.js``);
`make_strip` fits the model to the portrait of chapter 4 and draws the four steps from photograph to turned mesh.
"""

from __future__ import annotations

import hashlib
import html
import io
import json
from pathlib import Path

from bookkit.config import BUILD, PACKAGE, Chapter
from bookkit.dependencies import Package, module_digest, parse_cells

STATIC = BUILD / "static" / "start"  # becomes part of the site's _static
SCRIPT = Path(__file__).parent / "start_head.js"
# Weights of the blendshapes that make one friendly face.
SMILE = {
    "mouthSmile_L": 1.0,
    "mouthSmile_R": 1.0,
    "jawOpen": 0.14,
    "cheekRaiser": 0.5,
    "eyeSquint_L": 0.3,
    "eyeSquint_R": 0.3,
    "browOuterUp_L": 0.25,
    "browOuterUp_R": 0.25,
}
RAW = "`" * 8  # more backticks than any script has in a row
MAX_ERROR = 0.1  # in mm: a third of a pixel on the page
STILL_PIXELS = 560
TURN = -30.0  # degrees of yaw
INK = 0.42  # opacity of the mesh's edges
STRIP_PIXELS = 480
CARD = (24, 48)  # rows and columns of the card that shows the teeth
STRIP_FIELD = 1.75  # side of the strip's pictures divided by that of the landmarks' box
STEPS = (
    ("photo", "A photograph", "A portrait photograph of an astronaut, cropped to the head"),
    ("landmarks", "68 landmarks", "The same photograph with 68 landmarks on brows, eyes, nose, mouth and jaw"),
    ("mesh", "A mesh that fits", "The same photograph with the fitted triangle mesh over the face"),
    ("turned", "Turned to the side", "The fitted mesh with the photograph's colours, turned to the side"),
)


def start_html(first: Chapter | None) -> str:
    """The start page's first screen.

    Args:
        first: First chapter to read; without one there is no button.

    Returns:
        MyST Markdown. The pictures that it names are written to the site's static files.
    """
    made = _made()
    button = f'<a class="start-button" href="notebooks/{first.file}.html">Start</a>' if first else ""
    # The sentence is here and not in index.md because on a phone the head comes between it and the button.
    steps = "".join(
        f'<li><img src="_static/start/{name}.webp?{made["digest"]}" width="{STRIP_PIXELS}" height="{STRIP_PIXELS}" '
        f'alt="{html.escape(alt)}"><span>{title}</span></li>'
        for name, title, alt in STEPS
    )
    # Raw HTML, because an HTML block in Markdown ends at the first empty line, and scripts have some.
    return f"""{RAW}{{raw}} html
<div class="start">
<p class="start-sentence">Learn to recover a 3D face from a single photograph, and train the network that does it.</p>
<div class="start-actions">{button}<a class="start-more" href="#road-map">See the road map</a></div>
<div class="start-head" data-mounted="no">
<div class="start-view"><img src="_static/start/head.webp?{made["digest"]}" width="{STILL_PIXELS}"
 height="{STILL_PIXELS}" alt="A drawn head with short hair, turned a little to the side">
<canvas id="start-canvas" role="img" aria-label="A head that the three sliders turn and change"></canvas></div>
<div class="start-sliders">
{_slider("yaw", "Turn", -75, 75, 1, -25, "degrees")}
{_slider("shape", "Shape", -2.5, 2.5, 0.05, 0, "standard deviations")}
{_slider("smile", "Smile", 0, 1, 0.01, 0, "of a full smile")}
</div>
<script type="application/json" class="start-header">{made["header"]}</script>
<script type="text/plain" class="start-data">{made["data"]}</script>
<script type="module">
{(PACKAGE / "viz" / "static" / "face.js").read_text(encoding="utf-8")}
{SCRIPT.read_text(encoding="utf-8")}
</script>
</div>
<ol class="start-strip">{steps}</ol>
</div>
{RAW}"""


def _slider(name: str, label: str, low: float, high: float, step: float, value: float, unit: str) -> str:
    return (
        f'<label for="start-{name}">{label}</label><input type="range" id="start-{name}" min="{low}" max="{high}" '
        f'step="{step}" value="{value}" data-unit="{unit}" data-test-changes="#start-canvas">'
    )


def _made() -> dict[str, str]:
    """Head and strip, remade only when the code that makes them has changed."""
    digest = _digest()
    record = STATIC / "made.json"
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
        if made["digest"] == digest:
            return made
    except (OSError, ValueError, KeyError):
        pass
    STATIC.mkdir(parents=True, exist_ok=True)
    packed, still = make_head()
    for name, picture in {"head": still, **make_strip()}.items():
        (STATIC / f"{name}.webp").write_bytes(_webp(picture))
    header = json.dumps(packed.header, separators=(",", ":")).replace("<", "\\u003c")
    made = {"digest": digest, "header": header, "data": packed.to_base64()}
    record.write_text(json.dumps(made), encoding="utf-8")
    return made


def _digest() -> str:
    """A hash of this module and of everything that it reaches."""
    text = Path(__file__).read_text(encoding="utf-8")
    package = Package(PACKAGE, ("course",))
    modules = package.reached(parse_cells([text]))
    parts = [text, *(module_digest(package.modules[name].read_text(encoding="utf-8")) for name in sorted(modules))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _webp(picture) -> bytes:
    """An ``(H, W, 3)`` or ``(H, W, 4)`` uint8 picture as WebP."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=88, method=6)
    return buffer.getvalue()


# --- the head -------------------------------------------------------------------------------------


def make_head():
    """The head with two directions of change, packed, and a still picture of it.

    Returns:
        The packed model: its one shape component is the model's first, its one expression a smile; and an
        ``(H, W, 4)`` uint8 picture for readers without WebGL and for print.
    """
    import numpy as np
    import torch

    from twodasl_lite.faces import MorphableModel, load_face_model
    from twodasl_lite.geometry.camera import euler_to_matrix
    from twodasl_lite.render import Lamps, render
    from twodasl_lite.viz.packing import pack_model

    model = load_face_model()
    names = list(model.expression_names)
    known = {name: weight for name, weight in SMILE.items() if name in names}
    smile = sum(model.expression_basis[..., names.index(name)] * weight for name, weight in known.items())
    if not known:  # another model, whose expressions have no names
        smile = model.expression_basis[..., 0] * model.expression_std[0]
    colours = model.decode_albedo()[0] if model.albedo_mean is not None else torch.full_like(model.mean, 0.75)
    head = MorphableModel(
        model.mean,
        model.shape_basis[..., :1],
        smile[..., None],
        model.triangles,
        model.landmarks,
        shape_std=model.shape_std[:1],
        expression_names=["smile"],
        expression_kind="blendshapes",
        name=model.name,
    )
    packed = pack_model(head, max_error=MAX_ERROR, colours=colours.clamp(0, 1).numpy())

    # As the script draws it: the picture's lower edge hides the end of the neck.
    turn = euler_to_matrix(torch.deg2rad(torch.tensor([4.0, -25.0, 0.0])))
    low, high = model.mean.amin(dim=0), model.mean.amax(dim=0)
    scale = 1.14 * STILL_PIXELS / float(high[1] - low[1])
    centre = (low + high) / 2
    centre[1] = high[1] - 0.45 * STILL_PIXELS / scale
    points = (model.mean - centre) @ turn.T.to(model.mean)
    pixels = points * torch.tensor([scale, -scale, scale]) + torch.tensor([STILL_PIXELS / 2, STILL_PIXELS / 2, 0.0])
    light = Lamps(
        torch.tensor([0.24, 0.25, 0.28]),
        torch.tensor([[-0.5, 0.62, 0.72], [0.85, -0.05, 0.5]]),
        torch.tensor([[0.86, 0.83, 0.79], [0.12, 0.14, 0.17]]),
    )
    drawn = render(
        pixels[None], model.triangles, colours.clamp(0, 1), STILL_PIXELS, STILL_PIXELS, light=light, supersample=2
    )
    both = torch.cat([drawn.colour[0], drawn.alpha[0][..., None]], dim=-1)
    return packed, (both.clamp(0, 1).numpy() * 255).round().astype(np.uint8)


# --- the strip ------------------------------------------------------------------------------------


def make_strip() -> dict:
    """From a photograph to a turned mesh.

    Returns:
        Four uint8 pictures by the names of `STEPS`: three ``(S, S, 3)``, and the last ``(S, S, 4)``, transparent.
    """
    import cv2
    import numpy as np
    import torch

    from twodasl_lite.datasets.examples import astronaut
    from twodasl_lite.faces import load_face_model
    from twodasl_lite.faces.decode import decode
    from twodasl_lite.faces.fitting import fit_landmarks
    from twodasl_lite.faces.texture import face_triangles, photo_colours
    from twodasl_lite.geometry.coefficients import CoefficientLayout
    from twodasl_lite.geometry.landmarks import draw_landmarks

    model = load_face_model(CoefficientLayout())
    photo, landmarks, visible = astronaut()
    height = photo.shape[0]
    fit = fit_landmarks(landmarks[None], model, weights=visible.float(), height=height, noise=2.0)
    vertices = decode(fit.coefficients, model, height)[0].float()  # (V, 3)
    paint = photo_colours(photo, vertices, model)

    low, high = landmarks.amin(dim=0), landmarks.amax(dim=0)
    side = STRIP_FIELD * float((high - low).max())
    left, top = ((low + high) / 2 - side / 2 - torch.tensor([0.0, 0.06 * side])).tolist()
    scale = STRIP_PIXELS / side
    # Pixel centres are at integers, in the photo as in the crop.
    move = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
    crop = cv2.warpAffine(
        photo, move, (STRIP_PIXELS, STRIP_PIXELS), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
    )
    shift = torch.tensor(move[:, 2], dtype=vertices.dtype)
    placed = torch.cat([vertices[:, :2] * scale + shift, vertices[:, 2:] * scale], dim=1)
    triangles = face_triangles(model)
    marked = draw_landmarks(crop, landmarks * scale + shift)
    return {
        "photo": crop,
        "landmarks": marked,
        "mesh": _over_photo(crop, placed, triangles),
        "turned": _turned(*_with_teeth(placed, triangles, paint, model.landmarks, crop)),
    }


def _with_teeth(vertices, triangles, paint, landmarks, crop):
    """The mesh with a small card between the lips that shows the photo's content there: a smile with its teeth."""
    import torch

    from twodasl_lite.geometry.photos import sample_colours

    lips = vertices[landmarks[60:68]]  # the inner lips, (8, 3)
    low, high = lips.amin(dim=0), lips.amax(dim=0)
    margin = 0.12 * (high - low)[0]
    low, high = low - margin, high + margin
    rows, columns = CARD
    y = torch.linspace(float(low[1]), float(high[1]), rows)
    x = torch.linspace(float(low[0]), float(high[0]), columns)
    grid = torch.stack([x.expand(rows, columns), y[:, None].expand(rows, columns)], dim=-1).reshape(-1, 2)
    # Teeth follow the lips' curve: a depth that is quadratic in x and linear in y, a little behind them.
    design = lambda p: torch.stack([torch.ones(len(p)), p[:, 0], p[:, 0] ** 2, p[:, 1]], dim=1)  # noqa: E731
    centre, reach = (low + high)[:2] / 2, float((high - low)[0]) / 2
    depth = torch.linalg.lstsq(design((lips[:, :2] - centre) / reach), lips[:, 2:]).solution
    card = torch.cat([grid, design((grid - centre) / reach) @ depth - 0.12 * reach], dim=1)
    corner = (torch.arange(rows - 1)[:, None] * columns + torch.arange(columns - 1)).reshape(-1)
    faces = torch.cat(
        [
            torch.stack([corner, corner + columns, corner + 1], dim=1),
            torch.stack([corner + 1, corner + columns, corner + columns + 1], dim=1),
        ]
    )
    colours = sample_colours(crop, card).clamp(0, 1)
    both = torch.cat([triangles, faces + len(vertices)])
    return torch.cat([vertices, card]), both, torch.cat([paint, colours.to(paint)])


def _lamps():
    import torch

    from twodasl_lite.render import Lamps

    return Lamps(
        torch.tensor([0.30, 0.31, 0.34]),
        torch.tensor([[-0.45, 0.55, 0.75], [0.9, 0.0, 0.45]]),
        torch.tensor([[0.68, 0.66, 0.64], [0.16, 0.18, 0.20]]),
    )


def _over_photo(crop, vertices, triangles):
    """The surface and its edges over the photo."""
    import numpy as np
    import torch

    from twodasl_lite.render import Picture, over, render

    clay = torch.tensor([0.88, 0.93, 0.99]).expand(len(vertices), 3)
    drawn = render(vertices[None], triangles, clay, *crop.shape[:2], light=_lamps(), supersample=3, cull="back")
    photo = torch.from_numpy(crop.copy()).float()[None] / 255
    mixed = over(Picture(drawn.colour, drawn.alpha * 0.9), photo)[0]
    lines = _edges(vertices, triangles, *crop.shape[:2])[..., None]
    mixed = mixed * (1 - INK * lines) + lines * INK * torch.tensor([0.02, 0.18, 0.36])
    return (mixed.clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def _edges(vertices, triangles, height: int, width: int, fine: int = 4):
    """The fraction of each pixel that the visible triangles' edges cover, ``(H, W)``."""
    import torch

    from twodasl_lite.render import rasterize, refine

    fragments = rasterize(refine(vertices[None], fine), triangles, height * fine, width * fine, cull="back")
    # The distance from an edge is the opposite corner's weight times that corner's height above the edge.
    corners = refine(vertices[None], fine)[0, triangles]  # (T, 3, 3)
    first, second, third = corners[..., :2].unbind(dim=1)
    area = ((second - first)[:, 0] * (third - first)[:, 1] - (second - first)[:, 1] * (third - first)[:, 0]).abs()
    sides = torch.stack([(third - second).norm(dim=1), (first - third).norm(dim=1), (second - first).norm(dim=1)], 1)
    heights = area[:, None] / sides.clamp(min=1e-6)  # (T, 3)
    distance = (fragments.barycentric[0] * heights[fragments.triangle[0].clamp(min=0)]).amin(dim=-1)
    near = ((distance < 0.28 * fine) & fragments.covered[0]).float()
    return torch.nn.functional.avg_pool2d(near[None, None], fine)[0, 0]


def _turned(vertices, triangles, paint):
    """The mesh with the photo's colours, seen from the side, on a transparent background."""
    import numpy as np
    import torch

    from twodasl_lite.geometry.camera import euler_to_matrix
    from twodasl_lite.render import render

    used = vertices[triangles.unique()]
    middle = (used.amax(dim=0) + used.amin(dim=0)) / 2
    upright = torch.tensor([1.0, -1.0, 1.0])
    turn = euler_to_matrix(torch.deg2rad(torch.tensor([2.0, TURN, 0.0])))
    moved = ((vertices - middle) * upright) @ turn.T * upright
    seen = moved[triangles.unique()]
    centre = (seen.amax(dim=0) + seen.amin(dim=0)) / 2
    grow = 0.86 * STRIP_PIXELS / float((seen.amax(dim=0) - seen.amin(dim=0))[:2].max())
    placed = (moved - centre) * grow + torch.tensor([STRIP_PIXELS / 2, STRIP_PIXELS / 2, 0.0])
    drawn = render(placed[None], triangles, paint, STRIP_PIXELS, STRIP_PIXELS, supersample=3, cull="none")
    both = torch.cat([drawn.colour[0], drawn.alpha[0][..., None]], dim=-1)
    return (both.clamp(0, 1).numpy() * 255).round().astype(np.uint8)
