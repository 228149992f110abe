"""Meshes for other programs, read back by another reader than the writer where there is one."""

from __future__ import annotations

import json
import struct
import sys

import numpy as np
import pytest
import torch

from twodasl_lite.errors import FileFormatError, MissingDependencyError, ShapeError, TwodaslError
from twodasl_lite.export import FORMATS, export_mesh

trimesh = pytest.importorskip("trimesh", reason="trimesh is an optional extra")


@pytest.fixture
def tetrahedron() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    vertices = torch.tensor([[0.0, 0, 0], [100, 0, 0], [0, 100, 0], [0, 0, 100]])
    triangles = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]])
    return vertices, triangles, colours


@pytest.mark.parametrize("suffix", FORMATS)
def test_meshes_come_back(tmp_path, suffix: str, tetrahedron) -> None:
    vertices, triangles, colours = tetrahedron
    path = export_mesh(tmp_path / "out" / f"face{suffix}", vertices, triangles, colours)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    mesh = trimesh.load(path, process=False, force="mesh")
    unit = 0.001 if suffix == ".glb" else 1
    np.testing.assert_allclose(mesh.vertices, vertices * unit, atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, triangles)
    expected = colours.numpy().copy()
    if suffix == ".glb":
        expected[3] = ((0.5 + 0.055) / 1.055) ** 2.4  # glTF keeps linear light
    np.testing.assert_allclose(mesh.visual.vertex_colors[:, :3] / 255, expected, atol=0.006)


def test_obj_is_plain_text_with_colours(tmp_path, tetrahedron) -> None:
    lines = export_mesh(tmp_path / "face.obj", *tetrahedron).read_text().splitlines()
    vertex = [line.split() for line in lines if line.startswith("v ")]
    assert [float(x) for x in vertex[1][1:7]] == pytest.approx([100, 0, 0, 0, 1, 0])
    assert next(line for line in lines if line.startswith("f ")).split()[1].split("/")[0] == "1"


def test_glb_is_a_valid_container_in_metres(tmp_path, tetrahedron) -> None:
    data = export_mesh(tmp_path / "face.glb", *tetrahedron).read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    assert kind == b"JSON"
    scene = json.loads(data[20 : 20 + size])
    primitive = scene["meshes"][0]["primitives"][0]
    assert "COLOR_0" in primitive["attributes"]
    assert max(scene["accessors"][primitive["attributes"]["POSITION"]]["max"]) == pytest.approx(0.1)


def test_a_mesh_without_colours(tmp_path, tetrahedron) -> None:
    path = export_mesh(tmp_path / "face.ply", *tetrahedron[:2])
    assert len(trimesh.load(path, process=False).vertices) == 4


def test_bad_input_is_named_and_leaves_nothing(tmp_path, tetrahedron) -> None:
    vertices, triangles, colours = tetrahedron
    cases = [
        (
            ("face.stl", vertices, triangles, colours),
            FileFormatError,
            r"\.stl.*expected \.obj or \.ply or \.glb",
        ),
        (("face.obj", vertices[:, :2], triangles, None), ShapeError, "vertices"),
        (("face.obj", vertices * float("nan"), triangles, None), TwodaslError, "vertices: found"),
        (
            ("face.obj", vertices, triangles + 1, None),
            TwodaslError,
            "triangles: found indices outside 0 to 3",
        ),
        (("face.obj", vertices, triangles, colours * 255), TwodaslError, "colours: found values 0 to 255"),
        (("face.obj", vertices, triangles, colours[:3]), ShapeError, "colours"),
    ]
    for (name, *rest), error, message in cases:
        with pytest.raises(error, match=message):
            export_mesh(tmp_path / name, *rest)
    with pytest.raises(TwodaslError, match="units: found 'furlong'"):
        export_mesh(tmp_path / "face.glb", vertices, triangles, units="furlong")
    assert not list(tmp_path.iterdir())


def test_without_trimesh_the_extra_is_named(tmp_path, tetrahedron, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "twodasl_lite\[export\]"'):
        export_mesh(tmp_path / "face.obj", *tetrahedron)
