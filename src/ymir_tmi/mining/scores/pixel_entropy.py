"""Entropy of the pixels' classes, for models of task `semantics` (docs/specs/mining.md, section 2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.mining.algorithm import HeatMapAlgorithm, score_row
from ymir_tmi.mining.pixels import pixel_entropy
from ymir_tmi.pool.consumer import ImageResult, Needs, Row

_UNSURE = 0.5  # share of the largest entropy above which the reason counts a pixel as unsure


class PixelEntropy(HeatMapAlgorithm):
    """Scores an image by the mean entropy of its pixels, by its largest value ln C: in [0, 1]."""

    name = "entropy"

    @property
    def needs(self) -> Needs:
        """The class probabilities of all pixels."""
        return Needs(outputs=frozenset({"probabilities"}), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image; its component `unsure` is the share of pixels above half of the largest entropy."""
        return [self._row(result) for result in batch]

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (height, width) the entropy of each pixel of the picture, in [0, 1]."""
        assert result.probabilities is not None
        return np.asarray(pixel_entropy(result.probabilities).cpu())

    def _row(self, result: ImageResult) -> Row:
        assert result.probabilities is not None
        entropy = pixel_entropy(result.probabilities)
        unsure = float((entropy > _UNSURE).float().mean())
        return score_row(result, float(entropy.mean()), {"unsure": unsure}, f"unsure about {unsure:.0%} of the pixels")


def build_pixel_entropy(settings: MineSettings, class_names: Sequence[str]) -> PixelEntropy:
    """Return the algorithm; it has no options."""
    return PixelEntropy()
