"""Every control of the figures of the losses draws the package's numbers: in a page over http and file, and live."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import test_viz
import torch
from test_viz import lab_address, make_head  # noqa: F401 - a fixture

from tests.pages import address, watch
from twodasl_lite import viz
from twodasl_lite.base.errors import FileFormatError, ShapeError, ValueRangeError
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import Coefficients, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.networks import Critic, make_regressor
from twodasl_lite.viz.interactive import pack_arrays
from twodasl_lite.viz.snapshots import find_checkpoints, read_snapshot

KINDS = ("coefficient_figure", "landmark_figure", "chain_figure", "critic_figure", "training_run_figure")


def raw_faces(model, count: int, seed: int = 0) -> torch.Tensor:
    """``(count, D)`` faces in the middle of the crop."""
    generator = torch.Generator().manual_seed(seed)
    angles = (torch.rand(count, 3, generator=generator) - 0.5) * torch.tensor([0.4, 1.4, 0.3])
    scale = 0.45 + 0.1 * torch.rand(count, generator=generator)
    shift = torch.tensor([60.0, 60.0, 0.0]) + 3 * torch.randn(count, 3, generator=generator)
    shape = torch.randn(count, model.num_shape, generator=generator) * model.shape_std
    expression = torch.randn(count, model.num_expression, generator=generator) * model.expression_std
    return Coefficients(make_pose(scale, euler_to_matrix(angles), shift), shape, expression).pack()


def faces(model, count: int, seed: int) -> FaceBatch:
    """Pictures of noise around known landmarks."""
    generator = torch.Generator().manual_seed(seed)
    raw = raw_faces(model, count, seed)
    landmarks = decode_landmarks(raw, model)
    images = torch.randint(0, 256, (count, 3, 120, 120), generator=generator, dtype=torch.uint8)
    points = subset_18(landmarks[..., :2]) + torch.randn(count, 18, 2, generator=generator)
    seen = torch.rand(count, 18, generator=generator) < 0.9
    points = torch.where(seen[..., None], points, torch.nan)
    every = torch.ones(count, 68, dtype=torch.bool)
    return FaceBatch(images, points, seen, landmarks, every, raw, torch.zeros(count))


@pytest.fixture(scope="module")
def head():
    return make_head()


@pytest.fixture(scope="module")
def whitening(head) -> Whitening:
    return Whitening.from_samples(raw_faces(head, 300, 9))


@pytest.fixture(scope="module")
def run_folder(head, whitening, tmp_path_factory):
    pytest.importorskip("safetensors")
    pytest.importorskip("twodasl_lite.training.checkpoint")
    return write_run(head, whitening, tmp_path_factory.mktemp("runs") / "small")


def write_run(head, whitening, folder: Path) -> Path:
    """A run of three checkpoints and a log."""
    from twodasl_lite.training import checkpoint

    size = head.layout.size
    config = {"network": {"name": "lite", "norm": "group", "map": "binary"}, "critic": {"spectral": True}}
    rows = []
    for step in (10, 20, 30):
        torch.manual_seed(step)
        regressor, critic = make_regressor("lite", size, norm="group"), Critic(size, spectral=True)
        networks = {"regressor": regressor.state_dict(), "average": regressor.state_dict()}
        networks["critic"] = critic.state_dict()
        state = {"whitening": {"mean": whitening.mean, "std": whitening.std}}
        checkpoint.save_checkpoint(folder, checkpoint.Checkpoint(step, networks, state, {"config": config}), keep=9)
        rows.append({"kind": "train", "step": step, "wpdc": 3 / step, "cycle": 1 / step})
        table = {"balanced": 1 / step, "bins": {"[0, 30]": 0.8 / step, "> 60": None}}
        rows.append({"kind": "validation", "step": step, "landmarks_2d": table, "landmarks_3d": table})
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"kind": "tr')
    return folder


@pytest.fixture(scope="module")
def figures(head, whitening, run_folder) -> dict:
    pytest.importorskip("PIL")
    return make_figures(head, whitening, run_folder)


def make_figures(head, whitening, run_folder) -> dict:
    """One figure of each kind."""
    batch = faces(head, 3, 1)
    white = whitening.whiten(batch.coefficients)
    torch.manual_seed(0)
    networks = {name: make_regressor("lite", head.layout.size, norm="group") for name in ("before", "after")}
    made = [
        viz.coefficient_figure(head, whitening, white, ["a", "b", "c"], coefficient="shape[1]"),
        viz.landmark_consistency_figure(head, whitening, white[0], start=0.5 * white[1], image=batch.images[0]),
        viz.chain_figure(networks, batch, head, whitening, noises=(0, 3), looks=3),
        viz.critic_figure(
            run_folder, batch, faces(head, 4, 2), head, faces=2, grid=7, slices=[("pose[0,2]", "shape[0]")]
        ),
        viz.training_figure(run_folder, batch, head),
    ]
    return dict(zip(KINDS, made, strict=True))


def assert_equal_numbers(drawn: dict, expected: dict, where: str) -> None:
    """What is drawn is what the package computes, to single precision."""
    for name, value in expected.items():
        if isinstance(value, dict):
            assert_equal_numbers(drawn[name], value, f"{where}, {name}")
            continue
        want, have = np.asarray(value, dtype=float), np.asarray(drawn[name], dtype=float)
        # Surfaces are quantised, losses are not.
        share = 0.03 if name == "moved" else 3e-4
        scale = np.abs(want).max(initial=0)
        np.testing.assert_allclose(have, want, rtol=share, atol=share * scale + 1e-9, err_msg=f"{where}: {name}")


# ------------------------------------------------------------------------------------------------------------ in Python
def test_arrays_travel_whole():
    listed, data = pack_arrays({"a": np.arange(3, dtype=np.uint8), "b": torch.ones(2, 2, dtype=torch.float64)})
    assert listed == [{"name": "a", "kind": "u1", "length": 3}, {"name": "b", "kind": "f8", "length": 4}]
    import zlib

    assert zlib.decompress(data)[:3] == b"\x00\x01\x02"
    with pytest.raises(ValueRangeError, match="expected"):
        pack_arrays({"a": np.zeros(2, dtype=np.complex64)})


@pytest.mark.parametrize("kind", KINDS)
def test_html_needs_nothing_from_outside_and_has_a_still_picture(figures, kind):
    figure = figures[kind]
    assert figure.html.count("<img") == 1
    assert figure.png.startswith(b"\x89PNG")
    addresses = set(re.findall(r"https?://[^\s\"'`]+", figure.html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert len(figure.html) < 3_000_000


def test_static_builds_make_no_widget(figures, monkeypatch):
    monkeypatch.setenv("TWODASL_FIGURES", "static")
    assert set(figures[KINDS[0]]._repr_mimebundle_()) == {"text/html", "image/png", "text/plain"}


def test_controls_are_checked(figures):
    with pytest.raises(ValueRangeError, match="no such control"):
        figures["landmark_figure"].set(nois=1.0)


def test_a_binary_map_lets_no_gradient_through_and_a_gaussian_one_does(figures):
    slopes = figures["chain_figure"].gradients  # (R, M, N, F, 18, 2)
    assert slopes[:, 0].abs().max() == 0
    assert (slopes[:, 1].flatten(3).norm(dim=-1) > 0).all()


def test_files_of_checkpoints_are_named_with_their_hashes(figures, run_folder):
    import hashlib

    files = figures["critic_figure"].header["files"]
    assert len(files) == 3
    for name, found in files:
        assert hashlib.sha256((run_folder.parent / name).read_bytes()).hexdigest() == found


def test_snapshots_hold_the_networks_of_their_step(run_folder, head):
    snapshot = read_snapshot(find_checkpoints(run_folder)[1])
    torch.manual_seed(20)
    expected = make_regressor("lite", head.layout.size, norm="group")
    for key, value in expected.state_dict().items():
        assert torch.equal(snapshot.regressor.state_dict()[key], value)
    assert not snapshot.critic.training
    with pytest.raises(FileFormatError, match="no such file"):
        read_snapshot(run_folder)
    with pytest.raises(ValueRangeError, match="none"):
        find_checkpoints(run_folder / "checkpoints")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"coefficient": "shape[99]"}, ValueRangeError),
        ({"second": -1}, ValueRangeError),
        ({"coefficient": "pose[1,1]", "second": 5}, ValueRangeError),
        ({"error": 4.0}, ValueRangeError),
        ({"show": "x"}, ValueRangeError),
        ({"target": torch.zeros(2, 5)}, ShapeError),
    ],
)
def test_coefficient_figure_checks_what_it_is_given(head, whitening, change, error):
    with pytest.raises(error, match="expected"):
        viz.coefficient_figure(head, whitening, **change)


@pytest.mark.parametrize("change", [{"noise": -1.0}, {"distance": "l1"}, {"delta": 1.0}])
def test_landmark_figure_checks_what_it_is_given(head, whitening, change):
    with pytest.raises(ValueRangeError, match="expected"):
        viz.landmark_consistency_figure(head, whitening, torch.zeros(head.layout.size), **change)


# --------------------------------------------------------------------------------------------------------- in a browser
@pytest.fixture(scope="module")
def page_folder(figures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    body = "\n".join(figure.html for figure in figures.values())
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Figures</title></head>'
    (folder / "page.html").write_text(f"{head}<body>{body}</body></html>", encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=["file", "http"])
def page(request, chromium, page_folder):
    """All five figures on one page; any request to the outside is blocked and counts as a failure."""
    with address(page_folder, request.param) as base:
        context = chromium.new_context(viewport={"width": 1000, "height": 900})
        opened = context.new_page()
        problems = watch(opened, base)
        opened.goto(f"{base}/page.html")
        for kind in KINDS:
            opened.wait_for_selector(f".loss-figure-page[data-kind={kind}][data-mounted=yes]", timeout=60_000)
        yield opened
        assert problems == []
        context.close()


def report(page, kind: str) -> dict:
    return page.locator(f"[data-kind={kind}] .loss-figure").evaluate("(e) => e.figure.report()")


def paint(page, kind: str) -> None:
    """Draw at once what the next frame would."""
    page.locator(f"[data-kind={kind}] .loss-figure").evaluate("(e) => e.figure.paint()")


def operate(page, control) -> None:
    """Move a control with the keyboard, or press it, as a reader would."""
    kind = control.evaluate("(e) => e.type")
    if kind == "checkbox":
        control.focus()
        page.keyboard.press("Space")
    elif kind == "select-one":
        count = control.evaluate("(e) => e.options.length")
        control.select_option(index=(control.evaluate("(e) => e.selectedIndex") + 1) % count)
    elif kind == "range":
        top = control.evaluate("(e) => Number(e.value) >= Number(e.max)")
        control.focus()
        page.keyboard.press("ArrowLeft" if top else "ArrowRight")
    else:
        control.click()


@pytest.mark.book
@pytest.mark.parametrize("kind", KINDS)
def test_every_control_draws_the_packages_numbers(page, figures, kind):
    figure = figures[kind]
    assert_equal_numbers(report(page, kind), figure.numbers(figure.state), "at first")
    controls = page.locator(f"[data-kind={kind}] [data-test-changes]").all()
    assert len(controls) >= 3
    for control in controls:
        name = control.evaluate("(e) => (e.labels?.[0] ?? e).textContent")
        before = report(page, kind)
        operate(page, control)
        after = report(page, kind)
        assert after["state"] != before["state"], name
        assert_equal_numbers(after, figure.numbers(after["state"]), name)
    page.locator(f"[data-kind={kind}]").get_by_role("button", name="Reset").click()
    assert report(page, kind)["state"] == json.loads(json.dumps(figure.state))


@pytest.mark.book
@pytest.mark.parametrize("kind", KINDS)
def test_every_control_and_drawing_has_a_name(page, kind):
    unnamed = page.locator(f"[data-kind={kind}] .loss-figure").evaluate("""(figure) => {
      const name = (e) => e.getAttribute("aria-label") || e.labels?.[0]?.textContent || e.textContent.trim();
      const all = [...figure.querySelectorAll("input, select, button, [role]:not([role=status])")];
      return all.filter((e) => !name(e)).map((e) => e.outerHTML.slice(0, 80));
    }""")
    assert unnamed == []


@pytest.mark.book
def test_a_dragged_and_a_hidden_landmark_change_the_loss_as_in_the_package(page, figures):
    figure = figures["landmark_figure"]
    stage = page.locator("[data-kind=landmark_figure] .lf-stage").first
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    x, y = figure.observed(figure.state)[12].tolist()
    start = [box["x"] + box["width"] * (x + 0.5) / 120, box["y"] + box["height"] * (y + 0.5) / 120]
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + box["width"] / 12, start[1], steps=3)
    page.mouse.up()
    dragged = report(page, "landmark_figure")
    assert sum(abs(d) > 1 for d in dragged["state"]["drag"]) == 1
    assert max(dragged["state"]["drag"]) == pytest.approx(10, abs=1)
    assert_equal_numbers(dragged, figure.numbers(dragged["state"]), "dragged")
    stage.focus()
    page.keyboard.press("n")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    hidden = report(page, "landmark_figure")
    assert len(hidden["state"]["hidden"]) == 1
    assert_equal_numbers(hidden, figure.numbers(hidden["state"]), "hidden")


@pytest.mark.book
def test_descent_lowers_the_loss_but_not_the_unseen_depth(page):
    page.locator("[data-kind=landmark_figure]").get_by_role("button", name="Reset").click()
    before = report(page, "landmark_figure")
    for _ in range(3):
        page.locator("[data-kind=landmark_figure]").get_by_role("button", name="Descend").click()
    after = report(page, "landmark_figure")
    assert after["loss"] < 0.5 * before["loss"]
    assert after["off_depth"] > 0.2 * before["off_depth"]


@pytest.mark.book
def test_the_turned_view_shows_the_decoded_and_the_true_landmarks(page, figures):
    figure = figures["landmark_figure"]
    page.locator("[data-kind=landmark_figure]").get_by_role("button", name="Reset").click()
    view = page.locator("[data-kind=landmark_figure] .lf-turns")
    view.focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
    state = report(page, "landmark_figure")["state"]
    before = figure.state["angles"]
    assert state["angles"] == [before[0] + 5, before[1] + 10, 0]
    paint(page, "landmark_figure")
    rotation = euler_to_matrix(torch.deg2rad(torch.tensor([state["angles"]], dtype=torch.float64)))[0]
    decoded = figure._decode(torch.tensor([state["predicted"]]))[0].double()
    for number, points in enumerate((decoded, figure._landmarks)):
        centred = points * torch.tensor([1.0, -1.0, 1.0]) - torch.tensor([59.5, -59.5, 0.0])
        centred[:, 2] -= points[:, 2].mean()
        turned = 0.86 * centred @ rotation.T * torch.tensor([1.0, -1.0, 1.0]) + 59.5
        path = view.locator("path").nth(number).get_attribute("d")
        drawn = torch.tensor([float(x) for x in re.findall(r"-?\d+\.\d+", path)]).reshape(-1, 2, 2)
        edges = torch.tensor(figure.header["edges"])
        torch.testing.assert_close(drawn.double(), turned[edges][..., :2], atol=0.02, rtol=0)


@pytest.mark.book
def test_the_critics_cursor_goes_by_mouse_and_keyboard(page, figures):
    figure = figures["critic_figure"]
    page.locator("[data-kind=critic_figure]").get_by_role("button", name="Reset").click()
    stage = page.locator("[data-kind=critic_figure] .lf-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 1.5 / 7, box["y"] + box["height"] * 0.5 / 7)
    assert report(page, "critic_figure")["state"]["at"] == [1, 6]
    stage.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    moved = report(page, "critic_figure")
    assert moved["state"]["at"] == [2, 5]
    assert_equal_numbers(moved, figure.numbers(moved["state"]), "cursor")
    paint(page, "critic_figure")
    told = page.locator("[data-kind=critic_figure] [role=status]").first.inner_text().replace("−", "-")
    assert float(told.rsplit("score ", 1)[1]) == pytest.approx(moved["score"], rel=0.01)


@pytest.mark.book
@pytest.mark.parametrize(
    ("kind", "key"), [("chain_figure", "step"), ("critic_figure", "checkpoint"), ("training_run_figure", "checkpoint")]
)
def test_play_goes_on_by_itself_and_stops(page, figures, kind, key):
    figure = page.locator(f"[data-kind={kind}]")
    figure.get_by_role("button", name="Reset").click()
    first = report(page, kind)["state"][key]
    figure.get_by_role("button", name="Play").click()
    moving = f"document.querySelector('[data-kind={kind}] .loss-figure').figure.state['{key}'] !== {first}"
    page.wait_for_function(moving, timeout=20_000)
    figure.get_by_role("button", name="Stop").click()
    stopped = report(page, kind)
    assert_equal_numbers(stopped, figures[kind].numbers(stopped["state"]), "played")
    figure.get_by_role("button", name="Reset").click()


@pytest.mark.book
def test_a_bar_chooses_its_coefficient(page, figures):
    page.locator("[data-kind=coefficient_figure] .lf-bar").nth(3).click(force=True)
    state = report(page, "coefficient_figure")["state"]
    assert state["coefficient"] == 3
    chosen = page.locator("[data-kind=coefficient_figure]").get_by_label("Coefficient", exact=True)
    assert chosen.evaluate("(e) => e.selectedOptions[0].textContent") == figures[KINDS[0]].header["names"][3]


@pytest.mark.book
def test_maps_of_two_coefficients_follow_a_press_and_stay_two(page, figures):
    figure = figures["coefficient_figure"]
    page.locator("[data-kind=coefficient_figure]").get_by_role("button", name="Reset").click()
    stage = page.locator("[data-kind=coefficient_figure] .lf-stage").nth(2)  # VDC's
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.1)
    pressed = report(page, "coefficient_figure")
    errors = pressed["state"]["errors"]
    chosen = [errors[pressed["state"][name]] for name in ("coefficient", "second")]
    np.testing.assert_allclose(chosen, [-1.5, 2.4], atol=0.11)
    assert_equal_numbers(pressed, figure.numbers(pressed["state"]), "pressed")
    vdc = np.array(pressed["maps"]["vdc"]).reshape(33, 33)
    assert vdc[29, 8] == pytest.approx(pressed["vdc"], rel=0.2)  # what is drawn there is the loss there
    first = page.locator("[data-kind=coefficient_figure]").get_by_label("Coefficient", exact=True)
    first.select_option(str(pressed["state"]["second"]))
    swapped = report(page, "coefficient_figure")["state"]
    assert swapped["second"] == pressed["state"]["coefficient"]
    assert swapped["coefficient"] == pressed["state"]["second"]
    with pytest.raises(ValueRangeError, match="expected another"):
        figure.set(second=figure.state["coefficient"])


@pytest.mark.book
@pytest.mark.parametrize(("width", "scheme"), [(1400, "dark"), (400, "light")])
def test_figures_fit_the_window_follow_the_theme_and_print(chromium, page_folder, width, scheme):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.goto((page_folder / "page.html").as_uri())
    for kind in KINDS:
        opened.wait_for_selector(f".loss-figure-page[data-kind={kind}][data-mounted=yes]", timeout=60_000)
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.evaluate("getComputedStyle(document.querySelector('.loss-figure')).colorScheme") == scheme
    opened.emulate_media(media="print")
    assert opened.locator("img.lf-fallback").first.is_visible()
    assert not opened.locator(".loss-figure").first.is_visible()
    context.close()


# -------------------------------------------------------------------------------------------------------- in JupyterLab
LIVE = [
    "import sys; sys.path[:0] = {paths!r}\nimport json, pathlib, ipywidgets, numpy, torch\n"
    "from IPython.display import display\nfrom test_viz import make_head\n"
    "from test_viz_losses import make_figures, raw_faces, write_run\n"
    "from twodasl_lite.geometry.coefficients import Whitening\nhead = make_head()\n"
    "whitening = Whitening.from_samples(raw_faces(head, 300, 9))\n"
    "figures = make_figures(head, whitening, write_run(head, whitening, pathlib.Path('run')))",
    "def plain(value):\n    if isinstance(value, dict):\n"
    "        return {name: plain(part) for name, part in value.items()}\n"
    "    return numpy.asarray(value, dtype=float).tolist()\n"
    "def follow(figure):\n    report = ipywidgets.HTML('{}')\n    def tell(change):\n"
    "        report.value = json.dumps({'state': figure.state, 'numbers': plain(figure.numbers())})\n"
    "    figure.widget.observe(tell, 'state')\n    return report\n"
    "for figure in figures.values():\n    display(figure, follow(figure))",
    "figures['coefficient_figure'].set(errors=[0.0, 0.0, 0.5] + [0.0] * (head.layout.size - 3))",
]


@pytest.fixture
def live_notebook(monkeypatch):
    """The notebook that the running JupyterLab opens."""
    monkeypatch.setattr(test_viz, "NOTEBOOK", LIVE)


@pytest.mark.book
def test_controls_are_known_to_python_in_jupyterlab(chromium, live_notebook, lab_address):  # noqa: F811
    """In a running notebook each figure's first control moves, and the kernel's numbers are the drawn ones."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(lab_address + "/lab/tree/live.ipynb?reset")
    page.wait_for_selector("text=| Idle", timeout=120_000)
    page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
    page.locator('[data-command="runmenu:run-all"]').click()
    page.wait_for_selector(".loss-figure input[type=range]", timeout=120_000)
    drawn = "document.querySelectorAll('.loss-figure')[{}].figure.report()"
    page.wait_for_function(f"{drawn.format(0)}.state.errors[2] === 0.5", timeout=60_000)  # Python moves the slider ...
    for number, kind in enumerate(KINDS):
        figure, told = page.locator(".loss-figure").nth(number), page.locator(".widget-html-content").nth(number)
        figure.scroll_into_view_if_needed()
        before = told.inner_text()
        operate(page, figure.locator("[data-test-changes]").first)  # ... and the control tells Python.
        place = f"document.querySelectorAll('.widget-html-content')[{number}].textContent"
        page.wait_for_function(f"text => {place} !== text", arg=before, timeout=60_000)
        state = "JSON.stringify(JSON.parse({}).state, Object.keys(JSON.parse({}).state).sort())".replace("{}", place)
        mine = f"{drawn.format(number)}.state"
        page.wait_for_function(f"{state} === JSON.stringify({mine}, Object.keys({mine}).sort())", timeout=60_000)
        report = json.loads(told.inner_text())
        assert_equal_numbers(page.evaluate(drawn.format(number)), report["numbers"], f"{kind}, live")
    assert errors == []
    context.close()
