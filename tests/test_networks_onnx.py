"""ONNX export: the same numbers from another program, for any batch."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.networks import export_onnx, make_regressor, measure_statistics

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def pictures(count: int, seed: int = 5) -> torch.Tensor:
    return torch.rand(count, 4, 120, 120, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def run(path, inputs: torch.Tensor) -> torch.Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"inputs": inputs.numpy()})[0])


def trained(name: str, norm: str) -> torch.nn.Module:
    """Weights whose outputs are of the size that a trained network's are."""
    torch.manual_seed(0)
    network = make_regressor(name, norm=norm)
    measure_statistics(network, [pictures(8)])
    with torch.no_grad():
        network.fc.weight.mul_(20)
    return network


@pytest.mark.parametrize(("name", "norm"), [("lite", "batch"), ("lite", "group"), ("resnet18", "frozen")])
def test_onnxruntime_agrees_with_torch(tmp_path, name: str, norm: str) -> None:
    path = tmp_path / "network.onnx"
    network = trained(name, norm).train()
    difference = export_onnx(network, path, metadata={"map_kind": "binary"})
    assert difference <= 1e-4
    assert network.training
    network.eval()
    for count in (1, 2, 7):
        with torch.inference_mode():
            expected = network(pictures(count))
        assert float(expected.abs().max()) > 0.1
        torch.testing.assert_close(run(path, pictures(count)), expected, rtol=1e-3, atol=1e-4)
    assert os.listdir(tmp_path) == ["network.onnx"]  # one file, weights inside
    facts = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert json.loads(facts["twodasl_lite"]) == {"map_kind": "binary"}


def test_the_whitening_can_go_along(tmp_path) -> None:
    path = tmp_path / "raw.onnx"
    network = trained("lite", "batch").eval()
    whitening = Whitening(torch.linspace(-500, 500, 62), torch.logspace(-4, 5, 62))
    assert export_onnx(network, path, whitening=whitening) <= 1e-4
    with torch.inference_mode():
        expected = whitening.unwhiten(network(pictures(2)))
    difference = (run(path, pictures(2)) - expected).abs() / whitening.std
    rounding = (
        1e-6 * whitening.mean.abs() / whitening.std
    )  # of float32, where the mean is far larger than the deviation
    assert bool((difference <= 1e-4 + rounding).all())
    names = [output.name for output in onnxruntime.InferenceSession(str(path)).get_outputs()]
    assert names == ["coefficients"]
    with pytest.raises(ShapeError, match="whitening: found 20 entries; expected 62"):
        export_onnx(network, path, whitening=Whitening(torch.zeros(20), torch.ones(20)))


def test_a_graph_that_differs_is_not_written(tmp_path, monkeypatch) -> None:
    real = onnxruntime.InferenceSession

    class Wrong(real):
        def run(self, *arguments):
            return [result + np.float32(0.01) for result in super().run(*arguments)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(ValueRangeError, match=r"onnxruntime: found results 0\.01 standard deviations from torch's"):
        export_onnx(trained("lite", "batch"), tmp_path / "wrong.onnx")
    assert os.listdir(tmp_path) == []
