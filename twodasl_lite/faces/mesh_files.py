"""Triangle meshes as the bytes of OBJ, PLY and GLB files, from plain arrays and with nothing but numpy.

One face takes a few milliseconds; the order and the number of vertices stay as they are, because faces of one model are
in correspondence. Checking, units and colour spaces are the business of :mod:`twodasl_lite.apps.export`.
"""

from __future__ import annotations

import json
import struct
from typing import NamedTuple

import numpy as np

WRITER = "twodasl_lite"
"""What the files name as the program that wrote them."""
_FLOAT, _UINT32, _UINT8 = 5126, 5125, 5121  # glTF's numbers for types of components
_JSON, _BINARY = b"JSON", b"BIN\0"
_VECTORS = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}


def obj_bytes(vertices: np.ndarray, triangles: np.ndarray, rgba: np.ndarray | None = None) -> bytes:
    """An OBJ file: text, colours as three more numbers per vertex.

    Args:
        vertices: ``(V, 3)``.
        triangles: ``(T, 3)`` vertex indices from 0; the file counts from 1.
        rgba: ``(V, 4)`` uint8; alpha is left out.
    """
    values = np.asarray(vertices, np.float64)
    if rgba is not None:
        values = np.concatenate([values, rgba[:, :3] / 255.0], axis=1)
    line = "v" + " %.8f" * values.shape[1] + "\n"
    head = f"# {WRITER}: x right, y up, z towards the viewer\n"
    text = line * len(values) % tuple(values.ravel().tolist())
    faces = "f %d %d %d\n" * len(triangles) % tuple((np.asarray(triangles) + 1).ravel().tolist())
    return (head + text + faces).encode()


def ply_bytes(vertices: np.ndarray, triangles: np.ndarray, rgba: np.ndarray | None = None) -> bytes:
    """A binary PLY file, little-endian, single precision.

    Args:
        vertices: ``(V, 3)``.
        triangles: ``(T, 3)`` vertex indices from 0.
        rgba: ``(V, 4)`` uint8.
    """
    fields = [(name, "<f4") for name in "xyz"]
    if rgba is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue", "alpha")]
    points = np.empty(len(vertices), fields)
    for column, name in enumerate("xyz"):
        points[name] = vertices[:, column]
    for column, (name, _) in enumerate(fields[3:]):
        points[name] = rgba[:, column]
    faces = np.empty(len(triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, triangles
    words = {"<f4": "float", "u1": "uchar"}
    head = ["ply", "format binary_little_endian 1.0", f"comment {WRITER}", f"element vertex {len(points)}"]
    head += [f"property {words[kind]} {name}" for name, kind in fields]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(head).encode() + points.tobytes() + faces.tobytes()


class Textured(NamedTuple):
    """What a surface with a picture on it has besides vertices and triangles.

    Attributes:
        places: ``(V, 2)`` u to the right and v upwards, 0 to 1.
        normals: ``(V, 3)`` of length 1.
        png: The picture, as the bytes of a PNG file.
        name: Of the material.
    """

    places: np.ndarray
    normals: np.ndarray
    png: bytes
    name: str


def glb_bytes(
    vertices: np.ndarray, triangles: np.ndarray, rgba: np.ndarray | None = None, textured: Textured | None = None
) -> bytes:
    """A binary glTF 2.0 file with one mesh: https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html.

    Args:
        vertices: ``(V, 3)`` in metres.
        triangles: ``(T, 3)`` vertex indices from 0.
        rgba: ``(V, 4)`` uint8, in linear light as glTF wants it.
        textured: A picture on it, with no lacquer.
    """
    data = _Data()
    indices = data.add(np.asarray(triangles, "<u4").reshape(-1), _UINT32)
    attributes = {"POSITION": data.add(np.asarray(vertices, "<f4"), _FLOAT)}
    if rgba is not None:
        attributes["COLOR_0"] = data.add(np.asarray(rgba, "u1"), _UINT8, normalized=True)
    primitive: dict[str, object] = {"attributes": attributes, "indices": indices, "mode": 4}
    scene: dict[str, object] = {}
    if textured is not None:
        downwards = np.stack([textured.places[:, 0], 1 - textured.places[:, 1]], axis=1)  # glTF's v
        attributes["TEXCOORD_0"] = data.add(downwards.astype("<f4"), _FLOAT)
        attributes["NORMAL"] = data.add(np.asarray(textured.normals, "<f4"), _FLOAT)
        primitive["material"] = 0
        surface = {"baseColorTexture": {"index": 0}, "roughnessFactor": 1.0, "metallicFactor": 0.0}
        scene = {
            "images": [{"bufferView": data.view(textured.png), "mimeType": "image/png"}],
            "textures": [{"source": 0}],
            "materials": [{"name": textured.name, "pbrMetallicRoughness": surface}],
        }
    scene |= {
        "asset": {"version": "2.0", "generator": WRITER},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "face", "mesh": 0}],
        "meshes": [{"name": "face", "primitives": [primitive]}],
        "accessors": data.accessors,
        "bufferViews": data.views,
        "buffers": [{"byteLength": len(data.binary)}],
    }
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = b"".join(struct.pack("<I4s", len(c), kind) + c for kind, c in ((_JSON, text), (_BINARY, data.binary)))
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


class _Data:
    """The binary part of a GLB file, and what says where things are in it."""

    def __init__(self) -> None:
        self.binary, self.views, self.accessors = b"", [], []

    def view(self, content: bytes) -> int:
        """Number of a new view of bytes, which begin and end at multiples of 4."""
        self.views.append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(content)})
        self.binary += content + b"\0" * (-len(content) % 4)
        return len(self.views) - 1

    def add(self, array: np.ndarray, kind: int, **more: object) -> int:
        """Number of a new accessor of an array ``(N,)`` or ``(N, C)``, with its bounds."""
        table = array.reshape(len(array), -1)
        bounds = {"min": table.min(axis=0).tolist(), "max": table.max(axis=0).tolist()} if len(table) else {}
        entry = {"bufferView": self.view(array.tobytes()), "componentType": kind, "count": len(array)}
        self.accessors.append({**entry, "type": _VECTORS[table.shape[1]], **bounds, **more})
        return len(self.accessors) - 1
