"""Fingerprints recognise a face model and distinguish it from others."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import make_model

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces.fingerprint import check_fingerprint, face_fingerprint


def test_the_same_model_is_known_again_after_json_and_in_float32() -> None:
    fingerprint = json.loads(json.dumps(face_fingerprint(make_model())))
    check_fingerprint(fingerprint, make_model())
    check_fingerprint(fingerprint, make_model(dtype=torch.float64).to(torch.float32))


def test_another_face_is_refused() -> None:
    with pytest.raises(ValueRangeError, match="found 'small', whose coefficients mean another face"):
        check_fingerprint(face_fingerprint(make_model(seed=1)), make_model())


def test_a_turned_sign_is_noticed() -> None:
    model = make_model()
    fingerprint = face_fingerprint(model)
    model.basis[..., 2].neg_()
    model._landmark_basis[..., 2].neg_()
    with pytest.raises(ValueRangeError, match="mean another face"):
        check_fingerprint(fingerprint, model)


def test_other_sizes_are_named() -> None:
    fingerprint = face_fingerprint(make_model())
    with pytest.raises(ValueRangeError, match=r"with layout \[4, 3\]; expected .*, \[5, 3\]"):
        check_fingerprint(fingerprint, make_model().truncate(num_shape=4))
    with pytest.raises(ValueRangeError, match=r"with num_vertices 100; expected .*, 90"):
        check_fingerprint(fingerprint, make_model(num_vertices=100))
