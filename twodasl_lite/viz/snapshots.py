"""Networks of a run at several steps, for figures that show how they developed.

Reads the checkpoints that training writes (described in ``twodasl_lite.training.checkpoint``) without the trainer.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError, require
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.networks import Critic, make_regressor

_EXPECTED = "a checkpoint of a run"
Checkpoints = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class Snapshot(NamedTuple):
    """A run at one step.

    Attributes:
        step: Number of completed steps.
        regressor: Regressor in evaluation mode.
        critic: Critic in evaluation mode, or ``None`` if the run has none.
        whitening: Whitening of the coefficients.
        map_kind: Kind of the landmark map that the regressor was trained with.
        pose: Reading of the regressor's 12 pose numbers.
        file: Name of the weights file, relative to the run's folder.
        sha256: Hash of that file.
    """

    step: int
    regressor: torch.nn.Module
    critic: torch.nn.Module | None
    whitening: Whitening
    map_kind: str
    pose: str
    file: str
    sha256: str


def find_checkpoints(checkpoints: Checkpoints) -> list[Path]:
    """Checkpoint folders, in order of steps.

    Args:
        checkpoints: Folder of a run, whose checkpoints are used, or a list of checkpoint folders.

    Raises:
        ValueRangeError: If there is no checkpoint.
    """
    if isinstance(checkpoints, str | os.PathLike):
        found = [path.parent for path in Path(checkpoints).glob("checkpoints/step-*/checkpoint.json")]
    else:
        found = [Path(path) for path in checkpoints]
    if not found:
        raise ValueRangeError(f"checkpoints: found none in {checkpoints}; expected a run's folder or a list of them")
    return sorted(found, key=lambda path: path.name)


def read_snapshot(folder: Path, *, average: bool = False) -> Snapshot:
    """One checkpoint's networks, in evaluation mode.

    Args:
        folder: Folder of the checkpoint.
        average: Whether to load the averaged regressor, which is the one validated, instead of the one being trained.

    Raises:
        FileFormatError: If a file is missing or damaged.
    """
    safetensors = require("safetensors.torch", "train", "figures of checkpoints")
    weights_file, state_file = folder / "networks.safetensors", folder / "state.pt"
    try:
        facts = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
        content = weights_file.read_bytes()
        tensors = safetensors.load(content)
        white = torch.load(state_file, map_location="cpu", weights_only=True, mmap=True)["whitening"]
        config: dict[str, Any] = facts["config"]
    except FileNotFoundError as error:
        raise FileFormatError(error.filename, "no such file", _EXPECTED) from error
    except (ValueError, KeyError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise FileFormatError(folder, f"a damaged file ({error})", _EXPECTED) from error

    def part(name: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}

    whitening = Whitening(white["mean"].clone(), white["std"].clone())
    size = len(whitening.mean)
    regressor = make_regressor(config["network"]["name"], size, norm=config["network"]["norm"])
    critic = None
    try:
        regressor.load_state_dict(part("average" if average else "regressor"))
        if judge := part("critic"):
            critic = Critic(size, spectral=any("parametrizations" in key for key in judge))
            critic.load_state_dict(judge)
            critic.eval()
    except (KeyError, RuntimeError) as error:
        raise FileFormatError(weights_file, f"other networks ({error})", _EXPECTED) from error
    run = folder.parent.parent
    return Snapshot(
        int(facts["step"]),
        regressor.eval(),
        critic,
        whitening,
        config["network"]["map"],
        config["network"].get("pose", "free"),
        weights_file.relative_to(run.parent).as_posix(),
        hashlib.sha256(content).hexdigest(),
    )
