"""The book's example photograph: a portrait of the astronaut Eileen Collins.

The photo is by NASA and in the public domain; it is read from scikit-image. The 68 landmarks were placed by hand and
are part of this package. See chapter 4.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np
import torch

from twodasl_lite.base.errors import require
from twodasl_lite.geometry.landmarks import read_landmarks
from twodasl_lite.geometry.photos import as_photo

_LANDMARKS = "assets/astronaut_landmarks.csv"


class Portrait(NamedTuple):
    """A photo with its landmarks.

    Attributes:
        photo: Photo, ``(H, W, 3)`` RGB ``uint8``.
        landmarks: Landmarks in pixels of the photo, ``(68, 2)``.
        visible: Visibility of each landmark, ``(68,)`` boolean; false where hair covers the contour.
    """

    photo: np.ndarray
    landmarks: torch.Tensor
    visible: torch.Tensor


def astronaut() -> Portrait:
    """The portrait, 512 x 512 pixels.

    Raises:
        MissingDependencyError: If scikit-image is not installed.
    """
    data = require("skimage.data", "book", "the example portrait")
    with resources.as_file(resources.files("twodasl_lite") / _LANDMARKS) as path:
        points, visible = read_landmarks(path)
    return Portrait(as_photo(data.astronaut()), points, visible)
