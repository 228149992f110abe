from __future__ import annotations

import pytest
import torch
from conftest import make_model
from torch import nn
from training_runs import random_faces, small_data, small_face

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.faces.fingerprint import face_fingerprint
from twodasl_lite.geometry.landmarks import landmark_map, subset_18
from twodasl_lite.networks import load_regressor, make_regressor, save_regressor
from twodasl_lite.networks.prediction import predict, predict_with


@pytest.fixture(scope="module")
def model():
    return small_face()


@pytest.fixture(scope="module")
def whitening(model):
    return small_data(model).whitening


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return make_regressor("lite")


def by_hand(network, whitening, model, images, drawn):
    network.eval()
    with torch.no_grad():
        pixels = (images.float() - 127.5) / 128
        return network(torch.cat([pixels, drawn], dim=1))


def test_with_a_detector(model, whitening, network, device):
    faces = random_faces(model, 5, 1)
    network, model = network.to(device), model.to(device)
    answer = predict(network.train(), whitening, faces.to(device), model=model, batch_size=2)
    assert network.training  # left as it was
    drawn = landmark_map(faces.detected, faces.detected_visible).to(device)
    expected = by_hand(network, whitening, model, faces.images.to(device), drawn)
    torch.testing.assert_close(answer.whitened, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answer.coefficients, whitening.unwhiten(answer.whitened))
    torch.testing.assert_close(answer.landmarks, decode_landmarks(answer.coefficients, model))
    network.cpu()
    model.cpu()


def test_without_a_detector_it_looks_twice(model, whitening, network):
    faces = random_faces(model, 3, 1)
    empty = torch.full((3, 1, 120, 120), -1.0)
    first = by_hand(network, whitening, model, faces.images, empty)
    torch.testing.assert_close(predict(network, whitening, faces.images, model=model, looks=1).whitened, first)
    own = subset_18(decode_landmarks(whitening.unwhiten(first), model)[..., :2])
    second = by_hand(network, whitening, model, faces.images, landmark_map(own))
    answer = predict(network, whitening, faces.images, model=model)
    torch.testing.assert_close(answer.whitened, second, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(first, second, atol=1e-3)  # the map matters, so the test above says something


def test_some_faces_without_a_detector(model, whitening, network):
    faces = random_faces(model, 4, 1)
    visible = faces.detected_visible.clone()
    visible[2] = False
    detected = faces.detected.clone()
    detected[3] = torch.nan
    mixed = predict(network, whitening, faces.images, detected, visible, model=model).whitened
    with_points = predict(network, whitening, faces, model=model).whitened
    without = predict(network, whitening, faces.images, model=model).whitened
    torch.testing.assert_close(mixed[:2], with_points[:2], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[2:], without[2:], rtol=1e-4, atol=1e-4)


def test_map_kind_is_used(model, whitening, network):
    faces = random_faces(model, 2, 1)
    binary = predict(network, whitening, faces, model=model).whitened
    gaussian = predict(network, whitening, faces, model=model, kind="gaussian").whitened
    assert not torch.allclose(binary, gaussian, atol=1e-3)


def test_no_pictures(model, whitening, network):
    answer = predict(network, whitening, torch.zeros(0, 3, 120, 120, dtype=torch.uint8), model=model)
    assert (answer.coefficients.shape, answer.landmarks.shape) == ((0, 62), (0, 68, 3))


def test_wrong_input(model, whitening, network):
    images = torch.zeros(2, 3, 120, 120, dtype=torch.uint8)
    with pytest.raises(ShapeError, match=r"images: found shape \(2, 120, 120, 3\)"):
        predict(network, whitening, images.permute(0, 2, 3, 1), model=model)
    with pytest.raises(ShapeError, match="detected"):
        predict(network, whitening, images, torch.zeros(2, 68, 2), model=model)
    with pytest.raises(ValueRangeError, match="looks: found 0"):
        predict(network, whitening, images, model=model, looks=0)


def test_network_from_a_file(tmp_path, model, whitening, network):
    facts = {"map_kind": "gaussian", "layout": [40, 10], "face_model": face_fingerprint(model)}
    save_regressor(tmp_path / "net.safetensors", network, whitening, facts)
    trained = load_regressor(tmp_path / "net.safetensors")
    faces = random_faces(model, 2, 1)
    answer = predict_with(trained, faces, model=model)
    torch.testing.assert_close(
        answer.whitened, predict(network, whitening, faces, model=model, kind="gaussian").whitened
    )
    other = make_model(num_shape=40, num_expression=10, dtype=torch.float32, seed=1)
    with pytest.raises(ValueRangeError, match="coefficients mean another face"):
        predict_with(trained, faces, model=other)


def test_a_network_that_uses_its_map_is_helped_by_its_own_landmarks(model, whitening):
    """A regressor that only passes on what the map shows: the second look is then told by the first."""

    class MapReader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            shown = (inputs[:, 3] > 0).flatten(1).sum(dim=1, keepdim=True)
            return shown.float().expand(-1, 62) / 180

    images = torch.zeros(1, 3, 120, 120, dtype=torch.uint8)
    first = predict(MapReader(), whitening, images, model=model, looks=1).whitened
    second = predict(MapReader(), whitening, images, model=model, looks=2).whitened
    assert float(first[0, 0]) == 0
    assert float(second[0, 0]) > 0


class KnowsSides(torch.nn.Module):
    """Answers one face to pictures that are brighter on the left, another to those brighter on the right."""

    def __init__(self, left: torch.Tensor, right: torch.Tensor) -> None:
        super().__init__()
        self.left, self.right = torch.nn.Parameter(left), torch.nn.Parameter(right)
        self.maps = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.maps.append(inputs[:, 3])
        half = inputs.shape[-1] // 2
        bright = inputs[:, :3, :, :half].mean(dim=(1, 2, 3)) > inputs[:, :3, :, half:].mean(dim=(1, 2, 3))
        return torch.where(bright[:, None], self.left, self.right)


def test_the_mirror_image_is_looked_at_too() -> None:
    """A network that sees a mirror image as it should leaves the answer; one that does not is averaged."""
    from twodasl_lite.faces import load_face_model
    from twodasl_lite.faces.symmetry import mirror_coefficients
    from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
    from twodasl_lite.geometry.landmarks import flip_landmarks

    face = load_face_model(CoefficientLayout())
    shape = torch.randn(40, generator=torch.Generator().manual_seed(1))
    pose = torch.tensor([[0.4, 0.1, 0.2, 66.0], [-0.1, 0.45, 0, 50], [-0.2, 0, 0.4, 0]])
    here = torch.cat([pose.flatten(), shape, torch.zeros(10)])
    there = mirror_coefficients(here, face, 120)
    plain = Whitening(torch.zeros(62), torch.ones(62))
    images = torch.zeros(2, 3, 120, 120, dtype=torch.uint8)
    images[0, :, :, :60] = 200
    images[1, :, :, 60:] = 200
    network = KnowsSides(here, there)
    points = 20 + 80 * torch.rand(2, 18, 2, generator=torch.Generator().manual_seed(2))
    found = predict(network, plain, images, points, model=face, mirror=True)
    torch.testing.assert_close(found.coefficients, torch.stack([here, there]), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found.whitened, found.coefficients)
    torch.testing.assert_close(network.maps[1], landmark_map(flip_landmarks(points))[:, 0])
    other = there + 0.1
    found = predict(KnowsSides(here, other), plain, images[:1], model=face, mirror=True)
    expected = (here + mirror_coefficients(other, face, 120)) / 2
    torch.testing.assert_close(found.coefficients[0], expected, atol=1e-3, rtol=1e-4)
    assert predict(network, plain, images[:0], model=face, mirror=True).coefficients.shape == (0, 62)
