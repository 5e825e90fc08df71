"""One annotated picture on its way to the network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ymir_tmi.imaging import Image


@dataclass(frozen=True)
class Sample:
    """A picture and its objects.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        boxes: (n, 4) float32, x1, y1, x2, y2 in pixels of `image`.
        labels: (n,) int64, 0-based.
    """

    image: Image
    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.shape[1], self.image.shape[0]
