"""A source of small, quick, numbered pictures for the tests of streams and shards."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.worlds.draws import Draws


@dataclass
class NumberedFaces:
    """Pictures that are noise, with labels that are noise too; ``yaw`` is the picture's number.

    Attributes:
        seed: Of the noise.
        truth: Whether labels come along.
        pause: Seconds per picture.
        fail_at: Number of a picture that cannot be drawn.
    """

    seed: int = 0
    truth: bool = True
    pause: float = 0.0
    fail_at: int | None = None

    def describe(self) -> dict[str, object]:
        return {"kind": "numbered", "seed": self.seed, "truth": self.truth}

    def batch(self, start: int, count: int, *, truth: bool | None = None) -> FaceBatch:
        time.sleep(self.pause * count)
        if self.fail_at is not None and start <= self.fail_at < start + count:
            raise ArithmeticError(f"picture {self.fail_at}")
        draws = Draws(self.seed, torch.arange(start, start + count))
        seen = draws.uniform("seen", 18) < 0.9
        batch = FaceBatch(
            (255 * draws.uniform("image", 3, 120, 120)).byte(),
            torch.where(seen[..., None], 120 * draws.uniform("detected", 18, 2), torch.nan),
            seen,
            120 * draws.uniform("landmarks", 68, 3),
            draws.uniform("visible", 68) < 0.7,
            draws.normal("coefficients", 62),
            torch.arange(start, start + count).float(),
        )
        return batch if (self.truth if truth is None else truth) else batch.without_truth()


def numbers(batch: FaceBatch) -> list[int]:
    """Which pictures are in a batch."""
    return [int(value) for value in batch.yaw]


def assert_same(found: FaceBatch, expected: FaceBatch, atol: float = 0.0) -> None:
    """Equal, NaN included; to the bit, unless numbers were computed in batches of another size."""
    for name, one, other in zip(FaceBatch._fields, found, expected, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            torch.testing.assert_close(one, other, rtol=0, atol=atol, equal_nan=True)
