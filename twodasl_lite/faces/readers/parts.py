"""Assembling a model from a format's parts.

Formats differ in units, in how they flatten arrays, in whether indices count from 0 or 1 and whether triangles run
clockwise. A reader returns what its format holds as :class:`Parts`; :func:`assemble` makes a model in this package's
conventions from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import FileFormatError, TwodaslError
from twodasl_lite.faces.model import ExpressionKind, MorphableModel
from twodasl_lite.faces.readers.markup import LandmarkChoice, resolve_landmarks

MILLIMETRES = {"um": 1e-3, "mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Length of each unit in millimetres."""

ACTIVATION_STD = 0.4
"""Spread of a blendshape's activation over random expressions; no format publishes one, so this is the embedded
face's."""


@dataclass
class Parts:
    """A morphable model as a file holds it.

    Attributes:
        mean: ``(V, 3)`` in ``unit``.
        shape_basis: ``(V, 3, Ks)`` in ``unit`` per unit of the coefficients.
        triangles: ``(T, 3)`` vertex indices from 0, in either orientation.
        unit: One of :data:`MILLIMETRES`.
        expression_basis: ``(V, 3, Ke)`` like ``shape_basis``; none by default.
        shape_std: ``(Ks,)`` standard deviations of the coefficients; 1 by default.
        expression_std: ``(Ke,)`` standard deviations of the expression coefficients; by default 1, or
            :data:`ACTIVATION_STD` for blendshapes.
        published: ``(68,)`` landmarks that come with the format.
        known: Vertices of some landmarks that come with the format, by index in the markup.
        albedo: ``albedo_mean``, ``albedo_basis`` and ``albedo_std`` of the model, sRGB in [0, 1].
        regions: Named vertex sets.
        expression_names: A name per expression.
        expression_kind: Kind of the expressions, see :class:`MorphableModel`.
    """

    mean: np.ndarray
    shape_basis: np.ndarray
    triangles: np.ndarray
    unit: str
    expression_basis: np.ndarray | None = None
    shape_std: np.ndarray | None = None
    expression_std: np.ndarray | None = None
    published: np.ndarray | None = None
    known: Mapping[int, int] = field(default_factory=dict)
    albedo: Mapping[str, np.ndarray] = field(default_factory=dict)
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    expression_names: Sequence[str] | None = None
    expression_kind: ExpressionKind = "components"


def assemble(
    path: Path, parts: Parts, *, units: str, landmarks: LandmarkChoice, name: str, license: str, source: str
) -> MorphableModel:
    """Make the model.

    Args:
        path: The file, for messages.
        parts: Parts that the file holds.
        units: Unit of length of the result, one of :data:`MILLIMETRES`.
        landmarks: The reader's choice of landmarks, see :func:`resolve_landmarks`.
        name: Name of the model.
        license: Licence of the data.
        source: Origin of the model; units, coefficients and landmarks are added.

    Raises:
        FileFormatError: If the parts do not fit together.
        ValueRangeError: If the unit is unknown or the chosen landmarks do not fit.
    """
    check_choice("units", units, MILLIMETRES)
    scale = MILLIMETRES[parts.unit] / MILLIMETRES[units]
    mean = np.asarray(parts.mean, np.float32)
    expressions = parts.expression_basis
    if expressions is None:
        expressions = np.zeros((*mean.shape, 0), np.float32)
    expression_std = parts.expression_std
    if expression_std is None and parts.expression_kind == "blendshapes":
        expression_std = np.full(expressions.shape[-1], ACTIVATION_STD)
    try:
        triangles = outward(mean, np.asarray(parts.triangles).astype(np.int64))
        chosen, note = resolve_landmarks(
            mean * np.float32(MILLIMETRES[parts.unit]), triangles, landmarks, parts.published, parts.known
        )
        if scale != 1:
            source += f"; lengths converted from {parts.unit} to {units}"
        return MorphableModel(
            _scaled(mean, scale),
            _scaled(parts.shape_basis, scale),
            _scaled(expressions, scale),
            torch.from_numpy(triangles),
            chosen,
            shape_std=_tensor(parts.shape_std),
            expression_std=_tensor(expression_std),
            **{key: _tensor(array) for key, array in parts.albedo.items()},
            regions={key: torch.from_numpy(np.asarray(index, np.int64)) for key, index in parts.regions.items()},
            expression_names=parts.expression_names,
            expression_kind=parts.expression_kind,
            name=name,
            units=units,
            license=license,
            source=f"{source}; 68 landmarks {note}",
        )
    except TwodaslError as error:
        if isinstance(error, FileFormatError) or str(error).startswith("landmarks"):
            raise
        raise FileFormatError(path, f"parts that do not fit together ({error})", f"a whole {name}") from error
    except (IndexError, ValueError) as error:
        raise FileFormatError(path, f"parts that do not fit together ({error})", f"a whole {name}") from error


def _tensor(array: np.ndarray | None) -> torch.Tensor | None:
    return None if array is None else torch.from_numpy(np.require(array, np.float32, ["C", "W"]))


def _scaled(array: np.ndarray, scale: float) -> torch.Tensor:
    tensor = _tensor(array)
    return tensor if scale == 1 else tensor * scale


def outward(mean: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Reverse all triangles if they show their inside.

    A closed surface, or an open mask seen from a point well behind it, encloses a positive volume when its triangles
    run counter-clockwise seen from outside.

    Args:
        mean: ``(V, 3)``, z towards the viewer.
        triangles: ``(T, 3)`` vertex indices.

    Returns:
        ``(T, 3)`` counter-clockwise.
    """
    behind = mean.mean(axis=0) - [0, 0, np.ptp(mean[:, 2])]
    a, b, c = (mean[triangles[:, k]].astype(np.float64) - behind for k in range(3))
    volume = np.einsum("tk,tk->", a, np.cross(b, c))
    return triangles if volume >= 0 else np.ascontiguousarray(triangles[:, [0, 2, 1]])
