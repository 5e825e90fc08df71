"""NMS in an ONNX graph, and what is said about its results, against NMS as the package does it elsewhere."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from exporting_data import assert_same_detections
from torch import Tensor

from ymir_tmi.data.letterbox import InputSpec, plan_frame
from ymir_tmi.exporting.detections import Found, MismatchError, compare_detections
from ymir_tmi.exporting.nms import append_nms
from ymir_tmi.geometry.boxes import box_area
from ymir_tmi.models.interface import DenseDetections, Detections, PostprocessSpec
from ymir_tmi.models.postprocess import detect

SPEC = PostprocessSpec(score_threshold=0.3, iou_threshold=0.5, max_detections=40, clip="never")
FRAME = plan_frame(100, 100, InputSpec(size=100, stride=4))


def candidates(count: int, pictures: int = 2, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes (B, P, 4), some with swapped corners, and scores (B, P, C) of which half are below the threshold."""
    random = torch.Generator().manual_seed(seed)
    corners = torch.rand(pictures, count, 2, generator=random) * 80
    sides = torch.rand(pictures, count, 2, generator=random) * 36 - 4
    scores = torch.rand(pictures, count, classes, generator=random) * 0.6
    return torch.cat([corners, corners + sides], 2), scores


def run_nodes(boxes: Tensor, scores: Tensor, spec: PostprocessSpec, opset: int) -> list[Any]:
    """Run the nodes alone, in a graph whose inputs are the candidates."""
    kinds = onnx.TensorProto.FLOAT
    shapes = {"in_boxes": ["B", "P", 4], "in_scores": ["B", "P", scores.shape[2]]}
    outer = [onnx.helper.make_tensor_value_info(name, kinds, shape) for name, shape in shapes.items()]
    inner = [onnx.helper.make_tensor_value_info(name[3:] + "_", kinds, shape) for name, shape in shapes.items()]
    same = [onnx.helper.make_node("Identity", [name], [name[3:] + "_"]) for name in shapes]
    graph = onnx.helper.make_graph(same, "candidates", outer, inner)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    append_nms(model, ["boxes_", "scores_"], spec)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results: list[Any] = session.run(None, {"in_boxes": boxes.numpy(), "in_scores": scores.numpy()})
    return results


def expected_of(boxes: Tensor, scores: Tensor, spec: PostprocessSpec) -> list[Detections]:
    dense = DenseDetections(boxes, scores, (boxes.shape[1],))
    return detect(dense, [FRAME] * len(boxes), spec)


@pytest.mark.parametrize("opset", [11, 13, 17, 20])
@pytest.mark.parametrize(
    ("count", "spec"),
    [
        pytest.param(300, SPEC, id="more than the limit"),
        pytest.param(25, SPEC, id="fewer than the limit"),
        pytest.param(5, SPEC, id="fewer candidates than the limit"),
        pytest.param(50, SPEC.model_copy(update={"score_threshold": 0.9}), id="nothing found"),
    ],
)
def test_the_nodes_find_what_detect_finds(count: int, spec: PostprocessSpec, opset: int) -> None:
    boxes, scores = candidates(count)
    found_boxes, found_scores, labels, counts = run_nodes(boxes, scores, spec, opset)
    assert (found_boxes.shape, labels.shape, counts.shape) == ((2, 40, 4), (2, 40), (2,))
    for row, expected in enumerate(expected_of(boxes, scores, spec)):
        number = int(counts[row])
        assert number == len(expected)
        if number:
            assert_same_detections(
                found_boxes[row, :number], found_scores[row, :number], labels[row, :number], expected
            )
        for array in (found_boxes, found_scores, labels):
            assert not array[row, number:].any()


@pytest.fixture
def found() -> tuple[Found, Tensor, Tensor]:
    """What NMS leaves of 300 candidates, a full list, and the candidates."""
    boxes, scores = candidates(300, pictures=1)
    (kept,) = expected_of(boxes, scores, SPEC)
    assert len(kept) == SPEC.max_detections
    return Found(*map(torch.from_numpy, (kept.boxes, kept.scores, kept.labels))), boxes[0], scores[0]


@pytest.mark.parametrize("limit", [40, 1000])
@pytest.mark.parametrize("seed", range(5))
def test_what_nms_leaves_is_accepted(seed: int, limit: int) -> None:
    spec = SPEC.model_copy(update={"max_detections": limit})
    boxes, scores = candidates(400, pictures=1, seed=seed)
    (kept,) = expected_of(boxes, scores, spec)
    parts = Found(*map(torch.from_numpy, (kept.boxes + 1e-4, kept.scores - 1e-6, kept.labels)))
    differences = compare_detections(parts, boxes[0], scores[0], spec, 1e-4)
    assert 1e-7 < differences["boxes"] < 1e-5 and 1e-7 < differences["scores"] < 1e-5


def test_a_box_that_moved_is_noticed(found: tuple[Found, Tensor, Tensor]) -> None:
    kept, boxes, scores = found
    moved = kept.boxes.clone()
    moved[7, 0] += 0.5
    with pytest.raises(MismatchError, match="is none of the model's"):
        compare_detections(kept._replace(boxes=moved), boxes, scores, SPEC, 1e-4)


def test_another_class_is_noticed(found: tuple[Found, Tensor, Tensor]) -> None:
    kept, boxes, scores = found
    with pytest.raises(MismatchError, match="is none of the model's"):
        compare_detections(kept._replace(labels=(kept.labels + 1) % 3), boxes, scores, SPEC, 1e-4)


def test_a_missing_detection_is_noticed(found: tuple[Found, Tensor, Tensor]) -> None:
    kept, boxes, scores = found
    fewer = Found(*(part[1:] for part in kept))
    with pytest.raises(MismatchError, match="is missing"):
        compare_detections(fewer, boxes, scores, SPEC, 1e-4)


def test_a_detection_too_many_is_noticed(found: tuple[Found, Tensor, Tensor]) -> None:
    kept, boxes, scores = found
    largest = box_area(kept.boxes).argmax()
    twice = Found(*(torch.cat([part[:-1], part[None, largest]]) for part in kept))
    with pytest.raises(MismatchError, match="overlap"):
        compare_detections(twice, boxes, scores, SPEC, 1e-4)


def test_numbers_that_are_none_are_noticed(found: tuple[Found, Tensor, Tensor]) -> None:
    kept, boxes, scores = found
    with pytest.raises(MismatchError):
        compare_detections(kept._replace(boxes=kept.boxes * float("nan")), boxes, scores, SPEC, 1e-4)
