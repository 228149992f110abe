"""The 40 faces whose meshes were released with 2DASL, which its scripts for dense and shape errors compare.

The folder ``evaluation`` of a clone of ``XgTu/2DASL`` holds annotations and photos of 40 faces of AFLW2000-3D and, for
each, the vertices that 2DASL and 3DDFA predict in the photo, and PRNet's 68 landmarks. The dense ground truth is not
included: it is decoded from the annotation with the Basel Face Model, which readers must obtain themselves. (Here: any
model of the same vertices with raw coefficients. With all 199 + 29 the ground truth is exact; with 40 + 10, as
published by 3DDFA, it is 0.66 % off at these 40 faces' landmarks.)

The measures are those of the release (Tu et al. 2019, section 4): 2D and 3D NME of 68 landmarks; the same over all
vertices, divided by the size of the *landmarks'* box; and the error of the shape alone, of every 50th vertex after
rigid alignment, divided by the size of the vertices' box. Points are 0-based pixels of the photo. See chapter 15.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.base.errors import FileFormatError, ShapeError, TwodaslError
from twodasl_lite.datasets.aflw2000 import IMAGE_SIZE
from twodasl_lite.datasets.annotations import check_raw_basel, read_annotation
from twodasl_lite.evaluation import bounding_box, nme, reconstruction_error
from twodasl_lite.evaluation.reconstruction import EVERY
from twodasl_lite.faces.model import MorphableModel
from twodasl_lite.faces.readers import convert_pose
from twodasl_lite.faces.readers.arrays import read_mat
from twodasl_lite.geometry.camera import euler_to_matrix, frame_to_pixels, make_pose, project
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

MEASURES = ("68 points, 2D", "68 points, 3D", "dense, 2D", "dense, 3D", "shape alone")

_FIRST = 1.0  # the files count pixels from 1
_MESHES = {"2DASL": "2DASL_results", "3DDFA": "3DDFA_results"}
_POINTS = {"PRNet": "PRNet_results/kpt"}


@dataclass(frozen=True)
class ReleaseMeshes:
    """Faces with an annotation and every method's prediction.

    Attributes:
        names: N names without suffix.
        landmarks: ``(N, 68, 3)`` float64, the ground truth.
        pose: ``(N, 7)`` as ``Pose_Para``.
        shape: ``(N, 199)`` as ``Shape_Para``.
        expression: ``(N, 29)`` as ``Exp_Para``.
        yaw: ``(N,)`` degrees.
        keypoints: ``(68,)`` the vertices that are landmarks.
        meshes: ``(N, V, 3)`` vertices by method.
        points: ``(N, 68, 3)`` landmarks by method, for methods without a mesh of these vertices.
        problems: Faces that were left out and why, one sentence each.
    """

    names: tuple[str, ...]
    landmarks: torch.Tensor
    pose: torch.Tensor
    shape: torch.Tensor
    expression: torch.Tensor
    yaw: torch.Tensor
    keypoints: torch.Tensor
    meshes: dict[str, torch.Tensor]
    points: dict[str, torch.Tensor]
    problems: tuple[str, ...] = ()

    def dense_truth(self, model: MorphableModel) -> torch.Tensor:
        """Ground truth of all vertices ``(N, V, 3)``.

        Args:
            model: The Basel Face Model without neck, in raw coefficients; any unit, any number of components.

        Raises:
            ShapeError: If its number of vertices differs from the meshes'.
            ValueRangeError: If its coefficients are not raw.
        """
        check_raw_basel(model, self.shape.shape[1], self.expression.shape[1])
        count = next(iter(self.meshes.values())).shape[1]
        if model.num_vertices != count:
            raise ShapeError(f"model: found {model.num_vertices} vertices; expected the meshes' {count}")
        pose = make_pose(self.pose[:, 6], euler_to_matrix(self.pose[:, :3]), self.pose[:, 3:6])
        native = Coefficients(pose, self.shape[:, : model.num_shape], self.expression[:, : model.num_expression])
        face = convert_pose(native, model.units).to(model.mean.dtype)
        return frame_to_pixels(project(model.decode(face.shape, face.expression), face.pose), IMAGE_SIZE).double()

    def measure(self, model: MorphableModel | None = None, *, every: int = EVERY) -> dict[str, dict[str, torch.Tensor]]:
        """Errors of every method, as fractions.

        Args:
            model: Face model for the dense and shape errors, see :meth:`dense_truth`; without it, only landmark errors
                are measured.
            every: Step between the vertices that the shape error uses, see
                :func:`~twodasl_lite.evaluation.reconstruction_error`.

        Returns:
            ``(N,)`` errors by measure and method.
        """
        marks = {name: mesh[:, self.keypoints].double() for name, mesh in self.meshes.items()} | self.points
        found: dict[str, dict[str, torch.Tensor]] = {
            MEASURES[0]: {name: nme(points[..., :2], self.landmarks[..., :2]) for name, points in marks.items()},
            MEASURES[1]: {name: nme(points, self.landmarks) for name, points in marks.items()},
        }
        if model is None:
            return found
        truth, box = self.dense_truth(model), bounding_box(self.landmarks)
        found |= {name: {} for name in MEASURES[2:]}
        for name, mesh in self.meshes.items():
            mesh = mesh.double()
            found[MEASURES[2]][name] = nme(mesh[..., :2], truth[..., :2], box=box)
            found[MEASURES[3]][name] = nme(mesh, truth, box=box)
            found[MEASURES[4]][name] = reconstruction_error(mesh, truth, every=every)
        return found


def read_release_meshes(root: str | os.PathLike[str]) -> ReleaseMeshes:
    """Read the 40 faces from a clone of ``XgTu/2DASL``.

    A face is left out, and named in ``problems``, if one of its files is missing or damaged.

    Args:
        root: The clone, or its folder ``evaluation``.

    Raises:
        FileFormatError: If it is a different folder, or no face is complete.
    """
    root = Path(root)
    base = root / "evaluation" if (root / "evaluation").is_dir() else root
    results = base / "results"
    expected = "the folder evaluation of a clone of XgTu/2DASL"
    annotated = sorted((results / "AFLW-2000-3D_grdth").glob("*.mat"))
    if not annotated:
        raise FileFormatError(results / "AFLW-2000-3D_grdth", "no annotations", expected)
    keypoints = _read_keypoints(base / "keypoints.txt")
    faces, problems = [], []
    meshes: dict[str, list[np.ndarray]] = {name: [] for name in _MESHES}
    points: dict[str, list[np.ndarray]] = {name: [] for name in _POINTS}
    count = 0
    for path in annotated:
        try:
            face = read_annotation(path)
            if face.landmarks is None:
                raise FileFormatError(path, "no pt3d_68", "an annotation of AFLW2000-3D, with its landmarks")
            own = {name: _read_mesh(results / folder / path.name, count) for name, folder in _MESHES.items()}
            few = {name: _read_points(results / folder / f"{path.stem}_kpt.txt") for name, folder in _POINTS.items()}
        except TwodaslError as error:
            problems.append(str(error))
            continue
        count = len(next(iter(own.values())))
        faces.append(face)
        for store, found in ((meshes, own), (points, few)):
            for name, value in found.items():
                store[name].append(value)
    if not faces:
        raise FileFormatError(results, f"no complete face ({problems[0]})", expected)
    if int(keypoints.max()) >= count:
        vertex = f"vertex {int(keypoints.max())}"
        raise FileFormatError(base / "keypoints.txt", vertex, f"landmarks among the meshes' {count} vertices")
    return ReleaseMeshes(
        tuple(face.name for face in faces),
        torch.stack([face.landmarks for face in faces if face.landmarks is not None]),
        torch.stack([face.pose for face in faces]),
        torch.stack([face.shape for face in faces]),
        torch.stack([face.expression for face in faces]),
        torch.tensor([face.yaw for face in faces], dtype=torch.float64),
        keypoints,
        {name: torch.from_numpy(np.stack(values)) for name, values in meshes.items()},
        {name: torch.from_numpy(np.stack(values)) for name, values in points.items()},
        tuple(problems),
    )


def _read_keypoints(path: Path) -> torch.Tensor:
    """Landmark vertices from ``keypoints.txt``: 204 comma-separated positions of x, y, z in the flattened vertices."""
    expected = f"{3 * NUM_LANDMARKS} whole numbers with commas, three for each landmark"
    if not path.is_file():
        raise FileFormatError(path, "no such file", expected)
    try:
        places = np.array([int(word) for word in path.read_text(encoding="utf-8").replace(",", " ").split()])
    except ValueError as error:
        raise FileFormatError(path, "something else", expected) from error
    if places.size != 3 * NUM_LANDMARKS or (places < 0).any():
        raise FileFormatError(path, f"{places.size} numbers", expected)
    return torch.from_numpy(places.reshape(-1, 3)[:, 0] // 3)


def _read_mesh(path: Path, count: int) -> np.ndarray:
    """Vertices ``(V, 3)``, single precision, 0-based; as many as in other meshes, if ``count`` is not 0."""
    vertex = read_mat(path, ["vertex"])["vertex"]
    wanted = f"(3, {count or 'number of vertices'}) finite numbers"
    if (
        vertex.ndim != 2
        or vertex.shape[0] != 3
        or vertex.dtype.kind not in "uif"
        or (count and vertex.shape[1] != count)
    ):
        raise FileFormatError(path, f"vertex of shape {vertex.shape}", wanted)
    if not np.isfinite(vertex).all():
        raise FileFormatError(path, "vertices that are NaN or infinite", wanted)
    return (vertex.T - [_FIRST, _FIRST, 0.0]).astype(np.float32)


def _read_points(path: Path) -> np.ndarray:
    """Landmarks ``(68, 3)``, 0-based, from a text file with one line each."""
    expected = f"{NUM_LANDMARKS} lines of x, y, z"
    if not path.is_file():
        raise FileFormatError(path, "no such file", expected)
    try:
        values = np.loadtxt(path, ndmin=2, dtype=np.float64)
    except ValueError as error:
        raise FileFormatError(path, f"something else ({error})", expected) from error
    if values.shape[0] != NUM_LANDMARKS or values.shape[1] < 3 or not np.isfinite(values).all():
        raise FileFormatError(path, f"an array of shape {values.shape}, or not finite", expected)
    return values[:, :3] - [_FIRST, _FIRST, 0.0]
