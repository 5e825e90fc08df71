from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from evaluation_data import coco_detections, coco_index, make_detections, make_index, random_coco

from ymir_tmi.data.index import CROWD, DIFFICULT
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationResult

A, B, C = (0, 0, 10, 10), (20, 20, 30, 30), (50, 50, 90, 90)
CAT, DOG = 0, 1


def evaluate(images: list[Any], detections: list[Any], names: tuple[str, ...] = ("cat", "dog")) -> EvaluationResult:
    evaluator = DetectionEvaluator(make_index(images, names))
    for position, rows in enumerate(detections):
        evaluator.update(position, make_detections(rows))
    return evaluator.compute()


@pytest.mark.parametrize(
    "objects, detections, matrix",
    [
        # Every object found.
        ([(A, CAT), (B, DOG)], [(A, 0.9, CAT), (B, 0.8, DOG)], [[1, 0, 0], [0, 1, 0], [0, 0, 0]]),
        # The dog taken for a cat: no dog is missed and no cat is invented.
        ([(A, CAT), (B, DOG)], [(A, 0.9, CAT), (B, 0.9, CAT)], [[1, 0, 0], [1, 0, 0], [0, 0, 0]]),
        # The dog missed, a second cat seen in the first and one where there is nothing.
        ([(A, CAT), (B, DOG)], [(A, 0.9, CAT), (A, 0.9, CAT), (C, 0.9, CAT)], [[1, 0, 0], [0, 0, 1], [2, 0, 0]]),
        # Both classes seen in one place: the better one is matched, though it is wrong.
        ([(A, CAT)], [(A, 0.9, DOG), (A, 0.8, CAT)], [[0, 1, 0], [0, 0, 0], [1, 0, 0]]),
        # Two objects in one place: each detection takes that of its own class.
        ([(A, CAT), (A, DOG)], [(A, 0.9, DOG), (A, 0.8, CAT)], [[1, 0, 0], [0, 1, 0], [0, 0, 0]]),
        # Crowds and difficult objects are neither found nor missed; another class on them is wrong.
        ([(A, CAT), (B, DOG, CROWD), (C, DOG, DIFFICULT)], [(A, 0.9, CAT)], [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (
            [(A, CAT), (B, DOG, CROWD), (C, DOG, DIFFICULT)],
            [(A, 0.9, CAT), (B, 0.9, DOG), (C, 0.9, DOG), (C, 0.9, CAT)],
            [[1, 0, 0], [0, 0, 0], [1, 0, 0]],
        ),
        # Below the best threshold, nothing counts.
        ([(A, CAT), (B, DOG)], [(A, 0.9, CAT), (C, 0.1, DOG)], [[1, 0, 0], [0, 0, 1], [0, 0, 0]]),
        # All classes wrong: no threshold finds anything, and the matrix still tells why.
        ([(A, CAT), (B, DOG)], [(A, 0.9, DOG), (B, 0.9, CAT)], [[0, 1, 0], [1, 0, 0], [0, 0, 0]]),
    ],
)
def test_confusion_matrix(objects: list[Any], detections: list[Any], matrix: list[list[int]]) -> None:
    confusion = evaluate([objects], [detections]).confusion
    assert confusion.names == ["cat", "dog", "background"]
    assert confusion.matrix == matrix


def test_confusion_matrix_matches_inside_images_only() -> None:
    confusion = evaluate([[(A, CAT)], [(B, CAT)]], [[(B, 0.9, CAT)], [(B, 0.9, CAT)]]).confusion
    assert confusion.matrix == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_ranking_and_totals() -> None:
    images = [
        [(A, CAT), (B, CAT)],  # one found well, one missed
        [(A, CAT), (B, CAT)],  # both found, one of them with IoU 0.8
        [],  # a false detection
        [],  # nothing, rightly
        [(A, CAT), (B, DOG), (C, CAT)],  # all missed
        [(A, CAT, CROWD)],  # nothing that counts
        [(A, CAT)],  # found exactly
    ]
    detections = [
        [(A, 0.9, CAT)],
        [(A, 0.9, CAT), ((20, 20, 30, 28), 0.8, CAT)],
        [(A, 0.9, CAT)],
        [],
        [],
        [(A, 0.9, CAT)],
        [(A, 0.9, CAT), (B, 0.05, CAT)],
    ]
    result = evaluate(images, detections)
    rows = [(row.position, row.true_positives, row.missed, row.false_positives) for row in result.ranking]
    assert rows == [(6, 1, 0, 0), (1, 2, 0, 0), (0, 1, 1, 0), (2, 0, 0, 1), (4, 0, 3, 0)]
    assert [row.score for row in result.ranking] == pytest.approx([1, 0.9, 1 / 1.5, 0, 0])
    assert result.ranking[0].path == "6.jpg"

    overall = result.overall
    assert (overall.true_positives, overall.false_positives, overall.missed) == (4, 1, 4)
    assert overall.threshold == pytest.approx((0.8 + 0.05) / 2)
    assert overall.f1 == pytest.approx(8 / (8 + 1 + 4))
    cat, dog = result.classes
    assert (cat.objects, cat.images, dog.objects, dog.images) == (7, 4, 1, 1)
    assert (cat.precision, cat.recall) == pytest.approx((4 / 5, 4 / 7))
    assert (dog.AP, dog.AP50, dog.precision, dog.recall, dog.f1, dog.threshold) == (0, 0, 0, 0, 0, None)


@pytest.mark.parametrize("seed", range(3))
def test_counts_agree_with_each_other(seed: int) -> None:
    data, results = random_coco(seed)
    index = coco_index(data)
    evaluator = DetectionEvaluator(index)
    for position, detections in enumerate(coco_detections(data, results)):
        evaluator.update(position, detections)
    result = evaluator.compute()
    overall, matrix = result.overall, np.array(result.confusion.matrix)
    assert sum(row.true_positives for row in result.ranking) == overall.true_positives
    assert sum(row.false_positives for row in result.ranking) == overall.false_positives
    assert sum(row.missed for row in result.ranking) == overall.missed
    assert overall.true_positives + overall.missed == result.objects == sum(row.objects for row in result.classes)
    assert matrix[:-1].sum(axis=1).tolist() == [row.objects for row in result.classes]
    assert matrix[-1, -1] == 0
    assert result.confusion.threshold == overall.threshold


def test_without_detections() -> None:
    result = evaluate([[(A, CAT)], []], [])
    assert (result.coco.AP, result.coco.AR_max, result.coco.AP_large) == (0, 0, None)
    assert (result.overall.precision, result.overall.recall, result.overall.threshold) == (0, 0, None)
    assert result.classes[0].AP == 0
    assert result.classes[0].pr is not None and set(result.classes[0].pr.precision) == {0}
    assert result.classes[1].AP is result.classes[1].recall is result.classes[1].pr is None
    assert result.confusion.matrix == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_without_objects_nothing_is_known() -> None:
    result = evaluate([[], [(A, CAT, CROWD)]], [[(A, 0.9, CAT)], [(A, 0.9, CAT)]])
    assert set(result.coco.model_dump().values()) == {None}
    assert (result.overall.precision, result.overall.recall, result.overall.f1) == (None, None, None)
    assert all(row.AP is None and row.f1 is None for row in result.classes)
    assert result.confusion.matrix == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_one_class_with_duplicates() -> None:
    result = evaluate([[(A, 0)]], [[(A, 0.9, 0), (A, 0.9, 0), (A, 0.8, 0)]], names=("cat",))
    (cat,) = result.classes
    # The two best have the same score and pass together.
    assert (cat.AP, cat.precision, cat.recall) == pytest.approx((1, 1 / 2, 1))
    assert result.confusion.matrix == [[1, 0], [1, 0]]


def test_unreadable_images_count_as_empty() -> None:
    evaluator = DetectionEvaluator(make_index([[(A, CAT)], [(A, CAT)]]))
    evaluator.update(0, make_detections([(A, 0.9, CAT)]))
    evaluator.fail(1, "this JPEG is cut short")
    result = evaluator.compute()
    assert [(row.position, row.path, row.error) for row in result.unreadable] == [
        (1, "1.jpg", "this JPEG is cut short")
    ]
    assert (result.images, result.classes[0].recall) == (2, 0.5)


def test_reset_forgets() -> None:
    evaluator = DetectionEvaluator(make_index([[(A, CAT)]]))
    evaluator.update(0, make_detections([(A, 0.9, CAT)]))
    evaluator.fail(0, "gone")
    evaluator.reset()
    assert evaluator.compute() == evaluate([[(A, CAT)]], [])
