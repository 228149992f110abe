"""AFLW2000-3D, the benchmark: 2,000 photos with the landmarks and coefficients of the face in each (Zhu et al. 2016).

It is read from any of four sources:

* a clone of ``XgTu/2DASL``, the release of Tu et al. (2019): photos, annotations, crops, crop boxes, re-annotated
  landmarks, a detector's landmarks, and the authors' own predictions;
* the set's own folder, ``AFLW2000``, of ``image*.jpg`` and ``image*.mat``;
* one ``.npz`` of annotations without photos;
* a pack of crops (:mod:`twodasl_lite.datasets.packed`), which has no photos either.

Files are joined by name, never by position: the release has one list of 2,000 pictures and one of 1,998, because a
detector failed on two. Points here are 0-based pixels of the photo (the files count from 1). Yaws are in degrees, as
written: the benchmark bins faces by them, even where one says -351 (7 of 2,000 are beyond ±90).
See chapter 15.
"""

from __future__ import annotations

import collections.abc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.datasets.annotations import annotation_to_coefficients, clamp_box, read_annotation
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers.arrays import read_npy
from twodasl_lite.geometry.camera import CROP_SIZE, Mapping
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients, Whitening
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS
from twodasl_lite.geometry.photos import crop_photo, landmarks_box, read_photo

IMAGE_SIZE = 450
"""Width and height of every photo of AFLW2000-3D and 300W-LP, in pixels."""
Layout = Literal["clone", "folder", "archive", "pack"]

_FIRST = 1.0  # the files count pixels from 1
_ORIGIN = torch.tensor([_FIRST, _FIRST, 0.0], dtype=torch.float64)
_SHOWN = 3  # names that a message lists
_PLACES = "a clone of XgTu/2DASL, the folder AFLW2000 (image*.jpg and image*.mat), or an .npz of annotations"


class _ClonePaths:
    """Paths of the files in a clone of the release."""

    def __init__(self, root: Path) -> None:
        base = root / "test_codes" if (root / "test_codes").is_dir() else root
        self.base, configs, data = base, base / "test.configs", base / "test.data"
        self.landmarks = configs / "AFLW2000-3D.pts68.npy"
        self.reannotated = configs / "AFLW2000-3D-Reannotated.pts68.npy"
        self.yaws = configs / "AFLW2000-3D.pose.npy"
        self.boxes = configs / "AFLW2000-3D_crop.roi_box.npy"
        self.names = data / "AFLW2000-3D_crop.list"
        self.predicted_names = data / "AFLW1998-3D_crop.list"
        self.detected = data / "detect_testData.txt"
        self.photos = data / "AFLW-2000-3D"
        self.crops = data / "AFLW2000-3D_crop"
        self.predictions = base / "results" / "params_aflw2000_xgtu.npy"
        self.face_model = base / "train.configs"


@dataclass(frozen=True)
class AFLW2000:
    """The benchmark, or part of it.

    Attributes:
        root: Path that it was read from.
        layout: ``"clone"``, ``"folder"``, ``"archive"`` or ``"pack"``.
        names: N names without suffix, ``image00002`` to ``image04386``.
        landmarks: ``(N, 68, 3)`` float64 in photo pixels, with depth.
        yaw: ``(N,)`` degrees, as written.
        published_boxes: ``(N, 4)`` the crop boxes of the published scripts: clamped to the photo, although the crops
            were padded. Only for ``mapping="bench"``.
        reannotated: ``(N, 68, 2)`` the corrected landmarks, or None.
        detected: ``(N, 68, 2)`` a detector's landmarks in crop pixels, NaN where it failed, or None.
        pose: ``(N, 7)`` as ``Pose_Para``, or None: see :meth:`with_annotations`.
        shape: ``(N, 199)`` as ``Shape_Para``, or None.
        expression: ``(N, 29)`` as ``Exp_Para``, or None.
        problems: One sentence for each thing that could not be read.
        crops: Crops by name if read from a pack, otherwise None.
    """

    root: Path
    layout: Layout
    names: tuple[str, ...]
    landmarks: torch.Tensor
    yaw: torch.Tensor
    published_boxes: torch.Tensor
    reannotated: torch.Tensor | None = None
    detected: torch.Tensor | None = None
    pose: torch.Tensor | None = None
    shape: torch.Tensor | None = None
    expression: torch.Tensor | None = None
    problems: tuple[str, ...] = ()
    crops: collections.abc.Mapping[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def boxes(self) -> torch.Tensor:
        """``(N, 4)`` the boxes that the crops were actually cut with: not clamped."""
        return landmarks_box(self.landmarks)

    def boxes_for(self, mapping: Mapping) -> torch.Tensor:
        """The boxes that belong to a mapping."""
        return self.published_boxes if mapping == "bench" else self.boxes

    def take(self, index: Sequence[int] | torch.Tensor) -> AFLW2000:
        """The faces at some indices, in that order."""
        index = torch.as_tensor(index, dtype=torch.int64)
        parts = {
            name: None if getattr(self, name) is None else getattr(self, name)[index]
            for name in (
                "landmarks",
                "yaw",
                "published_boxes",
                "reannotated",
                "detected",
                "pose",
                "shape",
                "expression",
            )
        }
        return replace(self, names=tuple(self.names[k] for k in index.tolist()), **parts)

    # ------------------------------------------------------------------------------------------------------- files
    def _file(self, name: str, suffix: str) -> Path:
        if self.layout in ("archive", "pack"):
            found = "annotations without photos" if self.layout == "archive" else "a pack of crops without photos"
            raise FileFormatError(self.root, found, _PLACES.rpartition(",")[0])
        folder = _ClonePaths(self.root).photos if self.layout == "clone" else self.root
        return folder / f"{name}{suffix}"

    def photo(self, name: str) -> np.ndarray:
        """One photo, ``(450, 450, 3)`` RGB.

        Raises:
            FileFormatError: If the file is missing, damaged, not a picture, or of another size than the annotations.
        """
        path = self._file(name, ".jpg")
        photo = read_photo(path)
        if photo.shape[:2] != (IMAGE_SIZE, IMAGE_SIZE):
            found = f"{photo.shape[1]}x{photo.shape[0]} pixels"
            raise FileFormatError(path, found, f"{IMAGE_SIZE}x{IMAGE_SIZE}, which the annotations refer to")
        return photo

    def crop(self, name: str, box: torch.Tensor | None = None) -> np.ndarray:
        """The face, ``(120, 120, 3)``: the release's own crop where there is one, else cut from the photo.

        Args:
            name: Name of the face.
            box: ``(4,)`` another box to cut from the photo, in whole pixels.

        Raises:
            FileFormatError: If the file is missing, damaged or of another size.
        """
        if box is None and self.crops is not None:
            return self.crops[name]
        if box is None and self.crop_folder is not None:
            path = self.crop_folder / f"{name}.jpg"
            if path.is_file():
                crop = read_photo(path)
                if crop.shape[:2] != (CROP_SIZE, CROP_SIZE):
                    found = f"{crop.shape[1]}x{crop.shape[0]} pixels"
                    raise FileFormatError(path, found, f"a crop of {CROP_SIZE}x{CROP_SIZE}")
                return crop
        return crop_photo(self.photo(name), self.boxes[self.names.index(name)] if box is None else box)

    @property
    def crop_folder(self) -> Path | None:
        """Folder of the release's own crops; None if the set has none."""
        return _ClonePaths(self.root).crops if self.layout == "clone" else None

    def release_predictions(self) -> tuple[tuple[str, ...], torch.Tensor]:
        """The authors' predictions: names and ``(M, 62)`` whitened coefficients.

        Raises:
            FileFormatError: If they are missing, or do not match the list of names.
        """
        if self.layout == "archive":
            arrays = _load_archive(self.root, ("predicted62_whitened_2dasl",))
            return self.names, torch.from_numpy(arrays["predicted62_whitened_2dasl"]).double()
        if self.layout != "clone":
            raise FileFormatError(self.root, "the set's own folder", "a clone of XgTu/2DASL, which has predictions")
        paths = _ClonePaths(self.root)
        values = read_npy(paths.predictions)
        names = read_names(paths.predicted_names)
        size = CoefficientLayout().size
        if values.shape != (len(names), size):
            expected = f"({len(names)}, {size}), a row per name in {paths.predicted_names.name}"
            raise FileFormatError(paths.predictions, f"shape {values.shape}", expected)
        return names, torch.from_numpy(values).double()

    def names_of_rows(self, path: str | os.PathLike[str]) -> tuple[str, ...]:
        """The names that belong to the rows of an ``.npy`` of predictions, inferred from the number of rows.

        Args:
            path: The file.

        Raises:
            FileFormatError: If it has neither a row for each face nor, in a clone, one for each detected face.
        """
        rows = len(read_npy(path))
        if rows == len(self):
            return self.names
        if self.layout == "clone":
            names = read_names(_ClonePaths(self.root).predicted_names)
            if rows == len(names):
                return names
        raise FileFormatError(path, f"{rows} rows", f"{len(self)}, one per face, or a list of names (--names FILE)")

    def face_model_path(self) -> Path | None:
        """Folder of the face model that comes with the set, the release's ``train.configs``; None if there is none."""
        folder = _ClonePaths(self.root).face_model
        return folder if self.layout == "clone" and folder.is_dir() else None

    # ------------------------------------------------------------------------------------------------- annotations
    def with_annotations(self, progress: Callable[[int, int], None] | None = None) -> AFLW2000:
        """The set with pose, shape and expression of every face, read from its 2,000 files if necessary (2 s).

        Faces whose file cannot be read, or disagrees with the release's arrays, are left out and named in ``problems``.

        Args:
            progress: Called with the number of files read and the total.
        """
        if self.pose is not None:
            return self
        kept, found, problems = [], [], list(self.problems)
        for k, name in enumerate(self.names):
            try:
                face = read_annotation(self._file(name, ".mat"))
            except TwodaslError as error:
                problems.append(str(error))
            else:
                difference = self._disagreement(k, face)
                if difference:
                    problems.append(f"{name}: {difference}")
                else:
                    kept.append(k)
                    found.append(face)
            if progress is not None:
                progress(k + 1, len(self))
        if not kept:
            raise FileFormatError(self.root, f"no usable annotation ({problems[-1]})", _PLACES)
        stacked = {
            part: torch.stack([getattr(face, part) for face in found]) for part in ("pose", "shape", "expression")
        }
        return replace(self.take(kept), problems=tuple(problems), **stacked)

    def _disagreement(self, index: int, face) -> str:
        """How the annotation file disagrees with the arrays, in words; empty if it does not."""
        if abs(face.yaw - float(self.yaw[index])) > 1e-3:
            return f"found a yaw of {face.yaw:.2f} in its .mat; expected {float(self.yaw[index]):.2f} as in the list"
        if face.landmarks is not None:
            apart = float((face.landmarks - self.landmarks[index]).abs().max())
            if apart > 0.01:
                return f"found landmarks {apart:.2f} pixels apart in its .mat; expected those of the list"
        return ""

    def coefficients(
        self, mapping: Mapping = "exact", *, layout: CoefficientLayout | None = None, units: str = "mm"
    ) -> Coefficients:
        """The targets of the crops, see :func:`~twodasl_lite.datasets.annotations.annotation_to_coefficients`.

        Args:
            mapping: ``"exact"``, with the true boxes, or ``"bench"``, with the clamped ones.
            layout: Numbers of coefficients; 40 + 10 by default.
            units: Unit of length of the face model that decodes them.

        Raises:
            ValueRangeError: If the annotations were not read (:meth:`with_annotations`).
        """
        if self.pose is None:
            raise ValueRangeError("coefficients: found a set without annotations; expected with_annotations() first")
        return annotation_to_coefficients(
            self.pose,
            self.shape,
            self.expression,
            self.boxes_for(mapping),
            IMAGE_SIZE,
            mapping=mapping,
            layout=layout,
            units=units,
        )


# ------------------------------------------------------------------------------------------------------------ reading
def read_aflw2000(root: str | os.PathLike[str]) -> AFLW2000:
    """Read the benchmark from a clone of the release, its own folder, or an ``.npz`` of annotations.

    Photos are read on demand. From a clone, only the arrays are read (0.1 s); from the folder, all ``.mat`` files
    (2 s). Files that cannot be read are named in ``problems``, and the rest is returned.

    Args:
        root: Folder or file.

    Raises:
        FileFormatError: If it is none of these, lacks a required file, or lists and arrays disagree.
    """
    root = Path(root)
    if root.is_file():
        from twodasl_lite.datasets import packed  # which imports this module

        return packed.read_test(root) if packed.is_pack(root) else _read_archive(root)
    if not root.is_dir():
        raise FileFormatError(root, "no such folder", _PLACES)
    paths = _ClonePaths(root)
    if paths.landmarks.is_file() or paths.names.is_file():
        return _read_clone(root, paths)
    for folder in (root, root / "AFLW2000", root / "AFLW2000-3D"):
        if folder.is_dir() and any(folder.glob("*.mat")):
            return _read_folder(folder)
    raise FileFormatError(root, "neither test.configs/AFLW2000-3D.pts68.npy nor any .mat file", _PLACES)


def _read_clone(root: Path, paths: _ClonePaths) -> AFLW2000:
    names = read_names(paths.names)
    landmarks = read_rows(paths.landmarks, names, (3, NUM_LANDMARKS)).mT - _ORIGIN
    yaw = read_rows(paths.yaws, names, ())
    problems: list[str] = []

    def optional(read: Callable[[], torch.Tensor]) -> torch.Tensor | None:
        try:
            return read()
        except FileFormatError as error:
            problems.append(str(error))
            return None

    boxes = landmarks_box(landmarks)
    clamped = clamp_box(boxes, IMAGE_SIZE, IMAGE_SIZE)
    published = optional(lambda: read_rows(paths.boxes, names, (4,)) - _FIRST)
    if published is None:
        published = clamped  # they are the same in the release
    else:
        differ = ((published - clamped).abs().amax(dim=1) > 0.5).nonzero()[:, 0].tolist()
        if differ:
            problems.append(
                f"{paths.boxes}: found {len(differ)} boxes ({_some([names[k] for k in differ])}) that are not those "
                "around the landmarks; expected the release's rule (they are used for the bench mapping as they are)"
            )
    return AFLW2000(
        root,
        "clone",
        names,
        landmarks,
        yaw,
        published,
        optional(lambda: read_rows(paths.reannotated, names, (2, NUM_LANDMARKS)).mT - _FIRST),
        optional(lambda: read_detections(paths.detected, names)),
        problems=tuple(problems),
    )


def _read_folder(folder: Path) -> AFLW2000:
    found, problems = [], []
    for path in sorted(folder.glob("*.mat")):
        try:
            face = read_annotation(path)
            if face.landmarks is None:
                raise FileFormatError(path, "no pt3d_68", "an annotation of AFLW2000-3D, with its landmarks")
            landmarks_box(face.landmarks)
        except TwodaslError as error:
            problems.append(str(error))
        else:
            found.append(face)
            if not path.with_suffix(".jpg").is_file():
                problems.append(f"{path.with_suffix('.jpg')}: found no such file; expected the photo of {path.name}")
    if not found:
        raise FileFormatError(folder, f"no usable annotation ({problems[0]})", _PLACES)
    landmarks = torch.stack([face.landmarks for face in found])
    return AFLW2000(
        folder,
        "folder",
        tuple(face.name for face in found),
        landmarks,
        torch.tensor([face.yaw for face in found], dtype=torch.float64),
        clamp_box(landmarks_box(landmarks), IMAGE_SIZE, IMAGE_SIZE),
        pose=torch.stack([face.pose for face in found]),
        shape=torch.stack([face.shape for face in found]),
        expression=torch.stack([face.expression for face in found]),
        problems=tuple(problems),
    )


_ARCHIVE_SHAPES = {
    "landmarks68": (3, NUM_LANDMARKS),
    "landmarks68_reannotated": (2, NUM_LANDMARKS),
    "yaw_deg": (),
    "pose7": (7,),
    "shape199": (199,),
    "expression29": (29,),
    "roi_box_clamped": (4,),
    "detected68_crop": (2, NUM_LANDMARKS),
}


def _load_archive(path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``, each with as many rows as there are names."""
    expected = f"an .npz of annotations with names, {', '.join(wanted)}"
    try:
        with np.load(path, allow_pickle=False) as content:
            missing = sorted({"names", *wanted} - set(content.files))
            if missing:
                raise FileFormatError(path, f"no array {', '.join(missing)}", expected)
            arrays = {name: content[name] for name in ("names", *wanted)}
    except FileFormatError:
        raise
    except Exception as error:  # damaged archives fail anywhere inside numpy and zipfile
        raise FileFormatError(path, f"a file that is not such an archive ({error})", expected) from error
    for name, array in arrays.items():
        if len(array) != len(arrays["names"]):
            raise FileFormatError(path, f"{len(array)} rows in {name}", f"{len(arrays['names'])}, one per name")
    return arrays


def _read_archive(path: Path) -> AFLW2000:
    arrays = _load_archive(path, tuple(_ARCHIVE_SHAPES))
    parts = {}
    for name, shape in _ARCHIVE_SHAPES.items():
        if arrays[name].shape[1:] != shape or not np.isfinite(arrays[name]).all():
            found = f"{name} of shape {arrays[name].shape}, or not finite"
            raise FileFormatError(path, found, f"finite numbers of shape (N, {', '.join(map(str, shape))})")
        parts[name] = torch.from_numpy(arrays[name].astype(np.float64))
    return AFLW2000(
        path,
        "archive",
        tuple(Path(str(name)).stem for name in arrays["names"]),
        parts["landmarks68"].mT - _ORIGIN,
        parts["yaw_deg"],
        parts["roi_box_clamped"] - _FIRST,
        parts["landmarks68_reannotated"].mT - _FIRST,
        parts["detected68_crop"].mT,
        parts["pose7"],
        parts["shape199"],
        parts["expression29"],
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _lines(path: Path, expected: str) -> list[str]:
    if not path.is_file():
        raise FileFormatError(path, "no such file", expected)
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise FileFormatError(path, "bytes that are not text", expected) from error


def read_names(path: Path) -> tuple[str, ...]:
    """Names without suffix from a list of pictures, one per line.

    Raises:
        FileFormatError: If the file is missing, empty, or names a picture twice.
    """
    names = tuple(Path(line).stem for line in _lines(path, "a list of pictures, one name a line"))
    if not names:
        raise FileFormatError(path, "an empty file", "a list of pictures, one name a line")
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise FileFormatError(path, f"{_some(twice)} more than once", "each picture once")
    return names


def read_rows(path: Path, names: Sequence[str], shape: tuple[int, ...]) -> torch.Tensor:
    """An array with one row per name, float64."""
    values = read_npy(path)
    if values.shape != (len(names), *shape):
        expected = (
            f"({', '.join(map(str, (len(names), *shape)))}), a row for each of the {len(names)} names of the list"
        )
        raise FileFormatError(path, f"shape {values.shape}", expected)
    if values.dtype.kind not in "uif" or not np.isfinite(values).all():
        raise FileFormatError(path, "values that are not finite numbers", "finite numbers")
    return torch.from_numpy(values.astype(np.float64))


def read_detections(path: str | os.PathLike[str], names: Sequence[str]) -> torch.Tensor:
    """Landmarks that a detector found, from the release's text file.

    A line is ``image00002.jpg,x1,y1,...,x68,y68`` in 0-based pixels of the crop; the coordinates are whole numbers and
    can be negative. Where detection failed, the line is a single number.

    Args:
        path: The file.
        names: Names of the wanted pictures, without suffix.

    Returns:
        ``(N, 68, 2)`` float64, NaN for pictures that are not in the file.

    Raises:
        FileFormatError: If the file is missing, or a line has any other form.
    """
    path = Path(path)
    place = {name: k for k, name in enumerate(names)}
    expected = f"a name and {2 * NUM_LANDMARKS} coordinates, with commas between"
    found = torch.full((len(names), NUM_LANDMARKS, 2), float("nan"), dtype=torch.float64)
    for number, line in enumerate(_lines(path, expected), start=1):
        cells = line.rstrip(",").split(",")
        if len(cells) == 1 and cells[0].isdigit():
            continue
        try:
            values = [float(cell) for cell in cells[1:]]
        except ValueError:
            values = []
        if len(values) != 2 * NUM_LANDMARKS or not np.isfinite(values).all():
            raise FileFormatError(path, f"{line[:60]!r} in line {number}", expected)
        name = Path(cells[0]).stem
        if name in place:
            found[place[name]] = torch.tensor(values, dtype=torch.float64).reshape(NUM_LANDMARKS, 2)
    return found


def read_basel_landmarks(path: str | os.PathLike[str]) -> tuple[MorphableModel, Whitening]:
    """The Basel Face Model restricted to its 68 landmarks, in micrometres, and the published whitening.

    Args:
        path: An ``.npz`` with ``mean`` (68, 3), ``shape`` (68, 3, 40), ``expression`` (68, 3, 10),
            ``coefficient_mean`` and ``coefficient_std`` (62).

    Raises:
        FileFormatError: If it is anything else.
    """
    path = Path(path)
    layout = CoefficientLayout()
    shapes = {
        "mean": (NUM_LANDMARKS, 3),
        "shape": (NUM_LANDMARKS, 3, layout.num_shape),
        "expression": (NUM_LANDMARKS, 3, layout.num_expression),
        "coefficient_mean": (layout.size,),
        "coefficient_std": (layout.size,),
    }
    expected = f"an .npz with {', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
    if not path.is_file():
        raise FileFormatError(path, "no such file", expected)
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: torch.from_numpy(content[name].astype(np.float64)) for name in shapes}
    except Exception as error:  # damaged archives fail anywhere inside numpy and zipfile
        raise FileFormatError(path, f"a file that is not such an archive ({error})", expected) from error
    for name, shape in shapes.items():
        if tuple(arrays[name].shape) != shape:
            raise FileFormatError(path, f"{name} of shape {tuple(arrays[name].shape)}", expected)
    whitening = Whitening(arrays["coefficient_mean"], arrays["coefficient_std"])
    deviations = Coefficients.unpack(whitening.std)
    model = MorphableModel(
        arrays["mean"],
        arrays["shape"],
        arrays["expression"],
        torch.zeros(0, 3, dtype=torch.int64),
        torch.arange(NUM_LANDMARKS),
        shape_std=deviations.shape,
        expression_std=deviations.expression,
        name="Basel Face Model, 68 landmarks",
        units="um",
    )
    return model, whitening
