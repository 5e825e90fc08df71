"""What a pass over a pool asks of whatever carries out a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.models.interface import DenseDetections, HeadOutput, ModelSpec, PixelOutput
from ymir_tmi.models.runtime.devices import Arithmetic
from ymir_tmi.models.segment import PixelTest

ClassGroups = Sequence[Sequence[int]]
"""For each class of the results, the classes of the model that it stands for."""

Seeds = Sequence[Sequence[int]]
"""Of each picture, what makes the random numbers of a pass."""


class RandomPasses(Protocol):
    """Runs a network several times, each time with other parts switched off at random; see `models.random_passes`."""

    def begin(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Compute for letterboxed (B, H, W, 3) RGB pictures what is the same in every pass."""
        ...

    def finish(self, trunk: Tensor, seeds: Seeds | None) -> HeadOutput:
        """Return the raw numbers of one pass; without seeds nothing is switched off, and they are those of `run`."""
        ...


class Runtime(Protocol):
    """A model that is ready to run: uint8 pictures in, raw numbers out.

    Attributes:
        spec: what the model is, with the user's input size and post-processing in place of the model's own.
        device: where `run` leaves its results.
        arithmetic: number format of the network.
        has_raw: whether `run` returns the head's own numbers; else they are decoded already.
        class_groups: the model's classes behind each class of the results; None leaves the classes as they are.
    """

    spec: ModelSpec
    device: torch.device
    arithmetic: Arithmetic
    has_raw: bool
    class_groups: ClassGroups | None

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput | PixelOutput:
        """Run the network on letterboxed (B, H, W, 3) RGB pictures; float32, on `device`."""
        ...


class DetectorRuntime(Runtime, Protocol):
    """A detector that is ready to run."""

    @property
    def passes(self) -> RandomPasses | None:
        """Runs the network with random parts switched off; None if it cannot."""
        ...

    def run(self, images: npt.NDArray[np.uint8]) -> HeadOutput:
        """Run the network on letterboxed (B, H, W, 3) RGB pictures; float32, on `device`."""
        ...

    def decode(self, raw: HeadOutput) -> DenseDetections:
        """Turn raw numbers into boxes and scores for every prior."""
        ...

    def class_maps(self, raw: HeadOutput) -> tuple[Tensor, ...]:
        """Return per level (B, A, C, h, w) class probabilities."""
        ...


class SegmenterRuntime(Runtime, Protocol):
    """A network that gives every pixel a class and is ready to run.

    Attributes:
        test: how it looks at a picture.
    """

    test: PixelTest

    def run(self, images: npt.NDArray[np.uint8]) -> PixelOutput:
        """Run the network on (B, H, W, 3) RGB inputs; float32, on `device`."""
        ...
