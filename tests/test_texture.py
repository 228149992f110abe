"""Colours read off a photo, on a picture of the face whose colours are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.camera import euler_to_matrix, make_pose
from twodasl_lite.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.decode import decode
from twodasl_lite.errors import ValueRangeError
from twodasl_lite.morphable import load_face_model
from twodasl_lite.render import render
from twodasl_lite.texture import face_triangles, mirrored_vertices, photo_colours, seen_vertices

SIDE = 240


@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


def posed(model, yaw: float) -> torch.Tensor:
    """Vertices of the average face in a picture, its middle in the picture's."""
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor([0.0, yaw, 0.0])))
    pose = make_pose(torch.tensor(1.0), rotation, torch.tensor([SIDE / 2, SIDE / 2, 0.0]))
    face = Coefficients(pose[None], torch.zeros(1, 40), torch.zeros(1, 10))
    return decode(face, model, SIDE)[0]


def photo_of(model, vertices: torch.Tensor, albedo: torch.Tensor) -> np.ndarray:
    drawn = render(vertices[None], model.triangles, albedo, SIDE, SIDE, supersample=2)
    return (drawn.colour[0] * 255).round().to(torch.uint8).numpy()


def test_colours_are_found_again(model):
    albedo = model.decode_albedo()[0]
    vertices = posed(model, 50.0)
    colours = photo_colours(photo_of(model, vertices, albedo), vertices, model)
    skin = model.regions["face"]
    seen = seen_vertices(vertices, model.triangles, SIDE, SIDE)[skin]
    assert 0.3 < float(seen.float().mean()) < 0.9
    away = (colours - albedo)[skin].abs().mean(dim=1)
    assert float(away[seen].mean()) < 0.02
    assert float(away[~seen].mean()) < 0.06  # from the other half of a face that is nearly its mirror image


def test_what_is_hidden_comes_from_the_other_half(model):
    albedo = torch.full_like(model.mean, 0.5)
    albedo[:, 0] = (model.mean[:, 0].abs() / 150 + 0.2).clamp(0, 1)  # a symmetric pattern
    vertices = posed(model, 60.0)
    colours = photo_colours(photo_of(model, vertices, albedo), vertices, model)
    skin = model.regions["face"]
    seen = seen_vertices(vertices, model.triangles, SIDE, SIDE)
    other = mirrored_vertices(model, skin)
    mirrored = skin[~seen[skin] & seen[other]]
    assert len(mirrored) > 500
    assert float((colours - albedo)[mirrored, 0].abs().mean()) < 0.03


def test_mirrored_vertices(model):
    some = model.landmarks[[36, 45, 30]]
    other = mirrored_vertices(model, some)
    expected = model.mean[some] * torch.tensor([-1.0, 1.0, 1.0])
    assert float((model.mean[other] - expected).norm(dim=1).max()) < 1.0  # mm
    assert mirrored_vertices(model, some[:0]).shape == (0,)


def test_what_counts_as_seen(model):
    vertices = posed(model, 0.0)
    seen = seen_vertices(vertices, model.triangles, SIDE, SIDE)
    nose, back = int(model.landmarks[30]), int(model.mean[:, 2].argmin())
    assert seen[nose]
    assert not seen[back]
    assert not seen_vertices(vertices, model.triangles, SIDE, 60)[nose]  # right of so narrow a photo
    with pytest.raises(ValueRangeError, match="no part of the face"):
        photo_colours(np.zeros((SIDE, SIDE, 3), np.uint8), vertices + 1000, model)


def test_face_triangles(model):
    triangles = face_triangles(model)
    assert set(triangles.unique().tolist()) >= set(model.landmarks[17:].tolist())  # the jaw's ends lie beside it
    neck = set(model.regions["neck"].tolist()) - set(model.regions["face"].tolist())
    assert not neck & set(triangles.unique().tolist())
