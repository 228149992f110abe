"""A morphable model small enough for a web page, with a guaranteed precision.

A page can carry a few megabytes. The first components of a model are therefore written as 16-bit integers, in steps
that are as coarse as the wanted precision allows: if every slider stands at its limit and every rounding error adds up,
a vertex is still no further than ``max_error`` mm from where the package puts it. Coarse steps leave small numbers;
stored as differences from vertex to vertex and with high and low bytes apart, they compress well. The browser unpacks
this with its own ``DecompressionStream``. Explained in chapter 1.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from twodasl_lite.camera import CROP_SIZE
from twodasl_lite.coefficients import NUM_EXPRESSION, NUM_SHAPE, CoefficientLayout
from twodasl_lite.errors import ValueRangeError
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.viz.palette import CLAY, landmark_colour

SIGMA_LIMIT = 3.0
"""Reach of a slider in standard deviations."""

DEFAULT_MAX_ERROR = 0.05
"""Precision in mm: a twentieth of what the best face scanners resolve."""

CROP_MARGIN = 1.58
"""Side of a crop over the mean of the width and height of the landmarks' box, as 3DDFA crops faces."""

ALBEDO_STEP = 1 / 510
"""Quantisation step of colour components: half a level of an 8-bit picture."""

_INT16_MAX = 32767
_MIN_PRECISION = 1e-4
_FORMAT_VERSION = 1
_ZLIB_LEVEL = 7  # level 9 saves another 2 % and takes four times as long


@dataclass(frozen=True)
class PackedModel:
    """A quantised model: what travels to the browser.

    Attributes:
        header: Everything that is small, ready for JSON: names, ranges, steps, landmarks.
        data: The zlib stream of all arrays.
        max_error: Bound in mm on the distance along one axis between a packed and an original vertex, for every
            setting of the sliders.
        vertex_indices: Which vertices of the model were packed, ``(V,)``.
        mean: ``(V, 3)`` integers; times ``header["meanStep"]``, plus ``header["offset"]``, the mean face in mm.
        basis: ``(Ks + Ke, V, 3)`` integers; times ``header["steps"]``, displacements in mm per standard deviation.
        triangles: ``(T, 3)`` indices into the packed vertices.
        colours: ``(V, 3)`` 8-bit average colours, or ``None``.
        albedo: ``(Ka, V, 3)`` integers; times :data:`ALBEDO_STEP`, colour changes per standard deviation, or ``None``.
    """

    header: dict
    data: bytes = field(repr=False)
    max_error: float
    vertex_indices: np.ndarray = field(repr=False)
    mean: np.ndarray = field(repr=False)
    basis: np.ndarray = field(repr=False)
    triangles: np.ndarray = field(repr=False)
    colours: np.ndarray | None = field(repr=False)
    albedo: np.ndarray | None = field(repr=False)

    @property
    def base64_size(self) -> int:
        """Bytes that the arrays take in a page."""
        return 4 * ((len(self.data) + 2) // 3)

    def to_base64(self) -> str:
        """The arrays as text."""
        return base64.b64encode(self.data).decode("ascii")

    def decode(self, shape: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """The vertices that the browser computes, in mm.

        Args:
            shape: Up to ``Ks`` coefficients in standard deviations; missing ones are zero.
            expression: Likewise up to ``Ke``.

        Returns:
            ``(V, 3)``.
        """
        num_shape, num_expression = self.header["numShape"], self.header["numExpression"]
        weights = np.zeros(num_shape + num_expression)
        weights[: len(shape)] = shape
        weights[num_shape : num_shape + len(expression)] = expression
        moved = np.tensordot(weights * self.header["steps"], self.basis, axes=1)
        return np.asarray(self.header["offset"]) + self.mean * self.header["meanStep"] + moved

    def decode_colours(self, albedo: np.ndarray) -> np.ndarray:
        """The skin colours that the browser computes.

        Args:
            albedo: Up to ``Ka`` coefficients in standard deviations.

        Returns:
            ``(V, 3)`` sRGB in [0, 1]; clay if the model has no colours.
        """
        if self.colours is None:
            return np.broadcast_to(np.asarray(CLAY), self.mean.shape)
        colours = self.colours / 255.0
        if self.albedo is not None and len(albedo):
            colours = colours + np.tensordot(albedo, self.albedo[: len(albedo)], axes=1) * ALBEDO_STEP
        return colours.clip(0, 1)


def checksum(vertices: np.ndarray) -> float:
    """One number for a set of drawn vertices; the browser reports the same.

    It is the mean over all vertices of ``(1 + i/V) (x + 2 y + 3 z)`` with i the vertex's number, in mm, after the
    rotation by the pose: it changes with every slider, and by at most 12 times the largest coordinate error.

    Args:
        vertices: ``(V, 3)``, rotated.
    """
    points = np.asarray(vertices, dtype=np.float64)
    weights = 1 + np.arange(len(points)) / len(points)
    return float(weights @ points @ np.array([1.0, 2.0, 3.0]) / len(points))


def _planes(integers: np.ndarray, width: int) -> bytes:
    """Byte planes of little-endian integers: all low bytes first, the high bytes last."""
    little = np.ascontiguousarray(integers).astype(f"<u{width}")
    return little.reshape(-1).view(np.uint8).reshape(-1, width).T.tobytes()


def _differences(integers: np.ndarray) -> np.ndarray:
    """Differences along the last axis, the first kept; modulo 65536, so that the sum restores them exactly."""
    wide = integers.astype(np.int64)
    return np.diff(wide, axis=-1, prepend=0) & 0xFFFF


def _component_steps(largest: np.ndarray, reach: np.ndarray, budget: float) -> np.ndarray:
    """Quantisation steps whose rounding errors add up to the budget: one for all, but no finer than 16 bits allow.

    Args:
        largest: ``(K,)`` largest displacement of each component.
        reach: ``(K,)`` largest coefficient of each.
        budget: The largest admissible ``sum(reach * steps)``, twice the precision.

    Raises:
        ValueRangeError: If 16 bits are too few.
    """
    floor = largest / _INT16_MAX
    bound = np.zeros(len(floor), dtype=bool)  # components that need a coarser step than the others
    while True:
        rest = budget - float(reach[bound] @ floor[bound])
        common = rest / max(float(reach[~bound].sum()), 1e-12)
        more = ~bound & (floor > common)
        if rest <= 0 or not more.any():
            break
        bound |= more
    if rest <= 0:
        raise ValueRangeError(
            f"max_error: found {(budget / 2):.2g} mm left for {len(floor)} components; expected at least "
            f"{float(reach @ floor) / 2:.2g} mm, the finest that 16 bits allow"
        )
    return np.where(bound, floor, common)


def _select(model: MorphableModel, region: str | Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertex indices, triangles and landmarks of one or more regions, the last two in their own numbering."""
    triangles = model.triangles.cpu().numpy()
    landmarks = model.landmarks.cpu().numpy()
    if region is None:
        return np.arange(model.num_vertices), triangles, landmarks
    names = [region] if isinstance(region, str) else list(region)
    for name in names:
        if name not in model.regions:
            known = ", ".join(sorted(model.regions)) or "none"
            raise ValueRangeError(f"region: found {name!r}; expected one or more of the model's regions ({known})")
    kept = np.unique(np.concatenate([model.regions[name].cpu().numpy() for name in names]))
    new_index = np.full(model.num_vertices, -1)
    new_index[kept] = np.arange(len(kept))
    inside = (new_index[triangles] >= 0).all(axis=1)
    if (new_index[landmarks] < 0).any():
        outside = int((new_index[landmarks] < 0).sum())
        raise ValueRangeError(
            f"region: found {outside} landmarks outside {' and '.join(names)!r}; expected regions that hold all of them"
        )
    return kept, new_index[triangles[inside]], new_index[landmarks]


def landmark_groups() -> list[dict]:
    """The markup's polylines with their colours, for drawing."""
    from twodasl_lite.landmarks import EDGES, GROUPS

    groups = []
    for name, members in GROUPS.items():
        inside = set(members)
        edges = [[int(a), int(b)] for a, b in EDGES if a in inside and b in inside]
        groups.append(
            {
                "name": name,
                "points": [int(i) for i in members],
                "edges": edges,
                "colour": landmark_colour(name),
            }
        )
    return groups


def _crop_camera(landmarks: np.ndarray) -> dict:
    """Scale and centre with which the mean face fills a crop the way 3DDFA's crops are filled."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    side = CROP_MARGIN * float(high[0] - low[0] + high[1] - low[1]) / 2
    centre = (low + high) / 2
    centre[2] = landmarks[:, 2].mean()  # depth cannot be seen: by convention the mean landmark lies at depth zero
    return {"size": CROP_SIZE, "scale": CROP_SIZE / side, "centre": [float(c) for c in centre]}


def pack_model(
    model: MorphableModel,
    num_shape: int | None = 12,
    num_expression: int | None = None,
    *,
    region: str | Sequence[str] | None = None,
    max_error: float = DEFAULT_MAX_ERROR,
    colours: np.ndarray | None = None,
    layout: CoefficientLayout | None = None,
) -> PackedModel:
    """Quantise the first components of a model.

    Args:
        model: The face model.
        num_shape: How many shape components; all if ``None``, and never more than there are.
        num_expression: How many expression components; all if ``None``.
        region: Keep only this region of the face, or these; every landmark must lie in one.
        max_error: Bound on the error of a coordinate, in the model's unit (mm).
        colours: ``(V, 3)`` sRGB of all the model's vertices; by default the model's average albedo, if it has one.
        layout: Sizes of the coefficient vector that the explorer copies: by default 40 shape and 10 expression
            coefficients as in the paper, less if the model has less, more if there are more sliders.

    Returns:
        The packed model.

    Raises:
        ValueRangeError: If a number or the region is impossible, or the model too large for this precision.
    """
    if not max_error >= _MIN_PRECISION:
        raise ValueRangeError(f"max_error: found {max_error}; expected at least {_MIN_PRECISION} mm")
    counts = []
    for name, wanted, available in (
        ("num_shape", num_shape, model.num_shape),
        ("num_expression", num_expression, model.num_expression),
    ):
        if wanted is not None and wanted < 0:
            raise ValueRangeError(f"{name}: found {wanted}; expected 0 or more")
        counts.append(available if wanted is None else min(int(wanted), available))
    ks, ke = counts
    kept, triangles, landmarks = _select(model, region)

    shape_std = model.shape_std.double().cpu().numpy()
    expression_std = model.expression_std.double().cpu().numpy()
    blendshapes = model.expression_kind == "blendshapes"
    if blendshapes:  # their coefficients are activations from 0 to 1, whatever the deviation over people is
        expression_std = np.ones_like(expression_std)
    basis = np.concatenate(
        [
            model.shape_basis[..., :ks].double().cpu().numpy()[kept] * shape_std[:ks],
            model.expression_basis[..., :ke].double().cpu().numpy()[kept] * expression_std[:ke],
        ],
        axis=-1,
    ).transpose(2, 0, 1)  # (Ks + Ke, V, 3), mm per standard deviation
    expression_range = [0.0, 1.0] if blendshapes else [-SIGMA_LIMIT, SIGMA_LIMIT]
    reach = np.concatenate([np.full(ks, SIGMA_LIMIT), np.full(ke, max(np.abs(expression_range)))])

    # Rounding moves a coordinate by at most half a step, in the mean and in each component times its coefficient.
    mean = model.mean.double().cpu().numpy()[kept]
    offset = (mean.min(axis=0) + mean.max(axis=0)) / 2
    mean_step = float(np.abs(mean - offset).max(initial=0)) / _INT16_MAX or 1.0  # as fine as 16 bits allow
    steps = _component_steps(np.abs(basis).max(axis=(1, 2), initial=0), reach, 2 * max_error - mean_step)
    mean_integers = np.rint((mean - offset) / mean_step).astype(np.int16)  # (V, 3)
    basis_integers = np.rint(basis / steps[:, None, None]).astype(np.int16)  # (K, V, 3)

    albedo = None
    if colours is None and model.albedo_mean is not None:
        colours = model.decode_albedo()[0].cpu().numpy()
        changes = (model.albedo_basis * model.albedo_std).double().cpu().numpy()[kept].transpose(2, 0, 1)
        albedo = np.rint(changes / ALBEDO_STEP).clip(-128, 127).astype(np.int8)  # (Ka, V, 3)
    if colours is not None:
        colours = np.asarray(colours, dtype=np.float64)
        if colours.shape != (model.num_vertices, 3):
            raise ValueRangeError(f"colours: found shape {colours.shape}; expected ({model.num_vertices}, 3)")
        colours = np.rint(np.clip(colours[kept], 0, 1) * 255).astype(np.uint8)

    sections, parts = [], []

    def add(name: str, payload: bytes) -> None:
        sections.append({"name": name, "bytes": len(payload)})
        parts.append(payload)

    add("mean", _planes(_differences(mean_integers.T), 2))
    add("basis", _planes(_differences(basis_integers.transpose(0, 2, 1)), 2))
    add("triangles", _planes(np.diff(triangles.astype(np.int64), axis=0, prepend=0).T & 0xFFFFFFFF, 4))
    if colours is not None:
        add("colours", np.diff(colours.T.astype(np.int64), axis=-1, prepend=0).astype(np.uint8).tobytes())

    if albedo is not None:
        add(
            "albedo", np.diff(albedo.transpose(0, 2, 1).astype(np.int64), axis=-1, prepend=0).astype(np.uint8).tobytes()
        )

    layout = layout or CoefficientLayout(
        max(ks, min(NUM_SHAPE, model.num_shape)), max(ke, min(NUM_EXPRESSION, model.num_expression))
    )
    if layout.num_shape < ks or layout.num_expression < ke:
        raise ValueRangeError(
            f"layout: found {layout.num_shape} shape and {layout.num_expression} expression coefficients; expected at "
            f"least {ks} and {ke}, one per slider"
        )
    header = {
        "version": _FORMAT_VERSION,
        "name": model.name,
        "units": model.units,
        "numVertices": len(kept),
        "numTriangles": len(triangles),
        "numShape": ks,
        "numExpression": ke,
        "meanStep": mean_step,
        "steps": steps.tolist(),
        "maxError": max_error,
        "offset": [float(x) for x in offset],
        "sections": sections,
        "landmarks": [int(i) for i in landmarks],
        "landmarkGroups": landmark_groups(),
        "sampleIndices": [int(i) for i in kept[:5]],
        "shapeRange": [-SIGMA_LIMIT, SIGMA_LIMIT],
        "expressionRange": expression_range,
        "expressionUnit": "" if blendshapes else "σ",
        "expressionNames": list(model.expression_names[:ke]),
        "shapeStd": [float(s) for s in shape_std[:ks]],
        "expressionStd": [float(s) for s in expression_std[:ke]],
        "layout": {"shape": layout.num_shape, "expression": layout.num_expression},
        "camera": _crop_camera(mean[landmarks]),
        "hasColours": colours is not None,
        "numAlbedo": 0 if albedo is None else len(albedo),
        "albedoStep": ALBEDO_STEP,
        "clay": list(CLAY),
    }
    return PackedModel(
        header,
        zlib.compress(b"".join(parts), _ZLIB_LEVEL),
        max_error,
        kept,
        mean_integers,
        basis_integers,
        triangles,
        colours,
        albedo,
    )
