"""DOTA's average precision against mmrotate's own numbers, a slow and obvious version, and COCO's on upright boxes."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from evaluation_data import coco_detections, coco_index, make_rotated_index, random_coco, rotated_detections

from ymir_tmi.data.index import CROWD, DIFFICULT, DatasetIndex
from ymir_tmi.data.rotated import as_rotated
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationResult, EvaluationSettings
from ymir_tmi.geometry.rotated import from_upright
from ymir_tmi.models.interface import Detections

GOLDENS = Path(__file__).parents[1] / "goldens" / "mmrotate"
NAMES = ("plane", "ship", "bridge")


def evaluate(index: DatasetIndex, detections: list[Detections], max_dets: int = 2000) -> EvaluationResult:
    evaluator = DetectionEvaluator(index, EvaluationSettings(max_dets=max_dets))
    for position, found in enumerate(detections):
        evaluator.update(position, found)
    return evaluator.compute()


def golden() -> tuple[DatasetIndex, list[Detections], dict[str, Any]]:
    arrays = np.load(GOLDENS / "geometry.npz")
    expected = json.loads((GOLDENS / "geometry.json").read_text())["dota_eval"]
    images = range(expected["images"])
    index = make_rotated_index(
        [arrays[f"dota/{image}/gt_boxes"] for image in images],
        [arrays[f"dota/{image}/gt_labels"] for image in images],
        [arrays[f"dota/{image}/gt_ignore"] * DIFFICULT for image in images],
        NAMES,
    )
    detections = [
        rotated_detections(*(arrays[f"dota/{image}/det_{name}"] for name in ("boxes", "scores", "labels")))
        for image in images
    ]
    return index, detections, expected["results"]


def test_numbers_are_those_of_mmrotate() -> None:
    index, detections, expected = golden()
    result = evaluate(index, detections)
    assert result.coco is None and result.dota is not None
    for mode, suffix in (("area", ""), ("11points", "_11points")):
        reference = expected[mode]
        for name, key in (("AP", "mAP_50_95"), ("AP50", "mAP_50"), ("AP75", "mAP_75")):
            assert getattr(result.dota, name + suffix) == pytest.approx(reference[key], abs=1e-6), (mode, name)
        each = reference["per_threshold"]
        for label, row in enumerate(result.classes):
            assert row.dota is not None and row.objects == each["0.5"]["num_gts"][label]
            assert getattr(row.dota, f"AP50{suffix}") == pytest.approx(each["0.5"]["AP"][label], abs=1e-6)
            assert getattr(row.dota, f"AP75{suffix}") == pytest.approx(each["0.75"]["AP"][label], abs=1e-6)
            mean = np.mean([threshold["AP"][label] for threshold in each.values()])
            assert getattr(row.dota, f"AP{suffix}") == pytest.approx(mean, abs=1e-6)
            assert (row.AP, row.AP50) == (row.dota.AP, row.dota.AP50)


def polygon(box: Any) -> shapely.Polygon:
    cx, cy, w, h, angle = map(float, box)
    u, v = np.array([math.cos(angle), math.sin(angle)]) * w / 2, np.array([-math.sin(angle), math.cos(angle)]) * h / 2
    return shapely.Polygon([np.array([cx, cy]) + a * u + b * v for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])


def slow_average_precision(
    index: DatasetIndex, detections: list[Detections], label: int, threshold: float
) -> tuple[float, float]:
    """The published rule, one detection at a time: the area, and the mean at 11 recalls."""
    assert index.rotated is not None
    objects = int(np.sum((index.labels == label) & (index.flags == 0)))
    rows = [
        (float(found.scores[row]), image, found.boxes[row])
        for image, found in enumerate(detections)
        for row in np.flatnonzero(found.labels == label)
    ]
    taken: set[int] = set()
    outcomes = []
    for _, image, box in sorted(rows, key=lambda row: -row[0]):
        here = range(int(index.starts[image]), int(index.starts[image + 1]))
        best, overlap = -1, 0.0
        if any(index.flags[row] == 0 for row in here):
            for row in here:
                one, other = polygon(box), polygon(index.rotated[row])
                iou = one.intersection(other).area / one.union(other).area
                if index.labels[row] == label and iou > overlap:
                    best, overlap = row, iou
        if overlap >= threshold and index.flags[best]:
            continue
        outcomes.append(overlap >= threshold and best not in taken)
        if overlap >= threshold:
            taken.add(best)
    points = [(sum(outcomes[:n]) / objects, sum(outcomes[:n]) / n) for n in range(1, len(outcomes) + 1)]

    def precision(recall: float) -> float:
        return max((value for reached, value in points if reached >= recall), default=0.0)

    steps = sorted({0.0, *(reached for reached, _ in points)})
    area = sum((high - low) * precision(high) for low, high in itertools.pairwise(steps))
    # 0.30000000000000004 is the third of the published recalls, and so on.
    return area, sum(precision(n * 0.1) for n in range(11)) / 11


def random_scene(rng: np.random.Generator) -> tuple[DatasetIndex, list[Detections]]:
    """Crowded objects, some of them difficult, images with none but those, and detections near both."""
    boxes, labels, flags, detections = [], [], [], []
    for image in range(12):
        count = int(rng.integers(0, 9))
        objects = np.column_stack(
            [rng.uniform(0, 60, (count, 2)), rng.uniform(8, 40, (count, 2)), rng.uniform(-2, 2, count)]
        )
        boxes.append(objects)
        labels.append(rng.integers(0, 3, count))
        flags.append(np.where(rng.random(count) < (1.0 if image % 4 == 0 else 0.3), DIFFICULT, 0))
        near = objects[rng.integers(0, max(count, 1), 25 if count else 0)]
        near = near + rng.normal(0, 1, near.shape) * np.array([3, 3, 2, 2, 0.1])
        near[:, 2:4] = np.abs(near[:, 2:4]) + 1
        found = np.concatenate([near, rng.uniform(5, 50, (3, 5))])
        scores = rng.permutation(1000)[: len(found)] / 1000 + image * 1e-5  # no two are the same
        detections.append(rotated_detections(found, scores, rng.integers(0, 3, len(found))))
    return make_rotated_index(boxes, labels, flags, NAMES), detections


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_the_slow_rule(seed: int) -> None:
    index, detections = random_scene(np.random.default_rng(seed))
    result = evaluate(index, detections)
    for label, row in enumerate(result.classes):
        assert row.dota is not None
        for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
            area, eleven = slow_average_precision(index, detections, label, threshold)
            assert getattr(row.dota, name) == pytest.approx(area, abs=1e-9)
            assert getattr(row.dota, f"{name}_11points") == pytest.approx(eleven, abs=1e-9)


def turned(detections: list[Detections]) -> list[Detections]:
    """Return upright detections as rotated ones."""
    return [
        rotated_detections(from_upright(torch.from_numpy(found.boxes)).numpy(), found.scores, found.labels)
        for found in detections
    ]


def apart(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data set with every object in a place of its own, and without crowds."""
    rows = [
        {**row, "bbox": [1000 * (number + 1), row["bbox"][1], *row["bbox"][2:]], "iscrowd": 0}
        for number, row in enumerate(data["annotations"])
    ]
    return {**data, "annotations": rows}


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_those_of_coco_where_no_objects_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = apart(random_coco(seed)[0])
    results = [
        {**row, "bbox": box.tolist(), "score": float(score)}
        for row in data["annotations"]
        for score in rng.random(rng.integers(0, 4))
        for box in [np.array(row["bbox"]) * rng.normal([1, 1, 1, 1], [0, 0, 0.2, 0.2])]
        if (box > 1).all()
    ]
    index, detections = coco_index(data), coco_detections(data, results)
    upright = evaluate(index, detections)
    rotated = evaluate(as_rotated(index), turned(detections))
    compared = 0
    for one, other in zip(upright.classes, rotated.classes, strict=True):
        if one.pr is not None and other.pr is not None and other.dota is not None:
            compared += 1
            assert other.dota.AP50 is not None and 0.1 < other.dota.AP50 < 1
            np.testing.assert_allclose(other.pr.precision, one.pr.precision, atol=1e-6)
            np.testing.assert_allclose(other.pr.scores, one.pr.scores, atol=1e-6)
            assert pytest.approx(other.dota.AP50, abs=0.02) == one.AP50  # 101 points against the area
        else:
            assert one.objects == 0 and other.pr is other.dota is None
    assert compared == 3


@pytest.mark.parametrize("seed", range(3))
def test_what_is_counted_does_not_depend_on_the_form(seed: int) -> None:
    data, results = random_coco(seed)
    index, detections = coco_index(data), coco_detections(data, results)
    upright = evaluate(index, detections)
    rotated = evaluate(as_rotated(index), turned(detections))
    assert rotated.overall == upright.overall and upright.overall.true_positives > 20
    assert rotated.confusion == upright.confusion
    for one, other in zip(upright.ranking, rotated.ranking, strict=True):
        assert other.model_dump() == {**one.model_dump(), "score": pytest.approx(one.score, abs=1e-5)}
    for one_class, other_class in zip(upright.classes, rotated.classes, strict=True):
        assert (one_class.f1, one_class.threshold) == (other_class.f1, other_class.threshold)


LONG, CROSS, FAR = (50, 50, 40, 10, 0.3), (50, 50, 40, 10, 1.8), (500, 500, 20, 10, 0)


@pytest.mark.parametrize(
    "objects, flags, found, ap50",
    [
        ([LONG], [0], [LONG], 1.0),
        ([LONG], [0], [(50, 50, 10, 40, 0.3 + math.pi / 2)], 1.0),  # the same rectangle
        ([LONG], [0], [CROSS], 0.0),  # the hulls overlap, the boxes hardly
        ([LONG], [0], [FAR, LONG], 0.5),
        ([LONG, FAR], [0, DIFFICULT], [FAR, FAR, LONG], 1.0),  # a difficult object is never used up
        ([LONG, FAR], [0, CROWD], [(500, 500, 5, 5, 0.7), LONG], 1.0),  # inside a crowd
        ([LONG, FAR], [0, DIFFICULT], [(500, 500, 5, 5, 0.7), LONG], 0.5),
        ([LONG], [0], [], 0.0),
    ],
)
def test_single_cases(objects: list[Any], flags: list[int], found: list[Any], ap50: float) -> None:
    index = make_rotated_index([objects], [[0] * len(objects)], [flags], ("ship", "plane"))
    detections = rotated_detections(found, np.linspace(0.9, 0.5, len(found)), [0] * len(found))
    result = evaluate(index, [detections])
    assert result.dota is not None
    assert pytest.approx(ap50) == result.dota.AP50
    assert result.dota.AP50_11points == pytest.approx(ap50)
    assert result.classes[1].dota is None


def test_difficult_objects_of_an_image_without_others_are_forgotten() -> None:
    index = make_rotated_index([[LONG], [LONG]], [[0], [0]], [[0], [DIFFICULT]], ("ship",))
    result = evaluate(index, [rotated_detections([LONG], [0.5], [0]), rotated_detections([LONG], [0.9], [0])])
    assert pytest.approx(0.5) == result.means.AP50


def test_a_worse_detection_on_a_taken_object_does_not_take_the_next_one() -> None:
    near = (50, 52, 40, 10, 0.3)
    index = make_rotated_index([[LONG, near]], [[0, 0]], [[0, 0]], ("ship",))
    result = evaluate(index, [rotated_detections([LONG, LONG], [0.9, 0.8], [0, 0])])
    assert pytest.approx(0.5) == result.means.AP50  # COCO's rule would give the second one its neighbour
    assert result.overall.true_positives == 2


def test_without_objects_nothing_is_known() -> None:
    index = make_rotated_index([[LONG]], [[0]], [[DIFFICULT]], ("ship",))
    result = evaluate(index, [rotated_detections([LONG], [0.5], [0])])
    assert set(result.means.model_dump().values()) == {None}
    assert result.classes[0].pr is None and result.scalars() == {}


def test_text_and_columns_say_which_number_is_which() -> None:
    index, detections, _ = golden()
    result = evaluate(index, detections)
    lines = result.to_text().splitlines()
    means = result.dota
    assert means is not None
    expected = ["mAP50:95", f"{means.AP:.3f}", "mAP50", f"{means.AP50:.3f}", "mAP75", f"{means.AP75:.3f}"]
    assert lines[2].split() == expected
    assert lines[3].split()[:3] == ["11", "points", f"{means.AP_11points:.3f}"]
    (plane,) = [line.split() for line in lines if line.startswith("plane")]
    assert plane[3:7] == [
        f"{value:.3f}"
        for row in result.classes[:1]
        if row.dota
        for value in (row.dota.AP, row.dota.AP50, row.dota.AP75, row.dota.AP50_11points)
    ]
    assert result.scalars()["AP"] == means.AP
    assert EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result
