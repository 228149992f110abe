"""The parts of ``gpu_run.py``: each measures one thing within its time limit and reports as it goes.

A part is a function of (:class:`Settings`, report): ``report(name=value, ...)`` adds to what the part has found and
writes it to disk at once, so that a part that is ended early, or dies, keeps what it had. It looks at the clock between
its pieces, and when its time is nearly over it leaves out the rest and says so under ``"less"``.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import time
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import nn

from twodasl_lite.base.checks import trusted_values
from twodasl_lite.base.errors import TwodaslError
from twodasl_lite.datasets.stream import MemoryStream
from twodasl_lite.evaluation import nme, summarise
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry.camera import CROP_SIZE, crop_to_image, image_to_crop
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import flip_landmarks, subset_18
from twodasl_lite.networks import TrainedRegressor, load_regressor, make_regressor, save_regressor
from twodasl_lite.networks.prediction import predict_with
from twodasl_lite.render import Lamps, over, rasterize, render
from twodasl_lite.render.screen import Backend
from twodasl_lite.training.checkpoint import latest_checkpoint
from twodasl_lite.training.config import TrainConfig, config_to_dict, load_config
from twodasl_lite.training.distributed import Processes
from twodasl_lite.training.log import LOG_FILE, read_log
from twodasl_lite.training.loop import BEST_FILE, LAST_FILE, Run, train
from twodasl_lite.training.pictures import CHUNK, RunData, face_model_of, pictures
from twodasl_lite.training.steps import RegressorStep
from twodasl_lite.worlds.synthetic import SyntheticFaces, whitening_of

Report = Callable[..., None]
ROOT = Path(__file__).resolve().parents[1]
RUN, NETWORK = "run", "network.safetensors"
LESS = "less"
"""Where a part says what it left out for want of time."""
POINTS, ALONE, MIRRORED = "a detector's points", "no points", ", mirrored too"
MAIN, DEPTH = "68 points, 2D", "68 points, 3D"
JITTER = 0.1
_AT_ONCE = {"cuda": 250, "cpu": 50}
"""Faces evaluated between two looks at the clock."""
_BASEL = (53_215, 40, 10)  # vertices, shape and expression components of the Basel Face Model
HELD_PER_SECOND = 20.0
"""Assumed pictures per second and core, if nothing was measured; 16 cores drew 353 a second."""
FOR_DRAWING = 0.15
"""Share of the training's time that may go into drawing pictures that are held."""
_DRAWN_AT_LEAST = CHUNK


class Settings(NamedTuple):
    """Settings of a part.

    Attributes:
        device: ``"cuda"`` or ``"cpu"``.
        seconds: Time limit in seconds.
        work: Folder for temporary files.
        config: Name or file of the configuration to train.
        overrides: Overrides of the configuration, as ``"key=value"``.
        photos: File of photographs, see ``gpu_run.py --pack``.
        until: When the part is ended, as ``time.perf_counter`` tells it.
    """

    device: str
    seconds: float
    work: Path
    config: str
    overrides: tuple[str, ...] = ()
    photos: Path | None = None
    until: float = math.inf

    def left(self, spare: float = 0.15) -> float:
        """Seconds that are left, less the share of the whole that is kept for ending in order."""
        return min(self.until - time.perf_counter(), self.seconds) - spare * self.seconds

    def loaded(self) -> TrainConfig:
        """The configuration."""
        return load_config(self.config, list(self.overrides))


# ------------------------------------------------------------------------------------------------------------- clocks
def wait(device: str | torch.device) -> None:
    """Wait until the device has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def milliseconds(work: Callable[[], object], device: str, seconds: float) -> float:
    """Median time of a call, after one that is not counted, as many calls as the seconds allow.

    A call that alone takes longer than the seconds is not repeated: the first one's time is the answer.
    """
    end, most = time.perf_counter() + seconds, 200 if device == "cuda" else 10
    times: list[float] = []
    while len(times) < 2 or (time.perf_counter() < end and len(times) <= most):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
        if times[0] > seconds:
            break
    return 1000 * statistics.median(times[1:] or times)


def about(error: BaseException) -> str:
    """The last line of a traceback."""
    return f"{type(error).__name__}: {error}".strip()[:1000]


# -------------------------------------------------------------------------------------------------------------- ready
def ready(settings: Settings, report: Report) -> None:
    """Report the machine's equipment, and build the book's face, which is cached (5 s)."""
    found = {}
    for name in ("numpy", "cv2", "scipy", "safetensors", "tqdm", "numba", "triton", "pytest", "matplotlib"):
        if importlib.util.find_spec(name) is not None:
            found[name] = str(getattr(importlib.import_module(name), "__version__", "there"))
    report(packages=found, share_of_a_core=round(share_of_a_core(), 2))
    model = face_model_of(settings.loaded())
    report(vertices=model.num_vertices, triangles=model.num_triangles)
    if settings.device == "cuda":
        from twodasl_lite.render import triton_backend

        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            usable = triton_backend.usable(torch.device("cuda", torch.cuda.current_device()))
        report(rasterizer="triton" if usable else "torch", warnings=[str(one.message)[:500] for one in said])


def share_of_a_core(seconds: float = 0.2, patience: float = 3.0) -> float:
    """What this program gets of a core while it computes: less than 1 where other programs want the same one.

    Args:
        seconds: Of the processor, to find out.
        patience: Seconds by the clock after which it is known well enough.
    """
    start, used = time.perf_counter(), time.thread_time()
    count = 0
    while time.thread_time() - used < seconds and time.perf_counter() - start < patience:
        count += sum(range(1000))
    return min(1.0, (time.thread_time() - used) / (time.perf_counter() - start))


# -------------------------------------------------------------------------------------------------------------- tests
def tests(settings: Settings, report: Report) -> None:
    """Run ``pytest -m gpu`` if pytest is installed, otherwise a few comparisons of CUDA with the CPU."""
    if importlib.util.find_spec("pytest") is None:
        report(by="comparisons of this script, as pytest is not there", **checks(settings.device))
        return
    log, outcomes = settings.work / "pytest.txt", settings.work / "outcomes.jsonl"
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=line", "-p", "no:cacheprovider"]
    command += ["-p", "pytest_until", "tests"]
    places = os.pathsep.join(map(str, (ROOT, ROOT / "book", Path(__file__).parent)))
    environment = os.environ | {
        "PYTHONPATH": places,
        "TESTS_UNTIL": str(time.time() + settings.left()),
        "TESTS_OUTCOMES": str(outcomes),
    }
    with log.open("w") as file:
        try:
            subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=settings.left(0.05)
            )
            over_time = False
        except subprocess.TimeoutExpired:
            over_time = True
    text = log.read_text(errors="replace")
    report(**counted(outcomes), by="pytest -m gpu", last=text.splitlines()[-1][:200] if text.strip() else "")
    if over_time:
        report(**{LESS: ["a test, or reading the tests, took more than the time that was left, and was ended"]})
    found = _read_lines(outcomes)
    if not found:
        raise RuntimeError(f"pytest ran no test: {text[-300:]}")
    late = [row["test"] for row in found if row["outcome"] == "late"]
    if late:
        report(**{LESS: [f"{len(late)} of {len(found)} tests, the first of them {late[0]}"]})
    bad = [row for row in found if row["outcome"] in ("failed", "error")]
    if bad:
        raise RuntimeError(f"{len(bad)} of {len(found)} tests failed, the first of them {bad[0]['test']}")


def counted(outcomes: Path) -> dict[str, Any]:
    """How many tests passed and so on, which failed and why, which took longest; of the file of ``pytest_until``."""
    found = _read_lines(outcomes)
    counts = {name: sum(row["outcome"] == name for row in found) for name in ("passed", "failed", "error", "skipped")}
    bad = [f"{row['test']}: {row['why']}" for row in found if row["outcome"] in ("failed", "error")]
    slow = sorted(found, key=lambda row: -row["seconds"])[:5]
    return {
        **counts,
        "not reached": sum(row["outcome"] == "late" for row in found),
        "bad": bad[:20],
        "slowest": {row["test"]: row["seconds"] for row in slow},
    }


def checks(device: str) -> dict[str, Any]:
    """Comparisons of a device with the CPU, without pytest: each difference and its tolerance."""
    model = _random_model(600, 40, 10)
    generator = torch.Generator().manual_seed(0)
    shape, expression = (torch.randn(8, k, generator=generator) for k in (40, 10))
    found: dict[str, tuple[float, float]] = {}

    dense = model.decode(shape, expression)
    moved = _random_model(600, 40, 10).to(device).decode(shape.to(device), expression.to(device)).cpu()
    found["decoded vertices, share of the largest"] = (float((dense - moved).abs().max() / dense.abs().max()), 1e-3)

    corners = 60 + 30 * torch.randn(4, 90, 3, generator=generator)
    triangles = torch.arange(90).reshape(30, 3)
    drawn = [
        rasterize(corners.to(place), triangles.to(place), 120, 120, backend="torch").triangle.cpu()
        for place in ("cpu", device)
    ]
    found["pixels with another triangle"] = (float((drawn[0] != drawn[1]).double().mean()), 1e-3)

    network = make_regressor("resnet18").eval()
    inputs = torch.randn(4, 4, CROP_SIZE, CROP_SIZE, generator=generator)
    with torch.no_grad():
        here, there = network(inputs), network.to(device)(inputs.to(device)).cpu()
    found["outputs of ResNet-18, share of the largest"] = (float((here - there).abs().max() / here.abs().max()), 2e-2)
    return {
        "passed": sum(apart <= limit for apart, limit in found.values()),
        "failed": sum(apart > limit for apart, limit in found.values()),
        "differences": {name: {"found": apart, "limit": limit} for name, (apart, limit) in found.items()},
    }


def _random_model(vertices: int, shape: int, expression: int) -> MorphableModel:
    generator = torch.Generator().manual_seed(0)
    return MorphableModel(
        torch.randn(vertices, 3, generator=generator),
        torch.randn(vertices, 3, shape, generator=generator),
        torch.randn(vertices, 3, expression, generator=generator),
        torch.zeros(0, 3, dtype=torch.long),
        torch.randint(vertices, (68,), generator=generator),
    )


# ------------------------------------------------------------------------------------------------------------ drawing
def drawing(settings: Settings, report: Report) -> None:
    """Complete pictures per second, by world."""
    model = face_model_of(settings.loaded())
    if (Path(__file__).with_name("drawing_speed.py")).is_file():
        from drawing_speed import measure

        # It always makes a few rounds, whatever its time limit: on a CPU, small batches in one world.
        shares, batch = ({"wild": 0.6, "labelled": 0.2}, None) if settings.device == "cuda" else ({"wild": 0.4}, 8)
        less: list[str] = []
        for world, share in shares.items():
            allowed = settings.left() if len(shares) == 1 else min(settings.left(), share * settings.seconds)
            if allowed <= 0:
                less.append(f"the world {world!r}")
            else:
                until = time.perf_counter() + allowed
                found = measure(
                    *(settings.device, min(allowed, share * settings.seconds)),
                    batch=batch,
                    world=world,
                    model=model,
                    until=until,
                )
                less += [f"{world}: {one}" for one in found["left_out"]]
                report(**{world: found})
            report(**{LESS: less})
        return
    batch = 256 if settings.device == "cuda" else 16
    worlds = ("wild", "labelled")
    for name in worlds:
        faces = SyntheticFaces(model, name, device=torch.device(settings.device))
        start = time.perf_counter()
        faces.batch(0, batch)
        wait(settings.device)
        first = time.perf_counter() - start
        numbers = itertools.count(batch, batch)
        allowed = max(1.0, settings.seconds / len(worlds) - first - 2)
        took = milliseconds(lambda faces=faces, at=numbers: faces.batch(next(at), batch), settings.device, allowed)
        report(**{name: {"pictures_per_second": round(1000 * batch / took, 1), "first_batch_seconds": round(first, 2)}})
    report(batch=batch, triangles=model.num_triangles)


def drawing_rate(found: dict[str, Any], world: str) -> float | None:
    """Pictures per second of a world, as reported by :func:`drawing`."""
    rate = (found.get("worlds", found).get(world) or {}) if isinstance(found, dict) else {}
    return rate.get("pictures_per_second") if isinstance(rate, dict) else None


# ------------------------------------------------------------------------------------------------------------ kernels
def kernels(settings: Settings, report: Report) -> None:
    """Time decoding a model of Basel's size, and finding the nearest triangle, by backend."""
    device, batch = settings.device, 256 if settings.device == "cuda" else 8
    model = _random_model(*_BASEL).to(device)
    weights = torch.randn(batch, sum(_BASEL[1:]), device=device)
    shape, expression = weights.split(_BASEL[1:], dim=1)
    matrix = model.basis.flatten(0, 1).T
    sizes = (CROP_SIZE, 450) if device == "cuda" else (CROP_SIZE,)
    backends = [name for name in typing.get_args(Backend) if name != "auto"]
    piece = max(0.1, settings.left() / (3 + len(sizes) * len(backends)) / 2)
    with torch.inference_mode():
        calls = {
            "bare product": lambda: weights @ matrix,
            "decode": lambda: model.decode(shape, expression),
            "decode_landmarks": lambda: model.decode_landmarks(shape, expression),
        }
        report(batch=batch, vertices=_BASEL[0])
        report(decode_ms={name: round(milliseconds(call, device, piece), 3) for name, call in calls.items()})
    less: list[str] = []

    face = face_model_of(settings.loaded())
    rates: dict[str, dict[str, Any]] = {}
    count = 64 if device == "cuda" else 4
    for size in sizes:
        corners = _posed(face, size, count)
        for backend in backends:
            if settings.left() <= 0:
                less.append(f"{backend} at {size} pixels")
                report(**{LESS: less})
                continue
            # numba draws on the CPU whatever the device.
            place = "cpu" if backend == "numba" else device
            vertices, triangles = corners.to(place), face.triangles.to(place)

            def call(vertices=vertices, triangles=triangles, size=size, backend=backend) -> object:
                return rasterize(vertices, triangles, size, size, backend=backend)

            try:
                took = milliseconds(call, place, piece)
                rates.setdefault(str(size), {})[backend] = round(1000 * count / took, 1)
            except (RuntimeError, TwodaslError, ImportError) as error:
                rates.setdefault(str(size), {})[backend] = about(error)[:200]
            report(rasterised_per_second=rates, triangles=face.num_triangles, pictures=count)


def _posed(model: MorphableModel, size: int, count: int) -> torch.Tensor:
    """The mean face turned by -60 to 60 degrees, ``(count, V, 3)`` pixels."""
    mean = model.mean.float()
    mean = mean - (mean.amax(dim=0) + mean.amin(dim=0)) / 2
    yaw = torch.deg2rad(torch.linspace(-60, 60, count))
    turn = torch.zeros(count, 3, 3)
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1] = yaw.cos(), yaw.sin(), 1.0
    turn[:, 2, 0], turn[:, 2, 2] = -yaw.sin(), yaw.cos()
    points = 0.9 * size / float((mean.amax(dim=0) - mean.amin(dim=0)).max()) * mean @ turn.mT
    return torch.stack([points[..., 0] + size / 2, size / 2 - points[..., 1], points[..., 2]], dim=-1).contiguous()


# ------------------------------------------------------------------------------------------------------------ profile
class _Answer(nn.Module):
    """A stand-in for a network that returns precomputed predictions, so that a loss can be timed alone."""

    def __init__(self, answers: torch.Tensor) -> None:
        super().__init__()
        self.answers = nn.Parameter(answers)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.answers[: len(inputs)]


def profile(settings: Settings, report: Report) -> None:
    """Profile a training step.

    ``"step"`` is the whole step, measured by itself. The rows are measured one by one, with the device idle before and
    after, so that their sum exceeds the step where work overlaps. Each loss is timed alone, forward and backward from
    the network's output, including the landmark decoding that it needs. Drawn pictures stand in for photographs.
    """
    config, device = settings.loaded(), torch.device(settings.device)
    config = replace(config, optimiser=replace(config.optimiser, compile=False))
    model = face_model_of(config).to(device)
    sizes = {name: getattr(config.data, name).batch_size for name in ("labelled", "unlabelled")}
    start = time.perf_counter()
    drawn = SyntheticFaces(model, config.data.labelled.world or "wild", device=device)
    labelled = _draw(drawn, sizes["labelled"], True).to(device)
    first = time.perf_counter() - start
    unlabelled = _draw(drawn, min(sizes["unlabelled"], 64 if device.type == "cpu" else 1024), True).to(device)
    unlabelled = unlabelled.without_truth()._replace(yaw=unlabelled.yaw)
    used = {"labelled": labelled.size, "unlabelled": unlabelled.size}
    data = RunData(
        MemoryStream(labelled),
        MemoryStream(unlabelled) if config.self_supervision.weights else None,
        labelled,
        whitening_of(model, config.data.whitening or "wild"),
    )
    run = Run(config, settings.work / "profiled", model, data, Processes(device=device))
    report(pictures=used, first_batch_seconds=round(first, 2), precision=config.optimiser.precision)
    on_gpu = device.type == "cuda"
    pieces = _pieces(run, labelled, unlabelled if data.unlabelled else None, drawn)
    rows = {name: _trusting(call) if on_gpu else call for name, call in pieces}
    left = len(rows) + 1
    piece = max(0.1, settings.left() / left)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step = milliseconds(rows.pop("step"), settings.device, piece)
    together = used["labelled"] + (used["unlabelled"] if data.unlabelled else 0)
    report(step_ms=round(step, 3), pictures_per_second=round(1000 * together / step, 1))
    if device.type == "cuda":
        report(peak_memory_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2))
    table: dict[str, float] = {}
    less: list[str] = []
    for number, (name, call) in enumerate(rows.items()):
        # What quick rows do not use goes to those that come after them.
        if (piece := settings.left() / (len(rows) - number)) > 0:
            table[name] = round(milliseconds(call, settings.device, piece), 3)
            report(ms=table)
        else:
            less.append(name)
            report(**{LESS: less})


def _trusting(call: Callable[[], object]) -> Callable[[], object]:
    """As the loop calls a step on a GPU: no value is looked at."""

    def trusting() -> object:
        with trusted_values():
            return call()

    return trusting


def _draw(faces: SyntheticFaces, count: int, truth: bool, first: int = 0) -> FaceBatch:
    return FaceBatch.cat([faces.batch(first + at, min(256, count - at), truth=truth) for at in range(0, count, 256)])


def _pieces(
    run: Run, labelled: FaceBatch, unlabelled: FaceBatch | None, drawn: SyntheticFaces
) -> Iterator[tuple[str, Callable[[], object]]]:
    """The pieces of a step, each as a callable."""
    config, network = run.config, run.network
    yield "step", lambda: run.train_step(labelled, unlabelled)
    streams = [iter(_endless(run.data.labelled, labelled.size))]
    if unlabelled is not None:
        streams.append(iter(_endless(run.data.unlabelled, unlabelled.size)))
    yield "data: taking batches that are held", lambda: [next(stream) for stream in streams]

    def shown() -> list:
        pair = [run._inputs(labelled, "labelled")]
        return pair if unlabelled is None else [*pair, run._inputs(unlabelled, "unlabelled")]

    yield "inputs: augmentation and landmark maps", shown
    seen = shown()
    inputs = torch.cat([part.inputs for part in seen])
    step = run.regressor_step
    yield "network, forward", lambda: step._predict(inputs)
    answers = step._predict(inputs)
    pull = torch.randn_like(answers)
    yield (
        "network, forward and backward",
        lambda: torch.autograd.grad(step._predict(inputs), list(network.parameters()), pull),
    )
    fixed, judge = answers.detach(), run.critic
    for number, stage in enumerate(config.stages):
        for name, weight in stage.weights.items():
            alone = replace(stage, **dict.fromkeys(stage.weights, 0.0) | {name: weight})
            yield f"loss {name}, {stage.name}", _alone(run, fixed, seen, number, stage=alone)
    if unlabelled is not None:
        for name, weight in config.self_supervision.weights.items():
            others = dict.fromkeys(config.self_supervision.weights, 0.0)
            alone = replace(config.self_supervision, **others | {name: weight})
            again = ", without its second look" if name in ("landmarks_3d", "cycle") else ""
            wanted = judge if name == "critic" else None
            yield f"loss {name}{again}", _alone(run, fixed, seen, 0, supervision=alone, judge=wanted)

    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)

    def optimiser() -> None:
        nn.utils.clip_grad_norm_(network.parameters(), config.optimiser.clip)
        run.optimiser.step()
        run.average.update(network)

    yield "optimiser: clip, AdamW, average", optimiser
    numbers = itertools.count(1)
    yield (
        "drawing the labelled pictures (where they are streamed)",
        lambda: _draw(drawn, labelled.size, True, next(numbers) * labelled.size),
    )


def _endless(stream: MemoryStream, size: int) -> Iterator[FaceBatch]:
    yield from stream.batches(size)


def _alone(run: Run, answers, seen, number, *, stage=None, supervision=None, judge=None) -> Callable[[], object]:
    """One loss, forward and backward, from precomputed predictions."""
    config = run.config
    if supervision is None:
        config = replace(config, stages=tuple(stage if k == number else s for k, s in enumerate(config.stages)))
        seen, answers = [seen[0], None], answers[: seen[0].batch.size]
    else:
        none = dict.fromkeys(("pdc", "wpdc", "vdc"), 0.0)
        stages = tuple(replace(one, **none) for one in config.stages)
        config = replace(config, stages=stages, self_supervision=supervision)
    known = _Answer(answers)
    step = RegressorStep(known, run.model, run.whitening, config)

    def call() -> None:
        known.answers.grad = None
        losses, _ = step(seen[0], seen[1], number, judge)
        sum(value.mean() for value in losses.values()).backward()

    return call


# ----------------------------------------------------------------------------------------------------------- training
def fitted(config: TrainConfig, seconds: float, rates: dict[str, float | None]) -> list[str]:
    """Overrides (``"key=value"``) that make a run fit into its time: fewer drawn pictures, a schedule by the clock.

    Args:
        config: Configuration without the overrides.
        seconds: Time for the training, including drawing.
        rates: World to pictures per second that the machine draws into memory, if known.
    """
    words = []
    if hasattr(config.run, "minutes"):  # the schedule follows the clock
        words.append(f"run.minutes={0.97 * seconds / 60:.4f}")
    sources = {"labelled": config.data.labelled, "validation": config.data.validation}
    if config.self_supervision.weights:
        sources["unlabelled"] = config.data.unlabelled
    held = {
        name: source
        for name, source in sources.items()
        if source.kind == "synthetic" and (name == "validation" or config.data.hold != "stream")
    }
    needed = sum(source.count / (rates.get(source.world) or HELD_PER_SECOND) for source in held.values())
    factor = FOR_DRAWING * seconds / max(needed, 1e-6)
    if factor < 1:
        for name, source in held.items():
            count = max(_DRAWN_AT_LEAST, int(source.count * factor) // CHUNK * CHUNK)  # so they are drawn and kept
            words.append(f"data.{name}.count={min(source.count, count)}")
    return words


def training(settings: Settings, report: Report) -> None:
    """Train the configuration once, within the time limit."""
    started = time.perf_counter()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found = _read(settings.work / "drawing.json").get("result", {})
    config = settings.loaded()
    workers = min(cores, config.data.processes)
    worlds = {getattr(config.data, name).world for name in ("labelled", "unlabelled", "validation")}
    # CPU processes draw the pictures that are held in memory; CUDA's rate says nothing about them.
    on_cpu = settings.device == "cpu"
    rates = {world: drawing_rate(found, world) if on_cpu else HELD_PER_SECOND * workers for world in worlds}
    seconds = settings.left(spare=0.0) - max(4.0, 0.08 * settings.seconds)  # to validate and to write at the end
    words = [f"data.processes={workers}", *fitted(config, seconds, rates)]
    if config.run.tensorboard and importlib.util.find_spec("tensorboard") is None:
        words.append("run.tensorboard=false")
    config = load_config(settings.config, [*words, *settings.overrides])
    folder = settings.work / RUN
    report(configuration=settings.config, changed=words, config=config_to_dict(config), planned=config.steps)
    fewer = [word for word in words if word.endswith("count", 0, word.find("="))]
    report(**{LESS: [f"fewer drawn pictures: {', '.join(fewer)}"] if fewer else []})
    watching = _watched(report, started, settings.device)
    options = {"device": settings.device, "progress": False, "minutes": seconds / 60, "watch": watching}
    result = train(config, folder, **options)
    # A run with a schedule by the clock plans more steps than it makes.
    report(step=result.step, finished=result.finished, log=LOG_FILE)
    if result.finished:
        report(planned=result.step)
    network, step = keep_network(folder, settings.work / NETWORK, result.finished)
    report(network=network, network_step=step)
    if not result.step:
        raise RuntimeError(f"the time was over before the first step ({getattr(result, 'preparing', '')})")


def _watched(report: Report, started: float, device: str) -> Callable[[dict], None]:
    """Reports of a run in progress: seconds before the first step, memory."""
    first = True

    def watch(row: dict[str, Any]) -> None:
        nonlocal first
        if row["kind"] == "start":
            report(start_seconds=round(time.perf_counter() - started, 1))
        if row["kind"] == "train":
            report(step=row["step"], seconds=round(time.perf_counter() - started, 1))
            if first:
                report(first_row={"step": row["step"], "seconds": round(time.perf_counter() - started, 1)})
                first = False
            if device == "cuda":
                report(peak_memory_gib=round(torch.cuda.max_memory_allocated() / 2**30, 2))

    return watch


def keep_network(folder: Path, path: Path, finished: bool) -> tuple[str, int]:
    """Write a run's network: the final one, or the averaged one in the last checkpoint if the run was stopped.

    Returns:
        A description of the network, and its step.

    Raises:
        RuntimeError: If there is neither a finished network nor a checkpoint.
    """
    if finished and (folder / LAST_FILE).is_file():
        path.write_bytes((folder / LAST_FILE).read_bytes())
        return LAST_FILE, int(load_regressor(path).metadata["step"])
    if checkpoint := latest_checkpoint(folder):
        from twodasl_lite.viz.snapshots import read_snapshot

        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        snapshot = read_snapshot(checkpoint, average=True)
        pose = facts["network"].get("pose", "free")
        metadata = {"map_kind": snapshot.map_kind, "pose": pose, "step": snapshot.step, "config": facts}
        save_regressor(path, snapshot.regressor, snapshot.whitening, metadata)
        return f"the average in {checkpoint.name}", snapshot.step
    if (folder / BEST_FILE).is_file():
        path.write_bytes((folder / BEST_FILE).read_bytes())
        return BEST_FILE, int(load_regressor(path).metadata["step"])
    raise RuntimeError(f"{folder}: found neither a finished network nor a checkpoint")


# --------------------------------------------------------------------------------------------------------- evaluation
def evaluation(settings: Settings, report: Report) -> None:
    """Evaluate on AFLW2000-3D if the photographs are available, otherwise on the run's validation pictures."""
    config, trained, model = _trained(settings)
    report(step=int(trained.metadata.get("step", 0)))
    test = None if settings.photos is None else _test_set(settings.photos)
    if test is None:
        if settings.photos is not None:
            report(problem=f"{settings.photos}: found no test photographs in it")
        _on_pictures(settings, config, trained, model, report)
    else:
        _on_photographs(settings, test, trained, model, report)


def _trained(settings: Settings) -> tuple[TrainConfig, TrainedRegressor, MorphableModel]:
    """The run's configuration, network and face model, on the device."""
    from twodasl_lite.training.config import config_from_dict

    if not (settings.work / NETWORK).is_file():
        network, step = keep_network(settings.work / RUN, settings.work / NETWORK, False)
        print(f"{network}, step {step}", file=sys.stderr)
    facts = json.loads((settings.work / RUN / "config.json").read_text(encoding="utf-8"))
    config = config_from_dict(facts)
    model = face_model_of(config).float().to(settings.device)
    return config, load_regressor(settings.work / NETWORK, settings.device), model


def _test_set(path: Path) -> Any | None:
    """The test photographs of a file or a clone."""
    try:
        from twodasl_lite.datasets import packed
    except ImportError:
        packed = None
    if packed is not None and path.is_file():
        return packed.read_test(path)
    from twodasl_lite.datasets.aflw2000 import read_aflw2000

    return read_aflw2000(path)


def _looks(trained: TrainedRegressor, model: MorphableModel, images: torch.Tensor, points) -> dict[str, torch.Tensor]:
    """Landmarks ``(B, 68, 3)`` in the crop, by the kind of input."""
    other = None if points is None else flip_landmarks(points, CROP_SIZE)
    found = {}
    for name, shown, mirrored in ((POINTS, points, other), (ALONE, None, None)):
        if name == POINTS and points is None:
            continue
        options = [None if p is None else subset_18(p).to(images.device) for p in (shown, mirrored)]
        plain = predict_with(trained, images, options[0], model=model).landmarks.double().cpu()
        turned = predict_with(trained, images.flip(-1), options[1], model=model).landmarks.double().cpu()
        back = flip_landmarks(turned[..., :2], CROP_SIZE)
        depth = turned[:, _mirrored_order(), 2:]
        found[name] = plain
        found[name + MIRRORED] = (plain + torch.cat([back, depth], dim=-1)) / 2
    return found


def _mirrored_order() -> torch.Tensor:
    """The landmark of the face that each landmark of the mirrored face is, found by mirroring indices."""
    numbers = torch.arange(68, dtype=torch.float64)
    return flip_landmarks(torch.stack([torch.zeros(68), numbers], dim=-1)[None].double(), CROP_SIZE)[0, :, 1].long()


def _in_random_order(count: int) -> torch.Tensor:
    """The numbers of the faces, so mixed that however many are evaluated, they are a fair sample of all."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def _on_photographs(settings: Settings, dataset: Any, trained: TrainedRegressor, model, report: Report) -> None:
    from twodasl_lite.evaluation.benchmark import jittered_boxes

    report(dataset="AFLW2000-3D", faces=len(dataset), mapping="exact", photographs=settings.photos.name)
    if getattr(dataset, "crops", None) is not None:
        report(moved_boxes="cut from the crops, the colours at their edge repeated beyond it: there are no photos")
    boxes = {"": dataset.boxes, f", boxes moved by up to {JITTER:.0%}": jittered_boxes(dataset.boxes, JITTER, 0)}
    rows: dict[str, dict[str, Any]] = {}
    true, yaw = dataset.landmarks, dataset.yaw
    evaluated: dict[str, int] = {}
    less: list[str] = []
    for moved, cut in boxes.items():
        parts: dict[str, list[torch.Tensor]] = {}
        seen: list[torch.Tensor] = []
        until = 0.0 if moved else 0.45 * settings.left()  # that the other boxes keep
        try:
            for part in _in_random_order(len(dataset)).split(_AT_ONCE[settings.device]):
                if settings.left() <= until and (seen or moved):  # of the true boxes, some at least
                    break
                crops = [_crop(dataset, k, cut[k] if moved else None) for k in part.tolist()]
                images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous().to(settings.device)
                points = dataset.detected[part]
                if moved:
                    points = image_to_crop(crop_to_image(points, dataset.boxes[part]), cut[part])
                for name, landmarks in _looks(trained, model, images, points).items():
                    parts.setdefault(name, []).append(crop_to_image(landmarks, cut[part]))
                seen.append(part)
        except TwodaslError as error:
            report(**{"left out" + moved: about(error)})
            continue
        where = torch.cat(seen) if seen else torch.empty(0, dtype=torch.long)
        evaluated["true boxes" if not moved else moved.strip(", ")] = len(where)
        if len(where) < len(dataset):
            less.append(f"{len(dataset) - len(where)} of {len(dataset)} faces{moved}")
        for name, placed in parts.items():
            found = torch.cat(placed)
            rows[name + moved] = {
                MAIN: summarise(nme(found[..., :2], true[where][..., :2]), yaw[where]).to_dict(),
                DEPTH: summarise(nme(found, true[where]), yaw[where]).to_dict(),
            }
        report(rows=rows, evaluated=evaluated, **{LESS: less})
    if not rows:
        raise RuntimeError("no test photograph could be evaluated: see the reasons above")


def _crop(dataset: Any, index: int, box: torch.Tensor | None) -> np.ndarray:
    """A test face, ``(120, 120, 3)``, cut with another box from the photo, or from the crop if there is no photo."""
    name = dataset.names[index]
    if box is None or getattr(dataset, "crops", None) is None:
        return dataset.crop(name, box)
    corners = torch.tensor([[[0.0, 0.0], [CROP_SIZE - 1.0, CROP_SIZE - 1.0]]], dtype=torch.float64)
    own = dataset.boxes[index : index + 1].double()
    (x, y), (right, _) = image_to_crop(crop_to_image(corners, box[None].double()), own)[0].tolist()
    scale = (right - x) / (CROP_SIZE - 1)
    return cv2.warpAffine(
        np.ascontiguousarray(dataset.crop(name)),
        np.array([[scale, 0.0, x], [0.0, scale, y]]),
        (CROP_SIZE, CROP_SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )


def _on_pictures(settings: Settings, config: TrainConfig, trained: TrainedRegressor, model, report: Report) -> None:
    faces = pictures(config.data.validation, model.cpu(), processes=config.data.processes).to(settings.device)
    model = model.to(settings.device)
    world = config.data.validation.world
    report(dataset=f"validation pictures of the world {world!r}", faces=faces.size)
    parts: dict[str, list[torch.Tensor]] = {}
    seen: list[torch.Tensor] = []
    for part in _in_random_order(faces.size).split(_AT_ONCE[settings.device]):
        if settings.left() <= 0 and seen:
            break
        batch = faces.take(part.to(settings.device))
        for name, landmarks in _looks_18(trained, model, batch.images, _spread(batch)).items():
            parts.setdefault(name, []).append(landmarks)
        seen.append(part)
    where = torch.cat(seen)
    if len(where) < faces.size:
        report(**{LESS: [f"{faces.size - len(where)} of {faces.size} faces"]})
    true, yaw = faces.landmarks.double().cpu()[where], faces.yaw.double().cpu()[where]
    rows = {}
    for name, placed in parts.items():
        landmarks = torch.cat(placed)
        rows[name] = {
            MAIN: summarise(nme(landmarks[..., :2], true[..., :2]), yaw).to_dict(),
            DEPTH: summarise(nme(landmarks, true), yaw).to_dict(),
        }
    report(rows=rows, evaluated={"crops": len(where)})


def _spread(batch: FaceBatch) -> torch.Tensor:
    """The detector's 18 points, NaN where it found none."""
    return torch.where(batch.detected_visible[..., None], batch.detected, torch.nan)


def _looks_18(
    trained: TrainedRegressor, model: MorphableModel, images, points: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Like :func:`_looks`, with 18 given points."""
    found = {}
    mirrored = FaceBatch(images, points, torch.isfinite(points).all(dim=-1)).flip()
    for name, shown, other in ((POINTS, points, _spread(mirrored)), (ALONE, None, None)):
        plain = predict_with(trained, images, shown, model=model).landmarks.double().cpu()
        turned = predict_with(trained, mirrored.images, other, model=model).landmarks.double().cpu()
        back = torch.cat([flip_landmarks(turned[..., :2], CROP_SIZE), turned[:, _mirrored_order(), 2:]], dim=-1)
        found[name], found[name + MIRRORED] = plain, (plain + back) / 2
    return found


# -------------------------------------------------------------------------------------------------------------- faces
SHEET, CELL = (4, 4), 240


def faces(settings: Settings, report: Report) -> None:
    """A sheet of 16 faces: the network's predictions on test photographs, or on validation pictures."""
    config, trained, model = _trained(settings)
    count = SHEET[0] * SHEET[1]
    test = None if settings.photos is None else _test_set(settings.photos)
    if test is not None:
        chosen = test.yaw.abs().clamp(max=90).argsort()[torch.linspace(0, len(test) - 1, count).long()].tolist()
        names = [test.names[k] for k in chosen]
        images = torch.from_numpy(np.stack([test.crop(name) for name in names])).permute(0, 3, 1, 2).contiguous()
        points, yaw, source = subset_18(test.detected[chosen]), test.yaw[chosen], names
    else:
        batch = pictures(config.data.validation, model.cpu(), processes=1)
        index = batch.yaw.abs().argsort()[torch.linspace(0, batch.size - 1, count).long()]
        batch = batch.take(index)
        images, points, yaw, source = batch.images, _spread(batch), batch.yaw, index.tolist()
    model = model.to(settings.device)
    images, points = images.to(settings.device), points.to(settings.device)
    answer = predict_with(trained, images, points, model=model)
    fine = 2 if settings.left() > 2 else 1
    if fine == 1:
        report(**{LESS: ["smooth edges"]})
    sheet = draw_sheet(images.cpu(), answer.coefficients.cpu().float(), model.cpu(), yaw, fine)
    path = settings.work / "faces.png"
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise RuntimeError(f"{path}: could not be written")
    report(faces=source, yaw=[round(float(value), 1) for value in yaw], points=True)


def draw_sheet(
    images: torch.Tensor, coefficients: torch.Tensor, model: MorphableModel, yaw, supersample: int = 2
) -> np.ndarray:
    """Each picture beside itself with the face that was found in it, ``(H, W, 3)`` uint8."""
    factor = CELL // CROP_SIZE
    photos = torch.nn.functional.interpolate(images.float() / 255, scale_factor=factor, mode="bilinear")
    photos = photos.permute(0, 2, 3, 1).contiguous()
    vertices = decode(coefficients, model, CROP_SIZE) * factor
    vertices = vertices + vertices.new_tensor([(factor - 1) / 2, (factor - 1) / 2, 0.0])
    light = Lamps(
        torch.full((3,), 0.12), torch.tensor([[-0.4, 0.5, 0.8], [0.8, 0.1, 0.4]]), torch.tensor([[0.55] * 3, [0.2] * 3])
    )
    colour = torch.tensor([0.45, 0.66, 0.92]).expand(model.num_vertices, 3)
    picture = render(vertices, model.triangles, colour, CELL, CELL, light=light, supersample=supersample)
    drawn = over(picture._replace(alpha=0.85 * picture.alpha), photos)
    pairs = torch.cat([photos, drawn], dim=2).clamp(0, 1)  # (16, CELL, 2 CELL, 3)
    cells = (255 * pairs).round().to(torch.uint8).numpy()
    for cell, degrees in zip(cells, yaw, strict=True):
        label = f"yaw {float(degrees):+.0f}"
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(cell, label, (6, CELL - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, width, cv2.LINE_AA)
    edged = np.pad(cells, ((0, 0), (3, 3), (3, 3), (0, 0)), constant_values=255)
    rows = edged.reshape(*SHEET, *edged.shape[1:])
    return np.ascontiguousarray(np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0))


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a file that a process may still have been writing when it was ended."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def last_rows(folder: Path) -> list[dict[str, Any]]:
    """Rows of the run's log; empty if there is no log."""
    return read_log(folder) if (folder / LOG_FILE).is_file() else []


PARTS: dict[str, tuple[float, Callable[[Settings, Report], None]]] = {
    "ready": (0.01, ready),
    "tests": (0.12, tests),
    "drawing": (0.07, drawing),
    "kernels": (0.05, kernels),
    "profile": (0.08, profile),
    "training": (0.49, training),
    "faces": (0.03, faces),
    "evaluation": (0.12, evaluation),
}
"""Name of a part to its share of the time (the rest is for starting and writing) and its function. Time that a part
does not use goes to the training if the part comes before it; otherwise the run ends earlier."""
