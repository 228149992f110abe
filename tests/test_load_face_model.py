"""Where the face model comes from: the cache, a fresh generation, or the reader's own file."""

from __future__ import annotations

import pytest
import torch

from tests.conftest import make_model
from twodasl_lite.base.cache import CACHE_VARIABLE, cache_folder
from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.embedded import recipe
from twodasl_lite.faces.load import MODEL_VARIABLE
from twodasl_lite.geometry.coefficients import CoefficientLayout


@pytest.fixture
def generated(monkeypatch, tmp_path) -> list[int]:
    """A small face instead of the embedded one, an empty cache, and a count of how often it was generated."""
    calls: list[int] = []

    def generate():
        calls.append(1)
        return make_model(seed=3, dtype=torch.float32)

    monkeypatch.setattr(recipe, "generate_face_model", generate)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    return calls


def test_it_is_generated_once_and_then_cached(generated: list[int]) -> None:
    first, second = load_face_model(), load_face_model()
    assert len(generated) == 1
    assert torch.equal(first.basis, second.basis)
    assert len(list(cache_folder().iterdir())) == 1


def test_a_damaged_cache_is_made_again(generated: list[int]) -> None:
    load_face_model()
    (file,) = cache_folder().iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert load_face_model().num_vertices == 90
    assert len(generated) == 2
    load_face_model()
    assert len(generated) == 2


def test_another_recipe_is_not_served_from_the_cache(generated: list[int], monkeypatch) -> None:
    load_face_model()
    monkeypatch.setattr(recipe, "_recipe_digest", lambda: "another")
    load_face_model()
    assert len(generated) == 2


def test_a_cache_that_cannot_be_written_warns(generated: list[int], monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="could not be cached"):
        assert load_face_model().num_vertices == 90


def test_the_readers_own_file(generated: list[int], monkeypatch, tmp_path) -> None:
    own = make_model(num_vertices=100)
    own.save(tmp_path / "own.npz")
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "own.npz"))
    assert load_face_model().num_vertices == 100
    assert load_face_model(CoefficientLayout(2, 1)).layout == CoefficientLayout(2, 1)
    with pytest.raises(ValueRangeError, match="num_shape: found 40; expected 0 to 5"):
        load_face_model(CoefficientLayout())
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "gone.npz"))
    with pytest.raises(FileFormatError, match=r"gone\.npz: found no such file"):
        load_face_model()
    assert not generated
