"""RIPU: small squares where classes meet and the model is unsure of them (docs/specs/mining.md, section 8).

Source: Xie et al., "Towards fewer annotations: active learning via region impurity and prediction uncertainty for
domain adaptive semantic segmentation", CVPR 2022. For the square of 2 r + 1 pixels around each pixel,

    P = entropy of the histogram of its predicted classes / ln C        impurity
    U = mean over it of the pixels' entropy / ln C                      uncertainty
    A = P * U                                                           all in [0, 1]

The squares with the largest A that do not overlap are the regions to label; their sum is the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.mining.algorithm import Algorithm, HeatMapAlgorithm, refuse_option, score_row
from ymir_tmi.mining.pixels import box_sums, pixel_entropy, top_two
from ymir_tmi.pool.consumer import ImageResult, Needs, Row


class Peak(NamedTuple):
    """A pixel and its value."""

    y: int
    x: int
    value: float


@torch.inference_mode()
def region_scores(probabilities: Tensor, radius: int, *, zero_padding: bool = False) -> Tensor:
    """Return (H, W) A of the square around each pixel, of which at the border only the part inside counts.

    Args:
        probabilities: (C, H, W).
        radius: r.
        zero_padding: count the part outside as pixels without uncertainty, as the form 'mmseg' does.
    """
    num_classes = len(probabilities)
    if num_classes == 1:
        return torch.zeros_like(probabilities[0])
    inside = box_sums(torch.ones_like(probabilities[0]), radius)
    sums = box_sums(pixel_entropy(probabilities), radius)
    uncertainty = sums / (2 * radius + 1) ** 2 if zero_padding else sums / inside
    return impurity(top_two(probabilities).classes, inside, radius).mul_(uncertainty / math.log(num_classes))


def impurity(classes: npt.NDArray[np.uint8] | npt.NDArray[np.int64], inside: Tensor, radius: int) -> Tensor:
    """Return (H, W) the entropy in nats of the histogram of classes in the square around each pixel.

    With n of m pixels in class c it is ln m - (sum over c of n ln n) / m: exactly 0 where one class fills the square.

    Args:
        classes: (H, W).
        inside: (H, W) the number m of pixels in each square.
        radius: at most 7, so that a count fits a byte.
    """
    labels = torch.from_numpy(classes).to(inside.device)
    total = torch.zeros_like(inside)
    for number in np.unique(classes):
        counts = box_sums((labels == int(number)).to(torch.uint8), radius).float()
        total.addcmul_(counts, counts.clamp(min=1).log_())
    return (inside.log() - total / inside).clamp_(min=0)


def separate_peaks(values: npt.NDArray[np.float32], count: int, apart: int) -> list[Peak]:
    """Return at most `count` pixels, the largest first, whose rows or columns differ by more than `apart`."""
    values = values.copy()
    peaks = []
    for _ in range(count):
        y, x = (int(number) for number in np.unravel_index(values.argmax(), values.shape))
        if values[y, x] == -np.inf:
            break
        peaks.append(Peak(y, x, float(values[y, x])))
        values[max(0, y - apart) : y + apart + 1, max(0, x - apart) : x + apart + 1] = -np.inf
    return peaks


class Ripu(HeatMapAlgorithm):
    """Sums A over the best squares that do not overlap.

    Args:
        radius: r, in pixels.
        count: squares of an image.
    """

    name = "ripu"

    def __init__(self, *, radius: int, count: int) -> None:
        self._radius = radius
        self._count = count

    @property
    def needs(self) -> Needs:
        """The class probabilities of all pixels."""
        return Needs(outputs=frozenset({"probabilities"}), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image; its `regions` are the squares, cut to the picture, with their A, best first."""
        return [self._row(result) for result in batch]

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (height, width) A of the square around each pixel of the picture."""
        assert result.probabilities is not None
        return np.asarray(region_scores(result.probabilities, self._radius).cpu())

    def _row(self, result: ImageResult) -> Row:
        peaks = separate_peaks(self.heat_map(result), self._count, 2 * self._radius)
        values = [peak.value for peak in peaks]
        components = {"regions": len(peaks), "max": values[0]}
        reason = f"{len(peaks)} squares, the best one around x {peaks[0].x}, y {peaks[0].y}"
        return {
            **score_row(result, sum(values), components, reason),
            "regions": [self._region(peak, result.size) for peak in peaks],
        }

    def _region(self, peak: Peak, size: tuple[int, int]) -> Row:
        left, top = max(0, peak.x - self._radius), max(0, peak.y - self._radius)
        right, bottom = min(size[0], peak.x + self._radius + 1), min(size[1], peak.y + self._radius + 1)
        return {"box": [left, top, right, bottom], "score": peak.value}


class _RipuPort(Algorithm):
    """The form 'mmseg': the largest pixels, which are neighbours, and too little uncertainty at the border."""

    name = "ripu"

    def __init__(self, *, radius: int, count: int) -> None:
        self._radius = radius
        self._count = count

    @property
    def needs(self) -> Needs:
        """The class probabilities of all pixels."""
        return Needs(outputs=frozenset({"probabilities"}), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        assert result.probabilities is not None
        scores = region_scores(result.probabilities, self._radius, zero_padding=True).flatten()
        best = scores.topk(min(self._count, len(scores))).values
        return score_row(result, float(best.sum()), {}, f"sum over the {len(best)} largest pixels")


def build_ripu(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: an option is set that the form does not have.
    """
    if settings.compat is None:
        return Ripu(radius=settings.region_radius, count=settings.top_regions)
    refuse_option(settings, "kept", f"form '{settings.compat}' chooses no regions")
    return _RipuPort(radius=settings.region_radius, count=settings.top_regions)
