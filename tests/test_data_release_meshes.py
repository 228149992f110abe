"""The 40 faces with released meshes: errors with known answers on small files of the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmark_files import COUNT, Benchmark
from twodasl_lite.apps import cli
from twodasl_lite.base.errors import FileFormatError, ShapeError
from twodasl_lite.evaluation import bounding_box, box_size
from twodasl_lite.evaluation.release_meshes import MEASURES, read_release_meshes
from twodasl_lite.faces import MorphableModel

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")


@pytest.fixture(scope="module")
def benchmark_data() -> Benchmark:
    return Benchmark()


@pytest.fixture
def evaluation(benchmark_data, tmp_path) -> Path:
    """The folder ``evaluation``: 2DASL is 30 pixels nearer, 3DDFA 3 pixels to the right, PRNet has the truth."""
    folder = tmp_path / "2DASL" / "evaluation"
    results = folder / "results"
    for name in ("AFLW-2000-3D_grdth", "2DASL_results", "3DDFA_results", "PRNet_results/kpt"):
        (results / name).mkdir(parents=True)
    places = np.arange(68 * 3).reshape(-1, 4)
    (folder / "keypoints.txt").write_text(",\n".join(",  ".join(map(str, row)) for row in places) + ",\n")
    for k, name in enumerate(benchmark_data.names):
        benchmark_data.write_mat(results / "AFLW-2000-3D_grdth" / f"{name}.mat", k)
        vertices = benchmark_data.pt3d[k]
        scipy.io.savemat(results / "2DASL_results" / f"{name}.mat", {"vertex": vertices + np.array([[0], [0], [30]])})
        scipy.io.savemat(results / "3DDFA_results" / f"{name}.mat", {"vertex": vertices + np.array([[3], [0], [0]])})
        np.savetxt(results / "PRNet_results" / "kpt" / f"{name}_kpt.txt", vertices.T)
    return folder


def test_known_errors(evaluation, benchmark_data) -> None:
    faces = read_release_meshes(evaluation.parent)
    assert faces.names == tuple(benchmark_data.names)
    assert faces.problems == ()
    errors = faces.measure(benchmark_data.model, every=1)
    assert tuple(errors) == MEASURES
    shifted = 3 / box_size(bounding_box(faces.landmarks))
    for measure in MEASURES[:4]:
        assert float(errors[measure]["2DASL"].max()) < 1e-5  # depth is compared from its smallest value
        torch.testing.assert_close(errors[measure]["3DDFA"], shifted, atol=1e-5, rtol=0)
    assert float(errors["shape alone"]["3DDFA"].max()) < 1e-5  # shape forgives place
    assert set(errors["68 points, 3D"]) == {"2DASL", "3DDFA", "PRNet"}
    assert float(errors["68 points, 3D"]["PRNet"].max()) < 1e-9
    assert "PRNet" not in errors["dense, 3D"]  # it has a mesh of its own
    assert tuple(faces.measure()) == MEASURES[:2]


def test_a_model_in_another_unit_gives_the_same_truth(evaluation, benchmark_data) -> None:
    faces, model = read_release_meshes(evaluation), benchmark_data.model
    in_mm = MorphableModel(
        model.mean / 1000,
        model.shape_basis / 1000,
        model.expression_basis / 1000,
        model.triangles,
        model.landmarks,
        shape_std=model.shape_std,
        expression_std=model.expression_std,
    )
    torch.testing.assert_close(faces.dense_truth(in_mm), faces.dense_truth(model))
    torch.testing.assert_close(faces.dense_truth(model), faces.landmarks, atol=1e-6, rtol=0)  # here all are landmarks


def test_faces_with_bad_files_are_left_out(evaluation, benchmark_data) -> None:
    names, results = benchmark_data.names, evaluation / "results"
    (results / "2DASL_results" / f"{names[0]}.mat").write_bytes(b"no matlab file")
    scipy.io.savemat(results / "3DDFA_results" / f"{names[2]}.mat", {"vertex": np.zeros((3, 50))})
    (results / "PRNet_results" / "kpt" / f"{names[3]}_kpt.txt").write_text("a text\n")
    (results / "PRNet_results" / "kpt" / f"{names[4]}_kpt.txt").unlink()
    scipy.io.savemat(results / "2DASL_results" / f"{names[5]}.mat", {"vertex": np.full((3, 68), np.nan)})
    faces = read_release_meshes(evaluation)
    assert len(faces.names) == COUNT - 5
    assert len(faces.problems) == 5
    assert "(3, 68)" in faces.problems[1]


def test_what_is_no_such_folder_is_refused(evaluation, benchmark_data, tmp_path, small_model) -> None:
    with pytest.raises(FileFormatError, match="no annotations"):
        read_release_meshes(tmp_path)
    with pytest.raises(ShapeError, match="expected the meshes' 68"):
        read_release_meshes(evaluation).dense_truth(
            MorphableModel(
                small_model.mean,
                1e3 * small_model.shape_basis,
                small_model.expression_basis,
                small_model.triangles,
                small_model.landmarks,
                shape_std=torch.full((5,), 100.0, dtype=torch.float64),
                expression_std=small_model.expression_std,
            )
        )
    (evaluation / "keypoints.txt").write_text("1, 2, three")
    with pytest.raises(FileFormatError, match=r"keypoints\.txt: found something else"):
        read_release_meshes(evaluation)
    (evaluation / "keypoints.txt").write_text(", ".join(str(900 + k) for k in range(204)))
    with pytest.raises(FileFormatError, match="landmarks among the meshes' 68 vertices"):
        read_release_meshes(evaluation)


def test_command(evaluation, benchmark_data, tmp_path, capsys) -> None:
    words = ["evaluate", "--dataset", "release-meshes", "--root", str(evaluation.parent), "--resamples", "100"]
    assert cli.main(words) == 0
    shown = capsys.readouterr()
    assert "| NME, % | 2DASL | 3DDFA | PRNet |" in shown.out
    assert "dense, 3D" not in shown.out
    assert "need --face-model" in shown.err
    benchmark_data.model.save(tmp_path / "model.npz")
    assert cli.main([*words, "--face-model", str(tmp_path / "model.npz"), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "| dense, 3D | 0.00 [0.00, 0.00] |" in shown
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert content["results"]["dense, 2D"]["3DDFA"]["mean"] > 0.01
    assert cli.main([*words, "--predictions", "x.npz"]) == cli.FAILED
