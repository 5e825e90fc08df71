"""Draw the picture of docs/rotated.md: python docs/images/draw_rotated_boxes.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ymir_tmi import imaging
from ymir_tmi.geometry.outlines import outlines
from ymir_tmi.imaging import Image

WIDTH, HEIGHT = 900, 400
FINER = 2  # drawn larger, so that lines end up smooth
COLOUR_STEP = 15  # fewer colours make a smaller file

PAPER, INK, GREY, BLUE, ORANGE = (255, 255, 255), (40, 40, 40), (150, 150, 150), (40, 110, 190), (225, 110, 20)

Point = tuple[float, float]


def draw() -> Image:
    """Return the picture: one box with its five numbers, and boxes at angles all around."""
    canvas = np.full((HEIGHT * FINER, WIDTH * FINER, 3), PAPER, np.uint8)
    _one_box(canvas)
    _many_boxes(canvas)
    small = imaging.resize(canvas, WIDTH, HEIGHT, "area")
    return np.rint(small / COLOUR_STEP).astype(np.uint8) * COLOUR_STEP


def _one_box(canvas: Image) -> None:
    cx, cy, w, h, angle = box = 235.0, 215.0, 270.0, 100.0, 0.5
    along, across = (math.cos(angle), math.sin(angle)), (-math.sin(angle), math.cos(angle))
    _axes(canvas, (40, 40))
    _line(canvas, [(cx, cy), (cx + 165, cy)], GREY, 1)
    _box(canvas, box, BLUE)
    _line(canvas, _arc((cx, cy), 75, 0, angle), ORANGE, 3)
    tip = (cx + 75 * along[0], cy + 75 * along[1])
    _arrow_head(canvas, tip, (-along[1], along[0]), ORANGE)
    _line(canvas, [(cx, cy), (cx + w / 2 * along[0], cy + w / 2 * along[1])], ORANGE, 1)
    _line(canvas, _arc((cx, cy), 4, 0, 2 * math.pi), INK, 4)
    _text(canvas, "(cx, cy)", (cx - 75, cy + 4))
    _text(canvas, "angle > 0: clockwise", (cx + 113, cy - 10))
    _text(canvas, "w", (cx + (h / 2 + 8) * -across[0] - 4, cy - (h / 2 + 8) * across[1] - 2))
    _text(canvas, "h", (cx - (w / 2 + 14) * along[0] - 8, cy - (w / 2 + 14) * along[1] + 4))


def _many_boxes(canvas: Image) -> None:
    _text(canvas, "le90: w is the longer side, -pi/2 <= angle < pi/2", (475, 42))
    angles = (
        ("-pi/2", -math.pi / 2),
        ("-pi/3", -math.pi / 3),
        ("-pi/6", -math.pi / 6),
        ("0", 0.0),
        ("pi/6", math.pi / 6),
    )
    for place, (name, angle) in enumerate((*angles, ("pi/3", math.pi / 3))):
        cx, cy = 540.0 + 140 * (place % 3), 130.0 + 165 * (place // 3)
        _line(canvas, [(cx, cy), (cx + 55, cy)], GREY, 1)
        _box(canvas, (cx, cy, 96, 40, angle), BLUE)
        _line(canvas, [(cx, cy), (cx + 48 * math.cos(angle), cy + 48 * math.sin(angle))], ORANGE, 3)
        if angle:
            _line(canvas, _arc((cx, cy), 26, 0, angle), ORANGE, 2)
        _text(canvas, name, (cx - 20, cy + 80))


def _axes(canvas: Image, origin: Point) -> None:
    x, y = origin
    for end, direction, name in (((x + 90, y), (1.0, 0.0), "x"), ((x, y + 90), (0.0, 1.0), "y")):
        _line(canvas, [origin, end], INK, 2)
        _arrow_head(canvas, end, direction, INK)
        _text(canvas, name, (end[0] + 10 * direction[0] - 3, end[1] + 24 * direction[1] + 4 * direction[0]))
    _text(canvas, "(0, 0)", (x + 4, y - 8))


def _box(canvas: Image, box: tuple[float, ...], colour: tuple[int, int, int]) -> None:
    [corners] = outlines(np.array([box]))
    imaging.draw_polygon(canvas, corners * FINER, colour, 3 * FINER)


def _arc(centre: Point, radius: float, start: float, end: float) -> list[Point]:
    angles = np.linspace(start, end, 60)
    return [(centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)) for angle in angles]


def _line(canvas: Image, points: list[Point], colour: tuple[int, int, int], thickness: int) -> None:
    there_and_back = np.array([*points, *points[::-1]]) * FINER
    imaging.draw_polygon(canvas, there_and_back, colour, thickness * FINER)


def _arrow_head(canvas: Image, tip: Point, direction: Point, colour: tuple[int, int, int]) -> None:
    for side in (-1, 1):
        x = tip[0] - 8 * direction[0] - side * 5 * direction[1]
        y = tip[1] - 8 * direction[1] + side * 5 * direction[0]
        _line(canvas, [tip, (x, y)], colour, 2)


def _text(canvas: Image, text: str, corner: Point) -> None:
    imaging.draw_label(canvas, text, (round(corner[0] * FINER), round(corner[1] * FINER)), PAPER, 0.5 * FINER)


if __name__ == "__main__":
    imaging.write_image(Path(__file__).with_name("rotated-boxes.png"), draw())
