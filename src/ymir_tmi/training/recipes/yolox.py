"""YOLOX (Ge et al. 2021, arXiv:2107.08430; docs/specs/detectors.md, section 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def yolox_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolox_tiny` or `yolox_s_mmdet`."""
    return _tiny() if variant.split("_")[1] == "tiny" else _large()


def _large() -> Recipe:
    return Recipe(
        epochs=300,
        closing_epochs=15,
        optimizer=OptimizerRecipe(name="sgd", lr=0.01, base_batch=64, weight_decay=0.0005, momentum=0.9, nesterov=True),
        schedule=ScheduleRecipe(
            warmup="quadratic",
            warmup_iterations=0,
            warmup_epochs=5,
            warmup_start=0.0,
            flat=0.0,
            final_factor=0.05,
            hold_closing=True,
        ),
        ema=EmaRecipe(momentum=0.0001, ramp=2000),
        augment=AugmentRecipe(
            mosaic=1.0,
            mosaic_cache=0,
            mixup=1.0,
            mixup_cache=0,
            mixup_style="average",
            mixup_scale=(0.8, 1.6),
            geometry="affine",
            scale=(0.1, 2.0),
            rotate=10.0,
            translate=0.1,
            shear=2.0,
            hsv=(5, 30, 30),
            multiscale=(0.75, 1.25),
            multiscale_interval=10,
        ),
    )


def _tiny() -> Recipe:
    recipe = _large()
    # Batches of 320 to 640 pixels, for an image size of 416.
    change = {"mixup": 0.0, "scale": (0.5, 1.5), "multiscale": (320 / 416, 640 / 416)}
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=change)})
