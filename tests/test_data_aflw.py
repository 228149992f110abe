"""AFLW's crops: hidden points, boxes that were cut off, and test pictures kept out of training by their pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.benchmark_files import Benchmark
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.datasets.aflw import (
    near_duplicates,
    read_aflw,
    thumbnails,
    training_set,
    unclamp_boxes,
)
from twodasl_lite.datasets.aflw2000 import read_aflw2000
from twodasl_lite.datasets.stream import SetStream
from twodasl_lite.geometry.camera import image_to_crop
from twodasl_lite.geometry.landmarks import NUM_AFLW, flip_landmarks, subset_18, subset_21

NAMES = [f"image{k:05d}" for k in (2, 12, 50001, 50002, 50003, 50004, 50005)]
HIDDEN = {2: (0, 1, 6, 7, 12), 3: tuple(range(15))}


def picture(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8), (120, 120), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def written(tmp_path) -> tuple[Path, np.ndarray]:
    """A clone with seven AFLW crops, and their points in the photo, 0-based.

    The first two are test faces; 50001 is the first once more, brighter and saved again, 50004 cannot be read.
    """
    base = tmp_path / "2DASL" / "test_codes"
    configs, folder = base / "test.configs", base / "test.data" / "AFLW_GT_crop"
    configs.mkdir(parents=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    boxes = np.tile(np.array([100.0, 110, 300, 310]), (len(NAMES), 1))
    boxes[5] = [-30, 110, 170, 310]  # beyond the left edge, which the file hides
    boxes[6] = [-30, -20, 170, 180]  # beyond two edges
    points = boxes[:, None, :2] + rng.uniform(30, 170, (len(NAMES), NUM_AFLW, 2))
    stored = points + 1
    for face, members in HIDDEN.items():
        stored[face, list(members)] = [-1, 452]
    np.save(configs / "AFLW_GT_pts21.npy", stored.transpose(0, 2, 1).astype(np.float32))
    np.save(configs / "AFLW_GT_crop_roi_box.npy", (boxes.clip(0, 449) + 1).astype(np.uint16))
    np.save(configs / "AFLW_GT_crop_yaws.npy", np.linspace(-80, 80, len(NAMES)).astype(np.float32))
    (base / "test.data" / "AFLW_GT_crop.list").write_text("".join(f"{name}.jpg\n" for name in NAMES))
    for k, name in enumerate(NAMES):
        shown = np.clip(picture(0) * 0.9 + 20, 0, 255).astype(np.uint8) if k == 2 else picture(k)
        cv2.imwrite(str(folder / f"{name}.jpg"), shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    (folder / f"{NAMES[4]}.jpg").write_text("a text")
    return tmp_path / "2DASL", points


def test_points_come_into_the_crop_and_hidden_ones_stay_hidden(written) -> None:
    root, points = written
    faces = read_aflw(root)
    assert faces.names == tuple(NAMES[:6])
    assert faces.problems == ("1 of 7 faces left out: their crop boxes were cut off in two directions",)
    box = torch.tensor([100.0, 110, 300, 310], dtype=torch.float64)
    expected = image_to_crop(torch.from_numpy(points[0]), box)
    torch.testing.assert_close(faces.landmarks[0], expected, atol=1e-4, rtol=0)
    cut = image_to_crop(torch.from_numpy(points[5]), torch.tensor([-30.0, 110, 170, 310], dtype=torch.float64))
    torch.testing.assert_close(faces.landmarks[5], cut, atol=1e-4, rtol=0)  # the box is as it was
    for face, members in HIDDEN.items():
        hidden = ~torch.isfinite(faces.landmarks[face]).all(dim=-1)
        assert hidden.nonzero()[:, 0].tolist() == list(members)
    assert read_aflw(root / "test_codes").names == faces.names


def test_a_batch_shows_the_18_points_that_can_be_seen(written) -> None:
    faces = read_aflw(written[0])
    batch = faces.take(torch.tensor([3, 0, 2]))
    assert batch.images.shape == (3, 3, 120, 120)
    assert batch.images.dtype == torch.uint8
    assert batch.detected_visible.sum(dim=1).tolist() == [4, 18, 14]
    assert torch.isnan(batch.detected[~batch.detected_visible]).all()
    assert torch.isfinite(batch.detected[batch.detected_visible]).all()
    torch.testing.assert_close(batch.marked, faces.landmarks[[3, 0, 2]].float(), equal_nan=True)
    torch.testing.assert_close(batch.detected[1, 14], faces.landmarks[0, 15].float())  # the right wing of the nose
    assert batch.coefficients is None
    assert batch.yaw is None
    crop = torch.from_numpy(faces.crop(faces.names[2])).permute(2, 0, 1)
    assert torch.equal(batch.images[2], crop)
    dots = (batch.inputs()[:, 3] > 0).sum(dim=(1, 2))
    assert bool((dots <= batch.detected_visible.sum(dim=1)).all())


def test_the_18_of_the_21_are_the_18_of_the_68() -> None:
    points = torch.rand(2, 68, 2, generator=torch.Generator().manual_seed(0))
    few = subset_21(points)
    assert few.shape == (2, 21, 2)
    eighteen = few[:, [*range(12), 13, 14, 15, 17, 18, 19]]
    reference = subset_18(points)
    exact = [k for k in range(18) if k not in (7, 10, 16)]  # middles of eyes and mouth: of more points
    torch.testing.assert_close(eighteen[:, exact], reference[:, exact])
    torch.testing.assert_close(few[:, 20], points[:, 8])
    torch.testing.assert_close(subset_21(flip_landmarks(points)), flip_landmarks(few))  # exact, unlike the 18's


def test_noise_is_a_detectors_and_the_same_for_a_picture(written) -> None:
    faces = read_aflw(written[0])
    noisy = faces.with_noise(5)
    a, b = noisy.take(torch.tensor([0, 2])), noisy.take(torch.tensor([2]))
    torch.testing.assert_close(a.detected[1:], b.detected, equal_nan=True)
    plain = faces.take(torch.tensor([0, 2]))
    both = a.detected_visible & plain.detected_visible
    apart = (a.detected - plain.detected)[both].norm(dim=-1)
    assert 0.3 < float(apart.mean()) < 15
    assert not bool((a.detected_visible & ~plain.detected_visible).any())


def test_the_crops_are_a_set_to_stream(written) -> None:
    faces = read_aflw(written[0]).without([NAMES[4]])
    stream = SetStream(faces, seed=1, flip=True)
    batches = stream.batches(4)
    seen = [next(batches) for _ in range(3)]
    assert all(batch.images.shape == (4, 3, 120, 120) for batch in seen)
    again = next(SetStream(faces, seed=1, flip=True).batches(4, start=2))
    assert torch.equal(again.images, seen[2].images)


# ---------------------------------------------------------------------------------------------------------- duplicates
def test_pictures_are_the_same_whatever_their_name(written) -> None:
    faces = read_aflw(written[0])
    small = faces.thumbnails()
    assert len(small.names) == 5
    assert "not a picture" in small.problems[0]
    pairs = near_duplicates(thumbnails(["new name"], lambda name: picture(0)), small)
    assert [(pair.first, pair.second) for pair in pairs] == [("new name", NAMES[0]), ("new name", NAMES[2])]
    assert pairs[0].correlation >= pairs[1].correlation > 0.95
    grey = thumbnails(["flat"], lambda name: np.full((120, 120, 3), 128, np.uint8))
    assert near_duplicates(grey, grey) == []
    with pytest.raises(ValueRangeError, match="threshold"):
        near_duplicates(small, small, 1.5)
    with pytest.raises(ShapeError, match="without pictures"):
        near_duplicates(small, thumbnails([], picture))


def test_training_pictures_are_not_in_the_test_set(written) -> None:
    faces = read_aflw(written[0])
    # The test set cuts the first face quite differently, so that only the crop of this set gives its copy away.
    other_cut = {NAMES[0]: np.ascontiguousarray(picture(0)[40:, 40:]), NAMES[1]: picture(1)}
    found = training_set(faces, NAMES[:2], lambda name: other_cut[name])
    assert found.faces.names == (NAMES[3], NAMES[5])
    assert [(pair.first, pair.second) for pair in found.duplicates] == [(NAMES[0], NAMES[2])]
    assert any("not a picture" in problem for problem in found.problems)


def test_unclamped_boxes() -> None:
    boxes = torch.tensor(
        [
            [100.0, 100, 200, 200],  # inside
            [0.0, 100, 80, 220],  # cut off on the left: 40 missing
            [400.0, 100, 449, 220],  # on the right
            [100.0, 0, 220, 100],  # at the top
            [0.0, 0, 100, 120],  # at two edges
            [0.0, 50, 449, 449],  # at opposite ones
            [0.0, 100, 100, 200],  # touches, and is whole
        ]
    )
    found = unclamp_boxes(boxes)
    assert found.certain.tolist() == [True, True, True, True, False, False, True]
    assert found.boxes[1].tolist() == [-40, 100, 80, 220]
    assert found.boxes[2].tolist() == [400, 100, 520, 220]
    assert found.boxes[3].tolist() == [100, -20, 220, 100]
    assert found.boxes[6].tolist() == boxes[6].tolist()


def test_real_boxes_are_recovered(data_root, annotations) -> None:
    """Of 400 boxes, those that were cut off: what the rule calls certain is right."""
    clamped, whole = (torch.from_numpy(annotations[name]) - 1 for name in ("roi_box_clamped", "roi_box"))
    found = unclamp_boxes(clamped)
    assert bool((clamped != whole).any(dim=1)[found.certain].any())
    assert torch.equal(found.boxes[found.certain], whole[found.certain])


def test_missing_and_disagreeing_files_are_named(written, tmp_path) -> None:
    root, _ = written
    base = root / "test_codes"
    names = base / "test.data" / "AFLW_GT_crop.list"
    lines = names.read_text().splitlines()
    names.write_text("\n".join(lines[1:]))
    with pytest.raises(FileFormatError, match=r"found shape \(7, 2, 21\); expected \(6, 2, 21\)"):
        read_aflw(root)
    names.unlink()
    with pytest.raises(FileFormatError, match=r"AFLW_GT_crop\.list: found no such file"):
        read_aflw(root)
    with pytest.raises(FileFormatError):
        read_aflw(tmp_path / "nothing")


def test_the_benchmark_clone_and_the_crops_together(tmp_path, written) -> None:
    """Both readers on one clone, as a user has it."""
    data = Benchmark()
    data.write_clone(tmp_path / "other")
    test = read_aflw2000(tmp_path / "other")
    found = training_set(read_aflw(written[0]), test.names, test.crop)
    assert found.faces.names == (NAMES[3], NAMES[5])  # the two test names, the copy and the unreadable one are out
