"""What a training run is: small frozen dataclasses, read from a TOML file.

A file may stand on another (``base = "lite-cpu"``) and then says only what differs; ``--set a.b=value`` changes single
values. Keys and values are checked when the file is read, and a wrong one is answered with the choices. Loss weights,
rates and batch sizes are this project's: neither the paper nor the released code fixes them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from twodasl_lite.camera import PoseForm
from twodasl_lite.errors import FileFormatError, ValueRangeError
from twodasl_lite.landmarks import MapKind
from twodasl_lite.losses.distances import FACE_SIZE_FLOOR
from twodasl_lite.settings import SettingsError, from_table, merge, read_toml, to_table

RegressorName = Literal["lite", "resnet18", "resnet34", "resnet50"]
NormName = Literal["batch", "group", "frozen"]
SourceKind = Literal["synthetic", "shards", "aflw"]
Precision = Literal["float32", "bfloat16", "float16"]
Distance = Literal["squared", "huber"]
Vertices = Literal["all", "landmarks"]

SUPERVISED = ("pdc", "wpdc", "vdc")
"""Losses of labelled pictures."""
SELF_SUPERVISED = ("landmarks_2d", "landmarks_3d", "cycle", "critic")
"""Losses of pictures with 2D landmarks alone."""

_BASE = "base"


def _at_least(owner: object, low: float, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not low <= value < float("inf"):
            raise ValueRangeError(f"{name}: found {value}; expected {low:g} or more")


def _share(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value <= 1:
            raise ValueRangeError(f"{name}: found {value}; expected 0 to 1")


@dataclass(frozen=True)
class NetworkConfig:
    """The regressor and its input."""

    name: RegressorName = "lite"
    norm: NormName = "batch"  # normalisation layers; "group" and "frozen" do not depend on how a batch is split
    weights: str = ""  # start from these: .safetensors of a run, or .pth of torchvision; empty: from random ones
    map: MapKind = "binary"  # form of the landmark map; only through "gaussian" do gradients reach the drawn points
    pose: PoseForm = "completed"  # how the 12 pose numbers are read wherever vertices are decoded
    map_dropout: float = 0.25  # share of pictures shown with an empty map, so that no detector is needed later

    def __post_init__(self) -> None:
        _share(self, "map_dropout")


@dataclass(frozen=True)
class AugmentConfig:
    """How far pictures are changed at random, anew each time that they are shown; coefficients follow."""

    shift: float = 0.0  # pixels to each side
    zoom: float = 0.0  # logarithm of the factor
    turn: float = 0.0  # degrees in the picture plane
    light: float = 0.0  # change of contrast, of brightness (share of white) and of each colour
    border: float = 0.0  # share of pictures one or two of whose sides are black, as of faces at the edge of a photo

    def __post_init__(self) -> None:
        _at_least(self, 0, "shift", "zoom", "turn", "light")
        _share(self, "border")


@dataclass(frozen=True)
class SourceConfig:
    """Where pictures come from."""

    kind: SourceKind = "synthetic"
    world: str = ""  # synthetic: name of the world, or its TOML file
    path: str = ""  # shards: their folder or pattern; aflw: a clone of XgTu/2DASL, or a pack of it, without test faces
    seed: int = 0  # synthetic: seed of the world
    start: int = 0  # synthetic: number of the first picture
    count: int = 1000  # how many different pictures, at most; without meaning where data.hold = "stream" draws them
    batch_size: int = 32  # pictures in a step, over all processes together
    flip: bool = False  # also mirrored; not for labelled pictures, whose coefficients have no mirror image
    # aflw: the map shows the points as a simulated detector finds them, anew each time; losses take them as marked.
    map_noise: bool = False
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        _at_least(self, 1, "count", "batch_size")
        _at_least(self, 0, "start", "seed")
        wanted = "world" if self.kind == "synthetic" else "path"
        if not getattr(self, wanted):
            raise ValueRangeError(f'{wanted}: found nothing; expected one for kind = "{self.kind}"')
        if self.map_noise and self.kind != "aflw":
            raise ValueRangeError(
                f'map_noise: found true for kind = "{self.kind}"; expected false: its points are a detector\'s already'
            )


@dataclass(frozen=True)
class DataConfig:
    """The four sets of pictures."""

    labelled: SourceConfig = SourceConfig(world="labelled", count=8000)
    unlabelled: SourceConfig = SourceConfig(world="wild", count=20000, seed=1, flip=True)
    validation: SourceConfig = SourceConfig(world="wild", count=500, seed=2)
    test: SourceConfig = SourceConfig(world="wild", count=2000, seed=3)
    face_model: str = ""  # file of the face model, of any format that can be read; empty: the book's
    # Mean and deviation of the coefficients: a world's name, an .npz file, or empty for those of the labelled pictures.
    # A frontal world's own would put faces in profile tens of deviations away; the published ones are of all poses too.
    whitening: str = "wild"
    # Where pictures are held: main memory, or that of the GPU. "stream": drawn pictures are held nowhere; every batch
    # is drawn beside the training step, new pictures each time, and photographs lie in the GPU's memory.
    hold: Literal["host", "device", "stream"] = "host"
    processes: int = 2  # that draw pictures which are not in the cache yet


@dataclass(frozen=True)
class SelfSupervisionConfig:
    """Weights of the losses on pictures with 2D landmarks alone; a weight of zero leaves the loss out."""

    landmarks_2d: float = 0.0
    landmarks_3d: float = 0.0
    cycle: float = 0.0
    critic: float = 0.0
    distance: Distance = "squared"  # of the 2D landmark and the cycle loss; "huber" bears outliers
    huber_delta: float = 0.03  # where Huber's loss turns linear, in units of face size
    # Pixels: faces whose points span less count as of this size. That of whole faces: then all pictures weigh alike,
    # where few points were marked too.
    smallest_face: float = FACE_SIZE_FLOOR
    ramp_steps: int = 0  # steps over which the weights grow from zero

    def __post_init__(self) -> None:
        _at_least(self, 0, *SELF_SUPERVISED, "ramp_steps")
        if not self.huber_delta > 0:
            raise ValueRangeError(f"huber_delta: found {self.huber_delta}; expected a number above 0")
        if not self.smallest_face > 0:
            raise ValueRangeError(f"smallest_face: found {self.smallest_face}; expected pixels, more than 0")

    @property
    def weights(self) -> dict[str, float]:
        """Name to weight of those that are on."""
        return {name: getattr(self, name) for name in SELF_SUPERVISED if getattr(self, name) > 0}


@dataclass(frozen=True)
class CriticConfig:
    """The critic's own training."""

    learning_rate: float = 3e-4
    updates: int = 1  # critic updates per regressor update
    spectral: bool = True  # spectral normalisation, which keeps its slopes within bounds
    start: int = 0  # step from which the regressor listens to it; it learns from the first step on

    def __post_init__(self) -> None:
        _at_least(self, 0, "learning_rate", "start")
        _at_least(self, 1, "updates")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training (Tu et al. 2019, section 3.4: WPDC first, VDC after)."""

    name: str = "stage"
    steps: int = 1000
    learning_rate: float = 1e-3
    warmup: int = 50  # steps of linear warm-up
    final: float = 0.02  # learning rate at the end, as a share of the stage's; cosine decay in between
    pdc: float = 0.0  # weights of the losses on labelled pictures
    wpdc: float = 0.0
    vdc: float = 0.0
    vertices: Vertices = "all"  # that VDC measures: all, or the 68 landmarks, which benchmarks measure
    root: bool = False  # whether VDC is a distance instead of its square, so that hard faces do not outweigh the others

    def __post_init__(self) -> None:
        _at_least(self, 1, "steps")
        _at_least(self, 0, "learning_rate", "warmup", *SUPERVISED)
        _share(self, "final")

    @property
    def weights(self) -> dict[str, float]:
        """Name to weight of the losses that are on."""
        return {name: getattr(self, name) for name in SUPERVISED if getattr(self, name) > 0}


@dataclass(frozen=True)
class OptimiserConfig:
    """AdamW, and what keeps it calm."""

    weight_decay: float = 1e-4
    clip: float = 5.0  # largest norm of the gradient
    ema: float = 0.995  # decay of the averaged weights, which are the ones validated and kept; 0: no averaging
    precision: Precision = "float32"  # of the regressor's forward pass, by autocast
    # torch.compile of the regressor's passes in training. On a GPU it takes a minute or two before the first step is
    # done, which a run of ten minutes does not earn back.
    compile: bool = False
    channels_last: bool = False  # memory layout of pictures and convolutions

    def __post_init__(self) -> None:
        _at_least(self, 0, "weight_decay")
        _share(self, "ema")
        if not self.clip > 0:
            raise ValueRangeError(f"clip: found {self.clip}; expected a number above 0")


@dataclass(frozen=True)
class RunConfig:
    """What is written down and how often."""

    log_every: int = 20  # steps between rows of the log
    validate_every: int = 200
    checkpoint_every: int = 200
    keep: int = 2  # checkpoints kept
    patience: int = 0  # validations without a better one before the run stops early; 0: never
    tensorboard: bool = False
    # Of the whole run, from the start of the command: the schedule follows the clock, so that the run ends in time with
    # its rate lowered. Stages share the time as they share the planned steps, of which no more are made. 0: by steps.
    minutes: float = 0.0
    device: Literal["", "cuda"] = ""  # "cuda": refuse a machine without, unless the command says --device cpu

    def __post_init__(self) -> None:
        _at_least(self, 1, "log_every", "validate_every", "checkpoint_every", "keep")
        _at_least(self, 0, "patience", "minutes")


def _two_stages() -> tuple[StageConfig, ...]:
    return (
        StageConfig("WPDC", steps=1000, wpdc=1.0),
        StageConfig("VDC", steps=300, learning_rate=3e-4, vdc=1.0),
    )


@dataclass(frozen=True)
class TrainConfig:
    """A run."""

    name: str = "run"
    seed: int = 0  # of initial weights, order of pictures, dropped maps and the critic's poses
    network: NetworkConfig = NetworkConfig()
    data: DataConfig = DataConfig()
    self_supervision: SelfSupervisionConfig = SelfSupervisionConfig()
    critic: CriticConfig = CriticConfig()
    stages: tuple[StageConfig, ...] = field(default_factory=_two_stages)
    optimiser: OptimiserConfig = OptimiserConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self) -> None:
        _at_least(self, 0, "seed")
        if self.data.hold == "stream" and self.data.labelled.kind != "synthetic":
            raise ValueRangeError(
                f'data.hold: found "stream" for labelled pictures of kind = "{self.data.labelled.kind}"; expected '
                'kind = "synthetic", which can be drawn, or hold = "device"'
            )
        if not self.stages:
            raise ValueRangeError("stages: found none; expected at least one")
        for stage in self.stages:
            if not stage.weights and not self.self_supervision.weights:
                raise ValueRangeError(
                    f"stages: found {stage.name!r} without any loss; expected a weight above 0 for one of "
                    f"{', '.join(SUPERVISED)}, or of {', '.join(SELF_SUPERVISED)} in self_supervision"
                )
        if self.data.labelled.flip:
            raise ValueRangeError(
                "data.labelled.flip: found true; expected false: coefficients of mirrored pictures are not known"
            )

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, int]:
        """Index of the stage that a step belongs to, and the step's number within it."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        raise ValueRangeError(f"step: found {step + self.steps}; expected below {self.steps}")


# ------------------------------------------------------------------------------------------------- from files
def shipped_configs() -> list[str]:
    """Names of the configurations that come with the package, for instance ``"lite-cpu"``."""
    folder = Path(str(resources.files(__package__) / "configs"))
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def _find(name: str | Path) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    shipped = Path(str(resources.files(__package__) / "configs")) / f"{name}.toml"
    if shipped.is_file():
        return shipped
    raise FileFormatError(path, "no such file", f"a TOML file, or one of {', '.join(shipped_configs())}")


def _read(name: str | Path, base: str | Path | None, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Values of a file and of all that it stands on."""
    path = _find(name)
    if path in above:
        raise FileFormatError(path, "a file that stands on itself", "another base")
    values = read_toml(path)
    own_base = values.pop(_BASE, None)
    below = base or own_base
    if below is None:
        return values
    beside = path.parent / f"{below}.toml"
    return merge(_read(beside if beside.is_file() else below, None, (*above, path)), values)


def _override(values: dict[str, Any], assignment: str) -> None:
    """Carry out one ``key=value``; the value is read as JSON, and as a word if it is none."""
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ValueRangeError(f"--set: found {assignment!r}; expected key=value, for instance stages.0.steps=100")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text.strip()
    place: Any = values
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ValueRangeError(f"--set {key}: found {part!r}; expected a number from 0 to {len(place) - 1}")
            part = int(part)
        elif not isinstance(place, dict):
            raise ValueRangeError(f"--set {key}: found no table at {'.'.join(parts[:depth])!r}")
        elif not last:
            place.setdefault(part, {})
        if last:
            place[part] = value
        else:
            place = place[part]


def load_config(name: str | Path, overrides: Sequence[str] = (), *, base: str | Path | None = None) -> TrainConfig:
    """Read a configuration.

    Args:
        name: A TOML file, or the name of one that comes with the package (:func:`shipped_configs`).
        overrides: ``"key=value"`` words that change single values, for instance ``"stages.0.steps=100"``.
        base: What the file stands on, in place of the base that it names itself.

    Raises:
        FileFormatError: If the file is missing, is no TOML, or holds an unknown key or a wrong value; the message
            names each, with the choices.
        ValueRangeError: If an override is wrong.
    """
    values = _read(name, base)
    if overrides and "stages" not in values:
        values["stages"] = [dataclasses.asdict(stage) for stage in _two_stages()]
    for assignment in overrides:
        _override(values, assignment)
    return config_from_dict(values, source=str(name))


def config_from_dict(values: Mapping[str, Any], source: str = "configuration") -> TrainConfig:
    """A configuration from nested tables, for instance from the ``config.json`` of a run.

    Raises:
        FileFormatError: If a key or value is wrong.
    """
    try:
        return from_table(TrainConfig, values)
    except SettingsError as error:
        raise FileFormatError(source, str(error), "a training configuration") from error


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as nested tables that JSON can hold; the inverse of :func:`config_from_dict`."""
    return to_table(config)
