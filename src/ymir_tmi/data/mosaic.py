"""Pictures made of several: mosaic, mixup, and the cache that their partners come from.

Sources: docs/specs/detectors.md, section 13; RTMDet (Lyu et al., 2022) for the caches; mixup (Zhang et al., 2018).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.data.sample import Sample, objects_together
from ymir_tmi.data.transforms import FILL, Range, clip_to_picture, flip_horizontal, pad, random_resize_crop
from ymir_tmi.imaging import Image


class SampleCache:
    """Samples seen before, to draw partners from. A cache of capacity 0 stays empty.

    Args:
        capacity: Samples it holds.
        eviction: Which sample leaves a full cache when another comes.
    """

    def __init__(self, capacity: int, eviction: Literal["random", "oldest"]) -> None:
        self._capacity = capacity
        self._eviction = eviction
        self._samples: list[Sample] = []

    def __len__(self) -> int:
        return len(self._samples)

    def push(self, sample: Sample, rng: np.random.Generator) -> None:
        """Add a sample."""
        if len(self) == self._capacity and self._samples:
            self._samples.pop(0 if self._eviction == "oldest" else int(rng.integers(len(self))))
        if len(self) < self._capacity:
            self._samples.append(sample)

    def draw(self, count: int, rng: np.random.Generator) -> list[Sample]:
        """Return `count` different samples at random, or all if there are fewer."""
        rows = rng.choice(len(self), min(count, len(self)), replace=False)
        return [self._samples[row] for row in rows]


def mosaic(tiles: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
    """Put four pictures around a random centre of a grey canvas of 2 `size` x 2 `size` pixels.

    They lie above left, above right, below left and below right of the centre, which is uniform in 0.5..1.5 times
    `size` on each axis. What does not fit on the canvas is cut off.

    Args:
        tiles: Four pictures, each at most `size` pixels wide and high.
        size: Half the side of the canvas in pixels.
        rng: Where random draws come from.
    """
    centre_x, centre_y = (rng.uniform(0.5, 1.5, 2) * size).astype(int).tolist()
    placed = []
    for place, tile in enumerate(tiles):
        width, height = tile.size
        placed.append((centre_x - (place in (0, 2)) * width, centre_y - (place in (0, 1)) * height))
    return _assemble(tiles, placed, 2 * size)


def mosaic_of_nine(tiles: Sequence[Sample], size: int, rng: np.random.Generator) -> Sample:
    """Put nine pictures in three rows on a grey canvas of 3 `size` x 3 `size` pixels, and cut out 2 `size` x 2 `size`.

    The first picture lies in the middle of the canvas. Each of the others touches it with the side or the corner that
    faces it, and is cut where the middle row or column that it lies in ends. The window is equally likely everywhere.

    Args:
        tiles: Nine pictures, each at most `size` pixels wide and high.
        size: Half the side of the result in pixels.
        rng: Where random draws come from.
    """
    left, top = ((3 * size - side) // 2 - int(rng.integers(size + 1)) for side in tiles[0].size)
    right, bottom = left + tiles[0].size[0], top + tiles[0].size[1]
    cut, placed = [tiles[0]], [(left, top)]
    around = [(column, row) for row in (-1, 0, 1) for column in (-1, 0, 1) if (column, row) != (0, 0)]
    for (column, row), tile in zip(around, tiles[1:], strict=True):
        width = tile.size[0] if column else min(tile.size[0], right - left)
        height = tile.size[1] if row else min(tile.size[1], bottom - top)
        x = {-1: left - width, 0: left, 1: right}[column]
        y = {-1: top - height, 0: top, 1: bottom}[row]
        cut.append(_cut(tile, width, height))
        placed.append((x, y))
    return _assemble(cut, placed, 2 * size)


def mixup_beta(first: Sample, second: Sample, shape: float, rng: np.random.Generator) -> Sample:
    """Blend two pictures of one size by a ratio from Beta(`shape`, `shape`); the objects of both are kept."""
    return _blend(first, second, float(rng.beta(shape, shape)))


def mixup_average(first: Sample, second: Sample, scale: Range, rng: np.random.Generator) -> Sample:
    """Blend a square picture half and half with another one that is scaled, mirrored or not, and shifted at random.

    Args:
        first: The picture, square.
        second: The other one, not wider or higher than the first.
        scale: Range of the uniform scale of the second one, after it is padded to the size of the first.
        rng: Where random draws come from.
    """
    size = first.size[0]
    second = random_resize_crop(pad(second, size, size), size, size, scale, rng)
    if rng.random() < 0.5:
        second = flip_horizontal(second)
    left, top = (int(rng.integers(size - side + 1)) for side in second.size)
    return _blend(first, pad(second, size, size, left=left, top=top), 0.5)


def _blend(first: Sample, second: Sample, ratio: float) -> Sample:
    return objects_together(imaging.blend(first.image, second.image, ratio), [first, second])


def _assemble(tiles: Sequence[Sample], corners: Sequence[tuple[int, int]], side: int) -> Sample:
    """Put pictures with their upper left corners at (x, y) of a square grey canvas; what does not fit is cut off."""
    canvas = np.full((side, side, 3), FILL, np.uint8)
    placed = []
    for tile, (left, top) in zip(tiles, corners, strict=True):
        _paste(canvas, tile.image, left, top)
        placed.append(tile.moved(canvas, (left, top)))
    return clip_to_picture(objects_together(canvas, placed))


def _cut(sample: Sample, width: int, height: int) -> Sample:
    """Return the upper left `width` x `height` pixels."""
    return clip_to_picture(dataclasses.replace(sample, image=sample.image[:height, :width]))


def _paste(canvas: Image, image: Image, left: int, top: int) -> None:
    """Copy what fits of `image` to (left, top) of `canvas`; it may lie outside in part, or altogether."""
    x1, y1 = max(left, 0), max(top, 0)
    x2, y2 = min(left + image.shape[1], canvas.shape[1]), min(top + image.shape[0], canvas.shape[0])
    if x1 < x2 and y1 < y2:
        canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
