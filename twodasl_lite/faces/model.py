"""The morphable model: a face as a mean plus weighted deformations.

::

    S(shape, expression) = mean + sum_k shape_k A_k + sum_k expression_k E_k        (Blanz & Vetter 1999;
                                                                                   Tu et al. 2019, eq. 1)

Frame: x to the viewer's right, y up, z towards the viewer, in :attr:`MorphableModel.units`. Vertices are rows of a
``(V, 3)`` array, so a basis of K components is ``(V, 3, K)``. Coefficients are in the model's own units; divided by
``shape_std`` and ``expression_std`` they are in standard deviations. The embedded model and other sigma-scaled models
have standard deviations of 1; models with raw coefficients, such as 3DDFA's Basel Face Model, do not.
See chapters 1 and 2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

from twodasl_lite.base.archive import read_archive, write_archive
from twodasl_lite.base.checks import check_indices, check_tensor
from twodasl_lite.base.errors import FileFormatError, ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.faces.activations import plausible_activations
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

ExpressionKind = Literal["components", "blendshapes"]

_FORMAT = "twodasl_lite.morphable_model"
_VERSION = 1
_ARRAYS = ("mean", "basis", "coefficient_std", "triangles", "landmarks")
_ALBEDO_ARRAYS = ("albedo_mean", "albedo_basis", "albedo_std")
_ARGUMENTS = (
    *("mean", "shape_basis", "expression_basis", "triangles", "landmarks", "shape_std", "expression_std"),
    *_ALBEDO_ARRAYS,
    *("regions", "expression_names", "expression_kind", "name", "units", "license", "source"),
)
"""Names of the arguments that make a model."""
_REGION_PREFIX = "region."


class MorphableModel(nn.Module):
    """A linear 3D morphable face model.

    Args:
        mean: ``(V, 3)`` the average face.
        shape_basis: ``(V, 3, Ks)`` identity components.
        expression_basis: ``(V, 3, Ke)`` expression components.
        triangles: ``(T, 3)`` vertex indices, counter-clockwise seen from outside.
        landmarks: ``(68,)`` vertex indices in iBUG order (:mod:`twodasl_lite.geometry.landmarks`).
        shape_std: ``(Ks,)`` standard deviation of each shape coefficient over people; 1 by default.
        expression_std: ``(Ke,)`` standard deviation of each expression coefficient; 1 by default.
        albedo_mean: ``(V, 3)`` average skin colour, sRGB in [0, 1].
        albedo_basis: ``(V, 3, Ka)`` colour components.
        albedo_std: ``(Ka,)`` their standard deviations; 1 by default.
        regions: Named sets of vertex indices, for instance ``"face"``.
        expression_names: A name for each expression component.
        expression_kind: ``"components"``: symmetric about zero, as principal components are; ``"blendshapes"``:
            activations from 0 (off) to 1 (full).
        name: Name of the model.
        units: Unit of length.
        license: Licence of the data.
        source: Origin of the model, for people to read.

    Raises:
        ShapeError: If shapes do not fit together.
        ValueRangeError: If a value is NaN or infinite or an index out of range.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    coefficient_std: torch.Tensor
    triangles: torch.Tensor
    landmarks: torch.Tensor
    albedo_mean: torch.Tensor | None
    albedo_basis: torch.Tensor | None
    albedo_std: torch.Tensor | None

    def __init__(
        self,
        mean: torch.Tensor,
        shape_basis: torch.Tensor,
        expression_basis: torch.Tensor,
        triangles: torch.Tensor,
        landmarks: torch.Tensor,
        *,
        shape_std: torch.Tensor | None = None,
        expression_std: torch.Tensor | None = None,
        albedo_mean: torch.Tensor | None = None,
        albedo_basis: torch.Tensor | None = None,
        albedo_std: torch.Tensor | None = None,
        regions: Mapping[str, torch.Tensor] | None = None,
        expression_names: Sequence[str] | None = None,
        expression_kind: ExpressionKind = "components",
        name: str = "unnamed",
        units: str = "mm",
        license: str = "",
        source: str = "",
    ) -> None:
        super().__init__()
        mean = check_tensor("mean", mean, ("V", 3))
        vertices, dtype = mean.shape[0], mean.dtype
        shape_basis = check_tensor("shape_basis", shape_basis, (vertices, 3, "Ks"), dtype=dtype)
        expression_basis = check_tensor("expression_basis", expression_basis, (vertices, 3, "Ke"), dtype=dtype)
        self.num_shape, self.num_expression = shape_basis.shape[-1], expression_basis.shape[-1]
        deviations = []
        for label, std, count in (
            ("shape_std", shape_std, self.num_shape),
            ("expression_std", expression_std, self.num_expression),
        ):
            std = torch.ones(count, dtype=dtype) if std is None else check_tensor(label, std, (count,), dtype=dtype)
            if bool((std <= 0).any()):
                raise ValueRangeError(f"{label}: found {float(std.min())}; expected all above zero")
            deviations.append(std)
        if expression_kind not in ("components", "blendshapes"):
            raise ValueRangeError(f"expression_kind: found {expression_kind!r}; expected 'components' or 'blendshapes'")
        names = list(expression_names or [f"expression {k}" for k in range(self.num_expression)])
        if len(names) != self.num_expression:
            raise ShapeError(f"expression_names: found {len(names)}; expected {self.num_expression}")

        # One matrix for both kinds of coefficient: decoding is then a single matrix product.
        self.register_buffer("mean", mean.contiguous())
        self.register_buffer("basis", torch.cat([shape_basis, expression_basis], dim=-1).contiguous())
        self.register_buffer("coefficient_std", torch.cat(deviations))
        self.register_buffer("triangles", check_indices("triangles", triangles, vertices, ("T", 3)))
        self.register_buffer("landmarks", check_indices("landmarks", landmarks, vertices, (NUM_LANDMARKS,)))
        self.register_buffer("_landmark_mean", self.mean[self.landmarks], persistent=False)
        self.register_buffer("_landmark_basis", self.basis[self.landmarks], persistent=False)

        if (albedo_mean is None) != (albedo_basis is None):
            raise ShapeError("albedo: found only one of albedo_mean and albedo_basis; expected both or none")
        if albedo_mean is not None:
            albedo_mean = check_tensor("albedo_mean", albedo_mean, (vertices, 3), dtype=dtype)
            albedo_basis = check_tensor("albedo_basis", albedo_basis, (vertices, 3, "Ka"), dtype=dtype)
            count = albedo_basis.shape[-1]
            albedo_std = torch.ones(count, dtype=dtype) if albedo_std is None else albedo_std
            albedo_std = check_tensor("albedo_std", albedo_std, (count,), dtype=dtype)
        self.register_buffer("albedo_mean", albedo_mean)
        self.register_buffer("albedo_basis", albedo_basis)
        self.register_buffer("albedo_std", albedo_std if albedo_mean is not None else None)

        self._region_names = list(regions or {})
        for position, region in enumerate(self._region_names):
            index = check_indices(f"regions[{region!r}]", regions[region], vertices, ("N",))
            self.register_buffer(f"_region_{position}", index, persistent=False)
        self.expression_names = names
        self.expression_kind: ExpressionKind = expression_kind
        self.name, self.units, self.license, self.source = name, units, license, source

    # ------------------------------------------------------------------------------------------ what it is made of
    @property
    def num_vertices(self) -> int:
        """Number of vertices V."""
        return self.mean.shape[0]

    @property
    def num_triangles(self) -> int:
        """Number of triangles T."""
        return self.triangles.shape[0]

    @property
    def layout(self) -> CoefficientLayout:
        """Sizes of the coefficient vector that this model reads."""
        return CoefficientLayout(self.num_shape, self.num_expression)

    @property
    def shape_basis(self) -> torch.Tensor:
        """``(V, 3, Ks)`` identity components."""
        return self.basis[..., : self.num_shape]

    @property
    def expression_basis(self) -> torch.Tensor:
        """``(V, 3, Ke)`` expression components."""
        return self.basis[..., self.num_shape :]

    @property
    def shape_std(self) -> torch.Tensor:
        """``(Ks,)`` standard deviations of the shape coefficients."""
        return self.coefficient_std[: self.num_shape]

    @property
    def expression_std(self) -> torch.Tensor:
        """``(Ke,)`` standard deviations of the expression coefficients."""
        return self.coefficient_std[self.num_shape :]

    @property
    def regions(self) -> dict[str, torch.Tensor]:
        """Named sets of vertex indices."""
        return {name: getattr(self, f"_region_{i}") for i, name in enumerate(self._region_names)}

    def extra_repr(self) -> str:
        """One line about the model."""
        return (
            f"{self.name!r}, {self.num_vertices:,} vertices, {self.num_triangles:,} triangles, "
            f"{self.num_shape} shape + {self.num_expression} expression {self.expression_kind}, {self.units}"
        )

    # -------------------------------------------------------------------------------------------------- decoding
    def _weights(self, shape: torch.Tensor | None, expression: torch.Tensor | None) -> torch.Tensor:
        """Both kinds of coefficients in one ``(..., Ks + Ke)`` tensor; missing ones are zero."""
        parts, leading = [], []
        for name, value, count in (
            ("shape", shape, self.num_shape),
            ("expression", expression, self.num_expression),
        ):
            if value is None:
                value = self.mean.new_zeros(count)
            else:
                value = check_tensor(name, value, ("...", count), finite=False).to(self.mean)
                leading.append(value.shape[:-1])
            parts.append(value)
        try:
            batch = np.broadcast_shapes(*leading) if leading else (1,)  # torch's own imports sympy first: a second
        except ValueError as error:
            sizes = " and ".join(str(tuple(size)) for size in leading)
            raise ShapeError(f"shape and expression: found batches {sizes}; expected one size") from error
        return torch.cat([part.expand(*batch, -1) for part in parts], dim=-1)

    @staticmethod
    def _combine(mean: torch.Tensor, basis: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Mean ``(N, 3)`` plus basis ``(N, 3, K)`` times weights ``(..., K)``, in one product: ``(..., N, 3)``."""
        flat = torch.addmm(mean.flatten(), weights.reshape(-1, weights.shape[-1]), basis.flatten(0, 1).T)
        return flat.reshape(*weights.shape[:-1], *mean.shape)

    def decode(self, shape: torch.Tensor | None = None, expression: torch.Tensor | None = None) -> torch.Tensor:
        """Vertices of a batch of faces.

        Args:
            shape: ``(..., Ks)`` shape coefficients; the average face if omitted.
            expression: ``(..., Ke)`` expression coefficients; neutral if omitted.

        Returns:
            ``(..., V, 3)`` in the model frame; ``(1, V, 3)`` if both are omitted.

        Raises:
            ShapeError: If the number of coefficients is not the model's.
        """
        return self._combine(self.mean, self.basis, self._weights(shape, expression))

    def decode_landmarks(
        self, shape: torch.Tensor | None = None, expression: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The 68 landmarks alone, ``(..., 68, 3)``; computes no other vertex. Arguments as for :meth:`decode`."""
        return self._combine(self._landmark_mean, self._landmark_basis, self._weights(shape, expression))

    def decode_albedo(self, albedo: torch.Tensor | None = None) -> torch.Tensor:
        """Vertex colours of a batch of faces.

        Args:
            albedo: ``(..., Ka)`` colour coefficients; the average colours if omitted.

        Returns:
            ``(..., V, 3)`` sRGB, clamped to [0, 1]; ``(1, V, 3)`` if omitted.

        Raises:
            TwodaslError: If the model has no albedo.
        """
        if self.albedo_mean is None:
            raise TwodaslError(f"albedo: the model {self.name!r} has no colours; expected a model with albedo_mean")
        if albedo is None:
            return self.albedo_mean[None].clamp(0, 1)
        albedo = check_tensor("albedo", albedo, ("...", self.albedo_basis.shape[-1]), finite=False)
        return self._combine(self.albedo_mean, self.albedo_basis, albedo.to(self.mean)).clamp(0, 1)

    def forward(self, shape: torch.Tensor | None = None, expression: torch.Tensor | None = None) -> torch.Tensor:
        """Same as :meth:`decode`."""
        return self.decode(shape, expression)

    # -------------------------------------------------------------------------------------------------- variety
    def sample(
        self,
        num: int,
        *,
        generator: torch.Generator | None = None,
        clip: float = 2.0,
        expression: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw random faces.

        Args:
            num: Number of faces.
            generator: Source of randomness on the CPU; the global one by default.
            clip: Draws are clipped to this many standard deviations.
            expression: Whether faces also get a random expression; neutral otherwise.

        Returns:
            Shape ``(num, Ks)`` and expression ``(num, Ke)`` coefficients.
        """
        draws = torch.randn(num, self.num_shape + self.num_expression, generator=generator).clamp(-clip, clip)
        draws = draws.to(self.mean) * self.coefficient_std
        shape, active = draws[:, : self.num_shape], draws[:, self.num_shape :]
        if not expression:
            active = torch.zeros_like(active)
        elif self.expression_kind == "blendshapes":
            # A few muscles at a time, both sides mostly alike, never two that pull in opposite directions.
            spread = self.expression_std.float().cpu()
            active = plausible_activations(self.expression_names, spread, num, generator, clip).to(self.mean)
        return shape, active

    def sample_albedo(self, num: int, *, generator: torch.Generator | None = None, clip: float = 2.0) -> torch.Tensor:
        """Draw ``(num, Ka)`` colour coefficients; arguments as for :meth:`sample`."""
        if self.albedo_basis is None:
            raise TwodaslError(f"albedo: the model {self.name!r} has no colours; expected a model with albedo_mean")
        draws = torch.randn(num, self.albedo_basis.shape[-1], generator=generator).clamp(-clip, clip)
        return draws.to(self.mean) * self.albedo_std

    # ----------------------------------------------------------------------------------------------- other sizes
    def replace(self, **changes: object) -> MorphableModel:
        """A copy that differs in some parts, checked like any new model.

        Args:
            **changes: Parts that differ, named like the arguments of :class:`MorphableModel`.

        Example:
            >>> from twodasl_lite.faces import load_face_model
            >>> load_face_model().replace(name="mine").name
            'mine'
        """
        return MorphableModel(**{name: getattr(self, name) for name in _ARGUMENTS} | changes)

    def truncate(self, num_shape: int | None = None, num_expression: int | None = None) -> MorphableModel:
        """Keep the first components of each kind.

        Args:
            num_shape: Number of shape components; all if omitted.
            num_expression: Number of expression components; all if omitted.

        Raises:
            ValueRangeError: If more are asked for than there are.
        """
        wanted = []
        for label, count, available in (
            ("num_shape", num_shape, self.num_shape),
            ("num_expression", num_expression, self.num_expression),
        ):
            count = available if count is None else count
            if not 0 <= count <= available:
                raise ValueRangeError(f"{label}: found {count}; expected 0 to {available}, the model's own number")
            wanted.append(count)
        ks, ke = wanted
        return self.replace(
            shape_basis=self.shape_basis[..., :ks],
            expression_basis=self.expression_basis[..., :ke],
            shape_std=self.shape_std[:ks],
            expression_std=self.expression_std[:ke],
            expression_names=self.expression_names[:ke],
        )

    def reduce_expressions(self, num_expression: int, *, num_samples: int = 2000, seed: int = 0) -> MorphableModel:
        """Replace the expression blendshapes by their principal components.

        Random expressions are drawn from the model and the directions of largest energy about the *neutral* face are
        kept, so that a zero coefficient still means a neutral face.

        Args:
            num_expression: Number of components to keep.
            num_samples: Number of random expressions to draw.
            seed: Seed of the draw.

        Returns:
            A model with ``num_expression`` sigma-scaled expression components of kind ``"components"``.

        Raises:
            ValueRangeError: If more components are asked for than the model has expressions.
        """
        if not 0 < num_expression <= self.num_expression:
            raise ValueRangeError(f"num_expression: found {num_expression}; expected 1 to {self.num_expression}")
        generator = torch.Generator().manual_seed(seed)
        # Without its shape components, so that the draw does not depend on how many there are.
        _, activation = self.truncate(num_shape=0).sample(num_samples, generator=generator)
        # Work in the small space of activations: B = Q R, so the directions of B w are Q times those of R w.
        basis = self.expression_basis.flatten(0, 1).double()  # (3V, Ke)
        orthonormal, triangular = torch.linalg.qr(basis)
        points = activation.double() @ triangular.T  # (N, Ke)
        _, singular, directions = torch.linalg.svd(points, full_matrices=False)
        sigma = singular[:num_expression] / num_samples**0.5
        components = orthonormal @ directions[:num_expression].T * sigma  # (3V, n)
        # Signs of singular vectors are arbitrary; make the average plausible expression positive.
        sign = torch.sign((points @ directions[:num_expression].T).mean(dim=0))
        components = components * torch.where(sign == 0, torch.ones_like(sign), sign)
        return self.replace(
            expression_basis=components.unflatten(0, (-1, 3)).to(self.mean),
            expression_std=None,
            expression_names=[f"expression {k + 1}" for k in range(num_expression)],
            expression_kind="components",
        )

    def with_layout(self, layout: CoefficientLayout) -> MorphableModel:
        """The model reduced to the given numbers of coefficients, keeping those of largest energy.

        Shape components are ordered by energy and truncated; blendshapes, which are not, are reduced to principal
        components (:meth:`reduce_expressions`).
        """
        if (self.num_shape, self.num_expression) == (layout.num_shape, layout.num_expression):
            return self.replace()
        model = self.truncate(num_shape=layout.num_shape)
        if model.expression_kind == "blendshapes" and layout.num_expression < model.num_expression:
            return model.reduce_expressions(layout.num_expression)
        return model.truncate(num_expression=layout.num_expression)

    def subset(self, vertices: torch.Tensor) -> MorphableModel:
        """The model restricted to some of its vertices.

        Args:
            vertices: ``(N,)`` indices to keep, in the order wanted; must contain the 68 landmarks.

        Returns:
            A model with N vertices and those triangles that have all three corners among them.

        Raises:
            ValueRangeError: If a landmark is missing or a vertex is named twice.
        """
        keep = check_indices("vertices", vertices, self.num_vertices, ("N",)).to(self.mean.device)
        if keep.unique().numel() != keep.numel():
            raise ValueRangeError("vertices: found repeated indices; expected each vertex once")
        position = torch.full((self.num_vertices,), -1, dtype=torch.long, device=keep.device)
        position[keep] = torch.arange(keep.numel(), device=keep.device)
        missing = (position[self.landmarks] < 0).nonzero().flatten().tolist()
        if missing:
            raise ValueRangeError(f"vertices: found no vertex for landmarks {missing}; expected all 68")
        triangles = position[self.triangles]
        regions = {name: position[index] for name, index in self.regions.items()}
        colours = {}
        if self.albedo_mean is not None:
            colours = {"albedo_mean": self.albedo_mean[keep], "albedo_basis": self.albedo_basis[keep]}
        return self.replace(
            mean=self.mean[keep],
            shape_basis=self.shape_basis[keep],
            expression_basis=self.expression_basis[keep],
            triangles=triangles[(triangles >= 0).all(dim=1)],
            landmarks=position[self.landmarks],
            regions={name: i[i >= 0] for name, i in regions.items()},
            **colours,
        )

    # --------------------------------------------------------------------------------------------------- on disk
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one ``.npz`` of plain arrays, completely or not at all."""
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        if self.albedo_mean is not None:
            arrays |= {name: getattr(self, name) for name in _ALBEDO_ARRAYS}
        arrays |= {f"{_REGION_PREFIX}{name}": index for name, index in self.regions.items()}
        metadata = {
            "num_shape": self.num_shape,
            "expression_names": self.expression_names,
            "expression_kind": self.expression_kind,
            "name": self.name,
            "units": self.units,
            "license": self.license,
            "source": self.source,
        }
        write_archive(path, _FORMAT, _VERSION, arrays, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> MorphableModel:
        """Read a model written by :meth:`save`.

        Args:
            path: The file.
            device: Device for the model.

        Raises:
            FileFormatError: If the file is missing, truncated, of another kind or version, holds a pickle, or its
                arrays do not fit together.
        """
        arrays, metadata = read_archive(path, _FORMAT, _VERSION, required=_ARRAYS)
        try:
            num_shape = int(metadata.pop("num_shape"))
            model = cls(
                arrays["mean"],
                arrays["basis"][..., :num_shape],
                arrays["basis"][..., num_shape:],
                arrays["triangles"],
                arrays["landmarks"],
                shape_std=arrays["coefficient_std"][:num_shape],
                expression_std=arrays["coefficient_std"][num_shape:],
                **{name: arrays[name] for name in _ALBEDO_ARRAYS if name in arrays},
                regions={
                    name.removeprefix(_REGION_PREFIX): index
                    for name, index in arrays.items()
                    if name.startswith(_REGION_PREFIX)
                },
                **metadata,
            )
        except (TwodaslError, KeyError, IndexError, TypeError) as error:
            raise FileFormatError(path, f"arrays that do not fit together ({error})", "a whole model") from error
        return model.to(device)
