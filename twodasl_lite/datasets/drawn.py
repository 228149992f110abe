"""A synthetic world as a source of shards."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch

from twodasl_lite import __version__
from twodasl_lite.datasets.shards import fingerprint
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.worlds.synthetic import SyntheticFaces
from twodasl_lite.worlds.world import World


@dataclass
class DrawnFaces:
    """Pictures of a synthetic world, with everything that they depend on; can be sent to worker processes.

    Attributes:
        model: The face model.
        world: The world.
        seed: Seed of all randomness.
        truth: Whether the ground truth is kept.
        device: Device on which pictures are drawn. Different kinds of device round differently, so their pictures
            differ slightly.
    """

    model: MorphableModel
    world: World
    seed: int = 0
    truth: bool = True
    device: str = "cpu"
    _faces: SyntheticFaces | None = field(default=None, repr=False)

    def describe(self) -> dict[str, object]:
        """World, seed, truth, face model, kind of device and version of the package."""
        return {
            "world": dataclasses.asdict(self.world),
            "seed": self.seed,
            "truth": self.truth,
            "model": {"name": self.model.name, "sha256": fingerprint(self.model)},
            "device": torch.device(self.device).type,
            "version": __version__,
        }

    def batch(self, start: int, count: int) -> FaceBatch:
        """Pictures ``start`` to ``start + count - 1``."""
        if self._faces is None:
            self._faces = SyntheticFaces(self.model, self.world, self.seed, self.device)
        return self._faces.batch(start, count, truth=self.truth)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_faces": None}
