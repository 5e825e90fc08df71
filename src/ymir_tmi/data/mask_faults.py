"""What is wrong with the masks of a data set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.index import DatasetIndex
from ymir_tmi.data.segments import image_blocks, read_segments, segment_problem, segment_texts
from ymir_tmi.geometry.polygons import Polygons

_NOTICEABLE = 1.0  # pixels
_UNLIKE = 0.1  # of the longer side of a box

Mask = npt.NDArray[np.bool_]
Words = tuple[str, str]
"""What is said of one annotation, and of several."""

_WORDS: dict[str, Words] = {
    "without": (
        "object has no mask, unlike others; its box is taken for it",
        "objects have no mask, unlike others; their boxes are taken for it",
    ),
    "empty": ("mask is empty; its box is taken instead", "masks are empty; their boxes are taken instead"),
    "few": (
        "object has a polygon of fewer than three corners, which is left out",
        "objects have polygons of fewer than three corners, which are left out",
    ),
    "outside": (
        f"mask reaches out of its picture by more than {_NOTICEABLE:g} pixel; it will be cut",
        f"masks reach out of their picture by more than {_NOTICEABLE:g} pixel; they will be cut",
    ),
    "unlike": (
        "mask does not fit its box; training takes the box around the mask",
        "masks do not fit their boxes; training takes the boxes around the masks",
    ),
}


class MaskFaults(NamedTuple):
    """The faults of the masks of M annotations.

    Attributes:
        wrong: what cannot be understood, by the row of the annotation.
        others: what training can do with, and for which of the annotations it is so.
    """

    wrong: dict[int, str]
    others: dict[Words, Mask]


def mask_faults(index: DatasetIndex) -> MaskFaults:
    """Return what is wrong with the masks of an index; nothing where it has none, or rotated boxes."""
    wrong: dict[int, str] = {}
    columns = {name: np.zeros(len(index.boxes), np.bool_) for name in _WORDS}
    if index.segments is not None and index.rotated is None:
        for rows, sizes, texts in _blocks(index):
            outlines, problems = _read(texts, sizes)
            wrong |= {rows.start + row: problem for row, problem in problems.items()}
            for name, fault in _faults(outlines, texts, sizes, index.boxes[rows]).items():
                columns[name][rows] = fault & ~np.isin(np.arange(len(texts)), list(problems))
    others = {words: columns[name] for name, words in _WORDS.items()}
    return MaskFaults(wrong, others)


def _blocks(index: DatasetIndex) -> Iterator[tuple[slice, npt.NDArray[np.int32], list[str]]]:
    for images, rows in image_blocks(index):
        sizes = np.repeat(index.sizes[images], np.diff(index.starts)[images], axis=0)
        yield rows, sizes, segment_texts(index, rows)


def _read(texts: list[str], sizes: npt.NDArray[np.int32]) -> tuple[Polygons, dict[int, str]]:
    """Return the outlines of those that can be understood, and what is wrong with the others."""
    try:
        return read_segments(texts, sizes), {}
    except ValueError:
        found = {row: segment_problem(text, sizes[row]) for row, text in enumerate(texts) if text}
        problems = {row: problem for row, problem in found.items() if problem}
        return read_segments(["" if row in problems else text for row, text in enumerate(texts)], sizes), problems


def _faults(
    outlines: Polygons, texts: list[str], sizes: npt.NDArray[np.int32], boxes: npt.NDArray[np.float32]
) -> dict[str, Mask]:
    hulls = outlines.hulls()
    given = np.array([bool(text) for text in texts], np.bool_)
    empty = given & (hulls[:, 2:] <= hulls[:, :2]).any(axis=1)
    limits = np.where(sizes > 0, sizes, np.inf)
    beyond = np.maximum(-hulls[:, :2], hulls[:, 2:] - limits).max(axis=1, initial=0)
    inside = np.concatenate([hulls[:, :2].clip(0, limits), hulls[:, 2:].clip(0, limits)], axis=1)
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    away = np.abs(inside - boxes).max(axis=1, initial=0)
    return {
        "without": ~given,
        "empty": empty,
        "few": np.array([text.startswith("[") and any(len(ring) < 6 for ring in _rings(text)) for text in texts], bool),
        "outside": beyond > _NOTICEABLE,
        "unlike": given & ~empty & (away > np.maximum(2 * _NOTICEABLE, _UNLIKE * longer)),
    }


def _rings(text: str) -> list[list[float]]:
    rings = json.loads(text)
    return rings if all(isinstance(ring, list) for ring in rings) else []
