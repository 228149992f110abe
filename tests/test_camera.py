"""Rotations, weak perspective, and the conversions between crops and images."""

from __future__ import annotations

import itertools
import math

import cv2
import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.geometry import camera
from twodasl_lite.geometry.coefficients import Coefficients

DEGREE = math.pi / 180


def random_angles(num: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = 2 * torch.rand(num, 3, generator=generator, dtype=torch.float64) - 1
    return unit * torch.tensor([math.pi, 89.9 * DEGREE, math.pi], dtype=torch.float64)


def test_rotation_is_the_product_of_the_three_axes() -> None:
    pitch, yaw, roll = 0.3, -0.7, 1.1
    c, s = math.cos, math.sin
    rx = torch.tensor([[1, 0, 0], [0, c(pitch), s(pitch)], [0, -s(pitch), c(pitch)]])
    ry = torch.tensor([[c(yaw), 0, -s(yaw)], [0, 1, 0], [s(yaw), 0, c(yaw)]])
    rz = torch.tensor([[c(roll), s(roll), 0], [-s(roll), c(roll), 0], [0, 0, 1]])
    torch.testing.assert_close(camera.euler_to_matrix(torch.tensor([pitch, yaw, roll])), rx @ ry @ rz)


def test_positive_yaw_moves_the_nose_to_the_left_of_the_picture() -> None:
    nose = torch.tensor([0.0, 0.0, 100.0])
    turned = camera.euler_to_matrix(torch.tensor([0.0, 30 * DEGREE, 0.0])) @ nose
    assert turned[0] < -40


def test_euler_angles_are_recovered(device: torch.device) -> None:
    angles = random_angles(2000).to(device)
    rotation = camera.euler_to_matrix(angles)
    torch.testing.assert_close(camera.matrix_to_euler(rotation), angles, atol=1e-11, rtol=0)
    torch.testing.assert_close(camera.matrix_to_euler(0.0037 * rotation), angles, atol=1e-11, rtol=0)
    single = camera.matrix_to_euler(rotation.float())
    torch.testing.assert_close(camera.euler_to_matrix(single), rotation.float(), atol=3e-6, rtol=0)


@pytest.mark.parametrize("yaw", [90.0, -90.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_poles_the_angles_still_give_the_matrix(yaw: float, dtype: torch.dtype) -> None:
    for pitch, roll in itertools.product([-170.0, -30.0, 0.0, 55.0], [-100.0, 0.0, 20.0]):
        rotation = camera.euler_to_matrix(torch.tensor([pitch, yaw, roll], dtype=dtype) * DEGREE)
        angles = camera.matrix_to_euler(rotation)
        assert torch.isfinite(angles).all()
        torch.testing.assert_close(camera.euler_to_matrix(angles), rotation, atol=2e-6, rtol=0)


def test_angles_are_stable_near_the_poles() -> None:
    yaw = torch.tensor([89.0, 89.9, 89.99, 89.999], dtype=torch.float64) * DEGREE
    angles = torch.stack([torch.full_like(yaw, 0.2), yaw, torch.full_like(yaw, -0.4)], dim=-1)
    torch.testing.assert_close(camera.matrix_to_euler(camera.euler_to_matrix(angles)), angles, atol=1e-9, rtol=0)


def test_noisy_rotations_are_made_orthogonal_first() -> None:
    generator = torch.Generator().manual_seed(3)
    angles = random_angles(300, seed=1) * torch.tensor([0.3, 0.8, 0.3])
    noise = torch.randn(300, 3, 3, generator=generator, dtype=torch.float64)
    noisy = 0.01 * (camera.euler_to_matrix(angles) + 0.01 * noise)
    rotation = camera.nearest_rotation(noisy)
    eye = torch.eye(3, dtype=torch.float64).expand(300, 3, 3)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), eye, atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(300, dtype=torch.float64))
    error = (camera.matrix_to_euler(noisy) - angles).abs() / DEGREE
    assert error.median() < 1.0


def test_nearest_rotation_is_the_nearest_one() -> None:
    # For two rows of unit length, the closest orthonormal pair is the polar factor of the 2x3 matrix.
    generator = torch.Generator().manual_seed(4)
    rows = torch.nn.functional.normalize(torch.randn(50, 2, 3, generator=generator, dtype=torch.float64), dim=-1)
    u, _, vt = torch.linalg.svd(rows, full_matrices=False)
    torch.testing.assert_close(camera.nearest_rotation(rows)[:, :2], u @ vt)


def test_degenerate_rows_are_refused() -> None:
    matrix = torch.eye(3)
    matrix[1] = matrix[0]
    with pytest.raises(ValueRangeError, match="zero or parallel"):
        camera.matrix_to_euler(matrix)
    with pytest.raises(ValueRangeError, match="zero or parallel"):
        camera.nearest_rotation(torch.zeros(3, 3))
    with pytest.raises(ValueRangeError, match="matrix: found 1 of 9 values NaN"):
        camera.matrix_to_euler(torch.tensor([[1, 0, 0], [0, float("nan"), 0], [0, 0, 1]]))
    with pytest.raises(ShapeError, match="angles"):
        camera.euler_to_matrix(torch.zeros(2))


def test_rotation_gradients() -> None:
    angles = random_angles(4, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(camera.euler_to_matrix, angles)
    assert torch.autograd.gradcheck(lambda a: camera.matrix_to_euler(camera.euler_to_matrix(a)), angles)


def test_pose_is_put_together_and_taken_apart(device: torch.device) -> None:
    angles = random_angles(20, seed=6).to(device)
    scale = torch.linspace(0.1, 3, 20, dtype=torch.float64, device=device)
    translation = torch.randn(20, 3, dtype=torch.float64, device=device) * 100
    rotation = camera.euler_to_matrix(angles)
    again = camera.split_pose(camera.make_pose(scale, rotation, translation))
    for found, expected in zip(again, (scale, rotation, translation), strict=True):
        torch.testing.assert_close(found, expected)


def test_projection_equals_a_naive_loop() -> None:
    points = torch.randn(2, 5, 3, dtype=torch.float64)
    pose = torch.randn(2, 3, 4, dtype=torch.float64)
    naive = torch.zeros_like(points)
    for b, n, r in itertools.product(range(2), range(5), range(3)):
        naive[b, n, r] = sum(pose[b, r, c] * points[b, n, c] for c in range(3)) + pose[b, r, 3]
    torch.testing.assert_close(camera.project(points, pose), naive)


def test_frames_by_hand() -> None:
    corner = torch.tensor([[1.0, 120.0, 7.0], [120.0, 1.0, -3.0]])  # upper left and lower right pixel centre
    assert camera.frame_to_pixels(corner).tolist() == [[0, 0, 7], [119, 119, -3]]
    assert camera.frame_to_pixels(corner[:, :2], height=450).tolist() == [[0, 330], [119, 449]]
    torch.testing.assert_close(camera.pixels_to_frame(camera.frame_to_pixels(corner, 450), 450), corner)


@pytest.mark.parametrize("mapping", camera.MAPPINGS)
def test_crop_and_image_coordinates_are_inverse(mapping: str) -> None:
    box = torch.tensor([[-12.0, 30.0, 180.0, 199.0], [10.0, 20.0, 129.0, 139.0]], dtype=torch.float64)
    points = torch.randn(2, 9, 3, dtype=torch.float64) * 50 + 80
    crop = camera.image_to_crop(points, box, mapping)
    torch.testing.assert_close(camera.crop_to_image(crop, box, mapping), points)


def test_exact_mapping_puts_pixel_edges_on_pixel_edges() -> None:
    box = torch.tensor([10.0, 20.0, 69.0, 79.0])  # 60 pixels to 120: each becomes 2
    edges = torch.tensor([[9.5, 19.5], [69.5, 79.5]])
    assert camera.image_to_crop(edges, box).tolist() == [[-0.5, -0.5], [119.5, 119.5]]
    same = torch.tensor([0.0, 0.0, 119.0, 119.0])
    points = torch.rand(5, 2) * 119
    torch.testing.assert_close(camera.image_to_crop(points, same), points)


def test_bench_mapping_by_hand() -> None:
    """The published scripts: 120 / (right - left) pixels to a pixel, the box's corner at (-1, -1)."""
    box = torch.tensor([10.0, 20.0, 70.0, 50.0])
    points = torch.tensor([[10.0, 20.0, 3.0], [70.0, 50.0, 6.0], [40.0, 35.0, 0.0]])
    expected = torch.tensor([[-1.0, -1.0, 9.0], [119.0, 119.0, 18.0], [59.0, 59.0, 0.0]])
    torch.testing.assert_close(camera.image_to_crop(points, box, "bench"), expected)
    torch.testing.assert_close(camera.crop_to_image(expected, box, "bench"), points)
    assert camera.image_to_crop(points, torch.tensor([10.0, 20.0, 11.0, 21.0]), "bench").isfinite().all()
    with pytest.raises(ValueRangeError, match="expected left < right"):
        camera.image_to_crop(points, torch.tensor([10.0, 20.0, 10.0, 21.0]), "bench")


def test_exact_mapping_is_where_opencv_puts_a_dot() -> None:
    image = np.zeros((200, 200), np.float32)
    image[93, 57] = 1
    left, top, right, bottom = box = (20, 40, 139, 159)
    crop = cv2.resize(image[top : bottom + 1, left : right + 1], (240, 240), interpolation=cv2.INTER_LINEAR)
    ys, xs = np.mgrid[:240, :240]
    centre = np.array([(crop * xs).sum(), (crop * ys).sum()]) / crop.sum()
    expected = camera.image_to_crop(torch.tensor([[57.0, 93.0]]), torch.tensor(box), size=240)[0]
    np.testing.assert_allclose(centre, expected, atol=1e-3)


@pytest.mark.parametrize("mapping", camera.MAPPINGS)
def test_poses_and_points_go_through_a_crop_alike(mapping: str) -> None:
    generator = torch.Generator().manual_seed(8)
    height = 450
    box = torch.tensor([[-5.0, 33.0, 210.0, 240.0]], dtype=torch.float64)
    points = torch.randn(1, 7, 3, generator=generator, dtype=torch.float64) * 80
    rotation = camera.euler_to_matrix(random_angles(1, seed=9))
    pose = camera.make_pose(
        torch.tensor([0.9], dtype=torch.float64),
        rotation,
        torch.tensor([[120.0, 300.0, -20.0]], dtype=torch.float64),
    )
    in_image = camera.frame_to_pixels(camera.project(points, pose), height)
    crop_pose = camera.image_pose_to_crop(pose, box, height, mapping)
    in_crop = camera.frame_to_pixels(camera.project(points, crop_pose))
    torch.testing.assert_close(in_crop, camera.image_to_crop(in_image, box, mapping))
    torch.testing.assert_close(camera.crop_pose_to_image(crop_pose, box, height, mapping), pose)


def test_points_have_two_or_three_coordinates() -> None:
    for function in (camera.frame_to_pixels, camera.pixels_to_frame):
        with pytest.raises(ShapeError, match=r"points: found shape \(4, 5\); expected \(..., 2 or 3\)"):
            function(torch.zeros(4, 5))
    with pytest.raises(ShapeError, match=r"expected \(..., N, 2 or 3\)"):
        camera.image_to_crop(torch.zeros(4, 5), torch.tensor([0.0, 0.0, 10.0, 20.0]))
    assert camera.frame_to_pixels([1.0, 120.0]).tolist() == [0, 0]
    assert camera.project(torch.zeros(1, 3).double(), torch.zeros(3, 4)).dtype == torch.float64


def test_bad_boxes_and_mappings_are_named() -> None:
    points = torch.zeros(4, 2)
    with pytest.raises(ValueRangeError, match="left < right"):
        camera.image_to_crop(points, torch.tensor([50.0, 0.0, 10.0, 20.0]))
    with pytest.raises(ValueRangeError, match="mapping: found 'roughly'; expected one of exact, bench"):
        camera.image_to_crop(points, torch.tensor([0.0, 0.0, 10.0, 20.0]), "roughly")


# ------------------------------------------------------------------------------------------------ real annotations
@pytest.mark.parametrize(("mapping", "box"), [("exact", "roi_box"), ("bench", "roi_box_clamped")])
def test_annotations_become_the_published_targets(annotations, mapping: str, box: str) -> None:
    boxes = torch.from_numpy(annotations[box]) - 1
    pose = camera.annotation_to_pose(torch.from_numpy(annotations["pose7"]), boxes, 450, mapping)
    expected = torch.from_numpy(annotations[f"coefficients62_{mapping}"])[:, :12]
    torch.testing.assert_close(pose.flatten(1), expected, atol=1e-9, rtol=0)


def test_annotated_angles_are_recovered_up_to_whole_turns(annotations) -> None:
    angles = torch.from_numpy(annotations["pose7"])[:, :3]
    found = camera.matrix_to_euler(camera.euler_to_matrix(angles))
    wrapped = torch.atan2(angles.sin(), angles.cos())
    inside = wrapped[:, 1].abs() < 89.9 * DEGREE
    difference = (found - wrapped)[inside]
    assert torch.atan2(difference.sin(), difference.cos()).abs().max() < 1e-9
    assert inside.sum() >= 395


def test_decoding_the_exact_targets_gives_the_known_error(annotations, basel_landmarks) -> None:
    face = Coefficients.unpack(torch.from_numpy(annotations["coefficients62_exact"]))
    mean, shape, expression = (torch.from_numpy(basel_landmarks[k]) for k in ("mean", "shape", "expression"))
    points = mean + torch.einsum("vck,bk->bvc", shape, face.shape)
    points = points + torch.einsum("vck,bk->bvc", expression, face.expression)
    boxes = torch.from_numpy(annotations["roi_box"]) - 1
    found = camera.crop_to_image(camera.frame_to_pixels(camera.project(points, face.pose)), boxes)[..., :2] + 1
    truth = torch.from_numpy(annotations["landmarks68"]).double().transpose(1, 2)[..., :2]
    size = (truth.amax(dim=1) - truth.amin(dim=1)).prod(dim=-1).sqrt()
    nme = 100 * (found - truth).norm(dim=-1).mean(dim=-1) / size
    yaw = torch.from_numpy(annotations["yaw_deg"]).abs()
    bins = [nme[yaw <= 30].mean(), nme[(yaw > 30) & (yaw <= 60)].mean(), nme[yaw > 60].mean()]
    expected = [0.847, 0.922, 0.966, 0.912, 0.877]
    np.testing.assert_allclose([*bins, sum(bins) / 3, nme.mean()], expected, atol=6e-4)


@pytest.mark.parametrize("form", camera.POSE_FORMS)
def test_scaled_rotations_are_read_as_they_are(form: str, device: torch.device) -> None:
    rotation = camera.euler_to_matrix(random_angles(20, seed=7).to(device))
    scale = torch.linspace(0.1, 3, 20, dtype=torch.float64, device=device)
    pose = camera.make_pose(scale, rotation, torch.randn(20, 3, dtype=torch.float64, device=device))
    torch.testing.assert_close(camera.constrain_pose(pose, form), pose)


def test_completed_poses_by_hand() -> None:
    pose = torch.tensor([[4.0, 0.0, 0.0, 7.0], [1.0, 1.0, 0.0, 8.0], [9.0, 9.0, 9.0, 5.0]], dtype=torch.float64)
    completed = camera.constrain_pose(pose)
    assert torch.equal(completed[:2], pose[:2])  # what the picture shows is untouched
    # (4, 0, 0) x (1, 1, 0) = (0, 0, 4), over the root of 4 sqrt(2); the translation stays
    torch.testing.assert_close(completed[2], torch.tensor([0, 0, 4 / (4 * 2**0.5) ** 0.5, 5], dtype=torch.float64))
    # The second row loses what it shares with the first; both get the mean length (4 + sqrt 2) / 2.
    scale = (4 + 2**0.5) / 2
    expected = torch.cat([scale * torch.eye(3, dtype=torch.float64), pose[:, 3:]], dim=1)
    torch.testing.assert_close(camera.constrain_pose(pose, "similarity"), expected)
    assert camera.constrain_pose(pose, "free") is pose


@pytest.mark.parametrize("form", ["completed", "similarity"])
def test_the_third_row_of_a_predicted_pose_is_not_read(form: str) -> None:
    pose = torch.randn(5, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: camera.constrain_pose(p, form), pose)
    camera.constrain_pose(pose, form)[..., :3].square().sum().backward()
    assert bool((pose.grad[:, 2, :3] == 0).all())
    assert bool((pose.grad[:, :2, :3] != 0).any(dim=2).all())


def test_unusable_rows_stay_finite_and_forms_are_named() -> None:
    for form in camera.POSE_FORMS:
        assert bool(torch.isfinite(camera.constrain_pose(torch.zeros(2, 3, 4), form)).all())
    with pytest.raises(ValueRangeError, match="form: found 'round'; expected one of free, completed, similarity"):
        camera.constrain_pose(torch.zeros(3, 4), "round")
