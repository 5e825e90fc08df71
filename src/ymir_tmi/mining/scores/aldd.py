"""ALDD: how much neighbouring places of the class maps disagree (docs/specs/mining.md, section 3).

Source: Aghdam et al., "Active learning for deep detection neural networks", ICCV 2019. One forward pass; the work is in
`ymir_tmi.mining.jensen_gap`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.letterbox import Frame
from ymir_tmi.errors import ConfigError, ModelError, did_you_mean
from ymir_tmi.mining.algorithm import Algorithm, HeatMapAlgorithm, refuse_option, score_row
from ymir_tmi.mining.jensen_gap import CELL, WINDOW, Region, binary_entropy_sum, class_scores, heat_map
from ymir_tmi.models.interface import HeadOutput
from ymir_tmi.pool.consumer import ImageResult, Needs, Row, WindowConsumer

_PORT_SIZE = (640, 640)  # the form 'mmdet' enlarges every map to this, whatever the input
_CHANNELS = 16  # enlarged at once


class Aldd(HeatMapAlgorithm, WindowConsumer):
    """Sums the weighted scores of the classes.

    Args:
        class_names: for the reasons.
        weights: (C,) weight of each class.
        whole_input: also scores the bars that letterboxing adds, as the form 'yolov5' does.
    """

    name = "aldd"

    def __init__(
        self, class_names: Sequence[str], weights: npt.NDArray[np.float64], *, whole_input: bool = False
    ) -> None:
        self._class_names = class_names
        self._weights = weights
        self._whole_input = whole_input

    @property
    def needs(self) -> Needs:
        """The class maps."""
        return Needs(outputs=frozenset({"class_maps"}), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image; its components are the weighted scores of the classes, those of 0 left out."""
        return [self._row(result, self._parts(result)) for result in batch]

    def join(self, image: ImageResult, rows: Sequence[Row]) -> Row:
        """Return the row of a large image: the mean over its windows, as the score is one over the places of a map."""
        parts = [[row["components"].get(name, 0.0) for name in self._class_names] for row in rows]
        return self._row(image, np.mean(parts, axis=0))

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (h, w) the weighted disagreement at every pixel of the resized picture, in nats."""
        assert result.class_maps is not None and result.frame is not None
        frame = result.frame
        return heat_map(result.class_maps, (frame.input_height, frame.input_width), _picture(frame), self._weights)

    def _parts(self, result: ImageResult) -> npt.NDArray[np.float64]:
        """Return (C,) the weighted scores of the classes."""
        assert result.class_maps is not None and result.frame is not None
        frame = result.frame
        size = (frame.input_height, frame.input_width)
        region = Region(0, 0, frame.input_width, frame.input_height) if self._whole_input else _picture(frame)
        return class_scores(result.class_maps, size, region, self._weights) * self._weights

    def _row(self, result: ImageResult, parts: npt.NDArray[np.float64]) -> Row:
        score = float(parts.sum())
        top = int(parts.argmax())
        components = {name: part for name, part in zip(self._class_names, parts, strict=True) if part}
        reason = "no class is likely anywhere"
        if parts[top] > 0:
            share = parts[top] / score
            reason = f"neighbouring places disagree most about '{self._class_names[top]}' ({share:.0%} of the score)"
        return score_row(result, score, components, reason)


class _AlddOfAllChannels(Algorithm):
    """The form 'mmdet': box offsets are taken for probabilities as well, and outweigh the classes."""

    name = "aldd"

    @property
    def needs(self) -> Needs:
        """The head's own numbers."""
        return Needs(outputs=frozenset({"raw"}), min_score=1.0)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        assert result.raw is not None
        if not result.raw.obj:
            raise ModelError(
                "this model has no objectness, which aldd in the form 'mmdet' needs",
                fix="Take a YOLOX model, or another form.",
            )
        score = all_channels_score(result.raw, _PORT_SIZE)
        return score_row(result, score, {}, "neighbouring places disagree about boxes, objectness and classes")


@torch.inference_mode()
def all_channels_score(raw: HeadOutput, size: tuple[int, int]) -> float:
    """Return the score of one image over all channels of a YOLOX head (docs/specs/mining.md, section 3.2).

    Args:
        raw: the head's numbers for a batch of 1.
        size: (height, width) that the maps are enlarged to, before they become probabilities.
    """
    of_mean: Tensor | float = 0.0
    of_pixels: Tensor | float = 0.0
    for levels in zip(raw.reg, raw.obj, raw.cls, strict=True):
        for channels in torch.split(torch.cat(levels, dim=1).float(), _CHANNELS, dim=1):
            p = F.interpolate(channels, size, mode="bilinear").sigmoid()
            of_mean = of_mean + binary_entropy_sum(F.avg_pool2d(p, WINDOW, stride=1))
            of_pixels = of_pixels + binary_entropy_sum(p)
    assert isinstance(of_mean, Tensor) and isinstance(of_pixels, Tensor)
    gap = of_mean - F.avg_pool2d(of_pixels, WINDOW, stride=1)
    return float(F.max_pool2d(gap, CELL).mean())


def build_aldd(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: a class weight cannot be read, or is set where the form has none.
    """
    if settings.compat == "mmdet":
        refuse_option(settings, "class_weights", "form 'mmdet' has none")
        return _AlddOfAllChannels()
    weights = parse_class_weights(settings.class_weights, class_names)
    return Aldd(class_names, weights, whole_input=settings.compat == "yolov5")


def parse_class_weights(assignments: Sequence[str], class_names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return (C,) weights from NAME=NUMBER assignments; a class that is not named has weight 1.

    Raises:
        ConfigError: an assignment has another form, an unknown class, or a negative number.
    """
    weights = np.ones(len(class_names))
    for assignment in assignments:
        name, _, text = assignment.rpartition("=")
        if name not in class_names:
            raise ConfigError(
                f"'{assignment}' does not weight a class of the model",
                where="class_weights",
                fix=f"Write NAME=NUMBER. {did_you_mean(name, class_names)}",
            )
        weights[class_names.index(name)] = _weight(text, assignment)
    return weights


def _weight(text: str, assignment: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise ConfigError(f"'{assignment}': '{text}' is not a number of 0 or more", where="class_weights")
    return weight


def _picture(frame: Frame) -> Region:
    """Return where the picture lies in the network input."""
    return Region(frame.left, frame.top, frame.resized_width, frame.resized_height)
