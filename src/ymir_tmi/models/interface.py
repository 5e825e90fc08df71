"""What every model promises, and the types that cross its border.

Data flow of a detector, which finds objects::

    images (B, 3, H, W) uint8 RGB
      -> Detector.normalize -> Detector.forward -> HeadOutput      raw numbers of the head, level by level
           -> Detector.loss(raw, targets)                          training
           -> Detector.decode -> DenseDetections                   every prior: box and class probabilities
                -> models.postprocess.detect -> Detections         one image: what is left after NMS
           -> Detector.class_maps                                  mining: dense class probabilities

and of a segmenter, which gives every pixel a class::

    images -> Segmenter.normalize -> Segmenter.forward -> PixelOutput
           -> Segmenter.loss(raw, targets)                         training
           -> softmax of the logits, resized to the picture        everything else
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from ymir_tmi.config.recipe import LossRecipe as LossRecipe
from ymir_tmi.config.schema import Activation as Activation
from ymir_tmi.data.batch import Phase as Phase
from ymir_tmi.data.batch import Targets as Targets
from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.geometry.masks import Masks

Task = Literal["detection", "rotated", "instances", "semantics"]
"""`detection`: upright boxes; `rotated`: rotated boxes; `instances`: upright boxes, each with the mask of its object;
`semantics`: a class for every pixel."""
Anchors = tuple[tuple[tuple[float, float], ...], ...]


class PostprocessSpec(BaseModel):
    """How dense predictions become detections (spec: detectors.md, section 12)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score_threshold: float = 0.001
    """Candidates score above this."""
    iou_threshold: float = 0.65
    """NMS drops a box that overlaps a better one of its class by more than this."""
    max_detections: int | None = 300
    """Boxes kept per image, the best ones; null keeps all."""
    candidates: int | None = 30000
    """Candidates that enter NMS, the best ones; null takes all."""
    candidates_per_level: bool = False
    """Whether `candidates` counts for each level by itself."""
    multi_label: bool = True
    """Whether one prior may be several classes, or only its best."""
    inclusive: bool = False
    """Whether a score equal to the threshold passes."""
    clip: Literal["before_nms", "after_nms", "never"] = "after_nms"
    """When boxes are cut to the picture."""
    drop_empty: bool = False
    """Whether boxes of which `after_nms` leaves nothing are dropped; `before_nms` always does."""


class ModelSpec(BaseModel):
    """All that is needed to build a model and to feed it; stored in the model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Variant, as `create_model` takes it."""
    family: str
    task: Task = "detection"
    class_names: tuple[str, ...]
    input: InputSpec
    postprocess: PostprocessSpec
    activation: Activation | None = None
    """Activation of the conv blocks, where a family leaves a choice (YOLOv5)."""
    anchors: Anchors | None = None
    """Width and height of each anchor in pixels, level by level, finest first, where a family has such."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def box_length(self) -> int:
        """Numbers of a box: 4, or 5 of a rotated one."""
        return 5 if self.task == "rotated" else 4


class HeadOutput(NamedTuple):
    """Raw numbers of the head, finest level first.

    A is the number of anchors of a cell, 1 in families without anchors. Channels are anchor-major: the numbers of the
    first anchor, then those of the second.

    Attributes:
        cls: per level (B, A * C, h, w) class logits.
        reg: per level (B, A * 4, h, w) box numbers, in the family's own terms.
        obj: per level (B, A, h, w) objectness logits, or () where the head has none.
        dist: per level (B, 4 * bins, h, w) logits of the distribution of each side that `reg` is the mean of, or ()
            where the head predicts sides themselves.
        angle: per level (B, A, h, w) angles of rotated boxes in the family's own terms, or () where boxes are upright.
        coefficients: per level (B, A * K, h, w) what the mask of a box is made of, or () where boxes have no masks.
        prototypes: one (B, K, mh, mw) tensor of maps that all masks of a picture are made of, or ().
    """

    cls: tuple[Tensor, ...]
    reg: tuple[Tensor, ...]
    obj: tuple[Tensor, ...] = ()
    dist: tuple[Tensor, ...] = ()
    angle: tuple[Tensor, ...] = ()
    coefficients: tuple[Tensor, ...] = ()
    prototypes: tuple[Tensor, ...] = ()


class PixelOutput(NamedTuple):
    """Raw numbers of a network that gives every pixel a class.

    Attributes:
        logits: one (B, C, h, w) tensor of class logits, at the stride of the network.
        auxiliary: (B, C, h, w) logits of further heads that only training uses; () in evaluation mode.
    """

    logits: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] = ()


class ClassRows(NamedTuple):
    """Where the rows of each class are in the weights of a prediction layer.

    For each anchor the layer has `others` rows that belong to no class, then one for every class, then `behind` that
    belong to none. Rows lie along the dimension `dim` of its tensors.
    """

    anchors: int = 1
    others: int = 0
    dim: int = 0
    behind: int = 0

    def count_classes(self, length: int) -> int:
        """Return for how many classes a tensor of this length along `dim` has rows."""
        return length // self.anchors - self.others - self.behind


class Matches(NamedTuple):
    """The N priors that are responsible for an object in training.

    Attributes:
        image: (N,) image in the batch.
        prior: (N,) prior.
        gt: (N,) object, in the order of the image's targets.
        label: (N,) class of the object.
        box: (N, 4) xyxy of the object in pixels of the network input, or (N, 5) where boxes are rotated.
        quality: (N,) how well prior and object go together: the overlap of the predicted box with the object, or the
            family's soft target.
    """

    image: Tensor
    prior: Tensor
    gt: Tensor
    label: Tensor
    box: Tensor
    quality: Tensor


class DenseDetections(NamedTuple):
    """One box and C scores for every prior: levels from fine to coarse; inside a level y, then x, then anchor.

    Attributes:
        boxes: (B, P, 4) xyxy in pixels of the network input, not clipped, or (B, P, 5) rotated boxes.
        scores: (B, P, C) probabilities, objectness included.
        level_sizes: number of priors of each level; they add up to P.
        coefficients: (B, P, K) of each prior's mask, or None where boxes have no masks.
        prototypes: (B, K, mh, mw) the maps that masks are made of, see `geometry.masks`, or None.
    """

    boxes: Tensor
    scores: Tensor
    level_sizes: tuple[int, ...]
    coefficients: Tensor | None = None
    prototypes: Tensor | None = None


@dataclass(frozen=True)
class Detections:
    """What was found in one picture, best first.

    Attributes:
        boxes: (n, 4) float32 xyxy in pixels of the picture (x right, y down), or (n, 5) rotated boxes in le90.
        scores: (n,) float32 in [0, 1].
        labels: (n,) int64, 0-based.
        class_scores: (n, C) float32, the scores of the prior that each box came from.
        masks: n masks in pixels of the picture, or None where there are none or nobody asked for them.
    """

    boxes: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    class_scores: npt.NDArray[np.float32]
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Any) -> Detections:
        """Return the chosen rows (a slice, a mask or row numbers)."""
        masks = None if self.masks is None else self.masks[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], self.class_scores[rows], masks)

    def above(self, threshold: float) -> Detections:
        """Return the detections that score above `threshold`."""
        return self[self.scores > threshold]

    @property
    def is_rotated(self) -> bool:
        """Whether boxes are rotated ones."""
        return bool(self.boxes.shape[1] == 5)

    @classmethod
    def empty(cls, num_classes: int, *, box_length: int = 4) -> Detections:
        """Return no detections."""
        return cls(
            np.zeros((0, box_length), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            np.zeros((0, num_classes), np.float32),
        )


class Network(nn.Module, ABC):
    """What a detector and a segmenter have in common.

    Attributes:
        spec: the variant, its classes, input and post-processing.
        loss_recipe: numbers of the loss that a user may change.
        loss_fields: fields of `loss_recipe` that this family reads.
        class_layers: names that the layers with rows for each class begin with, and where those rows are.
        smallest_batch: fewest images that it can be trained with at a time, over all processes.
    """

    spec: ModelSpec
    loss_recipe: LossRecipe
    loss_fields: ClassVar[frozenset[str]] = frozenset()
    class_layers: ClassVar[Mapping[str, ClassRows]] = {"head.cls_pred.": ClassRows()}
    smallest_batch: ClassVar[int] = 1
    _mean: Tensor
    _std: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.loss_recipe = LossRecipe()
        # (3, 1, 1), in the network's channel order; not part of the weights.
        self.register_buffer("_mean", torch.tensor(spec.input.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(spec.input.std).view(3, 1, 1), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn (B, 3, H, W) uint8 RGB into the floating-point input of `forward`, channels last in memory."""
        # (B, H, 3 W): arithmetic on long rows of numbers is ten times faster than on threes.
        pixels = images.permute(0, 2, 3, 1)
        rows = pixels.flatten(2)
        if self.spec.input.channels == "bgr":  # reverse all numbers of a row, then its pixels: what is left is the swap
            rows = rows.flip(2).view(pixels.shape).flip(2).flatten(2)
        width = images.shape[3]
        scale, shift = (values.flatten().repeat(width) for values in (1 / self._std, -self._mean / self._std))
        floats = torch.addcmul(shift, rows.to(shift.dtype), scale)
        return floats.view(pixels.shape).permute(0, 3, 1, 2)

    @abstractmethod
    def forward(self, images: Tensor) -> Any:
        """Run the network on normalised (B, 3, H, W) images."""

    @abstractmethod
    def loss(self, raw: Any, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return the weighted loss terms by name for what `forward` returned; training minimises their sum."""

    def run_state(self) -> dict[str, float]:
        """Return numbers that `loss` goes on with and that belong to a run, not to the model."""
        return {}

    def load_run_state(self, state: Mapping[str, float]) -> None:
        """Go on with numbers that `run_state` returned."""

    @abstractmethod
    def fuse(self) -> Self:
        """Return a copy for inference in which batch norms are folded into convolutions; this model is unchanged."""


class Segmenter(Network):
    """A network that gives every pixel a class, with new weights in training mode."""

    @abstractmethod
    def forward(self, images: Tensor) -> PixelOutput:
        """Run the network on normalised (B, 3, H, W) images of any size."""

    @abstractmethod
    def loss(self, raw: PixelOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return the weighted loss terms by name, from `targets.label_maps`; training minimises their sum."""


class Detector(Network):
    """A network with one box and C class scores for every prior.

    Attributes:
        strides: pixels per cell, finest level first.
    """

    strides: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> HeadOutput:
        """Run the network on normalised (B, 3, H, W) images; H and W are multiples of the largest stride."""

    @abstractmethod
    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Turn raw numbers into boxes and scores for every prior. Uses no parameters."""

    @abstractmethod
    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, A, C, h, w) class probabilities, objectness included; A channels per cell."""

    @abstractmethod
    def loss(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> dict[str, Tensor]:
        """Return the weighted loss terms by name; training minimises their sum."""

    @abstractmethod
    def assign(self, raw: HeadOutput, targets: Targets, phase: Phase = "main") -> Matches:
        """Return the priors that are responsible for the objects of a batch, as `loss` uses them."""
