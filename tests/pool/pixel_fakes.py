"""A segmenter whose answers are a fixed convolution of the pixels, and a consumer that keeps what it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.data.letterbox import InputSpec
from ymir_tmi.models.interface import ModelSpec, PixelOutput, PostprocessSpec
from ymir_tmi.models.runtime.interface import ClassGroups
from ymir_tmi.models.segment import PixelTest
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Output, Row

CLASSES = ("road", "grass", "sky", "wall")
STRIDE = 4


class FakeSegmenter:
    """Gives logits at stride 4 that depend on 7 x 7 pixels, so that the border of an input shows.

    Attributes:
        shapes: of each input that it was shown.
    """

    has_raw = True
    arithmetic = "fp32"
    device = torch.device("cpu")

    def __init__(self, spec: InputSpec, test: PixelTest, class_groups: ClassGroups | None = None) -> None:
        self.spec = ModelSpec(
            name="fake",
            family="fake",
            task="semantics",
            class_names=CLASSES,
            input=spec,
            postprocess=PostprocessSpec(),
        )
        self.test = test
        self.class_groups = class_groups
        self.shapes: list[tuple[int, ...]] = []
        kernel = torch.randn(len(CLASSES), 3, 7, 7, generator=torch.Generator().manual_seed(0))
        self._kernel = (kernel - kernel.mean((1, 2, 3), keepdim=True)) / 30  # grey is no class's colour

    def run(self, images: npt.NDArray[np.uint8]) -> PixelOutput:
        self.shapes.append(images.shape)
        return PixelOutput((self.logits(images),))

    def logits(self, images: npt.NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 25
        return F.conv2d(pixels, self._kernel, stride=STRIDE, padding=3)


class Keeping(Consumer):
    """Keeps the results, by path."""

    name = "keeping"

    def __init__(self, *outputs: Output) -> None:
        self._outputs = frozenset(outputs)
        self.results: dict[str, ImageResult] = {}

    @property
    def needs(self) -> Needs:
        return Needs(self._outputs)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        self.results.update({result.path: result for result in batch})
        return [{} for _ in batch]
