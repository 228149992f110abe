"""The face explorer: sliders for pose, shape and expression, live with and without a kernel.

One script (``static/explorer.js``) computes and draws the linear model in the browser. It lives in three situations:

* **a running notebook**: :class:`FaceExplorer` is an anywidget; ``explorer.shape``, ``explorer.expression`` and
  ``explorer.angles`` follow the sliders, and the sliders follow them;
* **a static page**: the same object also carries a self-contained piece of HTML with script and packed model, which
  needs no kernel, no network and no other script;
* **print**: that HTML, and a ``image/png`` beside it, hold a still picture.

A saved notebook offers both the widget and the HTML. A program that builds static pages should take the HTML (in
MyST-NB: ``nb_mime_priority_overrides = [("html", "text/html", 0)]``); with the environment variable
``TWODASL_FIGURES=static`` only the HTML is made, and the page carries no widget state. Explained in chapter 1.
"""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.camera import euler_to_matrix, make_pose
from twodasl_lite.coefficients import Coefficients
from twodasl_lite.errors import ShapeError, ValueRangeError, require
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.viz.packing import DEFAULT_MAX_ERROR, PackedModel, pack_model

traitlets = require("traitlets", "book", "the face explorer")
anywidget = require("anywidget", "book", "the face explorer")

SCRIPT = Path(__file__).parent / "static" / "explorer.js"
COLOURINGS = ("skin", "clay", "normals", "pncc", "distance", "difference")
_STATIC_VARIABLE = "TWODASL_FIGURES"
_FALLBACK_PIXELS = 640


def _static_only() -> bool:
    """Whether figures are being made for pages alone."""
    return os.environ.get(_STATIC_VARIABLE, "").lower() == "static"


@lru_cache(maxsize=1)
def _script() -> str:
    """The explorer's source; read once."""
    return SCRIPT.read_text(encoding="utf-8")


def _coefficients(name: str, value: Sequence[float] | torch.Tensor | None, length: int) -> list[float]:
    """A checked list of exactly ``length`` numbers; shorter input is filled up with zeros."""
    if value is None:
        return [0.0] * length
    numbers = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) > length:
        raise ShapeError(f"{name}: found shape {numbers.shape}; expected up to {length} numbers")
    if not np.isfinite(numbers).all():
        raise ValueRangeError(f"{name}: found NaN or infinity; expected finite numbers")
    return [float(x) for x in numbers] + [0.0] * (length - len(numbers))


def _options(packed: PackedModel, **given) -> dict:
    """Checked initial settings, named as the traits are."""
    ks, ke = packed.header["numShape"], packed.header["numExpression"]
    colouring = given["colouring"] or ("skin" if packed.header["hasColours"] else "clay")
    return {
        "shape": _coefficients("shape", given["shape"], ks),
        "expression": _coefficients("expression", given["expression"], ke),
        "second_shape": _coefficients("second_shape", given["second_shape"], ks),
        "second_expression": _coefficients("second_expression", given["second_expression"], ke),
        "angles": _coefficients("angles", given["angles"], 3),
        "two_faces": bool(given["two_faces"]),
        "landmarks": bool(given["landmarks"]),
        "wireframe": bool(given["wireframe"]),
        "colouring": _check_colouring(colouring, packed, bool(given["two_faces"])),
    }


def _check_colouring(colouring: str, packed: PackedModel, two_faces: bool) -> str:
    if colouring not in COLOURINGS:
        raise ValueRangeError(f"colouring: found {colouring!r}; expected one of {', '.join(COLOURINGS)}")
    if colouring == "skin" and not packed.header["hasColours"]:
        raise ValueRangeError("colouring: found 'skin' for a model without colours; expected another colouring")
    if colouring == "difference" and not two_faces:
        raise ValueRangeError("colouring: found 'difference' for one face; expected two_faces=True")
    return colouring


# --------------------------------------------------------------------------------------------------- the still picture
def _portrait(packed: PackedModel, model: MorphableModel, options: dict, colours: np.ndarray | None) -> bytes:
    """PNG of the explorer's first state, for print."""
    require("matplotlib", "book", "the explorer's still picture")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from twodasl_lite.viz.figures import draw_landmarks, shaded_mesh

    faces = [(options["shape"], options["expression"])]
    if options["two_faces"]:
        faces.append((options["second_shape"], options["second_expression"]))
    pixels = _FALLBACK_PIXELS
    figure = Figure(figsize=(len(faces) * pixels / 100, pixels / 100), dpi=100)
    FigureCanvasAgg(figure)
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor(options["angles"], dtype=torch.float64))).numpy()
    triangles = packed.triangles
    for position, (shape, expression) in enumerate(faces):
        axes = figure.add_axes((position / len(faces), 0, 1 / len(faces), 1))
        turned = packed.decode(np.asarray(shape), np.asarray(expression)) @ rotation.T
        shown = colours[packed.vertex_indices] if colours is not None and options["colouring"] == "skin" else None
        shaded_mesh(axes, turned, triangles, shown)
        if options["landmarks"]:
            draw_landmarks(axes, turned[packed.header["landmarks"], :2])
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return _smaller_png(buffer.getvalue())


def _smaller_png(png: bytes) -> bytes:
    """The same picture in 256 colours: a third of the size, and no difference that a reader would see."""
    import cv2

    try:
        from PIL import Image
    except ImportError:  # matplotlib always brings Pillow; without it the picture is only larger
        return cv2.imencode(".png", cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED))[1].tobytes()
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).quantize(256, method=Image.Quantize.FASTOCTREE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------------------- the static page
def _javascript_options(options: dict) -> dict:
    """Python's trait names to the script's."""
    renamed = {"second_shape": "secondShape", "second_expression": "secondExpression", "two_faces": "twoFaces"}
    return {renamed.get(name, name): value for name, value in options.items()}


def _for_script(text: str) -> str:
    """Text that may stand inside a script element: nothing in it may look like its end."""
    return text.replace("</", "<\\/").replace("<!--", "<\\!--")


def _figure_html(packed: PackedModel, options: dict, png: bytes, alt: str) -> str:
    header = json.dumps({"header": packed.header, "options": _javascript_options(options)}, separators=(",", ":"))
    picture = base64.b64encode(png).decode("ascii")
    alt = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return (
        '<div class="face-explorer-figure">\n'
        f'<img class="fx-fallback dark-light" style="max-width:100%" alt="{alt}" src="data:image/png;base64,{picture}">\n'
        f'<script type="application/json" class="fx-header">{_for_script(header)}</script>\n'
        f'<script type="text/plain" class="fx-data">{packed.to_base64()}</script>\n'
        f'<script type="module">\n{_for_script(_script())}\nmountStatic();\n</script>\n'
        "</div>\n"
    )


class StaticExplorer:
    """A face explorer for pages only: HTML that computes for itself, and a picture for print.

    Attributes:
        html: The self-contained piece of HTML.
        png: The still picture.
        packed: The packed model.
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
        """Write a whole page that can be opened, sent or put on a server by itself."""
        page = (
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1"></head>\n'
            f"<body>\n{self.html}</body>\n</html>\n"
        )
        Path(path).write_text(page, encoding="utf-8")


def face_explorer_html(model: MorphableModel | PackedModel, **settings) -> StaticExplorer:
    """The explorer as a piece of HTML, without a widget.

    Args:
        model: The face model.
        **settings: As for :class:`FaceExplorer`.

    Returns:
        An object that a notebook displays; its ``html`` can be put into any page, and ``save`` writes a whole one.
    """
    packed, options, colours = _prepare(model, **settings)
    return _static(packed, model, options, colours)


def _static(packed: PackedModel, model: MorphableModel, options: dict, colours: np.ndarray | None) -> StaticExplorer:
    png = _portrait(packed, model, options, colours)
    alt = f"Shaded picture of {model.name}: the first state of an interactive face with sliders"
    return StaticExplorer(_figure_html(packed, options, png, alt), png, packed)


def _prepare(
    model: MorphableModel,
    *,
    num_shape: int | None = 12,
    num_expression: int | None = None,
    region: str | None = None,
    max_error: float = DEFAULT_MAX_ERROR,
    colours: np.ndarray | torch.Tensor | None = None,
    layout=None,
    shape=None,
    expression=None,
    angles=None,
    second_shape=None,
    second_expression=None,
    two_faces: bool = False,
    colouring: str | None = None,
    landmarks: bool = False,
    wireframe: bool = False,
) -> tuple[PackedModel, dict, np.ndarray | None]:
    """Pack the model and check the settings."""
    if isinstance(colours, torch.Tensor):
        colours = colours.detach().cpu().numpy()
    if colours is None and model.albedo_mean is not None:
        colours = model.decode_albedo()[0].cpu().numpy()
    packed = pack_model(
        model, num_shape, num_expression, region=region, max_error=max_error, colours=colours, layout=layout
    )
    options = _options(
        packed,
        shape=shape,
        expression=expression,
        angles=angles,
        second_shape=second_shape,
        second_expression=second_expression,
        two_faces=two_faces,
        colouring=colouring,
        landmarks=landmarks,
        wireframe=wireframe,
    )
    return packed, options, colours


# --------------------------------------------------------------------------------------------------- the live notebook
class FaceExplorer(anywidget.AnyWidget):
    """A face with sliders, computed in the browser.

    Args:
        model: The face model; its first components get a slider each.
        num_shape: Number of shape sliders; all components if ``None``.
        num_expression: Number of expression sliders; all if ``None``.
        region: Show only this region of the model, which must hold all landmarks; a smaller page.
        max_error: The coordinates that the browser computes differ from the package's by at most this, in mm,
            whatever the sliders say.
        colours: ``(V, 3)`` sRGB in [0, 1] for the skin colouring, for instance ``model.decode_albedo(...)[0]``; the
            model's average albedo by default.
        layout: Sizes of the vector that the copy button writes, a :class:`CoefficientLayout`; 40 and 10 by default,
            more if there are more sliders.
        shape: Initial shape coefficients in standard deviations; missing ones are zero.
        expression: Initial expression coefficients in standard deviations (blendshapes: activations 0 to 1).
        angles: Initial pitch, yaw, roll in degrees.
        second_shape: Shape of the second face.
        second_expression: Expression of the second face.
        two_faces: Show both faces side by side.
        colouring: ``"skin"``, ``"clay"``, ``"normals"``, ``"pncc"``, ``"distance"`` (from the mean face) or
            ``"difference"`` (between the two faces).
        landmarks: Draw the 68 landmarks.
        wireframe: Draw the edges of the mesh.

    Attributes:
        shape: Shape coefficients of the first face, in standard deviations; follows the sliders and moves them.
        expression: Expression coefficients likewise.
        angles: Pitch, yaw, roll in degrees likewise.

    Raises:
        ShapeError: If there are more coefficients than sliders.
        ValueRangeError: If a value is not finite or a name unknown.

    Example:
        >>> from twodasl_lite.morphable import load_face_model
        >>> explorer = FaceExplorer(load_face_model(), landmarks=True)  # doctest: +SKIP
        >>> explorer.shape = [2.0, -1.0]  # doctest: +SKIP
    """

    _esm = traitlets.Unicode().tag(sync=True)
    shape = traitlets.List(traitlets.Float()).tag(sync=True)
    expression = traitlets.List(traitlets.Float()).tag(sync=True)
    angles = traitlets.List(traitlets.Float()).tag(sync=True)
    second_shape = traitlets.List(traitlets.Float()).tag(sync=True)
    second_expression = traitlets.List(traitlets.Float()).tag(sync=True)
    two_faces = traitlets.Bool(False).tag(sync=True)
    colouring = traitlets.Unicode("clay").tag(sync=True)
    landmarks = traitlets.Bool(False).tag(sync=True)
    wireframe = traitlets.Bool(False).tag(sync=True)

    def __init__(self, model: MorphableModel, **settings) -> None:
        self._packed, options, self._colours = _prepare(model, **settings)
        self._model = model
        self._still: StaticExplorer | None = None
        super().__init__(_esm=_script(), **options)
        self.on_msg(self._answer)

    def open(self) -> None:
        """Announce the widget to the page, unless figures are made for static pages alone."""
        if not _static_only():
            super().open()

    def _answer(self, _widget, message: dict, _buffers) -> None:
        # The model goes out when a view asks for it: as a trait it would be stored in every saved notebook.
        if isinstance(message, dict) and message.get("kind") == "request-model":
            self.send({"kind": "model", "header": self._packed.header}, buffers=[self._packed.data])

    @traitlets.validate("shape", "second_shape", "expression", "second_expression", "angles")
    def _check_coefficients(self, proposal: dict) -> list[float]:
        name = proposal["trait"].name
        header = self._packed.header
        length = 3 if name == "angles" else header["numShape" if name.endswith("shape") else "numExpression"]
        return _coefficients(name, proposal["value"], length)

    @traitlets.validate("colouring")
    def _check_colour(self, proposal: dict) -> str:
        # Whether there are two faces is not known yet while several traits change at once.
        return _check_colouring(proposal["value"], self._packed, two_faces=True)

    @property
    def packed(self) -> PackedModel:
        """The quantised model that the browser has."""
        return self._packed

    def coefficients(self) -> Coefficients:
        """What the sliders of the first face say, in the model's raw units and with all its components.

        Returns:
            One face: pose ``(1, 3, 4)`` that puts the face into a 120x120 crop, shape ``(1, Ks)``, expression
            ``(1, Ke)``; ready for :func:`twodasl_lite.decode.decode`.
        """
        model, header = self._model, self._packed.header
        shape = torch.zeros(1, model.num_shape, dtype=torch.float64)
        expression = torch.zeros(1, model.num_expression, dtype=torch.float64)
        shape[0, : header["numShape"]] = torch.tensor(self.shape) * torch.tensor(header["shapeStd"])
        expression[0, : header["numExpression"]] = torch.tensor(self.expression) * torch.tensor(
            header["expressionStd"]
        )
        camera = header["camera"]
        scale = torch.tensor(camera["scale"], dtype=torch.float64)
        rotation = euler_to_matrix(torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64)))
        middle = (camera["size"] + 1) / 2  # of the crop, counted from 1
        translation = torch.tensor([middle, middle, 0.0], dtype=torch.float64)
        translation = translation - scale * rotation @ torch.tensor(camera["centre"], dtype=torch.float64)
        pose = make_pose(scale, rotation, translation)[None]
        return Coefficients(pose, shape, expression).to(model.mean.dtype)

    def vertices(self) -> torch.Tensor:
        """The first face's vertices ``(V, 3)`` in mm by the package's own arithmetic, all of the model's."""
        face = self.coefficients()
        return self._model.decode(face.shape, face.expression)[0]

    def to_html(self) -> StaticExplorer:
        """The explorer in its present state, for pages without a kernel."""
        names = ("shape", "expression", "angles", "second_shape", "second_expression")
        options = {name: list(getattr(self, name)) for name in names}
        options |= {name: getattr(self, name) for name in ("two_faces", "colouring", "landmarks", "wireframe")}
        return _static(self._packed, self._model, options, self._colours)

    def _repr_mimebundle_(self, **kwargs):
        if self._still is None:  # a picture takes a second to draw; the first state is what a page begins with
            self._still = self.to_html()
        still = self._still._repr_mimebundle_()
        if _static_only():
            return still
        bundle, metadata = super()._repr_mimebundle_(**kwargs)
        return still | bundle, metadata
