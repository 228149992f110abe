"""300W-LP (Zhu et al. 2016): 122,450 photographs with fitted faces, most of them turned by face profiling.

As published, the folder ``300W_LP`` has one folder per source, ``AFW``, ``HELEN``, ``IBUG`` and ``LFPW``, and one of
mirrored pictures for each, ``AFW_Flip``, ...; these contain ``NAME.jpg``, 450 x 450 pixels, and ``NAME.mat`` with the
annotation (:mod:`~twodasl_lite.datasets.annotations`). The dataset is for research only and cannot be shipped.
AFLW2000-3D has the same files in a single folder and is read the same way.

A crop is sqrt(2) times as large as the longer side of the landmarks' box. The landmarks are those of the file
(``pt3d_68``, AFLW2000-3D), or those that a face model gives for the annotation. With all 199 + 29 coefficients the box
is the published one; with 40 + 10 its edges are off by 1.4 % of its side on average (measured on AFLW2000-3D; 8 % at
most). Targets are exact for whichever box was cut.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.datasets.annotations import FaceAnnotation, check_raw_basel, read_annotation
from twodasl_lite.datasets.real import THREADS, LabelledPictures, Progress, Report, jpeg_size
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import convert_pose
from twodasl_lite.geometry.camera import Mapping, euler_to_matrix, frame_to_pixels, make_pose, project
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.photos import crop_photo, landmarks_box, read_photo

SUBSETS = ("AFW", "HELEN", "IBUG", "LFPW")
"""Folders of the set; each has a twin of mirrored pictures."""
FLIPPED = "_Flip"


class W300LP(LabelledPictures):
    """300W-LP, or a part of it.

    Args:
        folder: ``300W_LP``, one of the folders in it, or any folder of ``.jpg`` with ``.mat``.
        model: The Basel Face Model with raw coefficients, reduced to the coefficients to be learnt:
            ``read_face_model("train.configs")`` for 3DDFA's files.
        full_model: The same with all 199 + 29 coefficients, for boxes as published; ``model`` by default.
        subsets: Which of :data:`SUBSETS` to read.
        flipped: Whether to include the mirrored pictures.
        mapping: ``"exact"`` or ``"bench"``, see :func:`~twodasl_lite.geometry.camera.image_to_crop`.
        seed: Seed of the simulated detector.
        visibility: Whether to compute which landmarks the face itself hides.
        threads: Number of pictures that are read at a time.
        progress: Called with the number of annotations read and the total.
        report: Called with a line for each picture that is left out.

    Attributes:
        problems: The lines passed to ``report``: a damaged annotation, a picture without one, ...; the rest of the set
            is used.
        boxes: ``(N, 4)`` crop box of each picture.

    Raises:
        FileFormatError: If the folder contains no such files, or none of them can be read.
        ValueRangeError: If the model cannot decode the annotations.

    Example:
        >>> faces = W300LP("300W_LP", read_face_model("train.configs"))  # doctest: +SKIP
        >>> stream = SetStream(faces, rank=0, world_size=8)  # doctest: +SKIP
    """

    kind = "300W-LP"

    def __init__(
        self,
        folder: str | os.PathLike[str],
        model: MorphableModel,
        *,
        full_model: MorphableModel | None = None,
        subsets: Sequence[str] = SUBSETS,
        flipped: bool = True,
        mapping: Mapping = "exact",
        seed: int = 0,
        visibility: bool = False,
        threads: int = THREADS,
        progress: Progress | None = None,
        report: Report | None = None,
    ) -> None:
        full_model = model if full_model is None else full_model
        for one in (model, full_model):
            check_raw_basel(one)
        self.folder, self.mapping = Path(folder), mapping
        self.problems: list[str] = []

        def leave_out(line: str) -> None:
            self.problems.append(line)
            if report is not None:
                report(line)

        pairs = _pairs(self.folder, subsets, flipped, leave_out)
        names, boxes, coefficients = [], [], []
        for done, stem in enumerate(pairs, start=1):
            try:
                height = jpeg_size(_file(stem, ".jpg"))[1]
                annotation = read_annotation(_file(stem, ".mat"))
                box = _box(annotation, full_model, height)
                vector = annotation.coefficients(
                    box, height, mapping=mapping, layout=model.layout, units=model.units
                ).pack()
            except FileFormatError as error:
                leave_out(str(error))
            except ValueRangeError as error:
                leave_out(f"{_file(stem, '.mat')}: {error}")
            else:
                names.append(stem.relative_to(self.folder).as_posix())
                boxes.append(box)
                coefficients.append(vector)
            if progress is not None:
                progress(done, len(pairs))
        if not names:
            first = f"; the first: {self.problems[0]}" if self.problems else ""
            raise FileFormatError(self.folder, f"no picture that can be used{first}", "pictures with annotations")
        self.boxes = torch.stack(boxes)
        super().__init__(model, torch.stack(coefficients), names, seed=seed, visibility=visibility, threads=threads)

    def picture(self, index: int) -> np.ndarray:
        """One crop, ``(120, 120, 3)`` uint8 RGB; what lies outside the picture is black."""
        photo = read_photo(self.folder / f"{self.names[index]}.jpg")
        return crop_photo(photo, self.boxes[index])

    def describe(self) -> dict[str, object]:
        """Everything that shards of the set depend on."""
        return super().describe() | {"mapping": self.mapping}


def _pairs(folder: Path, subsets: Sequence[str], flipped: bool, leave_out: Report) -> list[Path]:
    """Pictures with annotations, without suffix, in order."""
    unknown = sorted(set(subsets) - set(SUBSETS))
    if unknown:
        raise ValueRangeError(f"subsets: found {', '.join(unknown)}; expected some of {', '.join(SUBSETS)}")
    if not folder.is_dir():
        raise FileFormatError(folder, "no such folder", "300W_LP, or a folder of .jpg with .mat")
    wanted = [name + twin for name in subsets for twin in (["", FLIPPED] if flipped else [""])]
    places = [folder / name for name in wanted if (folder / name).is_dir()]
    if not places:
        if any((folder / (name + twin)).is_dir() for name in SUBSETS for twin in ("", FLIPPED)):
            raise FileFormatError(folder, "other subsets", f"one of {', '.join(wanted)}")
        places = [folder]
    pairs = []
    for place in places:
        photos = {path.stem for path in place.glob("*.jpg")}
        labels = {path.stem for path in place.glob("*.mat")}
        for stem in sorted(photos - labels):
            leave_out(f"{place / stem}.jpg: found no {stem}.mat; expected its annotation beside it")
        for stem in sorted(labels - photos):
            leave_out(f"{place / stem}.mat: found no {stem}.jpg; expected its picture beside it")
        pairs += [place / stem for stem in sorted(photos & labels)]
    return pairs


def _file(stem: Path, suffix: str) -> Path:
    # Path.with_suffix would take a dot in the name for the beginning of a suffix.
    return stem.with_name(stem.name + suffix)


def _box(annotation: FaceAnnotation, model: MorphableModel, height: int) -> torch.Tensor:
    """The crop box of one picture, ``(4,)``."""
    if annotation.landmarks is not None:
        return landmarks_box(annotation.landmarks)
    pose = make_pose(annotation.pose[6], euler_to_matrix(annotation.pose[:3]), annotation.pose[3:6])
    shape, expression = annotation.shape[: model.num_shape], annotation.expression[: model.num_expression]
    pose = convert_pose(Coefficients(pose, shape, expression), model.units).pose
    points = model.decode_landmarks(shape, expression).to(pose)  # (68, 3)
    return landmarks_box(frame_to_pixels(project(points, pose), height))
