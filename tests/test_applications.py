"""Retargeting and swapping, on meshes so simple that the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.apps.transfer import retarget_expression, swap_faces
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.geometry.coefficients import Coefficients


def face(seed: int, batch: int = 2, num_expression: int = 10) -> Coefficients:
    generator = torch.Generator().manual_seed(seed)
    return Coefficients(
        torch.randn(batch, 3, 4, generator=generator),
        torch.randn(batch, 40, generator=generator),
        torch.randn(batch, num_expression, generator=generator),
    )


def test_retargeting_moves_the_expression_alone():
    source, target = face(0), face(1)
    result = retarget_expression(source, target)
    assert result.pose is target.pose
    assert result.shape is target.shape
    torch.testing.assert_close(result.expression, source.expression)
    half = retarget_expression(source, target, 0.5)
    torch.testing.assert_close(half.expression, (source.expression + target.expression) / 2)
    torch.testing.assert_close(retarget_expression(source, target, 0.0).expression, target.expression)


def test_one_actor_for_many():
    result = retarget_expression(face(0, batch=1), face(1, batch=3))
    assert result.expression.shape == (3, 10)
    with pytest.raises(ShapeError, match="one for all"):
        retarget_expression(face(0, batch=2), face(1, batch=3))
    with pytest.raises(ShapeError, match="found 5 expression coefficients; expected the target's 10"):
        retarget_expression(face(0, num_expression=5), face(1))
    with pytest.raises(ValueRangeError, match="amount"):
        retarget_expression(face(0), face(1), float("nan"))


def sheet(left: float, top: float, side: float, steps: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """A flat square that faces the viewer: vertices in pixels, triangles counter-clockwise with y up."""
    line = torch.linspace(0, side, steps)
    y, x = torch.meshgrid(line + top, line + left, indexing="ij")
    vertices = torch.stack([x.flatten(), y.flatten(), torch.zeros(steps * steps)], dim=1)
    k = torch.arange(steps * steps).reshape(steps, steps)
    a, b, c, d = (part.flatten() for part in (k[:-1, :-1], k[:-1, 1:], k[1:, :-1], k[1:, 1:]))
    return vertices, torch.cat([torch.stack([a, c, b], dim=1), torch.stack([b, c, d], dim=1)])


def picture(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_each_pixel_comes_from_the_same_spot():
    source, triangles = sheet(10, 15, 40)
    target, _ = sheet(62, 31, 40)  # 52 to the right, 16 down
    one, other = picture(0), picture(1)
    result = swap_faces(one, source, other, target, triangles, feather=0, match_colours=False)
    np.testing.assert_array_equal(result[31:71, 62:102], one[15:55, 10:50])
    untouched = np.ones(result.shape[:2], bool)
    untouched[31:72, 62:103] = False
    np.testing.assert_array_equal(result[untouched], other[untouched])


def test_a_larger_target_interpolates():
    source, triangles = sheet(10, 15, 20)
    target, _ = sheet(30, 20, 60)
    ramp = np.zeros((90, 120, 3), np.uint8)
    ramp[..., 0] = 2 * np.arange(120)
    ramp[..., 1] = 2 * np.arange(90)[:, None]
    result = swap_faces(ramp, source, picture(1), target, triangles, feather=0, match_colours=False)
    y, x = np.mgrid[25:75, 35:85]
    expected = np.stack([2 * (10 + (x - 30) / 3), 2 * (15 + (y - 20) / 3)], axis=-1)
    np.testing.assert_allclose(result[25:75, 35:85, :2], expected, atol=1)


def test_a_face_over_itself_changes_nothing():
    vertices, triangles = sheet(10, 15, 50)
    one = picture(0)
    result = swap_faces(one, vertices, one, vertices, triangles, match_colours=False)
    np.testing.assert_array_equal(result, one)
    matched = swap_faces(one, vertices, one, vertices, triangles)
    assert np.abs(matched.astype(int) - one).mean() < 2  # there and back through CIELAB


def test_the_seam_is_soft():
    vertices, triangles = sheet(20, 15, 60)
    white, black = np.full((90, 120, 3), 255, np.uint8), np.zeros((90, 120, 3), np.uint8)
    row = swap_faces(white, vertices, black, vertices, triangles, feather=0.2, match_colours=False)[45, :, 0].astype(
        int
    )
    assert row[50] == 255
    assert row[10] == 0
    steps = np.diff(row[18:36])
    assert (steps >= 0).all()
    assert steps.max() < 50


def test_colours_are_matched():
    vertices, triangles = sheet(20, 15, 60)
    dark = (60 + picture(0) // 8).astype(np.uint8)
    light = (150 + picture(1) // 4).astype(np.uint8)
    result = swap_faces(dark, vertices, light, vertices, triangles, feather=0)
    inside = (slice(20, 70), slice(25, 75))
    assert abs(float(result[inside].mean()) - float(light[inside].mean())) < 3
    assert float(result[inside].std()) > 1.4 * float(dark[inside].std())


def test_what_the_source_hides_stays():
    vertices, triangles = sheet(20, 15, 60)
    source = vertices.clone()
    source[:, 0] -= 50  # its left half lies outside of its photo
    white, black = np.full((90, 120, 3), 255, np.uint8), np.zeros((90, 120, 3), np.uint8)
    result = swap_faces(white, source, black, vertices, triangles, feather=0, match_colours=False)[45, :, 0]
    assert (result[22:45] == 0).all()
    assert (result[60:78] == 255).all()


def test_wrong_arguments():
    vertices, triangles = sheet(20, 15, 60)
    one = picture(0)
    with pytest.raises(ShapeError, match="target_vertices"):
        swap_faces(one, vertices, one, vertices[:5], triangles)
    with pytest.raises(ValueRangeError, match="feather"):
        swap_faces(one, vertices, one, vertices, triangles, feather=-1)
    with pytest.raises(ValueRangeError, match="expected a face in the 120x90 photo"):
        swap_faces(one, vertices, one, vertices + 500, triangles)
