"""Report of a method's predictions on a test set: the tables, error curves and worst cases of the benchmark.

::

    coefficients --decode--> landmarks in the crop --mapping--> landmarks in the photo --NME--> tables

The ``"bench"`` mapping repeats the published scripts, with their clamped boxes; ``"exact"`` is correct
(:func:`twodasl_lite.geometry.camera.crop_to_image`). See chapter 15.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_tensor
from twodasl_lite.base.errors import TwodaslError, ValueRangeError
from twodasl_lite.datasets.aflw2000 import AFLW2000
from twodasl_lite.evaluation import Table, auc, failure_rate, markdown, nme, summarise
from twodasl_lite.evaluation.curves import LIMIT
from twodasl_lite.evaluation.intervals import RESAMPLES
from twodasl_lite.evaluation.predictions import Predictions
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.geometry.camera import Mapping, PoseForm, crop_to_image, image_to_crop
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.landmarks import MapKind, subset_18
from twodasl_lite.networks.prediction import predict

MAIN = "68 points, 2D"
"""Name of the measure that papers report."""
DEPTH_MEASURE = "68 points, 3D"
REANNOTATED = "68 points, 2D, re-annotated"
REANNOTATED_SHIFTED = "68 points, 2D, re-annotated + 1 px"
"""The re-annotated landmarks are whole numbers, about 1.5 pixels away from the others; adding one pixel in x and y
brings both sets together. The file does not say whether its pixels count from 0 or 1, so both are reported."""


@dataclass(frozen=True)
class Report:
    """Errors of predictions on a test set.

    Attributes:
        names: Names of the faces with a prediction.
        missing: Names of the test set's faces without one.
        mapping: ``"exact"`` or ``"bench"``.
        errors: Name of each measure to its errors ``(M,)``, as fractions.
        tables: Name of each measure to its table, over the faces with a prediction.
        landmarks: Predicted landmarks in photo pixels, ``(M, 68, 2 or 3)``.
        yaw: Yaw in degrees, ``(M,)``.
        source: Origin of the predictions.
        problems: Problems found on the way, one sentence each.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    mapping: Mapping
    errors: dict[str, torch.Tensor]
    tables: dict[str, Table]
    landmarks: torch.Tensor
    yaw: torch.Tensor
    source: str = ""
    problems: tuple[str, ...] = field(default=())

    def with_failures(self, measure: str = MAIN) -> torch.Tensor:
        """Errors ``(N,)``, NaN for each face without a prediction: error curves count those as failures."""
        return torch.cat([self.errors[measure], torch.full((len(self.missing),), torch.nan, dtype=torch.float64)])

    def worst(self, count: int = 12, measure: str = MAIN) -> list[int]:
        """Indices of the faces with the largest errors, the worst first."""
        return self.errors[measure].argsort(descending=True)[:count].tolist()

    def to_dict(self) -> dict[str, object]:
        """Everything except the landmarks, as JSON-serialisable values; errors are fractions."""
        results = {}
        for measure, table in self.tables.items():
            errors = self.with_failures(measure)
            curve = {"limit": LIMIT, "auc": auc(errors), "failure_rate": failure_rate(errors)}
            results[measure] = table.to_dict() | curve
        worst = [{"name": self.names[k], "error": float(self.errors[MAIN][k])} for k in self.worst()]
        return {
            "dataset": "AFLW2000-3D",
            "faces": len(self.names) + len(self.missing),
            "answered": len(self.names),
            "missing": list(self.missing),
            "predictions": self.source,
            "mapping": self.mapping,
            "results": results,
            "worst": worst,
            "problems": list(self.problems),
        }

    def markdown(self, digits: int = 3) -> str:
        """The tables in Markdown, in per cent."""
        return markdown(self.tables, digits)

    def to_csv(self) -> str:
        """CSV with one line per face that has a prediction: name, yaw and all errors."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "yaw", *self.errors])
        rows = torch.stack(list(self.errors.values()), dim=1).tolist()
        for name, yaw, row in zip(self.names, self.yaw.tolist(), rows, strict=True):
            writer.writerow([name, f"{yaw:.3f}", *(f"{value:.6f}" for value in row)])
        return text.getvalue()

    def write(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write ``report.json``, ``tables.md`` and ``errors.csv``; missing folders are created.

        Returns:
            Paths of the files.

        Raises:
            OSError: If a file is not writable.
        """
        contents = {
            "report.json": json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n",
            "tables.md": self.markdown() + "\n",
            "errors.csv": self.to_csv(),
        }
        files = []
        for name, text in contents.items():
            files.append(Path(folder) / name)
            with whole_file(files[-1]) as file:
                file.write(text.encode())
        return files


def predicted_landmarks(
    predictions: Predictions,
    dataset: AFLW2000,
    mapping: Mapping = "exact",
    *,
    model: MorphableModel | None = None,
    whitening: Whitening | None = None,
) -> torch.Tensor:
    """Predicted landmarks in photo pixels.

    Args:
        predictions: Predictions for the faces of ``dataset``, in its order.
        dataset: The test set; its boxes are used unless the predictions have their own.
        mapping: Mapping from crop to photo; landmarks that are in photo pixels already are returned unchanged.
        model: Face model that decodes coefficients.
        whitening: Whitening of whitened coefficients.

    Returns:
        ``(M, 68, 2 or 3)`` float64.

    Raises:
        ValueRangeError: If a face model or a whitening is needed and not given, or the ``bench`` mapping is used with
            predictions that have their own boxes.
    """
    if predictions.kind == "landmarks":
        return predictions.values
    if model is None or (predictions.kind == "whitened" and whitening is None):
        needed = "a face model" if model is None else "a whitening"
        raise ValueRangeError(f"predictions: found {predictions.kind} coefficients; expected {needed} to decode them")
    values = predictions.values
    if predictions.kind == "whitened" and whitening is not None:
        values = whitening.unwhiten(values)
    if predictions.boxes is not None and mapping == "bench":
        raise ValueRangeError("mapping: found 'bench' for predictions with their own boxes; expected 'exact'")
    boxes = dataset.boxes_for(mapping) if predictions.boxes is None else predictions.boxes
    return crop_to_image(decode_landmarks(values.to(model.mean.dtype), model).double(), boxes, mapping)


def evaluate(
    predictions: Predictions,
    dataset: AFLW2000,
    mapping: Mapping = "exact",
    *,
    model: MorphableModel | None = None,
    whitening: Whitening | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Report:
    """Evaluate predictions on AFLW2000-3D.

    Args:
        predictions: Predictions in any order, matched to the test set by name. A face without a row, or with NaN in
            its row, has no prediction: tables leave it out, and error curves count it as a failure.
        dataset: The test set.
        mapping: ``"exact"``, or ``"bench"`` to compare with papers.
        model: Face model, needed for coefficients.
        whitening: Whitening, needed for whitened coefficients.
        resamples: Number of bootstrap resamples for the confidence intervals.
        seed: Seed of the resampling.

    Raises:
        ValueRangeError: If no prediction is for a face of the test set, or a needed model or whitening is missing.
    """
    predictions.check()
    rows = {name: k for k, name in enumerate(predictions.names)}
    answered = torch.isfinite(predictions.values.flatten(1)).all(dim=1).tolist()
    index = [k for k, name in enumerate(dataset.names) if name in rows and answered[rows[name]]]
    if not index:
        raise ValueRangeError(
            f"predictions: found none for a face of the test set (names such as {', '.join(predictions.names[:2])}); "
            f"expected names such as {dataset.names[0]}"
        )
    problems = list(dataset.problems)
    strangers = sorted(set(predictions.names) - set(dataset.names))
    if strangers:
        problems.append(
            f"{len(strangers)} predictions for pictures that are not in the test set, such as {strangers[0]}"
        )
    known = dataset.take(index)
    order = [rows[name] for name in known.names]
    boxes = None if predictions.boxes is None else predictions.boxes[order]
    ordered = predictions._replace(names=known.names, values=predictions.values[order], boxes=boxes)
    found = predicted_landmarks(ordered, known, mapping, model=model, whitening=whitening)
    flat = found[..., :2]
    errors = {MAIN: nme(flat, known.landmarks[..., :2])}
    if found.shape[-1] == 3:
        errors[DEPTH_MEASURE] = nme(found, known.landmarks)
    if known.reannotated is not None:
        errors[REANNOTATED] = nme(flat, known.reannotated)
        errors[REANNOTATED_SHIFTED] = nme(flat, known.reannotated + 1)
    return Report(
        known.names,
        tuple(name for name in dataset.names if name not in set(known.names)),
        mapping,
        errors,
        {key: summarise(value, known.yaw, resamples=resamples, seed=seed) for key, value in errors.items()},
        found,
        known.yaw,
        predictions.source,
        tuple(problems),
    )


# ---------------------------------------------------------------------------------------------------- with a network
def jittered_boxes(boxes: torch.Tensor, amount: float, seed: int = 0) -> torch.Tensor:
    """Crop boxes as imprecise as a face detector's, unlike boxes cut around the landmarks that are to be predicted.

    Args:
        boxes: Square boxes, ``(N, 4)``.
        amount: Largest shift of the centre, as a fraction of the side, and largest relative change of the side.
        seed: Random seed.

    Returns:
        Boxes ``(N, 4)`` in whole pixels; the same for the same seed.

    Raises:
        ValueRangeError: If the amount is not between 0 and 0.5.
    """
    boxes = check_tensor("boxes", boxes, ("N", 4))
    if not 0 <= amount <= 0.5:
        raise ValueRangeError(f"amount: found {amount}; expected 0 to 0.5")
    generator = torch.Generator().manual_seed(seed)
    draws = amount * (2 * torch.rand(len(boxes), 3, generator=generator, dtype=torch.float64) - 1).to(boxes)
    side = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True)  # (N, 1)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + side * draws[:, :2]
    new_side = torch.round(side * (1 + draws[:, 2:])).clamp(min=1)
    first = torch.round(centre - new_side / 2)
    return torch.cat([first, first + new_side], dim=1)


def predict_faces(
    network: nn.Module,
    whitening: Whitening,
    dataset: AFLW2000,
    model: MorphableModel,
    *,
    boxes: torch.Tensor | None = None,
    detected: bool = True,
    kind: MapKind = "binary",
    pose: PoseForm = "free",
    source: str = "",
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Predictions, list[str]]:
    """Run a regressor on the test set.

    Args:
        network: The regressor.
        whitening: Whitening of the network's outputs.
        dataset: The test set, with its pictures.
        model: The face model that the network was trained with.
        boxes: Crop boxes to use instead of the test set's, ``(N, 4)``, in whole pixels.
        detected: Whether to give the network the detector's landmarks, where the test set has them; otherwise it starts
            with an empty map (:func:`twodasl_lite.networks.prediction.predict`).
        kind: Kind of landmark map that the network was trained with.
        pose: Interpretation of the 12 pose numbers, see :func:`~twodasl_lite.geometry.camera.constrain_pose`.
        source: Origin of the network, for the report.
        device: Device to compute on.
        batch_size: Faces per batch.
        progress: Called with the number of faces done and their total.

    Returns:
        Raw coefficients with the boxes that they refer to, and a sentence for each picture that could not be read.
    """
    network = network.to(device)
    whitening = Whitening(whitening.mean.to(device), whitening.std.to(device))
    model = model.to(device)
    own = dataset.boxes
    points = None
    if detected and dataset.detected is not None:
        points = subset_18(dataset.detected)  # (N, 18, 2)
        if boxes is not None:
            points = image_to_crop(crop_to_image(points, own), boxes)
    kept: list[int] = []
    found: list[torch.Tensor] = []
    problems: list[str] = []
    for start in range(0, len(dataset), batch_size):
        members, crops = [], []
        for k in range(start, min(start + batch_size, len(dataset))):
            try:
                crops.append(dataset.crop(dataset.names[k], None if boxes is None else boxes[k]))
                members.append(k)
            except TwodaslError as error:
                problems.append(str(error))
        if members:
            images = torch.stack([torch.from_numpy(crop).permute(2, 0, 1) for crop in crops]).to(device)
            shown = None if points is None else points[members].to(device)
            options: dict[str, Any] = {"model": model, "kind": kind, "pose": pose, "batch_size": batch_size}
            face = predict(network, whitening, images, shown, **options)
            found.append(face.coefficients.cpu().double())
            kept += members
        if progress is not None:
            progress(min(start + batch_size, len(dataset)), len(dataset))
    if not kept:
        raise ValueRangeError(f"pictures: found none that can be read ({problems[0]}); expected at least one")
    names = tuple(dataset.names[k] for k in kept)
    used = None if boxes is None else boxes[kept].double()
    return Predictions(names, torch.cat(found), "coefficients", used, source), problems


def release_predictions(dataset: AFLW2000) -> Predictions:
    """The predictions released by the authors, if the test set contains them.

    Raises:
        FileFormatError: If they are missing or damaged.
    """
    names, values = dataset.release_predictions()
    return Predictions(names, values, "whitened", None, "released with 2DASL").check()
