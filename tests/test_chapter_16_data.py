"""The committed numbers of chapter 16: always well formed, and correct if the data of the measurement is available."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import pytest
import torch

from twodasl_lite.datasets.aflw2000 import read_aflw2000, read_basel_landmarks
from twodasl_lite.evaluation import nme, paired_difference, summarise
from twodasl_lite.faces.build import align
from twodasl_lite.faces.readers.ict import read_ict_npz
from twodasl_lite.geometry.camera import image_to_crop

ASSETS = resources.files("twodasl_lite") / "assets"
COMMITTED = json.loads((ASSETS / "results" / "photos_cpu.json").read_text("utf-8"))
BEFORE = json.loads((ASSETS / "aflw2000_errors.json").read_text("utf-8"))
PLACE = {number: k for k, number in enumerate(COMMITTED["names"])}
ANSWERED = torch.tensor([PLACE[number] for number in BEFORE["names"]])
YAW = torch.tensor(COMMITTED["yaw"], dtype=torch.float64)


def errors(name: str) -> torch.Tensor:
    return COMMITTED["unit"] * torch.tensor(COMMITTED["errors"][name], dtype=torch.float64)


def test_the_file_says_where_it_comes_from() -> None:
    assert "XgTu/2DASL, commit " in COMMITTED["file"]
    assert COMMITTED["how"].startswith("python benchmarks/in_the_wild.py")
    assert len(COMMITTED["date"]) == len("2026-01-01")
    assert len(COMMITTED["commit"]) == 8
    assert (ASSETS / "results" / "photos_cpu.json").stat().st_size < 400_000


def test_one_error_per_picture_and_run() -> None:
    assert len(PLACE) == len(YAW) == len(COMMITTED["labels"]) == 2000
    for name, runs in COMMITTED["errors"].items():
        assert {len(run) for run in runs} == {2000}, name
    assert {"3DDFA_V2", "shipped", *COMMITTED["rows"]} <= set(COMMITTED["errors"])
    assert {name: len(runs) for name, runs in COMMITTED["runs"].items()} == {
        name: len(COMMITTED["errors"][name]) for name in COMMITTED["rows"]
    }


def test_the_decisions_are_compared_with_the_run_that_made_them_all() -> None:
    choices = COMMITTED["choices"]
    decided = choices["as decided"]
    assert {choice["steps"] for choice in choices.values()} == {decided["steps"]}
    worth = {name: np.subtract(choice["values"], decided["values"]).min() for name, choice in choices.items()}
    large = {name for name, value in worth.items() if value > 0.15}
    assert large == {"squares, not distances", "the jaw at ICT's edge", "WPDC, not VDC"}  # what the text says
    assert abs(worth["units of the visible box"]) < 0.05


def test_the_two_files_have_the_same_pictures_but_for_those_without_a_detection() -> None:
    assert set(PLACE) - set(BEFORE["names"]) == set(COMMITTED["undetected"]) == set(BEFORE["missing"])
    np.testing.assert_allclose(YAW[ANSWERED], BEFORE["yaw"], atol=0.006)


@pytest.mark.parametrize("name", sorted(COMMITTED["errors"]))
def test_the_tables_follow_from_the_errors(name: str) -> None:
    table = summarise(errors(name)[:, ANSWERED], YAW[ANSWERED], intervals=False)
    np.testing.assert_allclose(
        [100 * value for value in table.values()], COMMITTED["tables"][name]["values"], atol=2e-3
    )
    for value, (low, high) in zip(*COMMITTED["tables"][name].values(), strict=True):
        assert low < value < high
    whole_set = summarise(errors(name), YAW, intervals=False)
    assert 100 * whole_set.balanced == pytest.approx(COMMITTED["all pictures"][name], abs=2e-3)


def test_the_authors_row_is_that_of_chapter_15() -> None:
    np.testing.assert_allclose(COMMITTED["tables"]["2DASL"]["values"], BEFORE["tables"]["2DASL, exact"], atol=1e-3)


def test_the_differences_follow_from_the_errors() -> None:
    first, second = COMMITTED["rows"][-1], COMMITTED["rows"][-2]
    found = paired_difference(errors(first)[:, ANSWERED], errors(second)[:, ANSWERED], YAW[ANSWERED])
    np.testing.assert_allclose([100 * v for v in found[:3]], COMMITTED["differences"][f"{first} - {second}"], atol=3e-3)


def test_true_boxes_cut_again_give_the_errors_of_the_release_crops() -> None:
    for name in ("3DDFA_V2", "shipped", *COMMITTED["rows"]):
        again = COMMITTED["boxes"]["0/0"][name]["values"][3]
        assert again == pytest.approx(COMMITTED["tables"][name]["values"][3], rel=0.02), name


def test_near_copies_are_those_of_chapter_15() -> None:
    crops = COMMITTED["training crops"]
    assert crops["of test pictures"] == BEFORE["duplicates"]["either"]
    assert crops["kept"] + crops["near copies"] < crops["all"]


def test_labels_and_the_other_network_are_measured_again_on_400_faces(data_root, annotations) -> None:
    dataset = read_aflw2000(data_root / "aflw2000-3d" / "aflw2000_every_fifth.npz")
    index = [PLACE[int(name.removeprefix("image"))] for name in dataset.names]
    true = dataset.landmarks[..., :2]
    apart = nme(dataset.reannotated + 1, true)
    committed = COMMITTED["unit"] * torch.tensor(COMMITTED["labels"], dtype=torch.float64)[index]
    torch.testing.assert_close(apart, committed, rtol=0, atol=COMMITTED["unit"])
    points = torch.from_numpy(annotations["landmarks68_3ddfa_v2_bench"]).double().mT - 1
    crop = image_to_crop(points[..., :2], dataset.published_boxes, "bench")
    k = (dataset.boxes[:, 2:] - dataset.boxes[:, :2] + 1) / 120
    exact = crop * k[:, None] + (dataset.boxes[:, None, :2] - 0.5 + 0.5 * k[:, None])
    torch.testing.assert_close(nme(exact, true), errors("3DDFA_V2")[0, index], rtol=0, atol=3e-4)


def test_the_jaw_of_the_mean_faces_is_measured_again(data_root) -> None:
    goal = read_basel_landmarks(data_root / "aflw2000-3d" / "bfm_68_landmarks.npz")[0].mean
    size = (goal[:, :2].amax(dim=0) - goal[:, :2].amin(dim=0)).prod().sqrt()
    for jaw in ("outline", "edge", "basel"):
        model = read_ict_npz(data_root / "ict-facekit" / "ict_face_model_light.npz", jaw=jaw)
        points = model.mean[model.landmarks].double()
        distance = (align(points[17:], goal[17:], with_scale=True).apply(points) - goal)[:, :2].norm(dim=1)
        committed = COMMITTED["jaw"]["means"][f"ICT, {jaw}"]
        assert 100 * float(distance[:17].sum() / 68 / size) == pytest.approx(committed["jaw"][0], abs=2e-3)
        assert 100 * float(distance[17:].sum() / 68 / size) == pytest.approx(committed["rest"][0], abs=2e-3)
