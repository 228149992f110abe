"""2DASL, small and complete: 3D faces from single pictures, learnt with the help of 2D pictures.

The package behind the book. Its floors, each standing only on those below it:

1. ``errors``, ``archive``, ``settings``, ``coefficients``, ``camera``, ``landmarks``, ``landmark_files``, ``images``,
   ``render``, ``least_squares``, ``networks``, ``evaluation``: the words of the field, each alone.
2. ``morphable``: the face: the linear model, how one is built, the embedded one, readers for those of others.
3. ``decode``: 62 numbers to vertices and landmarks in pixels, the one road everybody takes.
4. ``data``, ``losses``, ``fitting``, ``prediction``, ``detection``, ``face_search``, ``reconstruction``, ``tracking``,
   ``applications``, ``benchmark``, ``export``, ``texture``, ``unwrap``, ``viz``, ``examples``: pictures with answers;
   what is wrong with an answer; answers without a network, and with one; files for other programs; what a reader sees.
5. ``training``, ``trained``: the loop: networks meet data and losses; what it has made.
6. ``cli``, ``commands`` and ``course``: words from a person become calls; coursework for a class.

Importing it needs torch, numpy and opencv alone. For a photo of your own::

    from twodasl_lite import reconstruct

    faces = reconstruct("me.jpg")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twodasl_lite.reconstruction import reconstruct as reconstruct

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Looked up when it is used, so that importing the package stays quick.
    if name == "reconstruct":
        from twodasl_lite.reconstruction import reconstruct

        return reconstruct
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
