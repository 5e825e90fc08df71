"""What a consumer of a pass over the pool asks for, and what it gets.

A consumer (predictions to a file, a mining algorithm, an evaluator) declares which *outputs* of the model it needs, and
in which *views* of an image. The runner takes the union over all consumers, decodes every image once, runs the model
once per view, and hands each consumer the results of a batch; the consumer answers with one JSON-able row per image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ymir_tmi.data.letterbox import Frame
from ymir_tmi.data.tiles import Tile
from ymir_tmi.imaging import Image
from ymir_tmi.models.interface import Detections, HeadOutput

Output = Literal["detections", "class_maps", "raw", "masks", "mask_maps", "probabilities", "label_map"]
"""What of `ImageResult` is computed; `masks` are those of the detections."""
Row = dict[str, Any]


class View(ABC):
    """A changed copy of an image that the model is run on as well."""

    name: ClassVar[str]

    @abstractmethod
    def apply(self, image: Image, plain: Detections, seed: int) -> Image:
        """Return the changed image, of any size.

        Args:
            image: (H, W, 3) uint8 RGB.
            plain: what the model found in the unchanged image.
            seed: a number that belongs to this image and the run's seed; all randomness comes from it.
        """

    @abstractmethod
    def map_boxes(self, boxes: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Map (n, 4) xyxy or (n, 5) rotated boxes of the image of `size` (width, height) into the changed one."""


@dataclass(frozen=True)
class Needs:
    """What a consumer asks of the runner.

    Attributes:
        outputs: what it reads of the unchanged image; empty if it needs no model.
        views: further views, for which it reads detections.
        min_score: detections at or below this are not needed.
        passes: how often the network is to look at the unchanged image with random parts of it switched off, for models
            of task `instances`.
        measure: what is computed of the pixels of the unchanged image, in the threads that decode it; of all consumers
            of a pass, one may ask for this.
    """

    outputs: frozenset[Output] = frozenset({"detections"})
    views: tuple[View, ...] = ()
    min_score: float = 0.001
    passes: int = 0
    measure: Callable[[Image], Any] | None = None


@dataclass(frozen=True)
class ImageResult:
    """What the model said about one image, or one window of a large image.

    Attributes:
        position: row of the image in the pool.
        path: the picture file, as the pool names it.
        size: (width, height) of the picture in pixels; (0, 0) in a pass without a model, which opens no picture.
        frame: where the picture lies in the network input; None in a pass without a model, and of a large image, whose
            windows have one each.
        seed: a number that belongs to this image and the run's seed, whatever its neighbours.
        detections: of the unchanged image, above the smallest `min_score` of all consumers, with masks if someone asked
            for these; None if no one asked.
        class_maps: per level (A, C, h, w) float32 probabilities on the model's device; None if no one asked.
        raw: the head's own numbers, float32, as a batch of 1, on the model's device; None if no one asked.
        mask_maps: (n, mh, mw) float32 probabilities that a place of the network input, at the resolution of the
            prototypes, belongs to each of the detections, also outside its box; on the model's device.
        probabilities: (C, height, width) float32 class probabilities of every pixel of the picture, on the model's
            device, of a model of task `semantics`; None if no one asked.
        label_map: (height, width) uint8 class of every pixel of the picture, of a model of task `semantics`; 255 where
            a class that the user has not chosen is the most probable; None if no one asked.
        passes: detections of each pass with random parts of the network switched off, with masks and class scores.
        measured: what `Needs.measure` has returned; None if no one asked.
        views: detections in each further view, in pixels of that view, by its name.
        tile: which window this is; the size and the pixels of the detections are then those of the window. None of an
            image.
    """

    position: int
    path: str
    size: tuple[int, int]
    frame: Frame | None
    seed: int
    detections: Detections | None = None
    class_maps: tuple[Tensor, ...] | None = None
    raw: HeadOutput | None = None
    mask_maps: Tensor | None = None
    probabilities: Tensor | None = None
    label_map: npt.NDArray[np.uint8] | None = None
    passes: Sequence[Detections] = ()
    measured: Any = None
    views: Mapping[str, Detections] = field(default_factory=dict)
    tile: Tile | None = None


class Consumer(ABC):
    """Turns what the model said about an image into one row of a result."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the runner must compute for this consumer."""

    @abstractmethod
    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one JSON-able row per image of the batch, in order.

        A row does not depend on the neighbours in the batch and has no key `error`: that is the row of an image that
        could not be read, which no consumer is shown.
        """


class WindowConsumer(Consumer):
    """A consumer that reads more than the detections of a large image, and so is shown its windows one by one."""

    @abstractmethod
    def join(self, image: ImageResult, rows: Sequence[Row]) -> Row:
        """Return the row of an image that was cut into windows.

        Args:
            image: the whole image with the detections of all windows; nothing else is known of it.
            rows: what `consume` has returned for the windows, row by row of windows; they need not be JSON-able.
        """


def works_with_windows(consumer: Consumer) -> bool:
    """Return whether a consumer can do with the detections of a large image, or joins what its windows give."""
    needs = consumer.needs
    reads_more = not needs.outputs <= {"detections"} or needs.views or needs.passes or needs.measure
    return isinstance(consumer, WindowConsumer) or not reads_more
