"""RTMDet (Lyu et al., "RTMDet: An Empirical Study of Designing Real-Time Object Detectors", 2022).

Facts: docs/specs/detectors.md, section 9. The two published forms are the same network; they read boxes, assign
priors, resize and post-process differently.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.assign.dynamic_soft_label import assign_dynamic_soft_label
from ymir_tmi.models.blocks.conv import ConvBlock, activate, configure_batch_norms, fold_batch_norm, fuse_blocks
from ymir_tmi.models.blocks.csp import CSPNeXtBottleneck
from ymir_tmi.models.blocks.head import RARE, TowerHead, predictions, run_levels, run_optional
from ymir_tmi.models.blocks.pyramid import CSPBackbone, PathAggregationNeck, scaled_count
from ymir_tmi.models.dense import boxes_around, flatten_levels, make_priors
from ymir_tmi.models.interface import (
    DenseDetections,
    Detector,
    HeadOutput,
    Matches,
    ModelSpec,
    Phase,
    PostprocessSpec,
    Targets,
)
from ymir_tmi.models.losses import giou_loss, mean_over_processes, quality_focal_loss

Form = Literal["mmyolo", "mmdet"]


class Size(NamedTuple):
    """Factors of the number of bottlenecks and of channels; `exp` is how the mmdet form reads boxes."""

    depth: float
    width: float
    exp: bool


SIZES = {
    "tiny": Size(0.167, 0.375, exp=False),
    "s": Size(0.33, 0.5, exp=False),
    "m": Size(0.67, 0.75, exp=True),
    "l": Size(1.0, 1.0, exp=True),
    "x": Size(1.33, 1.25, exp=True),
}

_MEAN_BGR = (103.53, 116.28, 123.675)
_STD_BGR = (57.375, 57.12, 58.395)

INPUTS = {
    "mmyolo": InputSpec(channels="bgr", mean=_MEAN_BGR, std=_STD_BGR),
    "mmdet": InputSpec(
        rounding="nearest", shrink="bilinear", pad="corner", channels="bgr", mean=_MEAN_BGR, std=_STD_BGR
    ),
}

POSTPROCESS = {
    "mmyolo": PostprocessSpec(),
    "mmdet": PostprocessSpec(candidates_per_level=True, clip="before_nms"),
}


class RTMDet(Detector):
    """RTMDet of any size, in the form that the name in `spec` says."""

    strides = (8, 16, 32)

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        size_name, self.form = self.parse_name(spec.name)
        size = SIZES[size_name]
        self.exp = self.form == "mmdet" and size.exp
        widths = [int(base * size.width) for base in (64, 128, 256, 512, 1024)]
        counts = [scaled_count(base, size.depth) for base in (3, 6, 6, 3)]
        channels = int(256 * size.width)
        self.backbone = CSPBackbone(_stem(widths[0]), widths, counts, CSPNeXtBottleneck, attention=True)
        self.neck = PathAggregationNeck(
            widths[2:], scaled_count(3, size.depth), CSPNeXtBottleneck, out_channels=channels, out_kernel=3
        )
        # From raw numbers of 0, boxes would have no area and overlap no object, and the loss, which weighs by overlap,
        # would pull on none. New networks start from boxes two cells wide, as the form with an exponential does.
        self.head: nn.Module = SharedTowerHead(
            channels,
            spec.num_classes,
            len(self.strides),
            reg_bias=0.0 if self.exp else 1.0,
            angle=spec.task == "rotated",
        )
        configure_batch_norms(self, eps=1e-5, momentum=0.1)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "rtmdet_tiny" or "rtmdet_m_mmdet"."""
        form = RTMDet.parse_name(name)[1]
        return ModelSpec(
            name=name,
            family="rtmdet",
            class_names=tuple(class_names),
            input=INPUTS[form],
            postprocess=POSTPROCESS[form],
        )

    @staticmethod
    def parse_name(name: str) -> tuple[str, Form]:
        """Return the size and the form that a variant's name says."""
        size = name.split("_")[1]
        return size, "mmdet" if name.endswith("_mmdet") else "mmyolo"

    def forward(self, images: Tensor) -> HeadOutput:
        """Return the raw numbers of the head for normalised (B, 3, H, W) images."""
        raw: HeadOutput = self.head(self.neck(self.backbone(images)))
        return raw

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Return every prior's box and class probabilities."""
        priors = make_priors(raw.reg, self.strides)
        boxes = self.read_boxes(self.box_numbers(raw), priors.points, priors.strides)
        return DenseDetections(boxes, flatten_levels(raw.cls).sigmoid_(), priors.level_sizes)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, 1, C, h, w) class probabilities."""
        return tuple(level.sigmoid().unsqueeze(1) for level in raw.cls)

    @torch.no_grad()
    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the priors that are responsible for the objects of a batch; `phase` makes no difference."""
        priors = make_priors(raw.reg, self.strides)
        boxes = self.read_boxes(self.box_numbers(raw), priors.points, priors.strides)
        return assign_dynamic_soft_label(boxes, flatten_levels(raw.cls), priors, targets, form=self.form)

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_cls` (quality focal) and `loss_bbox` (weighted by overlap); `phase` makes no difference."""
        priors = make_priors(raw.reg, self.strides)
        logits, numbers = flatten_levels(raw.cls), self.box_numbers(raw)
        matches = self.assign(raw, targets)
        positive = self.read_boxes(
            numbers[matches.image, matches.prior], priors.points[matches.prior], priors.strides[matches.prior]
        )
        total = mean_over_processes(matches.quality.sum(), at_least=1) + torch.finfo(torch.float32).eps
        focal = quality_focal_loss(logits, (matches.image, matches.prior, matches.label), matches.quality)
        overlap = matches.quality * self.box_loss(positive, matches.box)
        return {"loss_cls": focal / total, "loss_bbox": 2.0 * overlap.sum() / total}

    def fuse(self) -> RTMDet:
        """Return a copy for inference without batch norms; the head no longer shares its convolutions."""
        fused = copy.deepcopy(self).eval()
        if isinstance(fused.head, SharedTowerHead):
            fused.head = fused.head.unshare()
        fuse_blocks(fused)
        return fused

    def box_numbers(self, raw: HeadOutput) -> Tensor:
        """Return (B, P, 4) what the head says of the box of every prior."""
        return flatten_levels(raw.reg)

    def read_boxes(self, numbers: Tensor, points: Tensor, strides: Tensor) -> Tensor:
        """Turn (..., 4) raw distances to left, top, right, bottom into xyxy pixels."""
        return boxes_around(points, self.side_pixels(numbers, strides))

    def side_pixels(self, sides: Tensor, strides: Tensor) -> Tensor:
        """Return (..., 4) raw distances in pixels."""
        return (sides.exp() if self.exp else sides) * strides.unsqueeze(-1)

    def box_loss(self, boxes: Tensor, targets: Tensor) -> Tensor:
        """Return (N,) how far (N, 4) boxes are from their objects: GIoU."""
        return giou_loss(boxes, targets)


class SharedTowerHead(nn.Module):
    """Class and box towers whose convolutions all levels share, with batch norms and predictions per level."""

    def __init__(
        self,
        channels: int,
        num_classes: int,
        levels: int,
        *,
        stacked: int = 2,
        reg_bias: float = 0.0,
        angle: bool = False,
    ) -> None:
        super().__init__()
        self.channels, self.num_classes, self.levels = channels, num_classes, levels
        self.cls_convs = _convs(channels, stacked)
        self.reg_convs = _convs(channels, stacked)
        self.cls_norms = nn.ModuleList(_norms(channels, stacked) for _ in range(levels))
        self.reg_norms = nn.ModuleList(_norms(channels, stacked) for _ in range(levels))
        self.cls_pred = predictions(channels, num_classes, levels, bias=RARE)
        self.reg_pred = predictions(channels, 4, levels, bias=reg_bias)
        self.angle_pred = predictions(channels, 1, levels if angle else 0, bias=0.0)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, channels, h, w) per level to raw predictions, at least float32."""
        cls_maps = [_run(self.cls_convs, norms, x) for norms, x in zip(self.cls_norms, maps, strict=True)]
        reg_maps = [_run(self.reg_convs, norms, x) for norms, x in zip(self.reg_norms, maps, strict=True)]
        return HeadOutput(
            run_levels(self.cls_pred, cls_maps),
            run_levels(self.reg_pred, reg_maps),
            angle=run_optional(self.angle_pred, reg_maps),
        )

    def unshare(self) -> TowerHead:
        """Return the same head with one folded convolution per level in place of a shared one and its norm."""
        head = TowerHead(self.channels, self.num_classes, self.levels, objectness=False)
        for level in range(self.levels):
            _fold_tower(head.cls_convs[level], self.cls_convs, self.cls_norms[level])
            _fold_tower(head.reg_convs[level], self.reg_convs, self.reg_norms[level])
        head.cls_pred, head.reg_pred, head.angle_pred = self.cls_pred, self.reg_pred, self.angle_pred
        return head.eval()


def _run(convs: nn.Module, norms: nn.Module, x: Tensor) -> Tensor:
    for conv, norm in zip(convs.children(), norms.children(), strict=True):
        x = activate(norm(conv(x)))
    return x


def _fold_tower(tower: nn.Module, convs: nn.Module, norms: nn.Module) -> None:
    """Put each pair of a convolution and a norm into the conv block of `tower` at the same place."""
    for block, conv, norm in zip(tower.children(), convs.children(), norms.children(), strict=True):
        assert isinstance(block, ConvBlock) and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        block.conv = fold_batch_norm(conv, norm)
        block.bn = nn.Identity()


def _convs(channels: int, stacked: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(stacked))


def _norms(channels: int, stacked: int) -> nn.ModuleList:
    return nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(stacked))


def _stem(width: int) -> nn.Sequential:
    half = width // 2
    return nn.Sequential(ConvBlock(3, half, 3, stride=2), ConvBlock(half, half, 3), ConvBlock(half, width, 3))
