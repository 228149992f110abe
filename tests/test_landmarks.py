"""The markup, the 18-point subset, the landmark map, drawing and the files."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from twodasl_lite.base.errors import FileFormatError, InputTypeError, ShapeError, ValueRangeError
from twodasl_lite.geometry.camera import CROP_SIZE
from twodasl_lite.geometry.landmarks import (
    EDGES,
    GROUPS,
    LANDMARK_NAMES,
    MIRROR,
    NUM_LANDMARKS,
    SUBSET_18,
    SYMMETRIC_PAIRS,
    draw_landmarks,
    flip_landmarks,
    landmark_map,
    read_landmarks,
    subset_18,
    subset_18_visible,
    write_landmarks,
)

ASTRONAUT = Path(__file__).parents[1] / "twodasl_lite" / "assets" / "astronaut_landmarks.csv"
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def points():
    """68 points spread over the crop, two batches."""
    return torch.rand(2, NUM_LANDMARKS, 2, generator=torch.Generator().manual_seed(0)) * (CROP_SIZE - 1)


# ------------------------------------------------------------------------------------------------- the markup
def test_every_landmark_has_one_name_and_one_group():
    assert NUM_LANDMARKS == len(set(LANDMARK_NAMES)) == 68
    assert sorted(index for group in GROUPS.values() for index in group) == list(range(68))
    spots = {0: "jaw_left_8", 8: "chin", 16: "jaw_right_8", 30: "nose_tip", 33: "nose_base"}
    spots |= {36: "eye_left_outer_corner", 39: "eye_left_inner_corner", 42: "eye_right_inner_corner"}
    spots |= {45: "eye_right_outer_corner", 46: "eye_right_lower_outer", 48: "mouth_corner_left"}
    spots |= {54: "mouth_corner_right", 62: "inner_upper_lip_middle", 66: "inner_lower_lip_middle"}
    assert {index: LANDMARK_NAMES[index] for index in spots} == spots


def test_mirror_is_the_known_permutation():
    by_hand = [
        *range(16, -1, -1),
        *range(26, 16, -1),
        *(27, 28, 29, 30),
        *(35, 34, 33, 32, 31),
        *(45, 44, 43, 42, 47, 46),
        *(39, 38, 37, 36, 41, 40),
        *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
        *(64, 63, 62, 61, 60, 67, 66, 65),
    ]
    assert MIRROR.tolist() == by_hand
    assert torch.equal(MIRROR[MIRROR], torch.arange(68))
    midline = [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert sorted([*midline, *(index for pair in SYMMETRIC_PAIRS for index in pair)]) == list(range(68))
    assert all(by_hand[left] == right for left, right in SYMMETRIC_PAIRS)


def test_edges_close_eyes_and_lips_only():
    assert len(EDGES) == 16 + 4 + 4 + 3 + 4 + 6 + 6 + 12 + 8
    assert {(41, 36), (47, 42), (59, 48), (67, 60)} <= set(EDGES)
    assert not {(16, 0), (16, 17), (30, 31)} & set(EDGES)


# ------------------------------------------------------------------------------------------------- the subset
def test_subset_follows_the_published_order(points):
    order = [17, 19, 21, 22, 24, 26, 36, (37, 40), 39, 42, (43, 46), 45, 31, 30, 35, 48, (62, 66), 54]
    assert [members if len(members) > 1 else members[0] for members in SUBSET_18] == order
    result = subset_18(points)
    for position, entry in enumerate(order):
        members = [entry] if isinstance(entry, int) else list(entry)
        assert torch.allclose(result[:, position], points[:, members].mean(dim=1))
    assert torch.equal(result[:, 0], points[:, 17])


def test_subset_takes_any_leading_dimensions_and_depth():
    points = torch.rand(68, 3, dtype=torch.float64, requires_grad=True)
    assert subset_18(points).shape == (18, 3)
    assert subset_18(torch.zeros(2, 5, 68, 3)).shape == (2, 5, 18, 3)
    assert torch.autograd.gradcheck(subset_18, (points,))
    with pytest.raises(ShapeError, match=r"points: found shape \(67, 2\)"):
        subset_18(torch.zeros(67, 2))


def test_a_midpoint_is_visible_only_with_both_ends():
    visible = torch.ones(3, 68, dtype=torch.bool)
    visible[0, 40] = visible[1, 17] = False
    result = subset_18_visible(visible)
    assert result.shape == (3, 18)
    assert (~result).nonzero().tolist() == [[0, 7], [1, 0]]
    with pytest.raises(ShapeError, match="visible"):
        subset_18_visible(torch.ones(18))


# --------------------------------------------------------------------------------------------------- flipping
def test_flip_matches_the_flipped_picture(points):
    flipped = flip_landmarks(points)
    assert torch.equal(flipped[:, 16, 0], 119 - points[:, 0, 0])
    assert torch.equal(flipped[:, 16, 1], points[:, 0, 1])
    assert torch.allclose(flip_landmarks(flipped), points, atol=1e-5)
    # On pixel centres, the map of the flipped landmarks is the flipped map.
    centres = points.floor()
    assert torch.equal(landmark_map(flip_landmarks(centres)), landmark_map(centres).flip(-1))


def test_flip_and_subset_commute_but_for_the_eye_midpoints(points):
    flipped_subset, subset_of_flipped = flip_landmarks(subset_18(points)), subset_18(flip_landmarks(points))
    eyes = [7, 10]
    others = [position for position in range(18) if position not in eyes]
    assert torch.allclose(flipped_subset[:, others], subset_of_flipped[:, others], atol=1e-5)
    face, _ = read_landmarks(ASTRONAUT)
    shift = flip_landmarks(subset_18(face), 512)[eyes] - subset_18(flip_landmarks(face, 512))[eyes]
    assert shift.norm(dim=-1).max() < 0.5  # pixels, of a face 97 pixels tall


def test_flip_keeps_depth_and_refuses_other_markups():
    points = torch.rand(68, 3)
    assert torch.equal(flip_landmarks(points, width=512)[..., 2], points[MIRROR, 2])
    for wrong in (torch.zeros(20, 2), torch.zeros(68, 1)):
        with pytest.raises(ShapeError, match="68, 18 or 21"):
            flip_landmarks(wrong)


# ------------------------------------------------------------------------------------------- the landmark map
def test_binary_map_by_hand():
    points = torch.tensor([[[2.0, 0.0], [0.99, 3.99], [2.5, 0.5], [3.0, 1.0]]])
    result = landmark_map(points, torch.tensor([[True, True, True, False]]), size=4)
    assert result.shape == (1, 1, 4, 4)
    expected = -torch.ones(4, 4)
    expected[0, 2] = expected[3, 0] = 1
    assert torch.equal(result[0, 0], expected)


def test_binary_map_drops_points_outside_and_never_wraps():
    outside = [
        [-0.01, 5.0],
        [5.0, -1.0],
        [120.0, 5.0],
        [5.0, 120.0],
        [-1.0, -1.0],
        [1e30, 5.0],
        [NAN, 5.0],
        [5.0, -INF],
    ]
    assert (landmark_map(torch.tensor([outside])) == -1).all()
    corners = torch.tensor([[[0.0, 0.0], [119.99, 119.99]]])
    assert (landmark_map(corners) == 1).nonzero()[:, 2:].tolist() == [[0, 0], [119, 119]]


@pytest.mark.parametrize("kind", ["binary", "gaussian"])
def test_map_agrees_with_a_naive_loop(kind):
    generator = torch.Generator().manual_seed(3)
    size, sigma = 20, 1.7
    points = torch.rand(3, 18, 2, generator=generator, dtype=torch.float64) * 30 - 5
    visible = torch.rand(3, 18, generator=generator) > 0.3
    points[1, 4, 0] = NAN
    expected = torch.empty(3, 1, size, size, dtype=torch.float64)
    for face in range(3):
        for row in range(size):
            for column in range(size):
                empty = 1.0
                for (x, y), seen in zip(points[face].tolist(), visible[face].tolist(), strict=True):
                    if not seen or math.isnan(x):
                        continue
                    if kind == "gaussian":
                        empty *= 1 - math.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))
                    elif math.floor(x) == column and math.floor(y) == row:
                        empty = 0.0
                expected[face, 0, row, column] = 1 - 2 * empty
    result = landmark_map(points, visible, size=size, kind=kind, sigma=sigma)
    assert torch.allclose(result, expected, rtol=0, atol=1e-12)


def test_gaussian_map_by_hand():
    result = landmark_map(torch.tensor([[[3.0, 2.0]]]), size=8, kind="gaussian", sigma=2.0)[0, 0]
    assert result[2, 3] == 1  # on the point
    assert result[2, 5].item() == pytest.approx(2 * math.exp(-0.5) - 1, abs=1e-6)  # one sigma away
    assert result[5, 7].item() == pytest.approx(2 * math.exp(-25 / 8) - 1, abs=1e-6)  # a 3-4-5 triangle


def test_gaussian_map_gradient():
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * 12 - 2
    points.requires_grad_(True)
    visible = torch.tensor([[1, 1, 0, 1, 1], [1, 1, 1, 1, 1]])
    assert torch.autograd.gradcheck(lambda p: landmark_map(p, visible, size=8, kind="gaussian"), (points,))


def test_gaussian_gradient_is_finite_beside_bad_points_and_on_a_pixel_centre():
    points = torch.tensor(
        [[[3.0, 2.0], [3.0, 2.0], [NAN, 1.0], [INF, 1.0], [1e30, 1.0], [4.4, 4.1]]], requires_grad=True
    )
    result = landmark_map(points, size=8, kind="gaussian")
    assert torch.isfinite(result).all()
    assert -1 <= result.min() <= result.max() <= 1
    result.square().sum().backward()
    assert torch.isfinite(points.grad).all()
    assert (points.grad[0, 2:5] == 0).all()
    assert (points.grad[0, 5] != 0).all()


def test_gaussian_gradient_pulls_a_point_to_its_target():
    target = landmark_map(torch.tensor([[[10.3, 6.8]]]), size=16, kind="gaussian", sigma=3.0)
    point = torch.tensor([[[8.0, 9.0]]], requires_grad=True)
    optimizer = torch.optim.Adam([point], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        (landmark_map(point, size=16, kind="gaussian", sigma=3.0) - target).square().sum().backward()
        optimizer.step()
    assert torch.allclose(point.detach(), torch.tensor([[[10.3, 6.8]]]), atol=0.01)


def test_binary_map_has_no_gradient_and_keeps_the_type():
    points = torch.full((1, 18, 2), 5.0, dtype=torch.float64, requires_grad=True)
    result = landmark_map(points)
    assert not result.requires_grad
    assert result.dtype == torch.float64
    assert result.shape == (1, 1, CROP_SIZE, CROP_SIZE)


@pytest.mark.parametrize("kind", ["binary", "gaussian"])
def test_map_of_nothing_is_background(kind):
    assert (landmark_map(torch.zeros(2, 0, 2), kind=kind) == -1).all()
    assert landmark_map(torch.zeros(0, 18, 2), kind=kind).shape == (0, 1, CROP_SIZE, CROP_SIZE)
    hidden = torch.zeros(1, 18, dtype=torch.bool)
    assert (landmark_map(torch.zeros(1, 18, 2), hidden, kind=kind) == -1).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"points": torch.zeros(18, 2)}, ShapeError, "points"),
        ({"points": torch.zeros(1, 18, 3)}, ShapeError, "points"),
        ({"points": "landmarks"}, InputTypeError, "points: found str"),
        ({"visible": torch.ones(1, 17)}, ShapeError, "visible"),
        ({"visible": torch.full((1, 18), 0.5)}, ValueRangeError, "visible"),
        ({"visible": torch.full((1, 18), NAN)}, ValueRangeError, "visible"),
        ({"visible": object()}, InputTypeError, "visible"),
        ({"size": 0}, ValueRangeError, "size: found 0"),
        ({"size": 12.5}, InputTypeError, "size: found 12.5"),
        ({"kind": "disc"}, ValueRangeError, "binary, gaussian"),
        ({"kind": "gaussian", "sigma": 0.0}, ValueRangeError, "sigma"),
        ({"kind": "gaussian", "sigma": NAN}, ValueRangeError, "sigma"),
    ],
)
def test_map_refuses_bad_input(change, error, message):
    with pytest.raises(error, match=message):
        landmark_map(**({"points": torch.zeros(1, 18, 2)} | change))


# ---------------------------------------------------------------------------------------------------- drawing
def test_drawing_marks_the_points_on_a_copy():
    image = np.zeros((60, 80, 3), dtype=np.uint8)
    result = draw_landmarks(image, torch.tensor([[20.0, 30.0], [70.0, 10.0]]), color=(255, 0, 10), radius=2)
    assert image.max() == 0
    assert (result.shape, result.dtype) == (image.shape, np.uint8)
    assert result[30, 20].tolist() == result[10, 70].tolist() == [255, 0, 10]
    dot = result[:40, :40, 0].astype(float)
    ys, xs = np.mgrid[:40, :40]  # pixel centres are integers
    assert ((dot * xs).sum() / dot.sum(), (dot * ys).sum() / dot.sum()) == pytest.approx((20, 30), abs=0.1)


def test_drawing_places_points_between_pixels():
    result = draw_landmarks(
        np.zeros((20, 20), dtype=np.uint8), torch.tensor([[9.5, 10.25]]), color=(255, 0, 0), radius=3
    )
    weight = result[..., 0].astype(float)
    ys, xs = np.mgrid[:20, :20]
    assert (weight * xs).sum() / weight.sum() == pytest.approx(9.5, abs=0.1)
    assert (weight * ys).sum() / weight.sum() == pytest.approx(10.25, abs=0.1)


def test_drawing_joins_68_points_and_skips_hidden_ones():
    image = np.zeros((512, 512, 3), dtype=np.uint8)
    points, _ = read_landmarks(ASTRONAUT)
    full, dots = draw_landmarks(image, points), draw_landmarks(image, points, lines=False)
    assert np.count_nonzero(full) > np.count_nonzero(dots) > 0
    assert np.count_nonzero(draw_landmarks(image, points, labels=True)) > np.count_nonzero(full)
    nothing = draw_landmarks(image, points, np.zeros(68, dtype=bool))
    assert nothing.max() == 0
    assert nothing is not image
    no_coordinates = draw_landmarks(image, torch.full((68, 2), NAN))
    assert no_coordinates.max() == 0


def test_drawing_takes_far_and_read_only_and_strided_input():
    image = np.zeros((40, 40, 3), dtype=np.uint8)[::-1, ::2]
    image.setflags(write=False)
    points = torch.tensor([[-1e9, 3.0], [1e5, 3.0], [INF, 3.0], [5.0, 5.0]])
    assert draw_landmarks(image, points).shape == (40, 20, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image": "photo.png"}, InputTypeError, "image: found str"),
        ({"image": np.zeros((4, 4, 3))}, InputTypeError, "float64"),
        ({"image": np.zeros((4, 4, 4), np.uint8)}, ShapeError, r"image: found shape \(4, 4, 4\)"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, ShapeError, "not empty"),
        ({"points": torch.zeros(1, 68, 2)}, ShapeError, "points"),
        ({"points": torch.zeros(68, 4)}, ShapeError, "points"),
        ({"visible": torch.ones(5)}, ShapeError, "visible"),
        ({"radius": -1}, ValueRangeError, "radius"),
    ],
)
def test_drawing_refuses_bad_input(change, error, message):
    arguments = {"image": np.zeros((4, 4, 3), np.uint8), "points": torch.zeros(68, 2)} | change
    with pytest.raises(error, match=message):
        draw_landmarks(**arguments)


# ------------------------------------------------------------------------------------------------------ files
def test_csv_round_trip(tmp_path, points):
    path = tmp_path / "new" / "face.csv"
    places, visible = points[0].clone(), torch.ones(68, dtype=torch.bool)
    visible[[3, 7]] = False
    places[7] = NAN
    write_landmarks(path, places, visible, comments=["a photo\nof somebody", "public domain"])
    assert path.read_text().startswith(
        "# a photo\n# of somebody\n# public domain\nindex,name,x,y,visible\n0,jaw_left_8,"
    )
    result = read_landmarks(path)
    assert torch.allclose(result.points, places, atol=1e-4, equal_nan=True)
    assert torch.equal(result.visible, visible)


def test_pts_counts_pixels_from_one(tmp_path):
    path = tmp_path / "face.pts"
    path.write_text("version: 1\nn_points:  2\n{\n1.000 11.5\n 3 -4\n}\n")
    result = read_landmarks(path, count=2)
    assert result.points.tolist() == [[0.0, 10.5], [2.0, -5.0]]
    assert result.visible.all()
    write_landmarks(path, result.points)
    assert path.read_text() == "version: 1\nn_points: 2\n{\n1.0 11.5\n3.0 -4.0\n}\n"
    assert torch.equal(read_landmarks(path, count=2).points, result.points)


def test_rows_may_come_in_any_order(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("index,name,x,y,visible\n# the second\n1,b,3,4,0\n\n0,a,1,2,1\n")
    points, visible = read_landmarks(path, count=2)
    assert points.tolist() == [[1, 2], [3, 4]]
    assert visible.tolist() == [True, False]


HEAD = "index,name,x,y,visible\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "no such file"),
        ("a.txt", "0 0", r'the suffix "\.txt"'),
        ("a.csv", "", "no rows"),
        ("a.csv", "x,y\n1,2\n", "the first row 'x,y'"),
        ("a.csv", HEAD, "0 landmarks"),
        ("a.csv", HEAD + "0,a,1,2,1\n", "1 landmarks; expected a .csv file with 2 landmarks"),
        ("a.csv", HEAD + "0,a,1,2,1\n0,a,1,2,1\n", "landmark 0 twice"),
        ("a.csv", HEAD + "0,a,1,2,1\n2,a,1,2,1\n", "the index '2'"),
        ("a.csv", HEAD + "-1,a,1,2,1\n", "the index '-1'"),
        ("a.csv", HEAD + "0,a,1,2\n", "4 cells"),
        ("a.csv", HEAD + "0,a,nan,2,1\n", "'nan' in the row of landmark '0'"),
        ("a.csv", HEAD + "0,a,,,1\n", "'' in the row"),
        ("a.csv", HEAD + "0,a,left,2,1\n", "'left' in the row"),
        ("a.csv", HEAD + "0,a,1,inf,0\n", "'inf'"),
        ("a.csv", HEAD + "0,a,1,2,yes\n", "visible = 'yes'"),
        ("a.csv", HEAD + '0,"a,1,2,1\n', "unreadable table"),
        ("a.csv", b"\xff\xfe\x00\x01", "no UTF-8"),
        ("a.csv", "#" * (2**20 + 1), "1048577 bytes"),
        ("a.pts", "", "no block in braces"),
        ("a.pts", "version: 1\nn_points: 2\n{\n1 2\n}\n", "2 declared and 1 lines"),
        ("a.pts", "version: 1\n{\n1 2\n}\n", "no n_points"),
        ("a.pts", "n_points: 1\n{\n1 2\n}\n", "1 landmarks"),
        ("a.pts", "n_points: 2\n{\n1 2\n1 2 3\n}\n", "'1 2 3' as point 1"),
        ("a.pts", "n_points: 2\n{\n1 2\n1 two\n}\n", "'two' in point 1"),
        ("a.pts", "n_points: 2\n{\n1 2\n1 3\n", "no block in braces"),
    ],
)
def test_reading_refuses_bad_files(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileFormatError, match=message) as error:
        read_landmarks(path, count=2)
    assert str(path) in str(error.value)


def test_reading_refuses_a_folder_and_another_order(tmp_path, points):
    folder = tmp_path / "folder.csv"
    folder.mkdir()
    with pytest.raises(FileFormatError, match="a folder"):
        read_landmarks(folder)
    path = tmp_path / "face.csv"
    write_landmarks(path, points[0])
    path.write_text(path.read_text().replace("jaw_left_8", "jaw_right_8", 1))
    with pytest.raises(FileFormatError, match=r"found the name 'jaw_right_8' .*; expected \"jaw_left_8\""):
        read_landmarks(path)


def test_writing_refuses_what_the_format_cannot_hold(tmp_path):
    points = torch.zeros(3, 2)
    with pytest.raises(ValueRangeError, match="1 points that are not visible"):
        write_landmarks(tmp_path / "a.pts", points, torch.tensor([1, 0, 1]))
    with pytest.raises(ValueRangeError, match="comments"):
        write_landmarks(tmp_path / "a.pts", points, comments=["hello"])
    with pytest.raises(FileFormatError, match="suffix"):
        write_landmarks(tmp_path / "a.json", points)
    points[1, 0] = NAN
    with pytest.raises(ValueRangeError, match="at index 1"):
        write_landmarks(tmp_path / "a.csv", points)
    with pytest.raises(ShapeError, match="points"):
        write_landmarks(tmp_path / "a.csv", torch.zeros(2, 3))
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- the shipped landmarks
def test_the_astronaut_looks_like_a_face():
    points, visible = read_landmarks(ASTRONAUT)
    x, y = points.unbind(-1)
    assert (~visible).nonzero().flatten().tolist() == [0, 15, 16]  # under the hair
    assert 170 < x.min() < x.max() < 280
    assert 80 < y.min() < y.max() < 185
    assert all(x[left] < x[right] for left, right in SYMMETRIC_PAIRS)
    for upper, lower in [
        (37, 41),
        (38, 40),
        (43, 47),
        (44, 46),
        (51, 62),
        (62, 66),
        (66, 57),
        (33, 51),
        (57, 8),
    ]:
        assert y[upper] < y[lower]
    # Mirrored and moved back by a similarity, a face nearly frontal falls on itself.
    mirrored = flip_landmarks(points)
    a, b = (
        torch.view_as_complex((points - points.mean(0)).double()),
        torch.view_as_complex((mirrored - mirrored.mean(0)).double()),
    )
    fitted = b * (torch.vdot(b, a) / torch.vdot(b, b))
    extent = (points.amax(0) - points.amin(0)).prod().sqrt()
    assert (fitted - a).abs().mean() / extent < 0.02
