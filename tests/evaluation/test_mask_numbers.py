"""Masks are measured as pycocotools does, and matched by what they cover."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
from mask_data import MaskedData, random_masks
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.detected import Detected, measure
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.masks import object_masks
from ymir_tmi.evaluation.results import CocoNumbers, EvaluationResult, EvaluationSettings
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.models.interface import Detections


def evaluate(index: DatasetIndex, found: list[Detections], max_dets: int = 100) -> EvaluationResult:
    evaluator = DetectionEvaluator(index, EvaluationSettings(max_dets=max_dets), masks=True)
    for position, each in enumerate(found):
        evaluator.update(position, each)
    return evaluator.compute()


def pycocotools(data: MaskedData, kind: str, max_dets: int) -> COCOeval:
    # Its reader of results takes areas from the boxes where there are such, which masks are not measured by.
    without = {"segm": "bbox", "bbox": "segmentation"}[kind]
    results = [{name: value for name, value in row.items() if name != without} for row in data.results]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data.coco
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.params.maxDets = [1, 10, max_dets]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def numbers_of(evaluation: COCOeval) -> list[float]:
    precision, recall = evaluation.eval["precision"][..., 2], evaluation.eval["recall"]

    def mean(values: Any) -> float:
        return float(values[values > -1].mean()) if (values > -1).any() else -1.0

    return [
        *(mean(precision[which]) for which in (np.s_[..., 0], np.s_[0, ..., 0], np.s_[5, ..., 0])),
        *(mean(precision[..., area]) for area in (1, 2, 3)),
        *(mean(recall[..., 0, count]) for count in range(3)),
        *(mean(recall[..., area, 2]) for area in (1, 2, 3)),
    ]


def values(numbers: CocoNumbers | None) -> list[float]:
    assert numbers is not None
    return [-1.0 if value is None else value for value in numbers.model_dump().values()]


@pytest.mark.parametrize("detections, max_dets", [(40, 100), (150, 20), (40, 500)])
@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_pycocotools(seed: int, detections: int, max_dets: int) -> None:
    data = random_masks(seed, images=12 if detections < 100 else 4, detections=detections)
    result = evaluate(data.index, data.found, max_dets)
    expected = pycocotools(data, "segm", max_dets)
    np.testing.assert_allclose(values(result.masks), numbers_of(expected), rtol=0, atol=1e-9)
    np.testing.assert_allclose(values(result.coco), numbers_of(pycocotools(data, "bbox", max_dets)), rtol=0, atol=1e-6)

    columns = np.argsort(np.argsort(data.index.category_ids))
    for row, column in zip(result.classes, columns, strict=True):
        precision = expected.eval["precision"][:, :, column, 0, 2]
        assert (None if row.objects == 0 else pytest.approx(precision.mean(), abs=1e-9)) == row.AP
    assert result.masks != result.coco
    assert result.scalars()["AP"] == result.masks.AP and result.scalars()["AP_box"] == result.coco.AP  # type: ignore


@pytest.mark.parametrize("seed", range(2))
def test_what_is_found_is_found_by_its_mask(seed: int) -> None:
    """Counts at IoU 0.5 by a slow search over bitmaps, in a data set of one class."""
    data = random_masks(seed, images=6, detections=15)
    index = dataclasses.replace(
        data.index, labels=np.zeros_like(data.index.labels), flags=np.zeros_like(data.index.flags)
    )
    found = [dataclasses.replace(each, labels=np.zeros_like(each.labels)) for each in data.found]
    result = evaluate(index, found)
    threshold, truth = result.overall.threshold, object_masks(index)
    assert threshold is not None
    hits = total = 0
    for image, each in enumerate(found):
        objects = truth.of(image, index.rows(image)).decode()
        free = set(range(len(objects)))
        kept = each[each.scores >= threshold]
        total += len(kept)
        assert kept.masks is not None
        for bitmap in kept.masks.decode():
            ious = {row: (bitmap & objects[row]).sum() / (bitmap | objects[row]).sum() for row in free}
            best = max(ious, key=lambda row: (ious[row], row), default=None)
            if best is not None and ious[best] >= 0.5:
                free.remove(best)
                hits += 1
    assert (result.overall.true_positives, result.overall.false_positives) == (hits, total - hits)
    assert sum(row.true_positives for row in result.ranking) == hits
    assert result.confusion.matrix[0][0] == hits


BOX = [10.0, 20.0, 50.0, 60.0]


def one_object(segment: Any, *, size: tuple[int, int] = (100, 80)) -> DatasetIndex:
    return DatasetIndex(
        class_names=("cat",),
        paths=Strings.pack(["0.jpg"]),
        sizes=np.array([size], np.int32),
        image_ids=np.array([0]),
        starts=np.array([0, 1]),
        boxes=np.array([BOX], np.float32),
        labels=np.zeros(1, np.int32),
        areas=np.array([1600], np.float32),
        flags=np.zeros(1, np.uint8),
        segments=Strings.pack([json.dumps(segment) if segment else ""]),
    )


PACKED = Masks.encode(np.zeros((1, 80, 100))).counts[0].decode()
EMPTY = [{"size": [80, 100], "counts": counts} for counts in ([8000], PACKED)]


@pytest.mark.parametrize("segment", [None, [], [[10, 20, 30, 40]], [[10, 20, 30, 20, 10, 20]], *EMPTY])
def test_an_object_without_a_mask_has_that_of_its_box(segment: Any) -> None:
    index = one_object(segment)
    masks = object_masks(index)
    (bitmap,) = masks.of(0, slice(0, 1)).decode()
    assert bitmap.sum() == 1600 and bitmap[20:60, 10:50].all()
    assert masks.boxes == 1
    found = Detections(
        index.boxes, np.ones(1, np.float32), np.zeros(1, np.int64), np.zeros((1, 0)), masks.of(0, np.s_[:])
    )
    result = evaluate(index, [found])
    assert result.masks is not None and pytest.approx(1) == result.masks.AP
    assert result.warnings == ["objects without a mask, whose boxes take its place: 1"]


@pytest.mark.parametrize(
    "segment, words",
    [
        ({"size": [80, 100], "counts": [1, 2]}, "do not add up"),
        ({"size": [80, 100], "counts": "12"}, "do not add up"),
        ({"size": [80, 100]}, "counts"),
        ({"size": [80, 100], "counts": "~"}, "run lengths"),
        ({"size": [100, 80], "counts": [8000]}, "it is 80 x 100 pixels, the picture 100 x 80"),
        ([[1, 2, 3, 4, 5, 6, 7]], "an x without a y"),
        ([["a", 2, 3, 4, 5, 6]], "not a list of finite numbers"),
        ([[1, 2, 1e12, 4, 5, 6]], "not a list of numbers"),
        ([3], "not a list of finite numbers"),
        ("abc", "neither a list of polygons nor"),
    ],
)
def test_segmentations_that_cannot_be_used_are_named(segment: Any, words: str) -> None:
    with pytest.raises(DataError, match=rf"the mask of the .* at 10, 20, 50, 60: .*{words}") as caught:
        object_masks(one_object(segment))
    assert caught.value.where == "0.jpg"


def test_masks_of_another_picture_are_refused() -> None:
    bitmap = np.ones((1, 8, 8), bool)
    found = Detections(
        np.ones((1, 4), np.float32), np.ones(1), np.zeros(1, np.int64), np.zeros((1, 0)), Masks.encode(bitmap)
    )
    with pytest.raises(DataError, match="8 x 8 and 100 x 80 pixels"):
        evaluate(one_object(None), [found])


def row_of(found: Detections) -> dict[str, Any]:
    row = {name: getattr(found, name).tolist() for name in ("boxes", "scores", "labels")}
    assert found.masks is not None
    return {**row, "size": list(found.masks.size), "masks": [counts.decode() for counts in found.masks.counts]}


def test_data_without_masks_measures_boxes() -> None:
    data = random_masks(0, images=4)
    detected = Detected([row_of(each) for each in data.found], data.index.class_names, EvaluationSettings(), masks=True)
    assert measure(data.index, detected) == evaluate(data.index, data.found)
    result = measure(dataclasses.replace(data.index, segments=None), detected)
    assert result.masks is None and result.coco == measure(data.index, detected).coco
    assert "no masks" in result.warnings[-1]
    assert EvaluationResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_the_text_shows_both() -> None:
    data = random_masks(0, images=4)
    result = evaluate(data.index, data.found)
    text = result.to_text()
    assert "mask AP" in text and "box AP" in text and f"{result.masks.AP:.3f}" in text  # type: ignore[union-attr]
