"""Files that other programs open: faces as OBJ, PLY and GLB, with vertex colours or a texture; predictors as ONNX.

Files are written in the model's own frame: x right, y up, z towards the viewer, which is also glTF's. glTF measures in
metres, so a GLB is scaled when the unit is known.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from twodasl_lite.base.archive import whole_file
from twodasl_lite.base.checks import check_choice, check_tensor
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.fingerprint import check_fingerprint
from twodasl_lite.faces.mesh_files import Textured, glb_bytes, obj_bytes, ply_bytes
from twodasl_lite.faces.unwrap import Unwrapped
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.landmarks import GAUSSIAN_SIGMA, subset_18
from twodasl_lite.geometry.photos import IMAGE_CENTRE, IMAGE_RANGE, as_photo
from twodasl_lite.networks import TrainedRegressor
from twodasl_lite.networks.onnx import RAW, write_graph
from twodasl_lite.render import srgb_to_linear, vertex_normals

FORMATS = (".obj", ".ply", ".glb")
TEXTURED = (".obj", ".glb")
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
        check_choice("units", units, _METRES)
        vertices = vertices * _METRES[units]
        if colours is not None:  # glTF stores vertex colours in linear light
            rgba[:, :3] = (srgb_to_linear(colours) * 255).round().to(torch.uint8).cpu().numpy()
    write = {".obj": obj_bytes, ".ply": ply_bytes, ".glb": glb_bytes}[kind]
    data = write(vertices.detach().cpu().numpy(), triangles.cpu().numpy(), rgba)
    with whole_file(path) as file:
        file.write(data)
    return path


def export_textured_mesh(
    path: str | os.PathLike[str],
    vertices: torch.Tensor,
    unwrapped: Unwrapped,
    texture: np.ndarray,
    *,
    units: str = "mm",
) -> Path:
    """Write one face with a picture as its texture.

    An OBJ keeps the model's vertices in their order and comes with a ``.mtl`` and a ``.png`` of the same name beside
    it. In a GLB the picture is inside, and a vertex on a seam is there once for each of its places. Axes are those of
    :func:`export_mesh`. Blender, three.js and trimesh show the picture the right way up: v counts upwards in an OBJ,
    downwards in a GLB, as the two formats want it.

    Args:
        path: Where; ``.obj`` or ``.glb``.
        vertices: ``(V, 3)`` in the model frame.
        unwrapped: Where they lie in the picture, from :func:`twodasl_lite.faces.unwrap.unwrap`.
        texture: ``(S, S, 3)`` uint8 RGB, from :func:`twodasl_lite.faces.texture.photo_texture`.
        units: Unit of the vertices; a GLB is converted to metres.

    Returns:
        The path written.

    Raises:
        FileFormatError: If the suffix is not one of :data:`TEXTURED`.
        ShapeError: If shapes do not fit.
        ValueRangeError: If values are not finite or the unit is unknown.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in TEXTURED:
        raise FileFormatError(path, f"the suffix {path.suffix!r}", " or ".join(TEXTURED))
    vertices = check_tensor("vertices", vertices, ("V", 3)).detach().cpu().double()
    if int(unwrapped.vertices.max()) >= len(vertices):
        least = int(unwrapped.vertices.max()) + 1
        raise ShapeError(f"vertices: found {len(vertices)}; expected those of the layout, {least} or more")
    texture = as_photo(texture, "texture")
    normals = vertex_normals(vertices, unwrapped.triangles, frame="model")
    if kind == ".obj":
        return _write_obj(path, vertices, normals, unwrapped, texture)
    check_choice("units", units, _METRES)
    textured = Textured(
        unwrapped.places.double().numpy(), normals[unwrapped.vertices].numpy(), _png_bytes(texture), "face"
    )
    placed = (vertices * _METRES[units])[unwrapped.vertices].numpy()
    with whole_file(path) as file:
        file.write(glb_bytes(placed, unwrapped.corners.numpy(), textured=textured))
    return path


def _png_bytes(texture: np.ndarray) -> bytes:
    return cv2.imencode(".png", np.ascontiguousarray(texture[..., ::-1]))[1].tobytes()


def _write_obj(
    path: Path, vertices: torch.Tensor, normals: torch.Tensor, unwrapped: Unwrapped, texture: np.ndarray
) -> Path:
    """An OBJ, its material and its texture; the OBJ last, so that it never names what is not there."""
    picture, material = path.with_suffix(".png"), path.with_suffix(".mtl")
    with whole_file(picture) as file:
        file.write(_png_bytes(texture))
    lines = ["newmtl face", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {picture.name}"]
    with whole_file(material) as file:
        file.write(("\n".join(lines) + "\n").encode())
    lines = ["# x right, y up, z towards the viewer", f"mtllib {material.name}", "o face", "usemtl face"]
    lines += [f"v {x:.6g} {y:.6g} {z:.6g}" for x, y, z in vertices.tolist()]
    lines += [f"vt {u:.6f} {v:.6f}" for u, v in unwrapped.places.tolist()]
    lines += [f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in normals.tolist()]
    for corners, places in zip((unwrapped.triangles + 1).tolist(), (unwrapped.corners + 1).tolist(), strict=True):
        lines.append("f " + " ".join(f"{v}/{place}/{v}" for v, place in zip(corners, places, strict=True)))
    with whole_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return path


# ----------------------------------------------------------------------------------------------------------- predictors
IMAGES = "images"
"""Name of the input of :func:`export_predictor`'s graph."""


class _Predictor(nn.Module):
    """:func:`twodasl_lite.networks.prediction.predict` without a detector's points, as one module of tensors alone."""

    def __init__(self, trained: TrainedRegressor, model: MorphableModel, looks: int) -> None:
        super().__init__()
        self.network, self.looks = trained.network, looks
        self.kind, self.form = trained.metadata["map_kind"], trained.metadata.get("pose", "free")
        at = model.landmarks
        basis = torch.cat([model.shape_basis[at], model.expression_basis[at]], dim=-1)  # (68, 3, K)
        for name, value in (
            ("mean", trained.whitening.mean),
            ("std", trained.whitening.std),
            ("points", model.mean[at]),
            ("basis", basis),
            ("grid", torch.arange(CROP_SIZE)),
        ):
            self.register_buffer(name, value.detach().float().cpu())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, 120, 120)`` RGB from 0 to 255 to raw coefficients ``(B, D)``."""
        pixels = (images - IMAGE_CENTRE) / IMAGE_RANGE
        drawn = torch.full_like(pixels[:, :1], -1.0)
        raw = self._look(pixels, drawn)
        for _ in range(self.looks - 1):
            raw = self._look(pixels, self._map(self._landmarks(raw)))
        return raw

    def _look(self, pixels: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        raw = self.network(torch.cat([pixels, drawn], dim=1)) * self.std + self.mean
        if self.form == "free":
            return raw
        from twodasl_lite.faces.decode import constrain

        return constrain(raw, self.form)

    def _landmarks(self, raw: torch.Tensor) -> torch.Tensor:
        """The 18 points ``(B, 18, 2)`` of the map in pixels."""
        face = self.points + torch.einsum("nak,bk->bna", self.basis, raw[:, 12:])  # (B, 68, 3)
        pose = raw[:, :8].unflatten(-1, (2, 4))  # the picture's two rows
        placed = face @ pose[..., :3].transpose(1, 2) + pose[:, None, :, 3]
        return subset_18(torch.stack([placed[..., 0] - 1, CROP_SIZE - placed[..., 1]], dim=-1))

    def _map(self, points: torch.Tensor) -> torch.Tensor:
        """:func:`twodasl_lite.geometry.landmarks.landmark_map` ``(B, 1, 120, 120)`` without branches on values."""
        away = self.grid - (points.floor() if self.kind == "binary" else points)[..., None]  # (B, 18, 2, 120)
        near = (away == 0).float() if self.kind == "binary" else torch.exp(-(away**2) / (2 * GAUSSIAN_SIGMA**2))
        columns, rows = near[:, :, 0], near[:, :, 1]  # (B, 18, 120)
        empty = torch.ones_like(rows[:, 0, :, None] * columns[:, 0, None, :])
        for n in range(points.shape[1]):
            empty = empty * (1 - rows[:, n, :, None] * columns[:, n, None, :])
        return (1 - 2 * empty)[:, None]


def export_predictor(
    path: str | os.PathLike[str],
    trained: TrainedRegressor,
    model: MorphableModel,
    *,
    looks: int = 2,
    metadata: Mapping[str, object] | None = None,
) -> float:
    """Write all that lies between a crop and its coefficients as one ONNX file that needs no detector.

    The graph takes ``images`` ``(B, 3, 120, 120)``, float32 RGB from 0 to 255, any number of them, and gives raw
    ``coefficients`` ``(B, D)`` in the crop's frame: the first look with an empty landmark map, the network's own
    landmarks drawn, the second look. Before the file appears, onnxruntime runs it on batches of 1 and 3.

    Args:
        path: Where; missing folders are made.
        trained: The network.
        model: The face model that it was trained with, in its layout.
        looks: See :func:`twodasl_lite.networks.prediction.predict`.
        metadata: Facts to keep with the graph, as JSON under the key ``twodasl_lite``.

    Returns:
        The largest difference between torch and onnxruntime, in standard deviations of each coefficient.

    Raises:
        MissingDependencyError: Without the packages onnx, onnxscript and onnxruntime.
        ValueRangeError: If the face model is not the network's, ``looks`` is below 1, or the results differ.
    """
    if looks < 1:
        raise ValueRangeError(f"looks: found {looks}; expected 1 or more")
    if "face_model" in trained.metadata:
        check_fingerprint(trained.metadata["face_model"], model)
    predictor = _Predictor(trained, model, looks).cpu().float()
    std = trained.whitening.std
    # A landmark at the edge of two pixels may be drawn in either, so that a binary map's look differs a little more.
    tolerance = 1e-3
    return write_graph(predictor, path, _pictures, (IMAGES, RAW), std=std, metadata=metadata, tolerance=tolerance)


def _pictures(count: int) -> torch.Tensor:
    """Smooth noise ``(count, 3, 120, 120)`` from 0 to 255."""
    rough = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count)) * 255
    return nn.functional.interpolate(rough, (CROP_SIZE, CROP_SIZE), mode="bilinear")
