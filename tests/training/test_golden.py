"""Twenty steps from a fixed seed give the losses that are written down: a refactoring must not move them.

The run is computed in float64: in float32 the order of a sum, which differs between machines and numbers of threads,
changes the last digit of the first loss and, by way of what is assigned to what, the second digit of the twentieth.
After a change that is meant to move them: `python tests/training/test_golden.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fakes import fake_batch

from ymir_tmi.data.batch import Targets, TrainingBatch
from ymir_tmi.models.catalog import create_model
from ymir_tmi.training.ema import ModelEma
from ymir_tmi.training.module import NetworkModule
from ymir_tmi.training.recipes import fit_recipe, recipe_of

FOLDER = Path(__file__).parents[1] / "goldens" / "training"
STEPS = 20
NAMES = ["rtmdet_tiny", "yolox_tiny", "yolov5_n", "yolov6_n", "yolov7_tiny", "yolov8_n", "ppyoloe_plus_s"]


class SomeBatches:
    """Stands for a loader of `STEPS` batches an epoch."""

    def __len__(self) -> int:
        return STEPS


def golden_batch(step: int) -> TrainingBatch:
    """Return four pictures of noise, 64 x 64 pixels, with up to two objects each."""
    batch = fake_batch(seed=step)
    images = torch.nn.functional.interpolate(batch.images, (64, 64))
    boxes = [2 * boxes.double() + torch.arange(len(boxes)).view(-1, 1) * 8 for boxes in batch.targets.boxes]
    return TrainingBatch(images, Targets(boxes, batch.targets.labels), batch.image_positions)


def losses_of(name: str) -> dict[str, Any]:
    """Train for `STEPS` steps by the recipe and return the loss terms of each, and the size of the averaged weights."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=2).double()
    recipe = recipe_of(name.split("_")[0], name)
    # With the recipe's own learning rate a difference in the last digit grows tenfold with every step.
    recipe = fit_recipe(recipe, ["epochs=2", "closing_epochs=0", f"optimizer.lr={recipe.optimizer.lr / 100}"])
    module = NetworkModule(model, recipe, SomeBatches(), total_batch=4, seed=0)
    ema = ModelEma(model, recipe.ema)
    configured: Any = module.configure_optimizers()
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    rows = []
    for step in range(STEPS):
        output = module.training_step(golden_batch(step), step)
        optimizer.zero_grad()
        output["loss"].backward()
        optimizer.step()
        schedule.step()
        ema.update(model)
        rows.append({term: value.item() for term, value in output["terms"].items()})
    norm = torch.stack([tensor.norm() for tensor in ema.model.parameters()]).norm().item()
    return {"losses": rows, "average_norm": norm}


@pytest.mark.parametrize("name", [*NAMES[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[2:])])
def test_twenty_steps_give_the_losses_written_down(name: str) -> None:
    expected = json.loads((FOLDER / f"{name}.json").read_text())
    found = losses_of(name)
    assert found["average_norm"] == pytest.approx(expected["average_norm"], rel=1e-6)
    for step, (now, before) in enumerate(zip(found["losses"], expected["losses"], strict=True)):
        assert now == pytest.approx(before, rel=1e-6), f"step {step}"


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for model_name in NAMES:
        (FOLDER / f"{model_name}.json").write_text(json.dumps(losses_of(model_name), indent=1) + "\n")
