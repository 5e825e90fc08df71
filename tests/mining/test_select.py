from __future__ import annotations

import numpy as np
import pytest

from ymir_tmi.mining.select import select_by_score


@pytest.mark.parametrize(
    "scores, top_k, expected",
    [
        ([0.1, 0.9, 0.5], None, [1, 2, 0]),
        ([0.1, 0.9, 0.5], 2, [1, 2]),
        ([0.5, 0.9, 0.5, 0.9], None, [1, 3, 0, 2]),  # ties keep the order of the pool
        ([0.0, -1.3, -0.2], 99, [0, 2, 1]),  # no more than there are
        ([], 5, []),
    ],
)
def test_highest_first(scores: list[float], top_k: int | None, expected: list[int]) -> None:
    assert select_by_score(np.array(scores), top_k).tolist() == expected


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_scores_without_a_place_are_refused(wrong: float) -> None:
    with pytest.raises(AssertionError):
        select_by_score(np.array([0.5, wrong]))
