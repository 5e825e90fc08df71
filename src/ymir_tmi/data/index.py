"""One columnar index for every data set, whatever format it came from.

A million images with ten million boxes are a dozen arrays, not a Python object each: they take a few hundred
megabytes, and forked loader workers share their pages (no reference counts are touched).
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.errors import DataError
from ymir_tmi.geometry.ragged import offsets, spans

CROWD = np.uint8(1)  # a region with many objects: matches are neither rewarded nor punished
DIFFICULT = np.uint8(2)  # marked as hard by the annotator; kept, and ignored in evaluation

IGNORED = 255  # in a label map: the pixel does not count
NO_CLASS = 254  # in `label_of_value`: no label picture should have this value

_TAKE_AT_ONCE = 1 << 14  # strings

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Strings:
    """A column of N strings as one block of UTF-8 bytes: (T,) uint8 and (N + 1,) int64 offsets."""

    data: npt.NDArray[np.uint8]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def pack(cls, values: Iterable[str | bytes]) -> Strings:
        """Pack strings (or bytes) into one column."""
        encoded = [value.encode() if isinstance(value, str) else value for value in values]
        lengths = np.fromiter(map(len, encoded), np.int64, len(encoded))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets(lengths))

    @classmethod
    def concatenate(cls, columns: Sequence[Strings]) -> Strings:
        """Return one column below the other."""
        lengths = np.concatenate([np.diff(column.offsets) for column in columns])
        return cls(np.concatenate([column.data for column in columns]), offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def take(self, rows: npt.NDArray[np.int64]) -> Strings:
        """Return the given rows as a new column."""
        if not len(rows):
            return Strings.pack(())
        blocks = [rows[start : start + _TAKE_AT_ONCE] for start in range(0, len(rows), _TAKE_AT_ONCE)]
        data = [self.data[spans(self.offsets[block], self.offsets[block + 1])] for block in blocks]
        return Strings(np.concatenate(data), offsets(np.diff(self.offsets)[rows]))


@dataclass(frozen=True)
class DatasetIndex:
    """N images with M annotations of K classes.

    The annotations of image i are rows `starts[i]:starts[i + 1]` of the annotation columns.

    Attributes:
        class_names: K names; a label is a position in it.
        paths: N picture files, as found.
        sizes: (N, 2) int32, (width, height) as the annotation states it; (0, 0) where it states none.
        image_ids: (N,) int64, the ids of the annotation file, or 0..N-1 where the format has none.
        starts: (N + 1,) int64, where each image's annotations start.
        boxes: (M, 4) float32, x1, y1, x2, y2 in pixels of the picture in the annotation's frame (x right, y down, pixel
            i covers [i, i + 1)).
        labels: (M,) int32, 0-based.
        areas: (M,) float32, object area in square pixels: COCO's `area` where given, else that of the box.
        flags: (M,) uint8, sum of `CROWD` and `DIFFICULT`.
        segments: M COCO segmentations as JSON ("" where there is none), or None if no annotation has one.
        rotated: (M, 5) float32 rotated boxes, see `geometry.rotated`, in le90, or None if the annotations are upright
            boxes. `boxes` are then the upright boxes around them.
        label_maps: N pictures with the class of every pixel ("" where there is none), or None if classes are given by
            annotations alone.
        label_of_value: (256,) uint8, the label that each value of these pictures stands for, `IGNORED`, or `NO_CLASS`;
            None if there are no such pictures.
        blank: in a semantic data set, the label of pixels that no annotation covers, or `IGNORED`. Label pictures say
            it themselves.
        category_ids: K ids that the annotation file uses for the classes, for writing results in its terms.
    """

    class_names: tuple[str, ...]
    paths: Strings
    sizes: npt.NDArray[np.int32]
    image_ids: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]
    areas: npt.NDArray[np.float32]
    flags: npt.NDArray[np.uint8]
    segments: Strings | None = None
    rotated: npt.NDArray[np.float32] | None = None
    label_maps: Strings | None = None
    label_of_value: npt.NDArray[np.uint8] | None = None
    blank: int = IGNORED
    category_ids: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.category_ids:
            object.__setattr__(self, "category_ids", tuple(range(1, len(self.class_names) + 1)))
        images, annotations = len(self.paths), len(self.boxes)
        assert self.sizes.shape == (images, 2)
        assert self.image_ids.shape == (images,)
        assert self.starts.shape == (images + 1,) and self.starts[-1] == annotations
        assert self.boxes.shape == (annotations, 4)
        assert len(self.labels) == len(self.areas) == len(self.flags) == annotations
        assert self.segments is None or len(self.segments) == annotations
        assert self.rotated is None or self.rotated.shape == (annotations, 5)
        assert self.label_maps is None or len(self.label_maps) == images
        assert (self.label_maps is None) == (self.label_of_value is None)
        assert len(self.category_ids) == len(self.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def rows(self, image: int) -> slice:
        """Return the annotation rows of one image."""
        return slice(int(self.starts[image]), int(self.starts[image + 1]))

    def size(self, image: int) -> tuple[int, int] | None:
        """Return (width, height) as annotated, or None where the annotation states none."""
        width, height = (int(value) for value in self.sizes[image])
        return (width, height) if width and height else None

    def label_picture(self, image: int) -> str | None:
        """Return the picture with the class of every pixel of an image, or None where there is none."""
        return (self.label_maps[image] or None) if self.label_maps is not None else None

    def image_of_box(self) -> npt.NDArray[np.int64]:
        """Return (M,) the image that each annotation belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def class_counts(self) -> npt.NDArray[np.int64]:
        """Return (K,) the number of annotations of each class."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    def take(self, images: npt.ArrayLike) -> DatasetIndex:
        """Return the given images, in the given order, with their annotations."""
        images = np.asarray(images, np.int64)
        rows = spans(self.starts[images], self.starts[images + 1])
        return DatasetIndex(
            class_names=self.class_names,
            paths=self.paths.take(images),
            sizes=self.sizes[images],
            image_ids=self.image_ids[images],
            starts=offsets(np.diff(self.starts)[images]),
            label_maps=self.label_maps.take(images) if self.label_maps is not None else None,
            label_of_value=self.label_of_value,
            blank=self.blank,
            category_ids=self.category_ids,
            **self._annotation_columns(rows),
        )

    def keep_annotations(self, mask: npt.NDArray[np.bool_], **changed: Any) -> DatasetIndex:
        """Return the index with the annotations where `mask` (M,) is true; images left without any stay.

        `changed` replaces further columns, given for the kept annotations or the whole index.
        """
        counts = np.bincount(self.image_of_box()[mask], minlength=len(self))
        columns = {**self._annotation_columns(np.flatnonzero(mask)), **changed}
        return dataclasses.replace(self, starts=offsets(counts), **columns)

    def fingerprint(self) -> str:
        """Return a hash of the class names, file names and annotations; it does not depend on where the files lie.

        Of label pictures the names and the lengths of their files count, not what is in them.
        """
        names = "\n".join(_base_names(self.paths))
        digest = hashlib.sha256("\0".join((*self.class_names, names)).encode())
        boxes = self.boxes if self.rotated is None else self.rotated
        for column in (self.sizes, self.starts, boxes, self.labels, self.flags):
            digest.update(np.ascontiguousarray(column).tobytes())
        if self.segments is not None:
            digest.update(self.segments.offsets.tobytes())
            digest.update(self.segments.data.data)
        if self.label_maps is not None and self.label_of_value is not None:
            lengths = [_length(self.label_maps[row]) for row in range(len(self))]
            digest.update("\0".join([*_base_names(self.label_maps), *map(str, lengths)]).encode())
            digest.update(self.label_of_value.tobytes())
        if self.blank != IGNORED:
            digest.update(bytes([self.blank]))
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """Return what the record of a run says of its data: how much there is, and the fingerprint.

        Where label pictures give the classes, there are no objects to count.
        """
        objects = {"objects": len(self.boxes)} if self.label_maps is None else {}
        return {"images": len(self), **objects, "fingerprint": self.fingerprint()}

    def _annotation_columns(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        return {
            "boxes": self.boxes[rows],
            "labels": self.labels[rows],
            "areas": self.areas[rows],
            "flags": self.flags[rows],
            "segments": self.segments.take(rows) if self.segments is not None else None,
            "rotated": self.rotated[rows] if self.rotated is not None else None,
        }


def concatenate(parts: Sequence[DatasetIndex]) -> DatasetIndex:
    """Return one index over several parts of one data set.

    Image ids are kept where they stay unique, else the images are numbered anew.

    Raises:
        DataError: the parts have different class names, upright boxes and rotated ones, or label pictures with
            different values.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.class_names != first.class_names:
            raise DataError(
                f"the files of one split have different classes: {first.class_names} and {part.class_names}",
                fix="Give all files of a split the same category list, or convert them to one file first.",
            )
        if (part.rotated is None) != (first.rotated is None):
            raise DataError(
                "of the files of one split some have rotated boxes and some upright ones",
                fix="Convert them to one format first.",
            )
    ids = np.concatenate([part.image_ids for part in parts])
    if len(np.unique(ids)) < len(ids):
        ids = np.arange(len(ids))
    segments = None
    if any(part.segments is not None for part in parts):
        segments = Strings.concatenate([part.segments or Strings.pack([""] * len(part.boxes)) for part in parts])
    return DatasetIndex(
        class_names=first.class_names,
        paths=Strings.concatenate([part.paths for part in parts]),
        sizes=np.concatenate([part.sizes for part in parts]),
        image_ids=ids,
        starts=offsets(np.concatenate([np.diff(part.starts) for part in parts])),
        boxes=np.concatenate([part.boxes for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        areas=np.concatenate([part.areas for part in parts]),
        flags=np.concatenate([part.flags for part in parts]),
        segments=segments,
        rotated=np.concatenate([part.rotated for part in parts]) if first.rotated is not None else None,
        **_label_map_columns(parts),
        category_ids=first.category_ids,
    )


def _label_map_columns(parts: Sequence[DatasetIndex]) -> dict[str, Any]:
    """Return the columns that say where label pictures are and what their values mean."""
    tables = [part.label_of_value for part in parts if part.label_of_value is not None]
    if not tables:
        return {}
    merged = np.full(256, NO_CLASS, np.uint8)
    for table in tables:
        clash = (table != NO_CLASS) & (merged != NO_CLASS) & (table != merged)
        if clash.any():
            raise DataError(
                f"value {int(np.argmax(clash))} stands for different classes in the label pictures of one split",
                fix="Convert them to one format first.",
            )
        merged = np.where(merged == NO_CLASS, table, merged)
    columns = [part.label_maps or Strings.pack([""] * len(part)) for part in parts]
    return {"label_maps": Strings.concatenate(columns), "label_of_value": merged}


def _base_names(paths: Strings) -> list[str]:
    return [os.path.basename(paths[row]) for row in range(len(paths))]  # noqa: PTH119, a Path for each would be slow


def _length(path: str) -> int:
    """Return the bytes of a file, 0 where there is none."""
    try:
        return os.stat(path).st_size  # noqa: PTH116, a Path for each would be slow
    except OSError:
        return 0
