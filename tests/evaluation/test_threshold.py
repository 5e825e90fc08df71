from __future__ import annotations

import numpy as np
import pytest

from ymir_tmi.evaluation.threshold import OperatingPoint, best_point


@pytest.mark.parametrize(
    "scores, hits, objects, expected",
    [
        # Two of two found by the best two: half way to the false positive.
        ([0.75, 0.5, 0.25], [1, 1, 0], 2, OperatingPoint(0.375, 2, 0, 0)),
        # F1 after 1, 2, 3, 4 detections: 2/4, 2/5, 4/6, 4/7.
        ([0.75, 0.5, 0.25, 0.125], [1, 0, 1, 0], 3, OperatingPoint(0.1875, 2, 1, 1)),
        # F1 is 2/3 after 1 and after 4: the higher threshold.
        ([0.75, 0.5, 0.375, 0.25], [1, 0, 0, 1], 2, OperatingPoint(0.625, 1, 0, 1)),
        # Equal scores pass together, in whatever order they come.
        ([0.5, 0.5, 0.5], [1, 0, 0], 1, OperatingPoint(0.25, 1, 2, 0)),
        ([0.5, 0.5, 0.5], [0, 0, 1], 1, OperatingPoint(0.25, 1, 2, 0)),
        # Not sorted.
        ([0.25, 0.75], [0, 1], 1, OperatingPoint(0.5, 1, 0, 0)),
        # Nothing found at any threshold.
        ([0.5, 0.25], [0, 0], 3, OperatingPoint(None, 0, 2, 3)),
        ([], [], 3, OperatingPoint(None, 0, 0, 3)),
    ],
)
def test_best_point(scores: list[float], hits: list[int], objects: int, expected: OperatingPoint) -> None:
    assert best_point(np.array(scores, float), np.array(hits, bool), objects) == expected


def test_measures_of_a_point() -> None:
    point = OperatingPoint(0.5, true_positives=6, false_positives=2, missed=4)
    assert point.precision == pytest.approx(6 / 8)
    assert point.recall == pytest.approx(6 / 10)
    assert point.f1 == pytest.approx(2 * 0.75 * 0.6 / (0.75 + 0.6))
    nothing = OperatingPoint(None, 0, 0, 4)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_no_threshold_is_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random(50).round(1 + seed % 2)
    hits = rng.random(50) < scores
    objects = int(hits.sum()) + 5
    point = best_point(scores, hits, objects)
    assert point.threshold is not None
    passed = scores >= point.threshold
    assert (passed == (scores > point.threshold)).all()
    assert (point.true_positives, point.false_positives) == ((passed & hits).sum(), (passed & ~hits).sum())
    for threshold in np.linspace(0, 1, 201):
        passed = scores >= threshold
        precision, recall = hits[passed].mean() if passed.any() else 0, hits[passed].sum() / objects
        assert point.f1 >= 2 * precision * recall / max(precision + recall, 1e-9) - 1e-12
