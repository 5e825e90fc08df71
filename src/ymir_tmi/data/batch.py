"""What the network is shown in one step of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MASK_STRIDE = 4
"""Pixels of the network input, either way, that are one of `Targets.masks`."""

Phase = Literal["warmup", "main", "final"]
"""`warmup`: first epochs of the families that assign objects without looking at predictions at first.
`final`: last epochs, without mosaic and mixup, where some families add a loss term."""


@dataclass(frozen=True)
class Targets:
    """The objects of a batch, in pixels of the network input.

    Attributes:
        boxes: per image (n_i, 4) float32 xyxy, or (n_i, 5) rotated boxes in le90.
        labels: per image (n_i,) int64.
        masks: (B, h, w) int64, for instance segmentation: k + 1 where object k of the image is seen, else 0. Objects
            come largest mask first, so that a small one lies on top. h and w are those of the network input divided by
            `MASK_STRIDE`. None where objects have no masks.
        label_maps: (B, H, W) uint8 class of every pixel, for semantic segmentation, 255 where it does not count; None
            where there are objects instead.
    """

    boxes: Sequence[Tensor]
    labels: Sequence[Tensor]
    masks: Tensor | None = None
    label_maps: Tensor | None = None

    def to(self, device: torch.device | str) -> Targets:
        """Return a copy on `device`."""
        counts = [len(labels) for labels in self.labels]
        boxes, labels = (
            torch.split(torch.cat(list(parts)).to(device), counts)  # one transfer, not one per image
            for parts in (self.boxes, self.labels)
        )
        masks, label_maps = (
            None if maps is None else maps.to(device, non_blocking=maps.is_pinned())
            for maps in (self.masks, self.label_maps)
        )
        return Targets(boxes, labels, masks, label_maps)


@dataclass(frozen=True)
class TrainingBatch:
    """The pictures of one step and their objects.

    Attributes:
        images: (B, 3, H, W) uint8 RGB, channels last in memory.
        targets: the objects of each picture.
        image_positions: the B rows of the index that were drawn. Mosaic and mixup show parts of others as well, and an
            image that cannot be used (unreadable, or augmentation lost all its objects) is replaced by another.
    """

    images: Tensor
    targets: Targets
    image_positions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return a copy on `device`."""
        images = self.images.to(device, non_blocking=self.images.is_pinned())
        return TrainingBatch(images, self.targets.to(device), self.image_positions)
