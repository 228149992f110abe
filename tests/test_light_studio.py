"""The light studio's z-buffer in the browser against the package's, pixel for pixel."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from test_viz_losses import operate

from tests.pages import address, watch
from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.faces import MorphableModel, load_face_model
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
  if (state) studio.set(state);
  studio.redraw();
  const { triangle, depth, rgba, vertices, coarse } = studio.drawn;
  return { triangle: Array.from(triangle), depth: Array.from(depth, (z) => (z === -Infinity ? null : z)),
    rgba: Array.from(rgba), coarse: Array.from(coarse), vertices: Array.from(vertices), visible: studio.visible,
    state: studio.state };
}"""


@pytest.fixture(scope="module")
def studio() -> LightStudio:
    pytest.importorskip("PIL")
    return LightStudio(load_face_model(), marks=False)


@pytest.fixture(scope="module")
def folder(studio, tmp_path_factory):
    path = tmp_path_factory.mktemp("studio")
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><body>{studio.html}</body></html>'
    (path / "page.html").write_text(page, encoding="utf-8")
    return path


def open_page(chromium, base: str):
    """The page, and what went wrong on it: errors, and requests to the outside, which are blocked."""
    page = chromium.new_page()
    problems = watch(page, base)
    page.goto(f"{base}/page.html")
    page.wait_for_selector(".light-studio-figure[data-mounted=yes]", timeout=30_000)
    return page, problems


@pytest.fixture(scope="module")
def drawn(chromium, folder):
    """Draws a state in the browser."""
    page, problems = open_page(chromium, folder.as_uri())
    yield lambda state: page.evaluate(DRAW, asdict(state))
    assert problems == []
    page.close()


@pytest.fixture(scope="module", params=["file", "http"])
def page(request, chromium, folder):
    with address(folder, request.param) as base:
        opened, problems = open_page(chromium, base)
        yield opened
        assert problems == []
        opened.close()


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


def assert_drawn(studio, result: dict) -> None:
    """The browser's triangles, picture and visible landmarks for its state are the package's."""
    state = StudioState(**result["state"])
    fine = 3 if state.smooth else 1
    vertices = place(studio.points, state, state.size)[None]
    fragments = rasterize(refine(vertices, fine), studio.triangles, fine * state.size, fine * state.size)
    triangle = torch.tensor(result["triangle"]).reshape(fragments.triangle[0].shape)
    assert torch.equal(triangle, fragments.triangle[0])
    assert (
        result["visible"] == visible_vertices(vertices, studio.triangles, torch.tensor(studio._landmarks))[0].tolist()
    )
    rgba = torch.tensor(result["rgba"]).reshape(state.size, state.size, 4)
    if state.show in ("picture", "light"):
        light = state.lamps() if state.source == "lamp" else state.lamps().harmonics()
        colours = studio.colours.double() / 255
        albedo = colours if state.show == "picture" else torch.ones_like(colours)
        drawing = render(vertices, studio.triangles, albedo, state.size, state.size, light=light, supersample=fine)
        seen, expected = drawing.alpha[0] > 0, 255 * drawing.colour[0]
    else:
        assert fine == 1
        seen = fragments.covered[0]
        expected = torch.zeros(state.size, state.size, 3, dtype=torch.float64)
        expected[seen] = 255 * _expected(state.show, studio, vertices, fragments)[seen].double()
    assert (rgba[seen][:, :3] - expected[seen]).abs().max() <= 1.02


@pytest.mark.book
def test_every_control_draws_the_packages_picture(page, studio):
    page.get_by_role("button", name="Reset").click()
    result = page.evaluate(DRAW, None)
    assert result["state"] == asdict(studio.state)
    assert_drawn(studio, result)
    page.get_by_label("Pixels", exact=True).select_option("30")
    result = page.evaluate(DRAW, None)
    controls = page.locator("[data-test-changes]").all()
    assert len(controls) == len(asdict(studio.state))
    for control in controls:
        before = result["state"]
        operate(page, control)
        result = page.evaluate(DRAW, None)
        name = control.evaluate("(e) => e.labels[0].textContent")
        assert sum(result["state"][key] != before[key] for key in before) == 1, name
        assert_drawn(studio, result)
    page.get_by_role("button", name="Reset").click()
    for show in ("normals", "depth", "pncc"):
        page.get_by_label("Show", exact=True).select_option(show)
        assert_drawn(studio, page.evaluate(DRAW, None))
    page.get_by_label("Show", exact=True).select_option("picture")


@pytest.mark.book
def test_a_chosen_pixel_tells_what_the_z_buffer_knows(page, studio):
    page.get_by_role("button", name="Reset").click()
    canvas = page.locator(".light-studio canvas")
    canvas.focus()
    page.keyboard.press("ArrowRight")  # chooses the middle
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    told = page.locator(".ls-readout").inner_text()
    state = studio.state
    column, row = state.size // 2 + 1, state.size // 2 + 1
    fragments = rasterize(place(studio.points, state, state.size)[None], studio.triangles, state.size, state.size)
    x, y, triangle, *rest = (float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", told))
    assert [x, y, triangle] == [column, row, int(fragments.triangle[0, row, column])]
    weights = fragments.barycentric[0, row, column].tolist()
    np.testing.assert_allclose(rest[:4], [*weights, float(fragments.depth[0, row, column])], atol=0.051)
    np.testing.assert_allclose(rest[:3], weights, atol=0.0051)
    page.keyboard.press("Escape")
    assert "Point at a pixel" in page.locator(".ls-readout").inner_text()


@pytest.mark.book
@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (400, "light")])
def test_studio_fits_the_window_follows_the_theme_and_prints(chromium, folder, width, scheme):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto((folder / "page.html").as_uri())
    opened.wait_for_selector(".light-studio-figure[data-mounted=yes]", timeout=30_000)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("getComputedStyle(document.querySelector('.light-studio')).colorScheme") == scheme
    assert not opened.locator("img.ls-fallback").is_visible()
    opened.emulate_media(media="print")
    assert opened.locator("img.ls-fallback").is_visible()
    assert not opened.locator(".light-studio").is_visible()
    context.close()


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
