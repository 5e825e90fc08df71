"""YOLOv7 (Wang et al., "YOLOv7: Trainable Bag-of-Freebies Sets New State-of-the-Art", 2022): tiny, l and x.

Facts: docs/specs/detectors.md, sections 5 and 10.4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.anchored import AnchoredDetector, Gains
from ymir_tmi.models.assign.candidates import assign_cheapest_candidates
from ymir_tmi.models.blocks.anchor_head import ANCHORS, ROWS, ImplicitAnchorHead
from ymir_tmi.models.blocks.conv import ConvBlock, configure_activations, configure_batch_norms
from ymir_tmi.models.blocks.elan import ELAN, PoolingCSP, PoolingDownsample, TinyELAN
from ymir_tmi.models.blocks.head import run_levels
from ymir_tmi.models.blocks.pyramid import StagedBackbone, double
from ymir_tmi.models.blocks.repvgg import RepVGGBlock
from ymir_tmi.models.dense import anchor_boxes, flatten_levels
from ymir_tmi.models.interface import Activation, HeadOutput, Matches, ModelSpec, PostprocessSpec, Targets

LayerFactory = Callable[[int, int], nn.Module]
"""Makes a layer from the channels that come in and go out."""


class YOLOv7(AnchoredDetector):
    """YOLOv7 of any size."""

    class_layers = AnchoredDetector.class_layers | {"head.multiply.": ROWS._replace(dim=1)}

    def __init__(self, spec: ModelSpec) -> None:
        size = SIZES[spec.name.removeprefix("yolov7_")]
        super().__init__(spec, size.gains)
        self.backbone = size.backbone()
        self.neck = Neck(size)
        self.head = ImplicitAnchorHead(
            [2 * width for width in size.neck_widths], spec.num_classes, self.strides, certainty=0.99
        )
        configure_batch_norms(self, eps=1e-3, momentum=0.03)
        configure_activations(self, size.activation)

    @staticmethod
    def default_spec(name: str, class_names: Sequence[str]) -> ModelSpec:
        """Return the specification of a variant, e.g. "yolov7_tiny"."""
        return ModelSpec(
            name=name,
            family="yolov7",
            class_names=tuple(class_names),
            input=InputSpec(std=(255, 255, 255)),
            postprocess=PostprocessSpec(),
            anchors=ANCHOR_SIZES,
        )

    @torch.no_grad()
    def _match(self, raw: HeadOutput, targets: Targets) -> Matches:
        candidates = self._fitting_priors(raw, targets)
        rows = candidates.image, candidates.prior
        boxes = anchor_boxes(flatten_levels(raw.reg, ANCHORS)[rows], self._priors(raw).take(candidates.prior))
        classes, objectness = (flatten_levels(maps, ANCHORS)[rows].sigmoid() for maps in (raw.cls, raw.obj))
        return assign_cheapest_candidates(candidates, boxes, (classes * objectness).sqrt(), targets)


class Neck(nn.Module):
    """A pyramid from coarse to fine maps and back, whose results have twice its channels."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        fine, middle, coarse = size.neck_widths
        pooling = PoolingCSP(size.widths[2], coarse, tiny=size.tiny)
        self.reduce = nn.ModuleList([ConvBlock(size.widths[0], fine), ConvBlock(size.widths[1], middle), pooling])
        self.upsample = nn.ModuleList([ConvBlock(coarse, middle), ConvBlock(middle, fine)])
        self.top_down = nn.ModuleList([size.mix(2 * middle, middle), size.mix(2 * fine, fine)])
        self.down = nn.ModuleList([size.downsample(fine, middle), size.downsample(middle, coarse)])
        self.bottom_up = nn.ModuleList([size.mix(2 * middle, middle), size.mix(2 * coarse, coarse)])
        self.out = nn.ModuleList(size.end(width, 2 * width) for width in size.neck_widths)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map three (B, C, h, w) maps, fine to coarse, to as many."""
        fine, middle, coarse = run_levels(self.reduce, maps)
        centre = self.top_down[0](torch.cat([middle, double(self.upsample[0](coarse))], dim=1))
        low = self.top_down[1](torch.cat([fine, double(self.upsample[1](centre))], dim=1))
        mid = self.bottom_up[0](torch.cat([self.down[0](low), centre], dim=1))
        high = self.bottom_up[1](torch.cat([self.down[1](mid), coarse], dim=1))
        return run_levels(self.out, (low, mid, high))


def _backbone(width: int, *, ratio: float, blocks: int) -> StagedBackbone:
    """Return the backbone of l and x; `width` is that of the first convolution."""

    def layer(in_channels: int, out_channels: int, ratio: float) -> ELAN:
        return ELAN(in_channels, out_channels, middle_ratio=ratio, block_ratio=ratio, blocks=blocks, convs=2)

    stem = [ConvBlock(3, width, 3), ConvBlock(width, 2 * width, 3, stride=2), ConvBlock(2 * width, 2 * width, 3)]
    stages = [
        nn.Sequential(ConvBlock(2 * width, 4 * width, 3, stride=2), layer(4 * width, 8 * width, ratio)),
        nn.Sequential(PoolingDownsample(8 * width, 8 * width), layer(8 * width, 16 * width, ratio)),
        nn.Sequential(PoolingDownsample(16 * width, 16 * width), layer(16 * width, 32 * width, ratio)),
        nn.Sequential(PoolingDownsample(32 * width, 32 * width), layer(32 * width, 32 * width, ratio / 2)),
    ]
    return StagedBackbone(nn.Sequential(*stem), stages)


def _tiny_backbone() -> StagedBackbone:
    stem = nn.Sequential(ConvBlock(3, 32, 3, stride=2), ConvBlock(32, 64, 3, stride=2))
    first = nn.Sequential(TinyELAN(64, 64, ratio=0.5))
    others = [nn.Sequential(nn.MaxPool2d(2), TinyELAN(width, 2 * width, ratio=1.0)) for width in (64, 128, 256)]
    return StagedBackbone(stem, [first, *others])


class Size(NamedTuple):
    """What differs between variants.

    Attributes:
        backbone: makes the backbone.
        widths: channels of the maps that the backbone gives, fine to coarse.
        neck_widths: channels of these maps inside the neck.
        mix: makes the layers of the neck that work on two concatenated maps.
        downsample: makes the layers of the neck that halve a map.
        end: makes the last layers of the neck.
        activation: of all conv blocks.
        gains: weights of the losses.
        tiny: whether the pooling layer is the small one.
    """

    backbone: Callable[[], StagedBackbone]
    widths: tuple[int, int, int]
    neck_widths: tuple[int, int, int]
    mix: LayerFactory
    downsample: LayerFactory
    end: LayerFactory
    activation: Activation
    gains: Gains
    tiny: bool = False


SIZES = {
    "tiny": Size(
        backbone=_tiny_backbone,
        widths=(128, 256, 512),
        neck_widths=(64, 128, 256),
        mix=partial(TinyELAN, ratio=0.25),
        downsample=partial(ConvBlock, kernel=3, stride=2),
        end=partial(ConvBlock, kernel=3),
        activation="leaky_relu",
        gains=Gains(box=0.05, obj=1.0, cls=0.5),
        tiny=True,
    ),
    "l": Size(
        backbone=partial(_backbone, 32, ratio=0.5, blocks=2),
        widths=(512, 1024, 1024),
        neck_widths=(128, 256, 512),
        mix=partial(ELAN, middle_ratio=0.5, block_ratio=0.25, blocks=4, convs=1),
        downsample=PoolingDownsample,
        end=partial(RepVGGBlock, identity=False, activation="silu"),
        activation="silu",
        gains=Gains(box=0.05, obj=0.7, cls=0.3),
    ),
    "x": Size(
        backbone=partial(_backbone, 40, ratio=0.4, blocks=3),
        widths=(640, 1280, 1280),
        neck_widths=(160, 320, 640),
        mix=partial(ELAN, middle_ratio=0.4, block_ratio=0.4, blocks=3, convs=2),
        downsample=PoolingDownsample,
        end=partial(ConvBlock, kernel=3),
        activation="silu",
        gains=Gains(box=0.05, obj=0.7, cls=0.3),
    ),
}

ANCHOR_SIZES = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
"""Width and height of the anchors of each level in pixels, from training on COCO."""
