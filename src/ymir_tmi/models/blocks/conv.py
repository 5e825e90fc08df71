"""Convolution, batch norm and activation, and how batch norms disappear for inference."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ymir_tmi.config.schema import Activation

LEAK = 0.1
"""Slope of leaky ReLU below zero."""
FIRST_SLOPE = 0.25
"""The same of PReLU before it learns one."""


def activate(x: Tensor, kind: Activation | None = "silu", slope: Tensor | None = None) -> Tensor:
    """Apply an activation; in place where no gradient is recorded (with one, in place would cost a hidden copy).

    The `slope` below zero is learnt, for `prelu`.
    """
    inplace = not torch.is_grad_enabled()
    match kind:
        case "silu":
            return F.silu(x, inplace=inplace)
        case "relu":
            return F.relu(x, inplace=inplace)
        case "relu6":
            return F.relu6(x, inplace=inplace)
        case "leaky_relu":
            return F.leaky_relu(x, LEAK, inplace=inplace)
        case "prelu":
            assert slope is not None
            return F.prelu(x, slope.to(x.dtype))
        case "elu":
            return F.elu(x, inplace=inplace)
        case "hardswish":
            return F.hardswish(x, inplace=inplace)
        case None:
            return x


class FusibleBlock(nn.Module, ABC):
    """A block whose batch norms can be folded into its convolutions for inference."""

    @abstractmethod
    def fuse(self) -> None:
        """Fold them, in place; a second call changes nothing."""


class ConvBlock(FusibleBlock):
    """Convolution, batch norm, activation (docs/specs/detectors.md, section 2). Keeps H and W at stride 1.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        kernel: width and height of the kernel in pixels.
        stride: pixels between two places of the kernel.
        padding: pixels of zeros around the input; by default half of the kernel, rounded down.
        bias: whether the convolution adds a bias, before the batch norm.
        activation: what comes after the batch norm; None is nothing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        bias: bool = False,
        activation: Activation | None = "silu",
    ) -> None:
        super().__init__()
        padding = kernel // 2 if padding is None else padding
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=bias)
        self.bn: nn.Module = nn.BatchNorm2d(out_channels)
        self.set_activation(activation)

    def set_activation(self, activation: Activation | None) -> None:
        """Choose what comes after the batch norm."""
        self.activation = activation
        self.slope = nn.Parameter(torch.full((1,), FIRST_SLOPE)) if activation == "prelu" else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return activate(self.linear(x), self.activation, self.slope)

    def linear(self, x: Tensor) -> Tensor:
        """Do the same without the activation."""
        out: Tensor = self.bn(self.conv(x))
        return out

    def fuse(self) -> None:
        """Fold the batch norm into the convolution, in place."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fold_batch_norm(self.conv, self.bn)
            self.bn = nn.Identity()


class DepthwiseSeparableConv(nn.Module):
    """A depthwise, then a pointwise conv block.

    Args:
        channels: channels that come in.
        kernel: width and height of the depthwise kernel in pixels.
        out_channels: channels that go out; by default as many.
        stride: pixels between two places of the depthwise kernel.
        between: activation of the depthwise block; None is nothing.
        activation: activation of the pointwise block.
    """

    def __init__(
        self,
        channels: int,
        kernel: int,
        *,
        out_channels: int | None = None,
        stride: int = 1,
        between: Activation | None = "silu",
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        self.depthwise_conv = depthwise_block(channels, kernel, stride=stride, activation=between)
        self.pointwise_conv = ConvBlock(channels, out_channels or channels, activation=activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out, H / stride, W / stride)."""
        out: Tensor = self.pointwise_conv(self.depthwise_conv(x))
        return out


def depthwise_block(channels: int, kernel: int, *, stride: int = 1, activation: Activation | None) -> ConvBlock:
    """Return a conv block that convolves every channel by itself."""
    block = ConvBlock(channels, channels, kernel, activation=activation)
    block.conv = DepthwiseConv2d(channels, kernel, stride)
    return block


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of every channel by itself. It gets a bias when a batch norm is folded into it."""

    def __init__(self, channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__(channels, channels, kernel, stride, padding=kernel // 2, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H / stride, W / stride)."""
        if x.dtype == torch.bfloat16 and x.device.type == "cpu" and self.bias is None and torch.is_grad_enabled():
            out: Tensor = _DepthwiseConv.apply(x, self.weight, self.stride[0])
            return out
        return super().forward(x)


class _DepthwiseConv(torch.autograd.Function):
    """A depthwise convolution whose weight gradient is computed in float32.

    In bfloat16 oneDNN takes 25 times as long for that gradient as for the forward pass; in float32, less than half.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        of_input, _, _ = _gradients(gradient, x, weight.to(gradient.dtype), ctx.stride, [True, False, False])
        _, of_weight, _ = _gradients(gradient.float(), x.float(), weight.float(), ctx.stride, [False, True, False])
        return of_input, of_weight.to(weight.dtype), None


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: list[bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a depthwise convolution for its input, weight and bias, as far as they are wanted."""
    padding = [weight.shape[-1] // 2] * 2
    result: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [stride] * 2, padding, [1, 1], False, [0, 0], len(weight), wanted
    )
    return result


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> nn.Conv2d:
    """Return one convolution with bias that equals `conv` followed by `norm` in evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    fused = copy.deepcopy(conv)
    fused.weight = nn.Parameter((conv.weight * scale.view(-1, 1, 1, 1)).detach())
    before = 0.0 if conv.bias is None else conv.bias
    fused.bias = nn.Parameter((norm.bias + (before - norm.running_mean) * scale).detach())
    return fused


def fuse_blocks(model: nn.Module) -> None:
    """Fold the batch norms of every block in `model` that can do so, in place."""
    for module in list(model.modules()):
        if isinstance(module, FusibleBlock):
            module.fuse()


def configure_activations(model: nn.Module, activation: Activation) -> None:
    """Set the activation of every conv block of `model` that has one, in place."""
    for module in model.modules():
        if isinstance(module, ConvBlock) and module.activation is not None:
            module.set_activation(activation)


def raise_norm_momentum(model: nn.Module, least: float) -> None:
    """Let the means and variances of batch norms follow as fast as `least` says, where they are slower."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, least)


def configure_batch_norms(model: nn.Module, *, eps: float, momentum: float) -> None:
    """Set the two numbers in which families differ on every batch norm of `model`, in place."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
            module.momentum = momentum
