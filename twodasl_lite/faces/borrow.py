"""Colours for a face model that has none, borrowed from the embedded face.

A thin plate spline (Bookstein 1989) through the 51 landmarks inside the face warps the model's average face onto the
embedded one; each vertex then takes the colours and colour components found there. The spline is not anchored to the
jaw line, because different models place its 17 points differently. Eyes take colours from eyes and teeth from teeth if
the model names these parts. See chapter 16.
"""

from __future__ import annotations

import numpy as np
import torch

from twodasl_lite.base.errors import require
from twodasl_lite.faces.embedded.recipe import embedded_face_model
from twodasl_lite.faces.model import MorphableModel

_INNER = slice(17, 68)
_PARTS = (
    (("sclera", "iris", "cornea", "eyeball"), ("eyeball_left", "eyeball_right")),
    (("teeth",), ("teeth_upper", "teeth_lower")),
    (("gum", "tongue", "mouth_socket"), ("mouth_interior",)),
)
"""Words in the names of a model's regions, and the embedded face's regions that have the same colours."""
_NEAREST = 3  # vertices that are mixed for a colour
_SOFTNESS = 0.3  # mm: within this distance vertices count about equally


def borrow_colours(model: MorphableModel) -> MorphableModel:
    """The same model with the colours of the embedded face, so that synthetic worlds can be drawn with it.

    Args:
        model: Face model without colours that looks along +z.

    Returns:
        A model with ``albedo_mean``, ``albedo_basis`` and ``albedo_std``; geometry, components and regions stay. A
        model with colours of its own is returned unchanged.

    Raises:
        MissingDependencyError: If scipy is not installed.
    """
    if model.albedo_mean is not None:
        return model
    interpolate = require("scipy.interpolate", "models", "borrowing colours")
    spatial = require("scipy.spatial", "models", "borrowing colours")
    face = embedded_face_model()
    template, mean = face.mean.double().numpy(), model.mean.double().cpu().numpy()
    marks, own = face.landmarks.numpy()[_INNER], model.landmarks.cpu().numpy()[_INNER]
    bend = interpolate.RBFInterpolator(mean[own], template[marks], kernel="thin_plate_spline", smoothing=1.0)
    placed = bend(mean)  # (V, 3), on the embedded face

    weights = np.zeros((len(mean), _NEAREST))
    index = np.zeros((len(mean), _NEAREST), np.int64)
    for where, source in _shares(model, face):
        distance, nearest = spatial.cKDTree(template[source]).query(placed[where], k=_NEAREST)
        weights[where] = 1 / (distance + _SOFTNESS)
        index[where] = source[nearest]
    weights /= weights.sum(axis=1, keepdims=True)

    def take(values: torch.Tensor) -> torch.Tensor:
        mixed = np.einsum("vn,vn...->v...", weights, values.double().numpy()[index])
        return torch.from_numpy(mixed).to(model.mean)

    return model.replace(
        albedo_mean=take(face.albedo_mean),
        albedo_basis=take(face.albedo_basis),
        albedo_std=face.albedo_std.to(model.mean),
    )


def _shares(model: MorphableModel, face: MorphableModel) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which vertices of the model take colours from which vertices of the embedded face."""
    rest, other = np.ones(model.num_vertices, bool), np.ones(face.num_vertices, bool)
    shares = []
    for words, names in _PARTS:
        source = np.unique(np.concatenate([face.regions[name].numpy() for name in names]))
        other[source] = False
        parts = [i.cpu().numpy() for name, i in model.regions.items() if any(word in name for word in words)]
        where = np.unique(np.concatenate(parts)) if parts else np.empty(0, np.int64)
        rest[where] = False
        shares.append((where, source))
    return [*shares, (rest.nonzero()[0], other.nonzero()[0])]
