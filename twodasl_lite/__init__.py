"""2DASL, small and complete: 3D faces from single pictures, learnt with the help of 2D pictures.

The package behind the book. Its rooms, from the ground up; a room imports only from floors below it, and its own first
lines say what lives there, what it may import and which chapters explain it:

1. :mod:`~twodasl_lite.base`: errors, files, settings.
2. :mod:`~twodasl_lite.geometry`, :mod:`~twodasl_lite.render`: 62 numbers, camera, landmarks, photos; from a mesh to a
   picture.
3. :mod:`~twodasl_lite.faces`: face models, from coefficients to pixels and, by fitting, back;
   :mod:`~twodasl_lite.course`: coursework.
4. :mod:`~twodasl_lite.worlds`: pictures that are drawn; :mod:`~twodasl_lite.losses`; :mod:`~twodasl_lite.networks`.
5. :mod:`~twodasl_lite.datasets`: pictures that are read.
6. :mod:`~twodasl_lite.evaluation`: how good an answer is.
7. :mod:`~twodasl_lite.training`: networks meet pictures and losses; :mod:`~twodasl_lite.viz`: what a reader sees.
8. :mod:`~twodasl_lite.apps`: a photo becomes a mesh; the command ``twodasl``.

What most programs need has a short name here, and is imported when it is first used::

    import twodasl_lite as t

    model = t.load_face_model(t.CoefficientLayout())
    faces = t.reconstruct("me.jpg")

``dir(t)`` lists these names. Importing the package needs nothing; using it needs torch, numpy and opencv.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twodasl_lite import evaluation as evaluation
    from twodasl_lite import losses as losses
    from twodasl_lite import networks as networks
    from twodasl_lite import render as render
    from twodasl_lite import viz as viz
    from twodasl_lite import worlds as worlds
    from twodasl_lite.apps.export import export_mesh as export_mesh
    from twodasl_lite.apps.reconstruction import reconstruct as reconstruct
    from twodasl_lite.base.errors import TwodaslError as TwodaslError
    from twodasl_lite.datasets.examples import astronaut as astronaut
    from twodasl_lite.evaluation import nme as nme
    from twodasl_lite.faces import MorphableModel as MorphableModel
    from twodasl_lite.faces import load_face_model as load_face_model
    from twodasl_lite.faces import read_face_model as read_face_model
    from twodasl_lite.faces.decode import decode as decode
    from twodasl_lite.faces.decode import decode_landmarks as decode_landmarks
    from twodasl_lite.faces.fitting import fit_landmarks as fit_landmarks
    from twodasl_lite.geometry.coefficients import CoefficientLayout as CoefficientLayout
    from twodasl_lite.geometry.coefficients import Coefficients as Coefficients
    from twodasl_lite.geometry.coefficients import Whitening as Whitening
    from twodasl_lite.geometry.face_batch import FaceBatch as FaceBatch
    from twodasl_lite.geometry.photos import read_photo as read_photo
    from twodasl_lite.networks.prediction import predict_with as predict_with
    from twodasl_lite.networks.trained import trained_regressor as trained_regressor
    from twodasl_lite.worlds.synthetic import SyntheticFaces as SyntheticFaces

__version__ = "0.1.0"

# Public names and the modules that hold them; rooms hold themselves.
_HOMES = {
    "TwodaslError": "base.errors",
    "Coefficients": "geometry.coefficients",
    "CoefficientLayout": "geometry.coefficients",
    "Whitening": "geometry.coefficients",
    "FaceBatch": "geometry.face_batch",
    "read_photo": "geometry.photos",
    "MorphableModel": "faces",
    "load_face_model": "faces",
    "read_face_model": "faces",
    "decode": "faces.decode",
    "decode_landmarks": "faces.decode",
    "fit_landmarks": "faces.fitting",
    "SyntheticFaces": "worlds.synthetic",
    "astronaut": "datasets.examples",
    "trained_regressor": "networks.trained",
    "predict_with": "networks.prediction",
    "nme": "evaluation",
    "export_mesh": "apps.export",
    "reconstruct": "apps.reconstruction",
    "evaluation": "evaluation",
    "losses": "losses",
    "networks": "networks",
    "render": "render",
    "viz": "viz",
    "worlds": "worlds",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Import the module that holds ``name`` when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{home}")
    return module if name == home else getattr(module, name)


def __dir__() -> list[str]:
    """The public names."""
    return list(__all__)
