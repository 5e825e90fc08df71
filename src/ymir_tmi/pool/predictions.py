"""`predictions.json`: a COCO data set whose annotations have a `score` (docs/architecture.md has an example).

A rotated box has three forms in it: `rotated_box` is [cx, cy, w, h, angle] in pixels and radians, to the last digit,
`segmentation` its four corners and `bbox` the upright box around it, for other programs.

Label maps are one annotation for each class and image, without a score.

A mask is a `segmentation` of compressed run lengths, {"size": [height, width], "counts": text}; `area` is then its own.

A plain list of COCO results (`[{"image_id", "category_id", "bbox", "score"}, ...]`) is read as well. So are rotated
boxes that are given by polygons of four corners alone, masks without a `bbox`, and masks in COCO's other forms:
uncompressed run lengths, and, where the file states the sizes of the images, polygons.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ymir_tmi.data.formats.jsonstream import stream_lists
from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import DataError
from ymir_tmi.files.atomic import atomic_path
from ymir_tmi.geometry.outlines import bounds, outlines
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.found import FoundInImage, ImageId, settle_forms
from ymir_tmi.pool.recorder import masks_of


@dataclass(frozen=True)
class ImagePrediction:
    """What a file says about one image.

    Attributes:
        image_id: the image in terms of the annotation file.
        file_name: the picture file as the run named it; None in a plain list of results.
        error: why the picture could not be read, or None.
        detections: best first; labels are positions in `Predictions.category_ids`.
    """

    image_id: ImageId
    file_name: str | None
    error: str | None
    detections: Detections


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds.

    Attributes:
        category_ids: C ids, ascending.
        class_names: their C names; None in a plain list of results, which has none.
        images: one entry per image, without those that a plain list does not mention.
        max_dets: how many detections of an image were kept; None where the file does not tell.
    """

    category_ids: tuple[int, ...]
    class_names: tuple[str, ...] | None
    images: list[ImagePrediction]
    max_dets: int | None = None


def write_predictions(
    path: Path,
    index: DatasetIndex,
    categories: Sequence[tuple[int, str]],
    rows: Callable[[], Iterable[Row]],
    *,
    description: str,
    max_dets: int | None = None,
) -> None:
    """Write `predictions.json`, atomically and without holding more than one image in memory.

    Numbers are written so that reading them gives the same float32 boxes and scores.

    Args:
        path: the file.
        index: the images, in the order of the rows.
        categories: id and name of each class, in the order of the labels.
        rows: returns the rows of `DetectionRecorder`, or of `LabelMapRecorder`, anew each time it is called.
        description: what the file says about itself.
        max_dets: detections of an image that were kept; None does not say it.
    """
    info = {"description": description} | ({} if max_dets is None else {"max_dets": max_dets})
    sections = {
        "info": json.dumps(info, ensure_ascii=False),
        "images": _list(_image_entries(index, rows())),
        "categories": _list({"id": key, "name": name} for key, name in categories),
        "annotations": _list(_annotation_entries(index, [key for key, _ in categories], rows())),
    }
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        opening = "{"
        for name, parts in sections.items():
            file.write(f'{opening}"{name}": ')
            file.writelines(parts)
            opening = ",\n"
        file.write("}\n")


def read_predictions(path: Path) -> Predictions:
    """Read `predictions.json`, or a plain list of COCO results.

    Raises:
        DataError: the file is missing, is neither of the two, or an entry is wrong.
    """
    return _from_results(path) if _first_character(path) == "[" else _from_data_set(path)


def category_ids_for(class_names: Sequence[str], index: DatasetIndex) -> list[int]:
    """Return an id for each class: that of the data's class of this name, else one that the data does not use."""
    known = dict(zip(index.class_names, index.category_ids, strict=True))
    free = count(max(index.category_ids, default=0) + 1)
    return [known[name] if name in known else next(free) for name in class_names]


def _list(entries: Iterable[Row]) -> Iterator[str]:
    """Yield the text of a JSON list, one entry a line."""
    separator = "[\n"
    for entry in entries:
        yield separator + json.dumps(entry, ensure_ascii=False, allow_nan=False)
        separator = ",\n"
    yield "[]" if separator == "[\n" else "\n]"


def _image_entries(index: DatasetIndex, rows: Iterable[Row]) -> Iterator[Row]:
    for position, row in enumerate(rows):
        width, height = row.get("size") or index.size(position) or (0, 0)
        entry = {"id": int(index.image_ids[position]), "file_name": index.paths[position]}
        entry |= {"width": width, "height": height}
        yield entry | {"error": row["error"]} if "error" in row else entry


def _annotation_entries(index: DatasetIndex, category_ids: Sequence[int], rows: Iterable[Row]) -> Iterator[Row]:
    numbers = count(1)
    for image_id, row in zip(index.image_ids.tolist(), rows, strict=True):
        if "error" in row:
            continue
        if "boxes" not in row:
            yield from ({"id": next(numbers), "image_id": image_id, **part} for part in _of_classes(row, category_ids))
            continue
        boxes = _with_masks(row) if "masks" in row else _boxes(row["boxes"])
        for box, score, label in zip(boxes, row["scores"], row["labels"], strict=True):
            entry = {"id": next(numbers), "image_id": image_id, "category_id": category_ids[label]}
            yield {**entry, **box, "iscrowd": 0, "score": score}


def _of_classes(row: Row, category_ids: Sequence[int]) -> Iterator[Row]:
    """Yield what annotations say of each class in a row of `LabelMapRecorder`."""
    (width, height), masks = row["size"], masks_of(row)
    columns = zip(row["labels"], row["masks"], masks.hulls().tolist(), masks.areas().tolist(), strict=True)
    for label, text, (x1, y1, x2, y2), area in columns:
        segmentation = {"size": [height, width], "counts": text}
        entry = {"category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0}
        yield {**entry, "segmentation": segmentation}


def _with_masks(row: Row) -> Iterator[Row]:
    """Yield what an annotation says of each box and its mask."""
    (width, height), areas = row["size"], masks_of(row).areas().tolist()
    for box, text, area in zip(_boxes(row["boxes"]), row["masks"], areas, strict=True):
        yield {**box, "area": area, "segmentation": {"size": [height, width], "counts": text}}


def _boxes(boxes: Sequence[Sequence[float]]) -> Iterator[Row]:
    """Yield what an annotation says of each box."""
    if boxes and len(boxes[0]) == 5:
        yield from _rotated_boxes(boxes)
        return
    for x1, y1, x2, y2 in boxes:
        width, height = x2 - x1, y2 - y1
        yield {"bbox": [x1, y1, width, height], "area": width * height}


def _rotated_boxes(boxes: Sequence[Sequence[float]]) -> Iterator[Row]:
    corners = outlines(np.array(boxes))
    # The digits that a reader needs are in `rotated_box`; all of them here would make most of the file.
    polygons, around = corners.reshape(-1, 8).round(3).tolist(), bounds(corners).round(3).tolist()
    for box, polygon, (x1, y1, x2, y2) in zip(boxes, polygons, around, strict=True):
        yield {
            "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
            "area": box[2] * box[3],
            "segmentation": [polygon],
            "rotated_box": list(box),
        }


def _from_data_set(path: Path) -> Predictions:
    images: dict[ImageId, Row] = {}
    names: dict[int, str] = {}
    found: defaultdict[ImageId, FoundInImage] = defaultdict(FoundInImage)
    sections, others = set(), dict[str, Any]()
    for batch in stream_lists(path, others):
        sections.add(batch.key)
        for item, line in zip(batch.items, batch.lines, strict=True):
            where = f"{path}, line {line}"
            if batch.key == "images":
                images[_entry(item, "id", where)] = item
            elif batch.key == "categories":
                names[_entry(item, "id", where)] = _entry(item, "name", where)
            elif batch.key == "annotations":
                _add(found, item, where)
    if not {"images", "categories", "annotations"} <= sections:
        raise DataError(
            "this is neither predictions.json nor a list of COCO results",
            where=path,
            fix="It has to be a list of detections, or an object with 'images', 'categories' and 'annotations'.",
        )
    _check_ids(found, images, names, path)
    rotated = settle_forms(found, images, path)
    ids = tuple(sorted(names))
    label_of = {key: label for label, key in enumerate(ids)}
    entries = [
        ImagePrediction(key, item.get("file_name"), item.get("error"), found[key].detections(label_of, rotated=rotated))
        for key, item in images.items()
    ]
    return Predictions(ids, tuple(names[key] for key in ids), entries, _max_dets(others.get("info"), path))


def _max_dets(info: Any, path: Path) -> int | None:
    value = info.get("max_dets") if isinstance(info, dict) else None
    if value is not None and not (isinstance(value, int) and value >= 1):
        raise DataError(f"'max_dets' in 'info' is {value!r}, which is no number of detections", where=path)
    return value


def _from_results(path: Path) -> Predictions:
    try:
        items = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"this is not JSON: {error}", where=path) from error
    found: defaultdict[ImageId, FoundInImage] = defaultdict(FoundInImage)
    for number, item in enumerate(items, 1):
        _add(found, item, f"{path}, entry {number}")
    rotated = settle_forms(found, {}, path)
    ids = tuple(sorted({category for image in found.values() for category in image.categories}))
    label_of = {key: label for label, key in enumerate(ids)}
    entries = [
        ImagePrediction(key, None, None, image.detections(label_of, rotated=rotated)) for key, image in found.items()
    ]
    return Predictions(ids, None, entries)


def _add(found: defaultdict[ImageId, FoundInImage], item: Any, where: str) -> None:
    if isinstance(item, dict) and "score" not in item and isinstance(item.get("segmentation"), dict):
        raise DataError(
            "a mask without a score is a class of a label map, which cannot be measured from a file",
            where=where,
            fix="Give --model, which measures label maps while it makes them.",
        )
    try:
        found[_entry(item, "image_id", where)].add(item)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            "a detection needs image_id, category_id, bbox [x, y, width, height] and score, and may have a rotated_box "
            '[cx, cy, w, h, angle] or a segmentation: polygons, or {"size": [height, width], "counts": run lengths}: '
            f"{json.dumps(item)[:120]}",
            where=where,
        ) from error


def _entry(item: Any, key: str, where: str) -> Any:
    if not isinstance(item, dict) or not isinstance(item.get(key), int | str):
        raise DataError(f"this entry has no '{key}': {json.dumps(item)[:120]}", where=where)
    return item[key]


def _check_ids(
    found: dict[ImageId, FoundInImage], images: dict[ImageId, Row], names: dict[int, str], path: Path
) -> None:
    for image_id, image in found.items():
        if image_id not in images:
            raise DataError(f"detections belong to image {image_id}, which is not in 'images'", where=path)
        for category in image.categories:
            if category not in names:
                raise DataError(f"a detection has category {category}, which is not in 'categories'", where=path)


def _first_character(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(1000).lstrip()[:1]
    except OSError as error:
        raise DataError(f"cannot read the predictions: {error.strerror}", where=path) from error
    except UnicodeDecodeError as error:
        raise DataError("this is not a text file", where=path) from error
