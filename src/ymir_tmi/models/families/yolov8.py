"""YOLOv8 (Ultralytics, 2023): no anchors, and a distribution for every side of a box.

Facts: docs/specs/detectors.md, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.assign.task_aligned import TaskAligned, assign_task_aligned
from ymir_tmi.models.blocks.conv import ConvBlock, configure_batch_norms
from ymir_tmi.models.blocks.csp import SpatialPyramidPooling
from ymir_tmi.models.blocks.head import expected_sides, prediction, predictions, run_levels
from ymir_tmi.models.blocks.pyramid import double, scaled_count
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
from ymir_tmi.models.losses import (
    ciou_loss,
    distribution_focal_loss,
    mean_over_processes,
    process_count,
    soft_cross_entropy,
)


class Size(NamedTuple):
    """Factors of the number of bottlenecks and of channels; channels of the last stage before that factor."""

    depth: float
    width: float
    last: int


SIZES = {
    "n": Size(0.33, 0.25, 1024),
    "s": Size(0.33, 0.5, 1024),
    "m": Size(0.67, 0.75, 768),
    "l": Size(1.0, 1.0, 512),
    "x": Size(1.0, 1.25, 512),
}

# Distances to a side are distributions over 0, 1, ..., 15 cells.
BINS = 16

_ASSIGNMENT = TaskAligned(topk=10, alpha=0.5, beta=6.0, eps=1e-9, overlap="ciou")


class YOLOv8(CentredDetector):
    """YOLOv8 of the size that the name in `spec` says."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        size = SIZES[spec.name.split("_")[1]]
        widths = [int(base * size.width) for base in (64, 128, 256, 512, size.last)]
        counts = [scaled_count(base, size.depth) for base in (3, 6, 6, 3)]
        self.backbone = Backbone(widths, counts)
        self.neck = Neck(widths[2:], scaled_count(3, size.depth))
        self.head = Head(widths[2:], spec.num_classes, self.strides)
        configure_batch_norms(self, eps=1e-3, momentum=0.03)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "yolov8_n"."""
        return ModelSpec(
            name=name,
            family="yolov8",
            class_names=tuple(class_names),
            input=InputSpec(std=(255.0, 255.0, 255.0)),
            postprocess=PostprocessSpec(iou_threshold=0.7),
        )

    @torch.no_grad()
    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the priors that are responsible for the objects of a batch; `phase` makes no difference."""
        boxes, scores, *_ = self.decode(raw)
        return assign_task_aligned(boxes, scores, self._priors(raw), targets, _ASSIGNMENT)

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_cls`, `loss_bbox` (CIoU) and `loss_dfl`, times the images of all processes; in any phase."""
        priors = self._priors(raw)
        matches = self.assign(raw, targets)
        rows, quality = (matches.image, matches.prior), matches.quality
        strides = priors.strides[matches.prior].unsqueeze(-1)
        points, boxes = priors.points[matches.prior] / strides, matches.box / strides

        classes = soft_cross_entropy(flatten_levels(raw.cls), (*rows, matches.label), quality)
        overlaps = quality * ciou_loss(boxes_around(points, flatten_levels(raw.reg)[rows]), boxes)
        bins = torch.unflatten(flatten_levels(raw.dist)[rows], -1, (4, BINS))
        distributions = quality * distribution_focal_loss(bins, sides_around(points, boxes)).sum(-1)
        total = mean_over_processes(quality.sum(), at_least=1)
        images = len(raw.cls[0]) * process_count()
        return {
            "loss_cls": 0.5 * classes / total * images,
            "loss_bbox": 7.5 * overlaps.sum() / total * images,
            "loss_dfl": 1.5 / 4 * distributions.sum() / total * images,
        }


class Backbone(nn.Module):
    """A stem and four stages, each a strided convolution and a CSP layer; the last ends with pooling."""

    def __init__(self, widths: Sequence[int], counts: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvBlock(3, widths[0], 3, stride=2)
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(ConvBlock(before, after, 3, stride=2), SplitLayer(after, after, count, identity=True))
            for before, after, count in zip(widths[:-1], widths[1:], counts, strict=True)
        )
        self.stage4.append(SpatialPyramidPooling(widths[4]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to the maps of strides 8, 16 and 32."""
        fine = self.stage2(self.stage1(self.stem(images)))
        middle = self.stage3(fine)
        return fine, middle, self.stage4(middle)


class Neck(nn.Module):
    """A pyramid that carries meaning from coarse to fine maps, then detail from fine to coarse ones."""

    def __init__(self, widths: Sequence[int], count: int) -> None:
        super().__init__()
        fine, middle, coarse = widths

        def layer(in_channels: int, out_channels: int) -> SplitLayer:
            return SplitLayer(in_channels, out_channels, count, identity=False)

        self.top_down = nn.ModuleList([layer(coarse + middle, middle), layer(middle + fine, fine)])
        self.down = nn.ModuleList([ConvBlock(width, width, 3, stride=2) for width in (fine, middle)])
        self.bottom_up = nn.ModuleList([layer(fine + middle, middle), layer(middle + coarse, coarse)])

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Map three (B, C, h, w) maps, fine to coarse, to as many of the same shapes."""
        fine, middle, coarse = maps
        centre = self.top_down[0](torch.cat([double(coarse), middle], dim=1))
        low = self.top_down[1](torch.cat([double(centre), fine], dim=1))
        mid = self.bottom_up[0](torch.cat([self.down[0](low), centre], dim=1))
        high = self.bottom_up[1](torch.cat([self.down[1](mid), coarse], dim=1))
        return low, mid, high


class SplitLayer(nn.Module):
    """Half of the channels pass through a chain of bottlenecks, all of whose steps are kept (CSP-2)."""

    def __init__(self, in_channels: int, out_channels: int, count: int, *, identity: bool) -> None:
        super().__init__()
        self.hidden = hidden = out_channels // 2
        self.main_conv = ConvBlock(in_channels, 2 * hidden)
        self.blocks = nn.ModuleList(Bottleneck(hidden, identity=identity) for _ in range(count))
        self.final_conv = ConvBlock((2 + count) * hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        steps = list(torch.split(self.main_conv(x), self.hidden, dim=1))
        for block in self.blocks:
            steps.append(block(steps[-1]))
        out: Tensor = self.final_conv(torch.cat(steps, dim=1))
        return out


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, plus the input if `identity`."""

    def __init__(self, channels: int, *, identity: bool) -> None:
        super().__init__()
        self.conv1 = ConvBlock(channels, channels, 3)
        self.conv2 = ConvBlock(channels, channels, 3)
        self.identity = identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv2(self.conv1(x))
        return x + out if self.identity else out


class Head(nn.Module):
    """Two 3x3 conv blocks for classes, two for boxes, and 1x1 predictions, with weights of their own on every level.

    The width of a tower is the same on all levels; that for classes is at least their number.
    """

    def __init__(self, widths: Sequence[int], num_classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        cls_width = max(widths[0], num_classes)
        reg_width = max(widths[0] // 4, 4 * BINS)
        self.cls_convs = nn.ModuleList(_tower(width, cls_width) for width in widths)
        self.reg_convs = nn.ModuleList(_tower(width, reg_width) for width in widths)
        # A new network expects five objects on each level of a picture of 640 x 640 pixels, whatever their class.
        rare = [math.log(5 / num_classes / (640 / stride) ** 2) for stride in strides]
        self.cls_pred = nn.ModuleList(prediction(cls_width, num_classes, bias=bias) for bias in rare)
        self.reg_pred = predictions(reg_width, 4 * BINS, len(widths), bias=1.0)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, C, h, w) per level to raw predictions, at least float32."""
        cls = run_levels(self.cls_pred, run_levels(self.cls_convs, maps))
        dist = run_levels(self.reg_pred, run_levels(self.reg_convs, maps))
        return HeadOutput(cls, tuple(expected_sides(level) for level in dist), dist=dist)


def _tower(in_channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(ConvBlock(in_channels, width, 3), ConvBlock(width, width, 3))
