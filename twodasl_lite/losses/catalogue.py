"""The losses of a training run: their names in configurations and logs, their titles in figures, what they learn from.

See chapter 14.
"""

from __future__ import annotations

from typing import NamedTuple


class Loss(NamedTuple):
    """A loss of the training loop.

    Attributes:
        name: Its name in configurations, logs and tables.
        title: Its name in figures.
        labelled: Whether it needs pictures with coefficients; otherwise 2D landmarks, or none, are enough.
    """

    name: str
    title: str
    labelled: bool


LOSSES = (
    Loss("pdc", "PDC", labelled=True),
    Loss("wpdc", "WPDC", labelled=True),
    Loss("vdc", "VDC", labelled=True),
    Loss("landmarks_2d", "2D landmarks", labelled=False),
    Loss("landmarks_3d", "3D landmarks", labelled=False),
    Loss("cycle", "cycle", labelled=False),
    Loss("critic", "self-critic", labelled=False),
    Loss("prior", "prior", labelled=False),
)
"""All losses, in the order of tables and figures."""

LOSS_NAMES = tuple(loss.name for loss in LOSSES)
"""Names of all losses."""
LOSS_TITLES = {loss.name: loss.title for loss in LOSSES}
"""Name of a loss to its title."""
SUPERVISED = tuple(loss.name for loss in LOSSES if loss.labelled)
"""Losses on labelled pictures."""
SELF_SUPERVISED = tuple(loss.name for loss in LOSSES if not loss.labelled)
"""Losses on pictures with only 2D landmarks."""
