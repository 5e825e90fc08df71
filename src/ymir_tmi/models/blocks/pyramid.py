"""The backbone and the neck that RTMDet and YOLOX share in structure.

Source: docs/specs/detectors.md, sections 2, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock
from ymir_tmi.models.blocks.csp import BottleneckFactory, CSPLayer, SpatialPyramidPooling


class CSPBackbone(nn.Module):
    """A stem and four stages, each a strided convolution and a CSP layer; the last pools before its CSP layer.

    Args:
        stem: maps (B, 3, H, W) to (B, widths[0], H / 2, W / 2).
        widths: five channel counts: of the stem, then of each stage.
        counts: bottlenecks of each stage.
        bottleneck: kind of bottleneck; its input is added in all stages but the last.
        attention: whether the CSP layers weigh their channels.
    """

    def __init__(
        self,
        stem: nn.Module,
        widths: Sequence[int],
        counts: Sequence[int],
        bottleneck: BottleneckFactory,
        *,
        attention: bool,
    ) -> None:
        super().__init__()
        self.stem = stem
        stages = []
        for number, (before, after, count) in enumerate(zip(widths[:-1], widths[1:], counts, strict=True), start=1):
            last = number == len(counts)
            pooling = [SpatialPyramidPooling(after)] if last else []
            layer = CSPLayer(after, after, count, bottleneck, identity=not last, attention=attention)
            stages.append(nn.Sequential(ConvBlock(before, after, 3, stride=2), *pooling, layer))
        self.stage1, self.stage2, self.stage3, self.stage4 = stages

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to the maps of strides 8, 16 and 32."""
        fine = self.stage2(self.stage1(self.stem(images)))
        middle = self.stage3(fine)
        return fine, middle, self.stage4(middle)


class PathAggregationNeck(nn.Module):
    """A pyramid that carries meaning from coarse to fine maps, then detail from fine to coarse ones (PAFPN).

    Args:
        widths: channels of the three maps, fine to coarse.
        out_channels: channels of every map that comes out.
        count: bottlenecks of each CSP layer.
        bottleneck: kind of bottleneck; its input is not added.
        out_kernel: kernel size of the last convolutions.
    """

    def __init__(
        self, widths: Sequence[int], out_channels: int, count: int, bottleneck: BottleneckFactory, *, out_kernel: int
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths

        def layer(in_channels: int, out_channels: int) -> CSPLayer:
            return CSPLayer(in_channels, out_channels, count, bottleneck, identity=False)

        self.reduce = nn.ModuleList([ConvBlock(coarse, middle), ConvBlock(middle, fine)])
        self.top_down = nn.ModuleList([layer(2 * middle, middle), layer(2 * fine, fine)])
        self.down = nn.ModuleList([ConvBlock(fine, fine, 3, stride=2), ConvBlock(middle, middle, 3, stride=2)])
        self.bottom_up = nn.ModuleList([layer(2 * fine, middle), layer(2 * middle, coarse)])
        self.out = nn.ModuleList([ConvBlock(width, out_channels, out_kernel) for width in widths])

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Map three (B, C, h, w) maps, fine to coarse, to as many of `out_channels` channels."""
        fine, middle, coarse = maps
        top = self.reduce[0](coarse)
        centre = self.reduce[1](self.top_down[0](torch.cat([double(top), middle], dim=1)))
        low = self.top_down[1](torch.cat([double(centre), fine], dim=1))
        mid = self.bottom_up[0](torch.cat([self.down[0](low), centre], dim=1))
        high = self.bottom_up[1](torch.cat([self.down[1](mid), top], dim=1))
        return self.out[0](low), self.out[1](mid), self.out[2](high)


def scaled_count(base: int, depth: float) -> int:
    """Return how many bottlenecks a layer with `base` of them has in a variant of this depth factor."""
    return max(round(base * depth), 1)


def double(x: Tensor) -> Tensor:
    """Return (B, C, 2 H, 2 W): every pixel of (B, C, H, W) four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
