"""FastSCNN and FCN-HRNet as they were trained on Cityscapes (docs/specs/segmentation.md, section "Training")."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe

_IMAGES = 2975  # of Cityscapes
_ITERATIONS = {"40k": 40_000, "80k": 80_000, "160k": 160_000}


def fast_scnn_recipe(variant: str) -> Recipe:
    """Return the recipe of FastSCNN."""
    return _recipe(iterations=160_000, lr=0.12, base_batch=32, weight_decay=4e-5)


def fcn_hrnet_recipe(variant: str, name: str | None = None) -> Recipe:
    """Return one of the three schedules, by default the shortest; they differ in the number of updates only."""
    return _recipe(iterations=_ITERATIONS[name or "40k"], lr=0.01, base_batch=8, weight_decay=5e-4)


def _recipe(*, iterations: int, lr: float, base_batch: int, weight_decay: float) -> Recipe:
    """Return what both have in common. The weights are not averaged: the rate falls to next to nothing instead."""
    return Recipe(
        epochs=round(iterations * base_batch / _IMAGES),
        iterations=iterations,
        batch=8,
        closing_epochs=0,
        optimizer=OptimizerRecipe(
            name="sgd",
            lr=lr,
            base_batch=base_batch,
            lr_scaling="linear",
            weight_decay=weight_decay,
            decay_biases=True,
            decay_norms=True,
            momentum=0.9,
            nesterov=False,
        ),
        schedule=ScheduleRecipe(warmup_iterations=0, curve="poly", power=0.9, final_lr=1e-4),
        ema=EmaRecipe(enabled=False),
        augment=AugmentRecipe(
            mosaic=0.0,
            mixup=0.0,
            geometry="ratio_crop",
            ratio=(0.5, 2.0),
            crop=(512, 1024),
            category_limit=0.75,
            photometric=0.5,
            flip=0.5,
            hsv=(0, 0, 0),
        ),
    )
