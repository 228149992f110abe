"""Figures in the house style: the package's own pass the lint, and the lint finds what is wrong with bad ones."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tests.figure_lint import LEAST_CONTRAST, figure_problems
from twodasl_lite.viz.evaluation_figures import draw_ced
from twodasl_lite.viz.palette import HOUSE_STYLE, INK, MUTED, contrast


@pytest.fixture(autouse=True)
def house_style():
    with plt.rc_context(HOUSE_STYLE):
        yield
    plt.close("all")


def test_contrast_of_known_pairs():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21.0)
    assert contrast("#123456", "#123456") == pytest.approx(1.0)
    assert contrast("#767676", "#FFFFFF") == pytest.approx(4.54, abs=0.01)  # the example of the guidelines


def test_colours_of_text_can_be_read():
    for colour in (INK, MUTED):
        assert contrast(colour, "#FFFFFF") >= LEAST_CONTRAST


def test_house_style_holds_settings_of_matplotlib():
    assert set(HOUSE_STYLE) <= set(matplotlib.rcParams)
    assert min(value for name, value in HOUSE_STYLE.items() if name.endswith("size")) >= 9


def test_figures_of_the_package_pass():
    generator = torch.Generator().manual_seed(0)
    errors = {name: 0.03 + 0.02 * torch.rand(300, generator=generator) for name in ("a method", "another")}
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    draw_ced(axes, {name: values + 0.02 for name, values in errors.items()})
    assert [problem for problem in figure_problems(figure) if "legend" not in problem] == []


def test_text_outside_its_figure_is_found():
    figure, axes = plt.subplots(figsize=(2, 2))
    axes.text(3.0, 0.5, "far to the right", transform=axes.transAxes)
    assert any("over the edge" in problem for problem in figure_problems(figure))


def test_pale_text_is_found():
    figure, axes = plt.subplots()
    axes.set_title("too pale", color="#AAAAAA")
    assert any("contrast" in problem for problem in figure_problems(figure))


def test_a_legend_over_data_is_found_and_one_beside_it_is_not():
    figure, axes = plt.subplots()
    axes.plot(np.linspace(0, 1, 50), np.linspace(0, 1, 50), label="a line")
    axes.legend(loc="upper right")
    assert any("legend" in problem for problem in figure_problems(figure))
    axes.legend(loc="lower right")
    assert figure_problems(figure) == []


def test_a_plain_figure_has_no_problem():
    figure, axes = plt.subplots(layout="constrained")
    axes.plot([0, 1], [0, 1])
    axes.set(xlabel="step", ylabel="NME (%)", title="a figure")
    assert figure_problems(figure) == []
