"""Checks of arguments that are not tensors; those of tensors are tested where they are used."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.base.checks import check_choice, check_count, check_indices, check_number
from twodasl_lite.base.errors import InputTypeError, ShapeError, ValueRangeError


def test_choice():
    check_choice("kind", "b", ("a", "b"))
    with pytest.raises(ValueRangeError, match=r"^kind: found 'c'; expected one of a, b$"):
        check_choice("kind", "c", ("a", "b"))
    with pytest.raises(ValueRangeError, match="kind: found None; expected one of none"):
        check_choice("kind", None, {})


@pytest.mark.parametrize("value", [1, np.int64(7), 10**20])
def test_counts(value):
    assert check_count("size", value) == value
    assert type(check_count("size", value)) is int


@pytest.mark.parametrize(
    ("value", "limits", "error", "message"),
    [
        (1.0, (), InputTypeError, "size: found 1.0; expected a whole number"),
        (True, (), InputTypeError, "size: found True; expected a whole number"),
        ("3", (), InputTypeError, "size: found '3'; expected a whole number"),
        (0, (), ValueRangeError, "size: found 0; expected 1 or more"),
        (-1, (0,), ValueRangeError, "size: found -1; expected 0 or more"),
        (9, (1, 8), ValueRangeError, "size: found 9; expected 1 to 8"),
    ],
)
def test_wrong_counts(value, limits, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        check_count("size", value, *limits)


def test_numbers():
    assert check_number("amount", np.float32(0.5)) == 0.5
    assert check_number("amount", -3) == -3.0
    assert check_number("amount", 0, least=0) == 0.0


@pytest.mark.parametrize(
    ("value", "limits", "error", "message"),
    [
        (None, {}, InputTypeError, "amount: found NoneType; expected a number"),
        (True, {}, InputTypeError, "amount: found bool; expected a number"),
        (float("nan"), {}, ValueRangeError, "amount: found nan; expected a finite number"),
        (float("inf"), {"above": 0}, ValueRangeError, "amount: found inf; expected a number above 0"),
        (0.0, {"above": 0}, ValueRangeError, "amount: found 0.0; expected a number above 0"),
        (-0.1, {"least": 0}, ValueRangeError, "amount: found -0.1; expected a finite number, 0 or more"),
    ],
)
def test_wrong_numbers(value, limits, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        check_number("amount", value, **limits)


def test_indices():
    assert check_indices("corners", [[0, 1, 2]], 3, ("T", 3)).dtype == torch.int64
    assert check_indices("corners", np.zeros((0, 3), np.int32), 3, ("T", 3)).shape == (0, 3)
    for value, error, message in (
        ([[0, 1, 3]], ValueRangeError, "corners: found indices from 0 to 3; expected 0 to 2"),
        ([[0, -1, 2]], ValueRangeError, "corners: found indices from -1 to 2; expected 0 to 2"),
        ([[0.0, 1.0, 2.0]], InputTypeError, r"corners: found torch\.float32; expected integers"),
        ([[True, False, True]], InputTypeError, r"corners: found torch\.bool; expected integers"),
        ("corners", InputTypeError, "corners: found str; expected an array of indices"),
        ([0, 1, 2], ShapeError, r"corners: found shape \(3,\); expected \(T, 3\)"),
    ):
        with pytest.raises(error, match=f"^{message}$"):
            check_indices("corners", value, 3, ("T", 3))
