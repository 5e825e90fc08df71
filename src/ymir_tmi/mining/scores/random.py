"""A random score: the baseline that every other algorithm must beat (docs/specs/mining.md, section 1)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.mining.algorithm import Algorithm, score_row
from ymir_tmi.pool.consumer import ImageResult, Needs, Row


class Random(Algorithm):
    """Scores an image by a number in [0, 1) that follows from its own seed, whatever the order of the pool."""

    name = "random"

    @property
    def needs(self) -> Needs:
        """Nothing: neither a model nor pixels."""
        return Needs(outputs=frozenset(), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [
            score_row(result, np.random.default_rng(result.seed).random(), {}, "drawn at random") for result in batch
        ]


def build_random(settings: MineSettings, class_names: Sequence[str]) -> Random:
    """Return the algorithm; it has no options."""
    return Random()
