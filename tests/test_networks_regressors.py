"""Regressors: sizes, names, gradients, and what each normalisation depends on."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.networks import (
    NORM_KINDS,
    REGRESSORS,
    FrozenBatchNorm2d,
    count_parameters,
    make_regressor,
    measure_statistics,
)

SMALL = ["lite", "resnet18"]
PARAMETERS = {"resnet50": 23_638_206, "resnet34": 21_319_614, "resnet18": 11_211_454}


def pictures(count: int, seed: int = 0, device: torch.device | str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 4, 120, 120, generator=generator) * 2 - 1).to(device)


def seeded(name: str, norm: str = "batch") -> nn.Module:
    torch.manual_seed(0)
    return make_regressor(name, norm=norm)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_batch_becomes_coefficients(name: str, device: torch.device) -> None:
    network = seeded(name).eval().to(device)
    with torch.inference_mode():
        output = network(pictures(2, device=device))
    assert output.shape == (2, 62)
    assert output.dtype == torch.float32
    assert bool(torch.isfinite(output).all())
    assert float((output[0] - output[1]).abs().max()) > 0, "the output does not depend on the input"


@pytest.mark.parametrize(("name", "count"), PARAMETERS.items())
def test_resnets_have_the_parameters_of_the_paper(name: str, count: int) -> None:
    assert count_parameters(make_regressor(name)) == count


def test_lite_is_small() -> None:
    assert count_parameters(make_regressor("lite")) <= 1_500_000


def test_parameter_names_are_torchvisions() -> None:
    """Written out here from the rules of torchvision's naming, not from our classes."""
    expected = ["conv1.weight", *batch_norm("bn1")]
    for stage, depth in enumerate((3, 4, 6, 3), 1):
        for block in range(depth):
            prefix = f"layer{stage}.{block}."
            for number in (1, 2, 3):
                expected += [f"{prefix}conv{number}.weight", *batch_norm(f"{prefix}bn{number}")]
            if block == 0:
                expected += [f"{prefix}downsample.0.weight", *batch_norm(f"{prefix}downsample.1")]
    expected += ["fc.weight", "fc.bias"]
    state = make_regressor("resnet50").state_dict()
    assert list(state) == expected
    assert state["conv1.weight"].shape == (64, 4, 7, 7)
    assert state["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)
    assert state["fc.weight"].shape == (62, 2048)


def batch_norm(name: str) -> list[str]:
    return [f"{name}.{entry}" for entry in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


def test_the_last_stage_keeps_its_resolution() -> None:
    network = seeded("resnet18").eval()
    sizes = []
    for stage in (network.maxpool, network.layer1, network.layer2, network.layer3, network.layer4, network.avgpool):
        stage.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape[2:])))
    network(pictures(1))
    assert sizes == [(30, 30), (30, 30), (15, 15), (8, 8), (8, 8), (1, 1)]


@pytest.mark.parametrize("norm", NORM_KINDS)
@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name: str, norm: str) -> None:
    network = seeded(name, norm)
    inputs = pictures(4).requires_grad_()
    network(inputs).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert float(parameter.grad.abs().max()) > 0, key
    assert float(inputs.grad[:, 3].abs().max()) > 0, "no gradient reaches the landmark map"


@pytest.mark.parametrize("name", SMALL)
def test_a_new_regressor_starts_near_the_mean_face(name: str) -> None:
    network = seeded(name)  # in training mode: normalised by the batch
    with torch.no_grad():
        assert float(network(pictures(8)).abs().max()) < 1  # in standard deviations


def test_lite_learns_a_few_pictures_by_heart() -> None:
    network = seeded("lite")
    inputs, target = pictures(8), torch.randn(8, 62, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = (network(inputs) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("name", SMALL)
def test_state_survives_a_round_trip(name: str) -> None:
    network, again = seeded(name), make_regressor(name)
    network(pictures(4))  # moves the statistics
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(network.eval()(pictures(2)), again.eval()(pictures(2)))


def test_lite_knows_where_things_are() -> None:
    """A head that averages positions away could not tell a face from the same one elsewhere, far from the border."""
    network = seeded("lite").eval()
    inputs = torch.zeros(2, 4, 120, 120)
    inputs[0, :, 40:56, 40:56] = 1
    inputs[1, :, 72:88, 72:88] = 1  # 32 pixels further: the same place of every layer's grid
    with torch.inference_mode():
        last = network.stages(network.stem(inputs))
        output = network(inputs)
    assert float((output[0] - output[1]).norm() / output[0].norm()) > 0.1
    assert last.shape == (2, 128, 4, 4)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_lite_takes_any_memory_format(memory_format: torch.memory_format) -> None:
    network, inputs = seeded("lite").eval(), pictures(3)
    with torch.inference_mode():
        expected = network(inputs)
        found = network.to(memory_format=memory_format)(inputs.contiguous(memory_format=memory_format))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


# ----------------------------------------------------------------------------------------------- normalisation
def test_batch_normalisation_depends_on_the_batch() -> None:
    network, inputs = seeded("lite"), pictures(6)
    with torch.no_grad():
        assert float((network(inputs)[:3] - network(inputs[:3])).abs().max()) > 1e-4


@pytest.mark.parametrize("norm", ["group", "frozen"])
@pytest.mark.parametrize("name", SMALL)
def test_group_and_frozen_do_not_depend_on_the_batch(name: str, norm: str) -> None:
    network, inputs = seeded(name, norm), pictures(6)
    assert network.training
    with torch.no_grad():
        whole, part = network(inputs), network(inputs[:3])
    torch.testing.assert_close(whole[:3], part, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["group", "frozen"])
def test_training_and_evaluation_compute_the_same(norm: str) -> None:
    network = seeded("lite", norm)
    with torch.no_grad():
        training, evaluation = network.train()(pictures(2)), network.eval()(pictures(2))
    assert torch.equal(training, evaluation)


def test_frozen_statistics_stay_and_scales_are_learnt() -> None:
    network = seeded("lite", "frozen")
    before = copy.deepcopy(network.state_dict())
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    network.train()(pictures(4)).square().sum().backward()
    optimiser.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("running" in name or "tracked" in name for name in changed)
    assert changed == {name for name, _ in network.named_parameters()}


def test_frozen_has_the_entries_of_batch_and_computes_its_evaluation() -> None:
    batch, frozen = seeded("resnet18"), make_regressor("resnet18", norm="frozen")
    batch(pictures(4))
    assert list(batch.state_dict()) == list(frozen.state_dict())
    frozen.load_state_dict(batch.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(frozen.train()(pictures(2)), batch.eval()(pictures(2)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REGRESSORS)
def test_groups_are_not_too_small(name: str) -> None:
    for module in make_regressor(name, norm="group").modules():
        assert not isinstance(module, nn.BatchNorm2d)
        if isinstance(module, nn.GroupNorm):
            assert module.num_channels // module.num_groups >= 8
            assert module.num_groups in (32, module.num_channels // 8)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_measured_statistics_are_those_of_the_inputs(norm: str) -> None:
    """Every layer's output then has mean 0 and variance 1 per channel, over the inputs that were measured."""
    network, inputs = seeded("lite", norm), pictures(16)
    network.train()
    measure_statistics(network, [inputs])
    assert network.training
    found = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert isinstance(module, FrozenBatchNorm2d) == (norm == "frozen")
            module.register_forward_hook(lambda layer, arguments, output: found.append(output.clone()))
    with torch.no_grad():
        network.eval()(inputs)
    assert len(found) > 5
    for output in found:
        # Not exactly: the stored variances are the unbiased ones, as torch's are.
        assert float(output.mean(dim=(0, 2, 3)).abs().max()) < 1e-2
        assert float((output.var(dim=(0, 2, 3)) - 1).abs().max()) < 2e-2


def test_measured_statistics_average_over_batches() -> None:
    network = seeded("lite")
    batches = [pictures(4, seed) for seed in range(3)]
    measure_statistics(network, batches)
    convolution, layer = network.stem[0], network.stem[1]
    with torch.no_grad():
        means = torch.stack([convolution(batch).mean(dim=(0, 2, 3)) for batch in batches])
    torch.testing.assert_close(layer.running_mean, means.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_measuring_needs_inputs() -> None:
    with pytest.raises(ValueRangeError, match="batches: found none"):
        measure_statistics(make_regressor("lite"), [])


# ----------------------------------------------------------------------------------------------- wrong choices
def test_wrong_names_are_answered_with_the_choices() -> None:
    with pytest.raises(ValueRangeError, match=r"name: found 'resnet51'; expected one of resnet18, .*lite"):
        make_regressor("resnet51")
    with pytest.raises(ValueRangeError, match="norm: found 'layer'; expected one of batch, group, frozen"):
        make_regressor("lite", norm="layer")
    with pytest.raises(ValueRangeError, match="num_outputs: found 0"):
        make_regressor("lite", num_outputs=0)


@pytest.mark.parametrize("shape", [(4, 120, 120), (1, 3, 120, 120), (1, 4, 224, 224)])
@pytest.mark.parametrize("name", SMALL)
def test_wrong_inputs_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"inputs: found shape .*expected \(B, 4, 120, 120\)"):
        make_regressor(name)(torch.zeros(shape))
