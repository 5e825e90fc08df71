"""Drawn data sets whose every pixel has a class, as label pictures and as annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from data_folders import write_picture, write_text

LabelMap = npt.NDArray[np.uint8]


def blocks(seed: int, classes: int, *, width: int = 60, height: int = 40, ignored: bool = False) -> LabelMap:
    """Return random blocks of 5 x 5 pixels of classes 0 to `classes` - 1, some of them 255 where `ignored`."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (height // 5, width // 5)).astype(np.uint8)
    if ignored:
        labels[rng.random(labels.shape) < 0.2] = 255
    return np.kron(labels, np.ones((5, 5), np.uint8))


def write_mask(path: Path, values: LabelMap) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(values).save(path)
    return path


def write_mask_folder(folder: Path, maps: Mapping[str, LabelMap], names: Sequence[str] | None) -> Path:
    """Write images/STEM.png, masks/STEM.png and classes.txt."""
    for stem, labels in maps.items():
        write_picture(folder / "images" / f"{stem}.png", width=labels.shape[1], height=labels.shape[0])
        write_mask(folder / "masks" / f"{stem}.png", labels)
    if names is not None:
        write_text(folder / "classes.txt", "\n".join(names))
    return folder


def run_lengths(mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return COCO's uncompressed run lengths: column by column, in turns zeros and ones, beginning with zeros."""
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def coco_of(maps: Mapping[str, LabelMap], names: Sequence[str]) -> dict[str, Any]:
    """Return a COCO data set with one run-length encoding for each class and picture."""
    images, annotations = [], []
    for number, (stem, labels) in enumerate(maps.items(), 1):
        height, width = labels.shape
        images.append({"id": number, "file_name": f"{stem}.png", "width": width, "height": height})
        for label in np.unique(labels[labels != 255]).tolist():
            ys, xs = np.nonzero(labels == label)
            box = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label + 1,
                    "bbox": [int(value) for value in box],
                    "segmentation": run_lengths(labels == label),
                }
            )
    categories = [{"id": label, "name": name} for label, name in enumerate(names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco_beside(folder: Path, maps: Mapping[str, LabelMap], names: Sequence[str]) -> Path:
    """Write the annotations of a mask folder; the pictures are those in its `images`."""
    return write_text(folder / "a.json", json.dumps(coco_of(maps, names)))
