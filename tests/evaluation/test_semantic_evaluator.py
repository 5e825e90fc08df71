"""Numbers of label maps, against mmsegmentation's and against a slow count."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_data import make_index

from ymir_tmi.data.index import IGNORED, DatasetIndex
from ymir_tmi.errors import DataError
from ymir_tmi.evaluation import semantics
from ymir_tmi.evaluation.results import write_evaluation
from ymir_tmi.evaluation.semantic_results import SemanticResult, SemanticSettings, read_any_evaluation
from ymir_tmi.evaluation.semantics import OTHER, ConfusedPixels, SemanticEvaluator

GOLDENS = Path(__file__).parents[2] / os.environ.get("YMIR_TMI_GOLDENS", "tests/goldens") / "mmseg"


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {label}" for label in range(count))


def evaluate(predicted: Any, truth: Any, classes: int) -> SemanticResult:
    evaluator = SemanticEvaluator(make_index([[] for _ in truth], names(classes)))
    for position in reversed(range(len(truth))):
        evaluator.update(position, predicted[position], truth[position])
    return evaluator.compute()


@pytest.mark.parametrize("case", ["a", "b"])
def test_numbers_are_those_of_mmsegmentation(case: str) -> None:
    facts = json.loads((GOLDENS / "metrics.json").read_text())[case]
    with np.load(GOLDENS / "metrics.npz") as arrays:
        predicted, truth = arrays[f"{case}/pred"], arrays[f"{case}/gt"]
        columns = {name: arrays[f"{case}/{name}"] for name in ("IoU", "Acc")}
    assert facts["ignore_index"] == IGNORED
    result = evaluate(predicted, truth, facts["num_classes"])
    assert [result.mIoU, result.mAcc, result.aAcc] == pytest.approx([facts[key] for key in ("mIoU", "mAcc", "aAcc")])
    for name, column in columns.items():
        ours = [getattr(row, name) for row in result.classes]
        assert [value is None for value in ours] == np.isnan(column).tolist()
        np.testing.assert_allclose([np.nan if value is None else value for value in ours], column, rtol=0, atol=1e-12)
    assert sum(map(sum, result.confusion.matrix)) == result.pixels == (truth != IGNORED).sum()


def random_maps(seed: int, classes: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    truth = [rng.integers(0, classes, (8, 12 + size), np.uint8) for size in range(4)]
    predicted = [np.where(rng.random(each.shape) < 0.6, each, rng.integers(0, classes, each.shape)) for each in truth]
    for number, each in enumerate(truth):
        each[rng.random(each.shape) < 0.1 * number] = IGNORED
    return [each.astype(np.uint8) for each in predicted], truth


@pytest.mark.parametrize("seed, at_once", [(0, 1), (1, 30), (2, 1 << 20)])
def test_counts_and_ranking_are_those_of_a_slow_count(seed: int, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantics, "_COUNTED_AT_ONCE", at_once)
    classes = 4
    predicted, truth = random_maps(seed, classes)
    predicted[0][0] = OTHER
    result = evaluate(predicted, truth, classes)
    matrix = np.zeros((classes, classes + 1), int)
    scores = []
    for one, other in zip(predicted, truth, strict=True):
        ious = []
        for label in range(classes):
            own, found = other == label, (one == label) & (other != IGNORED)
            if (own | found).any():
                ious.append((own & found).sum() / (own | found).sum())
        scores.append(np.mean(ious))
        for y, x in np.argwhere(other != IGNORED):
            matrix[other[y, x], min(one[y, x], classes)] += 1
    assert result.confusion.matrix == matrix.tolist()
    assert result.confusion.names == [*names(classes), "other"]
    assert [row.pixels for row in result.classes] == matrix.sum(1).tolist()
    assert [row.predicted for row in result.classes] == matrix[:, :-1].sum(0).tolist()
    assert [row.images for row in result.classes] == [
        sum((t == label).any() for t in truth) for label in range(classes)
    ]
    order = sorted(range(len(scores)), key=lambda row: -scores[row])
    assert [row.position for row in result.ranking] == order
    assert [row.score for row in result.ranking] == pytest.approx([scores[row] for row in order])
    assert result.ranking[0].path == f"{order[0]}.jpg"


def test_what_does_not_count_has_no_numbers() -> None:
    nothing = np.full((2, 3), IGNORED, np.uint8)
    result = evaluate([np.zeros((2, 3), np.uint8)], [nothing], 2)
    assert (result.mIoU, result.mAcc, result.aAcc, result.pixels, result.ranking) == (None, None, None, 0, [])
    assert [row.IoU for row in result.classes] == [None, None]
    assert result.scalars() == {}


def index_of(images: int) -> DatasetIndex:
    return make_index([[] for _ in range(images)], ("road", "sky"))


def test_unreadable_images_do_not_count() -> None:
    evaluator = SemanticEvaluator(index_of(2), SemanticSettings(image_size=640, precision="fp32"))
    road = np.zeros((2, 2), np.uint8)
    evaluator.update(0, road, road)
    evaluator.fail(1, "this JPEG is cut short")
    result = evaluator.compute(["something"])
    assert (result.mIoU, result.images, result.pixels) == (1, 2, 4)
    assert [(row.position, row.path) for row in result.unreadable] == [(1, "1.jpg")]
    text = result.to_text()
    for part in ("mIoU 1.000", "100.0%", "640 pixels", "Warning: something", "cannot be read: 1", "sky"):
        assert part in text
    evaluator.reset()
    assert evaluator.compute().pixels == 0


def test_a_file_gives_back_the_result(tmp_path: Path) -> None:
    predicted, truth = random_maps(0, 3)
    result = evaluate(predicted, truth, 3)
    write_evaluation(tmp_path / "evaluation.json", result)
    assert read_any_evaluation(tmp_path / "evaluation.json") == result
    assert set(result.scalars()) == {"mIoU", "mAcc", "aAcc"} and result.goal in result.scalars()
    (tmp_path / "evaluation.json").write_text(json.dumps({**result.to_dict(), "pixels": "many"}))
    with pytest.raises(DataError, match="pixels"):
        read_any_evaluation(tmp_path / "evaluation.json")


def test_counts_of_an_image_are_as_good_as_its_maps() -> None:
    predicted, truth = random_maps(1, 3)
    evaluator = SemanticEvaluator(make_index([[] for _ in truth], names(3)))
    for position, maps in enumerate(zip(predicted, truth, strict=True)):
        counts = ConfusedPixels.between(*maps, 3)
        lists = {name: column.tolist() for name, column in dataclasses.asdict(counts).items()}
        evaluator.update_counts(position, ConfusedPixels(**{name: np.array(each) for name, each in lists.items()}))
    assert evaluator.compute() == evaluate(predicted, truth, 3)
