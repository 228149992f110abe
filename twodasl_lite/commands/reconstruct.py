"""``twodasl reconstruct``: faces from your own photos, folders of photos and videos."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from twodasl_lite.archive import whole_file
from twodasl_lite.camera import split_pose
from twodasl_lite.commands.progress import ProgressBar
from twodasl_lite.errors import (
    FileFormatError,
    InputTypeError,
    MissingDependencyError,
    TwodaslError,
    ValueRangeError,
)
from twodasl_lite.export import FORMATS, export_mesh
from twodasl_lite.images import as_photo, read_photo, write_photo
from twodasl_lite.landmarks import read_landmarks, write_landmarks
from twodasl_lite.morphable import MorphableModel, load_face_model, read_face_model
from twodasl_lite.networks import TrainedRegressor, load_regressor
from twodasl_lite.reconstruct import Reconstruction, Track, Tracker, YuNet, reconstruct
from twodasl_lite.texture import photo_colours
from twodasl_lite.viz.alignment import LARGEST, dense_picture, depth_and_coordinates, overlay_picture

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_FORMAT, _VERSION = "twodasl_lite.reconstruction", 1
_LANDMARK_FILES = (".csv", ".pts")
_DEFAULT_FPS = 25.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what the subcommand takes."""
    parser.add_argument("photo", type=Path, nargs="+", metavar="PHOTO", help="a picture, a folder of them, or a video")
    parser.add_argument("--out", type=Path, default=Path("reconstructed"), metavar="DIR", help="default: reconstructed")
    where = parser.add_argument_group("where the faces are (one of these)")
    where.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="around a face, in pixels of the upright photo (of a video: of its first frame); once for each face",
    )  # fmt: skip
    where.add_argument(
        "--landmarks", type=Path, action="append", metavar="FILE",
        help="68 landmarks, .csv or .pts, once for each face; or a folder with one file per picture, named like it",
    )  # fmt: skip
    where.add_argument("--detector", type=Path, metavar="FILE", help="OpenCV's YuNet (.onnx) finds the faces")
    where.add_argument("--whole", action="store_true", help="each picture is a face cut out already")
    parser.add_argument("--min-score", type=float, default=0.7, metavar="S", help="of the detector (default: 0.7)")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a trained network (default: the one that comes along)"
    )
    parser.add_argument(
        "--face-model", type=Path, metavar="FILE", help="that the network was trained with (default: the package's)"
    )
    parser.add_argument(
        "--mesh", choices=[*(suffix[1:] for suffix in FORMATS), "none"], help="kind of the mesh file (default: obj)"
    )
    parser.add_argument(
        "--smoothing", type=float, default=0.5, metavar="S",
        help="of a video's coefficients: the part of the old in the new, 0 to below 1 (default: 0.5)",
    )  # fmt: skip
    parser.add_argument("--frames", action="store_true", help="write a video's frames as pictures, not as a video")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    given = [name for name in ("box", "landmarks", "detector", "whole") if getattr(options, name)]
    if len(given) != 1:
        found = ", ".join(f"--{name}" for name in given) or "none"
        raise InputTypeError(f"found {found}; expected one of --box, --landmarks, --detector, --whole")
    if not 0 <= options.smoothing < 1:
        raise ValueRangeError(f"--smoothing: found {options.smoothing}; expected 0 or more and below 1")
    files = _files(options.photo)
    landmark_folder = bool(options.landmarks) and options.landmarks[0].is_dir()
    if len(files) > 1 and (options.box or (options.landmarks and not landmark_folder)):
        raise InputTypeError(f"--{given[0]}: found with {len(files)} files; expected one file, or --detector")
    for file in files:
        if options.whole and file.suffix.lower() in VIDEOS:
            raise InputTypeError(f"--whole: found with the video {file}; expected pictures")
    work = _Work(options)
    problems = _Problems()
    bar = ProgressBar("reconstructing")
    for done, file in enumerate(files):
        if len(files) > 1:
            bar(done, len(files))
        with problems.of(file):
            (work.video if file.suffix.lower() in VIDEOS else work.photo)(file)
    if len(files) > 1:
        bar(len(files), len(files))
        print(f"{len(files) - problems.count} of {len(files)} files reconstructed, in {options.out}")
    if problems.count:
        if len(files) == 1:
            raise problems.last
        raise TwodaslError(f"{problems.count} of {len(files)} files could not be reconstructed, see above")


def _files(places: Sequence[Path]) -> list[Path]:
    """Pictures and videos, those of folders in the order of their names."""
    files: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = sorted(p for p in place.iterdir() if p.suffix.lower() in (*PICTURES, *VIDEOS) and p.is_file())
            if not inside:
                raise FileFormatError(place, "a folder without pictures", f"files {', '.join(PICTURES + VIDEOS)}")
            files += inside
        else:
            files.append(place)
    names = [file.name for file in files]
    for name in names:
        if names.count(name) > 1:
            raise InputTypeError(f"found {names.count(name)} files named {name}; expected different names")
    return files


class _Problems:
    """Keeps count of files that failed, and says why, without ending the run."""

    def __init__(self) -> None:
        self.count, self.last = 0, None

    @contextmanager
    def of(self, file: Path) -> Iterator[None]:
        try:
            yield
        except MissingDependencyError:  # would fail for every other file, too
            raise
        except (TwodaslError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            if not isinstance(error, TwodaslError):
                error = TwodaslError(text)
            self.count, self.last = self.count + 1, error
            print(f"problem: {text if str(file) in text else f'{file}: {text}'}", file=sys.stderr)


class _Work:
    """What is loaded once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        device = options.device
        if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
            raise ValueRangeError(f"--device: found {device!r}; expected cpu, or cuda on a machine that has it")
        self.detector = YuNet(options.detector, options.min_score) if options.detector else None
        self.trained, self.network_name = _network(options)
        model = load_face_model() if options.face_model is None else read_face_model(options.face_model)
        self.model: MorphableModel = model.with_layout(self.trained.layout).to(torch.float32)

    # ------------------------------------------------------------------------------------------------------ where
    def places(self, file: Path, photo: np.ndarray) -> dict[str, object]:
        """Arguments of ``reconstruct`` that say where the faces are."""
        if self.detector is not None:
            return {"detector": self.detector}
        if self.options.box:
            return {"boxes": torch.tensor(self.options.box)}
        if self.options.whole:
            return {"crop_boxes": torch.tensor([0.0, 0.0, photo.shape[1] - 1, photo.shape[0] - 1])}
        paths = self.options.landmarks
        if paths[0].is_dir():
            paths = [paths[0] / f"{file.stem}{suffix}" for suffix in _LANDMARK_FILES]
            paths = [path for path in paths if path.is_file()][:1]
            if not paths:
                wanted = f"{file.stem}{' or '.join(_LANDMARK_FILES)}"
                raise FileFormatError(self.options.landmarks[0], f"no landmarks of {file.name}", wanted)
        read = [read_landmarks(path) for path in paths]
        return {"landmarks": torch.stack([r.points for r in read]), "visible": torch.stack([r.visible for r in read])}

    # ----------------------------------------------------------------------------------------------------- a photo
    def photo(self, file: Path) -> None:
        """Reconstruct one picture and write everything about it, all or nothing."""
        photo = read_photo(file)
        faces = reconstruct(photo, self.trained, self.model, **self.places(file, photo))
        if not faces:
            raise ValueRangeError(f"{file}: found no face; expected one with a score of {self.options.min_score:g}")
        for number, face in enumerate(faces, 1):
            _note_border(file, number, face)
            pitch, yaw, roll = face.angles.tolist()
            if len(self.options.photo) == 1 and self.options.photo[0] == file:
                print(f"face {number}: pitch {pitch:.0f}, yaw {yaw:.0f}, roll {roll:.0f} degrees")
        with _whole_folder(self.options.out / file.name) as folder:
            self._write(folder, file, photo, faces)
        if self.options.photo == [file]:
            print(f"written: {self.options.out / file.name}")

    def _write(self, folder: Path, file: Path, photo: np.ndarray, faces: list[Reconstruction]) -> None:
        vertices = [face.vertices for face in faces]
        largest = max(photo.shape)
        if largest > LARGEST:
            print(f"note: {file}: a large photo, drawn at {LARGEST / largest:.0%} of its size", file=sys.stderr)
        landmarks = [face.landmarks for face in faces]
        write_photo(folder / "overlay.png", overlay_picture(photo, vertices, self.model, landmarks=landmarks))
        write_photo(folder / "dense.png", dense_picture(photo, vertices, self.model))
        depth, coordinates = depth_and_coordinates(photo, vertices, self.model)
        write_photo(folder / "depth.png", depth)
        write_photo(folder / "pncc.png", coordinates)
        head = self._head(file, photo.shape[1], photo.shape[0])
        _write_json(folder / "pose.json", {**head, "faces": [_pose(face) for face in faces]})
        _write_json(folder / "coefficients.json", {**head, "faces": [self._numbers(face) for face in faces]})
        for number, face in enumerate(faces, 1):
            write_landmarks(folder / f"face-{number}.csv", face.landmarks[:, :2])
            self._write_mesh(folder / f"face-{number}", file, photo, face)

    def _write_mesh(self, stem: Path, file: Path, photo: np.ndarray, face: Reconstruction) -> None:
        if self.options.mesh == "none":
            return
        _, shape, expression = face.unpack(self.model)
        surface = self.model.decode(shape[None], expression[None])[0]
        try:
            colours = photo_colours(photo, face.vertices, self.model)
        except ValueRangeError as error:
            print(f"note: {file}: a mesh without colours: {error}", file=sys.stderr)
            colours = None
        path = stem.with_name(f"{stem.name}.{self.options.mesh or 'obj'}")
        try:
            export_mesh(path, surface, self.model.triangles, colours, units=self.model.units)
        except MissingDependencyError as error:
            if self.options.mesh:  # asked for by name
                raise
            print(f"note: no mesh: {error}", file=sys.stderr)
            self.options.mesh = "none"

    # ----------------------------------------------------------------------------------------------------- a video
    def video(self, file: Path) -> None:
        """Follow the faces of a video and write it with them drawn over it, all or nothing."""
        frames, total, fps = _open_video(file)
        bar = ProgressBar(file.name)
        tracker, lines, numbers = None, [], set()
        with _whole_folder(self.options.out / file.name) as folder:
            writer = _Frames(folder) if self.options.frames else _Video(folder / "overlay.mp4", fps)
            try:
                for index, frame in enumerate(frames):
                    if tracker is None:
                        places = self.places(file, frame)
                        start = None if self.detector is not None else places
                        tracker = Tracker(
                            self.trained, self.model, smoothing=self.options.smoothing, detector=self.detector,
                            start=start,
                        )  # fmt: skip
                    tracks = tracker.step(frame)
                    lines += [{"frame": index, "face": t.number, **self._numbers(t.face)} for t in tracks]
                    numbers |= {track.number for track in tracks}
                    writer.add(self._draw(frame, tracks))
                    bar(index + 1, max(total, index + 1))
            finally:
                writer.close()
            if tracker is None:
                raise FileFormatError(file, "a video without a frame that can be read", "a video")
            if not numbers:
                raise ValueRangeError(f"{file}: found no face in any frame; expected one")
            head = self._head(file, frame.shape[1], frame.shape[0]) | {"frames": index + 1, "frames_per_second": fps}
            head["smoothing"] = self.options.smoothing
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in [head, *lines])
            with whole_file(folder / "coefficients.jsonl") as output:
                output.write(text.encode())
        print(f"{file}: {index + 1} frames, {len(numbers)} face{'' if len(numbers) == 1 else 's'}")
        if self.options.photo == [file]:
            print(f"written: {self.options.out / file.name}")

    def _draw(self, frame: np.ndarray, tracks: list[Track]) -> np.ndarray:
        faces = [track.face.vertices for track in tracks]
        # The video keeps the size of its frames.
        return overlay_picture(frame, faces, self.model, largest=max(frame.shape), smallest=1)

    # ------------------------------------------------------------------------------------------------- as numbers
    def _head(self, file: Path, width: int, height: int) -> dict[str, object]:
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "photo": file.name,
            "width": width,
            "height": height,
            "network": self.network_name,
            "face_model": self.model.name,
            "layout": [self.model.num_shape, self.model.num_expression],
            "units": self.model.units,
            "frame": "pose: model units to pixels of the photo, x right and y up from (1, 1) at the lower left pixel; "
            "landmarks: pixels from (0, 0) at the upper left, y down",
        }

    def _numbers(self, face: Reconstruction) -> dict[str, object]:
        pose, shape, expression = face.unpack(self.model)
        return {
            "pose": pose.tolist(),
            "shape": shape.tolist(),
            "expression": expression.tolist(),
            "crop_box": face.crop_box.round().int().tolist(),
            "landmarks": [[round(value, 3) for value in point] for point in face.landmarks.tolist()],
        }


def _pose(face: Reconstruction) -> dict[str, object]:
    scale, rotation, translation = split_pose(face.coefficients[:12].reshape(3, 4))
    pitch, yaw, roll = face.angles.tolist()
    return {
        "pitch_degrees": pitch,
        "yaw_degrees": yaw,
        "roll_degrees": roll,
        "scale": float(scale),
        "rotation": rotation.tolist(),
        "translation": translation.tolist(),
        "inside_photo": face.inside,
    }


def _network(options: argparse.Namespace) -> tuple[TrainedRegressor, str]:
    if options.checkpoint is not None:
        return load_regressor(options.checkpoint, options.device), options.checkpoint.name
    from twodasl_lite.trained import trained_regressor

    return trained_regressor(device=options.device), "the one that comes with twodasl_lite"


def _note_border(file: Path, number: int, face: Reconstruction) -> None:
    outside = 1 - face.inside
    if outside > 0:
        print(
            f"note: {file}: face {number} is cut by the border of the picture: {outside:.0%} of its landmarks lie "
            "beyond it and are guessed",
            file=sys.stderr,
        )


def _write_json(path: Path, content: object) -> None:
    with whole_file(path) as file:
        file.write((json.dumps(content, indent=1, allow_nan=False) + "\n").encode())


# --------------------------------------------------------------------------------------------- folders and videos
@contextmanager
def _whole_folder(place: Path) -> Iterator[Path]:
    """A folder to write in whose files move to their place when all are there; older ones of their kind go."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and not place.is_dir():
        raise FileFormatError(place, "a file", "a folder, or nothing yet")
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=".part"))
    try:
        yield temporary
        place.mkdir(exist_ok=True)
        for stale in (*place.glob("face-[0-9]*.*"), *place.glob("frame-[0-9]*.png")):
            stale.unlink()
        for file in sorted(temporary.iterdir()):
            os.replace(file, place / file.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_video(file: Path) -> tuple[Iterator[np.ndarray], int, float]:
    """RGB frames, their number (0 if unknown) and how many a second."""
    expected = "a video that OpenCV reads"
    if not file.is_file():
        raise FileFormatError(file, "no such file", expected)
    capture = cv2.VideoCapture(os.fspath(file))
    if not capture.isOpened():
        raise FileFormatError(file, "a file that is no video, or one of an unknown kind", expected)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    total = capture.get(cv2.CAP_PROP_FRAME_COUNT)

    def frames() -> Iterator[np.ndarray]:
        try:
            while True:
                done, frame = capture.read()
                if not done:
                    return
                yield np.ascontiguousarray(as_photo(frame)[..., ::-1])
        finally:
            capture.release()

    known = math.isfinite(fps) and 0 < fps <= 1000
    return frames(), int(total) if math.isfinite(total) and total > 0 else 0, fps if known else _DEFAULT_FPS


class _Video:
    """Frames that become a video."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self._writer = path, fps, None

    def add(self, frame: np.ndarray) -> None:
        if self._writer is None:
            size = frame.shape[1], frame.shape[0]
            self._writer = cv2.VideoWriter(os.fspath(self.path), cv2.VideoWriter_fourcc(*"mp4v"), self.fps, size)
            if not self._writer.isOpened():
                raise OSError(f"{self.path.name}: this OpenCV cannot write MP4; use --frames")
        self._writer.write(np.ascontiguousarray(frame[..., ::-1]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


class _Frames:
    """Frames that become pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0

    def add(self, frame: np.ndarray) -> None:
        write_photo(self.folder / f"frame-{self._count:06}.png", frame)
        self._count += 1

    def close(self) -> None:
        pass
