"""How each family is trained, and how a recipe is fitted to a run."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence

from ymir_tmi.config.load import override
from ymir_tmi.config.recipe import AugmentRecipe, OptimizerRecipe, Recipe
from ymir_tmi.errors import ConfigError
from ymir_tmi.training.optim import steps_per_update

# family: the function that makes its recipes, and their names where there are several.
_RECIPES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fast_scnn": ("ymir_tmi.training.recipes.segmentation:fast_scnn_recipe", ()),
    "fcn_hrnet": ("ymir_tmi.training.recipes.segmentation:fcn_hrnet_recipe", ("40k", "80k", "160k")),
    "ppyoloe": ("ymir_tmi.training.recipes.ppyoloe:ppyoloe_recipe", ()),
    "retinanet": ("ymir_tmi.training.recipes.retinanet:retinanet_recipe", ("1x", "3x")),
    "rtmdet": ("ymir_tmi.training.recipes.rtmdet:rtmdet_recipe", ()),
    "rotated_rtmdet": ("ymir_tmi.training.recipes.rotated_rtmdet:rotated_rtmdet_recipe", ()),
    "yolov5": ("ymir_tmi.training.recipes.yolov5:yolov5_recipe", ("low", "med", "high")),
    "yolov5_seg": ("ymir_tmi.training.recipes.yolov5_seg:yolov5_seg_recipe", ("low", "med", "high")),
    "yolov6": ("ymir_tmi.training.recipes.yolov6:yolov6_recipe", ()),
    "yolov7": ("ymir_tmi.training.recipes.yolov7:yolov7_recipe", ()),
    "yolov8": ("ymir_tmi.training.recipes.yolov8:yolov8_recipe", ()),
    "yolox": ("ymir_tmi.training.recipes.yolox:yolox_recipe", ()),
}

# SGD with the rates of long runs learns slowly at first, and fewer updates than this are all beginning: YOLOX-tiny from
# scratch on 273 pictures reaches AP 0.03 with it after 9 epochs, 0.23 with AdamW, whose numbers here are RTMDet's.
_FEW_UPDATES = 10_000
_ADAMW = OptimizerRecipe(name="adamw", base_batch=256, lr_scaling="sqrt", weight_decay=0.05)
# The average spans at most 1/25 of a run and reaches that after 1/50: about the shares of RTMDet's 138,600 updates.
_AVERAGES, _RAMPS = 25, 50
_NORM_MOMENTUM = 0.1  # PyTorch's own; no network has a larger one
_OPTIMIZER_CHOICE = {"optimizer.name", "optimizer.lr"}


def recipe_of(family: str, variant: str, name: str | None = None) -> Recipe:
    """Return a full-length recipe of a model, as its authors trained it.

    They used COCO; for rotated boxes DOTA, for semantic segmentation Cityscapes.

    Args:
        family: of the model.
        variant: name of the model.
        name: which recipe, where the family has several; by default the variant's own.

    Raises:
        ConfigError: the family has no recipe of this name.
    """
    place, names = _RECIPES[family]
    if name is not None and name not in names:
        fix = f"Give {', '.join(names[:-1])} or {names[-1]}." if names else "Leave --recipe out: there is only one."
        raise ConfigError(f"{family} has no recipe '{name}'", fix=fix)
    module, function = place.split(":")
    build: Callable[..., Recipe] = getattr(importlib.import_module(module), function)
    return build(variant, name) if names else build(variant)


def fit_recipe(
    recipe: Recipe, assignments: Sequence[str], images: int | None = None, *, new_weights: bool = False
) -> Recipe:
    """Return the recipe with `field=value` assignments carried out, fitted to the length of the run that they ask for.

    What is assigned is not changed further. `optimizer.name` and `optimizer.lr` are one choice: with either of them
    assigned, the recipe's optimiser stays. Assigned `epochs` take the place of a recipe's own `iterations`.

    Args:
        recipe: full-length.
        assignments: later ones win.
        images: training images; None leaves out what depends on their number.
        new_weights: whether no part of the network is trained yet. Then nothing is frozen: there is nothing to keep.

    Raises:
        ConfigError: an assignment names an unknown field, its value is not allowed, or fields contradict each other.
    """
    assigned = {text.partition("=")[0].strip() for text in assignments}
    if {"epochs", "iterations"} <= assigned:
        raise ConfigError("both 'epochs' and 'iterations' are set", fix="Leave one of them out.")
    if "epochs" in assigned:
        recipe = recipe.model_copy(update={"iterations": None})
    if new_weights:
        recipe = recipe.model_copy(update={"freeze": ()})
    chosen = override(recipe, assignments)
    _check(chosen.augment)
    if chosen.image_weights and chosen.augment.geometry == "ratio_crop":
        raise ConfigError(
            "'image_weights' counts objects, and this model gives every pixel a class", fix="Leave it out."
        )
    if images is None:
        return override(shorten(recipe, chosen.epochs), assignments)
    if not _OPTIMIZER_CHOICE & assigned:
        updates = run_length(chosen, images)[1]
        recipe = prefer_adamw(recipe, updates)
        recipe = raise_rate(recipe, updates) if new_weights else recipe
    # Another optimiser may make an update of other steps.
    epochs, updates = run_length(override(recipe, assignments), images)
    return override(quicken_norms(quicken_ema(shorten(recipe, epochs), updates), updates), assignments)


def shorten(recipe: Recipe, epochs: int) -> Recipe:
    """Return the recipe for `epochs` epochs; fewer than its own have a proportionally shorter warm-up.

    Closing epochs keep their number up to a quarter of the run: a network that has seen few steps has more to gain from
    pictures as they are than from more of the strong augmentation.
    """
    if epochs >= recipe.epochs:
        return recipe.model_copy(update={"epochs": epochs})
    part = epochs / recipe.epochs
    warmup = {"warmup_epochs": recipe.schedule.warmup_epochs * part}
    closing = min(recipe.closing_epochs, math.ceil(epochs / 4), epochs // 2)
    change = {
        "epochs": epochs,
        "closing_epochs": closing,
        "assignment_warmup": math.ceil(recipe.assignment_warmup * part),
        "schedule": recipe.schedule.model_copy(update=warmup),
    }
    return recipe.model_copy(update=change)


def run_length(recipe: Recipe, images: int) -> tuple[int, int]:
    """Return epochs (the last may be cut short) and updates of a run over `images` training images."""
    per_epoch = updates_per_epoch(recipe, images)
    if recipe.iterations is not None:
        return math.ceil(recipe.iterations / per_epoch), recipe.iterations
    return recipe.epochs, recipe.epochs * per_epoch


def updates_per_epoch(recipe: Recipe, images: int) -> int:
    """Return how often an epoch with `images` training images changes the weights."""
    steps = max(1, images // recipe.batch) // epochs_per_pass(recipe, images)
    return math.ceil(steps / steps_per_update(recipe.optimizer, recipe.batch))


def epochs_per_pass(recipe: Recipe, images: int) -> int:
    """Return how many epochs a pass over `images` training images is.

    It is one but for runs that are given in iterations and are to be validated more often than once a pass.
    """
    if recipe.iterations is None or recipe.val_iterations is None:
        return 1
    steps = max(1, images // recipe.batch)
    updates = steps / steps_per_update(recipe.optimizer, recipe.batch)
    return min(steps, max(1, round(updates / recipe.val_iterations)))


def quicken_ema(recipe: Recipe, updates: int) -> Recipe:
    """Return the recipe with an average of the weights that spans no larger part of the run than in a long one.

    One that remembers thousands of updates has hardly begun to average when a short run ends, so that what is validated
    and saved jumps from epoch to epoch as the weights do.
    """
    momentum = max(recipe.ema.momentum, min(1.0, _AVERAGES / updates))
    ramp = min(recipe.ema.ramp, updates / _RAMPS)
    ema = recipe.ema.model_copy(update={"momentum": momentum, "ramp": ramp})
    return recipe.model_copy(update={"ema": ema})


def quicken_norms(recipe: Recipe, updates: int) -> Recipe:
    """Return the recipe with means and variances of batch norms that span no larger part of the run than the average.

    FastSCNN's remember a hundred steps. After as many, they are still those of the new network by a third, and what is
    validated gets worse while the loss falls.
    """
    momentum = max(recipe.norm_momentum, min(_NORM_MOMENTUM, _AVERAGES / updates))
    return recipe.model_copy(update={"norm_momentum": momentum})


def prefer_adamw(recipe: Recipe, updates: int) -> Recipe:
    """Return the recipe with AdamW in place of SGD where there are few updates and all of the network is trained.

    The rate then falls to the end, update by update: closing epochs at its last value, or epochs that are long steps,
    are a small part of a long run only. What SGD's warm-up does to biases and momentum goes with it. Where a family
    freezes layers it starts from trained weights, which SGD is not slow with and AdamW's rate would spoil.
    """
    if recipe.optimizer.name == "adamw" or updates >= _FEW_UPDATES or recipe.freeze:
        return recipe
    change = {"hold_closing": False, "by_epoch": False, "warmup_bias_lr": None, "warmup_momentum": None}
    schedule = recipe.schedule.model_copy(update=change)
    optimizer = _ADAMW.model_copy(update={"lr": recipe.short_run_lr})
    return recipe.model_copy(update={"optimizer": optimizer, "schedule": schedule})


def raise_rate(recipe: Recipe, updates: int) -> Recipe:
    """Return the recipe of a network with new weights with the rate of short runs where AdamW has few updates.

    Rotated RTMDet's own rate is meant for a backbone that is trained; by it a new network has learnt nothing after a
    thousand updates.
    """
    if recipe.optimizer.name != "adamw" or updates >= _FEW_UPDATES:
        return recipe
    return recipe.model_copy(update={"optimizer": _ADAMW.model_copy(update={"lr": recipe.short_run_lr})})


def _check(augment: AugmentRecipe) -> None:
    """Raise a `ConfigError` where one choice leaves no place for another."""
    several = [name for name in ("mosaic", "mixup") if getattr(augment, name)]
    if several and augment.geometry in ("expand_crop", "shorter_side", "ratio_crop"):
        raise ConfigError(
            f"'augment.geometry={augment.geometry}' leaves no place for 'augment.{several[0]}'",
            fix=f"Set {' and '.join(f'augment.{name}=0' for name in several)}.",
        )
    if augment.mixup_style == "mosaics" and augment.geometry != "affine":
        raise ConfigError("'augment.mixup_style=mosaics' needs 'augment.geometry=affine'")
