"""YOLOv6 2.0 and 3.0 (Li et al., "YOLOv6: A Single-Stage Object Detection Framework", 2022, and its "v3.0", 2023).

Facts: docs/specs/detectors.md, sections 4 and 15. The two versions differ in how the neck joins maps, in the pooling of
the small sizes, and in how the large ones predict sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ymir_tmi.config.schema import Activation
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.assign.atss import assign_atss
from ymir_tmi.models.assign.task_aligned import TaskAligned, assign_task_aligned
from ymir_tmi.models.blocks.conv import ConvBlock, configure_batch_norms
from ymir_tmi.models.blocks.csp import SpatialPyramidPooling, pyramid_of_maxima
from ymir_tmi.models.blocks.head import RARE, expected_sides, prediction, run_levels
from ymir_tmi.models.blocks.pyramid import scaled_count
from ymir_tmi.models.blocks.repvgg import RepVGGBlock
from ymir_tmi.models.centred import CentredDetector
from ymir_tmi.models.dense import boxes_around, flatten_levels
from ymir_tmi.models.interface import (
    HeadOutput,
    Matches,
    ModelSpec,
    Phase,
    PostprocessSpec,
    Targets,
)
from ymir_tmi.models.losses import clamped_giou_loss, mean_over_processes, siou_loss, varifocal_loss


class Size(NamedTuple):
    """What the sizes differ in.

    Attributes:
        depth: factor of the number of blocks.
        width: factor of channels.
        block: kind of all 3x3 convolutions of backbone and neck: of three branches, or plain.
        hidden: channels inside a CSP body, as a part of those that go out; None has chains in place of CSP bodies.
        box_loss: of (N, 4) pairs of boxes.
    """

    depth: float
    width: float
    block: Literal["rep", "plain"]
    hidden: float | None
    box_loss: Callable[[Tensor, Tensor], Tensor]


SIZES = {
    "n": Size(0.33, 0.25, "rep", None, siou_loss),
    "t": Size(0.33, 0.375, "rep", None, siou_loss),
    "s": Size(0.33, 0.5, "rep", None, clamped_giou_loss),
    "m": Size(0.6, 0.75, "rep", 2 / 3, clamped_giou_loss),
    "l": Size(1.0, 1.0, "plain", 1 / 2, clamped_giou_loss),
}

# Where distances to a side are distributions, they are over 0, 1, ..., 16 cells.
BINS = 17

_ASSIGNMENT = TaskAligned(topk=13, alpha=1.0, beta=6.0, eps=1e-7, overlap="iou")


class YOLOv6(CentredDetector):
    """YOLOv6 of the version and size that the name in `spec` says."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.size, version = _parse(spec.name)
        widths = [int(base * self.size.width) for base in (64, 128, 256, 512, 1024)]
        out_widths = [int(base * self.size.width) for base in (128, 256, 512)]
        third = version == 3
        self.backbone = Backbone(self.size, widths, split_pooling=third and self.size.hidden is None)
        self.neck = Neck(self.size, widths[1:], out_widths, fuses_three=third)
        self.head = Head(out_widths, spec.num_classes, distributions=third and self.size.hidden is not None)
        configure_batch_norms(self, eps=1e-3, momentum=0.03)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "yolov6_n" (2.0) or "yolov6_v3_n" (3.0)."""
        return ModelSpec(
            name=name,
            family="yolov6",
            class_names=tuple(class_names),
            input=InputSpec(std=(255.0, 255.0, 255.0)),
            postprocess=PostprocessSpec(),
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
        """Return `loss_cls` (varifocal) and `loss_bbox` (SIoU or GIoU); distributions learn from the latter alone."""
        priors = self._priors(raw)
        matches = self.assign(raw, targets, phase)
        rows, quality = (matches.image, matches.prior), matches.quality
        strides = priors.strides[matches.prior].unsqueeze(-1)
        positive = boxes_around(priors.points[matches.prior] / strides, flatten_levels(raw.reg)[rows])

        classes = varifocal_loss(flatten_levels(raw.cls), (*rows, matches.label), quality)
        overlaps = quality * self.size.box_loss(positive, matches.box / strides)
        total = mean_over_processes(quality.sum())
        return {
            "loss_cls": classes / torch.where(total > 0, total, 1),
            "loss_bbox": 2.5 * overlaps.sum() / (total + torch.finfo(torch.float32).eps),
        }


class Backbone(nn.Module):
    """A block and four stages, each a strided block and a body; the last ends with pooling."""

    def __init__(self, size: Size, widths: Sequence[int], *, split_pooling: bool) -> None:
        super().__init__()
        self.stem = _block(size, 3, widths[0], stride=2)
        self.stage1, self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(_block(size, before, after, stride=2), _body(size, after, after, base))
            for before, after, base in zip(widths[:-1], widths[1:], (6, 12, 18, 6), strict=True)
        )
        if split_pooling:
            self.stage4.append(SplitPooling(widths[4]))
        else:
            self.stage4.append(SpatialPyramidPooling(widths[4], activation=_activation(size)))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map (B, 3, H, W) to the maps of strides 4, 8, 16 and 32."""
        finest = self.stage1(self.stem(images))
        fine = self.stage2(finest)
        middle = self.stage3(fine)
        return finest, fine, middle, self.stage4(middle)


class Neck(nn.Module):
    """A pyramid that carries meaning from coarse to fine maps, then detail from fine to coarse ones.

    Args:
        size: what the sizes differ in.
        widths: channels of the four maps, fine to coarse.
        out_widths: channels of the three maps that come out.
        fuses_three: whether a map is also joined with the one that is finer than it (3.0).
    """

    def __init__(self, size: Size, widths: Sequence[int], out_widths: Sequence[int], *, fuses_three: bool) -> None:
        super().__init__()
        finest, fine, middle, coarse = widths
        low, mid, high = out_widths
        self.reduce = _relu(coarse, mid)
        self.shrink = _relu(mid, low)
        if fuses_three:
            self.lift = nn.ModuleList([LiftThree(mid, middle, fine), LiftThree(low, fine, finest)])
            joined = mid, low
        else:
            self.lift = nn.ModuleList([Lift(mid), Lift(low)])
            joined = mid + middle, low + fine
        self.top_down = nn.ModuleList([_body(size, joined[0], mid, 12), _body(size, joined[1], low, 12)])
        self.down = nn.ModuleList([_relu(low, low, 3, stride=2), _relu(mid, mid, 3, stride=2)])
        self.bottom_up = nn.ModuleList([_body(size, 2 * low, mid, 12), _body(size, 2 * mid, high, 12)])

    def forward(self, maps: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Map four (B, C, h, w) maps, fine to coarse, to three of strides 8, 16 and 32."""
        finest, fine, middle, coarse = maps
        top = self.reduce(coarse)
        centre = self.shrink(self.top_down[0](self.lift[0](top, middle, fine)))
        low = self.top_down[1](self.lift[1](centre, fine, finest))
        mid = self.bottom_up[0](torch.cat([self.down[0](low), centre], dim=1))
        high = self.bottom_up[1](torch.cat([self.down[1](mid), top], dim=1))
        return low, mid, high


class Lift(nn.Module):
    """Double a map and concatenate it with the one that the backbone has there."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)

    def forward(self, coarse: Tensor, same: Tensor, fine: Tensor) -> Tensor:
        """Map (B, C, h, w) and (B, D, 2 h, 2 w) to (B, C + D, 2 h, 2 w)."""
        return torch.cat([self.upsample(coarse), same], dim=1)


class LiftThree(nn.Module):
    """Double a map and join it with the one that the backbone has there, and with the next finer one."""

    def __init__(self, channels: int, same_channels: int, fine_channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv1 = _relu(same_channels, channels)
        self.conv2 = _relu(fine_channels, channels)
        self.downsample = _relu(channels, channels, 3, stride=2)
        self.conv3 = _relu(3 * channels, channels)

    def forward(self, coarse: Tensor, same: Tensor, fine: Tensor) -> Tensor:
        """Map (B, C, h, w), (B, D, 2 h, 2 w) and (B, E, 4 h, 4 w) to (B, C, 2 h, 2 w)."""
        parts = [self.upsample(coarse), self.conv1(same), self.downsample(self.conv2(fine))]
        out: Tensor = self.conv3(torch.cat(parts, dim=1))
        return out


class Chain(nn.Module):
    """`count` blocks one after the other; the first of them changes the number of channels."""

    def __init__(self, in_channels: int, out_channels: int, count: int, block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.conv1 = block(in_channels, out_channels)
        self.block = nn.Sequential(*(block(out_channels, out_channels) for _ in range(count - 1)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        out: Tensor = self.block(self.conv1(x))
        return out


class SplitBody(nn.Module):
    """A part of the channels passes through a chain of pairs of blocks, another goes past it."""

    def __init__(self, size: Size, in_channels: int, out_channels: int, hidden: int, count: int) -> None:
        super().__init__()
        kind = _activation(size)
        self.conv1 = ConvBlock(in_channels, hidden, activation=kind)
        self.block = Chain(hidden, hidden, count, lambda channels, _: Pair(size, channels))
        self.conv2 = ConvBlock(in_channels, hidden, activation=kind)
        self.conv3 = ConvBlock(2 * hidden, out_channels, activation=kind)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H, W)."""
        out: Tensor = self.conv3(torch.cat([self.block(self.conv1(x)), self.conv2(x)], dim=1))
        return out


class Pair(nn.Module):
    """Two blocks, plus the input times a learned number."""

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__()
        self.conv1 = _block(size, channels, channels)
        self.conv2 = _block(size, channels, channels)
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = self.conv2(self.conv1(x)) + self.alpha * x
        return out


class SplitPooling(nn.Module):
    """A half of the channels is joined with its maxima over 5x5, 9x9 and 13x13 pixels, another goes past that."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = _relu(channels, hidden)
        self.conv3 = _relu(hidden, hidden, 3)
        self.conv4 = _relu(hidden, hidden)
        self.conv5 = _relu(4 * hidden, hidden)
        self.conv6 = _relu(hidden, hidden, 3)
        self.conv2 = _relu(channels, hidden)
        self.conv7 = _relu(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        maxima = pyramid_of_maxima(self.conv4(self.conv3(self.conv1(x))))
        pooled = self.conv6(self.conv5(torch.cat(maxima, dim=1)))
        out: Tensor = self.conv7(torch.cat([self.conv2(x), pooled], dim=1))
        return out


class Head(nn.Module):
    """A common 1x1 convolution, one 3x3 for classes and one for boxes, and 1x1 predictions, on every level."""

    def __init__(self, widths: Sequence[int], num_classes: int, *, distributions: bool) -> None:
        super().__init__()
        self.distributions = distributions
        sides = 4 * BINS if distributions else 4
        self.stems = nn.ModuleList(ConvBlock(width, width) for width in widths)
        self.cls_convs = nn.ModuleList(ConvBlock(width, width, 3) for width in widths)
        self.reg_convs = nn.ModuleList(ConvBlock(width, width, 3) for width in widths)
        self.cls_pred = nn.ModuleList(prediction(width, num_classes, bias=RARE, zero=True) for width in widths)
        self.reg_pred = nn.ModuleList(prediction(width, sides, bias=1.0, zero=True) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, C, h, w) per level to raw predictions, at least float32."""
        stems = run_levels(self.stems, maps)
        cls = run_levels(self.cls_pred, run_levels(self.cls_convs, stems))
        reg = run_levels(self.reg_pred, run_levels(self.reg_convs, stems))
        if not self.distributions:
            return HeadOutput(cls, reg)
        return HeadOutput(cls, tuple(expected_sides(level) for level in reg), dist=reg)


def _block(size: Size, in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Module:
    if size.block == "rep":
        return RepVGGBlock(in_channels, out_channels, stride=stride, identity=True, activation="relu")
    return ConvBlock(in_channels, out_channels, 3, stride=stride, bias=True)


def _body(size: Size, in_channels: int, out_channels: int, base: int) -> nn.Module:
    """Return what follows a strided block or a concatenation; `base` is the number of blocks at depth 1."""
    count = scaled_count(base, size.depth)
    if size.hidden is None:
        return Chain(in_channels, out_channels, count, lambda before, after: _block(size, before, after))
    return SplitBody(size, in_channels, out_channels, int(out_channels * size.hidden), count // 2)


def _activation(size: Size) -> Activation:
    """Return the activation of 1x1 convolutions beside the blocks of this size."""
    return "relu" if size.block == "rep" else "silu"


def _relu(in_channels: int, out_channels: int, kernel: int = 1, *, stride: int = 1) -> ConvBlock:
    return ConvBlock(in_channels, out_channels, kernel, stride=stride, activation="relu")


def _parse(name: str) -> tuple[Size, int]:
    """Return the size and the version that a variant's name says."""
    _, *version, size = name.split("_")
    return SIZES[size], 3 if version == ["v3"] else 2
