"""Convolutions that are trained as two or three parallel branches and run as one (Ding et al., "RepVGG", 2021).

Facts: docs/specs/detectors.md, sections 2, 4, 5 and 8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.config.schema import Activation
from ymir_tmi.models.blocks.conv import ConvBlock, FusibleBlock, activate


class RepVGGBlock(FusibleBlock):
    """Sum of a 3x3 and a 1x1 convolution, each with its batch norm, and of the batch norm of the input; activation.

    Keeps H and W at stride 1. When it is fused, `dense` is all that is left of it.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: pixels between two places of the kernels.
        identity: whether the input itself is a branch; only where channels and stride let it.
        alpha: whether the 1x1 branch has a learned factor.
        activation: what comes after the sum; None is nothing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        identity: bool,
        alpha: bool = False,
        activation: Activation | None,
    ) -> None:
        super().__init__()
        self.dense = ConvBlock(in_channels, out_channels, 3, stride=stride, activation=None)
        self.pointwise: ConvBlock | None = ConvBlock(in_channels, out_channels, activation=None)
        self.stride = stride
        keeps_shape = in_channels == out_channels and stride == 1
        self.identity = nn.BatchNorm2d(in_channels) if identity and keeps_shape else None
        self.alpha = nn.Parameter(torch.ones(1)) if alpha else None
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        out: Tensor = self.dense(x)
        if self.pointwise is None:
            return out
        # The stride is not left to the 1x1 convolution: oneDNN's gradient of its weight writes beyond its memory where
        # channels are last and fewer than 16 (uxlfoundation/oneDNN issue 6035).
        point = self.pointwise(x[..., :: self.stride, :: self.stride])
        out = out + (point if self.alpha is None else self.alpha * point)
        if self.identity is not None:
            out = out + self.identity(x)
        return activate(out, self.activation)

    def fuse(self) -> None:
        """Turn all branches into one 3x3 convolution, in place."""
        if self.pointwise is None:
            return
        self.dense.fuse()
        self.pointwise.fuse()
        _add(self.dense.conv, *_weight_and_bias(self.pointwise.conv), self.alpha)
        if self.identity is not None:
            _add(self.dense.conv, *_scale_and_shift(self.identity), None)
        self.dense.activation = self.activation
        self.pointwise = self.identity = self.alpha = None


def _add(conv: nn.Conv2d, weight: Tensor, bias: Tensor, factor: Tensor | None) -> None:
    """Add a 1x1 convolution, times a factor, to the middle of a 3x3 one, in place."""
    assert conv.bias is not None
    factor = weight.new_ones(1) if factor is None else factor.detach()
    conv.weight.data += F.pad(factor * weight, [1, 1, 1, 1])
    conv.bias.data += factor * bias


def _weight_and_bias(conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    assert conv.bias is not None
    return conv.weight.detach(), conv.bias.detach()


def _scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return a batch norm in evaluation mode as weight and bias of a 1x1 convolution."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
    return torch.diag(scale)[:, :, None, None], norm.bias.detach() - norm.running_mean * scale
