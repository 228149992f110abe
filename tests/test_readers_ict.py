"""The ICT model: folder of OBJ files, one-file repack, and the download from its repository."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch

from tests.reader_files import write_ict
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces import load_face_model, read_face_model
from twodasl_lite.faces.load import MODEL_VARIABLE
from twodasl_lite.faces.readers import ict, ict_download, recognise
from twodasl_lite.faces.readers.obj import read_obj
from twodasl_lite.geometry.coefficients import CoefficientLayout

EXPRESSIONS = ("PupilDilate_L", "cheekRaiser_L", "cheekRaiser_R", "jawOpen")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ict") / "ICT-FaceKit"
    return folder, write_ict(folder, expressions=EXPRESSIONS)


@pytest.fixture
def pinned(repository, monkeypatch):
    """The small repository as the pinned version."""
    monkeypatch.setattr(ict_download, "_NUM_IDENTITY", 2)
    monkeypatch.setattr(ict_download, "SHA256", ict_download.digest(repository[0] / "FaceXModel"))
    return repository[0]


def test_the_folder_of_obj_files(repository) -> None:
    folder, neutral = repository
    assert recognise(folder).kind == recognise(folder / "FaceXModel").kind == "ict"
    seen = []
    model = read_face_model(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 6) for k in range(1, 7)]
    assert model.num_vertices == ict.KEPT
    np.testing.assert_allclose(model.mean, 10 * neutral[: ict.KEPT], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.shape_basis[..., 1], 2, atol=2e-3)
    assert model.expression_names == [
        "cheekRaiser_L",
        "cheekRaiser_R",
        "jawOpen",
    ]  # the pupils move nothing of the face
    assert float(model.expression_basis[3000:3050, 1, 2].min()) == pytest.approx(5, abs=2e-3)
    assert model.expression_kind == "blendshapes"
    assert "3 of 4 expressions move the face" in model.source
    assert model.landmarks.tolist() == list(ict.MULTI_PIE)
    assert model.regions["iris_right"].tolist() == list(range(23791, 24591))
    assert int(model.triangles.max()) < ict.KEPT
    assert model.license.startswith("MIT")
    edge = read_face_model(folder, jaw="edge", units="cm").landmarks.tolist()
    assert edge == [*ict.JAW_LINE, *ict.MULTI_PIE[17:]]
    with pytest.raises(ValueRangeError, match="jaw: found 'square'; expected one of outline, edge, basel"):
        read_face_model(folder, jaw="square")


def test_the_book_can_be_switched_to_it(repository, monkeypatch) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, str(repository[0]))
    assert load_face_model().num_vertices == ict.KEPT
    reduced = load_face_model(CoefficientLayout(2, 2))
    assert reduced.expression_kind == "components"


def test_folders_that_are_not_whole(repository, tmp_path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(repository[0] / "FaceXModel", folder)
    for name, content, found in (
        ("identity000.obj", None, "1 identity files; expected identity000.obj and on, without a gap"),
        ("jawOpen.obj", None, "found no jawOpen; expected an OBJ file for each expression"),
        ("identity001.obj", "v 1 2 3\n", r"identity001\.obj: found 1 vertices; expected 26719"),
        ("identity001.obj", "v 1 2\n", "1 vertices of 2 numbers"),
        ("identity001.obj", "v 1 2 x\n", "a damaged file"),
        ("identity001.obj", "", "0 vertices"),
        ("generic_neutral_mesh.obj", "v 1 2 3\n", "faces|damaged"),
        ("generic_neutral_mesh.obj", "v 1 2 3\nf 1 1 2\n", "faces of vertices that are not there"),
        ("generic_neutral_mesh.obj", "v 1 2 3\nf 1 1 1\n", "found 1 vertices; expected 26719"),
        ("vertex_indices.json", "{", "unreadable content"),
    ):
        kept = (folder / name).read_bytes()
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content)
        with pytest.raises(FileFormatError, match=found):
            read_face_model(folder)
        (folder / name).write_bytes(kept)
    with pytest.raises(FileFormatError, match=r"found no generic_neutral_mesh\.obj"):
        read_face_model(tmp_path, kind="ict")


def test_obj_files_of_other_programs(tmp_path) -> None:
    path = tmp_path / "any.obj"
    path.write_bytes(b"# made\r\nv 0 0 0\r\nv 1 0 0\r\nvn 0 0 1\r\nv 1 1 0\r\nv 0 1 0\r\nf 1//1 2//1 3//1 4//1\r\n")
    vertices, faces = read_obj(path, faces=True)
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_the_repack(tmp_path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "mean": rng.normal(size=(ict.KEPT, 3)).astype(np.float32),
        "identity": rng.normal(size=(2, ict.KEPT, 3)).astype(np.float16),
        "expression": rng.normal(size=(1, ict.KEPT, 3)).astype(np.float16),
        "expression_names": np.array(["jawOpen"]),
        "triangles": np.arange(30).reshape(10, 3),
    }
    path = tmp_path / "ict.npz"
    np.savez(path, **arrays)
    assert recognise(path).kind == "ict-npz"
    model = read_face_model(path, units="cm")
    np.testing.assert_array_equal(model.shape_basis[..., 1], arrays["identity"][1].astype(np.float32))
    assert model.expression_names == ["jawOpen"]
    for change, found in (
        ({"mean": np.zeros((5, 3), np.float32)}, "a damaged or other archive"),
        ({"expression_names": np.array(["a", "b"])}, "do not fit together"),
        ({"expression_names": np.array([{}, {}], dtype=object)}, "a damaged or other archive"),
    ):
        np.savez(path, **(arrays | change))
        with pytest.raises(FileFormatError, match=found):
            read_face_model(path)


def test_the_real_repack(data_root) -> None:
    model = read_face_model(data_root / "ict-facekit" / "ict_face_model_light.npz")
    assert (model.num_vertices, model.num_shape, model.num_expression) == (24591, 100, 55)
    with np.load(data_root / "ict-facekit" / "ict_face_model_light.npz") as content:
        assert model.landmarks.tolist() == content["landmarks68"].tolist()
        assert tuple(content["jawline17"].tolist()) == ict.JAW_LINE
        spans = zip(content["region_start"].tolist(), content["region_stop"].tolist(), strict=True)
        assert dict(zip(content["region_names"].tolist(), spans, strict=True)) == ict.REGIONS
    face = model.mean[model.landmarks]
    assert face[16, 0] > 60 > -60 > face[0, 0]  # the jaw's right end is at the viewer's right
    assert face[27, 1] > face[8, 1]
    assert face[30, 2] > face[36, 2]
    corners = model.mean[model.triangles[:18000]]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert normal[:, 2].sum() > 0
    # "_L" is the person's own left, the viewer's right.
    blink = model.expression_basis[:9409, :, model.expression_names.index("eyeBlink_L")].norm(dim=-1)
    assert (model.mean[:9409, 0] * blink).sum() > 0


# ------------------------------------------------------------------------------------------------------- the way here
def test_a_local_copy_is_used_as_it_is(pinned, tmp_path) -> None:
    lines: list[str] = []
    folder = ict_download.fetch(tmp_path / "work", str(pinned), report=lines.append)
    assert folder == pinned / "FaceXModel"
    ict_download.verify(folder)
    assert not (tmp_path / "work").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_fetches_one_version(pinned, tmp_path, monkeypatch) -> None:
    bare = tmp_path / "repository"
    shutil.copytree(pinned, bare)
    settings = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "."], [*settings, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(bare), *arguments], check=True)
    head = subprocess.run(["git", "-C", str(bare), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    monkeypatch.setattr(ict_download, "COMMIT", head.stdout.strip())
    work = tmp_path / "work"
    for _ in range(2):  # the second attempt goes on with the first one's
        folder = ict_download.fetch(work, str(bare / ".git"), report=lambda line: None)
        ict_download.verify(folder)
    assert (folder.parent / "LICENSE").is_file()
    with pytest.raises(ict_download.DownloadError, match=r"git fetch failed.*\n.*git clone"):
        ict_download.fetch(tmp_path / "other", str(tmp_path / "nowhere"), report=lambda line: None)


def test_files_come_one_by_one_and_are_kept(pinned, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    source = tmp_path / "server"
    shutil.copytree(pinned, source)
    monkeypatch.setattr(ict_download, "_RAW", source.as_uri())
    (source / "FaceXModel" / "jawOpen.obj").unlink()
    work = tmp_path / "work"
    with pytest.raises(ict_download.DownloadError, match=r"jawOpen\.obj(.|\n)*twodasl models get ict --source"):
        ict_download.fetch(work, report=lambda line: None)
    kept = sorted(path.name for path in work.rglob("*.obj"))
    assert kept == ["generic_neutral_mesh.obj", "identity000.obj", "identity001.obj"]
    assert not list(work.rglob("*.part"))
    shutil.rmtree(source)
    shutil.copytree(pinned, source)
    (source / "FaceXModel" / "identity000.obj").unlink()  # not fetched again
    ict_download.verify(ict_download.fetch(work, report=lambda line: None))
    with pytest.raises(ict_download.DownloadError, match="git is not installed"):
        ict_download.fetch(work, "https://example.org/x", report=lambda line: None)


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(ict_download, "REPOSITORY", str(tmp_path / "nowhere"))
    monkeypatch.setattr(ict_download, "_RAW", (tmp_path / "nowhere").as_uri())
    with pytest.raises(ict_download.DownloadError, match="On a computer with a network"):
        ict_download.fetch(tmp_path / "work", report=lines.append)


def test_other_versions_are_refused(pinned, tmp_path) -> None:
    folder = tmp_path / "FaceXModel"
    shutil.copytree(pinned / "FaceXModel", folder)
    path = folder / "jawOpen.obj"
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\n", b"\r\n"))  # as git may check it out on Windows
    ict_download.verify(folder)
    path.write_bytes(content + b"#")
    with pytest.raises(FileFormatError, match=r"files with the checksum .* \(another version: twodasl models convert"):
        ict_download.verify(folder)
    path.unlink()
    with pytest.raises(FileFormatError, match=r"jawOpen\.obj: found no readable file"):
        ict_download.verify(folder)
    (folder / "vertex_indices.json").write_text('{"expressions": ["../../etc/passwd"]}')
    with pytest.raises(FileFormatError, match="invalid names"):
        ict_download.verify(folder)
