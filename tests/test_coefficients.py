"""The coefficient vector and its whitening."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import FileFormatError, InputTypeError, ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients, Whitening


@pytest.mark.parametrize(("num_shape", "num_expression", "size"), [(40, 10, 62), (199, 29, 240), (0, 0, 12)])
def test_layout_sizes(num_shape: int, num_expression: int, size: int) -> None:
    layout = CoefficientLayout(num_shape, num_expression)
    assert layout.size == size
    assert len(layout.names) == len(set(layout.names)) == size


def test_layout_refuses_negative_sizes() -> None:
    with pytest.raises(ValueRangeError, match="num_shape: found -1"):
        CoefficientLayout(-1, 10)


def test_pack_puts_the_pose_row_by_row_first(device: torch.device) -> None:
    vector = torch.arange(62.0, device=device)
    face = Coefficients.unpack(vector)
    assert face.pose.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert face.shape.tolist() == list(range(12, 52))
    assert face.expression.tolist() == list(range(52, 62))
    assert torch.equal(face.pack(), vector)
    assert CoefficientLayout().names[3] == "pose[0,3]"
    assert CoefficientLayout().names[52] == "expression[0]"


def test_pack_and_unpack_are_inverse_for_any_leading_dimensions() -> None:
    layout = CoefficientLayout(7, 2)
    vector = torch.randn(2, 3, layout.size)
    face = Coefficients.unpack(vector, layout)
    assert face.layout == layout
    assert face.pose.shape == (2, 3, 3, 4)
    assert torch.equal(face.pack(), vector)
    assert face.to(torch.float64).pack().dtype == torch.float64


def test_unpack_and_pack_name_what_is_wrong() -> None:
    with pytest.raises(ShapeError, match=r"vector: found shape \(3, 61\); expected \(..., 62\)"):
        Coefficients.unpack(torch.zeros(3, 61))
    with pytest.raises(ShapeError, match=r"shape: found leading dimensions \(3,\); expected the pose's \(2,\)"):
        Coefficients(torch.zeros(2, 3, 4), torch.zeros(3, 40), torch.zeros(2, 10)).pack()
    with pytest.raises(ShapeError, match="pose"):
        Coefficients(torch.zeros(2, 4, 3), torch.zeros(2, 40), torch.zeros(2, 10)).pack()
    with pytest.raises(InputTypeError, match="vector: found str"):
        Coefficients.unpack("62 numbers")


def test_whitening_estimated_from_samples_whitens_them(device: torch.device) -> None:
    generator = torch.Generator().manual_seed(1)
    samples = torch.randn(500, 6, generator=generator, dtype=torch.float64) * torch.tensor([1e-4, 1, 10, 1e3, 1e5, 2])
    samples = (samples + torch.tensor([0, -5, 1e2, 3e4, 0, 1.0])).to(device)
    whitening = Whitening.from_samples(samples)
    white = whitening.whiten(samples)
    torch.testing.assert_close(white.mean(dim=0), torch.zeros_like(white[0]), atol=1e-9, rtol=0)
    torch.testing.assert_close(white.std(dim=0), torch.ones_like(white[0]))
    torch.testing.assert_close(whitening.unwhiten(white), samples)


def test_whitening_by_hand() -> None:
    whitening = Whitening(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]))
    assert whitening.whiten(torch.tensor([2.0, 2.0])).tolist() == [2.0, 0.0]
    assert whitening.unwhiten(torch.tensor([[2.0, -1.0]])).tolist() == [[2.0, -2.0]]


def test_a_constant_coefficient_whitens_to_zero() -> None:
    samples = torch.randn(50, 3)
    samples[:, 1] = 0.1
    white = Whitening.from_samples(samples).whiten(samples)
    assert torch.isfinite(white).all()
    assert white[:, 1].abs().max() < 1e-6


def test_whitening_survives_the_disk(tmp_path) -> None:
    whitening = Whitening.from_samples(torch.randn(20, 62, dtype=torch.float64))
    whitening.save(tmp_path / "deep" / "whitening.npz")
    again = Whitening.load(tmp_path / "deep" / "whitening.npz")
    assert torch.equal(again.mean, whitening.mean)
    assert torch.equal(again.std, whitening.std)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["whitening.npz"]


def test_whitening_refuses_nonsense(tmp_path) -> None:
    with pytest.raises(ValueRangeError, match=r"std: found 0\.0 at index 1"):
        Whitening(torch.zeros(2), torch.tensor([1.0, 0.0]))
    with pytest.raises(ShapeError, match="std"):
        Whitening(torch.zeros(2), torch.ones(3))
    with pytest.raises(ValueRangeError, match="mean: found 1 of 2"):
        Whitening(torch.tensor([0.0, float("nan")]), torch.ones(2))
    with pytest.raises(ShapeError, match="at least 2"):
        Whitening.from_samples(torch.zeros(1, 5))
    with pytest.raises(ShapeError, match="vector"):
        Whitening(torch.zeros(2), torch.ones(2)).whiten(torch.zeros(3))
    with pytest.raises(FileFormatError, match="no such file"):
        Whitening.load(tmp_path / "nothing.npz")
    np.savez(tmp_path / "other.npz", mean=np.zeros(2))
    with pytest.raises(TwodaslError, match="without a header"):
        Whitening.load(tmp_path / "other.npz")


def test_published_whitening_fits_the_annotations(annotations, basel_landmarks) -> None:
    whitening = Whitening(
        torch.from_numpy(basel_landmarks["coefficient_mean"]),
        torch.from_numpy(basel_landmarks["coefficient_std"]),
    )
    white = whitening.whiten(torch.from_numpy(annotations["coefficients62_exact"]))
    # The published numbers come from another set of faces, so not 0 and 1, but of that order for every entry.
    spread = white[:, [i for i in range(62) if i != 11]].std(dim=0)  # entry 11 is the arbitrary depth
    assert float(spread.min()) > 0.3
    assert float(spread.max()) < 3
