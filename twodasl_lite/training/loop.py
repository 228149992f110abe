"""The loop: networks meet data and losses (Tu et al. 2019, sections 3.3 and 3.4), to be read from top to bottom.

A step takes a labelled and a 2D-only batch, moves the regressor, then the critic. All randomness of a step is a
function of (seed, step, picture), so that a run that was interrupted at any moment goes on from its last checkpoint to
exactly the numbers that it would have reached. Explained in the chapter "Training 2DASL".
"""

from __future__ import annotations

import itertools
import json
import math
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

from twodasl_lite.archive import whole_file
from twodasl_lite.coefficients import CoefficientLayout
from twodasl_lite.data.random import Draws
from twodasl_lite.data.stream import prefetch
from twodasl_lite.errors import FileFormatError, TwodaslError, require
from twodasl_lite.losses import WeightedSum
from twodasl_lite.morphable import MorphableModel
from twodasl_lite.morphable.fingerprint import face_fingerprint
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
from twodasl_lite.training.pictures import RunData, face_model_of, prepare
from twodasl_lite.training.schedule import learning_rate, ramp
from twodasl_lite.training.steps import CriticStep, Pairs, RegressorStep, Shown, real_pairs, show
from twodasl_lite.training.validation import evaluate_on

CONFIG_FILE, BEST_FILE, LAST_FILE = "config.json", "best.safetensors", "last.safetensors"
_CRITIC_BETAS = (0.5, 0.99)
"""Adam's memory for the critic is short, because what it judges keeps changing (Radford et al. 2016)."""


class TrainingDiverged(TwodaslError):
    """A loss or gradient is no number any more."""


class RunResult(NamedTuple):
    """How a run stands.

    Attributes:
        folder: Its folder: ``config.json``, ``log.jsonl``, ``checkpoints``, ``best.safetensors``, ``last.safetensors``.
        step: Steps done.
        finished: Whether it is over; a run that was stopped goes on with ``resume``.
        best: Smallest balanced NME on the validation pictures.
    """

    folder: Path
    step: int
    finished: bool
    best: float


def train(
    config: TrainConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    device: str | torch.device | None = None,
    minutes: float = math.inf,
    progress: bool = True,
    data: RunData | None = None,
    model: MorphableModel | None = None,
    watch: Callable[[dict[str, Any]], None] | None = None,
) -> RunResult:
    """Train a regressor, from the first step or from the last checkpoint.

    Args:
        config: The run.
        folder: Where it goes.
        resume: Whether to go on with a run that is there; one that is not there is begun.
        device: Where to compute; a GPU where there is one by default.
        minutes: Stop after so long, with a checkpoint.
        progress: Whether to draw a progress bar.
        data: What to learn from, instead of what the configuration says.
        model: The face model; by default that of the configuration.
        watch: Called with every row of the log, for instance a
            :class:`~twodasl_lite.viz.training_figures.LiveCurves`.

    Returns:
        How the run stands.

    Raises:
        TrainingDiverged: If a loss or gradient is NaN or infinite.
        TwodaslError: If the folder holds another run, or the disk is full; the last checkpoint stays.
    """
    folder = Path(folder)
    with processes(device) as team, _on_terminate() as terminated:
        if team.first:
            _open_folder(folder, config, resume)
        team.wait()
        model = (face_model_of(config) if model is None else model).to(team.device)
        data = data or prepare(config, model.cpu(), team, _progress_bar if progress else None)
        run = Run(config, folder, model.to(team.device), data, team)
        if resume and (checkpoint := latest_checkpoint(folder)):
            run.restore(checkpoint)
        return run.go(minutes, progress, terminated, watch)


class Run:
    """Everything that changes while training.

    Args:
        config: The run.
        folder: Where it goes.
        model: The face model.
        data: What to learn from.
        team: The processes.
    """

    def __init__(
        self, config: TrainConfig, folder: Path, model: MorphableModel, data: RunData, team: Processes
    ) -> None:
        self.config, self.folder, self.model, self.data, self.team = config, folder, model, data, team
        self.whitening = data.whitening
        self.step, self.best, self.waited = 0, math.inf, 0
        torch.manual_seed(config.seed)
        self.network = _make_network(config, team).to(team.device)
        if config.optimiser.channels_last:
            self.network.to(memory_format=torch.channels_last)
        self.average = AveragedNetwork(self.network, config.optimiser.ema)
        computed = torch.compile(self.network) if config.optimiser.compile else self.network
        self.regressor_step = team.wrap(RegressorStep(computed, model, data.whitening, config))
        self.optimiser = torch.optim.AdamW(_decayed(self.network, config.optimiser.weight_decay), lr=0.0)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=config.optimiser.precision == "float16")
        self.critic: Critic | None = None
        if config.self_supervision.critic > 0:
            self.critic = Critic(model.layout.size, spectral=config.critic.spectral).to(team.device)
            self.critic_step = team.wrap(CriticStep(self.critic))
            rate = config.critic.learning_rate
            self.critic_optimiser = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=_CRITIC_BETAS)

    # ------------------------------------------------------------------------------------------------ the loop
    def go(self, minutes: float, progress: bool, terminated: threading.Event, watch=None) -> RunResult:
        """Train from the present step to the last."""
        config, team, every = self.config, self.team, self.config.run
        started = time.perf_counter()
        log = RunLog(self.folder, self.step, tensorboard=every.tensorboard, watch=watch) if team.first else None
        bar = _bar(config, self.step, progress and team.first)
        speed, finished = Speed(), False
        try:
            if log:
                log.write("start", self.step, **describe_device(team.device), processes=team.count, **code_version())
            for labelled, unlabelled in self._batches():
                parts = self.train_step(labelled, unlabelled)
                self.step += 1
                speed.add((labelled.size + (unlabelled.size if unlabelled else 0)) * team.count)
                bar.update()

                late = time.perf_counter() - started > 60 * minutes or terminated.is_set()
                if self._due(every.log_every):
                    parts = team.mean({name: float(value) for name, value in parts.items()})
                    late = team.any(late)
                    if log:
                        bar.set_postfix({name: f"{value:.3g}" for name, value in parts.items() if name != "rate"})
                        log.write("train", self.step, **parts, pictures_per_second=round(speed.look(), 1))
                elif team.count > 1:
                    late = False  # processes stop together, at a step where they talk
                if self._due(every.validate_every):
                    self.validate(log)
                finished = self.step == config.steps or 0 < every.patience <= self.waited
                if self._due(every.checkpoint_every) or finished or late:
                    self.save()
                if finished or late:
                    break
            else:
                finished = True  # there was nothing left to do
            if finished and team.first:
                self._write_network(LAST_FILE, self.average.network)
            if log:
                seconds = round(time.perf_counter() - started, 1)
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
        """One update of the regressor, one of the critic; returns what the log should say."""
        config, step = self.config, self.step
        stage, _ = config.stage_at(step)
        shown = self._show(labelled, "labelled")
        shown_unlabelled = None if unlabelled is None else self._show(unlabelled, "unlabelled")
        weights = self._weights(stage)

        # The regressor, judged by the critic as it is.
        rate = learning_rate(config, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        if self.critic is not None:
            self.critic.requires_grad_(False)
        judge = self.critic if "critic" in weights else None
        losses, pairs = self.regressor_step(shown, shown_unlabelled, stage, judge)
        total, parts = WeightedSum(weights, check=False)(losses)
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.optimiser.clip)
        if not bool(torch.isfinite(total.detach() if self.scaler.is_enabled() else norm)):
            self._diverged(parts)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.average.update(self.network)
        report = {**parts, "total": total.detach(), "gradient": norm, "rate": rate}

        # The critic, on the pairs that the regressor has just made.
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
        """Weights of the losses at the present step."""
        factor = ramp(self.config, self.step)
        weights = {name: factor * weight for name, weight in self.config.self_supervision.weights.items()}
        if self.step < self.config.critic.start:
            weights.pop("critic", None)
        return self.config.stages[stage].weights | weights

    def _diverged(self, parts: dict[str, torch.Tensor]) -> None:
        bad = [f"{name} = {float(value)}" for name, value in parts.items() if not math.isfinite(float(value))]
        last = latest_checkpoint(self.folder)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise TrainingDiverged(
            f"step {self.step}: found {', '.join(bad) or 'a gradient that is not finite'}; expected finite losses. "
            f"{kept[0].upper()}{kept[1:]}. A lower learning rate or loss weight may help"
        )

    # ------------------------------------------------------------------------------------------------ its data
    def _batches(self) -> Iterator[tuple]:
        """The batches from the present step to the last."""
        sources, team = self.config.data, self.team
        ready = 2 if team.device.type == "cuda" else 1
        streams = []
        for stream, source in ((self.data.labelled, sources.labelled), (self.data.unlabelled, sources.unlabelled)):
            if stream is None:
                streams.append(itertools.repeat(None))
            else:
                batches = stream.batches(team.share(source.batch_size), self.step)
                streams.append(prefetch(batches, ready, team.device))
        try:
            for _ in range(self.config.steps - self.step):
                yield tuple(next(stream) for stream in streams)
        finally:
            for stream in streams:
                if hasattr(stream, "close"):
                    stream.close()

    def _draws(self, count: int, purpose: str) -> Draws:
        """Random numbers of this step's pictures: the same however many processes share them."""
        first = (self.step * self.team.count + self.team.rank) * count
        pictures = torch.arange(first, first + count, device=self.team.device)
        return Draws(self.config.seed << 32 | zlib.crc32(purpose.encode()), pictures)

    def _show(self, batch, purpose: str) -> Shown:
        source = getattr(self.config.data, purpose)
        draws = self._draws(batch.size, purpose)
        batch = augment(batch, draws, source.augment)
        dropped = draws.chance("dropped map", self.config.network.map_dropout)
        return show(batch, dropped, self.config, draws if source.map_noise else None)

    # -------------------------------------------------------------------------------------------- what is kept
    def _due(self, every: int) -> bool:
        return self.step % every == 0 or self.step == self.config.steps

    def validate(self, log: RunLog | None) -> None:
        """Measure the averaged network; keep it if it is the best so far."""
        if self.team.first:
            result = evaluate_on(
                self.average.network,
                self.whitening,
                self.model,
                self.data.validation,
                kind=self.config.network.map,
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
            }
            if self.critic is not None:
                networks["critic"] = self.critic.state_dict()
                state["critic_optimiser"] = self.critic_optimiser.state_dict()
            facts = {
                "config": config_to_dict(self.config),
                "code": code_version(),
                # The streams are functions of their position, and each step takes one batch of each.
                "position": {"labelled": self.step, "unlabelled": self.step},
            }
            save_checkpoint(self.folder, Checkpoint(self.step, networks, state, facts), self.config.run.keep)
        self.team.wait()

    def restore(self, path: Path) -> None:
        """Go back to a checkpoint."""
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
            raise FileFormatError(path, f"contents that do not fit ({error})", "a checkpoint of this run") from error
        for name in ("mean", "std"):
            if not torch.equal(state["whitening"][name], getattr(self.whitening, name).cpu()):
                raise FileFormatError(path, "another whitening", "the one of this run's labelled pictures")
        self.average.updates, self.best, self.waited = state["averaged"], state["best"], state["waited"]
        self.step = checkpoint.step
        restore_random_state(state["random"])


# ------------------------------------------------------------------------------------------------------- its parts
def _make_network(config: TrainConfig, team: Processes) -> nn.Module:
    """The regressor to begin with."""
    wanted = config.network
    network = make_regressor(wanted.name, CoefficientLayout().size, norm=wanted.norm)
    if wanted.weights.endswith(".safetensors"):
        trained = load_regressor(wanted.weights).network
        network.load_state_dict(trained.state_dict())
    elif wanted.weights:
        load_imagenet(network, wanted.weights)
    return team.synchronise(network) if wanted.norm == "batch" else network


def _decayed(network: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weights with decay; biases and the scales of normalisation without."""
    matrices = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def _open_folder(folder: Path, config: TrainConfig, resume: bool) -> None:
    """Begin a run's folder, or see that the one that is there is the same run."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        with whole_file(path) as file:
            file.write(json.dumps(config_to_dict(config), indent=1).encode())
        return
    if not resume:
        raise TwodaslError(f"{folder}: found a run; --resume goes on with it, --out names another folder")
    try:
        before = config_to_dict(config_from_dict(json.loads(path.read_text(encoding="utf-8")), str(path)))
    except ValueError as error:
        raise FileFormatError(path, f"an unreadable configuration ({error})", "that of a run") from error
    now = config_to_dict(config)
    changed = [key for key in _different(before, now) if not key.startswith("run.")]
    if changed:
        raise TwodaslError(f"{folder}: found a run with other values of {', '.join(changed)}; expected the same run")


def _different(a: Any, b: Any, place: str = "") -> list[str]:
    """Places at which two nested tables differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return [found for key in {**a, **b} for found in _different(a.get(key), b.get(key), f"{place}.{key}")]
    return [] if a == b else [place.lstrip(".")]


@contextmanager
def _on_terminate() -> Iterator[threading.Event]:
    """An event that is set when the system asks the process to end; the run then saves a checkpoint and stops."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def _bar(config: TrainConfig, step: int, shown: bool):
    tqdm = require("tqdm.auto", "train", "a progress bar")
    return tqdm.tqdm(total=config.steps, initial=step, desc=config.name, unit="step", disable=not shown)


def _progress_bar(label: str):
    """A function for the progress of drawing pictures."""
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
