"""Sums over all vertices of a face model in closed form, without decoding them.

The face is linear in ``a = (1, shape, expression)``: coordinate j of vertex i is ``S_ij = sum_k Phi_ijk a_k``, where
k = 0 is the mean face. The sum over vertices of the square of anything linear in S is therefore a quadratic form, whose
matrix holds inner products of the basis with itself. The matrices are computed once; after that, the cost does not
depend on the number of vertices. See chapter 9.
"""

from __future__ import annotations

import torch
from torch import nn

from twodasl_lite.base.checks import check_choice, check_indices
from twodasl_lite.base.errors import ShapeError
from twodasl_lite.faces.model import MorphableModel


def _selected(model: MorphableModel, vertices: torch.Tensor | str | None) -> torch.Tensor:
    """Mean and components of the selected vertices, ``(N, 3, 1 + K)``, in double precision."""
    everything = torch.cat([model.mean[..., None], model.basis], dim=-1).detach()
    if isinstance(vertices, str):
        check_choice("vertices", vertices, model.regions)
        vertices = model.regions[vertices]
    if vertices is not None:
        vertices = check_indices("vertices", vertices, model.num_vertices, ("N",), everything.device)
        if not len(vertices):
            raise ShapeError("vertices: found none; expected at least one")
        everything = everything[vertices]
    return everything.double()


def _root(gram: torch.Tensor) -> torch.Tensor:
    """``L`` with ``L L^T = gram`` for a positive semidefinite matrix (or a batch), for which Cholesky may fail."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]


class VertexMoments(nn.Module):
    """Second moments of a face model's vertices.

    Args:
        model: The face model.
        vertices: Vertices to use: indices ``(N,)``, the name of one of the model's regions, or by default all.

    Attributes:
        count: Number of selected vertices, N.

    Raises:
        ValueRangeError: If the model has no such vertex or region.
    """

    centroid: torch.Tensor
    spread_root: torch.Tensor
    coordinate_root: torch.Tensor
    component_gram: torch.Tensor

    def __init__(self, model: MorphableModel, vertices: torch.Tensor | str | None = None) -> None:
        super().__init__()
        phi = _selected(model, vertices)  # (N, 3, 1 + K)
        self.count = phi.shape[0]
        centroid = phi.mean(dim=0)  # (3, 1 + K)
        flat = (phi - centroid).flatten(1)  # (N, 3 (1 + K))
        coordinates = torch.einsum("njk,njl->jkl", phi, phi)  # (3, 1 + K, 1 + K)
        components = torch.einsum("nik,njk->kij", phi[..., 1:], phi[..., 1:])  # (K, 3, 3)
        for name, value in (
            ("centroid", centroid),
            ("spread_root", _root(flat.T @ flat)),
            ("coordinate_root", _root(coordinates)),
            ("component_gram", components),
        ):
            self.register_buffer(name, value.to(model.mean.dtype), persistent=False)

    def coordinate_norms(self, weights: torch.Tensor) -> torch.Tensor:
        """Norm of each coordinate as a vector over all vertices, ``sqrt(sum_i S_ij^2)``.

        Args:
            weights: 1, then shape and expression coefficients, ``(B, 1 + K)``.

        Returns:
            Norms ``(B, 3)`` in the model's unit.
        """
        return torch.einsum("bk,jkl->bjl", weights, self.coordinate_root).norm(dim=-1)

    def component_norms(self, linear: torch.Tensor) -> torch.Tensor:
        """Displacement of all vertices per unit of each coefficient: the Frobenius norms of ``A_k M^T``.

        Args:
            linear: Linear part M of the pose, ``(B, 3, 3)``.

        Returns:
            Norms ``(B, K)`` in pixels per unit of the coefficient.
        """
        square = linear.transpose(-1, -2) @ linear  # (B, 3, 3)
        return torch.einsum("bij,kij->bk", square, self.component_gram).clamp(min=0).sqrt()

    def mean_square(self, tensor: torch.Tensor, shift: torch.Tensor, depth: bool = False) -> torch.Tensor:
        """Mean over vertices of ``|Q Phi_i + t|^2``, a vector field that is linear in the basis.

        Args:
            tensor: Linear map Q from (coordinate, component) to a displacement, row by row, ``(B, 3, 3, 1 + K)``.
            shift: Translation t, ``(B, 3)``.
            depth: Whether to include the mean displacement in depth; otherwise depths are centred first.

        Returns:
            Mean squares ``(B,)``.
        """
        spread = tensor.flatten(2) @ self.spread_root  # (B, 3, 3 (1 + K)): as if there were only that many vertices
        middle = torch.einsum("brjk,jk->br", tensor, self.centroid) + shift  # (B, 3)
        if not depth:
            middle = middle[:, :2]
        return spread.square().sum(dim=(-1, -2)) / self.count + middle.square().sum(dim=-1)
