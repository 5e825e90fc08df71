"""Parameter groups and the learning rate of the optimiser."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from ymir_tmi.config.recipe import OptimizerRecipe
from ymir_tmi.training.distributed import SharedBatchNorm2d
from ymir_tmi.training.optim import build_optimizer, parameter_groups, scaled_decay, scaled_lr, steps_per_update


class Scales(nn.Module):
    """Stands for a RepVGG block (a number) and an implicit tensor of YOLOv7 (four dimensions)."""

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.implicit = nn.Parameter(torch.ones(1, 4, 1, 1))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.shared_norm = SharedBatchNorm2d(nn.BatchNorm2d(4))
        self.layer_norm = nn.LayerNorm((4, 2))  # its weight has two dimensions
        self.scales = Scales()
        self.again = self.conv  # shared, as RTMDet's head shares its convolutions
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


@pytest.mark.parametrize("decay_biases", [False, True])
def test_only_weights_and_chosen_biases_are_decayed(decay_biases: bool) -> None:
    model = Small()
    norms = (model.norm, model.shared_norm, model.layer_norm)
    expected = {
        model.conv.weight: (0.05, False),
        model.conv.bias: (0.05 if decay_biases else 0.0, True),
        model.scales.alpha: (0.0, False),
        model.scales.implicit: (0.0, False),
        **{norm.weight: (0.0, False) for norm in norms},
        **{norm.bias: (0.0, True) for norm in norms},
    }
    groups = parameter_groups(model, 0.05, decay_biases=decay_biases)
    assert groups[0]["params"] == [model.conv.weight]
    found = [(p, (group["weight_decay"], group["biases"])) for group in groups for p in group["params"]]
    assert len(found) == len(expected)  # each once
    assert dict(found) == expected


@pytest.mark.parametrize(
    ("scaling", "batch", "lr"),
    [
        ("linear", 256, 0.004),
        ("linear", 16, 0.00025),
        ("sqrt", 16, 0.001),
        ("none", 16, 0.004),
    ],
)
def test_learning_rate_follows_the_batch(scaling: str, batch: int, lr: float) -> None:
    recipe = OptimizerRecipe.model_validate({"lr": 0.004, "base_batch": 256, "lr_scaling": scaling})
    assert scaled_lr(recipe, batch) == pytest.approx(lr)


PUBLISHED = json.loads((Path(__file__).parents[1] / "goldens" / "training" / "published.json").read_text())


@pytest.mark.parametrize(("batch", "decay"), PUBLISHED["yolov5"]["weight_decay_scaling"].items())
def test_decay_follows_the_images_of_an_update(batch: str, decay: float) -> None:
    recipe = OptimizerRecipe(base_batch=64, accumulate="auto", weight_decay=0.0005, decay_scaling="linear")
    images = int(batch) * steps_per_update(recipe, int(batch))
    assert scaled_decay(recipe, images) == pytest.approx(decay, rel=1e-12)


@pytest.mark.parametrize(("batch", "steps"), [(1, 64), (16, 4), (24, 3), (40, 2), (64, 1), (100, 1), (256, 1)])
def test_as_many_steps_are_joined_as_come_nearest(batch: int, steps: int) -> None:
    assert steps_per_update(OptimizerRecipe(base_batch=64, accumulate="auto"), batch) == steps
    assert steps_per_update(OptimizerRecipe(base_batch=64, accumulate=3), batch) == 3


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_update_is_that_of_the_plain_formula(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    recipe = OptimizerRecipe.model_validate(
        {"name": name, "lr": 0.1, "base_batch": 8, "weight_decay": 0.01, "momentum": 0.9, "nesterov": True}
    )
    optimizer = build_optimizer(model, recipe, 8)
    weight = model.weight.detach().clone()
    first = second = torch.zeros_like(weight)
    for step in (1, 2, 3):
        gradient = torch.randn_like(weight)
        model.weight.grad = gradient
        optimizer.step()
        if name == "sgd":
            gradient = gradient + 0.01 * weight
            first = gradient if step == 1 else 0.9 * first + gradient
            weight = weight - 0.1 * (gradient + 0.9 * first)
        else:
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            ratio = (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            weight = weight - 0.1 * 0.01 * weight - 0.1 * ratio
    torch.testing.assert_close(model.weight.detach(), weight)
