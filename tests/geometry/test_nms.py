from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ymir_tmi.geometry.nms import class_aware_nms, keep_best


def slow_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    """Greedy suppression, class by class and box by box, in float64."""
    kept: list[int] = []
    for row in sorted(range(len(scores)), key=lambda row: -float(scores[row])):
        if all(labels[other] != labels[row] or slow_iou(boxes[other], boxes[row]) <= threshold for other in kept):
            kept.append(row)
    return kept


def slow_iou(first: Tensor, second: Tensor) -> float:
    ax1, ay1, ax2, ay2 = first.double().tolist()
    bx1, by1, bx2, by2 = second.double().tolist()
    overlap = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - overlap
    return overlap / union if overlap else 0.0


def clutter(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=random) * 200 - 50
    sizes = torch.rand(count, 2, generator=random) * 80
    boxes = torch.cat([centres - sizes / 2, centres + sizes / 2], dim=1)
    return boxes, torch.rand(count, generator=random), torch.randint(0, classes, (count,), generator=random)


@pytest.mark.parametrize(("count", "classes"), [(0, 1), (1, 1), (120, 1), (200, 3), (150, 80)])
@pytest.mark.parametrize("threshold", [0.1, 0.65])
def test_equals_suppression_of_each_class_by_itself(count: int, classes: int, threshold: float) -> None:
    boxes, scores, labels = clutter(count, classes, seed=count + classes)
    assert class_aware_nms(boxes, scores, labels, threshold).tolist() == slow_nms(boxes, scores, labels, threshold)


@pytest.mark.parametrize("limit", [1, 3, 10, 1000])
def test_a_limit_gives_the_first_of_all(limit: int) -> None:
    boxes, scores, labels = clutter(400, 2, seed=7)
    everything = class_aware_nms(boxes, scores, labels, 0.3)
    assert 20 < len(everything) < 400, "the case must suppress something"
    assert class_aware_nms(boxes, scores, labels, 0.3, limit=limit).tolist() == everything[:limit].tolist()


def test_a_limit_looks_further_when_the_best_boxes_suppress_each_other() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(50, 1)
    boxes[49] += 100
    kept = class_aware_nms(boxes, torch.linspace(1, 0.1, 50), torch.zeros(50, dtype=torch.int64), 0.5, limit=2)
    assert kept.tolist() == [0, 49]


def test_swapped_corners_suppress_nothing_and_are_kept() -> None:
    boxes = torch.tensor([[10.0, 10.0, 0.0, 0.0], [0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 0.0, 10.0]])
    assert class_aware_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64), 0.1).tolist() == [
        0,
        1,
        2,
    ]


def test_overlap_equal_to_the_threshold_is_kept() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]])
    scores, labels = torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64)
    assert class_aware_nms(boxes, scores, labels, 0.5).tolist() == [0, 1]
    assert class_aware_nms(boxes, scores, labels, 0.4999).tolist() == [0]


def test_many_classes_of_large_pictures_do_not_blur() -> None:
    """In float32 a shift of 10^6 pixels would move an overlap of 0.6499 across 0.65."""
    first = torch.tensor([[0.0, 0.0, 10_000.0, 64.0]])
    second = torch.tensor([[0.0, 0.0, 6_499.0, 64.0]])
    boxes = torch.cat([first, second]).repeat(100, 1)
    labels = torch.arange(100).repeat_interleave(2)
    kept = class_aware_nms(boxes, torch.linspace(1, 0.5, 200), labels, 0.65)
    assert len(kept) == 200


def test_infinite_boxes_do_not_make_classes_meet() -> None:
    boxes = torch.tensor([[-torch.inf, 0.0, torch.inf, 5.0], [0.0, 0.0, 5.0, 5.0], [0.0, 0.0, 5.0, 5.0]])
    labels = torch.tensor([0, 1, 1])
    assert class_aware_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), labels, 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("limit", [None, 1, 7])
def test_pairs_in_any_order_give_what_boxes_give(limit: int | None) -> None:
    boxes, scores, labels = clutter(150, 2, seed=4)
    scores = (scores * 10).round() / 10  # some are equal
    pairs = [
        (second, first) if (first + second) % 2 else (first, second)
        for first in range(150)
        for second in range(first)
        if labels[first] == labels[second] and slow_iou(boxes[first], boxes[second]) > 0.1
    ]
    first, second = torch.tensor(pairs)[torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))].T
    expected = class_aware_nms(boxes, scores, labels, 0.1, limit=limit)
    assert len(pairs) > 30
    assert keep_best(scores, first, second, limit=limit).tolist() == expected.tolist()


def test_without_pairs_all_are_kept() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert keep_best(torch.tensor([0.2, 0.9, 0.2]), nothing, nothing).tolist() == [1, 0, 2]
