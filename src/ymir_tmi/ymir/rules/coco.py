"""What the platform asks of infer-result.json where the task is about pixels: a COCO data set."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ymir_tmi.geometry.masks import Masks
from ymir_tmi.ymir.contract import INSTANCES, SEMANTICS
from ymir_tmi.ymir.rules.findings import Expected, Findings, check_names, is_count, is_number

_LISTS = ("images", "categories", "annotations")


def check_coco(result: Path, content: Mapping[str, Any], expected: Expected, found: Findings) -> None:
    """Check predictions in COCO's form."""
    for key in _LISTS:
        if not isinstance(content.get(key), list) or not all(isinstance(row, Mapping) for row in content[key]):
            found.add(result, key, "it is missing, or no list of objects of JSON")
            return
    sizes = _check_images(result, content["images"], expected, found)
    labels = _check_categories(result, content["categories"], expected, found)
    _Annotations(result, sizes, labels, expected, found).check(content["annotations"])
    found.checked.append(f"{result}: {len(content['annotations'])} masks in {len(content['images'])} images")


def _check_images(result: Path, images: list[Any], expected: Expected, found: Findings) -> dict[int, tuple[int, int]]:
    """Return (width, height) by id."""
    _check_unique(result, "images", [image.get("id") for image in images], "id", found)
    names = [str(image.get("file_name")) for image in images]
    _check_unique(result, "images", names, "file_name", found)
    sizes: dict[int, tuple[int, int]] = {}
    for image, name in zip(images, names, strict=True):
        key = f"images.{name}"
        if "/" in name:
            found.add(result, key, "the file name is not a base name")
        size = (image.get("width"), image.get("height"))
        if not is_count(image.get("id")):
            found.add(result, key, f"the id {image.get('id')!r} is not a whole number")
        elif size == (0, 0):
            continue  # of a picture that cannot be read: nothing can be found in it
        elif not all(is_count(side) and side for side in size):
            found.add(result, key, f"width and height are {size}")
        elif size != expected.sizes.get(name, size):
            found.add(result, key, f"width and height are {size}, but those of the picture {expected.sizes[name]}")
        else:
            sizes[image["id"]] = (int(size[0]), int(size[1]))
    check_names(result, "images", names, expected, found)
    return sizes


def _check_categories(result: Path, categories: list[Any], expected: Expected, found: Findings) -> set[int]:
    """Return the ids."""
    ids = [category.get("id") for category in categories]
    for key in [key for key in ids if not is_count(key)]:
        found.add(result, "categories", f"the id {key!r} is not a whole number")
    _check_unique(result, "categories", ids, "id", found)
    for category in categories:
        name = category.get("name")
        if not isinstance(name, str) or (expected.class_names and name not in expected.class_names):
            found.add(result, f"categories.{category.get('id')}.name", f"{name!r} is none of the classes")
    return {key for key in ids if is_count(key)}


def _check_unique(result: Path, key: str, values: list[Any], name: str, found: Findings) -> None:
    for value, count in Counter(map(repr, values)).items():
        if count > 1:
            found.add(result, key, f"{count} have the {name} {value}; all of them are dropped")


class _Annotations:
    """Checks of the annotations."""

    def __init__(
        self,
        result: Path,
        sizes: Mapping[int, tuple[int, int]],
        labels: set[int],
        expected: Expected,
        found: Findings,
    ) -> None:
        self._result, self._sizes, self._labels = result, sizes, labels
        self._expected, self._found = expected, found
        self._masks: dict[int, list[str]] = defaultdict(list)  # run lengths, by image

    def check(self, annotations: list[Any]) -> None:
        """Note what is wrong with annotations, each by itself and together."""
        _check_unique(self._result, "annotations", [row.get("id") for row in annotations], "id", self._found)
        boxes: Counter[Any] = Counter()
        known: list[Any] = []
        for row in annotations:
            key = f"annotations.{row.get('id')}"
            if not (_known(row.get("image_id"), self._sizes) and _known(row.get("category_id"), self._labels)):
                self._found.add(self._result, key, "its image or its category is not there")
                continue
            known.append(row)
            if self._check_numbers(key, row):
                place = tuple(int(number) for number in row["bbox"])
                boxes[row["image_id"], row["category_id"], place] += 1
            self._check_mask(key, row)
        for (image, label, place), count in boxes.items():
            if count > 1:
                what = f"class {label} has the box {list(place)} {count} times; only one is kept"
                self._found.add(self._result, f"images.{image}", what)
        if self._expected.object_type == SEMANTICS:
            self._check_label_maps(known)

    def _check_numbers(self, key: str, row: Mapping[str, Any]) -> bool:
        """Return whether there is a box that the platform keeps."""
        if not is_number(row.get("area")):
            self._found.add(self._result, f"{key}.area", f"{row.get('area')!r} is not a number")
        if row.get("iscrowd", 0) not in (0, 1):
            self._found.add(self._result, f"{key}.iscrowd", f"{row['iscrowd']!r} is neither 0 nor 1")
        needs_score = self._expected.object_type == INSTANCES
        if (needs_score or "confidence" in row) and not is_number(row.get("confidence")):
            self._found.add(self._result, f"{key}.confidence", f"{row.get('confidence')!r} is not a number")
        box = row.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
            self._found.add(self._result, f"{key}.bbox", f"{box!r} is not four numbers")
            return False
        if int(box[2]) <= 0 or int(box[3]) <= 0:
            self._found.add(self._result, f"{key}.bbox", f"{box} has no whole pixel")
            return False
        return True

    def _check_mask(self, key: str, row: Mapping[str, Any]) -> None:
        mask, size = row.get("segmentation"), self._sizes[row["image_id"]]
        if isinstance(mask, list):
            if len(mask) != 1 or not isinstance(mask[0], list) or len(mask[0]) < 6 or len(mask[0]) % 2:
                self._found.add(self._result, f"{key}.segmentation", "it is not exactly one polygon")
            return
        if not isinstance(mask, Mapping) or not isinstance(mask.get("counts"), str):
            self._found.add(self._result, f"{key}.segmentation", "'counts' is not text: compressed run lengths")
            return
        try:
            Masks.from_segmentation(dict(mask), size)
        except ValueError as error:
            self._found.add(self._result, f"{key}.segmentation", str(error))
            return
        self._masks[row["image_id"]].append(mask["counts"])

    def _check_label_maps(self, annotations: list[Any]) -> None:
        """Note classes that an image has twice, and pixels that have two classes."""
        pairs = Counter((row["image_id"], row["category_id"]) for row in annotations)
        for (image, label), count in pairs.items():
            if count > 1:
                self._found.add(self._result, f"images.{image}", f"class {label} has {count} masks instead of one")
        for image, counts in self._masks.items():
            layers = Masks.parse(counts, self._sizes[image]).decode()
            if (np.count_nonzero(layers, axis=0) > 1).any():
                self._found.add(self._result, f"images.{image}", "masks of two classes overlap")


def _known(key: Any, keys: Container[int]) -> bool:
    return is_count(key) and key in keys
