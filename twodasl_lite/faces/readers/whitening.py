"""The whitening published with 3DDFA, 2DASL and 3DDFA_V2, and conversion of coefficients to other units of length.

Their pose maps micrometres to pixels of the crop. For a face model in millimetres its 3x3 part is 1000 times as large;
translation, shape and expression stay the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.checks import check_choice
from twodasl_lite.base.errors import FileFormatError
from twodasl_lite.faces.readers.arrays import beside, deviations_of
from twodasl_lite.faces.readers.parts import MILLIMETRES
from twodasl_lite.faces.readers.safe_pickle import load_pickle
from twodasl_lite.geometry.coefficients import POSE_SHAPE, POSE_SIZE, CoefficientLayout, Coefficients, Whitening

PathLike = str | os.PathLike[str]

NATIVE_UNIT = "um"
"""Unit of length of the published numbers."""

_WHITENING_FILES = ("param_whitening.pkl", "param_mean_std_62d_120x120.pkl")
_WHITENING_KEYS = (("param_mean", "param_std"), ("mean", "std"))


def read_whitening(path: PathLike, *, units: str = "mm") -> Whitening:
    """Mean and standard deviation of the 62 coefficients, as published with 3DDFA, 2DASL and 3DDFA_V2.

    Args:
        path: ``param_whitening.pkl``, ``param_mean_std_62d_120x120.pkl``, or a folder with one of them.
        units: Unit of length of the face model that the pose is for; the files are for micrometres.

    Returns:
        The whitening. Whitened vectors are the same in every unit.

    Raises:
        FileFormatError: If the file is missing or holds anything else.
        ValueRangeError: If the unit is unknown.
    """
    check_choice("units", units, MILLIMETRES)
    path = Path(path)
    expected = "the mean and standard deviation of 62 coefficients"
    if path.is_dir():
        path = beside(path, _WHITENING_FILES) or path / _WHITENING_FILES[0]
    content = load_pickle(path)
    content = content if isinstance(content, dict) else {}
    for mean_name, std_name in _WHITENING_KEYS:
        if mean_name in content and std_name in content:
            break
    else:
        raise FileFormatError(path, f"a pickle with {', '.join(map(str, content)) or 'no names'}", expected)
    size = CoefficientLayout().size
    mean, std = (np.asarray(content[name]).reshape(-1) for name in (mean_name, std_name))
    if mean.size != size or not np.isfinite(mean).all():
        raise FileFormatError(path, f"a mean of {mean.size} values", expected)
    std = deviations_of(path, std_name, std, size)
    factor = MILLIMETRES[units] / MILLIMETRES[NATIVE_UNIT]
    mean, std = torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(std.astype(np.float32))
    return Whitening(_pose_scaled(mean, factor), _pose_scaled(std, factor))


def _pose_scaled(vector: torch.Tensor, factor: float) -> torch.Tensor:
    """The vector with the 3x3 part of its pose multiplied; the translation is in pixels and stays the same."""
    matrix = vector[:POSE_SIZE].reshape(POSE_SHAPE).clone()
    matrix[:, :3] *= factor
    return torch.cat([matrix.flatten(), vector[POSE_SIZE:]])


def convert_pose(coefficients: Coefficients, units: str = "mm") -> Coefficients:
    """Coefficients for a model in micrometres, as 3DDFA's files give them, for the same model in another unit.

    Args:
        coefficients: Any batch; shape and expression stay as they are.
        units: Unit of the other model.
    """
    pose = coefficients.pose.clone()
    pose[..., :3] *= MILLIMETRES[units] / MILLIMETRES[NATIVE_UNIT]
    return coefficients._replace(pose=pose)
