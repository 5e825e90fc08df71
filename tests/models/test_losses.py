from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
import torchvision

from ymir_tmi.models.losses import (
    ciou_loss,
    clamped_giou_loss,
    distribution_focal_loss,
    focal_loss,
    giou_loss,
    mean_over_processes,
    process_count,
    quality_focal_loss,
    siou_loss,
    soft_cross_entropy,
    square_iou_loss,
    varifocal_loss,
)

# What the cross entropy of a logit with its target is multiplied by.
CLASS_LOSSES = [
    pytest.param(quality_focal_loss, lambda p, target: (target - p) ** 2, id="quality focal"),
    pytest.param(varifocal_loss, lambda p, target: torch.where(target > 0, target, 0.75 * p**2), id="varifocal"),
    pytest.param(soft_cross_entropy, lambda p, target: torch.ones_like(p), id="soft cross entropy"),
]


@pytest.mark.parametrize(("loss", "weight"), CLASS_LOSSES)
def test_class_losses_are_the_sum_over_all_logits(loss: Any, weight: Any) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([0, 1, 1]), torch.tensor([4, 0, 2]), torch.tensor([1, 1, 0])
    quality = torch.tensor([0.9, 0.0, 0.4], dtype=torch.float64)
    target = torch.zeros(2, 5, 3, dtype=torch.float64)
    target[positives] = quality
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    expected = (entropy * weight(logits.sigmoid(), target)).sum()
    ours = loss(logits, positives, quality)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(expected, logits))


@pytest.mark.parametrize(("loss", "weight"), CLASS_LOSSES)
def test_class_losses_of_extreme_logits_are_finite(loss: Any, weight: Any) -> None:
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    loss = loss(logits, (torch.tensor([0]), torch.tensor([1])), torch.tensor([0.5]))
    loss.backward()
    assert logits.grad is not None
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_focal_loss_against_torchvision() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([0, 1, 1]), torch.tensor([4, 0, 2]), torch.tensor([1, 1, 0])
    target = torch.zeros(2, 5, 3, dtype=torch.float64)
    target[positives] = 1
    counted = torch.tensor([[True, True, False, True, True], [True, False, True, True, True]])
    expected = torchvision.ops.sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0)[counted].sum()
    ours = focal_loss(logits, positives, counted)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(expected, logits))


def test_box_losses_against_torchvision() -> None:
    random = torch.Generator().manual_seed(1)
    corners = torch.rand(2, 30, 2, 2, generator=random, dtype=torch.float64) * 40
    boxes, targets = torch.cat([corners.amin(2), corners.amax(2)], dim=2)
    for loss in (giou_loss, clamped_giou_loss):
        torch.testing.assert_close(loss(boxes, targets), torchvision.ops.generalized_box_iou_loss(boxes, targets))
    complete = torchvision.ops.complete_box_iou_loss(boxes, targets)
    torch.testing.assert_close(ciou_loss(boxes, targets), complete, rtol=1e-5, atol=1e-6)
    overlap = torchvision.ops.box_iou(boxes, targets).diagonal()
    torch.testing.assert_close(square_iou_loss(boxes, targets), 1 - overlap**2)


@pytest.mark.parametrize("loss", [ciou_loss, siou_loss, clamped_giou_loss])
def test_box_losses_go_from_0_for_equal_boxes_to_2(loss: Any) -> None:
    box = torch.tensor([[1.0, 2.0, 4.0, 7.0]])
    assert loss(box, box).item() == pytest.approx(0, abs=1e-6)
    assert 1 < loss(box + 100, box).item() <= 2
    assert 1 <= loss(box[:, [2, 1, 0, 3]], box).item() <= 2, "a box whose sides are swapped is not a good one"


@pytest.mark.parametrize("target", [0.0, 0.25, 2.0, 2.99])
def test_distribution_focal_loss_weighs_the_two_bins_around_the_target(target: float) -> None:
    logits = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(0).tolist()
    left = int(target)
    expected = -(left + 1 - target) * math.log(p[left]) - (target - left) * math.log(p[left + 1])
    ours = distribution_focal_loss(logits.expand(2, 3, 4), torch.full((2, 3), target, dtype=torch.float64))
    torch.testing.assert_close(ours, torch.full((2, 3), expected, dtype=torch.float64))


def test_targets_outside_of_the_bins_are_moved_into_them() -> None:
    logits = torch.randn(4, generator=torch.Generator().manual_seed(0))
    for outside, inside in ((-3.0, 0.0), (9.0, 2.99)):
        ours = distribution_focal_loss(logits, torch.tensor(outside))
        torch.testing.assert_close(ours, distribution_focal_loss(logits, torch.tensor(inside)))


def test_distribution_focal_loss_is_least_where_the_mean_is_the_target() -> None:
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        loss = distribution_focal_loss(logits, torch.tensor(2.3, dtype=torch.float64))
        loss.backward()
        return loss

    optimizer.step(step)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(
        logits.softmax(0), torch.tensor([0, 0, 0.7, 0.3, 0], dtype=torch.float64), rtol=0, atol=1e-3
    )


def test_one_process_without_a_distributed_run() -> None:
    assert process_count() == 1


def test_the_mean_of_one_process_is_the_value_itself() -> None:
    assert mean_over_processes(torch.tensor(3.0)).item() == 3.0
    assert mean_over_processes(torch.tensor(0.2), at_least=1).item() == 1.0


def _mean_in_a_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    value = torch.tensor(float(rank * 4 + 1))
    mean = mean_over_processes(value)
    floored = mean_over_processes(value / 100, at_least=1)
    Path(folder, f"rank{rank}").write_text(f"{mean.item()} {floored.item()} {value.item()} {process_count()}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_mean_of_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_mean_in_a_process, args=(str(tmp_path),), nprocs=2)
    assert (tmp_path / "rank0").read_text() == "3.0 0.5 1.0 2"
    assert (tmp_path / "rank1").read_text() == "3.0 0.5 5.0 2"
