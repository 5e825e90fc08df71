"""YOLOv5-seg (Jocher, "Ultralytics YOLOv5", 2020), version 7.0, whose masks are sums of prototypes.

Such masks are those of YOLACT (Bolya et al., 2019). Facts: docs/specs/yolov5.md, sections 2 to 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ymir_tmi.data.batch import MASK_STRIDE
from ymir_tmi.models.blocks.anchor_head import ANCHORS, INSTANCE_ROWS, InstanceHead
from ymir_tmi.models.blocks.conv import activate
from ymir_tmi.models.dense import flatten_levels
from ymir_tmi.models.families.yolov5 import YOLOv5
from ymir_tmi.models.interface import ClassRows, DenseDetections, HeadOutput, Matches, ModelSpec, Targets
from ymir_tmi.models.losses import process_count
from ymir_tmi.models.mask_loss import mask_loss
from ymir_tmi.models.random_passes import Drop, PartlyRandom


class YOLOv5Seg(YOLOv5, PartlyRandom):
    """YOLOv5 of any size with three levels, whose boxes have masks."""

    class_layers: ClassVar[dict[str, ClassRows]] = {"head.pred.": INSTANCE_ROWS}
    head_kind = InstanceHead

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "yolov5_n_seg"."""
        spec = YOLOv5.default_spec(name, class_names)
        return spec.model_copy(update={"family": "yolov5_seg", "task": "instances"})

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Return every prior's box, its class probabilities times objectness, and what its mask is made of."""
        coefficients = flatten_levels(raw.coefficients, ANCHORS)
        return super().decode(raw)._replace(coefficients=coefficients, prototypes=raw.prototypes[0])

    def begin(self, images: Tensor) -> Tensor:
        """Run the network up to the convolution that leads to stride 8."""
        backbone: Any = self.backbone
        trunk: Tensor = backbone.stages[1][0].linear(backbone.stages[0](backbone.stem(images)))
        return trunk

    def finish(self, trunk: Tensor, drop: Drop) -> HeadOutput:
        """Go on with parts switched off before the activations of the convolutions that lead to strides 8, 16, 32."""
        backbone: Any = self.backbone
        maps: list[Tensor] = []
        for stage in backbone.stages[1:]:
            block, *rest = stage
            x = activate(drop(block.linear(maps[-1]) if maps else trunk), block.activation)
            for layer in rest:
                x = layer(x)
            maps.append(x)
        raw: HeadOutput = self.head(self.neck(maps))
        return raw

    def _losses(self, raw: HeadOutput, targets: Targets, matches: Matches) -> dict[str, Tensor]:
        """Add `loss_mask`, whose weight is that of the boxes."""
        weight = self._scaled_gains().box * process_count()
        return {**super()._losses(raw, targets, matches), "loss_mask": weight * self._mask_loss(raw, targets, matches)}

    def _mask_loss(self, raw: HeadOutput, targets: Targets, matches: Matches) -> Tensor:
        """Return the sum over levels and pictures of the mean over matches of what one pixel of a box costs."""
        assert targets.masks is not None
        (prototypes,) = raw.prototypes
        coefficients = flatten_levels(raw.coefficients, ANCHORS)[matches.image, matches.prior]
        box = matches.box / MASK_STRIDE
        group = matches.image * len(self.strides) + self._priors(raw).levels[matches.prior]
        together = torch.bincount(group)[group]
        weights = 1 / ((box[:, 2:] - box[:, :2]).prod(1) * together)
        return mask_loss(coefficients, prototypes, targets.masks, matches._replace(box=box), weights)
