"""What a training of masks or label maps is compared by, and what its sample pictures show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ymir_tmi.data.batch import Targets, TrainingBatch
from ymir_tmi.data.palette import class_colours
from ymir_tmi.training.callbacks import StopEarly
from ymir_tmi.training.history import History
from ymir_tmi.training.views import draw_batch

CLASSES = ("road", "sky")
GREY = 90


def batch(**targets: Any) -> TrainingBatch:
    images = torch.full((1, 3, 64, 96), GREY, dtype=torch.uint8)
    return TrainingBatch(images, Targets(**targets), (0,))


def test_sample_pictures_show_masks() -> None:
    masks = torch.zeros(1, 16, 24, dtype=torch.int64)
    masks[0, 2:10, 3:12], masks[0, 8:14, 10:20] = 1, 2
    boxes = [torch.tensor([[12.0, 8.0, 48.0, 40.0], [40.0, 32.0, 80.0, 56.0]])]
    (drawn,) = draw_batch(batch(boxes=boxes, labels=[torch.tensor([0, 1])], masks=masks), CLASSES)
    first, second, outside = drawn[25, 25], drawn[50, 60], drawn[60, 90]
    assert (outside == GREY).all() and (first != GREY).any() and (second != first).any()
    assert (drawn[36, 44] == second).all()  # the later one lies on top


def test_sample_pictures_show_label_maps() -> None:
    label_maps = torch.full((1, 64, 96), 255, dtype=torch.uint8)
    label_maps[0, 40:, :50] = 1
    (drawn,) = draw_batch(batch(boxes=[torch.zeros(0, 4)], labels=[torch.zeros(0)], label_maps=label_maps), CLASSES)
    tinted = np.rint(GREY * 0.55 + class_colours(2)[1] * 0.45)
    assert (drawn[40:, :50] == tinted).all() and (drawn[40:, 50:] == GREY).all()


@pytest.mark.parametrize("goal", ["AP", "mIoU"])
def test_the_goal_picks_the_best_epoch_and_ends_the_run(goal: str) -> None:
    history = History(goal)
    stop = StopEarly(history, patience=2)
    trainer: Any = SimpleNamespace(should_stop=False)
    module: Any = None
    assert history.best() is None
    for epoch, value in enumerate([0.2, 0.5, 0.4, 0.3], 1):
        other = {"AP_box": 1 - value, "AP" if goal == "mIoU" else "mIoU": float(epoch)}
        history.rows.append({"epoch": epoch, goal: value, **other})
        stop.on_train_epoch_end(trainer, module)
        assert trainer.should_stop == (epoch == 4)
    best = history.best()
    assert best is not None and best["epoch"] == 2
