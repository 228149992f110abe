"""Everything a reader sees: the face explorer, figures for print, and plotly figures for the page.

May import ``base``, ``geometry``, ``render``, ``faces``, ``worlds``, ``datasets``, ``losses``, ``networks`` and
``evaluation``. See chapter 1.

Submodules are imported on first use: ``import twodasl_lite.viz`` needs neither matplotlib nor plotly nor anywidget.
"""

from __future__ import annotations

import importlib

_HOMES = {
    "FaceExplorer": "explorer",
    "StaticExplorer": "explorer_page",
    "face_explorer_html": "explorer_page",
    "PackedModel": "packing",
    "pack_model": "packing",
    "coefficient_figure": "figure_coefficient",
    "landmark_consistency_figure": "figure_landmarks",
    "chain_figure": "figure_chain",
    "critic_figure": "figure_critic",
    "training_figure": "figure_training",
    "contact_sheet": "figures",
    "colour_by": "figures",
    "draw_landmarks": "figures",
    "overlay": "figures",
    "shaded_mesh": "figures",
    "turn": "figures",
    "visible_vertices": "shading",
    "curve_figure": "plotly_figures",
    "mesh_figure": "plotly_figures",
    "slider_frames": "plotly_figures",
    "LiveCurves": "training_figures",
    "ablation_figure": "training_figures",
    "learning_figure": "training_figures",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    """Import the module that defines ``name`` on first access."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
