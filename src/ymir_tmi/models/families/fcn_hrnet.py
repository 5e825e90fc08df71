"""A fully convolutional head on HRNet.

Source: Sun et al., "High-Resolution Representations for Labeling Pixels and Regions", 2019.

Facts: docs/specs/segmentation.md, section "FCN-HRNet".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.models.blocks.conv import ConvBlock, activate, configure_batch_norms, fuse_blocks
from ymir_tmi.models.blocks.pixels import INPUT, PixelHead, head_rows, initialise, resize
from ymir_tmi.models.interface import (
    ClassRows,
    ModelSpec,
    Phase,
    PixelOutput,
    PostprocessSpec,
    Segmenter,
    Targets,
)
from ymir_tmi.models.pixel_losses import pixel_cross_entropy

_STEM = 64
_BEFORE_BRANCHES = 256


class Size(NamedTuple):
    """What the sizes differ in.

    Attributes:
        width: channels of the finest branch; each coarser one has twice as many.
        bottlenecks: blocks before there are branches.
        modules: of the stages with two, three and four branches.
        blocks: of each branch of a module.
    """

    width: int
    bottlenecks: int
    modules: tuple[int, int, int]
    blocks: int


SIZES = {
    "w18_small": Size(18, 2, (1, 3, 2), 2),
    "w18": Size(18, 4, (1, 4, 3), 4),
    "w48": Size(48, 4, (1, 4, 3), 4),
}


class FCNHRNet(Segmenter):
    """HRNet of the size that the name in `spec` says, with one layer on its four branches together."""

    class_layers: ClassVar[Mapping[str, ClassRows]] = head_rows("head")

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        size = SIZES[spec.name.removeprefix("fcn_hrnet_")]
        self.backbone = HRNet(size)
        channels = 15 * size.width
        convs = nn.Sequential(ConvBlock(channels, channels, activation="relu"))
        self.head = PixelHead(convs, channels, spec.num_classes, dropout=0.0)
        configure_batch_norms(self, eps=1e-5, momentum=0.1)
        initialise(self)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "fcn_hrnet_w18_small"."""
        return ModelSpec(
            name=name,
            family="fcn_hrnet",
            task="semantics",
            class_names=tuple(class_names),
            input=INPUT,
            postprocess=PostprocessSpec(),
        )

    def forward(self, images: Tensor) -> PixelOutput:
        """Return class logits at stride 4 for normalised (B, 3, H, W) images of any size."""
        finest, *coarser = self.backbone(images)
        joint = torch.cat([finest, *(resize(x, finest.shape[2:]) for x in coarser)], dim=1)
        return PixelOutput((self.head(joint),))

    def loss(self, raw: PixelOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_seg`; `phase` makes no difference."""
        assert targets.label_maps is not None
        return {"loss_seg": pixel_cross_entropy(raw.logits[0], targets.label_maps)}

    def fuse(self) -> FCNHRNet:
        """Return a copy for inference without batch norms."""
        fused = copy.deepcopy(self).eval()
        fuse_blocks(fused)
        return fused


class HRNet(nn.Module):
    """Branches of stride 4, 8, 16 and 32 side by side, which exchange what they see again and again."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        widths = [size.width * 2**branch for branch in range(4)]
        self.conv1 = ConvBlock(3, _STEM, 3, stride=2, activation="relu")
        self.conv2 = ConvBlock(_STEM, _STEM, 3, stride=2, activation="relu")
        wider = Bottleneck(_STEM, _BEFORE_BRANCHES)
        rest = (Bottleneck(_BEFORE_BRANCHES, _BEFORE_BRANCHES) for _ in range(size.bottlenecks - 1))
        self.layer1 = nn.Sequential(wider, *rest)
        self.first = ConvBlock(_BEFORE_BRANCHES, widths[0], 3, activation="relu")
        before = [_BEFORE_BRANCHES, *widths[1:3]]
        # What the last branch so far becomes in each stage's new one.
        self.new = nn.ModuleList(
            ConvBlock(channels, width, 3, stride=2, activation="relu")
            for channels, width in zip(before, widths[1:], strict=True)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(ExchangeModule(widths[: branches + 2], size.blocks) for _ in range(count)))
            for branches, count in enumerate(size.modules)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (B, 3, H, W) to the maps of the four branches, finest first."""
        x = self.layer1(self.conv2(self.conv1(images)))
        branches, last = [self.first(x)], x
        for new, stage in zip(self.new, self.stages, strict=True):
            branches = stage([*branches, new(last)])
            last = branches[-1]
        return branches


class ExchangeModule(nn.Module):
    """Blocks on every branch, then every branch becomes the sum of all, brought to its size and channels.

    Args:
        widths: channels of the branches, finest first.
        blocks: of each branch.
    """

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_bring(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, branches: Sequence[Tensor]) -> list[Tensor]:
        """Map one (B, width, h, w) for each branch to the same shapes."""
        maps = [branch(x) for branch, x in zip(self.branches, branches, strict=True)]
        return [self._gather(maps, target) for target in range(len(maps))]

    def _gather(self, maps: Sequence[Tensor], target: int) -> Tensor:
        layers: Sequence[nn.Module] = self.fuse_layers[target]  # type: ignore[assignment]
        parts = [layer(x) for layer, x in zip(layers, maps, strict=True)]
        size = maps[target].shape[2:]
        # A coarser branch is enlarged by its factor first: where sizes are odd, that reaches too far.
        enlarged = (
            resize(F.interpolate(part, scale_factor=2.0**up, mode="bilinear", align_corners=False), size)
            for up, part in enumerate(parts[target + 1 :], 1)
        )
        return activate(reduce(torch.add, [*parts[: target + 1], *enlarged]), "relu")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, added to what came in (He et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 3, activation="relu")
        self.conv2 = ConvBlock(channels, channels, 3, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w) to the same shape."""
        return activate(x + self.conv2(self.conv1(x)), "relu")


class Bottleneck(nn.Module):
    """A 3x3 convolution of a quarter of the channels between two 1x1 ones, added to what came in (He et al., 2016)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        inner = out_channels // 4
        self.conv1 = ConvBlock(in_channels, inner, activation="relu")
        self.conv2 = ConvBlock(inner, inner, 3, activation="relu")
        self.conv3 = ConvBlock(inner, out_channels, activation=None)
        same = in_channels == out_channels
        self.downsample = nn.Identity() if same else ConvBlock(in_channels, out_channels, activation=None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, h, w)."""
        return activate(self.downsample(x) + self.conv3(self.conv2(self.conv1(x))), "relu")


def _bring(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """Return the layers that bring a branch to the channels of another one, and to its size if that is smaller."""
    if source == target:
        return nn.Identity()
    if source > target:
        return ConvBlock(widths[source], widths[target], activation=None)
    same = (
        ConvBlock(widths[source], widths[source], 3, stride=2, activation="relu") for _ in range(target - source - 1)
    )
    return nn.Sequential(*same, ConvBlock(widths[source], widths[target], 3, stride=2, activation=None))
