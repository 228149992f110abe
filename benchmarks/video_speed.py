"""What a frame of a video costs, stage by stage, and how many a second `twodasl reconstruct` does.

The video is made here: the book's portrait, moved and zoomed within 1280 x 720 pixels, its face 150 to 230 pixels wide.
Each stage is timed on every frame, in turn, so that the ratios of one run hold on a machine that is busy with other
things too; milliseconds are of processor time (``cpu``) and by the clock (``wall``), medians over the frames. The last
lines are the whole command, by the clock, with its second thread that draws.

    python benchmarks/video_speed.py [--detector face_detection_yunet_2023mar.onnx] [--frames 60]

Needs the packages of the extras ``chapters`` (the portrait) and ``render`` (numba). Without ``--detector`` the face is
followed by optical flow alone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from twodasl_lite.apps import tracking
from twodasl_lite.apps.cli import main as twodasl
from twodasl_lite.apps.detection import YuNet
from twodasl_lite.apps.reconstruction import Reconstruction, reconstruct
from twodasl_lite.apps.tracking import OneEuro
from twodasl_lite.datasets.examples import astronaut
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.photos import landmarks_box
from twodasl_lite.networks.trained import trained_regressor
from twodasl_lite.render import numba_backend
from twodasl_lite.viz.alignment import overlay_picture, quick_overlay

WIDTH, HEIGHT, FPS = 1280, 720, 25.0
OPACITY = 0.6


def make_frames(count: int) -> tuple[list[np.ndarray], list[float]]:
    """RGB frames, and the face's box in the first of them."""
    portrait = astronaut()
    frames, box = [], []
    for k in range(count):
        zoom = 1.6 + 0.2 * np.sin(k / 13)
        shift = [380 + 150 * np.sin(k / 11) - 256 * (zoom - 1.6), -60 + 30 * np.cos(k / 7)]
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]], np.float32)
        frames.append(cv2.warpAffine(portrait.photo, matrix, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REPLICATE))
        if k == 0:
            points = portrait.landmarks * zoom + torch.tensor(shift)
            box = [*points.amin(dim=0).tolist(), *points.amax(dim=0).tolist()]
    return frames, box


class Clock:
    """Seconds of each stage, frame by frame."""

    def __init__(self) -> None:
        self.cpu: dict[str, list[float]] = {}
        self.wall: dict[str, list[float]] = {}

    def __call__(self, stage: str, work: Callable[..., object], *what: object, **options: object) -> object:
        cpu, wall = time.process_time(), time.perf_counter()
        result = work(*what, **options)
        self.wall.setdefault(stage, []).append(time.perf_counter() - wall)
        self.cpu.setdefault(stage, []).append(time.process_time() - cpu)
        return result

    def table(self) -> None:
        print(f"{'stage':44s} {'cpu ms':>8s} {'wall ms':>8s}")
        for stage, values in self.cpu.items():
            cpu, wall = (1000 * statistics.median(part[3:]) for part in (values, self.wall[stage]))
            print(f"{stage:44s} {cpu:8.1f} {wall:8.1f}")


def stages(frames: list[np.ndarray], box: list[float], detector: YuNet | None, folder: Path) -> None:
    """Time what happens to a frame, each part alone."""
    trained = trained_regressor()
    model = load_face_model(trained.layout).to(torch.float32)
    numba_backend._compiled()  # loaded before the clock runs, as after the first second of a video
    clock = Clock()
    writer = cv2.VideoWriter(str(folder / "timed.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    (face,) = reconstruct(frames[0], trained, model, boxes=torch.tensor(box))
    smooth = OneEuro(face, model, 0.5, FPS)
    before: Reconstruction = face
    for last, frame in itertools.pairwise(frames):
        look = functools.partial(reconstruct, frame, trained, model)
        if detector is not None:
            clock("detector: YuNet at 640 pixels", detector.find, frame, upright=True)
            near = torch.tensor(_box(before))
            clock("detector: box to face (4 passes of the network)", look, boxes=near, recrops=1)
        _, moved, _ = clock("flow: points there and back", tracking._moved, last, frame, before)
        (before,) = clock("flow: crop to face (2 passes)", look, crop_boxes=moved)
        shown = clock("smoothing, and decoding again", smooth, before)
        what = frame, [shown.vertices], model
        as_photo = {"opacity": OPACITY, "largest": WIDTH, "smallest": 1}
        clock("drawing as for a photo (twice as fine)", overlay_picture, *what, **as_photo)
        drawn = clock("drawing for a video", quick_overlay, *what, opacity=OPACITY)
        clock("encoding (mp4v)", writer.write, np.ascontiguousarray(drawn[..., ::-1]))
    writer.release()
    capture = cv2.VideoCapture(str(folder / "timed.mp4"))
    for _ in frames[1:]:
        clock("reading a frame", capture.read)
    capture.release()
    clock.table()


def _box(face: Reconstruction) -> list[float]:
    """A box such as a detector gives: near the face's, not just there."""
    left, top, right, bottom = (float(v) for v in landmarks_box(face.landmarks))
    third = (right - left) / 7
    return [left + third, top + third * 1.3, right - third, bottom - third * 0.7]


def whole(frames: list[np.ndarray], box: list[float], detector: Path | None, folder: Path) -> None:
    """The command itself, its start-up left out by timing two lengths."""
    for name, words in (("flow", ["--box", *map(str, box)]), ("detector", ["--detector", str(detector)])):
        if name == "detector" and detector is None:
            continue
        seconds = []
        for part in (len(frames) // 4, len(frames)):
            video = folder / f"{name}{part}.mp4"
            writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
            for frame in frames[:part]:
                writer.write(np.ascontiguousarray(frame[..., ::-1]))
            writer.release()
            start, cpu = time.perf_counter(), time.process_time()
            status = twodasl(["reconstruct", str(video), *words, "--out", str(folder / "out")])
            if status:
                sys.exit(f"twodasl reconstruct ended with {status}; expected 0")
            seconds.append((part, time.perf_counter() - start, time.process_time() - cpu))
        (few, wall_few, cpu_few), (many, wall_many, cpu_many) = seconds
        rate, cpu = (many - few) / (wall_many - wall_few), (cpu_many - cpu_few) / (many - few)
        print(f"{name}: {rate:.1f} frames a second by the clock; {1000 * cpu:.0f} ms of processor time a frame")


def main() -> None:
    """Print the table and the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, metavar="FILE", help="YuNet's model file")
    parser.add_argument("--frames", type=int, default=60, help="of the video (default: 60)")
    options = parser.parse_args()
    if options.frames < 20:
        parser.error(f"--frames: found {options.frames}; expected 20 or more")
    cv2.setNumThreads(1)
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{torch.get_num_threads()} thread(s) of torch on {os.cpu_count()} cores{load}; {WIDTH} x {HEIGHT}")
    frames, box = make_frames(options.frames)
    with tempfile.TemporaryDirectory() as folder:
        detector = YuNet(options.detector) if options.detector else None
        stages(frames, box, detector, Path(folder))
        whole(frames, box, options.detector, Path(folder))


if __name__ == "__main__":
    main()
