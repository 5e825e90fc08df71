"""What the platform asks of infer-result.json with boxes; `rules.coco` has that with masks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ymir_tmi.ymir.contract import DETECTION
from ymir_tmi.ymir.rules.coco import check_coco
from ymir_tmi.ymir.rules.findings import Expected, Findings, check_names, is_number, read_mapping

_SIDES = ("x", "y", "w", "h")
_ANGLES = ("rotate_angle", "rotateAngle")
_INT32 = 1 << 31


def check_infer(result: Path, expected: Expected, found: Findings) -> None:
    """Check the predictions of an infer run: boxes, or a COCO data set where the task is about pixels."""
    content = read_mapping(result, partial(json.loads, parse_constant=_refuse), "JSON", found)
    if content is None:
        return
    has_boxes = expected.object_type == DETECTION if expected.object_type else "detection" in content
    if has_boxes:
        _check_boxes(result, content, expected, found)
    else:
        check_coco(result, content, expected, found)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _check_boxes(result: Path, content: Mapping[str, Any], expected: Expected, found: Findings) -> None:
    images = content.get("detection")
    if not isinstance(images, Mapping):
        found.add(result, "detection", "it is missing, or no object of JSON")
        return
    count = 0
    for name, value in images.items():
        key = f"detection.{name}"
        if "/" in name:
            found.add(result, key, "the key is not a base name")
        boxes = _boxes_of(value)
        if boxes is None:
            found.add(result, key, "it has neither a list 'boxes' nor a list 'annotations'")
            continue
        for number, box in enumerate(boxes):
            _check_box(result, f"{key}.boxes[{number}]", box, expected, expected.sizes.get(name), found)
        count += len(boxes)
    check_names(result, "detection", images, expected, found)
    found.checked.append(f"{result}: {count} boxes in {len(images)} images")


def _boxes_of(value: Any) -> list[Any] | None:
    """Return the boxes of one image; an empty object is fine."""
    if not isinstance(value, Mapping):
        return None
    boxes = value.get("boxes") or value.get("annotations") or []
    return boxes if isinstance(boxes, list) else None


def _check_box(
    result: Path, key: str, item: Any, expected: Expected, size: tuple[int, int] | None, found: Findings
) -> None:
    if not isinstance(item, Mapping) or not isinstance(item.get("box"), Mapping):
        found.add(result, key, "it has no object 'box'")
        return
    box = item["box"]
    for name in sorted(set(box) - {*_SIDES, *_ANGLES}):
        found.add(result, f"{key}.box.{name}", "this key is not allowed in a box")
    whole = [name for name in _SIDES if _is_int32(box.get(name))]
    for name in set(_SIDES) - set(whole):
        found.add(result, f"{key}.box.{name}", f"{box.get(name)!r} is not a whole number")
    angles = [box[name] for name in _ANGLES if name in box]
    if not all(map(is_number, angles)):
        found.add(result, f"{key}.box.rotate_angle", f"{angles} is not a finite number")
    elif len(whole) == len(_SIDES):
        _check_extent(result, key, box, None if any(angles) else size, found)
    if not is_number(item.get("score")):
        found.add(result, f"{key}.score", f"{item.get('score')!r} is not a finite number")
    name = item.get("class_name")
    if not isinstance(name, str) or (expected.class_names and name.strip().lower() not in expected.class_names):
        found.add(result, f"{key}.class_name", f"{name!r} is none of the classes")


def _is_int32(value: Any) -> bool:
    return is_number(value) and float(value).is_integer() and -_INT32 <= value < _INT32


def _check_extent(
    result: Path, key: str, box: Mapping[str, Any], size: tuple[int, int] | None, found: Findings
) -> None:
    """Note a box without pixels, or (where `size` is given) one that reaches out of the picture."""
    x, y, w, h = (box[name] for name in _SIDES)
    if w <= 0 or h <= 0:
        found.add(result, f"{key}.box", f"it is {w} x {h} pixels large")
    elif size and (x < 0 or y < 0 or x + w > size[0] or y + h > size[1]):
        found.add(result, f"{key}.box", f"x {x}, y {y}, {w} x {h} reaches out of {size[0]} x {size[1]} pixels")
