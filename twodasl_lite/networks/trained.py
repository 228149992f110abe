"""Packaged results of training: small regressors with their model cards, logs of runs, tables of ablations.

Use ``"own-photos"`` (:data:`DEFAULT`), from a long run on synthetic pictures as varied as photographs. The others are
for comparison: the first seed of the CPU-sized ablation, one network for each of the rows ``"labelled"``,
``"+landmarks_2d"`` and ``"all"`` (:data:`twodasl_lite.training.ablation.ROWS`). A card for each describes how it was
trained, how accurate it is and what not to use it for. See chapters 14 and 16.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.base.run_log import read_log
from twodasl_lite.networks import TrainedRegressor, load_regressor

DEFAULT = "own-photos"
"""Name of the network for your own photos."""

ASSETS = Path(str(resources.files("twodasl_lite"))) / "assets"
"""Folder of the files ``networks/lite-NAME.safetensors`` and ``.md``, ``results/lite-NAME.log.jsonl``,
``results/ablation_SIZE.json``."""

_NETWORK, _CARD = ("networks", "lite-", ".safetensors"), ("networks", "lite-", ".md")
_LOG, _TABLE = ("results", "lite-", ".log.jsonl"), ("results", "ablation_", ".json")


def _names(kind: tuple[str, str, str]) -> list[str]:
    folder, start, end = kind
    found = (ASSETS / folder).glob(f"{start}*{end}")
    return sorted(path.name.removeprefix(start).removesuffix(end) for path in found)


def _find(argument: str, name: str, kind: tuple[str, str, str]) -> Path:
    """Path of the asset with this name."""
    names = _names(kind)
    if name not in names:
        choices = f"one of {', '.join(names)}" if names else f"a file in {ASSETS / kind[0]}, where there is none"
        raise ValueRangeError(f"{argument}: found {name!r}; expected {choices}")
    folder, start, end = kind
    return ASSETS / folder / f"{start}{name}{end}"


def trained_names() -> list[str]:
    """Names of the packaged networks."""
    return _names(_NETWORK)


def model_card(name: str = DEFAULT) -> str:
    """Model card as Markdown: how a network was trained, how accurate it is and what not to use it for.

    Raises:
        ValueRangeError: If the name is unknown; the message lists the choices.
    """
    return _find("name", name, _CARD).read_text(encoding="utf-8")


def trained_regressor(name: str = DEFAULT, device: torch.device | str = "cpu") -> TrainedRegressor:
    """Load a packaged network for :func:`twodasl_lite.networks.prediction.predict_with`.

    Args:
        name: :data:`DEFAULT`, or a row of the ablation, which names the losses that trained it.
        device: Device of network and whitening.

    Returns:
        Network (in evaluation mode), whitening and metadata: the configuration of its run, and its card as ``"card"``.

    Raises:
        ValueRangeError: If the name is unknown; the message lists the choices.
        MissingDependencyError: If safetensors is not installed.
        FileFormatError: If its file is damaged.
    """
    path = _find("name", name, _NETWORK)
    found = load_regressor(path, device)
    return found._replace(metadata={**found.metadata, "card": model_card(name)})


def trained_log(name: str = DEFAULT) -> list[dict[str, Any]]:
    """Rows of the log of a run, as :func:`twodasl_lite.base.run_log.read_log` returns them.

    Args:
        name: :data:`DEFAULT`, or a row of the ablation.

    Raises:
        ValueRangeError: If the name is unknown; the message lists the choices.
    """
    return read_log(_find("name", name, _LOG))


def ablation_table(size: str = "cpu") -> dict[str, Any]:
    """The table of an ablation, as written by :func:`twodasl_lite.training.ablation.ablate`.

    Args:
        size: Size of its runs: ``"cpu"`` or ``"gpu"``.

    Raises:
        ValueRangeError: If there is no table of this size; the message lists the choices.
        FileFormatError: If its file is damaged.
    """
    path = _find("size", size, _TABLE)
    expected = "the table of an ablation"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileFormatError(path, f"a damaged file ({error})", expected) from error
    if not isinstance(table, dict) or not {"rows", "provenance", "test_pictures"} <= table.keys():
        raise FileFormatError(path, "no rows, provenance or number of pictures", expected)
    return table
