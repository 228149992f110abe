"""3DDFA's training set: a folder of crops, a list, a pickle."""

from __future__ import annotations

import itertools
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.conftest import make_model
from tests.real_sets import NOSE, bright_spot, crop_of, dotted, raw_model, write_whitening
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.datasets.stream import SetStream
from twodasl_lite.datasets.tddfa import LIST_TRAIN, PARAMS_TRAIN, TDDFACrops
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.readers.safe_pickle import load_pickle
from twodasl_lite.geometry.coefficients import CoefficientLayout

COUNT = 5


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    raw_model(tmp_path / "train.configs")
    return tmp_path / "train.configs"


@pytest.fixture
def model(configs: Path) -> MorphableModel:
    return raw_model(configs)


@pytest.fixture
def crops(configs: Path, model: MorphableModel) -> Path:
    """The set beside its files; in each picture a dot marks the nose."""
    folder = configs.parent / "train_aug_120x120"
    folder.mkdir()
    mean, std = write_whitening(configs / "param_whitening.pkl")
    whitened = np.random.default_rng(1).normal(0, 0.7, (COUNT, 62)).astype(np.float32)
    names = [f"AFLW_GT_{k}-1.jpg" for k in range(COUNT)]
    for name, vector in zip(names, whitened, strict=True):
        raw = torch.from_numpy(vector * std + mean)
        raw[[0, 1, 2, 4, 5, 6, 8, 9, 10]] *= 1000  # for millimetres
        image = dotted(crop_of(raw, model), 120)
        cv2.imwrite(str(folder / name), image, [cv2.IMWRITE_JPEG_QUALITY, 98])
    (configs / LIST_TRAIN).write_text("\n".join(names) + "\n")
    (configs / PARAMS_TRAIN).write_bytes(pickle.dumps(whitened, 2))
    return folder


def load(crops: Path, configs: Path, model: MorphableModel, **options) -> TDDFACrops:
    return TDDFACrops(crops, configs / LIST_TRAIN, configs / PARAMS_TRAIN, model, **options)


def test_pictures_and_coefficients_fit(crops: Path, configs: Path, model: MorphableModel) -> None:
    faces = load(crops, configs, model)
    assert (len(faces), faces.problems) == (COUNT, [])
    batch = faces.take(torch.arange(COUNT))
    for row in range(COUNT):
        spot = torch.tensor(bright_spot(batch.images[row]))
        torch.testing.assert_close(spot, batch.landmarks[row, NOSE, :2], atol=0.15, rtol=0)
    assert batch.coefficients.shape == (COUNT, 62)
    assert batch.landmarks[..., 2].mean(dim=1).abs().max() < 1e-2


def test_the_unit_of_the_model_changes_nothing(crops: Path, configs: Path) -> None:
    from twodasl_lite.faces import read_face_model

    found = [load(crops, configs, read_face_model(configs, units=units)) for units in ("um", "mm")]
    one, other = (faces.take(torch.arange(COUNT)) for faces in found)
    torch.testing.assert_close(one.landmarks, other.landmarks, atol=2e-2, rtol=0)


def test_whitening_from_elsewhere_and_further_columns(crops: Path, configs: Path, model, tmp_path: Path) -> None:
    expected = load(crops, configs, model).coefficients
    (configs / "param_whitening.pkl").rename(tmp_path / "whitening.pkl")
    content = load_pickle(configs / PARAMS_TRAIN)
    wider = np.concatenate([content, np.ones((COUNT, 40))], axis=1)  # with 40 numbers for colours
    (configs / PARAMS_TRAIN).write_bytes(pickle.dumps(wider))
    found = load(crops, configs, model, whitening=tmp_path / "whitening.pkl").coefficients
    torch.testing.assert_close(found, expected)
    with pytest.raises(FileFormatError, match=r"param_whitening.pkl: found no such file"):
        load(crops, configs, model)


def test_missing_pictures_are_named_and_the_rest_keeps_its_rows(crops: Path, configs: Path, model) -> None:
    whole = load(crops, configs, model)
    (crops / "AFLW_GT_1-1.jpg").unlink()
    told = []
    faces = load(crops, configs, model, report=told.append)
    assert told == [f"{crops / 'AFLW_GT_1-1.jpg'}: found no such file; expected a crop"]
    torch.testing.assert_close(faces.coefficients, whole.coefficients[[0, 2, 3, 4]])
    assert faces.take([1]).images.equal(whole.take([2]).images)
    with pytest.raises(FileFormatError, match=r"AFLW_GT_1-1.jpg: found no such file"):
        load(crops, configs, model, check=False).take(torch.arange(COUNT))
    for path in crops.iterdir():
        path.unlink()
    with pytest.raises(FileFormatError, match=f"none of the {COUNT} pictures"):
        load(crops, configs, model)


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/should-not-exist",)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (np.zeros((COUNT - 1, 62)), r"an array of shape \(4, 62\); expected an array of 5 rows"),
        (np.zeros((COUNT, 61)), r"shape \(5, 61\)"),
        (np.zeros((COUNT, 62), int), r"shape \(5, 62\)"),
        (np.full((COUNT, 62), np.nan), "NaN or infinity in 5 rows, first in 0"),
        ({"params": 1}, "dict"),
        (Command(), r"the name posix.system, which was not looked up or called"),
    ],
)
def test_bad_parameters(crops: Path, configs: Path, model: MorphableModel, content, found: str) -> None:
    (configs / PARAMS_TRAIN).write_bytes(pickle.dumps(content))
    with pytest.raises(FileFormatError, match=found):
        load(crops, configs, model)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "found no name"),
        ("a.jpg\n\nb.jpg\n", "'' in line 2"),
        ("a.jpg\n../../secret.jpg\n", r"'../../secret.jpg' in line 2; expected a name within the folder"),
        ("/etc/passwd\n", "'/etc/passwd' in line 1"),
    ],
)
def test_bad_lists(crops: Path, configs: Path, model: MorphableModel, text: str, found: str) -> None:
    (configs / LIST_TRAIN).write_text(text)
    with pytest.raises(FileFormatError, match=found):
        load(crops, configs, model)
    (configs / LIST_TRAIN).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match="not UTF-8"):
        load(crops, configs, model)
    (configs / LIST_TRAIN).unlink()
    with pytest.raises(FileFormatError, match=r"list.train: found no such file"):
        load(crops, configs, model)


def test_bad_pictures_models_and_folders(crops: Path, configs: Path, model: MorphableModel) -> None:
    faces = load(crops, configs, model)
    cv2.imwrite(str(crops / faces.names[2]), np.zeros((120, 100, 3), np.uint8))
    with pytest.raises(FileFormatError, match=r"AFLW_GT_2-1.jpg: found a picture of 100x120 pixels"):
        faces.take([2])
    with pytest.raises(FileFormatError, match="found no such folder"):
        load(crops / "nowhere", configs, model)
    with pytest.raises(ValueRangeError, match=r"found 30 \+ 10 coefficients; expected 3DDFA's 40 \+ 10"):
        load(crops, configs, model.with_layout(CoefficientLayout(30, 10)))
    with pytest.raises(ValueRangeError, match="expected the Basel Face Model with raw coefficients"):
        load(crops, configs, make_model())


def test_as_a_stream(crops: Path, configs: Path, model: MorphableModel) -> None:
    faces = load(crops, configs, model)
    batches = list(itertools.islice(SetStream(faces).batches(COUNT), 2))
    for batch in batches:
        assert sorted(batch.yaw.tolist()) == sorted(faces.yaw.tolist())
