"""YOLOv8 (docs/specs/detectors.md, sections 6 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.recipes.yolo import vary, yolo_recipe


def yolov8_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolov8_s`; m is trained as l and x are."""
    return _small() if variant.split("_")[1] in ("n", "s") else _large()


def _small() -> Recipe:
    return vary(
        yolo_recipe(),
        epochs=500,
        closing_epochs=10,
        optimizer={"clip_norm": 10.0, "accumulation": "sum"},
        schedule={"curve": "linear"},
        augment={"closing_scale": (0.5, 1.5), "max_aspect": 100.0, "degrade": 0.01},
    )


def _large() -> Recipe:
    return vary(_small(), augment={"scale": (0.1, 1.9), "closing_scale": (0.1, 1.9), "mixup": 0.15})
