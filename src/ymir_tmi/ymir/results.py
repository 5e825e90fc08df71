"""What mining and inference leave: `result.tsv` and `infer-result.json`, from the files of a run of ours.

Their form is in docs/specs/ymir.md, sections 6 and 7.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path, PurePath
from typing import Any

from ymir_tmi.data.formats.jsonstream import stream_lists
from ymir_tmi.data.formats.ymir import read_rows
from ymir_tmi.errors import ModelError
from ymir_tmi.files.atomic import atomic_path, write_text
from ymir_tmi.files.layout import RunLayout

Row = dict[str, Any]


def write_ranking(path: Path, candidates: Path, run: RunLayout) -> None:
    """Write `result.tsv`: every candidate as its list has it, and its score, the highest first.

    Images that could not be read come last.

    Args:
        path: the file.
        candidates: the list of pictures, whose order is that of the pool.
        run: of mining.
    """
    names = [picture for picture, _ in read_rows(candidates)]
    with run.scores.open(encoding="utf-8", newline="") as file:
        texts = [row["score"] for row in csv.DictReader(file)]
    known = [float(text) for text in texts if text]
    last = min(known, default=0.0) - 1.0
    scores = [float(text) if text else last for text in texts]
    order = sorted(range(len(names)), key=lambda row: -scores[row])
    lines = (f"{names[row]}\t{scores[row]:.17g}\n" for row in order)
    assert len(scores) == len(names)
    write_text(path, "".join(lines))


def write_boxes(path: Path, predictions: Path, class_names: Sequence[str], *, key: str = "boxes") -> None:
    """Write boxes as whole numbers, by the name of the picture; a rotated box is given before it is turned.

    Args:
        path: the file.
        predictions: `predictions.json` of a run.
        class_names: of the task; what is found of others is left out.
        key: of the list of boxes; platforms before protocol 1.0.0 know it as `annotations`.

    Raises:
        ModelError: the model has none of the classes.
    """
    found = _Found(predictions, class_names)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"detection": {')
        separator = "\n"
        for image, items in found.by_image():
            boxes = [_box_entry(item, image) for item in items]
            file.write(f"{separator}{_dumps(image['file_name'])}: {_dumps({key: boxes})}")
            separator = ",\n"
        file.write("\n}}\n")


def write_masks(path: Path, predictions: Path, class_names: Sequence[str]) -> None:
    """Write masks, of objects or of the classes of a label map, as a COCO data set with compressed run lengths.

    Their size is that of the picture as it is stored. See `write_boxes`.
    """
    found = _Found(predictions, class_names)
    images, annotations = [], []
    numbers = count(1)
    for number, (image, items) in enumerate(found.by_image(), 1):
        images.append({"id": number, **image})
        best: dict[tuple[int, ...], Row] = {}  # of one class and one box in whole pixels the platform takes one
        for entry in (_mask_entry(item, found.ids) for item in items if item["area"] > 0):
            best.setdefault((entry["category_id"], *entry["bbox"]), entry)
        annotations += [{"id": next(numbers), "image_id": number, **entry} for entry in best.values()]
    categories = [{"id": key, "name": name} for name, key in found.ids.items()]
    sections = {"images": images, "categories": categories, "annotations": annotations}
    write_text(path, _dumps(sections) + "\n")


class _Found:
    """What a run has found, image by image.

    Attributes:
        ids: of the classes of the task.
    """

    def __init__(self, predictions: Path, class_names: Sequence[str]) -> None:
        self._path = predictions
        self._of_task = {_plain(name): name for name in class_names}
        self.ids = {name: number for number, name in enumerate(class_names, 1)}

    def by_image(self) -> Iterator[tuple[Row, list[Row]]]:
        """Yield every image once, with file name (without folders), width and height, and what is in it, best first."""
        seen = set[str]()
        for image, items in self._all():
            name = PurePath(image["file_name"]).name
            if name not in seen:
                seen.add(name)
                yield {"file_name": name, "width": image["width"], "height": image["height"]}, items

    def _all(self) -> Iterator[tuple[Row, list[Row]]]:
        images: list[Row] = []
        classes: dict[int, str | None] = {}
        place, own = 0, list[Row]()
        for batch in stream_lists(self._path, {}):
            if batch.key == "images":
                images += batch.items
            elif batch.key == "categories":
                classes |= self._classes(batch.items)
            else:  # in the order of the images
                for item in batch.items:
                    while images[place]["id"] != item["image_id"]:
                        yield images[place], own
                        place, own = place + 1, []
                    name = classes[item["category_id"]]
                    if name is not None:
                        own.append({**item, "class_name": name})
        for image in images[place:]:
            yield image, own
            own = []

    def _classes(self, categories: Iterable[Row]) -> dict[int, str | None]:
        """Return the task's name of each class of the model, None of one that it does not have."""
        names = {item["id"]: item["name"] for item in categories}
        if not self._of_task:
            self._of_task = {_plain(name): name for name in names.values()}
            self.ids = {name: number for number, name in enumerate(names.values(), 1)}
        found = {key: self._of_task.get(_plain(name)) for key, name in names.items()}
        if names:
            require_common_class(names.values(), self._of_task.values())
        return found


def require_common_class(known: Collection[str], wanted: Collection[str]) -> None:
    """Refuse a model that has none of the classes of a task.

    Raises:
        ModelError: not one class is the same.
    """
    if {_plain(name) for name in known}.isdisjoint(map(_plain, wanted)):
        raise ModelError(
            f"the model knows {_some(known)}, and the task asks for {_some(wanted)}: not one class is the same",
            where="class_names",
        )


def _plain(name: str) -> str:
    """Return a class name as the platform compares them."""
    return name.strip().lower()


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")


def _box_entry(item: Row, image: Row) -> Row:
    box = turned_box(item["rotated_box"]) if "rotated_box" in item else whole_box(item["bbox"], image)
    return {"box": box, "class_name": item["class_name"], "score": item["score"]}


def whole_box(box: Sequence[float], image: Row) -> Row:
    """Return x, y, w, h of a box [x, y, w, h] in whole pixels inside its image, w and h at least 1."""
    x, w = _span(box[0], box[0] + box[2], image["width"])
    y, h = _span(box[1], box[1] + box[3], image["height"])
    return {"x": x, "y": y, "w": w, "h": h}


def turned_box(box: Sequence[float]) -> Row:
    """Return x, y, w, h of a rotated box [cx, cy, w, h, angle] before it is turned about its centre, and the angle."""
    cx, cy, width, height, angle = box
    w, h = max(1, round(width)), max(1, round(height))
    return {"x": round(cx - w / 2), "y": round(cy - h / 2), "w": w, "h": h, "rotate_angle": angle}


def _span(low: float, high: float, limit: int) -> tuple[int, int]:
    """Return the first pixel and the number of pixels."""
    start = min(max(0, round(low)), limit - 1)
    return start, max(1, min(round(high), limit) - start)


def _mask_entry(item: Row, ids: dict[str, int]) -> Row:
    height, width = item["segmentation"]["size"]
    box = whole_box(item["bbox"], {"width": width, "height": height})
    entry = {
        "category_id": ids[item["class_name"]],
        "bbox": list(box.values()),
        "area": int(item["area"]),
        "iscrowd": 0,
        "segmentation": item["segmentation"],
    }
    return {**entry, "confidence": item["score"]} if "score" in item else entry


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
