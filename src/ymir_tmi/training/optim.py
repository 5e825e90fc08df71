"""The optimiser: its parameter groups and its learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from ymir_tmi.config.recipe import OptimizerRecipe

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(model: nn.Module, recipe: OptimizerRecipe, total_batch: int) -> Optimizer:
    """Return the optimiser of `model`.

    Args:
        model: its parameters are all optimised, but those that need no gradient.
        recipe: kind of optimiser and its numbers.
        total_batch: images that one update sees, over all devices and accumulated steps.
    """
    groups = parameter_groups(
        model,
        scaled_decay(recipe, total_batch),
        decay_biases=recipe.decay_biases,
        decay_norms=recipe.decay_norms,
    )
    lr = scaled_lr(recipe, total_batch)
    # In fp16 a fused step undoes the scale of the gradients itself, which is too late to clip them.
    fused = recipe.clip_norm is None
    if recipe.name == "adamw":
        return AdamW(groups, lr=lr, fused=fused, foreach=not fused)
    return SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.nesterov, fused=fused, foreach=not fused)


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_biases: bool = False, decay_norms: bool = False
) -> list[dict[str, object]]:
    """Split the parameters that need a gradient into groups; one that several layers share counts once.

    Weights are what is called `weight` and does not belong to a norm; biases what is called `bias`, those of norms
    included; norms have a decay of their own choice. All else is never decayed: scales such as those of RepVGG blocks,
    the implicit tensors of YOLOv7.

    Returns:
        Groups with `params`, `weight_decay`, and whether they are `biases`; weights come first.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {
        (decayed, is_bias): [] for is_bias in (False, True) for decayed in (True, False)
    }
    for kind, name, parameter in _parameters(model):
        is_bias = name == "bias"
        if issubclass(kind, _NORMS):
            decayed = decay_norms
        else:
            decayed = decay_biases if is_bias else name == "weight"
        groups[decayed, is_bias].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decayed else 0.0, "biases": is_bias}
        for (decayed, is_bias), parameters in groups.items()
        if parameters
    ]


def steps_per_update(recipe: OptimizerRecipe, batch: int) -> int:
    """Return how many steps of `batch` images, over all devices, make one update."""
    if recipe.accumulate == "auto":
        return max(1, round(recipe.base_batch / batch))
    return recipe.accumulate


def scaled_lr(recipe: OptimizerRecipe, total_batch: int) -> float:
    """Return the learning rate for updates that see `total_batch` images."""
    ratio = total_batch / recipe.base_batch
    return recipe.lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[recipe.lr_scaling]


def scaled_decay(recipe: OptimizerRecipe, total_batch: int) -> float:
    """Return the weight decay for updates that see `total_batch` images."""
    return recipe.weight_decay * (total_batch / recipe.base_batch if recipe.decay_scaling == "linear" else 1.0)


def _parameters(model: nn.Module) -> Iterator[tuple[type[nn.Module], str, nn.Parameter]]:
    """Yield (kind of its layer, its name there, the parameter) of each that needs a gradient."""
    seen = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                yield type(module), name, parameter
