"""Learning curves from a run's log (for print, for the page, and live in a notebook) and figures of the ablation table.

Rows are the lines of a run's ``log.jsonl`` (see ``read_log``): dictionaries with ``kind`` and ``step``.
See chapter 8.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import ValueRangeError, require
from twodasl_lite.evaluation.measures import MEASURE_TITLES
from twodasl_lite.losses import LOSS_TITLES
from twodasl_lite.viz.palette import CATEGORICAL

Rows = Sequence[Mapping[str, Any]]

_DASHES = ("-", "--", ":", "-.", (0, (7, 2)), (0, (7, 2, 1, 2)))
_GRID = "rgba(128,128,128,0.25)"
_PLOTLY_MIME = "application/vnd.plotly.v1+json"
_LEAST_PAUSE = 0.5  # least time between two redraws of the live figure, in seconds


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of each value and up to ``width - 1`` before it."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def loss_curves(rows: Rows, smooth: int = 5) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every loss in a log as a curve over training steps.

    Args:
        rows: Rows of a log.
        smooth: Number of rows in the moving average.

    Returns:
        Name of the loss, as figures show it, to (steps, values).
    """
    curves = {}
    for name, title in LOSS_TITLES.items():
        points = [(row["step"], row[name]) for row in rows if row["kind"] == "train" and row.get(name) is not None]
        if points:
            steps, values = np.asarray(points, dtype=np.float64).T
            curves[title] = (steps, _smoothed(values, max(1, smooth)))
    return curves


def validation_curves(
    rows: Rows, measure: str = "landmarks_2d", *, bins: bool = True
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Validation errors in a log, in per cent: balanced, and by yaw bin.

    Args:
        rows: Rows of a log.
        measure: ``"landmarks_2d"`` or ``"landmarks_3d"``.
        bins: Whether to include the yaw bins.

    Returns:
        ``"balanced"`` and the names of the bins to (steps, per cent); empty if the log has no validation.

    Raises:
        ValueRangeError: If the log does not contain the measure.
    """
    found = [row for row in rows if row["kind"] == "validation"]
    if not found:
        return {}
    if any(measure not in row for row in found):
        known = ", ".join(name for name in MEASURE_TITLES if name in found[0])
        raise ValueRangeError(f"measure: found {measure!r}; expected one of {known}")
    steps = np.array([row["step"] for row in found], dtype=np.float64)

    def per_cent(values: list[float | None]) -> tuple[np.ndarray, np.ndarray]:
        return steps, 100 * np.array([np.nan if value is None else value for value in values])

    curves = {"balanced": per_cent([row[measure]["balanced"] for row in found])}
    if bins:
        for name in found[0][measure]["bins"]:
            curves[f"|yaw| {name}°"] = per_cent([row[measure]["bins"][name] for row in found])
    return curves


# ------------------------------------------------------------------------------------------------------- for print
def _stages(rows: Rows) -> list[tuple[str, int]]:
    """Name and first step of every stage but the first; a stage begins where the losses on labelled pictures change."""
    changes, before = [], None
    for row in rows:
        if row["kind"] != "train":
            continue
        losses = tuple(name for name in ("pdc", "wpdc", "vdc") if name in row)
        if before is not None and losses != before:
            changes.append((" + ".join(LOSS_TITLES[name] for name in losses), row["step"]))
        before = losses
    return changes


# ---------------------------------------------------------------------------------------------------- for the page
def learning_figure(rows: Rows, *, measure: str = "landmarks_2d", smooth: int = 5, height: int = 620):
    """Losses and validation errors of a run as an interactive figure.

    Args:
        rows: Rows of a log.
        measure: Name of the validation error.
        smooth: Number of log rows in the moving average of the losses.
        height: Height in pixels.

    Returns:
        A plotly figure whose two panels share the axis of steps.
    """
    go = require("plotly.graph_objects", "book", "learning curves")
    subplots = require("plotly.subplots", "book", "learning curves")
    titles = ("losses, not weighted", f"NME, % ({MEASURE_TITLES.get(measure, measure)})")
    figure = subplots.make_subplots(rows=2, cols=1, subplot_titles=titles, shared_xaxes=True, vertical_spacing=0.34)
    dashes = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
    panels = (loss_curves(rows, smooth), validation_curves(rows, measure))
    for panel, curves in enumerate(panels, start=1):
        for number, (name, (steps, values)) in enumerate(curves.items()):
            figure.add_trace(
                go.Scatter(
                    x=steps.tolist(),
                    y=[None if np.isnan(value) else float(f"{value:.4g}") for value in values],
                    name=name,
                    mode="lines",
                    line={"color": CATEGORICAL[number % len(CATEGORICAL)], "width": 2.2, "dash": dashes[number % 6]},
                    legend="legend" if panel == 1 else "legend2",
                ),
                row=panel,
                col=1,
            )
        for name, step in _stages(rows):
            figure.add_vline(x=step, line={"color": "grey", "width": 1, "dash": "dot"}, row=panel, col=1)
            if panel == 1:
                figure.add_annotation(
                    x=step, y=1, yref="y domain", text=f" {name}", showarrow=False, xanchor="left", row=1, col=1
                )
    figure.update_xaxes(gridcolor=_GRID, automargin=True)
    figure.update_xaxes(title_text="step", row=2, col=1)
    figure.update_yaxes(gridcolor=_GRID, automargin=True)
    figure.update_yaxes(type="log", dtick=1, exponentformat="power", row=1, col=1)
    figure.update_yaxes(rangemode="tozero", row=2, col=1)
    # Each legend below its panel: beside it, a narrow page would cut the names off.
    legend = {"orientation": "h", "x": 0, "xanchor": "left", "yanchor": "top", "bgcolor": "rgba(0,0,0,0)"}
    figure.update_layout(**_layout(height), legend={**legend, "y": 0.62}, legend2={**legend, "y": -0.14})
    return figure


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": height,
        "margin": {"l": 10, "r": 10, "t": 40, "b": 10},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": "#7d858f"},
        "hovermode": "x unified",
    }


class LiveCurves:
    """Learning curves that grow while a notebook trains: pass an instance to ``train`` as ``watch``.

    Args:
        measure: Name of the validation error.
        smooth: Number of log rows in the moving average of the losses.

    Example:
        >>> train(config, "runs/mine", watch=LiveCurves())  # doctest: +SKIP
    """

    def __init__(self, measure: str = "landmarks_2d", smooth: int = 5) -> None:
        self.measure, self.smooth = measure, smooth
        self.rows: list[Mapping[str, Any]] = []
        self._handle = None
        self._drawn = 0.0

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Add a row of the log, and redraw the figure if the last drawing is old enough."""
        self.rows.append(row)
        if time.perf_counter() - self._drawn < _LEAST_PAUSE and row["kind"] not in ("validation", "end", "pause"):
            return
        display = require("IPython.display", "book", "live learning curves")
        figure = learning_figure(self.rows, measure=self.measure, smooth=self.smooth)
        # As plain data: a figure object would display itself again below instead of updating in place.
        drawn = {_PLOTLY_MIME: json.loads(figure.to_json()), "text/plain": "learning curves"}
        if self._handle is None:
            self._handle = display.display(drawn, raw=True, display_id=True)
        else:
            self._handle.update(drawn, raw=True)
        self._drawn = time.perf_counter()


# ---------------------------------------------------------------------------------------------------- the ablation
def ablation_figure(table: Mapping[str, Any], measure: str = "landmarks_2d", *, height: int | None = None):
    """The ablation table as a figure: one point per row and yaw bin, with its interval.

    Args:
        table: The contents of ``table.json``.
        measure: Name of the error.
        height: Height in pixels; by default it grows with the number of rows.

    Returns:
        A plotly figure.

    Raises:
        ValueRangeError: If the table does not contain the measure.
    """
    go = require("plotly.graph_objects", "book", "the ablation's figure")
    rows = table["rows"]
    first = next(iter(rows.values()))
    if measure not in first:
        known = ", ".join(name for name in MEASURE_TITLES if name in first)
        raise ValueRangeError(f"measure: found {measure!r}; expected one of {known}")
    names = list(rows)
    figure = go.Figure()
    columns = ["balanced", *first[measure]["bins"]]
    symbols = ("diamond", "circle", "square", "triangle-up")
    for number, column in enumerate(columns):
        entries = [rows[name][measure] for name in names]
        values = [entry["bins"].get(column, entry["balanced"]) for entry in entries]
        ends = [entry["intervals"][column] for entry in entries]
        figure.add_trace(
            go.Scatter(
                x=[100 * value for value in values],
                y=[place + (number - (len(columns) - 1) / 2) * 0.17 for place in range(len(names))],
                customdata=names,
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (high - value) for value, (_, high) in zip(values, ends, strict=True)],
                    "arrayminus": [100 * (value - low) for value, (low, _) in zip(values, ends, strict=True)],
                    "thickness": 1.5,
                    "width": 4,
                },
                mode="markers",
                name=column if column == "balanced" else f"|yaw| {column}°",
                marker={
                    "color": CATEGORICAL[number % len(CATEGORICAL)],
                    "symbol": symbols[number % 4],
                    "size": 11 if column == "balanced" else 8,
                },
                hovertemplate="%{customdata}: %{x:.2f} %",
            )
        )
    # Logarithmic, so that a baseline with several times the error does not squeeze the others together.
    figure.update_xaxes(
        title_text=f"NME, % ({MEASURE_TITLES[measure]})",
        type="log",
        tickvals=[1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70],
        gridcolor=_GRID,
        automargin=True,
    )
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[name[0] + name[1:].replace("+", "<br>+") for name in names],  # two lines, for narrow pages
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        automargin=True,
    )
    for place in range(1, len(names)):
        figure.add_hline(y=place - 0.5, line={"color": _GRID, "width": 1})
    figure.update_layout(**_layout(height or 130 + 60 * len(names)))
    figure.update_layout(hovermode="closest", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    return figure


def draw_gains(axes, table: Mapping[str, Any], measure: str = "landmarks_3d") -> None:
    """Draw how much each row gains over the baseline along the axis of a one-axis sweep: curves with intervals.

    Args:
        axes: The matplotlib axes.
        table: The contents of ``sweep.json``. A row may lack some of the settings.
        measure: Name of the error. Below zero the row's error is smaller than the baseline's.

    Raises:
        ValueRangeError: If the sweep does not have one axis, or lacks the measure.
    """
    if len(table["axes"]) != 1:
        raise ValueRangeError(f"table: found {len(table['axes'])} axes; expected one")
    (axis,) = table["axes"]
    rows = list(dict.fromkeys(row for cell in table["cells"] for row in cell["against"]))
    known = table["cells"][0]["against"][rows[0]]
    check_choice("measure", measure, known)
    axes.axhline(0, color="grey", linewidth=1)
    for number, row in enumerate(rows):
        cells = [cell for cell in table["cells"] if row in cell["against"]]
        found = [cell["against"][row][measure] for cell in cells]
        values, low, high = (100 * np.array([one[key] for one in found]) for key in ("value", "low", "high"))
        aside = 0.08 * (number - (len(rows) - 1) / 2)  # so that intervals do not hide one another
        axes.errorbar(
            [axis["settings"].index(cell["place"][axis["name"]]) + aside for cell in cells],
            values,
            yerr=(values - low, high - values),
            color=CATEGORICAL[number % len(CATEGORICAL)],
            marker="osD^v"[number % 5],
            markersize=4.5,
            linewidth=1.6,
            elinewidth=1,
            capsize=2,
            label=row.removeprefix(table["baseline"]) or row,
        )
    axes.set_xticks(range(len(axis["settings"])), axis["settings"])
    axes.set(xlabel=axis["title"], ylabel="change, points of NME", title=MEASURE_TITLES[measure])
    axes.spines[["top", "right"]].set_visible(False)


def draw_sweep(axes, table: Mapping[str, Any], row: str, measure: str = "landmarks_3d", *, limit: float = 2.0) -> None:
    """Draw how much a row gains over the baseline in each setting of a two-axis sweep: a heat map with intervals.

    Args:
        axes: The matplotlib axes.
        table: The contents of ``sweep.json``.
        row: Name of the row.
        measure: Name of the error.
        limit: Change in percentage points at which the colour scale ends. Blue means a smaller error.

    Raises:
        ValueRangeError: If the sweep does not have two axes, or lacks the row or the measure.
    """
    if len(table["axes"]) != 2:
        raise ValueRangeError(f"table: found {len(table['axes'])} axes; expected two")
    known = table["cells"][0]["against"]
    check_choice("row", row, known)
    if measure not in known[row]:
        raise ValueRangeError(f"measure: found {measure!r}; expected one of {', '.join(known[row])}")
    down, across = table["axes"]
    values = np.full((len(down["settings"]), len(across["settings"])), np.nan)
    for cell in table["cells"]:
        place = tuple(axis["settings"].index(cell["place"][axis["name"]]) for axis in (down, across))
        found = {key: 100 * value for key, value in cell["against"][row][measure].items()}
        values[place] = found["value"]
        clear = not found["low"] <= 0 <= found["high"]
        dark = abs(found["value"]) > 0.6 * limit
        axes.text(
            *place[::-1],
            f"{found['value']:+.2f}\n[{found['low']:+.2f}, {found['high']:+.2f}]",
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize="small",
            fontweight="bold" if clear else "normal",
        )
    axes.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(values.shape[1]), across["settings"])
    axes.set_yticks(range(values.shape[0]), down["settings"])
    axes.set(xlabel=across["title"], ylabel=down["title"], title=MEASURE_TITLES[measure])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
