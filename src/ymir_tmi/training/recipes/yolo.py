"""What the recipes of YOLOv5, YOLOv6, YOLOv7 and YOLOv8 share (docs/specs/detectors.md, section 13)."""

from __future__ import annotations

from typing import Any

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def yolo_recipe() -> Recipe:
    """Return SGD with warm-ups of its own for biases and momentum, and mosaics that are warped."""
    return Recipe(
        epochs=300,
        closing_epochs=0,
        optimizer=OptimizerRecipe(
            name="sgd",
            lr=0.01,
            base_batch=64,
            lr_scaling="none",
            weight_decay=0.0005,
            decay_scaling="linear",
            momentum=0.937,
            nesterov=True,
            accumulate="auto",
        ),
        schedule=ScheduleRecipe(
            warmup="linear",
            warmup_iterations=1000,
            warmup_epochs=3,
            warmup_start=0.0,
            warmup_bias_lr=0.1,
            warmup_momentum=0.8,
            by_epoch=True,
            final_factor=0.01,
        ),
        ema=EmaRecipe(momentum=0.0001, ramp=2000),
        augment=AugmentRecipe(
            mosaic=1.0,
            mosaic_cache=0,
            mixup=0.0,
            mixup_cache=0,
            mixup_style="mosaics",
            mixup_beta=32.0,
            geometry="affine",
            scale=(0.5, 1.5),
            rotate=0.0,
            translate=0.1,
            shear=0.0,
            centre=True,
            min_box=2.0,
            min_area=0.1,
            max_aspect=20.0,
            hsv=(0.015, 0.7, 0.4),
            hsv_style="multiply",
            flip=0.5,
        ),
    )


def vary(recipe: Recipe, **changes: Any) -> Recipe:
    """Return a copy with other values of some fields; for a group of fields, a mapping of those that change."""
    values = {
        name: getattr(recipe, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return recipe.model_copy(update=values)
