"""COCO's JSON format for detection and instance segmentation (https://cocodataset.org/#format-data).

Read in batches: a file of a million images and ten million boxes never is in memory as Python objects.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.formats.ids import FIRST_TEXT_KEY, IdKeys, is_text
from ymir_tmi.data.formats.jsonstream import Batch, stream_lists
from ymir_tmi.data.formats.reading import SHOWN, Reading, Rejections
from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex, Strings
from ymir_tmi.data.pictures import PictureFinder
from ymir_tmi.data.repair import FARTHEST
from ymir_tmi.errors import DataError, did_you_mean
from ymir_tmi.files.atomic import atomic_path
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.geometry.ragged import offsets

Array = npt.NDArray[Any]

_UNSOUND = (TypeError, ValueError, KeyError, OverflowError)  # what converting a wrong entry to numbers raises
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def read_coco(path: Path, finder: PictureFinder) -> Reading:
    """Read a COCO file.

    Category ids are opaque: label 0 is the class with the smallest id. Image ids may be numbers or text; where one is
    text that is no number, the images are numbered anew. `iscrowd` becomes `CROWD`, `ignore` becomes `DIFFICULT`; width
    and height may be left out; a missing `area` is that of the box. The sections may come in any order.

    Rejected are annotations whose image or category is not in the file, or whose `bbox` is not four finite numbers that
    a picture can have, or has a negative size.

    Raises:
        DataError: the file is no COCO data set, or an entry of `images` or `categories` is wrong.
    """
    keys = IdKeys()
    images, annotations, categories = _Images(path, finder, keys), _Annotations(path, keys), _Categories(path, keys)
    sections: dict[str, Callable[[Batch], None]] = {
        "images": images.add,
        "annotations": annotations.add,
        "categories": categories.add,
    }
    seen = set()
    with _no_garbage_collection():
        for batch in stream_lists(path):
            seen.add(batch.key)
            if batch.key in sections:
                sections[batch.key](batch)
    if "images" not in seen:
        fix = did_you_mean("images", seen)
        raise DataError("this is not a COCO data set: it has no list 'images'", where=path, fix=fix)
    index = _join(images, annotations, categories)
    return Reading(index, True, annotations.rejections, finder.missing, finder.folders)


def write_coco(index: DatasetIndex, path: Path, *, file_names: Sequence[str] | None = None) -> None:
    """Write an index as a COCO file, one image or annotation a line.

    Ids of images and categories are kept, annotations are numbered from 1. Numbers are rounded to 1/10000 pixel. The
    corners of a rotated box are its `segmentation`, and `bbox` is the upright box around it.

    Args:
        index: what to write.
        path: the file.
        file_names: N names for `file_name`; by default the pictures as seen from the file's folder where they lie in
            it, else their full paths.

    Raises:
        DataError: the file exists.
    """
    if path.exists():
        raise DataError("this file exists already", where=path, fix="Choose another name; nothing is overwritten.")
    if file_names is None:
        file_names = _names_from(path.parent, index.paths)
    categories = zip(index.category_ids, index.class_names, strict=True)
    sections = {
        "categories": (_encode({"id": key, "name": name}) for key, name in categories),
        "images": _image_rows(index, file_names),
        "annotations": _annotation_rows(index),
    }
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        start = "{"
        for section, rows in sections.items():
            file.write(f'{start}"{section}":[')
            separator = "\n"
            for row in rows:
                file.write(separator + row)
                separator = ",\n"
            file.write("\n]")
            start = ",\n"
        file.write("}\n")


def _names_from(folder: Path, paths: Strings) -> list[str]:
    base = f"{folder.absolute()}{os.sep}"
    # A Path for each would be slow.
    return [os.path.abspath(paths[row]).removeprefix(base) for row in range(len(paths))]  # noqa: PTH100


def _image_rows(index: DatasetIndex, file_names: Sequence[str]) -> Iterator[str]:
    for image, file_name in enumerate(file_names):
        row = {"id": int(index.image_ids[image]), "file_name": file_name}
        size = index.size(image)
        yield _encode(row if size is None else {**row, "width": size[0], "height": size[1]})


def _annotation_rows(index: DatasetIndex) -> Iterator[str]:
    image_ids = index.image_ids[index.image_of_box()]
    corners = index.boxes.astype(np.float64)
    boxes = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).round(4)
    areas = index.areas.astype(np.float64).round(4)
    segments: Strings | Sequence[str] | None = index.segments
    if index.rotated is not None:
        segments = [_encode([points]) for points in outlines(index.rotated).reshape(-1, 8).round(4).tolist()]
    for row, image_id in enumerate(image_ids.tolist()):
        entry = {
            "id": row + 1,
            "image_id": image_id,
            "category_id": index.category_ids[index.labels[row]],
            "bbox": boxes[row].tolist(),
            "area": areas[row].item(),
            "iscrowd": int(index.flags[row] & CROWD != 0),
        }
        if index.flags[row] & DIFFICULT:
            entry["ignore"] = 1
        text = _encode(entry)
        if segments is not None and (segment := segments[row]):
            text = f'{text[:-1]},"segmentation":{segment}}}'
        yield text


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Spare the search for cycles, of which decoded JSON has none: it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Images:
    def __init__(self, path: Path, finder: PictureFinder, keys: IdKeys) -> None:
        self._path = path
        self._finder = finder
        self._keys = keys
        self._columns: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Strings]] = []

    def add(self, batch: Batch) -> None:
        for item, line in zip(batch.items, batch.lines, strict=True):
            problem = _image_problem(item)
            if problem:
                raise DataError(f"{problem}: {_excerpt(item)}", where=f"{self._path}, line {line}")
        try:
            ids = self._keys.column([item["id"] for item in batch.items])
        except (ValueError, OverflowError):
            raise DataError("ids of images must be whole numbers or text", where=self._path) from None
        sizes = np.array([(item.get("width") or 0, item.get("height") or 0) for item in batch.items], np.int32)
        paths = Strings.pack(self._finder.find(item["file_name"]) for item in batch.items)
        self._columns.append((ids, sizes.reshape(-1, 2), paths))

    def finish(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], Strings]:
        """Return ids (keys), sizes and paths."""
        ids, sizes, paths = zip(*self._columns, strict=True)
        keys = np.concatenate(ids)
        values, counts = np.unique(keys, return_counts=True)
        if (counts > 1).any():
            text = self._keys.text(int(values[counts > 1][0]))
            raise DataError(f"several entries of 'images' have the id {text}", where=self._path)
        return keys, np.concatenate(sizes), Strings.concatenate(paths)


def _image_problem(item: Any) -> str | None:
    if not isinstance(item, dict):
        return "an entry of 'images' is not an object"
    if item.get("id") is None:
        return "an image has no 'id'"
    if not isinstance(item.get("file_name"), str) or not item["file_name"]:
        return "an image has no 'file_name'"
    for side in (item.get("width"), item.get("height")):
        if side is not None and not (isinstance(side, int | float) and 0 <= side < 1 << 31):
            return "the size of an image is not a number of pixels"
    return None


class _Categories:
    def __init__(self, path: Path, keys: IdKeys) -> None:
        self._path = path
        self._keys = keys
        self._names: dict[int, str] = {}

    def add(self, batch: Batch) -> None:
        for item, line in zip(batch.items, batch.lines, strict=True):
            where = f"{self._path}, line {line}"
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise DataError(f"a category has no 'name': {_excerpt(item)}", where=where)
            try:
                key = self._keys.key(item.get("id"))
            except (ValueError, OverflowError):
                key = FIRST_TEXT_KEY
            if is_text(key):
                raise DataError(f"the id of category '{item['name']}' is not a whole number", where=where)
            if key in self._names:
                raise DataError(f"categories '{self._names[key]}' and '{item['name']}' have one id, {key}", where=where)
            if item["name"] in self._names.values():
                raise DataError(f"there are two categories '{item['name']}'", where=where)
            self._names[key] = item["name"]

    def finish(self) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return ids in ascending order and their names."""
        ids = tuple(sorted(self._names))
        return ids, tuple(self._names[key] for key in ids)


class _Annotations:
    """Columns of the annotations in the file's order, batch by batch."""

    def __init__(self, path: Path, keys: IdKeys) -> None:
        self.rejections = Rejections()
        self._path = path
        self._keys = keys
        self._batches: dict[str, list[Array]] = {}
        self._segments: list[tuple[int, Strings | None]] = []  # the number of annotations, and theirs if any has one
        self.add(Batch("annotations", [], []))  # where the file has no annotations, the columns are empty

    def add(self, batch: Batch) -> None:
        items, lines = batch.items, batch.lines
        try:
            columns = self._parse(items)
        except _UNSOUND:
            sound = [row for row, item in enumerate(items) if not self._reject(item, lines[row])]
            items, lines = [items[row] for row in sound], [lines[row] for row in sound]
            columns = self._parse(items)
        columns["line"] = np.array(lines, np.int32)
        for name, column in columns.items():
            self._batches.setdefault(name, []).append(column)
        texts = [_encode(value) if value else "" for value in (item.get("segmentation") for item in items)]
        self._segments.append((len(items), Strings.pack(texts) if any(texts) else None))

    def column(self, name: str) -> Array:
        """Return one column whole, and forget its batches."""
        return np.concatenate(self._batches.pop(name))

    def segments(self) -> Strings | None:
        """Return segmentations as JSON text, or None if there are none."""
        if all(strings is None for _, strings in self._segments):
            return None
        return Strings.concatenate([strings or Strings.pack([""] * count) for count, strings in self._segments])

    def reject_unknown(self, images: Array, image_keys: Array, labels: Array, category_keys: Array) -> None:
        """Count the annotations whose image or label is -1."""
        lines, ids = self.column("line"), self.column("id")
        unknown = np.flatnonzero((images < 0) | (labels < 0))
        for row in unknown[:SHOWN]:
            kind, key = ("image", image_keys[row]) if images[row] < 0 else ("category", category_keys[row])
            section = {"image": "images", "category": "categories"}[kind]
            what = f"annotation {self._keys.text(ids[row])}: its {kind} {self._keys.text(key)} is not in '{section}'"
            self.rejections.add(self._path, int(lines[row]), what)
        self.rejections.count += len(unknown[SHOWN:])

    def _parse(self, items: list[dict[str, Any]]) -> dict[str, Array]:
        """Return columns; raise if any item is not sound."""
        boxes = np.array([item["bbox"] for item in items] or np.zeros((0, 4)), np.float64)
        if boxes.shape != (len(items), 4) or not ((abs(boxes) < FARTHEST).all() and (boxes[:, 2:] >= 0).all()):
            raise ValueError
        areas = np.array([item.get("area") for item in items], np.float64)
        own = boxes[:, 2] * boxes[:, 3]
        crowd = np.array([bool(item.get("iscrowd")) for item in items], np.uint8)
        difficult = np.array([bool(item.get("ignore")) for item in items], np.uint8)
        boxes[:, 2:] += boxes[:, :2]
        return {
            "id": self._keys.column([item.get("id", "(without id)") for item in items]),
            "image": self._keys.column([item["image_id"] for item in items]),
            "category": self._keys.column([item["category_id"] for item in items]),
            "box": boxes.astype(np.float32),
            "area": np.where(areas >= 0, areas, own).astype(np.float32),  # false where there is none (NaN)
            "flags": crowd * CROWD + difficult * DIFFICULT,
        }

    def _reject(self, item: Any, line: int) -> bool:
        """Return whether an item is not sound; note why."""
        try:
            self._parse([item])
            return False
        except _UNSOUND:
            self.rejections.add(self._path, line, self._problem(item))
            return True

    def _problem(self, item: Any) -> str:
        if not isinstance(item, dict):
            return f"an entry of 'annotations' is not an object: {_excerpt(item)}"
        name = f"annotation {item.get('id', '(without id)')}"
        for key in ("image_id", "category_id", "bbox"):
            if item.get(key) is None:
                return f"{name}: it has no '{key}'"
        if not _is_box(item["bbox"]):
            return f"{name}: its 'bbox' is not [x, y, width, height]: {_excerpt(item['bbox'])}"
        return f"{name}: an id is not a whole number, or 'area' is not a number: {_excerpt(item)}"


def _is_box(value: Any) -> bool:
    try:
        box = np.array(value, np.float64)
    except (TypeError, ValueError):
        return False
    return box.shape == (4,) and bool((abs(box) < FARTHEST).all() and (box[2:] >= 0).all())


def _excerpt(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _join(images: _Images, annotations: _Annotations, categories: _Categories) -> DatasetIndex:
    """Look up images and categories of the annotations, and sort these by image."""
    image_keys, sizes, paths = images.finish()
    category_ids, class_names = categories.finish()
    wanted_images, wanted_categories = annotations.column("image"), annotations.column("category")
    image_of = _positions(image_keys, wanted_images)
    labels = _positions(np.array(category_ids, np.int64), wanted_categories)
    annotations.reject_unknown(image_of, wanted_images, labels, wanted_categories)
    del wanted_images, wanted_categories

    known = np.flatnonzero((image_of >= 0) & (labels >= 0))
    order = known[np.argsort(image_of[known], kind="stable")]
    segments = annotations.segments()
    return DatasetIndex(
        class_names=class_names,
        paths=paths,
        sizes=sizes,
        image_ids=np.arange(len(image_keys)) if is_text(image_keys.min(initial=0)) else image_keys,
        starts=offsets(np.bincount(image_of[known], minlength=len(image_keys))),
        boxes=annotations.column("box")[order],
        labels=labels[order],
        areas=annotations.column("area")[order],
        flags=annotations.column("flags")[order],
        segments=None if segments is None else segments.take(order),
        category_ids=category_ids,
    )


def _positions(keys: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Return (M,) where each of `wanted` stands in `keys`, or -1."""
    if not len(keys):
        return np.full(len(wanted), -1, np.int32)
    order = np.argsort(keys)
    places = np.searchsorted(keys[order], wanted)
    places[places == len(keys)] = 0
    found = order[places].astype(np.int32)
    found[keys[found] != wanted] = -1
    return found
