"""Photographs of every kind that a user may have."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import FileFormatError, InputTypeError, ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.geometry import photos as images
from twodasl_lite.geometry.camera import image_to_crop


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
    with pytest.raises(FileFormatError, match="not a picture"):
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


# ------------------------------------------------------------------------------------------------- kinds of files
def corners(width: int = 30, height: int = 20) -> np.ndarray:
    """A picture that tells which way up it is: a red, a green, a blue and a white quarter."""
    photo = np.zeros((height, width, 3), np.uint8)
    photo[: height // 2, : width // 2, 0] = 255
    photo[: height // 2, width // 2 :, 1] = 255
    photo[height // 2 :, : width // 2, 2] = 255
    photo[height // 2 :, width // 2 :] = 255
    return photo


def stored(photo: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera stores it with this orientation: the definition of EXIF (row 0 is the visual top, right, ...)."""
    return {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: np.rot90(p, 2),
        4: lambda p: p[::-1],
        5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1),
        7: lambda p: np.rot90(p, 2).swapaxes(0, 1),
        8: lambda p: np.rot90(p, -1),
    }[orientation](photo)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "png with alpha", "webp", "webp with alpha", "jpg"])
def test_all_orientations_of_all_kinds(tmp_path, kind, orientation) -> None:
    image = pytest.importorskip("PIL.Image")
    photo = corners()
    pixels = stored(photo, orientation)
    if "alpha" in kind:
        pixels = np.concatenate([pixels, np.full((*pixels.shape[:2], 1), 255, np.uint8)], axis=2)
    exif = image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{kind.split()[0]}"
    options = {"lossless": True} if "webp" in kind else {"quality": 100, "subsampling": 0} if kind == "jpg" else {}
    image.fromarray(np.ascontiguousarray(pixels)).save(path, exif=exif, **options)
    read = images.read_photo(path)
    assert read.shape == photo.shape
    assert np.abs(read.astype(int) - photo).mean() < (12 if kind == "jpg" else 1)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_few_bits_in_a_16_bit_file(tmp_path, bits, channels) -> None:
    photo = np.linspace(0, 2**bits - 1, 400).round().astype(np.uint16).reshape(20, 20)
    pixels = photo if channels == 1 else np.repeat(photo[..., None], channels, axis=2)
    if channels == 4:
        pixels[..., 3] = 65535
    (tmp_path / "deep.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    read = images.read_photo(tmp_path / "deep.png")
    expected = (photo / (2**bits - 1) * 255)[..., None]
    assert np.abs(read - expected).max() <= 1


def test_kinds_that_people_have(tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    photo = corners(64, 48)
    picture = image.fromarray(photo)
    second = image.fromarray(255 - photo)
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100, subsampling=0)
    picture.convert("P").save(tmp_path / "palette.png")
    picture.save(tmp_path / "still.gif")
    picture.save(tmp_path / "moves.gif", save_all=True, append_images=[second], duration=100)
    picture.save(tmp_path / "still.webp", lossless=True)
    picture.save(tmp_path / "moves.webp", save_all=True, append_images=[second], lossless=True, duration=100)
    picture.save(tmp_path / "flat.tiff")
    picture.convert("L").save(tmp_path / "grey.bmp")
    picture.save(tmp_path / "smörgås 写真 📷.png")
    for path in sorted(tmp_path.iterdir()):
        read = images.read_photo(path)
        expected = np.asarray(picture.convert("L"))[..., None] if path.stem == "grey" else photo
        assert read.shape == photo.shape, path
        away = np.abs(read.astype(int) - expected)
        assert np.median(away) <= 3, path  # edges differ where colours were compressed
        assert away.mean() < 12, path


def test_heic_and_its_kin_are_named(tmp_path) -> None:
    for brand, found, wanted in (
        (b"heic", "a HEIC picture", "export it as JPEG"),
        (b"mif1", "a HEIC picture", "export it as JPEG"),
        (b"avif", "an AVIF picture", "convert it to JPEG or PNG"),
        (b"isom", "a video", "a picture file"),
    ):
        (tmp_path / "photo.jpg").write_bytes(bytes([0, 0, 0, 24]) + b"ftyp" + brand + bytes(40))
        with pytest.raises(FileFormatError, match=found) as caught:
            images.read_photo(tmp_path / "photo.jpg")
        assert wanted in str(caught.value)
