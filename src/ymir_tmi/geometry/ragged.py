"""Groups of different sizes, one behind the other in one array."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def offsets(counts: npt.ArrayLike) -> Ints:
    """Return (N + 1,) where each of N groups of the given sizes starts, one behind the other; the last is the sum."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def spans(starts: Ints, ends: Ints) -> Ints:
    """Return starts[0], ..., ends[0] - 1, starts[1], ..., ends[1] - 1, ..."""
    counts = ends - starts
    places = offsets(counts)
    return np.repeat(starts - places[:-1], counts) + np.arange(places[-1])
