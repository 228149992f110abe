"""A reconstructed face as one self-contained page: the photo, the mesh on it, and the face to turn.

The page holds the photo, the face model's surface and the script that draws them (``static/viewer.js``); it opens from
disk, without a network and without a kernel. :func:`in_notebook` puts it into a frame for a notebook's output.
See chapter 17.
"""

from __future__ import annotations

import base64
import html
import json
import tempfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import InputTypeError, TwodaslError, ValueRangeError, require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.texture import face_triangles, photo_colours
from twodasl_lite.geometry.camera import matrix_to_euler, split_pose
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.photos import as_photo, read_photo
from twodasl_lite.viz.packing import landmark_groups

SCRIPTS = tuple(Path(__file__).parent / "static" / name for name in ("face.js", "viewer.js", "viewer_page.js"))
PHOTO_SIDE = 1024
"""Longest side of the photo in the page, in pixels."""
NOTEBOOK_BYTES = 4_000_000
"""Largest page in bytes shown in a notebook; a larger one would make the notebook slow to open and to save."""
_MARGIN = 0.35  # margin around the head, as a fraction of its size
_QUALITY = 88  # quality of the JPEG
_STEP = 0.02  # rounding step of surface coordinates, in the model's unit (mm)
_INSIDE = ("mouth", "teeth")  # shown as well, so that an open mouth is not a hole
_GROWTH = 30  # largest number of rings of triangles added around the face
_INT16 = 32767


class ViewedFace(NamedTuple):
    """A face as the viewer shows it.

    Attributes:
        surface: Vertices in the model frame, ``(V, 3)``.
        pose: Pose in the frame of the photo (1-based, y up), ``(3, 4)``.
        colours: Colours of the parts that the photo does not show, ``(V, 3)`` sRGB in [0, 1].
    """

    surface: torch.Tensor
    pose: torch.Tensor
    colours: torch.Tensor


def drawn_triangles(model: MorphableModel) -> torch.Tensor:
    """The triangles ``(T, 3)`` to show: face and mouth, grown ring by ring until they contain all landmarks."""
    face = face_triangles(model)
    if len(face) == len(model.triangles):
        return face
    kept = torch.zeros(model.num_vertices, dtype=torch.bool, device=face.device)
    kept[face] = True
    for name, index in model.regions.items():
        if name.startswith(_INSIDE):
            kept[index] = True
    missing = model.landmarks[~kept[model.landmarks]]
    for _ in range(_GROWTH):
        if bool(kept[missing].all()):
            break
        touched = kept[model.triangles].any(dim=1)
        grown = torch.zeros_like(kept)
        grown[model.triangles[touched]] = True
        kept |= grown
    inside = kept[model.triangles].all(dim=1)
    return model.triangles[inside]


def view_of(coefficients: torch.Tensor, photo: np.ndarray, model: MorphableModel) -> ViewedFace:
    """The face that raw coefficients describe, with the photo's colours; the pose refers to the whole photo.

    Args:
        coefficients: Raw coefficients, ``(D,)``.
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        model: Face model in the coefficients' layout.

    Raises:
        ValueRangeError: If no part of the face lies in the photo.
    """
    coefficients = check_tensor("coefficients", coefficients, (model.layout.size,))
    with torch.no_grad():
        pose, shape, expression = Coefficients.unpack(coefficients[None].to(model.mean), model.layout)
        surface = model.decode(shape, expression)[0]
        placed = surface @ pose[0, :, :3].T + pose[0, :, 3]
    pixels = torch.stack([placed[:, 0] - 1, photo.shape[0] - placed[:, 1], placed[:, 2]], dim=1)
    return ViewedFace(surface, pose[0], photo_colours(photo, pixels, model))


@lru_cache(maxsize=1)
def _script() -> str:
    """Source of the viewer, read once."""
    return "\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS)


def face_viewer_html(
    photo: np.ndarray,
    faces: Sequence[ViewedFace | torch.Tensor],
    model: MorphableModel,
    *,
    title: str = "A face",
    photo_side: int = PHOTO_SIDE,
) -> str:
    """A complete page that shows the faces of a photo.

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        faces: One entry per face: raw coefficients ``(D,)`` with the pose in the photo's frame, or a result of
            :func:`view_of`.
        model: Face model in the coefficients' layout.
        title: Title of the page.
        photo_side: Longest side in pixels of the photo in the page; the photo is cropped around the faces, then shrunk.

    Returns:
        Self-contained HTML.

    Raises:
        InputTypeError: If there is no face.
        ShapeError: If a shape does not match.
        ValueRangeError: If no part of a face lies in the photo.
    """
    photo = as_photo(photo, "photo")
    if isinstance(faces, torch.Tensor) or not len(faces):
        raise InputTypeError("faces: found none; expected a sequence with a face or more")
    if photo_side < 1:
        raise ValueRangeError(f"photo_side: found {photo_side}; expected 1 or more")
    viewed = [face if isinstance(face, ViewedFace) else view_of(face, photo, model) for face in faces]
    window, factor = _window(viewed, photo, photo_side)
    left, top, right, bottom = window
    picture = photo[top:bottom, left:right]
    size = max(1, round((right - left) * factor)), max(1, round((bottom - top) * factor))
    if factor < 1:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    stretch = size[0] / (right - left), size[1] / (bottom - top)
    bottom_edge = photo.shape[0] - bottom
    shown = [(_moved(face.pose, (left, bottom_edge), stretch), face) for face in viewed]

    triangles = drawn_triangles(model)
    used = torch.unique(torch.cat([triangles.reshape(-1), model.landmarks]))
    index = torch.full((model.num_vertices,), -1, dtype=torch.long)
    index[used] = torch.arange(len(used))
    parts: list[tuple[str, np.ndarray]] = [("triangles", index[triangles].numpy().astype("<u4"))]
    described = []
    for number, (pose, face) in enumerate(shown):
        surface = face.surface[used].double()
        middle = (surface.amax(dim=0) + surface.amin(dim=0)) / 2
        reach = float((surface - middle).abs().max())
        step = max(_STEP, reach / _INT16)
        if model.units != "mm":
            step = max(reach / _INT16, 1e-12)
        parts.append((f"surface{number}", ((surface - middle) / step).round().numpy().astype("<i2")))
        parts.append((f"fill{number}", (face.colours[used].clamp(0, 1) * 255).round().numpy().astype("<u1")))
        angles = torch.rad2deg(matrix_to_euler(split_pose(face.pose)[1])).tolist()
        described.append({"pose": pose.reshape(-1).tolist(), "middle": middle.tolist(), "step": step, "angles": angles})
    data = b"".join(array.tobytes() for _, array in parts)
    entries = [{"name": name, "kind": array.dtype.str[1:], "length": array.size} for name, array in parts]
    header = {
        "landmarks": index[model.landmarks].tolist(),
        "landmarkGroups": landmark_groups(),
        "photo": "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii"),
        "list": entries,
        "faces": described,
    }
    return _page(title, header, base64.b64encode(zlib.compress(data, 9)).decode("ascii"))


def _page(title: str, header: dict, data: str) -> str:
    text = json.dumps(header, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{html.escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<style>body { margin: 12px; background: #fff; } @media (prefers-color-scheme: dark) "
        "{ body { background: #16191d; } }</style></head>\n"
        '<body>\n<div id="face-viewer" class="face-viewer">'
        "<noscript>This page draws the face with JavaScript.</noscript></div>\n"
        f'<script type="application/json" id="viewer-header">{text}</script>\n'
        f'<script type="text/plain" id="viewer-data">{data}</script>\n'
        f'<script>\n(() => {{\n"use strict";\n{_script()}\n}})();\n</script>\n</body>\n</html>\n'
    )


def _window(faces: Sequence[ViewedFace], photo: np.ndarray, longest: int) -> tuple[tuple[int, int, int, int], float]:
    """The part of the photo around the faces (left, top, right, bottom; exclusive), and the scale to shrink it by."""
    height, width = photo.shape[:2]
    low, high = torch.tensor([float("inf")] * 2), torch.tensor([-float("inf")] * 2)
    for surface, pose, _ in faces:
        placed = (surface @ pose[:2, :3].T + pose[:2, 3]).cpu()
        pixels = torch.stack([placed[:, 0] - 1, height - placed[:, 1]], dim=1)
        low, high = torch.minimum(low, pixels.amin(dim=0)), torch.maximum(high, pixels.amax(dim=0))
    margin = _MARGIN * float((high - low).max())
    left, top = (int(max(0, v)) for v in (low - margin).floor().tolist())
    right, bottom = (int(v) for v in (high + margin).ceil().tolist())
    left, top = min(left, width - 1), min(top, height - 1)
    window = left, top, max(left + 1, min(width, right)), max(top + 1, min(height, bottom))
    return window, min(1.0, longest / max(window[2] - window[0], window[3] - window[1]))


def _moved(pose: torch.Tensor, corner: tuple[int, int], stretch: tuple[float, float]) -> torch.Tensor:
    """A pose in the frame of a resized part of the photo (1-based, y up from its lower left pixel).

    Pixel edges map to pixel edges: ``v' - 1/2 = k (v - corner - 1/2)``.
    """
    k = pose.new_tensor([*stretch, sum(stretch) / 2])
    moved = pose - torch.cat([pose.new_zeros(3, 3), pose.new_tensor([*corner, 0.0])[:, None]], dim=1)
    moved = moved * k[:, None]
    return moved + torch.cat([pose.new_zeros(3, 3), ((1 - k) / 2 * pose.new_tensor([1, 1, 0]))[:, None]], dim=1)


def in_notebook(page: str, height: int = 720, largest: int = NOTEBOOK_BYTES) -> str:
    """A page as the output of a notebook cell, in a frame of its own that may run scripts and nothing else.

    Args:
        page: Page from :func:`face_viewer_html`.
        height: Height of the frame in pixels.
        largest: Size limit in bytes; a larger page is replaced by a line that says so.

    Returns:
        HTML for ``_repr_html_``.
    """
    size = len(page.encode())
    if size > largest:
        return (
            f"<p>This viewer takes {size / 1e6:.1f} MB, more than the {largest / 1e6:.1f} MB that a notebook is given; "
            "save it as a page instead.</p>"
        )
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{html.escape(page, quote=True)}" title="A reconstructed face" '
        f'style="width: 100%; height: {height}px; border: 0;" loading="lazy"></iframe>'
    )


def notebook_html(photo: np.ndarray, coefficients: Sequence[torch.Tensor], model: MorphableModel) -> str:
    """Notebook output for the faces of a photo: the viewer in a frame, or a line that says why there is none.

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        coefficients: Raw coefficients ``(D,)`` of each face, with the pose in the photo's frame.
        model: Face model in the coefficients' layout.
    """
    faces = []
    for face in coefficients:
        try:
            faces.append(view_of(face, photo, model))
        except ValueRangeError:  # it lies outside the photo
            continue
    if not faces:
        return "<p>No face was found in this photo.</p>"
    return in_notebook(face_viewer_html(photo, faces, model))


def photo_uploader(find: Callable[[np.ndarray], Sequence[torch.Tensor]], model: MorphableModel):
    """An upload button for a running notebook, with the viewer for the photo's faces below. The photo stays local.

    Args:
        find: Function from a photo, ``(H, W, 3)`` uint8 RGB, to the raw coefficients ``(D,)`` of each of its faces,
            with the pose in the photo's frame.
        model: Face model in the coefficients' layout.

    Returns:
        An ipywidgets ``VBox``.

    Raises:
        MissingDependencyError: If ipywidgets is not installed.
    """
    widgets = require("ipywidgets", "book", "uploading a photo")
    button = widgets.FileUpload(accept="image/*", multiple=False, description="Choose a photo")
    note = widgets.Label("It is read by this notebook's kernel and sent nowhere else.")
    shown = widgets.HTML()

    def look(change) -> None:
        if not change["new"]:
            return
        file = change["new"][0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("photo" + Path(file["name"]).suffix)
            path.write_bytes(bytes(file["content"]))
            try:
                photo = read_photo(path)
                shown.value = notebook_html(photo, find(photo), model)
            except TwodaslError as error:
                shown.value = f"<p>{html.escape(str(error).replace(str(path), file['name']))}</p>"

    button.observe(look, names="value")
    return widgets.VBox([widgets.HBox([button, note]), shown])
