"""Backbones and the neck that families share in structure.

Source: docs/specs/detectors.md, sections 2, 3, 7 and 9.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock
from ymir_tmi.models.blocks.csp import BottleneckFactory, CSPLayer, SpatialPyramidPooling
from ymir_tmi.models.blocks.head import run_levels


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


class StagedBackbone(nn.Module):
    """A stem and stages, each of which works on the map of the one before.

    Args:
        stem: maps (B, 3, H, W) to the input of the first stage.
        stages: the first ends at stride 4; each of the others halves the map.
    """

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to the maps of all stages but the first: strides 8, 16, 32 and so on."""
        maps = [self.stem(images)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return tuple(maps[2:])


class PathAggregationNeck(nn.Module):
    """A pyramid that carries meaning from coarse to fine maps, then detail from fine to coarse ones (PAFPN).

    Args:
        widths: channels of the L maps, fine to coarse.
        count: bottlenecks of each CSP layer.
        bottleneck: kind of bottleneck; its input is not added.
        out_channels: channels that a last convolution gives every map; None has none, and the maps keep their widths.
        out_kernel: kernel size of that convolution.
    """

    def __init__(
        self,
        widths: Sequence[int],
        count: int,
        bottleneck: BottleneckFactory,
        *,
        out_channels: int | None = None,
        out_kernel: int = 1,
    ) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))  # of a map and the next coarser one

        def layer(in_channels: int, out_channels: int) -> CSPLayer:
            return CSPLayer(in_channels, out_channels, count, bottleneck, identity=False)

        self.reduce = nn.ModuleList(ConvBlock(coarse, fine) for fine, coarse in reversed(pairs))
        self.top_down = nn.ModuleList(layer(2 * fine, fine) for fine, _ in reversed(pairs))
        self.down = nn.ModuleList(ConvBlock(fine, fine, 3, stride=2) for fine, _ in pairs)
        self.bottom_up = nn.ModuleList(layer(2 * fine, coarse) for fine, coarse in pairs)
        ends = [] if out_channels is None else [ConvBlock(width, out_channels, out_kernel) for width in widths]
        self.out = nn.ModuleList(ends)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map L (B, C, h, w) maps, fine to coarse, to as many."""
        *finer, top = maps
        waiting = []
        for reduce, top_down, lateral in zip(self.reduce, self.top_down, reversed(finer), strict=True):
            waiting.append(reduce(top))
            top = top_down(torch.cat([double(waiting[-1]), lateral], dim=1))
        outputs = [top]
        for down, bottom_up, lateral in zip(self.down, self.bottom_up, reversed(waiting), strict=True):
            outputs.append(bottom_up(torch.cat([down(outputs[-1]), lateral], dim=1)))
        return run_levels(self.out, outputs) if len(self.out) else tuple(outputs)


def scaled_count(base: int, depth: float) -> int:
    """Return how many bottlenecks a layer with `base` of them has in a variant of this depth factor."""
    return max(round(base * depth), 1)


def double(x: Tensor) -> Tensor:
    """Return (B, C, 2 H, 2 W): every pixel of (B, C, H, W) four times."""
    return F.interpolate(x, scale_factor=2, mode="nearest")
