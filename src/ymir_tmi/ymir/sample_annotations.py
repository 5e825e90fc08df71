"""Annotations of drawn pictures in the three forms that the platform exports, with their peculiarities.

See docs/specs/ymir.md, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from ymir_tmi.files.atomic import write_text
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.ymir.sample_scenes import CLASS_NAMES, HEIGHT, WIDTH, SampleObject, SampleScene

COCO_FILE = "coco-annotations.json"


def write_annotations(folder: Path, form: str, scenes: Mapping[str, SampleScene]) -> dict[str, str]:
    """Write the annotations of pictures; return the name of each picture's annotation in `folder`.

    Args:
        folder: made where it does not exist.
        form: what stands before the colon of `export_format`.
        scenes: by the name of the picture in the assets.
    """
    if form in {"coco", "seg-coco"}:
        write_text(folder / COCO_FILE, json.dumps(_coco(scenes)))
        return dict.fromkeys(scenes, COCO_FILE)
    suffix, text_of = (".txt", _ark) if form in {"ark", "det-ark"} else (".xml", _voc)
    names = {name: str(PurePosixPath(name).with_suffix(suffix)) for name in scenes}
    for name, scene in scenes.items():
        write_text(folder / names[name], text_of(name, scene))
    return names


def _ark(_: str, scene: SampleScene) -> str:
    lines = []
    for item in scene.objects:
        x, y, w, h = item.box
        fields = (item.label, x, y, x + w - 1, y + h - 1, -1.0, item.angle)
        lines.append(", ".join(map(str, fields)) + "\n")
    return "".join(lines)


def _voc(name: str, scene: SampleScene) -> str:
    root = ElementTree.Element("annotation")
    _add(
        root, {"folder": "unknown", "filename": f"/in/assets/{name}", "cks": None, "tags": None, "image_quality": -1.0}
    )
    _add(ElementTree.SubElement(root, "size"), {"width": WIDTH, "height": HEIGHT, "depth": 3})
    _add(root, {"segmented": 0})
    for item in scene.objects:
        x, y, w, h = item.box
        node = ElementTree.SubElement(root, "object")
        _add(node, {"name": CLASS_NAMES[item.label], "pose": "unknown", "truncated": "unknown", "occluded": 0})
        _add(
            ElementTree.SubElement(node, "bndbox"),
            {"xmin": x, "ymin": y, "xmax": x + w - 1, "ymax": y + h - 1, "rotate_angle": f"{item.angle:.4f}"},
        )
        _add(node, {"difficult": 0, "tags": None, "box_quality": -1.0, "confidence": -1.0, "cm": "NotSet"})
    return ElementTree.tostring(root, encoding="unicode")


def _add(parent: ElementTree.Element, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(parent, key).text = None if value is None else str(value)


def _coco(scenes: Mapping[str, SampleScene]) -> dict[str, Any]:
    """Return one file for training and validation: base names, ids of classes from 0, only classes that occur."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    by_key = sorted(scenes, key=lambda name: PurePosixPath(name).name)
    for number, name in enumerate(by_key, start=1):
        image = {"id": number, "file_name": PurePosixPath(name).name, "width": WIDTH, "height": HEIGHT}
        images.append(image | {"license": 0, "flickr_url": "", "coco_url": "", "date_captured": ""})
        for item in scenes[name].objects:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **_annotation(item)})
    labels = sorted({annotation["category_id"] for annotation in annotations}, reverse=True)
    categories = [{"id": label, "name": CLASS_NAMES[label], "supercategory": "none"} for label in labels]
    return {"images": images, "licenses": [], "categories": categories, "annotations": annotations}


def _annotation(item: SampleObject) -> dict[str, Any]:
    """Return a circle as run lengths with `iscrowd` 1, as the platform's converters write them, others as polygons."""
    masks = Masks.encode(item.bitmap[None])
    x1, y1, x2, y2 = (int(number) for number in masks.hulls()[0])
    is_circle = CLASS_NAMES[item.label] == "circle"
    run_lengths = {"counts": masks.counts[0].decode(), "size": [HEIGHT, WIDTH]}
    return {
        "category_id": item.label,
        "segmentation": run_lengths if is_circle else [item.polygon()],
        "area": int(masks.areas()[0]) if is_circle else 0,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "iscrowd": int(is_circle),
        "confidence": -1.0,
    }
