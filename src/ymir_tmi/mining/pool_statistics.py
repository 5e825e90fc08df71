"""Numbers over the regions of a whole pool, however many they are: each pass over them keeps some megabytes at most.

Values are float32 and not negative. The bits of such numbers, read as whole numbers, are in the order of the numbers;
so a value of a given rank is found by counting the upper halves of all bit patterns, then the lower halves of those
with the right upper half.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float32]

_HALF = 16
_PATTERNS = 1 << _HALF


def percentile(batches: Callable[[], Iterable[Values]], share: float) -> float:
    """Return the value below which `share` of all values lie, interpolated as `numpy.percentile` does.

    Args:
        batches: returns all values, in batches of any size; called twice.
        share: in [0, 1].
    """
    uppers = np.zeros(_PATTERNS, np.int64)
    for values in batches():
        np.add.at(uppers, _bits(values) >> _HALF, 1)
    rank = share * (int(uppers.sum()) - 1)
    low, high = _at_ranks(batches, uppers, (math.floor(rank), math.ceil(rank)))
    return low + (high - low) * (rank - math.floor(rank))


def _at_ranks(
    batches: Callable[[], Iterable[Values]], uppers: npt.NDArray[np.int64], ranks: tuple[int, int]
) -> tuple[float, float]:
    """Return the values of two ranks, from 0, smallest first."""
    ends = np.cumsum(uppers)
    halves = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    lowers = {half: np.zeros(_PATTERNS, np.int64) for half in halves}
    for values in batches():
        bits = _bits(values)
        for half, counts in lowers.items():
            np.add.at(counts, bits[bits >> _HALF == half] & (_PATTERNS - 1), 1)
    first, second = (
        _value(half, int(np.searchsorted(np.cumsum(lowers[half]), rank - (ends[half] - uppers[half]), side="right")))
        for half, rank in zip(halves, ranks, strict=True)
    )
    return first, second


def _bits(values: Values) -> npt.NDArray[np.uint32]:
    return (values + np.float32(0)).view(np.uint32)  # + 0 turns -0.0 into 0.0


def _value(upper: int, lower: int) -> float:
    return float(np.array(upper << _HALF | lower, np.uint32).view(np.float32))
