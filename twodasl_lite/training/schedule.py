"""The learning rate of every step: linear warm-up, then half a cosine down, anew in each stage."""

from __future__ import annotations

import math

from twodasl_lite.training.config import StageConfig, TrainConfig


def stage_rate(stage: StageConfig, step: int) -> float:
    """Learning rate of a stage's step ``step``, counted from 0.

    Example:
        >>> stage = StageConfig(steps=10, learning_rate=1.0, warmup=4, final=0.0)
        >>> [round(stage_rate(stage, step), 2) for step in (0, 3, 4, 7, 9)]
        [0.25, 1.0, 1.0, 0.5, 0.07]
    """
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    part = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    decay = (1 + math.cos(math.pi * min(part, 1.0))) / 2
    return stage.learning_rate * (stage.final + (1 - stage.final) * decay)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of the regressor at a run's step ``step``, counted from 0."""
    index, within = config.stage_at(step)
    return stage_rate(config.stages[index], within)


def ramp(config: TrainConfig, step: int) -> float:
    """Factor on the weights of the self-supervision at a step: from 0 to 1 over ``ramp_steps``."""
    steps = config.self_supervision.ramp_steps
    return 1.0 if steps <= 0 else min(1.0, (step + 1) / steps)
