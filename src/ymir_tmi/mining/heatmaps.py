"""Pictures of where in an image its score comes from, for the first images of a ranking."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from ymir_tmi import imaging
from ymir_tmi.data.tiles import Tile
from ymir_tmi.imaging import Image
from ymir_tmi.mining.algorithm import HeatMapAlgorithm
from ymir_tmi.pool.consumer import ImageResult, Needs, Row, WindowConsumer

LONGEST_SIDE = 640

# Black, violet, red, orange, light yellow: brightness rises evenly, so the maps can be read in grey as well.
_STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])
_TABLES = np.stack(
    [np.interp(np.arange(256), np.linspace(0, 255, len(_STOPS)), channel) for channel in _STOPS.T]
).astype(np.uint8)


class HeatmapWriter(WindowConsumer):
    """Writes the heat map of every image of a pass whose images are in the order of the ranking.

    Args:
        algorithm: draws the maps.
        folder: where `0001.png` and its followers are written.
    """

    name = "heatmaps"

    def __init__(self, algorithm: HeatMapAlgorithm, folder: Path) -> None:
        self._algorithm = algorithm
        self._folder = folder

    @property
    def needs(self) -> Needs:
        """What the algorithm needs."""
        return self._algorithm.needs

    def consume(self, batch: Sequence[ImageResult]) -> list[Row]:
        """Write one picture per image; its row says the file's name in the folder. The row of a window has its map."""
        return [self._row(result, self._algorithm.heat_map(result)) for result in batch]

    def join(self, image: ImageResult, rows: Sequence[Row]) -> Row:
        """Write the picture of a large image: where its windows overlap, the larger value."""
        width, height = _shown_size(image.size)
        canvas = np.zeros((height, width), np.float32)
        for row in rows:
            left, top, values = row["left"], row["top"], row["values"]
            place = canvas[top : top + values.shape[0], left : left + values.shape[1]]
            np.maximum(place, values[: place.shape[0], : place.shape[1]], out=place)
        return self._write(image, canvas)

    def _row(self, result: ImageResult, values: npt.NDArray[np.float32]) -> Row:
        return self._write(result, values) if result.tile is None else _shrink(values, result.tile)

    def _write(self, result: ImageResult, values: npt.NDArray[np.float32]) -> Row:
        name = f"{result.position + 1:04d}.png"
        imaging.write_image(self._folder / name, paint(values, result.size))
        return {"file": name}


def _shrink(values: npt.NDArray[np.float32], tile: Tile) -> Row:
    """Return a window's map at the size at which the image's map is shown, and where it begins there."""
    window, picture = tile
    scale = _shown_scale(picture)
    left, top = math.floor(window.x * scale), math.floor(window.y * scale)
    right, bottom = math.ceil((window.x + window.width) * scale), math.ceil((window.y + window.height) * scale)
    shown = F.interpolate(torch.from_numpy(values)[None, None], (bottom - top, right - left), mode="area")[0, 0]
    return {"left": left, "top": top, "values": shown.numpy()}


def paint(values: npt.NDArray[np.float32], size: tuple[int, int]) -> Image:
    """Return a heat map as a picture with the sides of `size` (width, height), at most 640 pixels long.

    Each map has its own scale, from 0 (black) to its largest value (light yellow).

    Args:
        values: (h, w), none of them negative.
        size: of the image it belongs to, in pixels.
    """
    width, height = _shown_size(size)
    grey = (values * (255 / max(float(values.max()), 1e-12))).astype(np.uint8)
    picture = imaging.resize(np.repeat(grey[:, :, None], 3, axis=2), width, height, "bilinear")
    return imaging.map_values(picture, _TABLES)


def _shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (width, height) of the map of an image of `size`."""
    scale = _shown_scale(size)
    width, height = (max(1, round(side * scale)) for side in size)
    return width, height


def _shown_scale(size: tuple[int, int]) -> float:
    return min(1.0, LONGEST_SIDE / max(size))
