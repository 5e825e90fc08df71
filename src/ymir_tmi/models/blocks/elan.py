"""Layers of YOLOv7 that keep and concatenate what each of their convolutions gives.

Facts: docs/specs/detectors.md, section 5.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock
from ymir_tmi.models.blocks.csp import pyramid_of_maxima


class ELAN(nn.Module):
    """Convolutions in a chain; what each of its blocks gives goes into the result (Wang et al., "YOLOv7", 2022).

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        middle_ratio: channels of the two 1x1 convolutions at the start, as a part of `in_channels`.
        block_ratio: channels of each block, as a part of `in_channels`.
        blocks: number of blocks.
        convs: 3x3 convolutions of a block.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, middle_ratio: float, block_ratio: float, blocks: int, convs: int
    ) -> None:
        super().__init__()
        middle, width = int(in_channels * middle_ratio), int(in_channels * block_ratio)
        self.main_conv = ConvBlock(in_channels, middle)
        self.short_conv = ConvBlock(in_channels, middle)
        self.blocks = nn.ModuleList(_block(middle if number == 0 else width, width, convs) for number in range(blocks))
        self.final_conv = ConvBlock(2 * middle + blocks * width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        maps = [self.short_conv(x), self.main_conv(x)]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        out: Tensor = self.final_conv(torch.cat(maps[::-1], dim=1))
        return out


class TinyELAN(nn.Module):
    """The layer in its small form: three convolutions in a chain beside one that goes past them."""

    def __init__(self, in_channels: int, out_channels: int, *, ratio: float) -> None:
        super().__init__()
        middle = int(in_channels * ratio)
        self.short_conv = ConvBlock(in_channels, middle)
        self.main_convs = nn.ModuleList(
            [ConvBlock(in_channels, middle), ConvBlock(middle, middle, 3), ConvBlock(middle, middle, 3)]
        )
        self.final_conv = ConvBlock(4 * middle, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        maps = [self.short_conv(x)]
        for conv in self.main_convs:
            x = conv(x)
            maps.append(x)
        out: Tensor = self.final_conv(torch.cat(maps[::-1], dim=1))
        return out


class PoolingDownsample(nn.Module):
    """Halve a map in two ways, by a strided convolution and by pooling ("MP"), each for half of the channels."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv_branch = nn.Sequential(ConvBlock(in_channels, half), ConvBlock(half, half, 3, stride=2))
        self.pool_branch = nn.Sequential(nn.MaxPool2d(2), ConvBlock(in_channels, half))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / 2, W / 2)."""
        return torch.cat([self.conv_branch(x), self.pool_branch(x)], dim=1)


class PoolingCSP(nn.Module):
    """Pyramid pooling of one half of a layer, while the other half goes past it (SPPF-CSP).

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        tiny: whether it has only 1x1 convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, *, tiny: bool) -> None:
        super().__init__()
        width, self.tiny = out_channels, tiny
        self.main = nn.Sequential(ConvBlock(in_channels, width))
        self.fuse_maxima = nn.Sequential(ConvBlock(4 * width, width))
        if not tiny:
            self.main.extend([ConvBlock(width, width, 3), ConvBlock(width, width)])
            self.fuse_maxima.append(ConvBlock(width, width, 3))
        self.short_conv = ConvBlock(in_channels, width)
        self.final_conv = ConvBlock(2 * width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        maxima = pyramid_of_maxima(self.main(x))
        main = self.fuse_maxima(torch.cat(maxima[::-1] if self.tiny else maxima, dim=1))
        out: Tensor = self.final_conv(torch.cat([main, self.short_conv(x)], dim=1))
        return out


def _block(in_channels: int, width: int, convs: int) -> nn.Module:
    layers = [ConvBlock(in_channels if number == 0 else width, width, 3) for number in range(convs)]
    return nn.Sequential(*layers) if convs > 1 else layers[0]
