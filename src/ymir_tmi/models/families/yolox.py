"""YOLOX (Ge et al., "YOLOX: Exceeding YOLO Series in 2021", 2021).

Facts: docs/specs/detectors.md, section 7. The two published forms differ in their post-processing only.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.assign.simota import assign_simota
from ymir_tmi.models.blocks.conv import ConvBlock, configure_batch_norms, fuse_blocks
from ymir_tmi.models.blocks.csp import DarknetBottleneck
from ymir_tmi.models.blocks.head import TowerHead
from ymir_tmi.models.blocks.pyramid import CSPBackbone, PathAggregationNeck, scaled_count
from ymir_tmi.models.dense import flatten_levels, make_priors
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
from ymir_tmi.models.losses import mean_over_processes, square_iou_loss


class Size(NamedTuple):
    """Factors of the number of bottlenecks and of channels, and the longer side of the input in pixels."""

    depth: float
    width: float
    input: int


SIZES = {
    "tiny": Size(0.33, 0.375, 416),
    "s": Size(0.33, 0.5, 640),
    "m": Size(0.67, 0.75, 640),
    "l": Size(1.0, 1.0, 640),
    "x": Size(1.33, 1.25, 640),
}

POSTPROCESS = {
    "mmyolo": PostprocessSpec(candidates=None, max_detections=None),
    "mmdet": PostprocessSpec(
        score_threshold=0.01, candidates=None, max_detections=None, multi_label=False, inclusive=True, clip="never"
    ),
}


class YOLOX(Detector):
    """YOLOX of any size, in the form that the name in `spec` says."""

    strides = (8, 16, 32)

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        size = SIZES[_parse(spec.name)[0]]
        widths = [int(base * size.width) for base in (64, 128, 256, 512, 1024)]
        counts = [scaled_count(base, size.depth) for base in (3, 9, 9, 3)]
        channels = int(256 * size.width)
        self.backbone = CSPBackbone(Focus(widths[0]), widths, counts, DarknetBottleneck, attention=False)
        self.neck = PathAggregationNeck(
            widths[2:], scaled_count(3, size.depth), DarknetBottleneck, out_channels=channels
        )
        self.head = TowerHead(channels, spec.num_classes, len(self.strides), objectness=True)
        configure_batch_norms(self, eps=1e-3, momentum=0.03)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "yolox_tiny" or "yolox_s_mmdet"."""
        size, form = _parse(name)
        return ModelSpec(
            name=name,
            family="yolox",
            class_names=tuple(class_names),
            input=InputSpec(
                size=SIZES[size].input, rounding="nearest", shrink="bilinear", pad="corner", channels="bgr"
            ),
            postprocess=POSTPROCESS[form],
        )

    def forward(self, images: Tensor) -> HeadOutput:
        """Return class logits, box numbers and objectness logits for normalised (B, 3, H, W) images."""
        raw: HeadOutput = self.head(self.neck(self.backbone(images)))
        return raw

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Return every prior's box and its class probabilities times objectness."""
        priors = make_priors(raw.reg, self.strides)
        boxes = _boxes(flatten_levels(raw.reg), priors.points, priors.strides)
        scores = flatten_levels(raw.cls).sigmoid_().mul_(flatten_levels(raw.obj).sigmoid_())
        return DenseDetections(boxes, scores, priors.level_sizes)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, 1, C, h, w) class probabilities times objectness."""
        pairs = zip(raw.cls, raw.obj, strict=True)
        return tuple((cls.sigmoid() * obj.sigmoid()).unsqueeze(1) for cls, obj in pairs)

    @torch.no_grad()
    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the priors that are responsible for the objects of a batch; `phase` makes no difference."""
        boxes, scores, *_ = self.decode(raw)
        return assign_simota(boxes, scores.sqrt_(), make_priors(raw.reg, self.strides), targets)

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_cls`, `loss_obj`, `loss_bbox`, and `loss_l1` in the final phase."""
        priors = make_priors(raw.reg, self.strides)
        logits, numbers = flatten_levels(raw.cls), flatten_levels(raw.reg)
        objectness = flatten_levels(raw.obj).squeeze(-1)
        matches = self.assign(raw, targets)
        rows = matches.image, matches.prior
        points, strides = priors.points[matches.prior], priors.strides[matches.prior]
        count = mean_over_processes(objectness.new_tensor(float(len(matches.prior))), at_least=1)

        found = torch.zeros_like(objectness)
        found[rows] = 1
        classes = torch.zeros_like(logits[rows])
        classes[torch.arange(len(classes), device=classes.device), matches.label] = matches.quality
        losses = {
            "loss_cls": F.binary_cross_entropy_with_logits(logits[rows], classes, reduction="sum"),
            "loss_obj": F.binary_cross_entropy_with_logits(objectness, found, reduction="sum"),
            "loss_bbox": 5.0 * square_iou_loss(_boxes(numbers[rows], points, strides), matches.box).sum(),
        }
        if phase == "final":
            losses["loss_l1"] = (numbers[rows] - _numbers(matches.box, points, strides)).abs().sum()
        return {name: value / count for name, value in losses.items()}

    def fuse(self) -> YOLOX:
        """Return a copy for inference without batch norms."""
        fused = copy.deepcopy(self).eval()
        fuse_blocks(fused)
        return fused


class Focus(nn.Module):
    """Stack the four pixels of every 2x2 square as channels, then a 3x3 conv block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = ConvBlock(12, width, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, width, H / 2, W / 2)."""
        even, odd = images[..., ::2, :], images[..., 1::2, :]
        phases = [even[..., ::2], odd[..., ::2], even[..., 1::2], odd[..., 1::2]]
        out: Tensor = self.conv(torch.cat(phases, dim=1))
        return out


def _boxes(numbers: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Turn (..., 4) raw numbers (shift of the centre, logarithm of the size, in cells) into xyxy pixels."""
    widths = strides.unsqueeze(-1)
    centres = points + numbers[..., :2] * widths
    halves = numbers[..., 2:].exp() * widths / 2
    return torch.cat([centres - halves, centres + halves], dim=-1)


def _numbers(boxes: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Invert `_boxes`, with 1e-8 added to sizes before the logarithm."""
    widths = strides.unsqueeze(-1)
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    sizes = (boxes[..., 2:] - boxes[..., :2]) / widths
    return torch.cat([(centres - points) / widths, (sizes + 1e-8).log()], dim=-1)


def _parse(name: str) -> tuple[str, str]:
    """Return the size and the form that a variant's name says."""
    _, size, *form = name.split("_")
    return size, form[0] if form else "mmyolo"
