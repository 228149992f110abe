"""Figures of errors: the positions of what is drawn, and errors for empty input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError
from twodasl_lite.viz.evaluation_figures import draw_ced, worst_cases

agg = pytest.importorskip("matplotlib.backends.backend_agg", reason="matplotlib comes with the extra book")
matplotlib = pytest.importorskip("matplotlib.figure")

YAW = torch.tensor([0.0, 10.0, -20.0, 40.0, -50.0, 70.0, -80.0])


@pytest.fixture
def ax():
    figure = matplotlib.Figure(figsize=(6, 4))
    agg.FigureCanvasAgg(figure)
    return figure.subplots()


def test_curve_rises_to_the_answered_part(ax) -> None:
    draw_ced(ax, {"a": torch.tensor([0.01, 0.03, torch.nan, 0.2]), "b": torch.tensor([0.0, 0.0])})
    first, second = ax.get_lines()
    assert first.get_ydata()[-1] == 50
    assert second.get_ydata()[0] == 100
    assert first.get_linestyle() != second.get_linestyle()
    assert "AUC 1.000" in ax.get_legend().get_texts()[1].get_text()
    with pytest.raises(ShapeError):
        draw_ced(ax, {})


def test_worst_cases_have_their_places() -> None:
    truth = torch.rand(3, 68, 2, generator=torch.Generator().manual_seed(0)) * 100 + 100
    photos = [np.full((300, 300, 3), 120, np.uint8), None, np.full((300, 300, 3), 90, np.uint8)]
    predicted = truth.clone()
    predicted[2] += 5e4  # far outside the photo
    sheet = worst_cases(photos, predicted, truth, ["a: 1 %", "b", "c"], columns=2, cell=100)
    assert sheet.shape == (2 * 122, 200, 3)
    assert (sheet[:100, 100:] == 200).all(axis=-1).mean() > 0.3  # grey where the photo is missing
    assert (sheet[100:122, :100] < 100).any()  # a caption
    yellow = (sheet[122:222, :100].astype(int) - [240, 228, 66]).__abs__().sum(axis=-1) < 60
    assert yellow.sum() > 100  # the truth is shown where the prediction is out of reach
    with pytest.raises(ShapeError, match="3 photos, 2 predictions"):
        worst_cases(photos, predicted[:2], truth, ["a", "b", "c"])
