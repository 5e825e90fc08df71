"""PP-YOLOE+ (Xu et al. 2022, arXiv:2203.16250; docs/specs/detectors.md, sections 8 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def ppyoloe_recipe(variant: str) -> Recipe:
    """Return the recipe of every variant; its authors start from weights that know the objects of Objects365."""
    return Recipe(
        epochs=80,
        closing_epochs=0,
        assignment_warmup=30,
        optimizer=OptimizerRecipe(
            name="sgd",
            lr=0.001,
            base_batch=64,
            lr_scaling="linear",
            weight_decay=0.0005,
            decay_biases=True,
            momentum=0.9,
            nesterov=False,
        ),
        schedule=ScheduleRecipe(
            warmup="linear",
            warmup_iterations=1000,
            warmup_epochs=5,
            warmup_start=0.0,
            curve="cosine",
            horizon=1.2,
            final_factor=0.0,
        ),
        ema=EmaRecipe(momentum=0.0002, ramp=2000),
        augment=AugmentRecipe(
            mosaic=0.0,
            mixup=0.0,
            geometry="expand_crop",
            expand=0.5,
            expand_largest=4.0,
            distort=0.5,
            hsv=(0, 0, 0),
            flip=0.5,
            multiscale=(0.5, 1.25),
            multiscale_interval=1,
        ),
    )
