"""COCO's run lengths: a mask column by column, as the lengths of its runs outside and inside, in turns.

Source: the format of https://github.com/cocodataset/cocoapi (mask API). All masks of a picture are treated at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.geometry.ragged import spans

Ints = npt.NDArray[np.int64]

_MOST_CHARACTERS = 12  # of one number: more do not fit into 64 bits


class Counts(NamedTuple):
    """The run lengths of n masks.

    Attributes:
        values: all lengths, mask after mask; the first of each mask is outside.
        numbers: (n,) how many belong to each mask.
    """

    values: Ints
    numbers: Ints

    @property
    def totals(self) -> Ints:
        """(n,) the pixels of each picture."""
        return np.bincount(self._owners, self.values, len(self.numbers)).astype(np.int64)

    @property
    def areas(self) -> Ints:
        """(n,) the pixels inside each mask."""
        inside = _places(self.numbers) % 2
        return np.bincount(self._owners, self.values * inside, len(self.numbers)).astype(np.int64)

    @property
    def _owners(self) -> Ints:
        return np.repeat(np.arange(len(self.numbers)), self.numbers)


class Runs(NamedTuple):
    """The R runs inside of n masks: pixel y of column x has the number x * height + y.

    Attributes:
        starts: (R,) first pixel.
        ends: (R,) the pixel after the last.
        owners: (R,) which mask, ascending.
    """

    starts: Ints
    ends: Ints
    owners: Ints


class ColumnRuns(NamedTuple):
    """The runs inside of n masks, each within one column: rows `top` to `bottom` - 1 of `column`."""

    owner: Ints
    column: Ints
    top: Ints
    bottom: Ints


def unpack(texts: Sequence[bytes]) -> Counts:
    """Return the run lengths that COCO's compressed texts stand for.

    Raises:
        ValueError: a text has other characters, or ends within a number.
    """
    data = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    text_ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    if ((data < 0) | (data > 63)).any():
        raise ValueError("these are no compressed run lengths")
    ends = np.flatnonzero(data & 32 == 0)  # of the numbers
    if not np.isin(text_ends[text_ends > 0] - 1, ends).all():
        raise ValueError("compressed run lengths are cut short")
    if not len(ends):
        return Counts(ends, np.zeros(len(texts), np.int64))
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MOST_CHARACTERS:
        raise ValueError("these are no compressed run lengths")
    places = np.arange(len(data)) - np.repeat(starts, lengths)
    values = np.add.reduceat((data & 31) << (5 * places), starts)
    values -= np.where(data[ends] & 16, 1 << (5 * lengths), 0)  # the sign
    numbers = np.diff(np.searchsorted(ends, text_ends), prepend=0)
    return Counts(_add_before_last(values, numbers), numbers)


def runs_inside(counts: Counts) -> Runs:
    """Return the runs of the pixels that the masks have."""
    ends = _cumulate(counts.values, counts.numbers)
    inside = (_places(counts.numbers) % 2 == 1) & (counts.values > 0)
    return Runs((ends - counts.values)[inside], ends[inside], counts._owners[inside])


def column_runs(counts: Counts, heights: Ints) -> ColumnRuns:
    """Return the runs inside the masks of pictures that are `heights` (n,) pixels high, cut at the ends of columns."""
    starts, ends, owners = runs_inside(counts)
    height = heights[owners]
    first, last = starts // height, (ends - 1) // height
    number = last - first + 1
    run = np.repeat(np.arange(len(owners)), number)
    column = first[run] + _places(number)
    top = np.maximum(starts[run] - column * height[run], 0)
    bottom = np.minimum(ends[run] - column * height[run], height[run])
    return ColumnRuns(owners[run], column, top, bottom)


def outline_edges(runs: ColumnRuns) -> tuple[Ints, Ints]:
    """Return the edges along the sides of pixels that bound the masks, with the inside to the right of their direction.

    Returns:
        (E, 2, 2) from and to (x, y), and (E,) the mask of each, ascending.
    """
    if not len(runs.owner):
        return np.zeros((0, 2, 2), np.int64), runs.owner
    (upright, upright_owner), (level, level_owner) = _vertical(runs), _horizontal(runs)
    edges, owner = np.concatenate([upright, level]), np.concatenate([upright_owner, level_owner])
    order = np.argsort(owner, kind="stable")
    return edges[order], owner[order]


def _vertical(runs: ColumnRuns) -> tuple[Ints, Ints]:
    """Between two columns there is an edge where one of them is inside and the other is not."""
    owner = np.tile(runs.owner, 4)
    is_left = np.repeat([True, False], 2 * len(runs.owner))  # the run is in the column left of the line
    x = np.tile(runs.column, 4) + is_left
    y = np.concatenate([runs.top, runs.bottom, runs.top, runs.bottom])
    order = np.argsort((owner * (x.max() + 1) + x) * (y.max() + 1) + y, kind="stable")
    owner, x, y = owner[order][::2], x[order][::2], y[order].reshape(-1, 2)
    inside_left = np.cumsum(is_left[order])[::2] % 2 == 1
    y = np.where(inside_left[:, None], y, y[:, ::-1])
    kept = y[:, 0] != y[:, 1]
    return np.stack([np.stack([x, x], 1), y], axis=2)[kept], owner[kept]


def _horizontal(runs: ColumnRuns) -> tuple[Ints, Ints]:
    """Every run has an edge above and one below; those that continue one another are joined."""
    owner = np.tile(runs.owner, 2)
    is_below = np.repeat([False, True], len(runs.owner))
    x, y = np.tile(runs.column, 2), np.concatenate([runs.top, runs.bottom])
    key = ((owner * 2 + is_below) * (y.max() + 1) + y) * (x.max() + 2) + x
    order = np.argsort(key)
    is_gap = np.diff(key[order]) != 1
    first, last = order[np.concatenate([[True], is_gap])], order[np.concatenate([is_gap, [True]])]
    span = np.stack([x[first], x[last] + 1], axis=1)
    span = np.where(is_below[first, None], span[:, ::-1], span)
    return np.stack([span, np.stack([y[first]] * 2, 1)], axis=2), owner[first]


def _places(numbers: Ints) -> Ints:
    """Return 0, 1, ..., numbers[0] - 1, 0, 1, ..., numbers[1] - 1, ..."""
    return spans(np.zeros_like(numbers), numbers)


def _cumulate(values: Ints, numbers: Ints) -> Ints:
    """Return the sums of `values` up to each place, anew for each of the groups."""
    sums = np.cumsum(values)
    before = np.concatenate([[0], sums])[np.cumsum(numbers) - numbers]
    cumulated: Ints = sums - np.repeat(before, numbers)
    return cumulated


def _add_before_last(values: Ints, numbers: Ints) -> Ints:
    """Add to each value, from the fourth of a mask on, the sum that the value before the last one became."""
    places = _places(numbers)
    chain = np.where(places == 0, 0, 2 - places % 2)  # the first value stands alone; then odd and even places
    group = np.repeat(np.arange(len(numbers)), numbers) * 3 + chain
    order = np.argsort(group, kind="stable")
    sums = np.empty_like(values)
    sums[order] = _cumulate(values[order], np.bincount(group, minlength=3 * len(numbers)))
    return sums
