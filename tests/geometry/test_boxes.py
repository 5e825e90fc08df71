from __future__ import annotations

import pytest
import torch
import torchvision

from ymir_tmi.geometry.boxes import aligned_giou, aligned_iou, box_area, pairwise_iou, points_inside


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


def test_points_on_the_border_are_not_inside() -> None:
    points = torch.tensor([[0.0, 1.0], [1.0, 1.0], [2.0, 2.0], [1.5, 0.5]])
    box = torch.tensor([[0.0, 0.0, 2.0, 2.0]])
    assert points_inside(points, box).tolist() == [[False, True, False, True]]
