"""Pictures cut into superpixels, the regions that a labeller is asked about (docs/specs/mining.md, section 7)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi.imaging import Image, SuperpixelMethod, fits_mslic, seeds_superpixels, slic_superpixels

Labels = npt.NDArray[np.int32]


@dataclass(frozen=True)
class SuperpixelSpec:
    """How pictures are cut.

    Attributes:
        method: of OpenCV's ximgproc module.
        most: superpixels of a picture at the most.
        side: about the side of a superpixel in pixels; None follows from `most`. Seeds do not have it.
    """

    method: SuperpixelMethod = "slico"
    most: int = 1024
    side: int | None = None

    def cut(self, image: Image) -> Labels:
        """Return (H, W) the number of the superpixel of each pixel, below `most`; numbers may have gaps.

        Where there are more than `most`, the picture is cut again into larger ones. Where these would become too large
        for `mslic`, it is cut by `slico`.

        Raises:
            DependencyError: OpenCV lacks its `ximgproc` module.
        """
        if self.method == "seeds":
            return seeds_superpixels(image, self.most)
        first_side = self.side or default_side(image.shape[0] * image.shape[1], self.most)
        method, side = self.method, first_side
        while True:
            if method == "mslic" and not fits_mslic(image, side):
                method, side = "slico", first_side
            labels = slic_superpixels(image, side, method)
            count = int(labels.max()) + 1
            if count <= self.most:
                return labels
            side = math.ceil(side * max(1.1, math.sqrt(count / self.most)))


def default_side(pixels: int, most: int) -> int:
    """Return the side of superpixels such that a picture has about a quarter of `most`."""
    return max(2, 2 * round(math.sqrt(pixels / most)))


@dataclass(frozen=True)
class SuperpixelMeans:
    """What is known of the superpixels 0 .. n - 1 of a picture.

    Attributes:
        values: (n,) float32 mean of a value over the pixels; NaN for numbers that no pixel has.
        classes: (n,) uint16 the class that most pixels have, the first on ties.
    """

    values: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint16]


def superpixel_means(
    labels: Labels, values: npt.NDArray[np.float32], classes: npt.NDArray[Any], num_classes: int
) -> SuperpixelMeans:
    """Return the mean value and the most frequent class of every superpixel.

    Args:
        labels: (H, W) number of the superpixel of each pixel.
        values: (H, W).
        classes: (H, W) class of each pixel, below `num_classes`.
        num_classes: C.
    """
    numbers = labels.ravel()
    sums = np.bincount(numbers, values.ravel())
    votes = np.bincount(numbers * num_classes + classes.ravel(), minlength=len(sums) * num_classes)
    votes = votes.reshape(len(sums), num_classes)
    sizes = votes.sum(1)
    means = np.divide(sums, sizes, out=np.full(len(sums), np.nan), where=sizes > 0)
    return SuperpixelMeans(means.astype(np.float32), votes.argmax(1).astype(np.uint16))
