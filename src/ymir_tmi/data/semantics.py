"""The class of every pixel, from label pictures, or from annotations merged per class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import Blank
from ymir_tmi.data.index import DIFFICULT, IGNORED, NO_CLASS, DatasetIndex, Strings
from ymir_tmi.data.segments import segment_problem
from ymir_tmi.errors import DataError, ImageError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.ragged import offsets
from ymir_tmi.imaging import image_size, read_values

BACKGROUND = "background"
"""Class of pixels that no annotation covers."""

LabelMap = npt.NDArray[np.uint8]
Size = tuple[int, int]


def as_semantics(index: DatasetIndex, *, blank: Blank = "background") -> DatasetIndex:
    """Return an index of which `read_label_map` gives every pixel a class; it has the same classes.

    Args:
        index: Label pictures, or annotations with segmentations.
        blank: What pixels that no annotation covers are: the class `background`, if there is such a class, or
            `IGNORED`. Label pictures say it themselves.

    Raises:
        DataError: the annotations are boxes only, or there are more classes than a label map has numbers for.
    """
    if index.label_maps is None and index.segments is None:
        raise DataError(
            "these annotations do not say which class a pixel has",
            where=index.paths[0] if len(index) else None,
            fix="Give label pictures (images/ and masks/), or COCO annotations with segmentations.",
        )
    if index.num_classes > NO_CLASS:
        raise DataError(f"{index.num_classes} classes are too many for label maps, which have room for {NO_CLASS}")
    named = blank == "background" and BACKGROUND in index.class_names
    return dataclasses.replace(index, blank=index.class_names.index(BACKGROUND) if named else IGNORED)


def semantic_splits(splits: Mapping[str, DatasetIndex], *, blank: Blank = "background") -> dict[str, DatasetIndex]:
    """Return the splits of one data set, which have the same classes, as `as_semantics` does.

    The class `background` is added as the last one where there is none, `blank` asks for it, and some picture has
    pixels that no annotation covers; pictures that cannot be read have none.

    Raises:
        DataError: as `as_semantics`.
    """
    semantic = {name: as_semantics(index, blank=blank) for name, index in splits.items()}
    if blank == "ignore" or not any(map(_has_blank, semantic.values())):
        return semantic
    return {name: as_semantics(_with_background(index)) for name, index in semantic.items()}


def read_label_map(index: DatasetIndex, row: int, size: Size) -> LabelMap:
    """Return (H, W) uint8 the class of every pixel of a picture, `IGNORED` where it does not count.

    Of annotations that overlap the later one lies on top, as in the layers of an annotation tool. Crowds are of their
    class like any other annotation. Pixels of difficult objects do not count; those of a box without a segmentation
    only where another annotation covers them.

    Args:
        index: What `as_semantics` returned.
        row: The picture.
        size: (width, height) of the picture in the annotation's frame.

    Raises:
        ImageError: the label picture cannot be read, is of another size, or has a value that is no class; or a
            segmentation cannot be understood.
    """
    if path := index.label_picture(row):
        return _read_label_picture(index, path, size)
    return _merge(index, row, size)


class LabelCounts(NamedTuple):
    """What the label maps of a data set hold.

    Attributes:
        pixels: (N, K) int64, of each picture the pixels of each class; zeros where it has a problem.
        problems: why the label map of a picture cannot be used, by its row.
    """

    pixels: npt.NDArray[np.int64]
    problems: dict[int, str]


def count_labels(index: DatasetIndex, *, advance: Callable[[int], None] | None = None) -> LabelCounts:
    """Read every label map of an index once and count its pixels.

    Args:
        index: What `as_semantics` returned.
        advance: Is told of every picture.
    """

    def count(row: int) -> npt.NDArray[np.int64] | str:
        try:
            labels = read_label_map(index, row, _size(index, row))
        except ImageError as error:
            return error.one_line()
        return np.bincount(labels.ravel(), minlength=256)[: index.num_classes]

    pixels, problems = np.zeros((len(index), index.num_classes), np.int64), {}
    with ThreadPoolExecutor() as pool:  # decoding lets other threads run
        for row, counted in enumerate(pool.map(count, range(len(index)))):
            if isinstance(counted, str):
                problems[row] = counted
            else:
                pixels[row] = counted
            if advance is not None:
                advance(1)
    return LabelCounts(pixels, problems)


def counts_anything(index: DatasetIndex) -> bool:
    """Return whether any pixel of any picture has a class; pictures that cannot be read have none.

    Reads label maps up to the first such pixel.
    """
    return any((labels != IGNORED).any() for labels in _readable_label_maps(index, range(len(index))))


def as_annotations(index: DatasetIndex) -> DatasetIndex:
    """Return an index with one annotation for each class and picture in place of label pictures.

    Its segmentation is a run-length encoding; pixels that do not count have no annotation. An index without label
    pictures is returned as it is.

    Raises:
        ImageError: a label picture cannot be used.
    """
    if index.label_maps is None:
        return index
    found = [_annotations_of(index, row) for row in range(len(index))]
    labels = np.array([label for present, _ in found for label in present], np.int32)
    sizes = [masks.size for _, masks in found]
    boxes = np.concatenate([np.zeros((0, 4), np.float32), *(masks.hulls() for _, masks in found)])
    return dataclasses.replace(
        index,
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        starts=offsets(np.array([len(present) for present, _ in found], np.int64)),
        boxes=boxes,
        labels=labels,
        areas=np.concatenate([np.zeros(0), *(masks.areas() for _, masks in found)]).astype(np.float32),
        flags=np.zeros(len(labels), np.uint8),
        segments=Strings.pack(text for _, masks in found for text in _texts(masks)),
        label_maps=None,
        label_of_value=None,
    )


def _read_label_picture(index: DatasetIndex, path: str, size: Size) -> LabelMap:
    assert index.label_of_value is not None
    values = read_values(path)
    height, width = values.shape
    if (width, height) != size:
        raise ImageError(
            f"the label picture has {width} x {height} pixels, its picture has {size[0]} x {size[1]}", where=path
        )
    labels: LabelMap = index.label_of_value[values]
    if (labels == NO_CLASS).any():
        raise ImageError(
            f"no class has the value {int(values[labels == NO_CLASS][0])}, which this label picture has",
            where=path,
            fix="Values are the places of the classes in their list, from 0; 255 is for pixels that do not count.",
        )
    return labels


def _merge(index: DatasetIndex, row: int, size: Size) -> LabelMap:
    """Draw the annotations of a picture one over the other."""
    width, height = size
    columns = np.full((width, height), index.blank, np.uint8).T  # as run lengths are decoded: column by column
    rows = range(*index.rows(row).indices(len(index.boxes)))
    segments = {annotation: _segmentation(index, annotation) for annotation in rows}
    for annotation in (annotation for annotation in rows if not segments[annotation]):
        x1, y1, x2, y2 = np.rint(index.boxes[annotation]).astype(int).tolist()
        columns[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = IGNORED
    for annotation in (annotation for annotation in rows if segments[annotation]):
        try:
            [mask] = Masks.from_segmentation(segments[annotation], size).decode()
        except (TypeError, ValueError) as error:
            assert index.segments is not None
            problem = segment_problem(index.segments[annotation], np.array(size, np.int32)) or error
            raise ImageError(f"a segmentation cannot be understood: {problem}", where=index.paths[row]) from None
        difficult = index.flags[annotation] & DIFFICULT
        np.copyto(columns, np.uint8(IGNORED if difficult else index.labels[annotation]), where=mask)
    return np.ascontiguousarray(columns)


def _segmentation(index: DatasetIndex, annotation: int) -> object:
    return json.loads(index.segments[annotation] or "null") if index.segments is not None else None


def _has_blank(index: DatasetIndex) -> bool:
    """Return whether some pixel has no annotation; reads label maps up to the first one, and no label pictures."""
    rows = [row for row in range(len(index)) if index.label_maps is None or not index.label_maps[row]]
    marked = dataclasses.replace(index, blank=NO_CLASS)
    return any((labels == NO_CLASS).any() for labels in _readable_label_maps(marked, rows))


def _with_background(index: DatasetIndex) -> DatasetIndex:
    if BACKGROUND in index.class_names:
        return index
    return dataclasses.replace(
        index,
        class_names=(*index.class_names, BACKGROUND),
        category_ids=(*index.category_ids, max(index.category_ids, default=0) + 1),
    )


def _readable_label_maps(index: DatasetIndex, rows: Iterable[int]) -> Iterable[LabelMap]:
    for row in rows:
        try:
            yield read_label_map(index, row, _size(index, row))
        except ImageError:
            continue


def _annotations_of(index: DatasetIndex, row: int) -> tuple[list[int], Masks]:
    """Return the classes of a picture and their masks."""
    labels = read_label_map(index, row, _size(index, row))
    present = [label for label in np.unique(labels).tolist() if label != IGNORED]
    return present, Masks.of_labels(labels, present)


def _texts(masks: Masks) -> list[str]:
    entries = masks.entries()
    return [json.dumps({**entry, "counts": entry["counts"].decode()}, separators=(",", ":")) for entry in entries]


def _size(index: DatasetIndex, row: int) -> Size:
    return index.size(row) or image_size(index.paths[row])
