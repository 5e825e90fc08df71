"""RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017), as Detectron2 builds it.

Facts: docs/specs/retinanet.md. Its anchors, box code, matching and normaliser are Detectron2's; the ResNet and the
feature pyramid are torchvision's.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import resnet
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.assign.max_overlap import assign_max_overlap
from ymir_tmi.models.blocks.conv import fold_batch_norm
from ymir_tmi.models.blocks.head import RARE, PredictionConv
from ymir_tmi.models.dense import flatten_levels, make_priors
from ymir_tmi.models.interface import (
    ClassRows,
    DenseDetections,
    Detector,
    HeadOutput,
    Matches,
    ModelSpec,
    Phase,
    PostprocessSpec,
    Targets,
)
from ymir_tmi.models.losses import focal_loss

DEPTHS = {"r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3)}
"""Blocks of each stage."""

ANCHORS = tuple(
    tuple((size / math.sqrt(ratio), size * math.sqrt(ratio)) for size in sizes for ratio in (0.5, 1.0, 2.0))
    for sizes in ([base * 2 ** (third / 3) for third in range(3)] for base in (32, 64, 128, 256, 512))
)
"""Per level, width and height of the anchors of a cell in pixels: three sizes, each in three shapes."""

_PER_CELL = len(ANCHORS[0])
_CHANNELS = 256
_LARGEST_GROWTH = math.log(1000 / 16)
_NORMALISER_MOMENTUM = 0.9

INPUT = InputSpec(
    size=800,
    resize="shorter",
    longest=1333,
    rounding="nearest",
    shrink="antialias",
    enlarge="antialias",
    pad="corner",
    fill=(124, 116, 104),  # the mean, rounded: next to zero after normalisation
    channels="bgr",
    mean=(103.53, 116.28, 123.675),
)

POSTPROCESS = PostprocessSpec(
    score_threshold=0.05,
    iou_threshold=0.5,
    max_detections=100,
    candidates=1000,
    candidates_per_level=True,
    drop_empty=True,
)


class RetinaNet(Detector):
    """RetinaNet on a ResNet of the depth that the name in `spec` says."""

    strides = (8, 16, 32, 64, 128)
    class_layers: ClassVar[Mapping[str, ClassRows]] = {"head.cls_pred.": ClassRows(anchors=_PER_CELL)}

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        self.backbone = ResNet(DEPTHS[spec.name.split("_")[1]])
        self.neck = FeaturePyramidNetwork([512, 1024, 2048], _CHANNELS, LastLevelP6P7(2048, _CHANNELS))
        self.head = Head(spec.num_classes)
        # What losses are divided by: a running mean of the positives in a batch. It belongs to a run, not to the model.
        self._normaliser = 100.0

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, "retinanet_r50_fpn" or "retinanet_r101_fpn"."""
        return ModelSpec(
            name=name,
            family="retinanet",
            class_names=tuple(class_names),
            input=INPUT,
            postprocess=POSTPROCESS,
            anchors=ANCHORS,
        )

    def forward(self, images: Tensor) -> HeadOutput:
        """Return class logits and box numbers for normalised (B, 3, H, W) images."""
        raw: HeadOutput = self.head(list(self.neck(self.backbone(images)).values()))
        return raw

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Return every anchor's box and class probabilities."""
        anchors = self.make_anchors(raw)
        boxes = _boxes(flatten_levels(raw.reg, _PER_CELL), anchors.centres, anchors.sizes)
        return DenseDetections(boxes, flatten_levels(raw.cls, _PER_CELL).sigmoid_(), anchors.level_sizes)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, 9, C, h, w) class probabilities."""
        maps = (level.sigmoid() for level in raw.cls)
        return tuple(level.view(level.shape[0], _PER_CELL, -1, *level.shape[2:]) for level in maps)

    def make_anchors(self, raw: HeadOutput) -> Anchors:
        """Return the anchors of every cell, each around the upper left corner of its cell."""
        assert self.spec.anchors is not None
        cells = make_priors(raw.reg, self.strides)
        shapes = cells.points.new_tensor(self.spec.anchors)
        sizes = [shape.repeat(count, 1) for shape, count in zip(shapes, cells.level_sizes, strict=True)]
        counts = tuple(count * _PER_CELL for count in cells.level_sizes)
        return Anchors(cells.points.repeat_interleave(_PER_CELL, dim=0), torch.cat(sizes), counts)

    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the anchors that are responsible for the objects of a batch; `phase` makes no difference."""
        return self.assign_or_leave_out(raw, targets)[0]

    @torch.no_grad()
    def assign_or_leave_out(self, raw: HeadOutput, targets: Targets) -> tuple[Matches, Tensor]:
        """Return the anchors that are responsible for the objects of a batch, and (B, P) which ones are left out."""
        return assign_max_overlap(self.make_anchors(raw).corners(), targets)

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_cls` (focal) and `loss_bbox` (L1); `phase` makes no difference."""
        matches, left_out = self.assign_or_leave_out(raw, targets)
        anchors = self.make_anchors(raw)
        rows = matches.image, matches.prior
        wanted = _numbers(matches.box, anchors.centres[matches.prior], anchors.sizes[matches.prior])
        focal = focal_loss(flatten_levels(raw.cls, _PER_CELL), (*rows, matches.label), counted=~left_out)
        distance = (flatten_levels(raw.reg, _PER_CELL)[rows] - wanted).abs().sum()
        positives = max(len(matches.prior), 1)
        self._normaliser = _NORMALISER_MOMENTUM * self._normaliser + (1 - _NORMALISER_MOMENTUM) * positives
        return {"loss_cls": focal / self._normaliser, "loss_bbox": distance / self._normaliser}

    def run_state(self) -> dict[str, float]:
        """Return what losses are divided by."""
        return {"normaliser": self._normaliser}

    def load_run_state(self, state: Mapping[str, float]) -> None:
        """Go on dividing losses by what they were divided by."""
        self._normaliser = state["normaliser"]

    def fuse(self) -> RetinaNet:
        """Return a copy for inference without batch norms."""
        fused = copy.deepcopy(self).eval()
        for module in list(fused.backbone.modules()):
            _fold_norms_of(module)
        return fused


class Anchors(NamedTuple):
    """The P boxes that the head's numbers start from, levels from fine to coarse; inside a level y, x, anchor.

    Attributes:
        centres: (P, 2) x and y in pixels of the network input.
        sizes: (P, 2) width and height in pixels.
        level_sizes: number of anchors of each level.
    """

    centres: Tensor
    sizes: Tensor
    level_sizes: tuple[int, ...]

    def corners(self) -> Tensor:
        """Return (P, 4) xyxy, not clipped."""
        return torch.cat([self.centres - self.sizes / 2, self.centres + self.sizes / 2], dim=-1)


class ResNet(nn.Module):
    """A ResNet (He et al., 2016) whose stages halve maps in their first 1x1 convolution, with frozen batch norms.

    Args:
        depths: blocks of each stage.
    """

    def __init__(self, depths: Sequence[int]) -> None:
        super().__init__()
        net = resnet.ResNet(resnet.Bottleneck, list(depths), norm_layer=FrozenNorm)
        self.stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        self.res2, self.res3, self.res4, self.res5 = net.layer1, net.layer2, net.layer3, net.layer4
        for stage in (self.res3, self.res4, self.res5):
            stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        # Frozen norms do not keep the sums of new blocks in bounds: over 16 of them activations would grow a
        # hundredfold. So each block starts by adding nothing (Zhang et al., "Fixup Initialization", 2019).
        for block in self.modules():
            if isinstance(block, resnet.Bottleneck):
                nn.init.zeros_(block.conv3.weight)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to the maps of strides 8, 16 and 32, of 512, 1024 and 2048 channels."""
        fine = self.res3(self.res2(self.stem(images)))
        middle = self.res4(fine)
        return {"fine": fine, "middle": middle, "coarse": self.res5(middle)}


class FrozenNorm(FrozenBatchNorm2d):  # type: ignore[misc]
    """A batch norm that never changes; a new one changes nothing.

    Its output has the precision of its input, where torchvision's would be float32 under autocast: training in bfloat16
    would keep twice the bytes.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.running_var.fill_(1 - self.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        out: Tensor = super().forward(x).to(x.dtype)
        return out


class Head(nn.Module):
    """Towers of four 3x3 convolutions for classes and for boxes, and predictions, which all levels share."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.cls_convs, self.reg_convs = _tower(), _tower()
        self.cls_pred = PredictionConv(_CHANNELS, _PER_CELL * num_classes, kernel=3)
        self.reg_pred = PredictionConv(_CHANNELS, _PER_CELL * 4, kernel=3)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        assert self.cls_pred.bias is not None
        nn.init.constant_(self.cls_pred.bias, RARE)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Map one (B, 256, h, w) per level to raw predictions, at least float32."""
        cls = tuple(self.cls_pred(self.cls_convs(x)) for x in maps)
        reg = tuple(self.reg_pred(self.reg_convs(x)) for x in maps)
        return HeadOutput(cls, reg)


def _tower() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Conv2d(_CHANNELS, _CHANNELS, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _fold_norms_of(parent: nn.Module) -> None:
    """Fold every frozen norm that is a child of `parent` into the convolution before it, in place."""
    for (name, conv), (norm_name, norm) in pairwise(list(parent.named_children())):
        if isinstance(norm, FrozenNorm):
            assert isinstance(conv, nn.Conv2d)
            setattr(parent, name, fold_batch_norm(conv, norm))
            setattr(parent, norm_name, nn.Identity())


def _boxes(numbers: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """Turn (..., 4) raw numbers (shift of the centre in sizes, logarithm of the growth) into xyxy pixels."""
    middles = centres + numbers[..., :2] * sizes
    halves = numbers[..., 2:].clamp(max=_LARGEST_GROWTH).exp() * sizes / 2
    return torch.cat([middles - halves, middles + halves], dim=-1)


def _numbers(boxes: Tensor, centres: Tensor, sizes: Tensor) -> Tensor:
    """Invert `_boxes`."""
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    return torch.cat([(middles - centres) / sizes, ((boxes[..., 2:] - boxes[..., :2]) / sizes).log()], dim=-1)
