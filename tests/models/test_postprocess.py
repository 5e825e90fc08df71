"""Post-processing against loops that say the same as docs/specs/detectors.md, section 12."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ymir_tmi.config.schema import EvaluateSettings, RunSettings, TrainSettings
from ymir_tmi.data.letterbox import Frame, InputSpec, plan_frame
from ymir_tmi.models.interface import DenseDetections, PostprocessSpec
from ymir_tmi.models.postprocess import detect, merge_classes, resolve_max_dets

LEVELS = (60, 30, 10)
Found = tuple[tuple[float, ...], float, int, int]
"""Box, score, class and prior."""

FORMS = {
    "rtmdet": PostprocessSpec(score_threshold=0.3, candidates=60, max_detections=40),
    "rtmdet_mmdet": PostprocessSpec(
        score_threshold=0.3, candidates=25, candidates_per_level=True, max_detections=40, clip="before_nms"
    ),
    "yolox": PostprocessSpec(score_threshold=0.3, candidates=None, max_detections=None),
    "yolox_mmdet": PostprocessSpec(
        score_threshold=0.3, candidates=None, max_detections=None, multi_label=False, inclusive=True, clip="never"
    ),
    "retinanet": PostprocessSpec(
        score_threshold=0.3, candidates=25, candidates_per_level=True, max_detections=40, drop_empty=True
    ),
}


def some_output(seed: int, classes: int, images: int = 2) -> DenseDetections:
    """Return boxes in clutter, some beyond the border and some with swapped corners, in a 128 x 96 input."""
    random = torch.Generator().manual_seed(seed)
    count = sum(LEVELS)
    centres = torch.rand(images, count, 2, generator=random) * torch.tensor([140.0, 110.0]) - 5
    sizes = torch.rand(images, count, 2, generator=random) * 60 - 2
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2)
    return DenseDetections(boxes, torch.rand(images, count, classes, generator=random) ** 3, LEVELS)


def frame_of(width: int, height: int, pad: str = "center") -> Frame:
    return plan_frame(width, height, InputSpec.model_validate({"size": 128, "pad": pad}))


def slow_detect(boxes: Tensor, scores: Tensor, frame: Frame, spec: PostprocessSpec) -> list[Found]:
    rows: list[tuple[float, int, int]] = []
    for prior, row in enumerate(scores.tolist()):
        for label, score in enumerate(row):
            passes = score >= spec.score_threshold if spec.inclusive else score > spec.score_threshold
            if passes and (spec.multi_label or label == int(np.argmax(row))):
                rows.append((score, prior, label))
    ends = list(itertools.accumulate(LEVELS)) if spec.candidates_per_level else [sum(LEVELS)]
    kept_rows = []
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        level = sorted((row for row in rows if start <= row[1] < end), reverse=True)
        kept_rows += level if spec.candidates is None else level[: spec.candidates]
    found: list[Found] = []
    for score, prior, label in sorted(kept_rows, reverse=True):
        x1, y1, x2, y2 = (float(value) for value in boxes[prior])
        box = [
            (x1 - frame.left) / frame.scale_x,
            (y1 - frame.top) / frame.scale_y,
            (x2 - frame.left) / frame.scale_x,
            (y2 - frame.top) / frame.scale_y,
        ]
        if spec.clip == "before_nms":
            box = clip(box, frame)
            if box[2] <= box[0] or box[3] <= box[1]:
                continue
        if all(other[2] != label or overlap(other[0], box) <= spec.iou_threshold for other in found):
            found.append((tuple(box), score, label, prior))
    if spec.clip == "after_nms":
        found = [(tuple(clip(list(box), frame)), score, label, prior) for box, score, label, prior in found]
    found = found[: spec.max_detections]
    if spec.drop_empty:
        found = [row for row in found if row[0][2] > row[0][0] and row[0][3] > row[0][1]]
    return found


def clip(box: list[float], frame: Frame) -> list[float]:
    limits = [frame.width, frame.height] * 2
    return [min(max(value, 0.0), limit) for value, limit in zip(box, limits, strict=True)]


def overlap(first: Any, second: Any) -> float:
    shared = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    shared *= max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return shared / union if shared else 0.0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("classes", "width", "height", "pad"),
    [
        pytest.param(1, 128, 96, "center", id="one class, no letterbox"),
        pytest.param(5, 301, 180, "center", id="padded on both sides"),
        pytest.param(5, 60, 33, "corner", id="enlarged, padded at the right and the bottom"),
    ],
)
def test_each_form(form: str, classes: int, width: int, height: int, pad: str) -> None:
    dense = some_output(classes, classes)
    frames = [frame_of(width, height, pad), frame_of(height, width, pad)]
    results = detect(dense, frames, FORMS[form])
    assert len(results) == 2
    for ours, boxes, scores, frame in zip(results, dense.boxes, dense.scores, frames, strict=True):
        expected = slow_detect(boxes, scores, frame, FORMS[form])
        assert len(expected) > 5, "the case must find something"
        np.testing.assert_allclose(ours.boxes, [box for box, *_ in expected], rtol=1e-5, atol=1e-4)
        np.testing.assert_array_equal(ours.scores, np.float32([score for _, score, *_ in expected]))
        assert ours.labels.tolist() == [label for _, _, label, _ in expected]
        np.testing.assert_array_equal(ours.class_scores, scores[[prior for *_, prior in expected]])
        types = (ours.boxes.dtype, ours.scores.dtype, ours.labels.dtype, ours.class_scores.dtype)
        assert types == (np.float32, np.float32, np.int64, np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_nothing_above_the_threshold(form: str) -> None:
    spec = FORMS[form].model_copy(update={"score_threshold": 1.0, "inclusive": False})
    for found in detect(some_output(0, 3), [frame_of(128, 96)] * 2, spec):
        assert found.boxes.shape == (0, 4)
        assert found.class_scores.shape == (0, 3)


def test_a_score_equal_to_the_threshold() -> None:
    dense = DenseDetections(torch.tensor([[[0.0, 0.0, 9.0, 9.0]]]), torch.tensor([[[0.25, 0.1]]]), (1,))
    for inclusive, count in ((True, 1), (False, 0)):
        spec = PostprocessSpec(score_threshold=0.25, inclusive=inclusive)
        assert len(detect(dense, [frame_of(128, 96)], spec)[0]) == count


def test_boxes_that_clipping_empties_count_among_the_best_and_are_dropped_on_request() -> None:
    boxes = torch.tensor(
        [[[-9.0, 0.0, -1.0, 9.0], [0.0, 96.0, 9.0, 99.0], [5.0, 5.0, 9.0, 9.0], [30.0, 30.0, 9.0, 9.0]]]
    )
    dense = DenseDetections(boxes, torch.tensor([[[0.9], [0.8], [0.7], [0.6]]]), (4,))
    for drop_empty, limit, scores in ((False, None, [0.9, 0.8, 0.7, 0.6]), (True, None, [0.7]), (True, 2, [])):
        spec = PostprocessSpec(drop_empty=drop_empty, max_detections=limit)
        (found,) = detect(dense, [frame_of(128, 96)], spec)
        assert found.scores.tolist() == pytest.approx(scores)


@pytest.mark.parametrize(
    "groups",
    [
        pytest.param([[2], [0]], id="a subset in another order"),
        pytest.param([[1, 3], [0]], id="two classes become one"),
        pytest.param([[0, 1, 2, 3]], id="all become one"),
    ],
)
def test_class_groups_take_the_largest_score_before_the_threshold(groups: list[list[int]]) -> None:
    dense = some_output(3, 4)
    merged = np.stack([dense.scores.numpy()[..., group].max(-1) for group in groups], axis=-1)
    np.testing.assert_array_equal(merge_classes(dense.scores, groups), merged)
    frames = [frame_of(128, 96)] * 2
    ours = detect(dense, frames, FORMS["rtmdet"], class_groups=groups)
    direct = detect(dense._replace(scores=torch.from_numpy(merged)), frames, FORMS["rtmdet"])
    for left, right in zip(ours, direct, strict=True):
        np.testing.assert_array_equal(left.boxes, right.boxes)
        np.testing.assert_array_equal(left.class_scores, right.class_scores)


def test_pictures_do_not_depend_on_their_neighbours() -> None:
    dense = some_output(4, 3)
    frames = [frame_of(301, 180), frame_of(60, 33)]
    both = detect(dense, frames, FORMS["rtmdet_mmdet"])
    for image in range(2):
        alone = DenseDetections(dense.boxes[image, None], dense.scores[image, None], LEVELS)
        (single,) = detect(alone, [frames[image]], FORMS["rtmdet_mmdet"])
        np.testing.assert_array_equal(single.boxes, both[image].boxes)


@pytest.mark.parametrize(
    "settings, rotated, expected",
    [
        (RunSettings(), False, 100),
        (RunSettings(), True, 2000),
        (TrainSettings(), True, 2000),
        (EvaluateSettings(data=["a"]), False, 100),
        (EvaluateSettings(data=["a"], tile=1024), False, 2000),
        (EvaluateSettings(data=["a"], tile=1024), True, 2000),
        (EvaluateSettings(data=["a"], tile=1024, max_dets=7), True, 7),
        (RunSettings(max_dets=3000), False, 3000),
    ],
)
def test_how_many_detections_are_kept_by_default(settings: RunSettings, rotated: bool, expected: int) -> None:
    assert resolve_max_dets(settings, rotated=rotated) == expected
