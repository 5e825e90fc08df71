"""FastSCNN (Poudel et al., "Fast-SCNN: Fast Semantic Segmentation Network", 2019).

Facts: docs/specs/segmentation.md, section "FastSCNN".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ymir_tmi.errors import ModelError
from ymir_tmi.models.blocks.conv import (
    ConvBlock,
    DepthwiseSeparableConv,
    activate,
    configure_batch_norms,
    depthwise_block,
    fuse_blocks,
)
from ymir_tmi.models.blocks.pixels import INPUT, PixelHead, average_cells, head_rows, initialise, resize
from ymir_tmi.models.interface import (
    ClassRows,
    ModelSpec,
    Phase,
    PixelOutput,
    PostprocessSpec,
    Segmenter,
    Targets,
)
from ymir_tmi.models.pixel_losses import pixel_binary_cross_entropy

_AUXILIARY_WEIGHT = 0.4
_DROPOUT = 0.1
_EXPANSION = 6
_GROUPS = ((64, 2), (96, 2), (128, 1))
"""Channels and first stride of the groups of inverted residuals."""
_CELLS = (1, 2, 3, 6)


class FastSCNN(Segmenter):
    """FastSCNN: details at stride 8, context at stride 32, joined at stride 8."""

    smallest_batch = 2  # in training: the batch norm behind the mean of a whole map needs two of them
    class_layers: ClassVar[Mapping[str, ClassRows]] = head_rows("head", "auxiliary.0", "auxiliary.1")

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.downsample = nn.Sequential(
            ConvBlock(3, 32, 3, stride=2, activation="relu"),
            _separable(32, 48, stride=2),
            _separable(48, 64, stride=2),
        )
        self.context = ContextExtractor()
        self.fusion = FeatureFusion()
        convs = nn.Sequential(_separable(128, 128), _separable(128, 128))
        self.head = PixelHead(convs, 128, spec.num_classes, dropout=_DROPOUT)
        self.auxiliary = nn.ModuleList(_auxiliary_head(channels, spec.num_classes) for channels in (128, 64))
        configure_batch_norms(self, eps=1e-5, momentum=0.01)
        initialise(self)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of the only variant."""
        return ModelSpec(
            name=name,
            family="fast_scnn",
            task="semantics",
            class_names=tuple(class_names),
            input=INPUT,
            postprocess=PostprocessSpec(),
        )

    def forward(self, images: Tensor) -> PixelOutput:
        """Return class logits at stride 8 for normalised (B, 3, H, W) images of any size.

        Raises:
            ModelError: there is a single image in training mode.
        """
        if self.training and len(images) < self.smallest_batch and not _is_synchronised(self):
            raise ModelError(
                "fast_scnn cannot be trained with one image at a time: a batch norm has nothing to average over",
                fix="Use a batch of 2 or more.",
            )
        details = self.downsample(images)
        context = self.context(details)
        logits = self.head(self.fusion(details, context))
        if not self.training:
            return PixelOutput((logits,))
        return PixelOutput((logits,), (self.auxiliary[0](context), self.auxiliary[1](details)))

    def loss(self, raw: PixelOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_seg` and, in training mode, `loss_aux_0` and `loss_aux_1`; `phase` makes no difference."""
        labels = targets.label_maps
        assert labels is not None
        terms = {"loss_seg": pixel_binary_cross_entropy(raw.logits[0], labels)}
        for number, logits in enumerate(raw.auxiliary):
            terms[f"loss_aux_{number}"] = _AUXILIARY_WEIGHT * pixel_binary_cross_entropy(logits, labels)
        return terms

    def fuse(self) -> FastSCNN:
        """Return a copy for inference without batch norms and auxiliary heads."""
        fused = copy.deepcopy(self).eval()
        fused.auxiliary = nn.ModuleList()
        fuse_blocks(fused)
        return fused


class ContextExtractor(nn.Module):
    """Inverted residuals, then means over the whole map and parts of it."""

    def __init__(self) -> None:
        super().__init__()
        channels, groups = 64, []
        for width, stride in _GROUPS:
            groups.append(_group(channels, width, stride))
            channels = width
        self.groups = nn.Sequential(*groups)
        self.means = nn.ModuleList(ConvBlock(channels, channels // 4, activation="relu") for _ in _CELLS)
        self.out = ConvBlock(2 * channels, channels, 3, activation="relu")

    def forward(self, details: Tensor) -> Tensor:
        """Map (B, 64, h, w) to (B, 128, h / 4, w / 4)."""
        x = self.groups(details)
        means = [conv(average_cells(x, cells)) for conv, cells in zip(self.means, _CELLS, strict=True)]
        out: Tensor = self.out(torch.cat([x, *(resize(mean, x.shape[2:]) for mean in means)], dim=1))
        return out


class InvertedResidual(nn.Module):
    """Expand, convolve every channel, shrink; added to what came in where the shapes agree (Sandler et al., 2018)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        wide = _EXPANSION * in_channels
        self.adds = stride == 1 and in_channels == out_channels
        self.convs = nn.Sequential(
            ConvBlock(in_channels, wide, activation="relu"),
            depthwise_block(wide, 3, stride=stride, activation="relu"),
            ConvBlock(wide, out_channels, activation=None),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, h / stride, w / stride)."""
        out: Tensor = self.convs(x)
        return x + out if self.adds else out


class FeatureFusion(nn.Module):
    """Adds context to details."""

    def __init__(self) -> None:
        super().__init__()
        self.smooth = depthwise_block(128, 3, activation="relu")
        self.of_context = ConvBlock(128, 128, activation=None)
        self.of_details = ConvBlock(64, 128, activation=None)

    def forward(self, details: Tensor, context: Tensor) -> Tensor:
        """Map (B, 64, h, w) and (B, 128, h / 4, w / 4) to (B, 128, h, w)."""
        smooth = self.of_context(self.smooth(resize(context, details.shape[2:])))
        return activate(smooth + self.of_details(details), "relu")


def _separable(in_channels: int, out_channels: int, *, stride: int = 1) -> DepthwiseSeparableConv:
    return DepthwiseSeparableConv(
        in_channels, 3, out_channels=out_channels, stride=stride, between=None, activation="relu"
    )


def _group(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        InvertedResidual(in_channels, out_channels, stride),
        InvertedResidual(out_channels, out_channels, 1),
        InvertedResidual(out_channels, out_channels, 1),
    )


def _auxiliary_head(channels: int, num_classes: int) -> PixelHead:
    conv = nn.Sequential(ConvBlock(channels, 32, 3, activation="relu"))
    return PixelHead(conv, 32, num_classes, dropout=_DROPOUT)


def _is_synchronised(network: nn.Module) -> bool:
    """Return whether batch norms see the images of other processes too."""
    return any(isinstance(layer, nn.SyncBatchNorm) for layer in network.modules())
