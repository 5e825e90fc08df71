"""What a picture is in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""RGB, (H, W, 3)."""
Values = npt.NDArray[np.uint8]
"""Numbers in place of colours, (H, W)."""


def size_of(image: Image) -> tuple[int, int]:
    """Return (width, height)."""
    return image.shape[1], image.shape[0]


def as_image(array: npt.NDArray[Any]) -> Image:
    """Return what OpenCV has made as bytes without gaps."""
    return np.ascontiguousarray(array, dtype=np.uint8)
