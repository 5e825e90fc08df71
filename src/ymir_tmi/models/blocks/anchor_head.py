"""A head with one 1x1 convolution per level, which predicts box, objectness and classes of every anchor.

Facts: docs/specs/detectors.md, sections 3 and 5; docs/specs/yolov5.md, sections 2 and 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock, FusibleBlock
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.blocks.pyramid import double
from ymir_tmi.models.interface import ClassRows, HeadOutput

ANCHORS = 3
"""Anchors of a cell."""

ROWS = ClassRows(anchors=ANCHORS, others=5)
"""Rows of a prediction layer: for each anchor x, y, width, height, objectness, then the classes."""

PROTOTYPES = 32
"""Maps that masks are made of."""

INSTANCE_ROWS = ROWS._replace(behind=PROTOTYPES)
"""The same where boxes have masks: behind the classes follow the coefficients."""


class AnchorHead(nn.Module):
    """One prediction layer per level.

    Args:
        widths: channels of the maps, fine to coarse.
        num_classes: C.
        strides: pixels per cell of each level.
        certainty: new networks give every class the odds 0.6 / (C - certainty).
    """

    rows: ClassVar[ClassRows] = ROWS
    _order: Tensor

    def __init__(self, widths: Sequence[int], num_classes: int, strides: Sequence[int], *, certainty: float) -> None:
        super().__init__()
        end = self.rows.others + num_classes
        self.outputs = end + self.rows.behind
        self.pred = nn.ModuleList(PredictionConv(width, ANCHORS * self.outputs) for width in widths)
        for level, stride in enumerate(strides):
            bias = self._parameters_of(level)[1].data.view(ANCHORS, self.outputs)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)  # 8 objects in a picture of 640 x 640 pixels
            bias[:, 5:end] += math.log(0.6 / (num_classes - certainty))
        # Rows of all class logits, all boxes, all objectness and so on: so the parts of the output are views.
        rows = torch.arange(ANCHORS * self.outputs).view(ANCHORS, self.outputs)
        parts = [rows[:, 5:end], rows[:, :4], rows[:, 4]]
        if self.rows.behind:
            parts.append(rows[:, end:])
        self.register_buffer("_order", torch.cat([part.flatten() for part in parts]), persistent=False)
        self._sizes = [part.numel() for part in parts]

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, width, h, w) per level to raw predictions, at least float32, channels last in memory."""
        joint = [self._predict(level, x, self._order) for level, x in enumerate(maps)]
        levels = [torch.split(level, self._sizes, dim=1) for level in joint]
        cls, reg, obj, *coefficients = zip(*levels, strict=True)
        return HeadOutput(cls, reg, obj, coefficients=coefficients[0] if coefficients else ())

    def joint_maps(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return per level (B, 3 * outputs, h, w) what the layer itself gives, its rows in their own order."""
        return tuple(self._predict(level, x, slice(None)) for level, x in enumerate(maps))

    def _predict(self, level: int, x: Tensor, rows: Tensor | slice) -> Tensor:
        """Return (B, 3 * outputs, h, w) predictions of a level, its rows in the order asked for."""
        layer = self.pred[level]
        assert isinstance(layer, PredictionConv)
        weight, bias = self._weight_and_bias(level)
        return layer.predict(x, weight[rows], bias[rows])

    def _weight_and_bias(self, level: int) -> tuple[Tensor, Tensor]:
        """Return what the layer of a level computes with."""
        return self._parameters_of(level)

    def _parameters_of(self, level: int) -> tuple[Tensor, Tensor]:
        layer = self.pred[level]
        assert isinstance(layer, PredictionConv) and layer.bias is not None
        return layer.weight, layer.bias


class ImplicitAnchorHead(AnchorHead, FusibleBlock):
    """One vector is added to each input, the output is multiplied by another; both are learned (YOLOR, YOLOv7)."""

    def __init__(self, widths: Sequence[int], num_classes: int, strides: Sequence[int], *, certainty: float) -> None:
        super().__init__(widths, num_classes, strides, certainty=certainty)
        self.add = nn.ParameterList(torch.randn(1, width, 1, 1) * 0.02 for width in widths)
        self.multiply = nn.ParameterList(1 + torch.randn(1, ANCHORS * self.outputs, 1, 1) * 0.02 for _ in widths)

    def fuse(self) -> None:
        """Put the vectors into the convolutions, in place."""
        for level in range(len(self.add)):
            for parameter, value in zip(self._parameters_of(level), self._weight_and_bias(level), strict=True):
                parameter.data = value.detach()
        self.add, self.multiply = nn.ParameterList(), nn.ParameterList()

    def _weight_and_bias(self, level: int) -> tuple[Tensor, Tensor]:
        """Return m * W and m * (W a + b), for m * (W (x + a) + b) = (m * W) x + m * (W a + b)."""
        weight, bias = self._parameters_of(level)
        if not len(self.add):
            return weight, bias
        add, multiply = self.add[level], self.multiply[level].flatten()
        return weight * multiply.view(-1, 1, 1, 1), (bias + (weight * add).sum((1, 2, 3))) * multiply


class Prototypes(nn.Module):
    """Predicts the maps that all masks of a picture are made of, at twice the resolution of its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(width, width, 3)
        self.conv2 = ConvBlock(width, width, 3)
        self.conv3 = ConvBlock(width, PROTOTYPES)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, width, H, W) to (B, 32, 2 H, 2 W), at least float32."""
        maps: Tensor = self.conv3(self.conv2(double(self.conv1(x))))
        return maps.float() if maps.dtype.itemsize < 4 else maps


class InstanceHead(AnchorHead):
    """Also predicts the coefficients of a mask for every anchor, and from the finest map the prototypes."""

    rows = INSTANCE_ROWS

    def __init__(self, widths: Sequence[int], num_classes: int, strides: Sequence[int], *, certainty: float) -> None:
        super().__init__(widths, num_classes, strides, certainty=certainty)
        self.prototypes = Prototypes(widths[0])

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, width, h, w) per level to raw predictions, at least float32, channels last in memory."""
        return super().forward(maps)._replace(prototypes=(self.prototypes(maps[0]),))
