"""Photographs with marked points as a source of 2D-only pictures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from tests import test_data_aflw as crops
from tests.benchmark_files import Benchmark
from tests.training_runs import random_faces, small_face, small_run
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import landmark_map
from twodasl_lite.training.config import SourceConfig, load_config
from twodasl_lite.training.pictures import face_model_of, pictures
from twodasl_lite.training.steps import make_inputs
from twodasl_lite.worlds.draws import Draws

written = crops.written


@pytest.fixture
def clone(tmp_path, written):
    """Crops and test set in one folder, as a user has them."""
    Benchmark().write_clone(tmp_path / "benchmark")
    shutil.copytree(tmp_path / "benchmark", written[0], dirs_exist_ok=True)
    return written[0]


def source(path, **changes) -> SourceConfig:
    return SourceConfig(kind="aflw", path=str(path), count=100, **changes)


def test_photos_are_those_that_are_not_in_the_test_set(clone) -> None:
    batch = pictures(source(clone), small_face(), truth=False)
    assert batch.size == 2  # the two test names, the copy, the unreadable and the uncertain one are out
    assert batch.coefficients is None
    assert batch.landmarks is None
    np.testing.assert_allclose(batch.yaw, np.linspace(-80, 80, len(crops.NAMES))[[3, 5]], atol=1e-4)
    assert torch.equal(batch.detected_visible, torch.isfinite(batch.detected[..., 0]))
    assert pictures(source(clone, start=1), small_face(), truth=False).size == 1


def test_photos_have_no_3d_labels(clone) -> None:
    with pytest.raises(TwodaslError, match="found photos without coefficients; expected labelled pictures"):
        pictures(source(clone), small_face(), truth=True)


def test_a_missing_clone_is_named(tmp_path) -> None:
    with pytest.raises(FileFormatError, match="nowhere"):
        pictures(source(tmp_path / "nowhere"), small_face(), truth=False)


def test_maps_show_a_detectors_points_and_losses_take_the_marked_ones() -> None:
    points = torch.rand(40, 18, 2, generator=torch.Generator().manual_seed(0)) * 80 + 20
    visible = torch.rand(40, 18, generator=torch.Generator().manual_seed(1)) < 0.8
    points = torch.where(visible[..., None], points, torch.nan)
    images = torch.zeros(40, 3, 120, 120, dtype=torch.uint8)
    batch = FaceBatch(images, points, visible, yaw=torch.linspace(-90, 90, 40))
    config = load_config("photos/all", ["network.map=binary"])
    dropped = torch.zeros(40, dtype=torch.bool)
    exact = make_inputs(batch, dropped, config)
    noisy = make_inputs(batch, dropped, config, Draws(0, torch.arange(40)))
    assert torch.equal(exact.inputs[:, 3:], landmark_map(points, visible, 120, config.network.map))
    assert not torch.equal(noisy.inputs[:, 3:], exact.inputs[:, 3:])
    assert torch.equal(noisy.batch.detected.nan_to_num(), points.nan_to_num())
    # No point appears that nobody marked.
    drawn = ((noisy.inputs[:, 3] > 0).sum(dim=(1, 2))).tolist()
    assert all(count <= marked for count, marked in zip(drawn, visible.sum(dim=1).tolist(), strict=True))
    other = make_inputs(batch, dropped, config, Draws(1, torch.arange(40)))
    assert not torch.equal(noisy.inputs, other.inputs)


def test_a_detectors_points_get_no_second_noise() -> None:
    with pytest.raises(ValueRangeError, match="map_noise: found true for kind"):
        SourceConfig(world="wild", map_noise=True)


def test_a_step_on_photographs(clone, tmp_path) -> None:
    changes = {
        "unlabelled": {"kind": "aflw", "path": str(clone), "world": "", "batch_size": 4, "map_noise": True}
        | {"augment": {"shift": 3.0, "turn": 10.0}}
    }
    run = small_run(tmp_path / "run", {"data": changes})
    photos = pictures(run.config.data.unlabelled, small_face(), truth=False)
    parts = run.train_step(random_faces(small_face(), 4, 1), photos)
    assert all(np.isfinite(float(value)) for value in parts.values())


def test_the_face_model_of_a_run(tmp_path) -> None:
    face = tmp_path / "face.npz"
    small_face().save(face)
    model = face_model_of(load_config("photos/all", [f"data.face_model={json.dumps(str(face))}"]))
    assert isinstance(model, MorphableModel)
    assert model.num_vertices == small_face().num_vertices
    with pytest.raises(FileFormatError, match=r"gone\.npz"):
        face_model_of(load_config("photos/all", ["data.face_model=gone.npz"]))
