"""Building a morphable model from scans: alignment, principal components, and how good the result is.

Scans are faces in dense correspondence: vertex i is the same point of the face in each of them. The steps are those
of the Basel Face Model (Paysan et al. 2009): remove position and rotation by Procrustes alignment, then keep the
principal components of what is left. See chapter 2.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.faces.signs import stable_signs


# ----------------------------------------------------------------------------------------------------- alignment
class Similarity(NamedTuple):
    """A similarity transform ``x -> scale * R x + t`` of points in rows.

    Attributes:
        scale: ``(...)`` scale factor.
        rotation: ``(..., 3, 3)`` rotation matrix.
        translation: ``(..., 3)`` shift in the target's unit.
    """

    scale: torch.Tensor
    rotation: torch.Tensor
    translation: torch.Tensor

    def apply(self, points: torch.Tensor) -> torch.Tensor:
        """Transform points ``(..., N, 3)``."""
        turned = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * turned + self.translation[..., None, :]


def align(source: torch.Tensor, target: torch.Tensor, *, with_scale: bool = False) -> Similarity:
    """Least-squares rigid (or similarity) transform of corresponding points (Kabsch 1976, Umeyama 1991).

    Args:
        source: ``(..., N, 3)`` points to move.
        target: ``(..., N, 3)`` where they should go; leading dimensions are broadcast.
        with_scale: Whether a change of size is allowed.

    Returns:
        The transform that brings ``source`` closest to ``target``; never a reflection.

    Raises:
        ShapeError: If the numbers of points differ or there are fewer than three.
    """
    source = check_tensor("source", source, ("...", "N", 3))
    target = check_tensor("target", target, ("...", source.shape[-2], 3), dtype=source.dtype)
    if source.shape[-2] < 3:
        raise ShapeError(f"source: found {source.shape[-2]} points; expected at least 3 to fix a rotation")
    centre_source, centre_target = source.mean(dim=-2), target.mean(dim=-2)
    a, b = source - centre_source[..., None, :], target - centre_target[..., None, :]
    u, singular, vt = torch.linalg.svd(b.transpose(-1, -2) @ a)  # (..., 3, 3)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.sign(torch.linalg.det(u @ vt))  # a proper rotation, not a mirror image
    rotation = (u * sign[..., None, :]) @ vt
    if with_scale:
        scale = (singular * sign).sum(dim=-1) / a.square().sum(dim=(-1, -2))
    else:
        scale = torch.ones_like(singular[..., 0])
    moved = scale[..., None] * (rotation @ centre_source[..., None]).squeeze(-1)
    return Similarity(scale, rotation, centre_target - moved)


class ProcrustesResult(NamedTuple):
    """Aligned scans.

    Attributes:
        scans: ``(N, V, 3)`` in the frame of the reference.
        mean: ``(V, 3)`` their average.
        changes: Root-mean-square change of the mean per round, in the scans' unit; the last one shows convergence.
    """

    scans: torch.Tensor
    mean: torch.Tensor
    changes: list[float]


def procrustes(
    scans: torch.Tensor,
    reference: torch.Tensor | None = None,
    *,
    with_scale: bool = False,
    max_rounds: int = 20,
    tolerance: float = 1e-6,
) -> ProcrustesResult:
    """Generalised Procrustes alignment (Gower 1975): align all scans to their mean until the mean converges.

    Args:
        scans: ``(N, V, 3)`` in correspondence.
        reference: ``(V, 3)`` face whose frame the result keeps; the first scan by default.
        with_scale: Whether size is removed too. Faces differ in size, and the Basel Face Model keeps that.
        max_rounds: Largest number of rounds.
        tolerance: Stop when the mean moves less than this, in the scans' unit (root mean square).

    Returns:
        Aligned scans, their mean, and how it converged.

    Raises:
        ShapeError: If there are fewer than two scans.
    """
    scans = check_tensor("scans", scans, ("N", "V", 3))
    if scans.shape[0] < 2:
        raise ShapeError(f"scans: found {scans.shape[0]}; expected at least 2")
    reference = scans[0] if reference is None else reference
    reference = check_tensor("reference", reference, (scans.shape[1], 3), dtype=scans.dtype)
    mean, aligned, changes = reference, scans, []
    for _ in range(max_rounds):
        aligned = align(aligned, mean, with_scale=with_scale).apply(aligned)
        average = aligned.mean(dim=0)
        # Without this the mean would drift (and shrink, when scale is free) from round to round.
        average = align(average, reference, with_scale=with_scale).apply(average)
        changes.append(float((average - mean).square().sum(dim=-1).mean().sqrt()))
        mean = average
        if changes[-1] < tolerance:
            break
    aligned = align(aligned, mean, with_scale=with_scale).apply(aligned)
    return ProcrustesResult(aligned, aligned.mean(dim=0), changes)


# ---------------------------------------------------------------------------------------------------------- PCA
class PrincipalComponents(NamedTuple):
    """Principal components of a set of scans.

    Attributes:
        mean: ``(V, 3)`` mean face.
        basis: ``(V, 3, K)``, each component scaled by its standard deviation (sigma-scaled), largest first.
        std: ``(K,)`` standard deviation along each unit-length direction; ``basis[..., k]`` has norm ``std[k]``.
        total_variance: Variance of all components together, including those that are not kept.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    std: torch.Tensor
    total_variance: float

    def coefficients(self, scans: torch.Tensor) -> torch.Tensor:
        """Project scans ``(N, V, 3)`` to sigma-scaled coefficients ``(N, K)``."""
        flat = (scans - self.mean).flatten(1)  # (N, 3V)
        return flat @ self.basis.flatten(0, 1) / self.std.square()

    def reconstruct(self, coefficients: torch.Tensor) -> torch.Tensor:
        """Faces ``(N, V, 3)`` from coefficients ``(N, k)``, k <= K: the first k components are used."""
        count = coefficients.shape[-1]
        flat = coefficients @ self.basis[..., :count].flatten(0, 1).T
        return self.mean + flat.unflatten(-1, (-1, 3))


def principal_components(scans: torch.Tensor, num_components: int | None = None) -> PrincipalComponents:
    """Principal component analysis of aligned scans.

    With N scans of V vertices, N much smaller than 3V, the N x N matrix of inner products has the same nonzero
    eigenvalues as the 3V x 3V covariance and is cheap to decompose (Sirovich and Kirby 1987).

    Args:
        scans: ``(N, V, 3)`` aligned scans.
        num_components: Number of components to keep; all with variance (at most N - 1) by default.

    Returns:
        The components, sigma-scaled: coefficients of the scans have variance 1. The sign of an eigenvector is
        arbitrary; see :func:`~twodasl_lite.faces.signs.stable_signs`.

    Raises:
        ShapeError: If there are fewer than two scans.
        ValueRangeError: If more components are asked for than the scans span.
    """
    scans = check_tensor("scans", scans, ("N", "V", 3))
    num = scans.shape[0]
    if num < 2:
        raise ShapeError(f"scans: found {num}; expected at least 2")
    mean = scans.mean(dim=0)
    centred = (scans - mean).flatten(1)  # (N, 3V)
    variance, vectors = torch.linalg.eigh(centred @ centred.T / (num - 1))
    variance, vectors = variance.flip(0), vectors.flip(1)  # largest first
    rank = int((variance > variance[0].clamp(min=torch.finfo(scans.dtype).tiny) * 1e-10).sum())
    rank = min(rank, num - 1)
    keep = rank if num_components is None else num_components
    if not 0 < keep <= rank:
        raise ValueRangeError(f"num_components: found {keep}; expected 1 to {rank}, the rank of {num} scans")
    std = variance[:keep].sqrt()
    directions = centred.T @ vectors[:, :keep] / (std * (num - 1) ** 0.5)  # (3V, K), unit length
    basis = (directions * stable_signs(directions) * std).unflatten(0, (-1, 3))
    return PrincipalComponents(mean, basis, std, float(variance.clamp(min=0).sum()))


# ------------------------------------------------------------------------------------- the three quality curves
def compactness(components: PrincipalComponents) -> torch.Tensor:
    """Share of the variance that the first k components explain, k = 1..K (Styner et al. 2003).

    Returns:
        ``(K,)`` increasing to at most 1.
    """
    return components.std.square().cumsum(dim=0) / components.total_variance


def generalisation(scans: torch.Tensor, counts: list[int], *, folds: int | None = None) -> torch.Tensor:
    """How well a model of the other scans describes a scan it has not seen (Styner et al. 2003).

    Args:
        scans: ``(N, V, 3)`` aligned scans.
        counts: Numbers of components to try, each at most the smallest training set minus one.
        folds: Number of groups left out in turn; one scan at a time by default.

    Returns:
        ``(len(counts),)`` mean over the scans of the root-mean-square distance between corresponding vertices, in the
        scans' unit; the same distance as in :func:`specificity`.

    Raises:
        ValueRangeError: If a count or the number of folds is out of range.
    """
    scans = check_tensor("scans", scans, ("N", "V", 3))
    num = scans.shape[0]
    folds = num if folds is None else folds
    if not 2 <= folds <= num:
        raise ValueRangeError(f"folds: found {folds}; expected 2 to {num}, the number of scans")
    limit = num - -(-num // folds) - 1
    if not counts or min(counts) < 1 or max(counts) > limit:
        raise ValueRangeError(f"counts: found {counts}; expected values from 1 to {limit}")
    errors = torch.zeros(len(counts), dtype=scans.dtype, device=scans.device)
    for fold in range(folds):
        left_out = torch.arange(num, device=scans.device) % folds == fold
        components = principal_components(scans[~left_out])
        unseen = scans[left_out]
        coefficients = components.coefficients(unseen)
        for position, count in enumerate(counts):
            rebuilt = components.reconstruct(coefficients[:, :count])
            errors[position] += (rebuilt - unseen).square().sum(dim=-1).mean(dim=-1).sqrt().sum()
    return errors / num


def specificity(
    components: PrincipalComponents,
    scans: torch.Tensor,
    counts: list[int],
    *,
    num_samples: int = 200,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """How far random faces of the model are from the nearest real one (Styner et al. 2003).

    Args:
        components: The model.
        scans: ``(N, V, 3)`` aligned scans, the real faces.
        counts: Numbers of components to try.
        num_samples: Random faces per count.
        generator: Source of randomness; the global one by default.

    Returns:
        ``(len(counts),)`` mean over the samples of the root-mean-square vertex distance to the nearest scan, in the
        scans' unit.

    Raises:
        ValueRangeError: If a count is out of range.
    """
    scans = check_tensor("scans", scans, ("N", "V", 3))
    available = components.std.numel()
    if not counts or min(counts) < 1 or max(counts) > available:
        raise ValueRangeError(f"counts: found {counts}; expected values from 1 to {available}")
    draws = torch.randn(num_samples, available, generator=generator).to(scans)
    results = []
    for count in counts:
        faces = components.reconstruct(draws[:, :count]).flatten(1)  # (S, 3V)
        distance = torch.cdist(faces, scans.flatten(1))  # (S, N)
        results.append(distance.min(dim=1).values.mean() / scans.shape[1] ** 0.5)
    return torch.stack(results)
