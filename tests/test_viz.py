"""The explorer agrees with the package, in a page and in JupyterLab; figures show the data that they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.pages import address, watch
from twodasl_lite.base.errors import ShapeError, TwodaslError, ValueRangeError
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import CROP_SIZE, euler_to_matrix
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import GROUPS, NUM_LANDMARKS
from twodasl_lite.viz.packing import checksum, pack_model
from twodasl_lite.viz.palette import CATEGORICAL, hex_to_rgb, landmark_colour
from twodasl_lite.viz.shading import rasterise, render_mesh, shade, vertex_normals, visible_vertices

RADIUS = 80.0
RAMP = 0.07  # the browser's nine stops of viridis against matplotlib's 256


def make_head(rows: int = 30, columns: int = 48, *, blendshapes: bool = False, albedo: bool = True) -> MorphableModel:
    """An egg with smooth random deformations: a closed mesh whose visibility and normals are known."""
    latitude = torch.linspace(0, torch.pi, rows)[1:-1]
    longitude = torch.arange(columns) * (2 * torch.pi / columns)
    a, b = torch.meshgrid(latitude, longitude, indexing="ij")
    ring = torch.stack([a.sin() * b.sin(), a.cos(), a.sin() * b.cos()], dim=-1).reshape(-1, 3)
    points = torch.cat([ring, torch.tensor([[0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])])  # (V, 3), unit sphere
    bands = len(latitude)
    triangles = []
    for row in range(bands):
        for column in range(columns):
            here, right = row * columns + column, row * columns + (column + 1) % columns
            if row + 1 < bands:
                below, diagonal = here + columns, right + columns
                triangles += [[here, below, diagonal], [here, diagonal, right]]
            else:
                triangles.append([here, len(ring) + 1, right])
            if row == 0:
                triangles.append([len(ring), here, right])
    generator = torch.Generator().manual_seed(3)

    def smooth(count: int, size: float) -> torch.Tensor:
        waves = torch.randn(count, 3, 3, generator=generator) * 2
        phases = torch.rand(count, 3, generator=generator) * 6
        return size * torch.sin(torch.einsum("vc,kdc->vdk", points, waves) + phases.T)

    front = torch.nonzero(points[:, 2] > 0.5).flatten()
    landmarks = front[torch.linspace(0, len(front) - 1, NUM_LANDMARKS).long()]
    colours = {}
    if albedo:
        colours = {"albedo_mean": points * 0.3 + 0.5, "albedo_basis": smooth(2, 0.03)}
    return MorphableModel(
        points * RADIUS * torch.tensor([0.8, 1.1, 0.9]),
        smooth(14, 3.0) / torch.linspace(2, 0.5, 14),
        smooth(4, 2.0),
        torch.tensor(triangles),
        landmarks,
        shape_std=torch.linspace(2, 0.5, 14),
        expression_std=torch.full((4,), 0.4),
        expression_names=["jawOpen", "mouthSmile_L", "mouthSmile_R", "browInnerUp"],
        expression_kind="blendshapes" if blendshapes else "components",
        regions={"front": front, "half": torch.nonzero(points[:, 0] > 0).flatten()},
        name="egg",
        **colours,
    )


@pytest.fixture(scope="module")
def head() -> MorphableModel:
    return make_head()


def exact(model: MorphableModel, shape, expression) -> np.ndarray:
    """The package's vertices for coefficients in standard deviations (or activations)."""
    full_shape, full_expression = torch.zeros(1, model.num_shape), torch.zeros(1, model.num_expression)
    full_shape[0, : len(shape)] = torch.as_tensor(shape) * model.shape_std[: len(shape)]
    full_expression[0, : len(expression)] = torch.as_tensor(expression)
    if model.expression_kind == "components":
        full_expression *= model.expression_std
    return model.decode(full_shape, full_expression)[0].numpy()


def drawn_checksum(vertices: np.ndarray, angles: list[float]) -> float:
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor(angles, dtype=torch.float64))).numpy()
    return checksum(vertices @ rotation.T)


# ------------------------------------------------------------------------------------------------------------- imports
def test_importing_viz_loads_nothing_heavy():
    code = (
        "import sys, twodasl_lite.viz as viz; assert 'FaceExplorer' in dir(viz);"
        "print([m for m in ('matplotlib', 'plotly', 'anywidget', 'ipywidgets', 'IPython') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_every_public_name_exists():
    import twodasl_lite.viz as viz

    for name in viz.__all__:
        assert callable(getattr(viz, name))
    with pytest.raises(AttributeError):
        viz.nothing  # noqa: B018


# ---------------------------------------------------------------------------------------------------- the packed model
@pytest.mark.parametrize("blendshapes", [False, True])
@pytest.mark.parametrize("max_error", [0.05, 0.2])
def test_packed_model_keeps_its_promise(blendshapes, max_error):
    model = make_head(blendshapes=blendshapes)
    packed = pack_model(model, max_error=max_error)
    limit = 1.0 if blendshapes else 3.0
    rng = np.random.default_rng(0)
    for _ in range(10):
        shape = rng.choice([-3.0, 3.0], size=12)  # the corners of the allowed box are the worst case
        expression = rng.choice([0.0 if blendshapes else -limit, limit], size=4)
        error = np.abs(packed.decode(shape, expression) - exact(model, shape, expression)).max()
        assert error < max_error + 1e-4  # float32 of the package's own result
    assert packed.header["numShape"] == 12
    assert packed.header["numExpression"] == 4


def test_packed_model_is_small_and_complete(head):
    packed = pack_model(head, None)
    raw = 4 * 3 * head.num_vertices * (head.num_shape + head.num_expression)
    assert packed.base64_size < raw / 2
    assert packed.header["numShape"] == head.num_shape
    assert packed.header["layout"] == {"shape": 14, "expression": 4}
    json.dumps(packed.header)


def test_packed_colours_are_the_models(head):
    packed = pack_model(head, 2, 1)
    albedo = torch.tensor([[1.5, -2.0]])
    truth = head.decode_albedo(albedo * head.albedo_std)[0].numpy()
    assert np.abs(packed.decode_colours(albedo[0].numpy()) - truth).max() < 0.01
    assert pack_model(make_head(albedo=False)).decode_colours(np.zeros(0)).shape == truth.shape
    given = pack_model(head, colours=np.full((head.num_vertices, 3), 0.5))
    assert given.header["numAlbedo"] == 0


def test_packing_a_region(head):
    packed = pack_model(head, 2, 1, region="front")
    kept = head.regions["front"].numpy()
    assert (packed.vertex_indices == np.sort(kept)).all()
    assert (packed.vertex_indices[packed.header["landmarks"]] == head.landmarks.numpy()).all()
    error = np.abs(packed.decode([1.0, -2.0], [0.5]) - exact(head, [1.0, -2.0], [0.5])[packed.vertex_indices])
    assert error.max() < packed.max_error + 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"region": "nose"}, "front, half"),
        ({"region": "half"}, "landmarks outside"),
        ({"num_shape": -1}, "num_shape"),
        ({"max_error": float("nan")}, "max_error"),
        ({"max_error": 0.001}, "expected at least"),
        ({"layout": CoefficientLayout(3, 10)}, "one per slider"),
        ({"colours": np.zeros((5, 3))}, "colours"),
    ],
)
def test_packing_refuses(head, settings, message):
    with pytest.raises(TwodaslError, match=message):
        pack_model(head, **settings)


# -------------------------------------------------------------------------------------------------------- the explorer
def test_explorer_checks_and_completes_coefficients(head):
    from twodasl_lite.viz import FaceExplorer

    explorer = FaceExplorer(head, num_shape=3, shape=[1.0])
    assert explorer.shape == [1.0, 0.0, 0.0]
    explorer.expression = [0.5]
    assert explorer.expression == [0.5, 0.0, 0.0, 0.0]
    with pytest.raises(ShapeError, match="shape"):
        explorer.shape = [0.0] * 4
    with pytest.raises(ValueRangeError, match="angles"):
        explorer.angles = [float("nan"), 0, 0]
    with pytest.raises(ValueRangeError, match="colouring"):
        explorer.colouring = "pink"
    with pytest.raises(ValueRangeError, match="two_faces"):
        FaceExplorer(head, colouring="difference")
    with pytest.raises(ValueRangeError, match="without colours"):
        FaceExplorer(make_head(albedo=False), colouring="skin")


def test_explorer_coefficients_decode_to_its_vertices(head):
    from twodasl_lite.viz import FaceExplorer

    explorer = FaceExplorer(head, num_shape=3, shape=[1.0, -2.0], expression=[0.5], angles=[5.0, -20.0, 3.0])
    face = explorer.coefficients()
    assert torch.allclose(explorer.vertices(), torch.from_numpy(exact(head, [1.0, -2.0], [0.5])), atol=1e-4)
    marks = decode_landmarks(face, head)[0]
    assert float(marks[:, :2].min()) > 0
    assert float(marks[:, :2].max()) < CROP_SIZE
    mean = Coefficients(face.pose, torch.zeros_like(face.shape), torch.zeros_like(face.expression))
    assert abs(float(decode_landmarks(mean, head)[0, :, 2].mean())) < 0.5  # depth zero by convention


def test_html_is_self_contained(head):
    from twodasl_lite.viz import face_explorer_html

    still = face_explorer_html(head, num_shape=2, two_faces=True, colouring="difference", second_shape=[1.0])
    for forbidden in ("http://", "https://", "require(", "import "):
        assert forbidden not in still.html.replace(" import ", "")
    assert still.html.count("<script") == still.html.count("</script>") == 3
    bundle = still._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert still.png.startswith(b"\x89PNG")


def test_widget_carries_html_and_static_figures_no_widget(head, monkeypatch):
    from twodasl_lite.viz import FaceExplorer

    data, _ = FaceExplorer(head, num_shape=2)._repr_mimebundle_()
    assert {"application/vnd.jupyter.widget-view+json", "text/html", "image/png"} <= set(data)
    monkeypatch.setenv("TWODASL_FIGURES", "static")
    explorer = FaceExplorer(head, num_shape=2)
    assert explorer.comm is None
    assert set(explorer._repr_mimebundle_()) == {"text/html", "image/png", "text/plain"}


@pytest.mark.parametrize("colouring", ["skin", "clay", "normals", "pncc", "distance"])
def test_still_picture_of_every_colouring(head, colouring):
    import cv2

    from twodasl_lite.viz import face_explorer_html

    still = face_explorer_html(head, num_shape=2, shape=[2.0], colouring=colouring, landmarks=True)
    picture = cv2.imdecode(np.frombuffer(still.png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (640, 640, 4)
    assert 0.3 < (picture[..., 3] > 0).mean() < 0.9
    assert picture[..., :3][picture[..., 3] > 200].std() > 5


# ------------------------------------------------------------------------------------------------------------- shading
def test_rasterise_finds_the_nearest_triangle_and_its_weights():
    points = np.array([[1.0, 1, 0], [1, 9, 0], [9, 1, 0], [1, 1, 5], [1, 9, 5], [9, 1, 5]])
    triangles = np.array([[3, 4, 5], [0, 1, 2], [3, 5, 4]])  # the first is nearest; the last faces away
    raster = rasterise(points, triangles, 12, 12)
    assert set(np.unique(raster.triangle)) == {-1, 0}
    coordinates = raster.interpolate(triangles, points)
    rows, columns = np.nonzero(raster.triangle == 0)
    np.testing.assert_allclose(coordinates[rows, columns, :2], np.stack([columns, rows], 1), atol=0.6)
    inside = (rows > 2) & (columns > 2) & (rows + columns < 9)
    np.testing.assert_allclose(
        coordinates[rows[inside], columns[inside], :2], np.stack([columns, rows], 1)[inside], atol=1e-4
    )


def test_rendered_mesh_has_no_holes(head):
    points = head.mean.numpy() * [1, -1, 1] + [100, 100, 0]
    picture = render_mesh(points, head.triangles.numpy(), None, 200, 200)
    assert picture[100, 40:160, 3].min() == 1.0
    assert picture[0, 0, 3] == 0.0
    assert 0 <= picture.min() <= picture.max() <= 1


def test_normals_and_visibility_of_an_egg(head):
    points, triangles = head.mean.numpy(), head.triangles.numpy()
    normals = vertex_normals(points, triangles)
    assert (np.einsum("vc,vc->v", normals, points) > 0).all()
    for frame, flip in (("model", 1), ("pixels", -1)):
        seen = visible_vertices(points * [1, flip, 1], triangles, np.arange(len(points)), frame=frame)
        certain = np.abs(points[:, 2]) > 15
        assert (seen[certain] == (points[certain, 2] > 0)).mean() > 0.99


def test_shading_is_brighter_towards_the_lamp():
    normals = np.array([[-0.5, 0.6, 0.62], [0.7, -0.5, 0.5]])
    bright, dark = shade(normals / np.linalg.norm(normals, axis=1, keepdims=True), np.full((2, 3), 0.6)).mean(axis=1)
    assert bright > dark + 0.15


# ------------------------------------------------------------------------------------------------------------- figures
@pytest.fixture
def axes():
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots()
    yield ax
    pyplot.close(figure)


def test_shaded_mesh_lies_where_the_vertices_are(axes, head):
    from twodasl_lite.viz import shaded_mesh

    image = shaded_mesh(axes, head.mean, head.triangles)
    left, right, bottom, top = image.get_extent()
    low, high = head.mean.amin(0), head.mean.amax(0)
    assert abs(left - low[0]) < 1
    assert abs(right - high[0]) < 1
    assert abs(bottom - low[1]) < 1
    assert abs(top - high[1]) < 1
    ylim = axes.get_ylim()
    assert ylim[0] < ylim[1]


def test_overlay_keeps_the_photo_and_points_down(axes, head):
    from twodasl_lite.viz import overlay

    photo = np.zeros((240, 200, 3), np.uint8)
    pixels = head.mean * torch.tensor([1.0, -1.0, 1.0]) + torch.tensor([100.0, 120.0, 0.0])
    image = overlay(axes, photo, pixels, head.triangles, alpha=0.5, landmarks=pixels[head.landmarks])
    assert axes.get_xlim() == (-0.5, 199.5)
    assert axes.get_ylim() == (239.5, -0.5)
    assert np.isclose(np.asarray(image.get_array())[..., 3].max(), 0.5)
    with pytest.raises(ShapeError, match="photo"):
        overlay(axes, np.zeros(5), pixels, head.triangles)


def test_draw_landmarks_draws_all_and_refuses_others(axes):
    from twodasl_lite.viz import draw_landmarks

    points = np.random.default_rng(0).random((NUM_LANDMARKS, 2))
    visible = np.arange(NUM_LANDMARKS) % 3 > 0
    draw_landmarks(axes, points, visible=visible, numbers=True, label="found")
    dots = np.concatenate([line.get_xydata() for line in axes.lines if line.get_marker() == "o"])
    assert len(np.unique(dots, axis=0)) == NUM_LANDMARKS
    assert {text.get_text() for text in axes.texts} == {str(i) for i in range(NUM_LANDMARKS)}
    with pytest.raises(ShapeError, match="points"):
        draw_landmarks(axes, points[:5])
    with pytest.raises(ShapeError, match="visible"):
        draw_landmarks(axes, points, visible=visible[:3])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda v, t: (v[:, :2], t), ShapeError),
        (lambda v, t: (v, t[:, :2]), ShapeError),
        (lambda v, t: (v, t + 10**6), ValueRangeError),
        (lambda v, t: (v * float("nan"), t), ValueRangeError),
    ],
)
def test_meshes_are_checked(axes, head, change, error):
    from twodasl_lite.viz import mesh_figure, shaded_mesh

    arguments = change(head.mean, head.triangles)
    with pytest.raises(error):
        shaded_mesh(axes, *arguments)
    with pytest.raises(error):
        mesh_figure(*arguments)


def test_colour_by_spans_the_range():
    from twodasl_lite.viz import colour_by

    colours, mappable = colour_by([0.0, 1.0, 2.0], vmax=2.0)
    assert colours.shape == (3, 3)
    assert mappable.get_clim() == (0.0, 2.0)
    assert colours[2].sum() > colours[0].sum()  # lightness grows


def test_contact_sheet_has_a_cell_per_face_and_view(head):
    from matplotlib import pyplot

    from twodasl_lite.viz import contact_sheet

    figure = contact_sheet(head, 3, yaws=(0, 45), pixels=60)
    assert len(figure.axes) == 6
    pyplot.close(figure)
    figure = contact_sheet(head, yaws=(0,), expression=torch.eye(4), labels=head.expression_names, pixels=60)
    assert [ax.get_title() for ax in figure.axes] == head.expression_names
    pyplot.close(figure)


def test_colours_differ_and_groups_have_theirs():
    assert len(set(CATEGORICAL)) == len(CATEGORICAL)
    assert landmark_colour("left_brow") != landmark_colour("left_eye")
    for group in GROUPS:
        assert max(hex_to_rgb(landmark_colour(group))) <= 1
    with pytest.raises(ValueRangeError, match="RRGGBB"):
        hex_to_rgb("red")


# -------------------------------------------------------------------------------------------------------------- plotly
def test_mesh_figure_is_rounded_and_small(head):
    from twodasl_lite.viz import mesh_figure

    figure = mesh_figure(head.mean, head.triangles, head.albedo_mean, landmarks=head.landmarks)
    mesh, marks = figure.data
    np.testing.assert_allclose(np.stack([mesh.x, mesh.y, mesh.z], 1), head.mean, atol=0.0051)
    assert len(marks.x) == NUM_LANDMARKS
    assert len(figure.to_json()) < 60 * head.num_vertices + 20 * len(head.triangles)


def test_slider_frames_restyle_to_the_given_vertices(head):
    from twodasl_lite.viz import slider_frames

    shape = torch.zeros(3, head.num_shape)
    shape[:, 0] = torch.tensor([-2.0, 0.0, 2.0])
    frames = head.decode(shape)
    values = (frames - head.mean).norm(dim=-1)
    figure = slider_frames(frames, head.triangles, ["-2", "0", "2"], values=values, active=1)
    (slider,) = figure.layout.sliders
    for number, step in enumerate(slider.steps):
        changed, traces = step.args
        assert list(traces) == [0]
        for axis, column in enumerate("xyz"):
            np.testing.assert_allclose(changed[column][0], frames[number, :, axis], atol=0.0051)
        np.testing.assert_allclose(changed["intensity"][0], values[number], atol=0.001)
    with pytest.raises(ShapeError, match="labels"):
        slider_frames(frames, head.triangles, ["a"])
    with pytest.raises(ValueRangeError, match="active"):
        slider_frames(frames, head.triangles, ["a", "b", "c"], active=3)


def test_curve_figure_keeps_the_numbers():
    from twodasl_lite.viz import curve_figure

    figure = curve_figure(
        {"a": ([1, 2], [0.5, 0.25]), "b": ([1, 2], [1.0, 2.0])}, x_title="n", y_title="mm", log_y=True
    )
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert list(figure.data[0].y) == [0.5, 0.25]
    assert figure.data[0].line.dash != figure.data[1].line.dash
    assert figure.layout.yaxis.type == "log"
    with pytest.raises(ShapeError, match="curves"):
        curve_figure({"a": ([1, 2], [1])})


# -------------------------------------------------------------------------------------------------------- in a browser
class OpenExplorer:
    """One explorer in a page, and whatever went wrong there."""

    def __init__(self, chromium, page_address: str, **context) -> None:
        self.context = chromium.new_context(**{"viewport": {"width": 1100, "height": 900}, **context})
        self.page = self.context.new_page()
        self.problems = watch(self.page, page_address.rsplit("/", 1)[0])
        self.page.goto(page_address)
        self.page.wait_for_selector(".face-explorer-figure[data-mounted=yes] .face-explorer")

    def call(self, expression: str, argument=None):
        """Evaluate JavaScript with ``explorer`` defined."""
        body = f"(argument) => {{ const explorer = document.querySelector('.face-explorer').explorer; {expression} }}"
        return self.page.evaluate(body, argument)

    @property
    def state(self) -> dict:
        return self.call("return explorer.state()")

    def vertices(self, index: int = 0) -> np.ndarray:
        return np.array(self.call(f"return Array.from(explorer.vertices({index}))")).reshape(-1, 3)


@pytest.fixture(scope="module", params=["file", "http"])
def page_address(request, head, tmp_path_factory):
    from twodasl_lite.viz import face_explorer_html

    path = tmp_path_factory.mktemp("page") / "explorer.html"
    face_explorer_html(head, num_shape=6, angles=[0.0, 10.0, 0.0]).save(path, title="An <egg>")
    with address(path.parent, request.param) as base:
        yield f"{base}/{path.name}"


@pytest.fixture
def explorer(chromium, page_address):
    opened = OpenExplorer(chromium, page_address)
    yield opened
    assert opened.problems == []
    opened.context.close()


@pytest.mark.book
def test_page_computes_what_the_package_computes(explorer, head):
    rng = np.random.default_rng(1)
    for _ in range(3):
        shape, expression = rng.uniform(-3, 3, 6), rng.uniform(-3, 3, 4)
        angles = rng.uniform(-60, 60, 3).tolist()
        arguments = {"shape": shape.tolist(), "expression": expression.tolist(), "angles": angles}
        explorer.call("explorer.set(argument)", arguments)
        truth = exact(head, shape, expression)
        assert np.abs(explorer.vertices() - truth).max() < 0.05
        state = explorer.state
        assert state["vertexCount"] == head.num_vertices
        np.testing.assert_allclose(state["sample"], truth[state["sampleIndices"]], atol=0.05)
        assert abs(state["checksum"] - drawn_checksum(truth, angles)) < 12 * 0.05
        np.testing.assert_allclose(state["angles"], angles)


@pytest.mark.book
def test_every_slider_is_named_and_moves_the_face(explorer, head):
    sliders = explorer.page.locator(".face-explorer input[type=range]")
    assert sliders.count() == 3 + 6 + 4
    for number in range(sliders.count()):
        slider = sliders.nth(number)
        name = slider.get_attribute("aria-label")
        before = explorer.state
        slider.focus()
        explorer.page.keyboard.press("ArrowRight")
        after = explorer.state
        assert after["checksum"] != before["checksum"], name
        shown = explorer.page.locator(f"output[for='{slider.get_attribute('id')}']").inner_text()
        assert any(digit in shown for digit in "123456789"), name
        assert slider.get_attribute("aria-valuetext")
    state = explorer.state
    np.testing.assert_allclose(state["shape"], [0.05] * 6)
    np.testing.assert_allclose(state["expression"], [0.05] * 4)
    np.testing.assert_allclose(state["angles"], [1, 11, 1])
    truth = exact(head, state["shape"], state["expression"])
    assert abs(state["checksum"] - drawn_checksum(truth, state["angles"])) < 12 * 0.05


@pytest.mark.book
def test_keyboard_mouse_reset_and_random(explorer):
    page = explorer.page
    view = page.get_by_role("application")
    view.focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    page.keyboard.press(".")
    assert explorer.state["angles"] == [5, 15, 5]
    page.keyboard.press("+")
    assert explorer.state["zoom"] > 1
    page.keyboard.press("0")
    assert (explorer.state["angles"], explorer.state["zoom"]) == ([0, 10, 0], 1)
    box = view.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y - 20, steps=4)
    page.mouse.up()
    pitch, yaw, roll = explorer.state["angles"]
    assert pitch > 5  # up with the nose
    assert yaw < 0  # to the right with it: a positive yaw turns it to the left
    assert roll == 0
    page.get_by_role("button", name="Random face").click()
    shape = np.array(explorer.state["shape"])
    assert (np.abs(shape) <= 2).all()
    assert np.abs(shape).max() > 0
    page.get_by_role("button", name="Reset").click()
    assert explorer.state["shape"] == [0] * 6
    assert explorer.state["angles"] == [0, 10, 0]


@pytest.mark.book
def test_colourings_landmarks_and_wireframe_change_the_picture(explorer):
    def picture() -> bytes:
        explorer.page.wait_for_timeout(120)
        return explorer.page.locator(".fx-view canvas").screenshot()

    explorer.call("explorer.set({shape: [2, -2]})")
    select = explorer.page.get_by_label("Colouring")
    pictures = set()
    for colouring in ("skin", "clay", "normals", "pncc", "distance"):
        select.select_option(colouring)
        pictures.add(picture())
    for name in ("Landmarks", "Wireframe"):
        explorer.page.get_by_label(name).check()
        pictures.add(picture())
    assert len(pictures) == 7
    assert explorer.page.locator(".fx-legend").inner_text().endswith("mm")


@pytest.mark.book
def test_skin_colours_are_the_models(explorer, head):
    explorer.call("explorer.set({colouring: 'skin', albedo: [1.5, -2]})")
    explorer.call("explorer.state()")
    drawn = np.array(explorer.call("return Array.from(explorer.faces[0].colours)")).reshape(-1, 3) / 255
    truth = head.decode_albedo(torch.tensor([[1.5, -2.0]]) * head.albedo_std)[0].numpy()
    assert np.abs(drawn - truth).max() < 0.01


def drawn_colours(explorer, index: int = 0) -> np.ndarray:
    """``(V, 3)`` as the vertices have them, before light."""
    explorer.call("explorer.state()")
    return np.array(explorer.call(f"return Array.from(explorer.faces[{index}].colours)")).reshape(-1, 3) / 255


@pytest.mark.book
def test_colourings_are_the_packages(explorer, head):
    from twodasl_lite.render import coordinate_code
    from twodasl_lite.viz import colour_by

    select = explorer.page.get_by_label("Colouring")
    explorer.call("explorer.set({shape: [2, -1]})")
    select.select_option("pncc")
    np.testing.assert_allclose(drawn_colours(explorer), coordinate_code(head.mean).numpy(), atol=0.004)
    select.select_option("distance")
    off = np.linalg.norm(exact(head, [2.0, -1.0], []) - head.mean.numpy(), axis=1)
    drawn = drawn_colours(explorer)
    reach = explorer.call("return explorer.reach")
    assert off.max() <= reach * 1.01
    # The legend changes in the next frame.
    explorer.page.wait_for_function("document.querySelector('.fx-legend').innerText.includes('mm')")
    assert explorer.page.locator(".fx-legend").inner_text().split() == ["0", f"{reach:g}", "mm"]
    np.testing.assert_allclose(drawn, colour_by(off, vmin=0.0, vmax=reach)[0], atol=RAMP)
    explorer.page.get_by_label("Two faces").check()
    explorer.call("explorer.set({secondShape: [-1, 0.5], colouring: 'difference'})")
    apart = np.linalg.norm(exact(head, [2.0, -1.0], []) - exact(head, [-1.0, 0.5], []), axis=1)
    for index in (0, 1):
        drawn = drawn_colours(explorer, index)
        expected, _ = colour_by(apart, vmin=0.0, vmax=explorer.call("return explorer.reach"))
        np.testing.assert_allclose(drawn, expected, atol=RAMP)


@pytest.mark.book
def test_drawn_normals_are_the_packages(explorer, head):
    explorer.call("explorer.set({shape: [2, -1], colouring: 'normals'}); explorer.state()")
    drawn = np.array(explorer.call("return Array.from(explorer.faces[0].normals)")).reshape(-1, 3)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    expected = vertex_normals(exact(head, [2.0, -1.0], []), head.triangles.numpy())
    assert (drawn * expected).sum(axis=1).min() > 0.999


@pytest.mark.book
def test_two_faces_are_two(explorer, head):
    page = explorer.page
    page.get_by_label("Two faces").check()
    page.get_by_role("button", name="Second", exact=True).click()
    slider = page.get_by_label("Shape 1", exact=True)
    slider.focus()
    page.keyboard.press("End")
    page.get_by_label("Colouring").select_option("difference")
    assert np.abs(explorer.vertices(0) - exact(head, [], [])).max() < 0.05
    assert np.abs(explorer.vertices(1) - exact(head, [3.0], [])).max() < 0.05
    page.get_by_label("Two faces").uncheck()
    assert explorer.state["colouring"] == "distance"
    assert explorer.state["shape"] == [0] * 6


@pytest.mark.book
def test_copied_numbers_decode_to_the_drawn_face(explorer, head):
    explorer.call("explorer.set({shape: [1.5, -1], expression: [0.5], angles: [5, -30, 8]})")
    explorer.page.get_by_role("button", name="Copy the 30 numbers").click()
    explorer.page.wait_for_function("document.querySelector('.face-explorer').explorer.copied")
    numbers = torch.tensor(json.loads(explorer.call("return explorer.copied")))
    face = Coefficients.unpack(numbers[None], head.layout)
    from twodasl_lite.viz import FaceExplorer

    expected = FaceExplorer(head, num_shape=6, shape=[1.5, -1], expression=[0.5], angles=[5, -30, 8]).coefficients()
    for have, want in zip(face, expected, strict=True):
        torch.testing.assert_close(have, want, atol=1e-4, rtol=1e-5)


@pytest.mark.book
@pytest.mark.parametrize(("width", "scheme"), [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")])
def test_fits_the_window_and_follows_the_theme(chromium, page_address, width, scheme):
    opened = OpenExplorer(chromium, page_address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    explorer_dark = opened.page.evaluate("getComputedStyle(document.querySelector('.face-explorer')).colorScheme")
    assert explorer_dark == scheme
    opened.page.get_by_label("Two faces").check()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.problems == []
    opened.context.close()


@pytest.mark.book
def test_print_shows_the_still_picture(explorer):
    explorer.page.emulate_media(media="print")
    assert explorer.page.locator("img.fx-fallback").is_visible()
    assert not explorer.page.locator(".face-explorer").is_visible()


@pytest.mark.book
def test_without_webgl_the_still_picture_stays(chromium, page_address):
    context = chromium.new_context()
    page = context.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(page_address)
    page.wait_for_selector(".face-explorer-figure[data-mounted=failed]")
    assert page.locator("img.fx-fallback").is_visible()
    assert "WebGL" in page.locator(".fx-error").inner_text()
    context.close()


# ------------------------------------------------------------------------------------------------------- in JupyterLab
NOTEBOOK = [
    "import sys; sys.path[:0] = {paths!r}\nfrom test_viz import make_head\nfrom twodasl_lite.viz import FaceExplorer",
    "explorer = FaceExplorer(make_head(), num_shape=4)\nexplorer",
    "import json, ipywidgets\nreport = ipywidgets.HTML('waiting')\n"
    "def tell(change):\n"
    "    report.value = json.dumps([explorer.shape, explorer.angles, explorer.vertices()[:5].tolist()])\n"
    "explorer.observe(tell, ['shape', 'angles'])\nreport",
    "explorer.shape = [1.5]",
]


@pytest.fixture
def lab_address(tmp_path):
    """A running JupyterLab with one notebook."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("jupyterlab")
    paths = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    cells = [nbformat.v4.new_code_cell(source.replace("{paths!r}", repr(paths))) for source in NOTEBOOK]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "live.ipynb")
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: str(tmp_path / name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR")}
    own |= {name: str(tmp_path / name.lower()) for name in ("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")}
    options = ["--no-browser", "--allow-root", f"--port={port}", "--ServerApp.token=", "--ServerApp.password="]
    environment = {name: value for name, value in os.environ.items() if name != "TWODASL_FIGURES"} | own
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={tmp_path}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(address + "/api", timeout=2).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.book
def test_traits_go_both_ways_in_jupyterlab(chromium, lab_address, head):
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(lab_address + "/lab/tree/live.ipynb?reset")
    page.wait_for_selector("text=| Idle", timeout=90_000)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator('[data-command="runmenu:run-all"]').click()
    page.wait_for_selector(".face-explorer input[type=range]", timeout=90_000)
    state = "document.querySelector('.face-explorer').explorer.state()"
    # Python moves the slider ...
    page.wait_for_function(f"{state}.shape[0] === 1.5", timeout=20_000)
    # ... and the slider tells Python, whose own arithmetic gives the drawn vertices.
    slider = page.get_by_label("Shape 2", exact=True).first
    slider.focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    report = page.locator(".widget-html-content").first
    page.wait_for_function(f"Math.abs({state}.shape[1] - 0.2) < 1e-9", timeout=20_000)
    page.wait_for_function(
        "JSON.parse(document.querySelector('.widget-html-content').textContent)[0][1] > 0.19", timeout=20_000
    )
    shape, _, vertices = json.loads(report.inner_text())
    np.testing.assert_allclose(shape, [1.5, 0.2, 0, 0], atol=1e-9)
    np.testing.assert_allclose(vertices, exact(head, shape, [])[:5], atol=1e-3)
    np.testing.assert_allclose(page.evaluate(f"{state}.sample"), vertices, atol=0.05)
    page.get_by_role("application").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "JSON.parse(document.querySelector('.widget-html-content').textContent)[1][1] === 5", timeout=20_000
    )
    assert errors == []
    context.close()
