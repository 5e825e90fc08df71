"""The learning rate against the published values, and against a slow curve drawn point by point."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ymir_tmi.config.load import override
from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.recipes import fit_recipe, recipe_of
from ymir_tmi.training.schedule import plan_schedule

COCO_STEPS = {"rtmdet": 118287 // 256, "yolox": 118287 // 64}


@pytest.mark.parametrize(
    ("family", "epoch", "step", "factor"),
    [
        # RTMDet: linear warm-up over 1000 steps from 1e-5, flat to epoch 150, cosine to 5 % at epoch 300.
        ("rtmdet", 0, 0, 1e-5),
        ("rtmdet", 0, 500, 0.500005),
        ("rtmdet", 0, 1000, 1.0),
        ("rtmdet", 150, 0, 1.0),
        ("rtmdet", 225, 0, 0.525),
        ("rtmdet", 262.5, 0, 0.05 + 0.95 * (1 - math.sqrt(0.5)) / 2),
        ("rtmdet", 300, 0, 0.05),
        # YOLOX: quadratic warm-up over 5 epochs, cosine to 5 % at epoch 285, constant from there.
        ("yolox", 0, 0, 0.0),
        ("yolox", 2.5, 0, 0.25),
        ("yolox", 5, 0, 1.0),
        ("yolox", 145, 0, 0.525),
        ("yolox", 285, 0, 0.05),
        ("yolox", 292, 0, 0.05),
    ],
)
def test_full_length_recipes_follow_the_published_curve(family: str, epoch: float, step: int, factor: float) -> None:
    steps = COCO_STEPS[family]
    schedule = plan_schedule(recipe_of(family, f"{family}_s"), steps)
    assert schedule.factor(round(epoch * steps) + step) == pytest.approx(factor, abs=2e-5)


def slow_curve(recipe: Recipe, steps_per_epoch: int) -> list[float]:
    """Draw the curve as a person would: four stretches of points, one after the other."""
    schedule, total = recipe.schedule, recipe.epochs * steps_per_epoch
    warmup = schedule.warmup_iterations
    if schedule.warmup_epochs is not None:
        warmup = round(schedule.warmup_epochs * steps_per_epoch)
    warmup = min(warmup, round(total * schedule.warmup_fraction))
    flat_until = max(warmup, round(schedule.flat * total))
    end = total - recipe.closing_epochs * steps_per_epoch * schedule.hold_closing
    rise = np.linspace(0, 1, warmup + 1)[:warmup] ** (2 if schedule.warmup == "quadratic" else 1)
    fall = np.cos(np.linspace(0, np.pi, max(0, end - flat_until) + 1))[:-1]
    parts = [
        schedule.warmup_start + (1 - schedule.warmup_start) * rise,
        np.ones(flat_until - warmup),
        schedule.final_factor + (1 - schedule.final_factor) * (fall + 1) / 2,
        np.full(total, schedule.final_factor),
    ]
    return np.concatenate(parts)[:total].tolist()


@pytest.mark.parametrize(
    ("family", "assignments", "steps"),
    [
        ("rtmdet", [], 40),
        ("rtmdet", ["epochs=40"], 17),
        ("rtmdet", ["epochs=3"], 2),
        ("rtmdet", ["epochs=1"], 1),  # a single step
        ("rtmdet", ["schedule.flat=0"], 7),
        ("rtmdet", ["schedule.flat=1"], 7),  # never falls
        ("rtmdet", ["schedule.warmup_iterations=0"], 7),
        ("yolox", [], 40),
        ("yolox", ["epochs=40"], 17),
        ("yolox", ["epochs=12", "closing_epochs=0"], 5),
        ("yolox", ["schedule.hold_closing=false"], 5),
    ],
)
def test_every_step_agrees_with_a_curve_drawn_slowly(family: str, assignments: list[str], steps: int) -> None:
    recipe = fit_recipe(recipe_of(family, f"{family}_s"), assignments)
    schedule = plan_schedule(recipe, steps)
    fast = [schedule.factor(step) for step in range(recipe.epochs * steps)]
    assert fast == pytest.approx(slow_curve(recipe, steps), abs=1e-12)


@pytest.mark.parametrize("family", ["rtmdet", "yolox"])
def test_short_run_spends_at_most_a_tenth_on_warming_up(family: str) -> None:
    recipe = fit_recipe(recipe_of(family, f"{family}_s"), ["epochs=40"])
    schedule = plan_schedule(recipe, 17)
    total = 40 * 17
    assert 0 < schedule.warmup_steps <= total / 10
    assert schedule.factor(total - 1) < 0.06
    assert max(schedule.factor(step) for step in range(total)) == 1.0


@pytest.mark.parametrize(
    ("epochs", "closing"),
    [
        (300, 20),
        (600, 20),  # a longer run keeps the recipe's own number
        (80, 20),
        (40, 10),  # a quarter of a short run
        (10, 3),
        (2, 1),
        (1, 0),  # one epoch cannot close
    ],
)
def test_closing_epochs_follow_the_length_of_the_run(epochs: int, closing: int) -> None:
    assert fit_recipe(recipe_of("rtmdet", "rtmdet_s"), [f"epochs={epochs}"]).closing_epochs == closing


def test_what_is_assigned_is_not_scaled() -> None:
    recipe = fit_recipe(recipe_of("yolox", "yolox_s"), ["epochs=30", "closing_epochs=15", "schedule.warmup_epochs=5"])
    assert (recipe.closing_epochs, recipe.schedule.warmup_epochs) == (15, 5)
    untouched = fit_recipe(recipe_of("yolox", "yolox_s"), ["epochs=30"])
    assert (untouched.closing_epochs, untouched.schedule.warmup_epochs) == (8, 0.5)


def test_last_assignment_wins() -> None:
    assert override(Recipe(), ["epochs=3", "epochs=7"]).epochs == 7
