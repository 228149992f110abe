"""Colours for a mesh from the photo that it was fitted to.

What the camera saw is read off the photo; what it did not see is taken from the other half of the face, and where that
is hidden too, from the model's average colours, brought to the skin tone of the rest. The light of the photo is in
these colours: they are no albedo. Explained in the chapter "What it is good for".
"""

from __future__ import annotations

import numpy as np
import torch

from twodasl_lite.errors import ValueRangeError, check_tensor
from twodasl_lite.images import sample_colours
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.render import vertex_normals, visible_vertices

GRAZING = 0.25
"""Cosine between normal and line of sight below which a vertex's colour is not trusted: it may be the background's."""
_FACE = (
    "face",
    "eyeball",
    "iris",
    "pupil",
)  # regions begin so: no neck and scalp, of which landmarks tell nothing
_NO_SKIN = ("eyeball", "iris", "pupil", "teeth")  # keep the model's colours where the photo shows none
_SIDE = 512  # pixels of the picture that decides what is seen
_CHUNK = 1024


def face_triangles(model: MorphableModel) -> torch.Tensor:
    """The triangles ``(T, 3)`` of the face proper; all where the model names no regions."""
    if "face" not in model.regions:
        return model.triangles
    kept = torch.zeros(model.num_vertices, dtype=torch.bool, device=model.triangles.device)
    for name, index in model.regions.items():
        if name.startswith(_FACE):
            kept[index] = True
    return model.triangles[kept[model.triangles].all(dim=1)]


def seen_vertices(vertices: torch.Tensor, triangles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Which vertices of a face a photo shows well: in it, not hidden, and not seen at a grazing angle.

    Args:
        vertices: ``(V, 3)`` in pixels of the photo.
        triangles: ``(T, 3)``.
        height: Of the photo.
        width: Likewise.

    Returns:
        ``(V,)`` booleans.
    """
    vertices = check_tensor("vertices", vertices, ("V", 3))
    x, y = vertices[:, 0], vertices[:, 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    facing = vertex_normals(vertices, triangles)[:, 2] > GRAZING
    return inside & facing & visible_vertices(vertices[None], triangles, resolution=_SIDE)[0]


def mirrored_vertices(model: MorphableModel, wanted: torch.Tensor) -> torch.Tensor:
    """The vertex nearest to the mirror image of each of some vertices, on the average face.

    Args:
        model: The face model.
        wanted: ``(N,)`` vertex indices.

    Returns:
        ``(N,)`` vertex indices.
    """
    places = model.mean * model.mean.new_tensor([-1.0, 1.0, 1.0])
    return torch.cat(
        [torch.cdist(places[part], model.mean).argmin(dim=1) for part in wanted.split(_CHUNK)] or [wanted.new_zeros(0)]
    )


def photo_colours(photo: np.ndarray, vertices: torch.Tensor, model: MorphableModel) -> torch.Tensor:
    """Vertex colours of a face from its photo.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        vertices: ``(V, 3)`` of the face in pixels of the photo.
        model: The face model.

    Returns:
        ``(V, 3)`` sRGB in [0, 1].

    Raises:
        ValueRangeError: If the photo shows nothing of the face.
    """
    vertices = check_tensor("vertices", vertices, (model.num_vertices, 3))
    seen = seen_vertices(vertices, model.triangles, *photo.shape[:2])
    skin = model.regions.get("face")
    shown = seen if skin is None else torch.zeros_like(seen).index_fill(0, skin, True) & seen
    if not bool(shown.any()):
        raise ValueRangeError("vertices: found no part of the face that the photo shows; expected one in its frame")
    colours = sample_colours(photo, vertices).clamp(0, 1)
    hidden = (~seen).nonzero()[:, 0]
    other = mirrored_vertices(model, hidden)
    tone = colours[shown].median(dim=0).values
    average = tone.expand_as(colours)
    if model.albedo_mean is not None:
        albedo = model.decode_albedo()[0].to(colours)
        average = (albedo * (tone / albedo[shown].median(dim=0).values.clamp(min=1e-3))).clamp(0, 1)
        for name, index in model.regions.items():
            if name.startswith(_NO_SKIN):
                average = average.index_copy(0, index, albedo[index])
    filled = torch.where(seen[other][:, None], colours[other], average[hidden])
    return colours.index_copy(0, hidden, filled)
