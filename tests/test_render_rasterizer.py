"""The z-buffer: against naive loops and rays, one backend against the other, and on bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import (
    InputTypeError,
    MissingDependencyError,
    ShapeError,
    TwodaslError,
    ValueRangeError,
)
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.camera import euler_to_matrix, frame_to_pixels, make_pose, project
from twodasl_lite.render import (
    Fragments,
    barycentric_of,
    interpolate,
    numba_available,
    numba_backend,
    rasterize,
    rasterizer,
    torch_backend,
    triton_backend,
)
from twodasl_lite.render.screen import SUBPIXEL_BITS
from twodasl_lite.render.threads import side_by_side

needs_numba = pytest.mark.skipif(not numba_available(), reason="numba is not installed")
TRIANGLE = torch.tensor([[0, 1, 2]])


@pytest.fixture(params=["torch", pytest.param("numba", marks=needs_numba)])
def backend(request):
    return request.param


def triangles_apart(corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners ``(B, T, 3, 3)`` of triangles that share nothing, as vertices and indices."""
    return corners.flatten(1, 2), torch.arange(3 * corners.shape[1]).reshape(-1, 3)


def soup(seed: int, *, batch: int = 3, count: int = 40, lattice: float = 0.5, size: float = 30) -> torch.Tensor:
    """Random triangles of constant depth whose corners lie on a lattice, so that many edges hit pixel centres."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(batch, count, 3, 3, generator=generator) * size * 1.4 - 0.2 * size
    corners[..., :2] = (corners[..., :2] / lattice).round() * lattice
    corners[..., 2] = torch.randint(-4, 5, (batch, count, 1), generator=generator).float() / 3  # many ties
    return corners


def naive(vertices: torch.Tensor, triangles: torch.Tensor, height: int, width: int, cull: str) -> np.ndarray:
    """The rules, word by word, in exact arithmetic: one picture, all pixels, all triangles."""
    fixed = (vertices[:, :2].double() * 256).round().long().tolist()
    depth = [Fraction(z) for z in vertices[:, 2].float().tolist()]
    shown = np.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            px, py, nearest = 256 * column, 256 * row, None
            for number, corners in enumerate(triangles.tolist()):
                (ax, ay), (bx, by), (cx, cy) = (fixed[v] for v in corners)
                area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
                if area == 0 or (cull == "back" and area > 0) or (cull == "front" and area < 0):
                    continue
                order = corners if area > 0 else corners[::-1]  # interior to the right of each edge, as y points down
                weights = []
                for k in range(3):
                    (ux, uy), (vx, vy) = fixed[order[(k + 1) % 3]], fixed[order[(k + 2) % 3]]
                    value = (vx - ux) * (py - uy) - (vy - uy) * (px - ux)
                    left, top = vy < uy, vy == uy and vx > ux
                    weights.append(value if value > 0 or (value == 0 and (left or top)) else None)
                if None in weights:
                    continue
                here = sum(w * depth[v] for w, v in zip(weights, order, strict=True)) / abs(area)
                if nearest is None or here > nearest:
                    nearest, shown[row, column] = here, number
    return shown


# ------------------------------------------------------------------------------------------------- what is drawn
@pytest.mark.parametrize("cull", ["back", "front", "none"])
@pytest.mark.parametrize("lattice", [0.5, 1.0, 1 / 256])
def test_equals_a_naive_loop(backend, cull, lattice):
    vertices, triangles = triangles_apart(soup(1, batch=2, count=25, lattice=lattice, size=16))
    drawn = rasterize(vertices, triangles, 14, 17, backend=backend, cull=cull)
    for image in range(2):
        np.testing.assert_array_equal(drawn.triangle[image], naive(vertices[image], triangles, 14, 17, cull))


@needs_numba
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cull", ["back", "front", "none"])
def test_backends_agree_to_the_bit(dtype, cull):
    corners = soup(2, batch=5, count=300, lattice=1 / 8).to(dtype)
    corners[..., 2] += torch.rand(corners.shape[:-1], generator=torch.Generator().manual_seed(0), dtype=dtype)
    vertices, triangles = triangles_apart(corners)
    one, other = (rasterize(vertices, triangles, 33, 29, backend=name, cull=cull) for name in ("torch", "numba"))
    for name, first, second in zip(Fragments._fields, one, other, strict=True):
        assert first.dtype == second.dtype == (torch.int64 if name == "triangle" else dtype)
        assert torch.equal(first, second), name
    assert one.covered.float().mean() > 0.5


@needs_numba
@pytest.mark.parametrize("size", [48, 200])
def test_backends_agree_on_faces(size):
    vertices, triangles = posed_face(size, [-1.4, -0.5, 0.0, 0.9])
    one, other = (rasterize(vertices, triangles, size, size, backend=name) for name in ("torch", "numba"))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_compiled_loop_does_the_same_uncompiled():
    corners = soup(3, batch=1, count=30, size=16)
    vertices, triangles = triangles_apart(corners)
    wanted = rasterize(vertices, triangles, 15, 16, backend="torch", cull="back")
    out = np.empty((15, 16), np.int64), np.zeros((15, 16, 3), np.float32), np.empty((15, 16), np.float32)
    for first, last in ((0, 4), (4, 15)):
        numba_backend.draw_band(vertices[0].numpy(), triangles.numpy(), 1, first, last, *out)
    for mine, its in zip(out, wanted, strict=True):
        np.testing.assert_array_equal(mine, its[0])


def test_meshes_have_neither_gaps_nor_overlaps(backend):
    """Each triangle of a crumpled sheet in a picture of its own: together they cover every pixel exactly once."""
    n, generator = 13, torch.Generator().manual_seed(4)
    y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    points = torch.stack([x, y, torch.zeros_like(x)], dim=-1).float() * 4 - 4
    points[..., :2] += torch.randint(-6, 7, (n, n, 2), generator=generator) / 4  # quarters: many hits of pixel centres
    first = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).reshape(-1, 1)
    triangles = torch.cat([first + torch.tensor([0, n, 1]), first + torch.tensor([1, n, n + 1])])
    alone = points.reshape(-1, 3)[triangles]  # (T, 3, 3): a batch with one triangle each
    drawn = rasterize(alone, TRIANGLE, 37, 37, backend=backend, cull="none")
    assert (drawn.covered.sum(dim=0)[:37, :37] == 1).all()


def test_largest_depth_wins_and_of_equals_the_first(backend):
    square = torch.tensor([[0.0, 0, 1], [0, 9, 1], [9, 0, 1]])
    for depths, winner in (([1, 2, 0], 1), ([2, 2, 1], 0), ([0, 3, 3], 1), ([-1, -2, -1], 0), ([-0.0, 0.0, 0.0], 0)):
        corners = torch.stack([square * torch.tensor([1, 1, depth]) for depth in depths])
        vertices, triangles = triangles_apart(corners[None])
        drawn = rasterize(vertices, triangles, 5, 5, backend=backend)
        assert (drawn.triangle[0, 1, 1], drawn.depth[0, 1, 1]) == (winner, depths[winner])


def test_which_side_is_the_front(backend):
    """Counter-clockwise in the model frame, seen by a viewer on the z axis."""
    model = torch.tensor([[[10.0, 10, 0], [40, 10, 0], [10, 40, 0]]])
    pixels = frame_to_pixels(model, height=50)
    seen = {
        cull: bool(rasterize(pixels, TRIANGLE, 50, 50, backend=backend, cull=cull).covered.any())
        for cull in ("back", "front", "none")
    }
    assert seen == {"back": True, "front": False, "none": True}


def test_moves_with_the_picture(backend):
    """What lies outside is cut off, nothing else: a window into a larger picture shows the same."""
    vertices, triangles = triangles_apart(soup(5, lattice=1 / 16))
    whole = rasterize(vertices + torch.tensor([20.0, 20, 0]), triangles, 70, 70, backend=backend)
    part = rasterize(vertices, triangles, 30, 25, backend=backend)
    window = whole.triangle[:, 20:50, 20:45]
    assert torch.equal(part.triangle, window)
    torch.testing.assert_close(part.depth, whole.depth[:, 20:50, 20:45])


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_pieces_do_not_show(monkeypatch, piece):
    vertices, triangles = triangles_apart(soup(6, count=12, size=16))
    wanted = rasterize(vertices, triangles, 16, 16, backend="torch")
    monkeypatch.setitem(torch_backend._PIECE, "cpu", piece)
    drawn = rasterize(vertices, triangles, 16, 16, backend="torch")
    assert all(torch.equal(a, b) for a, b in zip(drawn, wanted, strict=True))


@pytest.fixture
def threads():
    """Sets torch's number of threads, and puts it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_threads_do_not_show(backend, batch, threads):
    vertices, triangles = triangles_apart(soup(7, batch=batch))
    threads(1)
    wanted = rasterize(vertices, triangles, 31, 30, backend=backend)
    threads(3)
    drawn = rasterize(vertices, triangles, 31, 30, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(drawn, wanted, strict=True))
    assert torch.get_num_threads() == 3


def test_what_fails_in_a_thread_is_heard_of(threads):
    threads(3)
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda task: 1 // (task - 1), 3)
    assert torch.get_num_threads() == 3


class Drawings(torch.utils.data.Dataset):
    def __init__(self, backend):
        self.backend = backend

    def __len__(self):
        return 4

    def __getitem__(self, number):
        vertices, triangles = triangles_apart(soup(number, batch=1))
        return rasterize(vertices, triangles, 30, 30, backend=self.backend).triangle[0]


def test_draws_in_the_workers_of_a_data_loader(backend):
    drawings = Drawings(backend)
    wanted = torch.stack([drawings[number] for number in range(4)])  # threads have been at work before the fork
    loaded = next(iter(torch.utils.data.DataLoader(drawings, batch_size=4, num_workers=1, timeout=60)))
    assert torch.equal(loaded, wanted)


def test_every_device_draws_the_same(device):
    vertices, triangles = triangles_apart(soup(8, lattice=1 / 32))
    drawn = rasterize(vertices.to(device), triangles.to(device), 30, 30, backend="torch")
    wanted = rasterize(vertices, triangles, 30, 30, backend="torch")
    for mine, its in zip(drawn, wanted, strict=True):
        assert mine.device.type == device.type
        assert torch.equal(mine.cpu(), its)


def test_the_quickest_backend_of_a_device_draws_the_same(device):
    """On CUDA this is Triton; of equal depths the same triangle wins there too."""
    vertices, triangles = triangles_apart(soup(8, count=300, lattice=1 / 32))
    wanted = rasterize(vertices, triangles, 30, 30, backend="torch")
    drawn = rasterize(vertices.to(device), triangles.to(device), 30, 30, check=False)
    assert (drawn.triangle.cpu() == wanted.triangle).float().mean() >= 0.999
    same = drawn.triangle.cpu() == wanted.triangle
    for mine, its in zip(drawn[1:], wanted[1:], strict=True):
        torch.testing.assert_close(mine.cpu()[same], its[same])


def test_unchecked_coordinates_stay_within_bounds(backend):
    far = torch.tensor([[[-1e9, -1e9, 2.0], [-1e9, 1e9, 2.0], [1e9, 0.0, 2.0]]])
    assert rasterize(far, TRIANGLE, 9, 9, backend=backend, check=False).triangle.shape == (1, 9, 9)
    drawn = rasterize(GOOD, TRIANGLE, 9, 9, backend=backend, check=False)
    assert all(torch.equal(a, b) for a, b in zip(drawn, rasterize(GOOD, TRIANGLE, 9, 9, backend=backend), strict=True))


IMITATED = """
import torch
from triton.runtime import interpreter
from twodasl_lite.render import torch_backend, triton_backend
from twodasl_lite.render.screen import ScreenMesh

usual = interpreter._LangPatchScope.set_attr

def set_attr(scope, thing, name, value):
    # Triton 3.6 makes a number of an array that holds one, which NumPy 2.4 no longer does.
    usual(scope, thing, name, (lambda self: int(self.handle.data.item())) if name == "__index__" else value)

interpreter._LangPatchScope.set_attr = set_attr
wrong = triton_backend._disagreement(torch.device("cpu"))
assert not wrong, wrong

generator = torch.Generator().manual_seed(1)
near = torch.tensor([[2.0, 2, 1], [2, 12, 1], [12, 2, 1], [2, 2, 1], [2, 12, 1], [12, 2, 1]])
few = 14 * torch.rand(2, 30, 3, generator=generator)
meshes = {
    "equal depths": ScreenMesh(near[None], torch.tensor([[3, 5, 4], [0, 1, 2]]), 13, 13, "none"),
    "zero of either sign": ScreenMesh(near[None] * torch.tensor([1.0, 1, -0.0]), torch.arange(3)[None], 13, 13, "none"),
    "nothing to draw": ScreenMesh(few, torch.zeros(0, 3, dtype=torch.long), 5, 7, "none"),
    "no vertices": ScreenMesh(few[:, :0], torch.zeros(0, 3, dtype=torch.long), 5, 7, "none"),
    "no pictures": ScreenMesh(few[:0], torch.arange(30).reshape(-1, 3), 5, 7, "none"),
    "a column": ScreenMesh(few, torch.arange(30).reshape(-1, 3), 16, 1, "none"),
    "a row": ScreenMesh(few, torch.arange(30).reshape(-1, 3), 1, 16, "none"),
    "in double precision": ScreenMesh(few.double(), torch.arange(30).reshape(-1, 3), 16, 16, "none"),
    "no area": ScreenMesh(few * torch.tensor([1.0, 0, 1]), torch.arange(30).reshape(-1, 3), 16, 16, "none"),
    "the back left out": ScreenMesh(few, torch.arange(30).reshape(-1, 3), 16, 16, "back"),
    "the front left out": ScreenMesh(few, torch.arange(30).reshape(-1, 3), 16, 16, "front"),
}
for name, mesh in meshes.items():
    mine, its = triton_backend.draw(mesh), torch_backend.draw(mesh)
    assert torch.equal(mine[0], its[0]), name
    for one, other in zip(mine[1:], its[1:]):
        assert one.dtype == other.dtype, name
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5), name
"""


def test_triton_draws_as_the_others_do():
    """Its kernels, imitated on the CPU by Triton's interpreter, in a process of their own."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", IMITATED], env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    if "only 0-dimensional arrays" in done.stderr or "_LangPatchScope" in done.stderr:
        pytest.skip("this interpreter of Triton does not know this numpy")
    assert done.returncode == 0, done.stdout + done.stderr


COMPILED = """
import itertools, re, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from twodasl_lite.render import triton_backend as t

names = {"x": "*i32", "y": "*i32", "z": "*fp32", "triangles": "*i64", "nearest": "*i64", "large": "*i64"}
names |= {"num_large": "*i32", "triangle": "*i64", "depth": "*fp32"}
names |= dict.fromkeys(("num_vertices", "num_triangles", "num_pixels", "height", "width"), "i32")
for kernel, atomics in ((t.draw_small, {"add.u32", "max.s64"}), (t.draw_large, {"max.s64"}), (t.read_off, set())):
    for wide, real in itertools.product((False, True), ("*fp32", "*fp64")):
        fixed = {"BITS": t.SUBPIXEL_BITS, "BLOCK": t._BLOCK, "CULLED": 1, "LARGE": t._LARGE}
        # The compiler takes sides and numbers of one as constants.
        fixed |= {} if wide else {"width": 1, "num_triangles": 1, "num_vertices": 1}
        fixed = {name: value for name, value in fixed.items() if name in kernel.arg_names}
        types = names | {"barycentric": real, "depth": real} | dict.fromkeys(fixed, "constexpr")
        source = ASTSource(
            kernel,
            {name: types[name] for name in kernel.arg_names},
            {(kernel.arg_names.index(name),): value for name, value in fixed.items()},
        )
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        assert made.asm["cubin"]
        found = set(re.findall(r"(?:atom|red)[\\w.:]*relaxed\\.(\\w+\\.\\w+)", made.asm["ptx"]))
        assert found == atomics, (kernel, found)
"""


def test_triton_compiles_for_a_gpu_that_is_not_here(tmp_path):
    """To machine code of Hopper GPUs, by the compiler in Triton's package; the race for a pixel is one atomic."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True)
    if "No module named 'triton.backends.nvidia'" in done.stderr:
        pytest.skip("this Triton does not compile for GPUs of NVIDIA")
    assert done.returncode == 0, done.stdout + done.stderr


def test_triton_where_it_cannot_draw(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    error = InputTypeError if triton_backend.available() else MissingDependencyError
    with pytest.raises(error, match="triton"):
        rasterize(GOOD, TRIANGLE, 9, 9, backend="triton")
    assert not triton_backend.usable(torch.device("cpu"))


@pytest.mark.parametrize("trouble", ["missing", "raises", "draws wrongly"])
def test_a_gpu_without_triton_draws_with_torch_and_says_so(monkeypatch, trouble):
    def disagreement(device):
        if trouble == "raises":
            raise RuntimeError("no compiler")
        return "weights or depths differ"

    monkeypatch.setattr(triton_backend, "available", lambda: trouble != "missing")
    monkeypatch.setattr(triton_backend, "_disagreement", disagreement)
    triton_backend.usable.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="drawing with the torch backend"):
            assert rasterizer._backend("auto", torch.device("cuda")) is torch_backend
    finally:
        triton_backend.usable.cache_clear()


def test_weights_and_depth(backend):
    vertices, triangles = triangles_apart(soup(9, lattice=1 / 256))
    vertices[..., 2] += vertices[..., 0] / 7
    drawn = rasterize(vertices, triangles, 30, 30, backend=backend)
    weights = drawn.barycentric[drawn.covered]
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(len(weights)))
    assert (drawn.barycentric[~drawn.covered] == 0).all()
    assert (drawn.depth[~drawn.covered] == -torch.inf).all()
    torch.testing.assert_close(
        interpolate(vertices[..., 2:], triangles, drawn)[..., 0][drawn.covered], drawn.depth[drawn.covered]
    )


def posed_face(size: int, yaws: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """The embedded face, filling pictures of the given side, turned."""
    model = load_face_model()
    angles = torch.tensor([[0.1, yaw, 0.05] for yaw in yaws])
    scale = torch.full((len(yaws),), size / 320)
    pose = make_pose(scale, euler_to_matrix(angles), torch.tensor([size / 2, size * 0.6, 0.0]))
    return frame_to_pixels(project(model.mean.float(), pose), size), model.triangles


def cast_rays(vertices: np.ndarray, triangles: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest hit of a ray through each pixel centre along z: Moeller and Trumbore's test, all against all."""
    a, b, c = (vertices[triangles[:, k]].astype(np.float64) for k in range(3))  # (T, 3)
    u, v, ray = b - a, c - a, np.array([0.0, 0.0, -1.0])
    across = np.cross(ray, v)  # (T, 3)
    determinant = np.einsum("td,td->t", u, across)
    usable = np.abs(determinant) > 1e-12
    a, u, v, across, determinant = (part[usable] for part in (a, u, v, across, determinant))
    depth, hit = np.full((size, size), -np.inf), np.full((size, size), -1)
    for row in range(size):
        near = (a[:, 1] > row - size / 8) & (a[:, 1] < row + size / 8)  # no triangle is that tall
        for column in range(size):
            origin = np.array([column, row, 0.0]) - a[near]
            first = np.einsum("td,td->t", origin, across[near]) / determinant[near]
            turned = np.cross(origin, u[near])
            second = turned @ ray / determinant[near]
            along = -np.einsum("td,td->t", v[near], turned) / determinant[near]
            inside = (first >= 0) & (second >= 0) & (first + second <= 1)
            if inside.any():
                best = np.argmax(np.where(inside, along, -np.inf))
                depth[row, column] = along[best]
                hit[row, column] = np.flatnonzero(usable)[np.flatnonzero(near)[best]]
    return hit, depth


@pytest.fixture(scope="module")
def rays() -> tuple[int, np.ndarray, np.ndarray]:
    """What rays hit in a picture of the embedded face: its side, the triangles, the depths."""
    size = 56
    vertices, triangles = posed_face(size, [0.5])
    return size, *cast_rays(vertices[0].numpy(), triangles.numpy(), size)


def test_coverage_and_depth_are_those_of_rays(backend, rays):
    size, hit, depth = rays
    drawn = rasterize(*posed_face(size, [0.5]), size, size, backend=backend)
    covered = drawn.covered[0].numpy()
    assert 0.3 < covered.mean() < 0.9
    assert (covered == (hit >= 0)).mean() >= 0.995
    both = covered & (hit >= 0)
    assert (np.abs(drawn.depth[0].numpy()[both] - depth[both]) < 0.1).mean() >= 0.995


# ---------------------------------------------------------------------------------------------- what is not drawn
def test_triangles_without_area_cover_nothing(backend):
    point, line = [[5.0, 5, 1]] * 3, [[0.0, 0, 1], [4, 4, 1], [9, 9, 1]]
    thin = [[2.0, 2, 1], [8, 2, 1], [5, 2.0001, 1]]  # flat once it is rounded
    for corners in (point, line, thin):
        drawn = rasterize(torch.tensor([corners]), TRIANGLE, 12, 12, backend=backend)
        assert not drawn.covered.any()


def test_triangles_between_pixel_centres_cover_nothing(backend):
    corners = torch.tensor([[[3.2, 3.2, 1], [3.2, 3.8, 1], [3.8, 3.2, 1]]])
    assert not rasterize(corners, TRIANGLE, 8, 8, backend=backend).covered.any()


def test_triangles_outside_the_picture_cover_nothing(backend):
    triangle = torch.tensor([[0.0, 0, 1], [0, 5, 1], [5, 0, 1]])
    for x, y in ((-100, 0), (100, 0), (0, -100), (0, 100), (32_000, -32_000)):
        drawn = rasterize(triangle[None] + torch.tensor([x, y, 0.0]), TRIANGLE, 12, 12, backend=backend)
        assert not drawn.covered.any()


def test_triangle_far_larger_than_the_picture_covers_all_of_it(backend):
    corners = torch.tensor([[[-32_768.0, -32_768, 2], [-32_768, 32_768, 2], [32_768, -1000, 2]]])
    drawn = rasterize(corners, TRIANGLE, 40, 30, backend=backend)
    assert drawn.covered.all()
    assert (drawn.depth == 2).all()


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 5, 3), (2, 0, 3)])
def test_nothing_to_draw(backend, shape):
    drawn = rasterize(torch.zeros(shape), torch.zeros(0, 3, dtype=torch.int64), 4, 6, backend=backend)
    assert drawn.triangle.shape == (shape[0], 4, 6)
    assert drawn.barycentric.shape == (shape[0], 4, 6, 3)
    assert not drawn.covered.any()


GOOD = torch.tensor([[[0.0, 0, 1], [0, 9, 1], [9, 0, 1]]])


def with_value(value: float, axis: int = 0) -> torch.Tensor:
    bad = GOOD.clone().double()
    bad[0, 1, axis] = value
    return bad


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((with_value(np.nan), TRIANGLE, 9, 9), {}, ValueRangeError, "vertices: found 1 of 9 values NaN"),
        ((with_value(np.inf, 2), TRIANGLE, 9, 9), {}, ValueRangeError, "vertices: found 1 of 9 values NaN or infinite"),
        ((with_value(-40_000.0, 1), TRIANGLE, 9, 9), {}, ValueRangeError, "up to 40000 pixels .* at most 32768"),
        ((with_value(1e39, 2), TRIANGLE, 9, 9), {}, ValueRangeError, "depths up to 1e"),
        ((GOOD[0], TRIANGLE, 9, 9), {}, ShapeError, "vertices"),
        ((GOOD[..., :2], TRIANGLE, 9, 9), {}, ShapeError, "vertices"),
        (("face", TRIANGLE, 9, 9), {}, InputTypeError, "vertices: found str"),
        ((GOOD, TRIANGLE + 1, 9, 9), {}, ValueRangeError, "triangles: found indices from 1 to 3; expected 0 to 2"),
        ((GOOD, TRIANGLE - 1, 9, 9), {}, ValueRangeError, "triangles: found indices from -1"),
        ((GOOD[:, :0], TRIANGLE, 9, 9), {}, ValueRangeError, "triangles"),
        ((GOOD, TRIANGLE.float(), 9, 9), {}, InputTypeError, "triangles: found torch.float32; expected integers"),
        ((GOOD, TRIANGLE[:, :2], 9, 9), {}, ShapeError, "triangles"),
        ((GOOD, None, 9, 9), {}, InputTypeError, "triangles: found NoneType"),
        ((GOOD, TRIANGLE, 0, 9), {}, ValueRangeError, "height: found 0"),
        ((GOOD, TRIANGLE, 9, -1), {}, ValueRangeError, "width: found -1"),
        ((GOOD, TRIANGLE, 9, 10**6), {}, ValueRangeError, "width: found 1000000"),
        ((GOOD, TRIANGLE, 9.5, 9), {}, InputTypeError, "height: found 9.5; expected a whole number"),
        ((GOOD, TRIANGLE, True, 9), {}, InputTypeError, "height: found True; expected a whole number"),
        ((GOOD, TRIANGLE, 9, 9), {"cull": "all"}, ValueRangeError, "cull: found 'all'"),
        ((GOOD, TRIANGLE, 9, 9), {"backend": "opengl"}, ValueRangeError, "backend: found 'opengl'"),
    ],
)
def test_bad_input(arguments, options, error, words):
    with pytest.raises(error, match=words) as caught:
        rasterize(*arguments, **options)
    assert isinstance(caught.value, TwodaslError)


def test_far_depths_are_drawn(backend):
    drawn = rasterize(GOOD * torch.tensor([1, 1, 1e30]), TRIANGLE, 9, 9, backend=backend)
    assert drawn.depth[0, 1, 1] == np.float32(1e30)


def test_other_types_are_drawn(backend):
    wanted = rasterize(GOOD, TRIANGLE, 9, 9, backend=backend).triangle
    for vertices in (GOOD.double(), GOOD.half(), GOOD.long(), GOOD.numpy(), GOOD.tolist()):
        assert torch.equal(rasterize(vertices, TRIANGLE.int(), 9, 9, backend=backend).triangle, wanted)


def test_numba_is_loaded_once_it_pays(monkeypatch):
    """A few pictures are drawn by torch, many by numba, and a large batch by numba at once."""
    pytest.importorskip("numba")
    used = []
    for backend in (torch_backend, numba_backend):
        real = backend.draw
        monkeypatch.setattr(backend, "draw", lambda mesh, real=real, b=backend: used.append(b) or real(mesh))
    monkeypatch.setattr(numba_backend, "loaded", lambda: False)
    monkeypatch.setattr(rasterizer, "_drawn_by_torch", 0.0)
    small = rasterize(GOOD, TRIANGLE, 9, 9)
    assert used == [torch_backend]
    monkeypatch.setattr(rasterizer, "_NUMBA_SECONDS", 2.5 * (4e-7 * len(TRIANGLE) + 4e-8 * 81))
    rasterize(GOOD, TRIANGLE, 9, 9)
    again = rasterize(GOOD, TRIANGLE, 9, 9)
    assert used == [torch_backend, torch_backend, numba_backend]
    assert all(torch.equal(first, second) for first, second in zip(small, again, strict=True))
    monkeypatch.setattr(rasterizer, "_drawn_by_torch", 0.0)
    rasterize(GOOD.expand(50, -1, -1), TRIANGLE, 9, 9)
    assert used[-1] is numba_backend
    monkeypatch.setattr(numba_backend, "loaded", lambda: True)
    monkeypatch.setattr(rasterizer, "_drawn_by_torch", 0.0)
    rasterize(GOOD, TRIANGLE, 9, 9)
    assert used[-1] is numba_backend


def test_input_is_left_alone(backend):
    vertices, triangles = GOOD.clone().requires_grad_(), TRIANGLE.clone()
    drawn = rasterize(vertices, triangles, 9, 9, backend=backend)
    assert torch.equal(vertices, GOOD)
    assert torch.equal(triangles, TRIANGLE)
    assert not drawn.depth.requires_grad


def test_without_numba(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    numba_backend._compiled.cache_clear()
    try:
        assert not numba_available()
        assert rasterize(GOOD, TRIANGLE, 9, 9).covered.any()  # "auto" does with torch
        with pytest.raises(MissingDependencyError, match=r"twodasl_lite\[render\]"):
            rasterize(GOOD, TRIANGLE, 9, 9, backend="numba")
    finally:
        numba_backend._compiled.cache_clear()


def test_numba_refuses_other_devices():
    with pytest.raises(InputTypeError, match="expected the CPU"):
        rasterize(torch.zeros(1, 0, 3, device="meta"), TRIANGLE[:0].to("meta"), 9, 9, backend="numba")


# ------------------------------------------------------------------------------------------------- interpolation
@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor, Fragments]:
    vertices, triangles = triangles_apart(soup(10, batch=2, count=6, lattice=1 / 256, size=9).double())
    vertices[..., 2] += 0.1 * vertices[..., 1]
    return vertices, triangles, rasterize(vertices, triangles, 8, 9)


def test_interpolates_linearly(scene):
    vertices, triangles, fragments = scene
    places = interpolate(vertices[..., :2], triangles, fragments)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(9), indexing="ij")
    wanted = torch.stack([column, row], dim=-1).double()[None] * fragments.covered[..., None]
    torch.testing.assert_close(places, wanted)


def test_attributes_for_the_whole_batch(scene):
    vertices, triangles, fragments = scene
    colours = torch.rand(vertices.shape[1], 4, dtype=torch.float64)
    shared = interpolate(colours, triangles, fragments)
    assert shared.shape == (2, 8, 9, 4)
    assert torch.equal(shared, interpolate(colours.expand(2, -1, -1), triangles, fragments))


def test_interpolation_has_gradients(scene):
    vertices, triangles, fragments = scene

    def values(attributes, weights):
        return interpolate(attributes, triangles, fragments._replace(barycentric=weights))

    attributes = torch.rand(2, vertices.shape[1], 2, dtype=torch.float64, requires_grad=True)
    weights = fragments.barycentric.clone().requires_grad_()
    assert torch.autograd.gradcheck(values, (attributes, weights))


def test_weights_follow_the_vertices(scene):
    vertices, triangles, fragments = scene
    again = barycentric_of(fragments, vertices, triangles)
    torch.testing.assert_close(again.barycentric, fragments.barycentric)  # corners on the lattice: nothing was rounded
    torch.testing.assert_close(again.depth, fragments.depth, rtol=1e-6, atol=1e-6)
    # One large triangle, so that moving its corners a little changes no pixel's triangle.
    corners = torch.tensor([[[-1.3, -1.2, 1], [-1.1, 9.3, 2], [11.2, -0.7, 4]]], dtype=torch.float64)
    drawn = rasterize(corners, TRIANGLE, 6, 6)

    def outputs(points):
        new = barycentric_of(drawn, points, TRIANGLE)
        return new.barycentric, torch.where(drawn.covered, new.depth, 0.0)

    assert drawn.covered.sum() > 20
    assert torch.autograd.gradcheck(outputs, corners.requires_grad_())


def test_interpolation_of_bad_input(scene):
    vertices, triangles, fragments = scene
    with pytest.raises(ShapeError, match="attributes"):
        interpolate(vertices[:1].expand(3, -1, -1), triangles, fragments)
    with pytest.raises(ValueRangeError, match="triangles"):
        interpolate(vertices[:, :5], triangles, fragments)
    with pytest.raises(ShapeError, match="triangles: found 1; expected those that the fragments show"):
        interpolate(vertices, triangles[:1], fragments)
    with pytest.raises(ShapeError, match="vertices"):
        barycentric_of(fragments, vertices[:1], triangles)


def test_largest_coordinate_keeps_edge_functions_exact():
    """The bound that the rasterizer states: products of differences of corners are below 2 ** 53."""
    reach = rasterizer.MAX_COORDINATE * 2**SUBPIXEL_BITS
    assert 2 * (2 * reach) * (2 * reach) < 2**53
