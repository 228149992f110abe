"""Complete synthetic pictures per second, and the time of each step.

To complete a picture, the face is sampled, decoded, dressed, lit, rendered with smooth edges, placed on a background,
degraded as its world says, and given its landmarks. The total is measured with all threads; the steps are measured with
one, by torch's profiler, whose overhead they include. With other load on the machine, CPU time says more than
wall-clock time: both are printed.

    python benchmarks/pictures_speed.py
    python benchmarks/pictures_speed.py --device cuda --batch 512
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import torch
from torch.profiler import ProfilerActivity, profile

from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.worlds.synthetic import SyntheticFaces
from twodasl_lite.worlds.world import world_names

STEPS = (
    *("sampling", "decoding", "colours", "occluders", "light", "rendering", "background", "degradation"),
    "landmarks",
)
GOAL = {"cpu": 150, "cuda": 5000}  # pictures per second: 2 idle cores, an H200


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--worlds", nargs="*", default=list(world_names()))
    options = parser.parse_args()
    model, device = load_face_model(CoefficientLayout()), options.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} threads of a CPU"
    print(f"{where}, {model.num_triangles:,} triangles, batches of {options.batch}")
    for name in options.worlds:
        faces = SyntheticFaces(model, name, device=device)
        torch.set_num_threads(options.threads)
        start = time.perf_counter()
        faces.batch(0, options.batch)
        wait(device)
        print(f"\n{name}: the first batch, with textures and compilation {time.perf_counter() - start:7.2f} s")
        clock, work = [], []
        for number in range(1, options.rounds + 1):
            start, busy = time.perf_counter(), time.process_time()
            faces.batch(number * options.batch, options.batch)
            wait(device)
            clock.append((time.perf_counter() - start) / options.batch)
            work.append((time.process_time() - busy) / options.batch)
        best, usual, busy = min(clock), statistics.median(clock), statistics.median(work)
        goal = GOAL.get(device.type, 0)
        print(f"pictures a second: {1 / usual:8.0f} (median), {1 / best:8.0f} (best of {options.rounds}), goal {goal}")
        print(
            f"processor time:    {1000 * busy:8.2f} ms a picture, {options.threads / busy:.0f} a second on idle cores"
        )

        torch.set_num_threads(1)
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
        with profile(activities=activities, acc_events=True) as profiled:
            for number in range(2):
                faces.batch(number * options.batch, options.batch)
            wait(device)
        events = {event.key: event for event in profiled.key_averages()}
        times = {step: events[step].cpu_time_total / 2000 / options.batch for step in STEPS if step in events}
        total = sum(times.values())
        for step, spent in times.items():
            print(f"    {step:12} {spent:7.3f} ms  {100 * spent / total:4.0f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
