"""How much light a surface sends to the viewer: normals, lamps, and spherical harmonics.

Normals and directions to lamps are unit vectors in the viewer's *upright* frame: x right, **y up**, z towards the
viewer, whatever frame the vertices are in. Surfaces are matt (Lambert's law). Light is linear: a white surface that
faces a lamp of intensity 1 sends 1 to the viewer; sRGB colours are converted to linear ones before they are multiplied
by it, and back afterwards. See chapter 6.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, Protocol, get_args

import torch

from twodasl_lite.base.checks import check_choice, check_shape, check_tensor
from twodasl_lite.base.constants import constant_like
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.render.rasterizer import check_triangles

Frame = Literal["pixels", "model"]

NUM_HARMONICS = 9
"""Spherical harmonics of degrees 0, 1 and 2."""

_Y0 = math.sqrt(1 / (4 * math.pi))
_Y1 = math.sqrt(3 / (4 * math.pi))
_Y2 = math.sqrt(15 / (4 * math.pi))
_DEGREE = (0, 1, 1, 1, 2, 2, 2, 2, 2)
_COSINE = (math.pi, 2 * math.pi / 3, math.pi / 4)
"""The clamped cosine in spherical harmonics, degree by degree (Ramamoorthi and Hanrahan 2001, eq. 8)."""

_SRGB_TOE, _SRGB_SLOPE, _SRGB_OFFSET, _SRGB_POWER = 0.04045, 12.92, 0.055, 2.4  # IEC 61966-2-1


def vertex_normals(vertices: torch.Tensor, triangles: torch.Tensor, frame: Frame = "pixels") -> torch.Tensor:
    """Unit normals, the mean over the adjacent triangles weighted by their areas.

    Args:
        vertices: ``(B, V, 3)`` or ``(V, 3)``.
        triangles: ``(T, 3)``, counter-clockwise seen from outside in the model frame.
        frame: Frame of the vertices: ``"pixels"`` (y down) or ``"model"`` (y up).

    Returns:
        Normals of the vertices' shape, pointing outwards, in the upright frame (y up) in either case; zero at vertices
        without a triangle.

    Raises:
        ShapeError: If a shape differs.
        ValueRangeError: If an index points to no vertex, or the frame is unknown.
    """
    check_choice("frame", frame, get_args(Frame))
    vertices = check_tensor("vertices", vertices, ("...", "V", 3), finite=False)
    if vertices.ndim == 2:
        return vertex_normals(vertices[None], triangles, frame)[0]
    check_shape("vertices", vertices, ("B", "V", 3))
    triangles = check_triangles(triangles, vertices.shape[1], vertices.device)
    rows = vertices.transpose(
        0, 1
    ).contiguous()  # (V, B, 3): each vertex's numbers are contiguous, which is faster to sum
    a, b, c = (rows.index_select(0, triangles[:, k]) for k in range(3))
    areas = torch.linalg.cross(b - a, c - a)  # (T, B, 3) twice the area long
    total = torch.zeros_like(rows)
    for k in range(3):
        if (
            total.is_cuda
        ):  # on a GPU this sum, on a CPU the other, always adds in the same order: same normals every time
            total = total.index_put((triangles[:, k],), areas, accumulate=True)
        else:
            total = total.index_add(0, triangles[:, k], areas)
    if frame == "pixels":  # y down mirrors the mesh: the cross product of mirrored edges is the mirrored, negated one
        total = total * total.new_tensor([-1.0, 1.0, -1.0])
    return torch.nn.functional.normalize(total, dim=-1, eps=torch.finfo(total.dtype).tiny).transpose(0, 1)


class MeshNormals:
    """:func:`vertex_normals` of many meshes that differ only in their vertices; equal up to rounding.

    The triangles that meet at each vertex are determined once, so that a call sums them in one operation, always in the
    same order, and never waits for a GPU. Nothing is checked and no gradient passes.

    Args:
        triangles: ``(T, 3)``, counter-clockwise seen from outside in the model frame.
        num_vertices: Number of vertices V.
    """

    def __init__(self, triangles: torch.Tensor, num_vertices: int) -> None:
        self._triangles = check_triangles(triangles, num_vertices)
        corners = self._triangles.reshape(-1)
        self._around = torch.div(corners.argsort(stable=True), 3, rounding_mode="floor")  # (3 T,) triangles by vertex
        counts = torch.bincount(corners, minlength=num_vertices)
        self._first = counts.cumsum(0) - counts  # (V,) where each vertex's triangles begin

    def __call__(self, vertices: torch.Tensor) -> torch.Tensor:
        """Unit normals ``(B, V, 3)``, upright frame, of vertices ``(B, V, 3)`` in pixels."""
        rows = vertices.transpose(0, 1).contiguous()  # (V, B, 3)
        a, b, c = (rows.index_select(0, self._triangles[:, k]) for k in range(3))
        areas = torch.linalg.cross(b - a, c - a).flatten(1)  # (T, 3 B)
        total = torch.nn.functional.embedding_bag(self._around, areas, self._first, mode="sum")  # (V, 3 B)
        total = total.reshape(rows.shape) * constant_like(vertices, -1.0, 1.0, -1.0)
        return torch.nn.functional.normalize(total, dim=-1, eps=torch.finfo(total.dtype).tiny).transpose(0, 1)


class Light(Protocol):
    """Something that lights a surface."""

    def at(self, normals: torch.Tensor) -> torch.Tensor:
        """Linear light ``(B, ..., 3)`` that a white matt surface with ``normals (B, ..., 3)`` sends to the viewer."""
        ...


def _per_image(value: torch.Tensor, normals: torch.Tensor, *tail: int | str, name: str) -> torch.Tensor:
    """A light's numbers, one set per image or one for all."""
    value = check_tensor(name, value, ("...", *tail), dtype=normals.dtype, device=normals.device)
    if value.ndim == len(tail):
        value = value[None]
    if value.ndim != len(tail) + 1 or value.shape[0] not in (1, normals.shape[0]):
        wanted = ", ".join(map(str, tail))
        raise ShapeError(
            f"{name}: found shape {tuple(value.shape)}; expected ({wanted}) or ({normals.shape[0]}, {wanted})"
        )
    return value.expand(normals.shape[0], *value.shape[1:])


class Lamps(NamedTuple):
    """Ambient light and distant lamps: ``ambient + sum_k intensity_k max(n . d_k, 0)``.

    Attributes:
        ambient: ``(B, 3)``, or ``(3,)`` for all images: red, green, blue.
        directions: ``(B, L, 3)`` or ``(L, 3)`` to the lamps, upright frame; need not have unit length.
        intensities: ``(B, L, 3)`` or ``(L, 3)``: red, green, blue of each.
    """

    ambient: torch.Tensor
    directions: torch.Tensor
    intensities: torch.Tensor

    def _checked(self, normals: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ambient = _per_image(self.ambient, normals, 3, name="ambient")
        directions = _per_image(self.directions, normals, "L", 3, name="directions")
        intensities = _per_image(self.intensities, normals, directions.shape[1], 3, name="intensities")
        lengths = directions.norm(dim=-1, keepdim=True)
        if bool((lengths == 0).any()):
            raise ValueRangeError("directions: found a vector of length zero; expected directions")
        return ambient, directions / lengths, intensities

    def at(self, normals: torch.Tensor) -> torch.Tensor:
        """See :class:`Light`."""
        ambient, directions, intensities = self._checked(normals)
        flat = normals.reshape(normals.shape[0], -1, 3)  # (B, N, 3)
        cosines = (flat @ directions.transpose(1, 2)).clamp(min=0)  # (B, N, L)
        return torch.baddbmm(ambient[:, None], cosines, intensities).reshape(normals.shape)

    def harmonics(self, batch: int = 1) -> Harmonics:
        """The same light in nine spherical harmonics: soft, and within 0.1 of each lamp's intensity.

        Args:
            batch: Number of images.
        """
        like = torch.as_tensor(self.directions).new_zeros(batch, 1, 3)
        ambient, directions, intensities = self._checked(like)
        lamps = math.pi * torch.einsum("blh,blc->bhc", harmonic_basis(directions), intensities)  # (B, 9, 3)
        constant = torch.zeros_like(lamps)
        constant[:, 0] = ambient / _Y0
        return Harmonics(lamps + constant)


def harmonic_basis(normals: torch.Tensor) -> torch.Tensor:
    """The first nine real spherical harmonics, orthonormal on the sphere.

    Order: 1; y, z, x; xy, yz, 3z^2 - 1, xz, x^2 - y^2 (degree l, order m from -l to l).

    Args:
        normals: ``(..., 3)`` unit vectors.

    Returns:
        ``(..., 9)``.
    """
    x, y, z = check_tensor("normals", normals, ("...", 3), finite=False).unbind(-1)
    return torch.stack(
        [
            torch.full_like(x, _Y0),
            _Y1 * y,
            _Y1 * z,
            _Y1 * x,
            _Y2 * x * y,
            _Y2 * y * z,
            _Y2 / math.sqrt(12) * (3 * z * z - 1),
            _Y2 * x * z,
            _Y2 / 2 * (x * x - y * y),
        ],
        dim=-1,
    )


class Harmonics(NamedTuple):
    """Light from everywhere, given by nine numbers per colour.

    A matt surface sees the sky through the clamped cosine, which blurs it so much that degrees above 2 hardly matter:
    nine coefficients describe its light to about 1 % (Ramamoorthi and Hanrahan 2001).

    Attributes:
        coefficients: ``(B, 9, 3)``, or ``(9, 3)`` for all images: the radiance that arrives from each direction,
            projected on :func:`harmonic_basis`; red, green, blue. A white sky of radiance 1 is (sqrt(4 pi), 0, ...).
    """

    coefficients: torch.Tensor

    def at(self, normals: torch.Tensor) -> torch.Tensor:
        """See :class:`Light`; irradiance over pi, never below zero."""
        coefficients = _per_image(self.coefficients, normals, NUM_HARMONICS, 3, name="coefficients")  # (B, 9, 3)
        blur = coefficients.new_tensor([_COSINE[degree] / math.pi for degree in _DEGREE])
        basis = harmonic_basis(normals).reshape(normals.shape[0], -1, NUM_HARMONICS)  # (B, N, 9)
        return (basis @ (blur[:, None] * coefficients)).clamp(min=0).reshape(normals.shape)


def srgb_to_linear(colours: torch.Tensor) -> torch.Tensor:
    """From sRGB to linear light, both in [0, 1]."""
    low = colours / _SRGB_SLOPE
    high = ((colours.clamp(min=_SRGB_TOE) + _SRGB_OFFSET) / (1 + _SRGB_OFFSET)) ** _SRGB_POWER
    return torch.where(colours <= _SRGB_TOE, low, high)


def linear_to_srgb(light: torch.Tensor) -> torch.Tensor:
    """From linear light to sRGB in [0, 1]; values above 1 are clipped to 1."""
    light = light.clamp(0, 1)
    toe = _SRGB_TOE / _SRGB_SLOPE
    high = (1 + _SRGB_OFFSET) * light.clamp(min=toe) ** (1 / _SRGB_POWER) - _SRGB_OFFSET
    return torch.where(light <= toe, light * _SRGB_SLOPE, high)


def shade(albedo: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
    """Colour of a matt surface.

    Args:
        albedo: ``(..., 3)`` its own colour, sRGB in [0, 1].
        light: ``(..., 3)`` linear, as a :class:`Light` gives.

    Returns:
        ``(..., 3)`` sRGB in [0, 1].
    """
    return linear_to_srgb(srgb_to_linear(albedo) * light)
