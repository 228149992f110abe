"""Learning curves and the ablation's figure."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.figure_lint import figure_problems
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.viz.training_figures import (
    LiveCurves,
    ablation_figure,
    draw_gains,
    draw_sweep,
    learning_figure,
    loss_curves,
    validation_curves,
)


def table(value: float) -> dict:
    return {
        "bins": {"[0, 30]": value, "(30, 60]": 2 * value, "> 60": None},
        "balanced": 2 * value,
        "mean": value,
    }


def log() -> list[dict]:
    rows = [{"kind": "start", "step": 0}]
    for step in range(1, 11):
        loss = "wpdc" if step <= 6 else "vdc"
        rows.append({"kind": "train", "step": step, loss: 1.0 / step, "cycle": None if step == 3 else 0.5})
        if step % 5 == 0:
            rows.append({"kind": "validation", "step": step, "landmarks_2d": table(0.1 / step)})
    return rows


def test_loss_curves():
    curves = loss_curves(log(), smooth=2)
    assert set(curves) == {"WPDC", "VDC", "cycle"}
    steps, values = curves["WPDC"]
    assert steps.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(values[:3], [1, 0.75, (1 / 2 + 1 / 3) / 2])
    assert 3 not in curves["cycle"][0]  # a value that was not finite is left out


def test_validation_curves():
    curves = validation_curves(log())
    assert list(curves) == ["balanced", "|yaw| [0, 30]°", "|yaw| (30, 60]°", "|yaw| > 60°"]
    np.testing.assert_allclose(curves["balanced"][1], [4, 2])
    assert np.isnan(curves["|yaw| > 60°"][1]).all()
    assert validation_curves([]) == {}
    with pytest.raises(ValueRangeError, match="landmarks_2d"):
        validation_curves(log(), "landmarks_3d")


def test_learning_figure_has_all_curves_and_the_change_of_stage():
    figure = learning_figure(log())
    assert [trace.name for trace in figure.data][:4] == ["WPDC", "VDC", "cycle", "balanced"]
    assert {shape.x0 for shape in figure.layout.shapes} == {7}
    assert any("VDC" in note.text for note in figure.layout.annotations)
    assert figure.layout.yaxis.type == "log"
    assert len(learning_figure([]).data) == 0


def test_live_curves_update_one_display(monkeypatch):
    display = pytest.importorskip("IPython.display")
    shown, updates = [], []

    class Handle:
        def update(self, drawn, raw):
            assert raw  # a figure would display itself, and anew each time
            updates.append(drawn)

    def record(drawn, raw, display_id):
        assert raw
        assert display_id
        shown.append(drawn)
        return Handle()

    monkeypatch.setattr(display, "display", record)
    live = LiveCurves()
    for row in log():
        live(row)
    assert len(shown) == 1
    assert updates  # at the validations, whatever the clock says
    assert len(updates[-1]["application/vnd.plotly.v1+json"]["data"]) == len(learning_figure(log()).data)


def test_ablation_figure():
    entry = {
        **table(0.02),
        "bins": {"[0, 30]": 0.02, "(30, 60]": 0.03, "> 60": 0.04},
        "intervals": {name: [0.01, 0.05] for name in ("balanced", "[0, 30]", "(30, 60]", "> 60")},
    }
    rows = {name: {"landmarks_2d": entry} for name in ("labelled", "all")}
    figure = ablation_figure({"rows": rows})
    assert [trace.name for trace in figure.data] == ["balanced", "|yaw| [0, 30]°", "|yaw| (30, 60]°", "|yaw| > 60°"]
    balanced = figure.data[0]
    np.testing.assert_allclose(balanced.x, [4, 4])
    np.testing.assert_allclose(balanced.error_x.array, [1, 1])
    np.testing.assert_allclose(balanced.error_x.arrayminus, [3, 3])
    assert list(figure.layout.yaxis.ticktext) == ["labelled", "all"]
    with pytest.raises(ValueRangeError, match="found 'depth'; expected one of landmarks_2d"):
        ablation_figure({"rows": rows}, "depth")


def sweep(*differences: tuple[float, float, float]) -> dict:
    axes = [{"name": name, "title": name, "settings": ["few", "many"]} for name in ("points", "labels")]
    places = [{"points": down, "labels": across} for down in ("few", "many") for across in ("few", "many")]
    cells = [
        {"place": place, "against": {"all": {"landmarks_3d": dict(zip(("value", "low", "high"), ends, strict=True))}}}
        for place, ends in zip(places, differences, strict=False)
    ]
    return {"axes": axes, "cells": cells}


def test_sweep_figure():
    figure, axes = plt.subplots(layout="constrained")
    draw_sweep(axes, sweep((-0.01, -0.02, -0.005), (0.002, -0.001, 0.004), (0.02, 0.01, 0.03)), "all")
    texts = {text.get_text(): text for text in axes.texts}
    assert list(texts) == ["-1.00\n[-2.00, -0.50]", "+0.20\n[-0.10, +0.40]", "+2.00\n[+1.00, +3.00]"]
    assert [text.get_fontweight() for text in texts.values()] == ["bold", "normal", "bold"]  # clear of zero
    drawn = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(drawn, [[-1.0, 0.2], [2.0, np.nan]])  # a cell without runs stays empty
    assert texts["+2.00\n[+1.00, +3.00]"].get_position() == (0, 1)
    assert figure_problems(figure) == []
    plt.close(figure)
    for how, message in (({"row": "none"}, "one of all"), ({"row": "all", "measure": "none"}, "one of landmarks_3d")):
        with pytest.raises(ValueRangeError, match=message):
            draw_sweep(axes, sweep((0.0, 0.0, 0.0)), **how)
    with pytest.raises(ValueRangeError, match="1 axes; expected two"):
        draw_sweep(axes, {"axes": [{}], "cells": []}, "all")


def test_curves_of_a_sweep_with_one_axis():
    ends = {"value": -0.02, "low": -0.03, "high": 0.01}
    cells = [
        {"place": {"weight": "0.1"}, "against": {"+a+b": {"landmarks_3d": ends}, "+a+c": {"landmarks_3d": ends}}},
        {"place": {"weight": "10"}, "against": {"+a+b": {"landmarks_3d": {"value": 0.06, "low": 0.05, "high": 0.09}}}},
    ]
    axis = {"name": "weight", "title": "weight", "settings": ["0.1", "1", "10"]}
    table = {"axes": [axis], "baseline": "+a", "cells": cells}
    figure, axes = plt.subplots(layout="constrained")
    draw_gains(axes, table)
    first, second = (container.lines[0] for container in axes.containers)
    np.testing.assert_allclose(first.get_ydata(), [-2, 6])
    assert [round(x) for x in first.get_xdata()] == [0, 2]  # the setting without runs stays empty
    np.testing.assert_allclose(second.get_ydata(), [-2])
    (bars,) = axes.containers[0].lines[2]
    np.testing.assert_allclose(np.array(bars.get_segments()[0])[:, 1], [-3, 1])
    assert axes.get_legend_handles_labels()[1] == ["+b", "+c"]
    assert figure_problems(figure) == []
    plt.close(figure)
    with pytest.raises(ValueRangeError, match="found 'none'; expected one of landmarks_3d"):
        draw_gains(axes, table, "none")
    with pytest.raises(ValueRangeError, match="2 axes; expected one"):
        draw_gains(axes, sweep((0.0, 0.0, 0.0)))
