"""Pictures cut into superpixels by OpenCV's ximgproc module."""

from __future__ import annotations

import importlib.metadata
import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ymir_tmi.errors import DependencyError
from ymir_tmi.imaging.arrays import Image

SuperpixelMethod = Literal["slico", "slic", "mslic", "seeds"]
"""`slico`: SLIC that finds its own compactness; `mslic`: smaller superpixels where there is more to see."""

_SMALLEST_SIDE = 8  # of a picture that is cut into superpixels


def require_superpixels() -> None:
    """Raise unless the installed OpenCV has superpixels.

    Raises:
        DependencyError: it lacks its `ximgproc` module; the message names the distributions that are installed.
    """
    if hasattr(cv2, "ximgproc"):
        return
    found = sorted(set(importlib.metadata.packages_distributions().get("cv2", [])))
    raise DependencyError(
        f"superpixels need OpenCV's ximgproc module, which is missing; installed: {', '.join(found) or 'none'}",
        fix=f"Run: pip uninstall {' '.join(found)}; then: pip install opencv-contrib-python-headless",
    )


def slic_superpixels(image: Image, side: int, method: Literal["slico", "slic", "mslic"]) -> npt.NDArray[np.int32]:
    """Return (H, W) the number of the superpixel of each pixel; numbers may have gaps.

    Args:
        image: (H, W, 3) RGB.
        side: about the side of a superpixel, in pixels, 2 or more.
        method: which kind of SLIC; `mslic` only where `fits_mslic` says so.

    Raises:
        DependencyError: OpenCV lacks its `ximgproc` module.
    """
    require_superpixels()
    assert method != "mslic" or fits_mslic(image, side)
    height, width = image.shape[:2]
    if side >= max(height, width):
        return np.zeros((height, width), np.int32)
    # OpenCV reads beyond the ends of pictures that are smaller than a superpixel, and crashes.
    pixels = _with_sides_of(image, max(side, _SMALLEST_SIDE))
    kinds = {"slic": cv2.ximgproc.SLIC, "slico": cv2.ximgproc.SLICO, "mslic": cv2.ximgproc.MSLIC}
    superpixels = cv2.ximgproc.createSuperpixelSLIC(pixels, kinds[method], side, 10.0)
    superpixels.iterate(10)
    return np.asarray(superpixels.getLabels()[:height, :width], np.int32)


def fits_mslic(image: Image, side: int) -> bool:
    """Return whether a picture has room for three superpixels of this side either way; with less, OpenCV crashes."""
    return bool(3 * side <= min(image.shape[:2]))


def seeds_superpixels(image: Image, most: int) -> npt.NDArray[np.int32]:
    """Return (H, W) the number of the superpixel of each pixel, below `most`; numbers may have gaps.

    A picture of fewer than 80 pixels, or `most` below 10, is one superpixel: the method cannot make so few.

    Args:
        image: (H, W, 3) RGB.
        most: the largest number of superpixels.

    Raises:
        DependencyError: OpenCV lacks its `ximgproc` module.
    """
    require_superpixels()
    height, width = image.shape[:2]
    count = min(most, height * width // 8)
    if count < 10:
        return np.zeros((height, width), np.int32)
    # Two rows and two columns of superpixels at the least: OpenCV divides by what is below that.
    pixels = _with_sides_of(image, math.ceil(9 * max(height, width) / count))
    superpixels = cv2.ximgproc.createSuperpixelSEEDS(
        pixels.shape[1], pixels.shape[0], 3, count, 5, prior=3, histogram_bins=5, double_step=True
    )
    superpixels.iterate(pixels, 10)
    return np.asarray(superpixels.getLabels()[:height, :width], np.int32)


def _with_sides_of(image: Image, side: int) -> npt.NDArray[np.uint8]:
    """Return the picture in BGR, with its border repeated to the right and below until both sides are `side` long."""
    down, right = (max(0, side - length) for length in image.shape[:2])
    return np.asarray(cv2.copyMakeBorder(image[..., ::-1], 0, down, 0, right, cv2.BORDER_REPLICATE))
