"""YOLOv7 (Wang et al. 2022, arXiv:2207.02696; docs/specs/detectors.md, sections 5 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.recipes.yolo import vary, yolo_recipe


def yolov7_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolov7_tiny` or `yolov7_l`."""
    return _tiny() if variant.split("_")[1] == "tiny" else _large()


def _large() -> Recipe:
    return vary(
        yolo_recipe(),
        auto_anchor=True,
        optimizer={"accumulation": "sum"},
        schedule={"curve": "cosine", "final_factor": 0.1},
        augment={"mosaic_nine": 0.2, "mixup": 0.15, "mixup_beta": 8.0, "scale": (0.1, 2.0), "translate": 0.2},
    )


def _tiny() -> Recipe:
    return vary(
        _large(),
        schedule={"final_factor": 0.01},
        augment={"scale": (0.5, 1.6), "translate": 0.1, "mixup": 0.05},
    )
