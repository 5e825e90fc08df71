"""How often a training validates, where that is said in updates."""

from __future__ import annotations

import pytest

from ymir_tmi.config.schema import TrainSettings
from ymir_tmi.training.distributed import Processes
from ymir_tmi.training.plan import fit_to_data, plan_run

ALONE = Processes(0, 1, 1, ())


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "val_interval", "expected"),
    [
        (200, 2, 1, None, 20),  # 100 updates an epoch
        (230, 2, 1, None, 17),  # 115
        (200, 2, 4, None, 80),  # 25
        (20_000, 2, 1, None, 1),  # an epoch is longer than that
        (200, 2, 1, 3, 3),  # what is said in epochs wins
    ],
)
def test_interval_in_updates_is_rounded_to_epochs(
    images: int, batch: int, accumulate: int, val_interval: int | None, expected: int
) -> None:
    changes = ["iterations=20000", "val_iterations=2000", f"optimizer.accumulate={accumulate}"]
    settings = TrainSettings(model="fast_scnn", device="cpu", batch=batch, val_interval=val_interval, set=changes)
    assert fit_to_data(plan_run(settings, ALONE), images).settings.val_interval == expected
