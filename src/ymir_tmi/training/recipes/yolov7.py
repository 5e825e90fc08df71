"""YOLOv7 (Wang et al. 2022, arXiv:2207.02696; docs/specs/detectors.md, sections 5 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def yolov7_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolov7_tiny` or `yolov7_l`."""
    return _tiny() if variant.split("_")[1] == "tiny" else _large()


def _large() -> Recipe:
    return Recipe(
        epochs=300,
        closing_epochs=0,
        auto_anchor=True,
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
            accumulation="sum",
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
            final_factor=0.1,
        ),
        ema=EmaRecipe(momentum=0.0001, ramp=2000),
        augment=AugmentRecipe(
            mosaic=1.0,
            mosaic_nine=0.2,
            mosaic_cache=0,
            mixup=0.15,
            mixup_cache=0,
            mixup_style="mosaics",
            mixup_beta=8.0,
            geometry="affine",
            scale=(0.1, 2.0),
            rotate=0.0,
            translate=0.2,
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


def _tiny() -> Recipe:
    recipe = _large()
    change = {
        "schedule": recipe.schedule.model_copy(update={"final_factor": 0.01}),
        "augment": recipe.augment.model_copy(update={"scale": (0.5, 1.6), "translate": 0.1, "mixup": 0.05}),
    }
    return recipe.model_copy(update=change)
