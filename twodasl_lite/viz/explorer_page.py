"""The face explorer as an HTML fragment that needs no kernel, no network and no other script.

The HTML holds the packed model, the script that computes and draws it, and a still picture for print, for readers
without JavaScript, and until the script has started. :mod:`twodasl_lite.viz.explorer` adds the live notebook version.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import ShapeError, ValueRangeError, require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import euler_to_matrix
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.viz.packing import DEFAULT_MAX_ERROR, PackedModel, pack_model

SCRIPTS = tuple(Path(__file__).parent / "static" / name for name in ("face.js", "explorer.js"))
COLOURINGS = ("skin", "clay", "normals", "pncc", "distance", "difference")
_STILL_PIXELS = 640


@lru_cache(maxsize=1)
def script_source() -> str:
    """Source of the explorer, read once."""
    return "\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS)


# ------------------------------------------------------------------------------------------------------------ settings
def check_coefficients(name: str, value: Sequence[float] | torch.Tensor | None, length: int) -> list[float]:
    """A checked list of exactly ``length`` numbers; shorter input is padded with zeros."""
    if value is None:
        return [0.0] * length
    numbers = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) > length:
        raise ShapeError(f"{name}: found shape {numbers.shape}; expected up to {length} numbers")
    if not np.isfinite(numbers).all():
        raise ValueRangeError(f"{name}: found NaN or infinity; expected finite numbers")
    return [float(x) for x in numbers] + [0.0] * (length - len(numbers))


def check_colouring(colouring: str, packed: PackedModel, two_faces: bool) -> str:
    """The colouring, if it is valid for the model and the number of faces."""
    check_choice("colouring", colouring, COLOURINGS)
    if colouring == "skin" and not packed.header["hasColours"]:
        raise ValueRangeError("colouring: found 'skin' for a model without colours; expected another colouring")
    if colouring == "difference" and not two_faces:
        raise ValueRangeError("colouring: found 'difference' for one face; expected two_faces=True")
    return colouring


def _options(packed: PackedModel, **given) -> dict:
    """Checked initial settings under the names of the traits."""
    ks, ke = packed.header["numShape"], packed.header["numExpression"]
    colouring = given["colouring"] or ("skin" if packed.header["hasColours"] else "clay")
    return {
        "shape": check_coefficients("shape", given["shape"], ks),
        "expression": check_coefficients("expression", given["expression"], ke),
        "second_shape": check_coefficients("second_shape", given["second_shape"], ks),
        "second_expression": check_coefficients("second_expression", given["second_expression"], ke),
        "albedo": check_coefficients("albedo", given["albedo"], packed.header["numAlbedo"]),
        "second_albedo": check_coefficients("second_albedo", given["second_albedo"], packed.header["numAlbedo"]),
        "angles": check_coefficients("angles", given["angles"], 3),
        "two_faces": bool(given["two_faces"]),
        "landmarks": bool(given["landmarks"]),
        "wireframe": bool(given["wireframe"]),
        "colouring": check_colouring(colouring, packed, bool(given["two_faces"])),
    }


def prepare(
    model: MorphableModel,
    *,
    num_shape: int | None = 12,
    num_expression: int | None = None,
    region: str | Sequence[str] | None = None,
    max_error: float = DEFAULT_MAX_ERROR,
    colours: np.ndarray | torch.Tensor | None = None,
    layout: CoefficientLayout | None = None,
    shape=None,
    expression=None,
    angles=None,
    albedo=None,
    second_shape=None,
    second_expression=None,
    second_albedo=None,
    two_faces: bool = False,
    colouring: str | None = None,
    landmarks: bool = False,
    wireframe: bool = False,
) -> tuple[PackedModel, dict]:
    """Pack the model and check the settings."""
    if isinstance(colours, torch.Tensor):
        colours = colours.detach().cpu().numpy()
    packed = pack_model(
        model, num_shape, num_expression, region=region, max_error=max_error, colours=colours, layout=layout
    )
    options = _options(
        packed,
        shape=shape,
        expression=expression,
        angles=angles,
        albedo=albedo,
        second_shape=second_shape,
        second_expression=second_expression,
        second_albedo=second_albedo,
        two_faces=two_faces,
        colouring=colouring,
        landmarks=landmarks,
        wireframe=wireframe,
    )
    return packed, options


# --------------------------------------------------------------------------------------------------- the still picture
def _portrait(packed: PackedModel, options: dict) -> bytes:
    """PNG of the explorer's first state, for print."""
    require("matplotlib", "book", "the explorer's still picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from twodasl_lite.viz.figures import draw_landmarks, shaded_mesh
    from twodasl_lite.viz.shading import visible_vertices

    faces = [(options["shape"], options["expression"])]
    if options["two_faces"]:
        faces.append((options["second_shape"], options["second_expression"]))
    pixels = _STILL_PIXELS
    figure = Figure(figsize=(len(faces) * pixels / 100, pixels / 100), dpi=100)
    FigureCanvasAgg(figure)
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor(options["angles"], dtype=torch.float64))).numpy()
    triangles = packed.triangles
    vertices = [packed.decode(np.asarray(shape), np.asarray(expression)) for shape, expression in faces]
    turned = [points @ rotation.T for points in vertices]
    low, high = np.min(turned, axis=(0, 1)), np.max(turned, axis=(0, 1))
    middle, half = (low + high) / 2, 0.53 * float((high - low)[:2].max())
    for position, paint in enumerate(_still_colours(packed, options, vertices, turned)):
        axes = figure.add_axes((position / len(faces), 0, 1 / len(faces), 1))
        lit = options["colouring"] in ("skin", "clay")
        shaded_mesh(axes, turned[position], triangles, paint, lit=lit)
        if options["landmarks"]:
            marks = packed.header["landmarks"]
            seen = visible_vertices(turned[position], triangles, marks)
            draw_landmarks(axes, turned[position][marks], visible=seen)
        axes.set_xlim(middle[0] - half, middle[0] + half)
        axes.set_ylim(middle[1] - half, middle[1] + half)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _still_colours(
    packed: PackedModel, options: dict, vertices: list[np.ndarray], turned: list[np.ndarray]
) -> list[np.ndarray | None]:
    """Vertex colours of each face in the still picture, the same as the script's."""
    from twodasl_lite.viz.figures import colour_by
    from twodasl_lite.viz.shading import vertex_normals

    colouring = options["colouring"]
    if colouring == "skin":
        both = [packed.decode_colours(np.asarray(options[name])) for name in ("albedo", "second_albedo")]
        return both[: len(vertices)]
    if colouring == "clay":
        return [None] * len(vertices)
    if colouring == "normals":
        return [vertex_normals(points, packed.triangles) / 2 + 0.5 for points in turned]
    mean = packed.decode(np.zeros(0), np.zeros(0))
    if colouring == "pncc":
        low, high = mean.min(axis=0), mean.max(axis=0)
        return [(mean - low) / (high - low)] * len(vertices)
    others = vertices[::-1] if colouring == "difference" else [mean] * len(vertices)
    distances = [np.linalg.norm(a - b, axis=1) for a, b in zip(vertices, others, strict=True)]
    largest = max(float(np.max(distances)), 1.0)
    return [colour_by(distance, vmax=largest)[0] for distance in distances]


def _webp(png: bytes) -> bytes:
    """The same picture as a file of a tenth of the size, for the page."""
    from PIL import Image  # matplotlib, which drew the picture, depends on it too

    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).save(buffer, "WEBP", quality=86, method=4)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------------ the page
def _javascript_options(options: dict) -> dict:
    """Convert Python's trait names to the script's."""
    renamed = {
        "second_shape": "secondShape",
        "second_expression": "secondExpression",
        "second_albedo": "secondAlbedo",
        "two_faces": "twoFaces",
    }
    return {renamed.get(name, name): value for name, value in options.items()}


def _json_for_script(value: object) -> str:
    """JSON that is safe inside a script element: nothing in it looks like a tag."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _figure_html(packed: PackedModel, options: dict, png: bytes, alt: str) -> str:
    header = _json_for_script({"header": packed.header, "options": _javascript_options(options)})
    picture = base64.b64encode(_webp(png)).decode("ascii")
    return (
        '<div class="face-explorer-figure">\n'
        f'<img class="fx-fallback dark-light" style="max-width:100%" alt="{html.escape(alt)}" '
        f'src="data:image/webp;base64,{picture}">\n'
        f'<script type="application/json" class="fx-header">{header}</script>\n'
        f'<script type="text/plain" class="fx-data">{packed.to_base64()}</script>\n'
        f'<script type="module">\n{script_source()}\nmountStatic();\n</script>\n'
        "</div>\n"
    )


class StaticExplorer:
    """A face explorer for pages only: self-contained HTML, and a picture for print.

    Attributes:
        html: Self-contained HTML fragment.
        png: Still picture.
        packed: Packed model.
    """

    def __init__(self, html: str, png: bytes, packed: PackedModel) -> None:
        self.html, self.png, self.packed = html, png, packed

    def _repr_mimebundle_(self, **_kwargs) -> dict:
        return {
            "text/html": self.html,
            "image/png": base64.b64encode(self.png).decode("ascii"),
            "text/plain": f"Face explorer of {self.packed.header['name']}",
        }

    def save(self, path: str | os.PathLike[str], title: str = "Face explorer") -> None:
        """Write a complete page that can be opened, sent or hosted on its own."""
        page = (
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1"></head>\n'
            f"<body>\n{self.html}</body>\n</html>\n"
        )
        with whole_file(path) as file:
            file.write(page.encode())


def make_static(packed: PackedModel, options: dict) -> StaticExplorer:
    """Draw the still picture and write the HTML."""
    png = _portrait(packed, options)
    alt = f"Shaded picture of {packed.header['name']}: the first state of an interactive face with sliders"
    return StaticExplorer(_figure_html(packed, options, png, alt), png, packed)


def face_explorer_html(model: MorphableModel, **settings) -> StaticExplorer:
    """The explorer as an HTML fragment, without a widget.

    Args:
        model: The face model.
        **settings: Arguments of :class:`FaceExplorer`.

    Returns:
        An object that a notebook displays; its ``html`` can be put into any page, and ``save`` writes a complete page.
    """
    packed, options = prepare(model, **settings)
    return make_static(packed, options)
