"""Annotation files: reading them, and converting them to the published targets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import make_model
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.datasets.annotations import (
    annotation_to_coefficients,
    check_raw_basel,
    clamp_box,
    read_annotation,
    wrap_angles,
)
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.photos import landmarks_box

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")


def mat_content(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """The variables of one file, in the types of the published ones."""
    rng = np.random.default_rng(0)
    content = {
        "Pose_Para": np.array([[-0.4, 2 * np.pi + 0.5, 0.1, 231, 262, -103, 0.0016]], np.float32),
        "Shape_Para": rng.normal(0, 1e5, (199, 1)),
        "Exp_Para": rng.normal(0, 1, (29, 1)),
        "pt3d_68": rng.uniform(100, 300, (3, 68)).astype(np.float32),
        "roi": np.array([[13, -26, 437, 398]], np.int16),
    }
    return {name: value for name, value in (content | changes).items() if value is not None}


def written(folder: Path, name: str = "image00002.mat", **changes: np.ndarray) -> Path:
    scipy.io.savemat(folder / name, mat_content(**changes))
    return folder / name


def test_a_file(tmp_path: Path) -> None:
    found = read_annotation(written(tmp_path))
    content = mat_content()
    assert found.name == "image00002"
    assert found.yaw == pytest.approx(360 + math.degrees(0.5), abs=1e-4)  # as written
    assert float(found.pose[1]) == pytest.approx(0.5, abs=1e-6)
    np.testing.assert_allclose(found.pose[3:], content["Pose_Para"][0, 3:])
    np.testing.assert_array_equal(found.shape, content["Shape_Para"][:, 0])
    np.testing.assert_array_equal(found.expression, content["Exp_Para"][:, 0])
    np.testing.assert_allclose(found.landmarks, content["pt3d_68"].T - [1, 1, 0])
    assert {part.dtype for part in found[1:5]} == {torch.float64}
    assert read_annotation(written(tmp_path, pt3d_68=None)).landmarks is None


def test_expressions_saved_as_bytes_are_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, Exp_Para=np.arange(29, dtype=np.uint8)[:, None])
    assert read_annotation(path).expression.tolist() == list(range(29))


def test_angles_wrap_and_keep_what_is_inside() -> None:
    angles = torch.tensor([0.0, 3.0, -3.1, math.pi + 0.1, -17.0], dtype=torch.float64)
    wrapped = wrap_angles(angles)
    assert wrapped[:3].equal(angles[:3])
    assert wrapped.abs().max() <= math.pi
    torch.testing.assert_close(wrapped.sin(), angles.sin())
    torch.testing.assert_close(wrapped.cos(), angles.cos())


def test_a_negative_scale_is_kept(tmp_path: Path) -> None:
    """AFLW2000-3D's image04157 has one."""
    pose = mat_content()["Pose_Para"] * [[1, 1, 1, 1, 1, 1, -1]]
    assert float(read_annotation(written(tmp_path, Pose_Para=pose)).pose[6]) == pytest.approx(-0.0016)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Pose_Para": None}, "but no Pose_Para"),
        ({"Pose_Para": np.zeros((1, 6))}, "Pose_Para with 6 numbers; expected 7"),
        ({"Pose_Para": np.zeros((1, 7))}, "a scale of 0"),
        ({"Shape_Para": np.full((199, 1), np.nan)}, "199 of 199 values of Shape_Para NaN"),
        ({"Exp_Para": np.array(["text"])}, "Exp_Para of type"),
        ({"pt3d_68": np.zeros((2, 68))}, r"pt3d_68 of shape \(2, 68\); expected \(3, 68\)"),
    ],
)
def test_bad_content_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(FileFormatError, match=message) as caught:
        read_annotation(written(tmp_path, **changes))
    assert "image00002.mat" in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"nowhere\.mat"):
        read_annotation(tmp_path / "nowhere.mat")
    whole = written(tmp_path).read_bytes()
    for name, data in {"empty.mat": b"", "text.mat": b"no matrix" * 40, "half.mat": whole[: len(whole) // 2]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileFormatError, match=name):
            read_annotation(tmp_path / name)


def test_units_and_sizes() -> None:
    generator = torch.Generator().manual_seed(0)
    pose = torch.tensor([0.1, 0.2, 0.3, 200.0, 220.0, -30.0, 1.5e-3], dtype=torch.float64)
    shape, expression = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (199, 29))
    box = torch.tensor([50.0, 60.0, 349.0, 359.0], dtype=torch.float64)
    native = annotation_to_coefficients(pose, shape, expression, box, 450, units="um")
    metric = annotation_to_coefficients(pose, shape, expression, box, 450)
    torch.testing.assert_close(metric.pose[:, :3], 1000 * native.pose[:, :3])
    assert metric.pose[:, 3].equal(native.pose[:, 3])
    assert native.layout == CoefficientLayout()
    assert native.shape.equal(shape[:40])
    full = annotation_to_coefficients(pose, shape, expression, box, 450, layout=CoefficientLayout(199, 29))
    assert full.pack().shape == (240,)
    with pytest.raises(ShapeError, match="shape: found 20 coefficients; expected 40 or more"):
        annotation_to_coefficients(pose, shape[:20], expression, box, 450)


def test_models_that_cannot_decode_annotations_are_refused() -> None:
    with pytest.raises(ValueRangeError, match=r"'small', whose shape coefficients have a standard deviation of 1.5"):
        check_raw_basel(make_model())
    with pytest.raises(ValueRangeError, match="5 shape and 3 expression coefficients; expected the Basel"):
        check_raw_basel(make_model(), num_expression=2)


# ------------------------------------------------------------------------------------------------ real annotations
@pytest.mark.parametrize(("mapping", "box"), [("exact", "roi_box"), ("bench", "roi_box_clamped")])
def test_annotations_become_the_published_62_numbers(annotations, mapping: str, box: str) -> None:
    boxes = landmarks_box(torch.from_numpy(annotations["landmarks68"]).double().transpose(1, 2) - 1)
    if mapping == "bench":
        boxes = clamp_box(boxes, 450, 450)
    np.testing.assert_array_equal(boxes + 1, annotations[box])
    parts = (torch.from_numpy(annotations[name]) for name in ("pose7", "shape199", "expression29"))
    found = annotation_to_coefficients(*parts, boxes, 450, mapping=mapping, units="um").pack()
    np.testing.assert_allclose(found, annotations[f"coefficients62_{mapping}"], atol=1e-9, rtol=1e-9)


def test_real_angles_keep_their_yaw(annotations) -> None:
    pose = torch.from_numpy(annotations["pose7"])
    assert pose[:, :3].abs().max() > math.pi
    yaw = torch.rad2deg(wrap_angles(pose[:, :3])[:, 1])
    np.testing.assert_allclose(yaw, annotations["yaw_deg"], atol=1e-5)  # none of these is beyond ±180
