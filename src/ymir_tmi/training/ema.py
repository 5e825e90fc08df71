"""The exponential moving average of the weights: what is validated and saved."""

from __future__ import annotations

import copy
import math
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ymir_tmi.config.recipe import EmaRecipe

Model = TypeVar("Model", bound=nn.Module)


class ModelEma(Generic[Model]):
    """An average of a model's weights over its updates (docs/specs/detectors.md, section 13).

    Update t (from 0) gives `average + m_t * (weight - average)` with `m_t = (1 - m) * exp(-(t + 1) / ramp) + m`; update
    0 copies. Floating-point buffers, such as the statistics of batch norms, are averaged as well; others are copied.

    Attributes:
        model: the averaged copy, in evaluation mode and without gradients.
        updates: how often it was updated.
    """

    def __init__(self, model: Model, recipe: EmaRecipe) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.updates = 0
        self._recipe = recipe
        self._source: nn.Module | None = None
        self._pairs: dict[bool, tuple[list[Tensor], list[Tensor]]] = {}

    def momentum(self) -> float:
        """Return the part of the new weights in the next update; without averaging, all of it."""
        if self.updates == 0 or not self._recipe.enabled:
            return 1.0
        floor = self._recipe.momentum
        return (1 - floor) * math.exp(-(self.updates + 1) / self._recipe.ramp) + floor

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of `model`, which has the same parameters and buffers on the same device."""
        if self._source is not model:  # walking through the modules takes longer than the arithmetic
            self._source = model
            self._pairs = {floating: _paired_tensors(self.model, model, floating) for floating in (True, False)}
        torch._foreach_lerp_(*self._pairs[True], self.momentum())
        averages, weights = self._pairs[False]
        if averages:
            torch._foreach_copy_(averages, weights)
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs."""
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Invert `state_dict`."""
        self.updates = state["updates"]
        self.model.load_state_dict(state["model"])


def _paired_tensors(average: nn.Module, model: nn.Module, floating: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return the tensors of both models in one order; a shared one comes once, else it would be averaged twice."""
    weights = _tensors(model)
    chosen = {name: tensor for name, tensor in _tensors(average).items() if tensor.is_floating_point() == floating}
    return list(chosen.values()), [weights[name] for name in chosen]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
