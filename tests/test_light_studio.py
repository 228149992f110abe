"""The light studio's z-buffer in the browser against the package's, pixel for pixel."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from twodasl_lite.errors import ValueRangeError
from twodasl_lite.morphable import MorphableModel, load_face_model
from twodasl_lite.render import (
    Fragments,
    coordinate_image,
    depth_image,
    normal_image,
    rasterize,
    refine,
    render,
    visible_vertices,
)
from twodasl_lite.viz.light_studio import LightStudio, StudioState, place

DRAW = """(state) => {
  const { studio } = document.querySelector(".light-studio-figure");
  studio.set(state);
  studio.redraw();
  const { triangle, depth, rgba, vertices, coarse } = studio.drawn;
  return { triangle: Array.from(triangle), depth: Array.from(depth, (z) => (z === -Infinity ? null : z)),
    rgba: Array.from(rgba), coarse: Array.from(coarse), vertices: Array.from(vertices), visible: studio.visible };
}"""


@pytest.fixture(scope="module")
def studio() -> LightStudio:
    pytest.importorskip("PIL")
    return LightStudio(load_face_model(), marks=False)


@pytest.fixture(scope="module")
def drawn(studio, tmp_path_factory):
    """Draws a state in the browser."""
    toolkit = pytest.importorskip("bookkit.browser", reason="the book's tools are not here")
    executable = toolkit.find_browser() or toolkit.install_browser()
    if executable is None:
        pytest.skip("no browser on this machine, and none could be installed")
    path = tmp_path_factory.mktemp("studio") / "page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><body>{studio.html}</body>', encoding="utf-8")
    with toolkit.open_browser(executable) as browser:
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelector('.light-studio-figure')?.studio", timeout=30_000)
        yield lambda state: page.evaluate(DRAW, asdict(state))
        assert not errors


@pytest.mark.parametrize("size", [30, 120])
@pytest.mark.parametrize(("yaw", "pitch"), [(0, 0), (-90, 0), (35, -20)])
def test_every_pixel_shows_the_triangle_that_the_package_shows(studio, drawn, size, yaw, pitch):
    state = StudioState(yaw=yaw, pitch=pitch, size=size)
    result = drawn(state)
    ours = torch.tensor(result["vertices"], dtype=torch.float64).reshape(1, -1, 3)
    torch.testing.assert_close(ours[0], place(studio.points, state, size), rtol=0, atol=1e-9)
    expected = rasterize(ours, studio.triangles, size, size)
    triangle = torch.tensor(result["triangle"]).reshape(size, size)
    assert torch.equal(triangle, expected.triangle[0])
    depth = torch.tensor([-np.inf if z is None else z for z in result["depth"]]).reshape(size, size)
    assert torch.equal(depth, expected.depth[0].float())
    visible = visible_vertices(ours, studio.triangles, torch.tensor(studio._landmarks))[0]
    assert result["visible"] == visible.tolist()


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("source", ["lamp", "harmonics"])
def test_pictures_agree_to_one_grey_level(studio, drawn, smooth, source):
    state = StudioState(yaw=20, azimuth=-60, elevation=10, ambient=0.1, source=source, smooth=smooth)
    result = drawn(state)
    light = state.lamps() if source == "lamp" else state.lamps().harmonics()
    vertices = place(studio.points, state, state.size)[None]
    options = {"light": light, "supersample": 3 if smooth else 1}
    picture = render(vertices, studio.triangles, studio.colours.double() / 255, state.size, state.size, **options)
    rgba = torch.tensor(result["rgba"]).reshape(state.size, state.size, 4)
    alpha = picture.alpha[0] * 255
    assert (rgba[..., 3] - alpha).abs().max() <= 0.51
    seen = alpha > 0
    assert (rgba[seen][:, :3] - 255 * picture.colour[0][seen]).abs().max() <= 1


def _expected(show: str, studio: LightStudio, vertices: torch.Tensor, fragments: Fragments) -> torch.Tensor:
    if show == "depth":
        return depth_image(fragments)[0, ..., None].expand(-1, -1, 3)
    if show == "pncc":
        mean = load_face_model().mean.double()
        return coordinate_image(mean, studio.triangles, fragments)[0]
    return (normal_image(vertices, studio.triangles, fragments)[0] + 1) / 2


@pytest.mark.parametrize("show", ["depth", "pncc", "normals"])
def test_other_images_agree(studio, drawn, show):
    state = StudioState(show=show, yaw=-45)
    result = drawn(state)
    vertices = place(studio.points, state, state.size)[None]
    fragments = rasterize(refine(vertices, 1), studio.triangles, state.size, state.size)
    rgba = torch.tensor(result["rgba"]).reshape(state.size, state.size, 4)
    seen = fragments.covered[0]
    expected = 255 * _expected(show, studio, vertices, fragments)[seen]
    # Half a level of the picture, and half a level of the coordinate code as it was sent.
    assert (rgba[seen][:, :3] - expected).abs().max() <= 1.02


def test_the_page_holds_a_still_picture_and_a_small_mesh(studio):
    bundle = studio._repr_mimebundle_()
    assert bundle["text/html"].count("<img") == 1
    assert len(bundle["text/html"]) < 700_000
    header = json.loads(studio.html.split('class="ls-header">')[1].split("</script>")[0])["header"]
    assert header["V"] == len(studio.points)


@pytest.mark.parametrize("change", [{"show": "x"}, {"size": 121}, {"yaw": 91}, {"ambient": float("nan")}])
def test_states_are_checked(change):
    with pytest.raises(ValueRangeError, match="expected"):
        replace(StudioState(), **change)


def test_a_model_needs_colours():
    whole = load_face_model()
    bare = MorphableModel(whole.mean, whole.shape_basis, whole.expression_basis, whole.triangles, whole.landmarks)
    with pytest.raises(ValueRangeError, match="albedo"):
        LightStudio(bare)
