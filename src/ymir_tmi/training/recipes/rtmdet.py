"""RTMDet (Lyu et al. 2022, arXiv:2212.07784; docs/specs/detectors.md, section 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def rtmdet_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `rtmdet_tiny` or `rtmdet_m_mmdet`."""
    size = variant.split("_")[1]
    return {"tiny": _tiny, "s": _small}.get(size, _large)()


def _small() -> Recipe:
    return Recipe(
        epochs=300,
        closing_epochs=20,
        # Adam's steps follow the noise of the gradient, so small batches want the square root (arXiv:2205.10287).
        optimizer=OptimizerRecipe(name="adamw", lr=0.004, base_batch=256, lr_scaling="sqrt", weight_decay=0.05),
        schedule=ScheduleRecipe(
            warmup="linear", warmup_iterations=1000, warmup_start=1e-5, flat=0.5, final_factor=0.05
        ),
        ema=EmaRecipe(momentum=0.0002, ramp=2000),
        augment=AugmentRecipe(
            mosaic=1.0,
            mosaic_cache=40,
            mixup=1.0,
            mixup_cache=20,
            mixup_style="beta",
            geometry="resize_crop",
            scale=(0.5, 2.0),
            hsv=(5, 30, 30),
        ),
    )


def _tiny() -> Recipe:
    recipe = _small()
    change = {"mosaic_cache": 20, "mixup_cache": 10, "mixup": 0.5, "cache_eviction": "oldest"}
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=change)})


def _large() -> Recipe:
    recipe = _small()
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update={"scale": (0.1, 2.0)})})
