"""2DASL, small and complete: 3D faces from single pictures, learnt with the help of 2D pictures.

The package behind the book. Its layers; each imports only from itself and from those before it in this list:

1. ``errors``, ``archive``, ``settings``, ``coefficients``, ``camera``, ``landmarks``, ``landmark_files``, ``images``,
   ``render``, ``least_squares``, ``networks``, ``evaluation``: the building blocks.
2. ``morphable``: the linear face model: building one, the embedded one, readers for published ones.
3. ``decode``: from 62 numbers to vertices and landmarks in pixels, used by everything below.
4. ``data``, ``losses``, ``fitting``, ``prediction``, ``detection``, ``face_search``, ``reconstruction``, ``tracking``,
   ``applications``, ``benchmark``, ``export``, ``texture``, ``unwrap``, ``viz``, ``examples``: datasets with ground
   truth, losses, fitting without a network, inference with one, files for other programs, figures.
5. ``training``, ``trained``: the training loop, and the networks trained with it.
6. ``cli``, ``commands`` and ``course``: the command line, and coursework for a class.

Importing it needs only torch, numpy and opencv. For a photo of your own::

    from twodasl_lite import reconstruct

    faces = reconstruct("me.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twodasl_lite.apps.reconstruction import reconstruct as reconstruct

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Imported on first use, so that importing the package stays fast.
    if name == "reconstruct":
        from twodasl_lite.apps.reconstruction import reconstruct

        return reconstruct
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
