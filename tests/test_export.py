"""Meshes for other programs, read back with an independent reader where one exists."""

from __future__ import annotations

import json
import struct
import sys

import numpy as np
import pytest
import torch

from twodasl_lite.apps.export import FORMATS, TEXTURED, export_mesh, export_textured_mesh
from twodasl_lite.base.errors import FileFormatError, ShapeError, TwodaslError
from twodasl_lite.faces.unwrap import Unwrapped

trimesh = pytest.importorskip("trimesh", reason="trimesh reads what is written")


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


def _parts_of(data: bytes) -> tuple[dict, bytes]:
    """JSON and binary part of a GLB."""
    size = struct.unpack("<I", data[12:16])[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


@pytest.mark.parametrize("coloured", [True, False])
def test_the_files_are_those_that_trimesh_writes(tmp_path, tetrahedron, coloured: bool) -> None:
    """Numbers byte for byte; only the line that names the writer, and the names in a GLB, are others."""
    vertices, triangles, colours = tetrahedron
    vertices = vertices + torch.rand(4, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    colours = colours if coloured else None
    ours = {s: export_mesh(tmp_path / f"face{s}", vertices, triangles, colours).read_bytes() for s in FORMATS}
    theirs = {}
    for suffix in FORMATS:
        rgba = None if colours is None else np.array([[*c, 255] for c in (colours * 255).round().int().tolist()], "u1")
        if suffix == ".glb" and colours is not None:
            rgba[3, :3] = round(((0.5 + 0.055) / 1.055) ** 2.4 * 255)
        placed = (vertices * (0.001 if suffix == ".glb" else 1)).double().numpy()
        mesh = trimesh.Trimesh(placed, triangles.numpy(), vertex_colors=rgba, process=False)
        data = mesh.export(file_type=suffix[1:])
        theirs[suffix] = data.encode() if isinstance(data, str) else data
    writer = b"https://github.com/mikedh/trimesh"
    assert ours[".ply"] == theirs[".ply"].replace(writer, b"twodasl_lite")
    assert ours[".obj"].split(b"\n", 1)[1].strip() == theirs[".obj"].split(b"\n", 1)[1].strip()
    (scene, binary), (their_scene, their_binary) = _parts_of(ours[".glb"]), _parts_of(theirs[".glb"])
    assert binary == their_binary
    assert scene["bufferViews"] == their_scene["bufferViews"]
    assert [a["count"] for a in scene["accessors"]] == [a["count"] for a in their_scene["accessors"]]


def test_meshes_are_written_without_another_package(tmp_path, tetrahedron, quarters, monkeypatch) -> None:
    for package in ("trimesh", "PIL"):
        monkeypatch.setitem(sys.modules, package, None)
    for suffix in FORMATS:
        assert export_mesh(tmp_path / f"plain{suffix}", *tetrahedron).stat().st_size > 100
    for suffix in TEXTURED:
        assert export_textured_mesh(tmp_path / f"textured{suffix}", *quarters).stat().st_size > 100


def test_axes_agree_between_the_formats(tmp_path, tetrahedron) -> None:
    """x right, y up, z towards the viewer in each; a GLB in metres."""
    for suffix, unit in ((".obj", 1), (".ply", 1), (".glb", 0.001)):
        mesh = trimesh.load(export_mesh(tmp_path / f"face{suffix}", *tetrahedron), process=False, force="mesh")
        np.testing.assert_allclose(mesh.vertices / unit, tetrahedron[0], atol=1e-3)
        assert mesh.volume / unit**3 == pytest.approx(100**3 / 6, rel=1e-4)  # and triangles face outwards


@pytest.fixture
def quarters() -> tuple[torch.Tensor, Unwrapped, np.ndarray]:
    """A square of two triangles, with a vertex that has two places; its texture is red, green, blue, yellow."""
    vertices = torch.tensor([[0.0, 0, 0], [100, 0, 0], [100, 100, 0], [0, 100, 0]])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    places = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.12, 0.12]])
    layout = Unwrapped(places, torch.tensor([0, 1, 2, 3, 0]), torch.tensor([[0, 1, 2], [4, 2, 3]]), triangles)
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[32:, :32] = [255, 0, 0]  # below on the left: vertex 0
    texture[32:, 32:] = [0, 255, 0]  # below on the right: vertex 1
    texture[:32, 32:] = [0, 0, 255]  # above on the right: vertex 2
    texture[:32, :32] = [255, 255, 0]  # above on the left: vertex 3
    return vertices, layout, texture


@pytest.mark.parametrize("suffix", TEXTURED)
def test_textures_are_the_right_side_up(tmp_path, suffix: str, quarters) -> None:
    vertices, layout, texture = quarters
    pytest.importorskip("PIL")
    path = export_textured_mesh(tmp_path / f"face{suffix}", vertices, layout, texture)
    mesh = trimesh.load(path, process=False, force="mesh")
    unit = 0.001 if suffix == ".glb" else 1
    colours = mesh.visual.to_color().vertex_colors[:, :3]
    wanted = {(0, 0): [255, 0, 0], (100, 0): [0, 255, 0], (100, 100): [0, 0, 255], (0, 100): [255, 255, 0]}
    assert len(mesh.vertices) == 5
    for place, colour in zip(mesh.vertices / unit, colours, strict=True):
        assert colour.tolist() == wanted[tuple(place[:2].round().astype(int))]
    np.testing.assert_allclose(np.abs(mesh.face_normals[:, 2]), 1, atol=1e-6)
    assert (mesh.face_normals[:, 2] > 0).all()


def test_gltf_counts_v_downwards_and_obj_upwards(tmp_path, quarters) -> None:
    """Read without trimesh, whose reader might turn what we wrote."""
    pytest.importorskip("PIL")
    vertices, layout, texture = quarters
    data = export_textured_mesh(tmp_path / "face.glb", vertices, layout, texture).read_bytes()
    scene, binary = _parts_of(data)
    attributes = scene["meshes"][0]["primitives"][0]["attributes"]

    def read(name: str, width: int) -> np.ndarray:
        accessor = scene["accessors"][attributes[name]]
        view = scene["bufferViews"][accessor["bufferView"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        return np.frombuffer(binary, "<f4", width * accessor["count"], start).reshape(-1, width)

    uv, positions, normals = read("TEXCOORD_0", 2), read("POSITION", 3), read("NORMAL", 3)
    lower_left = positions[:, :2].sum(axis=1).argmin()
    np.testing.assert_allclose(uv[lower_left], [0.1, 0.9], atol=1e-5)
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 5, atol=1e-6)
    assert "metallicFactor" in scene["materials"][0]["pbrMetallicRoughness"]
    lines = export_textured_mesh(tmp_path / "face.obj", vertices, layout, texture).read_text().splitlines()
    assert next(line for line in lines if line.startswith("vt ")) == "vt 0.100000 0.100000"
    assert [line for line in lines if line.startswith("f ")] == ["f 1/1/1 2/2/2 3/3/3", "f 1/5/1 3/3/3 4/4/4"]
    assert len([line for line in lines if line.startswith("v ")]) == 4  # in correspondence, as the model has them
    assert sorted(path.name for path in tmp_path.glob("face.*")) == ["face.glb", "face.mtl", "face.obj", "face.png"]
    assert "map_Kd face.png" in (tmp_path / "face.mtl").read_text()


def test_a_faces_texture_is_found_at_its_landmarks(tmp_path) -> None:
    """Photo to texture to file to another reader: the colours at the landmarks are the face's."""
    pytest.importorskip("PIL")
    from twodasl_lite.faces import load_face_model
    from twodasl_lite.faces.decode import decode
    from twodasl_lite.faces.texture import face_triangles, photo_texture, seen_weights
    from twodasl_lite.faces.unwrap import unwrap
    from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
    from twodasl_lite.render import render

    model, side = load_face_model(CoefficientLayout()), 240
    layout = unwrap(model, face_triangles(model))
    pose = torch.tensor([[1.0, 0, 0, side / 2], [0, 1, 0, side / 2], [0, 0, 1, 0]])
    vertices = decode(Coefficients(pose[None], torch.zeros(1, 40), torch.zeros(1, 10)), model, side)[0]
    albedo = model.decode_albedo()[0]
    drawn = render(vertices[None], model.triangles, albedo, side, side, supersample=2).colour[0]
    photo = (drawn * 255).round().byte().numpy()
    texture = photo_texture(photo, vertices, model, layout, 512)
    marks = model.landmarks[17:]
    marks = marks[seen_weights(vertices, model.triangles, side, side)[marks] > 0.5]
    assert len(marks) > 20
    for suffix, unit in ((".obj", 1), (".glb", 0.001)):
        path = export_textured_mesh(tmp_path / f"face{suffix}", model.mean, layout, texture)
        mesh = trimesh.load(path, process=False, force="mesh")
        away = np.linalg.norm(mesh.vertices[None] / unit - model.mean[marks].numpy()[:, None], axis=-1)
        assert away.min(axis=1).max() < 0.01
        found = mesh.visual.to_color().vertex_colors[away.argmin(axis=1), :3] / 255
        assert np.abs(found - albedo[marks].numpy()).mean() < 0.08  # of 512 pixels; 0.16 with the rows upside down


def test_bad_textured_meshes_are_named(tmp_path, quarters) -> None:
    vertices, layout, texture = quarters
    with pytest.raises(FileFormatError, match=r"\.ply.*expected \.obj or \.glb"):
        export_textured_mesh(tmp_path / "face.ply", vertices, layout, texture)
    with pytest.raises(ShapeError, match="vertices: found 3"):
        export_textured_mesh(tmp_path / "face.obj", vertices[:3], layout, texture)
    with pytest.raises(TwodaslError, match="units: found 'furlong'"):
        export_textured_mesh(tmp_path / "face.glb", vertices, layout, texture, units="furlong")
    with pytest.raises(ShapeError, match="texture"):
        export_textured_mesh(tmp_path / "face.obj", vertices, layout, texture[..., :2])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [1, 3])
def test_a_predictor_as_onnx_needs_no_detector(predictor, count: int) -> None:
    """Any number of crops, and the package's own answers."""
    import onnxruntime

    from twodasl_lite.networks.prediction import predict_with

    path, trained, model = predictor
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    ((name, shape),) = [(entry.name, entry.shape) for entry in session.get_inputs()]
    assert name == "images"
    assert shape[1:] == [3, 120, 120]
    assert isinstance(shape[0], str)  # a name: any size
    from twodasl_lite.worlds.synthetic import SyntheticFaces

    pictures = SyntheticFaces(model, "labelled", seed=7).batch(0, count).images
    (found,) = session.run(["coefficients"], {"images": pictures.float().numpy()})
    expected = predict_with(trained, pictures, model=model).coefficients
    assert found.shape == (count, model.layout.size)
    assert float(((torch.from_numpy(found) - expected) / trained.whitening.std).abs().max()) < 1e-3


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """A trained network as a file, the network, its face model."""
    for package in ("onnx", "onnxscript", "onnxruntime", "safetensors"):
        pytest.importorskip(package)
    from twodasl_lite.apps.export import export_predictor
    from twodasl_lite.faces import load_face_model
    from twodasl_lite.geometry.coefficients import CoefficientLayout
    from twodasl_lite.networks.trained import trained_regressor

    trained = trained_regressor()
    model = load_face_model(CoefficientLayout(*trained.metadata["layout"]))
    path = tmp_path_factory.mktemp("onnx") / "predictor.onnx"
    assert export_predictor(path, trained, model, metadata={"a": 1}) < 1e-3
    with pytest.raises(TwodaslError, match="looks: found 0"):
        export_predictor(path, trained, model, looks=0)
    return path, trained, model


def test_both_landmark_maps_are_drawn_in_the_graph() -> None:
    from types import SimpleNamespace

    from twodasl_lite.apps.export import _Predictor
    from twodasl_lite.geometry.landmarks import landmark_map

    points = torch.rand(2, 18, 2, generator=torch.Generator().manual_seed(3)) * 130 - 5
    for kind in ("binary", "gaussian"):
        own = SimpleNamespace(kind=kind, grid=torch.arange(120.0))
        torch.testing.assert_close(_Predictor._map(own, points), landmark_map(points, kind=kind), atol=1e-5, rtol=0)
