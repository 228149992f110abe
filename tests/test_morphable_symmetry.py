"""Mirror images of faces, vertex by vertex and in coefficients."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.faces.symmetry import coefficient_mirror, mirror_coefficients, mirrored_vertices, nearest_points
from twodasl_lite.geometry.camera import CROP_SIZE, euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import flip_landmarks


@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


def test_the_nearest_points_are_those_of_all_distances():
    """Also where the slice that is looked at first holds none, or only some that are farther away than its edge."""
    generator = torch.Generator().manual_seed(5)
    spread = torch.tensor([70.0, 100, 50])
    places, points = (torch.randn(n, 3, generator=generator) * spread for n in (700, 300))
    points[:150, 1] += 2000  # a gap in height, with places in it
    places[:50, 1] += 900
    places[50:60] = points[:10]
    found = nearest_points(places, points)
    distances = (places.double()[:, None] - points.double()).norm(dim=-1)
    assert torch.equal(found, distances.argmin(dim=1))
    assert nearest_points(places[:1], torch.stack([points[0]] * 3)).tolist() == [0]  # of equals the lowest


def test_the_embedded_face_is_symmetric(model) -> None:
    """Its shape components mirror to themselves or their negatives; its expressions nearly to expressions."""
    every = torch.arange(model.num_vertices)
    partner = mirrored_vertices(model, every)
    assert torch.equal(partner[partner], every)
    maps = coefficient_mirror(model)
    signs = maps.shape.diagonal()
    torch.testing.assert_close(maps.shape, torch.diag(signs), atol=1e-4, rtol=0)
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs), atol=1e-4, rtol=0)
    assert (signs > 0).sum() > 20
    assert (signs < 0).sum() > 3
    assert 0 < maps.residual < 0.01
    assert coefficient_mirror(model) is maps


def test_mirrored_coefficients_are_those_of_the_mirrored_landmarks(model) -> None:
    generator = torch.Generator().manual_seed(4)
    angles = torch.randn(6, 3, generator=generator) * 0.4
    pose = make_pose(torch.full((6,), 0.6), euler_to_matrix(angles), torch.tensor([50.0, 70, 3]).expand(6, 3))
    shape, expression = model.sample(6, generator=generator)
    raw = Coefficients(pose, shape, expression).pack()
    mirrored = mirror_coefficients(raw, model, CROP_SIZE)
    expected = flip_landmarks(decode_landmarks(raw, model), CROP_SIZE)
    found = decode_landmarks(mirrored, model)
    neutral = raw.clone()
    neutral[:, 12 + model.num_shape :] = 0
    exact = decode_landmarks(mirror_coefficients(neutral, model, CROP_SIZE), model)
    torch.testing.assert_close(exact, flip_landmarks(decode_landmarks(neutral, model), CROP_SIZE), atol=0.02, rtol=0)
    assert float((found - expected).abs().max()) < 0.3  # pixels: expressions leave a little
    assert float((found - decode_landmarks(raw, model)).abs().mean()) > 3  # and it is another face
    torch.testing.assert_close(mirror_coefficients(mirrored, model, CROP_SIZE)[:, :12], raw[:, :12])


def test_a_model_without_symmetry_is_refused(model) -> None:
    basis = model.shape_basis.clone()
    basis[: model.num_vertices // 2] = 0
    lame = model.replace(shape_basis=basis)
    assert coefficient_mirror(lame).residual > 0.2
    with pytest.raises(ValueRangeError, match=r"model: found .* expected a symmetric model"):
        mirror_coefficients(torch.zeros(1, 62), lame, CROP_SIZE)
