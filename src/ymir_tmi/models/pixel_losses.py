"""Losses of networks that give every pixel a class (docs/specs/segmentation.md, sections "FastSCNN" and "FCN-HRNet").

Pixels labelled `IGNORED` give 0 and count in the mean all the same, so that the pictures of a batch weigh alike, and
gradients that are averaged over processes are those of one process with the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.models.blocks.pixels import resize

IGNORED = 255
"""Label of pixels that do not count."""


def pixel_cross_entropy(logits: Tensor, label_maps: Tensor) -> Tensor:
    """Return the mean softmax cross entropy over all pixels.

    Args:
        logits: (B, C, h, w); they are resized to the size of the labels first.
        label_maps: (B, H, W) uint8 classes.
    """
    full = resize(logits, label_maps.shape[1:])
    total = F.cross_entropy(full, label_maps.long(), ignore_index=IGNORED, reduction="sum")
    return total / label_maps.numel()


def pixel_binary_cross_entropy(logits: Tensor, label_maps: Tensor) -> Tensor:
    """Return the mean sigmoid cross entropy over all pixels and classes, whose target is 1 for the pixel's own class.

    Arguments as in `pixel_cross_entropy`.
    """
    full = resize(logits, label_maps.shape[1:])
    counts = label_maps != IGNORED
    own = torch.where(counts, label_maps, 0).long().unsqueeze(1)
    of_pixel = F.softplus(full).sum(1) - full.gather(1, own).squeeze(1)
    return torch.where(counts, of_pixel, 0).sum() / full.numel()
