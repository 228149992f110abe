"""From scans to a model: alignment, principal components, quality curves."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces import build
from twodasl_lite.geometry.camera import euler_to_matrix

GENERATOR_SEED = 11


def random(*shape: int, seed: int = GENERATOR_SEED) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_scans(num: int = 30, vertices: int = 40, rank: int = 4, seed: int = 2) -> torch.Tensor:
    """Scans that vary in ``rank`` directions about a mean."""
    directions = random(vertices, 3, rank, seed=seed) * torch.tensor([4.0, 2.0, 1.0, 0.5])[:rank].double()
    return 30 * random(vertices, 3, seed=seed + 1) + torch.einsum(
        "nk,vck->nvc", random(num, rank, seed=seed + 2), directions
    )


@pytest.mark.parametrize("with_scale", [False, True])
def test_align_recovers_a_known_transform(with_scale: bool, device: torch.device) -> None:
    source = random(5, 12, 3).to(device)
    rotation = euler_to_matrix(random(5, 3, seed=1)).to(device)
    scale = torch.linspace(0.5, 2, 5, dtype=torch.float64, device=device) if with_scale else torch.ones(5).to(source)
    shift = random(5, 3, seed=3).to(device)
    target = build.Similarity(scale, rotation, shift).apply(source)
    found = build.align(source, target, with_scale=with_scale)
    for have, want in zip(found, (scale, rotation, shift), strict=True):
        torch.testing.assert_close(have, want)


def test_align_never_reflects() -> None:
    source = random(10, 3)
    found = build.align(source, source * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones((), dtype=torch.float64))


def test_align_names_what_is_wrong() -> None:
    with pytest.raises(ShapeError, match="at least 3"):
        build.align(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"target: found shape \(5, 3\)"):
        build.align(torch.zeros(4, 3), torch.zeros(5, 3))


def test_procrustes_removes_position_and_rotation_only() -> None:
    scans = make_scans()
    moved = scans @ euler_to_matrix(0.5 * random(30, 3, seed=5)).transpose(1, 2) + 50 * random(30, 1, 3, seed=6)
    result = build.procrustes(moved, scans.mean(dim=0))
    assert result.changes[-1] < 1e-6
    assert len(result.changes) < 20
    torch.testing.assert_close(result.mean, result.scans.mean(dim=0))
    # Distances within a face are untouched, and no further turn brings a scan closer to the mean.
    torch.testing.assert_close(torch.pdist(result.scans[3]), torch.pdist(scans[3]))
    again = build.align(result.scans, result.mean)
    eye = torch.eye(3, dtype=torch.float64).expand(30, 3, 3)
    torch.testing.assert_close(again.rotation, eye, atol=1e-6, rtol=0)


def test_procrustes_with_scale_removes_size() -> None:
    face = random(40, 3)
    scans = face * torch.linspace(0.8, 1.2, 6, dtype=torch.float64)[:, None, None]
    result = build.procrustes(scans, face, with_scale=True)
    torch.testing.assert_close(
        result.scans, face.expand(6, -1, -1) - face.mean(0) + result.mean.mean(0), atol=1e-5, rtol=0
    )


def test_principal_components_equal_a_plain_svd() -> None:
    scans = make_scans()
    components = build.principal_components(scans)
    centred = (scans - scans.mean(dim=0)).flatten(1)
    _, singular, directions = torch.linalg.svd(centred, full_matrices=False)
    assert components.std.numel() == 4  # the rank, not the number of scans
    torch.testing.assert_close(components.std, singular[:4] / 29**0.5)
    cosine = (components.basis.flatten(0, 1).T / components.std[:, None] * directions[:4]).sum(dim=1)
    torch.testing.assert_close(cosine.abs(), torch.ones(4, dtype=torch.float64))
    coefficients = components.coefficients(scans)
    torch.testing.assert_close(coefficients.std(dim=0), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(components.reconstruct(coefficients), scans)


def test_principal_components_name_what_is_wrong() -> None:
    with pytest.raises(ValueRangeError, match="num_components: found 9; expected 1 to 4"):
        build.principal_components(make_scans(), 9)
    with pytest.raises(ShapeError, match="at least 2"):
        build.principal_components(make_scans()[:1])
    with pytest.raises(ValueRangeError, match="scans: found"):
        build.principal_components(make_scans() * float("nan"))


def test_compactness_by_hand() -> None:
    components = build.principal_components(make_scans())
    curve = build.compactness(components)
    variance = components.std.square()
    torch.testing.assert_close(curve[0], variance[0] / variance.sum())
    torch.testing.assert_close(curve[-1], torch.ones((), dtype=torch.float64))
    assert bool((curve.diff() > 0).all())


def test_generalisation_equals_a_naive_loop() -> None:
    scans = make_scans(num=8, rank=3)
    errors = []
    for left_out in range(8):
        others = torch.cat([scans[:left_out], scans[left_out + 1 :]])
        components = build.principal_components(others)
        coefficients = components.coefficients(scans[left_out : left_out + 1])[:, :2]
        difference = components.reconstruct(coefficients) - scans[left_out]
        errors.append(difference.norm(dim=-1).square().mean().sqrt())
    found = build.generalisation(scans, [2, 3])
    torch.testing.assert_close(found[0], torch.stack(errors).mean())
    assert float(found[1]) < 1e-9  # rank 3 data, 3 components: the unseen face is in the span
    with pytest.raises(ValueRangeError, match="expected values from 1 to 6"):
        build.generalisation(scans, [7])


def test_specificity_is_small_for_what_was_seen_and_grows_with_freedom() -> None:
    scans = make_scans(num=200)
    components = build.principal_components(scans)
    curve = build.specificity(components, scans, [1, 2, 4], generator=torch.Generator().manual_seed(0))
    assert bool((curve > 0).all())
    dull = components._replace(basis=components.basis * 0)
    nearest = (scans - scans.mean(0)).square().sum(dim=-1).mean(dim=-1).sqrt().min()
    torch.testing.assert_close(build.specificity(dull, scans, [1])[0], nearest)
    with pytest.raises(ValueRangeError, match="counts"):
        build.specificity(components, scans, [5])
