"""Complete pictures drawn per second of wall-clock time, phase by phase and with each rasterizer.

To complete a picture, the face is sampled, decoded, dressed, lit, rendered with smooth edges, placed on a background,
degraded as its world says, and given its landmarks. Needs torch and numpy, and numba or Triton to measure those. Rates
depend on the machine and its other load; ratios are measured in turn within one run.

    python benchmarks/drawing_speed.py --device cpu --threads 2 --seconds 30
    python benchmarks/drawing_speed.py --device cpu --processes 2 --seconds 30    as training draws its pictures
    python benchmarks/drawing_speed.py --device cuda --seconds 30 --json drawing.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.render import numba_available, rasterize, refine
from twodasl_lite.worlds import synthetic
from twodasl_lite.worlds.synthetic import SyntheticFaces

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
    until: float = math.inf,
) -> dict:
    """Draw pictures for about the given time, not counting the first batch.

    Args:
        device: Where.
        seconds: How long.
        batch: Pictures at a time; as many as suit the device by default.
        world: Which pictures.
        model: The face model; the book's own by default.
        until: When to be ready, as ``time.perf_counter`` tells it. What there is no time for is left out, the other
            rasterizers first; the rate of the quickest is always measured, were it by its first batch alone.

    Returns:
        Rates, shares and settings, as JSON can hold them; ``"left_out"`` names what is missing.
    """
    device = torch.device(device)
    batch = BATCH.get(device.type, BATCH["cuda"]) if batch is None else batch
    model = load_face_model(CoefficientLayout()) if model is None else model
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    names = backends_of(device)
    worlds = {backend: SyntheticFaces(model, world, device=device, backend=backend) for backend in names}
    first, rates, alone, left_out = {}, {}, {}, []
    main: dict[str, float] = {}

    def left() -> float:
        return until - time.perf_counter()

    def whole(backend: str, share: float) -> list[float]:
        """Seconds of each batch; the first is not counted, unless there is no time for another."""
        faces = worlds[backend]
        begin = time.perf_counter()
        faces.batch(0, batch)
        _wait(device)
        first[backend] = time.perf_counter() - begin  # the textures and constants are the first backend's
        allowed = min(share * seconds, left())
        if allowed < first[backend] / 2:
            left_out.append(f"{backend}: more than the first batch")
            times = [first[backend]]
        else:
            times = _rounds(lambda number: faces.batch((number + 1) * batch, batch), device, allowed, least=1)
        rates[backend] = batch / statistics.median(times)
        return times

    quickest = names[0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    times = whole(quickest, SHARES["whole"])
    if device.type == "cuda":
        main["memory_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    main |= {"pictures": batch * len(times), "clock_s": sum(times), "overall": batch * len(times) / sum(times)}
    main["best"] = batch / min(times)
    about = 1.5 * statistics.median(times)  # what another batch may take

    faces = worlds[quickest]
    spent: dict[str, float] = {}
    threads = torch.get_num_threads()
    handed_over = None
    if left() < 2 * about:
        left_out.append("phases")
    else:
        start = time.perf_counter()
        faces.batch(0, batch)
        handed_over = time.perf_counter() - start  # on a GPU: until the program may go on
        _wait(device)
        torch.set_num_threads(1)  # phases of several threads overlap
        try:
            with _clocked(device, spent):
                allowed = min(SHARES["phases"] * seconds, left())
                _rounds(lambda number: faces.batch(number * batch, batch), device, allowed, least=1)
        finally:
            torch.set_num_threads(threads)
    total = sum(spent.values())

    fine = faces.world.supersample
    vertices = refine(decode(faces.coefficients(0, min(batch, 64)), faces.model).float(), fine)
    size = CROP_SIZE * fine
    for number, backend in enumerate(names):
        if left() < about * (4 if number else 1):  # the other rasterizers are several times slower
            left_out.append(f"rasterizer {backend}")
            continue
        if number:
            whole(backend, SHARES["other backends"] / (len(names) - 1))
        if left() <= 0:
            left_out.append(f"rasterizer {backend} alone")
            continue
        times = _rounds(
            lambda _, backend=backend: rasterize(
                vertices, faces.model.triangles, size, size, backend=backend, check=device.type == "cpu"
            ),
            *(device, min(SHARES["rasterizer"] * seconds / len(names), left())),
        )
        alone[backend] = statistics.median(times[1:]) / len(vertices)

    def of(backend: str) -> dict[str, float]:
        found = {
            "pictures_per_second": rates[backend],
            "whole_pictures_times_the_first": rates[backend] / rates[quickest],
        }
        if backend in alone and quickest in alone:
            found["rasterizer_ms_per_picture"] = 1000 * alone[backend]
            found["rasterizer_times_the_first"] = alone[quickest] / alone[backend]
        return found

    return {
        "device": str(device),
        "name": name,
        "threads": threads,
        "torch": torch.__version__,
        "world": world,
        "triangles": model.num_triangles,
        "batch": batch,
        "pictures_per_second": rates[quickest],
        "goal": GOAL.get(device.type),
        **main,
        "first_batch_s": first[quickest],
        "handed_over_s": handed_over,
        "handed_over_share": None if handed_over is None else handed_over * rates[quickest] / batch,
        "phases": {phase: part / total for phase, part in spent.items()},
        "backends": {backend: of(backend) for backend in rates},
        "left_out": left_out,
    }


def _draw_for(world: str, batch: int, seconds: float, number: int, start: object, answers: object) -> None:
    """A process of :func:`side_by_side`: one thread, pictures of its own."""
    torch.set_num_threads(1)
    faces = SyntheticFaces(load_face_model(CoefficientLayout()), world, seed=number)
    faces.batch(0, batch)  # textures, compilation
    start.wait()
    begin, used, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - begin < seconds:
        count += batch
        faces.batch(count, batch)
    answers.put((count, time.perf_counter() - begin, time.process_time() - used))


def side_by_side(processes: int, seconds: float, *, batch: int = 50, world: str = "wild") -> dict:
    """Draw in several processes of one thread each, as a training run does for its cache.

    Args:
        processes: How many.
        seconds: How long; each ends its last batch.
        batch: Pictures at a time.
        world: Which pictures.

    Returns:
        Pictures, and how many a second: by the clock, and by the processors' time, which is what this program got of
        them; the two differ where other programs run.
    """
    spawn = multiprocessing.get_context("spawn")
    start, answers = spawn.Barrier(processes), spawn.Queue()
    team = [
        spawn.Process(target=_draw_for, args=(world, batch, seconds, number, start, answers), daemon=True)
        for number in range(processes)
    ]
    for one in team:
        one.start()
    counts, clocks, used = zip(*(answers.get() for _ in team), strict=True)
    for one in team:
        one.join()
    return {
        "processes": processes,
        "world": world,
        "batch": batch,
        "pictures": sum(counts),
        "clock_s": max(clocks),
        "processor_s": sum(used),
        "pictures_per_second": sum(count / clock for count, clock in zip(counts, clocks, strict=True)),
        "pictures_per_processor_second": sum(counts) / sum(used),
        "share_of_the_cores": sum(used) / sum(clocks),
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
    if result["handed_over_share"] is not None:
        print(f"the program waits for {100 * result['handed_over_share']:.0f} % of a batch's time")
    if "memory_gb" in result:
        print(f"memory: {result['memory_gb']:.2f} GB at most")
    for phase, share in result["phases"].items():
        print(f"    {phase:12} {100 * share:4.0f} %")
    for backend, rates in result["backends"].items():
        whole = rates["whole_pictures_times_the_first"]
        print(f"  {backend:8} {rates['pictures_per_second']:8.0f} pictures/s, {whole:.2f} times the first's", end="")
        if "rasterizer_ms_per_picture" in rates:
            alone = rates["rasterizer_times_the_first"]
            print(f"; alone {rates['rasterizer_ms_per_picture']:.3f} ms a picture, {alone:.2f} times its speed", end="")
        print()
    if result["left_out"]:
        print(f"left out, as the time was over: {', '.join(result['left_out'])}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2, help="of a CPU")
    parser.add_argument("--processes", type=int, help="of one thread each, on a CPU, instead of threads")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--world", default="wild")
    parser.add_argument("--json", type=Path, help="write the result there")
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("--device: found cuda, but torch sees no CUDA device here; expected cpu")
    if options.processes:
        result = side_by_side(options.processes, options.seconds, batch=options.batch or 50, world=options.world)
        print(
            f"{result['processes']} processes drew {result['pictures']} pictures of the world {result['world']} in "
            f"{result['clock_s']:.1f} s: {result['pictures_per_second']:.0f} a second by the clock, with "
            f"{result['share_of_the_cores']:.0%} of their cores; "
            f"{result['pictures_per_processor_second']:.0f} a second of a core"
        )
        if options.json:
            options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        return 0
    torch.set_num_threads(options.threads)
    result = measure(options.device, options.seconds, batch=options.batch, world=options.world)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
