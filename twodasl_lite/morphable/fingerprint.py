"""By what a face model is recognised: the same coefficients must mean the same face.

A trained network speaks in the coefficients of the face model it was trained with; another model's would silently make
another face of them. The fingerprint is small, readable, and survives rounding: where some landmarks of one particular
face are, the one with every coefficient at one standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from twodasl_lite.errors import ValueRangeError
from twodasl_lite.morphable.model import MorphableModel

_EVERY = 4  # of the 68 landmarks, every fourth
_DIGITS = 6  # significant, of what is stored
TOLERANCE = 1e-3
"""Largest difference of a landmark between equal models, in units of the landmarks' largest coordinate."""


def face_fingerprint(model: MorphableModel) -> dict[str, object]:
    """What to keep with a network to know its face model again.

    Args:
        model: The face model, in the layout that the network was trained with.

    Returns:
        ``name``, ``num_vertices``, ``layout`` and ``landmarks``, values that JSON can hold.
    """
    landmarks = model.decode_landmarks(model.shape_std[None], model.expression_std[None])[0, ::_EVERY]  # (17, 3)
    return {
        "name": model.name,
        "num_vertices": model.num_vertices,
        "layout": [model.num_shape, model.num_expression],
        "landmarks": [[float(f"{value:.{_DIGITS}g}") for value in row] for row in landmarks.double().tolist()],
    }


def check_fingerprint(fingerprint: Mapping[str, object], model: MorphableModel) -> None:
    """Refuse a face model that is not the one a fingerprint was taken of.

    Args:
        fingerprint: Of :func:`face_fingerprint`.
        model: The face model to be used.

    Raises:
        ValueRangeError: If the two differ, with both names and by what.
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
