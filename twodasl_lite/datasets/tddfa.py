"""3DDFA's training set: 300W-LP and AFLW, augmented, cropped to 120 x 120, with whitened coefficients.

``cleardusk/3DDFA`` publishes a folder of crops, ``train_aug_120x120`` (636,252 pictures), a list of their names,
``train_aug_120x120.list.train``, the coefficients in the same order, ``param_all_norm.pkl``, whitened with
``param_whitening.pkl``, and the same for validation (``.val``). Later sets have further columns after the 62; they are
not used. Its pickles are read as data; nothing in them is executed.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.datasets.annotations import check_raw_basel
from twodasl_lite.datasets.real import THREADS, LabelledPictures, Report
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import read_whitening
from twodasl_lite.faces.readers.safe_pickle import load_pickle
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.photos import read_photo

LIST_TRAIN, PARAMS_TRAIN = "train_aug_120x120.list.train", "param_all_norm.pkl"
LIST_VALIDATION, PARAMS_VALIDATION = "train_aug_120x120.list.val", "param_all_norm_val.pkl"

_MAX_LIST = 2**28  # bytes; the published list has 30 MB


class TDDFACrops(LabelledPictures):
    """3DDFA's training set of crops.

    Args:
        pictures: Folder of the crops.
        names: File with their names, one per line.
        parameters: Pickle of their whitened coefficients, ``(N, 62)`` or more columns.
        model: The Basel Face Model of 3DDFA, 40 + 10: ``read_face_model("train.configs")``.
        whitening: ``param_whitening.pkl`` or its folder; the folder of ``parameters`` by default.
        check: Whether to check first that every picture exists; missing ones are left out.
        seed: Seed of the simulated detector.
        visibility: Whether to compute which landmarks the face itself hides.
        threads: Number of pictures that are read at a time.
        report: Called with a line for each picture that is left out.

    Attributes:
        problems: The lines passed to ``report``.

    Raises:
        FileFormatError: If a file is missing, damaged, of another kind, or the files do not belong together.
        ValueRangeError: If the model is not 3DDFA's.

    Example:
        >>> configs = Path("train.configs")  # doctest: +SKIP
        >>> faces = TDDFACrops(  # doctest: +SKIP
        ...     "train_aug_120x120", configs / LIST_TRAIN, configs / PARAMS_TRAIN, read_face_model(configs)
        ... )
    """

    kind = "3DDFA's crops"

    def __init__(
        self,
        pictures: str | os.PathLike[str],
        names: str | os.PathLike[str],
        parameters: str | os.PathLike[str],
        model: MorphableModel,
        *,
        whitening: str | os.PathLike[str] | None = None,
        check: bool = True,
        seed: int = 0,
        visibility: bool = False,
        threads: int = THREADS,
        report: Report | None = None,
    ) -> None:
        check_raw_basel(model)
        if model.layout != CoefficientLayout():
            found = f"{model.num_shape} + {model.num_expression} coefficients"
            raise ValueRangeError(f"model: found {found}; expected 3DDFA's 40 + 10")
        self.folder = Path(pictures)
        if not self.folder.is_dir():
            raise FileFormatError(self.folder, "no such folder", "the folder of crops")
        listed = _read_names(Path(names))
        whitened = _read_parameters(Path(parameters), len(listed), Path(names))
        source = Path(parameters).parent if whitening is None else whitening
        coefficients = read_whitening(source, units=model.units).unwhiten(whitened)
        self.problems: list[str] = []
        kept = list(range(len(listed)))
        if check:
            kept = [k for k in kept if (self.folder / listed[k]).is_file()]
            present = set(kept)
            for k in range(len(listed)):
                if k not in present:
                    self.problems.append(f"{self.folder / listed[k]}: found no such file; expected a crop")
                    if report is not None:
                        report(self.problems[-1])
        if not kept:
            raise FileFormatError(self.folder, f"none of the {len(listed)} pictures of {names}", "the crops it lists")
        super().__init__(
            model,
            coefficients[kept],
            [listed[k] for k in kept],
            seed=seed,
            visibility=visibility,
            threads=threads,
        )

    def picture(self, index: int) -> np.ndarray:
        """One crop, ``(120, 120, 3)`` uint8 RGB."""
        path = self.folder / self.names[index]
        photo = read_photo(path)
        if photo.shape[:2] != (CROP_SIZE, CROP_SIZE):
            found = f"a picture of {photo.shape[1]}x{photo.shape[0]} pixels"
            raise FileFormatError(path, found, f"a crop of {CROP_SIZE}x{CROP_SIZE}")
        return photo


def _read_names(path: Path) -> list[str]:
    expected = "a list of pictures, one name a line"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    if path.stat().st_size > _MAX_LIST:
        raise FileFormatError(path, f"{path.stat().st_size} bytes", f"{expected}, at most {_MAX_LIST} bytes")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FileFormatError(path, "bytes that are not UTF-8 text", expected) from error
    while lines and not lines[-1].strip():
        lines.pop()
    names = [line.strip() for line in lines]
    for number, name in enumerate(names, start=1):
        place = PurePosixPath(name)
        if not name or place.is_absolute() or ".." in place.parts or "\0" in name:
            raise FileFormatError(path, f"{name!r:.60} in line {number}", "a name within the folder of crops")
    if not names:
        raise FileFormatError(path, "no name", expected)
    return names


def _read_parameters(path: Path, count: int, names: Path) -> torch.Tensor:
    """The whitened coefficients ``(N, 62)``."""
    size = CoefficientLayout().size
    content = load_pickle(path)
    expected = f"an array of {count} rows, one for each line of {names.name}, and {size} columns or more"
    if not isinstance(content, np.ndarray) or content.dtype.kind != "f" or content.ndim != 2:
        found = f"an array of shape {content.shape}" if isinstance(content, np.ndarray) else type(content).__name__
        raise FileFormatError(path, found, expected)
    if content.shape[0] != count or content.shape[1] < size:
        raise FileFormatError(path, f"an array of shape {content.shape}", expected)
    values = content[:, :size].astype(np.float32)
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise FileFormatError(path, f"NaN or infinity in {int(bad.sum())} rows, first in {int(bad.argmax())}", expected)
    return torch.from_numpy(values)
