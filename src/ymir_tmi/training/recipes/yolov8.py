"""YOLOv8 (docs/specs/detectors.md, sections 6 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def yolov8_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolov8_s`; m is trained as l and x are."""
    return _small() if variant.split("_")[1] in ("n", "s") else _large()


def _small() -> Recipe:
    return Recipe(
        epochs=500,
        closing_epochs=10,
        optimizer=OptimizerRecipe(
            name="sgd",
            lr=0.01,
            base_batch=64,
            lr_scaling="none",
            weight_decay=0.0005,
            decay_scaling="linear",
            momentum=0.937,
            nesterov=True,
            clip_norm=10.0,
            accumulate="auto",
            accumulation="sum",
        ),
        schedule=ScheduleRecipe(
            warmup="linear",
            warmup_iterations=1000,
            warmup_epochs=3,
            warmup_start=0.0,
            warmup_bias_lr=0.1,
            warmup_momentum=0.8,
            curve="linear",
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
            closing_scale=(0.5, 1.5),
            rotate=0.0,
            translate=0.1,
            shear=0.0,
            centre=True,
            min_box=2.0,
            min_area=0.1,
            max_aspect=100.0,
            degrade=0.01,
            hsv=(0.015, 0.7, 0.4),
            hsv_style="multiply",
            flip=0.5,
        ),
    )


def _large() -> Recipe:
    recipe = _small()
    change = {"scale": (0.1, 1.9), "closing_scale": (0.1, 1.9), "mixup": 0.15}
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=change)})
