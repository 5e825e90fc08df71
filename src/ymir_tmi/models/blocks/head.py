"""A head with one tower of convolutions for classes and one for boxes, on every level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock
from ymir_tmi.models.interface import HeadOutput

RARE = -math.log(99)
"""Bias with which a new network finds everything with a probability of 0.01 (Lin et al., "Focal Loss for Dense Object
Detection", 2017)."""


class TowerHead(nn.Module):
    """Two 3x3 conv blocks for classes, two for boxes, and 1x1 predictions, with weights of their own on every level.

    Args:
        channels: channels of every input map and of the towers.
        num_classes: C.
        levels: number of input maps.
        objectness: whether the box tower also predicts if a cell holds any object.
        angle: whether it also predicts the angle of a box.
    """

    def __init__(self, channels: int, num_classes: int, levels: int, *, objectness: bool, angle: bool = False) -> None:
        super().__init__()
        self.cls_convs = nn.ModuleList(_tower(channels) for _ in range(levels))
        self.reg_convs = nn.ModuleList(_tower(channels) for _ in range(levels))
        self.cls_pred = predictions(channels, num_classes, levels, bias=RARE)
        self.reg_pred = predictions(channels, 4, levels)
        self.obj_pred = predictions(channels, 1, levels if objectness else 0, bias=RARE)
        self.angle_pred = predictions(channels, 1, levels if angle else 0)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, channels, h, w) per level to raw predictions, at least float32."""
        cls_maps = run_levels(self.cls_convs, maps)
        reg_maps = run_levels(self.reg_convs, maps)
        return HeadOutput(
            run_levels(self.cls_pred, cls_maps),
            run_levels(self.reg_pred, reg_maps),
            obj=run_optional(self.obj_pred, reg_maps),
            angle=run_optional(self.angle_pred, reg_maps),
        )


class PredictionConv(nn.Conv2d):
    """A convolution that computes in the precision of its weights, also under autocast.

    The 8 bits of bfloat16 would round a logit or the side of a box by up to 0.4 %.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        assert self.bias is not None
        return self.predict(x, self.weight, self.bias)

    def predict(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Do the same with a weight and a bias that were made from the layer's own."""
        with torch.autocast(x.device.type, enabled=False):
            # A cast that changes nothing would appear in exported files.
            out: Tensor = self._conv_forward(x if x.dtype == weight.dtype else x.to(weight.dtype), weight, bias)
            return out


def prediction(
    channels: int, outputs: int, *, kernel: int = 1, bias: float | None = None, zero: bool = False
) -> PredictionConv:
    """Return a prediction layer with all biases set to `bias` if one is given, and all weights to 0 if `zero`."""
    layer = PredictionConv(channels, outputs, kernel)
    assert layer.bias is not None
    if bias is not None:
        nn.init.constant_(layer.bias, bias)
    if zero:
        nn.init.zeros_(layer.weight)
    return layer


def predictions(channels: int, outputs: int, levels: int, *, bias: float | None = None) -> nn.ModuleList:
    """Return one prediction layer per level, with all biases set to `bias` if one is given."""
    return nn.ModuleList(prediction(channels, outputs, bias=bias) for _ in range(levels))


def run_levels(layers: nn.ModuleList, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run one layer per level."""
    return tuple(layer(x) for layer, x in zip(layers, maps, strict=True))


def run_optional(layers: nn.ModuleList, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run one layer per level, or none where a head has no such layers."""
    return run_levels(layers, maps) if len(layers) else ()


def expected_sides(dist: Tensor) -> Tensor:
    """Return (B, 4, h, w) means of the distributions over 0, 1, 2, ... whose logits are (B, 4 * bins, h, w)."""
    bins = dist.shape[1] // 4
    cells = dist.permute(0, 2, 3, 1)  # reshaped, since `unflatten` is exported with the size of the traced picture
    probabilities = cells.reshape(*cells.shape[:3], 4, bins).softmax(-1)
    steps = torch.arange(bins, dtype=dist.dtype, device=dist.device)
    return (probabilities * steps).sum(-1).permute(0, 3, 1, 2)


def _tower(channels: int) -> nn.Sequential:
    return nn.Sequential(ConvBlock(channels, channels, 3), ConvBlock(channels, channels, 3))
