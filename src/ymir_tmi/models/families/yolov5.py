"""YOLOv5 (Jocher, "Ultralytics YOLOv5", 2020): versions 6.1 (three levels) and 6.2 (four levels, P6).

Facts: docs/specs/detectors.md, section 3; docs/specs/yolov5.md, sections 2 to 8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.anchored import AnchoredDetector, Gains
from ymir_tmi.models.blocks.anchor_head import AnchorHead
from ymir_tmi.models.blocks.conv import ConvBlock, configure_activations, configure_batch_norms
from ymir_tmi.models.blocks.csp import CSPLayer, DarknetBottleneck, SpatialPyramidPooling
from ymir_tmi.models.blocks.pyramid import PathAggregationNeck, StagedBackbone, scaled_count
from ymir_tmi.models.interface import HeadOutput, Matches, ModelSpec, PostprocessSpec, Targets


class Size(NamedTuple):
    """Factors of the number of bottlenecks and of channels, and weights of the losses."""

    depth: float
    width: float
    gains: Gains


_SMALL = Gains(box=0.05, obj=1.0, cls=0.5)
_LARGE = Gains(box=0.05, obj=0.7, cls=0.3)

SIZES = {
    "n": Size(0.33, 0.25, _SMALL),
    "s": Size(0.33, 0.5, _SMALL),
    "m": Size(0.67, 0.75, _LARGE),
    "l": Size(1.0, 1.0, _LARGE),
    "x": Size(1.33, 1.25, _LARGE),
}


class Levels(NamedTuple):
    """What depends on the number of levels.

    Attributes:
        input: longer side of the input in pixels.
        widths: channels of the stem and of each stage, before the factor.
        counts: bottlenecks of each stage, before the factor.
        anchors: width and height of the anchors of each level in pixels, from training on COCO.
    """

    input: int
    widths: tuple[int, ...]
    counts: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]


P5 = Levels(
    640,
    (64, 128, 256, 512, 1024),
    (3, 6, 9, 3),
    (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    ),
)
P6 = Levels(
    1280,
    (64, 128, 256, 512, 768, 1024),
    (3, 6, 9, 3, 3),
    (
        ((19, 27), (44, 40), (38, 94)),
        ((96, 68), (86, 152), (180, 137)),
        ((140, 301), (303, 264), (238, 542)),
        ((436, 615), (739, 380), (925, 792)),
    ),
)


class YOLOv5(AnchoredDetector):
    """YOLOv5 of any size, with three or four levels."""

    loss_fields = AnchoredDetector.loss_fields | {"obj_positive", "cls_positive", "focal_gamma", "label_smoothing"}
    head_kind: ClassVar[type[AnchorHead]] = AnchorHead

    def __init__(self, spec: ModelSpec) -> None:
        size, levels = _parse(spec.name)
        super().__init__(spec, size.gains, levels=len(levels.anchors))
        widths = [math.ceil(base * size.width / 8) * 8 for base in levels.widths]
        counts = [scaled_count(base, size.depth) for base in levels.counts]
        self.backbone = _backbone(widths, counts)
        self.neck = PathAggregationNeck(widths[2:], scaled_count(3, size.depth), DarknetBottleneck)
        self.head = self.head_kind(widths[2:], spec.num_classes, self.strides, certainty=0.99999)
        configure_batch_norms(self, eps=1e-3, momentum=0.03)
        configure_activations(self, spec.activation or "silu")

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "yolov5_n" or "yolov5_s6"."""
        levels = _parse(name)[1]
        return ModelSpec(
            name=name,
            family="yolov5",
            class_names=tuple(class_names),
            input=InputSpec(size=levels.input, stride=8 * 2 ** (len(levels.anchors) - 1), std=(255, 255, 255)),
            postprocess=PostprocessSpec(),
            activation="silu",
            anchors=levels.anchors,
        )

    def _match(self, raw: HeadOutput, targets: Targets) -> Matches:
        return self._fitting_priors(raw, targets)


def _backbone(widths: Sequence[int], counts: Sequence[int]) -> StagedBackbone:
    stages = []
    for before, after, count in zip(widths[:-1], widths[1:], counts, strict=True):
        layer = CSPLayer(after, after, count, DarknetBottleneck, identity=True)
        stages.append(nn.Sequential(ConvBlock(before, after, 3, stride=2), layer))
    stages[-1].append(SpatialPyramidPooling(widths[-1]))
    return StagedBackbone(ConvBlock(3, widths[0], 6, stride=2, padding=2), stages)


def _parse(name: str) -> tuple[Size, Levels]:
    """Return what a variant's name says."""
    size = name.removeprefix("yolov5_").removesuffix("_seg")
    return SIZES[size.removesuffix("6")], P6 if size.endswith("6") else P5
