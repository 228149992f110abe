"""Readers of AFLW2000-3D: the published layouts, joined by name; messages name missing or contradictory data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmark_files import COUNT, FAILED, YAWS
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.datasets.aflw2000 import read_aflw2000, read_basel_landmarks, read_detections, read_names
from twodasl_lite.evaluation import nme
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import crop_to_image


@pytest.fixture
def folder(benchmark_data, tmp_path) -> Path:
    return benchmark_data.write_folder(tmp_path / "AFLW2000")


# ------------------------------------------------------------------------------------------------------------- layouts
def test_a_clone_is_read(clone, benchmark_data) -> None:
    found = read_aflw2000(clone)
    assert found.layout == "clone"
    assert found.names == tuple(benchmark_data.names)
    assert found.problems == ()
    torch.testing.assert_close(found.landmarks, benchmark_data.landmarks, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.yaw, YAWS, atol=1e-4)  # as written, also beyond a half turn
    torch.testing.assert_close(found.boxes, benchmark_data.boxes)
    np.testing.assert_array_equal(found.published_boxes, benchmark_data.clamped())
    torch.testing.assert_close(found.reannotated, torch.round(benchmark_data.landmarks[..., :2] + 1) - 2)
    assert read_aflw2000(clone / "test_codes").names == found.names


def test_the_sets_own_folder_is_read(folder, benchmark_data) -> None:
    found = read_aflw2000(folder.parent)  # the folder or what holds it
    assert found.layout == "folder"
    assert found.names == tuple(benchmark_data.names)
    torch.testing.assert_close(found.landmarks, benchmark_data.landmarks, atol=1e-9, rtol=0)
    np.testing.assert_array_equal(found.published_boxes, benchmark_data.clamped())
    assert found.reannotated is None
    assert found.detected is None


def test_both_layouts_give_the_same_targets(clone, folder, benchmark_data) -> None:
    first, second = read_aflw2000(clone).with_annotations(), read_aflw2000(folder).with_annotations()
    for mapping in ("exact", "bench"):
        a, b = (found.coefficients(mapping, units="um").pack() for found in (first, second))
        torch.testing.assert_close(a, b)
    np.testing.assert_allclose(first.coefficients(units="um").pack(), benchmark_data.raw())


def test_targets_decode_to_the_landmarks(folder, benchmark_data) -> None:
    """Angles beyond a half turn and expressions in bytes included."""
    found = read_aflw2000(folder)
    points = decode_landmarks(found.coefficients("exact", units="um").pack(), benchmark_data.model)
    torch.testing.assert_close(crop_to_image(points, found.boxes)[..., :2], found.landmarks[..., :2], atol=1e-6, rtol=0)


def test_clamped_boxes_map_back_wrongly(folder, benchmark_data) -> None:
    """The published mistake: the crop was padded, the box cut off. Bench targets hide it; exact crops show it."""
    found = read_aflw2000(folder)
    cut = (found.boxes != found.published_boxes).any(dim=1)
    assert cut.tolist() == [k == 4 for k in range(COUNT)]
    points = decode_landmarks(found.coefficients("exact", units="um").pack(), benchmark_data.model)
    errors = nme(crop_to_image(points, found.boxes_for("bench"), "bench")[..., :2], found.landmarks[..., :2])
    assert errors[4] > 0.1  # a tenth of the face
    assert errors[~cut].max() < 0.015  # the half pixels of the bench mapping alone
    own = decode_landmarks(found.coefficients("bench", units="um").pack(), benchmark_data.model)
    assert nme(crop_to_image(own, found.published_boxes, "bench")[..., :2], found.landmarks[..., :2]).max() < 1e-6


def test_detections_are_joined_by_name(clone, benchmark_data) -> None:
    found = read_aflw2000(clone)
    failed = ~torch.isfinite(found.detected).all(dim=(1, 2))
    assert failed.nonzero()[:, 0].tolist() == list(FAILED)
    image = crop_to_image(found.detected[:3], found.boxes[:3])
    assert (image - found.landmarks[:3, :, :2]).abs().max() < 2.5  # whole pixels of the crop
    path = clone / "test_codes" / "test.data" / "detect_testData.txt"
    swapped = read_detections(path, found.names[::-1])
    torch.testing.assert_close(swapped.flip(0), found.detected, equal_nan=True)


def test_predictions_of_the_release_have_their_own_names(clone) -> None:
    found = read_aflw2000(clone)
    names, values = found.release_predictions()
    assert len(names) == COUNT - len(FAILED)
    assert set(found.names) - set(names) == {found.names[k] for k in FAILED}
    assert values.shape == (len(names), 62)
    path = clone / "test_codes" / "results" / "params_aflw2000_xgtu.npy"
    assert found.names_of_rows(path) == names
    np.save(path, values.numpy()[:-1])
    with pytest.raises(FileFormatError, match=r"found shape \(7, 62\); expected \(8, 62\), a row per name"):
        found.release_predictions()
    with pytest.raises(FileFormatError, match="found 7 rows; expected 10"):
        found.names_of_rows(path)


def test_take_keeps_everything_together(clone) -> None:
    found = read_aflw2000(clone).with_annotations()
    some = found.take([5, 1])
    assert some.names == (found.names[5], found.names[1])
    for part in ("landmarks", "yaw", "published_boxes", "reannotated", "detected", "pose", "shape", "expression"):
        torch.testing.assert_close(getattr(some, part), getattr(found, part)[[5, 1]], equal_nan=True)


# ------------------------------------------------------------------------------------------------------------ pictures
def test_crops_of_the_release_and_cut_from_the_photo_agree(clone, folder) -> None:
    first, second = read_aflw2000(clone), read_aflw2000(folder)
    for name in (first.names[0], first.names[4]):
        difference = np.abs(first.crop(name).astype(float) - second.crop(name))
        assert difference.mean() < 4  # JPEG twice
    moved = first.crop(first.names[0], first.boxes[0] + 30)
    assert np.abs(moved.astype(float) - first.crop(first.names[0])).mean() > 4


@pytest.mark.parametrize(
    ("content", "words"), [(b"this is a text", "not a picture, or a damaged one"), (b"", "an empty file")]
)
def test_a_text_named_jpg_is_refused(folder, content, words) -> None:
    found = read_aflw2000(folder)
    (folder / f"{found.names[0]}.jpg").write_bytes(content)
    with pytest.raises(FileFormatError, match=words):
        found.photo(found.names[0])


def test_a_photo_of_another_size_is_refused(folder) -> None:
    import cv2

    found = read_aflw2000(folder)
    cv2.imwrite(str(folder / f"{found.names[0]}.jpg"), np.zeros((300, 450, 3), np.uint8))
    with pytest.raises(FileFormatError, match="found 450x300 pixels; expected 450x450"):
        found.photo(found.names[0])


# ----------------------------------------------------------------------------------------------------- what goes wrong
def test_damaged_annotations_are_named_and_the_rest_is_read(folder, benchmark_data) -> None:
    names = benchmark_data.names
    (folder / f"{names[0]}.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    whole = (folder / f"{names[1]}.mat").read_bytes()
    (folder / f"{names[1]}.mat").write_bytes(whole[: len(whole) // 2])
    (folder / f"{names[2]}.jpg").unlink()
    found = read_aflw2000(folder)
    assert found.names == tuple(names[2:])
    assert len(found.problems) == 3
    assert all(name in problem for name, problem in zip(names, found.problems, strict=False))


def test_annotations_of_a_clone_that_disagree_are_left_out(clone, benchmark_data) -> None:
    photos = clone / "test_codes" / "test.data" / "AFLW-2000-3D"
    names = benchmark_data.names
    benchmark_data.write_mat(photos / f"{names[1]}.mat", 2)  # another face's file under this name
    (photos / f"{names[5]}.mat").unlink()
    found = read_aflw2000(clone).with_annotations()
    assert found.names == tuple(name for name in names if name not in (names[1], names[5]))
    assert f"{names[1]}: found a yaw of -29.00 in its .mat; expected 20.00" in found.problems[0]
    assert "no such file" in found.problems[1]


def test_lists_that_disagree_are_refused(clone) -> None:
    path = clone / "test_codes" / "test.data" / "AFLW2000-3D_crop.list"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(FileFormatError, match=r"\(10, 3, 68\); expected \(9, 3, 68\), a row for each"):
        read_aflw2000(clone)
    path.write_text("\n".join([*lines[:-1], lines[0]]))
    with pytest.raises(FileFormatError, match="image00002 more than once; expected each picture once"):
        read_aflw2000(clone)
    path.write_text("")
    with pytest.raises(FileFormatError, match="an empty file"):
        read_aflw2000(clone)


def test_optional_files_may_be_missing_or_odd(clone) -> None:
    configs = clone / "test_codes" / "test.configs"
    (configs / "AFLW2000-3D-Reannotated.pts68.npy").unlink()
    detections = clone / "test_codes" / "test.data" / "detect_testData.txt"
    detections.write_text(detections.read_text() + "image99999.jpg,1,2,3\n")
    boxes = np.load(configs / "AFLW2000-3D_crop.roi_box.npy")
    boxes[2] += 9
    np.save(configs / "AFLW2000-3D_crop.roi_box.npy", boxes)
    found = read_aflw2000(clone)
    assert found.reannotated is None
    assert found.detected is None
    assert len(found.problems) == 3
    assert any("image99999.jpg,1,2,3" in problem and "line 11" in problem for problem in found.problems)
    assert any("found 1 boxes (image00022)" in problem for problem in found.problems)
    np.testing.assert_array_equal(found.published_boxes, boxes - 1)  # used as they are


def test_without_its_landmarks_a_clone_is_none(clone) -> None:
    (clone / "test_codes" / "test.configs" / "AFLW2000-3D.pts68.npy").unlink()
    with pytest.raises(FileFormatError, match="pts68"):
        read_aflw2000(clone)


def test_other_places_are_refused(tmp_path) -> None:
    with pytest.raises(FileFormatError, match="no such folder; expected a clone"):
        read_aflw2000(tmp_path / "nothing")
    with pytest.raises(FileFormatError, match=r"nor any \.mat file"):
        read_aflw2000(tmp_path)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FileFormatError, match="not such an archive"):
        read_aflw2000(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", names=np.array(["a"]))
    with pytest.raises(FileFormatError, match="no array detected68_crop"):
        read_aflw2000(tmp_path / "other.npz")
    (tmp_path / "names").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not text"):
        read_names(tmp_path / "names")


def test_annotations_must_be_read_before_targets(clone) -> None:
    with pytest.raises(ValueRangeError, match="with_annotations"):
        read_aflw2000(clone).coefficients()


def test_the_landmark_model_is_checked(tmp_path, benchmark_data) -> None:
    path = benchmark_data.write_basel(tmp_path / "bfm.npz")
    model, whitening = read_basel_landmarks(path)
    torch.testing.assert_close(model.mean, benchmark_data.model.mean)
    assert whitening.std.eq(1).all()
    np.savez(path, mean=np.zeros((3, 68)))
    with pytest.raises(FileFormatError, match="with mean"):
        read_basel_landmarks(path)


# -------------------------------------------------------------------------------------------------------- real numbers
def test_the_400_annotations(data_root, annotations) -> None:
    found = read_aflw2000(data_root / "aflw2000-3d" / "aflw2000_every_fifth.npz")
    assert len(found) == 400
    np.testing.assert_array_equal(found.boxes, annotations["roi_box"] - 1)
    for mapping in ("exact", "bench"):
        expected = annotations[f"coefficients62_{mapping}"]
        np.testing.assert_allclose(found.coefficients(mapping, units="um").pack(), expected, atol=1e-8)
    with pytest.raises(FileFormatError, match="annotations without photos"):
        found.photo(found.names[0])
