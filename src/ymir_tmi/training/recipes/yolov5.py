"""YOLOv5 (docs/specs/yolov5.md, sections 10, 11 and 13; docs/specs/detectors.md, section 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import AugmentRecipe, EmaRecipe, LossRecipe, OptimizerRecipe, Recipe, ScheduleRecipe

_SMALL = {"n", "s", "n6", "s6"}


def yolov5_recipe(variant: str, name: str | None = None) -> Recipe:
    """Return one of the three sets of hyper-parameters, by default the one that a variant was trained with.

    Args:
        variant: such as `yolov5_s` or `yolov5_m6`; the small ones were trained with `low`, the others with `high`.
        name: how strong the augmentation is: `low`, `med` or `high`.
    """
    own = "low" if variant.split("_")[1] in _SMALL else "high"
    return {"low": _low, "med": _med, "high": _high}[name or own]()


def _low() -> Recipe:
    """Return the set for small networks.

    In the warm-up YOLOv5 also lets the number of steps that make one update grow, up to 64 images. Here it is 64 images
    from the start. The learning rate is small then, so that one update moves the weights about as far as four of a
    quarter of the images; and the schedule, the average of the weights and a resumed run count in updates of one size.
    """
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
            clip_norm=10.0,
            accumulate="auto",
            accumulation="sum",
        ),
        schedule=ScheduleRecipe(
            warmup="linear",
            warmup_iterations=100,
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
        loss=LossRecipe(box=0.05, obj=1.0, cls=0.5),
    )


def _med() -> Recipe:
    recipe = _low()
    change = {
        "schedule": recipe.schedule.model_copy(update={"final_factor": 0.1}),
        "augment": recipe.augment.model_copy(update={"scale": (0.1, 1.9), "mixup": 0.1}),
        "loss": recipe.loss.model_copy(update={"obj": 0.7, "cls": 0.3}),
    }
    return recipe.model_copy(update=change)


def _high() -> Recipe:
    """Return the set for large networks, which is `med`.

    YOLOv5's own also copies a tenth of the objects by their outlines from place to place. Training here reads boxes
    only, so that is left out.
    """
    return _med()
