"""Algorithms that say how unsure the model is of each object, and join that to a score of the image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ymir_tmi.data.tiles import Tile
from ymir_tmi.mining.algorithm import HeatMapAlgorithm, score_row
from ymir_tmi.pool.consumer import ImageResult, Row, WindowConsumer

Aggregate = Literal["sum", "mean", "max"]
Region = dict[str, Any]

AGGREGATES: dict[Aggregate, Callable[[npt.NDArray[np.float64]], float]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
}


class ObjectAlgorithm(HeatMapAlgorithm, WindowConsumer):
    """Joins the uncertainties of an image's objects; its rows have the objects as `regions`, the least sure first.

    Args:
        aggregate: how they are joined.
        empty: score of an image without objects.
    """

    def __init__(self, aggregate: Aggregate, empty: float) -> None:
        self._aggregate = AGGREGATES[aggregate]
        self._empty = empty

    @abstractmethod
    def objects(self, result: ImageResult) -> list[Region]:
        """Return the objects of an image with their `box` (xyxy, pixels), their `label` and their uncertainty `score`.

        They may have a `point` (x, y) as well, and other facts that `describe` reads.
        """

    @abstractmethod
    def describe(self, objects: Sequence[Region]) -> str:
        """Return one line about the objects, of which the first is the least sure one."""

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Return one row per image, or per window, with regions in pixels of the whole picture."""
        return [self._row(result, _in_picture(self.objects(result), result.tile)) for result in batch]

    def join(self, image: ImageResult, rows: Sequence[Row]) -> Row:
        """Return the row of a large image: that of the objects of all its windows."""
        return self._row(image, [region for row in rows for region in row["regions"]])

    def _row(self, image: ImageResult, objects: list[Region]) -> Row:
        if not objects:
            return {**score_row(image, self._empty, {"objects": 0}, "nothing found"), "regions": []}
        ordered = sorted(objects, key=lambda region: -region["score"])
        scores = np.array([region["score"] for region in ordered])
        components = {"objects": len(scores), "mean": scores.mean(), "max": scores.max()}
        return {
            **score_row(image, self._aggregate(scores), components, self.describe(ordered)),
            "regions": ordered,
        }


def _in_picture(objects: list[Region], tile: Tile | None) -> list[Region]:
    """Move objects of a window to their place in the picture."""
    if tile is None:
        return objects
    move = [tile.window.x, tile.window.y] * 2
    return [
        {
            **region,
            **{
                name: [value + by for value, by in zip(region[name], move, strict=False)]
                for name in ("box", "point")
                if name in region
            },
        }
        for region in objects
    ]
