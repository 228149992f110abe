"""``twodasl reconstruct``: reconstruct faces from your own photos, folders of photos and videos."""

from __future__ import annotations

import argparse
import glob
import json
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from twodasl_lite.apps.commands.progress import ProgressBar
from twodasl_lite.apps.detection import MIN_SCORE, YuNet, cached_detector
from twodasl_lite.apps.export import FORMATS, export_mesh, export_textured_mesh
from twodasl_lite.apps.face_search import search_faces
from twodasl_lite.apps.landmark_files import SUFFIXES, LandmarkFile, check_landmarks, read_landmark_file
from twodasl_lite.apps.reconstruction import Reconstruction, look_at_mirror_images, reconstruct, refine
from twodasl_lite.apps.tracking import Track, Tracker
from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import (
    FileFormatError,
    InputTypeError,
    MissingDependencyError,
    TwodaslError,
    ValueRangeError,
)
from twodasl_lite.faces import MorphableModel, load_face_model, read_face_model
from twodasl_lite.faces.symmetry import LARGEST_RESIDUAL, coefficient_mirror
from twodasl_lite.faces.texture import face_triangles, photo_colours, photo_texture
from twodasl_lite.faces.unwrap import Unwrapped, unwrap
from twodasl_lite.geometry.camera import split_pose
from twodasl_lite.geometry.landmarks import write_landmarks
from twodasl_lite.geometry.photos import as_photo, read_photo, write_photo
from twodasl_lite.networks import TrainedRegressor, load_regressor
from twodasl_lite.render import rasterize
from twodasl_lite.viz.alignment import (
    LARGEST,
    Canvas,
    dense_picture,
    depth_and_coordinates,
    face_windows,
    overlay_picture,
    quick_overlay,
)
from twodasl_lite.viz.viewer import ViewedFace, face_viewer_html

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
_PHONES = (".heic", ".heif")  # OpenCV cannot read them; read_photo explains what to do
_FORMAT, _VERSION = "twodasl_lite.apps.reconstruction", 1
_MANIFEST, _MANIFEST_FORMAT = "files.json", "twodasl_lite.files"
_DEFAULT_FPS = 25.0
_OPACITY = 0.6  # of the surface drawn over the photo
_CLOSE, _FAR = 0.02, 0.2  # mean distance of the prediction from the given landmarks, over the face's size
_TERMINATED = 143
CONVENTIONS = {
    "angles": "degrees; rotation = Rx(pitch) Ry(yaw) Rz(roll), which maps the face's axes (x to the right of the "
    "picture, y up, z towards the viewer) to the picture's",
    "pitch": "positive: the face looks up",
    "yaw": "positive: the nose points to the left of the picture",
    "roll": "positive: the top of the head leans to the right of the picture",
    "scale": "pixels of the photo per unit of the face model",
    "translation": "pixels from (1, 1) at the lower left pixel of the photo, x right, y up; z is a convention, as weak "
    "perspective sees no depth",
}
"""Meaning of the numbers in ``pose.json``."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of this subcommand."""
    parser.description = (
        "Reconstruct faces from your own photos and videos. By default, the face detector of `twodasl models get "
        "yunet` finds the faces; without it, the network searches the picture, which is slower and misses more faces."
    )
    parser.add_argument("photo", type=Path, nargs="+", metavar="PHOTO", help="a picture, a folder of them, or a video")
    parser.add_argument(
        "--out", type=Path, default=Path("reconstructed"), metavar="DIR", help="results (default: reconstructed)"
    )
    where = parser.add_argument_group("where the faces are (at most one of these; default: the faces are searched for)")
    where.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="rough box around a face, from the brows to the chin and from ear to ear, in pixels of the upright photo "
        "(for a video: of its first frame); repeat it for each face",
    )  # fmt: skip
    where.add_argument(
        "--landmarks", type=Path, action="append", metavar="FILE",
        help=f"file of 68 or 98 landmarks ({', '.join(SUFFIXES)}), repeat it for each face; or a folder with one file "
        "per picture, of the same name",
    )  # fmt: skip
    where.add_argument("--detector", type=Path, metavar="FILE", help="a copy of OpenCV's YuNet (.onnx)")
    where.add_argument("--whole", action="store_true", help="each picture is already a face crop")
    parser.add_argument(
        "--min-score",
        type=float,
        default=MIN_SCORE,
        metavar="S",
        help=f"lowest score of a face, 0 to 1 (default: {MIN_SCORE:g})",
    )
    parser.add_argument(
        "--refine", action="store_true",
        help="with --landmarks: fit the prediction to all of them (the network sees only 18 and matches them roughly)",
    )  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a trained network (default: the packaged one)")
    parser.add_argument(
        "--no-mirror", action="store_true",
        help="predict from the photo alone, not from its mirror image too (which takes longer and errs less)",
    )  # fmt: skip
    parser.add_argument(
        "--face-model", type=Path, metavar="FILE", help="face model of the network (default: the packaged one)"
    )
    parser.add_argument(
        "--mesh", choices=[*(suffix[1:] for suffix in FORMATS), "none"], help="format of the mesh file (default: obj)"
    )
    parser.add_argument(
        "--texture", action="store_true",
        help="write the photo's colours as a texture with UVs (obj or glb) instead of vertex colours",
    )  # fmt: skip
    parser.add_argument(
        "--smoothing", type=float, default=0.5, metavar="S",
        help="for a video: weight of the previous frame while a face rests, lower while it moves; at least 0, below 1 "
        "(default: 0.5)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", action="store_true", help="for a video: write the frames as pictures, not as a video"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    given = [name for name in ("box", "landmarks", "detector", "whole") if getattr(options, name)]
    if len(given) > 1:
        found = ", ".join(f"--{name}" for name in given)
        raise InputTypeError(f"found {found}; expected at most one of --box, --landmarks, --detector, --whole")
    if options.refine and not options.landmarks:
        raise InputTypeError("--refine: found without --landmarks; expected the landmarks that it fits")
    if options.texture and options.mesh not in (None, "obj", "glb"):
        raise InputTypeError(
            f"--texture: found with --mesh {options.mesh}; expected obj or glb, which support textures"
        )
    if not 0 <= options.smoothing < 1:
        raise ValueRangeError(f"--smoothing: found {options.smoothing}; expected 0 or more and below 1")
    files, skipped = _files(options.photo)
    landmark_folder = bool(options.landmarks) and options.landmarks[0].is_dir()
    if len(files) > 1 and (options.box or (options.landmarks and not landmark_folder)):
        raise InputTypeError(f"--{given[0]}: found with {len(files)} files; expected one file, or --detector")
    for file in files:
        if options.whole and file.suffix.lower() in VIDEOS:
            raise InputTypeError(f"--whole: found with the video {file}; expected pictures")
    try:
        with _cleaning_up():
            _reconstruct_all(options, files)
    finally:  # said whether or not some of the files failed
        for line in skipped:
            print(f"skipped: {line}", file=sys.stderr)


def _reconstruct_all(options: argparse.Namespace, files: list[Path]) -> None:
    work = _Work(options, result_names(files))
    problems = _Problems(len(files) > 1)
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


@contextmanager
def _cleaning_up() -> Iterator[None]:
    """On SIGTERM, exit in an orderly way and remove partial files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _files(places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Pictures and videos, in a folder sorted by name; and one line for each file of a folder that is skipped."""
    files: list[Path] = []
    skipped: list[str] = []
    for place in places:
        if not place.is_dir():
            files.append(place)
            continue
        inside = []
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in (*PICTURES, *VIDEOS) and path.is_file():
                inside.append(path)
            elif not path.name.startswith("."):
                skipped.append(f"{path}: {_why_not(path)}")
        if not inside:
            left = f" ({len(skipped)} left out: {'; '.join(skipped[:3])})" if skipped else ""
            raise FileFormatError(place, f"a folder without pictures{left}", f"files {', '.join(PICTURES + VIDEOS)}")
        files += inside
    resolved = [os.path.normcase(file.absolute()) for file in files]
    for file, place in zip(files, resolved, strict=True):
        if resolved.count(place) > 1:
            raise InputTypeError(f"found {file} {resolved.count(place)} times; expected each file once")
    return files, skipped


def _why_not(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        return "a broken link"
    if path.is_dir():
        return "a folder; pass it by name to include it"
    if path.suffix.lower() in _PHONES:
        return "a HEIC picture, which OpenCV cannot read; export it as JPEG"
    return "not a supported picture or video"


def result_names(files: Sequence[Path]) -> dict[Path, str]:
    """Names of the result folders: ``me`` for ``me.jpg``; if several files share a name, the suffix is kept."""
    stems = [file.stem.casefold() for file in files]
    names = [
        file.stem if stems.count(stem) == 1 else f"{file.stem}-{file.suffix[1:]}"
        for file, stem in zip(files, stems, strict=True)
    ]
    folded = [name.casefold() for name in names]
    names = [
        name if folded.count(name.casefold()) == 1 else f"{file.parent.name}-{name}"
        for file, name in zip(files, names, strict=True)
    ]
    for number, name in enumerate(names):
        if names.index(name) != number:
            raise InputTypeError(f"found two files whose results would be {name}; expected different names")
    return dict(zip(files, names, strict=True))


class _Problems:
    """Counts the files that failed and reports why, without ending the run.

    Args:
        several: Whether there are several files; if so, each problem is printed when it occurs.
    """

    def __init__(self, several: bool) -> None:
        self.count, self.last, self._several = 0, None, several

    @contextmanager
    def of(self, file: Path) -> Iterator[None]:
        try:
            yield
        except MissingDependencyError:  # every other file would fail, too
            raise
        except (TwodaslError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            text = text if str(file) in text else f"{file}: {text}"
            self.count, self.last = self.count + 1, TwodaslError(text)
            if self._several:
                print(f"problem: {text}", file=sys.stderr)


class _Work:
    """One run of the command: everything that is loaded once and used for every file."""

    def __init__(self, options: argparse.Namespace, names: dict[Path, str]) -> None:
        self.options, self._names = options, names
        self._layout: Unwrapped | None = None  # of textures, made when first needed
        device = options.device
        if device != "cpu" and not (device.startswith("cuda") and torch.cuda.is_available()):
            raise ValueRangeError(f"--device: found {device!r}; expected cpu, or cuda on a machine that has it")
        self.detector = YuNet(options.detector, options.min_score) if options.detector else None
        self.searches = not (options.detector or options.box or options.landmarks or options.whole)
        if self.searches:
            self.detector = cached_detector(options.min_score)
            self.searches = self.detector is None
        if self.searches:
            print(
                "note: no face detector; the network searches the picture, which is slower and misses more faces.\n"
                "      To download a detector (0.2 MB, once), type:  twodasl models get yunet",
                file=sys.stderr,
            )
        self.trained, self.network_name = _network(options)
        layout = self.trained.layout
        model = load_face_model(layout) if options.face_model is None else read_face_model(options.face_model)
        self.model: MorphableModel = model.with_layout(layout).to(torch.float32)
        self.mirror = not options.no_mirror and coefficient_mirror(self.model).residual <= LARGEST_RESIDUAL

    def place_of(self, file: Path) -> Path:
        """The folder for a file's results."""
        return self.options.out / self._names[file]

    # ------------------------------------------------------------------------------------------------------ where
    def landmarks(self, file: Path, photo: np.ndarray) -> LandmarkFile:
        """The landmarks given for a file, after checking that they can belong to it."""
        paths = self.options.landmarks
        if paths[0].is_dir():
            paths = [paths[0] / f"{file.stem}{suffix}" for suffix in SUFFIXES]
            paths = [path for path in paths if path.is_file()][:1]
            if not paths:
                wanted = f"{file.stem}{' or '.join(SUFFIXES)}"
                raise FileFormatError(self.options.landmarks[0], f"no landmarks for {file.name}", wanted)
        read = []
        for path in paths:
            found = read_landmark_file(path)
            if self.options.photo == [file]:
                print(f"landmarks: {path}: taken for {found.taken_for}")
            check_landmarks(path, found, *photo.shape[:2], self.model)
            read.append(found)
        return LandmarkFile(
            torch.cat([r.points for r in read]),
            torch.cat([r.visible for r in read]),
            "; ".join(r.taken_for for r in read),
        )

    def places(self, file: Path, photo: np.ndarray) -> dict[str, object]:
        """Arguments of ``reconstruct`` that say where the faces are."""
        if self.detector is not None:
            return {"detector": self.detector}
        if self.options.box:
            return {"boxes": torch.tensor(self.options.box)}
        if self.options.whole:
            return {"crop_boxes": torch.tensor([0.0, 0.0, photo.shape[1] - 1, photo.shape[0] - 1])}
        if self.options.landmarks:
            given = self.landmarks(file, photo)
            return {"landmarks": given.points, "visible": given.visible}
        return {}

    def faces(self, file: Path, photo: np.ndarray) -> list[Reconstruction]:
        """The faces of a photo."""
        places = self.places(file, photo)
        if not places:
            found = search_faces(photo, self.trained, self.model)
            return list(look_at_mirror_images(found, self.trained) if self.mirror else found)
        faces = list(reconstruct(photo, self.trained, self.model, mirror=self.mirror, **places))
        if "landmarks" in places:
            for number, (points, visible) in enumerate(zip(places["landmarks"], places["visible"], strict=True), 1):
                before = _distance(faces[number - 1], points, visible)
                words = f"face {number}: {before:.1%} of its size from the landmarks"
                if self.options.refine:
                    faces[number - 1] = refine(faces[number - 1], points, visible, self.model)
                    words += f", {_distance(faces[number - 1], points, visible):.1%} after refining"
                elif before > _FAR:
                    words += ", which is far: check that they belong to this photo"
                elif before > _CLOSE:
                    words += "; --refine fits them more closely"
                if self.options.photo == [file] or before > _FAR:
                    print(words if self.options.photo == [file] else f"note: {file}: {words}")
        return faces

    # ----------------------------------------------------------------------------------------------------- a photo
    def photo(self, file: Path) -> None:
        """Reconstruct one picture and write all its results, or none."""
        photo = read_photo(file)
        faces = self.faces(file, photo)
        if not faces:
            raise ValueRangeError(f"{file}: found no face{self._how_to_help()}")
        for number, face in enumerate(faces, 1):
            _note_border(file, number, face)
            pitch, yaw, roll = face.angles.tolist()
            if len(self.options.photo) == 1 and self.options.photo[0] == file:
                sure = "" if math.isnan(face.confidence) else f", confidence {face.confidence:.2f}"
                print(f"face {number}: pitch {pitch:.0f}, yaw {yaw:.0f}, roll {roll:.0f} degrees{sure}")
        with _whole_folder(self.place_of(file)) as folder:
            self._write(folder, file, photo, faces)
        if self.options.photo == [file]:
            print(f"written: {self.place_of(file)}")

    def _how_to_help(self) -> str:
        if self.searches:
            return "; expected one that the network is sure of. Try: twodasl models get yunet, or give a --box"
        return f"; expected one with a score of {self.options.min_score:g} (--min-score), or give a --box"

    def _write(self, folder: Path, file: Path, photo: np.ndarray, faces: list[Reconstruction]) -> None:
        vertices = [face.vertices for face in faces]
        largest = max(photo.shape)
        if largest > LARGEST:
            print(f"note: {file}: a large photo, drawn at {LARGEST / largest:.0%} of its size", file=sys.stderr)
        landmarks = [face.landmarks for face in faces]
        overlay = overlay_picture(photo, vertices, self.model, landmarks=landmarks, opacity=_OPACITY)
        write_photo(folder / "overlay.png", overlay)
        write_photo(folder / "dense.png", dense_picture(photo, vertices, self.model))
        _, coordinates = depth_and_coordinates(photo, vertices, self.model)
        write_photo(folder / "pncc.png", coordinates)
        depth, meaning = depth_map(photo, vertices, self.model)
        write_depth(folder / "depth.png", depth)
        head = self._head(file, photo.shape[1], photo.shape[0])
        poses = [_pose(face) for face in faces]
        _write_json(folder / "pose.json", {**head, "conventions": CONVENTIONS, "depth": meaning, "faces": poses})
        _write_json(folder / "coefficients.json", {**head, "faces": [self._numbers(face) for face in faces]})
        viewed = []
        for number, face in enumerate(faces, 1):
            write_landmarks(folder / f"face-{number}.csv", face.landmarks[:, :2])
            pose, shape, expression = face.unpack(self.model)
            surface = self.model.decode(shape[None], expression[None])[0]
            try:
                colours = photo_colours(photo, face.vertices, self.model)
            except ValueRangeError as error:
                print(f"note: {file}: face {number} without colours and viewer: {error}", file=sys.stderr)
                colours = None
            else:
                viewed.append(ViewedFace(surface, pose, colours))
            self._write_mesh(folder / f"face-{number}", photo, face, surface, colours)
        if viewed:  # a page that shows the photo and its faces, to turn; it needs no other file and no network
            with whole_file(folder / "viewer.html") as output:
                output.write(face_viewer_html(photo, viewed, self.model, title=file.stem).encode())

    def _write_mesh(
        self, stem: Path, photo: np.ndarray, face: Reconstruction, surface: torch.Tensor, colours: torch.Tensor | None
    ) -> None:
        if self.options.mesh == "none":
            return
        path = stem.with_name(f"{stem.name}.{self.options.mesh or 'obj'}")
        if self.options.texture and colours is not None:
            self._layout = self._layout or unwrap(self.model)
            picture = photo_texture(photo, face.vertices, self.model, self._layout)
            export_textured_mesh(path, surface, self._layout, picture, units=self.model.units)
            return
        export_mesh(path, surface, self.model.triangles, colours, units=self.model.units)

    # ----------------------------------------------------------------------------------------------------- a video
    def video(self, file: Path) -> None:
        """Track the faces of a video and write the video with the faces drawn over it, all or nothing."""
        frames, total, fps = _open_video(file)
        bar = ProgressBar(file.name)
        tracker, lines, rows, numbers, shown = None, [], [], set(), 0
        ended: dict[int, str] = {}
        with _whole_folder(self.place_of(file)) as folder:
            writer = _Frames(folder) if self.options.frames else _Video(folder / "overlay.mp4", fps)
            drawer, drawing = ThreadPoolExecutor(1), None  # draws a frame while the next one is looked at
            try:
                for index, (frame, seconds) in enumerate(frames):
                    if tracker is None:
                        tracker = Tracker(
                            self.trained, self.model, smoothing=self.options.smoothing, detector=self.detector,
                            start=None if self.detector is not None else self.places(file, frame), fps=fps,
                        )  # fmt: skip
                    tracks = tracker.step(frame)
                    lines += [{"frame": index, "face": t.number, **self._numbers(t.face)} for t in tracks]
                    rows += [self._row(index, seconds, track) for track in tracks]
                    numbers |= {track.number for track in tracks}
                    shown += bool(tracks)
                    for number in tracker.ended.keys() - ended.keys():
                        ended[number] = f"face {number} ends before frame {index}: {tracker.ended[number]}"
                    if drawing is not None:
                        drawing.result()
                    drawing = drawer.submit(lambda *what: writer.add(self._draw(*what)), frame, tracks)
                    bar(index + 1, max(total, index + 1))
                bar(index + 1 if tracker else 1, index + 1 if tracker else 1)
            finally:
                drawer.shutdown()
                writer.close()
            if drawing is not None:
                drawing.result()
            if tracker is None:
                raise FileFormatError(file, "a video without a frame that can be read", "a video")
            if not numbers:
                raise ValueRangeError(f"{file}: found no face in any frame{self._how_to_help()}")
            head = self._head(file, frame.shape[1], frame.shape[0]) | {"frames": index + 1, "frames_per_second": fps}
            head |= {"smoothing": self.options.smoothing, "ended": list(ended.values()), "conventions": CONVENTIONS}
            text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in [head, *lines])
            with whole_file(folder / "coefficients.jsonl") as output:
                output.write(text.encode())
            with whole_file(folder / "coefficients.csv") as output:
                output.write("\n".join([",".join(self._columns()), *rows, ""]).encode())
        for line in ended.values():
            print(f"note: {file}: {line}", file=sys.stderr)
        faces = f"{len(numbers)} face{'' if len(numbers) == 1 else 's'}"
        print(f"{file}: {index + 1} frames, {faces}, in {shown} of the frames")
        if self.options.photo == [file]:
            print(f"written: {self.place_of(file)}")

    def _columns(self) -> list[str]:
        parts = {"pose": 12, "shape": self.model.num_shape, "expression": self.model.num_expression}
        names = ["frame", "seconds", "face", "confidence", "pitch_degrees", "yaw_degrees", "roll_degrees", "scale"]
        return names + [f"{name}_{k}" for name, count in parts.items() for k in range(count)]

    def _row(self, index: int, seconds: float, track: Track) -> str:
        face = track.face
        sure = "" if math.isnan(face.confidence) else f"{face.confidence:.3f}"
        numbers = [*face.angles.tolist(), face.scale, *face.coefficients.tolist()]
        return ",".join([str(index), f"{seconds:.4f}", str(track.number), sure, *(f"{value:.7g}" for value in numbers)])

    def _draw(self, frame: np.ndarray, tracks: list[Track]) -> np.ndarray:
        return quick_overlay(frame, [track.face.vertices for track in tracks], self.model, opacity=_OPACITY)

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
        "confidence": None if math.isnan(face.confidence) else face.confidence,
    }


def _distance(face: Reconstruction, points: torch.Tensor, visible: torch.Tensor) -> float:
    """Mean distance of a face's landmarks from the given ones, over the square root of the area of their box."""
    known = visible & torch.isfinite(points).all(dim=1)
    used = points[known]
    size = (used.amax(dim=0) - used.amin(dim=0)).prod().sqrt().clamp(min=1e-6)
    return float((face.landmarks[known, :2] - used).norm(dim=1).mean() / size)


def depth_map(
    photo: np.ndarray, faces: Sequence[torch.Tensor], model: MorphableModel
) -> tuple[np.ndarray, dict[str, object]]:
    """The depth of all faces of a photo on one scale.

    Args:
        photo: The photo, ``(H, W, 3)``.
        faces: Vertices of each face, ``(V, 3)``, in pixels of the photo.
        model: The face model.

    Returns:
        ``(h, w)`` uint16, 0 where there is no face; and the meaning of the values.
    """
    canvas, triangles = Canvas(photo, LARGEST), face_triangles(model)
    height, width = canvas.photo.shape[:2]
    stretch = float(canvas.stretch.mean())
    depth = np.full((height, width), np.nan, np.float32)
    for window, vertices, rows, columns in face_windows(canvas, faces):  # small faces first: a large one is nearer
        fragments = rasterize(vertices, triangles, rows, columns, cull="back")
        covered = fragments.covered[0].numpy()
        depth[window][covered] = fragments.depth[0].numpy()[covered] / stretch
    known = np.isfinite(depth)
    low, high = (float(depth[known].min()), float(depth[known].max())) if known.any() else (0.0, 1.0)
    scale = max(high - low, 1e-6) / (2**16 - 2)
    values = np.zeros((height, width), np.uint16)
    values[known] = 1 + np.round((depth[known] - low) / scale).astype(np.uint16)
    meaning = {
        "file": "depth.png",
        "depth": "offset + scale * value, in pixels of the photo, towards the viewer; 0 is the mean depth of a face's "
        "landmarks; value 0: no face",
        "offset": low - scale,
        "scale": scale,
    }
    return values, meaning


def write_depth(path: Path, depth: np.ndarray) -> None:
    """Write a ``(h, w)`` uint16 depth map as PNG, whole or not at all."""
    done, data = cv2.imencode(".png", depth)
    if not done:
        raise OSError(f"{path.name}: OpenCV could not write it")
    with whole_file(path) as file:
        file.write(data.tobytes())


def _network(options: argparse.Namespace) -> tuple[TrainedRegressor, str]:
    if options.checkpoint is not None:
        return load_regressor(options.checkpoint, options.device), options.checkpoint.name
    from twodasl_lite.networks.trained import trained_regressor

    return trained_regressor(device=options.device), "the one packaged with twodasl_lite"


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
    """A temporary folder whose files move to ``place`` when all are written; they replace only an earlier run's files.

    Raises:
        FileFormatError: If a file would replace one that no earlier run wrote.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and not place.is_dir():
        raise FileFormatError(place, "a file", "a folder, or nothing")
    _remove_leftovers(place)
    temporary = place.parent / f".{place.name}.{os.getpid()}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        old, new = _written_before(place), {file.name for file in temporary.iterdir()} | {_MANIFEST}
        for name in sorted(new - old):
            if (place / name).exists():
                raise FileFormatError(place / name, "a file that no earlier run wrote", "another --out")
        place.mkdir(exist_ok=True)
        _write_json(place / _MANIFEST, {"format": _MANIFEST_FORMAT, "files": sorted(old | new)})
        for name in sorted(old - new):
            (place / name).unlink(missing_ok=True)
        for file in sorted(temporary.iterdir()):
            os.replace(file, place / file.name)
        _write_json(place / _MANIFEST, {"format": _MANIFEST_FORMAT, "files": sorted(new)})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _written_before(place: Path) -> set[str]:
    """Names of the files written by an earlier run."""
    try:
        content = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
        if content["format"] != _MANIFEST_FORMAT:
            return set()
        return {name for name in content["files"] if isinstance(name, str) and Path(name).name == name} | {_MANIFEST}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _remove_leftovers(place: Path) -> None:
    """Remove the partial files of runs that were killed while writing to ``place``."""
    for part in place.parent.glob(f".{glob.escape(place.name)}.*.part"):
        number = part.name.removeprefix(f".{place.name}.").removesuffix(".part")
        if number.isdecimal() and not _runs(int(number)):
            shutil.rmtree(part, ignore_errors=True)


def _runs(process: int) -> bool:
    """Whether a process with this id is running; true if that cannot be determined."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _open_video(file: Path) -> tuple[Iterator[tuple[np.ndarray, float]], int, float]:
    """RGB frames with their times in seconds, the number of frames (0 if unknown) and the frame rate."""
    expected = "a video that OpenCV reads"
    if not file.is_file():
        raise FileFormatError(file, "no such file", expected)
    capture = cv2.VideoCapture(os.fspath(file))
    if not capture.isOpened():
        raise FileFormatError(file, "a file that is not a video, or one of an unknown kind", expected)
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    fps = fps if math.isfinite(fps) and 0 < fps <= 1000 else _DEFAULT_FPS
    total = capture.get(cv2.CAP_PROP_FRAME_COUNT)

    def frames() -> Iterator[tuple[np.ndarray, float]]:
        index = 0
        try:
            while True:
                done, frame = capture.read()
                if not done:
                    return
                seconds = float(capture.get(cv2.CAP_PROP_POS_MSEC)) / 1000  # the frame's own time: the rate may vary
                known = math.isfinite(seconds) and (seconds > 0 or index == 0)
                yield np.ascontiguousarray(as_photo(frame)[..., ::-1]), seconds if known else index / fps
                index += 1
        finally:
            capture.release()

    return frames(), int(total) if math.isfinite(total) and total > 0 else 0, fps


class _Video:
    """Writes frames to a video."""

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
    """Writes frames as pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._count = folder, 0

    def add(self, frame: np.ndarray) -> None:
        write_photo(self.folder / f"frame-{self._count:06}.png", frame)
        self._count += 1

    def close(self) -> None:
        pass
