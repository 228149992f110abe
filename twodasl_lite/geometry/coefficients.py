"""The 62 numbers that describe a face in a picture, as a named structure.

The regressor's target (Tu et al. 2019, section 3.1; the layout is 3DDFA's, Zhu et al. 2016) is one vector ::

    c = [ pose: the 3x4 matrix [f R | t], row-major (12) | shape (40) | expression (10) ]

Shape and expression are in the units of the morphable model's own coefficients, the pose maps model units to crop
pixels (see :mod:`twodasl_lite.geometry.camera`). The entries differ in size by orders of magnitude, so networks learn
them *whitened*: each minus its mean, divided by its standard deviation. See chapter 3.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import torch

from twodasl_lite.base.archive import read_archive, write_archive
from twodasl_lite.base.checks import check_finite, check_shape, check_tensor
from twodasl_lite.base.errors import ShapeError, ValueRangeError

POSE_SHAPE = (3, 4)
POSE_SIZE = POSE_SHAPE[0] * POSE_SHAPE[1]
NUM_SHAPE = 40
NUM_EXPRESSION = 10

_WHITENING_FORMAT = "twodasl_lite.whitening"
_WHITENING_VERSION = 1


@dataclass(frozen=True)
class CoefficientLayout:
    """Numbers of shape and expression coefficients in a coefficient vector.

    Attributes:
        num_shape: Number of shape coefficients (40 in the paper, 199 in the full Basel Face Model).
        num_expression: Number of expression coefficients (10 in the paper, 29 in full).
    """

    num_shape: int = NUM_SHAPE
    num_expression: int = NUM_EXPRESSION

    def __post_init__(self) -> None:
        for name in ("num_shape", "num_expression"):
            if getattr(self, name) < 0:
                raise ValueRangeError(f"{name}: found {getattr(self, name)}; expected 0 or more")

    @property
    def size(self) -> int:
        """Length of the vector: 12 + shape + expression."""
        return POSE_SIZE + self.num_shape + self.num_expression

    @property
    def names(self) -> list[str]:
        """A name for each entry: ``pose[r,c]``, ``shape[k]``, ``expression[k]``."""
        rows, columns = POSE_SHAPE
        return (
            [f"pose[{r},{c}]" for r in range(rows) for c in range(columns)]
            + [f"shape[{k}]" for k in range(self.num_shape)]
            + [f"expression[{k}]" for k in range(self.num_expression)]
        )


class Coefficients(NamedTuple):
    """Coefficients of a batch of faces in pictures.

    Attributes:
        pose: ``[f R | t]``, shape ``(..., 3, 4)``: maps model units to crop pixels.
        shape: Shape coefficients ``(..., Ks)``, in the model's units.
        expression: Expression coefficients ``(..., Ke)``, in the model's units.

    Example:
        >>> face = Coefficients(torch.zeros(3, 4), torch.zeros(40), torch.zeros(10))
        >>> face.pack().shape
        torch.Size([62])
    """

    pose: torch.Tensor
    shape: torch.Tensor
    expression: torch.Tensor

    @property
    def layout(self) -> CoefficientLayout:
        """The sizes of the parts."""
        return CoefficientLayout(self.shape.shape[-1], self.expression.shape[-1])

    def pack(self) -> torch.Tensor:
        """Concatenate the parts.

        Returns:
            Vector ``(..., 12 + Ks + Ke)``.

        Raises:
            ShapeError: If the parts' leading dimensions differ or the pose is not 3x4.
        """
        check_shape("pose", self.pose, ("...", *POSE_SHAPE))
        leading = self.pose.shape[:-2]
        for name, part in (("shape", self.shape), ("expression", self.expression)):
            if part.shape[:-1] != leading:
                raise ShapeError(
                    f"{name}: found leading dimensions {tuple(part.shape[:-1])}; expected the pose's {tuple(leading)}"
                )
        return torch.cat([self.pose.flatten(-2), self.shape, self.expression], dim=-1)  # (..., 62)

    @classmethod
    def unpack(cls, vector: torch.Tensor, layout: CoefficientLayout | None = None) -> Coefficients:
        """Split a vector into its named parts (views, no copy).

        Args:
            vector: Packed coefficients, ``(..., layout.size)``.
            layout: Sizes of the parts; by default the paper's 40 and 10.

        Raises:
            ShapeError: If the last dimension is not the layout's size.
        """
        layout = layout or CoefficientLayout()
        vector = check_tensor("vector", vector, ("...", layout.size), finite=False)
        pose, shape, expression = vector.split([POSE_SIZE, layout.num_shape, layout.num_expression], dim=-1)
        return cls(pose.unflatten(-1, POSE_SHAPE), shape, expression)

    def to(self, *args, **kwargs) -> Coefficients:
        """Move or cast every part, as :meth:`torch.Tensor.to` does."""
        return Coefficients(*(part.to(*args, **kwargs) for part in self))


class Whitening:
    """Mean and standard deviation of each coefficient; converts between raw and whitened vectors.

    Args:
        mean: Mean of each raw coefficient, ``(D,)``.
        std: Standard deviation of each, ``(D,)``, above zero.

    Raises:
        ShapeError: If the two are not vectors of the same length.
        ValueRangeError: If a value is not finite or a standard deviation not positive.

    Example:
        >>> whitening = Whitening(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 4.0]))
        >>> whitening.whiten(torch.tensor([2.0, 2.0]))
        tensor([2., 0.])
    """

    def __init__(self, mean: torch.Tensor, std: torch.Tensor) -> None:
        self.mean = check_tensor("mean", mean, ("D",))
        self.std = check_tensor("std", std, (self.mean.shape[0],))
        if bool((self.std <= 0).any()):
            worst = int(self.std.argmin())
            raise ValueRangeError(f"std: found {float(self.std[worst])} at index {worst}; expected all above zero")

    @classmethod
    def from_samples(cls, samples: torch.Tensor, floor: float = 1e-8) -> Whitening:
        """Estimate mean and standard deviation from raw coefficient vectors.

        Args:
            samples: Raw coefficient vectors, ``(N, D)``, at least two.
            floor: Standard deviations of at most ``floor`` times the magnitude of the entry's mean, or at most
                ``floor`` itself, become 1: a constant coefficient whitens to zero instead of dividing by zero.
        """
        samples = check_tensor("samples", samples, ("N", "D"))
        if samples.shape[0] < 2:
            raise ShapeError(f"samples: found {samples.shape[0]} vectors; expected at least 2 for a standard deviation")
        wide = samples.double()
        mean, std = wide.mean(dim=0), wide.std(dim=0)
        constant = std <= floor * mean.abs().clamp(min=1.0)
        std = torch.where(constant, torch.ones_like(std), std)
        return cls(mean.to(samples.dtype), std.to(samples.dtype))

    def _checked(self, name: str, vector: torch.Tensor) -> torch.Tensor:
        return check_tensor(name, vector, ("...", self.mean.shape[0]), finite=False)

    def whiten(self, vector: torch.Tensor) -> torch.Tensor:
        """Convert raw ``(..., D)`` to whitened ``(..., D)``: ``(c - mean) / std``."""
        vector = self._checked("vector", vector)
        return (vector - self.mean.to(vector)) / self.std.to(vector)

    def unwhiten(self, vector: torch.Tensor) -> torch.Tensor:
        """Convert whitened ``(..., D)`` back to raw ``(..., D)``."""
        vector = self._checked("vector", vector)
        return vector * self.std.to(vector) + self.mean.to(vector)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file, whole or not at all."""
        write_archive(path, _WHITENING_FORMAT, _WHITENING_VERSION, {"mean": self.mean, "std": self.std})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Whitening:
        """Read a file written by :meth:`save`.

        Raises:
            FileFormatError: If the file is missing, damaged, of another format or version, or holds a pickle.
        """
        arrays, _ = read_archive(path, _WHITENING_FORMAT, _WHITENING_VERSION, required=("mean", "std"))
        for name, array in arrays.items():
            check_finite(f"{os.fspath(path)}: {name}", array)
        return cls(arrays["mean"], arrays["std"])
