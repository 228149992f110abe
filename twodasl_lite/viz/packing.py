"""A morphable model small enough for a web page, with guaranteed precision.

A page can hold a few megabytes. The first components of a model are therefore stored as 16-bit integers, with steps as
coarse as the requested precision allows: even if every slider is at its limit and all rounding errors add up, a vertex
is at most ``max_error`` mm from where the package puts it. Coarse steps give small numbers; stored as differences from
vertex to vertex, with high and low bytes separated, they compress well. The browser unpacks them with its own
``DecompressionStream``. See chapter 1.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import NUM_EXPRESSION, NUM_SHAPE, CoefficientLayout
from twodasl_lite.viz.palette import CLAY, landmark_colour

SIGMA_LIMIT = 3.0
"""Range of a slider on either side of zero, in standard deviations."""

DEFAULT_MAX_ERROR = 0.05
"""Precision in mm, a twentieth of what the best face scanners resolve."""

CROP_MARGIN = 1.58
"""Side of a crop divided by the mean of the width and height of the landmarks' box, as in 3DDFA's crops."""

ALBEDO_STEP = 1 / 510
"""Quantisation step of colour components; half a level of an 8-bit picture."""

_INT16_MAX = 32767
_MIN_PRECISION = 1e-4
_FORMAT_VERSION = 1
_ZLIB_LEVEL = 7  # level 9 saves another 2 % and takes four times as long


@dataclass(frozen=True)
class PackedModel:
    """A quantised model, as sent to the browser.

    Attributes:
        header: Small items, ready for JSON: names, ranges, steps, landmarks.
        data: zlib stream of all arrays.
        max_error: Bound in mm on the distance along one axis between a packed and an original vertex, for every
            setting of the sliders.
        vertex_indices: Indices in the model of the packed vertices, ``(V,)``.
        mean: Mean face, ``(V, 3)`` integers; ``mean * header["meanStep"] + header["offset"]`` is in mm.
        basis: Components, ``(Ks + Ke, V, 3)`` integers; ``header["steps"]`` scales them to mm per standard deviation.
        triangles: Indices into the packed vertices, ``(T, 3)``.
        colours: Average colours, ``(V, 3)`` 8-bit, or ``None``.
        albedo: Colour components, ``(Ka, V, 3)`` integers, or ``None``; times :data:`ALBEDO_STEP` they are colour
            changes per standard deviation.
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
        """Size of the arrays in a page, in bytes."""
        return 4 * ((len(self.data) + 2) // 3)

    def to_base64(self) -> str:
        """The arrays as text."""
        return base64.b64encode(self.data).decode("ascii")

    def decode(self, shape: np.ndarray, expression: np.ndarray) -> np.ndarray:
        """The vertices that the browser computes, in mm.

        Args:
            shape: Up to ``Ks`` shape coefficients in standard deviations; missing ones are zero.
            expression: Up to ``Ke`` expression coefficients in standard deviations; missing ones are zero.

        Returns:
            Vertices ``(V, 3)``.
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
            albedo: Up to ``Ka`` colour coefficients in standard deviations.

        Returns:
            Colours ``(V, 3)``, sRGB in [0, 1]; clay if the model has no colours.
        """
        if self.colours is None:
            return np.broadcast_to(np.asarray(CLAY), self.mean.shape)
        colours = self.colours / 255.0
        if self.albedo is not None and len(albedo):
            colours = colours + np.tensordot(albedo, self.albedo[: len(albedo)], axes=1) * ALBEDO_STEP
        return colours.clip(0, 1)


def checksum(vertices: np.ndarray) -> float:
    """One number for a set of drawn vertices; the browser reports the same one.

    It is the mean over all vertices of ``(1 + i/V) (x + 2 y + 3 z)`` in mm, after the rotation by the pose, where i is
    the vertex index. Every slider changes it, and a coordinate error changes it by at most 12 times as much.

    Args:
        vertices: Rotated vertices, ``(V, 3)``.
    """
    points = np.asarray(vertices, dtype=np.float64)
    weights = 1 + np.arange(len(points)) / len(points)
    return float(weights @ points @ np.array([1.0, 2.0, 3.0]) / len(points))


def _planes(integers: np.ndarray, width: int) -> bytes:
    """Byte planes of little-endian integers: all low bytes first, the high bytes last."""
    little = np.ascontiguousarray(integers).astype(f"<u{width}")
    return little.reshape(-1).view(np.uint8).reshape(-1, width).T.tobytes()


def _differences(integers: np.ndarray) -> np.ndarray:
    """Differences along the last axis, with the first value kept; modulo 65536, so that sums restore them exactly."""
    wide = integers.astype(np.int64)
    return np.diff(wide, axis=-1, prepend=0) & 0xFFFF


def _component_steps(largest: np.ndarray, reach: np.ndarray, budget: float) -> np.ndarray:
    """Quantisation steps whose rounding errors add up to the budget: equal, unless 16 bits force a coarser one.

    Args:
        largest: Largest displacement of each component, ``(K,)``.
        reach: Largest coefficient of each component, ``(K,)``.
        budget: Largest admissible ``sum(reach * steps)``, twice the precision.

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
    """Vertex indices of one or more regions, and their triangles and landmarks in the new numbering."""
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
    """Polylines of the landmark markup with their colours, for drawing."""
    from twodasl_lite.geometry.landmarks import EDGES, GROUPS

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
    """Scale and centre with which the mean face fills a crop as faces fill 3DDFA's crops."""
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    side = CROP_MARGIN * float(high[0] - low[0] + high[1] - low[1]) / 2
    centre = (low + high) / 2
    centre[2] = landmarks[:, 2].mean()  # depth cannot be observed: by convention the mean landmark has depth zero
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
        model: Face model.
        num_shape: Number of shape components, at most those of the model; all if ``None``.
        num_expression: Number of expression components; all if ``None``.
        region: Region or regions of the face to keep; they must contain every landmark.
        max_error: Bound on the error of a coordinate, in the model's unit (mm).
        colours: Colours of all vertices of the model, ``(V, 3)`` sRGB; its average albedo, if any, by default.
        layout: Sizes of the coefficient vector that the explorer copies: by default 40 shape and 10 expression
            coefficients as in the paper, fewer if the model has fewer, more if there are more sliders.

    Returns:
        The packed model.

    Raises:
        ValueRangeError: If a number is out of range, a region is unknown or too small, or the model is too large for
            this precision.
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
    if blendshapes:  # their coefficients are activations from 0 to 1, whatever their standard deviation over people
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

    # Rounding moves a coordinate by at most half a step of the mean, and half a step of each component times its
    # coefficient.
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
