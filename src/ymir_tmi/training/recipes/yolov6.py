"""YOLOv6 2.0 and 3.0 (Li et al. 2022, arXiv:2209.02976; docs/specs/detectors.md, sections 4 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def yolov6_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolov6_s` or `yolov6_v3_m`."""
    *version, size = variant.split("_")[1:]
    recipe = _large() if size in ("m", "l") else _small(0.02 if size == "n" else 0.01)
    return recipe if version or size in ("m", "l") else recipe.model_copy(update={"epochs": 400})


def _small(final_factor: float) -> Recipe:
    return Recipe(
        epochs=300,
        closing_epochs=15,
        assignment_warmup=4,
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
            curve="cosine",
            by_epoch=True,
            final_factor=final_factor,
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
            max_aspect=20.0,
            hsv=(0.015, 0.7, 0.4),
            hsv_style="multiply",
            flip=0.5,
        ),
    )


def _large() -> Recipe:
    recipe = _small(0.01)
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update={"scale": (0.1, 1.9), "mixup": 0.1})})
