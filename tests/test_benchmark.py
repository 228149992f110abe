"""From predictions to a report, and the command ``twodasl evaluate``: known answers, joins by name, bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmark_files import COUNT, FAILED
from twodasl_lite.apps import cli
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.datasets.aflw2000 import read_aflw2000, read_basel_landmarks
from twodasl_lite.evaluation.benchmark import (
    DEPTH_MEASURE,
    MAIN,
    REANNOTATED,
    REANNOTATED_SHIFTED,
    evaluate,
    jittered_boxes,
    predict_faces,
    release_predictions,
)
from twodasl_lite.evaluation.predictions import Predictions, read_predictions, write_predictions
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout, Whitening
from twodasl_lite.geometry.photos import read_photo
from twodasl_lite.networks import make_regressor
from twodasl_lite.networks.weights import save_regressor


@pytest.fixture
def basel_file(benchmark_data, tmp_path) -> Path:
    return benchmark_data.write_basel(tmp_path / "bfm.npz")


def perfect(benchmark_data, kind: str = "landmarks") -> Predictions:
    values = benchmark_data.landmarks if kind == "landmarks" else torch.from_numpy(benchmark_data.raw())
    return Predictions(tuple(benchmark_data.names), values, kind, None, "the truth")


# -------------------------------------------------------------------------------------------------------------- report
def test_the_truth_has_no_error(clone, benchmark_data) -> None:
    dataset = read_aflw2000(clone)
    for kind in ("landmarks", "coefficients"):
        report = evaluate(perfect(benchmark_data, kind), dataset, model=benchmark_data.model, resamples=100)
        assert report.tables[MAIN].balanced < 1e-6
        assert report.tables[DEPTH_MEASURE].balanced < 1e-6
        assert report.missing == ()
    assert report.tables[REANNOTATED].balanced > report.tables[REANNOTATED_SHIFTED].balanced > 1e-4


def test_predictions_are_joined_by_name(clone, benchmark_data) -> None:
    dataset = read_aflw2000(clone)
    order = [6, 0, 9, 4, 2]
    some = Predictions(
        (*(benchmark_data.names[k] for k in order), "image99999"),
        torch.cat([benchmark_data.landmarks[order], benchmark_data.landmarks[:1]]),
        "landmarks",
    )
    report = evaluate(some, dataset, resamples=100)
    assert report.names == tuple(benchmark_data.names[k] for k in sorted(order))
    assert report.tables[MAIN].mean < 1e-6
    assert len(report.missing) == COUNT - 5
    assert "1 predictions for pictures that are not in the test set, such as image99999" in report.problems[0]
    strangers = some._replace(names=tuple(f"a{k}" for k in range(6)))
    with pytest.raises(ValueRangeError, match="found none for a face of the test set"):
        evaluate(strangers, dataset)


def test_a_face_without_an_answer_is_no_error_but_a_failure(clone, benchmark_data) -> None:
    values = benchmark_data.landmarks.clone()
    values[3, 10] = torch.nan
    report = evaluate(perfect(benchmark_data)._replace(values=values), read_aflw2000(clone), resamples=100)
    assert report.missing == (benchmark_data.names[3],)
    assert report.tables[MAIN].count == COUNT - 1
    content = report.to_dict()
    assert content["results"][MAIN]["failure_rate"] == pytest.approx(1 / COUNT)
    assert content["results"][MAIN]["auc"] == pytest.approx(1 - 1 / COUNT, abs=1e-3)


def test_known_error_and_worst_cases(clone, benchmark_data) -> None:
    dataset = read_aflw2000(clone)
    shift = torch.zeros(COUNT, 1, 3, dtype=torch.float64)
    shift[:, 0, 0] = torch.arange(COUNT)
    report = evaluate(perfect(benchmark_data)._replace(values=benchmark_data.landmarks + shift), dataset, resamples=100)
    extent = (dataset.landmarks.amax(1) - dataset.landmarks.amin(1))[:, :2].prod(dim=1).sqrt()
    expected = torch.arange(COUNT) / extent
    torch.testing.assert_close(report.errors[MAIN], expected, atol=1e-5, rtol=0)
    assert report.worst(3) == expected.argsort(descending=True)[:3].tolist()


def test_report_files(clone, benchmark_data, tmp_path) -> None:
    report = evaluate(perfect(benchmark_data), read_aflw2000(clone), resamples=100)
    report.write(tmp_path / "new" / "out")
    content = json.loads((tmp_path / "new" / "out" / "report.json").read_text())
    assert content["answered"] == content["faces"] == COUNT
    assert content["mapping"] == "exact"
    assert content["results"][MAIN]["counts"] == {"[0, 30]": 3, "(30, 60]": 3, "> 60": 4}
    rows = list(csv.DictReader((tmp_path / "new" / "out" / "errors.csv").open()))
    assert [row["name"] for row in rows] == benchmark_data.names
    assert float(rows[8]["yaw"]) == pytest.approx(350)
    assert set(rows[0]) == {"name", "yaw", MAIN, DEPTH_MEASURE, REANNOTATED, REANNOTATED_SHIFTED}
    assert (tmp_path / "new" / "out" / "tables.md").read_text().startswith("| NME, % |")


def test_coefficients_need_a_model(clone, benchmark_data) -> None:
    dataset = read_aflw2000(clone)
    with pytest.raises(ValueRangeError, match="expected a face model"):
        evaluate(perfect(benchmark_data, "coefficients"), dataset)
    with pytest.raises(ValueRangeError, match="expected a whitening"):
        evaluate(release_predictions(dataset), dataset, model=benchmark_data.model)


# --------------------------------------------------------------------------------------------------- prediction files
def test_prediction_files_come_back(benchmark_data, tmp_path) -> None:
    for kind in ("landmarks", "coefficients"):
        written = perfect(benchmark_data, kind)._replace(boxes=benchmark_data.boxes)
        write_predictions(tmp_path / "p.npz", written)
        found = read_predictions(tmp_path / "p.npz")
        assert found.names == written.names
        assert found.kind == kind
        torch.testing.assert_close(found.values, written.values)
        torch.testing.assert_close(found.boxes, written.boxes)


def test_bad_prediction_files_are_refused(benchmark_data, tmp_path) -> None:
    path = tmp_path / "p.npz"
    with pytest.raises(FileFormatError, match="no such file"):
        read_predictions(path)
    path.write_text("not an archive")
    with pytest.raises(FileFormatError, match="not such an archive"):
        read_predictions(path)
    np.savez(path, names=np.array(["a"]), other=np.zeros(1))
    with pytest.raises(FileFormatError, match="found the arrays names, other"):
        read_predictions(path)
    np.savez(path, names=np.array(["a", "b"]), whitened=np.zeros((1, 62)))
    with pytest.raises(ShapeError, match=r"p\.npz: whitened: found shape \(1, 62\); expected \(2, 62\)"):
        read_predictions(path)
    np.savez(path, names=np.array(["a", "a"]), whitened=np.zeros((2, 62)))
    with pytest.raises(ValueRangeError, match="found 'a' more than once"):
        read_predictions(path)
    np.savez(path, names=np.array(["a"]), whitened=np.array([object()]))
    with pytest.raises(FileFormatError, match="not such an archive"):
        read_predictions(path)
    np.save(tmp_path / "p.npy", np.zeros((3, 62)))
    with pytest.raises(FileFormatError, match="numbers without names"):
        read_predictions(tmp_path / "p.npy")
    with pytest.raises(ShapeError, match=r"expected \(2, 62\)"):
        read_predictions(tmp_path / "p.npy", ["a", "b"])
    with pytest.raises(ShapeError, match="expected"):
        write_predictions(path, perfect(benchmark_data)._replace(names=("a",)))


# -------------------------------------------------------------------------------------------------------- with networks
class Recording(torch.nn.Module):
    """Always the same answer; remembers its inputs."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer, self.seen = torch.nn.Parameter(answer), []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append(inputs)
        return self.answer.expand(len(inputs), -1)


def test_a_network_sees_crops_and_detections(clone, benchmark_data) -> None:
    dataset = read_aflw2000(clone)
    model, whitening = benchmark_data.model.to(torch.float32), Whitening(torch.zeros(62), torch.ones(62))
    network = Recording(torch.from_numpy(benchmark_data.raw()[0]).float())
    found, problems = predict_faces(network, whitening, dataset, model)
    assert problems == []
    assert found.names == dataset.names
    torch.testing.assert_close(found.values[5], torch.from_numpy(benchmark_data.raw()[0]), atol=1e-1, rtol=1e-5)
    inputs = network.seen[0]
    dots = (inputs[:, 3] > 0).sum(dim=(1, 2))
    assert [k for k in range(COUNT) if dots[k] == 0] == list(FAILED)  # an empty map where the detector failed
    assert network.seen[1].shape[0] == len(FAILED)  # and a second look with its own landmarks
    crop = torch.from_numpy(dataset.crop(dataset.names[2])).permute(2, 0, 1)
    torch.testing.assert_close(inputs[2, :3], (crop.float() - 127.5) / 128)
    network.seen.clear()
    predict_faces(network, whitening, dataset, model, detected=False)
    assert bool((network.seen[0][:, 3] == -1).all())


def test_jittered_boxes_move_crop_and_detections_alike(clone, benchmark_data) -> None:
    dataset = read_aflw2000(clone)
    boxes = jittered_boxes(dataset.boxes, 0.1, seed=3)
    assert torch.equal(boxes, jittered_boxes(dataset.boxes, 0.1, seed=3))
    torch.testing.assert_close(jittered_boxes(dataset.boxes, 0.0), dataset.boxes, atol=0.51, rtol=0)
    side = dataset.boxes[:, 2] - dataset.boxes[:, 0]
    moved = ((boxes[:, :2] + boxes[:, 2:]) - (dataset.boxes[:, :2] + dataset.boxes[:, 2:])) / 2 / side[:, None]
    assert 0.02 < float(moved.abs().max()) < 0.11
    assert bool(((boxes[:, 2] - boxes[:, 0]) == (boxes[:, 3] - boxes[:, 1])).all())
    with pytest.raises(ValueRangeError, match=r"amount: found 0\.9"):
        jittered_boxes(dataset.boxes, 0.9)

    model, whitening = benchmark_data.model.to(torch.float32), Whitening(torch.zeros(62), torch.ones(62))
    answer = benchmark_data.raw()[0].copy()
    network = Recording(torch.from_numpy(answer).float())
    found, _ = predict_faces(network, whitening, dataset, model, boxes=boxes)
    torch.testing.assert_close(found.boxes, boxes)
    report = evaluate(found, dataset, model=benchmark_data.model, resamples=100)
    k = 0  # the network's answer is that of face 0 in its own crop: in another crop it lies elsewhere in the photo
    scale = (boxes[k, 2] - boxes[k, 0] + 1) / (dataset.boxes[k, 2] - dataset.boxes[k, 0] + 1)
    expected = (dataset.landmarks[k, :, :2] + 0.5 - dataset.boxes[k, :2]) * scale + boxes[k, :2] - 0.5
    torch.testing.assert_close(report.landmarks[k, :, :2], expected, atol=0.01, rtol=0)
    with pytest.raises(ValueRangeError, match="own boxes"):
        evaluate(found, dataset, "bench", model=benchmark_data.model)


def test_unreadable_pictures_are_left_out(clone, benchmark_data) -> None:
    crops = clone / "test_codes" / "test.data" / "AFLW2000-3D_crop"
    (crops / f"{benchmark_data.names[1]}.jpg").write_text("a text")
    (crops / f"{benchmark_data.names[2]}.jpg").unlink()  # then it is cut from the photo
    dataset = read_aflw2000(clone)
    model, whitening = benchmark_data.model.to(torch.float32), Whitening(torch.zeros(62), torch.ones(62))
    found, problems = predict_faces(Recording(torch.zeros(62)), whitening, dataset, model, batch_size=3)
    assert found.names == tuple(name for k, name in enumerate(dataset.names) if k != 1)
    assert len(problems) == 1
    assert "not a picture" in problems[0]


# ------------------------------------------------------------------------------------------------------------- command
def run(*words, capsys) -> tuple[int, str, str]:
    status = cli.main(["evaluate", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_command_writes_everything(clone, basel_file, benchmark_data, tmp_path, capsys) -> None:
    (clone / "test_codes" / "test.data" / "AFLW-2000-3D" / f"{benchmark_data.names[0]}.jpg").write_text("a text")
    out = tmp_path / "out"
    words = ("--root", clone, "--face-model", basel_file, "--out", out, "--resamples", 100)
    status, shown, notes = run(*words, capsys=capsys)
    assert status == 0
    assert f"{COUNT - len(FAILED)} of {COUNT} faces predicted" in shown
    assert "without a prediction: image00032, image00072" in shown
    assert "| 68 points, 2D | 0.000 | 0.000 | 0.000 | 0.000 [0.000, 0.000] | 0.000 |" in shown
    assert "is not a picture, or a damaged one" in notes
    assert {path.name for path in out.iterdir()} == {"report.json", "tables.md", "errors.csv", "ced.png", "worst.png"}
    assert read_photo(out / "ced.png").std() > 5
    sheet = read_photo(out / "worst.png")
    assert sheet.shape == (2 * (240 + 22), 6 * 240, 3)
    bench = run(*words[:-4], "--mapping", "bench", capsys=capsys)[1]
    assert "bench mapping" in bench
    assert "0.000 [0.000, 0.000]" not in bench.splitlines()[5]  # exact predictions, wrongly mapped


def test_command_with_a_network(clone, tmp_path, capsys) -> None:
    model = load_face_model().with_layout(CoefficientLayout())
    torch.manual_seed(0)
    whitening = Whitening(torch.zeros(62), torch.ones(62))
    whitening.mean[[0, 5, 10]] = 0.5
    whitening.mean[[3, 7]] = 60.0
    save_regressor(tmp_path / "net.safetensors", make_regressor("lite"), whitening, {"map_kind": "binary"})
    out = tmp_path / "out"
    status, shown, _ = run(
        *(
            "--root",
            clone,
            "--checkpoint",
            tmp_path / "net.safetensors",
            "--out",
            out,
            "--jitter",
            0.05,
            "--resamples",
            100,
        ),
        capsys=capsys,
    )
    assert status == 0
    assert f"{COUNT} of {COUNT} faces predicted" in shown
    assert "crop boxes jittered by up to 0.05" in shown
    written = read_predictions(out / "predictions.npz")
    again = evaluate(written, read_aflw2000(clone), model=model, resamples=100)
    content = json.loads((out / "report.json").read_text())
    assert again.tables[MAIN].balanced == pytest.approx(content["results"][MAIN]["balanced"], rel=1e-5)
    # The command takes what it has written, with a face model that the package has written.
    model.save(tmp_path / "face.npz")
    words = ("--root", clone, "--predictions", out / "predictions.npz", "--face-model", tmp_path / "face.npz")
    status, again, _ = run(*words, "--resamples", 100, capsys=capsys)
    assert status == 0
    row = next(line for line in again.splitlines() if line.startswith("| 68 points, 2D"))
    assert row in shown
    (tmp_path / "broken.npz").write_text("no archive")
    status, _, notes = run(*words[:-1], tmp_path / "broken.npz", capsys=capsys)
    assert status == cli.FAILED
    assert "not a zip archive" in notes


def test_command_with_files(clone, basel_file, benchmark_data, tmp_path, capsys) -> None:
    shuffled = benchmark_data.raw()[::-1]
    np.save(tmp_path / "p.npy", shuffled)
    (tmp_path / "names.txt").write_text("\n".join(f"{name}.jpg" for name in benchmark_data.names[::-1]))
    words = ("--root", clone, "--face-model", basel_file, "--predictions", tmp_path / "p.npy", "--resamples", 100)
    assert "0.000 [0.000, 0.000]" in run(*words, "--names", tmp_path / "names.txt", capsys=capsys)[1]
    assert "0.000 [0.000, 0.000]" not in run(*words, capsys=capsys)[1].splitlines()[5]  # taken in the set's order
    write_predictions(tmp_path / "p.npz", perfect(benchmark_data))
    words = ("--root", clone, "--predictions", tmp_path / "p.npz", "--resamples", 100)
    assert "0.000 [0.000, 0.000]" in run(*words, capsys=capsys)[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "found no u_shp.npy, u_exp.npy, w_shp_sim.npy"),
        (("--predictions", "missing.npz"), "missing.npz: found no such file"),
        (("--checkpoint", "missing.safetensors"), "missing.safetensors: found no such file"),
        (("--jitter", "0.1"), "--jitter: only with --checkpoint"),
        (("--no-detector",), "--no-detector: only with --checkpoint"),
        (("--checkpoint", "x", "--device", "tpu"), "--device: found 'tpu'"),
        (("--worst", "-1"), "--worst: found -1"),
    ],
)
def test_command_says_what_is_wrong(words, message, clone, capsys) -> None:
    (clone / "test_codes" / "train.configs").mkdir()
    status, _, notes = run("--root", clone, *words, capsys=capsys)
    assert status == cli.FAILED
    assert message in notes


def test_the_sets_own_folder_has_no_predictions(benchmark_data, basel_file, tmp_path, capsys) -> None:
    folder = benchmark_data.write_folder(tmp_path / "AFLW2000")
    status, _, notes = run("--root", folder, "--face-model", basel_file, capsys=capsys)
    assert status == cli.FAILED
    assert "which has predictions" in notes


# -------------------------------------------------------------------------------------------------------- real numbers
def test_the_release_on_400_real_faces(data_root, capsys) -> None:
    path = data_root / "aflw2000-3d" / "aflw2000_every_fifth.npz"
    status, shown, _ = run("--root", path, "--mapping", "bench", "--resamples", 100, capsys=capsys)
    assert status == 0
    assert "| 68 points, 2D | 2.660 | 3.622 | 4.911 | 3.731 [" in shown
    dataset = read_aflw2000(path)
    model, whitening = read_basel_landmarks(path.parent / "bfm_68_landmarks.npz")
    report = evaluate(release_predictions(dataset), dataset, "bench", model=model, whitening=whitening, resamples=100)
    assert 100 * report.tables[REANNOTATED].balanced == pytest.approx(3.13, abs=0.005)
    assert 100 * report.tables[REANNOTATED_SHIFTED].balanced == pytest.approx(2.90, abs=0.005)
