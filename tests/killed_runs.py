"""Runs on a few drawn pictures that kill themselves halfway; as a script, ``PHASE FOLDER WORLD``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from twodasl_lite.faces import load_face_model
from twodasl_lite.faces.embedded import recipe as embedded
from twodasl_lite.training import checkpoint, loop, pictures
from twodasl_lite.training.config import load_config

SETTINGS = [
    "data.labelled.count=4",
    "data.unlabelled.count=4",
    "data.validation.count=2",
    "data.labelled.batch_size=2",
    "data.unlabelled.batch_size=2",
    "data.processes=1",
    "stages.0.steps=3",
    "stages.1.steps=1",
    "run.log_every=1",
    "run.validate_every=2",
    "run.checkpoint_every=1",
]
"""A run of four steps."""

# All poses, but without the textures behind faces, which take seconds to make.
PLAIN = """
name = "plain"
[pose]
yaw_limit = 90.0
yaw_uniform = 1.0
"""


def few_pictures(folder: Path, setenv: Callable[[str, str], object]) -> Path:
    """A cache that holds the face alone, and the file of a plain world."""
    model = load_face_model()  # from the usual cache, or made
    folder.mkdir(exist_ok=True)
    setenv("TWODASL_CACHE", str(folder))
    model.save(folder / f"embedded-face-{embedded._recipe_digest()}.npz")
    path = folder / "plain.toml"
    path.write_text(PLAIN)
    return path


def end() -> None:
    """Leave no chance to clean up."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_in(phase: str) -> None:
    """Let a run end itself in a phase."""
    tasks, step, write = pictures.run_tasks, loop.Run.train_step, checkpoint._write

    def run_tasks(*arguments, **options):
        for count, answer in enumerate(tasks(*arguments, **options)):
            yield answer
            if count == 0:
                end()

    def train_step(self, *batches):
        step(self, *batches)
        end()

    def slowly(*arguments, **options):
        for answer in tasks(*arguments, **options):
            yield answer
            time.sleep(2)

    def write_part(path: Path, content: bytes) -> None:
        if path.parent.name == ".step-00000002.part" and path.suffix == ".json":
            end()
        write(path, content)

    if phase == "drawing":
        pictures.run_tasks = run_tasks
    elif phase == "first step":
        loop.Run.train_step = train_step
    elif phase == "validation":
        loop.evaluate_on = lambda *_, **__: end()
    elif phase == "slowly":
        pictures.run_tasks = slowly
    else:
        checkpoint._write = write_part


if __name__ == "__main__":
    phase, folder, world = sys.argv[1:]
    pictures.CHUNK = 2
    end_in(phase)
    worlds = [f"data.{name}.world={world}" for name in ("labelled", "unlabelled", "validation")]
    many = ["data.labelled.count=40", "data.labelled.seed=20", "data.processes=2"] if phase == "slowly" else []
    if phase == "slowly":
        from twodasl_lite.apps.cli import main

        words = [word for value in [*SETTINGS, *worlds, *many] for word in ("--set", value)]
        sys.exit(main(["train", "lite-cpu", *words, "--out", folder, "--device", "cpu", "--quiet"]))
    loop.train(load_config("lite-cpu", [*SETTINGS, *worlds]), folder, device="cpu", progress=False)
