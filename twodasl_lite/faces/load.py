"""Which face: the embedded one, or the file that the environment variable ``TWODASL_FACE_MODEL`` names.

This stands above the embedded face and the readers, and neither needs the other's choice. See chapters 2 and 5.
"""

from __future__ import annotations

import os

import torch

from twodasl_lite.faces.embedded.recipe import embedded_face_model
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import read_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout

MODEL_VARIABLE = "TWODASL_FACE_MODEL"
"""The environment variable that names a face model to use in place of the embedded one."""


def load_face_model(layout: CoefficientLayout | None = None, *, device: torch.device | str = "cpu") -> MorphableModel:
    """The face model of the book.

    Args:
        layout: Reduce the model to these numbers of coefficients, keeping those of largest energy;
            ``CoefficientLayout()`` gives the paper's 40 + 10. The full model by default, with named expressions.
        device: Device of the model.

    Returns:
        The embedded face, or the model in the file or folder that the environment variable ``TWODASL_FACE_MODEL``
        names, of any format that :mod:`twodasl_lite.faces.readers` knows.

    Raises:
        FileFormatError: If that file is missing or not a model.
        MissingDependencyError: If its format needs a package that is not installed.
        ValueRangeError: If the layout asks for more components than the model has.

    Example:
        >>> load_face_model(CoefficientLayout()).layout.size
        62
    """
    path = os.environ.get(MODEL_VARIABLE)
    model = read_face_model(path) if path else embedded_face_model()
    if layout is not None:
        model = model.with_layout(layout)
    return model.to(device)
