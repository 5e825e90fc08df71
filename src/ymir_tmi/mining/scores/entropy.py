"""Entropy of the detections' confidences: how far the model is from a yes or a no (docs/specs/mining.md, section 2).

After Joshi, Porikli, Papanikolopoulos, "Multi-class active learning for image classification", CVPR 2009.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.errors import ModelError
from ymir_tmi.mining.algorithm import Algorithm, refuse_option, score_row
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult, Needs, Row

Aggregate = Literal["sum", "mean", "max"]

_AGGREGATES: dict[Aggregate, Callable[[npt.NDArray[np.float64]], float]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
}
_SMALLEST = 1e-12  # confidences are kept this far from 0 and 1, where the logarithm has no value


def binary_entropy(confidence: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the entropy of a yes/no answer in bits: 1 at 0.5, 0 at 0 and 1. Any shape."""
    p = np.clip(confidence.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    return -p * np.log2(p) - (1 - p) * np.log2(1 - p)


def one_sided_entropy(confidence: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return -c log2(c), the half of the entropy that earlier implementations sum: most at 0.37, 0 at 0 and 1."""
    return confidence * np.log(np.maximum(confidence, np.float32(_SMALLEST))) * np.float32(-1 / math.log(2))


class Entropy(Algorithm):
    """Joins the binary entropies of an image's detections; an image without any scores 0.

    Args:
        class_names: for the reasons.
        min_score: detections count above this.
        aggregate: `sum` prefers images with many unsure objects; `mean` and `max` do not count them.
    """

    name = "entropy"

    def __init__(self, class_names: Sequence[str], *, min_score: float, aggregate: Aggregate) -> None:
        self._class_names = class_names
        self._min_score = min_score
        self._aggregate = _AGGREGATES[aggregate]

    @property
    def needs(self) -> Needs:
        """The detections."""
        return Needs(min_score=self._min_score)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        assert result.detections is not None
        found = result.detections.above(self._min_score)
        if not len(found):
            return score_row(result, 0.0, {"detections": 0}, "nothing found")
        bits = binary_entropy(found.scores)
        components = {"detections": len(found), "mean_bits": bits.mean(), "max_bits": bits.max()}
        return score_row(result, self._aggregate(bits), components, _least_sure(found, bits, self._class_names))


class _OneSidedEntropy(Algorithm):
    """An earlier implementation: the sum of `one_sided_entropy`, and a fixed score where there is nothing to sum."""

    name = "entropy"

    def __init__(self, needs: Needs, *, empty: float) -> None:
        self._needs = needs
        self._empty = empty

    @property
    def needs(self) -> Needs:
        """What the confidences are taken from."""
        return self._needs

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result, self._confidences(result)) for result in batch]

    def _row(self, result: ImageResult, confidences: npt.NDArray[np.float32]) -> Row:
        score = float(one_sided_entropy(confidences).sum()) if confidences.size else self._empty
        return score_row(result, score, {"confidences": confidences.size}, f"sum over {confidences.size} confidences")

    @abstractmethod
    def _confidences(self, result: ImageResult) -> npt.NDArray[np.float32]: ...


class _OfDetections(_OneSidedEntropy):
    def _confidences(self, result: ImageResult) -> npt.NDArray[np.float32]:
        assert result.detections is not None
        return result.detections.above(self._needs.min_score).scores


class _OfObjectness(_OneSidedEntropy):
    def _confidences(self, result: ImageResult) -> npt.NDArray[np.float32]:
        assert result.raw is not None
        if not result.raw.obj:
            raise ModelError(
                "this model has no objectness, which entropy in the form 'yolov5' sums",
                fix="Take a model with objectness such as YOLOX, or another form.",
            )
        levels = [level.float().sigmoid().flatten().cpu().numpy() for level in result.raw.obj]
        return np.concatenate(levels)


def build_entropy(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: `aggregate` is set together with `compat`.
    """
    if settings.compat is None:
        return Entropy(class_names, min_score=settings.conf, aggregate=settings.aggregate or "sum")
    refuse_option(settings, "aggregate", f"form '{settings.compat}' is a sum")
    if settings.compat == "yolov5":
        return _OfObjectness(Needs(outputs=frozenset({"raw"}), min_score=1.0), empty=-10.0)
    if settings.compat == "mmdet":
        return _OfDetections(Needs(), empty=-10.0)
    return _OfDetections(Needs(min_score=settings.conf), empty=0.0)


def _least_sure(found: Detections, bits: npt.NDArray[np.float64], class_names: Sequence[str]) -> str:
    worst = int(bits.argmax())
    name = class_names[int(found.labels[worst])]
    if len(found) == 1:
        return f"one detection, '{name}' at {found.scores[worst]:.2f}"
    return f"{len(found)} detections, the least sure '{name}' at {found.scores[worst]:.2f}"
