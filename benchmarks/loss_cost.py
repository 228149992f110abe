"""Memory and step time of each loss, and of the two vertex losses computed by definition, without the closed form.

A step is a forward and a backward pass from network outputs (or landmarks) that require a gradient. The embedded face
has 11,981 vertices; ``--vertices 53215`` uses random numbers of the Basel Face Model's size instead. The losses run in
turn, round after round, so that other load on the machine affects all of them; medians are printed. Memory is the peak
size of all tensors that a step creates; the constants that a loss stores are printed beside it.

    python benchmarks/loss_cost.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients, Whitening
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.losses import (
    PDC,
    VDC,
    WPDC,
    CycleConsistency,
    LandmarkConsistency2D,
    LandmarkConsistency3D,
    SelfCritic,
)
from twodasl_lite.losses.labelled import DEPTH_ENTRY

Step = Callable[[], torch.Tensor]


def make_model(vertices: int | None) -> MorphableModel:
    if vertices is None:
        return load_face_model(CoefficientLayout())
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    landmarks = torch.randint(vertices, (68,), generator=generator)
    triangles = torch.zeros(0, 3, dtype=torch.long)
    return MorphableModel(
        40 * random(vertices, 3), random(vertices, 3, 40), random(vertices, 3, 10), triangles, landmarks
    )


def random_faces(model: MorphableModel, num: int, generator: torch.Generator) -> torch.Tensor:
    """Raw vectors ``(num, 62)`` of plausible faces."""
    angles = 0.4 * torch.randn(num, 3, generator=generator)
    shift = 60 + 4 * torch.randn(num, 3, generator=generator)
    scale = 0.45 + 0.03 * torch.randn(num, generator=generator)
    return Coefficients(
        make_pose(scale, euler_to_matrix(angles), shift), *model.sample(num, generator=generator)
    ).pack()


def naive_vdc(predicted: torch.Tensor, target: torch.Tensor, model: MorphableModel, whitening: Whitening):
    """VDC by definition: decode both faces and subtract (in pixels, not in face sizes)."""
    difference = decode(whitening.unwhiten(predicted), model) - decode(whitening.unwhiten(target), model)
    return difference.square().sum(dim=-1).mean(dim=-1)


def naive_wpdc(predicted: torch.Tensor, target: torch.Tensor, model: MorphableModel, whitening: Whitening):
    """WPDC by definition: swap one coefficient after the other and decode."""
    with torch.no_grad():
        wrong, right = whitening.unwhiten(predicted), whitening.unwhiten(target)
        truth, moved = decode(right, model), torch.zeros_like(right)
        for entry in range(right.shape[1]):
            swapped = right.clone()
            swapped[:, entry] = wrong[:, entry]
            moved[:, entry] = (decode(swapped, model) - truth).flatten(1).norm(dim=1)
        moved[:, DEPTH_ENTRY] = 0
        weights = moved / moved.amax(dim=1, keepdim=True)
    return (weights * (predicted - target).square()).sum(dim=1)


def make_steps(model: MorphableModel, batch: int, device: str) -> dict[str, tuple[Step, int]]:
    """Name of a loss to its step and the bytes of its constants."""
    generator = torch.Generator().manual_seed(0)
    samples = random_faces(model, 2000, generator)
    whitening = Whitening.from_samples(samples.to(device))
    model = model.to(device)
    target = whitening.whiten(samples[:batch].to(device))
    predicted = (target + 0.3 * torch.randn(target.shape, generator=generator).to(device)).requires_grad_()
    solid = decode_landmarks(whitening.unwhiten(target), model)
    first, second = (
        (solid + torch.randn(solid.shape, generator=generator).to(device)).requires_grad_() for _ in range(2)
    )
    flat, seen = subset_18(solid)[..., :2].detach(), torch.ones(batch, 18, dtype=torch.bool, device=device)
    drawn = (flat + 1.0).requires_grad_()
    score = torch.zeros(batch, device=device, requires_grad=True)
    vdc, wpdc, critic = VDC(model, whitening).to(device), WPDC(model, whitening).to(device), SelfCritic()
    nothing = torch.nn.Identity()
    steps = {
        "pdc": (lambda: PDC()(predicted, target), nothing),
        "vdc": (lambda: vdc(predicted, target), vdc),
        "vdc, all vertices decoded": (lambda: naive_vdc(predicted, target, model, whitening), model),
        "wpdc": (lambda: wpdc(predicted, target), wpdc),
        "wpdc, one swap after the other": (lambda: naive_wpdc(predicted, target, model, whitening), model),
        "landmarks_2d": (lambda: LandmarkConsistency2D()(drawn, flat, seen), nothing),
        "landmarks_2d, huber": (lambda: LandmarkConsistency2D("huber")(drawn, flat, seen), nothing),
        "landmarks_3d": (lambda: LandmarkConsistency3D()(second, first), nothing),
        "cycle": (lambda: CycleConsistency()(drawn, flat, seen), nothing),
        "critic, its own side": (lambda: critic.for_critic(score, score), nothing),
        "critic, the regressor's side": (lambda: critic.for_regressor(score), nothing),
    }
    torch.testing.assert_close(
        wpdc(predicted, target), naive_wpdc(predicted, target, model, whitening), rtol=1e-3, atol=0
    )
    return {
        name: (step, sum(each.nbytes for each in ([model.mean, model.basis] if holder is model else holder.buffers())))
        for name, (step, holder) in steps.items()
    }


def seconds(step: Step, device: str) -> float:
    start = time.perf_counter()
    step().sum().backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_bytes(step: Step, device: str) -> int:
    """Peak size of the tensors alive during a step, beyond those that existed before."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step().sum().backward()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step().sum().backward()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--vertices", type=int, help="random numbers in this size instead of the embedded face")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = make_model(options.vertices)
    steps = make_steps(model, options.batch, options.device)
    for step, _ in steps.values():
        seconds(step, options.device)
    rounds = [[seconds(step, options.device) for step, _ in steps.values()] for _ in range(options.rounds)]
    medians = [1000 * statistics.median(column) for column in zip(*rounds, strict=True)]
    print(f"{model.num_vertices:,} vertices, batch {options.batch}, {options.threads} thread(s), {options.device}\n")
    print("| loss | step, ms | memory of a step, kB | constants, kB |\n|---|---|---|---|")
    for (name, (step, constants)), time_ms in zip(steps.items(), medians, strict=True):
        print(f"| {name} | {time_ms:.2f} | {peak_bytes(step, options.device) / 1e3:,.0f} | {constants / 1e3:,.0f} |")


if __name__ == "__main__":
    main()
