"""Colours read off a photo, on a picture of the face whose colours are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.faces.texture import (
    face_triangles,
    mirrored_vertices,
    photo_colours,
    photo_texture,
    seen_vertices,
    seen_weights,
)
from twodasl_lite.faces.unwrap import unwrap
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.render import render

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


@pytest.fixture(scope="module")
def layout(model):
    return unwrap(model, face_triangles(model))


def looked_up(picture: np.ndarray, layout, vertices: torch.Tensor) -> torch.Tensor:
    """Colours ``(N, 3)`` of a texture at vertices: nearest pixels, row 0 at the top, v upwards."""
    place = {int(vertex): number for number, vertex in enumerate(layout.vertices)}
    uv = layout.places[[place[int(vertex)] for vertex in vertices]].numpy()
    side = len(picture)
    rows, columns = ((1 - uv[:, 1]) * side).astype(int), (uv[:, 0] * side).astype(int)
    return torch.from_numpy(picture[rows.clip(0, side - 1), columns.clip(0, side - 1)].astype(np.float32) / 255)


def test_weights_fall_off_towards_what_is_hidden(model):
    vertices = posed(model, 40.0)
    weights = seen_weights(vertices, model.triangles, SIDE, SIDE)
    seen = seen_vertices(vertices, model.triangles, SIDE, SIDE)
    assert float(weights[~seen].max()) == 0
    assert 0.9 < float(weights.max()) <= 1
    steps = weights[face_triangles(model)]
    jumps = (steps.amax(dim=1) - steps.amin(dim=1)) > 0.6  # from trusted to hidden within one triangle
    assert float(jumps.float().mean()) < 0.01


def test_a_texture_has_the_photos_colours_where_it_shows_them(model, layout):
    albedo = model.decode_albedo()[0]
    vertices = posed(model, 0.0)
    picture = photo_texture(photo_of(model, vertices, albedo), vertices, model, layout, 512)
    assert picture.shape == (512, 512, 3)
    assert picture.dtype == np.uint8
    marks = model.landmarks[17:]
    weights = seen_weights(vertices, model.triangles, SIDE, SIDE)[marks]
    away = (looked_up(picture, layout, marks) - albedo[marks]).abs().mean(dim=1)
    assert int((weights > 0.5).sum()) > 20
    assert float(away[weights > 0.5].median()) < 0.03
    assert float(away[weights > 0.5].mean()) < 0.06  # lips and brows end at landmarks


def test_a_texture_is_mirrored_where_the_photo_shows_nothing(model, layout):
    albedo = torch.full_like(model.mean, 0.5)
    albedo[:, 0] = (model.mean[:, 0].abs() / 150 + 0.2).clamp(0, 1)  # a symmetric pattern
    albedo[:, 1] = ((model.mean[:, 1] + 100) / 250).clamp(0, 1)
    vertices = posed(model, 60.0)
    picture = photo_texture(photo_of(model, vertices, albedo), vertices, model, layout, 256)
    skin = face_triangles(model).unique()
    weights = seen_weights(vertices, model.triangles, SIDE, SIDE)
    other = mirrored_vertices(model, skin)
    hidden = skin[(weights[skin] == 0) & (weights[other] > 0.95)]
    assert len(hidden) > 300
    away = (looked_up(picture, layout, hidden) - albedo[hidden])[:, :2].abs()
    assert float(away.mean()) < 0.03


def test_what_hides_lends_no_colour(model, layout):
    """The nose, painted green, hides a part of the cheek behind it: that part is not green."""
    albedo = torch.full_like(model.mean, 0.6)
    green = torch.tensor([0.0, 1.0, 0.0])
    albedo[model.regions["nose"]] = green
    vertices = posed(model, 50.0)
    picture = photo_texture(photo_of(model, vertices, albedo), vertices, model, layout, 512)
    nose = torch.zeros(model.num_vertices, dtype=torch.bool)
    nose[model.regions["nose"]] = True
    far = (model.mean[model.regions["nose"]][:, None] - model.mean[None]).norm(dim=-1).amin(dim=0) > 8
    hidden = face_triangles(model).unique()
    hidden = hidden[(seen_weights(vertices, model.triangles, SIDE, SIDE)[hidden] == 0) & far[hidden]]
    assert len(hidden) > 500
    colours = looked_up(picture, layout, hidden)
    assert float((colours[:, 1] - colours[:, 0]).mean()) < 0.03


def test_a_large_photo_is_shrunk_first(model, layout):
    """A chequered face of 8 pixels per texture pixel gives grey, not one of the two colours."""
    factor = 8
    vertices = posed(model, 0.0)
    large = vertices * factor + (factor - 1) / 2
    rows, columns = np.mgrid[: SIDE * factor, : SIDE * factor]
    chequered = np.repeat((((rows + columns) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    picture = photo_texture(chequered, large, model, layout, 128)
    marks = looked_up(picture, layout, model.landmarks[[30, 33, 51]])
    assert float((marks - 0.5).abs().max()) < 0.1


def test_a_texture_must_have_a_size(model, layout):
    with pytest.raises(ValueRangeError, match="side: found 4"):
        photo_texture(np.zeros((SIDE, SIDE, 3), np.uint8), posed(model, 0.0), model, layout, 4)
    with pytest.raises(ValueRangeError, match="no part of the face"):
        photo_texture(np.zeros((SIDE, SIDE, 3), np.uint8), posed(model, 0.0) + 1000, model, layout)
