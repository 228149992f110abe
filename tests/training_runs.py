"""Small runs for the tests of training; as a script, one that kills itself or runs in several processes.

The faces are random numbers of the right shapes: nothing can be learnt from them, but everything can be computed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from conftest import make_model

from twodasl_lite.datasets.stream import MemoryStream
from twodasl_lite.faces import MorphableModel
from twodasl_lite.faces.decode import decode_landmarks
from twodasl_lite.geometry.camera import euler_to_matrix, make_pose
from twodasl_lite.geometry.coefficients import Coefficients, Whitening
from twodasl_lite.geometry.face_batch import FaceBatch
from twodasl_lite.geometry.landmarks import subset_18
from twodasl_lite.training.config import TrainConfig, config_from_dict, merge
from twodasl_lite.training.distributed import Processes
from twodasl_lite.training.loop import Run, train
from twodasl_lite.training.pictures import RunData

SMALL = {
    "name": "small",
    "network": {"name": "lite", "norm": "group"},
    "data": {
        "labelled": {"world": "labelled", "batch_size": 4},
        "unlabelled": {"world": "wild", "batch_size": 4, "flip": True},
    },
    "self_supervision": {"landmarks_2d": 10.0, "landmarks_3d": 1.0, "cycle": 1.0, "critic": 0.1, "prior": 0.1},
    "stages": [
        {"name": "WPDC", "steps": 6, "learning_rate": 1e-3, "warmup": 2, "wpdc": 1.0},
        {"name": "VDC", "steps": 4, "learning_rate": 3e-4, "warmup": 1, "vdc": 1.0},
    ],
    "run": {"log_every": 1, "validate_every": 5, "checkpoint_every": 3},
}


def small_config(changes: dict | None = None) -> TrainConfig:
    """A run of ten steps in two stages with all losses."""
    return config_from_dict(merge(SMALL, changes or {}))


def small_face() -> MorphableModel:
    """A random model with the paper's 40 + 10 coefficients and few vertices."""
    return make_model(num_shape=40, num_expression=10, dtype=torch.float32)


def random_coefficients(model: MorphableModel, count: int, seed: int, limit: float = 60.0) -> torch.Tensor:
    """``(count, 62)`` faces in the middle of the crop, yaws within ``limit`` degrees."""
    generator = torch.Generator().manual_seed(seed)
    angles = (torch.rand(count, 3, generator=generator) * 2 - 1) * torch.deg2rad(torch.tensor([20.0, limit, 20.0]))
    scale = 0.35 + 0.05 * torch.rand(count, generator=generator)
    shift = torch.tensor([60.0, 60.0, 0.0]) + 3 * torch.randn(count, 3, generator=generator)
    shape = torch.randn(count, 40, generator=generator) * model.shape_std
    expression = torch.randn(count, 10, generator=generator) * model.expression_std
    return Coefficients(make_pose(scale, euler_to_matrix(angles), shift), shape, expression).pack()


def random_faces(model: MorphableModel, count: int, seed: int, limit: float = 60.0) -> FaceBatch:
    """Pictures of noise with the landmarks of random faces."""
    generator = torch.Generator().manual_seed(seed)
    coefficients = random_coefficients(model, count, seed, limit)
    landmarks = decode_landmarks(coefficients, model)
    visible = torch.rand(count, 18, generator=generator) < 0.9
    points = subset_18(landmarks[..., :2]) + torch.randn(count, 18, 2, generator=generator)
    yaw = torch.rad2deg(torch.asin(-Coefficients.unpack(coefficients).pose[:, 0, 2] / 0.375).nan_to_num())
    return FaceBatch(
        torch.randint(0, 256, (count, 3, 120, 120), generator=generator, dtype=torch.uint8),
        torch.where(visible[..., None], points, torch.nan),
        visible,
        landmarks,
        torch.ones(count, 68, dtype=torch.bool),
        coefficients,
        yaw,
    )


def small_data(model: MorphableModel, rank: int = 0, world_size: int = 1) -> RunData:
    """Streams of random faces, in memory."""
    share = {"rank": rank, "world_size": world_size}
    return RunData(
        MemoryStream(random_faces(model, 20, 1), seed=5, **share),
        MemoryStream(random_faces(model, 20, 2).without_truth(), seed=5, flip=True, **share),
        random_faces(model, 9, 3),
        Whitening.from_samples(random_coefficients(model, 500, 4)),
    )


def small_run(folder: Path, changes: dict | None = None) -> Run:
    """A run that has not begun."""
    model = small_face()
    return Run(small_config(changes), folder, model, small_data(model), Processes())


def small_train(folder: Path, changes: dict | None = None, **options):
    """Train the small run with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = small_face()
        share = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        data = small_data(model, *share)
        device = os.environ.get("TRAINING_DEVICE", "cpu")
        return train(small_config(changes), folder, device=device, progress=False, model=model, data=data, **options)
    finally:
        torch.set_num_threads(threads)


def kill_at(step: int) -> None:
    """Let the run end itself, without a chance to clean up, after the updates of a step."""
    whole = Run.train_step

    def train_step(self, *batches):
        report = whole(self, *batches)
        if self.step + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return report

    Run.train_step = train_step


def keep_gradients(folder: Path) -> None:
    """Let the run write the gradient of its first step."""
    whole = Run.train_step

    def train_step(self, *batches):
        report = whole(self, *batches)
        if self.step == 0 and self.team.first:
            gradients = {name: value.grad for name, value in self.network.named_parameters()}
            gradients |= {f"critic.{name}": value.grad for name, value in self.critic.named_parameters()}
            torch.save(gradients, folder.parent / f"{folder.name}.gradients.pt")
        return report

    Run.train_step = train_step


if __name__ == "__main__":
    action, where = sys.argv[1], Path(sys.argv[2])
    if action == "kill":
        kill_at(int(sys.argv[3]))
    else:
        keep_gradients(where)
    small_train(where, resume=action == "kill")
