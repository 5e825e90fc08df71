"""Colours of classes, the same in every picture and on every page."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

CLASS_COLOURS = ((86, 180, 233), (230, 159, 0), (47, 199, 154), (240, 228, 66), (204, 121, 167), (255, 122, 51))
"""Okabe and Ito's palette, which colour-blind people can tell apart; RGB."""

_GOLDEN = 0.6180339887  # of a turn: hues that follow one another so are far apart


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """Return (count, 3) RGB colours for label maps: `CLASS_COLOURS`, then hues all around, in three shades."""
    more = [
        [round(255 * channel) for channel in colorsys.hsv_to_rgb(number * _GOLDEN % 1, *_SHADES[number % 3])]
        for number in range(max(0, count - len(CLASS_COLOURS)))
    ]
    return np.array([*CLASS_COLOURS, *more], np.uint8)[:count]


_SHADES = ((0.75, 0.85), (0.45, 0.95), (0.85, 0.55))  # saturation and value
