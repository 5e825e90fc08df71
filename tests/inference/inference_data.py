"""A small model on disk, and pictures in two folders of which some have the same name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ymir_tmi import imaging
from ymir_tmi.models.catalog import create_model
from ymir_tmi.models.checkpoint import save_model

CLASSES = ["cat", "dog", "owl"]
SIZES = [(64, 48), (48, 64), (90, 50), (64, 64)]
IMAGE_SIZE = 64
CONF = 0.52  # some cells score above this, some below


def write_model(path: Path) -> Path:
    """Write a model that has learnt nothing and yet finds something, differently in every picture."""
    torch.manual_seed(0)
    model = create_model("rtmdet_tiny", class_names=CLASSES)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.Conv2d) and "cls_pred" in name:
            nn.init.normal_(module.weight, std=0.3)
            nn.init.zeros_(module.bias)
    save_model(model, path, licence="CC0-1.0")
    return path


def write_pictures(folder: Path, count: int = 10) -> list[Path]:
    """Write pictures called 0.png, 1.png, ... in each of the folders `a` and `b/c`."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        path = folder / ("a" if number % 2 else "b/c") / f"{number // 2}.png"
        imaging.write_image(path, rng.integers(0, 256, (height, width, 3), np.uint8))
        paths.append(path)
    return sorted(paths)


def write_coco_file(path: Path, pictures: list[Path]) -> Path:
    """Write an annotation file with ids of its own, and no objects."""
    images = [
        {"id": 100 - number, "file_name": str(picture), "width": size[0], "height": size[1]}
        for number, picture in enumerate(pictures)
        for size in [imaging.image_size(picture)]
    ]
    categories = [{"id": 33, "name": "owl"}, {"id": 44, "name": "cat"}, {"id": 55, "name": "cow"}]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories}))
    return path
