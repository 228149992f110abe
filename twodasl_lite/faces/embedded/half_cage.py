"""A small kit for building one half of a polygon cage by names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from twodasl_lite.faces.embedded.subdivision import edge_key

FAIRING_STEPS, FAIRING_SHRINK, FAIRING_GROW = 12, 0.5, -0.52  # Taubin (1995): smooth without shrinking


class HalfCage:
    """Points by name and faces by name of the half with x >= 0."""

    def __init__(self) -> None:
        """Start with an empty cage."""
        self.names: dict[str, int] = {}
        self.points: list[np.ndarray] = []
        self.faces: list[tuple[int, ...]] = []
        self.tags: list[str] = []
        self.creases: dict[tuple[int, int], float] = {}

    def add(self, name: str, position: Sequence[float] | np.ndarray) -> int:
        """Add a point and return its index."""
        self.names[name] = len(self.points)
        self.points.append(np.asarray(position, dtype=np.float64))
        return self.names[name]

    def loop(self, name: str, positions: Sequence[Sequence[float]]) -> list[int]:
        """Add points ``name0``, ``name1``, ... and return their indices."""
        return [self.add(f"{name}{k}", position) for k, position in enumerate(positions)]

    def face(self, tag: str, *corners: str | int) -> None:
        """Add a face by names or indices, in either orientation; repeated corners collapse."""
        loop = [self.names[c] if isinstance(c, str) else c for c in corners]
        self.faces.append(tuple(dict.fromkeys(loop)))
        self.tags.append(tag)

    def strip(
        self, tag: str | Sequence[str], first: Sequence[int], second: Sequence[int], closed: bool = False
    ) -> None:
        """Join two rows of equal length by quadrilaterals, with one tag or one per quadrilateral."""
        count = len(first)
        for k in range(count if closed else count - 1):
            after = (k + 1) % count
            self.face(tag if isinstance(tag, str) else tag[k], first[k], first[after], second[after], second[k])

    def crease(self, loop: Sequence[int], sharpness: float, closed: bool = False) -> None:
        """Make the edges along a row semi-sharp."""
        pairs = list(pairwise(loop))
        if closed:
            pairs.append((loop[-1], loop[0]))
        for a, b in pairs:
            self.creases[edge_key(a, b)] = sharpness


def fair(points: np.ndarray, faces: list[tuple[int, ...]], free: np.ndarray) -> np.ndarray:
    """Smooth the ``free`` points of a mesh among their neighbours (Taubin 1995), (V, 3)."""
    edges = {edge_key(a, b) for f in faces for a, b in zip(f, f[1:] + f[:1], strict=True)}
    a, b = np.array(sorted(edges)).T
    count = np.bincount(np.concatenate([a, b]), minlength=len(points))[:, None]
    result = points.copy()
    for _ in range(FAIRING_STEPS):
        for factor in (FAIRING_SHRINK, FAIRING_GROW):
            total = np.zeros_like(result)
            np.add.at(total, a, result[b])
            np.add.at(total, b, result[a])
            result[free] += factor * (total / count - result)[free]
    return result
