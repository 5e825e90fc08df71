"""YOLOv6 2.0 and 3.0 (Li et al. 2022, arXiv:2209.02976; docs/specs/detectors.md, sections 4 and 13)."""

from __future__ import annotations

from ymir_tmi.config.recipe import Recipe
from ymir_tmi.training.recipes.yolo import vary, yolo_recipe


def yolov6_recipe(variant: str) -> Recipe:
    """Return the recipe of a variant, such as `yolov6_s` or `yolov6_v3_m`."""
    *version, size = variant.split("_")[1:]
    recipe = _large() if size in ("m", "l") else _small(0.02 if size == "n" else 0.01)
    return recipe if version or size in ("m", "l") else recipe.model_copy(update={"epochs": 400})


def _small(final_factor: float) -> Recipe:
    return vary(
        yolo_recipe(),
        closing_epochs=15,
        assignment_warmup=4,
        schedule={"curve": "cosine", "final_factor": final_factor},
        augment={"closing_scale": (0.5, 1.5)},
    )


def _large() -> Recipe:
    return vary(_small(0.01), augment={"scale": (0.1, 1.9), "mixup": 0.1})
