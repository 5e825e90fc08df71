"""Convolution, bias and activation as one oneDNN call, where PyTorch's convolution leaves the last to a second pass.

The operator is the one that torch.compile emits for processors. Its weights stay in PyTorch's layout: oneDNN has a
faster one for each shape of the input, but weights that were laid out for another shape are laid out anew at every
call, which can cost more than the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ymir_tmi.config.schema import Activation
from ymir_tmi.models.blocks.conv import LEAK, ConvBlock, activate

# What oneDNN calls an activation, and its numbers; the others are a second pass.
_NAMES: dict[Activation | None, tuple[str, list[float]]] = {
    None: ("none", []),
    "silu": ("swish", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
    "leaky_relu": ("leaky_relu", [LEAK]),
    "hardswish": ("hardswish", []),
}


class OneDnnConvBlock(nn.Module):
    """A fused `ConvBlock` on a processor, for inference only."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        self.conv = block.conv
        self.activation = block.activation
        self.slope = block.slope

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        if self.activation in _NAMES:
            return self._run(x, self.activation)
        return activate(self.linear(x), self.activation, self.slope)

    def linear(self, x: Tensor) -> Tensor:
        """Do the same without the activation."""
        return self._run(x, None)

    def _run(self, x: Tensor, activation: Activation | None) -> Tensor:
        conv = self.conv
        shape = (conv.padding, conv.stride, conv.dilation, conv.groups)
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, conv.weight, conv.bias, *shape, *_NAMES[activation], ""
        )
        return out


def has_onednn() -> bool:
    """Return whether this build of PyTorch has the operator."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")  # type: ignore[no-untyped-call]


def replace_conv_blocks(module: nn.Module) -> None:
    """Put a `OneDnnConvBlock` in the place of every fused `ConvBlock` inside `module`."""
    for name, child in module.named_children():
        if isinstance(child, ConvBlock) and isinstance(child.bn, nn.Identity):
            setattr(module, name, OneDnnConvBlock(child))
        else:
            replace_conv_blocks(child)
