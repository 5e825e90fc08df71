"""RetinaNet (Lin et al. 2017, arXiv:1708.02002; docs/specs/retinanet.md, Training)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, OptimizerRecipe, Recipe, ScheduleRecipe


def retinanet_recipe(variant: str, name: str | None = None) -> Recipe:
    """Return one of the two schedules, by default the one that a variant was published with.

    The backbone starts from weights that were trained on ImageNet: its norms never change, and its first two stages do
    not either. Without starting weights, all but the norms is trained (`training/plan.py`).

    Args:
        variant: `retinanet_r50_fpn`, published with `1x`, or `retinanet_r101_fpn`, with `3x`.
        name: `1x` has 90,000 updates, about 12 epochs of COCO; `3x` three times as many.
    """
    own = "3x" if "r101" in variant else "1x"
    return {"1x": _once, "3x": _three_times}[name or own]()


def _once() -> Recipe:
    return Recipe(
        epochs=12,
        iterations=90_000,
        closing_epochs=0,
        short_run_lr=0.001,  # without norms that adapt, the rate of the other families is too high to learn classes
        with_objects=True,
        freeze=("backbone.stem", "backbone.res2"),
        optimizer=OptimizerRecipe(
            name="sgd",
            lr=0.01,
            base_batch=16,
            lr_scaling="linear",
            weight_decay=0.0001,
            decay_biases=True,
            momentum=0.9,
            nesterov=False,
        ),
        schedule=ScheduleRecipe(
            warmup="linear",
            warmup_iterations=1000,
            warmup_start=0.001,
            curve="steps",
            steps=(60 / 90, 80 / 90),
            step_factor=0.1,
        ),
        ema=EmaRecipe(enabled=False),
        augment=AugmentRecipe(
            mosaic=0.0,
            mixup=0.0,
            geometry="shorter_side",
            hsv=(0, 0, 0),
            flip=0.5,
            min_box=0.0,
            multiscale=(0.8, 1.0),
        ),
    )


def _three_times() -> Recipe:
    recipe = _once()
    schedule = recipe.schedule.model_copy(update={"steps": (210 / 270, 250 / 270)})
    return recipe.model_copy(update={"epochs": 36, "iterations": 270_000, "schedule": schedule})
