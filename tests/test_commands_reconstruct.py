"""The command ``twodasl reconstruct``: its files, and its messages about files that are not pictures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from training_runs import random_coefficients, small_face

from twodasl_lite.apps.cli import main
from twodasl_lite.apps.commands import reconstruct as module
from twodasl_lite.faces.decode import decode, decode_landmarks
from twodasl_lite.faces.fingerprint import face_fingerprint
from twodasl_lite.faces.symmetry import LARGEST_RESIDUAL, coefficient_mirror
from twodasl_lite.geometry.camera import euler_to_matrix
from twodasl_lite.geometry.coefficients import Whitening
from twodasl_lite.geometry.landmarks import read_landmarks, write_landmarks
from twodasl_lite.geometry.photos import landmarks_box, read_photo, write_photo
from twodasl_lite.networks import make_regressor, save_regressor
from twodasl_lite.viz import alignment

pytest.importorskip("safetensors")

WRITTEN = ["coefficients.json", "dense.png", "depth.png", "face-1.csv", "face-1.ply", "overlay.png", "pncc.png"]
WRITTEN += ["files.json", "pose.json", "viewer.html"]


@pytest.fixture(scope="module")
def model():
    return small_face()


@pytest.fixture(scope="module")
def truth(model):
    return random_coefficients(model, 1, 3)


@pytest.fixture(scope="module")
def files(tmp_path_factory, model, truth):
    """A network whose answer is always the truth (its outputs hardly move the whitening's mean), and its face model."""
    folder = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    network = make_regressor("lite", norm="group")
    whitening = Whitening(truth[0], torch.full((62,), 1e-9))
    facts = {"map_kind": "binary", "face_model": face_fingerprint(model)}
    save_regressor(folder / "network.safetensors", network, whitening, facts)
    model.save(folder / "face.npz")
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 20)
    write_photo(tmp_path / "photo.png", picture)
    return tmp_path / "photo.png"


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch):
    """Drawings stay small, which is quick."""
    monkeypatch.setattr(alignment, "SMALLEST", 1)
    for name in ("overlay_picture", "dense_picture"):
        original = getattr(alignment, name)
        monkeypatch.setattr(module, name, lambda *a, _f=original, **k: _f(*a, **{"smallest": 1, **k}))


def run(files: Path, *words: object) -> int:
    network = ["--checkpoint", files / "network.safetensors", "--face-model", files / "face.npz", "--mesh", "ply"]
    network += ["--no-mirror"]
    return main(["reconstruct", *map(str, words), *map(str, network)])


BOX = ("--box", 100, 60, 219, 179)


def numbers(place: Path) -> dict:
    return json.loads((place / "coefficients.json").read_text())


def test_everything_about_a_photo(files, photo, model, truth, tmp_path, capsys):
    assert run(files, photo, *BOX, "--box", 200, 100, 300, 220, "--out", tmp_path / "out") == 0
    place = tmp_path / "out" / "photo"
    assert sorted(p.name for p in place.iterdir()) == sorted([*WRITTEN, "face-2.csv", "face-2.ply"])
    content = numbers(place)
    assert (content["width"], content["height"], content["layout"]) == (400, 300, [40, 10])
    face = content["faces"][0]
    raw = torch.cat([torch.tensor(face["pose"]).flatten(), torch.tensor(face["shape"] + face["expression"])])
    points = decode_landmarks(raw[None], model, 300)[0]
    torch.testing.assert_close(points, torch.tensor(face["landmarks"]), rtol=1e-4, atol=0.01)
    torch.testing.assert_close(read_landmarks(place / "face-1.csv").points, points[:, :2], rtol=1e-4, atol=0.01)
    torch.testing.assert_close(raw[12:], truth[0, 12:], rtol=1e-4, atol=1e-4)
    left, top, right, _ = face["crop_box"]
    crop = (points[:, :2] + 0.5 - torch.tensor([left, top])) * 120 / (right - left + 1) - 0.5
    torch.testing.assert_close(crop, decode_landmarks(truth, model)[0, :, :2], rtol=1e-3, atol=0.02)
    pose = json.loads((place / "pose.json").read_text())["faces"]
    assert len(pose) == 2
    assert abs(pose[0]["yaw_degrees"]) <= 90
    assert read_photo(place / "depth.png").shape == (300, 400, 3)
    check_depth(place, model, raw)
    assert "face 2: pitch" in capsys.readouterr().out
    # A second run with one face leaves nothing of the other behind.
    assert run(files, photo, *BOX, "--out", tmp_path / "out") == 0
    assert sorted(p.name for p in place.iterdir()) == sorted(WRITTEN)


def check_depth(place: Path, model, raw: torch.Tensor) -> None:
    """A vertex that is seen has its depth in the picture, by the scale of the JSON."""
    values = cv2.imread(str(place / "depth.png"), cv2.IMREAD_UNCHANGED)
    meaning = json.loads((place / "pose.json").read_text())["depth"]
    assert values.dtype == np.uint16
    assert values.max() == 65535
    vertices = decode(raw[None], model, 300)[0]
    depth = meaning["offset"] + meaning["scale"] * values.astype(np.float64)
    low, high = float(vertices[:, 2].min()) - 1, float(vertices[:, 2].max()) + 1
    seen = values > 0
    assert seen.any()
    assert not seen.all()
    assert low <= depth[seen].min()
    nearest = vertices[vertices[:, 2].argmax()]
    x, y = nearest[:2].round().int().tolist()
    around = depth[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
    assert around.max() <= high + 1e-3 or depth.max() <= 2 * high  # another face may be nearer


def exif(orientation: int) -> bytes:
    """An APP1 segment that holds the orientation alone."""
    entry = (0x0112).to_bytes(2, "little") + (3).to_bytes(2, "little") + (1).to_bytes(4, "little")
    entry += orientation.to_bytes(2, "little") + bytes(2)
    body = b"Exif\0\0II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + entry + bytes(4)
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


@pytest.mark.parametrize("orientation", [2, 6])
def test_exif(files, photo, tmp_path, orientation):
    upright = read_photo(photo)
    stored = upright[:, ::-1] if orientation == 2 else np.rot90(upright)
    write_photo(tmp_path / "turned.jpg", np.ascontiguousarray(stored))
    data = (tmp_path / "turned.jpg").read_bytes()
    (tmp_path / "turned.jpg").write_bytes(data[:2] + exif(orientation) + data[2:])
    for file in (photo, tmp_path / "turned.jpg"):
        assert run(files, file, *BOX, "--out", tmp_path / "out") == 0
    plain, turned = numbers(tmp_path / "out" / "photo"), numbers(tmp_path / "out" / "turned")
    assert (turned["width"], turned["height"]) == (400, 300)
    assert turned["faces"] == plain["faces"]
    pictures = [read_photo(tmp_path / "out" / name / "overlay.png") for name in ("photo", "turned")]
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 3


def test_a_folder_with_all_that_can_be_wrong(files, photo, model, truth, tmp_path, capsys):
    folder, marks = tmp_path / "photos", tmp_path / "marks"
    folder.mkdir()
    points = decode_landmarks(truth, model)[0, :, :2] * 1.5 + 60
    for name in ("good.png", "unmarked.png", "cut.png"):
        write_photo(folder / name, read_photo(photo))
    write_landmarks(marks / "good.csv", points)
    write_landmarks(marks / "cut.pts", points - torch.tensor([float(points[:, 0].median()), 0]))
    (folder / "text.jpg").write_text("I am no picture")
    write_landmarks(marks / "text.csv", points)
    (folder / "empty.jpg").touch()
    write_landmarks(marks / "empty.csv", points)
    (folder / "notes.txt").write_text("not looked at")
    write_photo(folder / "half.jpg", read_photo(photo))
    half = (folder / "half.jpg").read_bytes()
    (folder / "half.jpg").write_bytes(half[:20])
    write_landmarks(marks / "half.csv", points)

    assert run(files, folder, "--landmarks", marks, "--out", tmp_path / "out") == 1
    words = capsys.readouterr()
    assert "2 of 6 files reconstructed" in words.out
    for name, reason in {
        "text.jpg": "not a picture",
        "empty.jpg": "an empty file",
        "half.jpg": "damaged",
        "unmarked.png": "no landmarks for unmarked.png",
    }.items():
        (line,) = [line for line in words.err.splitlines() if "problem" in line and name in line]
        assert reason in line
    assert "cut.png: face 1 is cut by the border" in words.err
    assert "4 of 6 files could not be reconstructed" in words.err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cut", "good"]
    face = numbers(tmp_path / "out" / "good")["faces"][0]
    assert face["crop_box"] == landmarks_box(points).int().tolist()


def test_nothing_half_written(files, photo, tmp_path, monkeypatch, capsys):
    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "export_mesh", full)
    assert run(files, photo, *BOX, "--out", tmp_path / "out") == 1
    assert "No space left" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_large_photo(files, tmp_path, capsys):
    write_photo(tmp_path / "large.jpg", np.full((6000, 8400, 3), 128, np.uint8))  # 50 megapixels
    assert run(files, tmp_path / "large.jpg", "--box", 3000, 2000, 5000, 4000, "--out", tmp_path / "out") == 0
    place = tmp_path / "out" / "large"
    assert read_photo(place / "overlay.png").shape[1] == alignment.LARGEST
    assert numbers(place)["width"] == 8400
    assert "a large photo, drawn at 24%" in capsys.readouterr().err


def nothing(_photo: np.ndarray) -> torch.Tensor:
    """A detector that finds nothing."""
    return torch.zeros(0, 5)


def test_no_face(files, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "YuNet", lambda path, score: nothing)
    assert run(files, photo, "--detector", "some.onnx", "--out", tmp_path / "out") == 1
    assert "photo.png: found no face" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*BOX, "--refine"], "--refine: found without --landmarks"),
        (["--box", "0", "0", "1", "1"], "parts of the photo's size"),
        (["--box", "-100000", "-100000", "100000", "100000"], "at most 4 times"),
        ([*BOX, "--whole"], "found --box, --whole"),
        ([*BOX, "--smoothing", "1"], "--smoothing: found 1.0"),
        (["--detector", "missing.onnx"], "missing.onnx: found no such file"),
        (["--landmarks", "missing.csv"], "missing.csv: found no such file"),
        (["--box", "900", "900", "950", "950"], "overlaps the 400x300 photo"),
        (["--box", "90", "90", "50", "95"], "left < right"),
        ([*BOX, "--device", "tpu"], "--device: found 'tpu'"),
    ],
)
def test_wrong_words(files, photo, tmp_path, capsys, words, message):
    assert run(files, photo, *words, "--out", tmp_path / "out") == 1
    assert message in capsys.readouterr().err


def test_wrong_places(files, photo, tmp_path, capsys):
    (tmp_path / "bare").mkdir()
    for words, message in [
        ([tmp_path / "missing.jpg", *BOX], "missing.jpg: found no such file"),
        ([tmp_path / "bare", "--whole"], "a folder without pictures"),
        ([photo, photo, "--whole"], "photo.png 2 times; expected each file once"),
        ([photo, tmp_path / "other.png", *BOX], "--box: found with 2 files"),
    ]:
        assert run(files, *words, "--out", tmp_path / "out") == 1
        assert message in capsys.readouterr().err


def write_video(path: Path, frames: int) -> None:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (400, 300))
    assert writer.isOpened()
    for k in range(frames):
        noise = np.random.default_rng(0).integers(-30, 30, (300, 400, 3))
        noise[260:, 360:] = 0
        writer.write(np.clip(noise + 60 + 60 * k, 0, 255).astype(np.uint8))
    writer.release()


def test_a_video(files, tmp_path, capsys):
    write_video(tmp_path / "film.avi", 3)
    assert run(files, tmp_path / "film.avi", *BOX, "--out", tmp_path / "out") == 0
    place = tmp_path / "out" / "film"
    assert sorted(p.name for p in place.iterdir()) == [
        "coefficients.csv",
        "coefficients.jsonl",
        "files.json",
        "overlay.mp4",
    ]
    lines = [json.loads(line) for line in (place / "coefficients.jsonl").read_text().splitlines()]
    assert lines[0]["frames"] == 3
    assert lines[0]["frames_per_second"] == 10
    assert [(line["frame"], line["face"]) for line in lines[1:]] == [(0, 1), (1, 1), (2, 1)]
    capture = cv2.VideoCapture(str(place / "overlay.mp4"))
    levels = []
    while True:
        done, frame = capture.read()
        if not done:
            break
        levels.append(int(frame[280, 380].mean()))
    assert len(levels) == 3
    assert all(abs(level - 60 - 60 * k) < 6 for k, level in enumerate(levels))
    assert "3 frames, 1 face" in capsys.readouterr().out


def test_a_video_as_pictures_and_no_video(files, tmp_path, capsys):
    write_video(tmp_path / "film.avi", 2)
    assert run(files, tmp_path / "film.avi", *BOX, "--frames", "--out", tmp_path / "out") == 0
    names = sorted(p.name for p in (tmp_path / "out" / "film").iterdir())
    assert names == ["coefficients.csv", "coefficients.jsonl", "files.json", "frame-000000.png", "frame-000001.png"]
    (tmp_path / "text.mp4").write_text("no video")
    assert run(files, tmp_path / "text.mp4", *BOX, "--out", tmp_path / "out") == 1
    assert "not a video" in capsys.readouterr().err
    assert not (tmp_path / "out" / "text").exists()


# -------------------------------------------------------------------------------------------------- without a word more
def test_a_photo_and_nothing_else(files, photo, tmp_path, monkeypatch, capsys):
    """With the detector in the cache the faces are found; without, the one command to type is said."""
    monkeypatch.setenv("TWODASL_CACHE", str(tmp_path / "cache"))
    assert run(files, photo, "--out", tmp_path / "out") == 1
    words = capsys.readouterr().err
    assert "twodasl models get yunet" in words
    assert words.count("found no face") == 1
    assert not list((tmp_path / "out").glob("*"))  # no face, no mesh
    monkeypatch.setattr(module, "cached_detector", lambda score: lambda _: torch.tensor([[100.0, 60, 219, 179, 0.83]]))
    assert run(files, photo, "--out", tmp_path / "out") == 0
    words = capsys.readouterr()
    assert "confidence 0.83" in words.out
    assert words.err == ""
    (face,) = json.loads((tmp_path / "out" / "photo" / "pose.json").read_text())["faces"]
    assert face["confidence"] == pytest.approx(0.83)


def test_what_the_angles_mean(files, photo, tmp_path):
    assert run(files, photo, *BOX, "--out", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out" / "photo" / "pose.json").read_text())
    assert set(content["conventions"]) >= {"angles", "pitch", "yaw", "roll", "scale", "translation"}
    assert "degrees" in content["conventions"]["angles"]
    # The signs that the file states, on the axes of a turned face: x right, y up, z towards the viewer.
    nose, top = torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 1, 0])
    pitch, yaw, roll = (
        euler_to_matrix(torch.deg2rad(torch.tensor(a))) for a in ([20.0, 0, 0], [0, 20.0, 0], [0, 0, 20.0])
    )
    assert float((pitch @ nose)[1]) > 0  # looks up
    assert float((yaw @ nose)[0]) < 0  # to the left of the picture
    assert float((roll @ top)[0]) > 0  # leans to the right


def test_errors_are_said_once(files, photo, tmp_path, capsys):
    assert run(files, tmp_path / "missing.jpg", *BOX, "--out", tmp_path / "out") == 1
    words = capsys.readouterr().err
    assert words.count("no such file") == 1
    assert len(words.splitlines()) == 1


def test_what_a_folder_leaves_out_is_said(files, photo, tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    write_photo(folder / "good.png", read_photo(photo))
    for name in ("phone.heic", "notes.txt", ".hidden"):
        (folder / name).write_text("x")
    (folder / "link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    assert run(files, folder, "--whole", "--out", tmp_path / "out") == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    assert len(lines) == 4
    for name, reason in {
        "link.jpg": "a broken link",
        "more": "a folder; pass it by name",
        "notes.txt": "not a supported picture",
        "phone.heic": "export it as JPEG",
    }.items():
        assert any(name in line and reason in line for line in lines)


def test_names_of_results(tmp_path):
    place = Path("a")
    found = module.result_names([place / "me.jpg", place / "me.png", place / "you.jpg", Path("b/you.jpg")])
    assert list(found.values()) == ["me-jpg", "me-png", "a-you-jpg", "b-you-jpg"]
    assert module.result_names([place / "größe.tar.jpg"]) == {place / "größe.tar.jpg": "größe.tar"}


def test_only_files_of_an_earlier_run_are_removed(files, photo, tmp_path, capsys):
    place = tmp_path / "out" / "photo"
    assert run(files, photo, *BOX, "--box", 200, 100, 300, 220, "--out", tmp_path / "out") == 0
    (place / "face-1.blend").write_text("hours of work")
    (place / "face-7.csv").write_text("mine")
    assert run(files, photo, *BOX, "--out", tmp_path / "out") == 0
    assert (place / "face-1.blend").read_text() == "hours of work"
    assert (place / "face-7.csv").read_text() == "mine"
    assert not (place / "face-2.csv").exists()
    (tmp_path / "other" / "photo").mkdir(parents=True)
    (tmp_path / "other" / "photo" / "overlay.png").write_text("mine")
    assert run(files, photo, *BOX, "--out", tmp_path / "other") == 1
    assert "a file that no earlier run wrote" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "other" / "photo").iterdir()] == ["overlay.png"]


def test_what_a_killed_run_left_goes(files, photo, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left, other = tmp_path / "out" / f".photo.{dead.pid}.part", tmp_path / "out" / f".photo.{os.getppid()}.part"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "overlay.mp4").write_text("half")
    assert run(files, photo, *BOX, "--out", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [other.name, "photo"]  # that process still runs


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_terminated_run_leaves_nothing(files, photo, tmp_path, monkeypatch):
    def end(*_arguments, **_options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr(module, "depth_map", end)
    with pytest.raises(SystemExit) as caught:
        run(files, photo, *BOX, "--out", tmp_path / "out")
    assert caught.value.code == 143
    assert list((tmp_path / "out").iterdir()) == []


# ------------------------------------------------------------------------------------------------------- landmark files
def test_landmarks_of_all_kinds_and_what_is_wrong_with_them(files, photo, model, truth, tmp_path, capsys):
    points = decode_landmarks(truth, model)[0, :, :2] * 1.5 + 60
    plain = tmp_path / "marks.csv"
    plain.write_text("".join(f"{x:.3f},{y:.3f}\n" for x, y in points.tolist()))
    assert run(files, photo, "--landmarks", plain, "--out", tmp_path / "out") == 0
    words = capsys.readouterr().out
    assert "taken for 68 points, a table" in words
    assert "of its size from the landmarks" in words
    np.save(tmp_path / "marks.npy", (points * 3).numpy())
    assert run(files, photo, "--landmarks", tmp_path / "marks.npy", "--out", tmp_path / "out") == 1
    assert "outside the 400x300 photo" in capsys.readouterr().err
    np.save(tmp_path / "marks.npy", (points / 400).numpy())
    assert run(files, photo, "--landmarks", tmp_path / "marks.npy", "--out", tmp_path / "out") == 1
    assert "between 0 and 1" in capsys.readouterr().err


def test_refine_fits_the_landmarks(files, photo, model, truth, tmp_path, capsys):
    changed = truth.clone()
    changed[:, 12:52] += 0.8 * model.shape_std
    changed[:, 52:] -= 0.8 * model.expression_std
    points = decode_landmarks(changed, model)[0, :, :2] * 1.5 + 60
    np.save(tmp_path / "marks.npy", points.numpy())
    assert run(files, photo, "--landmarks", tmp_path / "marks.npy", "--refine", "--out", tmp_path / "out") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "after refining" in line)
    before, after = (float(part.split("%")[0].split()[-1]) for part in line.split(","))
    assert after < 0.4 * before
    found = torch.tensor(numbers(tmp_path / "out" / "photo")["faces"][0]["landmarks"])[:, :2]
    size = float((points.amax(dim=0) - points.amin(dim=0)).prod().sqrt())
    assert 100 * float((found - points).norm(dim=1).mean()) / size == pytest.approx(after, abs=0.06)


# --------------------------------------------------------------------------------------------------------------- videos
def test_the_table_of_a_video(files, tmp_path):
    write_video(tmp_path / "film.avi", 3)
    assert run(files, tmp_path / "film.avi", *BOX, "--smoothing", 0, "--out", tmp_path / "out") == 0
    with (tmp_path / "out" / "film" / "coefficients.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "1", "2"]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([0, 0.1, 0.2], abs=0.01)
    lines = [json.loads(line) for line in (tmp_path / "out" / "film" / "coefficients.jsonl").read_text().splitlines()]
    pose = np.array(lines[1]["pose"]).ravel()
    np.testing.assert_allclose([float(rows[0][f"pose_{k}"]) for k in range(12)], pose, rtol=1e-5)
    assert sum(name.startswith("shape_") for name in rows[0]) == 40
    assert sum(name.startswith("expression_") for name in rows[0]) == 10


def test_a_track_that_ends_is_said(files, tmp_path, capsys):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (400, 300))
    spots = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(300, 400, 3)), (0, 0), 4) * 800 + 128
    for k in range(6):
        writer.write(np.clip(spots, 0, 255).astype(np.uint8) if k < 4 else np.full((300, 400, 3), 128, np.uint8))
    writer.release()
    assert run(files, path, *BOX, "--out", tmp_path / "out") == 0
    words = capsys.readouterr()
    assert "face 1 ends before frame 4: " in words.err
    assert "6 frames, 1 face, in 4 of the frames" in words.out
    head = json.loads((tmp_path / "out" / "cut" / "coefficients.jsonl").read_text().splitlines()[0])
    assert len(head["ended"]) == 1


def test_one_photo_waits_for_no_large_package(tmp_path, files, photo):
    """What takes a second to import, and one photo does not need, is not imported."""
    arguments = ["reconstruct", str(photo), *map(str, BOX), "--checkpoint"]
    arguments += [
        str(files / "network.safetensors"),
        "--face-model",
        str(files / "face.npz"),
        "--out",
        str(tmp_path / "out"),
    ]
    script = (
        f"import sys; from twodasl_lite.apps.cli import main; status = main({arguments!r}); "
        "heavy = {'trimesh', 'numba', 'scipy', 'matplotlib', 'plotly', 'networkx', 'PIL', 'skimage', 'torch._dynamo'}; "
        "print(status, sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "0 []"


def test_the_mirror_image_counts_unless_it_is_not_wanted(files, photo, tmp_path, monkeypatch):
    """On a symmetric face model; the answer is then the mean of two."""
    asked = []
    real = module.reconstruct
    monkeypatch.setattr(module, "reconstruct", lambda *a, **k: asked.append(k["mirror"]) or real(*a, **k))
    words = ["reconstruct", str(photo), *map(str, BOX), "--checkpoint", str(files / "network.safetensors")]
    words += ["--face-model", str(files / "face.npz"), "--mesh", "none", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(module, "coefficient_mirror", lambda model: SimpleNamespace(residual=0.01))
    assert main([*words, "--no-mirror"]) == 0
    monkeypatch.setattr(module, "coefficient_mirror", lambda model: SimpleNamespace(residual=0.5))
    assert main(words) == 0
    assert asked == [False, False]
    monkeypatch.undo()
    monkeypatch.setattr(module, "reconstruct", lambda *a, **k: asked.append(k["mirror"]) or real(*a, **k))
    assert main(words) == 0
    assert asked[-1] is (coefficient_mirror(small_face()).residual <= LARGEST_RESIDUAL)
