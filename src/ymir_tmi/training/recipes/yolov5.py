"""YOLOv5 (docs/specs/yolov5.md, sections 10, 11 and 13; docs/specs/detectors.md, section 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.recipes.yolo import vary, yolo_recipe

_SMALL = {"n", "s", "n6", "s6"}


def yolov5_recipe(variant: str, name: str | None = None) -> Recipe:
    """Return one of the three sets of hyper-parameters, by default the one that a variant was trained with.

    Args:
        variant: such as `yolov5_s` or `yolov5_m6`; the small ones were trained with `low`, the others with `high`.
        name: how strong the augmentation is: `low`, `med` or `high`.
    """
    return {"low": _low, "med": _med, "high": _high}[name or own_set(variant)]()


def own_set(variant: str) -> str:
    """Return the name of the set that a variant was trained with."""
    return "low" if variant.split("_")[1] in _SMALL else "high"


def _low() -> Recipe:
    """Return the set for small networks.

    In the warm-up YOLOv5 also lets the number of steps that make one update grow, up to 64 images. Here it is 64 images
    from the start. The learning rate is small then, so that one update moves the weights about as far as four of a
    quarter of the images; and the schedule, the average of the weights and a resumed run count in updates of one size.
    """
    return vary(
        yolo_recipe(),
        auto_anchor=True,
        optimizer={"clip_norm": 10.0, "accumulation": "sum"},
        schedule={"warmup_iterations": 100, "curve": "linear"},
        augment={"max_aspect": 100.0, "degrade": 0.01},
        loss={"box": 0.05, "obj": 1.0, "cls": 0.5},
    )


def _med() -> Recipe:
    return vary(
        _low(),
        schedule={"final_factor": 0.1},
        augment={"scale": (0.1, 1.9), "mixup": 0.1},
        loss={"obj": 0.7, "cls": 0.3},
    )


def _high() -> Recipe:
    """Return the set for large networks, which is `med`.

    YOLOv5's own also copies a tenth of the objects by their outlines from place to place. Boxes have none, so that is
    left to YOLOv5-seg.
    """
    return _med()
