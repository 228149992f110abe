"""Landmarks by registration: the embedded face is fitted to a model's average face and its landmarks are read off.

An iterative closest point fit (Besl and McKay 1992) with the embedded model's own shape components as the allowed
deformations, point to plane (Chen and Medioni 1992): each round finds the nearest vertex of the other surface for every
point of the embedded face, and one least-squares step moves, rotates, scales and deforms it towards the planes found.
Both faces look along +z and are in millimetres, so no rough alignment by hand is needed: the fit starts with the tips
of the noses, the points nearest to the viewer, on top of each other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from twodasl_lite.base.errors import ValueRangeError, require
from twodasl_lite.faces.build import align
from twodasl_lite.geometry.landmarks import MIRROR

_ROUNDS = 30
_REACH = (25.0, 6.0)  # mm: how far a nearest vertex may be, in the first and in the last round
_PRIOR = 4.0  # a shape coefficient of one standard deviation costs as much as this many points that are 1 mm off
_KNOWN_WEIGHT = 20.0  # weight of a known landmark; a point of the surface has 1
_MIN_KNOWN = 4  # smallest number of known landmarks for a similarity transform
_EVERY = 3  # every third point of the embedded face is enough
_ALIKE = 0.5  # smallest cosine between the normals of partners
_FITTING = 0.6  # share of points that find a partner in the end; on faces it is above 0.9
_POSE = 7  # parameters of rotation, shift and scale
_FRONT = 95.0  # mm behind the tip of the nose; nothing farther back is compared, because heads differ there


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals ``(V, 3)`` of a mesh; zero where a vertex has no triangle."""
    a, b, c = (points[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], face)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.maximum(length, 1e-12)


def _skin(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Indices of the vertices of the largest connected piece: the skin, without eyeballs, teeth and the like."""
    csgraph = require("scipy.sparse.csgraph", "models", "finding landmarks by registration")
    from scipy.sparse import coo_matrix

    edges = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(points), len(points)))
    _, label = csgraph.connected_components(graph, directed=False)
    return np.flatnonzero(label == np.bincount(label).argmax())


def derive_landmarks(mean: np.ndarray, triangles: np.ndarray, known: Mapping[int, int] | None = None) -> torch.Tensor:
    """The 68 vertices of a face model.

    Args:
        mean: ``(V, 3)`` in millimetres, x right, y up, z towards the viewer.
        triangles: ``(T, 3)`` counter-clockwise.
        known: Landmarks whose vertices are known; they are kept, and guide the fit.

    Returns:
        ``(68,)`` int64.

    Raises:
        MissingDependencyError: If scipy is not installed.
        ValueRangeError: If the surface is not a face, or not in this frame and unit.
    """
    spatial = require("scipy.spatial", "models", "finding landmarks by registration")
    from twodasl_lite.faces.embedded.recipe import embedded_face_model

    known = dict(known or {})
    mean = np.asarray(mean, np.float64)
    skin = _skin(mean, triangles) if len(triangles) else np.arange(len(mean))
    normals = vertex_normals(mean, triangles)
    skin = np.union1d(skin, np.fromiter(known.values(), np.int64, len(known)))
    face = embedded_face_model()
    template = face.mean.double().numpy()
    basis = (face.shape_basis * face.shape_std).double().numpy()  # (V, 3, K) per standard deviation
    template_normals = vertex_normals(template, face.triangles.numpy())
    marks = face.landmarks.numpy()
    tip = template[marks[30]]

    points = np.union1d(face.regions["face"].numpy(), face.regions["nose"].numpy())
    points = points[template[points, 2] > tip[2] - _FRONT][::_EVERY]

    # The starting point.
    target_tip = mean[skin[mean[skin, 2].argmax()]]
    rotation, scale, shift = np.eye(3), 1.0, target_tip - tip
    if len(known) >= _MIN_KNOWN:
        places = np.fromiter(known, np.int64, len(known))
        start = align(
            torch.from_numpy(template[marks[places]]),
            torch.from_numpy(mean[[known[k] for k in places]]),
            with_scale=True,
        )
        rotation, scale, shift = start.rotation.numpy(), float(start.scale), start.translation.numpy()

    tree = spatial.cKDTree(mean[skin])
    shape = np.zeros(basis.shape[-1])
    fixed = np.fromiter(known, np.int64, len(known))
    vertex = np.array([known[k] for k in fixed], np.int64)
    for step in range(_ROUNDS):
        reach = _REACH[0] + (_REACH[1] - _REACH[0]) * step / (_ROUNDS - 1)
        placed = scale * (template + basis @ shape) @ rotation.T + shift
        centre = placed[points].mean(axis=0)
        distance, nearest = tree.query(placed[points], distance_upper_bound=reach)
        partner = skin[np.minimum(nearest, len(skin) - 1)]
        # A nearest vertex that looks the other way belongs to another sheet of the surface.
        alike = ((template_normals[points] @ rotation.T) * normals[partner]).sum(axis=1) > _ALIKE
        found = np.isfinite(distance) & alike

        def rows(which, normal, target, placed=placed, centre=centre, linear=scale * rotation):
            """Coefficients and values of ``normal . (target - moved point) = 0``, linear in the step."""
            arm = placed[which] - centre
            matrix = np.concatenate(
                [
                    np.cross(arm, normal),
                    normal,
                    (arm * normal).sum(axis=1, keepdims=True),
                    np.einsum("nc,ncK->nK", normal @ linear, basis[which]),
                ],
                axis=1,
            )
            return matrix, ((target - placed[which]) * normal).sum(axis=1)

        systems = [rows(points[found], normals[partner[found]], mean[partner[found]])]
        for axis in np.eye(3):  # a known landmark is pulled in all three directions
            matrix, value = rows(marks[fixed], np.tile(axis, (len(fixed), 1)), mean[vertex])
            systems.append((_KNOWN_WEIGHT**0.5 * matrix, _KNOWN_WEIGHT**0.5 * value))
        matrix, value = (np.concatenate(part) for part in zip(*systems, strict=True))
        prior = np.concatenate([np.full(_POSE, 1e-6), np.full(len(shape), _PRIOR)])
        # The prior applies to the coefficients themselves, not to this step.
        now = np.concatenate([np.zeros(_POSE), shape])
        update = np.linalg.solve(matrix.T @ matrix + np.diag(prior), matrix.T @ value - prior * now)
        turn, growth = _rotation(update[:3]), np.exp(np.clip(update[6], -0.2, 0.2))
        rotation, scale = turn @ rotation, growth * scale
        shift = growth * turn @ (shift - centre) + centre + update[3:6]
        shape = np.clip(shape + update[_POSE:], -3, 3)

    share = float(found.mean())
    if share < _FITTING:
        raise ValueRangeError(
            f"landmarks: found a surface that the embedded face does not fit ({share:.0%} of its points lie on it); "
            "expected a face that looks along +z, in its real size, or landmarks to be given"
        )
    deformed = (template + basis @ shape)[marks]
    mirrored = deformed[MIRROR.numpy()] * [-1, 1, 1]
    places = scale * (deformed + mirrored) / 2 @ rotation.T + shift  # (68, 3)
    result = skin[tree.query(places)[1]]
    result[fixed] = [known[k] for k in fixed]
    return torch.from_numpy(result.astype(np.int64))


def _rotation(turn: np.ndarray) -> np.ndarray:
    """Rotation by a small vector: its direction is the axis, its length the angle (Rodrigues)."""
    angle = np.linalg.norm(turn)
    x, y, z = turn / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
