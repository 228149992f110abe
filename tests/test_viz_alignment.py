"""Pictures of reconstructed faces: drawn in the right place, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_applications import sheet

from twodasl_lite.faces import MorphableModel
from twodasl_lite.viz.alignment import Canvas, dense_picture, depth_and_coordinates, overlay_picture, quick_overlay


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    """A slanted square for a face."""
    vertices, triangles = sheet(0, 0, 60)
    mean = vertices * torch.tensor([1.0, -1.0, 1.0])
    mean[:, 2] = mean[:, 0] / 2
    nothing = torch.zeros(len(mean), 3, 1)
    return MorphableModel(
        mean, nothing, nothing, triangles, torch.arange(68), shape_std=torch.ones(1), expression_std=torch.ones(1)
    )


@pytest.fixture
def face(model) -> torch.Tensor:
    """In pixels: 20 to 80 from the left, 15 to 75 from the top, nearer on the right."""
    return model.mean * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor([20.0, 15, 0])


PHOTO = np.full((90, 120, 3), 100, np.uint8)
INSIDE, RIM = (slice(17, 73), slice(22, 78)), (slice(14, 77), slice(19, 82))


def outside(picture: np.ndarray) -> np.ndarray:
    mask = np.ones(picture.shape[:2], bool)
    mask[RIM] = False
    return picture[mask]


def test_overlay(model, face):
    result = overlay_picture(PHOTO, [face], model, smallest=1)
    assert (outside(result) == 100).all()
    assert (result[INSIDE] != 100).any(axis=2).all()
    assert (overlay_picture(PHOTO, [], model, smallest=1) == 100).all()
    assert (overlay_picture(PHOTO, [face + 500], model, smallest=1) == 100).all()
    enlarged = overlay_picture(PHOTO, [face], model, smallest=240)
    assert enlarged.shape == (180, 240, 3)
    assert (enlarged[34:146, 44:156] != 100).any(axis=2).all()
    assert (enlarged[:24] == 100).all()


def test_dense(model, face):
    result = dense_picture(PHOTO, [face], model, smallest=1, every=1)
    assert (result[:11] == 100).all()
    assert (result[:, :16] == 100).all()
    assert (result[:, 86:] == 100).all()
    left, right = result[45, 29:33].reshape(-1, 3), result[45, 71:75].reshape(-1, 3)
    assert right.max(axis=0)[1] > 180  # near: yellow
    assert left.max(axis=0)[1] < 180


def test_depth_and_coordinates(model, face):
    depth, code = depth_and_coordinates(PHOTO, [face], model)
    for picture in (depth, code):
        assert picture.shape == PHOTO.shape
        assert (outside(picture) == 0).all()
    row = depth[45, 21:79, 0].astype(int)
    assert (np.diff(row) >= 0).all()
    assert row[0] < 20 < 240 < row[-1]
    assert abs(int(code[45, 50, 0]) - 128) < 4  # the middle of x
    assert int(code[20, 50, 1]) > 200  # y up


def test_canvas():
    photo = np.zeros((3000, 4000, 3), np.uint8)
    canvas = Canvas(photo, largest=1000)
    assert canvas.photo.shape == (750, 1000, 3)
    corners = torch.tensor([[-0.5, -0.5, 8.0], [3999.5, 2999.5, 0.0]])
    expected = torch.tensor([[-0.5, -0.5, 2.0], [999.5, 749.5, 0.0]])
    torch.testing.assert_close(canvas.place(corners), expected)
    assert canvas.window(expected + 5000) is None
    assert canvas.window(expected) == (slice(0, 750), slice(0, 1000))


def test_the_quick_overlay_is_the_other_but_for_its_rim(model, face):
    """Both mix in linear light; inside, the light at the vertices is that of the pixels on a flat surface."""
    photo = np.random.default_rng(2).integers(0, 256, PHOTO.shape, dtype=np.uint8)
    before = photo.copy()
    options = {"opacity": 0.6}
    quick = quick_overlay(photo, [face], model, **options)
    exact = overlay_picture(photo, [face], model, smallest=1, **options)
    assert quick.shape == photo.shape
    assert np.abs(quick[INSIDE].astype(int) - exact[INSIDE]).max() <= 2
    assert np.abs(quick[INSIDE].astype(int) - photo[INSIDE]).mean() > 20
    np.testing.assert_array_equal(outside(quick), outside(photo))
    np.testing.assert_array_equal(photo, before)
    away = face + torch.tensor([1000.0, 0, 0])
    np.testing.assert_array_equal(quick_overlay(photo, [away], model), photo)
