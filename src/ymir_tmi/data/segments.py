"""COCO's segmentations, which an index keeps as text, as outlines (https://cocodataset.org/#format-data).

A segmentation is a list of polygons [x1, y1, x2, y2, ...], or a mask {"size": [height, width], "counts": ...} whose run
lengths are a list of numbers or a compressed text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.errors import DataError
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.polygons import Polygons
from ymir_tmi.geometry.runs import Counts, unpack

Sizes = npt.NDArray[np.int32]
Heights = npt.NDArray[np.int64]
MaskReader = Callable[[Sequence[Any], Sizes], tuple[Counts, Heights]]
Result = TypeVar("Result")

_AT_ONCE = 1 << 12  # annotations
_KEPT = 1 << 12  # images, with some kilobytes each

_UNSOUND = (TypeError, ValueError, KeyError, OverflowError, AttributeError)  # what a wrong segmentation raises


def read_segments(texts: Sequence[str], sizes: Sizes) -> Polygons:
    """Return the outlines of n objects; those without a segmentation ("") have no edges.

    Args:
        texts: n segmentations.
        sizes: (n, 2) width and height of their pictures, 0 where they are not known.

    Raises:
        ValueError: a segmentation is wrong; `segment_problem` says in which way.
    """
    outlines_of = (_polygons, _outlined(_listed_masks), _outlined(_packed_masks))
    found = list(_by_kind(texts, sizes, outlines_of))
    if not found:
        return Polygons.from_rings([])
    order = np.argsort(np.concatenate([rows for rows, _ in found]))
    return Polygons.concatenate([outlines for _, outlines in found]).take(order)


def find_empty(texts: Sequence[str], sizes: Sizes) -> npt.NDArray[np.bool_]:
    """Return (n,) which objects have no segmentation, or one that no part of the picture belongs to.

    It says of masks of pixels what their outlines would, in a tenth of the time; arguments and errors are those of
    `read_segments`.
    """
    empty = np.ones(len(texts), np.bool_)
    for rows, without in _by_kind(texts, sizes, (_flat_polygons, _unfilled(_listed_masks), _unfilled(_packed_masks))):
        empty[rows] = without
    return empty


def segment_problem(text: str, size: npt.NDArray[np.int32]) -> str | None:
    """Say what is wrong with one segmentation of a picture of a size (width, height), or None."""
    try:
        read_segments([text], size[None])
    except ValueError as error:
        if isinstance(error.__cause__, _SegmentError):
            return str(error)
        entry = json.loads(text)
        return _NO_MASK if isinstance(entry, dict) else _NO_POLYGONS if isinstance(entry, list) else _NEITHER
    return None


def image_outlines(index: DatasetIndex, image: int, size: tuple[int, int] | None = None) -> Polygons:
    """Return the outlines of the objects of one image.

    Args:
        index: a data set with segmentations.
        image: which image.
        size: (width, height) of the picture; by default that which the index states.

    Raises:
        DataError: a segmentation is wrong.
    """
    rows = index.rows(image)
    texts = segment_texts(index, rows)
    sizes = np.tile(np.array(size or index.sizes[image], np.int32), (len(texts), 1))
    try:
        return read_segments(texts, sizes)
    except ValueError:
        problems = [segment_problem(text, sizes[0]) for text in texts]
        row, problem = next((row, problem) for row, problem in enumerate(problems) if problem)
        raise wrong_mask(index, rows.start + row, problem) from None


def wrong_mask(index: DatasetIndex, row: int, problem: str) -> DataError:
    """Return the error that says what is wrong with the mask of the annotation in a row."""
    image = int(np.searchsorted(index.starts, row, side="right")) - 1
    box = ", ".join(f"{value:.6g}" for value in index.boxes[row])
    return DataError(
        f"the mask of the {index.class_names[index.labels[row]]} at {box}: {problem}",
        where=index.paths[image],
        fix="`ymir-tmi check` lists more of them.",
    )


class OutlineReader:
    """Reads the outlines of one image after another and keeps those read last: to read is slower than to use them."""

    def __init__(self, index: DatasetIndex) -> None:
        self._index = index
        self._kept: dict[int, Polygons] = {}

    def read(self, image: int, size: tuple[int, int]) -> Polygons:
        """Return what `image_outlines` does."""
        outlines = self._kept.pop(image, None) or image_outlines(self._index, image, size)
        self._kept[image] = outlines
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return outlines


def image_blocks(index: DatasetIndex) -> Iterator[tuple[slice, slice]]:
    """Yield consecutive images that together have up to some thousand annotations, or one with more, and their rows."""
    first = 0
    while first < len(index):
        last = int(np.searchsorted(index.starts, index.starts[first] + _AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield slice(first, last), slice(int(index.starts[first]), int(index.starts[last]))
        first = last


def segment_texts(index: DatasetIndex, rows: slice) -> list[str]:
    """Return the segmentations of some annotations as text."""
    assert index.segments is not None
    return [index.segments[row] for row in range(rows.start, rows.stop)]


def polygons_text(outlines: Polygons, row: int) -> str:
    """Return an object as polygons, to 1/10000 pixel; "" if it has no area. Holes are filled."""
    rings = [np.round(ring, 4).tolist() for part in outlines.rings(row) for ring in part if len(ring) >= 6]
    return json.dumps(rings) if rings else ""


def mask_text(outlines: Polygons, size: tuple[int, int]) -> str:
    """Return the pixels of a picture of a size (width, height) that are inside of any object, as compressed runs."""
    [entry] = Masks.encode(outlines.bitmap(*size)[None]).entries()
    return json.dumps({"size": entry["size"], "counts": entry["counts"].decode()})


class _SegmentError(ValueError):
    """What is wrong with a segmentation, in words for the user."""


_NO_POLYGONS = "a polygon is not a list of finite numbers, x and y in turns"
_NO_MASK = "this is not {size: [height, width], counts: run lengths}, these a list or compressed"

_NEITHER = "this is neither a list of polygons nor {size: [height, width], counts: run lengths}"


def _kind(entry: Any) -> int:
    """Return 0 for what should be polygons, 1 for a list of run lengths and 2 for compressed ones."""
    return 0 if not isinstance(entry, dict) else 2 if isinstance(entry.get("counts"), str) else 1


def _by_kind(
    texts: Sequence[str], sizes: Sizes, readers: Sequence[Callable[[Sequence[Any], Sizes], Result]]
) -> Iterator[tuple[npt.NDArray[np.int64], Result]]:
    """Yield what the reader of each kind makes of the segmentations that are of it, and which these are."""
    entries = json.loads(f"[{','.join(text or '[]' for text in texts)}]")
    kinds = np.array([_kind(entry) for entry in entries], np.int64)
    for kind, read in enumerate(readers):
        members = np.flatnonzero(kinds == kind)
        if len(members):
            try:
                yield members, read([entries[row] for row in members], sizes[members])
            except _UNSOUND as error:
                raise ValueError(str(error)) from error


def _outlined(read: MaskReader) -> Callable[[Sequence[Any], Sizes], Polygons]:
    def outlines(entries: Sequence[Any], sizes: Sizes) -> Polygons:
        counts, heights = read(entries, sizes)
        return Polygons.from_run_lengths(counts, np.maximum(heights, 1))

    return outlines


def _unfilled(read: MaskReader) -> Callable[[Sequence[Any], Sizes], npt.NDArray[np.bool_]]:
    return lambda entries, sizes: read(entries, sizes)[0].areas == 0


def _flat_polygons(entries: Sequence[Any], sizes: Sizes) -> npt.NDArray[np.bool_]:
    hulls = _polygons(entries, sizes).hulls()
    return np.asarray((hulls[:, 2:] <= hulls[:, :2]).any(axis=1), np.bool_)


def _polygons(entries: Sequence[Any], _: Sizes) -> Polygons:
    if not all(isinstance(rings, list) and all(isinstance(ring, list) for ring in rings) for rings in entries):
        raise ValueError
    if any(len(ring) % 2 for rings in entries for ring in rings):
        raise _SegmentError("a polygon has an x without a y")
    polygons = Polygons.from_rings(entries)
    left_out = [float(value) for rings in entries for ring in rings if len(ring) < 6 for value in ring]
    if not (np.isfinite(polygons.edges).all() and np.isfinite(left_out).all()):
        raise ValueError
    return polygons


def _listed_masks(entries: Sequence[Any], sizes: Sizes) -> tuple[Counts, Heights]:
    lengths = [np.array(entry["counts"]) for entry in entries]
    if any(one.ndim != 1 or one.dtype.kind != "i" for one in lengths):
        raise ValueError
    return _masks(Counts(np.concatenate(lengths), np.array(list(map(len, lengths)))), entries, sizes)


def _packed_masks(entries: Sequence[Any], sizes: Sizes) -> tuple[Counts, Heights]:
    return _masks(unpack([entry["counts"].encode() for entry in entries]), entries, sizes)


def _masks(counts: Counts, entries: Sequence[Any], sizes: Sizes) -> tuple[Counts, Heights]:
    stated = np.array([entry["size"] for entry in entries], np.int64).reshape(-1, 2)[:, ::-1]
    wrong = np.flatnonzero(((stated != sizes) & (sizes > 0)).any(axis=1))
    if len(wrong):
        (width, height), (own_width, own_height) = sizes[wrong[0]], stated[wrong[0]]
        raise _SegmentError(f"it is {own_width} x {own_height} pixels, the picture {width} x {height}")
    if (counts.values < 0).any() or (counts.totals != stated.prod(axis=1)).any():
        raise _SegmentError("its run lengths do not add up to the pixels of its size")
    return counts, stated[:, 1]
