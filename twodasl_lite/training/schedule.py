"""The learning rate schedule: in each stage a linear warm-up, then cosine decay.

A run limited by time instead of steps (``run.minutes``) follows the same schedule by the clock: :class:`Clock` converts
the elapsed time to a planned step.
"""

from __future__ import annotations

import math
import time

from twodasl_lite.base.errors import ValueRangeError
from twodasl_lite.training.config import StageConfig, TrainConfig

_FOR_THE_END = 0.03
"""Share of a run's minutes reserved for its last validation and for writing its networks."""


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
    """Factor on the weights of the self-supervised losses at a step: from 0 to 1 over ``ramp_steps``."""
    steps = config.self_supervision.ramp_steps
    return 1.0 if steps <= 0 else min(1.0, (step + 1) / steps)


class Clock:
    """Position of a run in its schedule, by elapsed time.

    The position is the number of a planned step: the actual step, or the elapsed fraction of the time times all planned
    steps, whichever is greater. Each stage thus gets its share of the time, and the schedule is completed on any
    machine. Such a run cannot be repeated bit for bit, because timing varies; without ``run.minutes`` the position is
    always the actual step.

    The clock starts at the end of the first step, which may take long (kernels are selected and compiled in it), and
    does so again whenever the run is resumed.

    Args:
        steps: Planned steps of all stages.
        minutes: Minutes of the whole run, including the time before the first step; 0: no limit, follow the steps.

    Attributes:
        planned: Seconds from the end of the first step to the end of the schedule; 0 while unknown.
        elapsed: Seconds since the end of the first step, without pauses.
    """

    def __init__(self, steps: int, minutes: float = 0.0) -> None:
        self.steps, self.minutes = steps, minutes
        self.planned, self.elapsed = 0.0, 0.0
        self._started: float | None = None

    def tick(self, since_start: float) -> None:
        """Update the elapsed time, after a step.

        Args:
            since_start: Seconds since the start of the command.

        Raises:
            ValueRangeError: If the time was over before the first step was done.
        """
        if not self.minutes:
            return
        now = time.perf_counter()
        if not self.planned:
            self.planned = 60 * self.minutes * (1 - _FOR_THE_END) - since_start
            if self.planned <= 0:
                raise ValueRangeError(
                    f"run.minutes: found {self.minutes:g}, but the first step was done after "
                    f"{since_start / 60:.2f} minutes; expected more time"
                )
        if self._started is None:
            self._started = now - self.elapsed
        self.elapsed = now - self._started

    def place(self, step: int) -> int:
        """Position in the schedule before step ``step``; the number of planned steps if the time is over."""
        if not self.planned:
            return step
        return min(self.steps, max(step, int(self.steps * self.elapsed / self.planned)))
