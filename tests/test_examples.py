"""The example portrait."""

from __future__ import annotations

import pytest
import torch

from twodasl_lite.geometry.landmarks import GROUPS, MIRROR

pytest.importorskip("skimage", reason="scikit-image comes with the book extra")


def test_the_portrait_and_its_landmarks_belong_together() -> None:
    from twodasl_lite.datasets.examples import astronaut

    photo, landmarks, visible = astronaut()
    assert photo.shape == (512, 512, 3)
    assert landmarks.shape == (68, 2)
    assert visible.dtype == torch.bool
    assert int(visible.sum()) >= 60
    # Pupils are dark, teeth are light, and the face is upright and nearly frontal.
    dark = photo[landmarks[GROUPS["left_eye"], 1].mean().int(), landmarks[GROUPS["left_eye"], 0].mean().int()]
    teeth = landmarks[60:68].mean(dim=0).int()
    assert dark.mean() < 100 < photo[teeth[1], teeth[0]].mean()
    assert landmarks[36:48, 1].max() < landmarks[30, 1] < landmarks[48:, 1].min() < landmarks[8, 1]
    width = landmarks[:, 0].max() - landmarks[:, 0].min()
    centre = (landmarks[:, 0] + landmarks[MIRROR, 0]) / 2
    assert float(centre.std() / width) < 0.05
