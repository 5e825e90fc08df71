"""The learning rate and the momentum over a run: a warm-up, then a curve that falls.

    factor
      1 |      ____________
        |     /            \\
        |    /              \\
        |   /                '--.________  final_factor
        +--+-+-------------+-------------+--> step
          warm-up    curve_start     curve_end

docs/specs/detectors.md (section 13), yolov5.md (section 10), retinanet.md and segmentation.md hold the values of each
family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from ymir_tmi.config.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """Where the parts of the learning-rate curve begin and end, in optimiser steps from 0.

    Attributes:
        warmup: shape of the rise over the first `warmup_steps` steps, from `warmup_start` to the curve.
        curve: how the factor falls from 1, which it is up to `curve_start`: to `final_factor` at `curve_end`, or for
            `steps` by `step_factor` at each of `milestones`.
        power: exponent of the part of the curve that is left, for `poly`.
        stride: steps over which the curve keeps its value.
    """

    warmup: Literal["linear", "quadratic"]
    warmup_steps: int
    warmup_start: float
    curve: Literal["cosine", "linear", "poly", "steps"]
    curve_start: int
    curve_end: int
    final_factor: float
    milestones: tuple[int, ...] = ()
    step_factor: float = 1.0
    power: float = 1.0
    stride: int = 1

    def factor(self, step: int, *, start: float | None = None) -> float:
        """Return what the base learning rate is multiplied with at optimiser step `step` (from 0).

        Args:
            step: optimiser step.
            start: factor at step 0, in place of `warmup_start`.
        """
        return self.warm_up(step, self.warmup_start if start is None else start, self._fall(step))

    def warm_up(self, step: int, start: float, end: float) -> float:
        """Return a value that is `start` at step 0 and comes to `end` as the learning rate does to its curve."""
        if step >= self.warmup_steps:
            return end
        rise = step / self.warmup_steps
        return start + (end - start) * (rise * rise if self.warmup == "quadratic" else rise)

    def _fall(self, step: int) -> float:
        step = step // self.stride * self.stride
        if self.curve == "steps":
            return float(self.step_factor ** sum(step >= milestone for milestone in self.milestones))
        if step <= self.curve_start:
            return 1.0
        if step >= self.curve_end:
            return self.final_factor
        progress = (step - self.curve_start) / (self.curve_end - self.curve_start)
        if self.curve == "cosine":
            left = (1 + math.cos(math.pi * progress)) / 2
        else:
            left = (1 - progress) ** (self.power if self.curve == "poly" else 1)
        return self.final_factor + (1 - self.final_factor) * left


def plan_schedule(recipe: Recipe, steps_per_epoch: int) -> Schedule:
    """Lay the recipe's curve over a run of `recipe.iterations` optimiser steps or, without these, of its epochs.

    The flat part is a fraction of the run. The warm-up takes at most `warmup_fraction` of it, so that a short run is
    not spent on it; a curve that changes by epochs falls beneath the warm-up, the others wait for its end.
    """
    schedule = recipe.schedule
    total = recipe.iterations or recipe.epochs * steps_per_epoch
    warmup = max(schedule.warmup_iterations, round(schedule.warmup_epochs * steps_per_epoch))
    warmup = min(warmup, round(schedule.warmup_fraction * total))
    flat = round(schedule.flat * total)
    closing = recipe.closing_epochs * steps_per_epoch if schedule.hold_closing else 0
    return Schedule(
        warmup=schedule.warmup,
        warmup_steps=warmup,
        warmup_start=schedule.warmup_start,
        curve=schedule.curve,
        curve_start=flat if schedule.by_epoch else max(warmup, flat),
        curve_end=round(schedule.horizon * total) - closing,
        final_factor=schedule.final_factor,
        milestones=tuple(round(part * total) for part in schedule.steps),
        step_factor=schedule.step_factor,
        power=schedule.power,
        stride=steps_per_epoch if schedule.by_epoch else 1,
    )


class ScheduledRates(LambdaLR):
    """Gives every parameter group of an optimiser its learning rate, and SGD its momentum, step by step.

    Args:
        optimizer: of `training.optim.build_optimizer`; its groups have their base rates.
        recipe: what the biases' rate and the momentum start from.
        schedule: the recipe's, laid over the run.
    """

    def __init__(self, optimizer: Optimizer, recipe: Recipe, schedule: Schedule) -> None:
        self._plan = recipe, schedule
        super().__init__(optimizer, [self._rate(group) for group in optimizer.param_groups])

    def step(self, epoch: int | None = None) -> None:
        """Set what holds for the next optimiser step."""
        super().step(epoch)
        recipe, schedule = self._plan
        start, end = recipe.schedule.warmup_momentum, recipe.optimizer.momentum
        if start is not None:
            for group in self.optimizer.param_groups:
                if "momentum" in group:
                    group["momentum"] = schedule.warm_up(self.last_epoch, start, end)

    def state_dict(self) -> dict[str, Any]:
        """Return where the run is; what the rates are follows from the recipe."""
        return {name: value for name, value in super().state_dict().items() if name != "_plan"}

    def _rate(self, group: dict[str, Any]) -> Callable[[int], float]:
        recipe, schedule = self._plan
        rate = recipe.schedule.warmup_bias_lr
        start = rate / group["lr"] if group["biases"] and rate is not None else None
        if recipe.schedule.final_lr is not None:
            schedule = replace(schedule, final_factor=min(1.0, recipe.schedule.final_lr / group["lr"]))
        return lambda step: schedule.factor(step, start=start)
