"""The learning rate over a run: warm-up, flat, cosine, constant.

    factor
      1 |      ____________
        |     /            \\
        |    /              \\
        |   /                '--.________  final_factor
        +--+-+-------------+-------------+--> step
          warm-up    cosine_start    cosine_end

docs/specs/detectors.md, section 13, holds the values of each family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ymir_tmi.config.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Where the parts of the learning-rate curve begin and end, in optimiser steps from 0.

    Attributes:
        warmup: shape of the rise over the first `warmup_steps` steps, from `warmup_start` to 1.
        cosine_start: the factor is 1 up to here; never before the warm-up has ended.
        cosine_end: from here on the factor is `final_factor`.
    """

    warmup: Literal["linear", "quadratic"]
    warmup_steps: int
    warmup_start: float
    cosine_start: int
    cosine_end: int
    final_factor: float

    def factor(self, step: int) -> float:
        """Return what the base learning rate is multiplied with at optimiser step `step` (from 0)."""
        if step < self.warmup_steps:
            rise = step / self.warmup_steps
            rise = rise * rise if self.warmup == "quadratic" else rise
            return self.warmup_start + (1 - self.warmup_start) * rise
        if step <= self.cosine_start:
            return 1.0
        if step >= self.cosine_end:
            return self.final_factor
        progress = (step - self.cosine_start) / (self.cosine_end - self.cosine_start)
        return self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * progress)) / 2


def plan_schedule(recipe: Recipe, steps_per_epoch: int) -> Schedule:
    """Lay the recipe's curve over a run of `recipe.epochs` epochs of `steps_per_epoch` optimiser steps each.

    The flat part is a fraction of the run. The warm-up takes at most `warmup_fraction` of it, so that a short run is
    not spent on it.
    """
    schedule = recipe.schedule
    total = recipe.epochs * steps_per_epoch
    warmup = schedule.warmup_iterations
    if schedule.warmup_epochs is not None:
        warmup = round(schedule.warmup_epochs * steps_per_epoch)
    warmup = min(warmup, round(schedule.warmup_fraction * total))
    return Schedule(
        warmup=schedule.warmup,
        warmup_steps=warmup,
        warmup_start=schedule.warmup_start,
        cosine_start=max(warmup, round(schedule.flat * total)),
        cosine_end=total - (recipe.closing_epochs * steps_per_epoch if schedule.hold_closing else 0),
        final_factor=schedule.final_factor,
    )
