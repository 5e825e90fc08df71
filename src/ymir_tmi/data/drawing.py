"""Boxes and their labels drawn into a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.geometry.outlines import UPPER_LEFT, farthest, outlines
from ymir_tmi.imaging import Image


def draw_box(
    image: Image, box: npt.NDArray[Any], text: str, colour: tuple[int, int, int], *, thickness: int, text_scale: float
) -> None:
    """Draw a box into `image`, in place, with its label above its uppermost corner.

    Args:
        image: (H, W, 3) RGB.
        box: (4,) xyxy, which is drawn along whole pixels, or (5,) a rotated box.
        text: what the label says.
        colour: red, green and blue of outline and label.
        thickness: of the outline, in pixels.
        text_scale: size of the text; 1 is about 20 pixels high.
    """
    [outline] = outlines(np.rint(box[None]) if len(box) == 4 else box[None])
    imaging.draw_polygon(image, outline, colour, thickness)
    x, y = farthest(outline, UPPER_LEFT).tolist()
    imaging.draw_label(image, text, (round(x), round(y)), colour, text_scale)
