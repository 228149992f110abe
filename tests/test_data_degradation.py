"""Degradation of pictures by cameras and files, compared with OpenCV where it has the same operation."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from twodasl_lite.worlds.degradation import (
    add_noise,
    blur_matrix,
    degrade,
    jpeg,
    recolour,
    resize_matrix,
    soften,
)
from twodasl_lite.worlds.draws import Draws
from twodasl_lite.worlds.world import Degradation


def pictures(count: int = 4) -> torch.Tensor:
    """Smooth clouds with an edge."""
    coarse = torch.rand(count, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, (120, 120), mode="bicubic").clamp(0, 1)
    images[..., 40:80, 60:] *= 0.4
    return images


def test_nothing_is_asked_for_and_nothing_happens(device):
    images = pictures().to(device)
    same = degrade(images, Draws(0, torch.arange(4, device=device)), Degradation())
    assert (same.float() / 255 - images).abs().max() <= 0.51 / 255


def test_blur_is_opencvs():
    image = pictures(1)[0].permute(1, 2, 0).numpy()
    wanted = cv2.GaussianBlur(image, (0, 0), 1.7, borderType=cv2.BORDER_REPLICATE)
    matrix = blur_matrix(torch.tensor([1.7]), 120)
    found = matrix @ torch.from_numpy(image).permute(2, 0, 1) @ matrix[0].T
    inner = slice(10, -10)  # at the border they differ in what lies beyond it
    assert np.abs(found.permute(1, 2, 0).numpy() - wanted)[inner, inner].max() < 0.01
    assert torch.allclose(blur_matrix(torch.zeros(1), 20)[0], torch.eye(20))


@pytest.mark.parametrize("resolution", [30, 47, 120])
def test_small_sizes_are_opencvs(resolution):
    image = pictures(1)[0].permute(1, 2, 0).numpy()
    small = cv2.resize(image, (resolution, resolution), interpolation=cv2.INTER_AREA)
    wanted = cv2.resize(small, (120, 120), interpolation=cv2.INTER_LINEAR)
    matrix = resize_matrix(torch.tensor([float(resolution)]), 120)
    assert torch.allclose(matrix.sum(dim=-1), torch.ones(1, 120), atol=1e-5)
    found = matrix @ torch.from_numpy(image).permute(2, 0, 1) @ matrix[0].T
    assert np.abs(found.permute(1, 2, 0).numpy() - wanted).max() < 0.01


@pytest.mark.parametrize("quality", [10, 35, 75, 95])
def test_jpeg_loses_what_the_usual_library_loses(quality, device):
    images = pictures().to(device)
    found = jpeg(images, torch.full((4,), float(quality), device=device)).cpu()
    for image, ours in zip(images.cpu(), found, strict=True):
        bgr = (image.permute(1, 2, 0).numpy()[..., ::-1] * 255).round().astype(np.uint8)
        _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        theirs = torch.from_numpy(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy()).permute(2, 0, 1) / 255
        loss = (theirs - image).abs().mean()
        assert (ours - theirs).abs().mean() < max(0.35 * loss, 2 / 255)
        assert float((ours - image).abs().mean()) == pytest.approx(float(loss), rel=0.25, abs=0.5 / 255)


def test_each_picture_is_changed_by_itself():
    settings = Degradation(low_resolution=0.5, blur=0.5, noise=0.5, colour_cast=0.1, jpeg=0.5, grey=0.5)
    images = pictures(8)
    whole = degrade(images, Draws(2, torch.arange(8)), settings)
    single = torch.cat([degrade(images[k : k + 1], Draws(2, torch.tensor([k])), settings) for k in range(8)])
    assert torch.equal(whole, single)


def test_noise_has_the_level_asked_for():
    images = torch.full((6, 3, 120, 120), 0.25)
    noisy = add_noise(images, Draws(0, torch.arange(6)), Degradation(noise=1.0, noise_level=(10.0, 10.0)))
    level = 255 * (noisy - images).std(dim=(1, 2, 3))
    assert torch.allclose(level, torch.tensor(10 * (0.45 + 0.75 * 0.5)), rtol=0.3)
    assert (noisy - images).mean().abs() < 1e-3


def test_colours_change_but_not_the_brightness():
    images = torch.full((40, 3, 8, 8), 0.5)
    cast = recolour(images, Draws(0, torch.arange(40)), Degradation(colour_cast=0.2))
    luma = torch.tensor([0.299, 0.587, 0.114])
    assert torch.allclose(torch.einsum("bchw,c->bhw", cast, luma), torch.tensor(0.5), atol=1e-5)
    assert (cast.amax(dim=1) - cast.amin(dim=1)).mean() > 0.1
    grey = recolour(pictures(), Draws(0, torch.arange(4)), Degradation(grey=1.0))
    assert (grey.amax(dim=1) - grey.amin(dim=1)).max() < 1e-5


def test_softer_pictures_have_less_detail():
    images = pictures(8)

    def detail(images: torch.Tensor) -> torch.Tensor:
        return (images[..., 1:] - images[..., :-1]).abs().amax(dim=(1, 2, 3))

    for settings in (
        Degradation(blur=1.0, blur_width=(1.5, 2.5)),
        Degradation(low_resolution=1.0, resolution=(30.0, 40.0)),
    ):
        assert (detail(soften(images, Draws(0, torch.arange(8)), settings)) < 0.8 * detail(images)).all()
