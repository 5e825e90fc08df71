"""Anchors against a slow and obvious version, and on sizes whose clusters are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ymir_tmi.data.index import CROWD, DatasetIndex, Strings
from ymir_tmi.training.anchors import AnchorFit, best_recall, cluster, fit_anchors, mutate, object_sizes

PUBLISHED = json.loads((Path(__file__).parents[1] / "goldens" / "training" / "published.json").read_text())
P5 = (((10, 13), (16, 30), (33, 23)), ((30, 61), (62, 45), (59, 119)), ((116, 90), (156, 198), (373, 326)))


def fits_slowly(size: np.ndarray, anchor: np.ndarray) -> float:
    (width, height), (anchor_width, anchor_height) = size, anchor
    return min(width / anchor_width, anchor_width / width, height / anchor_height, anchor_height / height)


def recall_slowly(sizes: np.ndarray, anchors: np.ndarray, ratio: float) -> float:
    return sum(any(fits_slowly(size, anchor) > 1 / ratio for anchor in anchors) for size in sizes) / len(sizes)


def fitness_slowly(sizes: np.ndarray, anchors: np.ndarray, ratio: float) -> float:
    best = [max(fits_slowly(size, anchor) for anchor in anchors) for size in sizes]
    return sum(fit if fit > 1 / ratio else 0 for fit in best) / len(sizes)


def flat(anchors: object) -> np.ndarray:
    return np.reshape(anchors, (-1, 2)).astype(float)


def test_recall_is_the_published_one() -> None:
    example = PUBLISHED["yolov5"]["autoanchor_metric"]
    sizes = np.array(example["label_wh_pixels"])
    assert best_recall(sizes, flat(P5), 4.0) == example["bpr"]
    fit = fit_anchors(P5, sizes, 4.0, np.random.default_rng(0))
    assert fit == AnchorFit(anchors=P5, recall=1.0)  # more than 0.98: they stay


@pytest.mark.parametrize("ratio", [1.5, 4.0])
@pytest.mark.parametrize("seed", range(5))
def test_recall_agrees_with_a_slow_version(seed: int, ratio: float) -> None:
    rng = np.random.default_rng(seed)
    sizes, anchors = np.exp(rng.normal(3.5, 1, (60, 2))), np.exp(rng.normal(3.5, 1, (4, 2)))
    assert best_recall(sizes, anchors, ratio) == pytest.approx(recall_slowly(sizes, anchors, ratio))
    assert 0 < best_recall(sizes, anchors, ratio) < 1 or ratio == 4.0


CENTRES = np.array([[12, 10], [30, 90], [100, 35], [200, 220], [15, 60], [300, 100]], float)


def noisy(centres: np.ndarray, count: int, seed: int = 0, spread: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.repeat(centres, count, axis=0) * np.exp(rng.normal(0, spread, (count * len(centres), 2)))


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_found(seed: int) -> None:
    found = cluster(noisy(CENTRES, 40), len(CENTRES), np.random.default_rng(seed))
    distance = np.abs(np.log(found[:, None] / CENTRES)).max(axis=2)
    # Well apart as they are, two clusters may still share a centre; then the others are exact.
    assert np.sum(distance.min(axis=0) < 0.05) >= len(CENTRES) - 2
    again = cluster(noisy(CENTRES, 40), len(CENTRES), np.random.default_rng(seed))
    np.testing.assert_array_equal(found, again)


def test_centres_are_the_means_of_what_is_nearest_to_them() -> None:
    sizes = np.exp(np.random.default_rng(1).normal(4, 0.8, (80, 2)))
    centres = cluster(sizes, 3, np.random.default_rng(0))
    spread = sizes.std(axis=0)
    nearest = [int(np.argmin([np.hypot(*((size - centre) / spread)) for centre in centres])) for size in sizes]
    for number, centre in enumerate(centres):
        members = sizes[np.array(nearest) == number]
        np.testing.assert_allclose(members.mean(axis=0), centre, rtol=1e-9)


@pytest.mark.parametrize("count", [1, 3, 9])
def test_fewer_sizes_than_clusters(count: int) -> None:
    sizes = np.repeat(np.array([[10, 20], [30, 40], [50, 60]], float)[:count], 5, axis=0)
    found = cluster(sizes, 9, np.random.default_rng(0))
    assert found.shape == (9, 2)
    assert (found >= sizes.min(axis=0)).all() and (found <= sizes.max(axis=0)).all()
    assert {tuple(size) for size in sizes} <= {tuple(centre) for centre in found}


def test_mutation_fits_better_and_never_worse() -> None:
    sizes = noisy(CENTRES, 20, spread=0.3)
    begin = np.full((6, 2), 60.0)
    end = mutate(begin, sizes, 4.0, np.random.default_rng(0))
    assert fitness_slowly(sizes, end, 4.0) > 1.3 * fitness_slowly(sizes, begin, 4.0)
    perfect = np.array([[50.0, 70.0]])
    assert (mutate(perfect, np.repeat(perfect, 9, axis=0), 4.0, np.random.default_rng(0)) == perfect).all()


def test_anchors_that_do_not_fit_are_replaced_by_better_ones_sorted_by_area() -> None:
    sizes = noisy(CENTRES / 12, 30)  # tiny objects
    fit = fit_anchors(P5, sizes, 4.0, np.random.default_rng(0))
    assert fit.recall_before == pytest.approx(recall_slowly(sizes, flat(P5), 4.0)) and fit.recall_before < 0.98
    assert fit.recall == pytest.approx(recall_slowly(sizes, flat(fit.anchors), 4.0)) and fit.recall > fit.recall_before
    assert np.shape(fit.anchors) == np.shape(P5)
    areas = flat(fit.anchors).prod(axis=1)
    assert (np.diff(areas) >= 0).all()
    assert (flat(fit.anchors) >= 2).all()  # never below two pixels, though some objects are
    assert fit_anchors(P5, sizes, 4.0, np.random.default_rng(0)) == fit


@pytest.mark.parametrize("sizes", [np.full((5, 2), 0.5), np.zeros((0, 2))], ids=["too small for any", "none"])
def test_anchors_stay_where_nothing_is_better(sizes: np.ndarray) -> None:
    fit = fit_anchors(P5, sizes, 4.0, np.random.default_rng(0))
    assert (fit.anchors, fit.recall_before) == (P5, None)


def test_worse_anchors_are_not_adopted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ymir_tmi.training.anchors.mutate", lambda *_: np.full((9, 2), 5000.0))
    fit = fit_anchors(P5, noisy(CENTRES / 12, 30), 4.0, np.random.default_rng(0))
    assert (fit.anchors, fit.recall_before) == (P5, None)


def test_objects_are_measured_as_the_network_sees_them() -> None:
    index = DatasetIndex(
        class_names=("a",),
        paths=Strings.pack(["1", "2", "3"]),
        sizes=np.array([[200, 100], [50, 100], [0, 0]], np.int32),  # the last is not known
        image_ids=np.arange(3),
        starts=np.array([0, 3, 5, 6]),
        boxes=np.array(
            [[0, 0, 20, 10], [0, 0, 40, 40], [0, 0, 9, 9], [10, 10, 30, 50], [5, 5, 5, 9], [0, 0, 5, 5]], np.float32
        ),
        labels=np.zeros(6, np.int32),
        areas=np.ones(6, np.float32),
        flags=np.array([0, 0, CROWD, 0, 0, 0], np.uint8),
    )
    scales = []
    for seed in range(200):
        sizes = object_sizes(index, 640, np.random.default_rng(seed))
        first, second = sizes[0, 0] / 20, sizes[2, 0] / 20
        np.testing.assert_allclose(sizes, [[20 * first, 10 * first], [40 * first] * 2, [20 * second, 40 * second]])
        scales.append((first / 3.2, second / 6.4))
    assert np.min(scales) == pytest.approx(0.9, abs=0.01) and np.max(scales) == pytest.approx(1.1, abs=0.01)
    assert abs(np.corrcoef(np.transpose(scales))[0, 1]) < 0.2  # each image by itself
