"""The page of a reconstructed face: its contents, its drawing, and that it is self-contained."""

from __future__ import annotations

import base64
import datetime
import html
import io
import json
import re

import numpy as np
import pytest
import torch

from tests.pages import watch
from twodasl_lite.base.errors import InputTypeError, ValueRangeError
from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.decode import decode
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.render import render
from twodasl_lite.viz.viewer import (
    drawn_triangles,
    face_viewer_html,
    in_notebook,
    notebook_html,
    photo_uploader,
    view_of,
)

HEIGHT, WIDTH = 300, 400


@pytest.fixture(scope="module")
def model():
    return load_face_model(CoefficientLayout())


@pytest.fixture(scope="module")
def faces(model) -> list[torch.Tensor]:
    """Raw coefficients of two faces in the frame of one photo."""
    found = []
    for yaw, x, scale in ((25.0, 120.0, 0.9), (-10.0, 300.0, 0.5)):
        rotation = euler_to_matrix(torch.deg2rad(torch.tensor([5.0, yaw, -3.0])))
        pose = make_pose(torch.tensor(scale), rotation, torch.tensor([x, HEIGHT / 2, 0.0]))
        found.append(Coefficients(pose[None], 0.5 * model.shape_std[None], torch.zeros(1, 10)).pack()[0])
    return found


@pytest.fixture(scope="module")
def photo(model, faces) -> np.ndarray:
    picture = torch.full((HEIGHT, WIDTH, 3), 0.3)
    for face in faces:
        drawn = render(decode(face, model, HEIGHT)[None], model.triangles, model.decode_albedo()[0], HEIGHT, WIDTH)
        picture = drawn.colour[0] + (1 - drawn.alpha[0][..., None]) * picture
    return (picture.clamp(0, 1) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def page_text(photo, faces, model) -> str:
    return face_viewer_html(photo, faces, model, title='<"two">')


def open_file(browser, path):
    page = browser.new_context(viewport={"width": 1000, "height": 800}).new_page()
    problems = watch(page, path.parent.as_uri())
    page.goto(path.as_uri())
    return page, problems


def header_of(text: str) -> dict:
    return json.loads(re.search(r'id="viewer-header">(.*?)</script>', text, re.S)[1])


def test_the_page_is_small_and_whole(page_text):
    assert len(page_text) < 1_000_000
    assert "<title>&lt;&quot;two&quot;&gt;</title>" in page_text
    assert not re.search(r'(src|href)="(?!data:)', page_text)
    assert len(header_of(page_text)["faces"]) == 2


def test_all_landmarks_are_on_what_is_drawn(model, small_model):
    shown = drawn_triangles(model)
    assert set(model.landmarks.tolist()) <= set(shown.unique().tolist())
    assert len(shown) < 0.8 * len(model.triangles)  # neither neck nor the back of the head
    assert set(small_model.landmarks.tolist()) <= set(drawn_triangles(small_model).unique().tolist())


def test_places_in_the_cut_photo_are_those_in_the_photo(photo, faces, model):
    """Cut to one face and shrunk to half: content and vertices still lie on one another."""
    pil = pytest.importorskip("PIL.Image")
    text = face_viewer_html(photo, faces[1:], model, photo_side=80)
    header = header_of(text)
    picture = np.asarray(pil.open(io.BytesIO(base64.b64decode(header["photo"].split(",")[1]))))
    assert max(picture.shape[:2]) == 80
    pose = torch.tensor(header["faces"][0]["pose"]).reshape(3, 4)
    surface = view_of(faces[1], photo, model).surface
    placed = surface @ pose[:, :3].T + pose[:, 3]
    small = torch.stack([placed[:, 0] - 1, picture.shape[0] - placed[:, 1]], dim=1)
    whole = decode(faces[1], model, HEIGHT)[:, :2]
    # One affine map leads from the photo to the part of it, the same for all vertices.
    scale = (small.amax(dim=0) - small.amin(dim=0)) / (whole.amax(dim=0) - whole.amin(dim=0))
    offset = small.mean(dim=0) - scale * whole.mean(dim=0)
    assert float((small - scale * whole - offset).abs().max()) < 0.01
    # And pixel edges lie on pixel edges: the colours at landmarks are those of the photo.
    from twodasl_lite.geometry.photos import sample_colours

    marks = model.landmarks[[30, 33, 57, 8, 27]]
    away = sample_colours(picture, small[marks]) - sample_colours(photo, whole[marks])
    assert float(away.abs().mean()) < 0.06


def test_the_page_draws_the_faces(page_text, chromium, tmp_path, faces, model, photo):
    path = tmp_path / "viewer.html"
    path.write_text(page_text, encoding="utf-8")
    page, problems = open_file(chromium, path)
    page.wait_for_function("document.getElementById('face-viewer').viewer?.started", timeout=20_000)
    assert "yaw 25°" in page.inner_text(".fv-note")
    viewer = "document.getElementById('face-viewer').viewer"
    points = torch.tensor(page.evaluate(f"[...{viewer}.face.points]")).reshape(-1, 3)
    used = torch.cat([drawn_triangles(model).reshape(-1), model.landmarks]).unique()
    expected = view_of(faces[0], photo, model).surface[used]
    assert float((points - expected).abs().max()) < 0.02  # mm
    rotation = torch.tensor(page.evaluate(f"{viewer}.rotation"))
    assert float((rotation - euler_to_matrix(torch.deg2rad(torch.tensor([5.0, 25.0, -3.0])))).abs().max()) < 1e-4
    seen = {page.evaluate("document.querySelector('.fv-head canvas').toDataURL()")}
    page.locator("select").first.select_option(index=1)
    page.wait_for_timeout(150)
    assert "yaw −10°" in page.inner_text(".fv-note")
    seen.add(page.evaluate("document.querySelector('.fv-head canvas').toDataURL()"))
    for colouring in ("shaded", "normals", "depth"):
        page.get_by_label("Colour").select_option(colouring)
        page.wait_for_timeout(150)
        seen.add(page.evaluate("document.querySelector('.fv-head canvas').toDataURL()"))
    assert len(seen) == 5
    page.get_by_label("Landmarks").check()
    page.wait_for_timeout(150)
    assert page.locator(".fv-photo svg circle").count() == 68
    page.locator("input[type=range]").fill("0")
    page.wait_for_timeout(150)
    assert page.evaluate("document.querySelectorAll('.fv-photo canvas')[1].style.opacity") == "0"
    assert problems == []
    page.context.close()


def test_the_picture_of_the_head_is_the_photo(page_text, chromium, tmp_path, photo):
    """Unturned, in the photo's own colours, the head on the right looks like the photo on the left."""
    pil = pytest.importorskip("PIL.Image")
    path = tmp_path / "viewer.html"
    path.write_text(page_text, encoding="utf-8")
    page, _ = open_file(chromium, path)
    page.wait_for_function("document.getElementById('face-viewer').viewer?.started", timeout=20_000)
    page.wait_for_timeout(200)
    data = page.evaluate("document.querySelector('.fv-head canvas').toDataURL()").split(",")[1]
    head = np.asarray(pil.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")).astype(float)
    skin = head[head[..., 3] > 250][:, :3]
    middle = photo[120:170, 100:140].reshape(-1, 3).astype(float)
    assert np.abs(np.median(skin, axis=0) - np.median(middle, axis=0)).max() < 30
    assert 0.2 < (head[..., 3] > 250).mean() < 0.9
    page.context.close()


def test_a_notebook_shows_it_in_a_frame_of_its_own(page_text, chromium, tmp_path):
    framed = in_notebook(page_text)
    assert framed.startswith('<iframe sandbox="allow-scripts" srcdoc="')
    path = tmp_path / "notebook.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><body>{framed}</body>', encoding="utf-8")
    page, problems = open_file(chromium, path)
    inner = page.frame_locator("iframe")
    inner.locator(".fv-note", has_text="yaw 25°").wait_for(timeout=20_000)
    assert problems == []
    page.context.close()
    refused = in_notebook(page_text, largest=1000)
    assert "iframe" not in refused
    assert "0.0 MB that a notebook" in refused


def test_bad_input_is_named(photo, faces, model):
    with pytest.raises(InputTypeError, match="faces: found none"):
        face_viewer_html(photo, [], model)
    with pytest.raises(ValueRangeError, match="photo_side: found 0"):
        face_viewer_html(photo, faces, model, photo_side=0)
    with pytest.raises(ValueRangeError, match="no part of the face"):
        face_viewer_html(photo, [faces[0] + torch.eye(62)[3] * 5000], model)


def test_what_a_notebook_is_told(photo, faces, model):
    away = faces[0] + torch.eye(62)[3] * 5000
    assert "No face" in notebook_html(photo, [], model)
    assert "No face" in notebook_html(photo, [away], model)
    assert header_of(html.unescape(notebook_html(photo, [faces[0], away], model)))["faces"][0]["angles"][1] > 24


def test_a_photo_is_uploaded(photo, faces, model):
    pytest.importorskip("ipywidgets")
    pil = pytest.importorskip("PIL.Image")
    given = []
    box = photo_uploader(lambda picture: given.append(picture) or faces[:1], model)
    button, shown = box.children[0].children[0], box.children[1]
    buffer = io.BytesIO()
    pil.fromarray(photo).save(buffer, "PNG")

    def upload(name: str, content: bytes) -> None:
        file = {"name": name, "type": "image/png", "size": len(content), "content": memoryview(content)}
        button.value = ({**file, "last_modified": datetime.datetime.now(datetime.UTC)},)

    upload("me.png", buffer.getvalue())
    assert np.array_equal(given[0], photo)
    assert shown.value.startswith("<iframe")
    upload("none.png", b"no picture")
    assert "none.png" in shown.value
    assert "iframe" not in shown.value
