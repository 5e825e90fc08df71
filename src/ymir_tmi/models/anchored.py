"""What YOLOv5 and YOLOv7 share: boxes relative to anchors, and a loss per level.

Facts: docs/specs/detectors.md, sections 3 and 5; docs/specs/yolov5.md, sections 4 and 8.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from ymir_tmi.errors import ModelError
from ymir_tmi.geometry.boxes import aligned_ciou
from ymir_tmi.models.assign.anchor_shapes import match_shapes
from ymir_tmi.models.blocks.anchor_head import ANCHORS, ROWS
from ymir_tmi.models.blocks.conv import fuse_blocks
from ymir_tmi.models.dense import AnchorPriors, anchor_boxes, flatten_levels, make_anchor_priors
from ymir_tmi.models.interface import (
    ClassRows,
    DenseDetections,
    Detector,
    HeadOutput,
    Matches,
    ModelSpec,
    Phase,
    Targets,
)
from ymir_tmi.models.losses import mean_over_processes, process_count, weighted_cross_entropy

# How much the objectness of each level counts, for heads with three levels and for those with four.
_BALANCE = {3: (4.0, 1.0, 0.4), 4: (4.0, 1.0, 0.25, 0.06)}


class Gains(NamedTuple):
    """Weights of the three losses for 3 levels, 80 classes and images of 640 pixels."""

    box: float
    obj: float
    cls: float


class AnchoredDetector(Detector):
    """A detector with three anchors in every cell; a family adds the layers and says which anchors an object takes.

    Args:
        spec: with the anchors.
        gains: weights of the losses that the variant is published with.
        levels: number of maps that the head works on; their strides are 8, 16, 32 and so on.

    Raises:
        ModelError: the specification has not three anchors for each level.
    """

    loss_fields: ClassVar[frozenset[str]] = frozenset({"box", "obj", "cls", "anchor_ratio"})
    class_layers: ClassVar[dict[str, ClassRows]] = {"head.pred.": ROWS}
    backbone: nn.Module
    neck: nn.Module
    head: nn.Module
    _anchors: Tensor

    def __init__(self, spec: ModelSpec, gains: Gains, *, levels: int = 3) -> None:
        super().__init__(spec)
        counts = [len(level) for level in spec.anchors or ()]
        if counts != [ANCHORS] * levels:
            raise ModelError(f"'{spec.name}' has {ANCHORS} anchors on each of {levels} levels, not {counts or 'none'}")
        self.strides = tuple(8 * 2**level for level in range(levels))
        self._gains = gains
        # (L, 3, 2); not part of the weights.
        self.register_buffer("_anchors", torch.tensor(spec.anchors), persistent=False)

    def forward(self, images: Tensor) -> HeadOutput:
        """Return class logits, box numbers and objectness logits for normalised (B, 3, H, W) images."""
        raw: HeadOutput = self.head(self.neck(self.backbone(images)))
        return raw

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Return every prior's box and its class probabilities times objectness."""
        priors = self._priors(raw)
        boxes = anchor_boxes(flatten_levels(raw.reg, ANCHORS), priors)
        scores = flatten_levels(raw.cls, ANCHORS).sigmoid_().mul_(flatten_levels(raw.obj, ANCHORS).sigmoid_())
        return DenseDetections(boxes, scores, priors.level_sizes)

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, 3, C, h, w) class probabilities times objectness."""
        anchors = [torch.stack(cls.chunk(ANCHORS, dim=1), dim=1) for cls in raw.cls]
        return tuple(cls.sigmoid_() * obj.sigmoid().unsqueeze(2) for cls, obj in zip(anchors, raw.obj, strict=True))

    @torch.no_grad()
    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the priors that are responsible for the objects of a batch; `phase` makes no difference."""
        matches = self._match(raw, targets)
        return matches._replace(quality=_overlap(raw, self._priors(raw), matches))

    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return `loss_cls`, `loss_obj` and `loss_bbox` (CIoU), times the batch; `phase` makes no difference.

        Classes and boxes are averaged over the matches of a level, objectness over its priors; levels are added.
        """
        return self._losses(raw, targets, self._match(raw, targets))

    def _losses(self, raw: HeadOutput, targets: Targets, matches: Matches) -> dict[str, Tensor]:
        priors = self._priors(raw)
        overlap = _overlap(raw, priors, matches)
        level = priors.levels[matches.prior]
        counts = overlap.new_zeros(len(self.strides)).index_add_(0, level, torch.ones_like(overlap))
        share = len(targets.labels) * process_count() / mean_over_processes(counts, at_least=1)[level]
        gains = self._scaled_gains()
        return {
            "loss_cls": gains.cls * (share * self._class_loss(raw, matches)).sum(),
            "loss_obj": gains.obj * self._objectness_loss(raw, priors, matches, overlap.detach().clamp(min=0)),
            "loss_bbox": gains.box * (share * (1 - overlap)).sum(),
        }

    def fuse(self) -> Self:
        """Return a copy for inference without batch norms."""
        fused = copy.deepcopy(self).eval()
        fuse_blocks(fused)
        return fused

    @abstractmethod
    def _match(self, raw: HeadOutput, targets: Targets) -> Matches:
        """Return the priors that are responsible for the objects of a batch, of any quality."""

    def _fitting_priors(self, raw: HeadOutput, targets: Targets) -> Matches:
        """Return the priors that objects fit by shape and place."""
        grids = [(level.shape[-2], level.shape[-1]) for level in raw.reg]
        return match_shapes(targets, grids, self.strides, self._anchors, ratio=self.loss_recipe.anchor_ratio)

    def _priors(self, raw: HeadOutput) -> AnchorPriors:
        return make_anchor_priors(raw.reg, self.strides, self._anchors)

    def _class_loss(self, raw: HeadOutput, matches: Matches) -> Tensor:
        """Return (N,) cross entropy of each match, averaged over classes; 0 where there is but one class."""
        logits = flatten_levels(raw.cls, ANCHORS)[matches.image, matches.prior]
        if logits.shape[1] == 1:
            return torch.zeros_like(logits[:, 0])
        recipe = self.loss_recipe
        targets = torch.full_like(logits, recipe.label_smoothing / 2)
        targets.scatter_(1, matches.label.unsqueeze(1), 1 - recipe.label_smoothing / 2)
        return weighted_cross_entropy(
            logits, targets, positive_weight=recipe.cls_positive, focal_gamma=recipe.focal_gamma
        ).mean(1)

    def _objectness_loss(self, raw: HeadOutput, priors: AnchorPriors, matches: Matches, overlap: Tensor) -> Tensor:
        """Return the balanced sum over levels of the mean cross entropy of their priors, times the batch."""
        logits = flatten_levels(raw.obj, ANCHORS).squeeze(-1)
        targets = objectness_targets(logits, matches, overlap)
        entropy = weighted_cross_entropy(
            logits, targets, positive_weight=self.loss_recipe.obj_positive, focal_gamma=self.loss_recipe.focal_gamma
        )
        balance = _BALANCE[len(self.strides)]
        weights = logits.new_tensor([part / size for part, size in zip(balance, priors.level_sizes, strict=True)])
        return (entropy * weights[priors.levels]).sum() * process_count()

    def _scaled_gains(self) -> Gains:
        """Return the gains of the recipe, or else the published ones, for this head and input."""
        recipe, published = self.loss_recipe, self._gains
        box, obj, cls = (
            own if changed is None else changed
            for own, changed in zip(published, (recipe.box, recipe.obj, recipe.cls), strict=True)
        )
        levels = 3 / len(self.strides)
        area = (self.spec.input.size / 640) ** 2
        return Gains(box * levels, obj * levels * area, cls * levels * self.spec.num_classes / 80)


def _overlap(raw: HeadOutput, priors: AnchorPriors, matches: Matches) -> Tensor:
    """Return (N,) CIoU of predicted boxes and objects, in cells."""
    chosen = priors.take(matches.prior)
    numbers = flatten_levels(raw.reg, ANCHORS)[matches.image, matches.prior]
    cells = chosen.strides.unsqueeze(1)
    return aligned_ciou(anchor_boxes(numbers, chosen) / cells, matches.box / cells)


def objectness_targets(logits: Tensor, matches: Matches, overlap: Tensor) -> Tensor:
    """Return (B, P) overlap of matched priors and 0 of others; of several matches of a prior, the last counts."""
    rows = torch.arange(len(overlap), device=logits.device)
    last = torch.full(logits.shape, -1, device=logits.device).flatten()
    last.scatter_reduce_(0, matches.image * logits.shape[1] + matches.prior, rows, "amax")
    return torch.cat([overlap, overlap.new_zeros(1)])[last].view_as(logits)  # -1 is the last row, the 0
