"""Looking at a picture several times with random parts of the network switched off.

What such passes disagree on, the network is not sure of (Gal and Ghahramani, "Dropout as a Bayesian Approximation",
2016). DropBlock: Ghiasi, Lin and Le, "DropBlock", 2018; docs/specs/yolov5.md, section 13.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.models.interface import HeadOutput

Drop = Callable[[Tensor], Tensor]
"""Returns a new (B, C, H, W) map of which random parts are switched off."""

_SIDE = 7  # of the squares that are switched off, in pixels of the map
_PROBABILITY = 0.1


class PartlyRandom(ABC):
    """A network of which parts can be switched off at random, and which does the rest only once."""

    @abstractmethod
    def begin(self, images: Tensor) -> Tensor:
        """Map normalised (B, 3, H, W) images to what is the same in every pass."""

    @abstractmethod
    def finish(self, trunk: Tensor, drop: Drop) -> HeadOutput:
        """Go on from what `begin` returned, which is left as it is; with a `drop` that copies, as `forward` does."""


class DropBlock:
    """Switches off random squares of each map that it is given; pictures know nothing of their neighbours.

    Args:
        seeds: of each picture: what makes its random numbers, the same on every device.
    """

    def __init__(self, seeds: Sequence[Sequence[int]]) -> None:
        self._random = [np.random.default_rng(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W) with the same squares of all channels set to 0, and the rest enlarged to make up."""
        drawn = np.stack([random.random(x.shape[2:], np.float32) for random in self._random])
        middles = torch.from_numpy(drawn).unsqueeze(1) < _PROBABILITY / _SIDE**2
        kept = 1 - F.max_pool2d(middles.float(), _SIDE, stride=1, padding=_SIDE // 2)
        share = kept.mean((1, 2, 3), keepdim=True)
        factors = kept / share.clamp(min=1 / kept[0].numel())  # of a small map, nothing may be left
        return x * factors.to(x)
