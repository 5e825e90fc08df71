"""Convolution, batch norm and SiLU, and how batch norms disappear for inference."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def activate(x: Tensor) -> Tensor:
    """Apply SiLU; in place where no gradient is recorded (with one, in place would cost a hidden copy)."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class ConvBlock(nn.Module):
    """Convolution without bias, batch norm, SiLU (docs/specs/detectors.md, section 2). Keeps H and W at stride 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return activate(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution, in place."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.bn)
            self.bn = nn.Identity()


class DepthwiseSeparableConv(nn.Module):
    """A depthwise, then a pointwise conv block; channels are kept."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise_conv = ConvBlock(channels, channels, kernel)
        self.depthwise_conv.conv = DepthwiseConv2d(channels, kernel)
        self.pointwise_conv = ConvBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return out


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of every channel by itself; keeps H and W. It gets a bias when a batch norm is folded into it."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if x.dtype == torch.bfloat16 and x.device.type == "cpu" and self.bias is None and torch.is_grad_enabled():
            out: Tensor = _DepthwiseConv.apply(x, self.weight)
            return out
        return super().forward(x)


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is computed in float32.

    In bfloat16 oneDNN takes 25 times as long for that gradient as for the forward pass; in float32, less than half.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_input, _, _ = _gradients(gradient, x, weight.to(gradient.dtype), [True, False, False])
        _, of_weight, _ = _gradients(gradient.float(), x.float(), weight.float(), [False, True, False])
        return of_input, of_weight.to(weight.dtype)


def _gradients(gradient: Tensor, x: Tensor, weight: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a depthwise convolution for its input, weight and bias, as far as they are wanted."""
    padding = [weight.shape[-1] // 2] * 2
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), wanted
    )
    return result


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution with bias that equals `conv` (without bias) followed by `norm` in evaluation mode."""
    assert conv.bias is None and norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    fused = copy.deepcopy(conv)
    fused.weight = nn.Parameter((conv.weight * scale.view(-1, 1, 1, 1)).detach())
    fused.bias = nn.Parameter((norm.bias - norm.running_mean * scale).detach())
    return fused


def fuse_blocks(model: nn.Module) -> None:
    """Fold the batch norm of every `ConvBlock` in `model`, in place."""
    for module in model.modules():
        if isinstance(module, ConvBlock):
            module.fuse()


def configure_batch_norms(model: nn.Module, *, eps: float, momentum: float) -> None:
    """Set the two numbers in which families differ on every batch norm of `model`, in place."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
            module.momentum = momentum
