"""Drawing faces: the z-buffer's two backends against Sim3DR, in time, coverage and depth.

Sim3DR is the C++ rasterizer of 3DDFA_V2 (https://github.com/cleardusk/3DDFA_V2); its interface takes one picture at a
time. It draws every triangle, so it is compared with ``cull="none"``. All programs draw the same vertices and return
triangle, weights and depth; they take turns within every round, and ratios are taken within one round.

    git clone https://github.com/cleardusk/3DDFA_V2
    (cd 3DDFA_V2/Sim3DR && pip install cython setuptools && python setup.py build_ext -i)
    python benchmarks/render_speed.py --sim3dr 3DDFA_V2/Sim3DR --ict ict_face_model_light.npz --plots plots

Without ``--sim3dr`` only our backends are measured. ``--ict`` names the ICT-FaceKit Light model as an ``.npz`` with
``mean (V, 3)``, ``triangles (T, 3)`` and named regions; the face, the head and the eyes are drawn, 34,332 triangles.
Without it the embedded face is drawn. ``--plots`` names a folder for plots of the time against the number of pictures
and of triangles.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from twodasl_lite.base.errors import require
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.camera import euler_to_matrix, frame_to_pixels, make_pose, project
from twodasl_lite.render import Lamps, numba_available, over, rasterize, render

INSIDE_THE_MOUTH = ("gums_and_tongue", "teeth")  # left out
FILL = 0.9  # fraction of the picture's side that the head's longest side spans
MAX_YAW = 60.0
FAR = -1e8  # where Sim3DR's depth starts
SAME_DEPTH = 0.05  # pixels
GROWTH_SIZE = 120
PICTURES = (1, 2, 4, 8, 16, 32, 64)
SUBDIVISIONS = 3  # each splits a triangle into four


def load_mesh(ict: Path | None) -> tuple[str, torch.Tensor, torch.Tensor]:
    """A name, vertices ``(V, 3)`` in the model frame and triangles ``(T, 3)``."""
    if ict is None:
        model = load_face_model()
        return "embedded face", model.mean.float(), model.triangles
    with np.load(ict, allow_pickle=False) as content:
        triangles = content["triangles"]
        for name, start, stop in zip(
            content["region_names"], content["region_start"], content["region_stop"], strict=True
        ):
            if name in INSIDE_THE_MOUTH:
                triangles = triangles[~((triangles >= start) & (triangles < stop)).any(axis=1)]
        return "ICT face, head and eyes", torch.from_numpy(content["mean"]).float(), torch.from_numpy(triangles).long()


def pose_mesh(mean: torch.Tensor, size: int, count: int) -> torch.Tensor:
    """The mesh in ``count`` poses, ``(B, V, 3)`` in pixels."""
    low, high = mean.amin(dim=0), mean.amax(dim=0)
    angles = torch.zeros(count, 3)
    angles[:, 1] = torch.linspace(-math.radians(MAX_YAW), math.radians(MAX_YAW), count) if count > 1 else 0.3
    scale = torch.full((count,), float(FILL * size / (high - low).max()))
    centre = torch.tensor([(size + 1) / 2, (size + 1) / 2, 0.0])
    pose = make_pose(scale, euler_to_matrix(angles), centre)
    return frame_to_pixels(project(mean - (low + high) / 2, pose), size).contiguous()


def subdivide(vertices: torch.Tensor, triangles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same surfaces ``(B, V, 3)`` with each triangle split into four by new vertices at the edges' midpoints."""
    sides = torch.stack([triangles, triangles.roll(-1, 1)], dim=-1).sort(dim=-1).values  # (T, 3, 2) from corner k on
    edges, middle = sides.reshape(-1, 2).unique(dim=0, return_inverse=True)
    (a, b, c), (ab, bc, ca) = triangles.T, (middle.reshape(-1, 3) + vertices.shape[1]).T
    finer = torch.cat([torch.stack(part, dim=1) for part in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return torch.cat([vertices, vertices[:, edges].mean(dim=2)], dim=1), finer


def draw_sim3dr(
    vertices: np.ndarray, triangles: np.ndarray, size: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Triangle, weights and depth of each picture, drawn by Sim3DR one by one."""
    import Sim3DR_Cython

    pictures = []
    for points in vertices:
        depth = np.full((size, size), FAR, dtype=np.float32)
        triangle = np.full((size, size), -1, dtype=np.int32)
        weights = np.zeros((size * size, 3), dtype=np.float32)
        Sim3DR_Cython.rasterize_triangles(points, triangles, depth, triangle, weights, len(triangles), size, size)
        pictures.append((triangle, weights, depth))
    return pictures


class Spent(NamedTuple):
    """Wall-clock seconds, and CPU seconds of all cores, which do not grow when other programs use the cores."""

    clock: list[float]
    cores: list[float]


def take_turns(programs: dict[str, Callable[[], object]], rounds: int) -> dict[str, Spent]:
    """Times of each program in each round, after a warm-up round."""
    times = {name: Spent([], []) for name in programs}
    for number in range(rounds + 1):
        for name, work in programs.items():
            clock, cores = time.perf_counter(), time.process_time()
            work()
            if number:
                times[name].clock.append(time.perf_counter() - clock)
                times[name].cores.append(time.process_time() - cores)
    return times


def compare_speed(mean: torch.Tensor, triangles: torch.Tensor, size: int, arguments: argparse.Namespace) -> None:
    """Print one table: time per picture, and pictures per second relative to Sim3DR."""
    vertices = pose_mesh(mean, size, arguments.batch)
    programs: dict[str, Callable[[], object]] = {}
    if arguments.sim3dr:
        points, corners = vertices.numpy(), triangles.numpy().astype(np.int32)
        programs["Sim3DR, one after another"] = lambda: draw_sim3dr(points, corners, size)
    for backend in ("numba", "torch"):
        if backend == "numba" and not numba_available():
            continue
        for cull in ("none", "back"):
            programs[f"{backend}, cull {cull}"] = lambda backend=backend, cull=cull: rasterize(
                vertices, triangles, size, size, backend=backend, cull=cull
            )
    times = take_turns(programs, arguments.rounds)
    first = next(iter(times))
    print(f"\n{size}x{size}, batch of {arguments.batch}; ms per picture, median of {arguments.rounds} rounds")
    print(f"  {'':28s}   clock  quickest   cores   pictures/s over {first.split(',')[0]}'s")
    for name, spent in times.items():
        median, quickest, cores = (
            1000 * part / arguments.batch
            for part in (statistics.median(spent.clock), min(spent.clock), statistics.median(spent.cores))
        )
        gain = statistics.median(a / b for a, b in zip(times[first].clock, spent.clock, strict=True))
        print(f"  {name:28s} {median:7.2f}  {quickest:8.2f} {cores:7.2f}   {gain:6.2f}")


def compare_pictures(mean: torch.Tensor, triangles: torch.Tensor, size: int, count: int) -> None:
    """Print the share of pixels in which Sim3DR and we agree."""
    vertices = pose_mesh(mean, size, count)
    ours = rasterize(vertices, triangles, size, size, cull="none")
    theirs = draw_sim3dr(vertices.numpy(), triangles.numpy().astype(np.int32), size)
    triangle, _, depth = (torch.from_numpy(np.stack(part)) for part in zip(*theirs, strict=True))
    both = ours.covered & (triangle >= 0)
    shares = {
        "coverage": (ours.covered == (triangle >= 0)).float().mean(),
        f"depth within {SAME_DEPTH} px": ((ours.depth - depth).abs() < SAME_DEPTH)[both].float().mean(),
        "triangle": (ours.triangle == triangle)[both].float().mean(),
    }
    print("  agreement with Sim3DR:", ", ".join(f"{name} {100 * float(share):.3f} %" for name, share in shares.items()))


def whole_pictures(mean: torch.Tensor, triangles: torch.Tensor, size: int, arguments: argparse.Namespace) -> None:
    """Print the rate of complete pictures (normals, two lamps, colours, a background) on one thread.

    A dataset is drawn by one process per core with one thread each.
    """
    torch.set_num_threads(1)
    vertices = pose_mesh(mean, size, arguments.batch)
    albedo = torch.rand(mean.shape)
    light = Lamps(torch.full((3,), 0.2), torch.tensor([[-0.5, 0.6, 0.7], [0.8, 0, 0.5]]), torch.full((2, 3), 0.5))
    background = torch.rand(arguments.batch, size, size, 3)
    programs = {
        f"supersampled {factor}x{factor}": lambda factor=factor: over(
            render(vertices, triangles, albedo, size, size, light=light, supersample=factor), background
        )
        for factor in (1, 2)
    }
    for name, spent in take_turns(programs, arguments.rounds).items():
        rate = arguments.batch / statistics.median(spent.clock)
        print(f"  lit and composited on one thread, {name}: {rate:.0f} pictures/s")
    torch.set_num_threads(arguments.threads)


def measure_growth(mean: torch.Tensor, triangles: torch.Tensor, rounds: int) -> dict[str, dict[str, list]]:
    """Shortest times against the number of pictures and of triangles, per backend, on one thread."""
    torch.set_num_threads(1)
    backends = ["numba", "torch"] if numba_available() else ["torch"]
    results: dict[str, dict[str, list]] = {"pictures": {"counts": list(PICTURES)}, "triangles": {"counts": []}}
    batches = {count: pose_mesh(mean, GROWTH_SIZE, count) for count in PICTURES}
    meshes = [(pose_mesh(mean, GROWTH_SIZE, 4), triangles)]
    for _ in range(SUBDIVISIONS):
        meshes.append(subdivide(*meshes[-1]))
    results["triangles"]["counts"] = [len(corners) for _, corners in meshes]
    for backend in backends:
        drawn = {
            "pictures": [(vertices, triangles) for vertices in batches.values()],
            "triangles": meshes,
        }
        for kind, scenes in drawn.items():
            programs = {
                str(k): lambda scene=scene, backend=backend: rasterize(
                    *scene, GROWTH_SIZE, GROWTH_SIZE, backend=backend
                )
                for k, scene in enumerate(scenes)
            }
            results[kind][backend] = [min(spent.clock) for spent in take_turns(programs, rounds).values()]
    return results


def print_growth(results: dict[str, dict[str, list]]) -> None:
    """Print the exponent of each curve; 1 is linear growth."""
    print(f"\ngrowth at {GROWTH_SIZE}x{GROWTH_SIZE}: time ~ count ** exponent")
    for kind, curves in results.items():
        counts = np.log(curves["counts"])
        for backend in (name for name in curves if name != "counts"):
            whole = np.polyfit(counts, np.log(curves[backend]), 1)[0]
            last = np.log(curves[backend][-1] / curves[backend][-2]) / (counts[-1] - counts[-2])
            print(f"  {kind:10s} {backend:6s} {whole:5.2f} overall, {last:5.2f} at the end")


def plot_growth(results: dict[str, dict[str, list]], folder: Path) -> None:
    """Plot the curves, each with a straight line for comparison."""
    plt = require("matplotlib.pyplot", "book", "plotting")
    folder.mkdir(parents=True, exist_ok=True)
    for kind, curves in results.items():
        figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
        counts = np.array(curves["counts"], dtype=float)
        for backend, marker, colour in (("numba", "o", "#0072B2"), ("torch", "s", "#D55E00")):
            if backend not in curves:
                continue
            times = 1000 * np.array(curves[backend])
            axes.loglog(counts, times, marker=marker, color=colour, label=backend)
            axes.loglog(counts, times[-1] * counts / counts[-1], color=colour, linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"number of {kind}")
        axes.set_ylabel("milliseconds")
        axes.set_title(f"Time to draw at {GROWTH_SIZE}x{GROWTH_SIZE}, one thread (dotted: linear)", fontsize=10)
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(folder / f"render_{kind}.png", dpi=100)
        plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sim3dr", type=Path, help="folder with the built Sim3DR_Cython")
    parser.add_argument("--ict", type=Path, help="ICT-FaceKit Light as .npz")
    parser.add_argument("--sizes", type=int, nargs="+", default=[120, 450], help="sides of the pictures")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plots", type=Path, help="measure the growth too, and plot it into this folder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.sim3dr:
        sys.path.insert(0, str(arguments.sim3dr))
    name, mean, triangles = load_mesh(arguments.ict)
    print(f"{name}: {len(mean)} vertices, {len(triangles)} triangles; {arguments.threads} thread(s)")
    for size in arguments.sizes:
        compare_speed(mean, triangles, size, arguments)
        if arguments.sim3dr:
            compare_pictures(mean, triangles, size, min(8, arguments.batch))
        whole_pictures(mean, triangles, size, arguments)
    if arguments.plots:
        growth = measure_growth(mean, triangles, arguments.rounds)
        print_growth(growth)
        plot_growth(growth, arguments.plots)


if __name__ == "__main__":
    main()
