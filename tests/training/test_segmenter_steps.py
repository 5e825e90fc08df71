"""Lightning trains networks that give pixels a class as it trains detectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from training_fakes import FakeLoader, Training

from ymir_tmi.data.batch import Targets, TrainingBatch
from ymir_tmi.models.catalog import create_model
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.module import NetworkModule
from ymir_tmi.training.recipes import fit_recipe, recipe_of


class PixelLoader(FakeLoader):
    """Two pictures of which the upper half is bright and of class 1, the lower one dark and of class 0."""

    def __iter__(self) -> Iterator[TrainingBatch]:
        for _ in range(self.steps):
            images = torch.randint(0, 60, (2, 3, 64, 64), dtype=torch.uint8)
            images[:, :, :32] += 190
            labels = torch.zeros(2, 64, 64, dtype=torch.uint8)
            labels[:, :32] = 1
            nothing = [torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2
            yield TrainingBatch(images, Targets(*nothing, label_maps=labels), (0, 1))


def test_a_segmenter_learns(tmp_path: Path) -> None:
    recipe = fit_recipe(
        recipe_of("fast_scnn", "fast_scnn"),
        ["epochs=4", "batch=2", "optimizer.name=adamw", "optimizer.lr=0.05"],
        images=12,
    )
    training = Training(tmp_path, recipe)
    network = create_model("fast_scnn", num_classes=2).train()
    training.module = NetworkModule(network, recipe, PixelLoader(steps=6, batch=2), total_batch=2, seed=0)
    training.ema = ModelEma(network, recipe.ema)
    training.run()
    losses = [row["loss"] for row in training.history.rows]
    assert len(losses) == 4 and losses[-1] < 0.7 * losses[0]
    assert {"loss_seg", "loss_aux_0", "loss_aux_1"} < training.history.rows[0].keys()
    average, last = training.ema.model.state_dict(), network.state_dict()
    assert all(torch.equal(average[name], value) for name, value in last.items()), "the recipe averages nothing"
