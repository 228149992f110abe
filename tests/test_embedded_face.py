"""The embedded face: its size, its symmetry, its variety, and its distance from a face measured on people.

The ICT-FaceKit neutral face (Li et al. 2020, MIT licence) serves only as a reference; nothing of it is in the package.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.face_quality import (
    align_similarity,
    count_flipped,
    distance_to_surface,
    mirror_of,
    signed_volume,
    triangle_normals,
    triangles_of,
)
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.build import align
from twodasl_lite.faces.embedded.recipe import generate_face_model
from twodasl_lite.faces.readers.ict import BASEL_JAW
from twodasl_lite.geometry.landmarks import GROUPS, MIRROR

MILLIMETRES_PER_CENTIMETRE = 10.0
NUM_RANDOM_FACES = 1000
FACES_AT_ONCE = 20
REGIONS = {
    "face",
    "head",
    "ears",
    "nose",
    "lips",
    "mouth_interior",
    "eyeball_left",
    "eyeball_right",
    "iris_left",
    "iris_right",
    "eyelids",
    "brows",
}


class Ruler(NamedTuple):
    """The reference head in millimetres: all its skin, the indices of its face region, its 68 landmarks."""

    vertices: torch.Tensor
    skin_triangles: torch.Tensor
    face: torch.Tensor
    landmarks: torch.Tensor


@pytest.fixture(scope="module")
def face_model() -> MorphableModel:
    """The embedded face in double precision; a copy, as the original is shared by all its users."""
    return copy.deepcopy(load_face_model()).double()


@pytest.fixture(scope="module")
def random_shapes(face_model: MorphableModel) -> torch.Tensor:
    """(1000, Ks) shape coefficients: a normal draw for each component, clipped at two standard deviations."""
    generator = torch.Generator().manual_seed(0)
    shapes, _ = face_model.sample(NUM_RANDOM_FACES, generator=generator, clip=2.0, expression=False)
    return shapes


@pytest.fixture(scope="module")
def ruler(data_root: Path) -> Ruler:
    path = data_root / "ict-facekit" / "ict_face_model_light.npz"
    with np.load(path, allow_pickle=False) as content:
        names = content["region_names"].tolist()
        region = {
            name: torch.arange(start, stop)
            for name, start, stop in zip(names, content["region_start"], content["region_stop"], strict=True)
        }
        vertices = torch.from_numpy(content["mean"]).double() * MILLIMETRES_PER_CENTIMETRE
        triangles = torch.from_numpy(content["triangles"]).long()
        landmarks = torch.from_numpy(content["landmarks68"]).long()
    landmarks[: len(BASEL_JAW)] = torch.tensor(BASEL_JAW)  # along the jaw both have the points of the Basel Face Model
    skin = torch.cat([region["face"], region["head_and_neck"]])
    return Ruler(vertices, triangles_of(triangles, skin), region["face"], vertices[landmarks])


# ---------------------------------------------------------------------------------------------- what it holds
def test_it_has_the_promised_size(face_model: MorphableModel) -> None:
    assert 5_000 <= face_model.num_vertices <= 12_000
    assert face_model.num_shape >= 60
    assert face_model.num_expression >= 10
    assert face_model.units == "mm"
    assert face_model.name
    assert face_model.license
    assert face_model.source


def test_its_shape_coefficients_are_standard_deviations(face_model: MorphableModel) -> None:
    torch.testing.assert_close(face_model.shape_std, torch.ones_like(face_model.shape_std))
    energy = face_model.shape_basis.square().sum(dim=(0, 1))
    assert bool((energy[:-1] >= energy[1:] * (1 - 1e-4)).all()), "components are ordered by their share of the variance"
    assert bool((energy > 0).all())


def test_every_promised_region_is_there(face_model: MorphableModel) -> None:
    assert set(face_model.regions) >= REGIONS
    assert all(len(index) for index in face_model.regions.values())
    assert len(face_model.triangles.unique()) == face_model.num_vertices, "every vertex belongs to some triangle"


def test_expressions_are_named_and_move_the_face(face_model: MorphableModel) -> None:
    assert len(set(face_model.expression_names)) == face_model.num_expression
    furthest = face_model.expression_basis.norm(dim=1).amax(dim=0)  # (Ke,) mm
    assert float(furthest.min()) > 1.0
    assert float(furthest.max()) < 60.0


def test_colours_are_colours(face_model: MorphableModel) -> None:
    assert face_model.albedo_mean is not None
    assert float(face_model.albedo_mean.min()) >= 0
    assert float(face_model.albedo_mean.max()) <= 1
    draws = face_model.sample_albedo(200, generator=torch.Generator().manual_seed(0))
    skin = face_model.decode_albedo(draws)[:, face_model.regions["nose"]].mean(dim=1)  # (200, 3)
    luminance = skin @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=skin.dtype)
    assert float(luminance.min()) < 0.4, "dark skin"
    assert float(luminance.max()) > 0.65, "light skin"
    assert bool((skin[:, 0] > skin[:, 2]).all()), "skin reflects more red than blue"


# ----------------------------------------------------------------------------------------------- its geometry
def test_the_mean_is_symmetric(face_model: MorphableModel) -> None:
    _, distance = mirror_of(face_model.mean)
    assert float(distance.max()) < 1e-6
    points = face_model.mean[face_model.landmarks]
    reflected = points[MIRROR] * torch.tensor([-1.0, 1.0, 1.0], dtype=points.dtype)
    assert float((reflected - points).abs().max()) < 1e-6


def test_it_faces_the_viewer_and_stands_upright(face_model: MorphableModel) -> None:
    points = face_model.mean[face_model.landmarks]
    mean_of = {name: points[index].mean(dim=0) for name, index in GROUPS.items()}
    assert float(mean_of["left_eye"][0]) < 0 < float(mean_of["right_eye"][0])
    heights = [mean_of[name][1] for name in ("left_brow", "left_eye", "nose_base", "outer_lip")] + [points[8, 1]]
    assert heights == sorted(heights, reverse=True)
    assert int(points[:, 2].argmax()) == GROUPS["nose_bridge"][-1], "no landmark is further in front than the nose tip"
    assert float(face_model.mean.norm(dim=1).max()) < 250, "the origin is inside the head"


def test_triangles_are_counter_clockwise_from_outside(face_model: MorphableModel) -> None:
    for region in ("eyeball_left", "eyeball_right"):
        assert float(signed_volume(face_model.mean, triangles_of(face_model.triangles, face_model.regions[region]))) > 0
    normals = triangle_normals(face_model.mean, triangles_of(face_model.triangles, face_model.regions["face"]))
    assert float(normals[:, 2].sum()) > 0
    edges = face_model.triangles[:, [[0, 1], [1, 2], [2, 0]]].flatten(0, 1)
    assert len(edges.unique(dim=0)) == len(edges), "two neighbours run along their edge in opposite directions"


def test_the_lips_are_closed_and_the_eyes_open(face_model: MorphableModel) -> None:
    points = face_model.mean[face_model.landmarks]
    parting = (points[[61, 62, 63]] - points[[67, 66, 65]]).norm(dim=1)
    assert float(parting.max()) < 2.0
    opening = (points[[37, 38, 43, 44]] - points[[41, 40, 47, 46]]).norm(dim=1)
    assert float(opening.min()) > 6.0
    assert float(opening.max()) < 14.0


def test_no_triangle_of_the_face_flips(face_model: MorphableModel, random_shapes: torch.Tensor) -> None:
    surface = triangles_of(face_model.triangles, face_model.regions["face"])
    flipped = torch.cat(
        [
            count_flipped(face_model.decode(some), face_model.mean, surface)
            for some in random_shapes.split(FACES_AT_ONCE)
        ]
    )
    assert len(flipped) == NUM_RANDOM_FACES
    assert int(flipped.sum()) == 0, (
        f"{int((flipped > 0).sum())} of {NUM_RANDOM_FACES} faces have some, up to {int(flipped.max())}"
    )


def test_eyeballs_stay_rigid_but_for_their_size(face_model: MorphableModel, random_shapes: torch.Tensor) -> None:
    faces = face_model.decode(random_shapes[:FACES_AT_ONCE])
    for region in ("eyeball_left", "eyeball_right"):
        index = face_model.regions[region]
        for face in faces:
            moved = align_similarity(face_model.mean[index], face[index])
            assert float((moved(face_model.mean[index]) - face[index]).norm(dim=1).max()) < 0.5
            assert 0.8 < float(moved.scale) < 1.25


def test_people_differ(face_model: MorphableModel, random_shapes: torch.Tensor) -> None:
    landmarks = face_model.decode_landmarks(random_shapes)
    aligned = torch.stack([align_similarity(p, landmarks[0])(p) for p in landmarks[1:101]])
    spread = (aligned - aligned.mean(dim=0)).norm(dim=2).mean()
    assert 1.5 < float(spread) < 8.0  # mm


def test_loading_twice_gives_the_same(face_model: MorphableModel) -> None:
    again = copy.deepcopy(load_face_model()).double()
    for name, buffer in face_model.named_buffers():
        assert torch.equal(buffer, again.get_buffer(name)), name


def test_the_seed_decides_everything() -> None:
    def generate(seed: int) -> dict[str, torch.Tensor]:
        return dict(generate_face_model(seed, num_scans=12, num_shape=6).named_buffers())

    one, same, other = generate(1), generate(1), generate(2)
    for name, buffer in one.items():
        assert torch.equal(buffer, same[name]), name
    assert not torch.equal(one["basis"], other["basis"])
    assert torch.equal(one["triangles"], other["triangles"])


# ------------------------------------------------------------------------------- against faces of real people
def test_landmarks_lie_where_they_do_on_people(face_model: MorphableModel, ruler: Ruler) -> None:
    points = face_model.mean[face_model.landmarks]
    distance = (align_similarity(points, ruler.landmarks)(points) - ruler.landmarks).norm(dim=1)
    worst = {name: round(float(distance[index].mean()), 1) for name, index in GROUPS.items()}
    assert float(distance.mean()) <= 5.0, f"mm by group: {worst}"


def test_landmarks_without_a_corner_are_where_the_basel_face_model_has_them(
    face_model: MorphableModel, data_root: Path
) -> None:
    """Jaw, brows, bridge, wings and lower lip: with the average faces laid upon each other, no vertex is nearer."""
    with np.load(data_root / "aflw2000-3d" / "bfm_68_landmarks.npz", allow_pickle=False) as content:
        basel = torch.from_numpy(content["mean"]).double()
    regions = face_model.regions
    outside = torch.cat([regions["face"], regions["head"], regions["neck"]]).unique()
    outside = outside[~torch.isin(outside, torch.cat([regions["ears"], regions["mouth_interior"]]))]
    points = face_model.mean[face_model.landmarks]
    mirrored = basel[MIRROR] * basel.new_tensor([-1.0, 1.0, 1.0])
    basel = (basel + align(mirrored, basel).apply(mirrored)) / 2
    laid = align(basel, points, with_scale=True).apply(basel)
    placed = [*range(30), 31, 32, 34, 35, *range(55, 60)]
    apart = (laid - points).norm(dim=1)[placed]
    nearest = torch.cdist(laid[placed], face_model.mean[outside]).amin(dim=1)
    assert float((apart - nearest).max()) < 1.0  # mm
    assert float(apart.median()) < 2.0
    assert float(apart.max()) < 5.0


def test_the_surface_is_close_to_that_of_people(face_model: MorphableModel, ruler: Ruler) -> None:
    fit = align_similarity(face_model.mean[face_model.landmarks], ruler.landmarks)
    vertices, face = fit(face_model.mean), face_model.regions["face"]
    assert 0.9 < float(fit.scale) < 1.1, "both are adult heads in millimetres"
    # Each face region against the whole skin of the other: regions end in different places, skin does not.
    there = distance_to_surface(vertices[face], ruler.vertices, ruler.skin_triangles)
    back = distance_to_surface(ruler.vertices[ruler.face], vertices, face_model.triangles)
    there, back = float(there.mean()), float(back.mean())
    assert (there + back) / 2 <= 4.0, f"{there:.2f} mm there, {back:.2f} mm back"


# ---------------------------------------------------------------------------------------- the judge, on trial
def test_distances_to_a_surface_are_exact() -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    vertices, triangles, points = (
        random(60, 3),
        torch.randint(60, (90, 3), generator=generator),
        2 * random(40, 3),
    )
    weights = torch.cartesian_prod(*2 * [torch.linspace(0, 1, 160, dtype=torch.float64)])
    weights = weights[weights.sum(dim=1) <= 1]  # a dense sampling of every triangle
    weights = torch.cat([1 - weights.sum(dim=1, keepdim=True), weights], dim=1)
    samples = torch.einsum("sk,tkc->tsc", weights, vertices[triangles]).flatten(0, 1)
    brute = torch.stack([(point - samples).norm(dim=1).amin() for point in points])
    exact = distance_to_surface(points, vertices, triangles)
    assert bool((exact <= brute + 1e-12).all())
    torch.testing.assert_close(exact, brute, atol=2e-2, rtol=0)


def test_a_flipped_triangle_is_counted() -> None:
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]).double()
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    folded = square.clone()
    folded[3] = torch.tensor([1.0, 0.2, 0])  # across the diagonal
    assert count_flipped(torch.stack([square, folded]), square, triangles).tolist() == [0, 1]
    assert mirror_of(square - torch.tensor([0.5, 0, 0]))[0].tolist() == [1, 0, 3, 2]
