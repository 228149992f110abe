"""Random expressions are plausible."""

from __future__ import annotations

import torch

from twodasl_lite.faces.activations import OPPOSITES, plausible_activations, units_of

NAMES = ["jawOpen", "mouthClose", "mouthSmile_L", "mouthSmile_R", "mouthFrown_L", "mouthFrown_R", "mouthPucker"]
NAMES += ["eyeBlink_L", "eyeBlink_R", "eyeWide_L", "eyeWide_R", "eyeLookIn_L", "eyeLookIn_R", "eyeLookOut_L"]
NAMES += ["eyeLookOut_R", "browInnerUp", "cheekPuff", "dimple"]


def draw(num: int = 4000, seed: int = 0) -> dict[str, torch.Tensor]:
    values = plausible_activations(NAMES, torch.full((len(NAMES),), 0.4), num, torch.Generator().manual_seed(seed))
    assert values.shape == (num, len(NAMES))
    assert float(values.min()) >= 0
    assert float(values.max()) <= 1
    return dict(zip(NAMES, values.T, strict=True))


def test_units_are_names_without_sides() -> None:
    assert units_of(["a_L", "b", "a_R"]) == {"a": [0, 2], "b": [1]}


def test_few_units_move_at_a_time() -> None:
    active = torch.stack(list(draw().values())) > 0
    assert 2 < float(active.sum(dim=0).float().mean()) < 7
    assert bool((active.float().mean(dim=1) > 0.02).all())  # but each of them sometimes


def test_opposites_exclude_each_other() -> None:
    faces = draw()
    sides = {unit: [NAMES[k] for k in members] for unit, members in units_of(NAMES).items()}
    for first, second in OPPOSITES:
        for a in sides.get(first, []):
            for b in sides.get(second, []):
                assert not bool(((faces[a] > 0) & (faces[b] > 0)).any()), (a, b)


def test_sides_are_mostly_alike_and_eyes_look_the_same_way() -> None:
    faces = draw()
    smiles = (faces["mouthSmile_L"] > 0) | (faces["mouthSmile_R"] > 0)
    both = (faces["mouthSmile_L"] > 0) & (faces["mouthSmile_R"] > 0)
    assert 0.75 < float(both.sum() / smiles.sum()) < 0.95
    assert torch.equal(faces["eyeLookIn_L"], faces["eyeLookOut_R"])
    assert not bool(((faces["eyeLookIn_L"] > 0) & (faces["eyeLookIn_R"] > 0)).any())
    assert bool((faces["mouthClose"] <= faces["jawOpen"] + 1e-6).float().mean() > 0.9)


def test_the_same_seed_gives_the_same_faces_and_unknown_names_work() -> None:
    assert torch.equal(draw(seed=5)["jawOpen"], draw(seed=5)["jawOpen"])
    values = plausible_activations(["one", "two"], torch.ones(2), 100, torch.Generator().manual_seed(0))
    assert bool((values > 0).any(dim=0).all())
