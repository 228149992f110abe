"""Complete pictures drawn per second of wall-clock time, phase by phase and with each rasterizer.

To complete a picture, the face is sampled, decoded, dressed, lit, rendered with smooth edges, placed on a background,
degraded as its world says, and given its landmarks. Needs torch and numpy, and numba or Triton to measure those. Rates
depend on the machine and its other load; ratios are measured in turn within one run.

    python benchmarks/drawing_speed.py --device cpu --threads 2 --seconds 30
    python benchmarks/drawing_speed.py --device cuda --seconds 30 --json drawing.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from twodasl_lite.camera import CROP_SIZE
from twodasl_lite.coefficients import CoefficientLayout
from twodasl_lite.data import synthetic
from twodasl_lite.data.synthetic import SyntheticFaces
from twodasl_lite.decode import decode
from twodasl_lite.morphable import MorphableModel, load_face_model
from twodasl_lite.render import numba_available, rasterize, refine

GOAL = {"cpu": 150, "cuda": 5000}
"""Goal in pictures per second: 2 CPU cores, an H100 or H200."""
BATCH = {"cpu": 32, "cuda": 512}
SHARES = {"whole": 0.4, "other backends": 0.3, "phases": 0.15, "rasterizer": 0.15}
"""Of the seconds."""


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _rounds(work: Callable[[int], object], device: torch.device, seconds: float, least: int = 2) -> list[float]:
    """Run rounds of work for about the given time, and return the seconds of each round."""
    times: list[float] = []
    _wait(device)
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        start = time.perf_counter()
        work(len(times))
        _wait(device)
        times.append(time.perf_counter() - start)
    return times


@contextlib.contextmanager
def _clocked(device: torch.device, spent: dict[str, float]) -> Iterator[None]:
    """Measure the phases in wall-clock time, on a GPU each to completion; replaces the marks for torch's profiler."""

    @contextlib.contextmanager
    def phase(name: str) -> Iterator[None]:
        _wait(device)
        start = time.perf_counter()
        yield
        _wait(device)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    usual = synthetic.record_function
    synthetic.record_function = phase
    try:
        yield
    finally:
        synthetic.record_function = usual


def backends_of(device: torch.device) -> list[str]:
    """The rasterizers available on this device, fastest first."""
    if device.type == "cpu":
        return ["numba", "torch"] if numba_available() else ["torch"]
    from twodasl_lite.render import triton_backend

    return ["triton", "torch"] if triton_backend.usable(device) else ["torch"]


def measure(
    device: torch.device | str,
    seconds: float,
    *,
    batch: int | None = None,
    world: str = "wild",
    model: MorphableModel | None = None,
) -> dict:
    """Draw pictures for about the given time, not counting the first batch.

    Args:
        device: Device to draw on.
        seconds: Duration in seconds.
        batch: Batch size; one that suits the device by default.
        world: Name of the world.
        model: Face model; the book's own by default.

    Returns:
        Rates, shares and settings, ready for JSON.
    """
    device = torch.device(device)
    batch = BATCH.get(device.type, BATCH["cuda"]) if batch is None else batch
    model = load_face_model(CoefficientLayout()) if model is None else model
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    names = backends_of(device)
    worlds = {backend: SyntheticFaces(model, world, device=device, backend=backend) for backend in names}
    first, rates = {}, {}
    for place, (backend, faces) in enumerate(worlds.items()):
        start = time.perf_counter()
        faces.batch(0, batch)
        _wait(device)
        first[backend] = time.perf_counter() - start  # textures and constants are shared with the first drawer
        share = SHARES["whole"] if not place else SHARES["other backends"] / max(1, len(names) - 1)
        if device.type == "cuda" and not place:
            torch.cuda.reset_peak_memory_stats(device)
        times = _rounds(lambda number, faces=faces: faces.batch((number + 1) * batch, batch), device, share * seconds)
        rates[backend] = batch / statistics.median(times)
        if not place:
            main = {"pictures": batch * len(times), "clock_s": sum(times), "overall": batch * len(times) / sum(times)}
            main["best"] = batch / min(times)
            if device.type == "cuda":
                main["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9

    faces = worlds[names[0]]
    start = time.perf_counter()
    faces.batch(0, batch)
    handed_over = time.perf_counter() - start  # on a GPU: the time until the program may continue
    _wait(device)
    spent: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # phases of several threads overlap
    try:
        with _clocked(device, spent):
            _rounds(lambda number: faces.batch(number * batch, batch), device, SHARES["phases"] * seconds, least=1)
    finally:
        torch.set_num_threads(threads)
    total = sum(spent.values())

    fine = faces.world.supersample
    vertices = refine(decode(faces.coefficients(0, min(batch, 64)), faces.model).float(), fine)
    size = CROP_SIZE * fine
    alone = {}
    for backend in names:
        times = _rounds(
            lambda _, backend=backend: rasterize(
                vertices, faces.model.triangles, size, size, backend=backend, check=device.type == "cpu"
            ),
            *(device, SHARES["rasterizer"] * seconds / len(names)),
            least=3,
        )
        alone[backend] = statistics.median(times) / len(vertices)
    return {
        "device": str(device),
        "name": name,
        "threads": threads,
        "torch": torch.__version__,
        "world": world,
        "triangles": model.num_triangles,
        "batch": batch,
        "pictures_per_second": rates[names[0]],
        "goal": GOAL.get(device.type),
        **main,
        "first_batch_s": first[names[0]],
        "handed_over_s": handed_over,
        "handed_over_share": handed_over * rates[names[0]] / batch,
        "phases": {phase: part / total for phase, part in spent.items()},
        "backends": {
            backend: {
                "pictures_per_second": rates[backend],
                "whole_pictures_times_the_first": rates[backend] / rates[names[0]],
                "rasterizer_ms_per_picture": 1000 * alone[backend],
                "rasterizer_times_the_first": alone[names[0]] / alone[backend],
            }
            for backend in names
        },
    }


def show(result: dict) -> None:
    """Print the measurements."""
    where = f"{result['name']}, {result['threads']} threads" if result["name"] == "CPU" else result["name"]
    print(f"{where}, {result['triangles']:,} triangles, world {result['world']}, batches of {result['batch']}")
    print(f"first batch, with textures and compilation: {result['first_batch_s']:.2f} s")
    print(
        f"pictures a second: {result['pictures_per_second']:.0f} (median), {result['best']:.0f} (best), "
        f"{result['overall']:.0f} (all {result['pictures']} in {result['clock_s']:.1f} s); goal {result['goal']}"
    )
    print(f"the program waits for {100 * result['handed_over_share']:.0f} % of a batch's time")
    if "memory_gb" in result:
        print(f"memory: {result['memory_gb']:.2f} GB at most")
    for phase, share in result["phases"].items():
        print(f"    {phase:12} {100 * share:4.0f} %")
    for backend, rates in result["backends"].items():
        whole, alone = rates["whole_pictures_times_the_first"], rates["rasterizer_times_the_first"]
        print(
            f"  {backend:8} {rates['pictures_per_second']:8.0f} pictures/s, {whole:.2f} times the first's; "
            f"alone {rates['rasterizer_ms_per_picture']:.3f} ms a picture, {alone:.2f} times its speed"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--world", default="wild")
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: found cuda, but torch sees no CUDA device here; expected cpu")
    torch.set_num_threads(options.threads)
    result = measure(options.device, options.seconds, batch=options.batch, world=options.world)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
