"""Configuration of a training run: small frozen dataclasses, read from a TOML file.

A file may build on another (``base = "lite-cpu"``) and then lists only the differences; ``--set a.b=value`` overrides
single values. An unknown key or an invalid value raises an error that lists the valid choices. Loss weights, learning
rates and batch sizes are this project's: neither the paper nor the released code specifies them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from twodasl_lite.base.checks import check_number
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.base.settings import SettingsError, from_table, merge, read_toml, to_table
from twodasl_lite.geometry.camera import PoseForm
from twodasl_lite.geometry.landmarks import MapKind
from twodasl_lite.losses.catalogue import SELF_SUPERVISED, SUPERVISED
from twodasl_lite.losses.distances import FACE_SIZE_FLOOR

RegressorName = Literal["lite", "resnet18", "resnet34", "resnet50"]
NormName = Literal["batch", "group", "frozen"]
SourceKind = Literal["synthetic", "shards", "aflw"]
Precision = Literal["float32", "bfloat16", "float16"]
Distance = Literal["squared", "huber"]
Vertices = Literal["all", "landmarks"]

_BASE = "base"


def _at_least(owner: object, low: float, *names: str) -> None:
    for name in names:
        check_number(name, getattr(owner, name), least=low)


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
    weights: str = ""  # initial weights: .safetensors of a run, or .pth of torchvision; empty: random
    map: MapKind = "binary"  # kind of landmark map; only "gaussian" passes gradients to the points
    pose: PoseForm = "completed"  # interpretation of the 12 pose numbers wherever vertices are decoded
    map_dropout: float = 0.25  # share of pictures with an empty map, so that inference works without a detector

    def __post_init__(self) -> None:
        _share(self, "map_dropout")


@dataclass(frozen=True)
class AugmentConfig:
    """Strength of the augmentation, drawn anew in every step; landmarks and coefficients change with the picture."""

    shift: float = 0.0  # largest shift in pixels, in each direction
    zoom: float = 0.0  # largest logarithm of the scale
    turn: float = 0.0  # largest rotation in the picture plane, in degrees
    light: float = 0.0  # change of contrast, of brightness (fraction of white) and of each colour
    border: float = 0.0  # share of pictures with one or two black sides, like faces at the edge of a photo

    def __post_init__(self) -> None:
        _at_least(self, 0, "shift", "zoom", "turn", "light")
        _share(self, "border")


@dataclass(frozen=True)
class SourceConfig:
    """A source of pictures."""

    kind: SourceKind = "synthetic"
    world: str = ""  # synthetic: name of the world, or its TOML file
    path: str = ""  # shards: their folder or pattern; aflw: a clone of XgTu/2DASL, or a pack of it, without test faces
    seed: int = 0  # synthetic: seed of the world
    start: int = 0  # synthetic: index of the first picture
    count: int = 1000  # largest number of different pictures; ignored for pictures that data.hold = "stream" renders
    batch_size: int = 32  # pictures per step, over all processes together
    flip: bool = False  # also mirrored; not for labelled pictures: mirrored coefficients are unknown
    # aflw: the map shows the points with a simulated detector's noise, drawn anew in every step; losses use the
    # annotated points.
    map_noise: bool = False
    augment: AugmentConfig = AugmentConfig()

    def __post_init__(self) -> None:
        _at_least(self, 1, "count", "batch_size")
        _at_least(self, 0, "start", "seed")
        wanted = "world" if self.kind == "synthetic" else "path"
        if not getattr(self, wanted):
            raise ValueRangeError(f'{wanted}: found nothing; expected a value for kind = "{self.kind}"')
        if self.map_noise and self.kind != "aflw":
            raise ValueRangeError(
                f'map_noise: found true for kind = "{self.kind}"; expected false: its points are a detector\'s already'
            )


@dataclass(frozen=True)
class DataConfig:
    """The four datasets."""

    labelled: SourceConfig = SourceConfig(world="labelled", count=8000)
    unlabelled: SourceConfig = SourceConfig(world="wild", count=20000, seed=1, flip=True)
    validation: SourceConfig = SourceConfig(world="wild", count=500, seed=2)
    test: SourceConfig = SourceConfig(world="wild", count=2000, seed=3)
    face_model: str = ""  # file of the face model, in any readable format; empty: the book's model
    # Mean and standard deviation of the coefficients: a world's name, an .npz file, or empty for those of the labelled
    # pictures. Those of a frontal world would put faces in profile tens of standard deviations away; the published ones
    # are of all poses, too.
    whitening: str = "wild"
    # Where pictures are held: in main memory, or in that of the GPU. "stream": synthetic pictures are not held; every
    # batch is rendered in parallel to training, always new pictures, and photographs stay in the GPU's memory.
    hold: Literal["host", "device", "stream"] = "host"
    processes: int = 2  # processes that render pictures missing in the cache


@dataclass(frozen=True)
class SelfSupervisionConfig:
    """Weights of the losses on pictures with only 2D landmarks; a weight of zero switches the loss off."""

    landmarks_2d: float = 0.0
    landmarks_3d: float = 0.0
    cycle: float = 0.0
    critic: float = 0.0
    prior: float = 0.0  # of shape and expression, not in the paper
    distance: Distance = "squared"  # of the 2D landmark and the cycle loss; "huber" is robust to outliers
    huber_delta: float = 0.03  # distance at which the Huber loss becomes linear, in units of face size
    # Lower limit of the face size in pixels. At the size of a whole face, all pictures have equal weight, even those
    # with few annotated points.
    smallest_face: float = FACE_SIZE_FLOOR
    ramp_steps: int = 0  # steps over which the weights grow from zero

    def __post_init__(self) -> None:
        _at_least(self, 0, *SELF_SUPERVISED, "ramp_steps")
        check_number("huber_delta", self.huber_delta, above=0)
        check_number("smallest_face", self.smallest_face, above=0)

    @property
    def weights(self) -> dict[str, float]:
        """Name to weight of the losses that are on."""
        return {name: getattr(self, name) for name in SELF_SUPERVISED if getattr(self, name) > 0}


@dataclass(frozen=True)
class CriticConfig:
    """Training of the critic."""

    learning_rate: float = 3e-4
    updates: int = 1  # critic updates per regressor update
    spectral: bool = True  # spectral normalisation, which bounds its Lipschitz constant
    start: int = 0  # step from which the regressor uses its loss; the critic itself learns from the first step

    def __post_init__(self) -> None:
        _at_least(self, 0, "learning_rate", "start")
        _at_least(self, 1, "updates")


@dataclass(frozen=True)
class StageConfig:
    """One stage of training (Tu et al. 2019, section 3.4: first WPDC, then VDC)."""

    name: str = "stage"
    steps: int = 1000
    learning_rate: float = 1e-3
    warmup: int = 50  # steps of linear warm-up
    final: float = 0.02  # learning rate at the end, as a fraction of the stage's; cosine decay in between
    pdc: float = 0.0  # weights of the losses on labelled pictures
    wpdc: float = 0.0
    vdc: float = 0.0
    vertices: Vertices = "all"  # vertices of VDC: all, or the 68 landmarks, which benchmarks measure
    root: bool = False  # whether VDC is the distance instead of its square, so that hard faces do not dominate

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
    """AdamW, gradient clipping and averaged weights (EMA)."""

    weight_decay: float = 1e-4
    clip: float = 5.0  # largest norm of the gradient
    ema: float = 0.995  # decay of the averaged weights, which are validated and saved; 0: no averaging
    precision: Precision = "float32"  # of the regressor's forward pass, by autocast
    # torch.compile of the regressor's passes in training. On a GPU it delays the first step by a minute or two, which a
    # run of ten minutes does not make up for.
    compile: bool = False
    channels_last: bool = False  # memory layout of pictures and convolutions

    def __post_init__(self) -> None:
        _at_least(self, 0, "weight_decay")
        _share(self, "ema")
        check_number("clip", self.clip, above=0)


@dataclass(frozen=True)
class RunConfig:
    """Logging, validation, checkpoints and the time limit."""

    log_every: int = 20  # steps between log rows
    validate_every: int = 200
    checkpoint_every: int = 200
    keep: int = 2  # number of checkpoints to keep
    patience: int = 0  # validations without improvement before the run stops early; 0: never
    tensorboard: bool = False
    # Minutes of the whole run, from the start of the command. The learning rate schedule follows the clock, so that it
    # is complete when the time is over; each stage gets time in proportion to its planned steps, which are never
    # exceeded. 0: the schedule follows the steps.
    minutes: float = 0.0
    device: Literal["", "cuda"] = ""  # "cuda": require a GPU, unless the command says --device cpu

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
    """Configuration of a run."""

    name: str = "run"
    seed: int = 0  # seed of initial weights, order of pictures, dropped maps and the critic's poses
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
                'kind = "synthetic", which can be rendered, or hold = "device"'
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
        """Total number of steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, int]:
        """Index of the stage that contains a step, and the step's number within it."""
        for index, stage in enumerate(self.stages):
            if step < stage.steps:
                return index, step
            step -= stage.steps
        raise ValueRangeError(f"step: found {step + self.steps}; expected below {self.steps}")


# ------------------------------------------------------------------------------------------------- from files
def shipped_configs() -> list[str]:
    """Names of the packaged configurations, for instance ``"lite-cpu"``."""
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
    """Values of a file merged with those of its bases."""
    path = _find(name)
    if path in above:
        raise FileFormatError(path, "a file that is its own base", "another base")
    values = read_toml(path)
    own_base = values.pop(_BASE, None)
    below = base or own_base
    if below is None:
        return values
    beside = path.parent / f"{below}.toml"
    return merge(_read(beside if beside.is_file() else below, None, (*above, path)), values)


def _override(values: dict[str, Any], assignment: str) -> None:
    """Apply one ``key=value``; the value is parsed as JSON, or taken as a string if that fails."""
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
        name: A TOML file, or the name of a packaged one (:func:`shipped_configs`).
        overrides: Overrides of single values, for instance ``"stages.0.steps=100"``.
        base: Base configuration to use instead of the one that the file names.

    Raises:
        FileFormatError: If the file is missing, is not TOML, or holds an unknown key or an invalid value; the message
            names each, with the valid choices.
        ValueRangeError: If an override is invalid.
    """
    values = _read(name, base)
    if overrides and "stages" not in values:
        values["stages"] = [dataclasses.asdict(stage) for stage in _two_stages()]
    for assignment in overrides:
        _override(values, assignment)
    return config_from_dict(values, source=str(name))


def config_from_dict(values: Mapping[str, Any], source: str = "configuration") -> TrainConfig:
    """Build a configuration from nested tables, for instance from the ``config.json`` of a run.

    Raises:
        FileFormatError: If a key is unknown or a value invalid.
    """
    try:
        return from_table(TrainConfig, values)
    except SettingsError as error:
        raise FileFormatError(source, str(error), "a training configuration") from error


def config_to_dict(config: TrainConfig) -> dict[str, Any]:
    """Convert a configuration to JSON-serialisable nested tables; the inverse of :func:`config_from_dict`."""
    return to_table(config)
