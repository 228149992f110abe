"""Reconstruction error after rigid alignment: what it ignores, what it measures, and the release's own procedure."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.evaluation import bounding_box, box_size, icp, reconstruction_error, rigid_rotation
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.camera import euler_to_matrix


def rotation(*degrees: float) -> torch.Tensor:
    return euler_to_matrix(torch.deg2rad(torch.tensor(degrees, dtype=torch.float64)))


@pytest.fixture(scope="module")
def faces() -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of heads of different people in millimetres, ``(3, V, 3)`` each."""
    model = load_face_model().to(torch.float64)
    shape, expression = model.sample(6, generator=torch.Generator().manual_seed(0))
    vertices = model.decode(shape, expression)
    return vertices[:3], vertices[3:]


def test_rotation_of_paired_points_is_exact_and_never_a_reflection() -> None:
    points = torch.randn(4, 30, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    true = torch.stack([rotation(10, 20, 30), rotation(170, -80, 90), rotation(0, 0, 0), rotation(-60, 45, -120)])
    target = points @ true.mT + torch.tensor([5.0, -3.0, 100.0])
    torch.testing.assert_close(rigid_rotation(points, target), true)
    mirrored = points * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(torch.linalg.det(rigid_rotation(points, mirrored)), torch.ones(4, dtype=torch.float64))
    flat = points * torch.tensor([1.0, 1.0, 0.0])  # a plane: the third axis follows from the other two
    torch.testing.assert_close(rigid_rotation(flat, flat @ true.mT), true)


@pytest.mark.parametrize("anchor", ["centroid", "matched"])
def test_a_turned_and_shifted_face_comes_back(faces, anchor: str, device: torch.device) -> None:
    target = faces[0].to(device)
    turn = torch.stack([rotation(4, -7, 5), rotation(-8, 3, 2), rotation(0, 0, 0)]).to(device)
    shift = torch.tensor([30.0, -12.0, 500.0], dtype=torch.float64, device=device)
    predicted = (target - shift) @ turn  # so that the alignment is `turn` and `shift`
    found = icp(predicted[:, ::5], target[:, ::5], tolerance=1e-12, anchor=anchor)
    torch.testing.assert_close(found.points, target[:, ::5], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.rotation, turn, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.translation, shift.expand(3, 3), atol=1e-5, rtol=0)
    moved = predicted[:, ::5] @ found.rotation.mT + found.translation[:, None]
    torch.testing.assert_close(moved, found.points)
    assert int(found.steps[2]) <= 2 <= int(found.steps.max())
    error = reconstruction_error(predicted, target, every=5, tolerance=1e-12, anchor=anchor)
    assert float(error.max()) < 1e-8


def test_scale_is_not_forgiven(faces) -> None:
    target = faces[0]
    centre = target[:, ::50].mean(dim=1, keepdim=True)
    scaled = centre + 1.1 * (target - centre)
    expected = 0.1 * (target[:, ::50] - centre).norm(dim=-1).mean(dim=1) / box_size(bounding_box(target))
    # The closest points of a larger face are not the true partners, so a little turning is left.
    torch.testing.assert_close(reconstruction_error(scaled, target), expected, rtol=0.02, atol=0)


def test_the_box_is_that_of_all_vertices_or_given(faces) -> None:
    first, second = faces
    errors = reconstruction_error(first, second)
    box = torch.tensor([[0.0, 0.0, 10.0, 40.0]], dtype=torch.float64).expand(3, 4)  # size 20
    given = reconstruction_error(first, second, box=box)
    torch.testing.assert_close(given * 20, errors * box_size(bounding_box(second)))


def test_alignment_helps_and_alone_is_the_same_as_in_a_batch(faces) -> None:
    first, second = faces
    target = second @ rotation(0, 6, -4).mT + 40
    errors = reconstruction_error(first, target, every=20)
    some, size = target[:, ::20], box_size(bounding_box(target))
    centred = first[:, ::20] - first[:, ::20].mean(1, keepdim=True) + some.mean(1, keepdim=True)
    unaligned = (centred - some).norm(dim=-1).mean(dim=1) / size
    assert bool((errors < 0.8 * unaligned).all())
    single = torch.cat([reconstruction_error(first[k : k + 1], target[k : k + 1], every=20) for k in range(3)])
    torch.testing.assert_close(single, errors)


def release_icp(data_g: np.ndarray, data_p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``icp_process_xgtu.m`` of the release, retold step by step: centre, pair, best quaternion, turn, centre."""
    last, error = 0.0, math.inf
    while abs(error - last) > 0.01:
        last = error
        data_g, data_p = data_g - data_g.mean(axis=0), data_p - data_p.mean(axis=0)
        squared = ((data_g[:, None] - data_p[None]) ** 2).sum(axis=2)
        pairs = data_p[squared.argmin(axis=1)]
        v = data_g.T @ pairs / len(data_g)
        cross = np.array([v[1, 2] - v[2, 1], v[2, 0] - v[0, 2], v[0, 1] - v[1, 0]])
        q = np.empty((4, 4))
        q[0, 0], q[0, 1:], q[1:, 0] = np.trace(v), cross, cross
        q[1:, 1:] = v + v.T - np.trace(v) * np.eye(3)
        a, b, c, d = np.linalg.eigh(q)[1][:, -1]
        turn = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
            ]
        )
        data_p = data_p @ turn
        data_p = data_p - data_p.mean(axis=0)
        error = squared.min(axis=1).mean()
    return data_g, data_p


def test_agrees_with_the_procedure_of_the_release(faces) -> None:
    predicted, target = faces[0] @ rotation(3, -9, 6).mT, faces[1]
    errors = reconstruction_error(predicted, target)
    size = box_size(bounding_box(target))
    for face in range(3):
        aligned = release_icp(target[face, ::50].numpy(), predicted[face, ::50].numpy())
        expected = np.linalg.norm(aligned[0] - aligned[1], axis=1).mean() / float(size[face])
        assert float(errors[face]) == pytest.approx(expected, rel=1e-9)


def test_bad_input_is_refused() -> None:
    points = torch.rand(2, 60, 3)
    with pytest.raises(ShapeError, match="expected predicted's"):
        reconstruction_error(points, points[:, :50])
    with pytest.raises(ShapeError, match="found 1 faces; expected predicted's 2"):
        icp(points, points[:1])
    with pytest.raises(ValueRangeError, match="every: found 0"):
        reconstruction_error(points, points, every=0)
    with pytest.raises(ValueRangeError, match="anchor: found 'nose'"):
        icp(points, points, anchor="nose")
    with pytest.raises(ValueRangeError, match="NaN"):
        icp(points * torch.nan, points)
