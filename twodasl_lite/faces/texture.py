"""Colours for a mesh from the photo that it was fitted to: per vertex, or as a texture.

Visible parts take their colours from the photo, hidden parts from the other half of the face; where that is hidden too,
they take the model's average colours, matched to the skin tone of the rest. These colours include the light of the
photo: they are not an albedo. See chapter 17.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.symmetry import mirrored_vertices as mirrored_vertices
from twodasl_lite.faces.unwrap import Unwrapped
from twodasl_lite.geometry.photos import sample_colours
from twodasl_lite.render import rasterize, vertex_normals, visible_vertices

GRAZING = 0.25
"""Cosine between normal and line of sight below which a vertex's colour is not used; it may be the background's."""
_FACE = (
    "face",
    "eyeball",
    "iris",
    "pupil",
)  # beginnings of region names; without neck and scalp, which landmarks do not determine
_NO_SKIN = ("eyeball", "iris", "pupil", "teeth")  # keep the model's colours where the photo does not show them
_HOLES = ("nostril",)
_SIDE = 512  # pixels of the picture that decides what is seen
_RAMP = 0.35  # above GRAZING, the cosine from which on a colour is fully trusted
_FEATHER = 4  # rings of triangles over which trust falls off
_MIRROR_FROM = 0.3  # trust below which a mirror image is not used
_LEAST_SIDE = 16

TEXTURE_SIDE = 1024
"""Default side of a texture in pixels."""


def face_triangles(model: MorphableModel) -> torch.Tensor:
    """The triangles ``(T, 3)`` of the face proper; all triangles if the model has no region ``face``."""
    if "face" not in model.regions:
        return model.triangles
    kept = torch.zeros(model.num_vertices, dtype=torch.bool, device=model.triangles.device)
    for name, index in model.regions.items():
        if name.startswith(_FACE):
            kept[index] = True
    return model.triangles[kept[model.triangles].all(dim=1)]


def seen_vertices(vertices: torch.Tensor, triangles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Find the vertices that a photo shows well: inside the photo, not occluded, not at a grazing angle.

    Args:
        vertices: Vertices in pixels of the photo, ``(V, 3)``.
        triangles: Triangles of the mesh, ``(T, 3)``.
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.

    Returns:
        Mask of the visible vertices, ``(V,)`` boolean.
    """
    vertices = check_tensor("vertices", vertices, ("V", 3))
    x, y = vertices[:, 0], vertices[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    facing = vertex_normals(vertices, triangles)[:, 2] > GRAZING
    return inside & facing & visible_vertices(vertices[None], triangles, resolution=_SIDE)[0]


def seen_weights(vertices: torch.Tensor, triangles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Weights of a photo's colours, vertex by vertex: 0 where :func:`seen_vertices` is false.

    The weights increase the more directly the surface faces the camera, and fall off towards hidden parts, so that the
    colours blend without a seam.

    Args:
        vertices: Vertices in pixels of the photo, ``(V, 3)``.
        triangles: Triangles of the mesh, ``(T, 3)``.
        height: Height of the photo in pixels.
        width: Width of the photo in pixels.

    Returns:
        Weights from 0 to 1, ``(V,)``.
    """
    seen = seen_vertices(vertices, triangles, height, width)
    facing = vertex_normals(vertices, triangles)[:, 2]
    weights = torch.where(seen, ((facing - GRAZING) / _RAMP).clamp(0.01, 1), 0.0).to(vertices)
    corners = triangles.reshape(-1)
    count = torch.zeros_like(weights).index_add_(0, corners, torch.ones_like(corners, dtype=weights.dtype))
    for _ in range(_FEATHER):
        total = weights[triangles].mean(dim=1).repeat_interleave(3)
        around = torch.zeros_like(weights).index_add_(0, corners, total) / count.clamp(min=1)
        weights = torch.where(count > 0, torch.minimum(weights, around), weights)
    return weights


class _Sources(NamedTuple):
    """Sources of colour: weights of the photo and its mirror image, mirrored vertices ``(V,)``, average ``(V, 3)``."""

    own: torch.Tensor
    mirrored: torch.Tensor
    other: torch.Tensor
    average: torch.Tensor


def _sources(
    photo: np.ndarray, vertices: torch.Tensor, model: MorphableModel, wanted: torch.Tensor | None = None
) -> _Sources:
    """Sources for all vertices; mirror images, which are slow to find, only for the wanted ones."""
    weights = seen_weights(vertices, model.triangles, *photo.shape[:2])
    skin = model.regions.get("face")
    shown = weights > 0
    if skin is not None:
        shown = torch.zeros_like(shown).index_fill(0, skin, True) & shown
    if not bool(shown.any()):
        raise ValueRangeError("vertices: found no part of the face that the photo shows; expected one in its frame")
    well = shown & (weights >= weights[shown].median())
    tone = sample_colours(photo, vertices[well]).clamp(0, 1).median(dim=0).values
    average = tone.expand(len(vertices), 3)
    if model.albedo_mean is not None:
        albedo = model.decode_albedo()[0].to(average)
        average = (albedo * (tone / albedo[well].median(dim=0).values.clamp(min=1e-3))).clamp(0, 1)
        for name, index in model.regions.items():
            if name.startswith(_NO_SKIN):
                average = average.index_copy(0, index, albedo[index])
            elif name.startswith(_HOLES):  # the model is dark inside; their rims, as badly seen, are not
                average = average.index_copy(0, index, tone.expand(len(index), 3))
    other = torch.arange(model.num_vertices, device=vertices.device)
    needed = (weights < 1).nonzero()[:, 0] if wanted is None else wanted[weights[wanted] < 1]
    other = other.index_copy(0, needed, mirrored_vertices(model, needed))
    trusted = ((weights[other] - _MIRROR_FROM) / (1 - _MIRROR_FROM)).clamp(0, 1)
    return _Sources(weights, trusted, other, average)


def _mixed(own: torch.Tensor, mirrored: torch.Tensor, average: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Blend colours ``(N, 3)`` of three sources with weights ``(N, 2)`` of the photo and of its mirror image."""
    first, second = (_smooth(weights[:, column, None]) for column in (0, 1))
    return first * own + (1 - first) * (second * mirrored + (1 - second) * average)


def _smooth(weight: torch.Tensor) -> torch.Tensor:
    return weight * weight * (3 - 2 * weight)


def photo_colours(photo: np.ndarray, vertices: torch.Tensor, model: MorphableModel) -> torch.Tensor:
    """Vertex colours of a face from its photo.

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        vertices: Vertices of the face in pixels of the photo, ``(V, 3)``.
        model: The face model.

    Returns:
        sRGB colours in [0, 1], ``(V, 3)``.

    Raises:
        ValueRangeError: If the photo shows nothing of the face.
    """
    vertices = check_tensor("vertices", vertices, (model.num_vertices, 3))
    found = _sources(photo, vertices, model)
    colours = sample_colours(photo, vertices).clamp(0, 1)
    weights = torch.stack([found.own, found.mirrored], dim=1)
    return _mixed(colours, colours[found.other], found.average, weights)


def photo_texture(
    photo: np.ndarray, vertices: torch.Tensor, model: MorphableModel, unwrapped: Unwrapped, side: int = TEXTURE_SIDE
) -> np.ndarray:
    """Texture of a face, unwrapped to a flat picture, from its photo.

    Sharper than :func:`photo_colours`, because every pixel of the texture looks up its own position in the photo, or
    that of its mirror image where it is hidden.

    Args:
        photo: Photo, ``(H, W, 3)`` uint8 RGB.
        vertices: Vertices of the face in pixels of the photo, ``(V, 3)``.
        model: The face model.
        unwrapped: UV layout of the model, from :func:`twodasl_lite.faces.unwrap.unwrap`.
        side: Side of the texture in pixels.

    Returns:
        Texture ``(side, side, 3)`` uint8 RGB, row 0 at the top: (u, v) is at column ``u side``, row ``(1 - v) side``.
        Pixels outside the pieces take the nearest piece's colour, so that seams do not show.

    Raises:
        ValueRangeError: If the photo shows nothing of the face, or the side is below 16.
    """
    vertices = check_tensor("vertices", vertices, (model.num_vertices, 3))
    if side < _LEAST_SIDE:
        raise ValueRangeError(f"side: found {side}; expected {_LEAST_SIDE} or more pixels")
    found = _sources(photo, vertices, model, unwrapped.triangles.unique())
    photo, vertices = _no_finer(photo, vertices, side)
    at = unwrapped.places * unwrapped.places.new_tensor([side, -side]) + unwrapped.places.new_tensor([-0.5, side - 0.5])
    placed = torch.cat([at, torch.zeros_like(at[:, :1])], dim=1)
    drawn = rasterize(placed[None], unwrapped.corners, side, side, cull="none")
    covered = drawn.covered[0]
    corners = unwrapped.triangles[drawn.triangle[0][covered]]  # (N, 3)
    share = drawn.barycentric[0][covered].to(vertices)[..., None]  # (N, 3, 1)

    def between(values: torch.Tensor) -> torch.Tensor:
        return (values[corners] * share).sum(dim=1)

    weights = between(torch.stack([found.own, found.mirrored], dim=1))
    own = sample_colours(photo, between(vertices))
    mirrored = sample_colours(photo, between(vertices[found.other]))
    colours = _mixed(own, mirrored, between(found.average), weights).clamp(0, 1)
    picture = np.zeros((side, side, 3), np.uint8)
    mask = covered.cpu().numpy()
    picture[mask] = (colours * 255).round().to(torch.uint8).cpu().numpy()
    # Outside the pieces: the colour of the nearest pixel inside one.
    _, labels = cv2.distanceTransformWithLabels(
        (~mask).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    by_label = np.zeros((int(labels.max()) + 1, 3), np.uint8)
    by_label[labels[mask]] = picture[mask]
    return by_label[labels]


def _no_finer(photo: np.ndarray, vertices: torch.Tensor, side: int) -> tuple[np.ndarray, torch.Tensor]:
    """Shrink photo and vertices if the face is larger than its texture; one sample per pixel would alias."""
    extent = float((vertices.amax(dim=0) - vertices.amin(dim=0))[:2].max())
    factor = side / max(extent, 1.0)
    if factor >= 1:
        return photo, vertices
    height, width = photo.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    stretch = vertices.new_tensor([size[0] / width, size[1] / height])
    plane = (vertices[:, :2] + 0.5) * stretch - 0.5
    return cv2.resize(photo, size, interpolation=cv2.INTER_AREA), torch.cat([plane, vertices[:, 2:]], dim=1)
