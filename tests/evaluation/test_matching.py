from __future__ import annotations

import numpy as np
import pytest
from evaluation_data import coco_detections, coco_index, make_detections, make_index, random_coco

from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.matching import Found, match, overlaps
from ymir_tmi.models.interface import Detections


def found_in(detections: list[Detections]) -> Found:
    return Found(
        images=np.repeat(np.arange(len(detections)), [len(found) for found in detections]),
        boxes=np.concatenate([found.boxes for found in detections]).astype(float),
        scores=np.concatenate([found.scores for found in detections]).astype(float),
        labels=np.concatenate([found.labels for found in detections]),
    )


def slow_match(index: DatasetIndex, found: Found) -> list[int]:
    """The published rule, one detection and one object at a time."""
    taken: set[int] = set()
    matched = [-1] * len(found)
    for detection in np.argsort(-found.scores, kind="stable"):
        rows = index.rows(int(found.images[detection]))
        best, best_key = -1, (False, 0.5)
        for row in range(rows.start, rows.stop):
            if index.labels[row] != found.labels[detection] or (row in taken and not index.flags[row] & CROWD):
                continue
            x1, y1, x2, y2 = found.boxes[detection]
            u1, v1, u2, v2 = index.boxes[row].astype(float)
            shared = max(0, min(x2, u2) - max(x1, u1)) * max(0, min(y2, v2) - max(y1, v1))
            own, other = (x2 - x1) * (y2 - y1), (u2 - u1) * (v2 - v1)
            iou = shared / (own if index.flags[row] & CROWD else own + other - shared)
            key = (not index.flags[row], iou)
            if iou >= 0.5 and key >= best_key:
                best, best_key = row, key
        matched[detection] = best
        taken.add(best)
    return matched


@pytest.mark.parametrize("seed", range(5))
def test_matches_are_those_of_the_slow_rule(seed: int) -> None:
    data, results = random_coco(seed)
    index, found = coco_index(data), found_in(coco_detections(data, results))
    index.flags[::7] |= DIFFICULT
    matches = match(index, found)
    assert matches.objects.tolist() == slow_match(index, found)
    assert (matches.hit == ((matches.objects >= 0) & (index.flags[matches.objects] == 0))).all()
    assert (matches.ignored == ((matches.objects >= 0) & (index.flags[matches.objects] != 0))).all()


@pytest.mark.parametrize("seed", range(3))
def test_hits_give_the_ap50_of_coco(seed: int) -> None:
    data, results = random_coco(seed)
    index, detections = coco_index(data), coco_detections(data, results)
    evaluator = DetectionEvaluator(index)
    for position, each in enumerate(detections):
        evaluator.update(position, each)
    classes = evaluator.compute().classes

    # Ties are ranked by image id, as pycocotools does; only that order is a matter of convention.
    found = found_in(detections)
    order = np.lexsort((np.arange(len(found)), index.image_ids[found.images], -found.scores))
    matches = match(index, found)
    for label, row in enumerate(classes):
        if not row.objects:
            continue
        rows = [k for k in order if found.labels[k] == label and not matches.ignored[k]]
        hits = np.cumsum(matches.hit[rows])
        precision = np.append(hits / np.arange(1, len(rows) + 1), 0)
        recall = np.append(hits / row.objects, 2)
        points = [precision[recall >= point - 1e-12].max() for point in np.linspace(0, 1, 101)]
        assert pytest.approx(np.mean(points), abs=1e-9) == row.AP50


A, NEAR_A, B = (0, 0, 10, 10), (0, 0, 10, 8), (20, 20, 30, 30)


@pytest.mark.parametrize(
    "detections, objects",
    [
        ([(A, 0.9, 1)], [-1]),  # wrong class
        ([(A, 0.9, 0), (A, 0.8, 0)], [0, -1]),  # duplicate
        ([(NEAR_A, 0.8, 0), (A, 0.9, 0)], [-1, 0]),  # the better score chooses, wherever it stands
        ([(NEAR_A, 0.9, 0), (A, 0.8, 0)], [0, -1]),  # ... whatever the overlap
        ([((0, 0, 10, 5), 0.9, 0)], [0]),  # an overlap of exactly 0.5
        ([((0, 0, 10, 4.9), 0.9, 0)], [-1]),
        ([((0, 0, 0, 0), 0.9, 0)], [-1]),  # no area
        ([], []),
    ],
)
def test_match(detections: list[tuple[tuple[float, float, float, float], float, int]], objects: list[int]) -> None:
    index = make_index([[(A, 0), (B, 0)]])
    assert match(index, found_in([make_detections(detections)])).objects.tolist() == objects


def test_an_object_that_counts_goes_before_a_crowd() -> None:
    index = make_index([[(A, 0, int(CROWD)), (NEAR_A, 0)]])
    matches = match(index, found_in([make_detections([(A, 0.9, 0), (A, 0.8, 0), (A, 0.7, 0)])]))
    assert matches.objects.tolist() == [1, 0, 0]
    assert matches.hit.tolist() == [True, False, False]
    assert matches.ignored.tolist() == [False, True, True]


def test_across_classes_the_own_class_goes_first() -> None:
    index = make_index([[(NEAR_A, 0), (A, 1)]])
    found = found_in([make_detections([(A, 0.9, 0), (A, 0.8, 0), (B, 0.7, 0)])])
    assert match(index, found, across_classes=True).objects.tolist() == [0, 1, -1]


def test_overlaps_of_boxes_without_area() -> None:
    point = np.zeros((1, 4))
    assert overlaps(point, point, np.array([False])).tolist() == [[0.0]]
    assert overlaps(point, point, np.array([True])).tolist() == [[0.0]]
