"""Masks as YOLO's outlines: filled, they are the masks again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ymir_tmi.geometry.masks import Masks
from ymir_tmi.inference.writers import write_yolo

WIDTH, HEIGHT = 40, 30


def bitmaps() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ring = (np.hypot(x - 15, y - 14) < 12) & (np.hypot(x - 15, y - 14) > 5)
    parts = ((abs(x - 8) < 4) & (abs(y - 6) < 3)) | (np.hypot(x - 30, y - 20) < 6) | ((x == 39) & (y == 29))
    diagonal = ((x == 5) & (y == 5)) | ((x == 6) & (y == 6))
    noise = np.random.default_rng(0).random(x.shape) < 0.5
    return np.stack([ring, parts, diagonal, noise, np.ones_like(ring), np.zeros_like(ring)])


def fill(points: np.ndarray) -> np.ndarray:
    """Return the pixels whose centres a ray to the right leaves through an odd number of edges, one by one."""
    inside = np.zeros((HEIGHT, WIDTH), bool)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, 0), strict=True):
        for row in range(HEIGHT):
            if (y1 <= row + 0.5) != (y2 <= row + 0.5):
                crossing = x1 + (row + 0.5 - y1) * (x2 - x1) / (y2 - y1)
                inside[row] ^= np.arange(WIDTH) + 0.5 < crossing
    return inside


def test_outlines_hold_parts_and_holes(tmp_path: Path) -> None:
    masks = Masks.encode(bitmaps())
    count = len(masks)
    row = {
        "size": [WIDTH, HEIGHT],
        "boxes": masks.hulls().tolist(),
        "scores": [0.9 - number / 10 for number in range(count)],
        "labels": list(range(count)),
        "masks": [counts.decode() for counts in masks.counts],
    }
    write_yolo(tmp_path, ["a/0.jpg", "1.jpg"], [row, {"error": "gone"}])
    assert not (tmp_path / "1.txt").exists()
    lines = [line.split() for line in (tmp_path / "a" / "0.txt").read_text().splitlines()]
    assert [int(line[0]) for line in lines] == [0, 1, 2, 3, 4]  # the last has no pixels
    for line, bitmap, score in zip(lines, bitmaps(), row["scores"], strict=False):
        numbers = np.array(line[1:], float)
        assert numbers[-1] == np.float64(f"{score:.9g}")
        points = numbers[:-1].reshape(-1, 2)
        assert points.min() >= 0 and points.max() <= 1
        assert np.array_equal(fill(points * [WIDTH, HEIGHT]), bitmap)
