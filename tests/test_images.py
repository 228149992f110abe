"""Photographs of every kind that a reader may bring."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import torch

from twodasl_lite import images
from twodasl_lite.camera import image_to_crop
from twodasl_lite.errors import FileFormatError, InputTypeError, ShapeError, TwodaslError, ValueRangeError


def gradient(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, np.full_like(x, 30)], axis=2).clip(0, 255).astype(np.uint8)


def test_a_colour_photo_comes_back(tmp_path) -> None:
    photo = gradient()
    images.write_photo(tmp_path / "deep" / "photo.png", photo)
    np.testing.assert_array_equal(images.read_photo(tmp_path / "deep" / "photo.png"), photo)
    images.write_photo(tmp_path / "photo.jpg", photo)
    assert np.abs(images.read_photo(tmp_path / "photo.jpg").astype(int) - photo).mean() < 3
    with pytest.raises(FileFormatError, match=r"the suffix '\.face'"):
        images.write_photo(tmp_path / "photo.face", photo)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "photo.jpg"]


def test_grey_alpha_and_16_bit_photos_just_work(tmp_path) -> None:
    photo = gradient()
    grey = photo[..., 0]
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    np.testing.assert_array_equal(images.read_photo(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    alpha = np.zeros(grey.shape, np.uint8)
    alpha[:, :30] = 255
    cv2.imwrite(str(tmp_path / "alpha.png"), np.dstack([photo[..., ::-1], alpha]))
    read = images.read_photo(tmp_path / "alpha.png")
    np.testing.assert_array_equal(read[:, :30], photo[:, :30])
    assert (read[:, 30:] == 255).all()  # composited over white
    cv2.imwrite(str(tmp_path / "deep.png"), photo[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(images.read_photo(tmp_path / "deep.png"), photo)


def test_exif_rotation_is_applied(tmp_path) -> None:
    done, data = cv2.imencode(".jpg", gradient()[..., ::-1])
    assert done
    # One EXIF tag, 0x0112 orientation = 6: the camera was turned a quarter to the left.
    tiff = b"II*\x00" + struct.pack("<IH", 8, 1) + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + b"\x00" * 4
    segment = b"Exif\x00\x00" + tiff
    raw = data.tobytes()
    (tmp_path / "turned.jpg").write_bytes(
        raw[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + raw[2:]
    )
    assert images.read_photo(tmp_path / "turned.jpg").shape == (60, 40, 3)


@pytest.mark.parametrize("size", [(1, 1), (8000, 8000), (1, 500)])
def test_tiny_and_huge_photos_just_work(tmp_path, size: tuple[int, int]) -> None:
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), np.full(size, 77, np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    photo = images.read_photo(path)
    assert photo.shape == (*size, 3)
    assert (photo[0, 0] == 77).all()
    box = torch.tensor([-10.0, -10.0, size[1] + 9.0, size[0] + 9.0])
    assert images.crop_photo(photo, box).shape == (120, 120, 3)


def test_what_is_no_photo_is_named(tmp_path) -> None:
    with pytest.raises(FileFormatError, match=r"gone\.jpg: found no such file; expected a picture file"):
        images.read_photo(tmp_path / "gone.jpg")
    with pytest.raises(FileFormatError, match="a folder"):
        images.read_photo(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(FileFormatError, match="an empty file"):
        images.read_photo(tmp_path / "empty.png")
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(FileFormatError, match="no picture"):
        images.read_photo(tmp_path / "text.jpg")


def test_arrays_are_checked() -> None:
    np.testing.assert_array_equal(images.as_photo(np.ones((2, 2, 1)) * 0.5), np.full((2, 2, 3), 128))
    np.testing.assert_array_equal(images.as_photo(np.full((2, 2), 255, np.int64)), np.full((2, 2, 3), 255))
    cases = [
        (np.zeros((0, 5, 3), np.uint8), ShapeError, "not empty"),
        (np.zeros((5, 5, 2), np.uint8), ShapeError, r"\(5, 5, 2\)"),
        (np.zeros(5, np.uint8), ShapeError, r"\(5,\)"),
        (np.full((2, 2), 300), ValueRangeError, "300"),
        (np.full((2, 2), np.nan), ValueRangeError, "outside"),
        (np.zeros((2, images.MAX_SIDE + 1), np.uint8), ValueRangeError, "at most"),
        ("photo.jpg", InputTypeError, "found str"),
        (np.array(["a"]), InputTypeError, "array of pixels"),
    ]
    for value, error, message in cases:
        with pytest.raises(error, match=message):
            images.as_photo(value)


def test_landmarks_box_is_a_square_around_the_face() -> None:
    points = torch.tensor([[10.0, 20.0], [40.0, 60.0], [20.0, 30.0]])  # 30 x 40, centre (25, 40), side 56.6
    assert images.landmarks_box(points).tolist() == [-3, 12, 54, 69]
    with pytest.raises(ValueRangeError, match="all one point"):
        images.landmarks_box(torch.ones(5, 2))


def test_the_box_is_the_benchmarks(annotations) -> None:
    landmarks = torch.from_numpy(annotations["landmarks68"]).double().transpose(1, 2)[..., :2] - 1
    box = images.landmarks_box(landmarks)
    real = torch.from_numpy(annotations["roi_box"]) - 1
    torch.testing.assert_close(box, real)


def test_content_lands_where_the_mapping_says() -> None:
    photo = np.zeros((200, 200, 3), np.uint8)
    photo[90:94, 57:61] = 255  # centre of mass at (58.5, 91.5)
    box = torch.tensor([-20.0, 10.0, 139.0, 169.0])
    crop = images.crop_photo(photo, box, size=120)[..., 0].astype(float)
    ys, xs = np.mgrid[:120, :120]
    found = [(crop * xs).sum() / crop.sum(), (crop * ys).sum() / crop.sum()]
    expected = image_to_crop(torch.tensor([[58.5, 91.5]]), box)[0]
    np.testing.assert_allclose(found, expected, atol=0.02)
    assert (images.crop_photo(np.full((50, 50, 3), 9, np.uint8), box)[:, :14] == 0).all()  # left of the photo


def test_boxes_outside_the_photo_are_refused() -> None:
    photo = gradient()
    for box in ([100.0, 0.0, 120.0, 20.0], [-30.0, -30.0, -1.0, -1.0], [10.0, 10.0, 5.0, 20.0]):
        with pytest.raises(ValueRangeError, match="60x40 photo"):
            images.crop_photo(photo, torch.tensor(box))
    with pytest.raises(TwodaslError, match="box"):
        images.crop_photo(photo, torch.tensor([0.0, 0.0, float("nan"), 5.0]))


def test_the_networks_view() -> None:
    photo = gradient()
    tensor = images.photo_to_tensor(photo)
    assert tensor.shape == (3, 40, 60)
    assert tensor.dtype == torch.float32
    assert float(tensor[0, 0, 10]) == (40 - 127.5) / 128


def test_colours_between_pixels() -> None:
    photo = gradient()
    points = torch.tensor([[10.0, 5.0], [10.5, 5.0], [10.0, 5.25], [-5.0, -5.0], [500.0, 500.0]], dtype=torch.float64)
    colours = 255 * images.sample_colours(photo, points)
    expected = [[40, 30, 30], [42, 30, 30], [40, 31.5, 30], [0, 0, 30], [236, 234, 30]]
    torch.testing.assert_close(colours, torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)
