"""The 68 landmarks of a model whose file does not hold them, or holds only some.

A list of 68 vertices can be given, as numbers or in a file. Otherwise they are found by registering the embedded face
to the model (:mod:`twodasl_lite.faces.readers.registration`) and taking the nearest vertices.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, ValueRangeError
from twodasl_lite.faces.readers.arrays import read_mat
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

LandmarkChoice = Sequence[int] | Mapping[int, int] | str | os.PathLike[str] | None
"""68 vertices; a mapping from landmarks to vertices; a file with either; or ``None``: the format's own or derived."""

_EXPECTED = f"{NUM_LANDMARKS} vertex indices, counting from 0"
_MAPPING = re.compile(r"^\s*(\d+)\s*=\s*(\d+)\s*(?:#.*)?$")
_LARGEST_TEXT = 2**20


def resolve_landmarks(
    mean: np.ndarray,
    triangles: np.ndarray,
    chosen: LandmarkChoice,
    published: np.ndarray | None,
    known: Mapping[int, int],
) -> tuple[torch.Tensor, str]:
    """Decide on the 68 vertices.

    Args:
        mean: ``(V, 3)`` the average face in millimetres.
        triangles: ``(T, 3)`` vertex indices.
        chosen: The caller's choice, which takes precedence over everything else.
        published: ``(68,)`` vertices that the format holds, if it holds all.
        known: Vertices by landmark that it holds, if it holds some.

    Returns:
        ``(68,)`` indices, and their origin in words.

    Raises:
        ValueRangeError: If the chosen ones are not 68 vertices of the model.
    """
    if isinstance(chosen, (str, os.PathLike)):
        origin = f"from {Path(chosen).name}"
        chosen = read_landmark_file(chosen)
    else:
        origin = "as given"
    if isinstance(chosen, Mapping):
        known, published, chosen = {**known, **chosen}, None, None
        partly = f" but for {len(known)} {origin}"
    else:
        partly = f" but for {len(known)} of the distribution" if known else ""
    if chosen is not None:
        published = np.asarray(chosen)
    if published is not None:
        published = np.asarray(published).reshape(-1)
        if published.shape != (NUM_LANDMARKS,) or published.dtype.kind not in "iu":
            raise ValueRangeError(f"landmarks: found {published.size} of {published.dtype}; expected {_EXPECTED}")
        if published.min() < 0 or published.max() >= len(mean):
            raise ValueRangeError(
                f"landmarks: found vertices from {published.min()} to {published.max()}; expected 0 to {len(mean) - 1}"
            )
        return torch.from_numpy(published.astype(np.int64)), ("of the distribution" if chosen is None else origin)
    outside = [vertex for vertex in known.values() if not 0 <= vertex < len(mean)]
    if outside or any(not 0 <= landmark < NUM_LANDMARKS for landmark in known):
        raise ValueRangeError(f"landmarks: found a mapping to vertices {outside[:3]}; expected 0 to {len(mean) - 1}")
    from twodasl_lite.faces.readers.registration import derive_landmarks  # needs the embedded face

    return (
        derive_landmarks(mean, triangles, known),
        f"derived by registering the embedded face{partly}",
    )


def read_landmark_file(path: str | os.PathLike[str]) -> np.ndarray | dict[int, int]:
    """Read vertex indices of landmarks.

    * ``.npy``: 68 integers, counting from 0.
    * ``.json``: a list of them.
    * ``.mat``: a variable ``keypoints`` of 68 integers counting from 1, as 3DDFA's files hold.
    * text: 68 integers, separated by white space or commas; or lines ``landmark = vertex`` with landmarks counting
      from 1 and vertices from 0, as eos' mapping files hold, which need not name all landmarks.

    Raises:
        FileFormatError: If it is missing or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(path, "a folder" if path.is_dir() else "no such file", f"a file with {_EXPECTED}")
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            values = np.load(path, allow_pickle=False)
        elif suffix == ".mat":
            values = read_mat(path, ["keypoints"])["keypoints"].astype(np.int64) - 1
        else:
            if path.stat().st_size > _LARGEST_TEXT:
                raise ValueError(f"{path.stat().st_size} bytes")
            text = path.read_text(encoding="utf-8-sig")
            mapping = {int(m[1]) - 1: int(m[2]) for line in text.splitlines() if (m := _MAPPING.match(line))}
            if mapping:
                return mapping
            is_json = suffix == ".json"
            values = np.asarray(json.loads(text) if is_json else [int(n) for n in re.split(r"[\s,]+", text.strip())])
    except FileFormatError:
        raise
    except (ValueError, EOFError, OSError, TypeError) as error:
        raise FileFormatError(path, f"no indices ({error})", _EXPECTED) from error
    values = values.reshape(-1)
    if values.shape != (NUM_LANDMARKS,) or values.dtype.kind not in "iu":
        raise FileFormatError(path, f"{values.size} values of {values.dtype}", _EXPECTED)
    return values
