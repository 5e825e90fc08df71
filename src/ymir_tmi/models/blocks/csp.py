"""Cross-stage partial layers, their bottlenecks, pyramid pooling and channel attention.

Source: docs/specs/detectors.md, sections 2, 7 and 9.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.config.schema import Activation
from ymir_tmi.models.blocks.conv import ConvBlock, DepthwiseSeparableConv

BottleneckFactory = Callable[[int, bool], nn.Module]
"""Makes a block from its channels and whether its input is added to its output."""


class DarknetBottleneck(nn.Module):
    """1x1, then 3x3 convolution, plus the input if `identity`."""

    def __init__(self, channels: int, identity: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels)
        self.conv2 = ConvBlock(channels, channels, 3)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return x + out if self.identity else out


class CSPNeXtBottleneck(nn.Module):
    """3x3 convolution, then a 5x5 depthwise-separable one, plus the input if `identity`."""

    def __init__(self, channels: int, identity: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 3)
        self.conv2 = DepthwiseSeparableConv(channels, 5)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return x + out if self.identity else out


class ChannelAttention(nn.Module):
    """Weigh each channel by a hard sigmoid of a linear map of all channel means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return x * F.hardsigmoid(self.fc(x.mean((2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Half of the channels pass through `count` bottlenecks, the other half goes past them."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        count: int,
        bottleneck: BottleneckFactory,
        *,
        identity: bool,
        attention: bool = False,
    ) -> None:
        super().__init__()
        hidden = out_channels // 2
        self.main_conv = ConvBlock(in_channels, hidden)
        self.short_conv = ConvBlock(in_channels, hidden)
        self.blocks = nn.Sequential(*(bottleneck(hidden, identity) for _ in range(count)))
        self.attention: nn.Module = ChannelAttention(2 * hidden) if attention else nn.Identity()
        self.final_conv = ConvBlock(2 * hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        both = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        out: Tensor = self.final_conv(self.attention(both))
        return out


def pyramid_of_maxima(x: Tensor) -> list[Tensor]:
    """Return (B, C, H, W) as it is, and its maxima over 5x5, 9x9 and 13x13 pixels.

    A chain of 5x5 maxima gives exactly the 9x9 and 13x13 ones, at a fraction of the work.
    """
    maps = [x]
    for _ in range(3):
        maps.append(F.max_pool2d(maps[-1], 5, stride=1, padding=2))
    return maps


class SpatialPyramidPooling(nn.Module):
    """Concatenate maxima over 5x5, 9x9 and 13x13 pixels."""

    def __init__(self, channels: int, *, activation: Activation = "silu") -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels // 2, activation=activation)
        self.conv2 = ConvBlock(channels // 2 * 4, channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv2(torch.cat(pyramid_of_maxima(self.conv1(x)), dim=1))
        return out
