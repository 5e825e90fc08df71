"""How often a training validates, where that is said in updates."""

from __future__ import annotations

import pytest

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.plan import fit_to_data, plan_run
from ymir_tmi.training.recipes import epochs_per_pass, updates_per_epoch

ALONE = Processes(0, 1, 1, ())


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "val_interval", "expected"),
    [
        (200, 2, 1, None, 20),  # 100 updates an epoch
        (230, 2, 1, None, 17),  # 115
        (200, 2, 4, None, 80),  # 25
        (20_000, 2, 1, None, 1),  # a pass is five epochs
        (200, 2, 1, 3, 3),  # what is said in epochs wins
    ],
)
def test_interval_in_updates_is_rounded_to_epochs(
    images: int, batch: int, accumulate: int, val_interval: int | None, expected: int
) -> None:
    changes = ["iterations=20000", "val_iterations=2000", f"optimizer.accumulate={accumulate}"]
    settings = TrainSettings(model="fast_scnn", device="cpu", batch=batch, val_interval=val_interval, set=changes)
    assert fit_to_data(plan_run(settings, ALONE), images).settings.val_interval == expected


@pytest.mark.parametrize(
    ("images", "length", "accumulate", "parts", "updates", "epochs"),
    [
        (200, "iterations=20000", 1, 1, 100, 200),
        (4_000, "iterations=20000", 1, 1, 2000, 10),
        (7_000, "iterations=20000", 1, 2, 1750, 12),
        (20_001, "iterations=20000", 1, 5, 2000, 10),
        (20_000, "iterations=20000", 4, 1, 2500, 8),
        (80_000, "iterations=20000", 4, 5, 2000, 10),
        (20_000, "epochs=3", 1, 1, 10_000, 3),
    ],
)
def test_a_long_pass_is_several_epochs(
    images: int, length: str, accumulate: int, parts: int, updates: int, epochs: int
) -> None:
    changes = [length, "val_iterations=2000", f"optimizer.accumulate={accumulate}"]
    settings = TrainSettings(model="fast_scnn", device="cpu", batch=2, set=changes)
    recipe = fit_to_data(plan_run(settings, ALONE), images).recipe
    assert (epochs_per_pass(recipe, images), updates_per_epoch(recipe, images)) == (parts, updates)
    assert recipe.epochs == epochs


def test_no_epoch_is_empty() -> None:
    settings = TrainSettings(model="fast_scnn", device="cpu", batch=4, set=["iterations=3", "val_iterations=1"])
    for images in range(1, 40):
        recipe = fit_to_data(plan_run(settings, ALONE), images).recipe
        assert updates_per_epoch(recipe, images) >= 1 and recipe.epochs <= 3
