"""Figures of errors: the positions of what is drawn, and errors for empty input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import ShapeError, ValueRangeError
from twodasl_lite.evaluation import summarise
from twodasl_lite.viz.evaluation_figures import draw_ablation, draw_ced, draw_yaw_bars, worst_cases

agg = pytest.importorskip("matplotlib.backends.backend_agg", reason="matplotlib comes with the extra book")
matplotlib = pytest.importorskip("matplotlib.figure")

YAW = torch.tensor([0.0, 10.0, -20.0, 40.0, -50.0, 70.0, -80.0])


@pytest.fixture
def ax():
    figure = matplotlib.Figure(figsize=(6, 4))
    agg.FigureCanvasAgg(figure)
    return figure.subplots()


def tables():
    errors = torch.tensor([0.02, 0.03, 0.02, 0.04, 0.05, 0.06, 0.08])
    return {
        "plain": summarise(errors, YAW),
        "better": summarise(0.8 * errors, YAW),
        "worse": summarise(2 * errors, YAW),
    }


def test_curve_rises_to_the_answered_part(ax) -> None:
    draw_ced(ax, {"a": torch.tensor([0.01, 0.03, torch.nan, 0.2]), "b": torch.tensor([0.0, 0.0])})
    first, second = ax.get_lines()
    assert first.get_ydata()[-1] == 50
    assert second.get_ydata()[0] == 100
    assert first.get_linestyle() != second.get_linestyle()
    assert "AUC 1.000" in ax.get_legend().get_texts()[1].get_text()
    with pytest.raises(ShapeError):
        draw_ced(ax, {})


def test_bars_are_the_tables_in_per_cent(ax) -> None:
    shown = tables()
    draw_yaw_bars(ax, shown)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(3, 5)
    np.testing.assert_allclose(heights, [[100 * value for value in table.values()] for table in shown.values()])
    assert [label.get_text() for label in ax.get_xticklabels()][2:] == ["> 60°", "balanced", "mean"]
    ax.figure.canvas.draw()


def test_bars_with_an_empty_bin(ax) -> None:
    draw_yaw_bars(ax, {"frontal": summarise(torch.tensor([0.02, 0.03]), torch.zeros(2))})
    ax.figure.canvas.draw()
    assert ax.patches[1].get_height() == 0


def test_ablation_names_changes_against_the_reference(ax) -> None:
    draw_ablation(ax, tables())
    texts = [text.get_text() for text in ax.texts]
    assert texts[0] == "4.61"
    assert texts[1].endswith("-20.0 %")
    assert texts[2].endswith("+100.0 %")
    assert [label.get_text() for label in ax.get_yticklabels()] == list(tables())
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is at the top
    with pytest.raises(ValueRangeError, match="reference: found 'none'"):
        draw_ablation(ax, tables(), reference="none")


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
