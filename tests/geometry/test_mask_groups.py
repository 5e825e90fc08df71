"""Run arithmetic against bitmaps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ymir_tmi.geometry.mask_groups import common_runs, group_overlaps, runs_of
from ymir_tmi.geometry.masks import Masks


def random_bitmaps(seed: int, count: int, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Blobs, noise, one full and one that reaches both ends of the numbering."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    centres = rng.uniform(0, 1, (count, 2, 1, 1)) * np.array([height, width])[:, None, None]
    bitmaps = np.hypot(y - centres[:, 0], x - centres[:, 1]) < rng.uniform(1, height, (count, 1, 1))
    bitmaps[0] = rng.random((height, width)) < 0.5
    bitmaps[1] = True
    bitmaps[2] = False
    bitmaps[2, 0, 0] = bitmaps[2, -1, -1] = True
    return np.asarray(bitmaps)


@pytest.mark.parametrize("size", [(7, 5), (60, 80), (1, 300), (400, 300)])
def test_runs_are_the_pixels_of_the_mask(size: tuple[int, int]) -> None:
    bitmaps = random_bitmaps(0, 6, *size)
    runs = runs_of(Masks.encode(bitmaps))
    painted = np.zeros((len(bitmaps), bitmaps[0].size), np.bool_)
    for start, end, owner in zip(*runs, strict=True):
        assert start < end
        painted[owner, start:end] = True
    expected = bitmaps.transpose(0, 2, 1).reshape(len(bitmaps), -1)
    np.testing.assert_array_equal(painted, expected)


def test_no_masks_no_runs() -> None:
    assert [len(part) for part in runs_of(Masks((5, 4), ()))] == [0, 0, 0]


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_overlaps_equal_those_of_bitmaps(share: float, seed: int) -> None:
    bitmaps = random_bitmaps(seed, 12, 30, 40)
    groups = np.random.default_rng(seed).integers(0, 4, 12)
    groups[:4] = range(4)
    runs = runs_of(Masks.encode(bitmaps))
    overlaps = group_overlaps(runs, groups, 30 * 40, share)
    painted = np.zeros((4, 30 * 40), np.bool_)
    for start, end, group in zip(*common_runs(runs, groups, 30 * 40, share), strict=True):
        assert start < end
        painted[group, start:end] = True
    for group in range(4):
        common = bitmaps[groups == group].mean(0) >= share
        np.testing.assert_array_equal(painted[group].reshape(40, 30).T, common)
        assert overlaps.areas[group] == common.sum()
        np.testing.assert_array_equal(overlaps.shared[groups == group], (bitmaps & common).sum((1, 2))[groups == group])
