"""PP-YOLOE+ (Xu et al., "PP-YOLOE: An Evolved Version of YOLO", 2022).

Facts: docs/specs/detectors.md, sections 8 and 15. Where the published training code pairs the distributions of sides
with the targets of others, this is the pairing that was meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.assign.atss import assign_atss
from ymir_tmi.models.assign.task_aligned import TaskAligned, assign_task_aligned
from ymir_tmi.models.blocks.conv import ConvBlock, configure_batch_norms
from ymir_tmi.models.blocks.csp import ChannelAttention, pyramid_of_maxima
from ymir_tmi.models.blocks.head import RARE, expected_sides, prediction, run_levels
from ymir_tmi.models.blocks.pyramid import double, scaled_count
from ymir_tmi.models.blocks.repvgg import RepVGGBlock
from ymir_tmi.models.centred import CentredDetector
from ymir_tmi.models.dense import boxes_around, flatten_levels, sides_around
from ymir_tmi.models.interface import (
    HeadOutput,
    Matches,
    ModelSpec,
    Phase,
    PostprocessSpec,
    Targets,
)
from ymir_tmi.models.losses import clamped_giou_loss, distribution_focal_loss, mean_over_processes, varifocal_loss


class Size(NamedTuple):
    """Factors of the number of blocks and of channels."""

    depth: float
    width: float


SIZES = {
    "s": Size(0.33, 0.5),
    "m": Size(0.67, 0.75),
    "l": Size(1.0, 1.0),
    "x": Size(1.33, 1.25),
}

# Distances to a side are distributions over 0, 1, ..., 16 cells.
BINS = 17

_ASSIGNMENT = TaskAligned(topk=13, alpha=1.0, beta=6.0, eps=1e-9, overlap="iou")


class PPYOLOE(CentredDetector):
    """PP-YOLOE+ of the size that the name in `spec` says."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        size = SIZES[spec.name.split("_")[2]]
        widths = [int(base * size.width) for base in (64, 128, 256, 512, 1024)]
        out_widths = [int(base * size.width) for base in (192, 384, 768)]
        self.backbone = Backbone(widths, [scaled_count(base, size.depth) for base in (3, 6, 6, 3)])
        self.neck = Neck(widths[2:], out_widths, scaled_count(3, size.depth))
        self.head = Head(out_widths, spec.num_classes)
        configure_batch_norms(self, eps=1e-5, momentum=0.1)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "ppyoloe_plus_s"."""
        return ModelSpec(
            name=name,
            family="ppyoloe",
            class_names=tuple(class_names),
            input=InputSpec(resize="stretch", shrink="bicubic", enlarge="bicubic", std=(255.0, 255.0, 255.0)),
            postprocess=PostprocessSpec(score_threshold=0.01, iou_threshold=0.7, candidates=1000),
        )

    @torch.no_grad()
    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the priors that are responsible for the objects of a batch: by place alone while warming up."""
        priors = self._priors(raw)
        boxes, scores, *_ = self.decode(raw)
        if phase == "warmup":
            return assign_atss(boxes, priors, targets)
        return assign_task_aligned(boxes, scores, priors, targets, _ASSIGNMENT)

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_cls` (varifocal), `loss_bbox` (GIoU) and `loss_dfl`."""
        priors = self._priors(raw)
        matches = self.assign(raw, targets, phase)
        rows, quality = (matches.image, matches.prior), matches.quality
        strides = priors.strides[matches.prior].unsqueeze(-1)
        points, boxes = priors.points[matches.prior] / strides, matches.box / strides

        classes = varifocal_loss(flatten_levels(raw.cls), (*rows, matches.label), quality)
        overlaps = quality * clamped_giou_loss(boxes_around(points, flatten_levels(raw.reg)[rows]), boxes)
        bins = torch.unflatten(flatten_levels(raw.dist)[rows], -1, (4, BINS))
        distributions = quality * distribution_focal_loss(bins, sides_around(points, boxes)).sum(-1)
        total = mean_over_processes(quality.sum(), at_least=1)
        return {
            "loss_cls": classes / total,
            "loss_bbox": 2.5 * overlaps.sum() / total,
            "loss_dfl": 0.5 / 4 * distributions.sum() / total,
        }


class Backbone(nn.Module):
    """Three convolutions and four stages, each a strided convolution and a CSP layer."""

    def __init__(self, widths: Sequence[int], counts: Sequence[int]) -> None:
        super().__init__()
        half = widths[0] // 2
        self.stem = nn.Sequential(
            ConvBlock(3, half, 3, stride=2), ConvBlock(half, half, 3), ConvBlock(half, widths[0], 3)
        )
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            _stage(before, after, count) for before, after, count in zip(widths[:-1], widths[1:], counts, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to the maps of strides 8, 16 and 32."""
        fine = self.stage2(self.stage1(self.stem(images)))
        middle = self.stage3(fine)
        return fine, middle, self.stage4(middle)


class Neck(nn.Module):
    """A pyramid that carries meaning from coarse to fine maps, then detail from fine to coarse ones."""

    def __init__(self, widths: Sequence[int], out_widths: Sequence[int], count: int) -> None:
        super().__init__()
        fine, middle, coarse = widths
        low, mid, high = out_widths

        def layer(in_channels: int, out_channels: int, *, pooling: bool = False) -> RepLayer:
            hidden = out_channels // 2
            return RepLayer(in_channels, hidden, out_channels, count, shortcut=False, pooling=pooling)

        self.reduce = layer(coarse, high, pooling=True)
        self.halve = nn.ModuleList([ConvBlock(width, width // 2) for width in (high, mid)])
        self.top_down = nn.ModuleList([layer(high // 2 + middle, mid), layer(mid // 2 + fine, low)])
        self.down = nn.ModuleList([ConvBlock(width, width, 3, stride=2) for width in (low, mid)])
        self.bottom_up = nn.ModuleList([layer(low + mid, mid), layer(mid + high, high)])

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Map three (B, C, h, w) maps, fine to coarse, to as many."""
        fine, middle, coarse = maps
        top = self.reduce(coarse)
        centre = self.top_down[0](torch.cat([double(self.halve[0](top)), middle], dim=1))
        low = self.top_down[1](torch.cat([double(self.halve[1](centre)), fine], dim=1))
        mid = self.bottom_up[0](torch.cat([self.down[0](low), centre], dim=1))
        high = self.bottom_up[1](torch.cat([self.down[1](mid), top], dim=1))
        return low, mid, high


class RepLayer(nn.Module):
    """A part of the channels passes through `count` blocks, another goes past them.

    Args:
        in_channels: channels that come in.
        hidden: channels of either part.
        out_channels: channels that go out.
        count: number of blocks.
        shortcut: whether the input of a block is added to its output; such blocks also learn the factor of a branch.
        attention: whether the channels of both parts are weighed.
        pooling: whether maxima over larger and larger windows are taken in the middle of the blocks.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        count: int,
        *,
        shortcut: bool,
        attention: bool = False,
        pooling: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = ConvBlock(in_channels, hidden)
        self.conv2 = ConvBlock(in_channels, hidden)
        self.blocks = nn.Sequential()
        for number in range(count):
            self.blocks.add_module(str(number), BasicBlock(hidden, shortcut=shortcut))
            if pooling and number == (count - 1) // 2:
                self.blocks.add_module("pooling", Pooling(hidden))
        self.attention: nn.Module = ChannelAttention(2 * hidden) if attention else nn.Identity()
        self.conv3 = ConvBlock(2 * hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        both = torch.cat([self.conv1(x), self.blocks(self.conv2(x))], dim=1)
        out: Tensor = self.conv3(self.attention(both))
        return out


class BasicBlock(nn.Module):
    """A 3x3 convolution, then one of two branches, plus the input if `shortcut`."""

    def __init__(self, channels: int, *, shortcut: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 3)
        self.conv2 = RepVGGBlock(channels, channels, identity=False, alpha=shortcut, activation="silu")
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return x + out if self.shortcut else out


class Pooling(nn.Module):
    """Join the input and its maxima over 5x5, 9x9 and 13x13 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBlock(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv(torch.cat(pyramid_of_maxima(x), dim=1))
        return out


class Head(nn.Module):
    """A gate for classes and one for boxes on every level, and 3x3 predictions."""

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.cls_stems = nn.ModuleList(Gate(width) for width in widths)
        self.reg_stems = nn.ModuleList(Gate(width) for width in widths)
        self.cls_pred = nn.ModuleList(
            prediction(width, num_classes, kernel=3, bias=RARE, zero=True) for width in widths
        )
        self.reg_pred = nn.ModuleList(prediction(width, 4 * BINS, kernel=3, bias=1.0, zero=True) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, C, h, w) per level to raw predictions, at least float32."""
        gated = [x + stem for x, stem in zip(maps, run_levels(self.cls_stems, maps), strict=True)]
        dist = run_levels(self.reg_pred, run_levels(self.reg_stems, maps))
        return HeadOutput(run_levels(self.cls_pred, gated), tuple(expected_sides(level) for level in dist), dist=dist)


class Gate(nn.Module):
    """Weigh each channel by a sigmoid of a linear map of all channel means, then a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
        self.conv = ConvBlock(channels, channels)
        nn.init.normal_(self.fc.weight, std=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv(x * self.fc(x.mean((2, 3), keepdim=True)).sigmoid())
        return out


def _stage(before: int, after: int, count: int) -> nn.Sequential:
    middle = (before + after) // 2
    return nn.Sequential(
        ConvBlock(before, middle, 3, stride=2),
        RepLayer(middle, middle // 2, after, count, shortcut=True, attention=True),
    )
