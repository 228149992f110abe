"""Network speed: the lite regressor against the ResNets, in turn in one run.

Times per picture are measured for inference in batches of 32, and for a training step (forward, backward, AdamW) in
batches of 64 with the lite regressor and 16 with the ResNets, which are too slow for more. The networks take turns, so
that other load on the machine affects all of them; the medians of the ratios to ResNet-50 are the result. ``--norms``
times the lite regressor with each normalisation.

    python benchmarks/network_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.networks import IN_CHANNELS, NORM_KINDS, REGRESSORS, count_parameters, make_regressor

INFERENCE_BATCH = 32
TRAINING_BATCH = {"lite": 64}
SLOW_TRAINING_BATCH = 16
REFERENCE, LITE = "resnet50", "lite"
LIMIT = 10.0  # required speed-up of the lite regressor


def inputs(count: int) -> torch.Tensor:
    return torch.rand(count, IN_CHANNELS, CROP_SIZE, CROP_SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1


def inference(network: nn.Module) -> Callable[[], float]:
    """A function that returns seconds per picture."""
    network, batch = network.eval(), inputs(INFERENCE_BATCH)

    def run() -> float:
        with torch.inference_mode():
            start = time.perf_counter()
            network(batch)
            return (time.perf_counter() - start) / len(batch)

    return run


def training(network: nn.Module, count: int) -> Callable[[], float]:
    network, batch = network.train(), inputs(count)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4)

    def run() -> float:
        start = time.perf_counter()
        optimiser.zero_grad()
        network(batch).square().mean().backward()
        optimiser.step()
        return (time.perf_counter() - start) / count

    return run


def in_turn(calls: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(call())
    return times


def table(title: str, times: dict[str, list[float]], reference: str) -> dict[str, float]:
    """Print the times, and return the speed of each network relative to the reference."""
    print(f"\n{title}")
    ratios = {}
    for name, own in times.items():
        ratios[name] = statistics.median(r / o for r, o in zip(times[reference], own, strict=True))
        median, best = 1000 * statistics.median(own), 1 / min(own)
        print(
            f"{name:22s} {median:8.2f} ms a picture   best {best:7.0f} pictures/s   {ratios[name]:6.2f} x {reference}"
        )
    return ratios


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--norms", action="store_true", help="time the lite regressor with each normalisation instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{options.threads} thread(s), {CROP_SIZE} x {CROP_SIZE}")
    if options.norms:
        lites = {f"lite, {norm}": make_regressor(LITE, norm=norm) for norm in NORM_KINDS}
        calls = {name: training(network, TRAINING_BATCH[LITE]) for name, network in lites.items()}
        table("training step", in_turn(calls, options.rounds), "lite, batch")
        return 0
    for name in REGRESSORS:
        print(f"{name:10s} {count_parameters(make_regressor(name)) / 1e6:6.2f} M parameters")
    calls = {name: inference(make_regressor(name)) for name in REGRESSORS}
    used = table(f"inference, batch {INFERENCE_BATCH}", in_turn(calls, options.rounds), REFERENCE)
    calls = {
        name: training(make_regressor(name), TRAINING_BATCH.get(name, SLOW_TRAINING_BATCH))
        for name in (REFERENCE, "resnet18", LITE)
    }
    learnt = table("training step", in_turn(calls, options.rounds), REFERENCE)
    return 0 if min(used[LITE], learnt[LITE]) >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
