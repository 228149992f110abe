"""The committed numbers of chapter 15: always well formed, and correct if the data of the measurement is available."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
import torch

from twodasl_lite.datasets.aflw2000 import read_aflw2000, read_basel_landmarks
from twodasl_lite.evaluation import summarise
from twodasl_lite.evaluation.benchmark import DEPTH_MEASURE, MAIN, evaluate, release_predictions
from twodasl_lite.evaluation.predictions import Predictions

COMMITTED = json.loads((resources.files("twodasl_lite") / "assets" / "aflw2000_errors.json").read_text("utf-8"))
PLACE = {number: k for k, number in enumerate(COMMITTED["names"])}


def errors(name: str) -> torch.Tensor:
    return COMMITTED["unit"] * torch.tensor(COMMITTED["2dasl"][name], dtype=torch.float64)


def test_the_file_says_where_it_comes_from() -> None:
    assert "XgTu/2DASL, commit " in COMMITTED["file"]
    assert COMMITTED["how"].startswith("python benchmarks/")
    assert len(COMMITTED["date"]) == len("2026-01-01")


def test_one_error_and_one_yaw_per_face() -> None:
    assert len(PLACE) == len(COMMITTED["yaw"]) == 1998
    assert not set(COMMITTED["missing"]) & set(PLACE)
    assert all(len(values) == 1998 for values in COMMITTED["2dasl"].values())
    assert len(COMMITTED["3ddfa_v2"]["names"]) == len(COMMITTED["3ddfa_v2"]["bench"]) == 400
    assert set(COMMITTED["3ddfa_v2"]["names"]) <= set(PLACE)


@pytest.mark.parametrize(
    ("mapping", "expected"), [("bench", [2.671, 3.605, 4.659, 3.645]), ("exact", [2.647, 3.397, 4.455, 3.500])]
)
def test_the_tables_follow_from_the_errors(mapping: str, expected: list[float]) -> None:
    table = summarise(errors(mapping), torch.tensor(COMMITTED["yaw"]), intervals=False)
    found = [100 * value for value in table.values()]
    np.testing.assert_allclose(found, COMMITTED["tables"][f"2DASL, {mapping}"], atol=1e-3)
    np.testing.assert_allclose(found[:4], expected, atol=1e-3)
    assert table.counts == (1311, 383, 304)


def test_the_errors_of_400_faces_are_measured_again(data_root) -> None:
    path = data_root / "aflw2000-3d" / "aflw2000_every_fifth.npz"
    dataset = read_aflw2000(path)
    model, whitening = read_basel_landmarks(path.with_name("bfm_68_landmarks.npz"))
    index = [PLACE[int(name.removeprefix("image"))] for name in dataset.names]
    np.testing.assert_allclose(dataset.yaw, np.array(COMMITTED["yaw"])[index], atol=0.006)
    predictions = release_predictions(dataset)
    for mapping in ("bench", "exact"):
        report = evaluate(predictions, dataset, mapping, model=model, whitening=whitening, resamples=100)
        torch.testing.assert_close(report.errors[MAIN], errors(mapping)[index], rtol=0, atol=COMMITTED["unit"])
    torch.testing.assert_close(report.errors[DEPTH_MEASURE], errors("3d")[index], rtol=0, atol=COMMITTED["unit"])


def test_the_errors_of_the_other_network_are_measured_again(data_root, annotations) -> None:
    dataset = read_aflw2000(data_root / "aflw2000-3d" / "aflw2000_every_fifth.npz")
    points = torch.from_numpy(annotations["landmarks68_3ddfa_v2_bench"]).double().mT - 1
    report = evaluate(Predictions(dataset.names, points, "landmarks"), dataset, resamples=100)
    assert [int(name.removeprefix("image")) for name in report.names] == COMMITTED["3ddfa_v2"]["names"]
    expected = COMMITTED["unit"] * torch.tensor(COMMITTED["3ddfa_v2"]["bench"], dtype=torch.float64)
    torch.testing.assert_close(report.errors[MAIN], expected, rtol=0, atol=COMMITTED["unit"])
