"""From scores to the images to label. What depends on other images than the one scored belongs here, not in a score.

A selection takes the scores of the whole pool and returns positions in it, the first to label first. Selections that
also look at likeness or classes take further arguments in the same place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def select_by_score(scores: npt.NDArray[np.float64], top_k: int | None = None) -> npt.NDArray[np.int64]:
    """Return the positions of the `top_k` highest scores (by default all), the highest first; ties keep their order.

    Args:
        scores: (N,) finite scores.
        top_k: how many to return at most.
    """
    assert np.isfinite(scores).all(), "a score that is not a number has no place in a ranking"
    return np.argsort(-scores, kind="stable")[:top_k]
