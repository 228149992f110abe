"""Figures that compute in the browser, with the same script in a page without a kernel and in a running notebook.

A figure consists of data (arrays, and possibly a packed face model), a state (the values of its controls), a script
that draws, and a still picture for print. In a page the script finds all of it in the figure's HTML. In a running
notebook the figure is an anywidget whose ``state`` and controls follow each other, so that Python sees what the reader
has set.
"""

from __future__ import annotations

import base64
import html
import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError, require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.landmarks import EDGES
from twodasl_lite.viz.packing import PackedModel, pack_model

STATIC = Path(__file__).parent / "static"
STATIC_VARIABLE = "TWODASL_FIGURES"
"""Environment variable; the value ``static`` makes figures for static pages only."""

SURFACE_ERROR = 4.0
"""Bound in mm on a drawn vertex with every coefficient at its limit; a tenth of a millimetre for ordinary faces. The
losses are computed from exact numbers, not from the drawn surface."""

_KINDS = {"float64": "f8", "float32": "f4", "int32": "i4", "int16": "i2", "uint8": "u1"}


@cache
def script(name: str, class_name: str) -> str:
    """The complete script of a figure: ``face.js``, the figure kit and the figure's own class."""
    parts = [(STATIC / f"{part}.js").read_text(encoding="utf-8") for part in ("face", "figure_kit", name)]
    return "\n".join([*parts, f"mountFigures({class_name});"])


def pack_arrays(arrays: Mapping[str, np.ndarray | torch.Tensor]) -> tuple[list[dict[str, Any]], bytes]:
    """Arrays packed one after another: a table of contents, and the zlib stream of their little-endian bytes."""
    listed, parts = [], []
    for name, values in arrays.items():
        values = np.ascontiguousarray(values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values)
        kind = _KINDS.get(values.dtype.name)
        if kind is None:
            raise ValueRangeError(f"{name}: found {values.dtype}; expected one of {', '.join(_KINDS)}")
        listed.append({"name": name, "kind": kind, "length": values.size})
        parts.append(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return listed, zlib.compress(b"".join(parts), 9)


@lru_cache(maxsize=2)
def surface(model: MorphableModel) -> PackedModel:
    """The model's skin with all components, quantised coarsely enough for a page that holds other data as well."""
    return pack_model(model, None, None, max_error=SURFACE_ERROR)


def landmark_basis(model: MorphableModel) -> np.ndarray:
    """Mean and components of the landmarks, ``(68, 3, 1 + K)`` float64."""
    basis = torch.cat([model.mean[..., None], model.basis], dim=-1)[model.landmarks]
    return basis.detach().double().cpu().numpy()


def model_header(model: MorphableModel, whitening: Whitening) -> dict[str, Any]:
    """The facts about the coefficients that every script needs."""
    return {
        "names": list(model.layout.names),
        "numShape": model.num_shape,
        "numExpression": model.num_expression,
        "whiteMean": [float(x) for x in whitening.mean],
        "whiteStd": [float(x) for x in whitening.std],
        "edges": [[int(a), int(b)] for a, b in EDGES],
    }


def check_whitened(name: str, whitened: torch.Tensor, size: int) -> torch.Tensor:
    """``(F, size)`` float64 on the CPU, from ``(F, size)`` or ``(size,)``.

    Raises:
        ShapeError: If the shape does not match.
    """
    if isinstance(whitened, torch.Tensor) and whitened.ndim == 1:
        whitened = whitened[None]
    check_tensor(name, whitened, ("F", size))
    if not len(whitened):
        raise ShapeError(f"{name}: found no face; expected at least one")
    return whitened.detach().double().cpu()


def picture_data(picture: torch.Tensor) -> str:
    """A picture ``(3, H, W)`` uint8 as a data URL."""
    pil = require("PIL.Image", "book", "interactive figures")
    buffer = io.BytesIO()
    pil.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(buffer, "WEBP", quality=80, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def still_picture(draw, size: tuple[float, float]) -> bytes:
    """PNG of a matplotlib figure that ``draw(figure)`` fills; ``size`` in inches."""
    require("matplotlib", "book", "the still picture of a figure")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def _webp(png: bytes) -> bytes:
    pil = require("PIL.Image", "book", "interactive figures")
    buffer = io.BytesIO()
    pil.open(io.BytesIO(png)).save(buffer, "WEBP", quality=82, method=4)
    return buffer.getvalue()


class InteractiveFigure:
    """A figure with controls; a notebook displays it.

    Made by the functions of this package (``coefficient_figure`` and its siblings), not directly.

    Attributes:
        html: Self-contained HTML fragment for pages.
        png: Still picture.
        header: Everything the script receives besides the arrays, ready for JSON.
    """

    kind = ""  # name of the script in static/
    script_class = ""  # the class in it

    def __init__(
        self,
        title: str,
        header: dict[str, Any],
        arrays: Mapping[str, np.ndarray | torch.Tensor],
        state: dict[str, Any],
        png: bytes,
        packed: PackedModel | None = None,
    ) -> None:
        listed, self._data = pack_arrays(arrays)
        self.header = {"title": title, "arrays": listed, "model": packed.header if packed else None, **header}
        self._packed, self._state, self.png = packed, state, png
        self._widget: Any = None
        self.html = self._page()

    @property
    def state(self) -> dict[str, Any]:
        """State of the controls: the live one in a running notebook, the initial one elsewhere."""
        return dict(self._widget.state) if self._widget is not None else dict(self._state)

    def set(self, **changes: Any) -> None:
        """Move controls of the live figure.

        Raises:
            ValueRangeError: If the figure lacks one of these controls.
        """
        unknown = sorted(changes.keys() - self._state.keys())
        if unknown:
            raise ValueRangeError(f"{unknown[0]}: found no such control; expected one of {', '.join(self._state)}")
        if self._widget is not None:
            self._widget.state = {**self._widget.state, **changes}
        else:
            self._state = {**self._state, **changes}
            self.html = self._page()

    def numbers(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The numbers that the figure draws, computed by the package.

        Args:
            state: State of the controls; the current one by default.
        """
        raise NotImplementedError

    @property
    def widget(self) -> Any:
        """The live figure, an anywidget created on first access."""
        if self._widget is None:
            anywidget = require("anywidget", "book", "live figures")
            traitlets = require("traitlets", "book", "live figures")

            class LiveFigure(anywidget.AnyWidget):
                _esm = traitlets.Unicode().tag(sync=True)
                state = traitlets.Dict().tag(sync=True)

            widget = LiveFigure(_esm=script(self.kind, self.script_class), state=dict(self._state))
            widget.on_msg(self._answer)
            self._widget = widget
        return self._widget

    def _answer(self, widget: Any, message: Any, _buffers: Any) -> None:
        if isinstance(message, dict) and message.get("kind") == "request-figure":
            model = self._packed.data if self._packed else b""
            widget.send({"kind": "figure", "header": self.header}, buffers=[self._data, model])

    def _page(self) -> str:
        told = json.dumps({"header": self.header, "state": self._state}, separators=(",", ":")).replace("<", "\\u003c")
        model = (
            f'<script type="text/plain" class="lf-model">{self._packed.to_base64()}</script>\n' if self._packed else ""
        )
        still = base64.b64encode(_webp(self.png)).decode("ascii")
        alt = html.escape(f"{self.header['title']}: the first state of a figure with controls")
        return (
            f'<div class="loss-figure-page" data-kind="{self.kind}">\n'
            f'<img class="lf-fallback dark-light" style="max-width:100%" alt="{alt}" '
            f'src="data:image/webp;base64,{still}">\n'
            f'<script type="application/json" class="lf-header">{told}</script>\n'
            f'<script type="text/plain" class="lf-data">{base64.b64encode(self._data).decode("ascii")}</script>\n'
            f"{model}"
            f'<script type="module">\n{script(self.kind, self.script_class)}\n</script>\n'
            "</div>\n"
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a complete page that can be opened, sent or hosted on its own."""
        page = (
            f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
            f"<title>{html.escape(self.header['title'])}</title>\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="color-scheme" content="light dark"></head>\n'
            f"<body>\n{self.html}</body>\n</html>\n"
        )
        with whole_file(path) as file:
            file.write(page.encode())

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        still = {
            "text/html": self.html,
            "image/png": base64.b64encode(self.png).decode("ascii"),
            "text/plain": self.header["title"],
        }
        if os.environ.get(STATIC_VARIABLE, "").lower() == "static":
            return still
        bundle, metadata = self.widget._repr_mimebundle_(**kwargs)
        return still | bundle, metadata


def floats(values: torch.Tensor | np.ndarray | Sequence[float]) -> list[float]:
    """Numbers as a flat list of Python floats, for JSON."""
    return [float(x) for x in torch.as_tensor(values).flatten()]
