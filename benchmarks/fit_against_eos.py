"""Fitting to landmarks: time and error of ``fit_landmarks`` and of eos on the same faces.

eos (Huber et al. 2016, https://github.com/patrikhuber/eos) is the public C++ library for this task. Both fit the Surrey
face model (63 shape components, 6 expression blendshapes) to the same noisy landmarks of synthetic faces, on one thread
each by default: eos face by face, as its interface requires, ours in batches.

    pip install eos-py==1.5.0
    git clone https://github.com/patrikhuber/eos
    python benchmarks/fit_against_eos.py --share eos/share

Two ways to call eos are timed. *Contour*: ``fit_shape_and_pose`` as in its documentation, with 68 landmarks; those of
the jaw are matched to the outline again in each iteration. *Fixed*: the variant without contour, which gets the same
input as ours, the 50 landmarks for which the Surrey model has a vertex. Errors are always over those 50. At the same
regularisation both minimise the same sum: landmark errors with a standard deviation of sqrt(3) px, lambda times the
squared shape coefficients, and expressions without a prior but not negative (in ours, also not above 1).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from twodasl_lite.base.errors import require
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.faces.fitting import FitResult, fit_landmarks
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import Coefficients
from twodasl_lite.geometry.landmarks import NUM_LANDMARKS

EOS_NOISE = math.sqrt(3)  # pixels; eos's fixed assumption about landmarks
EOS_LAMBDA = 30.0  # default of eos's Python interface
NO_PRIOR = 1e3  # a standard deviation so large that the prior has no effect
FACE_WIDTH = 0.6  # fraction of the picture's side
JAW_HALF = 8  # landmarks on either side of the chin


class Surrey(NamedTuple):
    """The Surrey model for both libraries."""

    for_eos: object
    mapper: object
    contour: tuple  # edge topology, contour landmarks, model contour
    ours: MorphableModel
    mapped: list[int]  # those of the 68 landmarks for which the model has a vertex


class Faces(NamedTuple):
    """Synthetic faces: landmarks in pixels, and the size of each picture."""

    clean: torch.Tensor  # (B, 68, 2)
    noisy: torch.Tensor  # (B, 68, 2)
    side: list[int]
    sigma: torch.Tensor  # (B,) true noise per coordinate


def load_surrey(eos, share: Path) -> Surrey:
    """Read the model through eos and make a :class:`MorphableModel` of it."""
    shape_model = eos.morphablemodel.load_model(str(share / "sfm_shape_3448.bin")).get_shape_model()
    blendshapes = eos.morphablemodel.load_blendshapes(str(share / "expression_blendshapes_3448.bin"))
    no_colour = eos.morphablemodel.PcaModel()
    for_eos = eos.morphablemodel.MorphableModel(shape_model, blendshapes, no_colour, None, [], [])
    mapping = str(share / "ibug_to_sfm.txt")
    mapper = eos.core.LandmarkMapper(mapping)
    contour_file = share / "sfm_model_contours.json"
    contour = (
        eos.morphablemodel.load_edge_topology(str(share / "sfm_3448_edge_topology.json")),
        eos.fitting.ContourLandmarks.load(mapping),
        eos.fitting.ModelContour.load(str(contour_file)),
    )

    vertices = {int(name) - 1: int(vertex) for name, vertex in mapper.get_mappings().items()}
    mapped = sorted(vertices)
    # The jaw has no fixed vertices: synthetic landmarks take every second of the model's outline, from the ear on.
    outline = json.loads(contour_file.read_text())["model_contour"]
    for k in range(JAW_HALF):
        vertices[k] = outline["right_contour"][2 * k]
        vertices[2 * JAW_HALF - k] = outline["left_contour"][2 * k]
    vertices.setdefault(60, vertices[48])  # inner corners of the mouth: no vertices, never used
    vertices.setdefault(64, vertices[54])

    basis = torch.from_numpy(np.array(shape_model.get_rescaled_pca_basis())).unflatten(0, (-1, 3))
    moves = torch.from_numpy(np.stack([b.deformation for b in blendshapes], axis=-1)).unflatten(0, (-1, 3))
    ours = MorphableModel(
        torch.from_numpy(np.array(shape_model.get_mean())).unflatten(0, (-1, 3)),
        basis,
        moves,
        torch.tensor(shape_model.get_triangle_list()),
        torch.tensor([vertices[k] for k in range(NUM_LANDMARKS)]),
        expression_std=torch.full((len(blendshapes),), NO_PRIOR),
        expression_names=[b.name for b in blendshapes],
        expression_kind="blendshapes",
        name="Surrey face model, 3448 vertices",
    )
    return Surrey(for_eos, mapper, contour, ours, mapped)


def make_faces(model: MorphableModel, count: int, max_yaw: float, seed: int) -> Faces:
    """Random people with one or two expressions, in pictures of 120 to 500 pixels, with 1 to 2 pixels of noise."""
    rng = np.random.default_rng(seed)
    shape = rng.normal(size=(count, model.num_shape)).clip(-2, 2)
    expression = rng.uniform(size=(count, model.num_expression))
    expression[rng.uniform(size=expression.shape) > 1.5 / model.num_expression] = 0
    angles = np.deg2rad(rng.uniform([-15, -max_yaw, -15], [15, max_yaw, 15], size=(count, 3)))
    side = rng.integers(120, 501, size=count)
    width = float(model.mean[:, 0].max() - model.mean[:, 0].min())
    scale = FACE_WIDTH * side / width
    centre = np.stack([side / 2, side / 2, 0 * side], axis=-1)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).float()

    pose = make_pose(tensor(scale), euler_to_matrix(tensor(angles)), tensor(centre))
    clean = torch.cat(
        [
            decode_landmarks(Coefficients(pose[b : b + 1], tensor(shape[b : b + 1]), tensor(expression[b : b + 1])),
                             model, float(side[b]))
            for b in range(count)
        ]
    )[..., :2]  # fmt: skip
    sigma = rng.uniform(1, 2, size=count)
    noise = rng.normal(size=tuple(clean.shape)) * sigma[:, None, None]
    return Faces(clean, clean + tensor(noise), side.tolist(), tensor(sigma))


def run_eos(eos, surrey: Surrey, faces: Faces, lam: float, contour: bool) -> tuple[float, torch.Tensor]:
    """Seconds per face, and the fitted landmarks ``(B, 50, 2)``."""
    names = range(NUM_LANDMARKS) if contour else surrey.mapped
    points = faces.noisy.numpy()
    extra = surrey.contour if contour else ()
    vertices = surrey.ours.landmarks[surrey.mapped].numpy()
    seconds, fitted = 0.0, []
    for face, side in zip(points, faces.side, strict=True):
        landmarks = [eos.core.Landmark(str(k + 1), face[k]) for k in names]
        start = time.perf_counter()
        mesh, camera, _, _ = eos.fitting.fit_shape_and_pose(
            surrey.for_eos, landmarks, surrey.mapper, side, side, *extra, lambda_identity=lam
        )
        seconds += time.perf_counter() - start
        matrix = np.asarray(eos.fitting.get_3x4_affine_camera_matrix(camera, side, side))
        placed = np.asarray(mesh.vertices)[vertices] @ matrix[:2, :3].T + matrix[:2, 3]
        fitted.append(torch.from_numpy(placed))
    return seconds / len(points), torch.stack(fitted)


def run_ours(surrey: Surrey, faces: Faces, batch: int, options: dict[str, float]) -> tuple[float, torch.Tensor, list]:
    """Seconds per face, the fitted landmarks ``(B, 50, 2)``, and the results of the batches."""
    given = faces.noisy[:, surrey.mapped]
    seconds, fitted, results = 0.0, [], []
    for first in range(0, len(given), batch):
        part = given[first : first + batch]
        start = time.perf_counter()
        # Only the frame of the pose depends on the picture's height; one number serves pictures of all sizes.
        result = fit_landmarks(part, surrey.ours, indices=surrey.mapped, height=1, **options)
        seconds += time.perf_counter() - start
        fitted.append(decode_landmarks(result.coefficients, surrey.ours, 1)[:, surrey.mapped, :2])
        results.append(result)
    return seconds / len(given), torch.cat(fitted), results


def rms(fitted: torch.Tensor, target: torch.Tensor) -> float:
    """Root mean square distance over all faces, in pixels."""
    return float((fitted - target).square().sum(dim=-1).mean().sqrt())


def steps(results: list[FitResult]) -> str:
    iterations = torch.cat([r.iterations for r in results])
    share = torch.cat([r.converged for r in results]).float().mean()
    return f"{100 * float(share):.0f} % converged, {int(iterations.min())} to {int(iterations.max())} steps"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=Path, required=True, help="the folder share/ of the eos repository")
    parser.add_argument("--faces", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max-yaw", type=float, default=60.0, help="degrees")
    parser.add_argument("--rounds", type=int, default=5, help="number of timed repetitions, both libraries in turn")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch; eos uses one")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    eos = require("eos", "dev", "this benchmark (eos-py)")

    surrey = load_surrey(eos, arguments.share)
    faces = make_faces(surrey.ours, arguments.faces, arguments.max_yaw, arguments.seed)
    clean, noisy = faces.clean[:, surrey.mapped], faces.noisy[:, surrey.mapped]
    print(
        f"{surrey.ours}\n{arguments.faces} faces, yaw up to ±{arguments.max_yaw:.0f}°, {len(surrey.mapped)} landmarks"
    )
    print(f"rms distance of the given landmarks from the true ones: {rms(noisy, clean):.3f} px\n")

    print("error (rms px over the mapped landmarks)      to the given   to the true landmarks")
    for lam in (3.0, EOS_LAMBDA):
        for contour in (True, False):
            _, fitted = run_eos(eos, surrey, faces, lam, contour)
            kind = "contour" if contour else "fixed"
            print(
                f"eos,  lambda {lam:4.0f}, {kind:8}              {rms(fitted, noisy):10.3f} {rms(fitted, clean):15.3f}"
            )
        _, fitted, results = run_ours(surrey, faces, arguments.batch, {"regularisation": lam, "noise": EOS_NOISE})
        print(f"ours, lambda {lam:4.0f}                        {rms(fitted, noisy):10.3f} {rms(fitted, clean):15.3f}"
              f"   {steps(results)}")  # fmt: skip
    _, fitted, results = run_ours(surrey, faces, arguments.batch, {})
    print(f"ours, default (noise 2 %)                {rms(fitted, noisy):10.3f} {rms(fitted, clean):15.3f}", end="   ")
    print(steps(results))

    options = {"regularisation": EOS_LAMBDA, "noise": EOS_NOISE}
    run_ours(surrey, faces, arguments.batch, options)  # warm up
    times: dict[str, list[float]] = {"contour": [], "fixed": [], "ours": []}
    for _ in range(arguments.rounds):
        times["contour"].append(run_eos(eos, surrey, faces, EOS_LAMBDA, True)[0])
        times["ours"].append(run_ours(surrey, faces, arguments.batch, options)[0])
        times["fixed"].append(run_eos(eos, surrey, faces, EOS_LAMBDA, False)[0])
    print(f"\nms per face, median of {arguments.rounds} rounds; torch on {arguments.threads} thread(s), eos on one")
    for name, label in (
        ("contour", "eos, contour"),
        ("fixed", "eos, fixed"),
        ("ours", f"ours, batches of {arguments.batch}"),
    ):
        ratio = statistics.median(a / b for a, b in zip(times[name], times["ours"], strict=True))
        print(f"{label:24} {1e3 * statistics.median(times[name]):9.3f}   {ratio:7.1f} times ours")


if __name__ == "__main__":
    main()
