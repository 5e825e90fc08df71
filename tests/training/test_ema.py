"""The average against its formula, tensor by tensor."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ymir_tmi.config.recipe import EmaRecipe
from ymir_tmi.training.ema import ModelEma


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.again = self.conv


def disturb(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.add_(torch.randn_like(tensor))
            else:
                tensor.add_(1)


def test_every_update_follows_the_formula() -> None:
    torch.manual_seed(0)
    model = Small().double()
    ema = ModelEma(model, EmaRecipe(momentum=0.01, ramp=5))
    expected: dict[str, torch.Tensor] = {}
    for update in range(12):
        disturb(model)
        ema.update(model)
        momentum = (1 - 0.01) * math.exp(-(update + 1) / 5) + 0.01
        for name, tensor in model.state_dict().items():
            if update == 0 or not tensor.is_floating_point():
                expected[name] = tensor.clone()
            else:
                expected[name] = (1 - momentum) * expected[name] + momentum * tensor
    for name, tensor in ema.model.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], msg=name)
    assert ema.updates == 12


@pytest.mark.parametrize(("update", "momentum"), [(0, 1.0), (2000, 0.367949), (100_000, 0.0002)])
def test_momentum_falls_from_copying_to_the_recipes_own(update: int, momentum: float) -> None:
    ema = ModelEma(nn.Linear(1, 1), EmaRecipe(momentum=0.0002, ramp=2000))
    ema.updates = update
    assert ema.momentum() == pytest.approx(momentum, rel=1e-3)


def test_disabled_average_is_the_model_itself() -> None:
    model = Small()
    ema = ModelEma(model, EmaRecipe(enabled=False))
    for _ in range(3):
        disturb(model)
        ema.update(model)
    for name, tensor in ema.model.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_goes_on_exactly_from_its_state() -> None:
    torch.manual_seed(0)
    model = Small()
    ema = ModelEma(model, EmaRecipe(momentum=0.01, ramp=5))
    for _ in range(3):
        disturb(model)
        ema.update(model)
    resumed = ModelEma(Small(), EmaRecipe(momentum=0.01, ramp=5))
    resumed.load_state_dict(copy.deepcopy(ema.state_dict()))
    for _ in range(3):
        disturb(model)
        ema.update(model)
        resumed.update(model)
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, ema.model.state_dict()[name]), name


def test_average_is_for_evaluation_only() -> None:
    ema = ModelEma(Small().train(), EmaRecipe())
    assert not ema.model.training
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())
