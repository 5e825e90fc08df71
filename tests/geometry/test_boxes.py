from __future__ import annotations

import math

import pytest
import torch
import torchvision

from ymir_tmi.geometry.boxes import (
    aligned_ciou,
    aligned_giou,
    aligned_iou,
    aligned_siou,
    box_area,
    collapse_swapped,
    pairwise_iou,
    points_inside,
)


def some_boxes(count: int, seed: int) -> torch.Tensor:
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 50
    return torch.cat([corners.amin(1), corners.amax(1)], dim=1)


def test_overlaps_equal_those_of_torchvision() -> None:
    first, second = some_boxes(40, 0), some_boxes(30, 1)
    torch.testing.assert_close(pairwise_iou(first, second), torchvision.ops.box_iou(first, second))
    torch.testing.assert_close(aligned_iou(first[:30], second), torchvision.ops.box_iou(first[:30], second).diagonal())
    torch.testing.assert_close(
        aligned_giou(first[:30], second), torchvision.ops.generalized_box_iou(first[:30], second).diagonal()
    )
    torch.testing.assert_close(box_area(first), torchvision.ops.box_area(first))


def test_pairs_of_batches() -> None:
    first, second = some_boxes(6, 2).view(2, 3, 4), some_boxes(8, 3).view(2, 4, 4)
    together = pairwise_iou(first, second)
    assert together.shape == (2, 3, 4)
    for image in range(2):
        torch.testing.assert_close(together[image], pairwise_iou(first[image], second[image]))


@pytest.mark.parametrize(
    ("first", "second", "iou", "giou"),
    [
        pytest.param([0, 0, 2, 2], [0, 0, 2, 2], 1.0, 1.0, id="equal"),
        pytest.param([0, 0, 2, 2], [2, 0, 4, 2], 0.0, 0.0, id="touching: the hull has no gap"),
        pytest.param([0, 0, 1, 1], [3, 0, 4, 1], 0.0, -0.5, id="apart: half of the hull is neither"),
        pytest.param([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9, id="corner"),
        pytest.param([2, 2, 0, 0], [0, 0, 2, 2], 0.0, None, id="swapped corners overlap nothing"),
        pytest.param([1, 1, 1, 1], [1, 1, 1, 1], 0.0, None, id="points: the union is floored"),
    ],
)
def test_known_overlaps(first: list[float], second: list[float], iou: float, giou: float | None) -> None:
    pair = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
    assert aligned_iou(*pair).item() == pytest.approx(iou)
    if giou is not None:
        assert aligned_giou(*pair).item() == pytest.approx(giou)


def test_the_floor_of_the_union_is_eps() -> None:
    small = torch.tensor([0.0, 0.0, 1e-4, 1e-4], dtype=torch.float64)
    assert aligned_iou(small, small, eps=1e-6).item() == pytest.approx(1e-8 / 1e-6)
    assert aligned_iou(small, small, eps=1e-9).item() == pytest.approx(1.0)


def test_ciou_and_its_gradient_equal_those_of_torchvision() -> None:
    pred, target = some_boxes(30, 3).requires_grad_(), some_boxes(30, 4)
    ours, theirs = aligned_ciou(pred, target), 1 - torchvision.ops.complete_box_iou_loss(pred, target)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    (ours_gradient,), (theirs_gradient,) = (torch.autograd.grad(value.sum(), pred) for value in (ours, theirs))
    torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-5, atol=1e-6)


def slow_siou(pred: list[float], target: list[float]) -> float:
    """The formula of docs/specs/detectors.md, section 11, a number at a time, with an eps too small to matter."""
    (px1, py1, px2, py2), (tx1, ty1, tx2, ty2) = pred, target
    inter = max(0, min(px2, tx2) - max(px1, tx1)) * max(0, min(py2, ty2) - max(py1, ty1))
    sizes = [(px2 - px1, tx2 - tx1), (py2 - py1, ty2 - ty1)]
    iou = inter / (sizes[0][0] * sizes[1][0] + sizes[0][1] * sizes[1][1] - inter)
    dx, dy = (tx1 + tx2 - px1 - px2) / 2, (ty1 + ty2 - py1 - py2) / 2
    sine = abs(dy) / math.hypot(dx, dy)
    if sine > math.sin(math.pi / 4):
        sine = abs(dx) / math.hypot(dx, dy)
    gamma = 2 - math.cos(2 * math.asin(sine) - math.pi / 2)
    hull = max(px2, tx2) - min(px1, tx1), max(py2, ty2) - min(py1, ty1)
    distance = sum(1 - math.exp(-gamma * (d / side) ** 2) for d, side in zip((dx, dy), hull, strict=True))
    shape = sum((1 - math.exp(-abs(first - second) / max(first, second))) ** 4 for first, second in sizes)
    return max(-1, iou - 0.5 * (distance + shape))


def test_siou() -> None:
    pred, target = some_boxes(30, 5), some_boxes(30, 6)
    expected = [slow_siou(*pair) for pair in zip(pred.tolist(), target.tolist(), strict=True)]
    assert aligned_siou(pred, target, eps=1e-12).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("overlap", [aligned_ciou, aligned_siou], ids=["ciou", "siou"])
def test_equal_boxes_overlap_fully_with_a_finite_gradient(overlap: object) -> None:
    boxes = torch.tensor([[1.0, 2.0, 4.0, 7.0], [0.0, 0.0, 1e-3, 1e-3]])
    pred = boxes.clone().requires_grad_()
    value = overlap(pred, boxes)  # type: ignore[operator]
    assert value[0].item() == pytest.approx(1, abs=1e-6)
    value.sum().backward()
    assert pred.grad is not None and pred.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["ciou", "siou", "giou"])
def test_swapped_corners_stay_in_the_range(kind: str) -> None:
    pred, target = some_boxes(50, 7)[:, [2, 1, 0, 3]].requires_grad_(), some_boxes(50, 8)
    overlaps = {"ciou": aligned_ciou, "siou": aligned_siou}
    value = overlaps[kind](pred, target) if kind in overlaps else aligned_giou(pred, target, add_eps=True)
    value.sum().backward()
    assert (value.abs() <= 1).all() and (value <= 0).all()
    assert pred.grad is not None and pred.grad.isfinite().all()


def test_eps_is_added_where_asked_for() -> None:
    small = torch.tensor([0.0, 0.0, 1e-3, 1e-3], dtype=torch.float64)
    assert aligned_giou(small, small, eps=1e-6, add_eps=True).item() == pytest.approx(0.5)
    assert aligned_giou(small, small, eps=1e-6).item() == pytest.approx(1.0)


def test_collapsed_boxes_have_no_area_and_overlap_nothing() -> None:
    boxes = torch.tensor([[0.0, 0.0, 2.0, 3.0], [2.0, 0.0, 0.0, 3.0], [2.0, 3.0, 0.0, 0.0]])
    collapsed = collapse_swapped(boxes)
    assert torch.equal(collapsed[0], boxes[0])
    assert box_area(collapsed).tolist() == [6.0, 0.0, 0.0]
    assert pairwise_iou(collapsed, boxes[:1]).flatten().tolist() == [1.0, 0.0, 0.0]


def test_points_on_the_border_are_not_inside() -> None:
    points = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [1.5, 0.5]])
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    assert points_inside(points, box).tolist() == [[False, True, False, True]]
