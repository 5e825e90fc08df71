"""Rotated RTMDet (Lyu et al. 2022, arXiv:2212.07784; docs/specs/rotated.md, section "Training recipe").

The recipes that mmrotate calls RR and MS+RR are one: they differ in the scales of the patches that the data are cut
into.
"""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def rotated_rtmdet_recipe(variant: str) -> Recipe:
    """Return the recipe, which is the same for all variants."""
    return Recipe(
        epochs=36,
        batch=8,
        closing_epochs=0,
        with_objects=True,
        # Adam's steps follow the noise of the gradient, so other batches want the square root (arXiv:2205.10287).
        optimizer=OptimizerRecipe(name="adamw", lr=0.00025, base_batch=8, lr_scaling="sqrt", weight_decay=0.05),
        schedule=ScheduleRecipe(
            warmup="linear", warmup_iterations=1000, warmup_start=1e-5, flat=0.5, final_factor=0.05
        ),
        ema=EmaRecipe(momentum=0.0002, ramp=2000),
        # Of the pictures, a quarter each is mirrored, upside down, both and neither.
        augment=AugmentRecipe(
            mosaic=0.0,
            mosaic_cache=0,
            mixup=0.0,
            mixup_cache=0,
            geometry="resize_crop",
            scale=(1.0, 1.0),
            hsv=(0, 0, 0),
            flip=0.5,
            flip_vertical=0.5,
            rotation=0.5,
            right_angle_classes=("storage-tank", "roundabout"),
        ),
    )
