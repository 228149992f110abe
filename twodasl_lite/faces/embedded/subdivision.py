"""Catmull-Clark subdivision with semi-sharp creases, on polygon meshes held as index arrays.

The rules are those of Catmull and Clark (1978), with the boundary and semi-sharp crease rules of DeRose,
Kass and Truong (1998, "Subdivision surfaces in character animation", section 3). A refinement depends on
the connectivity alone, so it is built once and applied to any positions: the map from cage to surface is
linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Edge = tuple[int, int]


def edge_key(a: int, b: int) -> Edge:
    """Return the undirected edge between two vertices."""
    return (a, b) if a < b else (b, a)


@dataclass
class PolygonMesh:
    """Connectivity of a polygon mesh.

    Attributes:
        num_vertices: number of vertices V.
        faces: vertex loops, counter-clockwise seen from outside.
        creases: semi-sharp edges and their sharpness (0: smooth; k: sharp for the first k subdivisions).
        mirror: for every vertex the index of its mirror image.
        tags: one label per face, inherited by its children.
    """

    num_vertices: int
    faces: list[tuple[int, ...]]
    creases: dict[Edge, float]
    mirror: np.ndarray
    tags: list[str]


def orient(faces: list[tuple[int, ...]], seed: int = 0) -> list[tuple[int, ...]]:
    """Turn all faces of each connected piece to agree with its first face (or with ``seed``).

    Args:
        faces: vertex loops of a manifold mesh, in any orientation.
        seed: index of the face that is already right.

    Returns:
        The same faces, some reversed.

    Raises:
        ValueError: if an edge has more than two faces.
    """
    by_edge: dict[Edge, list[int]] = {}
    for index, face in enumerate(faces):
        for a, b in zip(face, face[1:] + face[:1], strict=True):
            by_edge.setdefault(edge_key(a, b), []).append(index)
    crowded = {edge: owners for edge, owners in by_edge.items() if len(owners) > 2}
    if crowded:
        raise ValueError(f"faces: expected at most two faces per edge, found {crowded}")
    result = list(faces)
    done = [False] * len(faces)
    for start in [seed, *range(len(faces))]:
        if done[start]:
            continue
        done[start] = True
        stack = [start]
        while stack:
            current = stack.pop()
            loop = result[current]
            for a, b in zip(loop, loop[1:] + loop[:1], strict=True):
                for other in by_edge[edge_key(a, b)]:
                    if done[other]:
                        continue
                    done[other] = True
                    directed = set(zip(result[other], result[other][1:] + result[other][:1], strict=True))
                    if (a, b) in directed:
                        result[other] = result[other][::-1]
                    stack.append(other)
    return result


class Refinement:
    """One step of Catmull-Clark subdivision of a mesh.

    The children are ordered: vertex points, then edge points, then face points; a cage vertex therefore
    keeps its index.

    Attributes:
        child: connectivity of the refined mesh.
    """

    def __init__(self, mesh: PolygonMesh) -> None:
        """Build the index arrays of the step from the connectivity of ``mesh``."""
        self.parent = mesh
        num_vertices, faces = mesh.num_vertices, mesh.faces
        edge_index: dict[Edge, int] = {}
        edge_faces: list[list[int]] = []
        for face_index, face in enumerate(faces):
            for a, b in zip(face, face[1:] + face[:1], strict=True):
                key = edge_key(a, b)
                if key not in edge_index:
                    edge_index[key] = len(edge_faces)
                    edge_faces.append([])
                edge_faces[edge_index[key]].append(face_index)
        self.edges = np.array(list(edge_index), dtype=np.int64)  # (E, 2)
        num_edges = len(self.edges)
        self.boundary = np.array([len(owners) == 1 for owners in edge_faces])
        self.edge_faces = np.array([(owners[0], owners[-1]) for owners in edge_faces], dtype=np.int64)  # (E, 2)
        sharp = np.array([mesh.creases.get(edge_key(*map(int, e)), 0.0) for e in self.edges])
        self.edge_blend = np.where(self.boundary, 1.0, np.clip(sharp, 0.0, 1.0))  # 1: midpoint rule

        self.corner_vertex = np.concatenate([np.array(face) for face in faces])
        self.corner_face = np.repeat(np.arange(len(faces)), [len(face) for face in faces])
        self.face_size = np.array([len(face) for face in faces])
        self.valence = np.bincount(self.edges.ravel(), minlength=num_vertices).astype(float)
        self.face_valence = np.bincount(self.corner_vertex, minlength=num_vertices).astype(float)

        is_sharp = self.boundary | (sharp > 0)
        sharp_edges = self.edges[is_sharp]
        count = np.bincount(sharp_edges.ravel(), minlength=num_vertices)
        weight = np.where(self.boundary, 1.0, np.clip(sharp, 0.0, 1.0))[is_sharp]
        total = np.zeros(num_vertices)
        np.add.at(total, sharp_edges[:, 0], weight)
        np.add.at(total, sharp_edges[:, 1], weight)
        mean_weight = total / np.maximum(count, 1)
        self.crease_blend = np.where(count == 2, mean_weight, 0.0)
        self.corner_blend = np.where(count > 2, mean_weight, 0.0)
        self.sharp_edges = sharp_edges

        first_face = num_vertices + num_edges
        children: list[tuple[int, ...]] = []
        tags: list[str] = []
        for face_index, face in enumerate(faces):
            size = len(face)
            for k in range(size):
                after = num_vertices + edge_index[edge_key(face[k], face[(k + 1) % size])]
                before = num_vertices + edge_index[edge_key(face[k - 1], face[k])]
                children.append((face[k], after, first_face + face_index, before))
                tags.append(mesh.tags[face_index])
        creases: dict[Edge, float] = {}
        for (a, b), value in mesh.creases.items():
            if value > 1.0 and edge_key(a, b) in edge_index:
                middle = num_vertices + edge_index[edge_key(a, b)]
                creases[edge_key(a, middle)] = creases[edge_key(b, middle)] = value - 1.0
        mirrored_edges = mesh.mirror[self.edges]
        mirror_edge = np.array([edge_index[edge_key(int(a), int(b))] for a, b in mirrored_edges], dtype=np.int64)
        by_set = {frozenset(face): index for index, face in enumerate(faces)}
        mirror_face = np.array([by_set[frozenset(mesh.mirror[list(face)].tolist())] for face in faces], dtype=np.int64)
        mirror = np.concatenate([mesh.mirror, num_vertices + mirror_edge, first_face + mirror_face])
        self.child = PolygonMesh(first_face + len(faces), children, creases, mirror, tags)

    def apply(self, positions: np.ndarray) -> np.ndarray:
        """Refine positions.

        Args:
            positions: cage positions, (V, 3).

        Returns:
            Positions of the refined mesh, (V + E + F, 3).
        """
        num_vertices = self.parent.num_vertices
        face_points = _scatter(positions[self.corner_vertex], self.corner_face, len(self.face_size))
        face_points /= self.face_size[:, None]  # (F, 3)
        ends = positions[self.edges]  # (E, 2, 3)
        middle = ends.mean(axis=1)
        smooth = 0.5 * middle + 0.5 * face_points[self.edge_faces].mean(axis=1)
        blend = self.edge_blend[:, None]
        edge_points = blend * middle + (1.0 - blend) * smooth  # (E, 3)

        valence = np.maximum(self.valence, 1.0)[:, None]
        face_mean = _scatter(face_points[self.corner_face], self.corner_vertex, num_vertices)
        face_mean /= np.maximum(self.face_valence, 1.0)[:, None]
        edge_mean = (
            _scatter(middle, self.edges[:, 0], num_vertices) + _scatter(middle, self.edges[:, 1], num_vertices)
        ) / valence
        smooth_vertices = (face_mean + 2.0 * edge_mean + (valence - 3.0) * positions) / valence

        a, b = self.sharp_edges.T
        neighbours = _scatter(positions[b], a, num_vertices) + _scatter(positions[a], b, num_vertices)
        crease_vertices = 0.75 * positions + 0.125 * neighbours
        crease, corner = self.crease_blend[:, None], self.corner_blend[:, None]
        vertices = (1.0 - crease - corner) * smooth_vertices + crease * crease_vertices + corner * positions
        return np.concatenate([vertices, edge_points, face_points])


def _scatter(values: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Sum rows of ``values`` (N, 3) into ``size`` bins."""
    return np.stack([np.bincount(index, values[:, c], minlength=size) for c in range(3)], axis=1)


def interpolate(refinements: list[Refinement], targets: np.ndarray, steps: int, damping: float = 1.0) -> np.ndarray:
    """Find the cage whose subdivision surface passes (nearly) through ``targets``.

    A fixed-point iteration: every cage vertex is moved by what its refined position misses.

    Args:
        refinements: consecutive refinement steps.
        targets: wanted positions of the cage vertices on the surface, (V, 3), mm.
        steps: iterations; few steps leave sharp detail slightly softened.
        damping: share of the miss corrected in each step.

    Returns:
        Cage positions, (V, 3), mm.
    """
    cage = targets.copy()
    for _ in range(steps):
        surface = cage
        for refinement in refinements:
            surface = refinement.apply(surface)
        cage = cage + damping * (targets - surface[: len(targets)])
    return cage


def triangulate(mesh: PolygonMesh, coarse: Refinement, is_coarse: list[bool]) -> list[tuple[int, int, int]]:
    """Triangulate the finest level, leaving the previous level's faces where detail is not needed.

    Args:
        mesh: finest mesh (``coarse.child``).
        coarse: the last refinement step; its parent's faces are the coarse ones.
        is_coarse: for every parent face whether it stays unrefined.

    Returns:
        Triangles over the vertices of ``mesh``. Vertices that only coarse faces would need stay unused. A
        coarse face beside a fine one keeps the shared edge's middle vertex, so there is no crack.
    """
    parent = coarse.parent
    edge_index = {tuple(edge): k for k, edge in enumerate(coarse.edges.tolist())}
    fine_edge = np.zeros(len(coarse.edges), dtype=bool)
    for k, owners in enumerate(coarse.edge_faces.tolist()):
        fine_edge[k] = not all(is_coarse[owner] for owner in owners)
    triangles: list[tuple[int, int, int]] = []
    child = 0
    for index, face in enumerate(parent.faces):
        size = len(face)
        quads = mesh.faces[child : child + size]
        child += size
        if not is_coarse[index]:
            for a, b, c, d in quads:
                triangles += [(a, b, d), (b, c, d)]
            continue
        loop: list[int] = []
        for a, b in zip(face, face[1:] + face[:1], strict=True):
            loop.append(a)
            k = edge_index[edge_key(a, b)]
            if fine_edge[k]:
                loop.append(parent.num_vertices + k)
        if len(loop) == 4:
            a, b, c, d = loop
            triangles += [(a, b, d), (b, c, d)]
        elif len(loop) == 5:  # one split edge: join its middle to the far side
            middle = max(loop)
            at = loop.index(middle)
            b, c, d, a = (loop[(at + k) % 5] for k in range(1, 5))
            triangles += [(a, middle, d), (middle, b, c), (middle, c, d)]
        else:
            centre = parent.num_vertices + len(coarse.edges) + index
            triangles += [(p, q, centre) for p, q in zip(loop, loop[1:] + loop[:1], strict=True)]
    return triangles
