"""Measurements of a head model: its distance to another surface, its symmetry, its folds.

Float64 tensors throughout; vertices are rows ``(V, 3)`` in millimetres, triangles ``(T, 3)`` vertex indices.
Nothing here uses the package, so that the measurements can test it independently.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

POINTS_AT_ONCE = 128  # rows of the distance table that is held in memory
TRIANGLES_TRIED = 48  # per point, before all the others are ruled out or tried too


class Similarity(NamedTuple):
    """``x -> scale * rotation x + translation``."""

    scale: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor

    def __call__(self, points: torch.Tensor) -> torch.Tensor:
        return self.scale * points @ self.rotation.T + self.translation


def align_similarity(source: torch.Tensor, target: torch.Tensor) -> Similarity:
    """Least-squares similarity, never a reflection, from ``source`` (N, 3) to ``target`` (Umeyama 1991)."""
    source_mean, target_mean = source.mean(dim=0), target.mean(dim=0)
    source_centred, target_centred = source - source_mean, target - target_mean
    u, singular, vt = torch.linalg.svd(target_centred.T @ source_centred)
    sign = torch.ones(3, dtype=source.dtype)
    sign[2] = torch.sign(torch.linalg.det(u @ vt))
    rotation = u @ torch.diag(sign) @ vt
    scale = (singular * sign).sum() / source_centred.square().sum()
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


# -------------------------------------------------------------------------------------- distance to a surface
def distance_to_segments(points: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Distance of each point to its segment; shapes broadcast, the last dimension is 3."""
    along = end - start
    length2 = along.square().sum(dim=-1)
    position = ((points - start) * along).sum(dim=-1) / length2.clamp_min(1e-30)
    return (points - start - position.clamp(0, 1)[..., None] * along).norm(dim=-1)


def distance_to_triangles(points: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """Distance of points (..., 3) to triangles with corners (..., 3, 3), pair by pair."""
    a, b, c = corners.unbind(dim=-2)
    to_edges = torch.stack([distance_to_segments(points, *edge) for edge in ((a, b), (b, c), (c, a))]).amin(dim=0)
    normal = torch.linalg.cross(b - a, c - a)
    twice_area = normal.norm(dim=-1)
    normal = normal / twice_area.clamp_min(1e-30)[..., None]
    # Right of no edge: the foot of the perpendicular lies inside the triangle.
    sides = [
        (torch.linalg.cross(end - start, points - start) * normal).sum(dim=-1)
        for start, end in ((a, b), (b, c), (c, a))
    ]
    inside = (torch.stack(sides) >= 0).all(dim=0) & (twice_area > 1e-12)
    to_plane = ((points - a) * normal).sum(dim=-1).abs()
    return torch.where(inside, to_plane, to_edges)


def distance_to_surface(points: torch.Tensor, vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Exact distance of each point (N, 3) to a mesh, ``(N,)``.

    A triangle cannot be closer than its centroid less its radius. The triangles with the least such bound are
    tried; where the bound of the next one does not rule out the rest, so are all the others.
    """
    corners = vertices[triangles]  # (T, 3, 3)
    centroids = corners.mean(dim=1)
    radii = (corners - centroids[:, None]).norm(dim=-1).amax(dim=1)
    tried = min(TRIANGLES_TRIED, len(triangles) - 1)
    result = []
    for some in points.split(POINTS_AT_ONCE):
        bound = torch.cdist(some, centroids) - radii  # (n, T)
        least, which = bound.topk(tried + 1, largest=False)
        distance = distance_to_triangles(some[:, None], corners[which]).amin(dim=1)
        for row in (distance > least[:, -1]).nonzero().flatten().tolist():
            candidates = bound[row] < distance[row]
            distance[row] = distance_to_triangles(some[row], corners[candidates]).amin()
        result.append(distance)
    return torch.cat(result)


def triangles_of(triangles: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """The triangles whose three corners belong to a region (vertex indices)."""
    member = torch.zeros(int(max(triangles.max(), region.max())) + 1, dtype=torch.bool)
    member[region] = True
    return triangles[member[triangles].all(dim=1)]


# ----------------------------------------------------------------------------------------- symmetry and folds
def mirror_of(vertices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """For each vertex the one closest to its reflection in x = 0.

    Returns:
        ``(V,)`` its index and ``(V,)`` how far it is from the reflection.
    """
    reflected = vertices * torch.tensor([-1.0, 1.0, 1.0], dtype=vertices.dtype)
    index, distance = [], []
    for some in reflected.split(POINTS_AT_ONCE):
        # The fast form of the distance is off by more than a test tolerates: it only picks candidates.
        candidates = torch.cdist(some, vertices).topk(4, largest=False).indices  # (n, 4)
        exact = (some[:, None] - vertices[candidates]).norm(dim=-1).min(dim=1)
        index.append(candidates.gather(1, exact.indices[:, None])[:, 0])
        distance.append(exact.values)
    return torch.cat(index), torch.cat(distance)


def triangle_normals(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Normals (..., T, 3), of length twice the area, of meshes with vertices (..., V, 3)."""
    a, b, c = vertices[..., triangles, :].unbind(dim=-2)
    return torch.linalg.cross(b - a, c - a)


def count_flipped(faces: torch.Tensor, reference: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """How many triangles of each face (N, V, 3) are turned over against the reference, or empty; ``(N,)``."""
    agreement = (triangle_normals(faces, triangles) * triangle_normals(reference, triangles)).sum(dim=-1)
    return (agreement <= 0).sum(dim=-1)


def signed_volume(vertices: torch.Tensor, triangles: torch.Tensor) -> torch.Tensor:
    """Volume that a mesh encloses; positive if its triangles are counter-clockwise seen from outside."""
    a, b, c = (vertices - vertices.mean(dim=0))[triangles].unbind(dim=1)
    return (a * torch.linalg.cross(b, c)).sum() / 6
