"""Faces as files that other programs open: OBJ, PLY and GLB, with vertex colours.

Needs trimesh (``pip install "twodasl_lite[export]"``), imported when used. Files are written in the model's own
frame: x right, y up, z towards the viewer, which is also glTF's. glTF measures in metres, so a GLB is scaled when the
unit is known.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from twodasl_lite.archive import whole_file
from twodasl_lite.errors import FileFormatError, ValueRangeError, check_tensor, require

FORMATS = (".obj", ".ply", ".glb")
_METRES = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}


def export_mesh(
    path: str | os.PathLike[str],
    vertices: torch.Tensor,
    triangles: torch.Tensor,
    colours: torch.Tensor | None = None,
    *,
    units: str = "mm",
) -> Path:
    """Write one face.

    Args:
        path: Where; the suffix chooses the format.
        vertices: ``(V, 3)`` in the model frame.
        triangles: ``(T, 3)`` vertex indices.
        colours: ``(V, 3)`` sRGB in [0, 1]; none by default.
        units: Unit of the vertices; a GLB is converted to metres.

    Returns:
        The path written.

    Raises:
        FileFormatError: If the suffix is not one of :data:`FORMATS`.
        MissingDependencyError: If trimesh is not installed.
        ShapeError: If shapes do not fit.
        ValueRangeError: If values are not finite, colours outside [0, 1], or an index is out of range.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise FileFormatError(path, f"the suffix {path.suffix!r}", " or ".join(FORMATS))
    vertices = check_tensor("vertices", vertices, ("V", 3))
    triangles = torch.as_tensor(triangles)
    check_tensor("triangles", triangles, ("T", 3))
    if triangles.numel() and not 0 <= int(triangles.min()) <= int(triangles.max()) < vertices.shape[0]:
        raise ValueRangeError(f"triangles: found indices outside 0 to {vertices.shape[0] - 1}; expected vertex indices")
    rgba = None
    if colours is not None:
        colours = check_tensor("colours", colours, (vertices.shape[0], 3))
        if bool((colours < 0).any() or (colours > 1).any()):
            raise ValueRangeError(
                f"colours: found values {float(colours.min()):.3g} to {float(colours.max()):.3g}; expected 0 to 1"
            )
        opaque = torch.cat([colours, torch.ones_like(colours[:, :1])], dim=1)
        rgba = (opaque * 255).round().to(torch.uint8).cpu().numpy()
    if kind == ".glb":
        if units not in _METRES:
            raise ValueRangeError(f"units: found {units!r}; expected one of {', '.join(_METRES)}")
        vertices = vertices * _METRES[units]
        if colours is not None:  # glTF stores vertex colours in linear light
            linear = torch.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
            rgba[:, :3] = (linear * 255).round().to(torch.uint8).cpu().numpy()
    trimesh = require("trimesh", "export", "exporting a mesh")
    mesh = trimesh.Trimesh(
        vertices=vertices.detach().cpu().double().numpy(),
        faces=triangles.cpu().numpy(),
        vertex_colors=rgba,
        process=False,  # keep the order and number of vertices: they are in correspondence
    )
    data = mesh.export(file_type=kind[1:])
    with whole_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return path
