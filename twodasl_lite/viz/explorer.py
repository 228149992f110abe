"""The face explorer: sliders for pose, shape and expression, live with and without a kernel.

One script (``static/face.js`` and ``static/explorer.js``) computes and draws the linear model in the browser. It works
in three places:

* **a running notebook**: :class:`FaceExplorer` is an anywidget; ``explorer.shape``, ``explorer.expression`` and
  ``explorer.angles`` follow the sliders, and the sliders follow them;
* **a static page**: the same object also provides a self-contained HTML fragment with script and packed model, which
  needs no kernel, no network and no other script;
* **print**: that HTML contains a still picture, and an ``image/png`` comes with it.

A saved notebook contains both the widget and the HTML. A program that builds static pages should use the HTML (in
MyST-NB: ``nb_mime_priority_overrides = [("html", "text/html", 0)]``); with the environment variable
``TWODASL_FIGURES=static`` only the HTML is made, and the page contains no widget state. See chapter 1.
"""

from __future__ import annotations

import os

import torch

from twodasl_lite.base.errors import require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.viz.explorer_page import (
    StaticExplorer,
    check_coefficients,
    check_colouring,
    make_static,
    prepare,
    script_source,
)
from twodasl_lite.viz.packing import PackedModel

traitlets = require("traitlets", "book", "the live face explorer")
anywidget = require("anywidget", "book", "the live face explorer")

STATIC_VARIABLE = "TWODASL_FIGURES"
"""Environment variable; the value ``static`` makes figures for static pages only."""


def _static_only() -> bool:
    """Whether figures are being made for static pages only."""
    return os.environ.get(STATIC_VARIABLE, "").lower() == "static"


class FaceExplorer(anywidget.AnyWidget):
    """A face with sliders, computed in the browser.

    Args:
        model: The face model; its first components get a slider each.
        num_shape: Number of shape sliders; one per component if ``None``.
        num_expression: Number of expression sliders; one per component if ``None``.
        region: Region or regions of the model to show, for a smaller page; they must contain all landmarks.
        max_error: Largest difference in mm between the browser's and the package's coordinates, for any setting of the
            sliders.
        colours: Skin colours, ``(V, 3)`` sRGB in [0, 1], for instance ``model.decode_albedo(...)[0]``; the model's
            average albedo by default.
        layout: Sizes of the vector that the copy button copies, a :class:`CoefficientLayout`; 40 and 10 by default,
            more if there are more sliders.
        shape: Initial shape coefficients in standard deviations; missing ones are zero.
        expression: Initial expression coefficients in standard deviations (blendshapes: activations 0 to 1).
        albedo: Initial colour coefficients in standard deviations, if the model has colours and none are given.
        angles: Initial pitch, yaw, roll in degrees.
        second_shape: Shape coefficients of the second face.
        second_expression: Expression coefficients of the second face.
        second_albedo: Colour coefficients of the second face.
        two_faces: Whether to show both faces side by side.
        colouring: ``"skin"``, ``"clay"``, ``"normals"``, ``"pncc"``, ``"distance"`` (from the mean face) or
            ``"difference"`` (between the two faces).
        landmarks: Whether to draw the 68 landmarks.
        wireframe: Whether to draw the edges of the mesh.

    Attributes:
        shape: Shape coefficients of the first face in standard deviations; follows the sliders and moves them.
        expression: Expression coefficients of the first face; follows the sliders and moves them.
        albedo: Colour coefficients of the first face; they have no sliders, the random button draws them.
        angles: Pitch, yaw, roll in degrees; follows the sliders and moves them.

    Raises:
        ShapeError: If there are more coefficients than sliders.
        ValueRangeError: If a value is not finite or a name is unknown.

    Example:
        >>> from twodasl_lite.faces import load_face_model
        >>> explorer = FaceExplorer(load_face_model(), landmarks=True)  # doctest: +SKIP
        >>> explorer.shape = [2.0, -1.0]  # doctest: +SKIP
    """

    _esm = traitlets.Unicode().tag(sync=True)
    shape = traitlets.List(traitlets.Float()).tag(sync=True)
    expression = traitlets.List(traitlets.Float()).tag(sync=True)
    albedo = traitlets.List(traitlets.Float()).tag(sync=True)
    angles = traitlets.List(traitlets.Float()).tag(sync=True)
    second_shape = traitlets.List(traitlets.Float()).tag(sync=True)
    second_expression = traitlets.List(traitlets.Float()).tag(sync=True)
    second_albedo = traitlets.List(traitlets.Float()).tag(sync=True)
    two_faces = traitlets.Bool(False).tag(sync=True)
    colouring = traitlets.Unicode("clay").tag(sync=True)
    landmarks = traitlets.Bool(False).tag(sync=True)
    wireframe = traitlets.Bool(False).tag(sync=True)

    def __init__(self, model: MorphableModel, **settings) -> None:
        self._packed, options = prepare(model, **settings)
        self._model = model
        self._still: StaticExplorer | None = None
        super().__init__(_esm=script_source(), **options)
        self.on_msg(self._answer)

    def open(self) -> None:
        """Register the widget with the page, unless figures are made for static pages only."""
        if not _static_only():
            super().open()

    def _answer(self, _widget, message: dict, _buffers) -> None:
        # The model is sent when a view requests it: as a trait it would be stored in every saved notebook.
        if isinstance(message, dict) and message.get("kind") == "request-model":
            self.send({"kind": "model", "header": self._packed.header}, buffers=[self._packed.data])

    @traitlets.validate("shape", "expression", "albedo", "second_shape", "second_expression", "second_albedo", "angles")
    def _check_coefficients(self, proposal: dict) -> list[float]:
        name = proposal["trait"].name
        sizes = {"shape": "numShape", "expression": "numExpression", "albedo": "numAlbedo"}
        size = sizes.get(name.removeprefix("second_"))
        return check_coefficients(name, proposal["value"], self._packed.header[size] if size else 3)

    @traitlets.validate("colouring")
    def _check_colour(self, proposal: dict) -> str:
        # While several traits change at once, the number of faces is not known yet.
        return check_colouring(proposal["value"], self._packed, two_faces=True)

    @property
    def packed(self) -> PackedModel:
        """The quantised model in the browser."""
        return self._packed

    def coefficients(self) -> Coefficients:
        """The sliders of the first face as coefficients, in the model's raw units and with all its components.

        Returns:
            One face: pose ``(1, 3, 4)`` that places the face in a 120x120 crop, shape ``(1, Ks)``, expression
            ``(1, Ke)``; ready for :func:`twodasl_lite.faces.decode.decode`.
        """
        model, header = self._model, self._packed.header
        shape = torch.zeros(1, model.num_shape, dtype=torch.float64)
        expression = torch.zeros(1, model.num_expression, dtype=torch.float64)
        shape[0, : header["numShape"]] = torch.tensor(self.shape) * torch.tensor(header["shapeStd"])
        expression[0, : header["numExpression"]] = torch.tensor(self.expression) * torch.tensor(header["expressionStd"])
        camera = header["camera"]
        scale = torch.tensor(camera["scale"], dtype=torch.float64)
        rotation = euler_to_matrix(torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64)))
        middle = (camera["size"] + 1) / 2  # middle of the crop, 1-based
        translation = torch.tensor([middle, middle, 0.0], dtype=torch.float64)
        translation = translation - scale * rotation @ torch.tensor(camera["centre"], dtype=torch.float64)
        pose = make_pose(scale, rotation, translation)[None]
        return Coefficients(pose, shape, expression).to(model.mean.dtype)

    def vertices(self) -> torch.Tensor:
        """All vertices ``(V, 3)`` of the first face in mm, computed by the package."""
        face = self.coefficients()
        return self._model.decode(face.shape, face.expression)[0]

    def to_html(self) -> StaticExplorer:
        """The explorer in its current state, for pages without a kernel."""
        names = ("shape", "expression", "albedo", "second_shape", "second_expression", "second_albedo", "angles")
        options = {name: list(getattr(self, name)) for name in names}
        options |= {name: getattr(self, name) for name in ("two_faces", "colouring", "landmarks", "wireframe")}
        return make_static(self._packed, options)

    def _repr_mimebundle_(self, **kwargs):
        if self._still is None:  # a picture takes a second to draw, and a page begins with the first state
            self._still = self.to_html()
        still = self._still._repr_mimebundle_()
        if _static_only():
            return still
        bundle, metadata = super()._repr_mimebundle_(**kwargs)
        return still | bundle, metadata
