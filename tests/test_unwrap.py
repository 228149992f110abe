"""The layout of a face in its texture: triangles do not overlap."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.texture import face_triangles
from twodasl_lite.faces.unwrap import unwrap
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.render import rasterize


@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


@pytest.fixture(scope="module", params=["whole", "face"])
def layout(request, model):
    return unwrap(model, None if request.param == "whole" else face_triangles(model))


def test_each_corner_has_a_place_of_its_vertex(model, layout):
    assert torch.equal(layout.vertices[layout.corners], layout.triangles)
    assert float(layout.places.min()) >= 0
    assert float(layout.places.max()) <= 1
    assert len(layout.places) < 1.4 * len(layout.triangles.unique())  # few vertices are on a seam


def test_no_two_triangles_share_a_place(layout):
    """Drawn with random depths twice, nearest first and farthest first, the pictures are the same."""
    side = 512
    depth = torch.rand(len(layout.corners), 1, generator=torch.Generator().manual_seed(0)).expand(-1, 3)
    corners = torch.cat([layout.places[layout.corners] * side - 0.5, depth[..., None]], dim=-1).reshape(1, -1, 3)
    own = torch.arange(corners.shape[1]).reshape(-1, 3)
    front = rasterize(corners, own, side, side, cull="none").triangle
    back = rasterize(corners * torch.tensor([1.0, 1.0, -1.0]), own, side, side, cull="none").triangle
    assert float((front != back).sum() / (front >= 0).sum()) < 0.01


def test_the_face_lies_as_one_sees_it(model, layout):
    place = {int(vertex): number for number, vertex in enumerate(layout.vertices)}
    brow, lip, left, right = (layout.places[place[int(model.landmarks[mark])]] for mark in (21, 57, 36, 45))
    assert brow[1] > lip[1] + 0.1  # v counts upwards
    assert left[0] < right[0] - 0.1  # the eye on the left of a picture is on the left of the texture
    assert abs(float(left[0] + right[0]) / 2 - float(lip[0])) < 0.01


def test_it_is_the_same_each_time(model):
    triangles = face_triangles(model)
    first, second = unwrap(model, triangles), unwrap(model, triangles)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_no_triangle_reaches_across_the_picture(layout):
    corners = layout.places[layout.corners]
    spans = corners.amax(dim=1) - corners.amin(dim=1)
    assert float(spans.max()) < 0.5  # at the top of the head
    assert float((spans.amax(dim=1) > 0.15).float().mean()) < 1e-3


def test_any_mesh_has_a_layout(small_model):
    layout = unwrap(small_model)
    assert torch.equal(layout.vertices[layout.corners], layout.triangles)
    with pytest.raises(ValueRangeError, match="triangles: found none"):
        unwrap(small_model, small_model.triangles[:0])
