"""Figures for print, in matplotlib: landmarks, shaded meshes, overlays, contact sheets.

Points and vertices are in one of two frames: ``"model"`` (x right, y up, z towards the viewer) or ``"pixels"``
(x right, y down, z towards the viewer, as :func:`twodasl_lite.faces.decode.decode` returns them). Colours are safe for
colour-blind readers.
See chapter 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError, require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import euler_to_matrix
from twodasl_lite.geometry.landmarks import EDGES, GROUPS, NUM_LANDMARKS
from twodasl_lite.viz.palette import landmark_colour
from twodasl_lite.viz.shading import KEY_LIGHT, check_mesh, render_mesh, visible_vertices

Frame = Literal["model", "pixels"]

_MARGIN = 0.04
"""White space around a mesh, as a fraction of its size."""


def _array(value) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _check_frame(frame: str) -> None:
    if frame not in ("model", "pixels"):
        raise ValueRangeError(f"frame: found {frame!r}; expected 'model' or 'pixels'")


# ----------------------------------------------------------------------------------------------------------- landmarks
def draw_landmarks(
    ax,
    points,
    *,
    visible=None,
    colour: str | None = None,
    lines: bool = True,
    numbers: bool = False,
    size: float = 4.0,
    label: str | None = None,
    zorder: float = 5,
) -> None:
    """Draw the 68 landmarks as dots, joined by one polyline per part of the face.

    Args:
        ax: The matplotlib axes.
        points: Landmarks, ``(68, 2)`` or ``(68, 3)``, in the frame of the axes; depth is ignored.
        visible: Visibility, ``(68,)`` booleans; hidden landmarks are hollow and their lines faint. All visible by
            default.
        colour: One colour for all landmarks; by default each part of the face has its own.
        lines: Whether to draw the polylines.
        numbers: Whether to write each landmark's index beside it.
        size: Diameter of a dot in points.
        label: Entry in the legend of the axes.
        zorder: Drawing order.

    Raises:
        ShapeError: If there are not 68 points.
    """
    points = _array(points).astype(np.float64)
    if points.ndim != 2 or points.shape[0] != NUM_LANDMARKS or points.shape[1] not in (2, 3):
        raise ShapeError(f"points: found shape {points.shape}; expected ({NUM_LANDMARKS}, 2 or 3)")
    shown = np.ones(NUM_LANDMARKS, dtype=bool) if visible is None else _array(visible).astype(bool)
    if shown.shape != (NUM_LANDMARKS,):
        raise ShapeError(f"visible: found shape {shown.shape}; expected ({NUM_LANDMARKS},)")
    for name, members in GROUPS.items():
        paint = colour or landmark_colour(name)
        inside = set(members)
        if lines:
            for a, b in EDGES:
                if a in inside and b in inside:
                    strong = shown[a] and shown[b]
                    # A white line under the coloured one keeps it visible on any photo.
                    ax.plot(
                        *points[[a, b], :2].T,
                        color="white",
                        lw=size * 0.62,
                        alpha=0.55 * strong,
                        zorder=zorder,
                    )
                    ax.plot(
                        *points[[a, b], :2].T,
                        color=paint,
                        lw=size * 0.32,
                        alpha=1 if strong else 0.3,
                        zorder=zorder,
                    )
        for seen in (True, False):
            chosen = [i for i in members if shown[i] == seen]
            if chosen:
                ax.plot(
                    *points[chosen, :2].T,
                    "o",
                    ms=size,
                    color=paint if seen else "none",
                    mec="white" if seen else paint,
                    mew=size * 0.14,
                    zorder=zorder + 0.1,
                )
    if label is not None:
        ax.plot(
            [],
            [],
            "o-",
            color=colour or landmark_colour("jaw"),
            mec="white",
            ms=size,
            lw=size * 0.32,
            label=label,
        )
    if numbers:
        _write_numbers(ax, points[:, :2], size, zorder)


def _write_numbers(ax, points: np.ndarray, size: float, zorder: float) -> None:
    """Write each landmark's index on the outer side of the line that it lies on."""
    from matplotlib.patheffects import withStroke

    up = -1 if ax.yaxis_inverted() else 1
    face = points.mean(axis=0)
    for name, members in GROUPS.items():
        around = face if name in ("jaw", "left_brow", "right_brow") else points[members].mean(axis=0)
        inward = name == "inner_lip"  # the outer side belongs to the other lip line
        for i in members:
            direction = (points[i] - around) * [1, up]
            if "nose" in name:
                direction = np.array([1.0, 0.0] if name == "nose_bridge" else [0.0, -1.0])
            direction = direction / max(np.linalg.norm(direction), 1e-9) * (-0.8 if inward else 1)
            ax.annotate(
                str(i),
                points[i],
                xytext=tuple(direction * size * 1.8),
                textcoords="offset points",
                ha="center",
                va="center",
                fontsize=max(4.0, size * 1.25),
                zorder=zorder + 0.2,
                path_effects=[withStroke(linewidth=size * 0.35, foreground="white")],
            )


# -------------------------------------------------------------------------------------------------------------- meshes
def colour_by(values, vmin: float = 0.0, vmax: float | None = None, cmap: str = "viridis"):
    """Vertex colours from one number per vertex, for instance an error in mm.

    Args:
        values: One number per vertex, ``(V,)``.
        vmin: Value of the darkest colour.
        vmax: Value of the brightest colour; the largest value by default.
        cmap: A matplotlib colour map.

    Returns:
        Colours ``(V, 3)`` for :func:`shaded_mesh`, and a mappable for ``figure.colorbar``.
    """
    cm = require("matplotlib.cm", "book", "colour_by")
    colors = require("matplotlib.colors", "book", "colour_by")
    values = _array(values).astype(np.float64)
    if values.ndim != 1:
        raise ShapeError(f"values: found shape {values.shape}; expected (V,)")
    top = float(values.max(initial=0)) if vmax is None else vmax
    mappable = cm.ScalarMappable(colors.Normalize(vmin, top), cmap)
    return mappable.to_rgba(values)[:, :3], mappable


def shaded_mesh(
    ax,
    vertices,
    triangles,
    colours=None,
    *,
    frame: Frame = "model",
    alpha: float = 1.0,
    lit: bool = True,
    light: Sequence[float] = KEY_LIGHT,
    pixels: int = 700,
    zorder: float = 2,
):
    """Draw a mesh as seen along its z axis, with smooth shading and without seams.

    Empty axes get limits and an equal aspect ratio, and lose their ticks; axes that show a picture keep their limits.

    Args:
        ax: The matplotlib axes.
        vertices: Vertices, ``(V, 3)`` array or tensor.
        triangles: Triangles, ``(T, 3)``, counter-clockwise seen from outside in the model frame.
        colours: Vertex colours, ``(V, 3)`` sRGB in [0, 1] (see also :func:`colour_by`); clay if omitted.
        frame: ``"model"`` (y up) or ``"pixels"`` (y down).
        alpha: Opacity of the whole mesh.
        lit: Whether to shade; set it to False for colours that encode values.
        light: Direction to the main lamp, y up.
        pixels: Length of the longer side of the rendered picture.
        zorder: Drawing order.

    Returns:
        The ``AxesImage``.

    Raises:
        ShapeError: If an array has the wrong shape.
        ValueRangeError: If a value is not finite or an index is out of range.
    """
    _check_frame(frame)
    points, faces = check_mesh(vertices, triangles)
    if colours is not None:
        colours = _array(colours).astype(np.float64)
        if colours.shape != points.shape:
            raise ShapeError(f"colours: found shape {colours.shape}; expected {points.shape}")
    empty = not ax.has_data()
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    extent = high - low
    scale = pixels / float(extent.max() or 1)  # pixels of the picture per unit
    width, height = (int(np.ceil(side * scale)) + 2 for side in extent)
    down = frame == "pixels"
    left, top = low[0] - 1 / scale, (low[1] - 1 / scale if down else high[1] + 1 / scale)
    placed = np.stack(
        [
            (points[:, 0] - left) * scale - 0.5,
            (points[:, 1] - top) * scale * (1 if down else -1) - 0.5,
            points[:, 2] * scale,
        ],
        axis=1,
    )
    picture = render_mesh(placed, faces, colours, width, height, light=light, lit=lit)
    picture[..., 3] *= alpha
    right, bottom = left + width / scale, top + height / scale * (1 if down else -1)
    limits = (ax.get_xlim(), ax.get_ylim())
    image = ax.imshow(
        picture, extent=(left, right, bottom, top), interpolation="antialiased", zorder=zorder, aspect="equal"
    )
    if empty:
        room = _MARGIN * float(extent.max())
        ax.set_xlim(low[0] - room, high[0] + room)
        ax.set_ylim(*((high[1] + room, low[1] - room) if down else (low[1] - room, high[1] + room)))
        ax.set_axis_off()
    else:
        ax.set_xlim(limits[0])
        ax.set_ylim(limits[1])
    return image


def overlay(ax, photo, vertices, triangles, alpha: float = 0.6, *, colours=None, landmarks=None, visible=None):
    """Draw a mesh over the photo that it was fitted to.

    Args:
        ax: The matplotlib axes.
        photo: Photo, ``(H, W, 3)`` or ``(H, W)``, 8-bit or floats in [0, 1].
        vertices: Vertices, ``(V, 3)`` in pixels of the photo: 0-based, y down, z towards the viewer.
        triangles: Triangles, ``(T, 3)``.
        alpha: Opacity of the mesh.
        colours: Vertex colours, ``(V, 3)`` sRGB; clay by default.
        landmarks: Landmarks to draw on top, ``(68, 2 or 3)`` in pixels.
        visible: Visibility of the landmarks, ``(68,)``.

    Returns:
        The ``AxesImage`` of the mesh.
    """
    photo = _array(photo)
    if photo.ndim not in (2, 3) or (photo.ndim == 3 and photo.shape[2] not in (3, 4)):
        raise ShapeError(f"photo: found shape {photo.shape}; expected (H, W) or (H, W, 3)")
    ax.imshow(photo, cmap="gray" if photo.ndim == 2 else None)
    image = shaded_mesh(ax, vertices, triangles, colours, frame="pixels", alpha=alpha)
    if landmarks is not None:
        draw_landmarks(ax, landmarks, visible=visible)
    ax.set_axis_off()
    return image


# ------------------------------------------------------------------------------------------------------ contact sheets
def turn(vertices: np.ndarray, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """Rotate vertices ``(V, 3)`` in the model frame; angles in degrees."""
    angles = torch.deg2rad(torch.tensor([pitch, yaw, roll], dtype=torch.float64))
    return _array(vertices).astype(np.float64) @ euler_to_matrix(angles).numpy().T


def contact_sheet(
    model: MorphableModel,
    num: int = 8,
    yaws: Sequence[float] = (0.0, 30.0, 60.0, 90.0, -45.0),
    *,
    shape=None,
    expression=None,
    labels: Sequence[str] | None = None,
    coloured: bool = True,
    landmarks: bool = False,
    seed: int = 0,
    clip: float = 2.0,
    cell: float = 1.5,
    pixels: int = 240,
):
    """Many faces, each seen from several sides.

    Args:
        model: Face model.
        num: Number of random neutral identities, if neither ``shape`` nor ``expression`` is given.
        yaws: Yaw angles of the views in degrees; positive turns the nose to the left of the picture.
        shape: Raw shape coefficients of the faces to show, ``(N, Ks)``.
        expression: Raw expression coefficients of the faces to show, ``(N, Ke)``.
        labels: One label per face.
        coloured: Whether to use the model's colours (random ones for random faces), if it has any.
        landmarks: Whether to draw the 68 landmarks.
        seed: Seed of the random faces.
        clip: Random coefficients are clipped to this many standard deviations.
        cell: Side of a cell in inches.
        pixels: Resolution of a face in pixels.

    Returns:
        The matplotlib figure: one column per face, one row per view.
    """
    pyplot = require("matplotlib.pyplot", "book", "contact_sheet")
    generator = torch.Generator().manual_seed(seed)
    if shape is None and expression is None:
        shape, expression = model.sample(num, generator=generator, clip=clip, expression=False)
        varied = True
    else:
        varied = False
    with torch.no_grad():
        faces = model.decode(shape, expression).cpu().numpy()
        num = len(faces)
        paint: list = [None] * num
        if coloured and model.albedo_mean is not None:
            albedo = model.sample_albedo(num, generator=generator, clip=clip) if varied else None
            decoded = model.decode_albedo(albedo).cpu().numpy()
            paint = [decoded[i if varied else 0] for i in range(num)]
    triangles = model.triangles.cpu().numpy()
    marks = model.landmarks.cpu().numpy()
    rows = len(yaws)
    figure, axes = pyplot.subplots(rows, num, figsize=(cell * num, cell * 1.25 * rows), squeeze=False)
    centre = (faces[0].min(axis=0) + faces[0].max(axis=0)) / 2
    views = [[turn(face - centre, yaw) for yaw in yaws] for face in faces]
    half = np.abs(np.asarray(views)).max(axis=(0, 1, 2)) * (1 + _MARGIN)
    for column in range(num):
        for row in range(rows):
            ax = axes[row, column]
            turned = views[column][row]
            shaded_mesh(ax, turned, triangles, paint[column], pixels=pixels)
            if landmarks:
                draw_landmarks(ax, turned[marks], visible=visible_vertices(turned, triangles, marks), size=2)
            # All faces share one scale, so that they can be compared.
            ax.set_xlim(-half[0], half[0])
            ax.set_ylim(-half[1], half[1])
            if labels is not None and row == 0:
                ax.set_title(labels[column], fontsize=8)
    figure.subplots_adjust(left=0, right=1, bottom=0, top=0.95 if labels is not None else 1, wspace=0, hspace=0)
    return figure
