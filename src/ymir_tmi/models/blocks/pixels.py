"""What networks that give every pixel a class are made of: resizing and pooling for any size of map, and their head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.blocks.conv import DepthwiseConv2d
from ymir_tmi.models.blocks.head import PredictionConv
from ymir_tmi.models.interface import ClassRows

INPUT = InputSpec(
    size=1024,
    resize="shorter",
    longest=2048,
    stride=1,
    rounding="nearest",
    shrink="bilinear",
    pad="corner",
    fill=(124, 116, 104),  # the mean, rounded: next to zero after normalisation
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
"""Pictures are made to fit into 2048 x 1024 pixels and not padded (docs/specs/segmentation.md, section "Test")."""


class PixelHead(nn.Module):
    """Convolutions, dropout of whole channels, and a 1x1 convolution that gives class logits.

    Args:
        convs: what comes before the classifier; gives `channels`.
        channels: of the classifier's input.
        num_classes: C.
        dropout: probability that a channel is left out in training.
    """

    def __init__(self, convs: nn.Module, channels: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.convs = convs
        self.dropout = nn.Dropout2d(dropout)
        self.cls_pred = PredictionConv(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, C, h, w) logits, at least float32."""
        out: Tensor = self.cls_pred(self.dropout(self.convs(x)))
        return out


def head_rows(*heads: str) -> dict[str, ClassRows]:
    """Return where the rows for classes are in the `PixelHead`s of these names."""
    return {f"{head}.cls_pred.": ClassRows() for head in heads}


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Resize (B, K, h, w) maps bilinearly to `size` (height, width); the corners of the pictures agree, not of pixels.

    Where a network is traced the step is always there: what size a map has is known only when the file is run.
    """
    if x.shape[2:] == size and not _is_traced():
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def average_cells(x: Tensor, cells: int) -> Tensor:
    """Return (B, K, cells, cells) means of (B, K, h, w) maps over cells that cover them, as adaptive pooling does.

    Cell i of n begins at pixel floor(i h / n) and ends before ceil((i + 1) h / n). Written as two products of matrices,
    since no exporter knows adaptive pooling of maps of any size.
    """
    rows, columns = (_cell_weights(side, cells, x) for side in (x.shape[2], x.shape[3]))
    return rows @ x @ columns.transpose(0, 1)


def _cell_weights(side: int, cells: int, like: Tensor) -> Tensor:
    """Return (cells, side) what each pixel counts in the mean of each cell."""
    number = torch.arange(cells, device=like.device).unsqueeze(1)
    first = torch.div(number * side, cells, rounding_mode="floor")
    end = torch.div((number + 1) * side + cells - 1, cells, rounding_mode="floor")
    pixel = torch.arange(side, device=like.device).unsqueeze(0)
    inside = ((pixel >= first) & (pixel < end)).to(like.dtype)
    return inside / (end - first).to(like.dtype)


def initialise(network: nn.Module) -> None:
    """Give convolutions the spread that keeps gradients in bounds (He et al., 2015), classifiers N(0, 0.01)."""
    for layer in network.modules():
        if isinstance(layer, PredictionConv):
            nn.init.normal_(layer.weight, std=0.01)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Conv2d):
            kernels = layer.kernel_size[0] * layer.kernel_size[1]
            outputs = 1 if isinstance(layer, DepthwiseConv2d) else layer.out_channels
            nn.init.normal_(layer.weight, std=(2 / (kernels * outputs)) ** 0.5)


def _is_traced() -> bool:
    return torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None
