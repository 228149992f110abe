"""Random numbers by picture: the same in any batch, and random."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.base.errors import InputTypeError, ValueRangeError
from twodasl_lite.worlds.draws import Draws, Recipe


def split_mix(value: int) -> int:
    """SplitMix64's finaliser as published, in Python's own integers."""
    mask = 2**64 - 1
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return value ^ (value >> 31)


def test_bits_are_split_mix(device):
    values = [0, 1, 2**63, 2**64 - 1, 12345678901234567890]
    from twodasl_lite.worlds.draws import _mix, _signed

    mixed = _mix(torch.tensor([_signed(value) for value in values], device=device))
    assert [value % 2**64 for value in mixed.tolist()] == [split_mix(value) for value in values]


def test_numbers_depend_on_seed_picture_purpose_and_nothing_else(device):
    many = Draws(3, torch.arange(100, device=device))
    few = Draws(3, torch.tensor([41, 7], device=device))
    assert torch.equal(many.uniform("light", 5)[[41, 7]], few.uniform("light", 5))
    assert torch.equal(many.take(torch.tensor([41, 7], device=device)).normal("x"), few.normal("x"))
    assert torch.equal(few.uniform("light", 9)[:, :5], few.uniform("light", 5))
    assert not torch.equal(few.uniform("light", 5), few.uniform("lamp", 5))
    assert not torch.equal(few.uniform("light", 5), Draws(4, few.pictures).uniform("light", 5))
    assert torch.equal(few.uniform("light", 5).cpu(), Draws(3, torch.tensor([41, 7])).uniform("light", 5))


def test_uniform_is_uniform():
    values = Draws(0, torch.arange(1000)).uniform("any", 200)
    assert values.min() > 0
    assert values.max() < 1
    counts = torch.histc(values, 100, 0, 1)
    chi_squared = ((counts - 2000) ** 2 / 2000).sum()
    assert 50 < chi_squared < 170  # 99 degrees of freedom: beyond is less likely than one in 10,000
    centred = values - 0.5
    for lag in (1, 2, 7):  # neither neighbours within a picture nor neighbouring pictures are alike
        assert (centred[:, lag:] * centred[:, :-lag]).mean().abs() < 1e-3
        assert (centred[lag:] * centred[:-lag]).mean().abs() < 1e-3
    assert (centred * (Draws(1, torch.arange(1000)).uniform("any", 200) - 0.5)).mean().abs() < 1e-3


def test_normal_is_normal():
    values = Draws(0, torch.arange(1000)).normal("any", 200).double()
    assert torch.isfinite(values).all()
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3)):
        assert abs(float((values**power).mean()) - moment) < 0.05
    assert Draws(0, torch.arange(1000)).normal("any", 200, clip=1.5).abs().max() == 1.5


def test_choice_and_chance():
    draws = Draws(-5, torch.arange(6000))
    assert torch.bincount(draws.choice("kind", 6)).min() > 850
    assert abs(float(draws.chance("rare", 0.1).float().mean()) - 0.1) < 0.02
    assert not draws.chance("never", 0.0).any()
    assert draws.chance("always", 1.0).all()
    low, high = draws.between("some", (2.0, 3.0)).aminmax()
    assert 2 <= low < high <= 3


@pytest.mark.parametrize("seed", [0, -1, 2**31, 2**63, 2**200])
def test_any_whole_number_is_a_seed(seed):
    assert torch.isfinite(Draws(seed, torch.arange(2)).normal("x", 3)).all()


def test_bad_input():
    with pytest.raises(InputTypeError, match="seed"):
        Draws(0.5, torch.arange(2))
    with pytest.raises(ValueRangeError, match="glasses"):
        Draws(0, torch.arange(2)).chance("glasses", 1.5)


def test_a_recipe_changes_no_number() -> None:
    recipe, pictures = Recipe(), torch.tensor([4, 9, 2**40])
    plain = Draws(5, pictures)
    for _ in range(3):  # written down, then computed at once, then with one purpose more
        draws = Draws(5, pictures, recipe)
        assert torch.equal(draws.uniform("light", 2, 3), plain.uniform("light", 2, 3))
        assert torch.equal(draws.normal("shape", 40), plain.normal("shape", 40))
        assert torch.equal(draws.uniform("noise", 1000), plain.uniform("noise", 1000))  # too many to keep
        few = draws.take(torch.tensor([2, 0]))
        assert torch.equal(few.uniform("light", 2, 3), plain.uniform("light", 2, 3)[[2, 0]])
        assert torch.equal(few.choice("later", 7), plain.choice("later", 7)[[2, 0]])
    assert "noise" not in recipe.table(pictures.device).places


@pytest.mark.parametrize("whole", [False, True])
def test_only_chosen_pictures_change(whole: bool) -> None:
    draws, values = Draws(0, torch.arange(6), whole=whole), torch.arange(6.0)[:, None] * torch.ones(2)
    sizes = []

    def changed(draws, pick):
        sizes.append(draws.size)
        return -pick(values) - draws.uniform("x")[:, None]

    chosen = torch.tensor([0, 1, 0, 0, 1, 1], dtype=torch.bool)
    wanted = torch.where(chosen[:, None], -values - draws.uniform("x")[:, None], values)
    assert torch.equal(draws.change(chosen, values, changed), wanted)
    assert sizes == [6 if whole else 3]
    assert torch.equal(draws.change(chosen & False, values, changed), values)
