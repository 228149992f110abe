"""The page "Your own face": the network in the browser predicts the package's coefficients, from disk and over http."""

from __future__ import annotations

import base64
import io
import json
import os
import zlib

import numpy as np
import pytest
import torch

from tests.pages import address, watch
from twodasl_lite.apps.reconstruction import reconstruct
from twodasl_lite.faces import load_face_model
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import landmark_map
from twodasl_lite.geometry.photos import crop_photo, landmarks_box
from twodasl_lite.networks.prediction import predict_with
from twodasl_lite.networks.trained import trained_regressor

pytest.importorskip("onnx", reason="onnx is an optional extra")
image_module = pytest.importorskip("PIL.Image", reason="the book's extra brings Pillow")
assets = pytest.importorskip("bookkit.assets")
your_face = pytest.importorskip("bookkit.your_face")

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Your own face</title>
<meta name="viewport" content="width=device-width, initial-scale=1"></head>
<body><div id="your-face"></div><script src="your_face/app.js" defer></script></body></html>"""
READY_SECONDS = 180


@pytest.fixture(scope="module")
def trained():
    return trained_regressor()


@pytest.fixture(scope="module")
def model(trained):
    return load_face_model(CoefficientLayout(*trained.metadata["layout"]))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The page's scripts as the book has them, beside a bare page."""
    assets.prepare()
    if assets.cached_folder(your_face.RUNTIME) is None:
        if os.environ.get("TWODASL_REQUIRE_BROWSER") == "1":
            pytest.fail("onnxruntime-web could not be fetched, so the page was not tried")
        pytest.skip("ONNXRUNTIME-WEB COULD NOT BE FETCHED: THE PAGE WAS NOT TRIED")
    assert your_face.prepare()
    folder = tmp_path_factory.mktemp("site")
    (folder / "your_face").symlink_to(assets.STATIC / your_face.FOLDER)
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def photo(model) -> np.ndarray:
    """One of the drawn faces, as pixels."""
    (demo,) = your_face.demo_pictures(model, your_face.DEMOS[:1])
    content = base64.b64decode(demo["source"].split(",")[1])
    return np.asarray(image_module.open(io.BytesIO(content)).convert("RGB"))


def png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    image_module.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def open_page(browser, base: str, **options):
    context = browser.new_context(viewport={"width": 1200, "height": 900}, **options)
    page = context.new_page()
    problems = watch(page, base)
    page.goto(f"{base}/index.html")
    page.wait_for_function("document.getElementById('your-face').yourFace?.started", timeout=10_000)
    return page, problems


def finished(page) -> dict:
    """Wait for the answer; the coefficients, the crop, and the page's words."""
    page.wait_for_function(
        "(() => { const p = document.getElementById('your-face').yourFace; return p.answer && !p.busy; })()",
        timeout=READY_SECONDS * 1000,
    )
    return page.evaluate(
        "(() => { const p = document.getElementById('your-face').yourFace; return {"
        "coefficients: [...p.answer.coefficients], crop: p.answer.crop, landmarks: p.answer.landmarks, "
        "note: p.viewer.note.textContent, report: JSON.parse(p.viewer.report()) }; })()"
    )


def whitened_distance(found, expected: torch.Tensor, trained) -> float:
    found = torch.as_tensor(found, dtype=torch.float32)
    return float(((found - expected) / trained.whitening.std).abs().max())


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_photo_becomes_the_packages_face(site, chromium, scheme, photo, model, trained):
    with address(site, scheme) as base:
        page, problems = open_page(chromium, base)
        page.set_input_files(
            "input[type=file]", {"name": "me.png", "mimeType": "image/png", "buffer": base64.b64decode(png(photo))}
        )
        answer = finished(page)
        # The same pixels: crops of the package, through the page's network.
        crop = crop_photo(photo, torch.tensor(answer["crop"]))
        planes = np.ascontiguousarray(crop.transpose(2, 0, 1))
        raw = page.evaluate(
            "async (text) => { const p = document.getElementById('your-face').yourFace;"
            "const planes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
            "return [...await p.network.predict(planes)]; }",
            base64.b64encode(planes.tobytes()).decode("ascii"),
        )
        expected = predict_with(trained, torch.from_numpy(planes)[None], model=model)
        assert whitened_distance(raw, expected.coefficients[0], trained) < 1e-3
        # And the whole way, from the photo's pixels: where the crop is, what is in it, and the pose in the photo.
        face = reconstruct(photo, trained, model, crop_boxes=torch.tensor(answer["crop"], dtype=torch.float32))[0]
        away = (torch.tensor(answer["landmarks"])[:, :2] - face.landmarks[:, :2]).norm(dim=-1)
        assert float(away.max()) < 0.05  # pixels of the photo
        assert answer["note"].startswith("pitch ")
        angles = [
            float(part.split()[1].rstrip("°").replace("−", "-")) for part in answer["note"].split(" · ")[0].split(", ")
        ]
        assert np.allclose(angles, face.angles.numpy(), atol=0.6)
        # What is drawn is that face: all vertices within the precision of the packed model.
        drawn = page.evaluate("[...document.getElementById('your-face-viewer').viewer.pixels]")
        off = torch.tensor(drawn).reshape(-1, 3) - face.vertices
        assert float(off.abs().max()) < your_face.MAX_ERROR * face.scale * 3 + 0.1
        assert problems == []
        page.context.close()


def test_every_demo_and_the_box(site, chromium):
    with address(site, "file") as base:
        page, problems = open_page(chromium, base, color_scheme="dark")
        for number in range(len(your_face.DEMOS)):
            page.evaluate("delete document.getElementById('your-face').yourFace.answer")
            page.locator(".yf-demo").nth(number).click()
            answer = finished(page)
            assert answer["report"]["sum"] != 0
        before = answer
        # A box moved far away gives another crop, or leads back to the same face.
        page.evaluate("document.getElementById('your-face').yourFace.moveBox([0, 0, 60, 60])")
        moved = finished(page)
        assert moved["crop"] != before["crop"] or moved["coefficients"] != before["coefficients"]
        page.locator(".yf-box").focus()
        box = page.evaluate("document.getElementById('your-face').yourFace.box")
        page.keyboard.press("ArrowRight")
        after = page.evaluate("document.getElementById('your-face').yourFace.box")
        assert after[0] - box[0] == pytest.approx(0.04 * (box[2] - box[0]))
        finished(page)
        page.mouse.move(0, 0)
        corner = page.locator(".yf-box circle").nth(2).bounding_box()
        page.mouse.move(corner["x"] + corner["width"] / 2, corner["y"] + corner["height"] / 2)
        page.mouse.down()
        page.mouse.move(corner["x"] + 60, corner["y"] + 60, steps=3)
        page.mouse.up()
        grown = page.evaluate("document.getElementById('your-face').yourFace.box")
        assert grown[2] - grown[0] > after[2] - after[0] + 10
        assert grown[:2] == pytest.approx(after[:2])
        finished(page)
        assert problems == []
        page.context.close()


def test_controls_change_what_is_drawn(site, chromium):
    with address(site, "file") as base:
        page, problems = open_page(chromium, base)
        page.locator(".yf-demo").first.click()
        finished(page)
        pixels = "document.querySelector('.fv-head canvas').toDataURL()"
        shown = set()
        for colouring in ("photo", "shaded", "normals", "depth"):
            page.locator("select").select_option(colouring)
            page.wait_for_timeout(100)
            shown.add(page.evaluate(pixels))
        assert len(shown) == 4
        page.get_by_label("Landmarks").check()
        page.wait_for_timeout(100)
        assert page.locator(".fv-head svg circle").count() == 68
        assert page.locator(".fv-photo svg circle").count() >= 68
        before = page.evaluate(pixels)
        page.locator(".fv-head").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(100)
        assert page.evaluate(pixels) != before
        page.get_by_role("button", name="Face forward").click()
        page.wait_for_timeout(100)
        assert page.get_by_role("button", name="As in the photo").is_visible()
        assert problems == []
        page.context.close()


def test_what_is_no_picture_is_said(site, chromium):
    with address(site, "file") as base:
        page, problems = open_page(chromium, base)
        page.set_input_files("input[type=file]", {"name": "me.heic", "mimeType": "image/heic", "buffer": b"no picture"})
        page.wait_for_function("document.querySelector('.fv-note').textContent.includes('me.heic')", timeout=5000)
        assert problems == []
        page.context.close()


@pytest.mark.parametrize("size", [(60, 60), (120, 120), (121, 121), (200, 260), (371, 500)])
def test_crops_are_those_of_opencv(site, chromium, size):
    rng = np.random.default_rng(size[0])
    picture = (rng.random((*size, 3)) * 255).astype(np.uint8)
    boxes = [[-20, -13, size[1] - 4, size[1] + 3], [5, 7, 54, 56], [0, 0, size[0] - 1, size[0] - 1]]
    with address(site, "file") as base:
        page, problems = open_page(chromium, base)
        page.evaluate("document.getElementById('your-face').yourFace.part('page')")
        script = app_functions()
        for box in boxes:
            found = page.evaluate(
                "async ([script, text, width, height, box]) => {"
                "const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"
                "const { cropPhoto } = new Function(script)(); return [...cropPhoto({ data, width, height }, box)]; }",
                [script, rgba(picture), size[1], size[0], box],
            )
            expected = crop_photo(picture, torch.tensor(box)).transpose(2, 0, 1).reshape(-1)
            away = np.abs(np.array(found) - expected.astype(int))
            assert away.max() <= 1
            assert (away > 0).mean() < 1e-3  # sums that end in a half
        page.context.close()
        assert problems == []


def rgba(picture: np.ndarray) -> str:
    full = np.concatenate([picture, np.full((*picture.shape[:2], 1), 255, np.uint8)], axis=-1)
    return base64.b64encode(full.tobytes()).decode("ascii")


def app_functions() -> str:
    """The page's program as a function that gives its parts."""
    body = "\n".join(path.read_text(encoding="utf-8") for path in your_face.SCRIPTS)
    return (
        body + "\nreturn { cropPhoto, cropBox, constrainPose, FaceNetwork, nearestRotation, eulerAngles, poseToPhoto };"
    )


def test_pieces_against_the_package(site, chromium):
    """Boxes, completed poses and both kinds of landmark map."""
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(18, 2, generator=generator) * 140 - 10
    raw = torch.randn(1, 62, generator=generator)
    with address(site, "file") as base:
        page, _ = open_page(chromium, base)
        found = page.evaluate(
            "([script, points, raw]) => { const app = new Function(script)();"
            "const maps = ['binary', 'gaussian'].map((mapKind) => { const out = new Float32Array(14400);"
            "const network = new app.FaceNetwork(null, null, { mapKind, sigma: 1.5, reach: 12 }, {});"
            "network.map(points, out); return [...out]; });"
            "const poses = ['free', 'completed', 'similarity'].map((form) => {"
            "const pose = Float32Array.from(raw); app.constrainPose(pose, form); return [...pose]; });"
            "return { maps, poses, box: app.cropBox(points) }; }",
            [app_functions(), points.tolist(), raw[0].tolist()],
        )
        page.context.close()
    for kind, values in zip(("binary", "gaussian"), found["maps"], strict=True):
        expected = landmark_map(points[None], kind=kind)[0, 0].reshape(-1)
        assert float((torch.tensor(values) - expected).abs().max()) < 1e-5
    assert found["box"] == landmarks_box(points).tolist()
    free, completed, similarity = (torch.tensor(pose)[:12].reshape(3, 4) for pose in found["poses"])
    given = raw[0, :12].reshape(3, 4)
    assert torch.allclose(free, given)
    first, second = given[0, :3], given[1, :3]
    third = torch.linalg.cross(first, second) / (first.norm() * second.norm()).sqrt()
    assert torch.allclose(completed, torch.cat([torch.stack([first, second, third]), given[:, 3:]], dim=1), atol=1e-5)
    size = (first.norm() + second.norm()) / 2
    gram = similarity[:, :3] @ similarity[:, :3].T
    assert torch.allclose(gram, size**2 * torch.eye(3), atol=1e-4)
    assert torch.allclose(similarity[0, :3] / size, first / first.norm(), atol=1e-5)
    assert torch.allclose(similarity[:, 3], given[:, 3])


def test_landmarks_are_not_rounded(model):
    part = your_face.model_part(model)
    content = zlib.decompress(base64.b64decode(part["arrays"]))
    arrays, at = {}, 0
    for entry in part["list"]:
        dtype = np.dtype(f"<{entry['kind']}")
        arrays[entry["name"]] = np.frombuffer(content, dtype, entry["length"], at)
        at += entry["length"] * dtype.itemsize
    assert at == len(content)
    shape = torch.randn(1, model.num_shape, generator=torch.Generator().manual_seed(2)) * model.shape_std
    expression = torch.zeros(1, model.num_expression)
    basis = arrays["landmarkBasis"].reshape(68, 3, -1)
    found = arrays["landmarkMean"].reshape(68, 3) + basis @ torch.cat([shape, expression], dim=1)[0].numpy()
    assert np.abs(found - model.decode_landmarks(shape, expression)[0].numpy()).max() < 1e-4
    mirror = arrays["mirror"].astype(int)
    assert (mirror[mirror] == np.arange(len(mirror))).mean() > 0.98


def test_demo_pictures_hold_a_face_in_the_box(model, photo, trained):
    (demo,) = your_face.demo_pictures(model, your_face.DEMOS[:1])
    box = torch.tensor(demo["box"])
    assert photo.shape == (360, 360, 3)
    face = reconstruct(photo, trained, model, boxes=box)[0]
    centre = (face.landmarks.amax(dim=0) + face.landmarks.amin(dim=0))[:2] / 2
    assert float((centre - (box[:2] + box[2:]) / 2).norm()) < 0.15 * float(box[2] - box[0])


def test_without_the_runtime_the_page_says_so(tmp_path, monkeypatch, chromium):
    monkeypatch.setattr(assets, "STATIC", tmp_path)
    monkeypatch.setattr(assets, "cached_folder", lambda name: None)
    assert your_face.prepare() is False
    assert not (tmp_path / "your_face" / "network.js").exists()
    (tmp_path / "index.html").write_text(PAGE, encoding="utf-8")
    with address(tmp_path, "file") as base:
        page, problems = open_page(chromium, base)
        page.locator(".yf-demo").first.click()
        page.wait_for_function(
            "document.querySelector('.fv-note').textContent.includes('onnxruntime-web')", timeout=10_000
        )
        assert problems == []
        page.context.close()


def test_the_scripts_are_made_once(site):
    script = assets.STATIC / your_face.FOLDER / "network.js"
    before = script.stat().st_mtime_ns
    assert your_face.prepare()
    assert script.stat().st_mtime_ns == before
    parts = {path.name: path.stat().st_size for path in script.parent.glob("*.js")}
    assert sum(parts.values()) < 14_000_000, json.dumps(parts)
