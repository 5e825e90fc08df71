"""Classification and box losses, and the number that they are divided by.

Source: docs/specs/detectors.md, section 11.
"""

from __future__ import annotations

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.geometry.boxes import aligned_giou, aligned_iou


def quality_focal_loss(logits: Tensor, positives: tuple[Tensor, ...], quality: Tensor) -> Tensor:
    """Return the summed quality focal loss with beta 2 (Li et al., "Generalized Focal Loss", 2020).

    Args:
        logits: (..., C) of every prior.
        positives: index of the N logits that belong to an object, one index tensor per dimension of `logits`.
        quality: (N,) target probability of these; all others have target 0.
    """
    found = logits[positives]
    error = (quality - found.sigmoid()).abs().square()
    positive = F.binary_cross_entropy_with_logits(found, quality, reduction="none") * error
    return _focal_background(logits).sum() + (positive - _focal_background(found)).sum()


def weighted_cross_entropy(
    logits: Tensor, targets: Tensor, *, positive_weight: float = 1.0, focal_gamma: float = 0.0
) -> Tensor:
    """Return (...) binary cross entropies in which the part of the positives counts `positive_weight` times.

    With `focal_gamma` above 0, each is multiplied by the focal factor with alpha 0.25 (Lin et al., "Focal Loss for
    Dense Object Detection", 2017).
    """
    entropy = positive_weight * targets * F.softplus(-logits) + (1 - targets) * F.softplus(logits)
    if focal_gamma == 0:
        return entropy
    error = targets + (1 - 2 * targets) * logits.sigmoid()  # 1 - p_t
    error = error.clamp(min=torch.finfo(error.dtype).eps)  # the slope of the power may be infinite at 0
    return entropy * (0.75 - 0.5 * targets) * error.pow(focal_gamma)


def focal_loss(logits: Tensor, positives: tuple[Tensor, ...], counted: Tensor) -> Tensor:
    """Return the summed focal loss with alpha 0.25 and gamma 2 (Lin et al., "Focal Loss for Dense Object Detection").

    Args:
        logits: (..., C) of every prior.
        positives: index of the N logits that belong to an object, one index tensor per dimension of `logits`.
        counted: (...) false for priors that are left out.
    """
    found = logits[positives]
    background = (_focal_background(logits).sum(-1) * counted).sum() - _focal_background(found).sum()
    return 0.25 * _focal_background(-found).sum() + 0.75 * background


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - GIoU of (N, 4) xyxy pairs (Rezatofighi et al., 2019)."""
    return 1 - aligned_giou(boxes, targets, eps=1e-7)


def square_iou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - IoU^2 of (N, 4) xyxy pairs."""
    return 1 - aligned_iou(boxes, targets, eps=1e-6).clamp(min=1e-16).square()


def mean_over_processes(value: Tensor, *, at_least: float = 0.0) -> Tensor:
    """Return the mean of numbers over all processes of a distributed run; without one, the numbers themselves.

    Losses are divided by a number of positives; with their mean, gradients averaged over processes are those of one
    process with the whole batch. For the same reason `at_least` is the smallest sum over the processes, not the
    smallest mean.
    """
    if not _is_distributed():
        return value.clamp(min=at_least)
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total.clamp(min=at_least) / torch.distributed.get_world_size()


def process_count() -> int:
    """Return the number of processes of a distributed run; without one, 1.

    Gradients are averaged over processes; a loss that counts every image of the whole batch is multiplied by this.
    """
    return torch.distributed.get_world_size() if _is_distributed() else 1


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _focal_background(logits: Tensor) -> Tensor:
    """Return the focal loss of logits whose target is 0, not weighted: cross entropy times squared probability.

    Of the negated logits it is that of target 1.
    """
    return F.softplus(logits) * logits.sigmoid().square()
