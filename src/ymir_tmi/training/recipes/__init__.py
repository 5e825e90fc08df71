"""How each family is trained, and how a recipe is fitted to a run."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence

from ymir_tmi.config.load import override
from ymir_tmi.config.recipe import Recipe

_RECIPES = {
    "rtmdet": "ymir_tmi.training.recipes.rtmdet:rtmdet_recipe",
    "yolox": "ymir_tmi.training.recipes.yolox:yolox_recipe",
}


def recipe_of(family: str, variant: str) -> Recipe:
    """Return the full-length recipe of a model, as its authors trained it on COCO."""
    module, name = _RECIPES[family].split(":")
    build: Callable[[str], Recipe] = getattr(importlib.import_module(module), name)
    return build(variant)


def fit_recipe(recipe: Recipe, assignments: Sequence[str]) -> Recipe:
    """Return the recipe with `field=value` assignments carried out.

    A run with fewer epochs than the recipe's own has a proportionally shorter warm-up, and closing epochs for at most a
    quarter of it, unless they are assigned as well.

    Raises:
        ConfigError: an assignment names an unknown field, or its value is not allowed.
    """
    epochs = override(recipe, assignments).epochs
    return override(shorten(recipe, epochs), assignments)


def shorten(recipe: Recipe, epochs: int) -> Recipe:
    """Return the recipe for fewer epochs.

    Closing epochs keep their number up to a quarter of the run: a network that has seen few steps has more to gain from
    pictures as they are than from more of the strong augmentation.
    """
    if epochs >= recipe.epochs:
        return recipe.model_copy(update={"epochs": epochs})
    part = epochs / recipe.epochs
    schedule = recipe.schedule
    if schedule.warmup_epochs is not None:
        schedule = schedule.model_copy(update={"warmup_epochs": schedule.warmup_epochs * part})
    closing = min(recipe.closing_epochs, math.ceil(epochs / 4), epochs // 2)
    return recipe.model_copy(update={"epochs": epochs, "closing_epochs": closing, "schedule": schedule})
