"""UV unwrapping: a face's surface laid out flat, so that a picture can be its texture.

Seen from a point inside the head, each point of the surface has a longitude and a latitude: these are its coordinates
in the picture. Where several layers overlap (the eyeball behind the lid, the inside of the mouth), the outermost keeps
its place, and the layers behind become separate pieces below it. The layout is computed from the average face, so it is
the same for every face of a model. See chapter 17.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.render import rasterize

_SIDE = 512  # pixels of the renderings that determine which layer lies behind which
_POLE = 1.48  # radians of latitude: 85 degrees
_LAYERS = 8  # maximum number of layers; deeper triangles overlap those of another piece
_GAP = 0.006  # between pieces, over the side of the picture
_INNER = 0.5  # scale of pieces that are hidden from the front
_REACH = 100.0  # depths are scaled to this


class Unwrapped(NamedTuple):
    """Texture coordinates of each corner of a mesh.

    A vertex on a seam has several places in the texture, so places have their own indices.

    Attributes:
        places: Texture coordinates in [0, 1], ``(N, 2)``: u to the right, v **up**, (0, 0) the lower left corner of the
            picture, as in OBJ.
        vertices: Index of each place's vertex, ``(N,)``.
        corners: Indices of the places of each triangle's corners, ``(T, 3)``.
        triangles: Indices of the vertices of each triangle, ``(T, 3)``; equal to ``vertices[corners]``.
    """

    places: torch.Tensor
    vertices: torch.Tensor
    corners: torch.Tensor
    triangles: torch.Tensor


class _Piece(NamedTuple):
    """Adjacent triangles: indices ``(T,)``, and places of their corners ``(T, 3, 2)``, roughly in model units."""

    triangles: torch.Tensor
    places: torch.Tensor


def unwrap(model: MorphableModel, triangles: torch.Tensor | None = None) -> Unwrapped:
    """Unwrap a model's average face.

    Args:
        model: The face model.
        triangles: Triangles to unwrap, ``(T, 3)``; by default all.

    Returns:
        Places in a square picture; no two triangles overlap, up to one pixel at a width of 512.

    Raises:
        ValueRangeError: If there are no triangles.
    """
    triangles = (model.triangles if triangles is None else triangles).cpu()
    if not len(triangles):
        raise ValueRangeError("triangles: found none; expected one or more")
    mean = model.mean.detach().cpu().double()
    angles, distance = _directions(mean, mean[model.landmarks.cpu()])
    # The seam runs down the back: the left corners of a triangle across it are moved to the right of its others.
    corners = _without_poles(angles[triangles])  # (T, 3, 2)
    across = corners[..., 0].amax(dim=1) - corners[..., 0].amin(dim=1) > math.pi
    corners[..., 0] += 2 * math.pi * (across[:, None] & (corners[..., 0] < 0))
    scale = float(distance[triangles.unique()].mean())
    flat = corners * scale
    pieces = _parts(_layers(flat, distance[triangles]), triangles, flat)
    return _arranged(pieces, triangles)


def _directions(mean: torch.Tensor, landmarks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Longitude and latitude ``(V, 2)`` of vertices seen from inside the head, and their distance ``(V,)``."""
    low, high = landmarks.amin(dim=0), landmarks.amax(dim=0)
    # In x and y the centre of the landmarks' bounding box, in z the deepest landmark.
    inside = torch.stack([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    away = mean - inside
    across = torch.hypot(away[:, 0], away[:, 2])
    longitude, latitude = torch.atan2(away[:, 0], away[:, 2]), torch.atan2(away[:, 1], across)
    return torch.stack([longitude, latitude], dim=1), away.norm(dim=1)


def _without_poles(corners: torch.Tensor) -> torch.Tensor:
    """Places ``(T, 3, 2)`` in which corners at a pole, whose longitude is undefined, take the mean of the others."""
    polar = corners[..., 1].abs() > _POLE
    u = corners[..., 0]
    reference = torch.where(polar, -math.inf, u).amax(dim=1, keepdim=True)
    near = torch.where(reference - u > math.pi, u + 2 * math.pi, u)  # on the same side of the seam
    others = torch.where(polar, 0.0, near).sum(dim=1, keepdim=True) / (~polar).sum(dim=1, keepdim=True).clamp(min=1)
    others = (others + math.pi) % (2 * math.pi) - math.pi
    longitude = torch.where(polar & torch.isfinite(reference), others, u)
    return torch.stack([longitude, corners[..., 1]], dim=-1)


def _layers(flat: torch.Tensor, distance: torch.Tensor) -> list[torch.Tensor]:
    """Indices of triangles, layer by layer, the outermost first; within a layer none covers another.

    Args:
        flat: Places of the corners, ``(T, 3, 2)``.
        distance: Distance of the corners from the centre of the head, ``(T, 3)``.
    """
    low, high = flat.amin(dim=(0, 1)), flat.amax(dim=(0, 1))
    pixels = (flat - low) * ((_SIDE - 2) / float((high - low).max())) + 0.5
    depth = distance * (_REACH / float(distance.max()))
    first, second = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    outwards = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0] > 0
    layers, left = [], torch.arange(len(flat))
    for number in range(_LAYERS):
        if not len(left):
            break
        # Triangles that face the centre of the head lie behind others and do not belong in the first layer.
        kept = left[outwards[left]] if number == 0 and bool(outwards[left].any()) else left
        while number < _LAYERS - 1:
            behind = _covered(pixels[kept], depth[kept])
            if not bool(behind.any()):
                break
            kept = kept[~behind]
        layers.append(kept)
        rest = torch.ones(len(flat), dtype=torch.bool)
        rest[torch.cat(layers)] = False
        left = rest.nonzero()[:, 0]
    return layers


def _covered(pixels: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Mask ``(T,)`` of triangles that belong to a deeper layer: another hides them at a pixel, and they hide none.

    Where triangles intersect, so that each of them hides another, the half closer to the centre is selected.
    """
    count = len(pixels)
    corners = torch.cat([pixels, depth[..., None]], dim=-1).reshape(1, 3 * count, 3)
    own = torch.arange(3 * count).reshape(count, 3)
    nearest = rasterize(corners, own, _SIDE, _SIDE, cull="none").triangle
    farthest = rasterize(corners * torch.tensor([1.0, 1.0, -1.0]), own, _SIDE, _SIDE, cull="none").triangle
    both = (nearest != farthest) & (farthest >= 0)
    hidden, hiding = torch.zeros(count, dtype=torch.bool), torch.zeros(count, dtype=torch.bool)
    hidden[farthest[both]] = True
    hiding[nearest[both]] = True
    if not bool(hidden.any()) or bool((hidden & ~hiding).any()):
        return hidden & ~hiding
    middle = depth.mean(dim=1)
    return hidden & (middle <= middle[hidden].median())


def _parts(layers: list[torch.Tensor], triangles: torch.Tensor, flat: torch.Tensor) -> list[_Piece]:
    """The first layer as one piece, the others split into connected pieces."""
    pieces = [_Piece(layers[0], flat[layers[0]])]
    for layer in layers[1:]:
        group = _connected(triangles[layer], flat[layer])
        for number in group.unique():
            members = layer[group == number]
            pieces.append(_Piece(members, flat[members] * _INNER))
    return pieces


def _connected(triangles: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
    """A label for each triangle ``(T,)``, the same for those that share vertices at the same place."""
    key = torch.cat([triangles.double().reshape(-1, 1), flat.reshape(-1, 2)], dim=1)
    _, corner = torch.unique(key, dim=0, return_inverse=True)
    corner = corner.reshape(-1, 3)
    group = torch.arange(int(corner.max()) + 1)
    while True:
        least = group[corner].amin(dim=1)  # (T,)
        new = group.scatter_reduce(0, corner.reshape(-1), least.repeat_interleave(3), "amin")
        new = new[new]
        if bool((new == group).all()):
            return group[corner[:, 0]]
        group = new


def _arranged(pieces: list[_Piece], triangles: torch.Tensor) -> Unwrapped:
    """Pack the pieces in rows: the first on top, over the full width, the others below, the tallest first."""
    boxes = [(piece.places.amin(dim=(0, 1)), piece.places.amax(dim=(0, 1))) for piece in pieces]
    sizes = [(high - low).tolist() for low, high in boxes]
    width = max(size[0] for size in sizes)
    gap = _GAP * max(width, sizes[0][1])
    corner: list[tuple[float, float]] = [(0.0, 0.0)] * len(pieces)  # left, top (downwards)
    x, y, shelf = 0.0, sizes[0][1] + gap, 0.0
    for number in sorted(range(1, len(pieces)), key=lambda n: (-sizes[n][1], n)):
        if x > 0 and x + sizes[number][0] > width:
            x, y, shelf = 0.0, y + shelf + gap, 0.0
        corner[number] = (x, y)
        x, shelf = x + sizes[number][0] + gap, max(shelf, sizes[number][1])
    height = y + shelf if len(pieces) > 1 else sizes[0][1]
    scale = (1 - 2 * _GAP) / torch.tensor([width, height], dtype=torch.double)  # the whole square is used
    owner, spot, number_of = [], [], torch.zeros(len(triangles), 3, dtype=torch.long)
    start = 0
    for (members, places), (low, high), (left, top) in zip(pieces, boxes, corner, strict=True):
        right, down = places[..., 0] - low[0] + left, high[1] - places[..., 1] + top
        where = _GAP + scale * torch.stack([right, height - down], dim=-1)  # (t, 3, 2)
        # Corners of one piece with the same vertex and place are merged.
        key = torch.cat([triangles[members].double().reshape(-1, 1), where.reshape(-1, 2)], dim=1)
        unique, index = torch.unique(key, dim=0, return_inverse=True)
        owner.append(unique[:, 0].long())
        spot.append(unique[:, 1:])
        number_of[members] = start + index.reshape(-1, 3)
        start += len(unique)
    return Unwrapped(torch.cat(spot).float(), torch.cat(owner), number_of, triangles)
