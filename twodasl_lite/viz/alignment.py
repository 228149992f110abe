"""Reconstructed faces over their photo: surface, points, depth and coordinates, as arrays of pixels.

Needs no plotting package. A large photo is drawn smaller, so that 50 megapixels do not take gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import cv2
import numpy as np
import torch

from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.texture import face_triangles, seen_vertices
from twodasl_lite.geometry.landmarks import draw_landmarks
from twodasl_lite.geometry.photos import as_photo
from twodasl_lite.render import (
    Fragments,
    Lamps,
    Picture,
    coordinate_image,
    depth_image,
    linear_to_srgb,
    over,
    rasterize,
    render,
    srgb_to_linear,
    vertex_normals,
)

LARGEST = 2048
"""Longest side of a drawn picture, in pixels."""
SMALLEST = 1024
"""A photo whose longer side is shorter than this, in pixels, is enlarged, because dots and lines need some room."""
SURFACE = (0.78, 0.80, 0.88)
_DOTS = 140  # side of a face divided by the radius of a dot on it
_SUBPIXEL_BITS = 4  # OpenCV draws with subpixel precision when coordinates are integers with this many fractional bits
_LIGHT = Lamps(
    torch.tensor([0.25] * 3),
    torch.tensor([[-0.4, 0.6, 1.0], [0.9, 0.2, 0.5]]),
    torch.tensor([[0.75] * 3, [0.2] * 3]),
)


class Canvas:
    """A photo resized for drawing, and faces in pixels of the resized photo.

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        largest: Upper limit of the longest side, in pixels.
        smallest: Lower limit of the longest side, in pixels.
    """

    def __init__(self, photo: np.ndarray, largest: int = LARGEST, smallest: int = 1) -> None:
        photo = as_photo(photo, "photo")
        height, width = photo.shape[:2]
        longest = max(height, width)
        self.factor = min(max(longest, smallest), largest) / longest
        self.photo = photo
        if self.factor != 1:
            size = max(1, round(width * self.factor)), max(1, round(height * self.factor))
            how = cv2.INTER_AREA if self.factor < 1 else cv2.INTER_CUBIC
            self.photo = cv2.resize(photo, size, interpolation=how)
        self.stretch = torch.tensor([self.photo.shape[1] / width, self.photo.shape[0] / height])

    def place(self, points: torch.Tensor) -> torch.Tensor:
        """Convert points ``(N, 2)`` or ``(N, 3)`` from pixels of the photo to pixels of the picture."""
        plane = (points[:, :2] + 0.5) * self.stretch - 0.5
        return torch.cat([plane, points[:, 2:] * self.stretch.mean()], dim=1)

    def window(self, vertices: torch.Tensor) -> tuple[slice, slice] | None:
        """Rows and columns covered by vertices ``(V, 3)`` in the picture's pixels; none if they lie outside."""
        height, width = self.photo.shape[:2]
        low, high = vertices[:, :2].amin(dim=0).floor(), vertices[:, :2].amax(dim=0).ceil()
        left, top = int(low[0].clamp(0, width)), int(low[1].clamp(0, height))
        right, bottom = int((high[0] + 1).clamp(0, width)), int((high[1] + 1).clamp(0, height))
        return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None


def face_windows(
    canvas: Canvas, faces: Sequence[torch.Tensor]
) -> Iterator[tuple[tuple[slice, slice], torch.Tensor, int, int]]:
    """For each face, small ones first: its window, vertices ``(1, V, 3)`` in it, and the window's height and width."""
    placed = [canvas.place(vertices.cpu()) for vertices in faces]
    for vertices in sorted(placed, key=lambda v: float((v.amax(dim=0) - v.amin(dim=0))[:2].prod())):
        window = canvas.window(vertices)
        if window is None:
            continue
        rows, columns = window
        shift = vertices.new_tensor([columns.start, rows.start, 0])
        yield window, (vertices - shift)[None], rows.stop - rows.start, columns.stop - columns.start


def overlay_picture(
    photo: np.ndarray,
    faces: Sequence[torch.Tensor],
    model: MorphableModel,
    *,
    landmarks: Sequence[torch.Tensor] = (),
    opacity: float = 0.7,
    largest: int = LARGEST,
    smallest: int = SMALLEST,
) -> np.ndarray:
    """The surfaces drawn over the photo.

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        faces: Vertices ``(V, 3)`` of each face in pixels of the photo.
        model: The face model.
        landmarks: Landmarks of each face to draw on top, ``(68, 2)`` or ``(68, 3)``.
        opacity: Opacity of the surface.
        largest: Upper limit of the result's longest side, in pixels.
        smallest: Lower limit of the result's longest side, in pixels.

    Returns:
        The picture, ``(h, w, 3)`` uint8 RGB.
    """
    canvas, triangles = Canvas(photo, largest, smallest), face_triangles(model)
    result = canvas.photo.copy()
    surface = torch.tensor(SURFACE).expand(model.num_vertices, 3)
    for window, vertices, height, width in face_windows(canvas, faces):
        supersample = 2 if max(height, width) <= LARGEST // 2 else 1
        drawn = render(vertices, triangles, surface, height, width, light=_LIGHT, supersample=supersample, cull="back")
        under = torch.from_numpy(result[window].copy()).float()[None] / 255
        mixed = over(Picture(drawn.colour, drawn.alpha * opacity), under)[0]
        result[window] = (mixed * 255).round().to(torch.uint8).numpy()
    for points in landmarks:
        result = draw_landmarks(result, canvas.place(points.cpu()))
    return result


def quick_overlay(
    photo: np.ndarray, faces: Sequence[torch.Tensor], model: MorphableModel, *, opacity: float = 0.7
) -> np.ndarray:
    """:func:`overlay_picture` for the frames of a video: in their own size, several times as quick.

    Light is computed at the vertices instead of the pixels, and the rim is softened by blurring the outline instead of
    drawing it finer.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        faces: Vertices ``(V, 3)`` of each face in pixels of the photo.
        model: The face model.
        opacity: Of the surface.

    Returns:
        ``(H, W, 3)`` uint8 RGB.
    """
    canvas, triangles = Canvas(photo, max(photo.shape)), face_triangles(model)
    result = canvas.photo.copy()
    own, to_linear, to_srgb = srgb_to_linear(torch.tensor(SURFACE)), *_light_tables()
    for window, vertices, height, width in face_windows(canvas, faces):
        light = own * _LIGHT.at(vertex_normals(vertices[0], triangles)[None])[0]  # (V, 3)
        fragments = rasterize(vertices, triangles, height, width, cull="back")
        covered = fragments.covered[0]
        corners, weights = triangles[fragments.triangle[0][covered]], fragments.barycentric[0][covered]  # (P, 3)
        drawn = sum(light[corners[:, k]] * weights[:, k, None] for k in range(3)).numpy()  # (P, 3)
        mask = covered.numpy()
        outline = cv2.blur(mask.astype(np.uint8) * 255, (3, 3), borderType=cv2.BORDER_REPLICATE)[mask]
        alpha = outline.astype(np.float32)[:, None] * (opacity / 255)
        part = result[window]
        under = to_linear[part[mask]]
        mixed = under + alpha * (drawn - under)  # in linear light, as a camera would
        part[mask] = to_srgb[(mixed.clip(0, 1) * (len(to_srgb) - 1) + 0.5).astype(np.int32)]
    return result


@lru_cache(maxsize=1)
def _light_tables() -> tuple[np.ndarray, np.ndarray]:
    """``(256,)`` from sRGB to linear light, and ``(4096,)`` back."""
    to_linear = srgb_to_linear(torch.arange(256) / 255).numpy()
    to_srgb = (linear_to_srgb(torch.arange(4096) / 4095) * 255).round().to(torch.uint8).numpy()
    return to_linear, to_srgb


def dense_picture(
    photo: np.ndarray,
    faces: Sequence[torch.Tensor],
    model: MorphableModel,
    *,
    largest: int = LARGEST,
    smallest: int = SMALLEST,
    every: int = 4,
) -> np.ndarray:
    """The dense alignment: visible vertices as dots, from yellow (near) to blue (far).

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        faces: Vertices ``(V, 3)`` of each face in pixels of the photo.
        model: The face model.
        largest: Upper limit of the result's longest side, in pixels.
        smallest: Lower limit of the result's longest side, in pixels.
        every: Stride through the vertices: 4 draws every fourth one.

    Returns:
        The picture, ``(h, w, 3)`` uint8 RGB.
    """
    canvas = Canvas(photo, largest, smallest)
    result, triangles = canvas.photo.copy(), face_triangles(model)
    used = torch.unique(triangles)[::every]
    for vertices in faces:
        placed = canvas.place(vertices.cpu())
        seen = used[seen_vertices(placed, triangles, *result.shape[:2])[used]]
        if not len(seen):
            continue
        points = placed[seen]
        depth = points[:, 2]
        grey = ((depth - depth.min()) / (depth.max() - depth.min()).clamp(min=1e-6) * 255).to(torch.uint8).numpy()
        colours = cv2.applyColorMap(grey.reshape(-1, 1), cv2.COLORMAP_VIRIDIS)[:, 0, ::-1]
        side = float((points.amax(dim=0) - points.amin(dim=0))[:2].max())
        radius = max(4, round(side / _DOTS * 2**_SUBPIXEL_BITS))
        for (x, y), colour in zip(
            (points[:, :2] * 2**_SUBPIXEL_BITS).round().int().tolist(), colours.tolist(), strict=True
        ):
            cv2.circle(result, (x, y), radius, colour, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)
    return result


def depth_and_coordinates(
    photo: np.ndarray, faces: Sequence[torch.Tensor], model: MorphableModel, *, largest: int = LARGEST
) -> tuple[np.ndarray, np.ndarray]:
    """Depth pictures (white is near, scaled per face) and PNCC pictures of the faces, black where there is no face.

    The pictures are never enlarged: a photo that is not too large keeps its pixels. Arguments are those of
    :func:`overlay_picture`.

    Returns:
        Two pictures ``(h, w, 3)`` uint8.
    """
    canvas, triangles = Canvas(photo, largest), face_triangles(model)
    depth, coordinates = np.zeros_like(canvas.photo), np.zeros_like(canvas.photo)
    for window, vertices, height, width in face_windows(canvas, faces):
        fragments: Fragments = rasterize(vertices, triangles, height, width, cull="back")
        covered = fragments.covered[0].numpy()
        grey = depth_image(fragments)[0, ..., None].expand(-1, -1, 3)
        code = coordinate_image(model.mean, triangles, fragments)[0]
        for picture, values in ((depth, grey), (coordinates, code)):
            picture[window][covered] = (values * 255).round().to(torch.uint8).numpy()[covered]
    return depth, coordinates
