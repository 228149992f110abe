"""Problems of a matplotlib figure, in words: text outside, legends over data, text too pale to read."""

from __future__ import annotations

import matplotlib.colors
import matplotlib.text
import numpy as np

from twodasl_lite.viz.palette import contrast

LEAST_CONTRAST = 4.5
SLACK = 2.0  # pixels by which text may stand over the edge: anti-aliasing and rounding


def _texts(figure):
    """Visible texts with something in them."""
    for text in figure.findobj(matplotlib.text.Text):
        hidden = text.axes is not None and not text.axes.axison and text in text.axes.get_xticklabels()
        if text.get_visible() and text.get_text().strip() and not hidden:
            yield text


def _points_in(box, axes) -> int:
    """Number of points of the axes' lines and scatters that lie in a box in display coordinates."""
    count = 0
    for line in axes.get_lines():
        if line.get_transform().contains_branch(axes.transData):
            x, y = axes.transData.transform(np.column_stack([*map(np.asarray, line.get_data())]).astype(float)).T
            count += int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
    for scatter in axes.collections:
        offsets = np.ma.filled(np.ma.asarray(scatter.get_offsets(), dtype=float), np.nan)
        if len(offsets):
            x, y = axes.transData.transform(offsets).T
            count += int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
    return count


def figure_problems(figure) -> list[str]:
    """Problems of a drawn figure; empty when there are none."""
    figure.canvas.draw()
    renderer, frame = figure.canvas.get_renderer(), figure.bbox
    found = []
    for text in _texts(figure):
        box, words = text.get_window_extent(renderer), text.get_text().splitlines()[0]
        over = max(frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1)
        if over > SLACK and not text.get_clip_on():
            found.append(f"{words!r} stands {over:.0f} pixels over the edge")
        inside = text.axes is not None and len(text.axes.images) > 0  # on a picture its background is not known
        if not inside:
            colour = matplotlib.colors.to_hex(text.get_color())
            ratio = contrast(colour, matplotlib.colors.to_hex(figure.get_facecolor()))
            if ratio < LEAST_CONTRAST:
                found.append(f"{words!r} has a contrast of {ratio:.1f}, less than {LEAST_CONTRAST}")
    for axes in figure.axes:
        legend = axes.get_legend()
        if legend is not None and (covered := _points_in(legend.get_window_extent(renderer), axes)):
            found.append(f"a legend covers {covered} points")
    return found
