"""Arithmetic on masks as runs of pixels, column by column: what it costs follows from outlines, not from areas."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.runs import Runs, runs_inside, unpack

Whole = npt.NDArray[np.int64]


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
    return runs_inside(unpack(masks.counts))


def common_runs(runs: Runs, groups: Whole, pixels: int, share: float) -> Runs:
    """Return the pixels that enough masks of each group cover; the owners are the groups.

    Args:
        runs: of n masks.
        groups: (n,) group of each mask, from 0; none is empty.
        pixels: of the picture.
        share: in (0, 1], of the masks of a group.
    """
    stretches = _stretches(runs, groups, pixels, share)
    starts = stretches.points[stretches.is_common]
    owners = stretches.owners[stretches.is_common]
    return Runs(starts - owners * pixels, starts + stretches.lengths[stretches.is_common] - owners * pixels, owners)


def group_overlaps(runs: Runs, groups: Whole, pixels: int, share: float) -> GroupOverlaps:
    """Return how each mask overlaps the pixels that `common_runs` returns."""
    stretches = _stretches(runs, groups, pixels, share)
    counted = np.where(stretches.is_common, stretches.lengths, 0)
    before = np.concatenate([[0], np.cumsum(counted)])
    shared = np.bincount(runs.owners, before[stretches.last] - before[stretches.first], minlength=len(groups))
    areas = np.bincount(stretches.owners, counted, minlength=int(groups.max()) + 1)
    return GroupOverlaps(areas.astype(np.int64), shared.astype(np.int64))


class _Stretches(NamedTuple):
    """The P stretches of pixels between neighbouring borders of the runs of a group, group after group.

    Attributes:
        points: (P,) first pixel, plus `pixels` for each group before.
        lengths: (P,) in pixels.
        owners: (P,) group.
        is_common: (P,) whether enough masks of the group cover it.
        first, last: (R,) the stretch that each run begins with, and that after its last one.
    """

    points: Whole
    lengths: Whole
    owners: Whole
    is_common: npt.NDArray[np.bool_]
    first: Whole
    last: Whole


def _stretches(runs: Runs, groups: Whole, pixels: int, share: float) -> _Stretches:
    sizes = np.bincount(groups)
    shift = groups[runs.owners] * pixels  # each group in its own stretch of numbers
    points, where = np.unique(np.concatenate([runs.starts + shift, runs.ends + shift]), return_inverse=True)
    steps = np.bincount(where, np.repeat([1, -1], len(runs.starts)), minlength=len(points))
    # Between two points as many members cover the pixels as runs have begun and not ended; none beyond a group's last.
    covered = np.cumsum(steps)
    owners = np.minimum(points // pixels, len(sizes) - 1)
    return _Stretches(
        points=points,
        lengths=np.diff(points, append=points[-1:]),
        owners=owners,
        is_common=(covered > 0) & (covered >= share * sizes[owners]),
        first=where[: len(runs.starts)],
        last=where[len(runs.starts) :],
    )
