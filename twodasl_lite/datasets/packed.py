"""Photographs in one file: AFLW's crops to learn from and the crops of AFLW2000-3D to be measured on.

Reading 21,080 small files and comparing each with the test set takes most of a minute, in every run anew; copying them
to another machine takes longer. A pack is one ``.npz`` with all that training and evaluation need: which crops may be
trained on (the comparison of :func:`twodasl_lite.datasets.aflw.training_set` is made once and its result kept), their
marked points and yaws, the test crops with landmarks, yaws, boxes, a detector's points and coefficients, and the
pictures as they were compressed.

* :func:`pack_photos` makes a pack of a clone of ``XgTu/2DASL``: with the pictures' own JPEG bytes, or compressed again
  as WebP, 45 MB at the default quality, to take along to a machine that has only the pack. On the 2,000 test crops
  compressed so, the balanced error of the network ``lite-+landmarks_2d`` of this package, which never saw a photograph,
  is 8.237 % in place of 8.229 with a detector's points, and 10.694 in place of 10.633 without.
* :func:`cached_pack` keeps the first kind for a clone in the cache folder, so that only the first run reads the files.
* :func:`read_packed` and :func:`read_test` read it. A pack is known by its content's checksum, not by its name.

The photographs are for research alone: a pack is not to be passed on.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from twodasl_lite.base.archive import read_archive, write_archive
from twodasl_lite.base.cache import CACHE_VARIABLE, cache_folder
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.datasets.aflw import AFLW_TO_18, Duplicate, read_aflw, training_set
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.face_batch import FaceBatch

FORMAT, VERSION = "twodasl_lite.photos", 1
QUALITY = 70
"""WebP quality, 0 to 100 (44.5 MB for the whole set; 55 at quality 80)."""

_TEST_ARRAYS = ("landmarks", "yaw", "published_boxes", "reannotated", "detected", "pose", "shape", "expression")
_NAMES, _PICTURES, _ENDS = "names", "pictures", "ends"
_NEEDED = (
    *(f"{part}_{name}" for part in ("train", "test") for name in (_NAMES, _PICTURES, _ENDS)),
    *("train_marked", "train_yaw", "test_landmarks", "test_yaw", "test_published_boxes"),
)

Progress = Callable[[int, int], None]


class Pictures(Mapping[str, np.ndarray]):
    """Compressed crops by name; what is asked for is decoded.

    Args:
        path: The pack, for messages.
        names: Of the crops.
        content: All their bytes, one after the other, ``(M,)`` uint8.
        ends: ``(N,)`` where each ends.
    """

    def __init__(self, path: Path, names: Sequence[str], content: np.ndarray, ends: np.ndarray) -> None:
        self.path, self.content = path, content
        starts = np.concatenate([[0], ends[:-1]])
        self._places = dict(zip(names, zip(starts.tolist(), ends.tolist(), strict=True), strict=True))

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self):
        return iter(self._places)

    def __getitem__(self, name: str) -> np.ndarray:
        """One crop, ``(120, 120, 3)`` RGB.

        Raises:
            FileFormatError: If it is damaged or of another size.
            KeyError: If there is none of that name.
        """
        start, end = self._places[name]
        picture = cv2.imdecode(self.content[start:end], cv2.IMREAD_COLOR)
        if picture is None or picture.shape != (CROP_SIZE, CROP_SIZE, 3):
            found = "a damaged picture" if picture is None else f"{picture.shape[1]}x{picture.shape[0]} pixels"
            raise FileFormatError(self.path, f"{found} under {name}", f"a crop of {CROP_SIZE}x{CROP_SIZE}")
        return picture[..., ::-1]


@dataclass(frozen=True)
class Packed:
    """The crops that may be trained on: a :class:`~twodasl_lite.datasets.stream.FaceSet` of 2D-only pictures.

    Attributes:
        path: The pack.
        names: N names without suffix.
        marked: ``(N, 21, 2)`` AFLW's points in crop pixels, NaN where hidden.
        yaw: ``(N,)`` degrees.
        pictures: The crops.
        duplicates: Pairs (test picture, its copy) whose copies were left out.
        problems: What could not be used when the pack was made.
        quality: Of WebP; None: the pictures are as they were published.
    """

    path: Path
    names: tuple[str, ...]
    marked: torch.Tensor
    yaw: torch.Tensor
    pictures: Pictures
    duplicates: tuple[Duplicate, ...] = ()
    problems: tuple[str, ...] = ()
    quality: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, index: torch.Tensor | Sequence[int], progress: Progress | None = None) -> FaceBatch:
        """Pictures at ``(B,)`` indices, with the points that can be seen: those of the landmark map, and all as marked.

        Args:
            index: Which.
            progress: Called with how many are decoded and how many there are.

        Raises:
            FileFormatError: If a picture is damaged.
        """
        index = torch.as_tensor(index, dtype=torch.int64)
        images = torch.empty(len(index), 3, CROP_SIZE, CROP_SIZE, dtype=torch.uint8)
        parts = list(torch.arange(len(index)).split(500))

        def decode(rows: torch.Tensor) -> None:
            for row in rows.tolist():
                images[row] = torch.from_numpy(self.pictures[self.names[index[row]]].copy()).permute(2, 0, 1)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(decode, parts), 1):
                if progress is not None:
                    progress(min(500 * done, len(index)), len(index))
        marked = self.marked[index]  # (B, 21, 2)
        points = marked[:, AFLW_TO_18]  # (B, 18, 2)
        return FaceBatch(images, points, torch.isfinite(points).all(dim=-1), yaw=self.yaw[index], marked=marked)


# ------------------------------------------------------------------------------------------------------------ making
def pack_photos(
    root: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    quality: int | None = QUALITY,
    progress: Progress | None = None,
) -> Packed:
    """Make a pack, whole or not at all.

    Args:
        root: A clone of ``XgTu/2DASL``.
        path: Where the pack goes.
        quality: Of WebP, from 0 to 100; None keeps the pictures as they are.
        progress: Called with how many pictures are read and how many there are.

    Returns:
        The pack.

    Raises:
        FileFormatError: If the clone lacks something.
        ValueRangeError: If there is no such quality.
    """
    if quality is not None and not (isinstance(quality, int) and 0 <= quality <= 100):
        raise ValueRangeError(f"quality: found {quality!r}; expected a whole number from 0 to 100, or None")
    root = Path(root)
    test, faces = read_aflw2000(root), read_aflw(root)
    allowed = training_set(faces, test.names, test.crop, progress=progress)
    try:
        annotated = test.with_annotations()
    except TwodaslError:
        annotated = test
    if annotated.names == test.names:  # else some file is unreadable, and the pack goes without
        test = annotated
    train = allowed.faces
    arrays: dict[str, np.ndarray | torch.Tensor] = {"train_marked": train.landmarks.float(), "train_yaw": train.yaw}
    arrays |= _pictures("train", train.names, lambda name: _file_or_pixels(train.folder, name), quality)
    arrays |= _pictures("test", test.names, lambda name: _file_or_pixels(test.crop_folder, name, test.crop), quality)
    for name in _TEST_ARRAYS:
        value = getattr(test, name)
        if value is not None:
            arrays[f"test_{name}"] = value if name == "yaw" else value.float()
    facts = {
        "quality": quality,
        "duplicates": [list(pair) for pair in allowed.duplicates],
        "problems": list(allowed.problems),
        "test_problems": list(test.problems),
        "sha256": _checksum(arrays),
    }
    write_archive(path, FORMAT, VERSION, arrays, facts, compress=quality is not None)
    return read_packed(path)


def cached_pack(root: str | os.PathLike[str], progress: Progress | None = None) -> Packed:
    """The pack of a clone, its pictures as published, from the cache or made there.

    It is made anew when a file of the clone was added, removed or changed: the cache knows it by the names, sizes and
    times of all of them.

    Args:
        root: A clone of ``XgTu/2DASL``.
        progress: Called with how many pictures are read and how many there are.

    Raises:
        FileFormatError: If the clone lacks something.
    """
    root = Path(root)
    base = root / "test_codes" if (root / "test_codes").is_dir() else root
    digest = hashlib.sha256(f"{FORMAT} {VERSION} {base.resolve()}".encode())
    places = [base / "test.configs", *(base / "test.data" / name for name in ("AFLW_GT_crop", "AFLW2000-3D_crop"))]
    for place in [base / "test.data", *places]:
        if place.is_dir():
            with os.scandir(place) as entries:
                found = sorted((entry.name, entry.stat()) for entry in entries if entry.is_file())
            for name, facts in found:
                digest.update(f"{place.name}/{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    path = cache_folder() / "photos" / f"{digest.hexdigest()[:16]}.pack"
    if path.is_file():
        try:
            return read_packed(path)
        except FileFormatError:
            pass  # damaged: made again
    try:
        return pack_photos(root, path, quality=None, progress=progress)
    except OSError as error:
        raise TwodaslError(
            f"{path}: the photographs could not be kept ({error}); expected room for 0.14 GB, or another place in "
            f"{CACHE_VARIABLE}"
        ) from error


def _file_or_pixels(
    folder: Path | None, name: str, read: Callable[[str], np.ndarray] | None = None
) -> bytes | np.ndarray:
    """A crop's own file where there is one, else its pixels."""
    if folder is not None and (folder / f"{name}.jpg").is_file():
        return (folder / f"{name}.jpg").read_bytes()
    return read(name)


def _pictures(
    part: str, names: Sequence[str], read: Callable[[str], bytes | np.ndarray], quality: int | None
) -> dict[str, np.ndarray]:
    """Names, bytes and their ends as arrays."""

    def compressed(name: str) -> bytes:
        content = read(name)
        if isinstance(content, bytes) and quality is None:
            return content
        if isinstance(content, bytes):
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        else:
            pixels = np.ascontiguousarray(content[..., ::-1])
        suffix, options = (".png", []) if quality is None else (".webp", [cv2.IMWRITE_WEBP_QUALITY, quality])
        return cv2.imencode(suffix, pixels, options)[1].tobytes()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = list(pool.map(compressed, names))
    return {
        f"{part}_{_NAMES}": np.frombuffer("\n".join(names).encode(), np.uint8),
        f"{part}_{_PICTURES}": np.frombuffer(b"".join(contents), np.uint8),
        f"{part}_{_ENDS}": np.cumsum([len(content) for content in contents], dtype=np.int64),
    }


def _checksum(arrays: Mapping[str, np.ndarray | torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        value = np.ascontiguousarray(np.asarray(arrays[name]))
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.data.cast("B") if value.size else b"")
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------------- reading
def is_pack(path: str | os.PathLike[str]) -> bool:
    """Whether a file looks like a pack, of whatever version; its content is not read."""
    try:
        with zipfile.ZipFile(path) as content:
            return {f"train_{_PICTURES}.npy", f"test_{_PICTURES}.npy"} <= set(content.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _read(path: str | os.PathLike[str]) -> tuple[Path, dict[str, torch.Tensor], dict[str, object]]:
    path = Path(path)
    arrays, facts = read_archive(path, FORMAT, VERSION, _NEEDED)
    if _checksum(arrays) != facts.get("sha256"):
        raise FileFormatError(path, "a content that differs from its checksum", "a whole pack of photographs")
    return path, arrays, facts


def _of(path: Path, arrays: Mapping[str, torch.Tensor], part: str) -> tuple[tuple[str, ...], Pictures]:
    names = tuple(arrays[f"{part}_{_NAMES}"].numpy().tobytes().decode().split("\n"))
    content, ends = arrays[f"{part}_{_PICTURES}"].numpy(), arrays[f"{part}_{_ENDS}"].numpy()
    if len(names) != len(ends) or len(content) != ends[-1]:
        raise FileFormatError(path, f"{len(names)} names for {len(ends)} pictures", "a picture for each name")
    return names, Pictures(path, names, content, ends)


def read_packed(path: str | os.PathLike[str]) -> Packed:
    """The crops of a pack that may be trained on.

    Args:
        path: The pack.

    Raises:
        FileFormatError: If it is missing, damaged, or of another version.
    """
    path, arrays, facts = _read(path)
    names, pictures = _of(path, arrays, "train")
    return Packed(
        path,
        names,
        arrays["train_marked"],
        arrays["train_yaw"].float(),
        pictures,
        tuple(Duplicate(*pair) for pair in facts.get("duplicates", [])),
        tuple(facts.get("problems", [])),
        facts.get("quality"),
    )


def read_test(path: str | os.PathLike[str]) -> AFLW2000:
    """The test set of a pack, as :func:`~twodasl_lite.datasets.aflw2000.read_aflw2000` gives it; crops alone.

    Args:
        path: The pack.

    Raises:
        FileFormatError: If it is missing, damaged, or of another version.
    """
    path, arrays, facts = _read(path)
    names, pictures = _of(path, arrays, "test")
    known = {name: arrays[f"test_{name}"].double() for name in _TEST_ARRAYS if f"test_{name}" in arrays}
    return AFLW2000(path, "pack", names, **known, crops=pictures, problems=tuple(facts.get("test_problems", [])))
