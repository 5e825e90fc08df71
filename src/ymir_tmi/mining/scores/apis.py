"""APIS: how unsure the model is which pixels of a box belong to the object (docs/specs/mining.md, section 5).

After Tang et al., "Active pointly-supervised instance segmentation", ECCV 2022. The uncertainty of an object is the
mean over the pixels of its box of the entropy of "does this pixel belong to it", in bits. Where it is largest is the
point to ask a labeller about.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ymir_tmi.config.schema import MineSettings
from ymir_tmi.data.letterbox import Frame
from ymir_tmi.errors import counted
from ymir_tmi.mining.algorithm import Algorithm, refuse_option, score_row
from ymir_tmi.mining.objects import Aggregate, ObjectAlgorithm, Region
from ymir_tmi.models.interface import Detections
from ymir_tmi.pool.consumer import ImageResult, Needs, Row

Maps = npt.NDArray[np.float32]

_SMALLEST = np.float32(1e-30)  # stands for 0 in a logarithm, so that 0 ln 0 = 0
_PORT_EMPTY = -10.0


def bits(p: Maps) -> Maps:
    """Return the entropy of yes or no in bits: 1 at 0.5, 0 at 0 and 1. Any shape."""
    q = 1 - p
    entropy: Maps = -p * np.log2(np.maximum(p, _SMALLEST)) - q * np.log2(np.maximum(q, _SMALLEST))
    return entropy


def cells_inside(boxes: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return (n, 4) first column and row, and those after the last, of the cells that boxes have; one at the least.

    Args:
        boxes: (n, 4) xyxy in cells; a cell belongs to a box if its upper left corner does.
        shape: (rows, columns) of the grid.
    """
    size = np.array(shape[::-1])
    first = np.clip(np.ceil(boxes[:, :2]), 0, size - 1)
    last = np.clip(np.ceil(boxes[:, 2:]), first + 1, size)
    return np.concatenate([first, last], axis=1).astype(np.int64)


class Apis(ObjectAlgorithm):
    """Joins the mean entropies of the objects; an image without any scores 0.

    Args:
        class_names: for the regions and reasons.
        min_score: detections count above this.
        aggregate: how the objects are joined.
    """

    name = "apis"

    def __init__(self, class_names: Sequence[str], *, min_score: float, aggregate: Aggregate) -> None:
        super().__init__(aggregate, empty=0.0)
        self._class_names = class_names
        self._min_score = min_score

    @property
    def needs(self) -> Needs:
        """The detections, and the mask of each as probabilities."""
        return Needs(outputs=frozenset({"detections", "mask_maps"}), min_score=self._min_score)

    def objects(self, result: ImageResult) -> list[Region]:
        """Return the detections, each with the `point` of its box that the model is least sure of."""
        found, maps, cells = _found(result, self._min_score)
        objects = []
        for row, (left, top, right, bottom) in enumerate(cells):
            entropy = bits(maps[row, top:bottom, left:right])
            y, x = np.unravel_index(int(entropy.argmax()), entropy.shape)
            objects.append(
                {
                    "box": found.boxes[row].tolist(),
                    "point": _pixel_at(left + int(x), top + int(y), result, maps.shape[1:]),
                    "label": self._class_names[int(found.labels[row])],
                    "score": float(entropy.mean()),
                }
            )
        return objects

    def describe(self, objects: Sequence[Region]) -> str:
        """Return how many objects there are, and which is the least sure."""
        worst = objects[0]
        least = f"the outline least sure that of a '{worst['label']}' ({worst['score']:.2f} bits)"
        return f"{counted(len(objects), 'object', 'objects')}, {least}"

    def heat_map(self, result: ImageResult) -> npt.NDArray[np.float32]:
        """Return (h, w) the entropy at every pixel of the resized picture; where boxes overlap, the largest."""
        _, maps, cells = _found(result, self._min_score)
        heat = np.zeros(maps.shape[1:], np.float32)
        for row, (left, top, right, bottom) in enumerate(cells):
            part = heat[top:bottom, left:right]
            np.maximum(part, bits(maps[row, top:bottom, left:right]), out=part)
        assert result.frame is not None
        return _enlarge(torch.from_numpy(heat), result.frame, inside=True).numpy()


class _ApisPort(Algorithm):
    """The form 'yolov5': the entropy of the mean over all objects, summed over the network's input.

    It is large where there are many objects, however sure the model is of them.

    Args:
        min_score: detections count above this.
    """

    name = "apis"

    def __init__(self, *, min_score: float) -> None:
        self._min_score = min_score

    @property
    def needs(self) -> Needs:
        """The detections, and the mask of each as probabilities."""
        return Needs(outputs=frozenset({"detections", "mask_maps"}), min_score=self._min_score)

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image."""
        return [self._row(result) for result in batch]

    def _row(self, result: ImageResult) -> Row:
        _, maps, cells = _found(result, self._min_score)
        if not len(maps):
            return score_row(result, _PORT_EMPTY, {"objects": 0}, "nothing found")
        total = np.zeros(maps.shape[1:], np.float32)
        for row, (left, top, right, bottom) in enumerate(cells):
            total[top:bottom, left:right] += maps[row, top:bottom, left:right]
        assert result.frame is not None
        mean = _enlarge(torch.from_numpy(total / len(maps)), result.frame, inside=False).numpy()
        reason = f"mean of {counted(len(maps), 'mask', 'masks')}"
        return score_row(result, float(bits(mean).sum()), {"objects": len(maps)}, reason)


def build_apis(settings: MineSettings, class_names: Sequence[str]) -> Algorithm:
    """Return the algorithm in the form that `settings.compat` says.

    Raises:
        ConfigError: an option is set that the form does not have.
    """
    if settings.compat is None:
        return Apis(class_names, min_score=settings.conf, aggregate=settings.aggregate or "mean")
    refuse_option(settings, "aggregate", f"form '{settings.compat}' is a sum")
    refuse_option(settings, "kept", f"form '{settings.compat}' chooses no regions")
    return _ApisPort(min_score=settings.conf)


def _found(result: ImageResult, min_score: float) -> tuple[Detections, Maps, npt.NDArray[np.int64]]:
    """Return the detections that count, their masks, and the cells of their boxes in these."""
    assert result.detections is not None and result.mask_maps is not None and result.frame is not None
    kept = result.detections.scores > min_score
    found, maps = result.detections[kept], result.mask_maps.cpu().numpy()[kept]
    frame, shape = result.frame, maps.shape[1:]
    scale = np.array([shape[1] / frame.input_width, shape[0] / frame.input_height] * 2)
    return found, maps, cells_inside(frame.to_input(found.boxes.astype(np.float64)) * scale, shape)


def _pixel_at(x: int, y: int, result: ImageResult, shape: tuple[int, ...]) -> list[int]:
    """Return the pixel (x, y) of the picture in which the middle of a cell lies."""
    frame = result.frame
    assert frame is not None
    middle = np.array([(x + 0.5) * frame.input_width / shape[1], (y + 0.5) * frame.input_height / shape[0]])
    point = frame.to_picture(np.tile(middle, 2))[:2]
    return [int(np.clip(value, 0, side - 1)) for value, side in zip(point, result.size, strict=True)]


def _enlarge(values: Tensor, frame: Frame, *, inside: bool) -> Tensor:
    """Enlarge (mh, mw) values to the network input, and cut them to the picture in it if only that part is wanted."""
    size = (frame.input_height, frame.input_width)
    enlarged = F.interpolate(values[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    if not inside:
        return enlarged
    return enlarged[frame.top : frame.top + frame.resized_height, frame.left : frame.left + frame.resized_width]
