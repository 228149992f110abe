"""A training run: the curves of its log, and the predictions of each checkpoint on the same few faces.

The curves come from :mod:`twodasl_lite.viz.training_figures`; the script (``static/training_run_figure.js``) shows them
with a cursor over training time. See chapter 8.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.evaluation import nme
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import constrain, decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import EDGES
from twodasl_lite.viz.interactive import InteractiveFigure, floats, picture_data, still_picture
from twodasl_lite.viz.palette import OKABE_ITO
from twodasl_lite.viz.snapshots import Checkpoints, Snapshot, find_checkpoints, read_snapshot
from twodasl_lite.viz.training_figures import MEASURE_TITLES, Rows, loss_curves, validation_curves

_MOST_FACES = 8


class TrainingFigure(InteractiveFigure):
    """The figure that :func:`training_figure` returns.

    Attributes:
        snapshots: Networks at each checkpoint.
        predictions: Landmarks at each checkpoint, ``(C, F, 68, 3)``.
    """

    kind = "training_run_figure"
    script_class = "TrainingRunFigure"

    def __init__(self, rows: Rows, snapshots: Sequence[Snapshot], batch: FaceBatch, model, smooth: int) -> None:
        self.snapshots, self._batch = list(snapshots), batch
        self._rows, self._smooth = rows, smooth
        self.predictions = torch.stack([self._predict(snapshot, model) for snapshot in snapshots])
        panels = {"losses": {"title": "losses, not weighted", "log": True, "curves": loss_curves(rows, smooth)}}
        measures = [name for name in MEASURE_TITLES if any(name in row for row in rows if row["kind"] == "validation")]
        for name in measures:
            title = f"NME, % ({MEASURE_TITLES[name]})"
            panels[name] = {"title": title, "log": False, "curves": validation_curves(rows, name)}
        for panel in panels.values():
            panel["curves"] = [
                {"name": name, "x": [float(x) for x in steps], "y": [_short(value) for value in values]}
                for name, (steps, values) in panel["curves"].items()
            ]
        header = {
            "panels": panels,
            "steps": [snapshot.step for snapshot in snapshots],
            "files": [[snapshot.file, snapshot.sha256] for snapshot in snapshots],
            "pictures": [picture_data(picture) for picture in batch.images],
            "edges": [[int(a), int(b)] for a, b in EDGES],
            "truth": batch.landmarks is not None,
        }
        arrays = {"predictions": self.predictions}
        if batch.landmarks is not None:
            arrays["truth"] = batch.landmarks.float().cpu()
        state = {"checkpoint": len(snapshots) - 1, "panel": measures[0] if measures else "losses"}
        state |= {"truth": batch.landmarks is not None}
        super().__init__("A training run", header, arrays, state, self._still(state))

    @torch.no_grad()
    def _predict(self, snapshot: Snapshot, model: MorphableModel) -> torch.Tensor:
        whitened = snapshot.regressor(self._batch.inputs(snapshot.map_kind))
        coefficients = constrain(snapshot.whitening.unwhiten(whitened), snapshot.pose)
        return decode_landmarks(coefficients, model).float()

    def numbers(self, state: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Errors of the displayed predictions, computed by the package.

        Args:
            state: State of the controls; the current one by default.

        Returns:
            ``"step"``; ``"nme"``: 2D error of each face's 68 landmarks in per cent, empty without ground truth;
            ``"curves"``: name of each displayed curve to its last value up to that step, if it has one.
        """
        state = self.state if state is None else state
        errors: list[float] = []
        if self._batch.landmarks is not None:
            truth = self._batch.landmarks.float().cpu()[..., :2]
            errors = floats(100 * nme(self.predictions[state["checkpoint"]][..., :2], truth))
        step = self.snapshots[state["checkpoint"]].step
        losses = state["panel"] == "losses"
        curves = loss_curves(self._rows, self._smooth) if losses else validation_curves(self._rows, state["panel"])
        reached = {name: values[steps <= step] for name, (steps, values) in curves.items()}
        here = {name: float(values[-1]) for name, values in reached.items() if len(values) and np.isfinite(values[-1])}
        return {"step": step, "nme": errors, "curves": here}

    def _still(self, state: dict[str, Any]) -> bytes:
        from twodasl_lite.viz.figures import draw_landmarks

        chosen = np.unique(np.linspace(0, len(self.snapshots) - 1, 3).round().astype(int))
        faces = min(4, self._batch.size)

        def draw(figure) -> None:
            panels = figure.subplots(len(chosen), faces, squeeze=False)
            for row, number in zip(panels, chosen, strict=True):
                for face, ax in enumerate(row):
                    ax.imshow(self._batch.images[face].permute(1, 2, 0).numpy())
                    draw_landmarks(ax, self.predictions[number, face, :, :2], colour=OKABE_ITO["sky"], size=1.5)
                    ax.set(xlim=(0, CROP_SIZE), ylim=(CROP_SIZE, 0), xticks=[], yticks=[])
                row[0].set_ylabel(f"step {self.snapshots[number].step}")

        return still_picture(draw, (1.9 * faces, 2 * len(chosen)))


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _read_rows(run: Path) -> list[dict[str, Any]]:
    """Rows of a run's log without an incomplete last line."""
    path = run / "log.jsonl"
    if not path.is_file():
        raise FileFormatError(path, "no such file", "a run's log")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = []
    for number, line in enumerate(lines):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            if number < len(lines) - 1:
                raise FileFormatError(path, f"an unreadable line {number + 1}", "a run's log") from error
    return rows


def training_figure(
    run: str | Path,
    batch: FaceBatch,
    model: MorphableModel,
    *,
    checkpoints: Checkpoints | None = None,
    smooth: int = 5,
) -> TrainingFigure:
    """Curves of a run with a cursor over training time, and the predictions of its checkpoints on fixed faces.

    Args:
        run: Folder of the run, with ``log.jsonl`` and checkpoints (set ``run.keep`` high enough to keep them all).
        batch: One to eight faces to watch; errors are shown if it has ``landmarks``.
        model: Face model.
        checkpoints: Checkpoint folders; those of the run by default.
        smooth: Number of log rows in the moving average of the losses.

    Returns:
        The figure, displayed when it is the last line of a cell; ``figure.numbers()`` returns the package's numbers for
        the current controls.

    Raises:
        FileFormatError: If the log or a checkpoint cannot be read.
        ValueRangeError: If there is no checkpoint or there are too many faces.

    Example:
        >>> training_figure("runs/full", faces.take(slice(6)), model)  # doctest: +SKIP
    """
    if not 1 <= batch.size <= _MOST_FACES:
        raise ValueRangeError(f"batch: found {batch.size} faces; expected 1 to {_MOST_FACES}")
    folders = find_checkpoints(run if checkpoints is None else checkpoints)
    snapshots = [read_snapshot(folder, average=True) for folder in folders]
    return TrainingFigure(_read_rows(Path(run)), snapshots, batch, model, smooth)
