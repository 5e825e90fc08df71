from __future__ import annotations

import numpy as np
from mining_data import make_result

from ymir_tmi.mining.scores.random import Random


def scores(seeds: list[int]) -> list[float]:
    return [row["score"] for row in Random().consume([make_result(seed=seed) for seed in seeds])]


def test_asks_for_no_model() -> None:
    assert Random().needs.outputs == frozenset()
    assert Random().needs.views == ()


def test_score_follows_from_the_image_alone() -> None:
    assert scores([3, 1, 2]) == [scores([3])[0], scores([1])[0], scores([2])[0]]


def test_scores_are_uniform() -> None:
    drawn = np.sort(scores(list(range(2000))))
    largest_gap = np.abs(drawn - (np.arange(2000) + 0.5) / 2000).max()
    assert largest_gap < 1.63 / np.sqrt(2000)  # Kolmogorov-Smirnov at 1 %
