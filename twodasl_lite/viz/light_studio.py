"""The light studio: a face to turn and to light, drawn in the browser by a z-buffer, without a kernel or graphics card.

The script (``static/light_studio.js``) follows the rules of :mod:`twodasl_lite.render.rasterizer` and draws the same
picture, pixel for pixel. See chapter 6.
"""

from __future__ import annotations

import base64
import html
import io
import json
import zlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.errors import ValueRangeError, require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import euler_to_matrix
from twodasl_lite.render import Lamps, coordinate_code, render

SCRIPT = Path(__file__).parent / "static" / "light_studio.js"
STEP = 0.01
"""Rounding step of the positions sent to the browser, in the model's unit (mm)."""
FILL = 0.92
"""Largest fraction of the picture that the face fills in any orientation; the script uses the same number."""
SHOW = ("picture", "light", "normals", "depth", "pncc", "triangles")
SOURCES = ("lamp", "harmonics")
SIZES = (30, 60, 120, 240)
_STILL_PIXELS = 480
_MAX_VERTICES = 2**16


@dataclass(frozen=True)
class StudioState:
    """State of the controls."""

    show: str = "picture"  # one of SHOW
    yaw: float = -30.0  # degrees
    pitch: float = 0.0  # degrees
    azimuth: float = 55.0  # direction of the lamp, degrees to the viewer's right
    elevation: float = 30.0  # direction of the lamp, degrees upwards
    ambient: float = 0.15  # strength of the light from all directions; the lamp's is 1
    source: str = "lamp"  # one of SOURCES
    size: int = 120  # side of the picture in pixels, one of SIZES
    smooth: bool = False  # nine samples per pixel
    marks: bool = False  # draw the landmarks

    def __post_init__(self) -> None:
        for name, allowed in (("show", SHOW), ("source", SOURCES), ("size", SIZES)):
            if getattr(self, name) not in allowed:
                raise ValueRangeError(f"{name}: found {getattr(self, name)!r}; expected one of {allowed}")
        for name, low, high in (
            ("yaw", -90, 90),
            ("pitch", -45, 45),
            ("azimuth", -180, 180),
            ("elevation", -90, 90),
            ("ambient", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueRangeError(f"{name}: found {getattr(self, name)!r}; expected {low} to {high}")

    def lamps(self) -> Lamps:
        """The same light for :func:`twodasl_lite.render.render`."""
        a, e = np.deg2rad([self.azimuth, self.elevation])
        direction = torch.tensor([[np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)]], dtype=torch.float64)
        ones = torch.ones(1, 3, dtype=torch.float64)
        return Lamps(self.ambient * ones[0], direction, ones)


@lru_cache(maxsize=1)
def _script() -> str:
    return SCRIPT.read_text(encoding="utf-8")


def place(points: torch.Tensor, state: StudioState, size: int) -> torch.Tensor:
    """Vertices in pixels as the studio places them.

    Args:
        points: Centred vertices in the model frame, ``(V, 3)``.
        state: State of the controls, for the angles.
        size: Side of the picture in pixels.

    Returns:
        Vertices, ``(V, 3)`` float64.
    """
    points = points.double()
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor([state.pitch, state.yaw, 0.0], dtype=torch.float64)))
    scale = FILL * size / (2 * points.norm(dim=-1).amax())
    middle = (size - 1) / 2
    return scale * points @ rotation.T * points.new_tensor([1, -1, 1]) + points.new_tensor([middle, middle, 0])


class LightStudio:
    """A face with sliders for pose and light.

    Args:
        model: The face model; it must have an albedo.
        shape: Raw shape coefficients, ``(Ks,)``; the mean face by default.
        expression: Raw expression coefficients, ``(Ke,)``; the neutral face by default.
        albedo: Raw albedo coefficients, ``(Ka,)``; the mean colours by default.
        **state: Initial state of the controls: the fields of :class:`StudioState`.

    Attributes:
        points: Vertices as sent to the browser, ``(V, 3)`` float64: centred, rounded to :data:`STEP`.
        colours: Vertex colours as sent to the browser, ``(V, 3)`` uint8.
        html: The figure as HTML; a notebook displays it.

    Raises:
        ValueRangeError: If the model has no albedo or too many vertices, or a control is out of range.
    """

    def __init__(self, model: MorphableModel, shape=None, expression=None, albedo=None, **state) -> None:
        if model.albedo_mean is None:
            raise ValueRangeError("model: found one without albedo; expected colours to light")
        if model.num_vertices > _MAX_VERTICES:
            raise ValueRangeError(f"model: found {model.num_vertices} vertices; expected at most {_MAX_VERTICES}")
        self.state = StudioState(**state)
        with torch.no_grad():
            face = model.decode(*(None if c is None else torch.as_tensor(c)[None] for c in (shape, expression)))[0]
            paint = model.decode_albedo(None if albedo is None else torch.as_tensor(albedo)[None])[0]
        face = face.double().cpu()
        face = face - (face.amin(dim=0) + face.amax(dim=0)) / 2
        self._rounded = (face / STEP).round().short()
        self.points = self._rounded.double() * STEP
        self.colours = (paint.cpu().clamp(0, 1) * 255).round().byte()
        self._code = (coordinate_code(model.mean.cpu()) * 255).round().byte()
        self.triangles, self._landmarks = model.triangles.cpu(), model.landmarks.tolist()
        self._name = model.name
        self._png = self._still()
        self.html = self._figure()

    def _still(self) -> bytes:
        """The first state, drawn by the package."""
        pil = require("PIL.Image", "book", "the light studio")
        picture = render(
            place(self.points, self.state, _STILL_PIXELS)[None],
            self.triangles,
            self.colours.double() / 255,
            _STILL_PIXELS,
            _STILL_PIXELS,
            light=self.state.lamps(),
            supersample=2,
        )
        rgba = torch.cat([picture.colour[0], picture.alpha[0, ..., None]], dim=-1)
        buffer = io.BytesIO()
        pil.fromarray((rgba * 255).round().byte().numpy()).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()

    def _packed(self) -> str:
        parts = (
            self._rounded.numpy().astype("<i2"),
            self.triangles.numpy().astype("<u2"),
            self.colours.numpy(),
            self._code.numpy(),
        )
        return base64.b64encode(zlib.compress(b"".join(part.tobytes() for part in parts), 9)).decode("ascii")

    def _figure(self) -> str:
        header = {"V": len(self.points), "T": len(self.triangles), "step": STEP, "landmarks": self._landmarks}
        settings = json.dumps({"header": header, "state": asdict(self.state)}, separators=(",", ":"))
        alt = html.escape(f"{self._name}, lit by a lamp: the first state of a figure with sliders for pose and light")
        still = base64.b64encode(self._png).decode("ascii")
        return (
            '<div class="light-studio-figure">\n'
            f'<img class="ls-fallback dark-light" style="max-width:100%" alt="{alt}" '
            f'src="data:image/png;base64,{still}">\n'
            f'<script type="application/json" class="ls-header">{settings}</script>\n'
            f'<script type="text/plain" class="ls-data">{self._packed()}</script>\n'
            f'<script type="module">\n{_script()}\nmountStatic();\n</script>\n'
            "</div>\n"
        )

    def _repr_mimebundle_(self, **_kwargs) -> dict:
        return {
            "text/html": self.html,
            "image/png": base64.b64encode(self._png).decode("ascii"),
            "text/plain": f"Light studio of {self._name}",
        }
