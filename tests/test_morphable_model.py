"""The morphable model: decoding, sampling, other sizes, saving and loading."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.conftest import make_model
from twodasl_lite.base.errors import FileFormatError, InputTypeError, ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.coefficients import CoefficientLayout


def test_decode_equals_a_naive_sum(small_model: MorphableModel, device: torch.device) -> None:
    model = small_model.to(device)
    shape, expression = model.sample(3, generator=torch.Generator().manual_seed(1))
    naive = model.mean.expand(3, -1, -1).clone()
    for b in range(3):
        for k in range(model.num_shape):
            naive[b] += shape[b, k] * model.shape_basis[..., k]
        for k in range(model.num_expression):
            naive[b] += expression[b, k] * model.expression_basis[..., k]
    torch.testing.assert_close(model.decode(shape, expression), naive)
    torch.testing.assert_close(model(shape, expression), naive)


def test_landmarks_alone_are_the_dense_ones(small_model: MorphableModel) -> None:
    shape, expression = small_model.sample(4)
    dense = small_model.decode(shape, expression)[:, small_model.landmarks]
    torch.testing.assert_close(small_model.decode_landmarks(shape, expression), dense)


def test_landmarks_alone_touch_no_dense_vertex(small_model: MorphableModel) -> None:
    shape, expression = small_model.sample(4)
    expected = small_model.decode_landmarks(shape, expression)
    small_model.mean.fill_(float("nan"))
    small_model.basis.fill_(float("nan"))
    torch.testing.assert_close(small_model.decode_landmarks(shape, expression), expected)


def test_what_is_omitted_is_zero(small_model: MorphableModel) -> None:
    torch.testing.assert_close(small_model.decode(), small_model.mean[None])
    shape = torch.randn(3, 5, dtype=torch.float64)
    neutral = small_model.decode(shape, torch.zeros(3, 3, dtype=torch.float64))
    torch.testing.assert_close(small_model.decode(shape), neutral)
    torch.testing.assert_close(small_model.decode(shape, torch.zeros(1, 3)), neutral)  # one for all


def test_any_leading_dimensions(small_model: MorphableModel) -> None:
    shape, expression = small_model.sample(6)
    flat = small_model.decode(shape, expression)
    nested = small_model.decode(shape.view(2, 3, -1), expression.view(2, 3, -1))
    torch.testing.assert_close(nested.view_as(flat), flat)
    torch.testing.assert_close(small_model.decode(shape[0], expression[0]), flat[0])
    torch.testing.assert_close(small_model.decode_albedo(torch.zeros(4)), small_model.decode_albedo()[0])


def test_decode_has_the_right_gradient(small_model: MorphableModel) -> None:
    shape, expression = (c.requires_grad_() for c in small_model.sample(2))
    assert torch.autograd.gradcheck(small_model.decode, (shape, expression))


def test_decode_names_wrong_sizes(small_model: MorphableModel) -> None:
    with pytest.raises(ShapeError, match=r"shape: found shape \(2, 4\); expected \(\.\.\., 5\)"):
        small_model.decode(torch.zeros(2, 4))
    with pytest.raises(ShapeError, match=r"found batches \(2,\) and \(3,\)"):
        small_model.decode(torch.zeros(2, 5), torch.zeros(3, 3))
    with pytest.raises(ShapeError, match="expression"):
        small_model.decode(None, torch.zeros(5))


def test_albedo(small_model: MorphableModel) -> None:
    colours = small_model.decode_albedo(small_model.sample_albedo(6))
    assert colours.shape == (6, 90, 3)
    assert float(colours.min()) >= 0
    assert float(colours.max()) <= 1
    torch.testing.assert_close(small_model.decode_albedo()[0], small_model.albedo_mean)
    with pytest.raises(TwodaslError, match="'small' has no colours"):
        make_model(albedo=False).decode_albedo()


def test_samples_have_the_models_spread() -> None:
    model = make_model()
    shape, expression = model.sample(20000, generator=torch.Generator().manual_seed(0), clip=100)
    torch.testing.assert_close(shape.std(dim=0), model.shape_std, rtol=0.03, atol=0)
    torch.testing.assert_close(expression.std(dim=0), model.expression_std, rtol=0.03, atol=0)
    clipped, neutral = model.sample(500, clip=2, expression=False)
    assert bool((clipped.abs() <= 2 * model.shape_std + 1e-6).all())
    assert not neutral.any()
    again = model.sample(5, generator=torch.Generator().manual_seed(7))[0]
    assert torch.equal(again, model.sample(5, generator=torch.Generator().manual_seed(7))[0])


def test_truncation_keeps_the_first_components(small_model: MorphableModel) -> None:
    cut = small_model.truncate(2, 1)
    assert cut.layout == CoefficientLayout(2, 1)
    assert cut.expression_names == ["move 0"]
    shape = torch.tensor([[1.0, -2.0, 0, 0, 0]], dtype=torch.float64)
    expression = torch.tensor([[0.5, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(cut.decode(shape[:, :2], expression[:, :1]), small_model.decode(shape, expression))
    assert list(cut.regions) == ["face", "last"]
    with pytest.raises(ValueRangeError, match="num_shape: found 6; expected 0 to 5"):
        small_model.truncate(6)


def test_reduced_expressions_keep_neutral_and_the_energy() -> None:
    model = make_model(num_expression=6)
    model.expression_kind = "blendshapes"
    full = model.reduce_expressions(6)
    torch.testing.assert_close(full.decode(), model.decode())
    # All directions kept: any expression of the old basis is one of the new.
    _, expression = model.sample(5)
    offsets = (model.decode(None, expression) - model.mean).flatten(1)
    new_basis = full.expression_basis.flatten(0, 1)
    solution = torch.linalg.lstsq(new_basis, offsets.T).solution
    torch.testing.assert_close(new_basis @ solution, offsets.T, atol=1e-9, rtol=0)
    energy = full.expression_basis.flatten(0, 1).norm(dim=0)
    assert bool((energy[:-1] >= energy[1:]).all())
    assert full.expression_kind == "components"
    assert model.with_layout(CoefficientLayout(3, 2)).layout == CoefficientLayout(3, 2)
    # Best in the mean: the reduced basis leaves less error than any equally long cut of the named ones.
    _, many = model.sample(2000, generator=torch.Generator().manual_seed(0))
    offsets = (model.decode(None, many) - model.mean).flatten(1).T
    left = []
    for basis in (model.reduce_expressions(2).expression_basis, model.expression_basis[..., :2]):
        flat = basis.flatten(0, 1)
        left.append((offsets - flat @ torch.linalg.lstsq(flat, offsets).solution).square().sum())
    assert left[0] < left[1]


def test_subset_keeps_positions_landmarks_and_regions(small_model: MorphableModel) -> None:
    keep = torch.arange(89, 4, -1)
    part = small_model.subset(keep)
    shape, expression = small_model.sample(2)
    torch.testing.assert_close(part.decode(shape, expression), small_model.decode(shape, expression)[:, keep])
    torch.testing.assert_close(
        part.decode_landmarks(shape, expression), small_model.decode_landmarks(shape, expression)
    )
    torch.testing.assert_close(part.decode_albedo(), small_model.decode_albedo()[:, keep])
    assert part.regions["face"].numel() == 75
    torch.testing.assert_close(part.mean[part.regions["last"]], small_model.mean[[89]])
    old = {tuple(sorted(t)) for t in small_model.triangles.tolist() if min(t) >= 5}
    assert {tuple(sorted(keep[t].tolist())) for t in part.triangles} == old
    with pytest.raises(ValueRangeError, match=r"no vertex for landmarks \[0\]"):
        small_model.subset(torch.arange(11, 90))
    with pytest.raises(ValueRangeError, match="repeated"):
        small_model.subset(torch.tensor([*range(90), 3]))


def test_the_constructor_names_what_does_not_fit() -> None:
    good = {
        "mean": torch.zeros(80, 3),
        "shape_basis": torch.zeros(80, 3, 2),
        "expression_basis": torch.zeros(80, 3, 1),
        "triangles": [[0, 1, 2]],
        "landmarks": list(range(68)),
    }
    MorphableModel(**good)
    bad_mean = torch.zeros(80, 3)
    bad_mean[7, 1] = float("nan")
    cases = [
        ({"mean": torch.zeros(80, 2)}, ShapeError, "mean"),
        (
            {"mean": bad_mean},
            ValueRangeError,
            r"mean: found 1 of 240 values NaN or infinite \(the first at \(7, 1\)\)",
        ),
        ({"mean": "a face"}, InputTypeError, "mean: found str"),
        ({"shape_basis": torch.zeros(81, 3, 2)}, ShapeError, r"shape_basis: found shape \(81, 3, 2\)"),
        (
            {"triangles": [[0, 1, 80]]},
            ValueRangeError,
            "triangles: found indices from 0 to 80; expected 0 to 79",
        ),
        (
            {"triangles": [[0.0, 1.0, 2.0]]},
            InputTypeError,
            "triangles: found torch.float32; expected integers",
        ),
        ({"landmarks": [1, 2, 3]}, ShapeError, r"landmarks: found shape \(3,\)"),
        ({"shape_std": torch.tensor([1.0, 0.0])}, ValueRangeError, "shape_std: found 0.0"),
        ({"expression_names": ["a", "b"]}, ShapeError, "expression_names: found 2; expected 1"),
        ({"expression_kind": "moods"}, ValueRangeError, "expression_kind: found 'moods'"),
        ({"albedo_mean": torch.zeros(80, 3)}, ShapeError, "albedo"),
        ({"regions": {"nose": torch.tensor([99])}}, ValueRangeError, r"regions\['nose'\]"),
    ]
    for change, error, message in cases:
        with pytest.raises(error, match=message):
            MorphableModel(**{**good, **change})


def test_the_disk_keeps_everything(small_model: MorphableModel, tmp_path) -> None:
    small_model.save(tmp_path / "model.npz")
    again = MorphableModel.load(tmp_path / "model.npz")
    shape, expression = small_model.sample(2)
    assert torch.equal(again.decode(shape, expression), small_model.decode(shape, expression))
    for attribute in ("name", "units", "license", "source", "expression_names", "expression_kind", "layout"):
        assert getattr(again, attribute) == getattr(small_model, attribute)
    assert all(torch.equal(again.regions[k], v) for k, v in small_model.regions.items())
    assert torch.equal(again.decode_albedo(), small_model.decode_albedo())
    assert "small" in repr(again)
    assert "90 vertices" in repr(again)


def test_damaged_model_files_are_named(small_model: MorphableModel, tmp_path) -> None:
    path = tmp_path / "model.npz"
    small_model.save(path)
    data = path.read_bytes()
    (tmp_path / "short.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(FileFormatError, match=r"short\.npz: found"):
        MorphableModel.load(tmp_path / "short.npz")
    with np.load(path) as content:
        arrays = {name: content[name] for name in content.files}
    np.savez(tmp_path / "mixed.npz", **{**arrays, "mean": np.zeros((7, 3))})
    with pytest.raises(FileFormatError, match=r"mixed\.npz: found arrays that do not fit together"):
        MorphableModel.load(tmp_path / "mixed.npz")
    np.savez(
        tmp_path / "version.npz",
        **{
            **arrays,
            "__header__": np.array('{"format": "twodasl_lite.morphable_model", "version": 9, "metadata": {}}'),
        },
    )
    with pytest.raises(FileFormatError, match=r"version 9; expected a twodasl_lite\.morphable_model file, version 1"):
        MorphableModel.load(tmp_path / "version.npz")
