"""Parameter groups and the learning rate of the optimiser."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ymir_tmi.config.recipe import OptimizerRecipe
from ymir_tmi.training.optim import build_optimizer, parameter_groups, scaled_lr


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.again = self.conv  # shared, as RTMDet's head shares its convolutions
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_only_weights_are_decayed_and_each_parameter_comes_once() -> None:
    model = Small()
    decayed, plain = parameter_groups(model, 0.05)
    assert [id(p) for p in decayed["params"]] == [id(model.conv.weight)]
    assert {id(p) for p in plain["params"]} == {id(p) for p in (model.conv.bias, model.norm.weight, model.norm.bias)}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.05, 0.0)


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
