"""Which vertices the viewer sees."""

from __future__ import annotations

import pytest
import torch
from test_render_rasterizer import needs_numba, posed_face
from test_render_shading import ball

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.render import rasterize, visible_in, visible_vertices

SQUARE = torch.tensor([[0, 1, 2], [2, 1, 3]])


def squares(*depths: float, side: float = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Squares behind each other, ``(1, 4 n, 3)``."""
    corners = torch.tensor([[0.0, 0], [0, side], [side, 0], [side, side]])
    sheets = [torch.cat([corners, torch.full((4, 1), float(depth))], dim=1) for depth in depths]
    return torch.cat(sheets)[None] + 3, torch.cat([SQUARE + 4 * k for k in range(len(depths))])


@pytest.mark.parametrize("backend", ["torch", pytest.param("numba", marks=needs_numba)])
@pytest.mark.parametrize("scale", [1.0, 0.01, 300.0])
def test_the_front_of_a_ball_is_seen(scale, backend):
    points, triangles = ball()
    seen = visible_vertices((points * scale)[None], triangles, backend=backend)[0]
    assert seen[points[:, 2] > 0.15].all()
    assert not seen[points[:, 2] < -0.15].any()


def test_a_sheet_hides_what_is_behind_it():
    vertices, triangles = squares(0, 5)
    inside = vertices[0, 4:] * torch.tensor([0.5, 0.5, 1]) + torch.tensor([5.0, 5, 0])  # a smaller one in front
    vertices = torch.cat([vertices[0, :4], inside, torch.tensor([[12.0, 12, 1]])])[None]
    assert visible_vertices(vertices, triangles)[0].tolist() == [True] * 8 + [False]


def test_tolerance_is_a_share_of_the_mesh():
    vertices, triangles = squares(0)
    behind = torch.cat([vertices, torch.tensor([[[12.0, 12, 2.5]]])], dim=1)  # 0.5 behind a square of 20
    assert visible_vertices(behind, triangles, tolerance=0.03)[0, 4]
    assert not visible_vertices(behind, triangles, tolerance=0.02)[0, 4]


def test_landmarks_of_a_turned_face():
    model = load_face_model()
    yaws = [0.0, 1.2, -1.2]
    vertices, triangles = posed_face(120, yaws)
    seen = visible_vertices(vertices, triangles, model.landmarks)
    assert seen.shape == (3, 68)
    assert seen[0].float().mean() > 0.95
    # A positive yaw moves the nose to the left of the picture: the left side goes out of sight.
    left, right = [*range(4), 36, 41], [*range(13, 17), 45, 46]
    assert not seen[1, left].any()
    assert seen[1, right].all()
    assert seen[2, left].all()
    assert not seen[2, right].any()
    whole = visible_vertices(vertices, triangles)
    assert torch.equal(whole[:, model.landmarks], seen)


def test_vertices_outside_the_crop_are_judged_too():
    vertices, triangles = posed_face(120, [0.4])
    assert torch.equal(
        visible_vertices(vertices, triangles), visible_vertices(vertices - torch.tensor([128.0, 64, 512]), triangles)
    )


def test_points_in_pictures_that_are_there():
    vertices, triangles = squares(4, side=8)
    fragments = rasterize(vertices, triangles, 16, 16)
    points = torch.tensor([[[5.0, 5, 7], [5.4, 5.6, 6.5], [5.4, 5.6, 5.5], [14, 14, -9], [-0.6, 5, 9], [5, 15.5, 9]]])
    assert visible_in(fragments, points, 1.0).tolist() == [[True, True, False, True, False, False]]


def test_nobody_there():
    assert visible_vertices(torch.zeros(2, 0, 3), torch.zeros(0, 3, dtype=torch.int64)).shape == (2, 0)
    point = visible_vertices(torch.ones(1, 1, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert point.tolist() == [[True]]
    vertices, triangles = squares(1)
    assert visible_vertices(vertices, triangles, torch.zeros(0, dtype=torch.int64)).shape == (1, 0)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"indices": torch.tensor([4])}, ValueRangeError, "indices: found indices from 4 to 4; expected 0 to 3"),
        ({"indices": torch.tensor([[0]])}, ShapeError, "indices"),
        ({"tolerance": -0.1}, ValueRangeError, "tolerance: found"),
        ({"tolerance": float("nan")}, ValueRangeError, "tolerance: found nan"),
        ({"resolution": 1}, ValueRangeError, "resolution: found 1"),
    ],
)
def test_bad_input(options, error, words):
    vertices, triangles = squares(0)
    with pytest.raises(error, match=words):
        visible_vertices(vertices, triangles, **options)
    with pytest.raises(ValueRangeError, match="vertices"):
        visible_vertices(vertices * torch.nan, triangles)
