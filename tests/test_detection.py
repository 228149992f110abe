"""The face detector: its boxes, the orientation of faces, and the download of its file."""

from __future__ import annotations

import hashlib
import http.server
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from twodasl_lite.apps import detection as module
from twodasl_lite.apps.cli import main
from twodasl_lite.apps.detection import YuNet, cached_detector, fetch_yunet, quarter_turns, yunet_path
from twodasl_lite.base.errors import FileFormatError, TwodaslError, ValueRangeError

"""In OpenCV's place: reports one face in the small picture."""


class FakeYuNet:
    """In OpenCV's place: reports one face in the small picture."""

    def __init__(self) -> None:
        self.size = self.seen = None

    def setInputSize(self, size) -> None:
        self.size = size

    def detect(self, picture):
        self.seen = picture
        width, height = self.size
        rows = [
            [0.1 * width, 0.2 * height, 0.3 * width, 0.4 * height, *[0.0] * 10, 0.5],
            [1, 1, 2, 2, *[0.0] * 10, 0.9],
        ]
        return 1, np.array(rows, np.float32)


def test_yunet_boxes_are_in_the_photos_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fake = FakeYuNet()
    monkeypatch.setattr(module.cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *arguments: fake))
    (tmp_path / "model.onnx").write_bytes(b"some")
    detector = YuNet(tmp_path / "model.onnx")
    photo = np.zeros((960, 1280, 3), np.uint8)
    photo[..., 0] = 200
    boxes = detector.find(photo, upright=True).boxes
    assert fake.size == (640, 480)
    assert fake.seen.shape == (480, 640, 3)
    assert fake.seen[0, 0].tolist() == [0, 0, 200]  # BGR
    # The surest first; squares, because YuNet's boxes hold the forehead: the middle comes down by 0.145 of the side.
    for row, (left, top, size, score) in enumerate(((1.5, 1.5, 4.0, 0.9), (127.5, 191.5, 384.0, 0.5))):
        side = size / 1.1
        x, y = left + size / 2, top + size / 2 + 0.145 * side
        expected = torch.tensor([x - side / 2, y - side / 2, x + side / 2, y + side / 2, score])
        torch.testing.assert_close(boxes[row], expected)
    monkeypatch.setattr(fake, "detect", lambda picture: (1, None))
    assert detector(photo).shape == (0, 5)


def test_yunet_needs_its_file(tmp_path: Path):
    with pytest.raises(FileFormatError, match="no such file"):
        YuNet(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(FileFormatError, match="OpenCV cannot use"):
        YuNet(tmp_path / "text.onnx")
    with pytest.raises(ValueRangeError, match="min_score"):
        YuNet(tmp_path / "text.onnx", min_score=2)


def test_opencv_has_the_detector():
    assert hasattr(cv2, "FaceDetectorYN")


@pytest.mark.parametrize(
    ("up", "turns"), [((0, -5), 0), ((1, -2), 0), ((5, 1), 1), ((0, 5), 2), ((-2, 9), 2), ((-5, 0.5), 3)]
)
def test_quarter_turns(up, turns):
    assert int(quarter_turns(torch.tensor(up, dtype=torch.float32))) == turns
    # The rule: after np.rot90 the direction points up.
    x, y = up
    for _ in range(turns):
        x, y = y, -x
    assert -y >= abs(x)


def test_a_face_that_is_upside_down(tmp_path, monkeypatch):
    row = [100, 200, 80, 100, *[160, 280, 120, 280, 140, 260, 160, 230, 120, 230], 0.9]
    fake = SimpleNamespace(setInputSize=lambda size: None, detect=lambda photo: (1, np.array([row], np.float32)))
    monkeypatch.setattr(module.cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *arguments: fake))
    (tmp_path / "model.onnx").write_bytes(b"some")
    found = YuNet(tmp_path / "model.onnx").find(np.zeros((400, 300, 3), np.uint8), upright=True)
    assert found.turns.tolist() == [2]
    side = (80 * 100) ** 0.5 / 1.1
    middle = (found.boxes[0, 1] + found.boxes[0, 3]) / 2
    assert float(middle) == pytest.approx(200 - 0.5 + 50 - 0.145 * side)  # the chin is above


class Upright:
    """In OpenCV's place: sees a bright square as a face, the surer the more its bright edge is on top."""

    def setInputSize(self, size) -> None:
        pass

    def detect(self, picture):
        rows, columns = np.nonzero(picture[..., 0] > 50)
        if not len(rows):
            return 1, None
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        score = 0.95 if picture[top, (left + right) // 2, 0] > 200 else 0.8
        width, height = right - left, bottom - top
        points = [left, top, right, top, left, top, left, bottom, right, bottom]
        return 1, np.array([[left, top, width, height, *points, score]], np.float32)


@pytest.mark.parametrize("turns", range(4))
def test_each_face_is_taken_from_the_position_in_which_it_is_surest(tmp_path, monkeypatch, turns):
    monkeypatch.setattr(module.cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *arguments: Upright()))
    (tmp_path / "model.onnx").write_bytes(b"some")
    photo = np.zeros((400, 300, 3), np.uint8)
    photo[150:250, 80:160] = 100
    photo[150:155, 80:160] = 255  # the top
    turned = np.ascontiguousarray(np.rot90(photo, -turns))
    detector = YuNet(tmp_path / "model.onnx")
    straight, found = detector.find(photo), detector.find(turned)
    assert (straight.turns.tolist(), found.turns.tolist()) == ([0], [turns])
    assert float(found.boxes[0, 4]) == pytest.approx(0.95)
    left, top, right, bottom = straight.boxes[0, :4].tolist()
    for k in range(turns):  # a quarter turn clockwise after another
        height = (400, 300)[k % 2]
        left, top, right, bottom = height - 1 - bottom, left, height - 1 - top, right
    assert found.boxes[0, :4].tolist() == pytest.approx([left, top, right, bottom], abs=0.01)


# ------------------------------------------------------------------------------------------------------- the model file
@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A file in place of YuNet's, with its checksum in place of YuNet's, and an empty cache."""
    data = b"not a network, but every byte of it counts" * 100
    monkeypatch.setattr(module, "YUNET_BYTES", len(data))
    monkeypatch.setattr(module, "YUNET_SHA256", hashlib.sha256(data).hexdigest())
    monkeypatch.setenv("TWODASL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "copy.onnx").write_bytes(data)
    return tmp_path / "copy.onnx"


def test_the_file_is_pinned():
    assert len(module.YUNET_SHA256) == 64
    assert module.YUNET_ADDRESSES[0].startswith("https://github.com/opencv/opencv_zoo/raw/")
    assert all(len(address.split("/")[-2]) for address in module.YUNET_ADDRESSES)


def test_fetching_from_a_copy(stand_in, capsys):
    assert cached_detector() is None
    assert main(["models", "get", "yunet", "--source", str(stand_in)]) == 0
    assert yunet_path().read_bytes() == stand_in.read_bytes()
    assert str(yunet_path()) in capsys.readouterr().out
    assert main(["models", "get", "yunet"]) == 0  # there already: no network is asked
    stand_in.write_bytes(stand_in.read_bytes()[:-1] + b"?")
    assert main(["models", "get", "yunet", "--source", str(stand_in), "--force"]) == 1
    assert "SHA-256" in capsys.readouterr().err
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:8f2383\n"
    stand_in.write_bytes(pointer)
    with pytest.raises(FileFormatError, match="Git LFS pointer"):
        fetch_yunet(stand_in)
    with pytest.raises(FileFormatError, match="no such file"):
        fetch_yunet(stand_in.with_name("missing.onnx"))


def test_fetching_over_http(stand_in, monkeypatch):
    """The first address has something else, the second the file; a third would not be asked."""
    good, asked = stand_in.read_bytes(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(good if self.path == "/good" else b"<html>sign in, please</html>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        place = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(module, "YUNET_ADDRESSES", (f"{place}/page", f"{place}/good", f"{place}/never"))
        steps = []
        assert fetch_yunet(progress=lambda done, total: steps.append((done, total))).read_bytes() == good
        assert asked == ["/page", "/good"]
        assert steps[-1] == (len(good), len(good))
        yunet_path().unlink()
        assert fetch_yunet(f"{place}/good").is_file()
        with pytest.raises(FileFormatError, match="another size"):
            fetch_yunet(f"{place}/page")
    finally:
        server.shutdown()
        server.server_close()
    monkeypatch.setattr(module, "YUNET_ADDRESSES", (f"{place}/good",))
    with pytest.raises(TwodaslError, match="--source FILE"):
        fetch_yunet()
