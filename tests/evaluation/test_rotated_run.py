"""Rotated and upright detections meet annotations of either form, in memory and by the verb `evaluate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_data import make_index, make_rotated_index, rotated_detections

from ymir_tmi.config.schema import EvaluateSettings
from ymir_tmi.data.index import DatasetIndex, Strings
from ymir_tmi.data.read import read_dataset
from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.detected import Detected, measure
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import EvaluationResult, EvaluationSettings, read_evaluation
from ymir_tmi.evaluation.run import evaluate
from ymir_tmi.geometry.rotated import hulls
from ymir_tmi.imaging import write_image
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import Row
from ymir_tmi.pool.predictions import write_predictions

NAMES = ("ship", "plane")
SETTINGS = EvaluationSettings(conf=0.001)


def scene(seed: int = 0) -> tuple[DatasetIndex, list[Detections]]:
    """Return objects, and detections near them; one image has no detections and one has neither."""
    rng = np.random.default_rng(seed)
    boxes, labels, detections = [], [], []
    for count in (6, 8, 0, 5):
        objects = np.column_stack(
            [rng.uniform(60, 220, (count, 2)), rng.uniform(10, 40, (count, 2)), rng.uniform(-1.5, 1.5, count)]
        )
        boxes.append(objects)
        labels.append(rng.integers(0, 2, count))
        kept = rng.permutation(count)[: 0 if count == 5 else count]
        near = objects[kept] + rng.normal(0, 1, (len(kept), 5)) * np.array([2, 2, 2, 2, 0.1])
        detections.append(rotated_detections(near, np.sort(rng.random(len(kept)))[::-1], labels[-1][kept]))
    flags = [np.zeros(len(part)) for part in boxes]
    return make_rotated_index(boxes, labels, flags, NAMES), detections


def rows_of(detections: list[Detections]) -> list[Row]:
    return [
        {"size": [200, 200], **{name: getattr(found, name).tolist() for name in ("boxes", "scores", "labels")}}
        for found in detections
    ]


def upright(detections: list[Detections]) -> list[Detections]:
    return [dataclasses.replace(found, boxes=hulls(torch.from_numpy(found.boxes)).numpy()) for found in detections]


def direct(index: DatasetIndex, detections: list[Detections]) -> EvaluationResult:
    evaluator = DetectionEvaluator(index, SETTINGS)
    for position, found in enumerate(detections):
        evaluator.update(position, found)
    return evaluator.compute()


def test_rows_give_the_numbers_of_the_detections() -> None:
    index, detections = scene()
    result = measure(index, Detected(rows_of(detections), NAMES, SETTINGS, rotated=True))
    assert result == direct(index, detections)
    assert result.dota is not None and 0.2 < (result.dota.AP50 or 0) < 1


def test_upright_detections_are_compared_with_the_boxes_around() -> None:
    index, detections = scene()
    result = measure(index, Detected(rows_of(upright(detections)), NAMES, SETTINGS))
    assert result.dota is None
    areas = np.prod(index.boxes[:, 2:] - index.boxes[:, :2], axis=1)
    expected = direct(dataclasses.replace(index, rotated=None, areas=areas), upright(detections))
    (warning,) = result.warnings
    assert warning.startswith("the annotations are rotated boxes")
    assert result.model_copy(update={"warnings": []}) == expected


def test_rotated_detections_are_compared_with_upright_annotations() -> None:
    box = (10.0, 10.0, 50.0, 30.0)
    index = make_index([[(box, 0)], [(box, 0)]])
    found = [[30.0, 20.0, 40.0, 20.0, 0.0], [30.0, 20.0, 20.0, 40.0, np.pi / 2]]
    rows: list[Row] = [{"boxes": [one], "scores": [0.9], "labels": [0]} for one in found]
    result = measure(index, Detected(rows, ("cat", "dog"), SETTINGS, rotated=True))
    assert (result.means.AP, result.overall.f1) == pytest.approx((1, 1))
    assert result.warnings == ["the annotations are upright boxes, so there are no angles in them"]


@pytest.mark.parametrize("rotated", [False, True])
def test_nothing_found(rotated: bool) -> None:
    index, _ = scene()
    rows: list[Row] = [{"boxes": [], "scores": [], "labels": []}] * 3 + [{"error": "this file is empty"}]
    result = measure(index, Detected(rows, NAMES, SETTINGS, rotated=rotated))
    assert (result.dota is not None) == rotated
    assert (result.means.AP, result.overall.recall, result.overall.missed) == (0, 0, 19)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """A COCO file with upright boxes, its pictures, and predictions near them that are rotated."""
    index, detections = scene()
    index = dataclasses.replace(
        index, rotated=None, paths=Strings.pack(str(tmp_path / f"{row}.png") for row in range(len(index)))
    )
    for row in range(len(index)):
        write_image(Path(index.paths[row]), np.zeros((1000, 1000, 3), np.uint8))
    xywh = np.hstack([index.boxes[:, :2], index.boxes[:, 2:] - index.boxes[:, :2]]).tolist()
    data: dict[str, Any] = {
        "images": [
            {"id": row, "file_name": index.paths[row], "width": 1000, "height": 1000} for row in range(len(index))
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, 1)],
        "annotations": [
            {"id": row, "image_id": image, "category_id": label + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for row, (image, label, box) in enumerate(
                zip(index.image_of_box().tolist(), index.labels.tolist(), xywh, strict=True), 1
            )
        ],
    }
    (tmp_path / "data.json").write_text(json.dumps(data))
    write_predictions(
        tmp_path / "predictions.json", index, [(1, "ship"), (2, "plane")], lambda: rows_of(detections), description=""
    )
    return tmp_path / "predictions.json"


def test_the_verb_measures_saved_predictions(predictions: Path) -> None:
    folder = predictions.parent
    data = [str(folder / "data.json")]
    result = evaluate(EvaluateSettings(predictions=predictions, data=data, output=folder / "run"))
    _, detections = scene()
    expected = measure(read_dataset(data), Detected(rows_of(detections), NAMES, SETTINGS, rotated=True))
    assert result.dota == expected.dota and result.confusion == expected.confusion
    assert result.dota is not None and 0 < (result.dota.AP or 0) < 1

    run = folder / "run"
    assert read_evaluation(run / "evaluation.json").to_dict() == result.to_dict()
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    assert (metrics["AP"], metrics["AP50_11points"]) == (result.dota.AP, result.dota.AP50_11points)
    again = evaluate(EvaluateSettings(predictions=run / "predictions.json", data=data, output=folder / "again"))
    assert again.to_dict() == result.to_dict()


def test_a_file_without_detections_is_measured_in_the_form_of_the_data(tmp_path: Path, predictions: Path) -> None:
    content = json.loads(predictions.read_text())
    predictions.write_text(json.dumps({**content, "annotations": []}))
    data = [str(predictions.parent / "data.json")]
    result = evaluate(EvaluateSettings(predictions=predictions, data=data, output=tmp_path / "run"))
    assert result.dota is None and result.means.AP == 0


@pytest.mark.parametrize("wrong", [{"coco": None}, {"dota": {}}])
def test_an_evaluation_has_the_numbers_of_one_form(wrong: dict[str, Any]) -> None:
    content = direct(make_index([[((0, 0, 9, 9), 0)]]), []).to_dict()
    with pytest.raises(DataError, match="either 'coco' or 'dota'"):
        EvaluationResult.from_dict({**content, **wrong})
