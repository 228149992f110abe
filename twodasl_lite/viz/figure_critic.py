"""The self-critic's score over slices of coefficient space, in the course of training.

Scores are computed from a run's checkpoints; the figure names their files and hashes, and the script
(``static/critic_figure.js``) shows the scores. See chapter 13.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import constrain
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.losses import normalise_landmarks
from twodasl_lite.viz.interactive import InteractiveFigure, floats, still_picture
from twodasl_lite.viz.palette import OKABE_ITO
from twodasl_lite.viz.snapshots import Checkpoints, Snapshot, find_checkpoints, read_snapshot

SLICES = (("pose[0,2]", "pose[0,0]"), ("pose[0,2]", "shape[0]"), ("shape[0]", "expression[0]"))
"""Pairs of coefficients over which scores are drawn by default."""

_CHUNK = 4096


class CriticFigure(InteractiveFigure):
    """The figure that :func:`critic_figure` returns.

    Attributes:
        snapshots: Networks at each checkpoint.
        scores: Scores ``(C, A, F, n, n)`` by checkpoint, slice and face; rows run over the second coefficient, from low
            to high.
        pairs: ``"real"``, ``"fake"``, ``"shuffled"`` to scores ``(C, N)``.
    """

    kind = "critic_figure"
    script_class = "CriticFigure"

    def __init__(self, snapshots: Sequence[Snapshot], labelled, unlabelled, model, slices, faces, reach, grid) -> None:
        self.snapshots, self._slices, self._reach, self._grid = list(snapshots), slices, reach, grid
        self._labelled, self._unlabelled = labelled, unlabelled
        names = model.layout.names
        self._index = [[names.index(name) for name in pair] for pair in slices]
        self._count = min(faces, labelled.size)
        results = [self._at(snapshot) for snapshot in self.snapshots]
        self.scores = torch.stack([scores for scores, _, _ in results])
        self.pairs = {name: torch.stack([pairs[name] for _, pairs, _ in results]) for name in results[0][1]}
        predicted = torch.stack([places for _, _, places in results])  # (C, A, F, 2)
        header = {
            "steps": [snapshot.step for snapshot in self.snapshots],
            "files": [[snapshot.file, snapshot.sha256] for snapshot in self.snapshots],
            "slices": [list(pair) for pair in slices],
            "faceNames": [f"labelled face {k + 1}" for k in range(self._count)],
            "reach": reach,
            "grid": grid,
            "numReal": labelled.size,
            "numFake": unlabelled.size,
        }
        arrays = {"scores": self.scores, "predicted": predicted, **self.pairs}
        middle = grid // 2
        state = {"checkpoint": len(snapshots) - 1, "slice": 0, "face": 0, "own": False, "at": [middle, middle]}
        super().__init__("The critic's score", header, arrays, state, self._still(state))

    def _landmarks(self, batch: FaceBatch) -> tuple[torch.Tensor, torch.Tensor]:
        return normalise_landmarks(batch.detected, batch.detected_visible), batch.detected_visible

    @torch.no_grad()
    def _at(self, snapshot: Snapshot) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
        """Scores of slices ``(A, F, n, n)`` and of pairs, and the regressor's place in each slice ``(A, F, 2)``."""
        critic, white = snapshot.critic, snapshot.whitening
        real = white.whiten(self._labelled.coefficients.to(white.mean))
        points, seen = self._landmarks(self._labelled)
        fake = snapshot.regressor(self._unlabelled.inputs(snapshot.map_kind))
        fake = white.whiten(constrain(white.unwhiten(fake), snapshot.pose))
        pairs = {
            "real": critic(real, points, seen),
            "fake": critic(fake, *self._landmarks(self._unlabelled)),
            "shuffled": critic(real, points.roll(1, 0), seen.roll(1, 0)),
        }
        own = snapshot.regressor(self._labelled.inputs(snapshot.map_kind)[: self._count]) - real[: self._count]
        places = torch.stack([own[:, pair] for pair in self._index])
        scores = torch.stack(
            [
                torch.stack([self.slice(snapshot, number, face) for face in range(self._count)])
                for number in range(len(self._slices))
            ]
        )
        return scores, pairs, places

    @torch.no_grad()
    def slice(self, snapshot: Snapshot, number: int, face: int) -> torch.Tensor:
        """The critic's scores ``(n, n)`` around one real pair while two of its coefficients vary."""
        white = snapshot.whitening
        points, seen = self._landmarks(self._labelled)
        n = self._grid
        offsets = torch.linspace(-self._reach, self._reach, n)
        first, second = self._index[number]
        vectors = white.whiten(self._labelled.coefficients[face].to(white.mean)).repeat(n * n, 1)
        vectors[:, first] += offsets.repeat(n)
        vectors[:, second] += offsets.repeat_interleave(n)
        scores = [
            snapshot.critic(part, points[face].expand(len(part), -1, -1), seen[face].expand(len(part), -1))
            for part in vectors.split(_CHUNK)
        ]
        return torch.cat(scores).reshape(n, n)

    def numbers(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Scores recomputed by the package from the chosen checkpoint.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            ``"scores"``: the slice, flat; ``"score"``: the score at the cursor; ``"real"``, ``"fake"``, ``"shuffled"``:
            mean scores; ``"told"``: fraction of all (real, fake) combinations in which the real pair scores higher.
        """
        state = self.state if state is None else state
        snapshot = self.snapshots[state["checkpoint"]]
        scores = self.slice(snapshot, state["slice"], state["face"])
        column, row = state["at"]
        pairs = {name: values[state["checkpoint"]] for name, values in self.pairs.items()}
        higher = (pairs["real"][:, None] > pairs["fake"][None]).double().mean()
        return {
            "scores": floats(scores),
            "score": float(scores[row, column]),
            **{name: float(values.double().mean()) for name, values in pairs.items()},
            "told": float(higher),
        }

    def _still(self, state: dict[str, Any]) -> bytes:
        chosen = np.unique(np.linspace(0, len(self.snapshots) - 1, 4).round().astype(int))
        pair = self._slices[state["slice"]]

        def draw(figure) -> None:
            panels = figure.subplots(1, len(chosen) + 1, squeeze=False)[0]
            scores = self.scores[:, state["slice"], state["face"]].numpy()
            shown = scores[chosen]
            for ax, number in zip(panels, chosen, strict=False):
                limits = (-self._reach, self._reach) * 2
                image = ax.imshow(scores[number], origin="lower", extent=limits, vmin=shown.min(), vmax=shown.max())
                ax.plot(0, 0, "+", color="white", markersize=9)
                ax.set(title=f"step {self.snapshots[number].step}", xlabel=f"{pair[0]}, σ")
            panels[0].set_ylabel(f"{pair[1]}, σ")
            figure.colorbar(image, ax=panels[-2], label="score", shrink=0.7)
            colours = {"real": "blue", "fake": "vermilion", "shuffled": "grey"}
            for name, values in self.pairs.items():
                panels[-1].hist(
                    values[state["checkpoint"]].numpy(), 20, histtype="step", label=name, color=OKABE_ITO[colours[name]]
                )
            panels[-1].legend(fontsize="small")
            panels[-1].set(xlabel="score of pairs, last step")

        return still_picture(draw, (2.4 * (len(chosen) + 1), 2.7))


def critic_figure(
    checkpoints: Checkpoints,
    labelled: FaceBatch,
    unlabelled: FaceBatch,
    model: MorphableModel,
    *,
    slices: Sequence[tuple[str, str]] = SLICES,
    faces: int = 3,
    reach: float = 3.0,
    grid: int = 33,
) -> CriticFigure:
    """The critic's scores of faces around the true one, from checkpoint to checkpoint of a run.

    The reader moves through training time, chooses which two coefficients span the picture, moves a cursor over it, and
    compares the scores of real pairs, of the regressor's own pairs (fakes), and of real coefficients paired with
    another face's landmarks (shuffled). The checkpoint files and their SHA-256 are listed below the figure.

    Args:
        checkpoints: Folder of a run, whose kept checkpoints are used, or a list of checkpoint folders.
        labelled: Pictures with coefficients, which form the real pairs; the first ``faces`` of them are shown.
        unlabelled: Pictures from which the regressor makes the fakes; a few hundred of each kind are enough.
        model: Face model, for the names of the coefficients.
        slices: Pairs of coefficient names.
        faces: Number of faces to choose from.
        reach: Extent of a slice on either side of the true coefficients, in standard deviations.
        grid: Number of points along each side; odd, so that the truth is one of them.

    Returns:
        The figure, displayed when it is the last line of a cell; ``figure.numbers()`` returns the package's numbers for
        the current controls.

    Raises:
        ValueRangeError: If the run has no critic, there is no checkpoint, or an argument is out of range.
        FileFormatError: If a checkpoint cannot be read.

    Example:
        >>> critic_figure("runs/full", labelled.take(slice(200)), wild.take(slice(200)), model)  # doctest: +SKIP
    """
    if labelled.coefficients is None:
        raise ValueRangeError("labelled: found no coefficients; expected labelled pictures")
    if grid < 3 or grid % 2 == 0:
        raise ValueRangeError(f"grid: found {grid}; expected an odd number, 3 or more")
    for name in (name for pair in slices for name in pair):
        if name not in model.layout.names:
            raise ValueRangeError(f"slices: found {name!r}; expected names such as {model.layout.names[0]!r}")
    snapshots = [read_snapshot(folder) for folder in find_checkpoints(checkpoints)]
    for snapshot in snapshots:
        if snapshot.critic is None:
            raise ValueRangeError(f"checkpoints: found no critic in {snapshot.file}; expected a run with a critic")
    return CriticFigure(snapshots, labelled, unlabelled, model, [tuple(pair) for pair in slices], faces, reach, grid)
