"""From coefficients to pixels."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import InputTypeError, ShapeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.camera import euler_to_matrix, frame_to_pixels, make_pose, project
from twodasl_lite.geometry.coefficients import Coefficients


def random_face(model: MorphableModel, num: int = 3) -> Coefficients:
    generator = torch.Generator().manual_seed(0)
    angles = 0.4 * torch.randn(num, 3, generator=generator, dtype=torch.float64)
    pose = make_pose(
        torch.tensor(0.5, dtype=torch.float64).expand(num),
        euler_to_matrix(angles),
        torch.tensor([60.0, 60.0, 0.0], dtype=torch.float64).expand(num, 3),
    )
    return Coefficients(pose, *model.sample(num, generator=generator))


def test_decode_is_model_then_camera_then_pixels(small_model: MorphableModel, device: torch.device) -> None:
    model = small_model.to(device)
    face = random_face(small_model).to(device)
    expected = frame_to_pixels(project(model.decode(face.shape, face.expression), face.pose))
    torch.testing.assert_close(decode(face, model), expected)
    torch.testing.assert_close(decode(face.pack(), model), expected)
    torch.testing.assert_close(decode_landmarks(face, model), expected[:, model.landmarks])


def test_one_face_needs_no_batch(small_model: MorphableModel) -> None:
    vector = random_face(small_model).pack()
    torch.testing.assert_close(decode(vector[1], small_model), decode(vector, small_model)[1])


def test_height_sets_where_y_starts(small_model: MorphableModel) -> None:
    face = random_face(small_model)
    lower = decode(face, small_model, height=450) - decode(face, small_model, height=120)
    torch.testing.assert_close(lower, torch.tensor([0.0, 330.0, 0.0], dtype=torch.float64).expand_as(lower))


def test_the_face_is_upright_in_pixels(small_model: MorphableModel) -> None:
    pose = make_pose(torch.ones(1).double(), torch.eye(3).double()[None], torch.zeros(1, 3).double())
    face = Coefficients(pose, torch.zeros(1, 5).double(), torch.zeros(1, 3).double())
    points = decode(face, small_model)[0]
    top, bottom = small_model.mean[:, 1].argmax(), small_model.mean[:, 1].argmin()
    assert points[top, 1] < points[bottom, 1]


def test_gradients_reach_every_coefficient(small_model: MorphableModel) -> None:
    vector = random_face(small_model, 2).pack().requires_grad_()
    assert torch.autograd.gradcheck(lambda c: decode_landmarks(c, small_model)[:, :5], vector)


def test_wrong_sizes_are_named(small_model: MorphableModel) -> None:
    with pytest.raises(ShapeError, match=r"coefficients: found shape \(2, 62\); expected \(\.\.\., 20\)"):
        decode(torch.zeros(2, 62), small_model)
    with pytest.raises(InputTypeError, match="coefficients: found list"):
        decode([1.0, 2.0], small_model)
