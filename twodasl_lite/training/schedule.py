"""The learning rate of every step: linear warm-up, then half a cosine down, anew in each stage.

A run that has a number of minutes instead of a number of steps (``run.minutes``) goes through the same schedule by the
clock: :class:`Clock` says at which of the planned steps it stands.
"""

from __future__ import annotations

import math
import time

from twodasl_lite.errors import ValueRangeError
from twodasl_lite.training.config import StageConfig, TrainConfig

_FOR_THE_END = 0.03
"""Share of a run's minutes that is kept for its last validation and for writing its networks."""


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


class Clock:
    """Where a run stands in its schedule, told by the time that it has.

    The place is the number of a planned step: that of the step itself, or the share of the time that has passed times
    all planned steps, whichever is greater. Each stage thus gets its share of the time, and a run ends with its rate
    lowered however fast the machine is. Such a run cannot be repeated bit for bit, because clocks differ; one without
    ``run.minutes`` stands at the number of its step, always.

    The clock starts with the end of the first step, which may take long (kernels are chosen and compiled in it), and
    again so in each later piece of the run.

    Args:
        steps: Planned steps of all stages.
        minutes: That the whole run has, what comes before the first step included; 0: no limit, go by steps alone.

    Attributes:
        planned: Seconds from the end of the first step to the end of the schedule; 0 while not known.
        elapsed: Seconds of those that have passed.
    """

    def __init__(self, steps: int, minutes: float = 0.0) -> None:
        self.steps, self.minutes = steps, minutes
        self.planned, self.elapsed = 0.0, 0.0
        self._started: float | None = None

    def tick(self, since_start: float) -> None:
        """Look at the time, after a step.

        Args:
            since_start: Seconds since the start of the command.

        Raises:
            ValueRangeError: If the run's minutes were over before its first step was done.
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
        """The planned step at which the run stands before its step ``step``; all planned steps if its time is over."""
        if not self.planned:
            return step
        return min(self.steps, max(step, int(self.steps * self.elapsed / self.planned)))
