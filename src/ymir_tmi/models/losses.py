"""Classification and box losses, and the number that they are divided by.

Source: docs/specs/detectors.md, section 11.
"""

from __future__ import annotations

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.geometry.boxes import aligned_ciou, aligned_giou, aligned_iou, aligned_siou
from ymir_tmi.geometry.rotated import aligned_rotated_iou


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


def varifocal_loss(logits: Tensor, positives: tuple[Tensor, ...], quality: Tensor) -> Tensor:
    """Return the summed varifocal loss with alpha 0.75 and gamma 2 (Zhang et al., "VarifocalNet", 2021).

    Args:
        logits: (..., C) of every prior.
        positives: index of the N logits that belong to an object, one index tensor per dimension of `logits`.
        quality: (N,) target probability of these; all others have target 0. One of 0 counts as background.
    """
    found = logits[positives]
    background = 0.75 * _focal_background(found)
    positive = quality * F.binary_cross_entropy_with_logits(found, quality, reduction="none")
    return 0.75 * _focal_background(logits).sum() + (torch.where(quality > 0, positive, background) - background).sum()


def soft_cross_entropy(logits: Tensor, positives: tuple[Tensor, ...], quality: Tensor) -> Tensor:
    """Return the summed binary cross entropy; arguments as in `varifocal_loss`."""
    return F.softplus(logits).sum() - (quality * logits[positives]).sum()


def distribution_focal_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Return (...) cross entropies of the two bins around each target (Li et al., "Generalized Focal Loss", 2020).

    Args:
        logits: (..., bins) of distributions over 0, 1, ..., bins - 1.
        targets: (...) numbers; the nearer of its two bins weighs more. One outside of the bins is moved into them.
    """
    log_probabilities = logits.log_softmax(-1)
    targets = targets.clamp(0, logits.shape[-1] - 1 - 0.01)
    left = targets.floor()
    bins = torch.stack([left, left + 1], dim=-1)
    weights = torch.stack([left + 1 - targets, targets - left], dim=-1)
    return -(log_probabilities.gather(-1, bins.long()) * weights).sum(-1)


def ciou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - CIoU of (N, 4) xyxy pairs (Zheng et al., 2020)."""
    return 1 - aligned_ciou(boxes, targets)


def siou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - SIoU of (N, 4) xyxy pairs (Gevorgyan, 2022)."""
    return 1 - aligned_siou(boxes, targets)


def clamped_giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - GIoU of (N, 4) xyxy pairs as the YOLO families compute it, from 0 to 2 for any corners."""
    return 1 - aligned_giou(boxes, targets, eps=1e-7, add_eps=True)


def giou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - GIoU of (N, 4) xyxy pairs (Rezatofighi et al., 2019)."""
    return 1 - aligned_giou(boxes, targets, eps=1e-7)


def rotated_iou_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """Return (N,) 1 - IoU of (N, 5) pairs of rotated boxes (docs/specs/rotated.md, section "Losses")."""
    return 1 - aligned_rotated_iou(boxes, targets).clamp(min=1e-6)


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
