"""What YOLOv6, YOLOv8 and PP-YOLOE+ share: boxes as distances from the centre of a cell to the four sides.

Facts: docs/specs/detectors.md, sections 4, 6 and 8.
"""

from __future__ import annotations

import copy
from typing import Self

from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import fuse_blocks
from ymir_tmi.models.dense import Priors, boxes_around, flatten_levels, make_priors
from ymir_tmi.models.interface import DenseDetections, Detector, HeadOutput


class CentredDetector(Detector):
    """A detector with one prior at the centre of every cell; a family adds the layers, the assignment and the loss."""

    strides = (8, 16, 32)
    backbone: nn.Module
    neck: nn.Module
    head: nn.Module

    def forward(self, images: Tensor) -> HeadOutput:
        """Return class logits and box sides for normalised (B, 3, H, W) images."""
        raw: HeadOutput = self.head(self.neck(self.backbone(images)))
        return raw

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Return every prior's box and class probabilities."""
        priors = self._priors(raw)
        boxes = boxes_around(priors.points, flatten_levels(raw.reg) * priors.strides.unsqueeze(-1))
        return DenseDetections(boxes, flatten_levels(raw.cls).sigmoid_(), priors.level_sizes)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, 1, C, h, w) class probabilities."""
        return tuple(level.sigmoid().unsqueeze(1) for level in raw.cls)

    def fuse(self) -> Self:
        """Return a copy for inference without batch norms, in which parallel branches are one convolution."""
        fused = copy.deepcopy(self).eval()
        fuse_blocks(fused)
        return fused

    def _priors(self, raw: HeadOutput) -> Priors:
        return make_priors(raw.reg, self.strides, offset=0.5)
