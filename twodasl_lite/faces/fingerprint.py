"""A fingerprint to recognise a face model by: the same coefficients must mean the same face.

A trained network predicts coefficients of the face model that it was trained with; another model would silently turn
them into another face. The fingerprint is small, readable, and robust to rounding: the positions of some landmarks of
one particular face, the one with every coefficient at one standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces.model import MorphableModel

_EVERY = 4  # of the 68 landmarks, every fourth
_DIGITS = 6  # significant digits that are stored
TOLERANCE = 1e-3
"""Largest difference of a landmark between equal models, in units of the landmarks' largest coordinate."""


def face_fingerprint(model: MorphableModel) -> dict[str, object]:
    """The fingerprint to store with a network, by which its face model is recognised.

    Args:
        model: The face model, in the layout that the network was trained with.

    Returns:
        ``name``, ``num_vertices``, ``layout`` and ``landmarks``, as JSON values.
    """
    landmarks = model.decode_landmarks(model.shape_std[None], model.expression_std[None])[0, ::_EVERY]  # (17, 3)
    return {
        "name": model.name,
        "num_vertices": model.num_vertices,
        "layout": [model.num_shape, model.num_expression],
        "landmarks": [[float(f"{value:.{_DIGITS}g}") for value in row] for row in landmarks.double().tolist()],
    }


def check_fingerprint(fingerprint: Mapping[str, object], model: MorphableModel) -> None:
    """Refuse a face model that does not match a fingerprint.

    Args:
        fingerprint: Fingerprint from :func:`face_fingerprint`.
        model: The face model to be used.

    Raises:
        ValueRangeError: If the two differ; the message gives both names and the difference.
    """
    own = face_fingerprint(model)
    expected = f"the face model {fingerprint.get('name')!r} that the network was trained with"
    for key in ("num_vertices", "layout"):
        if own[key] != fingerprint.get(key):
            raise ValueRangeError(
                f"model: found {model.name!r} with {key} {own[key]}; expected {expected}, {fingerprint.get(key)}"
            )
    here, there = torch.tensor(own["landmarks"]), torch.tensor(fingerprint["landmarks"])
    difference = float((here - there).abs().max() / there.abs().max())
    if not difference <= TOLERANCE:
        raise ValueRangeError(
            f"model: found {model.name!r}, whose coefficients mean another face (landmarks differ by "
            f"{100 * difference:.2g} %); expected {expected}"
        )
