"""Colour, depth, normal and coordinate pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_render_rasterizer import posed_face
from test_render_shading import ball

from twodasl_lite.base.errors import ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.render import (
    Lamps,
    Picture,
    coordinate_code,
    coordinate_image,
    depth_image,
    linear_to_srgb,
    normal_image,
    over,
    rasterize,
    refine,
    render,
    srgb_to_linear,
)

TRIANGLE = torch.tensor([[0, 1, 2]])
CORNERS = torch.tensor([[[-0.5, -40.0, 0], [-0.5, 60, 0], [60, 9.5, 0]]])  # its left edge is that of the picture
GREY = torch.full((3, 3), 0.5)


def ball_in_pixels(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    points, triangles = ball()
    centre = (size - 1) / 2
    vertices = points * torch.tensor([1, -1, 1]) * 0.4 * size + torch.tensor([centre, centre, 0])
    return vertices[None].float(), triangles


def test_colours_without_light_are_the_vertices_own():
    picture = render(CORNERS, TRIANGLE, GREY, 12, 10)
    assert picture.colour.shape == (1, 12, 10, 3)
    torch.testing.assert_close(picture.colour, torch.full((1, 12, 10, 3), 0.5))
    assert (picture.alpha == 1).all()


def test_a_ball_under_a_lamp_is_brightest_towards_it():
    vertices, triangles = ball_in_pixels(60)
    lamp = Lamps(torch.zeros(3), torch.tensor([[-0.5, 0.5, 0.7]]), torch.ones(1, 3))
    picture = render(vertices, triangles, torch.ones(vertices.shape[1], 3), 60, 60, light=lamp)
    light = srgb_to_linear(picture.colour)[0, ..., 0]
    row, column = divmod(int(light.argmax()), 60)
    way = np.array([-0.5, 0.5, 0.7]) / np.linalg.norm([-0.5, 0.5, 0.7]) * 24
    assert abs(column - (29.5 + way[0])) < 2
    assert abs(row - (29.5 - way[1])) < 2
    # The closed form: the normal of a ball at a pixel is known, and Lambert's law with it.
    y, x = torch.meshgrid(29.5 - torch.arange(60), torch.arange(60) - 29.5, indexing="ij")
    inside = (x**2 + y**2) < 22**2
    normal = torch.stack([x, y, (24**2 - x**2 - y**2).clamp(min=0).sqrt()], dim=-1) / 24
    wanted = (normal @ torch.tensor(way / 24).float()).clamp(min=0)
    assert (light - wanted)[inside].abs().max() < 0.02


def test_normals_of_a_ball():
    vertices, triangles = ball_in_pixels(80)
    fragments = rasterize(vertices, triangles, 80, 80)
    normals = normal_image(vertices, triangles, fragments)
    lengths = normals.norm(dim=-1)
    torch.testing.assert_close(lengths, fragments.covered.float())
    assert normals[0, 40, 40, 2] > 0.99
    assert normals[0, 20, 40, 1] > 0.5  # up is up
    assert normals[0, 40, 60, 0] > 0.5


def test_a_finer_picture_shows_the_same():
    """Its pixels are squares of the coarse one's: centres of squares agree."""
    vertices = CORNERS + torch.tensor([2.3, 0.2, 0])
    coarse = rasterize(vertices, TRIANGLE, 12, 10).covered
    fine = rasterize(refine(vertices, 3), TRIANGLE, 36, 30).covered
    assert torch.equal(fine[:, 1::3, 1::3], coarse)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_supersampling_measures_coverage(share):
    """The left edge cuts the pixels of column 4 at a known place."""
    vertices = CORNERS + torch.tensor([5 - share, 0, 0])
    picture = render(vertices, TRIANGLE, GREY, 12, 10, supersample=4)
    wanted = torch.tensor([0.0] * 4 + [share] + [1.0] * 5).expand(1, 12, 10)
    torch.testing.assert_close(picture.alpha, wanted)
    torch.testing.assert_close(picture.colour[0, :, 4:], torch.full((12, 6, 3), 0.5))  # the surface's own, undimmed
    assert (picture.colour[0, :, :4] == 0).all()


def test_over_a_photo():
    alpha = torch.tensor([[[0.0, 1.0, 0.25]]])
    colour = torch.tensor([[[[0.0] * 3, [0.9, 0.5, 0.1], [1.0, 1.0, 1.0]]]])
    background = torch.tensor([0.2, 0.4, 0.0])
    mixed = over(Picture(colour, alpha), background)
    assert torch.equal(mixed[0, 0, 0], background)
    assert torch.equal(mixed[0, 0, 1], colour[0, 0, 1])
    torch.testing.assert_close(mixed[0, 0, 2], linear_to_srgb(0.25 + 0.75 * srgb_to_linear(background)))
    for same in (background.expand(1, 3, 3), background.expand(1, 1, 3, 3)):
        assert torch.equal(over(Picture(colour, alpha), same), mixed)


def test_depth_as_grey():
    vertices, triangles = ball_in_pixels(41)
    two = torch.cat([vertices, vertices * torch.tensor([1, 1, 0.1])])
    fragments = rasterize(two, triangles, 41, 41)
    grey = depth_image(fragments)
    assert (grey[~fragments.covered] == 0).all()
    assert torch.equal(grey.amax(dim=(1, 2)), torch.ones(2))
    assert grey[0, 20, 20] > 0.999
    torch.testing.assert_close(grey[0], grey[1], atol=1e-4, rtol=0)  # each picture has its own scale
    nothing = depth_image(rasterize(two - 500, triangles, 41, 41))
    assert (nothing == 0).all()


def test_coordinates_survive_pose():
    model = load_face_model()
    mean, code = model.mean.float(), coordinate_code(model.mean.float())
    assert (code.amin(dim=0) == 0).all()
    assert (code.amax(dim=0) == 1).all()
    vertices, triangles = posed_face(150, [0.0, 0.7])
    fragments = rasterize(vertices, triangles, 150, 150)
    picture = coordinate_image(mean, triangles, fragments)
    assert (picture[~fragments.covered] == 0).all()
    tip = model.landmarks[30]
    for image in range(2):
        column, row = vertices[image, tip, :2].round().long().tolist()
        assert (picture[image, row, column] - code[tip]).abs().max() < 0.03
    assert picture[0, ..., 2].max() > 0.99  # blue is nearest to the viewer of the mean face


def test_render_is_differentiable():
    vertices, triangles = ball_in_pixels(12)
    albedo = torch.full((vertices.shape[1], 3), 0.5, requires_grad=True)
    lamp = torch.tensor([[0.4, 0.5, 0.6]], requires_grad=True)
    light = Lamps(torch.full((3,), 0.1), lamp, torch.full((1, 3), 0.5))
    render(vertices.requires_grad_(), triangles, albedo, 12, 12, light=light, supersample=2).colour.sum().backward()
    for leaf in (vertices, albedo, lamp):
        assert torch.isfinite(leaf.grad).all()
        assert leaf.grad.abs().max() > 0


def test_every_device(device):
    vertices, triangles = ball_in_pixels(20)
    lamp = Lamps(torch.full((3,), 0.1), torch.tensor([[0.4, 0.5, 0.6]]), torch.full((1, 3), 0.5))
    albedo = torch.rand(vertices.shape[1], 3)
    pictures = [
        over(render(vertices.to(d), triangles.to(d), albedo.to(d), 20, 20, light=lamp), torch.ones(3)).cpu()
        for d in ("cpu", device)
    ]
    torch.testing.assert_close(*pictures)


@pytest.mark.parametrize("factor", [0, -1, 17, 1.5, True])
def test_bad_supersampling(factor):
    with pytest.raises(TwodaslError, match=f"supersample: found {factor}; expected"):
        render(CORNERS, TRIANGLE, GREY, 12, 10, supersample=factor)


def test_bad_input():
    picture = render(CORNERS, TRIANGLE, GREY, 12, 10)
    with pytest.raises(ShapeError, match="background"):
        over(picture, torch.zeros(11, 10, 3))
    with pytest.raises(ShapeError, match="background"):
        over(picture, torch.zeros(12, 10))
    with pytest.raises(ValueRangeError, match="background: found values outside"):
        over(picture, torch.full((3,), 255.0))
    with pytest.raises(ValueRangeError, match="background"):
        over(picture, torch.full((3,), torch.nan))
    with pytest.raises(ShapeError, match="attributes"):
        render(CORNERS, TRIANGLE, GREY.expand(4, 3, 3), 12, 10)
    with pytest.raises(ShapeError, match="mean: found no vertex"):
        coordinate_code(torch.zeros(0, 3))
    with pytest.raises(ValueRangeError, match="without extent"):
        coordinate_code(torch.ones(5, 3))
