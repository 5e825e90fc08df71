"""What options come to, in a form that is easy to compare, and proof that settings and recipe take it."""

from __future__ import annotations

from typing import Any

import yaml

from ymir_tmi.config.load import build
from ymir_tmi.config.recipe import Recipe
from ymir_tmi.config.schema import InferSettings, MineSettings, Settings, TrainSettings
from ymir_tmi.models.catalog import default_spec
from ymir_tmi.training.recipes import fit_recipe, recipe_of

_REQUIRED: dict[type[Settings], dict[str, Any]] = {
    TrainSettings: {},
    InferSettings: {"model": "model.safetensors", "data": "pictures"},
    MineSettings: {"data": "pictures"},
}


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return one mapping, with the changes of the recipe as `recipe.NAME`."""
    changes = (text.partition("=") for text in values.get("set", []))
    recipe = {f"recipe.{name}": yaml.safe_load(value) for name, _, value in changes}
    numbers = {name: float(value) if _like_number(value) else value for name, value in recipe.items()}
    return {name: value for name, value in values.items() if name != "set"} | numbers


def take(kind: type[Settings], values: dict[str, Any], model: str) -> Recipe | None:
    """Build the settings and, of a training, the recipe of `model` with the changes."""
    settings = build(kind, {**_REQUIRED[kind], **values})
    if not isinstance(settings, TrainSettings):
        return None
    family = default_spec(model, class_names=["a"]).family
    return fit_recipe(recipe_of(family, model, settings.recipe), settings.set)


def _like_number(value: Any) -> bool:
    return isinstance(value, str) and value[:1].isdigit()  # YAML 1.1 reads 1e-05 as text
