from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
import torch.nn.functional as F
import torchvision

from ymir_tmi.models.losses import focal_loss, giou_loss, mean_over_processes, quality_focal_loss, square_iou_loss


def test_quality_focal_loss_is_the_sum_over_all_logits() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 3, generator=random, dtype=torch.float64, requires_grad=True)
    positives = torch.tensor([0, 1, 1]), torch.tensor([4, 0, 2]), torch.tensor([1, 1, 0])
    quality = torch.tensor([0.9, 0.0, 0.4], dtype=torch.float64)
    target = torch.zeros(2, 5, 3, dtype=torch.float64)
    target[positives] = quality
    expected = (
        F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (target - logits.sigmoid()) ** 2
    ).sum()
    ours = quality_focal_loss(logits, positives, quality)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, logits), torch.autograd.grad(expected, logits))


def test_quality_focal_loss_of_extreme_logits_is_finite() -> None:
    logits = torch.tensor([[100.0, -100.0]], requires_grad=True)
    loss = quality_focal_loss(logits, (torch.tensor([0]), torch.tensor([1])), torch.tensor([0.5]))
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
    torch.testing.assert_close(giou_loss(boxes, targets), torchvision.ops.generalized_box_iou_loss(boxes, targets))
    overlap = torchvision.ops.box_iou(boxes, targets).diagonal()
    torch.testing.assert_close(square_iou_loss(boxes, targets), 1 - overlap**2)


def test_the_mean_of_one_process_is_the_value_itself() -> None:
    assert mean_over_processes(torch.tensor(3.0)).item() == 3.0
    assert mean_over_processes(torch.tensor(0.2), at_least=1).item() == 1.0


def _mean_in_a_process(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    value = torch.tensor(float(rank * 4 + 1))
    mean = mean_over_processes(value)
    floored = mean_over_processes(value / 100, at_least=1)
    Path(folder, f"rank{rank}").write_text(f"{mean.item()} {floored.item()} {value.item()}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_mean_of_two_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_mean_in_a_process, args=(str(tmp_path),), nprocs=2)
    assert (tmp_path / "rank0").read_text() == "3.0 0.5 1.0"
    assert (tmp_path / "rank1").read_text() == "3.0 0.5 5.0"
