"""The 68 landmarks for formats that lack them: from files, or by registering the embedded face."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tests.reader_files import SmallFace
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces import read_face_model
from twodasl_lite.faces.embedded.recipe import embedded_face_model
from twodasl_lite.faces.readers.markup import read_landmark_file, resolve_landmarks
from twodasl_lite.faces.readers.parts import outward
from twodasl_lite.faces.readers.registration import derive_landmarks

scipy = pytest.importorskip("scipy", reason="scipy comes with the extra models")

INDICES = np.random.default_rng(0).permutation(100)[:68]


def test_files_with_68_indices(tmp_path) -> None:
    np.save(tmp_path / "a.npy", INDICES)
    (tmp_path / "a.json").write_text(json.dumps(INDICES.tolist()))
    (tmp_path / "a.txt").write_text("\n".join(map(str, INDICES)) + "\n")
    (tmp_path / "a.csv").write_text(", ".join(map(str, INDICES)))
    scipy.io.savemat(tmp_path / "a.mat", {"keypoints": (INDICES + 1).astype(np.uint16)})
    for suffix in ("npy", "json", "txt", "csv", "mat"):
        assert read_landmark_file(tmp_path / f"a.{suffix}").tolist() == INDICES.tolist()
    mean = np.zeros((100, 3))
    chosen, note = resolve_landmarks(mean, np.zeros((0, 3), int), tmp_path / "a.txt", np.arange(68), {})
    assert chosen.tolist() == INDICES.tolist()
    assert note == "from a.txt"
    chosen, note = resolve_landmarks(mean, np.zeros((0, 3), int), None, np.arange(68), {})
    assert (chosen.tolist(), note) == (list(range(68)), "of the distribution")


def test_mapping_files_name_some(tmp_path) -> None:
    path = tmp_path / "map.txt"
    path.write_text(
        "# made by hand\n[landmark_mappings] # left: landmarks\n 9 =   33  # chin\n#10 = 3\n68 = 404\n[x]\nr = [ 1,\n"
    )
    assert read_landmark_file(path) == {8: 33, 67: 404}
    with pytest.raises(ValueRangeError, match=r"landmarks: found a mapping to vertices \[404\]; expected 0 to 99"):
        resolve_landmarks(np.zeros((100, 3)), np.zeros((0, 3), int), path, None, {})


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.txt", "1 2 3", "3 values"),
        ("a.txt", "one two", "no indices"),
        ("a.txt", "", "no indices"),
        ("a.json", "[1.5]", "1 values of float64"),
        ("a.json", "{", "no indices"),
        ("a.npy", "text", "no indices"),
    ],
)
def test_files_with_anything_else(tmp_path, name: str, content: str, found: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(FileFormatError, match=f"{found}.*expected 68 vertex indices, counting from 0"):
        read_landmark_file(tmp_path / name)
    with pytest.raises(FileFormatError, match="no such file"):
        read_landmark_file(tmp_path / "gone.txt")
    (tmp_path / "b.mat").write_text("text")
    with pytest.raises(FileFormatError, match="not a complete MATLAB file"):
        read_landmark_file(tmp_path / "b.mat")


def test_triangles_that_show_their_inside_are_turned() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8))
    mask = np.stack([x, y, 1 - x**2 - y**2], axis=-1).reshape(-1, 3)
    corner = np.array([k for k in range(56) if k % 8 < 7])
    right = np.concatenate(
        [np.stack([corner, corner + 1, corner + 8], 1), np.stack([corner + 1, corner + 9, corner + 8], 1)]
    )
    assert outward(mask, right).tolist() == right.tolist()
    assert outward(mask, right[:, [0, 2, 1]]).tolist() == right.tolist()
    tetrahedron = np.array([[0, 0, 1], [1, 0, 0], [-1, 1, 0], [-1, -1, 0]], float)
    closed = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])
    for shift in ([0, 0, 0], [50, -80, 300]):
        assert outward(tetrahedron + shift, closed).tolist() == closed.tolist()
        assert outward(tetrahedron + shift, closed[:, [0, 2, 1]]).tolist() == closed.tolist()


# ------------------------------------------------------------------------------------------------------- registration
def test_landmarks_of_another_head_are_found() -> None:
    """A head of the embedded model with other proportions, size and place, its vertices shuffled."""
    face = embedded_face_model()
    generator = torch.Generator().manual_seed(3)
    shape, _ = face.sample(1, generator=generator, clip=1.5, expression=False)
    head = face.decode(shape)[0].double().numpy()
    truth = head[face.landmarks] * 1.08 + [15, -30, 60]
    order = np.random.default_rng(0).permutation(len(head))
    position = np.argsort(order)
    moved = (head * 1.08 + [15, -30, 60])[order]
    triangles = position[face.triangles.numpy()]
    found = derive_landmarks(moved, triangles).numpy()
    error = np.linalg.norm(moved[found] - truth, axis=1)
    assert np.median(error) < 2.0
    assert error[17:].mean() < 2.5
    assert error.max() < 15
    # Known landmarks are kept, and help the others.
    known = {k: int(position[face.landmarks[k]]) for k in (8, 17, 26, 36, 45, 48, 54)}
    steered = derive_landmarks(moved, triangles, known).numpy()
    assert {k: int(steered[k]) for k in known} == known
    assert np.linalg.norm(moved[steered] - truth, axis=1).mean() < error.mean()


def test_surfaces_that_are_no_face_are_refused() -> None:
    ball = SmallFace()
    with pytest.raises(ValueRangeError, match="landmarks: found a surface that the embedded face does not fit"):
        derive_landmarks(ball.mean, ball.triangles)
    face = embedded_face_model()
    for wrong in (face.mean / 1000, face.mean * torch.tensor([-1.0, 1.0, -1.0])):  # in metres; from behind
        with pytest.raises(ValueRangeError, match="landmarks to be given"):
            derive_landmarks(wrong.numpy(), face.triangles.numpy())


def test_derived_landmarks_are_near_the_published_ones(data_root) -> None:
    """On a real head; jaw, brows and bridge of the nose are a matter of definition, the rest is not."""
    model = read_face_model(data_root / "ict-facekit" / "ict_face_model_light.npz")
    found = derive_landmarks(model.mean.numpy(), model.triangles.numpy())
    error = (model.mean[found] - model.mean[model.landmarks]).norm(dim=-1)
    assert error[30:36].mean() < 3
    assert error[36:48].mean() < 4
    assert error[48:].mean() < 4
    assert error[30:].mean() < 4
