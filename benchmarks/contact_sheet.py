"""Forty photographs of AFLW2000-3D, chosen by number, with our reconstruction beside 3DDFA_V2's: to be looked at.

The network is the package's, or ``--network FILE``; it and the published mb05 network see the same crops, cut by the
true boxes (``--detector FILE`` finds them with YuNet for ours). Without a detector's points, after two looks. A panel
says the error over the 68 landmarks; the table goes to the terminal, and nothing of either network is written but the
picture.

    git clone https://github.com/cleardusk/3DDFA_V2
    python benchmarks/contact_sheet.py CLONE --tddfa 3DDFA_V2 --basel bfm_68_landmarks.npz --out sheet.jpg

``CLONE`` is a clone of ``XgTu/2DASL``, which has the photographs. ``--basel`` as for ``world_realism.py``; with its 68
landmarks alone 3DDFA_V2's face is drawn as points, with the whole model (``configs/bfm_noneck_v3.pkl``) as a mesh too.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from world_realism import Published

from twodasl_lite.apps.detection import YuNet
from twodasl_lite.apps.reconstruction import face_box_to_crop, overlap, reconstruct
from twodasl_lite.datasets.aflw2000 import AFLW2000, read_aflw2000
from twodasl_lite.evaluation import nme
from twodasl_lite.faces import load_face_model, read_face_model
from twodasl_lite.geometry.camera import crop_to_image
from twodasl_lite.geometry.coefficients import CoefficientLayout
from twodasl_lite.geometry.landmarks import draw_landmarks
from twodasl_lite.geometry.photos import crop_photo, write_photo
from twodasl_lite.networks import load_regressor
from twodasl_lite.networks.trained import trained_regressor
from twodasl_lite.viz.alignment import overlay_picture

EVERY, COUNT = 50, 40
PANEL, LINE, GAP, COLUMNS = 190, 18, 6, 4
MARGIN = 0.1  # of the crop's side, shown around it
FAR = 1.5  # times 3DDFA_V2's error: marked in the table


def panel(picture: np.ndarray, words: str) -> np.ndarray:
    """A picture of the panel's size with a line of words under it."""
    line = np.full((LINE, PANEL, 3), 255, np.uint8)
    cv2.putText(line, words, (2, LINE - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([picture, line])


class View:
    """A photograph cut around a box and drawn in the panel's size.

    Args:
        photo: ``(H, W, 3)`` uint8 RGB.
        box: ``(4,)`` the crop.
    """

    def __init__(self, photo: np.ndarray, box: torch.Tensor) -> None:
        margin = MARGIN * float(box[2] - box[0])
        wide = (box + box.new_tensor([-margin, -margin, margin, margin])).round()
        self.corner, self.factor = wide[:2].float(), PANEL / float(wide[2] - wide[0] + 1)
        side = int(wide[2] - wide[0]) + 1
        cut = crop_photo(photo, wide, side)
        self.photo = cv2.resize(cut, (PANEL, PANEL), interpolation=cv2.INTER_AREA if self.factor < 1 else 2)

    def place(self, points: torch.Tensor) -> torch.Tensor:
        """Points ``(N, 3)`` of the photograph in the panel."""
        plane = (points[:, :2] - self.corner + 0.5) * self.factor - 0.5
        return torch.cat([plane, points[:, 2:] * self.factor], dim=1)

    def drawn(self, vertices: torch.Tensor | None, landmarks: torch.Tensor, model) -> np.ndarray:
        """The panel with a face on it."""
        picture = self.photo
        if vertices is not None:
            picture = overlay_picture(picture, [self.place(vertices)], model, opacity=0.55, smallest=1)
        return draw_landmarks(picture, self.place(landmarks))


def compare(options: argparse.Namespace, dataset: AFLW2000, chosen: Sequence[int]) -> tuple[list[np.ndarray], list]:
    """Three panels a face, and a row of the table."""
    trained = load_regressor(options.network) if options.network else trained_regressor()
    model = read_face_model(options.face_model) if options.face_model else load_face_model(trained.layout)
    model = model.with_layout(trained.layout).to(torch.float32)
    published = Published(options.tddfa, options.basel)
    whole = None
    if options.basel.suffix != ".npz":
        whole = read_face_model(options.basel).with_layout(CoefficientLayout()).to(torch.float32)
    detector = YuNet(options.detector) if options.detector else None
    panels, rows = [], []
    for index in chosen:
        name = dataset.names[index]
        photo, box, truth = dataset.photo(name), dataset.boxes[index].float(), dataset.landmarks[index].float()
        yaw = float(dataset.yaw[index])
        view = View(photo, box)
        near = functools.partial(overlap, box)
        if detector is None:
            (ours,) = reconstruct(photo, trained, model, crop_boxes=box)
        else:  # the set has one face of each photo, maybe not the largest
            boxes = detector(photo)[:, :4]
            best = max(boxes, key=lambda b, near=near: near(face_box_to_crop(b)), default=None)
            if best is None or near(face_box_to_crop(best)) < 0.2:
                panels.append(np.concatenate([panel(view.photo, words) for words in (name, "not found", "")], axis=1))
                rows.append((name, yaw, float("nan"), float("nan")))
                continue
            (ours,) = reconstruct(photo, trained, model, boxes=best)
        crop = torch.from_numpy(crop_photo(photo, box)).permute(2, 0, 1)[None]
        theirs = crop_to_image(published.landmarks(crop), box[None])[0].float()
        mesh = None if whole is None else published_mesh(published, whole, crop, box)
        errors = [float(nme(p[None, :, :2], truth[None, :, :2])[0]) * 100 for p in (ours.landmarks, theirs)]
        parts = [
            panel(view.photo, f"{name[5:]} yaw {yaw:.0f}"),
            panel(view.drawn(ours.vertices, ours.landmarks, model), f"ours {errors[0]:.1f} %"),
            panel(view.drawn(mesh, theirs, whole), f"3DDFA_V2 {errors[1]:.1f} %"),
        ]
        panels.append(np.concatenate(parts, axis=1))
        rows.append((name, yaw, *errors))
        print(f"\r{len(rows)} of {len(chosen)}", end="", file=sys.stderr)
    return panels, rows


@torch.inference_mode()
def published_mesh(published: Published, whole, crop: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """3DDFA_V2's vertices ``(V, 3)`` in pixels of the photograph."""
    from twodasl_lite.geometry.camera import frame_to_pixels, project
    from twodasl_lite.geometry.coefficients import Coefficients
    from twodasl_lite.geometry.photos import IMAGE_CENTRE, IMAGE_RANGE

    inputs = (crop.flip(1).float() - IMAGE_CENTRE) / IMAGE_RANGE
    pose, shape, expression = Coefficients.unpack(published.whitening.unwhiten(published.network(inputs)))
    factor = 1000 if whole.units == "mm" else 1  # the network's pose is for micrometres
    placed = frame_to_pixels(project(factor * whole.decode(shape / factor, expression / factor), pose))
    return crop_to_image(placed, box[None])[0].float()


def main() -> int:
    """Write the sheet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path, help="a clone of XgTu/2DASL")
    parser.add_argument("--tddfa", type=Path, required=True, metavar="FOLDER", help="a clone of 3DDFA_V2")
    parser.add_argument("--basel", type=Path, metavar="FILE", help="the Basel Face Model, or its 68 landmarks")
    parser.add_argument("--network", type=Path, metavar="FILE", help="a trained network (default: the package's)")
    parser.add_argument("--face-model", type=Path, metavar="FILE", help="that it was trained with")
    parser.add_argument("--detector", type=Path, metavar="FILE", help="YuNet, for our boxes")
    parser.add_argument("--every", type=int, default=EVERY, help=f"take every n-th photograph (default: {EVERY})")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("contact_sheet.jpg"), metavar="FILE")
    options = parser.parse_args()
    options.basel = options.basel or options.tddfa / "configs" / "bfm_noneck_v3.pkl"
    dataset = read_aflw2000(options.clone)
    chosen = range(options.first, len(dataset), options.every)[:COUNT]
    if not chosen:
        parser.error(f"--first: found {options.first}; expected below {len(dataset)}")
    panels, rows = compare(options, dataset, chosen)
    blank = np.full_like(panels[0], 255)
    panels += [blank] * (-len(panels) % COLUMNS)
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    lines = []
    for start in range(0, len(panels), COLUMNS):
        line = [part for cell in panels[start : start + COLUMNS] for part in (cell, gap)]
        lines.append(np.concatenate(line[:-1], axis=1))
    write_photo(options.out, np.concatenate(lines))
    print(f"\n{'photograph':12s} {'yaw':>6s} {'ours %':>8s} {'3DDFA_V2 %':>11s}")
    for name, yaw, ours, theirs in sorted(rows, key=lambda row: abs(row[1])):
        print(f"{name:12s} {yaw:6.0f} {ours:8.2f} {theirs:11.2f}{'  *' if ours > FAR * theirs else ''}")
    found = torch.tensor([row[2:] for row in rows])
    found = found[torch.isfinite(found).all(dim=1)]
    ours, theirs = found.mean(dim=0).tolist()
    print(f"mean of {len(found)}: ours {ours:.2f} %, 3DDFA_V2 {theirs:.2f} %; * more than {FAR:g} times theirs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
