"""Interactive plotly figures that need no kernel: meshes to turn, sliders with precomputed frames, curves.

Coordinates are rounded to 0.01 mm and written once per frame, which keeps the page small. Colours are safe for
colour-blind readers. See chapter 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from twodasl_lite.base.errors import ShapeError, ValueRangeError, require
from twodasl_lite.viz.palette import CATEGORICAL, CLAY, VIRIDIS
from twodasl_lite.viz.shading import check_mesh

DECIMALS = 2
"""Decimals of a coordinate in mm."""

_LIGHTING = {"ambient": 0.42, "diffuse": 0.72, "specular": 0.12, "roughness": 0.65, "fresnel": 0.08}
_VALUE_LIGHTING = {"ambient": 0.75, "diffuse": 0.35, "specular": 0.0, "roughness": 0.9, "fresnel": 0.0}
_LIGHT_POSITION = {"x": -120, "y": 200, "z": 60}
_EYE_DISTANCE = 1.95
_HIDDEN_AXIS = {"visible": False, "showbackground": False, "showspikes": False}
_FONT = {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13}


def _plotly():
    return require("plotly.graph_objects", "book", "the interactive figure")


def _rgb(colour: Sequence[float]) -> str:
    return "rgb(" + ",".join(str(round(255 * float(c))) for c in colour) + ")"


def _array(value) -> np.ndarray:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _coordinates(points: np.ndarray) -> dict[str, list[float]]:
    """Rounded columns as plain lists: a JSON number of 0.01 mm is shorter than four bytes in base64."""
    rounded = np.round(points, DECIMALS)
    return {axis: rounded[:, k].tolist() for k, axis in enumerate("xyz")}


def colourscale() -> list[list]:
    """Viridis as a plotly colour scale."""
    return [[k / (len(VIRIDIS) - 1), colour] for k, colour in enumerate(VIRIDIS)]


def _scene(bounds: tuple[np.ndarray, np.ndarray] | None = None, yaw: float = 0.0, pitch: float = 0.0) -> dict:
    """A scene that looks at the face from the front, y up, undistorted, without axes."""
    a, b = np.deg2rad(yaw), np.deg2rad(pitch)
    eye = _EYE_DISTANCE * np.array([np.sin(a) * np.cos(b), np.sin(b), np.cos(a) * np.cos(b)])
    scene = {
        "aspectmode": "data",
        "camera": {
            "eye": dict(zip("xyz", eye.round(4).tolist(), strict=True)),
            "up": {"x": 0, "y": 1, "z": 0},
            "projection": {"type": "perspective"},  # plotly does not light meshes in its orthographic projection
        },
        "dragmode": "orbit",
        **{f"{axis}axis": dict(_HIDDEN_AXIS) for axis in "xyz"},
    }
    if bounds is not None:  # fixed ranges keep the scale while frames change
        for k, axis in enumerate("xyz"):
            scene[f"{axis}axis"]["range"] = [float(bounds[0][k]), float(bounds[1][k])]
    return scene


def _layout(height: int, title: str | None = None) -> dict:
    return {
        "height": height,
        "margin": {"l": 0, "r": 0, "t": 40 if title else 0, "b": 0},
        "title": {"text": title} if title else None,
        "font": _FONT,
        # Transparent, so that the page's light or dark background shows through; grey text is legible on both.
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font_color": "#7d858f",
    }


def _mesh_trace(points, faces, colours=None, values=None, vmax=None, unit: str = "mm", **extra):
    go = _plotly()
    paint: dict = {"color": _rgb(CLAY)}
    if values is not None:
        values = np.round(_array(values).astype(np.float64), 3)
        if values.shape != (len(points),):
            raise ShapeError(f"values: found shape {values.shape}; expected ({len(points)},)")
        paint = {
            "intensity": values.tolist(),
            "colorscale": colourscale(),
            "cmin": 0,
            "cmax": float(values.max(initial=0) if vmax is None else vmax),
            "colorbar": {"title": {"text": unit}, "thickness": 12, "len": 0.7, "outlinewidth": 0},
        }
    elif colours is not None:
        colours = _array(colours).astype(np.float64)
        if colours.shape != points.shape:
            raise ShapeError(f"colours: found shape {colours.shape}; expected {points.shape}")
        # Hexadecimal is the shortest form that plotly reads.
        rgb = np.rint(np.clip(colours, 0, 1) * 255).astype(int)
        paint = {"vertexcolor": [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb]}
    return go.Mesh3d(
        **_coordinates(points),
        i=faces[:, 0].tolist(),
        j=faces[:, 1].tolist(),
        k=faces[:, 2].tolist(),
        flatshading=False,
        lighting=_LIGHTING if values is None else _VALUE_LIGHTING,
        lightposition=_LIGHT_POSITION,
        hoverinfo="skip",
        **paint,
        **extra,
    )


def mesh_figure(
    vertices,
    triangles,
    colours=None,
    *,
    values=None,
    vmax: float | None = None,
    unit: str = "mm",
    landmarks=None,
    yaw: float = 0.0,
    pitch: float = 0.0,
    height: int = 460,
    title: str | None = None,
):
    """A mesh to turn with the mouse.

    Args:
        vertices: Vertices in the model frame, ``(V, 3)``.
        triangles: Triangles, ``(T, 3)``.
        colours: Vertex colours, ``(V, 3)`` sRGB in [0, 1]; clay by default.
        values: Numbers to colour by instead, ``(V,)``, for instance an error; adds a colour bar.
        vmax: Value of the brightest colour.
        unit: Unit of the values.
        landmarks: Points to draw, ``(68, 3)``, or 68 vertex indices.
        yaw: Direction of view in degrees, to the viewer's right.
        pitch: Direction of view in degrees, upwards.
        height: Height in pixels.
        title: Title of the figure.

    Returns:
        A plotly figure.

    Raises:
        ShapeError: If an array has the wrong shape.
        ValueRangeError: If a value is not finite or an index is out of range.
    """
    go = _plotly()
    points, faces = check_mesh(vertices, triangles)
    figure = go.Figure(_mesh_trace(points, faces, colours, values, vmax, unit))
    if landmarks is not None:
        marks = _array(landmarks)
        marks = points[marks.astype(int)] if marks.ndim == 1 else marks
        lifted = marks + np.array([0, 0, 0.5])  # half a millimetre in front of the skin
        figure.add_trace(
            go.Scatter3d(
                **_coordinates(lifted),
                mode="markers",
                marker={"size": 3.5, "color": CATEGORICAL[1], "line": {"color": "white", "width": 0.5}},
                text=[str(i) for i in range(len(marks))],
                hovertemplate="landmark %{text}<extra></extra>",
                showlegend=False,
            )
        )
    figure.update_layout(scene=_scene(None, yaw, pitch), **_layout(height, title))
    return figure


def slider_frames(
    frames,
    triangles,
    labels: Sequence[str],
    colours=None,
    *,
    values=None,
    vmax: float | None = None,
    unit: str = "mm",
    prefix: str = "",
    active: int = 0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    height: int = 500,
    title: str | None = None,
):
    """A mesh with a slider over precomputed versions of it; works in a page without a kernel.

    Args:
        frames: Vertices for each position of the slider, ``(N, V, 3)``.
        triangles: Triangles of all frames, ``(T, 3)``.
        labels: One label per position, for instance ``"-2 σ"``.
        colours: Vertex colours of all frames, ``(V, 3)`` sRGB in [0, 1]; clay by default.
        values: Numbers to colour by instead, ``(N, V)``.
        vmax: Value of the brightest colour; the largest value by default.
        unit: Unit of the values.
        prefix: Text before the label at the slider, for instance ``"Component 1: "``.
        active: Initial position of the slider.
        yaw: Direction of view in degrees, to the viewer's right.
        pitch: Direction of view in degrees, upwards.
        height: Height in pixels.
        title: Title of the figure.

    Returns:
        A plotly figure.

    Raises:
        ShapeError: If the arrays' shapes do not match.
        ValueRangeError: If ``active`` is not a position of the slider.
    """
    go = _plotly()
    stack = _array(frames).astype(np.float64)
    if stack.ndim != 3 or stack.shape[2] != 3 or not len(stack):
        raise ShapeError(f"frames: found shape {stack.shape}; expected (N, V, 3)")
    if len(labels) != len(stack):
        raise ShapeError(f"labels: found {len(labels)}; expected {len(stack)}, one per frame")
    if not 0 <= active < len(stack):
        raise ValueRangeError(f"active: found {active}; expected 0 to {len(stack) - 1}")
    if values is not None:
        values = _array(values).astype(np.float64)
        if values.shape != stack.shape[:2]:
            raise ShapeError(f"values: found shape {values.shape}; expected {stack.shape[:2]}")
        vmax = float(values.max()) if vmax is None else vmax
    for number, points in enumerate(stack):
        _, faces = check_mesh(points, triangles)
        stack[number] = np.round(points, DECIMALS)
    first = None if values is None else values[active]
    figure = go.Figure(_mesh_trace(stack[active], faces, colours, first, vmax, unit))
    # Coordinates that no frame changes are sent once, with the figure.
    moving = [axis for k, axis in enumerate("xyz") if np.ptp(stack[..., k], axis=0).max() > 0]
    steps = []
    for number, label in enumerate(labels):
        changed = {axis: [column] for axis, column in _coordinates(stack[number]).items() if axis in moving}
        if values is not None:
            changed["intensity"] = [np.round(values[number], 3).tolist()]
        steps.append({"label": label, "method": "restyle", "args": [changed, [0]]})
    low, high = stack.min(axis=(0, 1)), stack.max(axis=(0, 1))
    figure.update_layout(
        scene=_scene((low, high), yaw, pitch),
        sliders=[
            {
                "active": active,
                "steps": steps,
                "currentvalue": {"prefix": prefix},
                "pad": {"l": 20, "r": 20, "t": 0, "b": 10},
                "len": 0.95,
                "x": 0.025,
            }
        ],
        **_layout(height, title),
    )
    figure.update_layout(margin_b=10)
    return figure


def curve_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_title: str = "",
    y_title: str = "",
    log_y: bool = False,
    markers: bool = False,
    height: int = 380,
    title: str | None = None,
):
    """Curves with a legend; each has its own colour and dash, so that no curve depends on colour alone.

    Args:
        curves: Name to (x values, y values).
        x_title: Title of the horizontal axis, with the unit.
        y_title: Title of the vertical axis, with the unit.
        log_y: Whether the vertical axis is logarithmic.
        markers: Whether to mark the points.
        height: Height in pixels.
        title: Title of the figure.

    Returns:
        A plotly figure.

    Raises:
        ShapeError: If x and y of a curve differ in length.
    """
    go = _plotly()
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    symbols = ("circle", "square", "diamond", "triangle-up", "cross", "x")
    figure = go.Figure()
    for number, (name, (x, y)) in enumerate(curves.items()):
        x, y = _array(x), _array(y)
        if x.ndim != 1 or x.shape != y.shape:
            raise ShapeError(f"curves[{name!r}]: found shapes {x.shape} and {y.shape}; expected two equal lengths")
        figure.add_trace(
            go.Scatter(
                x=x.tolist(),
                y=[float(f"{v:.5g}") for v in y],
                name=name,
                mode="lines+markers" if markers else "lines",
                line={
                    "color": CATEGORICAL[number % len(CATEGORICAL)],
                    "width": 2.2,
                    "dash": dashes[number % 6],
                },
                marker={"size": 7, "symbol": symbols[number % 6]},
            )
        )
    axis = {
        "gridcolor": "rgba(128,128,128,0.25)",
        "zerolinecolor": "rgba(128,128,128,0.5)",
        "automargin": True,
    }
    figure.update_layout(
        **_layout(height, title),
        xaxis=axis | {"title": {"text": x_title}},
        yaxis=axis | {"title": {"text": y_title}, "type": "log" if log_y else "linear"},
        hovermode="x unified",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    figure.update_layout(margin={"l": 10, "r": 10, "t": 60 if title else 30, "b": 10})
    return figure
