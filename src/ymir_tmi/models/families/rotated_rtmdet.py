"""Rotated RTMDet (Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", 2022).

RTMDet in mmdet's form whose head says one number more: the angle of the box. Facts: docs/specs/rotated.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ymir_tmi.models.dense import flatten_levels, rotated_boxes_around
from ymir_tmi.models.families.rtmdet import INPUTS, Form, RTMDet
from ymir_tmi.models.interface import HeadOutput, ModelSpec, PostprocessSpec
from ymir_tmi.models.losses import rotated_iou_loss

_SIDE = 1024


class RotatedRTMDet(RTMDet):
    """Rotated RTMDet of any size. Boxes are in le90 but for their sides, of which either may be the longer one."""

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "rotated_rtmdet_tiny"."""
        return ModelSpec(
            name=name,
            family="rotated_rtmdet",
            task="rotated",
            class_names=tuple(class_names),
            input=INPUTS["mmdet"].with_size(_SIDE),
            postprocess=PostprocessSpec(
                score_threshold=0.05,
                iou_threshold=0.1,
                max_detections=2000,
                candidates=2000,
                candidates_per_level=True,
                clip="never",
            ),
        )

    @staticmethod
    def parse_name(name: str) -> tuple[str, Form]:
        """Return the size that a variant's name says, and the form, which is the same for all."""
        return name.split("_")[2], "mmdet"

    def box_numbers(self, raw: HeadOutput) -> Tensor:
        """Return (B, P, 5) what the head says of the box of every prior: four sides, then the angle."""
        return torch.cat([flatten_levels(raw.reg), flatten_levels(raw.angle)], dim=-1)

    def read_boxes(self, numbers: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """Turn (..., 5) raw distances to left, top, right, bottom and angles into rotated boxes in pixels."""
        return rotated_boxes_around(points, self.side_pixels(numbers[..., :4], strides), numbers[..., 4])

    def box_loss(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Return (N,) how far (N, 5) boxes are from their objects: IoU."""
        return rotated_iou_loss(boxes, targets)
