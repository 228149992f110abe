"""Files of weights: published ones, read safely, and our own in safetensors with everything needed to use them.

* :func:`load_released`: the checkpoints published with 2DASL (``.pth.tar``).
* :func:`load_imagenet`: ImageNet weights in torchvision's format, as initial weights.
* :func:`save_regressor`, :func:`load_regressor`: a trained network with its whitening and metadata.

Equal weights and metadata give equal bytes, so that checksums can be compared (:func:`safetensors_bytes`).

No file is unpickled without restrictions: torch's restricted reader allows only tensors and plain containers, and
safetensors contains no code at all. A file that does not match raises an error with its name, what was found and what
was expected.
"""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError, require
from twodasl_lite.geometry.camera import POSE_FORMS, PoseForm
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.landmarks import MAP_KINDS
from twodasl_lite.geometry.photos import IMAGE_CENTRE, IMAGE_RANGE
from twodasl_lite.networks.normalisation import NormKind
from twodasl_lite.networks.regressors import make_regressor
from twodasl_lite.networks.resnet import IN_CHANNELS, ResNet

RELEASED_KEY = "res_state_dict"
RELEASED_PREFIX = "module."
BGR_TO_RGB = (2, 1, 0, 3)
"""Permutation of the released first convolution's input channels to this package's order; the map stays last."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation with which torchvision's networks normalise RGB in [0, 1]."""

_COUNTER = "num_batches_tracked"  # missing in files of torch before 0.4.1; no computation uses it
_FORMAT = "twodasl_lite.regressor"
_VERSION = "1"
_NETWORK = "network."
_WHITENING = "whitening."
_SHOWN = 3  # number of entries that a message lists


# ------------------------------------------------------------------------------------------------- reading files
def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _read_pickled(path: Path, expected: str) -> object:
    """The content of a file saved by torch, read without running code from it."""
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    if tarfile.is_tarfile(path):
        # A container that torch has not written since 2017; its reader was vulnerable before 2.6 (CVE-2025-32434).
        raise FileFormatError(path, "a tar archive", f"{expected}, as torch.save writes it")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0][:200]
        raise FileFormatError(
            path, f"something other than tensors ({reason})", f"{expected} of plain tensors"
        ) from error
    except Exception as error:  # for damaged files, torch raises almost any exception
        raise FileFormatError(path, f"a damaged file ({type(error).__name__}: {error})"[:300], expected) from error


def _check_state(path: Path, state: object, expected: str) -> dict[str, torch.Tensor]:
    if not isinstance(state, Mapping) or not state:
        raise FileFormatError(path, f"a {type(state).__name__}", f"{expected}: names and tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise FileFormatError(path, f"a {type(value).__name__} under {name!r}", f"{expected}: names and tensors")
    return dict(state)


def _load_state(path: Path, network: nn.Module, state: dict[str, torch.Tensor], skip: str | None = None) -> None:
    """Copy entries into a network with the same names and shapes, except those that start with ``skip``."""
    wanted = {k: v for k, v in network.state_dict().items() if skip is None or not k.startswith(skip)}
    expected = f"the entries of {network.name} with {network.norm} normalisation"
    state = {k: v for k, v in state.items() if skip is None or not k.startswith(skip)}
    for name, value in wanted.items():
        if name.endswith(_COUNTER):
            state.setdefault(name, torch.zeros_like(value))
    missing = [name for name in wanted if name not in state]
    extra = [name for name in state if name not in wanted]
    if missing:
        also = f" (but {_some(extra)})" if extra else ""
        raise FileFormatError(path, f"no entry {_some(missing)}{also}", expected)
    if extra:
        raise FileFormatError(path, f"unknown entries {_some(extra)}", expected)
    for name, value in wanted.items():
        found = state[name]
        if found.shape != value.shape:
            raise FileFormatError(path, f"{name} of shape {tuple(found.shape)}", f"shape {tuple(value.shape)}")
        if found.is_floating_point() != value.is_floating_point() or found.is_complex():
            raise FileFormatError(path, f"{name} of type {found.dtype}", f"type {value.dtype}")
        if not bool(torch.isfinite(found).all()):
            raise FileFormatError(path, f"NaN or infinite values in {name}", "finite numbers")
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(state[name])


# --------------------------------------------------------------------------------------------- published weights
def load_released(path: str | os.PathLike[str], norm: NormKind = "batch") -> ResNet:
    """Read a checkpoint published with 2DASL.

    The file holds ``{"res_state_dict": {"module.<name>": tensor}}``. The prefix is dropped, and the first convolution's
    input channels are reordered from BGR, which the authors' code uses, to RGB, so that the network takes the same
    inputs as all others here. Its outputs are whitened with the *published* mean and standard deviation of 3DDFA's
    Basel coefficients.

    Args:
        path: The ``.pth.tar`` file.
        norm: ``"batch"``, or ``"frozen"`` to continue training with the file's statistics.

    Returns:
        A ``"resnet50"`` in evaluation mode.

    Raises:
        FileFormatError: If the file is missing, damaged, holds anything but tensors, or has missing entries, unknown
            entries or entries of a wrong shape.
        ValueRangeError: If ``norm`` has no statistics to load.
    """
    path = Path(path)
    expected = "a checkpoint of 2DASL"
    _check_norm(norm)
    content = _read_pickled(path, expected)
    if not isinstance(content, Mapping) or RELEASED_KEY not in content:
        keys = f" with {_some(sorted(map(str, content)))}" if isinstance(content, Mapping) else ""
        raise FileFormatError(path, f"a {type(content).__name__}{keys}", f'{expected}, with "{RELEASED_KEY}"')
    state = _check_state(path, content[RELEASED_KEY], expected)
    state = {name.removeprefix(RELEASED_PREFIX): value for name, value in state.items()}
    network = ResNet("resnet50", norm=norm)
    _load_state(path, network, state)
    with torch.no_grad():
        network.conv1.weight.copy_(network.conv1.weight[:, list(BGR_TO_RGB)])
    return network.eval()


def load_imagenet(network: ResNet, path: str | os.PathLike[str]) -> None:
    """Initialise a ResNet with ImageNet weights in torchvision's format (``resnet50-….pth``).

    * The head is not changed: it has other outputs.
    * The first convolution gets a fourth input channel of **zeros**: the network starts as the ImageNet network,
      whatever the landmark map shows, and learns the map's weights from there (their gradient is not zero).
    * The input of torchvision's networks is ``(v / 255 - mean) / std``, ours is ``(v - 127.5) / 128``. They differ by a
      factor and an offset per colour; the factor goes into the weights, the offset into the running mean after them.
      Inside the picture the stem then computes exactly the same; at the border, the padding is mid-grey here and the
      mean colour in torchvision.
    * The last stage keeps its resolution here and halves it in torchvision; the shapes of its weights are the same.

    Args:
        network: A ResNet with ``"batch"`` or ``"frozen"`` normalisation, changed in place.
        path: File with the weights of a network of the same depth.

    Raises:
        FileFormatError: If the file is missing, damaged, holds anything but tensors, or does not match.
        ValueRangeError: If the network is not a ResNet or has group normalisation, which has no statistics.
    """
    path = Path(path)
    if not isinstance(network, ResNet):
        raise ValueRangeError(f"network: found {type(network).__name__}; expected a ResNet")
    _check_norm(network.norm)
    expected = f"torchvision's weights of {network.name}"
    state = _check_state(path, _read_pickled(path, expected), expected)
    weight = state.get("conv1.weight")
    if weight is None:
        raise FileFormatError(path, "no entry conv1.weight", expected)
    colours = (network.conv1.out_channels, IN_CHANNELS - 1, *network.conv1.kernel_size)
    if tuple(weight.shape) != colours:
        raise FileFormatError(path, f"conv1.weight of shape {tuple(weight.shape)}", f"{expected}, shape {colours}")
    if "bn1.running_mean" not in state:
        raise FileFormatError(path, "no entry bn1.running_mean", expected)
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    factor = IMAGE_RANGE / 255 / std  # (3,) torchvision's input = factor * ours + offset
    offset = (IMAGE_CENTRE / 255 - mean) / std  # (3,)
    weight = weight.float()
    state["conv1.weight"] = torch.cat([weight * factor[:, None, None], torch.zeros_like(weight[:, :1])], dim=1)
    state["bn1.running_mean"] = state["bn1.running_mean"] - weight.sum(dim=(2, 3)) @ offset
    _load_state(path, network, state, skip="fc.")


def _check_norm(norm: str) -> None:
    if norm == "group":
        raise ValueRangeError("norm: found 'group', which has no statistics to load; expected 'batch' or 'frozen'")


# ------------------------------------------------------------------------------------------------- our own weights
class TrainedRegressor(NamedTuple):
    """A trained network with its whitening and metadata.

    Attributes:
        network: Regressor in evaluation mode.
        whitening: Whitening that maps its outputs to raw coefficients.
        metadata: Metadata of its training, see :func:`save_regressor`.
    """

    network: nn.Module
    whitening: Whitening
    metadata: dict[str, Any]

    @property
    def layout(self) -> CoefficientLayout:
        """The sizes of the coefficient vector's parts."""
        return CoefficientLayout(*self.metadata["layout"])

    @property
    def pose(self) -> PoseForm:
        """Interpretation of its 12 pose numbers."""
        return self.metadata.get("pose", "free")


def unwrap(network: nn.Module) -> nn.Module:
    """The regressor inside the wrappers of ``torch.compile`` and ``DistributedDataParallel``."""
    while not hasattr(network, "num_outputs") or hasattr(network, "_orig_mod"):
        inner = getattr(network, "_orig_mod", None) or getattr(network, "module", None)
        if inner is None:
            raise ValueRangeError(f"network: found {type(network).__name__}; expected a regressor from make_regressor")
        network = inner
    return network


def save_regressor(
    path: str | os.PathLike[str], network: nn.Module, whitening: Whitening, metadata: Mapping[str, object]
) -> None:
    """Write a network with its whitening and metadata to one safetensors file, whole or not at all.

    Args:
        path: Path of the file; missing folders are created.
        network: A regressor, wrapped or not.
        whitening: Whitening of its outputs.
        metadata: JSON-serialisable metadata. ``"map_kind"`` (the kind of landmark map it was trained with) is required.
            ``"layout"`` (numbers of shape and expression coefficients) defaults to the paper's 40 and 10, ``"pose"``
            (interpretation of the 12 pose numbers) to ``"free"``. ``"face_model"`` is for the result of
            :func:`twodasl_lite.faces.fingerprint.face_fingerprint`. ``"name"``, ``"norm"`` and ``"num_outputs"``
            are added.

    Raises:
        MissingDependencyError: If safetensors is not installed.
        ShapeError: If network, whitening and layout differ in size.
        ValueRangeError: If the metadata is incomplete or cannot be written.
        OSError: If the disk is full or the path not writable; no partial file is left.
    """
    require("safetensors", "train", "saving weights")
    inner = unwrap(network)
    facts = _check_metadata(
        {**metadata, "name": inner.name, "norm": inner.norm, "num_outputs": inner.num_outputs}, whitening
    )
    try:
        text = json.dumps(facts, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueRangeError(f"metadata: found a value that JSON cannot hold ({error})") from error
    tensors = {_NETWORK + name: value for name, value in inner.state_dict().items()}
    tensors |= {_WHITENING + "mean": whitening.mean, _WHITENING + "std": whitening.std}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content = safetensors_bytes(tensors, {"format": _FORMAT, "version": _VERSION, "metadata": text})
    with whole_file(path) as file:
        file.write(content)


def safetensors_bytes(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Serialise tensors to safetensors so that equal names, values and metadata give equal bytes.

    The library writes the header in the order of a hash table, which is seeded anew in every process. The header is a
    JSON object, in which order has no meaning, so it is rewritten here with sorted keys. The values after it are in the
    library's order, which depends only on types and names.

    Args:
        tensors: Name to tensor; contiguous, without shared memory.
        metadata: Metadata for the header.

    Raises:
        MissingDependencyError: If safetensors is not installed.
    """
    content = require("safetensors.torch", "train", "saving weights").save(
        dict(tensors), metadata=dict(metadata) if metadata else None
    )
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(
        json.loads(content[8:start]), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()
    header += b" " * (-len(header) % 8)  # the values begin at a multiple of 8, as the format requires
    return len(header).to_bytes(8, "little") + header + content[start:]


def load_regressor(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> TrainedRegressor:
    """Read a file written by :func:`save_regressor`.

    Args:
        path: The file.
        device: Device for the network and its whitening.

    Returns:
        Network (in evaluation mode), whitening and metadata.

    Raises:
        MissingDependencyError: If safetensors is not installed.
        FileFormatError: If the file is missing, damaged, of another format or version, or its parts do not match.
    """
    safetensors = require("safetensors", "train", "loading weights")
    path = Path(path)
    expected = f"a {_FORMAT} file, version {_VERSION}"
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", expected)
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise FileFormatError(path, f"a damaged file or one of another kind ({error})", expected) from error
    if header.get("format") != _FORMAT or header.get("version") != _VERSION:
        found = f"{header.get('format', 'no format')}, version {header.get('version', 'unknown')}"
        raise FileFormatError(path, found, expected)
    try:
        metadata = dict(json.loads(header["metadata"]))
        network = make_regressor(metadata["name"], metadata["num_outputs"], metadata["norm"])
        whitening = Whitening(tensors.pop(_WHITENING + "mean"), tensors.pop(_WHITENING + "std"))
        metadata = _check_metadata(metadata, whitening)
    except (KeyError, TypeError, ValueError) as error:  # the package's own errors are ValueErrors
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise FileFormatError(path, f"an unusable header or whitening ({reason})", expected) from error
    _load_state(path, network, {name.removeprefix(_NETWORK): value for name, value in tensors.items()})
    whitening = Whitening(whitening.mean.to(device), whitening.std.to(device))
    return TrainedRegressor(network.to(device).eval(), whitening, metadata)


def _check_metadata(metadata: Mapping[str, Any], whitening: Whitening) -> dict[str, Any]:
    """Add defaults to the metadata and check that it is consistent."""
    facts = dict(metadata)
    if facts.get("map_kind") not in MAP_KINDS:
        found = repr(facts["map_kind"]) if "map_kind" in facts else "none"
        raise ValueRangeError(f"metadata: found map_kind {found}; expected one of {', '.join(MAP_KINDS)}")
    if facts.setdefault("pose", "free") not in POSE_FORMS:
        raise ValueRangeError(f"metadata: found pose {facts['pose']!r}; expected one of {', '.join(POSE_FORMS)}")
    layout = facts.get("layout", CoefficientLayout())
    if not isinstance(layout, CoefficientLayout):
        try:
            layout = CoefficientLayout(*layout)
        except TypeError as error:
            raise ValueRangeError(f"metadata: found layout {layout!r}; expected two whole numbers") from error
    sizes = {"num_outputs": facts["num_outputs"], "whitening": whitening.mean.shape[0], "layout": layout.size}
    if len(set(sizes.values())) > 1:
        raise ShapeError(f"found sizes {', '.join(f'{k} {v}' for k, v in sizes.items())}; expected one size")
    facts["layout"] = [layout.num_shape, layout.num_expression]
    return facts
