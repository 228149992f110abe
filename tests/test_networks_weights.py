"""Weights from and to files: matching weights are loaded exactly, others are rejected by name."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.networks import (
    load_imagenet,
    load_regressor,
    load_released,
    make_regressor,
    save_regressor,
    unwrap,
)
from twodasl_lite.networks.weights import IMAGENET_MEAN, IMAGENET_STD


class Bomb:
    """Unpickling this would create a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
    """Statistics, scales and shifts that are all different, so that nothing mixed up goes unnoticed."""
    torch.nn.init.normal_(network.fc.weight, std=0.1, generator=torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value, low, high in (
                    (module.running_mean, -0.2, 0.2),
                    (module.running_var, 0.5, 2.0),
                    (module.weight, 0.5, 1.0),
                    (module.bias, -0.2, 0.2),
                ):
                    value.uniform_(low, high, generator=generator)
    return network.eval()


def pictures(count: int = 2) -> torch.Tensor:
    """Smooth, with other colours in every picture."""
    coarse = torch.randn(count, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    return functional.interpolate(coarse, size=120, mode="bilinear")


# ----------------------------------------------------------------------------------------------- released checkpoints
@pytest.fixture(scope="module")
def original() -> nn.Module:
    """A network as the authors' code would hold it: fed with BGR."""
    torch.manual_seed(0)
    return randomise(make_regressor("resnet50"))


def released_state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {f"module.{name}": value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(("zipped", "norm"), [(False, "batch"), (True, "frozen")])
def test_released_layout_gives_the_same_output_on_permuted_inputs(tmp_path, original, zipped, norm) -> None:
    path = tmp_path / "stage.pth.tar"
    content = {"epoch": 30, "res_state_dict": released_state(original)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)  # the released files are of the older kind
    network = load_released(path, norm)
    assert (network.name, network.norm, network.training) == ("resnet50", norm, False)
    bgr = pictures()
    rgb = bgr[:, [2, 1, 0, 3]]
    with torch.inference_mode():
        expected, found = original(bgr), network(rgb)
        assert float((network(bgr) - expected).abs().max()) > 1e-3, "the order of the channels makes no difference"
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_released_files_without_counters_load(tmp_path, original) -> None:
    state = {name: value for name, value in released_state(original).items() if "num_batches" not in name}
    torch.save({"res_state_dict": state}, tmp_path / "old.pth.tar")
    network = load_released(tmp_path / "old.pth.tar")
    assert torch.equal(network.layer4[2].conv3.weight, original.layer4[2].conv3.weight)
    assert int(network.bn1.num_batches_tracked) == 0


def drop(state):
    del state["module.layer2.1.bn2.weight"]


def add(state):
    state["module.layer5.0.conv1.weight"] = torch.zeros(1)


def reshape(state):
    state["module.conv1.weight"] = state["module.conv1.weight"][:, :3]


def break_value(state):
    state["module.fc.bias"][3] = float("nan")


def retype(state):
    state["module.fc.bias"] = state["module.fc.bias"].long()


def no_tensor(state):
    state["module.fc.bias"] = [1.0, 2.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"no entry layer2\.1\.bn2\.weight; expected the entries of resnet50"),
        (add, r"unknown entries layer5\.0\.conv1\.weight; expected the entries of resnet50"),
        (reshape, r"conv1\.weight of shape \(64, 3, 7, 7\); expected shape \(64, 4, 7, 7\)"),
        (break_value, r"NaN or infinite values in fc\.bias"),
        (retype, r"fc\.bias of type torch\.int64; expected type torch\.float32"),
        (no_tensor, r"a list under 'module\.fc\.bias'"),
    ],
)
def test_wrong_entries_are_named(tmp_path, original, change, message) -> None:
    state = released_state(original)
    change(state)
    torch.save({"res_state_dict": state}, tmp_path / "wrong.pth.tar")
    with pytest.raises(FileFormatError, match=rf"wrong\.pth\.tar: found {message}"):
        load_released(tmp_path / "wrong.pth.tar")


def test_another_kind_of_checkpoint_is_named(tmp_path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "other.pth.tar")
    with pytest.raises(FileFormatError, match=r'a dict with state_dict; expected .* with "res_state_dict"'):
        load_released(tmp_path / "other.pth.tar")
    torch.save([torch.zeros(1)], tmp_path / "other.pth.tar")
    with pytest.raises(FileFormatError, match="found a list; expected"):
        load_released(tmp_path / "other.pth.tar")


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_hostile_pickle_is_refused_unopened(tmp_path, form) -> None:
    path, crater = tmp_path / "hostile.pth.tar", tmp_path / "crater"
    if form == "bare":
        path.write_bytes(pickle.dumps({"res_state_dict": Bomb(crater)}))
    else:
        torch.save({"res_state_dict": Bomb(crater)}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(FileFormatError, match=r"hostile\.pth\.tar: found something other than tensors"):
        load_released(path)
    assert not crater.exists()


def test_a_tar_archive_is_refused(tmp_path) -> None:
    path = tmp_path / "tar.pth.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(FileFormatError, match="found a tar archive"):
        load_released(path)


def test_damaged_and_missing_files_are_named(tmp_path) -> None:
    path = tmp_path / "short.pth.tar"
    torch.save({"res_state_dict": {"module.a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(FileFormatError, match=r"short\.pth\.tar: found (a damaged file|something other)"):
        load_released(path)
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"short\.pth\.tar: found a damaged file"):
        load_released(path)
    with pytest.raises(FileFormatError, match="found no such file; expected a checkpoint of 2DASL"):
        load_released(tmp_path / "absent.pth.tar")
    with pytest.raises(FileFormatError, match="found a folder"):
        load_released(tmp_path)


def test_group_normalisation_has_no_statistics_to_load(tmp_path) -> None:
    with pytest.raises(ValueRangeError, match="norm: found 'group'"):
        load_released(tmp_path / "x.pth.tar", "group")
    with pytest.raises(ValueRangeError, match="norm: found 'group'"):
        load_imagenet(make_regressor("resnet18", norm="group"), tmp_path / "x.pth")


# ----------------------------------------------------------------------------------------------- ImageNet weights
@pytest.fixture
def imagenet() -> dict[str, torch.Tensor]:
    """The entries of a torchvision ResNet-18: three input channels, a thousand classes."""
    torch.manual_seed(1)
    state = dict(randomise(make_regressor("resnet18", num_outputs=1000), seed=1).state_dict())
    state["conv1.weight"] = state["conv1.weight"][:, :3].contiguous()
    return state


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_imagenet_stem_computes_the_same_inside_the_picture(tmp_path, imagenet, norm) -> None:
    torch.save(imagenet, tmp_path / "resnet18.pth")
    network = make_regressor("resnet18", norm=norm)
    head = network.fc.weight.clone()
    load_imagenet(network, tmp_path / "resnet18.pth")
    network.eval()
    pixels = torch.randint(0, 256, (2, 3, 120, 120), generator=torch.Generator().manual_seed(0)).float()
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    theirs = functional.conv2d((pixels / 255 - mean) / std, imagenet["conv1.weight"], stride=2, padding=3)
    entries = ("running_mean", "running_var", "weight", "bias")
    theirs = functional.batch_norm(theirs, *(imagenet[f"bn1.{entry}"] for entry in entries))
    maps = torch.where(torch.rand(2, 1, 120, 120) > 0.99, 1.0, -1.0)  # whatever the map shows
    with torch.inference_mode():
        ours = network.bn1(network.conv1(torch.cat([(pixels - 127.5) / 128, maps], dim=1)))
    torch.testing.assert_close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], rtol=1e-4, atol=1e-4)
    assert torch.equal(network.fc.weight, head)
    assert torch.equal(network.layer4[1].conv2.weight, imagenet["layer4.1.conv2.weight"])


def test_the_map_channel_starts_at_zero_and_learns(tmp_path, imagenet) -> None:
    torch.save(imagenet, tmp_path / "resnet18.pth")
    network = make_regressor("resnet18")
    load_imagenet(network, tmp_path / "resnet18.pth")
    assert float(network.conv1.weight[:, 3].abs().max()) == 0
    network.train()(pictures()).square().sum().backward()
    assert float(network.conv1.weight.grad[:, 3].abs().max()) > 0


def test_imagenet_weights_of_another_depth_are_refused(tmp_path, imagenet) -> None:
    torch.save(imagenet, tmp_path / "resnet18.pth")
    with pytest.raises(FileFormatError, match=r"resnet18\.pth: found no entry layer1\.2\.conv1\.weight"):
        load_imagenet(make_regressor("resnet34"), tmp_path / "resnet18.pth")
    with pytest.raises(ValueRangeError, match="found LiteRegressor; expected a ResNet"):
        load_imagenet(make_regressor("lite"), tmp_path / "resnet18.pth")


def test_a_refused_file_changes_nothing(tmp_path, imagenet) -> None:
    imagenet["layer4.1.bn2.bias"][0] = float("inf")
    torch.save(imagenet, tmp_path / "bad.pth")
    network = make_regressor("resnet18")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(FileFormatError, match=r"NaN or infinite values in layer4\.1\.bn2\.bias"):
        load_imagenet(network, tmp_path / "bad.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_imagenet_stem_must_have_three_channels(tmp_path, imagenet) -> None:
    imagenet["conv1.weight"] = torch.zeros(64, 4, 7, 7)
    torch.save(imagenet, tmp_path / "four.pth")
    with pytest.raises(FileFormatError, match=r"conv1\.weight of shape \(64, 4, 7, 7\)"):
        load_imagenet(make_regressor("resnet18"), tmp_path / "four.pth")


# ----------------------------------------------------------------------------------------------- our own files
def whitening(size: int = 62) -> Whitening:
    generator = torch.Generator().manual_seed(3)
    return Whitening(torch.randn(size, generator=generator), torch.rand(size, generator=generator) + 0.1)


@pytest.mark.parametrize("norm", ["batch", "group", "frozen"])
def test_a_regressor_comes_back_whole(tmp_path, norm) -> None:
    path = tmp_path / "deep" / "lite.safetensors"
    network = randomise(make_regressor("lite", norm=norm)).to(memory_format=torch.channels_last)
    facts = {"map_kind": "gaussian", "face_model": {"name": "embedded"}, "figures": {"nme": 0.031}, "note": "ä"}
    save_regressor(path, network.train(), whitening(), facts)
    assert network.training
    again, white, metadata = load_regressor(path)
    assert not again.training
    with torch.inference_mode():
        assert torch.equal(again(pictures()), network.eval()(pictures()))
    assert torch.equal(white.mean, whitening().mean)
    assert torch.equal(white.std, whitening().std)
    assert metadata == {**facts, "name": "lite", "norm": norm, "num_outputs": 62, "layout": [40, 10], "pose": "free"}
    assert load_regressor(path).pose == "free"
    assert load_regressor(path).layout == CoefficientLayout(40, 10)
    assert os.listdir(path.parent) == ["lite.safetensors"]


def test_other_layouts_are_kept(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    facts = {"map_kind": "binary", "layout": CoefficientLayout(5, 3)}
    save_regressor(path, make_regressor("lite", num_outputs=20), whitening(20), facts)
    loaded = load_regressor(path)
    assert loaded.layout == CoefficientLayout(5, 3)
    assert loaded.network.num_outputs == 20


def test_wrapped_networks_are_unwrapped(tmp_path) -> None:
    network = make_regressor("lite")
    compiled = torch.compile(network)  # compiles nothing until it is called
    wrapper = nn.Module()
    wrapper.module = compiled  # as DistributedDataParallel does
    assert unwrap(wrapper) is network
    save_regressor(tmp_path / "x.safetensors", wrapper, whitening(), {"map_kind": "binary"})
    assert load_regressor(tmp_path / "x.safetensors").metadata["name"] == "lite"
    with pytest.raises(ValueRangeError, match="network: found Linear"):
        unwrap(nn.Linear(1, 1))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.safetensors"
    save_regressor(path, make_regressor("lite"), whitening(), {"map_kind": "binary", "number": 1})

    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_regressor(path, make_regressor("lite"), whitening(), {"map_kind": "binary", "number": 2})
    assert os.listdir(tmp_path) == ["x.safetensors"]
    assert load_regressor(path).metadata["number"] == 1


@pytest.mark.parametrize(
    ("facts", "size", "error", "message"),
    [
        ({}, 62, ValueRangeError, "found map_kind none; expected one of binary, gaussian"),
        ({"map_kind": "round"}, 62, ValueRangeError, "found map_kind 'round'"),
        ({"map_kind": "binary", "layout": "wide"}, 62, ValueRangeError, "found layout 'wide'"),
        ({"map_kind": "binary", "pose": "upright"}, 62, ValueRangeError, "found pose 'upright'; expected one of free"),
        ({"map_kind": "binary", "layout": [5, 3]}, 62, ShapeError, "num_outputs 62, whitening 62, layout 20"),
        ({"map_kind": "binary"}, 20, ShapeError, "num_outputs 62, whitening 20, layout 62"),
        ({"map_kind": "binary", "nme": float("nan")}, 62, ValueRangeError, "a value that JSON cannot hold"),
        ({"map_kind": "binary", "path": Path()}, 62, ValueRangeError, "a value that JSON cannot hold"),
    ],
)
def test_facts_that_cannot_be_kept_are_refused(tmp_path, facts, size, error, message) -> None:
    with pytest.raises(error, match=message):
        save_regressor(tmp_path / "x.safetensors", make_regressor("lite"), whitening(size), facts)
    assert os.listdir(tmp_path) == []


def rewritten(path: Path, change) -> None:
    """The file again, with its tensors and header changed."""
    with safetensors.safe_open(path, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
    facts = json.loads(header["metadata"])
    change(tensors, header, facts)
    if "metadata" in header:
        header["metadata"] = json.dumps(facts)
    safetensors.torch.save_file(tensors, path, metadata=header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, h, f: t.pop("network.fc.bias"), r"no entry fc\.bias; expected the entries of lite"),
        (lambda t, h, f: t.update({"network.x": torch.zeros(1)}), r"unknown entries x; expected"),
        (lambda t, h, f: t.update({"network.fc.bias": torch.zeros(61)}), r"fc\.bias of shape \(61,\)"),
        (lambda t, h, f: t["network.fc.bias"].fill_(float("nan")), r"NaN or infinite values in fc\.bias"),
        (lambda t, h, f: t.pop("whitening.std"), r"an unusable header or whitening \(no 'whitening\.std'\)"),
        (lambda t, h, f: t["whitening.std"].zero_(), r"an unusable header or whitening \(std: found 0\.0"),
        (lambda t, h, f: f.update(name="huge"), r"an unusable header or whitening \(name: found 'huge'"),
        (lambda t, h, f: f.update(norm="none"), r"an unusable header or whitening \(norm: found 'none'"),
        (lambda t, h, f: f.update(layout=[1, 1]), r"an unusable header or whitening \(found sizes"),
        (lambda t, h, f: f.pop("map_kind"), r"an unusable header or whitening \(metadata: found map_kind none"),
        (lambda t, h, f: h.update(version="2"), r"twodasl_lite\.regressor, version 2; expected .* version 1"),
        (lambda t, h, f: h.pop("format"), r"no format, version 1; expected a twodasl_lite\.regressor file"),
        (lambda t, h, f: h.pop("metadata"), r"an unusable header or whitening \(no 'metadata'\)"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, change, message) -> None:
    path = tmp_path / "changed.safetensors"
    save_regressor(path, make_regressor("lite"), whitening(), {"map_kind": "binary"})
    rewritten(path, change)
    with pytest.raises(FileFormatError, match=rf"changed\.safetensors: found {message}"):
        load_regressor(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps({"a": 1}), b"\xff" * 64])
def test_files_of_another_kind_are_named(tmp_path, content) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"other\.safetensors: found a damaged file or one of another kind"):
        load_regressor(path)


def test_truncated_and_missing_files_are_named(tmp_path) -> None:
    path = tmp_path / "short.safetensors"
    save_regressor(path, make_regressor("lite"), whitening(), {"map_kind": "binary"})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FileFormatError, match=r"short\.safetensors: found a damaged file"):
        load_regressor(path)
    with pytest.raises(FileFormatError, match="found no such file"):
        load_regressor(tmp_path / "absent.safetensors")
    with pytest.raises(FileFormatError, match="found a folder"):
        load_regressor(tmp_path)


def test_the_same_weights_are_the_same_bytes(tmp_path) -> None:
    network, path = randomise(make_regressor("lite")), tmp_path / "a.safetensors"
    contents = set()
    for order in (1, -1, 1, -1):  # the library's own order of the metadata is another each time
        facts = {"map_kind": "binary", "zebra": 1, "ant": {"b": 2, "a": "ä"}}
        save_regressor(path, network, whitening(), dict(list(facts.items())[::order]))
        contents.add(path.read_bytes())
    (content,) = contents
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    names = list(json.loads(content[8 : 8 + size]))
    assert names == sorted(names)
    loaded = load_regressor(path)
    assert loaded.metadata["ant"] == {"b": 2, "a": "ä"}
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value), name
