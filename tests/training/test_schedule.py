"""The learning rate against the published values, and against a slow curve drawn point by point."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from ymir_tmi.config.load import override
from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.optim import build_optimizer
from ymir_tmi.training.recipes import fit_recipe, recipe_of
from ymir_tmi.training.schedule import ScheduledRates, plan_schedule

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
    warmup = max(schedule.warmup_iterations, round(schedule.warmup_epochs * steps_per_epoch))
    warmup = min(warmup, round(total * schedule.warmup_fraction))
    flat_until = max(warmup, round(schedule.flat * total))
    end = round(schedule.horizon * total) - recipe.closing_epochs * steps_per_epoch * schedule.hold_closing
    rise = np.linspace(0, 1, warmup + 1)[:warmup] ** (2 if schedule.warmup == "quadratic" else 1)
    straight = np.linspace(1, 0, max(0, end - flat_until) + 1)[:-1]
    fall = (1 - np.cos(np.pi * straight)) / 2 if schedule.curve == "cosine" else straight
    parts = [
        schedule.warmup_start + (1 - schedule.warmup_start) * rise,
        np.ones(flat_until - warmup),
        schedule.final_factor + (1 - schedule.final_factor) * fall,
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
        ("rtmdet", ["schedule.horizon=1.2", "schedule.final_factor=0"], 7),  # is over before it has fallen
        ("rtmdet", ["schedule.curve=linear"], 7),
        ("rtmdet", ["epochs=20", "schedule.warmup_epochs=1.5", "schedule.warmup_iterations=8"], 7),  # 10 or 11 steps
        ("rtmdet", ["epochs=20", "schedule.warmup_epochs=1.5", "schedule.warmup_iterations=12"], 7),
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


@pytest.mark.parametrize("curve", ["linear", "cosine"])
def test_a_rate_by_epochs_stays_within_each_and_the_warm_up_rises_to_it(curve: str) -> None:
    changes = ["epochs=20", f"schedule.curve={curve}", "schedule.by_epoch=true", "schedule.final_factor=0.1"]
    recipe = override(Recipe(), [*changes, "schedule.warmup_epochs=2", "schedule.warmup_iterations=0"])
    schedule = plan_schedule(recipe, 7)
    for epoch in range(20):
        part = epoch / 20
        fall = part if curve == "linear" else (1 - math.cos(math.pi * part)) / 2
        for step in range(7 * epoch, 7 * epoch + 7):
            assert schedule.factor(step) == pytest.approx((1 - fall * 0.9) * min(1, step / 14))


def test_steps_multiply_one_after_the_other() -> None:
    changes = ["epochs=9", "schedule.curve=steps", "schedule.warmup_iterations=4", "schedule.warmup_start=0.2"]
    recipe = override(Recipe(), [*changes, "schedule.steps=[0.5, 0.75]", "schedule.step_factor=0.1"])
    schedule = plan_schedule(recipe, 8)
    expected = [0.2, 0.4, 0.6, 0.8, *[1.0] * 32, *[0.1] * 18, *[0.01] * 18]
    assert [schedule.factor(step) for step in range(72)] == pytest.approx(expected)


def test_a_run_of_iterations_ends_its_curve_with_them() -> None:
    recipe = override(Recipe(), ["iterations=20", "epochs=9", "schedule.final_factor=0", "schedule.curve=linear"])
    schedule = plan_schedule(recipe, 7)
    assert [schedule.factor(step) for step in (0, 1, 2, 11, 20)] == [0, 0.5, 1, 0.5, 0]


def test_biases_and_momentum_have_a_warm_up_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    warmup = ["schedule.warmup_iterations=4", "schedule.warmup_bias_lr=0.1", "schedule.warmup_momentum=0.5"]
    plain = ["epochs=10", "schedule.flat=1", "optimizer.name=sgd", "optimizer.lr=0.02", "optimizer.lr_scaling=none"]
    recipe = override(Recipe(), [*warmup, *plain])
    optimizer = build_optimizer(model, recipe.optimizer, 1)
    rates = ScheduledRates(optimizer, recipe, plan_schedule(recipe, 10))
    seen = []
    for _ in range(6):
        biased = {group["biases"]: (group["lr"], group["momentum"]) for group in optimizer.param_groups}
        seen.append((biased[False][0], biased[True][0], biased[False][1], biased[True][1]))
        optimizer.step()
        rates.step()
    expected = [(0.005 * step, 0.1 - 0.02 * step, 0.5 + 0.1 * step, 0.5 + 0.1 * step) for step in range(5)]
    assert [value for row in seen for value in row] == pytest.approx(np.ravel([*expected, expected[-1]]).tolist())


def test_adamw_keeps_its_momentum() -> None:
    recipe = override(Recipe(), ["schedule.warmup_momentum=0.5", "optimizer.momentum=0.8"])
    optimizer = build_optimizer(nn.Linear(2, 2), recipe.optimizer, 1)
    ScheduledRates(optimizer, recipe, plan_schedule(recipe, 10))
    assert all("momentum" not in group and group["betas"] == (0.9, 0.999) for group in optimizer.param_groups)


def test_what_a_checkpoint_holds_of_the_rates_is_plain() -> None:
    model, recipe = nn.Linear(2, 2), Recipe()
    rates = ScheduledRates(build_optimizer(model, recipe.optimizer, 1), recipe, plan_schedule(recipe, 10))
    stored = io.BytesIO()
    torch.save(rates.state_dict(), stored)
    stored.seek(0)
    assert torch.load(stored, weights_only=True)["last_epoch"] == 0


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
