"""Do drawn faces look like faces to a network trained on photographs? 3DDFA_V2's network on known landmarks.

The published mb05 network of 3DDFA_V2 (https://github.com/cleardusk/3DDFA_V2), trained on 300W-LP, predicts the 68
landmarks of 600 pictures whose landmarks are known. On the photographs of AFLW2000-3D its error is 3.5 to 4 %; any
additional error here is due to differences between the pictures, or their landmark positions, and real ones. Nothing of
3DDFA_V2 is part of this project.

    git clone https://github.com/cleardusk/3DDFA_V2
    python benchmarks/world_realism.py --tddfa 3DDFA_V2 --basel bfm_68_landmarks.npz --ict ict_face_model_light.npz

``--basel`` names the Basel Face Model: 3DDFA_V2's own ``configs/bfm_noneck_v3.pkl`` (the default, taken from the
clone), or an ``.npz`` of it at its 68 landmarks alone, ``mean (68, 3)``, ``shape (68, 3, 40)``, ``expression (68, 3,
10)``, in micrometres. ``--ict`` also measures the ICT-FaceKit Light model, with flat colours. ``--worlds`` are further
worlds to measure besides the plain one; ``--sheet`` names a picture file to write, with both sets of landmarks.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

from twodasl_lite.evaluation import nme
from twodasl_lite.evaluation.bins import balanced_mean, bin_means, yaw_bins
from twodasl_lite.faces import MorphableModel, load_face_model
from twodasl_lite.faces.readers import read_face_model
from twodasl_lite.faces.readers.ict import read_ict_npz
from twodasl_lite.faces.readers.whitening import read_whitening
from twodasl_lite.geometry.camera import frame_to_pixels, project
from twodasl_lite.geometry.coefficients import CoefficientLayout, Coefficients
from twodasl_lite.geometry.landmarks import draw_landmarks
from twodasl_lite.geometry.photos import IMAGE_CENTRE, IMAGE_RANGE, write_photo
from twodasl_lite.worlds.synthetic import SyntheticFaces
from twodasl_lite.worlds.world import Box, Person, Pose, World, load_world

SKIN, SCLERA, IRIS, LIP, TOOTH = (
    (0.8, 0.62, 0.53),
    (0.9, 0.88, 0.86),
    (0.25, 0.17, 0.12),
    (0.72, 0.4, 0.38),
    (0.9, 0.88, 0.82),
)


def plain_world(limit: float) -> World:
    """Clean pictures of heads turned in all directions."""
    labelled = load_world("labelled")
    pose = Pose(limit, 1.0, 1.0, 0.0, 7.0, 20.0, 7.0, 20.0)
    return dataclasses.replace(labelled, name="plain", pose=pose, box=Box(0.0, 0.0), person=Person())


class Published:
    """3DDFA_V2's mb05 network: pictures to landmarks."""

    def __init__(self, folder: Path, basel: Path) -> None:
        spec = importlib.util.spec_from_file_location("mobilenet_v1", folder / "models" / "mobilenet_v1.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.network = module.mobilenet(widen_factor=0.5, num_classes=62).eval()
        saved = torch.load(folder / "weights" / "mb05_120x120.pth", map_location="cpu", weights_only=True)["state_dict"]
        names = {"fc_param.weight": "fc.weight", "fc_param.bias": "fc.bias"}
        state = {name.removeprefix("module."): value for name, value in saved.items()}
        state = {names.get(name, name): value for name, value in state.items() if not name.startswith("fc_lm.")}
        self.network.load_state_dict(state)  # except for a head that was used only in its training
        self.whitening = read_whitening(folder / "configs", units="um")
        if basel.suffix == ".npz":
            with np.load(basel, allow_pickle=False) as content:
                parts = [torch.from_numpy(content[name]).float() for name in ("mean", "shape", "expression")]
        else:
            model = read_face_model(basel).with_layout(CoefficientLayout())
            at = model.landmarks
            factor = 1000 if model.units == "mm" else 1
            parts = [factor * part[at].float() for part in (model.mean, model.shape_basis, model.expression_basis)]
        self.mean, self.shape, self.expression = parts

    @torch.inference_mode()
    def landmarks(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, 120, 120)`` uint8 RGB to ``(B, 68, 3)`` pixels."""
        inputs = (images.flip(1).float() - IMAGE_CENTRE) / IMAGE_RANGE  # it was trained on BGR
        pose, shape, expression = Coefficients.unpack(self.whitening.unwhiten(self.network(inputs)))
        faces = self.mean + torch.einsum("vck,bk->bvc", self.shape, shape)
        faces = faces + torch.einsum("vck,bk->bvc", self.expression, expression)
        return frame_to_pixels(project(faces, pose))


def flat_ict(path: Path) -> MorphableModel:
    """The ICT model with one colour per part and its jaw landmarks on the edge of the jaw, like Basel's."""
    model = read_ict_npz(path, jaw="edge").with_layout(CoefficientLayout())
    colours = torch.tensor(SKIN).repeat(model.num_vertices, 1)
    for name, index in model.regions.items():
        for word, colour in (("sclera", SCLERA), ("iris", IRIS), ("teeth", TOOTH), ("gum", LIP), ("mouth", LIP)):
            if word in name:
                colours[index] = torch.tensor(colour)
    for side in ("left", "right"):  # the irises lie behind the corneas, which are drawn
        eye, iris = (model.regions[f"{part}_{side}"] for part in ("sclera", "iris"))
        middle, radius = (
            model.mean[iris].mean(dim=0),
            (model.mean[iris].amax(dim=0) - model.mean[iris].amin(dim=0))[0] / 2,
        )
        near = (model.mean[eye] - middle)[:, :2].norm(dim=1) < 0.6 * radius
        colours[eye[near & (model.mean[eye, 2] > model.mean[eye, 2].mean())]] = torch.tensor(IRIS)
    return model.replace(albedo_mean=colours, albedo_basis=torch.zeros(model.num_vertices, 3, 1), albedo_std=None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tddfa", type=Path, required=True, help="a clone of 3DDFA_V2")
    parser.add_argument("--basel", type=Path, help="the Basel Face Model, or its 68 landmarks")
    parser.add_argument("--ict", type=Path, help="the ICT-FaceKit Light model as .npz")
    parser.add_argument("--worlds", nargs="*", default=["labelled", "wild"])
    parser.add_argument("--faces", type=int, default=600)
    parser.add_argument("--yaw", type=float, default=88.0, help="largest yaw of the plain world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    published = Published(options.tddfa, options.basel or options.tddfa / "configs" / "bfm_noneck_v3.pkl")
    models = {"embedded face": load_face_model(CoefficientLayout())}
    if options.ict:
        models["ICT, flat colours"] = flat_ict(options.ict)

    print(f"{options.faces} pictures; NME of 68 points in %, |yaw| to 30 / to 60 / beyond / balanced")
    for name, model in models.items():
        worlds = [plain_world(options.yaw), *(load_world(world) for world in options.worlds)]
        for world in worlds if name == "embedded face" else worlds[:1]:
            parts, yaws, tiles = [], [], []
            faces = SyntheticFaces(model, world, options.seed)
            for start in range(0, options.faces, 100):
                batch = faces.batch(start, min(100, options.faces - start), truth=True)
                found = published.landmarks(batch.images)
                parts.append(nme(found[..., :2], batch.landmarks[..., :2]))
                yaws.append(batch.yaw)
                for image, given, true in zip(batch.images, found, batch.landmarks, strict=True):
                    if len(tiles) < 64:
                        tile = image.permute(1, 2, 0).numpy().repeat(3, 0).repeat(3, 1)
                        tile = draw_landmarks(tile, 3 * true[:, :2] + 1, color=(80, 255, 120), lines=False)
                        tiles.append(draw_landmarks(tile, 3 * given[:, :2] + 1, color=(255, 60, 60), lines=False))
            error, yaw = torch.cat(parts), torch.cat(yaws)
            means = [f"{100 * float(value):5.2f}" for value in bin_means(error, yaw_bins(yaw))]
            print(f"{name:20} {world.name:10} {' / '.join(means)} / {100 * float(balanced_mean(error, yaw)):5.2f}")
            if options.sheet:
                rows = [np.concatenate(tiles[k : k + 8], axis=1) for k in range(0, len(tiles) - 7, 8)]
                target = options.sheet.with_stem(f"{options.sheet.stem}_{name.split()[0].strip(',')}_{world.name}")
                write_photo(target, np.concatenate(rows, axis=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())
