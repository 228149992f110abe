"""The sign of a component does not depend on rounding."""

from __future__ import annotations

import torch

from twodasl_lite.faces.signs import stable_signs


def test_rounding_does_not_turn_a_component_with_mirror_twins():
    column = torch.tensor([0.1, -0.7, 0.2, 0.7, -0.1], dtype=torch.float64)
    for nudge in (-1e-9, 0.0, 1e-9):
        nudged = column.clone()
        nudged[3] += nudge  # now the one, now the other twin is the largest
        assert stable_signs(nudged[:, None]).tolist() == [-1.0]


def test_the_first_large_entry_becomes_positive():
    directions = torch.randn(50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    oriented = directions * stable_signs(directions)
    torch.testing.assert_close(stable_signs(oriented), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(-directions * stable_signs(-directions), oriented)


def test_a_column_of_zeros_keeps_its_sign():
    assert stable_signs(torch.zeros(4, 1)).tolist() == [1.0]
