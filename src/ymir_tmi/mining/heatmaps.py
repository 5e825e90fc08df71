"""Pictures of where in an image its score comes from, for the first images of a ranking."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.imaging import Image
from ymir_tmi.mining.algorithm import HeatMapAlgorithm
from ymir_tmi.pool.consumer import Consumer, ImageResult, Needs, Row

LONGEST_SIDE = 640

# Black, violet, red, orange, light yellow: brightness rises evenly, so the maps can be read in grey as well.
_STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])
_TABLES = np.stack(
    [np.interp(np.arange(256), np.linspace(0, 255, len(_STOPS)), channel) for channel in _STOPS.T]
).astype(np.uint8)


class HeatmapWriter(Consumer):
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
        """Write one picture per image; its row says the file's name in the folder."""
        return [self._write(result) for result in batch]

    def _write(self, result: ImageResult) -> Row:
        name = f"{result.position + 1:04d}.png"
        imaging.write_image(self._folder / name, paint(self._algorithm.heat_map(result), result.size))
        return {"file": name}


def paint(values: npt.NDArray[np.float32], size: tuple[int, int]) -> Image:
    """Return a heat map as a picture with the sides of `size` (width, height), at most 640 pixels long.

    Each map has its own scale, from 0 (black) to its largest value (light yellow).

    Args:
        values: (h, w), none of them negative.
        size: of the image it belongs to, in pixels.
    """
    scale = min(1.0, LONGEST_SIDE / max(size))
    width, height = (max(1, round(side * scale)) for side in size)
    grey = (values * (255 / max(float(values.max()), 1e-12))).astype(np.uint8)
    picture = imaging.resize(np.repeat(grey[:, :, None], 3, axis=2), width, height, "bilinear")
    return imaging.map_values(picture, _TABLES)
