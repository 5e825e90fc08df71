from __future__ import annotations

import json
from pathlib import Path

import pytest
from evaluation_data import coco_detections, coco_index, random_coco

from ymir_tmi.errors import DataError
from ymir_tmi.evaluation.evaluator import DetectionEvaluator
from ymir_tmi.evaluation.results import (
    EvaluationResult,
    EvaluationSettings,
    read_evaluation,
    write_evaluation,
)


@pytest.fixture(scope="module")
def result() -> EvaluationResult:
    data, results = random_coco(0)
    settings = EvaluationSettings(conf=0.001, iou=0.65, max_dets=50, image_size=640, precision="fp32")
    evaluator = DetectionEvaluator(coco_index(data), settings)
    for position, detections in enumerate(coco_detections(data, results)):
        evaluator.update(position, detections)
    evaluator.fail(3, "this file is empty")
    return evaluator.compute(["the model does not know the class 'class 17'"])


def test_json_round_trip(result: EvaluationResult, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    write_evaluation(path, result)
    assert read_evaluation(path) == result


def test_json_names_what_readers_look_for(result: EvaluationResult) -> None:
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert list(content["coco"]) == [
        *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
        *("AR_1", "AR_10", "AR_max", "AR_small", "AR_medium", "AR_large"),
    ]
    assert len(content["classes"][0]["pr"]["recall"]) == len(content["classes"][0]["pr"]["scores"]) == 101
    assert content["classes"][3] == {
        **dict.fromkeys(content["classes"][3]),
        "name": "class 4",
        "objects": 0,
        "images": 0,
    }
    assert content["settings"]["max_dets"] == 50


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "cannot read this evaluation"),
        ("{}", "this is not an evaluation: settings"),
        ("[]", "this is not an evaluation"),
    ],
)
def test_other_files_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_evaluation(path)
    assert caught.value.where == path


def test_text_states_conditions_numbers_and_warnings(result: EvaluationResult) -> None:
    text = result.to_text()
    lines = text.splitlines()
    assert "tiles" not in lines[0]
    assert "at most 50 detections per image; scores above 0.001; NMS at IoU 0.65; 640 pixels; fp32" in lines[0]
    assert f"{result.coco.AP50:.3f}" in text and "AR 50" in text
    (row,) = [line.split() for line in lines if line.startswith("class 4")]
    assert row == ["class", "4", "0", "0", *"------"]
    assert "Warning: the model does not know the class 'class 17'" in lines
    assert "Warning: images that cannot be read: 1, see evaluation.json" in lines


def test_text_states_how_large_images_were_cut(result: EvaluationResult) -> None:
    settings = result.settings.model_copy(update={"tile": 1024, "overlap": 200})
    text = result.model_copy(update={"settings": settings}).to_text()
    assert "tiles of 1024 pixels that overlap by 200" in text.splitlines()[0]


def test_scalars_leave_out_what_is_not_known(result: EvaluationResult) -> None:
    scalars = result.scalars()
    assert scalars["AP"] == result.coco.AP
    assert scalars["f1"] == result.overall.f1
    assert None not in scalars.values()
    nothing = DetectionEvaluator(coco_index({**random_coco(0)[0], "annotations": []})).compute()
    assert nothing.scalars() == {}
