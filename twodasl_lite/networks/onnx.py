"""Export of trained networks to ONNX; each graph is verified before the file is written."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.errors import ShapeError, ValueRangeError, require
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.networks.resnet import IN_CHANNELS
from twodasl_lite.networks.weights import unwrap

INPUT, WHITENED, RAW = "inputs", "whitened", "coefficients"
"""Names of the exported graph's input, and of its output without and with a whitening."""
TOLERANCE = 1e-4
"""Largest accepted difference between torch and onnxruntime, in standard deviations of each coefficient."""
_CHECKED_BATCHES = (1, 3)  # the smallest size, and one that differs from the traced size
_TRACED_BATCH = 2


class _Unwhitened(nn.Module):
    """A network followed by its un-whitening."""

    def __init__(self, network: nn.Module, whitening: Whitening) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", whitening.mean.detach().float().cpu())
        self.register_buffer("std", whitening.std.detach().float().cpu())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.network(inputs) * self.std + self.mean


def export_onnx(
    network: nn.Module,
    path: str | os.PathLike[str],
    *,
    whitening: Whitening | None = None,
    metadata: Mapping[str, object] | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Export a regressor to an ONNX file that takes any number of faces.

    The graph's input is ``inputs`` ``(B, 4, 120, 120)``, see the ResNet. Before the file is written, onnxruntime runs
    the graph on random pictures with landmark maps, for batches of 1 and 3, and the results must match torch's.

    Args:
        network: Regressor to export, in evaluation mode; the original is not changed.
        path: Path of the file; missing folders are created.
        whitening: Whitening of the network's outputs. With it, the graph's output is raw ``coefficients``, without it
            ``whitened``; ``(B, num_outputs)``.
        metadata: Metadata stored with the graph, as JSON under the key ``twodasl_lite``.
        tolerance: Largest accepted difference, in standard deviations of each coefficient.

    Returns:
        The largest difference found, in the same units.

    Raises:
        MissingDependencyError: If onnx, onnxscript or onnxruntime is not installed.
        ShapeError: If the whitening's size differs from the network's.
        ValueRangeError: If the difference is larger than the tolerance.
        OSError: If the disk is full or the path not writable; no partial file is left.
    """
    inner = unwrap(network)
    if whitening is not None and whitening.mean.shape[0] != inner.num_outputs:
        raise ShapeError(f"whitening: found {whitening.mean.shape[0]} entries; expected {inner.num_outputs}")
    model = copy.deepcopy(inner).float().cpu()
    model = model if whitening is None else _Unwhitened(model, whitening)
    names = INPUT, WHITENED if whitening is None else RAW
    std = None if whitening is None else whitening.std
    return write_graph(model, path, _examples, names, std=std, metadata=metadata, tolerance=tolerance)


def write_graph(
    model: nn.Module,
    path: str | os.PathLike[str],
    examples: Callable[[int], torch.Tensor],
    names: tuple[str, str],
    *,
    std: torch.Tensor | None = None,
    metadata: Mapping[str, object] | None = None,
    tolerance: float = TOLERANCE,
) -> float:
    """Export a module with one input and one output to ONNX for any batch size, and verify it with onnxruntime.

    Args:
        model: The module on the CPU; it is set to evaluation mode.
        path: Path of the file; missing folders are created.
        examples: Function from a batch size to example inputs.
        names: Names of the input and of the output.
        std: Standard deviation by which the difference in each output is divided, ``(D,)``; by default one.
        metadata: Metadata stored with the graph, as for :func:`export_onnx`.
        tolerance: Largest accepted difference, as for :func:`export_onnx`.

    Returns:
        The largest difference found for batches of 1 and 3.

    Raises:
        MissingDependencyError: If onnx, onnxscript or onnxruntime is not installed.
        ValueRangeError: If the difference is larger than the tolerance.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        require(package, "onnx", "exporting to ONNX")
    model = model.eval()
    graph = _trace(model, examples(_TRACED_BATCH), names)
    if metadata is not None:
        entry = graph.metadata_props.add()
        entry.key, entry.value = "twodasl_lite", json.dumps(dict(metadata))
    content = graph.SerializeToString()
    difference = _compare(model, content, examples, names[0], std)
    if not difference <= tolerance:
        raise ValueRangeError(
            f"onnxruntime: found results {difference:.2g} standard deviations from torch's; expected up to {tolerance}"
        )
    with whole_file(path) as file:
        file.write(content)
    return difference


def _trace(model: nn.Module, inputs: torch.Tensor, names: tuple[str, str]):
    """The graph as an ``onnx.ModelProto``, for any batch size."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns about packages that no regressor uses
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # by torch, about its own internals
            program = torch.onnx.export(
                model,
                (inputs,),
                input_names=[names[0]],
                output_names=[names[1]],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                dynamo=True,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None  # only with another file format
    return program.model_proto


def _examples(count: int) -> torch.Tensor:
    """Random pictures and maps with about 18 points, ``(B, 4, 120, 120)``."""
    generator = torch.Generator().manual_seed(count)
    picture = torch.rand(count, IN_CHANNELS, CROP_SIZE, CROP_SIZE, generator=generator) * 2 - 1
    picture[:, -1] = torch.where(picture[:, -1] > 1 - 2 * 18 / CROP_SIZE**2, 1.0, -1.0)
    return picture


def _compare(
    model: nn.Module,
    content: bytes,
    examples: Callable[[int], torch.Tensor],
    name: str,
    std: torch.Tensor | None,
) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = 0.0
    for count in _CHECKED_BATCHES:
        inputs = examples(count)
        with torch.inference_mode():
            expected = model(inputs)
        (found,) = session.run(None, {name: inputs.numpy()})
        difference = (torch.from_numpy(found) - expected).abs()
        worst = max(worst, float((difference if std is None else difference / std.cpu()).max()))
    return worst
