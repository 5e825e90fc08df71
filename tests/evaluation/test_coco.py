from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from evaluation_data import coco_detections, coco_index, make_detections, make_index, random_coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationResult, EvaluationSettings
from ymir_tmi.models.interface import Detections


def evaluate(index: DatasetIndex, detections: list[Detections], max_dets: int = 100) -> EvaluationResult:
    evaluator = DetectionEvaluator(index, EvaluationSettings(max_dets=max_dets))
    for position, found in enumerate(detections):
        evaluator.update(position, found)
    return evaluator.compute()


def pycocotools(data: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def best_of_each(results: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Keep the `count` best of each image and class."""
    kept: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in sorted(results, key=lambda row: -row["score"]):
        kept.setdefault((row["image_id"], row["category_id"]), []).append(row)
    return [row for rows in kept.values() for row in rows[:count]]


@pytest.mark.parametrize(
    "max_dets, detections",
    [
        (100, 60),
        (100, 500),  # more than COCO takes of one class
        (5, 60),  # fewer than AR_10 is about
        (20, 200),
        (1, 60),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pycocotools(seed: int, max_dets: int, detections: int) -> None:
    data, results = random_coco(seed, images=12 if detections > 60 else 30, detections=detections)
    expected = pycocotools(data, best_of_each(results, max_dets))
    result = evaluate(coco_index(data), coco_detections(data, results), max_dets)

    numbers = result.coco.model_dump().values()
    np.testing.assert_allclose([-1 if value is None else value for value in numbers], expected.stats, rtol=0, atol=1e-9)

    order = np.argsort([category["id"] for category in data["categories"]])
    for column, label in enumerate(order):
        precision = expected.eval["precision"][:, :, column, 0, 2]
        row = result.classes[label]
        if row.objects == 0:
            assert row.AP is row.AP50 is row.pr is None
            assert (precision == -1).all()
        else:
            assert pytest.approx(precision.mean(), abs=1e-9) == row.AP
            assert pytest.approx(precision[0].mean(), abs=1e-9) == row.AP50
            assert row.pr is not None
            np.testing.assert_allclose(row.pr.precision, precision[0], atol=1e-6)
            np.testing.assert_allclose(row.pr.scores, expected.eval["scores"][0, :, column, 0, 2], atol=1e-6)
            np.testing.assert_allclose(row.pr.recall, expected.params.recThrs, atol=1e-9)


def test_means_leave_out_classes_without_objects() -> None:
    data, results = random_coco(0)
    result = evaluate(coco_index(data), coco_detections(data, results))
    with_objects = [row for row in result.classes if row.objects]
    assert len(with_objects) == len(result.classes) - 1
    assert pytest.approx(np.mean([row.AP for row in with_objects])) == result.coco.AP
    assert pytest.approx(np.mean([row.AP50 for row in with_objects])) == result.coco.AP50


def test_result_does_not_depend_on_the_order_of_updates() -> None:
    data, results = random_coco(1)
    detections = coco_detections(data, results)
    evaluator = DetectionEvaluator(coco_index(data))
    for position in reversed(range(len(detections))):
        evaluator.update(position, make_detections([]))
        evaluator.update(position, detections[position])
    assert evaluator.compute() == evaluate(evaluator.index, detections)


BIG, FAR = (0, 0, 50, 50), (60, 60, 90, 90)


@pytest.mark.parametrize(
    "flag, extra, ap50",
    [
        (0, [], 1.0),
        (0, [(FAR, 0.9, 0)], 0.5),  # a false positive that scores higher
        (DIFFICULT, [(FAR, 0.9, 0)], 1.0),  # found a difficult object: does not count
        (DIFFICULT, [(FAR, 0.9, 0), (FAR, 0.8, 0)], 0.5),  # the second time it is a false positive
        (CROWD, [(FAR, 0.9, 0), (FAR, 0.8, 0)], 1.0),  # a crowd can be found many times
        (CROWD, [((60, 60, 70, 70), 0.9, 0)], 1.0),  # a small box inside a crowd lies in it wholly
        (DIFFICULT, [((60, 60, 70, 70), 0.9, 0)], 0.5),  # with a difficult object it overlaps too little
        (DIFFICULT, [(FAR, 0.9, 1)], 1.0),  # another class, which has no objects
    ],
)
def test_crowd_and_difficult_objects_are_ignored(flag: int, extra: list[Any], ap50: float) -> None:
    objects = [(BIG, 0)] if flag == 0 else [(BIG, 0), (FAR, 0, flag)]
    result = evaluate(make_index([objects]), [make_detections([*extra, (BIG, 0.5, 0)])])
    assert pytest.approx(ap50, abs=1e-6) == result.coco.AP50
    assert result.objects == result.classes[0].objects == 1
