"""Boxes, masks and label maps with their labels, drawn into a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ymir_tmi import imaging
from ymir_tmi.data.palette import class_colours
from ymir_tmi.geometry.masks import Masks
from ymir_tmi.geometry.outlines import UPPER_LEFT, farthest, outlines
from ymir_tmi.geometry.polygons import Polygons
from ymir_tmi.geometry.runs import unpack
from ymir_tmi.imaging import Image

_OPACITY = 0.45  # of a mask


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


def tint(image: Image, where: npt.NDArray[np.bool_], colours: npt.NDArray[Any], opacity: float = _OPACITY) -> None:
    """Mix colours into some pixels of `image`, in place.

    Args:
        image: (H, W, 3) RGB.
        where: (H, W) the pixels.
        colours: (3,) one colour, or (n, 3) one for each of the n pixels.
        opacity: part of the colour in the mixture.
    """
    image[where] = np.rint(image[where] * (1 - opacity) + np.asarray(colours) * opacity).astype(np.uint8)


def draw_mask(image: Image, mask: Masks, colour: tuple[int, int, int], *, thickness: int) -> None:
    """Draw the only one of `mask` into `image`, in place: translucent, with an outline along its pixels."""
    x1, y1, x2, y2 = mask.hulls()[0].astype(int).tolist()
    tint(image[y1:y2, x1:x2], mask.decode()[0, y1:y2, x1:x2], np.array(colour))
    for ring in mask_rings(mask)[0]:
        # The middle of a pixel has whole coordinates when lines are drawn, and its side half ones.
        imaging.draw_polygon(image, ring - 0.5, colour, thickness)


def mask_rings(masks: Masks) -> list[list[npt.NDArray[np.float64]]]:
    """Return the closed lines, (n, 2) points each, that bound each of the masks, those of its holes among them."""
    polygons = Polygons.from_run_lengths(unpack(masks.counts), masks.size[1])
    return [[np.reshape(ring, (-1, 2)) for part in polygons.rings(row) for ring in part] for row in range(len(masks))]


def draw_label_map(
    image: Image, label_map: npt.NDArray[np.uint8], class_names: Sequence[str], *, text_scale: float
) -> None:
    """Tint every pixel of `image` in the colour of its class, in place, and name the colours in the upper left corner.

    Args:
        image: (H, W, 3) RGB.
        label_map: (H, W) positions in `class_names`; other values leave a pixel as it is.
        class_names: what the classes are called.
        text_scale: size of the names; 1 is about 20 pixels high.
    """
    colours = class_colours(len(class_names))
    known = label_map < len(class_names)
    tint(image, known, colours[label_map[known]])
    row = round(34 * text_scale)
    for place, label in enumerate(np.unique(label_map[known]).tolist(), 1):
        red, green, blue = colours[label].tolist()
        imaging.draw_label(image, class_names[label], (0, place * row), (red, green, blue), text_scale)
