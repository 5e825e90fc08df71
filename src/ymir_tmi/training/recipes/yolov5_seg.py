"""YOLOv5-seg (docs/specs/yolov5.md, sections 10 and 11)."""

from __future__ import annotations

from typing import Any

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.recipes.yolo import vary
from ymir_tmi.training.recipes.yolov5 import own_set, yolov5_recipe


def yolov5_seg_recipe(variant: str, name: str | None = None) -> Recipe:
    """Return one of the sets of hyper-parameters of YOLOv5, with what outlines of objects make possible.

    An object that a random affine moves mostly out of the picture counts down to a hundredth of its area, not a tenth:
    of an outline it is known what is left of it.

    Args:
        variant: such as `yolov5_s_seg`; the small ones are trained with `low`, the others with `high`.
        name: how strong the augmentation is: `low`, `med` or `high`, which also copies objects.
    """
    name = name or own_set(variant)
    augment: dict[str, Any] = {"min_area": 0.01}
    if name == "high":
        augment["copy_paste"] = 0.1
    return vary(yolov5_recipe(variant, name), augment=augment)
