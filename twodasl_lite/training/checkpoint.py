"""Checkpoints: they hold the full state of a run, appear whole or not at all, and allow an exact continuation.

A checkpoint is a folder ``checkpoints/step-00000400``, written under another name and then renamed:

* ``networks.safetensors``: weights of the regressor, its average and the critic; equal weights give equal bytes;
* ``state.pt``: optimisers and random generators; loaded without running code (``weights_only``);
* ``checkpoint.json``: step, configuration, code version, best validation so far.

Files with only a trained network, such as ``best.safetensors``, are written and read by
:mod:`twodasl_lite.networks.weights`.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import torch

from twodasl_lite.base.errors import FileFormatError, TwodaslError, require
from twodasl_lite.networks.weights import safetensors_bytes

FOLDER = "checkpoints"
_NETWORKS, _STATE, _FACTS = "networks.safetensors", "state.pt", "checkpoint.json"
_FORMAT, _VERSION = "twodasl_lite.checkpoint", 1
_EXPECTED = f"a {_FORMAT}, version {_VERSION}"


class Checkpoint(NamedTuple):
    """State of a run at one step.

    Attributes:
        step: Number of steps done.
        networks: ``"regressor"``, ``"average"``, ``"critic"`` to their state dictionaries.
        state: Everything else that ``torch.save`` stores: tensors, numbers, and lists and dictionaries of them.
        facts: Content of the JSON file.
    """

    step: int
    networks: dict[str, dict[str, torch.Tensor]]
    state: dict[str, Any]
    facts: dict[str, Any]


def random_state() -> dict[str, torch.Tensor]:
    """States of torch's global random generators, which layers such as dropout use."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, torch.Tensor]) -> None:
    """Set torch's global random generators to what :func:`random_state` returned."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def save_checkpoint(run: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write a checkpoint, and remove all but the last ``keep``.

    Args:
        run: The run's folder.
        checkpoint: Checkpoint to write.
        keep: Number of checkpoints to keep.

    Returns:
        The checkpoint's folder.

    Raises:
        TwodaslError: If the disk is full or the folder not writable; earlier checkpoints stay intact.
    """
    folder = Path(run) / FOLDER
    final = folder / f"step-{checkpoint.step:08d}"
    part = folder / f".{final.name}.part"
    tensors = {
        f"{name}.{key}": value.detach().cpu().contiguous()
        for name, weights in checkpoint.networks.items()
        for key, value in weights.items()
    }
    facts = {"format": _FORMAT, "version": _VERSION, "step": checkpoint.step, **checkpoint.facts}
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        _write(part / _NETWORKS, safetensors_bytes(_unshared(tensors)))
        with (part / _STATE).open("wb") as file:
            torch.save(checkpoint.state, file)
            file.flush()
            os.fsync(file.fileno())
        _write(part / _FACTS, json.dumps(facts, indent=1).encode())
        shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        shutil.rmtree(part, ignore_errors=True)
        last = latest_checkpoint(run)
        kept = f"the last good one is {last}" if last else "there is no earlier one"
        raise TwodaslError(
            f"{final}: the checkpoint could not be written ({error}); {kept}. Free disk space, then use --resume"
        ) from error
    for old in _all(run)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power failure, where the system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _unshared(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors that share memory with another, which safetensors does not allow."""
    seen: set[int] = set()
    result = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        result[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return result


def _all(run: Path) -> list[Path]:
    return sorted(path for path in (Path(run) / FOLDER).glob("step-*") if (path / _FACTS).is_file())


def latest_checkpoint(run: Path) -> Path | None:
    """The last checkpoint of a run; ``None`` if it has none."""
    found = _all(run)
    return found[-1] if found else None


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: Folder of the checkpoint.
        device: Device of the networks' tensors.

    Raises:
        FileFormatError: If a file is missing, damaged, or would run code when loaded.
    """
    safetensors = require("safetensors.torch", "train", "a checkpoint")
    path = Path(path)
    for name in (_FACTS, _NETWORKS, _STATE):
        if not (path / name).is_file():
            raise FileFormatError(path / name, "no such file", _EXPECTED)
    try:
        facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        found = (facts.pop("format"), facts.pop("version"))
        step = int(facts.pop("step"))
    except (ValueError, KeyError, AttributeError) as error:
        raise FileFormatError(path / _FACTS, "a damaged file", _EXPECTED) from error
    if found != (_FORMAT, _VERSION):
        raise FileFormatError(path / _FACTS, f"a {found[0]}, version {found[1]}", _EXPECTED)
    try:
        tensors = safetensors.load_file(path / _NETWORKS, device=str(device))
    except Exception as error:  # safetensors' own exception class is private to its binary
        raise FileFormatError(path / _NETWORKS, f"a damaged file ({error})", _EXPECTED) from error
    networks: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        network, _, key = name.partition(".")
        networks.setdefault(network, {})[key] = tensor
    try:
        # On the CPU: the generators' states must be there, and optimisers move their state to the weights' device.
        state = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise FileFormatError(path / _STATE, f"a damaged file ({error})", _EXPECTED) from error
    return Checkpoint(step, networks, state, facts)
