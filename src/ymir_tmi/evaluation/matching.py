"""Which detection found which object, at one IoU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.data.index import CROWD, DatasetIndex
from ymir_tmi.evaluation.masks import Counts, ObjectMasks
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.rotated import aligned_rotated_iou, hulls, neighbours

MATCH_IOU = 0.5
_PAIRS_AT_ONCE = 1 << 14  # rotated ones; what they need stays in the processor's cache

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """The detections of all images, image after image.

    Attributes:
        images: (D,) int64, row of the image in the index.
        boxes: (D, 4) float64 xyxy in pixels of the picture, or (D, 5) rotated boxes; then the index has such too.
        scores: (D,) float64.
        labels: (D,) int64, position in the class names of the index.
        masks: (D,) run lengths of the masks, in pictures of the objects' sizes, or None where boxes have none.
    """

    images: Rows
    boxes: Floats
    scores: Floats
    labels: Rows
    masks: Counts | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def at_least(self, threshold: float) -> Found:
        """Return the detections that score `threshold` or more."""
        return self[self.scores >= threshold]

    def __getitem__(self, rows: Any) -> Found:
        """Return the chosen detections (a slice, a mask or row numbers)."""
        masks = None if self.masks is None else self.masks[rows]
        return Found(self.images[rows], self.boxes[rows], self.scores[rows], self.labels[rows], masks)


class Pairs(NamedTuple):
    """A detection and an object of its image that overlap by at least 0.5, row by row, whatever their classes.

    Attributes:
        detections: (P,) int64.
        objects: (P,) int64, row in the annotations.
        ious: (P,) float64; with a crowd region, the part of the detection that lies inside it.
    """

    detections: Rows
    objects: Rows
    ious: Floats


@dataclass(frozen=True)
class Matches:
    """The object that each detection found.

    Whatever scores lower has no influence on a detection's match: the matches among the detections above a threshold
    are those of all detections, cut at the threshold.

    Attributes:
        objects: (D,) int64, row of the object in the annotations, or -1.
        ious: (D,) float64, overlap with it, 0 where there is none.
        hit: (D,) bool, the object counts: a true positive.
        ignored: (D,) bool, the object is a crowd region or difficult: neither a true nor a false positive.
    """

    objects: Rows
    ious: Floats
    hit: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]


def match(index: DatasetIndex, found: Found, *, across_classes: bool = False, pairs: Pairs | None = None) -> Matches:
    """Match detections with objects at IoU 0.5, as COCO does: the best detection chooses first.

    A detection takes the object that it overlaps most among those of its image and class that are not taken yet and
    overlap by at least 0.5; one that counts goes before one that is ignored. A crowd region can be taken any number of
    times, and its overlap is the part of the detection that lies inside it.

    Args:
        index: the annotations.
        found: the detections.
        across_classes: Also match objects of other classes (unless they are ignored), after those of the own class.
        pairs: those of `overlapping_pairs`, where they are known.
    """
    detections, objects, ious = pairs or overlapping_pairs(index, found)
    ignored = index.flags != 0
    wrong_class = found.labels[detections] != index.labels[objects]
    usable = ~wrong_class | (~ignored[objects] if across_classes else False)
    detections, objects, ious, wrong_class = (column[usable] for column in (detections, objects, ious, wrong_class))

    rank = np.empty(len(found), np.int64)
    rank[np.argsort(-found.scores, kind="stable")] = np.arange(len(found))
    # By detection, best first; within one the object it would take first. Of equal overlaps COCO takes the last.
    order = np.lexsort((-objects, -ious, ignored[objects], wrong_class, rank[detections]))
    chosen = order[_choose(detections[order], objects[order], len(found), (index.flags & CROWD) != 0)]
    matched = np.full(len(found), -1, np.int64)
    matched[detections[chosen]] = objects[chosen]
    overlap = np.zeros(len(found))
    overlap[detections[chosen]] = ious[chosen]
    has_object = matched >= 0
    is_ignored = np.zeros(len(found), bool)
    is_ignored[has_object] = ignored[matched[has_object]]
    return Matches(matched, overlap, has_object & ~is_ignored, is_ignored)


def _choose(detections: Rows, objects: Rows, count: int, crowd: npt.NDArray[np.bool_]) -> Rows:
    """Return the pairs whose detection and object are both free when their turn comes."""
    # Each choice depends on those before it; the loop runs over overlapping pairs only, a small part of the detections.
    waiting, taken, chosen = bytearray(b"\1" * count), bytearray(len(crowd)), []
    for pair, (detection, obj) in enumerate(zip(detections.tolist(), objects.tolist(), strict=True)):
        if waiting[detection] and not taken[obj]:
            waiting[detection] = False
            taken[obj] = not crowd[obj]
            chosen.append(pair)
    return np.asarray(chosen, np.int64)


def overlapping_pairs(index: DatasetIndex, found: Found, masks: ObjectMasks | None = None) -> Pairs:
    """Return every detection and object of an image that overlap by at least 0.5.

    Their masks do, where those of the objects are given, else their boxes.
    """
    if masks is not None:
        return _mask_pairs(index, found, masks)
    return _upright_pairs(index, found) if index.rotated is None else _rotated_pairs(index, found, index.rotated)


def _mask_pairs(index: DatasetIndex, found: Found, masks: ObjectMasks) -> Pairs:
    assert found.masks is not None
    crowd = (index.flags & CROWD) != 0
    pairs = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for of_image, rows in _images(index, found):
        image = int(found.images[of_image.start])
        own = Masks(masks.size(image), tuple(found.masks[of_image]))
        pairs.append(_close_pairs(own.iou(masks.of(image, rows), crowd[rows]), of_image, rows))
    return _joined(pairs)


def _upright_pairs(index: DatasetIndex, found: Found) -> Pairs:
    crowd = (index.flags & CROWD) != 0
    pairs = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for of_image, rows in _images(index, found):
        ious = overlaps(found.boxes[of_image], index.boxes[rows].astype(float), crowd[rows])
        pairs.append(_close_pairs(ious, of_image, rows))
    return _joined(pairs)


def _close_pairs(ious: Floats, of_image: slice, rows: slice) -> Pairs:
    """Return the pairs of one image from the overlaps of its detections, which are `of_image`, with its objects."""
    detections, objects = np.nonzero(ious >= MATCH_IOU)
    return Pairs(detections + of_image.start, objects + rows.start, ious[detections, objects])


def _joined(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _rotated_pairs(index: DatasetIndex, found: Found, rotated: npt.NDArray[np.float32]) -> Pairs:
    boxes, objects = torch.from_numpy(found.boxes), torch.from_numpy(rotated).double()
    crowd = torch.from_numpy((index.flags & CROWD) != 0)
    near = [(torch.zeros(0, dtype=torch.int64),) * 2]
    for of_image, rows in _images(index, found):
        one, other = neighbours(boxes[of_image], objects[rows])
        near.append((one + of_image.start, other + rows.start))
    one, other = (torch.cat(column) for column in zip(*near, strict=True))

    parts = [Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for start in range(0, len(one), _PAIRS_AT_ONCE):
        some = slice(start, start + _PAIRS_AT_ONCE)
        overlap = _rotated_overlaps(boxes[one[some]], objects[other[some]], crowd[other[some]])
        enough = overlap >= MATCH_IOU
        parts.append(Pairs(one[some][enough].numpy(), other[some][enough].numpy(), overlap[enough].numpy()))
    return _joined(parts)


def _images(index: DatasetIndex, found: Found) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of the detections and of the objects of each image that has both."""
    starts = np.searchsorted(found.images, np.arange(len(index) + 1)).tolist()
    for image in range(len(index)):
        of_image, rows = slice(starts[image], starts[image + 1]), index.rows(image)
        if of_image.start < of_image.stop and rows.start < rows.stop:
            yield of_image, rows


def _rotated_overlaps(boxes: Tensor, objects: Tensor, crowd: Tensor) -> Tensor:
    """Return (n) the IoU of (n, 5) `boxes` and `objects`, or less than 0.5; with a crowd, the part of the box in it."""
    own, other = boxes[:, 2] * boxes[:, 3], objects[:, 2] * objects[:, 3]
    one, two = hulls(boxes), hulls(objects)
    sides = torch.minimum(one[:, 2:], two[:, 2:]) - torch.maximum(one[:, :2], two[:, :2])
    # Boxes share no more than their hulls do, nor more than the smaller of them: few pairs need a closer look.
    most = sides.clamp(min=0).prod(1).minimum(own).minimum(other)
    overlap = torch.where(most > 0, most / torch.where(crowd, own, own + other - most), 0)
    close = overlap >= MATCH_IOU - 1e-9
    ious = aligned_rotated_iou(boxes[close], objects[close])
    shared = ious * (own + other)[close] / (1 + ious)
    overlap[close] = torch.where(crowd[close], shared / own[close], ious)
    return overlap


def overlaps(boxes: Floats, objects: Floats, crowd: npt.NDArray[np.bool_]) -> Floats:
    """Return (n, m) the IoU of (n, 4) `boxes` with (m, 4) `objects`, xyxy; with a crowd, the part of the box in it."""
    corner = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    sides = np.minimum(boxes[:, None, 2:], objects[None, :, 2:]) - corner
    shared = np.prod(sides.clip(0), axis=2)
    own = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    whole = own + np.prod(objects[:, 2:] - objects[:, :2], axis=1) - shared
    denominator = np.where(crowd, own, whole)
    ious: Floats = np.divide(shared, denominator, out=np.zeros_like(shared), where=denominator > 0)
    return ious
