"""Arithmetic on masks as runs of pixels, column by column: what it costs follows from outlines, not from areas."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.geometry.masks import Masks

Whole = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """The R runs of n masks: pixel y of column x has the number x * height + y.

    Attributes:
        starts: (R,) first pixel.
        ends: (R,) the pixel after the last.
        owners: (R,) which mask.
    """

    starts: Whole
    ends: Whole
    owners: Whole


class GroupOverlaps(NamedTuple):
    """How masks lie in what enough members of their group cover.

    Attributes:
        areas: (G,) pixels that enough members of each group cover.
        shared: (n,) pixels of each mask among them.
    """

    areas: Whole
    shared: Whole


def runs_of(masks: Masks) -> Runs:
    """Return the runs of the pixels that masks have."""
    # Runs outside and inside of the mask take turns: the first border begins the first run inside, the second ends it.
    borders = [np.cumsum(_counts(counts)) for counts in masks.counts]
    pairs = [ends[: len(ends) // 2 * 2].reshape(-1, 2) for ends in borders]
    joined = np.concatenate([np.zeros((0, 2), np.int64), *pairs])
    owners = np.repeat(np.arange(len(pairs)), [len(pair) for pair in pairs])
    return Runs(joined[:, 0], joined[:, 1], owners)


def group_overlaps(runs: Runs, groups: Whole, pixels: int, share: float) -> GroupOverlaps:
    """Return how each mask overlaps the pixels that at least `share` of the masks of its group cover.

    Args:
        runs: of n masks.
        groups: (n,) group of each mask, from 0; none is empty.
        pixels: of the picture.
        share: in (0, 1].
    """
    sizes = np.bincount(groups)
    shift = groups[runs.owners] * pixels  # each group in its own stretch of numbers
    starts, ends = runs.starts + shift, runs.ends + shift
    points, where = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    steps = np.bincount(where, np.repeat([1, -1], len(starts)), minlength=len(points))
    lengths = np.diff(points, append=points[-1:])
    # Between two points as many members cover the pixels as runs have begun and not ended; none beyond a group's last.
    covered = np.cumsum(steps)
    owner = np.minimum(points // pixels, len(sizes) - 1)
    counted = np.where((covered > 0) & (covered >= share * sizes[owner]), lengths, 0)
    before = np.concatenate([[0], np.cumsum(counted)])
    first, last = where[: len(starts)], where[len(starts) :]
    shared = np.bincount(runs.owners, before[last] - before[first], minlength=len(groups))
    areas = np.bincount(owner, counted, minlength=len(sizes))
    return GroupOverlaps(areas.astype(np.int64), shared.astype(np.int64))


def _counts(compressed: bytes) -> Whole:
    """Return the lengths of the runs that COCO has written as text: five bits a character, the lowest first.

    From the fourth on, a length is written as the difference from the last but one before it.
    """
    characters: npt.NDArray[Any] = np.frombuffer(compressed, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero((characters & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(characters)) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((characters & 31) << (5 * places), starts)
    negative = (characters[ends] & 16) != 0
    values[negative] -= 1 << 5 * (places[ends[negative]] + 1)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
