"""The optimiser: its parameter groups and its learning rate."""

from __future__ import annotations

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ymir_tmi.config.recipe import OptimizerRecipe


def build_optimizer(model: nn.Module, recipe: OptimizerRecipe, total_batch: int) -> Optimizer:
    """Return the optimiser of `model`.

    Args:
        model: its parameters are all optimised; those with two or more dimensions are decayed.
        recipe: kind of optimiser and its numbers.
        total_batch: images that one update sees, over all devices and accumulated steps.
    """
    groups = parameter_groups(model, recipe.weight_decay)
    lr = scaled_lr(recipe, total_batch)
    # In fp16 a fused step undoes the scale of the gradients itself, which is too late to clip them.
    fused = recipe.clip_norm is None
    if recipe.name == "adamw":
        return AdamW(groups, lr=lr, fused=fused, foreach=not fused)
    return SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused, foreach=not fused)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Split the parameters in two groups: weights, which are decayed, and norms and biases, which are not.

    Norms and biases are the parameters with at most one dimension. A parameter that several layers share counts once.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def scaled_lr(recipe: OptimizerRecipe, total_batch: int) -> float:
    """Return the learning rate for updates that see `total_batch` images."""
    ratio = total_batch / recipe.base_batch
    return recipe.lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[recipe.lr_scaling]
