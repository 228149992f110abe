"""Normals, lamps and spherical harmonics, against geometry, quadrature and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.render import (
    Harmonics,
    Lamps,
    MeshNormals,
    harmonic_basis,
    linear_to_srgb,
    shade,
    srgb_to_linear,
    vertex_normals,
)


def ball(rows: int = 40, columns: int = 80) -> tuple[torch.Tensor, torch.Tensor]:
    """A sphere of radius 1 in the model frame: vertices ``(V, 3)`` and outward triangles."""
    polar = torch.linspace(0, math.pi, rows, dtype=torch.float64)[:, None]
    around = torch.arange(columns, dtype=torch.float64) * (2 * math.pi / columns)
    points = torch.stack(
        [polar.sin() * around.sin(), polar.cos().expand(-1, columns), polar.sin() * around.cos()], dim=-1
    )
    index = torch.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1], index[1:], index.roll(-1, 1)[1:], index.roll(-1, 1)[:-1]
    faces = torch.stack([torch.stack([a, b, c], dim=-1), torch.stack([a, c, d], dim=-1)])
    return points.reshape(-1, 3), faces.reshape(-1, 3)


def directions(count: int, seed: int = 0) -> torch.Tensor:
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return points / points.norm(dim=-1, keepdim=True)


def sphere_quadrature(degree: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions and weights that integrate polynomials over the sphere exactly."""
    heights, weights = np.polynomial.legendre.leggauss(degree)
    around = np.arange(2 * degree) * math.pi / degree
    radius = np.sqrt(1 - heights**2)
    points = np.stack(
        [
            radius[:, None] * np.cos(around),
            radius[:, None] * np.sin(around),
            np.repeat(heights[:, None], 2 * degree, 1),
        ],
        axis=-1,
    )
    return torch.tensor(points).reshape(-1, 3), torch.tensor(np.repeat(weights * math.pi / degree, 2 * degree))


# --------------------------------------------------------------------------------------------------------- normals
@pytest.mark.parametrize("frame", ["model", "pixels"])
def test_normals_of_a_ball_point_away_from_its_centre(frame):
    points, triangles = ball()
    mirror = torch.tensor([1.0, -1 if frame == "pixels" else 1, 1], dtype=torch.float64)
    vertices = torch.stack([points * mirror * 3 + 7, points * mirror])
    normals = vertex_normals(vertices, triangles, frame)
    inner = (points[:, 1].abs() < 0.99).expand(2, -1)  # the poles' many vertices each see one side of the pole only
    cosines = (normals * points).sum(dim=-1)
    assert cosines[inner].min() > 0.999
    assert cosines.min() > 0.99


def test_normals_equal_a_naive_loop(device):
    generator = torch.Generator().manual_seed(1)
    vertices = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    triangles = torch.randint(0, 8, (12, 3), generator=generator)
    wanted = torch.zeros_like(vertices)
    for image in range(2):
        for corners in triangles.tolist():
            a, b, c = (vertices[image, v] for v in corners)
            for v in corners:
                wanted[image, v] += torch.linalg.cross(b - a, c - a)
    wanted = torch.nn.functional.normalize(wanted, dim=-1)
    found = vertex_normals(vertices.to(device), triangles.to(device), "model").cpu()
    torch.testing.assert_close(found, wanted)
    assert (found[:, 8] == 0).all()  # no triangle has it
    torch.testing.assert_close(vertex_normals(vertices[0], triangles, "model"), wanted[0])


def test_normals_have_gradients():
    points, triangles = ball(5, 6)
    points = points + 0.05 * directions(len(points))
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, triangles)[:, 6:-6], points[None].requires_grad_())


def test_normals_of_bad_input():
    points, triangles = ball(4, 5)
    with pytest.raises(ValueRangeError, match="frame: found 'world'"):
        vertex_normals(points, triangles, "world")
    with pytest.raises(ValueRangeError, match="triangles"):
        vertex_normals(points[:-1], triangles)
    with pytest.raises(ShapeError, match="vertices"):
        vertex_normals(points[None, None], triangles)


# ----------------------------------------------------------------------------------------------------------- lamps
def test_lamps_equal_a_naive_loop(device):
    normals, ways = directions(2 * 7 * 5, 2).reshape(2, 7, 5, 3), 3 * directions(2 * 4, 3).reshape(2, 4, 3)
    ambient, strength = torch.rand(2, 3, dtype=torch.float64), torch.rand(2, 4, 3, dtype=torch.float64)
    wanted = ambient[:, None, None].repeat(1, 7, 5, 1)
    for image in range(2):
        for way, colour in zip(ways[image], strength[image], strict=True):
            cosine = (normals[image] @ (way / way.norm())).clamp(min=0)
            wanted[image] += cosine[..., None] * colour
    lamps = Lamps(ambient.to(device), ways.to(device), strength.to(device))
    torch.testing.assert_close(lamps.at(normals.to(device)).cpu(), wanted)


def test_one_lamp_by_hand():
    lamp = Lamps(torch.tensor([0.1, 0.1, 0.1]), torch.tensor([[0.0, 0, 2]]), torch.tensor([[1.0, 0.5, 0]]))
    normals = torch.tensor([[[0.0, 0, 1], [0, 0.6, 0.8], [0, 1, 0], [0, 0, -1]]])
    wanted = torch.tensor([[1.1, 0.6, 0.1], [0.9, 0.5, 0.1], [0.1, 0.1, 0.1], [0.1, 0.1, 0.1]])
    torch.testing.assert_close(lamp.at(normals)[0], wanted)


def test_no_lamp_leaves_the_ambient_light():
    light = Lamps(torch.tensor([0.2, 0.3, 0.4]), torch.zeros(0, 3), torch.zeros(0, 3))
    assert torch.equal(light.at(torch.ones(2, 4, 3)), torch.tensor([0.2, 0.3, 0.4]).expand(2, 4, 3))
    assert light.harmonics(2).coefficients.shape == (2, 9, 3)


@pytest.mark.parametrize(
    ("light", "error", "words"),
    [
        (Lamps(torch.ones(3), torch.zeros(1, 3), torch.ones(1, 3)), ValueRangeError, "directions: found a vector of"),
        (Lamps(torch.ones(4), torch.ones(1, 3), torch.ones(1, 3)), ShapeError, "ambient"),
        (Lamps(torch.ones(3), torch.ones(2, 3), torch.ones(1, 3)), ShapeError, "intensities"),
        (Lamps(torch.ones(3), torch.ones(5, 1, 3), torch.ones(1, 3)), ShapeError, "directions: found shape"),
        (Lamps(torch.full((3,), torch.nan), torch.ones(1, 3), torch.ones(1, 3)), ValueRangeError, "ambient"),
        (Harmonics(torch.ones(9)), ShapeError, "coefficients"),
        (Harmonics(torch.ones(4, 3)), ShapeError, "coefficients"),
        (Harmonics(torch.ones(5, 9, 3)), ShapeError, "coefficients"),
    ],
)
def test_bad_lights(light, error, words):
    with pytest.raises(error, match=words):
        light.at(torch.ones(2, 6, 3) / math.sqrt(3))


# ------------------------------------------------------------------------------------------------------- harmonics
def test_harmonics_are_orthonormal():
    points, weights = sphere_quadrature()
    basis = harmonic_basis(points)  # (N, 9)
    torch.testing.assert_close(basis.T @ (weights[:, None] * basis), torch.eye(9, dtype=torch.float64))


def test_a_lamp_has_its_closed_form():
    """The clamped cosine to degree 2: 1/4 + cos / 2 + 5/32 (3 cos^2 - 1), Ramamoorthi and Hanrahan 2001."""
    way, normals = directions(1, 4), directions(500, 5)
    lamp = Lamps(torch.zeros(3), way, torch.tensor([[2.0, 1, 0]], dtype=torch.float64))
    cosine = normals @ way[0]
    wanted = 1 / 4 + cosine / 2 + 5 / 32 * (3 * cosine**2 - 1)
    found = lamp.harmonics().at(normals[None])[0]
    torch.testing.assert_close(found, wanted.clamp(min=0)[:, None] * torch.tensor([2.0, 1, 0], dtype=torch.float64))
    assert (wanted - cosine.clamp(min=0)).abs().max() < 0.1


def test_a_white_sky_lights_everything_alike():
    sky = torch.zeros(9, 3, dtype=torch.float64)
    sky[0] = math.sqrt(4 * math.pi)
    torch.testing.assert_close(Harmonics(sky).at(directions(20)[None]), torch.ones(1, 20, 3, dtype=torch.float64))
    ambient = Lamps(torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64), torch.zeros(0, 3), torch.zeros(0, 3))
    found = ambient.harmonics().at(directions(20)[None].float())
    torch.testing.assert_close(found, torch.tensor([0.3, 0.2, 0.1]).expand(1, 20, 3), check_dtype=False)


def test_harmonic_light_is_the_integral_over_the_hemisphere(device):
    """Any sky of degree 2, summed up direction by direction, cosine by cosine."""
    sky = torch.randn(9, 3, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * 0.1
    sky[0] += 4
    points, weights = sphere_quadrature(300)  # the clamped cosine is no polynomial
    radiance = harmonic_basis(points) @ sky  # (N, 3)
    normals = directions(12, 7)
    cosines = (normals @ points.T).clamp(min=0)  # (12, N)
    wanted = (cosines * weights) @ radiance / math.pi
    found = Harmonics(sky.to(device)).at(normals[None].to(device))[0].cpu()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_harmonic_light_is_never_negative():
    lamp = Lamps(torch.zeros(3), torch.tensor([[0.0, 0, 1]]), torch.ones(1, 3)).harmonics()
    steep = torch.tensor([[[math.sin(a), 0, math.cos(a)] for a in torch.linspace(0, math.pi, 50)]])
    assert lamp.at(steep).min() == 0


def test_lights_have_gradients():
    normals = directions(6, 8)[None]
    lamps = [torch.rand(shape, dtype=torch.float64).requires_grad_() for shape in ((1, 3), (1, 2, 3), (1, 2, 3))]
    assert torch.autograd.gradcheck(lambda *parts: Lamps(*parts).at(normals), lamps)
    sky = torch.rand(1, 9, 3, dtype=torch.float64) * 0.1
    sky[:, 0] += 2
    assert torch.autograd.gradcheck(lambda c, n: Harmonics(c).at(n), (sky.requires_grad_(), normals.requires_grad_()))


# --------------------------------------------------------------------------------------------------------- colours
def test_srgb_by_hand_and_back():
    known = torch.tensor([0.0, 0.02, 0.5, 1.0], dtype=torch.float64)
    linear = torch.tensor([0.0, 0.0015479876, 0.2140411405, 1.0], dtype=torch.float64)
    torch.testing.assert_close(srgb_to_linear(known), linear, rtol=0, atol=1e-9)
    ramp = torch.linspace(0, 1, 256, dtype=torch.float64)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(ramp)), ramp)
    torch.testing.assert_close(linear_to_srgb(torch.tensor([1.7, -0.2])), torch.tensor([1.0, 0]))
    for function in (srgb_to_linear, linear_to_srgb):
        x = torch.tensor([0.0, 0.001, 0.3, 0.9], requires_grad=True)
        function(x).sum().backward()
        assert torch.isfinite(x.grad).all()


def test_shade():
    grey = torch.full((1, 3), 0.5)
    torch.testing.assert_close(shade(grey, torch.ones(1, 3)), grey)
    assert (shade(grey, torch.zeros(1, 3)) == 0).all()
    torch.testing.assert_close(shade(grey, torch.full((1, 3), 9.0)), torch.ones(1, 3))


def test_prepared_normals_are_the_same(device):
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(3, 30, 3, generator=generator).to(device)
    triangles = torch.randint(29, (50, 3), generator=generator).to(device)  # the last vertex has none
    found = MeshNormals(triangles, 30)(vertices)
    torch.testing.assert_close(found, vertex_normals(vertices, triangles), atol=1e-4, rtol=1e-4)
    assert (found[:, -1] == 0).all()
