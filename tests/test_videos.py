"""Video files as phones and cameras write them: turned, of a varying rate, with names in any script.

The files are written by OpenCV, then their boxes are changed as the format (ISO/IEC 14496-12) has them.
"""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from twodasl_lite.apps.commands.reconstruct import _open_video
from twodasl_lite.base.errors import FileFormatError

WIDTH, HEIGHT, FPS, FRAMES = 96, 64, 25.0, 8
RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 200, 30), (30, 30, 200), (220, 220, 220)
QUARTERS = {0: [[RED, GREEN], [BLUE, WHITE]]}  # as stored: rows from the top
for _turn in (90, 180, 270):  # clockwise
    _before = QUARTERS[_turn - 90]
    QUARTERS[_turn] = [[_before[1][0], _before[0][0]], [_before[1][1], _before[0][1]]]


def write_video(path: Path) -> Path:
    """Four coloured quarters, ``FRAMES`` times; the name may be one that OpenCV's writer cannot take."""
    plain = path.with_name("plain.mp4")
    writer = cv2.VideoWriter(str(plain), cv2.VideoWriter_fourcc(*"mp4v"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        pytest.skip("this OpenCV cannot write MP4")
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for row, colours in enumerate(QUARTERS[0]):
        for column, colour in enumerate(colours):
            part = (
                slice(row * HEIGHT // 2, (row + 1) * HEIGHT // 2),
                slice(column * WIDTH // 2, (column + 1) * WIDTH // 2),
            )
            picture[part] = colour[::-1]
    for _ in range(FRAMES):
        writer.write(picture)
    writer.release()
    return plain.rename(path)


def box_at(data: bytes | bytearray, *path: bytes) -> tuple[int, int]:
    """Where a box within boxes begins and ends."""
    begin, end = 0, len(data)
    for name in path:
        while True:
            size, kind = struct.unpack_from(">I4s", data, begin)
            assert size >= 8, f"no box {name!r}"
            if kind == name:
                end = begin + size
                break
            begin += size
            assert begin < end, f"no box {name!r}"
        if name != path[-1]:
            begin += 8
    return begin, end


def turn(path: Path, degrees: int) -> None:
    """Say in the track's header that it is to be shown turned clockwise, as phones do that are held upright."""
    data = bytearray(path.read_bytes())
    begin, _ = box_at(data, b"moov", b"trak", b"tkhd")
    at = begin + 8 + 4 + 20 + 8 + 8  # version 0: flags; times, number, duration; reserved; layer to volume
    one, identity = 1 << 16, (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert data[begin + 8] == 0
    assert struct.unpack_from(">9i", data, at) == identity
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    x, y = {0: (0, 0), 90: (HEIGHT, 0), 180: (WIDTH, HEIGHT), 270: (0, WIDTH)}[degrees]
    matrix = (cos * one, sin * one, 0, -sin * one, cos * one, 0, x * one, y * one, 1 << 30)
    struct.pack_into(">9i", data, at, *matrix)
    path.write_bytes(data)


def vary_rate(file: Path, durations: list[int]) -> None:
    """Give each frame its own duration, in units of the shortest."""
    data = bytearray(file.read_bytes())
    parents = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stts")
    begin, end = box_at(data, *parents)
    count, frames, delta = struct.unpack_from(">3I", data, begin + 12)
    assert (count, frames) == (1, FRAMES)
    table = struct.pack(">I", len(durations)) + b"".join(struct.pack(">2I", 1, delta * n) for n in durations)
    # The whole lasts longer, too: what lies beyond the durations that the headers give is cut off.
    for path, at in (((b"moov", b"mvhd"), 24), ((b"moov", b"trak", b"tkhd"), 28), ((*parents[:3], b"mdhd"), 24)):
        place = box_at(data, *path)[0] + at
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] * sum(durations) // FRAMES)
    place = box_at(data, b"moov", b"trak", b"edts", b"elst")[0] + 16
    struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] * sum(durations) // FRAMES)
    new = data[begin + 4 : begin + 12] + table
    grown = len(new) + 4 - (end - begin)
    places = [box_at(data, *parents[: k + 1])[0] for k in range(len(parents))]
    assert places[0] > box_at(data, b"mdat")[0]  # what follows the pictures may grow
    for place in places:
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + grown)
    data[begin + 4 : end] = new
    file.write_bytes(data)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_video_is_read_upright(tmp_path, degrees: int) -> None:
    path = write_video(tmp_path / "phone.mp4")
    turn(path, degrees)
    frames, total, fps = _open_video(path)
    read = [frame for frame, _ in frames]
    assert (len(read), total, fps) == (FRAMES, FRAMES, FPS)
    size = (HEIGHT, WIDTH) if degrees % 180 == 0 else (WIDTH, HEIGHT)
    for frame in read:
        assert frame.shape == (*size, 3)
        for row in range(2):
            for column in range(2):
                y, x = size[0] * (2 * row + 1) // 4, size[1] * (2 * column + 1) // 4
                np.testing.assert_allclose(frame[y, x], QUARTERS[degrees][row][column], atol=12)


def test_the_times_of_a_varying_rate_are_the_files(tmp_path) -> None:
    path = write_video(tmp_path / "screen.mp4")
    durations = [1, 1, 4, 1, 10, 2, 1, 1]
    vary_rate(path, durations)
    frames, total, _ = _open_video(path)
    times = [seconds for _, seconds in frames]
    assert total == FRAMES
    np.testing.assert_allclose(times, np.cumsum([0, *durations[:-1]]) / FPS, atol=1e-3)


@pytest.mark.parametrize("name", ["Gesicht ü ß.mp4", "面部 видео.mp4", "visage 🙂.mp4"])
def test_names_in_any_script(tmp_path, name: str) -> None:
    path = write_video(tmp_path / name)
    frames, total, _ = _open_video(path)
    assert sum(1 for _ in frames) == total == FRAMES


def test_a_video_cut_short_gives_what_is_there_or_is_named(tmp_path) -> None:
    path = write_video(tmp_path / "whole.mp4")
    path.write_bytes(path.read_bytes()[:-200])  # the index is at the end
    with pytest.raises(FileFormatError, match=r"whole\.mp4.*found a file that is not a video"):
        _open_video(path)
