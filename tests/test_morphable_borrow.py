"""Colours of the embedded face on other models."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.apps import cli
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.borrow import borrow_colours
from twodasl_lite.faces.readers.ict import read_ict_npz
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.worlds.synthetic import SyntheticFaces


@pytest.fixture(scope="module")
def head() -> MorphableModel:
    return load_face_model(CoefficientLayout())


def bare(model: MorphableModel, **changes) -> MorphableModel:
    """The model without colours, perhaps changed otherwise too."""
    return model.replace(albedo_mean=None, albedo_basis=None, albedo_std=None, **changes)


def test_the_face_itself_gets_its_own_colours(head) -> None:
    coloured = borrow_colours(bare(head))
    off = (coloured.albedo_mean - head.albedo_mean).abs().amax(dim=1)
    assert float(off.mean()) < 0.03  # mixed with the nearest neighbours'
    assert float(off[head.regions["face"]].median()) < 0.01
    assert torch.equal(coloured.albedo_std, head.albedo_std)
    assert coloured.albedo_basis.shape == head.albedo_basis.shape


def test_a_bent_and_larger_face_gets_them_too(head) -> None:
    bent = 1.2 * head.mean * torch.tensor([1.1, 1.0, 0.9]) + torch.tensor([30.0, -20.0, 5.0])
    coloured = borrow_colours(bare(head, mean=bent))
    off = (coloured.albedo_mean - head.albedo_mean).abs().amax(dim=1)
    assert float(off[head.regions["face"]].median()) < 0.01


def test_eyes_take_from_eyes_where_they_are_named(head) -> None:
    """An eyeball that stands before the lids keeps the colours of an eyeball."""
    eye = torch.cat([head.regions["eyeball_left"], head.regions["iris_left"], head.regions["pupil_left"]]).unique()
    moved = head.mean.clone()
    moved[eye, 2] += 4.0
    named = borrow_colours(bare(head, mean=moved, regions={"sclera_left": eye}))
    unnamed = borrow_colours(bare(head, mean=moved, regions={}))
    truth = head.albedo_mean[eye]
    errors = [float((model.albedo_mean[eye] - truth).abs().mean()) for model in (named, unnamed)]
    assert errors[0] < errors[1]


def test_a_model_with_colours_stays_as_it_is(head) -> None:
    assert borrow_colours(head) is head


def test_convert_with_colours_and_without_a_region(tmp_path, head) -> None:
    source, out = tmp_path / "bare.npz", tmp_path / "coloured.npz"
    bare(head).save(source)
    words = ["models", "convert", str(source), str(out), "--colours", "--without", "teeth"]
    assert cli.main(words) == 0
    model = MorphableModel.load(out)
    teeth = len(torch.cat([head.regions["teeth_upper"], head.regions["teeth_lower"]]).unique())
    assert model.num_vertices == head.num_vertices - teeth
    assert model.albedo_mean is not None


def test_an_unknown_region_is_named(tmp_path, head, capsys) -> None:
    bare(head).save(tmp_path / "bare.npz")
    words = ["models", "convert", str(tmp_path / "bare.npz"), str(tmp_path / "out.npz"), "--without", "antlers"]
    assert cli.main(words) == 1
    assert "--without: found 'antlers'; expected a part of a region's name (face," in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


def test_pictures_of_the_ict_model_can_be_drawn(data_root) -> None:
    path = data_root / "ict-facekit" / "ict_face_model_light.npz"
    model = borrow_colours(read_ict_npz(path, jaw="edge").with_layout(CoefficientLayout()))
    lips, cheek = (model.albedo_mean[model.landmarks[k]] for k in (66, 29))
    assert float(lips[0] - lips[1]) > float(cheek[0] - cheek[1]) + 0.05  # redder
    iris = model.albedo_mean[model.regions["iris_left"]].mean(dim=1)
    assert float(iris.min()) < 0.3  # somewhere is a pupil
    pictures = SyntheticFaces(model, "wild").batch(0, 2)
    assert float(pictures.images.float().std()) > 20
