"""The training loop (Tu et al. 2019, sections 3.3 and 3.4), written to be read from top to bottom.

A step takes a labelled and a 2D-only batch and updates the regressor, then the critic. All randomness of a step is a
function of (seed, step, picture), so that an interrupted run, resumed from its last checkpoint, reaches exactly the
same numbers as an uninterrupted one. See chapter 14.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import trusted_values
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError, require
from twodasl_lite.datasets.stream import SyntheticStream, drawn_beside, prefetch
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.fingerprint import face_fingerprint
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.losses import WeightedSum
from twodasl_lite.networks import Critic, load_imagenet, load_regressor, make_regressor, save_regressor
from twodasl_lite.training.augment import augment
from twodasl_lite.training.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    random_state,
    restore_random_state,
    save_checkpoint,
)
from twodasl_lite.training.config import TrainConfig, config_from_dict, config_to_dict
from twodasl_lite.training.distributed import Processes, processes
from twodasl_lite.training.ema import AveragedNetwork
from twodasl_lite.training.log import RunLog, Speed, code_version, describe_device
from twodasl_lite.training.pictures import Interrupted, MirroredStream, RunData, face_model_of, prepare
from twodasl_lite.training.schedule import Clock, learning_rate, ramp
from twodasl_lite.training.steps import CriticStep, Pairs, RegressorInput, RegressorStep, make_inputs, real_pairs
from twodasl_lite.training.validation import evaluate_on
from twodasl_lite.worlds.draws import Draws

CONFIG_FILE, BEST_FILE, LAST_FILE = "config.json", "best.safetensors", "last.safetensors"
_CRITIC_BETAS = (0.5, 0.99)
"""Adam's averages are short for the critic, because the distribution it judges keeps changing (Radford et al. 2016)."""


class TrainingDiverged(TwodaslError):
    """A loss or the gradient became NaN or infinite; earlier checkpoints are intact."""


class RunResult(NamedTuple):
    """State of a run when :func:`train` returns.

    Attributes:
        folder: Its folder: ``config.json``, ``log.jsonl``, ``checkpoints``, ``best.safetensors``, ``last.safetensors``.
        step: Number of steps done.
        finished: Whether the run is finished; a stopped run continues with ``resume``.
        best: Smallest balanced NME on the validation pictures.
        preparing: Progress of the preparation, if the run was stopped before its first step (of this call), for
            instance ``"unlabelled pictures: 3400 of 20000"``; these are kept, and ``resume`` continues with the next.
    """

    folder: Path
    step: int
    finished: bool
    best: float
    preparing: str = ""


def train(
    config: TrainConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device | None = None,
    minutes: float = math.inf,
    started: float | None = None,
    progress: bool = True,
    data: RunData | None = None,
    model: MorphableModel | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult:
    """Train a regressor, from the first step or from the last checkpoint.

    Args:
        config: Configuration of the run.
        folder: Folder of the run.
        resume: Whether to continue an existing run; without one, a new run starts.
        device: Device to compute on; by default a GPU if there is one.
        minutes: Time limit; when it is reached, the run stops with a checkpoint. Rendered pictures are kept, too.
        started: Start of the command in the time of ``time.perf_counter()``; by default the start of this call.
        progress: Whether to draw a progress bar.
        data: Data to learn from, instead of the configured data.
        model: The face model; by default that of the configuration.
        watch: Called with every row of the log, for instance a
            :class:`~twodasl_lite.viz.training_figures.LiveCurves`.

    Returns:
        State of the run.

    Raises:
        TrainingDiverged: If a loss or gradient is NaN or infinite.
        TwodaslError: If the folder holds another run, the configuration requires a GPU and there is none, its memory is
            too small, or the disk is full; the last checkpoint is kept.
        ValueRangeError: If ``minutes`` is negative or NaN.
    """
    if not minutes >= 0:
        raise ValueRangeError(f"minutes: found {minutes}; expected 0 or more")
    folder = Path(folder)
    started = time.perf_counter() if started is None else started
    if device is None and config.run.device == "cuda" and not torch.cuda.is_available():
        raise ValueRangeError(
            f"device: found no CUDA device; expected one for {config.name}, which takes days without a GPU. "
            "--device cpu starts it anyway; lite-cpu is meant for machines without a GPU"
        )
    with processes(device) as team, _on_terminate() as terminated, _out_of_memory(config, team):

        def late(limit: float = minutes) -> bool:
            return time.perf_counter() - started > 60 * limit or terminated.is_set()

        def late_before_training() -> bool:
            return late(min(minutes, config.run.minutes or math.inf))

        if team.first:
            _open_folder(folder, config, resume)
        team.wait()
        model = face_model_of(config) if model is None else model
        try:
            bar = _progress_bar if progress else None
            data = data or prepare(config, model.cpu(), team, bar, late_before_training)
        except Interrupted as interruption:
            return _paused(folder, str(interruption), started, team, watch)
        run = Run(config, folder, model.to(team.device), data, team, started)
        if resume and (checkpoint := latest_checkpoint(folder)):
            run.restore(checkpoint)
        return run.go(late, progress, watch)


def _paused(folder: Path, preparing: str, started: float, team: Processes, watch) -> RunResult:
    """State of a run that was stopped while its pictures were prepared."""
    checkpoint = latest_checkpoint(folder)
    step = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if team.first:
        log = RunLog(folder, step, watch=watch)
        prepared = round(time.perf_counter() - started, 1)
        log.write("pause", step, seconds=0.0, prepared_seconds=prepared, preparing=preparing)
        log.close()
    return RunResult(folder, step, False, math.inf, preparing)


class FiniteWatch:
    """Sees that every step's numbers are finite, on a GPU one step late.

    A program that asked at once would wait until the GPU has done the step, and the GPU afterwards until it is told the
    next one and what to draw meanwhile.

    Args:
        later: Whether to ask one step late.
        refuse: Called with the step and its losses when they are not finite; raises.
    """

    def __init__(self, later: bool, refuse: Callable[[int, dict[str, torch.Tensor]], None]) -> None:
        self.later, self.refuse = later, refuse
        self._open: tuple[int, dict, torch.Tensor, torch.cuda.Event | None] | None = None

    def look(self, step: int, number: torch.Tensor, parts: dict[str, torch.Tensor]) -> None:
        """Watch a step's number, and refuse that of the step before if it is not finite."""
        finite, arrived = torch.isfinite(number), None
        if finite.is_cuda:
            # To page-locked memory, since a copy elsewhere would be waited for.
            finite = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
            arrived = torch.cuda.current_stream(number.device).record_event()
        before, self._open = self._open, (step, parts, finite, arrived)
        self._judge(before)
        if not self.later:
            self.settle()

    def settle(self) -> None:
        """Wait for the last step's number: before anything is kept that came of it."""
        last, self._open = self._open, None
        self._judge(last)

    def _judge(self, one: tuple[int, dict, torch.Tensor, torch.cuda.Event | None] | None) -> None:
        if one is None:
            return
        step, parts, finite, arrived = one
        if arrived is not None:
            arrived.synchronize()
        if not bool(finite):
            self.refuse(step, parts)


class Run:
    """A run: its networks, optimisers and data.

    Args:
        config: Configuration of the run.
        folder: Folder of the run.
        model: The face model.
        data: Data to learn from.
        team: The processes of the run.
        started: Start of the command, see :func:`train`.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        model: MorphableModel,
        data: RunData,
        team: Processes,
        started: float | None = None,
    ) -> None:
        self.started = time.perf_counter() if started is None else started
        self.clock = Clock(config.steps, config.run.minutes)
        self.config, self.folder, self.model, self.data, self.team = config, folder, model, data, team
        self.whitening = data.whitening
        self.step, self.best, self.waited = 0, math.inf, 0
        torch.manual_seed(config.seed)
        self.network = _make_network(config, team).to(team.device)
        if config.optimiser.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.average = AveragedNetwork(self.network, config.optimiser.ema)
        # Compiled for fixed sizes: batch sizes never change, so there are two, that of all pictures and that of the
        # second pass. With dynamic sizes PyTorch would also compile twice, the second time for any size. The averaged
        # network, the critic and the losses are not compiled.
        computed = torch.compile(self.network, dynamic=False) if config.optimiser.compile else self.network
        self.regressor_step = team.wrap(RegressorStep(computed, model, data.whitening, config))
        self.optimiser = torch.optim.AdamW(_decayed(self.network, config.optimiser.weight_decay), lr=0.0)
        self.watch = FiniteWatch(team.device.type == "cuda", self._diverged)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=config.optimiser.precision == "float16")
        self.critic: Critic | None = None
        if config.self_supervision.critic > 0:
            self.critic = Critic(model.layout.size, spectral=config.critic.spectral).to(team.device)
            self.critic_step = team.wrap(CriticStep(self.critic))
            rate = config.critic.learning_rate
            self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=_CRITIC_BETAS)

    # ------------------------------------------------------------------------------------------------ the loop
    @property
    def place(self) -> int:
        """Position of the run in its schedule: its step, unless the schedule follows the clock."""
        return self.clock.place(self.step)

    def go(self, late: Callable[[], bool], progress: bool, watch=None) -> RunResult:
        """Train from the current step to the last, or until ``late`` returns true."""
        config, team, every = self.config, self.team, self.config.run
        began = time.perf_counter()
        log = RunLog(self.folder, self.step, tensorboard=every.tensorboard, watch=watch) if team.first else None
        bar = _bar(config, self.place, progress and team.first)
        speed, finished = Speed(), False
        try:
            if log:
                about = {**describe_device(team.device), "processes": team.count, **code_version()}
                log.write("start", self.step, **about, prepared_seconds=round(began - self.started, 1))
            for labelled, unlabelled in self._batches():
                # On a GPU no value is looked at, which would have to be waited for.
                with trusted_values(team.device.type == "cuda"):
                    parts = self.train_step(labelled, unlabelled)
                self.step += 1
                speed.add((labelled.size + (unlabelled.size if unlabelled else 0)) * team.count)

                ending = late()
                if self._due(every.log_every) or team.count == 1:
                    self._look_at_the_clock()
                if self._due(every.log_every):
                    parts = team.mean({name: float(value) for name, value in parts.items()})
                    ending = team.any(ending)
                    if log:
                        bar.set_postfix({name: f"{value:.3g}" for name, value in parts.items() if name != "rate"})
                        by_time = {"place": self.place} if every.minutes else {}
                        log.write("train", self.step, **parts, **by_time, pictures_per_second=round(speed.look(), 1))
                elif team.count > 1:
                    ending = False  # processes stop together, at a step where they communicate
                bar.update(self.place - bar.n)
                if self._due(every.validate_every):
                    self.validate(log)
                finished = self.place == config.steps or 0 < every.patience <= self.waited
                if self._due(every.checkpoint_every) or finished or ending:
                    self.save()
                if finished or ending:
                    break
            else:
                finished = True  # there was nothing left to do
            self.watch.settle()
            if finished and team.first:
                self._write_network(LAST_FILE, self.average.network)
            if log:
                seconds = round(time.perf_counter() - began, 1)
                log.write("end" if finished else "pause", self.step, seconds=seconds, best=self.best)
        except OSError as error:
            last = latest_checkpoint(self.folder)
            kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
            raise TwodaslError(f"step {self.step}: {error}; {kept}") from error
        finally:
            bar.close()
            if log:
                log.close()
        return RunResult(self.folder, self.step, finished, self.best)

    def train_step(self, labelled, unlabelled) -> dict[str, torch.Tensor | float]:
        """Update the regressor, then the critic; returns the values to log."""
        config, place = self.config, self.place
        stage, _ = config.stage_at(place)
        labelled_input = self._inputs(labelled, "labelled")
        unlabelled_input = None if unlabelled is None else self._inputs(unlabelled, "unlabelled")
        weights = self._weights(stage)

        # The regressor, with the critic fixed.
        rate = learning_rate(config, place)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.critic is not None:
            self.critic.requires_grad_(False)
        judge = self.critic if "critic" in weights else None
        losses, pairs = self.regressor_step(labelled_input, unlabelled_input, stage, judge)
        total, parts = WeightedSum(weights, check=False)(losses)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip)
        self.watch.look(self.step, total.detach() if self.scaler.is_enabled() else norm, parts)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.network)
        report = {**parts, "total": total.detach(), "gradient": norm, "rate": rate}

        # The critic, on the pairs that the regressor has just predicted.
        if self.critic is not None:
            self.critic.requires_grad_(True)
            report |= self._train_critic(labelled, pairs.detach())
        return report

    def _train_critic(self, labelled, fake: Pairs) -> dict[str, torch.Tensor]:
        for update in range(self.config.critic.updates):
            draws = self._draws(len(fake.whitened), f"critic {update}")
            real = real_pairs(labelled, fake, self.whitening, self.model, draws)
            losses, right = self.critic_step(real, fake)
            loss = losses.mean()
            self.critic_optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.critic_optimiser.step()
        return {"critic_own": loss.detach(), "critic_right": right.mean()}

    def _weights(self, stage: int) -> dict[str, float]:
        """Weights of the losses at the current step."""
        factor = ramp(self.config, self.place)
        weights = {name: factor * weight for name, weight in self.config.self_supervision.weights.items()}
        if self.place < self.config.critic.start:
            weights.pop("critic", None)
        return self.config.stages[stage].weights | weights

    def _diverged(self, step: int, parts: dict[str, torch.Tensor]) -> None:
        bad = [f"{name} = {float(value)}" for name, value in parts.items() if not math.isfinite(float(value))]
        last = latest_checkpoint(self.folder)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"step {step}: found {', '.join(bad) or 'a gradient that is not finite'}; expected finite losses. "
            f"{kept[0].upper()}{kept[1:]}. A lower learning rate or loss weight may help"
        )

    # ---------------------------------------------------------------------------------------------------- data
    def _batches(self) -> Iterator[tuple]:
        """The batches from the current step to the last."""
        sources, team = self.config.data, self.team
        ready = 2 if team.device.type == "cuda" else 1
        streams = []
        for stream, source in ((self.data.labelled, sources.labelled), (self.data.unlabelled, sources.unlabelled)):
            if stream is None:
                streams.append(itertools.repeat(None))
            else:
                batches = stream.batches(team.share(source.batch_size), self.step)
                drawn = isinstance(stream, SyntheticStream | MirroredStream)
                streams.append(
                    drawn_beside(batches, team.device, ready) if drawn else prefetch(batches, ready, team.device)
                )
        try:
            for _ in range(self.config.steps - self.place):
                yield tuple(next(stream) for stream in streams)
        finally:
            for stream in streams:
                if hasattr(stream, "close"):
                    stream.close()

    def _draws(self, count: int, purpose: str) -> Draws:
        """Random numbers for this step's pictures, independent of the number of processes."""
        first = (self.step * self.team.count + self.team.rank) * count
        pictures = torch.arange(first, first + count, device=self.team.device)
        return Draws(self.config.seed << 32 | zlib.crc32(purpose.encode()), pictures)

    def _inputs(self, batch, purpose: str) -> RegressorInput:
        source = getattr(self.config.data, purpose)
        draws = self._draws(batch.size, purpose)
        batch = augment(batch, draws, source.augment)
        dropped = draws.chance("dropped map", self.config.network.map_dropout)
        return make_inputs(batch, dropped, self.config, draws if source.map_noise else None)

    # ------------------------------------------------------------------------------- validation and checkpoints
    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.place == self.config.steps

    def _look_at_the_clock(self) -> None:
        """Update the clock, so that all processes agree on the position of the next step."""
        self.clock.tick(time.perf_counter() - self.started)
        if self.team.count > 1 and self.clock.minutes:
            times = {"elapsed": self.clock.elapsed, "planned": self.clock.planned}
            times = self.team.mean(times)
            self.clock.elapsed, self.clock.planned = times["elapsed"], times["planned"]

    def validate(self, log: RunLog | None) -> None:
        """Measure the averaged network; keep it if it is the best so far."""
        self.watch.settle()
        if self.team.first:
            result = evaluate_on(
                self.average.network,
                self.whitening,
                self.model,
                self.data.validation,
                kind=self.config.network.map,
                pose=self.config.network.pose,
                dense=False,
            )
            tables = result.tables()
            balanced = tables["landmarks_2d"].balanced
            score = balanced if math.isfinite(balanced) else tables["landmarks_2d"].mean  # a yaw bin may be empty
        else:
            score = 0.0
        score = self.team.mean({"score": score})["score"] * self.team.count
        if log:
            log.write("validation", self.step, **{name: table.to_dict() for name, table in tables.items()})
        if score < self.best:
            self.best, self.waited = score, 0
            if self.team.first:
                self._write_network(BEST_FILE, self.average.network)
        else:
            self.waited += 1

    def _write_network(self, name: str, network: nn.Module) -> None:
        metadata = {
            "map_kind": self.config.network.map,
            "pose": self.config.network.pose,
            "layout": [self.model.num_shape, self.model.num_expression],
            "face_model": face_fingerprint(self.model),
            "step": self.step,
            "validation_nme": self.best if math.isfinite(self.best) else None,
            "config": config_to_dict(self.config),
            "code": code_version(),
        }
        save_regressor(self.folder / name, network, self.whitening, metadata)

    def save(self) -> None:
        """Write a checkpoint."""
        self.watch.settle()
        if self.team.first:
            networks = {"regressor": self.network.state_dict(), "average": self.average.network.state_dict()}
            state: dict[str, Any] = {
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
                "random": random_state(),
                "whitening": {"mean": self.whitening.mean, "std": self.whitening.std},
                "averaged": self.average.updates,
                "best": self.best,
                "waited": self.waited,
                "clock": {"planned": self.clock.planned, "elapsed": self.clock.elapsed},
            }
            if self.critic is not None:
                networks["critic"] = self.critic.state_dict()
                state["critic_optimiser"] = self.critic_optimiser.state_dict()
            facts = {
                "config": config_to_dict(self.config),
                "code": code_version(),
                # The streams depend only on their position, and each step takes one batch of each.
                "position": {"labelled": self.step, "unlabelled": self.step},
            }
            save_checkpoint(self.folder, Checkpoint(self.step, networks, state, facts), self.config.run.keep)
        self.team.wait()

    def restore(self, path: Path) -> None:
        """Load a checkpoint."""
        checkpoint = load_checkpoint(path, self.team.device)
        state = checkpoint.state
        try:
            self.network.load_state_dict(checkpoint.networks["regressor"])
            self.average.network.load_state_dict(checkpoint.networks["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.scaler.load_state_dict(state["scaler"])
            if self.critic is not None:
                self.critic.load_state_dict(checkpoint.networks["critic"])
                self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise FileFormatError(path, f"contents that do not match ({error})", "a checkpoint of this run") from error
        for name in ("mean", "std"):
            if not torch.equal(state["whitening"][name], getattr(self.whitening, name).cpu()):
                raise FileFormatError(path, "another whitening", "the one of this run's labelled pictures")
        self.average.updates, self.best, self.waited = state["averaged"], state["best"], state["waited"]
        self.step = checkpoint.step
        clock = state.get("clock", {"planned": 0.0, "elapsed": 0.0})  # older checkpoints have none
        self.clock.planned, self.clock.elapsed = clock["planned"], clock["elapsed"]
        restore_random_state(state["random"])


# --------------------------------------------------------------------------------------------------------- helpers
def _make_network(config: TrainConfig, team: Processes) -> nn.Module:
    """The regressor with its initial weights."""
    wanted = config.network
    network = make_regressor(wanted.name, CoefficientLayout().size, norm=wanted.norm)
    if wanted.weights.endswith(".safetensors"):
        trained = load_regressor(wanted.weights).network
        network.load_state_dict(trained.state_dict())
    elif wanted.weights:
        load_imagenet(network, wanted.weights)
    return team.synchronise(network) if wanted.norm == "batch" else network


def _decayed(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weights with weight decay, biases and normalisation scales without."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _open_folder(folder: Path, config: TrainConfig, resume: bool) -> None:
    """Create a run's folder, or check that an existing one holds the same run."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        with whole_file(path) as file:
            file.write(json.dumps(config_to_dict(config), indent=1).encode())
        return
    if not resume:
        raise TwodaslError(f"{folder}: found a run; --resume continues it, --out chooses another folder")
    try:
        before = config_to_dict(config_from_dict(json.loads(path.read_text(encoding="utf-8")), str(path)))
    except ValueError as error:
        raise FileFormatError(path, f"an unreadable configuration ({error})", "that of a run") from error
    now = config_to_dict(config)
    free = {f"run.{entry}" for entry in now["run"]} - {"run.minutes"}  # logging and checkpoints may change
    changed = [key for key in _different(before, now) if key not in free]
    if changed:
        raise TwodaslError(f"{folder}: found a run with other values of {', '.join(changed)}; expected the same run")


def _different(a: Any, b: Any, place: str = "") -> list[str]:
    """Keys at which two nested tables differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [found for key in {**a, **b} for found in _different(a.get(key), b.get(key), f"{place}.{key}")]
    return [] if a == b else [place.lstrip(".")]


@contextmanager
def _on_terminate() -> Iterator[threading.Event]:
    """An event that is set on SIGTERM; the run then saves a checkpoint and stops."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _out_of_memory(config: TrainConfig, team: Processes) -> Iterator[None]:
    """Report how much GPU memory is missing, and which values of the configuration reduce the need."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        data = config.data
        wanted = re.search(r"Tried to allocate ([\d.]+ \w+)", str(error))
        size = re.search(r"total capacity of ([\d.]+ \w+)", str(error))
        keys = [f"data.labelled.batch_size = {data.labelled.batch_size}"]
        if config.self_supervision.weights:
            keys.append(f"data.unlabelled.batch_size = {data.unlabelled.batch_size}")
        if data.hold == "device":
            keys.append('data.hold = "device" (to "host")')
        if config.optimiser.precision == "float32":
            keys.append('optimiser.precision = "float32" (to "bfloat16")')
        raise TwodaslError(
            f"{config.name}: found a GPU of {size[1] if size else 'too little memory'}{_in_use(team)}; expected "
            f"{wanted[1] + ' more' if wanted else 'more'}. Lower {', '.join(keys)}, or network.name. With other "
            "values it is a new run (--out chooses its folder)"
        ) from error


def _in_use(team: Processes) -> str:
    """Peak GPU memory of this process, as a clause."""
    if team.device.type != "cuda":
        return ""
    return f", {torch.cuda.max_memory_reserved(team.device) / 2**30:.1f} GiB of it in use by this run"


def _bar(config: TrainConfig, step: int, shown: bool):
    tqdm = require("tqdm.auto", "train", "a progress bar")
    return tqdm.tqdm(total=config.steps, initial=step, desc=config.name, unit="step", disable=not shown)


def _progress_bar(label: str):
    """A progress function for rendering pictures."""
    tqdm = require("tqdm.auto", "train", "a progress bar")
    bar = None

    def show_progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None and done < total:
            bar = tqdm.tqdm(total=total, desc=label, unit="picture")
        if bar is not None:
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

    return show_progress
