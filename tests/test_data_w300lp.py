"""300W-LP: folders in the published layout."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_model
from tests.real_sets import (
    NOSE,
    bright_spot,
    crop_of,
    dotted,
    image_landmarks,
    random_annotation,
    raw_model,
    write_jpeg,
    write_pair,
)
from tests.stream_source import assert_same
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.datasets.annotations import read_annotation
from twodasl_lite.datasets.real import jpeg_size
from twodasl_lite.datasets.shards import ShardSet, make_shards
from twodasl_lite.datasets.stream import SetStream
from twodasl_lite.datasets.w300lp import W300LP
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.geometry.photos import landmarks_box

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")

NAMES = ("AFW/AFW_1_0", "AFW_Flip/AFW_1_0", "HELEN/HELEN_2_1", "LFPW/LFPW_image.0003_4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MorphableModel:
    return raw_model(tmp_path_factory.mktemp("configs"))


@pytest.fixture
def folder(tmp_path: Path, model: MorphableModel) -> Path:
    """Four pictures in four of the eight folders."""
    root = tmp_path / "300W_LP"
    for seed, name in enumerate(NAMES):
        write_pair(root / Path(name).parent, Path(name).name, seed, model)
    (root / "Code").mkdir()  # as published, with MATLAB code
    return root


@pytest.mark.parametrize("mapping", ["exact", "bench"])
def test_pictures_and_coefficients_fit(folder: Path, model: MorphableModel, mapping: str) -> None:
    faces = W300LP(folder, model, mapping=mapping)
    assert tuple(faces.names) == NAMES
    assert faces.problems == []
    batch = faces.take(torch.arange(4))
    for row in range(4):
        expected = crop_of(batch.coefficients[row], model)
        torch.testing.assert_close(batch.landmarks[row], expected.float(), atol=2e-3, rtol=0)
        spot = torch.tensor(bright_spot(batch.images[row]))
        offset = (spot - batch.landmarks[row, NOSE, :2]).abs().max()
        # The published mapping is off by design: half a crop pixel and half an image pixel, and 120 / 119 in scale.
        assert offset < (0.1 if mapping == "exact" else 1.5)
        if mapping == "bench":
            assert offset > 0.3
    side = batch.landmarks[..., :2].amax(dim=1) - batch.landmarks[..., :2].amin(dim=1)
    torch.testing.assert_close(side.amax(dim=1), torch.full((4,), 120 / 2**0.5), atol=1, rtol=0)


def test_coefficients_are_the_annotation_s(folder: Path, model: MorphableModel) -> None:
    faces = W300LP(folder, model)
    for k, name in enumerate(NAMES):
        annotation = read_annotation(folder / f"{name}.mat")
        face = Coefficients.unpack(faces.coefficients[k])
        torch.testing.assert_close(face.shape, annotation.shape[:40].float())
        torch.testing.assert_close(face.expression, annotation.expression[:10].float())
        torch.testing.assert_close(faces.yaw[k], torch.tensor(annotation.yaw), atol=1e-3, rtol=0)
    assert faces.take([2]).landmarks[..., 2].mean().abs() < 1e-3  # depth by convention


def test_detected_points_err_about_the_truth_and_are_the_same_again(folder: Path, model: MorphableModel) -> None:
    faces = W300LP(folder, model, seed=3)
    batch = faces.take(torch.arange(4))
    error = (batch.detected - subset_18(batch.landmarks[..., :2])).norm(dim=-1)
    assert 0.5 < error[batch.detected_visible].mean() < 5
    assert_same(faces.take([2, 0]), batch.take([2, 0]), atol=1e-4)
    assert not torch.equal(W300LP(folder, model, seed=4).take(torch.arange(4)).detected, batch.detected)


def test_landmarks_of_the_file_decide_the_box(tmp_path: Path, model: MorphableModel) -> None:
    """AFLW2000-3D: everything in one folder, with ``pt3d_68``."""
    content = random_annotation(1)
    points = (1.1 * image_landmarks(content, model).T.numpy() - 15).astype(np.float32)  # larger, and shifted
    content |= {"pt3d_68": points}
    scipy.io.savemat(tmp_path / "image00002.mat", content)
    write_jpeg(tmp_path / "image00002.jpg", dotted(image_landmarks(content, model)))
    faces = W300LP(tmp_path, model)
    torch.testing.assert_close(faces.boxes[0], landmarks_box(torch.from_numpy(points.T.astype(np.float64)) - 1))
    spot = torch.tensor(bright_spot(faces.take([0]).images[0]))
    torch.testing.assert_close(spot, faces.take([0]).landmarks[0, NOSE, :2], atol=0.1, rtol=0)


def test_parts_of_the_set(folder: Path, model: MorphableModel) -> None:
    assert W300LP(folder, model, flipped=False).names == [NAMES[0], NAMES[2], NAMES[3]]
    assert W300LP(folder, model, subsets=("AFW",)).names == list(NAMES[:2])
    assert W300LP(folder / "HELEN", model).names == ["HELEN_2_1"]
    with pytest.raises(ValueRangeError, match="subsets: found COCO; expected some of AFW, HELEN, IBUG, LFPW"):
        W300LP(folder, model, subsets=("AFW", "COCO"))
    with pytest.raises(FileFormatError, match="found other subsets; expected one of IBUG, IBUG_Flip"):
        W300LP(folder, model, subsets=("IBUG",))


def test_what_is_damaged_is_named_and_the_rest_used(folder: Path, model: MorphableModel) -> None:
    place = folder / "AFW"
    whole = (place / "AFW_1_0.jpg").read_bytes()
    for name in ("no_label", "cut_off", "text", "empty", "bad_label", "short", "point"):
        write_pair(place, name, 9, model)
    (place / "no_label.mat").unlink()
    (place / "cut_off.jpg").write_bytes(whole[: len(whole) // 2])
    (place / "text.jpg").write_text("this is no picture")
    (place / "empty.jpg").write_bytes(b"")
    (place / "bad_label.mat").write_bytes(b"\0" * 300)
    (place / "short.jpg").unlink()
    scipy.io.savemat(place / "point.mat", random_annotation(9) | {"pt3d_68": np.ones((3, 68), np.float32)})
    told = []
    faces = W300LP(folder, model, report=told.append)
    assert tuple(faces.names) == NAMES
    assert told == faces.problems
    for name, found in {
        "no_label.jpg": "found no no_label.mat",
        "cut_off.jpg": "a JPEG without an end",
        "text.jpg": "a file that is not a JPEG",
        "empty.jpg": "an empty file",
        "bad_label.mat": "not a complete MATLAB file",
        "short.mat": "found no short.jpg",
        "point.mat": "landmarks that are all one point",
    }.items():
        assert sum(name in line and found in line for line in told) == 1, (name, told)
    assert len(told) == 7


def test_a_picture_that_breaks_later_is_named(folder: Path, model: MorphableModel) -> None:
    faces = W300LP(folder, model)
    (folder / "HELEN" / "HELEN_2_1.jpg").write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"HELEN_2_1.jpg: found an empty file"):
        faces.take(torch.arange(4))
    assert faces.take([0, 1]).size == 2


def test_what_cannot_be_read_at_all(tmp_path: Path, folder: Path, model: MorphableModel) -> None:
    with pytest.raises(FileFormatError, match="found no such folder"):
        W300LP(tmp_path / "nowhere", model)
    (tmp_path / "bare").mkdir()
    with pytest.raises(FileFormatError, match="found no picture that can be used; expected pictures with annotations"):
        W300LP(tmp_path / "bare", model)
    with pytest.raises(ValueRangeError, match="expected the Basel Face Model with raw coefficients"):
        W300LP(folder, make_model())
    faces = W300LP(folder, model)
    with pytest.raises(ValueRangeError, match="index: found 0 to 4; expected 0 to 3"):
        faces.take([0, 4])
    with pytest.raises(ShapeError, match="no index"):
        faces.take([])


def test_visibility_is_found_out_if_asked_for(folder: Path, model: MorphableModel) -> None:
    assert W300LP(folder, model).take([0]).visible is None
    visible = W300LP(folder, model, visibility=True).take(torch.arange(4)).visible
    assert visible.shape == (4, 68)
    assert visible.float().mean() > 0.5  # an open mask hides little of itself


def test_as_a_stream_and_as_shards(folder: Path, model: MorphableModel, tmp_path: Path) -> None:
    faces = W300LP(folder, model)
    batches = list(itertools.islice(SetStream(faces, seed=1).batches(2), 4))
    seen = torch.cat([batch.coefficients for batch in batches[:2]])
    assert sorted(seen[:, 3].tolist()) == sorted(faces.coefficients[:, 3].tolist())
    make_shards(tmp_path / "shards", faces, len(faces), shard_size=3)
    again = ShardSet(tmp_path / "shards")
    assert_same(again.take(torch.arange(4)), faces.batch(0, 4), atol=1e-4)
    with pytest.raises(FileFormatError, match="mapping: exact, not bench"):
        make_shards(tmp_path / "shards", W300LP(folder, model, mapping="bench"), len(faces), shard_size=3)


# ------------------------------------------------------------------------------------------------------------- JPEGs
@pytest.mark.parametrize(("width", "height"), [(1, 1), (450, 450), (300, 7)])
def test_the_size_of_a_jpeg(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "picture.jpg"
    write_jpeg(path, np.zeros((height, width, 3), np.uint8))
    assert jpeg_size(path) == (width, height)
    data = path.read_bytes()
    comment = b"\xff\xfe" + (1000).to_bytes(2, "big") + bytes(998)
    path.write_bytes(data[:2] + b"\xff" + comment + data[2:] + b"\0" * 500)  # padding, a comment, a tail
    assert jpeg_size(path) == (width, height)
    path.write_bytes(data[:2] + data[-2:])
    with pytest.raises(FileFormatError, match="a JPEG without a size"):
        jpeg_size(path)


# ------------------------------------------------------------------------------------------------- real annotations
def basel_at_the_landmarks(arrays: dict[str, np.ndarray]) -> MorphableModel:
    """Basel's 68 landmarks as a face model; its triangles are none of a face."""
    corners = torch.arange(68)
    return MorphableModel(
        *(torch.from_numpy(arrays[name]) for name in ("mean", "shape", "expression")),
        torch.stack([corners, corners.roll(-1), corners.roll(-2)], dim=1),
        corners,
        shape_std=torch.from_numpy(arrays["coefficient_std"][12:52]),
        expression_std=torch.from_numpy(arrays["coefficient_std"][52:]),
        name="Basel at 68 landmarks",
        units="um",
    )


@pytest.mark.parametrize("mapping", ["exact", "bench"])
def test_real_annotations_become_the_published_targets(tmp_path, annotations, basel_landmarks, mapping: str) -> None:
    rows = range(0, 400, 50)
    for k in rows:
        name = str(annotations["names"][k])
        content = {
            "Pose_Para": annotations["pose7"][k][None],
            "Shape_Para": annotations["shape199"][k][:, None],
            "Exp_Para": annotations["expression29"][k][:, None],
            "pt3d_68": annotations["landmarks68"][k],
        }
        scipy.io.savemat(tmp_path / f"{name}.mat", content)
        write_jpeg(tmp_path / f"{name}.jpg", np.zeros((450, 450, 3), np.uint8))
    faces = W300LP(tmp_path, basel_at_the_landmarks(basel_landmarks), mapping=mapping)
    assert faces.names == [str(annotations["names"][k]) for k in rows]
    np.testing.assert_array_equal(faces.boxes + 1, annotations["roi_box"][list(rows)])
    found = faces.coefficients.double().numpy()
    if mapping == "exact":
        expected = annotations["coefficients62_exact"][list(rows)]
    else:  # the published file clamps boxes, where the crops were not; these eight need no clamping
        expected = annotations["coefficients62_bench"][list(rows)]
        inside = (annotations["roi_box"] == annotations["roi_box_clamped"]).all(axis=1)[list(rows)]
        assert inside.sum() >= 4
        found, expected = found[inside], expected[inside]
    depth = np.arange(62) == 11
    scale = np.abs(expected).max(axis=0)[~depth]
    assert (np.abs(found - expected)[:, ~depth] <= 1e-6 * scale).all()
    decoded = faces.take(torch.arange(len(faces))).landmarks
    assert decoded[..., 2].mean(dim=1).abs().max() < 1e-3
